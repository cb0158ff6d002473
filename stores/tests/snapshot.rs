//! The index's snapshot: what it brings back is shown and never believed, and a bad one changes nothing.

mod support;

use std::fs;
use std::path::Path;

use sealtasks::{FileType, FileTypes, HealthReport, PathType, SectorDecl, SectorSize};
use stores::{CopyKind, HeldFiles, Index, IndexError, MemIndex, SnapshotRead, read_snapshot, write_snapshot};
use support::{World, both, clock, id, info, room, sector};

const S: FileTypes = FileTypes::SEALED;
const C: FileTypes = FileTypes::CACHE;
const NONE: FileTypes = FileTypes::NONE;

/// Paths a and b with the same sector, primary in a, and what a snapshot in `dir` makes of them.
async fn restored(dir: &Path) -> MemIndex {
    let index = MemIndex::new(clock().1);
    for name in ["a", "b"] {
        let url = format!("http://{name}/remote");
        index.attach(info(name, &url, both()), room(1 << 40)).await.expect("attached");
    }
    index.declare(&id("a"), sector(1).id, S | C, CopyKind::Primary).await.expect("declared");
    index.declare(&id("b"), sector(1).id, S, CopyKind::Secondary).await.expect("declared");
    index.declare(&id("a"), sector(2).id, S, CopyKind::Primary).await.expect("declared");
    let file = dir.join("index.snapshot");
    write_snapshot(&index, &file).expect("written");
    let again = MemIndex::new(clock().1);
    let read = read_snapshot(&again, &file).expect("read");
    assert_eq!(read, SnapshotRead::Restored { paths: 2, sectors: 3 });
    again
}

fn held(name: &str, types: FileTypes, primary: FileTypes, unconfirmed: FileTypes) -> HeldFiles {
    HeldFiles { id: id(name), types, primary, unconfirmed }
}

#[tokio::test]
async fn what_it_tells_is_unconfirmed_until_it_is_declared_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let index = restored(dir.path()).await;
    assert_eq!(index.sector_files(sector(1).id), [held("a", NONE, NONE, S | C), held("b", NONE, NONE, S)]);
    assert!(index.path_files(&id("a")).is_empty(), "none of it counts");
    let listed =
        [SectorDecl { sector: sector(1).id, types: S | C }, SectorDecl { sector: sector(2).id, types: S }];
    assert_eq!(index.unconfirmed_files(&id("a")), listed);
    assert_eq!(index.list()[&id("a")], listed);

    let view = index.path_view(&id("a")).expect("remembered");
    assert!(!view.confirmed && !view.healthy);
    let report = HealthReport { stat: room(1 << 40), error: None };
    let refused = index.report_health(&id("a"), report).await.expect_err("it is to be declared first");
    assert!(matches!(refused, IndexError::UnknownHealth { .. }));
    let alloc = index.best_alloc(S, SectorSize::KiB2, PathType::Storage, sector(1).id.miner).await;
    assert!(matches!(alloc, Err(IndexError::NoPath)), "nothing new goes to a remembered path");

    index.attach(info("a", "http://new/remote", both()), room(1 << 40)).await.expect("attached");
    assert_eq!(
        index.info(&id("a")).await.expect("known").urls,
        ["http://new/remote"],
        "the old URL is not kept"
    );
    index.declare(&id("a"), sector(1).id, S, CopyKind::Secondary).await.expect("declared");
    assert_eq!(index.sector_files(sector(1).id)[0], held("a", S, NONE, C), "what is declared now counts");
    index.declared_all(&id("a")).await.expect("all of it");
    assert_eq!(index.sector_files(sector(1).id)[0], held("a", S, NONE, NONE));
    assert!(index.sector_files(sector(2).id).is_empty(), "it is not there any more");
    assert_eq!(index.sector_files(sector(1).id)[1], held("b", NONE, NONE, S), "another path is not touched");
}

#[tokio::test]
async fn finding_names_it_last_and_never_as_a_primary_copy() {
    let dir = tempfile::tempdir().expect("a directory");
    let index = restored(dir.path()).await;
    let found = |index: &MemIndex| {
        let found = index.search(sector(1).id, S, None).into_iter();
        found.map(|one| (one.id.to_string(), one.weight, one.primary)).collect::<Vec<_>>()
    };
    assert_eq!(found(&index), [("a".to_owned(), 0, false), ("b".to_owned(), 0, false)]);
    index.attach(info("b", "http://b/remote", both()), room(1)).await.expect("attached");
    index.declare(&id("b"), sector(1).id, S, CopyKind::Primary).await.expect("declared");
    assert_eq!(found(&index), [("b".to_owned(), 10, true), ("a".to_owned(), 0, false)]);
    assert_eq!(index.conflict_of(sector(1).id), NONE, "a remembered primary copy is no claim");
}

#[tokio::test]
async fn a_remembered_copy_justifies_no_deletion() {
    let world = World::new();
    let node = world.node().await;
    node.path("ours", both()).await;
    let file = node.put("ours", sector(1), FileType::Sealed).await;
    let dir = tempfile::tempdir().expect("a directory");
    let snapshot = dir.path().join("index.snapshot");
    let elsewhere = MemIndex::new(clock().1);
    elsewhere.attach(info("theirs", "http://gone/remote", both()), room(1)).await.expect("attached");
    elsewhere.declare(&id("theirs"), sector(1).id, S, CopyKind::Primary).await.expect("declared");
    write_snapshot(&elsewhere, &snapshot).expect("written");
    read_snapshot(&world.index, &snapshot).expect("read");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["ours*", "theirs"]);

    let kept = node.local.remove(sector(1).id, FileType::Sealed, &[]).await.expect_err("the only sure copy");
    assert_eq!(kept.code(), "STO012");
    assert!(file.exists());
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["ours*", "theirs"]);
}

#[tokio::test]
async fn a_bad_snapshot_changes_nothing_and_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    restored(dir.path()).await;
    let file = dir.path().join("index.snapshot");
    let good = fs::read(&file).expect("readable");
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    let mut newer = good.clone();
    newer[8] = 2;
    let cases: [(&[u8], &str); 5] = [
        (&flipped, "damaged"),
        (&good[..good.len() - 1], "damaged"),
        (b"", "damaged"),
        (&[7; 100], "damaged"),
        (&newer, "newer"),
    ];
    for (bytes, suffix) in cases {
        fs::write(&file, bytes).expect("written");
        let index = MemIndex::new(clock().1);
        let read = read_snapshot(&index, &file).expect("the disk answers");
        let SnapshotRead::Ignored { why, kept } = read else {
            panic!("{suffix}: it was not ignored: {read:?}")
        };
        assert!(!why.is_empty());
        assert_eq!(kept, file.with_extension(suffix));
        assert_eq!(fs::read(&kept).expect("kept"), bytes);
        assert!(!file.exists() && index.paths().is_empty());
    }
    let index = MemIndex::new(clock().1);
    assert_eq!(read_snapshot(&index, &file).expect("no disk fault"), SnapshotRead::Missing);
}

/// What a kill left of a write is removed, and nothing else that lies in a repo.
#[test]
fn writes_that_a_kill_interrupted_are_discarded() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let fresh = "6a3f8c1e-0000-4000-8000-000000000001";
    let left = [format!("index.snapshot.{fresh}.tmp"), format!("storage.json.{fresh}.tmp")];
    let others = [
        "index.snapshot".to_owned(),
        "notes.tmp".to_owned(),
        "notes.old.tmp".to_owned(),
        format!("notes.{fresh}"),
        format!("sealed.{fresh}.tmp"),
    ];
    for name in left.iter().chain(&others[..4]) {
        fs::write(dir.join(name), "x").expect("written");
    }
    fs::create_dir(dir.join(&others[4])).expect("a directory with such a name");
    stores::discard_unfinished(dir);
    assert!(left.iter().all(|name| !dir.join(name).exists()), "they are nobody's");
    assert!(others.iter().all(|name| dir.join(name).exists()), "none of them is ours");
}
