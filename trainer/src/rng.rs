//! Reproducible random numbers whose state is a pure function of seed and position.
//!
//! Every draw of a run derives its own generator from the run's seed, the step and a stream, so a
//! resumed run needs no saved generator state to go on as the uninterrupted one would have.

/// SplitMix64 (Steele, Lea and Flood 2014): small, fast, passes BigCrush.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for `stream` at `step` of the run with this `seed`.
    pub fn derive(seed: u64, step: u64, stream: &str) -> Self {
        // FNV-1a spreads the name; two rounds of the generator itself mix the numbers in.
        let name = stream.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut rng = Self(seed ^ name);
        let mixed = rng.next_u64() ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = Self(mixed);
        rng.next_u64();
        rng
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, without the bias of a plain remainder (Lemire 2019). `bound` > 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "an empty range has no member");
        let bound = bound as u64;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if (product as u64) >= bound.wrapping_neg() % bound {
                return (product >> 64) as usize;
            }
        }
    }

    /// Shuffles in place, every order equally likely (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_steps_and_seeds_differ() {
        let draw = |seed, step, stream| Rng::derive(seed, step, stream).next_u64();
        assert_eq!(draw(1, 2, "tasks"), draw(1, 2, "tasks"));
        let mut seen: Vec<u64> = (0..100).map(|step| draw(1, step, "tasks")).collect();
        seen.extend((2..100).map(|seed| draw(seed, 0, "tasks")));
        seen.push(draw(1, 0, "sampling"));
        let total = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), total);
    }

    #[test]
    fn every_order_comes_up_about_as_often() {
        let mut counts = std::collections::BTreeMap::new();
        let mut rng = Rng::derive(7, 0, "shuffle");
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
