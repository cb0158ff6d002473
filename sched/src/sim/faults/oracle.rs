//! Safety, seen from outside: each event changes the model as the documents say it must, each action is checked against
//! it, and now and then the scheduler's own account of itself is compared with it.

use sealtasks::{AttemptId, ResourceTable, SealTaskType, TaskId};

use super::coverage::{Coverage, Place};
use super::model::{Bound, Charge, Held, Model, Task, gpu_of};
use crate::sim::{Violation, Watch};
use crate::{
    Action, Assignment, End, Event, GpuShare, Millis, Options, ReservationUse, Sched, Stage, WorkerKey,
    WorkerMode,
};

/// Watches one scheduler.
#[derive(Debug)]
pub struct Oracle {
    pub(super) model: Model,
    pub(super) table: ResourceTable,
    wait_limit: Millis,
    staged_per_running: usize,
    /// What the event at hand must lead to.
    pub(super) pending: Pending,
    broken: Option<Violation>,
    pub(super) coverage: Coverage,
    /// The reservations when the books were last compared, and when that was.
    pub(super) promises: (Millis, Vec<ReservationUse>),
    /// When the scheduler asked last to be woken.
    pub(super) wake: Millis,
    events: u64,
    check_every: u64,
}

/// What the event at hand must lead to.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) refuse: bool,
    pub(super) refused: bool,
    pub(super) left: Option<(TaskId, End)>,
    pub(super) abort: Option<AttemptId>,
    /// Adopted just now: which devices it holds only the scheduler can say.
    pub(super) adopted: Option<AttemptId>,
}

impl Oracle {
    /// An oracle for a scheduler with these options. Every `check_every` events it compares all books; 1 = after each.
    pub fn new(options: &Options, check_every: u64) -> Self {
        Self {
            model: Model::default(),
            table: options.resources.clone(),
            wait_limit: options.wait_limit,
            staged_per_running: options.staged_per_running,
            pending: Pending::default(),
            broken: None,
            coverage: Coverage::default(),
            promises: Default::default(),
            wake: Millis::ZERO,
            events: 0,
            check_every: check_every.max(1),
        }
    }

    /// What was seen so far.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Tasks that are here.
    pub fn tasks_here(&self) -> usize {
        self.model.tasks.len()
    }

    pub(super) fn breaks(&mut self, rule: &'static str, detail: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(Violation { rule, detail: detail() });
        }
    }

    pub(super) fn due_at(&self, request: &crate::Request) -> Millis {
        let limit = request.wait_limit.unwrap_or(self.wait_limit);
        // With a deadline it may be due at any time, as far as an outsider knows.
        if request.deadline.is_some() { Millis::ZERO } else { request.since.after(limit) }
    }

    fn begun(&mut self, to: &Assignment, stage: Stage) {
        let id = to.attempt.task;
        let now = self.model.now;
        self.check_order(id);
        let Some(task) = self.model.tasks.get(&id) else {
            return self
                .breaks("unknown task", || format!("attempt {} of a task that is not here", to.attempt));
        };
        match &task.place {
            Held::Bound(bound) => {
                let other = bound.attempt;
                return self.breaks("two live attempts", || format!("{} beside {other}", to.attempt));
            }
            Held::Waiting { not_before } if *not_before > now => {
                let not_before = *not_before;
                self.breaks("too early", || format!("{} at {now}, not before {not_before}", to.attempt));
            }
            Held::Waiting { .. } => {}
        }
        self.check_place(to, stage);
        let sum = if stage == Stage::Running {
            self.charge_for(to.attempt, to.worker, &to.plan.gpus)
        } else {
            None
        };
        if let Some(charge) = &sum
            && charge.threads != to.plan.threads
        {
            let (right, told) = (charge.threads, to.plan.threads);
            self.breaks("threads", || format!("{} was given {told} threads, asks {right}", to.attempt));
        }
        let highest = self.model.highest.entry(id).or_default();
        let before = std::mem::replace(highest, to.attempt.attempt.max(*highest));
        if to.attempt.attempt != before + 1 {
            self.breaks("attempt number", || format!("{} after {before}", to.attempt));
        }
        let mut space = Vec::new();
        for (path, bytes) in crate::sim::files::parts(&to.plan) {
            self.model.path_mut(path).promised += u128::from(bytes);
            space.push((path.clone(), bytes, false));
        }
        let bound = Bound {
            attempt: to.attempt,
            worker: to.worker,
            stage,
            accepted: false,
            is_cancelled: false,
            charge: sum,
            space,
        };
        self.bind(bound);
    }

    /// Puts what a binding holds into the books.
    pub(super) fn bind(&mut self, bound: Bound) {
        let Some(kind) = self.model.tasks.get(&bound.attempt.task).map(Task::kind) else { return };
        // What is adopted started before.
        if bound.charge.is_some() && !bound.accepted {
            self.model.note_start(bound.worker, kind.task);
        }
        let Some(task) = self.model.tasks.get_mut(&bound.attempt.task) else { return };
        if let Some(worker) = self.model.workers.get_mut(&bound.worker) {
            worker.load.bound += 1;
            match &bound.charge {
                Some(charge) => {
                    let base = worker.row(&self.table, kind).base_min_memory;
                    worker.load.charge(kind, base, charge);
                }
                None => worker.load.staged += 1,
            }
        }
        let place = if bound.charge.is_some() { Place::Running } else { Place::Fetching };
        self.coverage.moved(bound.attempt.task, place);
        task.was_unstaged = false;
        task.place = Held::Bound(Box::new(bound));
    }

    /// What a task asks for on a worker, with the devices that it was given.
    pub(super) fn charge_for(
        &self,
        attempt: AttemptId,
        worker: WorkerKey,
        gpus: &[GpuShare],
    ) -> Option<Charge> {
        let kind = self.model.tasks.get(&attempt.task)?.kind();
        let worker = self.model.workers.get(&worker)?;
        let row = worker.row(&self.table, kind);
        let threads = worker.threads(&row);
        Some(Charge { min: row.min_memory, max: row.max_memory, threads, gpus: gpus.to_vec() })
    }

    fn check_place(&mut self, to: &Assignment, stage: Stage) {
        let model = &self.model;
        let (Some(task), Some(worker)) = (model.tasks.get(&to.attempt.task), model.workers.get(&to.worker))
        else {
            return self.breaks("unknown worker", || format!("{} goes to {}", to.attempt, to.worker));
        };
        let kind = task.kind();
        let locks = task.request.locks;
        let wrong: Option<(&'static str, String)> = if !worker.is_usable() {
            Some(("unusable worker", format!("{:?}, lost {}", worker.mode, worker.lost)))
        } else if !worker.offers(kind.task) {
            Some(("not offered", kind.to_string()))
        } else if !model.mode_allows(worker, task, &self.table) {
            Some(("mode", format!("{kind} on a worker that is {:?}", worker.mode)))
        } else if let Some(other) = model.lock_holder(to.attempt.task, task.request.sector.id, locks) {
            Some(("locks", format!("beside task {other}")))
        } else if let Some(wrong) = model.wrong_plan(task, to.worker, &to.plan) {
            Some(("plan", wrong))
        } else if stage == Stage::Running {
            self.over_capacity(to.worker, kind, &to.plan.gpus)
        } else {
            let most = worker.load.running() * self.staged_per_running as u64;
            let cap =
                worker.profile.caps.get(&sealtasks::TaskType::Fetch).map_or(u64::MAX, |cap| u64::from(*cap));
            let staged = worker.load.staged;
            (staged >= most.min(cap))
                .then(|| ("staged", format!("{staged} staged, at most {most} and {cap}")))
        };
        if let Some((rule, detail)) = wrong {
            self.breaks(rule, || format!("{} on {}: {detail}", to.attempt, to.worker));
        }
    }

    fn over_capacity(
        &self,
        key: WorkerKey,
        kind: SealTaskType,
        gpus: &[GpuShare],
    ) -> Option<(&'static str, String)> {
        let worker = self.model.workers.get(&key)?;
        let row = worker.row(&self.table, kind);
        if let Some(until) = self.model.staggered_until(worker, kind.task) {
            return Some(("staggered", format!("{kind} before {until}")));
        }
        let asked = if worker.gpus() == 0 || worker.profile.ignore_resources { 0 } else { gpu_of(&row) };
        let given: u64 = gpus.iter().map(|share| share.thousandths).sum();
        if asked > 0 && given != asked {
            return Some(("devices", format!("{kind} asks {asked} thousandths and got {given}")));
        }
        let threads = worker.threads(&row);
        let charge = Charge { min: row.min_memory, max: row.max_memory, threads, gpus: gpus.to_vec() };
        let over = self.model.over(worker, kind, &row, &charge)?;
        Some(("over capacity", format!("with {kind}: {over}")))
    }

    /// A task that neither is due nor has a worker kept for it goes before its like only in queue order.
    fn check_order(&mut self, id: TaskId) {
        let model = &self.model;
        let Some(task) = model.tasks.get(&id) else { return };
        let is_plain = |task: &Task| !task.was_unstaged && task.due_at > model.now;
        if !is_plain(task) || model.workers.values().any(|worker| worker.mode != WorkerMode::Open) {
            return;
        }
        let key = |id: TaskId, task: &Task| {
            let (order, number) = (task.request.task.order(), task.request.sector.id.number);
            (std::cmp::Reverse(task.request.priority), order, number, id)
        };
        let mine = key(id, task);
        let passed = model.tasks.iter().find(|(other, state)| {
            **other != id
                && state.kind() == task.kind()
                && key(**other, state) < mine
                && matches!(state.place, Held::Waiting { not_before } if not_before <= model.now)
                && is_plain(state)
                && state.request.needs.existing.is_none()
                && state.request.needs == task.request.needs
                && state.request.sector.id.miner == task.request.sector.id.miner
                && state.request.purpose == task.request.purpose
                && model.lock_holder(**other, state.request.sector.id, state.request.locks).is_none()
        });
        if let Some(passed) = passed.map(|(passed, _)| *passed) {
            self.breaks("order", || format!("task {id} went before task {passed}"));
        }
    }

    fn run(&mut self, attempt: AttemptId, worker: WorkerKey, gpus: &[GpuShare]) {
        let Some(bound) = self.model.bound(attempt) else {
            return self.breaks("run", || format!("{attempt} is not bound"));
        };
        if (bound.stage, bound.worker, bound.is_cancelled) != (Stage::Fetched, worker, false) {
            let detail = format!("{attempt} on {worker}: {bound:?}");
            return self.breaks("run", || detail);
        }
        let kind = self.model.tasks[&attempt.task].kind();
        if let Some((rule, detail)) = self.over_capacity(worker, kind, gpus) {
            self.breaks(rule, || format!("{attempt} on {worker}: {detail}"));
        }
        let charge = self.charge_for(attempt, worker, gpus);
        self.model.note_start(worker, kind.task);
        if let (Some(charge), Some(worker)) = (&charge, self.model.workers.get_mut(&worker)) {
            let base = worker.row(&self.table, kind).base_min_memory;
            worker.load.charge(kind, base, charge);
            worker.load.staged -= 1;
        }
        if let Some(bound) = self.model.tasks.get_mut(&attempt.task).and_then(Task::bound_mut) {
            (bound.charge, bound.stage) = (charge, Stage::Running);
            self.coverage.moved(attempt.task, Place::Running);
        }
    }

    fn unstage(&mut self, attempt: AttemptId) {
        let bound = self.model.tasks.get_mut(&attempt.task).and_then(Task::bound_mut);
        match bound.filter(|bound| bound.attempt == attempt) {
            Some(bound) if matches!(bound.stage, Stage::Fetching | Stage::Fetched) => {
                bound.stage = Stage::Unstaging;
                self.coverage.moved(attempt.task, Place::Unstaging);
            }
            Some(_) => self.breaks("unstage", || format!("{attempt} is called off a second time or runs")),
            None => self.breaks("unstage", || format!("{attempt} is not bound")),
        }
    }

    fn left(&mut self, task: TaskId, end: End) {
        match self.pending.left.take() {
            Some(expected) if expected == (task, end) => {}
            other => self.breaks("left", || format!("task {task} left as {end:?}, expected {other:?}")),
        }
    }
}

impl Watch<Sched> for Oracle {
    fn told(&mut self, now: Millis, event: &Event) {
        self.events += 1;
        self.model.now = self.model.now.max(now);
        self.coverage.event(event);
        self.pending = Pending::default();
        self.apply(event);
    }

    fn answered(&mut self, _: Millis, action: &Action) {
        self.coverage.action(action);
        match action {
            Action::Start(to) => self.begun(to, Stage::Running),
            Action::Stage(to) => self.begun(to, Stage::Fetching),
            Action::Run { attempt, worker, gpus, .. } => self.run(*attempt, *worker, gpus),
            Action::Unstage { attempt, .. } => self.unstage(*attempt),
            Action::Abort { attempt, .. } => match self.pending.abort.take() {
                Some(expected) if expected == *attempt => {}
                other => self.breaks("abort", || format!("{attempt} is aborted, expected {other:?}")),
            },
            Action::Left { task, end } => self.left(*task, *end),
            Action::Refused { refusal } => {
                self.pending.refused = true;
                if !self.pending.refuse {
                    self.breaks("refusal", || format!("a sensible event was refused: {refusal}"));
                }
            }
            Action::WakeAt { at } => self.wake = *at,
        }
    }

    fn settled(&mut self, _: Millis, scheduler: &Sched) -> Result<(), Violation> {
        if self.pending.refuse && !self.pending.refused {
            self.breaks("refusal", || "an event that made no sense was not refused".to_owned());
        }
        if let Some((task, end)) = self.pending.left.take() {
            self.breaks("left", || format!("task {task} did not leave as {end:?}"));
        }
        if let Some(attempt) = self.pending.abort.take() {
            self.breaks("abort", || format!("{attempt} was not aborted"));
        }
        if self.broken.is_none()
            && (self.pending.adopted.is_some() || self.events.is_multiple_of(self.check_every))
        {
            self.compare(scheduler);
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    fn restarted(&mut self, _: Millis) {
        self.coverage.restarts += 1;
        let highest = std::mem::take(&mut self.model.highest);
        self.model = Model { highest, ..Model::default() };
        self.promises = Default::default();
        self.wake = Millis::ZERO;
        self.coverage.forget_places();
    }
}
