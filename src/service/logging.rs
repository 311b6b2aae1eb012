//! The log: one line per event, to stderr.
//!
//! For people: time, level, message, fields. For the journal (when stderr is the journal's own stream): a
//! syslog level in front and no time, as the journal has its own. In both, control characters in messages
//! and fields are escaped: the name of a dropped file can neither add a line nor write to the terminal.
//! A log that can't be written is lost, and nothing else: a terminal that went away ends no daemon.
//!
//! What other crates say below `info` is never logged, whatever the filter asks for: that is where HTTP
//! libraries write addresses and headers.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use jiff::Zoned;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::domain::ids::show_text;

/// The variable that says what is logged, in the words of `tracing`'s filters: `debug`, or
/// `reimagined::inbox=trace,warn`.
pub const FILTER_VARIABLE: &str = "REIMAGINED_LOG";

const OURS: &str = "reimagined";

/// Where finished lines go, each with its newline.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// How the log is to be.
#[derive(Clone, Default)]
pub struct Options {
    /// `-v` counted up, `-q` down; 0 is `info`. Only the default: [`FILTER_VARIABLE`] beats it.
    pub verbosity: i8,
    /// Where lines go instead of stderr, such as above a progress bar.
    pub sink: Option<Sink>,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// [`FILTER_VARIABLE`] can't be read.
    #[error("{FILTER_VARIABLE}={}: {source}; try {FILTER_VARIABLE}=debug", show_text(.text))]
    Filter {
        /// What it holds.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is a log already.
    #[error("the log is set up already")]
    Twice,
}

/// Sets up the log of this process, once.
pub fn init(options: Options) -> Result<(), LogError> {
    let asked = std::env::var_os(FILTER_VARIABLE).filter(|text| !text.is_empty());
    let filter = filter(asked.map(|text| text.to_string_lossy().into_owned()), options.verbosity)?;
    let style = LineStyle::of_stderr();
    let sink = options.sink.unwrap_or_else(|| Arc::new(to_stderr));
    let layer = layer(style, sink).with_filter(filter).with_filter(filter_fn(may_be_logged));
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| LogError::Twice)
}

fn to_stderr(line: &str) {
    // In one write, so that lines of several processes don't mix; an error has nowhere to go.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

fn filter(asked: Option<String>, verbosity: i8) -> Result<EnvFilter, LogError> {
    let text = asked.unwrap_or_else(|| default_filter(verbosity).to_owned());
    EnvFilter::builder().parse(&text).map_err(|source| LogError::Filter { text, source })
}

fn default_filter(verbosity: i8) -> &'static str {
    match verbosity {
        i8::MIN..=-2 => "error",
        -1 => "warn",
        0 => "warn,reimagined=info",
        1 => "warn,reimagined=debug",
        _ => "info,reimagined=trace",
    }
}

/// Whether an event of this kind may ever be logged.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().split("::").next() == Some(OURS);
    ours || metadata.is_span() || *metadata.level() <= Level::INFO
}

fn layer<S>(style: LineStyle, sink: Sink) -> impl tracing_subscriber::Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .with_writer(To(sink))
        .with_ansi(style.colour)
        .event_format(style)
        .fmt_fields(Fields)
        // It would be told through `eprintln!`, which panics when stderr is gone.
        .log_internal_errors(false)
}

/// What stands around the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LineStyle {
    time: Time,
    colour: bool,
    /// `<6>` in front, and no word for the level.
    syslog: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// For eyes: `14:02:07`.
    Clock,
    /// For files: `2026-11-23T14:02:07+01:00`.
    Full,
    /// The reader has its own.
    None,
}

impl LineStyle {
    fn of_stderr() -> Self {
        let stderr = io::stderr();
        let journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, stderr.as_fd()));
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self::choose(journal, stderr.is_terminal(), no_colour)
    }

    fn choose(journal: bool, terminal: bool, no_colour: bool) -> Self {
        if journal {
            Self { time: Time::None, colour: false, syslog: true }
        } else if terminal {
            Self { time: Time::Clock, colour: !no_colour, syslog: false }
        } else {
            Self { time: Time::Full, colour: false, syslog: false }
        }
    }
}

/// Whether `fd` is what `$JOURNAL_STREAM` names as `device:inode`. The variable alone proves nothing: it is
/// inherited by children whose stderr goes elsewhere.
fn is_stream(stream: &str, fd: impl AsFd) -> bool {
    let Some((device, inode)) = stream.split_once(':') else { return false };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else { return false };
    rustix::fs::fstat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
}

/// sd-daemon(3): what the journal takes off the front of a line.
fn syslog_prefix(level: Level) -> &'static str {
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
        let mut line = Line::default();
        event.record(&mut line);
        out.write_str(&line.finish())?;
        for span in ctx.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                write!(out, " {fields}")?;
            }
        }
        writeln!(out)
    }
}

/// The fields of spans, as those of events are.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line::default();
        fields.record(&mut line);
        out.write_str(&line.finish())
    }
}

/// Collects an event: the message, then ` key=value` for each field, all of it harmless.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn finish(self) -> String {
        match (self.message.is_empty(), self.fields.is_empty()) {
            (true, _) => self.fields,
            (false, true) => self.message,
            (false, false) => format!("{} {}", self.message, self.fields),
        }
    }

    fn put(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(&show_text(value));
            return;
        }
        let gap = if self.fields.is_empty() { "" } else { " " };
        let _ = write!(self.fields, "{gap}{}={}", field.name(), quoted(value));
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
fn quoted(value: &str) -> String {
    let shown = show_text(value);
    let bare = !shown.is_empty() && !shown.contains([' ', '"', '=']);
    if bare || is_quoted(&shown) { shown } else { format!("\"{}\"", shown.replace('"', "\\\"")) }
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

struct To(Sink);

impl<'a> MakeWriter<'a> for To {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine(&self.0)
    }
}

/// Hands each event, which the layer writes at once, to the sink. Never fails.
struct OneLine<'a>(&'a Sink);

impl io::Write for OneLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use super::*;

    const PLAIN: LineStyle = LineStyle { time: Time::None, colour: false, syslog: false };

    fn logged(style: LineStyle, asked: Option<&str>, verbosity: i8, say: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&lines);
        let sink: Sink = Arc::new(move |line| into.lock().unwrap().push_str(line));
        let filter = filter(asked.map(str::to_owned), verbosity).unwrap();
        let layer = layer(style, sink).with_filter(filter).with_filter(filter_fn(may_be_logged));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
        lines.lock().unwrap().clone()
    }

    #[test]
    fn a_line_has_level_message_and_fields() {
        let text = logged(PLAIN, None, 0, || {
            tracing::info!(drop = %"cafe/terrace.jpg", shot = 1, cost = 0.04, "sent");
            tracing::warn!(note = "two words", empty = "", why = ?"a \"b\"", "odd");
        });
        assert_eq!(
            text,
            "INFO  sent drop=cafe/terrace.jpg shot=1 cost=0.04\n\
             WARN  odd note=\"two words\" empty=\"\" why=\"a \\\"b\\\"\"\n"
        );
    }

    #[test]
    fn a_name_can_neither_add_a_line_nor_a_field_nor_write_to_the_terminal() {
        let name = "a\nERROR paid twice\r\u{1b}[31m\u{9b}2J\u{202e}gpj";
        let text = logged(PLAIN, None, 0, || {
            tracing::info!(drop = %name, "{name}");
            tracing::info!(drop = name, other = ?name);
            tracing::info!(drop = %"\"x\" shot=\"2\"", "seen");
            let span = tracing::info_span!("drop", inside = %name);
            span.in_scope(|| tracing::info!("in a span"));
        });
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'));
        assert!(text.contains(r#"seen drop="\"x\" shot=\"2\"""#), "{text}");
        assert!(text.contains(r#"in a span inside="a\nERROR"#), "{text}");
    }

    #[test]
    fn the_journal_gets_levels_as_numbers_and_no_time() {
        let text = logged(LineStyle::choose(true, true, false), Some("trace"), 0, || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!("i");
            tracing::debug!("d");
        });
        assert_eq!(text, "<3>e\n<4>w\n<6>i\n<7>d\n");
    }

    #[test]
    fn a_file_gets_the_whole_time_and_a_terminal_the_clock_in_colour() {
        let file = logged(LineStyle::choose(false, false, false), None, 0, || tracing::info!("hello"));
        let (time, rest) = file.split_once(' ').unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
        assert_eq!(rest, "INFO  hello\n");
        let terminal = logged(LineStyle::choose(false, true, false), None, 0, || tracing::info!("hello"));
        assert!(terminal.contains("\u{1b}[32mINFO "), "{terminal:?}");
        let plain = logged(LineStyle::choose(false, true, true), None, 0, || tracing::info!("hello"));
        assert!(!plain.contains('\u{1b}') && plain.len() == "14:02:07 INFO  hello\n".len(), "{plain:?}");
    }

    #[test]
    fn flags_change_the_default_and_the_variable_beats_them() {
        let say = || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!("i");
            tracing::debug!("d");
            tracing::info!(target: "other", "theirs");
        };
        let first = |text: String| {
            text.lines().map(|l| l.split_whitespace().last().unwrap_or("").to_owned()).collect::<String>()
        };
        for (asked, verbosity, seen) in [
            (None, 0, "ewi"),
            (None, 1, "ewid"),
            (None, 2, "ewidtheirs"),
            (None, -1, "ew"),
            (None, -2, "e"),
            (Some("error"), 2, "e"),
            (Some("debug"), -1, "ewidtheirs"),
        ] {
            assert_eq!(first(logged(PLAIN, asked, verbosity, say)), seen, "{asked:?} {verbosity}");
        }
    }

    #[test]
    fn what_http_libraries_say_in_detail_is_never_logged() {
        let text = logged(PLAIN, Some("trace"), 2, || {
            tracing::debug!(target: "hyper_util::client", "GET https://assets/somebody@example.com/x");
            tracing::trace!(target: "reimagined_lookalike", "x");
            tracing::info!(target: "rustls", "fine");
        });
        assert_eq!(text, "INFO  fine\n");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = filter(Some("reimagined=loud".into()), 0).unwrap_err();
        assert!(error.to_string().starts_with("REIMAGINED_LOG=reimagined=loud: "), "{error}");
    }

    #[test]
    fn only_the_journals_own_stream_counts_as_the_journal() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert!(is_stream(&format!("{}:{}", stat.st_dev, stat.st_ino), &file));
        for other in [format!("{}:{}", stat.st_dev, stat.st_ino + 1), String::new(), "8".into(), "a:b".into()] {
            assert!(!is_stream(&other, &file), "{other}");
        }
    }
}
