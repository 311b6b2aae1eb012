//! One file: what is known of it, and since when it is quiet.

use std::ffi::OsStr;
use std::time::Duration;

use super::words::{Entry, How, Reason};
use crate::domain::ids::{Facts, Mono};
use crate::domain::kinds::NameKind;

/// Nanoseconds of the monotonic clock, with a sign: a file may be older than the clock.
pub(super) type Nanos = i64;

/// `now` as signed nanoseconds.
pub(super) fn nanos(now: Mono) -> Nanos {
    length(now.0)
}

/// A duration as signed nanoseconds; 292 years at most.
pub(super) fn length(duration: Duration) -> Nanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// `at` as a moment that others understand; 0 if it is before the clock began.
pub(super) fn mono(at: Nanos) -> Mono {
    Mono(Duration::from_nanos(u64::try_from(at).unwrap_or(0)))
}

/// Whether the writer said that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    No,
    Closed,
    Renamed,
}

/// What the engine said about the drop that this file leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    /// Handed out, not answered yet. `true`: something changed meanwhile, so that an answer that it must
    /// wait would be about how things were.
    Hand(bool),
    /// Planned, and no prompt was found.
    NoPrompt,
    /// Cannot be read or moved; why, its folder keeps.
    Blocked,
}

/// A file that is looked after. There may be a hundred thousand of them, so that each byte counts.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: Box<OsStr>,
    pub(super) kind: NameKind,
    pub(super) facts: Facts,
    /// Since when nothing changed, by its ctime; may be long before the program began.
    pub(super) quiet: Nanos,
    /// When these facts were first seen. Counts for giving up, which a jump of the wall clock must not bring.
    pub(super) since: Nanos,
    /// When it was last seen at all.
    pub(super) seen: Nanos,
    pub(super) sealed: Sealed,
    /// The picture was checked with these facts and is not whole.
    pub(super) not_whole: bool,
    /// It led a drop that was handed out as complete, with these facts.
    pub(super) told: bool,
    pub(super) mark: Mark,
    /// It was told of as waiting for this, quiet since then.
    pub(super) asked: Option<Reason>,
}

impl Item {
    /// A file seen for the first time. It was not there at `floor`, so that it cannot have been quiet for
    /// longer, whatever a server's clock says.
    pub(super) fn new(name: &OsStr, entry: &Entry, how: How, now: Nanos, floor: Option<Nanos>) -> Self {
        let sealed = match how {
            How::RenamedIn => Sealed::Renamed,
            How::Closed => Sealed::Closed,
            How::Scanned | How::Changed | How::Created | How::Touched => Sealed::No,
        };
        Self {
            name: name.into(),
            kind: entry.kind,
            facts: entry.facts,
            quiet: changed_at(entry, how, now, floor),
            since: now,
            seen: now,
            sealed,
            not_whole: false,
            told: false,
            mark: Mark::None,
            asked: None,
        }
    }

    /// Takes in what was seen; answers whether anything is different.
    pub(super) fn observe(&mut self, entry: &Entry, how: How, now: Nanos) -> bool {
        let before = (self.facts, self.sealed, self.not_whole, self.quiet);
        let old = std::mem::replace(&mut self.facts, entry.facts);
        if old == entry.facts {
            match how {
                How::Scanned | How::Created | How::Touched => {}
                How::Changed => {
                    // Two writes within one tick of the kernel's clock leave equal facts.
                    self.sealed = Sealed::No;
                    self.not_whole = false;
                    self.quiet = self.quiet.max(now.saturating_sub(length(entry.age)));
                }
                How::Closed => {
                    self.not_whole = false;
                    if self.sealed == Sealed::No {
                        self.sealed = Sealed::Closed;
                    }
                }
                How::RenamedIn => {
                    self.not_whole = false;
                    self.sealed = Sealed::Renamed;
                }
            }
        } else {
            let same_bytes = (old.dev, old.ino, old.size) == (entry.facts.dev, entry.facts.ino, entry.facts.size)
                && (how == How::Touched || old.mtime_ns == entry.facts.mtime_ns);
            self.quiet = changed_at(entry, how, now, Some(self.seen));
            self.since = now;
            self.not_whole = false;
            self.sealed = match how {
                How::RenamedIn => Sealed::Renamed,
                How::Closed => Sealed::Closed,
                How::Touched | How::Scanned if same_bytes => self.sealed,
                How::Touched | How::Scanned | How::Changed | How::Created => Sealed::No,
            };
        }
        self.seen = self.seen.max(now);
        let changed = before != (self.facts, self.sealed, self.not_whole, self.quiet);
        if changed {
            self.told = false;
            if self.mark == Mark::Blocked {
                self.mark = Mark::None;
            }
            if before.3 != self.quiet {
                self.asked = None;
            }
        }
        changed
    }

    /// Something that its drop depends on changed: what the engine found out is void. Answers whether that alone
    /// may change what is to happen to the drop.
    pub(super) fn void(&mut self) -> bool {
        match self.mark {
            Mark::NoPrompt => {
                self.mark = Mark::None;
                return true;
            }
            Mark::Hand(_) => self.mark = Mark::Hand(true),
            Mark::None | Mark::Blocked => {}
        }
        false
    }

    /// When a file without structure (a sidecar, a preset) counts as finished.
    pub(super) fn finished_at(&self, settle: Duration) -> Nanos {
        if self.sealed == Sealed::Renamed { Nanos::MIN } else { self.quiet.saturating_add(length(settle)) }
    }

    /// When a file that was closed or renamed at once counts, and others when they have settled.
    pub(super) fn settled_at(&self, settle: Duration) -> Nanos {
        if self.sealed == Sealed::No { self.quiet.saturating_add(length(settle)) } else { Nanos::MIN }
    }
}

fn changed_at(entry: &Entry, how: How, now: Nanos, floor: Option<Nanos>) -> Nanos {
    let by_age = now.saturating_sub(length(entry.age));
    let floor = floor.map_or(Nanos::MIN, |at| at.min(now));
    if how == How::RenamedIn { now } else { by_age.max(floor) }
}
