//! What operators allow a worker, and whether it is still heard of. What runs always goes on; the modes differ in what
//! may still come.
//!
//! | | new sectors | tasks on files within reach | tasks without files | staged tasks | a reservation |
//! |---|---|---|---|---|---|
//! | open | yes | yes | yes | go on | stays |
//! | cordoned | no | yes | yes | go on | given up unless its task may come |
//! | draining | no | where no other worker sees to them | no | go on | given up unless its task may come |
//! | disabled | no | no | no | wait; called off when due, or when another worker could start them | given up |
//! | suspect | no | no | no | wait where they are | given up |
//!
//! A task counts as one on files within reach when the worker reaches a path that holds one of the files it reads; when
//! others see to it, `draining` says. What
//! is staged goes on where nothing forbids it: its files were brought there. Where the worker does not offer its type any
//! more, or has become too small for it, it is called off at once. A suspect worker's staged tasks are not
//! called off, because it would not hear of it; when it is lost they go back to the queue.

use std::collections::BTreeMap;

use sealtasks::{AttemptId, TaskId};
use serde::Serialize;

use crate::class::ClassKey;
use crate::task::{Phase, State};
use crate::worker::Worker;
use crate::{Millis, Refusal, Sched, WorkerKey, WorkerMode};

/// What is left on a worker, for whoever waits for it to be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drain {
    /// The worker.
    pub worker: WorkerKey,
    /// What it is allowed now.
    pub mode: WorkerMode,
    /// Attempts that have a slot there.
    pub running: Vec<AttemptId>,
    /// Attempts that are staged there.
    pub staged: Vec<AttemptId>,
    /// Waiting tasks that may come there and that no other worker could do, were it idle: a file that they read is out of
    /// everybody else's reach, or all others that reach it drain as well. They keep it from being empty for good.
    pub only_here: Vec<TaskId>,
    /// Those that would be `only_here`, were they not too large for it, forbidden by a cap of nought, or without a path:
    /// as things are they fit nowhere.
    pub nowhere: Vec<TaskId>,
    /// How many waiting tasks read a file within its reach, those of `only_here` and `nowhere` included.
    pub within_reach: usize,
    /// When all that is bound there should be over, by estimates, if nothing else is started there.
    pub quiet_at: Millis,
    /// When that and all of `only_here`, one after another, should be over; `None`: never as things are, because
    /// something fits nowhere, or waits while the worker is disabled. What else may come is not counted.
    pub empty_by: Option<Millis>,
}

impl Drain {
    /// Whether nothing is bound there and nothing waits for it alone.
    pub fn is_done(&self) -> bool {
        self.running.is_empty()
            && self.staged.is_empty()
            && self.only_here.is_empty()
            && self.nowhere.is_empty()
    }
}

impl Sched {
    /// What is left to do on this worker; `None`: it is not here. Costs a look at every task: for people, not for decisions.
    pub fn drain(&self, key: WorkerKey) -> Option<Drain> {
        let slot = self.workers.slot(key)?;
        let worker = self.workers.get(slot);
        let (mut running, mut staged) = (Vec::new(), Vec::new());
        for binding in worker.bound.iter().filter_map(|at| self.tasks[*at].binding()) {
            match binding.phase {
                Phase::Running => running.push(binding.attempt),
                Phase::Fetching | Phase::Fetched | Phase::Unstaging => staged.push(binding.attempt),
            }
        }
        running.sort_unstable();
        staged.sort_unstable();
        // All tasks of a class get the same answer.
        let mut classes = BTreeMap::new();
        let (mut only_here, mut nowhere, mut within_reach) = (Vec::new(), Vec::new(), 0);
        let all = self.tasks.sorted();
        let waiting = all.into_iter().filter(|task| !matches!(task.state, State::Bound(_)));
        for task in waiting {
            let key = &self.queue.class(task.class).key;
            if !key.lives_with(worker) {
                continue;
            }
            within_reach += 1;
            let place = |it| (self.is_only_place(key, it, slot), self.could_do(key, it, slot));
            match *classes.entry(task.class).or_insert_with(|| place(task.group)) {
                (true, true) => only_here.push(task.id),
                (true, false) => nowhere.push(task.id),
                (false, _) => {}
            }
        }
        let quiet_at = self.quiet_at(key)?;
        let takes = |id: &TaskId| self.estimate_in(worker, self.tasks[id].seal_task()).millis;
        let all_done = only_here.iter().map(takes).fold(quiet_at, Millis::after);
        let mode = worker.mode;
        let is_held_up = mode == WorkerMode::Disabled && !(staged.is_empty() && only_here.is_empty());
        let empty_by = (nowhere.is_empty() && !is_held_up).then_some(all_done);
        Some(Drain {
            worker: key,
            mode,
            running,
            staged,
            only_here,
            nowhere,
            within_reach,
            quiet_at,
            empty_by,
        })
    }

    /// Whether the worker could run such a task, were it idle.
    fn could_do(&self, key: &ClassKey, group: usize, slot: usize) -> bool {
        let ask = self.queue.groups[group].asks[slot];
        ask.is_some_and(|ask| self.could_hold(slot, &ask)) && self.plan(key, slot).is_ok()
    }

    fn is_only_place(&self, key: &ClassKey, group: usize, slot: usize) -> bool {
        let asks = &self.queue.groups[group].asks;
        let may = |other: &Worker| other.is_usable() && other.mode != WorkerMode::Draining;
        let could = |(other, worker): (usize, &Worker)| {
            other != slot && may(worker) && self.could_do(key, group, other)
        };
        asks[slot].is_some() && !self.others_see_to(key, slot) && !self.workers.iter().any(could)
    }

    pub(crate) fn worker_mode(&mut self, key: WorkerKey, mode: WorkerMode) -> Result<(), Refusal> {
        let slot = self.live_slot(key)?;
        self.workers.get_mut(slot).mode = mode;
        self.note_drain(slot);
        self.usability_changed(slot);
        self.look_again_near(slot);
        Ok(())
    }

    /// Has tasks looked at again that may have fitted on the worker all the while and been refused by its mode or plans alone.
    pub(crate) fn look_again_near(&mut self, slot: usize) {
        for group in 0..self.queue.groups.len() {
            self.queue.unstick_near(group, &self.workers.get(slot).paths);
        }
    }

    pub(crate) fn worker_suspect(&mut self, key: WorkerKey, suspect: bool) -> Result<(), Refusal> {
        let slot = self.live_slot(key)?;
        self.workers.get_mut(slot).suspect = suspect;
        self.usability_changed(slot);
        Ok(())
    }

    pub(crate) fn usability_changed(&mut self, slot: usize) {
        if !self.workers.get(slot).is_usable() {
            self.free_reservation(slot);
            self.recall_stranded(slot);
        }
        self.count_places(slot);
        self.world += 1;
        self.dirty.insert(slot);
    }
}

impl ClassKey {
    /// Whether a file that the task reads lies within the worker's reach.
    pub(crate) fn lives_with(&self, worker: &Worker) -> bool {
        let mut files = self.existing.iter().flat_map(|existing| &existing.files);
        files.any(|file| file.held_by.iter().any(|path| worker.reaches(*path)))
    }

    /// Whether no sector would come to live where such a task runs.
    pub(crate) fn needs_no_file(&self) -> bool {
        self.existing.is_none() && self.allocate.is_none()
    }
}
