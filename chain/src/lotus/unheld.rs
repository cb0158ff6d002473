//! Sectors that are on chain, but for some: what nobody here has. Never: decides what is had.

use std::collections::BTreeSet;

use sealtasks::{ActorId, SectorNumber};

use super::Lotus;
use crate::ChainError;

impl Lotus {
    /// The miner's sectors on chain, faulty ones included, but for those that are held. All are asked for: a node refuses to
    /// answer about numbers of which one is no sector.
    pub(crate) async fn proven_but(
        &self,
        miner: ActorId,
        held: &BTreeSet<SectorNumber>,
    ) -> Result<Vec<SectorNumber>, ChainError> {
        let mut found = self.node.proven(miner).await?;
        found.retain(|number| !held.contains(number));
        Ok(found)
    }
}
