//! The order of the queue.

use sched::{Action, End, Event, Millis};
use sealtasks::TaskId;
use sealtasks::TaskType::{self, AddPiece, Commit1, Fetch, Finalize, PreCommit1, PreCommit2};

use crate::world::{HOUR, World, request};

fn kinds(world: &World) -> Vec<TaskType> {
    world.sched.snapshot().queue.iter().map(|queued| queued.kind).collect()
}

/// Lotus's TestRequestQueue, then its other rules.
#[test]
fn tasks_wait_in_lotuss_order() {
    let mut world = World::new();
    let tasks: Vec<_> =
        [AddPiece, PreCommit1, PreCommit2, PreCommit1, AddPiece].map(|kind| world.simple(kind, 1)).into();
    assert_eq!(kinds(&world), [PreCommit2, PreCommit1, PreCommit1, AddPiece, AddPiece]);
    world.send(Event::Cancel { task: tasks[2] });
    assert_eq!(kinds(&world), [PreCommit1, PreCommit1, AddPiece, AddPiece]);
    world.send(Event::Cancel { task: tasks[1] });
    assert_eq!(kinds(&world), [PreCommit1, AddPiece, AddPiece]);
    world.send(Event::Cancel { task: tasks[0] });
    assert_eq!(kinds(&world), [PreCommit1, AddPiece]);
    let left: Vec<_> = world.log.iter().filter(|action| matches!(action, Action::Left { .. })).collect();
    assert_eq!(left.len(), 3);
    assert_eq!(left[0], &Action::Left { task: tasks[2], end: End::Cancelled });
}

#[test]
fn negative_orders_go_before_any_priority() {
    let mut world = World::new();
    let mut urgent = request(AddPiece, 1);
    urgent.priority = i64::MAX;
    world.submit(urgent);
    world.simple(Fetch, 9);
    world.simple(Finalize, 9);
    world.simple(Commit1, 1);
    assert_eq!(kinds(&world), [Finalize, Fetch, AddPiece, Commit1]);
}

#[test]
fn then_priority_then_order_then_sector_then_submission() {
    let mut world = World::new();
    let submit = |world: &mut World, kind, sector, priority| {
        let mut request = request(kind, sector);
        request.priority = priority;
        world.submit(request)
    };
    let expected: Vec<TaskId> = {
        let last = submit(&mut world, AddPiece, 1, 0);
        let fifth = submit(&mut world, PreCommit1, 7, 0);
        let sixth = submit(&mut world, PreCommit1, 7, 0);
        let fourth = submit(&mut world, PreCommit1, 3, 0);
        let second = submit(&mut world, AddPiece, 9, 1024);
        let first = submit(&mut world, PreCommit2, 9, 1024);
        let third = submit(&mut world, Commit1, 9, 0);
        vec![first, second, third, fourth, fifth, sixth, last]
    };
    assert_eq!(world.queue(), expected);
    world.send(Event::SetPriority { task: expected[6], priority: 2000 });
    assert_eq!(world.queue()[0], expected[6]);
}

#[test]
fn due_tasks_go_first_the_longest_due_before_the_others() {
    let mut world = World::new();
    let mut waiting = |kind, since, limit, priority| {
        let mut request = request(kind, 1);
        (request.since, request.wait_limit, request.priority) =
            (Millis::new(since), Some(Millis::new(limit)), priority);
        world.submit(request)
    };
    let urgent = waiting(Commit1, 0, 100 * HOUR, 5);
    let younger = waiting(PreCommit1, 10, HOUR, 3);
    let older = waiting(AddPiece, 0, HOUR, 0);
    assert_eq!(world.queue(), [urgent, younger, older]);
    assert!(world.log.contains(&Action::WakeAt { at: Millis::new(HOUR) }), "{:?}", world.log);
    world.tick_at(HOUR + 10);
    assert_eq!(world.queue(), [older, younger, urgent]);
}

#[test]
fn what_runs_is_not_held_up_by_what_cannot() {
    let mut world = World::new();
    world.worker(1, crate::world::decent(&[Commit1, Finalize, PreCommit1]));
    let big: Vec<_> = (1..=3).map(|number| world.simple(PreCommit1, number)).collect();
    let small = [world.simple(Commit1, 8), world.simple(Finalize, 9)];
    assert_eq!(world.bound_of(&big), [true, true, false]);
    assert_eq!(world.bound_of(&small), [true, true]);
}
