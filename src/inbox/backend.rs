//! Events or polling, by the kind of filesystem; and whether the inbox is still the one we knew.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::InboxError;

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

/// What `statfs` says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// Whoever changes a file here, inotify says so.
    Local,
    /// Others can change files without an event: the name of the kind.
    Silent(&'static str),
}

impl FsKind {
    /// From `f_type` of `statfs`.
    pub fn from_magic(magic: u64) -> Self {
        // linux/magic.h; f_type is a signed word on some machines, so only 32 bits count.
        Self::Silent(match magic & 0xffff_ffff {
            0x6969 => "NFS",
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB/CIFS",
            0x6573_5546 => "FUSE",
            0x0102_1997 => "9p",
            0x5346_414f | 0x6b41_4653 => "AFS",
            0x00c3_6400 => "Ceph",
            0x7375_7245 => "Coda",
            0x564c => "NCP",
            0x0116_1970 => "GFS2",
            0x7461_636f => "OCFS2",
            0x0bd0_0bd0 => "Lustre",
            0x4750_4653 => "GPFS",
            0x786f_4256 => "a VirtualBox shared folder",
            _ => return Self::Local,
        })
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "a local filesystem",
            Self::Silent(name) => name,
        })
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
        (Setting::Auto, FsKind::Silent(name)) => {
            Backend::Poll { why: format!("the inbox lies on {name}, which does not report what other machines do") }
        }
    }
}

/// The inbox, compared with what it was.
#[derive(Debug)]
pub enum RootState {
    /// It is there; with a known identity: the same.
    Same {
        /// Device and inode.
        identity: (u64, u64),
    },
    /// Another directory stands there now: watch and scan it afresh.
    Replaced {
        /// Device and inode.
        identity: (u64, u64),
        /// On another device than before: something was mounted or unmounted.
        other_device: bool,
    },
    /// Nothing is there, or no directory. That pauses; it cancels nothing.
    Missing,
    /// It is there and cannot be looked at.
    Unreadable(InboxError),
}

/// Looks whether `root` is there, readable, and the one with the device and inode `known`.
pub fn root_state(root: &Path, known: Option<(u64, u64)>) -> RootState {
    let meta = match std::fs::metadata(root) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => return RootState::Missing,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return RootState::Missing;
        }
        Err(e) => return RootState::Unreadable(InboxError::look(root, e)),
    };
    if let Err(e) = std::fs::read_dir(root) {
        return RootState::Unreadable(InboxError::look(root, e));
    }
    let identity = (meta.dev(), meta.ino());
    match known {
        Some(old) if old != identity => RootState::Replaced { identity, other_device: old.0 != identity.0 },
        _ => RootState::Same { identity },
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
        // A signed word, widened.
        assert!(matches!(FsKind::from_magic(0xffff_ffff_ff53_4d42), FsKind::Silent(_)));
    }

    #[test]
    fn polling_settles_for_five_seconds_at_least() {
        let poll = choose(Setting::Poll, FsKind::Local);
        assert_eq!(poll.settle(Duration::from_secs(2)), Duration::from_secs(5));
        assert_eq!(poll.settle(Duration::from_secs(9)), Duration::from_secs(9));
        assert_eq!(Backend::Events.settle(Duration::from_secs(2)), Duration::from_secs(2));
    }

    #[test]
    fn an_inbox_is_told_from_another_and_from_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("inbox");
        assert!(matches!(root_state(&root, None), RootState::Missing));
        std::fs::create_dir(&root).unwrap();
        let RootState::Same { identity } = root_state(&root, None) else { panic!("not there") };
        assert!(matches!(root_state(&root, Some(identity)), RootState::Same { .. }));
        std::fs::rename(&root, dir.path().join("old")).unwrap();
        assert!(matches!(root_state(&root, Some(identity)), RootState::Missing));
        std::fs::create_dir(&root).unwrap();
        let state = root_state(&root, Some(identity));
        assert!(matches!(state, RootState::Replaced { other_device: false, .. }), "{state:?}");
    }
}
