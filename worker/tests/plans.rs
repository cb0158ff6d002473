//! Plans of sealing threads towards a manager: what it decided by others than those that hold is refused.

mod scripted;

use std::fs;
use std::sync::Arc;

use rpc::WorkerApi as _;
use scripted::{World, attempt, pc1, start_ok, until};
use sealtasks::SealingPlan;
use worker::{RegistrationOptions, Worker, WorkerError, WorkerHandle, WorkerOptions};

fn registration() -> RegistrationOptions {
    let (manager, address) = ("http://manager".into(), "http://10.0.0.7:3456/rpc/v0".into());
    RegistrationOptions { manager, address, status: Arc::new(|_| {}) }
}

/// The plan that the manager was told last.
async fn told(world: &World, plan: SealingPlan) {
    let has = |state: &rpc::extension::WorkerState| state.threads.first().map(|thread| thread.plan);
    until(&world.manager.states, |states| (states.last().and_then(has) == Some(plan)).then_some(())).await;
}

/// A worker with one sealing thread, in a directory that is no storage path.
async fn with_thread(world: &World) -> WorkerHandle {
    drop(world.repo());
    fs::create_dir(world.repo_dir().join("nvme")).unwrap();
    let thread = "[[sealing_thread]]\nlocation = \"nvme\"\nplan = \"sealer\"\n";
    fs::write(world.repo_dir().join("config.toml"), thread).unwrap();
    world.start().await
}

#[tokio::test]
async fn a_call_is_taken_only_when_the_manager_knows_the_plans() {
    let world = World::new();
    let worker = with_thread(&world).await;
    let refused = worker.start(pc1(Some(attempt(1)))).await.unwrap_err().to_string();
    assert!(refused.contains("the plans of worker w1 have changed"), "{refused}");

    worker.register(registration()).await.unwrap();
    told(&world, SealingPlan::Sealer).await;
    let state = worker.current_state().await;
    assert_eq!(state.plan, SealingPlan::Any);
    let places: Vec<_> = state.threads.iter().map(|thread| (thread.path.is_some(), thread.plan)).collect();
    assert_eq!(places, [(false, SealingPlan::Sealer), (true, SealingPlan::Any)], "the repo's own path, too");
    assert!(state.threads[0].error.contains("storage attach --init --seal"), "{}", state.threads[0].error);

    let hot = world.repo_dir().join("nvme/config.toml");
    fs::write(&hot, "plan = \"rebuild\"\n").unwrap();
    told(&world, SealingPlan::Rebuild).await;
    fs::remove_file(hot).unwrap();
    told(&world, SealingPlan::Sealer).await;
    // What is told is noted as told right after.
    let call = loop {
        match worker.start(pc1(Some(attempt(1)))).await {
            Ok(call) => break call,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(start_ok(&worker, pc1(Some(attempt(1)))).await, call, "a repeated start is answered");
    world.returned(call).await;
    worker.close().await;
}

#[tokio::test]
async fn a_worker_with_a_plan_joins_nobody_who_knows_none() {
    let mut world = World::new();
    Arc::get_mut(&mut world.manager).expect("no worker has it yet").lotus = true;
    let options = WorkerOptions { plan: SealingPlan::Rebuild, ..world.options(world.with_unsealed()) };
    let worker = Worker::start(options).await.unwrap();
    let error = worker.register(registration()).await.unwrap_err();
    assert!(matches!(error, WorkerError::NoPlans { .. }), "{error}");
    assert!(error.to_string().contains("without --plan"), "{error}");
    assert!(world.manager.connects.borrow().is_empty());
    worker.close().await;
}
