//! Calls from their start to the manager's acknowledgement, with real executor processes.

mod scripted;

use std::fs;
use std::sync::atomic::Ordering;

use rpc::api::{Job, ReturnMethod};
use rpc::extension::{CallPhase, GpuShare};
use rpc::{PieceData, WorkerApi as _};
use scripted::manager::Spoilt;
use scripted::{SECTOR, World, alive, appears, attempt, held, pc1, pc1_output, start_ok, until, with_data};
use sealtasks::{
    AttemptId, CallErrorCode, CallId, Commitment, DataCidInput, ExecutorFailure, ExecutorReport,
    ExecutorRequest, FailureClass, FileType, FileTypes, PaddedPieceSize, PieceInfo, PieceSource, TaskId,
    TaskInput, TaskOutput, UnpaddedPieceSize,
};
use stores::{CopyKind, Index as _};
use worker::{Worker, WorkerHandle};

/// A worker whose executor of PreCommit1 is at work, and hangs.
async fn at_work(world: &World, job: Job) -> (WorkerHandle, CallId) {
    world.mode("hang");
    let worker = world.start().await;
    let call = start_ok(&worker, job).await;
    appears(&world.evidence("hangs")).await;
    held(&worker, call, Some(CallPhase::Running)).await;
    (worker, call)
}

#[tokio::test]
async fn a_task_runs_its_files_are_declared_and_its_result_is_returned() {
    let world = World::new();
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(Some(attempt(1)))).await;
    assert_eq!(call.sector, SECTOR.id);

    let returned = world.returned(call).await;
    assert_eq!(returned.method, ReturnMethod::SealPreCommit1);
    assert_eq!(returned.result, Ok(pc1_output()));
    assert_eq!(returned.attempt, Some(attempt(1)));
    let account = returned.account.unwrap();
    assert!(account.started_ms > 1_600_000_000_000 && account.ended_ms >= account.started_ms);
    assert_eq!(account.bytes_fetched, 0);

    for kind in [FileType::Sealed, FileType::Cache] {
        assert!(world.file(kind).exists());
        let holders = world.manager.index.find(SECTOR.id, kind.into(), None).await.unwrap();
        assert_eq!(holders.len(), 1);
        assert!(holders[0].primary, "{kind} is the copy that counts");
    }
    let request: ExecutorRequest = serde_json::from_str(&world.told("request")).unwrap();
    assert_eq!((request.version, request.sector), (ExecutorRequest::VERSION, SECTOR));
    assert_eq!(request.files.0[&FileType::Unsealed], world.file(FileType::Unsealed));
    assert_eq!(request.files.0.len(), 3);
    held(&worker, call, None).await;
    assert_eq!(
        fs::read_dir(world.repo_dir().join("calls")).unwrap().count(),
        0,
        "nothing of the call is left"
    );
    worker.close().await;
}

#[tokio::test]
async fn the_same_attempt_twice_is_the_same_call() {
    let world = World::new();
    let (worker, call) = at_work(&world, pc1(Some(attempt(1)))).await;
    assert_eq!(start_ok(&worker, pc1(Some(attempt(1)))).await, call);
    fs::write(world.evidence("gate"), "go").unwrap();
    world.returned(call).await;
    held(&worker, call, None).await;
    assert_eq!(start_ok(&worker, pc1(Some(attempt(1)))).await, call, "also after it was acknowledged");
    worker.task_disable(sealtasks::TaskType::PreCommit1).await.unwrap();
    assert_eq!(
        start_ok(&worker, pc1(Some(attempt(1)))).await,
        call,
        "also when the task is no longer offered"
    );
    let error = worker.start(pc1(Some(attempt(2)))).await.unwrap_err();
    assert_eq!(error.to_string(), "worker w1 does not take PC1 now: it is not enabled here");
    worker.close().await;
    assert_eq!(world.told("runs"), "pc1\n");
}

#[tokio::test]
async fn an_executor_sees_the_gpus_that_its_task_was_given() {
    let world = World::new();
    let mut options = world.options(world.with_unsealed());
    options.resources.gpus = vec!["NVIDIA A".into(), "NVIDIA B".into()];
    options.executor.environment.remove(std::ffi::OsStr::new("CUDA_VISIBLE_DEVICES"));
    let worker = Worker::start(options).await.unwrap();
    let on = |device, number| Job {
        gpus: vec![GpuShare { device, thousandths: 1000 }],
        ..pc1(Some(attempt(number)))
    };
    let call = start_ok(&worker, on(1, 1)).await;
    world.returned(call).await.result.unwrap();
    let seen = world.told("env");
    assert!(seen.lines().any(|line| line == "CUDA_VISIBLE_DEVICES=1"), "{seen}");
    let error = worker.start(on(2, 2)).await.unwrap_err().to_string();
    assert_eq!(error, "worker w1 has 2 GPUs and no GPU 2, counted from 0");
    worker.close().await;
}

#[tokio::test]
async fn a_killed_executor_fails_its_call_and_leaves_nothing() {
    let world = World::new();
    world.mode("crash");
    let worker = world.start().await;
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert_eq!(error.code, CallErrorCode::Unknown);
    assert!(error.message.contains("signal: 9"), "{error}");
    assert!(error.message.contains("first words\nfamous last words"), "{error}");
    assert!(error.message.ends_with(" [name: w1]"), "{error}");
    assert!(!world.file(FileType::Sealed).exists() && !world.file(FileType::Cache).exists());
    assert!(world.file(FileType::Unsealed).exists(), "what was there stays");
    let types = FileTypes::SEALED | FileTypes::CACHE;
    assert!(world.manager.index.find(SECTOR.id, types, None).await.unwrap().is_empty());
    worker.close().await;
}

#[tokio::test]
async fn failures_carry_their_words_and_codes() {
    let world = World::new();
    let worker = world.start().await;
    let failure =
        |class, message: &str| ExecutorReport::Failed(ExecutorFailure { class, message: message.into() });
    world.answers(&failure(FailureClass::Space, "disk full"));
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (CallErrorCode::TempAllocateSpace, "disk full [name: w1]")
    );
    world.answers(&failure(FailureClass::BadData, "bad ticket"));
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (CallErrorCode::Unknown, "bad ticket [name: w1]"));
    world.answers(&ExecutorReport::Done(TaskOutput::Finalize));
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert_eq!(error.message, "the executor's report is about another task [name: w1]");
    fs::write(world.evidence("answer"), "{}").unwrap();
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert!(error.message.starts_with("the executor's report is no ExecutorReport: "), "{error}");
    worker.close().await;
}

#[tokio::test]
async fn an_executor_that_says_nothing_has_failed() {
    let world = World::new();
    world.mode("silent");
    let worker = world.start().await;
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert!(error.message.starts_with("the executor ended without a report (exit status: 0)"), "{error}");
    worker.close().await;
}

#[tokio::test]
async fn a_success_without_its_files_is_a_failure() {
    let world = World::new();
    world.mode("nothing");
    let worker = world.start().await;
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert!(error.message.starts_with("the executor reports success but made no sealed at /"), "{error}");
    assert!(!world.file(FileType::Cache).exists());
    worker.close().await;
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let world = World::new();
    let mut options = world.options(world.with_unsealed());
    options.executor.program = "/nonexistent/executor".into();
    let worker = worker::Worker::start(options).await.unwrap();
    let error = world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap_err();
    assert!(error.message.starts_with("executor /nonexistent/executor: it cannot be started: "), "{error}");
    worker.close().await;
}

#[tokio::test]
async fn an_aborted_call_is_killed_and_says_so() {
    let world = World::new();
    let (worker, call) = at_work(&world, pc1(None)).await;
    let pid = world.told("pid");
    assert!(alive(&pid));
    worker.abort(call).await.unwrap();
    let error = world.returned(call).await.result.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (CallErrorCode::Unknown, "task aborted [name: w1]"));
    assert!(!alive(&pid));
    assert!(!world.file(FileType::Sealed).exists());
    held(&worker, call, None).await;
    assert!(worker.abort(call).await.is_err(), "it is no longer held");
    worker.close().await;
}

/// On a mount that two workers have open a later attempt's files lie where this one's would.
#[tokio::test]
async fn a_failed_call_leaves_what_another_attempt_has_declared() {
    let world = World::new();
    let (worker, call) = at_work(&world, pc1(None)).await;
    let index = &world.manager.index;
    let path = index.paths()[0].info.id.clone();
    index.declare(&path, call.sector, FileTypes::SEALED, CopyKind::Primary).await.unwrap();
    worker.abort(call).await.unwrap();
    world.returned(call).await.result.unwrap_err();
    assert!(world.file(FileType::Sealed).exists(), "it is another's now");
    assert!(!world.file(FileType::Cache).exists());
    worker.close().await;
}

/// What failed or was aborted is tried again as another task.
#[tokio::test]
async fn what_runs_for_a_task_that_is_over_ends_before_the_next_one_touches_the_sector() {
    let world = World::new();
    let (worker, old) = at_work(&world, pc1(Some(attempt(1)))).await;
    let pid = world.told("pid");
    world.manager.over.lock().unwrap().insert(attempt(1));
    fs::remove_file(world.evidence("hangs")).unwrap();
    let next = AttemptId { task: TaskId::new(2), attempt: 1 };
    let new = start_ok(&worker, pc1(Some(next))).await;
    world.returned(old).await.result.unwrap_err();
    appears(&world.evidence("hangs")).await;
    assert!(!alive(&pid));
    fs::write(world.evidence("gate"), "go").unwrap();
    assert_eq!(world.returned(new).await.result, Ok(pc1_output()));
    assert!(world.file(FileType::Sealed).exists());
    worker.close().await;
}

#[tokio::test]
async fn results_are_offered_until_the_manager_takes_them() {
    let world = World::new();
    let spoilt = [Spoilt::Unreachable, Spoilt::Refused("busy"), Spoilt::Unreachable, Spoilt::Unreachable];
    world.manager.return_answers.lock().unwrap().extend(spoilt);
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(None)).await;
    assert_eq!(world.returned(call).await.result, Ok(pc1_output()));
    assert_eq!(*world.manager.return_tries.borrow(), 5);
    worker.close().await;
}

#[tokio::test]
async fn a_refused_result_is_kept_and_offered_again_at_the_next_start() {
    let world = World::new();
    world.manager.refuses_returns.store(true, Ordering::SeqCst);
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(None)).await;
    until(&world.manager.return_tries, |tries| (*tries == 3).then_some(())).await;
    held(&worker, call, None).await;
    let dirs = std::fs::read_dir(world.repo_dir().join("calls")).unwrap().count();
    assert_eq!(dirs, 0, "request, report and log take up room no more");
    worker.close().await;
    drop(worker);
    assert_eq!(*world.manager.return_tries.borrow(), 3);
    world.manager.refuses_returns.store(false, Ordering::SeqCst);
    let worker = world.start().await;
    assert_eq!(world.returned(call).await.result, Ok(pc1_output()));
    worker.close().await;
}

#[tokio::test]
async fn a_result_of_an_attempt_is_offered_until_it_is_taken() {
    let world = World::new();
    world.manager.refuses_returns.store(true, Ordering::SeqCst);
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(Some(attempt(1)))).await;
    // More often than a Lotus miner is asked.
    until(&world.manager.return_tries, |tries| (*tries == 5).then_some(())).await;
    world.manager.refuses_returns.store(false, Ordering::SeqCst);
    assert_eq!(world.returned(call).await.result, Ok(pc1_output()));
    worker.close().await;
}

fn data_cid(source: PieceSource) -> TaskInput {
    TaskInput::DataCid(DataCidInput { size: UnpaddedPieceSize::try_from(127).unwrap(), source })
}

#[tokio::test]
async fn a_piece_comes_on_descriptor_3() {
    let world = World::new();
    let piece = PieceInfo::new(PaddedPieceSize::try_from(128).unwrap(), Commitment::new([9; 32]));
    world.answers(&ExecutorReport::Done(TaskOutput::DataCid(piece)));
    let worker = world.start().await;
    // Longer than a pipe holds, so that the feed has to wait for the executor.
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let stream = PieceData::Stream(Box::pin(std::io::Cursor::new(bytes.clone())));
    let call = start_ok(&worker, with_data(data_cid(PieceSource::Stream), stream)).await;
    assert_eq!(world.returned(call).await.result, Ok(TaskOutput::DataCid(piece)));
    assert!(fs::read(world.evidence("piece")).unwrap() == bytes);
    worker.close().await;
}

#[tokio::test]
async fn a_broken_stream_fails_the_call_whatever_the_executor_made_of_it() {
    let world = World::new();
    let piece = PieceInfo::new(PaddedPieceSize::try_from(128).unwrap(), Commitment::new([9; 32]));
    world.answers(&ExecutorReport::Done(TaskOutput::DataCid(piece)));
    let worker = world.start().await;
    let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"half")),
        Err(std::io::Error::other("the sender hung up")),
    ]));
    let job = with_data(data_cid(PieceSource::Stream), PieceData::Stream(Box::pin(broken)));
    let error = world.returned(start_ok(&worker, job).await).await.result.unwrap_err();
    assert_eq!(error.message, "the piece's bytes ended early: the sender hung up [name: w1]");

    let job = Job {
        sector: SECTOR,
        work: data_cid(PieceSource::Stream),
        attempt: None,
        data: None,
        gpus: Vec::new(),
    };
    let error = world.returned(start_ok(&worker, job).await).await.result.unwrap_err();
    assert!(error.message.contains("none came"), "{error}");
    worker.close().await;
}

#[tokio::test]
async fn executors_see_their_environment_and_no_secrets() {
    let world = World::new();
    world.environment.lock().unwrap().insert("RUST_LOG", "from-config".into());
    let mut options = world.options(world.with_unsealed());
    let given = [
        ("PATH", std::env::var("PATH").unwrap()),
        ("FIL_PROOFS_USE_MULTICORE_SDR", "1".into()),
        ("FIL_PROOFS_PARAMETER_CACHE", "/elsewhere".into()),
        ("RUST_LOG", "from-worker".into()),
        ("MINER_API_INFO", "secret:/ip4/127.0.0.1".into()),
    ];
    options.executor.environment =
        worker::environment::filtered(given.into_iter().map(|(name, value)| (name.into(), value.into())));
    let worker = worker::Worker::start(options).await.unwrap();
    world.returned(start_ok(&worker, pc1(None)).await).await.result.unwrap();
    let seen = world.told("env");
    let has = |line: &str| seen.lines().any(|seen| seen == line);
    assert!(has("FIL_PROOFS_USE_MULTICORE_SDR=1"), "{seen}");
    assert!(has("FIL_PROOFS_PARAMETER_CACHE=/params/2KiB"), "the parameters' place wins: {seen}");
    assert!(has("RUST_LOG=from-config"), "config.toml wins: {seen}");
    assert!(!seen.contains("secret") && !seen.contains("CARGO"), "{seen}");
    let cwd = world.told("cwd");
    assert!(cwd.contains("/calls/"), "it runs in the call's own directory: {cwd}");
    worker.close().await;
}

#[tokio::test]
async fn a_closing_worker_kills_its_executors_and_takes_nothing_more() {
    let world = World::new();
    world.mode("hang");
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(None)).await;
    appears(&world.evidence("hangs")).await;
    worker.shutdown().await.unwrap();
    worker.wait_closed().await;
    assert!(!alive(&world.told("pid")));
    assert_eq!(worker.session().await.unwrap(), sealtasks::WorkerId::CLOSED);
    assert!(worker.start(pc1(None)).await.is_err());
    assert_eq!(world.manager.returns.borrow().len(), 1, "it gave back what it had before it ended");
    let error = world.returned(call).await.result.unwrap_err();
    assert_eq!(error.code, CallErrorCode::TempWorkerRestart);
}
