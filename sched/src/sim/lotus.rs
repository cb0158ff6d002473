//! A model of Lotus's scheduler, for comparison only: it decides nothing in a running Sealyard.
//!
//! It follows Lotus's algorithm: one queue that is sorted as a whole whenever something enters or leaves it; two windows
//! per worker; cycles that test every task against every open window and fill windows by an assigner; per worker a
//! compaction of its windows, then tasks that need no preparing, then those that do; one tally of what prepares and one
//! of what runs. Calls to workers cost nothing here, and what Lotus looks up in locked maps is an array access, so that
//! it is the algorithm that is compared and not its language. Where Lotus leaves a choice to chance (equal keys in an
//! unstable sort, which waiter wakes first), the model takes the order of submission.
//!
//! What it does not have, because Lotus has not: locks (taken before a task is scheduled there), deadlines, reservations,
//! caps over groups of types or machines, staggering, re-prioritising, and any mode but enabled and disabled. A task that
//! was cancelled while it queued says so at once, as our own core does, but goes on costing time in every cycle.

mod cycle;
mod files;
mod tally;
mod tasks;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealtasks::{ResourceTable, SealTaskType};

use super::Scheduler;
use crate::{Action, End, Event, Millis, Outcome, Policy, Refusal, WorkerKey, WorkerMode, WorkerProfile};
use files::Paths;
use tasks::{Stage, Task, TaskIdx, Tasks};
use worker::{Worker, WorkerIdx};

/// The model. Driven as [`crate::Sched`] is.
#[derive(Debug)]
pub struct Lotus {
    options: LotusOptions,
    now: Millis,
    /// Before this instant nothing is assigned; set by the first event.
    ready_at: Option<Millis>,
    tasks: Tasks,
    /// Sorted.
    queue: Vec<tasks::Queued>,
    /// Types and sizes by position; workers keep what each takes at the same positions.
    kinds: Vec<SealTaskType>,
    workers: Vec<Worker>,
    by_key: BTreeMap<WorkerKey, WorkerIdx>,
    /// The worker of each open window, oldest first.
    open: Vec<WorkerIdx>,
    paths: Paths,
    timers: BTreeSet<(Millis, TaskIdx)>,
    /// Workers whose loop has something to look at.
    dirty: BTreeSet<WorkerIdx>,
    /// Whether the main loop has.
    poked: bool,
    actions: VecDeque<Action>,
    wake_at: Option<Millis>,
    draws: u64,
    work: Work,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct LotusOptions {
    /// What tasks need where a worker has no row of its own.
    pub resources: ResourceTable,
    /// The assigner; Lotus's names are the same, those other than `utilization` and `spread` with `experiment-` before.
    pub policy: Policy,
    /// How long requests only accumulate after the first event, in milliseconds. Lotus: three seconds.
    pub init_wait: Millis,
    /// Where the order among equal workers begins.
    pub seed: u64,
}

/// What the cycles cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Cycles that had both tasks and windows.
    pub cycles: u64,
    /// Sum over cycles of waiting tasks times open windows.
    pub pairs: u64,
    /// Tasks put into windows.
    pub assigned: u64,
}

impl Default for LotusOptions {
    fn default() -> Self {
        Self {
            resources: ResourceTable::builtin(),
            policy: Policy::Utilization,
            init_wait: Millis::new(3000),
            seed: 0,
        }
    }
}

impl Lotus {
    /// A scheduler that knows nothing yet.
    pub fn new(options: LotusOptions) -> Self {
        Self {
            options,
            now: Millis::ZERO,
            ready_at: None,
            tasks: Tasks::default(),
            queue: Vec::new(),
            kinds: Vec::new(),
            workers: Vec::new(),
            by_key: BTreeMap::new(),
            open: Vec::new(),
            paths: Paths::default(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            poked: false,
            actions: VecDeque::new(),
            wake_at: None,
            draws: 0,
            work: Work::default(),
        }
    }

    /// Takes in one event, as [`crate::Sched::handle`] does.
    pub fn handle(&mut self, now: Millis, event: Event) {
        self.now = self.now.max(now);
        let init_wait = self.options.init_wait;
        let ready_at = *self.ready_at.get_or_insert(self.now.after(init_wait));
        self.poked = true;
        if let Err(refusal) = self.take_in(event) {
            self.actions.push_back(Action::Refused { refusal });
        }
        while let Some((at, task)) = self.timers.first().copied()
            && at <= self.now
        {
            self.timers.pop_first();
            self.push(task);
        }
        if self.now >= ready_at {
            self.settle();
        }
        self.set_wake(ready_at);
    }

    /// The next thing to do, in the order decided.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the cycles cost so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Tasks that wait in the queue, cancelled ones included.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    fn take_in(&mut self, event: Event) -> Result<(), Refusal> {
        match event {
            Event::Submit { task, request } => self.submit(task, &request),
            Event::Cancel { task } => self.cancel(task),
            Event::WorkerUp { worker, profile } => self.worker_up(worker, &profile),
            Event::WorkerChanged { worker, profile } => {
                let slot = self.worker(worker)?;
                self.refresh_worker(slot, &profile);
                Ok(())
            }
            Event::WorkerLost { worker } => self.set_worker(worker, |state| state.lost = true),
            Event::WorkerEnabled { worker, enabled } => {
                self.set_worker(worker, |state| state.enabled = enabled)
            }
            Event::WorkerMode { worker, mode } => {
                self.set_worker(worker, |state| state.open = mode == WorkerMode::Open)
            }
            Event::WorkerSuspect { worker, suspect } => {
                self.set_worker(worker, |state| state.suspect = suspect)
            }
            Event::PolicySet { policy } => {
                self.options.policy = policy;
                Ok(())
            }
            Event::PathSeen { path } => {
                for attempt in &path.covers {
                    if let Some(task) = self.tasks.bound_mut(*attempt) {
                        self.paths.cover(&path.id, &mut task.reserved);
                    }
                }
                self.paths.seen(path);
                Ok(())
            }
            Event::PathGone { path } => {
                self.paths.gone(&path);
                Ok(())
            }
            Event::SectorFiles { sector, kind, paths } => {
                let paths: Vec<_> = paths.iter().map(|path| self.paths.intern(path)).collect();
                self.tasks.of_sector(sector, |task| task.selector.moved(kind, &paths));
                Ok(())
            }
            Event::StageDone { attempt } => self.fetched(attempt),
            Event::Ended { attempt, outcome } => self.ended(attempt, outcome),
            Event::StartFailed { attempt, not_before, .. } => {
                self.ended(attempt, Outcome::Retry { not_before })
            }
            Event::Adopt { attempt, worker, request, .. } => self.adopt(attempt, worker, &request),
            Event::Started { .. } | Event::Tick => Ok(()),
            // Lotus samples a request's priority once and knows no caps over machines.
            Event::SetPriority { .. } | Event::SetDeadline { .. } | Event::MachineCaps { .. } => Ok(()),
        }
    }

    /// Lets the worker loops and the main loop run until none of them has anything to do.
    fn settle(&mut self) {
        loop {
            while let Some(worker) = self.dirty.pop_first() {
                self.run_worker(worker);
            }
            if !std::mem::take(&mut self.poked) {
                break;
            }
            self.cycle();
        }
    }

    fn set_wake(&mut self, ready_at: Millis) {
        let ready = (self.now < ready_at).then_some(ready_at);
        let first = self.timers.first().map(|(at, _)| *at).into_iter().chain(ready).min();
        if let Some(at) = first.filter(|at| self.wake_at != Some(*at)) {
            self.actions.push_back(Action::WakeAt { at });
        }
        self.wake_at = first;
    }

    fn worker(&self, worker: WorkerKey) -> Result<WorkerIdx, Refusal> {
        self.by_key.get(&worker).copied().ok_or(Refusal::WorkerUnknown { worker })
    }

    fn worker_up(&mut self, key: WorkerKey, profile: &WorkerProfile) -> Result<(), Refusal> {
        if self.by_key.contains_key(&key) {
            return Err(Refusal::WorkerKnown { worker: key });
        }
        let slot = self.workers.len();
        self.workers.push(Worker::new(key, profile));
        self.by_key.insert(key, slot);
        self.refresh_worker(slot, profile);
        Ok(())
    }

    /// Lotus asks for a worker's task types and paths again and again, for its resources once.
    fn refresh_worker(&mut self, slot: WorkerIdx, profile: &WorkerProfile) {
        let paths = profile.paths.iter().map(|path| self.paths.intern(path)).collect();
        let worker = &mut self.workers[slot];
        worker.refresh(profile, paths, &self.kinds, &self.options.resources);
        self.dirty.insert(slot);
    }

    /// Changes whether a worker is enabled. One that no longer is gives back what only waits in its windows.
    fn set_worker(&mut self, key: WorkerKey, change: impl FnOnce(&mut Worker)) -> Result<(), Refusal> {
        let slot = self.worker(key)?;
        change(&mut self.workers[slot]);
        if !self.workers[slot].is_usable() {
            for task in self.workers[slot].give_back() {
                self.tasks.get_mut(task).stage = Stage::Queued;
                self.push(task);
            }
            self.open.retain(|worker| *worker != slot);
        }
        self.dirty.insert(slot);
        Ok(())
    }

    /// The position of a type and size, known to every worker from now on.
    fn kind(&mut self, kind: SealTaskType) -> usize {
        let known = self.kinds.iter().position(|known| *known == kind);
        known.unwrap_or_else(|| {
            self.kinds.push(kind);
            for worker in &mut self.workers {
                worker.learn(kind, &self.options.resources);
            }
            self.kinds.len() - 1
        })
    }

    /// Takes a task out for good.
    fn leave(&mut self, task: TaskIdx, end: End) {
        if let Some(Task { id, is_cancelled, stage, .. }) = self.tasks.remove(task) {
            // A task that was cancelled in the queue has been reported already.
            if !(is_cancelled && matches!(stage, Stage::Queued | Stage::Assigned | Stage::Delayed)) {
                self.actions.push_back(Action::Left { task: id, end });
            }
        }
    }
}

impl Scheduler for Lotus {
    fn handle(&mut self, now: Millis, event: Event) {
        Self::handle(self, now, event);
    }

    fn poll_action(&mut self) -> Option<Action> {
        Self::poll_action(self)
    }
}
