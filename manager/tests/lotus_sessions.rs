//! What a Lotus worker's session means, asked at every heartbeat: none for a while, another one, the one of a worker that
//! closes; and what it may say of a path that is not attached.

mod world;

use std::sync::Arc;

use rpc::api::WorkerStats;
use sealtasks::{TaskType, WorkerId};
use uuid::Uuid;
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{LIMIT, World, attempts, world};

const TASKS: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];

async fn joined(world: &World) -> Arc<FakeWorker> {
    let worker = FakeWorker::new(Plan { name: "L", seed: 1, tasks: TASKS, stores: false, sealyard: false });
    world.join(&worker).await;
    worker
}

/// Waits until Lotus's `WorkerStats` has it of the only worker.
async fn told(world: &World, what: &str, holds: impl Fn(Option<&WorkerStats>) -> bool) {
    let ask = async {
        while !holds(world.api.worker_stats().await.expect("stats").values().next()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ask).await.unwrap_or_else(|_| panic!("{what} never came"));
}

#[tokio::test]
async fn one_that_does_not_answer_is_disabled_until_it_does() {
    let world = world().await;
    let worker = joined(&world).await;
    told(&world, "the worker", |stats| stats.is_some_and(|stats| stats.enabled)).await;
    worker.set_silent(true);
    told(&world, "the silence", |stats| stats.is_some_and(|stats| !stats.enabled)).await;
    world.api.pledge_sector().await.expect("a pledge");
    let jobs = world.api.jobs().await.expect("jobs");
    assert!(worker.is_idle().await && jobs.iter().all(|job| job.worker.is_none()), "{jobs:#?}");

    worker.set_silent(false);
    assert!(
        matches!(worker.next_call().await.work.task_type(), Some(TaskType::AddPiece)),
        "it is given work again"
    );
    told(&world, "its return", |stats| stats.is_some_and(|stats| stats.enabled)).await;
}

#[tokio::test]
async fn one_with_another_session_is_dropped_and_may_join_anew() {
    let world = world().await;
    let worker = joined(&world).await;
    worker.tell_session(WorkerId(Uuid::from_u128(7)));
    told(&world, "its end", |stats| stats.is_none()).await;
    world.api.worker_connect(worker.url()).await.expect("it joins anew");
    let known: Vec<WorkerId> = world.api.worker_stats().await.expect("stats").into_keys().collect();
    assert_eq!(known, [WorkerId(Uuid::from_u128(7))]);
}

#[tokio::test]
async fn one_that_closes_is_dropped_and_refused() {
    let world = world().await;
    let worker = joined(&world).await;
    worker.tell_session(WorkerId::CLOSED);
    told(&world, "its end", |stats| stats.is_none()).await;
    let refused = world.api.worker_connect(worker.url()).await.expect_err("it closes").to_string();
    assert!(refused.contains("clos"), "{refused}");
}

/// As when it was started again at another port: what it was just about to be given is not waited for at the old one.
#[tokio::test]
async fn a_call_that_nobody_listened_to_becomes_a_new_attempt() {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "L", seed: 1, tasks: TASKS, stores: false, sealyard: false });
    worker.script("PC1", Behaviour::Gone);
    world.join(&worker).await;
    world.api.pledge_sector().await.expect("a pledge");
    let detail = world.sector(1, |sector| sector.state == "PreCommit2").await;
    let states: Vec<String> = attempts(&detail, "PC1").into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, ["failed", "done"]);
}

/// A call of which nobody knows whether the worker took it: were the worker given more to do it would never be quiet, and
/// that alone shows that it did not take it. The other worker is the measure of how soon one is dialled.
#[tokio::test]
async fn one_that_may_hold_an_unknown_call_is_dialled_only_when_that_has_returned() {
    let world = world().await;
    let plan = |name, seed, tasks| Plan { name, seed, tasks, stores: false, sealyard: false };
    let unclear = FakeWorker::new(plan("unclear", 1, TASKS));
    let clear = FakeWorker::new(plan("clear", 2, &[TaskType::PreCommit2, TaskType::Fetch]));
    for behaviour in [Behaviour::Work, Behaviour::Hold, Behaviour::LoseBoth] {
        unclear.script("PC1", behaviour);
    }
    clear.script("PC2", Behaviour::Hold);
    for worker in [&clear, &unclear] {
        world.join(worker).await;
    }
    for _ in 0..3 {
        world.api.pledge_sector().await.expect("a pledge");
    }
    unclear.call_of("PC1").await;
    let (known, lost) = (unclear.call_of("PC1").await, unclear.call_of("PC1").await);
    for held in [clear.call_of("PC2").await, known.clone()] {
        let number = held.call.sector.number.get();
        world.sector(number, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
    }

    let world = world.restart().await;
    for worker in [&clear, &unclear] {
        worker.serve(world.api.clone()).await;
    }
    let listed = async |name: &str| {
        let stats = world.api.worker_stats().await.expect("stats");
        stats.into_values().any(|stats| stats.info.hostname == name)
    };
    let comes = async |name: &str| {
        let ask = async {
            while !listed(name).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, ask).await.unwrap_or_else(|_| panic!("{name} is not dialled"));
    };
    comes("clear").await;
    assert!(!listed("unclear").await, "nobody knows what it holds");
    unclear.finish(&lost).await;
    comes("unclear").await;
    unclear.finish(&known).await;
    for taken in [lost, known] {
        let number = taken.call.sector.number.get();
        let detail = world.sector(number, |sector| sector.state == "PreCommit2").await;
        assert_eq!(attempts(&detail, "PC1"), [("done".to_owned(), "unclear".to_owned())]);
    }
}

/// The files were fetched and the task called, and the manager ended before it heard of either answer to the latter.
#[tokio::test]
async fn what_one_returns_of_a_task_called_just_before_a_restart_is_taken() {
    let world = world().await;
    joined(&world).await;
    let tasks = &[TaskType::PreCommit2, TaskType::Fetch];
    let worker = FakeWorker::new(Plan { name: "M", seed: 2, tasks, stores: false, sealyard: false });
    worker.script("PC2", Behaviour::LoseBoth);
    world.join(&worker).await;
    world.api.pledge_sector().await.expect("a pledge");
    let lost = worker.call_of("PC2").await;
    let world = world.restart().await;
    worker.serve(world.api.clone()).await;
    worker.finish(&lost).await;
    let detail = world.sector(1, |sector| sector.state != "PreCommit2").await;
    assert_eq!(attempts(&detail, "PC2"), [("done".to_owned(), "M".to_owned())]);
}

#[tokio::test]
async fn of_several_urls_one_that_is_not_there_is_detached_without_an_error_as_in_lotus() {
    let world = world().await;
    let id = sealtasks::StorageId::from(Uuid::from_u128(9));
    let url = |port: u16| format!("http://127.0.0.1:{port}/remote");
    let stanza = sealtasks::StorageStanza { weight: 10, can_seal: true, ..Default::default() };
    let info = sealtasks::StorageInfo { id: id.clone(), urls: vec![url(9), url(10)], stanza };
    world.api.storage_attach(info, sealtasks::FsStat::default()).await.expect("attached");
    world.api.storage_detach(id.clone(), url(11)).await.expect("it is not there");
    assert_eq!(world.api.storage_info(id.clone()).await.expect("known").urls, [url(9), url(10)]);
    world.api.storage_detach(id.clone(), url(9)).await.expect("one of two");
    world.api.storage_detach(id, url(9)).await.expect_err("the only one is another");
}

#[tokio::test]
async fn dropping_files_of_a_path_that_is_not_attached_is_no_error_as_in_lotus() {
    let world = world().await;
    let (path, sector) = (sealtasks::StorageId::from(Uuid::from_u128(9)), sealtasks::SectorId::new(1000, 1));
    let types = sealtasks::FileTypes::SEALED;
    world.api.storage_drop(path.clone(), sector, types).await.expect("it is not there");
    let refused =
        world.api.storage_declare(path, sector, types, true).await.expect_err("nobody could find it");
    assert!(refused.to_string().contains("sector store not found"), "{refused}");
}
