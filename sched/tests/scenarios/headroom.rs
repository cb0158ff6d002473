//! Memory that long tasks leave free for small ones.

use sched::WorkerProfile;
use sealtasks::TaskType::{AddPiece, Commit1, PreCommit1};
use sealtasks::{TaskId, TaskType};

use crate::world::{GIB, World, decent};

fn profile(gib: u64, tasks: &[TaskType]) -> WorkerProfile {
    WorkerProfile { mem_physical: gib * GIB, cpus: 64, ..decent(tasks) }
}

fn many(world: &mut World, kind: TaskType, count: u64) -> Vec<TaskId> {
    (0..count).map(|number| world.simple(kind, number)).collect()
}

fn started(world: &World, tasks: &[TaskId]) -> usize {
    world.bound_of(tasks).into_iter().filter(|is_bound| *is_bound).count()
}

/// 255 GiB, 224 of which four PreCommit1 take: seven AddPiece would take 29 of what is left.
#[test]
fn a_small_task_never_waits_for_long_ones_that_filled_the_memory() {
    let mut world = World::new();
    world.worker(1, profile(255, &[AddPiece, PreCommit1, Commit1]));
    let long = many(&mut world, PreCommit1, 5);
    let pieces = many(&mut world, AddPiece, 9);
    assert_eq!((started(&world, &long), started(&world, &pieces)), (4, 6));
    let why = world.why(pieces[6]);
    assert!(
        why.contains("needs 4 GiB of memory, 5.9 GiB free of 255 GiB, 2 GiB of it kept for small tasks"),
        "{why}"
    );
    let small = many(&mut world, Commit1, 6);
    assert_eq!(started(&world, &small), 4, "others wait for these alone");
    world.finish(small[0]);
    world.finish(small[1]);
    assert_eq!(world.bound_of(&small[4..]), [true, true]);
    small[2..].iter().for_each(|task| drop(world.finish(*task)));
    world.finish(pieces[0]);
    assert_eq!(world.bound_of(&pieces[6..8]), [true, false]);
}

#[test]
fn what_small_tasks_hold_is_not_left_free_once_more() {
    let mut world = World::new();
    world.worker(1, profile(32, &[AddPiece, Commit1]));
    let small = many(&mut world, Commit1, 1);
    let pieces = many(&mut world, AddPiece, 9);
    assert_eq!(started(&world, &pieces), 7, "29 GiB, and 2 of the small one");
    world.finish(small[0]);
    assert_eq!(started(&world, &pieces), 7);
}

#[test]
fn nothing_is_left_free_where_that_would_cost_a_slot() {
    for (gib, slots) in [(57, 1), (113, 2), (128, 2), (169, 3)] {
        let mut world = World::new();
        world.worker(1, profile(gib, &[PreCommit1, Commit1]));
        let long = many(&mut world, PreCommit1, 4);
        assert_eq!(started(&world, &long), slots, "on {gib} GiB");
    }
}

#[test]
fn nothing_is_left_free_where_no_small_task_comes() {
    let mut world = World::new();
    world.worker(1, profile(255, &[AddPiece, PreCommit1]));
    let long = many(&mut world, PreCommit1, 4);
    let pieces = many(&mut world, AddPiece, 9);
    assert_eq!((started(&world, &long), started(&world, &pieces)), (4, 7));
}

#[test]
fn it_is_left_free_on_the_whole_machine() {
    let mut world = World::new();
    let shared = |gib, tasks: &[_]| WorkerProfile { machine: Some("box".to_owned()), ..profile(gib, tasks) };
    world.worker(1, shared(255, &[PreCommit1]));
    world.worker(2, shared(255, &[AddPiece, Commit1]));
    let long = many(&mut world, PreCommit1, 4);
    let pieces = many(&mut world, AddPiece, 9);
    assert_eq!((started(&world, &long), started(&world, &pieces)), (4, 6));
    let small = many(&mut world, Commit1, 1);
    assert_eq!(started(&world, &small), 1, "{}", world.why(small[0]));
}
