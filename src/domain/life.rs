//! The life of a shot and of a drop.
//!
//! A shot is one paid request, so it is the unit of money: each state carries exactly what is known in it,
//! and [`Shot::apply`] is the only way from one to another. The drop's state follows from its shots'.
//! "Not sent" ([`ShotState::Due`]) and "maybe sent" ([`ShotState::Sending`]) are different states, because
//! every request that is sent is a new billable job.

use std::ffi::OsString;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::ShotNo;
use super::verdict::{Billed, Receipt};

/// A picture that was received whole and lies in the spool under its shot's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// BLAKE3 of its bytes, hexadecimal.
    pub blake3: String,
    /// Its length.
    pub bytes: u64,
    /// The extension that its bytes ask for: `jpg`, `png` or `webp`.
    pub extension: String,
    /// When it was there.
    pub at: Timestamp,
}

/// The names under which a shot's picture comes out, committed before it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputName {
    /// The picture's name in its folder of the outbox.
    pub picture: OsString,
    /// Its provenance beside it, if one is written.
    pub provenance: Option<OsString>,
}

/// Where a shot stands. Serialised into the ledger: states are added, never renamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ShotState {
    /// Surely not being sent: it goes when pace, limits and the gate allow, not before `not_before`.
    Due {
        /// Backoff; wall clock, so that it holds over a restart.
        not_before: Option<Timestamp>,
    },
    /// The request may be on the wire. After a crash this is *unconfirmed*.
    Sending {
        /// When it was committed.
        since: Timestamp,
    },
    /// Billed; the picture is to be had at `url`.
    Answered {
        /// Where. Never shown in logs or provenance.
        url: String,
        /// When the answer was read.
        since: Timestamp,
    },
    /// The picture stands whole in the spool.
    Received {
        /// What was received.
        picture: Spooled,
    },
    /// The final name is committed; provenance and picture are on their way.
    Publishing {
        /// What is published.
        picture: Spooled,
        /// Under which names.
        name: OutputName,
    },
    /// The picture stood in the outbox, durably. It may have been taken since.
    Delivered {
        /// What was published.
        picture: Spooled,
        /// Under which names.
        name: OutputName,
    },
    /// Ended without a picture.
    Failed {
        /// Why, for a person.
        reason: String,
        /// Whether it was billed.
        billed: Billed,
        /// The picture's URL, where it was billed and could not be received.
        url: Option<String>,
    },
    /// Nobody knows whether it was billed.
    Unconfirmed {
        /// Why, for a person.
        reason: String,
    },
}

/// One paid request of a drop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shot {
    /// Its place among the drop's shots as first planned; names outputs when a drop comes back.
    pub no: ShotNo,
    /// Its own seed; `None` where nobody set one and one shot needs none.
    pub seed: Option<i64>,
    /// Where it stands.
    pub state: ShotState,
    /// Sends whose answer counted against `max_attempts`.
    pub attempts: u32,
    /// Sends in all. Not counted by versions that did not know it.
    #[serde(default)]
    pub sends: u32,
    /// Sends of which nobody knows whether they were billed.
    pub unconfirmed: u32,
    /// Whether a cached upload was already replaced because of this shot's refusal.
    pub reuploaded: bool,
    /// When it was first sent.
    pub first_sent: Option<Timestamp>,
    /// When it was last sent.
    pub last_sent: Option<Timestamp>,
    /// What the last answer's headers said.
    pub receipt: Receipt,
}

/// What happens to a shot.
#[derive(Clone, Debug, PartialEq)]
pub enum ShotEvent {
    /// It is about to be sent; to be committed before the first byte.
    Send {
        /// Now.
        at: Timestamp,
    },
    /// The answer, or its lack, proves that nothing was billed, and it is to be sent again.
    GiveBack {
        /// Not before this moment.
        not_before: Option<Timestamp>,
        /// Whether the send costs one of `max_attempts`.
        counts: bool,
    },
    /// Billed, with a URL in the answer.
    Link {
        /// Where the picture is.
        url: String,
        /// Now.
        at: Timestamp,
    },
    /// The picture stands whole in the spool.
    Receive {
        /// What was received.
        picture: Spooled,
    },
    /// A final name was chosen (again, if the first one was taken meanwhile).
    Name {
        /// The names.
        name: OutputName,
    },
    /// The picture stands in the outbox.
    Deliver,
    /// It ends without a picture.
    Fail {
        /// Why.
        reason: String,
        /// Whether it was billed.
        billed: Billed,
    },
    /// Nobody knows whether it was billed.
    Lose {
        /// Why.
        reason: String,
        /// `unconfirmed = "retry"` and it was not lost before: once more.
        again: bool,
    },
}

/// An event that has no meaning in a shot's state: a bug, never swallowed.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("a shot that is {from} cannot {event}")]
pub struct Illegal {
    /// The state's word.
    pub from: &'static str,
    /// The event's word.
    pub event: &'static str,
}

impl ShotState {
    /// The state's word, as in `status` and in the ledger.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Due { .. } => "due",
            Self::Sending { .. } => "sending",
            Self::Answered { .. } => "answered",
            Self::Received { .. } => "received",
            Self::Publishing { .. } => "publishing",
            Self::Delivered { .. } => "delivered",
            Self::Failed { .. } => "failed",
            Self::Unconfirmed { .. } => "unconfirmed",
        }
    }

    /// Whether nothing more happens to it.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Delivered { .. } | Self::Failed { .. } | Self::Unconfirmed { .. })
    }

    /// Whether its answer was billed: yes, no, or nobody knows.
    pub fn billed(&self) -> Billed {
        match self {
            Self::Due { .. } => Billed::No,
            Self::Sending { .. } | Self::Unconfirmed { .. } => Billed::Unknown,
            Self::Answered { .. } | Self::Received { .. } | Self::Publishing { .. } | Self::Delivered { .. } => {
                Billed::Yes
            }
            Self::Failed { billed, .. } => *billed,
        }
    }
}

impl ShotEvent {
    fn word(&self) -> &'static str {
        match self {
            Self::Send { .. } => "be sent",
            Self::GiveBack { .. } => "be given back",
            Self::Link { .. } => "be answered",
            Self::Receive { .. } => "be received",
            Self::Name { .. } => "be named",
            Self::Deliver => "be delivered",
            Self::Fail { .. } => "fail",
            Self::Lose { .. } => "be lost",
        }
    }
}

impl Shot {
    /// A shot that was never sent.
    pub fn new(no: ShotNo, seed: Option<i64>) -> Self {
        Self {
            no,
            seed,
            state: ShotState::Due { not_before: None },
            attempts: 0,
            sends: 0,
            unconfirmed: 0,
            reuploaded: false,
            first_sent: None,
            last_sent: None,
            receipt: Receipt::default(),
        }
    }

    /// The shot after `event`. It is unchanged where the event is illegal.
    pub fn apply(&self, event: ShotEvent) -> Result<Self, Illegal> {
        use ShotState as S;
        let illegal = Illegal { from: self.state.word(), event: event.word() };
        let mut next = self.clone();
        next.state = match (&self.state, event) {
            (S::Due { .. }, ShotEvent::Send { at }) => {
                next.first_sent = self.first_sent.or(Some(at));
                next.last_sent = Some(at);
                next.sends = self.sends.saturating_add(1);
                // The price of an earlier answer is not this one's.
                next.receipt = Receipt::default();
                S::Sending { since: at }
            }
            // Due already where something had to be found out after its answer was read.
            (S::Sending { .. } | S::Due { .. }, ShotEvent::GiveBack { not_before, counts }) => {
                next.attempts += u32::from(counts);
                S::Due { not_before }
            }
            (S::Sending { .. }, ShotEvent::Link { url, at }) => S::Answered { url, since: at },
            (S::Sending { .. } | S::Answered { .. }, ShotEvent::Receive { picture }) => S::Received { picture },
            (S::Received { picture } | S::Publishing { picture, .. }, ShotEvent::Name { name }) => {
                S::Publishing { picture: picture.clone(), name }
            }
            (S::Publishing { picture, name }, ShotEvent::Deliver) => {
                S::Delivered { picture: picture.clone(), name: name.clone() }
            }
            (S::Due { .. } | S::Sending { .. }, ShotEvent::Fail { reason, billed }) => {
                S::Failed { reason, billed, url: None }
            }
            (S::Answered { url, .. }, ShotEvent::Fail { reason, billed }) => {
                S::Failed { reason, billed, url: Some(url.clone()) }
            }
            (S::Received { .. } | S::Publishing { .. }, ShotEvent::Fail { reason, billed: Billed::Yes }) => {
                S::Failed { reason, billed: Billed::Yes, url: None }
            }
            (S::Sending { .. }, ShotEvent::Lose { reason, again }) => {
                next.unconfirmed += 1;
                if again { S::Due { not_before: None } } else { S::Unconfirmed { reason } }
            }
            _ => return Err(illegal),
        };
        Ok(next)
    }

    /// As it was before it was sent, where nothing left the machine.
    #[must_use]
    pub fn unsent(&self) -> Self {
        let sends = self.sends.saturating_sub(1);
        let first_sent = self.first_sent.filter(|_| sends > 0);
        Self { state: ShotState::Due { not_before: None }, sends, first_sent, ..self.clone() }
    }

    /// Whether any of its sends was billed, as far as that is known: an earlier one may have been where the last one
    /// surely was not.
    pub fn billed(&self) -> Billed {
        match self.state.billed() {
            Billed::No if self.unconfirmed > 0 => Billed::Unknown,
            billed => billed,
        }
    }

    /// Whether `unconfirmed = "retry"` may still send it once more.
    pub fn may_be_sent_again_unconfirmed(&self) -> bool {
        self.unconfirmed == 0
    }
}

/// Where the originals go when every shot has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Every shot was delivered.
    Archive,
    /// At least one was not; with a note.
    Errors,
}

/// Where the originals go; `None` while a shot has not ended. A drop without shots never could be sent.
pub fn fate(shots: &[Shot]) -> Option<Fate> {
    if !shots.iter().all(|s| s.state.has_ended()) {
        return None;
    }
    let delivered = |s: &Shot| matches!(s.state, ShotState::Delivered { .. });
    Some(if !shots.is_empty() && shots.iter().all(delivered) { Fate::Archive } else { Fate::Errors })
}

/// Whether a claimed drop may go back into the inbox: nothing of it was billed or may have been.
pub fn may_go_back(shots: &[Shot]) -> bool {
    !shots.is_empty() && shots.iter().all(|s| matches!(s.state, ShotState::Due { .. }) && s.unconfirmed == 0)
}

/// What a shot found in the ledger after a crash becomes, before anything else happens to it.
///
/// `spooled` is its picture if that stands whole in the spool under the shot's name.
pub fn recover(shot: &Shot, spooled: Option<Spooled>, retry_unconfirmed: bool) -> Result<Shot, Illegal> {
    match (&shot.state, spooled) {
        (ShotState::Sending { .. } | ShotState::Answered { .. }, Some(picture)) => {
            shot.apply(ShotEvent::Receive { picture })
        }
        (ShotState::Sending { .. }, None) => shot.apply(ShotEvent::Lose {
            reason: "the program or the machine stopped while this was being sent".into(),
            again: retry_unconfirmed && shot.may_be_sent_again_unconfirmed(),
        }),
        _ => Ok(shot.clone()),
    }
}

/// A shot that the ledger has as due, where the ledger's last words may be missing: its send may be among them, so
/// it counts as being sent since `at`. Any other shot stays as it is.
pub fn doubt(shot: &Shot, at: Timestamp) -> Result<Shot, Illegal> {
    match shot.state {
        ShotState::Due { .. } => shot.apply(ShotEvent::Send { at }),
        _ => Ok(shot.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn at() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    fn picture() -> Spooled {
        Spooled { blake3: "00".into(), bytes: 1, extension: "png".into(), at: at() }
    }
    fn name() -> OutputName {
        OutputName { picture: "a.png".into(), provenance: None }
    }
    fn events() -> impl Strategy<Value = ShotEvent> {
        prop_oneof![
            Just(ShotEvent::Send { at: at() }),
            any::<bool>().prop_map(|counts| ShotEvent::GiveBack { not_before: None, counts }),
            Just(ShotEvent::Link { url: "u".into(), at: at() }),
            Just(ShotEvent::Receive { picture: picture() }),
            Just(ShotEvent::Name { name: name() }),
            Just(ShotEvent::Deliver),
            Just(ShotEvent::Fail { reason: "r".into(), billed: Billed::No }),
            any::<bool>().prop_map(|again| ShotEvent::Lose { reason: "r".into(), again }),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_sent_again_after_it_was_or_may_have_been_billed(steps in proptest::collection::vec(events(), 0..40)) {
            let mut shot = Shot::new(ShotNo(0), None);
            let mut billed = false;
            for event in steps {
                // What the engine guarantees: `again` only once.
                let event = match event {
                    ShotEvent::Lose { reason, again } => ShotEvent::Lose { reason, again: again && shot.may_be_sent_again_unconfirmed() },
                    other => other,
                };
                let sends = matches!(event, ShotEvent::Send { .. });
                if let Ok(next) = shot.apply(event) {
                    prop_assert!(!(sends && billed), "sent again after it was billed");
                    billed |= next.state.billed() == Billed::Yes || matches!(next.state, ShotState::Unconfirmed { .. });
                    prop_assert!(next.unconfirmed <= 2);
                    shot = next;
                }
            }
        }

        #[test]
        fn what_has_ended_stays_ended(steps in proptest::collection::vec(events(), 0..40)) {
            let mut shot = Shot::new(ShotNo(0), None);
            for event in steps {
                let ended = shot.state.has_ended();
                let next = shot.apply(event);
                prop_assert!(!ended || next.is_err());
                if let Ok(next) = next { shot = next; }
            }
        }
    }

    #[test]
    fn originals_are_archived_only_when_every_shot_was_delivered() {
        let delivered =
            Shot { state: ShotState::Delivered { picture: picture(), name: name() }, ..Shot::new(ShotNo(0), None) };
        let failed = Shot {
            state: ShotState::Failed { reason: String::new(), billed: Billed::No, url: None },
            ..delivered.clone()
        };
        let due = Shot::new(ShotNo(1), None);
        assert_eq!(fate(&[]), Some(Fate::Errors));
        assert_eq!(fate(std::slice::from_ref(&delivered)), Some(Fate::Archive));
        assert_eq!(fate(&[delivered.clone(), failed]), Some(Fate::Errors));
        assert_eq!(fate(&[delivered, due]), None);
    }

    #[test]
    fn a_crash_while_sending_is_unconfirmed_unless_the_picture_is_there() {
        let sending = Shot::new(ShotNo(0), None).apply(ShotEvent::Send { at: at() }).unwrap();
        assert_eq!(recover(&sending, Some(picture()), false).unwrap().state.word(), "received");
        assert_eq!(recover(&sending, None, false).unwrap().state.word(), "unconfirmed");
        let again = recover(&sending, None, true).unwrap();
        assert_eq!((again.state.word(), again.unconfirmed), ("due", 1));
        let sending = again.apply(ShotEvent::Send { at: at() }).unwrap();
        assert_eq!(recover(&sending, None, true).unwrap().state.word(), "unconfirmed");
    }

    #[test]
    fn a_due_shot_may_have_been_sent_where_the_ledgers_end_is_missing() {
        let due = Shot::new(ShotNo(0), None);
        let doubted = doubt(&due, at()).unwrap();
        assert_eq!(recover(&doubted, None, false).unwrap().state.word(), "unconfirmed");
        assert_eq!(recover(&doubted, Some(picture()), false).unwrap().state.word(), "received");
        assert_eq!(doubt(&doubted, at()).unwrap(), doubted);
    }

    #[test]
    fn a_drop_goes_back_only_when_nothing_may_have_been_billed() {
        let due = Shot::new(ShotNo(0), None);
        assert!(may_go_back(std::slice::from_ref(&due)));
        assert!(!may_go_back(&[Shot { unconfirmed: 1, ..due.clone() }]));
        assert!(!may_go_back(&[due.apply(ShotEvent::Send { at: at() }).unwrap()]));
    }
}
