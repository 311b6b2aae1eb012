//! One program, run for one event: without a shell, in a process group and with an environment of its own, for so
//! long at most.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::{VERSION, seconds};
use crate::domain::hooks::{Command, Event};
use crate::domain::ids::{show, show_text};

/// Of what a program wrote, so much of the end is shown when it failed. Bytes.
const LAST_WORDS: usize = 2_048;

/// What a program wrote just before it ended is waited for so long, where something that it left behind holds its
/// output open.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(200);

/// Once killed, a program's end is waited for so long. One that hangs in the kernel, on a mount that answers no more, or
/// that has become another user's may never come to it.
const DEATH_WAIT: Duration = Duration::from_secs(1);

/// What a program gets of our environment: what finds programs, people's desktops, language and zone. Never the
/// key, credentials, or the sockets of systemd.
const KEPT: [&str; 12] = [
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
];

/// Where programs are looked for if nothing says so.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Our `PATH`, or the usual one.
pub(super) fn path() -> OsString {
    std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| USUAL_PATH.into())
}

/// How it ended.
enum End {
    Exited(ExitStatus),
    TooLong,
    /// We end ourselves.
    Cut,
    Unknown(io::Error),
}

/// How programs are run.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// So long at most.
    pub(super) limit: Duration,
    pub(super) give_up: CancellationToken,
    /// As many are started at once as this lets: where their disk does not answer, each start holds a thread.
    pub(super) starts: Arc<Semaphore>,
}

/// Runs `command` for `event`; a failure is logged.
pub(super) async fn run(command: Command, event: Arc<Event>, terms: Terms) {
    let drop = event.place().map(tracing::field::display);
    let program = show(command.program.as_os_str());
    match try_run(command, event.clone(), terms).await {
        Ok(()) => tracing::debug!(hook = event.on().key(), event = event.word(), drop, program, "told"),
        Err((why, said)) => {
            let said = last_words(&said);
            tracing::warn!(hook = event.on().key(), event = event.word(), drop, program, reason = %why, said, "a hook failed");
        }
    }
}

async fn try_run(command: Command, event: Arc<Event>, terms: Terms) -> Result<(), (String, Vec<u8>)> {
    let Terms { limit, give_up, starts } = terms;
    let by_name = !command.program.is_absolute();
    let body = event.json(VERSION);
    let mut over = pin!(async {
        tokio::select! {
            () = tokio::time::sleep(limit) => End::TooLong,
            () = give_up.cancelled() => End::Cut,
        }
    });
    let started = tokio::select! {
        started = start(command, event, starts) => started,
        end = &mut over => {
            let why = match end {
                End::Cut => "it was not started by then, as the daemon ends".to_owned(),
                _ => format!("it could not be started within {} ([hooks] timeout): does its disk answer?", seconds(limit)),
            };
            return Err((why, Vec::new()));
        }
    };
    let (mut child, mut output) = started.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound if by_name => {
            ("it is in no folder of PATH: write its whole path, or install it".to_owned(), Vec::new())
        }
        _ => (format!("it can't be run: {e}"), Vec::new()),
    })?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let stdin = child.stdin.take();
    let mut said = Vec::new();
    let end = {
        // It may read late, only a part, or never; what it does with its output is as little our business.
        let mut feeding = pin!(async move {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(body.as_bytes()).await;
            }
        });
        let mut reading = pin!(read_end(&mut output, &mut said));
        let mut ending = pin!(async {
            tokio::select! {
                status = child.wait() => status.map_or_else(End::Unknown, End::Exited),
                end = &mut over => end,
            }
        });
        let (mut fed, mut read) = (false, false);
        let end = loop {
            tokio::select! {
                end = &mut ending => break end,
                () = &mut feeding, if !fed => fed = true,
                () = &mut reading, if !read => read = true,
            }
        };
        if !matches!(end, End::Exited(_)) {
            // It was not waited for, so its number is still its own.
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
        if !read {
            let _ = tokio::time::timeout(LAST_WORDS_WAIT, reading).await;
        }
        end
    };
    let fate = fate(child.wait(), DEATH_WAIT).await;
    let why = match end {
        End::Exited(status) if status.success() => return Ok(()),
        End::Exited(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "it ended in an unknown way".to_owned(),
        },
        End::TooLong => format!("it took longer than {} ([hooks] timeout) and {fate}", seconds(limit)),
        End::Cut => format!("it {fate}, as the daemon ends"),
        End::Unknown(e) => format!("it can't be waited for: {e}"),
    };
    // One that is still there is reaped by the runtime, should it ever end.
    Err((why, said))
}

/// What became of a program that was killed and is `waited` for, in words.
async fn fate(waited: impl Future<Output = io::Result<ExitStatus>>, limit: Duration) -> &'static str {
    match tokio::time::timeout(limit, waited).await {
        Ok(_) => "was killed",
        Err(_) => "could not be killed",
    }
}

/// Starts it on a thread of its own, which may wait for a disk. One that is started when nobody waits for it any more is
/// killed.
///
/// The runtime's threads for what blocks will not do: they block signals, and a program would inherit that.
async fn start(command: Command, event: Arc<Event>, starts: Arc<Semaphore>) -> io::Result<(Child, pipe::Receiver)> {
    let one_more = starts.acquire_owned().await.map_err(io::Error::other)?;
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new().name("hook".into()).spawn(move || {
        let _within = runtime.enter();
        let _ = tell.send(spawn(&command, &event));
        drop(one_more);
    })?;
    told.await.map_err(io::Error::other)?
}

/// The child and the end of a pipe where all comes that it writes.
fn spawn(command: &Command, event: &Event) -> io::Result<(Child, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let variables = std::env::vars_os();
    let kept = variables.filter(|(name, _)| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"LC_") || KEPT.iter().any(|kept| kept.as_bytes() == name)
    });
    let child = tokio::process::Command::new(&command.program)
        .args(command.args(event))
        .env_clear()
        .envs(kept)
        .env("PATH", path())
        .envs(event.variables())
        // Nothing of what it does counts from wherever we were started, and no mount is held.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// Reads to the end and keeps the last of it.
async fn read_end(from: &mut pipe::Receiver, said: &mut Vec<u8>) {
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        said.extend_from_slice(&piece[..n]);
        let above = said.len().saturating_sub(LAST_WORDS);
        said.drain(..above);
    }
}

/// What it said last, for one line of the log; `None` if it said nothing.
fn last_words(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let _ = write!(out, "{}{}", if out.is_empty() { "" } else { " / " }, show_text(line));
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::arrivals::Reason;
    use crate::domain::hooks::On;
    use crate::domain::ids::{Place, RelPath};

    #[tokio::test]
    async fn one_that_cannot_be_started_is_given_up_at_its_time_and_at_the_end() {
        let event = || {
            let place = Place { folder: RelPath::root(), name: "a.jpg".into() };
            let (at, reason) = (jiff::Timestamp::UNIX_EPOCH, Reason::Prompt);
            Arc::new(Event::Waiting { at, place, reason, since: at, others: 0 })
        };
        // Those before it hang, and hold every start.
        let starts = Arc::new(Semaphore::new(0));
        let give_up = CancellationToken::new();
        let terms = Terms { limit: Duration::from_millis(1), give_up: give_up.clone(), starts };
        let command = Command::new("/bin/true".into(), &[], On::Waiting).expect("a good command");
        let (why, _) = try_run(command.clone(), event(), terms.clone()).await.expect_err("it is not started");
        assert!(why.contains("could not be started within 0.001 s"), "{why}");
        give_up.cancel();
        let terms = Terms { limit: Duration::from_secs(1000), ..terms };
        let (why, _) = try_run(command, event(), terms).await.expect_err("it is not started");
        assert!(why.contains("as the daemon ends"), "{why}");
    }

    #[tokio::test]
    async fn one_that_outlives_its_killing_is_waited_for_no_longer_and_named() {
        let soon = Duration::from_millis(1);
        assert_eq!(fate(std::future::pending(), soon).await, "could not be killed");
        assert_eq!(fate(std::future::ready(Ok(ExitStatus::default())), soon).await, "was killed");
    }
}
