//! A local picture to bytes that may leave the machine: whole, upright, stripped, small enough.
//!
//! Two questions are answered here, in this order:
//!
//! 1. [`check`]: is the picture structurally whole, and where does it end? Works by the bytes alone; the
//!    extension may lie. It is also used for pictures that the API sends back.
//! 2. [`prepare()`]: the bytes to send. Upright, no larger than the [`Rules`] allow, without metadata but the
//!    colour profile, nothing from behind the picture's end.
//!
//! Promises: the original is only read, by position, never changed. Memory is bounded by the [`Budget`],
//! whatever the number of workers and whatever a hostile file claims. The same bytes and rules give the same
//! result. A decoder that panics is a broken picture, not a broken program.
//!
//! It does not know drops, folders or the API, and decides nothing about waiting or failing.

mod budget;
mod encode;
mod formats;
mod pieces;
mod pixels;
mod prepare;
mod reduced;
mod source;
mod whole;

#[cfg(test)]
mod prepare_tests;
#[cfg(test)]
mod reduced_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tiff_tests;
#[cfg(test)]
mod vouched_tests;
#[cfg(test)]
mod whole_tests;

pub use budget::{Budget, Permit};
pub use prepare::{
    Change, Original, PrepareError, Prepared, Rules, Stripped, Why, cache_key, check_and_strip, check_at_once,
    check_bytes, fingerprint, prepare, strip,
};
pub use source::Source;
pub use whole::{Format, Whole, check, sniff};
