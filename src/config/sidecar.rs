//! Sidecars: what a drop brings along besides its picture, as text, TOML or JSON.
//!
//! Each reader takes the file's bytes and its name for people, and gives the layer of that one file. A file
//! of 0 bytes means "not written yet", which is the caller's to know; here it is as wrong as any blank one.

use std::collections::BTreeSet;

use jsonc_parser::ast::{ObjectPropName, Value as Node};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::document::Document;
use super::layer::{self, Entry, MOST_PROBLEMS, Naming, Raw, Said};
use super::preset_file;
use super::problem::{Problem, Problems};
use super::renamed::{RENAMED, Renamed, Told};
use crate::domain::params::{Key, Value};
use crate::domain::preset::{By, Layer, Origin, Setting};

/// Reads a `.txt`: the whole text is the prompt, without a BOM and the blank space around it.
pub fn parse_txt(bytes: &[u8], label: &str) -> Result<Told<Layer>, Problems> {
    let doc = Document::new(label, bytes)?;
    let prompt = doc.text.trim();
    if prompt.is_empty() {
        return Err(doc.problem(0, None, "is blank: write the prompt into it, or take it away").into());
    }
    if let Some(at) = doc.text.find('\0') {
        return Err(doc
            .problem(at, None, "holds NUL bytes, so it is no text (perhaps UTF-16): save it as UTF-8")
            .into());
    }
    let mut layer = Layer::new();
    let line = Some(doc.line(doc.text.len() - doc.text.trim_start().len()));
    let origin = Origin { by: By::Text, source: label.into(), line };
    layer.put(Key::Prompt, Setting::Set(Value::Text(prompt.to_owned())), origin);
    Ok(Told::plainly(layer))
}

/// Reads a `.toml`.
pub fn parse_toml(bytes: &[u8], label: &str) -> Result<Told<Layer>, Problems> {
    not_blank(bytes, label)?;
    preset_file::parse_toml(bytes, label, By::Request, RENAMED)
}

/// Reads a `.json`: strict JSON, an object, no key twice.
pub fn parse_json(bytes: &[u8], label: &str) -> Result<Told<Layer>, Problems> {
    json(bytes, label, RENAMED)
}

pub(super) fn json(bytes: &[u8], label: &str, renamed: &[Renamed]) -> Result<Told<Layer>, Problems> {
    not_blank(bytes, label)?;
    let doc = Document::new(label, bytes)?;
    // The one parser knows exactly what JSON is, the other where things stand.
    if let Err(e) = serde_json::from_str::<serde_json::Value>(doc.text) {
        return Err(syntax(doc, &e).into());
    }
    let root = parse_to_ast(doc.text, &CollectOptions::default(), &strict())
        .map_err(|e| doc.problem(e.range().start, None, format!("is no JSON: {}", e.kind())))?
        .value;
    let Some(Node::Object(object)) = root else {
        return Err(doc.problem(0, None, "must be an object, { … }, with the API's parameters as keys").into());
    };

    let mut said = Said::default();
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for property in &object.properties {
        let key = match &property.name {
            ObjectPropName::String(name) => name.value.to_string(),
            ObjectPropName::Word(word) => word.value.to_owned(),
        };
        let key_at = property.name.range().start;
        if !seen.insert(key.clone()) {
            if said.problems.len() < MOST_PROBLEMS {
                said.problems.push(doc.problem(key_at, Some(&key), "stands here twice: give it once"));
            }
            continue;
        }
        entries.push(Entry { key, key_at, value: raw(&property.value), value_at: property.value.range().start });
    }
    let naming = Naming { by: By::Request, source: label, before: "", renamed };
    let value = layer::read(doc, &naming, entries, &mut said);
    Problems::none_of(said.problems)?;
    Ok(Told { value, warnings: said.warnings })
}

fn not_blank(bytes: &[u8], label: &str) -> Result<(), Problems> {
    let doc = Document::new(label, bytes)?;
    if doc.text.trim().is_empty() {
        return Err(doc.problem(0, None, "is blank: write the request into it, or take it away").into());
    }
    Ok(())
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

fn syntax(doc: Document<'_>, error: &serde_json::Error) -> Problem {
    let whole = error.to_string();
    let words = whole.split(" at line ").next().unwrap_or_default();
    let hint = if doc.text.contains("NaN") || doc.text.contains("Infinity") {
        " (JSON has no NaN and no Infinity)"
    } else if words.contains("trailing comma") || words.contains("trailing characters") || !doc.text.contains("//") {
        ""
    } else {
        " (JSON has no comments)"
    };
    let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
    let column = u32::try_from(error.column()).unwrap_or(u32::MAX).max(1);
    let problem = doc.problem(0, None, format!("is no JSON: {words}{hint}"));
    Problem { line: Some(line), column: Some(column), ..problem }
}

fn raw(node: &Node<'_>) -> Raw {
    match node {
        Node::StringLit(text) => Raw::Text(text.value.to_string()),
        Node::NumberLit(number) => json_number(number.value),
        Node::BooleanLit(flag) => Raw::Flag(flag.value),
        Node::Array(list) => Raw::List(list.elements.iter().map(raw).collect()),
        Node::Object(_) => Raw::Other("an object"),
        Node::NullKeyword(_) => Raw::Null,
    }
}

/// JSON knows only one kind of number, so 12.0 is 12: but only where nothing is lost by that.
fn json_number(text: &str) -> Raw {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(n) = text.parse::<i64>() {
        return Raw::Integer(n);
    }
    match text.parse::<f64>() {
        Ok(n) if n.fract() == 0.0 && n.abs() < EXACT => Raw::Integer(n as i64),
        Ok(n) if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') || n.fract() == 0.0 => {
            if n.is_finite() {
                Raw::Huge
            } else {
                Raw::Other("a number that is too large")
            }
        }
        Ok(n) => Raw::Number(n),
        Err(_) => Raw::Other("a number"),
    }
}

#[cfg(test)]
#[path = "sidecar_tests.rs"]
mod tests;
