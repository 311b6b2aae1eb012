//! One line of the history: a shot, or a drop that never had one.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::ids::{Place, show_text};
use crate::domain::life::{Shot, ShotState};
use crate::domain::verdict::Billed;
use crate::ledger::past::Past;

/// How a shot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Its picture reached the outbox.
    Delivered,
    /// Without a picture.
    Failed,
    /// Nobody knows whether it was billed.
    Unconfirmed,
    /// It was never made: its drop's files were lost, and a person closed it.
    Lost,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Unconfirmed => "unconfirmed",
            Self::Lost => "lost",
        }
    }
}

/// A line. Its fields, in this order, are the keys of `--json` and the columns of `--csv`: an interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// When the drop was filed; of one still in work, when its last shot ended.
    pub(super) at: Timestamp,
    /// The drop's path below the inbox.
    pub(super) drop: String,
    /// Which of its shots, from 1; null for a drop that could not be sent at all.
    pub(super) shot: Option<u32>,
    /// How many shots the drop had.
    pub(super) shots: u32,
    /// How it ended.
    pub(super) verdict: Verdict,
    /// The picture's path below the outbox.
    pub(super) result: Option<String>,
    /// The seed that was sent, else the one that the service named.
    pub(super) seed: Option<i64>,
    /// Its sends that were or may have been billed.
    pub(super) images: u32,
    /// What they cost as far as the service said, US dollars.
    pub(super) cost: Option<f64>,
    /// Those of them without a price.
    pub(super) unpriced: u32,
    /// The service's name for the last request.
    pub(super) request_id: Option<String>,
    /// When it was last sent.
    pub(super) sent: Option<Timestamp>,
    /// Why there is no picture, in one line.
    pub(super) reason: Option<String>,
    /// The drop's identity, as in its provenance.
    pub(super) id: String,
}

impl Row {
    /// The lines of a drop.
    pub(super) fn of(past: &Past) -> Vec<Self> {
        if past.shots.is_empty() {
            return vec![Self::new(past, None)];
        }
        past.shots.iter().map(|shot| Self::new(past, Some(shot))).collect()
    }

    fn new(past: &Past, shot: Option<&Shot>) -> Self {
        let place = |name: &std::ffi::OsStr| Place { folder: past.folder.clone(), name: name.to_owned() }.to_string();
        let (verdict, result, reason) = match shot.map(|shot| &shot.state) {
            Some(ShotState::Delivered { name, .. }) => (Verdict::Delivered, Some(place(&name.picture)), None),
            Some(ShotState::Failed { reason, .. }) => (Verdict::Failed, None, Some(reason)),
            Some(ShotState::Unconfirmed { reason }) => (Verdict::Unconfirmed, None, Some(reason)),
            // Only a person closes a drop with a shot that has not ended.
            Some(_) => (Verdict::Lost, None, past.reason.as_ref()),
            None => (Verdict::Failed, None, past.reason.as_ref()),
        };
        let bill = shot.map(Bill::of).unwrap_or_default();
        Self {
            at: past.at,
            drop: place(&past.name),
            shot: shot.map(|shot| shot.no.0 + 1),
            shots: past.of,
            verdict,
            result,
            seed: shot.and_then(|shot| shot.seed.or(shot.receipt.seed)),
            images: bill.images,
            cost: bill.cost,
            unpriced: bill.unpriced,
            request_id: shot.and_then(|shot| shot.receipt.request_id.as_deref()).map(show_text),
            sent: shot.and_then(|shot| shot.last_sent),
            reason: reason.filter(|reason| !reason.is_empty()).map(|reason| show_text(reason)),
            id: past.id.to_string(),
        }
    }
}

/// What a shot cost, counted as the limits count it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bill {
    images: u32,
    cost: Option<f64>,
    unpriced: u32,
}

impl Bill {
    fn of(shot: &Shot) -> Self {
        let last = shot.state.billed();
        // An unconfirmed one is counted among the lost ones already.
        let counts = last != Billed::No && !matches!(shot.state, ShotState::Unconfirmed { .. });
        let images = shot.unconfirmed + u32::from(counts);
        // The receipt is that of the last send.
        let cost = shot.receipt.cost.filter(|_| last != Billed::No && images > 0);
        Self { images, cost, unpriced: images - u32::from(cost.is_some()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::ids::ShotNo;
    use crate::domain::life::{OutputName, ShotEvent, Spooled};

    fn at() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// A shot after these events, with this price in the last answer.
    fn shot(events: &[ShotEvent], cost: Option<f64>) -> Shot {
        let mut shot = Shot::new(ShotNo(0), Some(7));
        for event in events {
            shot = shot.apply(event.clone()).unwrap();
        }
        shot.receipt.cost = cost;
        shot
    }

    #[test]
    fn a_bill_counts_each_send_that_was_or_may_have_been_billed() {
        use ShotEvent as E;
        let send = E::Send { at: at() };
        let lose = |again| E::Lose { reason: "cut".into(), again };
        let fail = |billed| E::Fail { reason: "no".into(), billed };
        let picture = Spooled { blake3: "00".into(), bytes: 1, extension: "png".into(), at: at() };
        let good = [
            send.clone(),
            E::Receive { picture },
            E::Name { name: OutputName { picture: "a.png".into(), provenance: None } },
            E::Deliver,
        ];
        let twice = [&[send.clone(), lose(true)][..], &good].concat();
        for (events, price, bill) in [
            (&good[..], Some(0.04), (1, Some(0.04), 0)),
            (&good, None, (1, None, 1)),
            (&twice, Some(0.04), (2, Some(0.04), 1)),
            (&[send.clone(), fail(Billed::No)], Some(9.0), (0, None, 0)),
            (&[send.clone(), fail(Billed::Yes)], None, (1, None, 1)),
            (&[send.clone(), fail(Billed::Unknown)], None, (1, None, 1)),
            (&[send.clone(), fail(Billed::Unknown)], Some(0.04), (1, Some(0.04), 0)),
            (&[send.clone(), lose(false)], None, (1, None, 1)),
            (&[send.clone(), lose(false)], Some(0.04), (1, Some(0.04), 0)),
            (&[send.clone(), lose(true), send.clone(), fail(Billed::No)], None, (1, None, 1)),
            (&[], None, (0, None, 0)),
        ] {
            let found = Bill::of(&shot(events, price));
            assert_eq!((found.images, found.cost, found.unpriced), bill, "{events:?}");
        }
    }
}
