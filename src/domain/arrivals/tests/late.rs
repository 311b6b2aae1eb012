//! Sidecars that came too late, and stay so.

use super::*;

/// `a.jpg` was sent and filed just now.
fn after_a_picture() -> Box_ {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 1000;
    let first = inbox.out().remove(0);
    inbox.arrivals.claimed(&first, inbox.now(), Some(77));
    inbox.arrivals.filed(&RelPath::root(), OsStr::new("a"), inbox.now());
    inbox
}

#[test]
fn what_is_late_stays_late_however_long_nothing_goes_to_errors() {
    let mut inbox = after_a_picture();
    inbox.see("", "a.txt", 9, How::RenamedIn);
    // A pause: nobody takes what goes to errors.
    for _ in 0..10 {
        inbox.ms += 600_000;
        inbox.arrivals.tick(inbox.now());
        assert!(!inbox.arrivals.has_ready());
    }
    assert_eq!(inbox.told(), strings(&["a.txt LateSidecar"]));
    // When it is gone, so is the name.
    inbox.gone("", "a.txt");
    inbox.ms += 1_200_000;
    inbox.arrivals.tick(inbox.now());
    inbox.see("", "a.txt", 9, How::RenamedIn);
    assert_eq!(inbox.goes_after(), Some((30_000, strings(&["a.txt"]))));
}

#[test]
fn a_late_sidecar_makes_nothing_late_that_would_not_be() {
    let mut inbox = after_a_picture();
    inbox.ms += 540_000;
    inbox.see("", "a.txt", 9, How::RenamedIn);
    inbox.ms += 30_000;
    let late = inbox.out().remove(0);
    assert!(matches!(late.kind, CandidateKind::LateSidecar { .. }));
    inbox.arrivals.claimed(&late, inbox.now(), None);
    inbox.arrivals.filed(&RelPath::root(), OsStr::new("a"), inbox.now());
    // More than give_up after the picture was filed, less than that after its sidecar was.
    inbox.ms += 120_000;
    inbox.see("", "a.txt", 9, How::RenamedIn);
    assert_eq!(inbox.goes_after(), Some((30_000, strings(&["a.txt"]))));
}

#[test]
fn a_tied_sidecar_is_late_for_each_image_of_its_stem() {
    let mut inbox = plain();
    for name in ["a.jpg", "a.png"] {
        inbox.see("", name, 9, How::Closed);
        inbox.ms += 1000;
        let went = inbox.out().remove(0);
        inbox.arrivals.claimed(&went, inbox.now(), Some(77));
        inbox.arrivals.filed(&RelPath::root(), OsStr::new("a"), inbox.now());
    }
    for late in ["a.jpg.txt", "a.png.txt", "a.txt"] {
        inbox.see("", late, 9, How::RenamedIn);
        let goes = vec![format!("{late} LateSidecar")];
        assert_eq!(inbox.goes_after(), Some((30_000, goes)));
        inbox.gone("", late);
    }
}
