//! Coming back, notes, failures, uploads, and forgetting.

use super::*;
use crate::ledger::{Failure, Filed};

fn prints(drop: &NewDrop) -> Vec<Fingerprint> {
    drop.members.iter().rev().map(|m| m.print.unwrap()).collect()
}

type Change = fn(&mut NewDrop);

/// The same files and request as `n`, as drop `new`.
fn same_as(n: u8, new: u8) -> NewDrop {
    NewDrop { id: id(new), ..a_drop(n, 1) }
}

#[test]
fn the_newest_ended_or_returned_drop_is_known_and_each_only_once() {
    let room = Room::new();
    let mut ledger = room.open();
    let known = print("known 1");
    assert_eq!(ledger.recognise(known).unwrap(), None);
    failed(&mut ledger, &same_as(1, 1), 20);
    failed(&mut ledger, &same_as(1, 2), 30);
    failed(&mut ledger, &same_as(1, 3), 10);
    for (n, ending) in [(4, Ending::Archived), (5, Ending::Lost), (6, Ending::Returned)] {
        ledger.begin(&same_as(1, n), None, NONE, &at(0)).unwrap();
        ledger.close(id(n), ending, None, wall_at(if n == 6 { 25 } else { 40 })).unwrap();
    }
    ledger.begin(&same_as(1, 7), None, NONE, &at(50)).unwrap();
    for (n, (expected, ending)) in
        (20..).zip([(2, Ending::Failed), (6, Ending::Returned), (1, Ending::Failed), (3, Ending::Failed)])
    {
        let found = ledger.recognise(known).unwrap().unwrap();
        assert_eq!((found.id, found.ending), (id(expected), ending));
        ledger.begin(&NewDrop { continues: Some(found.id), ..same_as(1, n) }, None, NONE, &at(60)).unwrap();
    }
    assert_eq!(ledger.recognise(known).unwrap(), None);
    // Used already: no harm.
    ledger.begin(&NewDrop { continues: Some(id(2)), ..same_as(1, 30) }, None, NONE, &at(60)).unwrap();
}

/// What nobody may have to ask for is what the ledger would find, before and after it is opened again.
#[test]
fn whatever_may_be_known_again_is_noted_before_it_has_ended() {
    let room = Room::new();
    let mut ledger = room.open();
    let returning = ledger.returning();
    let endings = [(1, Ending::Failed), (2, Ending::Returned), (3, Ending::Archived), (4, Ending::Lost)];
    for (n, ending) in endings {
        ledger.begin(&a_drop(n, 1), None, NONE, &at(0)).unwrap();
        assert!(!returning.may_know([print(&format!("known {n}"))]), "{ending:?}");
        ledger.close(id(n), ending, None, wall_at(1)).unwrap();
    }
    // One that was never sent has no request, and a picture all the same.
    let buried = NewDrop { recognition: None, failure: Some("broken".into()), ..a_drop(5, 0) };
    ledger.begin(&buried, None, NONE, &at(0)).unwrap();
    ledger.close(id(5), Ending::Failed, None, wall_at(1)).unwrap();
    drop(ledger);
    let mut ledger = room.open();
    for (n, request, picture) in
        [(1, true, true), (2, true, false), (3, false, false), (4, false, false), (5, false, true)]
    {
        let (known, bytes) = (print(&format!("known {n}")), print(&format!("picture {n}")));
        assert_eq!(ledger.recognise(known).unwrap().is_some(), request, "{n}");
        assert_eq!(ledger.seen_picture(bytes).unwrap(), picture, "{n}");
        for returning in [&returning, &ledger.returning()] {
            assert!(!request || returning.may_know([known]), "{n}");
            assert!(!picture || returning.may_know([bytes]), "{n}");
        }
        assert_eq!(ledger.returning().may_know([known, bytes]), request || picture, "{n}");
    }
    // A failure whose picture comes back counts no more, also where it is told by that alone.
    ledger.begin(&NewDrop { id: id(6), ..a_drop(5, 1) }, Some(ShotNo(0)), NONE, &at(2)).unwrap();
    assert_eq!(ledger.failures(9).unwrap().0, 1);
}

#[test]
fn what_is_known_has_its_shots_and_notes() {
    let room = Room::new();
    let mut ledger = room.open();
    ledger.begin(&a_drop(1, 3), Some(ShotNo(1)), NONE, &at(0)).unwrap();
    let shot = after(&mut ledger, id(1), 1, ShotEvent::GiveBack { not_before: None, counts: true });
    ledger.step(id(1), &shot, Billed::No).unwrap();
    let path = PathBuf::from(OsStr::from_bytes(b"/e/\xff.error.txt"));
    ledger.noted(id(1), &path, print("draft")).unwrap();
    ledger.noted(id(1), &path, print("note")).unwrap();
    let shots = ledger.open_drops().unwrap()[0].drop.shots.clone();
    ledger.close(id(1), Ending::Returned, None, wall_at(1)).unwrap();
    drop(ledger);
    let mut ledger = room.open();
    let found = ledger.recognise(print("known 1")).unwrap().unwrap();
    assert_eq!(found.shots[1].attempts, 1, "attempts are remembered");
    let notes = vec![(path.clone(), print("note"))];
    assert_eq!(found, Known { id: id(1), ending: Ending::Returned, shots, notes, again: false });
    assert_eq!(ledger.note_at(&path).unwrap(), Some(print("note")));
    assert_eq!(ledger.note_at(Path::new("/e/other")).unwrap(), None);
    assert!(ledger.is_our_note(print("note")).unwrap());
    assert!(!ledger.is_our_note(print("edited")).unwrap());
}

#[test]
fn a_drop_that_never_had_shots_is_not_known_but_counts_until_its_files_come_back() {
    let room = Room::new();
    let mut ledger = room.open();
    let broken = |new| NewDrop {
        recognition: None,
        shots: vec![],
        failure: Some("line 3: no such key".into()),
        ..same_as(1, new)
    };
    // Two copies, in work side by side.
    for n in [1, 2] {
        ledger.begin(&broken(n), None, NONE, &at(0)).unwrap();
    }
    for n in [1, 2] {
        ledger.close(id(n), Ending::Failed, None, wall_at(n.into())).unwrap();
    }
    let (count, list) = ledger.failures(1).unwrap();
    let label = "autumn/terrace1.jpg".to_owned();
    assert_eq!((count, list), (2, vec![Failure { label, reason: "line 3: no such key".into(), at: wall_at(2) }]));
    // Even if it was given a recognition: a drop without shots would be continued by sending nothing.
    let odd = NewDrop { recognition: Some(print("known 1")), ..broken(3) };
    ledger.begin(&odd, None, NONE, &at(0)).unwrap();
    let (count, list) = ledger.failures(9).unwrap();
    assert_eq!((count, list[0].at), (1, wall_at(1)), "the newest one came back");
    ledger.close(id(3), Ending::Failed, None, wall_at(0)).unwrap();
    assert_eq!(ledger.failures(9).unwrap().0, 2, "and failed again");
    assert_eq!(ledger.recognise(print("known 1")).unwrap(), None);
    for (n, left) in [(10, 1), (11, 0), (12, 0)] {
        ledger.begin(&same_as(1, n), None, NONE, &at(5)).unwrap();
        assert_eq!(ledger.failures(9).unwrap().0, left);
    }
}

#[test]
fn a_failure_counts_no_more_when_its_picture_comes_back_changed_but_stays_known() {
    let cases: [(&str, Change, u64); 6] = [
        ("another request, same files", |d| d.recognition = Some(print("other")), 0),
        ("another sidecar", |d| d.members[0].print = Some(print("edited")), 0),
        ("another picture", |d| d.members[1].print = Some(print("edited")), 1),
        ("shared sidecar", |d| d.members[0].moves = false, 0),
        (
            "same picture, another text, another folder",
            |d| {
                d.folder = RelPath::root();
                d.members.remove(0);
            },
            1,
        ),
        ("its name alone", |d| d.members = vec![member(b"terrace1.txt", Role::Sidecar, "new")], 1),
    ];
    for (what, change, left) in cases {
        let room = Room::new();
        let mut ledger = room.open();
        failed(&mut ledger, &a_drop(1, 1), 0);
        assert_eq!(ledger.failures(9).unwrap().0, 1);
        let mut new = same_as(1, 2);
        change(&mut new);
        ledger.begin(&new, None, NONE, &at(1)).unwrap();
        assert_eq!(ledger.failures(9).unwrap().0, left, "{what}");
        assert_eq!(ledger.recognise(print("known 1")).unwrap().unwrap().id, id(1), "{what}");
        assert!(ledger.seen_picture(print("picture 1")).unwrap(), "{what}");
    }
}

#[test]
fn an_edited_prompt_without_a_picture_comes_back_by_its_name() {
    let room = Room::new();
    let mut ledger = room.open();
    let prompt = |new: u8, text: &str, role| NewDrop {
        id: id(new),
        stem: "idea".into(),
        members: vec![member(b"idea.txt", role, text)],
        ..a_drop(1, 1)
    };
    failed(&mut ledger, &prompt(1, "a", Role::Foreign), 0);
    failed(&mut ledger, &prompt(2, "b", Role::Sidecar), 0);
    ledger.begin(&prompt(3, "c", Role::Sidecar), None, NONE, &at(0)).unwrap();
    let (count, _) = ledger.failures(9).unwrap();
    assert_eq!(count, 1, "the file of the same stem that is no drop still lies in errors");
    ledger.begin(&prompt(4, "a", Role::Foreign), None, NONE, &at(0)).unwrap();
    assert_eq!(ledger.failures(9).unwrap().0, 0);
}

#[test]
fn a_picture_of_a_used_drop_was_not_seen() {
    let room = Room::new();
    let mut ledger = room.open();
    failed(&mut ledger, &a_drop(1, 1), 0);
    assert!(!ledger.seen_picture(print("text 1")).unwrap());
    assert!(ledger.seen_picture(print("picture 1")).unwrap());
    ledger.begin(&NewDrop { continues: Some(id(1)), ..same_as(1, 2) }, None, NONE, &at(0)).unwrap();
    assert!(!ledger.seen_picture(print("picture 1")).unwrap());
}

#[test]
fn a_wish_finds_its_drop_by_its_files_in_any_order() {
    let room = Room::new();
    let mut ledger = room.open();
    let mut shared = a_drop(2, 1);
    shared.members[0].moves = false;
    failed(&mut ledger, &a_drop(1, 1), 0);
    failed(&mut ledger, &shared, 0);
    assert!(!ledger.wish_again(&[print("picture 1")]).unwrap(), "a part is not the whole");
    assert!(!ledger.wish_again(&[]).unwrap());
    assert!(ledger.wish_again(&prints(&a_drop(1, 1))).unwrap());
    assert!(ledger.wish_again(&[print("picture 2")]).unwrap(), "its sidecar stayed in the inbox");
    for n in [1, 2] {
        assert!(ledger.recognise(print(&format!("known {n}"))).unwrap().unwrap().again);
    }
    ledger.begin(&NewDrop { continues: Some(id(1)), ..same_as(1, 3) }, None, NONE, &at(0)).unwrap();
    assert!(!ledger.wish_again(&prints(&a_drop(1, 1))).unwrap(), "used up");
}

#[test]
fn two_copies_take_two_wishes() {
    let room = Room::new();
    let mut ledger = room.open();
    for n in [1, 2] {
        failed(&mut ledger, &same_as(1, n), n.into());
    }
    for _ in 0..2 {
        assert!(ledger.wish_again(&prints(&a_drop(1, 1))).unwrap());
    }
    for n in [2, 1] {
        let found = ledger.recognise(print("known 1")).unwrap().unwrap();
        assert_eq!((found.id, found.again), (id(n), true));
        ledger.begin(&NewDrop { continues: Some(id(n)), ..same_as(1, 10 + n) }, None, NONE, &at(9)).unwrap();
    }
}

#[test]
fn what_was_filed_is_told_since_a_moment() {
    let room = Room::new();
    let mut ledger = room.open();
    failed(&mut ledger, &a_drop(1, 1), 10);
    let prompts = NewDrop { members: vec![member(b"p.txt", Role::Sidecar, "p")], ..a_drop(2, 1) };
    for (drop, ending, when) in [
        (prompts, Ending::Archived, 20),
        (a_drop(3, 1), Ending::Archived, 9),
        (a_drop(4, 1), Ending::Returned, 30),
        (a_drop(5, 1), Ending::Lost, 30),
    ] {
        ledger.begin(&drop, None, NONE, &at(0)).unwrap();
        ledger.close(drop.id, ending, None, wall_at(when)).unwrap();
    }
    let folder = RelPath::new("autumn").unwrap();
    let name = "terrace1.jpg".into();
    // What had no picture makes no sidecar late.
    let expected = [Filed { folder, name, sent: Some(wall_at(10)), filed: wall_at(10) }];
    assert_eq!(ledger.filed_since(wall_at(10)).unwrap(), expected);
}

#[test]
fn an_upload_is_good_for_a_while() {
    let room = Room::new();
    let mut ledger = room.open();
    let (key, hour) = (print("k"), Duration::from_secs(3_600));
    ledger.uploaded(key, "https://old", wall_at(-9)).unwrap();
    ledger.uploaded(key, "https://a", wall_at(0)).unwrap();
    for (now, expected) in [(0, true), (3_600, true), (3_601, false), (-1, false)] {
        let found = ledger.upload_of(key, hour, wall_at(now)).unwrap();
        assert_eq!(found.as_deref(), expected.then_some("https://a"), "{now}");
    }
    assert_eq!(ledger.upload_of(print("other"), hour, wall_at(0)).unwrap(), None);
    ledger.forget_upload(key).unwrap();
    assert_eq!(ledger.upload_of(key, Duration::MAX, wall_at(0)).unwrap(), None);
}

#[test]
fn tidy_forgets_old_closed_drops_and_old_uploads_and_nothing_else() {
    let day = 24 * 3_600;
    let room = Room::new();
    let mut ledger = room.open();
    failed(&mut ledger, &a_drop(1, 1), 0);
    failed(&mut ledger, &a_drop(2, 1), 10 * day);
    ledger.begin(&a_drop(3, 1), None, NONE, &at(0)).unwrap();
    for n in [1, 2] {
        ledger.noted(id(n), Path::new(&format!("/e/{n}")), print(&format!("note {n}"))).unwrap();
        ledger.uploaded(print(&n.to_string()), "u", wall_at(i64::from(n) * 10 * day)).unwrap();
    }
    ledger.tidy(Duration::from_secs(400 * 86_400), wall_at(399 * day)).unwrap();
    assert!(ledger.recognise(print("known 1")).unwrap().is_some());
    ledger.tidy(Duration::from_secs(35 * 86_400), wall_at(45 * day)).unwrap();
    assert_eq!(ledger.open_drops().unwrap().len(), 1, "an open one stays");
    for (n, there) in [(1, false), (2, true)] {
        assert_eq!(ledger.recognise(print(&format!("known {n}"))).unwrap().is_some(), there);
        assert_eq!(ledger.is_our_note(print(&format!("note {n}"))).unwrap(), there);
    }
    for table in ["members", "shots"] {
        let rows: i64 =
            ledger.conn.query_row(&format!("SELECT count(DISTINCT drop_row) FROM {table}"), [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 2, "{table}");
    }
}

#[test]
fn uploads_are_kept_for_thirty_days() {
    let room = Room::new();
    let mut ledger = room.open();
    let count = |ledger: &SqliteLedger| {
        ledger.conn.query_row("SELECT count(*) FROM uploads", [], |r| r.get::<_, i64>(0)).unwrap()
    };
    ledger.uploaded(print("k"), "u", wall_at(0)).unwrap();
    for (now, left) in [(30 * 86_400, 1), (30 * 86_400 + 1, 0)] {
        ledger.tidy(Duration::ZERO, wall_at(now)).unwrap();
        assert_eq!(count(&ledger), left, "{now}");
    }
}

#[test]
fn the_file_gets_smaller_when_drops_are_forgotten() {
    let room = Room::new();
    let mut ledger = room.open();
    for n in 0..200 {
        let plan = "x".repeat(20_000);
        ledger.begin(&NewDrop { failure: Some(plan), ..a_drop(n, 1) }, None, NONE, &at(0)).unwrap();
        ledger.close(id(n), Ending::Archived, None, wall_at(0)).unwrap();
    }
    drop(ledger);
    let size = || std::fs::metadata(room.path()).unwrap().len();
    let full = size();
    let mut ledger = room.open();
    assert!(!ledger.tidy(Duration::from_secs(1), wall_at(10)).unwrap(), "all of it is done at once");
    drop(ledger);
    assert!(full > 4_000_000 && size() < full / 10, "{full} to {}", size());
}
