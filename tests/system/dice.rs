//! Random choices that a seed repeats.
#![allow(dead_code, reason = "only some test targets choose")]

use std::time::Duration;

/// `splitmix64`: its whole state is the seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let count = u64::try_from(all.len()).expect("small");
        &all[usize::try_from(self.below(count)).expect("small")]
    }

    /// A time of `least` to `bound` ms.
    pub fn millis(&mut self, least: u64, bound: u64) -> Duration {
        Duration::from_millis(least + self.below(bound - least))
    }
}
