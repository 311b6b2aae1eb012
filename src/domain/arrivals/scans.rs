//! Taking in what was seen: single observations and whole scans.

use std::ffi::OsStr;

use super::item::{Item, Mark, Nanos, length, nanos};
use super::words::{Entry, How};
use super::{Arrivals, FolderId, GroupId, GroupKey, Wake};
use crate::domain::ids::{Mono, Place, RelPath};
use crate::domain::kinds::{NameKind, Why, is_preset};

impl Arrivals {
    /// What an event led to: `name` was looked at `now`, and this is there (`None`: nothing).
    pub fn observe_entry(&mut self, folder: &RelPath, name: &OsStr, entry: Option<&Entry>, how: How, now: Mono) {
        let at = nanos(now);
        let known = self.ids.get(folder).copied().filter(|id| !self.folders[*id as usize].absent);
        match (entry, known) {
            (None, None) => {}
            (None, Some(id)) => self.remove_name(id, name, at),
            (Some(entry), known) => {
                let id = known.unwrap_or_else(|| self.ensure_folder(folder, at));
                self.folders[id as usize].removed.remove(name);
                self.put(id, name, entry, how, at);
            }
        }
    }

    /// A scan of `folder` (not of what lies below) began at `started`: the moment before its first entry was
    /// read. Its drops wait until [`Self::end_scan`] or [`Self::scan_failed`].
    pub fn begin_scan(&mut self, folder: &RelPath, started: Mono) {
        let id = self.ensure_folder(folder, nanos(started));
        self.folders[id as usize].scan = Some(nanos(started));
        self.queue_folder(id);
    }

    /// An entry that the scan found. One that went away after the scan began is passed over.
    pub fn observe_scanned(&mut self, folder: &RelPath, name: &OsStr, entry: &Entry, now: Mono) {
        let Some(&id) = self.ids.get(folder) else { return };
        let record = &self.folders[id as usize];
        let Some(started) = record.scan else { return };
        if record.removed.get(name).is_none_or(|removed| *removed < started) {
            self.put(id, name, entry, How::Scanned, nanos(now));
        }
    }

    /// The scan is complete: what was not seen since it began is gone. What could not be read or moved is
    /// tried again.
    pub fn end_scan(&mut self, folder: &RelPath, now: Mono) {
        let Some(&id) = self.ids.get(folder) else { return };
        let now = nanos(now);
        let Some(started) = self.folders[id as usize].scan.take() else { return };
        for name in self.not_seen_since(id, started) {
            self.remove_name(id, &name, now);
        }
        let record = &mut self.folders[id as usize];
        record.removed.retain(|_, at| *at >= started);
        record.last_scan = Some(started);
        record.unreadable = None;
        self.first_scan_done(id);
        self.try_again(id, now);
        self.refresh_folder(id, now);
        self.refresh_chain(id, now);
    }

    /// The folder cannot be read: what was known of it stays, and waits.
    pub fn scan_failed(&mut self, folder: &RelPath, reason: &str, now: Mono) {
        let id = self.ensure_folder(folder, nanos(now));
        let record = &mut self.folders[id as usize];
        record.scan = None;
        record.unreadable = Some(reason.into());
        self.first_scan_done(id);
        self.refresh_folder(id, nanos(now));
        self.refresh_chain(id, nanos(now));
    }

    /// The folder and all below it are gone. (Of the inbox itself: its files; it is to be scanned again.)
    pub fn folder_gone(&mut self, folder: &RelPath, now: Mono) {
        let Some(&top) = self.ids.get(folder) else { return };
        let (now, subtree) = (nanos(now), self.subtree(top));
        let parent = self.folders[top as usize].parent;
        // Inner folders first, so that each finds those around it as they were.
        for id in subtree.into_iter().rev() {
            if !self.folders[id as usize].absent {
                self.close_folder(id);
            }
        }
        match parent {
            Some(parent) => {
                if let Some(name) = folder.name() {
                    self.folders[parent as usize].children.remove(name);
                }
                self.bump(parent, now);
                self.refresh_chain(parent, now);
            }
            None if folder.is_root() => {
                self.ensure_folder(folder, now);
            }
            None => {}
        }
    }

    /// Folders that are known and were never scanned.
    pub fn folders_to_scan(&self) -> impl Iterator<Item = &RelPath> {
        self.to_scan.iter()
    }

    fn close_folder(&mut self, id: FolderId) {
        let record = &mut self.folders[id as usize];
        record.absent = true;
        record.scan = None;
        let groups: Vec<GroupId> = record.groups.drain().map(|(_, group)| group).collect();
        record.sends.clear();
        record.unreadable = None;
        record.rejects.clear();
        record.presets.clear();
        record.ignored.clear();
        record.children.clear();
        record.blocked.clear();
        record.waits.clear();
        record.tally.clear();
        record.removed.clear();
        let (wake, parent, scanned, path) = (record.wake.take(), record.parent, record.scanned, record.path.clone());
        for group in groups {
            if let Some(old) = self.groups[group as usize].take() {
                self.files -= old.items.len();
                if let Some(at) = old.wake {
                    self.wakes.remove(&(at, Wake::Group(group)));
                }
                // The group's number is used again, for other files.
                for slot in old.slots.iter() {
                    if let Some(at) = slot.ask {
                        self.wakes.remove(&(at, Wake::Ask(group, slot.lead)));
                    }
                }
                self.free_groups.push(group);
            }
        }
        if let Some(at) = wake {
            self.wakes.remove(&(at, Wake::Folder(id)));
        }
        if !scanned {
            self.count_unscanned(parent, -1);
        }
        self.stale.remove(&id);
        self.to_scan.remove(&path);
        self.queue_folder(id);
        self.drop_empty_record(id);
    }

    fn first_scan_done(&mut self, id: FolderId) {
        let record = &mut self.folders[id as usize];
        if !record.scanned {
            record.scanned = true;
            let path = record.path.clone();
            self.to_scan.remove(&path);
            self.count_unscanned(Some(id), -1);
        }
    }

    /// What was blocked is looked at again.
    fn try_again(&mut self, id: FolderId, now: Nanos) {
        let blocked: Vec<_> = self.folders[id as usize].blocked.keys().cloned().collect();
        for name in blocked {
            self.unblock(id, &name, now);
        }
    }

    pub(super) fn unblock(&mut self, id: FolderId, name: &OsStr, now: Nanos) {
        self.folders[id as usize].blocked.remove(name);
        let Some((group, index)) = self.find_in(id, name) else { return };
        if let Some(Some(record)) = self.groups.get_mut(group as usize)
            && record.items[index].mark == Mark::Blocked
        {
            record.items[index].mark = Mark::None;
            self.evaluate(group, now);
        }
    }

    fn not_seen_since(&self, id: FolderId, started: Nanos) -> Vec<Box<OsStr>> {
        let record = &self.folders[id as usize];
        let groups = record.groups.values().filter_map(|group| self.groups[*group as usize].as_ref());
        let files = groups.flat_map(|group| group.items.iter()).chain(&record.presets).map(|i| (&*i.name, i.seen));
        let others = record.ignored.iter().map(|(name, (_, seen))| (name.as_os_str(), *seen));
        let folders = record.children.iter().map(|(name, seen)| (name.as_os_str(), *seen));
        files.chain(others).chain(folders).filter(|(_, seen)| *seen < started).map(|(name, _)| name.into()).collect()
    }

    fn put(&mut self, id: FolderId, name: &OsStr, entry: &Entry, how: How, now: Nanos) {
        if self.is_other_than(id, name, entry.kind) {
            self.forget_name(id, name, now);
        }
        let record = &mut self.folders[id as usize];
        let floor = record.last_scan;
        match entry.kind {
            NameKind::Folder => self.put_folder(id, name, entry, now),
            NameKind::Ignored(why) => {
                let known = record.ignored.insert(name.to_owned(), (why, now)).is_some();
                if !known && let Why::Special(special) = why {
                    let place = Place { folder: record.path.clone(), name: name.to_owned() };
                    self.specials.push((place, special));
                }
                if !known || how != How::Scanned {
                    let floor = floor.filter(|_| !known).unwrap_or(Nanos::MIN).min(now);
                    self.bump(id, now.saturating_sub(length(entry.age)).max(floor));
                }
                if is_preset(name) {
                    self.regate(id);
                }
            }
            NameKind::Preset => {
                let changed = if let Some(item) = record.presets.iter_mut().find(|p| *p.name == *name) {
                    item.observe(entry, how, now).then_some(item.quiet)
                } else {
                    let item = Item::new(name, entry, how, now, floor);
                    let quiet = item.quiet;
                    record.presets.push(item);
                    Some(quiet)
                };
                if let Some(quiet) = changed {
                    self.bump(id, quiet);
                    self.refresh_folder(id, now);
                }
            }
            NameKind::Picture(_) | NameKind::Sidecar(_) | NameKind::Foreign => {
                self.put_file(id, name, entry, how, now);
            }
        }
    }

    fn put_file(&mut self, id: FolderId, name: &OsStr, entry: &Entry, how: How, now: Nanos) {
        let floor = self.folders[id as usize].last_scan;
        let group = self.group(id, GroupKey::of(name, entry.kind));
        let Some(Some(record)) = self.groups.get_mut(group as usize) else { return };
        let quiet = if let Some(item) = record.items.iter_mut().find(|i| *i.name == *name) {
            if !item.observe(entry, how, now) {
                return;
            }
            item.quiet
        } else {
            let item = Item::new(name, entry, how, now, floor);
            let quiet = item.quiet;
            // Ordered by name, so that what is equally old goes in that order.
            let at = record.items.partition_point(|i| i.name < item.name);
            record.items.insert(at, item);
            self.files += 1;
            quiet
        };
        for item in &mut *record.items {
            item.void();
        }
        self.bump(id, quiet);
        self.evaluate(group, now);
    }

    fn put_folder(&mut self, parent: FolderId, name: &OsStr, entry: &Entry, now: Nanos) {
        let path = self.folders[parent as usize].path.join(name);
        let identity = (entry.facts.dev, entry.facts.ino);
        let known = self.ids.get(&path).map(|id| &self.folders[*id as usize]).filter(|f| !f.absent);
        if known.is_some_and(|f| f.identity.is_some_and(|old| old != identity)) {
            self.folder_gone(&path, mono_of(now));
        }
        let by_age = now.saturating_sub(length(entry.age));
        // A new one was not there at the last scan, whatever a server's clock says.
        let floor = if self.ids.get(&path).is_some_and(|id| !self.folders[*id as usize].absent) {
            None
        } else {
            self.folders[parent as usize].last_scan
        };
        let changed = by_age.max(floor.unwrap_or(Nanos::MIN).min(now));
        let id = self.ensure_folder(&path, changed);
        self.folders[id as usize].identity = Some(identity);
        self.folders[parent as usize].children.insert(name.to_owned(), now);
        self.bump(id, changed);
        if !self.folders[id as usize].settled {
            self.refresh_chain(id, now);
        }
    }

    /// Whether `name` is known as something that `kind` does not replace in place.
    fn is_other_than(&self, id: FolderId, name: &OsStr, kind: NameKind) -> bool {
        let record = &self.folders[id as usize];
        let is_file = matches!(kind, NameKind::Picture(_) | NameKind::Sidecar(_) | NameKind::Foreign);
        (kind != NameKind::Folder && record.children.contains_key(name))
            || (!matches!(kind, NameKind::Ignored(_)) && record.ignored.contains_key(name))
            || (kind != NameKind::Preset && record.presets.iter().any(|p| *p.name == *name))
            || (!is_file && self.find_in(id, name).is_some())
    }

    /// `name` is gone from the folder.
    pub(super) fn remove_name(&mut self, id: FolderId, name: &OsStr, now: Nanos) {
        self.folders[id as usize].removed.insert(name.to_owned(), now);
        self.forget_name(id, name, now);
    }

    fn forget_name(&mut self, id: FolderId, name: &OsStr, now: Nanos) {
        let record = &mut self.folders[id as usize];
        if record.children.contains_key(name) {
            let path = record.path.join(name);
            self.folder_gone(&path, mono_of(now));
            self.folders[id as usize].children.remove(name);
        } else if record.ignored.remove(name).is_some() {
            self.bump(id, now);
            self.regate(id);
        } else if let Some(at) = record.presets.iter().position(|p| *p.name == *name) {
            record.presets.swap_remove(at);
            record.preset_gone = Some(now);
            self.bump(id, now);
            self.refresh_folder(id, now);
        } else if let Some((group, index)) = self.find_in(id, name) {
            let folder = &mut self.folders[id as usize];
            folder.blocked.remove(name);
            if let Some(Some(record)) = self.groups.get_mut(group as usize) {
                if let [last] = &*record.items {
                    folder.groups.remove(&GroupKey::of(name, last.kind));
                }
                record.items.remove(index);
                for item in &mut *record.items {
                    item.void();
                }
                self.files -= 1;
            }
            self.bump(id, now);
            self.evaluate(group, now);
        }
    }
}

fn mono_of(now: Nanos) -> Mono {
    super::mono(now)
}
