//! PreCommit1, Commit1 and Finalize.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use filecoin_proofs_api::seal::{
    self, SealCommitPhase1Output, SealPreCommitPhase1Output, SealPreCommitPhase2Output,
};
use filecoin_proofs_api::{PieceInfo as LibraryPiece, SectorId as LibrarySectorId, UnpaddedBytesAmount};
use sealtasks::{
    C1Output, Commit1Input, FileType, Pc1Output, PieceInfo, PreCommit1Input, ProofFeature, ProverId,
    SectorRef, TaskOutput, Ticket, UnpaddedPieceSize,
};
use serde::{Deserialize, Serialize};

use crate::files::{Files, make_durable};
use crate::{TaskError, to_library};

/// Labels the layers.
pub(crate) fn pre_commit1(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &PreCommit1Input,
) -> Result<TaskOutput, TaskError> {
    check_piece_sum(sector, &input.pieces)?;
    let unsealed = files.existing(FileType::Unsealed)?;
    let (sealed, cache) = (files.path(FileType::Sealed)?, files.path(FileType::Cache)?);
    // What an earlier attempt left is of no use: the library would take its trees for finished ones.
    empty_file(sealed)?;
    empty_directory(cache)?;
    let output = seal::seal_pre_commit_phase1(
        to_library(sector.proof),
        cache,
        unsealed,
        sealed,
        prover(sector),
        number(sector),
        input.ticket.0,
        &library_pieces(&input.pieces)?,
    )
    .map_err(|error| TaskError::library("PreCommit1", &error))?;
    make_durable(sealed, cache)?;
    encode("PreCommit1 output", &WithTicket { output: &output, ticket: input.ticket })
        .map(|bytes| TaskOutput::PreCommit1(Pc1Output(bytes)))
}

/// Collects the vanilla proofs.
pub(crate) fn commit1(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &Commit1Input,
) -> Result<TaskOutput, TaskError> {
    check_piece_sum(sector, &input.pieces)?;
    let (sealed, cache) = (files.existing(FileType::Sealed)?, files.existing(FileType::Cache)?);
    let pre_commit = SealPreCommitPhase2Output {
        registered_proof: to_library(sector.proof),
        comm_r: *input.sealed.commitment().bytes(),
        comm_d: *input.unsealed.commitment().bytes(),
    };
    let output: SealCommitPhase1Output = seal::seal_commit_phase1(
        cache,
        sealed,
        prover(sector),
        number(sector),
        input.ticket.0,
        input.seed.0,
        pre_commit,
        &library_pieces(&input.pieces)?,
    )
    .map_err(|error| TaskError::library("Commit1", &error))?;
    encode("Commit1 output", &output).map(|bytes| TaskOutput::Commit1(C1Output(bytes)))
}

/// Drops layers, tree-c, tree-d and synthetic proofs; what window PoSt needs stays.
pub(crate) fn finalize(sector: &SectorRef, files: &Files<'_>) -> Result<TaskOutput, TaskError> {
    let cache = files.existing(FileType::Cache)?;
    // Without p_aux PreCommit2 has not been done, and what would be dropped are layers that are still needed.
    let marker = cache.join("p_aux");
    if !marker.is_file() {
        let problem = format!(
            "{} has no p_aux: PreCommit2 has not finished there, nothing was dropped",
            cache.display()
        );
        return Err(TaskError::Input { field: "files.cache", problem });
    }
    if sector.proof.feature() == ProofFeature::Synthetic
        && let Err(error) = seal::clear_synthetic_proofs(cache)
    {
        // As in Lotus: the file only takes space, and the next Finalize tries again.
        tracing::warn!(sector = %sector.id, error = format!("{error:#}"), "synthetic proofs could not be deleted");
    }
    seal::clear_cache(cache).map_err(|error| TaskError::library("Finalize", &error))?;
    Ok(TaskOutput::Finalize)
}

/// The prover id of the sector's miner.
pub(crate) fn prover(sector: &SectorRef) -> [u8; 32] {
    *ProverId::from(sector.id.miner).bytes()
}

/// The sector's number as the library has it.
pub(crate) fn number(sector: &SectorRef) -> LibrarySectorId {
    LibrarySectorId::from(sector.id.number.get())
}

/// JSON exactly as the library's own types write it, which is what filecoin-ffi hands to Lotus.
pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, TaskError> {
    serde_json::to_vec(value).map_err(|error| TaskError::library(what, &error.into()))
}

/// The library's JSON that an earlier task gave back.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(
    field: &'static str,
    bytes: &[u8],
) -> Result<T, TaskError> {
    serde_json::from_slice(bytes).map_err(|error| TaskError::Input {
        field,
        problem: format!("is not what the task before it gives back: {error}"),
    })
}

/// PC1's output as it travels: the library's fields, then the ticket, which PC2's self-check needs.
#[derive(Serialize)]
struct WithTicket<'a> {
    #[serde(flatten)]
    output: &'a SealPreCommitPhase1Output,
    #[serde(rename = "_lotus_SealRandomness", serialize_with = "ticket_as_base64")]
    ticket: Ticket,
}

/// Go writes a byte slice as padded standard base64.
fn ticket_as_base64<S: serde::Serializer>(ticket: &Ticket, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(ticket.0))
}

/// Every byte of a sector belongs to a piece.
fn check_piece_sum(sector: &SectorRef, pieces: &[PieceInfo]) -> Result<(), TaskError> {
    let size = sector.proof.sector_size();
    let whole = UnpaddedPieceSize::whole_sector(size).get();
    let sum = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.size.unpadded().get()));
    if sum == whole { Ok(()) } else { Err(TaskError::PieceSum { pieces: sum, sector: whole, size }) }
}

fn library_pieces(pieces: &[PieceInfo]) -> Result<Vec<LibraryPiece>, TaskError> {
    let convert = |piece: &PieceInfo| {
        let size = UnpaddedBytesAmount(piece.size.unpadded().get());
        LibraryPiece::new(*piece.cid.commitment().bytes(), size).map_err(|error| TaskError::Input {
            field: "input.pieces",
            problem: format!("hold {}, which the proofs library refuses: {error:#}", piece.cid),
        })
    };
    pieces.iter().map(convert).collect()
}

fn empty_file(path: &Path) -> Result<(), TaskError> {
    fs::File::create(path).map(drop).map_err(|source| TaskError::Io {
        doing: "creating",
        path: path.to_owned(),
        source,
    })
}

fn empty_directory(path: &Path) -> Result<(), TaskError> {
    let error = |doing| move |source| TaskError::Io { doing, path: path.to_owned(), source };
    match fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(other) => return Err(error("emptying")(other)),
    }
    fs::create_dir(path).map_err(error("creating"))
}
