//! Chance that can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers from a seed (splitmix64), which is printed, or given by `LAB_SEED` to repeat a run.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Begins, and prints the seed.
    pub fn new(test: &str) -> Self {
        let given = std::env::var("LAB_SEED").ok().and_then(|seed| seed.parse().ok());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = given.unwrap_or(u64::from(since.subsec_nanos()));
        println!("{test}: LAB_SEED={seed}");
        Chance(seed)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap_or(0)
    }
}
