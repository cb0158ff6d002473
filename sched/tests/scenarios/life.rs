//! Attempts, workers that come and go, and events that come late.

use sched::{Action, End, Event, Millis, Options, Outcome, Refusal, Sched, WorkerKey, WorkerProfile};
use sealtasks::TaskType::{AddPiece, Commit2, PreCommit1, Unseal};
use sealtasks::{AttemptId, TaskId};

use crate::world::{GIB, World, decent, key, request};

#[test]
fn a_late_or_repeated_event_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let task = world.simple(PreCommit1, 1);
    let first = world.bound[&task].0;
    world.end(task, Outcome::Retry { not_before: Millis::ZERO });
    let second = world.bound[&task].0;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    let before = world.sched.snapshot();
    for event in [
        Event::Ended { attempt: first, outcome: Outcome::Finished },
        Event::Started { attempt: first },
        Event::StageDone { attempt: first },
        Event::StartFailed { attempt: first, reason: String::new(), not_before: Millis::ZERO },
    ] {
        let actions = world.send(event);
        assert!(
            matches!(actions[..], [Action::Refused { refusal: Refusal::AttemptUnknown { .. } }]),
            "{actions:?}"
        );
        assert_eq!(world.sched.snapshot(), before);
    }
    world.finish(task);
    let actions = world.send(Event::Ended { attempt: second, outcome: Outcome::Finished });
    assert!(matches!(actions[..], [Action::Refused { .. }]), "{actions:?}");
}

#[test]
fn attempts_are_numbered_from_where_the_durable_state_says() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let mut again = request(PreCommit1, 1);
    again.attempts = 41;
    let task = world.submit(again);
    assert_eq!(world.bound[&task].0.attempt, 42);
    let mut spent = request(PreCommit1, 2);
    spent.attempts = u32::MAX;
    let refused = world.submit(spent);
    assert_eq!(world.sched.why(refused), None);
}

#[test]
fn a_running_task_that_is_cancelled_keeps_its_resources_until_it_ends() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let tasks: Vec<_> = (1..=3).map(|number| world.simple(PreCommit1, number)).collect();
    let attempt = world.bound[&tasks[0]].0;
    assert_eq!(world.send(Event::Cancel { task: tasks[0] }), [Action::Abort { attempt, worker: key(1) }]);
    assert_eq!(world.send(Event::Cancel { task: tasks[0] }), [], "once is enough");
    assert_eq!(world.on(tasks[2]), None);
    let actions = world.end(tasks[0], Outcome::Retry { not_before: Millis::ZERO });
    assert_eq!(actions[0], Action::Left { task: tasks[0], end: End::Cancelled });
    assert!(world.on(tasks[2]).is_some());
}

#[test]
fn a_lost_worker_gets_nothing_and_its_attempts_wait_for_their_end() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let task = world.simple(PreCommit1, 1);
    world.send(Event::WorkerLost { worker: key(1) });
    assert_eq!(world.sched.snapshot().bound.len(), 1, "nobody knows yet what became of it");
    let waiting = world.simple(PreCommit1, 2);
    assert_eq!(world.on(waiting), None);
    world.end(task, Outcome::Retry { not_before: Millis::ZERO });
    assert_eq!(world.sched.snapshot().workers, []);
    world.worker(2, decent(&[PreCommit1]));
    assert_eq!((world.on(task), world.on(waiting)), (Some(key(2)), Some(key(2))));
}

#[test]
fn an_attempt_is_adopted_by_the_next_life_of_its_worker() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let task = world.simple(PreCommit1, 1);
    let attempt = world.bound[&task].0;
    world.send(Event::WorkerLost { worker: key(1) });
    let again = WorkerKey { generation: 1, ..key(1) };
    world.send(Event::WorkerUp { worker: again, profile: decent(&[PreCommit1]) });
    let request = request(PreCommit1, 1);
    world.send(Event::Adopt { attempt, worker: again, request, holds: vec![] });
    let snapshot = world.sched.snapshot();
    assert_eq!(snapshot.workers.len(), 1, "the old life is forgotten");
    assert_eq!((snapshot.bound[0].worker, snapshot.bound[0].attempt), (again, attempt));
    assert_eq!(snapshot.workers[0].mem_used_min, u128::from(56 * GIB + (10 << 20)));
}

#[test]
fn after_a_restart_adopted_attempts_are_charged_before_anything_new() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1]));
    let adopted = AttemptId { task: TaskId::new(70), attempt: 3 };
    let mut running = request(PreCommit1, 1);
    running.attempts = 3;
    world.send(Event::Adopt { attempt: adopted, worker: key(1), request: running, holds: vec![] });
    let tasks: Vec<_> = (2..=3).map(|number| world.simple(PreCommit1, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, false]);
    world.bound.insert(adopted.task, (adopted, key(1)));
    world.finish(adopted.task);
    assert_eq!(world.bound_of(&tasks), [true, true]);
}

#[test]
fn gpus_are_shared_per_device() {
    let mut world = World::new();
    let gpus = vec!["left".to_owned(), "right".to_owned()];
    let profile = WorkerProfile { gpus, mem_physical: 512 * GIB, ..decent(&[Unseal, Commit2]) };
    world.worker(1, WorkerProfile { cpus: 64, ..profile });
    let halves: Vec<_> = (1..=2).map(|number| world.simple(Unseal, number)).collect();
    let whole = world.simple(Commit2, 3);
    let third = world.simple(Unseal, 4);
    assert_eq!(world.bound_of(&halves), [true, true]);
    assert!(world.on(whole).is_some(), "two halves share one device, so the other is whole");
    assert_eq!(world.on(third), None);
    assert!(world.why(third).contains("needs 0.500 GPUs, 0 free of 2"), "{}", world.why(third));
    assert_eq!(world.sched.snapshot().workers[0].gpu_used, [1000, 1000]);
}

#[test]
fn caps_and_base_memory_are_per_type() {
    let mut world = World::new();
    let caps = [(AddPiece, 2)].into();
    world.worker(1, WorkerProfile { caps, ..decent(&[AddPiece]) });
    let tasks: Vec<_> = (1..=3).map(|number| world.simple(AddPiece, number)).collect();
    assert_eq!(world.bound_of(&tasks), [true, true, false]);
    assert!(world.why(tasks[2]).contains("runs 2 of this type, at most 2 may"), "{}", world.why(tasks[2]));
    let used = world.sched.snapshot().workers[0].mem_used_min;
    assert_eq!(used, u128::from(2 * 4 * GIB + GIB), "the shared part once");
    world.send(Event::WorkerChanged { worker: key(1), profile: decent(&[AddPiece]) });
    assert!(world.on(tasks[2]).is_some(), "a cap that is lifted lets the next one in");
}

#[test]
fn bounds_and_repetitions_are_refused_by_name() {
    let mut world = World::with(Options { tasks_max: 1, ..Options::default() });
    let task = world.simple(PreCommit1, 1);
    let again = world.send(Event::Submit { task, request: request(PreCommit1, 1) });
    assert_eq!(again, [Action::Refused { refusal: Refusal::TaskKnown { task } }]);
    let more = TaskId::new(500);
    let actions = world.send(Event::Submit { task: more, request: request(PreCommit1, 2) });
    assert_eq!(actions, [Action::Refused { refusal: Refusal::TasksFull { task: more, most: 1 } }]);
    let worker = key(7);
    let actions = world.send(Event::WorkerEnabled { worker, enabled: true });
    assert_eq!(actions, [Action::Refused { refusal: Refusal::WorkerUnknown { worker } }]);
}

/// Numbers that a foreign worker may send overflow nothing.
#[test]
fn absurd_numbers_are_only_numbers() {
    let mut world = World::new();
    let mut profile = decent(&[PreCommit1, Commit2]);
    (profile.mem_physical, profile.mem_swap, profile.cpus) = (u64::MAX, u64::MAX, u64::MAX);
    for row in &mut profile.resources {
        row.resources.min_memory = u64::MAX / 2;
        row.resources.max_memory = u64::MAX;
        row.resources.base_min_memory = u64::MAX;
        row.resources.gpu_utilization = f64::INFINITY;
        row.resources.max_parallelism = i64::MAX;
    }
    profile.gpus = vec!["one".to_owned()];
    world.worker(1, profile.clone());
    let task = world.simple(PreCommit1, 1);
    assert_eq!(world.on(task), None);
    profile.ignore_resources = true;
    world.send(Event::WorkerChanged { worker: key(1), profile });
    let more = world.simple(Commit2, 2);
    assert_eq!(world.bound_of(&[task, more]), [true, true]);
    world.finish(task);
    world.finish(more);
    assert_eq!(world.sched.snapshot().workers[0].mem_used_max, 0);
}

/// A recorded history replays to the same actions.
#[test]
fn events_survive_being_written_down() {
    let events = [
        Event::WorkerUp { worker: key(1), profile: decent(&[PreCommit1, AddPiece]) },
        Event::PathSeen { path: crate::world::path_facts("a", 9) },
        Event::Submit { task: TaskId::new(1), request: request(PreCommit1, 1) },
        Event::Ended { attempt: AttemptId { task: TaskId::new(1), attempt: 1 }, outcome: Outcome::Finished },
    ];
    let play = |events: &[Event]| {
        let mut sched = Sched::new(Options::default());
        events.iter().for_each(|event| sched.handle(Millis::new(5), event.clone()));
        std::iter::from_fn(|| sched.poll_action()).collect::<Vec<_>>()
    };
    let text = serde_json::to_string(&events).expect("events are plain values");
    let read: Vec<Event> = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(read, events);
    assert_eq!(play(&read), play(&events));
    assert!(play(&events).len() >= 2);
}
