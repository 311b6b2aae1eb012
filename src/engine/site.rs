//! The folders of one daemon: where they are, that they keep apart, and which `working/` is used.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::domain::ids::{RelPath, show};
use crate::outbox::OutboxError;
use crate::outbox::folder::Folder;
use crate::outbox::fskind::filesystem_kind;
use crate::outbox::overlap::{Overlap, same_or_nested};
use crate::outbox::room::{self, Room};
use crate::outbox::spool;

pub use crate::outbox::folder::INNER_WORKING;

/// The folders, resolved and found to keep apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where things are dropped.
    pub inbox: PathBuf,
    /// Device and inode of the inbox: another directory under its name is another inbox.
    pub inbox_id: (u64, u64),
    /// What is being sent.
    pub working: PathBuf,
    /// The places where an earlier run may have had `working/`.
    pub other_workings: Vec<PathBuf>,
    /// Results.
    pub outbox: PathBuf,
    /// Originals of what was delivered.
    pub archive: PathBuf,
    /// Originals of what was not, with notes.
    pub errors: PathBuf,
    /// Ledger, spool, status.
    pub state_dir: PathBuf,
    /// Outbox, archive or errors lie with a server, and a look into them can take as long as it is silent.
    pub far: bool,
    /// Device and inode of the daemon's own folders as they were when they were found to keep apart.
    ids: Vec<Option<(u64, u64)>>,
    /// Where their filesystems are mounted; `None` for what lies on that of `/`, as far as can be seen.
    mounted_at: Vec<Option<PathBuf>>,
    /// The same of the inbox.
    inbox_mounted_at: Option<PathBuf>,
}

/// Why the folders can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The inbox is not there (unmounted, deleted, not made yet), or its server is not: wait for it.
    #[error("the inbox {} {why}", .path.display())]
    NoInbox {
        /// Where it should be.
        path: PathBuf,
        /// In words behind its name.
        why: String,
    },
    /// A person has to change the configuration or the folders.
    #[error("{0}")]
    Wrong(String),
}

impl Site {
    /// Makes what is missing (but never the inbox), looks that no folder equals, contains or lies in another,
    /// and finds the working folder by trying.
    pub fn open(config: &Config, state_dir: &Path) -> Result<Self, SiteError> {
        let folders = &config.folders;
        let inbox = folders.inbox.clone();
        let why = match fs::metadata(&inbox) {
            Ok(found) if found.is_dir() => Ok(found),
            Ok(_) => Err("is no folder".to_owned()),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err("is not there: make it, mount it, or name another in [folders] inbox".to_owned())
            }
            Err(e) => Err(format!("cannot be looked at: {e}")),
        };
        let found = why.map_err(|why| SiteError::NoInbox { path: inbox.clone(), why })?;
        fs::read_dir(&inbox).map_err(|e| {
            wrong(format!(
                "the inbox {} cannot be read: {e}; give this user the right to read, write and enter it",
                inbox.display()
            ))
        })?;
        Self::keep_apart(config, state_dir)?;
        for (what, path) in [
            ("outbox", folders.outbox.as_path()),
            ("archive", &folders.archive),
            ("errors folder", &folders.errors),
            ("state directory", state_dir),
        ] {
            fs::create_dir_all(path)
                .map_err(|e| wrong(format!("the {what} {} cannot be made: {e}", path.display())))?;
        }
        Self::keep_state_local(state_dir)?;
        let (working, mut other_workings) = working(config, &inbox)?;
        let inbox_mounted_at = mount_point(&inbox);
        let mut site = Self {
            inbox_id: (found.dev(), found.ino()),
            inbox,
            working,
            other_workings: Vec::new(),
            outbox: folders.outbox.clone(),
            archive: folders.archive.clone(),
            errors: folders.errors.clone(),
            state_dir: state_dir.to_path_buf(),
            far: [&folders.outbox, &folders.archive, &folders.errors]
                .into_iter()
                .any(|path| filesystem_kind(path).is_ok_and(|kind| kind.network().is_some())),
            ids: Vec::new(),
            mounted_at: Vec::new(),
            inbox_mounted_at,
        };
        site.overlap()?;
        other_workings.retain(|other| site.lies_apart(other));
        site.other_workings = other_workings;
        site.ids = site.own().map(|(_, path)| id(path)).to_vec();
        site.mounted_at = site.own().map(|(_, path)| mount_point(path)).to_vec();
        Ok(site)
    }

    /// Looks that no configured folder equals, contains or lies in another, before any is made.
    pub fn keep_apart(config: &Config, state_dir: &Path) -> Result<(), SiteError> {
        let folders = &config.folders;
        let mut all: Vec<(&str, &Path)> = vec![
            ("[folders] inbox", &folders.inbox),
            ("[folders] outbox", &folders.outbox),
            ("[folders] archive", &folders.archive),
            ("[folders] errors", &folders.errors),
            ("[service] state_dir", state_dir),
        ];
        let beside = Self::beside(config);
        match (&folders.working, &beside) {
            (Some(set), _) if *set != folders.inbox.join(INNER_WORKING) => all.push(("[folders] working", set)),
            (None, Some(beside)) => all.push(("the working folder beside the inbox", beside)),
            _ => {}
        }
        keep_apart(&all)?;
        Self::taken_for_drops(config).into_iter().next().map_or(Ok(()), |why| Err(wrong(why)))
    }

    /// The working folder beside the inbox, as far as can be said before it is tried.
    fn beside(config: &Config) -> Option<PathBuf> {
        let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
        let inbox = &config.folders.inbox;
        inbox.parent().filter(|parent| device(parent) == device(inbox)).map(|at| at.join("working"))
    }

    /// Files of the daemon's own that lie where files are taken for drops, in words for a person. A key there would be
    /// sent as a prompt, and stand in the provenance.
    pub fn taken_for_drops(config: &Config) -> Vec<String> {
        let folders = &config.folders;
        let beside = Self::beside(config);
        let secret = config.hooks.webhook.as_ref().and_then(|webhook| webhook.secret_file.as_ref());
        let files = [
            ("the configuration", Some(&config.file), "--config"),
            ("the API key", config.api.key_file.as_ref(), "[api] key_file"),
            ("the webhooks' secret", secret, "[hooks] webhook_secret_file"),
        ];
        let places =
            [("inbox", Some(&folders.inbox)), ("working folder", folders.working.as_ref().or(beside.as_ref()))];
        let mut found = Vec::new();
        for (what, file, key) in files {
            let Some(file) = file else { continue };
            let within = |(_, place): &(&str, Option<&PathBuf>)| {
                place.is_some_and(|place| {
                    matches!(same_or_nested(&[file, place]), Ok(Some((_, _, Overlap::Within))))
                        && !is_ignored(config, place, file)
                })
            };
            if let Some((name, Some(place))) = places.into_iter().find(within) {
                found.push(format!(
                    "{what} ({}) lies in the {name} {}, where files are taken for drops; put it elsewhere and name that with {key}",
                    file.display(),
                    place.display()
                ));
            }
        }
        found
    }

    /// Looks that the state directory lies, or is going to lie, on a disk where a ledger is safe.
    pub fn keep_state_local(state_dir: &Path) -> Result<(), SiteError> {
        let there = state_dir.ancestors().find(|at| fs::metadata(at).is_ok()).unwrap_or(Path::new("."));
        let kind = filesystem_kind(there).map_err(|e| wrong(e.to_string()))?;
        if let Some(kind) = kind.network() {
            return Err(wrong(format!(
                "the state directory {} lies on {}, where a ledger is not safe; set [service] state_dir to a folder on a local disk",
                state_dir.display(),
                kind
            )));
        }
        Ok(())
    }

    /// The folders that are the daemon's to write.
    fn own(&self) -> [(&'static str, &Path); 5] {
        [
            ("[folders] outbox", &self.outbox),
            ("[folders] archive", &self.archive),
            ("[folders] errors", &self.errors),
            ("[service] state_dir", &self.state_dir),
            ("[folders] working", &self.working),
        ]
    }

    fn overlap(&self) -> Result<(), SiteError> {
        let mut all = self.own().to_vec();
        if self.working != self.inbox.join(INNER_WORKING) {
            all.push(("[folders] inbox", &self.inbox));
            return keep_apart(&all);
        }
        // The one exception: working lies in the inbox.
        keep_apart(&all)?;
        all.pop();
        all.push(("[folders] inbox", &self.inbox));
        keep_apart(&all)
    }

    /// Whether the directory under the inbox's name is still the same one.
    pub fn inbox_is_there(&self) -> bool {
        fs::metadata(&self.inbox).is_ok_and(|m| m.is_dir() && (m.dev(), m.ino()) == self.inbox_id)
    }

    /// Whether what stands under the inbox's name is but the empty place that a filesystem was mounted at.
    pub fn inbox_is_unmounted(&self) -> bool {
        let empty = || fs::read_dir(&self.inbox).is_ok_and(|mut entries| entries.next().is_none());
        self.inbox_mounted_at.as_deref().is_some_and(is_bare) && empty()
    }

    /// Whether a place where an earlier run may have had its working folder lies apart from all folders of this one, but
    /// for the one inside the inbox.
    fn lies_apart(&self, other: &Path) -> bool {
        let all = self.own().into_iter().map(|(_, path)| path).chain([self.inbox.as_path()]);
        other.ends_with(INNER_WORKING) || all.into_iter().all(|path| matches!(same_or_nested(&[other, path]), Ok(None)))
    }

    /// What keeps results or originals from being kept; `None` if nothing does. `result_bytes` are reserved in
    /// the outbox and in the state directory, where results pass through.
    pub fn trouble(&self, result_bytes: u64) -> Option<String> {
        let small = 1024 * 1024;
        let looks = [
            ("working", &self.working, small),
            ("outbox", &self.outbox, result_bytes),
            ("archive", &self.archive, small),
            ("errors", &self.errors, small),
            ("state directory", &self.state_dir, result_bytes),
            ("spool", &self.state_dir.join(spool::NAME), result_bytes),
        ];
        let found = looks.into_iter().find_map(|(what, path, bytes)| {
            let why = room::look(path, bytes).trouble(bytes)?;
            Some(format!("{what} {} {why}", path.display()))
        });
        found.or_else(|| {
            // Another directory stands there than the one that was looked at: it may be anybody's.
            let same = self.own().iter().zip(&self.ids).all(|((_, path), then)| id(path) == *then);
            if same {
                return None;
            }
            let unmounted = self.own().into_iter().find(|(_, path)| self.is_unmounted(path));
            unmounted
                .map(|(_, path)| OutboxError::Unmounted { path: path.to_path_buf() }.to_string())
                .or_else(|| self.overlap().err().map(|e| e.to_string()))
        })
    }

    /// Whether the filesystem that one of our own folders lay on is not mounted any more: what is put there now is hidden
    /// when it is mounted again.
    pub fn is_unmounted(&self, root: &Path) -> bool {
        let place = self.own().into_iter().zip(&self.mounted_at).find(|((_, path), _)| *path == root);
        place.and_then(|(_, at)| at.as_deref()).is_some_and(is_bare)
    }

    /// [`Self::is_unmounted`], as an error.
    pub fn keep_mounted(&self, root: &Path) -> Result<(), OutboxError> {
        if self.is_unmounted(root) { Err(OutboxError::Unmounted { path: root.to_path_buf() }) } else { Ok(()) }
    }
}

impl Site {
    /// [`Self::trouble`] of the drops of one folder alone: what stands in its way, is closed to us or is full
    /// below the outbox, the archive or errors. Of the inbox itself there is none that the other would not find.
    pub fn trouble_of(&self, folder: &RelPath, result_bytes: u64) -> Option<String> {
        if folder.is_root() {
            return None;
        }
        [(&self.outbox, result_bytes), (&self.archive, 0), (&self.errors, 0)].into_iter().find_map(|(root, bytes)| {
            let why = match room::look_below(root, folder, bytes) {
                Room::Io(e) => e.to_string(),
                found => format!("{} {}", show(folder.under(root).as_os_str()), found.trouble(bytes)?),
            };
            Some(why)
        })
    }
}

fn id(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// Whether nothing is mounted any more where a filesystem was.
fn is_bare(mount_point: &Path) -> bool {
    let (now, around) = (id(mount_point), mount_point.parent().and_then(id));
    now.zip(around).is_some_and(|(now, around)| now.0 == around.0)
}

/// The topmost folder on the filesystem of `path`, unless that is `/`.
fn mount_point(path: &Path) -> Option<PathBuf> {
    let place = fs::canonicalize(path).ok()?;
    let device = id(&place)?.0;
    let top = place.ancestors().take_while(|at| id(at).is_some_and(|(dev, _)| dev == device)).last()?;
    top.parent().is_some().then(|| top.to_path_buf())
}

fn wrong(text: String) -> SiteError {
    SiteError::Wrong(text)
}

fn keep_apart(all: &[(&str, &Path)]) -> Result<(), SiteError> {
    let paths: Vec<&Path> = all.iter().map(|(_, path)| *path).collect();
    match same_or_nested(&paths) {
        Ok(None) => Ok(()),
        Ok(Some((a, b, how))) => Err(wrong(format!(
            "{} ({}) and {} ({}) overlap: {}; give each folder a place of its own",
            all[a].0,
            all[a].1.display(),
            all[b].0,
            all[b].1.display(),
            match how {
                Overlap::Same => "they are one folder",
                Overlap::Contains => "the second lies in the first",
                Overlap::Within => "the first lies in the second",
            }
        ))),
        Err(e) => Err(wrong(e.to_string())),
    }
}

/// Whether a file below `root` is never touched, by its name or that of a folder around it.
fn is_ignored(config: &Config, root: &Path, file: &Path) -> bool {
    use crate::domain::kinds::{NameKind, classify};
    let ignore = config.watch.ignore.clone();
    let ignore = move |path: &Path| RelPath::new(path).is_some_and(|path| ignore.matches(&path));
    let real_path = || Some(file.parent()?.canonicalize().ok()?.join(file.file_name()?));
    let below = || RelPath::below(&root.canonicalize().ok()?, &real_path()?);
    let Some(place) = below() else { return false };
    place.chain().into_iter().any(|at| {
        let (Some(folder), Some(name)) = (at.parent(), at.name()) else { return false };
        matches!(classify(&folder, name, at != place, &ignore), NameKind::Ignored(_))
    })
}

/// The working folder, made if need be, and the other places where one may be left from before.
fn working(config: &Config, inbox: &Path) -> Result<(PathBuf, Vec<PathBuf>), SiteError> {
    let inner = inbox.join(INNER_WORKING);
    let beside = inbox.parent().map(|parent| parent.join("working"));
    if let Some(set) = &config.folders.working {
        if *set == inner {
            make_inner(inbox)?;
        }
        fs::create_dir_all(set)
            .map_err(|e| wrong(format!("[folders] working: {} cannot be made: {e}", set.display())))?;
        let reachable = *set == inner || room::reachable_by_rename(inbox, set).map_err(|e| wrong(e.to_string()))?;
        if !reachable {
            return Err(wrong(format!(
                "[folders] working: {} cannot be reached from the inbox {} by a rename (another filesystem or mount); leave the key out, or choose a folder on the inbox's own filesystem",
                set.display(),
                inbox.display()
            )));
        }
        let others = [Some(inner), beside].into_iter().flatten().filter(|other| other != set);
        return Ok((set.clone(), others.collect()));
    }
    if let Some(beside) = beside {
        let made = !beside.exists();
        if fs::create_dir_all(&beside).is_ok() {
            if room::reachable_by_rename(inbox, &beside).unwrap_or(false) {
                return Ok((beside, vec![inner]));
            }
            if made {
                // Ours, empty and of no use. Only an empty one can be removed.
                let _ = fs::remove_dir(&beside);
            }
        }
        make_inner(inbox)?;
        return Ok((inner, vec![beside]));
    }
    make_inner(inbox)?;
    Ok((inner, Vec::new()))
}

/// Makes the working folder inside the inbox. Whatever else stands there, a link to a folder above all, is
/// somebody's trick or mistake.
fn make_inner(inbox: &Path) -> Result<(), SiteError> {
    let inner = RelPath::root().join(OsStr::new(INNER_WORKING));
    Folder::made(inbox, &inner).map(drop).map_err(|e| {
        wrong(format!("{e}: it would be the working folder, since none beside the inbox can be reached by a rename"))
    })
}
