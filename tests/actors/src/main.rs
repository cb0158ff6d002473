//! Prints message parameters for fixed inputs as `fil_actor_miner_state` encodes them, as JSON: name to hexadecimal.
//! The room `chain` builds the same inputs with types of its own and compares byte for byte.

use std::collections::BTreeMap;

use cid::Cid;
use fil_actor_miner_state::v18::{
    CompactCommD, DataActivationNotification, Method, PieceActivationManifest, PreCommitSectorBatchParams2,
    ProveCommitSectors3Params, SectorActivationManifest, SectorPreCommitInfo, VerifiedAllocationKey,
};
use fil_actors_shared::v18::BatchReturn;
use fil_actors_shared::v18::FailCode;
use fvm_ipld_encoding::{RawBytes, to_vec};
use fvm_shared::address::Address;
use fvm_shared::error::ExitCode;
use fvm_shared::piece::PaddedPieceSize;
use fvm_shared::sector::{RegisteredAggregateProof, RegisteredSealProof};
use multihash::Multihash;

/// 32 bytes: `first`, and each the one before plus one; the two top bits clear, as in a field element.
fn bytes(first: u8) -> [u8; 32] {
    let mut bytes = std::array::from_fn(|at| first.wrapping_add(at as u8));
    bytes[31] &= 0x3f;
    bytes
}

/// fil-commitment-sealed over poseidon-bls12_381-a2-fc1.
fn sealed(first: u8) -> Cid {
    Cid::new_v1(0xf102, Multihash::wrap(0xb401, &bytes(first)).unwrap())
}

/// fil-commitment-unsealed over sha2-256-trunc254-padded.
fn unsealed(first: u8) -> Cid {
    Cid::new_v1(0xf101, Multihash::wrap(0x1012, &bytes(first)).unwrap())
}

fn pre_commit(proof: i64, number: u64, commd: Option<Cid>) -> SectorPreCommitInfo {
    SectorPreCommitInfo {
        seal_proof: RegisteredSealProof::from(proof),
        sector_number: number,
        sealed_cid: sealed(number as u8),
        seal_rand_epoch: 4_100_000,
        deal_ids: Vec::new(),
        expiration: 5_654_321,
        unsealed_cid: CompactCommD::new(commd),
    }
}

fn activation(number: u64, pieces: Vec<PieceActivationManifest>) -> SectorActivationManifest {
    SectorActivationManifest { sector_number: number, pieces }
}

fn prove(sectors: Vec<SectorActivationManifest>, proofs: Vec<Vec<u8>>) -> ProveCommitSectors3Params {
    ProveCommitSectors3Params {
        sector_activations: sectors,
        sector_proofs: proofs.into_iter().map(RawBytes::from).collect(),
        aggregate_proof: RawBytes::default(),
        aggregate_proof_type: None,
        require_activation_success: false,
        require_notification_success: false,
    }
}

fn pieces() -> Vec<PieceActivationManifest> {
    let piece = |first, size, key, notify| PieceActivationManifest {
        cid: unsealed(first),
        size: PaddedPieceSize(size),
        verified_allocation_key: key,
        notify,
    };
    let market =
        DataActivationNotification { address: Address::new_id(5), payload: RawBytes::from(vec![0x18, 0x2a]) };
    let key = VerifiedAllocationKey { client: 1_234_567, id: 99 };
    vec![piece(7, 1024, Some(key), vec![]), piece(8, 512, None, vec![market]), piece(9, 512, None, vec![])]
}

fn main() {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, bytes: Vec<u8>| out.insert(name.to_owned(), hex::encode(bytes));
    put("method_pre_commit_sector_batch2", to_vec(&(Method::PreCommitSectorBatch2 as u64)).unwrap());
    put("method_prove_commit_sectors3", to_vec(&(Method::ProveCommitSectors3 as u64)).unwrap());
    for id in [0, 23, 1000, 127, 128, u32::MAX as u64 + 1, i64::MAX as u64] {
        put(&format!("address_{id}"), to_vec(&Address::new_id(id)).unwrap());
    }

    let batch = |sectors| to_vec(&PreCommitSectorBatchParams2 { sectors }).unwrap();
    put("pre_commit_one_cc", batch(vec![pre_commit(5, 1, None)]));
    put("pre_commit_with_data", batch(vec![pre_commit(8, 0x1_0000_0001, Some(unsealed(200)))]));
    put("pre_commit_256", batch((0..256).map(|number| pre_commit(9, number, None)).collect()));
    put("pre_commit_none", batch(vec![]));

    let one = prove(vec![activation(1, vec![])], vec![vec![0xab; 192]]);
    put("prove_one_cc", to_vec(&one).unwrap());
    let two =
        prove(vec![activation(23, pieces()), activation(24, vec![])], vec![vec![1; 1920], vec![2; 1920]]);
    put("prove_two_with_pieces", to_vec(&two).unwrap());
    let aggregate = ProveCommitSectors3Params {
        aggregate_proof: RawBytes::from(vec![0xcd; 300]),
        aggregate_proof_type: Some(RegisteredAggregateProof::SnarkPackV2),
        require_activation_success: true,
        require_notification_success: true,
        ..prove((0..13).map(|number| activation(number, vec![])).collect(), vec![])
    };
    put("prove_aggregate", to_vec(&aggregate).unwrap());

    let answer = |failed: &[(u32, u32)]| BatchReturn {
        success_count: 3,
        fail_codes: failed
            .iter()
            .map(|(idx, code)| FailCode { idx: *idx, code: ExitCode::new(*code) })
            .collect(),
    };
    put("answer_all_good", to_vec(&answer(&[])).unwrap());
    put("answer_two_failed", to_vec(&answer(&[(0, 16), (300, 34)])).unwrap());
    println!("{}", serde_json::to_string_pretty(&out).unwrap());
}
