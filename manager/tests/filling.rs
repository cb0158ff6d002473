//! Data for sectors: taken, kept, written piece by piece with the zeros in between, and kept unsealed; states by hand;
//! limits on sectors in a state.

mod world;

use std::sync::Arc;

use futures_util::stream;
use rpc::SectorName;
use rpc::pipelining::{PieceAdded, PieceParts};
use sealtasks::{FileTypes, SectorId, SectorNumber, TaskInput};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, LIMIT, World, world, world_with};

fn worker() -> Arc<FakeWorker> {
    FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true })
}

fn number(number: u64) -> SectorName {
    SectorNumber::new(number).into()
}

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ seed).collect()
}

fn parts(data: Vec<u8>) -> PieceParts {
    let parts: Vec<_> = data.chunks(100).map(|part| Ok(part.to_vec().into())).collect();
    Box::pin(stream::iter(parts))
}

async fn give(world: &World, sector: Option<u64>, data: Vec<u8>) -> PieceAdded {
    let api = world.handle.pipeline_api();
    api.add_piece(sector.map(number), None, parts(data)).await.expect("the data is taken")
}

fn staged(world: &World) -> usize {
    std::fs::read_dir(world.dir.path().join("repo/staging")).expect("the staging").count()
}

#[tokio::test]
async fn three_files_become_pieces_with_fillers_between_them_and_stay_unsealed() {
    let world = world().await;
    let worker = worker();
    world.join(&worker).await;
    let files = [bytes(200, 1), bytes(508, 2), bytes(60, 3)];
    let mut sectors = Vec::new();
    for file in &files {
        sectors.push(give(&world, None, file.clone()).await);
    }
    let sizes: Vec<_> =
        sectors.iter().map(|added| (added.sector.number.get(), added.bytes, added.padded_size)).collect();
    assert_eq!(sizes, [(1, 200, 256), (1, 508, 512), (1, 60, 128)]);
    let waits = world.sector(1, |sector| sector.state == "WaitDeals" && sector.pieces.len() == 4).await;
    assert!(waits.data.iter().all(|data| data.offset.is_some()), "{:?}", waits.data);
    world.handle.pipeline_api().start_sealing(number(1)).await.expect("it starts");
    let done = world.sector(1, |sector| sector.state == "Proving").await;

    let layout: Vec<_> = done.pieces.iter().map(|(size, _)| *size).collect();
    assert_eq!(layout, [256, 256, 512, 128, 128, 256, 512]);
    let places: Vec<_> = done.data.iter().map(|data| data.offset).collect();
    assert_eq!(places, [Some(0), Some(508), Some(1016)]);
    assert_eq!(done.data[1].cid, sectors[1].cid);
    // The worker got each file with zeros up to its piece's end, and nothing for the fillers.
    let mut written = Vec::new();
    for _ in 0..7 {
        let call = worker.call_of("AP").await;
        let TaskInput::AddPiece(input) = &call.work else { panic!("{call:?}") };
        written.push((input.existing.len(), call.data));
    }
    let padded = |file: &[u8], to: usize| Some([file, &vec![0; to - file.len()]].concat());
    assert_eq!(written[0], (0, padded(&files[0], 254)));
    assert_eq!(written[1], (1, None));
    assert_eq!(written[2], (2, padded(&files[1], 508)));
    assert_eq!(written[3], (3, padded(&files[2], 127)));
    assert_eq!(written[4..], [(4, None), (5, None), (6, None)]);
    // Its unsealed file was moved with the rest and never deleted; what was staged is gone.
    assert!(worker.deleted.lock().expect("no panic elsewhere").is_empty());
    let holders =
        world.api.storage_find(SectorId::new(1000, 1), FileTypes::UNSEALED, None).await.expect("found");
    assert!(matches!(holders.as_slice(), [holder] if holder.can_store), "{holders:?}");
    // Every event of its life is in its log.
    for word in [
        "bytes of data given",
        "start of sealing",
        "result of AP",
        "ticket",
        "result of PC1",
        "result of PC2",
        "on chain",
        "seed",
        "result of C1",
        "result of C2",
        "result of VERIFY",
        "result of FIN",
        "result of MOVE",
    ] {
        assert!(done.log.iter().any(|(_, _, text)| text.contains(word)), "{word}: {:#?}", done.log);
    }
    let world = world.restart().await;
    assert_eq!(staged(&world), 0, "a proven sector needs nothing staged");
}

#[tokio::test]
async fn data_that_waits_outlives_the_manager() {
    let world = world().await;
    let added = give(&world, None, bytes(1016, 1)).await;
    assert_eq!((added.sector, staged(&world)), (number(1), 1));
    let world = world.restart().await;
    assert_eq!(staged(&world), 1);
    let worker = worker();
    world.join(&worker).await;
    give(&world, Some(1), bytes(1000, 2)).await;
    // Full: it starts by itself.
    let done = world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!(done.pieces.len(), 2);
    assert_eq!(worker.call_of("AP").await.data, Some(bytes(1016, 1)));
}

#[tokio::test]
async fn what_no_sector_takes_is_refused_and_leaves_nothing() {
    let world = world().await;
    let api = world.handle.pipeline_api();
    for (sector, data, words) in [
        (None, Vec::new(), "no data came"),
        (None, bytes(2033, 1), "more than 2032 bytes"),
        (Some(number(9)), bytes(10, 1), "no sector 9"),
    ] {
        let error = api.add_piece(sector, None, parts(data)).await.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    give(&world, None, bytes(1016, 1)).await;
    let error =
        api.add_piece(Some(number(1)), None, parts(bytes(2000, 2))).await.expect_err("no room").to_string();
    assert!(error.contains("MGR120") && error.contains("does not fit"), "{error}");
    assert_eq!(staged(&world), 1);
    // Without a sector named it goes to a new one.
    assert_eq!(give(&world, None, bytes(2000, 2)).await.sector, number(2));
}

#[tokio::test]
async fn a_state_by_hand_is_guarded_and_goes_on_from_there() {
    let world = world().await;
    let worker = worker();
    worker.script("PC2", Behaviour::Hold);
    world.join(&worker).await;
    world.api.pledge_sector().await.expect("a pledge");
    let held = worker.call_of("PC2").await;
    let api = world.handle.pipeline_api();
    let refused = |state: &'static str| {
        let api = api.clone();
        async move { api.update_state(number(1), state.to_owned()).await.expect_err(state).to_string() }
    };
    let error = refused("PreCommit1").await;
    assert!(error.contains("MGR122") && error.contains("sealing abort 1"), "{error}");
    assert!(refused("Sealed").await.contains("there are Empty, WaitDeals"));
    worker.fail(&held, 0).await;
    world.sector(1, |sector| sector.state == "SealPreCommit2Failed").await;
    assert!(refused("Proving").await.contains("put back, not forward"));
    api.update_state(number(1), "PreCommit1".to_owned()).await.expect("put back");
    let done = world.sector(1, |sector| sector.state == "Proving").await;
    assert!(done.log.iter().any(|(_, _, text)| text.contains("put into PreCommit1 by the operator")));
    assert_eq!(world::attempts(&done, "PC1").len(), 2, "it labelled again");
    let error = refused("Committing").await;
    assert!(error.contains("cache is cleared"), "{error}");
}

/// Each state that may have a limit, and the work that its sectors wait for there.
const STAGES: [(&str, &str); 6] = [
    ("AddPiece", "AP"),
    ("Packing", "AP"),
    ("PreCommit1", "PC1"),
    ("PreCommit2", "PC2"),
    ("Committing", "C1"),
    ("FinalizeSector", "FIN"),
];

#[tokio::test]
async fn no_more_sectors_than_allowed_are_in_a_state() {
    for (stage, code) in STAGES {
        let world = world_with(&format!("[sealing.in_flight]\n{stage} = 1\n")).await;
        let worker = worker();
        worker.script(code, Behaviour::Hold);
        world.join(&worker).await;
        for _ in 1..=3 {
            if stage == "AddPiece" {
                // As much as a sector takes, so that it starts by itself.
                give(&world, None, bytes(2000, 1)).await;
            } else {
                world.api.pledge_sector().await.expect("a pledge");
            }
        }
        let first = worker.call_of(code).await;
        for other in (1..=3).filter(|one| *one != first.call.sector.number.get()) {
            world.sector(other, |sector| sector.state == stage).await;
            let words = format!("1 sectors are in {stage} already");
            let subject = number(other).to_string().parse().expect("a subject");
            // What else it waits for there comes first.
            let told = async {
                while !world.api.why(subject).await.expect("told").summary.contains(&words) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LIMIT, told).await.unwrap_or_else(|_| panic!("never said: {words}"));
        }
        worker.finish(&first).await;
        for one in 1..=3 {
            world.sector(one, |sector| sector.state == "Proving").await;
        }
    }
}
