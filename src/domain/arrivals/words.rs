//! What goes into [`Arrivals`](super::Arrivals) and what comes out: the words between the inbox, the rules
//! and the engine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::time::Duration;

use crate::domain::ids::{Facts, Mono, Place, RelPath};
use crate::domain::kinds::{NameKind, Says, SidecarKind};

/// A sidecar larger than this fails its drop. Bytes.
pub const MAX_SIDECAR_BYTES: u64 = 1024 * 1024;

/// The waits of `[watch]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the keys of [watch], described there")]
pub struct Rules {
    pub settle: Duration,
    pub folder_settle: Duration,
    pub sidecar_wait: Duration,
    pub lone_wait: Duration,
    pub give_up: Duration,
    /// What waits for a person is told of after that; `None`: nobody wants to know.
    pub tell_after: Option<Duration>,
}

/// What was found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the name, and whether it is file, folder or neither, means.
    pub kind: NameKind,
    /// As `lstat` gave them.
    pub facts: Facts,
    /// How long ago the inode changed when it was looked at: wall clock minus ctime, never negative.
    pub age: Duration,
}

/// How an entry came to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// A scan found it; nothing is known about its writer.
    Scanned,
    /// Renamed into place.
    RenamedIn,
    /// A writer closed it.
    Closed,
    /// Its bytes changed.
    Changed,
    /// It appeared (also: was hard-linked, which nothing follows).
    Created,
    /// Only its mode, owner or times changed.
    Touched,
}

/// How a preset wants its folder treated, as the engine merged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresetState {
    /// Readable, or not there at all.
    Ok {
        /// `sidecar = …`
        sidecar: SidecarRule,
        /// `reference = …`
        reference: ReferenceRule,
        /// `enabled = …`
        enabled: bool,
        /// `priority = …`, higher first.
        priority: i64,
    },
    /// It cannot be used, and why; the subtree waits.
    Broken {
        /// For people.
        reason: String,
    },
}

impl Default for PresetState {
    fn default() -> Self {
        Self::Ok { sidecar: SidecarRule::default(), reference: ReferenceRule::default(), enabled: true, priority: 0 }
    }
}

pub use crate::domain::preset::{ReferenceRule, SidecarRule};

/// A preset the engine is to read: the merged value of `folder`, from the inbox down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresetQuery {
    /// The folder.
    pub folder: RelPath,
    /// The name of the folder's own preset, as it is spelled there.
    pub file: Option<OsString>,
    /// To be given back with the answer, so that an answer overtaken by a change is dropped.
    pub stamp: u64,
}

/// A file of a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in the folder.
    pub name: OsString,
    /// What it was when it was found complete.
    pub facts: Facts,
}

/// A sidecar of a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarMember {
    /// The file.
    pub file: Member,
    /// What kind.
    pub kind: SidecarKind,
    /// Tied to the very image (`NAME.jpg.txt`).
    pub tied: bool,
    /// To be read. One beaten by a tied one of its kind only moves along.
    pub used: bool,
    /// Another image still needs it: it is read, but stays in the inbox.
    pub shared: bool,
}

/// What became of a drop that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    /// To be planned: an image, whose structure is still to be checked.
    Picture,
    /// To be planned: sidecars alone.
    PromptOnly,
    /// To errors, alone: of no kind that is accepted.
    Foreign,
    /// To errors: came after its image was sent.
    LateSidecar {
        /// The image's name.
        after: OsString,
        /// When that was sent, ms since 1970, if the engine said it.
        sent_unix_ms: Option<i64>,
    },
    /// To errors.
    Failed(Failure),
}

/// Why a complete drop cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not whole, and not changed for `give_up`.
    Truncated,
    /// Two sidecars of one kind match equally well.
    TwoOfAKind {
        /// Which kind.
        says: Says,
        /// Their names.
        names: [OsString; 2],
    },
    /// A sidecar over [`MAX_SIDECAR_BYTES`].
    SidecarTooLarge {
        /// Which.
        name: OsString,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A sidecar that stayed at 0 bytes for `give_up`.
    SidecarEmpty {
        /// Which.
        name: OsString,
    },
    /// A picture in a folder whose preset says `reference = "none"`.
    PromptsOnly,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::domain::ids::show;
        match self {
            Self::Truncated => {
                f.write_str("the picture is truncated: it is not whole, and nothing was added to it for long")
            }
            Self::TwoOfAKind { says, names: [one, two] } => {
                write!(f, "two sidecars hold its {says}: {} and {}", show(one), show(two))
            }
            Self::SidecarTooLarge { name, bytes } => {
                write!(f, "the sidecar {} is too large: {bytes} bytes, the limit is 1 MiB", show(name))
            }
            Self::SidecarEmpty { name } => write!(f, "the sidecar {} is empty", show(name)),
            Self::PromptsOnly => f.write_str("this folder takes prompts only (reference = \"none\" in its preset)"),
        }
    }
}

/// A drop that waits for nothing any more. Handed out once; the engine answers with
/// [`claimed`](super::Arrivals::claimed),
/// [`not_whole`](super::Arrivals::not_whole), [`prompt_missing`](super::Arrivals::prompt_missing),
/// [`blocked`](super::Arrivals::blocked) or [`put_back`](super::Arrivals::put_back).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub folder: RelPath,
    /// The name of the set, without extension (a foreign file: its whole name).
    pub stem: OsString,
    /// What is to be done with it.
    pub kind: CandidateKind,
    /// The image.
    pub image: Option<Member>,
    /// The file, if it is foreign.
    pub foreign: Option<Member>,
    /// Ordered by name.
    pub sidecars: Vec<SidecarMember>,
    /// From the last change that was noticed of one of its files until the rules called it complete; `None`
    /// where that was told before (it was put back), or where something else was waited for.
    pub settled: Option<Duration>,
}

impl Candidate {
    /// The file that stands for the drop: the image, else the foreign file, else the first sidecar.
    pub fn lead(&self) -> &OsStr {
        let first = || self.sidecars.first().map(|s| &s.file);
        self.image.as_ref().or(self.foreign.as_ref()).or_else(first).map_or(OsStr::new(""), |m| &m.name)
    }

    /// [`Self::lead`] and its folder.
    pub fn place(&self) -> Place {
        Place { folder: self.folder.clone(), name: self.lead().to_owned() }
    }

    /// What leaves the inbox with this drop: sidecars first, the image last.
    pub fn moving(&self) -> impl Iterator<Item = &Member> {
        let own = self.sidecars.iter().filter(|s| !s.shared).map(|s| &s.file);
        own.chain(&self.foreign).chain(&self.image)
    }
}

/// What a file in the inbox waits for. [`Self::label`] is an interface of `status --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It changed just now.
    Settling,
    /// Something in its new folder changed just now.
    FolderSettling,
    /// The picture is not whole.
    Incomplete,
    /// For a sidecar, or for one to be finished.
    Sidecar,
    /// A sidecar of 0 bytes.
    EmptySidecar,
    /// A sidecar waits for its image.
    Image,
    /// No prompt from anywhere.
    Prompt,
    /// A preset above it is broken.
    PresetBroken,
    /// A preset above it changes, or is being read.
    PresetChanging,
    /// `enabled = false`.
    Disabled,
    /// A drop of its name is in work.
    Busy,
    /// It, or its folder, cannot be read or moved.
    Unreadable,
    /// The engine looks at it.
    Planning,
    /// Complete, waiting for its turn.
    Queued,
    /// Complete; a limit is reached (said by the engine).
    Limit,
    /// Complete; everything pauses (said by the engine).
    Paused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Settling,
        Self::FolderSettling,
        Self::Incomplete,
        Self::Sidecar,
        Self::EmptySidecar,
        Self::Image,
        Self::Prompt,
        Self::PresetBroken,
        Self::PresetChanging,
        Self::Disabled,
        Self::Busy,
        Self::Unreadable,
        Self::Planning,
        Self::Queued,
        Self::Limit,
        Self::Paused,
    ];

    /// A stable word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Settling => "settling",
            Self::FolderSettling => "folder_settling",
            Self::Incomplete => "incomplete",
            Self::Sidecar => "sidecar",
            Self::EmptySidecar => "empty_sidecar",
            Self::Image => "image",
            Self::Prompt => "prompt",
            Self::PresetBroken => "preset_broken",
            Self::PresetChanging => "preset_changing",
            Self::Disabled => "disabled",
            Self::Busy => "busy",
            Self::Unreadable => "unreadable",
            Self::Planning => "planning",
            Self::Queued => "queued",
            Self::Limit => "limit",
            Self::Paused => "paused",
        }
    }

    /// For people, behind the drop's name.
    pub fn waits(self) -> String {
        match self {
            Self::Settling => "changed just now".into(),
            Self::Unreadable => "cannot be read or moved".into(),
            Self::Planning => "is being looked at".into(),
            other => format!("waits for {}", other.words()),
        }
    }

    /// For people, after "waiting for" or alone.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Settling => "it changed just now",
            Self::FolderSettling => "its new folder to come to rest",
            Self::Incomplete => "the rest of the picture",
            Self::Sidecar => "a sidecar",
            Self::EmptySidecar => "an empty sidecar to be written",
            Self::Image => "an image",
            Self::Prompt => "a prompt",
            Self::PresetBroken => "a broken preset to be mended",
            Self::PresetChanging => "a preset that changes",
            Self::Disabled => "its folder to be enabled",
            Self::Busy => "a drop of the same name that is in work",
            Self::Unreadable => "what cannot be read or moved",
            Self::Planning => "being looked at",
            Self::Queued => "its turn",
            Self::Limit => "a limit",
            Self::Paused => "the end of the pause",
        }
    }
}

/// A drop, a stray sidecar or an unreadable folder that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The file that stands for it.
    pub place: Place,
    /// What it waits for.
    pub reason: Reason,
    /// Since when it is unchanged; 0 if before the clock began.
    pub since: Mono,
    /// More words, where there are any (the error of what cannot be read or moved, a preset's fault).
    pub detail: Option<String>,
}

/// A drop that has waited for a person long enough to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The file that stands for it.
    pub place: Place,
    /// [`Reason::Prompt`], [`Reason::Image`] or [`Reason::Sidecar`].
    pub reason: Reason,
    /// Its ctime, nanoseconds since 1970.
    pub changed_ns: i64,
    /// How many others of its folder wait for the same, and are told of with it.
    pub others: usize,
}
