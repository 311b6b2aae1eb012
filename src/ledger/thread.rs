//! The one thread that owns the ledger.
//!
//! A transaction waits for the disk, so it must not run on the engine's loop. Calls go through a bounded
//! queue and are worked off in order, one after the other; who calls waits for room and for the answer, so
//! nothing is lost when the disk is slow. Calls that came while the disk was busy with others share one commit, and
//! are answered after it. The thread ends when all handles are gone, after it has worked off what was queued. A panic
//! inside a call is that call's failure; the thread goes on.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::returning::Returning;
use super::{Ledger, LedgerError};

/// How many calls may wait: more than the engine ever has in flight, few enough to bound memory.
const QUEUE: usize = 64;

/// Does its work, and gives what tells its caller how that went, once it is known whether it is durable.
type Job = Box<dyn FnOnce(&mut dyn Ledger) -> Told + Send>;

type Told = Box<dyn FnOnce(Result<(), LedgerError>)>;

/// Starts the thread that owns a ledger.
#[derive(Debug)]
pub struct LedgerThread;

impl LedgerThread {
    /// Gives `ledger` to a thread of its own. Fails only where the system has no thread left.
    pub fn start(mut ledger: Box<dyn Ledger>) -> io::Result<LedgerHandle> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let returning = ledger.returning();
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(move || {
            let mut told: Vec<Told> = Vec::with_capacity(QUEUE);
            while let Some(job) = queue.blocking_recv() {
                ledger.hold();
                told.push(job(ledger.as_mut()));
                while told.len() < QUEUE
                    && let Ok(job) = queue.try_recv()
                {
                    told.push(job(ledger.as_mut()));
                }
                let durable = ledger.flush();
                for tell in told.drain(..) {
                    tell(durable.as_ref().copied().map_err(LedgerError::again));
                }
            }
        })?;
        Ok(LedgerHandle { jobs, returning, thread: Arc::new(thread) })
    }
}

/// A way to the ledger's thread; clones lead to the same one.
#[derive(Clone, Debug)]
pub struct LedgerHandle {
    jobs: mpsc::Sender<Job>,
    returning: Arc<Returning>,
    thread: Arc<JoinHandle<()>>,
}

impl LedgerHandle {
    /// Runs `f` on the ledger's thread and gives its answer, once what it did is durable. Once this waits for the
    /// answer, `f` runs to its end even if the caller is dropped.
    ///
    /// Fails with [`LedgerError::Panicked`] where `f` panicked, [`LedgerError::Gone`] where the thread is, and with
    /// what the disk said where it did not take it: then nothing that `f` did was recorded.
    pub async fn call<T, F>(&self, f: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Ledger) -> T + Send + 'static,
    {
        self.queue(f).await?.await.map_err(|_| LedgerError::Gone)?
    }

    /// Has `f` run on the ledger's thread, before whatever is called from now on, and gives where its answer will come
    /// out, for whom it concerns.
    pub async fn queue<T, F>(&self, f: F) -> Result<oneshot::Receiver<Result<T, LedgerError>>, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Ledger) -> T + Send + 'static,
    {
        let (job, answer) = job(f);
        self.jobs.send(job).await.map_err(|_| LedgerError::Gone)?;
        Ok(answer)
    }

    /// [`Self::call`] for programs without an event loop; it blocks, and panics within one.
    pub fn call_blocking<T, F>(&self, f: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Ledger) -> T + Send + 'static,
    {
        let (job, answer) = job(f);
        self.jobs.blocking_send(job).map_err(|_| LedgerError::Gone)?;
        answer.blocking_recv().map_err(|_| LedgerError::Gone)?
    }

    /// What [`Ledger::recognise`] and [`Ledger::seen_picture`] may find, without asking.
    pub fn returning(&self) -> &Returning {
        &self.returning
    }

    /// Gives this handle up. If it was the last one, or is within `patience`, waits until the thread has worked off what
    /// was queued and has closed the ledger; whether it has. Blocks for as long as that takes.
    pub fn join(self, patience: Duration) -> bool {
        let Self { jobs, mut thread, .. } = self;
        drop(jobs);
        let begun = Instant::now();
        loop {
            match Arc::try_unwrap(thread) {
                Ok(thread) => {
                    // Jobs cannot panic through, see `job`; a ledger whose drop panics is closed all the same.
                    let _ = thread.join();
                    return true;
                }
                // Whoever has just told of the last thing there was has not let go of its handle yet.
                Err(shared) if shared.is_finished() => return true,
                Err(_) if begun.elapsed() >= patience => return false,
                Err(shared) => thread = shared,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// `f` as the thread runs it, and where its answer comes out.
fn job<T, F>(f: F) -> (Job, oneshot::Receiver<Result<T, LedgerError>>)
where
    T: Send + 'static,
    F: FnOnce(&mut dyn Ledger) -> T + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job = Box::new(move |ledger: &mut dyn Ledger| {
        // A ledger is whole after a panic: an unfinished step is rolled back as it is dropped.
        let done = catch_unwind(AssertUnwindSafe(|| f(ledger)));
        let done = done.map_err(|panic| LedgerError::Panicked(words(&*panic)));
        let tell: Told = Box::new(move |durable| {
            // Nobody may be waiting any more; what was done is done.
            let _ = reply.send(done.and_then(|done| durable.map(|()| done)));
        });
        tell
    });
    (job, answer)
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words given").to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc as std_mpsc;

    use super::*;
    use crate::ledger::sqlite::SqliteLedger;

    fn start() -> (tempfile::TempDir, LedgerHandle) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).unwrap();
        (dir, LedgerThread::start(Box::new(ledger)).unwrap())
    }

    /// A call that runs, and holds up the others until it is let go.
    async fn held(handle: &LedgerHandle) -> (std_mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
        let (go, gate) = std_mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let holder = handle.clone();
        let call = tokio::spawn(async move {
            let held = holder.call(move |_| {
                let _ = started.send(());
                gate.recv().unwrap();
            });
            held.await.unwrap();
        });
        running.await.unwrap();
        (go, call)
    }

    #[test]
    fn calls_answer_in_order_and_the_ledger_is_closed_with_the_last_handle() {
        let (dir, handle) = start();
        let other = handle.clone();
        assert!(handle.call_blocking(|l| l.is_fresh()).unwrap().unwrap());
        other.call_blocking(|l| l.trust()).unwrap().unwrap();
        assert!(!handle.call_blocking(|l| l.is_fresh()).unwrap().unwrap());
        assert!(!handle.join(Duration::ZERO), "another one is left");
        // It goes while this one waits for it.
        let late = other.clone();
        std::thread::scope(|scope| {
            let (go, gone) = std_mpsc::channel();
            scope.spawn(move || {
                gone.recv().unwrap();
                late.call_blocking(|l| l.trust()).unwrap().unwrap();
            });
            go.send(()).unwrap();
            assert!(other.join(Duration::from_secs(60)));
        });
        // Closed cleanly: the log is gone.
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name == "ledger.db-wal"), "{names:?}");
    }

    #[tokio::test]
    async fn a_panic_is_that_calls_failure_alone() {
        let (_dir, handle) = start();
        let failed = handle.call(|_| -> () { panic!("on purpose, number {}", 7) }).await;
        assert!(matches!(failed, Err(LedgerError::Panicked(why)) if why == "on purpose, number 7"));
        let failed = handle.call(|_| std::panic::panic_any(7)).await;
        assert!(matches!(failed, Err::<(), _>(LedgerError::Panicked(_))));
        assert!(handle.call(|l| l.is_fresh()).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_and_loses_nothing() {
        let (_dir, handle) = start();
        let (go, first) = held(&handle).await;
        let calls: Vec<_> = (0..3 * QUEUE)
            .map(|n| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.call(move |_| n).await.unwrap() })
            })
            .collect();
        while handle.jobs.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(calls.iter().all(|call| !call.is_finished()));
        go.send(()).unwrap();
        first.await.unwrap();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), n);
        }
    }

    #[tokio::test]
    async fn calls_that_waited_are_answered_after_the_commit_that_they_share() {
        let (dir, handle) = start();
        let (go, first) = held(&handle).await;
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let calls: Vec<_> = (0..10_u8)
            .map(|n| {
                let (handle, seen, path) = (handle.clone(), Arc::clone(&seen), dir.path().join("ledger.db"));
                tokio::spawn(async move {
                    let now = jiff::Timestamp::now();
                    let print = crate::domain::ids::Fingerprint::of(&[n]);
                    let done = handle.call(move |l| {
                        // Another connection sees nothing of it as long as nobody is told.
                        let other = rusqlite::Connection::open(path).unwrap();
                        let count = |r: &rusqlite::Row<'_>| r.get::<_, i64>(0);
                        seen.lock().unwrap().push(other.query_row("SELECT count(*) FROM uploads", [], count).unwrap());
                        l.uploaded(print, "u", now)
                    });
                    done.await.unwrap().unwrap();
                    handle
                        .call(move |l| l.upload_of(print, std::time::Duration::from_secs(60), now))
                        .await
                        .unwrap()
                        .unwrap()
                })
            })
            .collect();
        while handle.jobs.capacity() > QUEUE - 10 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        first.await.unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap().as_deref(), Some("u"));
        }
        assert_eq!(*seen.lock().unwrap(), [0; 10]);
    }

    #[tokio::test]
    async fn what_was_asked_is_done_even_if_nobody_waits_for_the_answer() {
        let (_dir, handle) = start();
        let (go, gate) = std_mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let asker = handle.clone();
        let asking = tokio::spawn(async move {
            asker
                .call(move |ledger| {
                    let _ = started.send(());
                    gate.recv().unwrap();
                    ledger.trust()
                })
                .await
        });
        running.await.unwrap();
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        assert!(!handle.call(|l| l.is_fresh()).await.unwrap().unwrap());

        let (print, now) = (crate::domain::ids::Fingerprint::of(b"one"), jiff::Timestamp::now());
        drop(handle.queue(move |l| l.uploaded(print, "u", now)).await.unwrap());
        let found = handle.call(move |l| l.upload_of(print, std::time::Duration::from_secs(60), now)).await;
        assert_eq!(found.unwrap().unwrap().as_deref(), Some("u"), "what is called later sees it");
    }
}
