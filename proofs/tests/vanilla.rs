//! Vanilla proofs of stored sectors are those of the proofs library; a flipped byte, wherever it is, is told with its file.

use std::fs;
use std::path::PathBuf;

use filecoin_proofs_api::PrivateReplicaInfo;
use filecoin_proofs_api::post::generate_single_vanilla_proof;
use proofs::window_post;
use sealtasks::{
    ExecutorFailure, FailureClass, FileType, FinalizeInput, SectorSize, TaskInput, TaskOutput, VanillaInput,
    challenges,
};

mod world;

use world::{Content, Sealed, World, noise, sector};

const TREE: &str = "sc-02-data-tree-r-last.dat";

fn stored() -> (World, Sealed) {
    let world = World::new(sector(1000, 71));
    let sealed = world.seal(&[Content::Bytes(noise(1016, 1)), Content::Bytes(noise(1016, 2))]);
    world.run(TaskInput::Finalize(FinalizeInput {})).expect("finalized");
    // Nothing that proves needs it.
    fs::remove_file(world.path(FileType::Cache).join("t_aux")).expect("t_aux");
    (world, sealed)
}

fn everywhere(sealed: &Sealed) -> VanillaInput {
    let mut next = 5;
    let random = || {
        next += 3;
        next
    };
    VanillaInput { sealed: sealed.sealed, challenges: challenges(SectorSize::KiB2, 1, random) }
}

fn prove(world: &World, input: VanillaInput) -> Result<Vec<u8>, ExecutorFailure> {
    match world.run(TaskInput::Vanilla(input))? {
        TaskOutput::Vanilla(proof) => Ok(proof.0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_proof_is_the_librarys_own() {
    let (world, sealed) = stored();
    let input = everywhere(&sealed);
    let kind = window_post(world.sector.proof);
    let replica = PrivateReplicaInfo::new(
        kind,
        *sealed.sealed.commitment().bytes(),
        world.path(FileType::Cache),
        world.path(FileType::Sealed),
    );
    let expected =
        generate_single_vanilla_proof(kind, 71.into(), &replica, &input.challenges).expect("a proof");
    assert_eq!(prove(&world, input).expect("a proof"), expected);
}

#[test]
fn a_flipped_byte_is_told_with_its_file() {
    let (world, sealed) = stored();
    let (replica, cache) = (world.path(FileType::Sealed), world.path(FileType::Cache));
    let (p_aux, tree) = (cache.join("p_aux"), cache.join(TREE));
    // The last byte of a node is the field element's highest: with it set there is none.
    let places: Vec<(&PathBuf, usize, &str)> = [0, 31, 1000, 1023, 2047]
        .into_iter()
        .map(|at| (&replica, at, "sealed: "))
        .chain([0, 31, 63].into_iter().map(|at| (&p_aux, at, "p_aux: ")))
        .chain([0, 17, 31].into_iter().map(|at| (&tree, at, "sc-02-data-tree-r-last.dat: ")))
        .collect();
    for (path, at, told) in places {
        let before = fs::read(path).expect("the file");
        for flip in [0x01, 0xff] {
            let mut bytes = before.clone();
            bytes[at] ^= flip;
            fs::write(path, &bytes).expect("written");
            let failure = prove(&world, everywhere(&sealed)).expect_err("a flipped byte");
            assert!(failure.message.starts_with(told), "byte {at} of {}: {failure:?}", path.display());
            assert_eq!(failure.class, FailureClass::BadData);
        }
        fs::write(path, &before).expect("written");
    }
    prove(&world, everywhere(&sealed)).expect("all is as it was");
}

#[test]
fn missing_and_cut_files_are_all_named() {
    let (world, sealed) = stored();
    let (replica, cache) = (world.path(FileType::Sealed), world.path(FileType::Cache));
    fs::write(&replica, [7; 100]).expect("cut");
    fs::remove_file(cache.join("p_aux")).expect("gone");
    fs::write(cache.join(TREE), [7; 10]).expect("cut");
    let failure = prove(&world, everywhere(&sealed)).expect_err("three faults");
    for told in ["sealed: ", "100 bytes instead of 2048", "p_aux: ", "is not there", "10 bytes instead of 32"]
    {
        assert!(failure.message.contains(told), "{told}: {}", failure.message);
    }
}

#[test]
fn a_file_behind_a_link_whose_disk_is_away_is_no_fault() {
    let (world, sealed) = stored();
    let away = tempfile::tempdir().expect("a directory");
    for kind in [FileType::Sealed, FileType::Cache] {
        let (here, there) = (world.path(kind), away.path().join(kind.to_string()));
        fs::rename(&here, &there).expect("moved");
        std::os::unix::fs::symlink(&there, &here).expect("a link");
        prove(&world, everywhere(&sealed)).expect("it is there");
        let unmounted = away.path().join("unmounted");
        fs::rename(&there, &unmounted).expect("away");
        let failure = prove(&world, everywhere(&sealed)).expect_err("it is away");
        assert_eq!(failure.class, FailureClass::Environment, "{}", failure.message);
        fs::rename(&unmounted, &there).expect("back");
    }
}

#[test]
fn a_replica_of_another_sector_is_found() {
    let (world, _) = stored();
    let other = World::new(sector(1000, 72));
    let other = other.seal(&[Content::Bytes(noise(2032, 3))]);
    let failure = prove(&world, everywhere(&other)).expect_err("another CommR");
    assert!(failure.message.starts_with("p_aux: "), "{}", failure.message);
}

#[test]
fn challenges_outside_the_replica_are_refused() {
    let (world, sealed) = stored();
    for challenges in [vec![], vec![64], vec![0; 4097]] {
        let count = challenges.len();
        let failure = prove(&world, VanillaInput { sealed: sealed.sealed, challenges }).expect_err("refused");
        let told = format!("challenges must be 1 to 4096 leaves, each below 64; there are {count}");
        assert_eq!(failure.message, told);
    }
}
