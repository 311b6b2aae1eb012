//! What has arrived in the inbox: when a drop is complete, and what it waits for.
//!
//! [`Arrivals`] is fed with observations and answers of the engine, each with the moment it was made, and
//! hands out what is complete. It promises: nothing is handed out twice, nothing that is known to be gone,
//! nothing that changed within its wait; every file is at any moment handed out, waiting with a reason, or
//! ignored; the order of observations does not change what belongs together. One observation costs the
//! logarithm of what waits. It does no I/O: whether a picture is whole and what a preset says, the engine
//! finds out and tells.
//!
//! How it works: files live in *groups* of names that can have to do with one another (`judge` looks at
//! one group alone). A group's complete drops stand in their folder's queue; the folder's *gate*
//! (`folders`) says whether that queue is served, so that a preset or a new folder that comes to rest
//! touches no file.

mod asks;
mod few;
mod folders;
mod item;
mod judge;
mod names;
#[cfg(test)]
mod properties;
mod scans;
#[cfg(test)]
mod tests;
mod turns;
mod views;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use self::few::Few;
use self::folders::{Folder, Gate};
use self::item::{Item, Mark, Nanos, mono, nanos};
use self::judge::{Judged, Verdict, View, judge, settled};
use self::turns::Turns;
pub use self::words::{
    Asking, Candidate, CandidateKind, Entry, Failure, How, MAX_SIDECAR_BYTES, Member, PresetQuery, PresetState, Reason,
    ReferenceRule, Rules, SidecarMember, SidecarRule, Waiting,
};
use super::ids::{Facts, Mono, Place, RelPath};
use super::kinds::{NameKind, Special};
use super::pairing::{Fold, group_key};

type FolderId = u32;
type GroupId = u32;

/// What the names of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupKey(Box<[u8]>);

impl GroupKey {
    fn of(name: &OsStr, kind: NameKind) -> Self {
        if kind == NameKind::Foreign { Self::foreign(name) } else { Self::named(group_key(name)) }
    }

    fn named(fold: Fold) -> Self {
        Self(fold.into())
    }

    /// Of one name alone: the slash, which no name holds, keeps it apart from others.
    fn foreign(name: &OsStr) -> Self {
        Self([b"/", name.as_bytes()].concat().into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Folder(FolderId),
    Group(GroupId),
    /// The lead of a group may have waited long enough to be told of.
    Ask(GroupId, u32),
    Names(FolderId),
}

#[derive(Debug)]
struct Group {
    folder: FolderId,
    items: Few<Item>,
    /// Verdicts as of the last look; `lead` numbers an item.
    slots: Few<Slot>,
    wake: Option<Nanos>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    lead: u32,
    arrived: Nanos,
    state: SlotState,
    /// When it is to be told of, if it waits for a person.
    ask: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SlotState {
    Send,
    Reject,
    Wait(Reason),
    Hand,
    Off,
}

/// What lies in the inbox, and what may go. See the module's description.
#[derive(Debug)]
pub struct Arrivals {
    rules: Rules,
    ids: BTreeMap<RelPath, FolderId>,
    folders: Vec<Folder>,
    groups: Vec<Option<Group>>,
    free_groups: Vec<GroupId>,
    free_folders: Vec<FolderId>,
    wakes: BTreeSet<(Nanos, Wake)>,
    turns: Turns,
    /// Folders with something for errors, and an open gate.
    rejecting: BTreeSet<FolderId>,
    /// Folders that have something to send, and are being scanned.
    scanned: BTreeSet<FolderId>,
    stale: BTreeSet<FolderId>,
    to_scan: BTreeSet<RelPath>,
    specials: Vec<(Place, Special)>,
    asking: Vec<Asking>,
    stamp: u64,
    files: usize,
}

impl Arrivals {
    /// Nothing has arrived yet; the inbox itself is to be scanned.
    pub fn new(rules: Rules) -> Self {
        let mut new = Self {
            rules,
            ids: BTreeMap::new(),
            folders: Vec::new(),
            groups: Vec::new(),
            free_groups: Vec::new(),
            free_folders: Vec::new(),
            wakes: BTreeSet::new(),
            turns: Turns::default(),
            rejecting: BTreeSet::new(),
            scanned: BTreeSet::new(),
            stale: BTreeSet::new(),
            to_scan: BTreeSet::new(),
            specials: Vec::new(),
            asking: Vec::new(),
            stamp: 0,
            files: 0,
        };
        new.ensure_folder(&RelPath::root(), Nanos::MIN);
        new
    }

    /// Other waits from now on (the configuration was read again).
    pub fn set_rules(&mut self, rules: Rules, now: Mono) {
        self.rules = rules;
        let now = nanos(now);
        for group in 0..self.groups.len() {
            self.evaluate(group as GroupId, now);
        }
        for folder in self.ids.values().copied().collect::<Vec<_>>() {
            self.refresh_folder(folder, now);
        }
    }

    /// How many pictures, sidecars and foreign files are known.
    pub fn len(&self) -> usize {
        self.files
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    // ---- time -------------------------------------------------------------------------------------------

    /// When something may change by itself: call [`Self::tick`] (or ask for what is ready) then. May be
    /// earlier than anything really changes, never later.
    pub fn next_wake(&self) -> Option<Mono> {
        self.wakes.first().map(|(at, _)| mono(*at))
    }

    /// Does what time alone brings.
    pub fn tick(&mut self, now: Mono) {
        let now = nanos(now);
        while let Some(&(at, wake)) = self.wakes.first() {
            if at > now {
                break;
            }
            self.wakes.pop_first();
            match wake {
                Wake::Group(group) => {
                    if let Some(Some(group)) = self.groups.get_mut(group as usize) {
                        group.wake = None;
                    }
                    self.evaluate(group, now);
                }
                Wake::Folder(folder) => {
                    self.folders[folder as usize].wake = None;
                    self.refresh_folder(folder, now);
                }
                Wake::Ask(group, lead) => self.ask(group, lead, now),
                Wake::Names(folder) => self.forget_names(folder, now),
            }
        }
    }

    // ---- what goes --------------------------------------------------------------------------------------

    /// Up to `limit` drops to be planned and sent: highest priority first, then folders in turn, then the
    /// oldest. Each is handed out once, until it is answered.
    pub fn ready(&mut self, now: Mono, limit: usize) -> Vec<Candidate> {
        self.tick(now);
        let mut out = Vec::new();
        while out.len() < limit
            && let Some(folder) = self.turns.next()
        {
            let Some(&(_, group, lead)) = self.folders[folder as usize].sends.first() else {
                self.queue_folder(folder);
                continue;
            };
            let standing = &mut self.folders[folder as usize].standing;
            self.turns.served(folder, standing);
            out.extend(self.hand_out(group, lead, SlotState::Send, nanos(now)));
        }
        out
    }

    /// Up to `limit` drops that go to errors without being sent. They cost nothing and wait for no turn.
    pub fn rejects(&mut self, now: Mono, limit: usize) -> Vec<Candidate> {
        self.tick(now);
        let mut out = Vec::new();
        while out.len() < limit
            && let Some(folder) = self.rejecting.first().copied()
        {
            let Some(&(_, group, lead)) = self.folders[folder as usize].rejects.first() else {
                self.queue_folder(folder);
                continue;
            };
            out.extend(self.hand_out(group, lead, SlotState::Reject, nanos(now)));
        }
        out
    }

    /// Hands out a drop, if it is still what it was queued as; else it is queued as what it is now.
    fn hand_out(&mut self, id: GroupId, lead: u32, queued: SlotState, now: Nanos) -> Option<Candidate> {
        let group = self.groups[id as usize].as_mut()?;
        let folder = &self.folders[group.folder as usize];
        let view = folder.view(&self.rules, now);
        let judged = judge(&group.items, &view).into_iter().find(|j| j.lead == lead as usize);
        let judged = judged.filter(|j| state_of(&j.verdict) == queued);
        let candidate = judged.and_then(|j| candidate(&folder.path, &group.items, &j, &view));
        if candidate.is_some() {
            let lead = &mut group.items[lead as usize];
            lead.mark = Mark::Hand(false);
            lead.told = true;
        }
        self.evaluate(id, now);
        candidate
    }

    // ---- answers of the engine --------------------------------------------------------------------------

    /// The drop lies in `working/` now: its files are gone from here, its name is in work. Ends [`Self::starting`].
    /// `sent_unix_ms`: for the note of a sidecar that comes too late; `None` where it goes to errors unsent.
    pub fn claimed(&mut self, candidate: &Candidate, now: Mono, sent_unix_ms: Option<i64>) {
        let image = candidate.image.as_ref().map(|m| m.name.as_os_str());
        self.take_away(candidate, now);
        if image.is_some() || candidate.kind == CandidateKind::PromptOnly {
            self.in_work(&candidate.folder, &candidate.stem, image, sent_unix_ms, now);
        } else {
            // What goes to errors alone says nothing of the image before it: the next sidecar is as late.
            self.enter_work(&candidate.folder, &candidate.stem, now, |_| {});
        }
        self.not_started(candidate, now);
    }

    /// Not now (no room, a limit, a pause): it queues again.
    pub fn put_back(&mut self, candidate: &Candidate, now: Mono) {
        self.mark(&candidate.place(), Mark::None, now);
    }

    /// The picture, as it was with these facts, is not structurally whole.
    pub fn not_whole(&mut self, place: &Place, facts: &Facts, now: Mono) {
        let Some((id, index)) = self.find(place) else { return };
        let Some(Some(group)) = self.groups.get_mut(id as usize) else { return };
        let item = &mut group.items[index];
        item.mark = Mark::None;
        if item.facts == *facts {
            item.not_whole = true;
        }
        self.evaluate(id, nanos(now));
    }

    /// No prompt was found anywhere for the drop led by `place`: it waits until one of its files, or a
    /// preset above it, changes.
    pub fn prompt_missing(&mut self, place: &Place, now: Mono) {
        self.mark(place, Mark::NoPrompt, now);
    }

    /// The drop led by `place` can be seen but not read or moved: it waits until the next scan.
    pub fn blocked(&mut self, place: &Place, reason: &str, now: Mono) {
        let Some((id, _)) = self.find(place) else { return };
        if let Some(Some(group)) = self.groups.get(id as usize) {
            self.folders[group.folder as usize].blocked.insert(place.name.as_os_str().into(), reason.into());
        }
        self.mark(place, Mark::Blocked, now);
    }

    fn mark(&mut self, place: &Place, mark: Mark, now: Mono) {
        let Some((id, index)) = self.find(place) else { return };
        let Some(Some(group)) = self.groups.get_mut(id as usize) else { return };
        let item = &mut group.items[index];
        item.mark = if item.mark == Mark::Hand(true) { Mark::None } else { mark };
        self.evaluate(id, nanos(now));
    }

    fn take_away(&mut self, candidate: &Candidate, now: Mono) {
        let Some(&folder) = self.ids.get(&candidate.folder) else { return };
        for member in candidate.moving() {
            self.remove_name(folder, &member.name, nanos(now));
        }
        // A lead that stays behind (it is shared) is in nobody's hand any more.
        self.mark(&candidate.place(), Mark::None, now);
    }

    // ---- groups -----------------------------------------------------------------------------------------

    /// Whether a candidate that was handed out stands as it did then, in a folder that is served.
    pub fn is_current(&self, candidate: &Candidate) -> bool {
        let Some((id, index)) = self.find(&candidate.place()) else { return false };
        let Some(Some(group)) = self.groups.get(id as usize) else { return false };
        group.items[index].mark == Mark::Hand(false) && self.folders[group.folder as usize].is_served()
    }

    /// Whether a file with these facts lies there, as far as is known.
    pub fn has(&self, place: &Place, facts: &Facts) -> bool {
        let found =
            self.find(place).and_then(|(id, index)| Some(self.groups.get(id as usize)?.as_ref()?.items[index].facts));
        found.as_ref() == Some(facts)
    }

    /// Whether anything of that name was seen.
    pub fn knows(&self, place: &Place) -> bool {
        self.find(place).is_some()
    }

    /// Whether anything waits for [`Self::ready`], be it for the end of a scan of its folder.
    pub fn has_ready(&self) -> bool {
        self.turns.next().is_some() || !self.scanned.is_empty()
    }

    fn find(&self, place: &Place) -> Option<(GroupId, usize)> {
        self.find_in(*self.ids.get(&place.folder)?, &place.name)
    }

    fn find_in(&self, folder: FolderId, name: &OsStr) -> Option<(GroupId, usize)> {
        let groups = &self.folders[folder as usize].groups;
        [GroupKey::named(group_key(name)), GroupKey::foreign(name)].iter().find_map(|key| {
            let id = *groups.get(key)?;
            let items = &self.groups[id as usize].as_ref()?.items;
            Some((id, items.iter().position(|i| *i.name == *name)?))
        })
    }

    fn group(&mut self, folder: FolderId, key: GroupKey) -> GroupId {
        if let Some(&id) = self.folders[folder as usize].groups.get(&key) {
            return id;
        }
        let group = Group { folder, items: Few::new(), slots: Few::new(), wake: None };
        let id = if let Some(id) = self.free_groups.pop() {
            self.groups[id as usize] = Some(group);
            id
        } else {
            self.groups.push(Some(group));
            (self.groups.len() - 1) as GroupId
        };
        self.folders[folder as usize].groups.insert(key, id);
        id
    }

    /// Looks at a group again: its drops enter or leave their folder's queues, its next wake is set.
    fn evaluate(&mut self, id: GroupId, now: Nanos) {
        let Some(Some(group)) = self.groups.get_mut(id as usize) else { return };
        let folder = &mut self.folders[group.folder as usize];
        for slot in std::mem::replace(&mut group.slots, Few::new()).iter() {
            folder.unqueue(&(slot.arrived, id, slot.lead), slot.state);
            if let Some(at) = slot.ask {
                self.wakes.remove(&(at, Wake::Ask(id, slot.lead)));
            }
        }
        folder.waits.remove(&id);
        if group.items.is_empty() {
            if let Some(at) = group.wake {
                self.wakes.remove(&(at, Wake::Group(id)));
            }
            let owner = group.folder;
            self.groups[id as usize] = None;
            self.free_groups.push(id);
            self.queue_folder(owner);
            return;
        }
        let judged = judge(&group.items, &folder.view(&self.rules, now));
        let mut wake: Option<Nanos> = None;
        let mut slots = Vec::with_capacity(judged.len());
        for Judged { lead, verdict, .. } in judged {
            let ask = asks::ask_at(&group.items[lead], &verdict, self.rules.tell_after);
            let state = state_of(&verdict);
            if let Verdict::Wait(_, until) = verdict {
                wake = [wake, until].into_iter().flatten().min();
            }
            let (lead, arrived) = (lead as u32, group.items[lead].quiet);
            folder.queue((arrived, id, lead), state);
            if let Some(at) = ask {
                self.wakes.insert((at, Wake::Ask(id, lead)));
            }
            if matches!(state, SlotState::Wait(_)) {
                folder.waits.insert(id);
            }
            slots.push(Slot { lead, arrived, state, ask });
        }
        group.slots = slots.into();
        if group.wake != wake {
            if let Some(at) = group.wake {
                self.wakes.remove(&(at, Wake::Group(id)));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, Wake::Group(id)));
            }
            group.wake = wake;
        }
        let owner = group.folder;
        self.queue_folder(owner);
    }
}

/// The queue of a drop with this verdict.
fn state_of(verdict: &Verdict) -> SlotState {
    match verdict {
        Verdict::Go(CandidateKind::Picture | CandidateKind::PromptOnly) => SlotState::Send,
        Verdict::Go(_) => SlotState::Reject,
        Verdict::Hand => SlotState::Hand,
        Verdict::Off => SlotState::Off,
        Verdict::Wait(reason, _) => SlotState::Wait(*reason),
    }
}

fn candidate(folder: &RelPath, items: &[Item], judged: &Judged, view: &View<'_>) -> Option<Candidate> {
    let Verdict::Go(kind) = judged.verdict.clone() else { return None };
    let member = |index: usize| Member { name: items[index].name.clone().into(), facts: items[index].facts };
    let sidecars = judged.unit.parts.iter().filter_map(|part| {
        let NameKind::Sidecar(kind) = items[part.index].kind else { return None };
        let file = member(part.index);
        Some(SidecarMember { file, kind, tied: part.tied, used: part.used, shared: part.shared })
    });
    Some(Candidate {
        folder: folder.clone(),
        stem: judged.unit.stem.clone(),
        image: judged.unit.image.map(member),
        foreign: (kind == CandidateKind::Foreign).then(|| member(judged.lead)),
        sidecars: sidecars.collect(),
        settled: (!items[judged.lead].told).then(|| settled(items, &judged.unit, view)),
        kind,
    })
}

impl Gate {
    /// What a drop behind this gate waits for.
    fn reason(self) -> Option<Reason> {
        Some(match self {
            Self::Open => return None,
            Self::Settling => Reason::FolderSettling,
            Self::PresetChanging => Reason::PresetChanging,
            Self::PresetBroken => Reason::PresetBroken,
            Self::Disabled => Reason::Disabled,
            Self::Unreadable => Reason::Unreadable,
        })
    }
}
