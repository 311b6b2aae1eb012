//! Folders in which names have changed and are not durable yet: each is synced once, however often that was.
//!
//! Promises: when [`Unsynced::sync`] returns well, a sync of each folder that was added went well, and began after it
//! was added. Folders that gained a name are synced before those that lost one, so that whatever a power cut undoes, the
//! name stands in at least one of them. What is dropped without it is as good as a crash: nothing may count on those
//! names.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::claim::prune;
use super::error::OutboxError;
use super::folder::Folder;
use crate::domain::ids::RelPath;

type Id = (u64, u64);

/// Folders that are to be synced.
#[derive(Debug, Default)]
#[must_use = "names in these folders may not outlive a power cut"]
pub struct Unsynced {
    gained: BTreeMap<Id, Folder>,
    lost: BTreeMap<Id, Lost>,
}

/// A folder that lost a name.
#[derive(Debug)]
struct Lost {
    folder: Folder,
    /// Where it lies, if it goes when it is empty: below which root.
    goes: Option<(PathBuf, RelPath)>,
}

impl Unsynced {
    /// A name has come into `folder`, or changed in it.
    pub(super) fn gained(&mut self, folder: &Folder) -> Result<(), OutboxError> {
        if let Entry::Vacant(place) = self.gained.entry(folder.id()?) {
            place.insert(folder.again());
        }
        Ok(())
    }

    /// A name has gone from `folder`, and stands elsewhere.
    pub(super) fn lost(&mut self, folder: &Folder) -> Result<(), OutboxError> {
        self.note_lost(folder, None)
    }

    /// [`Self::lost`] of the folder `rel` below `root`, which is removed once that is durable if it is empty then, and
    /// so are those above it.
    pub(super) fn lost_below(&mut self, folder: &Folder, root: &Path, rel: &RelPath) -> Result<(), OutboxError> {
        self.note_lost(folder, Some((root.to_path_buf(), rel.clone())))
    }

    fn note_lost(&mut self, folder: &Folder, goes: Option<(PathBuf, RelPath)>) -> Result<(), OutboxError> {
        match self.lost.entry(folder.id()?) {
            Entry::Vacant(place) => {
                place.insert(Lost { folder: folder.again(), goes });
            }
            Entry::Occupied(mut place) => {
                let lost = place.get_mut();
                lost.goes = goes.or(lost.goes.take());
            }
        }
        Ok(())
    }

    /// Takes over what another has noted.
    pub fn join(&mut self, other: Self) {
        for (id, folder) in other.gained {
            self.gained.entry(id).or_insert(folder);
        }
        for (id, new) in other.lost {
            match self.lost.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(new);
                }
                Entry::Occupied(mut place) => {
                    let lost = place.get_mut();
                    lost.goes = new.goes.or(lost.goes.take());
                }
            }
        }
    }

    /// Makes all of it durable. Blocks on the disk.
    pub fn sync(self) -> Result<(), OutboxError> {
        for folder in self.gained.values() {
            folder.sync()?;
        }
        for lost in self.lost.values() {
            lost.sync()?;
        }
        for (root, rel) in self.lost.into_values().filter_map(|lost| lost.goes) {
            prune(&root, &rel);
        }
        Ok(())
    }
}

impl Lost {
    fn sync(&self) -> Result<(), OutboxError> {
        match (self.folder.is_removed(), &self.goes) {
            (Ok(false), _) => self.folder.sync(),
            // Others emptied and removed it: with its own entry that is durable, so is all that went before. On a share,
            // what others removed cannot even be looked at.
            (Ok(true) | Err(_), Some((root, rel))) => nearest(root, rel)?.sync(),
            (Ok(true), None) => Ok(()),
            (Err(e), None) => Err(e),
        }
    }
}

/// The folder `rel` below `root`, or where it is not there the nearest above it that is.
pub(super) fn nearest(root: &Path, rel: &RelPath) -> Result<Folder, OutboxError> {
    let mut at = Some(rel.clone());
    while let Some(rel) = at {
        if let Some(folder) = Folder::existing(root, &rel)? {
            return Ok(folder);
        }
        at = rel.parent();
    }
    Folder::root(root)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_folder_is_held_once_and_goes_when_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (root, rel) = (dir.path(), RelPath::new("a/b").unwrap());
        std::fs::create_dir_all(rel.under(root)).unwrap();
        let folder = || Folder::existing(root, &rel).unwrap().unwrap();
        let (mut some, mut others) = (Unsynced::default(), Unsynced::default());
        some.lost(&folder()).unwrap();
        some.gained(&Folder::root(root).unwrap()).unwrap();
        others.lost_below(&folder(), root, &rel).unwrap();
        others.gained(&Folder::root(root).unwrap()).unwrap();
        some.join(others);
        assert_eq!((some.gained.len(), some.lost.len()), (1, 1));
        some.sync().unwrap();
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
    }

    #[test]
    fn one_that_others_removed_is_no_error_and_one_that_is_not_empty_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (root, rel) = (dir.path(), RelPath::new("a/b").unwrap());
        std::fs::create_dir_all(rel.under(root)).unwrap();
        std::fs::write(root.join("a/other"), "x").unwrap();
        let mut unsynced = Unsynced::default();
        unsynced.lost_below(&Folder::existing(root, &rel).unwrap().unwrap(), root, &rel).unwrap();
        std::fs::remove_dir(rel.under(root)).unwrap();
        unsynced.sync().unwrap();
        assert!(root.join("a/other").exists());
    }
}
