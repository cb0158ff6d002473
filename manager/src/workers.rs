//! Dialling workers back, and asking who they are. What they say goes to the driver. Never: decides whether a worker gets
//! tasks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rpc::api::{StoragePath, WorkerInfo};
pub(crate) use rpc::error::chain as chain_of;
use rpc::extension::{CallPhase, Hello, WorkerState};
use rpc::operator::WorkerMode;
use rpc::{ApiError, ApiResult, Mark, Scope, Transport, Trust, WorkerApi, WorkerClient, versions};
use sched::WorkerKey;
use sealtasks::{AttemptId, CallId, SealingPlan, TaskCaps, TaskType, WorkerId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::driver::{Beside, Input, Peer, Redial, Worker};
use crate::service::{Service, refusal};
use crate::shared::Shared;
use crate::state::CAPS_MAX;

/// How workers are reached. Another one than [`RpcDialer`] serves tests.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// A client for the worker at `url`, presenting `token` and telling which manager calls.
    ///
    /// # Errors
    /// The URL is none, or a websocket was refused.
    async fn dial(
        &self,
        url: &str,
        token: &str,
        transport: Transport,
        mark: &Mark,
    ) -> ApiResult<Arc<dyn WorkerApi>>;
}

/// Reaches workers over the network.
pub struct RpcDialer {
    /// Which certificates of https workers are believed.
    pub trust: Trust,
}

#[async_trait]
impl Dialer for RpcDialer {
    async fn dial(
        &self,
        url: &str,
        token: &str,
        transport: Transport,
        mark: &Mark,
    ) -> ApiResult<Arc<dyn WorkerApi>> {
        let parsed = Url::parse(url).map_err(|error| {
            ApiError::refused(format!(
                "{url:?} is no URL ({error}); expected http://HOST:PORT/rpc/v0, or https"
            ))
        })?;
        let client = WorkerClient::trusting(&parsed, Some(token.to_owned()), transport, &self.trust, mark);
        let client = client.map_err(refusal)?;
        Ok(Arc::new(client))
    }
}

/// A worker cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No answer, or no understandable one.
    #[error(
        "MGR010: the manager could not reach {url}: {reason}; open TCP port {port} on that host or set --address to an \
         address that the manager reaches"
    )]
    Unreachable {
        /// Whom we dialled.
        url: String,
        /// Its port.
        port: String,
        /// The chain of causes.
        reason: String,
    },
    /// It speaks another version.
    #[error("MGR011: {url}: {source}")]
    Version {
        /// Whom we dialled.
        url: String,
        /// Which versions.
        source: versions::VersionError,
    },
    /// It is closing.
    #[error("MGR012: the worker at {url} is closing; start it again, then it registers by itself")]
    Closing {
        /// Whom we dialled.
        url: String,
    },
    /// It does window or winning PoSt.
    #[error(
        "MGR013: the worker at {url} offers {tasks}; PoSt workers are not supported yet, start it with sealing tasks"
    )]
    Post {
        /// Whom we dialled.
        url: String,
        /// The PoSt tasks.
        tasks: String,
    },
    /// A worker's own token was used to join something else.
    #[error(
        "MGR015: what answers at {url} is no Sealyard worker; a Lotus worker joins with a token that has the \
         permission admin"
    )]
    NotSealyard {
        /// Whom we dialled.
        url: String,
    },
    /// It plays its tasks, or does them, and this manager's sectors are the other kind.
    #[error(
        "MGR016: the worker at {url} {}", if *.rehearses {
            "only plays its tasks (--executor …=rehearsal), and this manager's sectors are real; a rehearsal has a \
             manager of its own, made with `sealyard init --rehearsal`"
        } else {
            "does its tasks, and this manager's sectors are a REHEARSAL; start it with --executor all=rehearsal"
        }
    )]
    OtherWorld {
        /// Whom we dialled.
        url: String,
        /// Whether the worker plays them.
        rehearses: bool,
    },
    /// It serves another manager of this family.
    #[error("the worker at {url} is not to be had: {why}")]
    ServesAnother {
        /// Whom we dialled.
        url: String,
        /// Whom it serves, and what to do.
        why: String,
    },
    /// It was started with more limits than are kept.
    #[error(
        "MGR014: the worker at {url} has {found} limits of its own; start it with at most {CAPS_MAX} in --max"
    )]
    Caps {
        /// Whom we dialled.
        url: String,
        /// How many.
        found: usize,
    },
}

/// What a worker said of itself when it was dialled.
pub(crate) struct Introduction {
    pub(crate) session: WorkerId,
    /// The moment when it was asked.
    pub(crate) asked_at: u64,
    redialled: bool,
    url: String,
    peer: Peer,
    /// The id of the worker's own token, if it joined with one.
    token: Option<Uuid>,
    api: Arc<dyn WorkerApi>,
    info: WorkerInfo,
    tasks: BTreeSet<TaskType>,
    paths: Vec<StoragePath>,
    state: Option<WorkerState>,
}

impl Introduction {
    /// Whether this worker takes the place of one at `url`: the same address, or the manager's own.
    pub(crate) fn replaces(&self, url: &str, peer: Peer) -> bool {
        match (self.peer, peer) {
            (Peer::Local, Peer::Local) => true,
            (Peer::Local, _) | (_, Peer::Local) => false,
            (Peer::Sealyard | Peer::Lotus, Peer::Sealyard | Peer::Lotus) => self.url == url,
        }
    }

    /// Whether the worker holds this attempt, or this call.
    pub(crate) fn held(&self, attempt: AttemptId, call: Option<CallId>) -> bool {
        let call = call.map(|call| call.to_string());
        let calls = self.state.iter().flat_map(|state| &state.calls);
        calls.into_iter().any(|held| held.attempt == Some(attempt) || Some(&held.call) == call.as_ref())
    }

    /// Calls that run there, with their attempts.
    pub(crate) fn running(&self) -> Vec<(AttemptId, CallId)> {
        self.state.as_ref().map(running_calls).unwrap_or_default()
    }

    /// Whether it did not register, but was dialled by this manager: nothing shows that it is quiet.
    pub(crate) const fn was_redialled(&self) -> bool {
        self.redialled
    }

    /// Whether it says which calls it holds; a Lotus worker does not.
    pub(crate) const fn tells_calls(&self) -> bool {
        self.state.is_some()
    }

    /// The registered worker.
    pub(crate) fn into_worker(self, key: WorkerKey) -> Worker {
        let mut worker = Worker {
            key,
            url: self.url,
            peer: self.peer,
            token: self.token,
            api: self.api,
            info: self.info,
            tasks: self.tasks,
            pending: std::collections::BTreeMap::new(),
            resting: std::collections::BTreeMap::new(),
            paths: self.paths.into_iter().map(|path| path.id).collect(),
            plan: SealingPlan::Any,
            threads: Vec::new(),
            enabled: true,
            misses: 0,
            silent_since_ms: 0,
            lost_since_ms: 0,
            durations: Vec::new(),
            bandwidth: 0,
            mode: WorkerMode::Open,
            own_caps: TaskCaps::none(),
            caps: TaskCaps::none(),
            beside: Beside::default(),
            stagger: std::collections::BTreeMap::new(),
            told_machine: None,
            repo: None,
            machine: None,
            gone: CancellationToken::new(),
            watching: CancellationToken::new(),
        };
        if let Some(state) = self.state {
            worker.tasks = state.tasks;
            worker.pending = state.pending;
            worker.enabled = state.enabled;
            worker.paths = state.paths;
            (worker.plan, worker.threads) = (state.plan, state.threads);
            worker.own_caps = state.caps;
            worker.told_machine = state.machine;
            worker.repo = state.repo;
            // Its own word on memory leaves out what its tasks use. To a restarted manager that is no detail: what a busy
            // worker says first is taken for what other programs use there while it is idle.
            worker.beside.told = state.mem_beside;
            worker.info.resources.mem_used = state.mem_used;
            worker.info.resources.mem_swap_used = state.mem_swap_used;
        }
        worker
    }
}

/// Calls that run on a worker, with their attempts, as it says itself.
pub(crate) fn running_calls(state: &WorkerState) -> Vec<(AttemptId, CallId)> {
    let running = state.calls.iter().filter(|held| held.phase != CallPhase::Returning);
    running.filter_map(|held| Some((held.attempt?, held.call.parse().ok()?))).collect()
}

/// Dials a worker back and asks everything that registration needs. One that joins with a worker's own token is shown a
/// token that opens it alone, and must be a Sealyard: whoever has such a token could name any address.
pub(crate) async fn introduce(
    shared: &Shared,
    url: &str,
    joins_with: Option<Uuid>,
) -> Result<Introduction, DialError> {
    let asked_at = shared.moments.next();
    let failed = |error: &dyn std::error::Error| unreachable_worker(url, error);
    let token = match joins_with {
        Some(worker) => shared.secret.mint_scoped(Scope::Call { worker }),
        None => shared.mint_admin(),
    };
    let token = token.map_err(|error| failed(&error))?;
    let mark = Mark::of(shared.standing.reign().clone());
    let plain =
        shared.dialer.dial(url, &token, Transport::Http, &mark).await.map_err(|error| failed(&error))?;
    let version = plain.version().await.map_err(|error| failed(&error))?;
    versions::check_worker(version).map_err(|source| DialError::Version { url: url.to_owned(), source })?;
    let hello = plain.hello(shared.hello()).await.map_err(|error| failed(&error))?;
    if let Some(theirs) = hello.as_ref().and_then(|hello| hello.reign.as_ref()) {
        shared.hear_of(theirs).map_err(|why| DialError::ServesAnother { url: url.to_owned(), why })?;
    }
    let rehearses = hello.as_ref().is_some_and(Hello::rehearses);
    if rehearses != shared.rehearses() {
        return Err(DialError::OtherWorld { url: url.to_owned(), rehearses });
    }
    let (api, peer) = match hello.filter(|theirs| speaks_with_us(&shared.hello(), theirs)) {
        Some(_) => {
            let socket = shared
                .dialer
                .dial(url, &token, Transport::Ws, &mark)
                .await
                .map_err(|error| failed(&error))?;
            (socket, Peer::Sealyard)
        }
        None if joins_with.is_some() => return Err(DialError::NotSealyard { url: url.to_owned() }),
        None => (plain, Peer::Lotus),
    };
    question(url.to_owned(), asked_at, api, peer)
        .await
        .map(|known| Introduction { token: joins_with, ..known })
}

/// Dials a Lotus worker that an earlier life had calls on, again and again until it is here or has nothing of ours. It is
/// shown what it was shown when it registered: a Lotus worker joins with a token that has the permission admin.
pub(crate) async fn redial(shared: Arc<Shared>, session: WorkerId) {
    let service = Service(shared.clone());
    for failures in 0.. {
        let url = match service.view(move |driver| driver.to_redial(session)).await {
            Ok(Redial::Now(url)) => Some(url),
            Ok(Redial::Later) => None,
            Ok(Redial::Never) | Err(_) => return,
        };
        if let Some(url) = url {
            match introduce(&shared, &url, None).await {
                // Another process is there now; it registers by itself.
                Ok(known) if known.session != session || known.peer != Peer::Lotus => {}
                Ok(known) => {
                    let introduction = Box::new(Introduction { redialled: true, ..known });
                    drop(shared.inputs.send(Input::Redialled { introduction }).await);
                }
                Err(error) => {
                    tracing::warn!(%session, url, reason = chain_of(&error), "a worker that has calls of ours does not answer; it is dialled again");
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(shared.timing.call_again.after(failures))).await;
    }
}

/// How long a connection may take to be made when only its possibility is asked for.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Whether a TCP connection to a worker's URL can be made from here.
pub(crate) async fn reach(url: &str) -> Result<(), DialError> {
    let address = Url::parse(url).ok().and_then(|url| {
        Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?))
    });
    let Some((host, port)) = address else {
        let source = std::io::Error::other("it is no URL of the form http://HOST:PORT/rpc/v0");
        return Err(unreachable_worker(url, &source));
    };
    match timeout(CONNECT_LIMIT, tokio::net::TcpStream::connect((host, port))).await {
        Ok(Ok(_connection)) => Ok(()),
        Ok(Err(error)) => Err(unreachable_worker(url, &error)),
        Err(_) => {
            let source = std::io::Error::other(format!("no answer within {} s", CONNECT_LIMIT.as_secs()));
            Err(unreachable_worker(url, &source))
        }
    }
}

/// The manager's own worker needs no dialling.
pub(crate) async fn introduce_local(
    asked_at: u64,
    api: Arc<dyn WorkerApi>,
) -> Result<Introduction, DialError> {
    question(String::new(), asked_at, api, Peer::Local).await
}

fn speaks_with_us(ours: &Hello, theirs: &Hello) -> bool {
    ours.common_version(theirs).is_some()
}

async fn question(
    url: String,
    asked_at: u64,
    api: Arc<dyn WorkerApi>,
    peer: Peer,
) -> Result<Introduction, DialError> {
    let failed = |error: ApiError| unreachable_worker(&url, &error);
    let session = api.session().await.map_err(failed)?;
    if session == WorkerId::CLOSED {
        return Err(DialError::Closing { url });
    }
    let info = api.info().await.map_err(failed)?;
    let tasks = api.task_types().await.map_err(failed)?;
    let post: Vec<_> = tasks.iter().filter(|task| task.is_post()).map(ToString::to_string).collect();
    if !post.is_empty() {
        return Err(DialError::Post { url, tasks: post.join(", ") });
    }
    let paths = api.paths().await.map_err(failed)?;
    let state = match api.state().await {
        Ok(state) => Some(state),
        Err(error) if error.is_method_not_found() || !peer.is_sealyard() => None,
        Err(error) => return Err(unreachable_worker(&url, &error)),
    };
    match state.as_ref().map_or(0, |state| state.caps.iter().count()) {
        0..=CAPS_MAX => {}
        found => return Err(DialError::Caps { url, found }),
    }
    Ok(Introduction {
        session,
        asked_at,
        redialled: false,
        url,
        peer,
        token: None,
        api,
        info,
        tasks,
        paths,
        state,
    })
}

fn unreachable_worker(url: &str, error: &dyn std::error::Error) -> DialError {
    let port = Url::parse(url).ok().and_then(|url| url.port_or_known_default());
    let port = port.map_or_else(|| "of the worker".to_owned(), |port| port.to_string());
    DialError::Unreachable { url: url.to_owned(), port, reason: chain_of(error) }
}
