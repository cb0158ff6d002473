//! A task's way through the scheduler: submitted, bound, ended, and every way out.

use sealtasks::{AttemptId, FileTypes, SealTaskType, StorageId, TaskId};

use crate::class::{ClassExisting, ClassFile, ClassKey};
use crate::few::Few;
use crate::placement::Draft;
use crate::slab::{SectorIdx, TaskIdx};
use crate::space::{PathIdx, Paths, Used};
use crate::task::{Binding, Phase, State, Task};
use crate::{Action, Assignment, End, Millis, Outcome, PathBytes, Refusal, Request, Sched, WorkerKey};

/// What remains of an attempt after everything it held was released.
pub(crate) struct Unbound {
    pub(crate) worker: usize,
    pub(crate) cancelled: bool,
}

impl Sched {
    pub(crate) fn submit(&mut self, id: TaskId, request: &Request) -> Result<(), Refusal> {
        self.warm_for_submit(request.sector.id);
        if self.tasks.find(id).is_some() {
            return Err(Refusal::TaskKnown { task: id });
        }
        let most = self.options.tasks_max;
        if self.tasks.len() >= most {
            return Err(Refusal::TasksFull { task: id, most });
        }
        if request.attempts == u32::MAX {
            return Err(Refusal::AttemptsSpent { task: id, attempts: request.attempts });
        }
        let task = self.admit(id, request)?;
        self.enqueue(task);
        Ok(())
    }

    /// Makes the task known, idle; what it waits for is decided by whoever calls.
    fn admit(&mut self, id: TaskId, request: &Request) -> Result<TaskIdx, Refusal> {
        let needs = &request.needs;
        let mut existing = match &needs.existing {
            None => None,
            Some(existing) => {
                let files = existing.files.iter().map(|file| {
                    let held_by = self.intern_all(&file.held_by)?;
                    Ok(ClassFile { kind: file.kind, bytes: file.bytes, held_by })
                });
                let files = files.collect::<Result<_, Refusal>>()?;
                Some(ClassExisting { rule: existing.rule, mode: existing.mode, files })
            }
        };
        let known = self.sectors.find(&self.tasks, request.sector.id);
        if let Some(existing) = &mut existing {
            if let Some(sector) = known {
                existing.files.iter().for_each(|file| self.set_files(sector, file.kind, &file.held_by));
            }
            existing.agree();
        }
        let kind = SealTaskType { proof: request.sector.proof, task: request.task };
        let key = ClassKey {
            task: request.task,
            proof: request.sector.proof,
            miner: request.sector.id.miner,
            existing,
            allocate: needs.allocate.as_ref().map(|allocate| (allocate.path_type, allocate.files.clone())),
            purpose: request.purpose,
            avoid: request.avoid,
        };
        let group = self.group(kind);
        if key.ties().is_none() && !self.queue.groups[group].is_ranked {
            self.begin_ranking(group);
        }
        let class = self.queue.join(key, group);
        let wait_until = request.since.after(request.wait_limit.unwrap_or(self.options.wait_limit));
        let task = Task {
            id,
            sector: request.sector,
            sector_at: known.unwrap_or(SectorIdx::NOT_YET),
            previous: None,
            next: None,
            kind: request.task,
            priority: request.priority,
            locks: request.locks,
            since: request.since,
            wait_until,
            deadline: request.deadline,
            due_at: self.due_at(kind, wait_until, request.deadline),
            is_due: false,
            attempts: request.attempts,
            class,
            group,
            state: State::Idle,
            timer: Millis::ZERO,
        };
        let at = self.tasks.add(task);
        match known {
            Some(sector) => self.tasks.link(at, &mut self.sectors[sector]),
            None => self.tasks[at].sector_at = self.sectors.add(request.sector.id, at),
        }
        let task = &mut self.tasks[at];
        task.is_due = task.due_at <= self.now;
        self.retime(at);
        Ok(at)
    }

    pub(crate) fn cancel(&mut self, id: TaskId) -> Result<(), Refusal> {
        let at = self.tasks.find(id).ok_or(Refusal::TaskUnknown { task: id })?;
        match self.tasks[at].binding_mut() {
            None => {
                self.warm_for_cancel(at);
                self.take_out(at);
                self.leave(at, End::Cancelled);
            }
            Some(binding) if binding.cancelled => {}
            Some(binding) => {
                binding.cancelled = true;
                let (attempt, slot) = (binding.attempt, binding.worker);
                self.unreserve(id);
                self.due_staged.remove(&(self.tasks[at].group, id));
                let worker = self.workers.get(slot).key;
                self.actions.push_back(Action::Abort { attempt, worker });
            }
        }
        Ok(())
    }

    pub(crate) fn set_priority(&mut self, id: TaskId, priority: i64) -> Result<(), Refusal> {
        let at = self.tasks.find(id).ok_or(Refusal::TaskUnknown { task: id })?;
        let task = &mut self.tasks[at];
        let (before, class) = (task.key(), task.class);
        task.priority = priority;
        if matches!(task.state, State::Ready) {
            let after = task.key();
            self.queue.remove(class, before);
            self.queue.insert(class, after, at);
        }
        Ok(())
    }

    pub(crate) fn started(&mut self, attempt: AttemptId) -> Result<(), Refusal> {
        self.bound(attempt, "Started")?.1.accepted = true;
        Ok(())
    }

    pub(crate) fn stage_done(&mut self, attempt: AttemptId) -> Result<(), Refusal> {
        let now = self.now;
        let (_, binding) = self.bound(attempt, "StageDone")?;
        if binding.phase == Phase::Fetching {
            binding.phase = Phase::Fetched;
            let slot = binding.worker;
            self.dirty.insert(slot);
            self.waits_no_more(slot, attempt);
        } else if binding.phase == Phase::Running && binding.moving > Millis::ZERO {
            (binding.since, binding.moving) = (now, Millis::ZERO);
        }
        Ok(())
    }

    pub(crate) fn ended(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), Refusal> {
        let (at, binding) = self.bound(attempt, "Ended")?;
        let used = if binding.accepted { Used::Perhaps } else { Used::No };
        self.warm_for_end(at);
        if outcome == Outcome::Finished {
            self.learn_from(at);
        }
        let unbound = self.unbind(at, used);
        match outcome {
            Outcome::Finished => self.leave(at, End::Finished),
            Outcome::Failed => self.leave(at, if unbound.cancelled { End::Cancelled } else { End::Failed }),
            Outcome::Retry { .. } | Outcome::Unstaged if unbound.cancelled => self.leave(at, End::Cancelled),
            Outcome::Retry { not_before } => self.requeue(at, not_before),
            Outcome::Unstaged => self.requeue(at, Millis::ZERO),
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
        let (at, _) = self.bound(attempt, "StartFailed")?;
        let unbound = self.unbind(at, Used::No);
        if unbound.cancelled {
            self.leave(at, End::Cancelled);
        } else {
            let reason: String = reason.chars().take(Task::REASON_MAX).collect();
            self.start_failures.insert(attempt.task, reason.into());
            self.requeue(at, not_before);
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
        let at = match self.tasks.find(id) {
            None => self.admit(id, request)?,
            Some(at) => {
                match self.tasks[at].binding() {
                    Some(binding) if binding.attempt != attempt => {
                        return Err(Refusal::AttemptBound { attempt, bound: binding.attempt });
                    }
                    Some(_) => {
                        // It has its slot now: nothing need be kept for it.
                        self.unreserve(id);
                        let unbound = self.unbind(at, Used::No);
                        cancelled = unbound.cancelled;
                        left = Some(unbound.worker);
                    }
                    None if self.tasks[at].attempts > attempt.attempt => {
                        return Err(Refusal::AttemptUnknown { attempt, event: "Adopt" });
                    }
                    None => self.take_out(at),
                }
                at
            }
        };
        let parts: Few<_> =
            holds.iter().filter_map(|hold| Some((self.paths.intern(&hold.path)?, hold.bytes))).collect();
        self.attach(at, slot, (attempt, Phase::Running), &parts, 0);
        self.dirty.insert(slot);
        let (_, binding) = self.bound(attempt, "Adopt")?;
        (binding.accepted, binding.cancelled, binding.is_measured) = (true, cancelled, false);
        self.note_passing(slot, id);
        if let Some(left) = left {
            self.drop_if_gone(left);
        }
        Ok(())
    }

    fn bound(&mut self, attempt: AttemptId, event: &'static str) -> Result<(TaskIdx, &mut Binding), Refusal> {
        let unknown = Refusal::AttemptUnknown { attempt, event };
        let Some(at) = self.tasks.find(attempt.task) else { return Err(unknown) };
        let binding = self.tasks[at].binding_mut().filter(|binding| binding.attempt == attempt);
        binding.map(|binding| (at, binding)).ok_or(unknown)
    }

    /// Binds a waiting task to a slot that it fits.
    pub(crate) fn start(&mut self, at: TaskIdx, slot: usize, draft: &Draft) {
        self.note_start(slot, self.tasks[at].kind);
        self.bind(at, slot, draft, Phase::Running);
    }

    pub(crate) fn bind(&mut self, at: TaskIdx, slot: usize, draft: &Draft, phase: Phase) {
        self.take_out(at);
        let task = &self.tasks[at];
        // Checked when the task is admitted and each time it goes back to the queue.
        let attempt = AttemptId { task: task.id, attempt: task.attempts + 1 };
        let mut plan = self.name_paths(&self.queue.class(task.class).key, draft);
        self.note_given(slot, task.group);
        self.attach(at, slot, (attempt, phase), draft.room(), draft.moved);
        self.note_passing(slot, attempt.task);
        let task = &self.tasks[at];
        if let (Some(binding), Phase::Running) = (task.binding(), phase) {
            plan.gpus = binding.charge.gpus().to_vec();
            plan.threads = binding.charge.threads();
        }
        let (worker, task, sector) = (self.workers.get(slot).key, task.kind, task.sector);
        let assignment = Assignment { attempt, worker, task, sector, plan };
        self.actions.push_back(match phase {
            Phase::Running => Action::Start(assignment),
            Phase::Fetching | Phase::Fetched | Phase::Unstaging => Action::Stage(assignment),
        });
    }

    /// Takes all that an attempt holds, at once. The task is out of the queue.
    fn attach(
        &mut self,
        at: TaskIdx,
        slot: usize,
        (attempt, phase): (AttemptId, Phase),
        room: &[(PathIdx, u64)],
        moved: u64,
    ) {
        let task = &self.tasks[at];
        let id = task.id;
        let kind = SealTaskType { proof: task.sector.proof, task: task.kind };
        let ask = self.workers.get(slot).ask_in(task.group, kind, &self.options.resources);
        let takes_shared_room = room.iter().any(|(path, _)| self.paths.get(*path).workers().len() > 1);
        let moving = self.moving_time(slot, moved);
        let running = (phase == Phase::Running).then(|| self.charge_running(slot, &ask));
        let task = &mut self.tasks[at];
        let worker = self.workers.get_mut(slot);
        let charge = if let Some(charge) = running {
            charge
        } else {
            worker.staged_tasks.insert(id);
            self.queue.groups[task.group].staged.insert(id);
            self.queue.staged.insert(task.group);
            self.queue.wake(task.group);
            if task.is_due {
                self.due_staged.insert((task.group, id));
            }
            worker.staged.charge(&ask, &worker.idle)
        };
        worker.bound.push(at);
        task.attempts = task.attempts.max(attempt.attempt);
        task.state = State::Bound(Box::new(Binding {
            attempt,
            worker: slot,
            phase,
            since: self.now,
            moving,
            is_measured: true,
            accepted: false,
            cancelled: false,
            charge,
            locks: self.sectors[task.sector_at].lock(task.locks),
            space: self.paths.promise(room),
        }));
        let (sector, locks) = (task.sector_at, task.locks);
        if phase != Phase::Running {
            self.dirty.insert(slot);
        }
        if takes_shared_room {
            self.doubt_reservations();
        }
        self.retime(at);
        if !locks.is_empty() {
            self.recheck_locks(sector);
        }
    }

    /// Releases everything that the task's attempt holds. The task is then idle.
    fn unbind(&mut self, at: TaskIdx, used: Used) -> Unbound {
        let task = &mut self.tasks[at];
        let id = task.id;
        let State::Bound(binding) = std::mem::replace(&mut task.state, State::Idle) else {
            unreachable!("only a bound task is unbound")
        };
        let Binding { attempt, worker: slot, phase, charge, locks, space, cancelled, .. } = *binding;
        let (sector, group) = (task.sector_at, task.group);
        let worker = self.workers.get_mut(slot);
        worker.let_go(at);
        if phase == Phase::Running {
            self.release_running(slot, charge);
        } else {
            worker.staged.release(charge);
            worker.staged_tasks.remove(&id);
            self.queue.groups[group].staged.remove(&id);
            self.due_staged.remove(&(group, id));
        }
        self.waits_no_more(slot, attempt);
        let had_room = space.parts().next().is_some();
        self.paths.release(space, used);
        let held = locks.locks();
        self.sectors[sector].unlock(locks);
        self.dirty.insert(slot);
        if used == Used::No && had_room {
            self.world += 1;
            self.doubt_reservations();
            self.queue.unstick(ClassKey::needs_room);
        }
        if !held.is_empty() {
            self.recheck_locks(sector);
        }
        Unbound { worker: slot, cancelled }
    }

    /// Puts an unbound task back: to the worker that is kept for it, or in the queue.
    fn requeue(&mut self, at: TaskIdx, not_before: Millis) {
        let Task { id, attempts, .. } = self.tasks[at];
        if attempts == u32::MAX {
            self.actions
                .push_back(Action::Refused { refusal: Refusal::AttemptsSpent { task: id, attempts } });
            self.leave(at, End::Failed);
        } else if not_before > self.now {
            self.unreserve(id);
            self.set_state(at, State::Delayed(not_before));
        } else {
            match self.reservations.get(&id) {
                Some(slot) => self.set_state(at, State::Reserved(*slot)),
                None => self.enqueue(at),
            }
        }
    }

    /// Lets an idle task wait in its class, or for its locks.
    pub(crate) fn enqueue(&mut self, at: TaskIdx) {
        let task = &self.tasks[at];
        let (key, class) = (task.key(), task.class);
        if self.busy_locks(task).is_empty() {
            self.set_state(at, State::Ready);
            if self.queue.insert(class, key, at) {
                self.fresh.insert(class);
            }
        } else {
            self.set_state(at, State::Locked);
        }
    }

    pub(crate) fn busy_locks(&self, task: &Task) -> FileTypes {
        self.sectors[task.sector_at].busy(task.locks)
    }

    pub(crate) fn set_state(&mut self, at: TaskIdx, state: State) {
        if matches!(state, State::Reserved(_)) {
            self.doubtful.insert(self.tasks[at].id);
        }
        self.tasks[at].state = state;
        self.retime(at);
    }

    /// Takes a task that is not bound out of whatever it waits in. It is then idle.
    fn take_out(&mut self, at: TaskIdx) {
        let task = &mut self.tasks[at];
        let (key, class) = (task.key(), task.class);
        match std::mem::replace(&mut task.state, State::Idle) {
            State::Ready => self.queue.remove(class, key),
            State::Reserved(_) => self.unreserve(key.task),
            State::Idle | State::Locked | State::Delayed(_) => {}
            State::Bound(_) => unreachable!("a bound task waits in no queue"),
        }
    }

    /// The task's locks changed hands: who was ready may now have to wait, and the other way round.
    fn recheck_locks(&mut self, sector: SectorIdx) {
        // Most often there is only the one task, which holds them or held them.
        if self.tasks[self.sectors[sector].first].next.is_none() {
            return;
        }
        for at in self.siblings(sector) {
            let task = &self.tasks[at];
            let is_busy = !self.busy_locks(task).is_empty();
            match task.state {
                State::Ready if is_busy => {
                    self.queue.remove(task.class, task.key());
                    self.set_state(at, State::Locked);
                }
                State::Locked if !is_busy => self.enqueue(at),
                State::Reserved(_) => {
                    self.doubtful.insert(task.id);
                }
                State::Idle | State::Ready | State::Locked | State::Delayed(_) | State::Bound(_) => {}
            }
        }
    }

    /// Forgets an idle task and says so.
    fn leave(&mut self, at: TaskIdx, end: End) {
        let Task { id, class, sector, sector_at, .. } = self.tasks[at];
        self.unreserve(id);
        self.timers.set(&mut self.tasks, at, None);
        self.start_failures.remove(&id);
        self.queue.leave(class);
        if !self.tasks.unlink(at, &mut self.sectors[sector_at]) {
            self.sectors.remove(sector.id, sector_at);
        }
        self.tasks.remove(at);
        self.actions.push_back(Action::Left { task: id, end });
    }

    /// The sector's tasks, in the order of their ids.
    pub(crate) fn siblings(&self, sector: SectorIdx) -> Vec<TaskIdx> {
        let mut all: Vec<_> = self.tasks.of(&self.sectors[sector]).map(|(at, task)| (task.id, at)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, at)| at).collect()
    }

    pub(crate) fn intern_all(&mut self, ids: &[StorageId]) -> Result<Few<PathIdx>, Refusal> {
        let full = |id: &StorageId| Refusal::PathsFull { path: id.clone(), most: Paths::MOST };
        let mut paths = ids
            .iter()
            .map(|id| self.paths.intern(id).ok_or_else(|| full(id)))
            .collect::<Result<Few<_>, _>>()?;
        paths.sort_dedup();
        Ok(paths)
    }
}
