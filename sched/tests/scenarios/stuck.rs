//! Tasks that nothing may leave behind: staged where they cannot start, or due behind others that nobody can do.

use sched::{
    Action, Event, ExistingRule, GroupCap, Millis, Options, Outcome, Request, WorkerMode, WorkerProfile,
};
use sealtasks::FileType::Cache;
use sealtasks::PathType::Sealing;
use sealtasks::TaskId;
use sealtasks::TaskType::{AddPiece, PreCommit2};

use crate::world::{GIB, HOUR, World, decent, existing, key, path_facts, request, storage};

fn pc2(number: u64, path: &str) -> Request {
    let needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &[path])]);
    Request { needs, ..request(PreCommit2, number) }
}

/// A worker with one PC2 running and another one staged, whose files lie elsewhere.
fn staged(profile: WorkerProfile) -> (World, TaskId, TaskId) {
    let mut world = World::with(Options::default());
    world.path("far", 0);
    world.worker(9, WorkerProfile { paths: vec![storage("far")], ..decent(&[]) });
    pc2_worker(&mut world, 1, profile);
    let tasks = [world.submit(pc2(1, "far")), world.submit(pc2(2, "far"))];
    assert_eq!(tasks.map(|task| world.on(task)), [Some(key(1)); 2]);
    (world, tasks[0], tasks[1])
}

fn pc2_worker(world: &mut World, number: u128, profile: WorkerProfile) {
    let path = path_facts(&format!("own{number}"), 4000 * GIB);
    let paths = vec![path.id.clone()];
    world.send(Event::PathSeen { path });
    world.worker(number, WorkerProfile { paths, ..profile });
}

fn is_called_off(world: &World, task: TaskId) -> bool {
    let attempt = world.bound[&task].0;
    world.log.contains(&Action::Unstage { attempt, worker: key(1) })
}

#[test]
fn a_staged_task_that_is_adopted_keeps_no_worker_any_more() {
    let (mut world, first, second) = staged(decent(&[PreCommit2]));
    let mut soon = pc2(3, "far");
    soon.wait_limit = Some(Millis::new(50));
    world.finish(second);
    let third = world.submit(soon);
    world.tick_at(60);
    assert_eq!(world.sched.snapshot().reservations.len(), 1, "its slot is the next that is free");
    let attempt = world.bound[&third].0;
    world.send(Event::Adopt { attempt, worker: key(1), request: pc2(3, "far"), holds: vec![] });
    assert_eq!(world.sched.snapshot().reservations, [], "it has a slot");
    world.finish(first);
    world.finish(third);
}

#[test]
fn what_is_staged_where_it_is_no_longer_offered_goes_back_to_the_queue() {
    let (mut world, _, second) = staged(decent(&[PreCommit2]));
    let profile = WorkerProfile { paths: vec![storage("own1")], ..decent(&[AddPiece]) };
    world.send(Event::WorkerChanged { worker: key(1), profile });
    assert!(is_called_off(&world, second));
    world.end(second, Outcome::Unstaged);
    // It goes before what comes later, on a worker that never idles.
    pc2_worker(&mut world, 2, decent(&[PreCommit2]));
    assert_eq!(world.on(second), Some(key(2)));
}

#[test]
fn what_is_staged_where_a_cap_forbids_it_goes_back_to_the_queue() {
    let shared = || WorkerProfile { machine: Some("box".to_owned()), ..decent(&[PreCommit2]) };
    let (mut world, _, second) = staged(shared());
    let cap = |most| vec![GroupCap { name: "gpu".to_owned(), tasks: [PreCommit2].into(), most }];
    world.send(Event::MachineCaps { machine: "box".to_owned(), caps: cap(1) });
    assert!(!is_called_off(&world, second), "it may start when the other has ended");
    world.send(Event::MachineCaps { machine: "box".to_owned(), caps: cap(0) });
    assert!(is_called_off(&world, second));
}

#[test]
fn what_is_staged_on_a_disabled_worker_goes_back_to_the_queue_when_it_is_due() {
    for disable_first in [true, false] {
        let (mut world, first, second) = staged(decent(&[PreCommit2]));
        world.end(second, Outcome::Finished);
        let third = world.submit(Request { wait_limit: Some(Millis::new(HOUR)), ..pc2(3, "far") });
        let disable = Event::WorkerMode { worker: key(1), mode: WorkerMode::Disabled };
        if disable_first {
            world.send(disable);
            assert!(!is_called_off(&world, third), "there is time");
            world.tick_at(HOUR);
        } else {
            world.tick_at(HOUR);
            world.send(disable);
        }
        assert!(is_called_off(&world, third));
        world.end(third, Outcome::Unstaged);
        // A worker that is always busy: only who is in the queue gets its turn there.
        pc2_worker(&mut world, 2, decent(&[PreCommit2]));
        assert_eq!(world.on(third), Some(key(2)));
        world.finish(first);
    }
}

#[test]
fn a_staged_task_is_not_fetched_again_to_start_later_than_where_it_is() {
    let minutes = |minutes: u64| Millis::new(minutes * 60_000);
    for (apart, moves) in [(minutes(5), false), (minutes(500), true)] {
        let stagger = [(PreCommit2, apart)].into();
        let (mut world, first, second) = staged(WorkerProfile { stagger, ..decent(&[PreCommit2]) });
        let attempt = world.bound[&second].0;
        world.send(Event::StageDone { attempt });
        world.finish(first);
        assert!(world.log.iter().all(|action| !matches!(action, Action::Run { .. })));
        // It would have to fetch 450 GiB, which takes an hour.
        pc2_worker(&mut world, 2, decent(&[PreCommit2]));
        assert_eq!(is_called_off(&world, second), moves, "{apart}");
        if !moves {
            let actions = world.tick_at(apart.get() + 1);
            assert!(
                matches!(&actions[..], [Action::Run { attempt: run, .. }, ..] if *run == attempt),
                "{actions:?}"
            );
        }
    }
}

/// The first PC2 that is due can go nowhere; the second one, for which there is a worker, is not left to a stream of small
/// tasks because of it.
#[test]
fn a_due_task_that_nobody_can_do_does_not_keep_those_behind_it_from_a_worker() {
    let mut world = World::new();
    world.worker(1, decent(&[AddPiece, PreCommit2]));
    let piece = world.simple(AddPiece, 1);
    let limit = |since, request| Request {
        since: Millis::new(since),
        wait_limit: Some(Millis::new(HOUR)),
        ..request
    };
    let lost = world.submit(limit(0, pc2(7, "nobody")));
    let due = world.submit(limit(1, request(PreCommit2, 8)));
    world.tick_at(HOUR + 1);
    let reserved: Vec<_> = world.sched.snapshot().reservations.iter().map(|kept| kept.task).collect();
    assert_eq!(reserved, [due]);
    let later = world.simple(AddPiece, 2);
    assert_eq!(world.on(later), None);
    world.finish(piece);
    assert_eq!((world.on(due), world.on(lost)), (Some(key(1)), None));
}

/// Staged tasks of a type hold its one reservation in turn; one that waits for the worker which has its files, and has
/// been due for longer, comes before them.
#[test]
fn staged_tasks_do_not_keep_one_that_has_been_due_for_longer_from_its_reservation() {
    let mut world = World::new();
    world.path("far", 0);
    world.worker(9, WorkerProfile { paths: vec![storage("far")], ..decent(&[]) });
    let limit = |limit, request| Request { wait_limit: Some(Millis::new(limit)), ..request };
    for number in [1, 2] {
        pc2_worker(&mut world, number, decent(&[PreCommit2]));
        let running = world.submit(pc2(number as u64, "far"));
        assert_eq!(world.on(running), Some(key(number)));
    }
    let running = *world.bound.keys().next().expect("two run");
    let staged = [3, 4].map(|number| world.submit(limit(2 * HOUR, pc2(number, "far"))));
    let piece = world.simple(AddPiece, 9);
    pc2_worker(&mut world, 3, decent(&[AddPiece, PreCommit2]));
    assert_eq!(staged.map(|task| world.on(task)), [Some(key(1)), Some(key(2))]);
    let mut here = pc2(5, "own3");
    here.needs = existing(ExistingRule::Here, &[(Cache, 450 * GIB, &["own3"])]);
    let older = world.submit(limit(HOUR, here));
    world.send(Event::WorkerSuspect { worker: key(3), suspect: true });
    world.tick_at(2 * HOUR);
    let reserved =
        |world: &World| world.sched.snapshot().reservations.iter().map(|kept| kept.task).collect::<Vec<_>>();
    assert_eq!(reserved(&world), [staged[0]], "the other's worker is away");
    world.send(Event::WorkerSuspect { worker: key(3), suspect: false });
    let attempt = world.bound[&staged[0]].0;
    world.send(Event::StageDone { attempt });
    world.finish(running);
    assert_eq!(reserved(&world), [older], "and not the staged one that became due after it");
    world.finish(piece);
    assert_eq!(world.on(older), Some(key(3)));
}
