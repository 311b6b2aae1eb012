//! The end of drops that went well: their files lie where they belong, and what is left is to make that durable and to
//! close their rows.
//!
//! Several drops share this: each folder is synced once for all of them, and one commit closes all their rows. Nobody
//! waits for it but the log, so it waits a moment for others. Whatever goes wrong in it is left to whoever goes on from
//! the receipt: every step is found again as it was left, and told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::ids::DropId;
use crate::domain::life::Shot;
use crate::ledger::Ending;
use crate::outbox::unsynced::Unsynced;

use super::ctx::{Ctx, blocking};
use super::event::{Event, Kept};

/// How long it waits for others that are on their way.
const TOGETHER: Duration = Duration::from_millis(10);

/// So many may wait: more than are ever on their way at one time where nothing hangs.
const MOST: usize = 64;

/// Drops whose results and originals have moved.
#[derive(Debug, Default)]
pub(super) struct Closing {
    state: Mutex<State>,
    /// Drops whose pictures have come, and that have not moved yet.
    coming: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Moved>,
    /// Where their names changed.
    unsynced: Unsynced,
    /// Somebody closes what waits, and goes on until nothing does.
    running: bool,
}

/// A drop with one shot whose result and originals have moved.
#[derive(Debug)]
pub(super) struct Moved {
    pub id: DropId,
    /// As it was recorded.
    pub kept: Kept,
    /// Its shot, delivered.
    pub delivered: Shot,
    /// When.
    pub at: Timestamp,
}

/// A drop whose picture has come, for as long as it may come to be closed.
pub(super) struct Coming(Arc<Closing>);

impl Closing {
    /// Another is on its way.
    pub(super) fn coming(self: &Arc<Self>) -> Coming {
        self.coming.fetch_add(1, Ordering::Relaxed);
        Coming(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what waits; `None` ends it.
    fn next(&self) -> Option<(Vec<Moved>, Unsynced)> {
        let mut state = self.lock();
        let (all, unsynced) = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.unsynced));
        state.running = !all.is_empty();
        state.running.then_some((all, unsynced))
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.coming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes a drop together with others, and tells the loop of each.
pub(super) async fn close(ctx: Ctx, moved: Box<Moved>, unsynced: Unsynced) {
    if ctx.closing.lock().waiting.len() >= MOST {
        // A folder hangs: each that comes now takes a turn of its own, so that in the end nothing new is claimed.
        return close_all(&ctx, vec![*moved], unsynced).await;
    }
    {
        let mut state = ctx.closing.lock();
        state.waiting.push(*moved);
        state.unsynced.join(unsynced);
        if std::mem::replace(&mut state.running, true) {
            return;
        }
    }
    loop {
        if ctx.closing.coming.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(TOGETHER).await;
        }
        let Some((all, unsynced)) = ctx.closing.next() else { return };
        close_all(&ctx, all, unsynced).await;
    }
}

async fn close_all(ctx: &Ctx, all: Vec<Moved>, unsynced: Unsynced) {
    let (mut rows, mut ended) = (Vec::new(), Vec::new());
    for Moved { id, kept, delivered, at } in all {
        rows.push((id, delivered.clone(), at));
        ended.push((id, kept, delivered));
    }
    let again = ctx.clone();
    let closed = blocking(move || {
        unsynced.sync().ok()?;
        let close = again.record_here(move |l| {
            let close = rows.iter().map(|(id, shot, at)| {
                l.step(*id, shot, shot.state.billed())?;
                l.close(*id, Ending::Archived, None, *at)
            });
            Ok(close.map(|done| done.is_ok()).collect::<Vec<_>>())
        });
        close.ok()
    });
    let closed = closed.await.ok().flatten().unwrap_or_default();
    for (i, (id, mut kept, delivered)) in ended.into_iter().enumerate() {
        let no = delivered.no;
        kept.done = closed.get(i).copied().unwrap_or(false).then(|| Box::new(delivered));
        ctx.send(Event::Kept { drop: id, shot: no, kept: Ok(kept) }).await;
    }
}
