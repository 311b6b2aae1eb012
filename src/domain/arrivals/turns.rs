//! Whose turn it is among folders: the highest priority first, then the one served least recently.

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Folders that have something to send. Putting in, taking out and asking cost the logarithm of their number.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: BTreeSet<(Reverse<i64>, u64, u32)>,
    count: u64,
}

/// A folder's standing: what it was put in with, to find it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    priority: i64,
    served: u64,
    queued: bool,
}

impl Turns {
    /// Puts `folder` in or takes it out, with the priority it has now.
    pub(super) fn set(&mut self, folder: u32, standing: &mut Standing, priority: i64, queued: bool) {
        if (standing.priority, standing.queued) == (priority, queued) {
            return;
        }
        if standing.queued {
            self.order.remove(&(Reverse(standing.priority), standing.served, folder));
        }
        (standing.priority, standing.queued) = (priority, queued);
        if queued {
            self.order.insert((Reverse(priority), standing.served, folder));
        }
    }

    /// Whose turn it is.
    pub(super) fn next(&self) -> Option<u32> {
        self.order.first().map(|(_, _, folder)| *folder)
    }

    /// `folder` had its turn.
    pub(super) fn served(&mut self, folder: u32, standing: &mut Standing) {
        let (priority, queued) = (standing.priority, standing.queued);
        self.set(folder, standing, priority, false);
        self.count += 1;
        standing.served = self.count;
        self.set(folder, standing, priority, queued);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_take_turns_and_priority_goes_first() {
        let mut turns = Turns::default();
        let mut standings = [Standing::default(); 3];
        for (folder, standing) in (0..).zip(&mut standings) {
            turns.set(folder, standing, i64::from(folder == 2), true);
        }
        let mut told = Vec::new();
        for step in 0..6 {
            let Some(next) = turns.next() else { break };
            told.push(next);
            turns.served(next, &mut standings[next as usize]);
            if step == 1 {
                turns.set(2, &mut standings[2], 1, false);
            }
        }
        assert_eq!(told, [2, 2, 0, 1, 0, 1]);
    }
}
