//! `init`, `check` and `retry` through the real binary, as a person uses them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use reimagined::domain::ids::{DropId, Fingerprint, RelPath, ShotNo};
use reimagined::domain::life::Shot;
use reimagined::ledger::sqlite::SqliteLedger;
use reimagined::ledger::{Ledger as _, Limits, Member, Moment, NewDrop, Role};
use reimagined::sandbox::{Options, Sandbox};
use reimagined::service::lock::{Lock, STATE_LOCK};
use serde_json::Value as Json;

const ROCKET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rocket.jpg");

/// A home of its own, with everything that `init DIR` makes in `site`.
struct Home {
    dir: tempfile::TempDir,
    key: Option<&'static str>,
}

struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), key: Some("k") }
    }

    /// After `init site`.
    fn new() -> Self {
        let home = Self::empty();
        home.run(&["init", "site"]).ok();
        home
    }

    /// After `init site`, with its waits short and its service on `url`.
    fn on(url: &str) -> Self {
        let home = Self::new();
        let mut text = fs::read_to_string(home.at("config.toml")).unwrap();
        for (old, new) in [
            ("https://api.segmind.com", url.to_owned()),
            ("https://workflows-api.segmind.com", url.to_owned()),
            ("\nsettle = \"2s\"", "\nsettle = \"100ms\"".into()),
            ("folder_settle = \"3s\"", "folder_settle = \"100ms\"".into()),
            ("sidecar_wait = \"1s\"", "sidecar_wait = \"100ms\"".into()),
            ("lone_wait = \"30s\"", "lone_wait = \"100ms\"".into()),
        ] {
            assert!(text.contains(old), "{old}");
            text = text.replace(old, &new);
        }
        fs::write(home.at("config.toml"), text).unwrap();
        home
    }

    fn site(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.site().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn picture(&self, path: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::copy(ROCKET, self.at(path)).unwrap();
    }

    fn set(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.at("config.toml")).unwrap();
        assert!(text.contains(old), "{old}");
        fs::write(self.at("config.toml"), text.replace(old, new)).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reimagined"));
        command.env_clear().env("HOME", self.dir.path()).env("TZ", "UTC").current_dir(self.dir.path());
        if let Some(key) = self.key {
            command.env("SEGMIND_API_KEY", key);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        done(&self.command().args(args).output().unwrap())
    }

    /// With the site's configuration.
    fn with(&self, args: &[&str]) -> Done {
        done(&self.command().arg("--config").arg(self.at("config.toml")).args(args).output().unwrap())
    }

    /// Every entry with what it is, holds, and when it changed.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut tree = BTreeMap::new();
        let mut todo = vec![self.dir.path().to_path_buf()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let held = if meta.is_file() { blake(&path) } else { String::new() };
                tree.insert(path.clone(), format!("{:?} {:?} {held}", meta.mode(), meta.modified().unwrap()));
                if meta.is_dir() {
                    todo.push(path);
                }
            }
        }
        let meta = fs::metadata(self.dir.path()).unwrap();
        tree.insert(self.dir.path().to_path_buf(), format!("{:?}", meta.modified().unwrap()));
        tree
    }

    /// What lies in a folder of the site, ordered.
    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(folder)) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn blake(path: &Path) -> String {
    Fingerprint::of(&fs::read(path).unwrap()).to_string()
}

fn done(output: &Output) -> Done {
    Done {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout.clone()).unwrap(),
        err: String::from_utf8(output.stderr.clone()).unwrap(),
    }
}

impl Done {
    fn ok(self) -> Self {
        self.ends(0)
    }

    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }

    fn says(self, words: &[&str]) -> Self {
        for word in words {
            let all = format!("{}{}", self.out, self.err);
            assert!(all.contains(word), "{word:?} is not in\n--- out\n{}\n--- err\n{}", self.out, self.err);
        }
        self
    }

    fn keeps_quiet_about(self, words: &[&str]) -> Self {
        for word in words {
            assert!(!self.out.contains(word) && !self.err.contains(word), "{word:?}\n{}\n{}", self.out, self.err);
        }
        self
    }

    /// Every JSON object on standard output.
    fn bodies(&self) -> Vec<Json> {
        let pieces = self.out.split("\n{").skip(1);
        let body = |piece: &str| serde_json::Deserializer::from_str(&format!("{{{piece}")).into_iter().next().unwrap();
        pieces.map(|piece| body(piece).unwrap()).collect()
    }
}

/// A sandbox that lives as long as the test.
struct Api {
    runtime: tokio::runtime::Runtime,
    sandbox: Option<Sandbox>,
}

impl Api {
    fn start(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let sandbox = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            Sandbox::start(listener, options).unwrap()
        });
        Self { runtime, sandbox: Some(sandbox) }
    }

    fn url(&self) -> String {
        self.sandbox.as_ref().unwrap().url()
    }

    fn calls(&self) -> u64 {
        self.sandbox.as_ref().unwrap().stats().model_calls
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _in = self.runtime.enter();
        self.sandbox.take();
    }
}

// ---- init -----------------------------------------------------------------------------------------------

#[test]
fn init_writes_what_check_finds_good_and_says_what_to_do_next() {
    let home = Home::empty();
    let said = home.run(&["init", "site"]).ok();
    let config = home.at("config.toml");
    said.says(&[config.to_str().unwrap(), "key_file", "reimagined check --config", "reimagined run", "service"]);
    assert_eq!(home.names("inbox"), ["autumn-cafe"], "nothing is active at the inbox's own root");
    assert_eq!(home.names("inbox/autumn-cafe"), ["preset.toml"]);
    assert_eq!(home.names(""), ["archive", "config.toml", "errors", "inbox", "outbox"]);
    home.with(&["check", "--offline"]).ok().says(&["Everything is in place", "1 preset", "not running"]);
}

#[test]
fn init_without_a_folder_writes_into_the_users_own_places() {
    let home = Home::empty();
    home.run(&["init"]).ok().keeps_quiet_about(&["--config"]);
    assert!(home.dir.path().join(".config/reimagined/config.toml").is_file());
    assert!(home.dir.path().join("reimagine/inbox/autumn-cafe/preset.toml").is_file());
    home.run(&["check", "--offline"]).ok().says(&["reimagine/inbox"]);
}

#[test]
fn init_overwrites_nothing_and_then_writes_nothing_at_all() {
    let home = Home::new();
    fs::write(home.at("config.toml"), "# mine").unwrap();
    let before = home.tree();
    home.run(&["init", "site"]).ends(2).says(&["site/config.toml", "nothing was written"]);
    assert_eq!(home.tree(), before);

    let home = Home::empty();
    home.write("inbox/autumn-cafe/terrace.jpg", "x");
    home.write("outbox", "a file");
    let before = home.tree();
    home.run(&["init", "site"]).ends(2).says(&["inbox/autumn-cafe", "site/outbox"]);
    assert_eq!(home.tree(), before);

    let home = Home::empty();
    fs::create_dir_all(home.dir.path().join(".config/reimagined")).unwrap();
    symlink("nowhere", home.dir.path().join(".config/reimagined/config.toml")).unwrap();
    let before = home.tree();
    home.run(&["init"]).ends(2).says(&[".config/reimagined/config.toml"]);
    assert_eq!(home.tree(), before);
}

#[test]
fn init_that_fails_half_way_leaves_nothing() {
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; a path through a file stops everybody.
        let home = Home::empty();
        fs::write(home.dir.path().join(".config"), "a file").unwrap();
        home.run(&["init"]).ends(2).says(&[".config"]);
        assert!(!home.dir.path().join("reimagine").exists());
        return;
    }
    let home = Home::empty();
    fs::set_permissions(home.dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    home.run(&["init"]).ends(2);
    fs::set_permissions(home.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::read_dir(home.dir.path()).unwrap().count(), 0);
}

// ---- check ----------------------------------------------------------------------------------------------

#[test]
fn check_says_everything_that_is_wrong_at_once() {
    let mut home = Home::new();
    home.key = None;
    home.write("inbox/a/preset.toml", "steps = 12\nfast = \"yes\"\n");
    home.write("inbox/a/b/preset.toml", "variants = 99\n");
    home.write("inbox/c/Preset.TOML", "seed = [");
    fs::remove_dir(home.at("archive")).unwrap();
    symlink("outbox", home.at("archive")).unwrap();
    home.with(&["check"]).ends(2).says(&[
        "a/preset.toml:1: steps: unknown key; did you mean \"steps_num\"?",
        "a/preset.toml:2: fast",
        "a/b/preset.toml:1: variants: asks for 99",
        "c/Preset.TOML:1",
        "3 broken",
        "[folders] outbox",
        "are one folder",
        "there is no API key",
    ]);
    home.with(&["check", "--offline"]).ends(2).says(&["warning: there is no API key", "a/preset.toml:2"]);
}

#[test]
fn check_without_a_key_is_wrong_and_offline_a_warning() {
    let mut home = Home::new();
    home.key = None;
    home.with(&["check"]).ends(2).says(&["there is no API key"]);
    home.with(&["check", "--offline"]).ok().says(&["there is no API key"]);
    // Named, but not there yet; then there, and wrong for whoever reads it.
    let file = home.dir.path().join("key");
    home.set("[folders]", &format!("key_file = {:?}\n[folders]", file.display()));
    home.with(&["check", "--offline"]).ok().says(&["cannot read the API key"]);
    for (bytes, mode, words) in [("k", 0o644, "chmod 600"), ("", 0o600, "write the key alone there")] {
        std::fs::write(&file, bytes).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        home.with(&["check", "--offline"]).ends(2).says(&[words]);
        home.with(&["check"]).ends(2).says(&[words]);
    }
}

#[test]
fn check_of_a_broken_configuration_shows_every_line() {
    let home = Home::new();
    home.set("max_in_flight = 4", "max_in_fligt = 4\nsecret = 1");
    home.with(&["check"]).ends(2).says(&["max_in_fligt", "did you mean \"max_in_flight\"", "secret"]);
    home.run(&["check", "--config", "none.toml"]).ends(2).says(&["none.toml"]);
}

#[test]
fn check_asks_for_credits_once_and_calls_no_model() {
    let api = Api::start(Options { key: Some("k".into()), credits: 1.5, ..Options::default() });
    let mut home = Home::on(&api.url());
    home.with(&["check"]).ok().says(&["Credits left:   $1.50", "Everything is in place"]);
    home.key = Some("other");
    home.with(&["check"]).ends(2).says(&["does not accept the API key"]).keeps_quiet_about(&["other"]);
    home.with(&["check", "--offline"]).ok();
    let asked = api.sandbox.as_ref().unwrap().stats();
    assert_eq!((asked.model_calls, asked.uploads, asked.credits_calls), (0, 0, 2), "one for each check that may ask");
}

#[test]
fn check_tells_an_empty_account_and_an_absent_service_from_a_wrong_configuration() {
    let api = Api::start(Options { credits: 0.0, ..Options::default() });
    let home = Home::on(&api.url());
    home.with(&["check"]).ends(4).says(&["credits are left"]);
    drop(api);
    home.with(&["check"]).ends(4).says(&["can't be reached"]);
}

#[test]
fn check_lists_what_is_ignored_and_why() {
    let home = Home::new();
    home.set("ignore = []", "ignore = [\"drafts/\"]");
    for name in ["README.md", "a.jpg.part", ".hidden", "drafts/x.jpg", "@eaDir/y.jpg"] {
        home.write(&format!("inbox/{name}"), "x");
    }
    symlink("README.md", home.at("inbox/link.jpg")).unwrap();
    home.with(&["check", "--offline"]).ok().says(&[
        "Ignored:        6",
        "link.jpg  a symbolic link, never followed",
        "README.md  a README is for people",
        "a.jpg.part  a temporary file",
        "drafts  matches [watch] ignore",
        "@eaDir  made by",
    ]);
}

#[test]
fn check_of_a_drop_shows_the_request_that_would_be_sent() {
    let home = Home::new();
    home.write("inbox/preset.toml", "steps_num = 20\nprompt_suffix = \", sharp\"\n");
    home.write("inbox/cafe/preset.toml", "prompt = \"inner\"\nvariants = 2\nfast = true\n");
    home.write("inbox/cafe/terrace.txt", "\n a red leaf \n");
    home.picture("inbox/cafe/Terrace.jpg");
    for path in ["site/inbox/cafe/Terrace.jpg", "site/inbox/cafe/terrace.txt", "cafe/Terrace.jpg", "site/inbox/cafe"] {
        let said = home.with(&["check", "--offline", path]).ok().says(&[
            "prompt                     cafe/terrace.txt:2",
            "prompt_suffix              preset.toml:2",
            "steps_num                  preset.toml:1",
            "variants                   cafe/preset.toml:2",
            "POST https://api.segmind.com/v1/bria-reimagine, shot 2 of 2",
        ]);
        let bodies = said.bodies();
        assert_eq!(bodies.len(), 2, "{}", said.out);
        let wanted = r#"{"prompt":"a red leaf, sharp","structure_image_url":"<uploaded: Terrace.jpg, 640x427, image/jpeg>",
            "steps_num":20,"seed":"<seed drawn when sent>","fast":true}"#;
        let wanted: Json = serde_json::from_str(wanted).unwrap();
        assert_eq!(bodies[0].to_string(), wanted.to_string(), "the order of the API's table, too");
    }
}

#[test]
fn check_of_a_drop_knows_the_other_ways_of_a_reference() {
    let home = Home::new();
    home.set("mode = \"upload\" ", "mode = \"public_url\"\nurl_base = \"https://cdn.example.com/\"");
    home.set("strip_metadata = true", "strip_metadata = false");
    home.picture("inbox/a b/x.jpg");
    home.write("inbox/a b/x.json", r#"{"prompt": "p", "seed": 7}"#);
    home.write("inbox/a b/y.json", r#"{"prompt": "p", "structure_image_url": "https://example.com/z.png"}"#);
    let bodies = home.with(&["check", "--offline", "site/inbox/a b/x.jpg"]).ok().bodies();
    assert_eq!(bodies[0]["structure_image_url"], "https://cdn.example.com/a%20b/x.jpg");
    assert_eq!(bodies[0]["seed"], 7);
    let bodies = home.with(&["check", "--offline", "a b/y.json"]).ok().bodies();
    assert_eq!(bodies[0]["structure_image_url"], "https://example.com/z.png");
}

#[test]
fn check_of_a_drop_that_would_not_be_sent_says_what_it_waits_for() {
    let home = Home::new();
    let presets = [
        ("off", "prompt = \"p\"\nenabled = false\n"),
        ("needs", "sidecar = \"required\"\nprompt = \"p\"\n"),
        ("broken", "prompt = 7\n"),
        ("plain", "fast = true\n"),
        ("pictures", "reference = \"required\"\n"),
    ];
    for (folder, preset) in presets {
        home.write(&format!("inbox/{folder}/preset.toml"), preset);
        home.picture(&format!("inbox/{folder}/a.jpg"));
    }
    home.write("inbox/pictures/b.txt", "lone");
    let bytes = fs::read(ROCKET).unwrap();
    fs::write(home.at("inbox/plain/half.jpg"), &bytes[..bytes.len() / 2]).unwrap();
    home.write("inbox/plain/half.txt", "p");
    home.write("inbox/plain/paper.pdf", "%PDF");
    home.write("inbox/plain/bad.toml", "prompt = \"p\"\nsteps = 3\n");
    fs::remove_file(home.at("inbox/broken/preset.toml")).unwrap();
    for (path, code, words) in [
        ("off/a.jpg", 0, &["its folder to be enabled"][..]),
        ("needs/a.jpg", 0, &["a sidecar", "required"]),
        ("plain/a.jpg", 0, &["a prompt", "a.txt"]),
        ("plain/half.jpg", 0, &["the rest of the picture"]),
        ("plain/half.txt", 0, &["the rest of the picture"]),
        ("pictures/b.txt", 0, &["an image"]),
        ("plain/paper.pdf", 2, &["would go to errors", "no kind of file"]),
        ("plain/bad.toml", 2, &["would go to errors", "bad.toml:2: steps: unknown key"]),
        ("plain/none.jpg", 2, &["none.jpg"]),
    ] {
        home.with(&["check", "--offline", path]).ends(code).says(words);
    }
    home.write("inbox/broken/preset.toml", "prompt = 7\n");
    home.with(&["check", "--offline", "broken/a.jpg"]).ends(2).says(&["a broken preset", "broken/preset.toml:1"]);
}

#[test]
fn check_of_a_path_outside_of_the_inbox_explains_itself() {
    let home = Home::new();
    home.picture("errors/a.jpg");
    home.picture("inbox/.working/a.jpg");
    home.write("inbox/README.txt", "x");
    home.with(&["check", "--offline", "site/errors/a.jpg"]).ends(2).says(&["does not lie in the inbox"]);
    home.with(&["check", "--offline", "site/inbox/.working/a.jpg"]).ends(2).says(&["ignored", "dot"]);
    home.with(&["check", "--offline", "site/inbox/README.txt"]).ok().says(&["a README is for people"]);
}

#[test]
fn check_changes_nothing() {
    let api = Api::start(Options::default());
    let home = Home::on(&api.url());
    home.write("inbox/cafe/preset.toml", "prompt = \"p\"\n");
    home.picture("inbox/cafe/a.jpg");
    fs::remove_dir(home.at("outbox")).unwrap();
    let before = home.tree();
    home.with(&["check"]).ok().says(&["site/outbox is not there; it will be made", "not there yet"]);
    home.with(&["check", "cafe/a.jpg"]).ok();
    home.with(&["check", "site/inbox"]).ok();
    assert_eq!(home.tree(), before);
    fs::rename(home.at("inbox"), home.at("elsewhere")).unwrap();
    let before = home.tree();
    home.with(&["check"]).ends(2).says(&["the inbox", "is not there"]);
    assert_eq!(home.tree(), before);
}

#[test]
fn check_works_beside_the_daemon() {
    let home = Home::new();
    fs::create_dir(home.at("state")).unwrap();
    let _daemon = Lock::take(&home.at("state").join(STATE_LOCK)).unwrap();
    home.with(&["check", "--offline"]).ok().says(&["running, process"]);
}

// ---- retry ----------------------------------------------------------------------------------------------

#[test]
fn a_drop_that_failed_goes_back_and_around_again() {
    let api = Api::start(Options::default());
    let home = Home::on(&api.url());
    home.picture("inbox/cafe/terrace.jpg");
    home.write("inbox/cafe/terrace.txt", "a cafe sandbox:status=400 sandbox:once");
    home.with(&["run", "--once"]).ends(3);
    assert_eq!(home.names("errors/cafe"), ["terrace.error.txt", "terrace.jpg", "terrace.txt"]);
    assert_eq!(api.calls(), 1);

    // The wrong paths first: they move nothing.
    home.with(&["retry", "site/errors/cafe/terrace.jpg", "site/errors/none.jpg"]).ends(2).says(&["none.jpg"]);
    home.with(&["retry", "site/config.toml"]).ends(2).says(&["does not lie in"]);
    assert_eq!(home.names("errors/cafe").len(), 3);

    let said = home.with(&["retry", "site/errors/cafe/terrace.error.txt"]).ok();
    said.says(&["cafe/terrace.jpg with terrace.txt: back in the inbox\n"]);
    assert_eq!(home.names("errors/cafe"), Vec::<String>::new(), "the note went, too");
    assert_eq!(home.names("inbox/cafe"), ["terrace.jpg", "terrace.txt"]);

    home.with(&["run", "--once"]).ok();
    assert_eq!(api.calls(), 2);
    assert_eq!(home.names("archive/cafe"), ["terrace.jpg", "terrace.txt"]);
    assert_eq!(home.names("outbox/cafe").len(), 2);
    home.with(&["retry", "--all"]).ok().says(&["Nothing to retry"]);
}

#[test]
fn retry_sends_what_was_not_delivered_and_again_sends_all() {
    for (again, calls) in [(false, 3), (true, 4)] {
        let api = Api::start(Options::default());
        let home = Home::on(&api.url());
        home.picture("inbox/cafe/a.jpg");
        home.write("inbox/cafe/a.toml", "prompt = \"p sandbox:status=400 sandbox:once\"\nseeds = [1, 2]\n");
        home.with(&["run", "--once"]).ends(3);
        assert_eq!(api.calls(), 2);
        let args = if again { &["retry", "--all", "--again"][..] } else { &["retry", "--all"] };
        home.with(args).ok().says(&["cafe/a.jpg with a.toml: back in the inbox\n"]);
        // Exactly what is sent then.
        let check = home.with(&["check", "--offline", "site/inbox/cafe/a.jpg"]).ok();
        assert_eq!(check.out.matches("POST ").count(), if again { 2 } else { 1 }, "{}", check.out);
        assert_eq!(check.out.contains("it comes back"), !again, "{}", check.out);
        home.with(&["run", "--once"]).ok();
        assert_eq!(api.calls(), calls, "again: {again}");
        // One is left of two, and it is the first or the second of two.
        for line in home.with(&["history", "--json"]).ok().out.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(row["shot"].is_u64() && row["shot"].as_u64() <= row["shots"].as_u64(), "{row}");
        }
    }
}

#[test]
fn a_retry_waits_for_another_one() {
    let api = Api::start(Options::default());
    let home = Home::on(&api.url());
    home.picture("inbox/a.jpg");
    home.write("inbox/a.txt", "p sandbox:status=400 sandbox:once\n");
    home.with(&["run", "--once"]).ends(3);
    let state = fs::File::open(home.at("state")).unwrap();
    rustix::fs::flock(&state, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut retry = home.command();
    retry.arg("--config").arg(home.at("config.toml")).args(["retry", "--all"]);
    let mut retry = retry.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(retry.stderr.as_mut().unwrap()), &mut said).unwrap();
    assert!(said.contains("another retry has"), "{said}");
    assert_eq!(home.names("errors"), ["a.error.txt", "a.jpg", "a.txt"]);
    drop(state);
    assert!(retry.wait().unwrap().success());
    assert!(home.at("inbox/a.jpg").exists() && home.names("errors").is_empty());
}

#[test]
fn what_came_back_is_counted_among_all_that_were_wanted() {
    let api = Api::start(Options::default());
    let home = Home::on(&api.url());
    home.picture("inbox/a.jpg");
    home.write("inbox/a.toml", "prompt = \"p sandbox:status=400 sandbox:once\"\nseeds = [1, 2, 3, 4]\n");
    home.with(&["run", "--once"]).ends(3);
    home.with(&["retry", "--all"]).ok();
    home.with(&["run", "--once"]).ok();
    let history = home.with(&["history", "--json"]).ok().out;
    let rows: Vec<serde_json::Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["shots"] == 4), "{history}");
}

#[test]
fn retry_takes_a_free_name_for_the_whole_set_and_overwrites_nothing() {
    let home = Home::new();
    home.picture("errors/cafe/a.jpg");
    home.write("errors/cafe/a.txt", "failed");
    home.write("errors/cafe/a.error.txt", "a note of nobody's");
    home.write("errors/cafe/b.pdf", "%PDF");
    home.write("errors/cafe/deep/c.txt", "c");
    symlink("a.jpg", home.at("errors/cafe/link.jpg")).unwrap();
    home.write("inbox/cafe/A.TXT", "another");
    home.with(&["retry", "site/errors/cafe"]).ok().says(&[
        "cafe/a.jpg with a.txt: back in the inbox as cafe/a (2).jpg",
        "its note a.error.txt stays",
        "cafe/b.pdf: back",
        "cafe/deep/c.txt: back",
        "3 drops went back",
    ]);
    assert_eq!(home.names("inbox/cafe"), ["A.TXT", "a (2).jpg", "a (2).txt", "b.pdf", "deep"]);
    assert_eq!(fs::read_to_string(home.at("inbox/cafe/A.TXT")).unwrap(), "another");
    assert_eq!(home.names("errors/cafe"), ["a.error.txt", "deep", "link.jpg"]);
    assert!(!home.at("state/ledger.db").exists(), "no ledger is made for it");
    home.with(&["retry", "site/errors/cafe/a.error.txt"]).ends(2).says(&["not beside it"]);
    home.with(&["retry", "site/errors/cafe/link.jpg"]).ends(2);
}

#[test]
fn retry_of_what_is_no_drop_takes_its_note_along() {
    let api = Api::start(Options::default());
    let home = Home::on(&api.url());
    for name in ["a.pdf", "b.tar.gz", "noext"] {
        home.write(&format!("inbox/{name}"), name);
    }
    let failed = || {
        let said = home.with(&["status", "--json"]).ok().out.clone();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["failed"].clone()
    };
    home.with(&["run", "--once"]).ends(3);
    assert_eq!(failed(), 3);
    home.with(&["retry", "site/errors/a.error.txt"]).ok().says(&["a.pdf: back in the inbox"]);
    home.with(&["retry", "--all"]).ok().says(&["b.tar.gz: back in the inbox", "noext: back in the inbox"]);
    assert!(home.names("errors").is_empty(), "{:?}", home.names("errors"));
    home.with(&["run", "--once"]).ends(3);
    let there = ["a.error.txt", "a.pdf", "b.tar.error.txt", "b.tar.gz", "noext", "noext.error.txt"];
    assert_eq!(home.names("errors"), there);
    assert_eq!(failed(), 3, "the same three");
}

#[test]
fn retry_leaves_a_note_that_somebody_edited() {
    let api = Api::start(Options::default());
    let home = Home::on(&api.url());
    home.write("inbox/cafe/a.txt", "p sandbox:status=400");
    home.with(&["run", "--once"]).ends(3);
    let note = home.at("errors/cafe/a.error.txt");
    let text = fs::read_to_string(&note).unwrap();
    fs::write(&note, format!("{text}ask Ann")).unwrap();
    home.with(&["retry", "cafe/a.txt"]).ok().says(&["its note a.error.txt stays (it was edited)"]);
    assert_eq!(home.names("errors/cafe"), ["a.error.txt"]);
    assert_eq!(home.names("inbox/cafe"), ["a.txt"]);
}

#[test]
fn retry_of_a_folder_that_is_not_of_errors_moves_nothing() {
    let home = Home::new();
    home.picture("errors/a.jpg");
    fs::create_dir(home.at("elsewhere")).unwrap();
    for path in [".", "..", "./elsewhere/..", "elsewhere"] {
        home.with(&["retry", path]).ends(2).says(&["nothing was moved"]);
    }
    assert_eq!(home.names("errors"), ["a.jpg"]);
}

#[test]
fn init_of_a_folder_takes_no_option_of_a_service() {
    let home = Home::new();
    for option in [&["--dry-run"][..], &["--remove"], &["--yes"], &["--root", "x"], &["--key-from", "k"]] {
        home.run(&[&["init", "fresh"], option].concat()).ends(2).says(&[option[0]]);
        assert!(!home.at("fresh").exists(), "{option:?}");
    }
}

#[test]
fn a_copy_of_a_failed_drop_leaves_the_note_to_the_one_that_still_lies_there() {
    let api = Api::start(Options::default());
    let home = Home::on(&api.url());
    home.write("inbox/one.txt", "p sandbox:status=504 sandbox:once");
    home.with(&["run", "--once"]).ends(3);
    let failed = ["one.error.txt", "one.txt"];
    assert_eq!(home.names("errors"), failed);
    fs::copy(home.at("errors/one.txt"), home.at("inbox/two.txt")).unwrap();
    home.with(&["run", "--once"]).ok();
    assert_eq!(home.names("errors"), failed, "whoever finds it is to know why");
    // Taken back itself, it takes its note along.
    home.write("inbox/three.txt", "q sandbox:status=400 sandbox:once");
    home.with(&["run", "--once"]).ends(3);
    fs::rename(home.at("errors/three.txt"), home.at("inbox/four.txt")).unwrap();
    home.with(&["run", "--once"]).ok();
    assert_eq!(home.names("errors"), failed);
}

#[test]
fn retry_that_has_nowhere_to_go_moves_nothing() {
    let home = Home::new();
    home.picture("errors/a.jpg");
    fs::rename(home.at("inbox"), home.at("elsewhere")).unwrap();
    home.with(&["retry", "--all"]).ends(2).says(&["the inbox", "is not there"]);
    assert_eq!(home.names("errors"), ["a.jpg"]);
}

#[test]
fn retry_closes_a_drop_whose_files_are_lost_when_no_daemon_runs() {
    let home = Home::new();
    fs::create_dir(home.at("state")).unwrap();
    fs::create_dir_all(home.at("working/cafe")).unwrap();
    fs::write(home.at("working/cafe/a.txt"), "left").unwrap();
    let mut ledger = SqliteLedger::open(&home.at("state/ledger.db")).unwrap();
    let member = |name: &str, role| Member { name: name.into(), role, print: None, size: 1, moves: true };
    let drop = NewDrop {
        id: DropId([7; 16]),
        folder: RelPath::new("cafe").unwrap(),
        stem: "a".into(),
        members: vec![member("a.txt", Role::Sidecar), member("a.jpg", Role::Picture)],
        working: home.at("working"),
        recognition: Some(Fingerprint::of(b"r")),
        plan: "{}".into(),
        shots: vec![Shot::new(ShotNo(0), None)],
        failure: None,
        continues: None,
    };
    let now = Moment { wall: jiff::Timestamp::now(), boot: String::new(), since_boot: std::time::Duration::ZERO };
    ledger.begin(&drop, None, Limits::default(), &now).unwrap();
    std::mem::drop(ledger);
    let open = || SqliteLedger::open(&home.at("state/ledger.db")).unwrap().open_drops().unwrap().len();

    home.with(&["retry", "cafe/b.jpg"]).ends(2);
    let daemon = Lock::take(&home.at("state").join(STATE_LOCK)).unwrap();
    home.with(&["retry", "cafe/a.jpg"]).ends(1).says(&["stop the daemon"]);
    std::mem::drop(daemon);
    assert_eq!(open(), 1);
    home.with(&["retry", "site/working/cafe/a.jpg"]).ok().says(&["closed as lost", "lies in errors: a.txt"]);
    assert_eq!((open(), home.names("errors/cafe")), (0, vec!["a.txt".to_owned()]));
}
