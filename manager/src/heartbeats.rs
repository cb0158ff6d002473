//! Watching workers' heartbeats. What they say goes to the driver. Never: decides whether a worker gets tasks.

use std::sync::Arc;
use std::time::Duration;

use rpc::beat::Beat;
use rpc::extension::{Hello, WorkerState};
use rpc::{ApiError, ApiResult, WorkerApi};
use sealtasks::{HealthReport, StorageId, WorkerId};
use stores::{Index as _, IndexError};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::driver::{Input, Peer, Polled};
use crate::shared::Shared;
use crate::workers::chain_of;

/// Beats of a period, on which the workers of any fleet are asked: waking for each of ten thousand by itself takes longer than
/// asking it.
const BEATS: u64 = 50;

/// Asks a worker at every heartbeat until it is gone or the manager stops.
pub(crate) async fn watch(shared: Arc<Shared>, session: WorkerId, api: Arc<dyn WorkerApi>, peer: Peer) {
    let mut watched =
        Watched { session, api, asks: Asks::of(peer), had: 0, unknown: Vec::new(), is_due: false };
    let period = shared.timing.heartbeat;
    // The worker has just answered.
    let first = Instant::now() + until_first(shared.state.now_ms(), period);
    let mut beat = tokio::time::interval_at(first, period);
    // One that answers late is asked on the beat of the others again.
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shared.cancelled.cancelled() => return,
            _ = beat.tick(), if !watched.is_due => {}
            () = std::future::ready(()), if watched.is_due => {}
        }
        let (input, last) = match watched.ask(&shared).await {
            Heard::Input(input) => (input, false),
            Heard::Gone(reason) => (Input::WorkerGone { session, reason }, true),
            Heard::Fenced(reason) => {
                hear(&shared, &watched.api).await;
                (Input::WorkerGone { session, reason }, true)
            }
        };
        if shared.inputs.send(input).await.is_err() || last {
            return;
        }
    }
}

/// A period, and what is left to the next beat.
fn until_first(now_ms: u64, period: Duration) -> Duration {
    let beat_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).div_ceil(BEATS).max(1);
    period.saturating_add(Duration::from_millis(beat_ms - now_ms % beat_ms))
}

/// Asks a worker whom it serves.
async fn hear(shared: &Shared, api: &Arc<dyn WorkerApi>) {
    let hello = timeout(shared.timing.heartbeat_timeout, api.hello(shared.hello())).await;
    if let Ok(Ok(Some(Hello { reign: Some(theirs), .. }))) = hello
        && let Err(why) = shared.hear_of(&theirs)
    {
        tracing::warn!(why, "a worker serves another manager");
    }
}

/// What one heartbeat gave.
enum Heard {
    Input(Input),
    Gone(String),
    /// It serves another manager.
    Fenced(String),
}

/// What a worker is asked at each heartbeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// All that there is to tell in one.
    Beat,
    /// Its state: it is of a version that knows no more.
    State,
    /// As Lotus asks.
    Lotus,
}

impl Asks {
    const fn of(peer: Peer) -> Self {
        if peer.is_sealyard() { Self::Beat } else { Self::Lotus }
    }
}

/// A worker that is watched.
struct Watched {
    session: WorkerId,
    api: Arc<dyn WorkerApi>,
    asks: Asks,
    /// The number of its last answer.
    had: u64,
    /// Paths of that answer that the index does not know.
    unknown: Vec<StorageId>,
    /// They are named at once, if the one before named none: files in them are known to nobody meanwhile.
    is_due: bool,
}

impl Watched {
    async fn ask(&mut self, shared: &Shared) -> Heard {
        let (session, limit) = (self.session, shared.timing.heartbeat_timeout);
        if self.asks == Asks::Beat {
            let unknown = std::mem::take(&mut self.unknown);
            let names_some = !unknown.is_empty();
            self.is_due = false;
            let beat = Beat { session: shared.session, had: self.had, unknown };
            match timeout(limit, self.api.beat(beat)).await {
                Ok(Err(error)) if error.is_method_not_found() => self.asks = Asks::State,
                answer => {
                    let mut health = Vec::new();
                    let state = answer.map(|answer| {
                        answer.map(|beaten| {
                            (self.had, health) = (beaten.number, beaten.health);
                            beaten.state
                        })
                    });
                    let heard = told(&self.api, session, limit, state).await;
                    // Of a worker that is gone nothing is believed.
                    if matches!(heard, Heard::Input(_)) {
                        self.unknown = unknown_after(shared, health).await;
                        self.is_due = !names_some && !self.unknown.is_empty();
                    }
                    return heard;
                }
            }
        }
        match self.asks {
            Asks::Lotus => ask_lotus(&self.api, session, limit).await,
            Asks::Beat | Asks::State => {
                told(&self.api, session, limit, timeout(limit, self.api.state()).await).await
            }
        }
    }
}

/// Tells the index how the paths are. Which of them it does not know.
async fn unknown_after(shared: &Shared, health: Vec<(StorageId, HealthReport)>) -> Vec<StorageId> {
    let mut unknown = Vec::new();
    for (path, report) in health {
        match shared.index.report_health(&path, report).await {
            Ok(()) => {}
            Err(IndexError::UnknownHealth { .. }) => unknown.push(path),
            Err(error) => tracing::warn!(%path, error = chain_of(&error), "a path's health was not taken"),
        }
    }
    unknown
}

fn missed(session: WorkerId, reason: String) -> Heard {
    Heard::Input(Input::WorkerMissed { session, reason })
}

fn silent(session: WorkerId, limit: Duration) -> Heard {
    missed(session, format!("no answer within {} ms", limit.as_millis()))
}

/// Why a worker that says it has session `now` is gone; `None`: it is not.
fn gone(session: WorkerId, now: WorkerId) -> Option<Heard> {
    match now {
        WorkerId::CLOSED => Some(Heard::Gone("it closes".to_owned())),
        now if now != session => Some(Heard::Gone(format!("it has session {now} now"))),
        _ => None,
    }
}

/// Its state tells its session, too, and whether it takes tasks.
async fn told(
    api: &Arc<dyn WorkerApi>,
    session: WorkerId,
    limit: Duration,
    answer: Result<ApiResult<WorkerState>, Elapsed>,
) -> Heard {
    match answer {
        Ok(Ok(state)) => {
            let input = |state| Heard::Input(Input::WorkerState { state: Box::new(state), reply: None });
            return gone(session, state.session).unwrap_or_else(|| input(state));
        }
        Ok(Err(error)) if error.is_fenced() => return Heard::Fenced(chain_of(&error)),
        Ok(Err(_)) | Err(_) => {}
    }
    // It may live and only be unable to tell its state, or not in time: a mount that hangs keeps its threads.
    match timeout(limit, api.process_session()).await {
        Err(_) => silent(session, limit),
        Ok(Err(error)) => missed(session, chain_of(&error)),
        Ok(Ok(now)) => gone(session, now).unwrap_or(Heard::Input(Input::WorkerSeen { session })),
    }
}

async fn ask_lotus(api: &Arc<dyn WorkerApi>, session: WorkerId, limit: Duration) -> Heard {
    let mut enabled = true;
    match timeout(limit, api.session()).await {
        Err(_) => return silent(session, limit),
        Ok(Err(ApiError::Remote { message, .. })) => {
            // One that was switched off answers so; only its own word tells that from a fault.
            match timeout(limit, api.enabled()).await {
                Ok(Ok(false)) => enabled = false,
                Ok(Ok(true) | Err(_)) | Err(_) => return missed(session, message),
            }
        }
        Ok(Err(error)) => return missed(session, chain_of(&error)),
        Ok(Ok(now)) => {
            if let Some(gone) = gone(session, now) {
                return gone;
            }
        }
    }
    let polled = async {
        let (tasks, paths, info) = tokio::try_join!(api.task_types(), api.paths(), api.info())?;
        Ok::<_, ApiError>(Polled { tasks, paths, info, enabled })
    };
    match timeout(limit, polled).await {
        Ok(Ok(polled)) => Heard::Input(Input::WorkerPolled { session, polled }),
        Ok(Err(_)) | Err(_) => Heard::Input(Input::WorkerSeen { session }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_register_at_any_time_are_asked_on_few_beats() {
        for (period, most) in [(Duration::from_secs(10), 200), (Duration::from_millis(20), 1)] {
            for now_ms in 1_000_000..1_000_500 {
                let wait = until_first(now_ms, period);
                assert!(wait > period && wait <= period + Duration::from_millis(most), "{now_ms}: {wait:?}");
                assert_eq!(
                    (now_ms + wait.as_millis() as u64 - period.as_millis() as u64) % most,
                    0,
                    "{now_ms}"
                );
            }
        }
    }
}
