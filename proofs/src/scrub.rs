//! Computing a stored sector's commitments again from its files, to be compared with what its record says.
//!
//! Nothing of the sector is written; trees that are built on the way go into a directory of the caller's.

use std::io::Read as _;
use std::path::Path;

use filecoin_proofs_api::seal;
use pieces::PieceReader;
use pieces::commitment::PieceHasher;
use sealtasks::{
    Commitment, FailureClass, RegisteredSealProof, SealedCid, SectorSize, UnpaddedPieceSize, UnsealedCid,
};

use crate::TaskError;
use crate::data::partial_file_error;
use crate::p_aux::PAux;
use crate::proof_kind::to_library;

/// Raw bytes read at once: a multiple of 127, since that is how padding comes.
const CHUNK: usize = 127 << 14;

/// CommD of a whole unsealed file.
///
/// # Errors
/// When a part of the sector is not in the file, or the file cannot be read.
pub fn comm_d(unsealed: &Path, size: SectorSize) -> Result<UnsealedCid, TaskError> {
    let whole = UnpaddedPieceSize::whole_sector(size);
    let mut reader = PieceReader::open(unsealed, size, 0, whole.get())
        .map_err(|error| partial_file_error("scrubbing", &error))?;
    let mut hasher = PieceHasher::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let got = reader.read(&mut chunk).map_err(|source| TaskError::Io {
            doing: "reading",
            path: unsealed.to_owned(),
            source,
        })?;
        if got == 0 {
            break;
        }
        hasher.update(&chunk[..got]);
    }
    let root = hasher.finish(whole).map_err(|error| TaskError::Pieces {
        doing: "scrubbing",
        message: error.to_string(),
        class: FailureClass::Environment,
    })?;
    Ok(UnsealedCid::new(root))
}

/// CommR of a replica: tree-r-last is built anew from it in `work`, an empty directory, and its root combined with
/// CommC of the cache's `p_aux`.
///
/// # Errors
/// When a file is missing, has a wrong length or cannot be read, or `work` has no room for the tree.
pub fn comm_r(
    proof: RegisteredSealProof,
    sealed: &Path,
    cache: &Path,
    work: &Path,
) -> Result<SealedCid, TaskError> {
    let found = std::fs::metadata(sealed).map_err(|source| TaskError::Io {
        doing: "looking at",
        path: sealed.to_owned(),
        source,
    })?;
    let expected = proof.sector_size().bytes();
    if found.len() != expected {
        let problem = format!("{} has {} bytes instead of {expected}", sealed.display(), found.len());
        return Err(TaskError::Input { field: "files.sealed", problem });
    }
    let PAux { comm_c, .. } = PAux::read(cache)?;
    let comm_r_last = seal::generate_tree_r_last(to_library(proof), sealed, work)
        .map_err(|error| TaskError::library("building tree-r-last", &error))?;
    let root = PAux { comm_c, comm_r_last }.comm_r()?;
    Ok(SealedCid::new(Commitment::new(root)))
}
