//! Sectors that the manager pledges by itself.

mod world;

use std::sync::Arc;

use rpc::pipelining::PledgingView;
use sealtasks::SealingPlan;
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, LIMIT, World, world, world_with};

fn worker() -> Arc<FakeWorker> {
    FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true })
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
