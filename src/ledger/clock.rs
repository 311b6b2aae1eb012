//! The clocks that rolling limits are counted by.
//!
//! The one place of this room that reads a clock: everything else takes a [`Moment`] as an argument. It
//! keeps nothing and compares nothing.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::Moment;

/// Now, by the wall clock and by the time since boot, which goes on while the machine sleeps and does not
/// jump when the wall clock is set. The boot's identity is empty where the kernel does not tell it.
pub fn moment() -> Moment {
    let since = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(since.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(since.tv_nsec).unwrap_or_default();
    Moment { wall: Timestamp::now(), boot: boot().to_owned(), since_boot: Duration::new(seconds, nanoseconds) }
}

/// Read once: it cannot change while this program runs.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_boot_goes_on_within_one_boot() {
        let (first, second) = (moment(), moment());
        assert_eq!(first.boot, second.boot);
        assert!(first.since_boot > Duration::ZERO);
        assert!(second.since_boot >= first.since_boot);
    }

    #[test]
    fn the_boot_has_a_name_of_one_word() {
        assert_eq!(moment().boot.len(), 36, "{:?}", moment().boot);
    }
}
