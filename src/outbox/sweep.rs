//! What a crash left under hidden names.
//!
//! Promises: removes only files of our own pattern that nobody writes, follows no symlink, and never
//! touches a picture's hidden copy, which may be all there is of it: those are listed for the engine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation};

use super::durable::is_temporary;
use super::error::OutboxError;
use super::folder::Folder;
use super::publish::{Temporary, parse_temporary};
use crate::domain::ids::RelPath;

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Pictures under their hidden names. Each is finished by [`super::publish::recover_unsynced`] if a row
    /// knows its name, else by [`super::publish::rescue`] if the spool has it no more.
    pub temporaries: Vec<Temporary>,
    /// Folders that could not be read.
    pub unread: Vec<PathBuf>,
}

/// Sweeps a whole tree: working, outbox, archive or errors. Before anything is moved, so that it meets no
/// file in the making; one that another process has locked is left.
pub fn sweep(root: &Path) -> Result<Swept, OutboxError> {
    let mut swept = Swept::default();
    Folder::root(root)?;
    let mut left = vec![RelPath::root()];
    while let Some(rel) = left.pop() {
        if sweep_one(root, &rel, &mut swept, &mut left).is_err() {
            swept.unread.push(rel.under(root));
        }
    }
    swept.temporaries.sort_by_key(|t| (t.drop, t.shot));
    Ok(swept)
}

fn sweep_one(root: &Path, rel: &RelPath, swept: &mut Swept, left: &mut Vec<RelPath>) -> Result<(), OutboxError> {
    let Some(folder) = Folder::existing(root, rel)? else { return Ok(()) };
    for (name, kind) in folder.names()? {
        let kind = match kind {
            // Some filesystems don't say it in the listing.
            FileType::Unknown => folder.look(&name)?.map_or(FileType::Unknown, |entry| entry.kind),
            kind => kind,
        };
        if kind == FileType::Directory {
            left.push(rel.join(&name));
        } else if kind == FileType::RegularFile {
            if let Some((drop, shot)) = parse_temporary(&name) {
                swept.temporaries.push(Temporary { drop, shot, rel: rel.clone(), path: folder.at(&name) });
            } else if is_temporary(&name) && !is_locked(&folder, &name) {
                folder.remove(&name)?;
            }
        }
    }
    Ok(())
}

fn is_locked(folder: &Folder, name: &OsStr) -> bool {
    let Ok(file) = folder.open(name) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::domain::ids::{DropId, ShotNo};

    #[test]
    fn only_our_own_leftovers_are_removed_and_hidden_pictures_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("outbox"), dir.path().join("outside"));
        let ours = ".reimagined-0123456789abcdef.part";
        let drop = DropId([5; 16]);
        let picture = format!(".{drop}-3.reimagined.part");
        for folder in [&root, &root.join("a/b"), &outside] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(ours), "x").unwrap();
        }
        fs::write(root.join("a").join(&picture), "paid").unwrap();
        fs::write(root.join("a/theirs.part"), "x").unwrap();
        fs::create_dir(root.join("a").join(ours)).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let swept = sweep(&root).unwrap();
        assert!(swept.unread.is_empty());
        assert!(!root.join(ours).exists() && !root.join("a/b").join(ours).exists());
        let wanted =
            Temporary { drop, shot: ShotNo(3), rel: RelPath::new("a").unwrap(), path: root.join("a").join(&picture) };
        assert_eq!(swept.temporaries, [wanted]);
        assert!(root.join("a").join(&picture).exists() && root.join("a/theirs.part").exists());
        assert!(outside.join(ours).exists(), "behind a symlink");
    }

    #[test]
    fn a_file_that_somebody_writes_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::root(dir.path()).unwrap();
        let draft = super::super::durable::Draft::new(&folder, super::super::durable::random_name().unwrap()).unwrap();
        let left = || {
            sweep(dir.path()).unwrap();
            fs::read_dir(dir.path()).unwrap().count()
        };
        assert_eq!(left(), 1);
        draft.keep().unwrap();
        assert_eq!(left(), 0);
    }
}
