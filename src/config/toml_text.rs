//! TOML text to keys and values with their places, and every mistake in its syntax.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::layer::{Entry, MOST_PROBLEMS, Raw};
use super::problem::Problem;

/// What could be read of a TOML text.
pub(crate) struct Parsed<'a> {
    pub(crate) table: DeTable<'a>,
    /// The lines with mistakes in them. What was read there is guesswork, and so is not complained of again.
    bad_lines: BTreeSet<u32>,
}

/// Reads `doc`; mistakes in its syntax are added to `problems`.
pub(crate) fn parse<'a>(doc: Document<'a>, problems: &mut Vec<Problem>) -> Parsed<'a> {
    let (table, errors) = DeTable::parse_recoverable(doc.text);
    let mut bad_lines = BTreeSet::new();
    for error in errors.iter().take(MOST_PROBLEMS) {
        // A mistake without a place is one of the end: something is missing there.
        let Range { start, end } = error.span().unwrap_or(doc.text.len()..doc.text.len());
        bad_lines.extend(doc.line(start)..=doc.line(end.max(start)));
        // The parser's words are lists and fragments now and then; its place is what helps.
        let mut message = error.message().trim().replace('\n', ", ");
        if message.is_empty() {
            message = "is no TOML".into();
        }
        if is_null(doc.text, start) {
            message.push_str("; TOML has no null: to leave a parameter out, write \"unset\"");
        }
        if message == "duplicate key" {
            message = "stands here twice: give it once".into();
        }
        let problem = doc.problem(start, key_of_line(doc.text, start).as_deref(), message);
        if problems.last() != Some(&problem) {
            problems.push(problem);
        }
    }
    Parsed { table: table.into_inner(), bad_lines }
}

impl Parsed<'_> {
    /// Takes away what is said about lines whose syntax is broken already.
    pub(crate) fn quiet(&self, found: Vec<Problem>) -> impl Iterator<Item = Problem> {
        found.into_iter().filter(|problem| problem.line.is_none_or(|line| !self.bad_lines.contains(&line)))
    }
}

/// The entries of a table, in their order.
pub(crate) fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_at: key.span().start,
            value: raw(value.get_ref()),
            value_at: at(key, value),
        })
        .collect()
}

/// Where a value stands; where its key does if it was made up after a mistake or comes from a header.
pub(crate) fn at<K, V>(key: &Spanned<K>, value: &Spanned<V>) -> usize {
    if value.span().is_empty() { key.span().start } else { value.span().start }
}

/// The value without its place.
pub(crate) fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).map_or(Raw::Huge, Raw::Integer),
        DeValue::Float(n) => n.as_str().parse().map_or(Raw::Other("a number"), Raw::Number),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(_) => Raw::Other("a date or time"),
        DeValue::Array(list) => Raw::List(list.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// The key that the line around `at` sets, with its section, as far as that can be told from a broken line.
fn key_of_line(text: &str, at: usize) -> Option<String> {
    let bare = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    let start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..)?.lines().next().unwrap_or_default();
    let header = |line: &str| {
        let name = line.trim().strip_prefix('[')?.split_once(']')?.0.trim();
        bare(name).then(|| format!("[{name}]"))
    };
    if let Some(header) = header(line) {
        return Some(header);
    }
    let key = line.split_once('=')?.0.trim();
    let section = text.get(..start)?.lines().rev().find_map(header);
    bare(key).then(|| section.map_or_else(|| key.to_owned(), |section| format!("{section} {key}")))
}

fn is_null(text: &str, at: usize) -> bool {
    text.get(at..).is_some_and(|rest| {
        let word = rest.trim_start().split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        matches!(word, "null" | "none" | "None" | "nil")
    })
}
