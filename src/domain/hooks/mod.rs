//! What is told to programs and to a webhook: which news, in which form, and with which command line.
//!
//! Pure: a configuration becomes [`Settings`], news become an [`Event`], and a [`Command`] and an event become the
//! arguments of a program. Nothing that is told holds the key (nobody here has it) or any address: a reason may
//! quote the service, so what looks like one is blacked out.

mod command;
mod event;
mod pauses;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

pub use command::Command;
pub use event::Event;
pub use pauses::{Pause, Pauses, Source};

/// Occasions on which something can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum On {
    /// A drop is done.
    Done,
    /// A drop is in errors.
    Failed,
    /// Nothing is sent any more, or it goes on.
    Paused,
    /// A drop waits for something that only a person can give.
    Waiting,
}

impl On {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Paused, Self::Waiting];

    /// The key in `[hooks]` that names its program.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Done => "on_done",
            Self::Failed => "on_failed",
            Self::Paused => "on_paused",
            Self::Waiting => "on_waiting",
        }
    }

    /// The word in `webhook_events`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
        }
    }
}

/// `[hooks]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The program for each occasion that has one.
    pub programs: BTreeMap<On, Command>,
    /// A program is killed after that.
    pub timeout: Duration,
    /// Programs at the same time, at least 1.
    pub max_running: u32,
    /// A drop that waits is told of after that.
    pub waiting_after: Duration,
    /// A pause, and its end, is told once it lasted for that long.
    pub paused_after: Duration,
    /// Where events are posted.
    pub webhook: Option<Webhook>,
}

/// Where events are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// http or https.
    pub url: Url,
    /// The file with the secret that signs them.
    pub secret_file: Option<PathBuf>,
    /// On which occasions.
    pub events: BTreeSet<On>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            programs: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            max_running: 2,
            waiting_after: Duration::from_secs(600),
            paused_after: Duration::from_secs(60),
            webhook: None,
        }
    }
}

impl Settings {
    /// Whether anybody is told on this occasion.
    pub fn tells(&self, on: On) -> bool {
        self.programs.contains_key(&on) || self.posts(on)
    }

    /// Whether the webhook is told on this occasion.
    pub fn posts(&self, on: On) -> bool {
        self.webhook.as_ref().is_some_and(|webhook| webhook.events.contains(&on))
    }

    /// After how long a drop that waits is news; `None` if nobody wants to know.
    pub fn tell_waiting_after(&self) -> Option<Duration> {
        self.tells(On::Waiting).then_some(self.waiting_after)
    }
}
