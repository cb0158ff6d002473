//! The cases of Lotus's `index_locks_test.go`, restated. There a lock ends with its context, here with its guard.
//! Outcome beside each: `same` where the answer is Lotus's.

mod support;

use std::time::Duration;

use futures_util::FutureExt;
use sealtasks::{FileTypes, SectorId};
use stores::{LockGuard, LockOwner, LockWant, SectorLocks};
use support::clock;
use tokio::time::timeout;

const U: FileTypes = FileTypes::UNSEALED;
const S: FileTypes = FileTypes::SEALED;
const C: FileTypes = FileTypes::CACHE;
const NONE: FileTypes = FileTypes::NONE;

/// Only bounds a failure.
const BOUND: Duration = Duration::from_secs(10);

fn want(read: FileTypes, write: FileTypes) -> LockWant {
    LockWant { sector: SectorId::new(1000, 0), read, write }
}

fn owner() -> LockOwner {
    LockOwner { owner: "a caller".to_owned(), reason: "a test".to_owned() }
}

/// TestCanLock: same, for every pair of a held and a wanted lock.
#[test]
fn can_lock() {
    // What is held, then what may be read and what may be written beside it.
    let table = [
        (NONE, NONE, U | S | C, U | S | C),
        (U, NONE, U | S | C, S | C),
        (S, NONE, U | S | C, U | C),
        (U | S, NONE, U | S | C, C),
        (NONE, U, S | C, S | C),
        (NONE, S, U | C, U | C),
        (NONE, U | S | C, NONE, NONE),
        (U, S, U | C, C),
    ];
    for (held_read, held_write, readable, writable) in table {
        for kind in [U, S, C] {
            let locks = SectorLocks::new(clock().1);
            let any = !(held_read | held_write).is_empty();
            let _held = any
                .then(|| locks.try_lock(want(held_read, held_write), owner()).expect("asked").expect("free"));
            let can = |read, write| locks.try_lock(want(read, write), owner()).expect("asked").is_some();
            assert_eq!(
                can(kind, NONE),
                !readable.intersection(kind).is_empty(),
                "{held_read:?}/{held_write:?}"
            );
            assert_eq!(
                can(NONE, kind),
                !writable.intersection(kind).is_empty(),
                "{held_read:?}/{held_write:?}"
            );
        }
    }
}

/// TestIndexLocksSeq: same. Six times in a row; each release works at once.
#[tokio::test]
async fn index_locks_seq() {
    let locks = SectorLocks::new(clock().1);
    for round in 0..6 {
        let (read, write) = if round % 2 == 0 { (U, S) } else { (S, U) };
        let guard = timeout(BOUND, locks.lock(want(read, write), owner())).await.expect("at once");
        drop(guard.expect("granted"));
    }
    assert!(locks.snapshot().is_empty());
}

async fn blocks_on(locks: SectorLocks, held: LockGuard, read: FileTypes, write: FileTypes) {
    let mut second = Box::pin(locks.lock(want(read, write), owner()));
    assert!(second.as_mut().now_or_never().is_none(), "it waits");
    assert_eq!(locks.snapshot()[0].waiters.len(), 1);
    drop(held);
    drop(timeout(BOUND, second).await.expect("granted after the release").expect("granted"));
}

/// TestIndexLocksBlockOn readBlocksWrite: same.
#[tokio::test]
async fn read_blocks_write() {
    let locks = SectorLocks::new(clock().1);
    let held = locks.try_lock(want(U, NONE), owner()).expect("asked").expect("free");
    blocks_on(locks, held, NONE, U).await;
}

/// TestIndexLocksBlockOn writeBlocksRead: same.
#[tokio::test]
async fn write_blocks_read() {
    let locks = SectorLocks::new(clock().1);
    let held = locks.try_lock(want(NONE, U), owner()).expect("asked").expect("free");
    blocks_on(locks, held, U, NONE).await;
}

/// TestIndexLocksBlockOn writeBlocksWrite: same.
#[tokio::test]
async fn write_blocks_write() {
    let locks = SectorLocks::new(clock().1);
    let held = locks.try_lock(want(NONE, U), owner()).expect("asked").expect("free");
    blocks_on(locks, held, NONE, U).await;
}

/// TestIndexLocksBlockWonR: same. A writer waits for a reader, and is granted when the reader ends.
#[tokio::test]
async fn a_writer_that_waited_for_a_reader_wins() {
    let locks = SectorLocks::new(clock().1);
    let reader = locks.lock(want(U, NONE), owner()).await.expect("granted");
    let mut writer = Box::pin(locks.lock(want(NONE, U), owner()));
    assert!(writer.as_mut().now_or_never().is_none());
    drop(reader);
    let writer = timeout(BOUND, writer).await.expect("granted after the reader").expect("granted");
    let busy = locks.try_lock(want(U, NONE), owner()).expect("busy is no error");
    assert!(busy.is_none(), "it holds the lock now");
    drop(writer);
}
