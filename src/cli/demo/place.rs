//! The demo's folder: a configuration, a key of its own, the folders, looks, and what is dropped.
//!
//! A folder that is not empty is used only if a demo ran there before; what a person changed in its looks since
//! then stays, and nothing in its inbox is written over.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::service::lock::{self, Probe, STATE_LOCK};

use super::super::exit::{Code, Failure};
use super::report::shown;

/// The only key that the demo's sandbox takes.
pub(super) const KEY: &str = "demo";

/// How many drops [`Place::fill`] makes.
pub(super) const DROPS: usize = 4;

const CONFIG: &str = include_str!("config.toml");
const PREFIX: &str = "reimagined-demo-";

/// What is put into the inbox, presets first.
const INBOX: [(&str, &[u8]); 5 + DROPS] = [
    ("preset.toml", include_bytes!("looks/inbox.toml")),
    ("neon-night/preset.toml", include_bytes!("looks/neon-night.toml")),
    ("pop-art/preset.toml", include_bytes!("looks/pop-art.toml")),
    ("travel-poster/preset.toml", include_bytes!("looks/travel-poster.toml")),
    ("postcards/preset.toml", include_bytes!("looks/postcards.toml")),
    ("neon-night/coffee.jpg", include_bytes!("photos/coffee.jpg")),
    ("pop-art/chelsea.jpg", include_bytes!("photos/chelsea.jpg")),
    ("travel-poster/rocket.jpg", include_bytes!("photos/rocket.jpg")),
    ("postcards/lake.txt", b"A quiet watercolour lake between misty mountains\n"),
];

/// The folder that a demo runs in.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// Exactly `dir`, made if needed, or a new folder among the temporary ones. Writes nothing into it yet.
    /// Refuses a folder of somebody else's, and one in which a demo still runs.
    pub(super) fn make(dir: Option<&Path>) -> Result<Self, Failure> {
        let Some(dir) = dir else {
            let parent = std::env::temp_dir();
            let fail = |e: io::Error| {
                let parent = shown(&parent);
                Failure::usage(format!("no folder can be made in {parent} ({e}): name one with --dir"))
            };
            let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent).map_err(fail)?;
            return Ok(Self { dir: std::path::absolute(made.keep()).map_err(fail)? });
        };
        let fail = |e: io::Error| Failure::usage(format!("{}: {e}: name another folder with --dir", shown(dir)));
        fs::create_dir_all(dir).map_err(fail)?;
        let place = Self { dir: std::path::absolute(dir).map_err(fail)? };
        if fs::read_dir(&place.dir).map_err(fail)?.next().is_some() && !place.is_a_demos() {
            let dir = shown(dir);
            return Err(Failure::usage(format!("{dir} is neither empty nor a demo's: name another folder with --dir")));
        }
        if let Ok(Probe::Held(_)) = lock::probe(&place.dir.join("state").join(STATE_LOCK)) {
            let text = format!("a demo runs in {} already: end it, or name another folder with --dir", shown(dir));
            return Err(Failure::new(Code::Held, text));
        }
        Ok(place)
    }

    /// Whether a demo wrote the configuration that lies there.
    fn is_a_demos(&self) -> bool {
        let Ok(file) = fs::File::open(self.config()) else { return false };
        let mut first = String::new();
        let read = BufReader::new(io::Read::take(file, 1024)).read_line(&mut first);
        read.is_ok() && Some(first.trim_end()) == CONFIG.lines().next()
    }

    /// Writes everything, for a sandbox at `url`. The configuration comes first: from then on the folder is a
    /// demo's. The drops come last, so that their looks are there.
    pub(super) fn fill(&self, url: &str) -> Result<(), Failure> {
        let fail = |path: &Path, e: io::Error| Failure::usage(format!("{}: {e}", shown(path)));
        let config = self.config();
        fs::write(&config, CONFIG.replace("{url}", url)).map_err(|e| fail(&config, e))?;
        let key = self.dir.join("api-key");
        put(&key, KEY.as_bytes(), 0o600).map_err(|e| fail(&key, e))?;
        for folder in ["inbox", "working", "outbox", "archive", "errors"].map(|name| self.dir.join(name)) {
            fs::create_dir_all(&folder).map_err(|e| fail(&folder, e))?;
        }
        for (name, bytes) in INBOX {
            let path = self.inbox().join(name);
            let made = path.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| put(&path, bytes, 0o666)).map_err(|e| fail(&path, e))?;
        }
        Ok(())
    }

    /// The folder itself, absolute.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Where things are dropped.
    pub(super) fn inbox(&self) -> PathBuf {
        self.dir.join("inbox")
    }

    /// Where results appear.
    pub(super) fn outbox(&self) -> PathBuf {
        self.dir.join("outbox")
    }

    /// Where originals go.
    pub(super) fn archive(&self) -> PathBuf {
        self.dir.join("archive")
    }

    /// Where notes are.
    pub(super) fn errors(&self) -> PathBuf {
        self.dir.join("errors")
    }
}

/// Writes a new file; one that is there already stays as it is.
fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(mut file) => file.write_all(bytes),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{Config, preset_file};

    const URL: &str = "http://127.0.0.1:1";

    #[test]
    fn a_folder_of_somebody_elses_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("config.toml");
        fs::write(&mine, "[api]\n").unwrap();
        let refused = Place::make(Some(folder.path())).unwrap_err();
        assert_eq!(refused.code, Code::Usage);
        assert!(refused.text.contains("neither empty nor a demo's"), "{}", refused.text);
        assert_eq!(fs::read_to_string(mine).unwrap(), "[api]\n");
    }

    #[test]
    fn a_demos_folder_is_used_again_and_what_was_changed_in_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new/demo");
        Place::make(Some(&dir)).unwrap().fill(URL).unwrap();
        let look = dir.join("inbox/pop-art/preset.toml");
        fs::write(&look, "seed = 5\n").unwrap();
        Place::make(Some(&dir)).unwrap().fill("http://127.0.0.1:2").unwrap();
        assert_eq!(fs::read_to_string(look).unwrap(), "seed = 5\n");
        assert!(fs::read_to_string(dir.join("config.toml")).unwrap().contains("http://127.0.0.1:2\""));
    }

    #[test]
    fn a_folder_in_which_a_demo_runs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::make(Some(folder.path())).unwrap();
        place.fill(URL).unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let _lock = lock::Lock::take(&folder.path().join("state").join(STATE_LOCK)).unwrap();
        assert_eq!(Place::make(Some(folder.path())).unwrap_err().code, Code::Held);
    }

    #[test]
    fn what_it_writes_is_valid_and_keeps_to_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::make(Some(folder.path())).unwrap();
        place.fill(URL).unwrap();
        let config = Config::load(&place.config()).unwrap_or_else(|problems| panic!("{problems}"));
        let folders = &config.folders;
        let all = [&folders.inbox, &folders.outbox, &folders.archive, &folders.errors];
        let more = [folders.working.as_ref(), config.service.state_dir.as_ref(), config.api.key_file.as_ref()];
        for path in all.into_iter().chain(more.into_iter().flatten()) {
            assert!(path.starts_with(place.dir()), "{}", path.display());
        }
        for (name, bytes) in INBOX {
            if name.ends_with("preset.toml") {
                preset_file::parse(bytes, name).unwrap_or_else(|problems| panic!("{problems}"));
            }
        }
        assert_eq!(INBOX.iter().filter(|(name, _)| !name.ends_with("preset.toml")).count(), DROPS);
    }
}
