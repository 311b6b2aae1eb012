//! The crash campaign: the real binary is killed at every single step of a drop's life, and at random moments,
//! with and without the power gone; then it is started again, and somebody who knows nothing of the product
//! counts what is there.
//!
//! `cargo test` takes a sample of it. All of it, with a table at the end, some forty minutes:
//!
//! ```sh
//! CRASH_CAMPAIGN=long cargo test --test crash -- --nocapture --test-threads 1
//! ```
//!
//! `CRASH_SCENE=retry` plays only the lives whose names hold that word.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests say so by failing")]
#![cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(dead_code))]

mod at_random;
mod checker;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod disk;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod every_step;
mod scenes;
#[path = "../support/mod.rs"]
mod support;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracer;

/// Whether all of it was asked for.
fn long() -> bool {
    match std::env::var("CRASH_CAMPAIGN").as_deref() {
        Ok("long") => true,
        Ok(other) => panic!("CRASH_CAMPAIGN={other:?}: there is only \"long\""),
        Err(_) => false,
    }
}

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
