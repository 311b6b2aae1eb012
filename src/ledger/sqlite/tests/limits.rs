//! Limits and money at their edges, and under clocks that jump.

use super::*;
use crate::domain::verdict::Receipt;
use crate::ledger::Sum;

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// What it shows, moments of sends, limits of the hour and the day, now, what one more send gets.
type Case = (&'static str, Vec<Moment>, (u32, u32), Moment, Sent);

/// A ledger with one drop of many shots, of which the first `moments` were sent.
fn sent(room: &Room, moments: &[Moment]) -> SqliteLedger {
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 60), None, NONE, &moments[0]).unwrap();
    for (no, now) in moments.iter().enumerate() {
        assert_eq!(send(&mut ledger, u32::try_from(no).unwrap(), NONE, now), Sent::Committed);
    }
    ledger
}

fn send(ledger: &mut SqliteLedger, no: u32, limits: Limits, now: &Moment) -> Sent {
    let shot = after(ledger, id(1), no, ShotEvent::Send { at: now.wall });
    ledger.send(id(1), &shot, limits, now).unwrap()
}

fn limited(seconds: i64, which: &'static str) -> Sent {
    Sent::Limited { wait: Duration::from_secs(seconds.unsigned_abs()), which }
}

#[test]
fn a_limit_opens_when_enough_of_the_oldest_are_too_old() {
    let (per_hour, per_day) = ("images_per_hour", "images_per_day");
    let minutes = |list: &[i64]| list.iter().map(|m| at(m * MINUTE)).collect::<Vec<_>>();
    let ok = Sent::Committed;
    let jump = DAY * 400;
    let cases: &[Case] = &[
        ("room left", minutes(&[0, 1]), (3, 0), at(2 * MINUTE), ok),
        ("full", minutes(&[0, 1, 2]), (3, 0), at(2 * MINUTE), limited(58 * MINUTE, per_hour)),
        ("one second before", minutes(&[0, 1, 2]), (3, 0), at(HOUR - 1), limited(1, per_hour)),
        ("at the edge", minutes(&[0, 1, 2]), (3, 0), at(HOUR), ok),
        ("a limit that was lowered", minutes(&[0, 1, 2]), (1, 0), at(2 * MINUTE), limited(HOUR, per_hour)),
        ("the day", minutes(&[0, 1]), (0, 2), at(2 * HOUR), limited(22 * HOUR, per_day)),
        ("the day at its edge", minutes(&[0, 1]), (0, 2), at(DAY), ok),
        ("both, the longer wait", minutes(&[0, 1]), (2, 2), at(MINUTE), limited(DAY - MINUTE, per_day)),
        ("both, only the hour", minutes(&[0, 1]), (2, 3), at(MINUTE), limited(59 * MINUTE, per_hour)),
        ("no limit", minutes(&[0, 1, 2]), (0, 0), at(2 * MINUTE), ok),
        ("set forward in one boot", vec![at(0)], (1, 0), by(jump, "boot-1", 10), limited(HOUR - 10, per_hour)),
        ("set back in one boot", vec![at(0)], (1, 0), by(-jump, "boot-1", 10), limited(HOUR - 10, per_hour)),
        ("set back, and old", vec![at(0)], (1, 0), by(-jump, "boot-1", HOUR), ok),
        ("after a restart", vec![at(0)], (1, 0), by(HOUR - 1, "boot-2", -500), limited(1, per_hour)),
        ("old after a restart", vec![at(0)], (1, 0), by(HOUR, "boot-2", -500), ok),
        ("in the future after a restart", vec![at(0)], (1, 0), by(-jump, "boot-2", 0), limited(HOUR, per_hour)),
        ("ahead of this boot's clock", vec![at(90)], (1, 0), by(90, "boot-1", 0), limited(HOUR, per_hour)),
        ("no boot known", vec![by(0, "", 5)], (1, 0), by(30, "", 900_000), limited(HOUR - 30, per_hour)),
        ("boot known since", vec![by(0, "", 5)], (1, 0), by(30, "boot-1", 5), limited(HOUR - 30, per_hour)),
        (
            "two boots together",
            vec![by(0, "boot-0", 70), by(MINUTE, "boot-1", 0)],
            (2, 0),
            by(2 * MINUTE, "boot-1", MINUTE),
            limited(58 * MINUTE, per_hour),
        ),
    ];
    for (what, moments, (per_hour, per_day), now, expected) in cases {
        let room = Room::new();
        let mut ledger = sent(&room, moments);
        let next = u32::try_from(moments.len()).unwrap();
        let limits = Limits { per_hour: *per_hour, per_day: *per_day };
        let before = ledger.open_drops().unwrap();
        let mut two = a_drop(2, 1);
        two.continues = Some(id(8));
        assert_eq!(send(&mut ledger, next, limits, now), *expected, "{what}");
        if *expected != Sent::Committed {
            assert_eq!(ledger.begin(&two, Some(ShotNo(0)), limits, now).unwrap(), *expected, "{what}: begin");
            assert_eq!(ledger.open_drops().unwrap(), before, "{what}: nothing is written");
            assert_eq!(ledger.begin(&two, None, limits, now).unwrap(), Sent::Committed, "{what}: no send, no limit");
        }
    }
}

#[test]
fn a_send_from_a_wrong_future_locks_no_longer_than_a_real_one() {
    let room = Room::new();
    let one = Limits { per_hour: 1, per_day: 0 };
    let mut ledger = sent(&room, &[by(400 * DAY, "boot-1", 0)]);
    assert_eq!(send(&mut ledger, 1, one, &by(0, "boot-2", 0)), limited(HOUR, "images_per_hour"));
    assert_eq!(send(&mut ledger, 1, one, &by(HOUR - 1, "boot-2", HOUR - 1)), limited(1, "images_per_hour"));
    assert_eq!(send(&mut ledger, 1, one, &by(HOUR, "boot-2", HOUR)), Sent::Committed);
}

fn settle(ledger: &mut SqliteLedger, no: u32, event: ShotEvent, billed: Billed, cost: Option<f64>) {
    let mut shot = after(ledger, id(1), no, event);
    shot.receipt = Receipt { cost, ..Receipt::default() };
    ledger.step(id(1), &shot, billed).unwrap();
}

fn back() -> ShotEvent {
    ShotEvent::GiveBack { not_before: None, counts: true }
}

fn lose(again: bool) -> ShotEvent {
    ShotEvent::Lose { reason: "cut".into(), again }
}

fn link() -> ShotEvent {
    ShotEvent::Link { url: "u".into(), at: wall_at(0) }
}

fn day(ledger: &mut SqliteLedger, now: i64) -> Sum {
    ledger.usage(&at(now)).unwrap().day
}

#[test]
fn what_surely_was_not_billed_is_given_back_and_the_rest_counts() {
    let room = Room::new();
    let mut ledger = sent(&room, &[at(0), at(0), at(0), at(0)]);
    assert_eq!(day(&mut ledger, 0), Sum { images: 4, cost: 0.0, unpriced: 0 }, "on their way: not unpriced yet");
    settle(&mut ledger, 0, back(), Billed::No, Some(9.0));
    assert_eq!(day(&mut ledger, 0), Sum { images: 3, cost: 0.0, unpriced: 0 });
    settle(&mut ledger, 1, link(), Billed::Yes, Some(0.5));
    settle(&mut ledger, 2, link(), Billed::Yes, None);
    settle(&mut ledger, 3, lose(false), Billed::Unknown, None);
    assert_eq!(day(&mut ledger, 0), Sum { images: 3, cost: 0.5, unpriced: 2 });
    // A later step without a price takes none away.
    settle(&mut ledger, 1, ShotEvent::Fail { reason: "gone".into(), billed: Billed::Yes }, Billed::Yes, None);
    assert_eq!(day(&mut ledger, 0), Sum { images: 3, cost: 0.5, unpriced: 2 });
    assert_eq!(ledger.last_cost().unwrap(), Some(0.5));
}

#[test]
fn an_unconfirmed_send_is_never_given_back_by_a_later_refusal() {
    let room = Room::new();
    let mut ledger = sent(&room, &[at(0)]);
    // Even if the caller says that it was free, because the shot is due again.
    settle(&mut ledger, 0, lose(true), Billed::No, None);
    assert_eq!(day(&mut ledger, 0), Sum { images: 1, cost: 0.0, unpriced: 1 });
    assert_eq!(send(&mut ledger, 0, NONE, &at(1)), Sent::Committed);
    settle(&mut ledger, 0, back(), Billed::No, None);
    settle(&mut ledger, 0, ShotEvent::Fail { reason: "bad".into(), billed: Billed::No }, Billed::No, None);
    assert_eq!(day(&mut ledger, 1), Sum { images: 1, cost: 0.0, unpriced: 1 });
}

#[test]
fn usage_tells_the_hour_from_the_day_under_any_clock() {
    let room = Room::new();
    let mut ledger = sent(&room, &[at(0), at(HOUR)]);
    settle(&mut ledger, 0, link(), Billed::Yes, Some(1.0));
    settle(&mut ledger, 1, link(), Billed::Yes, Some(2.0));
    for wall in [HOUR + 1, 90 * DAY, -90 * DAY] {
        let usage = ledger.usage(&by(wall, "boot-1", HOUR + 1)).unwrap();
        assert_eq!((usage.hour.images, usage.hour.cost, usage.day.images), (1, 2.0, 2), "wall {wall}");
        assert!((usage.day.cost - 3.0).abs() < 1e-9);
    }
    assert_eq!(ledger.last_cost().unwrap(), Some(2.0));
    for (now, hour, day, month) in
        [(DAY + HOUR, 0, 0, 2), (30 * DAY - 1, 0, 0, 2), (30 * DAY, 0, 0, 1), (30 * DAY + HOUR, 0, 0, 0)]
    {
        let usage = ledger.usage(&at(now)).unwrap();
        assert_eq!([usage.hour, usage.day, usage.month].map(|sum| sum.images), [hour, day, month], "{now}");
    }
    assert!((ledger.usage(&at(DAY + HOUR)).unwrap().month.cost - 3.0).abs() < 1e-9);
}

#[test]
fn who_asks_often_is_told_the_same_with_less_work() {
    let room = Room::new();
    let mut ledger = sent(&room, &[at(0), at(DAY - 10), at(DAY)]);
    let start = ledger.usage(&at(DAY)).unwrap();
    assert_eq!((start.day.images, start.month.images), (2, 3));
    // One crosses the day's end meanwhile, and is counted once all the same.
    let (soon, later) = (at(2 * DAY - 20), at(2 * DAY + 25));
    let before = ledger.usage(&soon).unwrap();
    let next = ledger.usage_after(&later, before.older.clone()).unwrap();
    assert_eq!((next.day.images, next.month.images), (0, 3));
    assert_eq!(next.older, before.older, "the old ones were not counted again");
    // After a minute, in another boot or after a jump of the clock they are.
    let back = by(2 * DAY - 50, "boot-1", 2 * DAY + 25);
    for now in [at(2 * DAY + 41), by(2 * DAY + 25, "boot-2", 2 * DAY + 25), by(9 * DAY, "boot-1", 2 * DAY), back] {
        let usage = ledger.usage_after(&now, before.older.clone()).unwrap();
        assert_eq!(usage.older.unwrap().at, now);
        assert_eq!(usage.month.images, 3);
    }
}

#[test]
fn tidy_never_frees_a_limit_whatever_the_wall_clock_says() {
    let room = Room::new();
    let one = Limits { per_hour: 0, per_day: 1 };
    let mut ledger = sent(&room, &[at(-2 * DAY), at(0)]);
    ledger.tidy(Duration::ZERO, wall_at(400 * DAY)).unwrap();
    assert_eq!(send(&mut ledger, 2, one, &by(400 * DAY, "boot-1", 60)), limited(DAY - 60, "images_per_day"));
    let left: i64 = ledger.conn.query_row("SELECT count(*) FROM sends", [], |r| r.get(0)).unwrap();
    assert_eq!(left, 1, "the old one is gone");
    // Without a boot the wall clock is all there is; a day is kept at least.
    let room = Room::new();
    let mut ledger = sent(&room, &[by(0, "", 0)]);
    ledger.tidy(Duration::ZERO, wall_at(DAY)).unwrap();
    assert_eq!(send(&mut ledger, 1, one, &by(DAY - 1, "", 0)), limited(1, "images_per_day"));
    ledger.tidy(Duration::ZERO, wall_at(DAY + 1)).unwrap();
    assert_eq!(ledger.conn.query_row("SELECT count(*) FROM sends", [], |r| r.get::<_, i64>(0)).unwrap(), 0);
}
