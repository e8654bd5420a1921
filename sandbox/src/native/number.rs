//! Numbers of slots: each means host ids and control groups that no other live slot has.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Gives out numbers below a bound.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    bound: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the search begins: what was given back last may still be dying, and comes last.
    next: u32,
    taken: BTreeSet<u32>,
}

impl Numbers {
    pub(super) fn below(bound: u32) -> Self {
        Self { bound, state: Arc::default() }
    }

    /// Returns a number that nobody has; `None` when there is none.
    pub(super) fn take(&self) -> Option<Number> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.next;
        let mut numbers = (next..self.bound).chain(0..next.min(self.bound));
        let number = numbers.find(|number| !state.taken.contains(number))?;
        state.taken.insert(number);
        state.next = (number + 1) % self.bound;
        Some(Number { number, state: Arc::clone(&self.state) })
    }
}

/// A number that is taken as long as this lives.
#[derive(Debug)]
pub(super) struct Number {
    number: u32,
    state: Arc<Mutex<State>>,
}

impl Number {
    pub(super) fn get(&self) -> u32 {
        self.number
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same_and_the_last_one_free_comes_last() {
        let numbers = Numbers::below(3);
        let take = || numbers.take().map(|number| number.get());
        let (first, second) = (numbers.take().unwrap(), numbers.take().unwrap());
        assert_eq!((first.get(), second.get()), (0, 1));
        drop(second);
        let third = numbers.take().unwrap();
        assert_eq!(third.get(), 2);
        assert_eq!(take(), Some(1), "round once");
        let again = numbers.take().unwrap();
        assert_eq!((again.get(), take()), (1, None), "all are taken");
        drop(first);
        assert_eq!(take(), Some(0));
    }
}
