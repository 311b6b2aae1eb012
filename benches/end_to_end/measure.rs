//! What processes took, and what lies in folders.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The kernel's ticks a second, on every machine that this runs on.
const TICKS: f64 = 100.0;

/// Waits until `ready`, looking so often; panics after ten minutes.
pub fn wait(what: &str, every: Duration, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(600), "waited in vain until {what}");
        std::thread::sleep(every);
    }
}

/// Files in a folder whose names end so, without hidden ones.
pub fn count(folder: &Path, suffix: &str) -> usize {
    let names = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    names
        .filter(|e| {
            let name = e.file_name();
            let bytes = name.as_encoded_bytes();
            bytes.ends_with(suffix.as_bytes()) && !bytes.starts_with(b".")
        })
        .count()
}

/// CPU seconds of a process group so far, of those that ended in it, too.
pub fn cpu(group: u32) -> f64 {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|e| fs::read_to_string(e.path().join("stat")).ok());
    let ticks = stats.filter_map(|stat| {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let of_group = fields.get(2)?.parse::<u32>().ok()? == group;
        of_group.then(|| fields[11..15].iter().filter_map(|f| f.parse::<u64>().ok()).sum::<u64>())
    });
    ticks.sum::<u64>() as f64 / TICKS
}

/// A line of a process's status in kilobytes.
pub fn memory(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// How often all threads of a process went to sleep so far.
pub fn sleeps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let statuses = threads.filter_map(|t| fs::read_to_string(t.path().join("status")).ok());
    let lines = statuses.filter_map(|s| {
        let line = s.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?.trim().to_owned();
        line.parse::<u64>().ok()
    });
    lines.sum()
}

/// The middle one; 0 of none.
pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    match of.len() {
        0 => 0.0,
        n if n % 2 == 1 => of[n / 2],
        n => f64::midpoint(of[n / 2 - 1], of[n / 2]),
    }
}
