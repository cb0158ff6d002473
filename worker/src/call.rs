//! The life of one call: accepted into the journal, its files acquired, its executor run, what it made declared, its
//! result journalled and handed to the returns.

mod ending;
mod inputs;
mod lingering;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rpc::api::{AttemptAccount, Job, ReturnMethod};
use rpc::extension::{CallPhase, GpuShare};
use rpc::reader::{PieceData, PieceStream};
use rpc::{ApiError, ApiResult};
use sealtasks::{
    CallError, CallErrorCode, CallId, ExecutorFailure, ExecutorRequest, FailureClass, FileType, FileTypes,
    TaskInput, TaskOutput, TaskType,
};
use stores::{Acquired, DeletePermit, Making, Reservation, StoreError, TransferMeter, crash_point_of};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::calls::CALLS_MAX;
use crate::confine::Place;
use crate::error::chain;
use crate::executor::{Executor, Run};
use crate::journal::{Acceptance, Accepted, Ended, Journal, ProcessMark, Running};
use crate::legacy::{Survivor, restarted};
use crate::manager_index::on_behalf_of;
use crate::returns;
use crate::usage::{self, Usage};
use crate::worker::{Shared, now_ms};

pub(crate) use lingering::outwait;

/// Accepts a job, or finds that it is accepted already, and runs it in the background.
pub(crate) async fn accept(shared: &Arc<Shared>, job: Job) -> ApiResult<CallId> {
    let Job { sector, work, attempt, data, gpus } = job;
    let (Some(task), Some(method)) = (work.task_type(), ReturnMethod::of(&work)) else {
        return Err(ApiError::refused(
            "verification is no task of a worker; it runs where the sector is looked after",
        ));
    };
    if shared.stopping.is_cancelled() {
        return Err(ApiError::refused(format!("worker {} is closing", shared.name)));
    }
    let there = shared.resources.gpus.len();
    if let Some(share) = gpus.iter().find(|share| share.device >= there) {
        let (name, device) = (&shared.name, share.device);
        return Err(ApiError::refused(format!(
            "worker {name} has {there} GPUs and no GPU {device}, counted from 0"
        )));
    }
    // A repeated start is answered even when the task is no longer offered, so what is offered is asked only of new ones.
    let offered = shared.offer.tasks().contains(&task);
    // So is what it was bound by: plans that have changed since are told, and it is bound anew.
    if shared.threads.look().await {
        shared.changed();
    }
    let told = shared.threads.are_told();
    let room = told && shared.calls.len() < CALLS_MAX;
    if !offered && attempt.is_none() {
        return Err(not_offered(shared, task));
    }
    let input = work.clone();
    let fresh = Uuid::new_v4();
    let journalled = shared
        .journal
        .run(move |journal| {
            if offered && room {
                return journal.accept(fresh, sector, attempt, method, &input).map(Some);
            }
            attempt.map_or(Ok(None), |attempt| journal.known(sector, attempt, &input))
        })
        .await
        .map_err(|error| ApiError::refused(format!("the call could not be journalled: {}", chain(&error))))?;
    let call = match journalled {
        Some(Acceptance::Known(call)) => return Ok(call),
        Some(Acceptance::New(call)) => call,
        None if !offered => return Err(not_offered(shared, task)),
        None if !told => {
            let name = &shared.name;
            return Err(ApiError::refused(format!(
                "the plans of worker {name} have changed; it tells them now"
            )));
        }
        None => {
            return Err(ApiError::refused(format!("worker {} holds {CALLS_MAX} calls already", shared.name)));
        }
    };
    crash_point_of("worker.accepted", method.short_name());
    let stop = shared.stopping.child_token();
    shared.calls.hold(call, attempt, CallPhase::Acquiring, stop.clone());
    shared.changed();
    let own = Arc::clone(shared);
    let accepted = Accepted { call, sector, attempt, method };
    shared.tasks.spawn(on_behalf_of(attempt, async move {
        run(&own, accepted, Given { work, data, gpus }, stop).await;
    }));
    Ok(call)
}

fn not_offered(shared: &Shared, task: TaskType) -> ApiError {
    let why = shared.offer.pending().remove(&task).unwrap_or_else(|| "it is not enabled here".into());
    ApiError::refused(format!("worker {} does not take {task} now: {why}", shared.name))
}

/// What a call is given to work with.
struct Given {
    work: TaskInput,
    data: Option<PieceData>,
    gpus: Vec<GpuShare>,
}

/// Runs an accepted call to its end and hands its result to the returns.
async fn run(shared: &Arc<Shared>, accepted: Accepted, given: Given, stop: CancellationToken) {
    let Given { work, data, gpus } = given;
    let meter = TransferMeter::default();
    let began = now_ms();
    let mut call =
        Call { shared, accepted: &accepted, meter: &meter, stop: &stop, gpus, started_ms: None, usage: None };
    let result = match call.succeed_earlier().await {
        Ok(()) => call.perform(work, data).await,
        Err(failure) => Err(failure),
    };
    let started_ms = call.started_ms.unwrap_or(began);
    let usage = call.usage.and_then(|usage| usage.get().copied()).unwrap_or_default();
    finish(shared, accepted, result, Cost { started_ms, bytes_fetched: meter.bytes(), usage }).await;
}

/// What a call cost until its result was there.
struct Cost {
    started_ms: u64,
    bytes_fetched: u64,
    /// Of an executor that an earlier life started: as it was last seen, at most a second before its end.
    usage: Usage,
}

/// Goes on with a call that an earlier life of the worker began: its executor is waited for, and what it makes is declared.
/// The call counts as running from now on, and its files as being made.
pub(crate) fn resume(shared: &Arc<Shared>, survivor: Survivor) {
    let Survivor { accepted, input, created, running, orphan } = survivor;
    let stop = shared.stopping.child_token();
    shared.calls.hold(accepted.call, accepted.attempt, CallPhase::Running, stop.clone());
    let pid = orphan.as_ref().map(|orphan| orphan.mark().pid);
    shared.calls.proceed(accepted.call, CallPhase::Running, pid);
    let making = shared.local.making(accepted.sector.id, &running.made(&created));
    let sector = accepted.sector;
    let request = ExecutorRequest {
        version: ExecutorRequest::VERSION,
        sector,
        work: input,
        files: running.files.clone(),
    };
    // It may end before it is looked at again.
    let seen = Arc::new(Mutex::new(pid.and_then(usage::so_far).unwrap_or_default()));
    let own = Arc::clone(shared);
    shared.tasks.spawn(on_behalf_of(accepted.attempt, async move {
        let meter = TransferMeter::default();
        let (started_ms, bytes) = (running.started_ms, running.bytes_fetched);
        let gpus = Vec::new();
        let call = Call {
            shared: &own,
            accepted: &accepted,
            meter: &meter,
            stop: &stop,
            gpus,
            started_ms: Some(started_ms),
            usage: None,
        };
        let held = call.held_again(running, created, making, &request.work).await;
        let after = Afterwards::of(&request.work);
        let id = accepted.call.id;
        let place = place_again(&own, &request.work, id, pid);
        let place_of_call = (id, own.call_dir(id));
        let executor = Executor::taken_over(place_of_call, orphan, request, place, Arc::clone(&seen));
        let ran = executor.finish(&stop, &own.leaving).await;
        let result = call.conclude(ran, &held, after).await;
        let bytes_fetched = bytes.saturating_add(meter.bytes());
        let usage = *seen.lock().unwrap_or_else(PoisonError::into_inner);
        finish(&own, accepted, result, Cost { started_ms, bytes_fetched, usage }).await;
    }));
}

/// What the executor of an earlier life was confined to.
fn place_again(shared: &Shared, work: &TaskInput, call: Uuid, pid: Option<u32>) -> Place {
    let place = |task| shared.executor.confiner.place_again(task, &call.to_string(), pid);
    work.task_type().map_or_else(Place::anywhere, place)
}

/// What becomes of copies of the sector's files when the executor is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    Nothing,
    /// Those that were fetched for this work alone go.
    DropCopies,
    /// All but the one that was worked on go.
    KeepOneCopy,
}

impl Afterwards {
    const fn of(work: &TaskInput) -> Self {
        match work {
            TaskInput::Unseal(_) => Self::DropCopies,
            TaskInput::ReleaseUnsealed(_) => Self::KeepOneCopy,
            _ => Self::Nothing,
        }
    }
}

/// Journals how a call ended and hands its result to the returns.
async fn finish(shared: &Arc<Shared>, accepted: Accepted, result: Outcome<TaskOutput>, cost: Cost) {
    if shared.closed.is_cancelled() && result.is_err() {
        // Ended because the worker ends: it stays unfinished in the journal and is returned as restarted next time.
        return;
    }
    if shared.stopping.is_cancelled()
        && let Err(failure) = &result
    {
        tracing::warn!(call = %accepted.call, failure.message, "given up: the worker stops");
        // Lotus's code says that the worker is gone; the class, that somebody wanted it so.
        let account = AttemptAccount { class: Some(FailureClass::Aborted), ..AttemptAccount::default() };
        let ended = Ended { result: Err(restarted(&shared.name)), account };
        return end(shared, accepted, ended).await;
    }
    crash_point_of("worker.declared", accepted.method.short_name());
    let class = result.as_ref().err().map(|failure| failure.class);
    let Cost { started_ms, bytes_fetched, usage } = cost;
    let account = AttemptAccount {
        started_ms,
        ended_ms: now_ms().max(started_ms),
        bytes_fetched,
        peak_bytes: usage.peak_bytes,
        cpu_ms: usage.cpu_ms,
        class,
    };
    let result = result.map_err(|failure| CallError {
        code: code_of(failure.class),
        message: format!("{} [name: {}]", failure.message, shared.name),
    });
    end(shared, accepted, Ended { result, account }).await;
}

/// Journals a result and offers it.
async fn end(shared: &Arc<Shared>, accepted: Accepted, ended: Ended) {
    let journalled = ended.clone();
    let id = accepted.call.id;
    if let Err(error) = shared.journal.run(move |journal| journal.ended(id, &journalled)).await {
        // It is still returned; only a crash before that would lose it, and then the call counts as restarted.
        tracing::error!(call = %accepted.call, error = %chain(&error), "a result could not be journalled");
    }
    crash_point_of("worker.journalled", accepted.method.short_name());
    returns::spawn(shared, accepted, ended);
}

/// Lotus's code for a class: its pipeline retries 102 by itself.
const fn code_of(class: FailureClass) -> CallErrorCode {
    match class {
        FailureClass::Space => CallErrorCode::TempAllocateSpace,
        FailureClass::Environment
        | FailureClass::Network
        | FailureClass::Compute
        | FailureClass::BadData
        | FailureClass::Aborted => CallErrorCode::Unknown,
    }
}

type Outcome<T> = Result<T, ExecutorFailure>;

/// One running call.
struct Call<'a> {
    shared: &'a Arc<Shared>,
    accepted: &'a Accepted,
    meter: &'a TransferMeter,
    stop: &'a CancellationToken,
    /// The GPUs that are its own.
    gpus: Vec<GpuShare>,
    /// When its inputs were there.
    started_ms: Option<u64>,
    /// What its executor took, once it has ended.
    usage: Option<Arc<OnceLock<Usage>>>,
}

/// The files of a call while its executor runs.
struct Held {
    acquired: Acquired,
    /// Given back when dropped.
    _reservation: Option<Reservation>,
    /// What the executor makes.
    allocated: FileTypes,
    /// What was not there before.
    created: Vec<PathBuf>,
    /// Until they are declared, or removed again, no scan takes them for whole.
    making: Making,
}

impl Call<'_> {
    async fn perform(&mut self, work: TaskInput, data: Option<PieceData>) -> Outcome<TaskOutput> {
        let sector = self.accepted.sector;
        let remote = &self.shared.remote;
        match &work {
            TaskInput::Fetch(fetch) => {
                let none = FileTypes::NONE;
                let (types, path, mode) = (fetch.types, fetch.path_type, fetch.mode);
                self.store(remote.acquire(sector, types, none, path, mode, self.meter)).await?;
                Ok(TaskOutput::Fetch)
            }
            TaskInput::Move(wanted) => {
                // A start that comes late deletes nothing.
                self.still_wanted().await?;
                self.store(remote.move_storage(sector, wanted.types, self.meter)).await?;
                self.still_wanted().await?;
                self.store(remote.remove_copies(sector.id, wanted.types)).await?;
                Ok(TaskOutput::Move)
            }
            TaskInput::ReleaseUnsealed(release) if release.keep.is_empty() => {
                self.still_wanted().await?;
                let permit = DeletePermit { reason: format!("ReleaseUnsealed, call {}", self.accepted.call) };
                self.store(remote.remove_all(sector.id, FileType::Unsealed, &permit)).await?;
                Ok(TaskOutput::ReleaseUnsealed)
            }
            TaskInput::Verify(_) | TaskInput::Scrub(_) | TaskInput::Vanilla(_) => {
                Err(environment("this is no task of a worker"))
            }
            TaskInput::DataCid(_)
            | TaskInput::AddPiece(_)
            | TaskInput::PreCommit1(_)
            | TaskInput::PreCommit2(_)
            | TaskInput::Commit1(_)
            | TaskInput::Commit2(_)
            | TaskInput::Finalize(_)
            | TaskInput::ReleaseUnsealed(_)
            | TaskInput::Unseal(_) => self.execute(work, data).await,
        }
    }

    /// Acquires the files, runs the executor, and declares what it made. On failure nothing that it began stays.
    async fn execute(&mut self, work: TaskInput, data: Option<PieceData>) -> Outcome<TaskOutput> {
        let data = self.piece_stream(&work, data).await?;
        let held = self.acquire(&work).await?;
        if let TaskInput::Finalize(_) | TaskInput::ReleaseUnsealed(_) = work {
            // A later attempt may be at work on the very files that its executor makes less.
            self.still_wanted().await?;
        }
        self.crash_point("worker.acquired");
        let after = Afterwards::of(&work);
        let ran = self.run_executor(work, data, &held).await;
        self.conclude(ran, &held, after).await
    }

    async fn run_executor(
        &mut self,
        work: TaskInput,
        data: Option<PieceStream>,
        held: &Held,
    ) -> Outcome<TaskOutput> {
        let shared = self.shared;
        let call = self.accepted.call;
        let task = work.task_type().ok_or_else(|| environment("verification is no task of a worker"))?;
        let sector = self.accepted.sector;
        let dir = shared.call_dir(call.id);
        let (params, size) = (Arc::clone(&shared.params), sector.proof.sector_size());
        let parameters =
            tokio::task::spawn_blocking(move || params.environment(size)).await.unwrap_or_default();
        let files = held.acquired.files.clone();
        let request = ExecutorRequest { version: ExecutorRequest::VERSION, sector, work, files };
        let (call_id, task, gpus) = (call.id, Some(task), self.gpus.clone());
        let spares = Some(&shared.spares);
        let run = Run { call: call_id, dir, task, request, parameters, data, gpus, spares };

        // What it creates is journalled before it can create anything.
        self.journal_running(held, None).await?;
        if self.stop.is_cancelled() {
            return Err(aborted());
        }
        self.started_ms = Some(now_ms());
        self.crash_point("worker.starting");
        let executor = shared.executor.spawn(run).await?;
        self.crash_point("worker.started");
        self.usage = executor.usage();
        let mark = executor.mark().clone();
        let pid = mark.pid;
        if let Err(failure) = self.journal_running(held, Some(mark)).await {
            // An executor that could not be found again after a crash must not run.
            let stop = CancellationToken::new();
            stop.cancel();
            let _ = executor.finish(&stop, &AtomicBool::new(false)).await;
            return Err(failure);
        }
        shared.calls.proceed(call, CallPhase::Running, Some(pid));
        shared.changed();
        self.crash_point("worker.running");
        executor.finish(self.stop, &shared.leaving).await
    }

    async fn journal_running(&self, held: &Held, mark: Option<ProcessMark>) -> Outcome<()> {
        let (id, created) = (self.accepted.call.id, held.created.clone());
        let running = Running {
            files: held.acquired.files.clone(),
            ids: held.acquired.ids.clone(),
            allocated: held.allocated,
            started_ms: self.started_ms.unwrap_or_else(now_ms),
            bytes_fetched: self.meter.bytes(),
        };
        let write = move |journal: &Journal| journal.running(id, &created, &running, mark.as_ref());
        self.shared.journal.run(write).await.map_err(|error| environment(&chain(&error)))
    }

    /// A crash point of this call.
    fn crash_point(&self, name: &str) {
        crash_point_of(name, self.accepted.method.short_name());
    }

    /// Work of the stores, unless the call is stopped first.
    async fn store<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Outcome<T> {
        self.stoppable(work).await?.map_err(|error| store_failure(&error))
    }

    async fn stoppable<T>(&self, work: impl Future<Output = T>) -> Outcome<T> {
        tokio::select! {
            () = self.stop.cancelled() => Err(aborted()),
            done = work => Ok(done),
        }
    }
}

fn store_failure(error: &StoreError) -> ExecutorFailure {
    ExecutorFailure { class: error.class(), message: format!("{}: {}", error.code(), chain(error)) }
}

fn aborted() -> ExecutorFailure {
    ExecutorFailure { class: FailureClass::Aborted, message: "task aborted".into() }
}

fn environment(message: &str) -> ExecutorFailure {
    ExecutorFailure { class: FailureClass::Environment, message: message.to_owned() }
}
