//! What is written for a service: the units and the configuration that ship with the program, made to fit, and
//! a mark in their last line by which an unedited one is known again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::template::{EXAMPLE, config_toml};
use crate::domain::ids::{Fingerprint, show};

/// `systemd/reimagined.service`.
const SYSTEM_UNIT: &str = include_str!("../../../systemd/reimagined.service");
/// `systemd/user/reimagined.service`.
const USER_UNIT: &str = include_str!("../../../systemd/user/reimagined.service");
/// `systemd/config.toml`.
const SYSTEM_CONFIG: &str = include_str!("../../../systemd/config.toml");
/// The service's user and group.
pub(super) const SYSUSERS: &str = include_str!("../../../systemd/sysusers.d/reimagined.conf");
/// The service's folders.
pub(super) const TMPFILES: &str = include_str!("../../../systemd/tmpfiles.d/reimagined.conf");

/// Before the hash in the last line.
const MARK: &str = "# Written by reimagined init --service. It may be edited; until then this hash is its own: ";

/// Where systemd looks for a program that is named without its folder.
const SEARCHED: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What a system service does not see of the machine: homes, and temporary folders, of which it has its own.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// `text` with the mark.
pub(super) fn sealed(text: &str) -> String {
    let text = format!("{}\n", text.trim_end_matches('\n'));
    let hash = Fingerprint::of(text.as_bytes());
    format!("{text}{MARK}{hash}\n")
}

/// Whether this was written by any version of `init --service`, and is as it was written.
pub(super) fn is_unedited(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    // What `init` writes has no mark, and one that nobody edited is known by itself.
    if text == EXAMPLE {
        return true;
    }
    let Some(at) = text.rfind(MARK) else { return false };
    sealed(&text[..at]) == text
}

/// The mark of a key in whose file are these bytes.
pub(super) fn key_mark(key: &[u8]) -> String {
    format!(
        "# reimagined init --service wrote the API key beside this. As long as it has this hash, --remove takes it away:\n{}\n",
        Fingerprint::of(key)
    )
}

/// The system unit, for the program at `program` (as it stands, if that is not known).
pub(super) fn system_unit(program: Option<&Path>) -> Result<String, String> {
    let Some(program) = program else { return Ok(sealed(SYSTEM_UNIT)) };
    visible_to_all(program)?;
    unit(SYSTEM_UNIT, program, None)
}

/// The user's unit.
pub(super) fn user_unit(program: &Path, home: &Path) -> Result<String, String> {
    unit(USER_UNIT, program, Some(home))
}

fn unit(text: &str, program: &Path, home: Option<&Path>) -> Result<String, String> {
    let set = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let word = set("ExecStart=").and_then(|command| command.split(' ').next()).unwrap_or_default();
    if found(word, set("ExecSearchPath="), home).is_some_and(|found| same_file(&found, program)) {
        return Ok(sealed(text));
    }
    let new = quoted(program)?;
    Ok(sealed(&text.replacen(&format!("\nExecStart={word}"), &format!("\nExecStart={new}"), 1)))
}

/// What systemd would start for the first word of `ExecStart=`, with what `ExecSearchPath=` says.
fn found(word: &str, searched: Option<&str>, home: Option<&Path>) -> Option<PathBuf> {
    let whole = |path: &str| match path.strip_prefix("%h/") {
        Some(below) => home.map(|home| home.join(below)),
        None => Some(PathBuf::from(path)),
    };
    if word.contains('/') {
        return whole(word);
    }
    let folders = searched.map_or_else(|| SEARCHED.to_vec(), |list| list.split(':').collect());
    folders.into_iter().filter_map(whole).map(|folder| folder.join(word)).find(|path| path.is_file())
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// A path as a unit file has it: specifiers doubled, in quotes where it needs them.
fn quoted(path: &Path) -> Result<String, String> {
    let wrong = || format!("the program's path {} can't stand in a unit file", show(path.as_os_str()));
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control)).ok_or_else(wrong)?;
    let text = text.replace('%', "%%");
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%".contains(c);
    if text.chars().all(plain) {
        return Ok(text);
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// A system service runs as a user of its own and sees no homes: is the program where it can be run?
fn visible_to_all(program: &Path) -> Result<(), String> {
    let closed = |at: &Path| fs::metadata(at).map_or(true, |meta| meta.permissions().mode() & 0o001 == 0);
    if HIDDEN.iter().any(|dir| program.starts_with(dir)) || program.ancestors().any(closed) {
        let shown = show(program.as_os_str());
        return Err(format!(
            "a system service can't run {shown}: it sees no homes and no temporary folders, and runs as a user of its own. Put the \
             program where everybody can run it, and say it with that one:\n  install -m 755 {shown} /usr/local/bin/reimagined\n  \
             /usr/local/bin/reimagined init --service"
        ));
    }
    Ok(())
}

/// The configuration of the system service.
pub(super) fn system_config() -> String {
    sealed(SYSTEM_CONFIG)
}

/// The configuration of a user's service, with the key in `key_file`.
pub(super) fn user_config(key_file: &Path, home: &Path) -> String {
    let named = match key_file.strip_prefix(home) {
        Ok(below) => Path::new("~").join(below),
        Err(_) => key_file.to_path_buf(),
    };
    let value = toml::Value::from(named.to_string_lossy().into_owned());
    let mut text = String::new();
    for line in config_toml(None).lines() {
        if line.starts_with("# key_file = ") {
            text.extend(["key_file = ", &value.to_string()]);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    sealed(&text)
}

/// A folder that systemd-tmpfiles makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) path: PathBuf,
    pub(super) mode: String,
    pub(super) owner: String,
}

/// The folders of the system service, outer ones first.
pub(super) fn system_folders() -> Vec<Made> {
    let fields = TMPFILES.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter_map(|fields| match fields[..] {
            ["d", path, mode, user, group, ..] => {
                Some(Made { path: path.into(), mode: mode.into(), owner: format!("{user}:{group}") })
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_was_written_is_known_again_until_it_is_edited() {
        let text = sealed("a = 1\nb = 2\n");
        assert!(is_unedited(text.as_bytes()));
        for edited in
            [text.replace("b = 2", "b = 3"), format!("{text}c = 3\n"), format!("# x\n{text}"), "a = 1\n".into()]
        {
            assert!(!is_unedited(edited.as_bytes()), "{edited}");
        }
        assert!(is_unedited(EXAMPLE.as_bytes()), "as init writes it");
        assert!(!is_unedited(b"\xff"));
    }

    #[test]
    fn the_unit_starts_the_program_that_wrote_it() {
        for (path, word) in [
            ("/opt/re/reimagined", "/opt/re/reimagined"),
            ("/opt/100%/re", "/opt/100%%/re"),
            ("/opt/my \"own\"/re", "\"/opt/my \\\"own\\\"/re\""),
        ] {
            let unit = unit(USER_UNIT, Path::new(path), Some(Path::new("/home/ann"))).unwrap();
            let starts: Vec<_> = unit.lines().filter(|line| line.starts_with("ExecStart=")).collect();
            assert_eq!(starts, [format!("ExecStart={word} run")]);
            assert!(is_unedited(unit.as_bytes()));
        }
        assert!(unit(USER_UNIT, Path::new("/opt/a\nExecStartPre=x/re"), None).is_err());
    }

    #[test]
    fn a_unit_that_finds_the_program_by_itself_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join(".local/bin/reimagined");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        for text in [
            "[Service]\nExecStart=%h/.local/bin/reimagined run\n",
            "[Service]\nExecSearchPath=%h/bin:%h/.local/bin:/usr/bin\nExecStart=reimagined run\n",
        ] {
            assert_eq!(unit(text, &program, Some(home.path())).unwrap(), sealed(text));
            assert_ne!(unit(text, &program, Some(Path::new("/home/ann"))).unwrap(), sealed(text));
        }
        // Another one would be found first.
        let text = "[Service]\nExecSearchPath=%h/bin:%h/.local/bin\nExecStart=reimagined run\n";
        fs::create_dir(home.path().join("bin")).unwrap();
        fs::write(home.path().join("bin/reimagined"), "").unwrap();
        let adjusted = unit(text, &program, Some(home.path())).unwrap();
        assert!(adjusted.contains(&format!("\nExecStart={} run\n", program.display())), "{adjusted}");
    }

    #[test]
    fn a_program_in_a_home_is_none_for_a_system_service() {
        for hidden in ["/home/ann/.cargo/bin/reimagined", "/root/bin/reimagined", "/tmp/reimagined", "/nowhere/re"] {
            let why = system_unit(Some(Path::new(hidden))).unwrap_err();
            assert!(why.contains(hidden) && why.contains("install -m 755"), "{why}");
        }
        assert!(system_unit(Some(Path::new("/bin/sh"))).unwrap().contains("\nExecStart="));
        assert_eq!(system_unit(None).unwrap(), sealed(SYSTEM_UNIT));
    }

    #[test]
    fn the_configurations_name_the_places_of_their_service() {
        let home = Path::new("/home/ann");
        let parse = |text: &str| Config::parse(text, &home.join("c.toml"), Some(home)).unwrap();
        let system = parse(&system_config());
        assert_eq!(system.service.state_dir.as_deref(), Some(Path::new("/var/lib/reimagined")));
        for folder in [&system.folders.inbox, &system.folders.outbox, &system.folders.archive, &system.folders.errors] {
            assert!(system_folders().iter().any(|made| made.path == *folder), "{}", folder.display());
        }
        for key in ["/home/ann/.config/reimagined/api-key", "/elsewhere/a \"b\"/api-key"] {
            let config = parse(&user_config(Path::new(key), home));
            assert_eq!(config.api.key_file.as_deref(), Some(Path::new(key)));
            assert_eq!(
                Config { api: Config::default_for(&config.file, home).api, ..config.clone() },
                Config::default_for(&config.file, home)
            );
        }
    }
}
