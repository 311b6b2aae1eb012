#![allow(clippy::unwrap_used)]

use super::*;
use crate::domain::ids::RelPath;

const WALL: Timestamp = Timestamp::UNIX_EPOCH;

fn place(name: &str) -> Place {
    Place { folder: RelPath::root(), name: name.into() }
}
fn at(s: u64) -> Mono {
    Mono(Duration::from_secs(s))
}
fn gate() -> Gate {
    Gate::new(Duration::from_secs(60))
}
#[expect(clippy::needless_pass_by_value, reason = "tests read better without the borrow")]
fn say(gate: &mut Gate, drop: &str, outcome: Outcome, others: bool, now: u64) -> Treatment {
    gate.answer(&place(drop), &outcome, "", others, at(now), WALL, |n| Duration::from_secs(u64::from(n)))
}

#[test]
fn a_refused_key_pauses_all_and_is_probed_for_free() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Pause(Why::Key), true, 0);
    assert_eq!(gate.may(at(1)), May::Nothing);
    assert!(!gate.probe_due(at(59)));
    assert!(gate.probe_due(at(60)));
    assert!(!gate.probe_due(at(61)), "one probe at a time");
    gate.credits(Credits::Refused, "", at(61), WALL);
    assert_eq!(gate.may(at(62)), May::Nothing);
    assert!(gate.probe_due(at(121)));
    gate.credits(Credits::Good, "", at(121), WALL);
    assert_eq!(gate.may(at(121)), May::One { not: Some(place("a")) });
    gate.sent(&place("b"));
    assert_eq!(gate.may(at(121)), May::Nothing);
    say(&mut gate, "b", Outcome::Success, true, 122);
    assert_eq!(gate.may(at(122)), May::All);
}

#[test]
fn a_wrong_address_is_probed_by_one_drop_since_good_credits_say_nothing() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Pause(Why::Endpoint), true, 0);
    assert!(!gate.probe_due(at(60)));
    assert_eq!(gate.may(at(60)), May::One { not: Some(place("a")) });
    gate.sent(&place("b"));
    say(&mut gate, "b", Outcome::Pause(Why::Endpoint), true, 61);
    assert_eq!(gate.may(at(62)), May::Nothing);
    assert_eq!(gate.paused().map(|p| p.since), Some(WALL));
}

#[test]
fn three_different_drops_in_a_row_in_trouble_pause_all() {
    let mut gate = gate();
    for drop in ["a", "a", "b"] {
        say(&mut gate, drop, Outcome::Retry, true, 0);
        assert_eq!(gate.may(at(0)), May::All, "{drop}");
    }
    say(&mut gate, "c", Outcome::Unconfirmed { trouble: true }, true, 0);
    assert_eq!(gate.may(at(0)), May::Nothing);
}

#[test]
fn a_success_between_them_breaks_the_row() {
    let mut gate = gate();
    for drop in ["a", "b"] {
        say(&mut gate, drop, Outcome::Retry, true, 0);
    }
    say(&mut gate, "x", Outcome::Success, true, 0);
    say(&mut gate, "c", Outcome::Retry, true, 0);
    assert_eq!(gate.may(at(0)), May::All);
}

#[test]
fn a_probe_that_fails_costs_nothing_while_others_wait_and_counts_alone() {
    for (others, expected) in [(true, Treatment::SentBack), (false, Treatment::Counts)] {
        let mut gate = gate();
        for drop in ["a", "b", "c"] {
            say(&mut gate, drop, Outcome::Retry, true, 0);
        }
        assert!(!gate.probe_due(at(60)));
        assert!(matches!(gate.may(at(60)), May::One { .. }));
        gate.sent(&place("d"));
        assert_eq!(say(&mut gate, "d", Outcome::Retry, others, 61), expected);
        assert_eq!(gate.may(at(62)), May::Nothing);
    }
}

#[test]
fn an_unconfirmed_probe_ends_as_such() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Pause(Why::Endpoint), true, 0);
    assert!(!gate.probe_due(at(60)));
    gate.sent(&place("b"));
    assert_eq!(say(&mut gate, "b", Outcome::Unconfirmed { trouble: true }, true, 61), Treatment::Counts);
    assert_eq!(gate.may(at(62)), May::Nothing);
}

#[test]
fn too_many_requests_wait_together_for_the_longest() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Rate { wait: Some(Duration::from_secs(5)), long: false }, true, 0);
    say(&mut gate, "b", Outcome::Rate { wait: Some(Duration::from_secs(2)), long: false }, true, 0);
    assert_eq!(gate.may(at(4)), May::Nothing);
    assert!(!gate.sends_back());
    assert_eq!(gate.may(at(5)), May::All);
}

#[test]
fn a_wait_of_a_year_counts_as_an_hour_and_then_one_drop_is_the_probe() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Rate { wait: Some(HOUR * 9000), long: true }, true, 0);
    assert_eq!(gate.may(at(3599)), May::Nothing);
    assert!(matches!(gate.may(at(3600)), May::One { .. }));
}

#[test]
fn a_wait_that_is_not_said_backs_off() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Rate { wait: None, long: false }, true, 0);
    assert_eq!(gate.next_wake(), Some(at(1)));
    assert_eq!(gate.may(at(1)), May::All);
    say(&mut gate, "a", Outcome::Rate { wait: None, long: false }, true, 1);
    assert_eq!(gate.next_wake(), Some(at(3)));
}

#[test]
fn a_pause_that_turns_to_another_reason_has_that_ones_words_and_time() {
    let mut gate = gate();
    let say = |gate: &mut Gate, outcome: Outcome, message: &str, now: u64| {
        gate.answer(&place("a"), &outcome, message, true, at(now), WALL, |_| Duration::from_secs(1));
    };
    let told = |gate: &Gate| gate.paused().map(|p| (p.why, p.message.clone(), p.since)).unwrap();
    let later = WALL.checked_add(jiff::SignedDuration::from_secs(60)).unwrap();
    say(&mut gate, Outcome::Pause(Why::Credits), "HTTP 402: nothing left", 0);
    say(&mut gate, Outcome::Rate { wait: None, long: false }, "HTTP 429: slow down", 1);
    assert_eq!(told(&gate), (Why::Credits, "HTTP 402: nothing left".into(), WALL), "of the pause, not of the wait");
    assert!(gate.probe_due(at(60)));
    gate.credits(Credits::Low, "", at(60), later);
    assert_eq!(told(&gate), (Why::Credits, "HTTP 402: nothing left".into(), WALL));
    gate.credits(Credits::Refused, "HTTP 401: key revoked", at(61), later);
    assert_eq!(told(&gate), (Why::Key, "HTTP 401: key revoked".into(), later));
    gate.credits(Credits::Low, "", at(62), later);
    assert_eq!(told(&gate), (Why::Credits, String::new(), later));
}

#[test]
fn any_answer_proves_the_network() {
    for (answer, may) in
        [(Credits::NoAnswer, false), (Credits::Other, true), (Credits::Unknown, true), (Credits::Low, false)]
    {
        let mut gate = gate();
        say(&mut gate, "a", Outcome::Pause(Why::Network), false, 0);
        assert!(gate.probe_due(at(60)));
        gate.credits(answer, "", at(60), WALL);
        assert_eq!(matches!(gate.may(at(60)), May::One { .. }), may, "{answer:?}");
    }
}

#[test]
fn a_wait_that_is_asked_for_during_a_pause_is_kept_when_the_pause_is_over() {
    let rate = |s| Outcome::Rate { wait: Some(Duration::from_secs(s)), long: false };
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Pause(Why::Key), true, 0);
    say(&mut gate, "b", rate(100), true, 1);
    assert!(gate.probe_due(at(60)));
    gate.credits(Credits::Good, "", at(60), WALL);
    assert_eq!(gate.may(at(61)), May::Nothing, "the service asked to wait");
    assert_eq!(gate.next_wake(), Some(at(101)));
    assert_eq!(gate.may(at(101)), May::One { not: Some(place("b")) });
    // The same of one that was out when the trial was sent.
    gate.sent(&place("c"));
    say(&mut gate, "d", rate(50), true, 110);
    assert_eq!(gate.may(at(159)), May::Nothing);
    assert_eq!(gate.may(at(160)), May::One { not: Some(place("d")) });
    gate.sent(&place("c"));
    say(&mut gate, "c", Outcome::Success, true, 161);
    assert_eq!(gate.may(at(161)), May::All);
}

#[test]
fn a_success_does_not_shorten_a_wait() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Pause(Why::Endpoint), true, 0);
    assert!(!gate.probe_due(at(60)));
    gate.sent(&place("b"));
    // Asked for before the trial, by one whose answer came late: the trial was on its way by then.
    gate.not_before = at(100);
    say(&mut gate, "b", Outcome::Success, true, 70);
    assert_eq!(gate.may(at(99)), May::Nothing);
    assert_eq!(gate.may(at(100)), May::All);
}

#[test]
fn who_is_told_to_wait_as_the_probe_lets_others_go_first() {
    let mut gate = gate();
    say(&mut gate, "a", Outcome::Pause(Why::Endpoint), true, 0);
    assert!(!gate.probe_due(at(60)));
    gate.sent(&place("c"));
    say(&mut gate, "c", Outcome::Rate { wait: Some(Duration::from_secs(1)), long: false }, true, 61);
    assert_eq!(gate.may(at(62)), May::One { not: Some(place("c")) });
    let mut gate = self::gate();
    say(&mut gate, "c", Outcome::Rate { wait: Some(Duration::from_secs(7200)), long: true }, true, 0);
    assert_eq!(gate.may(at(3600)), May::One { not: Some(place("c")) });
}
