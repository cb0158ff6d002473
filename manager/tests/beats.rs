//! Heartbeats between Sealyards: one question of the manager has all that there is to tell.

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rpc::beat::Beat;
use sealtasks::{FsStat, HealthReport, StorageId};
use world::fake_worker::{FakeWorker, Plan};
use world::{ALL, LIMIT, World, world};

async fn joined(world: &World) -> Arc<FakeWorker> {
    let a = FakeWorker::new(Plan { name: "A", seed: 1, tasks: ALL, stores: false, sealyard: true });
    world.join(&a).await;
    a
}

/// Waits until one of the heartbeats that the worker has heard is like this.
async fn heard(worker: &FakeWorker, holds: impl Fn(&Beat) -> bool) -> Beat {
    let look = async {
        loop {
            let found = worker
                .pulse
                .heard
                .lock()
                .expect("no panic elsewhere")
                .iter()
                .find(|beat| holds(beat))
                .cloned();
            if let Some(found) = found {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, look).await.expect("such a heartbeat in time")
}

/// The heartbeat that is so many after those that it has heard by now.
async fn later(worker: &FakeWorker, count: usize) -> Beat {
    let heard = || worker.pulse.heard.lock().expect("no panic elsewhere");
    let last = heard().len() + count - 1;
    let look = async {
        loop {
            let known = heard().get(last).cloned();
            if let Some(known) = known {
                return known;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, look).await.expect("it goes on")
}

fn say(worker: &FakeWorker, path: &StorageId, error: Option<&str>) {
    let (room, error) = (1 << 40, error.map(str::to_owned));
    let stat = FsStat { capacity: room, available: room, fs_available: room, ..FsStat::default() };
    *worker.pulse.health.lock().expect("no panic elsewhere") =
        vec![(path.clone(), HealthReport { stat, error })];
}

#[tokio::test]
async fn one_question_tells_who_asks_and_is_answered_with_the_state_and_the_paths_health() {
    let world = world().await;
    let a = joined(&world).await;
    let session = world.api.session().await.expect("its session");
    heard(&a, |beat| beat.session == session && beat.unknown.is_empty()).await;
    let states = a.pulse.states.load(Ordering::Relaxed);
    say(&a, &a.sealing, Some("it has become read-only"));
    let storage = world.handle.storage_api();
    let broken = async {
        loop {
            let paths = storage.storage_paths().await.expect("paths");
            if paths.iter().any(|path| path.id == a.sealing.as_str() && !path.healthy) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, broken).await.expect("the path is known to be broken");
    later(&a, 3).await;
    assert_eq!(a.pulse.states.load(Ordering::Relaxed), states, "nothing else was asked");
}

#[tokio::test]
async fn a_path_that_the_index_does_not_know_is_named_in_the_next_heartbeat() {
    let world = world().await;
    let a = joined(&world).await;
    let stranger = StorageId::from(uuid::Uuid::from_u64_pair(77, 7));
    say(&a, &stranger, None);
    heard(&a, |beat| beat.unknown == [stranger.clone()]).await;
    say(&a, &a.sealing, None);
    assert_eq!(later(&a, 3).await.unknown, [], "each is named once for each time that it was told");
}
