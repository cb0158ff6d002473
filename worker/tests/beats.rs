//! The manager's heartbeats take the place of what the worker would ask and report by itself.

mod scripted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc::WorkerApi as _;
use rpc::beat::{Beat, Beaten};
use scripted::{PATIENCE, World, until};
use tokio::sync::watch;
use uuid::Uuid;
use worker::{RegistrationOptions, Status, StatusSink, WorkerHandle};

const ADDRESS: &str = "http://10.0.0.7:3456/rpc/v0";

/// Whose own heartbeats have this period.
fn world(heartbeat: Duration) -> World {
    let mut world = World::new();
    world.periods.heartbeat = heartbeat;
    world
}

/// A worker that has said everything that there is to say after it has joined.
async fn joined(world: &World) -> WorkerHandle {
    joined_and_told(world, Arc::new(|_| ())).await
}

async fn joined_and_told(world: &World, status: StatusSink) -> WorkerHandle {
    let worker = world.start().await;
    let options = RegistrationOptions { manager: "http://manager".into(), address: ADDRESS.into(), status };
    worker.register(options).await.unwrap();
    until(&world.manager.states, |states| states.last().map(drop)).await;
    worker
}

/// Of a manager that has had the answer with this number.
fn beat(world: &World, had: u64) -> Beat {
    Beat { session: *world.manager.session.lock().unwrap(), had, unknown: Vec::new() }
}

#[tokio::test]
async fn while_heartbeats_come_nothing_is_asked_or_reported_and_then_it_is_again() {
    let period = Duration::from_secs(2);
    let world = world(period);
    let worker = joined(&world).await;
    let (mut pace, mut had) = (tokio::time::interval(period / 20), 0);
    // Measured for them: so much was reported before.
    let begun = Instant::now();
    loop {
        pace.tick().await;
        let beaten = worker.beat(beat(&world, had)).await.unwrap();
        assert_eq!(beaten.state.session, worker.id());
        had = beaten.number;
        if !beaten.health.is_empty() {
            let paths: Vec<_> = beaten.health.iter().map(|(path, _)| path.clone()).collect();
            assert_eq!(paths, beaten.state.paths);
            assert!(
                beaten.health.iter().all(|(_, report)| report.error.is_none() && report.stat.capacity > 0)
            );
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no path's health comes");
    }
    let reports = || world.manager.healths.borrow().len();
    let (mut before, mut since, mut last, mut is_settled) = (reports(), Instant::now(), Instant::now(), true);
    while since.elapsed() < period * 3 {
        pace.tick().await;
        had = worker.beat(beat(&world, had)).await.unwrap().number;
        if last.elapsed() >= period {
            // This machine stood still, and the worker was right to report; it may be about to.
            (since, is_settled) = (Instant::now(), false);
            assert!(begun.elapsed() < PATIENCE, "never was there a heartbeat in each of three periods");
        }
        if !is_settled && since.elapsed() >= period {
            (before, is_settled) = (reports(), true);
        }
        last = Instant::now();
    }
    assert_eq!(reports(), before);
    until(&world.manager.healths, |healths| (healths.len() > before).then_some(())).await;
    worker.close().await;
}

/// Beats until an answer is like this.
async fn answered(world: &World, worker: &WorkerHandle, had: &mut u64, holds: impl Fn(&Beaten) -> bool) {
    let beats = async {
        loop {
            let beaten = worker.beat(beat(world, *had)).await.unwrap();
            *had = beaten.number;
            if holds(&beaten) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, beats).await.expect("such an answer in time");
}

#[tokio::test]
async fn a_manager_that_asks_is_asked_now_and_then_all_the_same() {
    // By its own heartbeats it would ask for nothing.
    let world = world(Duration::from_secs(3600));
    let worker = joined(&world).await;
    let told = world.manager.states.borrow().len();
    answered(&world, &worker, &mut 0, |_| world.manager.states.borrow().len() > told + 2).await;
    worker.close().await;
}

#[tokio::test]
async fn a_manager_that_does_not_answer_hears_of_no_usable_path() {
    let world = world(Duration::from_millis(20));
    let losses = Arc::new(watch::Sender::new(0));
    let count = Arc::clone(&losses);
    let lost = move |status| {
        if matches!(status, Status::Lost { .. }) {
            count.send_modify(|losses| *losses += 1);
        }
    };
    let worker = joined_and_told(&world, Arc::new(lost)).await;
    let mut had = 0;
    answered(&world, &worker, &mut had, |beaten| !beaten.health.is_empty()).await;
    world.manager.is_down(true);
    until(&losses, |losses| (*losses > 0).then_some(())).await;
    let last = had + 50;
    let all_empty = |beaten: &Beaten| {
        assert_eq!(beaten.health, [], "the manager cannot be reached");
        beaten.number >= last
    };
    answered(&world, &worker, &mut had, all_empty).await;
    world.manager.is_down(false);
    answered(&world, &worker, &mut had, |beaten| !beaten.health.is_empty()).await;
    worker.close().await;
}

#[tokio::test]
async fn a_heartbeat_of_another_manager_process_has_it_joined_at_once() {
    // It asks for nothing by itself.
    let world = world(Duration::from_secs(3600));
    let worker = joined(&world).await;
    // Whoever calls is not believed: the manager that it serves is asked, and told the state.
    let asked = *world.manager.contacts.borrow();
    worker.beat(Beat { session: Uuid::new_v4(), had: 0, unknown: Vec::new() }).await.unwrap();
    until(&world.manager.contacts, |contacts| (*contacts > asked).then_some(())).await;
    assert_eq!(world.manager.connects.borrow().len(), 1);
    world.manager.restart();
    worker.beat(beat(&world, 0)).await.unwrap();
    until(&world.manager.connects, |connects| (connects.len() == 2).then_some(())).await;
    worker.close().await;
}

#[tokio::test]
async fn paths_that_a_heartbeat_names_as_unknown_are_declared_again() {
    let world = world(Duration::from_millis(20));
    let worker = joined(&world).await;
    let path = worker.storage_local().await.unwrap().into_keys().next().unwrap();
    let before = *world.manager.attaches.borrow();
    worker.beat(Beat { unknown: vec![path], ..beat(&world, 0) }).await.unwrap();
    until(&world.manager.attaches, |attaches| (*attaches > before).then_some(())).await;
    worker.close().await;
}
