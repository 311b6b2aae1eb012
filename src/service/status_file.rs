//! `status.json`: what the daemon is doing, for `reimagined status`, for scripts and for `systemctl status`.
//!
//! The file is an interface. Its keys stay, their meaning too; new ones may come. It is small whatever the
//! queue is (the lists are bounded), readable for the daemon's group, and replaced as a whole, so a reader
//! never sees half of one. Only where there is no room for a new one the old one is written over, in its own
//! blocks. It is no record: it is not synced, and nothing is decided from it.
//! A daemon that died did not write "stopped"; [`read_live`] asks the lock and says so in its place.
//!
//! Names in it are for people (control characters are escaped by whoever fills it in), not for opening files.

use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use crate::domain::status::{
    BrokenPreset, Failure, Folders, Ignored, MAX_BROKEN, MAX_FAILURES, MAX_LISTED, PauseKind, Paused, Queue, Spend,
    State, Status, Waiting, Work,
};

use super::lock::{self, Probe, STATE_LOCK};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "status.json";
/// The file under its hidden name while it is written. One name for good, so that crashes leave one at most.
const TEMPORARY: &str = ".status.json.tmp";
/// Group-readable, whatever the umask says: `status` is for the people who drop pictures.
const MODE: u32 = 0o640;

/// Why the status could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The file could not be reached.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: not a status file: {source}; nothing depends on it, and the next reimagined run writes it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// Puts `status` into `state_dir` in place of the last one. Lists that are too long are cut.
///
/// For the holder of the state directory's lock alone: two writers would share the hidden name.
pub fn write(state_dir: &Path, status: &Status) -> Result<(), StatusError> {
    let temporary = state_dir.join(TEMPORARY);
    let path = state_dir.join(FILE_NAME);
    let mut status = status.clone();
    status.work.truncate(MAX_LISTED);
    status.waiting_for.truncate(MAX_LISTED);
    status.queue.truncate(MAX_LISTED);
    status.ignored_files.truncate(MAX_LISTED);
    status.last_failures.truncate(MAX_FAILURES);
    status.broken_presets.truncate(MAX_BROKEN);
    status.damaged_ledgers.truncate(MAX_LISTED);
    let fail = |path: &Path, source| StatusError::Io { path: path.to_path_buf(), source };
    let whole = text(&status, &path)?;
    let Err(full) = write_new(&temporary, &whole) else {
        return std::fs::rename(&temporary, &path).map_err(|e| fail(&path, e));
    };
    let _ = std::fs::remove_file(&temporary);
    if !matches!(full.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Err(fail(&temporary, full));
    }
    // That the disk is full is just what is to be told. Without its lists it is small.
    let short = Status {
        work: Vec::new(),
        waiting_for: Vec::new(),
        queue_left_out: status.queue_left_out + status.queue.len() as u64,
        queue: Vec::new(),
        ignored_files: Vec::new(),
        last_failures: Vec::new(),
        broken_presets: Vec::new(),
        ..status
    };
    let short = text(&short, &path)?;
    write_over(&path, &whole).or_else(|_| write_over(&path, &short)).map_err(|_| fail(&temporary, full))
}

fn text(status: &Status, path: &Path) -> Result<Vec<u8>, StatusError> {
    let damaged = |source| StatusError::Damaged { path: path.to_path_buf(), source };
    let mut text = serde_json::to_vec_pretty(status).map_err(damaged)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes into the blocks that the file has already, in one write.
fn write_over(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    let there = file.metadata()?;
    if there.blocks().saturating_mul(512) < text.len() as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    // Blank to the old end, so that no moment shows the new beginning with the old rest.
    let mut padded = text.to_vec();
    padded.resize(text.len().max(usize::try_from(there.len()).unwrap_or(0)), b'\n');
    file.write_all_at(&padded, 0)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.write_all(text)
}

/// The status as it was last written into `state_dir`; `None` if there is none (an empty file, as a power cut
/// may leave it, counts as none).
pub fn read(state_dir: &Path) -> Result<Option<Status>, StatusError> {
    let path = state_dir.join(FILE_NAME);
    match std::fs::read(&path) {
        Ok(text) if text.iter().all(u8::is_ascii_whitespace) => Ok(None),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| StatusError::Damaged { path, source }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StatusError::Io { path, source }),
    }
}

/// [`read`], but a daemon that is not there any more is told as stopped. Where none ever ran, the default:
/// stopped, with nothing in it.
pub fn read_live(state_dir: &Path) -> Result<Status, StatusError> {
    let Some(status) = read(state_dir)? else { return Ok(Status::default()) };
    let lock = state_dir.join(STATE_LOCK);
    let alive = match lock::probe(&lock) {
        Ok(Probe::Held(_)) => true,
        // It stays when it is let go: where there is none, somebody removed it.
        Ok(Probe::Free) if lock.exists() => false,
        // The lock can't be seen from here; its holder perhaps can.
        Ok(Probe::Free) | Err(_) => status.pid.is_some_and(is_alive),
    };
    Ok(if alive { status } else { status.stopped() })
}

fn is_alive(pid: u32) -> bool {
    use rustix::io::Errno;
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    matches!(rustix::process::test_kill_process(pid), Ok(()) | Err(Errno::PERM))
}

/// Money as a person reads it: `$9.20`, or `at least $9.20, 3 without a price`.
pub fn money(spend: &Spend) -> String {
    if spend.unpriced == 0 {
        dollars(spend.cost)
    } else {
        format!("at least {}, {} without a price", dollars(spend.cost), spend.unpriced)
    }
}

/// US dollars: `$9.20`. What is less than half a cent, and not nothing, has four places: `$0.0031`.
pub fn dollars(amount: f64) -> String {
    if amount.is_finite() && amount.abs() >= 0.00005 && amount.abs() < 0.005 {
        format!("${amount:.4}")
    } else {
        format!("${amount:.2}")
    }
}

/// The one line for `systemctl status` and the like, with times of this machine's zone:
/// `4 in work, 12 waiting, 230 today, $9.20`, or `paused: out of credits since 14:02`.
pub fn line(status: &Status) -> String {
    line_in(status, &TimeZone::system())
}

/// [`line()`] with the times of `zone`.
pub fn line_in(status: &Status, zone: &TimeZone) -> String {
    let clock = |at: Timestamp| moment(at, status.updated, zone);
    match (status.state, &status.paused) {
        (State::Stopped, _) => "stopped".to_owned(),
        (_, Some(paused)) => {
            let until = paused.until.map(|at| format!(", until {}", clock(at))).unwrap_or_default();
            let (why, more) = paused.parts();
            let more = more.map(|more| format!(" ({more})")).unwrap_or_default();
            format!("paused: {why} since {}{until}{more}", clock(paused.since))
        }
        (State::Paused, None) => "paused".to_owned(),
        (State::Running, None) => {
            let limit = status.limit_until.map(|at| format!(", limit reached until {}", clock(at)));
            format!(
                "{} in work, {} waiting, {} today, {}{}",
                status.in_work,
                status.waiting_in_all(),
                status.last_24h.images,
                money(&status.last_24h),
                limit.unwrap_or_default()
            )
        }
    }
}

/// A moment as a person says it: `14:02` on the day of `today`, else `2026-11-22 14:02`.
pub fn moment(at: Timestamp, today: Option<Timestamp>, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    let same_day = today.is_none_or(|now| now.to_zoned(zone.clone()).date() == at.date());
    at.strftime(if same_day { "%H:%M" } else { "%Y-%m-%d %H:%M" }).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::lock::Lock;
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn busy() -> Status {
        Status {
            state: State::Running,
            in_work: 4,
            work: vec![Work {
                drop: "cafe/a".into(),
                state: "sending".into(),
                since: at("2026-11-23T14:02:00Z"),
                claimed: Some(at("2026-11-23T14:01:00Z")),
            }],
            waiting: [("prompt".to_owned(), 5), ("limit".to_owned(), 7)].into(),
            last_24h: Spend { images: 230, cost: 9.2, unpriced: 0 },
            credits: Some(1.5),
            pid: Some(std::process::id()),
            updated: Some(at("2026-11-23T15:00:00Z")),
            ..Status::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again_by_the_group_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join(TEMPORARY), "left from a crash").unwrap();
        write(folder.path(), &Status::default()).unwrap();
        write(folder.path(), &busy()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(busy()));
        let path = folder.path().join(FILE_NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_old_file_is_written_over_in_its_own_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        write(folder.path(), &busy()).unwrap();
        let paused =
            Paused { kind: PauseKind::Other, reason: "full".into(), since: at("2026-11-23T14:02:00Z"), until: None };
        let status = Status { state: State::Paused, paused: Some(paused), work: Vec::new(), ..busy() };
        write_over(&path, &text(&status, &path).unwrap()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(status));
        write_over(&path, &text(&Status::default(), &path).unwrap()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(Status::default()), "a shorter one leaves no rest");
        let blocks = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(write_over(&path, &vec![b' '; usize::try_from(blocks).unwrap() + 1]).is_err());
        assert_eq!(read(folder.path()).unwrap(), Some(Status::default()));
    }

    #[test]
    fn lists_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let one = Waiting { drop: "a".into(), reason: "prompt".into() };
        let queue = Queue { folder: "a".into(), waiting: 1, in_work: 0 };
        let ignored = Ignored { file: ".a".into(), why: "a dotfile".into() };
        let many = Status {
            waiting_for: vec![one; 1000],
            queue: vec![queue; 1000],
            ignored_files: vec![ignored; 1000],
            ..busy()
        };
        write(folder.path(), &many).unwrap();
        let read = read(folder.path()).unwrap().unwrap();
        assert_eq!([read.waiting_for.len(), read.queue.len(), read.ignored_files.len()], [MAX_LISTED; 3]);
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let json = serde_json::to_value(busy()).unwrap();
        assert_eq!(json["state"], "running");
        assert_eq!(json["paused"], serde_json::Value::Null);
        assert_eq!(json["in_work"], 4);
        assert_eq!(json["waiting"]["limit"], 7);
        assert_eq!(json["failed"], 0);
        assert_eq!(json["last_24h"], serde_json::json!({"images": 230, "cost": 9.2, "unpriced": 0}));
        for span in ["last_hour", "last_30d"] {
            assert_eq!(json[span], serde_json::json!({"images": 0, "cost": 0.0, "unpriced": 0}));
        }
        assert_eq!((&json["queue"], &json["queue_left_out"]), (&serde_json::json!([]), &0.into()));
        assert_eq!(json["ignored_files"], serde_json::json!([]));
        assert_eq!(json["work"][0]["claimed"], "2026-11-23T14:01:00Z");
        assert_eq!(json["credits"], 1.5);
        assert_eq!(json["updated"], "2026-11-23T15:00:00Z");
        let never = serde_json::to_value(Status::default()).unwrap();
        assert_eq!((&never["state"], &never["credits"]), (&"stopped".into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_file_of_another_version_is_read_as_far_as_it_goes() {
        let status: Status = serde_json::from_str(r#"{"state": "running", "in_work": 2, "new": [1]}"#).unwrap();
        assert_eq!(status, Status { state: State::Running, in_work: 2, ..Status::default() });
        let old = r#"{"drop": "a", "state": "due", "since": "2026-11-23T14:02:00Z"}"#;
        assert_eq!(serde_json::from_str::<Work>(old).unwrap().claimed, None);
    }

    #[test]
    fn an_empty_file_is_none_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        std::fs::write(&path, "{\"state\": \"runn").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains(FILE_NAME));
    }

    #[test]
    fn a_daemon_that_died_is_told_as_stopped() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_live(folder.path()).unwrap(), Status::default());
        let lock = Lock::take(&folder.path().join(STATE_LOCK)).unwrap();
        write(folder.path(), &busy()).unwrap();
        assert_eq!(read_live(folder.path()).unwrap(), busy());
        drop(lock);
        let dead = read_live(folder.path()).unwrap();
        assert_eq!((dead.state, dead.pid, dead.in_work), (State::Stopped, None, 4));
    }

    #[test]
    fn where_the_lock_cannot_be_seen_the_process_number_decides() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(STATE_LOCK)).unwrap();
        write(folder.path(), &busy()).unwrap();
        assert_eq!(read_live(folder.path()).unwrap().state, State::Running);
        write(folder.path(), &Status { pid: Some(i32::MAX as u32), ..busy() }).unwrap();
        assert_eq!(read_live(folder.path()).unwrap().state, State::Stopped);
    }

    #[test]
    fn the_line_says_what_matters() {
        let paused = |since: &str, until: Option<&str>| Status {
            state: State::Paused,
            paused: Some(Paused {
                kind: PauseKind::Other,
                reason: "out of credits".into(),
                since: at(since),
                until: until.map(at),
            }),
            ..busy()
        };
        let unpriced = Status { last_24h: Spend { images: 233, cost: 9.2, unpriced: 3 }, ..busy() };
        for (status, line) in [
            (busy(), "4 in work, 12 waiting, 230 today, $9.20"),
            (unpriced, "4 in work, 12 waiting, 233 today, at least $9.20, 3 without a price"),
            (
                Status { limit_until: Some(at("2026-11-23T15:30:00Z")), ..busy() },
                "4 in work, 12 waiting, 230 today, $9.20, limit reached until 15:30",
            ),
            (paused("2026-11-23T14:02:59Z", None), "paused: out of credits since 14:02"),
            (
                paused("2026-11-22T14:02:00Z", Some("2026-11-23T15:10:00Z")),
                "paused: out of credits since 2026-11-22 14:02, until 15:10",
            ),
            (
                {
                    let mut told = paused("2026-11-23T14:02:59Z", None);
                    told.paused.as_mut().unwrap().reason.push_str(": HTTP 402: nope");
                    told
                },
                "paused: out of credits since 14:02 (HTTP 402: nope)",
            ),
            (busy().stopped(), "stopped"),
        ] {
            assert_eq!(line_in(&status, &TimeZone::UTC), line);
        }
    }

    #[test]
    fn small_sums_are_not_shown_as_nothing() {
        for (amount, text) in
            [(0.0, "$0.00"), (0.0031, "$0.0031"), (0.04, "$0.04"), (9.2, "$9.20"), (1234.5, "$1234.50")]
        {
            assert_eq!(dollars(amount), text);
        }
    }
}
