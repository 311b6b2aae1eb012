//! What the loop does with an answer: the domain says what it means, the gate who waits, and the step is
//! committed.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Unconfirmed;
use crate::domain::answer::{self, Next, Policy};
use crate::domain::gate::{Credits as GateCredits, Outcome, Treatment, Why};
use crate::domain::ids::{DropId, Mono, Place, ShotNo};
use crate::domain::life::{Shot, ShotEvent, ShotState};
use crate::domain::news::News;
use crate::domain::pace::backoff;
use crate::domain::verdict::{Billed, Credits, PauseWhy, Verdict, decide_ask};
use crate::ledger::Sent;

use super::event::{Answer, Event};
use super::frozen::Frozen;
use super::{Engine, LOOK_AGAIN, keep, plan, send};

impl Engine {
    pub(super) fn policy(&self) -> Policy {
        let retry = &self.ctx.config.retry;
        Policy {
            max_attempts: retry.max_attempts,
            first_delay: retry.first_delay,
            max_delay: retry.max_delay,
            retry_unconfirmed: retry.unconfirmed == Unconfirmed::Retry,
        }
    }

    /// From 0 to 1.
    fn jitter() -> f64 {
        (plan::random() % 1024) as f64 / 1023.0
    }

    pub(super) fn answered(&mut self, id: DropId, no: ShotNo, answer: Answer, now: Mono) {
        let (outcome, keeps) = match answer {
            Answer::Came { outcome, keeps } => (*outcome, keeps),
            Answer::Limited(sent) => {
                self.not_sent(id, no);
                return self.limit(sent, now);
            }
            Answer::NotSent(why) => {
                self.not_sent(id, no);
                return self.our_trouble(&why, now);
            }
            Answer::Never(why) => {
                self.take_back(id, no);
                let reason = format!("it was not sent: {why}");
                return self.step(id, no, ShotEvent::Fail { reason, billed: Billed::No });
            }
        };
        tracing::debug!(
            verdict = outcome.verdict.label(),
            took_ms = outcome.elapsed.as_millis() as u64,
            request_id = outcome.receipt.request_id,
            "answered"
        );
        self.ctx.tell.say(&News::Answered {
            verdict: outcome.verdict.label(),
            took: outcome.elapsed,
            billed: outcome.verdict.billed(),
            cost: outcome.receipt.cost,
        });
        // No connection, or no key to begin with.
        let not_sent =
            matches!(outcome.verdict, Verdict::Pause { why: PauseWhy::Network, .. }) || outcome.elapsed.is_zero();
        let counted = self.works.get_mut(&id).and_then(|work| work.out.remove(&no));
        self.pace.ended(counted.filter(|_| not_sent));
        self.figures.credits = outcome.receipt.remaining_credits.or(self.figures.credits);
        if let Some(work) = self.works.get_mut(&id)
            && let Some(shot) = work.shot(no).cloned()
        {
            // One that surely did not leave is no send.
            let sends = shot.sends.saturating_sub(u32::from(not_sent));
            work.set(Shot { receipt: outcome.receipt.clone(), sends, ..shot });
            work.answered.insert(no, now);
            if let Some(held) = outcome.held {
                tracing::warn!(drop = %work.place, reason = %held.why, "a picture came that the disk does not take: it is kept in memory until it does");
                work.held.insert(no, Arc::new(held));
            }
        }
        self.judged(id, no, &outcome.verdict, keeps, now);
    }

    /// A send that did not happen: the shot is due again, and nothing is counted.
    fn not_sent(&mut self, id: DropId, no: ShotNo) {
        self.take_back(id, no);
        self.send_back_if_paused(id);
    }

    fn take_back(&mut self, id: DropId, no: ShotNo) {
        let counted = self.works.get_mut(&id).and_then(|work| work.out.remove(&no));
        self.pace.ended(counted);
        if let Some(work) = self.works.get_mut(&id) {
            work.busy.remove(&no);
            if let Some(shot) = work.shot(no).cloned() {
                // Never committed as sending, so the ledger has it as due.
                work.set(shot.unsent());
            }
            let place = work.place.clone();
            self.gate.not_sent(&place);
        }
    }

    /// `keeps`: whoever received its picture keeps it already.
    fn judged(&mut self, id: DropId, no: ShotNo, verdict: &Verdict, keeps: bool, now: Mono) {
        let Some(place) = self.works.get(&id).map(|w| w.place.clone()) else { return };
        let treatment = if let Some(outcome) = answer::outcome(verdict) {
            self.through_gate(&place, &outcome, answer::message(verdict), now)
        } else {
            if !matches!(verdict, Verdict::Ask { .. }) {
                self.gate.not_sent(&place);
            }
            Treatment::Counts
        };
        let Some((shot, cached)) = self.shot_as_answered(id, no) else { return };
        let had_old_url = self.works.get_mut(&id).is_some_and(|work| work.with_old_url.remove(&no));
        let cached = cached || had_old_url;
        let wall = self.ctx.clock.wall();
        match answer::next(&shot, verdict, treatment, self.policy(), cached, wall, Self::jitter()) {
            Next::Keep if keeps => {}
            Next::Keep => {
                if let Some(work) = self.works.get(&id) {
                    let (open, frozen, held) = (work.open.clone(), work.frozen.clone(), work.held.get(&no).cloned());
                    self.spawn(keep::keep(self.ctx.clone(), open, frozen, shot, held, Vec::new()));
                }
            }
            Next::Step(event) => {
                if let ShotEvent::GiveBack { counts: true, .. } | ShotEvent::Lose { again: true, .. } = &event {
                    tracing::warn!(drop = %place, folder = %place.folder, shot = no.0 + 1, verdict = verdict.label(), request_id = shot.receipt.request_id, reason = answer::message(verdict), "it is sent again later");
                }
                self.step(id, no, event);
            }
            Next::Ask => {
                let (ctx, message) = (self.ctx.clone(), answer::message(verdict).to_owned());
                let due = self.due_while_it_waits(id, &shot);
                self.spawn(async move {
                    send::record(&ctx, id, due).await;
                    let credits = ask_credits(&ctx).await;
                    ctx.send(Event::Asked { drop: id, shot: no, message, credits }).await;
                });
            }
            // It was uploaded again while this one was out.
            Next::UploadAgain if had_old_url => self.send_with_new_url(id, no),
            Next::UploadAgain => {
                let (ctx, due) = (self.ctx.clone(), self.due_while_it_waits(id, &shot));
                let Some(work) = self.works.get_mut(&id) else { return };
                work.recording.insert(no, answer::message(verdict).to_owned());
                self.spawn(async move {
                    send::record(&ctx, id, due).await;
                    ctx.send(Event::WaitsForUpload { drop: id, shot: no }).await;
                });
            }
        }
        if self.gate.sends_back() {
            self.everything_pauses(now);
        }
    }

    /// A shot whose answer was read, and that surely was not billed, is due from then on, also if we are killed while
    /// a worker finds out what becomes of it. It stays busy.
    fn due_while_it_waits(&mut self, id: DropId, shot: &Shot) -> Shot {
        let due = shot.apply(ShotEvent::GiveBack { not_before: None, counts: false });
        let due = due.unwrap_or_else(|_| shot.clone());
        if let Some(work) = self.works.get_mut(&id) {
            work.set(due.clone());
        }
        due
    }

    /// It is committed that a shot, which was refused with an old upload, is due: the reference is uploaded again for it
    /// and for all that wait by then.
    pub(super) fn waits_for_upload(&mut self, id: DropId, no: ShotNo) {
        let Some(work) = self.works.get_mut(&id) else { return };
        let Some(refusal) = work.recording.remove(&no) else { return };
        if work.with_old_url.remove(&no) {
            return self.send_with_new_url(id, no);
        }
        work.renewing.push((no, refusal));
        if work.renewing.len() == 1 {
            tracing::info!(drop = %work.place, "its reference was uploaded for an earlier drop and may be gone: uploaded again, sent once more");
            let (ctx, open, frozen) = (self.ctx.clone(), work.open.clone(), work.frozen.clone());
            self.spawn(send::upload_again(ctx, open, frozen));
        }
    }

    /// A shot that was refused with the reference's old URL goes out with the new one, once.
    fn send_with_new_url(&mut self, id: DropId, no: ShotNo) {
        if let Some(work) = self.works.get_mut(&id)
            && let Some(shot) = work.shot(no).cloned()
        {
            work.set(Shot { reuploaded: true, ..shot });
        }
        self.step(id, no, ShotEvent::GiveBack { not_before: None, counts: false });
    }

    /// Tells the gate of an answer, and the log of what the gate made of it.
    fn through_gate(&mut self, place: &Place, outcome: &Outcome, message: &str, now: Mono) -> Treatment {
        let others = self.others_wait(place) || self.comes_by_itself(now);
        let before = self.gate.paused();
        let retry = self.ctx.config.retry.clone();
        let jitter = Self::jitter();
        let wait = |n| backoff(n, retry.first_delay, retry.max_delay, jitter);
        let treatment = self.gate.answer(place, outcome, message, others, now, self.ctx.clock.wall(), wait);
        let after = self.gate.paused();
        match (&before, &after) {
            (_, Some(pause)) if before.as_ref().map(|p| p.why) != Some(pause.why) => {
                let until = pause.until.map(|at| format!("{} s", at.since(now).as_secs()));
                tracing::warn!(reason = pause.why.text(), said = %pause.message, drop = %place, again_in = until, "paused: nothing is sent, nothing goes to errors");
            }
            (Some(_), None) => tracing::info!("going on: the pause is over"),
            _ => {}
        }
        treatment
    }

    /// Whether another drop than the one at `place` waits to be sent.
    pub(super) fn others_wait(&self, place: &Place) -> bool {
        self.works.values().any(|w| w.place != *place && w.has_due())
            || self.plans.iter().any(|(p, plan)| p != place && plan.waits_to_be_sent())
            || self.arrivals.has_ready()
    }

    /// The credits decided about a 403 or 406.
    pub(super) fn asked(&mut self, id: DropId, no: ShotNo, message: &str, credits: &Credits, now: Mono) {
        self.figures.credits = credits.total().or(self.figures.credits);
        let verdict = decide_ask(credits, message);
        self.judged(id, no, &verdict, false, now);
    }

    pub(super) fn reuploaded(&mut self, id: DropId, done: Result<Frozen, Verdict>, now: Mono) {
        let Some(work) = self.works.get_mut(&id) else { return };
        let waited = std::mem::take(&mut work.renewing);
        match done {
            Ok(frozen) => {
                work.frozen = frozen;
                work.open.drop.plan = work.frozen.to_text();
                let shots = work.open.drop.shots.iter();
                let out = shots.filter(|shot| matches!(shot.state, ShotState::Sending { .. }));
                work.with_old_url = out.map(|shot| shot.no).chain(work.recording.keys().copied()).collect();
                for (no, _) in waited {
                    self.send_with_new_url(id, no);
                }
            }
            Err(verdict) => {
                let place = work.place.clone();
                // A picture that can't be prepared any more says nothing of the service.
                if let Some(outcome) = answer::outcome(&verdict).filter(|o| *o != Outcome::Fault) {
                    self.through_gate(&place, &outcome, answer::message(&verdict), now);
                }
                for (no, refusal) in waited {
                    let Some(shot) = self.works.get(&id).and_then(|work| work.shot(no)).cloned() else { continue };
                    let wall = self.ctx.clock.wall();
                    let event =
                        answer::after_failed_upload(&shot, &refusal, &verdict, self.policy(), wall, Self::jitter());
                    self.step(id, no, event);
                }
                if self.gate.sends_back() {
                    self.everything_pauses(now);
                }
            }
        }
    }

    /// The credits request of a pause was answered.
    pub(super) fn credits(
        &mut self,
        credits: GateCredits,
        message: &str,
        total: Option<f64>,
        key: Result<(), String>,
        now: Mono,
    ) {
        self.figures.credits = total.or(self.figures.credits);
        let message = key.as_ref().err().map_or(message, |why| why).to_owned();
        if let Err(why) = key {
            self.warn_once(&why);
        }
        let before = self.gate.paused().map(|p| p.why);
        self.gate.credits(credits, &message, now, self.ctx.clock.wall());
        let after = self.gate.paused();
        if after.as_ref().map(|p| p.why) != before
            && let Some(pause) = after
        {
            tracing::warn!(reason = pause.why.text(), said = pause.message, "paused for another reason now");
        }
    }

    /// Starts the free probe of a pause.
    pub(super) fn probe(&mut self) {
        tracing::debug!("asking for the credits, since it is paused");
        let ctx = self.ctx.clone();
        self.spawn(async move {
            // A key may have been changed while it ran.
            let keys = ctx.keys.clone();
            let key = super::ctx::blocking(move || keys.read().map_err(|e| e.to_string())).await.and_then(|r| r);
            let (said, message, total) = if key.is_ok() {
                let credits = ask_credits(&ctx).await;
                let message = match &credits {
                    Credits::Refused { message } => message.clone(),
                    _ => String::new(),
                };
                (gate_credits(&credits), message, credits.total())
            } else {
                (GateCredits::Refused, String::new(), None)
            };
            ctx.send(Event::Credits { credits: said, message, total, key }).await;
        });
    }

    /// A limit is reached: nothing is sent until there is room.
    pub(super) fn limit(&mut self, sent: Sent, now: Mono) {
        let Sent::Limited { wait, which } = sent else { return };
        // By the time there is room their uploads may be gone.
        self.put_plans_back(now);
        let wait = wait.max(Duration::from_millis(50));
        let until_wall = self.ctx.clock.wall().checked_add(jiff::SignedDuration::try_from(wait).unwrap_or_default());
        if self.limited.is_none() {
            tracing::warn!(
                limit = which,
                again_in_s = wait.as_secs(),
                "the limit is reached: the queue waits in the inbox"
            );
        }
        self.limited = Some(super::Limited {
            until_since_boot: self.ctx.clock.moment().since_boot + wait,
            until: now + wait,
            until_wall: until_wall.unwrap_or_else(|_| self.ctx.clock.wall()),
            which,
        });
    }

    /// Our own machine keeps things from being kept or recorded: everything waits. Trouble that comes back soon
    /// after it seemed over is the same trouble, looked at ever more seldom.
    pub(super) fn our_trouble(&mut self, text: &str, now: Mono) {
        let wall = self.ctx.clock.wall();
        if let Some(trouble) = &mut self.trouble {
            text.clone_into(&mut trouble.text);
            return;
        }
        let past = self.trouble_past.take().filter(|past| now.since(past.cleared) < Duration::from_secs(30));
        let (since, wait, same) = past.map_or((wall, LOOK_AGAIN, false), |past| {
            (past.since, (past.wait * 2).min(Duration::from_secs(60)), past.text == text)
        });
        if !same {
            tracing::error!(reason = %text, "paused: nothing is sent until this is mended");
        }
        self.trouble = Some(super::Trouble { text: text.to_owned(), since, again: now + wait, wait });
        self.everything_pauses(now);
    }

    /// What the try at our own folders and the ledger found.
    pub(super) fn room(&mut self, found: Option<String>, now: Mono) {
        self.room_check = false;
        // A few bytes can be written where a picture cannot: as long as one waits in memory, nothing more is bought.
        let held = self.works.values().any(|work| !work.held.is_empty());
        let Some(trouble) = &mut self.trouble else { return };
        match found {
            None if held => trouble.again = now + LOOK_AGAIN,
            None => {
                if trouble.wait == LOOK_AGAIN {
                    tracing::info!("going on: there is room, and everything can be written");
                }
                self.trouble_past = Some(super::PastTrouble {
                    text: std::mem::take(&mut trouble.text),
                    cleared: now,
                    wait: trouble.wait,
                    since: trouble.since,
                });
                self.trouble = None;
            }
            Some(text) => {
                trouble.text = text;
                trouble.again = now + trouble.wait;
            }
        }
    }

    /// A pause has begun: what is claimed and unbilled goes back, what was planned is planned again later.
    pub(super) fn everything_pauses(&mut self, now: Mono) {
        self.put_plans_back(now);
        self.send_back_what_can_go();
    }

    /// A 403 or 406 to an upload was decided.
    pub(super) fn upload_asked(
        &mut self,
        candidate: &crate::domain::arrivals::Candidate,
        message: &str,
        credits: &Credits,
        now: Mono,
    ) {
        self.figures.credits = credits.total().or(self.figures.credits);
        self.upload_failed(candidate, &decide_ask(credits, message), now);
    }

    /// An upload went wrong: everybody's pause, the drop's fault, or once more later.
    pub(super) fn upload_failed(
        &mut self,
        candidate: &crate::domain::arrivals::Candidate,
        verdict: &Verdict,
        now: Mono,
    ) {
        let place = candidate.place();
        if let Verdict::Ask { .. } = verdict {
            self.plans.insert(place, super::Planning::Asking);
            let (ctx, message, candidate) = (self.ctx.clone(), answer::message(verdict).to_owned(), candidate.clone());
            return self.spawn(async move {
                let credits = ask_credits(&ctx).await;
                ctx.send(Event::UploadAsked { message, credits, candidate }).await;
            });
        }
        // In a trial the upload is the probe. Its unconfirmed is a retry already; a success never comes here.
        if matches!(self.gate.may(now), crate::domain::gate::May::One { .. }) {
            self.gate.sent(&place);
        }
        let treatment = match answer::outcome(verdict) {
            Some(outcome) => self.through_gate(&place, &outcome, answer::message(verdict), now),
            None => Treatment::Counts,
        };
        self.gate.not_sent(&place);
        let others = self.others_wait(&place) || self.comes_by_itself(now);
        let alone = !others && self.trouble.is_none() && self.stopping.is_none();
        match verdict {
            Verdict::Fault { message, .. } => {
                let reason = format!("the picture could not be uploaded: {message}");
                return self.bury(candidate.clone(), Vec::new(), reason);
            }
            // An outage costs no drop a try: only the one that is alone with it.
            Verdict::Retry { message, .. }
                if treatment == Treatment::Counts && (alone || self.gate.paused().is_none()) =>
            {
                // Of what is gone or was changed nothing is left.
                self.plan_retries.retain(|place, (facts, _)| self.arrivals.has(place, facts));
                let tries = self.plan_retries.get(&place).map_or(0, |(_, tries)| *tries) + 1;
                if tries >= self.ctx.config.retry.max_attempts {
                    let reason = format!("the picture could not be uploaded, tried {tries} times: {message}");
                    return self.bury_now(candidate.clone(), Vec::new(), reason);
                }
                let retry = &self.ctx.config.retry;
                let delay = backoff(tries, retry.first_delay, retry.max_delay, Self::jitter());
                if let Some(image) = &candidate.image {
                    self.plan_retries.insert(place.clone(), (image.facts, tries));
                }
                self.plan_order.retain(|p| *p != place);
                self.plans.insert(place, super::Planning::Later(Box::new(candidate.clone()), now + delay));
                if self.gate.sends_back() {
                    self.everything_pauses(now);
                }
                return;
            }
            _ => {}
        }
        self.plans.remove(&place);
        self.plan_order.retain(|p| *p != place);
        self.arrivals.put_back(candidate, now);
        if self.gate.sends_back() {
            self.everything_pauses(now);
        }
    }
}

async fn ask_credits(ctx: &super::ctx::Ctx) -> Credits {
    let last_cost = ctx.record(|l| l.last_cost()).await.unwrap_or(None);
    match ctx.key().await {
        Some(key) => ctx.client.credits(&key, last_cost).await,
        None => Credits::Refused { message: "there is no API key".into() },
    }
}

/// The gate's word for what the credits request said.
pub(super) fn gate_credits(credits: &Credits) -> GateCredits {
    match credits {
        Credits::Good { .. } => GateCredits::Good,
        Credits::Low { .. } => GateCredits::Low,
        Credits::Refused { .. } => GateCredits::Refused,
        Credits::NoneFound => GateCredits::Unknown,
        Credits::Other { .. } => GateCredits::Other,
        Credits::NoAnswer { .. } => GateCredits::NoAnswer,
    }
}

/// Whether a pause of this kind ends `run --once` at once.
pub(super) fn ends_once(why: Why) -> bool {
    why.needs_a_person()
}
