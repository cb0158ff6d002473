//! Carries out what the driver decided, after it is durable: each effect is a task of its own that reports back as an
//! input. Never: changes the driver's memory.

use std::sync::Arc;
use std::time::Duration;

use chain::{Allocation, ChainError};
use pipeline::SectorEvent;
use rpc::{ApiError, Job, PieceData, WorkerApi};
use sealtasks::{
    AttemptId, CallId, ChainEpoch, FailureClass, FileType, FileTypes, SealedCid, SectorId, SectorRef, Seed,
    TaskId, TaskOutput, Ticket, VerifyInput, rehearsal,
};
use stores::{DeletePermit, LockOwner, LockWant};

use crate::driver::{Effect, Input, StartCall};
use crate::heartbeats::watch;
use crate::missing;
use crate::service::Service;
use crate::shared::Shared;
use crate::staging::Staged;
use crate::state::copy::TAKEOVER_GAP;
use crate::workers::{chain_of, redial};

/// A task that found the line for its sector's files full looks again after this.
const LINE_AGAIN: Duration = Duration::from_secs(1);

/// Starts the effect.
pub(crate) fn perform(shared: &Arc<Shared>, effect: Effect) {
    let own = shared.clone();
    match effect {
        Effect::Answer(answer) => answer(),
        Effect::Start(call) => spawn(shared, start(own, call)),
        Effect::Abort { api, attempt, call } => spawn(shared, abort(own, api, attempt, call)),
        Effect::Ticket(sector) => ask(shared, sector.id, ticket(own, sector)),
        Effect::AskProven(sector) => ask(shared, sector, ask_proven(own, sector)),
        Effect::Seed(sector, sealed) => ask(shared, sector.id, seed(own, sector, sealed)),
        Effect::Verify(sector, input) => ask(shared, sector.id, verify(own, sector, input)),
        Effect::Wish(wish) => ask(shared, wish.sector(), async move {
            if let Some(messages) = &own.messages {
                messages.wish(wish).await;
            }
        }),
        Effect::Release { sector, file, reason } => {
            ask(shared, sector, release(own, sector, file, reason));
        }
        Effect::LookAgain(files) => spawn(shared, missing::look_again(Service(own), files)),
        Effect::Unstage(staged) => spawn(shared, async move {
            for id in staged {
                own.staging.remove(id).await;
            }
        }),
        Effect::Watch { session, api, peer, stop } => spawn(shared, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch(own, session, api, peer) => {}
            }
        }),
        Effect::StandInLine { task, want, owner, left } => spawn(shared, async move {
            tokio::select! {
                () = left.cancelled() => {}
                () = stand_in_line(own.clone(), task, want, owner) => {}
            }
        }),
        Effect::Redial(session) => spawn(shared, redial(own, session)),
        Effect::LookUp { call, returned, reply } => spawn(shared, async move {
            match own.state.call(call).await {
                Ok(row) => tell(&own, Input::ReturnedOld { call, returned, row, reply }).await,
                // The worker keeps the result and returns it again.
                Err(error) => drop(reply.send(Err(ApiError::refused(chain_of(&error))))),
            }
        }),
    }
}

fn spawn(shared: &Arc<Shared>, effect: impl Future<Output = ()> + Send + 'static) {
    let cancelled = shared.standing.acting().clone();
    shared.tasks.spawn(async move {
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = effect => {}
        }
    });
}

/// The same, and as long as it lasts its sector is one for which something is asked.
fn ask(shared: &Arc<Shared>, sector: SectorId, effect: impl Future<Output = ()> + Send + 'static) {
    let asking = shared.asked.begin(sector);
    spawn(shared, async move {
        effect.await;
        drop(asking);
    });
}

/// Reports back. A driver that has ended needs nothing: what is durable is found again.
async fn tell(shared: &Shared, input: Input) {
    drop(shared.inputs.send(input).await);
}

/// Calls the worker. To a Sealyard the same call is repeated until it answers, for it is the same call; to a Lotus
/// worker it is made once.
async fn start(shared: Arc<Shared>, call: StartCall) {
    let (attempt, stage) = (call.attempt, call.stage);
    let mut failures = 0;
    let input = loop {
        let data = match open_data(&shared, call.data).await {
            Ok(data) => data,
            Err(reason) => break Input::StartRefused { attempt, stage, reason },
        };
        let job = Job {
            sector: call.sector,
            work: call.work.clone(),
            attempt: call.repeatable.then_some(attempt),
            data,
            gpus: call.gpus.clone(),
        };
        let error = match call.api.start(job).await {
            Ok(id) => break Input::Accepted { attempt, stage, call: id },
            Err(error) => error,
        };
        let reason = chain_of(&error);
        match error {
            ApiError::Unauthorized { .. } | ApiError::Remote { .. } | ApiError::Refused { .. } => {
                break Input::StartRefused { attempt, stage, reason };
            }
            // It cannot have taken it; were it waited for, one that never comes back would keep the task.
            ApiError::Unreachable { .. } if !call.repeatable && error.was_not_sent() => {
                break Input::StartRefused { attempt, stage, reason };
            }
            ApiError::Unreachable { .. } | ApiError::Malformed { .. } if !call.repeatable => {
                break Input::StartUnknown { attempt, stage, reason };
            }
            ApiError::Unreachable { .. } | ApiError::Malformed { .. } => {}
        }
        if call.over.is_cancelled() {
            // The attempt has ended, or its worker's successor tells at its registration what becomes of it.
            return;
        }
        tracing::warn!(%attempt, reason, "the worker did not answer; the call is repeated");
        let wait = Duration::from_millis(shared.timing.call_again.after(failures));
        failures = failures.saturating_add(1);
        tokio::select! {
            () = call.over.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    };
    tell(&shared, input).await;
}

/// The bytes that a worker is to write, from their beginning: each call reads them anew.
async fn open_data(shared: &Shared, data: Option<Staged>) -> Result<Option<PieceData>, String> {
    let Some(staged) = data else { return Ok(None) };
    let stream = shared.staging.read(staged).await;
    let stream = stream.map_err(|error| format!("the data given for this sector cannot be read: {error}"))?;
    Ok(Some(PieceData::Stream(stream)))
}

async fn stand_in_line(shared: Arc<Shared>, task: TaskId, want: LockWant, owner: LockOwner) {
    let lock = loop {
        match shared.locks.lock(want, owner.clone()).await {
            Ok(lock) => break lock,
            // The line is as long as it may be.
            Err(error) => tracing::warn!(%task, %error, "a task stands behind the line for its files"),
        }
        tokio::time::sleep(LINE_AGAIN).await;
    };
    tell(&shared, Input::TurnCame { task, lock }).await;
}

async fn abort(shared: Arc<Shared>, api: Arc<dyn WorkerApi>, attempt: AttemptId, call: CallId) {
    // On success the call returns "task aborted", and that ends the attempt.
    if let Err(error) = api.abort(call).await {
        tell(&shared, Input::AbortFailed { attempt, reason: chain_of(&error) }).await;
    }
}

async fn ticket(shared: Arc<Shared>, sector: SectorRef) {
    if shared.rehearses() {
        // No chain hears of it.
        let ticket = Ticket(rehearsal::bytes_of(sector.id, rehearsal::Part::Ticket));
        let event = SectorEvent::TicketReady { ticket, epoch: ChainEpoch::new(0) };
        return tell(&shared, Input::Sector { sector: sector.id, event }).await;
    }
    let event = match number_is_ours(&shared, sector.id).await {
        Ok(()) => match shared.chain.ticket(sector).await {
            Ok((ticket, epoch)) => SectorEvent::TicketReady { ticket, epoch },
            Err(error) => failed(&shared, class_of(&error), chain_of(&error)),
        },
        Err(failed) => failed,
    };
    tell(&shared, Input::Sector { sector: sector.id, event }).await;
}

/// The sector's number is free on its chain, or was taken by a message of ours: sealed under one that somebody else has taken
/// since this manager started, it could never be pre-committed (Lotus asks at GetTicket, too).
async fn number_is_ours(shared: &Shared, sector: SectorId) -> Result<(), SectorEvent> {
    let refused = |error: ChainError| failed(shared, class_of(&error), chain_of(&error));
    let is_ours = match shared.chain.allocation(sector).await.map_err(refused)? {
        // One that is proven is refused for just that.
        Allocation::Free | Allocation::Proven => true,
        Allocation::Spent => false,
        // What a lost manager has promised after the copy was made that this one goes on from is in no outbox here.
        Allocation::PreCommitted if shared.state.epoch().get() > TAKEOVER_GAP => true,
        Allocation::PreCommitted => {
            let promised = shared.messages.as_ref().map(|messages| messages.has_promised(sector));
            promised
                .unwrap_or(Ok(false))
                .map_err(|error| failed(shared, FailureClass::Environment, chain_of(&error)))?
        }
    };
    if is_ours {
        return Ok(());
    }
    // Those who took this one may have taken more.
    let miner = sector.miner;
    if let Ok(number) = shared.chain.first_free(miner).await {
        tell(shared, Input::FirstFree { miner, number }).await;
    }
    Err(refused(ChainError::NumberTaken { sector }))
}

async fn ask_proven(shared: Arc<Shared>, sector: SectorId) {
    let leave = match number_is_ours(&shared, sector).await {
        Ok(()) => {
            let leave = shared.chain.may_seal(sector).await;
            leave.map_err(|error| failed(&shared, class_of(&error), chain_of(&error)))
        }
        Err(failed) => Err(failed),
    };
    tell(&shared, Input::Leave { sector, leave }).await;
}

async fn seed(shared: Arc<Shared>, sector: SectorRef, sealed: SealedCid) {
    if shared.rehearses() {
        let seed = Seed(rehearsal::bytes_of(sector.id, rehearsal::Part::Seed));
        let event = SectorEvent::SeedReady { seed, epoch: ChainEpoch::new(0) };
        return tell(&shared, Input::Sector { sector: sector.id, event }).await;
    }
    let event = match shared.chain.seed(sector, sealed).await {
        Ok((seed, epoch)) => SectorEvent::SeedReady { seed, epoch },
        // Lost, as a message is that is nowhere.
        Err(error @ ChainError::NoPreCommit { .. }) => {
            failed(&shared, FailureClass::Compute, chain_of(&error))
        }
        Err(error) => failed(&shared, class_of(&error), chain_of(&error)),
    };
    tell(&shared, Input::Sector { sector: sector.id, event }).await;
}

fn class_of(error: &ChainError) -> FailureClass {
    if error.is_permanent() { FailureClass::Environment } else { FailureClass::Network }
}

async fn verify(shared: Arc<Shared>, sector: SectorRef, input: VerifyInput) {
    let event = match shared.verifier.verify(sector, input).await {
        Ok(valid) => {
            SectorEvent::TaskDone { output: TaskOutput::Verify(valid), now_ms: shared.state.now_ms() }
        }
        Err(reason) => {
            failed(&shared, FailureClass::Environment, format!("the proof was not verified: {reason}"))
        }
    };
    tell(&shared, Input::Sector { sector: sector.id, event }).await;
}

fn failed(shared: &Shared, class: FailureClass, message: String) -> SectorEvent {
    SectorEvent::Failed { class, message, now_ms: shared.state.now_ms() }
}

/// Whoever reads the file now reads it to its end.
async fn released(shared: &Shared, sector: SectorId, file: FileType, reason: String) -> Result<(), String> {
    let want = LockWant { sector, read: FileTypes::NONE, write: file.into() };
    let owner = LockOwner { owner: "manager".to_owned(), reason: format!("release: {reason}") };
    let _lock = shared.locks.lock(want, owner).await.map_err(|error| chain_of(&error))?;
    let permit = DeletePermit { reason };
    shared.remote.remove_all(sector, file, &permit).await.map_err(|error| chain_of(&error))
}

async fn release(shared: Arc<Shared>, sector: SectorId, file: FileType, reason: String) {
    let result = released(&shared, sector, file, reason).await;
    tell(&shared, Input::Released { sector, result }).await;
}
