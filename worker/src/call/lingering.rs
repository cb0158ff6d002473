//! Executors of an earlier life that do not end although killed: they hang in the kernel, usually on a disk that does not
//! answer. Their calls are held, as running, until they have ended: what they take stays charged at the manager, no later
//! attempt begins in their files, and everything else of the worker goes on. Never: takes a file away while they may write it.

use std::sync::Arc;

use rpc::api::AttemptAccount;
use rpc::extension::CallPhase;
use stores::Making;
use tokio_util::sync::CancellationToken;

use super::end;
use crate::error::chain;
use crate::journal::{Ended, Unfinished};
use crate::legacy::{MANAGER_RETRY, remove_created, restarted, undeclared};
use crate::manager_index::on_behalf_of;
use crate::process;
use crate::worker::Shared;

/// Holds the call until its executor has ended; then what it had begun is removed, and the call is returned as restarted.
pub(crate) fn outwait(shared: &Arc<Shared>, lost: Unfinished) {
    let (call, attempt, sector) = (lost.accepted.call, lost.accepted.attempt, lost.accepted.sector.id);
    // It is stopped already, as far as anybody can.
    shared.calls.hold(call, attempt, CallPhase::Running, CancellationToken::new());
    shared.calls.linger(call, lost.process.as_ref().map(|mark| mark.pid));
    let made = lost.running.as_ref().map(|running| running.made(&lost.created)).unwrap_or_default();
    let making = shared.local.making(sector, &made);
    let own = Arc::clone(shared);
    shared.tasks.spawn(on_behalf_of(attempt, async move {
        tokio::select! {
            // The next life finds it as this one did.
            () = own.closed.cancelled() => {}
            () = outlast(&own, lost, making) => {}
        }
    }));
}

async fn outlast(shared: &Arc<Shared>, lost: Unfinished, making: Making) {
    let Unfinished { accepted, process, created, .. } = lost;
    let (call, sector) = (accepted.call, accepted.sector.id);
    let dir = shared.call_dir(call.id);
    while let Err(error) = process::end_leftovers(process.as_ref(), call.id, &dir).await {
        tracing::error!(%call, error, "the call stays held until it has ended");
        tokio::time::sleep(MANAGER_RETRY).await;
    }
    // Until that is known no scan may take them for whole ones.
    let begun = loop {
        match undeclared(&shared.index, sector, created.clone()).await {
            Ok(begun) => break begun,
            Err(error) => {
                tracing::warn!(%call, error = %chain(&error), "whose the files of a call are cannot be told yet");
                tokio::time::sleep(MANAGER_RETRY).await;
            }
        }
    };
    // Removed on a thread that may block: the disk has just come back.
    let _ = tokio::task::spawn_blocking(move || remove_created(&begun)).await;
    making.done();
    shared.local.reserved_again(sector);
    let ended = Ended { result: Err(restarted(&shared.name)), account: AttemptAccount::default() };
    end(shared, accepted, ended).await;
}
