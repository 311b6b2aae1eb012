//! An engine begins: folders, lock, spool, recovery, watches, key; in this order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::domain::arrivals::Arrivals;
use crate::domain::gate::{Gate, Why};
use crate::domain::ids::Mono;
use crate::domain::news::News;
use crate::domain::pace::Pace;
use crate::domain::status::{PauseKind, Status};
use crate::inbox::{Around, Backend, Mounts};
use crate::outbox::folder::Folder;
use crate::outbox::listing::Listings;
use crate::outbox::spool::Spool;
use crate::reference::Budget;

use super::clock::Clock;
use super::ctx::{Ctx, SingleFlight, blocking};
use super::recover::recover;
use super::site::{Site, SiteError};
use super::studio::Studio;
use super::{
    Beat, Control, DECODE_BUDGET, Deps, Ended, Engine, EngineError, Held, Host, InboxCheck, LOOK_AGAIN, Locked, Locks,
    SILENCE, inflow, plan, status,
};

/// Locks the working folders of a site, but for the inbox itself. A place beside the inbox that another daemon works in
/// is no longer one of the site's: what lies there is in that one's hands.
pub(super) fn lock_workings(locks: &dyn Locks, site: &mut Site) -> Result<Vec<Held>, Locked> {
    let mut held = vec![locks.working(&site.working, &site.inbox)?];
    for other in std::mem::take(&mut site.other_workings) {
        // A link inside the inbox leads nowhere that is ours.
        if Folder::root(&other).is_err() {
            continue;
        }
        match locks.former_working(&other, &site.inbox) {
            // Beside the inbox a folder of that name may be anybody's, and so may a working folder.
            Ok(None) if !other.starts_with(&site.inbox) => {}
            Ok(lock) => {
                held.extend(lock);
                site.other_workings.push(other);
            }
            // In the inbox only a daemon of this very inbox can have it.
            Err(Locked::Held(why)) if other.starts_with(&site.inbox) => return Err(Locked::Held(why)),
            Err(Locked::Held(why) | Locked::Busy(why) | Locked::Failed(why)) => {
                tracing::warn!(reason = %why, folder = %other.display(), "this working folder is left alone");
            }
        }
    }
    Ok(held)
}

fn not_locked(why: Locked) -> EngineError {
    match why {
        Locked::Held(text) | Locked::Busy(text) => EngineError::Held(text),
        Locked::Failed(text) => EngineError::State(text),
    }
}

/// What the first look at the folders found.
enum First {
    /// They are there, and locked for us.
    Open(Box<Site>, Vec<Held>, Backend),
    /// The inbox came while it was looked for.
    ComesJustNow,
    /// The inbox is not there, or somebody else's for a moment.
    Wait(String),
}

/// Looks at the folders and locks them. On a share each of these calls can hang.
fn look(config: &Config, state_dir: &Path, locks: &dyn Locks, once: bool) -> Result<First, EngineError> {
    // Before anything is tried in it.
    let lock = match std::fs::metadata(&config.folders.inbox) {
        Ok(found) if found.is_dir() => locks.inbox(&config.folders.inbox).map(Some),
        _ => Ok(None),
    };
    let lock = match lock {
        Err(Locked::Busy(why)) if !once => return Ok(First::Wait(why)),
        lock => lock.map_err(not_locked)?,
    };
    match (Site::open(config, state_dir), lock) {
        (Ok(mut site), Some(lock)) => {
            let mut held = lock_workings(locks, &mut site).map_err(not_locked)?;
            held.push(lock);
            let backend = inflow::backend(config, &site);
            Ok(First::Open(Box::new(site), held, backend))
        }
        (Ok(_), None) => Ok(First::ComesJustNow),
        (Err(e @ SiteError::NoInbox { .. }), _) if !once => Ok(First::Wait(e.to_string())),
        (Err(e), _) => Err(EngineError::Wrong(e.to_string())),
    }
}

/// Hears what it is told, and beats, while there is no loop yet.
struct Attendant<'a> {
    control: &'a mut mpsc::Receiver<Control>,
    beat: Option<&'a Beat>,
    /// Between two beats.
    pause: Duration,
    /// The newest configuration that came meanwhile.
    reload: Option<Box<Config>>,
}

impl Attendant<'_> {
    /// What comes of `work`; `None` if it was told to stop before. `silent`: it takes so long that a server must be dead.
    async fn attend<T>(&mut self, work: impl Future<Output = T>, mut silent: impl FnMut()) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let (begun, mut is_silent) = (Instant::now(), false);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                asked = self.control.recv() => match asked {
                    None | Some(Control::Stop) => return None,
                    Some(Control::Reload(new)) => self.reload = Some(new),
                    Some(Control::Rescan) => {}
                },
                () = tokio::time::sleep(self.pause) => {}
            }
            if let Some((_, beat)) = self.beat {
                beat();
            }
            if begun.elapsed() >= SILENCE && !std::mem::replace(&mut is_silent, true) {
                silent();
            }
        }
    }
}

impl Engine {
    /// An engine over folders that are there, with everything that a crash left put in order. Ends with an
    /// error if a person has to act first. Waits for an inbox that is not there, telling so, until `control`
    /// says stop (`Ok(None)`).
    pub async fn start(
        deps: Deps,
        mut control: mpsc::Receiver<Control>,
        publish: watch::Sender<Status>,
    ) -> Result<Option<Self>, EngineError> {
        let Deps { config, state_dir, ledger, ledger_was_good, keys, client, once, host } = deps;
        let Host { beat, pulse, ready, locks, tell } = host;
        let mut ready = Some(ready);
        let clock = Clock::start();
        let (tx, rx) = mpsc::channel(1024);
        let since = clock.wall();
        let mut told_pause = None;
        let pause = beat.as_ref().map_or(LOOK_AGAIN, |(every, _)| (*every).min(LOOK_AGAIN));
        let mut attendant = Attendant { control: &mut control, beat: beat.as_ref(), pause, reload: None };
        let paused = tell.clone();
        let mut wait_for = |why: &str| {
            if once {
                return;
            }
            let text = format!("{why}; it is waited for");
            if publish.send_if_modified(|status| status::lost(status, &text, since)) {
                tracing::warn!("{text}");
                paused.say(&News::Paused { kind: PauseKind::Inbox, reason: text.clone(), since, until: None });
                told_pause = Some(text);
            }
            if let Some(ready) = ready.take() {
                ready();
            }
        };
        let (site, held, backend) = loop {
            let look = {
                let (config, state_dir, locks) = (config.clone(), state_dir.clone(), Arc::clone(&locks));
                blocking(move || look(&config, &state_dir, &*locks, once))
            };
            let silent = format!("the inbox {} does not answer", config.folders.inbox.display());
            let Some(looked) = attendant.attend(look, || wait_for(&silent)).await else { return Ok(None) };
            match looked.map_err(EngineError::State)?? {
                First::Open(site, held, backend) => break (*site, held, backend),
                First::ComesJustNow => {}
                First::Wait(why) => {
                    wait_for(&why);
                    if attendant.attend(tokio::time::sleep(LOOK_AGAIN), || {}).await.is_none() {
                        return Ok(None);
                    }
                }
            }
        };
        let spool = Spool::new(&state_dir).map_err(|e| EngineError::State(e.to_string()))?;
        // What lies there was of no use to anybody but the process that made it.
        let _ = std::fs::remove_dir_all(plan::prepared_dir(&state_dir));
        let rules = inflow::rules(&config, &backend, once);
        let ctx = Ctx {
            config: Arc::new(config),
            site: Arc::new(site),
            ledger,
            client,
            keys,
            spool: Arc::new(spool),
            listings: Arc::new(Listings::new()),
            budget: Arc::new(Budget::new(DECODE_BUDGET)),
            studio: Studio::open().map_err(|e| EngineError::State(format!("no thread for pictures: {e}")))?,
            uploads: Arc::new(SingleFlight::default()),
            last_look: Arc::default(),
            locks: Arc::clone(&locks),
            closing: Arc::default(),
            ended: Arc::default(),
            clock,
            tell,
            tx,
        };
        let silent = "what was in work takes long to be looked at (a server or disk may hang)";
        let recovered = attendant.attend(recover(ctx.clone(), ledger_was_good), || wait_for(silent)).await;
        let Some(recovered) = recovered.transpose()? else {
            // What it is about goes on until this process ends, and nobody else may begin before that.
            std::mem::forget(held);
            return Ok(None);
        };
        let reload = attendant.reload.take();
        let config = &ctx.config;
        let mut engine = Self {
            host_beat: beat,
            pulse,
            host_ready: ready,
            locks,
            held,
            rx,
            control,
            publish,
            tasks: JoinSet::new(),
            arrivals: Arrivals::new(rules),
            gate: Gate::new(config.retry.probe_interval),
            pace: Pace::new(config.api.requests_per_minute, config.api.max_in_flight),
            plans: HashMap::new(),
            plan_order: Vec::new(),
            plan_retries: HashMap::new(),
            works: BTreeMap::new(),
            work_order: Vec::new(),
            backend,
            watcher: None,
            mounts: Mounts::watch().ok(),
            around: Around::watch(&ctx.site.inbox).ok(),
            inbox_doubted: false,
            inbox_lost: None,
            inbox_check: InboxCheck::No,
            unanswered: None,
            inbox_silent: None,
            scanning: false,
            rescan_wanted: true,
            next_scan: Mono::default(),
            scans_done: 0,
            presets_until: None,
            looking: false,
            hints: HashMap::new(),
            look_at: None,
            trouble: None,
            trouble_past: None,
            recovering: false,
            recover_wanted: false,
            recover_running: false,
            stranded: None,
            continued: HashSet::new(),
            next_tidy: Mono::default(),
            room_check: false,
            looking_at_folders: Arc::default(),
            key_unread: 0,
            limited: None,
            blocked: HashMap::new(),
            warned: HashSet::new(),
            told_pause,
            told_limit: None,
            turned: Mono::default(),
            turned_wall: since,
            stopping: None,
            once,
            once_wait: None,
            once_well: None,
            next_beat: Mono::default(),
            next_usage: Mono::default(),
            usage_wanted: false,
            status_due: Some(Mono::default()),
            gone_back: Vec::new(),
            figures: status::Figures::default(),
            ended: Ended::default(),
            ctx,
        };
        engine.recovered_at_start(recovered).await?;
        engine.start_watching();
        if engine.ctx.keys.key().is_none()
            && let Err(e) = engine.ctx.keys.read()
        {
            let (now, wall) = (engine.now(), engine.ctx.clock.wall());
            tracing::error!("{e}");
            engine.gate.pause(Why::Key, &e.to_string(), now, wall);
        }
        if let Some(new) = reload {
            engine.reload(*new, engine.now());
        }
        Ok(Some(engine))
    }
}
