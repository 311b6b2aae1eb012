//! Events or polling, by the kind of filesystem.

use std::path::Path;
use std::time::Duration;

use super::InboxError;
use crate::domain::fskind::FsKind;

/// The least `settle` while polling: a file may change just after each look.
pub const POLL_SETTLE: Duration = Duration::from_secs(5);

/// `[watch] backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// By the kind of filesystem.
    #[default]
    Auto,
    /// inotify, whatever the filesystem.
    Events,
    /// Polling, whatever the filesystem.
    Poll,
}

/// How the inbox is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// inotify, and scans now and then.
    Events,
    /// Scans every `poll_interval`.
    Poll {
        /// For the log and for `status`.
        why: String,
    },
}

impl Backend {
    /// `settle` as it counts here: at least [`POLL_SETTLE`] while polling.
    pub fn settle(&self, settle: Duration) -> Duration {
        match self {
            Self::Events => settle,
            Self::Poll { .. } => settle.max(POLL_SETTLE),
        }
    }

    /// Polling after a watch failed for `error`.
    pub fn fallback(error: &InboxError) -> Self {
        Self::Poll { why: error.to_string() }
    }
}

/// The kind of filesystem `path` lies on.
pub fn fs_kind(path: &Path) -> Result<FsKind, InboxError> {
    let found = rustix::fs::statfs(path).map_err(|e| InboxError::look(path, e))?;
    #[allow(clippy::cast_lossless, clippy::unnecessary_cast, reason = "its type differs between machines")]
    Ok(FsKind::from_magic(found.f_type as u64))
}

/// Events or polling.
pub fn choose(setting: Setting, kind: FsKind) -> Backend {
    match (setting, kind) {
        (Setting::Poll, _) => Backend::Poll { why: "[watch] backend = \"poll\"".to_owned() },
        (Setting::Events, _) | (Setting::Auto, FsKind::Local) => Backend::Events,
        (Setting::Auto, FsKind::Network(name)) => {
            Backend::Poll { why: format!("the inbox lies on {name}, which does not report what other machines do") }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn filesystems_that_send_no_events_of_others_are_polled() {
        for magic in [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997, 0x5346_414f, 0x00c3_6400] {
            assert!(matches!(choose(Setting::Auto, FsKind::from_magic(magic)), Backend::Poll { .. }), "{magic:x}");
            assert_eq!(choose(Setting::Events, FsKind::from_magic(magic)), Backend::Events);
        }
        // ext4, btrfs, xfs, tmpfs, overlay, zfs
        for magic in [0xef53, 0x9123_683e, 0x5846_5342, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1] {
            assert_eq!(choose(Setting::Auto, FsKind::from_magic(magic)), Backend::Events, "{magic:x}");
        }
    }

    #[test]
    fn polling_settles_for_five_seconds_at_least() {
        let poll = choose(Setting::Poll, FsKind::Local);
        assert_eq!(poll.settle(Duration::from_secs(2)), Duration::from_secs(5));
        assert_eq!(poll.settle(Duration::from_secs(9)), Duration::from_secs(9));
        assert_eq!(Backend::Events.settle(Duration::from_secs(2)), Duration::from_secs(2));
    }
}
