//! A task's way through the scheduler: submitted, bound, ended, and every way out.

use sealtasks::{AttemptId, FileTypes, SealTaskType, SectorId, TaskId};

use crate::placement::Draft;
use crate::queue::{ClassExisting, ClassFile, ClassKey};
use crate::space::{Paths, Used};
use crate::task::{Binding, Phase, State, Task};
use crate::{Action, Assignment, End, Millis, Outcome, PathBytes, Plan, Refusal, Request, Sched, WorkerKey};

/// What remains of an attempt after everything it held was released.
pub(crate) struct Unbound {
    pub(crate) worker: usize,
    pub(crate) cancelled: bool,
}

impl Sched {
    pub(crate) fn submit(&mut self, id: TaskId, request: &Request) -> Result<(), Refusal> {
        if self.tasks.contains_key(&id) {
            return Err(Refusal::TaskKnown { task: id });
        }
        let most = self.options.tasks_max;
        if self.tasks.len() >= most {
            return Err(Refusal::TasksFull { task: id, most });
        }
        if request.attempts == u32::MAX {
            return Err(Refusal::AttemptsSpent { task: id, attempts: request.attempts });
        }
        self.admit(id, request)?;
        self.enqueue(id);
        Ok(())
    }

    /// Makes the task known, idle; what it waits for is decided by whoever calls.
    fn admit(&mut self, id: TaskId, request: &Request) -> Result<(), Refusal> {
        let needs = &request.needs;
        let files = needs.existing.iter().flat_map(|existing| &existing.files);
        let held: Vec<_> = files
            .map(|file| Ok((file.kind, self.intern_all(&file.held_by)?)))
            .collect::<Result<_, Refusal>>()?;
        self.sectors.entry(request.sector.id).or_default();
        for (kind, paths) in held {
            self.set_files(request.sector.id, kind, paths);
        }
        let sector = self.sectors.get_mut(&request.sector.id).expect("made above");
        sector.tasks.insert(id);
        let existing = needs.existing.as_ref().map(|existing| ClassExisting {
            rule: existing.rule,
            mode: existing.mode,
            files: existing
                .files
                .iter()
                .map(|file| ClassFile {
                    kind: file.kind,
                    bytes: file.bytes,
                    held_by: sector.files.get(&file.kind).cloned().unwrap_or_default(),
                })
                .collect(),
        });
        let kind = SealTaskType { proof: request.sector.proof, task: request.task };
        let key = ClassKey {
            task: request.task,
            proof: request.sector.proof,
            miner: request.sector.id.miner,
            existing,
            allocate: needs.allocate.as_ref().map(|allocate| (allocate.path_type, allocate.files.clone())),
        };
        let group = self.group(kind);
        let class = self.queue.join(key, group);
        let task = Task {
            id,
            sector: request.sector,
            kind: request.task,
            priority: request.priority,
            locks: request.locks,
            since: request.since,
            due_at: request.since.after(request.wait_limit.unwrap_or(self.options.wait_limit)),
            is_due: false,
            attempts: request.attempts,
            class,
            group,
            state: State::Idle,
            timer: None,
            start_failure: None,
        };
        self.tasks.insert(id, task);
        let task = self.tasks.get_mut(&id).expect("just inserted");
        task.is_due = task.due_at <= self.now;
        self.retime(id);
        Ok(())
    }

    pub(crate) fn cancel(&mut self, id: TaskId) -> Result<(), Refusal> {
        let task = self.tasks.get_mut(&id).ok_or(Refusal::TaskUnknown { task: id })?;
        match task.binding_mut() {
            None => {
                self.take_out(id);
                self.leave(id, End::Cancelled);
            }
            Some(binding) if binding.cancelled => {}
            Some(binding) => {
                binding.cancelled = true;
                let (attempt, slot) = (binding.attempt, binding.worker);
                self.unreserve(id);
                self.due_staged.remove(&id);
                let worker = self.workers.get(slot).key;
                self.actions.push_back(Action::Abort { attempt, worker });
            }
        }
        Ok(())
    }

    pub(crate) fn set_priority(&mut self, id: TaskId, priority: i64) -> Result<(), Refusal> {
        let task = self.tasks.get_mut(&id).ok_or(Refusal::TaskUnknown { task: id })?;
        let (before, class) = (task.key(), task.class);
        task.priority = priority;
        if matches!(task.state, State::Ready) {
            let after = task.key();
            self.queue.remove(class, before);
            self.queue.insert(class, after);
        }
        Ok(())
    }

    pub(crate) fn started(&mut self, attempt: AttemptId) -> Result<(), Refusal> {
        self.bound(attempt, "Started")?.accepted = true;
        Ok(())
    }

    pub(crate) fn stage_done(&mut self, attempt: AttemptId) -> Result<(), Refusal> {
        let now = self.now;
        let binding = self.bound(attempt, "StageDone")?;
        if binding.phase == Phase::Fetching {
            binding.phase = Phase::Fetched;
            let slot = binding.worker;
            self.dirty.insert(slot);
        } else if binding.phase == Phase::Running {
            (binding.since, binding.moving) = (now, Millis::ZERO);
        }
        Ok(())
    }

    pub(crate) fn ended(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), Refusal> {
        let accepted = self.bound(attempt, "Ended")?.accepted;
        if outcome == Outcome::Finished {
            self.learn_from(attempt.task);
        }
        let unbound = self.unbind(attempt.task, if accepted { Used::Perhaps } else { Used::No });
        let id = attempt.task;
        match outcome {
            Outcome::Finished => self.leave(id, End::Finished),
            Outcome::Failed => self.leave(id, if unbound.cancelled { End::Cancelled } else { End::Failed }),
            Outcome::Retry { .. } | Outcome::Unstaged if unbound.cancelled => self.leave(id, End::Cancelled),
            Outcome::Retry { not_before } => self.requeue(id, not_before),
            Outcome::Unstaged => self.requeue(id, Millis::ZERO),
        }
        self.drop_if_gone(unbound.worker);
        Ok(())
    }

    pub(crate) fn start_failed(
        &mut self,
        attempt: AttemptId,
        reason: &str,
        not_before: Millis,
    ) -> Result<(), Refusal> {
        self.bound(attempt, "StartFailed")?;
        let id = attempt.task;
        let unbound = self.unbind(id, Used::No);
        if unbound.cancelled {
            self.leave(id, End::Cancelled);
        } else {
            let reason: String = reason.chars().take(Task::REASON_MAX).collect();
            self.tasks.get_mut(&id).expect("was bound").start_failure = Some(reason.into());
            self.requeue(id, not_before);
        }
        self.drop_if_gone(unbound.worker);
        Ok(())
    }

    pub(crate) fn adopt(
        &mut self,
        attempt: AttemptId,
        worker: WorkerKey,
        request: &Request,
        holds: &[PathBytes],
    ) -> Result<(), Refusal> {
        let slot = self.workers.slot(worker).filter(|slot| !self.workers.get(*slot).lost);
        let slot = slot.ok_or(Refusal::WorkerUnknown { worker })?;
        let id = attempt.task;
        let mut cancelled = false;
        let mut left = None;
        match self.tasks.get(&id) {
            None => self.admit(id, request)?,
            Some(task) => match task.binding() {
                Some(binding) if binding.attempt != attempt => {
                    return Err(Refusal::AttemptBound { attempt, bound: binding.attempt });
                }
                Some(_) => {
                    let unbound = self.unbind(id, Used::No);
                    cancelled = unbound.cancelled;
                    left = Some(unbound.worker);
                }
                None if task.attempts > attempt.attempt => {
                    return Err(Refusal::AttemptUnknown { attempt, event: "Adopt" });
                }
                None => self.take_out(id),
            },
        }
        let parts: Vec<_> =
            holds.iter().filter_map(|hold| Some((self.paths.intern(&hold.path)?, hold.bytes))).collect();
        self.attach(id, slot, (attempt, Phase::Running), parts, Plan::default());
        let binding = self.bound(attempt, "Adopt")?;
        (binding.accepted, binding.cancelled, binding.is_measured) = (true, cancelled, false);
        if let Some(left) = left {
            self.drop_if_gone(left);
        }
        Ok(())
    }

    fn bound(&mut self, attempt: AttemptId, event: &'static str) -> Result<&mut Binding, Refusal> {
        let binding = self.tasks.get_mut(&attempt.task).and_then(|task| task.binding_mut());
        binding.filter(|binding| binding.attempt == attempt).ok_or(Refusal::AttemptUnknown { attempt, event })
    }

    /// Binds a waiting task to a slot that it fits.
    pub(crate) fn start(&mut self, id: TaskId, slot: usize, draft: &Draft) {
        self.bind(id, slot, draft, Phase::Running);
    }

    pub(crate) fn bind(&mut self, id: TaskId, slot: usize, draft: &Draft, phase: Phase) {
        self.take_out(id);
        let task = &self.tasks[&id];
        // Checked when the task is admitted and each time it goes back to the queue.
        let attempt = AttemptId { task: id, attempt: task.attempts + 1 };
        let plan = self.name_paths(&self.queue.class(task.class).key, draft);
        self.attach(id, slot, (attempt, phase), draft.room().collect(), plan);
        let task = &self.tasks[&id];
        let Some(binding) = task.binding() else { return };
        let assignment = Assignment {
            attempt,
            worker: self.workers.get(slot).key,
            task: task.kind,
            sector: task.sector,
            plan: binding.plan.clone(),
        };
        self.actions.push_back(match phase {
            Phase::Running => Action::Start(assignment),
            Phase::Fetching | Phase::Fetched | Phase::Unstaging => Action::Stage(assignment),
        });
    }

    /// Takes all that an attempt holds, at once. The task is out of the queue.
    fn attach(
        &mut self,
        id: TaskId,
        slot: usize,
        (attempt, phase): (AttemptId, Phase),
        room: Vec<(crate::space::PathIdx, u64)>,
        mut plan: Plan,
    ) {
        self.sequence += 1;
        let task = self.tasks.get_mut(&id).expect("whoever binds a task has it");
        let kind = SealTaskType { proof: task.sector.proof, task: task.kind };
        let worker = self.workers.get_mut(slot);
        let ask = worker.ask(kind, &self.options.resources);
        let charge = if phase == Phase::Running {
            let charge = worker.running.charge(&ask, &worker.capacity);
            plan.gpus = charge.gpus().to_vec();
            plan.threads = charge.threads();
            charge
        } else {
            worker.staged_tasks.insert(id);
            self.queue.groups[task.group].staged.insert(id);
            if task.is_due {
                self.due_staged.insert(id);
            }
            worker.staged.charge(&ask, &worker.idle)
        };
        worker.bound.insert(id);
        let moving = worker.moving_time(plan.fetch_bytes());
        let sector = self.sectors.get_mut(&task.sector.id).expect("a task's sector is kept");
        task.attempts = task.attempts.max(attempt.attempt);
        task.state = State::Bound(Box::new(Binding {
            attempt,
            worker: slot,
            sequence: self.sequence,
            phase,
            since: self.now,
            moving,
            is_measured: true,
            accepted: false,
            cancelled: false,
            charge,
            locks: sector.locks.take(task.locks),
            space: self.paths.promise(room),
            plan,
        }));
        let (sector, locks) = (task.sector.id, task.locks);
        self.dirty.insert(slot);
        self.retime(id);
        if !locks.read.is_empty() || !locks.write.is_empty() {
            self.recheck_locks(sector);
        }
    }

    /// Releases everything that the task's attempt holds. The task is then idle.
    fn unbind(&mut self, id: TaskId, used: Used) -> Unbound {
        let task = self.tasks.get_mut(&id).expect("looked up before");
        let State::Bound(binding) = std::mem::replace(&mut task.state, State::Idle) else {
            unreachable!("only a bound task is unbound")
        };
        let Binding { worker: slot, phase, charge, locks, space, cancelled, .. } = *binding;
        let worker = self.workers.get_mut(slot);
        worker.bound.remove(&id);
        if phase == Phase::Running {
            worker.running.release(charge);
        } else {
            worker.staged.release(charge);
            worker.staged_tasks.remove(&id);
            self.queue.groups[task.group].staged.remove(&id);
            self.due_staged.remove(&id);
        }
        self.paths.release(space, used);
        let held = locks.locks();
        let sector = task.sector.id;
        self.sectors.get_mut(&sector).expect("a task's sector is kept").locks.release(locks);
        self.dirty.insert(slot);
        self.world += 1;
        if used == Used::No {
            self.unstick_all(ClassKey::needs_room);
        }
        if !held.read.is_empty() || !held.write.is_empty() {
            self.recheck_locks(sector);
        }
        Unbound { worker: slot, cancelled }
    }

    /// Puts an unbound task back: to the worker that is kept for it, or in the queue.
    fn requeue(&mut self, id: TaskId, not_before: Millis) {
        let attempts = self.tasks[&id].attempts;
        if attempts == u32::MAX {
            self.actions
                .push_back(Action::Refused { refusal: Refusal::AttemptsSpent { task: id, attempts } });
            self.leave(id, End::Failed);
        } else if not_before > self.now {
            self.unreserve(id);
            self.set_state(id, State::Delayed(not_before));
        } else {
            match self.reservations.get(&id) {
                Some(slot) => self.set_state(id, State::Reserved(*slot)),
                None => self.enqueue(id),
            }
        }
    }

    /// Lets an idle task wait in its class, or for its locks.
    pub(crate) fn enqueue(&mut self, id: TaskId) {
        let task = &self.tasks[&id];
        let (key, class) = (task.key(), task.class);
        if self.busy_locks(task).is_empty() {
            self.set_state(id, State::Ready);
            if self.queue.insert(class, key) {
                self.fresh.insert(class);
            }
        } else {
            self.set_state(id, State::Locked);
        }
    }

    pub(crate) fn busy_locks(&self, task: &Task) -> FileTypes {
        self.sectors[&task.sector.id].locks.busy(task.locks)
    }

    pub(crate) fn set_state(&mut self, id: TaskId, state: State) {
        self.tasks.get_mut(&id).expect("whoever moves a task has it").state = state;
        self.retime(id);
    }

    /// Takes a task that is not bound out of whatever it waits in. It is then idle.
    fn take_out(&mut self, id: TaskId) {
        let task = self.tasks.get_mut(&id).expect("looked up before");
        let (key, class) = (task.key(), task.class);
        match std::mem::replace(&mut task.state, State::Idle) {
            State::Ready => self.queue.remove(class, key),
            State::Reserved(_) => self.unreserve(id),
            State::Idle | State::Locked | State::Delayed(_) => {}
            State::Bound(_) => unreachable!("a bound task waits in no queue"),
        }
    }

    /// The task's locks changed hands: who was ready may now have to wait, and the other way round.
    fn recheck_locks(&mut self, sector: SectorId) {
        let siblings: Vec<TaskId> = self.sectors[&sector].tasks.iter().copied().collect();
        for id in siblings {
            let task = &self.tasks[&id];
            let is_busy = !self.busy_locks(task).is_empty();
            match task.state {
                State::Ready if is_busy => {
                    self.queue.remove(task.class, task.key());
                    self.set_state(id, State::Locked);
                }
                State::Locked if !is_busy => self.enqueue(id),
                State::Idle
                | State::Ready
                | State::Locked
                | State::Delayed(_)
                | State::Reserved(_)
                | State::Bound(_) => {}
            }
        }
    }

    /// Forgets an idle task and says so.
    fn leave(&mut self, id: TaskId, end: End) {
        self.unreserve(id);
        let Some(task) = self.tasks.remove(&id) else { return };
        if let Some(at) = task.timer {
            self.timers.remove(&(at, id));
        }
        self.queue.leave(task.class);
        if let Some(sector) = self.sectors.get_mut(&task.sector.id) {
            sector.tasks.remove(&id);
            if sector.tasks.is_empty() {
                self.sectors.remove(&task.sector.id);
            }
        }
        self.actions.push_back(Action::Left { task: id, end });
    }

    pub(crate) fn intern_all(
        &mut self,
        ids: &[sealtasks::StorageId],
    ) -> Result<Vec<crate::space::PathIdx>, Refusal> {
        let full = |id: &sealtasks::StorageId| Refusal::PathsFull { path: id.clone(), most: Paths::MOST };
        let mut paths = ids
            .iter()
            .map(|id| self.paths.intern(id).ok_or_else(|| full(id)))
            .collect::<Result<Vec<_>, _>>()?;
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }
}
