//! `preset.toml`: the look of a folder.

use super::document::Document;
use super::layer::{Naming, Said};
use super::problem::Problems;
use super::renamed::{RENAMED, Renamed, Told};
use super::{layer, toml_text};
use crate::domain::preset::{By, Layer};

/// Reads a preset. `label` is the file for people, `inbox/preset.toml`. An empty file is a preset that sets
/// nothing. How many variants it may ask for is not judged here but by [`Layer::faults`].
pub fn parse(bytes: &[u8], label: &str) -> Result<Told<Layer>, Problems> {
    parse_toml(bytes, label, By::Preset, RENAMED)
}

/// A TOML file that holds a layer and nothing else.
pub(super) fn parse_toml(bytes: &[u8], label: &str, by: By, renamed: &[Renamed]) -> Result<Told<Layer>, Problems> {
    let doc = Document::new(label, bytes)?;
    let mut syntax = Vec::new();
    let parsed = toml_text::parse(doc, &mut syntax);
    let entries = toml_text::entries(&parsed.table);
    let mut said = Said::default();
    let value = layer::read(doc, &Naming { by, source: label, before: "", renamed }, entries, &mut said);
    let mut problems = syntax;
    problems.extend(parsed.quiet(said.problems));
    Problems::none_of(problems)?;
    Ok(Told { value, warnings: said.warnings })
}
