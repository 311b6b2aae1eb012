//! `status --watch`: the status again and again, until somebody has seen enough.
//!
//! On a terminal it is drawn in place, on the other screen as editors do it, and what was there before comes back
//! however it ends, also while it is stopped by Ctrl-Z. Elsewhere each change is a block of its own (with `--json` a
//! line), so that it can be piped and kept.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::super::term;
use super::{ShowError, render};
use crate::service::status_file::{self, Status, StatusError};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// To the other screen, without a cursor, and lines that are too long are cut.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All of it back.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Shows it until a signal ends it or nobody reads any more.
pub(super) fn run(state_dir: &Path, json: bool) -> Result<(), ShowError> {
    // What cannot be read at all is said once, and not for ever.
    let first = status_file::read_live(state_dir)?;
    let signals = signals()?;
    if !json && term::draws() { on_terminal(state_dir, &signals) } else { in_blocks(state_dir, &signals, first, json) }
}

/// The signals that concern it, as they come.
fn signals() -> io::Result<mpsc::Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT])?;
    let (send, receive) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if send.send(signal).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// What comes after a look.
enum Next {
    /// Another.
    Look,
    /// To be stopped first, as by Ctrl-Z.
    Stop,
    /// Nothing.
    End,
}

/// Waits for the next look.
fn next(signals: &mpsc::Receiver<i32>) -> Next {
    match signals.recv_timeout(INTERVAL) {
        Err(RecvTimeoutError::Timeout) | Ok(SIGCONT | SIGWINCH) => Next::Look,
        Ok(SIGTSTP) => Next::Stop,
        Ok(_) | Err(RecvTimeoutError::Disconnected) => Next::End,
    }
}

/// The other screen, for as long as this lives.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        term::print(ENTER)?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = term::print(LEAVE);
    }
}

fn on_terminal(state_dir: &Path, signals: &mpsc::Receiver<i32>) -> Result<(), ShowError> {
    let mut screen = Screen::enter()?;
    let colour = term::colour(term::Stream::Out);
    loop {
        let now = Zoned::now();
        let page = match status_file::read_live(state_dir) {
            Ok(status) => render(&status, &now, colour),
            Err(e) => format!("{e}\n"),
        };
        if !term::print_on(&frame(&page, &now, term::height()))? {
            return Ok(());
        }
        match next(signals) {
            Next::Look => {}
            Next::Stop => {
                drop(screen);
                // Returns when it is continued.
                emulate_default_handler(SIGTSTP)?;
                screen = Screen::enter()?;
            }
            Next::End => return Ok(()),
        }
    }
}

/// What draws `page` over the last one, in so many lines at most.
fn frame(page: &str, now: &Zoned, height: usize) -> String {
    let lines: Vec<&str> = page.lines().collect();
    // The last line is the clock's.
    let room = height.saturating_sub(1).max(1);
    let hidden = if lines.len() > room { lines.len() - (room - 1) } else { 0 };
    let mut out = String::from("\x1b[H");
    let mut line = |text: &str| out.extend([text, "\x1b[K\r\n"]);
    lines.iter().take(lines.len() - hidden).for_each(|text| line(text));
    if hidden > 0 {
        line(&format!("… {hidden} more lines (reimagined status shows all)"));
    }
    out + &format!("{}  Ctrl-C ends\x1b[K\x1b[J", now.strftime("%H:%M:%S"))
}

fn in_blocks(state_dir: &Path, signals: &mpsc::Receiver<i32>, first: Status, json: bool) -> Result<(), ShowError> {
    let colour = term::colour(term::Stream::Out);
    let mut last: Option<Status> = None;
    let mut complained = None;
    let mut found: Result<_, StatusError> = Ok(first);
    loop {
        match found {
            Ok(status) if last.as_ref().is_none_or(|last| is_news(last, &status)) => {
                let text = if json { as_line(&status)? } else { block(&render(&status, &Zoned::now(), colour)) };
                if !term::print_on(&text)? {
                    return Ok(());
                }
                last = Some(status);
                complained = None;
            }
            Ok(_) => complained = None,
            Err(e) => {
                let text = e.to_string();
                if complained.as_ref() != Some(&text) {
                    term::complain(&format!("{text}\n"));
                    complained = Some(text);
                }
            }
        }
        match next(signals) {
            Next::Look => {}
            Next::Stop => emulate_default_handler(SIGTSTP)?,
            Next::End => return Ok(()),
        }
        found = status_file::read_live(state_dir);
    }
}

/// When it was written is no news.
fn is_news(old: &Status, new: &Status) -> bool {
    Status { updated: None, ..old.clone() } != Status { updated: None, ..new.clone() }
}

fn block(page: &str) -> String {
    format!("{}\n{page}\n", Timestamp::now().to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S"))
}

fn as_line(status: &Status) -> Result<String, ShowError> {
    Ok(serde_json::to_string(status).map_err(io::Error::from)? + "\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_frame_fits_the_screen_and_wipes_what_the_last_one_left() {
        let now: Zoned = "2026-11-23T15:00:00+00:00[UTC]".parse().unwrap();
        let shown = |height| frame("a\nb\nc\n", &now, height).replace("\x1b[K", "$").replace("\r\n", "|");
        assert_eq!(shown(24), "\x1b[Ha$|b$|c$|15:00:00  Ctrl-C ends$\x1b[J");
        assert_eq!(shown(4), shown(24));
        assert_eq!(shown(3), "\x1b[Ha$|… 2 more lines (reimagined status shows all)$|15:00:00  Ctrl-C ends$\x1b[J");
        for height in 0..30 {
            assert!(shown(height).matches('|').count() <= height.max(2), "{height}");
        }
    }

    #[test]
    fn when_it_was_written_is_no_news() {
        let old = Status::default();
        assert!(!is_news(&old, &Status { updated: Some(Timestamp::UNIX_EPOCH), ..Status::default() }));
        assert!(is_news(&old, &Status { ignored: 1, ..Status::default() }));
    }
}
