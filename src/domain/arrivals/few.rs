//! A list that nearly always holds one: that one lies in place, without an allocation of its own.

use std::ops::{Deref, DerefMut};

/// Any number of `T`, made for one.
#[derive(Clone, Debug)]
pub(super) enum Few<T> {
    One(T),
    /// None, or more than one.
    Many(Vec<T>),
}

impl<T> Few<T> {
    pub(super) const fn new() -> Self {
        Self::Many(Vec::new())
    }

    pub(super) fn insert(&mut self, at: usize, new: T) {
        self.change(|all| {
            all.reserve_exact(1);
            all.insert(at, new);
        });
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.change(|all| all.remove(at));
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut Vec<T>) -> R) {
        let mut all = match std::mem::replace(self, Self::new()) {
            Self::One(one) => vec![one],
            Self::Many(all) => all,
        };
        change(&mut all);
        *self = all.into();
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut all: Vec<T>) -> Self {
        match all.pop() {
            Some(one) if all.is_empty() => Self::One(one),
            last => {
                all.extend(last);
                Self::Many(all)
            }
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(all) => all,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lies_in_place_and_more_keep_their_order() {
        let mut few = Few::new();
        few.insert(0, 2);
        assert!(matches!(few, Few::One(2)));
        few.insert(0, 1);
        few.insert(2, 3);
        assert_eq!(*few, [1, 2, 3]);
        few.remove(1);
        assert_eq!(*few, [1, 3]);
        few.remove(0);
        assert!(matches!(few, Few::One(3)));
        few.remove(0);
        assert!(few.is_empty());
    }
}
