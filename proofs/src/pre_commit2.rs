//! PreCommit2: the trees and the replica, and a check of both.
//!
//! The library turns the sector's data into the replica in place. A run that was cut off, or that finished and whose
//! result was lost, is therefore undone before the next one begins: see [`crate::unencoded`]. Only where that cannot be,
//! because a finished synthetic run has dropped the layers and tree-d, its result is taken from `p_aux`.

use std::path::Path;

use base64::Engine as _;
use filecoin_proofs::StoreConfig;
use filecoin_proofs_api::seal::{self, SealPreCommitPhase1Output, SealPreCommitPhase2Output};
use filecoin_proofs_api::{PieceInfo as LibraryPiece, UnpaddedBytesAmount};
use sealtasks::{
    Commitment, FailureClass, FileType, PreCommit2Input, ProofFeature, SealedCid, SectorRef, TaskOutput,
    Ticket, UnpaddedPieceSize, UnsealedCid,
};
use serde::Deserialize;

use crate::files::{Files, make_durable};
use crate::p_aux::PAux;
use crate::seal::{decode, number, prover};
use crate::unencoded::Unencoded;
use crate::{TaskError, to_library};

/// How often Commit1 is tried on the result, as Lotus does (`PC2CheckRounds`): a bad tree shows here, hours before it
/// would cost a failed proof.
const CHECK_ROUNDS: u8 = 3;

/// Builds the trees and the replica; with the ticket in hand it also makes the synthetic proofs and tries Commit1.
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
    let ticket = ticket_of(&input.pc1.0)?;
    let (sealed, cache) = (files.existing(FileType::Sealed)?, files.existing(FileType::Cache)?);
    let tree_d = StoreConfig::data_path(cache, &phase1.config.id);
    let result = Product { sector, cache, sealed, tree_d: &tree_d };
    let bytes = sector.proof.sector_size().bytes();
    let before = Unencoded { sealed, cache, tree_d: &tree_d, bytes };
    let output = if before.has_tree()? {
        before.restore()?;
        let output = seal::seal_pre_commit_phase2(phase1, cache, sealed)
            .map_err(|error| TaskError::library("PreCommit2", &error))?;
        make_durable(sealed, cache)?;
        if let Some(ticket) = ticket {
            result.check(&output, ticket)?;
        }
        output
    } else {
        result.of_earlier_run(phase1.comm_d, ticket)?
    };
    Ok(TaskOutput::PreCommit2 {
        unsealed: UnsealedCid::new(Commitment::new(output.comm_d)),
        sealed: SealedCid::new(Commitment::new(output.comm_r)),
    })
}

/// Where the result lies.
struct Product<'a> {
    sector: &'a SectorRef,
    cache: &'a Path,
    sealed: &'a Path,
    tree_d: &'a Path,
}

impl Product<'_> {
    /// The result of a synthetic run that finished. Believed only after the self-check; without the ticket there is none.
    fn of_earlier_run(
        &self,
        comm_d: [u8; 32],
        ticket: Option<Ticket>,
    ) -> Result<SealPreCommitPhase2Output, TaskError> {
        let redo = |why: &str| {
            let tree_d = self.tree_d.display();
            let problem = format!("has no whole tree-d ({tree_d}) {why}; run PreCommit1 again");
            TaskError::Input { field: "files.cache", problem }
        };
        // The synthetic proofs are checked before tree-d goes.
        let finished = self.cache.join("syn-porep-vanilla-proofs.dat").is_file();
        let (true, Some(ticket)) = (finished, ticket) else {
            return Err(redo("and no result of an earlier PreCommit2"));
        };
        tracing::info!(sector = %self.sector.id, "an earlier PreCommit2 had finished; its result is checked and taken");
        let registered_proof = to_library(self.sector.proof);
        let output =
            SealPreCommitPhase2Output { registered_proof, comm_r: PAux::read(self.cache)?.comm_r()?, comm_d };
        self.check(&output, ticket)
            .map_err(|error| redo(&format!("and an earlier PreCommit2's result is no good ({error})")))?;
        Ok(output)
    }

    /// What Lotus does at the end of PC2. Pieces are not known here, so CommD stands for the one piece that fills the
    /// sector.
    fn check(&self, output: &SealPreCommitPhase2Output, ticket: Ticket) -> Result<(), TaskError> {
        let Self { sector, cache, sealed, .. } = *self;
        let size = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        let whole = LibraryPiece::new(output.comm_d, UnpaddedBytesAmount(size))
            .map_err(|error| TaskError::library("PreCommit2 self-check", &error))?;
        let pieces = std::slice::from_ref(&whole);
        let (prover, number) = (prover(sector), number(sector));
        // Synthetic proofs are made from the layers, which are dropped once the proofs have been checked; tree-d goes
        // first, so where it is the rest is.
        let synthesise = sector.proof.feature() == ProofFeature::Synthetic && self.tree_d.is_file();
        if synthesise {
            seal::generate_synth_proofs(cache, sealed, prover, number, ticket.0, output.clone(), pieces)
                .map_err(|error| TaskError::library("synthetic proofs", &error))?;
        }
        // A non-interactive proof takes no seed: every round would be the same.
        let rounds = if sector.proof.feature() == ProofFeature::NonInteractive { 1 } else { CHECK_ROUNDS };
        for round in 0..rounds {
            let seed = check_seed(&output.comm_r, round);
            seal::seal_commit_phase1(cache, sealed, prover, number, ticket.0, seed, output.clone(), pieces)
                // The trees are wrong, whatever the library calls it: they were computed here.
                .map_err(|error| TaskError::Library {
                    doing: "PreCommit2 self-check",
                    message: format!("{error:#}"),
                    class: FailureClass::Compute,
                })?;
        }
        if synthesise {
            // The proofs must outlast what they were made from.
            make_durable(sealed, cache)?;
            seal::clear_cache(cache).map_err(|error| TaskError::library("dropping the layers", &error))?;
        }
        Ok(())
    }
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

/// A seed for the self-check. Derived from CommR, so that a failure comes again when it is looked into.
fn check_seed(comm_r: &[u8; 32], round: u8) -> [u8; 32] {
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    let digest = state.update(comm_r).update(&[round]).finalize();
    let mut seed = [0; 32];
    seed.copy_from_slice(digest.as_bytes());
    seed[31] &= 0x3f; // a field element, as the chain's randomness is made to be
    seed
}
