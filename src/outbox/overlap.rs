//! Whether folders are one, or lie in one another, compared by device and inode of every ancestor.
//!
//! So neither symlinks nor spellings nor bind mounts of the very folders hide it. Parts that are not there
//! yet are compared by name. The one exception (`.working/` in the inbox) is the caller's.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::error::OutboxError;

/// How the first of two paths lies to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Both are one folder.
    Same,
    /// The first contains the second.
    Contains,
    /// The first lies in the second.
    Within,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Folder(u64, u64),
    Missing(OsString),
}

/// The first two of these paths that overlap, by their places in the list. Paths need not exist.
pub fn same_or_nested(paths: &[&Path]) -> Result<Option<(usize, usize, Overlap)>, OutboxError> {
    let steps = paths.iter().map(|path| steps(path)).collect::<Result<Vec<_>, _>>()?;
    for (i, first) in steps.iter().enumerate() {
        for (j, second) in steps.iter().enumerate().skip(i + 1) {
            let found = match (contains(first, second), contains(second, first)) {
                (true, true) => Overlap::Same,
                (true, false) => Overlap::Contains,
                (false, true) => Overlap::Within,
                (false, false) => continue,
            };
            return Ok(Some((i, j, found)));
        }
    }
    Ok(None)
}

/// Whether `outer` is `inner` or one of its ancestors.
fn contains(outer: &[Step], inner: &[Step]) -> bool {
    // What is there is told by its inode alone, wherever it was mounted; what is missing, by its names below
    // the last folder that is there.
    let known = outer.iter().rposition(|step| matches!(step, Step::Folder(..))).unwrap_or(0);
    let tail = &outer[known..];
    inner.windows(tail.len()).any(|window| window == tail)
}

/// From `/` down: the folders that are there, then the names that are not.
fn steps(path: &Path) -> Result<Vec<Step>, OutboxError> {
    let absolute = std::path::absolute(path).map_err(|e| OutboxError::new("look at", path, e))?;
    let (real, missing) = resolve(&absolute)?;
    let mut steps = Vec::new();
    let mut ancestors: Vec<_> = real.ancestors().collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let stat = rustix::fs::stat(ancestor).map_err(|e| OutboxError::new("look at", ancestor, e))?;
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the fields' types differ between machines")]
        steps.push(Step::Folder(stat.st_dev as u64, stat.st_ino as u64));
    }
    steps.extend(missing.into_iter().map(Step::Missing));
    Ok(steps)
}

/// The part of an absolute path that is there, without symlinks, and the names behind it.
fn resolve(absolute: &Path) -> Result<(PathBuf, Vec<OsString>), OutboxError> {
    let mut real = PathBuf::from("/");
    let mut missing: Vec<OsString> = Vec::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                if missing.pop().is_none() {
                    real.pop();
                }
            }
            Component::Normal(name) if missing.is_empty() => match real.join(name).canonicalize() {
                Ok(next) => real = next,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => missing.push(name.to_os_string()),
                Err(e) => return Err(OutboxError::new("look at", real.join(name), e)),
            },
            Component::Normal(name) => missing.push(name.to_os_string()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok((real, missing))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn overlaps_are_found_through_symlinks_and_before_folders_exist() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("inbox/sub")).unwrap();
        fs::create_dir_all(at("out")).unwrap();
        symlink(at("inbox"), at("alias")).unwrap();
        for (a, b, wanted) in [
            ("inbox", "out", None),
            ("inbox", "inbox-2", None),
            ("inbox", "alias", Some(Overlap::Same)),
            ("inbox", "alias/sub", Some(Overlap::Contains)),
            ("alias/new", "inbox", Some(Overlap::Within)),
            ("out/new", "out/new/deeper", Some(Overlap::Contains)),
            ("out/new", "out/../out/./new", Some(Overlap::Same)),
            ("out/new", "out/newer", None),
            ("none/a", "none/../out/a", None),
            ("inbox/a/new", "out/a/new", None),
        ] {
            let found = same_or_nested(&[&at("elsewhere"), &at(a), &at(b)]).unwrap();
            assert_eq!(found, wanted.map(|kind| (1, 2, kind)), "{a} {b}");
        }
    }
}
