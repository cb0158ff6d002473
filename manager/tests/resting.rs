//! A worker that fails one task of sector after sector: others get it meanwhile, as long as there are others.

mod world;

use std::sync::Arc;

use rpc::extension::AlertView;
use sealtasks::{FailureClass, SectorNumber, TaskType, WorkerId};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{LIMIT, World, attempts, world};

const TASKS: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1, TaskType::Fetch];

fn worker(name: &'static str, seed: u64) -> Arc<FakeWorker> {
    FakeWorker::new(Plan { name, seed, tasks: TASKS, stores: false, sealyard: true })
}

/// The alerts, once they are so.
async fn alerts(world: &World, holds: impl Fn(&[AlertView]) -> bool) -> Vec<AlertView> {
    let wait = async {
        loop {
            let alerts = world.api.overview().await.expect("an overview").alerts;
            if holds(&alerts) {
                return alerts;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("they come in time")
}

/// A worker with PreCommit1 of these sectors, of which it fails each.
async fn fails(world: &World, bad: &FakeWorker, taken: &[Taken]) {
    for taken in taken {
        bad.fail_as(taken, FailureClass::Environment).await;
        let number = taken.call.sector.number.get();
        world.sector(number, |sector| sector.state == "SealPreCommit1Failed").await;
    }
}

async fn three_held(world: &World, bad: &FakeWorker) -> Vec<Taken> {
    let mut taken = Vec::new();
    for _ in 0..3 {
        bad.script("PC1", Behaviour::Hold);
        world.api.pledge_sector().await.expect("a pledge");
        taken.push(bad.call_of("PC1").await);
    }
    taken
}

#[tokio::test]
async fn every_sector_is_sealed_elsewhere_and_the_broken_worker_is_an_alert() {
    let world = world().await;
    let tasks = &[TaskType::PreCommit1, TaskType::Fetch];
    let good = FakeWorker::new(Plan { name: "good", seed: 2, tasks, stores: false, sealyard: true });
    let bad = worker("bad", 1);
    world.join(&bad).await;
    let taken = three_held(&world, &bad).await;
    world.join(&good).await;
    assert_eq!(alerts(&world, |_| true).await, []);
    fails(&world, &bad, &taken).await;
    let found = alerts(&world, |alerts| !alerts.is_empty()).await;
    assert_eq!((found[0].system.as_str(), found[0].subject.as_str()), ("workers", "bad"), "{found:?}");
    assert!(found[0].text.starts_with("failed PC1 of 3 different sectors in a row"), "{found:?}");

    // What it needs lies with the worker that fails, so that would be the first choice for one that never failed.
    let fresh = world.api.pledge_sector().await.expect("a pledge").number.get();
    let detail = world.sector(fresh, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&detail, "AP"), [("done".to_owned(), "bad".to_owned())]);
    assert_eq!(attempts(&detail, "PC1"), [("done".to_owned(), "good".to_owned())]);
    for taken in &taken {
        let number = taken.call.sector.number;
        world.api.retry_sector(number.into()).await.expect("tried again");
        let detail = world.sector(number.get(), |sector| sector.state == "PreCommit2").await;
        let by = [("failed".to_owned(), "bad".to_owned()), ("done".to_owned(), "good".to_owned())];
        assert_eq!(attempts(&detail, "PC1"), by);
    }

    // Better a worker that may be broken than none.
    good.tell_session(WorkerId::CLOSED);
    let gone = async {
        while world.api.worker_stats().await.expect("stats").len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("it is gone in time");
    let last = world.api.pledge_sector().await.expect("a pledge").number.get();
    let detail = world.sector(last, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&detail, "PC1"), [("done".to_owned(), "bad".to_owned())]);
    assert_eq!(alerts(&world, <[AlertView]>::is_empty).await, [], "it went well");
}

#[tokio::test]
async fn a_sector_that_fails_again_and_again_says_nothing_of_its_worker() {
    let world = world().await;
    let (bad, good) = (worker("bad", 1), worker("good", 2));
    world.join(&bad).await;
    bad.script("PC1", Behaviour::Hold);
    world.api.pledge_sector().await.expect("a pledge");
    let mut taken = bad.call_of("PC1").await;
    for _ in 0..3 {
        bad.script("PC1", Behaviour::Hold);
        fails(&world, &bad, &[taken]).await;
        world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried again");
        taken = bad.call_of("PC1").await;
    }
    world.join(&good).await;
    assert_eq!(alerts(&world, |_| true).await, []);
}
