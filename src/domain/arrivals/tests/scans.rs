//! What scans find, and what waits for them.

use super::*;

#[test]
fn what_is_blocked_is_tried_again_at_each_scan() {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 1000;
    let place = inbox.out().remove(0).place();
    inbox.arrivals.blocked(&place, "permission denied", inbox.now());
    assert_eq!((inbox.goes_after(), inbox.waits()), (None, vec!["unreadable"]));
    inbox.scan("", &[("a.jpg", 9, 1000)]);
    assert_eq!(inbox.told(), ["a.jpg"]);
}

#[test]
fn a_folder_that_cannot_be_read_keeps_what_was_known() {
    let mut inbox = plain();
    inbox.scan("", &[("x/", 0, 50_000)]);
    inbox.scan("x", &[("a.jpg", 9, 50_000)]);
    inbox.arrivals.scan_failed(&rel("x"), "permission denied", inbox.now());
    assert_eq!((inbox.goes_after(), inbox.waits()), (None, vec!["unreadable", "unreadable"]));
    inbox.scan("x", &[("a.jpg", 9, 50_000)]);
    assert_eq!(inbox.told(), ["x/a.jpg"]);
}

#[test]
fn a_scan_that_began_before_a_claim_brings_nothing_back() {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 1000;
    let candidate = inbox.out().remove(0);
    let (entry, started) = (inbox.entry("a.jpg", 9, 1000), inbox.now());
    inbox.ms += 10;
    inbox.arrivals.claimed(&candidate, inbox.now(), Some(0));
    inbox.arrivals.begin_scan(&RelPath::root(), started);
    inbox.arrivals.observe_scanned(&RelPath::root(), OsStr::new("a.jpg"), &entry, inbox.now());
    inbox.arrivals.end_scan(&RelPath::root(), inbox.now());
    assert!(inbox.arrivals.is_empty());
}

#[test]
fn what_waits_for_the_end_of_a_scan_waits_to_be_sent() {
    let mut inbox = plain();
    inbox.see("", "a.jpg", 9, How::Closed);
    inbox.ms += 1000;
    inbox.arrivals.begin_scan(&RelPath::root(), inbox.now());
    assert_eq!(inbox.told(), strings(&[]), "half of it may have been seen");
    assert!(inbox.arrivals.has_ready());
    inbox.gone("", "a.jpg");
    assert!(!inbox.arrivals.has_ready());
    inbox.arrivals.end_scan(&RelPath::root(), inbox.now());
    assert!(!inbox.arrivals.has_ready());
}
