//! The time for an exchange. What came while this process stood still has come in time.

use std::time::Duration;

use tokio::time::Instant;

/// A timer that rings so late did not ring late: the process was stopped, frozen or swapped out.
const STOOD_STILL: Duration = Duration::from_millis(250);

/// How often is looked whether time was lost; and what is there at least to read what came in meanwhile.
const SLICE: Duration = Duration::from_secs(1);

/// When an exchange has to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
}

impl Deadline {
    /// So long from now on.
    pub(super) fn within(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout }
    }

    /// What comes of `work`, if it comes in time.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.hold_for(None, work).await
    }

    /// [`Self::hold`], with a time of its own for this part.
    pub(super) async fn hold_for<T>(&mut self, part: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut until = part.map_or(self.at, |part| (Instant::now() + part).min(self.at));
        loop {
            let slice = until.min(Instant::now() + SLICE);
            tokio::select! {
                // An answer that lies there counts, whatever the time.
                biased;
                done = &mut work => return Some(done),
                () = tokio::time::sleep_until(slice) => {}
            }
            let now = Instant::now();
            let lost = now.duration_since(slice);
            if lost >= STOOD_STILL {
                until = (until + lost).max(now + SLICE);
                self.at = (self.at + lost).max(until);
            } else if now >= until {
                return None;
            }
        }
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_does_not_come_in_time_is_given_up() {
        let mut deadline = Deadline::within(Duration::from_secs(60));
        assert_eq!(deadline.hold(async { 1 }).await, Some(1));
        assert_eq!(deadline.hold_for(Some(MOMENT), std::future::pending::<()>()).await, None);
        assert!(!deadline.is_over());
        let mut deadline = Deadline::within(MOMENT);
        assert_eq!(deadline.hold_for(Some(Duration::from_secs(60)), std::future::pending::<()>()).await, None);
        assert!(deadline.is_over());
    }

    #[tokio::test]
    async fn time_in_which_the_process_stood_still_is_nobodys_fault() {
        let mut deadline = Deadline::within(MOMENT);
        let comes = async {
            // Nothing is polled meanwhile, as after SIGSTOP.
            std::thread::sleep(STOOD_STILL + MOMENT * 10);
            tokio::time::sleep(MOMENT).await;
            7
        };
        assert_eq!(deadline.hold(comes).await, Some(7));
    }
}
