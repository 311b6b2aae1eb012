//! Looking: one entry, or a folder and all below it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};

use super::InboxError;
use crate::domain::arrivals::Entry;
use crate::domain::ids::{Facts, RelPath};
use crate::domain::kinds::{IgnoreFn, NameKind, Special, Why, classify};

/// Entries reported at once, at most.
pub const BATCH: usize = 512;

/// What a survey tells, in this order for each folder: `Begin`, any number of `Batch`, then `End`, `Failed` or
/// `Gone`. Folders come before those in them.
#[derive(Debug)]
pub enum Report {
    /// A folder is about to be listed.
    Begin {
        /// Which.
        folder: RelPath,
        /// The moment before.
        started: Instant,
    },
    /// Some of its entries, at most [`BATCH`].
    Batch {
        /// Which.
        folder: RelPath,
        /// What was found.
        entries: Vec<(OsString, Entry)>,
    },
    /// All of it was listed.
    End {
        /// Which.
        folder: RelPath,
    },
    /// It cannot be listed (to the end). What was known of it stays.
    Failed {
        /// Which.
        folder: RelPath,
        /// Why.
        error: InboxError,
    },
    /// It is not there (any more), or no folder.
    Gone {
        /// Which.
        folder: RelPath,
    },
}

/// Lists `from` and, if `deep`, all that lies below it, and tells `sink` in pieces. Folders that are ignored,
/// symbolic links and what is behind them are not entered. `before` is called for each folder before it is
/// listed (to watch it). Blocks: run it where that is allowed. Ends early when `sink` breaks.
pub fn survey(
    root: &Path,
    from: &RelPath,
    deep: bool,
    ignore: &IgnoreFn,
    before: &mut dyn FnMut(&RelPath),
    sink: &mut dyn FnMut(Report) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut todo = VecDeque::from([from.clone()]);
    while let Some(folder) = todo.pop_front() {
        before(&folder);
        sink(Report::Begin { folder: folder.clone(), started: Instant::now() })?;
        let mut batch = Vec::new();
        let mut listed = |name: OsString, entry: Entry| {
            if deep && entry.kind == NameKind::Folder {
                todo.push_back(folder.join(&name));
            }
            batch.push((name, entry));
            if batch.len() < BATCH {
                return ControlFlow::Continue(());
            }
            sink(Report::Batch { folder: folder.clone(), entries: std::mem::take(&mut batch) })
        };
        let done = match list(root, &folder, ignore, &mut listed) {
            Ok(ControlFlow::Break(())) => return ControlFlow::Break(()),
            Ok(ControlFlow::Continue(())) => Report::End { folder: folder.clone() },
            // Whether the inbox itself is away, the engine looks: nothing in it is gone for that.
            Err(error) if error.is_gone() && !folder.is_root() => Report::Gone { folder: folder.clone() },
            Err(error) => Report::Failed { folder: folder.clone(), error },
        };
        if !batch.is_empty() {
            sink(Report::Batch { folder: folder.clone(), entries: batch })?;
        }
        sink(done)?;
    }
    ControlFlow::Continue(())
}

/// Looks at `name` in `folder`; `None` if nothing is there.
pub fn look(root: &Path, folder: &RelPath, name: &OsStr, ignore: &IgnoreFn) -> Result<Option<Entry>, InboxError> {
    let path = || folder.join(name).under(root);
    let dir = match open_folder(root, folder) {
        Ok(dir) => dir,
        Err(e) if absent(&e) => return Ok(None),
        Err(e) => return Err(InboxError::look(&folder.under(root), e)),
    };
    match statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(entry(folder, name, &stat, ignore, since_1970()))),
        Err(e) if absent(&e.into()) => Ok(None),
        Err(e) => Err(InboxError::look(&path(), e)),
    }
}

fn list(
    root: &Path,
    folder: &RelPath,
    ignore: &IgnoreFn,
    listed: &mut dyn FnMut(OsString, Entry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, InboxError> {
    let failed = |e: io::Error| InboxError::look(&folder.under(root), e);
    let dir = open_folder(root, folder).map_err(failed)?;
    for found in Dir::read_from(&dir).map_err(|e| failed(e.into()))? {
        let found = found.map_err(|e| failed(e.into()))?;
        let name = OsStr::from_bytes(found.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let stat = match statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(e) if absent(&e.into()) => continue,
            Err(e) => return Err(InboxError::look(&folder.join(name).under(root), e)),
        };
        if listed(name.to_owned(), entry(folder, name, &stat, ignore, since_1970())).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Opens a folder below `root` without following a link on the way (`root` itself may be one). One component
/// at a time, so that no path is too long.
fn open_folder(root: &Path, folder: &RelPath) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(root, flags, Mode::empty())?;
    for part in folder.as_path().components() {
        dir = step(dir.as_fd(), part.as_os_str(), flags | OFlags::NOFOLLOW)?;
    }
    Ok(dir)
}

fn step(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Not there, or a link or file where a folder was (`ELOOP`: a link stands in the way).
fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn entry(folder: &RelPath, name: &OsStr, stat: &Stat, ignore: &IgnoreFn, now: Duration) -> Entry {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let special = match kind {
        FileType::RegularFile | FileType::Directory => None,
        FileType::Symlink => Some(Special::Symlink),
        FileType::Fifo => Some(Special::Fifo),
        FileType::Socket => Some(Special::Socket),
        FileType::BlockDevice | FileType::CharacterDevice => Some(Special::Device),
        FileType::Unknown => Some(Special::Unknown),
    };
    let by_name = classify(folder, name, kind == FileType::Directory, ignore);
    let kind = match (special, by_name) {
        (Some(_), NameKind::Ignored(why)) => NameKind::Ignored(why),
        (Some(special), _) => NameKind::Ignored(Why::Special(special)),
        (None, by_name) => by_name,
    };
    Entry { kind, facts: facts(stat), age: age(stat, now) }
}

/// By the whole of its time, which its facts may not hold.
#[allow(clippy::cast_lossless, clippy::unnecessary_cast, reason = "the fields' types differ between machines")]
fn age(stat: &Stat, now: Duration) -> Duration {
    let changed_ns = stat.st_ctime as i128 * 1_000_000_000 + stat.st_ctime_nsec as i128;
    let age_ns = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX).saturating_sub(changed_ns);
    Duration::from_nanos(u64::try_from(age_ns.max(0)).unwrap_or(u64::MAX))
}

#[allow(
    clippy::cast_lossless,
    clippy::cast_possible_wrap,
    clippy::unnecessary_cast,
    reason = "the fields' types differ between machines"
)]
fn facts(stat: &Stat) -> Facts {
    Facts {
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime_ns: Facts::time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: Facts::time(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
