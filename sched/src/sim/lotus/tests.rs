//! Lotus's own scheduler tests, run against the model, so that it is known to be one. As there, what is watched is when
//! preparing starts; every task therefore has a file to fetch.

use std::collections::BTreeMap;

use sealtasks::TaskType::{AddPiece, Commit2, PreCommit1, PreCommit2};
use sealtasks::{
    AcquireMode, AttemptId, FileType, FileTypes, PathType, RegisteredSealProof, Resources, SectorId,
    SectorRef, SectorSize, StorageId, StorageStanza, TaskId, TaskType, WorkerId,
};

use super::tally::{Machine, Tally};
use super::worker::{WINDOWS, Window, Worker};
use super::{Lotus, LotusOptions};
use crate::{
    Action, Event, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, Outcome, PathFacts, Request,
    ResourceRow, WorkerKey, WorkerProfile,
};

const GIB: u64 = 1 << 30;

struct Bench {
    lotus: Lotus,
    attempts: BTreeMap<TaskId, (AttemptId, WorkerKey)>,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let options = LotusOptions { init_wait: Millis::ZERO, ..LotusOptions::default() };
        let mut bench = Self { lotus: Lotus::new(options), attempts: BTreeMap::new(), next: 1 };
        for name in ["elsewhere", "bb-8"] {
            let stanza = StorageStanza { can_seal: true, weight: 10, ..StorageStanza::default() };
            let path = PathFacts::new(id(name), &stanza, 1 << 40);
            bench.send(Event::PathSeen { path });
        }
        bench
    }

    fn send(&mut self, event: Event) {
        self.lotus.handle(Millis::new(1), event);
        while let Some(action) = self.lotus.poll_action() {
            match action {
                Action::Stage(to) | Action::Start(to) => {
                    self.attempts.insert(to.attempt.task, (to.attempt, to.worker));
                }
                Action::Refused { refusal } => panic!("{refusal}"),
                Action::Left { .. } | Action::Run { .. } | Action::WakeAt { .. } => {}
                Action::Unstage { .. } | Action::Abort { .. } => {}
            }
        }
    }

    fn worker(&mut self, number: u128, profile: WorkerProfile) {
        self.send(Event::WorkerUp { worker: key(number), profile });
    }

    fn sched(&mut self, task: TaskType, sector: u64) -> TaskId {
        let id = TaskId::new(self.next);
        self.next += 1;
        self.send(Event::Submit { task: id, request: request(task, sector) });
        id
    }

    fn started(&self, tasks: &[TaskId]) -> Vec<bool> {
        tasks.iter().map(|task| self.attempts.contains_key(task)).collect()
    }

    fn done(&mut self, task: TaskId) {
        let (attempt, _) = self.attempts.remove(&task).expect("it has started");
        self.send(Event::StageDone { attempt });
        self.send(Event::Ended { attempt, outcome: Outcome::Finished });
    }
}

fn id(name: &str) -> StorageId {
    name.parse().expect("a good id")
}

fn key(number: u128) -> WorkerKey {
    WorkerKey { session: WorkerId(uuid::Uuid::from_u128(number)), generation: 0 }
}

fn proof() -> RegisteredSealProof {
    RegisteredSealProof::for_new_sector(SectorSize::GiB32)
}

fn request(task: TaskType, sector: u64) -> Request {
    let file = HeldFile { kind: FileType::Unsealed, bytes: 1, held_by: vec![id("elsewhere")] };
    let rule = ExistingRule::Fetch(PathType::Sealing);
    Request {
        sector: SectorRef { id: SectorId::new(1000, sector), proof: proof() },
        task,
        purpose: None,
        avoid: None,
        priority: 0,
        needs: Needs {
            existing: Some(Existing { rule, mode: AcquireMode::Move, files: vec![file] }),
            allocate: None,
        },
        locks: Locks { read: FileTypes::NONE, write: FileTypes::NONE },
        since: Millis::ZERO,
        wait_limit: None,
        deadline: None,
        attempts: 0,
    }
}

/// The "decent" worker of Lotus's tests, where a task that takes all threads takes all 32.
fn decent(tasks: &[TaskType]) -> WorkerProfile {
    let all_threads = |min, max, base| Resources {
        min_memory: min * GIB,
        max_memory: max * GIB,
        base_min_memory: base * GIB,
        max_parallelism: 32,
        gpu_utilization: 1.0,
        ..Resources::default()
    };
    let rows = [(PreCommit2, all_threads(15, 15, 1)), (Commit2, all_threads(30, 150, 32))];
    WorkerProfile {
        tasks: tasks.to_vec(),
        resources: rows
            .into_iter()
            .map(|(task, resources)| ResourceRow { task, proof: proof(), resources })
            .collect(),
        mem_physical: 128 * GIB,
        mem_swap: 200 * GIB,
        mem_used: GIB,
        swap_used: GIB,
        cpus: 32,
        paths: vec![id("bb-8")],
        ..WorkerProfile::default()
    }
}

#[test]
fn constrained_resources() {
    let mut bench = Bench::new();
    let constrained = WorkerProfile { mem_physical: GIB, mem_swap: 0, cpus: 1, ..decent(&[PreCommit1]) };
    bench.worker(1, constrained.clone());
    bench.worker(2, WorkerProfile { ignore_resources: true, ..constrained });
    let task = bench.sched(PreCommit1, 8);
    assert_eq!(bench.attempts[&task].1, key(2));
}

#[test]
fn pc1_two_workers() {
    for (first, second, expected) in [(PreCommit2, PreCommit1, 2), (PreCommit1, PreCommit2, 1)] {
        let mut bench = Bench::new();
        bench.worker(1, decent(&[first]));
        bench.worker(2, decent(&[second]));
        let task = bench.sched(PreCommit1, 8);
        assert_eq!(bench.attempts[&task].1, key(expected));
    }
}

#[test]
fn pc1_and_pc2_block_each_other() {
    for order in [[PreCommit1, PreCommit2], [PreCommit2, PreCommit1]] {
        let mut bench = Bench::new();
        bench.worker(1, decent(&order));
        let tasks = order.map(|task| bench.sched(task, 8));
        assert_eq!(bench.started(&tasks), [true, false]);
        bench.done(tasks[0]);
        assert_eq!(bench.started(&tasks), [false, true]);
    }
}

/// In Lotus's test both first ones end before it looks; when the first ends the third starts.
#[test]
fn pc1_batching() {
    let mut bench = Bench::new();
    bench.worker(1, decent(&[PreCommit1]));
    let tasks: Vec<_> = (1..=4).map(|sector| bench.sched(PreCommit1, sector)).collect();
    assert_eq!(bench.started(&tasks), [true, true, false, false]);
    bench.done(tasks[0]);
    bench.done(tasks[1]);
    assert_eq!(bench.started(&tasks[2..]), [true, true]);
}

/// What is in a worker's windows goes in the order in which it came, and before all that is queued; only the queue is
/// ordered.
#[test]
fn pc1_pc2_prio() {
    let mut bench = Bench::new();
    bench.worker(1, decent(&[PreCommit1, PreCommit2]));
    let mut pc1 = |sector| bench.sched(PreCommit1, sector);
    let (w0, w1, w2) = ([pc1(0), pc1(1)], [pc1(2), pc1(3)], pc1(4));
    let waiting = [pc1(8), pc1(9)];
    let t3 = bench.sched(PreCommit2, 10);
    assert_eq!(bench.started(&w0), [true, true]);
    assert_eq!(bench.started(&[w1[0], w1[1], w2, waiting[0], waiting[1], t3]), [false; 6]);
    assert_eq!(bench.lotus.queued(), 3);
    for task in w0 {
        bench.done(task);
    }
    assert_eq!(bench.started(&[w1[0], w1[1], w2]), [true, true, false]);
    for task in w1 {
        bench.done(task);
    }
    assert_eq!(bench.started(&[w2, waiting[0], waiting[1], t3]), [true, false, false, false]);
    bench.done(w2);
    assert_eq!(bench.started(&[waiting[0], waiting[1], t3]), [false, false, true]);
    bench.done(t3);
    assert_eq!(bench.started(&waiting), [true, true]);
}

/// TestRequestQueue.
#[test]
fn request_queue() {
    let mut bench = Bench::new();
    for task in [AddPiece, PreCommit1, PreCommit2, PreCommit1, AddPiece] {
        bench.sched(task, 1);
    }
    for (place, expected) in [(0, PreCommit2), (0, PreCommit1), (1, AddPiece), (0, PreCommit1)] {
        let task = bench.lotus.remove_at(place);
        assert_eq!(bench.lotus.tasks.get(task).task, expected);
    }
}

/// TestWindowCompact: the tasks of the windows before and after.
#[test]
fn window_compact() {
    let one = || vec![PreCommit1];
    let cases = [
        (vec![one(), one()], vec![vec![PreCommit1, PreCommit1]]),
        (vec![one()], vec![one()]),
        (vec![vec![PreCommit2], vec![PreCommit2]], vec![vec![PreCommit2], vec![PreCommit2]]),
        (
            vec![vec![PreCommit1, PreCommit1], vec![PreCommit1, AddPiece]],
            vec![vec![PreCommit1, PreCommit1, AddPiece], one()],
        ),
        (
            vec![vec![PreCommit1, PreCommit1], vec![PreCommit1, AddPiece, PreCommit2]],
            vec![vec![PreCommit1, PreCommit1, AddPiece], vec![PreCommit1, PreCommit2]],
        ),
    ];
    for (before, after) in cases {
        let kinds = [AddPiece, PreCommit1, PreCommit2];
        let profile = decent(&kinds);
        let machine = Machine::of(&profile);
        let mut worker = Worker::new(key(1), &profile);
        let sized = kinds.map(|task| sealtasks::SealTaskType { task, proof: proof() });
        worker.refresh(&profile, Vec::new(), &sized, &LotusOptions::default().resources);
        let kind_of = |task| kinds.iter().position(|kind| *kind == task).expect("one of the three");
        for tasks in &before {
            let mut window = Window::default();
            for task in tasks {
                window.add((0, kind_of(*task)), &worker.spec(kind_of(*task)), &machine);
            }
            worker.windows.push_back(window);
        }
        worker.requested = before.len();
        worker.compact();
        let named = |window: &Window| window.todo.iter().map(|(_, kind)| kinds[*kind]).collect::<Vec<_>>();
        assert_eq!(worker.windows.iter().map(named).collect::<Vec<_>>(), after);
        assert_eq!(worker.requested, after.len(), "dropped windows may be asked for again");
        for window in &worker.windows {
            let mut tally = Tally::default();
            for (_, kind) in &window.todo {
                tally.add(&worker.spec(*kind), &machine);
            }
            assert_eq!(window.allocated, tally);
        }
    }
}

/// TestReenableWorker, as far as the scheduler goes, and what a disabled worker's windows held goes back to the queue.
#[test]
fn reenable_worker() {
    let mut bench = Bench::new();
    bench.worker(1, decent(&[PreCommit2]));
    assert_eq!(bench.lotus.open.len(), WINDOWS);
    let tasks: Vec<_> = (1..=3).map(|sector| bench.sched(PreCommit2, sector)).collect();
    assert_eq!((bench.lotus.open.len(), bench.lotus.queued()), (0, 0), "one prepares, two fill the windows");
    bench.send(Event::WorkerEnabled { worker: key(1), enabled: false });
    assert_eq!((bench.lotus.open.len(), bench.lotus.queued()), (0, 2));
    bench.done(tasks[0]);
    assert_eq!(bench.started(&tasks[1..]), [false, false]);
    bench.send(Event::WorkerEnabled { worker: key(1), enabled: true });
    assert_eq!(bench.started(&tasks[1..]), [true, false]);
}

/// Equal tasks go to equal workers in turn, also within one cycle. `utilization` is not among them: it stops at the
/// first window that is not better, and so may give a worker two tasks while another has none.
#[test]
fn assigners_that_count_spread() {
    use crate::Policy::{Spread, SpreadQcount, SpreadTasks};
    for policy in [Spread, SpreadTasks, SpreadQcount] {
        let mut bench = Bench::new();
        bench.send(Event::PolicySet { policy });
        let tasks: Vec<_> = (1..=9).map(|sector| bench.sched(PreCommit1, sector)).collect();
        for number in 1..=9 {
            bench.lotus.poked = false;
            bench.lotus.worker_up(key(number), &decent(&[PreCommit1])).expect("a new worker");
        }
        bench.send(Event::Tick);
        let mut workers: Vec<_> = tasks.iter().map(|task| bench.attempts[task].1).collect();
        workers.sort_unstable();
        workers.dedup();
        assert_eq!(workers.len(), 9, "{policy:?}");
    }
}
