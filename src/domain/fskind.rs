//! Kinds of filesystems by their numbers: those that only this machine writes to, and the others.
//!
//! Network and FUSE filesystems send no events of other hosts, and keep rename and sync only as far as
//! their server does. A kind that is not known here counts as local.

/// What `statfs` says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// Only this machine writes to it, and inotify says so.
    Local,
    /// Others can change files without an event, or a program of a user's stands behind it: the name of the kind.
    Network(&'static str),
}

impl FsKind {
    /// From `f_type` of `statfs`: a signed word on some machines, so only 32 bits count. The numbers are those of
    /// linux/magic.h and of the filesystems' own sources.
    pub fn from_magic(magic: u64) -> Self {
        Self::Network(match magic & 0xffff_ffff {
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
            0x0bd0_0bd0 | 0x0bd0_0bd3 => "Lustre",
            0x4750_4653 => "GPFS",
            0x786f_4256 => "a VirtualBox shared folder",
            _ => return Self::Local,
        })
    }

    /// Its name, where others may write to it.
    pub fn network(self) -> Option<&'static str> {
        match self {
            Self::Local => None,
            Self::Network(name) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_numbers() {
        for (magic, kind) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("SMB/CIFS")),
            // A signed word, widened.
            (0xffff_ffff_ff53_4d42, Some("SMB/CIFS")),
            (0x6573_5546, Some("FUSE")),
            (0x0bd0_0bd3, Some("Lustre")),
            // ext4, btrfs, xfs, tmpfs, overlay, zfs
            (0xef53, None),
            (0x9123_683e, None),
            (0x5846_5342, None),
            (0x0102_1994, None),
            (0x794c_7630, None),
            (0x2fc1_2fc1, None),
            (0x1234_5678, None),
        ] {
            assert_eq!(FsKind::from_magic(magic).network(), kind, "{magic:x}");
        }
    }
}
