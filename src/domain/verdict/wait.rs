//! How long a 429 asks to wait. Lenient: seconds, milliseconds and dates of every usual form.

use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Longer waits count as this one, and then one drop is the probe.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How long to wait from `now`, and whether it was longer than [`LONGEST_WAIT`]. What is unreadable or past
/// gives `None`: backoff. `Retry-After` counts before the other one.
pub(super) fn wait(retry_after: Option<&str>, rate_reset: Option<&str>, now: Timestamp) -> (Option<Duration>, bool) {
    let asked = retry_after
        .and_then(|text| seconds(text).or_else(|| date(text).and_then(|at| until(at, now))))
        .filter(|wait| !wait.is_zero())
        .or_else(|| rate_reset.and_then(|text| moment(text).or_else(|| date(text))).and_then(|at| until(at, now)));
    match asked {
        Some(wait) if wait > LONGEST_WAIT => (Some(LONGEST_WAIT), true),
        other => (other, false),
    }
}

fn until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(at.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

/// Seconds, perhaps with a fraction. Never negative.
fn seconds(text: &str) -> Option<Duration> {
    let number = plain_number(text)?;
    Some(Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX))
}

/// A moment since 1970, in seconds or (from the year 5138 on, so surely) in milliseconds.
fn moment(text: &str) -> Option<Timestamp> {
    let number = plain_number(text)?;
    let ms = if number >= 1e11 { number } else { number * 1000.0 };
    // The cast saturates; what jiff cannot hold is a moment too far to name.
    Some(Timestamp::from_millisecond(ms as i64).unwrap_or(Timestamp::MAX))
}

fn plain_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

fn date(text: &str) -> Option<Timestamp> {
    let text = text.trim().trim_matches('"');
    if let Ok(at) = httpdate::parse_http_date(text) {
        let since = at.duration_since(UNIX_EPOCH).ok()?;
        return Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok();
    }
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    if let Ok(at) = jiff::fmt::rfc2822::parse(text) {
        return Some(at.timestamp());
    }
    // The header's name says that it is UTC, so a date may come without its zone.
    let bare = text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")).unwrap_or(text).trim();
    let bare: DateTime = bare.parse().ok()?;
    bare.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_usual_form_of_a_moment_is_understood() {
        let now: Timestamp = "2026-11-23T04:00:00Z".parse().unwrap();
        let unix = now.as_second();
        let s = |n| (Some(Duration::from_secs(n)), false);
        let none = (None, false);
        let hour = (Some(LONGEST_WAIT), true);
        let table = [
            (None, None, none),
            (Some("7".into()), None, s(7)),
            (Some(" 7 ".into()), None, s(7)),
            (Some("1.5".into()), None, (Some(Duration::from_millis(1500)), false)),
            (Some("0".into()), None, none),
            (Some("-5".into()), None, none),
            (Some("soon".into()), None, none),
            (Some("NaN".into()), None, none),
            (Some("inf".into()), None, none),
            (Some("3600".into()), None, s(3600)),
            (Some("3601".into()), None, hour),
            (Some("9".repeat(400)), None, hour),
            (Some("Mon, 23 Nov 2026 04:00:30 GMT".into()), None, s(30)),
            (Some("Mon, 23 Nov 2026 03:59:30 GMT".into()), None, none),
            (Some("Tue, 24 Nov 2026 04:00:30 GMT".into()), None, hour),
            (Some("Mon, 23 Nov 2026 05:00:30 +0100".into()), None, s(30)),
            (None, Some((unix + 20).to_string()), s(20)),
            (None, Some(((unix + 20) * 1000).to_string()), s(20)),
            (None, Some(format!("{}.0", unix + 20)), s(20)),
            (None, Some((unix - 20).to_string()), none),
            (None, Some("9".repeat(30)), hour),
            (None, Some("2026-11-23T04:00:20Z".into()), s(20)),
            (None, Some("2026-11-23T04:00:20+00:00".into()), s(20)),
            (None, Some("2026-11-23 04:00:20".into()), s(20)),
            (None, Some("2026-11-23 04:00:20 UTC".into()), s(20)),
            (None, Some("2026-11-23T04:00:20.500".into()), (Some(Duration::from_millis(20_500)), false)),
            (None, Some("Mon, 23 Nov 2026 04:00:20 GMT".into()), s(20)),
            (None, Some("tomorrow".into()), none),
            (Some("5".into()), Some((unix + 20).to_string()), s(5)),
            (Some("?".into()), Some((unix + 20).to_string()), s(20)),
            (Some("0".into()), Some((unix + 20).to_string()), s(20)),
        ];
        for (after, reset, want) in table {
            assert_eq!(wait(after.as_deref(), reset.as_deref(), now), want, "{after:?} {reset:?}");
        }
    }
}
