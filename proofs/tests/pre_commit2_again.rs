//! PreCommit2 on the files of an earlier PreCommit2, which finished or was killed: the same result, or PreCommit1 again.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealtasks::{
    FailureClass, FileType, FinalizeInput, Pc1Output, PreCommit2Input, RegisteredSealProof, SealedCid,
    SectorId, SectorRef, TaskInput, TaskOutput, UnsealedCid,
};

mod world;

use world::{Content, World, noise, sector};

const INPUT: &str = "EXECUTOR_TEST_INPUT";
const OUTPUT: &str = "EXECUTOR_TEST_OUTPUT";
const WHOLE: u64 = 2032;
/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(300);

/// No test by itself: the executor process that is killed.
#[test]
fn child_executor() {
    let (Some(input), Some(output)) = (std::env::var_os(INPUT), std::env::var_os(OUTPUT)) else { return };
    let outcome = proofs::exec_files(Path::new(&input), Path::new(&output)).expect("the report is written");
    std::process::exit(outcome.exit_code().into());
}

fn pc2_input(pc1: &Pc1Output) -> TaskInput {
    TaskInput::PreCommit2(PreCommit2Input { pc1: pc1.clone() })
}

fn commitments(world: &World, pc1: &Pc1Output) -> (UnsealedCid, SealedCid) {
    match world.run(pc2_input(pc1)) {
        Ok(TaskOutput::PreCommit2 { unsealed, sealed }) => (unsealed, sealed),
        other => panic!("PC2 gave {other:?}"),
    }
}

#[test]
fn the_leaves_of_tree_d_are_the_data_that_pc1_left_in_the_sealed_file() {
    let world = World::new(sector(1000, 60));
    let pieces = world.add_pieces(&[Content::Bytes(noise(1016, 1)), Content::Bytes(noise(1016, 2))]);
    world.pre_commit1(&pieces).expect("PC1");
    let sealed = fs::read(world.path(FileType::Sealed)).expect("the sealed file");
    let tree_d = fs::read(world.path(FileType::Cache).join("sc-02-data-tree-d.dat")).expect("tree-d");
    assert_eq!((sealed.len(), tree_d.len()), (2048, 2 * 2048 - 32));
    assert!(sealed.iter().any(|byte| *byte != 0));
    assert_eq!(sealed, tree_d[..2048]);
    assert_eq!(sealed, fs::read(world.path(FileType::Unsealed)).expect("the unsealed file")[..2048]);
}

#[test]
fn a_finished_pc2_whose_result_was_lost_gives_it_again() {
    for number in [5, 10] {
        let proof = RegisteredSealProof::try_from(number).expect("plain, then synthetic");
        let world = World::new(SectorRef { id: SectorId::new(1000, 17), proof });
        let sealed = world.seal(&[Content::Bytes(noise(WHOLE, 1))]);
        let replica = fs::read(world.path(FileType::Sealed)).expect("the replica");
        assert_eq!(commitments(&world, &sealed.pc1), (sealed.unsealed, sealed.sealed));
        assert_eq!(fs::read(world.path(FileType::Sealed)).expect("the replica"), replica, "encoded once");
        world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
    }
}

#[test]
fn a_replica_encoded_in_part_is_made_from_its_data_again() {
    let world = World::new(sector(1000, 18));
    let sealed = world.seal(&[Content::Bytes(noise(WHOLE, 1))]);
    let (file, cache) = (world.path(FileType::Sealed), world.path(FileType::Cache));
    let replica = fs::read(&file).expect("the replica");
    let data = fs::read(world.path(FileType::Unsealed)).expect("the data");
    let (unsealed, encoded) = (sealed.unsealed, sealed.sealed);
    // Nothing in the cache tells of it: the sealed file may have come from a machine whose PreCommit2 was killed.
    for length in [2048, 1000] {
        for name in ["p_aux", "t_aux", "sc-02-data-tree-c.dat", "sc-02-data-tree-r-last.dat"] {
            fs::remove_file(cache.join(name)).expect("removed");
        }
        let mixed = [&replica[..1024], &data[1024..2048]].concat();
        fs::write(&file, &mixed[..length]).expect("written");
        assert_eq!(commitments(&world, &sealed.pc1), (unsealed, encoded), "{length} bytes");
        assert_eq!(fs::read(&file).expect("the replica"), replica);
    }
    // Cut off while the aux files were written.
    fs::write(cache.join("t_aux"), b"torn").expect("written");
    assert_eq!(commitments(&world, &sealed.pc1), (unsealed, encoded));
    world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
}

#[test]
fn without_the_data_the_sector_goes_back_to_pc1() {
    let world = World::new(sector(1000, 19));
    let sealed = world.seal(&[Content::Bytes(noise(WHOLE, 1))]);
    let tree_d = world.path(FileType::Cache).join("sc-02-data-tree-d.dat");
    let goes_back = || {
        let replica = fs::read(world.path(FileType::Sealed)).expect("the replica");
        let failure = world.run(pc2_input(&sealed.pc1)).expect_err("must fail");
        assert_eq!(failure.class, FailureClass::BadData, "{failure}");
        assert!(failure.message.contains("tree-d") && failure.message.contains("run PreCommit1 again"));
        assert_eq!(fs::read(world.path(FileType::Sealed)).expect("the replica"), replica, "left as it was");
    };
    let cut = fs::File::options().write(true).open(&tree_d).expect("tree-d");
    cut.set_len(3000).expect("cut");
    goes_back();
    world.run(TaskInput::Finalize(FinalizeInput {})).expect("FIN drops tree-d");
    assert!(!tree_d.exists());
    goes_back();
    assert_eq!(world.pre_commit1(&sealed.pieces).expect("PC1 again"), sealed.pc1);
    assert_eq!(commitments(&world, &sealed.pc1), (sealed.unsealed, sealed.sealed));
}

/// Runs PC2 in a process of its own and kills it when `made` appears in the cache. Whether it was killed before its end.
fn killed_when(world: &World, pc1: &Pc1Output, made: &str) -> bool {
    let (input, output) = (world.root().join("input.json"), world.root().join("output.json"));
    let request = serde_json::to_vec(&world.request(pc2_input(pc1))).expect("JSON");
    fs::write(&input, request).expect("written");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_executor", "--nocapture"])
        .env(INPUT, &input)
        .env(OUTPUT, &output)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("the child runs");
    let made = world.path(FileType::Cache).join(made);
    let since = Instant::now();
    while !made.exists() {
        assert!(since.elapsed() < PATIENCE, "{made:?} never appeared");
        assert_eq!(child.try_wait().expect("the child"), None, "the child ended early");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("the child").signal() == Some(9)
}

#[test]
fn a_killed_pc2_is_done_again_on_what_it_left() {
    let proof = RegisteredSealProof::try_from(6).expect("8 MiB");
    let world = World::new(SectorRef { id: SectorId::new(1000, 20), proof });
    let raw = proof.sector_size().bytes() / 128 * 127;
    let pieces = world.add_pieces(&[Content::Bytes(noise(raw, 1))]);
    let pc1 = world.pre_commit1(&pieces).expect("PC1");
    let data = fs::read(world.path(FileType::Sealed)).expect("the data");
    let mut found = Vec::new();
    // Before the replica is encoded, and after.
    for made in ["sc-02-data-tree-c.dat", "sc-02-data-tree-r-last.dat"] {
        // The first round finds PC1's files, the second a finished PC2's, which it undoes and is killed again.
        let _ = fs::remove_file(world.path(FileType::Cache).join(made));
        assert!(killed_when(&world, &pc1, made), "killed in the middle");
        if made.contains("tree-r-last") {
            assert_ne!(fs::read(world.path(FileType::Sealed)).expect("the replica"), data, "encoded");
        }
        found.push(commitments(&world, &pc1));
    }
    // A sector that was never disturbed gives the same.
    let calm = World::new(world.sector);
    let pieces = calm.add_pieces(&[Content::Bytes(noise(raw, 1))]);
    let pc1 = calm.pre_commit1(&pieces).expect("PC1");
    let expected = commitments(&calm, &pc1);
    assert_eq!(found, [expected, expected]);
}
