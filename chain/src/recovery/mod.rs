//! What a lost sector is sealed from again, and the file that it is kept in: `sectors-recovery-f01000.json`, in the form
//! that filecoin-sealer-recover writes and reads. Never seals.

mod export;
mod file;
mod numbers;
mod printed;

use sealtasks::{
    ActorId, PieceInfo, RegisteredSealProof, SealedCid, SectorNumber, SectorSize, Ticket, UnsealedCid,
};

pub use export::{Export, ExportFailure, FailedSector, export, export_printed};
pub use file::{FILE_SIZE_MAX, MetadataError, file_name, parse, write};
pub use numbers::{NumbersError, SECTORS_MAX, sector_numbers};
pub use printed::{Printed, parse_printed};

/// Sectors of one miner, with all that the chain tells for sealing them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Whose sectors.
    pub miner: ActorId,
    /// The size of each.
    pub size: SectorSize,
    /// In the order of the file; no number twice.
    pub sectors: Vec<LostSector>,
}

/// One sector to seal again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostSector {
    /// Its number.
    pub number: SectorNumber,
    /// The randomness that it was sealed with.
    pub ticket: Ticket,
    /// The proof that it was sealed for.
    pub proof: RegisteredSealProof,
    /// CommR: what sealing it again must give.
    pub sealed: SealedCid,
    /// CommD, where the chain tells it; committed capacity has the commitment of zeroes, which is not written.
    pub unsealed: Option<UnsealedCid>,
    /// The pieces that are not filler, in order; each lies at the next multiple of its own size, with zeroes between and
    /// after. None: committed capacity.
    pub pieces: Vec<PieceInfo>,
}
