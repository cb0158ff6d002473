//! Computing a stored sector's commitments again from its files, to be compared with what its record says.
//!
//! Nothing of the sector is written; trees that are built on the way go into a directory of the caller's.

use std::io::Read as _;
use std::path::Path;

use filecoin_proofs_api::seal;
use pieces::commitment::PieceHasher;
use pieces::{PartialFile, PieceReader};
use sealtasks::{
    Commitment, ExecutorFailure, FailureClass, FileType, RegisteredSealProof, ScrubInput, ScrubVerdict,
    ScrubbedFile, SealedCid, SectorRef, SectorSize, TaskOutput, UnpaddedPieceSize, UnsealedCid,
};

use crate::TaskError;
use crate::data::partial_file_error;
use crate::files::Files;
use crate::p_aux::PAux;
use crate::proof_kind::to_library;

/// Raw bytes read at once: a multiple of 127, since that is how padding comes.
const CHUNK: usize = 127 << 14;

/// Compares the files of a sector, as far as they are there, with what they should commit to.
pub(crate) fn scrub(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &ScrubInput,
) -> Result<TaskOutput, TaskError> {
    let mut found = Vec::new();
    let unsealed = files.path(FileType::Unsealed)?;
    if unsealed.exists() {
        let size = sector.proof.sector_size();
        let told = || comm_d(unsealed, size).map(|cid| cid.to_string());
        found.push(if is_part(unsealed, size) {
            let detail = "only a part of the sector is unsealed there".to_owned();
            ScrubbedFile { file: FileType::Unsealed, verdict: ScrubVerdict::LeftOut, detail }
        } else {
            compared(FileType::Unsealed, input.unsealed.map(|cid| cid.to_string()), told)
        });
    }
    let sealed = files.path(FileType::Sealed)?;
    if sealed.exists() {
        let cache = files.path(FileType::Cache)?;
        let told = || {
            let failed = |source| TaskError::Io { doing: "creating", path: "trees".into(), source };
            // The working directory is the call's own.
            let here = std::env::current_dir().map_err(failed)?;
            let trees = tempfile::Builder::new().prefix("trees").tempdir_in(here).map_err(failed)?;
            comm_r(sector.proof, sealed, cache, trees.path()).map(|cid| cid.to_string())
        };
        found.push(compared(FileType::Sealed, input.sealed.map(|cid| cid.to_string()), told));
    }
    Ok(TaskOutput::Scrub(found))
}

/// Whether a part of the sector was never unsealed there, or was given back since.
fn is_part(unsealed: &Path, size: SectorSize) -> bool {
    PartialFile::open_read_only(unsealed, size)
        .is_ok_and(|file| file.allocated().gaps(size.bytes()).iter().next().is_some())
}

fn compared(
    file: FileType,
    expected: Option<String>,
    told: impl FnOnce() -> Result<String, TaskError>,
) -> ScrubbedFile {
    let Some(expected) = expected else {
        let detail = "the record has no commitment of it yet".to_owned();
        return ScrubbedFile { file, verdict: ScrubVerdict::LeftOut, detail };
    };
    let (verdict, detail) = match told() {
        Ok(found) if found == expected => (ScrubVerdict::Intact, found),
        Ok(found) => (ScrubVerdict::Differs, format!("expected {expected}, found {found}")),
        Err(error) => (ScrubVerdict::Unreadable, ExecutorFailure::from(error).message),
    };
    ScrubbedFile { file, verdict, detail }
}

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
