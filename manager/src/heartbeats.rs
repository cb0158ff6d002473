//! Watching workers' heartbeats. What they say goes to the driver. Never: decides whether a worker gets tasks.

use std::sync::Arc;
use std::time::Duration;

use rpc::extension::Hello;
use rpc::{ApiError, WorkerApi};
use sealtasks::WorkerId;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::driver::{Input, Peer, Polled};
use crate::shared::Shared;
use crate::workers::chain_of;

/// Beats of a period, on which the workers of any fleet are asked: waking for each of ten thousand by itself takes longer than
/// asking it.
const BEATS: u64 = 50;

/// Asks a worker's session at every heartbeat until it is gone or the manager stops.
pub(crate) async fn watch(shared: Arc<Shared>, session: WorkerId, api: Arc<dyn WorkerApi>, peer: Peer) {
    let period = shared.timing.heartbeat;
    // The worker has just answered.
    let first = Instant::now() + until_first(shared.state.now_ms(), period);
    let mut beat = tokio::time::interval_at(first, period);
    // One that answers late is asked on the beat of the others again.
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shared.cancelled.cancelled() => return,
            _ = beat.tick() => {}
        }
        let limit = shared.timing.heartbeat_timeout;
        let (input, last) = match ask(&api, session, peer, limit).await {
            Heard::Input(input) => (input, false),
            Heard::Gone(reason) => (Input::WorkerGone { session, reason }, true),
            Heard::Fenced(reason) => {
                hear(&shared, &api).await;
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

async fn ask(api: &Arc<dyn WorkerApi>, session: WorkerId, peer: Peer, limit: Duration) -> Heard {
    if peer.is_sealyard() {
        ask_sealyard(api, session, limit).await
    } else {
        ask_lotus(api, session, limit).await
    }
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

/// One question: its state tells its session, too, and whether it takes tasks.
async fn ask_sealyard(api: &Arc<dyn WorkerApi>, session: WorkerId, limit: Duration) -> Heard {
    match timeout(limit, api.state()).await {
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
