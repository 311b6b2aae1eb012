//! Signals as a stream: stop, read the configuration again, look again.
//!
//! A second SIGTERM or SIGINT ends the process at once with [`SECOND_SIGNAL_EXIT`], without asking anybody:
//! recovery is built for that. SIGHUP means "read the configuration again", except when it says that the
//! terminal this was started on has gone; then it means "stop". Several signals of one kind that come before
//! they are looked at may count as one, and their order is not kept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::stream::Stream;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// The exit code of a process that was asked twice to stop: "unexpected", as in the table of exit codes.
pub const SECOND_SIGNAL_EXIT: i32 = 1;

/// What somebody wants of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, or SIGHUP from a terminal that went away: stop, let what is in flight finish.
    Terminate,
    /// SIGINT (Ctrl-C): the same.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: look through the inbox now.
    Rescan,
}

/// The stream of signals. Meant to be made once, before anything that must not be cut off.
///
/// After it is dropped, SIGTERM and SIGINT end the process at once.
pub struct Signals {
    inner: signal_hook_tokio::Signals,
    armed: Arc<AtomicBool>,
    terminal: Terminal,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT, SIGHUP and SIGUSR1 from now on.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers, or outside of a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order counts: the first signal finds it unarmed, arms it, and goes on into the stream.
            flag::register_conditional_shutdown(signal, SECOND_SIGNAL_EXIT, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
        }
        let inner = signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        Ok(Self { inner, armed, terminal: Terminal::now() })
    }

    /// The next signal; `None` never comes while the stream is in use.
    pub async fn next(&mut self) -> Option<Signal> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Signals {
    type Item = Signal;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        loop {
            let Some(number) = ready!(Pin::new(&mut self.inner).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let signal = match number {
                SIGTERM => Signal::Terminate,
                SIGINT => Signal::Interrupt,
                SIGHUP if self.terminal.went_away() => Signal::Terminate,
                SIGHUP => Signal::Reload,
                SIGUSR1 => Signal::Rescan,
                _ => continue,
            };
            return Poll::Ready(Some(signal));
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Handlers stay in place for good. Without a reader a signal would be swallowed: let it end us.
        self.armed.store(true, Ordering::SeqCst);
    }
}

/// What of a terminal there was at the start.
///
/// Only what was a terminal then can go away: a service, or one under `nohup`, has none, so there SIGHUP
/// always means "reload".
#[derive(Clone, Copy, Debug)]
struct Terminal {
    stdin: bool,
    stderr: bool,
    controlling: bool,
}

impl Terminal {
    fn now() -> Self {
        Self { stdin: is_terminal(io::stdin()), stderr: is_terminal(io::stderr()), controlling: has_controlling() }
    }

    fn went_away(self) -> bool {
        // A terminal that was hung up answers EIO to everything.
        let lost = |was: bool, is: bool| was && !is;
        (self.stdin || self.stderr)
            && (lost(self.stdin, is_terminal(io::stdin()))
                || lost(self.stderr, is_terminal(io::stderr()))
                || lost(self.controlling, has_controlling()))
    }
}

fn is_terminal(fd: impl std::os::fd::AsFd) -> bool {
    rustix::termios::tcgetattr(fd).is_ok()
}

fn has_controlling() -> bool {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // Only these two say that there is none; "too many open files" says nothing.
    !matches!(rustix::fs::open("/dev/tty", flags, Mode::empty()), Err(Errno::NXIO | Errno::IO))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, ChildStdout, Command, Stdio};

    use rustix::process::{Pid, Signal as Number, kill_process};

    use super::*;

    const CHILD: &str = "REIMAGINED_TEST_CHILD";

    /// Signals belong to the whole process, so they are tried in a child: this test binary with only this
    /// helper, which says each signal that it gets and does not end by itself.
    #[tokio::test]
    async fn helper_says_what_it_gets() {
        if std::env::var_os(CHILD).is_none() {
            return; // not in a child process of the tests below: nobody would send anything
        }
        let mut signals = Signals::new().unwrap();
        println!("\n> listening");
        while let Some(signal) = signals.next().await {
            println!("> {signal:?}");
        }
    }

    struct Helper {
        child: Child,
        lines: std::io::Lines<BufReader<ChildStdout>>,
    }

    impl Helper {
        fn start() -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "service::signals::tests::helper_says_what_it_gets"])
                .env(CHILD, "1")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut helper = Self { child, lines };
            assert_eq!(helper.says(), "listening");
            helper
        }

        fn says(&mut self) -> String {
            loop {
                let line = self.lines.next().unwrap().unwrap();
                if let Some(said) = line.strip_prefix("> ") {
                    return said.to_owned();
                }
            }
        }

        fn send(&self, number: Number) {
            kill_process(Pid::from_child(&self.child), number).unwrap();
        }
    }

    impl Drop for Helper {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn each_signal_has_its_meaning_and_the_second_to_stop_ends_the_process_at_once() {
        for (first, said, second) in [
            (Number::TERM, "Terminate", Number::TERM),
            (Number::INT, "Interrupt", Number::INT),
            (Number::TERM, "Terminate", Number::INT),
        ] {
            let mut helper = Helper::start();
            helper.send(Number::USR1);
            assert_eq!(helper.says(), "Rescan");
            helper.send(Number::HUP);
            assert_eq!(helper.says(), "Reload");
            helper.send(first);
            assert_eq!(helper.says(), said);
            helper.send(Number::HUP);
            assert_eq!(helper.says(), "Reload", "only a second request to stop ends it");
            helper.send(second);
            assert_eq!(helper.child.wait().unwrap().code(), Some(SECOND_SIGNAL_EXIT));
        }
    }

    #[test]
    fn without_a_terminal_at_the_start_none_can_go_away() {
        let none = Terminal { stdin: false, stderr: false, controlling: true };
        assert!(!none.went_away());
    }

    #[test]
    fn a_terminal_on_stdin_that_is_none_any_more_went_away() {
        if is_terminal(io::stdin()) {
            return; // run by hand on a terminal, which is still there
        }
        assert!(Terminal { stdin: true, stderr: false, controlling: false }.went_away());
    }
}
