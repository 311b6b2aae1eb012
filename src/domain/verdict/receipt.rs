//! What a reply's headers say about the bill, and how text from the wire is made fit for notes and logs.

use serde::{Deserialize, Serialize};

/// The longest header value that is kept, in characters.
const MAX_HEADER: usize = 200;

/// What the headers of an answer say; each may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The service's name for the request (`x-request-id`).
    pub request_id: Option<String>,
    /// What it cost, in dollars (`x-cost`).
    pub cost: Option<f64>,
    /// The account's credits after it, in dollars (`x-remaining-credits`). Never for the provenance.
    pub remaining_credits: Option<f64>,
    /// Seconds that the model worked (`x-generation-time`).
    pub generation_time: Option<f64>,
    /// The seed that was used (`x-seed-value`).
    pub seed: Option<i64>,
}

impl Receipt {
    /// Reads the headers through `header`, which gives a value by its lower-case name. What cannot be read
    /// counts as missing.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let number = |name: &str| {
            let text = header(name)?.trim();
            text.trim_start_matches('$').parse::<f64>().ok().filter(|n| n.is_finite())
        };
        Self {
            request_id: header("x-request-id").map(|id| tidy(id, MAX_HEADER)).filter(|id| !id.is_empty()),
            cost: number("x-cost").filter(|cost| *cost >= 0.0),
            remaining_credits: number("x-remaining-credits"),
            generation_time: number("x-generation-time").filter(|seconds| *seconds >= 0.0),
            seed: header("x-seed-value").and_then(|seed| seed.trim().parse().ok()),
        }
    }
}

/// `text` on one line: control characters and those that turn the direction of text become blanks, runs of
/// blanks one, and what is longer than `max_chars` is cut, with an ellipsis.
pub fn tidy(text: &str, max_chars: usize) -> String {
    let mut out = String::new();
    let mut chars = 0;
    let mut blank = false;
    for c in text.chars() {
        let hidden =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || c.is_whitespace() || hidden {
            blank = true;
            continue;
        }
        let needs_blank = blank && chars > 0;
        if chars + usize::from(needs_blank) >= max_chars {
            out.push('…');
            break;
        }
        if needs_blank {
            out.push(' ');
            chars += 1;
        }
        blank = false;
        out.push(c);
        chars += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_cannot_be_read_count_as_missing() {
        let good =
            [("x-request-id", "r\u{7}1"), ("x-cost", "0.04"), ("x-seed-value", "42"), ("x-remaining-credits", "-1")];
        let receipt = Receipt::read(|name| good.iter().find(|(n, _)| *n == name).map(|(_, v)| *v));
        assert_eq!(receipt.request_id.as_deref(), Some("r 1"));
        assert_eq!((receipt.cost, receipt.seed, receipt.remaining_credits), (Some(0.04), Some(42), Some(-1.0)));

        let bad = Receipt::read(|name| Some(if name == "x-request-id" { " \n" } else { "NaN" }));
        assert_eq!(bad, Receipt::default());
        assert_eq!(Receipt::read(|_| Some("-0.04")).cost, None);
    }

    #[test]
    fn tidy_text_is_one_bounded_line() {
        assert_eq!(tidy("\u{feff} a\r\n\tb\u{1b}[31m\u{202e}c ", 100), "a b [31m c");
        assert_eq!(tidy("ääää", 3), "äää…");
        assert_eq!(tidy("ääää", 4), "ääää");
        assert_eq!(tidy("aa  \n", 2), "aa");
    }
}
