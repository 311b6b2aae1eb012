//! The clocks, read in one place, so that everything else takes `now` as an argument.

use std::time::Instant;

use jiff::Timestamp;

use crate::domain::ids::Mono;
use crate::ledger::Moment;

/// Reads the clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Counts the monotonic time from now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The monotonic clock.
    pub fn mono(&self) -> Mono {
        Mono(self.start.elapsed())
    }

    /// A moment of the machine's monotonic clock; one before the start counts as the start.
    pub fn at(&self, at: Instant) -> Mono {
        Mono(at.saturating_duration_since(self.start))
    }

    /// The moment of the monotonic clock, for a timer.
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + at.0
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Both clocks, for the ledger's rolling limits.
    pub fn moment(&self) -> Moment {
        crate::ledger::clock::moment()
    }
}
