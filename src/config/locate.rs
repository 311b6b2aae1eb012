//! Where the configuration and the state directory are.
//!
//! The environment is an argument, so that a command can be tried with any.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::settings::Config;

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

const PROGRAM: &str = "reimagined";
const FILE: &str = "config.toml";

/// There is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// Where it was looked for, in this order.
    pub looked: Vec<PathBuf>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no configuration (`reimagined init` writes one, --config names one); looked for ")?;
        for (i, path) in self.looked.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, crate::domain::ids::show(path.as_os_str()))?;
        }
        Ok(())
    }
}

impl std::error::Error for NotFound {}

/// The configuration file: `explicit` (`--config`), else `$REIMAGINED_CONFIG`, else the user's, else the
/// system's. One that was named must be there; nothing else is looked for then.
pub fn find(explicit: Option<&Path>, env: Env<'_>) -> Result<PathBuf, NotFound> {
    let named = explicit.map(Path::to_owned).or_else(|| set(env, "REIMAGINED_CONFIG").map(PathBuf::from));
    let looked = match named {
        Some(path) => vec![path],
        None => user_config(env)
            .into_iter()
            .chain(first_of(env, "CONFIGURATION_DIRECTORY").map(|dir| dir.join(FILE)))
            .chain([Path::new("/etc").join(PROGRAM).join(FILE)])
            .collect(),
    };
    // Whatever is there is taken, even if it can't be read: then reading it says why.
    let there = |path: &&PathBuf| !matches!(path.metadata(), Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory));
    looked.iter().find(there).cloned().ok_or(NotFound { looked })
}

/// Where the user's configuration belongs, whether it is there or not; `None` without a home directory.
pub fn user_config(env: Env<'_>) -> Option<PathBuf> {
    let dir = base(env, "XDG_CONFIG_HOME", ".config")?;
    Some(dir.join(PROGRAM).join(FILE))
}

/// The state directory: `[service] state_dir`, else `$STATE_DIRECTORY` (the first of several), else the user's;
/// `None` without a home directory.
pub fn state_dir(config: &Config, env: Env<'_>) -> Option<PathBuf> {
    config.service.state_dir.clone().or_else(|| first_of(env, "STATE_DIRECTORY")).or_else(|| state_home(env))
}

/// The user's own state directory; `None` without a home directory.
pub fn state_home(env: Env<'_>) -> Option<PathBuf> {
    Some(base(env, "XDG_STATE_HOME", ".local/state")?.join(PROGRAM))
}

/// `$HOME`, else what the system knows of the user.
pub fn home(env: Env<'_>) -> Option<PathBuf> {
    let home = set(env, "HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    // The crate takes a relative $HOME as it is, too.
    home.or_else(|| {
        directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()).filter(|home| home.is_absolute())
    })
}

/// A base directory as the XDG specification has it: a relative path in the variable counts as none.
fn base(env: Env<'_>, variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = set(env, variable).map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(home(env)?.join(below_home)))
}

fn set(env: Env<'_>, variable: &str) -> Option<OsString> {
    env(variable).filter(|value| !value.is_empty())
}

/// The first of the directories that systemd gives, separated by colons.
fn first_of(env: Env<'_>, variable: &str) -> Option<PathBuf> {
    let value = set(env, variable)?;
    let first = value.as_bytes().split(|b| *b == b':').find(|part| !part.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(first.to_vec())))
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
