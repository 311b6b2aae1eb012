//! The gate that keeps memory from growing with the backlog.
//!
//! Promises: the bytes that are counted at one time stay within the capacity, except for one picture that is
//! larger than that by itself and then runs alone. First come, first served, so a large one does not starve.
//! It does not measure memory: who decodes says beforehand how much it takes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A counting gate in bytes. It blocks, so it belongs on threads that may block.
#[derive(Debug)]
pub struct Budget {
    capacity: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: u64,
    next_ticket: u64,
    serving: u64,
}

impl Default for Budget {
    /// 128 MB: one photograph of 24 megapixels at a time, or many small ones.
    fn default() -> Self {
        Self::new(128 * 1024 * 1024)
    }
}

impl Budget {
    /// A gate for `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            state: Mutex::new(State { free: capacity, next_ticket: 0, serving: 0 }),
            changed: Condvar::new(),
        }
    }

    /// Waits until `bytes` are free, and takes them. More than the capacity takes all of it.
    pub fn take(&self, bytes: u64) -> Permit<'_> {
        let bytes = bytes.min(self.capacity);
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        while state.serving != ticket || state.free < bytes {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.serving += 1;
        state.free -= bytes;
        drop(state);
        self.changed.notify_all();
        Permit { budget: self, bytes }
    }

    // Nothing panics while it holds the lock, so a poisoned state is still a right one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, bytes: u64) {
        self.lock().free += bytes;
        self.changed.notify_all();
    }
}

/// Bytes taken from a [`Budget`]; dropping it gives them back.
#[derive(Debug)]
pub struct Permit<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Permit<'_> {
    /// Gives back all but `bytes`. Never takes more.
    pub fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(surplus);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn what_is_taken_at_one_time_stays_within_the_capacity() {
        let budget = Budget::new(100);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|s| {
            for worker in 0..8_u64 {
                let (budget, now, most) = (&budget, &now, &most);
                s.spawn(move || {
                    for round in 0..200 {
                        let bytes = (worker * 31 + round * 17) % 60 + 1;
                        let permit = budget.take(bytes);
                        let held = now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(held, Ordering::SeqCst);
                        now.fetch_sub(bytes, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 100);
        assert_eq!(budget.state.lock().unwrap().free, 100);
    }

    #[test]
    fn more_than_the_capacity_takes_all_of_it_and_gives_it_back() {
        let budget = Budget::new(10);
        let mut permit = budget.take(1000);
        assert_eq!(budget.state.lock().unwrap().free, 0);
        permit.shrink(3);
        permit.shrink(9);
        assert_eq!(budget.state.lock().unwrap().free, 7);
        drop(permit);
        assert_eq!(budget.state.lock().unwrap().free, 10);
    }
}
