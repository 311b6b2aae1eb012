//! What can be seen from outside: what waits and for what, and what is ignored.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::item::{Mark, mono};
use super::words::{Reason, Waiting};
use super::{Arrivals, SlotState};
use crate::domain::ids::{Place, RelPath};
use crate::domain::kinds::{Special, Why};

impl Arrivals {
    /// Everything that waits, and for what. Folders in order of their paths.
    pub fn waiting(&self) -> impl Iterator<Item = Waiting> + '_ {
        self.ids.values().map(|id| &self.folders[*id as usize]).flat_map(move |folder| {
            let own = folder.unreadable.as_ref().map(|why| Waiting {
                place: folder.as_place(),
                reason: Reason::Unreadable,
                since: mono(folder.quiet),
                detail: Some(why.to_string()),
            });
            let files = folder.groups.values().filter_map(|id| self.groups[*id as usize].as_ref());
            let files = files.flat_map(|group| group.slots.iter().map(move |slot| (group, slot)));
            own.into_iter().chain(files.filter_map(move |(group, slot)| {
                let item = &group.items[slot.lead as usize];
                let reason = folder.reason(slot.state)?;
                let detail = match (&item.mark, reason) {
                    (Mark::Blocked(why), Reason::Unreadable) => Some(why.to_string()),
                    _ => None,
                };
                let place = Place { folder: folder.path.clone(), name: item.name.clone() };
                Some(Waiting { place, reason, since: mono(item.quiet), detail })
            }))
        })
    }

    /// How many drops wait for what; those that only wait for their turn are counted as `queued`
    /// ([`Reason::Queued`], or [`Reason::Limit`] or [`Reason::Paused`] where that is why).
    pub fn counts(&self, queued: Reason) -> BTreeMap<Reason, usize> {
        let mut counts = BTreeMap::new();
        for folder in self.ids.values().map(|id| &self.folders[*id as usize]) {
            if folder.unreadable.is_some() {
                *counts.entry(Reason::Unreadable).or_insert(0) += 1;
            }
            for group in folder.groups.values().filter_map(|id| self.groups[*id as usize].as_ref()) {
                for reason in group.slots.iter().filter_map(|slot| folder.reason(slot.state)) {
                    let reason = if reason == Reason::Queued { queued } else { reason };
                    *counts.entry(reason).or_insert(0) += 1;
                }
            }
        }
        counts
    }

    /// How many drops wait in each folder where any do, counted as in [`Self::counts`]. Nothing is allocated.
    pub fn queues(&self) -> impl Iterator<Item = (&RelPath, usize)> {
        self.ids.values().map(|id| &self.folders[*id as usize]).filter_map(|folder| {
            let groups = folder.groups.values().filter_map(|id| self.groups[*id as usize].as_ref());
            let waits = groups.flat_map(|group| &group.slots).filter(|slot| folder.reason(slot.state).is_some());
            let number = waits.count() + usize::from(folder.unreadable.is_some());
            (number > 0).then_some((&folder.path, number))
        })
    }

    /// What is ignored, and why.
    pub fn ignored(&self) -> impl Iterator<Item = (Place, Why)> + '_ {
        self.ids.values().map(|id| &self.folders[*id as usize]).flat_map(move |folder| {
            let place = |name: &OsStr| Place { folder: folder.path.clone(), name: name.to_owned() };
            let junk = folder.ignored.iter().map(move |(name, (why, _))| (place(name), *why));
            let presets = folder.spare_presets().map(move |name| (place(name), Why::SecondPreset));
            let groups = folder.groups.values().filter_map(|id| self.groups[*id as usize].as_ref());
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
