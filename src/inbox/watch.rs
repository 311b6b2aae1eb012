//! Hints from inotify.
//!
//! One watch per directory, set by us: so a directory that cannot be watched leaves its siblings watched.
//! The handler only takes notes, so that the kernel's queue never runs full because of us; too many notes
//! become "look at everything". A hint says where to look, never what is there.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, INotifyWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::InboxError;
use crate::domain::arrivals::How;
use crate::domain::ids::{Place, RelPath};

/// Names noted between two looks, at most; more become one rescan of everything.
pub const HINT_CAP: usize = 50_000;

/// Where to look, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The folder.
    pub folder: RelPath,
    /// The name in it.
    pub name: OsString,
    /// What happened last.
    pub how: HintHow,
}

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintHow {
    /// Look at it with this.
    Look(How),
    /// A directory appeared or was moved in: look at it, then survey it.
    DirAppeared,
    /// It went away (look all the same: something may stand there again).
    Gone,
}

impl HintHow {
    /// What two hints for one name mean together: the later counts, but a change of mode or times alone says less than
    /// anything.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        match (self, later) {
            (Self::DirAppeared, Self::Look(_)) => Self::DirAppeared,
            // The second: renamed in and then only closed, so whoever renamed it had finished it.
            (_, Self::Look(How::Touched)) | (Self::Look(How::RenamedIn), Self::Look(How::Closed)) => self,
            _ => later,
        }
    }
}

/// What was noted since the last time.
#[derive(Debug, Default)]
pub struct Drained {
    /// Names, in the order in which they first changed.
    pub hints: Vec<Hint>,
    /// Something was missed: look at everything, and at the root's identity.
    pub rescan: bool,
    /// What the watcher complained about, for the log. Each also sets `rescan`.
    pub errors: Vec<InboxError>,
}

#[derive(Debug, Default)]
struct Notes {
    order: HashMap<Place, (u64, HintHow)>,
    count: u64,
    rescan: bool,
    errors: Vec<InboxError>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    cap: usize,
    notes: Mutex<Notes>,
    wake: Notify,
}

/// Watches directories of one inbox.
#[derive(Debug)]
pub struct Watcher {
    inotify: Mutex<INotifyWatcher>,
    watched: Mutex<BTreeSet<RelPath>>,
    shared: Arc<Shared>,
}

impl Watcher {
    /// Watches nothing yet. Notes at most `cap` names ([`HINT_CAP`]). Fails with a limit when the system has
    /// no more inotify instances.
    pub fn new(root: &Path, cap: usize) -> Result<Self, InboxError> {
        let shared = Shared { root: root.to_path_buf(), cap, notes: Mutex::default(), wake: Notify::new() };
        let shared = Arc::new(shared);
        let noting = Arc::clone(&shared);
        let config = Config::default().with_follow_symlinks(false);
        let inotify = INotifyWatcher::new(move |event| noting.note(event), config)
            .map_err(|e| watch_error(root, &e, "instances"))?;
        Ok(Self { inotify: Mutex::new(inotify), watched: Mutex::default(), shared })
    }

    /// Watches `folder` alone, not what lies below it; again is harmless (and needed where a directory was
    /// replaced). Blocks for a moment.
    pub fn watch(&self, folder: &RelPath) -> Result<(), InboxError> {
        let path = folder.under(&self.shared.root);
        lock(&self.inotify).watch(&path, RecursiveMode::NonRecursive).map_err(|e| watch_error(&path, &e, "watches"))?;
        lock(&self.watched).insert(folder.clone());
        Ok(())
    }

    /// Ends the watches of `folder` and all below it. A directory that was moved away would report under its
    /// old name.
    pub fn forget(&self, folder: &RelPath) {
        let mut watched = lock(&self.watched);
        let below: Vec<RelPath> =
            watched.range(folder.clone()..).take_while(|path| path.is_within(folder)).cloned().collect();
        for path in below {
            watched.remove(&path);
            // An error means that the kernel ended it already.
            let _ = lock(&self.inotify).unwatch(&path.under(&self.shared.root));
        }
    }

    /// Waits until there is something to [`Self::drain`]. Cancel-safe.
    pub async fn changed(&self) {
        self.shared.wake.notified().await;
    }

    /// Takes what was noted. Watches of directories that went away are ended. Blocks for a moment.
    pub fn drain(&self) -> Drained {
        let notes = std::mem::take(&mut *lock(&self.shared.notes));
        let mut hints: Vec<(u64, Hint)> = notes
            .order
            .into_iter()
            .map(|(place, (at, how))| (at, Hint { folder: place.folder, name: place.name, how }))
            .collect();
        hints.sort_by_key(|(at, _)| *at);
        let hints: Vec<Hint> = hints.into_iter().map(|(_, hint)| hint).collect();
        for hint in hints.iter().filter(|hint| hint.how == HintHow::Gone) {
            let folder = hint.folder.join(&hint.name);
            if lock(&self.watched).contains(&folder) {
                self.forget(&folder);
            }
        }
        Drained { hints, rescan: notes.rescan, errors: notes.errors }
    }
}

impl Shared {
    /// Called on the watcher's own thread for each event: must not block.
    fn note(&self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                let path = error.paths.first().cloned().unwrap_or_else(|| self.root.clone());
                let mut notes = lock(&self.notes);
                notes.rescan = true;
                if notes.errors.len() < 16 {
                    notes.errors.push(watch_error(&path, &error, "watches"));
                }
                drop(notes);
                return self.wake.notify_one();
            }
        };
        if event.need_rescan() {
            return self.rescan();
        }
        let Some(how) = meaning(event.kind) else { return };
        for path in event.paths {
            let Some(below) = RelPath::below(&self.root, &path) else { continue };
            let (Some(folder), Some(name)) = (below.parent(), below.name()) else {
                // The inbox itself was moved, removed or touched.
                if how == HintHow::Gone {
                    self.rescan();
                }
                continue;
            };
            let place = Place { folder, name: name.to_owned() };
            let mut notes = lock(&self.notes);
            let count = notes.count;
            notes.count += 1;
            if let Some((_, old)) = notes.order.get_mut(&place) {
                *old = old.then(how);
            } else if notes.order.len() >= self.cap {
                notes.order.clear();
                notes.rescan = true;
            } else {
                notes.order.insert(place, (count, how));
            }
            drop(notes);
            self.wake.notify_one();
        }
    }

    fn rescan(&self) {
        lock(&self.notes).rescan = true;
        self.wake.notify_one();
    }
}

/// What an event means; `None` for those that say nothing about contents (our own reading makes many).
fn meaning(kind: EventKind) -> Option<HintHow> {
    Some(match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => HintHow::Look(How::Closed),
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return None,
        EventKind::Create(CreateKind::Folder) => HintHow::DirAppeared,
        EventKind::Create(_) => HintHow::Look(How::Created),
        EventKind::Modify(ModifyKind::Metadata(_)) => HintHow::Look(How::Touched),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => HintHow::Gone,
        EventKind::Modify(ModifyKind::Name(_)) => HintHow::Look(How::RenamedIn),
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => HintHow::Look(How::Changed),
    })
}

fn watch_error(path: &Path, error: &notify::Error, limit: &'static str) -> InboxError {
    use rustix::io::Errno;
    let path = path.to_path_buf();
    let number = match &error.kind {
        ErrorKind::MaxFilesWatch => return InboxError::Limit { path, what: limit },
        ErrorKind::Io(io) => io.raw_os_error().map(Errno::from_raw_os_error),
        _ => None,
    };
    match number {
        Some(Errno::MFILE | Errno::NFILE) => InboxError::Limit { path, what: "instances" },
        Some(Errno::NOSPC) => InboxError::Limit { path, what: "watches" },
        _ => InboxError::Watch { path, reason: error.to_string() },
    }
}

/// The lock, whoever panicked while holding it: what it guards is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
