//! The one task that decides: it owns the scheduler, the sectors, the tasks and the workers, and is told everything
//! through one bounded channel.
//!
//! Inputs that wait together are handled together: each changes the memory and adds events and effects; then the events
//! are committed in one transaction, and only then the effects are carried out by tasks of their own, which report back
//! as inputs. A commit that fails stops the manager: memory would be ahead of the truth. Never: calls, files or waiting
//! for anything but inputs, time and the commit.

mod advice;
mod asking;
mod attempts;
mod audit;
mod avoiding;
mod belief;
mod caps;
mod chaining;
mod control;
mod detached;
mod diagnostics;
mod disowned;
mod errands;
mod explain;
mod filling;
mod fleet;
mod holds;
mod input;
mod line;
mod liveness;
mod measuring;
mod old_copies;
mod operator;
mod originals;
mod places;
mod pledging;
mod rebuild_room;
mod rebuilding;
mod redial;
mod removed;
mod restart;
mod resting;
mod returns;
mod schedule;
mod scrubbing;
mod sectors;
mod threads;
mod tokens;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pipeline::SectorRecord;
use sched::{Event, Millis, Sched};
use sealtasks::{ActorId, AttemptId, CallId, SectorId, SectorRef, StorageId, TaskId, TaskInput, WorkerId};
use stores::LockGuard;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use audit::Audit;
use avoiding::FailedOn;
use control::Machine;
use detached::Detached;
pub(crate) use errands::Ended;
use errands::Errand;
pub(crate) use filling::Order;
pub(crate) use fleet::{Peer, Worker};
use input::{Busy, Sector, View};
pub(crate) use input::{Effect, Input, Polled, Reply, StartCall};
use liveness::Silence;
pub(crate) use places::IndexChanges;
pub(crate) use rebuild_room::RoomFacts;
pub(crate) use redial::Redial;
pub(crate) use removed::{CLEANED_UP, Leave, Named, REMOVED, although, named_by};
use resting::Failed;
pub(crate) use scrubbing::{Beside, Scrubbable};
pub(crate) use sectors::REBUILT;
pub(crate) use tokens::host_of;
pub(crate) use views::Reachable;

use crate::effects;
use crate::shared::Shared;
use crate::state::{CallStage, Controls, Measures, OldCopy, ReservedSpace, StateError, StateEvent};

/// Inputs handled in one commit.
const INPUTS_PER_COMMIT_MAX: usize = 256;
const _: () =
    assert!(INPUTS_PER_COMMIT_MAX.is_multiple_of(Sched::LOOK_AHEAD_MOST), "taken in so many at a time");

/// Results kept that came before their call was known; the oldest goes first (it stays in the durable state).
const EARLY_MAX: usize = 1024;

/// Everything the manager knows, in memory. The durable state holds what a restart needs of it.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    sched: Sched,
    sectors: BTreeMap<SectorId, Sector>,
    /// Tasks that have not ended, each in a place of its own: a map has nearly as many empty places as others.
    tasks: BTreeMap<TaskId, Box<Task>>,
    /// Those of them that have an open attempt: few, where a million wait.
    bound: BTreeSet<TaskId>,
    /// Tasks that waited when the manager was started, and that the scheduler has not been given again yet.
    waited: VecDeque<TaskId>,
    /// Attempts that were given up while a Lotus worker still has them.
    detached: BTreeMap<AttemptId, Detached>,
    /// Sectors that operators move, and the path each goes to.
    moves: BTreeMap<SectorId, StorageId>,
    /// The records of sectors that operators removed.
    removed: BTreeMap<SectorId, SectorRecord>,
    /// What is done beside the pipelines, one at most for each sector.
    errands: BTreeMap<SectorId, Errand>,
    /// Why the last one of a sector failed, since this manager started.
    errand_failures: BTreeMap<SectorId, String>,
    /// The last one of a sector that ended well, since this manager started.
    errands_done: BTreeMap<SectorId, TaskId>,
    /// Calls of open attempts.
    calls: BTreeMap<CallId, (AttemptId, CallStage)>,
    /// Results whose call nobody knew when they came.
    early: VecDeque<Early>,
    workers: BTreeMap<WorkerId, Worker>,
    silence: Silence,
    /// Tasks that failed on the workers that are here.
    failed: Failed,
    /// Where each sector's tasks failed last.
    failed_on: FailedOn,
    audit: Audit,
    generations: BTreeMap<WorkerId, u32>,
    /// Machines that workers told of, by id.
    machines: BTreeMap<String, Machine>,
    /// What operators have set, as the durable state has it.
    controls: Controls,
    /// What workers were measured at, as the durable state has it.
    measures: Measures,
    /// Paths the scheduler was told of, and whether they were healthy then.
    paths: BTreeMap<StorageId, bool>,
    /// Sectors that wait for a time.
    timers: BTreeSet<(u64, SectorId)>,
    /// Copies that are old, as the durable state has them, and how often that had changed in the index.
    old_copies: (u64, BTreeSet<OldCopy>),
    /// Scrubs that were asked of workers since this manager started.
    scrubs_begun: u64,
    /// Of each miner.
    next_sector: BTreeMap<ActorId, u64>,
    /// When this manager started.
    began_ms: u64,
    next_task: u64,
    /// An operator wants nothing pledged by the manager itself.
    pledging_paused: bool,
    /// Something has changed since it was last decided whether to pledge.
    pledging_due: bool,
    /// When the scheduler wants a tick.
    wake_ms: Option<u64>,
    events: Vec<StateEvent>,
    effects: Vec<Effect>,
    /// Who looks at what is not durable yet: once it is.
    views: Vec<View>,
}

/// A task that has not ended.
pub(crate) struct Task {
    id: TaskId,
    sector: SectorRef,
    /// In a place of its own: it is made where the sector is read.
    work: Box<TaskInput>,
    queued_ms: u64,
    /// Attempts so far.
    attempts: u32,
    /// Starts refused in a row, for the back-off.
    refusals: u32,
    /// Attempts lost with their workers; see `disowned`.
    disowned: u32,
    /// Its own priority; `None` = its sector's.
    priority: Option<i64>,
    /// The scheduler is not to have it yet; see `detached` and `line`.
    held_back: bool,
    /// It stands in line for files that somebody holds of whom the scheduler knows nothing; left when this is dropped.
    in_line: Option<DropGuard>,
    /// Its turn has come: its lock, until it is bound or somebody else may have it.
    turn: Option<LockGuard>,
    /// In a place of its own, for most tasks wait and have none.
    open: Option<Box<Attempt>>,
}

/// An attempt that has not ended.
pub(crate) struct Attempt {
    id: AttemptId,
    worker: WorkerId,
    url: String,
    name: String,
    peer: Peer,
    phase: Phase,
    /// Its inputs are fetched without a slot; the scheduler says when the task itself may run.
    staged: bool,
    /// The scheduler has it. Not so after a restart until its worker is back.
    scheduled: bool,
    /// Nobody waits for the worker's answer to the present call: it was lost, or the manager has restarted.
    unheard: bool,
    /// In Unix milliseconds.
    bound_ms: u64,
    /// When the present call was accepted, in Unix milliseconds; 0 = not yet.
    accepted_ms: u64,
    /// The moment of that; 0 = not yet, or before the manager's start.
    accepted_at: u64,
    reservations: Vec<ReservedSpace>,
    /// The GPUs that are its own.
    gpus: Vec<rpc::extension::GpuShare>,
    giving_up: Option<GivingUp>,
    /// Cancelled when the attempt is over or its worker is gone: its call is no longer repeated.
    over: CancellationToken,
    lock: Option<LockGuard>,
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Committed; the worker is being called, or was when the manager stopped.
    Calling(CallStage),
    /// The worker has it.
    Held(CallStage, CallId),
    /// Its inputs are there; it waits for its slot.
    Ready,
}

/// Why an attempt is to end before its work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivingUp {
    /// Another worker could start the task now.
    Unstage,
    /// An operator, or the task was cancelled.
    Abort,
}

/// A result that came before its call was known.
struct Early {
    call: CallId,
    returned: rpc::Returned,
    /// When it came, in Unix milliseconds.
    at_ms: u64,
}

impl Driver {
    /// Handles inputs until the channel closes or the manager is cancelled.
    ///
    /// # Errors
    /// A commit failed.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), StateError> {
        let mut health = tokio::time::interval(self.shared.timing.look_around);
        let shared = self.shared.clone();
        if shared.standing.successor().is_none() {
            self.finish_batch().await?;
        }
        loop {
            if shared.standing.successor().is_some() {
                return self.rest(inputs).await;
            }
            let first = tokio::select! {
                () = shared.cancelled.cancelled() => return Ok(()),
                input = inputs.recv() => match input {
                    Some(input) => Some(input),
                    None => return Ok(()),
                },
                () = shared.index_changes.changed() => None,
                () = std::future::ready(()), if !self.waited.is_empty() => None,
                () = until(self.next_wake_ms(), shared.state.now_ms()) => None,
                _ = health.tick() => { self.look_around(); None }
            };
            let mut next = Vec::from_iter(first);
            for _ in 0..INPUTS_PER_COMMIT_MAX / Sched::LOOK_AHEAD_MOST {
                next.extend(
                    std::iter::from_fn(|| inputs.try_recv().ok()).take(Sched::LOOK_AHEAD_MOST - next.len()),
                );
                if next.is_empty() {
                    break;
                }
                self.look_ahead(&next);
                next.drain(..).for_each(|input| self.handle(input));
            }
            self.finish_batch().await?;
        }
    }

    /// Another manager has taken over: nothing is decided any more, and what was known can be looked at.
    async fn rest(self, mut inputs: mpsc::Receiver<Input>) -> Result<(), StateError> {
        loop {
            let input = tokio::select! {
                () = self.shared.cancelled.cancelled() => return Ok(()),
                input = inputs.recv() => input,
            };
            match input {
                None => return Ok(()),
                Some(Input::View(view)) => view(&self),
                Some(Input::Overtaken { by }) => {
                    self.shared.state.commit(vec![StateEvent::Overtaken { by }]).await?;
                }
                // Whoever asked hears that the manager has stopped.
                Some(_) => {}
            }
        }
    }

    /// Lets everything that follows from the inputs happen, commits it, and only then lets it out.
    async fn finish_batch(&mut self) -> Result<(), StateError> {
        self.submit_waited();
        self.index_changed();
        self.timers_due();
        self.keep_pipeline();
        self.drain_sched();
        self.keep_old_copies();
        let events = std::mem::take(&mut self.events);
        if !events.is_empty() {
            let kinds: Vec<_> = events.iter().map(StateEvent::kind).collect();
            crash_points("before", &kinds);
            self.shared.state.commit(events).await?;
            crash_points("after", &kinds);
        }
        let is_over = self.shared.standing.successor().is_some();
        for effect in std::mem::take(&mut self.effects) {
            if is_over && !matches!(effect, Effect::Answer(_)) {
                continue;
            }
            effects::perform(&self.shared, effect);
        }
        std::mem::take(&mut self.views).into_iter().for_each(|view| view(self));
        Ok(())
    }

    /// What falls silent or runs out does so without any event.
    fn look_around(&mut self) {
        self.check_paths();
        self.forget_lost();
        self.end_rests();
        self.audit();
        self.pledging_due = true;
        self.shared.locks.end_all_leases();
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Overtaken { by } => self.events.push(StateEvent::Overtaken { by }),
            Input::Pledge { options, reply } => self.pledge(options, reply),
            Input::Registered { introduction, reply } => {
                self.pledging_due = true;
                self.registered(*introduction, reply);
            }
            Input::Redialled { introduction } => self.redialled(*introduction),
            Input::WorkerState { state, reply } => self.worker_state(*state, reply),
            Input::WorkerPolled { session, polled } => self.worker_polled(session, polled),
            Input::WorkerSeen { session } => self.worker_seen(session),
            Input::WorkerMissed { session, reason } => self.worker_missed(session, &reason),
            Input::WorkerGone { session, reason } => self.worker_gone(session, &reason),
            Input::Accepted { attempt, stage, call } => self.accepted(attempt, stage, call),
            Input::StartRefused { attempt, stage, reason } => self.start_refused(attempt, stage, &reason),
            Input::StartUnknown { attempt, stage, reason } => self.start_unknown(attempt, stage, &reason),
            Input::Returned { call, returned, reply } => self.returned(call, *returned, reply),
            Input::ReturnedOld { call, returned, row, reply } => {
                self.returned_old(call, *returned, row, reply)
            }
            Input::AbortFailed { attempt, reason } => self.abort_failed(attempt, &reason),
            Input::Sector { sector, event } => self.sector_event(sector, event),
            Input::Leave { sector, leave } => self.leave(sector, leave),
            Input::FirstFree { miner, number } => self.first_free(miner, number),
            Input::Released { sector, result } => self.released(sector, result),
            Input::AbortCall { call, reply } => self.abort_call(call, reply),
            Input::AbortAttempt { attempt, reply } => self.abort_attempt(attempt, reply),
            Input::RetrySector { sector, reply } => self.retry_sector(sector, reply),
            Input::Unseal { sector, ended, reply } => self.unseal(sector, ended, reply),
            Input::ReleaseUnsealed { sector, keep, reply } => self.release_unsealed(sector, keep, reply),
            Input::RemoveRequest { request, reply } => self.remove_request(request, reply),
            Input::AbortWork { what, by, reply } => self.abort_work(what, by, reply),
            Input::Priority { what, priority, by, reply } => self.set_priority(what, priority, by, reply),
            Input::WorkerMode { worker, mode, by, reply } => self.set_worker_mode(&worker, mode, by, reply),
            Input::Caps { target, changes, by, reply } => self.change_caps(target, &changes, by, reply),
            Input::HoldSector { hold, reply } => self.hold_sector(hold, reply),
            Input::RemoveSector { sector, leave, by, reply } => self.remove_sector(sector, &leave, by, reply),
            Input::PermitRemoval { file, reply } => self.permit_removal(file, reply),
            Input::BeginScrub { path, proof, reply } => self.begin_scrub(&path, proof, reply),
            Input::ScrubOver { session, number } => self.scrub_over(session, number),
            Input::Scrubbed { sector, place, found, reply } => self.scrubbed(sector, place, found, reply),
            Input::LetGo { sector, reason } => self.let_go(sector, reason),
            Input::TurnCame { task, lock } => self.turn_came(task, lock),
            Input::Deed { attempt, asker, deed, reply } => self.storage_deed(attempt, asker, deed, reply),
            Input::Order(order) => self.order(order),
            Input::View(view) => {
                // Spans and estimates are told from now on, not from when something last happened.
                self.tell_sched(Event::Tick);
                self.drain_sched();
                if self.events.is_empty() { view(self) } else { self.views.push(view) }
            }
        }
        // Actions are drained after each input, not once per batch: a later input may speak of what an earlier one began.
        self.drain_sched();
    }

    fn tell_sched(&mut self, event: Event) {
        let now = Millis::new(self.now_ms());
        self.sched.handle(now, event);
    }

    fn now_ms(&self) -> u64 {
        self.shared.state.now_ms()
    }

    fn next_wake_ms(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.wake_ms].into_iter().flatten().min()
    }

    fn timers_due(&mut self) {
        let now = self.now_ms();
        if self.wake_ms.is_some_and(|at| at <= now) {
            self.wake_ms = None;
            self.tell_sched(Event::Tick);
        }
        while let Some((at, sector)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, sector));
            match self.sectors.get(&sector).map(|known| &known.busy) {
                Some(Busy::Until(until)) if *until == at => {
                    self.sector_event(sector, pipeline::SectorEvent::RetryDue { now_ms: now });
                }
                Some(Busy::File(_)) => self.advance(sector),
                Some(_) | None => {}
            }
        }
    }

    /// Answers once what was decided is durable.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, answer: rpc::ApiResult<T>) {
        // Whoever asked may have gone; what was decided stands all the same.
        self.effects.push(Effect::Answer(Box::new(move || drop(reply.send(answer)))));
    }
}

/// Around the commit of events; see `sealtasks::recovery`.
fn crash_points(when: &str, kinds: &[&str]) {
    if cfg!(debug_assertions) {
        kinds.iter().for_each(|kind| stores::crash_point(&format!("manager.{when}.{kind}")));
    }
}

/// Waits until `at_ms`; for ever without one.
async fn until(at_ms: Option<u64>, now_ms: u64) {
    match at_ms {
        Some(at) => {
            tokio::time::sleep_until(Instant::now() + Duration::from_millis(at.saturating_sub(now_ms))).await
        }
        None => std::future::pending().await,
    }
}
