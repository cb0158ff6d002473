//! What reaches the driver and what it wants done: the two kinds of message between the one task that decides and the
//! many that call out. Values only.

use std::sync::Arc;

use pipeline::{SectorEvent, SectorRecord};
use rpc::api::{PledgeOptions, StoragePath, WorkerInfo};
use rpc::extension::{GpuShare, WorkerState};
use rpc::operator::{AbortView, CapsTarget, CapsView, PriorityView, WorkerMode, WorkerRest};
use rpc::storage::CopyDeed;
use rpc::subject::Subject;
use rpc::unsealing::UnsealView;
use rpc::{ApiResult, Returned, WorkerApi};
use sealtasks::{
    ActorId, AttemptId, CallId, CapSpec, ChainEpoch, FileType, RegisteredSealProof, Reign, ScrubbedFile,
    SealedCid, SectorId, SectorRef, StorageId, TaskId, TaskInput, TaskType, UnsealedRange, VerifyInput,
    WorkerId,
};
use stores::{LockGuard, LockOwner, LockWant};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::removed::{Leave, RemovedFile};
use super::scrubbing::Scrubber;
use super::{Driver, Ended, Order, Peer};
use crate::messages::Wish;
use crate::staging::Staged;
use crate::state::{CallRow, CallStage, Hold};
use crate::workers::Introduction;

/// Where an answer goes. Sent after what it says is durable.
pub(crate) type Reply<T> = oneshot::Sender<ApiResult<T>>;

/// A look at what the driver knows. While this manager serves it is shown nothing that is not durable.
pub(crate) type View = Box<dyn FnOnce(&Driver) + Send>;

/// One thing that happened.
pub(crate) enum Input {
    /// A worker told of a manager that has taken over.
    Overtaken { by: Reign },
    /// An operator pledges a sector.
    Pledge { options: PledgeOptions, reply: Reply<SectorId> },
    /// A worker was dialled back and introduced itself.
    Registered { introduction: Box<Introduction>, reply: Reply<()> },
    /// A Lotus worker that did not register was dialled after a restart, and answered.
    Redialled { introduction: Box<Introduction> },
    /// A Sealyard worker's state: pushed, or asked for.
    WorkerState { state: Box<WorkerState>, reply: Option<Reply<()>> },
    /// What a Lotus worker answered when polled.
    WorkerPolled { session: WorkerId, polled: Polled },
    /// A heartbeat was answered.
    WorkerSeen { session: WorkerId },
    /// A heartbeat was not answered.
    WorkerMissed { session: WorkerId, reason: String },
    /// The worker closes, or is another one now.
    WorkerGone { session: WorkerId, reason: String },
    /// A worker accepted a call.
    Accepted { attempt: AttemptId, stage: CallStage, call: CallId },
    /// A worker refused a call: it certainly does not run.
    StartRefused { attempt: AttemptId, stage: CallStage, reason: String },
    /// Nobody knows whether a worker that cannot repeat a call accepted it.
    StartUnknown { attempt: AttemptId, stage: CallStage, reason: String },
    /// A worker returned a result.
    Returned { call: CallId, returned: Box<Returned>, reply: Reply<()> },
    /// The same, after looking the call up in the durable state.
    ReturnedOld { call: CallId, returned: Box<Returned>, row: Option<CallRow>, reply: Reply<()> },
    /// A worker could not be told to stop a call.
    AbortFailed { attempt: AttemptId, reason: String },
    /// The pipeline's next event, from outside the task machinery: ticket, seed, verification.
    Sector { sector: SectorId, event: SectorEvent },
    /// Whether a sector may be sealed, and up to which height its ticket must be good; see `chain::Chain::may_seal`. Else a
    /// failure of the sector.
    Leave { sector: SectorId, leave: Result<Option<ChainEpoch>, SectorEvent> },
    /// On chain all of the miner's numbers below this one are taken, or may be.
    FirstFree { miner: ActorId, number: u64 },
    /// Unsealed data that is no longer needed has been deleted, or not.
    Released { sector: SectorId, result: Result<(), String> },
    /// An operator ends a call.
    AbortCall { call: CallId, reply: Reply<()> },
    /// An operator ends an attempt, whether a call of it is known or not; or takes a waiting task out.
    AbortAttempt { attempt: AttemptId, reply: Reply<()> },
    /// An operator wants a failed sector's next try now.
    RetrySector { sector: SectorId, reply: Reply<()> },
    /// Someone wants a sector unsealed, and perhaps to be told when that has ended.
    Unseal { sector: SectorId, ended: Option<Ended>, reply: Reply<UnsealView> },
    /// An operator wants the space of unsealed data back, but for these ranges.
    ReleaseUnsealed { sector: SectorId, keep: Vec<UnsealedRange>, reply: Reply<UnsealView> },
    /// An operator takes a queued request out.
    RemoveRequest { request: Uuid, reply: Reply<()> },
    /// An operator ends whatever has this name.
    AbortWork { what: Subject, by: String, reply: Reply<AbortView> },
    /// An operator orders a sector's tasks, or one.
    Priority { what: Subject, priority: i64, by: String, reply: Reply<PriorityView> },
    /// An operator says what a worker may do.
    WorkerMode { worker: String, mode: WorkerMode, by: String, reply: Reply<WorkerRest> },
    /// An operator changes limits, or looks at them.
    Caps { target: CapsTarget, changes: Vec<CapSpec>, by: String, reply: Reply<CapsView> },
    /// An operator moves a sector: nothing else is begun with it.
    HoldSector { hold: Hold, reply: Reply<SectorRef> },
    /// An operator removes a sector; its record stays.
    RemoveSector { sector: SectorId, leave: Leave, by: String, reply: Reply<()> },
    /// A removed sector's file may be deleted.
    PermitRemoval { file: RemovedFile, reply: Reply<()> },
    /// A worker is to scrub files of a path: which one, and its memory set aside.
    BeginScrub { path: StorageId, proof: RegisteredSealProof, reply: Reply<Scrubber> },
    /// It has done so, or has not; the memory with this number is free.
    ScrubOver { session: WorkerId, number: u64 },
    /// What scrubbing found of a sector's files on a path, told by this worker.
    Scrubbed { sector: SectorId, place: (StorageId, String), found: Vec<ScrubbedFile>, reply: Reply<()> },
    /// It goes on; why the files were not moved, or empty.
    LetGo { sector: SectorId, reason: String },
    /// A task that stood in line for its sector's files has them.
    TurnCame { task: TaskId, lock: LockGuard },
    /// What an attempt has done with files in a path, told by whoever has this token.
    Deed { attempt: AttemptId, asker: Option<Uuid>, deed: CopyDeed, reply: Reply<()> },
    /// An operator fills or steers the pipeline.
    Order(Order),
    /// Someone wants to look.
    View(View),
}

impl Driver {
    /// Lets the scheduler know which attempts are about to end, so that it finds them faster: a hint and nothing more.
    pub(super) fn look_ahead(&self, inputs: &[Input]) {
        let returned = inputs.iter().filter_map(|input| match input {
            Input::Returned { call, .. } => self.calls.get(call).map(|(attempt, _)| *attempt),
            _ => None,
        });
        let ending: Vec<AttemptId> = returned.collect();
        // One alone is found as fast without it.
        if ending.len() > 1 {
            self.sched.look_ahead(&ending);
        }
    }
}

/// What polling a Lotus worker gave.
pub(crate) struct Polled {
    pub(crate) tasks: std::collections::BTreeSet<TaskType>,
    pub(crate) paths: Vec<StoragePath>,
    pub(crate) info: WorkerInfo,
    /// It says itself that it takes tasks.
    pub(crate) enabled: bool,
}

/// One thing to do, after the events that led to it are durable.
pub(crate) enum Effect {
    /// Call a worker.
    Start(StartCall),
    /// Tell a worker to stop a call.
    Abort { api: Arc<dyn WorkerApi>, attempt: AttemptId, call: CallId },
    /// Ask for the sealing randomness.
    Ticket(SectorRef),
    /// Ask whether the sector is proven already.
    AskProven(SectorId),
    /// Ask for the interactive randomness.
    Seed(SectorRef, SealedCid),
    /// Have a proof verified by another process.
    Verify(SectorRef, VerifyInput),
    /// Send a message to the chain, or wait for one.
    Wish(Wish),
    /// Delete a file everywhere; the permits are durable.
    Release { sector: SectorId, file: FileType, reason: String },
    /// Have those that should hold these files look whether they do.
    LookAgain(Vec<(StorageId, SectorId, FileType)>),
    /// Forget data that its sector no longer needs.
    Unstage(Vec<Uuid>),
    /// Watch a new worker's heartbeat.
    Watch { session: WorkerId, api: Arc<dyn WorkerApi>, peer: Peer, stop: CancellationToken },
    /// Dial a Lotus worker that an earlier life had calls on, until it is here or nothing is awaited of it.
    Redial(WorkerId),
    /// Look a call up, then come back with [`Input::ReturnedOld`].
    LookUp { call: CallId, returned: Box<Returned>, reply: Reply<()> },
    /// Stand in line for a lock until it is had or given up, then come back with [`Input::TurnCame`].
    StandInLine { task: TaskId, want: LockWant, owner: LockOwner, left: CancellationToken },
    /// Answer someone.
    Answer(Box<dyn FnOnce() + Send>),
}

/// A call to a worker.
pub(crate) struct StartCall {
    pub(crate) api: Arc<dyn WorkerApi>,
    pub(crate) attempt: AttemptId,
    pub(crate) stage: CallStage,
    pub(crate) sector: SectorRef,
    pub(crate) work: TaskInput,
    /// A Sealyard: the attempt travels along, and the same call may be repeated.
    pub(crate) repeatable: bool,
    /// The GPUs that are its own, for a Sealyard.
    pub(crate) gpus: Vec<GpuShare>,
    /// The data that it is to write.
    pub(crate) data: Option<Staged>,
    /// Cancelled when the attempt is over or the worker is gone: then nothing is repeated.
    pub(crate) over: CancellationToken,
}

/// A sector the driver looks after.
pub(crate) struct Sector {
    /// In a place of its own: a million of them are not moved once they are read.
    pub(crate) record: Box<SectorRecord>,
    /// What it waited for when it was read, until its task has it.
    pub(crate) wanted: Option<Box<TaskInput>>,
    pub(crate) busy: Busy,
    /// The priority of its tasks.
    pub(crate) priority: i64,
    /// Tasks that it has had since this manager started.
    pub(crate) steps: u64,
    /// Unsealed data was looked for, and is gone, since this manager started.
    pub(crate) released: bool,
    /// The chain was asked before PreCommit1, and has no such sector.
    pub(crate) not_proven: bool,
    /// When the chain last said so to this manager, in Unix milliseconds; 0 = never.
    pub(crate) leave_ms: u64,
    /// Its unsealed file was deleted everywhere, so that it is filled anew; holds for the next AddPiece.
    pub(crate) emptied: bool,
}

/// What a sector waits for; it does one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Nothing is under way.
    Free,
    /// A task.
    Task(sealtasks::TaskId),
    /// Ticket, seed, verification or deletion.
    Asking,
    /// A back-off until this Unix millisecond.
    Until(u64),
    /// The index to know where this file is.
    File(FileType),
    /// A place among the sectors in its state, of which there may be only so many.
    Stage,
}
