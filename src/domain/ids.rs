//! Names for things that must not be mixed up.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Identifies a drop for good: random, 128 bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DropId(pub [u8; 16]);

impl DropId {
    /// Reads what [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for DropId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for DropId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// The place of a shot in its drop, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShotNo(pub u32);

/// BLAKE3 of some bytes, 256 bits, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads what [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// A path below the inbox (and so below working, outbox, archive and errors): relative, without `.` and
/// `..`, any bytes but NUL. Empty means the inbox itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(PathBuf);

impl RelPath {
    /// The inbox itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// `path`, if it is relative and has no `..` in it; `.` components are dropped.
    pub fn new(path: impl AsRef<Path>) -> Option<Self> {
        let mut clean = PathBuf::new();
        for part in path.as_ref().components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(Self(clean))
    }

    /// `path` as it lies below `root`; `None` if it does not.
    pub fn below(root: &Path, path: &Path) -> Option<Self> {
        Self::new(path.strip_prefix(root).ok()?)
    }

    /// The path as bytes, for the ledger.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }

    /// Reads [`Self::as_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::new(Path::new(OsStr::from_bytes(bytes)))
    }

    /// The path, relative.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Whether this is the inbox itself.
    pub fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// One name further down. `name` must be a single component.
    #[must_use]
    pub fn join(&self, name: &OsStr) -> Self {
        Self(self.0.join(name))
    }

    /// The folder around this one; `None` for the inbox itself.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() { None } else { self.0.parent().map(|p| Self(p.to_path_buf())) }
    }

    /// The last component; `None` for the inbox itself.
    pub fn name(&self) -> Option<&OsStr> {
        self.0.file_name()
    }

    /// Where this lies under `root`.
    pub fn under(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(&self.0) }
    }

    /// From the inbox itself down to this folder, both included.
    pub fn chain(&self) -> Vec<Self> {
        let mut chain = vec![Self::root()];
        let mut at = PathBuf::new();
        for part in self.0.components() {
            at.push(part);
            chain.push(Self(at.clone()));
        }
        chain
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for RelPath {
    /// For people: control characters and broken UTF-8 are shown escaped or replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { f.write_str(&show(self.0.as_os_str())) }
    }
}

/// A file name or path for people, logs and notes: control characters are escaped (so that a name can't
/// write to a terminal or add a line to a note), broken UTF-8 is replaced.
pub fn show(name: &OsStr) -> String {
    show_text(&name.to_string_lossy())
}

/// [`show`] for text.
pub fn show_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unfit(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Whether a character must not stand raw where a person reads: controls (C0, C1, DEL), what turns the
/// direction of text or sets its marks, and Unicode's own ends of lines and paragraphs.
pub fn is_unfit(c: char) -> bool {
    let turns = matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// Where a dropped file lies: its folder and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The folder below the inbox.
    pub folder: RelPath,
    /// The name in that folder, one component.
    pub name: OsString,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.folder.is_root() {
            f.write_str(&show(&self.name))
        } else {
            write!(f, "{}/{}", self.folder, show(&self.name))
        }
    }
}

/// A moment of the monotonic clock: time since some moment before the process looked at anything. An
/// argument everywhere in the domain, so that rules can be tried without a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

impl std::ops::Add<Duration> for Mono {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Mono {
    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What tells one state of a file from another, as `lstat` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time, as [`Self::time`] makes it.
    pub mtime_ns: i64,
    /// Change time of the inode, as [`Self::time`] makes it.
    pub ctime_ns: i64,
}

impl Facts {
    /// A file's time as it is kept here: nanoseconds since 1970. Before 1678 and after 2262 (a file can be given any
    /// time) it wraps, so that two times of one file still differ.
    pub const fn time(seconds: i64, nanoseconds: i64) -> i64 {
        seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leaves_its_root() {
        for bad in ["/etc", "../x", "a/../b"] {
            assert_eq!(RelPath::new(bad), None, "{bad}");
        }
        assert_eq!(RelPath::new("./a/./b").map(|p| p.to_string()), Some("a/b".into()));
    }

    #[test]
    fn the_chain_goes_from_the_inbox_down() {
        let chain: Vec<_> = RelPath::new("a/b").into_iter().flat_map(|p| p.chain()).map(|p| p.to_string()).collect();
        assert_eq!(chain, [".", "a", "a/b"]);
    }

    #[test]
    fn what_is_shown_holds_no_control_characters() {
        assert_eq!(show(OsStr::new("a\n\u{1b}[31m")), "a\\n\\u{1b}[31m");
        assert_eq!(show_text("\u{9b}\u{7f}\u{202e}\u{200f}\u{2029}ü"), "\\u{9b}\\u{7f}\\u{202e}\\u{200f}\\u{2029}ü");
    }

    #[test]
    fn times_of_files_differ_however_odd_they_are() {
        assert_eq!(Facts::time(2, 3), 2_000_000_003);
        assert_eq!(Facts::time(-2, 999_999_999), -1_000_000_001);
        let far = 1 << 34;
        assert_ne!(Facts::time(far, 0), Facts::time(far, 1));
        assert_ne!(Facts::time(far, 0), Facts::time(far + 1, 0));
        assert_ne!(Facts::time(i64::MAX, 0), Facts::time(i64::MIN, 0));
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        let print = Fingerprint::of(b"x");
        assert_eq!(Fingerprint::parse(&print.to_string()), Some(print));
        assert_eq!(DropId::parse("zz"), None);
    }
}
