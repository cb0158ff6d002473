//! A task that has just failed on a worker: another one gets it, if one can begin it now. It waits for none.

use sched::{Event, ExistingRule, Request, WorkerProfile};
use sealtasks::FileType::Cache;
use sealtasks::PathType::Sealing;
use sealtasks::TaskType::{self, PreCommit1, PreCommit2};

use crate::world::{GIB, World, decent, existing, key, path_facts, request, storage};

/// A worker with a path of its own, and room for one such task.
fn worker(world: &mut World, number: u128, tasks: &[TaskType]) {
    let own = format!("own{number}");
    world.send(Event::PathSeen { path: path_facts(&own, 2000 * GIB) });
    let paths = vec![storage(&own)];
    world.worker(number, WorkerProfile { paths, cpus: 66, mem_physical: 512 * GIB, ..decent(tasks) });
}

/// Its files lie with the first worker, on which it failed if it says so.
fn pc2(number: u64, rule: ExistingRule, failed: Option<u128>) -> Request {
    let needs = existing(rule, &[(Cache, 450 * GIB, &["own1"])]);
    let avoid = failed.map(|worker| key(worker).session);
    Request { needs, avoid, ..request(PreCommit2, number) }
}

#[test]
fn another_worker_gets_it_although_its_files_lie_where_it_failed() {
    for (failed, goes_to) in [(None, 1), (Some(1), 2), (Some(2), 1), (Some(9), 1)] {
        let mut world = World::new();
        worker(&mut world, 1, &[PreCommit2]);
        worker(&mut world, 2, &[PreCommit2]);
        let task = world.submit(pc2(1, ExistingRule::Fetch(Sealing), failed));
        assert_eq!(world.on(task), Some(key(goes_to)), "failed on {failed:?}");
    }
}

#[test]
fn where_nobody_else_can_begin_it_it_begins_where_it_failed() {
    // Nobody else offers it.
    let mut world = World::new();
    worker(&mut world, 1, &[PreCommit2]);
    worker(&mut world, 2, &[PreCommit1]);
    let task = world.submit(pc2(1, ExistingRule::Fetch(Sealing), Some(1)));
    assert_eq!(world.on(task), Some(key(1)));

    // Its files must be at hand.
    let mut world = World::new();
    worker(&mut world, 1, &[PreCommit2]);
    worker(&mut world, 2, &[PreCommit2]);
    let task = world.submit(pc2(1, ExistingRule::Here, Some(1)));
    assert_eq!(world.on(task), Some(key(1)));

    // The other one is not there yet; it does not wait for it.
    let mut world = World::new();
    worker(&mut world, 1, &[PreCommit2]);
    let task = world.submit(pc2(1, ExistingRule::Fetch(Sealing), Some(1)));
    worker(&mut world, 2, &[PreCommit2]);
    assert_eq!(world.on(task), Some(key(1)));
}
