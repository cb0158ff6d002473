//! The model's requests: how they enter, wait, end and leave.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use sealtasks::{AttemptId, SealTaskType, SectorId, SectorRef, TaskId, TaskType};

use super::Lotus;
use super::files::{Reserved, Selector};
use super::worker::WorkerIdx;
use crate::{Action, End, Millis, Outcome, Plan, Refusal, Request, WorkerKey};

pub(super) type TaskIdx = usize;

/// One request.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) sector: SectorRef,
    pub(super) task: TaskType,
    /// Position of its type and size.
    pub(super) kind: usize,
    /// Position of the type that it prepares as.
    pub(super) prepare_kind: usize,
    priority: i64,
    pub(super) attempts: u32,
    pub(super) selector: Selector,
    pub(super) stage: Stage,
    pub(super) is_cancelled: bool,
    pub(super) plan: Plan,
    pub(super) reserved: Reserved,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In the queue.
    Queued,
    /// In a window.
    Assigned,
    /// Not to be tried yet.
    Delayed,
    /// On this worker, charged to what prepares there; its inputs are on their way.
    Fetching(WorkerIdx),
    /// On this worker, charged to what prepares there; waits until it may run.
    Prepared(WorkerIdx),
    /// On this worker, charged to what runs there.
    Running(WorkerIdx),
}

/// A place in the queue. Lotus's order; what it leaves open is decided by the order of arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    key: (bool, Reverse<i64>, i32, u64),
    pub(super) task: TaskIdx,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    all: Vec<Option<Task>>,
    free: Vec<TaskIdx>,
    by_id: BTreeMap<TaskId, TaskIdx>,
    by_sector: BTreeMap<SectorId, Vec<TaskIdx>>,
}

impl Tasks {
    pub(super) fn get(&self, task: TaskIdx) -> &Task {
        self.all[task].as_ref().expect("a task that is referred to is here")
    }

    pub(super) fn get_mut(&mut self, task: TaskIdx) -> &mut Task {
        self.all[task].as_mut().expect("a task that is referred to is here")
    }

    /// The task whose present attempt this is, if it is on a worker.
    pub(super) fn bound(&self, attempt: AttemptId) -> Option<(TaskIdx, WorkerIdx)> {
        let index = *self.by_id.get(&attempt.task)?;
        let task = self.get(index);
        match task.stage {
            Stage::Fetching(worker) | Stage::Prepared(worker) | Stage::Running(worker) => {
                (task.attempts == attempt.attempt).then_some((index, worker))
            }
            Stage::Queued | Stage::Assigned | Stage::Delayed => None,
        }
    }

    pub(super) fn bound_mut(&mut self, attempt: AttemptId) -> Option<&mut Task> {
        self.bound(attempt).map(|(task, _)| self.get_mut(task))
    }

    pub(super) fn of_sector(&mut self, sector: SectorId, mut change: impl FnMut(&mut Task)) {
        for index in self.by_sector.get(&sector).into_iter().flatten() {
            change(self.all[*index].as_mut().expect("a sector lists tasks that are here"));
        }
    }

    fn add(&mut self, task: Task) -> TaskIdx {
        let index = self.free.pop().unwrap_or(self.all.len());
        self.by_id.insert(task.id, index);
        self.by_sector.entry(task.sector.id).or_default().push(index);
        if index == self.all.len() {
            self.all.push(Some(task));
        } else {
            self.all[index] = Some(task);
        }
        index
    }

    pub(super) fn remove(&mut self, index: TaskIdx) -> Option<Task> {
        let task = self.all[index].take()?;
        // Another task may have taken the id of one that was cancelled in the queue.
        if self.by_id.get(&task.id) == Some(&index) {
            self.by_id.remove(&task.id);
        }
        if let Some(of_sector) = self.by_sector.get_mut(&task.sector.id) {
            of_sector.retain(|other| *other != index);
            if of_sector.is_empty() {
                self.by_sector.remove(&task.sector.id);
            }
        }
        self.free.push(index);
        Some(task)
    }
}

impl Lotus {
    pub(super) fn submit(&mut self, id: TaskId, request: &Request) -> Result<(), Refusal> {
        let index = self.add_task(id, request)?;
        self.push(index);
        Ok(())
    }

    fn add_task(&mut self, id: TaskId, request: &Request) -> Result<TaskIdx, Refusal> {
        if self.tasks.by_id.contains_key(&id) {
            return Err(Refusal::TaskKnown { task: id });
        }
        let proof = request.sector.proof;
        let kind = self.kind(SealTaskType { task: request.task, proof });
        let selector = self.paths.selector(request.sector.id.miner, &request.needs);
        let prepare_kind = match selector.fetches() {
            true => self.kind(SealTaskType { task: TaskType::Fetch, proof }),
            false => kind,
        };
        Ok(self.tasks.add(Task {
            id,
            sector: request.sector,
            task: request.task,
            kind,
            prepare_kind,
            priority: request.priority,
            attempts: request.attempts,
            selector,
            stage: Stage::Queued,
            is_cancelled: false,
            plan: Plan::default(),
            reserved: Reserved::default(),
        }))
    }

    /// Puts a task at its place by sorting the whole queue, as Lotus does. The sort is stable and finds what is sorted
    /// already, which is kinder than Lotus's.
    pub(super) fn push(&mut self, index: TaskIdx) {
        let task = self.tasks.get_mut(index);
        task.stage = Stage::Queued;
        let order = task.task.order();
        let key = (order >= 0, Reverse(task.priority), order, task.sector.id.number.get());
        self.queue.push(Queued { key, task: index });
        self.sort_queue();
        self.poked = true;
    }

    /// Takes the task at this place out: the last one takes its place, then the whole queue is sorted again.
    pub(super) fn remove_at(&mut self, place: usize) -> TaskIdx {
        let removed = self.queue.swap_remove(place);
        self.sort_queue();
        removed.task
    }

    fn sort_queue(&mut self) {
        self.queue.sort_by_key(|queued| queued.key);
    }

    pub(super) fn cancel(&mut self, id: TaskId) -> Result<(), Refusal> {
        let index = *self.tasks.by_id.get(&id).ok_or(Refusal::TaskUnknown { task: id })?;
        let task = self.tasks.get_mut(index);
        if std::mem::replace(&mut task.is_cancelled, true) {
            return Ok(());
        }
        match task.stage {
            Stage::Queued | Stage::Assigned | Stage::Delayed => {
                self.tasks.by_id.remove(&id);
                self.actions.push_back(Action::Left { task: id, end: End::Cancelled });
            }
            Stage::Prepared(slot) if task.plan.fetch.is_empty() => {
                // Its worker was never called.
                self.workers[slot].waiting.retain(|waiting| *waiting != index);
                self.release(index, slot);
                self.leave(index, End::Cancelled);
            }
            Stage::Fetching(slot) | Stage::Prepared(slot) | Stage::Running(slot) => {
                let attempt = AttemptId { task: id, attempt: task.attempts };
                self.actions.push_back(Action::Abort { attempt, worker: self.workers[slot].key });
            }
        }
        Ok(())
    }

    pub(super) fn fetched(&mut self, attempt: AttemptId) -> Result<(), Refusal> {
        let unknown = Refusal::AttemptUnknown { attempt, event: "stage_done" };
        let (index, slot) = self.tasks.bound(attempt).ok_or(unknown)?;
        let task = self.tasks.get_mut(index);
        if matches!(task.stage, Stage::Fetching(_)) {
            task.stage = Stage::Prepared(slot);
            self.workers[slot].waiting.push_back(index);
            self.dirty.insert(slot);
        }
        Ok(())
    }

    pub(super) fn ended(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), Refusal> {
        let unknown = Refusal::AttemptUnknown { attempt, event: "ended" };
        let (index, slot) = self.tasks.bound(attempt).ok_or(unknown)?;
        self.workers[slot].waiting.retain(|waiting| *waiting != index);
        self.release(index, slot);
        let is_cancelled = self.tasks.get(index).is_cancelled;
        match outcome {
            Outcome::Finished => self.leave(index, End::Finished),
            _ if is_cancelled => self.leave(index, End::Cancelled),
            Outcome::Failed => self.leave(index, End::Failed),
            Outcome::Retry { not_before } => self.delay(index, not_before),
            Outcome::Unstaged => self.push(index),
        }
        self.dirty.insert(slot);
        Ok(())
    }

    /// Lotus replies with an error, and the sector's pipeline asks again later.
    pub(super) fn delay(&mut self, index: TaskIdx, until: Millis) {
        self.tasks.get_mut(index).stage = Stage::Delayed;
        self.timers.insert((until, index));
    }

    /// Gives back everything that a task on a worker holds.
    pub(super) fn release(&mut self, index: TaskIdx, slot: WorkerIdx) {
        let task = self.tasks.get_mut(index);
        self.workers[slot].discharge(task);
        self.paths.release(std::mem::take(&mut task.reserved));
        task.plan = Plan::default();
        self.dirty.insert(slot);
    }

    pub(super) fn adopt(
        &mut self,
        attempt: AttemptId,
        worker: WorkerKey,
        request: &Request,
    ) -> Result<(), Refusal> {
        let slot = self.worker(worker)?;
        let index = self.add_task(attempt.task, request)?;
        let task = self.tasks.get_mut(index);
        task.attempts = attempt.attempt;
        task.plan.gpus = self.workers[slot].charge_running(task);
        task.stage = Stage::Running(slot);
        Ok(())
    }
}
