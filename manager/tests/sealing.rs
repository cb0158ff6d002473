//! A sector's way through the manager: two workers, every task, and what happens when workers misbehave.

mod world;

use manager::Repo;
use rpc::api::PledgeOptions;
use rpc::explain::WaitsFor;
use rpc::subject::Subject;
use rpc::{ReturnMethod, Returned};
use sealtasks::{
    AcquireMode, AttemptId, CallError, CallErrorCode, CallId, FileTypes, PathType, SectorId, SectorNumber,
    SectorSize, TaskGroup, TaskId, TaskInput, TaskType,
};
use uuid::Uuid;
use world::fake_worker::{Behaviour, FETCHED, FakeWorker, Plan};
use world::{ALL, LIMIT, attempts, world};

const FIRST_HALF: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];
const SECOND_HALF: &[TaskType] =
    &[TaskType::PreCommit2, TaskType::Commit1, TaskType::Commit2, TaskType::Finalize, TaskType::Fetch];
fn worker_a() -> std::sync::Arc<FakeWorker> {
    FakeWorker::new(Plan { name: "A", seed: 1, tasks: FIRST_HALF, stores: false, sealyard: true })
}

fn worker_b() -> std::sync::Arc<FakeWorker> {
    FakeWorker::new(Plan { name: "B", seed: 2, tasks: SECOND_HALF, stores: true, sealyard: true })
}

fn done(worker: &str) -> Vec<(String, String)> {
    vec![("done".to_owned(), worker.to_owned())]
}

#[tokio::test]
async fn a_pledged_sector_is_sealed_by_two_workers_with_its_files_fetched_between_them() {
    let world = world().await;
    let (a, b) = (worker_a(), worker_b());
    world.join(&a).await;
    world.join(&b).await;
    let sector = world.api.pledge_sector().await.expect("a pledge");
    assert_eq!(sector, SectorId::new(1000, 1));
    let detail = world.sector(1, |sector| sector.state == "Proving").await;

    for (task, worker) in
        [("AP", "A"), ("PC1", "A"), ("PC2", "B"), ("C1", "B"), ("C2", "B"), ("FIN", "B"), ("GET", "B")]
    {
        assert_eq!(attempts(&detail, task), done(worker), "{task}");
    }
    assert_eq!((detail.verified, detail.chain.as_str(), detail.proof_type), (Some(true), "offline", 5));
    assert_eq!(detail.proof, Some("03".repeat(192)));
    // B was told to take the replica over before it built the trees, and the bytes are the attempt's.
    let fetch = b.call_of("GET").await;
    let TaskInput::Fetch(input) = &fetch.work else { panic!("{fetch:?}") };
    assert_eq!(
        (input.types, input.path_type, input.mode),
        (FileTypes::SEALED | FileTypes::CACHE, PathType::Sealing, AcquireMode::Move)
    );
    let pc2 = b.call_of("PC2").await;
    assert_eq!(fetch.attempt, pc2.attempt);
    let bytes =
        |task: &str| detail.tasks.iter().find(|row| row.task.short() == task).expect("a task").bytes_fetched;
    assert_eq!((bytes("PC2"), bytes("C1")), (FETCHED, 0));
    // The unsealed file was permitted to go before it went, and the rest lies in B's storage.
    assert_eq!(*a.deleted.lock().expect("no panic elsewhere"), ["/remote/unsealed/s-t01000-1"]);
    assert!(
        detail.log.iter().any(|(_, kind, text)| kind == "delete_permitted" && text.contains("unsealed")),
        "{:?}",
        detail.log
    );
    let replica = FileTypes::SEALED | FileTypes::CACHE;
    let holders = world.api.storage_find(sector, replica, None).await.expect("found");
    assert_eq!(
        holders.iter().map(|holder| (holder.can_store, holder.primary)).collect::<Vec<_>>(),
        [(true, true)]
    );
    assert!(world.api.storage_get_locks().await.expect("locks").is_empty());
    for row in &detail.tasks {
        assert!(row.queued_ms <= row.started_ms && row.started_ms <= row.ended_ms, "{row:?}");
    }
}

#[tokio::test]
async fn two_sectors_do_not_share_numbers_and_a_stopped_one_rests_after_c1() {
    let world = world().await;
    let all = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&all).await;
    let stop = PledgeOptions { stop_after_c1: true, sector_size: None, miner: None };
    let first = world.api.pledge(stop).await.expect("a pledge");
    let second = world.api.pledge_sector().await.expect("a pledge");
    assert_eq!((first.number.get(), second.number.get()), (1, 2));
    let rests = world.sector(1, |sector| sector.stopped).await;
    assert_eq!((rests.state.as_str(), rests.verified, rests.proof.clone()), ("Committing", None, None));
    assert!(rests.c1_sha256.is_some() && attempts(&rests, "C2").is_empty());
    world.sector(2, |sector| sector.state == "Proving").await;
    let summary = world.api.sectors_summary().await.expect("a summary");
    assert_eq!(
        summary.into_iter().collect::<Vec<_>>(),
        [("Committing".to_owned(), 1), ("Proving".to_owned(), 1)]
    );
    // It stays so until it is told otherwise, also with a manager that was restarted.
    let world = world.restart().await;
    world.join(&all).await;
    all.declare(first, FileTypes::SEALED | FileTypes::CACHE).await;
    let why = world.api.why(Subject::Number(first.number)).await.expect("told");
    assert!(why.waits_for == WaitsFor::Stopped && why.change.contains("sectors retry 1"), "{why:?}");
    world.api.retry_sector(first.number.into()).await.expect("released");
    let done = world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!((done.verified, done.c1_sha256, done.stopped), (Some(true), rests.c1_sha256, false));
    let again = world.api.retry_sector(first.number.into()).await.expect_err("nothing to retry").to_string();
    assert!(again.contains("MGR027"), "{again}");
}

#[tokio::test]
async fn returns_before_the_reply_and_repeated_ones_count_once() {
    let world = world().await;
    let (a, b) = (worker_a(), worker_b());
    a.script("AP", Behaviour::ReturnFirst);
    a.script("PC1", Behaviour::ReturnTwice);
    b.script("PC2", Behaviour::ReturnTwice);
    world.join(&a).await;
    world.join(&b).await;
    world.api.pledge_sector().await.expect("a pledge");
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!((attempts(&detail, "AP"), attempts(&detail, "PC1")), (done("A"), done("A")));
    assert_eq!(attempts(&detail, "PC2"), done("B"));
}

#[tokio::test]
async fn a_lotus_worker_s_early_return_waits_for_the_reply_that_names_it() {
    let world = world().await;
    let lotus = FakeWorker::new(Plan { name: "L", seed: 4, tasks: ALL, stores: true, sealyard: false });
    lotus.script("AP", Behaviour::ReturnFirst);
    // The answer to the call is lost; the return is adopted by sector and method.
    lotus.script("PC1", Behaviour::LoseAnswer);
    world.join(&lotus).await;
    world.api.pledge_sector().await.expect("a pledge");
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!((attempts(&detail, "AP"), attempts(&detail, "PC1")), (done("L"), done("L")));
    let overview = world.api.overview().await.expect("an overview");
    assert_eq!((overview.workers[0].kind.as_str(), overview.miner.as_str()), ("lotus", "f01000"));
    assert!(lotus.next_call().await.attempt.is_none(), "a Lotus worker is told nothing of attempts");
}

#[tokio::test]
async fn a_late_return_of_another_attempt_is_not_taken_for_a_lotus_worker_s() {
    let world = world().await;
    let lotus = FakeWorker::new(Plan { name: "L", seed: 4, tasks: ALL, stores: true, sealyard: false });
    lotus.script("PC1", Behaviour::LoseBoth);
    world.join(&lotus).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = lotus.call_of("PC1").await;
    world
        .sector(1, |sector| sector.tasks.iter().any(|row| row.reason.contains("nobody knows whether")))
        .await;
    let late = CallId { sector: taken.call.sector, id: Uuid::from_u64_pair(9, 9) };
    let error = CallError { code: CallErrorCode::Unknown, message: "too late".into() };
    let returned = Returned {
        method: ReturnMethod::SealPreCommit1,
        result: Err(error),
        attempt: Some(AttemptId { task: TaskId::new(2), attempt: 7 }),
        account: None,
    };
    world.api.return_result(late, returned).await.expect("acknowledged");
    lotus.finish(&taken).await;
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!(attempts(&detail, "PC1"), done("L"));
}

#[tokio::test]
async fn a_lost_answer_of_a_sealyard_worker_is_asked_for_again_and_the_task_runs_once() {
    let world = world().await;
    let all = FakeWorker::new(Plan { name: "W", seed: 5, tasks: ALL, stores: true, sealyard: true });
    all.script("PC1", Behaviour::LoseBoth);
    world.join(&all).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = all.call_of("PC1").await;
    world
        .sector(1, |sector| {
            sector.tasks.iter().any(|row| row.task == TaskType::PreCommit1 && row.state == "running")
        })
        .await;
    all.finish(&taken).await;
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!(attempts(&detail, "PC1"), done("W"));
}

#[tokio::test]
async fn a_restarted_worker_s_call_and_a_refused_start_become_new_attempts() {
    let world = world().await;
    let (a, b) = (worker_a(), worker_b());
    a.script("PC1", Behaviour::Fail(101));
    b.script("C1", Behaviour::Refuse);
    b.script("C1", Behaviour::Refuse);
    world.join(&a).await;
    world.join(&b).await;
    world.api.pledge_sector().await.expect("a pledge");
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    let states = |task: &str| attempts(&detail, task).into_iter().map(|(state, _)| state).collect::<Vec<_>>();
    assert_eq!(states("PC1"), ["failed", "done"]);
    assert_eq!(states("C1"), ["failed", "failed", "done"]);
    let refused = detail.tasks.iter().find(|row| row.task == TaskType::Commit1).expect("a C1");
    assert!(refused.reason.contains("no room for this now"), "{refused:?}");
}

#[tokio::test]
async fn a_failed_task_leaves_the_sector_in_its_failed_state_with_the_worker_s_words() {
    let world = world().await;
    let a = worker_a();
    a.script("PC1", Behaviour::Fail(0));
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let detail = world.sector(1, |sector| sector.state == "SealPreCommit1Failed").await;
    assert_eq!(detail.last_error, "it failed [name: A]");
    assert_eq!(attempts(&detail, "PC1"), [("failed".to_owned(), "A".to_owned())]);
}

#[tokio::test]
async fn an_aborted_call_ends_with_the_operator() {
    let world = world().await;
    let a = worker_a();
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("PC1").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
    world.api.sealing_abort(taken.call).await.expect("aborted");
    let detail = world.sector(1, |sector| sector.state == "SealPreCommit1Failed").await;
    assert_eq!(detail.last_error, "task aborted; it waits for `sealyard sectors retry 1`");
    let error = world.api.sealing_abort(taken.call).await.expect_err("it runs no longer").to_string();
    assert!(error.contains(&taken.call.to_string()), "{error}");
}

#[tokio::test]
async fn a_running_call_survives_the_manager_and_is_not_made_twice() {
    let world = world().await;
    let a = worker_a();
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("PC1").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;

    let world = world.restart().await;
    world.join(&a).await;
    a.declare(taken.call.sector, FileTypes::UNSEALED).await;
    a.finish(&taken).await;
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&detail, "PC1"), done("A"));
    assert!(a.is_idle().await, "nothing was called again");
    let b = worker_b();
    world.join(&b).await;
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn what_a_worker_runs_counts_before_it_is_given_more_after_the_manager_s_restart() {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    *worker.tells.lock().expect("no panic elsewhere") = |state| {
        state.caps.set(TaskGroup::one(TaskType::Commit2), 1);
    };
    worker.script("C2", Behaviour::Hold);
    world.join(&worker).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = worker.call_of("C2").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
    world.api.pledge_sector().await.expect("a pledge");
    world.sector(2, |sector| sector.c1_sha256.is_some()).await;

    let world = world.restart().await;
    world.join(&worker).await;
    // Until it was placed or found no room nothing is told of it.
    let of_second = Subject::Number(SectorNumber::new(2));
    let considered = async {
        loop {
            let task = world.api.why(of_second).await.expect("told").task.expect("a task");
            let mut obstacles = task.workers.iter().flat_map(|worker| &worker.obstacles);
            if task.call.is_some() || obstacles.any(|one| one.facts["resource"] == "concurrency") {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, considered).await.expect("it is considered");
    let mut jobs = world.api.jobs().await.expect("jobs");
    jobs.retain(|job| job.task == TaskType::Commit2);
    let states: Vec<_> = jobs.iter().map(|job| (job.sector.number.get(), job.state.as_str())).collect();
    assert_eq!(states, [(1, "running"), (2, "queued")]);
    worker.finish(&taken).await;
    world.sector(2, |sector| attempts(sector, "C2") == done("W")).await;
}

#[tokio::test]
async fn a_task_waits_visibly_for_a_worker_and_again_after_a_refusal() {
    let world = world().await;
    world.api.pledge_sector().await.expect("a pledge");
    let jobs = world.api.jobs().await.expect("jobs");
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!((job.state.as_str(), job.task, job.worker.clone()), ("queued", TaskType::AddPiece, None));
    assert!(!job.reason.is_empty(), "it says why it waits");
    let request: uuid::Uuid = {
        let diagnosis = world.api.sched_diag(false).await.expect("a diagnosis");
        diagnosis["SchedInfo"]["Requests"][0]["SchedId"].as_str().expect("an id").parse().expect("a uuid")
    };
    let only_once = worker_a();
    only_once.script("AP", Behaviour::Refuse);
    only_once.script("AP", Behaviour::Hold);
    world.join(&only_once).await;
    only_once.call_of("AP").await;
    let detail = world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
    let states: Vec<_> = detail.tasks.iter().map(|row| (row.attempt.attempt, row.state.as_str())).collect();
    assert_eq!(states, [(1, "failed"), (2, "running")]);
    let workers = world.api.overview().await.expect("an overview").workers;
    let whose: Vec<_> = detail.tasks.iter().map(|row| row.session).collect();
    assert_eq!(whose, [Some(workers[0].session); 2], "a name may be another worker's, too");
    let error = world.api.sealing_remove_request(request).await.expect_err("it runs").to_string();
    assert!(error.contains("abort its call"), "{error}");
}

#[tokio::test]
async fn a_removed_request_leaves_its_sector_to_the_operator() {
    let world = world().await;
    world.api.pledge_sector().await.expect("a pledge");
    let diagnosis = world.api.sched_diag(false).await.expect("a diagnosis");
    let request =
        diagnosis["SchedInfo"]["Requests"][0]["SchedId"].as_str().expect("an id").parse().expect("a uuid");
    world.api.sealing_remove_request(request).await.expect("removed");
    let detail = world.sector(1, |sector| sector.state == "AddPieceFailed").await;
    assert_eq!(detail.last_error, "removed by the operator; it waits for `sealyard sectors retry 1`");
    world.api.sealing_remove_request(request).await.expect_err("it is gone");
}

#[tokio::test]
async fn a_call_that_its_worker_no_longer_holds_after_the_manager_s_restart_is_a_new_attempt() {
    let world = world().await;
    let a = worker_a();
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("PC1").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;

    let world = world.restart().await;
    a.forget();
    a.serve(world.api.clone()).await;
    a.declare(taken.call.sector, FileTypes::UNSEALED).await;
    world.join(&a).await;
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&detail, "PC1").len(), 2, "{:?}", detail.tasks);
    // The old attempt is fenced: its late result is acknowledged, and nothing comes of it.
    a.finish(&taken).await;
    let later = world.sector(1, |sector| sector.state == "PreCommit2").await;
    assert_eq!(attempts(&later, "PC1"), attempts(&detail, "PC1"));
}

#[tokio::test]
async fn what_a_restarted_worker_no_longer_holds_goes_to_its_next_life_at_once() {
    let world = world().await;
    let a = worker_a();
    a.script("AP", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    a.call_of("AP").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;

    let plan = Plan { name: "A", seed: 9, tasks: FIRST_HALF, stores: false, sealyard: true };
    let again = a.successor(plan);
    world.join(&again).await;
    let taken = again.call_of("AP").await;
    // The second attempt is the first one there: none was bound to the life that had just ended.
    assert_eq!(taken.attempt.map(|attempt| attempt.attempt), Some(2));
    world.sector(1, |sector| attempts(sector, "AP").last() == done("A").last()).await;
}

#[tokio::test]
async fn one_repo_has_one_manager_and_large_sectors_need_a_chain() {
    let world = world().await;
    let error = Repo::open(&world.dir.path().join("repo")).expect_err("it is in use").to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    for size in [SectorSize::GiB32, SectorSize::GiB64] {
        let options = PledgeOptions { stop_after_c1: false, sector_size: Some(size), miner: None };
        let error = world.api.pledge(options).await.expect_err("no chain").to_string();
        assert!(
            error.contains(&format!("{size} sectors need a chain")) && error.contains("FULLNODE_API_INFO"),
            "{error}"
        );
    }
    assert!(world.api.sectors_list().await.expect("a list").is_empty());
}
