//! Decides which worker runs which task, and when.
//!
//! A pure core: [`Sched::handle`] is told what happened and when, [`Sched::poll_action`] says what is to be done. The
//! same events in the same order give the same actions, bit for bit. It keeps one queue and one ledger: slots, memory,
//! swap, CPU threads, GPUs, caps, the sector's locks and the free bytes of each path are taken together or not at all,
//! and given back once. A task is bound when a slot is truly free; beside each running task one more may be staged, so
//! that fetching overlaps with running.
//!
//! This room never waits, reads no clock, touches no file and no network, draws no random number and keeps nothing
//! durable: after a crash the driver submits and adopts again what its own state holds.

mod action;
mod admission;
mod ahead;
mod capacity;
mod class;
mod deadline;
mod devices;
mod draining;
mod estimate;
mod event;
mod few;
mod fit;
mod flat;
mod fleet;
mod forecast;
mod groups;
mod headroom;
mod heads;
mod index;
mod keeping;
mod ledger;
mod lifecycle;
mod locks;
mod machine;
mod modes;
mod noted;
mod obstacle;
mod order;
mod outlook;
mod packing;
mod passing;
mod placement;
mod plans;
mod policy;
mod queue;
mod request;
mod reservation;
mod settle;
mod shortage;
pub mod sim;
mod slab;
mod slots;
mod snapshot;
mod space;
mod span;
mod stagger;
mod staging;
mod task;
mod timers;
mod waits;
mod warm;
mod why;
mod why_passed;
mod why_text;
mod worker;
mod yielding;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealtasks::{ResourceTable, TaskId};

pub use action::{Action, AllocateStep, Assignment, End, FetchStep, GpuShare, Plan, Refusal};
pub use estimate::{Estimate, EstimateSource, builtin_duration};
pub use event::{
    Event, GroupCap, KindDuration, Outcome, PathBytes, PathFacts, Policy, ResourceRow, WorkerKey, WorkerMode,
    WorkerProfile,
};
pub use forecast::Eta;
pub use modes::Drain;
pub use obstacle::{Finding, Obstacle, Relief, TaskName};
pub use request::{Allocate, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, NewFile, Request};
pub use shortage::Shortage;
pub use snapshot::{
    BoundTask, CapUse, MachineUse, PathUse, QueuedTask, ReservationUse, Snapshot, Stage, WorkerUse,
};
pub use span::Span;
pub use why::{LockHolder, Place, StartForecast, Whereabouts, Why, WhyWorker};
pub use why_passed::{LetPass, LetsPass};

/// The scheduler. See the crate's documentation.
///
/// Every event changes the state and ends in the same settle step, which runs until nothing more can be started. What it
/// looks at: `queue` groups waiting tasks into classes that placement cannot tell apart, and keeps per type and size the
/// workers that one more such task fits on; `workers`, `paths` and `sectors` hold what is charged, promised and locked.
#[derive(Debug)]
pub struct Sched {
    options: Options,
    now: Millis,
    /// Counts changes that could make a reservation possible.
    world: u64,
    tasks: slab::Tasks,
    sectors: slab::Sectors,
    queue: queue::Queue,
    workers: worker::Workers,
    /// What workers offer, each but once.
    offered: BTreeSet<worker::Offered>,
    paths: space::Paths,
    timers: timers::Timers,
    /// Why a task's last attempt could not start, cut to [`task::Task::REASON_MAX`] characters. Beside the tasks, of which
    /// few ever have one.
    start_failures: BTreeMap<TaskId, Box<str>>,
    /// Who holds which worker.
    reservations: BTreeMap<TaskId, usize>,
    /// Tasks that hold a reservation and for which something may have changed since they were last looked at.
    doubtful: BTreeSet<TaskId>,
    /// After which instant which kept worker has to be looked at again.
    rechecks: BTreeSet<(Millis, usize)>,
    /// Staged tasks that are due and hold no reservation yet, by their groups.
    due_staged: BTreeSet<(queue::GroupIdx, TaskId)>,
    /// The worker that was looked at last: it stands in no list of workers that a group fits on.
    apart: Option<usize>,
    /// Workers to which a task was charged, and nothing else, since the settle step last looked.
    fuller: Vec<usize>,
    /// Workers whose ledger changed otherwise since then.
    dirty: slots::Slots,
    /// Workers whose ledger changed since staging was last considered.
    touched: slots::Slots,
    /// Classes that got their first ready task since staging was last considered.
    fresh: BTreeSet<queue::ClassIdx>,
    /// Workers that may stage one more task.
    stageable: slots::Slots,
    /// Workers that leave to others what others see to: they drain, or have plans.
    draining: BTreeSet<usize>,
    actions: VecDeque<Action>,
    wake_at: Option<Millis>,
    /// How long tasks take, whoever does them.
    learned: estimate::Learned,
    machines: machine::Machines,
    /// When a worker may start something again that it started too lately for another start.
    staggers: BTreeSet<(Millis, usize)>,
    speeds: policy::Speeds,
    /// Where the last worker that was chosen stood.
    front: policy::Front,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// What tasks need where a worker has no row of its own.
    pub resources: ResourceTable,
    /// At most this many tasks are kept, waiting or bound; more are refused.
    pub tasks_max: usize,
    /// After waiting this long, in milliseconds, a task that names no limit becomes due.
    pub wait_limit: Millis,
    /// What is left of the time before a deadline, in milliseconds, when a task that takes twice its estimate has ended:
    /// for what comes after it (the message's way onto the chain).
    pub deadline_slack: Millis,
    /// Tasks that a worker may stage per running one; 0 = never stage.
    pub staged_per_running: usize,
    /// How to choose among workers that fit.
    pub policy: Policy,
    /// Where [`Policy::Random`] begins.
    pub seed: u64,
}

impl Default for Options {
    /// Lotus's table; room for a million waiting tasks and then some; due after six hours, the longest that a PreCommit1
    /// commonly takes; half an hour, 60 epochs, before a deadline; one staged task per running one.
    fn default() -> Self {
        Self {
            resources: ResourceTable::builtin(),
            tasks_max: 2_000_000,
            wait_limit: Millis::new(6 * 60 * 60 * 1000),
            deadline_slack: Millis::new(30 * 60 * 1000),
            staged_per_running: 1,
            policy: Policy::Utilization,
            seed: 0,
        }
    }
}

impl Sched {
    /// A scheduler that knows nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            now: Millis::ZERO,
            world: 0,
            tasks: slab::Tasks::default(),
            sectors: slab::Sectors::default(),
            queue: queue::Queue::default(),
            workers: worker::Workers::default(),
            offered: BTreeSet::new(),
            paths: space::Paths::default(),
            timers: timers::Timers::default(),
            start_failures: BTreeMap::new(),
            reservations: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            rechecks: BTreeSet::new(),
            due_staged: BTreeSet::new(),
            apart: None,
            fuller: Vec::new(),
            dirty: slots::Slots::default(),
            touched: slots::Slots::default(),
            fresh: BTreeSet::new(),
            stageable: slots::Slots::default(),
            draining: BTreeSet::new(),
            actions: VecDeque::new(),
            wake_at: None,
            learned: estimate::Learned::default(),
            machines: machine::Machines::default(),
            staggers: BTreeSet::new(),
            speeds: policy::Speeds::default(),
            front: policy::Front::default(),
        }
    }

    /// Takes in one event that happened at `now`, and decides what follows. An earlier `now` than the last one counts as
    /// the last one. An event that makes no sense changes nothing and yields [`Action::Refused`].
    pub fn handle(&mut self, now: Millis, event: Event) {
        // What a worker says about an attempt that it has changes nothing that is decided, unless time has passed.
        let is_news = now > self.now || !matches!(event, Event::Started { .. });
        self.now = self.now.max(now);
        if !event.is_frequent() {
            self.doubt_reservations();
        }
        let concerns_drains = self.concerns_drains(&event);
        let handled = match event {
            Event::Submit { task, request } => self.submit(task, &request),
            Event::Cancel { task } => self.cancel(task),
            Event::SetPriority { task, priority } => self.set_priority(task, priority),
            Event::SetDeadline { task, deadline } => self.set_deadline(task, deadline),
            Event::WorkerUp { worker, profile } => self.worker_up(worker, profile),
            Event::WorkerChanged { worker, profile } => self.worker_changed(worker, profile),
            Event::WorkerLost { worker } => self.worker_lost(worker),
            Event::WorkerEnabled { worker, enabled } => self.worker_enabled(worker, enabled),
            Event::WorkerMode { worker, mode } => self.worker_mode(worker, mode),
            Event::WorkerSuspect { worker, suspect } => self.worker_suspect(worker, suspect),
            Event::MachineCaps { machine, caps } => self.machine_caps(&machine, caps),
            Event::PolicySet { policy } => self.policy_set(policy),
            Event::PathSeen { path } => self.path_seen(path),
            Event::PathGone { path } => self.path_gone(&path),
            Event::SectorFiles { sector, kind, paths } => self.sector_files(sector, kind, &paths),
            Event::Started { attempt } => self.started(attempt),
            Event::StageDone { attempt } => self.stage_done(attempt),
            Event::Ended { attempt, outcome } => self.ended(attempt, outcome),
            Event::StartFailed { attempt, reason, not_before } => {
                self.start_failed(attempt, &reason, not_before)
            }
            Event::Adopt { attempt, worker, request, holds } => self.adopt(attempt, worker, &request, &holds),
            Event::Tick => Ok(()),
        };
        if let Err(refusal) = handled {
            self.actions.push_back(Action::Refused { refusal });
        }
        if concerns_drains {
            self.look_at_drains();
        }
        if is_news {
            self.settle();
        }
    }

    /// The next thing to do, in the order decided.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}
