//! The cases of Lotus's `index_test.go`, restated. Outcome beside each: `same` where the answer is Lotus's.

mod support;

use std::collections::BTreeSet;

use sealtasks::{ActorId, FileTypes, PathFilters, PathType, SectorId, SectorSize, StorageStanza};
use stores::{CopyKind, Index, IndexError, MemIndex};
use support::{both, clock, id, info, room};

const SECTOR: SectorId = SectorId::new(1000, 0);
const SIZE: SectorSize = SectorSize::GiB32;
const ROOM: i64 = 15 << 40;

async fn attach(index: &MemIndex, name: &str, stanza: StorageStanza) {
    index.attach(info(name, "http://127.0.0.1/remote", stanza), room(ROOM)).await.expect("attached");
}

async fn declare(index: &MemIndex, name: &str) {
    index.declare(&id(name), SECTOR, FileTypes::UNSEALED, CopyKind::Primary).await.expect("declared");
}

async fn found(index: &MemIndex, fetch: Option<SectorSize>) -> BTreeSet<String> {
    let found = index.find(SECTOR, FileTypes::UNSEALED, fetch).await.expect("an answer");
    found.into_iter().map(|one| one.id.to_string()).collect()
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn group(name: &str) -> BTreeSet<String> {
    [name.to_owned()].into()
}

/// TestFindSimple: same.
#[tokio::test]
async fn find_simple() {
    let index = MemIndex::new(clock().1);
    attach(&index, "1", both()).await;
    attach(&index, "2", both()).await;
    assert_eq!(found(&index, Some(SIZE)).await, names(&[]), "nobody holds it: nothing to fetch");
    declare(&index, "1").await;
    assert_eq!(found(&index, None).await, names(&["1"]));
    assert_eq!(found(&index, Some(SIZE)).await, names(&["1", "2"]));
}

/// TestFindNoAllow: same.
#[tokio::test]
async fn find_no_allow() {
    let index = MemIndex::new(clock().1);
    attach(&index, "1", StorageStanza { allow_to: group("grp1"), ..both() }).await;
    attach(&index, "2", both()).await;
    declare(&index, "1").await;
    assert_eq!(found(&index, None).await, names(&["1"]));
    assert_eq!(found(&index, Some(SIZE)).await, names(&["1"]), "2 is in no group that it may go to");
}

/// TestFindAllow: same.
#[tokio::test]
async fn find_allow() {
    let index = MemIndex::new(clock().1);
    attach(&index, "1", StorageStanza { allow_to: group("grp1"), ..both() }).await;
    attach(&index, "2", StorageStanza { groups: group("grp1"), ..both() }).await;
    attach(&index, "3", StorageStanza { groups: group("grp2"), ..both() }).await;
    declare(&index, "1").await;
    assert_eq!(found(&index, None).await, names(&["1"]));
    assert_eq!(found(&index, Some(SIZE)).await, names(&["1", "2"]));
}

/// TestStorageBestAlloc: same, for sealing and for storage.
#[tokio::test]
async fn storage_best_alloc() {
    let index = MemIndex::new(clock().1);
    let only = |miner| PathFilters { allow_miners: vec![ActorId::new(miner)], ..PathFilters::default() };
    let seal = StorageStanza { can_store: false, filters: only(1001), ..both() };
    let store = StorageStanza { can_seal: false, filters: only(1002), ..both() };
    attach(&index, "seal", seal).await;
    attach(&index, "store", store).await;
    let cases = [(PathType::Sealing, 1001, "seal"), (PathType::Storage, 1002, "store")];
    for (path_type, miner, name) in cases {
        let types = FileTypes::SEALED;
        let best = index.best_alloc(types, SIZE, path_type, ActorId::new(miner)).await.expect("one");
        assert_eq!(best.iter().map(|path| path.id.as_str()).collect::<Vec<_>>(), [name]);
        let first = index.first_alloc(types, SIZE, path_type, ActorId::new(miner), &|_| true).await;
        assert_eq!(first.expect("an answer"), Some(id(name)));
        let none = index.first_alloc(types, SIZE, path_type, ActorId::new(miner), &|_| false).await;
        assert_eq!(none.expect("an answer"), None, "nobody wants what there is");
        let other = index.best_alloc(types, SIZE, path_type, ActorId::new(1003)).await;
        assert!(matches!(other, Err(IndexError::NoPath)), "a miner that the path does not take");
    }
    let big = MemIndex::new(clock().1);
    big.attach(info("small", "http://127.0.0.1/remote", both()), room(1 << 30)).await.expect("attached");
    for path_type in [PathType::Sealing, PathType::Storage] {
        let none = big.best_alloc(FileTypes::SEALED, SIZE, path_type, ActorId::new(1001)).await;
        assert!(matches!(none, Err(IndexError::NoPath)), "too big for the path");
    }
}
