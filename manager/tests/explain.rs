//! Why things are where they are, told by a running manager with fake workers.

mod world;

use rpc::api::PledgeOptions;
use rpc::explain::{Explanation, WaitsFor};
use sealtasks::TaskType;
use serde_json::json;
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, World, world};

fn worker(name: &'static str, seed: u64, tasks: &'static [TaskType]) -> std::sync::Arc<FakeWorker> {
    FakeWorker::new(Plan { name, seed, tasks, stores: true, sealyard: true })
}

async fn why(world: &World, what: &str) -> Explanation {
    world.api.why(what.parse().expect("a subject")).await.expect(what)
}

async fn pledge(world: &World) {
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
}

#[tokio::test]
async fn a_task_without_a_worker_says_which_would_take_it() {
    let world = world().await;
    pledge(&world).await;
    let alone = why(&world, "1").await;
    assert_eq!(alone.waits_for, WaitsFor::Worker);
    assert!(alone.summary.starts_with("AP of sector 1 (task"), "{}", alone.summary);
    assert!(alone.change.contains("no worker is connected") && alone.change.contains("join-command"));

    world.join(&worker("A", 1, &[TaskType::PreCommit1])).await;
    let unoffered = why(&world, "s-t01000-1").await;
    assert!(unoffered.change.contains("no worker offers AP") && unoffered.change.contains("--addpiece"));
    let task = unoffered.task.expect("a task");
    let [a] = task.workers.as_slice() else { panic!("{:?}", task.workers) };
    assert_eq!((a.name.as_str(), a.obstacles[0].facts["obstacle"].as_str()), ("A", Some("not_offered")));
    assert_eq!(a.obstacles[0].text, "does not offer AP");
    assert!(a.obstacles[0].change.contains("sealyard worker tasks enable AP"), "{:?}", a.obstacles);
    let named = format!("task:{}", task.task);
    assert_eq!(why(&world, &named).await.task.expect("the same").task, task.task);
    assert_eq!(why(&world, &task.attempt.to_string()).await.asked, task.attempt.to_string());
}

#[tokio::test]
async fn what_runs_what_is_over_and_what_rests_are_each_told() {
    let world = world().await;
    let a = worker("A", 1, ALL);
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    pledge(&world).await;
    let taken = a.call_of("PC1").await;
    let running = loop {
        let told = why(&world, "f01000/1").await;
        if told.task.as_ref().is_some_and(|task| task.call.is_some()) {
            break told;
        }
    };
    assert_eq!((running.waits_for, running.sector_state.as_str()), (WaitsFor::Running, "PreCommit1"));
    assert!(running.summary.contains("runs on A") && running.summary.contains("should end"));
    let task = running.task.expect("a task");
    assert_eq!((task.worker.as_deref(), task.workers.len()), (Some("A"), 0));
    let call = taken.call.to_string();
    assert_eq!(task.call.as_deref(), Some(call.as_str()));
    assert_eq!(why(&world, &call).await.task.expect("the same").attempt, task.attempt);

    world.api.abort_attempt(task.attempt).await.expect("told to end");
    world.sector(1, |sector| sector.state == "SealPreCommit1Failed").await;
    let ended = why(&world, &call).await;
    assert_eq!(ended.waits_for, WaitsFor::Operator);
    assert!(ended.change.contains("`sealyard sectors retry 1`"), "{}", ended.change);
    assert!(ended.last_error.contains("abort"), "{}", ended.last_error);
    let was = ended.ended.expect("how it ended");
    assert_eq!(
        (was.attempt, was.task, was.worker.as_deref()),
        (task.attempt, TaskType::PreCommit1, Some("A"))
    );

    pledge(&world).await;
    world.sector(2, |sector| sector.state == "Proving").await;
    assert_eq!(why(&world, "2").await.waits_for, WaitsFor::Nothing);
}

#[tokio::test]
async fn what_nobody_knows_is_refused_by_name() {
    let world = world().await;
    for what in ["7", "f01001/1", "task:9", "9.1", "1000-7-6a3f8c1e-0000-4000-8000-000000000001"] {
        let error = world.api.why(what.parse().expect("a subject")).await.expect_err(what).to_string();
        assert!(error.starts_with("MGR054: nothing is known of "), "{what}: {error}");
    }
}

#[tokio::test]
async fn the_schedule_lists_the_queue_in_order_and_says_what_it_leaves_off() {
    let world = world().await;
    for _ in 0..5 {
        pledge(&world).await;
    }
    let schedule = world.api.schedule(2).await.expect("the schedule");
    let numbers: Vec<_> = schedule.queue.iter().map(|queued| queued.sector.number.get()).collect();
    assert_eq!((numbers, schedule.left_off, schedule.counts["queued"]), (vec![1, 2], 3, 5));
    assert_eq!(schedule.queue[0].reason, "no worker is connected");

    let a = worker("A", 1, ALL);
    a.script("AP", Behaviour::Hold);
    world.join(&a).await;
    a.call_of("AP").await;
    let held = world.api.schedule(0).await.expect("the schedule");
    let [view] = held.workers.as_slice() else { panic!("{:?}", held.workers) };
    assert_eq!(view.name, "A");
    assert!(view.running.iter().any(|held| held.kind == TaskType::AddPiece), "{view:?}");
    assert!(held.queue.is_empty());
}

#[tokio::test]
async fn the_diagnosis_has_lotus_s_keys_with_null_for_empty_lists() {
    let world = world().await;
    let empty = world.api.sched_diag(true).await.expect("a diagnosis");
    let nothing = json!({
        "SchedInfo": { "Requests": null, "OpenWindows": null },
        "ReturnedWork": null, "Waiting": null, "CallToWork": {}, "EarlyRet": null,
    });
    assert_eq!(empty, nothing);

    let a = worker("A", 1, ALL);
    a.script("AP", Behaviour::Hold);
    world.join(&a).await;
    pledge(&world).await;
    let taken = a.call_of("AP").await;
    let call = taken.call.to_string();
    let told = loop {
        let told = world.api.sched_diag(false).await.expect("a diagnosis");
        if !told["CallToWork"][&call].is_null() {
            break told;
        }
    };
    let work = r#"seal/v0/addpiece([{"ID":{"Miner":1000,"Number":1},"ProofType":5},{"Task":1}])"#;
    assert_eq!((&told["CallToWork"][&call], &told["Waiting"]), (&json!(work), &json!([work])));
}
