//! A drop goes from the inbox into working, and back.
//!
//! Promises: only the very files that were looked at are claimed (same inode, size and mtime, before and
//! after; same ctime before); a drop goes whole or not at all, and what could not be undone is named. Nothing in the inbox or
//! in working is replaced. Not synced: a power cut that undoes a claim is what recovery knows how to read.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use super::error::{Obstacle, OutboxError};
use super::folder::{Entry, Folder, rename, same_inode};
use crate::domain::ids::{Facts, RelPath, show};
use crate::domain::names::fold;

/// Held for reading while a folder is made and a file renamed into it, for writing while empty folders are
/// removed: making one is synced, which is slow enough for a prune to win every time. It guards no data.
static EMPTY_FOLDERS: RwLock<()> = RwLock::new(());

/// A member of a drop as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in its folder.
    pub name: OsString,
    /// What `lstat` said of it.
    pub facts: Facts,
}

/// A drop that lies in working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The members' facts there (the rename changed their ctime), in the order in which they were given.
    pub facts: Vec<Facts>,
}

/// A drop that was not moved.
#[derive(Debug, thiserror::Error)]
#[error("{cause}{}", stranded_words(.stranded))]
pub struct ClaimError {
    /// Why. [`OutboxError::Gone`]: a member was removed. [`OutboxError::Changed`]: a member is another file or
    /// has other bytes by now. [`OutboxError::Taken`]: the name is in work.
    #[source]
    pub cause: OutboxError,
    /// Members that had been moved already and could not be put back, or what came to bear their names meanwhile.
    /// Nearly always empty.
    pub stranded: Vec<OsString>,
}

fn stranded_words(stranded: &[OsString]) -> String {
    if stranded.is_empty() {
        return String::new();
    }
    let names: Vec<_> = stranded.iter().map(|name| show(name)).collect();
    format!(" (and could not be put back: {})", names.join(", "))
}

/// What became of going back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Members that lie in the inbox again.
    pub back: Vec<OsString>,
    /// Members that were not in working (somebody took them, or they had gone back before a crash).
    pub missing: Vec<OsString>,
    /// Members whose names are taken in the inbox, ignoring case. If there is one, the drop is still in
    /// working: it stays due there, or, if it is a sidecar alone, goes to errors.
    pub taken: Vec<OsString>,
    /// Members that went back and could not be fetched again when a later one's name turned out to be taken.
    pub stranded: Vec<OsString>,
}

impl Returned {
    /// Whether nothing of the drop is left in working.
    pub fn is_back(&self) -> bool {
        self.taken.is_empty()
    }
}

/// Moves a drop's members, sidecars first and the image last, from the inbox into the same folder below
/// working.
pub fn claim(inbox: &Path, working: &Path, rel: &RelPath, members: &[Member]) -> Result<Claimed, ClaimError> {
    let mut facts = Vec::new();
    for (i, member) in members.iter().enumerate() {
        match claim_one(inbox, working, rel, member) {
            Ok(after) => facts.push(after),
            Err(Unclaimed { cause, moved }) => {
                let moved = &members[..i + usize::from(moved)];
                let moved: Vec<_> = moved.iter().map(|m| (m.name.as_os_str(), m.facts)).collect();
                let stranded = undo(working, inbox, rel, &moved);
                prune(working, rel);
                return Err(ClaimError { cause, stranded });
            }
        }
    }
    Ok(Claimed { facts })
}

/// A member that is not claimed, and whether what bears its name was moved all the same.
struct Unclaimed {
    cause: OutboxError,
    moved: bool,
}

impl From<OutboxError> for Unclaimed {
    fn from(cause: OutboxError) -> Self {
        Self { cause, moved: false }
    }
}

fn claim_one(inbox: &Path, working: &Path, rel: &RelPath, member: &Member) -> Result<Facts, Unclaimed> {
    let gone = || OutboxError::Gone { path: rel.under(inbox).join(&member.name) };
    let from = Folder::existing(inbox, rel)?.ok_or_else(gone)?;
    let before = from.look(&member.name)?.ok_or_else(gone)?;
    // With the time of its last change, too, which nobody can set back; the rename itself changes that.
    if !is_member(&before, member) || before.facts.ctime_ns != member.facts.ctime_ns {
        return Err(OutboxError::Changed { path: from.at(&member.name) }.into());
    }
    let to = rename_into(&from, &member.name, working, rel)?;
    let changed = OutboxError::Changed { path: from.at(&member.name) };
    match to.look(&member.name) {
        Ok(Some(after)) if is_member(&after, member) => Ok(after.facts),
        // Swapped between the look and the rename: not what was checked, so back with it.
        Ok(Some(_)) => {
            let moved = rename(&to, &member.name, &from, &member.name).is_err();
            Err(Unclaimed { cause: changed, moved })
        }
        Ok(None) => Err(changed.into()),
        Err(cause) => Err(Unclaimed { cause, moved: true }),
    }
}

fn is_member(entry: &Entry, member: &Member) -> bool {
    let (there, wanted) = (&entry.facts, &member.facts);
    entry.is_file() && same_inode(there, wanted) && (there.size, there.mtime_ns) == (wanted.size, wanted.mtime_ns)
}

/// Moves a drop that was not and can't have been billed back into the inbox: give its sidecars first, its
/// image last, and close its row before. All or nothing: see [`Returned::taken`].
pub fn unclaim(working: &Path, inbox: &Path, rel: &RelPath, members: &[OsString]) -> Result<Returned, ClaimError> {
    let plain = |cause| ClaimError { cause, stranded: Vec::new() };
    let mut returned = Returned::default();
    let from = Folder::existing(working, rel).map_err(plain)?;
    let mut present = Vec::new();
    for name in members {
        match from.as_ref().map_or(Ok(None), |from| from.look(name)).map_err(plain)? {
            Some(entry) if entry.is_file() => present.push((name.as_os_str(), entry.facts)),
            Some(_) => {
                let path = rel.under(working).join(name);
                return Err(plain(OutboxError::Obstructed { path, what: Obstacle::NotAFile }));
            }
            None => returned.missing.push(name.clone()),
        }
    }
    returned.taken = taken_in(inbox, rel, &present).map_err(plain)?;
    let (Some(from), true) = (from, returned.taken.is_empty()) else { return Ok(returned) };
    for (i, (name, _)) in present.iter().enumerate() {
        match rename_into(&from, name, inbox, rel) {
            Ok(_) => returned.back.push(name.to_os_string()),
            Err(cause) => {
                let stranded = undo(inbox, working, rel, &present[..i]);
                if !cause.is_taken() {
                    return Err(ClaimError { cause, stranded });
                }
                returned.taken = vec![name.to_os_string()];
                returned.back.clone_from(&stranded);
                returned.stranded = stranded;
                return Ok(returned);
            }
        }
    }
    drop(from);
    prune(working, rel);
    Ok(returned)
}

/// Which of these names, of files that lie in working, are taken in the inbox by others, ignoring case.
pub fn taken(working: &Path, inbox: &Path, rel: &RelPath, members: &[OsString]) -> Result<Vec<OsString>, OutboxError> {
    let Some(from) = Folder::existing(working, rel)? else { return Ok(Vec::new()) };
    let mut present = Vec::new();
    for name in members {
        if let Some(entry) = from.look(name)? {
            present.push((name.as_os_str(), entry.facts));
        }
    }
    taken_in(inbox, rel, &present)
}

/// Which of these names stand in the inbox, ignoring case, as other files.
fn taken_in(inbox: &Path, rel: &RelPath, members: &[(&OsStr, Facts)]) -> Result<Vec<OsString>, OutboxError> {
    let Some(to) = Folder::existing(inbox, rel)? else { return Ok(Vec::new()) };
    let mut taken = Vec::new();
    let names = to.names()?;
    for (name, facts) in members {
        let wanted = fold(name);
        for (there, _) in names.iter().filter(|(there, _)| fold(there) == wanted) {
            // Our own file under both names: a crash between link and unlink.
            if !to.look(there)?.is_some_and(|entry| same_inode(&entry.facts, facts)) {
                taken.push(name.to_os_string());
                break;
            }
        }
    }
    Ok(taken)
}

/// Moves back what was moved, as far as it is still the same file and its place is free; answers with what
/// stayed.
fn undo(from: &Path, to: &Path, rel: &RelPath, moved: &[(&OsStr, Facts)]) -> Vec<OsString> {
    let back = |name: &OsStr, facts: &Facts| -> Result<bool, OutboxError> {
        let Some(folder) = Folder::existing(from, rel)? else { return Ok(false) };
        if !folder.look(name)?.is_some_and(|entry| same_inode(&entry.facts, facts)) {
            return Ok(false);
        }
        rename_into(&folder, name, to, rel).map(|_| true)
    };
    let stayed = moved.iter().filter(|(name, facts)| !back(name, facts).unwrap_or(false));
    stayed.map(|(name, _)| name.to_os_string()).collect()
}

/// Renames into the same folder below another root, which is made if need be, and made again if somebody
/// else removed it in between.
fn rename_into(from: &Folder, name: &OsStr, root: &Path, rel: &RelPath) -> Result<Folder, OutboxError> {
    let _making = EMPTY_FOLDERS.read().unwrap_or_else(PoisonError::into_inner);
    let mut tries = 0;
    loop {
        let to = Folder::made(root, rel);
        let done = to.and_then(|to| match rename(from, name, &to, name) {
            Ok(()) => Ok(to),
            Err(e) => Err(e),
        });
        tries += 1;
        match done {
            Err(OutboxError::Gone { .. }) if tries < 8 && from.look(name)?.is_some() => {}
            done => return done,
        }
    }
}

/// Removes the folders below working that a drop left empty, from `rel` upwards, never working itself.
/// Call it with working only: elsewhere an empty folder is the user's.
pub fn prune(working: &Path, rel: &RelPath) {
    let _removing = EMPTY_FOLDERS.write().unwrap_or_else(PoisonError::into_inner);
    let mut at = rel.clone();
    while let (Some(parent), Some(name)) = (at.parent(), at.name()) {
        // A folder that can't be looked at or is not empty stays, and those above it are not empty then.
        let removed = Folder::existing(working, &parent).ok().flatten().is_some_and(|folder| folder.remove_empty(name));
        if !removed {
            return;
        }
        at = parent;
    }
}

#[cfg(test)]
mod tests;
