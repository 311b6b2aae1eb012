//! Names of what comes out: templates, numbers for taken names, shortening, comparing ignoring case.
//!
//! Promises: every name made here is one component of at most [`MAX_BYTES`] bytes, is never empty, `.` or
//! `..`, holds no `/` and no NUL, and keeps its suffix (number and extension). Different numbers give
//! different names. Does not look at any folder: which names are taken is an argument.

mod template;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use unicode_normalization::UnicodeNormalization as _;

pub use template::{Parts, Template, TemplateError};

/// The longest name that filesystems take, in bytes.
pub const MAX_BYTES: usize = 255;

/// Behind the stem of a provenance file.
pub const PROVENANCE_SUFFIX: &str = ".reimagined.json";

/// Behind the stem of an error note.
pub const NOTE_SUFFIX: &str = ".error.txt";

/// The stem of the set that a note of this name is about; `None` if it has not the name of a note.
pub fn stem_of_note(name: &OsStr) -> Option<OsString> {
    let (bytes, end) = (name.as_bytes(), NOTE_SUFFIX.as_bytes());
    let (stem, suffix) = bytes.split_at_checked(bytes.len().checked_sub(end.len())?)?;
    (!stem.is_empty() && suffix.eq_ignore_ascii_case(end)).then(|| OsStr::from_bytes(stem).to_os_string())
}

/// A longer suffix is no extension that anybody relies on: it is shortened together with the stem.
const MAX_SUFFIX: usize = 128;

/// `~` and eight hexadecimal digits.
const HASH_BYTES: usize = 9;

/// `name` for comparing ignoring case: NFC, lower case. What is not UTF-8 is kept as it is, so two names
/// that differ in such bytes stay different.
pub fn fold(name: &OsStr) -> OsString {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let mut out = Vec::with_capacity(name.len());
    for chunk in name.as_bytes().utf8_chunks() {
        let lower = chunk.valid().nfc().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c });
        out.extend(lower.nfc().collect::<String>().into_bytes());
        out.extend_from_slice(chunk.invalid());
    }
    OsString::from_vec(out)
}

/// The name of number `n` of a stem: `stem` + `suffix` for 1, `stem (n)` + `suffix` above. Where that is too
/// long, the stem is cut at a character and gets `~` and eight digits of its hash; the number and the suffix
/// stay.
pub fn numbered(stem: &OsStr, n: u32, suffix: &OsStr) -> OsString {
    numbered_with_room(stem, n, suffix, suffix.len())
}

/// [`numbered`], leaving room for a suffix of `reserve` bytes, so that members of a set whose suffixes have
/// different lengths are cut at the same place.
fn numbered_with_room(stem: &OsStr, n: u32, suffix: &OsStr, reserve: usize) -> OsString {
    if suffix.len() > MAX_SUFFIX {
        let mut whole = stem.to_os_string();
        whole.push(suffix);
        return numbered(&whole, n, OsStr::new(""));
    }
    let stem = harmless(stem);
    let number = if n <= 1 { String::new() } else { format!(" ({n})") };
    let tail = number.len() + suffix.len().max(reserve.min(MAX_SUFFIX));
    let mut name = if stem.len() + tail <= MAX_BYTES {
        stem
    } else {
        let hash = blake3::hash(&stem);
        let mut short = cut(&stem, MAX_BYTES - HASH_BYTES - tail).to_vec();
        short.push(b'~');
        short.extend(hash.as_bytes()[..4].iter().flat_map(|b| format!("{b:02x}").into_bytes()));
        short
    };
    name.extend(number.into_bytes());
    name.extend(harmless_bytes(suffix.as_bytes()));
    match name.as_slice() {
        b"" | b"." | b".." => OsString::from(format!("_{}", String::from_utf8_lossy(&name))),
        _ => OsString::from_vec(name),
    }
}

/// What can't stand in a name is replaced.
fn harmless(text: &OsStr) -> Vec<u8> {
    harmless_bytes(text.as_bytes())
}

fn harmless_bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|b| if matches!(b, b'/' | 0) { b'-' } else { *b }).collect()
}

/// At most `limit` bytes of `bytes`, not ending within a character.
fn cut(bytes: &[u8], limit: usize) -> &[u8] {
    let mut end = 0;
    for chunk in bytes.utf8_chunks() {
        let lengths = chunk.valid().chars().map(char::len_utf8).chain(chunk.invalid().iter().map(|_| 1));
        for length in lengths {
            if end + length > limit {
                return &bytes[..end];
            }
            end += length;
        }
    }
    bytes
}

/// The smallest number from 1 that is not taken, where looking can fail.
pub fn try_first_free<E>(mut taken: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
    let mut n = 1;
    while n < u32::MAX && taken(n)? {
        n += 1;
    }
    Ok(n)
}

/// The result's name: the rendered template, the number, the extension (without its dot). With provenance beside it, a
/// long one is cut where that is.
pub fn result_name(rendered: &OsStr, n: u32, extension: &str, with_provenance: bool) -> OsString {
    let reserve = if with_provenance { PROVENANCE_SUFFIX.len() } else { 0 };
    numbered_with_room(rendered, n, OsStr::new(&format!(".{extension}")), reserve)
}

/// The provenance file's name, beside [`result_name`].
pub fn provenance_name(rendered: &OsStr, n: u32) -> OsString {
    numbered(rendered, n, OsStr::new(PROVENANCE_SUFFIX))
}

/// A drop's own names, and what they become when the set gets a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetNames {
    stem: OsString,
    members: Vec<(OsString, OsString)>,
    reserve: usize,
}

impl SetNames {
    /// The set of a drop with this stem (`terrace`) and these members (`terrace.jpg`, `Terrace.TXT`,
    /// `terrace.jpg.txt`). A member's stem is what equals the drop's stem ignoring case.
    pub fn new<I, S>(stem: &OsStr, members: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let members: Vec<_> = members.into_iter().map(|name| split(stem, name.as_ref())).collect();
        let longest = members.iter().map(|(_, suffix)| suffix.len()).filter(|length| *length <= MAX_SUFFIX).max();
        Self { stem: stem.to_os_string(), members, reserve: longest.unwrap_or(0).max(NOTE_SUFFIX.len()) }
    }

    /// The members' names for number `n`, in the order in which they were given; 1 leaves each as it is.
    pub fn members(&self, n: u32) -> Vec<OsString> {
        self.members
            .iter()
            .map(|(stem, suffix)| {
                if n <= 1 {
                    return numbered(stem, 1, suffix);
                }
                let room = format!(" ({n})").len() + self.reserve;
                // A cut stem is spelt alike in all members: they would not be found to belong together else.
                let spelt = if self.longest_stem() + room > MAX_BYTES { &self.stem } else { stem };
                let reserve = if self.longest_stem() + room > MAX_BYTES { self.reserve } else { 0 };
                numbered_with_room(spelt, n, suffix, reserve)
            })
            .collect()
    }

    /// The error note's name for number `n`.
    pub fn note(&self, n: u32) -> OsString {
        numbered_with_room(&self.stem, n, OsStr::new(NOTE_SUFFIX), if n <= 1 { 0 } else { self.reserve })
    }

    fn longest_stem(&self) -> usize {
        self.members.iter().map(|(stem, _)| stem.len()).chain([self.stem.len()]).max().unwrap_or(0)
    }
}

/// A member's own stem and what stands behind it.
fn split(stem: &OsStr, name: &OsStr) -> (OsString, OsString) {
    let bytes = name.as_bytes();
    let wanted = fold(stem);
    let dots = bytes.iter().enumerate().filter(|(_, b)| **b == b'.').map(|(i, _)| i);
    let at = dots
        .chain([bytes.len()])
        .find(|at| fold(OsStr::from_bytes(&bytes[..*at])) == wanted)
        // Not of this stem at all: its last extension is kept.
        .or_else(|| bytes.iter().rposition(|b| *b == b'.').filter(|at| *at > 0))
        .unwrap_or(bytes.len());
    (OsStr::from_bytes(&bytes[..at]).to_os_string(), OsStr::from_bytes(&bytes[at..]).to_os_string())
}

#[cfg(test)]
mod tests;
