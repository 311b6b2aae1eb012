//! What lasts, read from the status when somebody asks: what waits, what is in work, the pause, the money.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use crate::domain::arrivals::Reason;
use crate::domain::status::{PauseKind, State, Status};

/// The status of a daemon, for the registry.
#[derive(Debug)]
pub(super) struct Gauges(pub(super) watch::Receiver<Status>);

impl Collector for Gauges {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        // A copy, so that the engine never waits for who reads.
        let status = self.0.borrow().clone();
        one(&mut out, "ready", "Whether drops are taken and sent: 1 as long as it runs and is not paused", {
            u64::from(status.state == State::Running)
        })?;
        if status.state == State::Stopped {
            // Nothing is known before the first look into the inbox; a zero would say more.
            return Ok(());
        }
        let waiting = Reason::ALL.map(|reason| {
            let label = reason.label();
            (label, status.waiting.get(label).copied().unwrap_or(0))
        });
        several(&mut out, "waiting_drops", "Drops that wait in the inbox, by what for", "reason", &waiting)?;
        one(&mut out, "in_work_drops", "Drops that are claimed and not filed yet", status.in_work)?;
        one(&mut out, "failed_drops", "Drops that ended in errors and did not come back", status.failed)?;
        one(&mut out, "ignored_files", "Files in the inbox that are left alone", status.ignored)?;
        let broken = status.broken_presets.len() as u64;
        one(&mut out, "broken_presets", "Presets that can't be read, so that their folders wait", broken)?;
        let paused = status.paused.as_ref().map(|paused| paused.kind);
        let paused = PauseKind::ALL.map(|kind| (kind.label(), u64::from(paused == Some(kind))));
        several(&mut out, "paused", "Whether everything is paused, by the kind of trouble", "kind", &paused)?;
        let limited = u64::from(status.limit_until.is_some());
        one(&mut out, "limited", "Whether a limit of images is reached", limited)?;
        let (hour, day) = (&status.last_hour, &status.last_24h);
        let help = "Calls in the last hour and day that were or may have been billed, by the ledger";
        several(&mut out, "recent_images", help, "window", &[("1h", hour.images), ("24h", day.images)])?;
        let help = "Those of them whose price the service did not say";
        several(&mut out, "recent_unpriced_images", help, "window", &[("1h", hour.unpriced), ("24h", day.unpriced)])?;
        let help = "What the priced ones of them cost, in US dollars";
        several(&mut out, "recent_spent_dollars", help, "window", &[("1h", hour.cost), ("24h", day.cost)])?;
        match status.credits {
            Some(credits) => one(&mut out, "credits_dollars", "Credits left as the service last said", credits),
            None => Ok(()),
        }
    }
}

fn one(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
    let to = out.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(to)
}

fn several<T: EncodeGaugeValue + Copy>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, T)],
) -> fmt::Result {
    let mut to = out.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?;
    for (word, value) in values {
        ConstGauge::new(*value).encode(to.encode_family(&[(label, *word)])?)?;
    }
    Ok(())
}

/// As the registry writes its own.
fn sentence(help: &str) -> String {
    format!("{help}.")
}
