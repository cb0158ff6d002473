//! Copies that attempts leave behind: what one brings that was given up does not count, and of several copies of a file the
//! one that was worked on does, also after a restart of the manager.

mod world;

use std::sync::Arc;

use manager::state::StateEvent;
use rpc::storage::{CopyDeed, CopyState};
use sealtasks::{FileType, FileTypes, SectorDecl, SectorId, TaskType};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{World, world};

const FIRST_HALF: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];
const REST: &[TaskType] =
    &[TaskType::PreCommit2, TaskType::Commit1, TaskType::Commit2, TaskType::Finalize, TaskType::Fetch];
const SECTOR: SectorId = SectorId::new(1000, 1);
const CACHE: FileTypes = FileTypes::CACHE;

/// A sector whose PreCommit1 worker A did, and whose PreCommit2 is under way on B.
async fn at_pc2(world: &World, a_is_sealyard: bool) -> (Arc<FakeWorker>, Arc<FakeWorker>, Taken) {
    let a = FakeWorker::new(Plan {
        name: "A",
        seed: 1,
        tasks: FIRST_HALF,
        stores: false,
        sealyard: a_is_sealyard,
    });
    let b = FakeWorker::new(Plan { name: "B", seed: 2, tasks: REST, stores: true, sealyard: true });
    b.script("PC2", Behaviour::Hold);
    world.join(&a).await;
    world.join(&b).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = b.call_of("PC2").await;
    (a, b, taken)
}

/// Whether the index lists the cache directory on this worker's path for sealing, and as what.
async fn listed(world: &World, worker: &FakeWorker) -> Option<bool> {
    let found = world.api.storage_find(SECTOR, CACHE, None).await.expect("an answer");
    found.into_iter().find(|holder| holder.id == worker.sealing).map(|holder| holder.primary)
}

/// What a scan of a worker's path says.
async fn scan(world: &World, worker: &FakeWorker) {
    let files = vec![(SectorDecl { sector: SECTOR, types: CACHE }, true)];
    world.api.storage_declare_batch(worker.sealing.clone(), files).await.expect("declared");
}

#[tokio::test]
async fn of_two_copies_the_one_that_was_worked_on_counts_from_then_on() {
    let world = world().await;
    let (a, b, taken) = at_pc2(&world, true).await;
    // A had brought it for an attempt that was given up, or its deletion there was lost.
    scan(&world, &a).await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (Some(true), Some(true)), "a conflict");
    b.script("C1", Behaviour::Hold);
    b.finish(&taken).await;
    let c1 = b.call_of("C1").await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, None, "whatever a scan finds there");

    let world = world.restart().await;
    world.join(&a).await;
    scan(&world, &a).await;
    world.join(&b).await;
    b.declare(SECTOR, FileTypes::SEALED | CACHE).await;
    scan(&world, &a).await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)), "after a restart");
    b.finish(&c1).await;
    world.sector(1, |sector| sector.state == "Proving").await;
    // Its owner has deleted it: what is put there later is another one.
    world.api.storage_drop(a.sealing.clone(), SECTOR, CACHE).await.expect("dropped");
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, Some(true));
}

#[tokio::test]
async fn what_an_attempt_did_counts_until_it_is_over() {
    let world = world().await;
    let (a, b, taken) = at_pc2(&world, true).await;
    let attempt = taken.attempt.expect("a Sealyard worker is told");
    let deed = |state| CopyDeed { path: a.sealing.clone(), sector: SECTOR, types: CACHE, state };
    world.api.storage_deed(attempt, deed(CopyState::Secondary)).await.expect("it is open");
    assert_eq!(listed(&world, &a).await, Some(false));
    world.api.storage_deed(attempt, deed(CopyState::Superseded)).await.expect("it is open");
    assert_eq!(listed(&world, &a).await, None);
    let other = CopyDeed { sector: SectorId::new(1000, 2), ..deed(CopyState::Primary) };
    world.api.storage_deed(attempt, other).await.expect_err("another sector's");
    b.finish(&taken).await;
    b.call_of("C1").await;
    for state in [CopyState::Primary, CopyState::Secondary, CopyState::Superseded] {
        let refused = world.api.storage_deed(attempt, deed(state)).await.expect_err("it is over").to_string();
        assert!(refused.contains("MGR145") && refused.contains("storage cleanup"), "{refused}");
    }
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
}

/// A Lotus worker names no attempt. Where it only seals, a scan of its own calls nothing primary.
#[tokio::test]
async fn what_a_lotus_worker_brings_that_has_no_attempt_does_not_count() {
    let world = world().await;
    let (a, b, taken) = at_pc2(&world, false).await;
    a.declare(SECTOR, CACHE).await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
    b.finish(&taken).await;
    b.call_of("C1").await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
}

#[tokio::test]
async fn which_copies_are_old_is_read_again_with_the_durable_state() {
    let world = world().await;
    let (a, b, _taken) = at_pc2(&world, true).await;
    let (file, path) = (FileType::Cache, a.sealing.clone());
    let old = StateEvent::CopySuperseded { sector: SECTOR, file, path: path.clone() };
    let world = world.restart_after(vec![old]).await;
    world.join(&b).await;
    b.declare(SECTOR, CACHE).await;
    world.join(&a).await;
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, None);
    let world = world.restart_after(vec![StateEvent::CopyCounts { sector: SECTOR, file, path }]).await;
    world.join(&a).await;
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, Some(true));
}
