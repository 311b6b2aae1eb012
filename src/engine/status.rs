//! What the engine is doing, for whoever watches.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::arrivals::Reason;
use crate::domain::ids::Mono;
use crate::domain::life::ShotState;
use crate::domain::status::{
    BrokenPreset, Failure, Folders, MAX_BROKEN, MAX_FAILURES, MAX_LISTED, Paused, Spend, State, Status, Waiting, Work,
};
use crate::inbox::Backend;
use crate::ledger::{self, Sum, Usage};

use super::Engine;
use super::ctx::Ctx;
use super::event::Event;

/// A change is published this long after it, so that many changes are one.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// The least time between two publications.
const SELDOM: Duration = Duration::from_millis(500);

/// Figures that others gave.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub credits: Option<f64>,
    pub usage: Usage,
    pub failed: u64,
    pub failures: Vec<ledger::Failure>,
}

/// The status while the inbox is not there yet; whether it changed.
pub(super) fn lost(status: &mut Status, text: &str, since: Timestamp) -> bool {
    let changed = status.paused.as_ref().is_none_or(|p| p.reason != text);
    status.state = State::Paused;
    status.paused = Some(Paused { reason: text.to_owned(), since, until: None });
    status.version = env!("CARGO_PKG_VERSION").into();
    status.pid = Some(std::process::id());
    status.updated = Some(Timestamp::now());
    changed
}

fn spend(sum: &Sum) -> Spend {
    Spend { images: sum.images, cost: sum.cost, unpriced: sum.unpriced }
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
        if let Ok((usage, failed, failures)) = figures(&self.ctx).await {
            self.figures = Figures { credits: self.figures.credits, usage, failed, failures };
        }
    }

    /// Asks for the figures when they may have changed, and publishes what changed.
    pub(super) fn refresh_status(&mut self, now: Mono) {
        if self.usage_wanted && now >= self.next_usage {
            self.usage_wanted = false;
            self.next_usage = now + SELDOM;
            let ctx = self.ctx.clone();
            self.spawn(async move {
                if let Ok((usage, failed, failures)) = figures(&ctx).await {
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
        if let Some((why, since)) = &self.inbox_lost {
            return Some(Paused { reason: why.clone(), since: *since, until: None });
        }
        if let Some(trouble) = &self.trouble {
            return Some(Paused { reason: trouble.text.clone(), since: trouble.since, until: None });
        }
        if let Some((id, (why, _))) = self.blocked.iter().next() {
            let since = self.works.get(id).map_or(wall, |w| w.since);
            return Some(Paused {
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
        Some(Paused { reason, since: pause.since, until: pause.until.and_then(later) })
    }

    pub(super) fn publish_status(&mut self, ended: bool) {
        let paused = self.pause();
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
        let counts = self.arrivals.counts(queued);
        let waiting_for = self.arrivals.waiting_for_something(MAX_LISTED).into_iter().map(|found| Waiting {
            drop: found.place.to_string(),
            reason: found.detail.unwrap_or_else(|| found.reason.label().to_owned()),
        });
        let mut work: Vec<Work> =
            self.works.values().map(|w| Work { drop: w.place.to_string(), state: word(w), since: w.since }).collect();
        work.sort_by_key(|w| w.since);
        work.truncate(MAX_LISTED);
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
            failed: self.figures.failed,
            last_failures: self
                .figures
                .failures
                .iter()
                .map(|f| Failure { drop: f.label.clone(), reason: f.reason.clone(), at: f.at })
                .collect(),
            last_24h: spend(&self.figures.usage.day),
            last_hour: spend(&self.figures.usage.hour),
            credits: self.figures.credits,
            ignored: self.arrivals.ignored_count() as u64,
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
async fn figures(ctx: &Ctx) -> Result<(Usage, u64, Vec<ledger::Failure>), ledger::LedgerError> {
    let moment = ctx.clock.moment();
    ctx.record(move |l| {
        let usage = l.usage(&moment)?;
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
