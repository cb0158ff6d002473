//! Joining a manager and staying joined.
//!
//! In the order of Lotus's worker: the manager's version, miner and sector size ([`crate::Managers::find`], before anything
//! is written to disk); storage paths are declared when the worker starts; then `Session` and `WorkerConnect`. From then on
//! a heartbeat: a new session means a new manager process, to which everything is declared again. A Sealyard manager's own
//! heartbeat takes its place while it comes, and it gets the worker's state pushed whenever it changes. Never: runs or
//! returns calls.

use std::sync::Arc;
use std::time::Duration;

use rpc::ApiError;
use rpc::extension::Hello;
use rpc::versions::PLANS;
use stores::IndexError;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::error::{WorkerError, chain};
use crate::managers::{SOFTWARE, refused};
use crate::returns::answered;
use crate::worker::{Shared, WorkerHandle};

/// What becomes of the registration, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The manager does not answer yet.
    Waiting {
        /// Where it is asked.
        url: String,
        /// Why there is no answer.
        reason: String,
    },
    /// A Lotus manager takes a worker only when it is idle; this many calls still run.
    WaitingForCalls {
        /// Calls that acquire or run.
        calls: usize,
    },
    /// One of several places has no manager that this worker could serve. It is asked again, less and less often.
    PassedOver {
        /// Where it is.
        url: String,
        /// Why.
        reason: String,
    },
    /// The manager has taken this worker.
    Registered,
    /// The manager no longer answers, or no longer takes this worker; it is asked again.
    Lost {
        /// Why.
        reason: String,
    },
}

/// Takes what there is to tell people.
pub type StatusSink = Arc<dyn Fn(Status) + Send + Sync>;

/// How to join.
#[derive(Clone)]
pub struct RegistrationOptions {
    /// Where the manager is, for messages.
    pub manager: String,
    /// Where the manager reaches this worker: `http://host:port/rpc/v0`. Plain HTTP, because Lotus dials websockets
    /// without reconnecting; a Sealyard manager turns it into a websocket itself.
    pub address: String,
    /// Takes what there is to tell.
    pub status: StatusSink,
}

/// Pause between two questions to a manager that does not answer. Source: Lotus's worker.
pub(crate) const MANAGER_RETRY: Duration = Duration::from_secs(1);

/// The manager's heartbeat is missed once it is late by this part of a period.
const LATE: u32 = 10;

/// After so many of them the manager is asked all the same: that it reaches this worker does not say that it is reached by it.
const UNASKED_MOST: u32 = 2;

impl WorkerHandle {
    /// Joins the manager, then stays joined in the background. The worker's router must be served already: the manager
    /// calls back before it answers.
    ///
    /// # Errors
    /// The manager refuses: its words say why, most often that it cannot reach this worker. A manager that does not
    /// answer is no error; it is waited for.
    pub async fn register(&self, options: RegistrationOptions) -> Result<(), WorkerError> {
        let shared = Arc::clone(self.shared());
        let mut membership = Membership { shared: Arc::clone(&shared), options, joined: None, pushes: true };
        let closed = shared.closed.clone();
        loop {
            let joined = tokio::select! {
                () = closed.cancelled() => return Err(WorkerError::Closed),
                joined = membership.join() => joined,
            };
            let Err((method, error)) = joined else { break };
            let url = membership.options.manager.clone();
            match error {
                error @ ApiError::Unreachable { .. } => {
                    (membership.options.status)(Status::Waiting { url, reason: chain(&error) });
                    tokio::time::sleep(MANAGER_RETRY).await;
                }
                error if shared.has_choice() => {
                    (membership.options.status)(Status::Waiting {
                        url,
                        reason: format!("{method}: {}", chain(&error)),
                    });
                    tokio::time::sleep(MANAGER_RETRY).await;
                }
                error if method == "WorkerConnect" && answered(&error) => {
                    let address = membership.options.address.clone();
                    return Err(WorkerError::NotTaken { address, words: chain(&error) });
                }
                _ if method == PLANS => return Err(WorkerError::NoPlans { url }),
                error => return Err(refused(&url, method, error)),
            }
        }
        shared.tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = membership.stay() => {}
            }
        });
        Ok(())
    }

    /// Pushes the state of a manager's own worker to it whenever it changes, in the background. Such a worker is not
    /// registered over the wire.
    pub fn push_states(&self) {
        let shared = Arc::clone(self.shared());
        let closed = shared.closed.clone();
        shared.tasks.clone().spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = push_for_ever(&shared) => {}
            }
        });
    }
}

async fn push_for_ever(shared: &Arc<Shared>) {
    let mut changes = shared.changes();
    let mut beat = tokio::time::interval(shared.periods.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            _ = changes.changed() => {}
        }
        if let Err(error) = push_once(shared).await {
            tracing::debug!(error = %chain(&error), "the manager did not take this worker's state");
        }
        tokio::time::sleep(shared.periods.push_gap).await;
    }
}

/// Tells the manager the worker's state.
async fn push_once(shared: &Shared) -> Result<(), ApiError> {
    let state = shared.state().await;
    shared.manager.worker_state(state.clone()).await?;
    shared.threads.told(&state);
    Ok(())
}

/// One worker's membership with its manager.
struct Membership {
    shared: Arc<Shared>,
    options: RegistrationOptions,
    /// The session of the manager that took this worker; `None` = to be joined again.
    joined: Option<Uuid>,
    /// Whether the manager takes states: it is a Sealyard.
    pushes: bool,
}

/// What was asked, and why it failed.
type JoinError = (&'static str, ApiError);

impl Membership {
    /// Introduces this worker to the manager.
    async fn join(&mut self) -> Result<(), JoinError> {
        let session = self.meet().await?;
        self.connect(session).await
    }

    /// Asks the manager who it is, before anything else is said to it: it may be another one than the one served.
    async fn meet(&mut self) -> Result<Uuid, JoinError> {
        let manager = &self.shared.manager;
        let session = manager.session().await.map_err(|error| ("Session", error))?;
        let served = self.shared.managers.as_ref().and_then(|managers| managers.served());
        let peer = match manager.hello(Hello::of_this_build(SOFTWARE).of_reign(served)).await {
            Err(error) if error.is_method_not_found() => None,
            answer => answer.map_err(|error| ("Sealyard.Hello", error))?,
        };
        if let Some(managers) = &self.shared.managers {
            let met = managers.meet(peer.as_ref().and_then(|peer| peer.reign.as_ref())).await;
            met.map_err(|error| ("Sealyard.Hello", ApiError::refused(chain(&error))))?;
        }
        let has = |feature: &str| peer.as_ref().is_some_and(|peer| peer.features.contains(feature));
        if self.shared.threads.need_plans() && !has(PLANS) {
            return Err((PLANS, ApiError::refused("it knows no plans")));
        }
        self.pushes = has("push-state");
        Ok(session)
    }

    async fn connect(&mut self, session: Uuid) -> Result<(), JoinError> {
        let manager = &self.shared.manager;
        // To one that took this very session before, the worker never went away and its calls are known.
        if !self.pushes && self.shared.joined_before != Some(session) {
            // A Lotus manager believes a newly connected worker to be idle and would overload a busy one.
            let calls = self.shared.calls.busy();
            if calls > 0 {
                (self.options.status)(Status::WaitingForCalls { calls });
                self.shared.wait_quiet().await;
            }
        }
        manager
            .worker_connect(self.options.address.clone())
            .await
            .map_err(|error| ("WorkerConnect", error))?;
        self.joined = Some(session);
        (self.options.status)(Status::Registered);
        self.shared.manager_is_back();
        let journalled = self.shared.journal.run(move |journal| journal.joined(session)).await;
        if let Err(error) = journalled {
            // A restarted worker then waits until it is idle before it joins a Lotus.
            tracing::warn!(error = %chain(&error), "the journal could not be written");
        }
        Ok(())
    }

    /// Declares everything to a new manager process and joins it.
    async fn join_again(&mut self) -> Result<(), String> {
        self.joined = None;
        let words = |(method, error): JoinError| format!("{method}: {}", chain(&error));
        let session = self.meet().await.map_err(words)?;
        self.shared.index.manager_changed();
        self.shared.tickets.manager_changed();
        if self.shared.owns_paths {
            self.shared.declare_paths_again().await.map_err(|error| chain(&*error))?;
        }
        self.connect(session).await.map_err(words)
    }

    /// Heartbeats and pushes, until dropped.
    async fn stay(&mut self) {
        let mut changes = self.shared.changes();
        let (mut beats, period) = (self.shared.beats.heard(), self.shared.periods.heartbeat);
        let mut beat = tokio::time::interval(period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut lost, mut unasked) = (false, 0);
        loop {
            let checked = tokio::select! {
                _ = beat.tick() => self.check().await,
                // While the manager is lost only the heartbeat finds it again.
                _ = changes.changed(), if !lost => Ok(()),
                _ = beats.changed() => {
                    let heard = (*beats.borrow_and_update()).unwrap_or_default();
                    if self.joined == Some(heard.session) && !lost && unasked < UNASKED_MOST {
                        if heard.had_answer {
                            // It has this worker's state, and is asked only when it does not ask again.
                            unasked += 1;
                            beat.reset_after(period.saturating_add(period / LATE));
                        }
                        continue;
                    }
                    self.check().await
                }
            };
            let done = match checked {
                Ok(()) => self.push().await,
                Err(reason) => Err(reason),
            };
            unasked = 0;
            self.shared.beats.set_lost(done.is_err());
            match done {
                Ok(()) if lost => {
                    lost = false;
                    (self.options.status)(Status::Registered);
                    self.shared.manager_is_back();
                }
                Ok(()) => {}
                Err(reason) => {
                    if !lost {
                        tracing::warn!(%reason, "the manager is lost; asking it again every second");
                        (self.options.status)(Status::Lost { reason });
                    }
                    lost = true;
                    // A manager that restarts should have its workers back at once, not a heartbeat later.
                    beat.reset_after(MANAGER_RETRY);
                }
            }
            // Progress of a download changes many times a second; nobody reads it that often.
            tokio::time::sleep(self.shared.periods.push_gap).await;
        }
    }

    /// Whether the manager is still the one that took this worker; a new one is joined.
    async fn check(&mut self) -> Result<(), String> {
        let session = self.shared.manager.session().await.map_err(|error| chain(&error))?;
        if self.joined == Some(session) { Ok(()) } else { self.join_again().await }
    }

    async fn push(&mut self) -> Result<(), String> {
        if !self.pushes {
            return Ok(());
        }
        match push_once(&self.shared).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_method_not_found() => {
                self.pushes = false;
                Ok(())
            }
            // The manager does not know this session: it has dropped this worker meanwhile.
            Err(error) if answered(&error) => self.join_again().await,
            Err(error) => Err(chain(&error)),
        }
    }
}

/// Tells how full the paths are, with the manager's heartbeats where they come, until dropped. Source of the period: Lotus's
/// HeartbeatInterval.
pub(crate) async fn report_health_for_ever(shared: &Arc<Shared>) {
    let mut beat = tokio::time::interval(shared.periods.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            () = shared.beats.named.notified() => {
                shared.beats.take_unknown().iter().for_each(|path| shared.declare_unknown(path));
                continue;
            }
        }
        let mut unknown = shared.beats.take_unknown();
        if shared.beats.are_fetching() {
            shared.beats.leave(shared.local.health().await);
        } else {
            for (id, error) in shared.local.report_health().await {
                tracing::warn!(path = %id, error = %chain(&error), "a path's health report was not taken");
                if matches!(error, IndexError::UnknownHealth { .. }) {
                    unknown.insert(id);
                }
            }
        }
        unknown.iter().for_each(|path| shared.declare_unknown(path));
    }
}
