//! Planning a drop: read it, know it again, draw its seeds, get its reference where the service can fetch it.
//! All of it is free, and the drop stays in the inbox.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use futures_util::future::join_all;

use crate::config::{Problem, ReferenceMode};
use crate::domain::arrivals::Candidate;
use crate::domain::ids::{Fingerprint, RelPath, ShotNo};
use crate::domain::life::{Shot, ShotState};
use crate::domain::news::News;
use crate::domain::request::{LARGEST_DRAWN_SEED, RefPlan, RequestPlan, Seeds};
use crate::domain::verdict::Verdict;
use crate::ledger::{Ending, Known, Ledger, Member, Role};
use crate::outbox::OutboxError;
use crate::outbox::folder::Folder;
use crate::reference::{self, Format, Original, PrepareError, Whole};
use crate::segmind::{Body, UploadOutcome};

use super::ctx::{Ctx, telling};
use super::event::{Chain, Event, Plan, Planned, Prepared};
use super::frozen::{Frozen, Reference};
use super::read::{Picture, Read, Reading, read, rules};

/// A drop that was read, and whose picture has to be prepared.
#[derive(Debug)]
pub(super) struct Unprepared {
    candidate: Candidate,
    look: Look,
    picture: Picture,
}

/// Plans drops and tells the loop of each, and of those whose pictures have to be prepared, together. What needs nothing
/// but the disk and the ledger is one trip to a thread that may block, which begins at once if one may be had.
pub(super) fn run(ctx: Ctx, drops: Vec<(Candidate, Chain)>) -> Option<impl Future<Output = ()> + Send> {
    let plan_all = move |ctx: &Ctx| {
        let plan = |(candidate, chain): (Candidate, Chain)| {
            let which = candidate.clone();
            // One that nobody foresaw is that drop's own failure, and not that of those beside it.
            catch_unwind(AssertUnwindSafe(|| plan_at_once(ctx, candidate, &chain))).unwrap_or_else(|_| {
                let plan = Plan::Failed("a worker failed: it panicked".into(), Vec::new());
                ctx.send_here(Event::Planned { candidate: which, plan });
                None
            })
        };
        let unprepared: Vec<_> = drops.into_iter().filter_map(plan).collect();
        (!unprepared.is_empty()).then(|| Event::Unprepared(Box::new(ctx.clone()), unprepared))
    };
    telling(ctx, plan_all, || None)
}

/// Plans a drop and tells the loop, unless its picture has to be prepared for it. Blocks on the disk and the ledger.
fn plan_at_once(ctx: &Ctx, candidate: Candidate, chain: &Chain) -> Option<Unprepared> {
    let plan = match look(ctx, &candidate, chain) {
        Ok(mut look) => match (reference_at_once(ctx, &look, &candidate), look.picture.take()) {
            (Some(reference), _) => look.with(reference, &candidate),
            (None, Some(picture)) => return Some(Unprepared { candidate, look, picture }),
            (None, None) => look.with(Ok((Reference::None, None)), &candidate),
        },
        Err(plan) => plan,
    };
    ctx.send_here(Event::Planned { candidate, plan });
    None
}

/// Gets the picture of a drop to where the service can have it, and tells the loop.
async fn travel(ctx: &Ctx, drop: Unprepared) {
    let Unprepared { candidate, look, picture } = drop;
    let reference = picture_reference(ctx, picture, &candidate.folder, candidate.lead()).await;
    let plan = look.with(reference, &candidate);
    ctx.send(Event::Planned { candidate, plan }).await;
}

/// [`travel`], all at once.
pub(super) async fn travel_all(ctx: Ctx, drops: Vec<Unprepared>) {
    join_all(drops.into_iter().map(|drop| travel(&ctx, drop))).await;
}

/// A drop that was read and looked up.
#[derive(Debug)]
struct Look {
    members: Vec<Member>,
    plan: RequestPlan,
    /// Its picture, if that is its reference.
    picture: Option<Picture>,
    recognition: Fingerprint,
    warnings: Vec<Problem>,
    known: Option<Known>,
    shots: Vec<Shot>,
    /// Its picture failed before, with others beside it, another request or none yet.
    seen: bool,
}

type Found = Result<(Reference, Option<Prepared>), NoReference>;

/// Reads a drop and looks whether it comes back. Blocks on the disk and the ledger.
fn look(ctx: &Ctx, candidate: &Candidate, chain: &Chain) -> Result<Look, Plan> {
    // Not even read, so that nothing of it leaves the machine.
    if let Some(theirs) = super::send::in_anothers_hands(ctx, &candidate.folder) {
        return Err(Plan::Unreadable(theirs));
    }
    // Nor is it read and uploaded at each scan for as long as it could not be claimed. What all drops suffer from pauses
    // before the first is claimed.
    let bytes = super::send::reserve(ctx, 1);
    if let Some(trouble) = ctx.site.trouble_of(&candidate.folder, bytes)
        && ctx.trouble(bytes).is_none()
    {
        return Err(Plan::Unreadable(trouble));
    }
    let read = match read(&ctx.config, &ctx.site.inbox, candidate, chain) {
        Reading::Ready(read) => *read,
        Reading::NotWhole => return Err(Plan::NotWhole),
        Reading::Changed => return Err(Plan::Changed),
        Reading::Unreadable(why) => return Err(Plan::Unreadable(why)),
        Reading::PresetBroken(folder, why) => return Err(Plan::PresetBroken(folder, why)),
        Reading::NoPrompt => return Err(Plan::NoPrompt),
        Reading::Failed(why, members) => return Err(Plan::Failed(why, members)),
    };
    let Read { members, plan, picture, recognition, warnings } = read;
    let print = members.iter().find(|m| m.role == Role::Picture).and_then(|m| m.print);
    // Hardly a drop ever comes back, and who can't have come back need not wait for the ledger.
    let (known, seen) = if ctx.ledger.returning().may_know(print.into_iter().chain([recognition])) {
        let asked = ctx.record_here(move |l| {
            let known = l.recognise(recognition)?;
            let seen = known.is_none() && print.is_some_and(|print| l.seen_picture(print).unwrap_or(false));
            Ok((known, seen))
        });
        asked.map_err(|e| Plan::Environment(e.to_string()))?
    } else {
        (None, false)
    };
    let (shots, known) = shots(&plan, known);
    Ok(Look { members, plan, picture, recognition, warnings, known, shots, seen })
}

impl Look {
    fn with(self, reference: Found, candidate: &Candidate) -> Plan {
        let (reference, prepared) = match reference {
            Ok(found) => found,
            Err(NoReference::Drop(why)) => return Plan::Failed(why, self.members),
            Err(NoReference::Changed) => return Plan::Changed,
            Err(NoReference::Upload(verdict)) => return Plan::Upload(verdict),
            Err(NoReference::Environment(why)) => return Plan::Environment(why),
        };
        if self.seen {
            tracing::info!(drop = %candidate.place(), "this picture failed before, with another request or other sidecars, or before any request: all its shots are sent");
        }
        let frozen = Frozen::new(&self.plan, reference, self.plan.shots.count(), &candidate.place().to_string());
        Plan::Ready(Box::new(Planned {
            candidate: candidate.clone(),
            members: self.members,
            frozen,
            shots: self.shots,
            recognition: self.recognition,
            known: self.known,
            prepared,
            warnings: self.warnings,
        }))
    }
}

/// The shots of an ended drop that are left to be sent when it comes back; none where all are sent anew.
pub fn left(known: &Known) -> Vec<Shot> {
    if known.again {
        return Vec::new();
    }
    let returned = known.ending == Ending::Returned;
    let left = known.shots.iter().filter(|shot| !matches!(shot.state, ShotState::Delivered { .. }));
    left.map(|shot| {
        let (attempts, sends) = if returned { (shot.attempts, shot.sends) } else { (0, 0) };
        Shot { attempts, sends, ..Shot::new(shot.no, shot.seed) }
    })
    .collect()
}

/// The shots to be sent: of a drop that comes back those that were not delivered, with their seeds; else all.
fn shots(plan: &RequestPlan, known: Option<Known>) -> (Vec<Shot>, Option<Known>) {
    if let Some(left) = known.as_ref().map(left).filter(|left| !left.is_empty()) {
        return (left, known);
    }
    let seeds: Vec<Option<i64>> = match &plan.shots {
        Seeds::Unsaid => vec![None],
        Seeds::Fixed(list) => list.iter().copied().map(Some).collect(),
        Seeds::Random(n) => (0..*n).map(|_| Some(draw_seed())).collect(),
    };
    let shots = seeds.into_iter().enumerate().map(|(no, seed)| Shot::new(ShotNo(no as u32), seed)).collect();
    (shots, known)
}

fn draw_seed() -> i64 {
    (random() % (LARGEST_DRAWN_SEED.unsigned_abs() + 1)).cast_signed()
}

/// 64 random bits. A machine without randomness gives a poor seed, which is no reason to stop.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or(42)
}

/// Why there is no reference.
pub(super) enum NoReference {
    /// The picture can't be used.
    Drop(String),
    /// The picture was written to while it was prepared.
    Changed,
    /// The upload went wrong.
    Upload(Verdict),
    /// Our own machine's trouble.
    Environment(String),
}

/// The reference of a drop, where nothing has to be made of its picture for it; `None` else.
fn reference_at_once(ctx: &Ctx, look: &Look, candidate: &Candidate) -> Option<Found> {
    let reference = match (&look.plan.reference, &look.picture) {
        (RefPlan::None, _) | (RefPlan::Picture, None) => Ok(Reference::None),
        (RefPlan::Given { url }, _) => Ok(Reference::Given { url: url.clone() }),
        (RefPlan::Picture, Some(picture)) => match &ctx.config.reference.mode {
            ReferenceMode::PublicUrl { url_base } => {
                public(&picture.whole, url_base, &candidate.folder, candidate.lead())
            }
            ReferenceMode::Inline | ReferenceMode::Upload => return None,
        },
    };
    Some(reference.map(|reference| (reference, None)))
}

/// Makes a picture available to the service, as the configuration says.
async fn picture_reference(ctx: &Ctx, picture: Picture, folder: &RelPath, name: &std::ffi::OsStr) -> Found {
    match &ctx.config.reference.mode {
        ReferenceMode::PublicUrl { url_base } => {
            public(&picture.whole, url_base, folder, name).map(|reference| (reference, None))
        }
        ReferenceMode::Inline => inline(ctx, picture).await.map(|(reference, prepared)| (reference, Some(prepared))),
        ReferenceMode::Upload => upload(ctx, picture, false).await.map(|reference| (reference, None)),
    }
}

/// Prepares a picture to travel in the request itself.
pub(super) async fn inline(ctx: &Ctx, picture: Picture) -> Result<(Reference, Prepared), NoReference> {
    let prepared = prepare(ctx, picture).await?;
    let reference =
        Reference::Inline { blake3: prepared.fingerprint.to_string(), media_type: prepared.media_type.into() };
    Ok((reference, std::sync::Arc::new(prepared.path)))
}

fn public(
    whole: &Whole,
    url_base: &url::Url,
    folder: &RelPath,
    name: &std::ffi::OsStr,
) -> Result<Reference, NoReference> {
    match not_servable(whole) {
        Some(why) => Err(NoReference::Drop(why)),
        None => Ok(Reference::Public { url: public_url(url_base, folder, name) }),
    }
}

/// Why a picture can't be sent as it is served (`mode = "public_url"`); `None` if it can.
pub fn not_servable(whole: &Whole) -> Option<String> {
    match whole {
        Whole::Whole { format, .. } if !matches!(format, Format::Jpeg | Format::Png | Format::WebP) => Some(format!(
            "a {format:?} can't be served as it is: with [reference] mode = \"public_url\" only JPEG, PNG and WebP are sent"
        )),
        _ => None,
    }
}

/// `url_base` and the percent-encoded path below the inbox.
pub fn public_url(url_base: &url::Url, folder: &RelPath, name: &std::ffi::OsStr) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    /// Everything but RFC 3986's unreserved characters, and the slash between folders.
    const KEEP: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    let path = folder.join(name);
    let base = url_base.as_str();
    let slash = if base.ends_with('/') { "" } else { "/" };
    format!("{base}{slash}{}", percent_encoding::percent_encode(path.as_path().as_os_str().as_bytes(), KEEP))
}

/// A prepared picture: its file goes with the value.
struct Ready {
    path: tempfile::TempPath,
    fingerprint: Fingerprint,
    media_type: &'static str,
}

async fn prepare(ctx: &Ctx, picture: Picture) -> Result<Ready, NoReference> {
    let (rules, into, budget) = (rules(&ctx.config), prepared_dir(&ctx.site.state_dir), ctx.budget.clone());
    let Whole::Whole { format, end, .. } = picture.whole else {
        return Err(NoReference::Drop("the picture is not whole".into()));
    };
    let done = ctx.studio.run(move || {
        make_prepared_dir(&into).map_err(|source| PrepareError::Io { path: into.clone(), source })?;
        let original = Original { file: &picture.file, path: &picture.path, format, end };
        let prepared = reference::prepare(&original, &rules, &into, &budget);
        // The bytes were read once more than they were hashed: both must have been the same.
        match picture.is_as_hashed() {
            Ok(true) => prepared.map(Some),
            Ok(false) => Ok(None),
            Err(source) => Err(PrepareError::Io { path: picture.path.clone(), source }),
        }
    });
    match done.await {
        Ok(Ok(None)) => Err(NoReference::Changed),
        Ok(Ok(Some(p))) => {
            Ok(Ready { path: p.file.into_temp_path(), fingerprint: p.fingerprint, media_type: p.media_type })
        }
        Ok(Err(e @ PrepareError::Io { .. })) => Err(NoReference::Environment(e.to_string())),
        Ok(Err(e)) => Err(NoReference::Drop(e.to_string())),
        Err(e) => Err(NoReference::Drop(e)),
    }
}

/// Where prepared pictures lie while they are sent.
pub(super) fn prepared_dir(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("prepared")
}

/// Makes it, but not the state directory: that one may lie on a disk that is not there.
pub(super) fn make_prepared_dir(path: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// The upload of a picture: the cache's, else a new one. `afresh` passes over the cache.
pub(super) async fn upload(ctx: &Ctx, picture: Picture, afresh: bool) -> Result<Reference, NoReference> {
    let environment = |e: crate::ledger::LedgerError| NoReference::Environment(e.to_string());
    // Another place of upload, or other rules, is another upload.
    let mut key = reference::cache_key(picture.print, &rules(&ctx.config)).0.to_vec();
    key.extend(ctx.config.api.upload_url.as_str().as_bytes());
    let key = Fingerprint::of(&key);
    let turn = ctx.uploads.turn(key);
    let _turn = turn.lock().await;
    let (within, now) = (ctx.config.reference.upload_cache, ctx.clock.wall());
    if !afresh && !within.is_zero() {
        let cached = ctx.record(move |l| l.upload_of(key, within, now)).await.map_err(environment)?;
        if let Some(kept) = cached
            && let Some((url, blake3)) = kept.split_once(' ')
        {
            tracing::debug!(blake3, "uploaded before: taken from the cache");
            return Ok(Reference::Uploaded {
                url: url.into(),
                blake3: blake3.into(),
                key: key.to_string(),
                cached: true,
            });
        }
    }
    let (body, fingerprint, _file) = upload_body(ctx, picture).await?;
    let Some(api_key) = ctx.key().await else {
        let message = "there is no API key".to_owned();
        return Err(NoReference::Upload(Verdict::Pause { why: crate::domain::verdict::PauseWhy::Key, message }));
    };
    let begun = ctx.clock.mono();
    let uploaded = ctx.client.upload(&api_key, body).await;
    let (took, well) = (ctx.clock.mono().since(begun), matches!(uploaded, UploadOutcome::Done(_)));
    tracing::debug!(blake3 = %fingerprint, took_ms = took.as_millis() as u64, well, "uploaded");
    ctx.tell.say(&News::Uploaded { took, well });
    match uploaded {
        UploadOutcome::Done(asset) => {
            let (url, blake3) = (asset.expose().to_owned(), fingerprint.to_string());
            let kept = format!("{url} {blake3}");
            // Its commit is not waited for: the drop's own comes behind it, and an upload that is forgotten is free to
            // make again.
            let remember = move |l: &mut dyn Ledger| {
                if let Err(e) = l.uploaded(key, &kept, now) {
                    tracing::debug!(error = %e, "an upload is not remembered");
                }
            };
            ctx.ledger.queue(remember).await.map_err(environment)?;
            Ok(Reference::Uploaded { url, blake3, key: key.to_string(), cached: false })
        }
        UploadOutcome::Failed(verdict) => Err(NoReference::Upload(verdict)),
    }
}

/// What is uploaded of a picture, its fingerprint, and the file that it is read from meanwhile, if it is.
async fn upload_body(
    ctx: &Ctx,
    mut picture: Picture,
) -> Result<(Body, Fingerprint, Option<tempfile::TempPath>), NoReference> {
    if let Some(stripped) = picture.stripped.take() {
        // Made of the very bytes that were hashed.
        return Ok((Body::upload_of(&stripped.bytes, stripped.media_type), stripped.fingerprint, None));
    }
    let Ready { path, fingerprint, media_type } = prepare(ctx, picture).await?;
    Ok((Body::upload(path.to_path_buf(), media_type), fingerprint, Some(path)))
}

/// Why a picture in working can't be opened again.
pub(super) enum NotReopened {
    /// It is not there, not what was claimed, or closed to us.
    Changed(String),
    /// It can't be read just now.
    Unreadable(String),
}

impl NotReopened {
    pub(super) fn words(self) -> String {
        let (Self::Changed(words) | Self::Unreadable(words)) = self;
        words
    }
}

impl From<OutboxError> for NotReopened {
    fn from(error: OutboxError) -> Self {
        let words = error.to_string();
        match error {
            OutboxError::Gone { .. }
            | OutboxError::Changed { .. }
            | OutboxError::Obstructed { .. }
            | OutboxError::Denied { .. } => Self::Changed(words),
            _ => Self::Unreadable(words),
        }
    }
}

/// The picture of a drop that lies in working, opened again (its bytes are those that were hashed).
pub(super) fn reopen(
    ctx: &Ctx,
    working: &Path,
    folder: &RelPath,
    member: &crate::ledger::Member,
) -> Result<Picture, NotReopened> {
    let dir = Folder::existing(working, folder)?;
    let missing = || NotReopened::Changed(format!("{} is not there", folder.under(working).display()));
    let dir = dir.ok_or_else(missing)?;
    let file: File = dir.open(&member.name)?;
    let path = dir.at(&member.name);
    let unreadable = |e: std::io::Error| NotReopened::Unreadable(format!("{}: {e}", path.display()));
    let facts = super::read::facts(&file).map_err(unreadable)?;
    let whole = reference::check(&file).map_err(unreadable)?;
    let print = reference::fingerprint(&file).map_err(unreadable)?;
    if member.print.is_some_and(|then| then != print) {
        return Err(NotReopened::Changed(format!(
            "{} has changed since it was claimed",
            ctx.site.working.join(folder.as_path()).join(&member.name).display()
        )));
    }
    Ok(Picture { file, path, whole, print, facts, stripped: None })
}
