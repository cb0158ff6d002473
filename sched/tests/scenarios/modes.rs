//! What operators allow workers, workers that are away, and workers that come again.

use sched::{Action, Drain, Event, ExistingRule, Outcome, Request, WorkerKey, WorkerMode, WorkerProfile};
use sealtasks::FileType::{Cache, Sealed, Unsealed};
use sealtasks::PathType::Sealing;
use sealtasks::TaskId;
use sealtasks::TaskType::{self, AddPiece, Commit2, Finalize, PreCommit1, PreCommit2};

use crate::world::{GIB, World, allocate, decent, existing, key, path_facts, request, storage};

const TASKS: [TaskType; 5] = [AddPiece, PreCommit1, PreCommit2, Commit2, Finalize];

/// A worker with a path of its own, room for two PC2 or C2 at once, and a thread or two.
fn worker(world: &mut World, number: u128) -> WorkerKey {
    worker_with(world, number, 66)
}

fn worker_with(world: &mut World, number: u128, cpus: u64) -> WorkerKey {
    let path = path_facts(&format!("own{number}"), 2000 * GIB);
    let paths = vec![path.id.clone()];
    world.send(Event::PathSeen { path });
    world.worker(number, WorkerProfile { paths, cpus, mem_physical: 512 * GIB, ..decent(&TASKS) })
}

fn set(world: &mut World, number: u128, mode: WorkerMode) -> Vec<Action> {
    world.send(Event::WorkerMode { worker: key(number), mode })
}

/// A task for a new sector.
fn new_sector(number: u64) -> Request {
    Request { needs: allocate(Unsealed, 32 * GIB), ..request(AddPiece, number) }
}

/// A task that reads a file in this path, and may fetch it.
fn pc2(number: u64, path: &str) -> Request {
    let needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &[path])]);
    Request { needs, ..request(PreCommit2, number) }
}

fn drain(world: &World, number: u128) -> Drain {
    world.sched.drain(key(number)).expect("the worker is here")
}

#[test]
fn a_cordoned_worker_gets_no_new_sectors() {
    let mut world = World::new();
    worker(&mut world, 1);
    set(&mut world, 1, WorkerMode::Cordoned);
    let new = world.submit(new_sector(1));
    assert_eq!(world.on(new), None);
    let why = world.why(new);
    assert!(why.contains("is cordoned"), "{why}");
    let here = world.submit(pc2(2, "own1"));
    world.path("elsewhere", GIB);
    world.worker(9, WorkerProfile { paths: vec![storage("elsewhere")], ..decent(&[]) });
    let elsewhere = world.submit(pc2(3, "elsewhere"));
    assert_eq!(world.bound_of(&[here, elsewhere]), [true, false]);
    world.finish(here);
    let without_files = world.simple(Commit2, 4);
    assert!(world.on(without_files).is_some(), "no sector would come to live there");
    world.finish(without_files);
    // A file of the sector comes within reach.
    let paths = vec![storage("own1")];
    world.send(Event::SectorFiles { sector: crate::world::sector(3).id, kind: Cache, paths });
    assert_eq!(world.on(elsewhere), Some(key(1)));
    set(&mut world, 1, WorkerMode::Open);
    assert!(world.on(new).is_some(), "what the mode alone kept away comes at once");
}

#[test]
fn a_draining_worker_finishes_what_lives_there() {
    let mut world = World::new();
    worker(&mut world, 1);
    set(&mut world, 1, WorkerMode::Draining);
    let new = world.submit(new_sector(1));
    let without_files = world.simple(Commit2, 2);
    let here = world.submit(pc2(3, "own1"));
    assert_eq!(world.bound_of(&[new, without_files, here]), [false, false, true]);
    assert!(world.why(without_files).contains("is draining"), "{}", world.why(without_files));
    assert!(world.why(new).contains("is draining"), "{}", world.why(new));
    worker(&mut world, 2);
    assert_eq!([new, without_files].map(|task| world.on(task)), [Some(key(2)); 2]);
}

#[test]
fn a_disabled_worker_gets_nothing_and_keeps_what_runs() {
    let mut world = World::new();
    worker(&mut world, 1);
    let running = world.submit(pc2(1, "own1"));
    let actions = set(&mut world, 1, WorkerMode::Disabled);
    assert_eq!(actions, [], "nothing is stopped");
    let waiting = world.submit(Request {
        needs: existing(ExistingRule::Here, &[(Sealed, GIB, &["own1"])]),
        ..request(Finalize, 2)
    });
    assert_eq!(world.on(waiting), None);
    assert!(world.why(waiting).contains("is disabled"), "{}", world.why(waiting));
    world.finish(running);
    set(&mut world, 1, WorkerMode::Open);
    assert!(world.on(waiting).is_some());
}

/// A worker with a task running and another one staged, whose files lie elsewhere.
fn staged(world: &mut World) -> (TaskId, TaskId) {
    worker_with(world, 1, 32);
    world.path("far", 0);
    world.worker(9, WorkerProfile { paths: vec![storage("far")], ..decent(&[]) });
    let tasks = [world.submit(pc2(1, "far")), world.submit(pc2(2, "far"))];
    assert_eq!(tasks.map(|task| world.on(task)), [Some(key(1)); 2]);
    (tasks[0], tasks[1])
}

#[test]
fn what_is_staged_goes_on_where_a_worker_is_cordoned_or_draining() {
    for mode in [WorkerMode::Cordoned, WorkerMode::Draining] {
        let mut world = World::new();
        let (first, second) = staged(&mut world);
        set(&mut world, 1, mode);
        let attempt = world.bound[&second].0;
        world.send(Event::StageDone { attempt });
        let actions = world.finish(first);
        assert!(actions.iter().any(|action| matches!(action, Action::Run { .. })), "{mode:?}: {actions:?}");
    }
}

#[test]
fn what_is_staged_waits_where_a_worker_is_disabled_and_moves_when_another_could_start_it() {
    let mut world = World::new();
    let (first, second) = staged(&mut world);
    set(&mut world, 1, WorkerMode::Disabled);
    let attempt = world.bound[&second].0;
    world.send(Event::StageDone { attempt });
    let actions = world.finish(first);
    assert!(!actions.iter().any(|action| matches!(action, Action::Run { .. })), "{actions:?}");
    worker(&mut world, 2);
    assert!(world.log.contains(&Action::Unstage { attempt, worker: key(1) }));
    world.end(second, Outcome::Unstaged);
    assert_eq!(world.on(second), Some(key(2)));
}

#[test]
fn what_a_suspect_worker_holds_stays_until_it_is_heard_or_lost() {
    let mut world = World::new();
    let (first, second) = staged(&mut world);
    let attempt = world.bound[&second].0;
    world.send(Event::StageDone { attempt });
    world.send(Event::WorkerSuspect { worker: key(1), suspect: true });
    worker(&mut world, 2);
    let far = world.submit(pc2(3, "own1"));
    assert!(!world.log.contains(&Action::Unstage { attempt, worker: key(1) }), "it would not hear of it");
    let new = world.submit(new_sector(4));
    assert_eq!([far, new].map(|task| world.on(task)), [Some(key(2)); 2]);
    let actions = world.finish(first);
    assert!(!actions.iter().any(|action| matches!(action, Action::Run { .. })), "{actions:?}");
    assert!(world.why(second).contains("staged"), "{}", world.why(second));
    let actions = world.send(Event::WorkerSuspect { worker: key(1), suspect: false });
    assert!(actions.iter().any(|action| matches!(action, Action::Run { .. })), "heard again: {actions:?}");
}

#[test]
fn drain_tells_what_is_left() {
    let mut world = World::new();
    worker_with(&mut world, 1, 32);
    let running = world.submit(pc2(1, "own1"));
    set(&mut world, 1, WorkerMode::Draining);
    worker_with(&mut world, 2, 32);
    let busy = world.submit(pc2(4, "own2"));
    assert!(world.on(busy).is_some());
    // Each takes all threads: these wait.
    let fetchable = world.submit(pc2(2, "own1"));
    let bound_here = world.submit(Request {
        needs: existing(ExistingRule::Here, &[(Cache, GIB, &["own1"])]),
        ..request(PreCommit2, 3)
    });
    let left = drain(&world, 1);
    let attempt = world.bound[&running].0;
    assert_eq!((left.running.as_slice(), left.staged.is_empty()), (&[attempt][..], true));
    assert_eq!((left.only_here.as_slice(), left.mode), (&[bound_here][..], WorkerMode::Draining));
    assert_eq!((left.within_reach, left.is_done()), (2, false), "the other one could go elsewhere");
    assert!(world.now < left.quiet_at && left.empty_by.is_some_and(|at| left.quiet_at < at), "{left:?}");
    set(&mut world, 1, WorkerMode::Disabled);
    assert_eq!(drain(&world, 1).empty_by, None, "what waits for it alone is not started");
    set(&mut world, 1, WorkerMode::Draining);
    world.finish(running);
    for task in [fetchable, bound_here] {
        world.finish(task);
    }
    let left = drain(&world, 1);
    assert_eq!((left.is_done(), left.quiet_at, left.empty_by), (true, world.now, Some(world.now)));
    assert_eq!(world.sched.drain(key(5)), None);
}

#[test]
fn a_new_life_of_a_worker_takes_over_from_the_old_one() {
    let mut world = World::new();
    let first = worker(&mut world, 1);
    let running = world.submit(pc2(1, "own1"));
    set(&mut world, 1, WorkerMode::Cordoned);
    let profile = WorkerProfile { paths: vec![storage("own1")], ..decent(&TASKS) };
    let second = WorkerKey { generation: 1, ..first };
    world.send(Event::WorkerUp { worker: second, profile: profile.clone() });
    let snapshot = world.sched.snapshot();
    let lives: Vec<_> =
        snapshot.workers.iter().map(|worker| (worker.worker, worker.lost, worker.mode)).collect();
    assert_eq!(lives, [(first, true, WorkerMode::Cordoned), (second, false, WorkerMode::Cordoned)]);
    // The old life says something after all.
    let late = WorkerKey { generation: 0, ..first };
    let actions = world.send(Event::WorkerSuspect { worker: late, suspect: true });
    assert!(matches!(actions[..], [Action::Refused { .. }]), "{actions:?}");
    let attempt = world.bound[&running].0;
    world.send(Event::Adopt { attempt, worker: second, request: pc2(1, "own1"), holds: vec![] });
    let snapshot = world.sched.snapshot();
    assert_eq!(snapshot.workers.len(), 1, "the old life is gone with what it held");
    assert_eq!(snapshot.workers[0].cpu_use, 32, "charged once");
    let actions = world.send(Event::WorkerUp { worker: first, profile });
    assert!(matches!(actions[..], [Action::Refused { .. }]), "{actions:?}");
    world.end(running, Outcome::Finished);
}

#[test]
fn a_type_that_is_not_offered_yet_says_why() {
    let mut world = World::new();
    let reason = "fetching parameters, 34 %".to_owned();
    let profile = WorkerProfile { pending: [(Commit2, reason)].into(), ..decent(&[AddPiece, Commit2]) };
    world.worker(1, WorkerProfile { mem_physical: 512 * GIB, ..profile.clone() });
    let task = world.simple(Commit2, 1);
    assert_eq!(world.on(task), None);
    let why = world.why(task);
    assert!(why.contains("does not yet offer C2: fetching parameters, 34 %"), "{why}");
    let ready = WorkerProfile { pending: [].into(), mem_physical: 512 * GIB, ..profile };
    world.send(Event::WorkerChanged { worker: key(1), profile: ready });
    assert!(world.on(task).is_some());
}

#[test]
fn what_fits_nowhere_keeps_a_worker_from_being_empty() {
    let mut world = World::new();
    let path = path_facts("own1", 2000 * GIB);
    world.send(Event::PathSeen { path });
    let small = |mem_physical| WorkerProfile { paths: vec![storage("own1")], mem_physical, ..decent(&TASKS) };
    let worker = world.worker(1, small(GIB));
    let too_large = world.submit(Request {
        needs: existing(ExistingRule::Here, &[(Cache, GIB, &["own1"])]),
        ..request(PreCommit2, 1)
    });
    let left = drain(&world, 1);
    assert_eq!((left.only_here.len(), left.nowhere.as_slice()), (0, &[too_large][..]));
    assert_eq!((left.is_done(), left.empty_by), (false, None), "nobody can tell when");
    world.send(Event::WorkerMode { worker, mode: WorkerMode::Draining });
    assert_eq!(drain(&world, 1).nowhere, [too_large]);
    world.send(Event::WorkerChanged { worker, profile: small(512 * GIB) });
    assert_eq!(drain(&world, 1).running.len(), 1);
}

/// A worker with a path of its own and one that it shares.
fn sharer(world: &mut World, number: u128, tasks: &[TaskType]) -> WorkerKey {
    for name in [format!("own{number}"), "shared".to_owned()] {
        world.send(Event::PathSeen { path: path_facts(&name, 4000 * GIB) });
    }
    let paths = vec![storage(&format!("own{number}")), storage("shared")];
    world.worker(number, WorkerProfile { paths, mem_physical: 512 * GIB, ..decent(tasks) })
}

/// A task whose file must be at hand.
fn here(number: u64, paths: &[&str]) -> Request {
    Request { needs: existing(ExistingRule::Here, &[(Cache, GIB, paths)]), ..request(PreCommit2, number) }
}

#[test]
fn a_drain_ends_though_tasks_on_shared_paths_keep_coming() {
    let mut world = World::new();
    sharer(&mut world, 1, &TASKS);
    sharer(&mut world, 2, &TASKS);
    let running = world.submit(here(1, &["shared"]));
    let drained = world.on(running).expect("it runs");
    let other = key(3 - drained.session.0.as_u128());
    world.send(Event::WorkerMode { worker: drained, mode: WorkerMode::Draining });
    let own = if drained == key(1) { "own1" } else { "own2" };
    let both = world.submit(here(2, &["shared"]));
    let alone = world.submit(here(3, &[own]));
    let busy = world.submit(here(4, &["shared"]));
    assert_eq!([both, alone, busy].map(|task| world.on(task)), [Some(other), None, None]);
    world.finish(running);
    assert_eq!(
        [alone, busy].map(|task| world.on(task)),
        [Some(drained), None],
        "only what lives there alone"
    );
    let why = world.why(busy);
    assert!(why.contains("is draining: it finishes what lives there alone"), "{why}");
    world.finish(alone);
    let left = world.sched.drain(drained).expect("it is here");
    assert_eq!((left.is_done(), left.within_reach, world.on(busy)), (true, 1, None), "{left:?}");
    world.finish(both);
    assert_eq!(world.on(busy), Some(other));
}

#[test]
fn a_draining_worker_takes_what_nobody_sees_to_any_more() {
    let small = |profile| WorkerProfile { mem_physical: GIB, mem_swap: 0, ..profile };
    let paths = vec![storage("own2"), storage("shared")];
    let profile = WorkerProfile { paths, mem_physical: 512 * GIB, ..decent(&TASKS) };
    let events: [(&str, Vec<Event>); 7] = [
        ("lost", vec![Event::WorkerLost { worker: key(2) }]),
        ("suspect", vec![Event::WorkerSuspect { worker: key(2), suspect: true }]),
        ("disabled", vec![Event::WorkerEnabled { worker: key(2), enabled: false }]),
        ("draining", vec![Event::WorkerMode { worker: key(2), mode: WorkerMode::Draining }]),
        ("too small", vec![Event::WorkerChanged { worker: key(2), profile: small(profile.clone()) }]),
        (
            "of another trade",
            vec![Event::WorkerChanged {
                worker: key(2),
                profile: WorkerProfile { tasks: vec![AddPiece], ..profile.clone() },
            }],
        ),
        (
            "out of reach",
            vec![Event::WorkerChanged {
                worker: key(2),
                profile: WorkerProfile { paths: vec![storage("own2")], ..profile },
            }],
        ),
    ];
    for (name, events) in events {
        let mut world = World::new();
        sharer(&mut world, 1, &TASKS);
        set(&mut world, 1, WorkerMode::Draining);
        sharer(&mut world, 2, &TASKS);
        let first = world.submit(here(1, &["shared"]));
        let waiting = world.submit(here(2, &["shared"]));
        assert_eq!([first, waiting].map(|task| world.on(task)), [Some(key(2)), None], "{name}");
        events.into_iter().for_each(|event| drop(world.send(event)));
        assert_eq!(
            world.on(waiting),
            Some(key(1)),
            "the other one is {name}: {:?}",
            world.sched.why(waiting)
        );
    }
}
