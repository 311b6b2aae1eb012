//! When the loop ends: after a signal, or in `once` mode when nothing is left to do.

use std::time::Duration;

use crate::domain::arrivals::Reason;
use crate::domain::ids::Mono;

use super::works::Work;
use super::{Engine, Planning, answers};

/// What comes back within this time is the same wait.
const WELL: Duration = Duration::from_secs(30);

impl Engine {
    /// Whether the loop ends here.
    pub(super) fn is_done(&mut self) -> bool {
        let now = self.now();
        if let Some(until) = self.stopping {
            let busy = self.works.values().any(|w| !w.busy.is_empty() || w.closing);
            let starting = self.plans.values().any(|p| matches!(p, Planning::Starting(..) | Planning::Burying));
            if now >= until {
                tracing::warn!(
                    in_flight = self.pace.in_flight(),
                    "the grace is over; what is in flight is settled at the next start"
                );
                return true;
            }
            return self.pace.in_flight() == 0 && !busy && !starting && !self.recover_running;
        }
        self.once && self.once_is_done(now)
    }

    fn once_is_done(&mut self, now: Mono) -> bool {
        if self.scans_done == 0 && self.inbox_away().is_none() {
            return false;
        }
        self.ended.broken_presets = self.arrivals.broken_presets().next().is_some();
        // A pause or a limit is a reason to stop only where something waits for its end.
        let held = self.arrivals.has_ready()
            || self.plans.values().any(|p| !matches!(p, Planning::Burying))
            || self.works.values().any(Work::has_due);
        if let Some(pause) = self.gate.paused().filter(|_| held)
            && answers::ends_once(pause.why)
        {
            return self.stop_once(pause.why.text().to_owned(), now);
        }
        if let Some(limited) = self.limited.as_ref().filter(|_| held) {
            return self.stop_once(format!("the limit {} is reached", limited.which), now);
        }
        let wait = self.gate.paused().filter(|_| held).map(|p| p.why.text().to_owned());
        let wait = wait.or_else(|| self.trouble.as_ref().map(|t| t.text.clone()));
        let wait = wait.or_else(|| self.inbox_away().map(|(why, _)| why.clone()));
        let wait = wait.or_else(|| self.blocked.values().next().map(|(why, _)| why.clone()));
        let wait = wait.or_else(|| self.all_wait_to_be_fetched(held));
        if let Some(why) = wait {
            // After a good while it is another one, with a minute of its own.
            if self.once_well.take().is_some_and(|since| now.since(since) > WELL) {
                self.once_wait = None;
            }
            let until = *self.once_wait.get_or_insert(now + Duration::from_secs(60));
            return now >= until && self.stop_once(why, now);
        }
        // What comes back soon is the same wait: a request that was told to wait is sent, and told so again.
        if now.since(*self.once_well.get_or_insert(now)) > WELL {
            self.once_wait = None;
        }
        let idle = !self.scanning && !self.looking && self.hints.is_empty() && !self.rescan_wanted;
        if !idle || !self.plans.is_empty() || self.works.values().any(|w| w.lost.is_none()) {
            return false;
        }
        if !self.arrivals.presets_are_known() {
            return false;
        }
        if self.goes_by_itself(now) {
            return false;
        }
        self.list_what_stays();
        true
    }

    /// All that is left are pictures whose addresses do not answer. The next start goes on with them.
    fn all_wait_to_be_fetched(&self, held: bool) -> Option<String> {
        let waits = |work: &Work| work.open.drop.shots.iter().any(|shot| work.waits_to_be_fetched(shot));
        let idle = |work: &Work| {
            let shots = &work.open.drop.shots;
            work.lost.is_some() || shots.iter().all(|shot| shot.state.has_ended() || work.waits_to_be_fetched(shot))
        };
        let all = !held && self.plans.is_empty() && self.works.values().any(waits) && self.works.values().all(idle);
        all.then(|| "a picture can't be fetched from its address".to_owned())
    }

    /// Whether something lies in the inbox that only has to wait for a while.
    fn goes_by_itself(&self, now: Mono) -> bool {
        let counts = self.arrivals.counts(Reason::Queued);
        let some = |reason: &Reason| counts.get(reason).is_some_and(|n| *n > 0);
        [Reason::Planning, Reason::Queued, Reason::Busy].iter().any(some) || self.comes_by_itself(now)
    }

    /// Whether something lies in the inbox that is no candidate yet and only has to wait for a while: not for another drop.
    pub(super) fn comes_by_itself(&self, now: Mono) -> bool {
        let counts = self.arrivals.counts(Reason::Queued);
        let some = |reasons: &[Reason]| reasons.iter().any(|r| counts.get(r).is_some_and(|n| *n > 0));
        if some(&[Reason::Settling, Reason::FolderSettling, Reason::PresetChanging]) {
            return true;
        }
        // These end by themselves, unless a preset requires what never comes.
        let w = &self.ctx.config.watch;
        let soon = now + w.lone_wait.max(w.sidecar_wait) + Duration::from_secs(1);
        some(&[Reason::Sidecar, Reason::Image]) && self.arrivals.next_wake().is_some_and(|at| at <= soon)
    }

    /// A person ended `run --once` before it was through: what is left is told as what a pause leaves is.
    pub(super) fn note_if_cut_short(&mut self) {
        let left = self.scans_done == 0
            || !self.plans.is_empty()
            || self.works.values().any(|w| w.lost.is_none())
            || self.goes_by_itself(self.now());
        if self.once && self.stopping.is_some() && self.ended.stopped_for.is_none() && left {
            self.ended.stopped_for = Some("it was asked to".into());
            self.ended.cut_short = true;
        }
    }

    /// `run --once` ends although something is left; what is in flight ends first.
    fn stop_once(&mut self, why: String, now: Mono) -> bool {
        tracing::warn!(reason = %why, "stopping: the rest waits in the inbox");
        self.ended.stopped_for = Some(why);
        self.stopping = Some(now + self.ctx.config.service.grace);
        self.send_back_what_can_go();
        self.is_done()
    }

    /// Says what stays in the inbox, and for what it waits.
    fn list_what_stays(&self) {
        for waiting in self.arrivals.waiting().take(1000) {
            tracing::info!(drop = %waiting.place, "stays: it {}", waiting.reason.waits());
        }
    }
}
