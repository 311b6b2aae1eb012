//! What the configuration may say, and how its faults are told.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use reimagined::config::{Backend, Config, ReferenceMode, Unconfirmed};
use support::Site;

/// What a command says on stderr, and its exit code.
fn says(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.call(args);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn all_faults_are_told_at_once_each_with_its_line_and_the_nearest_name() {
    let site = Site::new();
    let text = format!(
        "{}\n[retryy]\nmax_attempts = 3\n[limits]\nimages_per_hour = \"many\"\nimages_per_dai = 4\n",
        fs::read_to_string(site.config_file()).unwrap()
    );
    fs::write(site.config_file(), &text).unwrap();
    let (code, said) = says(&site, &["run", "--once"]);
    assert_eq!(code, 2);
    for (fault, near) in [("retryy", "retry"), ("images_per_hour", "number"), ("images_per_dai", "images_per_day")] {
        let line = text.lines().position(|l| l.contains(fault)).unwrap() + 1;
        assert!(said.contains(&format!("config.toml:{line}")), "{fault} in line {line}: {said}");
        assert!(said.contains(fault) && said.contains(near), "{fault}: {said}");
    }
    assert!(site.api.requests().is_empty());
}

#[test]
fn impossible_values_are_refused() {
    for (key, value) in [
        ("watch.settle", toml::Value::from("-1s")),
        ("watch.settle", toml::Value::from(3)),
        ("reference.max_bytes", toml::Value::from("12 apples")),
        ("reference.mode", toml::Value::from("ftp")),
        ("watch.backend", toml::Value::from("magic")),
        ("retry.unconfirmed", toml::Value::from("maybe")),
        ("retry.max_attempts", toml::Value::from(0)),
        ("api.max_in_flight", toml::Value::from(0)),
        ("limits.images_per_day", toml::Value::from(-1)),
        ("output.name", toml::Value::from("{stern}")),
        ("preset.steps_num", toml::Value::from(51)),
        ("preset.structure_ref_influence", toml::Value::from(1.5)),
        ("preset.promptt", toml::Value::from("x")),
        ("api.base_url", toml::Value::from("http://api.segmind.com")),
        ("api.upload_url", toml::Value::from("no url")),
        ("watch.ignore", toml::Value::from(vec!["[unclosed"])),
        ("limits.locked", toml::Value::from(vec!["sead"])),
    ] {
        let site = Site::new();
        site.set(key, value.clone());
        let (code, said) = says(&site, &["run", "--once"]);
        assert_eq!(code, 2, "{key} = {value}: {said}");
        let name = key.split_once('.').unwrap().1;
        assert!(said.contains(name) && said.contains("config.toml:"), "{key} = {value}: {said}");
    }
}

#[test]
fn a_key_in_the_configuration_is_refused_and_not_repeated() {
    for name in ["api_key", "key"] {
        let site = Site::new();
        site.set(&format!("api.{name}"), "SG_in_the_configuration");
        let (code, said) = says(&site, &["run", "--once"]);
        assert_eq!(code, 2);
        assert!(said.contains("key_file"), "{said}");
        assert!(!said.contains("SG_in_the_configuration"), "{said}");
    }
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    site.set("api.key_file", "key");
    fs::write(site.path("key"), support::KEY).unwrap();
    site.put_picture("inbox/a.jpg");
    for (mode, code) in [(0o644, 4), (0o640, 4), (0o600, 0)] {
        fs::set_permissions(site.path("key"), fs::Permissions::from_mode(mode)).unwrap();
        let mut command = site.command();
        command.env_remove("SEGMIND_API_KEY").args(["run", "--once"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{mode:o}: {}", String::from_utf8_lossy(&output.stderr));
    }
    fs::remove_file(site.path("key")).unwrap();
}

#[test]
fn a_systemd_credential_is_the_key_whatever_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    fs::create_dir(site.path("credentials")).unwrap();
    let file = site.path("credentials/segmind-api-key");
    fs::write(&file, format!("{}\n", support::KEY)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    site.put_picture("inbox/a.jpg");
    let mut command = site.command();
    command.env("SEGMIND_API_KEY", "another").env("CREDENTIALS_DIRECTORY", site.path("credentials"));
    let output = command.args(["run", "--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(&file).unwrap();
}

#[test]
fn the_configuration_is_found_by_the_environment_too() {
    let site = Site::new();
    site.put_picture("inbox/a.jpg");
    let run = |name: &str, value: std::path::PathBuf| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reimagined"));
        command.env_clear().env("HOME", site.path("")).env("SEGMIND_API_KEY", support::KEY).env(name, value);
        command.current_dir("/").args(["run", "--once"]).output().unwrap().status.code()
    };
    assert_eq!(run("REIMAGINED_CONFIG", site.config_file()), Some(0));
    assert_eq!(run("REIMAGINED_CONFIG", site.path("nowhere.toml")), Some(2));
    assert_eq!(site.names("archive"), ["a.jpg"], "relative folders count from the configuration's folder");
}

#[test]
fn a_state_directory_with_the_ledger_of_a_newer_version_is_left_alone() {
    let site = Site::new();
    assert_eq!(site.once(), 0);
    let name = site.names("state").into_iter().find(|n| n == "ledger.db");
    let path = site.path("state").join(name.expect("a ledger"));
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 9999).unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 2);
    assert!(site.logs().contains("newer"), "{}", site.logs());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(site.names("inbox"), ["a.jpg"]);
}

#[test]
fn without_folders_it_says_what_to_do() {
    let site = Site::new();
    fs::remove_dir(site.path("inbox")).unwrap();
    let (code, said) = says(&site, &["run", "--once"]);
    assert_eq!(code, 2);
    assert!(said.contains("inbox") && said.contains("make it, mount it, or name another"), "{said}");
}

/// What version 0.1.0 wrote for its users.
const RELEASED: &str = include_str!("../fixtures/released/config-0.1.0.toml");

/// `text` with what is commented out as an example taken in.
fn uncommented(text: &str) -> String {
    let key =
        |line: &str| line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_lowercase() || c == '_'));
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if key(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_configuration_of_the_first_version_is_still_read_and_means_what_it_meant() {
    let read = |text: &str| {
        let home = Path::new("/home/ann");
        Config::parse(text, &home.join(".config/reimagined/config.toml"), Some(home)).unwrap_or_else(|e| panic!("{e}"))
    };
    let s = Duration::from_secs;
    let config = read(RELEASED);
    assert_eq!(config.warnings, []);
    let api = &config.api;
    assert_eq!(api.base_url.as_str(), "https://api.segmind.com/");
    assert_eq!(api.model, "/v1/bria-reimagine");
    assert_eq!(api.upload_url.as_str(), "https://workflows-api.segmind.com/upload-asset");
    assert_eq!((api.key_file.as_ref(), api.timeout, api.connect_timeout), (None, s(180), s(10)));
    assert_eq!((api.requests_per_minute, api.max_in_flight), (50, 4));
    let folders = &config.folders;
    let at = |name: &str| Path::new("/home/ann/reimagine").join(name);
    assert_eq!((&folders.inbox, folders.working.as_ref()), (&at("inbox"), None));
    assert_eq!((&folders.outbox, &folders.archive, &folders.errors), (&at("outbox"), &at("archive"), &at("errors")));
    let watch = &config.watch;
    assert_eq!((watch.backend, watch.settle, watch.folder_settle), (Backend::Auto, s(2), s(3)));
    assert_eq!((watch.sidecar_wait, watch.lone_wait, watch.give_up), (s(1), s(30), s(600)));
    assert_eq!((watch.rescan, watch.poll_interval, watch.ignore.patterns().len()), (s(300), s(2), 0));
    let reference = &config.reference;
    assert_eq!((&reference.mode, reference.max_edge, reference.max_bytes), (&ReferenceMode::Upload, 2048, 12_000_000));
    assert_eq!((reference.strip_metadata, reference.upload_cache), (true, s(86_400)));
    let retry = &config.retry;
    assert_eq!((retry.max_attempts, retry.first_delay, retry.max_delay), (4, s(2), s(300)));
    assert_eq!((retry.unconfirmed, retry.probe_interval), (Unconfirmed::Hold, s(60)));
    let limits = &config.limits;
    assert_eq!((limits.images_per_hour, limits.images_per_day, limits.max_variants), (0, 500, 8));
    assert!(limits.locked.is_empty());
    assert_eq!((config.output.name.as_str(), config.output.provenance), ("{stem}", true));
    let service = &config.service;
    assert_eq!((service.grace, service.keep_history, service.state_dir.as_ref()), (s(195), s(400 * 86_400), None));
    assert!(config.preset.is_empty());

    // The keys that it only showed.
    let shown = read(&uncommented(RELEASED));
    assert_eq!(shown.warnings, []);
    assert_eq!(shown.api.key_file.as_deref(), Some(Path::new("/home/ann/.config/reimagined/api-key")));
    assert_eq!(shown.folders.working, Some(at("working")));
    assert_eq!(shown.service.state_dir.as_deref(), Some(Path::new("/home/ann/.local/state/reimagined")));
    assert_eq!(shown.preset.iter().count(), 17);
}

#[test]
fn what_the_first_version_wrote_is_found_good_by_check() {
    let site = Site::new();
    let put = |path: &str, text: &str| {
        fs::create_dir_all(site.path(path).parent().unwrap()).unwrap();
        fs::write(site.path(path), text).unwrap();
    };
    put(".config/reimagined/config.toml", RELEASED);
    put("reimagine/inbox/autumn-cafe/preset.toml", include_str!("../fixtures/released/preset-0.1.0.toml"));
    for folder in ["outbox", "archive", "errors"] {
        fs::create_dir_all(site.path("reimagine").join(folder)).unwrap();
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reimagined"));
    command.env_clear().env("HOME", site.path("")).env("SEGMIND_API_KEY", support::KEY).args(["check", "--offline"]);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!((output.status.code(), said[1].as_str()), (Some(0), ""), "{}", said[0]);
    assert!(said[0].contains("1 preset") && said[0].contains("Everything is in place."), "{}", said[0]);
}
