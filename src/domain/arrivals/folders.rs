//! Folders: when a new one has come to rest, what its preset says, and so whether its queue is served.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};

use super::item::{Item, Nanos, length, nanos};
use super::judge::{NameRec, View};
use super::turns::Standing;
use super::words::{PresetQuery, PresetState, Reason, ReferenceRule, Rules, SidecarRule};
use super::{Arrivals, FolderId, GroupId, GroupKey, SlotState, Wake};
use crate::domain::ids::{Facts, Mono, Place, RelPath};
use crate::domain::kinds::Why;
use crate::domain::pairing::Fold;

/// Whether a folder's queue is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Settling,
    PresetChanging,
    PresetBroken,
    Disabled,
    Unreadable,
}

/// A folder below the inbox, or the inbox. Also kept, without files, while names of it are in work.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one folder, not one state in pieces")]
pub(super) struct Folder {
    pub(super) path: RelPath,
    pub(super) parent: Option<FolderId>,
    /// Not there (any more); only its names are remembered.
    pub(super) absent: bool,
    pub(super) identity: Option<(u64, u64)>,
    pub(super) groups: HashMap<GroupKey, GroupId>,
    pub(super) ignored: BTreeMap<OsString, (Why, Nanos)>,
    pub(super) children: HashMap<OsString, Nanos>,
    /// Names that went away lately: a scan that began before does not bring them back.
    pub(super) removed: HashMap<OsString, Nanos>,
    /// Begin of the scan that is under way.
    pub(super) scan: Option<Nanos>,
    /// Begin of the last complete one, or of one around it in which this folder was not found.
    pub(super) last_scan: Option<Nanos>,
    pub(super) scanned: bool,
    /// How many folders from here down were never scanned.
    pub(super) unscanned: u32,
    /// Since when nothing in it changed.
    pub(super) quiet: Nanos,
    pub(super) settled: bool,
    pub(super) unreadable: Option<Box<str>>,
    pub(super) presets: Vec<Item>,
    pub(super) preset_gone: Option<Nanos>,
    preset_changing: bool,
    /// The preset file (none is an answer too) that was last found settled; empty before the first time.
    #[expect(clippy::option_option, reason = "not looked yet, no preset, this preset")]
    asked: Option<Option<(OsString, Facts)>>,
    /// What the engine answered; `None` until it did.
    state: Option<PresetState>,
    /// The engine answered before: files may have been judged by other rules than those that count now.
    answered: bool,
    stamp: u64,
    gate: Gate,
    pub(super) wake: Option<Nanos>,
    pub(super) sends: BTreeSet<(Nanos, GroupId, u32)>,
    pub(super) rejects: BTreeSet<(Nanos, GroupId, u32)>,
    pub(super) names: HashMap<Fold, NameRec>,
    pub(super) names_wake: bool,
    /// Files that could not be read or moved, and why.
    pub(super) blocked: BTreeMap<Box<OsStr>, Box<str>>,
    /// Groups of which a drop waits for something of its own.
    pub(super) waits: BTreeSet<GroupId>,
    /// How many drops are in which state.
    pub(super) tally: BTreeMap<SlotState, usize>,
    pub(super) standing: Standing,
}

impl Folder {
    fn new(path: RelPath, parent: Option<FolderId>, quiet: Nanos) -> Self {
        Self {
            path,
            parent,
            absent: false,
            identity: None,
            groups: HashMap::new(),
            ignored: BTreeMap::new(),
            children: HashMap::new(),
            removed: HashMap::new(),
            scan: None,
            last_scan: None,
            scanned: false,
            unscanned: 1,
            quiet,
            settled: parent.is_none(),
            unreadable: None,
            presets: Vec::new(),
            preset_gone: None,
            preset_changing: false,
            asked: None,
            state: None,
            answered: false,
            stamp: 0,
            gate: Gate::Settling,
            wake: None,
            sends: BTreeSet::new(),
            rejects: BTreeSet::new(),
            names: HashMap::new(),
            names_wake: false,
            blocked: BTreeMap::new(),
            waits: BTreeSet::new(),
            tally: BTreeMap::new(),
            standing: Standing::default(),
        }
    }

    /// What the preset says about the files of a drop, as far as that is known.
    fn rules(&self) -> (SidecarRule, ReferenceRule) {
        match &self.state {
            Some(PresetState::Ok { sidecar, reference, .. }) => (*sidecar, *reference),
            _ => Default::default(),
        }
    }

    pub(super) fn view<'a>(&'a self, rules: &'a Rules, now: Nanos) -> View<'a> {
        let (sidecar, reference) = self.rules();
        View { rules, sidecar, reference, names: &self.names, now }
    }

    pub(super) fn queue(&mut self, key: (Nanos, GroupId, u32), state: SlotState) {
        *self.tally.entry(state).or_default() += 1;
        match state {
            SlotState::Send => self.sends.insert(key),
            SlotState::Reject => self.rejects.insert(key),
            SlotState::Wait(_) | SlotState::Hand | SlotState::Off => false,
        };
    }

    pub(super) fn unqueue(&mut self, key: &(Nanos, GroupId, u32), state: SlotState) {
        if let Some(count) = self.tally.get_mut(&state) {
            *count -= 1;
            if *count == 0 {
                self.tally.remove(&state);
            }
        }
        match state {
            SlotState::Send => self.sends.remove(key),
            SlotState::Reject => self.rejects.remove(key),
            SlotState::Wait(_) | SlotState::Hand | SlotState::Off => false,
        };
    }

    pub(super) fn is_served(&self) -> bool {
        self.gate == Gate::Open && !self.absent
    }

    /// What a drop in this state waits for; `None` if it is nothing that waits.
    pub(super) fn reason(&self, state: SlotState) -> Option<Reason> {
        match (state, self.gate.reason()) {
            (SlotState::Off, _) => None,
            (SlotState::Hand, _) => Some(Reason::Planning),
            (_, Some(gate)) => Some(gate),
            (SlotState::Wait(reason), None) => Some(reason),
            (SlotState::Send | SlotState::Reject, None) => Some(Reason::Queued),
        }
    }

    pub(super) fn as_place(&self) -> Place {
        let folder = self.path.parent().unwrap_or_default();
        Place { folder, name: self.path.name().unwrap_or(OsStr::new(".")).to_owned() }
    }

    pub(super) fn broken(&self) -> Option<&str> {
        match &self.state {
            _ if self.absent => None,
            _ if self.preset_is_special() => Some("preset.toml is no plain file, and links are not followed"),
            Some(PresetState::Broken { reason }) => Some(reason),
            _ => None,
        }
    }

    /// The preset that counts: spelled exactly, else the first by name.
    fn preset(&self) -> Option<&Item> {
        let exact = self.presets.iter().find(|p| &*p.name == "preset.toml");
        exact.or_else(|| self.presets.iter().min_by(|a, b| a.name.cmp(&b.name)))
    }

    /// A link where the preset should be: what it means to say cannot be known, so nothing goes.
    fn preset_is_special(&self) -> bool {
        matches!(self.ignored.get(OsStr::new("preset.toml")), Some((Why::Special(_), _)))
    }

    pub(super) fn spare_presets(&self) -> impl Iterator<Item = &OsStr> {
        let used = self.preset().map(|p| &*p.name);
        self.presets.iter().map(|p| &*p.name).filter(move |name| Some(*name) != used)
    }

    fn own_gate(&self) -> Gate {
        if self.unreadable.is_some() {
            Gate::Unreadable
        } else if !self.scanned || !self.settled {
            Gate::Settling
        } else if self.preset_changing {
            Gate::PresetChanging
        } else if self.preset_is_special() {
            Gate::PresetBroken
        } else {
            match &self.state {
                None => Gate::PresetChanging,
                Some(PresetState::Broken { .. }) => Gate::PresetBroken,
                Some(PresetState::Ok { enabled: false, .. }) => Gate::Disabled,
                Some(PresetState::Ok { .. }) => Gate::Open,
            }
        }
    }
}

impl Arrivals {
    /// Presets to be read, outer folders first; each is asked for once, until it changes again. Answer with
    /// [`Self::preset_state`]; the folder waits until then.
    pub fn presets_to_read(&mut self, now: Mono) -> Vec<PresetQuery> {
        self.tick(now);
        let mut out = Vec::new();
        for id in self.stale.clone() {
            if !self.chain_rests(id) {
                continue;
            }
            self.stale.remove(&id);
            self.stamp += 1;
            let folder = &mut self.folders[id as usize];
            folder.stamp = self.stamp;
            let file = folder.preset().map(|p| p.name.clone().into());
            out.push(PresetQuery { folder: folder.path.clone(), file, stamp: folder.stamp });
        }
        out.sort_by(|a, b| a.folder.cmp(&b.folder));
        out
    }

    /// The file that is the preset of `folder`, as it was last seen.
    pub fn preset_file(&self, folder: &RelPath) -> Option<OsString> {
        let folder = &self.folders[*self.ids.get(folder)? as usize];
        folder.preset().map(|p| p.name.clone().into())
    }

    /// The answer to a [`PresetQuery`]. One that was overtaken by a change is dropped.
    pub fn preset_state(&mut self, query: &PresetQuery, state: PresetState, now: Mono) {
        let Some(&id) = self.ids.get(&query.folder) else { return };
        let folder = &mut self.folders[id as usize];
        if folder.stamp != query.stamp || folder.absent || self.stale.contains(&id) {
            return;
        }
        folder.state = Some(state);
        // Before the first answer all were judged as if it said nothing, as nearly always it does; and very many may
        // have come by then.
        let as_judged = !std::mem::replace(&mut folder.answered, true) && folder.rules() == Default::default();
        let groups: Vec<GroupId> = folder.groups.values().copied().collect();
        for id in groups {
            let Some(Some(group)) = self.groups.get_mut(id as usize) else { continue };
            let mut look = !as_judged;
            for item in &mut *group.items {
                look |= item.void();
            }
            if look {
                self.evaluate(id, nanos(now));
            }
        }
        self.regate(id);
    }

    /// Whether every folder that can be read has come to rest, and it is known what its preset says.
    pub fn presets_are_known(&self) -> bool {
        let unreadable = |id| self.chain(id).any(|id| self.folders[id as usize].unreadable.is_some());
        let known = |id| self.folders[id as usize].absent || self.folders[id as usize].state.is_some();
        self.ids.values().all(|id| known(*id) || unreadable(*id))
    }

    /// What the preset of `folder` says of its turn, higher first; 0 while that is not known.
    pub fn priority_of(&self, folder: &RelPath) -> i64 {
        match self.ids.get(folder).and_then(|id| self.folders[*id as usize].state.as_ref()) {
            Some(PresetState::Ok { priority, .. }) => *priority,
            _ => 0,
        }
    }

    /// The presets of `folder` and below are to be read again (the configuration's `[preset]` changed).
    pub fn reread_presets(&mut self, folder: &RelPath) {
        if let Some(&id) = self.ids.get(folder) {
            self.mark_stale(id);
        }
    }

    /// The record of a folder that is there, made with those around it where it is new.
    pub(super) fn ensure_folder(&mut self, path: &RelPath, quiet: Nanos) -> FolderId {
        let known = self.ids.get(path).copied();
        if let Some(id) = known
            && !self.folders[id as usize].absent
        {
            return id;
        }
        let parent = path.parent().map(|p| self.ensure_folder(&p, quiet));
        let id = known.unwrap_or_else(|| self.new_record(path, parent, quiet));
        let folder = &mut self.folders[id as usize];
        if folder.absent {
            let names = std::mem::take(&mut folder.names);
            let (names_wake, standing) = (folder.names_wake, folder.standing);
            *folder = Folder { names, names_wake, standing, ..Folder::new(path.clone(), parent, quiet) };
        }
        // Nothing in it was there when those around it were last scanned without it.
        self.folders[id as usize].last_scan = parent.and_then(|parent| self.folders[parent as usize].last_scan);
        self.count_unscanned(parent, 1);
        self.stale.insert(id);
        self.to_scan.insert(path.clone());
        if let (Some(parent), Some(name)) = (parent, path.name()) {
            self.folders[parent as usize].children.insert(name.to_owned(), quiet);
        }
        self.bump(id, quiet);
        self.regate(id);
        id
    }

    /// A record for names in work, whether the folder is there or not.
    pub(super) fn folder_record(&mut self, path: &RelPath, now: Nanos) -> FolderId {
        if let Some(&id) = self.ids.get(path) {
            return id;
        }
        let id = self.new_record(path, None, now);
        self.folders[id as usize].absent = true;
        id
    }

    fn new_record(&mut self, path: &RelPath, parent: Option<FolderId>, quiet: Nanos) -> FolderId {
        let folder = Folder::new(path.clone(), parent, quiet);
        let id = if let Some(id) = self.free_folders.pop() {
            self.folders[id as usize] = folder;
            id
        } else {
            self.folders.push(folder);
            (self.folders.len() - 1) as FolderId
        };
        self.ids.insert(path.clone(), id);
        id
    }

    /// Forgets the record of a folder that is gone and has no names in work.
    pub(super) fn drop_empty_record(&mut self, id: FolderId) {
        let folder = &self.folders[id as usize];
        if folder.absent && folder.names.is_empty() && !folder.names_wake && !folder.path.is_root() {
            self.ids.remove(&folder.path.clone());
            self.free_folders.push(id);
        }
    }

    fn chain(&self, id: FolderId) -> impl Iterator<Item = FolderId> + '_ {
        std::iter::successors(Some(id), |id| self.folders[*id as usize].parent)
    }

    fn chain_rests(&self, id: FolderId) -> bool {
        self.chain(id).all(|id| {
            let folder = &self.folders[id as usize];
            folder.scanned && folder.settled && !folder.preset_changing
        })
    }

    /// `id` and everything below it, outer folders first.
    pub(super) fn subtree(&self, id: FolderId) -> Vec<FolderId> {
        let top = &self.folders[id as usize].path;
        let below = self.ids.range(top.clone()..).take_while(|(path, _)| path.is_within(top));
        below.map(|(_, id)| *id).collect()
    }

    pub(super) fn count_unscanned(&mut self, from: Option<FolderId>, by: i32) {
        let chain: Vec<FolderId> = from.into_iter().flat_map(|id| self.chain(id).collect::<Vec<_>>()).collect();
        for id in chain {
            let folder = &mut self.folders[id as usize];
            folder.unscanned = folder.unscanned.saturating_add_signed(by);
        }
    }

    /// Something in `id` changed then: it, and what is around it, is not at rest before its wait is over.
    pub(super) fn bump(&mut self, id: FolderId, at: Nanos) {
        let mut next = Some(id);
        while let Some(id) = next {
            let folder = &mut self.folders[id as usize];
            if !folder.settled {
                folder.quiet = folder.quiet.max(at);
            }
            next = folder.parent;
        }
    }

    fn mark_stale(&mut self, id: FolderId) {
        for id in self.subtree(id) {
            if !self.folders[id as usize].absent {
                self.folders[id as usize].state = None;
                self.stale.insert(id);
            }
        }
        self.regate(id);
    }

    /// Whether a new folder has come to rest, and its preset has settled, by now.
    pub(super) fn refresh_folder(&mut self, id: FolderId, now: Nanos) {
        let rules = self.rules;
        let folder = &mut self.folders[id as usize];
        if folder.absent {
            return;
        }
        let mut wake: Option<Nanos> = None;
        if !folder.settled && folder.unscanned == 0 {
            let at = folder.quiet.saturating_add(length(rules.folder_settle));
            folder.settled = at <= now;
            wake = (!folder.settled).then_some(at);
        }
        let files = folder.presets.iter().map(|p| p.finished_at(rules.settle));
        let gone = folder.preset_gone.map(|at| at.saturating_add(length(rules.settle)));
        let rests = files.chain(gone).max().filter(|at| *at > now);
        folder.preset_changing = rests.is_some();
        wake = wake.into_iter().chain(rests).min();
        let mut stale = false;
        if rests.is_none() && folder.scanned {
            folder.preset_gone = None;
            let current = folder.preset().map(|p| (p.name.clone().into(), p.facts));
            stale = folder.asked.as_ref().is_some_and(|asked| *asked != current);
            folder.asked = Some(current);
        }
        if folder.wake != wake {
            if let Some(at) = std::mem::replace(&mut folder.wake, wake) {
                self.wakes.remove(&(at, Wake::Folder(id)));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, Wake::Folder(id)));
            }
        }
        if stale {
            self.mark_stale(id);
        } else {
            self.regate(id);
        }
    }

    /// [`Self::refresh_folder`] for `id` and all around it that have not come to rest yet.
    pub(super) fn refresh_chain(&mut self, id: FolderId, now: Nanos) {
        for id in self.chain(id).collect::<Vec<_>>() {
            if !self.folders[id as usize].settled {
                self.refresh_folder(id, now);
            }
        }
    }

    /// Works out the gates of `id` and, where its own has changed, of what lies below.
    pub(super) fn regate(&mut self, id: FolderId) {
        let top = self.gate_of(id);
        if self.folders[id as usize].gate == top {
            self.queue_folder(id);
            return;
        }
        for id in self.subtree(id) {
            self.folders[id as usize].gate = self.gate_of(id);
            self.queue_folder(id);
        }
    }

    fn gate_of(&self, id: FolderId) -> Gate {
        let folder = &self.folders[id as usize];
        let around = folder.parent.map_or(Gate::Open, |parent| self.folders[parent as usize].gate);
        // `enabled` is a key like others: the merged value of the inner folder counts.
        if matches!(around, Gate::Open | Gate::Disabled) { folder.own_gate() } else { around }
    }

    /// Whether `id` stands among those that are served. Not while a scan of it runs: half of what belongs
    /// together may have been seen.
    pub(super) fn queue_folder(&mut self, id: FolderId) {
        let folder = &mut self.folders[id as usize];
        let open = folder.gate == Gate::Open && folder.scan.is_none() && !folder.absent;
        let priority = match &folder.state {
            Some(PresetState::Ok { priority, .. }) => *priority,
            _ => 0,
        };
        self.turns.set(id, &mut folder.standing, priority, open && !folder.sends.is_empty());
        if folder.gate == Gate::Open && folder.scan.is_some() && !folder.absent && !folder.sends.is_empty() {
            self.scanned.insert(id);
        } else {
            self.scanned.remove(&id);
        }
        if open && !folder.rejects.is_empty() {
            self.rejecting.insert(id);
        } else {
            self.rejecting.remove(&id);
        }
    }
}
