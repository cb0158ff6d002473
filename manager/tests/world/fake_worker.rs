//! A fake worker: takes calls, moves index entries as a real one moves files, answers with canned outputs as asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use async_trait::async_trait;
use rpc::api::{AttemptAccount, Missing, StoragePath, WorkerInfo, WorkerResources};
use rpc::beat::{Beat, Beaten};
use rpc::extension::{CallPhase, HeldCall, Hello, WorkerState};
use rpc::{ApiError, ApiResult, Job, ManagerApi, ReturnMethod, Returned, WorkerApi};
use sealtasks::{
    AttemptId, CallError, CallErrorCode, CallId, FailureClass, FileTypes, PathType, ResourceTable,
    ScrubOrder, ScrubbedFile, SealingPlan, SectorId, StorageId, StorageInfo, StorageStanza, TaskCaps,
    TaskInput, TaskOutput, TaskType, WorkerId,
};
use tokio::sync::mpsc;
use uuid::Uuid;

pub use super::canned::{Behaviour, Plan};
use super::canned::{Pulse, call_nobody, code_of, repo_of, resources, roomy, serve_deletions};
use super::made::{output_of, read};

/// Bytes that a fake fetch claims to have received.
pub const FETCHED: u64 = 4096;

#[derive(Clone, Debug)]
pub struct Taken {
    pub call: CallId,
    pub attempt: Option<AttemptId>,
    pub work: TaskInput,
    pub data: Option<Vec<u8>>,
}

pub struct FakeWorker {
    me: Weak<Self>,
    name: &'static str,
    sealyard: bool,
    session: WorkerId,
    tasks: BTreeSet<TaskType>,
    pub sealing: StorageId,
    pub storage: Option<StorageId>,
    port: OnceLock<u16>,
    next_call: AtomicU64,
    silent: AtomicBool,
    /// What it says its session is; `None` = the truth.
    told: Mutex<Option<WorkerId>>,
    deaf: AtomicBool,
    script: Mutex<BTreeMap<&'static str, VecDeque<Behaviour>>>,
    held: Mutex<Vec<Taken>>,
    pub manager: Mutex<Option<Arc<dyn ManagerApi>>>,
    taken: mpsc::UnboundedSender<Taken>,
    /// Every call it took, in order; the tests are short, so nothing bounds it.
    pub calls: tokio::sync::Mutex<mpsc::UnboundedReceiver<Taken>>,
    pub deleted: Arc<Mutex<Vec<String>>>,
    /// Which sectors it takes.
    pub plan: Mutex<SealingPlan>,
    /// What it says otherwise of its state.
    pub tells: Mutex<fn(&mut WorkerState)>,
    /// Its resource table; `None` = Lotus's.
    pub table: Mutex<Option<ResourceTable>>,
    /// Scrubs that it may do now.
    pub scrubs: tokio::sync::Semaphore,
    pub pulse: Pulse,
}

impl FakeWorker {
    pub fn new(plan: Plan) -> Arc<Self> {
        let sealing = StorageId::from(Uuid::from_u64_pair(plan.seed, 1));
        Self::with_path(plan, sealing)
    }

    fn with_path(plan: Plan, sealing: StorageId) -> Arc<Self> {
        let (taken, calls) = mpsc::unbounded_channel();
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            name: plan.name,
            sealyard: plan.sealyard,
            session: WorkerId(Uuid::from_u64_pair(plan.seed, 0)),
            tasks: plan.tasks.iter().copied().collect(),
            sealing,
            storage: plan.stores.then(|| StorageId::from(Uuid::from_u64_pair(plan.seed, 2))),
            port: OnceLock::new(),
            next_call: AtomicU64::new(1),
            silent: AtomicBool::new(false),
            told: Mutex::new(None),
            deaf: AtomicBool::new(false),
            script: Mutex::default(),
            held: Mutex::default(),
            manager: Mutex::new(None),
            taken,
            calls: tokio::sync::Mutex::new(calls),
            deleted: Arc::default(),
            plan: Mutex::default(),
            tells: Mutex::new(|_| ()),
            table: Mutex::default(),
            scrubs: tokio::sync::Semaphore::new(0),
            pulse: Pulse::default(),
        })
    }

    /// Another life of this worker, which holds nothing: another session at the same address, with the same path for sealing.
    pub fn successor(&self, plan: Plan) -> Arc<Self> {
        let next = Self::with_path(plan, self.sealing.clone());
        next.port.set(*self.port.get().expect("the worker is served")).expect("not served yet");
        next
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/rpc/v0", self.port.get().expect("the worker is served"))
    }

    /// Says that it is served at this port, though nobody is there: for workers that are never called.
    pub fn pretend(&self, port: u16) {
        self.port.set(port).expect("served once");
    }

    /// Its next call of the work with this short code goes like this.
    pub fn script(&self, code: &'static str, behaviour: Behaviour) {
        self.script.lock().expect("no panic elsewhere").entry(code).or_default().push_back(behaviour);
    }

    /// Waits for the next call it takes.
    pub async fn next_call(&self) -> Taken {
        let mut calls = self.calls.lock().await;
        tokio::time::timeout(super::LIMIT, calls.recv())
            .await
            .expect("a call in time")
            .expect("the worker lives")
    }

    /// Waits for a call of the work with this code; others are passed over.
    pub async fn call_of(&self, code: &str) -> Taken {
        loop {
            let taken = self.next_call().await;
            if code_of(&taken.work) == code {
                return taken;
            }
        }
    }

    /// No call is waiting to be looked at.
    pub async fn is_idle(&self) -> bool {
        self.calls.lock().await.try_recv().is_err()
    }

    /// It loses everything it held.
    pub fn forget(&self) {
        self.held.lock().expect("no panic elsewhere").clear();
    }

    /// From now on it answers nothing, or everything again.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Release);
    }

    /// From now on it has this session.
    pub fn tell_session(&self, session: WorkerId) {
        *self.told.lock().expect("no panic elsewhere") = Some(session);
    }

    /// From now on it agrees to stop a call and goes on, or does stop.
    pub fn ignore_aborts(&self, ignore: bool) {
        self.deaf.store(ignore, Ordering::Release);
    }

    /// Whether it still works on this call.
    pub fn holds(&self, taken: &Taken) -> bool {
        self.held.lock().expect("no panic elsewhere").iter().any(|held| held.call == taken.call)
    }

    fn tell_state(&self) -> ApiResult<WorkerState> {
        self.answers()?;
        if !self.sealyard {
            return Err(ApiError::Remote { code: -32601, message: "method not found".to_owned() });
        }
        let held = self.held.lock().expect("no panic elsewhere");
        let phase = CallPhase::Running;
        let call = |taken: &Taken| {
            let call = taken.call.to_string();
            HeldCall { call, attempt: taken.attempt, phase, lingering: false }
        };
        let mut state = WorkerState {
            session: self.told.lock().expect("no panic elsewhere").unwrap_or(self.session),
            name: self.name.to_owned(),
            enabled: true,
            tasks: self.tasks.clone(),
            pending: BTreeMap::new(),
            mem_used: 0,
            mem_swap_used: 0,
            mem_beside: 0,
            paths: self.all_paths().into_iter().map(|(id, _, _)| id).collect(),
            calls: held.iter().map(call).collect(),
            caps: TaskCaps::none(),
            machine: None,
            repo: Some(repo_of(self.session)),
            plan: *self.plan.lock().expect("no panic elsewhere"),
            threads: Vec::new(),
        };
        self.tells.lock().expect("no panic elsewhere")(&mut state);
        Ok(state)
    }

    fn answers(&self) -> ApiResult<()> {
        if self.silent.load(Ordering::Acquire) {
            return Err(ApiError::Unreachable { url: self.url(), source: "connection refused".into() });
        }
        Ok(())
    }

    /// Serves its files to deletion, and declares its paths to the manager.
    pub async fn serve(&self, manager: Arc<dyn ManagerApi>) {
        *self.manager.lock().expect("no panic elsewhere") = Some(manager.clone());
        if self.port.get().is_none() {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            self.port.set(port).expect("served once");
            serve_deletions(listener, self.deleted.clone());
        }
        self.attach().await;
        for (id, ..) in self.all_paths() {
            manager.storage_declared_all(id).await.expect("taken");
        }
    }

    /// Attaches its paths, and has yet to declare what lies there.
    pub async fn attach(&self) {
        let manager = self.manager();
        for (id, can_seal, can_store) in self.all_paths() {
            let url = format!("http://127.0.0.1:{}/remote", self.port.get().expect("just set"));
            let stanza = StorageStanza { weight: 10, can_seal, can_store, ..StorageStanza::default() };
            let info = StorageInfo { id, urls: vec![url], stanza };
            manager.storage_attach(info, roomy()).await.expect("attached");
        }
    }

    /// Returns a held call's result.
    pub async fn finish(&self, taken: &Taken) {
        let manager = self.manager();
        self.move_files(&manager, taken.call.sector, &taken.work).await;
        self.give_back(&manager, taken, Ok(output_of(&taken.work, taken.data.as_deref()))).await;
    }

    /// Returns a held call as failed with this code.
    pub async fn fail(&self, taken: &Taken, code: i64) {
        let message = format!("it failed [name: {}]", self.name);
        let error = CallError { code: CallErrorCode::from(code), message };
        self.give_back(&self.manager(), taken, Err(error)).await;
    }

    /// Returns a held call as failed, with a class of failure, as a Sealyard worker does.
    pub async fn fail_as(&self, taken: &Taken, class: FailureClass) {
        let (method, attempt) = (ReturnMethod::of(&taken.work).expect("work that is called"), taken.attempt);
        let account = Some(AttemptAccount { class: Some(class), ..AttemptAccount::default() });
        let result = Err(CallError { code: CallErrorCode::Unknown, message: format!("{class:?}") });
        let returned = Returned { method, result, attempt, account };
        self.manager().return_result(taken.call, returned).await.expect("every return is acknowledged");
        self.held.lock().expect("no panic elsewhere").retain(|held| held.call != taken.call);
    }

    /// Declares files as if they had lain here before.
    pub async fn declare(&self, sector: SectorId, types: FileTypes) {
        let manager = self.manager();
        manager.storage_declare(self.sealing.clone(), sector, types, true).await.expect("declared");
    }

    fn manager(&self) -> Arc<dyn ManagerApi> {
        self.manager.lock().expect("no panic elsewhere").clone().expect("the worker is served")
    }

    fn all_paths(&self) -> Vec<(StorageId, bool, bool)> {
        let sealing = (self.sealing.clone(), true, false);
        let storage = self.storage.clone().map(|id| (id, false, true));
        std::iter::once(sealing).chain(storage).collect()
    }

    async fn give_back(
        &self,
        manager: &Arc<dyn ManagerApi>,
        taken: &Taken,
        result: Result<TaskOutput, CallError>,
    ) {
        let bytes_fetched = if matches!(taken.work, TaskInput::Fetch(_)) { FETCHED } else { 0 };
        let times = AttemptAccount { started_ms: 1_000, ended_ms: 1_001, ..AttemptAccount::default() };
        let account = AttemptAccount { bytes_fetched, ..times };
        let returned = Returned {
            method: ReturnMethod::of(&taken.work).expect("work that is called"),
            result,
            attempt: taken.attempt,
            account: self.sealyard.then_some(account),
        };
        manager.return_result(taken.call, returned).await.expect("every return is acknowledged");
        self.held.lock().expect("no panic elsewhere").retain(|held| held.call != taken.call);
    }

    /// What a real worker does to files, done to the index.
    async fn move_files(&self, manager: &Arc<dyn ManagerApi>, sector: SectorId, work: &TaskInput) {
        let (types, to, is_new) = match work {
            TaskInput::AddPiece(_) => (FileTypes::UNSEALED, self.sealing.clone(), true),
            TaskInput::PreCommit1(_) => (FileTypes::SEALED | FileTypes::CACHE, self.sealing.clone(), true),
            TaskInput::Fetch(input) => match (input.path_type, &self.storage) {
                (PathType::Storage, Some(storage)) => (input.types, storage.clone(), false),
                _ => (input.types, self.sealing.clone(), false),
            },
            TaskInput::Move(input) => (input.types, self.storage.clone().expect("a storing worker"), false),
            _ => return,
        };
        for kind in types.iter() {
            let holders = manager.storage_find(sector, kind.into(), None).await.expect("found");
            assert!(is_new || !holders.is_empty(), "{kind} of {sector} lies nowhere");
            for holder in holders.iter().filter(|holder| holder.id != to) {
                manager.storage_drop(holder.id.clone(), sector, kind.into()).await.expect("dropped");
            }
            manager.storage_declare(to.clone(), sector, kind.into(), true).await.expect("declared");
        }
    }

    async fn run(self: Arc<Self>, taken: Taken, behaviour: Behaviour) {
        let manager = self.manager();
        let result = match behaviour {
            Behaviour::Fail(code) => {
                let message = format!("it failed [name: {}]", self.name);
                Err(CallError { code: CallErrorCode::from(code), message })
            }
            _ => {
                self.move_files(&manager, taken.call.sector, &taken.work).await;
                Ok(output_of(&taken.work, taken.data.as_deref()))
            }
        };
        if behaviour == Behaviour::ReturnTwice {
            self.give_back(&manager, &taken, result.clone()).await;
        }
        self.give_back(&manager, &taken, result).await;
    }
}

#[async_trait]
impl WorkerApi for FakeWorker {
    async fn version(&self) -> ApiResult<u32> {
        Ok(rpc::versions::WORKER_VERSION)
    }

    async fn session(&self) -> ApiResult<WorkerId> {
        self.answers()?;
        Ok(self.told.lock().expect("no panic elsewhere").unwrap_or(self.session))
    }

    async fn process_session(&self) -> ApiResult<WorkerId> {
        self.session().await
    }

    async fn info(&self) -> ApiResult<WorkerInfo> {
        let table = self.table.lock().expect("no panic elsewhere").clone();
        let resources = WorkerResources { table, ..resources() };
        Ok(WorkerInfo { hostname: self.name.to_owned(), ignore_resources: false, resources })
    }

    async fn task_types(&self) -> ApiResult<BTreeSet<TaskType>> {
        Ok(self.tasks.clone())
    }

    async fn paths(&self) -> ApiResult<Vec<StoragePath>> {
        let path = |(id, can_seal, can_store): (StorageId, bool, bool)| StoragePath {
            id,
            weight: 10,
            local_path: "/nowhere".to_owned(),
            can_seal,
            can_store,
        };
        Ok(self.all_paths().into_iter().map(path).collect())
    }

    async fn start(&self, job: Job) -> ApiResult<CallId> {
        self.answers()?;
        let known = |taken: &&Taken| {
            taken.attempt.is_some() && taken.attempt == job.attempt && taken.work == job.work
        };
        if let Some(known) = self.held.lock().expect("no panic elsewhere").iter().find(known) {
            return Ok(known.call);
        }
        let code = code_of(&job.work);
        let behaviour =
            self.script.lock().expect("no panic elsewhere").get_mut(code).and_then(VecDeque::pop_front);
        let behaviour = behaviour.unwrap_or(Behaviour::Work);
        if behaviour == Behaviour::Refuse {
            return Err(ApiError::Remote { code: 1, message: "no room for this now".to_owned() });
        }
        if behaviour == Behaviour::Gone {
            return call_nobody(job).await;
        }
        let data = read(job.data).await;
        let number = self.next_call.fetch_add(1, Ordering::Relaxed);
        let id = Uuid::from_u64_pair(self.session.0.as_u64_pair().0, number);
        let taken =
            Taken { call: CallId { sector: job.sector.id, id }, attempt: job.attempt, work: job.work, data };
        self.held.lock().expect("no panic elsewhere").push(taken.clone());
        let own = self.me.upgrade().expect("a worker that is called lives");
        let call = taken.call;
        match behaviour {
            Behaviour::Hold | Behaviour::LoseBoth => {}
            Behaviour::ReturnFirst => own.run(taken.clone(), Behaviour::Work).await,
            ref other => drop(tokio::spawn(own.run(taken.clone(), other.clone()))),
        }
        self.taken.send(taken).expect("the test listens");
        match behaviour {
            Behaviour::LoseAnswer | Behaviour::LoseBoth => {
                Err(ApiError::Unreachable { url: self.url(), source: "the connection broke".into() })
            }
            _ => Ok(call),
        }
    }

    async fn abort(&self, call: CallId) -> ApiResult<()> {
        self.answers()?;
        if self.deaf.load(Ordering::Acquire) {
            return Ok(());
        }
        let held =
            self.held.lock().expect("no panic elsewhere").iter().find(|held| held.call == call).cloned();
        let Some(taken) = held else { return Err(ApiError::refused("no such call")) };
        let manager = self.manager();
        let error = CallError { code: CallErrorCode::Unknown, message: "task aborted".to_owned() };
        let own = self.me.upgrade().expect("a worker that is called lives");
        tokio::spawn(async move { own.give_back(&manager, &taken, Err(error)).await });
        Ok(())
    }

    async fn scrub(&self, _order: ScrubOrder) -> ApiResult<Vec<ScrubbedFile>> {
        self.scrubs.acquire().await.expect("never closed").forget();
        Ok(Vec::new())
    }

    async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>> {
        Ok(self.sealyard.then_some(hello))
    }

    async fn beat(&self, beat: Beat) -> ApiResult<Beaten> {
        Ok(self.pulse.answer(beat, self.tell_state()?))
    }

    async fn state(&self) -> ApiResult<WorkerState> {
        self.pulse.state_alone();
        self.tell_state()
    }

    async fn task_enable(&self, _task: TaskType) -> ApiResult<()> {
        not_asked()
    }

    async fn task_disable(&self, _task: TaskType) -> ApiResult<()> {
        not_asked()
    }

    async fn remove(&self, _sector: SectorId) -> ApiResult<()> {
        not_asked()
    }

    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        not_asked()
    }

    async fn storage_add_local(&self, _path: PathBuf) -> ApiResult<()> {
        not_asked()
    }

    async fn storage_detach_local(&self, _path: PathBuf) -> ApiResult<()> {
        not_asked()
    }

    async fn storage_detach_all(&self) -> ApiResult<()> {
        not_asked()
    }

    async fn storage_redeclare_local(&self, _path: Option<StorageId>, _missing: Missing) -> ApiResult<()> {
        not_asked()
    }

    async fn enabled(&self) -> ApiResult<bool> {
        Ok(true)
    }

    async fn set_enabled(&self, _enabled: bool) -> ApiResult<()> {
        not_asked()
    }

    async fn wait_quiet(&self) -> ApiResult<()> {
        not_asked()
    }

    async fn shutdown(&self) -> ApiResult<()> {
        not_asked()
    }
}

fn not_asked<T>() -> ApiResult<T> {
    Err(ApiError::refused("a manager asks no worker for this"))
}
