//! What is sent next: shots that are due, drops that are planned, and candidates to be planned, as gate, pace,
//! limits and turns allow.

use crate::config::ReferenceMode;
use crate::domain::arrivals::{Candidate, How};
use crate::domain::gate::May;
use crate::domain::ids::{DropId, Mono, Place, RelPath, ShotNo};
use crate::domain::life::ShotEvent;
use crate::domain::news::News;
use crate::domain::pace::Fits;
use crate::ledger::{Member, OpenDrop};

use super::event::{Event, NotStarted, Plan, Prepared};
use super::frozen::Frozen;
use super::works::{Work, wait};
use super::{BEHIND_A_CLAIM, Engine, Planning, plan, send};

/// What may be sent in this turn.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// Whatever fits.
    All,
    /// Whatever fits, but of this drop.
    But(&'a Place),
    /// One shot, and not of this drop.
    One { not: Option<&'a Place> },
}

impl Scope<'_> {
    fn is_one(self) -> bool {
        matches!(self, Self::One { .. })
    }

    fn leaves_out(self, place: &Place) -> bool {
        matches!(self, Self::One { not: Some(not) } | Self::But(not) if not == place)
    }
}

impl Engine {
    /// Sets going what may go.
    pub(super) fn pump(&mut self, now: Mono) {
        self.advance_what_is_due(now);
        let since_boot = self.limited.is_some().then(|| self.ctx.clock.moment().since_boot);
        if self.limited.as_ref().is_some_and(|l| now >= l.until || since_boot >= Some(l.until_since_boot)) {
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
                    let found = really_try(&ctx, bytes).await;
                    ctx.send(Event::Room(found)).await;
                });
            }
            return;
        }
        if self.key_unread > 0 {
            return;
        }
        if self.gate.probe_due(now) {
            self.probe();
        }
        if !self.blocked.is_empty() || self.inbox_away().is_some() || self.scans_done == 0 || self.recovering {
            return;
        }
        if self.presets_until.is_some_and(|until| now < until && !self.arrivals.presets_are_known()) {
            return;
        }
        self.presets_until = None;
        let may = self.gate.may(now);
        if self.may_bury() {
            self.bury_doomed(now);
            self.reject(now);
        }
        if self.limited.is_some() {
            return;
        }
        match may {
            May::Nothing => {}
            May::All => {
                if !self.let_others_go_first(now) {
                    self.send_due(Scope::All, now);
                    self.start_planned(Scope::All, now);
                }
                self.plan_more(self.pace.max_in_flight() as usize + 2, now);
            }
            May::One { not } => {
                if self.pace.in_flight() > 0 {
                    return;
                }
                let not = not.filter(|culprit| self.others_wait(culprit));
                if !self.send_due(Scope::One { not: not.as_ref() }, now)
                    && !self.start_planned(Scope::One { not: not.as_ref() }, now)
                {
                    self.plan_for_trial(not.as_ref(), now);
                }
            }
        }
    }

    /// Lets others go before a drop that was told to wait; whether that one has to wait for them still.
    fn let_others_go_first(&mut self, now: Mono) -> bool {
        let Some(told) = self.gate.yields().cloned() else { return false };
        let (due, started) = (self.send_due(Scope::But(&told), now), self.start_planned(Scope::But(&told), now));
        let coming = || self.plans.iter().any(|(place, plan)| *place != told && plan.may_start());
        !due && !started && (coming() || self.arrivals.has_ready())
    }

    fn advance_what_is_due(&mut self, now: Mono) {
        let blocked = self.blocked.iter().filter(|(_, (_, at))| at.is_some_and(|at| at <= now)).map(|(id, _)| *id);
        let fetches =
            self.works.iter().filter(|(_, w)| w.fetches.values().any(|(_, at, _)| *at <= now)).map(|(id, _)| *id);
        let due: Vec<DropId> = blocked.chain(fetches).collect();
        for id in due {
            self.advance(id, now);
        }
    }

    /// Sends due shots, as far as `scope` lets them: in a trial one at the most. Whether one was sent.
    fn send_due(&mut self, scope: Scope<'_>, now: Mono) -> bool {
        let wall = self.ctx.clock.wall();
        let max_delay = self.ctx.config.retry.max_delay;
        let mut sent = false;
        for id in self.work_order.clone() {
            loop {
                if self.pace.fits(now) != Fits::Now || (scope.is_one() && sent) {
                    return sent;
                }
                let Some(work) = self.works.get_mut(&id) else { break };
                if scope.leaves_out(&work.place) {
                    break;
                }
                let Some(shot) = work.due(wall, max_delay).cloned() else { break };
                let Ok(sending) = shot.apply(ShotEvent::Send { at: wall }) else { break };
                work.busy.insert(shot.no);
                work.out.insert(shot.no, now);
                work.stays = false;
                work.set(sending.clone());
                work.since = wall;
                let (frozen, prepared, place, open) =
                    (work.frozen.clone(), work.prepared.clone(), work.place.clone(), work.open.clone());
                self.pace.sent(now);
                self.gate.sent(&place);
                sent = true;
                self.usage_wanted = true;
                tracing::info!(drop = %place, folder = %place.folder, shot = shot.no.0 + 1, "sending");
                let (ctx, in_flight) = (self.ctx.clone(), self.pace.in_flight());
                self.spawn(async move {
                    let prepared = match (&frozen.reference, prepared) {
                        (super::frozen::Reference::Inline { .. }, prepared) => {
                            match send::prepare_again(&ctx, &open, prepared).await {
                                Ok(prepared) => prepared,
                                Err(answer) => {
                                    return ctx.send(Event::Answered { drop: id, shot: sending.no, answer }).await;
                                }
                            }
                        }
                        (_, prepared) => prepared,
                    };
                    send::send(ctx, open, sending, frozen, prepared, in_flight).await;
                });
            }
        }
        sent
    }

    /// Claims planned drops and sends their first shots.
    fn start_planned(&mut self, scope: Scope<'_>, now: Mono) -> bool {
        let mut started = false;
        // What was planned ahead does not go before what came later with a higher priority.
        let mut order = self.plan_order.clone();
        order.sort_by_key(|place| std::cmp::Reverse(self.arrivals.priority_of(&place.folder)));
        for place in order {
            if self.pace.fits(now) != Fits::Now || (scope.is_one() && started) {
                return started;
            }
            if scope.leaves_out(&place) || !matches!(self.plans.get(&place), Some(Planning::Ready(_))) {
                continue;
            }
            let known = |p: &Planning| match p {
                Planning::Ready(planned) => planned.known.as_ref().map(|k| k.id),
                Planning::Starting(id, _) => *id,
                _ => None,
            };
            let continues = self.plans.get(&place).and_then(known);
            let taken = |p: &Planning| matches!(p, Planning::Starting(Some(id), _) if Some(*id) == continues);
            if self.plans.values().any(taken) {
                // Another copy is taking up the same ended drop just now; this one is a drop of its own then.
                continue;
            }
            let Some(Planning::Ready(planned)) = self.plans.remove(&place) else { continue };
            self.plan_order.retain(|p| *p != place);
            if !self.arrivals.is_current(&planned.candidate) {
                // Something changed since it was read: it is read again.
                self.arrivals.put_back(&planned.candidate, now);
                continue;
            }
            self.plans.insert(place.clone(), Planning::Starting(continues, now));
            self.arrivals.starting(&planned.candidate, now);
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
        self.plan_again(usize::MAX, None, now);
        let planned = self.plans.values().filter(|p| p.may_start()).count();
        let is_paced = (1..600).contains(&self.ctx.config.api.requests_per_minute);
        if is_paced || !matches!(self.ctx.config.reference.mode, ReferenceMode::PublicUrl { .. }) {
            // What has to be prepared and uploaded takes its time, each for itself; and where sends are seldom, little is
            // read ahead of what may come that is more urgent.
            for candidate in self.arrivals.ready(now, most.saturating_sub(planned)) {
                self.plan_one(candidate);
            }
            return;
        }
        if self.plans.values().filter(|p| matches!(p, Planning::Ready(_))).count() > most / 2 {
            // Several are read in one go, once there is room for several.
            return;
        }
        let candidates = self.arrivals.ready(now, most.saturating_sub(planned));
        let together = candidates.len().div_ceil(2);
        let mut some: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            // A folder that hangs holds up its own drops alone.
            if some.len() >= together || some.first().is_some_and(|first| first.folder != candidate.folder) {
                self.plan_all(std::mem::take(&mut some));
            }
            some.push(candidate);
        }
        self.plan_all(some);
    }

    /// One plan at a time while one drop is the probe; the culprit's only where nothing else is there.
    fn plan_for_trial(&mut self, not: Option<&Place>, now: Mono) {
        if self.plans.iter().any(|(place, p)| p.may_start() && Some(place) != not) {
            return;
        }
        if self.plan_again(1, not, now) > 0 {
            return;
        }
        for candidate in self.arrivals.ready(now, 2) {
            if self.plans.iter().any(|(place, p)| p.may_start() && Some(place) != not) {
                self.arrivals.put_back(&candidate, now);
            } else {
                // Two may be planned where the first is the culprit's.
                self.plan_one(candidate);
            }
        }
    }

    fn plan_one(&mut self, candidate: Candidate) {
        self.plan_all(vec![candidate]);
    }

    /// Plans these, one after the other.
    fn plan_all(&mut self, candidates: Vec<Candidate>) {
        if candidates.is_empty() {
            return;
        }
        let mut drops = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let place = candidate.place();
            self.plans.insert(place.clone(), Planning::Reading);
            self.plan_order.retain(|p| *p != place);
            self.plan_order.push(place);
            let chain = self.chain(&candidate.folder);
            drops.push((candidate, chain));
        }
        self.tell_later(plan::run(self.ctx.clone(), drops));
    }

    /// Plans again what failed to be uploaded a while ago, `most` drops and not the given one; how many.
    fn plan_again(&mut self, most: usize, not: Option<&Place>, now: Mono) -> usize {
        // What lies there now is another picture: it does not wait for the one before.
        let is_other =
            |drop: &Candidate| drop.image.as_ref().is_some_and(|image| !self.arrivals.has(&drop.place(), &image.facts));
        let due = |(place, planning): (&Place, &Planning)| match planning {
            Planning::Later(drop, at) if Some(place) != not && (*at <= now || is_other(drop)) => Some(place.clone()),
            _ => None,
        };
        let due: Vec<Place> = self.plans.iter().filter_map(due).take(most).collect();
        let mut again = 0;
        for place in due {
            if let Some(Planning::Later(candidate, _)) = self.plans.remove(&place) {
                if self.arrivals.is_current(&candidate) {
                    self.plan_one(*candidate);
                    again += 1;
                } else {
                    self.arrivals.put_back(&candidate, now);
                }
            }
        }
        again
    }

    pub(super) fn planned(&mut self, mut candidate: Candidate, plan: Plan, now: Mono) {
        let place = candidate.place();
        let complete = !matches!(plan, Plan::NotWhole | Plan::Changed | Plan::Unreadable(_));
        if let Some(after) = candidate.settled.take_if(|_| complete) {
            self.ctx.tell.say(&News::Complete { after });
        }
        tracing::debug!(drop = %place, plan = plan.label(), "planned");
        match plan {
            Plan::Ready(planned) => {
                for warning in &planned.warnings {
                    self.warn_once(&warning.to_string());
                }
                let used = planned.known.as_ref().is_some_and(|known| self.continued.contains(&known.id));
                if self.gate.sends_back() || self.trouble.is_some() || used {
                    // Its upload may be too old by the time the pause ends; or another copy took up the ended
                    // drop that this one would continue.
                    self.arrivals.put_back(&candidate, now);
                } else {
                    self.plans.insert(place, Planning::Ready(planned));
                    return;
                }
            }
            Plan::Failed(why, members) => return self.bury(candidate, members, why),
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
                tracing::info!(drop = %place, folder = %place.folder, "waits for a prompt: put one into a .txt of its name, or into a preset.toml");
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
            self.hint(&candidate.folder, &member.name, How::Changed, now);
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
        let counted = self.no_longer_starting(&place);
        let wall = self.ctx.clock.wall();
        self.arrivals.claimed(candidate, now, sending.map(|_| wall.as_millisecond()));
        // What landed under these names since is not to be forgotten.
        for member in candidate.moving() {
            self.hint(&candidate.folder, &member.name, How::Created, now + BEHIND_A_CLAIM);
        }
        self.put_back_continuing(open.drop.continues, now);
        let id = open.drop.id;
        if sending.is_some() {
            // What went well ends the trouble for good.
            self.trouble_past = None;
            self.usage_wanted = true;
            tracing::info!(drop = %place, folder = %place.folder, shots = open.drop.shots.len(), "sending");
        }
        let mut work = Work::new(open, frozen, prepared, place, wall);
        work.busy.extend(sending);
        work.out.extend(sending.zip(counted));
        self.works.insert(id, work);
        self.work_order.push(id);
        self.advance(id, now);
    }

    /// Ends its plan; when it was counted as sent, if it was.
    fn no_longer_starting(&mut self, place: &Place) -> Option<Mono> {
        match self.plans.remove(place) {
            Some(Planning::Starting(_, counted)) => Some(counted),
            _ => None,
        }
    }

    /// Plans that would continue an ended drop which another has taken up by now are made anew.
    fn put_back_continuing(&mut self, continued: Option<DropId>, now: Mono) {
        let Some(id) = continued else { return };
        if self.continued.len() > 10_000 {
            self.continued.clear();
        }
        self.continued.insert(id);
        let same = |(place, p): (&Place, &Planning)| match p {
            Planning::Ready(planned) if planned.known.as_ref().is_some_and(|k| k.id == id) => Some(place.clone()),
            _ => None,
        };
        let same: Vec<Place> = self.plans.iter().filter_map(same).collect();
        for place in same {
            if let Some(Planning::Ready(planned)) = self.plans.remove(&place) {
                self.plan_order.retain(|p| *p != place);
                self.arrivals.put_back(&planned.candidate, now);
            }
        }
    }

    pub(super) fn not_started(&mut self, candidate: &Candidate, why: NotStarted, sends: bool, now: Mono) {
        let place = candidate.place();
        let counted = self.no_longer_starting(&place);
        self.arrivals.not_started(candidate, now);
        if sends {
            self.pace.ended(counted);
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
                // It was moved to and fro, and what the watch told of that may not have come yet.
                self.rescan_wanted = true;
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
            |(place, planning): (&Place, &Planning)| matches!(planning, Planning::Ready(_)).then(|| place.clone());
        let ready: Vec<Place> = self.plans.iter().filter_map(ready).collect();
        for place in ready {
            if let Some(Planning::Ready(planned)) = self.plans.remove(&place) {
                self.plan_order.retain(|p| *p != place);
                self.arrivals.put_back(&planned.candidate, now);
            }
        }
    }

    /// When pace or backoff let something go that waits for nothing else.
    pub(super) fn pace_wake(&mut self) -> Vec<Mono> {
        let mut wakes = Vec::new();
        // As of the last turn, so that nothing falls between it and the sleep.
        let (now, wall) = (self.turned, self.turned_wall);
        let later = self.plans.values().filter_map(|p| match p {
            Planning::Later(_, at) => Some(*at),
            _ => None,
        });
        wakes.extend(later);
        let mut waits = self.plans.values().any(|p| matches!(p, Planning::Ready(_)));
        for work in self.works.values() {
            wakes.extend(work.fetches.values().map(|(_, at, _)| *at));
            for shot in &work.open.drop.shots {
                if let crate::domain::life::ShotState::Due { not_before } = &shot.state
                    && !work.busy.contains(&shot.no)
                    && work.lost.is_none()
                {
                    let wait = wait(*not_before, wall, self.ctx.config.retry.max_delay);
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

    /// Names that a drop in work keeps, for the arrivals.
    pub(super) fn note_in_work(&mut self, open: &OpenDrop, now: Mono) {
        let image = open.drop.members.iter().find(|m| m.role == crate::ledger::Role::Picture).map(|m| m.name.clone());
        let sent = open.drop.shots.iter().filter_map(|s| s.first_sent).min().map(jiff::Timestamp::as_millisecond);
        self.arrivals.in_work(&open.drop.folder, &open.drop.stem, image.as_deref(), sent, now);
    }
}

/// Whether everything can be kept and recorded again: tried for real, since a look does not see a quota or a
/// ledger that can't be written.
async fn really_try(ctx: &super::ctx::Ctx, bytes: u64) -> Option<String> {
    let site = ctx.site.clone();
    let prepared = plan::prepared_dir(&site.state_dir);
    let spool = ctx.spool.path().to_path_buf();
    let tried = super::ctx::blocking(move || {
        // Our own folders in the state directory are made again, and no others: those may be disks that are not
        // there.
        if site.state_dir.is_dir()
            && let Err(e) = crate::outbox::spool::Spool::new(&site.state_dir)
        {
            return Some(e.to_string());
        }
        if let Some(trouble) = site.trouble(bytes) {
            return Some(trouble);
        }
        if let Err(e) = plan::make_prepared_dir(&prepared) {
            return Some(format!("{}: {e}", prepared.display()));
        }
        let folders = [&site.working, &site.outbox, &site.archive, &site.errors, &site.state_dir, &prepared, &spool];
        folders.into_iter().find_map(|path| crate::outbox::room::try_write(path).err().map(|e| e.to_string()))
    });
    if let Some(trouble) = tried.await.unwrap_or_else(Some) {
        return Some(trouble);
    }
    let (key, now) = (crate::domain::ids::Fingerprint::of(b"a try"), ctx.clock.wall());
    let recorded = ctx.record(move |l| {
        l.uploaded(key, "", now)?;
        l.forget_upload(key)
    });
    recorded.await.err().map(|e| e.for_a_person())
}

/// The place of a drop in work, by its lead.
pub(super) fn place_of(folder: &RelPath, members: &[Member]) -> Place {
    let picture = members.iter().find(|m| m.role == crate::ledger::Role::Picture).or(members.first());
    Place { folder: folder.clone(), name: picture.map(|m| m.name.clone()).unwrap_or_default() }
}
