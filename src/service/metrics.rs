//! What is counted and measured for monitoring, in the text form of Prometheus.
//!
//! What happens is heard as [`News`], what lasts is read from the [`Status`] when somebody asks. Names and labels
//! are an interface; labels have few values, all of them ours: no name of a file or folder, no text of the
//! service. Counters begin at 0 with the process, money over hours and days is the ledger's.

mod gauges;
mod process;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::domain::news::{Ending, News};
use crate::domain::status::Status;
use crate::domain::verdict::Billed;

/// The type of the text.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The one label of a family.
type Label = [(&'static str, &'static str); 1];

/// Histograms that differ in one label.
type Histograms = Family<Label, Histogram, fn() -> Histogram>;

// Upper bounds in seconds: around what is usual, and up to the longest wait that the configuration knows.
const SETTLE: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
const UPLOAD: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];
const CALL: [f64; 13] = [0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 90.0, 120.0, 180.0];
const DELIVER: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const COMMIT: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

fn uploads() -> Histogram {
    Histogram::new(UPLOAD)
}

fn calls() -> Histogram {
    Histogram::new(CALL)
}

/// All metrics of a daemon.
pub struct Metrics {
    registry: Registry,
    drops: Family<Label, Counter>,
    results: Counter,
    spent: Counter<f64, AtomicU64>,
    unpriced: Counter,
    settle: Histogram,
    upload: Histograms,
    call: Histograms,
    deliver: Histogram,
    commit: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// All at zero; what lasts is read from `status`.
    pub fn new(status: watch::Receiver<Status>) -> Self {
        let mut this = Self {
            registry: Registry::default(),
            drops: Family::default(),
            results: Counter::default(),
            spent: Counter::default(),
            unpriced: Counter::default(),
            settle: Histogram::new(SETTLE),
            upload: Family::new_with_constructor(uploads),
            call: Family::new_with_constructor(calls),
            deliver: Histogram::new(DELIVER),
            commit: Histogram::new(COMMIT),
        };
        // What never happened is zero, not missing, so that the first time is seen as an increase.
        for ending in Ending::ALL {
            drop(this.drops.get_or_create(&verdict(ending.label())));
        }
        for well in [true, false] {
            drop(this.upload.get_or_create(&outcome(well)));
        }
        drop(this.call.get_or_create(&verdict("picture")));
        let ours = this.registry.sub_registry_with_prefix("reimagined");
        ours.register("build", "The program that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        ours.register("drops", "Drops that ended since the start, by how", this.drops.clone());
        ours.register("results", "Results put into the outbox since the start", this.results.clone());
        ours.register(
            "spent_dollars",
            "What calls cost since the start, as far as the service said so, in US dollars",
            this.spent.clone(),
        );
        ours.register(
            "unpriced_calls",
            "Calls since the start that were billed without a price being said",
            this.unpriced.clone(),
        );
        ours.register(
            "settle_duration_seconds",
            "From the last change of a drop's files until the rules called it complete",
            this.settle.clone(),
        );
        ours.register("upload_duration_seconds", "Uploads of references, by outcome", this.upload.clone());
        ours.register("call_duration_seconds", "Paid calls, by what their answer meant", this.call.clone());
        ours.register(
            "deliver_duration_seconds",
            "From the answer of a call until its result was in the outbox",
            this.deliver.clone(),
        );
        ours.register(
            "ledger_commit_duration_seconds",
            "How long the ledger waited for the disk at each commit",
            this.commit.clone(),
        );
        ours.register_collector(Box::new(gauges::Gauges(status)));
        this.registry.register_collector(Box::new(process::Process::new()));
        this
    }

    /// Counts what happened. Neither blocks nor panics.
    pub fn hear(&self, news: &News) {
        match news {
            News::Complete { after } => self.settle.observe(after.as_secs_f64()),
            News::Uploaded { took, well } => self.upload.get_or_create(&outcome(*well)).observe(took.as_secs_f64()),
            News::Answered { verdict: meant, took, billed, cost } => {
                self.call.get_or_create(&verdict(meant)).observe(took.as_secs_f64());
                match (billed, cost) {
                    (Billed::No, _) | (Billed::Unknown, None) => {}
                    (_, Some(cost)) => drop(self.spent.inc_by(*cost)),
                    (Billed::Yes, None) => drop(self.unpriced.inc()),
                }
            }
            News::Delivered { after, .. } => {
                self.results.inc();
                if let Some(after) = after {
                    self.deliver.observe(after.as_secs_f64());
                }
            }
            News::Ended(ended) => drop(self.drops.get_or_create(&verdict(ended.ending.label())).inc()),
            // What lasts is read from the status.
            _ => {}
        }
    }

    /// A commit of the ledger waited that long for the disk. Neither blocks nor panics.
    pub fn committed(&self, took: Duration) {
        self.commit.observe(took.as_secs_f64());
    }

    /// All of them as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn verdict(word: &'static str) -> Label {
    [("verdict", word)]
}

fn outcome(well: bool) -> Label {
    [("outcome", if well { "ok" } else { "failed" })]
}
