//! Plans of workers and of their paths: who may begin where, and that what has begun is finished.

use sched::{Event, ExistingRule, Request, WorkerMode, WorkerProfile};
use sealtasks::FileType::{Cache, Sealed, Unsealed};
use sealtasks::PathType::Sealing;
use sealtasks::SealingPurpose::{self, New, Rebuild};
use sealtasks::TaskType::{self, AddPiece, Commit2, Fetch, Finalize, PreCommit1, PreCommit2};
use sealtasks::{PathType, SealingPlan};

use crate::world::{GIB, World, allocate, decent, existing, key, path_facts, request, storage};

const TASKS: [TaskType; 6] = [AddPiece, PreCommit1, PreCommit2, Commit2, Finalize, Fetch];

fn profile(paths: &[&str], plan: SealingPlan) -> WorkerProfile {
    let paths = paths.iter().map(|path| storage(path)).collect();
    WorkerProfile { paths, plan, cpus: 66, mem_physical: 512 * GIB, ..decent(&TASKS) }
}

/// A worker with a path of its own and this plan.
fn worker(world: &mut World, number: u128, plan: SealingPlan) {
    let own = format!("own{number}");
    world.send(Event::PathSeen { path: path_facts(&own, 2000 * GIB) });
    world.worker(number, profile(&[&own], plan));
}

fn change(world: &mut World, number: u128, plan: SealingPlan) {
    let profile = profile(&[&format!("own{number}")], plan);
    world.send(Event::WorkerChanged { worker: key(number), profile });
}

fn first(number: u64, purpose: SealingPurpose) -> Request {
    let needs = allocate(Unsealed, 32 * GIB);
    Request { needs, purpose: Some(purpose), ..request(AddPiece, number) }
}

/// A task that reads a file in this path, and may fetch it.
fn pc2(number: u64, path: &str, purpose: SealingPurpose) -> Request {
    let needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &[path])]);
    Request { needs, purpose: Some(purpose), ..request(PreCommit2, number) }
}

#[test]
fn a_worker_gets_only_sectors_that_its_plan_takes() {
    for (plan, mine, other) in [(SealingPlan::Rebuild, Rebuild, New), (SealingPlan::Sealer, New, Rebuild)] {
        let mut world = World::new();
        worker(&mut world, 1, plan);
        let proof = Request { purpose: Some(other), ..request(Commit2, 2) };
        let others = [world.submit(first(1, other)), world.submit(proof)];
        assert_eq!(world.bound_of(&others), [false, false], "{plan}");
        for task in others {
            let why = world.why(task);
            assert!(why.contains(&format!("this worker's plan is {plan}")), "{why}");
        }
        let own = world.submit(first(3, mine));
        let moved = Request {
            needs: existing(ExistingRule::Fetch(PathType::Sealing), &[(Sealed, GIB, &["own1"])]),
            ..request(Fetch, 4)
        };
        let free = world.submit(moved);
        assert_eq!(world.bound_of(&[own, free]), [true, true], "{plan}: its own, and what no plan is about");
        worker(&mut world, 2, SealingPlan::Any);
        assert_eq!(others.map(|task| world.on(task)), [Some(key(2)); 2], "no plan takes all");
    }
}

#[test]
fn a_plan_that_changes_holds_for_the_next_sector_and_strands_nothing() {
    let mut world = World::new();
    worker(&mut world, 1, SealingPlan::Any);
    change(&mut world, 1, SealingPlan::Rebuild);
    let waiting = world.submit(first(7, New));
    assert_eq!(world.on(waiting), None);
    change(&mut world, 1, SealingPlan::Any);
    assert_eq!(world.on(waiting), Some(key(1)), "nobody else has a plan");
    world.finish(waiting);

    change(&mut world, 1, SealingPlan::Sealer);
    let waiting = world.submit(first(1, Rebuild));
    assert_eq!(world.on(waiting), None);
    change(&mut world, 1, SealingPlan::Rebuild);
    assert_eq!(world.on(waiting), Some(key(1)), "it comes at once");
    world.finish(waiting);

    let begun = world.submit(pc2(2, "own1", New));
    let new = world.submit(first(3, New));
    assert_eq!(world.bound_of(&[begun, new]), [true, false], "what has begun there is finished there");
    world.finish(begun);
    world.send(Event::WorkerMode { worker: key(1), mode: WorkerMode::Cordoned });
    let begun = world.submit(pc2(2, "own1", New));
    assert!(world.on(begun).is_some());
    world.finish(begun);
    world.send(Event::WorkerMode { worker: key(1), mode: WorkerMode::Open });

    // Another one that reaches the file and has a plan for it sees to it, as long as it is there.
    world.worker(2, profile(&["own1"], SealingPlan::Sealer));
    world.send(Event::WorkerMode { worker: key(2), mode: WorkerMode::Disabled });
    let shared = world.submit(pc2(4, "own1", New));
    assert_eq!(world.on(shared), Some(key(1)));
    world.finish(shared);
    world.send(Event::WorkerMode { worker: key(2), mode: WorkerMode::Open });
    let shared = world.submit(pc2(5, "own1", New));
    assert_eq!(world.on(shared), Some(key(2)));
}

#[test]
fn each_path_has_a_plan_of_its_own() {
    let mut world = World::new();
    for name in ["new", "again"] {
        world.send(Event::PathSeen { path: path_facts(name, 2000 * GIB) });
    }
    let plans = [(storage("new"), SealingPlan::Sealer), (storage("again"), SealingPlan::Rebuild)];
    let both = WorkerProfile { path_plans: plans.into(), ..profile(&["new", "again"], SealingPlan::Any) };
    world.worker(1, both.clone());
    let to = |world: &mut World, number, purpose| {
        let task = world.submit(first(number, purpose));
        let path = world.sched.snapshot().bound.iter().find(|bound| bound.attempt.task == task).cloned();
        let path = path.expect("it is bound").space[0].path.clone();
        world.finish(task);
        path
    };
    for number in [1, 2] {
        assert_eq!(to(&mut world, number, New), storage("new"));
        assert_eq!(to(&mut world, number + 10, Rebuild), storage("again"));
    }
    let plans = [(storage("new"), SealingPlan::Rebuild), (storage("again"), SealingPlan::None)];
    world.send(Event::WorkerChanged {
        worker: key(1),
        profile: WorkerProfile { path_plans: plans.into(), ..both },
    });
    assert_eq!(to(&mut world, 3, Rebuild), storage("new"));
    let nowhere = world.submit(first(4, New));
    assert_eq!(world.on(nowhere), None);
    assert!(world.why(nowhere).contains("plan is rebuild and none"), "{}", world.why(nowhere));
}
