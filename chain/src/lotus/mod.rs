//! A chain as a full node of Lotus tells it. Reads the node's JSON-RPC.

mod node;
mod rebuilding;
mod sync;
mod unheld;
pub(crate) mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use rpc::{ApiInfo, Trust};
use sealtasks::{
    ActorId, ChainEpoch, RegisteredSealProof, SealedCid, SectorId, SectorNumber, SectorRef, SectorSize, Seed,
    Ticket,
};

pub(crate) use node::{HEAD, Node, address};

pub use sync::SyncProgress;

use crate::{Allocation, Chain, ChainError, Compared, EpochClock, TokenAmount};
use wire::{Link, PreCommitOnChain};

/// The API version that is needed: major 2, and at least this minor version, which first had what is called here.
const API_MAJOR: u32 = 2;
const API_MINOR_MIN: u32 = 1;
/// A ticket is drawn so many heights below the head, where the chain does not change any more (Lotus's
/// SealRandomnessLookback, the chain's finality).
const TICKET_LOOKBACK: i64 = 900;
/// A seed counts when so many heights lie above its own (Lotus's InteractivePoRepConfidence).
const SEED_CONFIDENCE: i64 = 6;
/// A pre-commitment that a reorganisation has taken off the chain waits among the messages, and lands again within a few
/// heights; one that is away for so many is not coming back by itself.
const GONE_FOR: i64 = 20;
/// The first network version whose new sectors have V1_1 proofs.
const V1_1_SINCE: u32 = 7;
/// Between two looks at the head, at most and at least.
const LOOK_MAX: Duration = Duration::from_secs(5);
const LOOK_MIN: Duration = Duration::from_millis(20);

/// A chain behind a full node.
pub struct Lotus {
    pub(crate) node: Node,
    network: String,
    /// The CID of the first block of the genesis tipset.
    genesis: String,
    software: String,
    clock: EpochClock,
    /// Between a pre-commitment and its seed, in heights.
    challenge_delay: i64,
}

/// What the chain knows of a miner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinerFacts {
    /// The size of all its sectors.
    pub size: SectorSize,
    /// The proof that its new sectors have.
    pub proof: RegisteredSealProof,
}

/// What the chain knows of a sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectorStanding {
    /// Nothing, or nothing any more.
    Unknown,
    /// Its replica is promised.
    PreCommitted {
        /// Since when.
        epoch: ChainEpoch,
        /// The height of its ticket.
        ticket_epoch: ChainEpoch,
        /// CommR.
        sealed: SealedCid,
    },
    /// It is proven.
    Proven {
        /// Since when.
        activation: ChainEpoch,
        /// Until when.
        expiration: ChainEpoch,
        /// CommR.
        sealed: SealedCid,
        /// Whether it was snapped: `sealed` is then not what the ticket makes.
        snapped: bool,
    },
}

/// Whether the chain draws the same seed again for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedStanding {
    /// It does.
    Same,
    /// It draws another one, or none yet, or has no pre-commitment of the replica any more.
    Changed,
    /// The node does not say, since its head lies below the seed's height.
    Below {
        /// The head.
        head: ChainEpoch,
    },
}

impl Lotus {
    /// The chain behind this node, whose API version is checked first. Does not wait until it is synced; see
    /// [`Self::synced`].
    ///
    /// # Errors
    /// The node cannot be had or speaks another version.
    pub async fn connect(info: &ApiInfo, trust: &Trust) -> Result<Self, ChainError> {
        let node = Node::new(info, trust)?;
        let version = node.version().await?;
        let (major, minor) = (version.api_version >> 16 & 0xff, version.api_version >> 8 & 0xff);
        if major != API_MAJOR || minor < API_MINOR_MIN {
            let found = format!("{major}.{minor}.{}", version.api_version & 0xff);
            let software = version.version;
            return Err(ChainError::ApiVersion { software, found, minor_min: API_MINOR_MIN });
        }
        let params = node.network_params().await?;
        let genesis = node.genesis().await?;
        let started = genesis.blocks.first().map(|block| block.timestamp);
        let named = genesis.cids.into_iter().next();
        let (Some(started), Some(named), 1..) = (started, named, params.block_delay_secs) else {
            let detail = "a genesis without blocks, or blocks without a delay".to_owned();
            return Err(ChainError::Answer { method: "ChainGetGenesis", detail });
        };
        let clock = EpochClock {
            genesis_ms: started.saturating_mul(1000),
            period_ms: params.block_delay_secs.saturating_mul(1000),
        };
        tracing::info!(
            node = node.url(),
            software = version.version,
            network = params.network_name,
            "full node"
        );
        Ok(Self {
            node,
            network: params.network_name,
            genesis: named.cid,
            software: version.version,
            clock,
            challenge_delay: params.pre_commit_challenge_delay.max(0),
        })
    }

    /// The network's name, for example `mainnet`.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The CID of the network's genesis block: what no other network has, whatever its name.
    pub fn genesis(&self) -> &str {
        &self.genesis
    }

    /// The node's name for itself.
    pub fn software(&self) -> &str {
        &self.software
    }

    /// Sector size and proof of the miner, as the chain has them.
    ///
    /// # Errors
    /// The node does not say, or the operator was `told` another size.
    pub async fn miner(&self, miner: ActorId, told: Option<SectorSize>) -> Result<MinerFacts, ChainError> {
        let info = self.node.miner_info(miner).await?;
        let answer = |detail| ChainError::Answer { method: "StateMinerInfo", detail };
        let size = SectorSize::from_bytes(info.sector_size)
            .ok_or_else(|| answer(format!("a sector size of {} bytes", info.sector_size)))?;
        // Window PoSt proofs are numbered 5 to 9 and, since they cannot be ground any more, 10 to 14, by size.
        let proven = match info.window_po_st_proof_type {
            kind @ 5..=14 => {
                RegisteredSealProof::try_from(kind % 5).map(RegisteredSealProof::sector_size).ok()
            }
            _ => None,
        };
        if proven != Some(size) {
            let kind = info.window_po_st_proof_type;
            return Err(answer(format!("window PoSt proof {kind} for {size} sectors")));
        }
        if let Some(told) = told.filter(|told| *told != size) {
            return Err(ChainError::SectorSize { miner, chain: size, told });
        }
        let first = RegisteredSealProof::for_new_sector(size);
        let network = self.node.network_version().await?;
        let proof = if network < V1_1_SINCE { first.number() - 5 } else { first.number() };
        let proof = RegisteredSealProof::try_from(proof).map_err(|error| answer(error.to_string()))?;
        Ok(MinerFacts { size, proof })
    }

    /// What the chain knows of the sector now.
    ///
    /// # Errors
    /// The node does not say.
    pub async fn standing(&self, sector: SectorId) -> Result<SectorStanding, ChainError> {
        if let Some(found) = self.node.sector(sector, HEAD).await? {
            return Ok(SectorStanding::Proven {
                activation: ChainEpoch::new(found.activation),
                expiration: ChainEpoch::new(found.expiration),
                sealed: sealed(found.sealed.as_ref(), "StateSectorGetInfo")?,
                snapped: found.key.is_some(),
            });
        }
        Ok(match self.node.pre_commit(sector, HEAD).await? {
            None => SectorStanding::Unknown,
            Some(found) => SectorStanding::PreCommitted {
                epoch: ChainEpoch::new(found.pre_commit_epoch),
                ticket_epoch: ChainEpoch::new(found.info.seal_rand_epoch),
                sealed: sealed(found.info.sealed.as_ref(), "StateSectorPreCommitInfo")?,
            },
        })
    }

    /// The head and its base fee, for [`crate::sending::batch`].
    ///
    /// # Errors
    /// The node does not say.
    pub async fn head(&self) -> Result<(ChainEpoch, TokenAmount), ChainError> {
        let head = self.node.head().await?;
        let fee = head.blocks.first().map(|block| block.parent_base_fee).unwrap_or_default();
        Ok((head.epoch(), fee))
    }

    /// Draws the seed of a replica's pre-commitment once more. All that is asked is asked of one head.
    ///
    /// # Errors
    /// The node does not say.
    pub async fn seed_standing(
        &self,
        sector: SectorId,
        ours: SealedCid,
        (seed, epoch): (Seed, ChainEpoch),
    ) -> Result<SeedStanding, ChainError> {
        let head = self.node.head().await?;
        if head.height < epoch.get() {
            return Ok(SeedStanding::Below { head: head.epoch() });
        }
        let Some(found) = self.node.pre_commit(sector, &head.cids).await? else {
            return Ok(SeedStanding::Changed);
        };
        let is_ours = sealed(found.info.sealed.as_ref(), "StateSectorPreCommitInfo")? == ours;
        if !is_ours || found.pre_commit_epoch.saturating_add(self.challenge_delay) != epoch.get() {
            return Ok(SeedStanding::Changed);
        }
        let drawn = Seed(self.node.seed(sector.miner, epoch.get(), &head.cids).await?);
        Ok(if drawn == seed { SeedStanding::Same } else { SeedStanding::Changed })
    }

    /// How long to wait before the head is looked at again: a tenth of the time between blocks.
    pub fn pause(&self) -> Duration {
        Duration::from_millis(self.clock.period_ms / 10).clamp(LOOK_MIN, LOOK_MAX)
    }

    /// The pre-commitment to exactly this replica, if the chain has one.
    async fn own_pre_commit(
        &self,
        sector: SectorId,
        ours: SealedCid,
    ) -> Result<Option<PreCommitOnChain>, ChainError> {
        let Some(found) = self.node.pre_commit(sector, HEAD).await? else { return Ok(None) };
        let chain = sealed(found.info.sealed.as_ref(), "StateSectorPreCommitInfo")?;
        if chain == ours { Ok(Some(found)) } else { Err(ChainError::OtherReplica { sector, chain, ours }) }
    }
}

/// Behind the last number that is set. The lengths of runs, as Go's bitfields are written in JSON: not set and set in
/// turn, from 0 on.
fn first_free(runs: &[u64]) -> Option<u64> {
    let (mut at, mut free) = (0_u64, 0);
    for (place, length) in runs.iter().enumerate() {
        at = at.checked_add(*length)?;
        if place % 2 == 1 {
            free = at;
        }
    }
    Some(free)
}

/// Whether this number lies in a run that is set.
fn is_set(runs: &[u64], number: u64) -> bool {
    let mut end = 0_u64;
    let run = runs.iter().position(|length| {
        end = end.saturating_add(*length);
        number < end
    });
    run.is_some_and(|place| place % 2 == 1)
}

/// CommR, from a node.
pub(crate) fn sealed(link: Option<&Link>, method: &'static str) -> Result<SealedCid, ChainError> {
    let link = link.ok_or_else(|| ChainError::Answer { method, detail: "it has no SealedCID".to_owned() })?;
    link.cid.parse().map_err(|error| ChainError::Answer { method, detail: format!("SealedCID: {error}") })
}

#[async_trait]
impl Chain for Lotus {
    fn name(&self) -> &'static str {
        "lotus"
    }

    async fn compared(
        &self,
        miner: ActorId,
        is_held: &(dyn Fn(SectorNumber) -> bool + Send + Sync),
        proven: BTreeSet<SectorNumber>,
    ) -> Result<Compared, ChainError> {
        Self::compared(self, miner, is_held, proven).await
    }

    async fn allocation(&self, sector: SectorId) -> Result<Allocation, ChainError> {
        Ok(match self.standing(sector).await? {
            SectorStanding::Proven { .. } => Allocation::Proven,
            SectorStanding::PreCommitted { .. } => Allocation::PreCommitted,
            SectorStanding::Unknown => {
                match is_set(&self.node.allocated(sector.miner).await?, sector.number.get()) {
                    true => Allocation::Spent,
                    false => Allocation::Free,
                }
            }
        })
    }

    async fn may_rebuild(&self, sector: SectorId, lost: SealedCid) -> Result<(), ChainError> {
        Self::may_rebuild(self, sector, lost).await
    }

    async fn first_free(&self, miner: ActorId) -> Result<u64, ChainError> {
        let runs = self.node.allocated(miner).await?;
        first_free(&runs).ok_or_else(|| {
            let detail = "more sector numbers than there are".to_owned();
            ChainError::Answer { method: "StateMinerAllocated", detail }
        })
    }

    fn clock(&self) -> Option<EpochClock> {
        Some(self.clock)
    }

    /// A sector that is pre-committed already has the ticket that it was pre-committed with; sealed again with another
    /// it would be another replica.
    async fn ticket(&self, sector: SectorRef) -> Result<(Ticket, ChainEpoch), ChainError> {
        self.may_seal(sector.id).await?;
        let head = self.node.head().await?;
        let epoch = match self.node.pre_commit(sector.id, &head.cids).await? {
            Some(found) => found.info.seal_rand_epoch,
            None => head.height.saturating_sub(TICKET_LOOKBACK),
        };
        let ticket = self.node.ticket(sector.id.miner, epoch, &head.cids).await?;
        Ok((Ticket(ticket), ChainEpoch::new(epoch)))
    }

    async fn may_seal(&self, sector: SectorId) -> Result<Option<ChainEpoch>, ChainError> {
        match self.standing(sector).await? {
            SectorStanding::Proven { .. } => Err(ChainError::AlreadyProven { sector }),
            SectorStanding::PreCommitted { .. } => Ok(None),
            SectorStanding::Unknown => Ok(Some(self.node.head().await?.epoch())),
        }
    }

    /// Waits until the seed's height lies deep enough. Where the pre-commitment stands is asked at every look: a
    /// reorganisation may have moved it, and with it the seed.
    async fn seed(&self, sector: SectorRef, sealed: SealedCid) -> Result<(Seed, ChainEpoch), ChainError> {
        let mut gone_since = None;
        loop {
            let Some(found) = self.own_pre_commit(sector.id, sealed).await? else {
                let head = self.node.head().await?.height;
                // A reorganisation may have put the head back, too.
                let since = gone_since.map_or(head, |since: i64| since.min(head));
                gone_since = Some(since);
                if head.saturating_sub(since) >= GONE_FOR {
                    return Err(ChainError::NoPreCommit { sector: sector.id });
                }
                tokio::time::sleep(self.pause()).await;
                continue;
            };
            gone_since = None;
            let epoch = found.pre_commit_epoch.saturating_add(self.challenge_delay);
            let head = self.node.head().await?;
            if head.height >= epoch.saturating_add(SEED_CONFIDENCE) {
                let seed = self.node.seed(sector.id.miner, epoch, &head.cids).await?;
                // The same pre-commitment must lie under the head that the seed was drawn from.
                let now = self.node.pre_commit(sector.id, &head.cids).await?;
                if now.is_some_and(|now| now.pre_commit_epoch == found.pre_commit_epoch) {
                    return Ok((Seed(seed), ChainEpoch::new(epoch)));
                }
            }
            tokio::time::sleep(self.pause()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{first_free, is_set};

    #[test]
    fn a_number_is_set_in_every_second_run() {
        let set: Vec<u64> = (0..12).filter(|number| is_set(&[3, 2, 4, 1], *number)).collect();
        assert_eq!(set, [3, 4, 9]);
        assert!(is_set(&[0, 1], 0) && !is_set(&[], 0) && !is_set(&[u64::MAX], u64::MAX));
    }

    #[test]
    fn the_first_free_number_lies_behind_the_last_run_that_is_set() {
        for (runs, free) in [(&[][..], 0), (&[0], 0), (&[0, 1], 1), (&[3, 2, 4, 1], 10), (&[3, 2, 9], 5)] {
            assert_eq!(first_free(runs), Some(free), "{runs:?}");
        }
        assert_eq!(first_free(&[u64::MAX, 1]), None);
    }
}
