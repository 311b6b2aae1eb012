//! Durable publish: bytes are whole under their name and synced, or not there at all.
//!
//! One way, which nobody can half-call: write under a hidden name beside the target, sync, rename without
//! replacing, sync the folder. A hidden file left by a crash is recognised by [`is_temporary`] and taken
//! away by [`super::sweep`]. Results follow the umask (and a folder's default ACL), not 0600.
//!
//! The close is not checked apart: all that it could report, the sync before it has reported.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Advice, FlockOperation, Mode, Timespec, Timestamps};

use super::error::OutboxError;
use super::folder::{Folder, rename};
use crate::domain::ids::Fingerprint;

const PREFIX: &[u8] = b".reimagined-";
const SUFFIX: &[u8] = b".part";
const RANDOM_DIGITS: usize = 16;

/// Writes a file that must not be there. [`OutboxError::Taken`] if it is, and nothing has happened then.
pub fn write_into(folder: &Folder, name: &OsStr, bytes: &[u8]) -> Result<Fingerprint, OutboxError> {
    write_unsynced(folder, name, bytes)?;
    folder.sync()?;
    Ok(Fingerprint::of(bytes))
}

/// [`write_into`] without a sync of the folder: the bytes are durable, their name is not yet.
pub(super) fn write_unsynced(folder: &Folder, name: &OsStr, bytes: &[u8]) -> Result<(), OutboxError> {
    let mut draft = Draft::new(folder, random_name()?)?;
    draft.file.write_all(bytes).map_err(|e| OutboxError::new("write", folder.at(name), e))?;
    draft.sync()?;
    draft.rename(folder, name)
}

/// Whether a name is that of a hidden file which a crash may have left and which is nobody's only copy.
pub fn is_temporary(name: &OsStr) -> bool {
    let middle = name.as_bytes().strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    middle.is_some_and(|hex| hex.len() == RANDOM_DIGITS && hex.iter().all(u8::is_ascii_hexdigit))
}

/// A fresh name that [`is_temporary`].
pub(super) fn random_name() -> Result<OsString, OutboxError> {
    let random = getrandom::u64().map_err(|e| OutboxError::Io {
        path: "/dev/urandom".into(),
        doing: "draw a random name",
        source: std::io::Error::other(e.to_string()),
    })?;
    Ok(format!(".reimagined-{random:016x}.part").into())
}

/// The mode of results, where no default ACL says another.
pub(super) fn result_mode() -> Mode {
    Mode::from_raw_mode(0o666 & !umask())
}

/// The process's umask, read once and without changing it: nothing here ever changes it.
pub(super) fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(read_umask)
}

fn read_umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Kernels before 4.7 and a closed /proc don't say; then what nearly everybody has.
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}

/// A file being written under a hidden name; gone again unless published or kept.
pub(super) struct Draft<'a> {
    folder: &'a Folder,
    name: OsString,
    pub(super) file: File,
    kept: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(folder: &'a Folder, name: OsString) -> Result<Self, OutboxError> {
        let file = folder.create(&name)?;
        // So that a sweep in another process knows that somebody is at it. A hint: not all filesystems lock.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { folder, name, file, kept: false })
    }

    /// Copies all of `source`, and answers with the bytes' fingerprint.
    pub(super) fn copy_from(&mut self, source: &mut File, source_path: &Path) -> Result<Fingerprint, OutboxError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            let read = source.read(&mut buffer).map_err(|e| OutboxError::new("read", source_path, e))?;
            if read == 0 {
                return Ok(Fingerprint(*hasher.finalize().as_bytes()));
            }
            hasher.update(&buffer[..read]);
            self.file
                .write_all(&buffer[..read])
                .map_err(|e| OutboxError::new("write", self.folder.at(&self.name), e))?;
        }
    }

    /// Gives the copy its source's time and permissions, as far as the filesystem keeps them.
    pub(super) fn look_like(&self, source: &File) {
        if let Ok(stat) = rustix::fs::fstat(source) {
            let _ = rustix::fs::fchmod(&self.file, Mode::from_raw_mode(stat.st_mode & 0o777));
            #[allow(clippy::cast_possible_wrap, reason = "the field's type differs between machines; it is below 10^9")]
            let time = |tv_sec, nsec| Timespec { tv_sec, tv_nsec: nsec as _ };
            let times = Timestamps {
                last_access: time(stat.st_atime, stat.st_atime_nsec),
                last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
            };
            let _ = rustix::fs::futimens(&self.file, &times);
        }
    }

    pub(super) fn sync(&self) -> Result<(), OutboxError> {
        self.file.sync_all().map_err(|e| OutboxError::new("sync", self.folder.at(&self.name), e))
    }

    /// Reads back what was written, from the disk where that can be had.
    pub(super) fn read_back(&mut self) -> Result<Fingerprint, OutboxError> {
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        fingerprint(&mut self.file, &self.folder.at(&self.name))
    }

    /// Gives it its name and syncs the folders.
    pub(super) fn publish(self, to: &Folder, name: &OsStr) -> Result<(), OutboxError> {
        let from = self.folder;
        self.rename(to, name)?;
        to.sync()?;
        if !std::ptr::eq(from, to) {
            from.sync()?;
        }
        Ok(())
    }

    fn rename(mut self, to: &Folder, name: &OsStr) -> Result<(), OutboxError> {
        rename(self.folder, &self.name, to, name)?;
        self.kept = true;
        Ok(())
    }

    /// Leaves it there under its hidden name, synced.
    pub(super) fn keep(mut self) -> Result<(), OutboxError> {
        self.sync()?;
        self.folder.sync()?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // What can't be removed now, the next start's sweep removes.
            let _ = self.folder.remove(&self.name);
        }
    }
}

/// The fingerprint of a whole file, read from its beginning. `path` is for messages.
pub fn fingerprint(file: &mut File, path: &Path) -> Result<Fingerprint, OutboxError> {
    let failed = |e| OutboxError::new("read", path, e);
    file.rewind().map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    std::io::copy(file, &mut hasher).map_err(failed)?;
    Ok(Fingerprint(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::domain::ids::RelPath;

    fn names(dir: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_stands_whole_under_its_name_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let rel = RelPath::new("a/b").unwrap();
        let print = write_into(&Folder::made(dir.path(), &rel).unwrap(), OsStr::new("x.json"), b"{}").unwrap();
        assert_eq!(print, Fingerprint::of(b"{}"));
        assert_eq!(names(&dir.path().join("a/b")), ["x.json"]);
        let mode = fs::metadata(dir.path().join("a/b/x.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666 & !umask());
    }

    #[test]
    fn a_taken_name_is_left_alone_and_no_draft_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "theirs").unwrap();
        let error = write_into(&Folder::root(dir.path()).unwrap(), OsStr::new("x"), b"ours").unwrap_err();
        assert!(error.is_taken());
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"theirs");
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn only_our_own_pattern_is_temporary() {
        assert!(is_temporary(&random_name().unwrap()));
        for name in [".reimagined-.part", ".reimagined-0123.part", ".reimagined-zzzzzzzzzzzzzzzz.part", "a.part"] {
            assert!(!is_temporary(OsStr::new(name)), "{name}");
        }
    }
}
