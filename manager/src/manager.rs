//! The manager as a whole: started from an open repo, handed to whoever serves its API, stopped in order. Never: binds a
//! port, reads arguments, prints.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use chain::ChainError;
use chain::sending::OutboxError;
use pipeline::{RandomnessSource, SectorRecord, SectorState};
use rpc::{
    ApiError, ApiResult, ManagerApi, OperatorApi, PipelineApi, ProvingApi, PushStreams, Secret, StorageApi,
    Trust, UnsealApi, WorkerApi, data_methods, manager_methods, operator_methods, pipeline_methods,
    proving_methods, rpc_router, storage_methods, unseal_methods,
};
use sealtasks::ActorId;
use stores::{
    BegunFile, FetchOptions, Local, LocalOptions, Looking, MemIndex, PathProblem, Prover, Remote,
    SectorLocks, StoreError, fetch_router,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backup::BackupError;
use crate::backup::serving::{self, Outgoing};
use crate::binding::{Bound, ChainChoice, bind};
use crate::data_cid::DataCids;
use crate::driver::{Driver, IndexChanges, Input};
use crate::loading::{Loaded, load};
use crate::memory;
use crate::messages::Post;
use crate::pipelining::data_router;
use crate::repo::{Repo, RepoError, random_uuid};
use crate::service::{Service, refusal};
use crate::shared::{Moments, Shared, Timing, Verifier};
use crate::staging::Staging;
use crate::standing::{Doorkeeper, Standing};
use crate::state::{MinerIdentity, State, StateError};
use crate::tickets::{FileTokens, OwnTokens};
use crate::unsealing::piece_router;
use crate::workers::{Dialer, chain_of, introduce_local};

/// Inputs waiting for the driver; beyond, whoever brings one waits.
const INPUTS_MAX: usize = 4096;

/// How long the end of spawned work is waited for when stopping.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How a manager is started.
pub struct ManagerOptions {
    /// Its repo, open and locked.
    pub repo: Repo,
    /// The chain that the repo is bound to.
    pub chain: ChainChoice,
    /// Base URLs under which this process serves `/remote`, for example `http://10.0.0.5:2345/remote`.
    pub remote_urls: Vec<String>,
    /// The API's multiaddr as other machines reach it, if they do.
    pub advertised: Option<String>,
    /// For people, for example `sealyard 0.1.0`.
    pub software: String,
    /// Verifies proofs in another process.
    pub verifier: Arc<dyn Verifier>,
    /// Reaches workers; [`crate::RpcDialer`] but for tests.
    pub dialer: Arc<dyn Dialer>,
    /// Which certificates of https peers are believed when files are fetched.
    pub trust: Trust,
    /// Periods.
    pub timing: Timing,
    /// Files in the manager's own paths that its own worker had begun in an earlier life: perhaps half-written, and not to
    /// be declared before that worker has said what becomes of them.
    pub begun: Vec<BegunFile>,
}

/// Why a manager does not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The durable state.
    #[error("the durable state failed")]
    State(#[from] StateError),
    /// The storage paths.
    #[error("MGR060: the storage paths cannot be opened")]
    Storage(#[from] StoreError),
    /// The repo.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// Data that waits to be written into sectors.
    #[error("MGR062: data that waits for sectors cannot be kept: {0}")]
    Staging(String),
    /// The repo is for a chain, and none was given.
    #[error(
        "MGR063: this repo's sectors are for {ours}; set FULLNODE_API_INFO to the API info of a full node of that network"
    )]
    NoNode {
        /// The repo's chain.
        ours: String,
    },
    /// The repo is for another chain.
    #[error(
        "MGR064: this repo's sectors are for {ours}, and the full node's network is {theirs}; a repo never changes its chain: \
         choose the right node (FULLNODE_API_INFO), or none with --offline"
    )]
    OtherChain {
        /// The repo's chain.
        ours: String,
        /// The node's.
        theirs: String,
    },
    /// The chain knows the miner otherwise.
    #[error("MGR065: the chain and this repo do not agree about miner f0{}: {detail}", .miner.get())]
    Miner {
        /// The miner.
        miner: ActorId,
        /// What each says.
        detail: String,
    },
    /// It cannot be added.
    #[error("MGR181: miner f0{} is served already", .miner.get())]
    ServedAlready {
        /// The miner.
        miner: ActorId,
    },
    /// There are as many as one manager serves.
    #[error("MGR182: one manager serves at most {most} miners")]
    TooManyMiners {
        /// So many.
        most: usize,
    },
    /// It cannot be removed.
    #[error("MGR205: miner f0{} stays as it is: {why}", .miner.get())]
    NotRemoved {
        /// The miner.
        miner: ActorId,
        /// Why.
        why: String,
    },
    /// The full node does not answer.
    #[error("MGR066: the full node cannot be used")]
    Chain(#[from] ChainError),
    /// Messages cannot be kept, so none can be sent.
    #[error("MGR067: messages to the chain cannot be kept")]
    Outbox(#[from] OutboxError),
    /// What was made for other hosts to fetch cannot be removed.
    #[error("MGR173: backups for other hosts cannot be made ready")]
    Backup(#[from] BackupError),
    /// No token for fetching from other machines.
    #[error("MGR061: no token can be made")]
    Token(#[from] rpc::token::TokenError),
}

/// A running manager. Clones are cheap.
#[derive(Clone)]
pub struct ManagerHandle {
    pub(crate) service: Service,
    problems: Arc<Vec<PathProblem>>,
    /// Taken by the first who waits for the end.
    ended: Arc<Mutex<Option<Ended>>>,
    /// The repo's lock lasts as long as the last handle.
    repo: Arc<Repo>,
}

/// The manager; see [`Manager::start`].
pub struct Manager;

impl Manager {
    /// Opens the durable state and the storage paths and starts the driver.
    ///
    /// # Errors
    /// See [`ManagerError`]; nothing runs then.
    pub async fn start(options: ManagerOptions) -> Result<ManagerHandle, ManagerError> {
        let state = State::open(&options.repo.state_file())?;
        let (miner, miners) = (state.miner().await?, state.miners().await?);
        let Bound { chain, randomness, messages, unsaid, settings } =
            bind(&options.repo, &miner, &miners, options.chain, state.now_ms()).await?;
        let (messages, post) = messages.unzip();
        let (standing, secret, cancelled) = begin_reign(&options.repo, &state, &miner).await?;
        let index_changes = Arc::new(IndexChanges::default());
        let index = Arc::new(observed_index(&state, &index_changes).await?);
        // From here on the state is read by others: whoever asks it for something waits for them.
        let loading = tokio::spawn(load(state.clone()));
        memory::recall(&index, options.repo.index_snapshot()).await;
        let (config, urls) = (options.repo.storage_config(), options.remote_urls);
        let local_options = LocalOptions { config, urls, index: index.clone() };
        let rehearsal = (randomness == RandomnessSource::Rehearsal).then(stores::Rehearsal::default);
        let (local, problems) = Local::open_beside(local_options, rehearsal, options.begun).await?;
        // Peers are shown the tokens of `OwnTokens` and no other.
        let fetch =
            FetchOptions { token: String::new(), parallel: options.repo.config().parallel_fetch_limit };
        let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
        let tokens = OwnTokens { secret: secret.clone(), state: state.clone(), inputs: inputs.clone() };
        let remote = Remote::new(local.clone(), index.clone(), fetch)
            .with_tokens(Arc::new(tokens))
            .with_tls(options.trust.config())
            .with_limits_kept_in(options.repo.limits_file())?;
        let loaded = loading.await.map_err(|_| StateError::Closed)??;
        let shared = Arc::new(Shared {
            chain,
            randomness,
            messages,
            chain_settings: settings,
            secret,
            standing,
            outgoing: Arc::new(Outgoing::of(options.repo.dir())?),
            session: random_uuid()?,
            unsaid,
            software: options.software,
            advertised: options.advertised,
            verifier: options.verifier,
            prover: Arc::default(),
            dialer: options.dialer,
            trust: options.trust,
            timing: options.timing,
            scheduling: options.repo.config().scheduling.clone(),
            sealing: options.repo.config().sealing.clone(),
            refills: Default::default(),
            failed_proofs: Default::default(),
            at_odds: Default::default(),
            written: Default::default(),
            staging: open_staging(&options.repo, &loaded)?,
            locks: SectorLocks::new(clock_of(&state)),
            data_cids: DataCids::default(),
            asked: crate::asked::Asked::default(),
            tasks: TaskTracker::new(),
            recovered: CancellationToken::new(),
            cancelled,
            shutdown_asked: CancellationToken::new(),
            state,
            miners,
            miner,
            index,
            index_changes,
            local,
            remote: Arc::new(remote),
            moments: Moments::default(),
            inputs,
        });
        let ended = Arc::new(Mutex::new(Some(run(&shared, loaded, waiting).await?)));
        attend(&shared, &options.repo, post).await?;
        let (problems, repo) = (Arc::new(problems), Arc::new(options.repo));
        Ok(ManagerHandle { service: Service(shared), problems, ended, repo })
    }
}

/// The manager's standing, the secret of this one of its family, and what is cancelled when it stops.
async fn begin_reign(
    repo: &Repo,
    state: &State,
    miner: &MinerIdentity,
) -> Result<(Standing, Secret, CancellationToken), StateError> {
    let cancelled = CancellationToken::new();
    let standing = Standing::load(state, miner, repo.secret(), &cancelled).await?;
    let secret = repo.secret().clone().issued_by(standing.reign().manager());
    Ok((standing, secret, cancelled))
}

/// Starts what goes on beside the driver.
async fn attend(shared: &Arc<Shared>, repo: &Repo, post: Option<Post>) -> Result<(), StateError> {
    if let Some(post) = post {
        shared.tasks.spawn(post.run(shared.clone()));
    }
    shared.tasks.spawn(memory::keep(shared.clone(), repo.index_snapshot()));
    shared.tasks.spawn(memory::watch_urls(shared.clone()));
    let (outgoing, stopped) = (shared.outgoing.clone(), shared.cancelled.clone());
    shared.tasks.spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = outgoing.tidy() => {}
        }
    });
    shared.tasks.spawn(crate::older::ask_owners(Service(shared.clone())));
    shared.tasks.spawn(crate::on_chain::watch(Service(shared.clone())));
    let holds = shared.state.holds().await?;
    shared.tasks.spawn(Service(shared.clone()).resume_moves(holds));
    Ok(())
}

/// What sectors wait for is kept; the rest was given to none, or has done its service.
fn open_staging(repo: &Repo, loaded: &Loaded) -> Result<Staging, ManagerError> {
    let waits = |record: &SectorRecord| record.state() != SectorState::Proving;
    let records = loaded.sectors.iter().map(|sector| &*sector.record).filter(|record| waits(record));
    let known = records.flat_map(|record| record.data().iter().map(|data| data.staged)).collect();
    let opened = Staging::open(repo.staging(), repo.config().sealing.staging_max, &known);
    opened.map_err(|error| ManagerError::Staging(chain_of(&error)))
}

type Ended = oneshot::Receiver<Result<(), StateError>>;

/// Starts the driver and the health reports of the manager's own paths.
async fn run(
    shared: &Arc<Shared>,
    loaded: Loaded,
    waiting: mpsc::Receiver<Input>,
) -> Result<Ended, StateError> {
    let driver = Driver::load(shared.clone(), loaded).await?;
    let (tell, ended) = oneshot::channel();
    let cancelled = shared.cancelled.clone();
    shared.tasks.spawn(async move {
        let result = driver.run(waiting).await;
        if let Err(error) = &result {
            tracing::error!(code = error.code(), error = chain_of(error), "the manager stops");
        }
        // Without the driver nothing else makes sense.
        cancelled.cancel();
        drop(tell.send(result));
    });
    let own = shared.clone();
    shared.tasks.spawn(async move {
        let mut beat = tokio::time::interval(own.timing.health_report);
        loop {
            tokio::select! {
                () = own.cancelled.cancelled() => return,
                _ = beat.tick() => {}
            }
            for (path, error) in own.local.report_health().await {
                tracing::warn!(%path, %error, "the index refused a health report");
            }
        }
    });
    let own = shared.clone();
    shared.tasks.spawn(async move {
        tokio::select! {
            () = own.standing.acting().cancelled() => {}
            () = own.local.keep_tidy() => {}
            () = own.remote.settle_debts_for_ever() => {}
        }
    });
    Ok(ended)
}

fn clock_of(state: &State) -> stores::Clock {
    let state = state.clone();
    Arc::new(move || state.now_ms())
}

/// An index that knows which copies count no longer.
async fn observed_index(state: &State, changes: &Arc<IndexChanges>) -> Result<MemIndex, StateError> {
    let changes = changes.clone();
    let index = MemIndex::observed(clock_of(state), Arc::new(move |change| changes.note(change)));
    for (sector, kind, path) in state.superseded().await? {
        index.supersede_copies(&path, sector, kind.into());
    }
    Ok(index)
}

impl ManagerHandle {
    /// The API, for callers in this process.
    pub fn api(&self) -> Arc<dyn ManagerApi> {
        Arc::new(self.service.clone())
    }

    /// Whether all its sectors are a rehearsal's.
    pub fn rehearses(&self) -> bool {
        self.service.0.rehearses()
    }

    /// The operator's part of it.
    pub fn operator_api(&self) -> Arc<dyn OperatorApi> {
        Arc::new(self.service.clone())
    }

    /// The storage part of it.
    pub fn storage_api(&self) -> Arc<dyn StorageApi> {
        Arc::new(self.service.clone())
    }

    /// The part about unsealed data.
    pub fn unseal_api(&self) -> Arc<dyn UnsealApi> {
        Arc::new(self.service.clone())
    }

    /// The part about the pipeline.
    pub fn pipeline_api(&self) -> Arc<dyn PipelineApi> {
        Arc::new(self.service.clone())
    }

    /// The part about proving.
    pub fn proving_api(&self) -> Arc<dyn ProvingApi> {
        Arc::new(self.service.clone())
    }

    /// Says who proves what lies in the manager's own paths. Only the first one said counts.
    pub fn prove_with(&self, prover: Arc<dyn Prover>) {
        self.service.0.prover.say(prover);
    }

    /// Everything that is served on the manager's port: JSON-RPC, push streams and `/remote`.
    pub fn router(&self) -> Router {
        let shared = &self.service.0;
        let tokens = OwnTokens {
            secret: shared.secret.clone(),
            state: shared.state.clone(),
            inputs: shared.inputs.clone(),
        };
        let looking = Looking { tokens: Arc::new(tokens), tls: shared.trust.config() };
        let files = fetch_router(
            self.local(),
            Arc::new(FileTokens(self.service.clone())),
            looking,
            Some(shared.prover.clone()),
        );
        let mut methods = manager_methods(self.api());
        methods.merge(operator_methods(self.operator_api())).expect("each method is registered once");
        methods.merge(storage_methods(self.storage_api())).expect("each method is registered once");
        methods.merge(unseal_methods(self.unseal_api())).expect("each method is registered once");
        methods.merge(pipeline_methods(self.pipeline_api())).expect("each method is registered once");
        methods.merge(proving_methods(self.proving_api())).expect("each method is registered once");
        let streams = PushStreams::new();
        let data = data_methods(self.unseal_api(), streams.clone());
        methods.merge(data).expect("each method is registered once");
        let pieces = piece_router(self.service.clone()).merge(data_router(self.service.clone()));
        let pieces = pieces.merge(serving::router(self.service.clone()));
        rpc_router(methods, Arc::new(Doorkeeper(shared.clone())), streams).merge(files).merge(pieces)
    }

    /// Returns when another manager has taken over: this one decides nothing any more, and can only be looked at.
    pub async fn overtaken(&self) {
        self.service.0.standing.over().cancelled().await;
    }

    /// Why nothing is decided any more, if another manager has taken over.
    pub fn refusal(&self) -> Option<ApiError> {
        self.service.0.standing.refusal()
    }

    /// Returns when everything that was under way when the manager was started goes on, or waits for its worker.
    pub async fn recovered(&self) {
        self.service.0.recovered.cancelled().await;
    }

    /// Registers the manager's own worker.
    ///
    /// # Errors
    /// It does not answer, or is closing.
    pub async fn add_local_worker(&self, worker: Arc<dyn WorkerApi>) -> ApiResult<()> {
        let asked_at = self.service.0.moments.next();
        let introduction = introduce_local(asked_at, worker).await.map_err(refusal)?;
        let introduction = Box::new(introduction);
        self.service.ask(|reply| Input::Registered { introduction, reply }).await
    }

    /// The manager's own storage paths, shared with its own worker.
    pub fn local(&self) -> Arc<Local> {
        self.service.0.local.clone()
    }

    /// The index.
    pub fn index(&self) -> Arc<MemIndex> {
        self.service.0.index.clone()
    }

    /// The lock table, where tasks, readers and operators' moves meet.
    pub fn locks(&self) -> SectorLocks {
        self.service.0.locks.clone()
    }

    /// The durable state.
    pub fn state(&self) -> State {
        self.service.0.state.clone()
    }

    /// The repo.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// Storage paths that could not be opened at the start; the others are in use.
    pub fn path_problems(&self) -> &[PathProblem] {
        &self.problems
    }

    /// Returns when somebody asked for a shutdown through the API.
    pub async fn shutdown_asked(&self) {
        self.service.0.shutdown_asked.cancelled().await;
    }

    /// Returns when the driver has ended: after [`ManagerHandle::stop`], or because a commit failed. The reason is told
    /// to the first caller.
    ///
    /// # Errors
    /// The failed commit.
    pub async fn ended(&self) -> Result<(), ManagerError> {
        self.service.0.cancelled.cancelled().await;
        let receiver = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        match receiver {
            Some(receiver) => Ok(receiver.await.unwrap_or(Err(StateError::Closed))?),
            None => Ok(()),
        }
    }

    /// Stops: no new decisions, no calls; what is durable is found again at the next start.
    pub async fn stop(&self) {
        let shared = &self.service.0;
        shared.cancelled.cancel();
        shared.tasks.close();
        if tokio::time::timeout(STOP_LIMIT, shared.tasks.wait()).await.is_err() {
            tracing::warn!("some work did not end within {} s", STOP_LIMIT.as_secs());
        }
    }
}
