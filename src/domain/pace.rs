//! How fast may be sent: requests a minute, requests in flight, and how long a failed one waits.

use std::collections::VecDeque;
use std::time::Duration;

use super::ids::Mono;

const MINUTE: Duration = Duration::from_secs(60);

/// Requests of the last minute and in flight, against their limits.
#[derive(Debug, Clone)]
pub struct Pace {
    per_minute: u32,
    max_in_flight: u32,
    in_flight: u32,
    sent: VecDeque<Mono>,
}

/// Whether one more request fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// Now.
    Now,
    /// At this moment, if nothing else is sent before.
    At(Mono),
    /// When one that is in flight has ended.
    WhenOneEnds,
}

impl Pace {
    /// Nothing sent yet. `per_minute` 0 means no limit.
    pub fn new(per_minute: u32, max_in_flight: u32) -> Self {
        Self { per_minute, max_in_flight: max_in_flight.max(1), in_flight: 0, sent: VecDeque::new() }
    }

    /// New limits; what was sent stays counted.
    pub fn set(&mut self, per_minute: u32, max_in_flight: u32) {
        self.per_minute = per_minute;
        self.max_in_flight = max_in_flight.max(1);
    }

    /// Whether one more request fits at `now`.
    pub fn fits(&mut self, now: Mono) -> Fits {
        while self.sent.front().is_some_and(|&at| now.since(at) >= MINUTE) {
            self.sent.pop_front();
        }
        if self.in_flight >= self.max_in_flight {
            return Fits::WhenOneEnds;
        }
        if self.per_minute == 0 || self.sent.len() < self.per_minute as usize {
            return Fits::Now;
        }
        // The limit may have been lowered: as many must age out as there are too many.
        let out = self.sent.len() - self.per_minute as usize;
        self.sent.get(out).map_or(Fits::Now, |&at| Fits::At(at + MINUTE))
    }

    /// One is sent.
    pub fn sent(&mut self, now: Mono) {
        self.in_flight += 1;
        if self.per_minute > 0 {
            self.sent.push_back(now);
        }
    }

    /// One that was sent has ended. `unsent`: no request left the machine after all, and this is when it was counted.
    pub fn ended(&mut self, unsent: Option<Mono>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(at) = unsent.and_then(|counted| self.sent.iter().rposition(|&at| at == counted)) {
            self.sent.remove(at);
        }
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many may be.
    pub fn max_in_flight(&self) -> u32 {
        self.max_in_flight
    }
}

/// How long the `attempt`-th failure (from 1) waits: `first` doubled each time, at most `max`, of which
/// `jitter` (0 to 1) picks a point in the upper half, so that many waiting daemons don't come back at once.
pub fn backoff(attempt: u32, first: Duration, max: Duration, jitter: f64) -> Duration {
    let doubled = first.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1).min(20)));
    doubled.min(max).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn no_more_than_the_limit_go_in_any_minute() {
        let mut pace = Pace::new(2, 8);
        for t in [0, 1000] {
            assert_eq!(pace.fits(at(t)), Fits::Now);
            pace.sent(at(t));
        }
        assert_eq!(pace.fits(at(2000)), Fits::At(at(60_000)));
        assert_eq!(pace.fits(at(60_000)), Fits::Now);
    }

    #[test]
    fn zero_requests_a_minute_means_no_limit() {
        let mut pace = Pace::new(0, 2);
        pace.sent(at(0));
        assert_eq!(pace.fits(at(0)), Fits::Now);
        pace.sent(at(0));
        assert_eq!(pace.fits(at(0)), Fits::WhenOneEnds);
        pace.ended(None);
        assert_eq!(pace.fits(at(0)), Fits::Now);
    }

    #[test]
    fn what_did_not_go_out_makes_room_for_itself_alone() {
        let mut pace = Pace::new(2, 8);
        pace.sent(at(0));
        pace.sent(at(9_000));
        pace.ended(Some(at(0)));
        assert_eq!(pace.fits(at(10_000)), Fits::Now);
        pace.sent(at(10_000));
        assert_eq!(pace.fits(at(60_000)), Fits::At(at(69_000)));
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let (first, max) = (Duration::from_secs(2), Duration::from_secs(300));
        let waits: Vec<u64> = (1..=10).map(|n| backoff(n, first, max, 1.0).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff(1, first, max, 0.0), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn every_minute_keeps_the_limit(
            steps in proptest::collection::vec((0u64..5_000, proptest::option::of(0usize..8)), 1..200),
            limit in 1u32..10,
        ) {
            let mut pace = Pace::new(limit, 1000);
            let (mut now, mut sent) = (0, Vec::new());
            for (gap, unsent) in steps {
                now += gap;
                // One of the last ones never left.
                if let Some(n) = unsent.filter(|n| *n < sent.len()) {
                    pace.ended(Some(at(sent.remove(sent.len() - 1 - n))));
                }
                match pace.fits(at(now)) {
                    Fits::Now => { pace.sent(at(now)); sent.push(now); }
                    Fits::At(then) => prop_assert!(then > at(now)),
                    Fits::WhenOneEnds => prop_assert!(false),
                }
            }
            for (i, &t) in sent.iter().enumerate() {
                let within = sent[i..].iter().take_while(|&&u| u < t + 60_000).count();
                prop_assert!(within <= limit as usize);
            }
        }
    }
}
