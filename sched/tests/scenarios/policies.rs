//! Which worker is chosen among several that would do.

use std::collections::BTreeMap;

use sched::{Event, ExistingRule, Options, Outcome, Policy, WorkerKey, WorkerProfile};
use sealtasks::FileType::{Cache, Sealed};
use sealtasks::PathType::Sealing;
use sealtasks::TaskId;
use sealtasks::TaskType::{AddPiece, Commit1, PreCommit1, PreCommit2};

use crate::world::{GIB, World, decent, existing, key, path_facts, request, storage};

const DETERMINISTIC: [Policy; 4] =
    [Policy::Utilization, Policy::Spread, Policy::SpreadTasks, Policy::SpreadQcount];

fn under(policy: Policy) -> World {
    World::with(Options { policy, ..Options::default() })
}

/// Takes eight PC1 at once.
fn large() -> WorkerProfile {
    WorkerProfile { mem_physical: 512 * GIB, mem_swap: 512 * GIB, ..decent(&[AddPiece, PreCommit1]) }
}

fn loads(world: &World, workers: u128) -> Vec<usize> {
    let on = |number: u128| world.bound.values().filter(|(_, worker)| *worker == key(number)).count();
    (1..=workers).map(on).collect()
}

#[test]
fn n_equal_workers_and_n_equal_tasks_give_one_each() {
    for policy in DETERMINISTIC {
        let mut world = under(policy);
        for number in 1..=19 {
            world.worker(number, large());
        }
        for number in 1..=19 {
            world.simple(PreCommit1, number);
        }
        assert_eq!(loads(&world, 19), [1; 19], "{policy:?}");
        // And again, whatever was given to whom before: this worker got three more.
        let all: Vec<TaskId> = world.bound.keys().copied().collect();
        all.into_iter().for_each(|task| drop(world.finish(task)));
        (2..=19).for_each(|number| {
            drop(world.send(Event::WorkerEnabled { worker: key(number), enabled: false }))
        });
        for number in 0..3 {
            let task = world.simple(PreCommit1, number);
            world.finish(task);
        }
        (2..=19)
            .for_each(|number| drop(world.send(Event::WorkerEnabled { worker: key(number), enabled: true })));
        for number in 20..=38 {
            world.simple(PreCommit1, number);
        }
        assert_eq!(loads(&world, 19), [1; 19], "{policy:?}, with a past");
    }
}

/// 19 workers, each of which could take eight; 40 tasks at once, and then as many again as others end, in a jumble.
#[test]
fn nobody_has_more_than_three_while_another_has_none() {
    for policy in DETERMINISTIC {
        let mut world = under(policy);
        for number in 1..=19 {
            world.worker(number, large());
        }
        let check = |world: &World| {
            let loads = loads(world, 19);
            let is_fair = !loads.contains(&0) || loads.iter().all(|load| *load <= 3);
            assert!(is_fair, "{policy:?}: {loads:?}");
        };
        for number in 1..=40 {
            world.simple(PreCommit1, number);
            check(&world);
        }
        assert!(loads(&world, 19).iter().all(|load| (2..=3).contains(load)), "{policy:?}");
        let mut jumble = 7_usize;
        for number in 41..=400 {
            jumble = jumble.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if jumble >> 33 & 1 == 0 || world.bound.len() < 20 {
                world.simple(PreCommit1, number);
            } else {
                // What ends may leave a worker with nothing while another one has more: only what starts is looked at.
                let task = *world.bound.keys().nth((jumble >> 40) % world.bound.len()).expect("one is bound");
                world.finish(task);
                continue;
            }
            let started = world.bound.values().next_back().expect("one is bound").1;
            let loads = loads(&world, 19);
            let of_started = loads[(1..=19).position(|number| key(number) == started).expect("a worker")];
            assert!(of_started <= 3 || !loads.contains(&0), "{policy:?}: {loads:?}, {started}");
        }
    }
}

#[test]
fn an_idle_remote_worker_goes_before_the_managers_own_under_every_deterministic_policy() {
    for policy in DETERMINISTIC {
        let mut world = under(policy);
        let worker = world.worker(2, large());
        // Given more in the past than the one that comes now.
        for number in 1..=3 {
            let task = world.simple(PreCommit1, number);
            world.finish(task);
        }
        world.worker(1, WorkerProfile { is_local: true, ..large() });
        let tasks = [world.simple(PreCommit1, 4), world.simple(PreCommit1, 5)];
        assert_eq!(tasks.map(|task| world.on(task)), [Some(worker), Some(key(1))], "{policy:?}");
    }
}

/// Two busy workers, the first of which is fuller, the second of which was given more, and more of this type.
#[test]
fn each_policy_has_its_own_order() {
    let chosen = |policy: Policy, type_wanted| -> WorkerKey {
        let mut world = under(policy);
        world.worker(1, large());
        let heavy = world.simple(PreCommit1, 1);
        world.worker(2, large());
        let light = world.simple(AddPiece, 2);
        assert_eq!([heavy, light].map(|task| world.on(task)), [Some(key(1)), Some(key(2))]);
        world.send(Event::WorkerEnabled { worker: key(1), enabled: false });
        for number in 3..=5 {
            let task = world.simple(AddPiece, number);
            world.finish(task);
        }
        world.send(Event::WorkerEnabled { worker: key(1), enabled: true });
        let task = world.simple(type_wanted, 9);
        world.on(task).expect("there is room")
    };
    assert_eq!(chosen(Policy::Utilization, AddPiece), key(2), "the less used");
    assert_eq!(chosen(Policy::Spread, AddPiece), key(1), "the one that was given less");
    assert_eq!(chosen(Policy::SpreadTasks, AddPiece), key(1), "the one that was given fewer of these");
    assert_eq!(chosen(Policy::SpreadTasks, PreCommit1), key(2), "the one that was given fewer of these");
    // Both hold one task: then the less used.
    assert_eq!(chosen(Policy::SpreadQcount, AddPiece), key(2));
}

#[test]
fn the_count_of_tasks_held_decides_under_spread_qcount() {
    let mut world = under(Policy::SpreadQcount);
    world.worker(1, large());
    let small: Vec<_> = (1..=2).map(|number| world.simple(AddPiece, number)).collect();
    world.worker(2, large());
    let big = world.simple(PreCommit1, 3);
    assert_eq!(world.on(big), Some(key(2)), "it is idle");
    let next = world.simple(AddPiece, 4);
    assert_eq!(world.on(next), Some(key(2)), "one held against two, though it is fuller");
    assert!(small.iter().all(|task| world.on(*task) == Some(key(1))));
}

#[test]
fn a_newcomer_is_not_given_everything_to_make_up_for_the_past() {
    for policy in [Policy::Spread, Policy::SpreadTasks] {
        let mut world = under(policy);
        world.worker(1, large());
        for number in 1..=50 {
            let task = world.simple(PreCommit1, number);
            world.finish(task);
        }
        world.worker(2, large());
        for number in 60..66 {
            world.simple(PreCommit1, number);
        }
        assert_eq!(loads(&world, 2), [3, 3], "{policy:?}");
    }
}

#[test]
fn the_policy_changes_while_tasks_run() {
    let mut world = under(Policy::SpreadQcount);
    world.worker(1, large());
    world.worker(2, large());
    world.simple(PreCommit1, 1);
    world.simple(AddPiece, 2);
    world.simple(AddPiece, 3);
    let before = loads(&world, 2);
    world.send(Event::PolicySet { policy: Policy::Utilization });
    let task = world.simple(AddPiece, 4);
    assert_eq!(world.on(task), Some(key(2)), "the one without the PC1, from {before:?}");
}

#[test]
fn random_uses_everybody_and_repeats_with_its_seed() {
    let play = |seed: u64| -> Vec<WorkerKey> {
        let mut world = World::with(Options { policy: Policy::Random, seed, ..Options::default() });
        for number in 1..=4 {
            world.worker(number, large());
        }
        let one = |number| {
            let task = world.simple(AddPiece, number);
            let worker = world.on(task).expect("there is room");
            world.end(task, Outcome::Finished);
            worker
        };
        (1..=400).map(one).collect()
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
    let mut counts = BTreeMap::new();
    play(3).into_iter().for_each(|worker| *counts.entry(worker).or_insert(0) += 1);
    assert!(counts.len() == 4 && counts.values().all(|count| (50..=150).contains(count)), "{counts:?}");
}

/// A path of its own for each worker, which fetches at this rate.
fn with_rate(world: &mut World, number: u128, bandwidth: u64) {
    let path = path_facts(&format!("own{number}"), 4000 * GIB);
    let paths = vec![path.id.clone()];
    world.send(Event::PathSeen { path });
    world.worker(number, WorkerProfile { bandwidth, paths, ..decent(&[PreCommit2, Commit1]) });
}

fn somewhere(world: &mut World) {
    world.path("far", 0);
    world.worker(99, WorkerProfile { paths: vec![storage("far")], ..decent(&[]) });
}

#[test]
fn files_go_where_they_arrive_first() {
    let mut world = World::new();
    somewhere(&mut world);
    // 1 Gbit/s, 10 Gbit/s, and one that nobody has measured: the median.
    with_rate(&mut world, 1, 110_000_000);
    with_rate(&mut world, 2, 1_100_000_000);
    let mut wanted = request(PreCommit2, 1);
    wanted.needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, 450 * GIB, &["far"])]);
    let task = world.submit(wanted.clone());
    assert_eq!(world.on(task), Some(key(2)));
    // Most of it is on the slow one, which needs minutes for the 16 GiB that are missing.
    world.finish(task);
    wanted.needs = existing(
        ExistingRule::Fetch(Sealing),
        &[(Cache, 450 * GIB, &["far", "own1"]), (Sealed, 16 * GIB, &["far"])],
    );
    let task = world.submit(wanted.clone());
    assert_eq!(world.on(task), Some(key(1)));
    // Only a little is on the slow one, which would need hours for the rest.
    world.finish(task);
    wanted.needs = existing(
        ExistingRule::Fetch(Sealing),
        &[(Cache, 450 * GIB, &["far"]), (Sealed, 32 * GIB, &["far", "own1"])],
    );
    let task = world.submit(wanted);
    assert_eq!(world.on(task), Some(key(2)));
}

#[test]
fn links_of_one_kind_count_as_equally_fast() {
    let mut world = World::new();
    somewhere(&mut world);
    with_rate(&mut world, 1, 900_000_000);
    with_rate(&mut world, 2, 1_150_000_000);
    // Unknown: taken for the median.
    with_rate(&mut world, 3, 0);
    let mut workers: Vec<_> = (1..=3)
        .filter_map(|number| {
            let mut wanted = request(Commit1, number);
            wanted.needs = existing(ExistingRule::Fetch(Sealing), &[(Cache, GIB, &["far"])]);
            let task = world.submit(wanted);
            world.on(task)
        })
        .collect();
    workers.sort_unstable();
    assert_eq!(workers, [key(1), key(2), key(3)], "the policy decides, not the last measurement");
}
