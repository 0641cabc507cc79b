//! Random choices of a run: everything follows from the seed. Separate dice for separate things, so that one more roll here does
//! not change everything there.

use std::fmt::Debug;
use std::ops::Range;

use parking_lot::Mutex;
use xcron::entropy::Entropy;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Splitmix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice for `what` in the run of `seed`.
    pub fn new(seed: u64, what: &str) -> Self {
        Self(xxh3_64_with_seed(what.as_bytes(), seed))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range that is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start)
    }

    /// A place in something of this length, which is not 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.within(0..length as u64)).expect("below a usize")
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// True in so many of a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.within(0..1_000) < permille
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// A node's entropy.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<Dice>);

impl SeededEntropy {
    /// Entropy that follows from these dice.
    pub fn new(dice: Dice) -> Self {
        Self(Mutex::new(dice))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}
