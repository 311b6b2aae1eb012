//! What lies in the inbox comes in: watch first, then scan, and scan again whenever something may have been
//! missed. Events are a hint, the folder is the truth.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::config::{self, Config, Told};
use crate::domain::arrivals::{How, PresetQuery, PresetState, Rules};
use crate::domain::fskind::FsKind;
use crate::domain::ids::{Mono, Place, RelPath};
use crate::domain::kinds::NameKind;
use crate::inbox::{self, Around, Backend, HINT_CAP, Hint, HintHow, Report, Setting, Watcher};

use super::event::{Chain, Event, InboxNow, Looked, Taken};
use super::read::folder_state;
use super::site::Site;
use super::start::lock_workings;
use super::{BEHIND_A_CLAIM, Engine, InboxCheck, LOOK_AGAIN, Planning, SILENCE, look_at_inbox};

/// So long the first drops wait after the first scan for what the presets say of their priority.
const PRESETS_FIRST: Duration = Duration::from_millis(600);

/// Pieces of a scan that are on their way to the loop, at most.
const AHEAD: usize = 4;

/// How the inbox is watched, by the configuration and its filesystem.
pub(super) fn backend(config: &Config, site: &Site) -> Backend {
    let setting = match config.watch.backend {
        config::Backend::Auto => Setting::Auto,
        config::Backend::Events => Setting::Events,
        config::Backend::Poll => Setting::Poll,
    };
    // A filesystem that can't be asked is taken for a local one; a scan finds what events don't tell.
    let kind = inbox::fs_kind(&site.inbox).unwrap_or(FsKind::Local);
    inbox::choose(setting, kind)
}

/// The waits, as they count for this way of watching.
pub(super) fn rules(config: &Config, backend: &Backend, once: bool) -> Rules {
    let w = &config.watch;
    Rules {
        settle: backend.settle(w.settle),
        folder_settle: w.folder_settle,
        sidecar_wait: w.sidecar_wait,
        lone_wait: w.lone_wait,
        give_up: w.give_up,
        // Working off what is there once ends before anybody has waited.
        tell_after: config.hooks.tell_waiting_after().filter(|_| !once),
    }
}

impl Engine {
    /// Begins to watch, or says that it polls.
    pub(super) fn start_watching(&mut self) {
        self.watcher = None;
        if let Backend::Events = self.backend {
            match Watcher::new(&self.ctx.site.inbox, HINT_CAP) {
                Ok(watcher) => {
                    self.watcher = Some(Arc::new(watcher));
                    tracing::info!(inbox = %self.ctx.site.inbox.display(), "watching for events");
                }
                Err(e) => self.poll_instead(&Backend::fallback(&e)),
            }
        } else {
            let backend = self.backend.clone();
            self.poll_instead(&backend);
        }
    }

    fn poll_instead(&mut self, backend: &Backend) {
        self.watcher = None;
        if let Backend::Poll { why } = backend {
            let every = config::units::show_duration(self.ctx.config.watch.poll_interval);
            tracing::warn!(inbox = %self.ctx.site.inbox.display(), reason = %why, every = %every, "polling");
        }
        self.backend = backend.clone();
        let now = self.now();
        self.arrivals.set_rules(rules(&self.ctx.config, &self.backend, self.once), now);
        self.next_scan = self.next_scan.min(now + self.ctx.config.watch.poll_interval);
    }

    /// The inbox is asked for something.
    fn inbox_asked(&mut self, now: Mono) {
        self.unanswered.get_or_insert(now);
    }

    /// The inbox answered.
    fn inbox_heard(&mut self, now: Mono) {
        let still_asked = self.scanning || self.inbox_check != InboxCheck::No;
        self.unanswered = still_asked.then_some(now);
        if self.inbox_silent.take().is_some() {
            tracing::info!("the inbox answers again");
        }
    }

    /// Why nothing can be had from the inbox just now.
    pub(super) fn inbox_away(&self) -> Option<&(String, Timestamp)> {
        self.inbox_lost.as_ref().or(self.inbox_silent.as_ref())
    }

    /// A call to a server that is dead can hang for as long as that stays dead, so that no error ever comes.
    fn notice_silence(&mut self, now: Mono) {
        let Some(owed) = self.unanswered.map(|since| now.since(since)).filter(|owed| *owed >= SILENCE) else { return };
        if self.inbox_silent.is_some() {
            return;
        }
        if owed > SILENCE + LOOK_AGAIN {
            // This process itself stood still; the answer may be on its way.
            self.unanswered = Some(now);
        } else {
            let why = format!("the inbox {} does not answer; a server or disk may hang", self.ctx.site.inbox.display());
            tracing::error!(reason = %why, "paused: nothing is taken for cancelled");
            self.inbox_silent = Some((why, self.ctx.clock.wall()));
            self.status_due.get_or_insert(now);
        }
    }

    /// Starts whatever look is due.
    pub(super) fn keep_looking(&mut self, now: Mono) {
        self.notice_silence(now);
        if self.stopping.is_some() {
            return;
        }
        let doubted = self.inbox_doubted || self.inbox_lost.is_some() && now >= self.next_scan;
        if doubted && self.inbox_check == InboxCheck::No {
            self.inbox_doubted = false;
            self.inbox_check = InboxCheck::Looking;
            self.inbox_asked(now);
            let ctx = self.ctx.clone();
            self.spawn(look_at_inbox(ctx));
        }
        if self.inbox_lost.is_some() {
            return;
        }
        if !self.scanning {
            if self.rescan_wanted || now >= self.next_scan {
                self.rescan_wanted = false;
                self.survey(vec![RelPath::root()], true);
            } else {
                let new: Vec<_> = self.arrivals.folders_to_scan().cloned().collect();
                if !new.is_empty() {
                    self.survey(new, false);
                }
            }
        }
        if !self.looking && self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.looking = true;
            let hints: Vec<_> = self.hints.drain().collect();
            let ignore = ignore(&self.ctx.config);
            let look = move |ctx: &super::ctx::Ctx| {
                let look = |((folder, name), how): ((RelPath, OsString), HintHow)| {
                    let entry = inbox::look(&ctx.site.inbox, &folder, &name, &ignore).map_err(|e| e.to_string());
                    Looked { folder, name, how, entry }
                };
                Some(Event::Looked(hints.into_iter().map(look).collect()))
            };
            self.tell_later(super::ctx::telling(self.ctx.clone(), look, || Some(Event::Looked(Vec::new()))));
        }
    }

    /// Looks at these folders and all that lies below them, watching each before it is listed.
    fn survey(&mut self, folders: Vec<RelPath>, everything: bool) {
        self.scanning = true;
        let now = self.now();
        self.inbox_asked(now);
        let (ctx, watcher, ignore) = (self.ctx.clone(), self.watcher.clone(), ignore(&self.ctx.config));
        self.spawn(async move {
            let (tx, site, handle) = (ctx.tx.clone(), ctx.site.clone(), Handle::current());
            let done = super::ctx::blocking(move || {
                let (mut limit, mut errors) = (None, Vec::new());
                if !site.inbox_is_there() {
                    return (limit, errors, false);
                }
                let mut before = |folder: &RelPath| {
                    let Some(watcher) = &watcher else { return };
                    match watcher.watch(folder) {
                        Err(e) if e.is_limit() => limit = Some(e.to_string()),
                        // What is gone or can't be read, the scan itself says.
                        Err(e) if !e.is_gone() => errors.push(e.to_string()),
                        _ => {}
                    }
                };
                // The loop may be slower than the disk: what it has not taken in yet does not pile up.
                let ahead = Arc::new(Semaphore::new(AHEAD));
                let mut sink = |report: Report| {
                    let turn = handle.block_on(Arc::clone(&ahead).acquire_owned());
                    match turn.ok().map(|turn| tx.blocking_send(Event::Scan(report, turn)).is_ok()) {
                        Some(true) => ControlFlow::Continue(()),
                        _ => ControlFlow::Break(()),
                    }
                };
                for folder in folders {
                    if inbox::survey(&site.inbox, &folder, true, &ignore, &mut before, &mut sink).is_break() {
                        break;
                    }
                }
                (limit, errors, site.inbox_is_there())
            });
            let (watch_limit, watch_errors, there) = done.await.unwrap_or((None, Vec::new(), true));
            if !there {
                look_at_inbox(ctx.clone()).await;
            }
            ctx.send(Event::ScanEnded { everything, watch_limit, watch_errors }).await;
        });
    }

    pub(super) fn scanned(&mut self, report: Report, now: Mono) {
        self.inbox_heard(now);
        match report {
            Report::Begin { folder, started } => {
                let started = self.ctx.clock.at(started);
                self.arrivals.begin_scan(&folder, started);
            }
            Report::Batch { folder, entries } => {
                for (name, entry) in entries {
                    self.arrivals.observe_scanned(&folder, &name, &entry, now);
                }
            }
            Report::End { folder } => self.arrivals.end_scan(&folder, now),
            Report::Failed { folder, error } => {
                self.arrivals.scan_failed(&folder, &error.to_string(), now);
                if !folder.is_root() {
                    self.warn_once(&format!("{error}; what lies there waits"));
                }
            }
            Report::Gone { folder } => self.arrivals.folder_gone(&folder, now),
        }
    }

    pub(super) fn scan_ended(
        &mut self,
        everything: bool,
        watch_limit: Option<String>,
        watch_errors: Vec<String>,
        now: Mono,
    ) {
        self.scanning = false;
        self.inbox_heard(now);
        if let (Some(why), true) = (watch_limit, self.watcher.is_some()) {
            self.poll_instead(&Backend::Poll { why });
        }
        for error in watch_errors {
            self.warn_once(&error);
        }
        tracing::debug!(everything, files = self.arrivals.len(), "scanned");
        if everything && self.inbox_lost.is_none() {
            self.scans_done += 1;
            if self.scans_done == 1 {
                self.presets_until = Some(now + PRESETS_FIRST);
            }
            let every = match self.backend {
                Backend::Events => self.ctx.config.watch.rescan,
                Backend::Poll { .. } => self.ctx.config.watch.poll_interval,
            };
            self.next_scan = now + every;
            if let Some(ready) = self.host_ready.take() {
                ready();
            }
            if matches!(self.backend, Backend::Events) || self.scans_done.is_multiple_of(100) {
                self.usage_wanted = true;
            }
        }
        for (place, special) in self.arrivals.take_new_specials() {
            self.warn_once(&format!("{place} is {special}"));
        }
    }

    pub(super) fn drain_hints(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        let drained = watcher.drain();
        for error in drained.errors {
            self.warn_once(&error.to_string());
        }
        tracing::debug!(names = drained.hints.len(), rescan = drained.rescan, "the watch told of something");
        self.rescan_wanted |= drained.rescan;
        let now = self.now();
        for Hint { folder, name, how } in drained.hints {
            let place = Place { folder, name };
            let at = if how == HintHow::Gone && self.is_claimed(&place) { now + BEHIND_A_CLAIM } else { now };
            let hint = self.hints.entry((place.folder, place.name)).or_insert(how);
            *hint = hint.then(how);
            self.look_from(at);
        }
        self.status_due.get_or_insert(now + super::status::QUIET);
    }

    /// Whether a drop of this name was taken from the inbox by us.
    fn is_claimed(&self, place: &Place) -> bool {
        matches!(self.plans.get(place), Some(Planning::Starting(..))) || self.works.values().any(|w| w.place == *place)
    }

    /// Looks at a name from then on, unless that is to be done anyway.
    pub(super) fn hint(&mut self, folder: &RelPath, name: &OsStr, how: How, at: Mono) {
        self.hints.entry((folder.clone(), name.to_owned())).or_insert(HintHow::Look(how));
        self.look_from(at);
    }

    fn look_from(&mut self, at: Mono) {
        self.look_at = Some(self.look_at.map_or(at, |other| other.min(at)));
    }

    pub(super) fn looked(&mut self, looked: Vec<Looked>, now: Mono) {
        self.looking = false;
        let mut appeared = Vec::new();
        for Looked { folder, name, how, entry } in looked {
            let entry = match entry {
                Ok(entry) => entry,
                Err(why) => {
                    self.warn_once(&why);
                    continue;
                }
            };
            let is_folder = entry.as_ref().is_some_and(|e| e.kind == NameKind::Folder);
            let seen = match how {
                HintHow::Look(how) => how,
                HintHow::DirAppeared | HintHow::Gone => How::Created,
            };
            if is_folder && matches!(how, HintHow::Gone | HintHow::Look(How::RenamedIn)) {
                // It may have been away for a moment, and with it the watches of all that lies in it. (A folder that is
                // moved tells so itself as well, last of all.)
                self.arrivals.observe_entry(&folder, &name, None, seen, now);
            }
            self.arrivals.observe_entry(&folder, &name, entry.as_ref(), seen, now);
            if is_folder && how == HintHow::DirAppeared {
                appeared.push(folder.join(&name));
            }
        }
        if !appeared.is_empty() {
            if self.scanning {
                self.rescan_wanted = true;
            } else {
                self.survey(appeared, false);
            }
        }
    }

    /// Reads the presets that the arrivals ask for.
    pub(super) fn read_presets(&mut self, now: Mono) {
        for query in self.arrivals.presets_to_read(now) {
            let chain = self.chain(&query.folder);
            let ctx = self.ctx.clone();
            self.spawn(async move {
                let (config, inbox, asked) = (ctx.config.clone(), ctx.site.inbox.clone(), query.folder.clone());
                let state = super::ctx::blocking(move || folder_state(&config, &inbox, &asked, &chain)).await;
                let state =
                    state.unwrap_or_else(|reason| Told { value: PresetState::Broken { reason }, warnings: Vec::new() });
                ctx.send(Event::Preset { query, state }).await;
            });
        }
    }

    /// The preset files from the inbox down to `folder`, as they were last seen.
    pub(super) fn chain(&self, folder: &RelPath) -> Chain {
        folder.chain().into_iter().map(|folder| (folder.clone(), self.arrivals.preset_file(&folder))).collect()
    }

    pub(super) fn preset_read(&mut self, query: &PresetQuery, state: Told<PresetState>, now: Mono) {
        for warning in &state.warnings {
            self.warn_once(&warning.to_string());
        }
        let state = state.value;
        if let PresetState::Broken { reason } = &state {
            self.warn_once(&format!("a preset is broken, its folder waits: {reason}"));
        }
        self.arrivals.preset_state(query, state, now);
    }

    pub(super) fn inbox_found(&mut self, found: InboxNow, now: Mono) {
        if self.inbox_check != InboxCheck::Taking {
            self.inbox_check = InboxCheck::No;
        }
        self.inbox_heard(now);
        match found {
            InboxNow::Same => {
                if self.inbox_lost.is_some() {
                    self.take_inbox(None, now);
                }
            }
            InboxNow::Gone(why) => {
                self.next_scan = now + LOOK_AGAIN;
                if let Some((old, _)) = &mut self.inbox_lost {
                    *old = why;
                } else {
                    tracing::error!(reason = %why, "paused: the inbox is lost; nothing is taken for cancelled");
                    self.inbox_lost = Some((why, self.ctx.clock.wall()));
                    self.put_plans_back(now);
                }
            }
            InboxNow::Back(site) => self.take_inbox(Some(*site), now),
            InboxNow::Taken(taken) => self.inbox_back(*taken, now),
        }
    }

    /// Locks what stands at the inbox's place now. On a share each of these calls can hang, so none is the loop's.
    fn take_inbox(&mut self, site: Option<Site>, now: Mono) {
        if self.inbox_check == InboxCheck::Taking {
            return;
        }
        self.inbox_check = InboxCheck::Taking;
        self.inbox_asked(now);
        let (ctx, locks) = (self.ctx.clone(), Arc::clone(&self.locks));
        // What was locked may be a file of another mount.
        let old = std::mem::take(&mut self.held);
        self.spawn(async move {
            let config = ctx.config.clone();
            let known = ctx.site.clone();
            let taken = super::ctx::blocking(move || {
                drop(old);
                let mut at = site.clone().unwrap_or_else(|| (*known).clone());
                let held = locks.inbox(&at.inbox).and_then(|inbox| {
                    let mut held = lock_workings(&*locks, &mut at)?;
                    held.push(inbox);
                    Ok(held)
                });
                let around = Around::watch(&at.inbox).ok();
                Taken { backend: backend(&config, &at), is_new: site.is_some(), site: Some(at), held, around }
            });
            let taken = taken.await.unwrap_or_else(|why| Taken {
                site: None,
                is_new: false,
                held: Err(super::Locked::Failed(why)),
                backend: Backend::Events,
                around: None,
            });
            ctx.send(Event::Inbox(InboxNow::Taken(Box::new(taken)))).await;
        });
    }

    /// The inbox is there again: put in order, watch, scan, go on.
    fn inbox_back(&mut self, taken: Taken, now: Mono) {
        self.inbox_check = InboxCheck::No;
        let Taken { site, is_new, held, backend, around } = taken;
        self.around = around;
        if let Some(site) = site {
            if is_new {
                tracing::warn!(inbox = %site.inbox.display(), "another directory stands at the inbox's place: it is watched and scanned afresh");
            }
            self.ctx.site = Arc::new(site);
        }
        match held {
            Ok(held) => self.held = held,
            Err(super::Locked::Held(why) | super::Locked::Busy(why) | super::Locked::Failed(why)) => {
                self.warn_once(&why);
                let since = self.inbox_lost.take().map_or_else(|| self.ctx.clock.wall(), |(_, since)| since);
                self.inbox_lost = Some((why, since));
                self.next_scan = now + LOOK_AGAIN;
                return;
            }
        }
        if self.inbox_lost.take().is_some() {
            tracing::info!("the inbox is back");
        }
        self.put_plans_back(now);
        self.recovering = true;
        self.recover_wanted = true;
        self.backend = backend;
        self.arrivals.set_rules(rules(&self.ctx.config, &self.backend, self.once), now);
        self.arrivals.folder_gone(&RelPath::root(), now);
        self.hints.clear();
        self.start_watching();
        self.rescan_wanted = true;
    }
}

fn ignore(config: &Arc<Config>) -> impl Fn(&Path) -> bool + Send + Sync + 'static {
    let config = Arc::clone(config);
    move |path: &Path| RelPath::new(path).is_some_and(|path| config.watch.ignore.matches(&path))
}
