//! systemd's own programs: found in the system's folders, never by `$PATH`, and run with little around them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::args::Whose;
use super::super::exit::Failure;
use super::super::setup;

/// Where systemd's programs are. The last is NixOS's.
const FOLDERS: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin"];

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    args: Vec<String>,
}

impl Program {
    /// Finds it; that it is not there is said before anything is done.
    pub(super) fn find<A: AsRef<str>>(name: &str, args: &[A]) -> Result<Self, Failure> {
        let found = FOLDERS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
        let path = found.ok_or_else(|| {
            let looked = FOLDERS.join(", ");
            Failure::usage(format!(
                "{name} is not on this machine (looked in {looked}): a service needs systemd. Without it: reimagined init, reimagined run"
            ))
        })?;
        Ok(Self { path, args: args.iter().map(|arg| arg.as_ref().to_owned()).collect() })
    }

    /// As a person would type it.
    pub(super) fn shown(&self) -> String {
        let words = [self.path.display().to_string()].into_iter().chain(self.args.iter().cloned());
        words.map(|word| super::quoted(Path::new(&word))).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut command = Command::new(&self.path);
        command.args(&self.args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0").env("LC_ALL", "C.UTF-8");
        for name in ["HOME", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS"] {
            command.envs(setup::env(name).map(|value| (name, value)));
        }
        command.env("XDG_RUNTIME_DIR", runtime());
        let output =
            command.output().map_err(|e| Failure::unexpected(format!("{} could not be started: {e}", self.shown())))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::unexpected(format!("{} failed ({}):\n{}", self.shown(), output.status, said.trim())))
    }
}

/// Whether a systemd runs that can be told of units.
pub(super) fn manager_runs(whose: Whose) -> bool {
    match whose {
        Whose::System => Path::new("/run/systemd/system").is_dir(),
        Whose::User => runtime().join("systemd/private").exists(),
    }
}

/// The folder of the user's own systemd, also where the session does not say it (`su`, `sudo -u`).
fn runtime() -> PathBuf {
    let usual = || format!("/run/user/{}", rustix::process::geteuid().as_raw()).into();
    setup::env("XDG_RUNTIME_DIR").map_or_else(usual, PathBuf::from)
}
