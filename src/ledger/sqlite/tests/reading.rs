//! Reading what became of drops.

use super::*;
use crate::domain::life::{OutputName, Spooled};
use crate::ledger::past::{Past, Wanted};

/// A drop of some folder that ended so, at some second.
fn ended(ledger: &mut SqliteLedger, n: u32, folder: &str, ending: Ending, second: i64) {
    let mut number = [0; 16];
    number[..4].copy_from_slice(&n.to_be_bytes());
    let drop = NewDrop { id: DropId(number), folder: RelPath::new(folder).unwrap(), ..a_drop(n as u8, 1) };
    ledger.begin(&drop, None, NONE, &at(second)).unwrap();
    ledger.close(drop.id, ending, Some("why"), wall_at(second)).unwrap();
}

fn read(room: &Room, wanted: Wanted) -> Vec<Past> {
    let mut past = SqlitePast::open(&room.path(), wanted).unwrap().unwrap();
    let mut all = Vec::new();
    loop {
        let page = past.page().unwrap();
        if page.is_empty() {
            assert!(past.page().unwrap().is_empty(), "the end stays the end");
            return all;
        }
        all.extend(page);
    }
}

fn numbers(all: &[Past]) -> Vec<u32> {
    all.iter().map(|past| u32::from_be_bytes(past.id.0[..4].try_into().unwrap())).collect()
}

#[test]
fn each_drop_comes_once_oldest_first_whatever_the_page_and_the_number_asked_for() {
    let room = Room::new();
    let mut ledger = room.open();
    // Many in one moment, across the ends of pages; those that went back are no part of it.
    let mut expected = Vec::new();
    for n in 0..600 {
        let ending = if n % 50 == 7 { Ending::Returned } else { Ending::Failed };
        ended(&mut ledger, n, "a", ending, i64::from(n / 290));
        if ending == Ending::Failed {
            expected.push(n);
        }
    }
    assert_eq!(numbers(&read(&room, Wanted::default())), expected);
    for newest in [1, 2, 255, 256, 257, 300, 511, 512, 513, 587, 588, 589, 10_000] {
        let found = numbers(&read(&room, Wanted { newest: Some(newest), ..Wanted::default() }));
        let from = expected.len().saturating_sub(newest as usize);
        assert_eq!(found, expected[from..], "{newest}");
    }
    let since = Some(wall_at(1));
    let later: Vec<u32> = expected.iter().copied().filter(|n| *n >= 290).collect();
    assert_eq!(numbers(&read(&room, Wanted { since, ..Wanted::default() })), later);
    let both = Wanted { since, newest: Some(3), ..Wanted::default() };
    assert_eq!(numbers(&read(&room, both)), later[later.len() - 3..]);
}

#[test]
fn a_folder_is_itself_and_what_lies_below_it() {
    let room = Room::new();
    let mut ledger = room.open();
    for (n, folder) in (0..).zip(["", "a", "a/b", "a/b/c", "a b", "a-", "a0", "b/a", "ab"]) {
        ended(&mut ledger, n, folder, Ending::Archived, 0);
    }
    for (folder, expected) in [("", &[0, 1, 2, 3, 4, 5, 6, 7, 8][..]), ("a", &[1, 2, 3]), ("a/b", &[2, 3]), ("c", &[])]
    {
        let wanted = Wanted { folder: RelPath::new(folder).unwrap(), ..Wanted::default() };
        assert_eq!(numbers(&read(&room, wanted)), expected, "{folder}");
    }
}

#[test]
fn of_a_drop_in_work_only_what_has_ended_is_told_and_it_comes_last() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 3), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    ledger.begin(&a_drop(2, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    assert!(read(&room, Wanted::default()).is_empty(), "nothing has ended");
    let picture = Spooled { blake3: "00".into(), bytes: 1, extension: "png".into(), at: wall_at(9) };
    let name = OutputName { picture: "x.png".into(), provenance: None };
    for event in [ShotEvent::Receive { picture }, ShotEvent::Name { name }, ShotEvent::Deliver] {
        let shot = after(&mut ledger, id(1), 0, event);
        ledger.step(id(1), &shot, Billed::Yes).unwrap();
    }
    failed(&mut ledger, &a_drop(3, 1), 20);
    let all = read(&room, Wanted::default());
    let told: Vec<_> = all.iter().map(|p| (p.id, p.ending, p.at, p.of, p.shots.len())).collect();
    let expected = [(id(3), Some(Ending::Failed), wall_at(20), 1, 1), (id(1), None, wall_at(9), 3, 1)];
    assert_eq!(told, expected);
    assert_eq!((&all[0].name, all[0].reason.as_deref()), (&"terrace3.jpg".into(), Some("moderated")));
    for (newest, expected) in [(1, &[id(1)][..]), (2, &[id(3), id(1)])] {
        let found = read(&room, Wanted { newest: Some(newest), ..Wanted::default() });
        assert_eq!(found.iter().map(|p| p.id).collect::<Vec<_>>(), expected);
    }
    assert_eq!(read(&room, Wanted { since: Some(wall_at(10)), ..Wanted::default() }).len(), 1);
}

#[test]
fn nothing_is_there_before_the_first_start_and_what_cannot_be_read_is_told() {
    let room = Room::new();
    let open = |path: &Path| SqlitePast::open(path, Wanted::default());
    assert!(open(&room.path()).unwrap().is_none());
    assert!(open(&room.dir.path().join("nowhere/ledger.db")).unwrap().is_none());
    std::fs::write(room.path(), "").unwrap();
    assert!(open(&room.path()).unwrap().is_none());
    assert_eq!(room.names(), ["ledger.db"]);
    // Made, and nothing in it yet.
    std::fs::remove_file(room.path()).unwrap();
    drop(Connection::open(room.path()).unwrap().pragma_update(None, "auto_vacuum", "INCREMENTAL"));
    assert!(open(&room.path()).unwrap().is_none());
    std::os::unix::fs::symlink(room.path(), room.dir.path().join("link")).unwrap();
    assert!(matches!(open(&room.dir.path().join("link")), Err(LedgerError::Io { .. })));
    drop(room.open());
    assert!(read(&room, Wanted::default()).is_empty());
}
