//! What the demo tells: before, what came out, and how to go on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::domain::ids::{show, show_text};
use crate::outbox::provenance::Provenance;

use super::super::term::{Palette, Stream, colour, dollars};
use super::place::{DROPS, Place};

const SUFFIX: &str = ".reimagined.json";

/// What was there before, so that it can be told from what came.
pub(super) struct Report<'a> {
    place: &'a Place,
    before: BTreeSet<PathBuf>,
    palette: Palette,
}

/// A result, with what made it.
pub(super) struct Made {
    /// Its path below the outbox.
    result: PathBuf,
    provenance: Provenance,
}

impl<'a> Report<'a> {
    /// Looks at what lies in the outbox already.
    pub(super) fn begin(place: &'a Place) -> Self {
        Self { place, before: provenances(&place.outbox()), palette: Palette::new(colour(Stream::Out)) }
    }

    /// What is about to happen.
    pub(super) fn hello(&self) -> String {
        let Palette { bold, dim, .. } = self.palette;
        format!(
            "{bold}A demo in {}{bold:#}\n\
             The sandbox on this machine stands in for the API: no key, no money. Three photographs and a prompt\n\
             are dropped into the inbox. {dim}This is the daemon's own log:{dim:#}\n\n",
            shown(self.place.dir())
        )
    }

    /// The results that came since the beginning, by their paths.
    pub(super) fn made(&self) -> Vec<Made> {
        let outbox = self.place.outbox();
        let new = provenances(&outbox).into_iter().filter(|path| !self.before.contains(path));
        new.filter_map(|path| {
            let provenance: Provenance = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            let result = path.with_file_name(&provenance.result);
            let below = result.strip_prefix(&outbox).ok()?.to_owned();
            result.is_file().then_some(Made { result: below, provenance })
        })
        .collect()
    }

    /// What came out, what it was made from, where it all is, and what to do next.
    pub(super) fn results(&self, made: &[Made], keep: bool) -> String {
        let Palette { bold, good, dim, .. } = self.palette;
        let mut out = String::new();
        let cost: f64 = made.iter().filter_map(|m| m.provenance.cost).sum();
        let pictures = if made.len() == 1 { "picture" } else { "pictures" };
        let _ =
            writeln!(out, "\n{bold}{} {pictures}, {}: the sandbox takes no money{bold:#}\n", made.len(), dollars(cost));
        for Made { result, provenance } in made {
            let _ = writeln!(out, "  {good}{}{good:#}", shown(&self.place.outbox().join(result)));
            let _ = writeln!(out, "    {dim}made from{dim:#} {}", origin(provenance));
        }
        let names = [
            ("The originals", self.place.archive(), ""),
            ("What made it", self.place.outbox().join("…").join(format!("NAME{SUFFIX}")), ", beside each result"),
            ("The looks", self.place.inbox().join("…").join("preset.toml"), ", to be changed at will"),
        ];
        out.push('\n');
        for (name, path, what) in names {
            let _ = writeln!(out, "  {name:<14} {}{dim}{what}{dim:#}", shown(&path));
        }
        out.push('\n');
        let config = quoted(&self.place.config());
        if keep {
            let _ = writeln!(
                out,
                "{bold}The daemon stays up.{bold:#} Drop pictures of your own into\n  {}\n\
                 or into a folder in it, and look into the outbox. How it stands:\n  reimagined status --config {config}\n\
                 Ctrl-C ends it.\n",
                shown(&self.place.inbox())
            );
        } else if made.len() >= DROPS {
            let _ = writeln!(
                out,
                "Pictures of your own: reimagined demo --keep --dir {}\n\
                 The real thing:       reimagined init\n\
                 The folder stays until you remove it.",
                quoted(self.place.dir())
            );
        }
        out
    }
}

/// `coffee.jpg, by "A neon café", seed 42`.
fn origin(provenance: &Provenance) -> String {
    let inputs: Vec<String> = provenance.inputs.iter().map(|input| show_text(&input.name)).collect();
    let prompt = provenance.request.get("prompt").and_then(serde_json::Value::as_str).unwrap_or_default();
    let seed = provenance.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
    format!("{}: \"{}\"{seed}", inputs.join(", "), show_text(prompt))
}

fn provenances(outbox: &Path) -> BTreeSet<PathBuf> {
    let files = WalkDir::new(outbox).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    let ours = files.filter(|entry| entry.file_name().to_string_lossy().ends_with(SUFFIX));
    ours.map(walkdir::DirEntry::into_path).collect()
}

/// A path for eyes.
pub(super) fn shown(path: &Path) -> String {
    show(path.as_os_str())
}

/// A path for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = shown(path);
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        for (path, text) in [
            ("/tmp/reimagined-demo-Ab1", "/tmp/reimagined-demo-Ab1"),
            ("/tmp/my demo", "'/tmp/my demo'"),
            ("/tmp/it's", r"'/tmp/it'\''s'"),
        ] {
            assert_eq!(quoted(Path::new(path)), text);
        }
    }
}
