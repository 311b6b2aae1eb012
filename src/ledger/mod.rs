//! Durable steps, recovery, history and money.
//!
//! [`Ledger`] is a seam in the words of the life of a drop: an embedded database stands behind it now, a
//! shared one can stand beside it later. Each method is one transaction, durable when it returns. Nothing
//! here moves files or sends requests; the engine records here before it acts.

pub mod clock;
pub mod past;
pub mod returning;
pub mod sqlite;
pub mod thread;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{DropId, Fingerprint, RelPath, ShotNo};
use crate::domain::life::{Fate, Shot};
use crate::domain::verdict::Billed;

/// What kept the ledger from doing its work.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No room, read-only, or an I/O error: nothing can be recorded, so nothing may be sent.
    #[error("{}: {source}", path.display())]
    Io {
        /// The database.
        path: PathBuf,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another program holds it.
    #[error("{}: locked by another program", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// Written by a newer version of the program: refused and left alone.
    #[error("{}: written by a newer version of reimagined (schema {found}, this one knows {known})", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// Not a good database any more.
    #[error("{}: damaged: {why}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file was removed or replaced while it was open: what is recorded now would be lost.
    #[error("{}: the ledger that is open is not there any more (removed, or another file in its place)", path.display())]
    Moved {
        /// The database, or its log.
        path: PathBuf,
    },
    /// It was asked for something that has no meaning, such as a step of a drop that is closed: a bug of
    /// the caller. Nothing was written.
    #[error("{}: {what}", path.display())]
    Misused {
        /// The database.
        path: PathBuf,
        /// What was asked for.
        what: String,
    },
    /// A call panicked. Its transaction was rolled back; the ledger goes on.
    #[error("a call of the ledger panicked: {0}")]
    Panicked(String),
    /// The thread that owns it is gone.
    #[error("the ledger's thread has ended")]
    Gone,
}

impl LedgerError {
    /// The same once more, for another who has to be told.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Self::Io { path, source } => Self::Io { path: path.clone(), source: source.to_string().into() },
            Self::Busy { path } => Self::Busy { path: path.clone() },
            Self::Newer { path, found, known } => Self::Newer { path: path.clone(), found: *found, known: *known },
            Self::Damaged { path, why } => Self::Damaged { path: path.clone(), why: why.clone() },
            Self::Moved { path } => Self::Moved { path: path.clone() },
            Self::Misused { path, what } => Self::Misused { path: path.clone(), what: what.clone() },
            Self::Panicked(why) => Self::Panicked(why.clone()),
            Self::Gone => Self::Gone,
        }
    }

    /// It, and what to do where it does not pass by itself.
    pub fn for_a_person(&self) -> String {
        match self {
            Self::Damaged { .. } => {
                format!("{self}; restart the daemon: the damaged one is kept aside then, and a new one begun")
            }
            Self::Moved { .. } => format!(
                "{self}; put it back, or restart the daemon: what is in working then goes to errors, since nobody knows what of it was sent"
            ),
            _ => self.to_string(),
        }
    }
}

/// A moment by both clocks, so that rolling limits survive changes of the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: Timestamp,
    /// This boot's identity (`/proc/sys/kernel/random/boot_id`), empty if unknown.
    pub boot: String,
    /// Time since that boot (`CLOCK_BOOTTIME`).
    pub since_boot: Duration,
}

/// What a file of a drop is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The reference image.
    Picture,
    /// A sidecar.
    Sidecar,
    /// A file that is no drop: it only goes to errors.
    Foreign,
}

/// A file of a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in the inbox and in working.
    pub name: OsString,
    /// What it is.
    pub role: Role,
    /// BLAKE3 of its bytes; `None` where they could not be read.
    pub print: Option<Fingerprint>,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it moves with this drop. A shared sidecar that is only read stays in the inbox.
    pub moves: bool,
}

/// A drop as it is claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDrop {
    /// Its identity.
    pub id: DropId,
    /// Its folder below the inbox.
    pub folder: RelPath,
    /// Its stem as spelled.
    pub stem: OsString,
    /// Sidecars first, the picture last.
    pub members: Vec<Member>,
    /// The root of `working/` in which it lies.
    pub working: PathBuf,
    /// Members' hashes and the request as written: knows a drop that comes back. `None` for a drop that
    /// never had a request.
    pub recognition: Option<Fingerprint>,
    /// The frozen request, as JSON (the engine's own form, without secrets but with asset URLs).
    pub plan: String,
    /// Its shots, all due, or none where it failed before it could be sent.
    pub shots: Vec<Shot>,
    /// Why it could not be sent at all, for the note.
    pub failure: Option<String>,
    /// The ended or returned drop that this one continues.
    pub continues: Option<DropId>,
}

/// Where the originals are being moved, committed before they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filing {
    /// Archive or errors.
    pub fate: Fate,
    /// The name of each member that moves, in the order of [`NewDrop::members`].
    pub names: Vec<OsString>,
    /// The note's name, in errors.
    pub note: Option<OsString>,
}

/// A drop that is not closed.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenDrop {
    /// As it was claimed; `shots` as they stand now.
    pub drop: NewDrop,
    /// When it was claimed.
    pub claimed: Timestamp,
    /// The number of its set, once chosen: 1 for a name that was free, 2 for ` (2)`.
    pub number: Option<u32>,
    /// Where it is being filed, once chosen.
    pub filing: Option<Filing>,
}

/// How a drop was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its originals are in the archive.
    Archived,
    /// Its originals are in errors.
    Failed,
    /// It went back into the inbox, unbilled.
    Returned,
    /// Its originals are nowhere; a person closed it.
    Lost,
}

/// An ended drop that comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Which.
    pub id: DropId,
    /// How it ended.
    pub ending: Ending,
    /// All its shots, with their seeds and states.
    pub shots: Vec<Shot>,
    /// Notes that were written for it and are not taken away yet: path and BLAKE3.
    pub notes: Vec<(PathBuf, Fingerprint)>,
    /// A person asked (`retry --again`) for all of its shots to be made anew.
    pub again: bool,
}

/// A drop with a picture that was filed not long ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// Its folder.
    pub folder: RelPath,
    /// The name of its picture.
    pub name: OsString,
    /// When it was first sent, if ever.
    pub sent: Option<Timestamp>,
    /// When it was filed.
    pub filed: Timestamp,
}

/// The limits on money; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sends in any 60 minutes.
    pub per_hour: u32,
    /// Sends in any 24 hours.
    pub per_day: u32,
}

/// Whether a send was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is; the request may go out.
    Committed,
    /// Nothing was written: a limit is reached for this long.
    Limited {
        /// How long from now until one more fits.
        wait: Duration,
        /// Which limit: `images_per_hour` or `images_per_day`.
        which: &'static str,
    },
}

/// Sends and money of some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Sends that were or may have been billed.
    pub images: u64,
    /// What they cost as far as it is known, US dollars.
    pub cost: f64,
    /// Those whose price is not known.
    pub unpriced: u64,
}

/// Usage as `status` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The last 60 minutes.
    pub hour: Sum,
    /// The last 24 hours.
    pub day: Sum,
    /// The last 30 days, as far back as sends are kept.
    pub month: Sum,
    /// What of it need not be counted again soon.
    pub older: Option<Older>,
}

/// Sends that were between a day and 30 days old at some moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Older {
    /// That moment.
    pub at: Moment,
    /// Their sum.
    pub sum: Sum,
}

/// A failure for `status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Folder and name.
    pub label: String,
    /// Why.
    pub reason: String,
    /// When it was filed.
    pub at: Timestamp,
}

/// The durable steps of the life of a drop. Every method is one transaction, durable when it returns, but between
/// [`Self::hold`] and [`Self::flush`].
///
/// Moments are kept in whole milliseconds, except those inside a shot. A step of a drop that is unknown or
/// closed is [`LedgerError::Misused`].
pub trait Ledger: Send {
    /// What is called from here on may share one commit: nothing of it is durable before [`Self::flush`] returns,
    /// and nothing of it may be told to anybody. Each call still succeeds or fails by itself.
    fn hold(&mut self);

    /// Makes durable what was called since [`Self::hold`]. After an error nothing of it was recorded.
    fn flush(&mut self) -> Result<(), LedgerError>;

    /// Whether nobody has said yet that this ledger knows all that is in `working/`: it was created just
    /// now, or again after a damaged one was set aside, or its last commit may be missing, and [`Self::trust`]
    /// was never called since. While it is so, a file in `working/` without a row may have been paid for, and so
    /// may a shot that is due.
    fn is_fresh(&mut self) -> Result<bool, LedgerError>;

    /// What lay in `working/` when this ledger was created is dealt with: from now on a file there without a
    /// row was never sent. Called once recovery is through; again is harmless.
    fn trust(&mut self) -> Result<(), LedgerError>;

    /// Every drop that is not closed, oldest first.
    fn open_drops(&mut self) -> Result<Vec<OpenDrop>, LedgerError>;

    /// Records a claimed drop and, in the same transaction, the send of its shot `first` (which becomes
    /// `sending` at `now`), counted against `limits`. Writes nothing at all when a limit is reached. With
    /// `first: None` (a drop that failed before it could be sent) only the row is written. If the drop
    /// `continues` a known one, that one is used up. If it continues none, but the files of one that ended
    /// in errors came back with it (the same members; or the same picture in the same folder; or, without a
    /// picture, the same folder and stem; or the same name of a file that is no drop), the newest such one no longer counts in [`Self::failures`], but is
    /// still known to [`Self::recognise`].
    fn begin(
        &mut self,
        drop: &NewDrop,
        first: Option<ShotNo>,
        limits: Limits,
        now: &Moment,
    ) -> Result<Sent, LedgerError>;

    /// A due shot becomes `sending`: `shot` is its state after it. Counted against `limits` in the same
    /// transaction; writes nothing when a limit is reached.
    fn send(&mut self, id: DropId, shot: &Shot, limits: Limits, now: &Moment) -> Result<Sent, LedgerError>;

    /// A shot takes a step that is no send. `billed` says what is known now of its last send: [`Billed::No`]
    /// gives it back to the limits, unless it was already said to be billed or unconfirmed (then it stays
    /// counted: a later refusal says nothing about an earlier send); else the shot's `receipt.cost` is its
    /// price.
    fn step(&mut self, id: DropId, shot: &Shot, billed: Billed) -> Result<(), LedgerError>;

    /// The number of the drop's set of names is chosen.
    fn number(&mut self, id: DropId, number: u32) -> Result<(), LedgerError>;

    /// The plan is replaced (a reference was uploaded again).
    fn replan(&mut self, id: DropId, plan: &str) -> Result<(), LedgerError>;

    /// The names under which the originals are filed.
    fn file_under(&mut self, id: DropId, filing: &Filing) -> Result<(), LedgerError>;

    /// A note was written at `path` for this drop.
    fn noted(&mut self, id: DropId, path: &std::path::Path, print: Fingerprint) -> Result<(), LedgerError>;

    /// The drop is closed; its plan is forgotten.
    fn close(&mut self, id: DropId, ending: Ending, reason: Option<&str>, now: Timestamp) -> Result<(), LedgerError>;

    /// What the two below may find; good for as long as the ledger is open.
    fn returning(&self) -> std::sync::Arc<returning::Returning>;

    /// The newest unused drop with this recognition that ended in errors or went back.
    fn recognise(&mut self, recognition: Fingerprint) -> Result<Option<Known>, LedgerError>;

    /// Whether the picture with this fingerprint belongs to an unused drop that ended in errors (its other
    /// members or its request differ, so it is new): for the log.
    fn seen_picture(&mut self, picture: Fingerprint) -> Result<bool, LedgerError>;

    /// The fingerprint of the note recorded at `path`, if one is.
    fn note_at(&mut self, path: &std::path::Path) -> Result<Option<Fingerprint>, LedgerError>;

    /// The fingerprint of the note recorded at `path`, if its drop has ended and was, as far as it was read, of this picture.
    fn note_left_at(
        &mut self,
        path: &std::path::Path,
        picture: Option<Fingerprint>,
    ) -> Result<Option<Fingerprint>, LedgerError>;

    /// A recorded note was written by this program: any note of this fingerprint, wherever it was brought.
    fn is_our_note(&mut self, print: Fingerprint) -> Result<bool, LedgerError>;

    /// A person asks for all shots anew of the drop whose members have these fingerprints (in any order, a
    /// shared sidecar that did not move with it may be missing; the newest unused one that ended in errors,
    /// of several the one not asked for yet); committed before its files move. Whether one was found.
    fn wish_again(&mut self, members: &[Fingerprint]) -> Result<bool, LedgerError>;

    /// Drops with pictures filed since `since`, for sidecars that come late.
    fn filed_since(&mut self, since: Timestamp) -> Result<Vec<Filed>, LedgerError>;

    /// Sends and money. Sends on their way count as images, not as unpriced.
    fn usage(&mut self, now: &Moment) -> Result<Usage, LedgerError> {
        self.usage_after(now, None)
    }

    /// The same of one who asks often: `older` is what the last answer held. It is good for a minute, so long may a
    /// change to a send of more than a day ago take to be seen.
    fn usage_after(&mut self, now: &Moment, older: Option<Older>) -> Result<Usage, LedgerError>;

    /// The last price that was seen, US dollars.
    fn last_cost(&mut self) -> Result<Option<f64>, LedgerError>;

    /// The newest failures whose drops still count as failed (not used up by coming back), and how many.
    fn failures(&mut self, most: u32) -> Result<(u64, Vec<Failure>), LedgerError>;

    /// The asset URL that the picture `key` was uploaded to not longer than `within` ago.
    fn upload_of(&mut self, key: Fingerprint, within: Duration, now: Timestamp) -> Result<Option<String>, LedgerError>;

    /// `key` was uploaded to `url`.
    fn uploaded(&mut self, key: Fingerprint, url: &str, now: Timestamp) -> Result<(), LedgerError>;

    /// The upload of `key` is good no more.
    fn forget_upload(&mut self, key: Fingerprint) -> Result<(), LedgerError>;

    /// Forgets some of what is older than `keep` and no longer needed: closed drops, sends (a day at least is
    /// kept), uploads (30 days are kept). Bounded work for each call, so a long backlog takes several:
    /// whether more may be left.
    fn tidy(&mut self, keep: Duration, now: Timestamp) -> Result<bool, LedgerError>;
}
