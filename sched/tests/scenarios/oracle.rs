//! Random histories, and a slow oracle that recounts everything after every event.
//!
//! Safety: nothing is over capacity, no two locks collide, every task is in exactly one place, no attempt is bound twice,
//! nothing waits that could start. Then everything heals, and everything drains.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sched::{
    Action, Event, ExistingRule, GroupCap, KindDuration, Locks, Millis, Obstacle, Outcome, Policy, Request,
    Snapshot, WorkerKey, WorkerMode, WorkerProfile,
};
use sealtasks::FileType::{Cache, Sealed};
use sealtasks::PathType::Sealing;
use sealtasks::TaskType::{self, AddPiece, Commit1, Commit2, Finalize, PreCommit1, PreCommit2, Unseal};
use sealtasks::{AttemptId, FileTypes, TaskId};

use crate::promises::Promises;
use crate::recount::{check_caps, check_charges, check_locks, check_machines, check_modes, check_paths};
use crate::world::{
    GIB, World, allocate, decent, existing, key, path_facts, proof, request, sector, storage,
};

const KINDS: [TaskType; 7] = [AddPiece, PreCommit1, PreCommit2, Commit1, Commit2, Finalize, Unseal];
const PATHS: [&str; 4] = ["p0", "p1", "p2", "p3"];
pub const ROOM: u64 = 1500 * GIB;
/// The workers with these numbers share a machine.
const MACHINE: std::ops::RangeInclusive<u128> = 1..=3;
/// Starts of AddPiece are this far apart, on a worker and on its machine.
const APART: u64 = 20;

/// One step of a history; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Submit { kind: usize, sector: u64, path: usize, priority: i64, wait: u64 },
    Accept(usize),
    Staged(usize),
    End(usize, u8),
    StartFails(usize),
    Cancel(usize),
    Priority(usize, i64),
    Deadline(usize, u64),
    Up { number: u128, kinds: u8, paths: u8, small: bool },
    Change { number: u128, kinds: u8, paths: u8 },
    Lose(u128),
    Enable(u128, bool),
    Mode(u128, usize),
    Suspect(u128, bool),
    MachineCap(u32),
    Policy(usize),
    Report(usize, u8),
    Gone(usize),
    Moved { sector: u64, path: usize },
    Adopt { sector: u64, number: u128 },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let task = 0..64usize;
    let worker = 1..6u128;
    let path = 0..PATHS.len();
    prop_oneof![
        8 => (0..KINDS.len(), 1..9u64, path.clone(), -1..2i64, 0..400u64)
            .prop_map(|(kind, sector, path, priority, wait)| Step::Submit { kind, sector, path, priority, wait }),
        3 => task.clone().prop_map(Step::Accept),
        4 => task.clone().prop_map(Step::Staged),
        7 => (task.clone(), 0..4u8).prop_map(|(task, how)| Step::End(task, how)),
        1 => task.clone().prop_map(Step::StartFails),
        1 => task.clone().prop_map(Step::Cancel),
        1 => (task.clone(), -3..3i64).prop_map(|(task, priority)| Step::Priority(task, priority)),
        1 => (task, 0..80_000_000u64).prop_map(|(task, deadline)| Step::Deadline(task, deadline)),
        3 => (worker.clone(), any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(number, kinds, paths, small)| Step::Up { number, kinds, paths, small }),
        1 => (worker.clone(), any::<u8>(), any::<u8>())
            .prop_map(|(number, kinds, paths)| Step::Change { number, kinds, paths }),
        1 => worker.clone().prop_map(Step::Lose),
        1 => (worker.clone(), any::<bool>()).prop_map(|(number, enabled)| Step::Enable(number, enabled)),
        1 => (worker.clone(), 0..4usize).prop_map(|(number, mode)| Step::Mode(number, mode)),
        1 => (worker.clone(), any::<bool>()).prop_map(|(number, suspect)| Step::Suspect(number, suspect)),
        1 => (0..4u32).prop_map(Step::MachineCap),
        1 => (0..5usize).prop_map(Step::Policy),
        2 => (path.clone(), any::<u8>()).prop_map(|(path, covered)| Step::Report(path, covered)),
        1 => path.clone().prop_map(Step::Gone),
        1 => (1..9u64, path).prop_map(|(sector, path)| Step::Moved { sector, path }),
        1 => (1..9u64, worker).prop_map(|(sector, number)| Step::Adopt { sector, number }),
        2 => (1..300u64).prop_map(Step::Wait),
    ]
}

/// The history so far, as an outsider knows it.
struct History {
    world: World,
    /// Submitted and not left.
    here: BTreeSet<TaskId>,
    bound: BTreeMap<TaskId, AttemptId>,
    called_off: BTreeSet<AttemptId>,
    highest: BTreeMap<TaskId, u32>,
    live: BTreeMap<u128, WorkerKey>,
    lives: u32,
    next_task: u64,
    /// Adopted attempts are there whether they fit or not; while there are any, capacity and locks prove nothing.
    adopted: BTreeSet<TaskId>,
    promises: Promises,
    /// What ran under each cap before the event.
    under_caps: BTreeMap<(String, String), u64>,
    /// The last start of AddPiece on each worker, and on the machine under number 0.
    starts: BTreeMap<WorkerKey, Millis>,
}

fn profile(number: u128, kinds: u8, paths: u8, small: bool) -> WorkerProfile {
    let chosen = |bits: u8, index: usize| bits >> index & 1 == 1;
    let tasks: Vec<_> =
        KINDS.iter().enumerate().filter(|(at, _)| chosen(kinds, *at)).map(|(_, kind)| *kind).collect();
    let paths = PATHS
        .iter()
        .enumerate()
        .filter(|(at, _)| chosen(paths, *at))
        .map(|(_, path)| storage(path))
        .collect();
    let mem_physical = if small { 100 * GIB } else { 300 * GIB };
    WorkerProfile {
        paths,
        gpus: vec!["gpu".to_owned()],
        caps: [(AddPiece, 3)].into(),
        durations: durations(),
        group_caps: vec![GroupCap { name: "own".to_owned(), tasks: [AddPiece, PreCommit1].into(), most: 3 }],
        pending: chosen(kinds, 7).then(|| (Commit2, "fetching parameters".to_owned())).into_iter().collect(),
        stagger: [(AddPiece, Millis::new(APART))].into(),
        bandwidth: [0, 100 << 20, 1 << 30, 0][usize::from(kinds & 3)],
        machine: MACHINE.contains(&number).then(|| "box".to_owned()),
        is_local: number == 5,
        mem_physical,
        ..decent(&tasks)
    }
}

/// Short, so that the time of a reservation comes within a history.
fn durations() -> Vec<KindDuration> {
    let took = |(at, kind): (usize, &TaskType)| KindDuration {
        task: *kind,
        proof: proof(),
        millis: Millis::new(if at == 1 { 1500 } else { 60 * (at as u64 + 1) }),
    };
    KINDS.iter().enumerate().map(took).collect()
}

fn request_for(kind: TaskType, number: u64, path: usize) -> Request {
    let mut wanted = request(kind, number);
    let held = &PATHS[path..=path];
    (wanted.needs, wanted.locks) = match kind {
        AddPiece => (allocate(Sealed, 32 * GIB), Locks { read: FileTypes::NONE, write: FileTypes::UNSEALED }),
        PreCommit1 => (
            allocate(Cache, 450 * GIB),
            Locks { read: FileTypes::UNSEALED, write: FileTypes::SEALED.union(FileTypes::CACHE) },
        ),
        PreCommit2 => (
            existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, held)]),
            Locks { read: FileTypes::SEALED, write: FileTypes::CACHE },
        ),
        Commit1 => (
            existing(ExistingRule::PartlyHere(Sealing), &[(Cache, GIB, held), (Sealed, 32 * GIB, held)]),
            Locks { read: FileTypes::SEALED, write: FileTypes::NONE },
        ),
        Finalize => (existing(ExistingRule::Here, &[(Cache, GIB, held)]), Locks::default()),
        Commit2 | Unseal => (sched::Needs::default(), Locks::default()),
        other => unreachable!("{other} is not among the kinds of these histories"),
    };
    wanted
}

impl History {
    fn new() -> Self {
        let mut history = Self {
            world: World::new(),
            here: BTreeSet::new(),
            bound: BTreeMap::new(),
            called_off: BTreeSet::new(),
            highest: BTreeMap::new(),
            live: BTreeMap::new(),
            lives: 0,
            next_task: 1,
            adopted: BTreeSet::new(),
            promises: Promises::default(),
            under_caps: BTreeMap::new(),
            starts: BTreeMap::new(),
        };
        PATHS.iter().for_each(|path| history.send(Event::PathSeen { path: path_facts(path, ROOM) }));
        history
    }

    /// No two starts of AddPiece on one worker or machine are too near each other.
    fn note_start(&mut self, kind: TaskType, worker: WorkerKey) {
        let now = self.world.now;
        let shared = MACHINE.into_iter().any(|number| worker.session == key(number).session);
        for place in [Some(worker), shared.then(|| key(0))].into_iter().flatten().filter(|_| kind == AddPiece)
        {
            let before = self.starts.insert(place, now);
            let is_apart = |before: Millis| before.get() + APART <= now.get();
            assert!(before.is_none_or(is_apart), "{place} at {now}, after {before:?}");
        }
    }

    fn send(&mut self, event: Event) {
        let has_turned = Promises::turned_by(&event);
        self.world.sched.handle(self.world.now, event);
        while let Some(action) = self.world.sched.poll_action() {
            if let Action::Start(to) = &action {
                self.note_start(to.task, to.worker);
            }
            match action {
                Action::Start(to) | Action::Stage(to) => {
                    let task = to.attempt.task;
                    assert_eq!(self.bound.insert(task, to.attempt), None, "two live attempts");
                    let before = self.highest.insert(task, to.attempt.attempt).unwrap_or(0);
                    assert!(to.attempt.attempt > before, "attempt numbers only grow");
                    assert!(self.live.values().any(|worker| *worker == to.worker), "bound to a live worker");
                }
                Action::Run { attempt, .. } => assert_eq!(self.bound.get(&attempt.task), Some(&attempt)),
                Action::Unstage { attempt, .. } => {
                    assert!(self.called_off.insert(attempt), "called off once");
                }
                Action::Left { task, .. } => assert!(self.here.remove(&task), "leaves once"),
                Action::Abort { .. } | Action::Refused { .. } | Action::WakeAt { .. } => {}
            }
        }
        let snapshot = self.world.sched.snapshot();
        self.promises.check(&snapshot, has_turned);
        self.check(&snapshot);
    }

    fn end(&mut self, attempt: AttemptId, outcome: Outcome) {
        self.bound.remove(&attempt.task);
        self.adopted.remove(&attempt.task);
        self.send(Event::Ended { attempt, outcome });
    }

    fn some_bound(&self, index: usize) -> Option<AttemptId> {
        self.bound.values().nth(index % self.bound.len().max(1)).copied()
    }

    fn some_task(&self, index: usize) -> Option<TaskId> {
        self.here.iter().nth(index % self.here.len().max(1)).copied()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Submit { kind, sector, path, priority, wait } => {
                let task = TaskId::new(self.next_task);
                self.next_task += 1;
                let mut request = request_for(KINDS[kind], sector, path);
                (request.priority, request.since, request.wait_limit) =
                    (priority, self.world.now, Some(Millis::new(wait)));
                self.here.insert(task);
                self.send(Event::Submit { task, request });
            }
            Step::Accept(index) => self.each_bound(index, |attempt| Event::Started { attempt }),
            Step::Staged(index) => self.each_bound(index, |attempt| Event::StageDone { attempt }),
            Step::End(index, how) => {
                let Some(attempt) = self.some_bound(index) else { return };
                let later = Millis::new(self.world.now.get() + 50);
                let outcome = [
                    Outcome::Finished,
                    Outcome::Failed,
                    Outcome::Retry { not_before: later },
                    Outcome::Unstaged,
                ];
                self.end(attempt, outcome[usize::from(how)]);
            }
            Step::StartFails(index) => {
                let Some(attempt) = self.some_bound(index) else { return };
                self.bound.remove(&attempt.task);
                self.adopted.remove(&attempt.task);
                let reason = "no answer".to_owned();
                self.send(Event::StartFailed { attempt, reason, not_before: self.world.now });
            }
            Step::Cancel(index) => {
                let Some(task) = self.some_task(index) else { return };
                self.send(Event::Cancel { task });
            }
            Step::Priority(index, priority) => {
                let Some(task) = self.some_task(index) else { return };
                self.send(Event::SetPriority { task, priority });
            }
            Step::Deadline(index, deadline) => {
                let Some(task) = self.some_task(index) else { return };
                self.send(Event::SetDeadline { task, deadline: Some(Millis::new(deadline)) });
            }
            Step::Wait(span) => {
                self.world.now = self.world.now.after(Millis::new(span));
                self.send(Event::Tick);
            }
            Step::Report(path, covered) => {
                let mut facts = path_facts(PATHS[path], ROOM);
                let bound = self.bound.values().enumerate();
                facts.covers = bound
                    .filter(|(at, _)| covered >> (at % 8) & 1 == 1)
                    .map(|(_, attempt)| *attempt)
                    .collect();
                self.send(Event::PathSeen { path: facts });
            }
            Step::Gone(path) => self.send(Event::PathGone { path: storage(PATHS[path]) }),
            Step::Moved { sector: number, path } => {
                let paths = vec![storage(PATHS[path])];
                self.send(Event::SectorFiles { sector: sector(number).id, kind: Cache, paths });
            }
            other => self.take_worker(other),
        }
    }

    fn take_worker(&mut self, step: Step) {
        match step {
            Step::Up { number, kinds, paths, small } if !self.live.contains_key(&number) => {
                self.lives += 1;
                let worker = WorkerKey { generation: self.lives, ..key(number) };
                self.live.insert(number, worker);
                let profile = profile(number, kinds, paths, small);
                self.send(Event::WorkerUp { worker, profile });
            }
            Step::Change { number, kinds, paths } => {
                let Some(worker) = self.live.get(&number).copied() else { return };
                let profile = profile(number, kinds, paths, false);
                self.send(Event::WorkerChanged { worker, profile });
            }
            Step::Lose(number) => {
                let Some(worker) = self.live.remove(&number) else { return };
                self.send(Event::WorkerLost { worker });
            }
            Step::Enable(number, enabled) => {
                let Some(worker) = self.live.get(&number).copied() else { return };
                self.send(Event::WorkerEnabled { worker, enabled });
            }
            Step::Mode(number, mode) => {
                let Some(worker) = self.live.get(&number).copied() else { return };
                let modes =
                    [WorkerMode::Open, WorkerMode::Cordoned, WorkerMode::Draining, WorkerMode::Disabled];
                self.send(Event::WorkerMode { worker, mode: modes[mode] });
            }
            Step::Suspect(number, suspect) => {
                let Some(worker) = self.live.get(&number).copied() else { return };
                self.send(Event::WorkerSuspect { worker, suspect });
            }
            Step::MachineCap(most) => {
                let caps =
                    vec![GroupCap { name: "shared".to_owned(), tasks: [Unseal, Commit2].into(), most }];
                self.send(Event::MachineCaps { machine: "box".to_owned(), caps });
            }
            Step::Policy(policy) => {
                let policies = [
                    Policy::Utilization,
                    Policy::Spread,
                    Policy::SpreadTasks,
                    Policy::SpreadQcount,
                    Policy::Random,
                ];
                self.send(Event::PolicySet { policy: policies[policy] });
            }
            Step::Adopt { sector, number } => {
                let Some(worker) = self.live.get(&number).copied() else { return };
                let attempt = AttemptId { task: TaskId::new(self.next_task), attempt: 4 };
                self.next_task += 1;
                self.here.insert(attempt.task);
                self.bound.insert(attempt.task, attempt);
                self.highest.insert(attempt.task, 4);
                self.adopted.insert(attempt.task);
                let request = request_for(PreCommit1, sector, 0);
                self.send(Event::Adopt { attempt, worker, request, holds: vec![] });
            }
            _ => {}
        }
    }

    fn each_bound(&mut self, index: usize, event: impl Fn(AttemptId) -> Event) {
        if let Some(attempt) = self.some_bound(index) {
            self.send(event(attempt));
        }
    }

    fn check(&mut self, snapshot: &Snapshot) {
        // A machine that nobody is on any more is forgotten, with its last starts.
        if snapshot.machines.iter().all(|machine| machine.workers.is_empty()) {
            self.starts.remove(&key(0));
        }
        self.check_places(snapshot);
        check_charges(snapshot, self.adopted.is_empty());
        check_machines(snapshot, self.adopted.is_empty());
        self.under_caps = check_caps(snapshot, &self.under_caps, self.adopted.is_empty());
        check_modes(&self.world.sched, snapshot);
        check_locks(snapshot, self.adopted.is_empty());
        check_paths(snapshot);
        for queued in &snapshot.queue {
            let why = self.world.sched.why(queued.task).expect("a queued task is here");
            for worker in why.workers {
                assert!(
                    !worker.obstacles.is_empty(),
                    "task {} could start on {}",
                    queued.task,
                    worker.worker
                );
            }
        }
    }

    fn check_places(&self, snapshot: &Snapshot) {
        let waiting = snapshot.queue.iter().chain(&snapshot.waiting).map(|queued| queued.task);
        let bound = snapshot.bound.iter().map(|bound| bound.attempt.task);
        let mut places: Vec<_> = waiting.chain(bound).collect();
        places.sort_unstable();
        let here: Vec<_> = self.here.iter().copied().collect();
        assert_eq!(places, here, "every task is in exactly one place");
        let bound: Vec<_> = snapshot.bound.iter().map(|bound| bound.attempt).collect();
        assert_eq!(bound, self.bound.values().copied().collect::<Vec<_>>());
        let reserved: Vec<_> = snapshot.workers.iter().filter_map(|worker| worker.reserved_for).collect();
        assert!(reserved.iter().all(|task| self.here.contains(task)), "nothing is kept for a task that left");
        assert_eq!(reserved.len(), reserved.iter().collect::<BTreeSet<_>>().len(), "one reservation a task");
    }

    /// Everything that was broken is mended; then whatever is bound ends until nothing is left.
    fn drain(mut self) {
        let number = 77;
        self.lives += 1;
        let worker = WorkerKey { generation: self.lives, ..key(number) };
        self.live.insert(number, worker);
        let all =
            WorkerProfile { mem_physical: 4096 * GIB, cpus: 512, ..profile(number, 127, u8::MAX, false) };
        self.send(Event::WorkerUp { worker, profile: all });
        for round in 0..10_000 {
            if self.here.is_empty() {
                break;
            }
            assert!(round < 9_999, "{} tasks never ran", self.here.len());
            self.world.now = self.world.now.after(Millis::new(1000));
            for path in PATHS {
                self.send(Event::PathSeen { path: path_facts(path, ROOM) });
            }
            match self.some_bound(round) {
                None => self.send(Event::Tick),
                Some(attempt) if self.called_off.contains(&attempt) => self.end(attempt, Outcome::Unstaged),
                Some(attempt) => {
                    self.send(Event::StageDone { attempt });
                    self.end(attempt, Outcome::Finished);
                }
            }
        }
        let snapshot = self.world.sched.snapshot();
        for worker in &snapshot.workers {
            assert_eq!((worker.mem_used_min, worker.mem_used_max, worker.cpu_use), (0, 0, 0), "{worker:?}");
            assert_eq!((worker.reserved_for, worker.gpu_used.iter().sum::<u64>()), (None, 0), "{worker:?}");
        }
        assert!(snapshot.paths.iter().all(|path| (path.promised, path.kept) == (0, 0)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_keep_the_books_straight_and_drain(steps in prop::collection::vec(step(), 1..160)) {
        let mut history = History::new();
        steps.into_iter().for_each(|step| history.take(step));
        history.drain();
    }

    /// The same events give the same actions.
    #[test]
    fn random_histories_are_deterministic(steps in prop::collection::vec(step(), 1..80)) {
        let play = |steps: &[Step]| {
            let mut history = History::new();
            steps.iter().cloned().for_each(|step| history.take(step));
            history.world.sched.snapshot()
        };
        prop_assert_eq!(play(&steps), play(&steps));
    }
}

/// The limits of resources hold without adoption and with profiles that never shrink: a stricter history.
#[test]
fn memory_is_never_over_capacity() {
    let mut history = History::new();
    history.take(Step::Up { number: 1, kinds: u8::MAX, paths: u8::MAX, small: true });
    for number in 0..60u64 {
        let kind = (number % KINDS.len() as u64) as usize;
        history.take(Step::Submit { kind, sector: number, path: 0, priority: 0, wait: 10 });
        if number % 3 == 0 {
            history.take(Step::End(number as usize, 0));
        }
        for worker in history.world.sched.snapshot().workers {
            assert!(worker.mem_used_min <= u128::from(100 * GIB), "{worker:?}");
            assert!(worker.mem_used_max <= u128::from(300 * GIB), "{worker:?}");
        }
    }
    let memory =
        |found: &sched::Finding| matches!(found.obstacle, Obstacle::Short(sched::Shortage::Memory { .. }));
    let snapshot = history.world.sched.snapshot();
    let mut whys = snapshot.queue.iter().filter_map(|queued| history.world.sched.why(queued.task));
    assert!(whys.any(|why| why.workers[0].obstacles.iter().any(memory)), "the limit was reached");
    history.drain();
}
