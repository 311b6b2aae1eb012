//! What the engine is doing, for whoever watches.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::arrivals::Reason;
use crate::domain::ids::{Mono, RelPath};
use crate::domain::life::ShotState;
use crate::domain::news::News;
use crate::domain::status::{
    BrokenPreset, Failure, Folders, Ignored, MAX_BROKEN, MAX_FAILURES, MAX_LISTED, PauseKind, Paused, Queue, Spend,
    State, Status, Waiting, Work,
};
use crate::inbox::Backend;
use crate::ledger::{self, Older, Sum, Usage};

use super::ctx::Ctx;
use super::event::Event;
use super::{Engine, Planning};

/// A change is published this long after it, so that many changes are one.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// The least time between two publications.
const SELDOM: Duration = Duration::from_millis(500);

/// Within this time what went back into the inbox is seen there.
const SEEN_AGAIN: Duration = Duration::from_secs(10);

/// Figures that others gave.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub credits: Option<f64>,
    pub usage: Usage,
    pub failed: u64,
    pub failures: Vec<ledger::Failure>,
}

/// The status while the inbox is not there yet, or silent; whether it changed.
pub(super) fn lost(status: &mut Status, text: &str, since: Timestamp) -> bool {
    let changed = status.paused.as_ref().is_none_or(|p| p.reason != text);
    status.state = State::Paused;
    status.paused = Some(Paused { kind: PauseKind::Inbox, reason: text.to_owned(), since, until: None });
    status.version = env!("CARGO_PKG_VERSION").into();
    status.pid = Some(std::process::id());
    status.updated = Some(Timestamp::now());
    changed
}

fn spend(sum: &Sum) -> Spend {
    // What adding up leaves far behind the point is no money.
    let cost = (sum.cost * 1e6).round() / 1e6;
    Spend { images: sum.images, cost, unpriced: sum.unpriced }
}

impl Engine {
    pub(super) fn usage(&mut self, usage: Usage, failed: u64, failures: Vec<ledger::Failure>) {
        self.figures.usage = usage;
        self.figures.failed = failed;
        self.figures.failures = failures;
        self.publish_status(false);
    }

    /// The figures as they are in the end.
    pub(super) async fn last_figures(&mut self) {
        if let Ok((usage, failed, failures)) = figures(&self.ctx, None).await {
            self.figures = Figures { credits: self.figures.credits, usage, failed, failures };
        }
    }

    /// Asks for the figures when they may have changed, and publishes what changed.
    pub(super) fn refresh_status(&mut self, now: Mono) {
        if self.usage_wanted && now >= self.next_usage {
            self.usage_wanted = false;
            self.next_usage = now + SELDOM;
            let (ctx, older) = (self.ctx.clone(), self.figures.usage.older.clone());
            self.spawn(async move {
                if let Ok((usage, failed, failures)) = figures(&ctx, older).await {
                    ctx.send(Event::Usage { usage, failed, failures }).await;
                }
            });
        } else if self.usage_wanted {
            let due = self.next_usage;
            self.status_due = Some(self.status_due.map_or(due, |at| at.min(due)));
        }
        if self.status_due.is_some_and(|at| now >= at) {
            self.publish_status(false);
            self.status_due = self.usage_wanted.then_some(self.next_usage);
        }
    }

    /// Why everything waits, in words; the gate's, our own or the inbox's.
    fn pause(&self) -> Option<Paused> {
        let now = self.now();
        let wall = self.ctx.clock.wall();
        let later = |at: Mono| wall.checked_add(jiff::SignedDuration::try_from(at.since(now)).unwrap_or_default()).ok();
        if let Some((why, since)) = self.inbox_away() {
            return Some(Paused { kind: PauseKind::Inbox, reason: why.clone(), since: *since, until: None });
        }
        if let Some(trouble) = &self.trouble {
            return Some(Paused {
                kind: PauseKind::Storage,
                reason: trouble.text.clone(),
                since: trouble.since,
                until: None,
            });
        }
        if let Some((id, (why, _))) = self.blocked.iter().next() {
            let since = self.works.get(id).map_or(wall, |w| w.since);
            return Some(Paused {
                kind: PauseKind::Delivery,
                reason: format!("what is done cannot be put where it belongs: {why}"),
                since,
                until: None,
            });
        }
        let pause = self.gate.paused().filter(|_| !self.is_over_but_for_the_proof())?;
        let reason = if pause.message.is_empty() {
            pause.why.text().to_owned()
        } else {
            format!("{}: {}", pause.why.text(), pause.message)
        };
        Some(Paused { kind: pause.why.into(), reason, since: pause.since, until: pause.until.and_then(later) })
    }

    /// Tells of a pause once, until it is another one or over.
    fn tell_pause(&mut self, paused: Option<&Paused>) {
        if self.told_pause.as_deref() == paused.map(|p| p.reason.as_str()) {
            return;
        }
        self.told_pause = paused.map(|p| p.reason.clone());
        self.ctx.tell.say(&match paused.cloned() {
            Some(Paused { kind, reason, since, until }) => News::Paused { kind, reason, since, until },
            None => News::Resumed,
        });
    }

    /// Some of the drops in work, the longest in their state first.
    fn work(&self) -> Vec<Work> {
        let mut works: Vec<_> = self.works.values().collect();
        works.sort_by_key(|w| w.since);
        let shown = works.into_iter().take(MAX_LISTED);
        let told = shown.map(|w| Work {
            drop: w.place.to_string(),
            state: word(w),
            since: w.since,
            claimed: Some(w.open.claimed),
        });
        told.collect()
    }

    /// The fullest folders, and how many more there are.
    fn queue(&self) -> (Vec<Queue>, u64) {
        let mut numbers: BTreeMap<&RelPath, (u64, u64)> =
            self.arrivals.queues().map(|(folder, waiting)| (folder, (waiting as u64, 0))).collect();
        for work in self.works.values() {
            numbers.entry(&work.place.folder).or_default().1 += 1;
        }
        for (place, _) in &self.gone_back {
            numbers.entry(&place.folder).or_default().0 += 1;
        }
        let mut folders: Vec<_> = numbers.into_iter().collect();
        folders.sort_by_key(|(_, (waiting, in_work))| std::cmp::Reverse(waiting + in_work));
        let left_out = folders.len().saturating_sub(MAX_LISTED) as u64;
        let shown = folders.into_iter().take(MAX_LISTED);
        let queue = shown.map(|(folder, (waiting, in_work))| Queue { folder: folder.to_string(), waiting, in_work });
        (queue.collect(), left_out)
    }

    /// Tells of a reached limit once, until it has room again.
    fn tell_limit(&mut self) {
        let limited = self.limited.as_ref().map(|limited| (limited.which, limited.until_wall));
        if self.told_limit == limited.map(|(which, _)| which) {
            return;
        }
        self.told_limit = limited.map(|(which, _)| which);
        self.ctx.tell.say(&match limited {
            Some((which, until)) => News::Limited { which, until },
            None => News::LimitOver,
        });
    }

    pub(super) fn publish_status(&mut self, ended: bool) {
        let paused = self.pause();
        self.tell_pause(paused.as_ref());
        self.tell_limit();
        if self.scans_done == 0 && paused.is_none() && !ended {
            // It runs when it watches and has looked, not before: what is dropped then goes at once.
            return;
        }
        let limited = self.limited.as_ref();
        let queued = match (&paused, limited) {
            (Some(_), _) => Reason::Paused,
            (None, Some(_)) => Reason::Limit,
            (None, None) => Reason::Queued,
        };
        let now = self.now();
        // What is not seen there soon was taken out by somebody; at the end nobody looks.
        let (stopping, arrivals) = (self.stopping.is_some() || ended, &self.arrivals);
        self.gone_back.retain(|(place, at)| (stopping || now.since(*at) < SEEN_AGAIN) && !arrivals.knows(place));
        let mut counts = self.arrivals.counts(queued);
        // Who was looked at waits for its turn.
        let looked_at =
            |plan: &&Planning| matches!(plan, Planning::Ready(_) | Planning::Later(..) | Planning::Doomed(..));
        let waits = self.plans.values().filter(looked_at).count();
        if let Some(n) = counts.get_mut(&Reason::Planning) {
            let waits = waits.min(*n);
            *n -= waits;
            *counts.entry(queued).or_insert(0) += waits;
        }
        counts.retain(|_, n| *n > 0);
        if !self.gone_back.is_empty() {
            *counts.entry(queued).or_insert(0) += self.gone_back.len();
        }
        let waiting_for = self.arrivals.waiting_for_something(MAX_LISTED).into_iter().map(|found| Waiting {
            drop: found.place.to_string(),
            reason: found.detail.unwrap_or_else(|| found.reason.label().to_owned()),
        });
        let (work, (queue, queue_left_out)) = (self.work(), self.queue());
        let site = &self.ctx.site;
        let status = Status {
            state: if ended {
                State::Stopped
            } else if paused.is_some() {
                State::Paused
            } else {
                State::Running
            },
            paused: if ended { None } else { paused },
            in_work: self.works.len() as u64,
            work,
            waiting: counts.into_iter().map(|(reason, n)| (reason.label().to_owned(), n as u64)).collect(),
            waiting_for: waiting_for.collect(),
            queue,
            queue_left_out,
            failed: self.figures.failed,
            last_failures: self
                .figures
                .failures
                .iter()
                .map(|f| Failure { drop: f.label.clone(), reason: f.reason.clone(), at: f.at })
                .collect(),
            last_24h: spend(&self.figures.usage.day),
            last_hour: spend(&self.figures.usage.hour),
            last_30d: spend(&self.figures.usage.month),
            credits: self.figures.credits,
            ignored: self.arrivals.ignored_count() as u64,
            ignored_files: self
                .arrivals
                .ignored()
                .take(MAX_LISTED)
                .map(|(place, why)| Ignored { file: place.to_string(), why: why.to_string() })
                .collect(),
            broken_presets: self
                .arrivals
                .broken_presets()
                .take(MAX_BROKEN)
                .map(|(folder, reason)| BrokenPreset {
                    file: folder.join(std::ffi::OsStr::new("preset.toml")).to_string(),
                    reason: reason.to_owned(),
                })
                .collect(),
            // They lie where the status is written, and are found there.
            damaged_ledgers: Vec::new(),
            limit_until: limited.map(|l| l.until_wall),
            backend: match self.backend {
                Backend::Events => "events".into(),
                Backend::Poll { .. } => "poll".into(),
            },
            folders: Folders {
                inbox: text(&site.inbox),
                working: text(&site.working),
                outbox: text(&site.outbox),
                archive: text(&site.archive),
                errors: text(&site.errors),
            },
            version: env!("CARGO_PKG_VERSION").into(),
            pid: (!ended).then(std::process::id),
            updated: Some(self.ctx.clock.wall()),
        };
        // Nothing new is no news.
        self.publish.send_if_modified(|old| {
            let same = *old == Status { updated: old.updated, ..status.clone() };
            if !same {
                *old = status;
            }
            !same
        });
    }
}

/// Usage and failures as the ledger knows them.
async fn figures(ctx: &Ctx, older: Option<Older>) -> Result<(Usage, u64, Vec<ledger::Failure>), ledger::LedgerError> {
    let moment = ctx.clock.moment();
    ctx.record(move |l| {
        let usage = l.usage_after(&moment, older)?;
        let (failed, failures) = l.failures(MAX_FAILURES as u32)?;
        Ok((usage, failed, failures))
    })
    .await
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// How far a drop is, by the shot that is furthest behind of those that are on their way.
fn word(work: &super::works::Work) -> String {
    if work.lost.is_some() {
        return "lost".into();
    }
    let states = work.open.drop.shots.iter().map(|s| &s.state);
    let on_its_way = states.clone().find(|s| matches!(s, ShotState::Sending { .. }));
    let first = on_its_way.or_else(|| states.clone().find(|s| !s.has_ended()));
    first.map_or("filing", ShotState::word).to_owned()
}
