//! The file: made, refused, put aside, shared.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn damaged(room: &Room) -> String {
    match SqliteLedger::open(&room.path()) {
        Err(LedgerError::Damaged { why, path }) => {
            assert_eq!(path, room.path());
            why
        }
        other => panic!("{other:?}"),
    }
}

/// Every file of the room with its bytes.
fn bytes(room: &Room) -> Vec<(String, Vec<u8>)> {
    room.names().into_iter().map(|n| (n.clone(), std::fs::read(room.dir.path().join(n)).unwrap())).collect()
}

#[test]
fn only_the_owner_may_read_it() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    assert_eq!(room.names(), ["ledger.db", "ledger.db-count", "ledger.db-shm", "ledger.db-wal"]);
    for name in room.names() {
        assert_eq!(mode(&room.dir.path().join(&name)), 0o600, "{name}");
    }
    drop(ledger);
    std::fs::set_permissions(room.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(room.open());
    assert_eq!(mode(&room.path()), 0o600, "as one that came back from a backup");
}

#[test]
fn it_writes_as_promised() {
    let room = Room::new();
    let ledger = room.open();
    let number = |name| schema::pragma(&ledger.conn, name).unwrap();
    let mode: String = ledger.conn.pragma_query_value(None, "journal_mode", |r| r.get(0)).unwrap();
    assert_eq!(mode, "wal");
    for (name, value) in [
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("auto_vacuum", 2),
        ("cache_size", -512),
        ("temp_store", 2),
        ("journal_size_limit", 4 << 20),
        ("busy_timeout", 5_000),
        ("application_id", schema::APPLICATION),
        ("user_version", schema::KNOWN),
    ] {
        assert_eq!(number(name), value, "{name}");
    }
}

#[test]
fn an_empty_file_is_a_new_ledger() {
    let room = Room::new();
    std::fs::write(room.path(), "").unwrap();
    assert!(room.open().is_fresh().unwrap());
    // As it is when the program stopped after the first page and before the tables.
    let room = Room::new();
    let conn = Connection::open(room.path()).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(conn);
    assert!(std::fs::metadata(room.path()).unwrap().len() > 0);
    assert!(room.open().is_fresh().unwrap());
}

#[test]
fn a_newer_schema_is_refused_and_not_touched() {
    for with_log in [false, true] {
        let closed = Room::new();
        let mut ledger = closed.open();
        ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap();
        ledger.conn.pragma_update(None, "user_version", 99).unwrap();
        let crashed = closed.as_after_a_crash();
        drop(ledger);
        let room = if with_log { crashed } else { closed };
        let files = |room: &Room| bytes(room).into_iter().filter(|(n, _)| !n.ends_with("-shm")).collect::<Vec<_>>();
        let before = files(&room);
        assert_eq!(before.len(), if with_log { 3 } else { 2 });
        for _ in 0..2 {
            match SqliteLedger::open(&room.path()) {
                Err(LedgerError::Newer { found: 99, known, .. }) => assert_eq!(known, schema::KNOWN),
                other => panic!("{other:?}"),
            }
            assert!(files(&room) == before, "its bytes have changed");
        }
    }
}

#[test]
fn a_damaged_database_is_told_from_a_good_one_and_not_touched() {
    let good = Room::new();
    let mut ledger = good.open();
    for n in 0..50 {
        failed(&mut ledger, &a_drop(n, 1), 0);
    }
    drop(ledger);
    let whole = std::fs::read(good.path()).unwrap();
    let holed = |from: usize| {
        let mut bytes = whole.clone();
        bytes[from..from + 4_096].fill(0x5a);
        bytes
    };
    let half = whole.len() / 2;
    let variants: Vec<(&str, Vec<u8>)> = vec![
        ("one byte", vec![b'S']),
        ("the name alone", whole[..16].to_vec()),
        ("cut in the first page", whole[..1_000].to_vec()),
        ("cut at a page", whole[..half / 4_096 * 4_096].to_vec()),
        ("cut within a page", whole[..=half].to_vec()),
        (
            "text",
            b"this is not a database at all, only some words that go on and on, line after line, and end. ".repeat(9),
        ),
        ("zeroes", vec![0; whole.len()]),
        ("a page of garbage", holed(half / 4_096 * 4_096)),
        ("tables overwritten", holed(4_096)),
    ];
    for (what, bytes) in variants {
        let room = Room::new();
        std::fs::write(room.path(), &bytes).unwrap();
        damaged(&room);
        assert!(std::fs::read(room.path()).unwrap() == bytes, "{what}: its bytes have changed");
        let aside = SqliteLedger::set_aside(&room.path(), wall_at(0)).unwrap().unwrap();
        assert!(std::fs::read(aside).unwrap() == bytes, "{what}");
        assert!(room.open().is_fresh().unwrap(), "{what}: a new one");
    }
}

#[test]
fn no_page_of_an_index_can_hide_an_open_drop() {
    let good = Room::new();
    let mut ledger = good.open();
    ledger.trust().unwrap();
    for n in 0..40 {
        ledger.begin(&a_drop(n, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    }
    let ids = |ledger: &mut SqliteLedger| ledger.open_drops().unwrap().iter().map(|o| o.drop.id).collect::<Vec<_>>();
    let truth = ids(&mut ledger);
    drop(ledger);
    let whole = std::fs::read(good.path()).unwrap();
    let mut damaged_at = 0;
    for page in (4_096..whole.len()).step_by(4_096).filter(|at| matches!(whole[*at], 2 | 10)) {
        // The head, the list of what is in it, and the last thing in it.
        for (from, fill) in [(page, 0), (page + 3, 0), (page + 9, 0x5a), (page + 4_094, 0x5a)] {
            let room = Room::new();
            let mut bytes = whole.clone();
            bytes[from..from + 2].fill(fill);
            std::fs::write(room.path(), bytes).unwrap();
            match SqliteLedger::open(&room.path()) {
                Ok(mut ledger) => assert_eq!(ids(&mut ledger), truth, "{from}"),
                Err(LedgerError::Damaged { .. }) => damaged_at += 1,
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert!(damaged_at > 20, "{damaged_at}");
}

#[test]
fn another_programs_database_is_not_taken_over() {
    let room = Room::new();
    let conn = Connection::open(room.path()).unwrap();
    conn.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(conn);
    assert!(damaged(&room).contains("another program"), "no table of ours may be added");
    let conn = Connection::open(room.path()).unwrap();
    conn.pragma_update(None, "application_id", 7).unwrap();
    drop(conn);
    assert!(damaged(&room).contains("another program"));
}

#[test]
fn a_missing_table_and_a_row_that_makes_no_sense_are_damage() {
    let room = Room::new();
    let ledger = room.open();
    ledger.conn.execute_batch("DROP TABLE notes").unwrap();
    drop(ledger);
    assert!(damaged(&room).contains("notes"));
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap();
    ledger.conn.execute_batch("UPDATE shots SET shot = '{}'").unwrap();
    assert!(matches!(ledger.open_drops(), Err(LedgerError::Damaged { .. })));
}

#[test]
fn a_log_without_its_database_is_damage_not_a_new_ledger() {
    for empty in [true, false] {
        let room = Room::new();
        let log = room.dir.path().join("ledger.db-wal");
        std::fs::write(&log, "commits").unwrap();
        if empty {
            std::fs::write(room.path(), "").unwrap();
        }
        damaged(&room);
        assert_eq!(std::fs::read(&log).unwrap(), b"commits");
        SqliteLedger::set_aside(&room.path(), wall_at(0)).unwrap().unwrap();
        assert!(room.open().is_fresh().unwrap());
    }
}

#[test]
fn sends_that_were_lost_with_the_log_are_damage() {
    let log = "ledger.db-wal";
    let sent = || {
        let room = Room::new();
        let mut ledger = room.open();
        ledger.trust().unwrap();
        for n in 1..4 {
            ledger.begin(&a_drop(n, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
        }
        room.as_after_a_crash()
    };
    let whole = std::fs::read(sent().dir.path().join(log)).unwrap();
    let garbled = |from: usize| {
        let mut bytes = whole.clone();
        bytes[from..from + 40].fill(0x5a);
        bytes
    };
    let last = whole.len() - 4_096;
    let cut = |at: usize| whole[..at].to_vec();
    for (what, bytes) in [
        ("cut in its last frame", cut(last)),
        ("cut in the middle", cut(whole.len() / 2)),
        ("its header garbled", garbled(0)),
        ("garbled in the middle", garbled(whole.len() / 2)),
        ("its last frame garbled", garbled(last)),
    ] {
        let room = sent();
        // Each log goes with its own database.
        let own = std::fs::read(room.dir.path().join(log)).unwrap();
        let mut bytes = bytes;
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = if *byte == whole[at] { own[at] } else { !own[at] };
        }
        std::fs::write(room.dir.path().join(log), &bytes).unwrap();
        // A log without a good header may be all that there is of the tables.
        match SqliteLedger::open(&room.path()) {
            Err(LedgerError::Damaged { .. }) => {}
            Ok(mut ledger) => assert!(ledger.is_fresh().unwrap(), "{what}: it is believed"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let room = sent();
    assert_eq!(room.open().open_drops().unwrap().len(), 3, "nothing is wrong with it as it is");
}

#[test]
fn an_older_copy_is_damage_and_a_new_ledger_is_not() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.trust().unwrap();
    drop(ledger);
    let older = std::fs::read(room.path()).unwrap();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    drop(ledger);
    std::fs::write(room.path(), &older).unwrap();
    assert!(damaged(&room).contains("older copy"));
    for part in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(room.dir.path().join(part));
    }
    assert!(room.open().is_fresh().unwrap(), "a lost one is new");
    let mut ledger = room.open();
    ledger.trust().unwrap();
    drop(ledger);
    assert!(!room.open().is_fresh().unwrap(), "and stays good");
}

#[test]
fn nothing_is_recorded_in_a_file_that_was_moved_away() {
    for part in ["ledger.db", "ledger.db-wal"] {
        let room = Room::new();
        let mut ledger = room.open();
        ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
        let (there, away) = (room.dir.path().join(part), room.dir.path().join("away"));
        std::fs::rename(&there, &away).unwrap();
        let moved = |done| matches!(done, Err(LedgerError::Moved { path }) if path == there);
        assert!(moved(ledger.begin(&a_drop(2, 1), Some(ShotNo(0)), NONE, &at(0)).map(|_| ())), "{part}");
        std::fs::write(&there, "another").unwrap();
        assert!(moved(ledger.trust()), "{part}");
        std::fs::rename(&away, &there).unwrap();
        ledger.begin(&a_drop(2, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
        assert_eq!(ledger.open_drops().unwrap().len(), 2, "{part}");
    }
}

#[test]
fn what_is_set_aside_overwrites_nothing_and_opens_again_with_its_log() {
    let room = Room::new();
    let now: Timestamp = "2026-11-23T04:05:06.7Z".parse().unwrap();
    assert_eq!(SqliteLedger::set_aside(&room.path(), now).unwrap(), None);
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap();
    let room = room.as_after_a_crash();
    std::fs::write(room.dir.path().join("ledger.db.damaged-20261123T040506Z-shm"), "taken").unwrap();
    let aside = SqliteLedger::set_aside(&room.path(), now).unwrap().unwrap();
    assert_eq!(aside, room.dir.path().join("ledger.db.damaged-20261123T040506Z-2"));
    assert_eq!(
        room.names(),
        [
            "ledger.db.damaged-20261123T040506Z-2",
            "ledger.db.damaged-20261123T040506Z-2-count",
            "ledger.db.damaged-20261123T040506Z-2-shm",
            "ledger.db.damaged-20261123T040506Z-2-wal",
            "ledger.db.damaged-20261123T040506Z-shm"
        ]
    );
    assert_eq!(SqliteLedger::open(&aside).unwrap().open_drops().unwrap().len(), 1);
    drop(room.open());
    assert!(
        SqliteLedger::set_aside(&room.path(), now).unwrap().unwrap().ends_with("ledger.db.damaged-20261123T040506Z-3")
    );
}

#[test]
fn what_is_no_file_of_ours_is_not_followed() {
    let room = Room::new();
    let other = Room::new();
    drop(other.open());
    symlink(other.path(), room.path()).unwrap();
    assert!(matches!(SqliteLedger::open(&room.path()), Err(LedgerError::Io { .. })));
    std::fs::remove_file(room.path()).unwrap();
    symlink(other.dir.path().join("dangling"), room.path()).unwrap();
    assert!(matches!(SqliteLedger::open(&room.path()), Err(LedgerError::Io { .. })));
    assert_eq!(other.names(), ["ledger.db", "ledger.db-count"]);
    std::fs::remove_file(room.path()).unwrap();
    std::fs::create_dir(room.path()).unwrap();
    assert!(matches!(SqliteLedger::open(&room.path()), Err(LedgerError::Io { .. })));
    // A folder that is a link is the administrator's choice.
    let link = room.dir.path().join("state");
    symlink(other.dir.path(), &link).unwrap();
    drop(SqliteLedger::open(&link.join("ledger.db")).unwrap());
}

#[test]
fn a_missing_folder_is_named() {
    let error = SqliteLedger::open(Path::new("/nonexistent/ledger.db")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/ledger.db: "), "{error}");
    assert!(matches!(error, LedgerError::Io { .. }));
}

#[test]
fn a_name_that_is_no_text_and_looks_like_an_address_is_a_name() {
    let room = Room::new();
    let path = room.dir.path().join(OsStr::from_bytes(b"file:x\xff?mode=memory"));
    let mut ledger = SqliteLedger::open(&path).unwrap();
    ledger.trust().unwrap();
    drop(ledger);
    assert!(!SqliteLedger::open(&path).unwrap().is_fresh().unwrap());
}

#[test]
fn two_handles_take_turns_and_the_one_that_finds_it_locked_says_so() {
    let room = Room::new();
    let mut first = room.open();
    let mut second = open::open(&room.path(), Duration::ZERO).unwrap();
    first.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap();
    assert_eq!(second.open_drops().unwrap().len(), 1);
    let limits = Limits { per_hour: 1, per_day: 0 };
    assert_eq!(second.begin(&a_drop(2, 1), Some(ShotNo(0)), limits, &at(0)).unwrap(), Sent::Committed);
    let limited = first.begin(&a_drop(3, 1), Some(ShotNo(0)), limits, &at(0)).unwrap();
    assert!(matches!(limited, Sent::Limited { .. }), "each counts what the other sent");
    let held = first.conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    assert!(matches!(second.trust(), Err(LedgerError::Busy { .. })));
    let unknown = second.number(id(99), 1);
    assert!(matches!(unknown, Err(LedgerError::Busy { .. })), "it decides on nothing before it may write: {unknown:?}");
    assert_eq!(second.open_drops().unwrap().len(), 2, "reading goes on");
    held.commit().unwrap();
    second.trust().unwrap();
}

#[test]
fn a_disk_without_room_is_an_error_that_leaves_what_was_there() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).unwrap();
    let pages = schema::pragma(&ledger.conn, "page_count").unwrap();
    ledger.conn.pragma_update(None, "max_page_count", pages).unwrap();
    let big = NewDrop { plan: "x".repeat(100_000), ..a_drop(2, 1) };
    assert!(matches!(ledger.begin(&big, Some(ShotNo(0)), NONE, &at(0)), Err(LedgerError::Io { .. })));
    assert_eq!(ledger.open_drops().unwrap().len(), 1);
    assert_eq!(ledger.usage(&at(0)).unwrap().hour.images, 0);
}
