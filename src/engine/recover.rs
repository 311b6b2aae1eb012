//! What a crash left is put in order before the inbox is first looked at. Each row of the table in
//! ARCHITECTURE.md has its place here.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::ids::{DropId, Fingerprint, Mono, RelPath, show};
use crate::domain::kinds::{NameKind, classify};
use crate::domain::life::{self, Shot, ShotState, Spooled};
use crate::domain::names::{SetNames, numbered};
use crate::domain::pairing::group_key;
use crate::ledger::{Limits, Member, NewDrop, OpenDrop, Role};
use crate::outbox::claim;
use crate::outbox::filing::{Move, move_file};
use crate::outbox::folder::{Folder, INNER_WORKING};
use crate::outbox::listing::Wanted;
use crate::outbox::publish;
use crate::outbox::sweep::sweep;
use crate::reference;

use super::ctx::Ctx;
use super::frozen::Frozen;
use super::pump::place_of;
use super::works::Work;
use super::{Engine, EngineError, deliver, send};

/// So long a sidecar that came too late may have waited in the inbox for the daemon to run again, and is still late.
const LATE_WAITS: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Of so many filed drops the names are taken up, the newest ones.
const MOST_FILED: usize = 20_000;

/// Open drops, each with why it is lost, if it is.
type Found = Vec<(OpenDrop, Option<String>)>;

/// What is open; and whether all that was never sent lies in the inbox again.
pub(super) type Recovery = (Found, bool);

/// Puts in order what a crash left. `good`: the ledger is the one that was there before.
pub(super) async fn recover(ctx: Ctx, good: bool) -> Result<Recovery, EngineError> {
    super::ctx::blocking(move || recover_all(&ctx, good)).await.map_err(EngineError::State)?
}

/// Where the originals of an open row were found.
enum Originals {
    /// In working (here), or already where they are filed.
    There(PathBuf),
    /// At least one is nowhere.
    Missing(String),
}

impl Engine {
    /// Takes up what [`recover`] found.
    pub(super) async fn recovered_at_start(&mut self, (found, all_back): Recovery) -> Result<(), EngineError> {
        let now = self.now();
        if !all_back {
            self.stranded(now);
        }
        for (open, lost) in found {
            let place = place_of(&open.drop.folder, &open.drop.members);
            if lost.is_none() {
                self.note_in_work(&open, now);
            }
            let id = open.drop.id;
            let frozen = Frozen::from_text(&open.drop.plan).unwrap_or_else(Frozen::nothing);
            let mut work = Work::new(open, frozen, None, place, self.ctx.clock.wall());
            if let Some(why) = lost {
                tracing::error!(drop = %work.place, "{why}; its row stays open until a person closes it: stop the daemon, and run reimagined retry with this path of the inbox");
                work.lost = Some(why);
            } else {
                tracing::info!(drop = %work.place, "taken up again");
            }
            self.works.insert(id, work);
            self.work_order.push(id);
        }
        let wall = self.ctx.clock.wall();
        let give_up = jiff::SignedDuration::try_from(self.ctx.config.watch.give_up).unwrap_or_default();
        let since = wall.checked_sub(give_up).and_then(|at| at.checked_sub(LATE_WAITS)).unwrap_or(wall);
        let filed = self.ctx.record(move |l| l.filed_since(since)).await?;
        let too_many = filed.len().saturating_sub(MOST_FILED);
        for filed in filed.into_iter().skip(too_many) {
            let ago = Duration::try_from(wall.duration_since(filed.filed)).unwrap_or_default();
            let stem = Path::new(&filed.name).file_stem().unwrap_or(&filed.name).to_owned();
            self.arrivals.filed_earlier(
                (&filed.folder, &stem),
                &filed.name,
                ago,
                filed.sent.map(jiff::Timestamp::as_millisecond),
                now,
            );
        }
        self.usage_wanted = true;
        for id in self.work_order.clone() {
            self.advance(id, now);
        }
        Ok(())
    }
}

impl Engine {
    /// The inbox, and perhaps working with it, is there again: what is lost is looked for again, and what was
    /// claimed without a row goes back.
    ///
    /// Not while a drop is being claimed: its files would lie in working without a row.
    pub(super) fn recover_when_still(&mut self) {
        let due = self.stranded.is_some_and(|(at, _)| self.now() >= at);
        if due && !self.recover_running && self.inbox_lost.is_none() {
            (self.recovering, self.recover_wanted) = (true, true);
        }
        let claiming = |p: &super::Planning| matches!(p, super::Planning::Starting(..) | super::Planning::Burying);
        if !self.recover_wanted || self.recover_running || self.plans.values().any(claiming) {
            return;
        }
        self.recover_wanted = false;
        self.recover_running = true;
        let ctx = self.ctx.clone();
        let rows: Vec<_> = self.works.values().map(|w| (w.open.clone(), w.lost.is_some())).collect();
        self.spawn(async move {
            let again = ctx.clone();
            let found = super::ctx::blocking(move || {
                let ctx = &again;
                let workings = workings(ctx);
                let (mut found, mut all_back) = (Vec::new(), true);
                let mut ours = HashSet::new();
                for (mut row, mut lost) in rows {
                    if lost && let Ok(Originals::There(working)) = find_originals(ctx, &row, &workings) {
                        row.drop.working.clone_from(&working);
                        found.push((row.drop.id, working));
                        lost = false;
                    }
                    ours.extend(places(&row, if lost { &workings } else { &[] }));
                }
                for working in &workings {
                    for (folder, names) in strays(working, &ours) {
                        all_back &= bring_back(ctx, working, &folder, &names);
                    }
                }
                (found, all_back)
            });
            let (found, all_back) = found.await.unwrap_or((Vec::new(), true));
            ctx.send(super::event::Event::Recovered { found, all_back }).await;
        });
    }

    /// What was claimed could not go back: working is put in order again until it does.
    pub(super) fn stranded(&mut self, now: Mono) {
        self.stranded.get_or_insert((now + super::LOOK_AGAIN, super::LOOK_AGAIN));
    }

    pub(super) fn recovered(&mut self, found: Vec<(DropId, PathBuf)>, all_back: bool, now: Mono) {
        self.recover_running = false;
        self.recovering = self.recover_wanted;
        let wait = self.stranded.map_or(super::LOOK_AGAIN, |(_, wait)| (wait * 2).min(Duration::from_secs(60)));
        self.stranded = (!all_back).then_some((now + wait, wait));
        for (id, working) in found {
            if let Some(work) = self.works.get_mut(&id) {
                work.lost = None;
                work.open.drop.working = working;
                tracing::info!(drop = %work.place, "its originals are there again");
                let open = work.open.clone();
                self.note_in_work(&open, now);
                self.advance(id, now);
            }
        }
    }
}

fn workings(ctx: &Ctx) -> Vec<PathBuf> {
    let all = std::iter::once(&ctx.site.working).chain(&ctx.site.other_workings).cloned();
    // One that is a link inside the inbox is nobody's but the one's who put it there.
    all.filter(|w| Folder::root(w).is_ok()).collect()
}

/// The files in working that belong to a row: in its own, and, of a drop of which something is lost, in each.
fn places<'a>(row: &'a OpenDrop, lost_in: &'a [PathBuf]) -> impl Iterator<Item = (PathBuf, PathBuf)> + 'a {
    let roots = std::iter::once(&row.drop.working).chain(lost_in);
    let moving = || row.drop.members.iter().filter(|m| m.moves);
    roots.flat_map(move |root| moving().map(|m| (root.clone(), row.drop.folder.as_path().join(&m.name))))
}

fn state(e: impl std::fmt::Display) -> EngineError {
    EngineError::State(e.to_string())
}

fn recover_all(ctx: &Ctx, good: bool) -> Result<Recovery, EngineError> {
    let site = &ctx.site;
    let workings = workings(ctx);
    let mut temporaries = Vec::new();
    for root in workings.iter().chain([&site.outbox, &site.archive, &site.errors]) {
        let swept = sweep(root).map_err(state)?;
        for unread in swept.unread {
            tracing::warn!(folder = %show(unread.as_os_str()), "a folder can't be read: what a crash may have left there is looked for again at the next start");
        }
        temporaries.extend(swept.temporaries);
    }
    let open = ctx.ledger.call_blocking(|l| l.open_drops())??;
    seal_what_came_whole(ctx, &open, good)?;
    ctx.spool.sweep_parts().map_err(state)?;

    let mut found = Vec::new();
    let mut ours: HashSet<(PathBuf, PathBuf)> = HashSet::new();
    for mut row in open {
        let originals = find_originals(ctx, &row, &workings)?;
        let lost = match originals {
            Originals::There(working) => {
                row.drop.working = working;
                None
            }
            Originals::Missing(why) => Some(why),
        };
        ours.extend(places(&row, if lost.is_some() { &workings } else { &[] }));
        recover_shots(ctx, &mut row, good)?;
        found.push((row, lost));
    }
    let known: HashSet<DropId> = found.iter().map(|(row, _)| row.drop.id).collect();
    rescue_pictures(ctx, &known, &temporaries)?;
    let mut all_back = true;
    for working in &workings {
        for (folder, names) in strays(working, &ours) {
            if good {
                all_back &= bring_back(ctx, working, &folder, &names);
            } else {
                found.push((give_to_errors(ctx, working, &folder, &names)?, None));
            }
        }
    }
    for other in ctx.site.other_workings.iter().filter(|other| other.ends_with(INNER_WORKING)) {
        // A start that was killed while it tried what can be renamed leaves it in the inbox. Only an empty one goes.
        let _ = std::fs::remove_dir(other);
    }
    // From now on a file in working without a row was surely never sent.
    ctx.ledger.call_blocking(|l| l.trust())??;
    Ok((found, all_back))
}

/// A picture that came whole in the last moment before a stop is sealed: it was received, also where the ledger
/// that knew of it is lost.
fn seal_what_came_whole(ctx: &Ctx, open: &[OpenDrop], good: bool) -> Result<(), EngineError> {
    for (id, no) in ctx.spool.parts().map_err(state)? {
        let row = open.iter().find(|row| row.drop.id == id);
        let shot = row.and_then(|row| row.drop.shots.iter().find(|shot| shot.no == no));
        let sealed = ctx.spool.find(id, no).map_err(state)?.is_some();
        let ended = shot.is_some_and(|s| match s.state {
            ShotState::Sending { .. } | ShotState::Answered { .. } => false,
            // A power cut undid the name under which it was sealed.
            ShotState::Received { .. } | ShotState::Publishing { .. } => sealed,
            // Where the ledger's end is missing, it may have been sent.
            ShotState::Due { .. } => good,
            _ => true,
        });
        let whole = || {
            let file = std::fs::File::open(ctx.spool.part_path(id, no)).ok()?;
            deliver::extension(&reference::check(&file).ok()?).ok()
        };
        if !ended
            && whole().is_some()
            && let Err(e) = ctx.spool.seal(id, no)
        {
            // What lies there half sealed must not be swept away.
            if !e.is_taken() {
                return Err(state(e));
            }
        }
    }
    Ok(())
}

/// Where a row's originals are; those that a power cut put back into the inbox are claimed again.
fn find_originals(ctx: &Ctx, row: &OpenDrop, workings: &[PathBuf]) -> Result<Originals, EngineError> {
    let mut at = row.drop.working.clone();
    for (i, member) in row.drop.members.iter().filter(|m| m.moves).enumerate() {
        let rel = &row.drop.folder;
        let lies_in = |root: &Path| lies(root, rel, &member.name);
        if let Some(root) = std::iter::once(&row.drop.working).chain(workings).find(|root| lies_in(root)) {
            at.clone_from(root);
            continue;
        }
        // Filed already, as far as this member goes.
        if let Some(filing) = &row.filing
            && let Some(name) = filing.names.get(i)
        {
            let root = if filing.fate == life::Fate::Archive { &ctx.site.archive } else { &ctx.site.errors };
            if lies(root, rel, name) {
                continue;
            }
        }
        if lies_in(&ctx.site.inbox) && has_bytes(&ctx.site.inbox, rel, member) {
            tracing::warn!(drop = %place_of(rel, &row.drop.members), "its claim was undone by a power cut; it is claimed again");
            let from = Folder::existing(&ctx.site.inbox, rel).map_err(state)?;
            let entry = from.and_then(|f| f.look(&member.name).ok().flatten());
            if let Some(entry) = entry {
                let again = claim::Member { name: member.name.clone(), facts: entry.facts };
                claim::claim(&ctx.site.inbox, &ctx.site.working, rel, &[again]).map_err(state)?;
                at.clone_from(&ctx.site.working);
                continue;
            }
        }
        return Ok(Originals::Missing(format!(
            "{} is nowhere to be found",
            place_of(rel, std::slice::from_ref(member))
        )));
    }
    Ok(Originals::There(at))
}

fn lies(root: &Path, rel: &RelPath, name: &OsStr) -> bool {
    let found = Folder::existing(root, rel).ok().flatten().and_then(|f| f.look(name).ok().flatten());
    found.is_some_and(|entry| entry.is_file())
}

fn has_bytes(root: &Path, rel: &RelPath, member: &Member) -> bool {
    let Some(print) = member.print else { return true };
    let file = Folder::existing(root, rel).ok().flatten().and_then(|f| f.open(&member.name).ok());
    file.and_then(|file| crate::reference::fingerprint(&file).ok()).is_some_and(|now| now == print)
}

/// Shots that were on the wire: received if their picture stands whole in the spool, unconfirmed else. Where the
/// ledger's end may be missing, so are those that it has as due.
fn recover_shots(ctx: &Ctx, row: &mut OpenDrop, good: bool) -> Result<(), EngineError> {
    let retry = ctx.config.retry.unconfirmed == crate::config::Unconfirmed::Retry;
    let id = row.drop.id;
    for shot in &mut row.drop.shots {
        let doubted = if good { shot.clone() } else { life::doubt(shot, ctx.clock.wall()).map_err(state)? };
        if doubted != *shot {
            tracing::warn!(drop = %id, shot = shot.no.0 + 1, "it may have been sent: the ledger's end is missing");
            let (sent, moment) = (doubted.clone(), ctx.clock.moment());
            ctx.ledger.call_blocking(move |l| l.send(id, &sent, Limits::default(), &moment))??;
            *shot = doubted;
        }
        let spooled = match &shot.state {
            ShotState::Sending { .. } | ShotState::Answered { .. } => spooled(ctx, id, shot)?,
            _ => None,
        };
        let gone = || Ok::<_, EngineError>(ctx.spool.find(id, shot.no).map_err(state)?.is_none());
        let next = if !good && matches!(shot.state, ShotState::Received { .. }) && gone()? {
            // The name under which it was published is among what is missing.
            let reason = "its picture was received and is not in the spool any more: look into the outbox".into();
            shot.apply(life::ShotEvent::Fail { reason, billed: crate::domain::verdict::Billed::Yes }).map_err(state)?
        } else {
            life::recover(shot, spooled, retry).map_err(state)?
        };
        if next != *shot {
            tracing::warn!(drop = %id, shot = shot.no.0 + 1, was = shot.state.word(), now = next.state.word(), "settled after a stop");
            let (record, billed) = (next.clone(), next.state.billed());
            ctx.ledger.call_blocking(move |l| l.step(id, &record, billed))??;
            *shot = next;
        }
    }
    Ok(())
}

fn spooled(ctx: &Ctx, id: DropId, shot: &Shot) -> Result<Option<Spooled>, EngineError> {
    let Some(sealed) = ctx.spool.find(id, shot.no).map_err(state)? else { return Ok(None) };
    let file = std::fs::File::open(&sealed.path).map_err(|e| state(format!("{}: {e}", sealed.path.display())))?;
    let whole = reference::check(&file).map_err(|e| state(format!("{}: {e}", sealed.path.display())))?;
    let Ok(extension) = deliver::extension(&whole) else { return Ok(None) };
    let print = sealed.fingerprint().map_err(state)?;
    Ok(Some(Spooled {
        blake3: print.to_string(),
        bytes: sealed.bytes,
        extension: extension.into(),
        at: ctx.clock.wall(),
    }))
}

/// Pictures that no row knows of, in the spool or under a hidden name, reach the outbox all the same.
fn rescue_pictures(ctx: &Ctx, known: &HashSet<DropId>, temporaries: &[publish::Temporary]) -> Result<(), EngineError> {
    let spool = ctx.spool.list().map_err(state)?;
    for sealed in spool.iter().filter(|s| !known.contains(&s.drop)) {
        let file = std::fs::File::open(&sealed.path).map_err(|e| state(format!("{}: {e}", sealed.path.display())))?;
        let whole = reference::check(&file).map_err(|e| state(format!("{}: {e}", sealed.path.display())))?;
        let extension = deliver::extension(&whole).unwrap_or("bin");
        let stem = OsString::from(format!("recovered-{}-{}", sealed.drop, sealed.shot.0 + 1));
        let name = free_name(ctx, &RelPath::root(), &stem, &format!(".{extension}"))?;
        let delivery = publish::Delivery {
            spool: &ctx.spool,
            drop: sealed.drop,
            shot: sealed.shot,
            root: &ctx.site.outbox,
            rel: &RelPath::root(),
            name: &name,
            provenance: None,
        };
        publish::publish(&delivery).map_err(state)?;
        tracing::warn!(result = %show(&name), "a received picture that no row knows of was put into the outbox");
    }
    let in_spool: HashSet<_> = spool.iter().map(|s| (s.drop, s.shot)).collect();
    for temporary in temporaries.iter().filter(|t| !known.contains(&t.drop) && !in_spool.contains(&(t.drop, t.shot))) {
        let file =
            std::fs::File::open(&temporary.path).map_err(|e| state(format!("{}: {e}", temporary.path.display())))?;
        let Ok(whole) = reference::check(&file) else { continue };
        // A copy that was cut off has its whole in the spool; without one it is nothing to anybody.
        let Ok(extension) = deliver::extension(&whole) else { continue };
        let stem = OsString::from(format!("recovered-{}-{}", temporary.drop, temporary.shot.0 + 1));
        let name = free_name(ctx, &temporary.rel, &stem, &format!(".{extension}"))?;
        publish::rescue(&ctx.site.outbox, temporary, &name).map_err(state)?;
        tracing::warn!(result = %show(&name), "a received picture that no row knows of was put into the outbox");
    }
    Ok(())
}

fn free_name(ctx: &Ctx, rel: &RelPath, stem: &OsStr, suffix: &str) -> Result<OsString, EngineError> {
    let names = |n: u32| vec![numbered(stem, n, OsStr::new(suffix))];
    let wanted = [Wanted { root: &ctx.site.outbox, rel, names: &names }];
    let n = ctx.listings.choose_number(&wanted, |_| false).map_err(state)?;
    Ok(numbered(stem, n, OsStr::new(suffix)))
}

/// Files in working that belong to no row, by folder and by what belongs together: sidecars first, the
/// picture last. Dotfiles are the daemon's.
fn strays(working: &Path, ours: &HashSet<(PathBuf, PathBuf)>) -> Vec<(RelPath, Vec<OsString>)> {
    let mut groups: BTreeMap<(RelPath, Vec<u8>), Vec<OsString>> = BTreeMap::new();
    let inner = working.file_name() == Some(OsStr::new(INNER_WORKING));
    // The names are a list of what to look at; it is moved by handles of folders.
    let walk = walkdir::WalkDir::new(working).follow_links(false).follow_root_links(!inner);
    for entry in walk.sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                tracing::warn!(error = %e, "a folder in working can't be read; what lies there stays");
                continue;
            }
        };
        let Some(rel) = RelPath::below(working, entry.path()) else { continue };
        let Some(name) = rel.name() else { continue };
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !entry.file_type().is_file()
            || hidden
            || ours.contains(&(working.to_path_buf(), rel.as_path().to_path_buf()))
        {
            continue;
        }
        let folder = rel.parent().unwrap_or_default();
        let key = format!("{:?}", group_key(name)).into_bytes();
        groups.entry((folder, key)).or_default().push(name.to_owned());
    }
    groups
        .into_iter()
        .map(|((folder, _), mut names)| {
            names.sort_by_key(|name| role(&folder, name) == Role::Picture);
            (folder, names)
        })
        .collect()
}

fn role(folder: &RelPath, name: &OsStr) -> Role {
    match classify(folder, name, false, &|_: &Path| false) {
        NameKind::Picture(_) => Role::Picture,
        NameKind::Sidecar(_) => Role::Sidecar,
        _ => Role::Foreign,
    }
}

/// Never sent: back into the inbox, under a free number where the name is taken by now. What can't be brought
/// back stays in working until the next time; whether it is back.
fn bring_back(ctx: &Ctx, working: &Path, folder: &RelPath, names: &[OsString]) -> bool {
    let done = try_to_bring_back(ctx, working, folder, names);
    if let Err(e) = &done {
        tracing::warn!(error = %e, "what was claimed and never sent can't go back into the inbox; it stays in working until it can");
    }
    done.is_ok()
}

fn try_to_bring_back(ctx: &Ctx, working: &Path, folder: &RelPath, names: &[OsString]) -> Result<(), EngineError> {
    let lead = names.last().cloned().unwrap_or_default();
    let stem = Path::new(&lead).file_stem().map(OsStr::to_os_string).unwrap_or_default();
    let set = SetNames::new(&stem, names);
    let free = |n: u32| set.members(n);
    let wanted = [Wanted { root: &ctx.site.inbox, rel: folder, names: &free }];
    let n = ctx.listings.choose_number(&wanted, |_| false).map_err(state)?;
    for (name, new) in names.iter().zip(set.members(n)) {
        move_file(&Move {
            from_root: working,
            from_rel: folder,
            from_name: name,
            to_root: &ctx.site.inbox,
            to_rel: folder,
            to_name: &new,
            print: None,
            stage: Some(&ctx.site.working),
        })
        .map_err(state)?;
        tracing::info!(file = %show(folder.join(name).as_path().as_os_str()), "was claimed and never sent: back in the inbox");
    }
    claim::prune(working, folder);
    Ok(())
}

/// Without a good ledger nobody knows what was sent: to errors as unconfirmed, nothing is sent for it.
fn give_to_errors(ctx: &Ctx, working: &Path, folder: &RelPath, names: &[OsString]) -> Result<OpenDrop, EngineError> {
    let lead = names.last().cloned().unwrap_or_default();
    let stem = Path::new(&lead).file_stem().map(OsStr::to_os_string).unwrap_or_default();
    let mut members = Vec::new();
    for name in names {
        let file = Folder::existing(working, folder).map_err(state)?.and_then(|f| f.open(name).ok());
        let print: Option<Fingerprint> = file.as_ref().and_then(|f| crate::reference::fingerprint(f).ok());
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        members.push(Member { name: name.clone(), role: role(folder, name), print, size, moves: true });
    }
    let reason = "unconfirmed: it was in work, and there is no good ledger of that time (lost, damaged, new, or without its end), so nobody knows whether it was sent and billed. Before you drop it again, look into the outbox: its result may stand there, under its own name or as recovered-…";
    let drop = NewDrop {
        id: send::new_id(),
        folder: folder.clone(),
        stem,
        members,
        working: working.to_path_buf(),
        recognition: None,
        plan: Frozen::forgotten().to_text(),
        shots: Vec::new(),
        failure: Some(reason.into()),
        continues: None,
    };
    let (row, moment) = (drop.clone(), ctx.clock.moment());
    ctx.ledger.call_blocking(move |l| l.begin(&row, None, Limits::default(), &moment))??;
    tracing::warn!(drop = %place_of(folder, &drop.members), "{reason}");
    Ok(OpenDrop { drop, claimed: ctx.clock.wall(), number: None, filing: None })
}
