//! The rest of Lotus's tests of its scheduler, restated: window compaction, resource use, overrides, enabling again,
//! priorities, and the cases of its benchmark. TestSched itself stands in `lotus`, TestRequestQueue in `order`, the
//! resource tables in `tables` and in the tests of `sealtasks`, TestRestartWorker and TestRestartManager in `life` and in
//! the rooms that keep results.

use std::collections::BTreeMap;

use sched::{Event, Millis, Outcome, ResourceRow, WorkerProfile};
use sealtasks::TaskType::{AddPiece, Commit2, PreCommit1, PreCommit2};
use sealtasks::{RegisteredSealProof, ResourceTable, SectorSize, TaskType};

use crate::world::{GIB, World, decent, key, request};

/// TestWindowCompact. Lotus moves tasks of a worker's later window into its first one where they fit, because only the
/// first one is worked off. Ours has no windows: what fits runs, what does not fit waits in the one queue, where every
/// other worker sees it too. So what runs here is what stands in Lotus's first window afterwards, and what waits is what
/// stands in the others.
#[test]
fn what_fits_together_runs_together() {
    let cases = [
        (vec![PreCommit1, PreCommit1], vec![true, true]),
        (vec![PreCommit1], vec![true]),
        (vec![PreCommit2, PreCommit2], vec![true, false]),
        (vec![PreCommit1, PreCommit1, PreCommit1, AddPiece], vec![true, true, false, true]),
        (
            vec![PreCommit1, PreCommit1, PreCommit1, AddPiece, PreCommit2],
            vec![true, true, false, true, false],
        ),
    ];
    for (submitted, runs) in cases {
        let mut world = World::new();
        world.worker(1, decent(&[AddPiece, PreCommit1, PreCommit2]));
        let tasks: Vec<_> =
            submitted.iter().zip(1..).map(|(task, sector)| world.simple(*task, sector)).collect();
        assert_eq!(world.bound_of(&tasks), runs, "{submitted:?}");
        // "Tallies equal to recomputation."
        let recounted: u128 = submitted
            .iter()
            .zip(&runs)
            .filter(|(_, runs)| **runs)
            .map(|(task, _)| match task {
                AddPiece => 4 * GIB,
                PreCommit1 => 56 * GIB,
                _ => 15 * GIB,
            })
            .map(u128::from)
            .sum();
        let bases: BTreeMap<TaskType, u64> = submitted
            .iter()
            .zip(&runs)
            .filter(|(_, runs)| **runs)
            .map(|(task, _)| (*task, if *task == PreCommit1 { 10 << 20 } else { GIB }))
            .collect();
        let used = &world.sched.snapshot().workers[0];
        assert_eq!(used.mem_used_min, recounted + u128::from(bases.values().sum::<u64>()));
    }
}

fn row(table: &ResourceTable) -> (ResourceRow, RegisteredSealProof) {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
    let resources = table.get(AddPiece, proof).expect("the row is built in");
    (ResourceRow { task: AddPiece, proof, resources }, proof)
}

/// What the scheduler says is in use on a worker that runs one AddPiece of 2 KiB.
fn memory_of_one_add_piece(worker: WorkerProfile, proof: RegisteredSealProof) -> u128 {
    let mut world = World::new();
    world.worker(1, worker);
    let mut add_piece = request(AddPiece, 1);
    add_piece.sector.proof = proof;
    let task = world.submit(add_piece);
    assert_eq!(world.on(task), Some(key(1)));
    let used = world.sched.snapshot().workers[0].mem_used_max;
    world.finish(task);
    assert_eq!(world.sched.snapshot().workers[0].mem_used_max, 0);
    used
}

/// TestResUse. Lotus says 2 KiB, the maximum of the row; ours adds the 2 KiB that the type shares, since they are in use as
/// well and are counted once for all tasks of the type.
#[test]
fn a_running_add_piece_shows_its_memory() {
    let (_, proof) = row(&ResourceTable::builtin());
    let worker = WorkerProfile { resources: Vec::new(), ..decent(&[AddPiece]) };
    assert_eq!(memory_of_one_add_piece(worker, proof), 2048 + 2048);
}

/// TestResOverride: `AP_2K_MAX_MEMORY=99999` in the worker's environment is what the scheduler counts with.
#[test]
fn a_workers_own_table_is_what_counts() {
    let set = |name: &str| (name == "AP_2K_MAX_MEMORY").then(|| "99999".to_owned());
    let table = ResourceTable::from_environment(set).expect("a good number");
    let (own, proof) = row(&table);
    let worker = WorkerProfile { resources: vec![own], ..decent(&[AddPiece]) };
    assert_eq!(memory_of_one_add_piece(worker, proof), 99_999 + 2048);
}

/// TestReenableWorker. Lotus closes and opens the worker's two windows; here a disabled worker just gets nothing, and what
/// would have waited in its windows was never taken from the queue.
#[test]
fn a_worker_that_is_enabled_again_gets_tasks_again() {
    let mut world = World::new();
    let worker = world.worker(1, decent(&[PreCommit2]));
    let tasks: Vec<_> = (1..=3).map(|sector| world.simple(PreCommit2, sector)).collect();
    assert_eq!(world.bound_of(&tasks), [true, false, false]);
    world.send(Event::WorkerEnabled { worker, enabled: false });
    assert_eq!(world.queue(), tasks[1..]);
    world.finish(tasks[0]);
    assert_eq!(world.bound_of(&tasks[1..]), [false, false]);
    world.send(Event::WorkerEnabled { worker, enabled: true });
    assert_eq!(world.bound_of(&tasks[1..]), [true, false]);
}

/// TestWithPriority: 0 unless it is said otherwise.
#[test]
fn a_priority_is_what_was_asked_for() {
    let mut world = World::new();
    world.simple(PreCommit1, 1);
    let mut urgent = request(PreCommit1, 2);
    urgent.priority = 2222;
    world.submit(urgent);
    let priorities: Vec<_> = world.sched.snapshot().queue.iter().map(|queued| queued.priority).collect();
    assert_eq!(priorities, [2222, 0]);
}

/// TestSchedStartStop: a worker without tasks. Lotus's loops have to end; ours has none, and says nothing.
#[test]
fn a_worker_without_tasks_leads_to_nothing() {
    let mut world = World::new();
    let worker = world.worker(1, decent(&[]));
    world.send(Event::Tick);
    world.send(Event::WorkerLost { worker });
    assert_eq!(world.log, []);
    assert_eq!(world.sched.snapshot().workers, []);
}

/// TestRedoPC1: the same work asked for twice is done twice.
#[test]
fn the_same_work_twice_is_two_tasks() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let first = world.simple(PreCommit1, 1);
    world.finish(first);
    let second = world.simple(PreCommit1, 1);
    assert_eq!(world.on(second), Some(key(1)));
}

/// TestRestartWorker, as far as the scheduler goes: what ran on the worker's former life is not charged to its next one,
/// and is tried again there once the driver says that it ended.
#[test]
fn a_restarted_worker_begins_empty() {
    let mut world = World::new();
    let worker = world.worker(1, decent(&[PreCommit2]));
    let task = world.simple(PreCommit2, 1);
    world.send(Event::WorkerLost { worker });
    let next = sched::WorkerKey { generation: 1, ..worker };
    world.send(Event::WorkerUp { worker: next, profile: decent(&[PreCommit2]) });
    assert_eq!(world.on(task), Some(worker), "its attempt is bound until it ends");
    world.end(task, Outcome::Retry { not_before: Millis::ZERO });
    assert_eq!(world.on(task), Some(next));
}

/// The cases of BenchmarkTrySched: windows of one worker there, workers here, each good for one Commit2 at a time. Their
/// cost is measured in the benchmark; this is what comes out.
#[test]
fn every_worker_of_the_benchmark_gets_one_task() {
    for (workers, tasks, started) in [(1, 1, 1), (500, 1, 1), (1, 500, 1), (200, 400, 200)] {
        let mut world = World::new();
        for number in 1..=workers {
            world.worker(number, decent(&[Commit2]));
        }
        for sector in 1..=tasks {
            world.simple(Commit2, sector);
        }
        let mut busy: Vec<_> = world.bound.values().map(|(_, worker)| *worker).collect();
        busy.sort_unstable();
        busy.dedup();
        assert_eq!((world.bound.len(), busy.len()), (started, started), "{workers} workers, {tasks} tasks");
    }
}
