//! A received picture goes from the spool into the outbox, with its provenance.
//!
//! Promises: at every moment, and after any crash, the whole picture lies in the spool, under a hidden name
//! in its target folder, or in the outbox; [`recover_unsynced`] finishes from each of them. Nothing is
//! replaced. The name must have been committed before; the provenance stands before the picture does, and is put there
//! again where a power cut kept the picture alone.
//!
//! Where a rename reaches, and the file would look as if created there, the spool file is renamed.
//! Otherwise: copied to a hidden name that only this shot has, synced, compared; then the spool file is
//! removed and its folder synced; then renamed. That order keeps one copy sure and never makes two.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::Gid;

use super::durable::{Draft, result_mode, write_unsynced};
use super::error::OutboxError;
use super::folder::{Folder, rename};
use super::provenance;
use super::spool::{Spool, sealed_name};
use super::unsynced::Unsynced;
use crate::domain::ids::{DropId, RelPath, ShotNo};

/// What is to be published where.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Where the picture lies sealed.
    pub spool: &'a Spool,
    /// Whose it is.
    pub drop: DropId,
    /// Which shot.
    pub shot: ShotNo,
    /// The outbox.
    pub root: &'a Path,
    /// The drop's folder.
    pub rel: &'a RelPath,
    /// The committed name, extension included.
    pub name: &'a OsStr,
    /// The provenance file's name and text, if one is wanted. The text of one shot should not change between
    /// tries; where it does, the older one is replaced.
    pub provenance: Option<(&'a OsStr, &'a [u8])>,
}

/// How a picture came into the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The spool file itself was renamed.
    Renamed,
    /// It was copied.
    Copied,
    /// An earlier try had copied it; only the last rename was left.
    FromTemporary,
}

/// What [`recover_unsynced`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The spool file was there, and is published now.
    PublishedFromSpool,
    /// The temporary was there, and has its name now.
    RenamedTemporary,
    /// Neither: it was delivered, even if somebody has taken it already.
    AlreadyDelivered,
}

/// Publishes a sealed picture. With [`OutboxError::Taken`] nothing is left under either name: commit another
/// one and call this again. After any other error [`recover_unsynced`] goes on.
pub fn publish(delivery: &Delivery<'_>) -> Result<Published, OutboxError> {
    let gone = || OutboxError::Gone { path: delivery.spool.sealed_path(delivery.drop, delivery.shot) };
    let mut unsynced = Unsynced::default();
    let published = deliver(delivery, &mut unsynced)?;
    unsynced.sync()?;
    published.ok_or_else(gone)
}

/// Publishes a sealed picture, or finishes a publish of which it is not known how far it came: after a crash, or after an
/// error that has passed. The last syncs of folders are the caller's, for several pictures at once.
///
/// With [`OutboxError::Taken`] nothing is left under either name: commit another one and call this again.
pub fn recover_unsynced(delivery: &Delivery<'_>, unsynced: &mut Unsynced) -> Result<Recovered, OutboxError> {
    Ok(match deliver(delivery, unsynced)? {
        Some(Published::Renamed | Published::Copied) => Recovered::PublishedFromSpool,
        Some(Published::FromTemporary) => Recovered::RenamedTemporary,
        None => Recovered::AlreadyDelivered,
    })
}

fn deliver(d: &Delivery<'_>, unsynced: &mut Unsynced) -> Result<Option<Published>, OutboxError> {
    let spooled = d.spool.find(d.drop, d.shot)?.is_some();
    let folder = if spooled { Some(Folder::made(d.root, d.rel)?) } else { Folder::existing(d.root, d.rel)? };
    let Some(folder) = folder else {
        unsynced.lost(&d.spool.folder()?)?;
        return Ok(None);
    };
    if !spooled && folder.look(&temporary_name(d.drop, d.shot))?.is_none() {
        // A crash may have come between the last rename and the sync of the folder, which may have kept one name alone.
        if let Some((name, bytes)) = d.provenance
            && folder.look(d.name)?.is_some()
            && folder.look(name)?.is_none()
        {
            put_provenance(&folder, name, bytes, d.drop, d.shot)?;
        }
        unsynced.gained(&folder)?;
        unsynced.lost(&d.spool.folder()?)?;
        return Ok(None);
    }
    if let Some((name, bytes)) = d.provenance {
        put_provenance(&folder, name, bytes, d.drop, d.shot)?;
    }
    let done = if spooled {
        put_picture(d, &folder, unsynced)
    } else {
        finish(d, &folder, unsynced).map(|()| Published::FromTemporary)
    };
    if let (Err(OutboxError::Taken { .. }), Some((name, bytes))) = (&done, d.provenance) {
        take_back_provenance(&folder, name, bytes)?;
    }
    done.map(Some)
}

fn put_picture(d: &Delivery<'_>, folder: &Folder, unsynced: &mut Unsynced) -> Result<Published, OutboxError> {
    if make_at_home(d, folder)? {
        let spool = d.spool.folder()?;
        match rename(&spool, &sealed_name(d.drop, d.shot), folder, d.name) {
            Ok(()) => {
                // An earlier try may have begun to copy.
                folder.remove(&temporary_name(d.drop, d.shot))?;
                unsynced.gained(folder)?;
                unsynced.lost(&spool)?;
                return Ok(Published::Renamed);
            }
            // Two mounts of one filesystem.
            Err(e) if e.is_other_filesystem() => {}
            Err(e) => return Err(e),
        }
    }
    // Before the spool file goes: a name that is taken now costs no copy.
    if folder.look(d.name)?.is_some() {
        return Err(OutboxError::Taken { path: folder.at(d.name) });
    }
    stage(d, folder)?;
    unspool(d)?;
    finish(d, folder, unsynced)?;
    Ok(Published::Copied)
}

/// Gives the spool file the mode and group that a file created in `folder` would have. `false` if that can't
/// be had by changing it, so that it must be copied there.
fn make_at_home(d: &Delivery<'_>, folder: &Folder) -> Result<bool, OutboxError> {
    let (spool, name) = (d.spool.folder()?, sealed_name(d.drop, d.shot));
    let failed = |e: rustix::io::Errno| OutboxError::new("prepare", spool.at(&name), e);
    let file = spool.open(&name)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    let target = folder.stat()?;
    if stat.st_dev != target.st_dev || folder.has_default_acl() {
        return Ok(false);
    }
    let setgid = target.st_mode & 0o2000 != 0;
    let mode = result_mode();
    if (!setgid || stat.st_gid == target.st_gid) && stat.st_mode & 0o7777 == mode.bits() {
        // It was sealed so, and synced then.
        return Ok(true);
    }
    if setgid
        && stat.st_gid != target.st_gid
        && rustix::fs::fchown(&file, None, Some(Gid::from_raw(target.st_gid))).is_err()
    {
        return Ok(false);
    }
    rustix::fs::fchmod(&file, mode).map_err(failed)?;
    file.sync_all().map_err(|e| OutboxError::new("sync", spool.at(&name), e))?;
    Ok(true)
}

/// Copies the spool file to this shot's hidden name, synced and compared.
fn stage(d: &Delivery<'_>, folder: &Folder) -> Result<(), OutboxError> {
    let (spool, sealed, hidden) = (d.spool.folder()?, sealed_name(d.drop, d.shot), temporary_name(d.drop, d.shot));
    // What an earlier try left may be half; the spool file is whole.
    folder.remove(&hidden)?;
    let mut source = spool.open(&sealed)?;
    let mut draft = Draft::new(folder, hidden.clone())?;
    let wanted = draft.copy_from(&mut source, &spool.at(&sealed))?;
    draft.sync()?;
    if draft.read_back()? != wanted {
        let source = std::io::Error::other("the copy does not hold what was written");
        return Err(OutboxError::Io { path: folder.at(&hidden), doing: "compare", source });
    }
    draft.keep()
}

/// Removes the spool file, durably: from here on the hidden copy is the picture.
fn unspool(d: &Delivery<'_>) -> Result<(), OutboxError> {
    d.spool.remove(d.drop, d.shot).map(|_| ())
}

/// Gives the hidden copy its name.
fn finish(d: &Delivery<'_>, folder: &Folder, unsynced: &mut Unsynced) -> Result<(), OutboxError> {
    rename(folder, &temporary_name(d.drop, d.shot), folder, d.name)?;
    unsynced.gained(folder)
}

/// Not durable before the folder is synced.
fn put_provenance(folder: &Folder, name: &OsStr, bytes: &[u8], drop: DropId, shot: ShotNo) -> Result<(), OutboxError> {
    let taken = match write_unsynced(folder, name, bytes) {
        Err(e) if e.is_taken() => e,
        done => return done,
    };
    match read_small(folder, name)? {
        // From before a crash.
        Some(there) if there == bytes => Ok(()),
        Some(there) if provenance::is_of(&there, drop, shot) => {
            folder.remove(name)?;
            write_unsynced(folder, name, bytes)
        }
        _ => Err(taken),
    }
}

fn take_back_provenance(folder: &Folder, name: &OsStr, bytes: &[u8]) -> Result<(), OutboxError> {
    if read_small(folder, name)?.is_some_and(|there| there == bytes) {
        folder.remove(name)?;
        folder.sync()?;
    }
    Ok(())
}

/// A regular file of at most 16 MiB; `None` for anything else.
pub(super) fn read_small(folder: &Folder, name: &OsStr) -> Result<Option<Vec<u8>>, OutboxError> {
    const MOST: u64 = 16 << 20;
    let mut file = match folder.open(name) {
        Ok(file) => file.take(MOST + 1),
        Err(OutboxError::Gone { .. } | OutboxError::Obstructed { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| OutboxError::new("read", folder.at(name), e))?;
    Ok((bytes.len() as u64 <= MOST).then_some(bytes))
}

/// A picture under its hidden name: all there is of it, if the spool has it no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Temporary {
    /// Whose it is.
    pub drop: DropId,
    /// Which shot.
    pub shot: ShotNo,
    /// In which folder of the outbox.
    pub rel: RelPath,
    /// Where, for messages.
    pub path: PathBuf,
}

/// Gives a hidden copy a name after all: for copies that no row of the ledger knows of (a damaged ledger),
/// and whose spool file is gone. [`OutboxError::Taken`] if the name is.
pub fn rescue(root: &Path, temporary: &Temporary, name: &OsStr) -> Result<(), OutboxError> {
    let folder = Folder::existing(root, &temporary.rel)?;
    let folder = folder.ok_or_else(|| OutboxError::Gone { path: temporary.path.clone() })?;
    rename(&folder, &temporary_name(temporary.drop, temporary.shot), &folder, name)?;
    folder.sync()
}

fn temporary_name(drop: DropId, shot: ShotNo) -> OsString {
    format!(".{drop}-{}.reimagined.part", shot.0).into()
}

/// Reads [`temporary_name`].
pub(super) fn parse_temporary(name: &OsStr) -> Option<(DropId, ShotNo)> {
    let (drop, shot) = name.to_str()?.strip_prefix('.')?.strip_suffix(".reimagined.part")?.split_once('-')?;
    Some((DropId::parse(drop)?, ShotNo(shot.parse().ok()?)))
}

#[cfg(test)]
mod tests;
