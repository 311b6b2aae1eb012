//! Drops in work, as the loop sees them, and what follows from where their shots stand.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::ids::{DropId, Mono, Place, ShotNo};
use crate::domain::life::{Shot, ShotEvent, ShotState, may_go_back};
use crate::domain::news::News;
use crate::domain::verdict::Billed;
use crate::ledger::{Filing, OpenDrop};
use crate::segmind::Held;

use super::event::{Back, Fetched, FiledAs, KeepFault, Kept, Prepared, Stepped};
use super::frozen::Frozen;
use super::{Engine, LOOK_AGAIN, deliver, file, keep, send};

/// How long an answered shot's picture is tried to be fetched.
const FETCH_FOR: Duration = Duration::from_secs(3600);

/// A drop in work.
#[derive(Debug)]
pub(super) struct Work {
    pub open: OpenDrop,
    pub frozen: Frozen,
    pub prepared: Option<Prepared>,
    /// Where its lead lay: the same name for it over a return to the inbox.
    pub place: Place,
    /// Shots that a worker has.
    pub busy: HashSet<ShotNo>,
    /// A worker files it, or brings it back.
    pub closing: bool,
    /// Its originals are nowhere.
    pub lost: Option<String>,
    /// It could not go back into the inbox, where its name is taken: it stays due.
    pub stays: bool,
    /// How often each fetch was tried, when it may be again, and when it was first.
    pub fetches: std::collections::HashMap<ShotNo, (u32, Mono, Mono)>,
    /// Pictures that came while the disk would not take them.
    pub held: std::collections::HashMap<ShotNo, Arc<Held>>,
    /// Since when it is in its present state, for `status`.
    pub since: Timestamp,
    /// When the shots that are out were counted as sent.
    pub out: std::collections::HashMap<ShotNo, Mono>,
    /// When each shot's answer was read in this run.
    pub answered: std::collections::HashMap<ShotNo, Mono>,
    /// Shots that wait for the reference to be uploaded again, each with its refusal; a worker does it for the first.
    pub renewing: Vec<(ShotNo, String)>,
    /// Shots that are to wait for that, with their refusals, as soon as it is committed that they are due.
    pub recording: std::collections::HashMap<ShotNo, String>,
    /// Shots that are out with the URL that the reference had before it was uploaded again.
    pub with_old_url: HashSet<ShotNo>,
}

impl Work {
    /// A drop in work, with nothing going on.
    pub(super) fn new(
        open: OpenDrop,
        frozen: Frozen,
        prepared: Option<Prepared>,
        place: Place,
        since: Timestamp,
    ) -> Self {
        Self {
            open,
            frozen,
            prepared,
            place,
            busy: HashSet::new(),
            closing: false,
            lost: None,
            stays: false,
            fetches: std::collections::HashMap::new(),
            held: std::collections::HashMap::new(),
            since,
            out: std::collections::HashMap::new(),
            answered: std::collections::HashMap::new(),
            renewing: Vec::new(),
            recording: std::collections::HashMap::new(),
            with_old_url: HashSet::new(),
        }
    }

    pub(super) fn shot(&self, no: ShotNo) -> Option<&Shot> {
        self.open.drop.shots.iter().find(|s| s.no == no)
    }

    pub(super) fn set(&mut self, shot: Shot) {
        if let Some(place) = self.open.drop.shots.iter_mut().find(|s| s.no == shot.no) {
            *place = shot;
        }
    }

    /// A shot's picture is in the spool, and no worker has it now.
    fn kept(&mut self, kept: Kept) {
        self.busy.remove(&kept.shot.no);
        self.held.remove(&kept.shot.no);
        self.fetches.remove(&kept.shot.no);
        self.open.number = kept.number.or(self.open.number);
        self.open.filing = kept.filing.or(self.open.filing.take());
        self.set(kept.shot);
    }

    /// Whether its picture was made, and its address did not give it when it was asked last.
    pub(super) fn waits_to_be_fetched(&self, shot: &Shot) -> bool {
        let tried = self.fetches.get(&shot.no).is_some_and(|(tries, ..)| *tries > 0);
        tried && matches!(shot.state, ShotState::Answered { .. })
    }

    /// Whether all its shots have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.open.drop.shots.iter().all(|s| s.state.has_ended())
    }

    /// The first shot that may be sent at this moment.
    pub(super) fn due(&self, wall: Timestamp, max_delay: Duration) -> Option<&Shot> {
        if self.closing || self.lost.is_some() {
            return None;
        }
        self.open.drop.shots.iter().find(|s| match &s.state {
            ShotState::Due { not_before } => !self.busy.contains(&s.no) && wait(*not_before, wall, max_delay).is_zero(),
            _ => false,
        })
    }

    /// Whether any shot is due, now or later.
    pub(super) fn has_due(&self) -> bool {
        self.lost.is_none() && self.open.drop.shots.iter().any(|s| matches!(s.state, ShotState::Due { .. }))
    }
}

/// How long a shot still has to wait. A moment further off than any delay comes from a wall clock that was set.
pub(super) fn wait(not_before: Option<Timestamp>, wall: Timestamp, max_delay: Duration) -> Duration {
    let wait = not_before.map_or(Duration::ZERO, |at| Duration::try_from(at.duration_since(wall)).unwrap_or_default());
    if wait > max_delay { Duration::ZERO } else { wait }
}

impl Engine {
    /// Sets what follows from where a drop's shots stand going.
    pub(super) fn advance(&mut self, id: DropId, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        match self.blocked.get_mut(&id) {
            Some((_, Some(at))) if *at > now => return,
            // It counts as blocked until a try went well.
            Some((_, at)) => *at = None,
            None => {}
        }
        if work.closing {
            return;
        }
        let mut todo = Vec::new();
        for shot in &work.open.drop.shots {
            if work.busy.contains(&shot.no) {
                continue;
            }
            match &shot.state {
                ShotState::Answered { .. } if work.fetches.get(&shot.no).is_none_or(|(_, at, _)| *at <= now) => {
                    todo.push(shot.clone());
                }
                ShotState::Received { .. } | ShotState::Publishing { .. } => todo.push(shot.clone()),
                _ => {}
            }
        }
        // One shot of a drop is published at a time, so that its set gets one number.
        let publishing = work.open.drop.shots.iter().any(|s| {
            work.busy.contains(&s.no) && matches!(s.state, ShotState::Received { .. } | ShotState::Publishing { .. })
        });
        let mut may_publish = !publishing;
        for shot in todo {
            let Some(work) = self.works.get_mut(&id) else { return };
            let ctx = self.ctx.clone();
            if matches!(shot.state, ShotState::Answered { .. }) {
                work.busy.insert(shot.no);
                let held = work.held.get(&shot.no).cloned();
                let (open, frozen) = (work.open.clone(), work.frozen.clone());
                let is_lost = work.lost.is_some();
                self.spawn(deliver::fetch(ctx, open, frozen, shot, held, is_lost));
            } else if may_publish {
                may_publish = false;
                work.busy.insert(shot.no);
                let (open, frozen) = (work.open.clone(), work.frozen.clone());
                let is_lost = work.lost.is_some();
                self.spawn(deliver::publish(ctx, open, frozen, shot, is_lost));
            }
        }
        let Some(work) = self.works.get_mut(&id) else { return };
        if work.busy.is_empty() && work.has_ended() && work.lost.is_none() {
            work.closing = true;
            let (ctx, open) = (self.ctx.clone(), work.open.clone());
            self.spawn(file::file(ctx, open));
        }
    }

    /// Applies `event` to a shot and commits it; the loop hears of it as [`Event::Stepped`].
    pub(super) fn step(&mut self, id: DropId, no: ShotNo, event: ShotEvent) {
        let Some(work) = self.works.get_mut(&id) else { return };
        let Some(shot) = work.shot(no) else { return };
        match shot.apply(event) {
            Ok(next) => {
                work.set(next.clone());
                work.busy.insert(no);
                let ctx = self.ctx.clone();
                self.spawn(send::commit(ctx, id, next));
            }
            Err(e) => {
                work.busy.remove(&no);
                tracing::error!(drop = %work.place, error = %e, "a step that makes no sense was not taken; please report this");
            }
        }
    }

    pub(super) fn stepped(&mut self, id: DropId, no: ShotNo, stepped: Stepped, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.busy.remove(&no);
        work.since = self.ctx.clock.wall();
        self.usage_wanted = true;
        if let Ok(shot) = stepped {
            match &shot.state {
                ShotState::Failed { reason, billed, .. } => {
                    tracing::warn!(drop = %work.place, folder = %work.place.folder, shot = no.0 + 1, verdict = "failed", request_id = shot.receipt.request_id, reason = %reason, billed = %billed, "failed");
                }
                ShotState::Unconfirmed { reason } => {
                    tracing::warn!(drop = %work.place, folder = %work.place.folder, shot = no.0 + 1, verdict = "unconfirmed", request_id = shot.receipt.request_id, reason = %reason, "unconfirmed: nobody knows whether it was billed");
                }
                _ => {}
            }
            work.set(shot);
        }
        self.send_back_if_paused(id);
        self.advance(id, now);
    }

    pub(super) fn kept(&mut self, id: DropId, no: ShotNo, kept: Result<Kept, KeepFault>, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        match kept {
            Ok(kept) => self.kept_well(id, kept, now),
            Err(KeepFault::NotAPicture(why)) => {
                work.held.remove(&no);
                let again = self.ctx.config.retry.unconfirmed == crate::config::Unconfirmed::Retry
                    && work.shot(no).is_some_and(Shot::may_be_sent_again_unconfirmed);
                self.step(id, no, ShotEvent::Lose { reason: why, again });
            }
            // What came was billed, and somebody took it away.
            Err(KeepFault::Gone(reason)) => self.step(id, no, ShotEvent::Fail { reason, billed: Billed::Yes }),
            Err(fault @ (KeepFault::Environment(_) | KeepFault::Held(_))) => {
                let why = match fault {
                    KeepFault::Held(held) => {
                        tracing::warn!(drop = %work.place, reason = %held.why, "a picture came that the disk does not take: it is kept in memory until it does");
                        let why = held.why.clone();
                        work.held.insert(no, held);
                        why
                    }
                    KeepFault::Environment(why) | KeepFault::NotAPicture(why) | KeepFault::Gone(why) => why,
                };
                // The bytes are here; only the disk has to take them.
                self.our_trouble(&why, now);
                if let Some(work) = self.works.get(&id)
                    && let Some(shot) = work.shot(no).cloned()
                {
                    let (ctx, held) = (self.ctx.clone(), work.held.get(&no).cloned());
                    let (open, frozen) = (work.open.clone(), work.frozen.clone());
                    self.spawn(async move {
                        tokio::time::sleep(LOOK_AGAIN).await;
                        keep::keep(ctx, open, frozen, shot, held, Vec::new()).await;
                    });
                }
            }
        }
    }

    /// A picture was received, and perhaps all that follows is done.
    fn kept_well(&mut self, id: DropId, mut kept: Kept, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        let done = kept.done.take();
        work.kept(kept);
        work.since = self.ctx.clock.wall();
        self.usage_wanted = true;
        self.once_wait = None;
        match done {
            Some(delivered) => {
                work.set(*delivered.clone());
                self.delivered(id, &delivered, now);
                self.filed(id, None, Ok(FiledAs::Archived), now);
            }
            None => self.advance(id, now),
        }
    }

    pub(super) fn fetched(&mut self, id: DropId, no: ShotNo, fetched: Fetched, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        let fail = |reason: String| ShotEvent::Fail { reason, billed: Billed::Yes };
        match fetched {
            Fetched::Kept(kept) => self.kept_well(id, *kept, now),
            Fetched::Refused(why) => self.step(id, no, fail(format!("its address is not one that is fetched: {why}"))),
            Fetched::Later(why) | Fetched::NotAPicture(why) => {
                // Counted from the first try of this run, so that neither a machine that was off nor a wall
                // clock that was set ends it.
                let (tries, _, first) = work.fetches.get(&no).copied().unwrap_or((0, now, now));
                if now.since(first) >= FETCH_FOR && !self.gate.is_offline() {
                    return self.step(id, no, fail(format!("it could not be fetched for an hour: {why}")));
                }
                work.busy.remove(&no);
                work.held.remove(&no);
                let tries = tries + 1;
                let retry = &self.ctx.config.retry;
                let delay = crate::domain::pace::backoff(
                    tries,
                    retry.first_delay.min(Duration::from_secs(5)),
                    Duration::from_secs(120),
                    1.0,
                );
                work.fetches.insert(no, (tries, now + delay, first));
                if tries == 1 {
                    tracing::warn!(drop = %work.place, why = %why, "the picture could not be fetched yet; it is tried for an hour");
                }
            }
            Fetched::Held(held) => {
                tracing::warn!(drop = %work.place, reason = %held.why, "a picture was fetched that the disk does not take: it is kept in memory until it does");
                work.held.insert(no, held.clone());
                self.no_room_for(id, no, &held.why, now);
            }
            Fetched::Environment(why) => self.no_room_for(id, no, &why, now),
        }
    }

    /// Our own disk keeps a picture from being fetched. The hour that its address gets begins anew: it was not the
    /// address that failed.
    fn no_room_for(&mut self, id: DropId, no: ShotNo, why: &str, now: Mono) {
        if let Some(work) = self.works.get_mut(&id) {
            work.busy.remove(&no);
            work.fetches.insert(no, (0, now + LOOK_AGAIN, now));
        }
        self.our_trouble(why, now);
    }

    pub(super) fn published(
        &mut self,
        id: DropId,
        number: Option<u32>,
        shot: &Shot,
        done: Result<Option<Filing>, String>,
        now: Mono,
    ) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.busy.remove(&shot.no);
        if number.is_some() {
            work.open.number = number;
        }
        // Also where it failed: a name that is committed is the name that it goes on under.
        work.set(shot.clone());
        match done {
            Ok(filing) => work.open.filing = filing.or(work.open.filing.take()),
            Err(why) => return self.block(id, &why, now),
        }
        work.since = self.ctx.clock.wall();
        self.delivered(id, shot, now);
        self.blocked.remove(&id);
        self.usage_wanted = true;
        self.advance(id, now);
    }

    /// Says that a shot is delivered.
    fn delivered(&mut self, id: DropId, shot: &Shot, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        if let ShotState::Delivered { name, .. } = &shot.state {
            let place = deliver::shown_name(&work.open.drop.folder, name);
            let cost = shot.receipt.cost;
            tracing::info!(drop = %work.place, folder = %work.place.folder, shot = shot.no.0 + 1, verdict = "delivered", result = %place, cost, request_id = shot.receipt.request_id, "delivered");
            let after = work.answered.remove(&shot.no).map(|at| now.since(at));
            self.ctx.tell.say(&News::Delivered { after, cost });
        }
    }

    /// A drop's results or originals can't be put where they belong just now: shown, tried again, nothing new
    /// is sent.
    pub(super) fn block(&mut self, id: DropId, why: &str, now: Mono) {
        if let Some(work) = self.works.get_mut(&id) {
            work.closing = false;
            let place = work.place.clone();
            if self.blocked.insert(id, (why.to_owned(), Some(now + LOOK_AGAIN))).is_none() {
                tracing::warn!(drop = %place, reason = %why, "cannot be put where it belongs; it is tried again, and nothing new is sent meanwhile");
            }
        }
    }

    pub(super) fn filed(&mut self, id: DropId, filing: Option<Filing>, done: Result<FiledAs, String>, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        // Names that are committed are those that it goes on under.
        work.open.filing = filing.or(work.open.filing.take());
        match done {
            Ok(FiledAs::Archived) => {
                self.ended.delivered += 1;
                tracing::info!(drop = %work.place, folder = %work.place.folder, "done, original in the archive");
                let ended = self.ctx.ended(work, None, None);
                self.ctx.tell.say(&News::Ended(Box::new(ended)));
                self.end(id, now);
            }
            Ok(FiledAs::Failed { reason, note }) => {
                self.ended.failed += 1;
                tracing::warn!(drop = %work.place, folder = %work.place.folder, reason = %reason, note = %crate::domain::ids::show(note.as_os_str()), "in errors");
                let ended = self.ctx.ended(work, Some(reason), Some(note));
                self.ctx.tell.say(&News::Ended(Box::new(ended)));
                self.end(id, now);
            }
            Ok(FiledAs::Missing(why)) => {
                work.closing = false;
                work.lost = Some(why.clone());
                self.blocked.remove(&id);
                tracing::error!(drop = %work.place, "{why}; its row stays open until a person closes it: stop the daemon, and run reimagined retry with this path of the inbox");
                let ids = (work.open.drop.folder.clone(), work.open.drop.stem.clone());
                self.arrivals.filed(&ids.0, &ids.1, now);
            }
            Err(why) => self.block(id, &why, now),
        }
    }

    fn end(&mut self, id: DropId, now: Mono) {
        self.blocked.remove(&id);
        self.work_order.retain(|other| *other != id);
        if let Some(work) = self.works.remove(&id) {
            self.arrivals.filed(&work.open.drop.folder, &work.open.drop.stem, now);
        }
        self.usage_wanted = true;
    }

    /// Whether a drop may go back, and no worker has it.
    fn goes_back(&self, id: DropId) -> bool {
        self.works.get(&id).is_some_and(|w| {
            !w.closing && w.busy.is_empty() && w.lost.is_none() && !w.stays && may_go_back(&w.open.drop.shots)
        })
    }

    pub(super) fn send_back(&mut self, id: DropId) {
        if self.inbox_lost.is_some() || !self.goes_back(id) {
            return;
        }
        if let Some(work) = self.works.get_mut(&id) {
            work.closing = true;
            let (ctx, open) = (self.ctx.clone(), work.open.clone());
            self.spawn(file::go_back(ctx, open));
        }
    }

    pub(super) fn send_back_if_paused(&mut self, id: DropId) {
        if self.gate.sends_back() || self.stopping.is_some() {
            self.send_back(id);
        }
    }

    /// Everything pauses, or the end has come.
    pub(super) fn send_back_what_can_go(&mut self) {
        for id in self.work_order.clone() {
            self.send_back(id);
        }
    }

    pub(super) fn went_back(&mut self, id: DropId, back: Back, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.closing = false;
        match back {
            Back::Stays => work.stays = true,
            Back::Reborn(open) => {
                if let Some(mut work) = self.works.remove(&id) {
                    let new = open.drop.id;
                    work.open = *open;
                    work.stays = true;
                    self.works.insert(new, work);
                    self.work_order.iter_mut().filter(|other| **other == id).for_each(|other| *other = new);
                }
            }
            Back::InInbox => {
                tracing::info!(drop = %work.place, "back in the inbox, unsent");
                self.gone_back.push((work.place.clone(), now));
                self.forget_returned(id, now);
                // Where events come, the rename itself tells.
                self.rescan_wanted |= self.watcher.is_none();
            }
        }
    }

    fn forget_returned(&mut self, id: DropId, now: Mono) {
        self.work_order.retain(|other| *other != id);
        if let Some(work) = self.works.remove(&id) {
            self.arrivals.returned(&work.open.drop.folder, &work.open.drop.stem, now);
        }
    }

    /// The shot that was answered, and whether its upload may be gone by now.
    pub(super) fn shot_as_answered(&mut self, id: DropId, no: ShotNo) -> Option<(Shot, bool)> {
        let work = self.works.get(&id)?;
        let shot = work.shot(no)?.clone();
        // An upload of its own may be gone too, if it was made a good while ago.
        let age = self.ctx.clock.wall().duration_since(work.open.claimed);
        let old = shot.attempts > 0 || age > jiff::SignedDuration::from_mins(10);
        let cached = match &work.frozen.reference {
            super::frozen::Reference::Uploaded { cached, .. } => *cached || old,
            _ => false,
        };
        Some((shot, cached))
    }
}
