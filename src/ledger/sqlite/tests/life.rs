//! The steps of a drop, and what a reopened ledger says of them.

use super::*;
use crate::domain::life::{Fate, OutputName, ShotState, Spooled};

#[test]
fn a_drop_comes_back_from_the_disk_as_it_was_begun() {
    let room = Room::new();
    let mut drop = a_drop(1, 2);
    drop.folder = RelPath::from_bytes(b"caf\xe9/\xff").unwrap();
    drop.stem = OsStr::from_bytes(b"t\xff\n").into();
    drop.working = OsStr::from_bytes(b"/r/w\xfe").into();
    drop.members.push(Member { print: None, moves: false, ..member(b"t\xff.toml", Role::Sidecar, "") });
    drop.failure = Some("why".into());
    drop.continues = Some(id(9));
    let now = at(5);
    assert_eq!(room.open().begin(&drop, Some(ShotNo(1)), NONE, &now).unwrap(), Sent::Committed);
    drop.shots[1] = drop.shots[1].apply(ShotEvent::Send { at: now.wall }).unwrap();
    let expected = OpenDrop { drop, claimed: now.wall, number: None, filing: None };
    assert_eq!(room.open().open_drops().unwrap(), [expected]);
}

#[test]
fn every_state_of_a_shot_survives_a_restart() {
    let room = Room::new();
    let t = wall_at(1);
    let picture = Spooled { blake3: "ab".into(), bytes: 9, extension: "png".into(), at: t };
    let name = OutputName { picture: OsStr::from_bytes(b"a\xff.png").into(), provenance: None };
    let to_the_end = [
        (ShotEvent::GiveBack { not_before: Some(t), counts: true }, Billed::No),
        (ShotEvent::Send { at: t }, Billed::Unknown),
        (ShotEvent::Link { url: "https://x".into(), at: t }, Billed::Yes),
        (ShotEvent::Receive { picture }, Billed::Yes),
        (ShotEvent::Name { name }, Billed::Yes),
        (ShotEvent::Deliver, Billed::Yes),
    ];
    let lost = [(ShotEvent::Lose { reason: "cut".into(), again: false }, Billed::Unknown)];
    let refused = [(ShotEvent::Fail { reason: "bad".into(), billed: Billed::No }, Billed::No)];
    room.open().begin(&a_drop(1, 3), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    for (no, events) in [(0, &to_the_end[..]), (1, &lost[..]), (2, &refused[..])] {
        if no > 0 {
            let shot = after(&mut room.open(), id(1), no, ShotEvent::Send { at: t });
            room.open().send(id(1), &shot, NONE, &at(1)).unwrap();
        }
        for (event, billed) in events {
            let mut ledger = room.open();
            let shot = after(&mut ledger, id(1), no, event.clone());
            if matches!(shot.state, ShotState::Sending { .. }) {
                assert_eq!(ledger.send(id(1), &shot, NONE, &at(1)).unwrap(), Sent::Committed);
            } else {
                ledger.step(id(1), &shot, *billed).unwrap();
            }
            drop(ledger);
            assert_eq!(room.open().open_drops().unwrap()[0].drop.shots[no as usize], shot);
        }
    }
}

#[test]
fn number_plan_and_filing_are_kept() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    let names = vec![OsStr::from_bytes(b"\xff.jpg").into(), "b".into()];
    let filing = Filing { fate: Fate::Errors, names, note: Some("n".into()) };
    ledger.number(id(1), 2).unwrap();
    ledger.replan(id(1), "{}").unwrap();
    ledger.file_under(id(1), &filing).unwrap();
    drop(ledger);
    let open = room.open().open_drops().unwrap().remove(0);
    assert_eq!((open.number, open.drop.plan.as_str(), open.filing), (Some(2), "{}", Some(filing)));
}

#[test]
fn open_drops_come_oldest_first_and_closed_ones_not_at_all() {
    let room = Room::new();
    let mut ledger = room.open();
    for n in [7, 3, 5, 1, 4] {
        ledger.begin(&a_drop(n, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    }
    for (n, ending) in [(7, Ending::Archived), (1, Ending::Lost), (4, Ending::Returned)] {
        ledger.close(id(n), ending, None, wall_at(1)).unwrap();
    }
    let open: Vec<_> = ledger.open_drops().unwrap().into_iter().map(|d| d.drop.id).collect();
    assert_eq!(open, [id(3), id(5)]);
}

#[test]
fn what_has_no_meaning_is_refused_and_writes_nothing() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    failed(&mut ledger, &a_drop(2, 1), 0);
    let before = (ledger.open_drops().unwrap(), ledger.usage(&at(0)).unwrap());
    let sending = before.0[0].drop.shots[0].clone();
    let due = sending.apply(ShotEvent::GiveBack { not_before: None, counts: false }).unwrap();
    let no_such = Shot { no: ShotNo(7), ..sending.clone() };
    let filing = Filing { fate: Fate::Archive, names: vec![], note: None };
    let refused = |result: Result<(), LedgerError>, what: &str| {
        assert!(matches!(result, Err(LedgerError::Misused { .. })), "{what}: {result:?}");
    };
    refused(ledger.begin(&a_drop(1, 1), None, NONE, &at(0)).map(drop), "the same identity twice");
    refused(ledger.begin(&a_drop(3, 1), Some(ShotNo(1)), NONE, &at(0)).map(drop), "a first shot that is none");
    refused(ledger.send(id(1), &sending, NONE, &at(0)).map(drop), "what is being sent is sent again");
    refused(ledger.send(id(1), &due, NONE, &at(0)).map(drop), "sent to be due");
    refused(ledger.send(id(1), &no_such, NONE, &at(0)).map(drop), "no such shot");
    refused(ledger.step(id(1), &no_such, Billed::No), "no such shot");
    let earlier = Shot { last_sent: Some(wall_at(-9)), ..due.clone() };
    refused(ledger.step(id(1), &earlier, Billed::No), "what came of an earlier send");
    for n in [2, 99] {
        refused(ledger.send(id(n), &sending, NONE, &at(0)).map(drop), "send");
        refused(ledger.step(id(n), &due, Billed::No), "step");
        refused(ledger.number(id(n), 1), "number");
        refused(ledger.replan(id(n), ""), "replan");
        refused(ledger.file_under(id(n), &filing), "file");
        refused(ledger.close(id(n), Ending::Lost, None, wall_at(0)), "close");
    }
    refused(ledger.noted(id(99), Path::new("/e/x"), print("")), "a note of no drop");
    assert_eq!((ledger.open_drops().unwrap(), ledger.usage(&at(0)).unwrap()), before);
    // A step that sends would not be counted.
    ledger.step(id(1), &due, Billed::No).unwrap();
    refused(ledger.step(id(1), &sending, Billed::Unknown), "a step that is a send");
}

#[test]
fn a_closed_drop_keeps_of_its_plan_how_many_shots_it_had() {
    for (plan, kept) in [(r#"{"url":"https://assets.example/x","shots":4}"#, r#"{"shots":4}"#), ("no JSON", "")] {
        let room = Room::new();
        let mut ledger = room.open();
        failed(&mut ledger, &NewDrop { plan: plan.into(), ..a_drop(1, 1) }, 0);
        let plan: String = ledger.conn.query_row("SELECT plan FROM drops", [], |r| r.get(0)).unwrap();
        assert_eq!(plan, kept);
    }
}

#[test]
fn a_ledger_is_fresh_until_it_is_trusted() {
    let room = Room::new();
    assert!(room.open().is_fresh().unwrap());
    assert!(room.open().is_fresh().unwrap(), "a crash right after it was made changes nothing");
    let mut ledger = room.open();
    ledger.trust().unwrap();
    ledger.trust().unwrap();
    drop(ledger);
    assert!(!room.open().is_fresh().unwrap());
}

#[test]
fn what_returned_is_on_the_disk_even_if_the_program_is_killed() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 1), Some(ShotNo(0)), NONE, &at(0)).unwrap();
    // The files as a kill leaves them, log and all, while the first handle is never closed.
    let killed = Room::new();
    for part in ["ledger.db", "ledger.db-wal"] {
        std::fs::copy(room.dir.path().join(part), killed.dir.path().join(part)).unwrap();
    }
    assert_eq!(killed.open().open_drops().unwrap(), ledger.open_drops().unwrap());
}

#[test]
fn an_unfinished_transaction_leaves_nothing() {
    let room = Room::new();
    let mut ledger = room.open();
    let mut twice = a_drop(1, 2);
    // The second shot's row is refused after drop, members, and first shot were written.
    twice.shots[1].no = ShotNo(0);
    assert!(ledger.begin(&twice, Some(ShotNo(0)), NONE, &at(0)).is_err());
    assert_eq!(ledger.open_drops().unwrap(), []);
    assert_eq!(ledger.usage(&at(0)).unwrap().hour.images, 0);
    ledger.begin(&a_drop(1, 2), Some(ShotNo(0)), NONE, &at(0)).unwrap();
}
