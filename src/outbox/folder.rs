//! A folder below one of the roots, held open, so that what is done in it can't be led elsewhere.
//!
//! Promises: a root may be reached through symlinks (a person wrote its path), but below it none is
//! followed, whatever is swapped while we work; folders made here copy their root's mode and ACL, and are
//! synced into their parents. Never removes a folder but by [`Folder::remove_empty`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::error::{Obstacle, OutboxError};
use crate::domain::ids::{Facts, RelPath};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

/// What `lstat` says about an entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What tells its states apart.
    pub facts: Facts,
    /// What it is.
    pub kind: FileType,
}

impl Entry {
    fn new(stat: &Stat) -> Self {
        Self { facts: facts(stat), kind: FileType::from_raw_mode(stat.st_mode) }
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }
}

/// Whether both are one file.
pub fn same_inode(a: &Facts, b: &Facts) -> bool {
    (a.dev, a.ino) == (b.dev, b.ino)
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

/// The working folder inside the inbox, where none beside it can be reached by a rename.
pub const INNER_WORKING: &str = ".working";

impl Folder {
    /// Opens a root. It must be there: [`OutboxError::RootMissing`] else.
    ///
    /// [`INNER_WORKING`] is the one root that lies where others write, so it alone may be no symlink.
    pub fn root(root: &Path) -> Result<Self, OutboxError> {
        let inner = root.file_name() == Some(OsStr::new(INNER_WORKING));
        let flags = if inner { FOLDER | OFlags::NOFOLLOW } else { FOLDER };
        match rustix::fs::openat(CWD, root, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd: Arc::new(fd), path: root.to_path_buf() }),
            Err(Errno::NOTDIR | Errno::LOOP) if inner => {
                let link = root.is_symlink();
                let what = if link { Obstacle::Symlink } else { Obstacle::NotAFolder };
                Err(OutboxError::Obstructed { path: root.to_path_buf(), what })
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Err(OutboxError::RootMissing { path: root.to_path_buf() }),
            Err(e) => Err(OutboxError::new("open the folder", root, e)),
        }
    }

    /// Opens the folder `rel` below `root`; `None` if it is not there.
    pub fn existing(root: &Path, rel: &RelPath) -> Result<Option<Self>, OutboxError> {
        let mut folder = Self::root(root)?;
        for name in rel.as_path() {
            match folder.step(name)? {
                Some(next) => folder = next,
                None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    /// Opens the folder `rel` below `root` and makes what is missing of it, with the root's mode and ACL.
    /// The root itself is never made.
    pub fn made(root: &Path, rel: &RelPath) -> Result<Self, OutboxError> {
        let top = Self::root(root)?;
        let mut folder = top.again();
        for name in rel.as_path() {
            folder = match folder.step(name)? {
                Some(next) => next,
                None => folder.make(name, &top)?,
            };
        }
        Ok(folder)
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in it, for messages.
    pub fn at(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// What `stat` says of the folder itself.
    pub fn stat(&self) -> Result<Stat, OutboxError> {
        rustix::fs::fstat(&self.fd).map_err(|e| OutboxError::new("look at the folder", &self.path, e))
    }

    /// Whether the folder was removed while it was open.
    pub fn is_removed(&self) -> Result<bool, OutboxError> {
        Ok(self.stat()?.st_nlink == 0)
    }

    /// What `lstat` says of a name in it; `None` if there is none.
    pub fn look(&self, name: &OsStr) -> Result<Option<Entry>, OutboxError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Entry::new(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(OutboxError::new("look at", self.at(name), e)),
        }
    }

    /// Opens a regular file for reading; never follows a symlink, never waits on a FIFO.
    pub fn open(&self, name: &OsStr) -> Result<File, OutboxError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .map_err(|e| OutboxError::new("open", self.at(name), e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| OutboxError::new("look at", self.at(name), e))?;
        if !Entry::new(&stat).is_file() {
            return Err(OutboxError::Obstructed { path: self.at(name), what: Obstacle::NotAFile });
        }
        Ok(File::from(fd))
    }

    /// [`Self::open`] for what others dropped: refuses a hard link that may be a way to a file of ours.
    ///
    /// Linux lets people link only files that are theirs, or that they may read and write
    /// (`fs.protected_hardlinks`, on nearly everywhere). Where that is off, somebody who may write into a shared
    /// inbox could link a file there that only we may read, and get to see it in a request or in provenance. So
    /// a file with several names must be readable for others, or for the group of a folder that others may
    /// write into. One's own `cp -l` stays what it is: in a folder of one's own every link is taken.
    pub fn open_dropped(&self, name: &OsStr) -> Result<File, OutboxError> {
        let file = self.open(name)?;
        let stat = rustix::fs::fstat(&file).map_err(|e| OutboxError::new("look at", self.at(name), e))?;
        if stat.st_nlink > 1 {
            let folder = self.stat()?;
            let is_shared = folder.st_mode & 0o022 != 0;
            let for_group = stat.st_mode & 0o040 != 0 && stat.st_gid == folder.st_gid;
            if is_shared && !for_group && stat.st_mode & 0o004 == 0 {
                return Err(OutboxError::Obstructed { path: self.at(name), what: Obstacle::PrivateLink });
            }
        }
        Ok(file)
    }

    /// Creates a file that must not be there, readable and writable for us; mode 0666 less the umask, or what
    /// the folder's default ACL says.
    pub fn create(&self, name: &OsStr) -> Result<File, OutboxError> {
        self.create_with(name, Mode::from_raw_mode(0o666))
    }

    /// [`Self::create`] with mode 0600.
    pub fn create_private(&self, name: &OsStr) -> Result<File, OutboxError> {
        self.create_with(name, Mode::from_raw_mode(0o600))
    }

    fn create_with(&self, name: &OsStr, mode: Mode) -> Result<File, OutboxError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.fd, name, flags, mode);
        opened.map(File::from).map_err(|e| OutboxError::new("create", self.at(name), e))
    }

    /// Removes a file; `false` if it was gone already.
    pub fn remove(&self, name: &OsStr) -> Result<bool, OutboxError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(OutboxError::new("remove", self.at(name), e)),
        }
    }

    /// Removes a folder in it, if that is empty; whether it did.
    pub fn remove_empty(&self, name: &OsStr) -> bool {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).is_ok()
    }

    /// All names in it with their kinds, without `.` and `..`.
    pub fn names(&self) -> Result<Vec<(OsString, FileType)>, OutboxError> {
        let failed = |e| OutboxError::new("list the folder", &self.path, e);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push((name.to_os_string(), entry.file_type()));
            }
        }
        Ok(names)
    }

    /// Makes what happened to its names durable, in one sync with others who want the same at this time.
    pub fn sync(&self) -> Result<(), OutboxError> {
        match super::syncs::sync_shared(&self.fd) {
            // Some network and FUSE filesystems don't know how to sync a directory; there is nothing to do then.
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(OutboxError::new("sync the folder", &self.path, e)),
        }
    }

    /// Device and inode.
    #[allow(clippy::cast_lossless, clippy::unnecessary_cast, reason = "the fields' types differ between machines")]
    pub(super) fn id(&self) -> Result<(u64, u64), OutboxError> {
        self.stat().map(|stat| (stat.st_dev as u64, stat.st_ino as u64))
    }

    /// Whether files created in it inherit an ACL.
    pub fn has_default_acl(&self) -> bool {
        read_xattr(&self.fd, "system.posix_acl_default").is_some()
    }

    /// Opens a folder in it; `None` if there is none.
    pub fn step(&self, name: &OsStr) -> Result<Option<Self>, OutboxError> {
        let path = self.at(name);
        match rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd: Arc::new(fd), path })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let link = self.look(name)?.is_some_and(|entry| entry.kind == FileType::Symlink);
                let what = if link { Obstacle::Symlink } else { Obstacle::NotAFolder };
                Err(OutboxError::Obstructed { path, what })
            }
            Err(e) => Err(OutboxError::new("open the folder", path, e)),
        }
    }

    /// Another handle of it.
    pub(super) fn again(&self) -> Self {
        Self { fd: Arc::clone(&self.fd), path: self.path.clone() }
    }

    fn make(&self, name: &OsStr, like: &Self) -> Result<Self, OutboxError> {
        let path = self.at(name);
        let mode = like.stat()?.st_mode & 0o7777;
        // The setgid bit comes down by itself. Asking for it is refused to a service with RestrictSUIDSGID.
        let ours = match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode & 0o1777)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(OutboxError::new("make the folder", path, e)),
        };
        let new = self.step(name)?.ok_or(OutboxError::Gone { path })?;
        if ours {
            // As far as the filesystem knows modes and ACLs: a folder without them is better than none.
            if new.stat()?.st_mode & 0o7777 != mode {
                let _ = rustix::fs::fchmod(&new.fd, Mode::from_raw_mode(mode));
            }
            for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
                if let Some(value) = read_xattr(&like.fd, acl) {
                    let _ = rustix::fs::fsetxattr(&new.fd, acl, &value, XattrFlags::empty());
                }
            }
            new.sync()?;
            self.sync()?;
        }
        Ok(new)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn read_xattr(fd: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let (value, _) = rustix::fs::fgetxattr(fd, name, &mut buffer[..]).ok()?;
    (!value.is_empty()).then(|| value.to_vec())
}

impl Folder {
    /// Whether names may be made and removed in it, as far as can be asked.
    pub(super) fn may_change(&self) -> bool {
        let asked = rustix::fs::accessat(self, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        !matches!(asked, Err(Errno::ACCESS | Errno::PERM))
    }
}

/// Renames a file without replacing anything. [`OutboxError::Taken`] if the new name is taken, and
/// [`Obstacle::OtherFilesystem`] if it can't be reached by a rename. Not synced.
///
/// Where both names are one file already (a crash between link and unlink), the old one goes.
pub fn rename(from: &Folder, old: &OsStr, to: &Folder, new: &OsStr) -> Result<(), OutboxError> {
    let done = match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_and_unlink(from, old, to, new),
        done => done,
    };
    match done {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            let (a, b) = (from.look(old)?, to.look(new)?);
            match (a, b) {
                (Some(a), Some(b))
                    if a.is_file() && same_inode(&a.facts, &b.facts) && !is_same_name(from, old, to, new)? =>
                {
                    from.remove(old).map(|_| ())
                }
                _ => Err(OutboxError::Taken { path: to.at(new) }),
            }
        }
        // Which of the two is missing matters to the caller.
        Err(Errno::NOENT) if from.look(old)?.is_some() => Err(OutboxError::Gone { path: to.path().to_path_buf() }),
        Err(Errno::NOENT) => Err(OutboxError::Gone { path: from.at(old) }),
        // A file leaves one folder and enters another: it is the one that refuses that has to be mended.
        Err(e @ (Errno::ACCESS | Errno::PERM)) if !from.may_change() => {
            Err(OutboxError::new("move out of its folder", from.at(old), e))
        }
        Err(e) => Err(OutboxError::new("rename to", to.at(new), e)),
    }
}

/// One folder and one name, perhaps spelt differently on a filesystem that ignores case: no second name that
/// could go.
fn is_same_name(from: &Folder, old: &OsStr, to: &Folder, new: &OsStr) -> Result<bool, OutboxError> {
    let (a, b) = (from.stat()?, to.stat()?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
        && crate::domain::names::fold(old) == crate::domain::names::fold(new))
}

/// For filesystems that refuse NOREPLACE.
fn link_and_unlink(from: &Folder, old: &OsStr, to: &Folder, new: &OsStr) -> Result<(), Errno> {
    match rustix::fs::linkat(from, old, to, new, AtFlags::empty()) {
        Ok(()) => {
            let look = |folder: &Folder, name: &OsStr| rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let (here, there) = (facts(&look(from, old)?), facts(&look(to, new)?));
            if same_inode(&here, &there) {
                return rustix::fs::unlinkat(from, old, AtFlags::empty());
            }
            if here != (Facts { ino: here.ino, ..there }) {
                // Somebody put another file there meanwhile.
                return Err(Errno::EXIST);
            }
            // Some FUSE filesystems (sshfs) number names instead of files: by its new name nobody would know it
            // again. What a rename moves keeps its number.
            rustix::fs::unlinkat(to, new, AtFlags::empty())?;
            over_placeholder(from, old, to, new)
        }
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => over_placeholder(from, old, to, new),
        Err(e) => Err(e),
    }
}

/// For filesystems that know neither NOREPLACE nor hard links: the name is reserved by creating it, which
/// fails if it is taken, and the file is renamed over that empty file of ours.
fn over_placeholder(from: &Folder, old: &OsStr, to: &Folder, new: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let placeholder = rustix::fs::openat(to, new, flags, Mode::from_raw_mode(0o600))?;
    let ours = rustix::fs::fstat(&placeholder)?;
    rustix::fs::renameat(from, old, to, new).inspect_err(|_| {
        let still = rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW);
        if still.is_ok_and(|s| (s.st_dev, s.st_ino, s.st_size) == (ours.st_dev, ours.st_ino, 0)) {
            let _ = rustix::fs::unlinkat(to, new, AtFlags::empty());
        }
    })
}

#[cfg(test)]
mod tests;
