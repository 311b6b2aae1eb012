//! An original goes to the archive or to errors, or comes back from there.
//!
//! Promises: the file is at every moment whole at one of its two places; nothing is replaced; between
//! filesystems it is copied under a hidden name, synced, compared, renamed, and only then unlinked. Each
//! call can be repeated after a crash and finishes what was begun. Both folders are synced when it returns, but by
//! [`file_unsynced`].

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use super::claim::prune;
use super::durable::{Draft, fingerprint, random_name};
use super::error::{Obstacle, OutboxError};
use super::folder::{Entry, Folder, rename, same_inode};
use super::unsynced::{Unsynced, nearest};
use crate::domain::ids::{Fingerprint, RelPath};

/// From where to where. The new name must have been committed before.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The root that it lies in.
    pub from_root: &'a Path,
    /// The folder below it.
    pub from_rel: &'a RelPath,
    /// Its name there.
    pub from_name: &'a OsStr,
    /// The root that it goes to.
    pub to_root: &'a Path,
    /// The folder below it, made if need be.
    pub to_rel: &'a RelPath,
    /// Its name there.
    pub to_name: &'a OsStr,
    /// BLAKE3 of its bytes, where known: how a file that arrived before a crash is known again. Without it,
    /// any file of that name counts.
    pub print: Option<Fingerprint>,
    /// A root of the daemon's own, on the target's filesystem, in which a copy is prepared; else it is
    /// prepared in the target folder. For moves into the inbox, where nothing of ours may lie: working.
    pub stage: Option<&'a Path>,
}

/// How it got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Renamed.
    Renamed,
    /// Copied, compared and unlinked.
    Copied,
    /// It was there already, and is gone from its old place.
    AlreadyThere,
}

/// Moves an original out of working (`from_root`) and removes the folders that it leaves empty there.
/// [`OutboxError::Taken`]: commit another number. [`OutboxError::Gone`]: it is in neither place.
pub fn file_away(filing: &Move<'_>) -> Result<Moved, OutboxError> {
    let moved = move_file(filing)?;
    prune(filing.from_root, filing.from_rel);
    Ok(moved)
}

/// [`file_away`], but for the syncs of both folders: the caller does them, for several originals at once.
pub fn file_unsynced(filing: &Move<'_>, unsynced: &mut Unsynced) -> Result<Moved, OutboxError> {
    // Opened before: others may empty it, too, and remove it then.
    let from = nearest(filing.from_root, filing.from_rel)?;
    let moved = move_unsynced(filing, unsynced)?;
    // It may go when it is empty, but not before its entry is surely gone.
    unsynced.lost_below(&from, filing.from_root, filing.from_rel)?;
    Ok(moved)
}

/// [`file_away`] from any other root: empty folders stay.
pub fn move_file(filing: &Move<'_>) -> Result<Moved, OutboxError> {
    let mut unsynced = Unsynced::default();
    let moved = move_unsynced(filing, &mut unsynced)?;
    unsynced.sync()?;
    Ok(moved)
}

/// A whole copy of a file on its target's filesystem, under a hidden name: gone again unless it is [`put`].
pub struct Staged<'a> {
    draft: Draft<'a>,
    /// The source, as it was when the copy was compared with it.
    source: Entry,
}

/// Copies a file that has to change its filesystem into `stage`, synced and compared, so that several can be put in
/// their places at one moment. `None`: a rename will do.
pub fn stage<'a>(m: &Move<'_>, stage: &'a Folder) -> Result<Option<Staged<'a>>, OutboxError> {
    let gone = || OutboxError::Gone { path: m.from_rel.under(m.from_root).join(m.from_name) };
    let from = Folder::existing(m.from_root, m.from_rel)?.ok_or_else(gone)?;
    if from.stat()?.st_dev == stage.stat()?.st_dev {
        return Ok(None);
    }
    let before = from.look(m.from_name)?.filter(Entry::is_file).ok_or_else(gone)?;
    if !from.may_change() {
        return Err(OutboxError::new("move out of its folder", from.at(m.from_name), rustix::io::Errno::ACCESS));
    }
    let draft = draft(m, &from, stage)?;
    match from.look(m.from_name)? {
        Some(source) if state(&source) == state(&before) => Ok(Some(Staged { draft, source })),
        _ => Err(OutboxError::Changed { path: from.at(m.from_name) }),
    }
}

/// Gives a staged copy its name.
pub fn put(m: &Move<'_>, staged: Staged<'_>) -> Result<Put, OutboxError> {
    let Staged { draft, source } = staged;
    draft.publish(&Folder::made(m.to_root, m.to_rel)?, m.to_name)?;
    Ok(Put { source })
}

/// A file whose copy stands.
pub struct Put {
    source: Entry,
}

/// Unlinks the source of what was put, unless it was touched since it was copied.
pub fn take_source_away(m: &Move<'_>, put: &Put) -> Result<(), OutboxError> {
    let Some(from) = Folder::existing(m.from_root, m.from_rel)? else { return Ok(()) };
    match from.look(m.from_name)? {
        None => Ok(()),
        Some(now) if state(&now) == state(&put.source) => {
            from.remove(m.from_name)?;
            from.sync()
        }
        Some(_) => Err(OutboxError::Changed { path: from.at(m.from_name) }),
    }
}

/// What changes when a file is touched.
fn state(entry: &Entry) -> (u64, i128, i128, u64) {
    let facts = &entry.facts;
    (facts.size, facts.mtime_ns.into(), facts.ctime_ns.into(), facts.ino)
}

/// How often the target's folder is made again.
const TRIES: u32 = 8;

fn move_unsynced(m: &Move<'_>, unsynced: &mut Unsynced) -> Result<Moved, OutboxError> {
    let gone = || OutboxError::Gone { path: m.from_rel.under(m.from_root).join(m.from_name) };
    let from = Folder::existing(m.from_root, m.from_rel)?;
    let source = from.as_ref().map_or(Ok(None), |from| from.look(m.from_name))?;
    let (Some(from), Some(source)) = (&from, source) else {
        return if arrived(m, unsynced)? { Ok(Moved::AlreadyThere) } else { Err(gone()) };
    };
    if !source.is_file() {
        return Err(OutboxError::Obstructed { path: from.at(m.from_name), what: Obstacle::NotAFile });
    }
    for _ in 0..TRIES {
        match into_place(m, from, unsynced) {
            // Somebody tidies empty folders away between one step and the next.
            Err(OutboxError::Gone { .. }) if from.look(m.from_name)?.is_some() => {}
            moved => return moved,
        }
    }
    let (path, source) = (m.to_rel.under(m.to_root), std::io::ErrorKind::NotFound.into());
    Err(OutboxError::Io { path, doing: "make the folder, which somebody removes", source })
}

/// A file that is there goes to its new place.
fn into_place(m: &Move<'_>, from: &Folder, unsynced: &mut Unsynced) -> Result<Moved, OutboxError> {
    let to = Folder::made(m.to_root, m.to_rel)?;
    match rename(from, m.from_name, &to, m.to_name) {
        Ok(()) => {
            unsynced.gained(&to)?;
            unsynced.lost(from)?;
            Ok(Moved::Renamed)
        }
        Err(e) if e.is_other_filesystem() => {
            // It came here by a rename that nobody synced: undone by a power cut after the copy stands, the file
            // would be in two places.
            from.sync()?;
            copy(m, from, &to)?;
            unlink_source(m, from, &to)?;
            Ok(Moved::Copied)
        }
        Err(e) => Err(e),
    }
}

/// Whether the file stands at its new place, moved there before a crash.
fn arrived(m: &Move<'_>, unsynced: &mut Unsynced) -> Result<bool, OutboxError> {
    let Some(to) = Folder::existing(m.to_root, m.to_rel)? else { return Ok(false) };
    let same = match (open_if_file(&to, m.to_name)?, m.print) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(mut file), Some(print)) => fingerprint(&mut file, &to.at(m.to_name))? == print,
    };
    if same {
        unsynced.gained(&to)?;
        if let Some(from) = Folder::existing(m.from_root, m.from_rel)? {
            unsynced.lost(&from)?;
        }
    }
    Ok(same)
}

/// Puts a synced and compared copy under the new name. One that a crash left there is good.
fn copy(m: &Move<'_>, from: &Folder, to: &Folder) -> Result<(), OutboxError> {
    if to.look(m.to_name)?.is_some() {
        return if equal(m, from, to)? { to.sync() } else { Err(OutboxError::Taken { path: to.at(m.to_name) }) };
    }
    let stage = m.stage.map(Folder::root).transpose()?;
    draft(m, from, stage.as_ref().unwrap_or(to))?.publish(to, m.to_name)
}

/// A copy in `into`, synced and compared.
fn draft<'a>(m: &Move<'_>, from: &Folder, into: &'a Folder) -> Result<Draft<'a>, OutboxError> {
    let (mut source, path) = (from.open(m.from_name)?, from.at(m.from_name));
    let mut draft = Draft::new(into, random_name()?)?;
    draft.copy_from(&mut source, &path)?;
    draft.look_like(&source);
    draft.sync()?;
    if draft.read_back()? != fingerprint(&mut source, &path)? {
        return Err(OutboxError::Changed { path });
    }
    Ok(draft)
}

/// Unlinks the source, if the copy at the new place holds what it holds now.
fn unlink_source(m: &Move<'_>, from: &Folder, to: &Folder) -> Result<(), OutboxError> {
    if !equal(m, from, to)? {
        return Err(OutboxError::Changed { path: from.at(m.from_name) });
    }
    from.remove(m.from_name)?;
    from.sync()
}

/// Whether both places hold the same bytes, and the source was not touched while they were compared.
fn equal(m: &Move<'_>, from: &Folder, to: &Folder) -> Result<bool, OutboxError> {
    let Some(mut there) = open_if_file(to, m.to_name)? else { return Ok(false) };
    let before = from.look(m.from_name)?;
    let (mut here, path) = (from.open(m.from_name)?, from.at(m.from_name));
    let same = fingerprint(&mut here, &path)? == fingerprint(&mut there, &to.at(m.to_name))?;
    let after = from.look(m.from_name)?;
    let two_files = match (&before, to.look(m.to_name)?) {
        (Some(a), Some(b)) => !same_inode(&a.facts, &b.facts),
        _ => false,
    };
    Ok(same && two_files && before.as_ref().map(state) == after.as_ref().map(state))
}

fn open_if_file(folder: &Folder, name: &OsStr) -> Result<Option<File>, OutboxError> {
    match folder.open(name) {
        Ok(file) => Ok(Some(file)),
        Err(OutboxError::Gone { .. } | OutboxError::Obstructed { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
