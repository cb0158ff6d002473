//! Sector locks: Lotus's truth table, waiting, fairness, cancelling.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use sealtasks::{FileTypes, SectorId};
use stores::{LockError, LockGuard, LockOwner, LockWant, SectorLocks};
use support::clock;
use tokio::time::timeout;

const U: FileTypes = FileTypes::UNSEALED;
const S: FileTypes = FileTypes::SEALED;
const C: FileTypes = FileTypes::CACHE;
const NONE: FileTypes = FileTypes::NONE;

/// No wait in these tests is meant to be long; this only bounds a failure.
const BOUND: Duration = Duration::from_secs(10);

fn want(read: FileTypes, write: FileTypes) -> LockWant {
    LockWant { sector: SectorId::new(1000, 1), read, write }
}

fn owner(name: &str) -> LockOwner {
    LockOwner { owner: name.to_owned(), reason: "test".to_owned() }
}

fn advance(time: &AtomicU64, ms: u64) {
    time.fetch_add(ms, Ordering::SeqCst);
}

fn take(locks: &SectorLocks, read: FileTypes, write: FileTypes) -> Option<LockGuard> {
    locks.try_lock(want(read, write), owner("try")).expect("something is asked for")
}

#[test]
fn can_lock_table() {
    // (held read, held write, wanted read, wanted write, granted)
    let table = [
        (NONE, NONE, U, NONE, true),
        (NONE, NONE, NONE, U, true),
        (U, NONE, U, NONE, true),
        (U, NONE, NONE, U, false),
        (U, NONE, S, NONE, true),
        (U, NONE, NONE, S, true),
        (NONE, U, U, NONE, false),
        (NONE, U, NONE, U, false),
        (NONE, U, S, C, true),
        (NONE, S, U, C, true),
        (NONE, S, U | S, C, false),
        (S, NONE, U | S, C, true),
        (S, NONE, U, S | C, false),
        (U | S, C, U | S, NONE, true),
        (U | S, C, C, NONE, false),
    ];
    for (held_read, held_write, read, write, granted) in table {
        let locks = SectorLocks::new(clock().1);
        let any = !(held_read | held_write).is_empty();
        let _held = any.then(|| take(&locks, held_read, held_write).expect("free"));
        let got = take(&locks, read, write).is_some();
        assert_eq!(got, granted, "held {held_read:?}/{held_write:?}, wanted {read:?}/{write:?}");
    }
}

#[tokio::test]
async fn nothing_to_lock_is_an_error() {
    let locks = SectorLocks::new(clock().1);
    let nothing = LockError::Nothing { sector: SectorId::new(1000, 1) };
    assert_eq!(locks.try_lock(want(NONE, NONE), owner("x")).err(), Some(nothing.clone()));
    assert_eq!(locks.lock(want(NONE, NONE), owner("x")).await.err(), Some(nothing));
    assert!(locks.snapshot().is_empty());
}

#[tokio::test]
async fn a_release_wakes_the_waiter() {
    let cases = [(U, NONE, NONE, U), (NONE, U, U, NONE), (NONE, U, NONE, U)];
    for (held_read, held_write, read, write) in cases {
        let locks = SectorLocks::new(clock().1);
        let held = take(&locks, held_read, held_write).expect("free");
        let mut waiting = Box::pin(locks.lock(want(read, write), owner("second")));
        assert!(waiting.as_mut().now_or_never().is_none(), "it is busy");
        drop(held);
        let guard = timeout(BOUND, waiting).await.expect("woken").expect("granted");
        drop(guard);
        assert!(locks.snapshot().is_empty(), "nothing stays behind");
    }
}

#[tokio::test]
async fn readers_cannot_starve_a_writer() {
    let locks = SectorLocks::new(clock().1);
    let reader = take(&locks, S, NONE).expect("free");
    let mut writer = Box::pin(locks.lock(want(NONE, S), owner("writer")));
    assert!(writer.as_mut().now_or_never().is_none());
    assert!(take(&locks, S, NONE).is_none(), "a new reader queues behind the writer");
    assert!(take(&locks, U, NONE).is_some(), "another type is free");
    let mut late = Box::pin(locks.lock(want(S, NONE), owner("late")));
    assert!(late.as_mut().now_or_never().is_none());
    drop(reader);
    let guard = timeout(BOUND, writer).await.expect("first in line").expect("granted");
    assert!(late.as_mut().now_or_never().is_none());
    drop(guard);
    drop(timeout(BOUND, late).await.expect("next in line").expect("granted"));
}

#[tokio::test]
async fn a_cancelled_waiter_gives_way() {
    let locks = SectorLocks::new(clock().1);
    let reader = take(&locks, S, NONE).expect("free");
    let mut writer = Box::pin(locks.lock(want(NONE, S), owner("writer")));
    assert!(writer.as_mut().now_or_never().is_none());
    let mut second = Box::pin(locks.lock(want(S, NONE), owner("second")));
    assert!(second.as_mut().now_or_never().is_none());
    drop(writer);
    let guard = timeout(BOUND, second).await.expect("moved up").expect("granted");
    drop((guard, reader));
    assert!(locks.snapshot().is_empty());
}

#[test]
fn snapshot_names_holders() {
    let locks = SectorLocks::new(clock().1);
    let _one = locks.try_lock(want(U, C), owner("1.1")).expect("asked").expect("free");
    let _two = locks.try_lock(want(U | S, NONE), owner("2.1")).expect("asked").expect("free");
    let view = &locks.snapshot()[0];
    assert_eq!((view.read, view.write), ([2, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]));
    let owners: Vec<_> = view.holders.iter().map(|held| held.owner.owner.as_str()).collect();
    assert_eq!((owners, view.holders[0].since_ms), (vec!["1.1", "2.1"], 1_000_000));
}

#[tokio::test]
async fn a_lease_ends_when_nobody_renews_it_and_a_guard_never() {
    let (time, clock) = clock();
    let locks = SectorLocks::new(clock);
    let minute = Duration::from_secs(60);
    let lease = locks.lease(want(U, NONE), owner("reader"), minute).await.expect("free");
    let guard = take(&locks, S, NONE).expect("free");
    assert_eq!(locks.snapshot()[0].holders[0].until_ms, Some(1_060_000));
    advance(&time, 59_999);
    assert!(lease.renew(), "in time");
    advance(&time, 59_999);
    assert!(take(&locks, NONE, U).is_none(), "renewed");
    let mut writer = Box::pin(locks.lock(want(NONE, U), owner("writer")));
    assert!(writer.as_mut().now_or_never().is_none());
    advance(&time, 1);
    locks.end_all_leases();
    let writer = timeout(BOUND, writer).await.expect("woken by the end of the lease").expect("granted");
    assert!(!lease.renew(), "it is somebody else's now");
    advance(&time, u64::from(u32::MAX));
    assert!(take(&locks, NONE, S).is_none(), "an attempt may take months");
    drop((guard, writer));
    assert!(locks.snapshot().is_empty());
}

#[tokio::test]
async fn a_lease_that_has_ended_releases_nothing_that_came_after_it() {
    let (time, clock) = clock();
    let locks = SectorLocks::new(clock);
    let lease = locks.lease(want(U, NONE), owner("reader"), Duration::from_secs(1)).await.expect("free");
    advance(&time, 1000);
    assert!(locks.snapshot().is_empty(), "the sector is as if nobody had ever locked it");
    let writer = take(&locks, NONE, U).expect("free");
    assert!(!lease.renew());
    drop(lease);
    assert_eq!(locks.snapshot()[0].holders.len(), 1, "the writer still holds it");
    drop(writer);
}

#[tokio::test]
async fn waiters_are_named_in_the_order_in_which_they_are_served() {
    let (time, clock) = clock();
    let locks = SectorLocks::new(clock);
    let held = take(&locks, U, NONE).expect("free");
    advance(&time, 5);
    let mut writer = Box::pin(locks.lock(want(NONE, U), owner("writer")));
    assert!(writer.as_mut().now_or_never().is_none());
    let mut reader = Box::pin(locks.lock(want(U, S), owner("reader")));
    assert!(reader.as_mut().now_or_never().is_none());
    let waiters = locks.snapshot().remove(0).waiters;
    let told: Vec<_> =
        waiters.iter().map(|it| (it.owner.owner.as_str(), it.read, it.write, it.since_ms)).collect();
    assert_eq!(told, [("writer", NONE, U, 1_000_005), ("reader", U, S, 1_000_005)]);
    let names = |want| locks.in_the_way(want).into_iter().map(|it| it.owner).collect::<Vec<_>>();
    assert_eq!(names(want(U, NONE)), ["writer"], "readers do not bar each other");
    assert_eq!(names(want(NONE, U)), ["try", "writer", "reader"]);
    assert_eq!(names(want(C, NONE)), Vec::<String>::new());
    drop((writer, reader, held));
    assert!(locks.snapshot().is_empty());
}

#[test]
fn what_was_found_running_holds_its_lock_beside_any_other() {
    let locks = SectorLocks::new(clock().1);
    let reader = take(&locks, U, NONE).expect("free");
    let found = locks.adopt(want(NONE, U), owner("7.1")).expect("something is asked for");
    found.hand_to(owner("7.2"));
    drop(reader);
    assert_eq!(locks.in_the_way(want(U, NONE)), [owner("7.2")]);
    assert!(take(&locks, U, NONE).is_none());
    drop(found);
    assert!(locks.adopt(want(NONE, NONE), owner("x")).is_err());
    assert!(locks.snapshot().is_empty());
}
