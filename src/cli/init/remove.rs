//! `reimagined init --service --remove`: takes away what was written and not edited, and folders with nothing in
//! them. Pictures, the ledger and whatever else lies about stay, and are named.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::template::preset_toml;
use crate::domain::ids::show;
use crate::engine::site::INNER_WORKING;
use crate::service::lock::{self, WORKING_LOCK};

use super::super::args::Whose;
use super::super::exit::Failure;
use super::places::{KEY_MARK, Places};
use super::plan::usual_folders;
use super::programs::{Program, manager_runs};
use super::{SAMPLE, sync, texts};

const UNIT: &str = "reimagined.service";

/// A file that goes.
struct Gone {
    path: PathBuf,
    what: &'static str,
    sign: Sign,
}

/// By what a file is known as ours. Looked at when it is shown, and again directly before it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Its own hash.
    Seal,
    /// That of the key, beside it.
    KeyMark,
    /// It is the sample.
    Sample,
    /// It is a link.
    Link,
    /// Its name.
    Name,
    /// A lock that nobody holds.
    Lock,
}

impl Sign {
    fn is_on(self, path: &Path) -> bool {
        let Ok(meta) = fs::symlink_metadata(path) else { return false };
        let holds = |wanted: &dyn Fn(Vec<u8>) -> bool| meta.is_file() && fs::read(path).is_ok_and(wanted);
        match self {
            Self::Seal => holds(&|bytes| texts::is_unedited(&bytes)),
            Self::KeyMark => holds(&|bytes| {
                let mark = path.with_file_name(KEY_MARK);
                fs::read(mark).is_ok_and(|mark| mark == texts::key_mark(&bytes).as_bytes())
            }),
            Self::Sample => holds(&|bytes| bytes == preset_toml().as_bytes()),
            Self::Link => meta.is_symlink(),
            Self::Name => meta.is_file(),
            Self::Lock => meta.is_file() && matches!(lock::probe(path), Ok(lock::Probe::Free)),
        }
    }
}

/// What goes, and what stays.
#[derive(Default)]
pub(super) struct Removal {
    /// Before any file goes: stop the service and take it out of the boot.
    stop: Option<Program>,
    files: Vec<Gone>,
    /// Inner ones first; a folder goes only if it is empty by then.
    folders: Vec<PathBuf>,
    reload: Option<Program>,
    stays: Vec<String>,
    going: BTreeSet<PathBuf>,
}

impl Removal {
    /// Looks at what is there.
    pub(super) fn new(places: &Places) -> Result<Self, Failure> {
        let mut removal = Self::default();
        let unit = &places.unit;
        removal.written(&unit.path, "the service");
        let goes = removal.going.contains(&unit.path);
        if !goes && (fs::symlink_metadata(&unit.path).is_ok() || unit.packaged().is_some()) {
            // Whoever brought it may want it to run on.
            let whose = [places.manager(), &["disable"]].concat().join(" ");
            let how = match &places.root {
                Some(root) => format!("systemctl --root={} disable {UNIT}", super::quoted(root)),
                None => format!("systemctl {whose} --now {UNIT}"),
            };
            removal.stays.push(format!("{UNIT}, started or not  it is not init's; to stop it: {how}"));
        } else if goes && places.root.is_none() && manager_runs(places.whose) {
            let args = [places.manager(), &["disable", "--now", UNIT]].concat();
            removal.stop = Some(Program::find("systemctl", &args)?);
            let args = [places.manager(), &["daemon-reload"]].concat();
            removal.reload = Some(Program::find("systemctl", &args)?);
        } else {
            removal.links(&unit.path);
        }
        for (part, what) in [(&places.tmpfiles, "the folders"), (&places.sysusers, "the user and the group")] {
            if let Some(part) = part {
                removal.written(&part.path, what);
            }
        }
        for part in [Some(unit), places.tmpfiles.as_ref(), places.sysusers.as_ref()].into_iter().flatten() {
            if let Some(packaged) = part.packaged() {
                removal.stays.push(format!("{}  a package's", show(packaged.as_os_str())));
            }
        }
        removal.written(&places.config, "the configuration");
        removal.key(places);
        removal.folders(places);
        removal.whatever_stays(places);
        Ok(removal)
    }

    fn file(&mut self, path: &Path, what: &'static str, sign: Sign) {
        self.going.insert(path.to_path_buf());
        self.files.push(Gone { path: path.to_path_buf(), what, sign });
    }

    /// Whether there will be no configuration.
    fn unconfigured(&self, places: &Places) -> bool {
        self.going.contains(&places.config) || fs::symlink_metadata(&places.config).is_err()
    }

    /// The key goes only if it was written here, and nothing is left that may name it.
    fn key(&mut self, places: &Places) {
        let (key, mark) = (&places.key, places.key_mark());
        let ours = Sign::KeyMark.is_on(key);
        if ours && self.unconfigured(places) {
            self.file(key, "the API key", Sign::KeyMark);
        } else if fs::symlink_metadata(key).is_ok() {
            let why = if ours { "the configuration stays, too" } else { "not written by init" };
            self.stays.push(format!("{}  the API key: {why}", show(key.as_os_str())));
        }
        if Sign::Name.is_on(&mark) && (self.going.contains(key) || !ours) {
            self.file(&mark, "the hash of the API key", Sign::Name);
        }
    }

    /// A file that goes if it is as it was written.
    fn written(&mut self, path: &Path, what: &'static str) {
        match fs::symlink_metadata(path) {
            Ok(_) if Sign::Seal.is_on(path) => self.file(path, what, Sign::Seal),
            Ok(_) => {
                self.stays.push(format!("{}  {what}: edited since, or never written by init", show(path.as_os_str())));
            }
            Err(_) => {}
        }
    }

    /// What `systemctl enable` made, where no systemd runs that could take it back.
    fn links(&mut self, unit: &Path) {
        for target in ["multi-user.target.wants", "default.target.wants"] {
            let link = unit.with_file_name(target).join(UNIT);
            if Sign::Link.is_on(&link) {
                self.file(&link, "the start at boot", Sign::Link);
            }
        }
    }

    fn folders(&mut self, places: &Places) {
        let own = places.config.parent();
        let base = places.base();
        let mut folders: Vec<PathBuf> = match places.whose {
            Whose::System => texts::system_folders().into_iter().map(|made| places.at(&made.path)).collect(),
            Whose::User => [base.clone()].into_iter().chain(usual_folders(&base)).collect(),
        };
        // A configuration that stays has its folders.
        if self.unconfigured(places) {
            if places.whose == Whose::User {
                let folder = base.join("inbox").join(SAMPLE);
                let sample = folder.join("preset.toml");
                // Elsewhere it is somebody's look, with pictures below it.
                if Sign::Sample.is_on(&sample) && only(&folder, &sample) {
                    self.file(&sample, "the sample look", Sign::Sample);
                }
                folders.push(folder);
                // The daemon makes one of these, with nothing but its lock in it.
                folders.extend([base.join("working"), base.join("inbox").join(INNER_WORKING)]);
            }
            for folder in &folders {
                let lock = folder.join(WORKING_LOCK);
                if Sign::Lock.is_on(&lock) && only(folder, &lock) {
                    self.file(&lock, "the lock of a daemon that has ended", Sign::Lock);
                }
            }
            folders.reverse();
            for folder in folders {
                self.folder(folder);
            }
        } else {
            for folder in folders {
                let left = fs::read_dir(&folder).map_or(0, |entries| entries.filter_map(Result::ok).count());
                if left > 0 {
                    let why = "as the configuration does";
                    self.stays.push(format!(
                        "{}/  {left} {} in it, {why}",
                        show(folder.as_os_str()),
                        entries_word(left)
                    ));
                }
            }
        }
        if let Some(own) = own {
            self.folder(own.to_path_buf());
        }
    }

    fn folder(&mut self, folder: PathBuf) {
        let Ok(entries) = fs::read_dir(&folder) else { return };
        let left = entries.filter_map(Result::ok).filter(|entry| !self.going.contains(&entry.path())).count();
        if left == 0 {
            self.going.insert(folder.clone());
            self.folders.push(folder);
        } else {
            self.stays.push(format!("{}/  {left} {} in it", show(folder.as_os_str()), entries_word(left)));
        }
    }

    fn whatever_stays(&mut self, places: &Places) {
        let state = places.state();
        if state.is_dir() {
            self.stays.push(format!("{}/  the ledger: what was paid for, and what for", show(state.as_os_str())));
        }
        let mut own = places.unit.path.clone().into_os_string();
        own.push(".d");
        if Path::new(&own).is_dir() {
            self.stays.push(format!("{}/  your changes to the service", show(&own)));
        }
        let passwd = fs::read_to_string(places.at(Path::new("/etc/passwd"))).unwrap_or_default();
        if places.whose == Whose::System && passwd.lines().any(|line| line.starts_with("reimagined:")) {
            self.stays
                .push("the user and the group reimagined, since files may be theirs (userdel reimagined)".to_owned());
        }
    }

    /// Whether there is nothing that could go.
    pub(super) fn is_nothing(&self) -> bool {
        self.files.is_empty() && self.folders.is_empty() && self.stop.is_none()
    }

    /// For a person.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        if let Some(stop) = &self.stop {
            let _ = writeln!(text, "  run      {}", stop.shown());
            text.push_str("             what is in flight may finish first\n");
        }
        for Gone { path, what, .. } in &self.files {
            let _ = writeln!(text, "  remove   {}  {what}", show(path.as_os_str()));
        }
        for folder in &self.folders {
            let _ = writeln!(text, "  remove   {}/  empty by then", show(folder.as_os_str()));
        }
        if let Some(reload) = &self.reload {
            let _ = writeln!(text, "  run      {}", reload.shown());
        }
        text
    }

    /// What stays, for a person.
    pub(super) fn stays(&self) -> String {
        let mut text = String::new();
        if !self.stays.is_empty() {
            text.push_str("This stays:\n");
            for stays in &self.stays {
                let _ = writeln!(text, "  {stays}");
            }
        }
        text
    }

    /// Does it. Gives what stayed against expectation.
    pub(super) fn carry_out(&self, places: &Places) -> Result<Vec<String>, Failure> {
        let mut stayed = Vec::new();
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        let manager = if Sign::Seal.is_on(&places.unit.path) { self.stop.as_ref() } else { None };
        manager.map_or(Ok(()), Program::run)?;
        for Gone { path, sign, .. } in &self.files {
            let is_key = *path == places.key || *path == places.key_mark();
            let why = if is_there(path) && !sign.is_on(path) {
                "it was changed since this was shown"
            } else if is_key && is_there(&places.config) && self.going.contains(&places.config) {
                "the configuration stays, too"
            } else {
                ""
            };
            if !why.is_empty() {
                stayed.push(format!("{} stays: {why}", show(path.as_os_str())));
                continue;
            }
            match fs::remove_file(path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(Failure::unexpected(format!(
                        "{} cannot be removed: {e}. What was removed so far is gone; mend this and say the same again",
                        show(path.as_os_str())
                    )));
                }
            }
            let _ = path.parent().map(sync);
        }
        for folder in &self.folders {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                // Something was put into it just now, or it is a mount.
                Err(e) => stayed.push(format!("{}/ stays: {e}", show(folder.as_os_str()))),
            }
        }
        manager.and(self.reload.as_ref()).map_or(Ok(()), Program::run)?;
        Ok(stayed)
    }
}

fn entries_word(count: usize) -> &'static str {
    if count == 1 { "entry" } else { "entries" }
}

fn only(folder: &Path, file: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| entries.filter_map(Result::ok).all(|entry| entry.path() == file))
}
