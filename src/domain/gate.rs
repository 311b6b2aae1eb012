//! Whether anything may be sent: the service's pauses, its probes, and the way back.
//!
//! Three kinds of trouble must never be mixed up: *this drop is bad*, *everybody must wait*, and *nobody
//! knows*. The gate is the second. "Pause" always means: nothing goes to errors, nothing new is sent but a
//! probe. After any pause one drop goes first and, if another waits, not the one that caused it; so an
//! outage costs at most one request at a time and does not empty the queue into errors.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::ids::{Mono, Place};

/// Why everything waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The key is missing or wrong.
    Key,
    /// Out of credits.
    Credits,
    /// The service does not permit it, and the free request does not say why.
    NotPermitted,
    /// The model or the endpoint is gone, moved or wrong.
    Endpoint,
    /// No connection.
    Network,
    /// Three drops in a row failed with server errors, timeouts or lost connections.
    Trouble,
    /// Too many requests.
    Rate,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Key, Self::Credits, Self::NotPermitted, Self::Endpoint, Self::Network, Self::Trouble, Self::Rate];

    /// For a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::Key => "the API key is missing or was refused",
            Self::Credits => "out of credits",
            Self::NotPermitted => "the service does not permit this account's requests",
            Self::Endpoint => "the model's address is gone, moved or wrong; see [api] base_url, model and upload_url",
            Self::Network => "no connection to the service",
            Self::Trouble => "the service is in trouble",
            Self::Rate => "the service asks to wait (too many requests)",
        }
    }

    /// Whether a person has to do something: the account or the configuration. `run --once` stops at once.
    pub fn needs_a_person(self) -> bool {
        matches!(self, Self::Key | Self::Credits | Self::NotPermitted | Self::Endpoint)
    }

    /// Whether the free credits request can tell that it is over.
    fn free_probe(self) -> bool {
        matches!(self, Self::Key | Self::Credits | Self::NotPermitted | Self::Network)
    }
}

/// What an answer was to the gate; made from the verdict by the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A picture or a link to one.
    Success,
    /// The service answered, and it is the drop's fault.
    Fault,
    /// A 5xx that came soon: may be sent again.
    Retry,
    /// A late 5xx, a timeout or a lost connection after sending. `trouble` is false for an answer that
    /// came well but was no picture.
    Unconfirmed {
        /// Counts as the service's trouble.
        trouble: bool,
    },
    /// Everybody's.
    Pause(Why),
    /// 429.
    Rate {
        /// How long it asked for; `None`: not said.
        wait: Option<Duration>,
        /// It asked for more than an hour, or the wait counts as one: go on with one drop.
        long: bool,
    },
}

/// What the free credits request said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credits {
    /// Enough for one more.
    Good,
    /// Not enough.
    Low,
    /// The key was refused.
    Refused,
    /// The service knows no credits of this user: the next job is the probe.
    Unknown,
    /// Some other answer came.
    Other,
    /// No answer.
    NoAnswer,
}

/// What may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum May {
    /// Anything.
    All,
    /// One shot of one drop, and not of this one if another waits.
    One {
        /// The drop that caused the pause.
        not: Option<Place>,
    },
    /// Nothing, until an event or a probe changes it.
    Nothing,
}

/// What the pause means for the drop whose answer it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// The answer counts as it is.
    Counts,
    /// It was a probe while others wait: it costs no attempt, and the drop goes back.
    SentBack,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    Waiting {
        until: Mono,
        long: bool,
        since: Timestamp,
    },
    Paused {
        why: Why,
        since: Timestamp,
        next_probe: Mono,
        probing: bool,
    },
    /// One drop may go; `sent` is the one that went.
    Trial {
        why: Why,
        since: Timestamp,
        sent: Option<Place>,
    },
}

/// The gate. All times are arguments.
#[derive(Clone, Debug)]
pub struct Gate {
    state: State,
    probe_interval: Duration,
    culprit: Option<Place>,
    message: String,
    in_a_row: VecDeque<Place>,
    rates: u32,
    /// The service asked that nothing be sent before, whatever else pauses or goes on by then.
    not_before: Mono,
    /// It was told to wait last: another drop goes first.
    yields: Option<Place>,
}

/// A pause, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Why.
    pub why: Why,
    /// Since when.
    pub since: Timestamp,
    /// Until when, where that is known: the wait's end or the next probe.
    pub until: Option<Mono>,
    /// The service's own words, if any.
    pub message: String,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Gate {
    /// An open gate.
    pub fn new(probe_interval: Duration) -> Self {
        Self {
            state: State::Open,
            probe_interval,
            culprit: None,
            message: String::new(),
            in_a_row: VecDeque::new(),
            rates: 0,
            not_before: Mono::default(),
            yields: None,
        }
    }

    /// A new interval between probes.
    pub fn set_probe_interval(&mut self, interval: Duration) {
        self.probe_interval = interval;
    }

    /// Pauses for a reason that no drop caused (no key at start, say).
    pub fn pause(&mut self, why: Why, message: &str, now: Mono, wall: Timestamp) {
        self.close(why, None, message, now, wall);
    }

    /// A key was changed or a person asked: probe soon.
    pub fn probe_now(&mut self, now: Mono) {
        if let State::Paused { next_probe, .. } = &mut self.state {
            *next_probe = now;
        }
    }

    /// What may be sent at `now`.
    pub fn may(&mut self, now: Mono) -> May {
        if let State::Waiting { until, long, since } = self.state
            && now >= until
        {
            self.state = if long { State::Trial { why: Why::Rate, since, sent: None } } else { State::Open };
        }
        match &self.state {
            State::Open => May::All,
            State::Trial { sent: None, .. } if now < self.not_before => May::Nothing,
            State::Trial { sent: None, .. } => May::One { not: self.culprit.clone() },
            State::Trial { .. } | State::Waiting { .. } | State::Paused { .. } => May::Nothing,
        }
    }

    /// Whether the free credits request is to be made now. Pauses that it can't end turn into "one drop is
    /// the probe" here instead.
    pub fn probe_due(&mut self, now: Mono) -> bool {
        let State::Paused { why, since, next_probe, probing } = &mut self.state else { return false };
        if *probing || now < *next_probe {
            return false;
        }
        if why.free_probe() {
            *probing = true;
            return true;
        }
        self.state = State::Trial { why: *why, since: *since, sent: None };
        false
    }

    /// The free credits request was answered, or not; `message`: in the service's words, or why the key can't be read.
    pub fn credits(&mut self, credits: Credits, message: &str, now: Mono, wall: Timestamp) {
        let State::Paused { why, since, next_probe, probing } = &mut self.state else { return };
        *probing = false;
        *next_probe = now + self.probe_interval;
        let turned = match credits {
            Credits::Good | Credits::Unknown => None,
            Credits::Low => Some(Why::Credits),
            Credits::Refused => Some(Why::Key),
            // Any answer at all proves that there is a connection.
            Credits::Other if *why == Why::Network => None,
            Credits::Other | Credits::NoAnswer => Some(*why),
        };
        match turned {
            Some(now_why) if now_why != *why => {
                (*why, *since) = (now_why, wall);
                message.clone_into(&mut self.message);
            }
            Some(_) => {}
            None => self.state = State::Trial { why: *why, since: *since, sent: None },
        }
    }

    /// A shot of `drop` is sent; in a trial it is the probe.
    pub fn sent(&mut self, drop: &Place) {
        if let State::Trial { sent, .. } = &mut self.state {
            *sent = Some(drop.clone());
        }
        self.yields.take_if(|told| told != drop);
    }

    /// The drop that was told to wait last, as long as no other was sent since: others go first, so that one that is
    /// told so again and again holds nobody up.
    pub fn yields(&self) -> Option<&Place> {
        self.yields.as_ref()
    }

    /// A shot that [`Self::sent`] was told of did not go out after all.
    pub fn not_sent(&mut self, drop: &Place) {
        if let State::Trial { sent, .. } = &mut self.state
            && sent.as_ref() == Some(drop)
        {
            *sent = None;
        }
    }

    /// An answer, or its lack, for `drop`. `others_wait`: another drop waits to be sent. `backoff` is how
    /// long to wait after the n-th 429 in a row that does not say.
    #[expect(clippy::too_many_arguments, reason = "each is a fact about this one answer")]
    pub fn answer(
        &mut self,
        drop: &Place,
        outcome: &Outcome,
        message: &str,
        others_wait: bool,
        now: Mono,
        wall: Timestamp,
        backoff: impl Fn(u32) -> Duration,
    ) -> Treatment {
        let trial = match &self.state {
            State::Trial { why, sent: Some(sent), .. } if sent == drop => Some(*why),
            _ => None,
        };
        match outcome {
            Outcome::Success => {
                self.in_a_row.clear();
                self.rates = 0;
                if trial.is_some() {
                    self.open(now);
                }
                Treatment::Counts
            }
            Outcome::Fault => {
                if trial.is_some() {
                    self.open(now);
                }
                Treatment::Counts
            }
            Outcome::Pause(why) => {
                self.close(*why, Some(drop), message, now, wall);
                Treatment::Counts
            }
            Outcome::Rate { wait, long } => {
                self.rates += 1;
                let asked = wait.unwrap_or_else(|| backoff(self.rates)).min(HOUR);
                self.wait(drop, now + asked, *long, message, wall);
                Treatment::Counts
            }
            Outcome::Retry | Outcome::Unconfirmed { trouble: true } => {
                self.trouble(drop, outcome, trial, message, others_wait, now, wall)
            }
            Outcome::Unconfirmed { trouble: false } => {
                if let Some(why) = trial {
                    self.close(why, Some(drop), message, now, wall);
                }
                Treatment::Counts
            }
        }
    }

    /// The pause, if there is one.
    pub fn paused(&self) -> Option<Pause> {
        let pause = |why, since, until| Some(Pause { why, since, until, message: self.message.clone() });
        match &self.state {
            State::Open => None,
            State::Waiting { until, since, .. } => pause(Why::Rate, *since, Some(*until)),
            State::Paused { why, since, next_probe, .. } => pause(*why, *since, Some(*next_probe)),
            State::Trial { why, since, .. } => pause(*why, *since, None),
        }
    }

    /// Whether claimed drops of which nothing was billed go back into the inbox: a pause, but not a short
    /// wait that the service asked for.
    pub fn sends_back(&self) -> bool {
        matches!(self.state, State::Paused { .. })
    }

    /// Whether it would go on with the next drop, if there were one.
    pub fn is_trial(&self) -> bool {
        matches!(self.state, State::Trial { sent: None, .. })
    }

    /// Whether the pause is for want of a connection.
    pub fn is_offline(&self) -> bool {
        matches!(self.state, State::Paused { why: Why::Network, .. } | State::Trial { why: Why::Network, .. })
    }

    /// When [`Self::may`] or [`Self::probe_due`] may change by itself.
    pub fn next_wake(&self) -> Option<Mono> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            State::Paused { next_probe, probing: false, .. } => Some(next_probe),
            State::Trial { sent: None, .. } => Some(self.not_before),
            _ => None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the same arguments as its only caller's")]
    fn trouble(
        &mut self,
        drop: &Place,
        outcome: &Outcome,
        trial: Option<Why>,
        message: &str,
        others_wait: bool,
        now: Mono,
        wall: Timestamp,
    ) -> Treatment {
        if trial.is_some() {
            self.close(Why::Trouble, Some(drop), message, now, wall);
            return if others_wait && *outcome == Outcome::Retry { Treatment::SentBack } else { Treatment::Counts };
        }
        if !self.in_a_row.contains(drop) {
            self.in_a_row.push_back(drop.clone());
        }
        if self.in_a_row.len() >= 3 {
            self.in_a_row.clear();
            self.close(Why::Trouble, Some(drop), message, now, wall);
        }
        Treatment::Counts
    }

    fn open(&mut self, now: Mono) {
        let asked = self.not_before > now;
        self.state = match self.state {
            State::Trial { since, .. } if asked => State::Waiting { until: self.not_before, long: false, since },
            _ => State::Open,
        };
        self.culprit = None;
        self.message.clear();
    }

    fn wait(&mut self, drop: &Place, until: Mono, long: bool, message: &str, wall: Timestamp) {
        self.not_before = self.not_before.max(until);
        self.yields = Some(drop.clone());
        // Where one drop is the probe when the wait is over, it is another one.
        if long || !matches!(self.state, State::Open) {
            self.culprit = Some(drop.clone());
        }
        match &mut self.state {
            // Several answers may ask at once: the latest end holds.
            State::Waiting { until: already, long: was, .. } => {
                *already = (*already).max(until);
                *was |= long;
            }
            // A pause for another reason goes on by its own rules, but not before the wait is over.
            State::Paused { .. } => {}
            State::Open => self.state = State::Waiting { until, long, since: wall },
            // Still one drop at a time when the wait is over.
            State::Trial { since, .. } => self.state = State::Waiting { until, long: true, since: *since },
        }
        // The words of a pause are its own.
        if !message.is_empty() && !matches!(self.state, State::Paused { .. }) {
            message.clone_into(&mut self.message);
        }
    }

    fn close(&mut self, why: Why, culprit: Option<&Place>, message: &str, now: Mono, wall: Timestamp) {
        let since = match &self.state {
            State::Paused { why: already, since, .. } | State::Trial { why: already, since, .. } if *already == why => {
                *since
            }
            _ => wall,
        };
        if culprit.is_some() {
            self.culprit = culprit.cloned();
        }
        message.clone_into(&mut self.message);
        let probing = matches!(self.state, State::Paused { probing: true, .. });
        // What the service asked to wait is waited, whatever comes in between.
        let asked = match self.state {
            State::Waiting { until, .. } => until,
            _ => now,
        };
        let next_probe = (now + self.probe_interval).max(asked);
        self.state = State::Paused { why, since, next_probe, probing };
    }
}

#[cfg(test)]
mod tests;
