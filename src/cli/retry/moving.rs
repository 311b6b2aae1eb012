//! A drop goes from errors back into the inbox.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, LONGEST_TEXT_BYTES, read_at_most};
use crate::domain::ids::{Fingerprint, Place, RelPath, show};
use crate::domain::kinds::{NameKind, classify};
use crate::domain::names::SetNames;
use crate::engine::DROP_BOTH;
use crate::engine::site::{INNER_WORKING, Site};
use crate::ledger::Ledger as _;
use crate::outbox::OutboxError;
use crate::outbox::filing::{self, Move, move_file};
use crate::outbox::folder::Folder;
use crate::outbox::listing::{Listings, Wanted};
use crate::outbox::note::take_away_if_ours;
use crate::outbox::overlap::same_or_nested;
use crate::outbox::room;
use crate::reference;

use super::super::exit::Failure;
use super::find::Failed;
use super::{Book, inbox_is_there};

/// How often another number is tried when somebody takes the name meanwhile.
const TRIES: u32 = 100;

/// From where to where.
pub(super) struct Places {
    inbox: PathBuf,
    errors: PathBuf,
    /// Where a copy from another filesystem is prepared: nothing of ours lies in the inbox.
    stage: PathBuf,
    listings: Listings,
}

impl Places {
    /// Both folders, apart from one another, and the daemon's own place on the inbox's filesystem.
    pub(super) fn find(config: &Config, state_dir: &Path) -> Result<Self, Failure> {
        inbox_is_there(config)?;
        let (inbox, errors) = (&config.folders.inbox, &config.folders.errors);
        match same_or_nested(&[inbox, errors]) {
            Ok(None) => {}
            Ok(Some(_)) => {
                return Err(Failure::usage(format!(
                    "[folders] inbox ({}) and [folders] errors ({}) overlap: give each a place of its own",
                    show(inbox.as_os_str()),
                    show(errors.as_os_str())
                )));
            }
            Err(e) => return Err(Failure::usage(e.to_string())),
        }
        let stage = match standing_working(config) {
            Some(working) => working,
            None => Site::open(config, state_dir).map_err(|e| Failure::usage(e.to_string()))?.working,
        };
        Ok(Self { inbox: inbox.clone(), errors: errors.clone(), stage, listings: Listings::new() })
    }
}

/// The working folder, if there is one on the inbox's filesystem already.
fn standing_working(config: &Config) -> Option<PathBuf> {
    let inbox = &config.folders.inbox;
    let device = |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir).map(|m| m.dev());
    let beside = inbox.parent().map(|parent| parent.join("working"));
    let places = config.folders.working.clone().into_iter().chain(beside).chain([inbox.join(INNER_WORKING)]);
    places.into_iter().find(|path| device(path).is_some() && device(path) == device(inbox))
}

/// Moves one drop; the line to be printed, or why it stayed.
pub(super) fn bring_back(places: &Places, book: &mut Book, drop: &Failed, again: bool) -> Result<String, String> {
    let place = drop.place();
    let why = |e: &dyn std::fmt::Display| format!("{place} stayed in errors: {e}");
    // What can be copied and not removed would be there, and be paid for, once more each time.
    let folder = drop.folder.under(&places.errors);
    if let Some(closed) = room::look(&folder, 0).closed() {
        return Err(why(&format!("{} {closed}, so that nothing can go from it", show(folder.as_os_str()))));
    }
    if let Some(name) = drop.members.iter().find(|name| is_anothers(&folder, name)) {
        return Err(why(&format!(
            "{} is another user's, and so is the folder, which is sticky (+t): run this as that user",
            show(name)
        )));
    }
    let mut said = Vec::new();
    if again {
        said.extend(wish(places, book, drop).map_err(|e| why(&e))?);
    }
    let is_there = Folder::existing(&places.inbox, &drop.folder).is_ok_and(|folder| folder.is_some());
    let (names, left) = move_all(places, drop).map_err(|e| why(&e))?;
    said.extend(left);
    if !is_there {
        said.push("its folder was not there any more and is made anew, without a preset of its own".into());
    }
    let back = Place { folder: drop.folder.clone(), name: names.last().cloned().unwrap_or_default() };
    for note in &drop.notes {
        said.extend(take_note_away(places, book, &drop.folder, note));
    }
    let name = if back == place { String::new() } else { format!(" as {back}, since the name is taken there") };
    let others = drop.members.len().saturating_sub(1);
    let with = match others {
        0 => String::new(),
        1 => format!(" with {}", show(&drop.members[0])),
        _ => format!(" with {others} more files"),
    };
    said.insert(0, format!("{place}{with}: back in the inbox{name}"));
    Ok(said.join("; "))
}

/// Whether only another user may remove this file: what is sticky keeps others from it.
fn is_anothers(folder: &Path, name: &OsStr) -> bool {
    const STICKY: u32 = 0o1000;
    let (Ok(around), Ok(file)) = (std::fs::metadata(folder), std::fs::symlink_metadata(folder.join(name))) else {
        return false;
    };
    let me = rustix::process::geteuid();
    around.mode() & STICKY != 0 && !me.is_root() && ![around.uid(), file.uid()].contains(&me.as_raw())
}

/// Whether it is a sidecar that came too late for its picture, as its note says: back in the inbox it would be a prompt of
/// its own, and paid for.
pub(super) fn is_late(places: &Places, drop: &Failed) -> bool {
    let is_sidecar = |name: &OsString| matches!(classify(&drop.folder, name, false, &|_| false), NameKind::Sidecar(_));
    drop.members.iter().all(is_sidecar)
        && drop.notes.iter().any(|note| {
            let file =
                Folder::existing(&places.errors, &drop.folder).ok().flatten().and_then(|dir| dir.open(note).ok());
            let bytes = file.and_then(|file| read_at_most(&file, LONGEST_TEXT_BYTES).ok().flatten());
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            // Its lines are broken to be read.
            text.split_whitespace().collect::<Vec<_>>().join(" ").contains(DROP_BOTH)
        })
}

/// Commits that all shots are to be made anew, before anything moves.
fn wish(places: &Places, book: &mut Book, drop: &Failed) -> Result<Option<String>, String> {
    const NEW: &str = "there is no record of it, so all its shots are made in any case";
    let Some(ledger) = book.ledger() else { return Ok(Some(NEW.to_owned())) };
    let mut prints = Vec::new();
    for name in &drop.members {
        let path = drop.folder.under(&places.errors).join(name);
        let gone = || format!("{}: it is not there any more", show(path.as_os_str()));
        let folder = Folder::existing(&places.errors, &drop.folder).map_err(|e| e.to_string())?.ok_or_else(gone)?;
        let file = folder.open(name).map_err(|e| e.to_string())?;
        prints.push(reference::fingerprint(&file).map_err(|e| format!("{}: {e}", show(path.as_os_str())))?);
    }
    let found = ledger.wish_again(&prints).map_err(|e| e.to_string())?;
    // A drop whose files are others than when it failed is a new one: the daemon makes all of it.
    Ok((!found).then(|| NEW.to_owned()))
}

/// Sidecars first, the picture last, all under one number: the names, and what is to be said of what stays behind. If one
/// can't go, those before it come back.
fn move_all(places: &Places, drop: &Failed) -> Result<(Vec<OsString>, Option<String>), String> {
    let set = SetNames::new(&drop.stem, &drop.members);
    let mut at_least = 1;
    loop {
        let names = |n: u32| set.members(n);
        let wanted = [Wanted { root: &places.inbox, rel: &drop.folder, names: &names }];
        let n = places.listings.choose_number(&wanted, |n| n < at_least).map_err(|e| e.to_string())?;
        let names = set.members(n);
        match move_under(places, drop, &names) {
            Ok(left) => {
                let all: Vec<&OsStr> = names.iter().map(OsString::as_os_str).collect();
                // A listing that is not told only lists once more.
                let _ = places.listings.added(&places.inbox, &drop.folder, &all);
                return Ok((names, left));
            }
            Err((cause, None)) if cause.is_taken() && n < at_least.saturating_add(TRIES) && n < 100_000 => {
                at_least = n + 1;
            }
            Err((cause, None)) => return Err(cause.to_string()),
            Err((cause, Some(stranded))) => return Err(format!("{cause}; {stranded}")),
        }
    }
}

/// What is to be said of what stays in errors although it went; or the error, and what could not be taken back, in words.
///
/// What has to be copied is copied first, and then all of it gets its names at one moment: a sidecar that lies in the
/// inbox alone for long is a drop of its own.
fn move_under(
    places: &Places,
    drop: &Failed,
    names: &[OsString],
) -> Result<Option<String>, (OutboxError, Option<String>)> {
    let stage = Folder::root(&places.stage).map_err(|e| (e, None))?;
    let moves: Vec<_> = drop.members.iter().zip(names).map(|(old, new)| there(places, drop, old, new)).collect();
    let staged: Result<Vec<_>, _> = moves.iter().map(|one| filing::stage(one, &stage)).collect();
    let mut copied = Vec::new();
    for (i, staged) in staged.map_err(|e| (e, None))?.into_iter().enumerate() {
        let done = match staged {
            Some(staged) => filing::put(&moves[i], staged).map(|put| copied.push((i, put))),
            None => move_file(&moves[i]).map(|_| ()),
        };
        let Err(cause) = done else { continue };
        let mut stranded = Vec::new();
        for (old, new) in drop.members.iter().zip(names).take(i) {
            if let Err(e) = move_file(&back(places, drop, old, new)) {
                stranded.push(format!("{} is in the inbox and could not be taken back: {e}", show(new)));
            }
        }
        return Err((cause, (!stranded.is_empty()).then(|| stranded.join("; "))));
    }
    let take_away = |(i, put): &(usize, filing::Put)| filing::take_source_away(&moves[*i], put).err();
    let stays: Vec<_> = copied.iter().filter_map(take_away).map(|e| e.to_string()).collect();
    // It goes all the same: whoever brings it back once more would pay for it once more.
    let words = || format!("it could not be removed from errors ({}): remove it there", stays.join("; "));
    Ok((!stays.is_empty()).then(words))
}

/// From errors into the inbox.
fn there<'a>(places: &'a Places, drop: &'a Failed, old: &'a OsStr, new: &'a OsStr) -> Move<'a> {
    Move {
        from_root: &places.errors,
        from_rel: &drop.folder,
        from_name: old,
        to_root: &places.inbox,
        to_rel: &drop.folder,
        to_name: new,
        print: None,
        stage: Some(&places.stage),
    }
}

/// From the inbox into errors again.
fn back<'a>(places: &'a Places, drop: &'a Failed, old: &'a OsStr, new: &'a OsStr) -> Move<'a> {
    Move {
        from_root: &places.inbox,
        from_rel: &drop.folder,
        from_name: new,
        to_root: &places.errors,
        to_rel: &drop.folder,
        to_name: old,
        print: None,
        stage: None,
    }
}

/// A note that we wrote and nobody edited goes; what is to be said of one that stays.
fn take_note_away(places: &Places, book: &mut Book, folder: &RelPath, note: &OsStr) -> Option<String> {
    let stays = |why: &str| Some(format!("its note {} stays ({why})", show(note)));
    let ledger = match book {
        Book::Open(ledger) => ledger,
        Book::None => return stays("there is no ledger yet that knows it"),
        Book::Closed(_) => return stays("the ledger can't be read"),
    };
    let path = folder.under(&places.errors).join(note);
    let recorded = match ledger.note_at(&path) {
        Ok(Some(print)) => Some(print),
        // Written when errors had another name, or moved by somebody: known by its text.
        Ok(None) => print_of(places, folder, note).filter(|print| ledger.is_our_note(*print).unwrap_or(false)),
        Err(e) => return stays(&e.to_string()),
    };
    let Some(print) = recorded else { return stays("it was not written by this daemon, or was edited") };
    match take_away_if_ours(&places.errors, folder, note, print) {
        Ok(true) => None,
        Ok(false) => stays("it was edited"),
        Err(e) => stays(&e.to_string()),
    }
}

fn print_of(places: &Places, folder: &RelPath, note: &OsStr) -> Option<Fingerprint> {
    let file = Folder::existing(&places.errors, folder).ok()??.open(note).ok()?;
    reference::fingerprint(&file).ok()
}
