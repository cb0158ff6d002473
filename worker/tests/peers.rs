//! Two workers on real sockets: tasks that bring, move and release files.

mod scripted;

use std::fs;
use std::sync::Arc;

use rpc::api::Returned;
use rpc::{ManagerApi, Transport, WorkerApi as _, WorkerClient};
use scripted::{SECTOR, ScriptedManager, World, start_ok};
use sealtasks::{
    AcquireMode, AttemptId, CallErrorCode, ExecutorFailure, ExecutorReport, FailureClass, FetchInput,
    FileType, FileTypes, Matter, MoveInput, PathOrder, PathReport, PathType, PreCommit1Input,
    ReleaseUnsealedInput, TaskId, TaskInput, TaskOutput, Ticket, UnpaddedOffset, UnsealInput, UnsealedCid,
    UnsealedRange,
};
use stores::Index as _;
use tokio::net::TcpListener;
use worker::{ManagerTokens, Worker, WorkerHandle};

/// A worker that serves on a port of its own.
struct Peer {
    world: World,
    worker: WorkerHandle,
    url: String,
}

impl Peer {
    /// A worker of this manager. `prepare` puts files into its repo before it starts.
    async fn start(name: &str, manager: &Arc<ScriptedManager>, prepare: impl FnOnce(&World)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut world = World::new();
        world.manager = Arc::clone(manager);
        let repo = world.repo();
        prepare(&world);
        let mut options = world.options(repo);
        options.name = name.into();
        options.urls = vec![format!("http://{address}/remote")];
        let worker = Worker::start(options).await.unwrap();
        let tokens = ManagerTokens::new(Arc::clone(manager) as Arc<dyn ManagerApi>);
        let router = worker.router(Arc::new(tokens));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { world, worker, url: format!("http://{address}/rpc/v0") }
    }

    async fn run(&self, work: TaskInput) -> Returned {
        let job = rpc::Job { sector: SECTOR, work, attempt: None, data: None, gpus: Vec::new() };
        self.world.returned(start_ok(&self.worker, job).await).await
    }
}

/// Writes a file of the sector.
fn put(world: &World, kind: FileType, bytes: &[u8]) {
    let path = world.file(kind);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn put_replica(world: &World) {
    put(world, FileType::Sealed, &[7; 2048]);
    let cache = world.file(FileType::Cache);
    fs::create_dir_all(&cache).unwrap();
    for (name, bytes) in [("p_aux", 64), ("t_aux", 100), ("sc-02-data-layer-1.dat", 2048)] {
        fs::write(cache.join(name), vec![1; bytes]).unwrap();
    }
}

fn fetch(types: FileTypes, mode: AcquireMode) -> TaskInput {
    TaskInput::Fetch(FetchInput { types, path_type: PathType::Sealing, mode })
}

#[tokio::test]
async fn files_are_fetched_over_the_socket_and_counted() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, put_replica).await;
    let b = Peer::start("b", &manager, |_| {}).await;
    let types = FileTypes::SEALED | FileTypes::CACHE;
    let returned = b.run(fetch(types, AcquireMode::Move)).await;
    assert_eq!(returned.result, Ok(TaskOutput::Fetch));
    let bytes = returned.account.unwrap().bytes_fetched;
    assert!(bytes >= 2048 + 64 + 100 + 2048, "{bytes}");
    assert_eq!(fs::read(b.world.file(FileType::Sealed)).unwrap(), [7; 2048]);
    assert_eq!(fs::read(b.world.file(FileType::Cache).join("p_aux")).unwrap(), [1; 64]);
    assert!(!a.world.file(FileType::Sealed).exists() && !a.world.file(FileType::Cache).exists());
    let found = manager.index.find(SECTOR.id, FileTypes::SEALED, None).await.unwrap();
    assert_eq!((found.len(), found[0].primary), (1, true));
    a.worker.close().await;
    b.worker.close().await;
}

#[tokio::test]
async fn what_a_given_up_attempt_has_brought_is_listed_by_nobody_until_another_one_takes_it() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, put_replica).await;
    let b = Peer::start("b", &manager, |_| {}).await;
    let attempt = |number| Some(AttemptId { task: TaskId::new(5), attempt: number });
    // It is given up while the files come.
    manager.over.lock().unwrap().insert(attempt(1).unwrap());
    let (work, types) = (fetch(FileTypes::CACHE, AcquireMode::Move), FileTypes::CACHE);
    let job =
        |attempt| rpc::Job { sector: SECTOR, work: work.clone(), attempt, data: None, gpus: Vec::new() };
    let returned = b.world.returned(start_ok(&b.worker, job(attempt(1))).await).await;
    assert!(returned.result.unwrap_err().message.contains("MGR145"));
    let only_a = async |why: &str| {
        let found = manager.index.find(SECTOR.id, types, None).await.unwrap();
        assert_eq!(found.len(), 1, "{why}: {found:?}");
        assert!(
            found[0].urls.iter().any(|url| a.url.starts_with(url.split("/remote").next().unwrap())),
            "{why}"
        );
    };
    only_a("it is not listed").await;
    assert!(b.world.file(FileType::Cache).join("p_aux").exists(), "and not deleted");
    assert!(a.world.file(FileType::Cache).join("p_aux").exists(), "its source stays");
    b.worker.storage_redeclare_local(None, rpc::api::Missing::Keep).await.unwrap();
    only_a("nor does a scan list it").await;
    let survey = b.worker.path_order(PathOrder::Survey).await.unwrap();
    let PathReport::Surveyed(surveys) = survey else { panic!("{survey:?}") };
    let findings: Vec<_> = surveys.into_iter().flat_map(|survey| survey.findings).collect();
    assert!(findings.iter().any(|found| found.matter == Matter::NotInIndex), "it is shown: {findings:?}");

    let returned = b.world.returned(start_ok(&b.worker, job(attempt(2))).await).await;
    assert_eq!(returned.result, Ok(TaskOutput::Fetch));
    assert!(!a.world.file(FileType::Cache).exists());
    let found = manager.index.find(SECTOR.id, types, None).await.unwrap();
    assert_eq!((found.len(), found[0].primary), (1, true));
    a.worker.close().await;
    b.worker.close().await;
}

#[tokio::test]
async fn a_file_that_nobody_has_is_named() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, |_| {}).await;
    let error = a.run(fetch(FileTypes::SEALED, AcquireMode::Copy)).await.result.unwrap_err();
    assert_eq!(error.code, CallErrorCode::Unknown);
    assert_eq!(error.message, "STO011: no copy of the sealed file of s-t01000-7 is known [name: a]");
    let error = a.run(TaskInput::Finalize(sealtasks::FinalizeInput {})).await.result.unwrap_err();
    assert!(error.message.contains("cache file of s-t01000-7"), "{error}");
    // There is no path for storing here: Lotus's code for "no space".
    put_replica(&a.world);
    a.worker.storage_redeclare_local(None, rpc::api::Missing::Keep).await.unwrap();
    let work = TaskInput::Move(MoveInput { types: FileTypes::SEALED });
    let error = a.run(work).await.result.unwrap_err();
    assert_eq!(error.code, CallErrorCode::TempAllocateSpace, "{error}");
    assert!(a.world.file(FileType::Sealed).exists());
    a.worker.close().await;
}

#[tokio::test]
async fn a_move_brings_files_to_a_storing_path() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, put_replica).await;
    let store = tempfile::tempdir().unwrap();
    let id = sealtasks::StorageId::from(uuid::Uuid::new_v4());
    let stanza = sealtasks::StorageStanza { weight: 1, can_store: true, ..Default::default() };
    stores::init_path(store.path(), &stores::StorageMeta::new(&id, &stanza)).unwrap();
    a.worker.storage_add_local(store.path().to_owned()).await.unwrap();
    let work = TaskInput::Move(MoveInput { types: FileTypes::SEALED | FileTypes::CACHE });
    assert_eq!(a.run(work).await.result, Ok(TaskOutput::Move));
    assert!(store.path().join("sealed").join(SECTOR.id.to_string()).exists());
    assert!(!a.world.file(FileType::Sealed).exists());
    let found = manager.index.find(SECTOR.id, FileTypes::CACHE, None).await.unwrap();
    assert_eq!((found.len(), &found[0].id, found[0].primary), (1, &id, true));
    a.worker.close().await;
}

#[tokio::test]
async fn released_unsealed_data_goes_everywhere() {
    let manager = Arc::new(ScriptedManager::new());
    let unsealed = |world: &World| put(world, FileType::Unsealed, &[0; 2052]);
    let a = Peer::start("a", &manager, unsealed).await;
    let b = Peer::start("b", &manager, unsealed).await;
    let work = TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep: vec![] });
    assert_eq!(a.run(work).await.result, Ok(TaskOutput::ReleaseUnsealed));
    assert!(!a.world.file(FileType::Unsealed).exists() && !b.world.file(FileType::Unsealed).exists());
    assert!(manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap().is_empty());
    a.worker.close().await;
    b.worker.close().await;
}

fn pc1() -> TaskInput {
    TaskInput::PreCommit1(PreCommit1Input { ticket: Ticket([1; 32]), pieces: vec![] })
}

#[tokio::test]
async fn pc1_leaves_no_earlier_replica_anywhere() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, put_replica).await;
    let b = Peer::start("b", &manager, |world| {
        put_replica(world);
        put(world, FileType::Unsealed, &[0; 2052]);
    })
    .await;
    assert_eq!(b.run(pc1()).await.result, Ok(scripted::pc1_output()));
    assert!(!a.world.file(FileType::Sealed).exists() && !a.world.file(FileType::Cache).exists());
    assert!(!b.world.file(FileType::Cache).join("p_aux").exists(), "the new one only");
    for kind in [FileType::Sealed, FileType::Cache] {
        let found = manager.index.find(SECTOR.id, kind.into(), None).await.unwrap();
        assert_eq!((found.len(), found[0].primary), (1, true), "{kind}");
    }
    a.worker.close().await;
    b.worker.close().await;
}

#[tokio::test]
async fn pc1_without_its_data_deletes_nothing() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, put_replica).await;
    let b = Peer::start("b", &manager, |world| put(world, FileType::Unsealed, &[0; 2052])).await;
    // Known to the index, lost from the disk; then not even known.
    fs::remove_file(b.world.file(FileType::Unsealed)).unwrap();
    let error = b.run(pc1()).await.result.unwrap_err();
    assert!(error.message.contains("nothing was deleted"), "{error}");
    b.worker.storage_redeclare_local(None, rpc::api::Missing::Drop).await.unwrap();
    let error = b.run(pc1()).await.result.unwrap_err();
    assert!(error.message.contains("no copy of the unsealed file"), "{error}");
    assert!(a.world.file(FileType::Sealed).exists() && a.world.file(FileType::Cache).join("p_aux").exists());
    assert_eq!(manager.index.find(SECTOR.id, FileTypes::SEALED, None).await.unwrap().len(), 1);
    a.worker.close().await;
    b.worker.close().await;
}

#[tokio::test]
async fn a_start_that_comes_late_deletes_nothing() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, |world| {
        put_replica(world);
        put(world, FileType::Unsealed, &[0; 2052]);
    })
    .await;
    let release = |keep| TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep });
    let range = UnsealedRange { offset: UnpaddedOffset::try_from(0).unwrap(), size: 1016 };
    let replica = FileTypes::SEALED | FileTypes::CACHE;
    let late = [
        pc1(),
        TaskInput::Move(MoveInput { types: replica }),
        release(vec![]),
        release(vec![range]),
        TaskInput::Finalize(sealtasks::FinalizeInput {}),
    ];
    for (task, work) in (1..).zip(late) {
        let attempt = AttemptId { task: TaskId::new(task), attempt: 1 };
        manager.over.lock().unwrap().insert(attempt);
        let job = rpc::Job { sector: SECTOR, work, attempt: Some(attempt), data: None, gpus: Vec::new() };
        let returned = a.world.returned(start_ok(&a.worker, job).await).await;
        let error = returned.result.unwrap_err();
        assert!(error.message.contains(&format!("attempt {attempt} was given up")), "{task}: {error}");
        assert!(a.world.told("runs").is_empty(), "{task}: no executor ran");
        assert!(a.world.file(FileType::Cache).join("sc-02-data-layer-1.dat").exists(), "{task}");
        for kind in [FileType::Sealed, FileType::Cache, FileType::Unsealed] {
            assert!(a.world.file(kind).exists(), "{task}: {kind}");
            let found = manager.index.find(SECTOR.id, kind.into(), None).await.unwrap();
            assert_eq!(found.len(), 1, "{task}: {kind}");
        }
    }
    a.worker.close().await;
}

#[tokio::test]
async fn unsealing_fetches_copies_and_makes_the_unsealed_file() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, put_replica).await;
    let b = Peer::start("b", &manager, |_| {}).await;
    // Copies go only where a primary one stays.
    let types = FileTypes::SEALED | FileTypes::CACHE;
    let holders = manager.index.find(SECTOR.id, types, None).await.unwrap();
    manager.index.declare(&holders[0].id, SECTOR.id, types, stores::CopyKind::Primary).await.unwrap();
    let work = TaskInput::Unseal(UnsealInput {
        range: UnsealedRange { offset: UnpaddedOffset::try_from(0).unwrap(), size: 2032 },
        ticket: Ticket([1; 32]),
        unsealed: UnsealedCid::new(sealtasks::Commitment::new([0; 32])),
    });
    let failure = ExecutorFailure { class: FailureClass::Compute, message: "it failed".to_owned() };
    b.world.answers(&ExecutorReport::Failed(failure));
    assert!(b.run(work.clone()).await.result.is_err());
    for kind in [FileType::Sealed, FileType::Cache, FileType::Unsealed] {
        assert!(!b.world.file(kind).exists(), "{kind}: what a failed unsealing fetched or made stays");
    }
    b.world.answers(&ExecutorReport::Done(TaskOutput::Unseal));
    assert_eq!(b.run(work).await.result, Ok(TaskOutput::Unseal));
    assert!(!b.world.file(FileType::Sealed).exists() && !b.world.file(FileType::Cache).exists());
    let found = manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap();
    assert_eq!((found.len(), found[0].primary), (1, true));
    assert!(a.world.file(FileType::Sealed).exists(), "the source stays");
    a.worker.close().await;
    b.worker.close().await;
}

#[tokio::test]
async fn a_worker_is_reached_by_its_client_with_a_good_token_only() {
    let manager = Arc::new(ScriptedManager::new());
    let a = Peer::start("a", &manager, |_| {}).await;
    let url: url::Url = a.url.parse().unwrap();
    let client = WorkerClient::new(&url, Some("token".into()), Transport::Http).unwrap();
    assert_eq!(client.version().await.unwrap(), 67328);
    assert_eq!(client.session().await.unwrap(), a.worker.id());
    assert_eq!(client.state().await.unwrap().name, "a");
    let stranger = WorkerClient::new(&url, Some("wrong".into()), Transport::Http).unwrap();
    assert!(matches!(stranger.version().await, Err(rpc::ApiError::Unauthorized { status: 401, .. })));
    a.worker.close().await;
}
