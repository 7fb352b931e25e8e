//! Choices that a seed repeats.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of choices (SplitMix64).
pub(super) struct Random(AtomicU64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Another source, the same for the same seed and number.
    pub(super) fn fork(&self, number: u64) -> Self {
        let seed = self.0.load(Ordering::Relaxed) ^ (number + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self::new(Self::new(seed).next())
    }

    fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// One of several.
    pub(super) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("an index")]
    }
}
