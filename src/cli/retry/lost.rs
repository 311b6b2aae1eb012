//! Drops whose originals are nowhere: their rows stay open until a person closes them here.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::Config;
use crate::domain::ids::{Place, RelPath, show};
use crate::domain::life::{Fate, ShotState};
use crate::domain::names::SetNames;
use crate::engine::site::INNER_WORKING;
use crate::ledger::{Ending, Ledger as _, OpenDrop};
use crate::outbox::OutboxError;
use crate::outbox::filing::{Move, file_away};
use crate::outbox::folder::Folder;
use crate::outbox::listing::{Listings, Wanted};
use crate::service::lock::{Lock, LockError, STATE_LOCK};

use super::super::exit::Failure;
use super::Book;

/// The open row that `path` means, which lies in no folder any more; `None` if there is none such.
pub(super) fn find(config: &Config, book: &mut Book, path: &Path) -> Result<Option<OpenDrop>, Failure> {
    let Some(ledger) = book.ledger() else { return Ok(None) };
    let places = meant(config, path);
    let open = ledger.open_drops().map_err(|e| Failure::unexpected(e.to_string()))?;
    Ok(open.into_iter().find(|row| {
        row.drop
            .members
            .iter()
            .any(|member| places.contains(&Place { folder: row.drop.folder.clone(), name: member.name.clone() }))
    }))
}

/// What a path that need not be there may mean: as `status` shows drops, or below one of the folders.
fn meant(config: &Config, path: &Path) -> Vec<Place> {
    let folders = &config.folders;
    let roots: Vec<PathBuf> =
        [&folders.errors, &folders.inbox, &folders.archive].into_iter().cloned().chain(workings(config)).collect();
    let absolute = std::path::absolute(path).ok();
    let below = absolute.iter().flat_map(|path| roots.iter().filter_map(|root| RelPath::below(root, path)));
    let rels = below.chain(path.is_relative().then(|| RelPath::new(path)).flatten());
    rels.filter_map(|rel| Some(Place { folder: rel.parent()?, name: rel.name()?.to_owned() })).collect()
}

fn workings(config: &Config) -> Vec<PathBuf> {
    let inbox = &config.folders.inbox;
    let beside = inbox.parent().map(|parent| parent.join("working"));
    config.folders.working.clone().into_iter().chain(beside).chain([inbox.join(INNER_WORKING)]).collect()
}

/// Closes the row, if the daemon does not run and the originals really are nowhere.
pub(super) fn close(state_dir: &Path, book: &mut Book, config: &Config, open: &OpenDrop) -> Result<String, String> {
    let lead = open.drop.members.last().map(|member| member.name.clone()).unwrap_or_default();
    let place = Place { folder: open.drop.folder.clone(), name: lead };
    // Held until the row is closed, so that no daemon takes the row up meanwhile.
    let _lock = Lock::take(&state_dir.join(STATE_LOCK)).map_err(|e| match e {
        LockError::Held { .. } => format!(
            "{place} is in work, or its files are lost; what a running daemon holds can't be closed: stop the daemon, then run this again"
        ),
        e => e.to_string(),
    })?;
    let rests = match rests(config, open) {
        Ok(rests) => rests,
        Err(path) => {
            return Err(format!(
                "{place} is not lost: {} is there. The daemon takes it up at its next start",
                show(path.as_os_str())
            ));
        }
    };
    let kept = open.drop.shots.iter().any(|shot| {
        matches!(shot.state, ShotState::Answered { .. } | ShotState::Received { .. } | ShotState::Publishing { .. })
    });
    if kept {
        return Err(format!(
            "{place}: a result of it is paid for and not delivered yet. Start the daemon once (reimagined run), which delivers it, then run this again"
        ));
    }
    let Some(ledger) = book.ledger() else { return Err(format!("{place}: the ledger can't be written")) };
    // Without its row, what is left in working would be taken for a drop that was never sent.
    let names = set_aside(config, open, &rests).map_err(|e| format!("{place}: {e}"))?;
    ledger
        .close(open.drop.id, Ending::Lost, Some("its files were lost; closed by a person"), Timestamp::now())
        .map_err(|e| format!("{place}: {e}"))?;
    let rest = match names.as_slice() {
        [] => String::new(),
        names => format!(
            "; what is left of it lies in errors: {}",
            names.iter().map(|n| show(n)).collect::<Vec<_>>().join(", ")
        ),
    };
    Ok(format!("{place}: its files are nowhere, so its record was closed as lost{rest}"))
}

/// What is left of it in a working folder: the root and the name. The error is a file of one that is all there.
fn rests(config: &Config, open: &OpenDrop) -> Result<Vec<(PathBuf, OsString)>, PathBuf> {
    let rel = &open.drop.folder;
    let lies = |root: &Path, name: &OsStr| {
        let found = Folder::existing(root, rel).ok().flatten().and_then(|folder| folder.look(name).ok().flatten());
        found.is_some_and(|entry| entry.is_file())
    };
    let (mut rests, mut elsewhere, mut missing) = (Vec::new(), None, false);
    // As the daemon looks for them at its start.
    for (i, member) in open.drop.members.iter().filter(|member| member.moves).enumerate() {
        let name = &member.name;
        let working = std::iter::once(open.drop.working.clone()).chain(workings(config)).find(|root| lies(root, name));
        let filed = open.filing.as_ref().and_then(|filing| {
            let root = if filing.fate == Fate::Archive { &config.folders.archive } else { &config.folders.errors };
            filing.names.get(i).filter(|name| lies(root, name)).map(|name| rel.under(root).join(name))
        });
        let inbox = &config.folders.inbox;
        if let Some(root) = working {
            rests.push((root, name.clone()));
        } else if let Some(path) = filed.or_else(|| lies(inbox, name).then(|| rel.under(inbox).join(name))) {
            elsewhere = Some(path);
        } else {
            missing = true;
        }
    }
    match (missing, rests.first(), elsewhere) {
        (true, ..) | (false, None, None) => Ok(rests),
        (false, Some((root, name)), _) => Err(rel.under(root).join(name)),
        (false, None, Some(path)) => Err(path),
    }
}

/// Moves them into errors, under a free number; the names there.
fn set_aside(config: &Config, open: &OpenDrop, rests: &[(PathBuf, OsString)]) -> Result<Vec<OsString>, OutboxError> {
    let (errors, rel) = (&config.folders.errors, &open.drop.folder);
    let set = SetNames::new(&open.drop.stem, rests.iter().map(|(_, name)| name));
    let members = |n: u32| set.members(n);
    let n = Listings::new().choose_number(&[Wanted { root: errors, rel, names: &members }], |_| false)?;
    let names = set.members(n);
    for ((root, old), new) in rests.iter().zip(&names) {
        file_away(&Move {
            from_root: root,
            from_rel: rel,
            from_name: old,
            to_root: errors,
            to_rel: rel,
            to_name: new,
            print: None,
            stage: None,
        })?;
    }
    Ok(names)
}
