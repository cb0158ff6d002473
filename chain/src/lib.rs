//! What the chain says and is told: randomness, what it knows of miners and sectors, and messages to the miner actor.
//!
//! [`Chain`] is what the manager asks. [`Offline`] answers for sectors that no chain will ever see, [`Lotus`] with what a
//! full node says. [`params`] are the miner actor's messages,
//! [`recovery`] reads from a chain what a lost sector is sealed from again. It never schedules, seals or touches sector
//! files.

mod cbor;
mod epochs;
mod error;
mod lotus;
mod offline;
pub mod params;
pub mod recovery;
pub mod sending;
mod token_amount;

use std::collections::BTreeSet;

use async_trait::async_trait;
use sealtasks::{ActorId, ChainEpoch, SealedCid, SectorId, SectorNumber, SectorRef, Seed, Ticket};

pub use epochs::EpochClock;
pub use error::ChainError;
pub use lotus::{Lotus, MinerFacts, SectorStanding, SeedStanding, SyncProgress};
pub use offline::{BeaconSecret, Offline};
pub use params::entropy;
pub use token_amount::{TokenAmount, TokenAmountError};

/// What has become of a sector's number on a chain; each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Nothing, or there is no chain.
    Free,
    /// A replica is promised under it, and a deposit paid.
    PreCommitted,
    /// A sector is proven under it.
    Proven,
    /// It was used, and what was promised or proven is gone.
    Spent,
}

/// What of a miner's sectors a chain and somebody else do not agree about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The height of the state that was asked.
    pub at: ChainEpoch,
    /// Live there, faulty ones included, and not held.
    pub not_held: Vec<SectorNumber>,
    /// Taken to be proven, and not live there.
    pub not_live: Vec<SectorNumber>,
}

/// A source of the randomness that sealing needs.
#[async_trait]
pub trait Chain: Send + Sync {
    /// What the source is, for listings: `offline` or `lotus`.
    fn name(&self) -> &'static str;

    /// When its heights are; `None`: it has none, and nothing expires.
    fn clock(&self) -> Option<EpochClock>;

    /// The sealing randomness for this sector and the height it was drawn at.
    ///
    /// # Errors
    /// The source does not serve this sector, or cannot be had now; [`ChainError::is_permanent`] tells which.
    async fn ticket(&self, sector: SectorRef) -> Result<(Ticket, ChainEpoch), ChainError>;

    /// Nothing stands against sealing this sector anew: asked before every PreCommit1 but a rebuild's, which deletes each
    /// earlier replica. Without a chain nothing does.
    ///
    /// Gives the head where the sector's ticket can expire; `None`: nothing expires, or the sector is pre-committed and stays
    /// with the ticket that it has.
    ///
    /// # Errors
    /// The sector is proven, [`ChainError::AlreadyProven`], or nobody can tell now.
    async fn may_seal(&self, _sector: SectorId) -> Result<Option<ChainEpoch>, ChainError> {
        Ok(None)
    }

    /// Nothing stands against sealing this lost sector again to the replica that it had (CommR): asked before a rebuild begins.
    /// Without a chain nothing does.
    ///
    /// # Errors
    /// It was snapped, the chain has another replica or none that lives, or nobody can tell now.
    async fn may_rebuild(&self, _sector: SectorId, _lost: SealedCid) -> Result<(), ChainError> {
        Ok(())
    }

    /// What has become of the sector's number.
    ///
    /// # Errors
    /// Nobody can tell now.
    async fn allocation(&self, _sector: SectorId) -> Result<Allocation, ChainError> {
        Ok(Allocation::Free)
    }

    /// The number above all that the miner has ever pre-committed, those of sectors that are gone included; 0 without a chain.
    ///
    /// # Errors
    /// Nobody can tell now, or the numbers add up to more than there are.
    async fn first_free(&self, _miner: ActorId) -> Result<u64, ChainError> {
        Ok(0)
    }

    /// Holds the miner's live sectors, all of one state of the chain, against those that are held and those that are taken to be
    /// proven. Without a chain nothing is at odds.
    ///
    /// # Errors
    /// Nobody can tell now.
    async fn compared(
        &self,
        _miner: ActorId,
        _is_held: &(dyn Fn(SectorNumber) -> bool + Send + Sync),
        _proven: BTreeSet<SectorNumber>,
    ) -> Result<Compared, ChainError> {
        Ok(Compared::default())
    }

    /// The interactive randomness for this sector and the height it was drawn at. A chain gives it for the
    /// pre-commitment that it has seen, which is why `sealed` (CommR) must be told; it waits until the height has come
    /// and lies deep enough, on the main network for more than an hour.
    ///
    /// # Errors
    /// As for [`Chain::ticket`].
    async fn seed(&self, sector: SectorRef, sealed: SealedCid) -> Result<(Seed, ChainEpoch), ChainError>;
}
