//! Text that a person wrote, and places in it.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::problem::{Problem, Problems};

/// A text and its name.
#[derive(Clone, Copy)]
pub(crate) struct Document<'a> {
    /// The file for people.
    pub(crate) label: &'a str,
    /// Its text, without a BOM.
    pub(crate) text: &'a str,
}

impl<'a> Document<'a> {
    /// Reads `bytes` as UTF-8 and takes a BOM off.
    pub(crate) fn new(label: &'a str, bytes: &'a [u8]) -> Result<Self, Problems> {
        if bytes.len() as u64 > super::LONGEST_TEXT_BYTES {
            return Err(Problem::of_file(label, "is over 1 MiB, which is too long").into());
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { label, text: text.strip_prefix('\u{feff}').unwrap_or(text) }),
            Err(e) => {
                let good = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
                let (line, column) = place(good, good.len());
                let message = match bytes {
                    [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16: save it as UTF-8",
                    _ => "is not UTF-8 here: save it as UTF-8",
                };
                let problem = Problem::of_file(label, message);
                Err(Problem { line: Some(line), column: Some(column), ..problem }.into())
            }
        }
    }

    /// The line of the byte at `offset`, from 1.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        place(self.text, offset).0
    }

    /// A problem with `key` at the byte `offset`.
    pub(crate) fn problem(&self, offset: usize, key: Option<&str>, message: impl Into<String>) -> Problem {
        let (line, column) = place(self.text, offset);
        Problem {
            file: self.label.to_owned(),
            line: Some(line),
            column: Some(column),
            key: key.map(str::to_owned),
            message: message.into(),
            nearest: None,
        }
    }
}

/// Line and column of the byte at `offset`, both from 1. What lies behind the text counts as its end.
fn place(text: &str, offset: usize) -> (u32, u32) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = 1 + before.bytes().filter(|b| *b == b'\n').count();
    (line as u32, 1 + before[start..].chars().count() as u32)
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none, or not any more.
    #[error("{}: is not there", .0.display())]
    Missing(PathBuf),
    /// It is a symlink, a folder, a FIFO, a socket or a device: those are not read.
    #[error("{}: is no regular file, so it is not read", .0.display())]
    NotRegular(PathBuf),
    /// It is longer than the caller allows.
    #[error("{}: is over {limit} bytes, which is too long", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The bytes of a regular file of at most `limit` bytes. A symlink as the last component is not followed, and
/// nothing that could block is opened for reading.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|e| match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT) => ReadError::Missing(path.to_owned()),
        // A symlink; a socket, or a device without a driver.
        Some(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => ReadError::NotRegular(path.to_owned()),
        _ => io(e),
    })?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(ReadError::NotRegular(path.to_owned()));
    }
    read_at_most(&file, limit).map_err(io)?.ok_or_else(|| ReadError::TooLong { path: path.to_owned(), limit })
}

/// What is in `file`, or `None` if that is more than `limit` bytes. Its length is not believed: it may grow.
pub(crate) fn read_at_most(file: &File, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        for (text, offset, at) in
            [("", 0, (1, 1)), ("äb", 2, (1, 2)), ("äb", 1, (1, 1)), ("a\nb", 2, (2, 1)), ("a\n", 99, (2, 1))]
        {
            assert_eq!(place(text, offset), at, "{text:?} {offset}");
        }
    }

    #[test]
    fn text_that_is_no_utf8_is_refused_with_its_line() {
        let problems = Document::new("x", b"a\nb\xff").err().unwrap();
        assert_eq!(problems.to_string(), "x:2: is not UTF-8 here: save it as UTF-8");
        assert!(Document::new("x", b"\xff\xfea\0").err().unwrap().to_string().contains("UTF-16"));
        assert_eq!(Document::new("x", b"\xef\xbb\xbfa").unwrap().text, "a");
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("preset.toml");
        std::fs::write(&file, b"abc").unwrap();
        assert_eq!(read_limited(&file, 3).unwrap(), b"abc");
        assert!(matches!(read_limited(&file, 2), Err(ReadError::TooLong { limit: 2, .. })));
        assert!(matches!(read_limited(&dir.path().join("none"), 3), Err(ReadError::Missing(_))));
        assert!(matches!(read_limited(dir.path(), 3), Err(ReadError::NotRegular(_))));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(read_limited(&link, 3), Err(ReadError::NotRegular(_))));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(matches!(read_limited(&fifo, 3), Err(ReadError::NotRegular(_))));
    }
}
