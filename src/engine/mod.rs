//! One loop that takes events, asks the domain what to do, hands effects to workers and records before it acts.
//!
//! [`Engine::run`] is the daemon: it ends by a signal, or in `once` mode when nothing is left to do. Workers own
//! their work and send one event back; nothing but the loop changes the engine's state, and no
//! transaction is held across an await. What it is doing is published as a [`Status`] to whoever watches.

mod answers;
mod bury;
pub mod clock;
mod closing;
mod ctx;
mod deliver;
mod ended;
mod event;
mod file;
pub mod frozen;
mod inflow;
mod keep;
mod once;
mod parts;
pub mod plan;
mod pump;
pub mod read;
mod recover;
mod reload;
mod send;
pub mod site;
mod start;
mod status;
mod studio;
mod waits;
mod works;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use ctx::KeyRing;
pub(crate) use file::DROP_BOTH;
pub use parts::{Beat, Control, Deps, Ended, EngineError, Held, Host, Locked, Locks, Pulse, Tell};
pub use reload::client_settings;

use crate::domain::arrivals::Arrivals;
use crate::domain::gate::Gate;
use crate::domain::ids::{DropId, Facts, Mono, Place, RelPath};
use crate::domain::pace::Pace;
use crate::domain::status::Status;
use crate::inbox::{Around, Backend, HintHow, Mounts, Watcher};

use ctx::Ctx;
use event::{Event, InboxNow, Planned};
use site::Site;
use works::Work;

/// Decoded pictures held at once, in bytes: one of 24 megapixels and its scaled copy.
const DECODE_BUDGET: u64 = 128 * 1024 * 1024;

/// How often a lost inbox, a full disk or an unwritable folder is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Events are taken together for so long before the loop looks at what follows from them.
const TOGETHER: Duration = Duration::from_millis(1);

/// When a beat that could not be done is tried again, at the latest.
const BEAT_AGAIN: Duration = Duration::from_millis(250);

/// Where a drop was just taken from the inbox, something new may lie under its name; that is looked for so much later,
/// together with what else there is to be looked at. It would wait for the first to be filed anyway.
const BEHIND_A_CLAIM: Duration = Duration::from_millis(50);

/// How long the inbox may owe an answer before that is called a pause.
pub const SILENCE: Duration = Duration::from_secs(20);

/// What is being found out about the inbox as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InboxCheck {
    No,
    /// Whether it is there, and the same.
    Looking,
    /// It is there again, and is being locked.
    Taking,
}

/// A candidate that was handed out by the arrivals and not answered yet.
#[derive(Debug)]
enum Planning {
    /// A worker reads it.
    Reading,
    /// It could start.
    Ready(Box<Planned>),
    /// It is being claimed, and counts as sent since then; which ended drop it continues.
    Starting(Option<DropId>, Mono),
    /// It is on its way to errors.
    Burying,
    /// It is bad, which was found during a pause: it goes to errors after it.
    Doomed(Box<crate::domain::arrivals::Candidate>, Vec<crate::ledger::Member>, String),
    /// Its upload failed; it is tried again then.
    Later(Box<crate::domain::arrivals::Candidate>, Mono),
    /// The credits request decides about its upload's refusal.
    Asking,
}

impl Planning {
    /// Whether it may start soon by itself.
    fn may_start(&self) -> bool {
        matches!(self, Self::Reading | Self::Ready(_) | Self::Asking)
    }

    /// Whether it counts among those that wait to be sent.
    fn waits_to_be_sent(&self) -> bool {
        !matches!(self, Self::Burying | Self::Doomed(..))
    }
}

/// Trouble of our own that keeps everything from being sent, and when it is looked at again.
#[derive(Debug)]
struct Trouble {
    text: String,
    since: Timestamp,
    again: Mono,
    /// How long between two tries.
    wait: Duration,
}

/// Trouble that seemed over.
#[derive(Debug)]
struct PastTrouble {
    text: String,
    cleared: Mono,
    wait: Duration,
    since: Timestamp,
}

/// A limit that was reached.
#[derive(Debug)]
struct Limited {
    /// By the clock that the ledger counts with: it goes on while the machine sleeps.
    until_since_boot: Duration,
    until: Mono,
    until_wall: Timestamp,
    which: &'static str,
}

/// The loop and its state.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each of its own worker")]
pub struct Engine {
    ctx: Ctx,
    host_beat: Option<Beat>,
    pulse: Option<Pulse>,
    host_ready: Option<Box<dyn FnOnce() + Send>>,
    locks: Arc<dyn Locks>,
    /// What keeps others away from what this one works on.
    held: Vec<Held>,
    rx: mpsc::Receiver<Event>,
    control: mpsc::Receiver<Control>,
    publish: watch::Sender<Status>,
    tasks: JoinSet<()>,

    arrivals: Arrivals,
    gate: Gate,
    pace: Pace,
    plans: HashMap<Place, Planning>,
    plan_order: Vec<Place>,
    /// How often the upload of what lies there was tried.
    plan_retries: HashMap<Place, (Facts, u32)>,
    works: BTreeMap<DropId, Work>,
    work_order: Vec<DropId>,

    backend: Backend,
    watcher: Option<Arc<Watcher>>,
    mounts: Option<Mounts>,
    around: Option<Around>,
    /// Something was mounted or unmounted, or the inbox's name came or went: it may be another one.
    inbox_doubted: bool,
    inbox_lost: Option<(String, Timestamp)>,
    inbox_check: InboxCheck,
    /// Since when the inbox owes an answer.
    unanswered: Option<Mono>,
    /// It has owed one for too long.
    inbox_silent: Option<(String, Timestamp)>,
    scanning: bool,
    rescan_wanted: bool,
    next_scan: Mono,
    scans_done: u64,
    /// What the presets of the first scan say is waited for until then.
    presets_until: Option<Mono>,
    looking: bool,
    hints: HashMap<(RelPath, std::ffi::OsString), HintHow>,
    /// When the first of them is to be looked at.
    look_at: Option<Mono>,

    trouble: Option<Trouble>,
    trouble_past: Option<PastTrouble>,
    /// Recovery runs again: nothing is claimed meanwhile.
    recovering: bool,
    recover_wanted: bool,
    recover_running: bool,
    /// Files without a row lie in working: when they are to go back, and the wait before.
    stranded: Option<(Mono, Duration)>,
    /// Ended drops that were continued in this run: each is, once.
    continued: HashSet<DropId>,
    next_tidy: Mono,
    room_check: bool,
    looking_at_folders: Arc<AtomicBool>,
    /// So many times the key is being read with a new configuration: till then nobody knows which host it is for.
    key_unread: u32,
    limited: Option<Limited>,
    blocked: HashMap<DropId, (String, Option<Mono>)>,
    warned: HashSet<String>,
    /// The pause that was told last, while it lasts.
    told_pause: Option<String>,
    /// The limit that was told last, while it is reached.
    told_limit: Option<&'static str>,

    /// The last turn: what was due by then was done, or waits for an event.
    turned: Mono,
    turned_wall: Timestamp,
    stopping: Option<Mono>,
    once: bool,
    once_wait: Option<Mono>,
    /// Since when it has waited for nothing of the kind.
    once_well: Option<Mono>,
    next_beat: Mono,
    next_usage: Mono,
    usage_wanted: bool,
    status_due: Option<Mono>,
    /// Drops that lie in the inbox again and were not seen there yet, and since when.
    gone_back: Vec<(Place, Mono)>,
    figures: status::Figures,
    ended: Ended,
}

impl Engine {
    /// Runs until told to stop, or in `once` mode until nothing is left to do.
    pub async fn run(mut self) -> Ended {
        self.turn();
        loop {
            let next = self.next_wake();
            let wake = self.ctx.clock.instant(next);
            tokio::select! {
                biased;
                asked = self.control.recv() => self.controlled(asked.unwrap_or(Control::Stop)),
                Some(event) = self.rx.recv() => {
                    let begun = std::time::Instant::now();
                    self.take(event);
                    // What came together is taken together, so that one look serves all.
                    while begun.elapsed() < TOGETHER {
                        let Ok(event) = self.rx.try_recv() else { break };
                        self.take(event);
                    }
                }
                () = watched(self.watcher.clone()) => self.drain_hints(),
                () = Pulse::asked(self.pulse.as_mut()) => {}
                () = mounted(self.mounts.as_ref()) => {
                    self.inbox_doubted = true;
                    self.look_at_folders();
                }
                () = replaced(self.around.as_ref()) => self.inbox_doubted = true,
                Some(ended) = self.tasks.join_next() => {
                    if ended.is_err_and(|e| e.is_panic()) {
                        // What it had in hand is nobody's now. A new start settles it.
                        tracing::error!("a worker failed in a way nobody foresaw; please report this");
                        self.ended.crashed = true;
                        break;
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.turn();
            if self.is_done() {
                break;
            }
        }
        self.note_if_cut_short();
        self.ctx.ended.store(true, std::sync::atomic::Ordering::SeqCst);
        self.tasks.shutdown().await;
        let held = std::mem::take(&mut self.held);
        // They lie with the inbox, so letting go of them can hang.
        let gone = tokio::task::spawn_blocking(move || drop(held));
        let _ = tokio::time::timeout(LOOK_AGAIN, gone).await;
        self.last_figures().await;
        self.publish_status(true);
        self.ended
    }

    fn now(&self) -> Mono {
        self.ctx.clock.mono()
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// [`ctx::telling`]
    fn tell_later(&mut self, later: Option<impl Future<Output = ()> + Send + 'static>) {
        if let Some(later) = later {
            self.spawn(later);
        }
    }

    /// Everything that follows from the state as it is now.
    fn turn(&mut self) {
        let now = self.now();
        self.turned = now;
        self.turned_wall = self.ctx.clock.wall();
        if let Some((every, beat)) = &self.host_beat
            && now >= self.next_beat
        {
            self.next_beat = now + if beat() { *every } else { (*every).min(BEAT_AGAIN) };
        }
        if self.arrivals.next_wake().is_some_and(|at| at <= now) {
            // What time alone changes is news too.
            self.status_due.get_or_insert(now + status::QUIET);
        }
        self.arrivals.tick(now);
        self.keep_looking(now);
        self.read_presets(now);
        self.recover_when_still();
        self.pump(now);
        self.tell_waits();
        self.tidy(now);
        self.refresh_status(now);
        if let Some(pulse) = &mut self.pulse {
            pulse.turned();
        }
    }

    /// Once a day the ledger forgets what is old enough.
    fn tidy(&mut self, now: Mono) {
        if now < self.next_tidy {
            return;
        }
        self.next_tidy = now + Duration::from_secs(24 * 3600);
        let (ctx, keep) = (self.ctx.clone(), self.ctx.config.service.keep_history);
        self.spawn(async move {
            let wall = ctx.clock.wall();
            // Each call is bounded; this many of them are more than a day can bring.
            for _ in 0..100 {
                match ctx.record(move |l| l.tidy(keep, wall)).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(e) => {
                        tracing::warn!(error = %e, "the ledger could not be tidied; it is tried again tomorrow");
                        return;
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }

    fn controlled(&mut self, control: Control) {
        let now = self.now();
        match control {
            Control::Stop => {
                if self.stopping.is_none() {
                    tracing::info!(
                        in_flight = self.pace.in_flight(),
                        "stopping: nothing new is taken, what is in flight may finish"
                    );
                    self.stopping = Some(now + self.ctx.config.service.grace);
                    self.works.values_mut().for_each(|w| w.stays = false);
                    self.send_back_what_can_go();
                }
            }
            Control::Rescan => {
                self.rescan_wanted = true;
                self.look_at_folders();
                if self.inbox_lost.is_some() {
                    self.next_scan = now;
                }
                self.gate.probe_now(now);
            }
            Control::Reload(config) => self.reload(*config, now),
        }
        self.status_due.get_or_insert(now);
    }

    /// When something is to be done although nothing happens.
    fn next_wake(&mut self) -> Mono {
        let now = self.now();
        let mut wakes = vec![now + Duration::from_secs(3600)];
        wakes.extend(self.status_due);
        wakes.extend(self.host_beat.as_ref().map(|_| self.next_beat));
        wakes.extend(self.stopping);
        wakes.push(self.next_tidy);
        // As of the last turn: what has passed since is to be seen, and what had passed by then was.
        wakes.extend(self.once_wait.filter(|at| *at > self.turned));
        wakes.extend(self.unanswered.map(|since| since + SILENCE));
        if self.stopping.is_none() {
            wakes.extend(self.arrivals.next_wake());
            wakes.extend(self.gate.next_wake());
            wakes.extend(self.trouble.as_ref().filter(|_| !self.room_check).map(|t| t.again));
            // The machine may sleep meanwhile.
            wakes.extend(self.limited.as_ref().map(|l| l.until.min(self.turned + Duration::from_secs(60))));
            wakes.extend(self.stranded.map(|(at, _)| at));
            wakes.extend(self.blocked.values().filter_map(|(_, at)| *at));
            wakes.extend(self.pace_wake());
            wakes.extend(self.look_at.filter(|_| !self.looking));
            wakes.extend(self.presets_until);
            if !self.scanning {
                wakes.push(self.next_scan);
            }
        }
        // What was due at the last turn and still is waits for something that comes as an event.
        let turned = self.turned;
        wakes.into_iter().filter(|at| *at > turned).min().unwrap_or(now)
    }

    fn take(&mut self, event: Event) {
        let now = self.now();
        self.status_due.get_or_insert(now + status::QUIET);
        match event {
            Event::Scan(report, _turn) => self.scanned(report, now),
            Event::ScanEnded { everything, watch_limit, watch_errors } => {
                self.scan_ended(everything, watch_limit, watch_errors, now);
            }
            Event::Looked(looked) => self.looked(looked, now),
            Event::Preset { query, state } => self.preset_read(&query, state, now),
            Event::Inbox(found) => self.inbox_found(found, now),
            Event::Planned { candidate, plan } => self.planned(candidate, plan, now),
            Event::Unprepared(ctx, drops) => self.spawn(plan::travel_all(*ctx, drops)),
            Event::Started { candidate, open, frozen, prepared, sending } => {
                self.started(&candidate, *open, frozen, prepared, sending, now);
            }
            Event::NotStarted { candidate, why, sends } => self.not_started(&candidate, why, sends, now),
            Event::Answered { drop, shot, answer } => self.answered(drop, shot, answer, now),
            Event::Asked { drop, shot, message, credits } => self.asked(drop, shot, &message, &credits, now),
            Event::UploadAsked { message, credits, candidate } => {
                self.upload_asked(&candidate, &message, &credits, now);
            }
            Event::Stepped { drop, shot, stepped } => self.stepped(drop, shot, stepped, now),
            Event::Kept { drop, shot, kept } => self.kept(drop, shot, kept, now),
            Event::Fetched { drop, shot, fetched } => self.fetched(drop, shot, fetched, now),
            Event::Published { drop, number, now: shot, done } => self.published(drop, number, &shot, done, now),
            Event::WaitsForUpload { drop, shot } => self.waits_for_upload(drop, shot),
            Event::Reuploaded { drop, done } => self.reuploaded(drop, done, now),
            Event::Stranded => self.stranded(now),
            Event::Recovered { found, all_back } => self.recovered(found, all_back, now),
            Event::Filed { drop, filing, done } => self.filed(drop, filing, done, now),
            Event::WentBack { drop, back } => self.went_back(drop, back, now),
            Event::Credits { credits, message, total, key } => self.credits(credits, &message, total, key, now),
            Event::KeyRead(read) => self.key_read(read, now),
            Event::Room(trouble) => self.room(trouble, now),
            Event::Trouble(why) => self.our_trouble(&why, now),
            Event::Usage { usage, failed, failures } => self.usage(usage, failed, failures),
        }
    }

    /// Says a thing once, until it is different.
    fn warn_once(&mut self, text: &str) {
        if self.warned.len() > 10_000 {
            self.warned.clear();
        }
        if self.warned.insert(text.to_owned()) {
            // Of several mistakes in one file each has a line, and the log one line for all.
            tracing::warn!("{}", text.replace('\n', "; "));
        }
    }
}

async fn watched(watcher: Option<Arc<Watcher>>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

async fn mounted(mounts: Option<&Mounts>) {
    match mounts {
        Some(mounts) => mounts.changed().await,
        None => std::future::pending().await,
    }
}

async fn replaced(around: Option<&Around>) {
    match around {
        Some(around) => around.changed().await,
        None => std::future::pending().await,
    }
}

/// The inbox as it was found, for the loop.
async fn look_at_inbox(ctx: Ctx) {
    let (config, site) = (ctx.config.clone(), ctx.site.clone());
    let found = ctx::blocking(move || {
        if site.inbox_is_there() {
            return InboxNow::Same;
        }
        if site.inbox_is_unmounted() {
            return InboxNow::Gone(format!("the inbox {} is not mounted", site.inbox.display()));
        }
        match Site::open(&config, &site.state_dir) {
            Ok(new) => InboxNow::Back(Box::new(new)),
            Err(e) => InboxNow::Gone(e.to_string()),
        }
    });
    let found = found.await.unwrap_or_else(InboxNow::Gone);
    ctx.send(Event::Inbox(found)).await;
}
