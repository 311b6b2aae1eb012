//! `config.toml` to a [`Config`]: every key read by hand, every mistake with its place.

mod hooks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::layer::{self, MOST_PROBLEMS, Naming, Raw, Said, what};
use super::problem::{Problem, Problems, nearest};
use super::renamed::{self, PRESET, Renamed};
use super::settings::{Backend, Config, Ignore, ReferenceMode, Unconfirmed};
use super::toml_text;
use super::values::{address, choice, duration, flag, loopback, model, number, path, size, template, text};
use crate::domain::params::Key;
use crate::domain::preset::By;

/// Every section but `[preset]`, and its keys.
pub(super) const SECTIONS: [(&str, &[&str]); 10] = [
    (
        "api",
        &[
            "base_url",
            "model",
            "upload_url",
            "key_file",
            "timeout",
            "connect_timeout",
            "requests_per_minute",
            "max_in_flight",
        ],
    ),
    ("folders", &["inbox", "working", "outbox", "archive", "errors"]),
    (
        "watch",
        &[
            "backend",
            "settle",
            "folder_settle",
            "sidecar_wait",
            "lone_wait",
            "give_up",
            "rescan",
            "poll_interval",
            "ignore",
        ],
    ),
    ("reference", &["mode", "url_base", "max_edge", "max_bytes", "strip_metadata", "upload_cache"]),
    ("retry", &["max_attempts", "first_delay", "max_delay", "unconfirmed", "probe_interval"]),
    ("limits", &["images_per_hour", "images_per_day", "max_variants", "locked"]),
    ("output", &["name", "provenance"]),
    ("service", &["grace", "keep_history", "state_dir"]),
    ("metrics", &["listen"]),
    ("hooks", &hooks::KEYS),
];

const NO_KEY_HERE: &str = "a key may not stand in the configuration, which is read and copied by many: give it as the \
     systemd credential segmind-api-key, as $SEGMIND_API_KEY, or in a file that only you can read and that [api] \
     key_file names";

/// Reads `bytes`. `label` is the file for people, `path` where it lies (absolute), for relative paths; `renamed`
/// are the keys that had other names.
pub(super) fn config(
    bytes: &[u8],
    label: &str,
    path: &Path,
    home: Option<&Path>,
    renamed: &[Renamed],
) -> Result<Config, Problems> {
    let doc = Document::new(label, bytes)?;
    let mut syntax = Vec::new();
    let parsed = toml_text::parse(doc, &mut syntax);
    let mut reader = Reader {
        doc,
        values: BTreeMap::new(),
        base: path.parent().unwrap_or(Path::new("/")),
        home,
        renamed,
        problems: vec![],
        warnings: vec![],
    };
    let preset = reader.sort(&parsed.table);
    let mut config = Config::default_for(path, home.unwrap_or(Path::new("/")));
    reader.fill(&mut config);
    if let Some(preset) = preset {
        reader.preset(&mut config, preset);
    }
    let mut problems = syntax;
    for problem in &mut problems {
        // What is written there may be meant as one, however it is written.
        let line = problem.line.and_then(|line| doc.text.lines().nth(line.saturating_sub(1) as usize));
        let word = line.and_then(|line| Some(line.split_once('=')?.0.trim().trim_matches(['"', '\''])));
        if word.and_then(|word| word.rsplit('.').next()).is_some_and(is_secret) {
            NO_KEY_HERE.clone_into(&mut problem.message);
        }
    }
    problems.dedup_by(|a, b| a.message == NO_KEY_HERE && a.message == b.message && a.line == b.line);
    problems.extend(parsed.quiet(reader.problems));
    Problems::none_of(problems)?;
    config.warnings = reader.warnings;
    config.warnings.sort_by_key(|warning| (warning.line, warning.column));
    Ok(config)
}

struct Found {
    value: Raw,
    at: usize,
    /// Where each item of a list stands.
    items_at: Vec<usize>,
}

struct Reader<'a> {
    doc: Document<'a>,
    /// By section and key.
    values: BTreeMap<(&'static str, &'static str), Found>,
    base: &'a Path,
    home: Option<&'a Path>,
    renamed: &'a [Renamed],
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Reader<'_> {
    /// Sorts what is known into `values` and complains of the rest; gives `[preset]`.
    fn sort<'t>(&mut self, root: &'t DeTable<'_>) -> Option<&'t DeTable<'t>> {
        let mut preset = None;
        for (name, value) in root {
            let word = name.get_ref().as_ref();
            let at = name.span().start;
            let section = SECTIONS.iter().find(|(section, _)| *section == word);
            match value.get_ref() {
                DeValue::Table(table) if word == PRESET => {
                    for key in table.keys().filter(|key| is_secret(key.get_ref())) {
                        self.wrong(key.span().start, &format!("[preset] {}", key.get_ref()), NO_KEY_HERE);
                    }
                    preset = Some(table);
                }
                DeValue::Table(table) => match section {
                    Some((section, keys)) => self.sort_section(section, keys, table),
                    None if table.keys().any(|key| is_secret(key.get_ref())) => {
                        self.wrong(at, &format!("[{word}]"), NO_KEY_HERE);
                    }
                    None if is_secret(word) => self.wrong(at, &format!("[{word}]"), NO_KEY_HERE),
                    None => {
                        let names = SECTIONS.iter().map(|(section, _)| *section).chain([PRESET]);
                        let nearest = nearest(word, names);
                        self.unknown(at, &format!("[{word}]"), "unknown section".into(), nearest);
                    }
                },
                _ if section.is_some() || word == PRESET => {
                    self.wrong(at, word, &format!("must be a section: write [{word}] on a line of its own"));
                }
                _ if is_secret(word) => self.wrong(at, word, NO_KEY_HERE),
                _ => self.misplaced(at, word, word),
            }
        }
        preset
    }

    fn sort_section(&mut self, section: &'static str, keys: &[&'static str], table: &DeTable<'_>) {
        for (name, value) in table {
            let word = name.get_ref().as_ref();
            let at = name.span().start;
            let shown = format!("[{section}] {word}");
            let new = renamed::now_called(self.renamed, section, word);
            if let Some(key) = keys.iter().find(|key| **key == new.unwrap_or(word)) {
                if let Some(new) = new {
                    if table.contains_key(new) || self.has(section, key) {
                        self.wrong(at, &shown, &renamed::given_twice(new));
                        continue;
                    }
                    self.warnings.push(self.doc.problem(at, Some(&shown), renamed::still_read(new)));
                }
                let found = Found {
                    value: toml_text::raw(value.get_ref()),
                    at: toml_text::at(name, value),
                    items_at: items_at(value),
                };
                self.values.insert((section, key), found);
            } else if is_secret(word) {
                self.wrong(at, &shown, NO_KEY_HERE);
            } else if let Some(near) = nearest(word, keys.iter().copied()) {
                self.unknown(at, &shown, "unknown key".into(), Some(near));
            } else {
                self.misplaced(at, word, &shown);
            }
        }
    }

    /// A key that is unknown where it stands, but perhaps not elsewhere.
    fn misplaced(&mut self, at: usize, word: &str, shown: &str) {
        let sections = SECTIONS.iter().filter(|(_, keys)| keys.contains(&word)).map(|(section, _)| *section);
        let message = match sections.chain(Key::parse(word).map(|_| PRESET)).next() {
            Some(section) => format!("unknown key here: it belongs below [{section}]"),
            None => "unknown key".into(),
        };
        self.unknown(at, shown, message, None);
    }

    fn unknown(&mut self, at: usize, shown: &str, message: String, nearest: Option<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Problem { nearest, ..self.doc.problem(at, Some(shown), message) });
        }
    }

    fn wrong(&mut self, at: usize, shown: &str, message: &str) {
        self.unknown(at, shown, message.to_owned(), None);
    }

    fn fill(&mut self, c: &mut Config) {
        const TICK: Duration = Duration::from_millis(10);
        const ONE: Duration = Duration::from_millis(1);
        const NONE: Duration = Duration::ZERO;

        self.value("api", "base_url", &mut c.api.base_url, |v| address(text(v)?));
        self.value("api", "model", &mut c.api.model, |v| model(text(v)?));
        self.value("api", "upload_url", &mut c.api.upload_url, |v| address(text(v)?));
        self.optional_path("api", "key_file", &mut c.api.key_file);
        self.value("api", "timeout", &mut c.api.timeout, |v| duration(v, ONE));
        self.value("api", "connect_timeout", &mut c.api.connect_timeout, |v| duration(v, ONE));
        self.value("api", "requests_per_minute", &mut c.api.requests_per_minute, |v| number(v, 0, 1_000_000));
        self.value("api", "max_in_flight", &mut c.api.max_in_flight, |v| number(v, 1, 64));

        self.path("inbox", &mut c.folders.inbox);
        self.optional_path("folders", "working", &mut c.folders.working);
        self.path("outbox", &mut c.folders.outbox);
        self.path("archive", &mut c.folders.archive);
        self.path("errors", &mut c.folders.errors);

        let backends = [("auto", Backend::Auto), ("events", Backend::Events), ("poll", Backend::Poll)];
        self.value("watch", "backend", &mut c.watch.backend, |v| choice(v, backends));
        self.value("watch", "settle", &mut c.watch.settle, |v| duration(v, ONE));
        self.value("watch", "folder_settle", &mut c.watch.folder_settle, |v| duration(v, NONE));
        self.value("watch", "sidecar_wait", &mut c.watch.sidecar_wait, |v| duration(v, NONE));
        self.value("watch", "lone_wait", &mut c.watch.lone_wait, |v| duration(v, NONE));
        self.value("watch", "give_up", &mut c.watch.give_up, |v| duration(v, ONE));
        self.value("watch", "rescan", &mut c.watch.rescan, |v| duration(v, TICK));
        self.value("watch", "poll_interval", &mut c.watch.poll_interval, |v| duration(v, TICK));
        self.ignore(&mut c.watch.ignore);

        self.value("reference", "max_edge", &mut c.reference.max_edge, |v| number(v, 16, 65_535));
        self.value("reference", "max_bytes", &mut c.reference.max_bytes, |v| size(v, 1_000, 1_000_000_000));
        self.value("reference", "strip_metadata", &mut c.reference.strip_metadata, flag);
        self.value("reference", "upload_cache", &mut c.reference.upload_cache, |v| duration(v, NONE));
        self.mode(c);

        self.value("retry", "max_attempts", &mut c.retry.max_attempts, |v| number(v, 1, 1_000));
        self.value("retry", "first_delay", &mut c.retry.first_delay, |v| duration(v, ONE));
        self.value("retry", "max_delay", &mut c.retry.max_delay, |v| duration(v, ONE));
        let words = [("hold", Unconfirmed::Hold), ("retry", Unconfirmed::Retry)];
        self.value("retry", "unconfirmed", &mut c.retry.unconfirmed, |v| choice(v, words));
        self.value("retry", "probe_interval", &mut c.retry.probe_interval, |v| duration(v, TICK));
        // One that was left at its default gives way; two that contradict one another don't.
        let (first, max) = (c.retry.first_delay, c.retry.max_delay);
        if first > max && self.has("retry", "first_delay") {
            if self.has("retry", "max_delay") {
                self.complain("retry", "first_delay", "is longer than max_delay");
            } else {
                c.retry.max_delay = first;
            }
        } else if first > max {
            c.retry.first_delay = max;
        }

        self.value("limits", "images_per_hour", &mut c.limits.images_per_hour, |v| number(v, 0, i64::from(u32::MAX)));
        self.value("limits", "images_per_day", &mut c.limits.images_per_day, |v| number(v, 0, i64::from(u32::MAX)));
        self.value("limits", "max_variants", &mut c.limits.max_variants, |v| number(v, 1, 1_000));
        self.locked(c);

        self.value("output", "name", &mut c.output.name, |v| template(text(v)?));
        self.value("output", "provenance", &mut c.output.provenance, flag);

        c.service.grace = c.api.timeout + Duration::from_secs(15);
        self.value("service", "grace", &mut c.service.grace, |v| duration(v, NONE));
        self.value("service", "keep_history", &mut c.service.keep_history, |v| duration(v, ONE));
        self.optional_path("service", "state_dir", &mut c.service.state_dir);

        self.value("metrics", "listen", &mut c.metrics.listen, |v| loopback(text(v)?).map(Some));
        self.hooks(&mut c.hooks);
    }

    fn has(&self, section: &'static str, key: &'static str) -> bool {
        self.values.contains_key(&(section, key))
    }

    /// Complains of the value of a key that is there.
    fn complain(&mut self, section: &'static str, key: &'static str, message: &str) {
        let at = self.values.get(&(section, key)).map_or(0, |found| found.at);
        self.wrong(at, &format!("[{section}] {key}"), message);
    }

    /// Reads a key into `slot` if it is there and right.
    fn value<T>(
        &mut self,
        section: &'static str,
        key: &'static str,
        slot: &mut T,
        read: impl FnOnce(&Raw) -> Result<T, String>,
    ) {
        match self.values.get(&(section, key)).map(|found| read(&found.value)) {
            None => {}
            Some(Ok(value)) => *slot = value,
            Some(Err(message)) => self.complain(section, key, &message),
        }
    }

    fn path(&mut self, key: &'static str, slot: &mut PathBuf) {
        if self.home.is_none() && !self.has("folders", key) {
            let message = "is not set, and there is no home directory for the default: set it";
            let shown = format!("[folders] {key}");
            self.problems.push(Problem { key: Some(shown), ..Problem::of_file(self.doc.label, message) });
        }
        let (base, home) = (self.base, self.home);
        self.value("folders", key, slot, |v| path(v, base, home));
    }

    fn optional_path(&mut self, section: &'static str, key: &'static str, slot: &mut Option<PathBuf>) {
        let (base, home) = (self.base, self.home);
        self.value(section, key, slot, |v| path(v, base, home).map(Some));
    }

    fn ignore(&mut self, slot: &mut Ignore) {
        let Some(patterns) = self.texts("watch", "ignore") else { return };
        let (mut places, mut texts): (Vec<usize>, Vec<String>) = patterns.into_iter().unzip();
        loop {
            match Ignore::new(texts.clone()) {
                Ok(ignore) => break *slot = ignore,
                Err((i, message)) if i < texts.len() => {
                    self.wrong(places.remove(i), "[watch] ignore", &message);
                    texts.remove(i);
                }
                Err((_, message)) => break self.wrong(0, "[watch] ignore", &message),
            }
        }
    }

    fn locked(&mut self, c: &mut Config) {
        for (at, word) in self.texts("limits", "locked").unwrap_or_default() {
            let new = renamed::now_called(self.renamed, PRESET, &word);
            if let Some(new) = new {
                let message = format!("\"{word}\" {}", renamed::still_read(new));
                self.warnings.push(self.doc.problem(at, Some("[limits] locked"), message));
            }
            match Key::parse(new.unwrap_or(&word)) {
                Some(key) if key.in_sidecar() => {
                    c.limits.locked.insert(key);
                }
                Some(_) => {
                    let message = format!("\"{word}\" can't be set by a sidecar anyway: take it out");
                    self.wrong(at, "[limits] locked", &message);
                }
                None => {
                    let names = Key::ALL.iter().filter(|key| key.in_sidecar()).map(|key| key.name());
                    let nearest = nearest(&word, names);
                    self.unknown(at, "[limits] locked", format!("\"{word}\" is no key of a sidecar"), nearest);
                }
            }
        }
    }

    /// The items of a list of texts, with their places.
    fn texts(&mut self, section: &'static str, key: &'static str) -> Option<Vec<(usize, String)>> {
        let found = self.values.get(&(section, key))?;
        let Raw::List(items) = &found.value else {
            let message = format!("must be a list of texts, not {}", what(&found.value));
            self.complain(section, key, &message);
            return None;
        };
        let (mut texts, mut wrong) = (Vec::new(), Vec::new());
        for (i, item) in items.iter().enumerate() {
            let at = found.items_at.get(i).copied().unwrap_or(found.at);
            match item {
                Raw::Text(text) => texts.push((at, text.clone())),
                other => wrong.push((at, format!("must hold texts only; this is {}", what(other)))),
            }
        }
        for (at, message) in wrong {
            self.wrong(at, &format!("[{section}] {key}"), &message);
        }
        Some(texts)
    }

    fn mode(&mut self, c: &mut Config) {
        let mut url_base = None;
        self.value("reference", "url_base", &mut url_base, |v| address(text(v)?).map(Some));
        let mut mode = "upload";
        let words = [("upload", "upload"), ("public_url", "public_url"), ("inline", "inline")];
        self.value("reference", "mode", &mut mode, |v| choice(v, words));
        if mode != "public_url" {
            if mode == "inline" {
                c.reference.mode = ReferenceMode::Inline;
            }
            return;
        }
        if c.reference.strip_metadata {
            self.complain(
                "reference",
                "mode",
                "\"public_url\" sends the file as it is served, so nothing can be stripped from it: write \
                 strip_metadata = false beside it if that is meant",
            );
        }
        match url_base {
            Some(mut url_base) => {
                if !url_base.path().ends_with('/') {
                    let path = format!("{}/", url_base.path());
                    url_base.set_path(&path);
                }
                c.reference.mode = ReferenceMode::PublicUrl { url_base };
            }
            // One that is there and wrong has been complained of.
            None if self.has("reference", "url_base") => {}
            None => self.complain("reference", "mode", "\"public_url\" needs url_base, where the pictures are served"),
        }
    }

    fn preset(&mut self, c: &mut Config, table: &DeTable<'_>) {
        let mut entries = toml_text::entries(table);
        entries.retain(|entry| !is_secret(&entry.key));
        let file = c.file.file_name().unwrap_or(c.file.as_os_str()).to_string_lossy();
        let source = format!("{file} [preset]");
        let naming = Naming { by: By::Preset, source: &source, before: "[preset] ", renamed: self.renamed };
        let mut said = Said { problems: std::mem::take(&mut self.problems), ..Said::default() };
        c.preset = layer::read(self.doc, &naming, entries, &mut said);
        self.problems = said.problems;
        self.warnings.extend(said.warnings);
        for fault in c.preset.faults(&c.rules()) {
            let problem = Problem::of_file(self.doc.label, fault.message);
            let key = Some(format!("[preset] {}", fault.key));
            self.problems.push(Problem { line: fault.origin.line, key, ..problem });
        }
    }
}

fn items_at(value: &Spanned<DeValue<'_>>) -> Vec<usize> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().map(|item| item.span().start).collect(),
        _ => Vec::new(),
    }
}

/// Whether somebody who writes this means the API key.
fn is_secret(word: &str) -> bool {
    let word = word.to_lowercase().replace(['-', '.', ' '], "_");
    let word = word.strip_prefix("segmind_").unwrap_or(&word);
    matches!(word, "key" | "api_key" | "apikey" | "token" | "api_token" | "x_api_key" | "secret" | "password")
}
