//! Steps that share one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

fn begun(room: &Room) -> Vec<DropId> {
    room.open().open_drops().unwrap().iter().map(|open| open.drop.id).collect()
}

#[test]
fn nothing_is_on_the_disk_before_the_flush_and_all_of_it_after() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.trust().unwrap();
    ledger.hold();
    for n in 1..=3 {
        assert_eq!(ledger.begin(&a_drop(n, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap(), Sent::Committed);
    }
    assert_eq!(ledger.open_drops().unwrap().len(), 3, "seen by those who share it");
    assert_eq!(begun(&room.as_after_a_crash()), []);
    ledger.flush().unwrap();
    assert_eq!(begun(&room.as_after_a_crash()), [id(1), id(2), id(3)]);
    // From here on each is durable by itself again.
    ledger.close(id(1), Ending::Returned, None, wall_at(1)).unwrap();
    assert_eq!(begun(&room.as_after_a_crash()), [id(2), id(3)]);
}

#[test]
fn one_that_fails_touches_none_of_the_others() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.hold();
    ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap();
    let again = ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap_err();
    assert!(matches!(again, LedgerError::Misused { .. }), "{again}");
    // Half of it is written when this one fails: its second shot is there already.
    let mut twice = a_drop(2, 1);
    twice.shots.push(twice.shots[0].clone());
    assert!(matches!(ledger.begin(&twice, None, NONE, &at(0)), Err(LedgerError::Misused { .. })));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _: Result<(), LedgerError> = ledger.write(|tx| {
            tx.execute("DELETE FROM drops", [])?;
            panic!("on purpose")
        });
    }));
    assert!(panicked.is_err());
    ledger.begin(&a_drop(3, 1), None, NONE, &at(0)).unwrap();
    ledger.flush().unwrap();
    drop(ledger);
    assert_eq!(begun(&room), [id(1), id(3)]);
}

#[test]
fn limits_count_what_shares_the_commit() {
    let room = Room::new();
    let mut ledger = room.open();
    let two = Limits { per_hour: 2, per_day: 0 };
    ledger.hold();
    let sent: Vec<_> = (1..=3)
        .map(|n| ledger.begin(&a_drop(n, 1), Some(ShotNo(0)), two, &at(0)).unwrap() == Sent::Committed)
        .collect();
    ledger.flush().unwrap();
    assert_eq!(sent, [true, true, false]);
    assert_eq!(ledger.usage(&at(0)).unwrap().hour.images, 2);
}

#[test]
fn where_the_disk_does_not_take_it_nothing_was_recorded_and_the_next_begins_afresh() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.trust().unwrap();
    let pages: i64 = ledger.conn.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    ledger.conn.pragma_update(None, "max_page_count", pages + 2).unwrap();
    ledger.hold();
    let mut told = Vec::new();
    for n in 1..=60 {
        let large = NewDrop { plan: "x".repeat(4000), ..a_drop(n, 1) };
        told.push(ledger.begin(&large, Some(ShotNo(0)), NONE, &at(0)).is_ok());
    }
    assert!(told[0] && !told[59], "{told:?}");
    let kept = ledger.flush();
    let count = begun(&room.as_after_a_crash()).len();
    match kept {
        // The database undid the one that did not fit, and kept the others.
        Ok(()) => assert_eq!(count, told.iter().filter(|ok| **ok).count()),
        Err(e) => {
            assert!(matches!(e, LedgerError::Io { .. }), "{e}");
            assert_eq!(count, 0);
        }
    }
    ledger.conn.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    ledger.begin(&a_drop(99, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    assert_eq!(begun(&room.as_after_a_crash()).len(), count + 1);
}

#[test]
fn a_transaction_that_the_database_gave_up_is_told_to_all_who_shared_it() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.hold();
    ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap();
    ledger.conn.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(ledger.begin(&a_drop(2, 1), None, NONE, &at(0)), Err(LedgerError::Io { .. })));
    assert!(matches!(ledger.flush(), Err(LedgerError::Io { .. })));
    ledger.hold();
    ledger.begin(&a_drop(3, 1), None, NONE, &at(0)).unwrap();
    ledger.flush().unwrap();
    drop(ledger);
    assert_eq!(begun(&room), [id(3)]);
}

#[test]
fn a_count_of_sends_is_noted_once_they_are_on_the_disk() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.trust().unwrap();
    let noted = || std::fs::read_to_string(room.dir.path().join("ledger.db-count")).unwrap().trim().to_owned();
    ledger.hold();
    for n in 1..=3 {
        ledger.begin(&a_drop(n, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    }
    assert_eq!(noted(), "0");
    ledger.flush().unwrap();
    assert_eq!(noted(), "3");
}
