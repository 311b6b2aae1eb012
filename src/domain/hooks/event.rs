//! One event in the forms in which it is told: a line for people, JSON, environment variables, single values.
//!
//! The JSON and the variables are interfaces: keys are added, and none changes its meaning.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::command::Name;
use super::{On, Pause};
use crate::domain::arrivals::Reason;
use crate::domain::ids::{Place, show_text};
use crate::domain::news::{EndedDrop, Ending, News};

/// Characters of a reason.
const LONGEST_REASON: usize = 2_000;

/// What is told.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of the news")]
pub enum Event {
    /// A drop has ended: done, or in errors.
    Ended(Box<EndedDrop>),
    /// Nothing is sent, since `at`.
    Paused { at: Timestamp, pause: Pause },
    /// It goes on, since `at`.
    Resumed { at: Timestamp, pause: Pause },
    /// A drop waits for something that only a person can give.
    Waiting { at: Timestamp, place: Place, reason: Reason, since: Timestamp, others: usize },
}

impl Event {
    /// What follows from one piece of news alone, said at `at`. Pauses come through [`super::Pauses`].
    pub fn of(news: &News, at: Timestamp) -> Option<Self> {
        match news {
            News::Ended(ended) => Some(Self::Ended(ended.clone())),
            News::Waiting { place, reason, since, others } => {
                Some(Self::Waiting { at, place: place.clone(), reason: *reason, since: *since, others: *others })
            }
            _ => None,
        }
    }

    /// On which occasion it is told.
    pub fn on(&self) -> On {
        match self {
            Self::Ended(ended) if ended.ending == Ending::Done => On::Done,
            Self::Ended(_) => On::Failed,
            Self::Paused { .. } | Self::Resumed { .. } => On::Paused,
            Self::Waiting { .. } => On::Waiting,
        }
    }

    /// Its name: stable.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Resumed { .. } => "resumed",
            other => other.on().word(),
        }
    }

    /// When it was so.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Ended(ended) => ended.at,
            Self::Paused { at, .. } | Self::Resumed { at, .. } | Self::Waiting { at, .. } => *at,
        }
    }

    /// The drop that it is about.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Ended(ended) => Some(&ended.place),
            Self::Waiting { place, .. } => Some(place),
            Self::Paused { .. } | Self::Resumed { .. } => None,
        }
    }

    /// The results in the outbox.
    pub fn results(&self) -> impl Iterator<Item = &Path> {
        let ended = match self {
            Self::Ended(ended) => Some(ended),
            _ => None,
        };
        ended.into_iter().flat_map(|ended| &ended.shots).filter_map(|shot| shot.result.as_deref())
    }

    /// Why, in plain words, without any address.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Ended(ended) => ended.reason.as_deref().map(plain),
            Self::Paused { pause, .. } | Self::Resumed { pause, .. } => Some(plain(&pause.reason)),
            Self::Waiting { reason, .. } => Some(waits(*reason).to_owned()),
        }
    }

    /// One line for people.
    pub fn text(&self) -> String {
        match self {
            Self::Ended(ended) => match ended.ending {
                Ending::Done => {
                    let pictures = self.results().count();
                    let plural = if pictures == 1 { "" } else { "s" };
                    let cost = ended.cost().map_or_else(String::new, |cost| format!(", ${cost:.2}"));
                    format!("{} is done: {pictures} picture{plural}{cost}", ended.place)
                }
                Ending::Failed | Ending::Unconfirmed => {
                    format!("{} is in errors: {}", ended.place, self.reason().unwrap_or_default())
                }
            },
            Self::Paused { .. } => format!("paused: {}", self.reason().unwrap_or_default()),
            Self::Resumed { .. } => format!("going on: the pause is over ({})", self.reason().unwrap_or_default()),
            Self::Waiting { place, reason, others, .. } => match others {
                0 => format!("{place} {}", waits(*reason)),
                1 => format!("{place} {}; and one more there", waits(*reason)),
                more => format!("{place} {}; and {more} more there", waits(*reason)),
            },
        }
    }

    /// The body that is told: stable. Paths that are no UTF-8 have replacement characters in them.
    pub fn json(&self, version: &str) -> String {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("event", json!(self.word()));
        put("text", json!(self.text()));
        put("at", json!(self.at()));
        match self {
            Self::Ended(ended) => {
                put("drop", path(ended.place.folder.join(&ended.place.name).as_path()));
                put("folder", path(folder(&ended.place)));
                put("drop_id", json!(ended.id.to_string()));
                put("ending", json!(ended.ending.label()));
                put("reason", json!(self.reason()));
                put("results", self.results().map(path).collect());
                put("originals", ended.originals.iter().map(|p| path(p)).collect());
                put("note", ended.note.as_deref().map_or(Value::Null, path));
                let shots = ended.shots.iter().map(|shot| {
                    json!({
                        "result": shot.result.as_deref().map(path),
                        "seed": shot.seed,
                        "billed": shot.billed.to_string(),
                        "cost": shot.cost,
                        "request_id": shot.request_id.as_deref().map(plain),
                    })
                });
                put("shots", shots.collect());
                put("cost", json!(ended.cost()));
            }
            Self::Paused { pause, .. } | Self::Resumed { pause, .. } => {
                put("kind", json!(pause.kind));
                put("reason", json!(self.reason()));
                put("since", json!(pause.since));
                if matches!(self, Self::Paused { .. }) {
                    put("until", json!(pause.until));
                }
            }
            Self::Waiting { place, reason, since, others, .. } => {
                put("drop", path(place.folder.join(&place.name).as_path()));
                put("folder", path(folder(place)));
                put("waits_for", json!(reason.label()));
                put("reason", json!(self.reason()));
                put("since", json!(since));
                put("others", json!(others));
            }
        }
        put("version", json!(version));
        Value::Object(map).to_string()
    }

    /// The variables that are told: stable. Paths are exact, whatever bytes they hold; what has no value is not
    /// there.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut out: Vec<(&'static str, OsString)> = vec![
            ("REIMAGINED_EVENT", self.word().into()),
            ("REIMAGINED_TEXT", self.text().into()),
            ("REIMAGINED_AT", self.at().to_string().into()),
        ];
        let mut put = |name, value: Option<OsString>| out.extend(value.map(|value| (name, value)));
        if self.place().is_some() {
            put("REIMAGINED_DROP", Some(self.value(Name::Drop)));
            put("REIMAGINED_FOLDER", Some(self.value(Name::Folder)));
        }
        put("REIMAGINED_REASON", self.reason().map(OsString::from));
        match self {
            Self::Ended(ended) => {
                put("REIMAGINED_DROP_ID", Some(ended.id.to_string().into()));
                put("REIMAGINED_ENDING", Some(ended.ending.label().into()));
                put("REIMAGINED_RESULT", self.results().next().map(OsString::from));
                put("REIMAGINED_NOTE", ended.note.clone().map(PathBuf::into_os_string));
                put("REIMAGINED_COST", ended.cost().map(|cost| cost.to_string().into()));
            }
            Self::Paused { pause, .. } | Self::Resumed { pause, .. } => {
                put("REIMAGINED_KIND", Some(pause.kind.into()));
                put("REIMAGINED_SINCE", Some(pause.since.to_string().into()));
                if matches!(self, Self::Paused { .. }) {
                    put("REIMAGINED_UNTIL", pause.until.map(|until| until.to_string().into()));
                }
            }
            Self::Waiting { reason, since, others, .. } => {
                put("REIMAGINED_WAITS_FOR", Some(reason.label().into()));
                put("REIMAGINED_SINCE", Some(since.to_string().into()));
                put("REIMAGINED_OTHERS", Some(others.to_string().into()));
            }
        }
        out
    }

    /// One value, as it stands in an argument; empty where the event has none.
    pub(super) fn value(&self, name: Name) -> OsString {
        match name {
            Name::Event => self.word().into(),
            Name::Text => self.text().into(),
            Name::Reason => self.reason().unwrap_or_default().into(),
            Name::Drop => self.place().map(|p| p.folder.join(&p.name).as_path().into()).unwrap_or_default(),
            Name::Folder => match self.place() {
                Some(place) => folder(place).into(),
                None => OsString::new(),
            },
            Name::Result | Name::Results => self.results().next().map(OsString::from).unwrap_or_default(),
            Name::Note => match self {
                Self::Ended(ended) => ended.note.clone().map(PathBuf::into_os_string).unwrap_or_default(),
                _ => OsString::new(),
            },
        }
    }
}

/// What a drop waits for, and what to do.
fn waits(reason: Reason) -> &'static str {
    match reason {
        Reason::Prompt => "waits for a prompt: put one into a .txt of its name, or into a preset.toml",
        Reason::Image => "waits for its picture: put one of its name beside it",
        Reason::Sidecar => "waits for its sidecar: put a .txt of its name beside it",
        other => other.words(),
    }
}

/// Never empty.
fn folder(place: &Place) -> &Path {
    if place.folder.is_root() { Path::new(".") } else { place.folder.as_path() }
}

fn path(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

/// A reason on one line, of a bounded length, without control characters and addresses.
fn plain(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let safe = show_text(&without_addresses(&one_line));
    match safe.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &safe[..end]),
        None => safe,
    }
}

/// What was quoted from an answer was redacted when it was read. This is the second lock: whatever has a scheme,
/// or is inline data, is left out.
fn without_addresses(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '|');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let scheme = rest[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'));
        out.push_str(scheme);
        out.push_str("[address]");
        let behind = &rest[at + 3..];
        let end = behind.find(ends).unwrap_or(behind.len());
        rest = &behind[behind[..end].trim_end_matches(['.', ',', ';', ':', ')', ']', '!', '…']).len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
pub(super) mod samples {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::domain::ids::{DropId, RelPath};
    use crate::domain::news::EndedShot;
    use crate::domain::verdict::Billed;

    fn place(path: &str) -> Place {
        let path = RelPath::new(path).unwrap();
        Place { folder: path.parent().unwrap(), name: path.name().unwrap().to_owned() }
    }

    pub(in crate::domain::hooks) fn done(drop: &str, results: &[&str]) -> Event {
        let shot = |result: &&str| EndedShot {
            result: Some(result.into()),
            seed: Some(7),
            billed: Billed::Yes,
            cost: Some(0.04),
            request_id: Some("r-1".into()),
        };
        Event::Ended(Box::new(EndedDrop {
            id: DropId([0xab; 16]),
            place: place(drop),
            ending: Ending::Done,
            reason: None,
            originals: vec![Path::new("/archive").join(drop)],
            note: None,
            shots: results.iter().map(shot).collect(),
            at: Timestamp::UNIX_EPOCH,
        }))
    }

    pub(in crate::domain::hooks) fn failed(drop: &str, reason: &str) -> Event {
        Event::Ended(Box::new(EndedDrop {
            id: DropId([0xcd; 16]),
            place: place(drop),
            ending: Ending::Unconfirmed,
            reason: Some(reason.into()),
            originals: vec![Path::new("/errors").join(drop)],
            note: Some(Path::new("/errors").join(drop).with_extension("error.txt")),
            shots: Vec::new(),
            at: Timestamp::UNIX_EPOCH,
        }))
    }

    pub(in crate::domain::hooks) fn waiting(drop: &str, reason: Reason, others: usize) -> Event {
        let (at, since) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        Event::Waiting { at, place: place(drop), reason, since, others }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::samples::{done, failed, waiting};
    use super::*;
    use crate::domain::ids::RelPath;

    fn pause() -> Pause {
        let (since, until) = (Timestamp::UNIX_EPOCH, None);
        Pause { kind: "credits", reason: "out of credits: see https://x.example/a?b".into(), since, until }
    }

    fn all() -> [Event; 5] {
        let at = Timestamp::UNIX_EPOCH;
        [
            done("look/a.jpg", &["/out/look/a-7.png", "/out/look/a-8.png"]),
            failed("b.jpg", "the answer broke off"),
            Event::Paused { at, pause: pause() },
            Event::Resumed { at, pause: pause() },
            waiting("look/c.jpg", Reason::Prompt, 2),
        ]
    }

    #[test]
    fn the_line_for_people_says_it() {
        let lines = all().map(|event| event.text());
        assert_eq!(
            lines,
            [
                "look/a.jpg is done: 2 pictures, $0.08",
                "b.jpg is in errors: the answer broke off",
                "paused: out of credits: see [address]",
                "going on: the pause is over (out of credits: see [address])",
                "look/c.jpg waits for a prompt: put one into a .txt of its name, or into a preset.toml; and 2 more there",
            ]
        );
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let keys = all().map(|event| {
            let value: Value = serde_json::from_str(&event.json("1.2.3")).unwrap();
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        });
        let ended = "event text at drop folder drop_id ending reason results originals note shots cost version";
        let paused = "event text at kind reason since until version";
        let resumed = "event text at kind reason since version";
        let waiting = "event text at drop folder waits_for reason since others version";
        assert_eq!(keys, [ended, ended, paused, resumed, waiting]);
    }

    #[test]
    fn each_event_has_its_word_and_its_occasion() {
        let words = all().map(|event| (event.word(), event.on()));
        let (d, f, p, w) = (On::Done, On::Failed, On::Paused, On::Waiting);
        assert_eq!(words, [("done", d), ("failed", f), ("paused", p), ("resumed", p), ("waiting", w)]);
    }

    #[test]
    fn names_that_are_no_utf8_are_exact_in_the_environment() {
        let name = OsStr::from_bytes(b"\xff\n.jpg");
        let Event::Ended(mut ended) = done("x/a.jpg", &["/out/a.png"]) else { unreachable!() };
        ended.place = Place { folder: RelPath::root(), name: name.to_owned() };
        ended.shots[0].result = Some(Path::new("/out").join(name));
        let event = Event::Ended(ended);
        let variables = event.variables();
        let value = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).unwrap().1.as_bytes();
        assert_eq!(value("REIMAGINED_DROP"), b"\xff\n.jpg");
        assert_eq!(value("REIMAGINED_FOLDER"), b".");
        assert_eq!(value("REIMAGINED_RESULT"), b"/out/\xff\n.jpg");
        let value: Value = serde_json::from_str(&event.json("1")).unwrap();
        assert_eq!(value["results"][0], "/out/\u{fffd}\n.jpg");
        assert!(value["text"].as_str().unwrap().starts_with("\u{fffd}\\n.jpg is done"), "{value}");
    }

    #[test]
    fn no_address_and_no_end_of_line_is_left_in_a_reason() {
        for (text, want) in [
            ("can't fetch https://a.example/u%40x?s=1.", "can't fetch [address]."),
            ("HTTPS://A/b", "[address]"),
            ("(s3+x://y/z)", "([address])"),
            ("two\nlines\u{0}", "two lines\\u{0}"),
            ("://", "[address]"),
            ("a:// b://c d", "[address] [address] d"),
        ] {
            assert_eq!(plain(text), want, "{text}");
        }
        assert_eq!(plain(&"é".repeat(5_000)).chars().count(), LONGEST_REASON + 1);
    }

    proptest::proptest! {
        #[test]
        fn any_reason_is_told_without_a_scheme(a in ".{0,60}", b in ".{0,60}") {
            let told = plain(&format!("{a}https://host/secret{b}"));
            proptest::prop_assert!(!told.contains("://") && !told.contains("secret"), "{told}");
        }
    }
}
