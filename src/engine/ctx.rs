//! What every worker may use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};

use crate::config::Config;
use crate::domain::ids::Fingerprint;
use crate::ledger::thread::LedgerHandle;
use crate::ledger::{Ledger, LedgerError};
use crate::outbox::listing::Listings;
use crate::outbox::spool::Spool;
use crate::reference::Budget;
use crate::segmind::{ApiKey, Client, KeyError, KeySource};

use super::clock::Clock;
use super::event::Event;
use super::parts::Tell;
use super::site::Site;

/// The longest picture that is taken from the service. Far above what it sends (about a megapixel).
pub(super) const MAX_RESULT_BYTES: u64 = 64 * 1024 * 1024;

/// The API key as it was last read.
#[derive(Debug)]
pub struct KeyRing {
    source: Mutex<KeySource>,
    key: Mutex<Option<Arc<ApiKey>>>,
}

impl KeyRing {
    /// Reads nothing yet.
    pub fn new(source: KeySource) -> Self {
        Self { source: Mutex::new(source), key: Mutex::new(None) }
    }

    /// Reads the key again. Blocks on the disk. A key that can't be read any more is forgotten.
    pub fn read(&self) -> Result<(), KeyError> {
        let read = self.source.lock().unwrap_or_else(PoisonError::into_inner).read();
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(new) => {
                *key = Some(Arc::new(new));
                Ok(())
            }
            Err(e) => {
                *key = None;
                Err(e)
            }
        }
    }

    /// Another `[api] key_file` from now on.
    pub fn set_file(&self, file: Option<std::path::PathBuf>) {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).key_file = file;
    }

    /// The key.
    pub fn key(&self) -> Option<Arc<ApiKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One upload at a time for the same bytes, so that the second finds the first's in the cache.
#[derive(Debug, Default)]
pub(super) struct SingleFlight(Mutex<HashMap<Fingerprint, Arc<tokio::sync::Mutex<()>>>>);

impl SingleFlight {
    /// The turn of `key`: hold its lock while looking and uploading.
    pub(super) fn turn(&self, key: Fingerprint) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(key).or_default())
    }
}

/// What every worker may use. A new one is made when the configuration is read again or the inbox comes back;
/// workers that run go on with theirs.
#[derive(Clone, Debug)]
pub(super) struct Ctx {
    pub config: Arc<Config>,
    pub site: Arc<Site>,
    pub ledger: LedgerHandle,
    pub client: Client,
    pub keys: Arc<KeyRing>,
    pub spool: Arc<Spool>,
    pub listings: Arc<Listings>,
    pub budget: Arc<Budget>,
    pub studio: super::studio::Studio,
    pub uploads: Arc<SingleFlight>,
    pub clock: Clock,
    pub tell: Tell,
    pub tx: mpsc::Sender<Event>,
}

impl Ctx {
    /// Sends an event to the loop. Only a loop that has ended does not take it.
    pub(super) async fn send(&self, event: Event) {
        let _ = self.tx.send(event).await;
    }

    /// One transaction of the ledger.
    pub(super) async fn record<T, F>(&self, f: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Ledger) -> Result<T, LedgerError> + Send + 'static,
    {
        self.ledger.call(f).await?
    }
}

/// So many calls of the engine may block at once: fewer than there are threads for it, so that the status is written
/// and answers are kept although a dead server lets all of these hang.
static MAY_BLOCK: Semaphore = Semaphore::const_new(12);

/// Runs what blocks where that is allowed. A panic there becomes an error for a person.
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let failed = |e: &dyn std::fmt::Display| format!("a worker failed: {e}");
    let turn = MAY_BLOCK.acquire().await.map_err(|e| failed(&e))?;
    let work = move || {
        // Until it is done, whoever waits for it or not.
        let _turn = turn;
        f()
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| failed(&e))
}
