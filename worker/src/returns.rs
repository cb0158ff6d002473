//! Offers each result to the manager until it is acknowledged.
//!
//! A Sealyard's, and to whoever does not answer, for ever. A Lotus miner refuses for good what it has already been told: an answer
//! of its that is an error is asked for again a bounded number of times, and the result then kept in the journal until the worker
//! starts anew, as long as it is one of the last that were refused. Never: makes or changes a result.

use std::sync::Arc;
use std::time::Duration;

use rpc::ApiError;
use rpc::api::Returned;
use rpc::extension::CallPhase;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::chain;
use crate::journal::{Accepted, Ended, JournalError};
use crate::worker::Shared;

/// The longest pause between two tries, as a multiple of the first. The manager's return is noticed earlier by the
/// registration, which wakes all tries.
const PAUSE_GROWTH_MAX: u32 = 12;

/// Returns in the background.
pub(crate) fn spawn(shared: &Arc<Shared>, accepted: Accepted, ended: Ended) {
    let own = Arc::clone(shared);
    shared.calls.hold(accepted.call, accepted.attempt, CallPhase::Returning, CancellationToken::new());
    shared.changed();
    shared.tasks.spawn(async move {
        let closed = own.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = deliver(&own, accepted, ended) => {}
        }
    });
}

/// Offers one result until it is acknowledged or refused for good.
async fn deliver(shared: &Arc<Shared>, accepted: Accepted, ended: Ended) {
    let call = accepted.call;
    let mut returned_to_manager = shared.manager_back.subscribe();
    let (mut refusals, mut growth) = (0_u32, 1);
    loop {
        let returned = Returned {
            method: accepted.method,
            result: ended.result.clone(),
            attempt: accepted.attempt,
            account: Some(ended.account),
        };
        let Err(error) = shared.manager.return_result(call, returned).await else {
            stores::crash_point_of("worker.acknowledged", accepted.method.short_name());
            return finish(shared, &accepted, Conclusion::Acknowledged).await;
        };
        if answered(&error) {
            refusals = refusals.saturating_add(1);
            // A Sealyard that cannot take it now (its disk is full) can later, and would not know whose it is once it is no
            // more said to be held.
            if refusals >= shared.periods.refusals_max && accepted.attempt.is_none() {
                tracing::error!(%call, error = %chain(&error), refusals, "the manager refuses a result; it is kept");
                return finish(shared, &accepted, Conclusion::Refused).await;
            }
        }
        tracing::warn!(%call, error = %chain(&error), "a result could not be returned; trying again");
        let pause = jittered(shared.periods.return_retry.saturating_mul(growth));
        growth = (growth * 2).min(PAUSE_GROWTH_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = returned_to_manager.changed() => growth = 1,
        }
    }
}

/// How the offering of a result ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conclusion {
    Acknowledged,
    Refused,
}

async fn finish(shared: &Arc<Shared>, accepted: &Accepted, conclusion: Conclusion) {
    let id = accepted.call.id;
    let dir = shared.call_dir(id);
    let write = move |journal: &crate::journal::Journal| -> Result<(), JournalError> {
        // Request, report and log are of no more use: the result is in the journal. A directory that stays is swept at the next
        // start.
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "a call's directory could not be removed");
        }
        match conclusion {
            Conclusion::Refused => {
                let forgotten = journal.refused(id)?;
                if !forgotten.is_empty() {
                    let bound = crate::journal::REFUSED_MAX;
                    tracing::error!(
                        ?forgotten,
                        bound,
                        "results that the manager has refused are forgotten: too many are kept"
                    );
                }
                Ok(())
            }
            Conclusion::Acknowledged => journal.acknowledged(id),
        }
    };
    if let Err(error) = shared.journal.run(write).await {
        // The result is offered once more after a restart; the manager takes a repeated one as it took the first.
        tracing::error!(call = %accepted.call, error = %chain(&error), "the journal could not be written");
    }
    shared.calls.release(accepted.call);
    shared.changed();
}

/// Whether the manager gave an answer, if only an error; else it was not reached or did not know our token.
pub(crate) fn answered(error: &ApiError) -> bool {
    match error {
        // It was taken over, or is no successor of the manager that is served: the result is not for it.
        error if error.is_fenced() => false,
        ApiError::Remote { .. } | ApiError::Refused { .. } => true,
        ApiError::Unreachable { .. } | ApiError::Unauthorized { .. } | ApiError::Malformed { .. } => false,
    }
}

/// Between three quarters and five quarters of a pause, so that many results do not come at once.
fn jittered(pause: Duration) -> Duration {
    let random = u32::from(Uuid::new_v4().as_bytes()[0]);
    pause / 4 * 3 + pause / 512 * random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        let pause = Duration::from_secs(5);
        for _ in 0..1000 {
            let jittered = jittered(pause);
            assert!(jittered >= pause / 4 * 3 && jittered <= pause / 4 * 5, "{jittered:?}");
        }
    }
}
