//! No chain is told of a rehearsal: neither its replicas nor its proofs get into a message.

use chain::params::{
    Activation, ParamsError, PreCommit, ProveCommit, SectorProofs, pre_commit, prove_commit,
};
use sealtasks::{
    ChainEpoch, Commitment, Proof, RegisteredSealProof, SealedCid, SectorId, SectorNumber, SectorRef,
    SectorSize, rehearsal,
};

#[test]
fn a_rehearsed_replica_is_not_pre_committed() {
    let id = SectorId::new(1000, 7);
    let sector = |sealed| PreCommit {
        sector: SectorRef { id, proof: RegisteredSealProof::for_new_sector(SectorSize::GiB32) },
        sealed,
        ticket_epoch: ChainEpoch::new(4_100_000),
        expiration: ChainEpoch::new(5_654_321),
        unsealed: None,
    };
    let real = sector(SealedCid::new(Commitment::new([5; 32])));
    pre_commit(std::slice::from_ref(&real)).expect("a real one");
    let both = [real, sector(rehearsal::sealed(id))];
    assert_eq!(pre_commit(&both), Err(ParamsError::Rehearsal), "not even among real ones");
}

#[test]
fn a_rehearsed_proof_proves_nothing_to_a_chain() {
    let prove = |proofs| {
        prove_commit(&ProveCommit {
            sectors: vec![Activation { number: SectorNumber::new(7), pieces: vec![] }],
            proofs,
            require_activation: false,
            require_notification: false,
        })
    };
    prove(SectorProofs::Each(vec![Proof(vec![7; 1920])])).expect("a real one");
    let played = rehearsal::proof(10);
    assert_eq!(prove(SectorProofs::Each(vec![played.clone()])), Err(ParamsError::Rehearsal));
    assert_eq!(prove(SectorProofs::Aggregate(played.0)), Err(ParamsError::Rehearsal));
}
