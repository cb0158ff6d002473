//! When what runs will be over and room will be free, as far as estimates tell. A task that has run longer than its
//! estimate may end any moment; nobody knows when.

use sealtasks::{SealTaskType, TaskId};
use serde::{Deserialize, Serialize};

use crate::ledger::Ask;
use crate::outlook::Outlook;
use crate::task::{Phase, Task};
use crate::{Millis, Sched, WorkerKey};

/// A guess at an instant, seen from now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eta {
    /// From now until then, in milliseconds.
    pub wait: Millis,
    /// By how much the guess has been missed already, in milliseconds; then it may happen any moment.
    pub overdue: Millis,
}

/// Where on a worker a task would find room, if nothing else were started there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The estimated instant; never in the past.
    pub(crate) at: Millis,
    /// What has to end before, in the order of the estimated ends.
    pub(crate) waits_for: Vec<TaskId>,
}

impl Sched {
    /// When everything that runs or is staged on this worker will be over if nothing else is started there; now, if
    /// nothing is bound to it. `None`: the worker is not here.
    pub fn quiet_at(&self, worker: WorkerKey) -> Option<Millis> {
        let slot = self.workers.slot(worker)?;
        let state = self.workers.get(slot);
        let mut left = state.running.clone();
        let mut ends: Vec<_> =
            self.ends(slot).into_iter().map(|(at, id)| (at.max(self.now), id, None)).collect();
        let mut last = ends.iter().map(|(at, ..)| *at).max().unwrap_or(self.now);
        let mut staged: Vec<_> = state.staged_tasks.iter().map(|id| &self.tasks[id]).collect();
        staged.sort_unstable_by_key(|task| task.key());
        let mut clock = self.now;
        for task in staged {
            let kind = task.seal_task();
            let ask = state.ask(kind, &self.options.resources);
            // A place for it comes free when enough of those before it have ended, or never; then it counts after all.
            while !left.fits(&ask, &state.idle) && !ends.is_empty() {
                ends.sort_unstable_by_key(|(at, id, _)| (*at, *id));
                let (at, id, own) = ends.remove(0);
                clock = clock.max(at);
                match (own, self.tasks[&id].binding()) {
                    (Some(charge), _) => left.release(charge),
                    (None, Some(binding)) => left.discount(&binding.charge),
                    (None, None) => {}
                }
            }
            let fetched = self.fetched_at(task).unwrap_or(self.now);
            let end = clock.max(fetched).after(self.estimate_in(state, kind).millis);
            ends.push((end, task.id, Some(left.charge(&ask, &state.idle))));
            last = last.max(end);
        }
        Some(last)
    }

    /// When a running task will end: its start, the moving of its files and its estimate. May be in the past.
    pub(crate) fn estimated_end(&self, task: &Task) -> Option<Millis> {
        let binding = task.binding().filter(|binding| binding.phase == Phase::Running)?;
        let worker = self.workers.get(binding.worker);
        let takes = self.estimate_in(worker, task.seal_task()).millis;
        Some(binding.since.after(binding.moving).after(takes))
    }

    /// When a task that is being fetched will have its files; `None`: it has them.
    pub(crate) fn fetched_at(&self, task: &Task) -> Option<Millis> {
        let binding = task.binding().filter(|binding| binding.phase == Phase::Fetching)?;
        Some(binding.since.after(binding.moving))
    }

    /// What runs on a worker, by estimated end.
    pub(crate) fn ends(&self, slot: usize) -> Vec<(Millis, TaskId)> {
        let bound = self.workers.get(slot).bound.iter().map(|at| &self.tasks[*at]);
        let mut ends: Vec<_> = bound.filter_map(|task| Some((self.estimated_end(task)?, task.id))).collect();
        ends.sort_unstable();
        ends
    }

    /// What runs on a worker and on the others of its machine, by estimated end.
    pub(crate) fn ends_around(&self, slot: usize) -> Vec<(Millis, TaskId)> {
        let mut ends: Vec<_> = self.mates(slot).into_iter().flat_map(|mate| self.ends(mate)).collect();
        ends.sort_unstable();
        ends
    }

    /// When such a task would fit on this worker, and what has to end before; `None`: not even on an empty one.
    pub(crate) fn opening(&self, slot: usize, ask: &Ask) -> Option<Opening> {
        let not_before = self.staggered_until(slot, ask.task()).unwrap_or(self.now);
        let mut left = self.outlook(slot);
        // Where it would fit and gets no slot all the same, nothing of ours has to end.
        if self.has_slot(slot, ask) || self.fits_in(&left, slot, ask) {
            return Some(Opening { at: not_before, waits_for: Vec::new() });
        }
        let mut waits_for = Vec::new();
        for (end, id) in self.ends_around(slot) {
            if let Some(binding) = self.tasks[&id].binding() {
                left.end(binding.worker, &binding.charge);
            }
            waits_for.push(id);
            if self.fits_in(&left, slot, ask) {
                return Some(Opening { at: end.max(not_before), waits_for });
            }
        }
        None
    }

    /// The first estimated end after which something is no longer in the way, by the books of that instant.
    pub(crate) fn first_end(
        &self,
        slot: usize,
        is_in_the_way: impl Fn(&Outlook) -> bool,
    ) -> Option<(Millis, TaskId)> {
        let mut left = self.outlook(slot);
        self.ends_around(slot).into_iter().find(|(_, id)| {
            if let Some(binding) = self.tasks[id].binding() {
                left.end(binding.worker, &binding.charge);
            }
            !is_in_the_way(&left)
        })
    }

    pub(crate) fn eta(&self, at: Millis) -> Eta {
        Eta { wait: at.since(self.now), overdue: self.now.since(at) }
    }
}

impl Task {
    pub(crate) fn seal_task(&self) -> SealTaskType {
        SealTaskType { proof: self.sector.proof, task: self.kind }
    }
}
