//! What kind of filesystem a folder lies on.

use std::path::Path;

use super::error::OutboxError;
use crate::domain::fskind::FsKind;

/// The kind of the filesystem that `path` lies on.
pub fn filesystem_kind(path: &Path) -> Result<FsKind, OutboxError> {
    let statfs = rustix::fs::statfs(path).map_err(|e| OutboxError::new("look at the filesystem", path, e))?;
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the field's type differs between machines")]
    Ok(FsKind::from_magic(statfs.f_type as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn this_machines_memory_filesystem_is_local_and_what_is_not_there_has_none() {
        assert_eq!(filesystem_kind(Path::new("/dev/shm")).unwrap(), FsKind::Local);
        assert!(filesystem_kind(Path::new("/no/such/folder")).is_err());
    }
}
