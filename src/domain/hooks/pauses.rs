//! When a pause, a reached limit, or the end of one is worth telling: once it has lasted.
//!
//! A connection that is lost for a moment, or a rolling limit that lets one picture through every few minutes,
//! would else be told again and again.

use std::time::Duration;

use jiff::Timestamp;

use super::event::Event;
use crate::domain::ids::Mono;

/// Why nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// What kind of trouble it is: a stable word.
    pub kind: &'static str,
    /// In plain words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when, if that is known.
    pub until: Option<Timestamp>,
}

/// What can keep everything from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A pause.
    Pause,
    /// A limit of ours.
    Limit,
}

/// How things are, and how they were told to be.
#[derive(Debug, Default)]
struct Stream {
    is: Option<Pause>,
    /// Since when it is so.
    at: Timestamp,
    told: Option<Pause>,
    /// Since when they differ.
    differs: Option<Mono>,
}

/// Pauses and limits over time.
#[derive(Debug)]
pub struct Pauses {
    after: Duration,
    streams: [Stream; 2],
}

impl Pauses {
    /// Nothing pauses. What lasts `after` is told.
    pub fn new(after: Duration) -> Self {
        Self { after, streams: [Stream::default(), Stream::default()] }
    }

    /// Another wait from now on.
    pub fn set(&mut self, after: Duration) {
        self.after = after;
    }

    /// From now on it is so.
    pub fn hear(&mut self, source: Source, is: Option<Pause>, at: Timestamp, now: Mono) {
        let stream = &mut self.streams[source as usize];
        let kind = |pause: &Option<Pause>| pause.as_ref().map(|p| p.kind);
        if kind(&stream.is) != kind(&is) {
            stream.at = at;
        }
        stream.is = is;
        if kind(&stream.is) == kind(&stream.told) {
            stream.differs = None;
        } else {
            stream.differs.get_or_insert(now);
        }
    }

    /// When there will be something to tell.
    pub fn due(&self) -> Option<Mono> {
        self.streams.iter().filter_map(|stream| stream.differs).min().map(|since| since + self.after)
    }

    /// What is to be told by now.
    pub fn take(&mut self, now: Mono) -> Vec<Event> {
        let after = self.after;
        let due = |stream: &&mut Stream| stream.differs.is_some_and(|since| since + after <= now);
        self.streams.iter_mut().filter(due).filter_map(Stream::tell).collect()
    }

    /// What holds now and was not told, however short it lasts: nobody will be here to tell it later.
    pub fn take_what_holds(&mut self) -> Vec<Event> {
        let holds = |stream: &&mut Stream| stream.differs.is_some() && stream.is.is_some();
        self.streams.iter_mut().filter(holds).filter_map(Stream::tell).collect()
    }
}

impl Stream {
    fn tell(&mut self) -> Option<Event> {
        self.differs = None;
        let before = std::mem::replace(&mut self.told, self.is.clone());
        match (&self.is, before) {
            (Some(pause), _) => Some(Event::Paused { at: self.at, pause: pause.clone() }),
            (None, Some(pause)) => Some(Event::Resumed { at: self.at, pause }),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Hears the kinds at the seconds, and tells what was told by each second asked for.
    fn told(heard: &[(u64, Source, Option<&'static str>)], until: u64) -> Vec<(u64, String)> {
        let (mut pauses, mut out) = (Pauses::new(MINUTE), Vec::new());
        for second in 0..=until {
            let now = Mono(Duration::from_secs(second));
            for (_, source, kind) in heard.iter().filter(|(at, ..)| *at == second) {
                let since = Timestamp::UNIX_EPOCH;
                let pause = kind.map(|kind| Pause { kind, reason: format!("{kind} at {second}"), since, until: None });
                pauses.hear(*source, pause, since, now);
            }
            let due = pauses.due();
            out.extend(pauses.take(now).into_iter().map(|event| (second, event.text())));
            assert!(pauses.due().is_none_or(|at| at > now), "{due:?} is done");
        }
        out
    }

    fn line(second: u64, text: &str) -> (u64, String) {
        (second, text.to_owned())
    }

    #[test]
    fn a_pause_is_told_once_it_lasted_and_so_is_its_end() {
        let heard = [(0, Source::Pause, Some("network")), (300, Source::Pause, None)];
        assert_eq!(
            told(&heard, 400),
            [line(60, "paused: network at 0"), line(360, "going on: the pause is over (network at 0)")]
        );
    }

    #[test]
    fn what_lasts_a_moment_is_not_told() {
        let heard = [(0, Source::Pause, Some("network")), (59, Source::Pause, None)];
        assert!(told(&heard, 400).is_empty());
        // Nor is a moment without it.
        let heard = [
            (0, Source::Pause, Some("network")),
            (100, Source::Pause, None),
            (130, Source::Pause, Some("network")),
            (400, Source::Pause, Some("network")),
        ];
        assert_eq!(told(&heard, 600), [line(60, "paused: network at 0")]);
    }

    #[test]
    fn another_kind_of_reason_is_news_and_other_words_are_not() {
        let heard = [
            (0, Source::Pause, Some("network")),
            (30, Source::Pause, Some("network")),
            (100, Source::Pause, Some("credits")),
            (110, Source::Pause, Some("network")),
            (200, Source::Pause, Some("credits")),
        ];
        assert_eq!(told(&heard, 300), [line(60, "paused: network at 30"), line(260, "paused: credits at 200")]);
    }

    #[test]
    fn a_limit_and_a_pause_are_told_apart() {
        let heard = [(0, Source::Limit, Some("limit")), (10, Source::Pause, Some("key")), (20, Source::Limit, None)];
        assert_eq!(told(&heard, 200), [line(70, "paused: key at 10")]);
    }

    #[test]
    fn at_the_end_what_holds_is_told_and_what_is_over_is_not() {
        let mut pauses = Pauses::new(MINUTE);
        let (now, at) = (Mono::default(), Timestamp::UNIX_EPOCH);
        let pause = |kind| Some(Pause { kind, reason: kind.into(), since: at, until: None });
        pauses.hear(Source::Pause, pause("credits"), at, now);
        pauses.hear(Source::Limit, pause("limit"), at, now);
        pauses.hear(Source::Limit, None, at, now);
        let texts: Vec<String> = pauses.take_what_holds().iter().map(Event::text).collect();
        assert_eq!(texts, ["paused: credits"]);
        assert!(pauses.take_what_holds().is_empty() && pauses.due().is_none());
    }
}
