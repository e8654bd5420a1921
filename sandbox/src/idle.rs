//! What rests in a pool, and how much of it nobody needs.

use std::collections::VecDeque;

/// Slots without a sandbox, the one that has rested longest first.
///
/// A burst leaves more than the high watermark. They stay for the next burst, until for a whole while
/// fewer would have done.
#[derive(Debug)]
pub(crate) struct Idle<T> {
    slots: VecDeque<T>,
    /// The high watermark.
    high: usize,
    /// How many there may be even for a while.
    most: usize,
    /// How few there were at any time of this while.
    least: usize,
    /// Whether somebody comes at the end of this while.
    is_watched: bool,
}

impl<T> Idle<T> {
    pub(crate) fn new(high: usize, most: usize) -> Self {
        Self { slots: VecDeque::new(), high, most: most.max(high), least: 0, is_watched: false }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.slots.iter()
    }

    /// Puts one to rest. Returns the one that has to go for it, if they are too many, and whether
    /// [`needless`](Self::needless) is to be called after a while.
    #[must_use]
    pub(crate) fn put(&mut self, slot: T) -> (Option<T>, bool) {
        self.slots.push_back(slot);
        let is_full = self.slots.len() > self.most;
        let gone = if is_full { self.slots.pop_front() } else { None };
        let begins = self.slots.len() > self.high && !self.is_watched;
        if begins {
            self.is_watched = true;
            self.least = self.slots.len();
        }
        (gone, begins)
    }

    pub(crate) fn take(&mut self, place: usize) -> Option<T> {
        let slot = self.slots.remove(place);
        self.least = self.least.min(self.slots.len());
        slot
    }

    /// Returns the ones that have rested longest, beyond this number.
    #[cfg(any(feature = "docker", test))]
    pub(crate) fn beyond(&mut self, most: usize) -> Vec<T> {
        let surplus = self.slots.len().saturating_sub(most);
        self.least = self.least.min(most);
        self.slots.drain(..surplus).collect()
    }

    /// Ends a while: returns those beyond the watermark that nobody needed in it, and whether
    /// another while begins.
    pub(crate) fn needless(&mut self) -> (Vec<T>, bool) {
        let needless = self.least.saturating_sub(self.high);
        let needless = self.slots.drain(..needless).collect();
        self.least = self.slots.len();
        self.is_watched = self.slots.len() > self.high;
        (needless, self.is_watched)
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.least = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_left_stays_for_the_next_and_then_goes() {
        let mut idle = Idle::new(2, 6);
        let begun: Vec<_> = (0..6).map(|slot| idle.put(slot)).collect();
        let expected = [false, false, true, false, false, false].map(|begins| (None, begins));
        assert_eq!(begun, expected);
        // All six are needed once more in this while, and four at a time in the next.
        let use_first = |idle: &mut Idle<_>, count| {
            let taken: Vec<_> = (0..count).filter_map(|_| idle.take(0)).collect();
            assert_eq!(taken.len(), count);
            assert!(taken.into_iter().all(|slot| idle.put(slot) == (None, false)));
        };
        use_first(&mut idle, 6);
        assert_eq!(idle.needless(), (vec![], true));
        use_first(&mut idle, 4);
        assert_eq!(idle.needless(), (vec![], true));
        assert_eq!(idle.put(6), (Some(4), false), "no more than six");
        assert_eq!(idle.needless(), (vec![5, 0, 1, 2], false));
        assert_eq!(idle.iter().copied().collect::<Vec<_>>(), [3, 6]);
        assert_eq!(idle.put(7), (None, true), "watched again");
        assert_eq!((idle.beyond(3), idle.beyond(1)), (vec![], vec![3, 6]));
        assert_eq!(idle.needless(), (vec![], false));
    }
}
