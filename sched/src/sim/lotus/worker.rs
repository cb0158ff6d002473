//! One worker of the model: its windows, its two tallies, and the loop that works its windows off.

use std::collections::VecDeque;

use sealtasks::{AttemptId, ResourceTable, SealTaskType, TaskType};

use super::Lotus;
use super::files::PathIdx;
use super::tally::{Machine, Spec, Tally};
use super::tasks::{Stage, Task, TaskIdx};
use crate::{Action, Assignment, GpuShare, Millis, ResourceRow, WorkerKey, WorkerProfile};

pub(super) type WorkerIdx = usize;

/// Windows that a worker has, open and assigned together.
pub(super) const WINDOWS: usize = 2;
/// A sector's pipeline waits so long, in milliseconds, before it asks again for what failed.
const RETRY: Millis = Millis::new(60_000);

/// One life of one worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) key: WorkerKey,
    pub(super) machine: Machine,
    pub(super) paths: Vec<PathIdx>,
    /// Task types that it offers, as its task selector counts them.
    pub(super) breadth: usize,
    tasks: Vec<TaskType>,
    rows: Vec<ResourceRow>,
    caps: std::collections::BTreeMap<TaskType, u32>,
    /// By kind; `None`: not offered.
    offers: Vec<Option<Spec>>,
    /// By kind, offered or not.
    specs: Vec<Spec>,
    pub(super) enabled: bool,
    pub(super) open: bool,
    pub(super) suspect: bool,
    pub(super) lost: bool,
    /// What fetches or waits with its inputs.
    pub(super) preparing: Tally,
    /// What runs.
    pub(super) active: Tally,
    /// Tasks in either tally, by kind: both share one counter.
    pub(super) counts: Vec<u64>,
    /// Assigned windows, oldest first.
    pub(super) windows: VecDeque<Window>,
    /// Windows asked for: open ones and assigned ones.
    pub(super) requested: usize,
    /// Prepared tasks that wait until they may run, in the order in which they came.
    pub(super) waiting: VecDeque<TaskIdx>,
    /// Thousandths of each GPU in use. Lotus names no devices; the model's actions do.
    devices: Vec<u64>,
}

/// Tasks that were assigned together, and what they were counted to take. That count does not fall as they leave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Window {
    pub(super) allocated: Tally,
    /// Kinds counted, for limits on how many run at once.
    counted: Vec<(usize, u64)>,
    /// Tasks with their kinds, first to go first.
    pub(super) todo: Vec<(TaskIdx, usize)>,
}

impl Window {
    pub(super) fn fits(&self, spec: &Spec, machine: &Machine, kind: usize) -> bool {
        let others = if spec.most == 0 { 0 } else { self.count(kind) };
        self.allocated.fits(spec, machine, others)
    }

    /// Appends a task and returns by how much the window's utilization grew.
    pub(super) fn add(&mut self, task: (TaskIdx, usize), spec: &Spec, machine: &Machine) -> f64 {
        match self.counted.iter_mut().find(|(kind, _)| *kind == task.1) {
            Some((_, count)) => *count += 1,
            None => self.counted.push((task.1, 1)),
        }
        self.todo.push(task);
        self.allocated.add(spec, machine)
    }

    fn take(&mut self, place: usize, spec: &Spec) -> (TaskIdx, usize) {
        let task = self.todo.remove(place);
        self.allocated.free(spec);
        if let Some((_, count)) = self.counted.iter_mut().find(|(kind, _)| *kind == task.1) {
            *count -= 1;
        }
        self.counted.retain(|(_, count)| *count > 0);
        task
    }

    fn count(&self, kind: usize) -> u64 {
        self.counted.iter().find(|(counted, _)| *counted == kind).map_or(0, |(_, count)| *count)
    }
}

impl Worker {
    pub(super) fn new(key: WorkerKey, profile: &WorkerProfile) -> Self {
        let machine = Machine::of(profile);
        Self {
            key,
            machine,
            paths: Vec::new(),
            breadth: 0,
            tasks: Vec::new(),
            rows: profile.resources.clone(),
            caps: profile.caps.clone(),
            offers: Vec::new(),
            specs: Vec::new(),
            enabled: true,
            open: true,
            suspect: false,
            lost: false,
            preparing: Tally::default(),
            active: Tally::default(),
            counts: Vec::new(),
            windows: VecDeque::new(),
            requested: 0,
            waiting: VecDeque::new(),
            devices: vec![0; machine.gpus],
        }
    }

    pub(super) fn refresh(
        &mut self,
        profile: &WorkerProfile,
        paths: Vec<PathIdx>,
        kinds: &[SealTaskType],
        builtin: &ResourceTable,
    ) {
        self.paths = paths;
        self.tasks = profile.tasks.clone();
        self.breadth = profile.tasks.len();
        self.offers.clear();
        self.specs.clear();
        for kind in kinds {
            self.learn(*kind, builtin);
        }
    }

    /// Takes in a type and size at the next position.
    pub(super) fn learn(&mut self, kind: SealTaskType, builtin: &ResourceTable) {
        let row = self.rows.iter().find(|row| row.task == kind.task && row.proof == kind.proof);
        let resources = row.map(|row| row.resources).or_else(|| builtin.get(kind.task, kind.proof));
        let cap = self.caps.get(&kind.task).copied();
        let spec = Spec::of(&resources.unwrap_or_default(), &self.machine, cap);
        self.offers.push(self.tasks.contains(&kind.task).then_some(spec));
        self.specs.push(spec);
        self.counts.resize(self.counts.len().max(self.specs.len()), 0);
    }

    pub(super) fn offers(&self, kind: usize) -> Option<&Spec> {
        self.offers[kind].as_ref()
    }

    pub(super) fn spec(&self, kind: usize) -> Spec {
        self.specs[kind]
    }

    /// What a task charges while it prepares: all that it takes later, under the limit of the type it prepares as.
    fn prepare_spec(&self, kind: usize, prepare_kind: usize) -> Spec {
        self.specs[kind].limited_as(&self.specs[prepare_kind])
    }

    pub(super) fn is_usable(&self) -> bool {
        self.enabled && self.open && !self.suspect && !self.lost
    }

    /// What runs, prepares and is assigned, each with what the system itself uses.
    pub(super) fn utilization(&self) -> f64 {
        let windows: f64 =
            self.windows.iter().map(|window| window.allocated.utilization(&self.machine)).sum();
        self.active.utilization(&self.machine) + self.preparing.utilization(&self.machine) + windows
    }

    /// Tasks that run, prepare or are assigned; of one kind or of all.
    pub(super) fn task_count(&self, only: Option<usize>) -> u64 {
        let here = self.counts.iter().enumerate();
        let windows =
            self.windows.iter().flat_map(|window| &window.counted).map(|(kind, count)| (*kind, *count));
        let all = here.map(|(kind, count)| (kind, *count)).chain(windows);
        all.filter(|(kind, _)| only.is_none_or(|only| only == *kind)).map(|(_, count)| count).sum()
    }

    /// Everything that only waits in windows; the windows are gone.
    pub(super) fn give_back(&mut self) -> Vec<TaskIdx> {
        self.requested = 0;
        self.windows.drain(..).flat_map(|window| window.todo).map(|(task, _)| task).collect()
    }

    /// Moves tasks of later windows into earlier ones where they fit, window by window, and drops those that are empty.
    pub(super) fn compact(&mut self) {
        for later in 1..self.windows.len() {
            let mut place = 0;
            while let Some((_, kind)) = self.windows[later].todo.get(place).copied() {
                let spec = self.specs[kind];
                if self.windows[later - 1].fits(&spec, &self.machine, kind) {
                    let task = self.windows[later].take(place, &spec);
                    self.windows[later - 1].add(task, &spec, &self.machine);
                } else {
                    place += 1;
                }
            }
        }
        let before = self.windows.len();
        self.windows.retain(|window| !window.todo.is_empty());
        self.requested -= before - self.windows.len();
    }

    /// Takes the first task of the first window that `may` accepts; a drained window goes.
    fn take_first(&mut self, may: impl Fn(&Self, TaskIdx, usize) -> bool) -> Option<TaskIdx> {
        let first = self.windows.front()?;
        let place = first.todo.iter().position(|(task, kind)| may(self, *task, *kind))?;
        let first = self.windows.front_mut()?;
        let (task, _) = first.todo.remove(place);
        if first.todo.is_empty() {
            self.windows.pop_front();
            self.requested -= 1;
        }
        Some(task)
    }

    fn may_run(&self, kind: usize, counted: u64) -> bool {
        let others = self.counts[kind].saturating_sub(counted);
        self.active.fits(&self.specs[kind], &self.machine, others)
    }

    /// Charges a task to what runs, and gives its share of each GPU: the emptiest devices first.
    pub(super) fn charge_running(&mut self, task: &Task) -> Vec<GpuShare> {
        let spec = self.specs[task.kind];
        self.active.add(&spec, &self.machine);
        self.counts[task.kind] += 1;
        let mut left = (spec.gpu * 1000.0).round() as u64;
        let mut order: Vec<usize> = (0..self.devices.len()).collect();
        order.sort_by_key(|device| self.devices[*device]);
        let mut shares = Vec::new();
        for device in order {
            let thousandths = left.min(1000);
            if thousandths == 0 {
                break;
            }
            self.devices[device] += thousandths;
            shares.push(GpuShare { device, thousandths });
            left -= thousandths;
        }
        shares
    }

    fn charge_preparing(&mut self, task: &Task) {
        let spec = self.specs[task.kind];
        self.preparing.add(&spec, &self.machine);
        self.counts[task.prepare_kind] += 1;
    }

    /// Takes back what a task on this worker was charged.
    pub(super) fn discharge(&mut self, task: &Task) {
        let spec = self.specs[task.kind];
        match task.stage {
            Stage::Fetching(_) | Stage::Prepared(_) => {
                self.preparing.free(&spec);
                self.counts[task.prepare_kind] -= 1;
            }
            Stage::Running(_) => {
                self.active.free(&spec);
                self.counts[task.kind] -= 1;
                for share in &task.plan.gpus {
                    self.devices[share.device] -= share.thousandths;
                }
            }
            Stage::Queued | Stage::Assigned | Stage::Delayed => {}
        }
    }
}

impl Lotus {
    /// One worker's loop, until it has nothing more to do.
    pub(super) fn run_worker(&mut self, slot: WorkerIdx) {
        loop {
            let woke = self.wake_waiting(slot);
            self.workers[slot].compact();
            let ready = self.assign_ready(slot);
            let prepared = self.assign_preparing(slot);
            if !woke && !ready && !prepared {
                break;
            }
            self.poked = true;
        }
        let worker = &mut self.workers[slot];
        while worker.is_usable() && worker.requested < WINDOWS {
            worker.requested += 1;
            self.open.push(slot);
            self.poked = true;
        }
    }

    /// Lets prepared tasks run as far as there is room.
    fn wake_waiting(&mut self, slot: WorkerIdx) -> bool {
        let mut any = false;
        for index in std::mem::take(&mut self.workers[slot].waiting) {
            let task = self.tasks.get_mut(index);
            let worker = &mut self.workers[slot];
            let counted = u64::from(task.prepare_kind == task.kind);
            if !worker.may_run(task.kind, counted) {
                worker.waiting.push_back(index);
                continue;
            }
            any = true;
            worker.discharge(task);
            let was_fetched = !task.plan.fetch.is_empty();
            self.start(index, slot, was_fetched);
        }
        any
    }

    /// Starts Commit1 and Commit2 of the first window at once, unless a prepared task waits for the same room.
    fn assign_ready(&mut self, slot: WorkerIdx) -> bool {
        let mut any = false;
        while self.workers[slot].waiting.is_empty() {
            let tasks = &self.tasks;
            let next = self.workers[slot].take_first(|worker, task, kind| {
                matches!(tasks.get(task).task, TaskType::Commit1 | TaskType::Commit2)
                    && worker.may_run(kind, 0)
            });
            let Some(index) = next else { break };
            any = true;
            if self.plan(index, slot) {
                let was_fetched = false;
                self.start(index, slot, was_fetched);
            }
        }
        any
    }

    /// Lets tasks of the first window prepare, in order, until the first moment none fits.
    fn assign_preparing(&mut self, slot: WorkerIdx) -> bool {
        let mut any = false;
        loop {
            let tasks = &self.tasks;
            let next = self.workers[slot].take_first(|worker, task, kind| {
                let prepare_kind = tasks.get(task).prepare_kind;
                let spec = worker.prepare_spec(kind, prepare_kind);
                worker.preparing.fits(&spec, &worker.machine, worker.counts[prepare_kind])
            });
            let Some(index) = next else { return any };
            any = true;
            if !self.plan(index, slot) {
                continue;
            }
            let (task, worker) = (self.tasks.get_mut(index), &mut self.workers[slot]);
            worker.charge_preparing(task);
            if task.plan.fetch.is_empty() {
                task.stage = Stage::Prepared(slot);
                worker.waiting.push_back(index);
            } else {
                task.stage = Stage::Fetching(slot);
                let assignment = assignment(task, worker.key);
                self.actions.push_back(Action::Stage(assignment));
            }
        }
    }

    /// Gives the task's next attempt its files. `false`: there is no room for them any more, or nobody wants it.
    fn plan(&mut self, index: TaskIdx, slot: WorkerIdx) -> bool {
        let task = self.tasks.get_mut(index);
        if task.is_cancelled {
            self.tasks.remove(index);
            return false;
        }
        let Some((plan, reserved)) = self.paths.plan(&task.selector, &self.workers[slot].paths) else {
            let until = self.now.after(RETRY);
            self.delay(index, until);
            return false;
        };
        task.attempts = task.attempts.saturating_add(1);
        (task.plan, task.reserved) = (plan, reserved);
        true
    }

    fn start(&mut self, index: TaskIdx, slot: WorkerIdx, was_fetched: bool) {
        let (task, worker) = (self.tasks.get_mut(index), &mut self.workers[slot]);
        task.plan.gpus = worker.charge_running(task);
        task.plan.threads = worker.specs[task.kind].threads();
        task.stage = Stage::Running(slot);
        let attempt = AttemptId { task: task.id, attempt: task.attempts };
        self.actions.push_back(if was_fetched {
            let (gpus, threads) = (task.plan.gpus.clone(), task.plan.threads);
            Action::Run { attempt, worker: worker.key, gpus, threads }
        } else {
            Action::Start(assignment(task, worker.key))
        });
    }
}

fn assignment(task: &Task, worker: WorkerKey) -> Assignment {
    Assignment {
        attempt: AttemptId { task: task.id, attempt: task.attempts },
        worker,
        task: task.task,
        sector: task.sector,
        plan: task.plan.clone(),
    }
}
