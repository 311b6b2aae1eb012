//! What can be seen from outside: what waits and for what, and what is ignored.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::folders::Folder;
use super::item::{Mark, mono};
use super::words::{Reason, Waiting};
use super::{Arrivals, Group, Slot, SlotState};
use crate::domain::ids::{Place, RelPath};
use crate::domain::kinds::{Special, Why};

impl Arrivals {
    /// Everything that waits, and for what. Folders in order of their paths.
    pub fn waiting(&self) -> impl Iterator<Item = Waiting> + '_ {
        self.ids.values().map(|id| &self.folders[*id as usize]).flat_map(move |folder| {
            let files = folder.groups.values().filter_map(|id| self.groups[*id as usize].as_ref());
            let files = files.flat_map(|group| group.slots.iter().map(move |slot| (group, slot)));
            Self::own_wait(folder)
                .into_iter()
                .chain(files.filter_map(move |(group, slot)| Self::slot_wait(folder, group, slot)))
        })
    }

    /// What a folder itself waits for.
    fn own_wait(folder: &Folder) -> Option<Waiting> {
        folder.unreadable.as_ref().map(|why| Waiting {
            place: folder.as_place(),
            reason: Reason::Unreadable,
            since: mono(folder.quiet),
            detail: Some(why.to_string()),
        })
    }

    /// What a drop waits for.
    fn slot_wait(folder: &Folder, group: &Group, slot: &Slot) -> Option<Waiting> {
        let item = &group.items[slot.lead as usize];
        let reason = folder.reason(slot.state)?;
        let detail = match (item.mark, reason) {
            (Mark::Blocked, Reason::Unreadable) => folder.blocked.get(&item.name).map(ToString::to_string),
            _ => None,
        };
        let place = Place { folder: folder.path.clone(), name: item.name.clone().into() };
        Some(Waiting { place, reason, since: mono(item.quiet), detail })
    }

    /// How many drops wait for what; those that only wait for their turn are counted as `queued`
    /// ([`Reason::Queued`], or [`Reason::Limit`] or [`Reason::Paused`] where that is why).
    pub fn counts(&self, queued: Reason) -> BTreeMap<Reason, usize> {
        let mut counts = BTreeMap::new();
        for folder in self.ids.values().map(|id| &self.folders[*id as usize]) {
            if folder.unreadable.is_some() {
                *counts.entry(Reason::Unreadable).or_insert(0) += 1;
            }
            for (state, n) in &folder.tally {
                if let Some(reason) = folder.reason(*state) {
                    let reason = if reason == Reason::Queued { queued } else { reason };
                    *counts.entry(reason).or_insert(0) += n;
                }
            }
        }
        counts
    }

    /// How many drops wait in each folder where any do, counted as in [`Self::counts`].
    pub fn queues(&self) -> impl Iterator<Item = (&RelPath, usize)> {
        self.ids.values().map(|id| &self.folders[*id as usize]).filter_map(|folder| {
            let waits = folder.tally.iter().filter(|(state, _)| folder.reason(**state).is_some());
            let number = waits.map(|(_, n)| n).sum::<usize>() + usize::from(folder.unreadable.is_some());
            (number > 0).then_some((&folder.path, number))
        })
    }

    /// The first `most` of [`Self::waiting`] that wait for something else than their turn. Costs what it finds, not
    /// what there is.
    pub fn waiting_for_something(&self, most: usize) -> Vec<Waiting> {
        let mut found = Vec::new();
        for folder in self.ids.values().map(|id| &self.folders[*id as usize]) {
            found.extend(Self::own_wait(folder));
            // Behind a closed gate everything waits for the gate.
            let closed = folder.reason(SlotState::Send) != Some(Reason::Queued);
            let all = folder.groups.values().filter(|_| closed);
            let some = folder.waits.iter().filter(|_| !closed);
            let groups = all.chain(some).filter_map(|id| self.groups[*id as usize].as_ref());
            for group in groups {
                if found.len() >= most {
                    break;
                }
                let slots = group.slots.iter().filter_map(|slot| Self::slot_wait(folder, group, slot));
                found.extend(slots.filter(|w| !matches!(w.reason, Reason::Queued | Reason::Planning)));
            }
            if found.len() >= most {
                break;
            }
        }
        found.truncate(most);
        found
    }

    /// How many there are in [`Self::ignored`].
    pub fn ignored_count(&self) -> usize {
        let of = |folder: &Folder| {
            let off = folder.tally.get(&SlotState::Off).copied().unwrap_or_default();
            folder.ignored.len() + folder.spare_presets().count() + off
        };
        self.ids.values().map(|id| of(&self.folders[*id as usize])).sum()
    }

    /// What is ignored, and why.
    pub fn ignored(&self) -> impl Iterator<Item = (Place, Why)> + '_ {
        self.ids.values().map(|id| &self.folders[*id as usize]).flat_map(move |folder| {
            let place = |name: &OsStr| Place { folder: folder.path.clone(), name: name.to_owned() };
            let junk = folder.ignored.iter().map(move |(name, (why, _))| (place(name), *why));
            let presets = folder.spare_presets().map(move |name| (place(name), Why::SecondPreset));
            let some = folder.tally.contains_key(&SlotState::Off);
            let groups = folder.groups.values().filter(move |_| some);
            let groups = groups.filter_map(|id| self.groups[*id as usize].as_ref());
            let off = groups.flat_map(move |group| {
                let off = group.slots.iter().filter(|slot| slot.state == SlotState::Off);
                off.map(move |slot| (place(&group.items[slot.lead as usize].name), Why::SidecarsOff))
            });
            junk.chain(presets).chain(off)
        })
    }

    /// Links, pipes, sockets and devices found since this was last asked, each once.
    pub fn take_new_specials(&mut self) -> Vec<(Place, Special)> {
        std::mem::take(&mut self.specials)
    }

    /// Folders whose own preset is broken, and why.
    pub fn broken_presets(&self) -> impl Iterator<Item = (&RelPath, &str)> {
        self.ids.values().map(|id| &self.folders[*id as usize]).filter_map(|f| Some((&f.path, f.broken()?)))
    }
}
