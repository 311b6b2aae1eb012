//! Tables of what goes when, told through a small inbox with a clock of its own.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::domain::kinds::{Why, classify};

mod late;
mod names;
mod scans;

pub(super) const RULES: Rules = Rules {
    settle: Duration::from_secs(2),
    folder_settle: Duration::from_secs(3),
    sidecar_wait: Duration::from_secs(1),
    lone_wait: Duration::from_secs(30),
    give_up: Duration::from_secs(600),
    tell_after: None,
};

pub(super) fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

/// Arrivals with a clock in milliseconds; presets answer as told, at once.
pub(super) struct Box_ {
    pub(super) arrivals: Arrivals,
    pub(super) ms: u64,
    pub(super) preset: PresetState,
    ino: u64,
}

impl Box_ {
    /// The inbox is scanned and empty; its preset says `preset`.
    pub(super) fn new(preset: PresetState) -> Self {
        let mut new = Self { arrivals: Arrivals::new(RULES), ms: 100_000, preset, ino: 1 };
        new.scan("", &[]);
        new.presets();
        new
    }

    pub(super) fn now(&self) -> Mono {
        Mono(Duration::from_millis(self.ms))
    }

    pub(super) fn presets(&mut self) {
        let now = self.now();
        for query in self.arrivals.presets_to_read(now) {
            self.arrivals.preset_state(&query, self.preset.clone(), now);
        }
    }

    pub(super) fn entry(&self, name: &str, size: u64, age_ms: u64) -> Entry {
        let is_dir = name.ends_with('/');
        let name = name.trim_end_matches('/');
        let kind = classify(&RelPath::root(), OsStr::new(name), is_dir, &|_| false);
        let at = (i64::try_from(self.ms).unwrap() - i64::try_from(age_ms).unwrap()) * 1_000_000;
        let ino = if is_dir { 7 } else { self.ino };
        let facts = Facts { dev: 1, ino, size, mtime_ns: at, ctime_ns: at };
        Entry { kind, facts, age: Duration::from_millis(age_ms) }
    }

    pub(super) fn see(&mut self, folder: &str, name: &str, size: u64, how: How) {
        let (entry, now) = (self.entry(name, size, 0), self.now());
        self.arrivals.observe_entry(&rel(folder), OsStr::new(name), Some(&entry), how, now);
    }

    pub(super) fn gone(&mut self, folder: &str, name: &str) {
        let now = self.now();
        self.arrivals.observe_entry(&rel(folder), OsStr::new(name), None, How::Changed, now);
    }

    /// A whole scan: names (folders with `/`), sizes, ages in ms.
    pub(super) fn scan(&mut self, folder: &str, found: &[(&str, u64, u64)]) {
        let (folder, now) = (rel(folder), self.now());
        self.arrivals.begin_scan(&folder, now);
        for (name, size, age) in found {
            let entry = self.entry(name, *size, *age);
            self.arrivals.observe_scanned(&folder, OsStr::new(name.trim_end_matches('/')), &entry, now);
        }
        self.arrivals.end_scan(&folder, now);
    }

    pub(super) fn out(&mut self) -> Vec<Candidate> {
        self.presets();
        let now = self.now();
        let mut out = self.arrivals.ready(now, 100);
        out.extend(self.arrivals.rejects(now, 100));
        out
    }

    /// What goes now: `lead` and, in brackets, anything but a plain send.
    fn told(&mut self) -> Vec<String> {
        let tell = |c: Candidate| match c.kind {
            CandidateKind::Picture | CandidateKind::PromptOnly => c.place().to_string(),
            ref other => format!("{} {}", c.place(), format!("{other:?}").split([' ', '(', '{']).next().unwrap()),
        };
        self.out().into_iter().map(tell).collect()
    }

    /// The moment (ms from now) at which something goes first, by following the wakes.
    fn goes_after(&mut self) -> Option<(u64, Vec<String>)> {
        let begin = self.ms;
        for _ in 0..50 {
            let told = self.told();
            if !told.is_empty() {
                return Some((self.ms - begin, told));
            }
            let wake = self.arrivals.next_wake()?;
            self.ms = self.ms.max(u64::try_from(wake.0.as_nanos().div_ceil(1_000_000)).unwrap());
        }
        None
    }

    fn waits(&self) -> Vec<&'static str> {
        self.arrivals.waiting().map(|w| w.reason.label()).collect()
    }
}

fn ok(sidecar: SidecarRule, reference: ReferenceRule) -> PresetState {
    PresetState::Ok { sidecar, reference, enabled: true, priority: 0 }
}

fn plain() -> Box_ {
    Box_::new(PresetState::default())
}

/// An inbox that was not scanned yet: what lies there may have lain there for long.
fn unseen() -> Box_ {
    let mut inbox = plain();
    inbox.arrivals.folder_gone(&RelPath::root(), inbox.now());
    inbox
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_picture_waits_as_long_as_its_arrival_demands() {
    // (how, sidecar wait counts too) → ms
    for (how, ms) in [(How::Closed, 1000), (How::RenamedIn, 1000), (How::Created, 2000), (How::Changed, 2000)] {
        let mut inbox = plain();
        inbox.see("", "a.jpg", 9, how);
        assert_eq!(inbox.goes_after(), Some((ms, strings(&["a.jpg"]))), "{how:?}");
    }
    let mut inbox = unseen();
    inbox.scan("", &[("old.jpg", 9, 60_000), ("older.jpg", 9, 90_000)]);
    assert_eq!(inbox.goes_after(), Some((0, strings(&["older.jpg", "old.jpg"]))));
}

#[test]
fn what_is_new_since_the_last_scan_is_new_whatever_a_servers_clock_says() {
    let hours = 7_200_000;
    let mut inbox = plain();
    inbox.ms += 500;
    inbox.scan("", &[("sea/", 0, hours)]);
    inbox.scan("sea", &[("a.jpg", 9, hours), ("deep/", 0, hours), (".ignored", 1, hours)]);
    inbox.scan("sea/deep", &[("b.jpg", 9, hours), ("preset.toml", 9, hours)]);
    assert_eq!(inbox.told(), strings(&[]));
    assert_eq!(inbox.goes_after(), Some((2500, strings(&["sea/a.jpg", "sea/deep/b.jpg"]))));
    // What is there at the very first scan has no other witness.
    let mut inbox = unseen();
    inbox.scan("", &[("sea/", 0, hours)]);
    inbox.scan("sea", &[("a.jpg", 9, hours)]);
    assert_eq!(inbox.goes_after(), Some((0, strings(&["sea/a.jpg"]))));
}

#[test]
fn a_change_after_a_close_takes_the_close_back() {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 900;
    inbox.see("", "a.jpg", 10, How::Changed);
    assert_eq!(inbox.goes_after(), Some((2000, strings(&["a.jpg"]))));
    // A chmod takes nothing back.
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 900;
    inbox.see("", "a.jpg", 9, How::Touched);
    assert_eq!(inbox.goes_after(), Some((1000, strings(&["a.jpg"]))));
}

#[test]
fn a_picture_that_is_not_whole_waits_for_a_change_and_fails_at_last() {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 1000;
    let candidate = inbox.out().remove(0);
    assert_eq!(candidate.kind, CandidateKind::Picture);
    inbox.arrivals.not_whole(&candidate.place(), &candidate.image.unwrap().facts, inbox.now());
    assert_eq!(inbox.waits(), ["incomplete"]);
    inbox.ms += 5000;
    inbox.see("", "a.jpg", 20, How::Closed);
    inbox.ms += 1000;
    let candidate = inbox.out().remove(0);
    inbox.arrivals.not_whole(&candidate.place(), &candidate.image.unwrap().facts, inbox.now());
    assert_eq!(inbox.goes_after(), Some((599_000, strings(&["a.jpg Failed"]))));
}

#[test]
fn sidecars_hold_their_image_until_they_are_finished() {
    // renamed: at once; else unchanged for settle
    for (how, ms) in [(How::RenamedIn, 0), (How::Closed, 2000)] {
        let mut inbox = plain();
        inbox.see("", "a.jpg", 9, How::Closed);
        inbox.see("", "a.txt", 9, how);
        assert_eq!(inbox.goes_after(), Some((ms, strings(&["a.jpg"]))), "{how:?}");
    }
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.see("", "a.txt", 0, How::RenamedIn);
    inbox.presets();
    assert_eq!(inbox.waits(), ["empty_sidecar"]);
    assert_eq!(inbox.goes_after(), Some((600_000, strings(&["a.jpg Failed"]))));
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.see("", "a.txt", MAX_SIDECAR_BYTES + 1, How::RenamedIn);
    assert_eq!(inbox.goes_after(), Some((0, strings(&["a.jpg Failed"]))));
}

#[test]
fn the_preset_says_whether_sidecars_are_waited_for() {
    use {ReferenceRule as R, SidecarRule as S};
    let mut inbox = Box_::new(ok(S::Required, R::Optional));
    inbox.see("", "a.jpg", 9, How::Closed);
    assert_eq!(inbox.goes_after(), None);
    assert_eq!(inbox.waits(), ["sidecar"]);
    inbox.see("", "a.toml", 9, How::RenamedIn);
    assert_eq!(inbox.goes_after(), Some((0, strings(&["a.jpg"]))));

    let mut inbox = Box_::new(ok(S::Ignore, R::Optional));
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.see("", "a.txt", 0, How::Created);
    inbox.see("", "b.txt", 9, How::RenamedIn);
    let out = inbox.out();
    assert_eq!(out.len(), 1);
    assert!(out[0].sidecars.is_empty());
    assert_eq!(inbox.arrivals.ignored().filter(|(_, why)| *why == Why::SidecarsOff).count(), 2);
}

#[test]
fn the_preset_says_whether_images_are_waited_for() {
    use {ReferenceRule as R, SidecarRule as S};
    for (rule, want) in [(R::Optional, Some(30_000)), (R::None, Some(0)), (R::Required, None)] {
        let mut inbox = Box_::new(ok(S::Optional, rule));
        inbox.see("", "a.txt", 9, How::RenamedIn);
        assert_eq!(inbox.goes_after().map(|(ms, _)| ms), want, "{rule:?}");
    }
    let mut inbox = Box_::new(ok(S::Optional, R::None));
    inbox.see("", "a.jpg", 9, How::Closed);
    assert_eq!(inbox.goes_after(), Some((1000, strings(&["a.jpg Failed"]))));
    // Also over a restart: the wait counts from the ctime.
    let mut inbox = unseen();
    inbox.scan("", &[("a.txt", 9, 25_000)]);
    assert_eq!(inbox.goes_after(), Some((5000, strings(&["a.txt"]))));
}

#[test]
fn a_new_folder_waits_until_it_has_come_to_rest() {
    let mut inbox = plain();
    inbox.scan("", &[("look/", 0, 0)]);
    assert_eq!(inbox.arrivals.folders_to_scan().cloned().collect::<Vec<_>>(), [rel("look")]);
    inbox.scan("look", &[("a.jpg", 9, 0)]);
    inbox.ms += 2500;
    inbox.see("look", "preset.toml", 9, How::Created);
    assert_eq!(inbox.waits(), ["folder_settling"]);
    // 3 s after the preset came; by then that has settled too.
    assert_eq!(inbox.goes_after(), Some((3000, strings(&["look/a.jpg"]))));
    // An old one goes at once, nested ones too.
    let mut inbox = unseen();
    inbox.scan("", &[("look/", 0, 50_000)]);
    inbox.scan("look", &[("in/", 0, 50_000)]);
    inbox.scan("look/in", &[("a.jpg", 9, 60_000)]);
    assert_eq!(inbox.goes_after(), Some((0, strings(&["look/in/a.jpg"]))));
    // What is still arriving further down holds the whole new tree.
    let mut inbox = unseen();
    inbox.scan("", &[("look/", 0, 50_000)]);
    inbox.scan("look", &[("in/", 0, 50_000), ("a.jpg", 9, 50_000)]);
    inbox.scan("look/in", &[("b.jpg", 9, 1000)]);
    assert_eq!(inbox.goes_after().map(|(ms, _)| ms), Some(2000));
}

#[test]
fn a_preset_that_changes_or_vanishes_holds_its_subtree_only() {
    let mut inbox = unseen();
    inbox.scan("", &[("x/", 0, 50_000), ("y/", 0, 50_000)]);
    inbox.scan("x", &[("preset.toml", 5, 50_000), ("sub/", 0, 50_000)]);
    inbox.scan("x/sub", &[("a.jpg", 9, 50_000)]);
    inbox.scan("y", &[("b.jpg", 9, 50_000)]);
    inbox.presets();
    inbox.see("x", "preset.toml", 6, How::Changed);
    assert_eq!(inbox.told(), ["y/b.jpg"]);
    assert_eq!(inbox.arrivals.counts(Reason::Queued).get(&Reason::PresetChanging), Some(&1));
    inbox.ms += 1000;
    inbox.gone("x", "preset.toml");
    assert_eq!(inbox.goes_after(), Some((2000, strings(&["x/sub/a.jpg"]))));
}

#[test]
fn a_broken_or_disabled_preset_stops_what_it_stands_over() {
    let mut inbox = Box_::new(PresetState::Broken { reason: "line 3".into() });
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.see("", "b.pdf", 9, How::Closed);
    assert_eq!(inbox.goes_after(), None);
    assert_eq!(inbox.waits(), ["preset_broken", "preset_broken"]);
    assert_eq!(inbox.arrivals.broken_presets().collect::<Vec<_>>(), [(&RelPath::root(), "line 3")]);
    inbox.preset = PresetState::Ok {
        sidecar: SidecarRule::Optional,
        reference: ReferenceRule::Optional,
        enabled: false,
        priority: 0,
    };
    inbox.arrivals.reread_presets(&RelPath::root());
    assert_eq!(inbox.goes_after(), None);
    assert_eq!(inbox.waits(), ["disabled", "disabled"]);
}

#[test]
fn a_link_in_the_presets_place_lets_nothing_go() {
    let mut inbox = plain();
    let mut link = inbox.entry("preset.toml", 9, 50_000);
    link.kind = NameKind::Ignored(Why::Special(Special::Symlink));
    let now = inbox.now();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.arrivals.observe_entry(&RelPath::root(), OsStr::new("preset.toml"), Some(&link), How::Created, now);
    assert_eq!(inbox.goes_after(), None);
    assert_eq!(inbox.waits(), ["preset_broken"]);
    assert_eq!(inbox.arrivals.take_new_specials().len(), 1);
    assert_eq!(inbox.arrivals.take_new_specials(), []);
    inbox.gone("", "preset.toml");
    assert_eq!(inbox.goes_after().map(|(_, told)| told), Some(strings(&["a.jpg"])));
}

#[test]
fn a_shared_sidecar_moves_with_the_last_image() {
    let mut inbox = plain();
    for name in ["a.jpg", "a.png", "a.txt"] {
        inbox.see("", name, 9, How::RenamedIn);
    }
    let out = inbox.out();
    assert_eq!(out.len(), 1, "one at a time");
    assert!(out[0].sidecars[0].shared);
    inbox.arrivals.claimed(&out[0], inbox.now(), Some(0));
    assert_eq!(inbox.waits(), ["busy"]);
    inbox.arrivals.filed(&RelPath::root(), OsStr::new("a"), inbox.now());
    let out = inbox.out();
    assert_eq!(out[0].moving().map(|m| m.name.to_str().unwrap()).collect::<Vec<_>>(), ["a.txt", "a.png"]);
    inbox.arrivals.claimed(&out[0], inbox.now(), Some(0));
    assert!(inbox.arrivals.is_empty());
}

#[test]
fn a_drop_without_a_prompt_waits_until_something_changes() {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 1000;
    let place = inbox.out().remove(0).place();
    inbox.arrivals.prompt_missing(&place, inbox.now());
    assert_eq!((inbox.goes_after(), inbox.waits()), (None, vec!["prompt"]));
    inbox.see("", "preset.toml", 9, How::RenamedIn);
    assert_eq!(inbox.told(), ["a.jpg"]);
    // A sidecar that comes while the engine plans makes "no prompt" void.
    inbox.see("", "a.txt", 9, How::RenamedIn);
    inbox.arrivals.prompt_missing(&place, inbox.now());
    assert_eq!(inbox.told(), ["a.jpg"]);
}

#[test]
fn folders_take_turns_priority_first_and_the_oldest_within() {
    let mut inbox = unseen();
    inbox.scan("", &[("x/", 0, 50_000), ("y/", 0, 50_000), ("z/", 0, 50_000)]);
    inbox.scan("x", &[("1.jpg", 9, 40_000), ("2.jpg", 9, 45_000), ("3.jpg", 9, 44_000)]);
    inbox.scan("y", &[("4.jpg", 9, 10_000)]);
    inbox.scan("z", &[("5.jpg", 9, 10_000), ("6.jpg", 9, 10_001)]);
    for query in inbox.arrivals.presets_to_read(inbox.now()) {
        let priority = i64::from(query.folder == rel("z"));
        let state = PresetState::Ok {
            sidecar: SidecarRule::Optional,
            reference: ReferenceRule::Optional,
            enabled: true,
            priority,
        };
        inbox.arrivals.preset_state(&query, state, inbox.now());
    }
    let want = ["z/6.jpg", "z/5.jpg", "x/2.jpg", "y/4.jpg", "x/3.jpg", "x/1.jpg"];
    assert_eq!(inbox.told(), want);
}

#[test]
fn a_waiting_picture_takes_little_memory() {
    // Bytes of what is there once for each, without its name and the key of its group; a hundred thousand may wait.
    assert!(size_of::<Item>() <= 88, "{}", size_of::<Item>());
    assert!(size_of::<Option<Group>>() <= 144, "{}", size_of::<Option<Group>>());
    assert!(size_of::<(GroupKey, GroupId)>() <= 24, "{}", size_of::<(GroupKey, GroupId)>());
    assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
}

#[test]
fn a_preset_counts_for_what_was_judged_by_another() {
    let mut inbox = Box_::new(ok(SidecarRule::Ignore, ReferenceRule::Optional));
    inbox.see("", "a.txt", 9, How::RenamedIn);
    inbox.ms += 60_000;
    assert!(inbox.told().is_empty() && inbox.waits().is_empty());
    inbox.preset = PresetState::default();
    inbox.arrivals.reread_presets(&RelPath::root());
    assert_eq!(inbox.told(), ["a.txt"]);
}

#[test]
fn what_is_foreign_goes_to_errors_alone() {
    let mut inbox = plain();
    inbox.see("", "a.pdf", 9, How::Created);
    inbox.see("", "a.jpg", 9, How::RenamedIn);
    assert_eq!(inbox.goes_after(), Some((1000, strings(&["a.jpg"]))));
    assert_eq!(inbox.goes_after(), Some((1000, strings(&["a.pdf Foreign"]))));
}

#[test]
fn the_wait_for_files_is_told_once_and_no_other_wait_is_in_it() {
    let settled = |inbox: &mut Box_| -> Option<u128> {
        let out = inbox.out();
        assert_eq!(out.len(), 1);
        out[0].settled.map(|wait| wait.as_millis())
    };
    // A turn may come late: only the rules' waits count.
    for (how, ms) in [(How::Closed, 1000), (How::Created, 2000)] {
        let mut inbox = plain();
        inbox.see("", "a.jpg", 9, how);
        inbox.ms += 60_000;
        assert_eq!(settled(&mut inbox), Some(ms), "{how:?}");
    }
    // Of old files only the wait since they were seen; of two files the later one's.
    let mut inbox = plain();
    inbox.arrivals.folder_gone(&RelPath::root(), inbox.now());
    inbox.scan("", &[("old.jpg", 9, 60_000)]);
    assert_eq!(settled(&mut inbox), Some(0));
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 500;
    inbox.see("", "a.txt", 9, How::Created);
    inbox.ms += 9_000;
    assert_eq!(settled(&mut inbox), Some(2000));
    // Put back and handed out again it is the same drop; changed it is another.
    let place = Place { folder: RelPath::root(), name: "a.jpg".into() };
    let now = inbox.now();
    inbox.arrivals.mark(&place, Mark::None, now);
    assert_eq!(settled(&mut inbox), None);
    inbox.see("", "a.jpg", 12, How::Changed);
    inbox.arrivals.mark(&place, Mark::None, now);
    inbox.ms += 9_000;
    assert_eq!(settled(&mut inbox), Some(2000));
    // A prompt alone waits for its picture.
    let mut inbox = plain();
    inbox.see("", "a.txt", 9, How::RenamedIn);
    inbox.ms += 90_000;
    assert_eq!(settled(&mut inbox), Some(30_000));
}
