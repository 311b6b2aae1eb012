//! Holds what ARCHITECTURE.md promises about the code: which room may know which, what the domain does without,
//! how long a file may be, and that the map itself names what is there.
//!
//! It reads the sources as text: comments and strings are blanked, test modules are left out, and every path
//! that remains is looked at, in `use` lines and elsewhere. Wrong samples at the end show that it can fail.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MIDDLE: [&str; 5] = ["inbox", "reference", "segmind", "outbox", "ledger"];

/// Each room and the rooms that it may know besides itself.
const ROOMS: [(&str, &[&str]); 11] = [
    ("domain", &[]),
    ("config", &["domain"]),
    ("inbox", &["domain"]),
    ("reference", &["domain"]),
    ("segmind", &["domain"]),
    ("outbox", &["domain"]),
    ("ledger", &["domain"]),
    ("sandbox", &["domain"]),
    ("service", &["domain"]),
    ("engine", &["config", "domain", MIDDLE[0], MIDDLE[1], MIDDLE[2], MIDDLE[3], MIDDLE[4]]),
    ("cli", &["config", "domain", "engine", "ledger", "outbox", "inbox", "reference", "segmind", "sandbox", "service"]),
];

/// What the domain must not touch: files, network, threads, clocks, randomness.
const NOT_IN_DOMAIN: [&[&str]; 14] = [
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "env"],
    &["tokio"],
    &["reqwest"],
    &["rusqlite"],
    &["rustix"],
    &["getrandom"],
    &["SystemTime"],
    &["Instant"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
];

/// Crates that lead outside, and the rooms whose business that is.
const DOORS: [(&str, &[&str]); 12] = [
    ("reqwest", &["segmind", "service"]),
    ("rustls", &["segmind", "service"]),
    ("secrecy", &["segmind", "service"]),
    ("ring", &["service"]),
    ("rusqlite", &["ledger"]),
    ("axum", &["sandbox", "service"]),
    ("prometheus_client", &["service"]),
    ("image", &["reference", "sandbox"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("sd_notify", &["service"]),
    ("signal_hook_tokio", &["service"]),
];

const LONGEST_FILE: usize = 560;
const LONGEST_MAIN: usize = 12;

/// A source file: its path below `src/` (or `tests/`) and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The top-level module that it belongs to; `main` or `lib` for the roots.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules it lies below the root of the crate.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if ["main.rs", "lib.rs"].contains(&self.path.as_str()) || self.path.ends_with("/mod.rs") {
            parts - 1
        } else {
            parts
        }
    }

    /// The folder in which its modules lie.
    fn modules(&self) -> String {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let own = stem.strip_suffix("mod").or_else(|| ["main", "lib"].contains(&stem).then_some(""));
        own.map_or_else(|| format!("{stem}/"), str::to_owned)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn sources(below: &str) -> Vec<Source> {
    let base = root().join(below);
    let mut found: Vec<PathBuf> = walkdir::WalkDir::new(&base).into_iter().map(|e| e.unwrap().into_path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    found.sort();
    let source = |path: &PathBuf| {
        Source::new(path.strip_prefix(&base).unwrap().to_str().unwrap(), &std::fs::read_to_string(path).unwrap())
    };
    found.iter().map(source).collect()
}

/// The text with every comment, string and character replaced by blanks of the same length.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &text[i..];
        let fresh = i == 0 || !(bytes[i - 1].is_ascii_alphanumeric() || bytes[i - 1] == b'_');
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(hashes) = fresh.then(|| raw_string(rest)).flatten() {
            let open = rest.find('"').unwrap() + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
        } else if rest.starts_with('"') {
            quoted(rest, b'"')
        } else if is_char(rest) {
            quoted(rest, b'\'')
        } else {
            i += rest.chars().next().unwrap().len_utf8();
            continue;
        };
        for byte in &mut out[i..i + end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        i += end;
    }
    String::from_utf8(out).unwrap()
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        let two = rest.as_bytes().get(i..i + 2).unwrap_or_default();
        match two {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    rest.len()
}

/// The number of hashes of a raw string that begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let hashes = rest.bytes().take_while(|b| *b == b'#').count();
    rest[hashes..].starts_with('"').then_some(hashes)
}

fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('\'') && (chars.next() == Some('\\') || chars.next() == Some('\''))
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut i = 1;
    while i < bytes.len() && bytes[i] != quote {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(bytes.len())
}

/// The end of the bracket that opens at `at`.
fn closing(code: &str, at: usize) -> usize {
    let mut depth = 0;
    for (i, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    code.len()
}

/// The code of a file without comments, strings and items that only tests have; which files or folders hold
/// its test modules; and what is written for tests although it is no item.
fn product_code(source: &Source) -> (String, Vec<String>, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let mut code = blank(&source.text);
    let (mut elsewhere, mut branches) = (Vec::new(), Vec::new());
    while let Some(start) = code.find(MARK) {
        let mut at = start + MARK.len();
        let mut path = None;
        loop {
            at += code[at..].len() - code[at..].trim_start().len();
            if !code[at..].starts_with("#[") {
                break;
            }
            let end = closing(&code, at + 1);
            path =
                path.or_else(|| source.text[at..end].split_once("path = \"").map(|(_, p)| p.trim_end_matches("\"]")));
            at = end;
        }
        let item = code[at..].find([';', '{']).map_or(code.len(), |i| at + i);
        let words: Vec<&str> = code[at..item].split_whitespace().filter(|w| !w.starts_with("pub")).collect();
        match words.as_slice() {
            ["mod", name] if code[item..].starts_with(';') => elsewhere.push(match path {
                Some(path) => {
                    format!("{}{path}", source.path.rsplit_once('/').map_or(String::new(), |(d, _)| format!("{d}/")))
                }
                None => format!("{}{name}", source.modules()),
            }),
            ["mod" | "use" | "fn" | "impl" | "struct" | "enum" | "const" | "static" | "type", ..] => {}
            other => branches.push(format!("{}: a branch for tests: {}", source.path, other.join(" "))),
        }
        let end = if code[item..].starts_with('{') { closing(&code, item) } else { (item + 1).min(code.len()) };
        code.replace_range(start..end, &" ".repeat(end - start));
    }
    (code, elsewhere, branches)
}

/// Words and the signs between them; `::` is one sign.
fn tokens(code: &str) -> Vec<&str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        found.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Every path in the code; `use` trees are spelled out.
fn paths(tokens: &[&str]) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i] == "use" && tokens.get(i + 1) != Some(&"<") {
            i += 1;
            use_tree(tokens, &mut i, &[], &mut out);
        } else if is_word(tokens[i]) {
            let mut path = vec![tokens[i].to_owned()];
            while tokens.get(i + 1) == Some(&"::") && tokens.get(i + 2).is_some_and(|t| is_word(t)) {
                i += 2;
                path.push(tokens[i].to_owned());
            }
            out.push(path);
            i += 1;
        } else {
            i += 1;
        }
    }
    out
}

fn use_tree(tokens: &[&str], i: &mut usize, before: &[String], out: &mut Vec<Vec<String>>) {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(*i) {
        match *token {
            "::" | "*" => *i += 1,
            "{" => {
                *i += 1;
                while tokens.get(*i).is_some_and(|t| *t != "}") {
                    use_tree(tokens, i, &path, out);
                    if tokens.get(*i) == Some(&",") {
                        *i += 1;
                    }
                }
                *i += 1;
                return;
            }
            "as" => *i += 2,
            word if is_word(word) => {
                path.push(word.to_owned());
                *i += 1;
            }
            _ => break,
        }
    }
    out.push(path);
}

/// The top-level module that a path of `source` leads to, if it is one of this crate's.
fn leads_to<'a>(source: &Source, path: &'a [String]) -> Option<&'a str> {
    let supers = path.iter().take_while(|p| *p == "super").count();
    let at = match path.first().map(String::as_str) {
        Some("crate" | "reimagined") => 1,
        Some("super") if supers >= source.depth() => supers,
        _ => return None,
    };
    path.get(at).map(String::as_str).filter(|room| ROOMS.iter().any(|(name, _)| name == room))
}

fn holds(path: &[String], what: &[&str]) -> bool {
    path.windows(what.len()).any(|part| part.iter().zip(what).all(|(a, b)| a == b))
}

/// The files that are in the program, with their code.
fn product(sources: &[Source]) -> Vec<(&Source, String)> {
    let all: Vec<_> = sources.iter().map(|s| (s, product_code(s))).collect();
    let tests: Vec<&String> = all.iter().flat_map(|(_, (_, elsewhere, _))| elsewhere).collect();
    let is_test = |path: &str| {
        tests.iter().any(|t| path == **t || path == format!("{t}.rs") || path.starts_with(&format!("{t}/")))
    };
    all.iter().filter(|(s, _)| !is_test(&s.path)).map(|(s, (code, _, _))| (*s, code.clone())).collect()
}

/// Everything that is against the rules, as lines for a person.
fn faults(sources: &[Source]) -> Vec<String> {
    let mut faults = BTreeSet::new();
    for (source, code) in product(sources) {
        let (room, path) = (source.room(), &source.path);
        let tokens = tokens(&code);
        let known = ROOMS.iter().find(|(name, _)| *name == room).map(|(_, may)| *may);
        let may = known.unwrap_or(if room == "main" { &["cli"] } else { &[] });
        if known.is_none() && !["main", "lib"].contains(&room) {
            faults.insert(format!("{path}: a room that the map does not know"));
        }
        for used in paths(&tokens) {
            let shown = used.join("::");
            if let Some(other) = leads_to(source, &used)
                && other != room
                && !may.contains(&other)
            {
                faults.insert(format!("{path}: {room} must not know {other} ({shown})"));
            }
            if room == "domain" && NOT_IN_DOMAIN.iter().any(|what| holds(&used, what)) {
                faults.insert(format!("{path}: the domain does without {shown}"));
            }
            if DOORS.iter().any(|(door, rooms)| used[0] == *door && used.len() > 1 && !rooms.contains(&room)) {
                faults.insert(format!("{path}: {shown} is another room's door"));
            }
            if holds(&used, &["process", "exit"]) {
                faults.insert(format!("{path}: only main ends the process"));
            }
            if used.iter().any(|part| part.starts_with("unbounded")) {
                faults.insert(format!("{path}: {shown}: every queue has an end"));
            }
        }
        if room == "domain" && tokens.iter().any(|t| ["async", "await"].contains(t)) {
            faults.insert(format!("{path}: the domain waits for nothing"));
        }
        for two in tokens.windows(2) {
            if ["todo", "unimplemented", "dbg"].contains(&two[0]) && two[1] == "!" {
                faults.insert(format!("{path}: {}!", two[0]));
            }
        }
        if !source.text.starts_with("//!") {
            faults.insert(format!("{path}: does not begin with what it is for (//!)"));
        }
    }
    for source in sources {
        let longest = if source.path == "main.rs" { LONGEST_MAIN } else { LONGEST_FILE };
        let lines = source.text.lines().count();
        if lines > longest {
            faults.insert(format!("{}: {lines} lines, {longest} at most", source.path));
        }
        let code = blank(&source.text);
        faults.extend(product_code(source).2);
        for branch in ["#[ignore", "cfg!(test)", "cfg(not(test))"] {
            if code.contains(branch) {
                faults.insert(format!("{}: {branch}", source.path));
            }
        }
    }
    faults.into_iter().collect()
}

/// The backticked words of a text.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap()
}

#[test]
fn every_room_knows_only_the_rooms_it_may_and_the_domain_is_pure() {
    let sources = sources("src");
    assert!(product(&sources).len() > 100, "the sources were not found");
    let faults = faults(&sources);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_tests_are_all_run() {
    for source in sources("tests") {
        assert!(!blank(&source.text).contains("#[ignore"), "{}", source.path);
    }
}

#[test]
fn the_map_names_every_room_and_leads_to_what_is_there() {
    let map = read("ARCHITECTURE.md");
    let library = blank(&read("src/lib.rs"));
    let modules: BTreeSet<&str> = library.split("pub mod ").skip(1).map(|m| m.split(';').next().unwrap()).collect();
    assert_eq!(modules, ROOMS.iter().map(|(name, _)| *name).collect(), "lib.rs and the rooms of this test");
    for room in modules {
        assert!(section(&map, "Rooms").contains(&format!("`{room}/`")), "{room} is not on the map");
    }
    let sources = sources("src");
    for span in spans(&map) {
        let (file, name) = span.split_once("::").unwrap_or((span, ""));
        let file = file.strip_prefix("src/").unwrap_or(file);
        let beside = ["tests/", "benches/"].iter().any(|below| file.starts_with(below));
        if Path::new(file).extension().is_some_and(|e| e == "rs") && file.contains('/') && !beside {
            let found = sources.iter().find(|s| s.path == file).unwrap_or_else(|| panic!("`{span}`: no such file"));
            let code = blank(&found.text);
            let words = tokens(&code);
            let defined = ["fn", "struct", "enum", "trait", "const", "type"];
            let there = words.windows(2).any(|two| defined.contains(&two[0]) && two[1] == name);
            assert!(name.is_empty() || there, "`{span}`: {file} does not define it");
        } else if ["src/", "tests/", "benches/", "systemd/", ".ci/"].iter().any(|below| span.starts_with(below)) {
            assert!(root().join(span).exists(), "`{span}` is not there");
        }
    }
}

#[test]
fn the_documents_lead_to_one_another_and_to_files_that_are_there() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|t| !t.contains("://") && !t.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            assert!(root().join(file).exists(), "{document} leads to {target}, which is not there");
        }
    }
    assert!(read("README.md").contains("(ARCHITECTURE.md)"), "the README leads to the map");
}

#[test]
fn each_dependency_is_used_and_stands_on_the_map_with_its_reason() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let named = |table: &str| -> BTreeSet<String> { manifest[table].as_table().unwrap().keys().cloned().collect() };
    let map = read("ARCHITECTURE.md");
    let listed = section(&map, "Dependencies").lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<String> = listed.map(|line| line.split('`').next().unwrap().to_owned()).collect();
    assert_eq!(named("dependencies"), listed);

    let sources = sources("src");
    let used: BTreeSet<String> = product(&sources)
        .iter()
        .flat_map(|(_, code)| paths(&tokens(code)))
        .filter(|path| path.len() > 1)
        .map(|path| path[0].clone())
        .collect();
    let unused: Vec<String> =
        named("dependencies").into_iter().filter(|name| !used.contains(&name.replace('-', "_"))).collect();
    assert!(unused.is_empty(), "not used: {unused:?}");
}

#[test]
fn what_is_deliberately_absent_does_not_come_in_with_a_dependency() {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    for absent in ["h2", "openssl-sys", "native-tls", "aws-lc-sys", "notify-debouncer-full", "notify-debouncer-mini"] {
        assert!(!packages.iter().any(|p| p["name"].as_str() == Some(absent)), "{absent}");
    }
}

/// The only fault of one wrong file.
#[track_caller]
fn caught(path: &str, text: &str) -> String {
    let faults = faults(&[Source::new(path, &format!("//! Head.\n{text}"))]);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.into_iter().next().unwrap()
}

#[test]
fn a_wrong_arrow_is_caught_however_it_is_written() {
    for (path, text) in [
        ("inbox/watch.rs", "use crate::ledger::Ledger;"),
        ("inbox/watch.rs", "use crate::{domain::ids, ledger::Ledger};"),
        ("inbox/watch.rs", "fn f() -> crate::ledger::Sum { todo() }"),
        ("inbox/mod.rs", "use super::ledger;"),
        ("inbox/watch.rs", "use super::super::ledger::Ledger;"),
        ("inbox/watch.rs", "#[cfg(test)]\nmod tests;\nuse crate::ledger::Ledger;"),
    ] {
        assert!(caught(path, text).contains("inbox must not know ledger"), "{text}");
    }
    assert!(caught("domain/pace.rs", "use crate::config::Config;").contains("domain must not know config"));
    assert!(caught("engine/mod.rs", "use crate::sandbox;").contains("engine must not know sandbox"));
    assert!(caught("service/lock.rs", "fn f() { crate::cli::main() }").contains("service must not know cli"));
    assert!(caught("main.rs", "use reimagined::engine;").contains("main must not know engine"));
    assert!(caught("store/mod.rs", "").contains("does not know"));
    assert!(caught("engine/mod.rs", "fn f(c: rusqlite::Connection) {}").contains("another room's door"));
}

#[test]
fn a_domain_that_looks_outside_is_caught() {
    for text in [
        "use std::fs::File;",
        "use std::{collections::HashMap, net, time::Duration};",
        "fn f() { let now = jiff::Timestamp::now(); }",
        "use jiff::Timestamp; fn f() { Timestamp::now(); }",
        "use std::time::Instant;",
        "fn f() { std::thread::sleep(D) }",
        "fn f() { getrandom::u64() }",
        "async fn f() {}",
    ] {
        assert!(caught("domain/pace.rs", text).starts_with("domain/pace.rs: the domain"), "{text}");
    }
}

#[test]
fn other_slips_are_caught() {
    assert!(caught("cli/init.rs", "fn f() { todo!() }").contains("todo!"));
    assert!(caught("cli/init.rs", "fn f() { std::process::exit(1) }").contains("ends the process"));
    assert!(caught("engine/mod.rs", "use tokio::sync::mpsc::unbounded_channel;").contains("has an end"));
    assert!(caught("engine/mod.rs", "fn f() { #[cfg(test)] return; }").contains("a branch for tests"));
    assert!(caught("engine/mod.rs", "fn f() -> bool { cfg!(test) }").contains("cfg!(test)"));
    assert!(caught("engine/mod.rs", &"\n".repeat(LONGEST_FILE)).contains("561 lines"));
    assert!(caught("main.rs", &"\n".repeat(LONGEST_MAIN)).contains("13 lines"));
    assert_eq!(faults(&[Source::new("cli/init.rs", "fn f() {}")]).len(), 1, "no head");
}

#[test]
fn words_in_comments_strings_and_tests_are_no_faults() {
    let text = r##"//! Not crate::cli, whatever std::fs says.
/* crate::cli /* std::net */ std::fs */
const A: &str = "crate::cli \" std::fs"; const B: &str = r#"" crate::cli "#; const C: char = '"';
fn f<'a>(x: &'a str) -> char { '\'' }
fn g() -> &'static [u8] { b"std::fs::File" }
#[cfg(test)]
mod tests { use crate::engine::Engine; fn f() { std::fs::read("{"); } }
#[cfg(test)]
#[path = "pace_tests.rs"]
mod more;
#[cfg(test)]
mod model;
"##;
    let wrong = "use crate::cli; use std::fs;";
    let sources = [
        Source::new("domain/pace.rs", text),
        Source::new("domain/pace_tests.rs", wrong),
        Source::new("domain/pace/model.rs", wrong),
        Source::new("domain/pace/model/deeper.rs", wrong),
    ];
    assert_eq!(faults(&sources), Vec::<String>::new());
    // Without the declaration they are part of the program.
    assert_eq!(faults(&sources[1..]).len(), 9);
}
