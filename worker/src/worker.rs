//! A worker: what it is made of, how it starts and how it ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rpc::api::WorkerResources;
use rpc::extension::{ExecutorSetting, MachineIdentity, WorkerState};
use rpc::{ManagerApi, Trust};
use sealtasks::{SealingPlan, SectorSize, TaskCaps, TaskType, WorkerId};
use stores::{
    BegunFile, FetchOptions, Index, Local, LocalOptions, PathProblem, PeerTokens, Rehearsal, Remote,
    StoreError,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::beats::Beats;
use crate::calls::Calls;
use crate::declarations::Declarations;
use crate::error::{WorkerError, chain};
use crate::executor::ExecutorOptions;
use crate::journal::Journal;
use crate::legacy::{self, Left};
use crate::manager_index::ManagerIndex;
use crate::managers::Managers;
use crate::offer::{self, Offer, ProofParams};
use crate::periods::Periods;
use crate::process::Orphan;
use crate::registration::report_health_for_ever;
use crate::repo::Repo;
use crate::resources::{self, Swap};
use crate::spare::{self, Keeper, Spares};
use crate::threads::{self, Threads};
use crate::tickets::Tickets;
use crate::{call, proving, returns};

/// Starts workers.
pub struct Worker;

/// What a worker is made of.
pub struct WorkerOptions {
    /// Its repo, held by this process.
    pub repo: Repo,
    /// Its name, by default the host's.
    pub name: String,
    /// The manager: a client, or the manager itself for its own worker.
    pub manager: Arc<dyn ManagerApi>,
    /// Which manager it serves, of those that it was told of. `None`: it lives in its manager.
    pub managers: Option<Arc<Managers>>,
    /// The miner's sector size.
    pub sector_size: SectorSize,
    /// Base URLs under which others fetch this worker's files: `http://host:port/remote`.
    pub urls: Vec<String>,
    /// The token for fetching from others.
    pub token: String,
    /// The tasks it was asked to offer.
    pub tasks: BTreeSet<TaskType>,
    /// Which sectors it takes where no sealing thread says otherwise.
    pub plan: SealingPlan,
    /// What runs them.
    pub executor: ExecutorOptions,
    /// The proofs libraries' settings that its executors get, as it tells those who ask. `cli` works them out.
    pub settings: Vec<ExecutorSetting>,
    /// The proof parameters.
    pub params: Arc<dyn ProofParams>,
    /// Which certificates of https peers are believed when files are fetched.
    pub trust: Trust,
    /// Most transfers at once.
    pub parallel_fetch_limit: usize,
    /// What this machine has; see [`resources::detect`].
    pub resources: WorkerResources,
    /// Whether swap counts.
    pub swap: Swap,
    /// Whether the scheduler looks at resources at all.
    pub ignore_resources: bool,
    /// At most so many tasks at once; the manager keeps to it.
    pub caps: TaskCaps,
    /// The machine it runs on, if it is to be told; see [`crate::machine`].
    pub machine: Option<MachineIdentity>,
    /// The manager's own open paths, for its own worker; `None` = the paths of the repo's `storage.json`.
    pub local: Option<Arc<Local>>,
    /// How often things happen.
    pub periods: Periods,
}

/// How long a worker that stops at once waits until the manager has taken its last results.
pub const LAST_RETURNS: Duration = Duration::from_secs(5);

/// A running worker. Clones are the same worker.
#[derive(Clone)]
pub struct WorkerHandle(Arc<Shared>);

/// What all parts of a worker share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) session: WorkerId,
    /// The manager process that has known this session since an earlier life.
    pub(crate) joined_before: Option<Uuid>,
    /// Tells it from all others, whatever its session, name and address.
    repo_id: Uuid,
    pub(crate) manager: Arc<dyn ManagerApi>,
    pub(crate) managers: Option<Arc<Managers>>,
    pub(crate) sector_size: SectorSize,
    pub(crate) journal: Journal,
    pub(crate) beats: Beats,
    pub(crate) calls: Calls,
    pub(crate) offer: Offer,
    pub(crate) threads: Threads,
    pub(crate) local: Arc<Local>,
    pub(crate) declarations: Declarations,
    /// Whether the paths are this worker's own and not the manager's.
    pub(crate) owns_paths: bool,
    pub(crate) urls: Vec<String>,
    pub(crate) remote: Remote,
    pub(crate) trust: Trust,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) index: Arc<ManagerIndex>,
    pub(crate) executor: ExecutorOptions,
    /// Where executors come from that were started ahead.
    pub(crate) spares: Spares,
    pub(crate) settings: Vec<ExecutorSetting>,
    pub(crate) params: Arc<dyn ProofParams>,
    pub(crate) resources: WorkerResources,
    pub(crate) swap: Swap,
    pub(crate) ignore_resources: bool,
    caps: TaskCaps,
    machine: Option<MachineIdentity>,
    pub(crate) enabled: AtomicBool,
    pub(crate) periods: Periods,
    /// Counts changes of the state; watched by whoever pushes it.
    change: watch::Sender<u64>,
    /// Counts the manager's returns; results that wait are offered at once.
    pub(crate) manager_back: watch::Sender<u64>,
    /// Cancelled when the worker closes; every background task ends on it.
    pub(crate) closed: CancellationToken,
    /// Cancelled earlier when calls are given up but their results are still returned; with `closed` at the latest.
    pub(crate) stopping: CancellationToken,
    /// Set before `closed` when executors are left running.
    pub(crate) leaving: AtomicBool,
    pub(crate) tasks: TaskTracker,
    /// Memory set aside for scrubbing, in bytes.
    pub(crate) beside: AtomicU64,
    /// One sector is scrubbed at a time.
    pub(crate) scrubbing: Semaphore,
    /// Proofs that may still be begun; see [`crate::proving`].
    pub(crate) proving: Arc<Semaphore>,
    problems: Vec<PathProblem>,
    /// Held to the end: the lock on the repo.
    repo: Repo,
}

impl Worker {
    /// Starts a worker: takes over or ends what an earlier life left, opens the storage paths, and offers the results that
    /// were never taken. It does not join the manager yet; see [`WorkerHandle::register`].
    ///
    /// # Errors
    /// A task that is not built in, a journal or path that cannot be used, a limit on memory that cannot be given.
    pub async fn start(options: WorkerOptions) -> Result<WorkerHandle, WorkerError> {
        let threads = threads::checked(&options)?;
        options.executor.confiner.prepare()?;
        let (spares, keeper) = spare::spares(&options);
        let journal = open_journal(&options.repo, options.token.clone(), options.managers.as_deref()).await?;
        let index = Arc::new(ManagerIndex::new(Arc::clone(&options.manager)));
        // Before the paths are opened: what a dead executor half wrote must not be found and declared.
        let left = sorted_out(&options, &journal, &index).await?;
        let life = left.begin_life(&journal, &options.urls).await?;
        let repo_id = journal.run(|journal| journal.repo_id(Uuid::new_v4())).await?;
        let as_index: Arc<dyn Index> = Arc::clone(&index) as Arc<dyn Index>;
        let (owns_paths, config) = (options.local.is_none(), options.repo.storage_json());
        let paths = LocalOptions { config, urls: options.urls.clone(), index: Arc::clone(&as_index) };
        let (local, problems) =
            open_paths(options.local, paths, options.executor.rehearsal, left.begun()).await?;
        let tickets = Arc::new(Tickets::new(Arc::clone(&options.manager), life.session, options.token));
        // Peers are shown what `Tickets` gives and no other token.
        let fetch = FetchOptions { token: String::new(), parallel: options.parallel_fetch_limit };
        let remote = Remote::new(Arc::clone(&local), as_index, fetch)
            .with_tokens(Arc::clone(&tickets) as Arc<dyn PeerTokens>)
            .with_tls(options.trust.config())
            .with_limits_kept_in(options.repo.limits_file())?;
        let closed = CancellationToken::new();
        let shared = Arc::new(Shared {
            name: options.name,
            session: life.session,
            joined_before: life.joined,
            repo_id,
            manager: options.manager,
            managers: options.managers,
            sector_size: options.sector_size,
            journal,
            beats: Beats::default(),
            calls: Calls::default(),
            offer: Offer::new(options.tasks),
            threads,
            local,
            declarations: Declarations::default(),
            owns_paths,
            urls: options.urls,
            remote,
            trust: options.trust,
            tickets,
            index,
            executor: options.executor,
            spares,
            settings: options.settings,
            params: options.params,
            resources: options.resources,
            swap: options.swap,
            ignore_resources: options.ignore_resources,
            caps: options.caps,
            machine: options.machine,
            enabled: AtomicBool::new(true),
            periods: options.periods,
            change: watch::Sender::new(0),
            manager_back: watch::Sender::new(0),
            stopping: closed.child_token(),
            closed,
            leaving: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            beside: AtomicU64::new(0),
            scrubbing: Semaphore::new(1),
            proving: proving::turns(),
            problems,
            repo: options.repo,
        });
        left.survivors.into_iter().for_each(|survivor| call::resume(&shared, survivor));
        left.lingering.into_iter().for_each(|lost| call::outwait(&shared, lost));
        shared.begin(keeper).await?;
        Ok(WorkerHandle(shared))
    }
}

/// What an earlier life left and goes on; all else of it is over.
async fn sorted_out(
    options: &WorkerOptions,
    journal: &Journal,
    index: &ManagerIndex,
) -> Result<Left, WorkerError> {
    let (calls, end) = (options.repo.dir().join("calls"), Instant::now() + options.periods.death);
    let left = legacy::sort_out(journal, &options.name, &calls, index, end).await?;
    legacy::sweep_call_dirs(&calls, &left.held(), &options.executor.confiner, end).await?;
    Ok(left)
}

/// The repo's journal, for the calls of the manager that takes this token, and that was chosen.
async fn open_journal(
    repo: &Repo,
    token: String,
    managers: Option<&Managers>,
) -> Result<Journal, WorkerError> {
    let file = repo.dir().join(Journal::FILE_NAME);
    let dir = repo.dir().to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        stores::discard_unfinished(&dir);
        Journal::open(&file)
    });
    let journal = opened.await.map_err(|_| WorkerError::Closed)??;
    journal.run(move |journal| journal.serves(&token)).await?;
    if let Some(managers) = managers {
        managers.remember_in(&journal).await?;
    }
    Ok(journal)
}

/// The worker's own paths, for which a manager that does not answer is waited for, or those of the manager that it lives in.
async fn open_paths(
    managers: Option<Arc<Local>>,
    own: LocalOptions,
    rehearsal: Option<Rehearsal>,
    begun: Vec<BegunFile>,
) -> Result<(Arc<Local>, Vec<PathProblem>), WorkerError> {
    if let Some(local) = managers {
        return Ok((local, Vec::new()));
    }
    loop {
        let (config, urls, index) = (own.config.clone(), own.urls.clone(), Arc::clone(&own.index));
        match Local::open_beside(LocalOptions { config, urls, index }, rehearsal, begun.clone()).await {
            Err(StoreError::Index(error)) if legacy::is_unreachable(&error) => {
                tracing::warn!(error = %chain(&error), "the manager does not answer; asking it again");
                tokio::time::sleep(legacy::MANAGER_RETRY).await;
            }
            opened => return Ok(opened?),
        }
    }
}

impl WorkerHandle {
    /// The session of this life.
    pub fn id(&self) -> WorkerId {
        self.0.session
    }

    /// Storage paths that could not be opened, each with its reason; the others are in use.
    pub fn path_problems(&self) -> &[PathProblem] {
        &self.0.problems
    }

    /// Changes whenever the worker's state does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    /// The state as it is pushed to a Sealyard manager.
    pub async fn current_state(&self) -> WorkerState {
        self.0.state().await
    }

    /// Ends the worker and leaves its executors running: a worker that starts on this repo takes them over. What only
    /// waits for files, or reads its piece from this process, is given up then. Returns how many are left running, when
    /// everything in the background has stopped.
    pub async fn leave(&self) -> usize {
        self.0.leaving.store(true, Ordering::Relaxed);
        self.close().await;
        // As its next life will find them.
        let unfinished = self.0.journal.run(|journal| journal.unfinished()).await.unwrap_or_default();
        let marks = unfinished.iter().filter_map(|call| call.process.as_ref());
        marks.filter(|mark| Orphan::find(mark).is_some()).count()
    }

    /// Ends the worker at once: executors are killed, and what they did is returned as restarted, which puts it into
    /// another's hands. Returns the number of results that the manager has not taken within [`LAST_RETURNS`]; the next life
    /// offers them.
    pub async fn stop_now(&self) -> usize {
        self.begin_to_stop();
        let quiet = tokio::time::timeout(LAST_RETURNS, self.0.wait_empty()).await;
        let left = if quiet.is_ok() { 0 } else { self.0.calls.len() };
        self.close().await;
        left
    }

    /// From here on it takes no call, and declares nothing.
    pub(crate) fn begin_to_stop(&self) {
        self.0.enabled.store(false, Ordering::Relaxed);
        self.0.stopping.cancel();
        self.0.changed();
    }

    /// Ends the worker: no new calls, executors are killed, and everything in the background stops. Calls that ran are
    /// returned as restarted when a worker next starts on this repo. Returns when all of it is done.
    pub async fn close(&self) {
        self.0.closed.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Returns when the worker has been closed, by [`WorkerHandle::close`] or over the wire.
    pub async fn wait_closed(&self) {
        self.0.closed.cancelled().await;
        self.0.tasks.wait().await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

/// Whom the manager does not know yet gets no token for asking.
async fn settle_debts_for_ever(shared: &Shared) {
    let mut known = shared.manager_back.subscribe();
    if known.wait_for(|times| *times > 0).await.is_ok() {
        shared.remote.settle_debts_for_ever().await;
    }
}

impl Shared {
    /// Starts what runs in the background, once all that goes on of an earlier life is held.
    async fn begin(self: &Arc<Self>, keeper: Option<Keeper>) -> Result<(), WorkerError> {
        self.local.begun_settled();
        keeper.map(|keeper| self.tasks.spawn(keeper.keep(self.closed.clone())));
        offer::look_after_parameters(self).await;
        threads::look_after(self).await;
        if self.owns_paths {
            let own = Arc::clone(self);
            self.tasks.spawn(async move {
                tokio::select! {
                    // What was taken out of the index before a stop stays out of it.
                    () = own.stopping.cancelled() => {}
                    () = report_health_for_ever(&own) => {}
                }
            });
            let own = Arc::clone(self);
            self.tasks.spawn(async move {
                tokio::select! {
                    () = own.closed.cancelled() => {}
                    () = own.local.keep_tidy() => {}
                    () = settle_debts_for_ever(&own) => {}
                }
            });
        }
        for (accepted, ended) in self.journal.run(|journal| journal.unreturned()).await? {
            returns::spawn(self, accepted, ended);
        }
        Ok(())
    }

    /// Something that the state tells has changed.
    pub(crate) fn changed(&self) {
        self.change.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.change.subscribe()
    }

    /// Whether the worker was told of several managers, so that what one of them refuses is no reason to end.
    pub(crate) fn has_choice(&self) -> bool {
        self.managers.as_ref().is_some_and(|managers| managers.are_several())
    }

    /// The manager answers again.
    pub(crate) fn manager_is_back(&self) {
        self.manager_back.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns when nothing acquires or runs.
    pub(crate) async fn wait_quiet(&self) {
        let mut changes = self.changes();
        while self.calls.busy() > 0 {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Returns when no call is held: every result is with the manager.
    async fn wait_empty(&self) {
        let mut changes = self.changes();
        while self.calls.len() > 0 {
            let _ = changes.changed().await;
        }
    }

    /// Whether executors are left running while this life ends.
    pub(crate) fn leaves(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Where a call's request, report and log are.
    pub(crate) fn call_dir(&self, call: Uuid) -> PathBuf {
        self.repo.dir().join("calls").join(call.to_string())
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// What this worker knows of itself.
    pub(crate) async fn state(&self) -> WorkerState {
        let (pids, swap) = (self.calls.pids(), self.swap);
        let measure = move || {
            let own: u64 = pids.into_iter().map(resources::resident).sum();
            let memory = resources::memory(swap);
            (memory.used.saturating_sub(own), memory.swap_used)
        };
        let (mem_used, mem_swap_used) = tokio::task::spawn_blocking(measure).await.unwrap_or_default();
        let paths = self.local.paths();
        WorkerState {
            session: self.session,
            name: self.name.clone(),
            enabled: self.is_enabled(),
            tasks: self.offer.tasks(),
            pending: self.offer.pending(),
            mem_used,
            mem_swap_used,
            mem_beside: self.beside.load(Ordering::Relaxed),
            plan: self.threads.plan(),
            threads: self.threads.states(&paths),
            paths: paths.into_iter().map(|path| path.id).collect(),
            calls: self.calls.list(),
            caps: self.caps.clone(),
            machine: self.machine.clone(),
            repo: Some(self.repo_id),
        }
    }
}

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
