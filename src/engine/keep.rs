//! From an answer to a receipt: a picture that came is written, looked at, sealed and committed; and where nothing
//! stands in its way, its drop is seen through to its end in the same trip.

use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::domain::ids::{DropId, ShotNo};
use crate::domain::life::{Fate, Shot, ShotEvent, Spooled};
use crate::ledger::{Ledger, LedgerError, OpenDrop};
use crate::outbox::claim;
use crate::outbox::unsynced::Unsynced;
use crate::reference;
use crate::segmind::{Held, write_small};

use super::closing::{self, Moved};
use super::ctx::{Ctx, blocking, turn_now};
use super::deliver::{extension, named, put_out};
use super::event::{Event, KeepFault, Kept};
use super::file;
use super::frozen::Frozen;
use super::send::record_steps;

/// Keeps the picture that came with an answer: whole, synced, under its shot's name, committed; and where it can,
/// sees its drop through to its end. `held`: the disk did not take it when it came. `as_claimed`: the originals as
/// they were found in working, where that is known.
pub(super) async fn keep(
    ctx: Ctx,
    open: OpenDrop,
    frozen: Frozen,
    shot: Shot,
    held: Option<Arc<Held>>,
    as_claimed: Vec<claim::Member>,
) {
    let (id, no, coming) = (open.drop.id, shot.no, ctx.closing.coming());
    let kept = keep_part(&ctx, open, frozen, shot, held, Some(as_claimed)).await;
    drop(coming);
    tell(ctx, id, no, kept).await;
}

/// Writes a picture that came in one piece and is in memory only, and goes on as [`keep`] does. It begins before the
/// future is first polled: what was paid for waits for nobody.
pub(super) fn keep_left(
    ctx: Ctx,
    open: OpenDrop,
    frozen: Frozen,
    shot: Shot,
    picture: Vec<u8>,
    as_claimed: Vec<claim::Member>,
) -> impl Future<Output = ()> + Send {
    let (id, no, again, coming) = (open.drop.id, shot.no, ctx.clone(), ctx.closing.coming());
    // The write takes no turn of those that may block: servers that hang may have all of them, and the spool lies on
    // a disk of this machine.
    let begun = tokio::task::spawn_blocking(move || {
        let (file, bytes) = match write_small(&again.spool.part_path(id, no), picture) {
            Ok(written) => written,
            Err(held) => return Ok(Err(KeepFault::Held(Arc::new(held)))),
        };
        match turn_now() {
            Some(_turn) => Ok(keep_here(&again, open, &frozen, &shot, Part::Fresh(file, bytes), Some(as_claimed))),
            None => Err(Box::new((open, frozen, shot, as_claimed))),
        }
    });
    async move {
        let kept = match begun.await {
            Ok(Ok(seen)) => settle(&ctx, id, no, seen).await,
            Ok(Err(rest)) => {
                let (open, frozen, shot, as_claimed) = *rest;
                keep_part(&ctx, open, frozen, shot, None, Some(as_claimed)).await
            }
            Err(e) => Err(KeepFault::Environment(format!("a worker failed: {e}"))),
        };
        drop(coming);
        tell(ctx, id, no, kept).await;
    }
}

/// A picture was received.
pub(super) enum Came {
    Kept(Box<Kept>),
    Moved(Box<Moved>, Unsynced),
}

/// Where a picture is that came.
enum Part {
    /// Written just now, and in memory, too.
    Fresh(File, Vec<u8>),
    /// In the spool.
    Spooled,
    /// In memory only.
    Held(Arc<Held>),
}

async fn tell(ctx: Ctx, id: DropId, no: ShotNo, came: Result<Came, KeepFault>) {
    let kept = match came {
        Ok(Came::Moved(moved, unsynced)) => return closing::close(ctx, moved, unsynced).await,
        Ok(Came::Kept(kept)) => Ok(*kept),
        Err(fault) => Err(fault),
    };
    ctx.send(Event::Kept { drop: id, shot: no, kept }).await;
}

/// `as_claimed`: `None` where its originals are nowhere.
pub(super) async fn keep_part(
    ctx: &Ctx,
    open: OpenDrop,
    frozen: Frozen,
    shot: Shot,
    held: Option<Arc<Held>>,
    as_claimed: Option<Vec<claim::Member>>,
) -> Result<Came, KeepFault> {
    let (id, no, again) = (open.drop.id, shot.no, ctx.clone());
    let part = held.map_or(Part::Spooled, Part::Held);
    let seen = blocking(move || keep_here(&again, open, &frozen, &shot, part, as_claimed)).await;
    settle(ctx, id, no, seen.map_err(KeepFault::Environment)?).await
}

fn keep_here(
    ctx: &Ctx,
    open: OpenDrop,
    frozen: &Frozen,
    shot: &Shot,
    part: Part,
    as_claimed: Option<Vec<claim::Member>>,
) -> Result<Seen, KeepFault> {
    let kept = seal(ctx, &open, frozen, shot, part, as_claimed.is_some())?;
    Ok(see_through(ctx, open, frozen, kept, &as_claimed.unwrap_or_default()))
}

/// What is left to do where nothing blocks.
async fn settle(ctx: &Ctx, id: DropId, no: ShotNo, seen: Result<Seen, KeepFault>) -> Result<Came, KeepFault> {
    match seen {
        Ok(Seen::Moved(moved, unsynced)) => Ok(Came::Moved(moved, unsynced)),
        Ok(Seen::Recorded(kept)) => Ok(Came::Kept(Box::new(kept))),
        Ok(Seen::Unrecorded(kept)) => {
            let row = kept_row(id, &kept);
            record_steps(ctx, id, &kept.shot, row).await;
            Ok(Came::Kept(Box::new(kept)))
        }
        Err(KeepFault::NotAPicture(why)) => {
            let spool = ctx.spool.clone();
            let _ = blocking(move || spool.discard_part(id, no)).await;
            Err(KeepFault::NotAPicture(why))
        }
        Err(fault) => Err(fault),
    }
}

/// Makes a picture that came durable, under its shot's name, and chooses the names of what is alone in its set.
fn seal(
    ctx: &Ctx,
    open: &OpenDrop,
    frozen: &Frozen,
    shot: &Shot,
    came: Part,
    has_originals: bool,
) -> Result<Kept, KeepFault> {
    let (id, no, spool) = (open.drop.id, shot.no, &ctx.spool);
    let part = spool.part_path(id, no);
    let environment = |e: &dyn std::fmt::Display| KeepFault::Environment(format!("{}: {e}", part.display()));
    let (found, print, bytes) = match came {
        Part::Fresh(file, bytes) => {
            // What was written is what is looked at: nobody else writes there.
            let (found, print) = reference::check_bytes(&bytes);
            extension(&found).map_err(KeepFault::NotAPicture)?;
            if let Err(e) = spool.seal_written(id, no, file) {
                // What a disk does with what it could not sync, nobody knows: it stays in memory until it is sealed.
                let why = format!("{}: {e}", part.display());
                return Err(KeepFault::Held(Arc::new(Held { bytes, why })));
            }
            (found, print, bytes.len() as u64)
        }
        came => {
            // An earlier try may have sealed it and failed after that.
            let (sealed, found, print) = if let Some(sealed) = spool.find(id, no).map_err(|e| environment(&e))? {
                // What came of a download after that is one too many.
                let _ = spool.discard_part(id, no);
                // In the sync of its name, perhaps.
                spool.sync().map_err(|e| environment(&e))?;
                let file = File::open(&sealed.path).map_err(|e| environment(&e))?;
                let (found, print) = reference::check_at_once(&file).map_err(|e| environment(&e))?;
                (sealed, found, print)
            } else {
                if let Part::Held(held) = came {
                    let mut file = spool.create_part(id, no).map_err(|e| environment(&e))?;
                    file.write_all(&held.bytes).map_err(|e| environment(&e))?;
                }
                let file = File::open(&part).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => {
                        KeepFault::Gone("its picture came, and vanished from the spool".into())
                    }
                    _ => environment(&e),
                })?;
                // Nobody else writes there: what is looked at is what is sealed.
                let (found, print) = reference::check_at_once(&file).map_err(|e| environment(&e))?;
                extension(&found).map_err(KeepFault::NotAPicture)?;
                let sealed = spool.seal(id, no).map_err(|e| environment(&e))?;
                (sealed, found, print)
            };
            let print = print.map_or_else(|| sealed.fingerprint(), Ok).map_err(|e| environment(&e))?;
            (found, print, sealed.bytes)
        }
    };
    let extension = extension(&found).map_err(KeepFault::NotAPicture)?;
    let at = ctx.clock.wall();
    let picture = Spooled { blake3: print.to_string(), bytes, extension: extension.into(), at };
    let kept = shot.apply(ShotEvent::Receive { picture });
    let kept = kept.map_err(|e| KeepFault::Environment(e.to_string()))?;
    // What is alone in its set can have its names in the same commit, unless the receipt would have to wait for a
    // server. Where none can be had now, they are looked for when the shot is published.
    let at_once = open.drop.shots.len() == 1 && !ctx.site.far;
    let named = if at_once { named(ctx, open, frozen, &kept, None, 1).ok() } else { None };
    let Some((number, shot)) = named else {
        return Ok(Kept { shot: kept, number: None, filing: None, done: None });
    };
    let with_number = OpenDrop { number: Some(number), ..open.clone() };
    let files = has_originals && open.filing.is_none();
    let filing = if files { file::choose(ctx, &with_number, Fate::Archive, 1).ok() } else { None };
    Ok(Kept { shot, number: Some(number), filing, done: None })
}

/// What a receipt brings with it.
fn kept_row(
    id: DropId,
    kept: &Kept,
) -> impl Fn(&mut dyn Ledger) -> Result<(), LedgerError> + Clone + Send + 'static + use<> {
    let (number, filing) = (kept.number, kept.filing.clone());
    move |l| {
        number.map_or(Ok(()), |n| l.number(id, n))?;
        filing.as_ref().map_or(Ok(()), |filing| l.file_under(id, filing))
    }
}

/// How far a received picture came.
enum Seen {
    /// Sealed, but the ledger did not take it at once.
    Unrecorded(Kept),
    Recorded(Kept),
    /// Its result and its originals lie where they belong.
    Moved(Box<Moved>, Unsynced),
}

/// Commits a receipt. If all names were chosen with it, the result and the originals are put where they belong in
/// the same trip.
///
/// Whatever goes wrong on the way is left to whoever goes on from the receipt: each step is found again, and told.
fn see_through(ctx: &Ctx, open: OpenDrop, frozen: &Frozen, kept: Kept, as_claimed: &[claim::Member]) -> Seen {
    let id = open.drop.id;
    let (row, with) = (kept.shot.clone(), kept_row(id, &kept));
    let recorded = ctx.record_here(move |l| {
        with(l)?;
        l.step(id, &row, row.state.billed())
    });
    if recorded.is_err() {
        return Seen::Unrecorded(kept);
    }
    let Some(filing) = kept.filing.clone() else { return Seen::Recorded(kept) };
    let open = OpenDrop { number: kept.number, filing: Some(filing.clone()), ..open };
    let put = || {
        let mut unsynced = Unsynced::default();
        put_out(ctx, &open, frozen, &kept.shot, &mut unsynced)?;
        file::move_all(ctx, &open, &filing, as_claimed, &mut unsynced)?;
        Ok::<_, crate::outbox::OutboxError>(unsynced)
    };
    // The receipt stands, whatever happens here.
    let put = catch_unwind(AssertUnwindSafe(put));
    match (put, kept.shot.apply(ShotEvent::Deliver)) {
        (Ok(Ok(unsynced)), Ok(delivered)) => {
            Seen::Moved(Box::new(Moved { id, kept, delivered, at: ctx.clock.wall() }), unsynced)
        }
        _ => Seen::Recorded(kept),
    }
}
