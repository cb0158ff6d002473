//! Sector locks: Lotus's truth table, waiting, fairness, cancelling.

mod support;

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
