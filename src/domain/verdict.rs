//! What an answer of the API means, and whose fault it is.
//!
//! [`judge`] turns a reply, [`judge_lost`] a lost exchange into a [`Verdict`]; both are total: every status
//! and every failure has a meaning. The three kinds that must never be mixed up are *this drop is bad*
//! ([`Verdict::Fault`]), *account, configuration or network is bad* ([`Verdict::Pause`]) and *nobody knows*
//! ([`Verdict::Unconfirmed`]). Where the account's credits must decide, the verdict is [`Verdict::Ask`] and
//! [`decide_ask`] ends it.
//!
//! Nothing here counts attempts, waits or remembers: backoff, the breaker and the probe are the caller's.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod credits;
mod receipt;
mod wait;

pub use credits::{Credits, SMALLEST_BALANCE, decide_ask, good, judge_credits};
pub use receipt::{Receipt, tidy};
pub use wait::LONGEST_WAIT;

/// A 5xx that comes later than this may stand for a job that went on behind the gateway.
pub const PROMPT_FAILURE: Duration = Duration::from_secs(30);

/// The longest text of the service that is kept, in characters.
pub const MAX_WORDS: usize = 2000;

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The paid model call.
    Model,
    /// The upload of a reference, free.
    Upload,
}

/// What the body of a reply turned out to be, whatever its headers said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// A picture, wholly received.
    Picture,
    /// A URL where the picture (or, for an upload, the reference) lies.
    Link(String),
    /// JSON with an error's text and no picture.
    Refusal,
    /// Anything else.
    Unusable {
        /// What was received, for people.
        what: String,
        /// Whether the connection was lost or timed out while it came.
        lost: bool,
    },
}

/// A reply whose status line was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The header `x-rate-limit-reset-at-utc`, as it came.
    pub rate_reset: Option<String>,
    /// The service's own words, without control characters, [`MAX_WORDS`] at most, nothing secret in them.
    pub message: Option<String>,
    /// Whether the whole text, also behind what `message` keeps, speaks of a timeout or of polling.
    pub gave_up: bool,
    /// What the body is.
    pub body: BodyKind,
    /// How long after the request was begun the status came.
    pub after: Duration,
}

/// Whether something was paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Billed {
    /// Surely not.
    No,
    /// Surely.
    Yes,
    /// Nobody knows.
    Unknown,
}

impl fmt::Display for Billed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        })
    }
}

/// Why everything pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PauseWhy {
    /// The key is missing or was refused.
    Key,
    /// The account is out of credits.
    Credits,
    /// The model or endpoint is gone, moved or wrong: a matter of the configuration.
    Endpoint,
    /// The service could not be reached.
    Network,
    /// The service refuses, and the credits request did not say why.
    Refused,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The picture came with the answer: billed.
    Picture,
    /// The picture lies at a URL: billed. Commit the URL, then download.
    Link {
        /// The URL as the service gave it; it may be none, or one that the rules refuse.
        url: String,
    },
    /// The drop's own fault: to `errors/`, never sent again by itself.
    Fault {
        /// For people, with the service's own words.
        message: String,
        /// Whether it was paid for.
        billed: Billed,
        /// If the reference was a cached upload, it may be gone: upload again and send once more first.
        maybe_stale_reference: bool,
    },
    /// Everything pauses; surely not billed.
    Pause {
        /// Why.
        why: PauseWhy,
        /// For people.
        message: String,
    },
    /// The free credits request decides; see [`decide_ask`]. Surely not billed.
    Ask {
        /// For people, with the service's own words.
        message: String,
    },
    /// All workers wait; costs no attempt, surely not billed.
    Wait {
        /// How long from now; `None`: by backoff.
        for_: Option<Duration>,
        /// The service asked for more than an hour: after an hour one drop is the probe.
        long: bool,
        /// For people.
        message: String,
    },
    /// Once more with backoff, while attempts are left.
    Retry {
        /// For people.
        message: String,
        /// Whether it counts for the breaker.
        trouble: bool,
    },
    /// It may have been billed and nobody knows.
    Unconfirmed {
        /// For people.
        message: String,
        /// Whether it counts for the breaker.
        trouble: bool,
    },
}

impl Verdict {
    /// The word for it, in the log and in metrics: stable.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Picture => "picture",
            Self::Link { .. } => "link",
            Self::Fault { .. } => "fault",
            Self::Pause { .. } => "pause",
            Self::Ask { .. } => "ask",
            Self::Wait { .. } => "wait",
            Self::Retry { .. } => "retry",
            Self::Unconfirmed { .. } => "unconfirmed",
        }
    }

    /// Whether this was a 5xx, a timeout or a lost connection: what the breaker counts.
    pub fn is_trouble(&self) -> bool {
        matches!(self, Self::Retry { trouble: true, .. } | Self::Unconfirmed { trouble: true, .. })
    }

    /// Whether this may have been, or was, paid for.
    pub fn billed(&self) -> Billed {
        match self {
            Self::Picture | Self::Link { .. } => Billed::Yes,
            Self::Fault { billed, .. } => *billed,
            Self::Unconfirmed { .. } => Billed::Unknown,
            Self::Pause { .. } | Self::Ask { .. } | Self::Wait { .. } | Self::Retry { .. } => Billed::No,
        }
    }
}

/// Why a request surely did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSentKind {
    /// The host's name has no address, or nobody could be asked for it.
    Dns,
    /// Nobody listens there.
    Refused,
    /// No way there.
    Unreachable,
    /// No connection within the time for it.
    Timeout,
    /// The other side could not prove who it is, or speaks no TLS.
    Tls,
    /// Anything else before the request, a proxy that refuses among it.
    Other,
}

/// A request that surely did not leave: not billed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent {
    /// Why.
    pub kind: NotSentKind,
    /// For people.
    pub message: String,
}

/// A request that left, or may have left, and was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaybeSent {
    /// For people.
    pub message: String,
}

/// An exchange without a status line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Surely not sent.
    NotSent(NotSent),
    /// Perhaps sent.
    MaybeSent(MaybeSent),
}

/// What `reply` of `endpoint` means; `now` counts for dates in its headers.
pub fn judge(endpoint: Endpoint, reply: &Reply, now: Timestamp) -> Verdict {
    for_endpoint(endpoint, of_model(reply, now))
}

/// What a lost exchange means.
pub fn judge_lost(endpoint: Endpoint, lost: &Lost) -> Verdict {
    let verdict = match lost {
        Lost::NotSent(not_sent) => Verdict::Pause { why: PauseWhy::Network, message: not_sent.message.clone() },
        Lost::MaybeSent(maybe) => Verdict::Unconfirmed { message: maybe.message.clone(), trouble: true },
    };
    for_endpoint(endpoint, verdict)
}

/// Whether an error's text says that something gave up waiting, while the job behind it may have gone on.
pub fn speaks_of_timeout(text: &str) -> bool {
    let text = text.to_lowercase();
    [
        "timeout",
        "timed out",
        "timed_out",
        "timed-out",
        "time-out",
        "time_out",
        "time out",
        "timedout",
        "timing out",
        "polling",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn of_model(reply: &Reply, now: Timestamp) -> Verdict {
    let message = said(reply);
    match reply.status {
        200 => match &reply.body {
            BodyKind::Picture => Verdict::Picture,
            BodyKind::Link(url) => Verdict::Link { url: url.clone() },
            BodyKind::Refusal => Verdict::Fault { message, billed: Billed::Unknown, maybe_stale_reference: false },
            BodyKind::Unusable { what, lost } => Verdict::Unconfirmed { message: what.clone(), trouble: *lost },
        },
        400 | 413 | 415 | 422 | 460 => Verdict::Fault { message, billed: Billed::No, maybe_stale_reference: true },
        401 => Verdict::Pause { why: PauseWhy::Key, message },
        402 => Verdict::Pause { why: PauseWhy::Credits, message },
        403 | 406 => Verdict::Ask { message },
        404 | 405 | 410 | 300..=399 => Verdict::Pause { why: PauseWhy::Endpoint, message },
        408 => Verdict::Unconfirmed { message, trouble: true },
        429 => {
            let (for_, long) = wait::wait(reply.retry_after.as_deref(), reply.rate_reset.as_deref(), now);
            Verdict::Wait { for_, long, message }
        }
        400..=499 => Verdict::Fault { message, billed: Billed::No, maybe_stale_reference: false },
        500 | 502 | 503 if reply.after <= PROMPT_FAILURE && !gave_up(reply) => {
            Verdict::Retry { message, trouble: true }
        }
        500..=599 => Verdict::Unconfirmed { message, trouble: true },
        // Any other 2xx, and what is no status at all.
        _ => Verdict::Unconfirmed { message, trouble: false },
    }
}

/// What is left of a verdict where nothing is billed.
fn for_endpoint(endpoint: Endpoint, verdict: Verdict) -> Verdict {
    let no_bill = match verdict {
        verdict if endpoint == Endpoint::Model => return verdict,
        Verdict::Unconfirmed { message, trouble } => Verdict::Retry { message, trouble },
        Verdict::Fault { message, .. } => Verdict::Fault { message, billed: Billed::No, maybe_stale_reference: false },
        other => other,
    };
    match no_bill {
        Verdict::Picture => {
            Verdict::Retry { message: "the upload was answered with a picture, not a URL".into(), trouble: false }
        }
        verdict => verdict,
    }
}

fn gave_up(reply: &Reply) -> bool {
    reply.gave_up || reply.message.as_deref().is_some_and(speaks_of_timeout)
}

fn said(reply: &Reply) -> String {
    match &reply.message {
        Some(words) if !words.is_empty() => format!("HTTP {}: {words}", reply.status),
        _ => format!("HTTP {} without an explanation", reply.status),
    }
}

#[cfg(test)]
mod tests;
