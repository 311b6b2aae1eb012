//! `reimagined init --service --remove`: takes away what was written and not edited, and folders with nothing in
//! them. Pictures, the ledger and whatever else lies about stay, and are named.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::template::preset_toml;
use crate::domain::ids::show;

use super::super::args::Whose;
use super::super::exit::Failure;
use super::places::{Part, Places};
use super::plan::usual_folders;
use super::programs::{Program, manager_runs};
use super::{SAMPLE, sync, texts};

const UNIT: &str = "reimagined.service";

/// What goes, and what stays.
#[derive(Default)]
pub(super) struct Removal {
    /// Before any file goes: stop the service and take it out of the boot.
    stop: Option<Program>,
    files: Vec<(PathBuf, &'static str)>,
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
        let there = |part: &Part| fs::symlink_metadata(&part.path).is_ok() || part.packaged().is_some();
        if there(&places.unit) && places.root.is_none() && manager_runs(places.whose) {
            let args = [places.manager(), &["disable", "--now", UNIT]].concat();
            removal.stop = Some(Program::find("systemctl", &args)?);
            let args = [places.manager(), &["daemon-reload"]].concat();
            removal.reload = Some(Program::find("systemctl", &args)?);
        } else {
            removal.links(&places.unit.path);
        }
        removal.written(&places.unit.path, "the service");
        for (part, what) in [(&places.tmpfiles, "the folders"), (&places.sysusers, "the user and the group")] {
            if let Some(part) = part {
                removal.written(&part.path, what);
            }
        }
        for part in [Some(&places.unit), places.tmpfiles.as_ref(), places.sysusers.as_ref()].into_iter().flatten() {
            if let Some(packaged) = part.packaged() {
                removal.stays.push(format!("{}  a package's", show(packaged.as_os_str())));
            }
        }
        removal.written(&places.config, "the configuration");
        if fs::symlink_metadata(&places.key).is_ok() {
            removal.file(&places.key, "the API key");
        }
        removal.folders(places);
        removal.whatever_stays(places);
        if removal.files.is_empty() && removal.folders.is_empty() {
            removal.reload = None;
        }
        Ok(removal)
    }

    fn file(&mut self, path: &Path, what: &'static str) {
        self.going.insert(path.to_path_buf());
        self.files.push((path.to_path_buf(), what));
    }

    /// A file that goes if it is as it was written.
    fn written(&mut self, path: &Path, what: &'static str) {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() && fs::read(path).is_ok_and(|bytes| texts::is_unedited(&bytes)) => {
                self.file(path, what);
            }
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
            if fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
                self.file(&link, "the start at boot");
            }
        }
    }

    fn folders(&mut self, places: &Places) {
        let own = places.config.parent();
        // A configuration that stays has its folders.
        if self.going.contains(&places.config) || fs::symlink_metadata(&places.config).is_err() {
            let base = places.base();
            let mut folders: Vec<PathBuf> = match places.whose {
                Whose::System => texts::system_folders().into_iter().map(|made| places.at(&made.path)).collect(),
                Whose::User => [base.clone()].into_iter().chain(usual_folders(&base)).collect(),
            };
            if places.whose == Whose::User {
                let folder = base.join("inbox").join(SAMPLE);
                let sample = folder.join("preset.toml");
                if fs::read(&sample).is_ok_and(|bytes| bytes == preset_toml().as_bytes()) {
                    // Elsewhere it is somebody's look, with pictures below it.
                    if only(&folder, &sample) {
                        self.file(&sample, "the sample look");
                    }
                }
                folders.push(folder);
            }
            folders.reverse();
            for folder in folders {
                self.folder(folder);
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
            let entries = if left == 1 { "entry" } else { "entries" };
            self.stays.push(format!("{}/  {left} {entries} in it", show(folder.as_os_str())));
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
        for (path, what) in &self.files {
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
    pub(super) fn carry_out(&self) -> Result<Vec<String>, Failure> {
        let mut stayed = Vec::new();
        if let Some(stop) = &self.stop {
            stop.run()?;
        }
        for (path, _) in &self.files {
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
        self.reload.as_ref().map_or(Ok(()), Program::run)?;
        Ok(stayed)
    }
}

fn only(folder: &Path, file: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| entries.filter_map(Result::ok).all(|entry| entry.path() == file))
}
