//! Keys and values as they stand in a file, whichever syntax it has, to a checked [`Layer`].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::document::Document;
use super::problem::{Problem, nearest};
use super::renamed::{self, PRESET, Renamed};
use crate::domain::params::{Key, Kind, UNSET, Value};
use crate::domain::preset::{By, Layer, Origin, Setting};

/// A file with a thousand mistakes is read until there are this many.
pub(crate) const MOST_PROBLEMS: usize = 100;

/// A value as it stands in a file.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    Text(String),
    Integer(i64),
    /// A whole number that no 64 bits hold.
    Huge,
    Number(f64),
    Flag(bool),
    List(Vec<Raw>),
    Null,
    /// Anything else, by the name that a person has for it.
    Other(&'static str),
}

/// A key and its value with their places, in bytes from the start of the text.
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: usize,
    pub(crate) value: Raw,
    pub(crate) value_at: usize,
}

/// What to call the source, and how its keys are shown.
pub(crate) struct Naming<'a> {
    pub(crate) by: By,
    /// The source in an [`Origin`].
    pub(crate) source: &'a str,
    /// What stands before a key in a problem: `[preset] ` in the configuration, else nothing.
    pub(crate) before: &'static str,
    /// Keys that had other names.
    pub(crate) renamed: &'a [Renamed],
}

/// What is said of the entries of a file: what is wrong, and what is only to be known.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// The layer that `entries` make. What is wrong is added to what is `said`, and the rest is read on.
pub(crate) fn read(doc: Document<'_>, naming: &Naming<'_>, entries: Vec<Entry>, said: &mut Said) -> Layer {
    let source: Arc<str> = naming.source.into();
    let mut layer = Layer::new();
    let names: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for entry in entries {
        let problems = &mut said.problems;
        if problems.len() >= MOST_PROBLEMS {
            break;
        }
        let shown = format!("{}{}", naming.before, entry.key);
        let new = renamed::now_called(naming.renamed, PRESET, &entry.key);
        let name = new.unwrap_or(&entry.key);
        let Some(key) = known(name, naming.by, doc, entry.key_at, &shown, problems) else { continue };
        if let Some(new) = new {
            // The second of two old names of one key is no better than an old name beside the new one.
            if names.contains(new) || layer.iter().any(|(other, ..)| other == key) {
                problems.push(doc.problem(entry.key_at, Some(&shown), renamed::given_twice(new)));
                continue;
            }
            said.warnings.push(doc.problem(entry.key_at, Some(&shown), renamed::still_read(new)));
        }
        if let Some(other) = shots_twice(&layer, key) {
            let message = format!("is one setting with {other}, which stands in this file too: give one of them");
            problems.push(doc.problem(entry.key_at, Some(&shown), message));
            continue;
        }
        match setting(key, &entry.value, naming.by) {
            Ok(setting) => {
                let line = Some(doc.line(entry.key_at));
                layer.put(key, setting, Origin { by: naming.by, source: source.clone(), line });
            }
            Err(message) => problems.push(doc.problem(entry.value_at, Some(&shown), message)),
        }
    }
    layer
}

fn known(name: &str, by: By, doc: Document<'_>, at: usize, shown: &str, problems: &mut Vec<Problem>) -> Option<Key> {
    let allowed = |key: &Key| !by.is_sidecar() || key.in_sidecar();
    let problem = match Key::parse(name) {
        Some(key) if allowed(&key) => return Some(key),
        Some(_) => {
            doc.problem(at, Some(shown), "is not allowed in a sidecar: it belongs into the folder's preset.toml")
        }
        None => {
            let nearest = nearest(name, Key::ALL.iter().filter(|key| allowed(key)).map(|key| key.name()));
            Problem { nearest, ..doc.problem(at, Some(shown), "unknown key") }
        }
    };
    problems.push(problem);
    None
}

/// The other one of `variants` and `seeds`, if the layer has it already.
fn shots_twice(layer: &Layer, key: Key) -> Option<Key> {
    layer.iter().map(|(other, ..)| other).find(|other| *other != key && other.same_setting(key))
}

fn setting(key: Key, raw: &Raw, by: By) -> Result<Setting, String> {
    if matches!(raw, Raw::Text(text) if text == UNSET) {
        return Ok(Setting::Unset);
    }
    let value = typed(key.kind(), raw)?;
    key.check(&value)?;
    match &value {
        Value::Text(text) if key == Key::Prompt && text.trim().is_empty() => {
            // In a preset that is a way to say "none here"; in a sidecar somebody forgot to write it.
            if by.is_sidecar() {
                return Err(format!("is blank: write a prompt, or \"{UNSET}\" to leave it out"));
            }
            Ok(Setting::Unset)
        }
        _ => Ok(Setting::Set(value)),
    }
}

fn typed(kind: Kind, raw: &Raw) -> Result<Value, String> {
    let value = match (kind, raw) {
        (Kind::Text | Kind::Address | Kind::Choice(_), Raw::Text(text)) => Value::Text(text.clone()),
        (Kind::Integer(..), Raw::Integer(n)) => Value::Integer(*n),
        (Kind::Number(..), Raw::Integer(n)) => Value::Number(*n as f64),
        // Plus zero, so that -0.0 and 0 are the same request.
        (Kind::Number(..), Raw::Number(n)) if n.is_finite() => Value::Number(*n + 0.0),
        (Kind::Flag, Raw::Flag(flag)) => Value::Flag(*flag),
        (Kind::Integers, Raw::List(list)) => {
            let numbers = list.iter().map(|item| match item {
                Raw::Integer(n) => Ok(*n),
                other => Err(format!("must be {kind}; one of them is {}", what(other))),
            });
            Value::Integers(numbers.collect::<Result<_, _>>()?)
        }
        (Kind::Integer(..), Raw::Huge) => return Err(format!("is too large: must be {kind}, of 64 bits at most")),
        (_, Raw::Null) => return Err(format!("is null: to leave a parameter out, write \"{UNSET}\"")),
        (kind, raw) => return Err(format!("must be {kind}, not {}", what(raw))),
    };
    Ok(value)
}

/// What a value is, for a person who wrote it where something else was asked for. Never the value itself: it
/// might be something that should not be shown.
pub(crate) fn what(raw: &Raw) -> &'static str {
    match raw {
        Raw::Text(_) => "a text",
        Raw::Integer(_) => "a whole number",
        Raw::Huge => "a number that is too large",
        Raw::Number(n) if !n.is_finite() => "a number that is not finite",
        Raw::Number(_) => "a number with a fraction",
        Raw::Flag(_) => "true or false",
        Raw::List(_) => "a list",
        Raw::Null => "null",
        Raw::Other(name) => name,
    }
}
