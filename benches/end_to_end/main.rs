//! How far from the least that the job needs? Drives the release binary and some rivals over the same pictures,
//! the same disk and the same stand-in for the API, in turns, and prints medians as a table.
//!
//! ```text
//! cargo bench --bench end_to_end                                   # everything, as in the README
//! cargo bench --bench end_to_end -- --row burst --pictures 300     # one row, smaller
//! ```
//!
//! The *floor* is the bare job: inotify, one POST per file with so many in flight, the result written, synced,
//! renamed, its directory synced, the original renamed. No ledger, no checks, no pictures read. Like the daemon it
//! makes a new connection for each paid request, which is part of what keeps a request from being lost; what a
//! kept connection would save is shown beside it. Numbers are ratios of what was measured in one run on one machine.
//! Nothing here is asserted.

#![allow(unreachable_pub, reason = "the modules of one program")]
#![allow(clippy::unwrap_used, clippy::similar_names, reason = "a benchmark says so by failing")]

mod api;
mod args;
mod floor;
mod measure;
mod place;
mod rivals;
mod rows;

use clap::Parser as _;

use self::args::{Args, Part};

fn main() {
    let args = Args::parse();
    match &args.part {
        Some(Part::Floor(floor)) => floor::run(floor),
        None => rows::run(&args),
    }
}
