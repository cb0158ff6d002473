//! Unseal, ReleaseUnsealed, Finalize, and what each bad input is called.

use std::fs::{self, File};

use proofs::execute;
use sealtasks::{
    AcquireMode, C1Output, Commit2Input, Commitment, ExecutorFailure, FailureClass, FetchInput, FileType,
    FileTypes, FinalizeInput, MoveInput, PathType, Pc1Output, PieceInfo, PreCommit2Input,
    RegisteredSealProof, ReleaseUnsealedInput, SealedCid, SectorId, SectorRef, TaskInput, TaskOutput, Ticket,
    UnpaddedOffset, UnsealInput, UnsealedRange,
};

mod world;

use world::{Content, Sealed, TICKET, World, noise, sector, unpadded};

const WHOLE: u64 = 2032;

fn range(offset: u64, size: u64) -> UnsealedRange {
    UnsealedRange { offset: UnpaddedOffset::try_from(offset).expect("a multiple of 127"), size }
}

fn unseal(world: &World, sealed: &Sealed, wanted: UnsealedRange) -> Result<TaskOutput, ExecutorFailure> {
    let input = UnsealInput { range: wanted, ticket: TICKET, unsealed: sealed.unsealed };
    world.run(TaskInput::Unseal(input))
}

fn sealed_world() -> (World, Sealed, Vec<u8>) {
    let world = World::new(sector(1000, 3));
    let contents = [1, 2, 3, 4].map(|salt| Content::Bytes(noise(508, salt)));
    let sealed = world.seal(&contents);
    let data = fs::read(world.path(FileType::Unsealed)).expect("the unsealed file");
    (world, sealed, data)
}

fn unsealed_bytes(world: &World) -> Vec<u8> {
    fs::read(world.path(FileType::Unsealed)).expect("the unsealed file")
}

fn assert_fails(outcome: Result<TaskOutput, ExecutorFailure>, class: FailureClass, words: &[&str]) {
    let failure = outcome.expect_err("must fail");
    assert_eq!(failure.class, class, "{failure}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} is not in {:?}", failure.message);
    }
}

#[test]
fn unseal_restores_the_whole_sector_bit_by_bit() {
    let (world, sealed, data) = sealed_world();
    fs::remove_file(world.path(FileType::Unsealed)).expect("removed");
    unseal(&world, &sealed, range(0, WHOLE)).expect("unsealed");
    assert_eq!(unsealed_bytes(&world)[..2048], data[..2048]);
    // Once more changes nothing.
    unseal(&world, &sealed, range(0, WHOLE)).expect("there already");
    assert_eq!(unsealed_bytes(&world)[..2048], data[..2048]);
}

/// All files of the cache with what is in them.
fn cache_bytes(world: &World) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let entries = fs::read_dir(world.path(FileType::Cache)).expect("the cache");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.clone(), fs::read(&path).expect("a file"))).collect()
}

/// The library would write its labels over tree-d, and Commit1 would then prove garbage.
#[test]
fn unseal_leaves_the_replica_as_it_is_and_nothing_beside_the_data() {
    let (world, sealed, data) = sealed_world();
    let (cache, replica) = (cache_bytes(&world), fs::read(world.path(FileType::Sealed)).expect("sealed"));
    assert!(cache.keys().any(|path| path.ends_with("sc-02-data-tree-d.dat")), "before Finalize");
    fs::remove_file(world.path(FileType::Unsealed)).expect("removed");
    // What a killed attempt leaves: labels, and a file that was being made.
    let labels = world.root().join("fetching/unsealed.labels");
    fs::create_dir_all(&labels).expect("made");
    fs::write(labels.join("sc-02-data-tree-d.dat"), [1; 99]).expect("written");
    File::create(world.path(FileType::Unsealed)).expect("made");
    unseal(&world, &sealed, range(0, WHOLE)).expect("unsealed");
    assert_eq!(unsealed_bytes(&world)[..2048], data[..2048]);
    assert!(cache_bytes(&world) == cache, "the cache has changed");
    assert!(fs::read(world.path(FileType::Sealed)).expect("sealed") == replica);
    let left = fs::read_dir(world.root().join("fetching")).expect("a directory").count();
    assert_eq!(left, 0, "labels stay");
}

#[test]
fn unseal_fills_only_what_is_missing() {
    let (world, sealed, data) = sealed_world();
    fs::remove_file(world.path(FileType::Unsealed)).expect("removed");
    unseal(&world, &sealed, range(508, 508)).expect("the second piece");
    let file = unsealed_bytes(&world);
    assert_eq!(file[512..1024], data[512..1024]);
    assert!(file[..512].iter().chain(&file[1024..2048]).all(|byte| *byte == 0), "only the range was written");

    // What is marked as unsealed is not written again, even by a request around it.
    let mut spoilt = file;
    spoilt[600] ^= 1;
    fs::write(world.path(FileType::Unsealed), &spoilt).expect("written");
    unseal(&world, &sealed, range(127, WHOLE - 254)).expect("around it");
    let file = unsealed_bytes(&world);
    assert_eq!(file[600], spoilt[600]);
    assert_eq!(file[128..512], data[128..512]);
    assert_eq!(file[1024..1920], data[1024..1920]);
    assert!(file[..128].iter().all(|byte| *byte == 0));
}

#[test]
fn a_wrong_ticket_is_found_before_anything_counts_as_unsealed() {
    let (world, sealed, _) = sealed_world();
    fs::remove_file(world.path(FileType::Unsealed)).expect("removed");
    let input = UnsealInput { range: range(0, WHOLE), ticket: Ticket([9; 32]), unsealed: sealed.unsealed };
    assert_fails(
        world.run(TaskInput::Unseal(input)),
        FailureClass::BadData,
        &["input.unsealed", "input.ticket"],
    );
    assert!(!world.path(FileType::Unsealed).exists(), "nothing half-written stays");
}

#[test]
fn a_range_outside_the_sector_is_refused() {
    let (world, sealed, _) = sealed_world();
    for wanted in [range(0, 2033), range(127, WHOLE), range(0, 100), range(0, 0), range(127, u64::MAX)] {
        assert_fails(
            unseal(&world, &sealed, wanted),
            FailureClass::BadData,
            &["input.range", "multiple of 127"],
        );
    }
}

#[test]
fn release_keeps_what_is_to_be_kept() {
    let (world, sealed, data) = sealed_world();
    let release = |keep| world.run(TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep }));
    release(vec![range(508, 508)]).expect("released");
    let file = unsealed_bytes(&world);
    assert_eq!(file[512..1024], data[512..1024]);
    assert!(file[..512].iter().chain(&file[1024..2048]).all(|byte| *byte == 0));
    // The freed part is unsealed again from the replica: it was marked as gone.
    unseal(&world, &sealed, range(0, WHOLE)).expect("unsealed again");
    assert_eq!(unsealed_bytes(&world)[..2048], data[..2048]);
    release(vec![]).expect("all released");
    assert!(unsealed_bytes(&world)[..2048].iter().all(|byte| *byte == 0));
    assert_fails(release(vec![range(0, 4064)]), FailureClass::BadData, &["input.keep"]);
}

#[test]
fn finalize_drops_layers_and_keeps_what_window_post_needs() {
    let (world, _, _) = sealed_world();
    let names = || {
        let entries = fs::read_dir(world.path(FileType::Cache)).expect("the cache");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert!(names().iter().any(|name| name.contains("layer")));
    assert_eq!(world.run(TaskInput::Finalize(FinalizeInput {})), Ok(TaskOutput::Finalize));
    assert_eq!(names(), ["p_aux", "sc-02-data-tree-r-last.dat", "t_aux"]);
    assert_eq!(
        world.run(TaskInput::Finalize(FinalizeInput {})),
        Ok(TaskOutput::Finalize),
        "once more is no harm"
    );
}

#[test]
fn finalize_before_pc2_drops_nothing() {
    let world = World::new(sector(1000, 4));
    let pieces = world.add_pieces(&[Content::Zeros(WHOLE)]);
    world.pre_commit1(&pieces).expect("PC1");
    let layers = || fs::read_dir(world.path(FileType::Cache)).expect("the cache").count();
    let before = layers();
    assert_fails(world.run(TaskInput::Finalize(FinalizeInput {})), FailureClass::BadData, &["p_aux"]);
    assert_eq!(layers(), before);
}

#[test]
fn synthetic_sectors_lose_their_layers_in_pc2_and_still_commit() {
    let proof = RegisteredSealProof::try_from(10).expect("2 KiB synthetic");
    let world = World::new(SectorRef { id: SectorId::new(1000, 5), proof });
    let sealed = world.seal(&[Content::Zeros(WHOLE)]);
    let cache = world.path(FileType::Cache);
    assert!(!cache.join("sc-02-data-layer-1.dat").exists());
    assert!(cache.join("syn-porep-vanilla-proofs.dat").exists());
    world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
    world.run(TaskInput::Finalize(FinalizeInput {})).expect("FIN");
    assert!(!cache.join("syn-porep-vanilla-proofs.dat").exists());
}

#[test]
fn pc1_starts_over_on_what_an_earlier_attempt_left() {
    let world = World::new(sector(1000, 6));
    let pieces = world.add_pieces(&[Content::Bytes(noise(WHOLE, 1))]);
    let first = world.pre_commit1(&pieces).expect("PC1");
    fs::write(world.path(FileType::Cache).join("sc-02-data-layer-1.dat"), b"half").expect("written");
    fs::write(world.path(FileType::Cache).join("stray"), b"stray").expect("written");
    assert_eq!(world.pre_commit1(&pieces).expect("PC1 again"), first);
    assert!(!world.path(FileType::Cache).join("stray").exists());
    world.run(TaskInput::PreCommit2(PreCommit2Input { pc1: first })).expect("PC2");
}

#[test]
fn pc2_takes_the_output_of_a_pc1_program_that_leaves_the_ticket_off() {
    let world = World::new(sector(1000, 14));
    let pieces = world.add_pieces(&[Content::Zeros(WHOLE)]);
    let pc1 = world.pre_commit1(&pieces).expect("PC1");
    let mut json: serde_json::Value = serde_json::from_slice(&pc1.0).expect("JSON");
    json.as_object_mut().expect("an object").remove("_lotus_SealRandomness").expect("the ticket");
    let bare = Pc1Output(json.to_string().into_bytes());
    let TaskOutput::PreCommit2 { sealed, .. } =
        world.run(TaskInput::PreCommit2(PreCommit2Input { pc1: bare })).expect("PC2 without a ticket")
    else {
        panic!("PC2 gave something else")
    };
    let elsewhere = World::new(world.sector).seal(&[Content::Zeros(WHOLE)]);
    assert_eq!(sealed, elsewhere.sealed);

    json["_lotus_SealRandomness"] = "AAAA".into();
    let short = Pc1Output(json.to_string().into_bytes());
    let outcome = world.run(TaskInput::PreCommit2(PreCommit2Input { pc1: short }));
    assert_fails(outcome, FailureClass::BadData, &["_lotus_SealRandomness", "32 bytes"]);
}

#[test]
fn a_wrong_ticket_is_found_by_pc2s_self_check() {
    let world = World::new(sector(1000, 15));
    let pieces = world.add_pieces(&[Content::Zeros(WHOLE)]);
    let pc1 = String::from_utf8(world.pre_commit1(&pieces).expect("PC1").0).expect("UTF-8");
    let spoilt = pc1.replace("\"ERERERE", "\"AAAAAAA");
    assert_ne!(spoilt, pc1);
    let outcome = world.run(TaskInput::PreCommit2(PreCommit2Input { pc1: Pc1Output(spoilt.into_bytes()) }));
    assert_fails(outcome, FailureClass::Compute, &["self-check"]);
}

#[test]
fn non_interactive_sectors_seal_up_to_commit1() {
    let proof = RegisteredSealProof::try_from(15).expect("2 KiB non-interactive");
    let world = World::new(SectorRef { id: SectorId::new(1000, 16), proof });
    let sealed = world.seal(&[Content::Zeros(WHOLE)]);
    world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
}

#[test]
fn pieces_that_do_not_fit_the_data_are_bad_data() {
    let world = World::new(sector(1000, 7));
    let half = world.add_piece(&[], &Content::Bytes(noise(1016, 1))).expect("half a sector");
    assert_fails(
        world.pre_commit1(&[half]).map(TaskOutput::PreCommit1),
        FailureClass::BadData,
        &["1016 bytes", "2KiB", "2032"],
    );
    let other = PieceInfo::new(unpadded(WHOLE).padded(), Commitment::new([0x15; 32]));
    assert_fails(
        world.pre_commit1(&[other]).map(TaskOutput::PreCommit1),
        FailureClass::BadData,
        &["pieces and comm_d do not match"],
    );
    let misplaced = world.add_piece(&[unpadded(1016), unpadded(127)], &Content::Bytes(noise(508, 2)));
    assert_fails(misplaced.map(TaskOutput::AddPiece), FailureClass::BadData, &["508"]);
}

#[test]
fn a_stream_of_another_length_is_bad_data_and_leaves_no_file() {
    let world = World::new(sector(1000, 8));
    for length in [1015, 1017] {
        let input = sealtasks::AddPieceInput {
            existing: vec![],
            size: unpadded(1016),
            source: sealtasks::PieceSource::Stream,
        };
        let stream = world.stream(&noise(length, 1));
        let outcome = execute(world.request(TaskInput::AddPiece(input)), Some(stream));
        assert_fails(outcome, FailureClass::BadData, &["wrong-sized piece", "1016"]);
        assert!(!world.path(FileType::Unsealed).exists());
    }
}

#[test]
fn commitments_that_are_not_the_replicas_are_bad_data() {
    let (world, sealed, _) = sealed_world();
    let mut input = world.commit1_input(&sealed);
    input.sealed = SealedCid::new(Commitment::new([0x15; 32]));
    assert_fails(world.run(TaskInput::Commit1(input)), FailureClass::BadData, &["Commit1"]);
    let mut input = world.commit1_input(&sealed);
    input.unsealed = sealtasks::UnsealedCid::new(Commitment::new([0x15; 32]));
    assert_fails(
        world.run(TaskInput::Commit1(input)),
        FailureClass::BadData,
        &["pieces and comm_d do not match"],
    );
}

#[test]
fn another_sectors_outputs_are_bad_data() {
    let (world, sealed, _) = sealed_world();
    let c1 = world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
    let TaskOutput::Commit1(c1) = c1 else { panic!("C1 gave {c1:?}") };
    let commit2 = |world: &World, c1| world.run(TaskInput::Commit2(Commit2Input { c1 }));
    for other in [sector(1000, 99), sector(1001, 3)] {
        assert_fails(
            commit2(&World::new(other), c1.clone()),
            FailureClass::BadData,
            &["input.c1", &other.id.to_string()],
        );
    }
    assert_fails(commit2(&world, C1Output(b"{}".to_vec())), FailureClass::BadData, &["input.c1"]);

    let mib8 = SectorRef { id: world.sector.id, proof: RegisteredSealProof::try_from(6).expect("8 MiB") };
    let pc2 = TaskInput::PreCommit2(PreCommit2Input { pc1: sealed.pc1.clone() });
    assert_fails(World::new(mib8).run(pc2), FailureClass::BadData, &["input.pc1", "proof 5", "proof is 6"]);
    let pc2 = TaskInput::PreCommit2(PreCommit2Input { pc1: Pc1Output(b"no JSON".to_vec()) });
    assert_fails(world.run(pc2), FailureClass::BadData, &["input.pc1"]);
}

#[test]
fn missing_files_and_paths_are_named() {
    let world = World::new(sector(1000, 9));
    let piece = PieceInfo::new(unpadded(WHOLE).padded(), Commitment::new([0x15; 32]));
    let missing = world.pre_commit1(&[piece]).map(TaskOutput::PreCommit1);
    let path = world.path(FileType::Unsealed);
    assert_fails(missing, FailureClass::Environment, &["PC1", path.to_str().expect("UTF-8")]);

    let mut request = world.request(TaskInput::Finalize(FinalizeInput {}));
    request.files.0.remove(&FileType::Cache);
    assert_fails(execute(request, None), FailureClass::Environment, &["FIN", "cache", "`files`"]);
    let mut request = world.request(TaskInput::Finalize(FinalizeInput {}));
    request.files.0.insert(FileType::Cache, "cache/s-t01000-9".into());
    assert_fails(execute(request, None), FailureClass::Environment, &["`files.cache`", "absolute"]);
}

#[test]
fn a_stream_that_nobody_sent_is_named() {
    let world = World::new(sector(1000, 10));
    let source = sealtasks::PieceSource::Stream;
    let input = sealtasks::AddPieceInput { existing: vec![], size: unpadded(127), source };
    assert_fails(world.run(TaskInput::AddPiece(input)), FailureClass::Environment, &["descriptor 3"]);
}

#[test]
fn moving_files_is_no_executors_work() {
    let world = World::new(sector(1000, 11));
    let types = FileTypes::CACHE;
    assert_fails(
        world.run(TaskInput::Move(MoveInput { types })),
        FailureClass::Environment,
        &["MOVE", "no executor"],
    );
    let fetch = FetchInput { types, path_type: PathType::Sealing, mode: AcquireMode::Copy };
    assert_fails(world.run(TaskInput::Fetch(fetch)), FailureClass::Environment, &["GET", "no executor"]);
}

#[test]
fn damaged_layers_fail_the_computation_and_never_pass() {
    let world = World::new(sector(1000, 12));
    let pieces = world.add_pieces(&[Content::Bytes(noise(WHOLE, 1))]);
    let pc1 = world.pre_commit1(&pieces).expect("PC1");
    let layer = world.path(FileType::Cache).join("sc-02-data-layer-1.dat");
    let truncated = File::options().write(true).open(&layer).expect("a layer");
    truncated.set_len(64).expect("truncated");
    let failure = world.run(TaskInput::PreCommit2(PreCommit2Input { pc1 })).expect_err("must fail");
    assert_eq!(failure.class, FailureClass::Compute, "{failure}");
}
