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

/// TestCanLock: same, all of its questions.
#[test]
fn can_lock() {
    let all = U | S | C;
    // Held for reading and writing, wanted for reading and writing, whether it is granted.
    let table = [
        (NONE, NONE, U, NONE, true),
        (NONE, NONE, NONE, U, true),
        (NONE, NONE, all, NONE, true),
        (NONE, NONE, NONE, all, true),
        (U, NONE, U, NONE, true),
        (U, NONE, NONE, U, false),
        (U, NONE, all, NONE, true),
        (U, NONE, NONE, all, false),
        (U, NONE, NONE, S | C, true),
        (U, NONE, U, S | C, true),
        (NONE, S, U, NONE, true),
        (NONE, S, NONE, U, true),
        (NONE, S, S, NONE, false),
        (NONE, S, NONE, S, false),
        (NONE, S, all, NONE, false),
        (NONE, S, NONE, all, false),
    ];
    for question in table {
        assert_eq!(granted(question), question.4, "{question:?}");
    }
}

/// Every lock that can be held of three file types beside every one that can be wanted: a type is written by one, or read by
/// many.
#[test]
fn every_pair_of_locks() {
    let one = |bits: u32, at: u32, kind: FileTypes| if bits >> at & 1 == 1 { kind } else { NONE };
    let sets: Vec<FileTypes> =
        (0..8).map(|bits| one(bits, 0, U) | one(bits, 1, S) | one(bits, 2, C)).collect();
    let locks: Vec<_> = sets.iter().flat_map(|read| sets.iter().map(move |write| (*read, *write))).collect();
    let mut asked = 0;
    for (held_read, held_write) in &locks {
        for (read, write) in locks.iter().filter(|(read, write)| !(*read | *write).is_empty()) {
            // Who writes a type reads it too: to ask for both is to ask to write.
            let free = read.intersection(*held_write).is_empty()
                && write.intersection(*held_read | *held_write).is_empty();
            let question = (*held_read, *held_write, *read, *write, free);
            assert_eq!(granted(question), free, "{question:?}");
            asked += 1;
        }
    }
    assert_eq!(asked, 64 * 63);
}

fn granted(
    (held_read, held_write, read, write, _): (FileTypes, FileTypes, FileTypes, FileTypes, bool),
) -> bool {
    let locks = SectorLocks::new(clock().1);
    let any = !(held_read | held_write).is_empty();
    let _held =
        any.then(|| locks.try_lock(want(held_read, held_write), owner()).expect("asked").expect("free"));
    locks.try_lock(want(read, write), owner()).expect("asked").is_some()
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
