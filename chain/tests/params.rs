//! Message parameters against the actor crates' own encoding of the same values. `actor_params.json` is what
//! `tests/actors` prints: the encoding of `fil_actor_miner_state` 27.2.0 (actors v18).

use std::collections::BTreeMap;

use chain::entropy;
use chain::params::{
    Activation, Allocation, Method, Notification, PARAMS_MAX, ParamsError, PieceActivation, PreCommit,
    ProveCommit, SectorProofs, failed_activations, pre_commit, prove_commit,
};
use sealtasks::{
    ActorId, ChainEpoch, Commitment, PaddedPieceSize, PieceInfo, Proof, RegisteredSealProof, SealedCid,
    SectorId, SectorNumber, SectorRef, UnsealedCid,
};

fn theirs(name: &str) -> String {
    let all: BTreeMap<String, String> =
        serde_json::from_str(include_str!("actor_params.json")).expect("the fixtures are JSON");
    all.get(name).unwrap_or_else(|| panic!("no fixture {name}")).clone()
}

#[track_caller]
fn same(name: &str, ours: &[u8]) {
    assert_eq!(hex::encode(ours), theirs(name), "{name}");
}

/// As in `tests/actors`: 32 bytes, each the one before plus one, the two top bits clear.
fn bytes(first: u8) -> Commitment {
    let mut bytes = std::array::from_fn(|at| first.wrapping_add(u8::try_from(at).expect("32 bytes")));
    bytes[31] &= 0x3f;
    Commitment::new(bytes)
}

fn sector(proof: i64, number: u64, unsealed: Option<u8>) -> PreCommit {
    PreCommit {
        sector: SectorRef {
            id: SectorId::new(1000, number),
            proof: RegisteredSealProof::try_from(proof).expect("a proof"),
        },
        sealed: SealedCid::new(bytes((number & 0xff) as u8)),
        ticket_epoch: ChainEpoch::new(4_100_000),
        expiration: ChainEpoch::new(5_654_321),
        unsealed: unsealed.map(|first| UnsealedCid::new(bytes(first))),
    }
}

fn proven(number: u64, pieces: Vec<PieceActivation>) -> Activation {
    Activation { number: SectorNumber::new(number), pieces }
}

fn pieces() -> Vec<PieceActivation> {
    let piece = |first, size: u64, allocation, notify| PieceActivation {
        piece: PieceInfo::new(PaddedPieceSize::try_from(size).expect("a size"), bytes(first)),
        allocation,
        notify,
    };
    let market = Notification { actor: ActorId::new(5), payload: vec![0x18, 0x2a] };
    let claimed = Allocation { client: ActorId::new(1_234_567), id: 99 };
    vec![
        piece(7, 1024, Some(claimed), vec![]),
        piece(8, 512, None, vec![market]),
        piece(9, 512, None, vec![]),
    ]
}

fn prove(sectors: Vec<Activation>, proofs: SectorProofs) -> ProveCommit {
    ProveCommit { sectors, proofs, require_activation: false, require_notification: false }
}

#[test]
fn pre_commitments_are_the_actors_own() {
    same("pre_commit_one_cc", &pre_commit(&[sector(5, 1, None)]).expect("parameters"));
    same("pre_commit_with_data", &pre_commit(&[sector(8, 0x1_0000_0001, Some(200))]).expect("parameters"));
    let most: Vec<_> = (0..256).map(|number| sector(9, number, None)).collect();
    same("pre_commit_256", &pre_commit(&most).expect("parameters"));
}

#[test]
fn proofs_are_the_actors_own() {
    let one = prove(vec![proven(1, vec![])], SectorProofs::Each(vec![Proof(vec![0xab; 192])]));
    same("prove_one_cc", &prove_commit(&one).expect("parameters"));
    let proofs = SectorProofs::Each(vec![Proof(vec![1; 1920]), Proof(vec![2; 1920])]);
    let two = prove(vec![proven(23, pieces()), proven(24, vec![])], proofs);
    same("prove_two_with_pieces", &prove_commit(&two).expect("parameters"));
    let aggregate = ProveCommit {
        require_activation: true,
        require_notification: true,
        ..prove(
            (0..13).map(|number| proven(number, vec![])).collect(),
            SectorProofs::Aggregate(vec![0xcd; 300]),
        )
    };
    same("prove_aggregate", &prove_commit(&aggregate).expect("parameters"));
}

#[test]
fn methods_addresses_and_answers_are_the_actors_own() {
    let number = |name| u64::from_str_radix(&theirs(name)[2..], 16).expect("one byte of digits");
    assert_eq!(number("method_pre_commit_sector_batch2"), Method::PreCommitSectorBatch2.number());
    assert_eq!(number("method_prove_commit_sectors3"), Method::ProveCommitSectors3.number());
    for id in [0, 23, 127, 128, 1000, 4_294_967_296, 9_223_372_036_854_775_807] {
        same(&format!("address_{id}"), &entropy(ActorId::new(id)));
    }
    let answer = |name| failed_activations(&hex::decode(theirs(name)).expect("digits"));
    assert_eq!(answer("answer_all_good"), Some(vec![]));
    assert_eq!(answer("answer_two_failed"), Some(vec![(0, 16), (300, 34)]));
    assert_eq!(failed_activations(&[]), None);
}

#[test]
fn what_no_message_can_carry_is_refused() {
    assert_eq!(pre_commit(&[]), Err(ParamsError::Sectors { count: 0, max: 256 }));
    let many: Vec<_> = (0..257).map(|number| sector(9, number, None)).collect();
    assert_eq!(pre_commit(&many), Err(ParamsError::Sectors { count: 257, max: 256 }));
    let none = prove(vec![], SectorProofs::Aggregate(vec![0]));
    assert_eq!(prove_commit(&none), Err(ParamsError::Sectors { count: 0, max: 819 }));
    let missing = prove(vec![proven(1, vec![]), proven(2, vec![])], SectorProofs::Each(vec![Proof(vec![0])]));
    assert_eq!(prove_commit(&missing), Err(ParamsError::Proofs { proofs: 1, sectors: 2 }));
    let long = prove(vec![proven(1, vec![])], SectorProofs::Aggregate(vec![0; PARAMS_MAX]));
    assert!(matches!(prove_commit(&long), Err(ParamsError::Length { .. })));
}
