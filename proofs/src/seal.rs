//! The tasks that make a sector: PreCommit1, PreCommit2, Commit1 and Finalize.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use filecoin_proofs_api::seal::{
    self, SealCommitPhase1Output, SealPreCommitPhase1Output, SealPreCommitPhase2Output,
};
use filecoin_proofs_api::{PieceInfo as LibraryPiece, SectorId as LibrarySectorId, UnpaddedBytesAmount};
use sealtasks::{
    C1Output, Commit1Input, Commitment, FileType, Pc1Output, PieceInfo, PreCommit1Input, PreCommit2Input,
    ProofFeature, ProverId, SealedCid, SectorRef, TaskOutput, Ticket, UnpaddedPieceSize, UnsealedCid,
};
use serde::{Deserialize, Serialize};

use crate::files::Files;
use crate::{TaskError, to_library};

/// How often PC2 tries Commit1 on its own result, as Lotus does (`PC2CheckRounds`): a bad tree shows here, hours before
/// it would cost a failed proof.
const PC2_CHECK_ROUNDS: u8 = 3;

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
    encode("PreCommit1 output", &WithTicket { output: &output, ticket: input.ticket })
        .map(|bytes| TaskOutput::PreCommit1(Pc1Output(bytes)))
}

/// Builds the trees and the replica; with the ticket in hand it also tries Commit1, and makes the synthetic proofs.
pub(crate) fn pre_commit2(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &PreCommit2Input,
) -> Result<TaskOutput, TaskError> {
    let phase1: SealPreCommitPhase1Output = decode("input.pc1", &input.pc1.0)?;
    if phase1.registered_proof != to_library(sector.proof) {
        let problem = format!(
            "was made with proof {}, but the sector's proof is {}; give the PC1 output of this sector",
            crate::from_library(phase1.registered_proof),
            sector.proof
        );
        return Err(TaskError::Input { field: "input.pc1", problem });
    }
    let (sealed, cache) = (files.existing(FileType::Sealed)?, files.existing(FileType::Cache)?);
    let output = seal::seal_pre_commit_phase2(phase1, cache, sealed)
        .map_err(|error| TaskError::library("PreCommit2", &error))?;
    if let Some(ticket) = ticket_of(&input.pc1.0)? {
        check_own_work(sector, &output, ticket, (cache, sealed))?;
    }
    Ok(TaskOutput::PreCommit2 {
        unsealed: UnsealedCid::new(Commitment::new(output.comm_d)),
        sealed: SealedCid::new(Commitment::new(output.comm_r)),
    })
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

/// The ticket in a PC1 output, if it has one; an outside PC1 program may leave it off.
fn ticket_of(pc1: &[u8]) -> Result<Option<Ticket>, TaskError> {
    #[derive(Deserialize)]
    struct Carried {
        #[serde(rename = "_lotus_SealRandomness")]
        ticket: Option<String>,
    }
    let Some(text) = decode::<Carried>("input.pc1", pc1)?.ticket else { return Ok(None) };
    let bytes = base64::engine::general_purpose::STANDARD.decode(&text).ok();
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(bytes) => Ok(Some(Ticket(bytes))),
        None => Err(TaskError::Input {
            field: "input.pc1._lotus_SealRandomness",
            problem: "is not the base64 of 32 bytes".to_owned(),
        }),
    }
}

/// What Lotus does at the end of PC2. Pieces are not known here, so CommD stands for the one piece that fills the sector.
fn check_own_work(
    sector: &SectorRef,
    output: &SealPreCommitPhase2Output,
    ticket: Ticket,
    (cache, sealed): (&Path, &Path),
) -> Result<(), TaskError> {
    let size = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
    let whole = LibraryPiece::new(output.comm_d, UnpaddedBytesAmount(size))
        .map_err(|error| TaskError::library("PreCommit2 self-check", &error))?;
    let pieces = std::slice::from_ref(&whole);
    let (prover, number) = (prover(sector), number(sector));
    let synthetic = sector.proof.feature() == ProofFeature::Synthetic;
    if synthetic {
        seal::generate_synth_proofs(cache, sealed, prover, number, ticket.0, output.clone(), pieces)
            .map_err(|error| TaskError::library("synthetic proofs", &error))?;
    }
    // A non-interactive proof takes no seed: every round would be the same.
    let rounds = if sector.proof.feature() == ProofFeature::NonInteractive { 1 } else { PC2_CHECK_ROUNDS };
    for round in 0..rounds {
        let seed = check_seed(&output.comm_r, round);
        seal::seal_commit_phase1(cache, sealed, prover, number, ticket.0, seed, output.clone(), pieces)
            // The trees are wrong, whatever the library calls it: this machine computed them.
            .map_err(|error| TaskError::Library {
                doing: "PreCommit2 self-check",
                message: format!("{error:#}"),
                class: sealtasks::FailureClass::Compute,
            })?;
    }
    if synthetic {
        // Only now: were they dropped before the check, a failed check could not be looked into.
        seal::clear_cache(cache).map_err(|error| TaskError::library("dropping the layers", &error))?;
    }
    Ok(())
}

/// A seed for the self-check. Derived from CommR, so that a failure comes again when it is looked into.
fn check_seed(comm_r: &[u8; 32], round: u8) -> [u8; 32] {
    let digest =
        blake2b_simd::Params::new().hash_length(32).to_state().update(comm_r).update(&[round]).finalize();
    let mut seed = [0; 32];
    seed.copy_from_slice(digest.as_bytes());
    seed[31] &= 0x3f; // a field element, as the chain's randomness is made to be
    seed
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
