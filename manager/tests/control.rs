//! What operators allow and order: modes, limits, priorities, and aborts on workers that cannot be told to stop. All of it
//! holds at once and after a restart.

mod world;

use std::sync::Arc;

use rpc::operator::{AbortOutcome, CapsTarget, WorkerMode};
use rpc::subject::Subject;
use sealtasks::{AttemptId, FileTypes, SectorId, SectorNumber, TaskId, TaskType};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{LIMIT, World, attempts, world};

const FIRST_HALF: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];
const FAILED: &str = "SealPreCommit1Failed";
const ONE: SectorNumber = SectorNumber::new(1);
const SECTOR: SectorId = SectorId::new(1000, 1);
const BY: &str = "root@here";

fn worker(name: &'static str, seed: u64, sealyard: bool) -> Arc<FakeWorker> {
    FakeWorker::new(Plan { name, seed, tasks: FIRST_HALF, stores: false, sealyard })
}

fn by() -> String {
    BY.to_owned()
}

/// A world whose one worker is a Lotus, with PreCommit1 of sector 1 running there.
async fn running_on_lotus() -> (World, Arc<FakeWorker>, Taken) {
    let world = world().await;
    let a = worker("A", 1, false);
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("PC1").await;
    world
        .sector(1, |sector| {
            sector.tasks.iter().any(|row| row.state == "running" && row.task.short() == "PC1")
        })
        .await;
    (world, a, taken)
}

/// Waits until a job is in this state, and gives its reason.
async fn job(world: &World, attempt: AttemptId, state: &str) -> String {
    job_because(world, attempt, state, "").await
}

/// The same, once the reason has this in it: a task that waits is told why by and by.
async fn job_because(world: &World, attempt: AttemptId, state: &str, part: &str) -> String {
    let ask = async {
        loop {
            let jobs = world.api.jobs().await.expect("jobs");
            let is_it = |job: &&rpc::extension::JobView| {
                job.attempt == attempt && job.state == state && job.reason.contains(part)
            };
            if let Some(job) = jobs.iter().find(is_it) {
                return job.reason.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(LIMIT, ask).await;
    match found {
        Ok(reason) => reason,
        Err(_) => {
            panic!("{attempt} is never {state} because of {part:?}: {:#?}", world.api.jobs().await)
        }
    }
}

#[tokio::test]
async fn a_disabled_worker_gets_nothing_even_after_a_restart_until_it_is_enabled() {
    let world = world().await;
    let a = worker("A", 1, true);
    world.join(&a).await;
    let rest = world.operator.set_worker_mode("A".into(), WorkerMode::Disabled, by()).await.expect("set");
    assert_eq!((rest.mode, rest.is_empty(), rest.name.as_str()), (WorkerMode::Disabled, true, "A"));
    world.api.pledge_sector().await.expect("a pledge");

    let world = world.restart().await;
    world.join(&a).await;
    let view = world.api.overview().await.expect("workers").workers.remove(0);
    assert_eq!(view.mode, WorkerMode::Disabled);
    assert_eq!(view.mode_set.map(|(by, _)| by).as_deref(), Some(BY));
    assert!(a.is_idle().await, "nothing was bound while it registered");
    let reason = world.api.jobs().await.expect("jobs").remove(0).reason;
    assert!(reason.contains("disabled"), "{reason}");

    world.operator.set_worker_mode(a.url(), WorkerMode::Open, by()).await.expect("set, by URL");
    a.call_of("AP").await;
}

#[tokio::test]
async fn what_was_set_for_a_worker_holds_at_its_next_address_too() {
    for sealyard in [true, false] {
        let world = world().await;
        let first = worker("A", 1, sealyard);
        world.join(&first).await;
        world.operator.set_worker_mode("A".into(), WorkerMode::Cordoned, by()).await.expect("set");
        let target = CapsTarget::Worker("A".into());
        let caps = vec!["PC1=2".parse().expect("a limit")];
        world.operator.change_caps(target, caps, by()).await.expect("set");
        first.set_silent(true);

        let world = world.restart().await;
        // The same repo; a Lotus worker has only its name.
        let next = worker("A", 101, sealyard);
        world.join(&next).await;
        assert_ne!(next.url(), first.url());
        let view = world.api.overview().await.expect("workers").workers.remove(0);
        assert_eq!((view.mode, view.limits.get("PC1")), (WorkerMode::Cordoned, Some(&2)), "{view:?}");
        let (set_by, _) = view.mode_set.expect("somebody set it");
        assert!(set_by.starts_with(BY) && set_by.contains(&first.url()) != sealyard, "{set_by}");
        // Another repo, of another name or connected beside it, is another worker.
        for other in [worker("B", 102, sealyard), worker("A", 103, true)] {
            world.join(&other).await;
            let views = world.api.overview().await.expect("workers").workers;
            let view = views.iter().find(|view| view.url == other.url()).expect("it is here");
            assert_eq!((view.mode, view.limits.get("PC1")), (WorkerMode::Open, None), "{view:?}");
        }
        // Once it is opened, it stays so wherever it goes.
        world.operator.set_worker_mode(next.url(), WorkerMode::Open, by()).await.expect("set");
        let world = world.restart().await;
        world.join(&worker("A", 201, sealyard)).await;
        let view = world.api.overview().await.expect("workers").workers.remove(0);
        assert_eq!((view.mode, view.limits.get("PC1")), (WorkerMode::Open, Some(&2)), "{view:?}");
    }
}

#[tokio::test]
async fn a_worker_that_nobody_has_is_named_with_those_that_are_there() {
    let world = world().await;
    let (a, b, twin) = (worker("A", 1, true), worker("B", 2, true), worker("B", 3, true));
    for worker in [&a, &b, &twin] {
        world.join(worker).await;
    }
    let error = world.operator.worker_rest("C".into()).await.expect_err("nobody").to_string();
    assert!(error.contains("no worker \"C\"") && error.contains("known workers: A, B"), "{error}");
    let error = world.operator.worker_rest("B".into()).await.expect_err("two").to_string();
    assert!(
        error.contains("several workers") && error.contains(&b.url()) && error.contains(&twin.url()),
        "{error}"
    );
    let url = twin.url();
    // As `worker list` shows it, too.
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an address");
    for said in [&*url, host] {
        assert_eq!(world.operator.worker_rest(said.to_owned()).await.expect("one").url, url);
    }
    world.operator.worker_rest(String::new()).await.expect_err("nobody is meant");
}

#[tokio::test]
async fn limits_hold_at_once_and_after_a_restart() {
    let world = world().await;
    let a = worker("A", 1, true);
    world.join(&a).await;
    let target = || CapsTarget::Worker("A".into());
    let specs = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a limit")).collect::<Vec<_>>();
    let view = world.operator.change_caps(target(), specs(&["PC1=0", "AP+PC1=7"]), by()).await.expect("set");
    let told: Vec<_> =
        view.caps.iter().map(|cap| (cap.group.to_string(), cap.most, cap.origin.as_str())).collect();
    assert_eq!(told, [("AP+PC1".to_owned(), Some(7), "operator"), ("PC1".to_owned(), Some(0), "operator")]);
    world.api.pledge_sector().await.expect("a pledge");
    a.call_of("AP").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.task.short() == "PC1")).await;

    let world = world.restart().await;
    world.join(&a).await;
    a.declare(SECTOR, FileTypes::UNSEALED).await;
    let view = world.api.overview().await.expect("workers").workers.remove(0);
    assert_eq!(view.limits["PC1"], 0);
    assert!(a.is_idle().await, "no PC1 was started");
    world.operator.change_caps(target(), specs(&["PC1=default"]), by()).await.expect("set");
    a.call_of("PC1").await;
}

#[tokio::test]
async fn a_priority_is_the_sector_s_until_a_task_has_its_own() {
    let world = world().await;
    world.api.pledge_sector().await.expect("a pledge");
    let of = |what: &str| what.parse::<Subject>().expect("a name");
    let view = world.operator.set_priority(of("1"), 7, by()).await.expect("set");
    assert_eq!((view.before, view.priority, view.tasks), (0, 7, 1));
    assert_eq!(world.api.jobs().await.expect("jobs")[0].priority, 7);
    let task = world.api.jobs().await.expect("jobs")[0].attempt.task;
    let view = world.operator.set_priority(Subject::Task(task), -3, by()).await.expect("set");
    assert_eq!((view.before, view.priority), (7, -3));

    let world = world.restart().await;
    assert_eq!(world.api.jobs().await.expect("jobs")[0].priority, -3);
    let diag = world.api.sched_diag(false).await.expect("the scheduler's state");
    assert_eq!(diag["SchedInfo"]["Requests"][0]["Priority"], -3, "{diag}");
    let a = worker("A", 1, true);
    world.join(&a).await;
    a.call_of("PC1").await;
    let jobs = world.api.jobs().await.expect("jobs");
    let priorities: Vec<_> = jobs.iter().map(|job| (job.task.short(), job.priority)).collect();
    assert_eq!(priorities[..2], [("AP", -3), ("PC1", 7)], "its next task has the sector's");
    let log = world.sector(1, |_| true).await.log;
    assert!(log.iter().any(|(_, kind, text)| kind == "sector_priority_set" && text.contains(BY)), "{log:?}");
    let error = world.operator.set_priority(of("9"), 1, by()).await.expect_err("no such").to_string();
    assert!(error.contains("no sector 9"), "{error}");
}

#[tokio::test]
async fn an_abort_on_a_lotus_worker_keeps_everything_charged_until_it_returns() {
    let (world, a, taken) = running_on_lotus().await;
    let view = world.operator.abort(Subject::Number(ONE), by()).await.expect("aborted");
    assert_eq!((view.outcome, view.worker.as_deref()), (AbortOutcome::Detached, Some("A")));
    world.sector(1, |sector| sector.state == FAILED).await;
    let reason = job(&world, view.attempt, "detached").await;
    assert!(reason.contains("Lotus worker A cannot be told to stop"), "{reason}");
    let charged = |world: &World| {
        let api = world.api.clone();
        async move { api.worker_stats().await.expect("stats").into_values().any(|stats| stats.mem_used_min > 0) }
    };
    assert!(charged(&world).await, "its memory is still in use");
    let left = world.operator.worker_rest("A".into()).await.expect("what is left").tasks;
    assert_eq!(left.iter().map(|task| task.attempt).collect::<Vec<_>>(), [view.attempt]);

    world.api.retry_sector(ONE.into()).await.expect("tried again");
    let next = AttemptId { task: TaskId::new(view.attempt.task.get() + 1), attempt: 1 };
    job_because(&world, next, "queued", "locked by PC1 of sector 1").await;
    let again = world.operator.abort(Subject::Attempt(view.attempt), by()).await.expect("aborted again");
    assert_eq!(again.outcome, AbortOutcome::Detached, "a worker that answers is waited for");
    assert!(a.is_idle().await);

    a.finish(&taken).await;
    let second = a.call_of("PC1").await;
    assert_ne!(second.call, taken.call);
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    let states: Vec<_> = attempts(&detail, "PC1").into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, ["failed", "done"], "the result of the first was not taken");
    assert!(!charged(&world).await);
}

#[tokio::test]
async fn a_registration_proves_that_a_lotus_worker_is_quiet_also_to_a_restarted_manager() {
    let (world, a, _) = running_on_lotus().await;
    let view = world.operator.abort(Subject::Number(ONE), by()).await.expect("aborted");
    let world = world.restart().await;
    job(&world, view.attempt, "detached").await;
    world.api.retry_sector(ONE.into()).await.expect("tried again");
    let next = AttemptId { task: TaskId::new(view.attempt.task.get() + 1), attempt: 1 };
    // Another worker has room for it, but the first may still write.
    let b = worker("B", 2, true);
    world.join(&b).await;
    job_because(&world, next, "queued", "may still run on the Lotus worker A").await;
    assert!(b.is_idle().await);
    a.forget();
    world.join(&a).await;
    a.declare(SECTOR, FileTypes::UNSEALED).await;
    world.sector(1, |sector| sector.state == "PreCommit2").await;
}

#[tokio::test]
async fn a_lotus_worker_that_was_dialled_proves_by_its_own_registration_that_a_call_is_over() {
    let (world, a, _) = running_on_lotus().await;
    let world = world.restart().await;
    let dialled = async {
        while world.api.overview().await.expect("an overview").workers.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, dialled).await.expect("it is dialled");
    // Another manager has taken the result, and this one's state is older.
    a.forget();
    world.join(&a).await;
    a.declare(SECTOR, FileTypes::UNSEALED).await;
    world.sector(1, |sector| sector.state == "PreCommit2").await;
}

#[tokio::test]
async fn a_successor_of_a_lotus_worker_proves_it_too_and_a_silent_one_is_given_up_by_a_second_abort() {
    let (world, a, _) = running_on_lotus().await;
    let view = world.operator.abort(Subject::Number(ONE), by()).await.expect("aborted");
    let next_life =
        a.successor(Plan { name: "A", seed: 9, tasks: FIRST_HALF, stores: false, sealyard: false });
    world.join(&next_life).await;
    let reason = job(&world, view.attempt, "failed").await;
    assert!(reason.contains("registered since"), "{reason}");

    next_life.script("PC1", Behaviour::Hold);
    next_life.declare(SECTOR, FileTypes::UNSEALED).await;
    world.api.retry_sector(ONE.into()).await.expect("tried again");
    next_life.call_of("PC1").await;
    world.sector(1, |sector| attempts(sector, "PC1").iter().any(|(state, _)| state == "running")).await;
    let view = world.operator.abort(Subject::Number(ONE), by()).await.expect("aborted");
    assert_eq!(view.outcome, AbortOutcome::Detached);
    next_life.set_silent(true);
    until_suspect(&world).await;
    let again = world.operator.abort(Subject::Attempt(view.attempt), by()).await.expect("aborted again");
    assert_eq!(again.outcome, AbortOutcome::Fenced);
    job(&world, view.attempt, "failed").await;
}

#[tokio::test]
async fn an_abort_on_a_lotus_worker_that_has_not_come_back_to_a_restarted_manager_waits_for_it() {
    let (world, a, taken) = running_on_lotus().await;
    // Nor is it found where it was.
    a.set_silent(true);
    let world = world.restart().await;
    let view = world.operator.abort(Subject::Number(ONE), by()).await.expect("aborted");
    assert_eq!((view.outcome, view.worker.as_deref()), (AbortOutcome::Detached, Some("A")));
    world.sector(1, |sector| sector.state == FAILED).await;
    job(&world, view.attempt, "detached").await;
    world.api.retry_sector(ONE.into()).await.expect("tried again");
    // Another worker has room for it, but the first still writes.
    let b = worker("B", 2, true);
    world.join(&b).await;
    let next = AttemptId { task: TaskId::new(view.attempt.task.get() + 1), attempt: 1 };
    job_because(&world, next, "queued", "may still run on the Lotus worker A").await;
    assert!(b.is_idle().await);

    a.set_silent(false);
    a.serve(world.api.clone()).await;
    a.finish(&taken).await;
    let reason = job(&world, view.attempt, "failed").await;
    assert!(reason.contains("its worker has returned it since"), "{reason}");
    b.declare(SECTOR, FileTypes::UNSEALED).await;
    let second = b.call_of("PC1").await;
    assert_ne!(second.call, taken.call, "its result was not taken");

    // Of one that will never come back an operator can say so, by asking again.
    let (world, gone, _) = running_on_lotus().await;
    gone.set_silent(true);
    let world = world.restart().await;
    let view = world.operator.abort(Subject::Number(ONE), by()).await.expect("aborted");
    assert_eq!(view.outcome, AbortOutcome::Detached);
    let again = world.operator.abort(Subject::Attempt(view.attempt), by()).await.expect("aborted again");
    assert_eq!(again.outcome, AbortOutcome::Fenced);
    job(&world, view.attempt, "failed").await;
}

/// What a worker says of its memory in the listing that follows its registration.
#[tokio::test]
async fn what_a_worker_s_own_tasks_use_is_never_taken_for_other_programs_use() {
    let world = world().await;
    for (name, seed, sealyard, used) in [("A", 1, true, 0), ("L", 2, false, 48_u64 << 30)] {
        world.join(&worker(name, seed, sealyard)).await;
        let workers = world.api.overview().await.expect("workers").workers;
        let found = workers.iter().find(|view| view.name == name).expect("it is registered");
        assert_eq!(found.ram.1, used, "{name}: a Sealyard tells the two apart, a Lotus worker cannot");
    }
}

/// Waits until the last worker that registered has missed a heartbeat.
async fn until_suspect(world: &World) {
    let ask = async {
        while world.api.overview().await.expect("workers").workers.iter().all(|worker| worker.state == "live")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ask).await.expect("a heartbeat is missed in time");
}

#[tokio::test]
async fn an_abort_of_a_task_that_waits_or_that_a_sealyard_runs_says_so() {
    let world = world().await;
    world.api.pledge_sector().await.expect("a pledge");
    let view = world.operator.abort(Subject::Task(TaskId::new(1)), by()).await.expect("taken out");
    assert_eq!((view.outcome, view.worker), (AbortOutcome::LeftQueue, None));
    let a = worker("A", 1, true);
    a.script("AP", Behaviour::Hold);
    world.join(&a).await;
    world.api.retry_sector(ONE.into()).await.expect("tried again");
    let taken = a.call_of("AP").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
    let view = world.operator.abort(Subject::Call(taken.call), by()).await.expect("aborted");
    assert_eq!((view.outcome, view.worker.as_deref()), (AbortOutcome::Stopping, Some("A")));
    let log = world.sector(1, |sector| sector.state == "AddPieceFailed").await.log;
    assert!(log.iter().any(|(_, kind, text)| kind == "abort_asked" && text.contains(BY)), "{log:?}");
    assert!(!a.holds(&taken));
}

#[tokio::test]
async fn an_abort_that_no_worker_heard_of_holds_after_a_restart() {
    for by_lotus_s_method in [false, true] {
        let world = world().await;
        let a = worker("A", 1, true);
        a.script("PC1", Behaviour::Hold);
        a.ignore_aborts(true);
        world.join(&a).await;
        world.api.pledge_sector().await.expect("a pledge");
        let taken = a.call_of("PC1").await;
        world.sector(1, |sector| attempts(sector, "PC1").iter().any(|(state, _)| state == "running")).await;
        if by_lotus_s_method {
            world.api.sealing_abort(taken.call).await.expect("aborted");
        } else {
            let view = world.operator.abort(Subject::Number(ONE), by()).await.expect("aborted");
            assert_eq!(view.outcome, AbortOutcome::Stopping);
        }
        assert!(a.holds(&taken), "the worker goes on");

        let world = world.restart().await;
        a.ignore_aborts(false);
        world.join(&a).await;
        let detail = world.sector(1, |sector| sector.state == FAILED).await;
        assert_eq!(attempts(&detail, "PC1").len(), 1, "it is not tried again");
        assert!(!a.holds(&taken), "the worker was told again");
    }
}

#[tokio::test]
async fn a_worker_is_not_empty_while_a_sector_there_waits_to_be_tried_again() {
    let world = world().await;
    let a = worker("A", 1, true);
    a.script("PC1", Behaviour::Fail(1));
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    a.call_of("PC1").await;
    world.sector(1, |sector| sector.state == FAILED).await;
    let rest = world.operator.set_worker_mode("A".into(), WorkerMode::Draining, by()).await.expect("set");
    assert_eq!((rest.between_tasks, rest.is_empty(), rest.expected_end_ms), (1, false, None), "{rest:?}");
}

#[tokio::test]
async fn more_limits_than_are_kept_are_refused_and_nothing_is_set() {
    let world = world().await;
    let a = worker("A", 1, true);
    world.join(&a).await;
    let all = || TaskType::ALL.iter().map(|task| task.short());
    let pairs = all()
        .flat_map(|one| all().filter(move |other| one < *other).map(move |two| format!("{one}+{two}=1")));
    let specs: Vec<_> = pairs.take(65).map(|text| text.parse().expect("a limit")).collect();
    let target = || CapsTarget::Worker("A".into());
    let error = world.operator.change_caps(target(), specs.clone(), by()).await.expect_err("65").to_string();
    assert!(error.contains("65 limits") && error.contains("at most 64"), "{error}");
    let view = world.operator.change_caps(target(), Vec::new(), by()).await.expect("a look");
    assert_eq!(view.caps, []);
    let view = world.operator.change_caps(target(), specs[..64].to_vec(), by()).await.expect("64");
    assert_eq!(view.caps.len(), 64);
}
