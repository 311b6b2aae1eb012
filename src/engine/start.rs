//! An engine begins: folders, lock, spool, recovery, watches, key; in this order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::domain::arrivals::Arrivals;
use crate::domain::gate::{Gate, Why};
use crate::domain::ids::Mono;
use crate::domain::news::News;
use crate::domain::pace::Pace;
use crate::domain::status::{PauseKind, Status};
use crate::inbox::{Around, Mounts};
use crate::outbox::folder::Folder;
use crate::outbox::listing::Listings;
use crate::outbox::spool::Spool;
use crate::reference::Budget;

use super::clock::Clock;
use super::ctx::{Ctx, SingleFlight};
use super::site::{Site, SiteError};
use super::studio::Studio;
use super::{
    Control, DECODE_BUDGET, Deps, Ended, Engine, EngineError, Held, Host, InboxCheck, LOOK_AGAIN, Locked, Locks,
    inflow, plan, status,
};

/// Locks the working folders of a site, but for the inbox itself. A place beside the inbox that another daemon works in
/// is no longer one of the site's: what lies there is in that one's hands.
pub(super) fn lock_workings(locks: &dyn Locks, site: &mut Site) -> Result<Vec<Held>, Locked> {
    let mut held = vec![locks.working(&site.working)?];
    // A link inside the inbox leads nowhere that is ours.
    site.other_working.take_if(|other| Folder::root(other).is_err());
    let Some(other) = &site.other_working else { return Ok(held) };
    match locks.former_working(other) {
        Ok(lock) => held.extend(lock),
        // In the inbox only a daemon of this very inbox can have it.
        Err(Locked::Held(why)) if other.starts_with(&site.inbox) => return Err(Locked::Held(why)),
        Err(Locked::Held(why) | Locked::Busy(why) | Locked::Failed(why)) => {
            tracing::warn!(reason = %why, folder = %other.display(), "this working folder is left alone");
            site.other_working = None;
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

impl Engine {
    /// An engine over folders that are there, with everything that a crash left put in order. Ends with an
    /// error if a person has to act first. Waits for an inbox that is not there, telling so, until `control`
    /// says stop (`Ok(None)`).
    pub async fn start(
        deps: Deps,
        mut control: mpsc::Receiver<Control>,
        publish: watch::Sender<Status>,
    ) -> Result<Option<Self>, EngineError> {
        let Deps { mut config, state_dir, ledger, ledger_was_good, keys, client, once, host } = deps;
        let Host { beat, pulse, ready, locks, tell } = host;
        let mut ready = Some(ready);
        let clock = Clock::start();
        let (tx, rx) = mpsc::channel(1024);
        let since = clock.wall();
        let mut told_pause = None;
        let (mut site, inbox_lock) = loop {
            // Before anything is tried in it.
            let lock = match std::fs::metadata(&config.folders.inbox) {
                Ok(found) if found.is_dir() => locks.inbox(&config.folders.inbox).map(Some),
                _ => Ok(None),
            };
            let why = match lock {
                Err(Locked::Busy(why)) if !once => why,
                Err(why) => return Err(not_locked(why)),
                Ok(lock) => match (Site::open(&config, &state_dir), lock) {
                    (Ok(site), Some(lock)) => break (site, lock),
                    // It has come just now.
                    (Ok(_), None) => continue,
                    (Err(e @ SiteError::NoInbox { .. }), _) if !once => e.to_string(),
                    (Err(e), _) => return Err(EngineError::Wrong(e.to_string())),
                },
            };
            let text = format!("{why}; it is waited for");
            if publish.send_if_modified(|status| status::lost(status, &text, since)) {
                tracing::warn!("{text}");
                tell.say(&News::Paused { kind: PauseKind::Inbox, reason: text.clone(), since, until: None });
                told_pause = Some(text);
            }
            if let Some(ready) = ready.take() {
                ready();
            }
            let pause = beat.as_ref().map_or(LOOK_AGAIN, |(every, _)| (*every).min(LOOK_AGAIN));
            tokio::select! {
                asked = control.recv() => match asked {
                    None | Some(Control::Stop) => return Ok(None),
                    Some(Control::Reload(new)) => config = config.reloaded(*new),
                    Some(Control::Rescan) => {}
                },
                () = tokio::time::sleep(pause) => {}
            }
            if let Some((_, beat)) = &beat {
                beat();
            }
        };
        let mut held = lock_workings(&*locks, &mut site).map_err(not_locked)?;
        held.push(inbox_lock);
        let spool = Spool::new(&state_dir).map_err(|e| EngineError::State(e.to_string()))?;
        // What lies there was of no use to anybody but the process that made it.
        let _ = std::fs::remove_dir_all(plan::prepared_dir(&state_dir));
        let backend = inflow::backend(&config, &site);
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
            figures: status::Figures::default(),
            ended: Ended::default(),
            ledger_was_good,
            ctx,
        };
        engine.recover().await?;
        engine.start_watching();
        if engine.ctx.keys.key().is_none()
            && let Err(e) = engine.ctx.keys.read()
        {
            let (now, wall) = (engine.now(), engine.ctx.clock.wall());
            tracing::error!("{e}");
            engine.gate.pause(Why::Key, &e.to_string(), now, wall);
        }
        Ok(Some(engine))
    }
}
