//! `preset.toml`: the look of a folder.

use super::document::Document;
use super::layer::Naming;
use super::problem::Problems;
use super::{layer, toml_text};
use crate::domain::preset::{By, Layer};

/// Reads a preset. `label` is the file for people, `inbox/preset.toml`. An empty file is a preset that sets
/// nothing. How many variants it may ask for is not judged here but by [`Layer::faults`].
pub fn parse(bytes: &[u8], label: &str) -> Result<Layer, Problems> {
    parse_toml(bytes, label, By::Preset)
}

/// A TOML file that holds a layer and nothing else.
pub(super) fn parse_toml(bytes: &[u8], label: &str, by: By) -> Result<Layer, Problems> {
    let doc = Document::new(label, bytes)?;
    let mut syntax = Vec::new();
    let parsed = toml_text::parse(doc, &mut syntax);
    let entries = toml_text::entries(&parsed.table);
    let mut found = Vec::new();
    let layer = layer::read(doc, &Naming { by, source: label, before: "" }, entries, &mut found);
    let mut problems = syntax;
    problems.extend(parsed.quiet(found));
    Problems::none_of(problems)?;
    Ok(layer)
}
