//! What an engine is made of, what is asked of it, and how it ends.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ctx::KeyRing;
use crate::config::Config;
use crate::domain::news::News;
use crate::ledger::thread::LedgerHandle;
use crate::segmind::Client;

/// What a person or the system asks of a running engine.
#[derive(Debug)]
pub enum Control {
    /// Take nothing new, let what is in flight finish within the grace, then end.
    Stop,
    /// The configuration was read again and is good.
    Reload(Box<Config>),
    /// Look at everything now.
    Rescan,
}

/// Something done by the loop itself, and how often. It must not block, and gives whether it could be done: if not, it is
/// tried again soon.
pub type Beat = (Duration, Box<dyn Fn() -> bool + Send>);

/// How others find out whether the loop turns: what was asked last is said back after each turn. It costs nothing
/// while nobody asks.
#[derive(Debug)]
pub struct Pulse {
    /// Numbers that only grow; each wakes the loop.
    pub asked: watch::Receiver<u64>,
    /// The last number whose turn is through.
    pub answered: watch::Sender<u64>,
}

impl Pulse {
    /// Waits until somebody asks, and for ever where nobody can any more.
    pub(super) async fn asked(pulse: Option<&mut Self>) {
        let asked = match pulse {
            Some(pulse) => pulse.asked.changed().await.is_ok(),
            None => false,
        };
        if !asked {
            std::future::pending::<()>().await;
        }
    }

    /// A turn is through.
    pub(super) fn turned(&mut self) {
        let asked = *self.asked.borrow_and_update();
        self.answered.send_if_modified(|answered| std::mem::replace(answered, asked) != asked);
    }
}

/// What holds a lock, for as long as it is kept.
pub type Held = Box<dyn Any + Send>;

/// Locks folders for this process. What it says is for a person.
pub trait Locks: fmt::Debug + Send + Sync {
    /// The inbox itself: nobody else may take anything from it, whatever working folder they have.
    fn inbox(&self, inbox: &Path) -> Result<Held, Locked>;

    /// The working folder.
    fn working(&self, working: &Path, inbox: &Path) -> Result<Held, Locked>;

    /// A place where an earlier run may have had its working folder, and another daemon may have it now; `None` where
    /// no daemon of this inbox ever had.
    fn former_working(&self, working: &Path, inbox: &Path) -> Result<Option<Held>, Locked>;

    /// Whether a folder is the working folder of a daemon that runs: what lies there is in that one's hands. Blocks.
    fn is_in_work(&self, folder: &Path) -> bool;
}

/// Whom the engine tells its news. It is called by the loop and its workers, so it must neither block nor panic.
#[derive(Clone)]
pub struct Tell(Arc<dyn Fn(&News) + Send + Sync>);

impl Tell {
    /// Tells `listener`.
    pub fn new(listener: impl Fn(&News) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(super) fn say(&self, news: &News) {
        (self.0)(news);
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// What the engine is given by the process that it runs in: whom to tell, and what to hold.
pub struct Host {
    /// Called by the loop itself, this often: the watchdog.
    pub beat: Option<Beat>,
    /// Answered by the loop itself, after each turn.
    pub pulse: Option<Pulse>,
    /// Called once, when the first scan is done and the watches are in place.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Keeps other daemons away from what this one works on.
    pub locks: Arc<dyn Locks>,
    /// Told what happens.
    pub tell: Tell,
}

/// Why a folder was not locked.
#[derive(Debug)]
pub enum Locked {
    /// Another daemon holds it.
    Held(String),
    /// Somebody holds it, perhaps for a moment: it is waited for.
    Busy(String),
    /// It could not be tried.
    Failed(String),
}

/// What an engine is made of.
pub struct Deps {
    /// The configuration.
    pub config: Config,
    /// The state directory, which this process has locked.
    pub state_dir: PathBuf,
    /// The ledger.
    pub ledger: LedgerHandle,
    /// Whether the ledger was there and good, or new because there was none or a damaged one.
    pub ledger_was_good: bool,
    /// The key.
    pub keys: Arc<KeyRing>,
    /// The API.
    pub client: Client,
    /// Work off what is there, then end.
    pub once: bool,
    /// What is told.
    pub host: Host,
}

/// How the engine ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Drops that were delivered and archived in this run.
    pub delivered: u64,
    /// Drops that went to errors in this run.
    pub failed: u64,
    /// A worker panicked: the process has to start anew.
    pub crashed: bool,
    /// A preset is broken.
    pub broken_presets: bool,
    /// It ended although something was left that would have been sent: why.
    pub stopped_for: Option<String>,
    /// It stopped since a person asked it to.
    pub cut_short: bool,
}

/// What keeps the engine from running at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A person has to change the configuration or the folders.
    #[error("{0}")]
    Wrong(String),
    /// Another daemon holds this inbox.
    #[error("{0}")]
    Held(String),
    /// The ledger failed at the start.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
    /// The spool or another folder of ours can't be used.
    #[error("{0}")]
    State(String),
}
