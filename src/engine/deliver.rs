//! From an answer or a receipt to a picture in the outbox: fetch it and keep it; then publish it.

use std::sync::Arc;

use crate::domain::ids::{DropId, RelPath, ShotNo};
use crate::domain::life::{Fate, OutputName, Shot, ShotEvent, ShotState, Spooled};
use crate::domain::names::{Parts, SetNames, Template, provenance_name, result_name};
use crate::ledger::{Filing, OpenDrop};
use crate::outbox::OutboxError;
use crate::outbox::listing::Wanted;
use crate::outbox::provenance::{Input, Provenance, SCHEMA, Times};
use crate::outbox::publish::{Delivery, recover_unsynced};
use crate::outbox::unsynced::Unsynced;
use crate::reference::{self, Format, Whole};
use crate::segmind::{DownloadOutcome, Held};

use super::ctx::{Ctx, MAX_RESULT_BYTES, blocking};
use super::event::{Event, Fetched, KeepFault};
use super::file;
use super::frozen::Frozen;
use super::keep::{Came, keep_part};
use super::send::record_steps;

/// The extension that the bytes ask for, if they are a whole picture of a kind that the service sends.
pub(super) fn extension(found: &Whole) -> Result<&'static str, String> {
    match found {
        Whole::Whole { format: Format::Jpeg, .. } => Ok("jpg"),
        Whole::Whole { format: Format::Png, .. } => Ok("png"),
        Whole::Whole { format: Format::WebP, .. } => Ok("webp"),
        Whole::Whole { format, .. } => Err(format!("the answer was a {format:?}, which the service never sends")),
        Whole::Cut { .. } => Err("the picture in the answer was cut off".into()),
        Whole::Broken { why, .. } => Err(format!("the picture in the answer is broken: {why}")),
        Whole::Unknown { .. } | Whole::Empty => Err("the answer was no picture".into()),
    }
}

/// Downloads an answered shot's picture and keeps it. `held`: it came before, and the disk did not take it. `is_lost`:
/// its originals are nowhere.
pub(super) async fn fetch(
    ctx: Ctx,
    open: OpenDrop,
    frozen: Frozen,
    shot: Shot,
    held: Option<Arc<Held>>,
    is_lost: bool,
) {
    let (id, no) = (open.drop.id, shot.no);
    let fetched = match fetch_and_keep(&ctx, open, frozen, shot, held, is_lost).await {
        Ok(Came::Moved(moved, unsynced)) => return super::closing::close(ctx, moved, unsynced).await,
        Ok(Came::Kept(kept)) => Fetched::Kept(kept),
        Err(fetched) => fetched,
    };
    ctx.send(Event::Fetched { drop: id, shot: no, fetched }).await;
}

async fn fetch_and_keep(
    ctx: &Ctx,
    open: OpenDrop,
    frozen: Frozen,
    shot: Shot,
    held: Option<Arc<Held>>,
    is_lost: bool,
) -> Result<Came, Fetched> {
    let (id, as_claimed) = (open.drop.id, (!is_lost).then(Vec::new));
    let ShotState::Answered { url, .. } = &shot.state else {
        return Err(Fetched::Refused("it was not answered".into()));
    };
    let fault = |fault: KeepFault| match fault {
        KeepFault::NotAPicture(why) | KeepFault::Gone(why) => Fetched::NotAPicture(why),
        KeepFault::Environment(why) => Fetched::Environment(why),
        KeepFault::Held(held) => Fetched::Held(held),
    };
    // What came once is not asked for again: its address may be gone by now.
    if held.is_some() || came_already(ctx, id, shot.no).await {
        return keep_part(ctx, open, frozen, shot, held, as_claimed).await.map_err(fault);
    }
    let into = ctx.spool.part_path(id, shot.no);
    Err(match ctx.client.download(url, &into, MAX_RESULT_BYTES).await {
        DownloadOutcome::Done(_) => {
            return keep_part(ctx, open, frozen, shot, None, as_claimed).await.map_err(fault);
        }
        DownloadOutcome::Held(held) => Fetched::Held(Arc::new(held)),
        DownloadOutcome::Refused { why } => Fetched::Refused(why),
        DownloadOutcome::Gone { status } => Fetched::Later(format!("the picture's address answered {status}")),
        DownloadOutcome::Failed { message } => Fetched::Later(message),
    })
}

/// Whether an earlier try brought all of a picture, and failed in sealing it or after that.
async fn came_already(ctx: &Ctx, id: DropId, no: ShotNo) -> bool {
    let spool = ctx.spool.clone();
    let there = blocking(move || {
        let part = || std::fs::File::open(spool.part_path(id, no)).and_then(|file| reference::check(&file));
        spool.find(id, no).is_ok_and(|sealed| sealed.is_some()) || part().is_ok_and(|found| extension(&found).is_ok())
    });
    there.await.unwrap_or(false)
}

/// Publishes a received shot: commits its name, then provenance and picture, then commits the delivery.
/// `is_lost`: its originals are nowhere.
pub(super) async fn publish(ctx: Ctx, open: OpenDrop, frozen: Frozen, mut shot: Shot, is_lost: bool) {
    let id = open.drop.id;
    let mut number = open.number;
    // The originals of a drop with one shot go to the archive next: their names can be in the same commit.
    let files = open.drop.shots.len() == 1 && open.filing.is_none() && !ctx.site.far && !is_lost;
    let done = deliver(&ctx, &open, &frozen, &mut shot, &mut number, files).await;
    ctx.send(Event::Published { drop: id, number, now: Box::new(shot), done }).await;
}

/// The names of the originals, where they are chosen, too (`files`).
async fn deliver(
    ctx: &Ctx,
    open: &OpenDrop,
    frozen: &Frozen,
    shot: &mut Shot,
    number: &mut Option<u32>,
    files: bool,
) -> Result<Option<Filing>, String> {
    let id = open.drop.id;
    // Names that turned out to be taken although no listing shows them yet.
    let mut at_least = 1;
    let filing = loop {
        if !matches!(shot.state, ShotState::Publishing { .. }) || at_least > 1 {
            let (again, open, frozen, now, had) = (ctx.clone(), open.clone(), frozen.clone(), shot.clone(), *number);
            let (n, named) = blocking(move || named(&again, &open, &frozen, &now, had, at_least)).await??;
            let (row, new) = (named.clone(), (had != Some(n)).then_some(n));
            let committed = ctx.record(move |l| {
                if let Some(n) = new {
                    l.number(id, n)?;
                }
                l.step(id, &row, row.state.billed())
            });
            // Nothing stands under it yet: it can be chosen again.
            committed.await.map_err(|e| e.for_a_person())?;
            (*number, *shot) = (Some(n), named);
        }
        let (again, frozen, named) = (ctx.clone(), frozen.clone(), shot.clone());
        let open = OpenDrop { number: *number, ..open.clone() };
        // A new number is one for the originals, too.
        let files = files || at_least > 1 && open.drop.shots.len() == 1 && open.filing.is_some();
        let put = move || {
            let mut unsynced = Unsynced::default();
            put_out(&again, &open, &frozen, &named, &mut unsynced)?;
            unsynced.sync()?;
            if !files {
                return Ok(None);
            }
            let chosen = file::choose(&again, &open, Fate::Archive, 1);
            // What has arrived under an earlier name keeps it.
            let chosen = chosen.and_then(|chosen| match &open.filing {
                Some(before) => file::keep_arrived(&again, &open, before, chosen),
                None => Ok(chosen),
            });
            Ok(chosen.ok())
        };
        match blocking(put).await? {
            Ok(filing) => break filing,
            Err(OutboxError::Taken { .. }) if at_least < 100_000 => at_least = number.unwrap_or(1).max(at_least) + 1,
            Err(e) => return Err(e.to_string()),
        }
    };
    *shot = shot.apply(ShotEvent::Deliver).map_err(|e| e.to_string())?;
    let row = filing.clone();
    record_steps(ctx, id, shot, move |l| row.as_ref().map_or(Ok(()), |filing| l.file_under(id, filing))).await;
    Ok(filing)
}

/// Puts a result into the outbox, with its provenance. The folders are not synced yet.
pub(super) fn put_out(
    ctx: &Ctx,
    open: &OpenDrop,
    frozen: &Frozen,
    shot: &Shot,
    unsynced: &mut Unsynced,
) -> Result<(), OutboxError> {
    let ShotState::Publishing { picture, name } = &shot.state else { return Ok(()) };
    ctx.site.keep_mounted(&ctx.site.outbox)?;
    let provenance = provenance(ctx, open, frozen, shot, picture, name).to_bytes();
    let delivery = Delivery {
        spool: &ctx.spool,
        drop: open.drop.id,
        shot: shot.no,
        root: &ctx.site.outbox,
        rel: &open.drop.folder,
        name: &name.picture,
        provenance: name.provenance.as_deref().map(|name| (name, provenance.as_slice())),
    };
    // Finishes from wherever an earlier try got to, and from the spool at first.
    recover_unsynced(&delivery, unsynced)?;
    let names: Vec<_> = std::iter::once(name.picture.as_os_str()).chain(name.provenance.as_deref()).collect();
    ctx.listings.added(&ctx.site.outbox, &open.drop.folder, &names)
}

fn provenance(
    ctx: &Ctx,
    open: &OpenDrop,
    frozen: &Frozen,
    shot: &Shot,
    picture: &Spooled,
    name: &OutputName,
) -> Provenance {
    Provenance {
        schema: SCHEMA,
        result: name.picture.to_string_lossy().into_owned(),
        result_blake3: picture.blake3.clone(),
        drop: open.drop.id.to_string(),
        shot: shot.no.0 + 1,
        inputs: open.drop.members.iter().filter_map(|m| m.print.map(|print| Input::new(&m.name, print))).collect(),
        request: frozen.shown(shot.seed),
        origins: frozen.origins.clone(),
        request_id: shot.receipt.request_id.clone(),
        seed: shot.seed.or(shot.receipt.seed),
        cost: shot.receipt.cost,
        times: Times { sent: shot.last_sent, received: Some(picture.at), published: Some(ctx.clock.wall()) },
        attempts: shot.sends.max(shot.attempts + shot.unconfirmed + 1),
        unconfirmed_attempts: shot.unconfirmed > 0,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// The stem of a shot's result, without number and extension.
fn rendered(
    ctx: &Ctx,
    open: &OpenDrop,
    frozen: &Frozen,
    no: ShotNo,
    seed: Option<i64>,
    at: jiff::Timestamp,
) -> Option<std::ffi::OsString> {
    let template = Template::parse(&ctx.config.output.name).ok()?;
    let date = at.to_zoned(jiff::tz::TimeZone::system()).date();
    let parts = Parts {
        stem: &open.drop.stem,
        seed,
        variant: no.0 + 1,
        shots: frozen.shots.max(1),
        folder: &open.drop.folder,
        date,
    };
    Some(template.render(&parts))
}

fn output_name(ctx: &Ctx, open: &OpenDrop, frozen: &Frozen, shot: &Shot, n: u32) -> Option<OutputName> {
    let (ShotState::Received { picture } | ShotState::Publishing { picture, .. }) = &shot.state else { return None };
    let stem = rendered(ctx, open, frozen, shot.no, shot.seed, picture.at)?;
    let with_provenance = ctx.config.output.provenance;
    let provenance = with_provenance.then(|| provenance_name(&stem, n));
    Some(OutputName { picture: result_name(&stem, n, &picture.extension, with_provenance), provenance })
}

/// A shot that has its picture with the name that it gets, and the number of that. Blocks on the disk.
pub(super) fn named(
    ctx: &Ctx,
    open: &OpenDrop,
    frozen: &Frozen,
    shot: &Shot,
    number: Option<u32>,
    at_least: u32,
) -> Result<(u32, Shot), String> {
    let n = choose(ctx, open, frozen, shot, number, at_least)?;
    let name = output_name(ctx, open, frozen, shot, n).ok_or("the shot has no picture")?;
    Ok((n, shot.apply(ShotEvent::Name { name }).map_err(|e| e.to_string())?))
}

/// The number of the set: the first for which no name of the drop's results, their provenance and its
/// originals is taken. Later shots keep the first one's number where they can.
fn choose(
    ctx: &Ctx,
    open: &OpenDrop,
    frozen: &Frozen,
    shot: &Shot,
    number: Option<u32>,
    at_least: u32,
) -> Result<u32, String> {
    let (ShotState::Received { picture } | ShotState::Publishing { picture, .. }) = &shot.state else {
        return Err("the shot has no picture".into());
    };
    // The first shot looks for all, so that the set fits together; a later one for itself alone.
    let shots: Vec<_> = open.drop.shots.iter().filter(|s| number.is_none() || s.no == shot.no).collect();
    let stems: Vec<_> = shots.iter().filter_map(|s| rendered(ctx, open, frozen, s.no, s.seed, picture.at)).collect();
    if stems.is_empty() {
        return Err("[output] name is no template".into());
    }
    let first = number.unwrap_or(1).max(at_least);
    let with_provenance = ctx.config.output.provenance;
    let results = |n: u32| {
        let mut names = Vec::new();
        for stem in &stems {
            names.push(result_name(stem, n, &picture.extension, with_provenance));
            if with_provenance {
                names.push(provenance_name(stem, n));
            }
        }
        names
    };
    let set = SetNames::new(&open.drop.stem, moving(open));
    let originals = |n: u32| set.members(n);
    let (site, rel) = (&ctx.site, &open.drop.folder);
    let mut wanted = vec![Wanted { root: &site.outbox, rel, names: &results }];
    if number.is_none() {
        wanted.push(Wanted { root: &site.archive, rel, names: &originals });
    }
    // An archive that can't be listed keeps no result from the outbox; its names are chosen again then.
    ctx.listings
        .choose_number(&wanted, |n| n < first)
        .or_else(|_| ctx.listings.choose_number(&wanted[..1], |n| n < first))
        .map_err(|e| e.to_string())
}

/// The names of the members that move with the drop.
pub(super) fn moving(open: &OpenDrop) -> Vec<std::ffi::OsString> {
    open.drop.members.iter().filter(|m| m.moves).map(|m| m.name.clone()).collect()
}

/// Where a shot's result lies, for people.
pub(super) fn shown_name(folder: &RelPath, name: &OutputName) -> String {
    crate::domain::ids::Place { folder: folder.clone(), name: name.picture.clone() }.to_string()
}
