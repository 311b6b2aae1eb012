//! What is shown on a terminal: text that tolerates a closed pipe, colours, the progress bar, money and time.
//!
//! Nothing here decides anything about drops. Functions that make text are pure; `now` is an argument.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{Timestamp, Zoned};

pub use crate::service::status_file::{dollars, money};

/// Writes `text` to stdout and flushes it.
///
/// A reader that has seen enough (`reimagined man | head`) is no error; a full disk is.
pub fn print(text: &str) -> io::Result<()> {
    print_on(text).map(drop)
}

/// [`print()`] of what may go on: whether somebody still reads.
pub fn print_on(text: &str) -> io::Result<bool> {
    write_all(&mut io::stdout().lock(), text.as_bytes())
}

/// [`print()`] to stderr, where a failure has nowhere to be told.
pub fn complain(text: &str) {
    let _ = write_all(&mut io::stderr().lock(), text.as_bytes());
}

/// Whether there is still a reader.
fn write_all(to: &mut impl io::Write, bytes: &[u8]) -> io::Result<bool> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Which stream a colour is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Whether to write colours to `stream`, by the stream itself and `NO_COLOR`, `CLICOLOR_FORCE`, `CLICOLOR`, `TERM`.
pub fn colour(stream: Stream) -> bool {
    let terminal = match stream {
        Stream::Out => io::stdout().is_terminal(),
        Stream::Err => io::stderr().is_terminal(),
    };
    choose_colour(terminal, |name| std::env::var(name).ok())
}

/// Whether stdout is a terminal on which a picture can be drawn in place.
pub fn draws() -> bool {
    io::stdout().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb" && !term.is_empty())
}

/// How many lines stdout's terminal has; 24 where it does not say.
pub fn height() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.ok().map(|size| usize::from(size.ws_row)).filter(|lines| *lines > 0).unwrap_or(24)
}

/// `NO_COLOR` (not empty) beats `CLICOLOR_FORCE`, which beats the rest: <https://bixense.com/clicolors/>.
fn choose_colour(terminal: bool, var: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| var(name).is_some_and(|value| !value.is_empty() && value != "0");
    if var("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return false;
    }
    set("CLICOLOR_FORCE")
        || (terminal
            && var("CLICOLOR").is_none_or(|value| value != "0")
            && var("TERM").is_none_or(|term| term != "dumb"))
}

/// The styles of what is shown; without colour all of them are plain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Palette {
    /// Headings and what stands out.
    pub bold: Style,
    /// What is well.
    pub good: Style,
    /// What wants to be looked at.
    pub warn: Style,
    /// What went wrong.
    pub bad: Style,
    /// What matters less.
    pub dim: Style,
}

impl Palette {
    /// The styles with or without colour.
    pub fn new(colour: bool) -> Self {
        if !colour {
            return Self::default();
        }
        let of = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        Self {
            bold: Style::new().bold(),
            good: of(AnsiColor::Green),
            warn: of(AnsiColor::Yellow),
            bad: of(AnsiColor::Red),
            dim: Style::new().dimmed(),
        }
    }
}

/// How long ago `then` is, in one unit: `12 s`, `3 min`, `2 h`, `5 days`. A moment to come is `0 s`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A moment in the zone of `now`: `14:02`, and with the date when that is another day's.
pub fn moment(at: Timestamp, now: &Zoned) -> String {
    crate::service::status_file::moment(at, Some(now.timestamp()), now.time_zone())
}

/// `1 image`, `2 images`, with a regular plural.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// How far `run --once` is: a bar where stderr is a terminal, nothing where it is not (there the log says it).
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on stderr if that is a terminal, else one that shows nothing.
    pub fn on_stderr() -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self::to(target, colour(Stream::Err))
    }

    fn to(target: ProgressDrawTarget, colour: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template =
            if colour { "{bar:30.green/dim} {pos}/{len}  {wide_msg:.dim}" } else { "{bar:30} {pos}/{len}  {wide_msg}" };
        // The template is a constant, so this holds; a bar in the default style would do as well.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    /// `done` of `all` drops have ended; `text` says what is going on, in one line.
    pub fn set(&self, done: u64, all: u64, text: &str) {
        self.bar.set_length(all.max(done));
        self.bar.set_position(done);
        self.bar.set_message(crate::domain::ids::show_text(text));
    }

    /// A log that writes its lines above the bar, for [`crate::service::logging::Options`].
    pub fn sink(&self) -> crate::service::logging::Sink {
        let bar = self.bar.clone();
        Arc::new(move |line| {
            bar.suspend(|| {
                let _ = io::stderr().lock().write_all(line.as_bytes());
            });
        })
    }

    /// Takes the bar away; what it said last is for the caller to say in words.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Fails(io::ErrorKind);

    impl io::Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        assert!(!write_all(&mut Fails(io::ErrorKind::BrokenPipe), b"x").unwrap());
        assert!(write_all(&mut Vec::new(), b"x").unwrap());
        assert!(write_all(&mut Fails(io::ErrorKind::StorageFull), b"x").is_err());
    }

    #[test]
    fn colour_follows_the_terminal_and_the_variables() {
        for (terminal, vars, expected) in [
            (true, &[][..], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("NO_COLOR", "")], true),
            (true, &[("CLICOLOR", "0")], false),
            (true, &[("TERM", "dumb")], false),
            (false, &[("CLICOLOR_FORCE", "1")], true),
            (false, &[("CLICOLOR_FORCE", "0")], false),
            (false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        ] {
            let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(choose_colour(terminal, var), expected, "{terminal} {vars:?}");
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now: Timestamp = "2026-11-23T15:00:00Z".parse().unwrap();
        for (then, text) in [
            ("2026-11-23T15:00:05Z", "0 s"),
            ("2026-11-23T14:59:48Z", "12 s"),
            ("2026-11-23T14:57:00Z", "3 min"),
            ("2026-11-23T13:00:00Z", "2 h"),
            ("2026-11-18T15:00:00Z", "5 days"),
        ] {
            assert_eq!(age(then.parse().unwrap(), now), text);
        }
    }

    #[test]
    fn a_bar_shows_how_far_it_is_and_nothing_that_a_name_could_smuggle_in() {
        let progress = Progress::to(ProgressDrawTarget::hidden(), false);
        progress.set(2, 5, "cafe/terrace\n\u{1b}[2J");
        assert_eq!((progress.bar.position(), progress.bar.length()), (2, Some(5)));
        assert_eq!(progress.bar.message(), "cafe/terrace\\n\\u{1b}[2J");
        progress.set(7, 5, "");
        assert_eq!(progress.bar.length(), Some(7), "more may be done than was seen at first");
    }
}
