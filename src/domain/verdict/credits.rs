//! What the free credits request says, and how it decides an answer that could mean either.

use serde_json::Value;

use super::{Billed, MAX_WORDS, PauseWhy, Verdict, tidy};

/// Enough for one picture where no cost was seen yet, in dollars.
pub const SMALLEST_BALANCE: f64 = 0.05;

/// The answer of the credits request.
#[derive(Clone, Debug, PartialEq)]
pub enum Credits {
    /// Enough for another picture.
    Good {
        /// Credits and free credits together, in dollars.
        total: f64,
    },
    /// Not enough.
    Low {
        /// Credits and free credits together, in dollars.
        total: f64,
    },
    /// The key was refused.
    Refused {
        /// For people.
        message: String,
    },
    /// The service knows no credits of this user; the next job itself is the probe.
    NoneFound,
    /// Some other answer.
    Other {
        /// For people.
        message: String,
    },
    /// No answer.
    NoAnswer {
        /// For people.
        message: String,
    },
}

impl Credits {
    /// What the account holds, in dollars, where it was said.
    pub fn total(&self) -> Option<f64> {
        match self {
            Self::Good { total } | Self::Low { total } => Some(*total),
            _ => None,
        }
    }
}

/// Whether `total` dollars are enough for another picture: the last seen cost, else [`SMALLEST_BALANCE`].
pub fn good(total: f64, last_cost: Option<f64>) -> bool {
    let need = last_cost.filter(|cost| cost.is_finite() && *cost >= 0.0).unwrap_or(SMALLEST_BALANCE);
    // A millionth of a dollar makes up for sums like 0.1 + 0.2.
    total + 1e-6 >= need
}

/// What a status and a body of the credits request mean; `last_cost` is the last seen `x-cost`, in dollars.
pub fn judge_credits(status: u16, body: &[u8], last_cost: Option<f64>) -> Credits {
    match status {
        200 => match total(body) {
            Some(total) if good(total, last_cost) => Credits::Good { total },
            Some(total) => Credits::Low { total },
            None => {
                Credits::Other { message: format!("the credits request was answered without credits: {}", words(body)) }
            }
        },
        401 | 403 => Credits::Refused { message: format!("HTTP {status}: {}", words(body)) },
        402 => Credits::Low { total: 0.0 },
        404 => Credits::NoneFound,
        _ => {
            Credits::Other { message: format!("the credits request was answered with HTTP {status}: {}", words(body)) }
        }
    }
}

/// Ends [`Verdict::Ask`] with the service's words `message`: good credits make it the drop's fault, anything
/// else pauses.
pub fn decide_ask(credits: &Credits, message: &str) -> Verdict {
    let message = message.to_owned();
    match credits {
        Credits::Good { .. } => Verdict::Fault { message, billed: Billed::No, maybe_stale_reference: false },
        Credits::Low { .. } => Verdict::Pause { why: PauseWhy::Credits, message },
        Credits::Refused { .. } => Verdict::Pause { why: PauseWhy::Key, message },
        Credits::NoneFound | Credits::Other { .. } | Credits::NoAnswer { .. } => {
            Verdict::Pause { why: PauseWhy::Refused, message }
        }
    }
}

fn total(body: &[u8]) -> Option<f64> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let read = |names: &[&str]| {
        names.iter().find_map(|name| {
            let value = json.get(*name)?;
            value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|n| n.is_finite())
        })
    };
    match (read(&["credits"]), read(&["free-credits", "free_credits"])) {
        (None, None) => None,
        (paid, free) => Some(paid.unwrap_or(0.0) + free.unwrap_or(0.0)),
    }
}

fn words(body: &[u8]) -> String {
    let text = tidy(&String::from_utf8_lossy(body), MAX_WORDS);
    if text.is_empty() { "nothing".into() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_cost_decides_whether_credits_are_good() {
        let table = [
            (0.05, None, true),
            (0.049, None, false),
            (0.04, Some(0.04), true),
            (0.039, Some(0.04), false),
            (0.1 + 0.2, Some(0.3), true),
            (0.0, Some(0.0), true),
            (0.04, Some(f64::NAN), false),
            (-1.0, None, false),
        ];
        for (total, cost, want) in table {
            assert_eq!(good(total, cost), want, "{total} {cost:?}");
        }
    }

    #[test]
    fn credits_answers_have_their_meaning() {
        let judge = |status, body: &str| judge_credits(status, body.as_bytes(), None);
        assert_eq!(judge(200, r#"{"credits": 0.0, "free-credits": 0.018}"#), Credits::Low { total: 0.018 });
        assert_eq!(judge(200, r#"{"credits": 2, "free-credits": null}"#), Credits::Good { total: 2.0 });
        assert_eq!(judge(200, r#"{"credits": "1.5"}"#), Credits::Good { total: 1.5 });
        assert!(matches!(judge(200, "{}"), Credits::Other { .. }));
        assert!(matches!(judge(200, "<html>"), Credits::Other { .. }));
        assert!(matches!(judge(401, ""), Credits::Refused { .. }));
        assert!(matches!(judge(403, ""), Credits::Refused { .. }));
        assert_eq!(judge(402, ""), Credits::Low { total: 0.0 });
        assert_eq!(judge(404, "No credits found for the user"), Credits::NoneFound);
        for other in [301, 429, 500, 204, 418] {
            assert!(matches!(judge(other, ""), Credits::Other { .. }), "{other}");
        }
    }

    #[test]
    fn only_good_credits_make_it_the_drops_fault() {
        let why = |credits: Credits| match decide_ask(&credits, "no") {
            Verdict::Pause { why, .. } => Some(why),
            Verdict::Fault { billed: Billed::No, maybe_stale_reference: false, .. } => None,
            other => panic!("{other:?}"),
        };
        let text = String::new;
        assert_eq!(why(Credits::Good { total: 1.0 }), None);
        assert_eq!(why(Credits::Low { total: 0.0 }), Some(PauseWhy::Credits));
        assert_eq!(why(Credits::Refused { message: text() }), Some(PauseWhy::Key));
        assert_eq!(why(Credits::NoneFound), Some(PauseWhy::Refused));
        assert_eq!(why(Credits::Other { message: text() }), Some(PauseWhy::Refused));
        assert_eq!(why(Credits::NoAnswer { message: text() }), Some(PauseWhy::Refused));
    }
}
