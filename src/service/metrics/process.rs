//! The process itself, by the names that every exporter uses: what shows restarts and leaks.

use std::fmt;
use std::fs;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

#[derive(Debug)]
pub(super) struct Process {
    started: Timestamp,
}

impl Process {
    /// Made when the process starts.
    pub(super) fn new() -> Self {
        Self { started: Timestamp::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.as_millisecond() as f64 / 1000.0;
        let help = "When the process began, in seconds since 1970.";
        gauge(&mut out, "process_start_time_seconds", help, started)?;
        // What the system does not tell is left out.
        if let Some(bytes) = resident() {
            gauge(&mut out, "process_resident_memory_bytes", "Memory that the process holds.", bytes)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the look itself.
            let open = (entries.count() as u64).saturating_sub(1);
            gauge(&mut out, "process_open_fds", "Files and connections that are open.", open)?;
        }
        Ok(())
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
    ConstGauge::new(value).encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
