//! `NAME.error.txt`: why a drop ended in errors, what it cost, and how to try again.
//!
//! Written for a person: plain words, wrapped, control characters escaped. The text is rendered first, so
//! that its fingerprint can be committed before the file stands. A note that somebody edited is never taken
//! away. Blackens nothing: keys and asset URLs must be gone from the API's message before.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;

use super::durable::write_into;
use super::error::OutboxError;
use super::folder::Folder;
use super::publish::read_small;
use crate::domain::ids::{Fingerprint, RelPath, show_text};

const WIDTH: usize = 78;
const MESSAGE_CHARS: usize = 4000;

/// Whether a shot was billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billed {
    /// Surely not.
    No,
    /// Yes.
    Yes,
    /// Nobody knows.
    Unknown,
}

/// What a note says.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// When the drop ended. Freeze it with the drop's end: the same note must give the same text after a crash.
    pub when: jiff::Zoned,
    /// The drop, as a person knows it: `autumn-cafe/terrace.jpg`.
    pub label: String,
    /// Why, in plain words.
    pub reason: String,
    /// The API's own message, if there was one, with keys and asset URLs blacked out.
    pub api_message: Option<String>,
    /// Every shot of the drop.
    pub shots: Vec<NoteShot>,
    /// How to try again.
    pub try_again: String,
    /// Names of the results that were delivered all the same.
    pub delivered: Vec<String>,
}

/// What became of one shot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteShot {
    /// Its place, from 1.
    pub no: u32,
    /// Its seed, if it has one.
    pub seed: Option<i64>,
    /// In a few words: "refused by moderation", "delivered as terrace-7.png".
    pub outcome: String,
    /// Whether it was billed.
    pub billed: Billed,
    /// The service's id of the request, if it gave one.
    pub request_id: Option<String>,
    /// Where a picture that was billed but never received may still be had.
    pub url: Option<String>,
}

impl Note {
    /// The note's text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        wrap(&mut out, "", &format!("{} could not be finished.", self.label));
        section(&mut out, "Why", &self.reason);
        if let Some(message) = &self.api_message {
            let short: String = message.chars().take(MESSAGE_CHARS).collect();
            let dots = if short.len() < message.len() { " …" } else { "" };
            section(&mut out, "What the service said", &format!("{short}{dots}"));
        }
        if !self.shots.is_empty() {
            out.push_str("\nShots\n");
            for shot in &self.shots {
                shot_lines(&mut out, shot);
            }
        }
        if !self.delivered.is_empty() {
            section(&mut out, "Delivered all the same", &self.delivered.join("\n"));
        }
        section(&mut out, "To try again", &self.try_again);
        let _ = writeln!(out, "\n{}", self.when.strftime("%Y-%m-%d %H:%M:%S %:z"));
        out
    }
}

fn section(out: &mut String, title: &str, text: &str) {
    let _ = writeln!(out, "\n{title}");
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        wrap(out, "  ", line);
    }
}

fn shot_lines(out: &mut String, shot: &NoteShot) {
    let seed = shot.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
    let billed = match shot.billed {
        Billed::No => "no",
        Billed::Yes => "yes",
        Billed::Unknown => "unknown",
    };
    wrap(out, "  ", &format!("{}{seed}: {}; billed: {billed}", shot.no, shot.outcome));
    if let Some(id) = &shot.request_id {
        wrap(out, "     ", &format!("request id: {id}"));
    }
    if let Some(url) = &shot.url {
        wrap(out, "     ", &format!("billed, but never received; perhaps still at: {url}"));
    }
}

/// One paragraph, broken at blanks; a longer word (a URL) stays whole on a line of its own.
fn wrap(out: &mut String, indent: &str, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let word = show_text(word);
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.push_str(indent);
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += length;
    }
    out.push('\n');
}

/// Writes a note's text durably and answers with its fingerprint. The same text standing there already (from
/// before a crash) is fine; anything else there is [`OutboxError::Taken`].
pub fn write_note(errors: &Path, rel: &RelPath, name: &OsStr, text: &str) -> Result<Fingerprint, OutboxError> {
    let folder = Folder::made(errors, rel)?;
    let print = Fingerprint::of(text.as_bytes());
    match write_into(&folder, name, text.as_bytes()) {
        Err(e) if e.is_taken() => {
            if !holds(&folder, name, print)? {
                return Err(e);
            }
            folder.sync()?;
            Ok(print)
        }
        done => done,
    }
}

/// Removes a note if it is the one that we wrote, by its recorded fingerprint; whether it did. `root` is
/// errors, or the inbox if it was brought along.
pub fn take_away_if_ours(root: &Path, rel: &RelPath, name: &OsStr, print: Fingerprint) -> Result<bool, OutboxError> {
    let Some(folder) = Folder::existing(root, rel)? else { return Ok(false) };
    if !holds(&folder, name, print)? {
        return Ok(false);
    }
    let removed = folder.remove(name)?;
    folder.sync()?;
    Ok(removed)
}

fn holds(folder: &Folder, name: &OsStr, print: Fingerprint) -> Result<bool, OutboxError> {
    Ok(read_small(folder, name)?.is_some_and(|bytes| Fingerprint::of(&bytes) == print))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn sample() -> Note {
        Note {
            when: "2026-11-23T14:02:11+01:00[Europe/Berlin]".parse().unwrap(),
            label: "autumn-cafe/terrace.jpg".into(),
            reason: "The service refused this request: its moderation did not like the prompt, or the picture that \
                     came with it."
                .into(),
            api_message: Some("Prompt\u{1b}[31m rejected\nby moderation".into()),
            shots: vec![
                NoteShot {
                    no: 1,
                    seed: Some(7),
                    outcome: "delivered as terrace-7.png".into(),
                    billed: Billed::Yes,
                    request_id: Some("r-1".into()),
                    url: None,
                },
                NoteShot {
                    no: 2,
                    seed: None,
                    outcome: "not received".into(),
                    billed: Billed::Unknown,
                    request_id: None,
                    url: Some(format!("https://example.com/{}", "a".repeat(90))),
                },
            ],
            try_again: "Change the prompt, then run `reimagined retry`.\nOr drop it again.".into(),
            delivered: vec!["terrace-7.png".into()],
        }
    }

    #[test]
    fn a_note_reads_well() {
        let wanted = format!(
            "\
autumn-cafe/terrace.jpg could not be finished.

Why
  The service refused this request: its moderation did not like the prompt, or
  the picture that came with it.

What the service said
  Prompt\\u{{1b}}[31m rejected
  by moderation

Shots
  1, seed 7: delivered as terrace-7.png; billed: yes
     request id: r-1
  2: not received; billed: unknown
     billed, but never received; perhaps still at:
     https://example.com/{}

Delivered all the same
  terrace-7.png

To try again
  Change the prompt, then run `reimagined retry`.
  Or drop it again.

2026-11-23 14:02:11 +01:00
",
            "a".repeat(90)
        );
        assert_eq!(sample().text(), wanted);
    }

    #[test]
    fn an_edited_note_stays_and_an_unedited_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (rel, name) = (RelPath::new("a").unwrap(), OsStr::new("x.error.txt"));
        let text = sample().text();
        let print = write_note(dir.path(), &rel, name, &text).unwrap();
        assert_eq!(write_note(dir.path(), &rel, name, &text).unwrap(), print, "again after a crash");
        assert!(write_note(dir.path(), &rel, name, "other").unwrap_err().is_taken());
        fs::write(dir.path().join("a/x.error.txt"), format!("{text}mine")).unwrap();
        assert!(!take_away_if_ours(dir.path(), &rel, name, print).unwrap());
        fs::write(dir.path().join("a/x.error.txt"), &text).unwrap();
        assert!(take_away_if_ours(dir.path(), &rel, name, print).unwrap());
        assert!(!take_away_if_ours(dir.path(), &rel, name, print).unwrap());
        assert!(!dir.path().join("a/x.error.txt").exists());
    }
}
