//! A drop that has ended, in the words of the news.

use std::path::{Path, PathBuf};

use crate::domain::life::{Fate, Shot, ShotState};
use crate::domain::news::{EndedDrop, EndedShot, Ending};
use crate::domain::verdict::Billed;

use super::ctx::Ctx;
use super::works::Work;

impl Ctx {
    /// What is told of `work`, whose originals are filed: in the archive, or for `reason` in errors.
    pub(super) fn ended(&self, work: &Work, reason: Option<String>, note: Option<PathBuf>) -> EndedDrop {
        let drop = &work.open.drop;
        let unconfirmed = work.frozen.forgotten || drop.shots.iter().any(|shot| shot.billed() == Billed::Unknown);
        let root = match work.open.filing.as_ref().map(|filing| filing.fate) {
            Some(Fate::Errors) => &self.site.errors,
            _ => &self.site.archive,
        };
        let filed = work.open.filing.iter().flat_map(|filing| &filing.names);
        EndedDrop {
            id: drop.id,
            place: work.place.clone(),
            ending: match reason {
                None => Ending::Done,
                Some(_) if unconfirmed => Ending::Unconfirmed,
                Some(_) => Ending::Failed,
            },
            reason,
            originals: filed.map(|name| drop.folder.under(root).join(name)).collect(),
            note,
            shots: drop.shots.iter().map(|shot| ended_shot(shot, &drop.folder.under(&self.site.outbox))).collect(),
            at: self.clock.wall(),
        }
    }
}

fn ended_shot(shot: &Shot, outbox: &Path) -> EndedShot {
    let result = match &shot.state {
        ShotState::Delivered { name, .. } => Some(outbox.join(&name.picture)),
        _ => None,
    };
    EndedShot {
        result,
        seed: shot.seed.or(shot.receipt.seed),
        billed: shot.billed(),
        cost: shot.receipt.cost,
        request_id: shot.receipt.request_id.clone(),
    }
}
