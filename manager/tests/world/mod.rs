//! A manager on a temporary repo with fake workers: real durable state, scheduler, index and (where used) sockets; the
//! tasks' outputs are canned, since nothing is proven here.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod canned;
pub mod fake_worker;
pub mod lost;
pub mod made;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use manager::state::{ChainIdentity, State, StateEvent};
use manager::{
    BackOff, ChainChoice, Dialer, InitOptions, Manager, ManagerError, ManagerHandle, ManagerOptions, Repo,
    RpcDialer, Timing, Verifier,
};
use rpc::extension::SectorDetail;
use rpc::{ApiError, ApiResult, ManagerApi, Mark, OperatorApi, Transport, Trust, WorkerApi};
use sealtasks::{
    ActorId, HealthReport, SectorRef, SectorSize, StorageId, StorageStanza, TaskType, VerifyInput,
};
use stores::{Index as _, MemIndex};
use tempfile::TempDir;

use fake_worker::FakeWorker;

/// Every task that a sector needs.
pub const ALL: &[TaskType] = &[
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
    TaskType::Fetch,
];

/// Nothing that is waited for takes longer, even on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The manager under test and what it stands on.
pub struct World {
    pub dir: TempDir,
    pub handle: ManagerHandle,
    pub api: Arc<dyn ManagerApi>,
    pub operator: Arc<dyn OperatorApi>,
    pub dialer: Arc<FakeDialer>,
    pub chain: ChainChoice,
}

/// Finds fake workers by URL; everything else is dialled for real.
#[derive(Default)]
pub struct FakeDialer(Mutex<BTreeMap<String, Arc<FakeWorker>>>);

impl FakeDialer {
    /// From now on this worker answers at its URL.
    pub fn know(&self, worker: &Arc<FakeWorker>) {
        self.0.lock().expect("no panic elsewhere").insert(worker.url(), worker.clone());
    }
}

#[async_trait]
impl Dialer for FakeDialer {
    async fn dial(
        &self,
        url: &str,
        token: &str,
        transport: Transport,
        mark: &Mark,
    ) -> ApiResult<Arc<dyn WorkerApi>> {
        let known = self.0.lock().expect("no panic elsewhere").get(url).cloned();
        match known {
            Some(worker) => Ok(worker),
            None => RpcDialer { trust: Trust::system() }.dial(url, token, transport, mark).await,
        }
    }
}

/// Believes every proof.
struct Believer;

#[async_trait]
impl Verifier for Believer {
    async fn verify(&self, _sector: SectorRef, input: VerifyInput) -> Result<bool, String> {
        Ok(!input.proof.0.is_empty())
    }
}

/// Short periods, so that back-offs pass while a test waits for what follows them.
fn timing() -> Timing {
    let quick = BackOff { first_ms: 20, most_ms: 100 };
    Timing {
        start_back_off: quick,
        call_again: quick,
        heartbeat: Duration::from_millis(200),
        look_around: Duration::from_millis(100),
        reader_stall: Duration::from_millis(200),
        newer_gone: Duration::from_millis(200),
        file_awaited: Duration::from_millis(200),
        ..Timing::default()
    }
}

/// Makes a repo without storage of its own and starts a manager on it.
pub async fn world() -> World {
    world_with("").await
}

/// The same, with this `config.toml`.
pub async fn world_with(config: &str) -> World {
    world_on(ChainChoice::Offline, config).await
}

/// The same, for this chain.
pub async fn world_on(chain: ChainChoice, config: &str) -> World {
    world_judged(chain, config, Arc::new(Believer)).await
}

/// The same, whose proofs are judged so.
pub async fn world_judged(chain: ChainChoice, config: &str, verifier: Arc<dyn Verifier>) -> World {
    let dir = TempDir::new().expect("a temporary directory");
    let identity = match &chain {
        ChainChoice::Offline => None,
        ChainChoice::Lotus { lotus, .. } => Some(ChainIdentity::of(lotus)),
    };
    let options = InitOptions { chain: identity, ..InitOptions::new(ActorId::new(1000), SectorSize::KiB2) };
    Repo::init(&dir.path().join("repo"), options).expect("a new repo");
    if !config.is_empty() {
        std::fs::write(dir.path().join("repo/config.toml"), config).expect("config.toml");
    }
    let dialer = Arc::new(FakeDialer::default());
    let started = start_judged(&dir.path().join("repo"), &dialer, chain.clone(), timing(), verifier).await;
    let handle = started.expect("the manager starts");
    World { api: handle.api(), operator: handle.operator_api(), dir, handle, dialer, chain }
}

/// Starts a manager on a repo, with short periods.
pub async fn start(
    repo: &Path,
    dialer: &Arc<FakeDialer>,
    chain: ChainChoice,
) -> Result<ManagerHandle, ManagerError> {
    start_timed(repo, dialer, chain, timing()).await
}

/// The same, with these periods.
pub async fn start_timed(
    repo: &Path,
    dialer: &Arc<FakeDialer>,
    chain: ChainChoice,
    timing: Timing,
) -> Result<ManagerHandle, ManagerError> {
    start_judged(repo, dialer, chain, timing, Arc::new(Believer)).await
}

async fn start_judged(
    repo: &Path,
    dialer: &Arc<FakeDialer>,
    chain: ChainChoice,
    timing: Timing,
    verifier: Arc<dyn Verifier>,
) -> Result<ManagerHandle, ManagerError> {
    let options = ManagerOptions {
        repo: Repo::open(repo).expect("the repo is free"),
        chain,
        remote_urls: vec!["http://127.0.0.1:9/remote".to_owned()],
        advertised: None,
        software: "sealyard test".to_owned(),
        verifier,
        dialer: dialer.clone(),
        trust: Trust::system(),
        timing,
        begun: Vec::new(),
    };
    let started = Manager::start(options).await?;
    tokio::spawn(keep_fresh(Arc::downgrade(&started.index())));
    Ok(started)
}

/// Fake workers report no health, without which a path is not used after a while: what was last said of one holds, however long
/// a test takes.
async fn keep_fresh(index: Weak<MemIndex>) {
    let mut due = tokio::time::interval(Duration::from_secs(10));
    loop {
        due.tick().await;
        let Some(index) = index.upgrade() else { return };
        for path in index.paths().into_iter().filter(|path| path.confirmed) {
            let report = HealthReport { stat: path.stat, error: path.error };
            // It may have been detached meanwhile.
            drop(index.report_health(&path.info.id, report).await);
        }
    }
}

impl World {
    /// Makes the worker known under its URL and declares its paths; it does not join.
    pub async fn know(&self, worker: &Arc<FakeWorker>) {
        worker.serve(self.api.clone()).await;
        self.dialer.know(worker);
    }

    /// Makes the worker known under its URL, declares its paths and registers it.
    pub async fn join(&self, worker: &Arc<FakeWorker>) {
        self.know(worker).await;
        self.api.worker_connect(worker.url()).await.expect("the worker is registered");
    }

    /// Opens a path for storing in the manager itself, in which these files lie, with these members; the content is of no
    /// matter. Where it is, and its id.
    pub async fn own_path(&self, files: &[(&str, &[&str])]) -> (PathBuf, StorageId) {
        let (dir, id) = (self.dir.path().join("own"), StorageId::from(uuid::Uuid::from_u64_pair(9, 9)));
        let stanza = StorageStanza { weight: 10, can_store: true, ..StorageStanza::default() };
        stores::init_path(&dir, &stores::StorageMeta::new(&id, &stanza)).expect("a new path");
        for (name, members) in files {
            std::fs::create_dir_all(dir.join(name)).expect("a directory");
            for member in *members {
                std::fs::write(dir.join(name).join(member), "some").expect("a member");
            }
        }
        self.api.storage_add_local(dir.clone()).await.expect("it opens");
        (dir, id)
    }

    /// Stops the manager and starts another one on the same repo.
    pub async fn restart(self) -> Self {
        self.restart_after(Vec::new()).await
    }

    /// The same, with these events as the last that the first manager committed.
    pub async fn restart_after(self, events: Vec<StateEvent>) -> Self {
        let (dir, dialer, chain) = self.stop().await;
        if !events.is_empty() {
            let state = State::open(&dir.path().join("repo/state.db")).expect("the state");
            state.commit(events).await.expect("committed");
        }
        Self::start_again(dir, dialer, chain).await
    }

    /// The same, with its database edited by hand meanwhile.
    pub async fn restart_on(self, edit: impl FnOnce(&rusqlite::Connection)) -> Self {
        self.restart_with(|dir| {
            edit(&rusqlite::Connection::open(dir.join("repo/state.db")).expect("the state"));
        })
        .await
    }

    /// The same, with something done meanwhile to the directory that its repo lies in.
    pub async fn restart_with(self, meanwhile: impl FnOnce(&Path)) -> Self {
        let (dir, dialer, chain) = self.stop().await;
        meanwhile(dir.path());
        Self::start_again(dir, dialer, chain).await
    }

    /// Stops the manager, and gives what it stood on.
    pub async fn stop(self) -> (TempDir, Arc<FakeDialer>, ChainChoice) {
        let Self { dir, handle, api, operator, dialer, chain } = self;
        handle.stop().await;
        drop((handle, api, operator));
        (dir, dialer, chain)
    }

    async fn start_again(dir: TempDir, dialer: Arc<FakeDialer>, chain: ChainChoice) -> Self {
        let started = start(&dir.path().join("repo"), &dialer, chain.clone()).await;
        let handle = started.expect("the manager starts again");
        Self { api: handle.api(), operator: handle.operator_api(), dir, handle, dialer, chain }
    }

    /// The sector, once `holds` is true of it. Asks again and again: every answer goes through the driver.
    pub async fn sector(&self, number: u64, holds: impl Fn(&SectorDetail) -> bool) -> SectorDetail {
        let wait = async {
            loop {
                let detail = self.detail(number).await.expect("the sector is there");
                if holds(&detail) {
                    return detail;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(detail) => detail,
            Err(_) => panic!("never came: {:#?}", self.detail(number).await),
        }
    }

    async fn detail(&self, number: u64) -> Result<SectorDetail, ApiError> {
        self.api.sector_detail(sealtasks::SectorNumber::new(number).into()).await
    }
}

/// The attempts of one task of a sector: state and worker of each.
pub fn attempts(detail: &SectorDetail, task: &str) -> Vec<(String, String)> {
    let of_task = detail.tasks.iter().filter(|row| row.task.short() == task);
    of_task.map(|row| (row.state.clone(), row.worker.clone().unwrap_or_default())).collect()
}
