//! What the chain says and is told. So far it says two things: the ticket and the seed that bind a sector's proof.
//!
//! [`Chain`] is what the manager asks; [`Offline`] answers for sectors that no chain will ever see. A room for actor
//! types, too: whoever needs them asks here. It never schedules, seals or touches sector files.

mod epochs;
mod offline;

use async_trait::async_trait;
use sealtasks::{ChainEpoch, SealedCid, SectorId, SectorRef, SectorSize, Seed, Ticket};

pub use epochs::EpochClock;
pub use offline::{BeaconSecret, Offline};

/// A source of the randomness that sealing needs.
#[async_trait]
pub trait Chain: Send + Sync {
    /// What the source is, for listings: `offline`, for example.
    fn name(&self) -> &'static str;

    /// When its heights are; `None`: it has none, and nothing expires.
    fn clock(&self) -> Option<EpochClock>;

    /// The sealing randomness for this sector and the height it was drawn at.
    ///
    /// # Errors
    /// The source does not serve this sector, or cannot be had now; [`ChainError::is_permanent`] tells which.
    async fn ticket(&self, sector: SectorRef) -> Result<(Ticket, ChainEpoch), ChainError>;

    /// The interactive randomness for this sector and the height it was drawn at. A chain gives it for the
    /// pre-commitment that it has seen, which is why `sealed` (CommR) must be told.
    ///
    /// # Errors
    /// As for [`Chain::ticket`].
    async fn seed(&self, sector: SectorRef, sealed: SealedCid) -> Result<(Seed, ChainEpoch), ChainError>;
}

/// Why there is no randomness.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Only a chain can make such a sector worth anything.
    #[error(
        "{size} sectors need a chain: set FULLNODE_API_INFO to a Lotus node's API info (sector {sector})"
    )]
    NeedsChain {
        /// The sector.
        sector: SectorId,
        /// Its size.
        size: SectorSize,
    },
}

impl ChainError {
    /// Whether asking again cannot help.
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::NeedsChain { .. } => true,
        }
    }
}
