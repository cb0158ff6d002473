//! Waiting until a full node is where the network is. What is read from a node that lags behind is old, and a ticket
//! drawn there may be too old to be taken.

use std::time::{SystemTime, UNIX_EPOCH};

use sealtasks::ChainEpoch;

use super::Lotus;
use crate::ChainError;

/// A head whose block is older than so many block times is not the network's.
const BEHIND_MAX: u64 = 3;
/// Lotus's number for a synchronisation that has ended.
const STAGE_COMPLETE: u64 = 4;

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncProgress {
    /// Its head.
    pub head: ChainEpoch,
    /// How old its head is, in seconds.
    pub behind_s: u64,
    /// What it works towards, and how far that is.
    pub syncing: Option<(ChainEpoch, ChainEpoch)>,
}

impl Lotus {
    /// Waits until the node's head is the network's: not older than three block times. Each look is reported.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn synced(&self, mut report: impl FnMut(&SyncProgress) + Send) -> Result<(), ChainError> {
        loop {
            let progress = self.progress().await?;
            report(&progress);
            if progress.behind_s <= BEHIND_MAX * self.clock.period_ms / 1000 {
                return Ok(());
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    /// How far the node is now.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn progress(&self) -> Result<SyncProgress, ChainError> {
        let head = self.node.head().await?;
        let made = head.blocks.iter().map(|block| block.timestamp).min();
        let made = made.ok_or_else(|| ChainError::Answer {
            method: "ChainHead",
            detail: "the head has no block".to_owned(),
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let syncs = self.node.sync_state().await?.active_syncs;
        let farthest =
            syncs.into_iter().filter(|sync| sync.stage < STAGE_COMPLETE).max_by_key(|sync| sync.height);
        let syncing = farthest.and_then(|sync| Some((ChainEpoch::new(sync.height), sync.target?.epoch())));
        Ok(SyncProgress { head: head.epoch(), behind_s: now.saturating_sub(made), syncing })
    }
}
