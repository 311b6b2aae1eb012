//! Keys that had another name in an earlier version: the old name is still read, and a warning says the new one.
//!
//! The table is an argument of whatever reads a file, so that a rename can be tried without one being there.

use super::problem::Problem;

/// The section of a key of presets, whether it stands in `[preset]`, in a `preset.toml` or in a sidecar.
pub(crate) const PRESET: &str = "preset";

/// One key that was renamed within its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renamed {
    /// Its section in the configuration; [`PRESET`] for the keys of presets and sidecars.
    pub(crate) section: &'static str,
    /// What it was called.
    pub(crate) old: &'static str,
    /// What it is called now.
    pub(crate) new: &'static str,
}

/// Every key that was ever renamed. An entry stays for as long as files of then may be about, which is for good.
pub(crate) const RENAMED: &[Renamed] = &[];

/// What the key `old` of `section` is called now, if it was renamed.
pub(crate) fn now_called(table: &[Renamed], section: &str, old: &str) -> Option<&'static str> {
    table.iter().find(|renamed| renamed.section == section && renamed.old == old).map(|renamed| renamed.new)
}

/// What is said of an old name that was read.
pub(crate) fn still_read(new: &str) -> String {
    format!("is called {new} by now: write that instead; the old name is still read")
}

/// What is said of an old name where the key stands under its new one, too.
pub(crate) fn given_twice(new: &str) -> String {
    format!("is the old name of {new}, which stands here too: give {new} alone")
}

/// What was read from a file, and what is to be said of it although it is good.
#[derive(Clone, Debug, PartialEq)]
pub struct Told<T> {
    /// What it says.
    pub value: T,
    /// In the order of the file: one line each, with file, line and key.
    pub warnings: Vec<Problem>,
}

impl<T> Told<T> {
    /// What there is nothing to say of.
    pub(crate) fn plainly(value: T) -> Self {
        Self { value, warnings: Vec::new() }
    }
}

#[cfg(test)]
#[path = "renamed_tests.rs"]
mod tests;
