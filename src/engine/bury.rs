//! What goes to errors without being sent: by way of working, and never while everything pauses.

use crate::domain::arrivals::{Candidate, CandidateKind};
use crate::domain::ids::{Mono, Place, show};
use crate::ledger::Member;

use super::file::DROP_BOTH;
use super::read::FOREIGN;
use super::works::Work;
use super::{Engine, Planning, send};

impl Engine {
    /// Whether a pause would end with the next drop, and there is none.
    pub(super) fn is_over_but_for_the_proof(&self) -> bool {
        self.gate.is_trial()
            && !self.arrivals.has_ready()
            && !self.plans.values().any(Planning::waits_to_be_sent)
            && !self.works.values().any(Work::has_due)
    }

    /// Whether what is bad may go to errors now: a pause moves nothing there.
    pub(super) fn may_bury(&self) -> bool {
        (self.gate.paused().is_none() || self.is_over_but_for_the_proof())
            && self.trouble.is_none()
            && self.blocked.is_empty()
            && self.inbox_lost.is_none()
            && !self.recovering
            && self.stopping.is_none()
    }

    /// What was found bad during a pause goes to errors after it, if it is still what it was.
    pub(super) fn bury_doomed(&mut self, now: Mono) {
        let doomed = |(place, p): (&Place, &Planning)| matches!(p, Planning::Doomed(..)).then(|| place.clone());
        let doomed: Vec<Place> = self.plans.iter().filter_map(doomed).collect();
        for place in doomed {
            if let Some(Planning::Doomed(candidate, members, reason)) = self.plans.remove(&place) {
                if self.arrivals.is_current(&candidate) {
                    self.bury(*candidate, members, reason);
                } else {
                    self.arrivals.put_back(&candidate, now);
                }
            }
        }
    }

    /// What goes to errors without being sent.
    pub(super) fn reject(&mut self, now: Mono) {
        for candidate in self.arrivals.rejects(now, 8) {
            let reason = match &candidate.kind {
                CandidateKind::Foreign => FOREIGN.to_owned(),
                CandidateKind::LateSidecar { after, sent_unix_ms } => late(after, *sent_unix_ms),
                CandidateKind::Failed(failure) => failure.to_string(),
                CandidateKind::Picture | CandidateKind::PromptOnly => {
                    self.arrivals.put_back(&candidate, now);
                    continue;
                }
            };
            self.bury(candidate, Vec::new(), reason);
        }
    }

    /// Sends a candidate to errors, by way of working.
    pub(super) fn bury(&mut self, candidate: Candidate, members: Vec<Member>, reason: String) {
        let place = candidate.place();
        self.plan_order.retain(|p| *p != place);
        if !self.may_bury() {
            self.plans.insert(place, Planning::Doomed(Box::new(candidate), members, reason));
            return;
        }
        self.bury_now(candidate, members, reason);
    }

    /// [`Self::bury`], whatever pauses.
    pub(super) fn bury_now(&mut self, candidate: Candidate, members: Vec<Member>, reason: String) {
        let place = candidate.place();
        self.plan_order.retain(|p| *p != place);
        if self.recovering {
            // Nothing is claimed while working is being put in order.
            self.plans.insert(place, Planning::Doomed(Box::new(candidate), members, reason));
            return;
        }
        self.plans.insert(place, Planning::Burying);
        self.arrivals.starting(&candidate, self.turned);
        let ctx = self.ctx.clone();
        self.spawn(send::bury(ctx, candidate, members, reason));
    }
}

fn late(after: &std::ffi::OsStr, sent_unix_ms: Option<i64>) -> String {
    let name = show(after);
    let at = sent_unix_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match at {
        Some(at) => {
            let time = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M").to_string();
            format!("it came after {name} was sent at {time}; {DROP_BOTH}")
        }
        None => format!("it came after {name} had gone; {DROP_BOTH}"),
    }
}
