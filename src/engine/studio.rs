//! One thread for all decoding of pictures.
//!
//! The system's allocator keeps tens of megabytes back for each thread that ever decoded a large picture. So
//! there is one, for good, and the budget of bytes is for what lies in memory at one time. The service takes
//! far fewer pictures a minute than one thread prepares.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The way to the decoding thread, which ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Studio(SyncSender<Job>);

impl Studio {
    /// Starts the thread.
    pub(super) fn open() -> io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(64);
        thread::Builder::new().name("pictures".into()).spawn(move || {
            for job in todo {
                // Each job tells of its own panics by answering nothing.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self(jobs))
    }

    /// Runs `work` there. The error is for a person.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let (answer, answered) = oneshot::channel();
        let jobs = self.0.clone();
        let job: Job = Box::new(move || drop(answer.send(work())));
        // A full queue is waited for where that is allowed.
        super::ctx::blocking(move || jobs.send(job).map_err(|_| "the decoding thread has ended".to_owned())).await??;
        answered.await.map_err(|_| "decoding it failed in a way nobody foresaw".to_owned())
    }
}
