//! A mount that hangs, told apart from one that is slow to count; what is kept free. The file system is an injected one:
//! a real one cannot be made to hang on order.

use std::sync::Condvar;
use std::time::{Duration, Instant};

use super::*;

/// A file system that answers as long as it is let.
#[derive(Default)]
struct Mount {
    door: Mutex<Door>,
    moved: Condvar,
}

#[derive(Default)]
struct Door {
    stuck: bool,
    /// How many wait for an answer.
    waiting: usize,
}

impl Mount {
    fn probe(self: &Arc<Self>, capacity: u64, free: u64) -> Probe {
        let mount = Arc::clone(self);
        Arc::new(move |_| {
            let mut door = mount.door.lock().expect("the mount");
            door.waiting += 1;
            mount.moved.notify_all();
            let mut door = mount.moved.wait_while(door, |door| door.stuck).expect("the mount");
            door.waiting -= 1;
            Ok((capacity, free))
        })
    }

    fn set(&self, stuck: bool) {
        self.door.lock().expect("the mount").stuck = stuck;
        self.moved.notify_all();
    }

    /// Waits until somebody waits for an answer.
    async fn is_asked(self: &Arc<Self>) {
        let mount = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || {
            let door = mount.door.lock().expect("the mount");
            let waited = mount.moved.wait_timeout_while(door, EVENT_MAX, |door| door.waiting == 0);
            waited.expect("the mount").0.waiting > 0
        });
        assert!(asked.await.expect("the wait"), "nobody asks the file system");
    }
}

fn space(mount: &Arc<Mount>, keep_free: u64) -> (tempfile::TempDir, Space) {
    let dir = tempfile::tempdir().expect("a directory");
    let space = Space::probed(dir.path(), 0, keep_free, mount.probe(100 << 30, 10 << 30));
    (dir, space)
}

/// Waits until the measurement under way has ended.
async fn ended(space: &Space) {
    let turn = Arc::clone(&space.sampling).lock_owned();
    drop(tokio::time::timeout(EVENT_MAX, turn).await.expect("the measurement ends"));
}

/// A wait that a test is sure to run into, once the measurement hangs.
const SHORT: Duration = Duration::from_millis(20);
/// A wait that it must not run into.
const EVENT_MAX: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_mount_that_hangs_gives_old_figures_and_is_waited_for_once() {
    let mount = Arc::new(Mount::default());
    let (_dir, mut space) = space(&mount, 0);
    space.deadline = EVENT_MAX;
    let fresh = space.measured().await.expect("it answers");
    assert_eq!((fresh.old, fresh.hangs), (None, false));

    mount.set(true);
    space.touched();
    // Somebody's measurement is under way and hangs before anybody runs out of patience, however late its thread begins.
    let patient = space.clone();
    let patient = tokio::spawn(async move { patient.measured().await });
    mount.is_asked().await;
    space.deadline = SHORT;
    let old = space.measured().await.expect("the last figures");
    assert_eq!(old.stat, fresh.stat);
    assert!(old.old.is_some() && old.hangs, "{old:?}");

    // Overdue by a longer deadline: nobody waits for it again, or this would take 100 hours.
    space.deadline = Duration::from_secs(3600);
    space.ledger().under_way.as_mut().expect("under way").since = past(space.deadline);
    let again = async {
        for _ in 0..100 {
            assert!(space.measured().await.expect("the last figures").hangs);
        }
        // Too old to be of use: an error, at once as well.
        space.ledger().sample.as_mut().expect("a sample").taken = past(SAMPLE_OLD_MAX);
        space.measured().await.expect_err("nothing is known")
    };
    let refused = tokio::time::timeout(EVENT_MAX, again).await.expect("nobody waits");
    assert_eq!(refused.code(), "STO019");

    mount.set(false);
    ended(&space).await;
    patient.await.expect("the task").expect("it was waited for");
    let back = space.measured().await.expect("it answers again");
    assert_eq!((back.old, back.hangs), (None, false));
}

#[tokio::test]
async fn one_hanging_mount_does_not_hold_up_another() {
    let (stuck, well) = (Arc::new(Mount::default()), Arc::new(Mount::default()));
    stuck.set(true);
    let ((_a, mut hanging), (_b, mut good)) = (space(&stuck, 0), space(&well, 0));
    (hanging.deadline, good.deadline) = (Duration::from_secs(3600), EVENT_MAX);
    let waiting = hanging.clone();
    let waiting = tokio::spawn(async move { waiting.measured().await });
    // Answered while the other is still being waited for.
    assert!(good.measured().await.is_ok_and(|measured| !measured.hangs));
    assert!(!waiting.is_finished());
    stuck.set(false);
    assert!(waiting.await.expect("the task").is_ok());
}

#[tokio::test]
async fn new_files_leave_what_is_kept_free_and_the_way_out() {
    let mount = Arc::new(Mount::default());
    let (_a, plain) = space(&mount, 0);
    let free = plain.stat().await.expect("measured");
    assert_eq!(free.fs_available - free.available, ESCAPE_BYTES as i64);
    let (_b, keeping) = space(&mount, 9 << 30);
    let kept = keeping.stat().await.expect("measured");
    assert_eq!(kept.available, 1 << 30);
    let file = (SectorId::new(1000, 1), FileType::Sealed);
    let refused = keeping.promise(&[(file, 2 << 30)]).await.err().expect("it must not fit").to_string();
    assert!(refused.contains("sealed 2147483648 of 2147483648"), "{refused}");
    let held = keeping.promise(&[(file, 1 << 30)]).await.expect("it fits to the byte");
    assert_eq!(keeping.stat().await.expect("measured").available, 0);
    drop(held);
    assert_eq!(keeping.stat().await.expect("measured").available, 1 << 30);
}

fn past(span: Duration) -> Instant {
    Instant::now().checked_sub(span).expect("the machine has run longer")
}
