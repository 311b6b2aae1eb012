//! An event as one line for people: the message, then ` key=value` for each field.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use jiff::Zoned;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::domain::ids::show_text;

/// Fields for programs: in a line for people they would say again what stands in it.
const FOR_PROGRAMS: [&str; 2] = ["folder", "verdict"];

/// What stands around the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineStyle {
    pub(super) time: Time,
    pub(super) colour: bool,
    /// `<6>` in front, and no word for the level.
    pub(super) syslog: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// For eyes: `14:02:07`.
    Clock,
    /// For files: `2026-11-23T14:02:07+01:00`.
    Full,
    /// The reader has its own.
    None,
}

impl LineStyle {
    pub(super) fn of_stderr() -> Self {
        let stderr = io::stderr();
        let journal = stderr_is_the_journal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self::choose(journal, stderr.is_terminal(), no_colour)
    }

    pub(super) fn choose(journal: bool, terminal: bool, no_colour: bool) -> Self {
        if journal {
            Self { time: Time::None, colour: false, syslog: true }
        } else if terminal {
            Self { time: Time::Clock, colour: !no_colour, syslog: false }
        } else {
            Self { time: Time::Full, colour: false, syslog: false }
        }
    }
}

/// Whether what is written to stderr goes to the journal.
pub(super) fn stderr_is_the_journal() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, io::stderr().as_fd()))
}

/// Whether `fd` is what `$JOURNAL_STREAM` names as `device:inode`. The variable alone proves nothing: it is
/// inherited by children whose stderr goes elsewhere.
pub(super) fn is_stream(stream: &str, fd: impl AsFd) -> bool {
    let Some((device, inode)) = stream.split_once(':') else { return false };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else { return false };
    rustix::fs::fstat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
}

/// sd-daemon(3): what the journal takes off the front of a line.
pub(super) fn syslog_prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

fn paint(level: Level) -> Style {
    let colour = match level {
        Level::ERROR => AnsiColor::Red,
        Level::WARN => AnsiColor::Yellow,
        Level::INFO => AnsiColor::Green,
        _ => AnsiColor::Blue,
    };
    Style::new().fg_color(Some(colour.into()))
}

impl<S, N> FormatEvent<S, N> for LineStyle
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        let now = match self.time {
            Time::None => None,
            Time::Clock => Some(Zoned::now().strftime("%H:%M:%S").to_string()),
            Time::Full => Some(Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()),
        };
        if let Some(now) = now {
            let dim = if self.colour { Style::new().dimmed() } else { Style::new() };
            write!(out, "{dim}{now}{dim:#} ")?;
        }
        if self.syslog {
            out.write_str(syslog_prefix(level))?;
        } else {
            let style = if self.colour { paint(level) } else { Style::new() };
            write!(out, "{style}{level:<5}{style:#} ")?;
        }
        out.write_str(&Line::of(event).text())?;
        for span in ctx.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                write!(out, " {fields}")?;
            }
        }
        writeln!(out)
    }
}

/// The fields of spans, as those of events are.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line::default();
        fields.record(&mut line);
        out.write_str(&line.text())
    }
}

/// Collects an event: the message and each field in their order, all of it harmless.
#[derive(Default)]
pub(super) struct Line {
    message: String,
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Line {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut line = Self::default();
        event.record(&mut line);
        line
    }

    /// The message, then ` key=value` for each field that is for people.
    pub(super) fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in self.fields.iter().filter(|(name, _)| !FOR_PROGRAMS.contains(name)) {
            let gap = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{gap}{name}={}", quoted(value));
        }
        text
    }

    fn put(&mut self, field: &Field, value: &str) {
        let value = show_text(value);
        if field.name() == "message" {
            self.message.push_str(&value);
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors show their cause themselves.
            if !text.contains(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            source = cause.source();
        }
        self.put(field, &text);
    }
}

/// A value that reads as one: bare, or in quotes where it holds a space, a quote or an equals sign.
fn quoted(shown: &str) -> Cow<'_, str> {
    let bare = !shown.is_empty() && !shown.contains([' ', '"', '=']);
    if bare || is_quoted(shown) { shown.into() } else { format!("\"{}\"", shown.replace('"', "\\\"")).into() }
}

/// Whether this is one string in quotes already, as `Debug` writes it.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut escaped = false;
    for c in inner.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped
}
