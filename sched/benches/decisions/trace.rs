//! A full cluster with a deep queue, and the tasks that come and go in it.
//!
//! Every type of a sector's life in two sizes, with the selectors that each has: room for new files, inputs that must be
//! at hand, inputs that are fetched, locks. A thousand paths of storage servers hold inputs, and every worker has a path
//! of its own. One task in a thousand is due when it comes, so that workers are kept for some at all times.

use std::collections::VecDeque;

use sched::sim::Scheduler;
use sched::{
    Action, Allocate, Event, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, NewFile, Options,
    Outcome, PathFacts, Request, ResourceRow, Sched, WorkerKey, WorkerProfile,
};
use sealtasks::{
    AcquireMode, AttemptId, FileType, FileTypes, PathType, RegisteredSealProof, Resources, SectorId,
    SectorRef, SectorSize, StorageId, StorageStanza, TaskId, TaskType, WorkerId,
};
use uuid::Uuid;

/// Paths of storage servers that hold inputs: so many location sets there are beside the workers' own paths.
pub const SOURCES: u64 = 1_000;
/// Servers that share those paths.
const SERVERS: u64 = 10;
const GIB: u64 = 1 << 30;
/// Of so many tasks one is due at once.
const DUE_EVERY: u64 = 1_000;
const SIZES: [SectorSize; 2] = [SectorSize::GiB32, SectorSize::GiB64];

/// What tells tasks of this trace apart, their sources aside.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    task: TaskType,
    size: SectorSize,
    own: u32,
}

const KINDS: [TaskType; 8] = [
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
    TaskType::Fetch,
    TaskType::Unseal,
];

/// Answers by number.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn set(&mut self, at: usize, is: bool) {
        if self.0.len() <= at / 64 {
            self.0.resize(at / 64 + 1, 0);
        }
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        *word = if is { *word | bit } else { *word & !bit };
    }
}

/// A cluster in which everything that can run does.
pub struct Cluster<S = Sched> {
    pub sched: S,
    /// What runs, the oldest first.
    running: VecDeque<AttemptId>,
    /// The first of them.
    ahead: Vec<AttemptId>,
    /// By task: whether it waits. Bits, so that these books are in the caches and their cost is not taken for the scheduler's.
    waits: Bits,
    /// By task: what it is.
    kinds: Vec<Kind>,
    /// What started, or was cancelled, since the queue was last filled.
    started: Vec<TaskId>,
    waiting: u64,
    workers: u64,
    random: u64,
    starts: u64,
}

impl Cluster {
    /// `workers` workers with all slots taken, and `tasks` tasks waiting.
    pub fn new(tasks: u64, workers: u64) -> Self {
        let options = Options { staged_per_running: 0, ..Options::default() };
        let mut cluster = Self::of(Sched::new(options), workers);
        cluster.fill(tasks);
        cluster
    }

    /// Lets the scheduler know which attempts end next, as the manager does with the results of a batch.
    pub fn look_ahead(&mut self) {
        self.ahead.clear();
        self.ahead.extend(self.running.iter().take(Sched::LOOK_AHEAD_MOST));
        self.sched.look_ahead(&self.ahead);
    }
}

impl<S: Scheduler> Cluster<S> {
    /// The workers and paths alone, with any scheduler.
    pub fn of(sched: S, workers: u64) -> Self {
        let mut cluster = Self {
            sched,
            running: VecDeque::new(),
            ahead: Vec::new(),
            waits: Bits::default(),
            kinds: Vec::new(),
            started: Vec::new(),
            waiting: 0,
            workers,
            random: 1,
            starts: 0,
        };
        for server in 0..SERVERS {
            let own = (0..SOURCES).filter(|source| source % SERVERS == server);
            let paths: Vec<_> = own.map(|source| id("source", source)).collect();
            paths.iter().for_each(|path| cluster.send(Event::PathSeen { path: facts(path.clone(), 0) }));
            let tasks = if server == 0 { vec![TaskType::RegenSectorKey] } else { Vec::new() };
            let (mem_physical, cpus) = (1 << 50, 1 << 20);
            let profile = WorkerProfile { paths, tasks, mem_physical, cpus, ..WorkerProfile::default() };
            cluster.send(Event::WorkerUp { worker: key(u128::from(workers + server)), profile });
        }
        for worker in 0..workers {
            let path = id("own", worker);
            cluster.send(Event::PathSeen { path: facts(path.clone(), 1 << 60) });
            cluster.send(Event::WorkerUp { worker: key(worker.into()), profile: profile(worker, path) });
        }
        cluster
    }

    /// Makes room in this cluster's own books, so that they take no more memory when tasks come.
    pub fn make_room(&mut self, tasks: usize) {
        let kind = self.any_kind();
        let kinds = self.kinds.len();
        self.kinds.resize(kinds + tasks, kind);
        self.waits.set(kinds + tasks, false);
        self.kinds.truncate(kinds);
    }

    /// Submits tasks of all kinds until so many wait.
    pub fn fill(&mut self, tasks: u64) {
        while self.waiting < tasks {
            let kind = self.any_kind();
            self.submit(kind);
        }
        self.started.clear();
    }

    /// Submits one task like each that started or was cancelled, so that the queue stays as it is.
    pub fn refill(&mut self) {
        for task in std::mem::take(&mut self.started) {
            self.submit(self.kinds[task.get() as usize]);
        }
        self.started.clear();
    }

    /// Submits one more task.
    pub fn submit(&mut self, kind: Kind) -> TaskId {
        let (task, event) = self.submission(kind);
        self.send(event);
        task
    }

    /// The event that submits one more task, which counts as waiting from now on.
    pub fn submission(&mut self, kind: Kind) -> (TaskId, Event) {
        let task = TaskId::new(self.kinds.len() as u64);
        self.waits.set(self.kinds.len(), true);
        self.kinds.push(kind);
        self.waiting += 1;
        (task, Event::Submit { task, request: self.request(task, kind) })
    }

    /// A kind of task at random: type, size, and the worker on whose path its files are if they must be at hand.
    pub fn any_kind(&mut self) -> Kind {
        let task = KINDS[self.draw(KINDS.len() as u64) as usize];
        Kind { task, size: SIZES[self.draw(2) as usize], own: self.draw(self.workers.max(1)) as u32 }
    }

    /// The oldest attempt ends, and whatever that sets in motion is carried out. Returns how many tasks started.
    pub fn turn(&mut self) -> u64 {
        let attempt = self.running.pop_front().expect("a full cluster runs something");
        let before = self.starts;
        self.send(Event::Ended { attempt, outcome: Outcome::Finished });
        self.starts - before
    }

    /// Some waiting task, chosen at random.
    pub fn some_waiting(&mut self) -> TaskId {
        loop {
            let task = self.draw(self.kinds.len() as u64);
            if self.waits.has(task as usize) {
                return TaskId::new(task);
            }
        }
    }

    /// Cancels a waiting task.
    pub fn cancel(&mut self, task: TaskId) {
        self.send(Event::Cancel { task });
    }

    /// Tasks that started so far.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// A request that the worker for regeneration starts at once.
    pub fn quick(&mut self) -> (TaskId, Event) {
        let kind = Kind { task: TaskType::RegenSectorKey, size: SIZES[0], own: 0 };
        let (task, mut event) = self.submission(kind);
        if let Event::Submit { request, .. } = &mut event {
            request.wait_limit = Some(Millis::new(6 * 3_600_000));
        }
        (task, event)
    }

    /// Ends the attempt that was started last.
    pub fn end_last(&mut self) {
        let attempt = self.running.pop_back().expect("one was started");
        self.send(Event::Ended { attempt, outcome: Outcome::Finished });
    }

    /// Tasks that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Tasks that run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sends an event and carries out what comes of it: workers accept at once.
    pub fn send(&mut self, event: Event) {
        self.send_at(Millis::new(1), event);
    }

    /// As [`Self::send`], for a scheduler whose time has gone on.
    pub fn send_at(&mut self, now: Millis, event: Event) {
        self.sched.handle(now, event);
        while let Some(action) = self.sched.poll_action() {
            match action {
                Action::Start(to) => {
                    self.starts += 1;
                    self.running.push_back(to.attempt);
                    self.forget(to.attempt.task);
                    std::hint::black_box(to.plan);
                    self.sched.handle(now, Event::Started { attempt: to.attempt });
                }
                Action::Left { task, .. } => self.forget(task),
                // Only the model of Lotus stages here.
                Action::Stage(to) => {
                    self.forget(to.attempt.task);
                    std::hint::black_box(to.plan);
                    self.sched.handle(now, Event::StageDone { attempt: to.attempt });
                }
                Action::Run { attempt, .. } => {
                    self.starts += 1;
                    self.running.push_back(attempt);
                }
                Action::WakeAt { .. } => {}
                other => unreachable!("this trace asks for no {other:?}"),
            }
        }
    }

    fn forget(&mut self, task: TaskId) {
        if self.waits.has(task.get() as usize) {
            self.waits.set(task.get() as usize, false);
            self.waiting -= 1;
            self.started.push(task);
        }
    }

    /// SplitMix64.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % below
    }

    fn request(&mut self, task: TaskId, kind: Kind) -> Request {
        let source = id("source", self.draw(SOURCES));
        let own = id("own", kind.own.into());
        let (needs, locks) = needs(kind.task, kind.size.bytes(), source, own);
        let is_due = task.get().is_multiple_of(DUE_EVERY);
        Request {
            sector: SectorRef {
                id: SectorId::new(1000, task.get()),
                proof: RegisteredSealProof::for_new_sector(kind.size),
            },
            task: kind.task,
            purpose: None,
            avoid: None,
            priority: if self.draw(10) == 0 { 1024 } else { 0 },
            needs,
            locks,
            since: Millis::new(task.get() / 100),
            wait_limit: Some(Millis::new(if is_due { 0 } else { 6 * 3_600_000 })),
            deadline: None,
            attempts: 0,
        }
    }
}

/// The files and locks of one task, as a manager asks for them.
fn needs(kind: TaskType, size: u64, source: StorageId, own: StorageId) -> (Needs, Locks) {
    let held = |kind, bytes, path: &StorageId| HeldFile { kind, bytes, held_by: vec![path.clone()] };
    let made = |kind, bytes| NewFile { kind, bytes };
    let existing = |rule, files| Some(Existing { rule, mode: AcquireMode::Move, files });
    let allocate = |files| Some(Allocate { path_type: PathType::Sealing, files });
    let (cache, trees) = (14 * size, size / 400);
    let (sealed, layers) = (FileType::Sealed, FileType::Cache);
    let (existing, allocate, read, write) = match kind {
        TaskType::AddPiece => {
            (None, allocate(vec![made(FileType::Unsealed, size)]), FileTypes::NONE, FileTypes::UNSEALED)
        }
        TaskType::PreCommit1 => (
            existing(ExistingRule::Fetch(PathType::Sealing), vec![held(FileType::Unsealed, size, &source)]),
            allocate(vec![made(sealed, size), made(layers, cache)]),
            FileTypes::UNSEALED,
            FileTypes::SEALED.union(FileTypes::CACHE),
        ),
        TaskType::PreCommit2 => (
            existing(
                ExistingRule::Fetch(PathType::Sealing),
                vec![held(sealed, size, &source), held(layers, cache, &source)],
            ),
            None,
            FileTypes::SEALED,
            FileTypes::CACHE,
        ),
        TaskType::Commit1 => (
            existing(
                ExistingRule::PartlyHere(PathType::Sealing),
                vec![held(sealed, size, &own), held(layers, trees, &own)],
            ),
            None,
            FileTypes::SEALED,
            FileTypes::NONE,
        ),
        TaskType::Finalize => (
            existing(ExistingRule::Here, vec![held(layers, trees, &own)]),
            None,
            FileTypes::NONE,
            FileTypes::CACHE,
        ),
        TaskType::Fetch => (
            existing(ExistingRule::MoveTo(PathType::Storage), vec![held(sealed, size, &source)]),
            None,
            FileTypes::NONE,
            FileTypes::SEALED,
        ),
        TaskType::Unseal => (
            existing(ExistingRule::Fetch(PathType::Sealing), vec![held(sealed, size, &source)]),
            allocate(vec![made(FileType::Unsealed, size)]),
            FileTypes::SEALED,
            FileTypes::UNSEALED,
        ),
        _ => (None, None, FileTypes::NONE, FileTypes::NONE),
    };
    (Needs { existing, allocate }, Locks { read, write })
}

/// The workers' own kinds: for PreCommit1, for GPUs, for everything, and for what is light.
fn profile(worker: u64, path: StorageId) -> WorkerProfile {
    let light = [TaskType::Commit1, TaskType::Finalize, TaskType::Fetch];
    let (heavy, cpus, gpus): (&[TaskType], _, _) = match worker % 4 {
        0 => (&[TaskType::AddPiece, TaskType::PreCommit1], 32, 0),
        1 => (&[TaskType::PreCommit2, TaskType::Commit2], 32, 2),
        2 => (
            &[
                TaskType::AddPiece,
                TaskType::PreCommit1,
                TaskType::PreCommit2,
                TaskType::Commit2,
                TaskType::Unseal,
            ],
            64,
            1,
        ),
        _ => (&[TaskType::AddPiece, TaskType::Unseal], 16, 0),
    };
    WorkerProfile {
        tasks: heavy.iter().copied().chain(light).collect(),
        resources: rows(),
        mem_physical: 512 * GIB,
        cpus,
        gpus: (0..gpus).map(|gpu: u32| format!("gpu {gpu}")).collect(),
        caps: light.iter().map(|task| (*task, 2)).collect(),
        paths: vec![path],
        ..WorkerProfile::default()
    }
}

fn rows() -> Vec<ResourceRow> {
    let row = |task, gib: u64, max_parallelism, gpu_utilization| {
        SIZES.map(|size| ResourceRow {
            task,
            proof: RegisteredSealProof::for_new_sector(size),
            resources: Resources {
                min_memory: gib * size.bytes() / 32,
                max_memory: gib * size.bytes() / 32,
                base_min_memory: 10 << 20,
                max_parallelism,
                gpu_utilization,
                ..Resources::default()
            },
        })
    };
    [
        row(TaskType::AddPiece, 4, 1, 0.0),
        row(TaskType::PreCommit1, 56, 4, 0.0),
        row(TaskType::PreCommit2, 15, 8, 1.0),
        row(TaskType::Commit1, 1, 0, 0.0),
        row(TaskType::Commit2, 60, 8, 1.0),
        row(TaskType::Unseal, 56, 4, 0.0),
    ]
    .concat()
}

fn id(name: &str, number: u64) -> StorageId {
    // As long as the UUIDs of real paths.
    format!("{name}-00000000-0000-0000-{number:012}").parse().expect("a good id")
}

fn key(number: u128) -> WorkerKey {
    WorkerKey { session: WorkerId(Uuid::from_u128(number)), generation: 0 }
}

fn facts(id: StorageId, available: i64) -> PathFacts {
    let stanza = StorageStanza { can_seal: true, can_store: true, weight: 1, ..StorageStanza::default() };
    PathFacts::new(id, &stanza, available)
}
