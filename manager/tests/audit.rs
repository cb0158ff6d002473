//! The audit: a sector with more than the one thing that carries it on, or none, is an alert until that is over. It is made by
//! editing the database of a stopped manager: what lacks its task there is given one at the start, and what does not fit is refused.

mod world;

use std::sync::Arc;

use rpc::api::PledgeOptions;
use rpc::extension::AlertView;
use rusqlite::Connection;
use sealtasks::{FileTypes, SectorId};
use world::canned::Behaviour;
use world::fake_worker::{FakeWorker, Plan, Taken};
use world::{ALL, World, world};

const SECTOR: SectorId = SectorId::new(1000, 1);

async fn alerts(world: &World, holds: impl Fn(&[AlertView], u64) -> bool) -> Vec<AlertView> {
    let wait = async {
        loop {
            let found = world.api.overview().await.expect("an overview");
            if holds(&found.alerts, found.audits) {
                return found.alerts;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(world::LIMIT, wait).await.expect("the audit finds it")
}

async fn pledged() -> World {
    let world = world().await;
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    // Nobody is there to write its data.
    world.sector(1, |sector| sector.tasks.iter().any(|task| task.task.short() == "AP")).await;
    world
}

#[tokio::test]
async fn two_live_tasks_of_one_sector_are_an_alert_until_one_is_gone() {
    let double = |db: &Connection| {
        let all = "SELECT group_concat(name) FROM pragma_table_info('task') WHERE name <> 'id'";
        let rest: String = db.query_row(all, [], |row| row.get(0)).expect("columns");
        let doubled = format!("INSERT INTO task (id, {rest}) SELECT id + 100, {rest} FROM task");
        assert_eq!(db.execute(&doubled, []).expect("edited"), 1);
    };
    let world = pledged().await.restart_on(double).await;
    let found = alerts(&world, |alerts, _| !alerts.is_empty()).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].system.as_str(), found[0].subject.as_str()), ("sectors", "1"));
    assert!(found[0].text.ends_with("is live, but Packing does not wait for it"), "{found:?}");
    let single = |db: &Connection| {
        assert_eq!(db.execute("DELETE FROM task WHERE id > 100", []).expect("edited"), 1);
    };
    let world = world.restart_on(single).await;
    let rested = world.sector(1, |sector| sector.tasks.len() == 1).await;
    assert_eq!(alerts(&world, |_, audits| audits > 0).await, [], "{rested:?}");
}

/// A worker that does everything, and a sector of its whose Commit2 is not done yet.
async fn committing() -> (World, Arc<FakeWorker>, Taken) {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    worker.script("C2", Behaviour::Hold);
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    let call = worker.call_of("C2").await;
    (world, worker, call)
}

/// The alert of the sector that waits for its cache, which says where it is looked for.
async fn waits_for_cache(world: &World, place: &str) {
    let found = alerts(world, |alerts, _| !alerts.is_empty()).await;
    assert_eq!((found.len(), found[0].subject.as_str()), (1, "1"), "{found:?}");
    assert!(found[0].text.starts_with("FinalizeSector waits for the cache file: "), "{found:?}");
    assert!(found[0].text.contains(place), "{place}: {found:?}");
}

#[tokio::test]
async fn a_sector_that_waits_long_for_a_file_of_a_path_that_is_away_is_an_alert_until_it_is_back() {
    let (world, worker, call) = committing().await;
    let files = world.api.storage_find(SECTOR, FileTypes::CACHE, None).await.expect("asked");
    let world = world.restart().await;
    // It returns its result before this manager has heard of its paths.
    *worker.manager.lock().expect("no panic elsewhere") = Some(world.api.clone());
    worker.finish(&call).await;
    waits_for_cache(&world, &format!("it lay in path {}, which is not back", files[0].id)).await;
    world.join(&worker).await;
    worker.declare(SECTOR, FileTypes::SEALED | FileTypes::CACHE).await;
    world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!(alerts(&world, |alerts, _| alerts.is_empty()).await, []);
}

#[tokio::test]
async fn a_file_that_is_in_no_path_that_is_known_is_an_alert_too() {
    let (world, worker, call) = committing().await;
    for holder in world.api.storage_find(SECTOR, FileTypes::CACHE, None).await.expect("asked") {
        world.api.storage_drop(holder.id, SECTOR, FileTypes::CACHE).await.expect("dropped");
    }
    worker.finish(&call).await;
    waits_for_cache(&world, "every path that is known is here, and none has it").await;
    let world = world.restart().await;
    waits_for_cache(&world, "no path that is here has it; not here, or not healthy, are ").await;
}
