//! The life of one call: accepted into the journal, its files acquired, its executor run, what it made declared, its
//! result journalled and handed to the returns.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rpc::api::{AttemptAccount, Job, ReturnMethod};
use rpc::extension::{CallPhase, GpuShare};
use rpc::piece_url::PieceUrlError;
use rpc::reader::{PieceData, PieceStream};
use rpc::{ApiError, ApiResult};
use sealtasks::{
    AcquireMode, CallError, CallErrorCode, CallId, ExecutorFailure, ExecutorRequest, FailureClass, FileType,
    FileTypes, PathType, PieceSource, SectorRef, TaskInput, TaskOutput, TaskType,
};
use stores::{Acquired, CopyKind, DeletePermit, Index as _, Making, Reservation, StoreError, TransferMeter};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::calls::CALLS_MAX;
use crate::error::chain;
use crate::executor::Run;
use crate::files::{Needs, needs_of};
use crate::journal::{Acceptance, Accepted, Ended};
use crate::returns;
use crate::usage::Usage;
use crate::worker::{Shared, now_ms, remove_created};

/// Accepts a job, or finds that it is accepted already, and runs it in the background.
pub(crate) async fn accept(shared: &Arc<Shared>, job: Job) -> ApiResult<CallId> {
    let Job { sector, work, attempt, data, gpus } = job;
    let (Some(task), Some(method)) = (work.task_type(), ReturnMethod::of(&work)) else {
        return Err(ApiError::refused(
            "verification is no task of a worker; it runs where the sector is looked after",
        ));
    };
    if shared.closed.is_cancelled() {
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
    let room = shared.calls.len() < CALLS_MAX;
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
        None => {
            return Err(ApiError::refused(format!("worker {} holds {CALLS_MAX} calls already", shared.name)));
        }
    };
    let stop = shared.closed.child_token();
    shared.calls.hold(call, attempt, CallPhase::Acquiring, stop.clone());
    shared.changed();
    let own = Arc::clone(shared);
    let accepted = Accepted { call, sector, attempt, method };
    shared.tasks.spawn(async move { run(&own, accepted, Given { work, data, gpus }, stop).await });
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
    let result = call.perform(work, data).await;
    let started_ms = call.started_ms.unwrap_or(began);
    if shared.closed.is_cancelled() && result.is_err() {
        // Ended because the worker ends: it stays unfinished in the journal and is returned as restarted next time.
        return;
    }
    let usage = call.usage.and_then(|usage| usage.get().copied()).unwrap_or_default();
    let account = AttemptAccount {
        started_ms,
        ended_ms: now_ms().max(started_ms),
        bytes_fetched: meter.bytes(),
        peak_bytes: usage.peak_bytes,
        cpu_ms: usage.cpu_ms,
    };
    let result = result.map_err(|failure| CallError {
        code: code_of(failure.class),
        message: format!("{} [name: {}]", failure.message, shared.name),
    });
    let ended = Ended { result, account };
    let journalled = ended.clone();
    let id = accepted.call.id;
    if let Err(error) = shared.journal.run(move |journal| journal.ended(id, &journalled)).await {
        // It is still returned; only a crash before that would lose it, and then the call counts as restarted.
        tracing::error!(call = %accepted.call, error = %chain(&error), "a result could not be journalled");
    }
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
    _making: Making,
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
                self.store(remote.move_storage(sector, wanted.types, self.meter)).await?;
                self.store(remote.remove_copies(sector.id, wanted.types)).await?;
                Ok(TaskOutput::Move)
            }
            TaskInput::ReleaseUnsealed(release) if release.keep.is_empty() => {
                let permit = DeletePermit { reason: format!("ReleaseUnsealed, call {}", self.accepted.call) };
                self.store(remote.remove_all(sector.id, FileType::Unsealed, &permit)).await?;
                Ok(TaskOutput::ReleaseUnsealed)
            }
            TaskInput::Verify(_) | TaskInput::Scrub(_) => Err(environment("this is no task of a worker")),
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
        let sector = self.accepted.sector;
        let data = self.piece_stream(&work, data).await?;
        let held = self.acquire(&work).await?;
        let (unseals, releases) =
            (matches!(work, TaskInput::Unseal(_)), matches!(work, TaskInput::ReleaseUnsealed(_)));
        let ran = self.run_executor(work, data, &held).await;
        let ended = match ran.and_then(|output| made(&held).map(|()| output)) {
            Ok(output) => self.declare(&held).await.map(|()| output),
            Err(failure) => {
                let created = held.created.clone();
                // Nothing to add if this is interrupted: the worker is ending and removes them when it next starts.
                let _ = tokio::task::spawn_blocking(move || remove_created(&created)).await;
                Err(failure)
            }
        };
        if ended.is_ok() && releases {
            self.keep_one_copy(&held).await?;
        }
        if unseals && !self.shared.closed.is_cancelled() {
            // Copies that were fetched for unsealing alone; they go when it failed, too.
            let replica = FileTypes::SEALED | FileTypes::CACHE;
            if let Err(error) = self.shared.remote.remove_copies(sector.id, replica).await {
                tracing::warn!(sector = %sector.id, error = %chain(&error), "copies could not be removed");
            }
        }
        ended
    }

    /// The ranges to keep are kept once: whatever other copies take up is to be freed as well.
    async fn keep_one_copy(&self, held: &Held) -> Outcome<()> {
        let (sector, kind) = (self.accepted.sector.id, FileType::Unsealed);
        let Some(kept) = held.acquired.ids.get(&kind) else { return Ok(()) };
        self.store(self.shared.remote.keep_only(sector, kind, kept)).await
    }

    /// The bytes for the executor's descriptor 3.
    async fn piece_stream(&self, work: &TaskInput, data: Option<PieceData>) -> Outcome<Option<PieceStream>> {
        let (source, size) = match work {
            TaskInput::AddPiece(piece) => (piece.source, piece.size),
            TaskInput::DataCid(piece) => (piece.source, piece.size),
            _ => return Ok(None),
        };
        if source != PieceSource::Stream {
            return Ok(None);
        }
        let data =
            data.ok_or_else(|| environment("the piece's bytes were to come as a stream, but none came"))?;
        let opened = self.stoppable(data.open(size.get(), &self.shared.trust)).await?;
        let network = |error: PieceUrlError| {
            let message = format!("{}: {}", error.code(), chain(&error));
            ExecutorFailure { class: FailureClass::Network, message }
        };
        match opened.map_err(network)? {
            Some(stream) => Ok(Some(stream)),
            None => Err(environment("the piece's bytes were to come as a stream, but zeros were named")),
        }
    }

    /// Brings the files to this worker and reserves space for what the executor makes.
    async fn acquire(&self, work: &TaskInput) -> Outcome<Held> {
        let sector = self.accepted.sector;
        let shared = self.shared;
        if let TaskInput::PreCommit1(_) = work {
            self.discard_earlier_replica().await?;
        }
        let Needs { existing, allocate, path_type, mode } = match work {
            TaskInput::Unseal(_) => self.unseal_needs(sector).await?,
            other => needs_of(other),
        };
        let acquiring = shared.remote.acquire(sector, existing, allocate, path_type, mode, self.meter);
        let acquired = self.store(acquiring).await?;
        if let Some(kind) = existing.union(allocate).iter().find(|kind| !acquired.files.0.contains_key(kind))
        {
            return Err(store_failure(&StoreError::NotFound { sector: sector.id, kind }));
        }
        let created: Vec<PathBuf> = allocate
            .iter()
            .filter_map(|kind| acquired.files.0.get(&kind))
            .filter(|path| path.symlink_metadata().is_err())
            .cloned()
            .collect();
        let reservation = self.reserve(work, allocate, path_type, &acquired).await?;
        let new = |kind: &FileType| acquired.files.0.get(kind).is_some_and(|path| created.contains(path));
        let made =
            allocate.iter().filter(new).filter_map(|kind| Some((kind, acquired.ids.get(&kind)?.clone())));
        let made: Vec<_> = made.collect();
        let making = shared.local.making(sector.id, &made);
        Ok(Held { acquired, _reservation: reservation, allocated: allocate, created, _making: making })
    }

    /// Room for what the executor makes; `None`: it makes nothing.
    async fn reserve(
        &self,
        work: &TaskInput,
        allocate: FileTypes,
        path_type: PathType,
        acquired: &Acquired,
    ) -> Outcome<Option<Reservation>> {
        let (sector, local) = (self.accepted.sector, &self.shared.local);
        if let TaskInput::Unseal(_) = work {
            let kind = FileType::Unsealed;
            let lost = || store_failure(&StoreError::NotFound { sector: sector.id, kind });
            let id = acquired.ids.get(&kind).ok_or_else(lost)?;
            let multicore = self.shared.executor.uses_multicore_sdr(TaskType::Unseal);
            return self.store(local.reserve_unsealing(sector, id, multicore)).await.map(Some);
        }
        if allocate.is_empty() {
            return Ok(None);
        }
        let table = path_type.space_table();
        self.store(local.reserve(sector, allocate, &acquired.ids, table)).await.map(Some)
    }

    /// Deletes, everywhere, what an earlier PreCommit1 of the sector made: it must neither be sealed into nor be found by
    /// PreCommit2 in place of the new files. It is worthless once PreCommit1 runs again, but not before: the data that the
    /// new files are made from is brought here first.
    async fn discard_earlier_replica(&self) -> Outcome<()> {
        let sector = self.accepted.sector;
        let remote = &self.shared.remote;
        let (unsealed, none) = (FileTypes::UNSEALED, FileTypes::NONE);
        let (path, mode) = (PathType::Sealing, AcquireMode::Copy);
        let acquired = self.store(remote.acquire(sector, unsealed, none, path, mode, self.meter)).await?;
        if let Some(data) = acquired.files.0.values().find(|data| !data.exists()) {
            return Err(environment(&format!(
                "the unsealed file of {} is not at {}; nothing was deleted",
                sector.id,
                data.display()
            )));
        }
        let permit =
            DeletePermit { reason: format!("PreCommit1 makes it anew, call {}", self.accepted.call) };
        for kind in [FileType::Sealed, FileType::Cache] {
            self.store(remote.discard_all(sector.id, kind, &permit)).await?;
        }
        Ok(())
    }

    /// Unsealing writes into the unsealed file where there is one, and else makes one.
    async fn unseal_needs(&self, sector: SectorRef) -> Outcome<Needs> {
        let finding = async {
            self.shared.index.find(sector.id, FileTypes::UNSEALED, None).await.map_err(StoreError::from)
        };
        let there = !self.store(finding).await?.is_empty();
        let replica = FileTypes::SEALED | FileTypes::CACHE;
        let (existing, allocate) = if there {
            (replica | FileTypes::UNSEALED, FileTypes::NONE)
        } else {
            (replica, FileTypes::UNSEALED)
        };
        Ok(Needs { existing, allocate, path_type: PathType::Sealing, mode: AcquireMode::Copy })
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
        let run = Run { dir, task: Some(task), request, parameters, data, gpus: self.gpus.clone() };

        // What it creates is journalled before it can create anything.
        self.journal_running(&held.created, None).await?;
        if self.stop.is_cancelled() {
            return Err(aborted());
        }
        let executor = shared.executor.spawn(run).await?;
        self.started_ms = Some(now_ms());
        self.usage = Some(executor.usage());
        let mark = executor.mark().clone();
        let pid = mark.pid;
        if let Err(failure) = self.journal_running(&held.created, Some(mark)).await {
            // An executor that could not be found again after a crash must not run.
            let stop = CancellationToken::new();
            stop.cancel();
            let _ = executor.finish(&stop).await;
            return Err(failure);
        }
        shared.calls.proceed(call, CallPhase::Running, Some(pid));
        shared.changed();
        executor.finish(self.stop).await
    }

    async fn journal_running(
        &self,
        created: &[PathBuf],
        mark: Option<crate::journal::ProcessMark>,
    ) -> Outcome<()> {
        let (id, created) = (self.accepted.call.id, created.to_vec());
        let write = move |journal: &crate::journal::Journal| journal.running(id, &created, mark.as_ref());
        self.shared.journal.run(write).await.map_err(|error| environment(&chain(&error)))
    }

    /// Declares what the executor made as the primary copies. Hours of work hang on it, so a manager that does not
    /// answer is asked until it does or the call is stopped.
    async fn declare(&self, held: &Held) -> Outcome<()> {
        let sector = self.accepted.sector.id;
        for kind in held.allocated.iter() {
            let Some(id) = held.acquired.ids.get(&kind) else { continue };
            while let Err(error) = self.shared.index.declare(id, sector, kind.into(), CopyKind::Primary).await
            {
                tracing::warn!(%sector, %kind, error = %chain(&error), "a new file could not be declared; trying again");
                self.stoppable(tokio::time::sleep(self.shared.periods.return_retry)).await?;
            }
        }
        Ok(())
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

/// Checks that an executor that reports success made its files: what is declared must be there.
fn made(held: &Held) -> Outcome<()> {
    for kind in held.allocated.iter() {
        if let Some(path) = held.acquired.files.0.get(&kind).filter(|path| path.symlink_metadata().is_err()) {
            let message = format!("the executor reports success but made no {kind} at {}", path.display());
            return Err(ExecutorFailure { class: FailureClass::Compute, message });
        }
    }
    Ok(())
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
