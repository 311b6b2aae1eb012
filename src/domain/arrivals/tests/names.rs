//! Names in work, and on their way there.

use super::*;

#[test]
fn a_name_in_work_makes_its_namesake_wait_and_its_sidecar_late() {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 1000;
    let first = inbox.out().remove(0);
    inbox.arrivals.claimed(&first, inbox.now(), Some(77));
    inbox.see("", "a.txt", 9, How::RenamedIn);
    inbox.ms += 29_000;
    inbox.see("", "A.png", 9, How::Closed);
    inbox.ms += 2000;
    assert_eq!(inbox.told(), strings(&[]));
    assert_eq!(inbox.waits(), ["busy"]);
    inbox.gone("", "A.png");
    let late = inbox.out().remove(0);
    assert_eq!(late.kind, CandidateKind::LateSidecar { after: "a.jpg".into(), sent_unix_ms: Some(77) });
    inbox.arrivals.claimed(&late, inbox.now(), None);
    inbox.arrivals.filed(&RelPath::root(), OsStr::new("a"), inbox.now());
    inbox.arrivals.filed(&RelPath::root(), OsStr::new("a"), inbox.now());
    // Less than give_up after: late; later: a prompt-only drop.
    inbox.ms += 599_000;
    inbox.see("", "a.jpg.txt", 9, How::RenamedIn);
    assert_eq!(inbox.goes_after(), Some((30_000, strings(&["a.jpg.txt LateSidecar"]))));
    inbox.gone("", "a.jpg.txt");
    inbox.see("", "a.txt", 9, How::RenamedIn);
    assert_eq!(inbox.goes_after(), Some((30_000, strings(&["a.txt"]))));
}

#[test]
fn a_name_on_its_way_into_work_holds_its_namesake_though_its_files_are_seen_gone() {
    let mut inbox = plain();
    for name in ["a.jpg", "a.jpg.txt", "A.JPG.txt", "b.jpg", "b.png"] {
        inbox.see("", name, 9, How::RenamedIn);
    }
    inbox.ms += 60_000;
    let out = inbox.out();
    assert_eq!(out.len(), 2, "one of each name");
    for drop in &out {
        inbox.arrivals.starting(drop, inbox.now());
        for member in drop.moving() {
            inbox.gone("", member.name.to_str().unwrap());
        }
    }
    inbox.ms += 60_000;
    assert_eq!(inbox.told(), strings(&[]));
    assert_eq!(inbox.waits(), ["busy", "busy"]);
    // One lies in working, the other could not be moved.
    inbox.arrivals.claimed(&out[0], inbox.now(), Some(77));
    inbox.arrivals.not_started(&out[1], inbox.now());
    assert_eq!(inbox.told(), strings(&["b.png", "A.JPG.txt LateSidecar"]));
}
