//! The real binary over a site.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{KEY, PATIENCE, wait_until};

/// A command of the binary with nothing but what a test gives it.
pub fn command(home: &Path, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reimagined"));
    command
        .env_clear()
        .env("HOME", home)
        .env("SEGMIND_API_KEY", KEY)
        .env("TZ", "UTC")
        .current_dir(home)
        .stdin(Stdio::null())
        .args(["--config".as_ref(), config.as_os_str()]);
    command
}

/// A running daemon. Killed when it goes out of scope.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`, which logs to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let child = command.stdout(Stdio::null()).stderr(File::create(log).unwrap()).spawn().unwrap();
        Self { child, log: log.to_path_buf() }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// The most memory that it ever held, in bytes.
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn stop(self) -> i32 {
        self.signal(Signal::TERM);
        self.ends()
    }

    /// Waits for its end: its exit code, or minus the signal.
    pub fn ends(mut self) -> i32 {
        let mut status: Option<ExitStatus> = None;
        // `run --once` may wait a minute.
        let patience = PATIENCE + Duration::from_secs(60);
        wait_until(patience, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let Some(status) = status else { panic!("the daemon did not end\n{}", self.log()) };
        status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
