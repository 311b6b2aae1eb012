//! Sends, limits and costs.
//!
//! The age of a send is counted by the time since boot where it was sent in this boot, else by the wall
//! clock, so that setting the wall clock neither frees nor locks a limit. A send that lies in the future (the
//! clock was wrong before a restart) counts as sent just now, and from the next attempt to send on it ages
//! like one that was.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Fault;
use super::rows::{IN_FLIGHT, billed_word, span};
use crate::domain::ids::{DropId, ShotNo};
use crate::domain::verdict::Billed;
use crate::ledger::{Limits, Moment, Older, Sent, Sum, Usage};

const HOUR: i64 = 60 * 60 * 1000;
pub(super) const DAY: i64 = 24 * HOUR;
const MONTH: i64 = 30 * DAY;
/// How long [`Older`] is good for.
const GOOD_FOR: i64 = 60 * 1000;

/// [`Moment`] as it is compared. `boot` is `None` where it is not known: nothing equals it.
struct Now<'a> {
    wall: i64,
    boot: Option<&'a str>,
    since: i64,
}

impl<'a> Now<'a> {
    fn of(now: &'a Moment) -> Self {
        let boot = Some(now.boot.as_str()).filter(|boot| !boot.is_empty());
        Self { wall: now.wall.as_millisecond(), boot, since: span(now.since_boot) }
    }
}

// Each of these has one part for sends of this boot and one for others, so that each part is one range of an
// index. ?1 is the boot, ?2 and ?3 are moments by its clock and by the wall clock. COUNT stops at ?4.
pub(super) const COUNT: &str = "
    SELECT (SELECT count(*) FROM (SELECT 1 FROM sends WHERE boot = ?1 AND since_boot > ?2 LIMIT ?4))
         + (SELECT count(*) FROM (SELECT 1 FROM sends WHERE at > ?3 AND boot IS NOT ?1 LIMIT ?4))";
pub(super) const AGE_OF_NTH: &str = "
    SELECT ?4 - since_boot AS age FROM sends WHERE boot = ?1 AND since_boot > ?2
    UNION ALL
    SELECT ?5 - at AS age FROM sends WHERE at > ?3 AND boot IS NOT ?1
    ORDER BY age LIMIT 1 OFFSET ?6";
pub(super) const SUM: &str = "
    SELECT count(*), total(cost), count(*) FILTER (WHERE cost IS NULL AND billed <> 'in_flight') FROM (
        SELECT billed, cost FROM sends WHERE boot = ?1 AND since_boot > ?2 AND since_boot <= ?4
        UNION ALL
        SELECT billed, cost FROM sends WHERE at > ?3 AND at <= ?5 AND boot IS NOT ?1)";
pub(super) const FUTURE_HERE: &str = "UPDATE sends SET since_boot = ?2 WHERE boot = ?1 AND since_boot > ?2";
pub(super) const FUTURE_ELSEWHERE: &str =
    "UPDATE sends SET at = ?3, boot = coalesce(?1, ''), since_boot = ?2 WHERE at > ?3 AND boot IS NOT ?1";
pub(super) const LAST_COST: &str = "SELECT cost FROM sends WHERE cost IS NOT NULL ORDER BY row DESC LIMIT 1";

/// Whether one more send fits; else for how long none does, by the limit that holds longest.
pub(super) fn fits(tx: &Connection, limits: Limits, now: &Moment) -> Result<Sent, Fault> {
    let now = Now::of(now);
    // First, so that no age is below zero.
    tx.prepare_cached(FUTURE_HERE)?.execute(params![now.boot, now.since])?;
    tx.prepare_cached(FUTURE_ELSEWHERE)?.execute(params![now.boot, now.since, now.wall])?;
    let mut answer = Sent::Committed;
    for (limit, window, which) in [(limits.per_hour, HOUR, "images_per_hour"), (limits.per_day, DAY, "images_per_day")]
    {
        if limit == 0 {
            continue;
        }
        let from = (now.since.saturating_sub(window), now.wall.saturating_sub(window));
        let sent: i64 = tx.prepare_cached(COUNT)?.query_row(params![now.boot, from.0, from.1, limit], |r| r.get(0))?;
        if sent < i64::from(limit) {
            continue;
        }
        // When the youngest but `limit - 1` is too old to count, fewer than `limit` are left.
        let age: i64 = tx
            .prepare_cached(AGE_OF_NTH)?
            .query_row(params![now.boot, from.0, from.1, now.since, now.wall, limit - 1], |r| r.get(0))?;
        let wait = Duration::from_millis(u64::try_from(window - age).unwrap_or_default());
        if !matches!(answer, Sent::Limited { wait: longer, .. } if longer >= wait) {
            answer = Sent::Limited { wait, which };
        }
    }
    Ok(answer)
}

/// A send goes out now.
pub(super) fn record(tx: &Connection, id: DropId, shot: ShotNo, now: &Moment) -> Result<(), Fault> {
    tx.prepare_cached("INSERT INTO sends (id, shot, at, boot, since_boot, billed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![id.0, shot.0, now.wall.as_millisecond(), now.boot, span(now.since_boot), IN_FLIGHT])?;
    Ok(())
}

pub(super) const LAST_OF_SHOT: &str =
    "SELECT row, billed FROM sends WHERE id = ?1 AND shot = ?2 ORDER BY row DESC LIMIT 1";

/// What is known now of the last send of a shot.
pub(super) fn judge(tx: &Connection, id: DropId, shot: ShotNo, billed: Billed, cost: Option<f64>) -> Result<(), Fault> {
    let last: Option<(i64, String)> =
        tx.prepare_cached(LAST_OF_SHOT)?.query_row(params![id.0, shot.0], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
    // Without one it was given back before, or is too old to matter.
    let Some((row, was)) = last else { return Ok(()) };
    match billed_word(billed) {
        // Only one whose answer was not judged before: else this is about a later send, already given back.
        None if was == IN_FLIGHT => {
            tx.prepare_cached("DELETE FROM sends WHERE row = ?1")?.execute([row])?;
        }
        None => {}
        Some(word) => {
            // What is surely billed stays so. What would change nothing writes nothing: two indexes hold these.
            tx.prepare_cached(
                "UPDATE sends SET billed = CASE billed WHEN 'yes' THEN billed ELSE ?2 END, cost = coalesce(?3, cost)
                 WHERE row = ?1 AND (billed NOT IN ('yes', ?2) OR ?3 IS NOT NULL AND cost IS NOT ?3)",
            )?
            .execute(params![row, word, cost])?;
        }
    }
    Ok(())
}

pub(super) fn usage(tx: &Connection, moment: &Moment, older: Option<Older>) -> Result<Usage, Fault> {
    let now = Now::of(moment);
    // Ages from `to` on, below `from`. What lies in the future counts as sent just now.
    let sum = |from: i64, to: i64| -> Result<Sum, Fault> {
        let from = (now.since.saturating_sub(from), now.wall.saturating_sub(from));
        let to =
            if to == 0 { (i64::MAX, i64::MAX) } else { (now.since.saturating_sub(to), now.wall.saturating_sub(to)) };
        let mut sum = tx.prepare_cached(SUM)?;
        Ok(sum.query_row(params![now.boot, from.0, from.1, to.0, to.1], |r| {
            let count = |at| r.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok(Sum { images: count(0)?, cost: r.get(1)?, unpriced: count(2)? })
        })?)
    };
    // The further one of both clocks, so that one which was set makes it no good.
    let since = |older: &Older| {
        let then = Now::of(&older.at);
        let (boot, wall) = (now.since - then.since, now.wall - then.wall);
        (now.boot == then.boot && boot.min(wall) >= 0).then_some(boot.max(wall))
    };
    let good = older.and_then(|older| Some((since(&older).filter(|since| *since < GOOD_FOR)?, older)));
    let (since, older) = match good {
        Some(good) => good,
        None => (0, Older { at: moment.clone(), sum: sum(MONTH, DAY)? }),
    };
    let newer = sum(DAY.saturating_add(since), 0)?;
    let month = Sum {
        images: older.sum.images + newer.images,
        cost: older.sum.cost + newer.cost,
        unpriced: older.sum.unpriced + newer.unpriced,
    };
    Ok(Usage { hour: sum(HOUR, 0)?, day: sum(DAY, 0)?, month, older: Some(older) })
}

pub(super) fn last_cost(tx: &Connection) -> Result<Option<f64>, Fault> {
    Ok(tx.prepare_cached(LAST_COST)?.query_row([], |r| r.get(0)).optional()?)
}
