//! A program and its arguments, in which an event's values stand for `{names}`.
//!
//! No shell reads them: each argument stays one argument whatever a file is called, and no value can become an
//! option.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::On;
use super::event::Event;

/// A value of an event that can stand in an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Event,
    Text,
    Drop,
    Folder,
    Reason,
    Result,
    Results,
    Note,
}

impl Name {
    const ALL: [(&'static str, Self); 8] = [
        ("event", Self::Event),
        ("text", Self::Text),
        ("drop", Self::Drop),
        ("folder", Self::Folder),
        ("reason", Self::Reason),
        ("result", Self::Result),
        ("results", Self::Results),
        ("note", Self::Note),
    ];

    /// Whether every event of this occasion has it.
    fn fits(self, on: On) -> bool {
        match self {
            Self::Event | Self::Text => true,
            Self::Drop | Self::Folder => on != On::Paused,
            Self::Reason => on != On::Done,
            Self::Result => on == On::Done,
            Self::Results => matches!(on, On::Done | On::Failed),
            Self::Note => on == On::Failed,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Name),
}

/// An argument: its parts, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arg(Vec<Part>);

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// An absolute path, or a name without `/` to be looked for in `PATH`.
    pub program: PathBuf,
    args: Vec<Arg>,
}

/// A name in braces that is none here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongName {
    /// Which argument, from 0.
    pub arg: usize,
    /// Words for a person.
    pub message: String,
    /// The name without its braces, to find the nearest of [`Command::names`].
    pub name: Option<String>,
}

impl Command {
    /// A command for `on`. Braces around anything but a single lower-case word are text.
    pub fn new(program: PathBuf, args: &[String], on: On) -> Result<Self, WrongName> {
        let args = args.iter().enumerate().map(|(i, text)| Arg::parse(text, i, on));
        Ok(Self { program, args: args.collect::<Result<_, _>>()? })
    }

    /// The names that may stand in braces for `on`.
    pub fn names(on: On) -> impl Iterator<Item = &'static str> {
        Name::ALL.into_iter().filter(move |(_, name)| name.fits(on)).map(|(word, _)| word)
    }

    /// The arguments for `event`.
    pub fn args(&self, event: &Event) -> Vec<OsString> {
        let mut out = Vec::with_capacity(self.args.len());
        for Arg(parts) in &self.args {
            match parts.as_slice() {
                [Part::Value(Name::Results)] => out.extend(event.results().map(|path| path.as_os_str().to_owned())),
                parts => out.push(filled(parts, event)),
            }
        }
        out
    }
}

fn filled(parts: &[Part], event: &Event) -> OsString {
    let mut bytes = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Part::Value(name) => {
                let value = event.value(*name);
                if i == 0 && value.as_bytes().starts_with(b"-") {
                    // A drop may be called anything; it is no option for that.
                    bytes.extend_from_slice(if matches!(name, Name::Drop | Name::Folder) { b"./" } else { b" " });
                }
                bytes.extend_from_slice(value.as_bytes());
            }
        }
    }
    OsString::from_vec(bytes)
}

impl Arg {
    fn parse(text: &str, arg: usize, on: On) -> Result<Self, WrongName> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            plain.push_str(&rest[..at]);
            let inner = rest[at + 1..].split_once('}').filter(|(word, _)| is_word(word));
            let Some((word, after)) = inner else {
                plain.push('{');
                rest = &rest[at + 1..];
                continue;
            };
            let wrong = |message: String, name: Option<String>| WrongName { arg, message, name };
            let known = Name::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, name)| name);
            let Some(name) = known.filter(|name| name.fits(on)) else {
                let all: Vec<String> = Command::names(on).map(|name| format!("{{{name}}}")).collect();
                let all = all.join(", ");
                return Err(if known.is_some() {
                    wrong(format!("{{{word}}} has no value here: for {} there are {all}", on.key()), None)
                } else {
                    wrong(format!("{{{word}}} is unknown: there are {all}"), Some(word.to_owned()))
                });
            };
            if name == Name::Results && text != "{results}" {
                return Err(wrong(
                    "{results} becomes one argument for each picture, so it must be an argument of its own".into(),
                    None,
                ));
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(name));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::hooks::event::samples;

    fn args(on: On, event: &Event, args: &[&str]) -> Vec<String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let command = Command::new("x".into(), &args, on).unwrap();
        command.args(event).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    fn refused(on: On, arg: &str) -> WrongName {
        Command::new("x".into(), &["fine".into(), arg.to_owned()], on).unwrap_err()
    }

    #[test]
    fn values_stand_in_for_their_names_and_stay_one_argument() {
        let done = samples::done("a look/b c.jpg", &["/out/1.png", "/out/2.png"]);
        assert_eq!(
            args(On::Done, &done, &["{event}", "{drop}", "in {folder}!", "{result}", "-n", "{results}", ""]),
            ["done", "a look/b c.jpg", "in a look!", "/out/1.png", "-n", "/out/1.png", "/out/2.png", ""]
        );
        let failed = samples::failed("x.jpg", "no\u{0} good");
        assert_eq!(args(On::Failed, &failed, &["{results}", "{note}"]), ["/errors/x.error.txt"]);
        assert_eq!(args(On::Failed, &failed, &["{reason}"]), ["no\\u{0} good"]);
    }

    #[test]
    fn braces_around_anything_else_are_text() {
        let done = samples::done("a.jpg", &["/out/1.png"]);
        for text in ["{", "}", "{}", "{ drop }", "{\"text\": \"x\"}", "{{", "{Drop}", "a{b"] {
            assert_eq!(args(On::Done, &done, &[text]), [text]);
        }
        assert_eq!(args(On::Done, &done, &["{{drop}}", "{\"d\": {drop}}"]), ["{a.jpg}", "{\"d\": a.jpg}"]);
    }

    #[test]
    fn no_name_of_a_file_becomes_an_option() {
        let done = samples::done("--help/-x.jpg", &["/out/-x.png"]);
        assert_eq!(
            args(On::Done, &done, &["{drop}", "{folder}", "{result}", "--title={drop}"]),
            ["./--help/-x.jpg", "./--help", "/out/-x.png", "--title=--help/-x.jpg"]
        );
        assert!(args(On::Done, &done, &["{text}"])[0].starts_with(" --help"));
    }

    #[test]
    fn a_name_that_is_wrong_or_has_no_value_is_refused() {
        let wrong = refused(On::Done, "{reslt}");
        assert_eq!((wrong.arg, wrong.name.as_deref()), (1, Some("reslt")));
        assert!(wrong.message.contains("{result}, {results}"), "{}", wrong.message);
        assert!(refused(On::Paused, "{drop}").message.contains("no value here: for on_paused there are {event}"));
        assert!(refused(On::Failed, "{result}").message.contains("{results}"));
        assert!(refused(On::Done, "x{results}").message.contains("of its own"));
    }
}
