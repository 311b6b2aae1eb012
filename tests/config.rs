//! What the configuration may say, and how its faults are told.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

mod support;

use std::fs;

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
    assert!(said.contains("inbox") && said.contains("reimagined init"), "{said}");
}
