//! Directory syncs that are shared: who asks while one runs waits for the next, which serves all who asked by then.
//!
//! Promises: when [`sync_shared`] returns well, a sync of that directory began after it was called and went well.
//! One that failed is told to everybody who waited for it, and is not tried again for them: what it left in memory
//! may count as written.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{fstat, fsync};
use rustix::io::Errno;

/// A directory's device and inode.
type Id = (u64, u64);

/// The syncs of one directory, which are numbered.
#[derive(Debug, Default)]
struct Turns {
    begun: u64,
    ended: u64,
    running: bool,
    /// The last one that failed.
    failed: Option<(u64, Errno)>,
    /// Those who have not returned yet.
    users: usize,
    /// Tells those who wait for this directory, and nobody else.
    ended_one: Arc<Condvar>,
}

static TURNS: Mutex<BTreeMap<Id, Turns>> = Mutex::new(BTreeMap::new());

/// Syncs an open directory, together with whoever asks for the same meanwhile.
pub(super) fn sync_shared(directory: impl AsFd) -> Result<(), Errno> {
    shared(directory.as_fd(), || fsync(directory.as_fd()))
}

#[allow(clippy::cast_lossless, clippy::unnecessary_cast, reason = "the fields' types differ between machines")]
fn shared(directory: impl AsFd, sync: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    let stat = fstat(directory)?;
    let id = (stat.st_dev as u64, stat.st_ino as u64);
    let mut all = lock();
    let turns = all.entry(id).or_default();
    turns.users += 1;
    let ended_one = Arc::clone(&turns.ended_one);
    // One that runs now may have begun before the caller's change.
    let mine = turns.begun + 1;
    let done = loop {
        let turns = all.entry(id).or_default();
        if turns.ended >= mine {
            break match turns.failed {
                Some((number, e)) if number >= mine => Err(e),
                _ => Ok(()),
            };
        }
        if turns.running {
            all = ended_one.wait(all).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        turns.begun += 1;
        turns.running = true;
        let number = turns.begun;
        drop(all);
        let done = sync();
        all = lock();
        let turns = all.entry(id).or_default();
        turns.running = false;
        turns.ended = number;
        if let Err(e) = done {
            turns.failed = Some((number, e));
        }
        ended_one.notify_all();
    };
    if let Some(turns) = all.get_mut(&id) {
        turns.users -= 1;
        if turns.users == 0 {
            all.remove(&id);
        }
    }
    done
}

fn lock() -> MutexGuard<'static, BTreeMap<Id, Turns>> {
    // Nothing panics while it is held.
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Who waits for a sync of this directory now.
    fn users(directory: &File) -> usize {
        let stat = fstat(directory).unwrap();
        lock().get(&(stat.st_dev, stat.st_ino)).map_or(0, |turns| turns.users)
    }

    #[test]
    fn who_comes_while_one_runs_shares_the_next_and_never_the_one_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let directory = File::open(dir.path()).unwrap();
        for failing in [false, true] {
            let (runs, told) = mpsc::channel();
            let (go, gate) = mpsc::channel::<()>();
            let gate = Mutex::new(gate);
            let count = AtomicUsize::new(0);
            let answer = if failing { Err(Errno::IO) } else { Ok(()) };
            let sync = || {
                runs.send(count.fetch_add(1, Ordering::SeqCst)).unwrap();
                gate.lock().unwrap().recv().unwrap();
                answer
            };
            std::thread::scope(|scope| {
                let first = scope.spawn(|| shared(&directory, sync));
                assert_eq!(told.recv().unwrap(), 0);
                let others: Vec<_> = (0..5).map(|_| scope.spawn(|| shared(&directory, sync))).collect();
                while users(&directory) < 6 {
                    std::thread::yield_now();
                }
                assert!(others.iter().all(|other| !other.is_finished()));
                go.send(()).unwrap();
                assert_eq!(first.join().unwrap(), answer);
                assert_eq!(told.recv().unwrap(), 1);
                go.send(()).unwrap();
                for other in others {
                    assert_eq!(other.join().unwrap(), answer);
                }
            });
            assert_eq!(count.into_inner(), 2);
            assert_eq!(users(&directory), 0);
        }
        sync_shared(&directory).unwrap();
    }
}
