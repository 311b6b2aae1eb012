//! The end of a drop: its originals go to the archive, or to errors with a note, or back into the inbox.

use std::ffi::{OsStr, OsString};
use std::fs::File;

use crate::domain::ids::{Fingerprint, show};
use crate::domain::life::{Fate, Shot, ShotState, fate};
use crate::domain::names::SetNames;
use crate::domain::verdict::Billed;
use crate::ledger::{Ending, Filing, Limits, Member, OpenDrop, Role};
use crate::outbox::OutboxError;
use crate::outbox::claim;
use crate::outbox::filing::{Move, file_unsynced};
use crate::outbox::folder::Folder;
use crate::outbox::listing::Wanted;
use crate::outbox::note::{self, Note, NoteShot};
use crate::outbox::room;
use crate::outbox::unsynced::Unsynced;

use super::ctx::{Ctx, blocking};
use super::deliver::{moving, shown_name};
use super::event::{Back, Event, FiledAs};
use super::pump::place_of;
use super::send;

/// Files the originals of a drop whose shots have all ended, closes its row and tells the loop.
pub(super) async fn file(ctx: Ctx, mut open: OpenDrop) {
    let id = open.drop.id;
    let done = file_all(&ctx, &mut open).await;
    ctx.send(Event::Filed { drop: id, filing: open.filing, done }).await;
}

async fn file_all(ctx: &Ctx, open: &mut OpenDrop) -> Result<FiledAs, String> {
    let id = open.drop.id;
    let fate = fate(&open.drop.shots).ok_or("a shot has not ended")?;
    let reason = reason(open);
    // Names that were chosen for another end are none.
    open.filing.take_if(|filing| filing.fate != fate);
    let (mut at_least, mut before) = (1, None);
    loop {
        if open.filing.is_none() {
            match name(ctx, open, fate, at_least, before.clone()).await {
                Ok(filing) => open.filing = Some(filing),
                Err(e) => {
                    // What has arrived has arrived under these.
                    open.filing = before;
                    return Err(e);
                }
            }
        }
        let Some(filing) = open.filing.clone() else { return Err("no names were chosen".into()) };
        let (again, row) = (ctx.clone(), open.clone());
        let moved = move || {
            let mut unsynced = Unsynced::default();
            move_all(&again, &row, &filing, &[], &mut unsynced)?;
            unsynced.sync()
        };
        match blocking(moved).await? {
            Ok(()) => break,
            Err(e) if e.is_taken() && at_least < 100_000 => {
                // What has moved already stays where it is; the rest finds a new number together.
                at_least = open.number.unwrap_or(1).max(at_least) + 1;
                before = open.filing.take();
            }
            Err(OutboxError::Gone { path }) => {
                return Ok(FiledAs::Missing(format!("{} is nowhere to be found", show(path.as_os_str()))));
            }
            Err(e) => return Err(e.to_string()),
        }
    }
    let Some(filing) = open.filing.clone() else { return Err("no names were chosen".into()) };
    let (ending, why) = match fate {
        Fate::Archive => (Ending::Archived, None),
        Fate::Errors => (Ending::Failed, Some(reason.clone())),
    };
    let now = ctx.clock.wall();
    ctx.record(move |l| l.close(id, ending, why.as_deref(), now)).await.map_err(|e| e.for_a_person())?;
    Ok(match (fate, filing.note) {
        (Fate::Errors, Some(note)) => {
            FiledAs::Failed { reason, note: open.drop.folder.under(&ctx.site.errors).join(note) }
        }
        (Fate::Errors, None) => FiledAs::Failed { reason, note: open.drop.folder.under(&ctx.site.errors) },
        (Fate::Archive, _) => FiledAs::Archived,
    })
}

/// Chooses names and commits them.
async fn name(ctx: &Ctx, open: &OpenDrop, fate: Fate, at_least: u32, before: Option<Filing>) -> Result<Filing, String> {
    let id = open.drop.id;
    let (again, row) = (ctx.clone(), open.clone());
    let chosen = blocking(move || {
        let chosen = choose(&again, &row, fate, at_least)?;
        match before {
            Some(before) => keep_arrived(&again, &row, &before, chosen),
            None => Ok(chosen),
        }
    });
    let filing = chosen.await??;
    let row = filing.clone();
    ctx.record(move |l| l.file_under(id, &row)).await.map_err(|e| e.for_a_person())?;
    Ok(filing)
}

/// The new names, but for what has arrived under its name of `before` already.
pub(super) fn keep_arrived(ctx: &Ctx, open: &OpenDrop, before: &Filing, mut chosen: Filing) -> Result<Filing, String> {
    let rel = &open.drop.folder;
    let root = if before.fate == Fate::Archive { &ctx.site.archive } else { &ctx.site.errors };
    let from = Folder::existing(&open.drop.working, rel).map_err(|e| e.to_string())?;
    let to = Folder::existing(root, rel).map_err(|e| e.to_string())?;
    let lies = |folder: &Option<Folder>, name: &OsStr| {
        folder.as_ref().is_some_and(|f| f.look(name).is_ok_and(|e| e.is_some()))
    };
    for ((member, old), new) in moving(open).iter().zip(&before.names).zip(&mut chosen.names) {
        if !lies(&from, member) && lies(&to, old) {
            new.clone_from(old);
        }
    }
    Ok(chosen)
}

/// Names that are free where the originals go. Blocks on the disk.
pub(super) fn choose(ctx: &Ctx, open: &OpenDrop, fate: Fate, at_least: u32) -> Result<Filing, String> {
    let set = SetNames::new(&set_stem(open), moving(open));
    // The set's number, so that results and originals are found under the same name.
    let first = open.number.unwrap_or(1).max(at_least);
    let root = if fate == Fate::Archive { &ctx.site.archive } else { &ctx.site.errors };
    let names = |n: u32| {
        let mut names = set.members(n);
        if fate == Fate::Errors {
            names.push(set.note(n));
        }
        names
    };
    let wanted = [Wanted { root, rel: &open.drop.folder, names: &names }];
    let n = ctx.listings.choose_number(&wanted, |n| n < first).map_err(|e| e.to_string())?;
    Ok(Filing { fate, names: set.members(n), note: (fate == Fate::Errors).then(|| set.note(n)) })
}

/// What the names of a drop's set have in common. A foreign file is known by its whole name, and is numbered
/// before its extension all the same.
fn set_stem(open: &OpenDrop) -> OsString {
    let foreign = open.drop.members.iter().find(|m| m.role == Role::Foreign);
    let stem = foreign.and_then(|m| std::path::Path::new(&m.name).file_stem()).unwrap_or(&open.drop.stem);
    stem.to_os_string()
}

/// Moves the originals under the names that were committed. `as_claimed`: as they were found in working, where that
/// is known. The folders are not synced yet. Blocks on the disk.
pub(super) fn move_all(
    ctx: &Ctx,
    open: &OpenDrop,
    filing: &Filing,
    as_claimed: &[claim::Member],
    unsynced: &mut Unsynced,
) -> Result<(), OutboxError> {
    let root = if filing.fate == Fate::Archive { &ctx.site.archive } else { &ctx.site.errors };
    let rel = &open.drop.folder;
    ctx.site.keep_mounted(root)?;
    if let Some(name) = &filing.note {
        let text = note_of(ctx, open).text();
        let print = Fingerprint::of(text.as_bytes());
        let (id, path) = (open.drop.id, rel.under(root).join(name));
        // Recorded first: a note that stands must be known as ours after a crash, too.
        let recorded = ctx.ledger.call_blocking(move |l| l.noted(id, &path, print));
        if let Ok(Err(e)) | Err(e) = recorded {
            tracing::warn!(error = %e, "a note could not be recorded; it will not be taken away by itself");
        }
        note::write_note(root, rel, name, &text)?;
    }
    let members = open.drop.members.iter().filter(|m| m.moves);
    for (member, name) in members.zip(&filing.names) {
        if was_changed(open, member, as_claimed) {
            let file = place_of(rel, std::slice::from_ref(member));
            tracing::warn!(%file, blake3 = member.print.map(tracing::field::display), "was written to while it was in work, by another name or by a program that had it open: what is filed is not what was read");
        }
        let filing = Move {
            from_root: &open.drop.working,
            from_rel: rel,
            from_name: &member.name,
            to_root: root,
            to_rel: rel,
            to_name: name,
            print: member.print,
            stage: None,
        };
        file_unsynced(&filing, unsynced)?;
    }
    let names: Vec<_> = filing.names.iter().map(OsString::as_os_str).chain(filing.note.as_deref()).collect();
    ctx.listings.added(root, rel, &names)
}

/// Whether a member of a drop that was to be sent has other bytes by now than those that were read. What can't be
/// read, or is gone, has been filed already or shows when it is moved.
fn was_changed(open: &OpenDrop, member: &Member, as_claimed: &[claim::Member]) -> bool {
    let Some(print) = member.print.filter(|_| !open.drop.shots.is_empty()) else { return false };
    let folder = Folder::existing(&open.drop.working, &open.drop.folder).ok().flatten();
    let now = folder.as_ref().and_then(|folder| folder.look(&member.name).ok().flatten());
    let then = as_claimed.iter().find(|then| then.name == member.name);
    if then.zip(now).is_some_and(|(then, now)| then.facts == now.facts) {
        // Nobody can set back the time of a file's last change, so its bytes need not be read again.
        return false;
    }
    let file = folder.and_then(|folder| folder.open(&member.name).ok());
    // One that grew or shrank need not be read.
    let now = |file: File| match file.metadata() {
        Ok(m) if m.len() != member.size => None,
        _ => crate::reference::fingerprint(&file).ok(),
    };
    file.is_some_and(|file| now(file) != Some(print))
}

/// Why a drop ends in errors, in one line.
pub(super) fn reason(open: &OpenDrop) -> String {
    if let Some(failure) = &open.drop.failure {
        return failure.clone();
    }
    let shot = open.drop.shots.iter().find(|s| !matches!(s.state, ShotState::Delivered { .. }));
    match shot.map(|s| &s.state) {
        Some(ShotState::Failed { reason, .. }) => reason.clone(),
        Some(ShotState::Unconfirmed { reason }) => format!("unconfirmed, it may have been billed: {reason}"),
        _ => "it could not be made".into(),
    }
}

/// How the reason of a late sidecar ends.
pub(crate) const DROP_BOTH: &str = "drop both again";

fn note_of(ctx: &Ctx, open: &OpenDrop) -> Note {
    let shots = &open.drop.shots;
    let label = place_of(&open.drop.folder, &open.drop.members).to_string();
    let unknown = shots.iter().any(|s| s.billed() == Billed::Unknown);
    let has_url = shots.iter().any(|s| matches!(s.state, ShotState::Failed { url: Some(_), .. }));
    let delivered: Vec<_> = shots
        .iter()
        .filter_map(|s| match &s.state {
            ShotState::Delivered { name, .. } => Some(shown_name(&open.drop.folder, name)),
            _ => None,
        })
        .collect();
    let (plain, api_message) = plain_reason(open);
    if open.drop.failure.as_deref().is_some_and(|failure| failure.ends_with(DROP_BOTH)) {
        let try_again =
            "Put the picture and this file into the same folder of the inbox together, this file first.".into();
        let reason = open.drop.failure.clone().unwrap_or_default();
        let when = open.claimed.to_zoned(jiff::tz::TimeZone::system());
        return Note { when, label, reason, api_message: None, shots: Vec::new(), try_again, delivered };
    }
    let mut try_again = String::from(
        "Mend what is said above, then move the files of this drop from errors back into the same folder of the inbox (or run: reimagined retry PATH).",
    );
    let shared: Vec<_> = open.drop.members.iter().filter(|m| !m.moves).map(|m| show(&m.name)).collect();
    if !shared.is_empty() {
        try_again.push_str(" Bring ");
        try_again.push_str(&shared.join(" and "));
        try_again.push_str(" along, which belongs to other pictures, too: it lies in the inbox still, or went to the archive or errors with the last of them. Without it this is another request, all of which is made and paid for.");
    }
    if unknown {
        try_again.push_str(" What is marked \"billed: unknown\" may have been billed already: dropping it again sends it again and may be paid for twice.");
    }
    if !delivered.is_empty() {
        try_again.push_str(" What was delivered is not made again.");
    }
    if has_url {
        try_again.push_str(
            " A picture that was billed and could not be fetched may still be had at the URL given with its shot.",
        );
    }
    // The moment of the last thing that happened to it, so that the same note comes out after a crash.
    let when =
        shots.iter().filter_map(|s| s.last_sent).max().unwrap_or(open.claimed).to_zoned(jiff::tz::TimeZone::system());
    Note {
        when,
        label,
        reason: plain,
        api_message,
        shots: shots.iter().map(|shot| note_shot(ctx, shot)).collect(),
        try_again,
        delivered,
    }
}

/// The reason in plain words, and the service's own where it gave any.
fn plain_reason(open: &OpenDrop) -> (String, Option<String>) {
    if let Some(failure) = &open.drop.failure {
        return (failure.clone(), None);
    }
    let shots = &open.drop.shots;
    let ended = shots.iter().filter(|s| !matches!(s.state, ShotState::Delivered { .. })).count();
    let what =
        if shots.len() > 1 { format!("{ended} of {} pictures were not made. ", shots.len()) } else { String::new() };
    let states: Vec<_> = shots.iter().map(|s| &s.state).collect();
    let failed = states.iter().find_map(|s| match s {
        ShotState::Failed { reason, url, .. } => Some((reason.clone(), url.is_some())),
        _ => None,
    });
    let lost = states.iter().find_map(|s| match s {
        ShotState::Unconfirmed { reason } => Some(reason.clone()),
        _ => None,
    });
    match (failed, lost) {
        (Some((reason, true)), _) => {
            (format!("{what}The picture was made and billed, but could not be received: {reason}"), None)
        }
        (Some((reason, false)), _) => {
            said(format!("{what}The service refused this drop, or could not make it."), reason)
        }
        (None, Some(reason)) => said(
            format!(
                "{what}The request was sent, but no good answer came, so nobody knows whether it was billed. It is not sent again by itself."
            ),
            reason,
        ),
        (None, None) => (format!("{what}It could not be made."), None),
    }
}

/// The service's own words stand apart; everything else is ours.
fn said(plain: String, reason: String) -> (String, Option<String>) {
    if reason.starts_with("HTTP ") { (plain, Some(reason)) } else { (format!("{plain} What happened: {reason}"), None) }
}

fn note_shot(ctx: &Ctx, shot: &Shot) -> NoteShot {
    let billed = match shot.billed() {
        Billed::No => note::Billed::No,
        Billed::Yes => note::Billed::Yes,
        Billed::Unknown => note::Billed::Unknown,
    };
    let (outcome, url) = match &shot.state {
        ShotState::Delivered { name, .. } => (format!("delivered as {}", show(&name.picture)), None),
        ShotState::Failed { reason, url, .. } => {
            // A service may put the key into it, and it is refused for other reasons.
            let url = url.as_deref().map(|url| crate::segmind::without_key(url, ctx.keys.key_here().as_deref()));
            (format!("failed: {reason}"), url)
        }
        ShotState::Unconfirmed { reason } => (format!("unconfirmed: {reason}"), None),
        other => (other.word().to_owned(), None),
    };
    NoteShot { no: shot.no.0 + 1, seed: shot.seed, outcome, billed, request_id: shot.receipt.request_id.clone(), url }
}

/// A claimed drop of which nothing was or may have been billed goes back into the inbox: its row is closed
/// first, then the sidecars move, the image last. Not where a name is taken there by now, or its folder is gone: then it
/// stays due.
pub(super) async fn go_back(ctx: Ctx, open: OpenDrop) {
    let id = open.drop.id;
    let back = return_all(&ctx, open).await;
    ctx.send(Event::WentBack { drop: id, back }).await;
}

async fn return_all(ctx: &Ctx, open: OpenDrop) -> Back {
    let (id, now) = (open.drop.id, ctx.clock.wall());
    let (site, row) = (ctx.site.clone(), open.clone());
    let free = blocking(move || {
        let there =
            site.inbox_is_there() && room::look(&site.inbox, 0).is_ok() && room::look(&row.drop.working, 0).is_ok();
        // Made anew it would be without its presets, and the drop another one.
        let has_folder = || Folder::existing(&site.inbox, &row.drop.folder).is_ok_and(|folder| folder.is_some());
        let taken = || claim::taken(&row.drop.working, &site.inbox, &row.drop.folder, &moving(&row));
        there && has_folder() && taken().is_ok_and(|taken| taken.is_empty())
    });
    if !free.await.unwrap_or(false) {
        return Back::Stays;
    }
    if let Err(e) = ctx.record(move |l| l.close(id, Ending::Returned, None, now)).await {
        tracing::warn!(error = %e, "the ledger can't record that a drop goes back; it stays due in working");
        return Back::Stays;
    }
    let (site, row) = (ctx.site.clone(), open.clone());
    let returned =
        blocking(move || claim::unclaim(&row.drop.working, &site.inbox, &row.drop.folder, &moving(&row))).await;
    let (why, stranded) = match returned {
        Ok(Ok(returned)) if returned.is_back() => return Back::InInbox,
        Ok(Ok(returned)) => (format!("{:?}: the name is taken", returned.taken), returned.stranded),
        Ok(Err(e)) => (e.to_string(), e.stranded),
        Err(e) => (e, Vec::new()),
    };
    tracing::warn!(reason = %why, left_in_the_inbox = ?stranded, "a drop could not go back into the inbox; it stays due in working");
    let mut reborn = open;
    // What was frozen of it holds; it is a file of the inbox now.
    reborn.drop.members.retain(|member| !stranded.contains(&member.name));
    reborn.drop.id = send::new_id();
    reborn.drop.continues = Some(id);
    // Its old row is closed: without a new one nobody would know of it.
    loop {
        let (row, moment) = (reborn.drop.clone(), ctx.clock.moment());
        match ctx.record(move |l| l.begin(&row, None, Limits::default(), &moment)).await {
            Ok(_) => return Back::Reborn(Box::new(reborn)),
            Err(e) => tracing::warn!(error = %e, "the ledger can't take it up again; trying until it can"),
        }
        tokio::time::sleep(super::LOOK_AGAIN).await;
    }
}
