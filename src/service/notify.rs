//! What systemd is told: ready, status, watchdog, reloading, stopping.
//!
//! Nothing happens, and nothing fails, when `$NOTIFY_SOCKET` is unset. A service manager that does not answer
//! costs a moment ([`PATIENCE`]), never the daemon: every function gives back an error that may be ignored.
//! Messages are formatted by `sd-notify` but sent here, because the crate takes the `@` of an abstract socket
//! for a file name and waits without end for a full socket. The environment is read and never changed.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::domain::ids::show_text;

/// How long a message may wait for room in the service manager's socket.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The start is finished: the first scan is done and the watches are in place. Also ends a reload.
pub fn ready() -> io::Result<()> {
    send(&[NotifyState::Ready])
}

/// A line for people in `systemctl status`. Control characters are escaped, since a newline would start
/// another field of the protocol.
pub fn status(text: &str) -> io::Result<()> {
    send(&[NotifyState::Status(&show_text(text))])
}

/// A sign of life. Owed once in each [`watchdog_interval`]. Waits for nothing: whether it was given, or there was no
/// room for it, so that it is owed still.
pub fn watchdog() -> bool {
    let given = send_within(Duration::ZERO, &[NotifyState::Watchdog]);
    !given.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// The configuration is being read again. [`ready`] must follow, whether the new one is good or not.
///
/// The moment goes in the same message: a `RELOADING=1` without it makes a `notify-reload` unit hang.
pub fn reloading() -> io::Result<()> {
    send(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// The shutdown has begun, and may take so long: also where the unit's own limit is shorter, since `grace` was made
/// longer after it was written.
pub fn stopping(within: Duration) -> io::Result<()> {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Stopping])?;
    send(&[NotifyState::ExtendTimeoutUsec(within)])
}

/// How often [`watchdog`] is due: half of `$WATCHDOG_USEC`. `None` when no watchdog is set, or when
/// `$WATCHDOG_PID` names another process. Never zero.
pub fn watchdog_interval() -> Option<Duration> {
    half(sd_notify::watchdog_enabled())
}

fn half(limit: Option<Duration>) -> Option<Duration> {
    limit.map(|limit| limit / 2).filter(|half| *half >= Duration::from_millis(1))
}

fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    send_within(PATIENCE, states)
}

fn send_within(patience: Duration, states: &[NotifyState<'_>]) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) if !socket.is_empty() => send_to(&socket, patience, states),
        _ => Ok(()),
    }
}

/// All of `states` in one datagram to `socket`, a path or, with a leading `@`, an abstract name.
fn send_to(socket: &OsStr, patience: Duration, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => {
            let what = format!("NOTIFY_SOCKET={}: neither a path nor an abstract name", socket.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    };
    let mut message = String::new();
    for state in states {
        // Writing into a String does not fail.
        let _ = writeln!(message, "{state}");
    }
    let datagram = UnixDatagram::unbound()?;
    if patience.is_zero() {
        datagram.set_nonblocking(true)?;
    } else {
        datagram.set_write_timeout(Some(patience))?;
    }
    datagram
        .send_to_addr(message.as_bytes(), &address)
        .map_err(|e| io::Error::new(e.kind(), format!("NOTIFY_SOCKET={}: {e}", socket.display())))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use super::*;

    const CHILD: &str = "REIMAGINED_TEST_CHILD";

    /// The environment belongs to the whole process, so what reads it is tried in a child: this test binary
    /// again, with only the named helper.
    fn child(helper: &str, prepare: impl FnOnce(&mut Command)) -> bool {
        // The shell puts its own number, which `exec` keeps, where `$$` stands.
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(r#"[ "$WATCHDOG_PID" != self ] || WATCHDOG_PID=$$; exec "$0" --exact "$1""#)
            .arg(std::env::current_exe().unwrap())
            .arg(format!("service::notify::tests::{helper}"))
            .env(CHILD, "1")
            .env_remove("WATCHDOG_PID")
            .env_remove("WATCHDOG_USEC")
            .env_remove("NOTIFY_SOCKET");
        prepare(&mut shell);
        shell.output().unwrap().status.success()
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Runs in a child process of the tests below, as the other helpers do, and does nothing elsewhere.
    #[test]
    fn helper_says_everything() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        ready().unwrap();
        status("4 in work\nMAINPID=1").unwrap();
        assert!(watchdog());
        reloading().unwrap();
        stopping(Duration::from_secs(7)).unwrap();
    }

    #[test]
    fn every_message_arrives_as_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        assert!(child("helper_says_everything", |c| {
            c.env("NOTIFY_SOCKET", &path);
        }));
        assert_eq!(received(&socket), "READY=1\n");
        assert_eq!(received(&socket), "STATUS=4 in work\\nMAINPID=1\n");
        assert_eq!(received(&socket), "WATCHDOG=1\n");
        let reload = received(&socket);
        let (first, second) = reload.split_once('\n').unwrap();
        assert_eq!(first, "RELOADING=1");
        assert!(second.trim_end().strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(received(&socket), "STOPPING=1\n");
        assert_eq!(received(&socket), "EXTEND_TIMEOUT_USEC=7000000\n");
    }

    #[test]
    fn helper_gives_signs_of_life_until_there_is_no_room() {
        if std::env::var_os(CHILD).is_some() {
            while watchdog() {}
        }
    }

    #[test]
    fn a_sign_of_life_that_finds_no_room_is_known_to_be_owed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        assert!(child("helper_gives_signs_of_life_until_there_is_no_room", |c| {
            c.env("NOTIFY_SOCKET", &path);
        }));
        assert_eq!(received(&socket), "WATCHDOG=1\n");
    }

    #[test]
    fn abstract_sockets_are_reached() {
        let name = format!("reimagined-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send_to(OsStr::new(&format!("@{name}")), PATIENCE, &[NotifyState::Ready]).unwrap();
        assert_eq!(received(&socket), "READY=1\n");
    }

    #[test]
    fn without_a_socket_nothing_happens() {
        assert!(child("helper_says_everything", |_| {}));
    }

    #[test]
    fn a_service_manager_that_went_away_is_an_error_that_names_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone");
        let error = send_to(path.as_os_str(), PATIENCE, &[NotifyState::Ready]).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        assert!(send_to(OsStr::new("vsock:1:2"), PATIENCE, &[NotifyState::Ready]).is_err());
    }

    #[test]
    fn helper_has_a_watchdog_of_one_minute() {
        if std::env::var_os(CHILD).is_some() {
            assert_eq!(watchdog_interval(), Some(Duration::from_secs(30)));
        }
    }

    #[test]
    fn helper_has_no_watchdog() {
        if std::env::var_os(CHILD).is_some() {
            assert_eq!(watchdog_interval(), None);
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_and_only_by_the_process_it_is_meant_for() {
        for (helper, usec, pid) in [
            ("helper_has_a_watchdog_of_one_minute", Some("60000000"), None),
            ("helper_has_a_watchdog_of_one_minute", Some("60000000"), Some("self")),
            ("helper_has_no_watchdog", Some("60000000"), Some("1")),
            ("helper_has_no_watchdog", Some("soon"), None),
            ("helper_has_no_watchdog", Some("0"), None),
            ("helper_has_no_watchdog", None, None),
        ] {
            let fits = child(helper, |c| {
                usec.map(|usec| c.env("WATCHDOG_USEC", usec));
                pid.map(|pid| c.env("WATCHDOG_PID", pid));
            });
            assert!(fits, "{usec:?} {pid:?}");
        }
    }
}
