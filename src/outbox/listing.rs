//! Which names are taken, ignoring case: the number for a whole set.
//!
//! Promises: the number is the first for which no member's name is taken in its folder. A folder is listed
//! once and remembered by its identity and mtime, so that thousands of results for one folder don't list it
//! thousands of times; a name that others put there while we do, too, may be seen a moment later. What comes between
//! the look and the publish is caught there, by renaming without replacing; this is a choice, not a lock.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::OutboxError;
use super::folder::Folder;
use crate::domain::ids::RelPath;
use crate::domain::names::{fold, try_first_free};

/// A remembered listing is not trusted for longer, whatever its folder's mtime says (coarse clocks, network
/// filesystems that cache attributes).
const MAX_AGE: Duration = Duration::from_secs(30);

/// Nor for longer while its mtime changes by what we put there: others may put something there, too.
const MAX_AGE_OF_OURS: Duration = Duration::from_secs(5);

/// Folders remembered at most.
const MAX_FOLDERS: usize = 32;

/// The names that a set wants in one folder.
pub struct Wanted<'a> {
    /// Outbox, archive or errors.
    pub root: &'a Path,
    /// The folder below it.
    pub rel: &'a RelPath,
    /// The names for a number.
    pub names: &'a dyn Fn(u32) -> Vec<OsString>,
}

/// Listings of folders, shared between workers; the lock is held while a folder is listed, never longer.
#[derive(Debug, Default)]
pub struct Listings {
    known: Mutex<HashMap<Id, Listing>>,
}

#[derive(Debug)]
struct Listing {
    mtime: Mtime,
    since: Instant,
    /// How long it took to list.
    took: Duration,
    /// We have put names there since.
    ours: bool,
    folded: HashSet<OsString>,
}

impl Listing {
    fn is_fresh(&self, mtime: Mtime) -> bool {
        let age = self.since.elapsed();
        // While several results go to one folder at once, its mtime is always another one, by our own doing. It is
        // listed anew all the same, as often as costs a two-hundredth of the time.
        age < MAX_AGE && (self.mtime == mtime || self.ours && age < (self.took * 200).min(MAX_AGE_OF_OURS))
    }
}

impl Listings {
    /// Nothing remembered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first number for which no wanted name is taken, nor `reserved` (names that are committed but do
    /// not stand yet). A folder that is not there has no taken names; a root must be there.
    pub fn choose_number(&self, wanted: &[Wanted<'_>], reserved: impl Fn(u32) -> bool) -> Result<u32, OutboxError> {
        let mut folders = Vec::new();
        for want in wanted {
            folders.push(Folder::existing(want.root, want.rel)?);
        }
        for folder in folders.iter().flatten() {
            self.refresh(folder)?;
        }
        try_first_free(|n| {
            if reserved(n) {
                return Ok(true);
            }
            for (want, folder) in wanted.iter().zip(&folders) {
                let Some(folder) = folder else { continue };
                for name in (want.names)(n) {
                    if self.has(folder, &name)? {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        })
    }

    /// Remembers that we put a name there, so that the folder's new mtime is no reason to list it again.
    /// To be called after each publish or move; a call that is left out only costs a listing.
    pub fn added(&self, root: &Path, rel: &RelPath, names: &[&OsStr]) -> Result<(), OutboxError> {
        let Some(folder) = Folder::existing(root, rel)? else { return Ok(()) };
        let (id, mtime) = state(&folder)?;
        if let Some(listing) = self.lock().get_mut(&id) {
            listing.folded.extend(names.iter().map(|name| fold(name)));
            listing.mtime = mtime;
            listing.ours = true;
        }
        Ok(())
    }

    fn has(&self, folder: &Folder, name: &OsStr) -> Result<bool, OutboxError> {
        let (id, _) = state(folder)?;
        let listed = |known: &HashMap<Id, Listing>| {
            known.get(&id).map(|listing| (listing.folded.contains(&fold(name)), listing.ours))
        };
        let found = listed(&self.lock());
        match found {
            Some((false, _)) => return Ok(false),
            Some((true, false)) => return Ok(true),
            // While we put names there the folder's mtime says nothing of those that others take away.
            Some((true, true)) if folder.look(name)?.is_some() => return Ok(true),
            Some((true, true)) => {
                self.lock().remove(&id);
                self.refresh(folder)?;
            }
            None => {}
        }
        let found = listed(&self.lock());
        if let Some((has, _)) = found {
            return Ok(has);
        }
        // Pushed out by others meanwhile.
        Ok(folder.names()?.iter().any(|(there, _)| fold(there) == fold(name)))
    }

    fn refresh(&self, folder: &Folder) -> Result<(), OutboxError> {
        let (id, mtime) = state(folder)?;
        let mut known = self.lock();
        if known.get(&id).is_some_and(|listing| listing.is_fresh(mtime)) {
            return Ok(());
        }
        // The mtime was read before the names: what comes between makes the listing look old, not new.
        let begun = Instant::now();
        let names = folder.names()?.iter().map(|(name, _)| fold(name)).collect();
        if known.len() >= MAX_FOLDERS && !known.contains_key(&id) {
            let oldest = known.iter().min_by_key(|(_, listing)| listing.since).map(|(id, _)| *id);
            oldest.and_then(|id| known.remove(&id));
        }
        let listing = Listing { mtime, since: begun, took: begun.elapsed(), ours: false, folded: names };
        known.insert(id, listing);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Listing>> {
        // A panic elsewhere can't leave a listing half changed in a way that matters: it is only a hint.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder's device and inode.
type Id = (u64, u64);

/// Seconds and nanoseconds.
type Mtime = (i64, i64);

#[allow(
    clippy::cast_lossless,
    clippy::unnecessary_cast,
    clippy::cast_possible_wrap,
    reason = "the fields' types differ between machines"
)]
fn state(folder: &Folder) -> Result<(Id, Mtime), OutboxError> {
    let stat = folder.stat()?;
    Ok(((stat.st_dev as u64, stat.st_ino as u64), (stat.st_mtime as i64, stat.st_mtime_nsec as i64)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::domain::names::{SetNames, provenance_name, result_name};

    #[test]
    fn the_number_is_free_for_every_member_in_every_folder_ignoring_case() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, archive) = (dir.path().join("outbox"), dir.path().join("archive"));
        let rel = RelPath::new("a").unwrap();
        fs::create_dir_all(outbox.join("a")).unwrap();
        fs::create_dir_all(&archive).unwrap();
        let listings = Listings::new();
        let set = SetNames::new(OsStr::new("terrace"), ["terrace.txt", "terrace.jpg"]);
        let results =
            |n| vec![result_name(OsStr::new("terrace"), n, "png", true), provenance_name(OsStr::new("terrace"), n)];
        let originals = |n| set.members(n);
        let choose = || {
            let wanted = [
                Wanted { root: &outbox, rel: &rel, names: &results },
                Wanted { root: &archive, rel: &rel, names: &originals },
            ];
            listings.choose_number(&wanted, |n| n == 3).unwrap()
        };
        assert_eq!(choose(), 1);
        fs::write(outbox.join("a/TERRACE.reimagined.json"), "x").unwrap();
        assert_eq!(choose(), 2);
        fs::create_dir(archive.join("a")).unwrap();
        fs::write(archive.join("a/Terrace (2).TXT"), "x").unwrap();
        assert_eq!(choose(), 4, "3 is reserved");
        fs::remove_file(outbox.join("a/TERRACE.reimagined.json")).unwrap();
        assert_eq!(choose(), 1);
    }

    #[test]
    fn our_own_additions_are_known_without_listing_again() {
        let dir = tempfile::tempdir().unwrap();
        let rel = RelPath::root();
        let listings = Listings::new();
        let names = |n| vec![result_name(OsStr::new("x"), n, "png", false)];
        for wanted in 1..50 {
            let number =
                listings.choose_number(&[Wanted { root: dir.path(), rel: &rel, names: &names }], |_| false).unwrap();
            assert_eq!(number, wanted);
            fs::write(dir.path().join(&names(number)[0]), "x").unwrap();
            listings.added(dir.path(), &rel, &[&names(number)[0]]).unwrap();
        }
        let known = listings.lock();
        let listing = known.values().next().unwrap();
        assert_eq!((known.len(), listing.folded.len()), (1, 49));
    }

    #[test]
    fn a_name_that_others_took_away_is_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let rel = RelPath::root();
        let listings = Listings::new();
        let names = |n| vec![result_name(OsStr::new("x"), n, "png", false)];
        let choose =
            || listings.choose_number(&[Wanted { root: dir.path(), rel: &rel, names: &names }], |_| false).unwrap();
        for wanted in 1..=3 {
            assert_eq!(choose(), wanted);
            fs::write(dir.path().join(&names(wanted)[0]), "x").unwrap();
            listings.added(dir.path(), &rel, &[&names(wanted)[0]]).unwrap();
        }
        // Removed between our look and our own next file, whose mtime covers it.
        fs::remove_file(dir.path().join(&names(2)[0])).unwrap();
        fs::write(dir.path().join("y"), "y").unwrap();
        listings.added(dir.path(), &rel, &[OsStr::new("y")]).unwrap();
        assert_eq!(choose(), 2);
        // In other letters it is taken still.
        fs::write(dir.path().join("X (2).PNG"), "x").unwrap();
        listings.added(dir.path(), &rel, &[OsStr::new("X (2).PNG")]).unwrap();
        assert_eq!(choose(), 4);
    }

    #[test]
    fn a_missing_root_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let names = |_| vec![OsString::from("x")];
        let wanted = Wanted { root: &dir.path().join("no"), rel: &RelPath::root(), names: &names };
        let error = Listings::new().choose_number(&[wanted], |_| false).unwrap_err();
        assert!(matches!(error, OutboxError::RootMissing { .. }));
    }
}
