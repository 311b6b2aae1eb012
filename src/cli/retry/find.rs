//! Which drops lie in errors, and which of them a path means.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use crate::config::Config;
use crate::domain::ids::{Place, RelPath, show};
use crate::domain::kinds::{NameKind, Why, classify};
use crate::domain::life::Fate;
use crate::domain::names::{SetNames, fold, stem_of_note};
use crate::domain::pairing::{Fold, Named, group_key, pair};
use crate::ledger::{Ledger as _, OpenDrop};
use crate::outbox::OutboxError;
use crate::outbox::folder::Folder;

use super::super::exit::Failure;
use super::{Book, lost};

/// How often a folder in which something moves is looked at again.
const LOOKS: u32 = 20;

/// A drop in errors: what goes back together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// Its folder below errors, and so below the inbox.
    pub(super) folder: RelPath,
    /// Its name without extension.
    pub(super) stem: OsString,
    /// Sidecars first, pictures last.
    pub(super) members: Vec<OsString>,
    /// Notes that stand for it.
    pub(super) notes: Vec<OsString>,
    /// It was named itself, and not a folder around it.
    pub(super) is_named: bool,
}

impl Failed {
    /// For people: the file that stands for it.
    pub(super) fn place(&self) -> Place {
        Place { folder: self.folder.clone(), name: self.members.last().cloned().unwrap_or_default() }
    }

    fn holds(&self, name: &OsStr) -> bool {
        self.members.iter().chain(&self.notes).any(|own| own == name)
    }
}

/// What a call of `retry` is about.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Drops to be moved, each once.
    pub(super) drops: Vec<Failed>,
    /// Rows of drops whose originals are nowhere.
    pub(super) lost: Vec<OpenDrop>,
    /// What was asked for and can't go now, and why.
    pub(super) left: Vec<String>,
}

/// Everything that `paths` (or `all`) mean. An unknown path ends it.
pub(super) fn find(config: &Config, book: &mut Book, paths: &[PathBuf], all: bool) -> Result<Found, Failure> {
    let errors = &config.folders.errors;
    let mut search =
        Search { errors: errors.clone(), folders: BTreeMap::new(), found: Found::default(), taken: BTreeSet::new() };
    if all {
        if errors.is_dir() {
            search.below(book, &RelPath::root())?;
        }
        return Ok(search.found);
    }
    for path in paths {
        match place(errors, path) {
            Some((rel, true)) => search.below(book, &rel)?,
            Some((rel, false)) => search.one(book, path, &rel)?,
            None => match lost::find(config, book, path)? {
                Some(open) => search.found.lost.push(open),
                None => return Err(unknown(errors, path)),
            },
        }
    }
    Ok(search.found)
}

fn unknown(errors: &Path, path: &Path) -> Failure {
    let (errors, shown) = (show(errors.as_os_str()), show(path.as_os_str()));
    let why = if fs::symlink_metadata(path).is_ok() { "does not lie in" } else { "is not there, nor in" };
    Failure::usage(format!(
        "{shown} {why} {errors}; nothing was moved. Name a picture, sidecar, note or folder there, or take all: reimagined retry --all"
    ))
}

/// Where `path` lies below errors, and whether it is a folder; `None` if it is not there. A path that is not
/// there is looked for below errors, too: so are drops shown by `status`.
fn place(errors: &Path, path: &Path) -> Option<(RelPath, bool)> {
    let root = errors.canonicalize().ok()?;
    let below = |path: &Path| -> Option<(RelPath, bool)> {
        let found = fs::symlink_metadata(path).ok()?;
        let real = match path.file_name() {
            // Of a file, only the folder around it: a link is itself, not what it points to.
            Some(name) if !found.is_dir() => {
                let around = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                around.canonicalize().ok()?.join(name)
            }
            _ => path.canonicalize().ok()?,
        };
        Some((RelPath::below(&root, &real)?, found.is_dir()))
    };
    below(path).or_else(|| {
        // Whatever else `.` and `..` mean, it is not all that failed.
        let names = path.components().all(|part| matches!(part, Component::Normal(_)));
        (path.is_relative() && names).then(|| below(&errors.join(path))).flatten()
    })
}

struct Search {
    errors: PathBuf,
    folders: BTreeMap<RelPath, Here>,
    found: Found,
    taken: BTreeSet<Place>,
}

/// The drops of one folder.
#[derive(Clone, Debug, Default)]
struct Here {
    drops: Vec<Failed>,
    /// Those that the daemon is still moving there.
    arriving: Vec<Failed>,
}

impl Search {
    fn take(&mut self, drop: &Failed, arriving: bool, is_named: bool) {
        if is_named && let Some(known) = self.found.drops.iter_mut().find(|known| known.place() == drop.place()) {
            known.is_named = true;
        }
        if !self.taken.insert(drop.place()) {
            return;
        }
        if arriving {
            self.found
                .left
                .push(format!("{} is just being moved there by the daemon: try again in a moment", drop.place()));
        } else {
            self.found.drops.push(Failed { is_named, ..drop.clone() });
        }
    }

    /// Every drop in `folder` and below.
    fn below(&mut self, book: &mut Book, folder: &RelPath) -> Result<(), Failure> {
        let mut todo = vec![folder.clone()];
        while let Some(folder) = todo.pop() {
            let here = self.folder(book, &folder)?;
            here.drops.iter().for_each(|drop| self.take(drop, false, false));
            here.arriving.iter().for_each(|drop| self.take(drop, true, false));
            let names = names(&self.errors, &folder).map_err(|e| Failure::unexpected(e.to_string()))?;
            let is_folder = |(name, kind): &(OsString, FileType)| {
                *kind == FileType::Directory && classify(&folder, name, true, &|_| false) == NameKind::Folder
            };
            let inner = names.into_iter().filter(is_folder).map(|(name, _)| folder.join(&name));
            // Taken from the end, so that they come in order.
            todo.extend(inner.rev());
        }
        Ok(())
    }

    /// The drop that this file belongs to.
    fn one(&mut self, book: &mut Book, path: &Path, rel: &RelPath) -> Result<(), Failure> {
        let (folder, name) = (rel.parent().unwrap_or_default(), rel.name().unwrap_or_default().to_owned());
        let here = self.folder(book, &folder)?;
        let mut own = false;
        for (drops, arriving) in [(&here.drops, false), (&here.arriving, true)] {
            for drop in drops.iter().filter(|drop| drop.holds(&name)) {
                own = true;
                self.take(drop, arriving, true);
            }
        }
        if own {
            return Ok(());
        }
        let shown = show(path.as_os_str());
        Err(Failure::usage(if is_note(&name) {
            format!("{shown}: the files that this note is about are not beside it, so there is nothing to move")
        } else {
            format!("{shown} is no file of a drop, nor a note or a folder; nothing was moved")
        }))
    }

    fn folder(&mut self, book: &mut Book, folder: &RelPath) -> Result<Here, Failure> {
        if let Some(known) = self.folders.get(folder) {
            return Ok(known.clone());
        }
        let here = drops_in(&self.errors, folder, book)?;
        self.folders.insert(folder.clone(), here.clone());
        Ok(here)
    }
}

fn is_note(name: &OsStr) -> bool {
    stem_of_note(name).is_some()
}

fn names(errors: &Path, folder: &RelPath) -> Result<Vec<(OsString, FileType)>, OutboxError> {
    let Some(open) = Folder::existing(errors, folder)? else { return Ok(Vec::new()) };
    let mut names = open.names()?;
    for (name, kind) in &mut names {
        // Filesystems that don't tell kinds in a listing.
        if *kind == FileType::Unknown
            && let Some(entry) = open.look(name)?
        {
            *kind = entry.kind;
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

/// The drops of a folder.
///
/// The daemon files a drop one by one, sidecars first. Its names are committed before the first arrives: so
/// when nobody holds names here between two listings that are equal, what is listed is whole.
fn drops_in(errors: &Path, folder: &RelPath, book: &mut Book) -> Result<Here, Failure> {
    let list = || files(errors, folder).map_err(|e| Failure::unexpected(e.to_string()));
    let mut before = list()?;
    for _ in 0..LOOKS {
        let held = arriving(book, folder)?;
        let after = list()?;
        if before == after {
            let is_held = |drop: &Failed| drop.members.iter().any(|name| held.contains(name));
            let (arriving, drops) = group(folder, &after).into_iter().partition(is_held);
            return Ok(Here { drops, arriving });
        }
        before = after;
    }
    let place = folder.under(errors);
    Err(Failure::unexpected(format!("{} changes all the time: try again later", show(place.as_os_str()))))
}

fn files(errors: &Path, folder: &RelPath) -> Result<Vec<OsString>, OutboxError> {
    let names = names(errors, folder)?;
    Ok(names.into_iter().filter(|(_, kind)| *kind == FileType::RegularFile).map(|(name, _)| name).collect())
}

/// Names in `folder` of errors that open rows are filed under.
fn arriving(book: &mut Book, folder: &RelPath) -> Result<BTreeSet<OsString>, Failure> {
    let Some(ledger) = book.ledger() else { return Ok(BTreeSet::new()) };
    let open = ledger.open_drops().map_err(|e| Failure::unexpected(e.to_string()))?;
    let here = open.into_iter().filter(|row| row.drop.folder == *folder).filter_map(|row| row.filing);
    Ok(here.filter(|filing| filing.fate == Fate::Errors).flat_map(|filing| filing.names).collect())
}

/// Sorts a folder's files into what goes back together, as they were paired when they were dropped. Pictures
/// that share a sidecar go together, since it can't go with each.
fn group(folder: &RelPath, files: &[OsString]) -> Vec<Failed> {
    let mut groups: BTreeMap<Fold, Vec<Named<'_>>> = BTreeMap::new();
    let (mut notes, mut drops, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    for name in files {
        match classify(folder, name, false, &|_| false) {
            kind @ (NameKind::Picture(_) | NameKind::Sidecar(_)) => {
                groups.entry(group_key(name)).or_default().push(Named { name, kind });
            }
            // Its note has the name without the last extension, whatever that is.
            NameKind::Foreign => {
                let stem = Path::new(name).file_stem().unwrap_or(name);
                foreign.push(failed(folder, stem, vec![name.clone()]));
            }
            NameKind::Ignored(Why::Ours) if is_note(name) => notes.push(name),
            NameKind::Ignored(_) | NameKind::Preset | NameKind::Folder => {}
        }
    }
    for group in groups.values() {
        let pairing = pair(group);
        let mut sets: Vec<(OsString, BTreeSet<usize>, Vec<usize>)> = Vec::new();
        for unit in pairing.units {
            let parts: BTreeSet<usize> = unit.parts.iter().map(|part| part.index).collect();
            match sets.iter_mut().find(|(_, known, _)| !known.is_disjoint(&parts)) {
                Some((_, known, pictures)) => {
                    known.extend(parts);
                    pictures.extend(unit.image);
                }
                None => sets.push((unit.stem, parts, unit.image.into_iter().collect())),
            }
        }
        for (stem, parts, pictures) in sets {
            let members = parts.into_iter().chain(pictures).map(|i| group[i].name.to_owned()).collect();
            drops.push(failed(folder, &stem, members));
        }
        for index in pairing.left {
            let name = group[index].name;
            drops.push(failed(folder, crate::domain::kinds::split(name).0, vec![name.to_owned()]));
        }
    }
    drops.append(&mut foreign);
    for note in notes {
        // The exact stem first: where case tells drops apart, a note is of one of them.
        let of = |drop: &Failed| SetNames::new(&drop.stem, Vec::<OsString>::new()).note(1);
        let exact = drops.iter().position(|drop| of(drop) == *note);
        let index = exact.or_else(|| drops.iter().position(|drop| fold(&of(drop)) == fold(note)));
        if let Some(drop) = index.and_then(|i| drops.get_mut(i)) {
            drop.notes.push(note.clone());
        }
    }
    drops.sort_by_key(Failed::place);
    drops
}

fn failed(folder: &RelPath, stem: &OsStr, members: Vec<OsString>) -> Failed {
    Failed { folder: folder.clone(), stem: stem.to_owned(), members, notes: Vec::new(), is_named: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&str]) -> Vec<String> {
        let files: Vec<_> = names.iter().map(OsString::from).collect();
        let line = |drop: &Failed| {
            let all: Vec<_> = drop.members.iter().map(|name| show(name)).collect();
            let notes: Vec<_> = drop.notes.iter().map(|name| format!(" !{}", show(name))).collect();
            all.join(" ") + &notes.concat()
        };
        group(&RelPath::root(), &files).iter().map(line).collect()
    }

    #[test]
    fn files_in_errors_are_sorted_into_what_goes_back_together() {
        for (names, wanted) in [
            (&["a.error.txt", "a.jpg", "a.txt"][..], &["a.txt a.jpg !a.error.txt"][..]),
            (&["A.error.txt", "a.jpg"], &["a.jpg !A.error.txt"]),
            (&["a (2).error.txt", "a (2).jpg", "a.jpg"], &["a (2).jpg !a (2).error.txt", "a.jpg"]),
            (&["a.jpg", "a.jpg.txt", "a.toml", "b.txt"], &["a.jpg.txt a.toml a.jpg", "b.txt"]),
            (&["a.jpg", "a.png", "a.txt"], &["a.txt a.jpg a.png"]),
            (&["a.jpg", "a.png"], &["a.jpg", "a.png"]),
            (&["x.pdf", "x.error.txt"], &["x.pdf !x.error.txt"]),
            (
                &["x.tar.gz", "x.tar.error.txt", "noext", "noext.error.txt"],
                &["noext !noext.error.txt", "x.tar.gz !x.tar.error.txt"],
            ),
            (
                &["x.pdf", "x.error.txt", "x (2).txt", "x (2).error.txt"],
                &["x (2).txt !x (2).error.txt", "x.pdf !x.error.txt"],
            ),
            (&["a.error.txt", ".hidden", "preset.toml", "README"], &[]),
        ] {
            assert_eq!(told(names), wanted, "{names:?}");
        }
    }
}
