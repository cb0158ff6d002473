//! The operator's doors: ending what a worker holds, whether it answers or not, and trying a failed sector again.

mod world;

use std::sync::Arc;

use manager::state::{StateEvent, TaskOutcome};
use rpc::storage::PathHost;
use sealtasks::{AttemptId, FileTypes, PathOrder, SectorNumber, StorageStanza, TaskId, TaskType};
use stores::{StorageMeta, init_path};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{LIMIT, World, attempts, world};

const FIRST_HALF: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];
const FAILED: &str = "SealPreCommit1Failed";
const ONE: SectorNumber = SectorNumber::new(1);

/// A world with one worker, in which PreCommit1 of sector 1 behaves like this.
async fn pledged(behaviour: Behaviour) -> (World, Arc<FakeWorker>) {
    let world = world().await;
    let a = FakeWorker::new(Plan { name: "A", seed: 1, tasks: FIRST_HALF, stores: false, sealyard: true });
    a.script("PC1", behaviour);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    (world, a)
}

/// The same, with PreCommit1 running.
async fn running() -> (World, Arc<FakeWorker>, Taken, AttemptId) {
    let (world, a) = pledged(Behaviour::Hold).await;
    let taken = a.call_of("PC1").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
    let attempt = taken.attempt.expect("a Sealyard worker is told");
    (world, a, taken, attempt)
}

/// Waits until the jobs' reasons say this of the attempt.
async fn said_of(world: &World, attempt: AttemptId, needle: &str) -> String {
    let ask = async {
        loop {
            let jobs = world.api.jobs().await.expect("jobs");
            let job = jobs.into_iter().find(|job| job.attempt == attempt && job.reason.contains(needle));
            if let Some(job) = job {
                return job.reason;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ask).await.expect("the jobs say it in time")
}

/// Waits until the worker has stopped the call.
async fn stopped(a: &FakeWorker, taken: &Taken) {
    let wait = async {
        while a.holds(taken) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the worker was told to stop");
}

#[tokio::test]
async fn an_attempt_of_a_silent_worker_says_so_and_can_be_given_up_and_is_fenced_when_it_is_back() {
    let (world, a, taken, attempt) = running().await;
    a.set_silent(true);
    let reason = said_of(&world, attempt, "does not answer").await;
    assert!(reason.contains(&format!("sealyard sealing abort {attempt}")), "{reason}");
    assert!(reason.contains(&a.url()), "{reason}");

    world.api.abort_attempt(attempt).await.expect("aborted");
    world.sector(1, |sector| sector.state == FAILED).await;
    world.api.retry_sector(ONE.into()).await.expect("tried again");
    world.sector(1, |sector| attempts(sector, "PC1").len() == 2).await;

    a.set_silent(false);
    stopped(&a, &taken).await;
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    let states: Vec<_> = attempts(&detail, "PC1").into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, ["failed", "done"]);
    assert_eq!(detail.last_error, "", "what went well after all is no error any more");
}

#[tokio::test]
async fn an_attempt_whose_call_nobody_knows_can_be_given_up_and_is_not_called_again() {
    let (world, a) = pledged(Behaviour::LoseBoth).await;
    // The answer is lost, and so is the worker, before the call is repeated or while it is.
    let taken = a.call_of("PC1").await;
    a.set_silent(true);
    let attempt = taken.attempt.expect("a Sealyard worker is told");
    said_of(&world, attempt, "does not answer").await;
    world.api.abort_attempt(attempt).await.expect("aborted");
    world.sector(1, |sector| sector.state == FAILED).await;
    a.set_silent(false);
    stopped(&a, &taken).await;
    assert!(a.is_idle().await, "the call was not repeated");
    let error = world.api.abort_attempt(attempt).await.expect_err("it is over").to_string();
    assert!(error.contains(&format!("attempt {attempt} neither runs nor waits")), "{error}");
}

#[tokio::test]
async fn an_aborted_call_that_its_worker_loses_ends_with_the_operator_too() {
    let (world, a, taken, attempt) = running().await;
    a.ignore_aborts(true);
    world.api.abort_attempt(attempt).await.expect("aborted");
    a.fail(&taken, 101).await;
    let detail = world.sector(1, |sector| sector.state == FAILED).await;
    assert_eq!(attempts(&detail, "PC1").len(), 1, "nothing is tried again: {:?}", detail.tasks);
    assert!(detail.last_error.contains("sealyard sectors retry 1"), "{}", detail.last_error);
}

#[tokio::test]
async fn an_abort_that_a_worker_did_not_carry_out_can_be_repeated() {
    let (world, a, _, attempt) = running().await;
    a.ignore_aborts(true);
    world.api.abort_attempt(attempt).await.expect("aborted");
    a.set_silent(true);
    said_of(&world, attempt, "does not answer").await;
    world.api.abort_attempt(attempt).await.expect("aborted again");
    world.sector(1, |sector| sector.state == FAILED).await;
}

#[tokio::test]
async fn after_a_restart_an_attempt_says_that_its_worker_has_not_come_back() {
    let (world, _a, _, attempt) = running().await;
    let world = world.restart().await;
    said_of(&world, attempt, "has not come back since the manager started").await;
    world.api.abort_attempt(attempt).await.expect("aborted");
    world.sector(1, |sector| sector.state == FAILED).await;
}

#[tokio::test]
async fn a_waiting_task_is_taken_out_and_only_a_failed_sector_is_tried_again() {
    let world = world().await;
    world.api.pledge_sector().await.expect("a pledge");
    let error = world.api.retry_sector(ONE.into()).await.expect_err("it has not failed").to_string();
    assert!(error.contains("Packing") && error.contains("only a sector that failed"), "{error}");
    let missing = world.api.retry_sector(SectorNumber::new(9).into()).await.expect_err("no such").to_string();
    assert!(missing.contains("no sector 9"), "{missing}");

    let waiting = AttemptId { task: TaskId::new(1), attempt: 1 };
    world.api.abort_attempt(waiting).await.expect("taken out");
    world.sector(1, |sector| sector.state == "AddPieceFailed").await;
    world.api.retry_sector(ONE.into()).await.expect("tried again");
    let detail = world.sector(1, |sector| sector.state == "Packing").await;
    assert_eq!(detail.tasks.iter().filter(|row| row.state == "queued").count(), 1, "{:?}", detail.tasks);
}

/// A worker goes on moving while the manager is away: nothing else is begun with the sector before that is done.
#[tokio::test]
async fn a_sector_that_is_being_moved_is_held_over_a_restart_until_its_move_is_finished() {
    let world = world().await;
    let sector = world.api.pledge_sector().await.expect("a pledge");
    let detail = world.sector(1, |sector| !sector.tasks.is_empty()).await;
    let task = detail.tasks[0].attempt.task;
    let path = |name: &str| {
        let dir = world.dir.path().join(name);
        let stanza = StorageStanza { weight: 1, can_seal: true, can_store: true, ..StorageStanza::default() };
        init_path(&dir, &StorageMeta::new(&name.parse().expect("an id"), &stanza)).expect("made");
        dir
    };
    let (from, to) = (path("from"), path("to"));
    let ended = TaskOutcome::Cancelled;
    let world = world
        .restart_after(vec![
            StateEvent::TaskEnded { task, outcome: ended, reason: "as if it had been done".to_owned() },
            StateEvent::SectorHeld { sector, types: FileTypes::UNSEALED, to: "to".parse().expect("an id") },
        ])
        .await;

    let storage = world.handle.storage_api();
    let again =
        storage.move_sector(sector.number.into(), FileTypes::NONE, "to".parse().expect("an id")).await;
    assert!(again.expect_err("it is held").to_string().contains("MGR080"));
    let rows = world.handle.state().tasks_of(sector).await.expect("rows");
    assert!(rows.iter().all(|row| row.ended_ms > 0), "{rows:?}");
    assert_eq!(world.handle.state().holds().await.expect("holds").len(), 1);

    std::fs::create_dir_all(from.join("unsealed")).expect("made");
    std::fs::write(from.join("unsealed/s-t01000-1"), vec![7; 2048]).expect("written");
    for dir in [from.clone(), to.clone()] {
        let order = PathOrder::Attach { dir, new: None };
        storage.path_order(PathHost::Manager, order).await.expect("attached");
    }
    // It goes on by itself: the move is done, and only then is its next task queued.
    world.sector(1, |sector| sector.tasks.iter().any(|task| task.ended_ms == 0)).await;
    assert!(to.join("unsealed/s-t01000-1").exists() && !from.join("unsealed/s-t01000-1").exists());
    assert!(world.handle.state().holds().await.expect("holds").is_empty());
    let log = world.handle.state().log_of(sector).await.expect("a log");
    assert_eq!(log.iter().filter(|row| row.text == "s-t01000-1 was moved").count(), 1, "{log:?}");
}
