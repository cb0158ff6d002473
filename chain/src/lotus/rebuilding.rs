//! Whether a lost sector may be sealed again: what its ticket makes must be what the chain proves. Never: seals.

use std::time::Duration;

use rpc::ApiError;
use sealtasks::{SealedCid, SectorId};

use super::unheld::{SECTORS_MAX, members};
use super::{Lotus, SectorStanding};
use crate::ChainError;

/// So long the node may take to say all of it: whoever waits for the beginning of a rebuild waits a minute.
const TOLD_MAX: Duration = Duration::from_secs(30);

impl Lotus {
    /// Nothing on chain stands against sealing this sector again to the replica `lost` (CommR): that is proven or promised
    /// there, was not replaced by a snap update, and is not over.
    ///
    /// # Errors
    /// [`ChainError::Snapped`], [`ChainError::OtherOnChain`], [`ChainError::NotOnChain`], or the node does not say within half a
    /// minute.
    pub async fn may_rebuild(&self, sector: SectorId, lost: SealedCid) -> Result<(), ChainError> {
        let told = tokio::time::timeout(TOLD_MAX, self.is_worth_it(sector, lost)).await;
        told.unwrap_or_else(|_| {
            let what = format!("whether sector {sector} may be sealed again");
            let source = format!("no answer within {} s", TOLD_MAX.as_secs()).into();
            Err(ChainError::Node { what, source: ApiError::Unreachable { url: self.node.url(), source } })
        })
    }

    async fn is_worth_it(&self, sector: SectorId, lost: SealedCid) -> Result<(), ChainError> {
        let (chain, proven) = match self.standing(sector).await? {
            SectorStanding::Unknown => return Err(ChainError::NotOnChain { sector }),
            SectorStanding::Proven { snapped: true, .. } => return Err(ChainError::Snapped { sector }),
            SectorStanding::Proven { sealed, .. } => (sealed, true),
            SectorStanding::PreCommitted { sealed, .. } => (sealed, false),
        };
        if chain != lost {
            return Err(ChainError::OtherOnChain { sector, chain, lost });
        }
        // Of one that is over the chain still tells all until its partition is compacted.
        if proven && !self.is_live(sector).await? {
            return Err(ChainError::NotOnChain { sector });
        }
        Ok(())
    }

    /// Whether a proven sector is neither expired nor terminated.
    async fn is_live(&self, SectorId { miner, number }: SectorId) -> Result<bool, ChainError> {
        // One state for both answers.
        let at = self.node.head().await?.cids;
        let place = self.node.location(SectorId { miner, number }, &at).await?;
        let partitions = self.node.partitions(miner, place.deadline, &at).await?;
        let partition = usize::try_from(place.partition).ok().and_then(|place| partitions.get(place));
        let mut room = SECTORS_MAX;
        let live = partition.and_then(|partition| members(&partition.live, &mut room));
        let live = live.ok_or_else(|| {
            let detail = format!("no partition {} in deadline {}", place.partition, place.deadline);
            ChainError::Answer { method: "StateMinerPartitions", detail }
        })?;
        Ok(live.iter().any(|run| run.contains(&number.get())))
    }
}
