//! The hour of a height. Never: which height is now; that takes a chain's head.

use sealtasks::ChainEpoch;

/// When a network's heights are: height × period after the genesis block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochClock {
    /// The genesis block's time, in Unix milliseconds.
    pub genesis_ms: u64,
    /// Between two heights, in milliseconds.
    pub period_ms: u64,
}

impl EpochClock {
    /// Filecoin's main network: 24 August 2020, 22:00 UTC, every 30 seconds.
    pub const MAINNET: Self = Self { genesis_ms: 1_598_306_400_000, period_ms: 30_000 };

    /// When this height is, in Unix milliseconds; heights before the genesis block are at its time, and those after the
    /// end of time at its end.
    pub fn millis_at(self, epoch: ChainEpoch) -> u64 {
        let height = u64::try_from(epoch.get()).unwrap_or(0);
        self.genesis_ms.saturating_add(height.saturating_mul(self.period_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_have_hours() {
        let at = |height| EpochClock::MAINNET.millis_at(ChainEpoch::new(height));
        assert_eq!((at(0), at(-5)), (1_598_306_400_000, 1_598_306_400_000));
        assert_eq!(at(2880), 1_598_306_400_000 + 24 * 60 * 60 * 1000);
        assert_eq!(at(i64::MAX), u64::MAX);
    }
}
