//! A few threads for all decoding of pictures.
//!
//! As many as there are cores, but [`MOST`] at the most, for good: the system's allocator keeps memory back for each
//! thread that ever decoded a large picture. The budget of bytes is for what lies in memory at one time.

use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// Threads at the most.
const MOST: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// The way to the decoding threads, which end with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Studio(SyncSender<Job>);

impl Studio {
    /// Starts the threads.
    pub(super) fn open() -> io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(64);
        let todo = Arc::new(Mutex::new(todo));
        for n in 0..thread::available_parallelism().map_or(1, NonZero::get).min(MOST) {
            let todo = Arc::clone(&todo);
            thread::Builder::new().name(format!("pictures-{n}")).spawn(move || {
                while let Some(job) = next(&todo) {
                    // Each job tells of its own panics by answering nothing.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self(jobs))
    }

    /// Runs `work` there. The error is for a person.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let (answer, answered) = oneshot::channel();
        let jobs = self.0.clone();
        let job: Job = Box::new(move || drop(answer.send(work())));
        // A full queue is waited for where that is allowed.
        super::ctx::blocking(move || jobs.send(job).map_err(|_| "the decoding threads have ended".to_owned()))
            .await??;
        answered.await.map_err(|_| "decoding it failed in a way nobody foresaw".to_owned())
    }
}

/// The next job, waited for by one thread at a time; `None` when there can be no more.
fn next(todo: &Mutex<Receiver<Job>>) -> Option<Job> {
    todo.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
