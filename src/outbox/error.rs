//! What can go wrong in the user's folders, sorted by what the engine does about it: pause everything, since no drop can
//! be kept, or let one wait, whose own place is closed.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::domain::ids::show;

/// What stands where a folder or a file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// A symlink, which is never followed below a root.
    #[error("is a symlink, which is not followed")]
    Symlink,
    /// Something else than a folder.
    #[error("is not a folder")]
    NotAFolder,
    /// Something else than a regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// A hard link to a file that those who may write into the folder could not read by themselves.
    #[error(
        "has another name elsewhere, and not everybody who may drop here may read it: copy it instead of linking it, or make it readable for the folder's group"
    )]
    PrivateLink,
    /// It can't be reached by a rename.
    #[error("lies on another filesystem")]
    OtherFilesystem,
}

/// An error of this room. Each names its path.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The name is taken; another number is needed. Nothing was overwritten.
    #[error("{}: the name is taken", show(.path.as_os_str()))]
    Taken {
        /// The name that is taken.
        path: PathBuf,
    },
    /// Disk or quota is full.
    #[error("{}: no room left: {source}", show(.path.as_os_str()))]
    NoRoom {
        /// What could not be written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The filesystem is mounted read-only.
    #[error("{}: the filesystem is read-only", show(.path.as_os_str()))]
    ReadOnly {
        /// What could not be written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The daemon's user may not.
    #[error("{}: {doing}: not permitted: {source}", show(.path.as_os_str()))]
    Denied {
        /// What could not be touched.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// Inbox, working, outbox, archive, errors or the spool itself is not there (not mounted?).
    #[error("{}: the folder is not there", show(.path.as_os_str()))]
    RootMissing {
        /// The root.
        path: PathBuf,
    },
    /// A root that was a filesystem of its own is not mounted any more. Passes when it is.
    #[error("{}: is not mounted any more: mount it again, or restart the daemon if it is to stay so", show(.path.as_os_str()))]
    Unmounted {
        /// The root.
        path: PathBuf,
    },
    /// Something stands in the way below a root. Lasts until a person clears it; concerns this place only.
    #[error("{}: {what}", show(.path.as_os_str()))]
    Obstructed {
        /// The place.
        path: PathBuf,
        /// What stands there.
        what: Obstacle,
    },
    /// The file is not, or no longer, the one that was looked at.
    #[error("{}: the file was changed meanwhile", show(.path.as_os_str()))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file is not there.
    #[error("{}: the file is not there", show(.path.as_os_str()))]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{}: {doing}: {source}", show(.path.as_os_str()))]
    Io {
        /// What it happened to.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

impl OutboxError {
    /// Sorts a system error that happened to `path` while `doing` something ("rename", "sync").
    pub fn new(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), source.into());
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoRoom { path, source },
            Some(Errno::ROFS) => Self::ReadOnly { path, source },
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied { path, doing, source },
            Some(Errno::EXIST) => Self::Taken { path },
            Some(Errno::NOENT) => Self::Gone { path },
            Some(Errno::XDEV) => Self::Obstructed { path, what: Obstacle::OtherFilesystem },
            Some(Errno::LOOP) => Self::Obstructed { path, what: Obstacle::Symlink },
            Some(Errno::NOTDIR) => Self::Obstructed { path, what: Obstacle::NotAFolder },
            _ => Self::Io { path, doing, source },
        }
    }

    /// Whether another number would help.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }

    /// Whether a rename can't get there, but a copy can.
    pub fn is_other_filesystem(&self) -> bool {
        matches!(self, Self::Obstructed { what: Obstacle::OtherFilesystem, .. })
    }

    /// What it happened to.
    pub fn path(&self) -> &Path {
        match self {
            Self::Taken { path }
            | Self::NoRoom { path, .. }
            | Self::ReadOnly { path, .. }
            | Self::Denied { path, .. }
            | Self::RootMissing { path }
            | Self::Unmounted { path }
            | Self::Obstructed { path, .. }
            | Self::Changed { path }
            | Self::Gone { path }
            | Self::Io { path, .. } => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_apart_and_names_are_shown_as_text() {
        use OutboxError as E;
        type Is = fn(&OutboxError) -> bool;
        let table: [(Errno, Is); 11] = [
            (Errno::NOSPC, |e| matches!(e, E::NoRoom { .. })),
            (Errno::DQUOT, |e| matches!(e, E::NoRoom { .. })),
            (Errno::ROFS, |e| matches!(e, E::ReadOnly { .. })),
            (Errno::ACCESS, |e| matches!(e, E::Denied { .. })),
            (Errno::PERM, |e| matches!(e, E::Denied { .. })),
            (Errno::EXIST, |e| matches!(e, E::Taken { .. })),
            (Errno::NOENT, |e| matches!(e, E::Gone { .. })),
            (Errno::NOTDIR, |e| matches!(e, E::Obstructed { what: Obstacle::NotAFolder, .. })),
            (Errno::XDEV, |e| matches!(e, E::Obstructed { what: Obstacle::OtherFilesystem, .. })),
            (Errno::IO, |e| matches!(e, E::Io { .. })),
            (Errno::STALE, |e| matches!(e, E::Io { .. })),
        ];
        for (errno, is_it) in table {
            let error = OutboxError::new("write", "/x/a\nb", errno);
            assert!(is_it(&error), "{errno:?}: {error:?}");
            assert!(error.to_string().contains("/x/a\\nb"), "{error}");
        }
    }
}
