//! What is sent next: shots that are due, drops that are planned, and candidates to be planned, as gate, pace,
//! limits and turns allow.

use std::time::Duration;

use crate::domain::arrivals::{Candidate, CandidateKind, Reason};
use crate::domain::gate::May;
use crate::domain::ids::{DropId, Mono, Place, RelPath, ShotNo, show};
use crate::domain::life::ShotEvent;
use crate::domain::pace::Fits;
use crate::inbox::HintHow;
use crate::ledger::{Member, OpenDrop};

use super::event::{Event, NotStarted, Plan, Prepared};
use super::frozen::Frozen;
use super::works::Work;
use super::{Engine, Planning, answers, plan, send};

impl Engine {
    /// Sets going what may go.
    pub(super) fn pump(&mut self, now: Mono) {
        self.advance_what_is_due(now);
        if self.limited.as_ref().is_some_and(|l| now >= l.until) {
            self.limited = None;
            tracing::info!("going on: the limit has room again");
        }
        if self.stopping.is_some() {
            return;
        }
        if let Some(trouble) = &self.trouble {
            if now >= trouble.again && !self.room_check {
                self.room_check = true;
                let (ctx, bytes) = (self.ctx.clone(), send::reserve(&self.ctx, self.pace.in_flight() + 1));
                self.spawn(async move {
                    let site = ctx.site.clone();
                    let found = super::ctx::blocking(move || site.trouble(bytes)).await.unwrap_or_else(Some);
                    let found = match found {
                        // The ledger's own trouble (locked, damaged) shows only when it is asked.
                        None => ctx.record(|l| l.last_cost()).await.err().map(|e| e.to_string()),
                        found => found,
                    };
                    ctx.send(Event::Room(found)).await;
                });
            }
            return;
        }
        if self.gate.probe_due(now) {
            self.probe();
        }
        if !self.blocked.is_empty() || self.inbox_lost.is_some() || self.scans_done == 0 {
            return;
        }
        let may = self.gate.may(now);
        if self.gate.paused().is_none() {
            self.reject(now);
        }
        if self.limited.is_some() {
            return;
        }
        match may {
            May::Nothing => {}
            May::All => {
                self.send_due(None, now);
                self.start_planned(None, now);
                self.plan_more(self.pace.max_in_flight() as usize + 2, now);
            }
            May::One { not } => {
                if self.pace.in_flight() > 0 {
                    return;
                }
                let not = not.filter(|culprit| self.others_than(culprit));
                if self.send_due(Some(not.as_ref()), now) || self.start_planned(Some(not.as_ref()), now) {
                    return;
                }
                // The one that caused the pause may be planned already: one more beside it.
                self.plan_more(1 + usize::from(not.is_some()), now);
            }
        }
    }

    fn others_than(&self, place: &Place) -> bool {
        self.works.values().any(|w| w.place != *place && w.has_due())
            || self.plans.keys().any(|p| p != place)
            || self.arrivals.has_ready()
    }

    fn advance_what_is_due(&mut self, now: Mono) {
        let blocked = self.blocked.iter().filter(|(_, (_, at))| *at <= now).map(|(id, _)| *id);
        let fetches =
            self.works.iter().filter(|(_, w)| w.fetches.values().any(|(_, at)| *at <= now)).map(|(id, _)| *id);
        let due: Vec<DropId> = blocked.chain(fetches).collect();
        for id in due {
            self.advance(id, now);
        }
    }

    /// Sends due shots. `one` (a trial): at most one, and not the given drop's. Whether one was sent.
    fn send_due(&mut self, one: Option<Option<&Place>>, now: Mono) -> bool {
        let wall = self.ctx.clock.wall();
        let mut sent = false;
        for id in self.work_order.clone() {
            loop {
                if self.pace.fits(now) != Fits::Now || (one.is_some() && sent) {
                    return sent;
                }
                let Some(work) = self.works.get_mut(&id) else { break };
                if one.flatten() == Some(&work.place) {
                    break;
                }
                let Some(shot) = work.due(wall).cloned() else { break };
                let Ok(sending) = shot.apply(ShotEvent::Send { at: wall }) else { break };
                work.busy.insert(shot.no);
                work.set(sending.clone());
                work.since = wall;
                let (frozen, prepared, place, open) =
                    (work.frozen.clone(), work.prepared.clone(), work.place.clone(), work.open.clone());
                self.pace.sent(now);
                self.gate.sent(&place);
                sent = true;
                tracing::info!(drop = %place, shot = shot.no.0 + 1, "sending");
                let (ctx, in_flight) = (self.ctx.clone(), self.pace.in_flight());
                self.spawn(async move {
                    let prepared = match (&frozen.reference, prepared) {
                        (super::frozen::Reference::Inline { .. }, None) => match send::prepare_again(&ctx, &open).await
                        {
                            Ok(prepared) => prepared,
                            Err(why) => {
                                let answer = super::event::Answer::NotSent(why);
                                return ctx.send(Event::Answered { drop: id, shot: sending.no, answer }).await;
                            }
                        },
                        (_, prepared) => prepared,
                    };
                    send::send(ctx, id, sending, frozen, prepared, in_flight).await;
                });
            }
        }
        sent
    }

    /// Claims planned drops and sends their first shots.
    fn start_planned(&mut self, one: Option<Option<&Place>>, now: Mono) -> bool {
        let mut started = false;
        for place in self.plan_order.clone() {
            if self.pace.fits(now) != Fits::Now || (one.is_some() && started) {
                return started;
            }
            if one.flatten() == Some(&place) || !matches!(self.plans.get(&place), Some(Planning::Ready(..))) {
                continue;
            }
            let Some(Planning::Ready(planned, generation)) = self.plans.remove(&place) else { continue };
            self.plan_order.retain(|p| *p != place);
            if generation != self.preset_generation || !self.arrivals.is_current(&planned.candidate) {
                // Something changed since it was read: it is read again.
                self.arrivals.put_back(&planned.candidate, now);
                continue;
            }
            self.plans.insert(place.clone(), Planning::Starting);
            self.plan_retries.remove(&place);
            self.pace.sent(now);
            self.gate.sent(&place);
            started = true;
            let (ctx, in_flight) = (self.ctx.clone(), self.pace.in_flight());
            self.spawn(send::start(ctx, *planned, in_flight));
        }
        started
    }

    /// Takes candidates up to `most` planned ones.
    fn plan_more(&mut self, most: usize, now: Mono) {
        self.plan_again(now);
        let planned = self
            .plans
            .values()
            .filter(|p| !matches!(p, Planning::Starting | Planning::Burying | Planning::Later(..)))
            .count();
        for candidate in self.arrivals.ready(now, most.saturating_sub(planned)) {
            self.plan_one(candidate);
        }
    }

    fn plan_one(&mut self, candidate: Candidate) {
        let place = candidate.place();
        self.plans.insert(place.clone(), Planning::Reading);
        self.plan_order.retain(|p| *p != place);
        self.plan_order.push(place);
        let chain = self.chain(&candidate.folder);
        let ctx = self.ctx.clone();
        self.spawn(plan::run(ctx, candidate, chain));
    }

    /// Plans again what failed to be uploaded a while ago.
    fn plan_again(&mut self, now: Mono) {
        let due = |(place, planning): (&Place, &Planning)| match planning {
            Planning::Later(_, at) if *at <= now => Some(place.clone()),
            _ => None,
        };
        let due: Vec<Place> = self.plans.iter().filter_map(due).collect();
        for place in due {
            if let Some(Planning::Later(candidate, _)) = self.plans.remove(&place) {
                if self.arrivals.is_current(&candidate) {
                    self.plan_one(*candidate);
                } else {
                    self.arrivals.put_back(&candidate, now);
                }
            }
        }
    }

    /// What goes to errors without being sent.
    fn reject(&mut self, now: Mono) {
        for candidate in self.arrivals.rejects(now, 8) {
            let reason = match &candidate.kind {
                CandidateKind::Foreign => {
                    "this is no kind of file that is taken: pictures (.jpg .jpeg .png .webp .tif .tiff .bmp .gif) and sidecars (.txt .toml .json) are".to_owned()
                }
                CandidateKind::LateSidecar { after, sent_unix_ms } => late(after, *sent_unix_ms),
                CandidateKind::Failed(failure) => failure.to_string(),
                CandidateKind::Picture | CandidateKind::PromptOnly => continue,
            };
            self.bury(candidate, Vec::new(), reason);
        }
    }

    /// Sends a candidate to errors, by way of working.
    pub(super) fn bury(&mut self, candidate: Candidate, members: Vec<Member>, reason: String) {
        let place = candidate.place();
        self.plan_order.retain(|p| *p != place);
        self.plans.insert(place, Planning::Burying);
        let ctx = self.ctx.clone();
        self.spawn(send::bury(ctx, candidate, members, reason));
    }

    pub(super) fn planned(&mut self, candidate: Candidate, plan: Plan, now: Mono) {
        let place = candidate.place();
        match plan {
            Plan::Ready(planned) => {
                self.plans.insert(place, Planning::Ready(planned, self.preset_generation));
                return;
            }
            Plan::Failed(why, members) => {
                if self.gate.paused().is_none() && self.trouble.is_none() && self.stopping.is_none() {
                    return self.bury(candidate, members, why);
                }
                // A pause moves nothing to errors.
                self.arrivals.put_back(&candidate, now);
            }
            Plan::Upload(verdict) => return self.upload_failed(&candidate, &verdict, now),
            Plan::NotWhole => {
                if let Some(image) = &candidate.image {
                    self.arrivals.not_whole(&place, &image.facts, now);
                }
            }
            Plan::Changed => self.changed(&candidate, now),
            Plan::Unreadable(why) => {
                self.warn_once(&format!("{why}; it waits"));
                self.arrivals.blocked(&place, &why, now);
            }
            Plan::PresetBroken(folder, why) => {
                self.warn_once(&format!("a preset is broken, its folder waits: {why}"));
                self.arrivals.reread_presets(&folder);
                self.arrivals.put_back(&candidate, now);
            }
            Plan::NoPrompt => {
                tracing::info!(drop = %place, "waits for a prompt: put one into a .txt of its name, or into a preset.toml");
                self.arrivals.prompt_missing(&place, now);
            }
            Plan::Environment(why) => {
                self.arrivals.put_back(&candidate, now);
                self.our_trouble(&why, now);
            }
        }
        self.plans.remove(&place);
        self.plan_order.retain(|p| *p != place);
    }

    /// A member is not what was seen: look at all of them, and let it wait for that.
    fn changed(&mut self, candidate: &Candidate, now: Mono) {
        let place = candidate.place();
        self.arrivals.blocked(&place, "it has just changed", now);
        for member in candidate.moving().chain(candidate.sidecars.iter().map(|s| &s.file)) {
            let key = (candidate.folder.clone(), member.name.clone());
            self.hints.entry(key).or_insert(HintHow::Look(crate::domain::arrivals::How::Changed));
        }
        self.rescan_wanted = true;
    }

    pub(super) fn started(
        &mut self,
        candidate: &Candidate,
        open: OpenDrop,
        frozen: Frozen,
        prepared: Option<Prepared>,
        sending: Option<ShotNo>,
        now: Mono,
    ) {
        let place = candidate.place();
        self.plans.remove(&place);
        let wall = self.ctx.clock.wall();
        self.arrivals.claimed(candidate, now, wall.as_millisecond());
        let id = open.drop.id;
        if sending.is_some() {
            tracing::info!(drop = %place, shots = open.drop.shots.len(), "sending");
        }
        let mut work = Work::new(open, frozen, prepared, place, wall);
        work.busy.extend(sending);
        self.works.insert(id, work);
        self.work_order.push(id);
        self.advance(id, now);
    }

    pub(super) fn not_started(&mut self, candidate: &Candidate, why: NotStarted, now: Mono) {
        let place = candidate.place();
        if let Some(Planning::Starting) = self.plans.remove(&place) {
            self.pace.ended(false);
            self.gate.not_sent(&place);
        }
        match why {
            NotStarted::Changed => self.changed(candidate, now),
            NotStarted::Blocked(why) => {
                self.warn_once(&format!("{why}; it waits"));
                self.arrivals.blocked(&place, &why, now);
            }
            NotStarted::Limited(sent) => {
                self.arrivals.put_back(candidate, now);
                self.put_plans_back(now);
                self.limit(sent, now);
            }
            NotStarted::Environment(why) => {
                self.arrivals.put_back(candidate, now);
                self.rescan_wanted = true;
                self.our_trouble(&why, now);
            }
        }
    }

    /// Planned drops are planned again later: their uploads are remembered, and may be too old by then.
    pub(super) fn put_plans_back(&mut self, now: Mono) {
        let ready =
            |(place, planning): (&Place, &Planning)| matches!(planning, Planning::Ready(..)).then(|| place.clone());
        let ready: Vec<Place> = self.plans.iter().filter_map(ready).collect();
        for place in ready {
            if let Some(Planning::Ready(planned, _)) = self.plans.remove(&place) {
                self.plan_order.retain(|p| *p != place);
                self.arrivals.put_back(&planned.candidate, now);
            }
        }
    }

    /// When pace or backoff let something go that waits for nothing else.
    pub(super) fn pace_wake(&mut self, now: Mono) -> Vec<Mono> {
        let mut wakes = Vec::new();
        let wall = self.ctx.clock.wall();
        let later = self.plans.values().filter_map(|p| match p {
            Planning::Later(_, at) => Some(*at),
            _ => None,
        });
        wakes.extend(later);
        let mut waits = self.plans.values().any(|p| matches!(p, Planning::Ready(..)));
        for work in self.works.values() {
            wakes.extend(work.fetches.values().map(|(_, at)| *at).filter(|at| *at > now));
            for shot in &work.open.drop.shots {
                if let crate::domain::life::ShotState::Due { not_before } = &shot.state
                    && !work.busy.contains(&shot.no)
                    && work.lost.is_none()
                {
                    let wait = not_before
                        .map_or(Duration::ZERO, |at| Duration::try_from(at.duration_since(wall)).unwrap_or_default());
                    if wait.is_zero() {
                        waits = true;
                    } else {
                        wakes.push(now + wait);
                    }
                }
            }
        }
        if waits && let Fits::At(at) = self.pace.fits(now) {
            wakes.push(at);
        }
        wakes
    }

    /// Whether the loop ends here.
    pub(super) fn is_done(&mut self) -> bool {
        let now = self.now();
        if let Some(until) = self.stopping {
            let busy = self.works.values().any(|w| !w.busy.is_empty() || w.closing);
            let starting = self.plans.values().any(|p| matches!(p, Planning::Starting | Planning::Burying));
            if now >= until {
                tracing::warn!(
                    in_flight = self.pace.in_flight(),
                    "the grace is over; what is in flight is settled at the next start"
                );
                return true;
            }
            return self.pace.in_flight() == 0 && !busy && !starting;
        }
        self.once && self.once_is_done(now)
    }

    fn once_is_done(&mut self, now: Mono) -> bool {
        if self.scans_done == 0 && self.inbox_lost.is_none() {
            return false;
        }
        self.ended.broken_presets = self.arrivals.broken_presets().next().is_some();
        if let Some(pause) = self.gate.paused()
            && answers::ends_once(pause.why)
        {
            return self.stop_once(pause.why.text().to_owned(), now);
        }
        if let Some(limited) = &self.limited {
            return self.stop_once(format!("the limit {} is reached", limited.which), now);
        }
        let wait = self.gate.paused().map(|p| p.why.text().to_owned());
        let wait = wait.or_else(|| self.trouble.as_ref().map(|t| t.text.clone()));
        let wait = wait.or_else(|| self.inbox_lost.as_ref().map(|(why, _)| why.clone()));
        let wait = wait.or_else(|| self.blocked.values().next().map(|(why, _)| why.clone()));
        if let Some(why) = wait {
            let until = *self.once_wait.get_or_insert(now + Duration::from_secs(60));
            return now >= until && self.stop_once(why, now);
        }
        self.once_wait = None;
        let idle = !self.scanning && !self.looking && self.hints.is_empty() && !self.rescan_wanted;
        if !idle || !self.plans.is_empty() || self.works.values().any(|w| w.lost.is_none()) {
            return false;
        }
        let counts = self.arrivals.counts(Reason::Queued);
        let some = |reasons: &[Reason]| reasons.iter().any(|r| counts.get(r).is_some_and(|n| *n > 0));
        if some(&[
            Reason::Settling,
            Reason::FolderSettling,
            Reason::PresetChanging,
            Reason::Busy,
            Reason::Planning,
            Reason::Queued,
        ]) {
            return false;
        }
        // These end by themselves, unless a preset requires what never comes.
        let w = &self.ctx.config.watch;
        let soon = now + w.lone_wait.max(w.sidecar_wait) + Duration::from_secs(1);
        !(some(&[Reason::Sidecar, Reason::Image]) && self.arrivals.next_wake().is_some_and(|at| at <= soon))
    }

    /// `run --once` ends although something is left; what is in flight ends first.
    fn stop_once(&mut self, why: String, now: Mono) -> bool {
        tracing::warn!(reason = %why, "stopping: the rest waits in the inbox");
        self.ended.stopped_for = Some(why);
        self.stopping = Some(now + self.ctx.config.service.grace);
        self.send_back_what_can_go(now);
        false
    }

    /// Names that a drop in work keeps, for the arrivals.
    pub(super) fn note_in_work(&mut self, open: &OpenDrop, now: Mono) {
        let image = open.drop.members.iter().find(|m| m.role == crate::ledger::Role::Picture).map(|m| m.name.clone());
        let sent = open.drop.shots.iter().filter_map(|s| s.first_sent).min().map(jiff::Timestamp::as_millisecond);
        self.arrivals.in_work(&open.drop.folder, &open.drop.stem, image.as_deref(), sent, now);
    }
}

fn late(after: &std::ffi::OsStr, sent_unix_ms: Option<i64>) -> String {
    let name = show(after);
    let at = sent_unix_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match at {
        Some(at) => {
            let time = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M").to_string();
            format!("it came after {name} was sent at {time}; drop both again")
        }
        None => format!("it came after {name} had gone; drop both again"),
    }
}

/// The place of a drop in work, by its lead.
pub(super) fn place_of(folder: &RelPath, members: &[Member]) -> Place {
    let picture = members.iter().find(|m| m.role == crate::ledger::Role::Picture).or(members.first());
    Place { folder: folder.clone(), name: picture.map(|m| m.name.clone()).unwrap_or_default() }
}
