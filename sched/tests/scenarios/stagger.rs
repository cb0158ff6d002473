//! Starts kept apart, and the small tasks that nothing holds up.

use sched::{Action, Event, ExistingRule, Millis, Request, WorkerProfile};
use sealtasks::FileType::Cache;
use sealtasks::PathType::Sealing;
use sealtasks::TaskType::{AddPiece, Commit1, Commit2, Fetch, Finalize, PreCommit1, PreCommit2};

use crate::world::{GIB, HOUR, World, decent, existing, key, path_facts, request, storage};

const MINUTE: u64 = 60_000;

fn staggered() -> WorkerProfile {
    WorkerProfile {
        mem_physical: 512 * GIB,
        mem_swap: 512 * GIB,
        stagger: [(PreCommit1, Millis::new(10 * MINUTE))].into(),
        ..decent(&[AddPiece, PreCommit1, PreCommit2])
    }
}

fn wake(actions: &[Action]) -> Option<u64> {
    let at = |action: &Action| match action {
        Action::WakeAt { at } => Some(at.get()),
        _ => None,
    };
    actions.iter().rev().find_map(at)
}

#[test]
fn starts_of_one_type_are_kept_apart() {
    let mut world = World::new();
    world.tick_at(MINUTE);
    world.worker(1, staggered());
    let first = world.simple(PreCommit1, 1);
    assert_eq!(wake(&world.log), Some(11 * MINUTE));
    let second = world.simple(PreCommit1, 2);
    let other = world.simple(AddPiece, 3);
    assert_eq!(world.bound_of(&[first, second, other]), [true, false, true]);
    let why = world.why(second);
    assert!(why.contains("starts no PC1 before") && why.contains("to keep starts apart"), "{why}");
    world.tick_at(11 * MINUTE - 1);
    assert_eq!(world.on(second), None);
    world.tick_at(11 * MINUTE);
    assert!(world.on(second).is_some());
    // The end of one does not make the next start any sooner.
    let third = world.simple(PreCommit1, 4);
    world.finish(first);
    assert_eq!(world.on(third), None);
    // Nor does another limit, once it is taken away, leave it waiting.
    let profile = WorkerProfile { stagger: [].into(), ..staggered() };
    world.send(Event::WorkerChanged { worker: key(1), profile });
    assert!(world.on(third).is_some());
}

#[test]
fn starts_are_kept_apart_on_the_whole_machine() {
    let mut world = World::new();
    let shared = || WorkerProfile { machine: Some("box".to_owned()), ..staggered() };
    world.worker(1, shared());
    world.worker(2, shared());
    let tasks: Vec<_> = (1..=2).map(|number| world.simple(PreCommit1, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, false]);
    world.tick_at(10 * MINUTE + 1);
    assert_eq!(world.bound_of(&tasks), [true, true], "{}", world.why(tasks[1]));
}

#[test]
fn a_worker_that_comes_to_the_machine_later_waits_and_is_woken_too() {
    let mut world = World::new();
    let shared = || WorkerProfile { machine: Some("box".to_owned()), ..staggered() };
    world.worker(1, shared());
    world.simple(PreCommit1, 1);
    let second = world.simple(PreCommit1, 2);
    world.send(Event::WorkerUp { worker: key(2), profile: shared() });
    world.send(Event::WorkerEnabled { worker: key(1), enabled: false });
    assert_eq!(world.on(second), None);
    world.tick_at(10 * MINUTE + 1);
    assert_eq!(world.on(second), Some(key(2)));
}

#[test]
fn a_promoted_task_starts_too() {
    let mut world = World::new();
    let path = path_facts("own", 2000 * GIB);
    world.send(Event::PathSeen { path });
    world.path("far", 0);
    world.worker(9, WorkerProfile { paths: vec![storage("far")], ..decent(&[]) });
    let stagger = [(PreCommit2, Millis::new(10 * MINUTE))].into();
    world.worker(1, WorkerProfile { stagger, paths: vec![storage("own")], ..staggered() });
    let pc2 = |number| Request {
        needs: existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &["far"])]),
        ..request(PreCommit2, number)
    };
    let tasks = [world.submit(pc2(1)), world.submit(pc2(2))];
    let attempt = world.bound[&tasks[1]].0;
    world.send(Event::StageDone { attempt });
    let is_run = |action: &Action| matches!(action, Action::Run { .. });
    let actions = world.finish(tasks[0]);
    assert!(!actions.iter().any(is_run), "{actions:?}");
    let actions = world.tick_at(10 * MINUTE + 1);
    assert!(actions.iter().any(is_run), "{actions:?}");
}

#[test]
fn a_due_task_is_not_put_off_by_other_starts_of_its_type() {
    let mut world = World::new();
    let shared =
        |mem| WorkerProfile { machine: Some("box".to_owned()), mem_physical: mem * GIB, ..staggered() };
    // The first one is too small for what is on it and the due task together.
    world.worker(1, shared(100));
    let before = world.simple(PreCommit1, 1);
    let mut late = request(PreCommit1, 0);
    late.wait_limit = Some(Millis::new(HOUR));
    let due = world.submit(late);
    world.tick_at(HOUR);
    assert_eq!(world.on(due), None);
    world.worker(2, shared(512));
    assert!(world.on(due).is_some(), "a worker that could start it now goes first");
    world.finish(before);
}

/// A cluster full of PC1 and C2, each worker's reservation taken, staging places taken, starts kept apart.
#[test]
fn small_tasks_are_never_stuck_behind_long_ones() {
    let mut world = World::new();
    world.tick_at(1);
    let kinds = [PreCommit1, PreCommit2, Commit2, Commit1, Finalize, Fetch];
    let stagger: std::collections::BTreeMap<_, _> =
        [PreCommit1, PreCommit2, Commit2].map(|kind| (kind, Millis::new(HOUR))).into();
    for number in 1..=3 {
        let path = path_facts(&format!("own{number}"), 4000 * GIB);
        let paths = vec![path.id.clone()];
        world.send(Event::PathSeen { path });
        let profile =
            WorkerProfile { paths, stagger: stagger.clone(), mem_physical: 200 * GIB, ..decent(&kinds) };
        world.worker(number, profile);
    }
    let mut tasks = Vec::new();
    for number in 1..=20 {
        for kind in [PreCommit1, Commit2, PreCommit2] {
            let mut wanted = request(kind, number);
            if kind == PreCommit2 {
                let needs = &[(Cache, 450 * GIB, &["own1"][..])];
                wanted.needs = existing(ExistingRule::Fetch(Sealing), needs);
            }
            wanted.wait_limit = Some(Millis::new(HOUR));
            tasks.push(world.submit(wanted));
        }
    }
    world.tick_at(2 * HOUR);
    let snapshot = world.sched.snapshot();
    assert!(snapshot.workers.iter().all(|worker| worker.reserved_for.is_some()), "{:?}", snapshot.workers);
    assert!(tasks.iter().any(|task| world.on(*task).is_none()));
    for number in 1..=30 {
        for (kind, rule) in [
            (Finalize, ExistingRule::Here),
            (Commit1, ExistingRule::PartlyHere(Sealing)),
            (Fetch, ExistingRule::Fetch(Sealing)),
        ] {
            let mut wanted = request(kind, 100 + number);
            let own = format!("own{}", number % 3 + 1);
            wanted.needs = existing(rule, &[(Cache, GIB, &[&own])]);
            let task = world.submit(wanted);
            assert!(world.on(task).is_some(), "{kind}: {}", world.why(task));
            world.finish(task);
        }
    }
}

#[test]
fn a_worker_that_went_before_its_next_start_was_due_is_not_looked_at_again() {
    let mut world = World::new();
    world.tick_at(MINUTE);
    world.worker(1, staggered());
    let first = world.simple(PreCommit1, 1);
    world.send(Event::WorkerLost { worker: key(1) });
    world.finish(first);
    // A type that nobody had asked for while the worker was here.
    let late = world.simple(Commit2, 2);
    world.tick_at(12 * MINUTE);
    world.worker(2, decent(&[Commit2]));
    assert_eq!(world.on(late), Some(key(2)));
}
