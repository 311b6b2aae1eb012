//! Drops that wait for a person, told to whoever wants to know.

use jiff::Timestamp;

use crate::domain::news::News;

use super::Engine;

impl Engine {
    /// Says of each drop that waited long enough what it waits for.
    pub(super) fn tell_waits(&mut self) {
        for asking in self.arrivals.take_asking() {
            let now = self.ctx.clock.wall();
            // A file from another machine may be of tomorrow.
            let since = Timestamp::from_nanosecond(asking.changed_ns.into()).map_or(now, |at| at.min(now));
            tracing::info!(drop = %asking.place, folder = %asking.place.folder, others = asking.others, "still {}", asking.reason.waits());
            self.ctx.tell.say(&News::Waiting {
                place: asking.place,
                reason: asking.reason,
                since,
                others: asking.others,
            });
        }
    }
}
