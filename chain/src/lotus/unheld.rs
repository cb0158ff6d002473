//! The sectors that are on chain, held against what is known here: what nobody has, and what is not there. Never: decides what is
//! had.

use std::collections::BTreeSet;

use sealtasks::{ActorId, SectorNumber};

use super::Lotus;
use crate::{ChainError, Compared};

/// Deadlines of a proving period, on every network (builtin-actors' WPOST_PERIOD_DEADLINES).
const DEADLINES: u64 = 48;
/// More sectors are not believed to be one miner's: sixteen times what the largest one has.
pub(super) const SECTORS_MAX: u64 = 1 << 24;

impl Lotus {
    /// Each deadline is asked for what it has: `StateMinerSectors` also tells those that are terminated or expired until their
    /// partition is compacted, and what has to be proven no more is missed by nobody.
    pub(crate) async fn compared(
        &self,
        miner: ActorId,
        is_held: &(dyn Fn(SectorNumber) -> bool + Send + Sync),
        mut proven: BTreeSet<SectorNumber>,
    ) -> Result<Compared, ChainError> {
        // One state for all of them: a sector moves from one deadline to another when partitions are compacted.
        let head = self.node.head().await?;
        let (mut not_held, mut room) = (BTreeSet::new(), SECTORS_MAX);
        for deadline in 0..DEADLINES {
            for partition in self.node.partitions(miner, deadline, &head.cids).await? {
                let live = members(&partition.live, &mut room).ok_or_else(|| {
                    let detail = format!("more than {SECTORS_MAX} sectors, or numbers that no sector has");
                    ChainError::Answer { method: "StateMinerPartitions", detail }
                })?;
                for number in live.into_iter().flatten().map(SectorNumber::new) {
                    proven.remove(&number);
                    if !is_held(number) {
                        not_held.insert(number);
                    }
                }
            }
        }
        let (not_held, not_live) = (not_held.into_iter().collect(), proven.into_iter().collect());
        Ok(Compared { at: head.epoch(), not_held, not_live })
    }
}

/// The ranges that are set, of lengths of runs as Go's bit fields are written in JSON. `None`: they have more than `room`,
/// which becomes what is left, or end beyond all numbers.
pub(super) fn members(runs: &[u64], room: &mut u64) -> Option<Vec<std::ops::Range<u64>>> {
    let (mut at, mut ranges) = (0_u64, Vec::new());
    for (place, length) in runs.iter().enumerate() {
        let end = at.checked_add(*length)?;
        if place % 2 == 1 {
            *room = room.checked_sub(*length)?;
            ranges.push(at..end);
        }
        at = end;
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn a_bit_field_is_read_within_its_bounds() {
        let read = |runs: &[u64], mut room: u64| members(runs, &mut room).map(|ranges| (ranges, room));
        assert_eq!(read(&[0], 5), Some((vec![], 5)));
        assert_eq!(read(&[3, 2, 4, 1], 5), Some((vec![3..5, 9..10], 2)));
        assert_eq!(read(&[0, 6], 5), None, "more than there may be");
        assert_eq!(read(&[u64::MAX, 1], 5), None, "beyond all numbers");
    }
}
