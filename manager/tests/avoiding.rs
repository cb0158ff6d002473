//! The next attempt of a task that failed goes to another worker, if there is one, also after a restart of the manager.

mod world;

use std::sync::Arc;

use sealtasks::{FailureClass, FileTypes, TaskType};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{World, attempts, world};

const ALL: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1, TaskType::Fetch];
/// So every sector begins with the one that fails, and all that PreCommit1 needs lies there.
const OTHER: &[TaskType] = &[TaskType::PreCommit1, TaskType::Fetch];

fn workers() -> [Arc<FakeWorker>; 2] {
    [("bad", 1, ALL), ("good", 2, OTHER)]
        .map(|(name, seed, tasks)| FakeWorker::new(Plan { name, seed, tasks, stores: false, sealyard: true }))
}

/// A new sector whose PreCommit1 the worker has.
async fn held(world: &World, bad: &FakeWorker) -> Taken {
    bad.script("PC1", Behaviour::Hold);
    world.api.pledge_sector().await.expect("a pledge");
    bad.call_of("PC1").await
}

/// It fails there.
async fn fails(world: &World, bad: &FakeWorker, taken: &Taken, class: FailureClass) {
    bad.fail_as(taken, class).await;
    world.sector(taken.call.sector.number.get(), |sector| sector.state == "SealPreCommit1Failed").await;
}

/// Tried again at once, it gets on; by whom.
async fn retried(world: &World, taken: &Taken) -> Vec<(String, String)> {
    let number = taken.call.sector.number;
    world.api.retry_sector(number.into()).await.expect("tried again");
    let detail = world.sector(number.get(), |sector| sector.state == "PreCommit2").await;
    attempts(&detail, "PC1")
}

fn by(first: &str, then: &str) -> [(String, String); 2] {
    [("failed".to_owned(), first.to_owned()), ("done".to_owned(), then.to_owned())]
}

#[tokio::test]
async fn a_task_that_failed_goes_elsewhere_next_and_nowhere_else_if_there_is_nobody() {
    let world = world().await;
    let [bad, good] = workers();
    world.join(&bad).await;
    // Alone it gets it again.
    let alone = held(&world, &bad).await;
    fails(&world, &bad, &alone, FailureClass::Compute).await;
    assert_eq!(retried(&world, &alone).await, by("bad", "bad"));
    assert_eq!(bad.call_of("PC1").await.call.sector, alone.call.sector);

    let broken = held(&world, &bad).await;
    world.join(&good).await;
    fails(&world, &bad, &broken, FailureClass::Environment).await;
    assert_eq!(retried(&world, &broken).await, by("bad", "good"));
}

#[tokio::test]
async fn a_restarted_manager_knows_where_a_task_failed() {
    let world = world().await;
    let [bad, good] = workers();
    world.join(&bad).await;
    let taken = held(&world, &bad).await;
    fails(&world, &bad, &taken, FailureClass::Environment).await;
    let world = world.restart().await;
    world.join(&bad).await;
    bad.declare(taken.call.sector, FileTypes::UNSEALED).await;
    world.join(&good).await;
    assert_eq!(retried(&world, &taken).await, by("bad", "good"));
}
