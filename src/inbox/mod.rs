//! Watch and scan: what lies in the inbox, as observations. Reads directories, never file contents.
//!
//! Events are a hint, the folder is the truth: [`Watcher`] says where to look, [`look`] and [`survey`] look.
//! Nothing behind a symbolic link is ever listed: every folder is opened component by component below the
//! inbox, without following links. What an observation means is decided by `domain::arrivals`.

mod around;
mod backend;
mod mounts;
mod scan;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::path::{Path, PathBuf};

pub use self::around::Around;
pub use self::backend::{Backend, POLL_SETTLE, Setting, choose, fs_kind};
pub use self::mounts::Mounts;
pub use self::scan::{BATCH, Report, look, survey};
pub use self::watch::{Drained, HINT_CAP, Hint, HintHow, Watcher};

/// What went wrong while watching or scanning.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// A directory or entry could not be looked at.
    #[error("{}: {source}", path.display())]
    Look {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel gives no more watches or instances: poll instead, and say so.
    #[error("{}: the system's limit of inotify {what} is reached (fs.inotify.max_user_{what})", path.display())]
    Limit {
        /// What was to be watched.
        path: PathBuf,
        /// `watches` or `instances`.
        what: &'static str,
    },
    /// A directory could not be watched; its own scans still find what is in it.
    #[error("{}: cannot be watched: {reason}", path.display())]
    Watch {
        /// Which.
        path: PathBuf,
        /// The watcher's words.
        reason: String,
    },
}

impl InboxError {
    fn look(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Look { path: path.to_path_buf(), source: source.into() }
    }

    /// Whether only polling helps.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Limit { .. })
    }

    /// Whether what was looked at is not there.
    pub fn is_gone(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound};
        matches!(self, Self::Look { source, .. } if matches!(source.kind(), NotFound | NotADirectory))
    }
}
