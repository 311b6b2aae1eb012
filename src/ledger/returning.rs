//! What may come back, so that nobody has to ask the ledger of what can't.
//!
//! Promises: whatever [`super::Ledger::recognise`] or [`super::Ledger::seen_picture`] would find is in it, since a drop
//! is noted before its end is committed, and nothing is ever taken out. It may hold more; then the ledger says so.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ids::Fingerprint;

/// The requests and pictures of drops that ended in errors or went back, eight bytes of each fingerprint.
#[derive(Debug, Default)]
pub struct Returning(Mutex<HashSet<[u8; 8]>>);

impl Returning {
    /// Notes what a drop that ends so may be known again by.
    pub fn note(&self, prints: impl IntoIterator<Item = Fingerprint>) {
        self.lock().extend(prints.into_iter().map(start));
    }

    /// Whether the ledger may know one of these.
    pub fn may_know(&self, prints: impl IntoIterator<Item = Fingerprint>) -> bool {
        let known = self.lock();
        prints.into_iter().any(|print| known.contains(&start(print)))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<[u8; 8]>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(print: Fingerprint) -> [u8; 8] {
    let mut start = [0; 8];
    start.copy_from_slice(&print.0[..8]);
    start
}
