//! The worker's repo: made when everything else is known to be right, held by one process, taken over as it is.

mod scripted;

use std::fs;

use scripted::World;
use sealtasks::TaskType;
use worker::{FirstPath, Repo, Worker, WorkerError};

#[test]
fn a_first_start_makes_a_sealing_path_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/worker");
    assert!(Repo::open(&path).unwrap().is_none());
    assert!(!path.exists(), "looking changes nothing");
    let repo = Repo::open_or_create(&path, FirstPath::Sealing).unwrap();
    assert!(repo.config().executor_environment.is_empty());
    let meta: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("sectorstore.json")).unwrap()).unwrap();
    assert_eq!(
        (&meta["Weight"], &meta["CanSeal"], &meta["CanStore"]),
        (&10.into(), &true.into(), &false.into())
    );
    let storage: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("storage.json")).unwrap()).unwrap();
    assert_eq!(storage["StoragePaths"][0]["Path"], path.to_str().unwrap());
}

#[test]
fn without_local_storage_there_is_no_path() {
    let dir = tempfile::tempdir().unwrap();
    let _repo = Repo::open_or_create(dir.path(), FirstPath::None).unwrap();
    assert!(!dir.path().join("sectorstore.json").exists() && !dir.path().join("storage.json").exists());
}

#[test]
fn a_repo_is_held_once_and_says_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::open_or_create(dir.path(), FirstPath::Sealing).unwrap();
    let error = Repo::open_or_create(dir.path(), FirstPath::Sealing).unwrap_err().to_string();
    assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
    let before = fs::read(dir.path().join("sectorstore.json")).unwrap();
    drop(repo);
    let _again = Repo::open_or_create(dir.path(), FirstPath::Sealing).unwrap();
    assert_eq!(fs::read(dir.path().join("sectorstore.json")).unwrap(), before, "the path stays what it was");
}

#[test]
fn a_mistake_in_the_settings_is_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(Repo::open_or_create(dir.path(), FirstPath::None).unwrap());
    fs::write(dir.path().join("config.toml"), "[executor.pc1.evn]\n").unwrap();
    let error = Repo::open(dir.path()).unwrap_err().to_string();
    assert_eq!(error, "config.toml: unknown key `executor.pc1.evn`; did you mean `executor.pc1.env`?");
}

#[tokio::test]
async fn tasks_that_are_not_built_are_refused() {
    let mut world = World::new();
    world.tasks = vec![TaskType::PreCommit1, TaskType::ReplicaUpdate];
    let error = Worker::start(world.options(world.repo())).await.err().unwrap();
    assert!(matches!(error, WorkerError::NotBuilt { task: TaskType::ReplicaUpdate, .. }), "{error}");
    assert!(
        error.to_string().starts_with("RU (seal/v0/replicaupdate) is not built into this program"),
        "{error}"
    );
}

#[tokio::test]
async fn a_corrupt_path_is_a_problem_and_the_worker_starts() {
    let world = World::new();
    let repo = world.repo();
    fs::write(world.repo_dir().join("sectorstore.json"), "{").unwrap();
    let worker = Worker::start(world.options(repo)).await.unwrap();
    assert_eq!(worker.path_problems().len(), 1);
    assert_eq!(worker.path_problems()[0].path, world.repo_dir());
    worker.close().await;
}
