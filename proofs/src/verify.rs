//! The two tasks that need proof parameters: Commit2, and the verification of its proof.

use filecoin_proofs::parameters::public_params;
use filecoin_proofs::{DefaultPieceHasher, PoRepConfig, with_shape};
use filecoin_proofs_api::seal::{self, SealCommitPhase1Output};
use rand_chacha::ChaCha20Rng;
use sealtasks::{Commit2Input, Proof, SectorRef, TaskOutput, VerifyInput};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_porep::stacked::{StackedCompound, generate_replica_id};

use crate::params::{self, Purpose};
use crate::seal::{decode, number, prover};
use crate::{TaskError, to_library};

/// Computes the SNARK. The library verifies it before it gives it back.
pub(crate) fn commit2(sector: &SectorRef, input: &Commit2Input) -> Result<TaskOutput, TaskError> {
    let phase1: SealCommitPhase1Output = decode("input.c1", &input.c1.0)?;
    check_belongs(sector, &phase1)?;
    params::require(sector.proof.sector_size(), Purpose::Prove)?;
    let output = seal::seal_commit_phase2(phase1, prover(sector), number(sector))
        .map_err(|error| TaskError::library("Commit2", &error))?;
    Ok(TaskOutput::Commit2(Proof(output.proof)))
}

/// Checks a SNARK. Bytes that are no proof at all are an invalid proof, not a failure.
pub(crate) fn verify(sector: &SectorRef, input: &VerifyInput) -> Result<TaskOutput, TaskError> {
    params::require(sector.proof.sector_size(), Purpose::Verify)?;
    let library = to_library(sector.proof);
    // Loaded first, and by itself, so that an unreadable key is never taken for an invalid proof.
    let config = library.as_v1_config();
    with_shape!(sector.proof.sector_size().bytes(), load_verifying_key, &config)
        .map_err(|error| TaskError::library("loading the verifying key", &error))?;
    let verdict = seal::verify_seal(
        library,
        *input.sealed.commitment().bytes(),
        *input.unsealed.commitment().bytes(),
        prover(sector),
        number(sector),
        input.ticket.0,
        input.seed.0,
        &input.proof.0,
    );
    let valid = verdict.unwrap_or_else(|error| {
        tracing::warn!(sector = %sector.id, error = format!("{error:#}"), "the proof cannot be read as one");
        false
    });
    Ok(TaskOutput::Verify(valid))
}

/// A C1 output carries its replica id, which binds it to miner, sector, ticket, CommD and proof.
fn check_belongs(sector: &SectorRef, phase1: &SealCommitPhase1Output) -> Result<(), TaskError> {
    let library = to_library(sector.proof);
    let config = library.as_v1_config();
    let replica_id = generate_replica_id::<filecoin_proofs::constants::DefaultTreeHasher, _>(
        &prover(sector),
        sector.id.number.get(),
        &phase1.ticket,
        phase1.comm_d,
        &config.porep_id,
    );
    if phase1.registered_proof == library && phase1.replica_id == replica_id {
        return Ok(());
    }
    Err(TaskError::Input {
        field: "input.c1",
        problem: format!(
            "is not of sector {} with proof {}; give the C1 output of this sector",
            sector.id, sector.proof
        ),
    })
}

fn load_verifying_key<Tree: 'static + MerkleTreeTrait>(config: &PoRepConfig) -> anyhow::Result<()> {
    let params = public_params::<Tree>(config)?;
    <StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<_, _>>::verifying_key::<ChaCha20Rng>(
        None, &params,
    )?;
    Ok(())
}
