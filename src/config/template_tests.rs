#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Config, preset_file};

const FILE: &str = "/etc/reimagined/config.toml";

fn parse(text: &str) -> Config {
    let parsed = Config::parse(text, Path::new(FILE), Some(Path::new("/home/ann")));
    parsed.unwrap_or_else(|problems| panic!("{problems}"))
}

/// `# key = value` without its mark.
fn uncommented(text: &str) -> (String, usize) {
    let mut count = 0;
    let lines = text.lines().map(|line| {
        let inner = line.strip_prefix("# ").filter(|inner| {
            inner.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        });
        count += usize::from(inner.is_some());
        inner.unwrap_or(line)
    });
    (lines.collect::<Vec<_>>().join("\n"), count)
}

#[test]
fn the_example_says_the_defaults() {
    assert_eq!(parse(EXAMPLE), Config::default_for(Path::new(FILE), Path::new("/home/ann")));
}

#[test]
fn every_key_of_the_example_can_be_uncommented() {
    let (text, count) = uncommented(EXAMPLE);
    assert_eq!(count, 6 + 7 + 17);
    let config = parse(&text);
    assert_eq!(config.preset.iter().count(), 17);
    assert_eq!(config.hooks.programs.len(), 4);
    assert!(config.hooks.webhook.is_some_and(|webhook| webhook.secret_file.is_some() && webhook.events.len() == 4));
    assert_eq!(config.folders.working.as_deref(), Some(Path::new("/home/ann/reimagine/working")));
}

#[test]
fn the_sample_preset_is_one_also_with_every_key_uncommented() {
    assert_eq!(preset_file::parse(preset_toml().as_bytes(), "p").unwrap().value.iter().count(), 1);
    let (text, count) = uncommented(preset_toml());
    assert_eq!(preset_file::parse(text.as_bytes(), "p").unwrap().value.iter().count(), 1 + count);
}

#[test]
fn a_directory_of_its_own_holds_everything() {
    for dir in ["/srv/re \"imagine\"", "relative"] {
        let config = parse(&config_toml(Some(Path::new(dir))));
        let base = Path::new("/etc/reimagined").join(if dir == "relative" { "" } else { dir });
        assert_eq!(config.folders.inbox, base.join("inbox"));
        assert_eq!(config.folders.errors, base.join("errors"));
        assert_eq!(config.service.state_dir, Some(base.join("state")));
    }
    assert_eq!(config_toml(None), EXAMPLE);
}
