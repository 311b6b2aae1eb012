//! `--since`: a time ago, or a day.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::config::units;

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// From the beginning of that day in this machine's zone.
    Day(Date),
    /// From that moment.
    At(Timestamp),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(ago) = units::duration(text) {
            return Ok(Self::Ago(ago));
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        // Whole, since a date is also found in what only begins with one.
        match Date::strptime("%Y-%m-%d", text) {
            Ok(day) => Ok(Self::Day(day)),
            Err(_) => Err("a time ago such as 12h or 7d, or a day such as 2026-11-01".into()),
        }
    }
}

impl Since {
    /// The moment that it means.
    pub fn moment(self, now: &Zoned) -> Result<Timestamp, String> {
        let moment = match self {
            Self::At(at) => Ok(at),
            Self::Ago(ago) => SignedDuration::try_from(ago).and_then(|ago| now.timestamp().checked_sub(ago)),
            Self::Day(day) => day.to_zoned(now.time_zone().clone()).map(|day| day.timestamp()),
        };
        moment.map_err(|e| format!("--since: {e}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_time_ago_a_day_and_a_moment_are_understood() {
        let now: Zoned = "2026-11-23T15:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, moment) in [
            ("7d", "2026-11-16T14:00:00Z"),
            ("12h", "2026-11-23T02:00:00Z"),
            ("1h30m", "2026-11-23T12:30:00Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00Z"),
        ] {
            let since: Since = text.parse().unwrap();
            assert_eq!(since.moment(&now).unwrap().to_string(), moment, "{text}");
        }
        for text in ["", "yesterday", "7", "-7d", "2026-13-01", "2026-11-01 noon", "2m ago soon"] {
            let wrong = text.parse::<Since>().unwrap_err();
            assert!(wrong.contains("2026-11-01"), "{text}: {wrong}");
        }
    }
}
