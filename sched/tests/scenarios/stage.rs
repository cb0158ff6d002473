//! Fetching while another task runs.

use sched::{Action, Event, ExistingRule, Millis, Options, Outcome, Request, WorkerProfile};
use sealtasks::FileType::Cache;
use sealtasks::PathType::Sealing;
use sealtasks::TaskType::PreCommit2;

use crate::world::{GIB, World, decent, existing, key, path_facts, request, storage};

fn pc2(number: u64) -> Request {
    let mut request = request(PreCommit2, number);
    request.needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &["pc1"])]);
    request
}

/// A path that nobody who runs PC2 reaches, and a first PC2 worker.
fn world(options: Options) -> World {
    let mut world = World::with(options);
    world.path("pc1", 0);
    world.worker(9, WorkerProfile { paths: vec![storage("pc1")], ..decent(&[]) });
    pc2_worker(&mut world, 1, "one");
    world
}

fn pc2_worker(world: &mut World, number: u128, path: &str) {
    let path = path_facts(path, 2000 * GIB);
    let paths = vec![path.id.clone()];
    world.send(Event::PathSeen { path });
    world.worker(number, WorkerProfile { paths, ..decent(&[PreCommit2]) });
}

fn is_stage(action: &Action) -> bool {
    matches!(action, Action::Stage(_))
}

#[test]
fn one_task_is_staged_beside_each_running_one() {
    let mut world = world(Options::default());
    let first = world.submit(pc2(1));
    let second = world.submit(pc2(2));
    let third = world.submit(pc2(3));
    assert_eq!(world.bound_of(&[first, second, third]), [true, true, false]);
    assert_eq!(world.log.iter().filter(|action| is_stage(action)).count(), 1);
    let staged = world.bound[&second].0;

    world.send(Event::StageDone { attempt: staged });
    let actions = world.finish(first);
    assert!(
        matches!(&actions[..], [Action::Left { .. }, Action::Run { attempt, threads: 32, .. }, Action::Stage(next)]
            if *attempt == staged && next.attempt.task == third),
        "its slot is free, it runs, and the next is staged: {actions:?}"
    );
}

#[test]
fn a_task_still_fetching_does_not_hold_the_slot() {
    let mut world = world(Options::default());
    let first = world.submit(pc2(1));
    let second = world.submit(pc2(2));
    world.finish(first);
    let local = world.simple(PreCommit2, 7);
    assert!(world.on(local).is_some(), "a task that needs no fetching uses the slot meanwhile");
    let attempt = world.bound[&second].0;
    world.send(Event::StageDone { attempt });
    let actions = world.finish(local);
    assert!(actions.iter().any(|action| matches!(action, Action::Run { .. })), "{actions:?}");
}

#[test]
fn a_staged_task_moves_to_a_worker_that_could_start_it_now() {
    let mut world = world(Options::default());
    let first = world.submit(pc2(1));
    let second = world.submit(pc2(2));
    assert_eq!(world.on(second), Some(key(1)));
    let before = world.log.len();
    pc2_worker(&mut world, 2, "two");
    let staged = world.bound[&second].0;
    assert_eq!(world.log[before..], [Action::Unstage { attempt: staged, worker: key(1) }]);

    // The idle worker is kept for it until its staging is over.
    let rival = world.simple(PreCommit2, 0);
    assert_eq!(world.on(rival), None);
    assert!(world.why(rival).contains("is kept for PC2 of sector 2, which is due"), "{}", world.why(rival));
    world.end(second, Outcome::Unstaged);
    assert_eq!(world.on(second), Some(key(2)));
    assert_eq!(world.bound[&second].0.attempt, 2);
    world.finish(first);
    assert_eq!(world.on(rival), Some(key(1)));
}

#[test]
fn nothing_is_staged_when_told_so_and_nothing_where_the_files_are() {
    let mut world = world(Options { staged_per_running: 0, ..Options::default() });
    let tasks = [world.submit(pc2(1)), world.submit(pc2(2))];
    assert_eq!(world.bound_of(&tasks), [true, false]);

    let mut world = self::world(Options::default());
    let first = world.submit(pc2(1));
    let mut here = pc2(2);
    here.needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &["one"])]);
    let second = world.submit(here);
    assert_eq!(
        world.bound_of(&[first, second]),
        [true, false],
        "there is nothing to fetch: it can be bound late"
    );
    assert!(!world.log.iter().any(is_stage));
}

#[test]
fn a_cancelled_staging_is_aborted_and_gives_its_place_to_the_next() {
    let mut world = world(Options::default());
    world.submit(pc2(1));
    let second = world.submit(pc2(2));
    let third = world.submit(pc2(3));
    let attempt = world.bound[&second].0;
    let actions = world.send(Event::Cancel { task: second });
    assert_eq!(actions, [Action::Abort { attempt, worker: key(1) }]);
    assert_eq!(world.on(third), None, "its place is held until the driver says that it is over");
    world.end(second, Outcome::Failed);
    assert_eq!(world.on(third), Some(key(1)));
}

#[test]
fn a_due_staging_on_a_lost_worker_keeps_nothing() {
    let mut world = world(Options::default());
    let first = world.submit(pc2(1));
    let mut soon = pc2(2);
    soon.wait_limit = Some(Millis::new(50));
    let second = world.submit(soon);
    world.send(Event::WorkerLost { worker: key(1) });
    world.tick_at(60);
    world.finish(first);
    world.end(second, Outcome::Retry { not_before: Millis::ZERO });
    assert_eq!(world.on(second), None);
    pc2_worker(&mut world, 2, "two");
    assert_eq!(world.on(second), Some(key(2)));
}

#[test]
fn a_due_staging_that_keeps_its_own_worker_still_moves_to_an_idle_one() {
    let mut world = world(Options::default());
    let first = world.submit(pc2(1));
    let mut soon = pc2(2);
    soon.wait_limit = Some(Millis::new(50));
    let second = world.submit(soon);
    world.tick_at(60);
    assert_eq!(
        world.sched.snapshot().workers[0].reserved_for,
        Some(second),
        "its slot is the next that is free"
    );
    pc2_worker(&mut world, 2, "two");
    let attempt = world.bound[&second].0;
    assert!(world.log.contains(&Action::Unstage { attempt, worker: key(1) }));
    world.end(second, Outcome::Unstaged);
    assert_eq!((world.on(first), world.on(second)), (Some(key(1)), Some(key(2))));
}
