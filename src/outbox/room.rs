//! Can what is about to be bought be kept? Room and writability, and which folders a rename reaches.
//!
//! [`look`] is cheap, since it runs before each send: it asks, and writes nothing. [`try_write`] really
//! tries; it is for probing after a pause and for `check`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;

use super::durable::{Draft, random_name};
use super::error::OutboxError;
use super::folder::{Folder, INNER_WORKING, rename};
use crate::domain::ids::RelPath;

/// Files that must still be possible: a few for each result on its way, and folders for them.
const INODES: u64 = 32;

/// What a look at a folder found.
#[derive(Debug)]
pub enum Room {
    /// There is room, and we may write.
    Ok,
    /// Less room than needed.
    Full {
        /// Bytes that are free for us.
        free: u64,
    },
    /// There may be bytes, but hardly any file can be made.
    NoInodes {
        /// Files that can still be made.
        free: u64,
    },
    /// Mounted read-only.
    ReadOnly,
    /// Not there, or not a folder.
    Missing,
    /// We may not write there.
    Denied,
    /// Anything else: something stands in the way, or the disk answers with errors.
    Io(OutboxError),
}

impl Room {
    /// Whether there is room.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok)
    }

    /// What keeps from writing, in words to be put behind the place's name; `None` if nothing does.
    pub fn trouble(&self, need_bytes: u64) -> Option<String> {
        Some(match self {
            Self::Ok => return None,
            // The same words as long as it is the same trouble: what is free changes all the time.
            Self::Full { .. } => {
                format!("is full: less than {} is free", bytesize::ByteSize(need_bytes).display().si())
            }
            Self::NoInodes { .. } => "is full: it has hardly any inodes left".into(),
            Self::ReadOnly => "is read-only".into(),
            Self::Missing => "is not there".into(),
            Self::Denied => "is not writable for this user".into(),
            Self::Io(e) => format!("cannot be used: {e}"),
        })
    }

    /// [`Self::trouble`] that also keeps from removing what lies there: one that is full does not.
    pub fn closed(&self) -> Option<String> {
        self.trouble(0).filter(|_| !matches!(self, Self::Full { .. } | Self::NoInodes { .. }))
    }

    fn from_error(error: OutboxError) -> Self {
        match error {
            OutboxError::ReadOnly { .. } => Self::ReadOnly,
            OutboxError::RootMissing { .. } | OutboxError::Gone { .. } => Self::Missing,
            OutboxError::Denied { .. } => Self::Denied,
            other => Self::Io(other),
        }
    }
}

/// Looks at a folder: is it there, may we write, are `need_bytes` free for us?
pub fn look(path: &Path, need_bytes: u64) -> Room {
    try_look(path, need_bytes).unwrap_or_else(Room::from_error)
}

/// [`look`] at `root`, and at the deepest folder of `rel` below it that is there: it may be another
/// filesystem, or closed to us, or no folder.
pub fn look_below(root: &Path, rel: &RelPath, need_bytes: u64) -> Room {
    let at_root = look(root, need_bytes);
    if rel.is_root() || !at_root.is_ok() {
        return at_root;
    }
    let deepest = || -> Result<Option<Folder>, OutboxError> {
        for folder in rel.chain().iter().rev() {
            if let Some(found) = Folder::existing(root, folder)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    };
    match deepest() {
        Ok(Some(folder)) => look(folder.path(), need_bytes),
        Ok(None) => Room::Missing,
        Err(e) => Room::from_error(e),
    }
}

fn try_look(path: &Path, need_bytes: u64) -> Result<Room, OutboxError> {
    let folder = Folder::root(path)?;
    let stat = rustix::fs::fstatvfs(&folder).map_err(|e| OutboxError::new("look at the filesystem", path, e))?;
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(Room::ReadOnly);
    }
    match rustix::fs::accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        // Asked with other ids than our own on an old kernel: only trying can tell.
        Ok(()) | Err(Errno::NOSYS) => {}
        Err(e) => return Err(OutboxError::new("write into the folder", path, e)),
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Filesystems without a fixed number of inodes say that they have none at all.
    if stat.f_files > 0 && stat.f_favail < INODES {
        return Ok(Room::NoInodes { free: stat.f_favail });
    }
    Ok(if free < need_bytes { Room::Full { free } } else { Room::Ok })
}

/// Really creates, writes, syncs and removes a hidden file in the folder.
pub fn try_write(path: &Path) -> Result<(), OutboxError> {
    let folder = Folder::root(path)?;
    let mut draft = Draft::new(&folder, random_name()?)?;
    draft.file.write_all(&[0; 4096]).map_err(|e| OutboxError::new("write", path, e))?;
    draft.sync()
}

/// Whether files can be renamed from the inbox into `candidate`, found by trying: a hidden file goes from
/// `.working/` inside the inbox (the only place there that is ours; removed again if we made it) into it.
///
/// A candidate that is not there is made, with the inbox's mode, and removed again if the answer is no.
pub fn reachable_by_rename(inbox: &Path, candidate: &Path) -> Result<bool, OutboxError> {
    let top = Folder::root(inbox)?;
    let inside = OsStr::new(INNER_WORKING);
    let there = top.look(inside)?;
    let had_inside = there.is_some();
    if there.is_some_and(|entry| entry.kind != FileType::Directory) {
        // Somebody who may write into the inbox put a file or a link there. That must neither stop the daemon
        // nor choose another working folder for it, so what can't be tried is concluded.
        return same_mount(&top, &made_like(candidate, inbox)?);
    }
    let had_candidate = candidate.exists();
    let found = probe(inbox, candidate);
    let is_inside = candidate.canonicalize().ok() == inbox.join(inside).canonicalize().ok();
    let good = matches!(found, Ok(true));
    if !had_candidate && !good {
        let _ = std::fs::remove_dir(candidate);
    }
    // Not if the candidate is that very folder, and good.
    let used = is_inside && good;
    if !had_inside && !used {
        top.remove_empty(inside);
    }
    found
}

/// Whether two folders lie on one filesystem in one mount: where a rename nearly always reaches.
fn same_mount(a: &Folder, b: &Folder) -> Result<bool, OutboxError> {
    let mount = |folder: &Folder| {
        rustix::fs::statx(folder, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .map(|stat| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_mnt_id))
            .map_err(|e| OutboxError::new("look at the folder", folder.path(), e))
    };
    Ok(mount(a)? == mount(b)?)
}

fn probe(inbox: &Path, candidate: &Path) -> Result<bool, OutboxError> {
    let inside = RelPath::root().join(OsStr::new(INNER_WORKING));
    let from = Folder::made(inbox, &inside)?;
    let to = made_like(candidate, inbox)?;
    let name = random_name()?;
    let draft = Draft::new(&from, name.clone())?;
    let other = random_name()?;
    match rename(&from, &name, &to, &other) {
        Ok(()) => {
            to.remove(&other)?;
            Ok(true)
        }
        Err(e) if e.is_other_filesystem() => Ok(false),
        Err(e) => {
            drop(draft);
            Err(e)
        }
    }
}

/// Opens the candidate, or makes it in its parent, which must be there.
fn made_like(candidate: &Path, inbox: &Path) -> Result<Folder, OutboxError> {
    if let Err(e) = std::fs::create_dir(candidate) {
        if e.kind() != std::io::ErrorKind::AlreadyExists {
            return Err(OutboxError::new("make the folder", candidate, e));
        }
    } else if let Ok(like) = std::fs::metadata(inbox) {
        // As far as the filesystem knows modes.
        let _ = std::fs::set_permissions(candidate, like.permissions());
    }
    Folder::root(candidate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn a_look_tells_room_from_none_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(look(dir.path(), 1).is_ok());
        assert!(matches!(look(dir.path(), u64::MAX), Room::Full { free } if free > 0));
        assert!(matches!(look(&dir.path().join("no"), 1), Room::Missing));
        try_write(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(matches!(try_write(&dir.path().join("no")), Err(OutboxError::RootMissing { .. })));
    }

    #[test]
    fn a_look_below_sees_what_stands_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        for (rel, good) in [("a", true), ("a/new/deeper", true), ("file", false), ("link/x", false)] {
            let found = look_below(dir.path(), &RelPath::new(rel).unwrap(), 1);
            assert_eq!(found.is_ok(), good, "{rel}: {found:?}");
        }
    }

    #[test]
    fn reach_is_found_by_trying_and_leaves_nothing_in_the_inbox() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = dir.path().join("inbox");
        fs::create_dir(&inbox).unwrap();
        assert!(reachable_by_rename(&inbox, &dir.path().join("working")).unwrap());
        assert_eq!(fs::read_dir(&inbox).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("working")).unwrap().count(), 0);
        assert!(reachable_by_rename(&inbox, &inbox.join(".working")).unwrap());
        assert!(inbox.join(".working").is_dir());
        assert!(reachable_by_rename(&inbox, &dir.path().join("no/working")).is_err());
        let far = tempfile::tempdir_in("/dev/shm").unwrap();
        if fs::metadata(far.path()).unwrap().dev() == fs::metadata(dir.path()).unwrap().dev() {
            println!("/dev/shm is the same filesystem; nothing to try");
            return;
        }
        assert!(!reachable_by_rename(&inbox, &far.path().join("working")).unwrap());
        assert_eq!(fs::read_dir(far.path()).unwrap().count(), 0);
        assert!(inbox.join(".working").is_dir(), "it was there before");
    }
}
