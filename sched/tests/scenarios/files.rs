//! Files, room and locks.

use sched::{
    Action, Allocate, Event, ExistingRule, Locks, Millis, Needs, NewFile, Outcome, Plan, WorkerProfile,
};
use sealtasks::FileType::{Cache, Sealed, Unsealed};
use sealtasks::PathType::Sealing;
use sealtasks::TaskType::{AddPiece, Commit1, PreCommit1, PreCommit2};
use sealtasks::{FileTypes, TaskId};

use crate::world::{GIB, World, allocate, decent, existing, key, path_facts, request, sector, storage};

fn with_paths(tasks: &[sealtasks::TaskType], paths: &[&str]) -> WorkerProfile {
    WorkerProfile { paths: paths.iter().map(|path| storage(path)).collect(), ..decent(tasks) }
}

/// Two workers, each with one path of its own.
fn two_workers(room: u64) -> World {
    let mut world = World::new();
    world.path("a", room);
    world.path("b", room);
    world.worker(1, with_paths(&[AddPiece, PreCommit1, PreCommit2, Commit1], &["a"]));
    world.worker(2, with_paths(&[AddPiece, PreCommit1, PreCommit2, Commit1], &["b"]));
    world
}

fn plan_of(world: &World, task: TaskId) -> Plan {
    let plans = world.log.iter().rev().filter_map(|action| match action {
        Action::Start(to) | Action::Stage(to) if to.attempt.task == task => Some(to.plan.clone()),
        Action::Start(_) | Action::Stage(_) | Action::Run { .. } | Action::Unstage { .. } => None,
        Action::Abort { .. } | Action::Left { .. } | Action::Refused { .. } | Action::WakeAt { .. } => None,
    });
    plans.into_iter().next().expect("the task was bound")
}

fn pc2(number: u64, path: &str) -> sched::Request {
    let files: [(_, _, &[&str]); 2] = [(Sealed, 32 * GIB, &[path]), (Cache, 450 * GIB, &[path])];
    let mut request = request(PreCommit2, number);
    request.needs = existing(ExistingRule::Fetch(Sealing), &files);
    request.locks = Locks { read: FileTypes::SEALED, write: FileTypes::CACHE };
    request
}

#[test]
fn a_task_goes_where_its_files_are() {
    let mut world = two_workers(2000 * GIB);
    let task = world.submit(pc2(1, "b"));
    assert_eq!(world.on(task), Some(key(2)));
    assert_eq!(plan_of(&world, task).fetch, []);
}

#[test]
fn a_task_whose_holder_is_busy_is_fetched_elsewhere() {
    let mut world = two_workers(2000 * GIB);
    let first = world.submit(pc2(1, "b"));
    let second = world.submit(pc2(2, "b"));
    assert_eq!((world.on(first), world.on(second)), (Some(key(2)), Some(key(1))));
    let plan = plan_of(&world, second);
    assert_eq!(plan.fetch_bytes(), 482 * GIB);
    assert!(plan.fetch.iter().all(|step| step.to == storage("a") && step.from == [storage("b")]), "{plan:?}");
}

#[test]
fn a_task_that_may_not_fetch_waits_for_its_holder() {
    let mut world = two_workers(2000 * GIB);
    let blocker = world.submit(pc2(1, "b"));
    let mut request = request(AddPiece, 2);
    request.needs = existing(ExistingRule::Here, &[(Unsealed, 32 * GIB, &["b"])]);
    let task = world.submit(request);
    assert_eq!(world.on(task), None);
    assert!(
        world.why(task).contains("the unsealed file is out of reach, in 1 paths of others"),
        "{}",
        world.why(task)
    );
    world.finish(blocker);
    assert_eq!(world.on(task), Some(key(2)));
}

#[test]
fn a_task_with_part_of_its_files_here_fetches_the_rest() {
    let mut world = two_workers(2000 * GIB);
    let mut request = request(Commit1, 2);
    request.needs = existing(
        ExistingRule::PartlyHere(Sealing),
        &[(Sealed, 32 * GIB, &["a"]), (Cache, 450 * GIB, &["b"])],
    );
    let task = world.submit(request);
    assert_eq!(world.on(task), Some(key(2)), "the smaller file is moved");
    assert_eq!(plan_of(&world, task).fetch_bytes(), 32 * GIB);
}

#[test]
fn files_that_move_take_their_tasks_along() {
    let mut world = two_workers(2000 * GIB);
    let mut request = request(AddPiece, 2);
    request.needs = existing(ExistingRule::Here, &[(Unsealed, 32 * GIB, &["gone"])]);
    let task = world.submit(request);
    assert_eq!(world.on(task), None);
    let paths = vec![storage("a")];
    world.send(Event::SectorFiles { sector: sector(2).id, kind: Unsealed, paths });
    assert_eq!(world.on(task), Some(key(1)));
}

#[test]
fn promised_room_is_not_promised_again_and_is_counted_once() {
    let mut world = World::new();
    world.path("a", 100 * GIB);
    world.worker(1, with_paths(&[AddPiece], &["a"]));
    let mut new_piece = |number| {
        let mut request = request(AddPiece, number);
        request.needs = allocate(Unsealed, 60 * GIB);
        world.submit(request)
    };
    let (first, second) = (new_piece(1), new_piece(2));
    assert_eq!(world.bound_of(&[first, second]), [true, false]);
    let why = world.why(second);
    assert!(
        why.contains("needs 60 GiB in a sealing path for the unsealed file, at most 40 GiB free in one"),
        "{why}"
    );
    world.accept(first);
    // The owner has reserved the first file's room itself and says so: it is not subtracted twice.
    let mut covered = path_facts("a", 61 * GIB);
    covered.covers = vec![world.bound[&first].0];
    world.send(Event::PathSeen { path: covered });
    assert!(world.on(second).is_some());
    // What an ended attempt may have written counts as gone until the next report.
    world.accept(second);
    world.finish(second);
    let paths = world.sched.snapshot().paths;
    assert_eq!((paths[0].available, paths[0].promised), (GIB as i64, 0));
}

#[test]
fn files_that_fit_only_the_other_way_round_are_laid_so() {
    let mut world = World::new();
    world.path("large", 500 * GIB);
    world.path("small", 100 * GIB);
    world.worker(1, with_paths(&[PreCommit1], &["large", "small"]));
    let mut both = |number, cache: u64| {
        let mut request = request(PreCommit1, number);
        let file = |kind, bytes| NewFile { kind, bytes };
        let files = vec![file(Sealed, 64 * GIB), file(Cache, cache)];
        request.needs = Needs { existing: None, allocate: Some(Allocate { path_type: Sealing, files }) };
        world.submit(request)
    };
    // The sealed file alone would go to the emptiest path, and the cache would then have 436 GiB.
    let (never, fits) = (both(1, 501 * GIB), both(2, 470 * GIB));
    assert_eq!(world.bound_of(&[never, fits]), [false, true]);
    let why = world.why(never);
    assert!(why.contains("needs 64 GiB in a sealing path for the sealed file, at most 36 GiB free"), "{why}");
}

#[test]
fn room_comes_back_when_the_worker_never_began() {
    let mut world = World::new();
    world.path("a", 100 * GIB);
    world.worker(1, with_paths(&[AddPiece], &["a"]));
    let mut request = request(AddPiece, 1);
    request.needs = allocate(Unsealed, 60 * GIB);
    let task = world.submit(request);
    let (attempt, _) = world.bound.remove(&task).expect("bound");
    let later = Millis::new(500);
    world.send(Event::StartFailed { attempt, reason: "no route".to_owned(), not_before: later });
    assert_eq!(world.sched.snapshot().paths[0].promised, 0);
    assert!(world.why(task).contains("is tried again in "), "{}", world.why(task));
    world.tick_at(500);
    assert_eq!(world.bound[&task].0.attempt, 2, "a new attempt has a new number");
}

#[test]
fn files_are_fetched_only_into_groups_they_may_go_to() {
    let mut world = World::new();
    let mut source = path_facts("source", 0);
    source.allow_to = vec!["fast".to_owned()];
    world.send(Event::PathSeen { path: source });
    world.worker(1, WorkerProfile { tasks: vec![], ..with_paths(&[], &["source"]) });
    world.path("slow", 2000 * GIB);
    world.worker(2, with_paths(&[PreCommit2], &["slow"]));
    let task = world.submit(pc2(1, "source"));
    assert_eq!(world.on(task), None);
    let why = world.why(task);
    assert!(
        why.contains("no sealing path takes the sealed file of 32 GiB, though 1.9 TiB are free in one, slow"),
        "{why}"
    );
    let mut fast = path_facts("fast", 2000 * GIB);
    fast.groups = vec!["fast".to_owned()];
    world.send(Event::PathSeen { path: fast });
    world.worker(3, with_paths(&[PreCommit2], &["fast"]));
    assert_eq!(world.on(task), Some(key(3)));
}

#[test]
fn paths_take_only_the_files_and_miners_they_accept() {
    let mut world = World::new();
    let mut path = path_facts("a", 100 * GIB);
    path.deny_miners = vec![sector(1).id.miner];
    world.send(Event::PathSeen { path: path.clone() });
    world.worker(1, with_paths(&[AddPiece], &["a"]));
    let mut request = request(AddPiece, 1);
    request.needs = allocate(Unsealed, GIB);
    let task = world.submit(request);
    assert_eq!(world.on(task), None);
    path.deny_miners.clear();
    path.accepts = FileTypes::SEALED;
    world.send(Event::PathSeen { path: path.clone() });
    assert_eq!(world.on(task), None);
    path.accepts = FileTypes::UNSEALED;
    world.send(Event::PathSeen { path });
    assert_eq!(world.on(task), Some(key(1)));
}

#[test]
fn a_busy_lock_keeps_a_task_back_until_it_is_free() {
    let mut world = two_workers(2000 * GIB);
    let holder = world.submit(pc2(1, "a"));
    let second = world.submit(pc2(1, "a"));
    let other_sector = world.submit(pc2(2, "a"));
    assert_eq!(world.bound_of(&[holder, second, other_sector]), [true, false, true]);
    assert!(
        world.why(second).contains("waits for its sector's cache files, locked by PC"),
        "{}",
        world.why(second)
    );
    world.end(holder, Outcome::Failed);
    assert!(world.on(second).is_some());
}
