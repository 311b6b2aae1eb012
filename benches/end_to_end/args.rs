//! What can be chosen.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Measures the daemon against the least that its job needs.
#[derive(Parser, Debug)]
pub struct Args {
    /// Only these rows.
    #[arg(long = "row", value_enum)]
    pub rows: Vec<Row>,
    /// Rounds of each contestant; the medians count.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Pictures of a burst.
    #[arg(long, default_value_t = 2000)]
    pub pictures: usize,
    /// Requests in flight.
    #[arg(long, default_value_t = 8)]
    pub in_flight: usize,
    /// Samples of the reaction.
    #[arg(long, default_value_t = 40)]
    pub samples: usize,
    /// Drops for the slow API.
    #[arg(long, default_value_t = 640)]
    pub drops: usize,
    /// Files that wait at the start.
    #[arg(long, default_value_t = 100_000)]
    pub waiting: usize,
    /// Pictures of 24 megapixels.
    #[arg(long, default_value_t = 500)]
    pub large: usize,
    /// Seconds of idling.
    #[arg(long, default_value_t = 60)]
    pub idle: u64,
    /// Leave the rivals out (curl, Python).
    #[arg(long)]
    pub no_rivals: bool,
    /// Leave the (emptied) files of the runs where they are, so that a run soon after this one is not slowed by that
    /// they are deleted.
    #[arg(long)]
    pub keep: bool,
    /// A directory on the disk that is measured.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Another binary than the one that was just built, for comparing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// The Python that has watchdog and requests.
    #[arg(long, default_value = "python3")]
    pub python: PathBuf,
    /// Keep the daemon's log of the last run here.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    pub bench: bool,
    /// A part of this program, run by itself.
    #[command(subcommand)]
    pub part: Option<Part>,
}

/// A row of the table, or several that are measured together.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A burst by `public_url`: pictures per second, CPU per picture.
    Burst,
    /// The same by upload.
    Upload,
    /// Rename into the inbox to request on the wire.
    Reaction,
    /// An API of 1 s latency, 64 in flight.
    Latency,
    /// Very many files waiting at the start.
    Waiting,
    /// Nothing to do.
    Idle,
    /// Pictures of 24 megapixels that need scaling.
    Scaling,
    /// The binary.
    Size,
}

/// Parts that are processes of their own.
#[derive(Subcommand, Debug)]
pub enum Part {
    /// The bare job.
    Floor(Floor),
}

/// The bare job's settings.
#[derive(ClapArgs, Debug, Clone)]
pub struct Floor {
    /// Holds inbox, outbox and archive.
    #[arg(long)]
    pub root: PathBuf,
    /// Where the API listens on loopback.
    #[arg(long)]
    pub port: u16,
    /// Requests in flight.
    #[arg(long)]
    pub in_flight: usize,
    /// Upload the picture first.
    #[arg(long)]
    pub upload: bool,
    /// Keep connections for paid requests, too.
    #[arg(long)]
    pub keep: bool,
    /// Cargo's own.
    #[arg(long, hide = true)]
    pub bench: bool,
}
