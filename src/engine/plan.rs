//! Planning a drop: read it, know it again, draw its seeds, get its reference where the service can fetch it.
//! All of it is free, and the drop stays in the inbox.

use std::fs::File;
use std::path::Path;

use crate::config::ReferenceMode;
use crate::domain::arrivals::Candidate;
use crate::domain::ids::{Fingerprint, RelPath, ShotNo};
use crate::domain::life::{Shot, ShotState};
use crate::domain::news::News;
use crate::domain::request::{LARGEST_DRAWN_SEED, RefPlan, RequestPlan, Seeds};
use crate::domain::verdict::Verdict;
use crate::ledger::{Ending, Known, Role};
use crate::reference::{self, Format, Original, PrepareError, Rules, Whole};
use crate::segmind::UploadOutcome;

use super::ctx::{Ctx, blocking};
use super::event::{Chain, Event, Plan, Planned, Prepared};
use super::frozen::{Frozen, Reference};
use super::read::{Picture, Read, Reading, read};

/// Plans `candidate` and tells the loop.
pub(super) async fn run(ctx: Ctx, candidate: Candidate, chain: Chain) {
    let plan = plan(&ctx, &candidate, chain).await;
    ctx.send(Event::Planned { candidate, plan }).await;
}

async fn plan(ctx: &Ctx, candidate: &Candidate, chain: Chain) -> Plan {
    let (config, inbox, looked_at) = (ctx.config.clone(), ctx.site.inbox.clone(), candidate.clone());
    let reading = match blocking(move || read(&config, &inbox, &looked_at, &chain)).await {
        Ok(reading) => reading,
        Err(e) => return Plan::Failed(e, Vec::new()),
    };
    let read = match reading {
        Reading::Ready(read) => *read,
        Reading::NotWhole => return Plan::NotWhole,
        Reading::Changed => return Plan::Changed,
        Reading::Unreadable(why) => return Plan::Unreadable(why),
        Reading::PresetBroken(folder, why) => return Plan::PresetBroken(folder, why),
        Reading::NoPrompt => return Plan::NoPrompt,
        Reading::Failed(why, members) => return Plan::Failed(why, members),
    };
    let recognition = read.recognition;
    let picture = read.members.iter().find(|m| m.role == Role::Picture).and_then(|m| m.print);
    let asked = ctx.record(move |l| {
        let known = l.recognise(recognition)?;
        let seen = known.is_none() && picture.is_some_and(|print| l.seen_picture(print).unwrap_or(false));
        Ok((known, seen))
    });
    let (known, seen) = match asked.await {
        Ok(found) => found,
        Err(e) => return Plan::Environment(e.to_string()),
    };
    let (shots, known) = shots(&read.plan, known);
    let Read { members, plan, picture, warnings, .. } = read;
    let (reference, prepared) = match reference_of(ctx, &plan, picture, candidate).await {
        Ok(found) => found,
        Err(NoReference::Drop(why)) => return Plan::Failed(why, members),
        Err(NoReference::Changed) => return Plan::Changed,
        Err(NoReference::Upload(verdict)) => return Plan::Upload(verdict),
        Err(NoReference::Environment(why)) => return Plan::Environment(why),
    };
    if seen {
        tracing::info!(drop = %candidate.place(), "this picture failed before, but its request or its sidecars are others now: all its shots are sent");
    }
    let frozen = Frozen::new(&plan, reference, plan.shots.count(), &candidate.place().to_string());
    Plan::Ready(Box::new(Planned {
        candidate: candidate.clone(),
        members,
        frozen,
        shots,
        recognition,
        known,
        prepared,
        warnings,
    }))
}

/// The shots to be sent: of a drop that comes back those that were not delivered, with their seeds; else all.
fn shots(plan: &RequestPlan, known: Option<Known>) -> (Vec<Shot>, Option<Known>) {
    if let Some(known) = &known
        && !known.again
    {
        let returned = known.ending == Ending::Returned;
        let left: Vec<Shot> = known
            .shots
            .iter()
            .filter(|shot| !matches!(shot.state, ShotState::Delivered { .. }))
            .map(|shot| Shot { attempts: if returned { shot.attempts } else { 0 }, ..Shot::new(shot.no, shot.seed) })
            .collect();
        if !left.is_empty() {
            return (left, Some(known.clone()));
        }
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

async fn reference_of(
    ctx: &Ctx,
    plan: &RequestPlan,
    picture: Option<Picture>,
    candidate: &Candidate,
) -> Result<(Reference, Option<Prepared>), NoReference> {
    match (&plan.reference, picture) {
        (RefPlan::None, _) | (RefPlan::Picture, None) => Ok((Reference::None, None)),
        (RefPlan::Given { url }, _) => Ok((Reference::Given { url: url.clone() }, None)),
        (RefPlan::Picture, Some(picture)) => picture_reference(ctx, picture, &candidate.folder, candidate.lead()).await,
    }
}

/// Makes a picture available to the service, as the configuration says.
async fn picture_reference(
    ctx: &Ctx,
    picture: Picture,
    folder: &RelPath,
    name: &std::ffi::OsStr,
) -> Result<(Reference, Option<Prepared>), NoReference> {
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

fn rules(ctx: &Ctx) -> Rules {
    let r = &ctx.config.reference;
    Rules { max_edge: r.max_edge, max_bytes: r.max_bytes, strip_metadata: r.strip_metadata }
}

/// A prepared picture: its file goes with the value.
struct Ready {
    path: tempfile::TempPath,
    fingerprint: Fingerprint,
    media_type: &'static str,
}

async fn prepare(ctx: &Ctx, picture: Picture) -> Result<Ready, NoReference> {
    let (rules, into, budget) = (rules(ctx), prepared_dir(&ctx.site.state_dir), ctx.budget.clone());
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
    let mut key = reference::cache_key(picture.print, &rules(ctx)).0.to_vec();
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
            return Ok(Reference::Uploaded {
                url: url.into(),
                blake3: blake3.into(),
                key: key.to_string(),
                cached: true,
            });
        }
    }
    let prepared = prepare(ctx, picture).await?;
    let Some(api_key) = ctx.keys.key() else {
        let message = "there is no API key".to_owned();
        return Err(NoReference::Upload(Verdict::Pause { why: crate::domain::verdict::PauseWhy::Key, message }));
    };
    let begun = ctx.clock.mono();
    let uploaded = ctx.client.upload(&api_key, &prepared.path, prepared.media_type).await;
    let (took, well) = (ctx.clock.mono().since(begun), matches!(uploaded, UploadOutcome::Done(_)));
    ctx.tell.say(&News::Uploaded { took, well });
    match uploaded {
        UploadOutcome::Done(asset) => {
            let (url, blake3) = (asset.expose().to_owned(), prepared.fingerprint.to_string());
            let kept = format!("{url} {blake3}");
            ctx.record(move |l| l.uploaded(key, &kept, now)).await.map_err(environment)?;
            Ok(Reference::Uploaded { url, blake3, key: key.to_string(), cached: false })
        }
        UploadOutcome::Failed(verdict) => Err(NoReference::Upload(verdict)),
    }
}

/// The picture of a drop that lies in working, opened again (its bytes are those that were hashed).
pub(super) fn reopen(
    ctx: &Ctx,
    working: &Path,
    folder: &RelPath,
    member: &crate::ledger::Member,
) -> Result<Picture, String> {
    let dir = crate::outbox::folder::Folder::existing(working, folder).map_err(|e| e.to_string())?;
    let dir = dir.ok_or_else(|| format!("{} is not there", folder.under(working).display()))?;
    let file: File = dir.open(&member.name).map_err(|e| e.to_string())?;
    let path = dir.at(&member.name);
    let facts = super::read::facts(&file).map_err(|e| e.to_string())?;
    let whole = reference::check(&file).map_err(|e| e.to_string())?;
    let print = reference::fingerprint(&file).map_err(|e| e.to_string())?;
    if member.print.is_some_and(|then| then != print) {
        return Err(format!(
            "{} has changed since it was claimed",
            ctx.site.working.join(folder.as_path()).join(&member.name).display()
        ));
    }
    Ok(Picture { file, path, whole, print, facts })
}
