//! Everything that can happen to the engine, in one closed enum: workers own their work and send one event
//! back when it is done.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::config::{Problem, Told};
use crate::domain::arrivals::{Candidate, PresetQuery, PresetState};
use crate::domain::gate::Credits;
use crate::domain::ids::{DropId, RelPath, ShotNo};
use crate::domain::life::Shot;
use crate::domain::verdict::Verdict;
use crate::inbox::Report;
use crate::ledger::{Filing, Known, Member, OpenDrop, Sent, Usage};
use crate::segmind::{CallOutcome, Held};

use super::frozen::Frozen;
use super::read::PresetFile;

/// A picture that was prepared for inline sending: a file of the daemon's own, gone with its last user.
pub(super) type Prepared = Arc<tempfile::TempPath>;

/// A drop that could be claimed now.
#[derive(Debug)]
pub(super) struct Planned {
    pub candidate: Candidate,
    pub members: Vec<Member>,
    pub frozen: Frozen,
    pub shots: Vec<Shot>,
    pub recognition: crate::domain::ids::Fingerprint,
    pub known: Option<Known>,
    pub prepared: Option<Prepared>,
    /// What is to be said of its sidecars although they are good.
    pub warnings: Vec<Problem>,
}

/// What planning came to.
#[derive(Debug)]
pub(super) enum Plan {
    Ready(Box<Planned>),
    NotWhole,
    Changed,
    Unreadable(String),
    PresetBroken(RelPath, String),
    NoPrompt,
    /// The drop's own fault.
    Failed(String, Vec<Member>),
    /// The upload was answered with trouble: of everybody's, or to be tried again.
    Upload(Verdict),
    /// Our own machine's trouble (no room for the prepared picture, the ledger).
    Environment(String),
}

impl Plan {
    /// In a word or two, for the log.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready to be sent",
            Self::NotWhole => "not whole yet",
            Self::Changed => "changed meanwhile",
            Self::Unreadable(_) => "can't be read or moved",
            Self::PresetBroken(..) => "its preset is broken",
            Self::NoPrompt => "without a prompt",
            Self::Failed(..) => "can't be sent at all",
            Self::Upload(_) => "not uploaded",
            Self::Environment(_) => "kept by trouble of this machine",
        }
    }
}

/// How an attempt to start a drop ended, where it did not start.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// A member changed or went: look again.
    Changed,
    /// It can't be moved: it waits.
    Blocked(String),
    /// A limit is reached.
    Limited(Sent),
    /// Folders, disks or the ledger keep it from being kept.
    Environment(String),
}

/// How a send ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// Something came, or nothing did, after it was sent.
    Came {
        outcome: Box<CallOutcome>,
        /// Its picture is being kept by whoever received it.
        keeps: bool,
    },
    /// It was not sent: a limit.
    Limited(Sent),
    /// It was not sent: nothing could be recorded, kept or prepared.
    NotSent(String),
    /// It was not sent and never can be: its picture is not what it was.
    Never(String),
}

/// One step of a shot was made and recorded: the shot as it is now; or it has to be tried again.
pub(super) type Stepped = Result<Shot, String>;

/// A picture was received: the shot as it was recorded then, and with it, where they were chosen at once, the number
/// of its set and the names of its originals.
#[derive(Debug)]
pub(super) struct Kept {
    pub shot: Shot,
    pub number: Option<u32>,
    pub filing: Option<Filing>,
    /// The shot as delivered, where its drop has come to its end: the result is in the outbox, the originals are in
    /// the archive, and the row is closed.
    pub done: Option<Box<Shot>>,
}

/// What a download came to.
#[derive(Debug)]
pub(super) enum Fetched {
    Kept(Box<Kept>),
    /// Final: the rules refuse its URL.
    Refused(String),
    /// Not this time.
    Later(String),
    /// It came and is no whole picture.
    NotAPicture(String),
    Environment(String),
    /// It came, and the disk does not take it just now.
    Held(Arc<Held>),
}

/// Everything that can happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A piece of a scan, and the turn that it holds until it is taken in.
    Scan(Report, OwnedSemaphorePermit),
    ScanEnded {
        everything: bool,
        watch_limit: Option<String>,
        watch_errors: Vec<String>,
    },
    Looked(Vec<Looked>),
    Preset {
        query: PresetQuery,
        state: Told<PresetState>,
    },
    Planned {
        candidate: Candidate,
        plan: Plan,
    },
    /// Drops that were read, and whose pictures have to be prepared, by what they were read with.
    Unprepared(Box<super::ctx::Ctx>, Vec<super::plan::Unprepared>),
    Started {
        candidate: Candidate,
        open: Box<OpenDrop>,
        frozen: Frozen,
        prepared: Option<Prepared>,
        sending: Option<ShotNo>,
    },
    NotStarted {
        candidate: Candidate,
        why: NotStarted,
        /// It was to be sent, so pace and gate were told of it.
        sends: bool,
    },
    Answered {
        drop: DropId,
        shot: ShotNo,
        answer: Answer,
    },
    Asked {
        drop: DropId,
        shot: ShotNo,
        message: String,
        credits: crate::domain::verdict::Credits,
    },
    UploadAsked {
        message: String,
        credits: crate::domain::verdict::Credits,
        candidate: Candidate,
    },
    Stepped {
        drop: DropId,
        shot: ShotNo,
        stepped: Stepped,
    },
    Kept {
        drop: DropId,
        shot: ShotNo,
        kept: Result<Kept, KeepFault>,
    },
    Fetched {
        drop: DropId,
        shot: ShotNo,
        fetched: Fetched,
    },
    Published {
        drop: DropId,
        number: Option<u32>,
        /// As it was last committed, whatever came of it.
        now: Box<Shot>,
        /// The names of the originals, where they were committed with the delivery.
        done: Result<Option<Filing>, String>,
    },
    /// It is committed that it is due, and it waits for its reference to be uploaded again.
    WaitsForUpload {
        drop: DropId,
        shot: ShotNo,
    },
    Reuploaded {
        drop: DropId,
        done: Result<Frozen, Verdict>,
    },
    Filed {
        drop: DropId,
        /// The names that were committed, whatever came of them.
        filing: Option<crate::ledger::Filing>,
        done: Result<FiledAs, String>,
    },
    WentBack {
        drop: DropId,
        back: Back,
    },
    /// Files were claimed, never sent, and could not go back into the inbox.
    Stranded,
    /// Recovery ran again.
    Recovered {
        /// Where the originals of lost drops were found.
        found: Vec<(DropId, PathBuf)>,
        /// Whether all that was never sent lies in the inbox again.
        all_back: bool,
    },
    Credits {
        credits: Credits,
        /// In the service's words.
        message: String,
        total: Option<f64>,
        key: Result<(), String>,
    },
    /// The key was read again, with a new configuration.
    KeyRead(Result<(), String>),
    Room(Option<String>),
    /// Our own machine keeps a worker from going on; it tries again by itself.
    Trouble(String),
    Usage {
        usage: Usage,
        failed: u64,
        failures: Vec<crate::ledger::Failure>,
    },
    Inbox(InboxNow),
}

/// Why a received picture was not kept.
#[derive(Debug)]
pub(super) enum KeepFault {
    /// It is not a whole picture.
    NotAPicture(String),
    /// It came, and is nowhere any more.
    Gone(String),
    /// The spool can't take it just now.
    Environment(String),
    /// The same of one that is in memory, and nowhere else.
    Held(Arc<Held>),
}

/// How going back ended.
#[derive(Debug)]
pub(super) enum Back {
    /// It lies in the inbox again.
    InInbox,
    /// A name is taken there, or the folders or the ledger are in trouble: it stays due in working.
    Stays,
    /// Its row was closed, but it could not move: a new row keeps it due in working.
    Reborn(Box<OpenDrop>),
}

/// How the originals were filed.
#[derive(Debug)]
pub(super) enum FiledAs {
    Archived,
    Failed {
        reason: String,
        note: PathBuf,
    },
    /// The originals are nowhere; the row stays open.
    Missing(String),
}

/// What stands at a name that an event spoke of.
#[derive(Debug)]
pub(super) struct Looked {
    pub folder: RelPath,
    pub name: std::ffi::OsString,
    pub how: crate::inbox::HintHow,
    pub entry: Result<Option<crate::domain::arrivals::Entry>, String>,
}

/// Whether the inbox is there.
#[derive(Debug)]
pub(super) enum InboxNow {
    Same,
    Gone(String),
    /// It is there (again), perhaps another directory: everything begins anew.
    Back(Box<super::site::Site>),
    /// What is there again was locked, or not.
    Taken(Box<Taken>),
}

/// An inbox that is there again.
pub(super) struct Taken {
    /// Its folders as they are now.
    pub site: Option<super::site::Site>,
    /// Another directory than before stands in its place.
    pub is_new: bool,
    pub held: Result<Vec<super::Held>, super::Locked>,
    pub backend: crate::inbox::Backend,
    pub around: Option<crate::inbox::Around>,
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taken").field("site", &self.site).field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// What a planner needs to know besides the candidate.
pub(super) type Chain = Vec<PresetFile>;
