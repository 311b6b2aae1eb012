//! What becomes of a shot by the answer to it: the meaning of the answer, the treatment that the gate gives
//! it, and the rules about retries, in one place.

use std::time::Duration;

use jiff::Timestamp;

use super::gate::{Outcome, Treatment, Why};
use super::life::{Shot, ShotEvent};
use super::pace::backoff;
use super::verdict::{Billed, PauseWhy, Verdict};

/// `[retry]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Sends in all, for answers that count.
    pub max_attempts: u32,
    /// The first delay.
    pub first_delay: Duration,
    /// The longest.
    pub max_delay: Duration,
    /// `unconfirmed = "retry"`.
    pub retry_unconfirmed: bool,
}

/// What is to be done next for a shot.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The picture came with the answer: look whether it is whole, and keep it.
    Keep,
    /// The step to commit.
    Step(ShotEvent),
    /// The free credits request decides whose fault it is.
    Ask,
    /// Its reference was a cached upload, which may be gone: upload it again and send once more.
    UploadAgain,
}

/// The gate's word for why everything waits.
pub fn why(pause: PauseWhy) -> Why {
    match pause {
        PauseWhy::Key => Why::Key,
        PauseWhy::Credits => Why::Credits,
        PauseWhy::Endpoint => Why::Endpoint,
        PauseWhy::Network => Why::Network,
        PauseWhy::Refused => Why::NotPermitted,
    }
}

/// What `verdict` is to the gate; `None` where it says nothing of the service (our own file could not be
/// read), or while the credits request has to decide.
pub fn outcome(verdict: &Verdict) -> Option<Outcome> {
    Some(match verdict {
        Verdict::Picture | Verdict::Link { .. } => Outcome::Success,
        Verdict::Fault { .. } => Outcome::Fault,
        Verdict::Pause { why: pause, .. } => Outcome::Pause(why(*pause)),
        Verdict::Ask { .. } | Verdict::Retry { trouble: false, .. } => return None,
        Verdict::Wait { for_, long, .. } => Outcome::Rate { wait: *for_, long: *long },
        Verdict::Retry { .. } => Outcome::Retry,
        Verdict::Unconfirmed { trouble, .. } => Outcome::Unconfirmed { trouble: *trouble },
    })
}

/// The words of the service in `verdict`.
pub fn message(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Picture | Verdict::Link { .. } => "",
        Verdict::Fault { message, .. }
        | Verdict::Pause { message, .. }
        | Verdict::Ask { message }
        | Verdict::Wait { message, .. }
        | Verdict::Retry { message, .. }
        | Verdict::Unconfirmed { message, .. } => message,
    }
}

/// What becomes of `shot`, which is sending, by `verdict`.
///
/// `cached` says that its reference was a cached upload. `jitter` is from 0 to 1.
pub fn next(
    shot: &Shot,
    verdict: &Verdict,
    treatment: Treatment,
    policy: Policy,
    cached: bool,
    now: Timestamp,
    jitter: f64,
) -> Next {
    let give_back = |not_before, counts| Next::Step(ShotEvent::GiveBack { not_before, counts });
    match verdict {
        Verdict::Picture => Next::Keep,
        Verdict::Link { url } => Next::Step(ShotEvent::Link { url: url.clone(), at: now }),
        Verdict::Ask { .. } => Next::Ask,
        Verdict::Fault { maybe_stale_reference: true, billed: Billed::No, .. } if cached && !shot.reuploaded => {
            Next::UploadAgain
        }
        Verdict::Fault { message, billed, .. } => {
            Next::Step(ShotEvent::Fail { reason: message.clone(), billed: *billed })
        }
        Verdict::Pause { .. } | Verdict::Wait { .. } => give_back(None, false),
        Verdict::Retry { .. } if treatment == Treatment::SentBack => give_back(None, false),
        Verdict::Retry { message, .. } => Next::Step(once_more(shot, message, policy, now, jitter)),
        Verdict::Unconfirmed { message, .. } => Next::Step(ShotEvent::Lose {
            reason: message.clone(),
            again: policy.retry_unconfirmed && shot.may_be_sent_again_unconfirmed(),
        }),
    }
}

/// A try that counts and was surely not billed: again after a delay, or the end.
fn once_more(shot: &Shot, message: &str, policy: Policy, now: Timestamp, jitter: f64) -> ShotEvent {
    // Each send counts, also one of which nobody knows whether it was billed.
    let attempts = shot.attempts + shot.unconfirmed + 1;
    if attempts >= policy.max_attempts {
        return ShotEvent::Fail { reason: format!("{message} (tried {attempts} times)"), billed: Billed::No };
    }
    let delay = backoff(attempts, policy.first_delay, policy.max_delay, jitter);
    let not_before = now.checked_add(jiff::SignedDuration::try_from(delay).unwrap_or_default()).ok();
    ShotEvent::GiveBack { not_before, counts: true }
}

/// What becomes of a shot that was refused with a cached upload, when the fresh upload went wrong by
/// `upload`: everybody's pause costs nothing, trouble is tried again, and else the first refusal stands.
pub fn after_failed_upload(
    shot: &Shot,
    refusal: &str,
    upload: &Verdict,
    policy: Policy,
    now: Timestamp,
    jitter: f64,
) -> ShotEvent {
    match upload {
        Verdict::Pause { .. } | Verdict::Wait { .. } => ShotEvent::GiveBack { not_before: None, counts: false },
        Verdict::Retry { .. } | Verdict::Ask { .. } | Verdict::Unconfirmed { .. } => {
            once_more(shot, &format!("{refusal}; its picture could not be uploaded again"), policy, now, jitter)
        }
        Verdict::Fault { .. } | Verdict::Picture | Verdict::Link { .. } => {
            ShotEvent::Fail { reason: refusal.to_owned(), billed: Billed::No }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::ids::ShotNo;
    use crate::domain::life::ShotState;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn policy() -> Policy {
        Policy {
            max_attempts: 3,
            first_delay: Duration::from_secs(2),
            max_delay: Duration::from_secs(60),
            retry_unconfirmed: false,
        }
    }
    fn sending(shot: &Shot) -> Shot {
        shot.apply(ShotEvent::Send { at: NOW }).unwrap()
    }
    fn step(next: Next) -> ShotEvent {
        match next {
            Next::Step(event) => event,
            other => panic!("no step: {other:?}"),
        }
    }
    fn retry() -> Verdict {
        Verdict::Retry { message: "HTTP 503".into(), trouble: true }
    }

    #[test]
    fn server_trouble_is_tried_as_often_as_allowed_and_then_fails_unbilled() {
        let mut shot = Shot::new(ShotNo(0), None);
        for sent in 1..=3 {
            shot = sending(&shot);
            shot = shot.apply(step(next(&shot, &retry(), Treatment::Counts, policy(), false, NOW, 1.0))).unwrap();
            assert_eq!(shot.state.has_ended(), sent == 3);
        }
        assert_eq!(shot.state.billed(), Billed::No);
    }

    #[test]
    fn a_probe_that_failed_while_others_wait_costs_no_attempt() {
        let shot = sending(&Shot::new(ShotNo(0), None));
        let next = shot.apply(step(next(&shot, &retry(), Treatment::SentBack, policy(), false, NOW, 0.0))).unwrap();
        assert_eq!((next.attempts, next.state), (0, ShotState::Due { not_before: None }));
    }

    #[test]
    fn an_unconfirmed_shot_is_sent_once_more_only_if_a_person_configured_it() {
        let lost = Verdict::Unconfirmed { message: "timeout".into(), trouble: true };
        for (retry_unconfirmed, words) in [(false, ["unconfirmed", "unconfirmed"]), (true, ["due", "unconfirmed"])] {
            let policy = Policy { retry_unconfirmed, ..policy() };
            let mut shot = Shot::new(ShotNo(0), None);
            for word in words {
                if shot.state.has_ended() {
                    break;
                }
                shot = sending(&shot);
                shot = shot.apply(step(next(&shot, &lost, Treatment::Counts, policy, false, NOW, 0.0))).unwrap();
                assert_eq!(shot.state.word(), word);
            }
        }
    }

    #[test]
    fn a_refusal_with_a_cached_upload_is_tried_once_with_a_fresh_one() {
        let fault = Verdict::Fault { message: "HTTP 400".into(), billed: Billed::No, maybe_stale_reference: true };
        let shot = sending(&Shot::new(ShotNo(0), None));
        assert_eq!(next(&shot, &fault, Treatment::Counts, policy(), true, NOW, 0.0), Next::UploadAgain);
        for (shot, cached) in [(shot.clone(), false), (Shot { reuploaded: true, ..shot }, true)] {
            assert!(matches!(
                step(next(&shot, &fault, Treatment::Counts, policy(), cached, NOW, 0.0)),
                ShotEvent::Fail { .. }
            ));
        }
    }

    #[test]
    fn an_upload_that_goes_on_failing_ends_with_the_first_refusal() {
        let mut shot = sending(&Shot::new(ShotNo(0), None));
        for sent in 1..=3 {
            let event = after_failed_upload(&shot, "HTTP 400", &retry(), policy(), NOW, 0.0);
            shot = shot.apply(event).unwrap();
            assert_eq!(shot.state.has_ended(), sent == 3);
            if sent < 3 {
                shot = sending(&shot);
            }
        }
        let fault = Verdict::Fault { message: "no picture".into(), billed: Billed::No, maybe_stale_reference: false };
        let event = after_failed_upload(&sending(&Shot::new(ShotNo(0), None)), "HTTP 400", &fault, policy(), NOW, 0.0);
        assert_eq!(event, ShotEvent::Fail { reason: "HTTP 400".into(), billed: Billed::No });
    }

    #[test]
    fn pauses_and_waits_cost_no_attempt() {
        let shot = sending(&Shot::new(ShotNo(0), None));
        for verdict in [
            Verdict::Pause { why: PauseWhy::Credits, message: String::new() },
            Verdict::Wait { for_: None, long: false, message: String::new() },
        ] {
            let after = shot.apply(step(next(&shot, &verdict, Treatment::Counts, policy(), false, NOW, 0.0))).unwrap();
            assert_eq!((after.attempts, after.state.word()), (0, "due"), "{verdict:?}");
        }
    }
}
