//! A place of its own for each test: folders, configuration, API, and what must hold whatever happened.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use toml::{Table, Value as Toml};

use super::{ASSET_MARK, Api, Daemon, KEY, PATIENCE, daemon, pictures, wait_until};

/// The folders that people look into.
const FOLDERS: [&str; 5] = ["inbox", "working", "outbox", "archive", "errors"];

/// Longer files are not read by tests.
const LARGE: u64 = 1 << 28;

/// A place of its own.
pub struct Site {
    /// The API that it talks to.
    pub api: Api,
    dir: TempDir,
    config: Mutex<Table>,
    dropped: Mutex<Vec<Vec<u8>>>,
    runs: AtomicU32,
    pictures: AtomicU32,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// Folders, an API, and a configuration with short waits; every drop has the prompt "a look".
    pub fn new() -> Self {
        let api = Api::start();
        let dir = tempfile::Builder::new().prefix("reimagined-").tempdir().unwrap();
        let site = Self {
            api,
            dir,
            config: Mutex::default(),
            dropped: Mutex::default(),
            runs: AtomicU32::new(0),
            pictures: AtomicU32::new(1),
        };
        for folder in FOLDERS {
            fs::create_dir(site.path(folder)).unwrap();
            if folder != "working" {
                site.set(&format!("folders.{folder}"), folder);
            }
        }
        site.set("api.base_url", site.api.url());
        site.set("api.upload_url", site.api.url() + super::api::UPLOAD);
        for (key, value) in [
            ("api.timeout", "20s"),
            ("api.connect_timeout", "5s"),
            ("watch.settle", "200ms"),
            ("watch.folder_settle", "100ms"),
            ("watch.sidecar_wait", "100ms"),
            ("watch.lone_wait", "300ms"),
            ("watch.give_up", "2s"),
            ("watch.rescan", "1s"),
            ("retry.first_delay", "50ms"),
            ("retry.max_delay", "200ms"),
            ("retry.probe_interval", "200ms"),
            ("service.state_dir", "state"),
            ("preset.prompt", "a look"),
        ] {
            site.set(key, value);
        }
        site.set("api.requests_per_minute", 0);
        site
    }

    /// Sets a key of the configuration, `table.key`.
    pub fn set(&self, key: &str, value: impl Into<Toml>) -> &Self {
        let (table, key) = key.split_once('.').unwrap();
        let mut config = self.config.lock().unwrap();
        let entry = config.entry(table).or_insert_with(|| Toml::Table(Table::new()));
        entry.as_table_mut().unwrap().insert(key.to_owned(), value.into());
        fs::write(self.config_file(), config.to_string()).unwrap();
        self
    }

    /// Pictures are served by their path, and not uploaded: what needs nothing but the disk goes by a shorter way.
    pub fn serve_pictures(&self) -> &Self {
        self.set("reference.mode", "public_url")
            .set("reference.url_base", "https://cdn.example.com/in box/")
            .set("reference.strip_metadata", false)
    }

    /// Takes a key out of the configuration.
    pub fn unset(&self, key: &str) -> &Self {
        let (table, key) = key.split_once('.').unwrap();
        let mut config = self.config.lock().unwrap();
        if let Some(table) = config.get_mut(table).and_then(Toml::as_table_mut) {
            table.remove(key);
        }
        fs::write(self.config_file(), config.to_string()).unwrap();
        self
    }

    /// The configuration's file.
    pub fn config_file(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// A path of the site: `inbox/a.jpg`.
    pub fn path(&self, rel: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(rel)
    }

    /// Writes a file, making its folders; what lands in the inbox must be somewhere in the end.
    pub fn put(&self, rel: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(&rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let hidden = rel.as_ref().file_name().unwrap().as_bytes().starts_with(b".");
        if rel.as_ref().starts_with("inbox") && !hidden {
            self.dropped.lock().unwrap().push(bytes.as_ref().to_vec());
        }
        path
    }

    /// Writes a file elsewhere and renames it into place.
    pub fn move_in(&self, rel: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let n = self.pictures.fetch_add(1, Ordering::Relaxed);
        let (path, draft) = (self.path(&rel), self.put(format!("drafts/{n}"), &bytes));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::rename(draft, &path).unwrap();
        self.dropped.lock().unwrap().push(bytes.as_ref().to_vec());
        path
    }

    /// Puts a small JPEG that no other drop of the site is.
    pub fn put_picture(&self, rel: impl AsRef<Path>) -> Vec<u8> {
        let bytes = self.a_picture();
        self.put(rel, &bytes);
        bytes
    }

    /// A small JPEG that no other of the site is.
    pub fn a_picture(&self) -> Vec<u8> {
        pictures::jpeg(self.pictures.fetch_add(1, Ordering::Relaxed))
    }

    /// The test ends here, since it is left out: what was dropped need not be anywhere.
    pub fn give_up(&self) {
        self.dropped.lock().unwrap().clear();
    }

    /// A dropped file that the test itself takes away: it need not be anywhere in the end.
    pub fn forget(&self, bytes: &[u8]) {
        let mut dropped = self.dropped.lock().unwrap();
        let at = dropped.iter().position(|b| b == bytes).expect("it was never dropped");
        dropped.remove(at);
    }

    /// Regular files below a folder of the site by their paths below it, without the daemon's own dotfiles.
    pub fn files(&self, folder: impl AsRef<Path>) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.path(folder);
        walkdir::WalkDir::new(&root)
            .into_iter()
            .filter_map(Result::ok)
            .filter(|e| e.file_type().is_file() && !e.file_name().as_bytes().starts_with(b"."))
            .filter_map(|e| {
                let rel = e.path().strip_prefix(&root).unwrap().to_path_buf();
                // Gigabytes, which take no room on the disk, are not for the memory either.
                let bytes = if e.metadata().ok()?.len() > LARGE { Vec::new() } else { fs::read(e.path()).ok()? };
                Some((rel, bytes))
            })
            .collect()
    }

    /// Their names, sorted.
    pub fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        self.files(folder).keys().map(|p| p.to_string_lossy().into_owned()).collect()
    }

    /// Pictures in the outbox: what is there without the provenance.
    pub fn results(&self) -> Vec<String> {
        self.names("outbox").into_iter().filter(|n| !n.ends_with(".reimagined.json")).collect()
    }

    /// Whether there is a file of that path.
    pub fn has(&self, rel: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.path(rel)).is_ok()
    }

    /// A file's text.
    pub fn text(&self, rel: impl AsRef<Path>) -> String {
        let path = self.path(rel);
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}\n{}", path.display(), self.describe()));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A note's text on one line, to look for words in.
    pub fn note(&self, rel: impl AsRef<Path>) -> String {
        self.text(rel).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The provenance beside a result.
    pub fn provenance(&self, rel: impl AsRef<Path>) -> Value {
        serde_json::from_str(&self.text(rel)).unwrap()
    }

    /// Whether nothing is left to do: inbox and working hold no file.
    pub fn is_empty(&self) -> bool {
        self.names("inbox").iter().all(|n| n.ends_with("preset.toml")) && self.names("working").is_empty()
    }

    /// A command of the binary over this site.
    pub fn command(&self) -> Command {
        daemon::command(self.dir.path(), &self.config_file())
    }

    /// The file that the next run logs to.
    pub fn next_log(&self) -> PathBuf {
        self.path(format!("run-{}.log", self.runs.fetch_add(1, Ordering::Relaxed)))
    }

    /// `reimagined run`, once it said in its status that it is there (so it heeds signals), or has ended.
    pub fn run(&self) -> Daemon {
        let mut daemon = self.begin();
        self.wait("the daemon is up", || self.status()["pid"] == daemon.pid() || !daemon.runs());
        daemon
    }

    /// [`Self::run`] by a command that is made of its own.
    pub fn run_by(&self, made: impl FnOnce(&Command) -> Command) -> Daemon {
        let mut daemon = self.begin_by(made);
        self.wait("the daemon is up", || self.status()["pid"] == daemon.pid() || !daemon.runs());
        daemon
    }

    /// What `reimagined status` tells.
    pub fn told(&self) -> Value {
        serde_json::from_slice(&self.call(&["status", "--json"]).stdout).unwrap_or_default()
    }

    /// Waits until `reimagined status` says that it is paused, for a reason with all of these words.
    #[track_caller]
    pub fn wait_paused(&self, words: &[&str]) {
        self.wait(&format!("it is paused, because of {words:?}; told: {:#}", self.told()), || {
            let told = self.told();
            let reason = told["paused"]["reason"].as_str().unwrap_or_default();
            told["state"] == "paused" && words.iter().all(|word| reason.contains(word))
        });
    }

    /// Waits until `reimagined status` says that it runs.
    #[track_caller]
    pub fn wait_running(&self) {
        self.wait("it runs", || self.told()["state"] == "running");
    }

    /// `reimagined run`, just begun.
    pub fn begin(&self) -> Daemon {
        let mut command = self.command();
        command.arg("run");
        Daemon::spawn(command, &self.next_log())
    }

    /// [`Self::begin`] by a command that is made of its own.
    pub fn begin_by(&self, made: impl FnOnce(&Command) -> Command) -> Daemon {
        let mut command = self.command();
        command.arg("run");
        Daemon::spawn(made(&command), &self.next_log())
    }

    /// `reimagined run --once`, to its end: the exit code.
    pub fn once(&self) -> i32 {
        self.begin_once().ends()
    }

    /// `reimagined run --once`, begun.
    pub fn begin_once(&self) -> Daemon {
        let mut command = self.command();
        command.args(["run", "--once"]);
        Daemon::spawn(command, &self.next_log())
    }

    /// Another command, to its end.
    pub fn call(&self, args: &[impl AsRef<OsStr>]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// What the daemon wrote into its status file; null if there is none yet.
    pub fn status(&self) -> Value {
        fs::read(self.path("state/status.json")).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default()
    }

    /// How many wait for that reason.
    pub fn waiting(&self, reason: &str) -> u64 {
        self.status()["waiting"][reason].as_u64().unwrap_or(0)
    }

    /// Why it is paused.
    pub fn paused(&self) -> Option<String> {
        self.status()["paused"]["reason"].as_str().map(str::to_owned)
    }

    /// All that was logged in all runs.
    pub fn logs(&self) -> String {
        (0..self.runs.load(Ordering::Relaxed))
            .filter_map(|n| fs::read(self.path(format!("run-{n}.log"))).ok())
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .collect()
    }

    /// Waits for a condition; the test fails with all that can be seen if it never comes.
    #[track_caller]
    pub fn wait(&self, what: &str, done: impl FnMut() -> bool) {
        assert!(wait_until(PATIENCE, done), "waited in vain: {what}\n{}", self.describe());
    }

    /// Waits for a file.
    #[track_caller]
    pub fn wait_for(&self, rel: &str) {
        self.wait(rel, || self.has(rel));
    }

    /// Waits until a drop is delivered and archived under this name.
    #[track_caller]
    pub fn wait_archived(&self, name: &str) {
        self.wait_for(&format!("archive/{name}"));
    }

    /// Waits until a drop is in errors with its note: the note, on one line.
    #[track_caller]
    pub fn wait_failed(&self, name: &str) -> String {
        self.wait_for(&format!("errors/{name}"));
        let note = Path::new(name).with_extension("error.txt");
        self.note(Path::new("errors").join(note))
    }

    /// Drops one more picture and waits until it is archived: what came before had its chance.
    #[track_caller]
    pub fn a_later_drop_is_done(&self) {
        let n = self.pictures.fetch_add(1, Ordering::Relaxed);
        self.put_picture(format!("inbox/later-{n}.jpg"));
        self.wait_archived(&format!("later-{n}.jpg"));
    }

    /// All that can be seen, for a failing test.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for folder in FOLDERS {
            let _ = writeln!(out, "{folder}: {:?}", self.names(folder));
        }
        for (path, bytes) in self.files("errors").iter().filter(|(p, _)| p.to_string_lossy().ends_with(".error.txt")) {
            let _ = write!(out, "--- {}\n{}", path.display(), String::from_utf8_lossy(bytes));
        }
        for request in self.api.requests() {
            let body: String = String::from_utf8_lossy(&request.body).chars().take(200).collect();
            let _ = writeln!(out, "{} {} {body}", request.method, request.path);
        }
        out + &format!("{:#}\n{}", self.status(), self.logs())
    }

    /// Every file that was dropped is in one of the folders, byte for byte.
    fn nothing_is_lost(&self) {
        let mut there: Vec<Vec<u8>> =
            ["inbox", "working", "archive", "errors"].iter().flat_map(|f| self.files(f).into_values()).collect();
        for bytes in self.dropped.lock().unwrap().iter() {
            let at = there.iter().position(|b| b == bytes);
            let Some(at) = at else {
                panic!("a dropped file of {} bytes is nowhere any more\n{}", bytes.len(), self.describe());
            };
            there.swap_remove(at);
        }
    }

    /// The key stands in no file, and an asset's URL in none that people see.
    fn nothing_is_told(&self) {
        for entry in walkdir::WalkDir::new(self.dir.path()).into_iter().filter_map(Result::ok) {
            if !entry.file_type().is_file() || entry.metadata().is_ok_and(|m| m.len() > LARGE) {
                continue;
            }
            let Ok(bytes) = fs::read(entry.path()) else { continue };
            let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
            assert!(!holds(KEY), "the key stands in {}", entry.path().display());
            let rel = entry.path().strip_prefix(self.dir.path()).unwrap();
            // The ledger remembers uploads.
            let ledger = rel.starts_with("state") && !rel.ends_with("status.json");
            assert!(ledger || !holds(ASSET_MARK), "an asset's URL stands in {}", entry.path().display());
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.nothing_is_lost();
            self.nothing_is_told();
        }
    }
}
