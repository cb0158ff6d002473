//! Lotus's TestSched, restated. Its tests watch when preparing starts; ours when a task gets its slot. Where Lotus puts
//! tasks into a worker's windows, ours leaves them in the one queue until a slot is free: no task is bound to a worker
//! that is not ready for it, so window compaction has nothing to do here.

use sealtasks::TaskType::{AddPiece, PreCommit1, PreCommit2};

use crate::world::{World, constrained, decent, key};

#[test]
fn one_pc1_runs() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let task = world.simple(PreCommit1, 8);
    assert_eq!(world.on(task), Some(key(1)));
}

#[test]
fn a_task_goes_to_the_worker_that_offers_it() {
    for (first, second, expected) in [(PreCommit2, PreCommit1, 2), (PreCommit1, PreCommit2, 1)] {
        let mut world = World::new();
        world.worker(1, decent(&[first]));
        world.worker(2, decent(&[second]));
        let task = world.simple(PreCommit1, 8);
        assert_eq!(world.on(task), Some(key(expected)));
    }
}

#[test]
fn pc1_blocks_pc2() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1, PreCommit2]));
    let pc1 = world.simple(PreCommit1, 8);
    let pc2 = world.simple(PreCommit2, 8);
    assert_eq!(world.bound_of(&[pc1, pc2]), [true, false]);
    assert!(world.why(pc2).contains("needs 32 CPU threads, 31 free of 32"), "{}", world.why(pc2));
    world.finish(pc1);
    assert!(world.on(pc2).is_some());
}

#[test]
fn pc2_blocks_pc1() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1, PreCommit2]));
    let pc2 = world.simple(PreCommit2, 8);
    let pc1 = world.simple(PreCommit1, 8);
    assert_eq!(world.bound_of(&[pc2, pc1]), [true, false]);
    world.finish(pc2);
    assert!(world.on(pc1).is_some());
}

/// In Lotus the third and fourth wait until both first ones are done, since they sit in a second window. Here each takes
/// the place of the first that ends: there is no reason to wait longer.
#[test]
fn pc1_runs_two_at_a_time() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let tasks: Vec<_> = (1..=4).map(|number| world.simple(PreCommit1, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, true, false, false]);
    // 128 GiB less twice 56 GiB, less the 10 MiB that the type shares.
    let why = world.why(tasks[2]);
    assert!(why.contains("needs 56 GiB of memory, 15.9 GiB free of 128 GiB"), "{why}");
    world.finish(tasks[0]);
    assert_eq!(world.bound_of(&tasks[1..]), [true, true, false]);
    world.finish(tasks[1]);
    assert_eq!(world.bound_of(&tasks[2..]), [true, true]);
}

/// In Lotus what was put into a window goes before the queue's order; only what is still queued is ordered. Here the
/// queue's order holds to the last moment: as soon as PC2 can run at all it goes before every PC1.
#[test]
fn pc2_goes_before_pc1_as_soon_as_it_fits() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1, PreCommit2]));
    let running: Vec<_> = (1..=2).map(|number| world.simple(PreCommit1, number)).collect();
    let later: Vec<_> = (3..=4).map(|number| world.simple(PreCommit1, number)).collect();
    let pc2 = world.simple(PreCommit2, 9);
    world.finish(running[0]);
    assert_eq!(
        world.bound_of(&[later[0], later[1], pc2]),
        [true, false, false],
        "a slot that PC2 cannot use is used"
    );
    world.finish(running[1]);
    world.finish(later[0]);
    assert_eq!(world.bound_of(&[later[1], pc2]), [true, false]);
    world.finish(later[1]);
    assert!(world.on(pc2).is_some());
}

#[test]
fn the_queues_order_decides_when_several_could_start() {
    let mut world = World::new();
    let pc1: Vec<_> = (1..=2).map(|number| world.simple(PreCommit1, number)).collect();
    let pc2 = world.simple(PreCommit2, 9);
    world.worker(1, decent(&[PreCommit1, PreCommit2]));
    assert_eq!(world.bound_of(&[pc2, pc1[0], pc1[1]]), [true, false, false]);
    world.finish(pc2);
    assert_eq!(world.bound_of(&pc1), [true, true]);
}

#[test]
fn a_constrained_worker_runs_pc1_only_when_told_to_ignore_resources() {
    let mut world = World::new();
    world.worker(1, constrained(&[PreCommit1]));
    let task = world.simple(PreCommit1, 8);
    assert_eq!(world.on(task), None);
    let why = world.why(task);
    assert!(why.contains("needs 64 GiB of memory and swap, 0 B free of 1 GiB"), "no wrap-around: {why}");
    world.worker(2, sched::WorkerProfile { ignore_resources: true, ..constrained(&[PreCommit1]) });
    assert_eq!(world.on(task), Some(key(2)));
}

#[test]
fn equal_tasks_spread_over_equal_workers() {
    let mut world = World::new();
    for number in 1..=19 {
        world.worker(number, decent(&[PreCommit1]));
    }
    let tasks: Vec<_> = (1..=19).map(|number| world.simple(PreCommit1, number)).collect();
    let mut workers: Vec<_> = tasks.iter().filter_map(|task| world.on(*task)).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), 19, "one each");
}

#[test]
fn an_idle_remote_worker_goes_before_the_managers_own() {
    let mut world = World::new();
    world.worker(1, sched::WorkerProfile { is_local: true, ..decent(&[AddPiece]) });
    // More used by its system, but idle all the same.
    world.worker(2, sched::WorkerProfile { mem_used: 40 << 30, ..decent(&[AddPiece]) });
    let tasks: Vec<_> = (1..=2).map(|number| world.simple(AddPiece, number)).collect();
    assert_eq!(world.on(tasks[0]), Some(key(2)));
    assert_eq!(world.on(tasks[1]), Some(key(1)), "then the idle one before the busy one");
}
