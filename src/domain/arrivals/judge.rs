//! The verdict on the drops of one group: what may go, what fails, what waits and until when.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::item::{Item, Mark, Nanos, length};
use super::words::{CandidateKind, Failure, MAX_SIDECAR_BYTES, Reason, ReferenceRule, Rules, SidecarRule};
use crate::domain::kinds::{NameKind, picture_ext, split};
use crate::domain::pairing::{Fold, Named, Pairing, Part, Unit, pair};

/// A name that is in work, or was filed not long ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameRec {
    /// How many drops of this name are in `working/`.
    pub(super) in_work: u32,
    /// How many are on their way there.
    pub(super) starting: u32,
    /// The images that went with it, the last one at the end, and when they were sent, ms since 1970.
    pub(super) images: Vec<(OsString, Option<i64>)>,
    /// Sidecars that changed before this came too late. Set when it was filed.
    pub(super) late_until: Option<Nanos>,
    /// An image went since then.
    pub(super) fresh: bool,
}

/// What is known around a group.
pub(super) struct View<'a> {
    pub(super) rules: &'a Rules,
    pub(super) sidecar: SidecarRule,
    pub(super) reference: ReferenceRule,
    pub(super) names: &'a HashMap<Fold, NameRec>,
    pub(super) now: Nanos,
}

/// A drop and what is to happen to it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) unit: Unit,
    /// The file that stands for it.
    pub(super) lead: usize,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To be planned and sent, or to errors.
    Go(CandidateKind),
    /// Waits; looked at again at that moment, or when something changes.
    Wait(Reason, Option<Nanos>),
    /// Handed out to the engine.
    Hand,
    /// A sidecar that nobody takes: neither drop nor waiting.
    Off,
}

/// Judges all drops of a group, ordered by name.
pub(super) fn judge(items: &[Item], view: &View<'_>) -> Vec<Judged> {
    let names: Vec<Named<'_>> = items.iter().map(|i| Named { name: &i.name, kind: i.kind }).collect();
    let Pairing { units, left } = pair(&names);
    let mut out = Vec::with_capacity(units.len() + left.len());
    for mut unit in units {
        if view.sidecar == SidecarRule::Ignore {
            let parts = std::mem::take(&mut unit.parts);
            unit.clash = None;
            if unit.image.is_none() {
                out.extend(parts.iter().map(|p| alone(items, p.index, Verdict::Off)));
                continue;
            }
            // A shared one would stand here once for each image.
            for part in parts {
                if !out.iter().any(|j: &Judged| j.lead == part.index) {
                    out.push(alone(items, part.index, Verdict::Off));
                }
            }
        }
        let Some(lead) = unit.image.or_else(|| unit.parts.first().map(|p| p.index)) else { continue };
        let verdict = verdict(items, lead, &unit, view);
        out.push(Judged { unit, lead, verdict });
    }
    let passed_over = match view.sidecar {
        SidecarRule::Ignore => Verdict::Off,
        SidecarRule::Optional | SidecarRule::Required => Verdict::Wait(Reason::Image, None),
    };
    out.extend(left.into_iter().map(|index| alone(items, index, passed_over.clone())));
    for (index, item) in items.iter().enumerate().filter(|(_, i)| i.kind == NameKind::Foreign) {
        let mut judged = alone(items, index, Verdict::Hand);
        judged.unit.stem = item.name.clone().into();
        judged.verdict = match item.mark {
            Mark::Hand(_) => Verdict::Hand,
            Mark::Blocked => Verdict::Wait(Reason::Unreadable, None),
            _ => not_before(item.settled_at(view.rules.settle), Reason::Settling, view)
                .unwrap_or(Verdict::Go(CandidateKind::Foreign)),
        };
        out.push(judged);
    }
    out
}

fn alone(items: &[Item], index: usize, verdict: Verdict) -> Judged {
    let stem = split(&items[index].name).0.to_owned();
    Judged { unit: Unit { stem, image: None, parts: Vec::new(), clash: None }, lead: index, verdict }
}

fn not_before(at: Nanos, reason: Reason, view: &View<'_>) -> Option<Verdict> {
    (view.now < at).then_some(Verdict::Wait(reason, Some(at)))
}

fn verdict(items: &[Item], lead: usize, unit: &Unit, view: &View<'_>) -> Verdict {
    match items[lead].mark {
        Mark::Hand(_) => return Verdict::Hand,
        Mark::Blocked => return Verdict::Wait(Reason::Unreadable, None),
        Mark::NoPrompt => return Verdict::Wait(Reason::Prompt, None),
        Mark::None => {}
    }
    // One at a time, so that what several images share moves with the last of them.
    if items.iter().any(|i| matches!(i.mark, Mark::Hand(_))) {
        return Verdict::Wait(Reason::Busy, None);
    }
    let done = if unit.image.is_some() { with_image(items, lead, unit, view) } else { prompt_only(items, unit, view) };
    done.unwrap_or_else(|waits| waits)
}

type Step<T> = Result<T, Verdict>;

/// How long the files of a drop were waited for, by the rules: from the last change that was noticed of one of
/// them. What is not a wait for files (a prompt, a preset, a turn) is not in it.
pub(super) fn settled(items: &[Item], unit: &Unit, view: &View<'_>) -> Duration {
    let rules = view.rules;
    let parts = || unit.parts.iter().map(|p| &items[p.index]);
    let image = unit.image.map(|index| &items[index]);
    let files = image.into_iter().chain(parts());
    let last = files.map(|file| file.since.max(file.quiet)).max().unwrap_or(view.now);
    let alone = view.sidecar != SidecarRule::Ignore && !unit.parts.iter().any(|p| p.used);
    let lone = image.is_none() && view.reference != ReferenceRule::None;
    let waits = [
        image.map(|image| image.settled_at(rules.settle)),
        image.filter(|_| alone).map(|image| image.quiet.saturating_add(length(rules.sidecar_wait))),
        parts().map(|p| p.quiet).max().filter(|_| lone).map(|at| at.saturating_add(length(rules.lone_wait))),
    ];
    let parts = parts().map(|part| part.finished_at(rules.settle));
    let complete = waits.into_iter().flatten().chain(parts).max().unwrap_or(last).min(view.now);
    Duration::from_nanos(u64::try_from(complete.saturating_sub(last)).unwrap_or(0))
}

fn with_image(items: &[Item], lead: usize, unit: &Unit, view: &View<'_>) -> Step<Verdict> {
    let rules = view.rules;
    let image = &items[lead];
    let prompts_only = view.reference == ReferenceRule::None;
    let mut failure = prompts_only.then_some(Failure::PromptsOnly);
    if !prompts_only && (image.not_whole || image.facts.size == 0) {
        let end = image.since.saturating_add(length(rules.give_up));
        wait_until(end, Reason::Incomplete, view)?;
        failure = Some(Failure::Truncated);
    } else {
        wait_until(image.settled_at(rules.settle), Reason::Settling, view)?;
    }
    let of_parts = finished(items, &unit.parts, Reason::Sidecar, view)?;
    let failure = failure.or(of_parts).or_else(|| clash(items, unit));
    let has_sidecar = unit.parts.iter().any(|p| p.used);
    if !has_sidecar && failure != Some(Failure::Truncated) {
        match view.sidecar {
            SidecarRule::Ignore => {}
            SidecarRule::Required if failure.is_none() => return Err(Verdict::Wait(Reason::Sidecar, None)),
            // A picture that fails waits too: else its prompt, which comes a moment later, would be a drop.
            SidecarRule::Required | SidecarRule::Optional => {
                let end = image.quiet.saturating_add(length(rules.sidecar_wait));
                wait_until(end, Reason::Sidecar, view)?;
            }
        }
    }
    if let Some(failure) = failure {
        return Ok(Verdict::Go(CandidateKind::Failed(failure)));
    }
    not_in_work(&unit.stem, view)?;
    Ok(Verdict::Go(CandidateKind::Picture))
}

fn prompt_only(items: &[Item], unit: &Unit, view: &View<'_>) -> Step<Verdict> {
    let rules = view.rules;
    let failure = finished(items, &unit.parts, Reason::Settling, view)?.or_else(|| clash(items, unit));
    let newest = unit.parts.iter().map(|p| items[p.index].quiet).max().unwrap_or(view.now);
    let lone = newest.saturating_add(length(rules.lone_wait));
    if view.reference != ReferenceRule::None {
        if let Some((after, sent_unix_ms)) = image_before(&unit.stem, newest, view).cloned() {
            wait_until(lone, Reason::Image, view)?;
            return Ok(Verdict::Go(CandidateKind::LateSidecar { after, sent_unix_ms }));
        }
        if view.reference == ReferenceRule::Required && failure.is_none() {
            return Err(Verdict::Wait(Reason::Image, None));
        }
        wait_until(lone, Reason::Image, view)?;
    }
    if let Some(failure) = failure {
        return Ok(Verdict::Go(CandidateKind::Failed(failure)));
    }
    not_in_work(&unit.stem, view)?;
    // It may be tied to an image that is on its way, and late when that is known.
    let (shorter, ext) = split(&unit.stem);
    if picture_ext(ext).is_some() && view.names.get(&Fold::of(shorter)).is_some_and(|rec| rec.starting > 0) {
        return Err(Verdict::Wait(Reason::Busy, None));
    }
    Ok(Verdict::Go(CandidateKind::PromptOnly))
}

/// Waits for every sidecar to be finished; then the first that fails the drop.
fn finished(items: &[Item], parts: &[Part], unfinished: Reason, view: &View<'_>) -> Step<Option<Failure>> {
    let mut failure = None;
    for item in parts.iter().map(|p| &items[p.index]) {
        let fault = if item.facts.size == 0 {
            let end = item.since.saturating_add(length(view.rules.give_up));
            wait_until(end, Reason::EmptySidecar, view)?;
            Some(Failure::SidecarEmpty { name: item.name.clone().into() })
        } else {
            wait_until(item.finished_at(view.rules.settle), unfinished, view)?;
            let bytes = item.facts.size;
            (bytes > MAX_SIDECAR_BYTES).then(|| Failure::SidecarTooLarge { name: item.name.clone().into(), bytes })
        };
        failure = failure.or(fault);
    }
    Ok(failure)
}

fn clash(items: &[Item], unit: &Unit) -> Option<Failure> {
    let clash = unit.clash?;
    Some(Failure::TwoOfAKind { says: clash.says, names: clash.between.map(|i| items[i].name.clone().into()) })
}

fn wait_until(at: Nanos, reason: Reason, view: &View<'_>) -> Step<()> {
    not_before(at, reason, view).map_or(Ok(()), Err)
}

fn not_in_work(stem: &OsStr, view: &View<'_>) -> Step<()> {
    let busy = view.names.get(&Fold::of(stem)).is_some_and(NameRec::is_busy);
    if busy { Err(Verdict::Wait(Reason::Busy, None)) } else { Ok(()) }
}

/// The image of a sidecar with this stem that is in work, or was filed shortly before `changed`.
fn image_before<'a>(stem: &OsStr, changed: Nanos, view: &View<'a>) -> Option<&'a (OsString, Option<i64>)> {
    let is_late = |rec: &&NameRec| rec.in_work > 0 || rec.late_until.is_some_and(|until| changed < until);
    let untied = view.names.get(&Fold::of(stem)).filter(is_late).and_then(|rec| rec.images.last());
    untied.or_else(|| {
        let (shorter, ext) = split(stem);
        picture_ext(ext)?;
        let rec = view.names.get(&Fold::of(shorter)).filter(is_late)?;
        rec.images.iter().find(|(image, _)| Fold::of(image) == Fold::of(stem))
    })
}

impl NameRec {
    /// Whether another drop of this name has to wait.
    pub(super) fn is_busy(&self) -> bool {
        self.in_work > 0 || self.starting > 0
    }

    /// Another image of this name went.
    pub(super) fn went(&mut self, image: &OsStr, sent_unix_ms: Option<i64>) {
        self.images.retain(|(other, _)| Fold::of(other) != Fold::of(image));
        self.images.push((image.to_owned(), sent_unix_ms));
        self.fresh = true;
    }
}
