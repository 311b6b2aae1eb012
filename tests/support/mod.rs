//! What the tests of the real binary stand on: a [`Site`] with folders and a configuration of its own, a
//! [`Daemon`] over it, and a scripted [`Api`] on loopback that records every request.
//!
//! Hermetic: own home, cleared environment, port 0, short waits. Nothing here sleeps for luck: [`Site::wait`]
//! waits for a condition, and says what the site looked like if it never came. Each site, when it goes, looks
//! whether every file that was dropped is still somewhere, and whether the key or an asset's URL stands
//! where it must not.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "every test file uses a part of it, as a module of its own"
)]
#![allow(clippy::unwrap_used, clippy::must_use_candidate, reason = "tests say so by failing")]

pub mod api;
pub mod bombs;
pub mod boot;
pub mod daemon;
pub mod faults;
pub mod pictures;
pub mod shares;
pub mod site;

pub use api::{Answer, Api, Call, Gate};
pub use boot::Boot;
pub use daemon::Daemon;
pub use site::Site;

use std::time::{Duration, Instant};

/// How long a condition may take to come true. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The key of every site.
pub const KEY: &str = "SG_0123456789abcdef_secret";

/// A piece of every asset's URL, as private as the URL is.
pub const ASSET_MARK: &str = "someone%40example.com";

/// Waits until `done`; whether it came.
pub fn wait_until(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
