//! What a machine has, and how much of it is used.

use crate::WorkerProfile;
use crate::devices::GPU_WHOLE;

/// What a worker or a machine has, clamped to what the ledger can count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capacity {
    pub(crate) mem_physical: u64,
    pub(crate) mem_swap: u64,
    pub(crate) mem_used: u64,
    pub(crate) swap_used: u64,
    pub(crate) cpus: u64,
    pub(crate) gpus: usize,
    pub(crate) ignore: bool,
}

impl Capacity {
    pub(crate) fn of(profile: &WorkerProfile) -> Self {
        Self {
            mem_physical: profile.mem_physical,
            mem_swap: profile.mem_swap,
            mem_used: profile.mem_used,
            swap_used: profile.swap_used,
            cpus: profile.cpus.min(WorkerProfile::CPUS_MAX),
            gpus: profile.gpus.len().min(WorkerProfile::GPUS_MAX),
            ignore: profile.ignore_resources,
        }
    }

    /// Of each resource the larger amount; whether resources are ignored is each worker's own affair.
    pub(crate) fn or_more(self, other: &Self) -> Self {
        Self {
            mem_physical: self.mem_physical.max(other.mem_physical),
            mem_swap: self.mem_swap.max(other.mem_swap),
            mem_used: self.mem_used.max(other.mem_used),
            swap_used: self.swap_used.max(other.swap_used),
            cpus: self.cpus.max(other.cpus),
            gpus: self.gpus.max(other.gpus),
            ignore: false,
        }
    }

    /// Lotus's utilization in millionths: the largest share of CPU, RAM, RAM with swap, and GPU (`gpu` in thousandths of
    /// one). What the machine itself reports as used counts where it is more than what tasks hold.
    pub(crate) fn utilization(&self, memory_min: u128, memory_max: u128, threads: u128, gpu: u64) -> u64 {
        let shares = [
            (threads, u128::from(self.cpus)),
            (memory_min.max(self.mem_used.into()), u128::from(self.mem_physical)),
            (memory_max.max(self.used()), self.with_swap()),
            (gpu.into(), u128::from(GPU_WHOLE) * self.gpus as u128),
        ];
        shares.iter().map(|(used, total)| millionths(*used, *total)).max().unwrap_or(0)
    }

    /// The same machine with nothing else running on it.
    pub(crate) fn without_others(&self) -> Self {
        Self { mem_used: 0, swap_used: 0, ..*self }
    }

    pub(crate) fn with_swap(&self) -> u128 {
        u128::from(self.mem_physical) + u128::from(self.mem_swap)
    }

    pub(crate) fn used(&self) -> u128 {
        u128::from(self.mem_used) + u128::from(self.swap_used)
    }
}

/// What part of `total` is used, in millionths; of nothing: none.
fn millionths(used: u128, total: u128) -> u64 {
    /// What is less than this can be multiplied in 64 bits, in which dividing costs a fraction of what it does in 128.
    const SMALL: u64 = u64::MAX / 1_000_000;
    match (u64::try_from(used), u64::try_from(total)) {
        (Ok(used), Ok(total)) if used <= SMALL => (used * 1_000_000).checked_div(total).unwrap_or(0),
        _ => {
            let share = used.saturating_mul(1_000_000).checked_div(total).unwrap_or(0);
            u64::try_from(share).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The short way gives what the long one does, on both sides of where it ends.
        #[test]
        fn shares_are_the_same_in_either_width(used: u64, shift in 0..64_u32, total: u64, less in 0..64_u32) {
            let (used, total) = (u128::from(used >> shift), u128::from(total >> less));
            let wide = (used * 1_000_000).checked_div(total).unwrap_or(0);
            prop_assert_eq!(u128::from(millionths(used, total)), wide.min(u64::MAX.into()));
        }
    }
}
