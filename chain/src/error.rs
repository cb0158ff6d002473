//! Why the chain does not say or take something.

use rpc::ApiError;
use sealtasks::{ActorId, SealedCid, SectorId, SectorSize};

/// What a chain could not say. `Display` is for people; the stable code is [`ChainError::code`].
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
    /// The full node does not answer, or answers with an error.
    #[error("the full node does not say {what}")]
    Node {
        /// What it was asked for.
        what: String,
        /// What it answered instead.
        #[source]
        source: ApiError,
    },
    /// The client cannot be made.
    #[error("FULLNODE_API_INFO cannot be used")]
    Client {
        /// Why.
        #[source]
        source: rpc::client::ClientError,
    },
    /// The node speaks another version.
    #[error("the full node {software:?} speaks API version {found}; needed is 2.{minor_min} or a later 2.x")]
    ApiVersion {
        /// The node's name for itself.
        software: String,
        /// Its API version.
        found: String,
        /// The oldest minor version that is enough.
        minor_min: u32,
    },
    /// An answer of the right shape whose content makes no sense.
    #[error("the full node's {method} makes no sense: {detail}")]
    Answer {
        /// The method.
        method: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The operator's and the chain's sector size differ.
    #[error("{miner} has {chain} sectors on chain, not {told}; leave --sector-size out or give {chain}")]
    SectorSize {
        /// The miner.
        miner: ActorId,
        /// On chain.
        chain: SectorSize,
        /// As told.
        told: SectorSize,
    },
    /// The chain knows of no pre-commitment.
    #[error(
        "the chain has no pre-commitment of {sector}; its seed is drawn only after PreCommitSectorBatch2 has landed"
    )]
    NoPreCommit {
        /// The sector.
        sector: SectorId,
    },
    /// The chain knows of another replica.
    #[error(
        "the chain has a pre-commitment of {sector} to {chain}, not to ours ({ours}); a proof of ours would be refused"
    )]
    OtherReplica {
        /// The sector.
        sector: SectorId,
        /// CommR on chain.
        chain: SealedCid,
        /// Our CommR.
        ours: SealedCid,
    },
    /// The number is taken by a sector that lives.
    #[error(
        "{sector} is proven on chain already; sealed anew it would be another replica, and the files of the good one would \
         go. Nothing was deleted; a lost one comes back by `sealyard sectors rebuild`"
    )]
    AlreadyProven {
        /// The sector.
        sector: SectorId,
    },
    /// What its ticket makes is not what the chain proves.
    #[error(
        "{sector} was snapped (its data were put into it after it was sealed); its ticket makes the replica of before, which \
         would be a fault on chain, and rebuilding snapped sectors is not built"
    )]
    Snapped {
        /// The sector.
        sector: SectorId,
    },
    /// The replica that is to be made is not what the chain proves.
    #[error(
        "the chain has {sector} with CommR {chain}, and it would be sealed again to {lost}, which would be a fault there; \
         `sealyard repair export` reads from the chain what it was sealed from"
    )]
    OtherOnChain {
        /// The sector.
        sector: SectorId,
        /// CommR on chain.
        chain: SealedCid,
        /// CommR that was told.
        lost: SealedCid,
    },
    /// Nobody has to prove it.
    #[error(
        "the chain has no live sector {sector}: it was never pre-committed, or it has expired or was terminated; what would be \
         sealed is of no use there"
    )]
    NotOnChain {
        /// The sector.
        sector: SectorId,
    },
    /// The number is no longer ours to take.
    #[error(
        "the number of {sector} was taken on chain by a message that this manager has not sent, or by a sector that is gone; a \
         replica of ours could not be pre-committed under it, and nothing is sealed. Remove the sector \
         (`sealyard sectors remove`) and pledge another, or give its data to another"
    )]
    NumberTaken {
        /// The sector.
        sector: SectorId,
    },
}

impl ChainError {
    /// Whether asking again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NeedsChain { .. }
            | Self::Client { .. }
            | Self::ApiVersion { .. }
            | Self::SectorSize { .. }
            | Self::OtherReplica { .. }
            | Self::AlreadyProven { .. }
            | Self::Snapped { .. }
            | Self::OtherOnChain { .. }
            | Self::NotOnChain { .. }
            | Self::NumberTaken { .. } => true,
            Self::Node { source, .. } => {
                matches!(source, ApiError::Unauthorized { .. }) || source.is_method_not_found()
            }
            Self::Answer { .. } | Self::NoPreCommit { .. } => false,
        }
    }

    /// Stable code for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NeedsChain { .. } => "CHN01",
            Self::Node { .. } => "CHN02",
            Self::Client { .. } => "CHN03",
            Self::ApiVersion { .. } => "CHN04",
            Self::Answer { .. } => "CHN05",
            Self::SectorSize { .. } => "CHN06",
            Self::NoPreCommit { .. } => "CHN07",
            Self::OtherReplica { .. } => "CHN08",
            Self::AlreadyProven { .. } => "CHN09",
            Self::NumberTaken { .. } => "CHN10",
            Self::Snapped { .. } => "CHN11",
            Self::OtherOnChain { .. } => "CHN12",
            Self::NotOnChain { .. } => "CHN13",
        }
    }
}
