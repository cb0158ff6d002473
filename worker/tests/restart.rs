//! What becomes of calls when a worker dies and starts again on the same repo. A death is a runtime that is shut down
//! in the middle of everything: none of the worker's own code runs any more, while its executors live on.

mod scripted;

use std::sync::atomic::Ordering;

use rpc::WorkerApi as _;
use rpc::extension::CallPhase;
use scripted::{World, alive, appears, attempt, held, pc1, pc1_output, start_ok, until};
use sealtasks::{CallErrorCode, FileType, FileTypes};
use stores::{CopyKind, Index as _};
use tokio::runtime::Runtime;

/// Runs a life to its last line; then it ends as by a crash.
fn die_after<R>(life: impl Future<Output = R>) -> R {
    let runtime = Runtime::new().unwrap();
    let told = runtime.block_on(life);
    runtime.shutdown_background();
    told
}

#[test]
fn an_unfinished_call_is_returned_as_restarted_and_its_executor_and_files_are_gone() {
    let world = World::new();
    world.mode("hang");
    let call = die_after(async {
        let worker = world.start().await;
        let call = start_ok(&worker, pc1(Some(attempt(1)))).await;
        appears(&world.evidence("hangs")).await;
        held(&worker, call, Some(CallPhase::Running)).await;
        call
    });
    let pid = world.told("pid");
    assert!(alive(&pid), "executors outlive their worker");
    assert!(world.file(FileType::Sealed).exists());

    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        let returned = world.returned(call).await;
        let error = returned.result.unwrap_err();
        assert_eq!(error.code, CallErrorCode::TempWorkerRestart);
        assert_eq!(error.message, "worker [name: w1] restarted");
        assert_eq!(returned.attempt, Some(attempt(1)));
        assert!(!alive(&pid));
        assert!(!world.file(FileType::Sealed).exists() && !world.file(FileType::Cache).exists());
        assert!(world.file(FileType::Unsealed).exists(), "what was there before the call stays");
        held(&worker, call, None).await;
        assert_eq!(start_ok(&worker, pc1(Some(attempt(1)))).await, call, "the attempt is spent");
        worker.close().await;
    });
    assert_eq!(world.told("runs"), "pc1\n");
}

/// Another worker may have made the file since, in a later attempt, on a mount that both have.
#[test]
fn a_file_that_was_declared_since_outlives_the_call_that_is_given_up() {
    let world = World::new();
    world.mode("hang");
    let call = die_after(async {
        let worker = world.start().await;
        let call = start_ok(&worker, pc1(Some(attempt(1)))).await;
        appears(&world.evidence("hangs")).await;
        held(&worker, call, Some(CallPhase::Running)).await;
        call
    });
    Runtime::new().unwrap().block_on(async {
        let path = world.manager.index.paths()[0].info.id.clone();
        let declared = world.manager.index.declare(&path, call.sector, FileTypes::SEALED, CopyKind::Primary);
        declared.await.unwrap();
        let worker = world.start().await;
        world.returned(call).await.result.unwrap_err();
        assert!(world.file(FileType::Sealed).exists() && !world.file(FileType::Cache).exists());
        worker.close().await;
    });
}

#[test]
fn a_finished_call_that_nobody_took_is_returned_as_it_ended() {
    let world = World::new();
    world.manager.returns_unreachable.store(true, Ordering::SeqCst);
    let call = die_after(async {
        let worker = world.start().await;
        let call = start_ok(&worker, pc1(None)).await;
        until(&world.manager.return_tries, |tries| (*tries > 1).then_some(())).await;
        call
    });
    world.manager.returns_unreachable.store(false, Ordering::SeqCst);
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        assert_eq!(world.returned(call).await.result, Ok(pc1_output()));
        held(&worker, call, None).await;
        worker.close().await;
    });
    assert!(world.file(FileType::Sealed).exists());
    assert_eq!(world.told("runs"), "pc1\n", "it is not run again");
}

#[test]
fn a_session_is_new_at_every_start_and_the_repo_s_id_never() {
    let (world, other) = (World::new(), World::new());
    let life = |world: &World| {
        Runtime::new().unwrap().block_on(async {
            let worker = world.start().await;
            let state = worker.state().await.unwrap();
            worker.close().await;
            (state.session, state.repo.unwrap())
        })
    };
    let (first, second) = (life(&world), life(&world));
    assert_ne!(first.0, second.0);
    assert_eq!(first.1, second.1);
    assert_ne!(life(&other).1, first.1, "another repo is another worker");
}
