//! Claiming a drop and sending its shots.
//!
//! The order is the promise: room is looked at, the drop is moved into `working/`, its row and its first send
//! are committed, and only then does a byte of the paid request leave the machine.

use std::path::Path;

use crate::domain::ids::{DropId, ShotNo, show};
use crate::domain::life::{Shot, ShotEvent};
use crate::domain::params::Key;
use crate::domain::verdict::Verdict;
use crate::ledger::{Ledger, LedgerError, Limits, NewDrop, OpenDrop, Role, Sent};
use crate::outbox::OutboxError;
use crate::outbox::claim::{self, ClaimError};
use crate::outbox::folder::Folder;
use crate::outbox::note::take_away_if_ours;
use crate::reference::{self, Whole};
use crate::segmind::{AssetUrl, Body, CallOutcome, write_small};

use super::ctx::{Ctx, MAX_RESULT_BYTES, blocking};
use super::deliver;
use super::event::{Answer, Event, NotStarted, Planned, Prepared};
use super::frozen::{Frozen, Reference};
use super::keep;
use super::plan::{self, NoReference, NotReopened};

/// Why a drop was not started, with what has to be undone already undone.
pub(super) async fn not_started(
    ctx: &Ctx,
    candidate: crate::domain::arrivals::Candidate,
    why: NotStarted,
    sends: bool,
) {
    ctx.send(Event::NotStarted { candidate, why, sends }).await;
}

fn limits(ctx: &Ctx) -> Limits {
    Limits { per_hour: ctx.config.limits.images_per_hour, per_day: ctx.config.limits.images_per_day }
}

/// How many bytes are reserved for results, with `in_flight` requests on their way.
pub(super) fn reserve(ctx: &Ctx, in_flight: u32) -> u64 {
    ctx.config.reference.max_bytes.saturating_mul(u64::from(in_flight.max(1)))
}

/// A new identity.
pub(super) fn new_id() -> DropId {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&plan::random().to_ne_bytes());
        bytes[8..].copy_from_slice(&(jiff::Timestamp::now().as_nanosecond() as u64).to_ne_bytes());
    }
    DropId(bytes)
}

/// Claims a planned drop, commits it with its first send, and makes that send. The claim begins before the future is
/// first polled, and its commit is waited for where it was made.
pub(super) fn start(ctx: Ctx, planned: Planned, in_flight: u32) -> impl Future<Output = ()> + Send {
    let Planned { candidate, members, frozen, shots, recognition, known, prepared, .. } = planned;
    let first = shots.first().map(|shot| shot.no);
    let drop = NewDrop {
        id: new_id(),
        folder: candidate.folder.clone(),
        stem: candidate.stem.clone(),
        members,
        working: ctx.site.working.clone(),
        recognition: Some(recognition),
        plan: frozen.to_text(),
        shots,
        failure: None,
        continues: known.as_ref().map(|known| known.id),
    };
    let (again, row, looked_at) = (ctx.clone(), drop.clone(), candidate.clone());
    let begun = blocking(move || {
        let claimed = claim_drop(&again, &looked_at, in_flight).map_err(|why| (why, false))?;
        let (moment, bounds) = (again.clock.moment(), limits(&again));
        // The very time that is recorded: after a crash the same note must come out.
        let now = moment.wall;
        let ctx = again.clone();
        let begin = again.record_here(move |l| {
            // Nobody would be left to send it: without a row, recovery takes it back.
            if ctx.has_ended() { Err(LedgerError::Gone) } else { l.begin(&row, first, bounds, &moment) }
        });
        let why = match begin {
            Ok(Sent::Committed) => return Ok((claimed, now)),
            Ok(limited @ Sent::Limited { .. }) => NotStarted::Limited(limited),
            Err(e) => NotStarted::Environment(e.for_a_person()),
        };
        Err((why, true))
    });
    async move {
        let (claimed, now) = match begun.await.unwrap_or_else(|e| Err((NotStarted::Environment(e), true))) {
            Ok(begun) => begun,
            Err((why, is_claimed)) => {
                if is_claimed {
                    give_up_claim(&ctx, &drop).await;
                }
                return not_started(&ctx, candidate, why, true).await;
            }
        };
        let notes = known.map(|known| known.notes).unwrap_or_default();
        if claimed.has_note || !notes.is_empty() {
            take_notes_away(&ctx, &drop, notes).await;
        }
        let mut open = OpenDrop { drop, claimed: now, number: None, filing: None };
        let mut sending = None;
        for shot in &mut open.drop.shots {
            if Some(shot.no) == first
                && let Ok(sent) = shot.apply(ShotEvent::Send { at: now })
            {
                *shot = sent.clone();
                sending = Some(sent);
            }
        }
        let event = Event::Started {
            candidate,
            open: Box::new(open.clone()),
            frozen: frozen.clone(),
            prepared: prepared.clone(),
            sending: first,
        };
        ctx.send(event).await;
        if let Some(shot) = sending {
            call(&ctx, open, shot, frozen, prepared.as_ref(), claimed.members).await;
        }
    }
}

/// A drop that lies in working.
pub(super) struct Claimed {
    /// What moved, as it was found there.
    members: Vec<claim::Member>,
    /// A note of its name lies in the inbox or in errors.
    pub(super) has_note: bool,
}

/// Moves a drop into working. Blocks on the disk.
pub(super) fn claim_drop(
    ctx: &Ctx,
    candidate: &crate::domain::arrivals::Candidate,
    in_flight: u32,
) -> Result<Claimed, NotStarted> {
    let (site, folder, bytes) = (&ctx.site, &candidate.folder, reserve(ctx, in_flight));
    if ctx.has_ended() {
        return Err(NotStarted::Environment("the daemon stops".into()));
    }
    if !site.inbox_is_there() {
        return Err(NotStarted::Environment(format!("the inbox {} is not there", site.inbox.display())));
    }
    if let Some(trouble) = ctx.trouble(bytes) {
        return Err(NotStarted::Environment(trouble));
    }
    if let Some(theirs) = in_anothers_hands(ctx, folder) {
        return Err(NotStarted::Blocked(theirs));
    }
    // What is wrong with its own folders concerns this drop alone, and is known before it is paid.
    if let Some(trouble) = site.trouble_of(folder, bytes) {
        return Err(NotStarted::Blocked(trouble));
    }
    let mut members: Vec<_> =
        candidate.moving().map(|m| claim::Member { name: m.name.clone(), facts: m.facts }).collect();
    let claimed = claim::claim(&site.inbox, &site.working, folder, &members).map_err(|e| {
        if !e.stranded.is_empty() {
            ctx.send_here(Event::Stranded);
        }
        not_claimed(&e)
    })?;
    for (member, facts) in members.iter_mut().zip(claimed.facts) {
        member.facts = facts;
    }
    let note = note_name(&candidate.stem);
    let has_note = [&site.inbox, &site.errors].into_iter().any(|root| has(root, folder, &note));
    Ok(Claimed { members, has_note })
}

/// Why what lies in `folder` is another daemon's, if it is: one may have an inbox, and with it a working folder, inside
/// this one. Blocks on the disk.
pub(super) fn in_anothers_hands(ctx: &Ctx, folder: &crate::domain::ids::RelPath) -> Option<String> {
    let around = folder.chain().into_iter().filter(|at| !at.is_root());
    let theirs = around.map(|at| at.under(&ctx.site.inbox)).find(|at| ctx.locks.is_in_work(at))?;
    Some(format!("{} is the working folder of another daemon", crate::domain::ids::show(theirs.as_os_str())))
}

/// The name of a drop's note.
fn note_name(stem: &std::ffi::OsStr) -> std::ffi::OsString {
    crate::domain::names::SetNames::new(stem, Vec::<std::ffi::OsString>::new()).note(1)
}

/// Whether something of that name lies there, as far as can be seen.
fn has(root: &Path, folder: &crate::domain::ids::RelPath, name: &std::ffi::OsStr) -> bool {
    let look = |folder: Folder| folder.look(name).ok().flatten();
    Folder::existing(root, folder).ok().flatten().and_then(look).is_some()
}

fn not_claimed(error: &ClaimError) -> NotStarted {
    match &error.cause {
        OutboxError::Gone { .. } | OutboxError::Changed { .. } => NotStarted::Changed,
        OutboxError::Taken { path } => {
            NotStarted::Blocked(format!("{}: a file of this name is in work just now", show(path.as_os_str())))
        }
        // What one folder's or file's rights forbid concerns this drop; a disk, everybody.
        OutboxError::NoRoom { .. }
        | OutboxError::ReadOnly { .. }
        | OutboxError::RootMissing { .. }
        | OutboxError::Unmounted { .. } => NotStarted::Environment(error.to_string()),
        _ => NotStarted::Blocked(error.to_string()),
    }
}

/// What lies in working without a row now was never sent, and the loop sees to it that it goes back.
async fn stranded(ctx: &Ctx, why: &str) {
    tracing::warn!(reason = %why, "a drop could not go back into the inbox; it stays in working until it can");
    ctx.send(Event::Stranded).await;
}

/// Back into the inbox: nothing was committed, so nothing was sent.
pub(super) async fn give_up_claim(ctx: &Ctx, drop: &NewDrop) {
    let (site, folder) = (ctx.site.clone(), drop.folder.clone());
    let names: Vec<_> = drop.members.iter().filter(|m| m.moves).map(|m| m.name.clone()).collect();
    let back = blocking(move || claim::unclaim(&site.working, &site.inbox, &folder, &names)).await;
    match back {
        Ok(Ok(returned)) if returned.is_back() => {}
        Ok(Ok(returned)) => stranded(ctx, &format!("{:?}: the name is taken", returned.taken)).await,
        Ok(Err(e)) => stranded(ctx, &e.to_string()).await,
        Err(e) => stranded(ctx, &e).await,
    }
}

/// Notes of the drop's earlier end are taken away, in errors or brought along into the inbox; edited ones stay. So is
/// one of its name in errors whose files are not there any more: they were mended and brought back.
pub(super) async fn take_notes_away(
    ctx: &Ctx,
    drop: &NewDrop,
    notes: Vec<(std::path::PathBuf, crate::domain::ids::Fingerprint)>,
) {
    let (site, ctx2, drop) = (ctx.site.clone(), ctx.clone(), drop.clone());
    let _ = blocking(move || {
        for (path, print) in notes {
            let Ok(below) = path.strip_prefix(&site.errors) else { continue };
            let (Some(name), Some(rel)) =
                (below.file_name(), below.parent().and_then(crate::domain::ids::RelPath::new))
            else {
                continue;
            };
            if !lies_beside(&site.errors, &rel, name) {
                let _ = take_away_if_ours(&site.errors, &rel, name, print);
            }
        }
        let note = note_name(&drop.stem);
        let path = drop.folder.under(&site.errors).join(&note);
        let picture = drop.members.iter().find(|m| m.role == Role::Picture).and_then(|m| m.print);
        if let Ok(Ok(Some(print))) = ctx2.ledger.call_blocking(move |l| l.note_left_at(&path, picture))
            && !lies_beside(&site.errors, &drop.folder, &note)
        {
            let _ = take_away_if_ours(&site.errors, &drop.folder, &note, print);
        }
        // By the folder's handle: people who write into the inbox may put a link where a folder was.
        let opened = Folder::existing(&site.inbox, &drop.folder).ok().flatten().and_then(|f| f.open(&note).ok());
        let bytes = opened.and_then(|file| crate::config::read_at_most(&file, crate::config::LONGEST_TEXT_BYTES).ok());
        if let Some(bytes) = bytes.flatten() {
            let print = crate::domain::ids::Fingerprint::of(&bytes);
            let ours = ctx2.ledger.call_blocking(move |l| l.is_our_note(print));
            if matches!(ours, Ok(Ok(true))) {
                let _ = take_away_if_ours(&site.inbox, &drop.folder, &note, print);
            }
        }
    })
    .await;
}

/// Whether what a note in `folder` is about lies there still: the same bytes were dropped again under another name, and
/// whoever finds these has to know why they are there. Blocks on the disk.
fn lies_beside(errors: &Path, folder: &crate::domain::ids::RelPath, note: &std::ffi::OsStr) -> bool {
    use crate::domain::kinds::{picture_ext, split};
    use crate::domain::pairing::Fold;
    let names = Folder::existing(errors, folder).ok().flatten().and_then(|folder| folder.names().ok());
    let Some(about) = crate::domain::names::stem_of_note(note).map(|stem| Fold::of(&stem)) else { return false };
    let is_of_it = |(name, kind): &(std::ffi::OsString, rustix::fs::FileType)| {
        let (stem, _) = split(name);
        // A tied sidecar has the image's extension before its own.
        let (image, ext) = split(stem);
        *kind == rustix::fs::FileType::RegularFile
            && (Fold::of(stem) == about || picture_ext(ext).is_some() && Fold::of(image) == about)
    };
    names.unwrap_or_default().iter().any(is_of_it)
}

/// Commits a due shot as sending (`shot` is its state after it) and sends it.
pub(super) async fn send(
    ctx: Ctx,
    open: OpenDrop,
    shot: Shot,
    frozen: Frozen,
    prepared: Option<Prepared>,
    in_flight: u32,
) {
    let (again, bytes, id, no) = (ctx.clone(), reserve(&ctx, in_flight), open.drop.id, shot.no);
    let trouble = blocking(move || again.trouble(bytes)).await.unwrap_or_else(Some);
    if let Some(trouble) = trouble {
        return ctx.send(Event::Answered { drop: id, shot: no, answer: Answer::NotSent(trouble) }).await;
    }
    let (row, moment, bounds) = (shot.clone(), ctx.clock.moment(), limits(&ctx));
    match ctx.record(move |l| l.send(id, &row, bounds, &moment)).await {
        Ok(Sent::Committed) => call(&ctx, open, shot, frozen, prepared.as_ref(), Vec::new()).await,
        Ok(limited) => ctx.send(Event::Answered { drop: id, shot: no, answer: Answer::Limited(limited) }).await,
        Err(e) => ctx.send(Event::Answered { drop: id, shot: no, answer: Answer::NotSent(e.for_a_person()) }).await,
    }
}

/// The paid request. Its send is committed. A drop with one shot is seen through from here, if its picture comes.
/// `as_claimed`: its members as they were found in working, where that is known.
async fn call(
    ctx: &Ctx,
    open: OpenDrop,
    shot: Shot,
    frozen: Frozen,
    prepared: Option<&Prepared>,
    as_claimed: Vec<claim::Member>,
) {
    let into = ctx.spool.part_path(open.drop.id, shot.no);
    let body = match &frozen.reference {
        Reference::Inline { media_type, .. } => {
            let file = prepared.map(|p| p.to_path_buf()).unwrap_or_default();
            Body::inline(&frozen.body(shot.seed, None), Key::StructureImageUrl.name(), file, media_type)
                .referring_to(frozen.picture())
        }
        Reference::Uploaded { url, .. } => Body::json(&frozen.body(shot.seed, Some(url)))
            .hiding(AssetUrl::new(url.clone()))
            .referring_to(frozen.picture()),
        Reference::Given { url } | Reference::Public { url } => Body::json(&frozen.body(shot.seed, Some(url))),
        Reference::None => Body::json(&frozen.body(shot.seed, None)),
    };
    let mut outcome = match ctx.key().await {
        Some(key) => {
            whole_after_all(ctx.client.reimagine_leaving(&key, body, &into, MAX_RESULT_BYTES).await, &into).await
        }
        None => CallOutcome {
            verdict: Verdict::Pause {
                why: crate::domain::verdict::PauseWhy::Key,
                message: "there is no API key".into(),
            },
            picture: None,
            held: None,
            left: None,
            remains: None,
            receipt: crate::domain::verdict::Receipt::default(),
            elapsed: std::time::Duration::ZERO,
        },
    };
    let is_alone = open.drop.shots.len() == 1;
    let answered = Shot { receipt: outcome.receipt.clone(), ..shot };
    let (id, no) = (open.drop.id, answered.no);
    let told = |outcome, keeps| {
        let answer = Answer::Came { outcome: Box::new(outcome), keeps };
        ctx.send(Event::Answered { drop: id, shot: no, answer })
    };
    match outcome.left.take() {
        Some(picture) if is_alone => {
            let kept = keep::keep_left(ctx.clone(), open, frozen, answered, picture, as_claimed);
            told(outcome, true).await;
            return kept.await;
        }
        Some(picture) => {
            let written = tokio::task::spawn_blocking(move || write_small(&into, picture)).await;
            if let Ok(Err(held)) = written {
                (outcome.picture, outcome.held) = (None, Some(held));
            }
        }
        None => {}
    }
    if is_alone && outcome.picture.is_some() {
        told(outcome, true).await;
        return keep::keep(ctx.clone(), open, frozen, answered, None, as_claimed).await;
    }
    told(outcome, false).await;
}

/// A picture all of which came before its answer broke off was received, as after a crash: only what stands
/// behind its own end is missing.
async fn whole_after_all(mut outcome: CallOutcome, part: &Path) -> CallOutcome {
    if let Some(received) = outcome.remains.take() {
        let looked_at = part.to_path_buf();
        let whole = blocking(move || {
            let whole = match std::fs::File::open(&looked_at).and_then(|file| reference::check(&file)) {
                // More may stand behind the picture's end (padding, a preview), and may be what is cut.
                Ok(found) => {
                    deliver::extension(&found).is_ok()
                        && matches!(found, Whole::Whole { end, .. } if end <= received.bytes)
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
                // Nobody knows yet what it is: whoever keeps it looks until it can be read.
                Err(e) => {
                    tracing::warn!(error = %e, "an answer broke off, and what came of its picture can't be read just now");
                    return true;
                }
            };
            if whole {
                tracing::info!("an answer broke off behind the end of its picture, which is whole");
            } else {
                // What is left of it is of no use to anybody; the next start sweeps it away if this fails.
                let _ = std::fs::remove_file(&looked_at);
            }
            whole
        });
        if whole.await.unwrap_or(false) {
            outcome.verdict = Verdict::Picture;
            outcome.picture = Some(received);
        }
    }
    outcome
}

/// Uploads the reference of a drop in work again, past the cache, and freezes the new URL.
pub(super) async fn upload_again(ctx: Ctx, open: OpenDrop, frozen: Frozen) {
    let id = open.drop.id;
    let done = renew(&ctx, &open, frozen).await;
    ctx.send(Event::Reuploaded { drop: id, done }).await;
}

async fn renew(ctx: &Ctx, open: &OpenDrop, frozen: Frozen) -> Result<Frozen, Verdict> {
    use crate::domain::verdict::Billed;
    let retry = |message: String| Verdict::Retry { message, trouble: false };
    let id = open.drop.id;
    if let Reference::Uploaded { key, .. } = &frozen.reference
        && let Some(key) = crate::domain::ids::Fingerprint::parse(key)
    {
        ctx.record(move |l| l.forget_upload(key)).await.map_err(|e| retry(e.to_string()))?;
    }
    let Some(member) = open.drop.members.iter().find(|m| m.role == Role::Picture).cloned() else {
        return Err(retry("the drop has no picture".into()));
    };
    let (again, working, folder) = (ctx.clone(), open.drop.working.clone(), open.drop.folder.clone());
    let picture = blocking(move || plan::reopen(&again, &working, &folder, &member)).await.map_err(retry)?;
    let picture = picture.map_err(|why| retry(why.words()))?;
    let reference = plan::upload(ctx, picture, true).await.map_err(|e| match e {
        NoReference::Upload(verdict) => verdict,
        // A picture that can't be prepared any more ends with the first refusal.
        NoReference::Drop(message) => Verdict::Fault { message, billed: Billed::No, maybe_stale_reference: false },
        NoReference::Environment(message) => retry(message),
        NoReference::Changed => retry("the picture was written to while it was prepared".into()),
    })?;
    let frozen = Frozen { reference, ..frozen };
    let text = frozen.to_text();
    ctx.record(move |l| l.replan(id, &text)).await.map_err(|e| retry(e.to_string()))?;
    Ok(frozen)
}

/// The prepared picture of a drop that was frozen to travel inline, made again after a restart, or where somebody removed
/// it.
pub(super) async fn prepare_again(
    ctx: &Ctx,
    open: &OpenDrop,
    prepared: Option<Prepared>,
) -> Result<Option<Prepared>, Answer> {
    if let Some(prepared) = prepared
        && tokio::fs::try_exists(&**prepared).await.unwrap_or(true)
    {
        return Ok(Some(prepared));
    }
    let Some(member) = open.drop.members.iter().find(|m| m.role == Role::Picture).cloned() else { return Ok(None) };
    let (again, working, folder) = (ctx.clone(), open.drop.working.clone(), open.drop.folder.clone());
    let picture = match blocking(move || plan::reopen(&again, &working, &folder, &member)).await {
        Ok(Ok(picture)) => picture,
        // The disk's trouble, or this one file's.
        Ok(Err(NotReopened::Unreadable(why))) => {
            let (again, bytes) = (ctx.clone(), reserve(ctx, 1));
            let trouble = blocking(move || again.trouble(bytes)).await.unwrap_or_else(Some);
            return Err(trouble.map_or(Answer::Never(why), Answer::NotSent));
        }
        Ok(Err(NotReopened::Changed(why))) | Err(why) => return Err(Answer::Never(why)),
    };
    match plan::inline(ctx, picture).await {
        Ok((_, prepared)) => Ok(Some(prepared)),
        Err(NoReference::Drop(why)) => Err(Answer::Never(why)),
        Err(NoReference::Environment(why)) => Err(Answer::NotSent(why)),
        // Perhaps only its rights were changed. The next try reads and compares all of it again.
        Err(NoReference::Changed) => Err(Answer::NotSent("the picture was touched while it was prepared".into())),
        Err(NoReference::Upload(verdict)) => Err(Answer::NotSent(crate::domain::answer::message(&verdict).to_owned())),
    }
}

/// Commits a step that is no send, and tells the loop. A ledger that can't take it now is tried again: the
/// step has happened, so it must not be forgotten.
pub(super) async fn commit(ctx: Ctx, id: DropId, shot: Shot) {
    let no: ShotNo = shot.no;
    record_step(&ctx, id, &shot).await;
    ctx.send(Event::Stepped { drop: id, shot: no, stepped: Ok(shot) }).await;
}

/// Commits where a shot stands that a worker still has, for as long as it takes.
pub(super) async fn record(ctx: &Ctx, id: DropId, shot: Shot) {
    record_step(ctx, id, &shot).await;
}

/// Commits a step, for as long as it takes.
async fn record_step(ctx: &Ctx, id: DropId, shot: &Shot) {
    record_steps(ctx, id, shot, |_| Ok(())).await;
}

/// [`record_step`] and what belongs with it, in one commit.
pub(super) async fn record_steps<F>(ctx: &Ctx, id: DropId, shot: &Shot, with: F)
where
    F: Fn(&mut dyn Ledger) -> Result<(), LedgerError> + Clone + Send + 'static,
{
    let mut tries = 0;
    loop {
        let (row, billed, with) = (shot.clone(), shot.state.billed(), with.clone());
        let step = move |l: &mut dyn Ledger| {
            with(l)?;
            l.step(id, &row, billed)
        };
        match ctx.record(step).await {
            Ok(()) => return,
            Err(e @ LedgerError::Misused { .. }) => {
                tracing::error!(error = %e, state = shot.state.word(), "a step that the ledger refuses was not recorded; please report this");
                return;
            }
            Err(e) => {
                if tries == 0 {
                    tracing::error!(error = %e, state = shot.state.word(), "the ledger can't record a step; trying until it can");
                }
                // Nothing new is bought while it is so, and a person is told.
                ctx.send(Event::Trouble(e.for_a_person())).await;
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_millis(200 * (1 << tries.min(7)))).await;
            }
        }
    }
}
