//! Who goes first on a worker of all trades, where workers of one trade could do one of the two.

use sched::{
    Event, ExistingRule, GroupCap, KindDuration, LetPass, LetsPass, Millis, Options, WorkerMode,
    WorkerProfile,
};
use sealtasks::TaskType::{self, PreCommit1, PreCommit2};
use sealtasks::{FileType, PathType, TaskId};

use crate::world::{GIB, HOUR, World, allocate, decent, existing, key, proof, request};

const BOTH: [TaskType; 2] = [PreCommit1, PreCommit2];
/// What a PreCommit2 takes here.
const TAKES: u64 = HOUR / 2;

/// Memory for a PreCommit1 or a PreCommit2, and not for both.
fn small(tasks: &[TaskType]) -> WorkerProfile {
    let takes = KindDuration { task: PreCommit2, proof: proof(), millis: Millis::new(TAKES) };
    WorkerProfile { mem_physical: 64 * GIB, durations: vec![takes], ..decent(tasks) }
}

/// Worker 1 does both and runs a PreCommit1; worker 2 does PreCommit2 alone and runs one.
fn busy() -> (World, [TaskId; 2]) {
    let mut world = World::new();
    world.worker(1, small(&BOTH));
    let on_both = world.simple(PreCommit1, 1);
    world.worker(2, small(&[PreCommit2]));
    let on_one = world.simple(PreCommit2, 2);
    assert_eq!((world.on(on_both), world.on(on_one)), (Some(key(1)), Some(key(2))));
    (world, [on_both, on_one])
}

fn wanted_now(world: &mut World, kind: TaskType, number: u64) -> TaskId {
    let since = world.now;
    world.submit(sched::Request { since, ..request(kind, number) })
}

#[test]
fn what_a_worker_of_one_trade_will_do_lets_the_other_task_pass() {
    let (mut world, [on_both, on_one]) = busy();
    let trees = world.simple(PreCommit2, 3);
    let labels = world.simple(PreCommit1, 4);
    world.finish(on_both);
    assert_eq!((world.on(trees), world.on(labels)), (None, Some(key(1))));
    world.finish(on_one);
    assert_eq!(world.on(trees), Some(key(2)));
}

#[test]
fn nothing_idles_for_it() {
    let (mut world, [on_both, _]) = busy();
    let trees = world.simple(PreCommit2, 3);
    world.finish(on_both);
    assert_eq!(world.on(trees), Some(key(1)), "no other task waits");

    let (mut world, [on_both, _]) = busy();
    let trees = world.simple(PreCommit2, 3);
    let mut labels = request(PreCommit1, 4);
    labels.needs = allocate(FileType::Sealed, 32 * GIB);
    let labels = world.submit(labels);
    world.finish(on_both);
    assert_eq!((world.on(trees), world.on(labels)), (Some(key(1)), None), "the other one has no path");
    assert!(
        world.why(labels).contains(&format!("has no {} path", PathType::Sealing)),
        "{}",
        world.why(labels)
    );
}

#[test]
fn both_start_where_there_is_room_for_both() {
    let (mut world, [on_both, _]) = busy();
    world.send(Event::WorkerChanged {
        worker: key(1),
        profile: WorkerProfile { cpus: 64, mem_physical: 128 * GIB, ..small(&BOTH) },
    });
    let filler = world.simple(PreCommit1, 9);
    let trees = world.simple(PreCommit2, 3);
    let labels = world.simple(PreCommit1, 4);
    assert_eq!(world.bound_of(&[filler, trees, labels]), [true, false, false]);
    world.finish(on_both);
    world.finish(filler);
    assert_eq!((world.on(trees), world.on(labels)), (Some(key(1)), Some(key(1))));
}

/// Worker 2 runs one at a time: two wait for it, no third one does.
#[test]
fn more_than_the_others_can_take_do_not_wait_for_them() {
    for (waiting, passes) in [(2, true), (3, false)] {
        let (mut world, [on_both, _]) = busy();
        let trees: Vec<_> = (0..waiting).map(|number| world.simple(PreCommit2, 10 + number)).collect();
        let labels = world.simple(PreCommit1, 4);
        world.finish(on_both);
        assert_eq!(world.on(labels).is_some(), passes, "{waiting} wait");
        assert_eq!(world.on(trees[0]).is_some(), !passes, "{waiting} wait");
    }
}

#[test]
fn a_task_is_passed_for_twice_its_own_time_at_most() {
    for (wait, passes) in [(2 * TAKES, true), (2 * TAKES + 1, false)] {
        let (mut world, [on_both, _]) = busy();
        let trees = wanted_now(&mut world, PreCommit2, 3);
        let labels = wanted_now(&mut world, PreCommit1, 4);
        world.now = world.now.after(Millis::new(wait));
        world.finish(on_both);
        assert_eq!(
            (world.on(labels).is_some(), world.on(trees).is_some()),
            (passes, !passes),
            "after {wait}"
        );
    }
}

#[test]
fn the_explanation_says_whom_it_lets_pass_and_until_when() {
    let (mut world, _) = busy();
    let lets_pass = |world: &World, task| world.sched.why(task).expect("it waits").lets_pass;
    let trees = wanted_now(&mut world, PreCommit2, 3);
    assert_eq!(lets_pass(&world, trees), None, "nobody else waits");
    let labels = wanted_now(&mut world, PreCommit1, 4);
    let whom = vec![LetPass { task: PreCommit1, places: 1, waiting_most: 2 }];
    let until = world.now.after(Millis::new(2 * TAKES + 1));
    assert_eq!(lets_pass(&world, trees), Some(LetsPass { until, waiting: 1, whom }));
    assert_eq!(lets_pass(&world, labels), None, "no other worker does PreCommit1");
    let line = "; lets PC1 pass for another 1h where there is room for one of both: 1 such task waits, and workers \
                without PC1 run 1 of it at once (none lets pass where more than 2 wait)";
    assert!(world.why(trees).contains(line), "{}", world.why(trees));

    let more = [wanted_now(&mut world, PreCommit2, 5), wanted_now(&mut world, PreCommit2, 6)];
    assert_eq!(lets_pass(&world, trees), None, "three wait for one place");
    for task in more {
        world.send(Event::Cancel { task });
    }
    world.now = until.before(Millis::new(1));
    world.send(Event::Tick);
    assert!(lets_pass(&world, trees).is_some());
    world.now = until;
    world.send(Event::Tick);
    assert_eq!(lets_pass(&world, trees), None, "it has waited long enough");
}

#[test]
fn a_due_task_is_not_passed() {
    let mut world = World::with(Options { wait_limit: Millis::new(TAKES), ..Options::default() });
    world.worker(1, small(&BOTH));
    let on_both = world.simple(PreCommit1, 1);
    world.worker(2, small(&[PreCommit2]));
    world.simple(PreCommit2, 2);
    let mut trees = request(PreCommit2, 3);
    trees.wait_limit = None;
    let trees = world.submit(trees);
    let labels = world.simple(PreCommit1, 4);
    world.tick_at(TAKES);
    world.finish(on_both);
    assert_eq!((world.on(trees), world.on(labels)), (Some(key(1)), None));
}

/// Whatever takes the others' places away: nobody waits for a worker that gets nothing.
#[test]
fn others_count_while_they_may_get_such_a_task() {
    type Change = fn(&mut World);
    let worker = key(2);
    let changes: [(&str, Change); 7] = [
        ("disabled", |world| drop(world.send(Event::WorkerEnabled { worker: key(2), enabled: false }))),
        ("suspect", |world| drop(world.send(Event::WorkerSuspect { worker: key(2), suspect: true }))),
        ("lost", |world| drop(world.send(Event::WorkerLost { worker: key(2) }))),
        ("cordoned", |world| {
            drop(world.send(Event::WorkerMode { worker: key(2), mode: WorkerMode::Cordoned }));
        }),
        ("does both", |world| {
            drop(world.send(Event::WorkerChanged { worker: key(2), profile: small(&BOTH) }));
        }),
        ("capped", |world| {
            let profile = WorkerProfile { caps: [(PreCommit2, 0)].into(), ..small(&[PreCommit2]) };
            drop(world.send(Event::WorkerChanged { worker: key(2), profile }));
        }),
        ("too small", |world| {
            let profile = WorkerProfile { mem_physical: GIB, mem_swap: GIB, ..small(&[PreCommit2]) };
            drop(world.send(Event::WorkerChanged { worker: key(2), profile }));
        }),
    ];
    for (name, change) in changes {
        let (mut world, [on_both, _]) = busy();
        let trees = world.simple(PreCommit2, 3);
        let labels = world.simple(PreCommit1, 4);
        change(&mut world);
        world.finish(on_both);
        assert_eq!((world.on(trees), world.on(labels)), (Some(key(1)), None), "{name}");
    }
    // And again when it is back.
    let (mut world, [on_both, _]) = busy();
    let trees = world.simple(PreCommit2, 3);
    let labels = world.simple(PreCommit1, 4);
    world.send(Event::WorkerEnabled { worker, enabled: false });
    world.send(Event::WorkerEnabled { worker, enabled: true });
    world.finish(on_both);
    assert_eq!((world.on(trees), world.on(labels)), (None, Some(key(1))));
}

/// Both workers may start something from the same moment on. Worker 1 holds the PreCommit2's file, and would be the best.
#[test]
fn a_free_worker_of_one_trade_takes_it_at_once_whatever_has_to_be_moved() {
    let mut world = World::new();
    let file = world.path("file", 1000 * GIB);
    let room = world.path("room", 1000 * GIB);
    let none = |name: &str| GroupCap { name: name.to_owned(), tasks: BOTH.into(), most: 0 };
    let caps = |caps| Event::MachineCaps { machine: "box".to_owned(), caps };
    world.send(caps(vec![none("nothing yet")]));
    let shared = |profile: WorkerProfile, path| WorkerProfile {
        machine: Some("box".to_owned()),
        cpus: 64,
        paths: vec![path],
        ..profile
    };
    world.worker(1, shared(small(&BOTH), file));
    world.worker(2, shared(WorkerProfile { mem_physical: 256 * GIB, ..small(&[PreCommit2]) }, room));
    let mut trees = request(PreCommit2, 1);
    trees.needs = existing(ExistingRule::Fetch(PathType::Sealing), &[(FileType::Cache, GIB, &["file"])]);
    let trees = world.submit(trees);
    let labels = world.simple(PreCommit1, 2);
    assert_eq!(world.bound_of(&[trees, labels]), [false, false]);
    world.send(caps(Vec::new()));
    assert_eq!((world.on(trees), world.on(labels)), (Some(key(2)), Some(key(1))));
}
