//! What the daemon is doing, as `status --json` shows it: a documented, stable interface.
//!
//! The engine publishes it; a file, a terminal or a page show it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::gate::Why;

/// The most entries that [`Status::work`], [`Status::waiting_for`], [`Status::queue`] and
/// [`Status::ignored_files`] hold.
pub const MAX_LISTED: usize = 50;
/// The most entries that [`Status::last_failures`] holds.
pub const MAX_FAILURES: usize = 20;
/// The most entries that [`Status::broken_presets`] holds.
pub const MAX_BROKEN: usize = 50;

/// What the daemon is doing. Times are RFC 3339 in UTC, money is US dollars.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Whether it runs.
    pub state: State,
    /// Why nothing is sent; null when not paused.
    pub paused: Option<Paused>,
    /// Drops that are claimed and not filed yet.
    pub in_work: u64,
    /// Those drops, the longest in work first; [`MAX_LISTED`] at most.
    pub work: Vec<Work>,
    /// How many drops wait, by reason (`settling`, `prompt`, `image`, `preset_broken`, `limit` …).
    pub waiting: BTreeMap<String, u64>,
    /// Some of those that wait; [`MAX_LISTED`] at most.
    pub waiting_for: Vec<Waiting>,
    /// The folders in which drops wait or from which some are in work, the fullest first; [`MAX_LISTED`] at most.
    pub queue: Vec<Queue>,
    /// How many such folders there are besides those in `queue`.
    pub queue_left_out: u64,
    /// Drops that ended in errors and did not come back.
    pub failed: u64,
    /// The last of them, newest first; [`MAX_FAILURES`] at most.
    pub last_failures: Vec<Failure>,
    /// What was made in the last 24 hours.
    pub last_24h: Spend,
    /// What was made in the last 60 minutes.
    pub last_hour: Spend,
    /// What was made in the last 30 days (rolling, as the others are), as far back as the history is kept.
    pub last_30d: Spend,
    /// Credits left as the service last said; null if unknown.
    pub credits: Option<f64>,
    /// Files in the inbox that are left alone.
    pub ignored: u64,
    /// Some of them; [`MAX_LISTED`] at most.
    pub ignored_files: Vec<Ignored>,
    /// Presets that can't be read; their folders wait. [`MAX_BROKEN`] at most.
    pub broken_presets: Vec<BrokenPreset>,
    /// Ledgers that were found damaged and set aside, by their names in the state directory, oldest first, until
    /// somebody takes them away. [`MAX_LISTED`] at most.
    pub damaged_ledgers: Vec<String>,
    /// When the reached limit has room again; null when none is reached.
    pub limit_until: Option<Timestamp>,
    /// How the inbox is watched: `events` or `poll`.
    pub backend: String,
    /// Where things lie.
    pub folders: Folders,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process number; null when it is stopped.
    pub pid: Option<u32>,
    /// When this was written; null if there never was a daemon.
    pub updated: Option<Timestamp>,
}

/// Whether the daemon runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Running,
    /// It runs, and sends nothing but probes.
    Paused,
    /// It does not run.
    #[default]
    Stopped,
}

/// What kind of trouble a pause is about, for programs. Its words in JSON are stable; new ones may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// The API key is missing or was refused.
    Key,
    /// The account is out of credits.
    Credits,
    /// The service does not permit this account's requests.
    NotPermitted,
    /// The model's address is wrong.
    Endpoint,
    /// No connection to the service.
    Network,
    /// The service is in trouble.
    ServiceTrouble,
    /// The service asks to wait.
    RateLimit,
    /// The inbox is not there.
    Inbox,
    /// Our own disks, folders or ledger can't keep what would be bought.
    Storage,
    /// What is done cannot be put where it belongs.
    Delivery,
    /// What an older daemon did not say, or a newer one says.
    #[default]
    #[serde(other)]
    Other,
}

impl PauseKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Key,
        Self::Credits,
        Self::NotPermitted,
        Self::Endpoint,
        Self::Network,
        Self::ServiceTrouble,
        Self::RateLimit,
        Self::Inbox,
        Self::Storage,
        Self::Delivery,
        Self::Other,
    ];

    /// Its word, as it is in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Credits => "credits",
            Self::NotPermitted => "not_permitted",
            Self::Endpoint => "endpoint",
            Self::Network => "network",
            Self::ServiceTrouble => "service_trouble",
            Self::RateLimit => "rate_limit",
            Self::Inbox => "inbox",
            Self::Storage => "storage",
            Self::Delivery => "delivery",
            Self::Other => "other",
        }
    }
}

impl From<Why> for PauseKind {
    fn from(why: Why) -> Self {
        match why {
            Why::Key => Self::Key,
            Why::Credits => Self::Credits,
            Why::NotPermitted => Self::NotPermitted,
            Why::Endpoint => Self::Endpoint,
            Why::Network => Self::Network,
            Why::Trouble => Self::ServiceTrouble,
            Why::Rate => Self::RateLimit,
        }
    }
}

impl Paused {
    /// Why, in our own words, and what else is known of it: mostly the service's.
    pub fn parts(&self) -> (&str, Option<&str>) {
        let own = Why::ALL.into_iter().map(Why::text).find(|own| self.reason.starts_with(own));
        let behind = own.and_then(|own| Some((own, self.reason[own.len()..].strip_prefix(": ")?)));
        behind.map_or((&self.reason, None), |(own, more)| (own, Some(more)))
    }
}

/// Why nothing is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paused {
    /// What kind of trouble it is.
    #[serde(default)]
    pub kind: PauseKind,
    /// In plain words: "out of credits".
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again; null if that is not known.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// A drop in work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The drop's path below the inbox.
    pub drop: String,
    /// How far it is: "sending", "received" …
    pub state: String,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// Since when it is in work; null where an older daemon did not say.
    #[serde(default)]
    pub claimed: Option<Timestamp>,
}

/// A folder with drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its path below the inbox; `.` is the inbox itself.
    pub folder: String,
    /// Drops in it that wait, for whatever.
    pub waiting: u64,
    /// Drops of it that are in work.
    pub in_work: u64,
}

/// A file that is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// Its path below the inbox.
    pub file: String,
    /// Why.
    pub why: String,
}

/// A drop that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The drop's path below the inbox.
    pub drop: String,
    /// For what, as a key of [`Status::waiting`] or in a sentence.
    pub reason: String,
}

/// A drop that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The drop's path below errors.
    pub drop: String,
    /// Why, in one line.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A preset that can't be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrokenPreset {
    /// Its path.
    pub file: String,
    /// What is wrong with it, in one line.
    pub reason: String,
}

/// Images and their money in some span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spend {
    /// Images that were made.
    pub images: u64,
    /// What the priced ones of them cost, in US dollars.
    pub cost: f64,
    /// Those whose price the service did not say.
    pub unpriced: u64,
}

/// The folders of a daemon, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Folders {
    /// Where drops are put.
    pub inbox: String,
    /// Where they lie while they are sent.
    pub working: String,
    /// Where results appear.
    pub outbox: String,
    /// Where the originals of what is done go.
    pub archive: String,
    /// Where what failed goes, with its note.
    pub errors: String,
}

impl Status {
    /// The same, of a daemon that does not run any more: what was counted stays, what only a running one has
    /// (its number, a pause, a limit to wait for) goes.
    #[must_use]
    pub fn stopped(mut self) -> Self {
        self.state = State::Stopped;
        self.paused = None;
        self.limit_until = None;
        self.pid = None;
        self
    }

    /// How many drops wait, for whatever.
    pub fn waiting_in_all(&self) -> u64 {
        self.waiting.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::PauseKind;

    #[test]
    fn a_pauses_kind_has_the_same_word_everywhere_and_a_newer_ones_is_another() {
        for kind in PauseKind::ALL {
            assert_eq!(serde_json::to_value(kind).ok(), Some(kind.label().into()));
        }
        assert_eq!(serde_json::from_str(r#""of_tomorrow""#).ok(), Some(PauseKind::Other));
    }
}
