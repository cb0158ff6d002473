//! Workers that share a machine.

use sched::{Action, Event, GroupCap, Millis, Outcome, WorkerKey, WorkerProfile};
use sealtasks::TaskId;
use sealtasks::TaskType::{self, AddPiece, Commit2, Finalize, PreCommit1, PreCommit2, Unseal};

use crate::world::{GIB, HOUR, World, decent, key, request};

fn on_box(tasks: &[TaskType]) -> WorkerProfile {
    WorkerProfile { machine: Some("box".to_owned()), ..decent(tasks) }
}

fn with_gpus(tasks: &[TaskType], gpus: &[&str]) -> WorkerProfile {
    let gpus = gpus.iter().map(|name| (*name).to_owned()).collect();
    WorkerProfile { gpus, ..on_box(tasks) }
}

fn cap(name: &str, tasks: &[TaskType], most: u32) -> GroupCap {
    GroupCap { name: name.to_owned(), tasks: tasks.iter().copied().collect(), most }
}

/// The devices that the last start of this task got.
fn devices(world: &World, task: TaskId) -> Vec<(usize, u64)> {
    let gpus = world.log.iter().rev().find_map(|action| match action {
        Action::Start(to) if to.attempt.task == task => Some(to.plan.gpus.clone()),
        _ => None,
    });
    gpus.expect("it was started").iter().map(|share| (share.device, share.thousandths)).collect()
}

#[test]
fn memory_is_shared_by_all_workers_of_a_machine() {
    let mut world = World::new();
    world.worker(1, on_box(&[PreCommit1]));
    world.worker(2, on_box(&[PreCommit1]));
    let tasks: Vec<_> = (1..=3).map(|number| world.simple(PreCommit1, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, true, false], "128 GiB, not twice that");
    assert_ne!(world.on(tasks[0]), world.on(tasks[1]), "an idle worker goes first");
    let why = world.why(tasks[2]);
    assert!(why.contains("machine box: needs 56 GiB of memory, 15.9 GiB free of 128 GiB"), "{why}");
    world.finish(tasks[0]);
    assert!(world.on(tasks[2]).is_some(), "what one worker gives back the other may use");
}

#[test]
fn what_a_worker_and_its_machine_are_both_short_of_is_told_once() {
    let mut world = World::new();
    world.worker(1, on_box(&[PreCommit1]));
    world.worker(2, on_box(&[AddPiece]));
    let tasks: Vec<_> = (1..=3).map(|number| world.simple(PreCommit1, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, true, false]);
    let why = world.why(tasks[2]);
    assert_eq!(why.matches("needs 56 GiB of memory,").count(), 1, "{why}");
    assert!(!why.contains("machine box"), "nobody else holds anything: {why}");
    let piece = world.simple(AddPiece, 4);
    assert_eq!(world.on(piece), Some(key(2)));
    let why = world.why(tasks[2]);
    assert_eq!(why.matches("needs 56 GiB of memory,").count(), 1, "{why}");
    assert!(
        why.contains("machine box: needs 56 GiB of memory, 10.9 GiB free of 128 GiB; next free"),
        "{why}"
    );
    // A worker that is smaller than its machine is short for a reason of its own.
    let profile = WorkerProfile { mem_physical: 120 * GIB, ..on_box(&[PreCommit1]) };
    world.send(Event::WorkerChanged { worker: key(1), profile });
    let why = world.why(tasks[2]);
    assert_eq!(why.matches("needs 56 GiB of memory,").count(), 2, "{why}");
}

#[test]
fn cpu_threads_are_shared_and_the_largest_report_counts() {
    let mut world = World::new();
    world.worker(1, on_box(&[PreCommit2]));
    let first = world.simple(PreCommit2, 1);
    // It may not use more than half of the machine itself; the machine has as many as the other one says.
    world.worker(2, WorkerProfile { cpus: 16, ..on_box(&[AddPiece]) });
    let second = world.simple(AddPiece, 2);
    assert_eq!(world.on(second), None);
    let why = world.why(second);
    assert!(why.contains("machine box: needs 1 CPU thread, 0 free of 32"), "{why}");
    let profile = WorkerProfile { cpus: 40, ..on_box(&[PreCommit2]) };
    world.send(Event::WorkerChanged { worker: key(1), profile });
    assert_eq!(world.on(second), Some(key(2)), "a change of one worker is seen by the others");
    world.finish(first);
}

#[test]
fn one_device_is_not_given_twice() {
    let mut world = World::new();
    world.worker(1, with_gpus(&[PreCommit2], &["3090"]));
    let mut profile = with_gpus(&[Unseal], &["3090", "3090"]);
    profile.cpus = 64;
    world.worker(2, profile);
    let whole = world.simple(PreCommit2, 1);
    let halves: Vec<_> = (2..=4).map(|number| world.simple(Unseal, number)).collect();
    assert_eq!(devices(&world, whole), [(0, 1000)]);
    // The first device is taken by the other worker; the second one holds two halves.
    assert_eq!(world.bound_of(&halves), [true, true, false]);
    assert_eq!((devices(&world, halves[0]), devices(&world, halves[1])), (vec![(1, 500)], vec![(1, 500)]));
    let why = world.why(halves[2]);
    assert!(why.contains("machine box: needs 0.500 GPUs, 0 free of 2"), "{why}");
    world.finish(whole);
    assert_eq!(devices(&world, halves[2]), [(0, 500)]);
}

#[test]
fn devices_of_another_name_are_others() {
    let mut world = World::new();
    let roomy = |profile| WorkerProfile { cpus: 64, ..profile };
    world.worker(1, roomy(with_gpus(&[PreCommit2], &["3090"])));
    world.worker(2, roomy(with_gpus(&[PreCommit2], &["a100"])));
    let tasks: Vec<_> = (1..=3).map(|number| world.simple(PreCommit2, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, true, false]);
}

#[test]
fn caps_of_a_machine_hold_over_its_workers_and_change_while_tasks_run() {
    let mut world = World::new();
    let set = |world: &mut World, most| {
        let caps = vec![cap("gpu", &[PreCommit2, Commit2, AddPiece], most)];
        world.send(Event::MachineCaps { machine: "box".to_owned(), caps })
    };
    // Before anybody is there.
    set(&mut world, 2);
    world.worker(1, on_box(&[AddPiece]));
    world.worker(2, on_box(&[AddPiece]));
    world.worker(3, decent(&[AddPiece]));
    world.send(Event::WorkerEnabled { worker: key(3), enabled: false });
    let tasks: Vec<_> = (1..=4).map(|number| world.simple(AddPiece, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, true, false, false]);
    let why = world.why(tasks[2]);
    assert!(why.contains("machine box runs 2 of its cap `gpu`, at most 2 may"), "{why}");
    set(&mut world, 3);
    assert_eq!(world.bound_of(&tasks), [true, true, true, false]);
    // Lowered below what runs: nothing ends, nothing starts until enough has ended.
    let actions = set(&mut world, 1);
    assert!(!actions.iter().any(|action| matches!(action, Action::Abort { .. })), "{actions:?}");
    world.finish(tasks[0]);
    world.finish(tasks[1]);
    assert_eq!(world.bound_of(&tasks[2..]), [true, false]);
    world.finish(tasks[2]);
    assert_eq!(world.bound_of(&tasks[3..]), [true]);
    let more = world.simple(AddPiece, 9);
    assert_eq!(world.on(more), None);
    world.send(Event::MachineCaps { machine: "box".to_owned(), caps: vec![] });
    assert!(world.on(more).is_some());
}

#[test]
fn a_workers_own_group_caps_hold_and_change_while_tasks_run() {
    let mut world = World::new();
    let profile = |most| WorkerProfile {
        group_caps: vec![cap("card", &[AddPiece, PreCommit1], most)],
        ..decent(&[AddPiece, PreCommit1, Finalize])
    };
    world.worker(1, profile(2));
    let tasks = [world.simple(AddPiece, 1), world.simple(PreCommit1, 2), world.simple(AddPiece, 3)];
    assert_eq!(world.bound_of(&tasks), [true, true, false]);
    let why = world.why(tasks[2]);
    assert!(why.contains("runs 2 of its cap `card`, at most 2 may"), "{why}");
    let other = world.simple(Finalize, 4);
    assert!(world.on(other).is_some(), "the cap does not name it");
    world.send(Event::WorkerChanged { worker: key(1), profile: profile(1) });
    world.finish(tasks[0]);
    assert_eq!(world.on(tasks[2]), None);
    world.send(Event::WorkerChanged { worker: key(1), profile: profile(2) });
    assert!(world.on(tasks[2]).is_some());
    let many = (0..300).map(|number| cap(&number.to_string(), &[AddPiece], 1)).collect();
    let profile = WorkerProfile { group_caps: many, ..profile(2) };
    let actions = world.send(Event::WorkerChanged { worker: key(1), profile });
    assert!(matches!(actions[..], [Action::Refused { .. }]), "a cap is never forgotten: {actions:?}");
}

fn due(world: &mut World, task: TaskType) -> TaskId {
    let mut request = request(task, 99);
    request.wait_limit = Some(Millis::new(HOUR));
    let task = world.submit(request);
    world.tick_at(HOUR);
    task
}

#[test]
fn a_reservation_holds_against_the_machines_other_workers() {
    let mut world = World::new();
    world.worker(1, on_box(&[PreCommit2]));
    world.worker(2, on_box(&[AddPiece, Finalize]));
    let before = world.simple(AddPiece, 1);
    let big = due(&mut world, PreCommit2);
    assert_eq!(world.on(big), None, "32 threads, of which one is taken");
    let late = world.simple(AddPiece, 2);
    assert_eq!(world.on(late), None);
    let why = world.why(late);
    assert!(why.contains("machine box is kept for PC2 of sector 99"), "{why}");
    let light = world.simple(Finalize, 3);
    assert!(world.on(light).is_some(), "what costs nothing is never held up");
    world.finish(before);
    assert_eq!(world.on(big), Some(key(1)), "it starts when what ran before has ended");
    world.finish(big);
    assert!(world.on(late).is_some());
}

#[test]
fn a_reservation_holds_against_others_under_its_cap() {
    let mut world = World::new();
    let caps = vec![cap("gpu", &[PreCommit2, Unseal], 1)];
    let profile = decent(&[AddPiece, PreCommit2, Unseal]);
    world.worker(1, WorkerProfile { group_caps: caps, cpus: 33, ..profile });
    let before: Vec<_> = (1..=2).map(|number| world.simple(AddPiece, number)).collect();
    let big = due(&mut world, PreCommit2);
    assert_eq!(world.on(big), None, "33 threads, of which two are taken");
    // There is a thread for it beside the due one, and nothing under the cap runs. It would take the cap's one place.
    let late = world.simple(Unseal, 3);
    assert_eq!(world.on(late), None);
    assert!(world.why(late).contains("is kept for PC2 of sector 99"), "{}", world.why(late));
    world.finish(before[0]);
    assert!(world.on(big).is_some());
}

#[test]
fn a_lost_workers_attempts_count_on_its_machine_until_they_end() {
    let mut world = World::new();
    let first = world.worker(1, on_box(&[PreCommit1]));
    world.worker(2, on_box(&[PreCommit1]));
    let tasks: Vec<_> = (1..=2).map(|number| world.simple(PreCommit1, number)).collect();
    let (mine, _) =
        if world.on(tasks[0]) == Some(first) { (tasks[0], tasks[1]) } else { (tasks[1], tasks[0]) };
    world.send(Event::WorkerLost { worker: first });
    let next = world.simple(PreCommit1, 3);
    assert_eq!(world.on(next), None, "its program may still run");
    let again = WorkerKey { generation: 1, ..first };
    world.send(Event::WorkerUp { worker: again, profile: on_box(&[PreCommit1]) });
    assert_eq!(world.on(next), None);
    let attempt = world.bound[&mine].0;
    let adopted = Event::Adopt { attempt, worker: again, request: request(PreCommit1, 1), holds: vec![] };
    world.send(adopted);
    let used: u128 = world.sched.snapshot().workers.iter().map(|worker| worker.mem_used_min).sum();
    assert_eq!(used, u128::from(2 * 56 * GIB + 2 * (10 << 20)), "two tasks, each charged once");
    world.end(mine, Outcome::Finished);
    assert_eq!(world.on(next), Some(again));
}

#[test]
fn a_worker_that_changes_its_machine_takes_its_load_along() {
    let mut world = World::new();
    world.worker(1, on_box(&[PreCommit2]));
    world.worker(2, on_box(&[PreCommit1]));
    let first = world.simple(PreCommit2, 1);
    let second = world.simple(PreCommit1, 2);
    assert_eq!(world.bound_of(&[first, second]), [true, false]);
    let profile = WorkerProfile { machine: Some("other".to_owned()), ..on_box(&[PreCommit2]) };
    world.send(Event::WorkerChanged { worker: key(1), profile });
    assert!(world.on(second).is_some());
    let third = world.simple(PreCommit2, 3);
    world.finish(first);
    assert_eq!(world.on(third), Some(key(1)));
}
