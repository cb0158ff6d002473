//! Files of a sector that somebody has of whom the scheduler knows nothing: no worker is called for a task that would stand
//! on them, nobody starves, and each is named.

mod world;

use std::sync::Arc;

use rpc::explain::WaitsFor;
use rpc::storage::LockedSector;
use sealtasks::{FileTypes, SectorId, SectorNumber};
use stores::{LockOwner, LockWant};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, LIMIT, World, world};

const SEALED: FileTypes = FileTypes::SEALED;
const NONE: FileTypes = FileTypes::NONE;

fn sector() -> SectorId {
    SectorId::new(1000, 1)
}

fn want(read: FileTypes, write: FileTypes) -> LockWant {
    LockWant { sector: sector(), read, write }
}

fn owner(name: &str) -> LockOwner {
    LockOwner { owner: name.to_owned(), reason: "a test".to_owned() }
}

/// A worker that is about to be given PC1, which writes the sealed file.
async fn before_pc1() -> (World, Arc<FakeWorker>) {
    let world = world().await;
    let a = FakeWorker::new(Plan { name: "A", seed: 1, tasks: ALL, stores: true, sealyard: true });
    a.script("PC1", Behaviour::Hold);
    (world, a)
}

/// The lock table's only sector, once `holds` is true of it.
async fn table(world: &World, holds: impl Fn(&LockedSector) -> bool) -> LockedSector {
    let wait = async {
        loop {
            let mut table = world.handle.storage_api().lock_table().await.expect("a table");
            if let Some(locked) = table.pop().filter(&holds) {
                return locked;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it comes")
}

#[tokio::test]
async fn a_task_waits_in_line_for_a_reader_and_starts_when_it_lets_go() {
    let (world, a) = before_pc1().await;
    let reader = world.handle.locks().try_lock(want(SEALED, NONE), owner("reader")).expect("asked");
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let locked = table(&world, |locked| !locked.waiters.is_empty()).await;
    let [waiter] = locked.waiters.as_slice() else { panic!("{locked:?}") };
    assert!(waiter.owner.starts_with("task ") && waiter.reason == "PC1", "{waiter:?}");
    assert!(waiter.write.contains(sealtasks::FileType::Sealed) && waiter.since_ms > 0, "{waiter:?}");
    let why = world.api.why("1".parse().expect("a subject")).await.expect("a reason");
    assert_eq!(why.waits_for, WaitsFor::Lock);
    assert!(why.summary.contains("in use by reader (a test)"), "{}", why.summary);
    // Whoever comes later stands behind the task.
    let late = world.handle.locks().try_lock(want(SEALED, NONE), owner("late")).expect("asked");
    assert!(late.is_none(), "readers cannot starve a task");
    let detail = world.sector(1, |sector| sector.state == "PreCommit1").await;
    let on_workers = world::attempts(&detail, "PC1").into_iter().filter(|(_, worker)| !worker.is_empty());
    assert_eq!(on_workers.count(), 0, "nothing was bound, and nobody called");
    drop(reader);
    let taken = a.call_of("PC1").await;
    assert_eq!(taken.attempt.map(|attempt| attempt.attempt), Some(1), "it is the first attempt");
    let locked = table(&world, |locked| locked.waiters.is_empty()).await;
    let [holder] = locked.holders.as_slice() else { panic!("{locked:?}") };
    assert!(holder.owner.starts_with("attempt ") && holder.until_ms.is_none(), "{holder:?}");
    a.finish(&taken).await;
    world.sector(1, |sector| sector.state == "Proving").await;
    assert!(world.handle.locks().snapshot().is_empty(), "everything was let go");
}

#[tokio::test]
async fn a_stream_of_readers_and_a_task_take_turns() {
    let (world, a) = before_pc1().await;
    let locks = world.handle.locks();
    let mut reader = locks.try_lock(want(SEALED, NONE), owner("reader 0")).expect("asked");
    assert!(reader.is_some());
    // Nobody can take the task yet.
    world.api.pledge_sector().await.expect("a pledge");
    world.join(&a).await;
    table(&world, |locked| !locked.waiters.is_empty()).await;
    // Each next reader is there before the last one goes.
    let next = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock(want(SEALED, NONE), owner("reader 1")).await }
    });
    table(&world, |locked| locked.waiters.len() == 2).await;
    drop(reader.take());
    let taken = a.call_of("PC1").await;
    assert!(!next.is_finished(), "it came after the task");
    a.finish(&taken).await;
    let next = tokio::time::timeout(LIMIT, next).await.expect("its turn").expect("no panic");
    drop(next.expect("granted"));
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn a_task_in_line_that_is_taken_out_leaves_the_line() {
    let (world, a) = before_pc1().await;
    let reader = world.handle.locks().try_lock(want(SEALED, NONE), owner("reader")).expect("asked");
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    table(&world, |locked| !locked.waiters.is_empty()).await;
    let task = world.api.why("1".parse().expect("a subject")).await.expect("a reason").task.expect("a task");
    let subject = format!("task:{}", task.task).parse().expect("a subject");
    world.operator.abort(subject, "a test".to_owned()).await.expect("taken out");
    world.sector(1, |sector| sector.state == "SealPreCommit1Failed").await;
    table(&world, |locked| locked.waiters.is_empty()).await;
    drop(reader);
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("again");
    a.finish(&a.call_of("PC1").await).await;
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn what_was_running_when_the_manager_stopped_holds_its_files_again() {
    let (world, a) = before_pc1().await;
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("PC1").await;
    let world = world.restart().await;
    let locked = table(&world, |_| true).await;
    assert!(locked.holders[0].owner.starts_with("attempt "), "{locked:?}");
    world.join(&a).await;
    assert_eq!(world.handle.locks().snapshot()[0].holders.len(), 1, "once");
    a.finish(&taken).await;
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn a_caller_of_the_lock_method_waits_as_long_as_its_call_and_holds_nothing_after_it() {
    let (world, a) = before_pc1().await;
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("PC1").await;
    assert!(!world.api.storage_try_lock(sector(), SEALED, NONE).await.expect("busy is an answer"));
    world.api.storage_try_lock(sector(), NONE, NONE).await.expect("Lotus says no here");
    world.api.storage_lock(sector(), NONE, NONE).await.expect_err("nothing to lock is broken, not busy");
    let call = tokio::spawn({
        let api = world.api.clone();
        async move { api.storage_lock(sector(), SEALED, NONE).await }
    });
    let locked = table(&world, |locked| !locked.waiters.is_empty()).await;
    assert_eq!(
        (locked.waiters[0].owner.as_str(), locked.waiters[0].reason.as_str()),
        ("API caller", "StorageLock")
    );
    call.abort();
    table(&world, |locked| locked.waiters.is_empty()).await;
    let call = tokio::spawn({
        let api = world.api.clone();
        async move { api.storage_lock(sector(), SEALED, NONE).await }
    });
    table(&world, |locked| !locked.waiters.is_empty()).await;
    a.finish(&taken).await;
    tokio::time::timeout(LIMIT, call).await.expect("its turn").expect("no panic").expect("it could be had");
    world.sector(1, |sector| sector.state == "Proving").await;
    assert!(world.handle.locks().snapshot().is_empty(), "a call that is over holds nothing");
}

/// Nobody could take the task yet, so nobody has tried: who has its files is seen when it is asked for.
#[tokio::test]
async fn why_names_who_has_the_files_before_any_worker_could_take_the_task() {
    let (world, _) = before_pc1().await;
    let unsealed = want(FileTypes::UNSEALED, NONE);
    let reader = world.handle.locks().try_lock(unsealed, owner("reader")).expect("asked");
    world.api.pledge_sector().await.expect("a pledge");
    world.sector(1, |sector| sector.state == "Packing").await;
    let why = || async { world.api.why("1".parse().expect("a subject")).await.expect("a reason") };
    let asked = why().await;
    assert_eq!(asked.waits_for, WaitsFor::Lock, "{}", asked.summary);
    assert!(asked.summary.contains("in use by reader (a test)"), "{}", asked.summary);
    assert!(asked.prospects.contains("waits for a worker"), "{}", asked.prospects);
    let jobs = world.api.jobs().await.expect("jobs");
    assert!(jobs[0].reason.contains("in use by reader"), "{jobs:?}");
    assert!(world.handle.locks().snapshot()[0].waiters.is_empty(), "it does not stand in line yet");
    drop(reader);
    assert_eq!(why().await.waits_for, WaitsFor::Worker);
}
