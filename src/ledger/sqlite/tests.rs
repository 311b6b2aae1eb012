#![allow(clippy::unwrap_used)]

mod damage;
mod endings;
mod life;
mod limits;
mod memory;
mod model;
mod plans;
mod reading;
mod together;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::*;
use crate::domain::ids::RelPath;
use crate::domain::life::ShotEvent;
use crate::ledger::{Member, Role};

pub(super) const NONE: Limits = Limits { per_hour: 0, per_day: 0 };

pub(super) struct Room {
    pub(super) dir: tempfile::TempDir,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("ledger.db")
    }
    pub(super) fn open(&self) -> SqliteLedger {
        SqliteLedger::open(&self.path()).unwrap()
    }
    /// A copy of it as a kill leaves it now.
    pub(super) fn as_after_a_crash(&self) -> Self {
        let copy = Self::new();
        for name in self.names() {
            std::fs::copy(self.dir.path().join(&name), copy.dir.path().join(&name)).unwrap();
        }
        copy
    }
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Seconds after some moment, by both clocks of one boot.
pub(super) fn at(seconds: i64) -> Moment {
    by(seconds, "boot-1", seconds)
}

pub(super) fn by(wall: i64, boot: &str, since: i64) -> Moment {
    let since_boot = Duration::from_secs(u64::try_from(since + 1_000_000).unwrap());
    Moment { wall: wall_at(wall), boot: boot.into(), since_boot }
}

pub(super) fn wall_at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub(super) fn print(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

pub(super) fn member(name: &[u8], role: Role, bytes: &str) -> Member {
    Member { name: OsStr::from_bytes(name).into(), role, print: Some(print(bytes)), size: 7, moves: true }
}

pub(super) fn id(n: u8) -> DropId {
    DropId([n; 16])
}

/// A picture with a sidecar, with so many shots; its bytes are `n`'s own.
pub(super) fn a_drop(n: u8, shots: u32) -> NewDrop {
    NewDrop {
        id: id(n),
        folder: RelPath::new("autumn").unwrap(),
        stem: format!("terrace{n}").into(),
        members: vec![
            member(format!("terrace{n}.txt").as_bytes(), Role::Sidecar, &format!("text {n}")),
            member(format!("terrace{n}.jpg").as_bytes(), Role::Picture, &format!("picture {n}")),
        ],
        working: "/r/working".into(),
        recognition: Some(print(&format!("known {n}"))),
        plan: r#"{"prompt":"x"}"#.into(),
        shots: (0..shots).map(|no| Shot::new(ShotNo(no), Some(i64::from(no)))).collect(),
        failure: None,
        continues: None,
    }
}

/// The shot of a drop as it stands, after one more step.
pub(super) fn after(ledger: &mut SqliteLedger, id: DropId, no: u32, event: ShotEvent) -> Shot {
    let drops = ledger.open_drops().unwrap();
    let open = drops.iter().find(|d| d.drop.id == id).unwrap();
    open.drop.shots.iter().find(|s| s.no == ShotNo(no)).unwrap().apply(event).unwrap()
}

/// A drop that was sent and ended in errors.
pub(super) fn failed(ledger: &mut SqliteLedger, drop: &NewDrop, now: i64) {
    ledger.begin(drop, Some(ShotNo(0)), NONE, &at(now)).unwrap();
    let shot = after(ledger, drop.id, 0, ShotEvent::Fail { reason: "moderated".into(), billed: Billed::No });
    ledger.step(drop.id, &shot, Billed::No).unwrap();
    ledger.close(drop.id, Ending::Failed, Some("moderated"), wall_at(now)).unwrap();
}
