//! What the scheduler says about a task that does not run.

use sched::{Eta, Event, Finding, KindDuration, Millis, Obstacle, Relief, Why, WorkerProfile};
use sealtasks::TaskId;
use sealtasks::TaskType::{self, AddPiece, PreCommit1, PreCommit2};

use crate::world::{HOUR, World, decent, key, proof};

const MINUTE: u64 = HOUR / 60;

fn took(task: TaskType, millis: u64) -> KindDuration {
    KindDuration { task, proof: proof(), millis: Millis::new(millis) }
}

fn why(world: &World, task: TaskId) -> Why {
    world.sched.why(task).expect("the task is here")
}

/// Two PC1 fill the machine; the first began an hour before the second.
fn two_pc1() -> (World, [TaskId; 3]) {
    let mut world = World::new();
    let durations = vec![took(PreCommit1, 3 * HOUR), took(PreCommit2, 20 * MINUTE)];
    world.worker(1, WorkerProfile { durations, ..decent(&[PreCommit1, PreCommit2]) });
    let first = world.simple(PreCommit1, 41);
    world.tick_at(HOUR + 1);
    let second = world.simple(PreCommit1, 42);
    let third = world.simple(PreCommit1, 43);
    (world, [first, second, third])
}

#[test]
fn a_shortage_says_what_will_end_it_and_when() {
    let (mut world, [_, _, third]) = two_pc1();
    world.tick_at(HOUR + 50 * MINUTE + 1);
    let text = world.why(third);
    let memory = "needs 56 GiB of memory, 15.9 GiB free of 128 GiB; next free in about 1h10m when PC1 of sector 41 ends";
    assert!(text.contains(memory), "{text}");
    assert!(text.starts_with("PC1 of sector 43 (task 3) waits for a worker"), "{text}");
    assert!(text.contains("could start in about 1h10m"), "{text}");
    assert_eq!(why(&world, third).start.map(|start| start.at_once), Some(2));

    world.tick_at(3 * HOUR + 5 * MINUTE + 1);
    let text = world.why(third);
    assert!(text.contains("next free any moment (5m late) when PC1 of sector 41 ends"), "{text}");
}

#[test]
fn what_needs_several_ends_waits_for_the_last_of_them() {
    let (mut world, [_, _, _]) = two_pc1();
    let big = world.simple(PreCommit2, 50);
    let found = &why(&world, big).workers[0];
    let threads =
        |found: &&Finding| matches!(found.obstacle, Obstacle::Short(sched::Shortage::Threads { .. }));
    let relief = found.obstacles.iter().find(threads).and_then(|found| found.relief.clone());
    let Some(Relief::Ends { task, at }) = relief else { panic!("{relief:?}") };
    assert_eq!(task.to_string(), "PC1 of sector 42");
    assert_eq!(at, Eta { wait: Millis::new(3 * HOUR), overdue: Millis::ZERO });
    assert_eq!(found.free, Some(at));
}

#[test]
fn what_never_fits_is_said_to_be_more_than_there_is() {
    let mut world = World::new();
    world.worker(1, WorkerProfile { mem_physical: 48 << 30, ..decent(&[PreCommit1]) });
    let task = world.simple(PreCommit1, 1);
    let text = world.why(task);
    assert!(text.contains("48 GiB free of 48 GiB; more than the machine has"), "{text}");
    assert!(text.contains("when it can start nobody can tell"), "{text}");
    let crowded = WorkerProfile { mem_used: 127 << 30, mem_swap: 0, ..decent(&[PreCommit1]) };
    world.worker(2, crowded);
    let text = world.why(task);
    assert!(text.contains("free when other programs there use less"), "{text}");
}

#[test]
fn those_before_it_in_the_queue_are_counted() {
    let (mut world, _) = two_pc1();
    for number in 44..48 {
        world.simple(PreCommit1, number);
    }
    let last = world.simple(PreCommit1, 99);
    world.simple(AddPiece, 1);
    let told = why(&world, last);
    let place = told.place.expect("it is in the queue");
    assert_eq!((place.ahead, place.ahead_alike, place.ready), (5, 5, 7));
    let start = told.start.expect("it can be told");
    // Five before it, two at once, three hours each, from the end of the first on.
    assert_eq!((start.earliest.get(), start.likely.get()), (2 * HOUR, 2 * HOUR + 2 * 3 * HOUR));
}

#[test]
fn the_answer_survives_json() {
    let (mut world, [first, _, third]) = two_pc1();
    let offered = world.simple(AddPiece, 1);
    world.send(Event::WorkerEnabled { worker: key(1), enabled: false });
    for task in [first, third, offered] {
        let told = why(&world, task);
        let json = serde_json::to_string(&told).expect("it serialises");
        assert_eq!(serde_json::from_str::<Why>(&json).expect("and comes back"), told, "{json}");
    }
    let json = serde_json::to_value(why(&world, third)).expect("it serialises");
    let found = &json["workers"][0]["obstacles"][1];
    assert_eq!(found["obstacle"], "short");
    assert_eq!(found["resource"], "memory");
    assert_eq!(found["relief"]["kind"], "ends");
    assert_eq!(found["relief"]["task"]["sector"]["number"], 41);
    assert_eq!(json["whereabouts"]["state"], "waiting");
}
