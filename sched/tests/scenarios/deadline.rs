//! Tasks whose work is of use only until a certain time, and how long tasks take.

use sched::{Action, EstimateSource, Event, KindDuration, Millis, Options, Outcome, Request, WorkerProfile};
use sealtasks::SealTaskType;
use sealtasks::TaskType::{self, AddPiece, PreCommit1, PreCommit2};

use crate::world::{HOUR, World, decent, key, proof, request};

const MINUTE: u64 = HOUR / 60;

fn kind(task: TaskType) -> SealTaskType {
    SealTaskType { proof: proof(), task }
}

fn took(task: TaskType, millis: u64) -> KindDuration {
    KindDuration { task, proof: proof(), millis: Millis::new(millis) }
}

fn until(task: TaskType, sector: u64, deadline: u64) -> Request {
    Request { deadline: Some(Millis::new(deadline)), ..request(task, sector) }
}

/// A busy worker on which PC2 takes 20 minutes.
fn busy() -> World {
    let mut world = World::with(Options { deadline_slack: Millis::new(HOUR), ..Options::default() });
    let durations = vec![took(PreCommit2, 20 * MINUTE)];
    world.worker(1, WorkerProfile { durations, ..decent(&[AddPiece, PreCommit1, PreCommit2]) });
    world.simple(PreCommit1, 1);
    world
}

#[test]
fn a_task_is_due_while_twice_its_estimate_and_the_slack_are_left() {
    let mut world = busy();
    let other = world.simple(PreCommit2, 2);
    let soon = world.submit(until(PreCommit2, 9, 10 * HOUR));
    assert_eq!(world.queue(), [other, soon]);
    let due_at = Millis::new(10 * HOUR - HOUR - 40 * MINUTE);
    assert_eq!(world.sched.why(soon).map(|why| why.due_at), Some(due_at));
    assert!(world.log.contains(&Action::WakeAt { at: due_at }), "{:?}", world.log);
    world.tick_at(due_at.get() - 1);
    assert_eq!(world.queue(), [other, soon]);
    world.tick_at(due_at.get());
    assert_eq!(world.queue(), [other], "the worker is kept for it");
    assert!(world.why(soon).contains("its deadline is in 1h40m"), "{}", world.why(soon));
}

#[test]
fn the_wait_limit_holds_where_it_comes_first_and_a_missed_deadline_stays_due() {
    let mut world = busy();
    world.now = Millis::new(100 * HOUR);
    let missed = world.submit(until(AddPiece, 1, 90 * HOUR));
    assert!(world.on(missed).is_some());
    let missed = world.submit(until(PreCommit2, 1, 90 * HOUR));
    let patient = world
        .submit(Request { wait_limit: Some(Millis::new(101 * HOUR)), ..until(PreCommit2, 1, 200 * HOUR) });
    let told = |world: &World, task| world.sched.why(task).expect("it is here");
    assert!(told(&world, missed).is_due);
    assert!(world.why(missed).contains("its deadline is missed by 10h"), "{}", world.why(missed));
    assert_eq!(told(&world, patient).due_at, Millis::new(101 * HOUR));
    world.tick_at(300 * HOUR);
    assert!(told(&world, missed).is_due && told(&world, patient).is_due);
}

#[test]
fn a_deadline_that_moves_takes_the_task_along() {
    let mut world = busy();
    let first = world.simple(PreCommit2, 2);
    let second = world.simple(PreCommit2, 3);
    let set = |world: &mut World, task, deadline: Option<u64>| {
        world.send(Event::SetDeadline { task, deadline: deadline.map(Millis::new) })
    };
    set(&mut world, second, Some(HOUR));
    assert_eq!(world.queue(), [first], "it is due at once, and has its reservation");
    set(&mut world, second, Some(100 * HOUR));
    assert_eq!(world.queue(), [first, second]);
    assert_eq!(world.sched.snapshot().workers[0].reserved_for, None);
    set(&mut world, second, Some(2 * HOUR));
    set(&mut world, second, None);
    assert_eq!(world.queue(), [first, second]);
    let unknown = sealtasks::TaskId::new(99);
    let actions = set(&mut world, unknown, None);
    assert!(matches!(actions[..], [Action::Refused { .. }]), "{actions:?}");
}

#[test]
fn a_worker_is_estimated_by_its_own_times_then_by_those_of_others_then_by_the_table() {
    let mut world = World::new();
    for number in 1..=3 {
        world.worker(number, decent(&[AddPiece]));
    }
    let estimate = |world: &World, number| world.sched.estimate(key(number), kind(AddPiece));
    assert_eq!(estimate(&world, 1).source, EstimateSource::Builtin);
    assert_eq!(estimate(&world, 1).millis, sched::builtin_duration(kind(AddPiece)));
    let first = world.simple(AddPiece, 1);
    let second = world.simple(AddPiece, 2);
    assert_eq!((world.on(first), world.on(second)), (Some(key(1)), Some(key(2))));
    world.tick_at(1 + 4000);
    world.finish(first);
    world.tick_at(1 + 5000);
    world.end(second, Outcome::Failed);
    assert_eq!(
        (estimate(&world, 1).source, estimate(&world, 1).millis.get()),
        (EstimateSource::Worker, 4000)
    );
    assert_eq!(
        (estimate(&world, 2).source, estimate(&world, 2).millis.get()),
        (EstimateSource::Others, 4000)
    );
    assert_eq!(world.sched.durations(key(1)), Some(vec![took(AddPiece, 4000)]));
    assert_eq!(world.sched.durations(key(2)), Some(vec![]), "a failure says nothing about how long it takes");
}

#[test]
fn a_worker_is_quiet_when_what_runs_and_what_is_staged_has_ended() {
    let mut world = busy();
    assert_eq!(world.sched.quiet_at(key(2)), None);
    let pc1 = sched::builtin_duration(kind(PreCommit1)).get();
    assert_eq!(world.sched.quiet_at(key(1)), Some(Millis::new(1 + pc1)));
    world.tick_at(2 * pc1);
    assert_eq!(world.sched.quiet_at(key(1)), Some(Millis::new(2 * pc1)), "it may end any moment");
}
