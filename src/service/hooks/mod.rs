//! Tells programs and a webhook what happened.
//!
//! The engine never waits for any of it: [`Listener::hear`] puts an event into a bounded queue and returns. A task
//! takes them out, runs programs (so many at once, each with a time limit) and hands on what is posted, which has a
//! task and an order of its own. What goes wrong is logged and harms nobody. It promises to tell each event at
//! most once: what is still in a queue when the process is killed is never told.
//!
//! It knows neither the key nor any asset's address, since events hold none, and a program gets an environment of
//! its own.

mod look;
mod programs;
mod secret;
mod webhook;

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::domain::hooks::{Event, Pause, Pauses, Settings, Source};
use crate::domain::ids::Mono;
use crate::domain::news::News;

use webhook::Post;

/// Events that wait, for programs and for the webhook each. What comes when there are so many is not told.
const MOST_WAITING: usize = 1_000;

/// Programs that are started at once. A start is short, unless its disk hangs; then it holds a thread.
const STARTS: usize = 4;

/// What is cut at the end is over by then, whatever hangs.
const CUT_WAIT: Duration = Duration::from_secs(3);

/// What the listener heard.
enum Heard {
    Event(Box<Event>),
    /// How it is from now on with what can keep everything from being sent.
    Pause(Source, Option<Pause>, Timestamp),
}

enum Order {
    Reload(Box<Settings>),
    /// Tell what waits, and a pause that holds if `pause`, then end.
    Finish {
        pause: bool,
    },
}

/// Hears the news, and never blocks.
#[derive(Clone, Debug)]
pub struct Listener {
    heard: mpsc::Sender<Heard>,
    missed: Arc<AtomicU64>,
}

impl Listener {
    /// Takes in what is to be told.
    pub fn hear(&self, news: &News) {
        let at = Timestamp::now();
        let heard = match news {
            News::Paused { kind, reason, since, until } => {
                let pause = Pause { kind: kind.label(), reason: reason.clone(), since: *since, until: *until };
                Heard::Pause(Source::Pause, Some(pause), at)
            }
            News::Resumed => Heard::Pause(Source::Pause, None, at),
            News::Limited { which, until } => {
                let reason = format!("the limit {which} is reached: the queue waits in the inbox");
                let pause = Pause { kind: "limit", reason, since: at, until: Some(*until) };
                Heard::Pause(Source::Limit, Some(pause), at)
            }
            News::LimitOver => Heard::Pause(Source::Limit, None, at),
            other => match Event::of(other, at) {
                Some(event) => Heard::Event(Box::new(event)),
                None => return,
            },
        };
        if self.heard.try_send(heard).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// There is no client for the webhook.
    #[error(
        "[hooks] webhook_url can't be used (are the certificate authorities installed? package ca-certificates): {0}"
    )]
    Client(String),
}

/// The tasks that tell.
#[derive(Debug)]
pub struct Hooks {
    listener: Listener,
    orders: mpsc::Sender<Order>,
    teller: JoinHandle<u64>,
    give_up: CancellationToken,
}

impl Hooks {
    /// Begins to tell. `credentials` is systemd's folder of credentials, if there is one. Must be called within a
    /// runtime.
    ///
    /// Whatever is wrong with hooks is logged, and is no reason not to work.
    pub fn start(settings: Settings, credentials: Option<PathBuf>) -> Self {
        let post = Post::new(&settings, credentials.as_deref()).unwrap_or_else(|e| {
            tracing::error!("{e}; nothing is posted until that is mended and the configuration read again");
            None
        });
        let looks = Arc::new(Semaphore::new(1));
        look::complain(&settings, credentials.as_deref(), &looks);
        let (heard, hearing) = mpsc::channel(MOST_WAITING);
        let (orders, ordered) = mpsc::channel(4);
        let missed = Arc::new(AtomicU64::new(0));
        let give_up = CancellationToken::new();
        let (post, posts) = watch::channel(post);
        let (to_post, posted) = mpsc::channel(MOST_WAITING);
        let finish = CancellationToken::new();
        let sender = tokio::spawn(webhook::run(posted, posts, finish.clone(), give_up.clone()));
        let teller = Teller {
            pauses: Pauses::new(settings.paused_after),
            settings,
            credentials,
            hearing,
            ordered,
            missed: missed.clone(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            starts: Arc::new(Semaphore::new(STARTS)),
            looks,
            to_post,
            sender,
            post,
            untold: 0,
            said: 0,
            began: Instant::now(),
            finish,
            give_up: give_up.clone(),
        };
        let teller = tokio::spawn(teller.run());
        Self { listener: Listener { heard, missed }, orders, teller, give_up }
    }

    /// Who hears the news.
    pub fn listener(&self) -> Listener {
        self.listener.clone()
    }

    /// Other settings from now on, also for what waits.
    pub async fn reload(&self, settings: Settings) {
        let _ = self.orders.send(Order::Reload(Box::new(settings))).await;
    }

    /// Tells what was heard until `cut`, then ends; with `pause` also of a pause that holds. How many events were
    /// never told; the log has said so.
    pub async fn finish(mut self, pause: bool, cut: impl Future<Output = ()>) -> u64 {
        let _ = self.orders.send(Order::Finish { pause }).await;
        tokio::select! {
            left = &mut self.teller => return left.unwrap_or_default(),
            () = cut => self.give_up.cancel(),
        }
        if let Ok(left) = tokio::time::timeout(CUT_WAIT, &mut self.teller).await {
            return left.unwrap_or_default();
        }
        tracing::warn!("ended while a hook hung: what was still to be told was not");
        self.teller.abort();
        0
    }
}

/// What is wrong with these settings on this machine, for a person: programs, the secret. Blocks on the disk.
pub use look::problems;

struct Teller {
    settings: Settings,
    credentials: Option<PathBuf>,
    hearing: mpsc::Receiver<Heard>,
    ordered: mpsc::Receiver<Order>,
    missed: Arc<AtomicU64>,
    pauses: Pauses,
    /// Events for programs, oldest first.
    waiting: VecDeque<Arc<Event>>,
    running: JoinSet<()>,
    starts: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    to_post: mpsc::Sender<Arc<Event>>,
    sender: JoinHandle<usize>,
    post: watch::Sender<Option<Arc<Post>>>,
    /// Events that found a queue full, since that was last said.
    untold: u64,
    /// Those of which it was said.
    said: u64,
    began: Instant,
    /// Nothing new is heard.
    finish: CancellationToken,
    give_up: CancellationToken,
}

impl Teller {
    /// How many events were never told.
    async fn run(mut self) -> u64 {
        let mut finishing = false;
        while !(finishing && self.waiting.is_empty() && self.running.is_empty()) {
            let due = self.pauses.due().map(|at| self.began + at.0);
            tokio::select! {
                biased;
                () = self.give_up.cancelled() => break,
                order = self.ordered.recv(), if !finishing => match order {
                    Some(Order::Reload(settings)) => self.reload(*settings),
                    Some(Order::Finish { pause }) => {
                        finishing = true;
                        self.finish.cancel();
                        self.hear_the_rest(pause);
                    }
                    // Whoever began this is gone.
                    None => {
                        finishing = true;
                        self.give_up.cancel();
                    }
                },
                Some(_) = self.running.join_next() => {}
                Some(heard) = self.hearing.recv() => self.hear(heard),
                () = sleep_until(due), if !finishing => {
                    for event in self.pauses.take(self.now()) {
                        self.tell(event);
                    }
                }
            }
            self.start_programs();
            self.say_what_was_missed();
        }
        // Where it was cut, some were not even heard.
        self.hear_the_rest(false);
        let mut left = self.waiting.len();
        // Those that still run are ended by the same token, and their groups with them.
        while self.running.join_next().await.is_some() {}
        let Self { to_post, sender, untold, said, missed, .. } = self;
        drop(to_post);
        left += sender.await.unwrap_or_default();
        let left = left as u64 + untold + missed.load(Ordering::Relaxed);
        if left > 0 {
            tracing::warn!(events = left, "ended before everything was told: these events were not");
        }
        left + said
    }

    fn now(&self) -> Mono {
        Mono(self.began.elapsed())
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Event(event) => self.tell(*event),
            Heard::Pause(source, pause, at) => {
                let now = self.now();
                self.pauses.hear(source, pause, at, now);
                for event in self.pauses.take(now) {
                    self.tell(event);
                }
            }
        }
    }

    fn hear_the_rest(&mut self, pause: bool) {
        while let Ok(heard) = self.hearing.try_recv() {
            self.hear(heard);
        }
        if pause {
            for event in self.pauses.take_what_holds() {
                self.tell(event);
            }
        }
    }

    /// Puts an event into the queues of those who want it.
    fn tell(&mut self, event: Event) {
        let on = event.on();
        let event = Arc::new(event);
        let mut full = false;
        if self.settings.programs.contains_key(&on) {
            full |= self.waiting.len() >= MOST_WAITING;
            if !full {
                self.waiting.push_back(event.clone());
            }
        }
        if self.settings.posts(on) {
            full |= self.to_post.try_send(event).is_err();
        }
        if full {
            if self.untold == 0 {
                tracing::warn!(
                    waiting = MOST_WAITING,
                    "hooks are too slow for what happens: events are not told until fewer wait (reimagined status and history know them)"
                );
            }
            self.untold += 1;
        }
    }

    /// Says how many events were not told, once there is room again.
    fn say_what_was_missed(&mut self) {
        self.untold += self.missed.swap(0, Ordering::Relaxed);
        let roomy = self.waiting.len() < MOST_WAITING / 2 && self.to_post.capacity() > MOST_WAITING / 2;
        if self.untold > 0 && roomy {
            tracing::warn!(events = self.untold, "these events were not told, as too many waited; now they are again");
            self.said += self.untold;
            self.untold = 0;
        }
    }

    fn start_programs(&mut self) {
        while self.running.len() < self.settings.max_running as usize
            && let Some(event) = self.waiting.pop_front()
        {
            // A reload may have taken it away.
            let Some(command) = self.settings.programs.get(&event.on()).cloned() else { continue };
            let (give_up, starts) = (self.give_up.clone(), self.starts.clone());
            let terms = programs::Terms { limit: self.settings.timeout, give_up, starts };
            self.running.spawn(programs::run(command, event, terms));
        }
    }

    fn reload(&mut self, settings: Settings) {
        match Post::new(&settings, self.credentials.as_deref()) {
            Ok(post) => drop(self.post.send_replace(post)),
            Err(e) => tracing::error!("{e}; the old webhook stays"),
        }
        look::complain(&settings, self.credentials.as_deref(), &self.looks);
        self.pauses.set(settings.paused_after);
        self.settings = settings;
    }
}

/// The version that is told.
const VERSION: &str = env!("CARGO_PKG_VERSION");

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// How long something took for people, or may take.
fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::arrivals::Reason;
    use crate::domain::hooks::{Command, On};
    use crate::domain::ids::{Place, RelPath};

    #[tokio::test]
    async fn what_comes_while_a_queue_is_full_is_counted_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        let words = ["-c".into(), format!("touch '{}'; sleep 1000", begun.display())];
        let endless = Command::new("/bin/sh".into(), &words, On::Waiting).unwrap();
        let settings = Settings {
            programs: [(On::Waiting, endless)].into(),
            timeout: Duration::from_secs(1000),
            max_running: 1,
            ..Settings::default()
        };
        let hooks = Hooks::start(settings, None);
        let listener = hooks.listener();
        let place = Place { folder: RelPath::root(), name: "a.jpg".into() };
        let since = Timestamp::UNIX_EPOCH;
        let news = News::Waiting { place, reason: Reason::Prompt, since, others: 0 };
        for n in 0..3 * MOST_WAITING {
            listener.hear(&news);
            // Some find the first queue full, and some the second.
            if n % 700 == 0 {
                tokio::task::yield_now().await;
            }
        }
        while !begun.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let untold = hooks.finish(false, std::future::ready(())).await;
        assert_eq!(untold, 3 * MOST_WAITING as u64 - 1, "all but the one that was begun");
    }
}
