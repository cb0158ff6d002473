//! What a fake worker says; what it gives is in `made`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use manager::{Dialer as _, RpcDialer};
use rpc::api::WorkerResources;
use rpc::beat::{Beat, Beaten};
use rpc::extension::WorkerState;
use rpc::{ApiResult, Job, Mark, Transport, Trust};
use sealtasks::{CallId, FsStat, HealthReport, StorageId, TaskInput, TaskType, WorkerId};
use uuid::Uuid;

/// A worker's making: a Sealyard one unless told otherwise.
pub struct Plan {
    pub name: &'static str,
    pub seed: u64,
    pub tasks: &'static [TaskType],
    pub stores: bool,
    pub sealyard: bool,
}

/// How a worker answers heartbeats.
#[derive(Default)]
pub struct Pulse {
    /// Those that it has heard.
    pub heard: Mutex<Vec<Beat>>,
    /// What it says of its paths.
    pub health: Mutex<Vec<(StorageId, HealthReport)>>,
    /// How often it was asked for its state alone.
    pub states: AtomicU64,
}

impl Pulse {
    pub fn answer(&self, beat: Beat, state: WorkerState) -> Beaten {
        let mut heard = self.heard.lock().expect("no panic elsewhere");
        heard.push(beat);
        let number = u64::try_from(heard.len()).expect("few");
        Beaten { number, state, health: self.health.lock().expect("no panic elsewhere").clone() }
    }

    pub fn state_alone(&self) {
        self.states.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves deletions of its files, and keeps what was asked for.
pub fn serve_deletions(listener: tokio::net::TcpListener, deleted: Arc<Mutex<Vec<String>>>) {
    let answer = move |method: Method, uri: Uri| async move {
        if method == Method::DELETE {
            deleted.lock().expect("no panic elsewhere").push(uri.path().to_owned());
        }
        StatusCode::OK
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
}

/// What our client says of a port that nobody listens on.
pub async fn call_nobody(job: Job) -> ApiResult<CallId> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/rpc/v0", listener.local_addr().expect("an address"));
    drop(listener);
    let dialer = RpcDialer { trust: Trust::system() };
    dialer.dial(&url, "token", Transport::Http, &Mark::default()).await?.start(job).await
}

/// The repo of a worker's life. Seeds a hundred apart are lives of one repo, but for those of whole fleets.
pub fn repo_of(session: WorkerId) -> Uuid {
    let seed = session.0.as_u64_pair().0;
    Uuid::from_u128(u128::from(if seed < 10_000 { seed % 100 } else { seed }))
}

/// How full a path is that has room for whatever a test makes.
pub fn roomy() -> FsStat {
    FsStat { capacity: 1 << 40, available: 1 << 40, fs_available: 1 << 40, ..FsStat::default() }
}

/// What a worker's machine has.
pub fn resources() -> WorkerResources {
    WorkerResources {
        mem_physical: 64 << 30,
        mem_used: 48 << 30,
        mem_swap: 0,
        mem_swap_used: 0,
        cpus: 16,
        gpus: Vec::new(),
        table: None,
    }
}

/// How a worker deals with its next call of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Accepts, then returns.
    Work,
    /// Accepts; the test returns it later.
    Hold,
    /// Returns before it answers the call.
    ReturnFirst,
    /// Returns the same result twice.
    ReturnTwice,
    /// Accepts, then returns this error code.
    Fail(i64),
    /// Refuses the call.
    Refuse,
    /// Nobody listens where it is called.
    Gone,
    /// Takes the call, but the answer is lost.
    LoseAnswer,
    /// As [`Behaviour::LoseAnswer`], and the work is never done.
    LoseBoth,
}

/// The task's short code.
pub fn code_of(work: &TaskInput) -> &'static str {
    match work {
        TaskInput::Move(_) => "MOVE",
        other => other.task_type().expect("scheduled work").short(),
    }
}
