//! The spool: where received pictures lie, under the state directory, until they are in the outbox.
//!
//! Promises: a sealed picture is whole and synced; it is never replaced, and only [`Spool::remove`] and
//! [`super::publish`] take it away. A picture still being received has a name of its own (`….part`) and
//! counts for nothing.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::Seek as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::durable::{Draft, fingerprint, is_temporary, random_name, result_mode};
use super::error::OutboxError;
use super::folder::{Folder, rename};
use crate::domain::ids::{DropId, Fingerprint, ShotNo};

/// The spool's name in the state directory.
pub const NAME: &str = "spool";

/// The spool of one state directory.
#[derive(Clone, Debug)]
pub struct Spool {
    path: PathBuf,
    /// Parts of which a sync failed, and that could not be written anew since.
    unsynced: Arc<Mutex<HashSet<(DropId, ShotNo)>>>,
}

/// A picture that was received whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Whose it is.
    pub drop: DropId,
    /// Which of its shots.
    pub shot: ShotNo,
    /// Where it lies.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Spool {
    /// The spool in `state_dir`, made if it is missing (for us alone). The state directory must be there.
    pub fn new(state_dir: &Path) -> Result<Self, OutboxError> {
        let top = Folder::root(state_dir)?;
        let path = state_dir.join(NAME);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => top.sync()?,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(OutboxError::new("make the folder", path, e)),
        }
        Ok(Self { path, unsynced: Arc::default() })
    }

    /// The spool's own folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a shot's picture is written while it is being received.
    pub fn part_path(&self, drop: DropId, shot: ShotNo) -> PathBuf {
        self.path.join(part_name(drop, shot))
    }

    /// Where a shot's picture lies once it is sealed.
    pub fn sealed_path(&self, drop: DropId, shot: ShotNo) -> PathBuf {
        self.path.join(sealed_name(drop, shot))
    }

    /// Creates a shot's part file, empty, for us alone; one that was left there is begun anew.
    pub fn create_part(&self, drop: DropId, shot: ShotNo) -> Result<File, OutboxError> {
        let (folder, name) = (self.folder()?, part_name(drop, shot));
        folder.remove(&name)?;
        folder.create_private(&name)
    }

    /// Makes a part that was received whole durable and gives it its final name. [`OutboxError::Taken`] if the
    /// shot has a sealed picture already: that one is kept.
    pub fn seal(&self, drop: DropId, shot: ShotNo) -> Result<Sealed, OutboxError> {
        let (folder, part, name) = (self.folder()?, part_name(drop, shot), sealed_name(drop, shot));
        // What a failed sync left in memory counts as written from then on: the next sync would say yes to
        // what is not on the disk. Only bytes that are written anew tell.
        if self.is_unsynced(drop, shot) {
            write_anew(&folder, &part, folder.open(&part)?)?;
            self.note_unsynced(drop, shot, false);
        }
        let file = folder.open(&part)?;
        self.seal_in(&folder, drop, shot, file)?;
        self.find(drop, shot)?.ok_or_else(|| OutboxError::Gone { path: folder.at(&name) })
    }

    /// [`Self::seal`] of a part that was written just now, through its handle.
    pub fn seal_written(&self, drop: DropId, shot: ShotNo, part: File) -> Result<(), OutboxError> {
        self.seal_in(&self.folder()?, drop, shot, part)
    }

    fn seal_in(&self, folder: &Folder, drop: DropId, shot: ShotNo, file: File) -> Result<(), OutboxError> {
        let part = part_name(drop, shot);
        // As a result's is in the end, so that publishing has nothing more to sync. Nobody else may enter the spool.
        let _ = rustix::fs::fchmod(&file, result_mode());
        if let Err(e) = file.sync_all() {
            let again = write_anew(folder, &part, file);
            self.note_unsynced(drop, shot, again.is_err());
            return Err(OutboxError::new("sync", folder.at(&part), e));
        }
        rename(folder, &part, folder, &sealed_name(drop, shot))?;
        folder.sync()
    }

    /// Makes the names of what is sealed durable, where the try that sealed it failed in this.
    pub fn sync(&self) -> Result<(), OutboxError> {
        self.folder()?.sync()
    }

    fn is_unsynced(&self, drop: DropId, shot: ShotNo) -> bool {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).contains(&(drop, shot))
    }

    fn note_unsynced(&self, drop: DropId, shot: ShotNo, is: bool) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if is {
            unsynced.insert((drop, shot));
        } else {
            unsynced.remove(&(drop, shot));
        }
    }

    /// A shot's sealed picture, if there is one.
    pub fn find(&self, drop: DropId, shot: ShotNo) -> Result<Option<Sealed>, OutboxError> {
        let (folder, name) = (self.folder()?, sealed_name(drop, shot));
        let entry = folder.look(&name)?.filter(super::folder::Entry::is_file);
        Ok(entry.map(|entry| Sealed { drop, shot, path: folder.at(&name), bytes: entry.facts.size }))
    }

    /// All sealed pictures, by drop and shot.
    pub fn list(&self) -> Result<Vec<Sealed>, OutboxError> {
        let mut all = Vec::new();
        for (name, _) in self.folder()?.names()? {
            if let Some((drop, shot)) = parse(&name, ".image") {
                all.extend(self.find(drop, shot)?);
            }
        }
        all.sort_by_key(|sealed| (sealed.drop, sealed.shot));
        Ok(all)
    }

    /// Removes a sealed picture, durably; `false` if there was none.
    pub fn remove(&self, drop: DropId, shot: ShotNo) -> Result<bool, OutboxError> {
        let folder = self.folder()?;
        let removed = folder.remove(&sealed_name(drop, shot))?;
        if removed {
            folder.sync()?;
        }
        Ok(removed)
    }

    /// Removes a part, if there is one (its download failed).
    pub fn discard_part(&self, drop: DropId, shot: ShotNo) -> Result<(), OutboxError> {
        self.folder()?.remove(&part_name(drop, shot)).map(|_| ())
    }

    /// The parts that a crash left, by drop and shot.
    pub fn parts(&self) -> Result<Vec<(DropId, ShotNo)>, OutboxError> {
        let mut all: Vec<_> = self.folder()?.names()?.iter().filter_map(|(name, _)| parse(name, ".part")).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Removes the parts that a crash left, and answers how many. Only before anything is being received.
    pub fn sweep_parts(&self) -> Result<usize, OutboxError> {
        let folder = self.folder()?;
        let mut swept = 0;
        for (name, _) in folder.names()? {
            if (parse(&name, ".part").is_some() || is_temporary(&name)) && folder.remove(&name)? {
                swept += 1;
            }
        }
        Ok(swept)
    }

    pub(super) fn folder(&self) -> Result<Folder, OutboxError> {
        Folder::root(&self.path)
    }
}

impl Sealed {
    /// BLAKE3 of the picture's bytes, read now.
    pub fn fingerprint(&self) -> Result<Fingerprint, OutboxError> {
        let mut file = File::open(&self.path).map_err(|e| OutboxError::new("open", &self.path, e))?;
        fingerprint(&mut file, &self.path)
    }
}

/// Puts a copy of `file` in the place of `name`.
fn write_anew(folder: &Folder, name: &OsStr, mut file: File) -> Result<(), OutboxError> {
    let hidden = random_name()?;
    let mut draft = Draft::new(folder, hidden.clone())?;
    // Whoever wrote it stands at its end.
    file.rewind().map_err(|e| OutboxError::new("read", folder.at(name), e))?;
    draft.copy_from(&mut file, &folder.at(name))?;
    let replaced = rustix::fs::renameat(folder, &hidden, folder, name);
    replaced.map_err(|e| OutboxError::new("rename to", folder.at(name), e))
}

pub(super) fn sealed_name(drop: DropId, shot: ShotNo) -> OsString {
    format!("{drop}-{}.image", shot.0).into()
}

fn part_name(drop: DropId, shot: ShotNo) -> OsString {
    format!("{drop}-{}.part", shot.0).into()
}

fn parse(name: &OsStr, suffix: &str) -> Option<(DropId, ShotNo)> {
    let (drop, shot) = name.to_str()?.strip_suffix(suffix)?.split_once('-')?;
    Some((DropId::parse(drop)?, ShotNo(shot.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DROP: DropId = DropId([7; 16]);

    #[test]
    fn a_picture_counts_only_once_it_is_sealed() {
        let state = tempfile::tempdir().unwrap();
        let spool = Spool::new(state.path()).unwrap();
        spool.create_part(DROP, ShotNo(0)).unwrap().write_all(b"half").unwrap();
        assert_eq!(spool.find(DROP, ShotNo(0)).unwrap(), None);
        let sealed = spool.seal(DROP, ShotNo(0)).unwrap();
        assert_eq!((sealed.bytes, sealed.path.clone()), (4, spool.sealed_path(DROP, ShotNo(0))));
        assert_eq!(sealed.fingerprint().unwrap(), Fingerprint::of(b"half"));
        assert_eq!(fs::metadata(spool.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(Spool::new(state.path()).unwrap().list().unwrap(), [sealed]);
        assert!(spool.remove(DROP, ShotNo(0)).unwrap());
        assert!(!spool.remove(DROP, ShotNo(0)).unwrap());
    }

    #[test]
    fn a_sealed_picture_is_never_replaced() {
        let state = tempfile::tempdir().unwrap();
        let spool = Spool::new(state.path()).unwrap();
        for text in ["first", "second"] {
            fs::write(spool.part_path(DROP, ShotNo(1)), text).unwrap();
            assert_eq!(spool.seal(DROP, ShotNo(1)).is_ok(), text == "first");
        }
        assert_eq!(fs::read(spool.sealed_path(DROP, ShotNo(1))).unwrap(), b"first");
    }

    #[test]
    fn what_could_not_be_synced_is_written_anew() {
        use std::os::unix::fs::MetadataExt as _;
        let state = tempfile::tempdir().unwrap();
        let spool = Spool::new(state.path()).unwrap();
        let part = spool.part_path(DROP, ShotNo(0));
        fs::write(&part, "whole").unwrap();
        let before = fs::metadata(&part).unwrap().ino();
        let (folder, name) = (spool.folder().unwrap(), part_name(DROP, ShotNo(0)));
        let mut file = folder.open(&name).unwrap();
        // As whoever has just written it stands.
        file.seek(std::io::SeekFrom::End(0)).unwrap();
        write_anew(&folder, &name, file).unwrap();
        assert_eq!(fs::read(&part).unwrap(), b"whole");
        assert_ne!(fs::metadata(&part).unwrap().ino(), before);
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 1);
        assert_eq!(spool.seal(DROP, ShotNo(0)).unwrap().bytes, 5);
    }

    #[test]
    fn a_part_whose_sync_failed_is_written_anew_before_it_is_sealed() {
        use std::os::unix::fs::MetadataExt as _;
        let state = tempfile::tempdir().unwrap();
        let spool = Spool::new(state.path()).unwrap();
        let inodes = [false, true].map(|unsynced| {
            let no = ShotNo(u32::from(unsynced));
            fs::write(spool.part_path(DROP, no), "whole").unwrap();
            let before = fs::metadata(spool.part_path(DROP, no)).unwrap().ino();
            // By another handle of the same spool, as the next try has.
            spool.clone().note_unsynced(DROP, no, unsynced);
            let sealed = spool.seal(DROP, no).unwrap();
            assert_eq!(fs::read(&sealed.path).unwrap(), b"whole");
            assert!(!spool.is_unsynced(DROP, no));
            before == fs::metadata(&sealed.path).unwrap().ino()
        });
        assert_eq!(inodes, [true, false]);
    }

    #[test]
    fn a_sweep_takes_parts_and_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        let spool = Spool::new(state.path()).unwrap();
        fs::write(spool.part_path(DROP, ShotNo(0)), "x").unwrap();
        fs::write(spool.sealed_path(DROP, ShotNo(1)), "x").unwrap();
        fs::write(spool.path().join("other.part"), "x").unwrap();
        assert_eq!(spool.sweep_parts().unwrap(), 1);
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_missing_state_directory_is_not_made() {
        let state = tempfile::tempdir().unwrap();
        assert!(matches!(Spool::new(&state.path().join("no")), Err(OutboxError::RootMissing { .. })));
    }
}
