//! When a batch is due. Pure: it is told the time, the head and the base fee.
//!
//! A batch goes when it is full, when its oldest sector has waited long enough, or when a sector's last height is near.
//! While the base fee is above the operator's limit only the last reason counts.

use sealtasks::ChainEpoch;

use crate::TokenAmount;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Sectors in one message, at most.
    pub max: usize,
    /// The oldest sector waits so long for others, in milliseconds.
    pub wait_ms: u64,
    /// A sector goes so many heights before its last one, full batch or not.
    pub slack: i64,
    /// Above this base fee only sectors near their last height go; `None`: at any price.
    pub base_fee_max: Option<TokenAmount>,
}

impl BatchPolicy {
    /// Lotus's figures for pre-commitments: 256 sectors, 24 hours, 3 hours before the last height.
    pub const PRE_COMMIT: Self =
        Self { max: 256, wait_ms: 24 * 3_600_000, slack: 3 * 120, base_fee_max: None };
    /// Lotus's figures for proofs, with as many sectors as fit into one message with a proof of 1920 bytes each: 32
    /// sectors, 24 hours, 1 hour before the last height.
    pub const PROVE_COMMIT: Self = Self { max: 32, wait_ms: 24 * 3_600_000, slack: 120, base_fee_max: None };

    /// Whether a sector whose last height this is goes at any base fee.
    pub const fn is_near(&self, cutoff: ChainEpoch, head: ChainEpoch) -> bool {
        cutoff.get().saturating_sub(self.slack) <= head.get()
    }

    /// The operator's limit, where this base fee is above it.
    pub fn limit_below(&self, base_fee: TokenAmount) -> Option<TokenAmount> {
        self.base_fee_max.filter(|most| base_fee > *most)
    }
}

/// A sector that waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// The height at which it must have landed.
    pub cutoff: ChainEpoch,
}

/// The world as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// In Unix milliseconds.
    pub ms: u64,
    /// The chain's head.
    pub head: ChainEpoch,
    /// The head's base fee, per unit of gas.
    pub base_fee: TokenAmount,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing waits.
    Nothing,
    /// These, by their place among those that wait, the most urgent first.
    Send {
        /// Places, none twice.
        which: Vec<usize>,
        /// Why now.
        why: Why,
    },
    /// Not yet.
    Wait {
        /// Ask again then at the latest, in Unix milliseconds. Heights are asked about at each new head.
        until_ms: u64,
        /// Whether the base fee alone holds them back.
        base_fee: bool,
    },
}

/// Why a batch goes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A sector's last height is near.
    Cutoff,
    /// There are enough.
    Full,
    /// The oldest has waited long enough.
    Time,
}

/// Decides about the sectors that wait.
pub fn decide(waiting: &[Waiting], policy: &BatchPolicy, now: Now) -> Decision {
    let Some(oldest_ms) = waiting.iter().map(|sector| sector.since_ms).min() else {
        return Decision::Nothing;
    };
    let mut which: Vec<usize> = (0..waiting.len()).collect();
    which.sort_by_key(|at| (waiting[*at].cutoff, waiting[*at].since_ms, *at));
    let max = policy.max.max(1);
    let urgent = waiting.iter().filter(|sector| policy.is_near(sector.cutoff, now.head)).count();
    let dear = policy.limit_below(now.base_fee).is_some();
    let due_ms = oldest_ms.saturating_add(policy.wait_ms);
    let why = if urgent > 0 {
        Why::Cutoff
    } else if dear {
        return Decision::Wait { until_ms: now.ms.saturating_add(policy.wait_ms), base_fee: true };
    } else if waiting.len() >= max {
        Why::Full
    } else if now.ms >= due_ms {
        Why::Time
    } else {
        return Decision::Wait { until_ms: due_ms, base_fee: false };
    };
    // At a high fee only those go that must; otherwise the message takes the others along.
    which.truncate(if dear { urgent.min(max) } else { max });
    Decision::Send { which, why }
}

/// The two halves of a batch that was too large for its gas; `None`: a single sector cannot be halved.
pub fn halves<T>(batch: &[T]) -> Option<(&[T], &[T])> {
    if batch.len() < 2 { None } else { Some(batch.split_at(batch.len() / 2)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: BatchPolicy =
        BatchPolicy { max: 3, wait_ms: 1000, slack: 10, base_fee_max: Some(TokenAmount::from_atto(100)) };

    fn sector(since_ms: u64, cutoff: i64) -> Waiting {
        Waiting { since_ms, cutoff: ChainEpoch::new(cutoff) }
    }

    fn now(ms: u64, head: i64, fee: u128) -> Now {
        Now { ms, head: ChainEpoch::new(head), base_fee: TokenAmount::from_atto(fee) }
    }

    fn send(which: &[usize], why: Why) -> Decision {
        Decision::Send { which: which.to_vec(), why }
    }

    #[test]
    fn count_time_cutoff_and_base_fee_decide() {
        let two = [sector(5, 500), sector(0, 900)];
        let four = [sector(5, 500), sector(0, 900), sector(7, 300), sector(8, 400)];
        let wait = |until_ms, base_fee| Decision::Wait { until_ms, base_fee };
        assert_eq!(decide(&[], &POLICY, now(0, 0, 0)), Decision::Nothing);
        assert_eq!(decide(&two, &POLICY, now(10, 0, 0)), wait(1000, false));
        assert_eq!(decide(&two, &POLICY, now(1000, 0, 100)), send(&[0, 1], Why::Time));
        assert_eq!(decide(&four, &POLICY, now(10, 0, 0)), send(&[2, 3, 0], Why::Full));
        assert_eq!(decide(&two, &POLICY, now(10, 490, 0)), send(&[0, 1], Why::Cutoff));
        // At a high base fee a full and late batch waits; a sector near its end goes, alone.
        assert_eq!(decide(&four, &POLICY, now(2000, 0, 101)), wait(3000, true));
        assert_eq!(decide(&four, &POLICY, now(2000, 290, 101)), send(&[2], Why::Cutoff));
        let any = BatchPolicy { base_fee_max: None, ..POLICY };
        assert_eq!(decide(&two, &any, now(1000, 0, u128::MAX)), send(&[0, 1], Why::Time));
    }

    #[test]
    fn a_batch_is_halved_down_to_one() {
        assert_eq!(halves(&[1, 2, 3]), Some((&[1][..], &[2, 3][..])));
        assert_eq!((halves(&[1]), halves::<u8>(&[])), (None, None));
    }

    proptest! {
        /// No sector near its last height is ever passed over for one that is not.
        #[test]
        fn the_urgent_go_first(
            sectors in proptest::collection::vec((0_u64..3000, 0_i64..1000), 0..12),
            ms in 0_u64..5000, head in 0_i64..1000, fee in 0_u128..200,
        ) {
            let waiting: Vec<_> = sectors.iter().map(|(since, cutoff)| sector(*since, *cutoff)).collect();
            let urgent = |at: &usize| waiting[*at].cutoff.get() - POLICY.slack <= head;
            match decide(&waiting, &POLICY, now(ms, head, fee)) {
                Decision::Nothing => prop_assert!(waiting.is_empty()),
                Decision::Wait { until_ms, .. } => {
                    prop_assert!(!(0..waiting.len()).any(|at| urgent(&at)));
                    prop_assert!(until_ms > ms);
                }
                Decision::Send { which, .. } => {
                    prop_assert!(!which.is_empty() && which.len() <= POLICY.max);
                    let left = (0..waiting.len()).filter(|at| !which.contains(at));
                    if left.clone().any(|at| urgent(&at)) {
                        prop_assert!(which.iter().all(urgent));
                    }
                }
            }
        }
    }
}
