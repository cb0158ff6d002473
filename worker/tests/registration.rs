//! Joining a manager and staying joined, against the scripted one.

mod scripted;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rpc::api::Missing;
use rpc::beat::Beat;
use rpc::extension::CallPhase;
use rpc::{Permission, WorkerApi as _};
use scripted::{SECTOR, ScriptedManager, World, appears, attempt, held, pc1, start_ok, until};
use sealtasks::{ActorId, FileType, FileTypes, SectorSize, StorageId, TaskType};
use stores::Index as _;
use tokio::sync::watch;
use worker::{
    Candidate, ManagerFacts, Managers, RegistrationOptions, Status, StatusSink, WorkerError, WorkerHandle,
};

const ADDRESS: &str = "http://10.0.0.7:3456/rpc/v0";

/// Options whose statuses are kept.
fn options() -> (RegistrationOptions, Arc<watch::Sender<Vec<Status>>>) {
    let kept = Arc::new(watch::Sender::new(Vec::new()));
    let sink = Arc::clone(&kept);
    let status: StatusSink =
        Arc::new(move |status| sink.send_modify(|all: &mut Vec<Status>| all.push(status)));
    (RegistrationOptions { manager: "http://manager".into(), address: ADDRESS.into(), status }, kept)
}

fn changeable(world: &mut World) -> &mut ScriptedManager {
    Arc::get_mut(&mut world.manager).expect("no worker has it yet")
}

#[tokio::test]
async fn a_worker_joins_and_pushes_its_state() {
    let world = World::new();
    let worker = world.start().await;
    let (options, statuses) = options();
    worker.register(options).await.unwrap();
    assert_eq!(*world.manager.connects.borrow(), [ADDRESS]);
    assert_eq!(*statuses.borrow(), [Status::Registered]);
    let state = until(&world.manager.states, |states| states.last().cloned()).await;
    assert_eq!((state.session, state.name.as_str()), (worker.id(), "w1"));
    assert!(state.enabled && state.tasks.contains(&TaskType::PreCommit1));
    assert_eq!(state.paths.len(), 1);
    worker.task_disable(TaskType::PreCommit1).await.unwrap();
    until(&world.manager.states, |states| {
        (!states.last()?.tasks.contains(&TaskType::PreCommit1)).then_some(())
    })
    .await;
    worker.close().await;
}

#[tokio::test]
async fn a_manager_that_cannot_dial_back_is_quoted() {
    let world = World::new();
    let words = "could not reach http://10.0.0.7:3456: connection refused; open TCP port 3456";
    *world.manager.connect_answer.lock().unwrap() = Some(words);
    let worker = world.start().await;
    let error = worker.register(options().0).await.unwrap_err();
    let WorkerError::NotTaken { address, words: told } = &error else { panic!("{error}") };
    assert_eq!((address.as_str(), told.as_str()), (ADDRESS, words));
    worker.close().await;
}

#[tokio::test]
async fn a_path_that_cannot_be_read_keeps_no_worker_from_a_new_manager() {
    let world = World::new();
    let worker = world.start().await;
    worker.register(options().0).await.unwrap();
    std::fs::remove_file(world.repo_dir().join("sectorstore.json")).unwrap();
    world.manager.restart();
    until(&world.manager.connects, |connects| (connects.len() == 2).then_some(())).await;
    worker.close().await;
}

/// The manager tells nobody who has a file that is being made anew.
#[tokio::test]
async fn a_file_that_the_manager_says_nothing_of_keeps_no_worker_from_it() {
    let world = World::new();
    let worker = world.start().await;
    worker.register(options().0).await.unwrap();
    let path = worker.storage_local().await.unwrap().into_keys().next().unwrap();
    // As one leaves it that ends between putting a fetched file in its place and telling so.
    let note = world.repo_dir().join(format!("unsealed/fetching/{}.part/arrived.json", SECTOR.id));
    std::fs::create_dir_all(note.parent().unwrap()).unwrap();
    let noted = r#"{"holder":"other","url":"http://other/remote","files":[["",2052]]}"#;
    std::fs::write(note, noted).unwrap();
    let kept = stores::IndexError::Kept { id: "other".parse().unwrap(), sector: SECTOR.id };
    *world.manager.find_answer.lock().unwrap() = Some(kept.to_string());
    world.manager.index.detach(&path, "http://127.0.0.1:3456/remote").await.unwrap();
    let declared = world.manager.declared.borrow().len();
    world.manager.restart();
    until(&world.manager.connects, |connects| (connects.len() == 2).then_some(())).await;
    assert!(world.manager.declared.borrow()[declared..].contains(&path), "its path is there, with all else");
    let listed = world.manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap();
    assert!(listed.is_empty(), "its source stands for it");
    worker.close().await;
}

/// A storage path of its own, opened by this worker.
async fn another_path(worker: &WorkerHandle) -> (StorageId, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let id = StorageId::from(uuid::Uuid::new_v4());
    let stanza = sealtasks::StorageStanza { weight: 1, can_store: true, ..Default::default() };
    stores::init_path(dir.path(), &stores::StorageMeta::new(&id, &stanza)).unwrap();
    worker.storage_add_local(dir.path().to_owned()).await.unwrap();
    (id, dir)
}

/// Those who wait for a pipe's writer: should the test fail they are let go, or it would wait for them.
struct Readers(std::path::PathBuf);

impl Drop for Readers {
    fn drop(&mut self) {
        // Whoever opens a pipe for both waits for nobody.
        let _ = std::fs::File::options().read(true).write(true).open(&self.0);
    }
}

#[tokio::test]
async fn a_path_that_hangs_keeps_neither_its_worker_nor_the_other_paths_from_a_new_manager() {
    let mut world = World::new();
    world.periods.slow_path = Duration::from_millis(100);
    let (manager, url) = (&world.manager, "http://127.0.0.1:3456/remote");
    let worker = world.start().await;
    let healthy = worker.storage_local().await.unwrap().into_keys().next().unwrap();
    let (hangs, dir) = another_path(&worker).await;
    worker.register(options().0).await.unwrap();
    // Whoever reads a pipe waits until somebody writes into it.
    let meta = dir.path().join("sectorstore.json");
    let told = std::fs::read(&meta).unwrap();
    std::fs::remove_file(&meta).unwrap();
    nix::unistd::mkfifo(&meta, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _readers = Readers(meta.clone());
    // A new manager's index is empty.
    for id in [&healthy, &hangs] {
        manager.index.detach(id, url).await.unwrap();
    }
    let (declared, heard) = (manager.declared.borrow().len(), manager.healths.borrow().len());
    until(&manager.healths, |all| all[heard..].contains(&hangs).then_some(())).await;
    manager.restart();
    until(&manager.connects, |connects| (connects.len() == 2).then_some(())).await;
    until(&manager.declared, |all| all[declared..].contains(&healthy).then_some(())).await;
    let found = manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap();
    assert_eq!(found.len(), 1);
    // The manager does not know the one that hangs, and hears of the other one all the same.
    let told_of = |id: &StorageId| manager.healths.borrow().iter().filter(|one| *one == id).count();
    let (of_both, before) = ([&healthy, &hangs], [told_of(&healthy), told_of(&hangs)]);
    until(&manager.healths, |all| {
        let times = of_both.map(|id| all.iter().filter(|one| *one == id).count());
        (0..2).all(|at| times[at] >= before[at] + 3).then_some(())
    })
    .await;
    assert!(!manager.declared.borrow()[declared..].contains(&hangs), "it hangs still");
    let opening = tokio::time::timeout(scripted::PATIENCE, another_path(&worker));
    let (third, _third) = opening.await.expect("it is opened");
    assert!(manager.declared.borrow().contains(&third), "nor is another one kept from being opened");

    // It answers, and is declared without having been asked for again.
    let attached = *manager.attaches.borrow();
    tokio::task::spawn_blocking(move || {
        let mut pipe = std::fs::File::options().write(true).open(&meta).unwrap();
        let file = meta.with_extension("new");
        std::fs::write(&file, &told).unwrap();
        std::fs::rename(&file, &meta).unwrap();
        std::io::Write::write_all(&mut pipe, &told).unwrap();
    })
    .await
    .unwrap();
    until(&manager.declared, |all| all[declared..].contains(&hangs).then_some(())).await;
    assert!(*manager.attaches.borrow() > attached);
    assert_eq!(manager.connects.borrow().len(), 2, "without a second registration");
    worker.close().await;
}

#[tokio::test]
async fn a_new_manager_gets_everything_declared_again() {
    let world = World::new();
    let worker = world.start().await;
    let (options, statuses) = options();
    worker.register(options).await.unwrap();
    let id = worker.storage_local().await.unwrap().into_keys().next().unwrap();
    // A new manager's index is empty.
    world.manager.index.detach(&id, "http://127.0.0.1:3456/remote").await.unwrap();
    let before = *world.manager.attaches.borrow();
    world.manager.restart();
    until(&world.manager.connects, |connects| (connects.len() == 2).then_some(())).await;
    assert!(*world.manager.attaches.borrow() > before);
    let found = world.manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(*statuses.borrow(), [Status::Registered, Status::Registered]);
    worker.close().await;
}

/// One that was declared before the other, to a manager that is no more.
#[tokio::test]
async fn both_files_of_an_attempt_are_declared_to_the_manager_that_came_in_between() {
    let world = World::new();
    let worker = world.start().await;
    worker.register(options().0).await.unwrap();
    world.manager.ends_with_a_deed.store(true, Ordering::SeqCst);
    start_ok(&worker, pc1(Some(attempt(1)))).await;
    until(&world.manager.returns, |returns| (returns.len() == 1).then_some(())).await;
    for kind in [FileTypes::SEALED, FileTypes::CACHE] {
        let found = world.manager.index.find(SECTOR.id, kind, None).await.unwrap();
        assert_eq!(found.len(), 1, "{kind}");
    }
    worker.close().await;
}

#[tokio::test]
async fn a_lost_manager_is_asked_until_it_is_back() {
    let world = World::new();
    let worker = world.start().await;
    let (options, statuses) = options();
    worker.register(options).await.unwrap();
    world.manager.is_down(true);
    until(&statuses, |all| matches!(all.last(), Some(Status::Lost { .. })).then_some(())).await;
    world.manager.is_down(false);
    until(&statuses, |all| matches!(all.last(), Some(Status::Registered)).then_some(())).await;
    assert_eq!(world.manager.connects.borrow().len(), 1, "the same manager needs no second registration");
    worker.close().await;
}

#[tokio::test]
async fn towards_a_lotus_manager_nothing_is_pushed_and_files_are_declared_one_by_one() {
    let mut world = World::new();
    changeable(&mut world).lotus = true;
    let worker = world.start().await;
    let (options, _) = options();
    worker.register(options).await.unwrap();
    assert_eq!(world.manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap().len(), 1);
    worker.storage_redeclare_local(None, Missing::Drop).await.unwrap();
    world.manager.restart();
    until(&world.manager.connects, |connects| (connects.len() == 2).then_some(())).await;
    assert!(world.manager.states.borrow().is_empty());
    assert_eq!(*world.manager.batches.borrow(), 0);
    worker.close().await;
}

#[tokio::test]
async fn a_lotus_manager_is_joined_only_when_nothing_runs() {
    let mut world = World::new();
    changeable(&mut world).lotus = true;
    world.mode("hang");
    let worker = world.start().await;
    let (options, statuses) = options();
    let call = start_ok(&worker, pc1(None)).await;
    appears(&world.evidence("hangs")).await;
    let joining = tokio::spawn({
        let worker = worker.clone();
        async move { worker.register(options).await }
    });
    until(&statuses, |all| (all.last() == Some(&Status::WaitingForCalls { calls: 1 })).then_some(())).await;
    assert!(world.manager.connects.borrow().is_empty());
    std::fs::write(world.evidence("gate"), "go").unwrap();
    joining.await.unwrap().unwrap();
    assert_eq!(world.manager.connects.borrow().len(), 1);
    held(&worker, call, None).await;
    worker.close().await;
}

#[tokio::test]
async fn commit_2_is_offered_once_its_parameters_are_there() {
    let world = World::new();
    world.params.there.send_replace(false);
    world.params.failures.lock().unwrap().push("the gateway does not answer");
    let worker = world.start().await;
    assert!(!worker.task_types().await.unwrap().contains(&TaskType::Commit2));
    worker.register(options().0).await.unwrap();
    let pending = |words: &'static str| {
        until(&world.manager.states, move |states| {
            let told = |state: &rpc::extension::WorkerState| {
                state.pending.get(&TaskType::Commit2).is_some_and(|why| why.starts_with(words))
            };
            states.iter().any(told).then_some(())
        })
    };
    pending("fetching parameters, 34 %").await;
    let job = rpc::Job {
        sector: SECTOR,
        work: sealtasks::TaskInput::Commit2(sealtasks::Commit2Input { c1: sealtasks::C1Output(vec![]) }),
        attempt: None,
        data: None,
        gpus: Vec::new(),
    };
    let error = worker.start(job).await.unwrap_err().to_string();
    assert_eq!(error, "worker w1 does not take C2 now: fetching parameters, 34 %");
    world.params.there.send_replace(true);
    until(&world.manager.states, |states| {
        let last = states.last()?;
        (last.tasks.contains(&TaskType::Commit2) && last.pending.is_empty()).then_some(())
    })
    .await;
    assert_eq!(world.manager.connects.borrow().len(), 1, "without a restart or a second registration");
    worker.close().await;
}

#[tokio::test]
async fn parameters_that_somebody_else_brought_are_noticed() {
    let world = World::new();
    world.params.there.send_replace(false);
    world.params.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    let worker = world.start().await;
    worker.register(options().0).await.unwrap();
    assert!(!worker.task_types().await.unwrap().contains(&TaskType::Commit2));
    world.params.there.send_replace(true);
    until(&world.manager.states, |states| states.last()?.tasks.contains(&TaskType::Commit2).then_some(()))
        .await;
    worker.close().await;
}

#[tokio::test]
async fn a_path_that_the_manager_forgot_is_declared_again() {
    let world = World::new();
    let worker = world.start().await;
    let id = worker.storage_local().await.unwrap().into_keys().next().unwrap();
    let before = *world.manager.attaches.borrow();
    world.manager.index.detach(&id, "http://127.0.0.1:3456/remote").await.unwrap();
    // The next health report is refused, and the path attached again.
    until(&world.manager.attaches, |attaches| (*attaches > before).then_some(())).await;
    worker.close().await;
}

/// What `worker stop --now` asks, of one whose last results are not taken at once.
#[tokio::test]
async fn a_worker_that_stops_brings_no_path_back() {
    let mut world = World::new();
    // It asks and reports nothing by itself.
    world.periods.heartbeat = Duration::from_secs(3600);
    world.manager.returns_unreachable.store(true, Ordering::SeqCst);
    let worker = world.start().await;
    worker.register(options().0).await.unwrap();
    let call = start_ok(&worker, pc1(None)).await;
    held(&worker, call, Some(CallPhase::Returning)).await;
    let path = worker.storage_local().await.unwrap().into_keys().next().unwrap();
    worker.storage_detach_all().await.unwrap();
    worker.shutdown().await.unwrap();
    let attaches = *world.manager.attaches.borrow();
    // Another manager in between: it is joined for the results' sake. It says, too, that it does not know the path.
    world.manager.restart();
    let session = *world.manager.session.lock().unwrap();
    worker.beat(Beat { session, had: 0, unknown: vec![path] }).await.unwrap();
    until(&world.manager.connects, |connects| (connects.len() == 2).then_some(())).await;
    worker.wait_closed().await;
    assert_eq!(*world.manager.attaches.borrow(), attaches);
    assert!(world.manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn paths_are_added_and_detached() {
    let world = World::new();
    let worker = world.start().await;
    let no_path = tempfile::tempdir().unwrap();
    assert!(worker.storage_add_local(no_path.path().to_owned()).await.is_err(), "it is no storage path yet");
    let (id, dir) = another_path(&worker).await;
    assert_eq!(worker.storage_local().await.unwrap()[&id], dir.path());
    assert_eq!(worker.current_state().await.paths.len(), 2);
    worker.storage_detach_local(dir.path().to_owned()).await.unwrap();
    assert_eq!(worker.paths().await.unwrap().len(), 1);
    worker.storage_detach_all().await.unwrap();
    assert!(world.manager.index.find(SECTOR.id, FileTypes::UNSEALED, None).await.unwrap().is_empty());
    assert!(world.file(FileType::Unsealed).exists());
    worker.close().await;
}

#[tokio::test]
async fn enabled_and_quiet_are_answered() {
    let world = World::new();
    let worker = world.start().await;
    worker.wait_quiet().await.unwrap();
    worker.set_enabled(false).await.unwrap();
    assert!(!worker.enabled().await.unwrap());
    assert_eq!(worker.session().await.unwrap_err().to_string(), "worker disabled");
    assert_eq!(worker.process_session().await.unwrap(), worker.id());
    worker.set_enabled(true).await.unwrap();
    assert_eq!(worker.session().await.unwrap(), worker.id());
    let info = worker.info().await.unwrap();
    assert_eq!(info.hostname, "w1");
    assert!(info.resources.mem_physical > 0 && info.resources.table.is_some());
    worker.close().await;
}

/// Finds the one manager that there is.
async fn found(
    manager: &Arc<ScriptedManager>,
    token: &str,
    status: StatusSink,
) -> Result<ManagerFacts, WorkerError> {
    let (url, token) = ("http://manager".to_owned(), token.to_owned());
    let candidate = Candidate { url, token, api: manager.clone() };
    Managers::new(vec![candidate], rpc::Mark::default(), |_| {}, status).find().await
}

async fn checked(manager: ScriptedManager, token: &str) -> Result<ManagerFacts, String> {
    let found = found(&Arc::new(manager), token, Arc::new(|_| {})).await;
    found.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_manager_is_checked_before_anything_is_written() {
    let facts = checked(ScriptedManager::new(), "token").await.unwrap();
    assert_eq!((facts.actor, facts.sector_size), (ActorId::new(1000), SectorSize::KiB2));
    let error = checked(ScriptedManager::new(), "wrong").await.unwrap_err();
    assert!(error.contains("the token for the manager at http://manager is refused"), "{error}");
    let manager = ScriptedManager { permissions: vec![Permission::Read], ..ScriptedManager::new() };
    let error = checked(manager, "token").await.unwrap_err();
    assert!(error.contains("lacks the permission `admin`"), "{error}");
    let manager = ScriptedManager { api_version: 66817, ..ScriptedManager::new() };
    let error = checked(manager, "token").await.unwrap_err();
    assert!(error.contains("1.5.1") && error.contains("1.5.0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_does_not_answer_is_waited_for_and_that_is_said() {
    let manager = Arc::new(ScriptedManager::new());
    manager.is_down(true);
    let said = Arc::new(Mutex::new(Vec::new()));
    let (down, heard) = (Arc::clone(&manager), Arc::clone(&said));
    let status: StatusSink = Arc::new(move |status| {
        let mut heard = heard.lock().unwrap();
        heard.push(status);
        if heard.len() == 3 {
            down.is_down(false);
        }
    });
    found(&manager, "token", status).await.unwrap();
    let expected = Status::Waiting {
        url: "http://manager".into(),
        reason: "http://manager cannot be reached: connection refused".into(),
    };
    assert_eq!(*said.lock().unwrap(), vec![expected; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_falls_between_two_questions_is_waited_for_too() {
    for answers in 0..4 {
        let manager = Arc::new(ScriptedManager::new());
        *manager.falls_after.lock().unwrap() = Some(answers);
        let waits = Arc::new(Mutex::new(0));
        let (fallen, count) = (Arc::clone(&manager), Arc::clone(&waits));
        let status: StatusSink = Arc::new(move |status| {
            assert!(matches!(status, Status::Waiting { .. }), "{status:?}");
            *count.lock().unwrap() += 1;
            *fallen.falls_after.lock().unwrap() = None;
        });
        found(&manager, "token", status).await.unwrap();
        assert_eq!(*waits.lock().unwrap(), 1, "after {answers} answers");
    }
}
