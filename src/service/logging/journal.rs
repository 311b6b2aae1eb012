//! The journal's own protocol, so that each field of an event can be searched there:
//! `journalctl REIMAGINED_FOLDER=autumn-cafe`.
//!
//! `MESSAGE` is the line that people read elsewhere, since `journalctl -u reimagined` shows nothing else. (The crate
//! `tracing-journald` puts the bare message there, which would say "sending" and not what.) What the journal does not
//! take goes to stderr, which is its stream, too.

use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::line::{Line, syslog_prefix};

/// systemd's journal listens here; see "Native Journal Protocol" in systemd's documentation.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A layer that writes events to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// Connects to the journal of this machine.
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self { socket })
    }

    /// A journal that hangs or is full must not hold the engine here.
    fn send(&self, entry: &str) -> io::Result<()> {
        let sent = rustix::net::send(&self.socket, entry.as_bytes(), rustix::net::SendFlags::DONTWAIT)?;
        if sent == entry.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (level, line) = (*event.metadata().level(), Line::of(event));
        let text = line.text();
        if self.send(&entry(level, event.metadata().target(), &text, &line.fields)).is_err() {
            super::to_stderr(&format!("{}{text}\n", syslog_prefix(level)));
        }
    }
}

/// One datagram. No value holds a line break: they were escaped when the event was read.
fn entry(level: Level, target: &str, text: &str, fields: &[(&'static str, String)]) -> String {
    let priority = syslog_prefix(level).trim_matches(['<', '>']);
    let mut entry = format!("MESSAGE={text}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=reimagined\nTARGET={target}\n");
    for (name, value) in fields {
        let _ = writeln!(entry, "REIMAGINED_{}={value}", name.replace('.', "_").to_uppercase());
    }
    entry
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_entry_has_the_line_for_people_and_each_field_for_searches() {
        let fields = [("drop", "cafe/a b.jpg".to_owned()), ("request_id", "r-1".into()), ("http.status", "503".into())];
        assert_eq!(
            entry(Level::WARN, "reimagined::engine", "failed drop=\"cafe/a b.jpg\"", &fields),
            "MESSAGE=failed drop=\"cafe/a b.jpg\"\nPRIORITY=4\nSYSLOG_IDENTIFIER=reimagined\nTARGET=reimagined::engine\n\
             REIMAGINED_DROP=cafe/a b.jpg\nREIMAGINED_REQUEST_ID=r-1\nREIMAGINED_HTTP_STATUS=503\n"
        );
    }

    #[test]
    fn what_the_journal_does_not_take_is_an_error_and_no_wait() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let journal = Journal { socket: ours };
        journal.send("MESSAGE=a\n").unwrap();
        let mut room = [0; 64];
        let n = theirs.recv(&mut room).unwrap();
        assert_eq!(&room[..n], b"MESSAGE=a\n");
        // Nobody reads: at some time it is full.
        assert!((0..100_000).any(|_| journal.send("MESSAGE=b\n").is_err()));
        drop(theirs);
        assert!(journal.send("MESSAGE=c\n").is_err());
    }
}
