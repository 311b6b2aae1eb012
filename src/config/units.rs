//! Durations and sizes as people write them: `"90s"`, `"3m15s"`, `"400d"`, `"12MB"`.

use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;

/// Longer is surely a slip of the keyboard, and adding it to a clock must not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Reads a duration: numbers with units, `ms` to `w`, days being 24 hours. The error is words for a person.
pub fn duration(text: &str) -> Result<Duration, String> {
    let asked = || "must be a duration such as \"90s\", \"5m\", \"2h\" or \"400d\"".to_owned();
    let span = SpanParser::new().parse_span(text.trim()).map_err(|_| asked())?;
    if span.is_negative() {
        return Err("must not be negative".into());
    }
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err("months and years have no fixed length: write days, such as \"400d\"".into());
    }
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| asked())?;
    let duration = Duration::try_from(exact).map_err(|_| asked())?;
    if duration > LONGEST { Err("is longer than a hundred years".into()) } else { Ok(duration) }
}

/// Reads a size in bytes: `"12MB"` (millions), `"12MiB"`. The error is words for a person.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let asked = || "must be a size such as \"12MB\" or \"800KB\"".to_owned();
    if !text.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(asked());
    }
    text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()).map_err(|_| asked())
}

/// A duration as a configuration would say it: `3m 15s`.
pub fn show_duration(duration: Duration) -> String {
    // A signed duration has no unit above hours.
    let day = 24 * 3600;
    if duration.subsec_nanos() == 0 && duration.as_secs() >= 2 * day && duration.as_secs().is_multiple_of(day) {
        return format!("{}d", duration.as_secs() / day);
    }
    let printer = jiff::fmt::friendly::SpanPrinter::new();
    jiff::SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{} s", duration.as_secs()), |exact| printer.duration_to_string(&exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_a_configuration_would_say_them() {
        for text in ["90s", "5m", "2h", "24h", "36h", "400d", "2d", "150ms"] {
            let said = duration(text).map(show_duration);
            let read = said.clone().and_then(|said| duration(&said));
            assert_eq!(read, duration(text), "{text}: {said:?}");
        }
        assert_eq!(duration("400d").map(show_duration), Ok("400d".into()));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let day = 24 * 3600;
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("400d", 400 * day),
            ("2w", 14 * day),
            ("3m15s", 195),
            ("3m 15s", 195),
            ("1h30m", 5400),
            ("1d12h", day * 3 / 2),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn nonsense_is_no_duration() {
        for text in ["", "5", "s", "5 parsecs", "-5s", "5s ago", "PT5M", "1y", "2mo", "99999d", "5s5", "1e3s", "∞"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("12MB", Some(12_000_000)),
            ("12 MB", Some(12_000_000)),
            ("1.5MiB", Some(1_572_864)),
            ("800kb", Some(800_000)),
            ("7B", Some(7)),
            ("12", None),
            ("", None),
            ("MB", None),
            ("-1MB", None),
            ("12 monkeys", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }
}
