//! The secret that signs what is posted: read from a file that nobody else can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use secrecy::SecretString;

use crate::domain::ids::show;

/// Longer is no secret but a mistake. Bytes.
const LONGEST: u64 = 4096;

/// The secret in `path`, without the blank space around it. The file must belong to us or root, with nothing for
/// group and others, unless it lies in `credentials`, systemd's own folder. The error is for a person.
pub(super) fn read(path: &Path, credentials: Option<&Path>) -> Result<SecretString, String> {
    let name = show(path.as_os_str());
    let wrong = |what: &str| format!("the file of [hooks] webhook_secret_file, {name}, {what}");
    let io = |e: &io::Error| wrong(&format!("can't be read: {e}"));
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| io(&e))?;
    let facts = file.metadata().map_err(|e| io(&e))?;
    if !facts.is_file() {
        return Err(wrong("is no regular file: name a file that holds the secret alone"));
    }
    if !credentials.is_some_and(|folder| path.starts_with(folder)) {
        let us = rustix::process::geteuid().as_raw();
        // Root looks for the user of a service, whose it may be.
        if facts.uid() != us && facts.uid() != 0 && us != 0 {
            return Err(wrong(&format!("belongs to user {}, and this program runs as user {us}", facts.uid())));
        }
        if facts.mode() & 0o077 != 0 {
            let mode = facts.mode() & 0o777;
            return Err(wrong(&format!("can be used by others (mode {mode:03o}): chmod 600 {name}")));
        }
    }
    let text = text(file).map_err(|e| io(&e))?.ok_or_else(|| wrong("is no text, or over 4096 bytes long"))?;
    if text.trim().is_empty() {
        return Err(wrong("is empty"));
    }
    Ok(SecretString::from(text.trim()))
}

fn text(file: File) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|b| b.len() as u64 <= LONGEST).and_then(|b| String::from_utf8(b).ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn root_may_look_at_the_secret_of_a_services_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "s3cret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        }
        assert_eq!(read(&path, None).unwrap().expose_secret(), "s3cret");
    }

    #[test]
    fn a_secret_is_read_only_from_a_file_of_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let set = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(" s3cret\n", 0o600);
        assert_eq!(read(&path, None).unwrap().expose_secret(), "s3cret");
        set("s3cret", 0o640);
        assert!(read(&path, None).unwrap_err().contains("mode 640"));
        assert_eq!(read(&path, Some(dir.path())).unwrap().expose_secret(), "s3cret");
        for (text, word) in [(" \n", "empty"), (&"x".repeat(5000), "4096")] {
            set(text, 0o600);
            assert!(read(&path, None).unwrap_err().contains(word));
        }
        assert!(read(dir.path(), None).unwrap_err().contains("no regular file"));
        assert!(read(&dir.path().join("none"), None).unwrap_err().contains("can't be read"));
    }
}
