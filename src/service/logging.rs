//! The log: one line per event, to stderr or the journal.
//!
//! For people: time, level, message, fields. For the journal (when stderr is the journal's own stream): the same
//! line without time and level, and each field as one of the journal's own, so that it can be searched. For
//! programs, on request: a JSON object a line. In the first two, control characters in messages and fields are
//! escaped, in the third those that JSON escapes: the name of a dropped file can neither add a line nor write to the
//! terminal. A log that can't be written is lost, and nothing else: a terminal that went away ends no daemon.
//!
//! What other crates say below `info` is never logged, whatever the filter asks for: that is where HTTP
//! libraries write addresses and headers.

mod journal;
mod line;

use std::io::{self, Write as _};
use std::sync::Arc;

use jiff::Zoned;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::journal::Journal;
use self::line::{Fields, LineStyle, stderr_is_the_journal};
use crate::domain::ids::show_text;

/// The variable that says what is logged, in the words of `tracing`'s filters: `debug`, or
/// `reimagined::inbox=trace,warn`.
pub const FILTER_VARIABLE: &str = "REIMAGINED_LOG";

const OURS: &str = "reimagined";

/// Where finished lines go, each with its newline.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The journal's fields where stderr is the journal's, else lines for people.
    #[default]
    Auto,
    /// Lines for people, wherever they go.
    Human,
    /// One JSON object a line.
    Json,
}

/// How the log is to be.
#[derive(Clone, Default)]
pub struct Options {
    /// `-v` counted up, `-q` down; 0 is `info`. Only the default: [`FILTER_VARIABLE`] beats it.
    pub verbosity: i8,
    /// How lines look.
    pub format: Format,
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
    /// A word in it is no level, and would be taken for the name of a program part that logs nothing.
    #[error("{FILTER_VARIABLE}={}: {} is none of error, warn, info, debug, trace and off", show_text(.text), show_text(.word))]
    Word {
        /// What it holds.
        text: String,
        /// The word.
        word: String,
    },
    /// There is a log already.
    #[error("the log is set up already")]
    Twice,
}

/// Sets up the log of this process, once.
pub fn init(options: Options) -> Result<(), LogError> {
    let asked = std::env::var_os(FILTER_VARIABLE).filter(|text| !text.is_empty());
    let filter = filter(asked.map(|text| text.to_string_lossy().into_owned()), options.verbosity)?;
    let sink = options.sink.unwrap_or_else(|| Arc::new(to_stderr));
    let journal = (options.format == Format::Auto && stderr_is_the_journal()).then(Journal::open).and_then(Result::ok);
    let layer: Boxed = match (options.format, journal) {
        (Format::Json, _) => json(sink).boxed(),
        (_, Some(journal)) => journal.boxed(),
        (_, None) => lines(LineStyle::of_stderr(), sink).boxed(),
    };
    let layer = layer.with_filter(filter).with_filter(filter_fn(may_be_logged));
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| LogError::Twice)
}

type Boxed = Box<dyn tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync>;

fn to_stderr(line: &str) {
    // In one write, so that lines of several processes don't mix; an error has nowhere to go.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

fn filter(asked: Option<String>, verbosity: i8) -> Result<EnvFilter, LogError> {
    let text = asked.unwrap_or_else(|| default_filter(verbosity).to_owned());
    if let Some(word) = text.split(',').map(str::trim).find(|word| is_no_level(word)) {
        return Err(LogError::Word { word: word.to_owned(), text });
    }
    EnvFilter::builder().parse(&text).map_err(|source| LogError::Filter { text, source })
}

/// Whether this is a bare word that is neither a level nor a part of this program. It would silence the log, errors too.
fn is_no_level(word: &str) -> bool {
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    is_word && word != OURS && word.parse::<tracing_subscriber::filter::LevelFilter>().is_err()
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

fn lines<S>(style: LineStyle, sink: Sink) -> impl tracing_subscriber::Layer<S>
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

fn json<S>(sink: Sink) -> impl tracing_subscriber::Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_timer(Rfc3339)
        .with_writer(To(sink))
        .log_internal_errors(false)
}

/// The wall clock, with the offset of this machine's zone.
struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{}", Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"))
    }
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

    use super::line::{Time, is_stream};
    use super::*;

    const PLAIN: LineStyle = LineStyle { time: Time::None, colour: false, syslog: false };

    /// What a layer, made for the sink that it is given, writes.
    fn written<L>(layer: impl FnOnce(Sink) -> L, asked: Option<&str>, verbosity: i8, say: impl FnOnce()) -> String
    where
        L: tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync,
    {
        let text = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&text);
        let sink: Sink = Arc::new(move |line| into.lock().unwrap().push_str(line));
        let filter = filter(asked.map(str::to_owned), verbosity).unwrap();
        let layer = layer(sink).with_filter(filter).with_filter(filter_fn(may_be_logged));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
        text.lock().unwrap().clone()
    }

    fn logged(style: LineStyle, asked: Option<&str>, verbosity: i8, say: impl FnOnce()) -> String {
        written(|sink| lines(style, sink), asked, verbosity, say)
    }

    #[test]
    fn a_program_gets_an_object_a_line_with_every_field() {
        let text = written(json, None, 0, || {
            tracing::warn!(drop = %"cafe/a\nb\u{1b}.jpg", folder = "cafe", shot = 1, cost = Some(0.04), "failed");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_end().chars().all(|c| !c.is_control()), "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        for (key, value) in [
            ("level", serde_json::json!("WARN")),
            ("message", "failed".into()),
            ("drop", "cafe/a\nb\u{1b}.jpg".into()),
            ("folder", "cafe".into()),
            ("shot", 1.into()),
            ("cost", 0.04.into()),
        ] {
            assert_eq!(line[key], value, "{key} in {text}");
        }
    }

    #[test]
    fn what_a_line_says_already_is_not_said_again_for_people() {
        let text = logged(PLAIN, None, 0, || {
            tracing::info!(drop = "a/b.jpg", folder = "a", verdict = "delivered", "delivered");
        });
        assert_eq!(text, "INFO  delivered drop=a/b.jpg\n");
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
        for text in ["inof", "warn, nonsense", "verbose,reimagined=debug"] {
            let error = filter(Some(text.into()), 0).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("REIMAGINED_LOG={text}: ")) && error.contains("none of error"),
                "{error}"
            );
        }
        for text in
            ["INFO", "off", "3", "reimagined", "reimagined::inbox=trace,warn", "hyper=info", "reimagined::engine", ""]
        {
            assert!(filter(Some(text.into()), 0).is_ok(), "{text}");
        }
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
