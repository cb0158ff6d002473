//! The chain's time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A height of the chain, in epochs of 30 seconds. Signed, as on Lotus's wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainEpoch(i64);

impl ChainEpoch {
    /// This height.
    pub const fn new(height: i64) -> Self {
        Self(height)
    }

    /// The bare number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ChainEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
