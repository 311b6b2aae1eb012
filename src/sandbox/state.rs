//! What the sandbox remembers: credits, pace, assets, what it has seen. All of it bounded, none of it kept.
//!
//! Times are arguments; nothing here waits or touches the network.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::fault::Fault;
use super::options::Options;
use crate::domain::ids::Fingerprint;

/// The most assets, and the most bytes of them all; then the oldest goes.
const MAX_ASSETS: usize = 512;
const MAX_ASSET_BYTES: usize = 256 * 1024 * 1024;
/// The most bodies that are remembered, and the most prompts whose faults are counted.
const MAX_BODIES: usize = 512;
const MAX_PROMPTS: usize = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// What the sandbox has seen and done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Model calls whose head arrived, whatever became of them.
    pub model_calls: u64,
    /// Uploads whose head arrived.
    pub uploads: u64,
    /// Credits requests.
    pub credits_calls: u64,
    /// Reads of assets.
    pub asset_reads: u64,
    /// Requests for anything else.
    pub other: u64,
    /// Model calls that were billed.
    pub billed: u64,
    /// What was billed, in dollars.
    pub spent: f64,
    /// Paid credits left, in dollars.
    pub credits: f64,
    /// Free credits left, in dollars.
    pub free_credits: f64,
    /// The bodies of the latest model calls (at most 512), oldest first, as far as they are JSON. Pictures
    /// in them are replaced by their length.
    pub bodies: Vec<Value>,
    /// The fingerprints of the latest uploaded pictures (at most 512), oldest first.
    pub uploaded: Vec<Fingerprint>,
}

/// A picture that can be fetched.
#[derive(Clone, Debug)]
pub(super) struct Asset {
    pub(super) mime: &'static str,
    pub(super) bytes: Bytes,
}

/// Why a model call is refused before its body is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wait(pub(super) Duration);

/// Which of the endpoints that can fail on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Model,
    Upload,
    Credits,
}

/// The memory.
pub(super) struct State {
    price: f64,
    requests_per_minute: usize,
    every: Option<(u32, Fault)>,
    queues: [VecDeque<Fault>; 3],
    /// Model calls that drew a fault from `every`'s count.
    turns: u64,
    recent: VecDeque<Instant>,
    prompts: HashMap<Fingerprint, u32>,
    assets: VecDeque<(String, Asset)>,
    asset_bytes: usize,
    pub(super) stats: Stats,
    bodies: VecDeque<Value>,
    uploaded: VecDeque<Fingerprint>,
}

impl State {
    pub(super) fn new(options: &Options) -> Self {
        let queue = |faults: &Vec<Fault>| faults.iter().cloned().collect();
        Self {
            price: options.price,
            requests_per_minute: options.requests_per_minute as usize,
            every: options.every.clone(),
            queues: [queue(&options.faults), queue(&options.upload_faults), queue(&options.credits_faults)],
            turns: 0,
            recent: VecDeque::new(),
            prompts: HashMap::new(),
            assets: VecDeque::new(),
            asset_bytes: 0,
            stats: Stats { credits: options.credits, free_credits: options.free_credits, ..Stats::default() },
            bodies: VecDeque::new(),
            uploaded: VecDeque::new(),
        }
    }

    /// A copy for people.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            bodies: self.bodies.iter().cloned().collect(),
            uploaded: self.uploaded.iter().copied().collect(),
            ..self.stats.clone()
        }
    }

    /// Lets a model call in, or says how long until the next one may come.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Wait> {
        if self.requests_per_minute == 0 {
            return Ok(());
        }
        while self.recent.front().is_some_and(|first| now.saturating_duration_since(*first) >= MINUTE) {
            self.recent.pop_front();
        }
        match self.recent.front() {
            Some(first) if self.recent.len() >= self.requests_per_minute => {
                Err(Wait(MINUTE.saturating_sub(now.saturating_duration_since(*first))))
            }
            _ => {
                self.recent.push_back(now);
                Ok(())
            }
        }
    }

    /// The fault that the options have for this call.
    pub(super) fn next_fault(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let queue = &mut self.queues[endpoint as usize];
        if let Some(fault) = queue.pop_front() {
            return Some(fault);
        }
        if endpoint != Endpoint::Model {
            return None;
        }
        let (n, fault) = self.every.as_ref()?;
        self.turns += 1;
        self.turns.is_multiple_of(u64::from((*n).max(1))).then(|| fault.clone())
    }

    /// Whether a fault that counts `times` times still counts for this prompt; counts it.
    pub(super) fn still_counts(&mut self, prompt: &str, times: u32) -> bool {
        if self.prompts.len() >= MAX_PROMPTS {
            self.prompts.clear();
        }
        let seen = self.prompts.entry(Fingerprint::of(prompt.as_bytes())).or_default();
        *seen = seen.saturating_add(1);
        *seen <= times
    }

    /// What is left, in dollars.
    pub(super) fn left(&self) -> f64 {
        self.stats.credits + self.stats.free_credits
    }

    /// Takes the price of one picture; false if there is not enough left.
    pub(super) fn charge(&mut self) -> bool {
        // Dollars in binary fractions: a thousandth of a cent is nothing.
        if self.left() + 1e-5 < self.price {
            return false;
        }
        let free = self.price.min(self.stats.free_credits);
        self.stats.free_credits = cents(self.stats.free_credits - free);
        self.stats.credits = cents((self.stats.credits - (self.price - free)).max(0.0));
        self.stats.spent = cents(self.stats.spent + self.price);
        self.stats.billed += 1;
        true
    }

    /// Whether one more picture could be paid.
    pub(super) fn can_pay(&self) -> bool {
        self.left() + 1e-5 >= self.price
    }

    /// Keeps a body for [`Stats::bodies`].
    pub(super) fn remember_body(&mut self, mut body: Value) {
        if let Some(Value::String(url)) = body.get_mut("structure_image_url")
            && url.starts_with("data:")
        {
            let head = url.split(',').next().unwrap_or_default().chars().take(60).collect::<String>();
            *url = format!("{head},({} characters)", url.len());
        }
        keep(&mut self.bodies, body);
    }

    /// Keeps an uploaded picture and gives its name.
    pub(super) fn keep_upload(&mut self, extension: &str, asset: Asset) -> String {
        keep(&mut self.uploaded, Fingerprint::of(&asset.bytes));
        self.keep_asset(extension, asset)
    }

    /// Keeps a picture and gives its name. The same bytes have the same name.
    pub(super) fn keep_asset(&mut self, extension: &str, asset: Asset) -> String {
        let name = format!("{:.20}.{extension}", Fingerprint::of(&asset.bytes).to_string());
        if let Some(at) = self.assets.iter().position(|(known, _)| *known == name) {
            // Uploaded again: the youngest again.
            if let Some(entry) = self.assets.remove(at) {
                self.assets.push_back(entry);
            }
            return name;
        }
        self.asset_bytes += asset.bytes.len();
        self.assets.push_back((name.clone(), asset));
        while self.assets.len() > MAX_ASSETS || (self.asset_bytes > MAX_ASSET_BYTES && self.assets.len() > 1) {
            if let Some((_, gone)) = self.assets.pop_front() {
                self.asset_bytes -= gone.bytes.len();
            }
        }
        name
    }

    /// A picture by its name.
    pub(super) fn asset(&self, name: &str) -> Option<Asset> {
        self.assets.iter().rev().find(|(known, _)| known == name).map(|(_, asset)| asset.clone())
    }
}

/// Rounded to a hundred-thousandth of a dollar, so that 100 − 3 · 0.04 reads 99.88.
fn cents(dollars: f64) -> f64 {
    (dollars * 1e5).round() / 1e5
}

fn keep<T>(queue: &mut VecDeque<T>, one: T) {
    if queue.len() >= MAX_BODIES {
        queue.pop_front();
    }
    queue.push_back(one);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn state(options: &Options) -> State {
        State::new(options)
    }

    #[test]
    fn free_credits_go_first_and_nothing_is_given_on_tick() {
        let mut state = state(&Options { credits: 0.06, free_credits: 0.03, ..Options::default() });
        assert!(state.charge());
        assert_eq!((state.stats.free_credits, state.stats.credits), (0.0, 0.05));
        assert!(state.charge());
        assert!(!state.charge());
        assert_eq!((state.stats.billed, state.stats.spent, state.left()), (2, 0.08, 0.01));
    }

    #[test]
    fn the_pace_is_held_over_any_sixty_seconds() {
        let mut state = state(&Options { requests_per_minute: 2, ..Options::default() });
        let start = Instant::now();
        assert_eq!(state.admit(start), Ok(()));
        assert_eq!(state.admit(start + Duration::from_secs(20)), Ok(()));
        assert_eq!(state.admit(start + Duration::from_secs(30)), Err(Wait(Duration::from_secs(30))));
        assert_eq!(state.admit(start + Duration::from_secs(60)), Ok(()));
        assert_eq!(state.admit(start + Duration::from_secs(61)), Err(Wait(Duration::from_secs(19))));
    }

    #[test]
    fn the_oldest_assets_go_first() {
        let mut state = state(&Options::default());
        let asset = |i: usize| Asset { mime: "image/png", bytes: Bytes::from(i.to_string()) };
        let names: Vec<_> = (0..MAX_ASSETS).map(|i| state.keep_asset("png", asset(i))).collect();
        assert_eq!(state.keep_asset("png", asset(0)), names[0]);
        state.keep_asset("png", asset(MAX_ASSETS));
        assert!(state.asset(&names[0]).is_some(), "it was used again");
        assert!(state.asset(&names[1]).is_none(), "it was the oldest");
        assert_eq!(state.assets.len(), MAX_ASSETS);
    }

    #[test]
    fn bytes_of_assets_are_bounded_too() {
        let mut state = state(&Options::default());
        for i in 0..4_u8 {
            state.keep_asset("png", Asset { mime: "image/png", bytes: Bytes::from(vec![i; MAX_ASSET_BYTES / 3 + 1]) });
        }
        assert_eq!(state.assets.len(), 2);
        assert_eq!(state.asset_bytes, (MAX_ASSET_BYTES / 3 + 1) * 2);
    }

    #[test]
    fn faults_come_in_order_and_then_every_nth() {
        let mut state = state(&Options {
            faults: vec![Fault::status(500), Fault::default()],
            every: Some((2, Fault::status(503))),
            ..Options::default()
        });
        let drawn: Vec<_> = (0..6).map(|_| state.next_fault(Endpoint::Model).and_then(|f| f.status)).collect();
        assert_eq!(drawn, [Some(500), None, None, Some(503), None, Some(503)]);
        assert_eq!(state.next_fault(Endpoint::Upload), None);
    }

    #[test]
    fn a_prompts_fault_counts_as_often_as_it_says() {
        let mut state = state(&Options::default());
        let counts: Vec<_> = (0..4).map(|_| state.still_counts("a", 2)).collect();
        assert_eq!(counts, [true, true, false, false]);
        assert!(state.still_counts("b", 2));
    }
}
