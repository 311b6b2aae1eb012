//! What kind of filesystem a folder lies on: one that only this machine writes to, or not.
//!
//! Network and FUSE filesystems send no events of other hosts, and keep rename and sync only as far as
//! their server does. A kind that is not known here counts as local.

use std::path::Path;

use super::error::OutboxError;

/// The kind of a filesystem, with its usual name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// Only this machine writes to it.
    Local(&'static str),
    /// Others may write to it, or a program of a user's stands behind it.
    Network(&'static str),
}

impl FsKind {
    /// Whether others may write to it.
    pub fn is_network(self) -> bool {
        matches!(self, Self::Network(_))
    }

    /// Its name, as in `/proc/filesystems`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local(name) | Self::Network(name) => name,
        }
    }
}

/// Magic numbers as `statfs` gives them.
const NETWORK: [(u32, &str); 17] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x00c3_6400, "ceph"),
    (0x7375_7245, "coda"),
    (0x564c, "ncp"),
    (0x0bd0_0bd0, "lustre"),
    (0x0bd0_0bd3, "lustre"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x4750_4653, "gpfs"),
    (0x786f_4256, "vboxsf"),
];

const LOCAL: [(u32, &str); 14] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x794c_7630, "overlay"),
    (0x4d44, "vfat"),
    (0x2011_bab0, "exfat"),
    (0x7366_746e, "ntfs3"),
    (0x482b, "hfsplus"),
    (0x7371_7368, "squashfs"),
];

/// The kind of the filesystem that `path` lies on.
pub fn filesystem_kind(path: &Path) -> Result<FsKind, OutboxError> {
    let statfs = rustix::fs::statfs(path).map_err(|e| OutboxError::new("look at the filesystem", path, e))?;
    // The field's width and sign differ between machines; the numbers have 32 bits.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the field's type differs between machines")]
    Ok(kind_of(statfs.f_type as u32))
}

fn kind_of(magic: u32) -> FsKind {
    let find = |table: &[(u32, &'static str)]| table.iter().find(|(m, _)| *m == magic).map(|(_, name)| *name);
    match (find(&NETWORK), find(&LOCAL)) {
        (Some(name), _) => FsKind::Network(name),
        (None, Some(name)) => FsKind::Local(name),
        (None, None) => FsKind::Local("unknown"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn kinds_are_told_by_their_numbers() {
        for (magic, kind) in [
            (0x6969, FsKind::Network("nfs")),
            (0xff53_4d42, FsKind::Network("cifs")),
            (0x6573_5546, FsKind::Network("fuse")),
            (0xef53, FsKind::Local("ext4")),
            (0x1234_5678, FsKind::Local("unknown")),
        ] {
            assert_eq!(kind_of(magic), kind);
        }
    }

    #[test]
    fn this_machines_memory_filesystem_is_known() {
        let found = filesystem_kind(Path::new("/dev/shm")).unwrap();
        let mounted = std::fs::read_to_string("/proc/self/mounts").unwrap();
        if mounted.lines().any(|line| line.contains(" /dev/shm tmpfs ")) {
            assert_eq!(found, FsKind::Local("tmpfs"));
        }
        assert!(filesystem_kind(Path::new("/no/such/folder")).is_err());
    }
}
