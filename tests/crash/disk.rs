//! A model of what a disk keeps when the power goes: bytes that were synced, and names whose directory was.
//!
//! It watches a traced run. Of each file it holds the bytes as they were at its last sync (what was there
//! before the run counts as synced), of each directory the names at its last sync, and in between the list of
//! changes to names that are not synced yet. A rename is one change: it is on the disk whole or not at all, as
//! a journalling filesystem has it. [`Disk::cut`] then makes the real folders what a disk might hold.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::tracer::{Effect, Watcher};

/// What of the changes that were not synced is lost with the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it: only what was promised is there.
    Everything,
    /// The bytes of files, while every change of names is there: empty files under their final names.
    Bytes,
    /// Bytes, and the later half of the changes of names.
    BytesAndHalfTheNames,
}

/// Device and inode.
type Id = (u64, u64);

/// A file or directory, held open, so that its number is not given to another one.
struct Node {
    durable: Durable,
    file: File,
}

/// What of it is on the disk.
enum Durable {
    Names(BTreeMap<OsString, Id>),
    Bytes(Vec<u8>),
}

/// A change of names: which name in which directory means what from then on.
struct Change(Vec<(Id, OsString, Option<Id>)>);

/// The model.
pub struct Disk {
    roots: Vec<PathBuf>,
    nodes: BTreeMap<Id, Node>,
    pending: Vec<Change>,
    /// What stood under the names of steps that are under way.
    before: BTreeMap<PathBuf, Option<Id>>,
}

fn id(path: &Path) -> Option<Id> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn entry(path: &Path) -> Option<(Id, OsString)> {
    Some((id(path.parent()?)?, path.file_name()?.to_owned()))
}

impl Disk {
    /// Of what stands below these folders now, all of it durable.
    pub fn new(roots: &[PathBuf]) -> Self {
        let roots: Vec<_> = roots.iter().map(|root| root.canonicalize().unwrap()).collect();
        let mut disk =
            Self { roots: roots.clone(), nodes: BTreeMap::new(), pending: Vec::new(), before: BTreeMap::new() };
        for entry in roots.iter().flat_map(walkdir::WalkDir::new).map(Result::unwrap) {
            disk.meet(entry.path());
            if entry.depth() > 0 {
                let (directory, name) = self::entry(entry.path()).unwrap();
                let id = id(entry.path()).unwrap();
                disk.names(directory).insert(name, id);
            }
        }
        for node in disk.nodes.values_mut() {
            if let Durable::Bytes(bytes) = &mut node.durable {
                *bytes = read(&node.file);
            }
        }
        disk
    }

    fn names(&mut self, directory: Id) -> &mut BTreeMap<OsString, Id> {
        match self.nodes.get_mut(&directory).map(|node| &mut node.durable) {
            Some(Durable::Names(names)) => names,
            _ => panic!("a directory that nobody met"),
        }
    }

    /// Makes a node known, with nothing durable in it.
    fn meet(&mut self, path: &Path) -> Option<Id> {
        let meta = fs::symlink_metadata(path).ok()?;
        let id = (meta.dev(), meta.ino());
        if let Entry::Vacant(unknown) = self.nodes.entry(id) {
            let file = File::open(path).ok()?;
            let durable = if meta.is_dir() { Durable::Names(BTreeMap::new()) } else { Durable::Bytes(Vec::new()) };
            unknown.insert(Node { durable, file });
        }
        Some(id)
    }

    fn change(&mut self, edits: impl IntoIterator<Item = (Option<(Id, OsString)>, Option<Id>)>) {
        let edits = edits.into_iter().filter_map(|(place, id)| place.map(|(directory, name)| (directory, name, id)));
        self.pending.push(Change(edits.collect()));
    }

    /// A directory was synced: the changes of its names are durable, and with each of them what came before it in
    /// the other directory that it touches.
    fn settle(&mut self, directory: Id) {
        let mut touched = vec![directory];
        let mut durable = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            if change.0.iter().any(|(d, ..)| touched.contains(d)) {
                touched.extend(change.0.iter().map(|(d, ..)| *d));
                durable.push(change);
            } else {
                self.pending.push(change);
            }
        }
        self.pending.reverse();
        durable.iter().rev().for_each(|change| self.apply(change));
    }

    fn apply(&mut self, change: &Change) {
        for (directory, name, id) in &change.0 {
            let names = self.names(*directory);
            match id {
                Some(id) => names.insert(name.clone(), *id),
                None => names.remove(name),
            };
        }
    }

    /// The power has gone: makes of the folders what the disk kept.
    pub fn cut(mut self, loss: Loss) {
        let kept = match loss {
            Loss::Everything => 0,
            Loss::Bytes => self.pending.len(),
            Loss::BytesAndHalfTheNames => self.pending.len().div_ceil(2),
        };
        let pending = std::mem::take(&mut self.pending);
        pending.iter().take(kept).for_each(|change| self.apply(change));
        for root in &self.roots {
            for inside in fs::read_dir(root).unwrap().map(|e| e.unwrap().path()) {
                if inside.is_dir() { fs::remove_dir_all(inside).unwrap() } else { fs::remove_file(inside).unwrap() }
            }
            self.write(root, id(root).unwrap());
        }
    }

    fn write(&self, path: &Path, id: Id) {
        match self.nodes.get(&id).map(|node| &node.durable) {
            Some(Durable::Names(names)) => {
                fs::create_dir_all(path).unwrap();
                for (name, id) in names {
                    self.write(&path.join(name), *id);
                }
            }
            Some(Durable::Bytes(bytes)) => fs::write(path, bytes).unwrap(),
            None => panic!("{} is known to nobody", path.display()),
        }
    }
}

fn read(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

impl Watcher for Disk {
    fn before(&mut self, effect: &Effect) {
        // What is to go or to be replaced must be known, and whether what is to be made was there already.
        match effect {
            Effect::Create(path) | Effect::Remove(path) => {
                self.before.insert(path.clone(), id(path));
            }
            Effect::Rename(from, to) | Effect::Link(from, to) => {
                self.meet(from);
                self.meet(to);
                self.before.insert(from.clone(), id(from));
            }
            Effect::Sync(_) | Effect::Other => {}
        }
    }

    fn after(&mut self, effect: &Effect) {
        match effect {
            Effect::Create(path) => {
                let there = self.before.remove(path).flatten();
                let id = self.meet(path);
                if id.is_some() && there.is_none() {
                    self.change([(entry(path), id)]);
                }
            }
            Effect::Remove(path) => {
                self.before.remove(path);
                self.change([(entry(path), None)]);
            }
            Effect::Rename(from, to) => {
                let id = self.before.remove(from).flatten();
                self.change([(entry(from), None), (entry(to), id)]);
            }
            Effect::Link(from, to) => {
                let id = self.before.remove(from).flatten();
                self.change([(entry(to), id)]);
            }
            Effect::Sync(path) => {
                let Some(id) = id(path) else { return };
                match self.nodes.get_mut(&id) {
                    Some(Node { durable: Durable::Names(_), .. }) => self.settle(id),
                    Some(Node { durable: Durable::Bytes(bytes), file }) => *bytes = read(file),
                    None => {}
                }
            }
            Effect::Other => {}
        }
    }
}
