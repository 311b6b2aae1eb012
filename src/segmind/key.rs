//! The API key: where it comes from, and a type that shows it to nobody.
//!
//! The key is read afresh whenever [`KeySource::read`] is called, so that it can be changed while the daemon
//! runs. Errors say what to do; none of them holds the key.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// The name of the systemd credential.
pub const CREDENTIAL: &str = "segmind-api-key";

/// The environment variable that may hold the key.
pub const VARIABLE: &str = "SEGMIND_API_KEY";

const MAX_FILE: u64 = 64 * 1024;
const MAX_KEY: usize = 4096;

/// The key. Its `Debug` shows nothing, and it has no `Display`.
#[derive(Clone)]
pub struct ApiKey(SecretString);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl ApiKey {
    /// `text` without the blank space around it. Refuses what cannot be a key: nothing at all, blanks, line
    /// breaks and control characters inside, anything but ASCII. `from` says where the text stood.
    pub fn new(text: &str, from: &str) -> Result<Self, KeyError> {
        let wrong = |what| KeyError::NoKey { from: from.to_owned(), what };
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(wrong("is empty"));
        }
        if text.lines().nth(1).is_some() {
            return Err(wrong("has more than one line"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("has a character in it that no key has (a blank, a control character or not ASCII)"));
        }
        if text.len() > MAX_KEY {
            return Err(wrong("is too long for a key"));
        }
        Ok(Self(SecretString::from(text)))
    }

    /// The key itself; only for the header and for blacking it out.
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Writes it as a line of its own, for a file that [`KeySource::read`] takes: who may read that is the caller's.
    pub fn write_to(&self, to: &mut dyn io::Write) -> io::Result<()> {
        to.write_all(self.expose().as_bytes())?;
        to.write_all(b"\n")
    }

    /// The value of `x-api-key`, marked so that nobody logs it. `None` never happens for a key that
    /// [`Self::new`] accepted.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// Nothing names one.
    #[error(
        "there is no API key: put it into a file of your own and name it as `key_file` in [api] \
         (chmod 600 FILE), or set {VARIABLE}, or give the service the systemd credential `{CREDENTIAL}`"
    )]
    Missing,
    /// What was found is none.
    #[error("the API key in {from} {what}: write the key alone there, on one line")]
    NoKey {
        /// Where it stood.
        from: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Others could read it.
    #[error(
        "the key file {} can be used by others (mode {mode:03o}): `chmod 600 {}`, and change the key if others use this machine",
        path.display(), path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is somebody else's.
    #[error(
        "the key file {} belongs to user {owner}, and this program runs as user {us}: `chown {us} {}`",
        path.display(), path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// A directory, a pipe, or larger than any key.
    #[error("{} {what}: name a file that holds the key alone", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read the API key from {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl KeyError {
    /// Whether what is there is wrong for whoever reads it, and not just missing or another user's.
    pub fn is_a_mistake(&self) -> bool {
        matches!(self, Self::NoKey { .. } | Self::TooOpen { .. } | Self::Unfit { .. })
    }
}

/// Where the key comes from; the first that is there counts.
#[derive(Clone, Debug, Default)]
pub struct KeySource {
    /// `$CREDENTIALS_DIRECTORY`; the credential in it counts whatever its mode.
    pub credentials_directory: Option<PathBuf>,
    /// What `$SEGMIND_API_KEY` held at start (the caller takes it out of the environment).
    pub variable: Option<SecretString>,
    /// `[api] key_file`: must belong to us or root, with nothing for group and others.
    pub key_file: Option<PathBuf>,
}

impl KeySource {
    /// Reads the key as it is now. Blocks on the disk.
    pub fn read(&self) -> Result<ApiKey, KeyError> {
        if let Some(path) = self.credentials_directory.as_ref().map(|dir| dir.join(CREDENTIAL)) {
            match open(&path) {
                Ok(file) => return read(file, &path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(KeyError::Io { path, source }),
            }
        }
        if let Some(text) = self.variable.as_ref().map(ExposeSecret::expose_secret) {
            // An empty variable is how many a unit and shell unset one.
            if !text.trim().is_empty() {
                return ApiKey::new(text, &format!("${VARIABLE}"));
            }
        }
        let Some(path) = &self.key_file else { return Err(KeyError::Missing) };
        let file = open(path).map_err(|source| KeyError::Io { path: path.clone(), source })?;
        let facts = file.metadata().map_err(|source| KeyError::Io { path: path.clone(), source })?;
        if facts.is_file() {
            let us = rustix::process::geteuid().as_raw();
            if facts.uid() != us && facts.uid() != 0 {
                return Err(KeyError::Foreign { path: path.clone(), owner: facts.uid(), us });
            }
            if facts.mode() & 0o077 != 0 {
                return Err(KeyError::TooOpen { path: path.clone(), mode: facts.mode() & 0o777 });
            }
        }
        read(file, path)
    }
}

/// Opens without waiting, so that a pipe in the key's place does not hang the daemon.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

fn read(file: File, path: &Path) -> Result<ApiKey, KeyError> {
    let unfit = |what| KeyError::Unfit { path: path.to_path_buf(), what };
    let io = |source| KeyError::Io { path: path.to_path_buf(), source };
    if !file.metadata().map_err(io)?.is_file() {
        return Err(unfit("is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unfit("is larger than any key"));
    }
    let text = String::from_utf8(bytes).map_err(|_| unfit("is not text"))?;
    ApiKey::new(&text, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn read(source: &KeySource) -> Result<String, KeyError> {
        source.read().map(|key| key.expose().to_owned())
    }

    #[test]
    fn the_key_is_shown_by_nothing() {
        let key = ApiKey::new("SG_secret", "test").unwrap();
        assert!(!format!("{key:?}").contains("secret"));
        assert!(!format!("{:?}", key.header().unwrap()).contains("secret"));
        let source = KeySource { variable: Some("SG_secret".into()), ..KeySource::default() };
        assert!(!format!("{source:?}").contains("secret"));
        for bad in ["SG_secret two", "SG_secret\nSG_other", "SG_secret\u{7}x", "SG_secretä"] {
            let error = ApiKey::new(bad, "test").unwrap_err();
            assert!(!format!("{error} {error:?}").contains("SG_"), "{bad:?}");
        }
    }

    #[test]
    fn blank_space_around_the_key_is_taken_off() {
        for text in ["K", " K\n", "\u{feff}K\r\n", "\tK\n\n"] {
            assert_eq!(ApiKey::new(text, "test").unwrap().expose(), "K", "{text:?}");
        }
        for text in ["", " \n", "\u{feff}"] {
            assert!(ApiKey::new(text, "test").is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_credential_beats_the_variable_and_the_variable_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = KeySource {
            credentials_directory: Some(dir.path().to_path_buf()),
            variable: Some("from-variable".into()),
            key_file: Some(file(dir.path(), "key", "from-file\n", 0o600)),
        };
        assert_eq!(read(&source).unwrap(), "from-variable");
        file(dir.path(), CREDENTIAL, "from-credential\n", 0o444);
        assert_eq!(read(&source).unwrap(), "from-credential");
        source.credentials_directory = None;
        source.variable = Some("  ".into());
        assert_eq!(read(&source).unwrap(), "from-file");
        source.key_file = None;
        assert!(matches!(source.read(), Err(KeyError::Missing)));
    }

    #[test]
    fn a_key_file_must_be_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, good) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o601, false)]
        {
            let path = file(dir.path(), "key", "K", mode);
            let source = KeySource { key_file: Some(path.clone()), ..KeySource::default() };
            match source.read() {
                Ok(_) => assert!(good, "{mode:o}"),
                Err(error) => {
                    assert!(!good, "{mode:o}");
                    assert!(error.to_string().contains("chmod 600"), "{error}");
                }
            }
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_file_is_refused_without_hanging() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let big = file(dir.path(), "big", &"k".repeat(70_000), 0o600);
        for path in [pipe, big, dir.path().to_path_buf()] {
            let source = KeySource { key_file: Some(path), ..KeySource::default() };
            assert!(matches!(source.read(), Err(KeyError::Unfit { .. })), "{source:?}");
        }
        let source = KeySource { key_file: Some(dir.path().join("none")), ..KeySource::default() };
        assert!(matches!(source.read(), Err(KeyError::Io { .. })));
    }

    #[test]
    fn a_changed_key_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "key", "one", 0o600);
        let source = KeySource { key_file: Some(path.clone()), ..KeySource::default() };
        assert_eq!(read(&source).unwrap(), "one");
        fs::write(path, "two").unwrap();
        assert_eq!(read(&source).unwrap(), "two");
    }
}
