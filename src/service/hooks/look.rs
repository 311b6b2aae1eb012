//! Looks whether hooks can work on this machine, before anything has to be told.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, access};
use tokio::sync::Semaphore;

use super::{programs, secret};
use crate::domain::hooks::{Command, Settings};
use crate::domain::ids::show;

/// What is wrong with programs and the secret, each in words for a person. Blocks on the disk.
pub fn problems(settings: &Settings, credentials: Option<&Path>) -> Vec<String> {
    let mut out: Vec<String> = settings
        .programs
        .iter()
        .filter_map(|(on, command)| Some(format!("[hooks] {}: {}", on.key(), trouble(command)?)))
        .collect();
    if let Some(file) = settings.webhook.as_ref().and_then(|webhook| webhook.secret_file.as_deref()) {
        out.extend(secret::read(file, credentials).err());
    }
    out
}

/// Logs them: they may pass before anything is to be told. Nobody waits for that, as a disk may hang; while it does,
/// nothing is looked at again (`looks`).
pub(super) fn complain(settings: &Settings, credentials: Option<&Path>, looks: &Arc<Semaphore>) {
    let Ok(look) = looks.clone().try_acquire_owned() else { return };
    let (settings, credentials) = (settings.clone(), credentials.map(Path::to_path_buf));
    tokio::task::spawn_blocking(move || {
        let _look = look;
        for problem in problems(&settings, credentials.as_deref()) {
            tracing::warn!("{problem}");
        }
    });
}

fn trouble(command: &Command) -> Option<String> {
    let name = show(command.program.as_os_str());
    if command.program.is_absolute() {
        return match std::fs::metadata(&command.program) {
            Err(e) => Some(format!("the program {name} can't be looked at: {e}")),
            Ok(facts) if !facts.is_file() => Some(format!("{name} is no program")),
            Ok(_) if access(&command.program, Access::EXEC_OK).is_err() => {
                Some(format!("{name} can't be executed by this user: chmod +x {name}"))
            }
            Ok(_) => None,
        };
    }
    let path = programs::path();
    let mut folders =
        path.as_bytes().split(|b| *b == b':').map(|folder| Path::new(std::ffi::OsStr::from_bytes(folder)));
    let there = |folder: &Path| {
        let program = folder.join(&command.program);
        program.is_file() && access(&program, Access::EXEC_OK).is_ok()
    };
    (!folders.any(there))
        .then(|| format!("there is no program {name} in PATH ({}): install it, or write its whole path", show(&path)))
}
