//! What waits for a person: when that is to be told, once for each wait.
//!
//! Only what cannot go on by itself has a wake for it, and nothing has one while nobody wants to know.

use std::time::Duration;

use super::item::{Item, Nanos, length};
use super::judge::Verdict;
use super::words::{Asking, Reason};
use super::{Arrivals, GroupId, Wake};
use crate::domain::ids::Place;

/// When a drop that `item` leads is to be told of. What waited before the clock began waits since then.
pub(super) fn ask_at(item: &Item, verdict: &Verdict, after: Option<Duration>) -> Option<Nanos> {
    match verdict {
        Verdict::Wait(reason @ (Reason::Prompt | Reason::Image | Reason::Sidecar), None)
            if item.asked != Some(*reason) =>
        {
            after.map(|after| item.quiet.max(0).saturating_add(length(after)))
        }
        _ => None,
    }
}

impl Arrivals {
    /// Drops that have waited for a person long enough to be told of; each once, until it changes.
    pub fn take_asking(&mut self) -> Vec<Asking> {
        std::mem::take(&mut self.asking)
    }

    /// The wait of this drop is long enough: it is told of with all of its folder that wait for the same, so that
    /// a hundred pictures without a prompt are one piece of news.
    pub(super) fn ask(&mut self, id: GroupId, lead: u32, now: Nanos) {
        let Some(Some(group)) = self.groups.get_mut(id as usize) else { return };
        let Some(slot) = group.slots.iter_mut().find(|slot| slot.lead == lead) else { return };
        slot.ask = None;
        let folder = &self.folders[group.folder as usize];
        let Some(reason @ (Reason::Prompt | Reason::Image | Reason::Sidecar)) = folder.reason(slot.state) else {
            // The folder waits for something else meanwhile: looked at again after the same wait.
            if let Some(after) = self.rules.tell_after {
                let at = now.saturating_add(length(after));
                slot.ask = Some(at);
                self.wakes.insert((at, Wake::Ask(id, lead)));
            }
            return;
        };
        let item = &mut group.items[lead as usize];
        item.asked = Some(reason);
        let place = Place { folder: folder.path.clone(), name: item.name.clone().into() };
        let changed_ns = item.facts.ctime_ns;
        let mut others = 0;
        for other in folder.groups.values().copied() {
            let Some(Some(group)) = self.groups.get_mut(other as usize) else { continue };
            for slot in &mut *group.slots {
                let Some(at) = slot.ask.filter(|_| folder.reason(slot.state) == Some(reason)) else { continue };
                slot.ask = None;
                self.wakes.remove(&(at, Wake::Ask(other, slot.lead)));
                let item = &mut group.items[slot.lead as usize];
                item.asked = Some(reason);
                others += 1;
            }
        }
        self.asking.push(Asking { place, reason, changed_ns, others });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{Box_, RULES};
    use super::super::words::{How, PresetState, ReferenceRule, Rules, SidecarRule};
    use super::*;

    const MINUTES: u64 = 60_000;

    fn preset(sidecar: SidecarRule, reference: ReferenceRule, enabled: bool) -> PresetState {
        PresetState::Ok { sidecar, reference, enabled, priority: 0 }
    }

    /// An inbox where what waits for ten minutes is told of.
    fn inbox(preset: PresetState) -> Box_ {
        let mut inbox = Box_::new(preset);
        let now = inbox.now();
        inbox.arrivals.set_rules(Rules { tell_after: Some(Duration::from_secs(600)), ..RULES }, now);
        inbox
    }

    /// Plans whatever goes, and finds no prompt for any of it.
    fn no_prompts(inbox: &mut Box_) {
        for candidate in inbox.out() {
            let (place, now) = (candidate.place(), inbox.now());
            inbox.arrivals.prompt_missing(&place, now);
        }
    }

    /// What is told of in so many minutes: after how many, what, for what, and how many others.
    fn told(inbox: &mut Box_, minutes: u64) -> Vec<(u64, String, &'static str, usize)> {
        let (begin, mut out) = (inbox.ms, Vec::new());
        for step in 1..=minutes {
            inbox.ms = begin + step * MINUTES;
            no_prompts(inbox);
            let now = inbox.now();
            inbox.arrivals.tick(now);
            let asking = inbox.arrivals.take_asking().into_iter();
            out.extend(asking.map(|a| (step, a.place.to_string(), a.reason.label(), a.others)));
        }
        out
    }

    fn line(minute: u64, place: &str, reason: &'static str, others: usize) -> (u64, String, &'static str, usize) {
        (minute, place.to_owned(), reason, others)
    }

    #[test]
    fn a_picture_without_a_prompt_is_told_of_once_and_again_when_it_is_dropped_anew() {
        let mut inbox = inbox(PresetState::default());
        inbox.see("", "a.jpg", 9, How::Closed);
        assert_eq!(told(&mut inbox, 60), [line(10, "a.jpg", "prompt", 0)]);
        // Whatever is looked at again without a change is the same wait.
        let now = inbox.now();
        inbox.arrivals.reread_presets(&crate::domain::ids::RelPath::root());
        inbox.arrivals.set_rules(Rules { tell_after: Some(Duration::from_secs(600)), ..RULES }, now);
        assert!(told(&mut inbox, 60).is_empty());
        inbox.gone("", "a.jpg");
        inbox.see("", "a.jpg", 9, How::Closed);
        assert_eq!(told(&mut inbox, 60), [line(10, "a.jpg", "prompt", 0)]);
    }

    #[test]
    fn what_got_its_prompt_in_time_is_not_told_of() {
        let mut inbox = inbox(PresetState::default());
        inbox.see("", "a.jpg", 9, How::Closed);
        assert!(told(&mut inbox, 9).is_empty());
        inbox.see("", "a.txt", 9, How::RenamedIn);
        let gone = inbox.out();
        assert_eq!(gone.len(), 1);
        let now = inbox.now();
        inbox.arrivals.claimed(&gone[0], now, Some(0));
        assert!(told(&mut inbox, 60).is_empty() && inbox.arrivals.next_wake().is_none());
    }

    #[test]
    fn sidecars_and_pictures_that_a_preset_makes_wait_are_told_of() {
        let mut inbox = inbox(preset(SidecarRule::Required, ReferenceRule::Required, true));
        inbox.see("", "a.jpg", 9, How::Closed);
        inbox.see("", "b.txt", 9, How::RenamedIn);
        assert_eq!(told(&mut inbox, 60), [line(10, "a.jpg", "sidecar", 0), line(10, "b.txt", "image", 0)]);
    }

    #[test]
    fn what_goes_on_by_itself_is_not_told_of_and_has_no_wake_for_it() {
        let mut inbox = inbox(PresetState::default());
        inbox.see("", "a.txt", 9, How::RenamedIn);
        assert!(told(&mut inbox, 1).is_empty());
        let mut nobody = Box_::new(PresetState::default());
        nobody.see("", "a.jpg", 9, How::Closed);
        assert!(told(&mut nobody, 60).is_empty() && nobody.arrivals.next_wake().is_none());
    }

    #[test]
    fn all_of_a_folder_are_one_piece_of_news() {
        let mut inbox = inbox(PresetState::default());
        for n in 0..100 {
            inbox.see("", &format!("{n:02}.jpg"), 9, How::Closed);
            inbox.ms += 10;
        }
        no_prompts(&mut inbox);
        let told_of = told(&mut inbox, 60);
        assert_eq!(told_of.len(), 1, "{told_of:?}");
        assert_eq!((told_of[0].1.as_str(), told_of[0].3), ("00.jpg", 99));
        inbox.see("", "later.jpg", 9, How::Closed);
        assert_eq!(told(&mut inbox, 60), [line(10, "later.jpg", "prompt", 0)]);
    }

    #[test]
    fn what_waited_in_a_folder_that_is_gone_tells_nothing_in_the_name_of_others() {
        let mut inbox = inbox(PresetState::default());
        let x = crate::domain::ids::RelPath::new("x").unwrap();
        inbox.scan("", &[("x/", 0, 60_000), ("y/", 0, 60_000)]);
        inbox.scan("x", &[("a.jpg", 9, 60_000)]);
        inbox.scan("y", &[]);
        assert!(told(&mut inbox, 5).is_empty());
        let now = inbox.now();
        inbox.arrivals.folder_gone(&x, now);
        inbox.see("y", "b.jpg", 9, How::Closed);
        assert_eq!(told(&mut inbox, 60), [line(10, "y/b.jpg", "prompt", 0)]);
    }

    #[test]
    fn a_folder_that_is_off_tells_nothing_until_it_is_on() {
        let on = preset(SidecarRule::Required, ReferenceRule::Optional, true);
        let mut inbox = inbox(preset(SidecarRule::Required, ReferenceRule::Optional, false));
        inbox.see("", "a.jpg", 9, How::Closed);
        assert!(told(&mut inbox, 60).is_empty());
        inbox.preset = on;
        inbox.arrivals.reread_presets(&crate::domain::ids::RelPath::root());
        let told_of = told(&mut inbox, 60);
        assert_eq!(told_of.len(), 1, "{told_of:?}");
        assert_eq!(told_of[0].1, "a.jpg");
    }
}
