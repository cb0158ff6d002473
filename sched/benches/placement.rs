//! Nanoseconds per decision with T tasks queued and W workers: one task ends, the next takes its place.
//!
//! `cargo bench -p sched`. Three mixes: Commit2 alone (one class, as Lotus's BenchmarkTrySched), the seven types of a
//! sector's life with their room, and PreCommit2 whose inputs lie in a thousand different paths.

use std::collections::VecDeque;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sched::{
    Action, Event, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, Options, Outcome, PathFacts,
    Request, ResourceRow, Sched, WorkerKey, WorkerProfile,
};
use sealtasks::{
    AcquireMode, AttemptId, FileType, FileTypes, PathType, RegisteredSealProof, Resources, SectorId,
    SectorRef, SectorSize, StorageId, TaskId, TaskType, WorkerId,
};
use uuid::Uuid;

const TASKS: [u64; 3] = [1_000, 10_000, 100_000];
const WORKERS: [u64; 3] = [10, 100, 1_000];
const SOURCES: u64 = 1_000;
const MIX: [TaskType; 7] = [
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
    TaskType::Fetch,
];

#[derive(Clone, Copy, Debug)]
enum Mix {
    OneClass,
    AllTypes,
    Locations,
}

/// A full cluster with a backlog. Each ended task is submitted again, so that the backlog stays as it is.
struct Cluster {
    sched: Sched,
    mix: Mix,
    running: VecDeque<AttemptId>,
    next: u64,
}

impl Cluster {
    fn new(mix: Mix, tasks: u64, workers: u64) -> Self {
        let options = Options { staged_per_running: 0, ..Options::default() };
        let mut cluster = Self { sched: Sched::new(options), mix, running: VecDeque::new(), next: 0 };
        for source in 0..SOURCES {
            cluster.send(Event::PathSeen { path: path(&format!("source-{source}"), 0) });
        }
        let sources = (0..SOURCES).map(|source| id(&format!("source-{source}"))).collect();
        let storage = WorkerProfile { paths: sources, ..WorkerProfile::default() };
        cluster.send(Event::WorkerUp { worker: key(u128::MAX), profile: storage });
        for number in 0..workers {
            let name = format!("own-{number}");
            cluster.send(Event::PathSeen { path: path(&name, i64::MAX) });
            cluster.send(Event::WorkerUp { worker: key(number.into()), profile: profile(&name) });
        }
        while (cluster.next as usize) < cluster.running.len() + tasks as usize {
            cluster.submit();
        }
        cluster
    }

    fn send(&mut self, event: Event) {
        self.sched.handle(Millis::new(1), event);
        while let Some(action) = self.sched.poll_action() {
            if let Action::Start(to) = action {
                self.running.push_back(to.attempt);
            }
        }
    }

    fn submit(&mut self) {
        let number = self.next;
        self.next += 1;
        self.send(Event::Submit { task: TaskId::new(number), request: request(self.mix, number) });
    }

    /// One task ends and another is submitted; what can start starts.
    fn turn(&mut self) {
        if let Some(attempt) = self.running.pop_front() {
            self.send(Event::Ended { attempt, outcome: Outcome::Finished });
        }
        self.submit();
    }
}

fn id(name: &str) -> StorageId {
    name.parse().expect("a good id")
}

fn key(number: u128) -> WorkerKey {
    WorkerKey { session: WorkerId(Uuid::from_u128(number)), generation: 0 }
}

fn path(name: &str, available: i64) -> PathFacts {
    let stanza = sealtasks::StorageStanza { can_seal: true, weight: 1, ..Default::default() };
    PathFacts::new(id(name), &stanza, available)
}

fn proof() -> RegisteredSealProof {
    RegisteredSealProof::for_new_sector(SectorSize::GiB32)
}

fn profile(path: &str) -> WorkerProfile {
    let gib = 1 << 30;
    let row = |task, min_memory, max_parallelism, gpu_utilization| ResourceRow {
        task,
        proof: proof(),
        resources: Resources {
            min_memory,
            max_memory: min_memory,
            max_parallelism,
            gpu_utilization,
            ..Resources::default()
        },
    };
    let resources = vec![
        row(TaskType::AddPiece, 4 * gib, 1, 0.0),
        row(TaskType::PreCommit1, 56 * gib, 4, 0.0),
        row(TaskType::PreCommit2, 15 * gib, 16, 1.0),
        row(TaskType::Commit1, gib, 0, 0.0),
        row(TaskType::Commit2, 60 * gib, 16, 1.0),
    ];
    WorkerProfile {
        tasks: MIX.to_vec(),
        resources,
        mem_physical: 256 * gib,
        cpus: 32,
        gpus: vec!["gpu".to_owned()],
        paths: vec![id(path)],
        caps: [(TaskType::Finalize, 2), (TaskType::Fetch, 2)].into(),
        ..WorkerProfile::default()
    }
}

fn request(mix: Mix, number: u64) -> Request {
    let task = match mix {
        Mix::OneClass => TaskType::Commit2,
        Mix::AllTypes => MIX[(number % MIX.len() as u64) as usize],
        Mix::Locations => TaskType::PreCommit2,
    };
    let needs = match mix {
        Mix::OneClass | Mix::AllTypes => Needs::default(),
        Mix::Locations => {
            let held_by = vec![id(&format!("source-{}", number % SOURCES))];
            let files = vec![HeldFile { kind: FileType::Cache, bytes: 450 << 30, held_by }];
            let existing =
                Existing { rule: ExistingRule::Fetch(PathType::Sealing), mode: AcquireMode::Move, files };
            Needs { existing: Some(existing), allocate: None }
        }
    };
    Request {
        sector: SectorRef { id: SectorId::new(1000, number), proof: proof() },
        task,
        priority: (number % 3) as i64,
        needs,
        locks: Locks { read: FileTypes::SEALED, write: FileTypes::CACHE },
        since: Millis::ZERO,
        wait_limit: Some(Millis::new(u64::MAX)),
        deadline: None,
        attempts: 0,
    }
}

fn decisions(criterion: &mut Criterion) {
    for mix in [Mix::OneClass, Mix::AllTypes, Mix::Locations] {
        let mut group = criterion.benchmark_group(format!("end-submit-place/{mix:?}"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for workers in WORKERS {
            for tasks in TASKS {
                let mut cluster = Cluster::new(mix, tasks, workers);
                let name = BenchmarkId::new(format!("W={workers}"), format!("T={tasks}"));
                group.bench_function(name, |bencher| bencher.iter(|| black_box(&mut cluster).turn()));
            }
        }
        group.finish();
    }
}

/// Submitting to, and cancelling from, a deep queue with nobody to run it.
fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("submit-cancel");
    for tasks in TASKS {
        let mut cluster = Cluster::new(Mix::AllTypes, tasks, 0);
        group.bench_function(BenchmarkId::from_parameter(format!("T={tasks}")), |bencher| {
            bencher.iter(|| {
                let task = TaskId::new(cluster.next);
                cluster.submit();
                cluster.send(Event::Cancel { task });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, queue);
criterion_main!(benches);
