//! Randomness without a chain, for the test sizes: derived from a secret, so that a sector sealed again gets the same.

use std::fmt;

use async_trait::async_trait;
use sealtasks::{ChainEpoch, SealedCid, SectorRef, Seed, Ticket};

use crate::{Chain, ChainError, EpochClock};

/// Separates these derivations from every other use of BLAKE3 with the same secret. Changing it changes every ticket.
const CONTEXT: &str = "sealyard 2026-01 offline beacon";
/// No chain, no heights.
const EPOCH: ChainEpoch = ChainEpoch::new(0);

/// The secret of an offline beacon: 32 bytes, made once by the manager and kept in its durable state. It is no key to
/// anything of value, but who knows it knows the seeds of sectors that are not sealed yet.
#[derive(Clone, PartialEq, Eq)]
pub struct BeaconSecret([u8; 32]);

impl BeaconSecret {
    /// These bytes, from the system's randomness.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for BeaconSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BeaconSecret(…)")
    }
}

/// A source of its own for sectors of the test sizes. Deterministic: secret, miner, sector number and purpose decide.
#[derive(Clone, Debug)]
pub struct Offline {
    secret: BeaconSecret,
}

/// What the 32 bytes are for; part of what they are derived from.
#[derive(Clone, Copy)]
enum Purpose {
    Ticket,
    Seed,
}

impl Purpose {
    const fn tag(self) -> &'static [u8] {
        match self {
            Self::Ticket => b"ticket",
            Self::Seed => b"seed",
        }
    }
}

impl Offline {
    /// The beacon with this secret.
    pub const fn new(secret: BeaconSecret) -> Self {
        Self { secret }
    }

    /// Whether this source serves the sector; for refusing a pledge before anything is made.
    ///
    /// # Errors
    /// [`ChainError::NeedsChain`] for 32 GiB and 64 GiB.
    pub fn check(sector: SectorRef) -> Result<(), ChainError> {
        let size = sector.proof.sector_size();
        if size.is_test_size() { Ok(()) } else { Err(ChainError::NeedsChain { sector: sector.id, size }) }
    }

    /// BLAKE3 keyed with a key derived from the secret, over the miner and sector number (8 bytes each, little endian)
    /// and the purpose. The two top bits are cleared: the proofs read the bytes as a little-endian element of a field
    /// of almost 2^255, and so need not reduce them.
    fn draw(&self, sector: SectorRef, purpose: Purpose) -> Result<[u8; 32], ChainError> {
        Self::check(sector)?;
        let key = blake3::derive_key(CONTEXT, &self.secret.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&sector.id.miner.get().to_le_bytes());
        hasher.update(&sector.id.number.get().to_le_bytes());
        hasher.update(purpose.tag());
        let mut bytes = *hasher.finalize().as_bytes();
        bytes[31] &= 0x3f;
        Ok(bytes)
    }
}

#[async_trait]
impl Chain for Offline {
    fn name(&self) -> &'static str {
        "offline"
    }

    fn clock(&self) -> Option<EpochClock> {
        None
    }

    async fn ticket(&self, sector: SectorRef) -> Result<(Ticket, ChainEpoch), ChainError> {
        Ok((Ticket(self.draw(sector, Purpose::Ticket)?), EPOCH))
    }

    /// CommR plays no part: a sector made again has the same one, as it has the same ticket.
    async fn seed(&self, sector: SectorRef, _sealed: SealedCid) -> Result<(Seed, ChainEpoch), ChainError> {
        Ok((Seed(self.draw(sector, Purpose::Seed)?), EPOCH))
    }
}
