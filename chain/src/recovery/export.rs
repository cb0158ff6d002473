//! Reading lost sectors from the chain. The pre-commitment that named ticket, proof and replica is gone once a sector is
//! proven, so it is looked up in the state of the height at which that happened.

use futures_util::StreamExt as _;
use sealtasks::{
    ActorId, ChainEpoch, PaddedPieceSize, PieceInfo, RegisteredSealProof, SealedCid, SectorId, SectorNumber,
    SectorSize, Ticket, UnsealedCid,
};

use super::{LostSector, Metadata, Printed};
use crate::lotus::wire::{Link, PreCommitInfo, SectorOnChain};
use crate::lotus::{HEAD, Node, sealed};
use crate::params::{Method, proven_pieces};
use crate::{ChainError, Lotus};

/// Sectors that are asked for at the same time; a node reads old state from its disk.
const PARALLEL: usize = 8;

/// What came of an export.
#[derive(Debug)]
pub struct Export {
    /// The sectors that the chain tells everything of, by number.
    pub metadata: Metadata,
    /// The others, by number.
    pub failed: Vec<FailedSector>,
}

/// A sector that was asked for and is not in the file.
#[derive(Debug)]
pub struct FailedSector {
    /// Its number.
    pub number: SectorNumber,
    /// Why not.
    pub why: ExportFailure,
}

/// Reads these sectors of the miner. `done` hears how many sectors are done and how many there are. Sectors that fail do
/// not stop the others.
///
/// # Errors
/// The miner itself cannot be read.
pub async fn export(
    lotus: &Lotus,
    miner: ActorId,
    numbers: &[SectorNumber],
    done: impl FnMut(usize, usize),
) -> Result<Export, ChainError> {
    let size = lotus.miner(miner, None).await?.size;
    let reads = numbers.iter().map(|number| {
        let sector = SectorId { miner, number: *number };
        async move { (*number, one(&lotus.node, sector, size).await) }
    });
    Ok(gathered(Metadata { miner, size, sectors: Vec::new() }, reads, done).await)
}

/// The same with printed pre-commitments in place of those that the state of the past has: of a proven sector only an
/// archival node knows its own. The ticket is still the chain's.
///
/// # Errors
/// The miner itself cannot be read.
pub async fn export_printed(
    lotus: &Lotus,
    miner: ActorId,
    printed: &[Printed],
    done: impl FnMut(usize, usize),
) -> Result<Export, ChainError> {
    let size = lotus.miner(miner, None).await?.size;
    let reads = printed.iter().map(|printed| {
        let number = printed.number();
        let sector = SectorId { miner, number };
        async move { (number, one_printed(&lotus.node, sector, size, printed).await) }
    });
    Ok(gathered(Metadata { miner, size, sectors: Vec::new() }, reads, done).await)
}

async fn gathered<R>(
    mut metadata: Metadata,
    reads: impl ExactSizeIterator<Item = R>,
    mut done: impl FnMut(usize, usize),
) -> Export
where
    R: Future<Output = (SectorNumber, Result<LostSector, ExportFailure>)>,
{
    let all = reads.len();
    let mut failed = Vec::new();
    let mut reads = futures_util::stream::iter(reads).buffered(PARALLEL);
    while let Some((number, read)) = reads.next().await {
        match read {
            Ok(sector) => metadata.sectors.push(sector),
            Err(why) => failed.push(FailedSector { number, why }),
        }
        done(metadata.sectors.len() + failed.len(), all);
    }
    Export { metadata, failed }
}

async fn one(node: &Node, sector: SectorId, size: SectorSize) -> Result<LostSector, ExportFailure> {
    let proven = node.sector(sector, HEAD).await?;
    let (height, at, promised) = match &proven {
        Some(found) if found.key.is_some() => return Err(ExportFailure::Snapped),
        Some(found) => {
            let tipset = node.tipset_at(found.activation).await?;
            let promised = node.pre_commit(sector, &tipset.cids).await?;
            let height = ChainEpoch::new(found.activation);
            (height, tipset.cids, promised.ok_or(ExportFailure::NoPreCommit { height })?)
        }
        None => {
            let promised = node.pre_commit(sector, HEAD).await?.ok_or(ExportFailure::Unknown)?;
            let height = ChainEpoch::new(promised.pre_commit_epoch);
            (height, node.tipset_at(height.get()).await?.cids, promised)
        }
    };
    let then = (height, &at[..]);
    told(node, (sector, size), &promised.info, proven.as_ref(), then, then).await
}

/// With what the chain has of the sector now, printed or not, the printed pre-commitment must agree.
async fn one_printed(
    node: &Node,
    sector: SectorId,
    size: SectorSize,
    printed: &Printed,
) -> Result<LostSector, ExportFailure> {
    let Some(proven) = node.sector(sector, HEAD).await? else {
        let lost = one(node, sector, size).await?;
        let promised = sealed(printed.info.sealed.as_ref(), "PreCommit")?;
        return match lost.sealed == promised {
            true => Ok(lost),
            false => Err(ExportFailure::OtherReplica { promised, proven: lost.sealed }),
        };
    };
    if proven.key.is_some() {
        return Err(ExportFailure::Snapped);
    }
    let (then, now) = (node.tipset_at(proven.activation).await?, node.head().await?);
    let (then, now) = ((then.epoch(), &then.cids[..]), (now.epoch(), &now.cids[..]));
    told(node, (sector, size), &printed.info, Some(&proven), then, now).await
}

/// What the chain tells of a sector whose pre-commitment is known: `then`, at the height of its activation or, before that, of
/// its pre-commitment. Deals are looked up in the state of `deals_at`.
async fn told(
    node: &Node,
    (sector, size): (SectorId, SectorSize),
    promised: &PreCommitInfo,
    proven: Option<&SectorOnChain>,
    (height, at): (ChainEpoch, &[Link]),
    deals_at: (ChainEpoch, &[Link]),
) -> Result<LostSector, ExportFailure> {
    let (proof, sealed) = replica(promised, proven, size)?;
    // The ticket's height lies below the pre-commitment, so every later tipset has it below itself, too.
    let ticket = node.ticket(sector.miner, promised.seal_rand_epoch, at).await?;
    let unsealed = match &promised.unsealed {
        None => None,
        Some(link) => Some(commitment(link)?),
    };
    let deals = &promised.deals;
    let pieces = if !deals.is_empty() {
        of_deals(node, deals, deals_at).await?
    } else if unsealed.is_some() {
        if proven.is_none() {
            return Err(ExportFailure::NotProven);
        }
        of_proof(node, sector, at).await?.ok_or(ExportFailure::NoPieces { height })?
    } else {
        Vec::new()
    };
    Ok(LostSector { number: sector.number, ticket: Ticket(ticket), proof, sealed, unsealed, pieces })
}

/// Proof and CommR, which pre-commitment, sector and miner must agree on.
fn replica(
    promised: &PreCommitInfo,
    proven: Option<&SectorOnChain>,
    size: SectorSize,
) -> Result<(RegisteredSealProof, SealedCid), ExportFailure> {
    let method = "StateSectorPreCommitInfo";
    let answer = |detail: String| ExportFailure::from(ChainError::Answer { method, detail });
    let number = promised.seal_proof;
    let proof = RegisteredSealProof::try_from(number).map_err(|error| answer(error.to_string()))?;
    if proof.sector_size() != size {
        return Err(answer(format!("seal proof {proof} of a miner with {size} sectors")));
    }
    let promise = sealed(promised.sealed.as_ref(), method)?;
    if let Some(proven) = proven {
        let replica = sealed(proven.sealed.as_ref(), "StateSectorGetInfo")?;
        if replica != promise || proven.seal_proof != number {
            return Err(ExportFailure::OtherReplica { promised: promise, proven: replica });
        }
    }
    Ok((proof, promise))
}

/// The pieces of deals that were named when the sector was pre-committed.
async fn of_deals(
    node: &Node,
    deals: &[u64],
    (height, at): (ChainEpoch, &[Link]),
) -> Result<Vec<PieceInfo>, ExportFailure> {
    let mut pieces = Vec::with_capacity(deals.len());
    for deal in deals {
        let found = node.deal(*deal, at).await;
        let proposal = found.map_err(|source| ExportFailure::Deal { deal: *deal, height, source })?.proposal;
        let size = PaddedPieceSize::try_from(proposal.piece_size).map_err(|error| ChainError::Answer {
            method: "StateMarketStorageDeal",
            detail: format!("deal {deal}: {error}"),
        })?;
        pieces.push(PieceInfo { size, cid: commitment(&proposal.piece)? });
    }
    Ok(pieces)
}

/// The pieces that the message named which proved the sector; it lies in the tipset of the sector's activation.
async fn of_proof(
    node: &Node,
    sector: SectorId,
    at: &[Link],
) -> Result<Option<Vec<PieceInfo>>, ExportFailure> {
    for message in node.messages_in(at).await?.into_iter().map(|found| found.message) {
        if message.method != Method::ProveCommitSectors3.number() {
            continue;
        }
        let Some(pieces) = proven_pieces(&message.params.0, sector.number) else { continue };
        if node.actor_of(&message.to).await? == Some(sector.miner) {
            return Ok(Some(pieces));
        }
    }
    Ok(None)
}

fn commitment(link: &Link) -> Result<UnsealedCid, ChainError> {
    link.cid.parse().map_err(|error| ChainError::Answer {
        method: "StateSectorPreCommitInfo",
        detail: format!("a piece's or sector's commitment: {error}"),
    })
}

/// Why a sector cannot be exported. `Display` is for people; the stable code is [`ExportFailure::code`].
#[derive(Debug, thiserror::Error)]
pub enum ExportFailure {
    /// The chain has neither a sector nor a pre-commitment of this number.
    #[error(
        "the chain knows no such sector; it was never pre-committed, or it has expired or was terminated"
    )]
    Unknown,
    /// Its files were made by a snap update, which sealing alone does not make again.
    #[error(
        "it was snapped (its data were put into it after it was sealed), and rebuilding snapped sectors is not built"
    )]
    Snapped,
    /// Sealed without a pre-commitment, or the node's memory ends before it.
    #[error(
        "the state at height {height}, where it was activated, has no pre-commitment of it: it was proven without one \
         (non-interactive PoRep), or the node does not remember so far back and an archival node is needed"
    )]
    NoPreCommit {
        /// The height of its activation.
        height: ChainEpoch,
    },
    /// The two do not belong together.
    #[error(
        "it was pre-committed as {promised} and is on chain as {proven}; which one is to be sealed is not clear"
    )]
    OtherReplica {
        /// CommR of the pre-commitment.
        promised: SealedCid,
        /// CommR of the sector.
        proven: SealedCid,
    },
    /// A deal is gone from the state, or cannot be had.
    #[error("deal {deal}, which is in it, cannot be read at height {height}")]
    Deal {
        /// The deal's number.
        deal: u64,
        /// Where it was looked for.
        height: ChainEpoch,
        /// Why.
        #[source]
        source: ChainError,
    },
    /// It has data whose pieces the chain will be told of with its proof.
    #[error("it has data and is not proven yet; which pieces they are is on chain only with the proof")]
    NotProven,
    /// It has data whose pieces no message names.
    #[error(
        "it has data, but no ProveCommitSectors3 in the tipset at height {height} names its pieces; the storage market's \
         or your own records must"
    )]
    NoPieces {
        /// The height of its activation.
        height: ChainEpoch,
    },
    /// The node does not say.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl ExportFailure {
    /// Stable code for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "EXP01",
            Self::Snapped => "EXP02",
            Self::NoPreCommit { .. } => "EXP03",
            Self::OtherReplica { .. } => "EXP04",
            Self::Deal { .. } => "EXP05",
            Self::NotProven => "EXP06",
            Self::NoPieces { .. } => "EXP07",
            Self::Chain(error) => error.code(),
        }
    }
}
