//! Copies that are older than what has been made of the file elsewhere: found by scans, listed nowhere, never a source, and
//! cleaned up only after the newer one was looked at.

mod support;

use std::fs;
use std::path::PathBuf;

use sealtasks::{AcquireMode, FileType, FileTypes, PathOrder, PathReport, PathType, SectorDecl};
use stores::{
    CopyKind, DeletePermit, Index, MemIndex, SnapshotRead, TransferMeter, read_snapshot, write_snapshot,
};
use support::wire::{Scene, Weather};
use support::{World, both, clock, id, info, room, sector};

const CACHE: FileType = FileType::Cache;
const C: FileTypes = FileTypes::CACHE;

async fn two_paths() -> MemIndex {
    let index = MemIndex::new(clock().1);
    for name in ["new", "old"] {
        let url = format!("http://{name}/remote");
        index.attach(info(name, &url, both()), room(1 << 40)).await.expect("attached");
    }
    index
}

async fn found(index: &MemIndex) -> Vec<String> {
    let found = index.find(sector(1).id, C, None).await.expect("an answer");
    found.into_iter().map(|one| one.id.to_string()).collect()
}

/// What a scan of a path says.
async fn scanned(index: &MemIndex, name: &str) {
    let decl = SectorDecl { sector: sector(1).id, types: C };
    index.declare_batch(&id(name), &[(decl, true)]).await.expect("declared");
}

#[tokio::test]
async fn a_scan_lists_no_older_copy_beside_the_newer_one() {
    let index = two_paths().await;
    scanned(&index, "old").await;
    index.declare(&id("new"), sector(1).id, C, CopyKind::Primary).await.expect("declared");
    assert_eq!(index.conflict_of(sector(1).id), C);
    index.supersede_copies(&id("old"), sector(1).id, C);
    assert_eq!(found(&index).await, ["new"]);
    scanned(&index, "old").await;
    assert_eq!(
        (found(&index).await, index.conflict_of(sector(1).id)),
        (vec!["new".to_owned()], FileTypes::NONE)
    );

    // Better an old one than none, until the other is back.
    index.detach(&id("new"), "http://new/remote").await.expect("detached");
    scanned(&index, "old").await;
    assert_eq!(found(&index).await, ["old"]);
    index.attach(info("new", "http://new/remote", both()), room(1 << 40)).await.expect("attached");
    scanned(&index, "new").await;
    assert_eq!(found(&index).await, ["new"]);
}

#[tokio::test]
async fn what_was_brought_there_anew_or_is_gone_is_no_older_copy() {
    let index = two_paths().await;
    scanned(&index, "new").await;
    index.supersede_copies(&id("old"), sector(1).id, C);
    index.declare_made(&id("old"), sector(1).id, C, CopyKind::Primary).await.expect("declared");
    assert_eq!(found(&index).await, ["new", "old"]);
    assert!(index.superseded().1.is_empty());

    index.supersede_copies(&id("old"), sector(1).id, C);
    let changes = index.superseded_changes();
    index.drop_files(&id("old"), sector(1).id, C).await.expect("its owner has deleted it");
    assert!(index.superseded().1.is_empty() && index.superseded_changes() > changes);
    scanned(&index, "old").await;
    assert_eq!(found(&index).await, ["new", "old"], "another one was put there");
}

#[tokio::test]
async fn a_snapshot_brings_no_older_copy_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("index.snapshot");
    let index = two_paths().await;
    for name in ["new", "old"] {
        scanned(&index, name).await;
    }
    write_snapshot(&index, &file).expect("written");
    let again = MemIndex::new(clock().1);
    again.supersede_copies(&id("old"), sector(1).id, C);
    let read = read_snapshot(&again, &file).expect("read");
    assert_eq!(read, SnapshotRead::Restored { paths: 2, sectors: 2 });
    let held: Vec<_> = again.sector_files(sector(1).id).into_iter().map(|held| held.id).collect();
    assert_eq!(held, [id("new")]);
}

/// A move whose source was not deleted, and has been found again by a scan; and then the copy here was worked on.
async fn worked_on() -> Scene {
    let scene = Scene::new().await;
    scene.front.is(Weather::NoDeletion);
    scene.fetch(AcquireMode::Move).await.expect("moved all the same");
    let copy = scene.target.dir.path().join("b/cache/s-t01000-1");
    fs::write(copy.join("sc-02-data-tree-c-0.dat"), "made by PreCommit2").expect("added");
    scene.source.local.redeclare(None, false).await.expect("scanned");
    scene.front.is(Weather::Fair);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_of_a_move_that_was_not_deleted_is_never_fetched_again() {
    let scene = worked_on().await;
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
    let third = scene.world.node().await;
    third.path("c", both()).await;
    let (meter, none) = (TransferMeter::default(), FileTypes::NONE);
    // Also when the newer one cannot be had.
    fs::rename(scene.target.dir.path().join("b"), scene.target.dir.path().join("away")).expect("unmounted");
    let fetched =
        third.remote.acquire(sector(1), C, none, PathType::Sealing, AcquireMode::Copy, &meter).await;
    fetched.expect_err("an older copy is no source");
    fs::rename(scene.target.dir.path().join("away"), scene.target.dir.path().join("b")).expect("mounted");
    let fetched =
        third.remote.acquire(sector(1), C, none, PathType::Sealing, AcquireMode::Copy, &meter).await;
    fetched.expect("the newer one is");
    assert!(third.dir.path().join("c/cache/s-t01000-1/sc-02-data-tree-c-0.dat").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_shown_and_cleaned_up_once_the_newer_one_was_looked_at() {
    let scene = worked_on().await;
    let findings = scene.source.local.survey().await.remove(0).findings;
    assert!(findings.len() == 1 && findings[0].offered, "{findings:?}");
    let entries = vec![scene.source_dir()];
    let clean_up = async |old: &[PathBuf]| {
        let order = PathOrder::CleanUp { entries: entries.clone(), old: old.to_vec() };
        let report = scene.source.remote.carry_out(order).await.expect("an answer");
        let PathReport::CleanedUp(cleaned) = report else { panic!("{report:?}") };
        cleaned[0].kept.clone()
    };
    // After finalization it has fewer files, and lacks one that lasts.
    let newer = scene.target.dir.path().join("b/cache/s-t01000-1");
    for layer in [1, 2] {
        fs::remove_file(newer.join(format!("sc-02-data-layer-{layer}.dat"))).expect("finalized");
    }
    fs::write(newer.join("sc-02-data-tree-r-last-0.dat"), "made by PreCommit2").expect("added");
    let aux = fs::read(newer.join("t_aux")).expect("there");
    fs::remove_file(newer.join("t_aux")).expect("spoilt");
    assert!(clean_up(&entries).await.is_some(), "the newer one is not whole");
    fs::write(newer.join("t_aux"), aux).expect("whole again");
    assert!(clean_up(&[]).await.is_some(), "it has not all, and nobody says that this one is old");
    assert!(scene.source_dir().exists());
    assert_eq!(clean_up(&entries).await, None);
    assert!(!scene.source_dir().exists() && scene.world.index.superseded().1.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn by_permit_older_copies_go_with_all_others() {
    let world = World::new();
    let (one, two, third) = (world.node().await, world.node().await, world.node().await);
    let mut copies = Vec::new();
    for (node, path) in [(&one, "a"), (&two, "b"), (&third, "c"), (&one, "d"), (&two, "busy")] {
        node.path(path, both()).await;
        copies.push(node.put(path, sector(1), CACHE).await);
    }
    for older in ["a", "c", "busy"] {
        world.index.supersede_copies(&id(older), sector(1).id, C);
    }
    assert_eq!(world.holders(sector(1), CACHE).await, ["b*", "d*"]);
    // A task is just making another one there.
    let _making = two.local.making(sector(1).id, &[(CACHE, id("busy"))]);
    let permit = DeletePermit { reason: "a test".to_owned() };
    third.remote.remove_all(sector(1).id, CACHE, &permit).await.expect("removed");
    let left: Vec<_> = copies.iter().filter(|copy| copy.exists()).collect();
    assert_eq!(left, [&copies[4]]);
    assert_eq!(world.holders(sector(1), CACHE).await, Vec::<String>::new());
    let older: Vec<_> = world.index.superseded().1.into_iter().map(|(.., path)| path).collect();
    assert_eq!(older, [id("busy")]);
}
