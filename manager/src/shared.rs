//! What the driver, its effects and the API share: handles to the durable state, the index, the stores, the chain and
//! the secret. Never: state of its own beyond these.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chain::Chain;
use pipeline::RandomnessSource;
use rpc::extension::Hello;
use rpc::token::TokenError;
use rpc::{Miners, Permission, Secret, Trust};
use sealtasks::{ExecutorFailure, ExecutorRequest, FailureClass, SectorRef, TaskOutput, VerifyInput};
use stores::{Local, MemIndex, Prover, Remote, SectorLocks};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::asked::Asked;
use crate::backup::serving::Outgoing;
use crate::config::{ChainSettings, Scheduling, Sealing};
use crate::data_cid::DataCids;
use crate::driver::{IndexChanges, Input};
use crate::memory::Written;
use crate::messages::Messages;
use crate::on_chain::AtOdds;
use crate::refill::Refills;
use crate::staging::Staging;
use crate::standing::Standing;
use crate::state::{MinerIdentity, State};
use crate::unsaid::Unsaid;
use crate::workers::Dialer;

/// Verifies a proof in another process than the one that made it.
#[async_trait]
pub trait Verifier: Send + Sync + 'static {
    /// Whether the proof is valid; the error says why nobody knows.
    async fn verify(&self, sector: SectorRef, input: VerifyInput) -> Result<bool, String>;
}

/// How long things take. The defaults are Lotus's periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a worker.
    pub heartbeat: Duration,
    /// A heartbeat not answered within this is missed.
    pub heartbeat_timeout: Duration,
    /// Before a task that a worker refused is offered again.
    pub start_back_off: BackOff,
    /// Between two tries of a call that a Sealyard worker did not answer.
    pub call_again: BackOff,
    /// Between two looks at what falls silent without any event: storage paths (50 s), workers.
    pub look_around: Duration,
    /// Between two health reports of the manager's own paths.
    pub health_report: Duration,
    /// A newer copy that nobody has had for this long is gone, and the older one is asked for: longer than a worker's restart.
    pub newer_gone: Duration,
    /// A sector that has waited for this long until one of its files is known to be somewhere is an alert.
    pub file_awaited: Duration,
    /// Between two looks at what the chain says of all sectors.
    pub on_chain_look: Duration,
    /// A reader of a piece that takes nothing for this long is given up, so that it cannot keep its sector locked.
    pub reader_stall: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            heartbeat_timeout: Duration::from_secs(5),
            start_back_off: BackOff { first_ms: 5_000, most_ms: 300_000 },
            call_again: BackOff { first_ms: 1_000, most_ms: 30_000 },
            look_around: Duration::from_secs(5),
            health_report: Duration::from_secs(10),
            newer_gone: Duration::from_secs(600),
            file_awaited: Duration::from_secs(600),
            on_chain_look: Duration::from_secs(3600),
            reader_stall: Duration::from_secs(600),
        }
    }
}

/// A wait that doubles with each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// The first wait, in milliseconds.
    pub first_ms: u64,
    /// The longest, in milliseconds.
    pub most_ms: u64,
}

impl BackOff {
    /// The wait after this many failures, in milliseconds.
    pub fn after(self, failures: u32) -> u64 {
        let doubled = 1_u64.checked_shl(failures).unwrap_or(u64::MAX);
        self.first_ms.saturating_mul(doubled).min(self.most_ms)
    }
}

/// The handles.
pub(crate) struct Shared {
    pub(crate) state: State,
    pub(crate) miner: MinerIdentity,
    /// All that it serves; the first is that of the repo.
    pub(crate) miners: Miners,
    pub(crate) secret: Secret,
    pub(crate) standing: Standing,
    /// Backups that other hosts fetch.
    pub(crate) outgoing: Arc<Outgoing>,
    /// New at every start, so that Lotus workers notice and declare their files again.
    pub(crate) session: Uuid,
    /// For people, for example `sealyard 0.1.0`.
    pub(crate) software: String,
    pub(crate) advertised: Option<String>,
    pub(crate) index: Arc<MemIndex>,
    pub(crate) index_changes: Arc<IndexChanges>,
    /// How much of the index the next run will remember.
    pub(crate) written: Written,
    pub(crate) local: Arc<Local>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) locks: SectorLocks,
    pub(crate) data_cids: DataCids,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) randomness: RandomnessSource,
    /// What the chain has said of each miner.
    pub(crate) unsaid: Unsaid,
    pub(crate) verifier: Arc<dyn Verifier>,
    /// The manager's own worker, once it is there.
    pub(crate) prover: Arc<LateProver>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) trust: Trust,
    pub(crate) timing: Timing,
    pub(crate) scheduling: Scheduling,
    pub(crate) sealing: Sealing,
    pub(crate) chain_settings: ChainSettings,
    /// Where messages to the chain are handed in; `None`: there is no chain.
    pub(crate) messages: Option<Messages>,
    /// Data that waits to be written into sectors.
    pub(crate) staging: Staging,
    /// What effects are asking for sectors.
    pub(crate) asked: Asked,
    /// What of it waits for sectors that are to be sealed again.
    pub(crate) refills: Refills,
    /// What the chain and this manager do not agree about.
    pub(crate) at_odds: AtOdds,
    /// What sectors could not be proven by.
    pub(crate) failed_proofs: crate::proving::Failed,
    /// Tells which of two things came first.
    pub(crate) moments: Moments,
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Everything spawned; awaited at the end.
    pub(crate) tasks: TaskTracker,
    /// All tasks that waited when the manager was started are with the scheduler again.
    pub(crate) recovered: CancellationToken,
    /// The manager stops.
    pub(crate) cancelled: CancellationToken,
    /// Someone asked the manager to shut down; whoever runs the process acts on it.
    pub(crate) shutdown_asked: CancellationToken,
}

impl Shared {
    /// How we introduce ourselves.
    pub(crate) fn hello(&self) -> Hello {
        let hello = Hello::of_this_build(self.software.clone()).rehearsing(self.rehearses());
        hello.of_reign(Some(self.standing.reign().clone()))
    }

    /// Whether all its sectors are a rehearsal's. A manager is made so and stays so.
    pub(crate) fn rehearses(&self) -> bool {
        self.randomness == RandomnessSource::Rehearsal
    }

    /// A fresh token for calling a worker, as Lotus mints one per worker.
    pub(crate) fn mint_admin(&self) -> Result<String, TokenError> {
        self.secret.mint(&[Permission::Admin])
    }
}

/// Numbers that only rise. A clock's milliseconds say neither which of two quick things came first, nor anything when the
/// clock was set back.
#[derive(Default)]
pub(crate) struct Moments(AtomicU64);

impl Moments {
    /// A number above all that were given out before.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

/// Who makes proofs of what lies in the manager's own paths: known a moment after the port is open.
#[derive(Default)]
pub(crate) struct LateProver(OnceLock<Arc<dyn Prover>>);

impl LateProver {
    /// It is this one. Only the first one said counts.
    pub(crate) fn say(&self, prover: Arc<dyn Prover>) {
        let _ = self.0.set(prover);
    }
}

#[async_trait]
impl Prover for LateProver {
    async fn prove(&self, request: ExecutorRequest) -> Result<TaskOutput, ExecutorFailure> {
        match self.0.get() {
            Some(prover) => prover.prove(request).await,
            None => Err(ExecutorFailure {
                class: FailureClass::Environment,
                message: "the manager's own worker is not there yet".to_owned(),
            }),
        }
    }
}
