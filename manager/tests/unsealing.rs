//! The piece provider's tasks: one shared job for each sector, refusals at once where it can never be, what a failure and
//! a restart leave. The fake worker makes no files, so nothing is ever unsealed here.

mod world;

use std::sync::Arc;

use rpc::UnsealApi;
use rpc::unsealing::{PieceWish, UnsealState, UnsealView};
use sealtasks::{SectorNumber, TaskInput, TaskType};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{LIMIT, World, world};

const SEALING: &[TaskType] = &[
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
    TaskType::Fetch,
];
const UNSEALING: &[TaskType] = &[TaskType::Unseal, TaskType::FinalizeUnsealed, TaskType::Fetch];
const ONE: SectorNumber = SectorNumber::new(1);

/// A finished sector without unsealed data, and nobody who unseals.
async fn sealed() -> World {
    let world = world().await;
    let a = FakeWorker::new(Plan { name: "A", seed: 1, tasks: SEALING, stores: true, sealyard: true });
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    world.sector(1, |sector| sector.state == "Proving").await;
    // The fake worker obeys a deletion, and does not tell the index.
    let unsealed = sealtasks::FileTypes::UNSEALED;
    for path in world.api.storage_find(sector_id(), unsealed, None).await.expect("found") {
        world.api.storage_drop(path.id, sector_id(), unsealed).await.expect("dropped");
    }
    world
}

async fn with_unsealer(behaviour: Behaviour) -> (World, Arc<FakeWorker>) {
    let world = sealed().await;
    let b = FakeWorker::new(Plan { name: "B", seed: 2, tasks: UNSEALING, stores: false, sealyard: true });
    b.script("UNS", behaviour);
    world.join(&b).await;
    (world, b)
}

/// The state once nothing is under way.
async fn ended(api: &Arc<dyn UnsealApi>) -> UnsealView {
    let wait = async {
        loop {
            let view = api.unseal_state(ONE).await.expect("a known sector");
            if view.state != UnsealState::UnderWay {
                return view;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it ends")
}

fn wish(unseal: bool) -> PieceWish {
    PieceWish { sector: ONE, offset: 0, size: Some(127), unseal }
}

#[tokio::test]
async fn what_can_never_be_is_refused_at_once() {
    let world = sealed().await;
    let api = world.handle.unseal_api();
    let error = api.unseal_sector(ONE).await.unwrap_err().to_string();
    assert!(error.contains("MGR085"), "nobody unseals: {error}");
    let error = api.read_piece(wish(true)).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("MGR085"), "nor for a reader: {error}");
    let error = api.read_piece(wish(false)).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("MGR088"), "a reader who does not wait: {error}");
    let error = api.unseal_sector(SectorNumber::new(9)).await.unwrap_err().to_string();
    assert!(error.contains("MGR053"), "no such sector: {error}");
    let error = api.release_unsealed(ONE, vec![]).await.unwrap_err().to_string();
    assert!(error.contains("MGR084"), "nothing to release: {error}");
    assert!(!api.is_unsealed(ONE, 0..127).await.expect("an answer"));
    assert!(api.is_unsealed(ONE, 0..4096).await.is_err(), "not within the sector");
    // Its replica is gone.
    for path in world.api.storage_find(sector_id(), replica(), None).await.expect("found") {
        world.api.storage_drop(path.id, sector_id(), replica()).await.expect("dropped");
    }
    let error = api.unseal_sector(ONE).await.unwrap_err().to_string();
    assert!(error.contains("MGR081"), "{error}");
    assert_eq!(ended(&api).await.state, UnsealState::NotUnsealed);
}

fn sector_id() -> sealtasks::SectorId {
    sealtasks::SectorId::new(1000, 1)
}

fn replica() -> sealtasks::FileTypes {
    sealtasks::FileTypes::SEALED | sealtasks::FileTypes::CACHE
}

#[tokio::test]
async fn all_who_want_a_sector_share_one_task() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    let api = world.handle.unseal_api();
    let first = api.unseal_sector(ONE).await.expect("a task");
    let second = api.unseal_sector(ONE).await.expect("the same task");
    assert_eq!((first.state, first.task), (UnsealState::UnderWay, second.task));
    let reader = {
        let api = world.handle.unseal_api();
        tokio::spawn(async move { api.read_piece(wish(true)).await.map(drop) })
    };
    let taken = b.call_of("UNS").await;
    let TaskInput::Unseal(input) = &taken.work else { panic!("{taken:?}") };
    assert_eq!((input.range.offset.get(), input.range.size), (0, 2032), "the whole sector");
    b.finish(&taken).await;
    assert_eq!(ended(&api).await, UnsealView { sector: 1, ..UnsealView::default() });
    // The fake worker made no file, and whoever waited to read is told so rather than left waiting.
    let error = tokio::time::timeout(LIMIT, reader).await.expect("told").expect("no panic").unwrap_err();
    assert!(error.to_string().contains("MGR089"), "{error}");
    let again = api.unseal_sector(ONE).await.expect("another task");
    assert_ne!(again.task, first.task);
    // The sector itself has gone nowhere.
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_the_sector_stays_as_it_is() {
    let (world, _b) = with_unsealer(Behaviour::Fail(0)).await;
    let api = world.handle.unseal_api();
    let error = api.read_piece(wish(true)).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("MGR089") && error.contains("it failed"), "{error}");
    let view = ended(&api).await;
    assert_eq!(view.state, UnsealState::Failed);
    assert!(view.error.is_some_and(|error| error.contains("it failed")));
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn an_operator_ends_it() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    let api = world.handle.unseal_api();
    api.unseal_sector(ONE).await.expect("a task");
    let taken = b.call_of("UNS").await;
    world.api.abort_attempt(taken.attempt.expect("a Sealyard worker is told")).await.expect("aborted");
    assert_eq!(ended(&api).await.state, UnsealState::Failed);
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn a_restarted_manager_goes_on_with_it() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    let begun = world.handle.unseal_api().unseal_sector(ONE).await.expect("a task");
    let taken = b.call_of("UNS").await;
    let world = world.restart().await;
    let api = world.handle.unseal_api();
    let view = api.unseal_state(ONE).await.expect("known");
    assert_eq!((view.state, view.task), (UnsealState::UnderWay, begun.task));
    world.join(&b).await;
    b.finish(&taken).await;
    assert_eq!(ended(&api).await.state, UnsealState::NotUnsealed);
    world.sector(1, |sector| sector.state == "Proving").await;
}
