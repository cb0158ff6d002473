//! Tasks that have waited too long.

use sched::{Event, KindDuration, Millis, ReservationUse, WorkerProfile};
use sealtasks::FileType::{Cache, Unsealed};
use sealtasks::TaskType::{self, AddPiece, Commit1, Finalize, PreCommit1, PreCommit2};
use sealtasks::{AttemptId, TaskId};

use crate::world::{GIB, HOUR, World, allocate, decent, key, proof, request};

fn pc2_due_after(world: &mut World, limit: u64) -> TaskId {
    let mut request = request(PreCommit2, 99);
    request.wait_limit = Some(Millis::new(limit));
    world.submit(request)
}

#[test]
fn a_stream_of_small_tasks_does_not_pass_a_due_one_for_ever() {
    let mut world = World::new();
    world.worker(1, decent(&[AddPiece, PreCommit2, Finalize]));
    let mut running = vec![world.simple(AddPiece, 1), world.simple(AddPiece, 2)];
    let big = pc2_due_after(&mut world, HOUR);
    // Before it is due, others pass: the machine does not stand idle for it.
    for number in 3..10 {
        running.push(world.simple(AddPiece, number));
        world.finish(running[0]);
        running.remove(0);
        assert!(running.iter().all(|task| world.on(*task).is_some()));
    }
    world.tick_at(HOUR);
    let late = world.simple(AddPiece, 20);
    assert_eq!(world.on(late), None);
    assert!(world.why(late).contains("is kept for PC2 of sector 99, which is due"), "{}", world.why(late));
    assert!(world.why(big).contains("is due, and fred ("), "{}", world.why(big));
    let light = world.simple(Finalize, 21);
    assert!(world.on(light).is_some(), "what costs nothing is never held up");
    for task in running {
        world.finish(task);
    }
    assert_eq!(world.on(big), Some(key(1)), "it starts when those that ran before have ended");
    world.finish(big);
    assert!(world.on(late).is_some());
}

#[test]
fn others_may_pass_where_they_fit_beside_the_due_one() {
    let mut world = World::new();
    let mut profile = decent(&[AddPiece, PreCommit1, PreCommit2]);
    // None of them would be over in time.
    (profile.cpus, profile.durations) = (36, vec![took(AddPiece, 9 * HOUR), took(PreCommit1, 3 * HOUR)]);
    world.worker(1, profile);
    let running: Vec<_> = (1..=2).map(|number| world.simple(PreCommit1, number)).collect();
    let blocker = world.simple(AddPiece, 3);
    let big = pc2_due_after(&mut world, HOUR);
    world.tick_at(HOUR);
    assert_eq!(world.on(big), None);
    // 36 threads, 32 for the due one, which waits for the first PC1: two more may run beside it, and not a third.
    let beside: Vec<_> = (4..=6).map(|number| world.simple(AddPiece, number)).collect();
    assert_eq!(world.bound_of(&beside), [true, true, false]);
    assert_eq!(waits_for(&world), [running[0]]);
    assert_eq!(world.on(big), None);
    world.finish(running[0]);
    assert!(world.on(big).is_some(), "it did not have to wait for those that came after");
    assert!(world.on(blocker).is_some() && world.on(running[1]).is_some());
}

fn took(task: TaskType, millis: u64) -> KindDuration {
    KindDuration { task, proof: proof(), millis: Millis::new(millis) }
}

fn reservation(world: &World) -> ReservationUse {
    let reservations = world.sched.snapshot().reservations;
    assert_eq!(reservations.len(), 1, "{reservations:?}");
    reservations[0].clone()
}

fn waits_for(world: &World) -> Vec<TaskId> {
    reservation(world).waits_for.iter().map(|attempt| attempt.task).collect()
}

const MINUTE: u64 = HOUR / 60;

/// PC1 takes three hours, AP ten minutes, FIN a minute; a PC1 runs, and a PC2 that needs all threads is due after an hour.
fn kept() -> (World, TaskId, TaskId) {
    let mut world = World::new();
    let durations = vec![took(PreCommit1, 3 * HOUR), took(AddPiece, 10 * MINUTE), took(Finalize, MINUTE)];
    world.worker(1, WorkerProfile { durations, ..decent(&[AddPiece, PreCommit1, PreCommit2, Finalize]) });
    let long = world.simple(PreCommit1, 1);
    let big = pc2_due_after(&mut world, HOUR);
    world.tick_at(HOUR);
    (world, long, big)
}

#[test]
fn what_is_over_in_time_may_pass() {
    let (mut world, long, big) = kept();
    let start_by = 1 + 3 * HOUR;
    let kept = reservation(&world);
    assert_eq!((kept.made_at, kept.start_by), (Millis::new(HOUR), Millis::new(start_by)));
    assert_eq!(waits_for(&world), [long]);

    world.tick_at(start_by - 10 * MINUTE);
    let in_time = world.simple(AddPiece, 2);
    assert!(world.on(in_time).is_some());
    assert_eq!((waits_for(&world), reservation(&world).made_at), (vec![long, in_time], Millis::new(HOUR)));
    world.tick_at(start_by - 10 * MINUTE + 1);
    let late = world.simple(AddPiece, 3);
    assert_eq!(world.on(late), None, "it would end a millisecond too late");
    assert!(world.why(late).contains("is kept for PC2 of sector 99, which is due"), "{}", world.why(late));
    world.end(in_time, sched::Outcome::Failed);
    assert_eq!((world.on(late), waits_for(&world)), (None, vec![long]));
    world.finish(long);
    assert!(world.on(big).is_some());
    assert_eq!(world.sched.snapshot().reservations, []);
}

#[test]
fn nothing_long_passes_a_reservation_whose_time_has_come() {
    let (mut world, long, big) = kept();
    let start_by = 1 + 3 * HOUR;
    let mut passing = Vec::new();
    for round in 0..20 {
        world.tick_at(HOUR + round * 10 * MINUTE);
        passing.push(world.simple(AddPiece, 100 + round));
        // They all run twice as long as they should.
        if round % 2 == 1 {
            let old = passing.remove(0);
            if world.on(old).is_some() {
                world.finish(old);
            }
        }
    }
    assert!(world.now.get() > start_by);
    assert_eq!(reservation(&world).start_by, Millis::new(start_by), "it is not put off");
    assert_eq!(world.on(*passing.last().expect("twenty were submitted")), None);
    let light = world.simple(Finalize, 7);
    assert!(world.on(light).is_some(), "what costs nothing passes while something long is waited for");
    world.finish(long);
    let bound: Vec<_> = passing.iter().copied().filter(|task| world.on(*task).is_some()).collect();
    for task in bound {
        assert_eq!(world.on(big), None);
        world.finish(task);
    }
    assert!(world.on(big).is_some(), "it starts with the end of the last that had passed");
}

#[test]
fn the_worker_that_is_free_first_is_kept_not_the_least_used() {
    let mut world = World::new();
    let durations = vec![took(PreCommit1, 3 * HOUR), took(AddPiece, 10 * MINUTE)];
    let profile = WorkerProfile { durations, ..decent(&[AddPiece, PreCommit1, PreCommit2]) };
    let slow = world.worker(1, profile.clone());
    let first = world.simple(PreCommit1, 1);
    assert_eq!(world.on(first), Some(slow));
    let fast = world.worker(2, WorkerProfile { tasks: vec![AddPiece, PreCommit2], ..profile });
    let pieces: Vec<_> = (2..5).map(|number| world.simple(AddPiece, number)).collect();
    assert!(pieces.iter().filter(|task| world.on(**task) == Some(fast)).count() > 0);
    pc2_due_after(&mut world, MINUTE);
    world.tick_at(MINUTE);
    assert_eq!(reservation(&world).worker, fast, "its tasks are over in minutes");
}

#[test]
fn a_worker_that_becomes_smaller_makes_its_reservation_anew() {
    let mut world = World::new();
    let durations = vec![took(PreCommit1, 3 * HOUR), took(AddPiece, 9 * HOUR)];
    let profile = WorkerProfile { cpus: 34, durations, ..decent(&[AddPiece, PreCommit1, PreCommit2]) };
    world.worker(1, profile.clone());
    let long = world.simple(PreCommit1, 1);
    let pieces = [world.simple(AddPiece, 2), world.simple(AddPiece, 3)];
    let big = pc2_due_after(&mut world, HOUR);
    world.tick_at(HOUR);
    assert_eq!(waits_for(&world), [long]);
    let same = WorkerProfile { mem_used: 2 * GIB, ..profile.clone() };
    world.tick_at(2 * HOUR);
    world.send(Event::WorkerChanged { worker: key(1), profile: same });
    assert_eq!(reservation(&world).made_at, Millis::new(HOUR), "nothing that matters has changed");
    let smaller = WorkerProfile { cpus: 33, ..profile };
    world.send(Event::WorkerChanged { worker: key(1), profile: smaller });
    let kept = reservation(&world);
    assert_eq!((kept.made_at, kept.start_by), (Millis::new(2 * HOUR), Millis::new(1 + 9 * HOUR)));
    assert_eq!(waits_for(&world), [long, pieces[0]]);
    world.finish(long);
    assert_eq!(world.on(big), None);
    world.finish(pieces[0]);
    assert!(world.on(big).is_some());
}

#[test]
fn a_stream_of_tasks_that_cost_nothing_does_not_hold_up_a_due_one() {
    let mut world = World::new();
    let durations = vec![took(AddPiece, HOUR), took(Commit1, MINUTE)];
    let tight =
        WorkerProfile { mem_physical: 17 * GIB, durations, ..decent(&[AddPiece, Commit1, PreCommit2]) };
    world.worker(1, tight);
    let long = world.simple(AddPiece, 1);
    let big = pc2_due_after(&mut world, MINUTE);
    world.tick_at(2 * HOUR);
    let light = world.simple(Commit1, 2);
    assert!(world.on(light).is_some(), "the long one is late: nobody is held up");
    world.finish(long);
    assert_eq!((world.on(big), waits_for(&world)), (None, vec![light]), "memory is that short");
    let next = world.simple(Commit1, 3);
    assert_eq!(world.on(next), None, "or they would never end");
    world.finish(light);
    assert!(world.on(big).is_some());
}

#[test]
fn in_a_large_cluster_one_look_after_the_other_finds_the_worker() {
    let mut world = World::new();
    let profile = decent(&[PreCommit1, PreCommit2]);
    for number in 1..=700 {
        world.worker(number, profile.clone());
        let mode = if number == 650 { sched::WorkerMode::Open } else { sched::WorkerMode::Disabled };
        world.send(Event::WorkerMode { worker: key(number), mode });
    }
    let long = world.simple(PreCommit1, 1);
    assert_eq!(world.on(long), Some(key(650)));
    pc2_due_after(&mut world, HOUR);
    world.tick_at(HOUR);
    let looks = (1..10).take_while(|_| {
        world.send(Event::WorkerSuspect { worker: key(3), suspect: true });
        world.sched.snapshot().reservations.is_empty()
    });
    assert!(looks.count() < 4, "three looks see all of them");
    assert_eq!(reservation(&world).worker, key(650));
}

#[test]
fn room_is_kept_for_the_files_of_a_due_task() {
    let mut world = World::new();
    let path = world.path("scratch", 500 * GIB);
    let durations = vec![took(PreCommit1, 3 * HOUR), took(AddPiece, MINUTE)];
    let profile = WorkerProfile { paths: vec![path.clone()], durations, ..decent(&[AddPiece, PreCommit1]) };
    world.worker(1, profile);
    let running = [world.simple(PreCommit1, 1), world.simple(PreCommit1, 2)];
    let mut big = request(PreCommit1, 9);
    (big.needs, big.wait_limit) = (allocate(Cache, 450 * GIB), Some(Millis::new(HOUR)));
    let big = world.submit(big);
    world.tick_at(HOUR);
    let kept = reservation(&world);
    assert_eq!(kept.space, [sched::PathBytes { path, bytes: 450 * GIB }]);
    let piece = |world: &mut World, number| {
        let mut piece = request(AddPiece, number);
        piece.needs = allocate(Unsealed, 32 * GIB);
        world.submit(piece)
    };
    let pieces = [piece(&mut world, 11), piece(&mut world, 12)];
    assert_eq!(world.bound_of(&pieces), [true, false], "the rest is kept");
    world.finish(running[0]);
    assert!(world.on(big).is_some());
    assert_eq!(world.sched.snapshot().paths[0].kept, 0);
    world.finish(running[1]);
}

#[test]
fn facts_that_turn_against_a_reservation_make_it_anew() {
    let (mut world, long, big) = kept();
    let before = reservation(&world);
    let attempt = AttemptId { task: TaskId::new(500), attempt: 1 };
    world.tick_at(2 * HOUR);
    let request = request(PreCommit1, 50);
    world.send(Event::Adopt { attempt, worker: key(1), request, holds: vec![] });
    let after = reservation(&world);
    assert_eq!((before.made_at, before.start_by), (Millis::new(HOUR), Millis::new(1 + 3 * HOUR)));
    assert_eq!((after.made_at, after.start_by), (Millis::new(2 * HOUR), Millis::new(5 * HOUR)));
    world.finish(long);
    assert_eq!(world.on(big), None);
    world.send(Event::Ended { attempt, outcome: sched::Outcome::Finished });
    assert!(world.on(big).is_some());
}

#[test]
fn a_due_task_takes_another_worker_that_is_free_sooner() {
    let mut world = World::new();
    world.worker(1, decent(&[PreCommit1, PreCommit2]));
    let running = world.simple(PreCommit1, 1);
    let big = pc2_due_after(&mut world, HOUR);
    world.tick_at(HOUR);
    assert_eq!(world.on(big), None);
    world.worker(2, decent(&[PreCommit2]));
    assert_eq!(world.on(big), Some(key(2)));
    let next = world.simple(PreCommit1, 2);
    assert_eq!(world.on(next), Some(key(1)), "nothing is kept any more");
    world.finish(running);
}

#[test]
fn a_reservation_ends_with_its_worker_or_its_task() {
    let mut world = World::new();
    world.worker(1, decent(&[AddPiece, PreCommit2]));
    let running = world.simple(AddPiece, 1);
    let big = pc2_due_after(&mut world, HOUR);
    world.tick_at(HOUR);
    world.send(sched::Event::WorkerEnabled { worker: key(1), enabled: false });
    assert!(world.why(big).contains("is disabled"), "{}", world.why(big));
    world.send(sched::Event::WorkerEnabled { worker: key(1), enabled: true });
    assert!(world.why(big).contains("is due, and fred ("), "{}", world.why(big));
    let small = world.simple(AddPiece, 2);
    assert_eq!(world.on(small), None);
    world.send(sched::Event::Cancel { task: big });
    assert!(world.on(small).is_some());
    world.finish(running);
}
