#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::config::build::{self, SECTIONS};
use crate::config::{Config, Problems, preset_file, sidecar};
use crate::domain::params::{Key, Value};
use crate::domain::preset::{By, Layer, Setting};

/// As if some keys had once had these names.
const ONCE: &[Renamed] = &[
    Renamed { section: "watch", old: "quiet", new: "settle" },
    Renamed { section: "watch", old: "calm", new: "settle" },
    Renamed { section: PRESET, old: "steps", new: "steps_num" },
    Renamed { section: PRESET, old: "order", new: "priority" },
];

fn config(text: &str) -> Result<Config, Problems> {
    build::config(text.as_bytes(), "config.toml", Path::new("/c/config.toml"), Some(Path::new("/home/ann")), ONCE)
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn number(layer: &Layer, key: Key) -> Option<i64> {
    match layer.get(key)?.0 {
        Setting::Set(Value::Integer(n)) => Some(*n),
        _ => None,
    }
}

#[test]
fn every_entry_of_the_table_leads_from_no_key_to_one_that_is_there() {
    for table in [RENAMED, ONCE] {
        for Renamed { section, old, new } in table {
            let known = |name: &str| match SECTIONS.iter().find(|(word, _)| word == section) {
                Some((_, keys)) => keys.contains(&name),
                None => *section == PRESET && Key::parse(name).is_some(),
            };
            assert!(known(new) && !known(old), "[{section}] {old} → {new}");
        }
    }
}

#[test]
fn an_old_name_in_the_configuration_is_read_and_warned_of_with_its_line() {
    let read = config(
        "[preset]\nsteps = 12\n[watch]\nquiet = \"7s\"\n[limits]\nlocked = [\"seed\", \"steps\"]\n[output]\nname = \"a\"\n",
    )
    .unwrap();
    assert_eq!(read.watch.settle.as_secs(), 7);
    assert_eq!(number(&read.preset, Key::StepsNum), Some(12));
    assert!(read.limits.locked.contains(&Key::StepsNum));
    assert_eq!(
        lines(&read.warnings),
        [
            "config.toml:2: [preset] steps: is called steps_num by now: write that instead; the old name is still read",
            "config.toml:4: [watch] quiet: is called settle by now: write that instead; the old name is still read",
            "config.toml:6: [limits] locked: \"steps\" is called steps_num by now: write that instead; the old name is still read",
        ]
    );
    assert_eq!(config("[watch]\nsettle = \"7s\"\n").unwrap().warnings, []);
}

#[test]
fn a_bad_value_under_an_old_name_is_refused_in_its_place() {
    let told = config("[watch]\n\nquiet = 7\n").unwrap_err().to_string();
    assert!(told.starts_with("config.toml:3: [watch] "), "{told}");
    let told = config("[preset]\nsteps = 99\n").unwrap_err().to_string();
    assert!(told.starts_with("config.toml:2: [preset] steps: 99"), "{told}");
}

#[test]
fn an_old_name_elsewhere_is_as_unknown_as_any() {
    assert!(config("[retry]\nquiet = \"7s\"\n").unwrap_err().to_string().contains("unknown key"));
    assert!(config("[watch]\nsteps = 12\n").unwrap_err().to_string().contains("unknown key"));
}

#[test]
fn a_key_under_two_names_is_refused_whichever_comes_first() {
    for text in [
        "[watch]\nquiet = \"7s\"\nsettle = \"1s\"\n",
        "[watch]\nsettle = \"1s\"\nquiet = \"7s\"\n",
        "[watch]\nquiet = \"7s\"\ncalm = \"1s\"\n",
    ] {
        let told = config(text).unwrap_err().to_string();
        assert!(told.contains("is the old name of settle, which stands here too: give settle alone"), "{text}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    for text in ["[preset]\nsteps = 5\nsteps_num = 5\n", "[preset]\nsteps_num = 5\nsteps = 5\n"] {
        let told = config(text).unwrap_err().to_string();
        assert!(told.contains("[preset] steps: is the old name of steps_num"), "{text}: {told}");
    }
}

#[test]
fn presets_and_sidecars_read_old_names_too() {
    let preset = preset_file::parse_toml(b"steps = 12\norder = 3\n", "cafe/preset.toml", By::Preset, ONCE).unwrap();
    assert_eq!(number(&preset.value, Key::StepsNum), Some(12));
    assert_eq!(preset.value.get(Key::StepsNum).unwrap().1.line, Some(1));
    assert_eq!(
        lines(&preset.warnings),
        [
            "cafe/preset.toml:1: steps: is called steps_num by now: write that instead; the old name is still read",
            "cafe/preset.toml:2: order: is called priority by now: write that instead; the old name is still read",
        ]
    );
    let json = sidecar::json(b"{\n\"steps\": 12 }", "a.json", ONCE).unwrap();
    assert_eq!(number(&json.value, Key::StepsNum), Some(12));
    assert!(lines(&json.warnings)[0].starts_with("a.json:2: steps: is called steps_num"));
    // A key that no sidecar may set is refused under its old name, too.
    let told = preset_file::parse_toml(b"order = 3\n", "a.toml", By::Request, ONCE).unwrap_err().to_string();
    assert!(told.starts_with("a.toml:1: order: is not allowed in a sidecar"), "{told}");
    let told = sidecar::json(b"{\"steps\": 12, \"steps_num\": 12}", "a.json", ONCE).unwrap_err().to_string();
    assert!(told.contains("old name of steps_num"), "{told}");
}

#[test]
fn nothing_is_said_of_a_file_without_old_names() {
    assert_eq!(preset_file::parse_toml(b"steps_num = 12\n", "p", By::Preset, ONCE).unwrap().warnings, []);
    assert_eq!(sidecar::parse_txt(b"steps = 12", "a.txt").unwrap().warnings, []);
}
