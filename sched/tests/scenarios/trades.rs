//! Workers of one trade beside workers of all trades: fetching ahead keeps the first busy, and the others free.

use sched::{Action, Event, ExistingRule, KindDuration, Millis, Request, WorkerProfile};
use sealtasks::FileType::{Cache, Unsealed};
use sealtasks::PathType::Sealing;
use sealtasks::TaskType::{self, Commit2, PreCommit1, PreCommit2};

use crate::world::{GIB, HOUR, World, decent, existing, key, path_facts, proof, request, storage};

const ALL: [TaskType; 3] = [PreCommit1, PreCommit2, Commit2];

/// A PreCommit2 whose files lie in this path.
fn pc2(number: u64, path: &str) -> Request {
    let mut request = request(PreCommit2, number);
    request.needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &[path])]);
    request
}

fn worker(world: &mut World, number: u128, path: &str, tasks: &[TaskType]) {
    let path = path_facts(path, 5000 * GIB);
    let paths = vec![path.id.clone()];
    world.send(Event::PathSeen { path });
    world.worker(number, WorkerProfile { paths, ..decent(tasks) });
}

/// Worker 1 does everything and holds the files, worker 2 does PreCommit2 alone; each runs one.
fn world() -> World {
    let mut world = World::new();
    worker(&mut world, 1, "all", &ALL);
    worker(&mut world, 2, "own", &[PreCommit2]);
    let running = [world.submit(pc2(1, "all")), world.submit(pc2(2, "own"))];
    assert_eq!(running.map(|task| world.on(task)), [Some(key(1)), Some(key(2))]);
    world
}

#[test]
fn a_worker_of_one_trade_fetches_ahead_though_one_of_all_trades_holds_the_files() {
    let mut world = world();
    let next = world.submit(pc2(3, "all"));
    assert_eq!(world.on(next), Some(key(2)));
    assert!(world.log.iter().any(|action| matches!(action, Action::Stage(_))), "{:?}", world.log);
}

#[test]
fn it_waits_for_an_equal_worker_that_holds_the_files() {
    let mut world = world();
    worker(&mut world, 3, "equal", &[PreCommit2]);
    let running = world.submit(pc2(3, "equal"));
    assert_eq!(world.on(running), Some(key(3)));
    let next = world.submit(pc2(4, "equal"));
    assert_eq!(world.on(next), None);
}

/// The inputs would travel there and back while other work waits that only a worker of all trades can do.
#[test]
fn what_is_staged_stays_when_a_busy_worker_of_all_trades_gets_room() {
    let mut world = World::new();
    let big = WorkerProfile { cpus: 64, mem_physical: 512 * GIB, mem_swap: 512 * GIB, ..decent(&ALL) };
    let path = path_facts("all", 5000 * GIB);
    world.send(Event::PathSeen { path });
    world.worker(1, WorkerProfile { paths: vec![storage("all")], ..big });
    worker(&mut world, 2, "own", &[PreCommit2]);
    let running: Vec<_> = (1..=3).map(|number| world.submit(pc2(number, "all"))).collect();
    assert_eq!(running.iter().filter(|task| world.on(**task) == Some(key(1))).count(), 2);
    let staged = world.submit(pc2(4, "all"));
    assert_eq!(world.on(staged), Some(key(2)));
    let done = running.iter().find(|task| world.on(**task) == Some(key(1))).copied();
    world.finish(done.expect("two run there"));
    assert!(!world.log.iter().any(|action| matches!(action, Action::Unstage { .. })), "it is at work still");
    let last = running.iter().find(|task| world.on(**task) == Some(key(1))).copied();
    world.finish(last.expect("one runs there"));
    assert!(
        matches!(world.log.last(), Some(Action::Unstage { worker, .. }) if *worker == key(2)),
        "it idles, and could start the task now"
    );
}

/// One PreCommit1 runs, so one may be staged, whatever else runs beside it: staged ones take what memory becomes free before
/// anything that waits in the queue.
#[test]
fn no_more_of_a_type_are_staged_than_run() {
    let mut world = World::new();
    let elsewhere = path_facts("elsewhere", 0);
    world.send(Event::PathSeen { path: elsewhere });
    world.worker(9, WorkerProfile { paths: vec![storage("elsewhere")], ..decent(&[]) });
    // Threads for one PreCommit1 beside a PreCommit2, and memory for more.
    let path = path_facts("all", 5000 * GIB);
    world.send(Event::PathSeen { path });
    let profile = WorkerProfile { cpus: 33, mem_physical: 512 * GIB, ..decent(&ALL) };
    world.worker(1, WorkerProfile { paths: vec![storage("all")], ..profile });
    let pc1 = |number| {
        let mut request = request(PreCommit1, number);
        request.needs = existing(ExistingRule::Fetch(Sealing), &[(Unsealed, 32 * GIB, &["elsewhere"])]);
        request
    };
    let tasks =
        [world.submit(pc2(1, "all")), world.submit(pc1(2)), world.submit(pc1(3)), world.submit(pc1(4))];
    assert_eq!(world.bound_of(&tasks), [true, true, true, false]);
    assert_eq!(world.log.iter().filter(|action| matches!(action, Action::Stage(_))).count(), 1);
}

/// Its file moves in seconds, and the worker that fetched it is busy for hours.
#[test]
fn a_long_wait_is_not_sat_out_for_a_short_move() {
    let mut world = World::new();
    let pc1 = |number| {
        let mut request = request(PreCommit1, number);
        request.needs = existing(ExistingRule::Fetch(Sealing), &[(Unsealed, 32 * GIB, &["all"])]);
        request
    };
    // Room for two PreCommit1 and for one.
    for (number, path, tasks, room) in [(1, "all", &ALL[..], 128), (2, "own", &[PreCommit1][..], 64)] {
        let facts = path_facts(path, 5000 * GIB);
        let paths = vec![facts.id.clone()];
        world.send(Event::PathSeen { path: facts });
        let takes = KindDuration { task: PreCommit1, proof: proof(), millis: Millis::new(4 * HOUR) };
        let profile =
            WorkerProfile { paths, mem_physical: room * GIB, durations: vec![takes], ..decent(tasks) };
        world.worker(number, profile);
    }
    let running: Vec<_> = (1..=3).map(|number| world.submit(pc1(number))).collect();
    assert_eq!(running.iter().filter(|task| world.on(**task) == Some(key(1))).count(), 2);
    let staged = world.submit(pc1(4));
    assert_eq!(world.on(staged), Some(key(2)));
    world.now = Millis::new(HOUR);
    let done = running.iter().find(|task| world.on(**task) == Some(key(1))).copied();
    world.finish(done.expect("two run there"));
    assert!(
        world.log.iter().any(|action| matches!(action, Action::Unstage { worker, .. } if *worker == key(2))),
        "worker 1 is at work, and could start it now all the same"
    );
}
