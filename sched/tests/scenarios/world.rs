//! The one door of these tests: a scheduler, its clock and everything it has asked for so far.

use std::collections::BTreeMap;

use sched::{
    Action, Allocate, Event, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, NewFile, Options,
    Outcome, PathFacts, Request, ResourceRow, Sched, WorkerKey, WorkerProfile,
};
use sealtasks::{
    AcquireMode, AttemptId, FileType, FileTypes, PathType, RegisteredSealProof, Resources, SectorId,
    SectorRef, SectorSize, StorageId, TaskId, TaskType, WorkerId,
};

pub const GIB: u64 = 1 << 30;
pub const HOUR: u64 = 60 * 60 * 1000;

pub struct World {
    pub sched: Sched,
    pub now: Millis,
    /// Every action so far.
    pub log: Vec<Action>,
    /// The attempts that are bound, by task.
    pub bound: BTreeMap<TaskId, (AttemptId, WorkerKey)>,
    next_task: u64,
}

impl World {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let (log, bound) = (Vec::new(), BTreeMap::new());
        Self { sched: Sched::new(options), now: Millis::new(1), log, bound, next_task: 1 }
    }

    /// Sends one event and returns what it led to.
    pub fn send(&mut self, event: Event) -> Vec<Action> {
        self.sched.handle(self.now, event);
        let mut actions = Vec::new();
        while let Some(action) = self.sched.poll_action() {
            match &action {
                Action::Start(to) | Action::Stage(to) => {
                    let before = self.bound.insert(to.attempt.task, (to.attempt, to.worker));
                    assert_eq!(before, None, "task {} is bound twice", to.attempt.task);
                }
                Action::Left { task, .. } => {
                    self.bound.remove(task);
                }
                Action::Run { .. } | Action::Unstage { .. } | Action::Abort { .. } => {}
                Action::Refused { .. } | Action::WakeAt { .. } => {}
            }
            actions.push(action);
        }
        self.log.extend(actions.iter().cloned());
        actions
    }

    pub fn worker(&mut self, number: u128, profile: WorkerProfile) -> WorkerKey {
        let worker = key(number);
        self.send(Event::WorkerUp { worker, profile });
        worker
    }

    pub fn path(&mut self, name: &str, available: u64) -> StorageId {
        let path = path_facts(name, available);
        let id = path.id.clone();
        self.send(Event::PathSeen { path });
        id
    }

    pub fn submit(&mut self, request: Request) -> TaskId {
        let task = TaskId::new(self.next_task);
        self.next_task += 1;
        self.send(Event::Submit { task, request });
        task
    }

    pub fn simple(&mut self, kind: TaskType, sector: u64) -> TaskId {
        self.submit(request(kind, sector))
    }

    pub fn accept(&mut self, task: TaskId) {
        let attempt = self.bound[&task].0;
        self.send(Event::Started { attempt });
    }

    pub fn end(&mut self, task: TaskId, outcome: Outcome) -> Vec<Action> {
        let (attempt, _) = self.bound.remove(&task).expect("only a bound task ends");
        self.send(Event::Ended { attempt, outcome })
    }

    pub fn finish(&mut self, task: TaskId) -> Vec<Action> {
        self.end(task, Outcome::Finished)
    }

    pub fn tick_at(&mut self, millis: u64) -> Vec<Action> {
        self.now = Millis::new(millis);
        self.send(Event::Tick)
    }

    pub fn on(&self, task: TaskId) -> Option<WorkerKey> {
        self.bound.get(&task).map(|(_, worker)| *worker)
    }

    /// Which of these are on a worker.
    pub fn bound_of(&self, tasks: &[TaskId]) -> Vec<bool> {
        tasks.iter().map(|task| self.on(*task).is_some()).collect()
    }

    pub fn why(&self, task: TaskId) -> String {
        self.sched.why(task).expect("the task is here").to_string()
    }

    /// The queue, by task.
    pub fn queue(&self) -> Vec<TaskId> {
        self.sched.snapshot().queue.iter().map(|queued| queued.task).collect()
    }
}

pub fn key(number: u128) -> WorkerKey {
    WorkerKey { session: WorkerId(uuid::Uuid::from_u128(number)), generation: 0 }
}

pub fn proof() -> RegisteredSealProof {
    RegisteredSealProof::for_new_sector(SectorSize::GiB32)
}

pub fn sector(number: u64) -> SectorRef {
    SectorRef { id: SectorId::new(1000, number), proof: proof() }
}

pub fn request(task: TaskType, number: u64) -> Request {
    Request {
        sector: sector(number),
        task,
        purpose: None,
        avoid: None,
        priority: 0,
        needs: Needs::default(),
        locks: Locks::default(),
        since: Millis::ZERO,
        wait_limit: Some(Millis::new(u64::MAX)),
        deadline: None,
        attempts: 0,
    }
}

pub fn path_facts(name: &str, available: u64) -> PathFacts {
    PathFacts {
        id: storage(name),
        available: available as i64,
        covers: Vec::new(),
        healthy: true,
        can_seal: true,
        can_store: false,
        weight: 10,
        accepts: FileTypes::ALL,
        allow_miners: Vec::new(),
        deny_miners: Vec::new(),
        groups: Vec::new(),
        allow_to: Vec::new(),
    }
}

pub fn storage(name: &str) -> StorageId {
    name.parse().expect("a good id")
}

pub fn existing(rule: ExistingRule, files: &[(FileType, u64, &[&str])]) -> Needs {
    let file = |(kind, bytes, paths): &(FileType, u64, &[&str])| HeldFile {
        kind: *kind,
        bytes: *bytes,
        held_by: paths.iter().map(|path| storage(path)).collect(),
    };
    let existing = Existing { rule, mode: AcquireMode::Move, files: files.iter().map(file).collect() };
    Needs { existing: Some(existing), allocate: None }
}

pub fn allocate(kind: FileType, bytes: u64) -> Needs {
    let allocate = Allocate { path_type: PathType::Sealing, files: vec![NewFile { kind, bytes }] };
    Needs { existing: None, allocate: Some(allocate) }
}

fn resources(mem: (u64, u64, u64), threads: i64, gpu: f64) -> Resources {
    Resources {
        min_memory: mem.0,
        max_memory: mem.1,
        base_min_memory: mem.2,
        max_parallelism: threads,
        gpu_utilization: gpu,
        ..Resources::default()
    }
}

/// The 32 GiB rows of Lotus's table, written out so that these tests stand alone. PreCommit2 and Commit2 take all 32
/// threads of the test worker, as they do in Lotus's tests, where the share of threads is set to 1/1.
pub fn rows() -> Vec<ResourceRow> {
    let mib = 1 << 20;
    let rows = [
        (TaskType::AddPiece, resources((4 * GIB, 4 * GIB, GIB), 1, 0.0)),
        (TaskType::PreCommit1, resources((56 * GIB, 64 * GIB, 10 * mib), 1, 0.0)),
        (TaskType::PreCommit2, resources((15 * GIB, 15 * GIB, GIB), 32, 1.0)),
        (TaskType::Commit1, resources((GIB, GIB, GIB), 0, 0.0)),
        (TaskType::Commit2, resources((30 * GIB, 150 * GIB, 32 * GIB), 32, 1.0)),
        (TaskType::Unseal, resources((GIB, GIB, 0), 1, 0.5)),
    ];
    rows.into_iter().map(|(task, resources)| ResourceRow { task, proof: proof(), resources }).collect()
}

/// Lotus's "decent" worker: 128 GiB of RAM, 200 GiB of swap, 1 GiB of each in use, 32 threads, no GPU.
pub fn decent(tasks: &[TaskType]) -> WorkerProfile {
    WorkerProfile {
        host: "fred".to_owned(),
        tasks: tasks.to_vec(),
        resources: rows(),
        mem_physical: 128 * GIB,
        mem_swap: 200 * GIB,
        mem_used: GIB,
        swap_used: GIB,
        cpus: 32,
        ..WorkerProfile::default()
    }
}

/// Lotus's "constrained" worker: 1 GiB of RAM, all of it in use, 1 GiB of swap in use though it has none, 1 thread.
pub fn constrained(tasks: &[TaskType]) -> WorkerProfile {
    WorkerProfile { mem_physical: GIB, mem_swap: 0, mem_used: GIB, swap_used: GIB, cpus: 1, ..decent(tasks) }
}
