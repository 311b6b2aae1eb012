//! Names in work: a second drop of a name waits, and a sidecar without its image is late.

use std::ffi::OsStr;
use std::time::Duration;

use super::item::{Nanos, length, nanos};
use super::judge::NameRec;
use super::{Arrivals, Candidate, FolderId, GroupKey, Wake};
use crate::domain::ids::{Mono, RelPath};
use crate::domain::kinds::split;
use crate::domain::pairing::{Fold, group_key, stem_key};

impl Arrivals {
    /// The drop is about to be moved into `working/`. Its files may be seen gone before it is known that they lie there:
    /// another drop of its name waits until [`Self::claimed`] or [`Self::not_started`] says how that went.
    pub fn starting(&mut self, candidate: &Candidate, now: Mono) {
        let id = self.folder_record(&candidate.folder, nanos(now));
        self.folders[id as usize].names.entry(Fold::of(&candidate.stem)).or_default().starting += 1;
    }

    /// It was not moved, or is back.
    pub fn not_started(&mut self, candidate: &Candidate, now: Mono) {
        let Some(&id) = self.ids.get(&candidate.folder) else { return };
        let fold = Fold::of(&candidate.stem);
        let Some(rec) = self.folders[id as usize].names.get_mut(&fold) else { return };
        rec.starting = rec.starting.saturating_sub(1);
        if !rec.is_busy() && rec.late_until.is_none() {
            self.folders[id as usize].names.remove(&fold);
        }
        self.evaluate_name(id, &candidate.stem, nanos(now));
        self.drop_empty_record(id);
    }

    /// A drop of this name is in `working/` (found there at start, or claimed).
    pub fn in_work(&mut self, folder: &RelPath, stem: &OsStr, image: Option<&OsStr>, sent: Option<i64>, now: Mono) {
        self.enter_work(folder, stem, now, |rec| match image {
            Some(image) => rec.went(image, sent),
            // What was sent last was no image, so nothing is late for one.
            None => rec.images.clear(),
        });
    }

    pub(super) fn enter_work(&mut self, folder: &RelPath, stem: &OsStr, now: Mono, note: impl FnOnce(&mut NameRec)) {
        let id = self.folder_record(folder, nanos(now));
        let rec = self.folders[id as usize].names.entry(Fold::of(stem)).or_default();
        rec.in_work += 1;
        note(rec);
        self.evaluate_name(id, stem, nanos(now));
    }

    /// The drop of this name was filed: the next of its name may go; a sidecar without an image is late for
    /// `give_up`.
    pub fn filed(&mut self, folder: &RelPath, stem: &OsStr, now: Mono) {
        self.leave_work(folder, stem, now, true);
    }

    /// The drop of this name went back into the inbox: it was not sent, nothing can be late for it.
    pub fn returned(&mut self, folder: &RelPath, stem: &OsStr, now: Mono) {
        self.leave_work(folder, stem, now, false);
    }

    /// What the ledger remembers at start: filed `ago`, sent then.
    pub fn filed_earlier(
        &mut self,
        (folder, stem): (&RelPath, &OsStr),
        image: &OsStr,
        ago: Duration,
        sent_unix_ms: Option<i64>,
        now: Mono,
    ) {
        let at = nanos(now).saturating_sub(length(ago));
        self.remember(folder, stem, image, at, sent_unix_ms, nanos(now));
    }

    pub(super) fn leave_work(&mut self, folder: &RelPath, stem: &OsStr, now: Mono, filed: bool) {
        let Some(&id) = self.ids.get(folder) else { return };
        let (now, fold) = (nanos(now), Fold::of(stem));
        let Some(rec) = self.folders[id as usize].names.get_mut(&fold) else { return };
        rec.in_work = rec.in_work.saturating_sub(1);
        if filed && rec.fresh && !rec.images.is_empty() {
            rec.late_until = Some(now.saturating_add(length(self.rules.give_up)));
            rec.fresh = rec.is_busy();
        } else if !rec.is_busy() && rec.late_until.is_none() {
            self.folders[id as usize].names.remove(&fold);
        }
        self.arm_names(id, now);
        self.free_blocked(id, &fold, now);
        self.evaluate_name(id, stem, now);
        self.drop_empty_record(id);
    }

    /// What could not be moved because of a name in work may go now.
    fn free_blocked(&mut self, id: FolderId, fold: &Fold, now: Nanos) {
        let is_of_it = |name: &OsStr| {
            let (stem, _) = split(name);
            // A tied sidecar has the image's extension before its own.
            Fold::of(stem) == *fold || Fold::of(split(stem).0) == *fold
        };
        let names: Vec<_> = self.folders[id as usize].blocked.keys().filter(|name| is_of_it(name)).cloned().collect();
        for name in names {
            self.unblock(id, &name, now);
        }
    }

    pub(super) fn remember(
        &mut self,
        folder: &RelPath,
        stem: &OsStr,
        image: &OsStr,
        at: Nanos,
        sent: Option<i64>,
        now: Nanos,
    ) {
        let id = self.folder_record(folder, now);
        let until = at.saturating_add(length(self.rules.give_up));
        let rec = self.folders[id as usize].names.entry(Fold::of(stem)).or_default();
        rec.went(image, sent);
        rec.late_until = rec.late_until.max(Some(until));
        self.arm_names(id, now);
        self.evaluate_name(id, stem, now);
    }

    /// Records are looked through at most once in `give_up`, and kept for as long as there is a file of that name: a
    /// sidecar that was late stays so, however long it waits for its folder or for a pause.
    pub(super) fn arm_names(&mut self, id: FolderId, now: Nanos) {
        let folder = &mut self.folders[id as usize];
        if !folder.names_wake && folder.names.values().any(|r| r.late_until.is_some()) {
            folder.names_wake = true;
            let wait = length(self.rules.give_up).saturating_add(length(self.rules.lone_wait));
            let pause = wait.max(1_000_000_000);
            self.wakes.insert((now.saturating_add(pause), Wake::Names(id)));
        }
    }

    pub(super) fn forget_names(&mut self, id: FolderId, now: Nanos) {
        let keep = length(self.rules.lone_wait.max(self.rules.settle)).saturating_add(1_000_000_000);
        let folder = &mut self.folders[id as usize];
        folder.names_wake = false;
        let groups = &folder.groups;
        let lies = |r: &NameRec| {
            r.images.first().is_some_and(|(image, _)| groups.contains_key(&GroupKey::named(group_key(image))))
        };
        folder
            .names
            .retain(|_, r| r.is_busy() || r.late_until.is_some_and(|t| t.saturating_add(keep) > now || lies(r)));
        self.arm_names(id, now);
        self.drop_empty_record(id);
    }

    pub(super) fn evaluate_name(&mut self, id: FolderId, stem: &OsStr, now: Nanos) {
        let key = GroupKey::named(stem_key(stem));
        if let Some(&group) = self.folders[id as usize].groups.get(&key) {
            self.evaluate(group, now);
        }
    }
}
