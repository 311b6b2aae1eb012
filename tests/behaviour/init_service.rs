//! `init --service` and its `--remove`, through the real binary: into a home, below another root, and in a booted
//! systemd.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::pty::openpty;
use reimagined::config::Config;
use support::boot::Boot;
use support::{Api, KEY, wait_until};

/// A home of its own, in which nothing of this machine's systemd can be reached.
struct Home(tempfile::TempDir);

/// Every entry: its mode, and what it holds.
type Tree = BTreeMap<String, (u32, Vec<u8>)>;

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- out\n{}\n--- err\n{}", self.out, self.err);
        assert!(!self.out.contains(KEY) && !self.err.contains(KEY), "the key was told");
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            let all = format!("{}{}", self.out, self.err);
            assert!(all.contains(word), "{word:?} is not in\n--- out\n{}\n--- err\n{}", self.out, self.err);
        }
        self
    }
}

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::Builder::new().prefix("reimagined-home-").tempdir().unwrap());
        for folder in ["me", "root", "run"] {
            fs::create_dir(home.at(folder)).unwrap();
        }
        fs::write(home.at("key"), format!("{KEY}\n")).unwrap();
        home
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reimagined"));
        command.env_clear().env("HOME", self.at("me")).env("XDG_RUNTIME_DIR", self.at("run")).stdin(Stdio::null());
        command.current_dir(self.0.path()).arg("init");
        command
    }

    fn call(&self, args: &[&str]) -> Said {
        Said::of(self.command().args(args).output().unwrap())
    }

    /// For the user.
    fn user(&self, args: &[&str]) -> Said {
        self.call(&[&["--service=user"], args].concat())
    }

    /// For a machine that is not running.
    fn system(&self, args: &[&str]) -> Said {
        self.call(&[&["--service", "--root", "root"], args].concat())
    }

    /// All that is below a folder.
    fn tree(&self, folder: &str) -> Tree {
        let root = self.at(folder);
        let entries = walkdir::WalkDir::new(&root).min_depth(1).into_iter().map(Result::unwrap);
        entries
            .map(|entry| {
                let meta = entry.metadata().unwrap();
                let held = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
                let name = entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                (name, (meta.mode() & 0o7777, held))
            })
            .collect()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        self.tree(folder).into_keys().collect()
    }

    fn edit(&self, path: &str, more: &str) {
        let text = fs::read_to_string(self.at(path)).unwrap();
        fs::write(self.at(path), format!("{more}{text}")).unwrap();
    }

    fn put(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }
}

const UNIT: &str = "me/.config/systemd/user/reimagined.service";
const CONFIG: &str = "me/.config/reimagined/config.toml";

#[test]
fn a_dry_run_shows_each_file_with_its_mode_and_writes_nothing() {
    let home = Home::new();
    let said = home.user(&["--dry-run", "--key-from", "key"]).ends(0).says(&[
        "would install reimagined as a service for you alone",
        "--dry-run",
        "me/.config/systemd/user/reimagined.service",
        "me/.config/reimagined/config.toml",
        "me/reimagine/inbox/",
        "0600 ",
        "me/.config/reimagined/api-key",
    ]);
    assert!(!said.out.contains("What to do next"), "{}", said.out);
    home.system(&["--dry-run"]).ends(0).says(&["for this machine", "0644", "root/etc/sysusers.d/reimagined.conf"]);
    assert!(home.names("me").is_empty() && home.names("root").is_empty());
    // Also for a machine that it may not change, or could not.
    home.call(&["--service=user", "--remove", "--dry-run"]).ends(0).says(&["nothing to remove"]);
}

#[test]
fn without_a_terminal_and_without_yes_nothing_is_done() {
    let home = Home::new();
    home.user(&[]).ends(2).says(&["will install", "nothing was done", "--yes", "--dry-run"]);
    assert!(home.names("me").is_empty());
    home.user(&["--yes"]).ends(0);
    let before = home.tree("me");
    home.user(&["--remove"]).ends(2).says(&["will take the service away", "nothing was done"]);
    assert_eq!(home.tree("me"), before);
}

#[test]
fn a_users_service_is_what_check_finds_good_and_can_be_said_twice() {
    let home = Home::new();
    let said = home.user(&["--yes", "--key-from", "key"]).ends(0).says(&[
        "systemctl --user enable --now reimagined",
        "loginctl enable-linger",
        "--service=user --remove",
    ]);
    assert!(!said.out.contains("Give it your Segmind API key"), "it has one: {}", said.out);
    let tree = home.tree("me");
    let mode = |path: &str| tree[path].0;
    assert_eq!(tree[".config/reimagined/api-key"], (0o600, format!("{KEY}\n").into_bytes()));
    assert_eq!((mode(".config"), mode(".config/reimagined")), (0o700, 0o700));
    let unit = String::from_utf8(tree[".config/systemd/user/reimagined.service"].1.clone()).unwrap();
    let starts: Vec<_> = unit.lines().filter(|line| line.starts_with("ExecStart=")).collect();
    assert_eq!(starts, [format!("ExecStart={} run", env!("CARGO_BIN_EXE_reimagined"))]);
    for folder in ["inbox", "outbox", "archive", "errors", "inbox/autumn-cafe"] {
        assert!(home.at("me/reimagine").join(folder).is_dir(), "{folder}");
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_reimagined"));
    check.env_clear().env("HOME", home.at("me"));
    Said::of(check.args(["check", "--offline"]).output().unwrap())
        .ends(0)
        .says(&["Everything is in place", "there is one"]);

    home.user(&["--yes"]).ends(0).says(&["Everything stands already", "left as it is", "api-key  a key"]);
    home.user(&[]).ends(0).says(&["Everything stands already"]);
    assert_eq!(home.tree("me"), tree);
}

#[test]
fn the_folders_of_a_person_are_as_closed_as_the_umask_says_and_the_key_always_is() {
    let home = Home::new();
    let script = "umask 077; exec \"$0\" \"$@\"";
    let program = env!("CARGO_BIN_EXE_reimagined");
    for (umask, folder, file) in [("077", 0o700, 0o600), ("002", 0o775, 0o664)] {
        let script = script.replace("077", umask);
        let mut command = Command::new("sh");
        command
            .env_clear()
            .env("HOME", home.at("me"))
            .env("XDG_RUNTIME_DIR", home.at("run"))
            .env("PATH", "/usr/bin:/bin");
        command.current_dir(home.0.path()).args([
            "-c",
            &script,
            program,
            "init",
            "--service=user",
            "--yes",
            "--key-from",
            "key",
        ]);
        Said::of(command.output().unwrap()).ends(0);
        let tree = home.tree("me");
        assert_eq!(tree["reimagine/inbox"].0, folder, "{umask}");
        assert_eq!(tree[".config/reimagined/config.toml"].0, file, "{umask}");
        assert_eq!(tree[".config/reimagined/api-key"].0, 0o600, "{umask}");
        home.user(&["--remove", "--yes"]).ends(0);
    }
}

#[test]
fn the_places_follow_xdg() {
    let home = Home::new();
    let mut command = home.command();
    command.env("XDG_CONFIG_HOME", home.at("elsewhere")).args(["--service=user", "--yes", "--key-from", "key"]);
    Said::of(command.output().unwrap()).ends(0).says(&["$XDG_CONFIG_HOME"]);
    let config = Config::load(&home.at("elsewhere/reimagined/config.toml")).unwrap();
    assert_eq!(config.api.key_file, Some(home.at("elsewhere/reimagined/api-key")));
    assert!(home.at("elsewhere/systemd/user/reimagined.service").is_file());
    assert!(!home.at("me/.config").exists());
}

#[test]
fn a_machines_service_is_written_below_its_root() {
    let home = Home::new();
    home.system(&["--yes", "--key-from", "key"]).ends(0).says(&[
        "systemctl --root=",
        "usermod -aG reimagined",
        "/srv/reimagine/inbox",
    ]);
    let tree = home.tree("root");
    let files: Vec<_> =
        tree.iter().filter(|(_, (_, held))| !held.is_empty()).map(|(path, (mode, _))| (path.as_str(), *mode)).collect();
    assert_eq!(
        files,
        [
            ("etc/reimagined/.api-key.by-init", 0o600),
            ("etc/reimagined/api-key", 0o600),
            ("etc/reimagined/config.toml", 0o644),
            ("etc/systemd/system/reimagined.service", 0o644),
            ("etc/sysusers.d/reimagined.conf", 0o644),
            ("etc/tmpfiles.d/reimagined.conf", 0o644),
        ]
    );
    assert!(tree.values().all(|(mode, held)| !held.is_empty() || *mode == 0o755), "folders that all may enter");
    let config = Config::load(&home.at("root/etc/reimagined/config.toml")).unwrap();
    assert_eq!(config.folders.inbox, Path::new("/srv/reimagine/inbox"));
    assert_eq!(config.service.state_dir.as_deref(), Some(Path::new("/var/lib/reimagined")));
    home.system(&["--yes"]).ends(0).says(&["Everything stands already"]);
    assert_eq!(home.tree("root"), tree);
    home.system(&["--remove", "--yes"]).ends(0);
    let left = home.tree("root");
    assert!(left.values().all(|(_, held)| held.is_empty()), "{:?}", left.keys());
    assert!(!left.contains_key("etc/reimagined"));
}

#[test]
fn an_interrupted_run_is_repeated() {
    let home = Home::new();
    home.user(&["--yes", "--key-from", "key"]).ends(0);
    let whole = home.tree("me");
    // After each step that may have been the last one.
    for lost in [
        &[".config/systemd/user/reimagined.service"][..],
        &[".config/systemd/user/reimagined.service", ".config/reimagined/api-key"],
        &[".config/systemd", ".config/reimagined"],
        &[".config", "reimagine/inbox/autumn-cafe/preset.toml"],
        &[".config", "reimagine/inbox", "reimagine/errors"],
    ] {
        for path in lost {
            let path = home.at("me").join(path);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let key = home.at("me/.config/reimagined/api-key").exists();
        let key: &[&str] = if key { &[] } else { &["--key-from", "key"] };
        home.user(&[&["--yes"], key].concat()).ends(0);
        assert_eq!(home.tree("me"), whole, "after {lost:?} were lost");
    }
}

#[test]
fn what_stands_in_the_way_stops_it_before_anything_is_written() {
    let home = Home::new();
    home.put(UNIT, "[Service]\nExecStart=/bin/true\n");
    home.put("me/reimagine/errors", "a file");
    let before = home.tree("me");
    home.user(&["--yes"]).ends(2).says(&["nothing was done", "user/reimagined.service", "reimagine/errors"]);
    assert_eq!(home.tree("me"), before);

    let home = Home::new();
    fs::create_dir_all(home.at("root/etc/systemd/system")).unwrap();
    symlink("/dev/null", home.at("root/etc/systemd/system/reimagined.service")).unwrap();
    let before = home.names("root");
    home.system(&["--yes"]).ends(2).says(&["nothing was done", "system/reimagined.service"]);
    assert_eq!(home.names("root"), before, "a masked unit stays masked");
    home.call(&["--service", "--root", "nowhere", "--yes"]).ends(2).says(&["nowhere"]);
}

#[test]
fn a_key_that_is_none_stops_it_and_is_not_told() {
    let home = Home::new();
    for bad in ["", "SG_one\nSG_two\n", "SG one\n", "SG_\u{e4}\n"] {
        fs::write(home.at("bad"), bad).unwrap();
        let said = home.user(&["--yes", "--key-from", "bad"]).ends(2).says(&["bad"]);
        assert!(!said.err.contains("SG"), "{}", said.err);
    }
    home.user(&["--yes", "--key-from", "none"]).ends(2).says(&["none"]);
    assert!(home.names("me").is_empty());
    // A key that is there is not replaced.
    home.put("me/.config/reimagined/api-key", "SG_mine");
    home.user(&["--yes", "--key-from", "key"]).ends(2).says(&["there is a key already"]);
    home.user(&["--yes"]).ends(0);
    assert_eq!(fs::read_to_string(home.at("me/.config/reimagined/api-key")).unwrap(), "SG_mine");
}

#[test]
fn the_key_may_come_from_standard_input() {
    let home = Home::new();
    let mut command = home.command();
    let mut child = command
        .args(["--service=user", "--yes", "--key-from", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(KEY.as_bytes()).unwrap();
    Said::of(child.wait_with_output().unwrap()).ends(0);
    assert_eq!(home.tree("me")[".config/reimagined/api-key"], (0o600, format!("{KEY}\n").into_bytes()));
}

#[test]
fn a_configuration_of_somebodys_stays_and_its_folders_are_made() {
    let home = Home::new();
    let mine = "[folders]\ninbox = \"~/in\"\noutbox = \"~/out\"\narchive = \"~/done\"\nerrors = \"~/bad\"\n";
    home.put(CONFIG, mine);
    home.user(&["--yes"]).ends(0).says(&[
        "your configuration",
        "Name that file",
        "key_file = \"",
        "Give it your",
        "me/in\n",
    ]);
    assert_eq!(fs::read_to_string(home.at(CONFIG)).unwrap(), mine);
    for folder in ["in", "out", "done", "bad"] {
        assert!(home.at("me").join(folder).is_dir(), "{folder}");
    }
    assert!(!home.at("me/reimagine").exists());
    home.user(&["--remove", "--yes"]).ends(0).says(&["config.toml  the configuration: edited since"]);
    assert!(home.at("me/in").is_dir() && home.at(CONFIG).is_file() && !home.at(UNIT).exists());

    let home = Home::new();
    home.put(CONFIG, "[api]\nkey_file = \"~/my-key\"\n");
    home.user(&["--yes"]).ends(0).says(&["me/my-key  your configuration takes the key from there"]);
    home.put(CONFIG, "[api]\nkey_fil = \"~/my-key\"\n");
    home.user(&["--yes"]).ends(2).says(&["is broken", "key_fil", "did you mean"]);
}

#[test]
fn what_init_wrote_and_nobody_edited_becomes_the_services() {
    let home = Home::new();
    home.call(&[]).ends(0).says(&["init --service"]);
    home.user(&["--yes", "--key-from", "key"]).ends(0).says(&["renew"]);
    let config = Config::load(&home.at(CONFIG)).unwrap();
    assert!(config.api.key_file.is_some_and(|path| path.ends_with(".config/reimagined/api-key")));
    let unchanged = home.tree("me");
    home.user(&["--yes"]).ends(0);
    assert_eq!(home.tree("me"), unchanged);
}

#[test]
fn an_unedited_unit_of_another_place_is_renewed_and_an_edited_one_is_not() {
    let home = Home::new();
    home.user(&["--yes"]).ends(0);
    let other = home.at("bin 100%/reimagined");
    fs::create_dir(other.parent().unwrap()).unwrap();
    // By another program: what another test starts meanwhile would have the copy open for writing.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_reimagined")).arg(&other).status().unwrap();
    assert!(copied.success());
    let call = || {
        let mut command = Command::new(&other);
        command.env_clear().env("HOME", home.at("me")).env("XDG_RUNTIME_DIR", home.at("run")).stdin(Stdio::null());
        Said::of(command.args(["init", "--service=user", "--yes"]).output().unwrap())
    };
    call().ends(0).says(&["renew"]);
    let unit = fs::read_to_string(home.at(UNIT)).unwrap();
    assert!(unit.contains(&format!("\nExecStart=\"{}\" run\n", other.to_str().unwrap().replace('%', "%%"))), "{unit}");
    // Its mark is that of the new text: it is still known as unedited.
    home.user(&["--yes"]).ends(0).says(&["renew"]);
    home.edit(UNIT, "# mine\n");
    let before = home.tree("me");
    call().ends(2).says(&["reimagined.service  (not written by"]);
    assert_eq!(home.tree("me"), before);
}

#[test]
fn remove_takes_what_is_unedited_and_never_a_picture_or_the_ledger() {
    let home = Home::new();
    home.user(&["--yes", "--key-from", "key"]).ends(0);
    home.put("me/reimagine/archive/cafe/terrace.jpg", "picture");
    home.put("me/reimagine/inbox/autumn-cafe/waiting.jpg", "picture");
    home.put("me/.local/state/reimagined/ledger.db", "ledger");
    let before = home.tree("me");
    home.user(&["--remove", "--dry-run"]).ends(0).says(&[
        "would take",
        "api-key  the API key",
        "This stays",
        "--dry-run",
    ]);
    assert_eq!(home.tree("me"), before);
    home.user(&["--remove", "--yes"]).ends(0).says(&[
        "remove   ",
        "reimagine/archive/  1 entry in it",
        "reimagine/inbox/autumn-cafe/  2 entries in it",
        ".local/state/reimagined/  the ledger",
        "The service is removed",
    ]);
    assert_eq!(
        home.names("me"),
        [
            ".config",
            ".config/systemd",
            ".config/systemd/user",
            ".local",
            ".local/state",
            ".local/state/reimagined",
            ".local/state/reimagined/ledger.db",
            "reimagine",
            "reimagine/archive",
            "reimagine/archive/cafe",
            "reimagine/archive/cafe/terrace.jpg",
            "reimagine/inbox",
            "reimagine/inbox/autumn-cafe",
            "reimagine/inbox/autumn-cafe/preset.toml",
            "reimagine/inbox/autumn-cafe/waiting.jpg",
        ]
    );
    home.user(&["--remove", "--yes"]).ends(0).says(&["nothing to remove", "1 entry in it"]);
}

#[test]
fn remove_takes_the_key_only_with_its_configuration_and_only_if_init_wrote_it() {
    let key = "me/.config/reimagined/api-key";
    // The configuration was edited, then taken away.
    let home = Home::new();
    home.user(&["--yes", "--key-from", "key"]).ends(0);
    home.edit(CONFIG, "# mine\n");
    home.user(&["--remove", "--yes"]).ends(0).says(&["api-key  the API key: the configuration stays, too"]);
    assert!(home.at(key).exists());
    fs::remove_file(home.at(CONFIG)).unwrap();
    home.user(&["--remove", "--yes"]).ends(0);
    assert!(!home.at("me/.config/reimagined").exists());
    // Given by hand, and written by init but another by now.
    for by_init in [false, true] {
        let home = Home::new();
        let args: &[&str] = if by_init { &["--yes", "--key-from", "key"] } else { &["--yes"] };
        home.user(args).ends(0);
        home.put(key, "SG_mine");
        home.user(&["--remove", "--yes"]).ends(0).says(&["api-key  the API key: not written by init"]);
        assert_eq!(fs::read_to_string(home.at(key)).unwrap(), "SG_mine");
        assert_eq!(fs::read_dir(home.at("me/.config/reimagined")).unwrap().count(), 1);
    }
}

#[test]
fn a_daemon_that_has_ended_leaves_nothing_that_remove_does_not_take() {
    let home = Home::new();
    home.user(&["--yes", "--key-from", "key"]).ends(0);
    home.put("me/reimagine/working/.lock", "");
    let held = fs::File::open(home.at("me/reimagine/working/.lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    home.user(&["--remove", "--dry-run"]).ends(0).says(&["reimagine/working/  1 entry in it"]);
    drop(held);
    home.user(&["--remove", "--yes"]).ends(0).says(&["working/.lock"]);
    assert!(!home.at("me/reimagine").exists());
}

#[test]
fn remove_leaves_what_was_edited_and_names_it() {
    let home = Home::new();
    home.system(&["--yes"]).ends(0);
    home.edit("root/etc/reimagined/config.toml", "# mine\n");
    home.edit("root/etc/tmpfiles.d/reimagined.conf", "# mine\n");
    fs::create_dir(home.at("root/etc/systemd/system/multi-user.target.wants")).unwrap();
    symlink(
        "/etc/systemd/system/reimagined.service",
        home.at("root/etc/systemd/system/multi-user.target.wants/reimagined.service"),
    )
    .unwrap();
    home.put("root/etc/systemd/system/reimagined.service.d/override.conf", "[Service]\n");
    home.system(&["--remove", "--yes"]).ends(0).says(&[
        "etc/reimagined/config.toml  the configuration: edited since",
        "etc/tmpfiles.d/reimagined.conf  the folders: edited since",
        "reimagined.service.d/  your changes",
        "the start at boot",
    ]);
    let left: Vec<_> =
        home.tree("root").into_iter().filter(|(_, (_, held))| !held.is_empty()).map(|(path, _)| path).collect();
    assert_eq!(
        left,
        [
            "etc/reimagined/config.toml",
            "etc/systemd/system/reimagined.service.d/override.conf",
            "etc/tmpfiles.d/reimagined.conf"
        ]
    );
    assert!(
        fs::symlink_metadata(home.at("root/etc/systemd/system/multi-user.target.wants/reimagined.service")).is_err()
    );
}

#[test]
fn what_a_package_brings_is_not_written_again() {
    let home = Home::new();
    home.put("root/usr/lib/systemd/system/reimagined.service", "[Service]\n");
    home.put("root/usr/lib/sysusers.d/reimagined.conf", "#\n");
    home.system(&["--yes"]).ends(0).says(&["reimagined.service  the service, from a package"]);
    let tree = home.tree("root");
    assert!(!tree.contains_key("etc/systemd/system/reimagined.service"));
    assert!(!tree.contains_key("etc/sysusers.d/reimagined.conf"));
    assert!(tree.contains_key("etc/tmpfiles.d/reimagined.conf"));
    let enabled = "root/etc/systemd/system/multi-user.target.wants/reimagined.service";
    fs::create_dir_all(home.at(enabled).parent().unwrap()).unwrap();
    symlink("/usr/lib/systemd/system/reimagined.service", home.at(enabled)).unwrap();
    let hint = format!("systemctl --root={} disable", home.at("root").canonicalize().unwrap().display());
    home.system(&["--remove", "--yes"]).ends(0).says(&["reimagined.service  a package's", &hint]);
    assert!(fs::symlink_metadata(home.at(enabled)).is_ok(), "it is not init's to stop");
    assert!(home.at("root/usr/lib/systemd/system/reimagined.service").exists());
}

#[test]
fn a_machines_service_is_for_root_to_install_and_for_a_program_that_all_can_run() {
    use std::os::unix::process::CommandExt as _;
    let home = Home::new();
    let program = home.at("reimagined");
    fs::copy(env!("CARGO_BIN_EXE_reimagined"), &program).unwrap();
    fs::set_permissions(home.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let call = |root: bool, args: &[&str]| {
        let mut command = Command::new(&program);
        command.env_clear().env("HOME", home.at("me")).env("XDG_RUNTIME_DIR", home.at("run")).stdin(Stdio::null());
        if !root && rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        Said::of(command.arg("init").args(args).output().unwrap())
    };
    call(false, &["--service=system", "--yes"]).ends(2).says(&["root's to install", "--service=user", "--dry-run"]);
    call(false, &["--service=system", "--yes", "--remove"]).ends(2).says(&["root's to install"]);
    // Temporary folders are not seen by the service.
    call(true, &["--service=system", "--dry-run"]).ends(2).says(&["can't run", "install -m 755", "/usr/local/bin"]);
    call(true, &["--service=user", "--root", "root", "--yes"]).ends(2).says(&["--root goes with"]);
    call(true, &["--service=user", "--config", "c.toml", "--yes"]).ends(2).says(&["--config"]);
}

/// A person at a terminal.
struct Terminal {
    child: std::process::Child,
    master: fs::File,
    slave: std::os::fd::OwnedFd,
    said: std::sync::Arc<std::sync::Mutex<String>>,
    reader: std::thread::JoinHandle<()>,
}

impl Terminal {
    fn begin(mut command: Command) -> Self {
        let pty = openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let said = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let (mut reads, heard) = (fs::File::from(pty.master.try_clone().unwrap()), said.clone());
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reads.read(&mut bytes) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { child, master: pty.master.into(), slave: pty.slave, said, reader }
    }

    #[track_caller]
    fn hears(&self, words: &str) {
        let come = wait_until(support::PATIENCE, || self.said.lock().unwrap().contains(words));
        assert!(come, "waited in vain for {words:?}: {}", self.said.lock().unwrap());
    }

    fn echoes(&self) -> bool {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    /// Waits until it is asked for what is not to be seen.
    #[track_caller]
    fn hides(&self, times: usize) {
        let asked = || self.said.lock().unwrap().matches("not shown").count() == times;
        assert!(wait_until(support::PATIENCE, asked), "{}", self.said.lock().unwrap());
        assert!(!self.echoes(), "what is typed now would be seen");
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn ends(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap();
        assert!(self.echoes(), "the terminal is as it was");
        // With the last of its other ends closed, the reader comes to the end of what was said.
        drop(self.slave);
        self.reader.join().unwrap();
        let said = self.said.lock().unwrap().clone();
        (code, said)
    }
}

#[test]
fn on_a_terminal_it_asks_and_takes_the_key_unseen() {
    let home = Home::new();
    let begin = || {
        let mut command = home.command();
        command.arg("--service=user");
        Terminal::begin(command)
    };
    let mut terminal = begin();
    terminal.hears("if you type it when asked");
    terminal.hears("Do this? [y/N]");
    assert!(home.names("me").is_empty());
    terminal.types("n\n");
    assert_eq!(terminal.ends().0, 2);
    assert!(home.names("me").is_empty());

    // Ctrl-C at the key.
    let mut terminal = begin();
    terminal.hears("[y/N]");
    terminal.types("y\n");
    terminal.hides(1);
    terminal.types("\u{3}");
    let (code, said) = terminal.ends();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("nothing was done") && home.names("me").is_empty(), "{said}");

    // A slip, taken back, and one that is told.
    let mut terminal = begin();
    terminal.hears("[y/N]");
    terminal.types("yes\n");
    terminal.hides(1);
    terminal.types("not a key\r");
    terminal.hears("no key has");
    terminal.hides(2);
    terminal.types(&format!("x\u{15}{KEY}zz\u{7f}\u{7f}\r"));
    let (code, said) = terminal.ends();
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains(KEY) && !said.contains("not a key"), "{said}");
    assert_eq!(home.tree("me")[".config/reimagined/api-key"], (0o600, format!("{KEY}\n").into_bytes()));
}

#[test]
fn what_is_changed_while_it_asks_is_neither_overwritten_nor_removed() {
    let home = Home::new();
    home.call(&[]).ends(0);
    let begin = |more: &[&str]| {
        let mut command = home.command();
        command.args(["--service=user"]).args(more);
        Terminal::begin(command)
    };
    let mut terminal = begin(&["--key-from", "key"]);
    terminal.hears("renew");
    terminal.hears("[y/N]");
    home.edit(CONFIG, "# mine\n");
    terminal.types("y\n");
    let (code, said) = terminal.ends();
    assert!(code != 0 && said.contains("changed just now"), "{code} {said}");
    assert!(fs::read_to_string(home.at(CONFIG)).unwrap().starts_with("# mine\n"));

    fs::remove_file(home.at(CONFIG)).unwrap();
    home.user(&["--yes", "--key-from", "key"]).ends(0);
    let mut terminal = begin(&["--remove"]);
    terminal.hears("[y/N]");
    home.edit(CONFIG, "# mine\n");
    terminal.types("y\n");
    let (code, said) = terminal.ends();
    assert!(code == 0 && said.contains("config.toml stays: it was changed since"), "{code} {said}");
    assert!(said.contains("api-key stays: the configuration stays, too"), "{said}");
    assert!(home.at(CONFIG).exists() && home.at("me/.config/reimagined/api-key").exists() && !home.at(UNIT).exists());
}

#[test]
fn enter_leaves_the_key_for_later_and_the_way_to_give_it_is_told() {
    let home = Home::new();
    let mut command = home.command();
    command.arg("--service=user");
    let mut terminal = Terminal::begin(command);
    terminal.hears("[y/N]");
    terminal.types("y\n");
    terminal.hides(1);
    terminal.types("\r");
    let (code, said) = terminal.ends();
    let told = format!("install -m 600 /dev/stdin {}", home.at("me/.config/reimagined/api-key").display());
    assert!(code == 0 && said.contains(&told), "{said}");
    // And that is all that is needed.
    let mut install = Command::new("sh").args(["-c", &told]).stdin(Stdio::piped()).spawn().unwrap();
    install.stdin.take().unwrap().write_all(format!("{KEY}\n").as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
    let mut check = Command::new(env!("CARGO_BIN_EXE_reimagined"));
    check.env_clear().env("HOME", home.at("me")).args(["check", "--offline"]);
    Said::of(check.output().unwrap()).ends(0).says(&["there is one"]);
}

/// A machine with the program, somebody who may drop, a key, and an API that the configuration is pointed to.
fn booted() -> Option<(Boot, Api)> {
    let boot = Boot::start()?;
    boot.put_binary("/usr/local/bin/reimagined");
    boot.put("/tmp/key", KEY, 0o644);
    boot.put("/tmp/a.jpg", support::pictures::jpeg(7), 0o644);
    Some((boot, Api::start()))
}

/// The line of `sed` that has a configuration talk to `api`.
fn pointed_to(api: &Api, config: &str) -> String {
    let upload = api.url() + support::api::UPLOAD;
    format!(
        "sed -i -e '/^base_url/d; /^upload_url/d' \
         -e 's|^\\[api\\]|[api]\\nbase_url = \"{}\"\\nupload_url = \"{upload}\"|' {config}",
        api.url()
    )
}

#[test]
fn a_machines_service_is_installed_works_and_goes_again_without_its_pictures() {
    let Some((boot, api)) = booted() else { return };
    let told = boot.sh("reimagined init --service --yes --key-from /tmp/key");
    assert!(told.contains("systemctl enable --now reimagined") && !told.contains(KEY), "{told}");
    let stat = |path: &str| boot.sh(&format!("stat -c '%a %U:%G' {path}"));
    for (path, mode) in [
        ("/etc/reimagined/api-key", "600"),
        ("/etc/reimagined/config.toml", "644"),
        ("/etc/systemd/system/reimagined.service", "644"),
    ] {
        assert_eq!(stat(path), format!("{mode} root:root"), "{path}");
        assert!(told.contains(&format!("0{mode} root  {path}")), "{path}: {told}");
    }
    // The folders are as they were told.
    let folders: Vec<_> = told.lines().filter_map(|line| line.trim().split_once("  /srv/reimagine")).collect();
    assert_eq!(folders.len(), 6, "{told}");
    for (mode, below) in folders {
        assert_eq!(stat(&format!("/srv/reimagine{below}")), mode, "{below}");
    }
    let again = boot.sh("reimagined init --service");
    assert!(again.contains("Everything stands already"), "{again}");

    // As the next steps say.
    boot.sh(&pointed_to(&api, "/etc/reimagined/config.toml"));
    boot.sh("systemctl enable --now reimagined");
    boot.sh("useradd -m -G reimagined anna");
    boot.sh_as("anna", "077", "mkdir /srv/reimagine/inbox/cafe");
    boot.sh_as("anna", "022", "echo 'prompt = \"a look\"' >/srv/reimagine/inbox/cafe/preset.toml");
    boot.sh_as("anna", "022", "cp /tmp/a.jpg /srv/reimagine/inbox/cafe/");
    boot.wait("the result is there", || boot.has("/srv/reimagine/archive/cafe/a.jpg"));
    let results = boot.sh("cd /srv/reimagine && find . -type f ! -name '.*' | sort");

    let told = boot.sh("reimagined init --service --remove --yes");
    assert!(told.contains("/etc/reimagined/config.toml  the configuration: edited since"), "{told}");
    assert_eq!(boot.sh("systemctl is-active reimagined || true"), "inactive");
    for gone in ["/etc/systemd/system/reimagined.service", "/etc/tmpfiles.d/reimagined.conf"] {
        assert!(!boot.has(gone), "{gone}");
    }
    assert!(boot.has("/etc/reimagined/api-key"), "the configuration that names it stayed");
    assert!(!boot.has("/etc/systemd/system/multi-user.target.wants/reimagined.service"));
    assert_eq!(boot.sh("systemctl show --value -p LoadState reimagined"), "not-found");
    assert_eq!(boot.sh("cd /srv/reimagine && find . -type f ! -name '.*' | sort"), results);
    assert!(results.contains("./archive/cafe/a.jpg") && results.contains("./outbox/cafe/a.png"), "{results}");
    assert!(boot.has("/var/lib/reimagined/ledger.db"));

    // And it comes back, with the configuration that stayed.
    boot.sh("reimagined init --service --yes && systemctl enable --now reimagined");
    assert_eq!(boot.show("reimagined", "ActiveState"), "active");
    boot.sh("reimagined init --service --remove --yes");
}

#[test]
fn a_users_service_is_installed_works_and_goes_again_without_its_pictures() {
    let Some((boot, api)) = booted() else { return };
    boot.sh("useradd -m ben && loginctl enable-linger ben");
    boot.wait("ben's systemd runs", || boot.has(&format!("/run/user/{}/systemd/private", boot.sh("id -u ben"))));
    let ben = |script: &str| boot.sh_as("ben", "022", script);
    let told = ben("reimagined init --service --yes --key-from /tmp/key");
    assert!(told.contains("systemctl --user daemon-reload") && !told.contains(KEY), "{told}");
    ben(&pointed_to(&api, ".config/reimagined/config.toml"));
    ben("systemctl --user enable --now reimagined");
    ben("cp /tmp/a.jpg reimagine/inbox/autumn-cafe/");
    boot.wait("the result is there", || boot.has("/home/ben/reimagine/archive/autumn-cafe/a.jpg"));
    let told = ben("reimagined init --service --remove --yes");
    assert!(told.contains("config.toml  the configuration: edited since"), "{told}");
    assert_eq!(ben("systemctl --user is-active reimagined || true"), "inactive");
    for gone in ["systemd/user/reimagined.service", "systemd/user/default.target.wants/reimagined.service"] {
        assert!(!boot.has(&format!("/home/ben/.config/{gone}")), "{gone}");
    }
    let left = ben("find reimagine -type f ! -name '.*' | sort");
    assert!(left.contains("archive/autumn-cafe/a.jpg") && left.contains("outbox/autumn-cafe/a.png"), "{left}");
}
