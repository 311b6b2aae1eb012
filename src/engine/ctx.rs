//! What every worker may use.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::domain::ids::{Fingerprint, Mono};
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

/// The API key as it was last read, of one configuration: another one has a ring of its own, so that no key goes to
/// the hosts of another configuration than its own.
#[derive(Debug)]
pub struct KeyRing {
    source: KeySource,
    key: Mutex<Known>,
}

#[derive(Debug)]
enum Known {
    Unread,
    Read(Option<Arc<ApiKey>>),
}

impl KeyRing {
    /// Reads nothing yet.
    pub fn new(source: KeySource) -> Self {
        Self { source, key: Mutex::new(Known::Unread) }
    }

    /// One for a configuration with this `[api] key_file`. Reads nothing yet.
    #[must_use]
    pub fn with_file(&self, file: Option<std::path::PathBuf>) -> Self {
        Self::new(KeySource { key_file: file, ..self.source.clone() })
    }

    /// Reads the key again. Blocks on the disk. A key that can't be read any more is forgotten.
    pub fn read(&self) -> Result<(), KeyError> {
        let (key, done) = match self.source.read() {
            Ok(key) => (Some(Arc::new(key)), Ok(())),
            Err(e) => (None, Err(e)),
        };
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Known::Read(key);
        done
    }

    /// The key, if it was read.
    pub fn key(&self) -> Option<Arc<ApiKey>> {
        match &*self.key.lock().unwrap_or_else(PoisonError::into_inner) {
            Known::Unread => None,
            Known::Read(key) => key.clone(),
        }
    }

    /// [`Self::key`], read first where nobody has yet: to be blacked out. Blocks on the disk.
    pub(super) fn key_here(&self) -> Option<Arc<ApiKey>> {
        if self.is_unread() {
            let _ = self.read();
        }
        self.key()
    }

    fn is_unread(&self) -> bool {
        matches!(*self.key.lock().unwrap_or_else(PoisonError::into_inner), Known::Unread)
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

/// How long a look that found nothing in the way serves those who ask after it, too.
const LOOK_SERVES: Duration = Duration::from_millis(5);

/// The last look at the daemon's own folders that found nothing in the way.
#[derive(Debug, Default)]
pub(super) struct LastLook(Mutex<Option<Good>>);

#[derive(Debug)]
struct Good {
    begun: Mono,
    site: Arc<Site>,
    /// So many bytes were reserved for results.
    bytes: u64,
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
    pub last_look: Arc<LastLook>,
    pub locks: Arc<dyn super::Locks>,
    pub closing: Arc<super::closing::Closing>,
    /// The loop has ended: nothing is begun any more.
    pub ended: Arc<AtomicBool>,
    pub clock: Clock,
    pub tell: Tell,
    pub tx: mpsc::Sender<Event>,
}

impl Ctx {
    /// Sends an event to the loop. Only a loop that has ended does not take it.
    pub(super) async fn send(&self, event: Event) {
        let _ = self.tx.send(event).await;
    }

    /// [`Site::trouble`], looked for before a send. Blocks on the disk. Sends that come close upon one another share a
    /// look: what a disk lacks between them, it would lack behind the look of each as well.
    pub(super) fn trouble(&self, bytes: u64) -> Option<String> {
        let mut last = match self.last_look.0.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            // That look may hang, with a server that is dead.
            Err(TryLockError::WouldBlock) => return self.site.trouble(bytes),
        };
        let begun = self.clock.mono();
        let serves = |good: &Good| {
            begun.since(good.begun) < LOOK_SERVES && good.bytes >= bytes && Arc::ptr_eq(&good.site, &self.site)
        };
        if last.as_ref().is_some_and(serves) {
            return None;
        }
        let trouble = self.site.trouble(bytes);
        *last = trouble.is_none().then(|| Good { begun, site: Arc::clone(&self.site), bytes });
        trouble
    }

    /// Whether the loop has ended: whatever has no row yet gets none.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// The key of this configuration, read first where nobody has yet.
    pub(super) async fn key(&self) -> Option<Arc<ApiKey>> {
        if self.keys.is_unread() {
            let keys = Arc::clone(&self.keys);
            // Why it can't be read is told by whoever read the configuration.
            let _ = blocking(move || keys.read()).await;
        }
        self.keys.key()
    }

    /// One transaction of the ledger.
    pub(super) async fn record<T, F>(&self, f: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Ledger) -> Result<T, LedgerError> + Send + 'static,
    {
        self.ledger.call(f).await?
    }

    /// [`Self::record`] where blocking is allowed: whoever is there waits for the disk without a trip back.
    pub(super) fn record_here<T, F>(&self, f: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Ledger) -> Result<T, LedgerError> + Send + 'static,
    {
        self.ledger.call_blocking(f)?
    }

    /// [`Self::send`] where blocking is allowed.
    pub(super) fn send_here(&self, event: Event) {
        let _ = self.tx.blocking_send(event);
    }
}

/// So many calls of the engine may block at once: fewer than there are threads for it, so that the status is written
/// and answers are kept although a dead server lets all of these hang.
static MAY_BLOCK: Semaphore = Semaphore::const_new(12);

/// A turn of those that may block, if one is free just now.
pub(super) fn turn_now() -> Option<SemaphorePermit<'static>> {
    MAY_BLOCK.try_acquire().ok()
}

/// Runs what blocks where that is allowed. A panic there becomes an error for a person.
///
/// Where one of the threads may be had at once, it begins now, before the answer is waited for.
pub(super) fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, String>> + Send {
    let begun = match turn_now() {
        Some(turn) => Ok(begin(turn, f)),
        None => Err(f),
    };
    async move {
        let failed = |e: &dyn std::fmt::Display| format!("a worker failed: {e}");
        let done = match begun {
            Ok(begun) => begun,
            Err(f) => begin(MAY_BLOCK.acquire().await.map_err(|e| failed(&e))?, f),
        };
        done.await.map_err(|e| failed(&e))
    }
}

/// Runs what blocks and tells the loop of it by itself; `otherwise` is what is told where that panicked. Nobody else
/// waits for it, so no other thread is woken; where there is no turn for it at once, a future is given that waits for one.
pub(super) fn telling(
    ctx: Ctx,
    f: impl FnOnce(&Ctx) -> Option<Event> + Send + 'static,
    otherwise: impl FnOnce() -> Option<Event> + Send + 'static,
) -> Option<impl Future<Output = ()> + Send> {
    let told = move || {
        let event = catch_unwind(AssertUnwindSafe(|| f(&ctx))).unwrap_or_else(|_| otherwise());
        if let Some(event) = event {
            ctx.send_here(event);
        }
    };
    match turn_now() {
        Some(turn) => {
            drop(begin(turn, told));
            None
        }
        None => Some(async move { drop(blocking(told).await) }),
    }
}

fn begin<T: Send + 'static>(turn: SemaphorePermit<'static>, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || {
        // Until it is done, whoever waits for it or not.
        let _turn = turn;
        f()
    })
}
