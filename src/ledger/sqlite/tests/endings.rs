//! The log beside the database: what a crash leaves, and what damage does to it.

use super::*;

/// Drops as they are known, for comparing.
fn known(ledger: &mut SqliteLedger) -> Vec<(DropId, Vec<Shot>)> {
    ledger.open_drops().unwrap().into_iter().map(|open| (open.drop.id, open.drop.shots)).collect()
}

/// A ledger in which much happened, and some after its log began anew, still open.
fn busy(room: &Room) -> SqliteLedger {
    let mut ledger = room.open();
    ledger.trust().unwrap();
    for n in 0..4 {
        failed(&mut ledger, &a_drop(n, 2), 0);
    }
    ledger.conn.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
    for n in 6..9 {
        ledger.begin(&a_drop(n, 1), Some(ShotNo(0)), NONE, &at(1)).unwrap();
    }
    ledger
}

/// Whether it is trusted, and what it knows.
type Found = (bool, Vec<(DropId, Vec<Shot>)>);

/// Opens what is left: `None` where it is damaged.
fn opened(room: &Room) -> Option<Found> {
    match SqliteLedger::open(&room.path()) {
        Ok(mut ledger) => Some((!ledger.is_fresh().unwrap(), known(&mut ledger))),
        Err(LedgerError::Damaged { .. }) => None,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_crash_at_any_moment_leaves_nothing_to_doubt() {
    let room = Room::new();
    let mut ledger = busy(&room);
    for n in 10..14 {
        let truth = known(&mut ledger);
        assert_eq!(opened(&room.as_after_a_crash()), Some((true, truth)), "before {n}");
        ledger.begin(&a_drop(n, 3), Some(ShotNo(1)), NONE, &at(2)).unwrap();
    }
    // In the midst of a transaction that is larger than what is kept in memory.
    let truth = known(&mut ledger);
    let tx = ledger.conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    tx.execute("UPDATE drops SET plan = ?1", ["x".repeat(100_000)]).unwrap();
    assert_eq!(opened(&room.as_after_a_crash()).map(|(_, found)| found), Some(truth));
}

#[test]
fn whatever_becomes_of_its_log_no_commit_is_missing_without_a_word() {
    let room = Room::new();
    let mut ledger = busy(&room);
    let truth = known(&mut ledger);
    let crashed = room.as_after_a_crash();
    let log = crashed.dir.path().join("ledger.db-wal");
    let whole = std::fs::read(&log).unwrap();
    let (frame, before) = (24 + 4_096, crashed.as_after_a_crash());
    assert!(whole.len() > 32 + 40 * frame, "{}", whole.len());
    let mut places: Vec<usize> = vec![0, 8, 16, 24];
    for (n, at) in (32..whole.len()).step_by(frame).take(40).enumerate() {
        places.extend([at + [0, 4, 8, 16, 20][n % 5], at + [24, 2_000, frame - 4][n % 3]]);
    }
    let (mut damaged, mut doubted) = (0, 0);
    for (n, place) in places.into_iter().enumerate() {
        let mut bytes = whole.clone();
        let end = (place + 4).min(bytes.len());
        bytes[place..end].fill([0xa5, 0][n % 2]);
        let room = before.as_after_a_crash();
        std::fs::write(room.dir.path().join("ledger.db-wal"), &bytes).unwrap();
        match opened(&room) {
            None => damaged += 1,
            Some((true, found)) => assert_eq!(found, truth, "at {place}"),
            Some((false, _)) => doubted += 1,
        }
    }
    assert!(damaged > 9 && doubted > 0, "{damaged} {doubted}");
}

#[test]
fn a_log_that_is_gone_or_cut_is_missed() {
    let room = Room::new();
    let ledger = busy(&room);
    let crashed = room.as_after_a_crash();
    drop(ledger);
    let whole = std::fs::read(crashed.dir.path().join("ledger.db-wal")).unwrap();
    for kept in [None, Some(0), Some(32 + 5 * 4_120 + 100)] {
        let room = crashed.as_after_a_crash();
        let log = room.dir.path().join("ledger.db-wal");
        std::fs::remove_file(&log).unwrap();
        if let Some(kept) = kept {
            std::fs::write(&log, &whole[..kept]).unwrap();
        }
        let mut ledger = room.open();
        assert!(ledger.is_fresh().unwrap(), "{kept:?}");
        ledger.trust().unwrap();
        // The doubt comes once.
        let after = room.as_after_a_crash();
        drop(ledger);
        assert!(opened(&after).unwrap().0 && opened(&room).unwrap().0, "{kept:?}");
    }
}

#[test]
fn what_was_closed_well_needs_no_log() {
    let room = Room::new();
    let mut first = busy(&room);
    let second = room.open();
    let truth = known(&mut first);
    drop(first);
    assert_eq!(
        room.names(),
        ["ledger.db", "ledger.db-count", "ledger.db-shm", "ledger.db-wal"],
        "somebody else has it open"
    );
    drop(second);
    assert_eq!(room.names(), ["ledger.db", "ledger.db-count"]);
    assert_eq!(opened(&room), Some((true, truth)));
}

#[test]
fn a_kill_in_the_midst_of_a_commit_casts_no_doubt_if_all_sends_are_known() {
    for vouched in [true, false] {
        let room = Room::new();
        let mut ledger = room.open();
        ledger.trust().unwrap();
        ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
        let after = room.as_after_a_crash();
        let log = after.dir.path().join("ledger.db-wal");
        // A frame's head without its page.
        let bytes = std::fs::read(&log).unwrap();
        std::fs::write(&log, [&bytes[..], &bytes[32..56]].concat()).unwrap();
        if !vouched {
            std::fs::remove_file(after.dir.path().join("ledger.db-count")).unwrap();
        }
        let mut again = after.open();
        assert_eq!(again.is_fresh().unwrap(), !vouched);
        assert_eq!(again.open_drops().unwrap().len(), 1);
    }
}

#[test]
fn two_kills_each_in_the_midst_of_a_commit_are_no_damage() {
    let log = |room: &Room| room.dir.path().join("ledger.db-wal");
    // The log goes on, or is begun anew with what the first kill tears.
    for anew in [false, true] {
        let room = Room::new();
        let mut ledger = room.open();
        ledger.trust().unwrap();
        ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
        if anew {
            ledger.conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        }
        let count = std::fs::read(room.dir.path().join("ledger.db-count")).unwrap();
        let before = std::fs::read(log(&room)).unwrap();
        ledger.begin(&a_drop(2, 1), None, NONE, &at(1)).unwrap();
        let first = room.as_after_a_crash();
        let mut bytes = std::fs::read(log(&first)).unwrap();
        // Of its several frames the last page is lost, not the head that says that it ends a commit.
        let last = *written(&before, &bytes).last().unwrap();
        bytes[last..last + 4096].fill(0x55);
        std::fs::write(log(&first), bytes).unwrap();
        std::fs::write(first.dir.path().join("ledger.db-count"), count).unwrap();

        let mut ledger = first.open();
        assert!(!ledger.is_fresh().unwrap(), "all sends are known");
        assert_eq!(ledger.open_drops().unwrap().len(), 1);
        let before = std::fs::read(log(&first)).unwrap();
        ledger.uploaded(print("one"), "u", wall_at(2)).unwrap();
        let second = first.as_after_a_crash();
        let mut bytes = std::fs::read(log(&second)).unwrap();
        // Every page that was written since is lost, and every head stands.
        for at in written(&before, &bytes) {
            bytes[at..at + 4096].fill(0x55);
        }
        std::fs::write(log(&second), bytes).unwrap();

        let mut ledger = second.open();
        assert!(!ledger.is_fresh().unwrap(), "all sends are known, anew: {anew}");
        assert_eq!(ledger.open_drops().unwrap().len(), 1);
    }
}

/// Where the pages of a log lie that are others than before; there are some.
fn written(before: &[u8], now: &[u8]) -> Vec<usize> {
    let pages = (32 + 24..now.len().saturating_sub(4095)).step_by(24 + 4096);
    let written: Vec<usize> =
        pages.filter(|at| before.get(at - 24..at + 4096) != now.get(at - 24..at + 4096)).collect();
    assert!(!written.is_empty());
    written
}
