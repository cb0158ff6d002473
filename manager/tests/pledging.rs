//! Sectors that the manager pledges by itself.

mod world;

use std::sync::Arc;

use manager::state::StateEvent;
use rpc::pipelining::PledgingView;
use sealtasks::{
    ActorId, FileType, FileTypes, FsStat, HealthReport, SealingPlan, SectorId, SectorSize, StorageInfo,
    StorageStanza, finalized_space, sealing_space,
};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, LIMIT, World, world, world_with};

const PLAN: Plan = Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true };

fn worker() -> Arc<FakeWorker> {
    FakeWorker::new(PLAN)
}

/// What the manager says of its pledging, once it waits for this.
async fn waits_for(world: &World, word: &str) -> PledgingView {
    let api = world.handle.pipeline_api();
    let wait = async {
        loop {
            let view = api.pledging().await.expect("told");
            if view.waits_for == word {
                return view;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(view) => view,
        Err(_) => panic!("never {word}: {:?}", api.pledging().await),
    }
}

/// Waits until so many sectors are pledged.
async fn pledged(world: &World, count: usize) {
    let wait = async {
        while world.api.sectors_list().await.expect("listed").len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("pledged in time");
}

#[tokio::test]
async fn ten_sectors_flow_unattended_to_where_they_are_to_stop() {
    let world = world_with("[sealing]\nkeep_in_pipeline = 10\nstop_at = \"pc2\"\n").await;
    let view = waits_for(&world, "no-worker").await;
    assert!(view.change.contains("start a worker"), "{view:?}");
    world.join(&worker()).await;
    let view = waits_for(&world, "full").await;
    assert_eq!((view.keep, view.in_pipeline, view.parked), (10, 10, 0));
    for number in 1..=10 {
        let sector = world.sector(number, |sector| sector.stopped).await;
        assert_eq!((sector.state.as_str(), sector.comm_r.is_some()), ("PreCommitting", true));
    }
    assert_eq!(world.api.sectors_list().await.expect("listed").len(), 10);
}

#[tokio::test]
async fn done_sectors_make_room_until_an_operator_pauses_it_and_that_outlives_a_restart() {
    let world = world_with("[sealing]\nkeep_in_pipeline = 2\n").await;
    world.join(&worker()).await;
    for number in 1..=5 {
        pledged(&world, number).await;
        world.sector(number as u64, |sector| sector.state == "Proving").await;
    }
    let paused = world.handle.pipeline_api().pause_pledging(true, "a test".to_owned()).await.expect("paused");
    assert_eq!((paused.paused, paused.waits_for.as_str()), (true, "paused"));
    let there = world.api.sectors_list().await.expect("listed").len();
    for number in 1..=there as u64 {
        world.sector(number, |sector| sector.state == "Proving").await;
    }
    let world = world.restart().await;
    world.join(&worker()).await;
    let view = waits_for(&world, "paused").await;
    assert_eq!(view.in_pipeline, 0);
    assert_eq!(world.api.sectors_list().await.expect("listed").len(), there);
    world.handle.pipeline_api().pause_pledging(false, "a test".to_owned()).await.expect("resumed");
    pledged(&world, there + 1).await;
}

#[tokio::test]
async fn nothing_piles_up_before_pc1() {
    let world = world_with("[sealing]\nkeep_in_pipeline = 10\n").await;
    let worker = worker();
    for _ in 0..10 {
        worker.script("AP", Behaviour::Hold);
    }
    world.join(&worker).await;
    let view = waits_for(&world, "pc1-busy").await;
    assert_eq!(view.in_pipeline, pipeline::BEFORE_PC1_MAX, "{view:?}");
    let held = worker.call_of("AP").await;
    worker.finish(&held).await;
    // It runs PC1 and goes on to the end; another is pledged in its place.
    pledged(&world, 3).await;
}

/// Of each of two miners two are kept.
async fn both_are_full(world: &World) {
    let wait = async {
        // The first one's word is given where the other waits, too, if only for PC1.
        while world.api.sectors().await.expect("listed").len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(LIMIT, wait).await.is_err() {
        panic!("{:?}", world.handle.pipeline_api().pledging().await);
    }
    let view = waits_for(world, "full").await;
    assert_eq!((view.keep, view.in_pipeline), (4, 4), "{view:?}");
    assert!(
        view.summary.contains("f01000: 2 sectors") && view.summary.contains("f02000: 2 sectors"),
        "{view:?}"
    );
}

/// So many of each are kept, and the one that has fewer gets the next.
#[tokio::test]
async fn each_miner_s_pipeline_is_kept_full() {
    let added = StateEvent::MinerAdded { miner: ActorId::new(2000), by: "a test".to_owned() };
    let world = world_with("[sealing]\nkeep_in_pipeline = 2\nstop_at = \"pc2\"\n").await;
    let world = world.restart_after(vec![added]).await;
    world.join(&worker()).await;
    both_are_full(&world).await;
    let mut kept = world.api.sectors().await.expect("listed");
    kept.sort();
    let of = |miner| [1, 2].map(|number| SectorId::new(miner, number));
    assert_eq!(kept, [of(1000), of(2000)].concat());
}

/// What is kept for the one miner is no room for the other's sectors, and nothing that these need is taken from it.
#[tokio::test]
async fn sectors_of_one_miner_take_no_room_that_admits_the_other_s_alone() {
    let (first, second) = (ActorId::new(1000), ActorId::new(2000));
    let added = StateEvent::MinerAdded { miner: second, by: "a test".to_owned() };
    let world = world_with("[sealing]\nkeep_in_pipeline = 2\n").await.restart_after(vec![added]).await;
    let replica = finalized_space(FileTypes::SEALED | FileTypes::CACHE, SectorSize::KiB2);
    for (name, miner) in [("one", first), ("two", second)] {
        let mut own = StorageStanza { weight: 10, can_store: true, ..StorageStanza::default() };
        own.filters.allow_miners = vec![miner];
        attach(&world, name, 2 * replica, own).await;
    }
    let worker = FakeWorker::new(Plan { stores: false, ..PLAN });
    for _ in 0..4 {
        worker.script("PC1", Behaviour::Hold);
    }
    world.join(&worker).await;
    both_are_full(&world).await;
}

#[tokio::test]
async fn a_worker_for_lost_sectors_is_none_for_new_ones() {
    let world = world_with("[sealing]\nkeep_in_pipeline = 1\n").await;
    let worker = worker();
    *worker.plan.lock().expect("nobody panicked") = SealingPlan::Rebuild;
    world.join(&worker).await;
    waits_for(&world, "no-worker").await;
    assert!(world.api.sectors_list().await.expect("listed").is_empty());
    let listed = world.api.overview().await.expect("told");
    assert_eq!(listed.workers[0].plan, SealingPlan::Rebuild);
}

#[tokio::test]
async fn without_the_setting_nothing_is_pledged() {
    let world = world().await;
    world.join(&worker()).await;
    let view = waits_for(&world, "off").await;
    assert!(view.change.contains("keep_in_pipeline"), "{view:?}");
    assert!(world.api.sectors_list().await.expect("listed").is_empty());
}

/// Attaches a path that nobody serves.
async fn attach(world: &World, name: &str, available: u64, stanza: StorageStanza) {
    let urls = vec!["http://127.0.0.1:1/remote".to_owned()];
    let info = StorageInfo { id: name.parse().expect("an id"), urls, stanza };
    world.api.storage_attach(info, free(available)).await.expect("attached");
}

fn free(available: u64) -> FsStat {
    FsStat { capacity: 1 << 40, available: available as i64, fs_available: 1 << 40, ..FsStat::default() }
}

/// What has no room to be finalized is not begun: a path that refuses replicas has none, nor has one that is read-only.
#[tokio::test]
async fn only_paths_that_take_replicas_have_room_for_them() {
    let world = world_with("[sealing]\nkeep_in_pipeline = 1\n").await;
    world.join(&FakeWorker::new(Plan { stores: false, ..PLAN })).await;
    let storing = StorageStanza { weight: 10, can_store: true, ..StorageStanza::default() };
    let mut picky = storing.clone();
    picky.filters.deny_types = vec![FileType::Sealed];
    attach(&world, "picky", 1 << 40, picky).await;
    attach(&world, "read-only", 1 << 40, StorageStanza { weight: 0, ..storing.clone() }).await;
    // The cache may lie in the picky one.
    let replica = finalized_space(FileTypes::SEALED, SectorSize::KiB2);
    attach(&world, "small", replica - 1, storing.clone()).await;
    let view = waits_for(&world, "no-storage-space").await;
    assert!(view.summary.contains("room for 0 sectors, and 1 need it"), "{view:?}");
    assert!(world.api.sectors_list().await.expect("listed").is_empty());
    attach(&world, "enough", replica, storing).await;
    pledged(&world, 1).await;
}

/// No byte of a path that seals and stores is promised for both.
#[tokio::test]
async fn a_path_for_both_uses_is_counted_once() {
    let world = world_with("[sealing]\nkeep_in_pipeline = 1\n").await;
    let worker = FakeWorker::new(Plan { stores: false, ..PLAN });
    world.join(&worker).await;
    let report = |available| HealthReport { stat: free(available), error: None };
    world.api.storage_report_health(worker.sealing.clone(), report(0)).await.expect("reported");
    let all = FileTypes::UNSEALED | FileTypes::SEALED | FileTypes::CACHE;
    let sealed = sealing_space(all, SectorSize::KiB2);
    let stored = finalized_space(FileTypes::SEALED | FileTypes::CACHE, SectorSize::KiB2);
    let both = StorageStanza { weight: 10, can_seal: true, can_store: true, ..StorageStanza::default() };
    attach(&world, "both", sealed + stored - 1, both).await;
    waits_for(&world, "no-sealing-space").await;
    assert!(world.api.sectors_list().await.expect("listed").is_empty());
    let id = "both".parse().expect("an id");
    world.api.storage_report_health(id, report(sealed + stored)).await.expect("reported");
    pledged(&world, 1).await;
}
