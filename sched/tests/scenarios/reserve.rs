//! Tasks that have waited too long.

use sched::Millis;
use sealtasks::TaskId;
use sealtasks::TaskType::{AddPiece, Finalize, PreCommit1, PreCommit2};

use crate::world::{HOUR, World, decent, key, request};

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
    profile.cpus = 34;
    world.worker(1, profile);
    let running: Vec<_> = (1..=2).map(|number| world.simple(PreCommit1, number)).collect();
    let mut blocker = world.simple(AddPiece, 3);
    let big = pc2_due_after(&mut world, HOUR);
    world.tick_at(HOUR);
    assert_eq!(world.on(big), None);
    // 34 threads, 32 for the due one: two more may run beside it, and not a third.
    let beside: Vec<_> = (4..=6).map(|number| world.simple(AddPiece, number)).collect();
    assert_eq!(world.bound_of(&beside), [true, true, false]);
    world.finish(std::mem::replace(&mut blocker, beside[2]));
    assert_eq!(world.on(big), None);
    world.finish(running[0]);
    world.finish(running[1]);
    assert!(world.on(big).is_some(), "it did not have to wait for those that came after");
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
