//! What happened, for those who are told of it besides the log and the status: metrics, programs, webhooks.
//!
//! News are said once it is true and durable, in the order in which the engine learns of it, and are never
//! waited for: nothing in the life of a drop follows from them. They hold no key and no asset URL. After a crash
//! the last of them may never be said; the ledger has what they would have told.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::arrivals::Reason;
use super::ids::{DropId, Place};
use super::status::PauseKind;
use super::verdict::Billed;

/// One piece of news.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A drop was complete. Said when it was read and found whole, and once for its picture as it is; again where
    /// it was claimed and went back.
    Complete {
        /// From the last change that was noticed of its files until the rules called it complete: without the wait
        /// for its turn, a prompt or a preset.
        after: Duration,
    },
    /// A reference was uploaded, or was not.
    Uploaded {
        /// The whole exchange.
        took: Duration,
        /// Whether there is an address now.
        well: bool,
    },
    /// The paid request of a shot was answered, or got no answer.
    Answered {
        /// [`super::verdict::Verdict::label`].
        verdict: &'static str,
        /// The whole exchange.
        took: Duration,
        /// Whether it was billed, as far as the answer tells.
        billed: Billed,
        /// US dollars, if the service said so.
        cost: Option<f64>,
    },
    /// A result stands in the outbox.
    Delivered {
        /// Since its answer was read in this run; `None` where it was read before a restart.
        after: Option<Duration>,
        /// US dollars, if the service said so.
        cost: Option<f64>,
    },
    /// A drop has ended and its originals are filed.
    Ended(Box<EndedDrop>),
    /// Nothing is sent from now on, or for another reason than before.
    Paused {
        /// What kind of trouble it is.
        kind: PauseKind,
        /// In plain words, as `status` has it.
        reason: String,
        /// Since when.
        since: Timestamp,
        /// When it is tried again, if that is known.
        until: Option<Timestamp>,
    },
    /// The pause is over.
    Resumed,
    /// A limit of ours is reached: the queue waits in the inbox.
    Limited {
        /// `images_per_hour` or `images_per_day`.
        which: &'static str,
        /// When there is room for one more.
        until: Timestamp,
    },
    /// The limit has room again.
    LimitOver,
    /// A drop waits for something that only a person can give, for as long as somebody wanted to know.
    Waiting {
        /// The file that stands for it.
        place: Place,
        /// [`Reason::Prompt`], [`Reason::Image`] or [`Reason::Sidecar`].
        reason: Reason,
        /// Since when its files are unchanged.
        since: Timestamp,
        /// How many others in its folder wait for the same; they are told with it.
        others: usize,
    },
}

/// How a drop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// All its results are in the outbox, its originals in the archive.
    Done,
    /// In errors; of every shot it is known whether it was billed.
    Failed,
    /// In errors; nobody knows of some shot whether it was billed.
    Unconfirmed,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Unconfirmed];

    /// The word for it: stable.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// A drop that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedDrop {
    /// Its identity.
    pub id: DropId,
    /// Where it lay in the inbox.
    pub place: Place,
    /// How it ended.
    pub ending: Ending,
    /// Why it is in errors, in plain words.
    pub reason: Option<String>,
    /// Where its originals lie now.
    pub originals: Vec<PathBuf>,
    /// The note beside them, in errors.
    pub note: Option<PathBuf>,
    /// Each of its shots.
    pub shots: Vec<EndedShot>,
    /// When it was filed.
    pub at: Timestamp,
}

/// A shot of a drop that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedShot {
    /// The result in the outbox, if it was delivered.
    pub result: Option<PathBuf>,
    /// Its seed, if it is known.
    pub seed: Option<i64>,
    /// Whether it was billed.
    pub billed: Billed,
    /// US dollars, if the service said so.
    pub cost: Option<f64>,
    /// The service's name for the request.
    pub request_id: Option<String>,
}

impl EndedDrop {
    /// What its shots cost as far as it is known, US dollars; `None` where no price is known.
    pub fn cost(&self) -> Option<f64> {
        self.shots.iter().filter_map(|shot| shot.cost).reduce(|a, b| a + b)
    }
}
