//! Workers that fall silent: live, suspect, lost, forgotten, each with its time; and what becomes of what they had.

mod world;

use std::sync::Arc;

use manager::state::StateEvent;
use rpc::extension::WorkerView;
use rpc::operator::CapsTarget;
use sealtasks::{
    FailureClass, FileTypes, RegisteredSealProof, SectorId, SectorNumber, SectorRef, SectorSize, TaskId,
    TaskType, WorkerId,
};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{ALL, LIMIT, World, attempts, world, world_with};

/// Lotus's word for a job whose files are there and that waits for its slot.
const PREPARED: i64 = 1;
const FIRST_HALF: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];
const REST: &[TaskType] =
    &[TaskType::PreCommit2, TaskType::Commit1, TaskType::Commit2, TaskType::Finalize, TaskType::Fetch];
fn worker(name: &'static str, seed: u64, tasks: &'static [TaskType], sealyard: bool) -> Arc<FakeWorker> {
    FakeWorker::new(Plan { name, seed, tasks, stores: true, sealyard })
}

/// A worker A with PreCommit1 of sector 1 under way.
async fn running(world: &World, sealyard: bool) -> (Arc<FakeWorker>, Taken) {
    let a = worker("A", 1, FIRST_HALF, sealyard);
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("PC1").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
    (a, taken)
}

/// Waits until the list of workers shows A so.
async fn shown(world: &World, holds: impl Fn(&WorkerView) -> bool) -> WorkerView {
    let ask = async {
        loop {
            let workers = world.api.overview().await.expect("an overview").workers;
            if let Some(found) = workers.into_iter().find(|view| view.name == "A" && holds(view)) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ask).await.expect("the list shows it in time")
}

async fn until(world: &World, holds: impl AsyncFn(&World) -> bool) {
    let ask = async {
        while !holds(world).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ask).await.expect("it comes in time");
}

fn next(view: &WorkerView) -> Option<&str> {
    view.next_state.as_ref().map(|(state, _)| state.as_str())
}

#[tokio::test]
async fn a_silent_worker_is_suspect_then_lost_and_keeps_what_it_has() {
    let world = world().await;
    let (a, taken) = running(&world, true).await;
    assert_eq!(shown(&world, |view| view.state == "live").await.next_state, None);
    a.set_silent(true);
    let suspect = shown(&world, |view| view.state == "suspect").await;
    assert_eq!(next(&suspect), Some("lost"));
    let lost = shown(&world, |view| view.state == "lost").await;
    assert_eq!(next(&lost), Some("forgotten"));
    assert!(lost.silent_ms > 0 && lost.next_state.is_some_and(|(_, left_ms)| left_ms <= 3_600_000));
    assert_eq!(lost.running.get("PC1"), Some(&1), "it stays charged");
    a.set_silent(false);
    let live = shown(&world, |view| view.state == "live").await;
    assert_eq!((live.silent_ms, live.next_state), (0, None));
    a.finish(&taken).await;
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&detail, "PC1"), [("done".to_owned(), "A".to_owned())]);
}

#[tokio::test]
async fn what_a_forgotten_worker_had_is_done_elsewhere_and_its_own_result_comes_too_late() {
    let world = world_with("[Scheduler]\nForgetLostAfter = \"300ms\"\n").await;
    let (a, taken) = running(&world, true).await;
    let first = taken.attempt.expect("a Sealyard worker is told");
    let b = worker("B", 2, ALL, true);
    b.script("PC1", Behaviour::Hold);
    world.join(&b).await;
    // Where A's files are nobody reaches now.
    b.declare(taken.call.sector, FileTypes::UNSEALED).await;
    a.set_silent(true);
    let forgotten = shown(&world, |view| view.state == "forgotten").await;
    assert!(forgotten.silent_ms > 0 && forgotten.next_state.is_none());
    let again = b.call_of("PC1").await;
    let second = again.attempt.expect("a Sealyard worker is told");
    assert_eq!((second.task, second.attempt), (first.task, first.attempt + 1));
    assert!(!world.api.attempt_open(first).await.expect("an answer"));
    assert!(world.api.attempt_open(second).await.expect("an answer"));

    a.set_silent(false);
    world.join(&a).await;
    shown(&world, |view| view.state == "live").await;
    let told = async {
        while a.holds(&taken) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("it is told to stop");
    a.finish(&taken).await;
    b.finish(&again).await;
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    let by = [("failed".to_owned(), "A".to_owned()), ("done".to_owned(), "B".to_owned())];
    assert_eq!(attempts(&detail, "PC1"), by);
    assert!(world.api.storage_get_locks().await.expect("locks").is_empty());
}

/// A second worker comes, and what the first one had is done there.
async fn done_by_b(world: &World, taken: &Taken) {
    let b = worker("B", 2, ALL, true);
    world.join(&b).await;
    b.declare(taken.call.sector, FileTypes::UNSEALED).await;
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    let by = [("failed".to_owned(), "A".to_owned()), ("done".to_owned(), "B".to_owned())];
    assert_eq!(attempts(&detail, "PC1"), by);
}

#[tokio::test]
async fn what_a_worker_had_that_never_came_back_to_a_restarted_manager_is_done_elsewhere() {
    let world = world_with("[Scheduler]\nForgetLostAfter = \"300ms\"\n").await;
    let (_a, taken) = running(&world, true).await;
    let world = world.restart().await;
    done_by_b(&world, &taken).await;
}

/// Its row is left of something that its sector no longer waits for, and is read first.
#[tokio::test]
async fn a_task_that_its_sector_does_not_wait_for_takes_nothing_from_the_one_that_it_does() {
    let world = world().await;
    let (a, taken) = running(&world, true).await;
    let sector =
        SectorRef { id: taken.call.sector, proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2) };
    let (task, step) = (TaskId::new(0), "UNS".to_owned());
    let stale = StateEvent::TaskSubmitted { task, sector, task_type: TaskType::Unseal, step };
    let world = world.restart_after(vec![stale]).await;
    let detail = world.sector(1, |sector| sector.tasks.iter().any(|row| row.ended_ms > 0)).await;
    assert_eq!(attempts(&detail, "UNS"), [("failed".to_owned(), String::new())]);
    world.join(&a).await;
    a.finish(&taken).await;
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&detail, "PC1"), [("done".to_owned(), "A".to_owned())]);
}

/// The sector now waits for another task than the one under way.
fn unwanted(db: &rusqlite::Connection) {
    let changed = db.execute("UPDATE task SET step = 'C1' WHERE step = 'PC1'", []).expect("an edit");
    assert_eq!(changed, 1);
}

#[tokio::test]
async fn what_a_worker_still_does_that_its_sector_does_not_wait_for_holds_the_sector_until_it_is_over() {
    let world = world().await;
    let (a, taken) = running(&world, true).await;
    a.ignore_aborts(true);
    let world = world.restart_on(unwanted).await;
    world.join(&a).await;
    a.declare(taken.call.sector, FileTypes::UNSEALED).await;
    let rows = |last: &str, by: &str| {
        [("detached", "A"), (last, by)].map(|(state, by)| (state.to_owned(), by.to_owned()))
    };
    world.sector(1, |sector| attempts(sector, "PC1") == rows("queued", "")).await;
    assert!(a.is_idle().await, "nothing is begun beside it");
    a.finish(&taken).await;
    let again = a.call_of("PC1").await;
    assert_ne!(again.attempt, taken.attempt);
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    let by = [("failed".to_owned(), "A".to_owned()), ("done".to_owned(), "A".to_owned())];
    assert_eq!(attempts(&detail, "PC1"), by);
}

#[tokio::test]
async fn what_its_sector_does_not_wait_for_holds_nothing_once_its_worker_is_forgotten() {
    let world = world_with("[Scheduler]\nForgetLostAfter = \"300ms\"\n").await;
    let (_a, taken) = running(&world, true).await;
    let world = world.restart_on(unwanted).await;
    done_by_b(&world, &taken).await;
}

/// A restarted manager does not know any more whether the call was the fetch before the work, or the work.
#[tokio::test]
async fn a_result_of_a_call_that_was_never_answered_is_taken_after_a_restart() {
    for sealyard in [false, true] {
        let world = world().await;
        let a = worker("A", 1, FIRST_HALF, sealyard);
        a.script("PC1", Behaviour::LoseBoth);
        world.join(&a).await;
        world.api.pledge_sector().await.expect("a pledge");
        let taken = a.call_of("PC1").await;
        a.set_silent(true);
        let world = world.restart().await;
        world.know(&a).await;
        a.finish(&taken).await;
        let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
        assert_eq!(attempts(&detail, "PC1"), [("done".to_owned(), "A".to_owned())]);
    }
}

/// One that is about to leave may be asked once more, says that it is nobody, and is back under its session.
#[tokio::test]
async fn what_was_staged_at_a_worker_that_was_gone_is_bound_anew_when_the_same_session_is_back() {
    let world = world().await;
    let (a, b) = (worker("A", 1, FIRST_HALF, true), worker("B", 2, REST, true));
    b.script("PC2", Behaviour::Hold);
    world.join(&a).await;
    world.join(&b).await;
    let one = vec!["PC2=1".parse().expect("a limit")];
    world
        .operator
        .change_caps(CapsTarget::Worker("B".into()), one, "root@here".to_owned())
        .await
        .expect("set");
    world.api.pledge_sector().await.expect("a pledge");
    let first = b.call_of("PC2").await;
    world.api.pledge_sector().await.expect("a pledge");
    b.call_of("GET").await;
    until(&world, async |world| {
        let jobs = world.api.worker_jobs().await.expect("jobs");
        jobs.values().flatten().any(|job| job.task == TaskType::PreCommit2 && job.run_wait == PREPARED)
    })
    .await;
    let mine = WorkerId(uuid::Uuid::from_u64_pair(2, 0));
    b.tell_session(WorkerId::CLOSED);
    until(&world, async |world| {
        let workers = world.api.overview().await.expect("an overview").workers;
        !workers.iter().any(|view| view.name == "B" && view.state == "live")
    })
    .await;
    b.tell_session(mine);
    world.join(&b).await;
    b.finish(&first).await;
    for number in [1, 2] {
        world.sector(number, |sector| sector.state == "Proving").await;
    }
}

/// It does not register anew when it is back, and cannot be told to stop.
#[tokio::test]
async fn a_lotus_worker_is_never_forgotten() {
    let world = world_with("[Scheduler]\nForgetLostAfter = \"1ms\"\n").await;
    let (a, taken) = running(&world, false).await;
    a.set_silent(true);
    let lost = shown(&world, |view| view.state == "lost").await;
    assert_eq!(lost.next_state, None);
    a.set_silent(false);
    shown(&world, |view| view.state == "live").await;
    a.finish(&taken).await;
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&detail, "PC1"), [("done".to_owned(), "A".to_owned())]);
}

/// Only proof that an input is bad sends a sector back; whatever else fails is done again where the sector stands.
#[tokio::test]
async fn a_worker_s_class_of_failure_decides_what_is_tried_again() {
    for (class, again) in [
        (FailureClass::Network, "PC2"),
        (FailureClass::Environment, "PC2"),
        (FailureClass::Space, "PC2"),
        (FailureClass::Compute, "PC2"),
        (FailureClass::BadData, "PC1"),
    ] {
        let world = world().await;
        let (a, b) = (worker("A", 1, FIRST_HALF, true), worker("B", 2, REST, true));
        b.script("PC2", Behaviour::Hold);
        world.join(&a).await;
        world.join(&b).await;
        world.api.pledge_sector().await.expect("a pledge");
        let taken = b.call_of("PC2").await;
        b.fail_as(&taken, class).await;
        world.sector(1, |sector| sector.state.ends_with("Failed")).await;
        world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried again");
        let detail = world.sector(1, |sector| sector.state == "Proving").await;
        let times = |task: &str| attempts(&detail, task).len();
        let expected = if again == "PC1" { (2, 2) } else { (1, 2) };
        assert_eq!((times("PC1"), times("PC2")), expected, "{class:?}: {:#?}", detail.tasks);
    }
}

/// A world whose sector 1 has failed for lack of a network: ten seconds later it is tried again.
async fn failed_once() -> (World, Arc<FakeWorker>) {
    let world = world().await;
    let all = FakeWorker::new(Plan { name: "W", seed: 5, tasks: ALL, stores: true, sealyard: true });
    all.script("PC1", Behaviour::Hold);
    world.join(&all).await;
    world.api.pledge_sector().await.expect("a pledge");
    all.fail_as(&all.call_of("PC1").await, FailureClass::Network).await;
    world.sector(1, |sector| sector.state == "SealPreCommit1Failed").await;
    (world, all)
}

#[tokio::test]
async fn what_failed_is_tried_again_by_itself() {
    let (world, _all) = failed_once().await;
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn what_failed_is_tried_again_by_a_restarted_manager() {
    let (world, all) = failed_once().await;
    let world = world.restart().await;
    world.join(&all).await;
    all.declare(SectorId::new(1000, 1), FileTypes::UNSEALED).await;
    world.sector(1, |sector| sector.state == "Proving").await;
}
