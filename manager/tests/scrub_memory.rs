//! Scrubbing has memory of its own in the scheduler's books: no task is given it meanwhile, and none is taken from a task.

mod world;

use std::sync::Arc;

use rpc::extension::{MachineIdentity, WorkerState};
use rpc::storage::ScrubResult;
use sealtasks::{
    RegisteredSealProof, ResourceTable, Resources, ScrubVerdict, SectorNumber, SectorSize, TaskType, WorkerId,
};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, LIMIT, World, world};

const GIB: u64 = 1 << 30;

/// AddPiece needs 60 GiB of 64 to itself, and a scrub takes 10.
async fn busy_world() -> (World, Arc<FakeWorker>) {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "A", seed: 1, tasks: ALL, stores: true, sealyard: true });
    let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
    let row = |min, max| Resources { min_memory: min * GIB, max_memory: max * GIB, ..Resources::default() };
    let rows = [(TaskType::AddPiece, proof, row(60, 1)), (TaskType::PreCommit2, proof, row(1, 10))];
    *worker.table.lock().expect("no panic elsewhere") = Some(ResourceTable::from_rows(rows));
    world.join(&worker).await;
    world.api.pledge_sector().await.expect("a pledge");
    world.sector(1, |sector| sector.state == "Proving").await;
    (world, worker)
}

/// Asks for sector 1 to be scrubbed, and goes on once that holds its memory.
async fn begun(world: &World) -> tokio::task::JoinHandle<Vec<ScrubResult>> {
    let storage = world.handle.storage_api();
    let scrubbing =
        tokio::spawn(
            async move { storage.scrub_sector(SectorNumber::new(1).into()).await.expect("an answer") },
        );
    ram_is(world, "A", 10 * GIB).await;
    scrubbing
}

/// Waits until so much of a worker's RAM is charged.
async fn ram_is(world: &World, name: &str, bytes: u64) {
    let ask = async {
        loop {
            let workers = world.api.overview().await.expect("an overview").workers;
            if workers.iter().any(|view| view.name == name && view.ram.0 == bytes) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ask).await.expect("it is charged in time");
}

/// Waits until a sector waits for the memory that a scrub has.
async fn waits_for_memory(world: &World, sector: u64) {
    let subject = sector.to_string().parse().expect("a sector");
    let why = tokio::time::timeout(LIMIT, async {
        loop {
            let why = format!("{:?}", world.api.why(subject).await.expect("why"));
            if why.contains("memory") {
                return why;
            }
            tokio::task::yield_now().await;
        }
    });
    let why = why.await.expect("it waits for memory");
    assert!(why.contains("54"), "64 GiB less 10: {why}");
}

#[tokio::test]
async fn nothing_is_placed_where_a_scrub_has_its_memory() {
    let (world, worker) = busy_world().await;
    let scrubbing = begun(&world).await;
    world.api.pledge_sector().await.expect("a pledge");
    waits_for_memory(&world, 2).await;
    worker.scrubs.add_permits(8);
    scrubbing.await.expect("scrubbed");
    world.sector(2, |sector| sector.state == "Proving").await;
    ram_is(&world, "A", 0).await;
}

#[tokio::test]
async fn a_scrub_takes_no_memory_from_a_task() {
    let (world, worker) = busy_world().await;
    worker.script("AP", Behaviour::Hold);
    world.api.pledge_sector().await.expect("a pledge");
    let taken = worker.call_of("AP").await;
    // The first one was sector 1's.
    let taken = if taken.call.sector.number.get() == 2 { taken } else { worker.call_of("AP").await };
    let found =
        world.handle.storage_api().scrub_sector(SectorNumber::new(1).into()).await.expect("an answer");
    assert!(!found.is_empty());
    for one in found {
        assert_eq!(one.verdict, ScrubVerdict::LeftOut);
        assert!(
            one.detail.contains("MGR147") && one.detail.contains("A has 4294967296 free"),
            "{}",
            one.detail
        );
    }
    worker.finish(&taken).await;
    world.sector(2, |sector| sector.state == "Proving").await;
    begun(&world).await;
}

fn there(state: &mut WorkerState) {
    state.machine = Some(MachineIdentity { id: "1".to_owned(), name: "m".to_owned() });
}

fn scrubs_there(state: &mut WorkerState) {
    there(state);
    state.mem_beside = 10 * GIB;
}

/// Nobody but that other worker tells how much it is: what the first one says stays the same.
#[tokio::test]
async fn what_another_worker_of_the_machine_has_set_aside_is_there_again_when_it_or_that_worker_has_ended() {
    let (world, worker) = busy_world().await;
    let beside = FakeWorker::new(Plan { name: "B", seed: 2, tasks: &[], stores: false, sealyard: true });
    let tells = |worker: &FakeWorker, tells| *worker.tells.lock().expect("no panic elsewhere") = tells;
    tells(&worker, there);
    tells(&beside, scrubs_there);
    world.join(&worker).await;
    world.join(&beside).await;
    world.api.pledge_sector().await.expect("a pledge");
    waits_for_memory(&world, 2).await;
    tells(&beside, there);
    world.sector(2, |sector| sector.state == "Proving").await;
    tells(&beside, scrubs_there);
    ram_is(&world, "B", 10 * GIB).await;
    world.api.pledge_sector().await.expect("a pledge");
    waits_for_memory(&world, 3).await;
    beside.tell_session(WorkerId::CLOSED);
    world.sector(3, |sector| sector.state == "Proving").await;
}
