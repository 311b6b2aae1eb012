//! The folders and the state directory, looked at only: what the daemon would make or refuse at its start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::config::Config;
use crate::domain::fskind::FsKind;
use crate::domain::ids::show;
use crate::engine::site::{INNER_WORKING, Site};
use crate::inbox;
use crate::outbox::fskind::filesystem_kind;
use crate::outbox::overlap::{Overlap, same_or_nested};
use crate::outbox::room::{self, Room};
use crate::service::lock::{self, Probe, STATE_LOCK};

use super::Report;

/// Enough for notes, names and originals, which move by rename mostly.
const SMALL_BYTES: u64 = 1024 * 1024;

/// A place that the daemon needs.
struct Place<'a> {
    label: &'static str,
    key: &'static str,
    path: &'a Path,
    need_bytes: u64,
    /// Whether it is the user's: one that is not there may be a disk that is not mounted.
    users: bool,
}

/// Looks at all of them; answers whether the inbox can be looked into.
pub(super) fn look(config: &Config, state_dir: &Path, report: &mut Report) -> bool {
    let folders = &config.folders;
    // What the daemon reserves before it sends.
    let results = config.reference.max_bytes.saturating_mul(u64::from(config.api.max_in_flight));
    daemon(state_dir, report);
    let there = inbox(config, report);
    let working = if there { Some(working(config, report)) } else { folders.working.clone() };
    let place = |label, key, path, need_bytes, users| Place { label, key, path, need_bytes, users };
    let places = [
        place("Outbox", "[folders] outbox", folders.outbox.as_path(), results, true),
        place("Archive", "[folders] archive", &folders.archive, SMALL_BYTES, true),
        place("Errors", "[folders] errors", &folders.errors, SMALL_BYTES, true),
        place("State", "[service] state_dir", state_dir, results, false),
    ];
    for place in &places {
        one(place, report);
    }
    if let Some(FsKind::Network(kind)) = nearest(state_dir).and_then(|at| filesystem_kind(&at).ok()) {
        report.problem(format!(
            "the state directory {} lies on {kind}, where a ledger is not safe: set [service] state_dir to a folder on a local disk",
            show(state_dir.as_os_str()),
        ));
    }
    apart(config, state_dir, working.as_deref(), report);
    there
}

fn daemon(state_dir: &Path, report: &mut Report) {
    let text = match lock::probe(&state_dir.join(STATE_LOCK)) {
        Ok(Probe::Held(Some(pid))) => format!("running, process {pid}"),
        Ok(Probe::Held(None)) => "running".to_owned(),
        Ok(Probe::Free) => "not running".to_owned(),
        Err(e) => format!("not known: {e}"),
    };
    report.fact("Daemon", text);
}

fn inbox(config: &Config, report: &mut Report) -> bool {
    let path = &config.folders.inbox;
    let name = show(path.as_os_str());
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            report.problem(format!(
                "the inbox {name} is not there: make it, mount it, or name another in [folders] inbox"
            ));
            return false;
        }
        Err(e) => {
            report.problem(format!("the inbox {name} can't be looked at: {e}"));
            return false;
        }
        Ok(found) if !found.is_dir() => {
            report.problem(format!("the inbox {name} is not a folder: name one in [folders] inbox"));
            return false;
        }
        Ok(_) => {}
    }
    if let Err(e) = fs::read_dir(path) {
        report.problem(format!(
            "the inbox {name} can't be read: {e}; give this user the right to read, write and enter it"
        ));
        return false;
    }
    if let Some(why) = trouble(path, 0) {
        report.problem(format!("the inbox {name} {why}: drops could not be moved out of it"));
    }
    let watched = match inbox::fs_kind(path) {
        Ok(kind) => match inbox::choose(setting(config), kind) {
            inbox::Backend::Events => "watched by events".to_owned(),
            inbox::Backend::Poll { why } => format!("polled: {why}"),
        },
        Err(e) => e.to_string(),
    };
    report.fact("Inbox", format!("{name}, {watched}"));
    true
}

fn setting(config: &Config) -> inbox::Setting {
    match config.watch.backend {
        crate::config::Backend::Auto => inbox::Setting::Auto,
        crate::config::Backend::Events => inbox::Setting::Events,
        crate::config::Backend::Poll => inbox::Setting::Poll,
    }
}

/// What keeps a folder that is there from being written, in words behind its name.
fn trouble(path: &Path, need_bytes: u64) -> Option<String> {
    Some(match room::look(path, need_bytes) {
        Room::Ok => return None,
        Room::Full { free } => format!("has no room: {free} bytes are free, {need_bytes} are wanted"),
        Room::NoInodes { free } => format!("has no room: hardly any file can be made there ({free} inodes are free)"),
        Room::ReadOnly => "lies on a filesystem that is mounted read-only".into(),
        Room::Missing => "is not a folder".into(),
        Room::Denied => "can't be written by this user (check as the user that the daemon runs as)".into(),
        Room::Io(e) => format!("can't be used: {e}"),
    })
}

fn one(place: &Place<'_>, report: &mut Report) {
    let name = show(place.path.as_os_str());
    let Place { label, key, path, need_bytes, users } = place;
    if fs::symlink_metadata(path).is_ok() {
        match trouble(path, *need_bytes) {
            None => report.fact(label, name),
            Some(why) => report.problem(format!("{key}: {name} {why}")),
        }
        return;
    }
    let blocked = nearest(path)
        .and_then(|around| trouble(&around, *need_bytes).map(|why| format!("{} {why}", show(around.as_os_str()))));
    if let Some(why) = blocked {
        report.problem(format!("{key}: {name} is not there and can't be made: {why}"));
        return;
    }
    report.fact(label, format!("{name} (not there yet; it will be made)"));
    if *users {
        report.warn(format!(
            "{key}: {name} is not there; it will be made at the daemon's start, unless a disk is to be mounted there"
        ));
    }
}

/// The deepest part of a path that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|at| fs::symlink_metadata(at).is_ok()).map(Path::to_path_buf)
}

/// The filesystem and the mount that a path lies on: a rename reaches no further.
fn reach(path: &Path) -> Option<(u32, u32, u64)> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok()?;
    let mount =
        if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) { stat.stx_mnt_id } else { 0 };
    Some((stat.stx_dev_major, stat.stx_dev_minor, mount))
}

/// Where drops will lie while they are sent. The daemon finds it by trying; here it is found by comparing
/// filesystems, since trying would write.
fn working(config: &Config, report: &mut Report) -> PathBuf {
    let inbox = &config.folders.inbox;
    let inner = inbox.join(INNER_WORKING);
    let reached = |path: &Path| nearest(path).and_then(|at| reach(&at)).is_some_and(|at| Some(at) == reach(inbox));
    let writable = |path: &Path| nearest(path).is_some_and(|at| trouble(&at, 0).is_none());
    let found = match &config.folders.working {
        Some(set) => {
            let name = show(set.as_os_str());
            if !reached(set) {
                report.problem(format!(
                    "[folders] working: {name} lies on another filesystem or mount than the inbox, so that no rename reaches it: leave the key out, or choose a folder on the inbox's own"
                ));
                return set.clone();
            }
            if !writable(set) {
                report.problem(format!("[folders] working: {name} can't be written by this user"));
            }
            set.clone()
        }
        None => match inbox.parent().map(|parent| parent.join("working")) {
            Some(beside) if reached(&beside) && writable(&beside) => beside,
            _ => inner,
        },
    };
    let made = if found.is_dir() { "" } else { " (not there yet; it will be made)" };
    report.fact("Working", format!("{}{made}", show(found.as_os_str())));
    found
}

/// No folder may be, contain or lie in another; `.working` in the inbox is the one exception.
fn apart(config: &Config, state_dir: &Path, working: Option<&Path>, report: &mut Report) {
    let folders = &config.folders;
    let mut all = vec![
        ("[folders] inbox", folders.inbox.as_path()),
        ("[folders] outbox", &folders.outbox),
        ("[folders] archive", &folders.archive),
        ("[folders] errors", &folders.errors),
        ("[service] state_dir", state_dir),
    ];
    all.extend(working.map(|path| ("[folders] working", path)));
    for why in Site::taken_for_drops(config) {
        report.problem(why);
    }
    let inner = folders.inbox.join(INNER_WORKING);
    for (i, (one, a)) in all.iter().enumerate() {
        for (other, b) in &all[i + 1..] {
            if *a == folders.inbox && *b == inner {
                continue;
            }
            let how = match same_or_nested(&[a, b]) {
                Ok(None) => continue,
                Ok(Some((_, _, Overlap::Same))) => "are one folder",
                Ok(Some((_, _, Overlap::Contains))) => "lie in one another: the first contains the second",
                Ok(Some((_, _, Overlap::Within))) => "lie in one another: the second contains the first",
                Err(e) => {
                    report.problem(e.to_string());
                    continue;
                }
            };
            report.problem(format!(
                "{one} ({}) and {other} ({}) {how}: give each a place of its own",
                show(a.as_os_str()),
                show(b.as_os_str())
            ));
        }
    }
}
