//! What goes to errors without being sent: by way of working, and never while everything pauses.

use std::path::Path;

use crate::domain::arrivals::{Candidate, CandidateKind};
use crate::domain::ids::{Mono, Place, RelPath, show};
use crate::ledger::{Limits, Member, NewDrop, OpenDrop, Role};
use crate::outbox::folder::Folder;
use crate::reference;

use super::ctx::{Ctx, blocking};
use super::event::{Event, NotStarted};
use super::file::DROP_BOTH;
use super::frozen::Frozen;
use super::read::{FOREIGN, LONGEST_HASHED};
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
        self.spawn(bury(ctx, candidate, members, reason));
    }
}

/// Moves a drop that can't be sent at all into working, with its reason, so that it goes to errors.
async fn bury(ctx: Ctx, candidate: Candidate, members: Vec<Member>, reason: String) {
    let mut drop = NewDrop {
        id: send::new_id(),
        folder: candidate.folder.clone(),
        stem: candidate.stem.clone(),
        members: if members.is_empty() { unread_members(&candidate) } else { members },
        working: ctx.site.working.clone(),
        recognition: None,
        plan: Frozen::nothing().to_text(),
        shots: Vec::new(),
        failure: Some(reason),
        continues: None,
    };
    let (again, looked_at) = (ctx.clone(), candidate.clone());
    let claimed = blocking(move || send::claim_drop(&again, &looked_at, 1)).await;
    match claimed.unwrap_or_else(|e| Err(NotStarted::Environment(e))) {
        // Its new note takes the place of the one before.
        Ok(send::Claimed { has_note: true, .. }) => send::take_notes_away(&ctx, &drop, Vec::new()).await,
        Ok(_) => {}
        Err(why) => return send::not_started(&ctx, candidate, why, false).await,
    }
    let (working, folder, members) = (drop.working.clone(), drop.folder.clone(), drop.members.clone());
    if let Ok(hashed) = blocking(move || hashed(&working, &folder, members)).await {
        drop.members = hashed;
    }
    let (row, moment) = (drop.clone(), ctx.clock.moment());
    let claimed = moment.wall;
    if let Err(e) = ctx.record(move |l| l.begin(&row, None, Limits::default(), &moment)).await {
        send::give_up_claim(&ctx, &drop).await;
        return send::not_started(&ctx, candidate, NotStarted::Environment(e.for_a_person()), false).await;
    }
    let open = OpenDrop { drop, claimed, number: None, filing: None };
    ctx.send(Event::Started {
        candidate,
        open: Box::new(open),
        frozen: Frozen::nothing(),
        prepared: None,
        sending: None,
    })
    .await;
}

/// A picture and its sidecars in working with their fingerprints, by which it is known when they come back (sidecars alone
/// are known by their name). What cannot be read goes without. Blocks on the disk.
fn hashed(working: &Path, folder: &RelPath, mut members: Vec<Member>) -> Vec<Member> {
    if !members.iter().any(|member| member.role == Role::Picture) {
        return members;
    }
    let dir = Folder::existing(working, folder).ok().flatten();
    for member in &mut members {
        let unread = member.print.is_none() && member.size <= LONGEST_HASHED;
        if unread && let Some(file) = dir.as_ref().and_then(|dir| dir.open(&member.name).ok()) {
            member.print = reference::fingerprint(&file).ok();
        }
    }
    members
}

fn unread_members(candidate: &Candidate) -> Vec<Member> {
    let sidecars = candidate.sidecars.iter().map(|s| (&s.file, Role::Sidecar, !s.shared));
    let foreign = candidate.foreign.iter().map(|m| (m, Role::Foreign, true));
    let image = candidate.image.iter().map(|m| (m, Role::Picture, true));
    sidecars
        .chain(foreign)
        .chain(image)
        .map(|(file, role, moves)| Member { name: file.name.clone(), role, print: None, size: file.facts.size, moves })
        .collect()
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
