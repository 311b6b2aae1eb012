//! The configuration, typed: what `config.toml` says, with the defaults for what it does not say.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use url::Url;

use super::problem::{Problem, Problems};
use super::renamed::RENAMED;
use super::{build, document};
use crate::domain::hooks;
use crate::domain::ids::RelPath;
use crate::domain::params::Key;
use crate::domain::preset::{Layer, Rules};

/// A whole, validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from, absolute.
    pub file: PathBuf,
    /// `[api]`
    pub api: Api,
    /// `[folders]`
    pub folders: Folders,
    /// `[watch]`
    pub watch: Watch,
    /// `[reference]`
    pub reference: Reference,
    /// `[retry]`
    pub retry: Retry,
    /// `[limits]`
    pub limits: Limits,
    /// `[output]`
    pub output: Output,
    /// `[service]`
    pub service: Service,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[hooks]`: whom to tell.
    pub hooks: hooks::Settings,
    /// `[preset]`: the look of every folder that says nothing else.
    pub preset: Layer,
    /// What is to be said of the file although it is good, such as a key under its old name; in its order.
    pub warnings: Vec<Problem>,
}

/// Where the service is and how fast it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// https, or http on loopback; no query, no user.
    pub base_url: Url,
    /// The path of the model below `base_url`; begins with `/`.
    pub model: String,
    /// Where pictures are uploaded.
    pub upload_url: Url,
    /// The file that holds the key, if it is in one.
    pub key_file: Option<PathBuf>,
    /// Of one model call.
    pub timeout: Duration,
    /// Of making a connection.
    pub connect_timeout: Duration,
    /// 0: no limit.
    pub requests_per_minute: u32,
    /// 1 to 64.
    pub max_in_flight: u32,
}

impl Api {
    /// The address of `path`, which begins with `/`, below `base_url`.
    pub fn at(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&format!("{}{path}", self.base_url.path().trim_end_matches('/')));
        url
    }

    /// The address of the model.
    pub fn model_url(&self) -> Url {
        self.at(&self.model)
    }
}

/// The folders; absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Where people drop.
    pub inbox: PathBuf,
    /// If it was set; else it is found at start.
    pub working: Option<PathBuf>,
    /// Where results go.
    pub outbox: PathBuf,
    /// Where originals go.
    pub archive: PathBuf,
    /// Where goes what could not be done.
    pub errors: PathBuf,
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Events, or polling where a filesystem has none.
    Auto,
    /// Events in any case.
    Events,
    /// Polling in any case.
    Poll,
}

/// How the inbox is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Events or polling.
    pub backend: Backend,
    /// Unchanged for that long: complete.
    pub settle: Duration,
    /// Unchanged for that long: a new folder is looked into.
    pub folder_settle: Duration,
    /// A picture waits that long for a sidecar.
    pub sidecar_wait: Duration,
    /// A sidecar waits that long for a picture.
    pub lone_wait: Duration,
    /// Unchanged and not whole for that long: failed.
    pub give_up: Duration,
    /// Between whole scans.
    pub rescan: Duration,
    /// Between looks where it polls.
    pub poll_interval: Duration,
    /// What is ignored besides the built-in list.
    pub ignore: Ignore,
}

/// Globs of names and paths that are ignored. They match ignoring case; one without `/` matches a name in any
/// folder, one with `/` a path below the inbox.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<String>,
    names: GlobSet,
    paths: GlobSet,
}

impl PartialEq for Ignore {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Ignore {}

impl Ignore {
    /// The globs; the error is the place of the first bad one and words for a person.
    pub fn new(patterns: Vec<String>) -> Result<Self, (usize, String)> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for (i, pattern) in patterns.iter().enumerate() {
            let bare = pattern.trim_matches('/');
            if bare.is_empty() {
                return Err((i, "is an empty glob".into()));
            }
            let glob = GlobBuilder::new(bare).case_insensitive(true).literal_separator(true).build();
            let glob = glob.map_err(|e| (i, format!("is no glob: {}", e.kind())))?;
            if pattern.trim_end_matches('/').contains('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        let built = |set: GlobSetBuilder| set.build().map_err(|e| (0, format!("is no glob: {}", e.kind())));
        Ok(Self { names: built(names)?, paths: built(paths)?, patterns })
    }

    /// The globs as they were written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether `path`, below the inbox, or a folder that it lies in is to be ignored.
    pub fn matches(&self, path: &RelPath) -> bool {
        !self.patterns.is_empty()
            && path.chain().iter().skip(1).any(|at| {
                at.name().is_some_and(|name| self.names.is_match(Path::new(name))) || self.paths.is_match(at.as_path())
            })
    }
}

/// How a picture reaches the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceMode {
    /// Uploaded first.
    Upload,
    /// Served already, below this address, whose path ends with `/`.
    PublicUrl {
        /// Where.
        url_base: Url,
    },
    /// In the request itself.
    Inline,
}

/// What is sent of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// How it is sent.
    pub mode: ReferenceMode,
    /// In pixels; a larger picture is scaled down.
    pub max_edge: u32,
    /// Of the picture that is sent, before base64.
    pub max_bytes: u64,
    /// Whether only pixels and the colour profile are sent.
    pub strip_metadata: bool,
    /// How long an upload may be used again; zero: never.
    pub upload_cache: Duration,
}

/// What happens to a shot of which nobody knows whether it was billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unconfirmed {
    /// It ends in errors.
    Hold,
    /// It is sent once more.
    Retry,
}

/// How often and when a shot is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Sends in all, at least 1.
    pub max_attempts: u32,
    /// Before the second send; doubled each time.
    pub first_delay: Duration,
    /// No delay is longer.
    pub max_delay: Duration,
    /// When nobody knows.
    pub unconfirmed: Unconfirmed,
    /// Between probes while paused.
    pub probe_interval: Duration,
}

/// What may be spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In the last 60 minutes; 0: no limit.
    pub images_per_hour: u32,
    /// In the last 24 hours; 0: no limit.
    pub images_per_day: u32,
    /// Shots of one drop, at least 1.
    pub max_variants: u32,
    /// What sidecars may not set.
    pub locked: BTreeSet<Key>,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The template of a result's stem, with `{stem}`, `{seed}`, `{variant}`, `{folder}`, `{date}` only.
    pub name: String,
    /// Whether a provenance file is written.
    pub provenance: bool,
}

/// The daemon as a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// How long what is in flight may finish at shutdown.
    pub grace: Duration,
    /// How long ended drops are remembered.
    pub keep_history: Duration,
    /// If it was set; see [`super::state_dir`].
    pub state_dir: Option<PathBuf>,
}

/// What is told to monitoring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where it is served, on loopback; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// What holds if a configuration at `file` says nothing.
    pub fn default_for(file: &Path, home: &Path) -> Self {
        let address = |text| Url::parse(text).expect("a constant address");
        let s = Duration::from_secs;
        Self {
            file: file.to_owned(),
            api: Api {
                base_url: address("https://api.segmind.com"),
                model: "/v1/bria-reimagine".into(),
                upload_url: address("https://workflows-api.segmind.com/upload-asset"),
                key_file: None,
                timeout: s(180),
                connect_timeout: s(10),
                requests_per_minute: 50,
                max_in_flight: 4,
            },
            folders: Folders {
                inbox: home.join("reimagine/inbox"),
                working: None,
                outbox: home.join("reimagine/outbox"),
                archive: home.join("reimagine/archive"),
                errors: home.join("reimagine/errors"),
            },
            watch: Watch {
                backend: Backend::Auto,
                settle: s(2),
                folder_settle: s(3),
                sidecar_wait: s(1),
                lone_wait: s(30),
                give_up: s(600),
                rescan: s(300),
                poll_interval: s(2),
                ignore: Ignore::default(),
            },
            reference: Reference {
                mode: ReferenceMode::Upload,
                max_edge: 2048,
                max_bytes: 12_000_000,
                strip_metadata: true,
                upload_cache: s(24 * 3600),
            },
            retry: Retry {
                max_attempts: 4,
                first_delay: s(2),
                max_delay: s(300),
                unconfirmed: Unconfirmed::Hold,
                probe_interval: s(60),
            },
            limits: Limits { images_per_hour: 0, images_per_day: 500, max_variants: 8, locked: BTreeSet::new() },
            output: Output { name: "{stem}".into(), provenance: true },
            service: Service { grace: s(195), keep_history: s(400 * 24 * 3600), state_dir: None },
            metrics: Metrics::default(),
            hooks: hooks::Settings::default(),
            preset: Layer::new(),
            warnings: Vec::new(),
        }
    }

    /// Reads the configuration at `path`. A symlink is followed: it is the administrator's own file.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let label = path.display().to_string();
        let of_file = |message: String| Problems::from(Problem::of_file(label.clone(), message));
        let absolute = std::path::absolute(path).map_err(|e| of_file(e.to_string()))?;
        let file = std::fs::File::open(&absolute).map_err(|e| of_file(e.to_string()))?;
        let bytes = document::read_at_most(&file, super::LONGEST_TEXT_BYTES).map_err(|e| of_file(e.to_string()))?;
        let bytes = bytes.ok_or_else(|| of_file("is over 1 MiB, which is too long".into()))?;
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        build::config(&bytes, &label, &absolute, home.as_deref(), RENAMED)
    }

    /// Reads a configuration from its text. Relative paths count from the folder of `path`, `~` is `home`;
    /// without one, a folder that needs it is a problem.
    pub fn parse(text: &str, path: &Path, home: Option<&Path>) -> Result<Self, Problems> {
        build::config(text.as_bytes(), &path.display().to_string(), path, home, RENAMED)
    }

    /// What its `[limits]` say about presets and sidecars.
    pub fn rules(&self) -> Rules {
        Rules { max_variants: self.limits.max_variants, locked: self.limits.locked.clone() }
    }

    /// The keys in which `new` differs and which change only on a restart.
    pub fn differs_only_on_restart(&self, new: &Self) -> Vec<&'static str> {
        let (old_f, new_f) = (&self.folders, &new.folders);
        [
            ("folders.inbox", old_f.inbox != new_f.inbox),
            ("folders.working", old_f.working != new_f.working),
            ("folders.outbox", old_f.outbox != new_f.outbox),
            ("folders.archive", old_f.archive != new_f.archive),
            ("folders.errors", old_f.errors != new_f.errors),
            ("service.state_dir", self.service.state_dir != new.service.state_dir),
            ("watch.backend", self.watch.backend != new.watch.backend),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// `new` with what changes only on a restart kept as it is here: what holds after a reload.
    #[must_use]
    pub fn reloaded(&self, mut new: Self) -> Self {
        new.folders.clone_from(&self.folders);
        new.service.state_dir.clone_from(&self.service.state_dir);
        new.watch.backend = self.watch.backend;
        new
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
