//! No deletion takes the last copy of a file: not by two names of one directory, nor because of a copy that is declared and
//! not whole, nor by replacing a file that the index has forgotten.
//!
//! Everything that unlinks, replaces or cuts in a storage path, and why nothing is lost by it:
//!
//! | Where | What goes | Why it may |
//! |---|---|---|
//! | DELETE of a peer; `Worker.Remove`; `Remote::remove`, `remove_copies`, `keep_only` | copies in open paths | `survivor` has looked at a primary twin or asked its holder: names, lengths, another file; exactly the checked copies go, after the index has dropped them and still calls that very twin primary |
//! | `Remote::remove`, `remove_copies`, `keep_only` | copies elsewhere | a Sealyard does the same for itself; a Lotus obeys, so what it has is compared first with a primary copy that stays |
//! | `Local::remove`, a move's source (`remove_at`) | copies in open paths | a twin in an open path is looked at after the drop, one elsewhere counts for nothing; two processes that count on each other both see the other's drop |
//! | an exact DELETE | the file that was copied | the same checks; until it is known to be that one it has a name that nothing deletes |
//! | `remove_all`, `discard_all` | all copies, the last too, each by its path | a permit that was durable before; `discard_all` needs a token, which a superseded attempt no longer gets |
//! | the same for a sector that is sealed again | what its rebuild has made | the index refuses to drop its replica from any other path (`keep`), and what is not dropped is not deleted |
//! | a fetch or move put in its place | what lay there, or had come whole and was not declared | set aside under a name that nothing deletes; gone only if the index knew it as secondary and nothing of it is missing, if its own source has sent it anew, or if it is the same byte by byte |
//! | a move by rename | nothing | one rename on one file system, never of a link; the destination is declared first |
//! | `fetching/*.part` | what a fetch left | never whole and declared; claimed first, so no live fetch's |
//! | `fetching/*.removed-*` | what a deletion left | its deletion had been decided by one of the above |
//! | `storage cleanup` | what a survey taken then offers | partial, or with a primary twin that was looked at or asked for, set-aside files too; files of sectors without a record, and kept ones, never; of removed sectors one by one, by a permit that was durable before |
//! | a worker's failed or interrupted call | files that it created | they were not there before it; after a restart only those that the index does not list |
//! | PreCommit1, Unseal, AddPiece, Finalize | within the file or directory that is theirs | the sector's locks; a permit where a replica is made anew; punching frees only what the trailer no longer marks |
//! | settings, journals, notes | their own temporary files | made by the same write, under fresh names |

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealtasks::{
    AcquireMode, FileType, FileTypes, Finding, Matter, PathOrder, PathReport, PathType, SectorRef,
};
use stores::{
    CopyKind, DeletePermit, FetchOptions, Index, PeerTokens, Remote, StorageMeta, TokenUse, TransferMeter,
    init_path,
};
use support::{ADMIN, Node, World, ask, both, content, id, sealing, sector, storing, tree, write_file};

const S: FileTypes = FileTypes::SEALED;
const NONE: FileTypes = FileTypes::NONE;

/// A storage path whose directory of sealed files is another path's.
async fn second_name(node: &Node, name: &str, of: &Path) -> PathBuf {
    let dir = node.dir.path().join(name);
    init_path(&dir, &StorageMeta::new(&id(name), &storing())).expect("made");
    symlink(of.join("sealed"), dir.join("sealed")).expect("linked");
    node.local.attach_path(&dir).await.expect("it opens");
    dir
}

async fn surveyed(node: &Node) -> Vec<Finding> {
    let surveys = node.local.survey().await;
    assert!(surveys.iter().all(|survey| survey.error.is_none()), "{surveys:#?}");
    surveys.into_iter().flat_map(|survey| survey.findings).collect()
}

#[tokio::test]
async fn one_file_under_two_names_is_one_copy() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", storing()).await;
    let file = node.put("a", sector(1), FileType::Sealed).await;
    second_name(&node, "b", &dir).await;
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*", "b*"]);
    for keep in ["a", "b"] {
        let refused =
            node.local.remove(sector(1).id, FileType::Sealed, &[id(keep)]).await.expect_err("one file");
        assert!(refused.to_string().contains("under another name"), "{refused}");
    }
    assert_eq!(fs::read(&file).expect("there"), content(sector(1), FileType::Sealed));
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*", "b*"], "both are declared again");

    // Neither is it moved onto itself.
    world.index.drop_files(&id("b"), sector(1).id, S).await.expect("dropped");
    let order = PathOrder::Move { sector: sector(1), types: S, to: id("b") };
    node.remote.carry_out(order).await.expect_err("the same file");
    assert_eq!(fs::read(&file).expect("there"), content(sector(1), FileType::Sealed));
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
}

#[tokio::test]
async fn one_file_on_a_mount_of_two_machines_is_one_copy() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    let dir = one.path("a", storing()).await;
    let file = one.put("a", sector(1), FileType::Sealed).await;
    second_name(&two, "b", &dir).await;
    let url = format!("{}/sealed/s-t01000-1?keep=b", one.base);
    assert_eq!(ask("DELETE", &url, &[ADMIN]).await.0.as_u16(), 500);
    assert!(file.exists());
    let why = one.local.kept_files()[0].why.clone();
    assert!(why.contains("path b is this file under another name"), "{why}");
}

#[tokio::test]
async fn a_copy_that_is_declared_and_not_whole_saves_nothing_from_being_kept() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    node.path("b", both()).await;
    let (ours, other) =
        (node.put("a", sector(1), FileType::Cache).await, node.put("b", sector(1), FileType::Cache).await);
    fs::remove_file(other.join("t_aux")).expect("removed");
    let refused =
        node.local.remove(sector(1).id, FileType::Cache, &[id("b")]).await.expect_err("b lacks a file");
    assert!(refused.to_string().contains("differs in names or lengths"), "{refused}");
    assert!(ours.join("t_aux").exists());
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["a*", "b*"]);
}

/// The index's word on a copy elsewhere is not enough for ours to go.
#[tokio::test]
async fn our_copy_stays_while_the_primary_one_elsewhere_is_not_whole() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    one.path("a", storing()).await;
    two.path("b", sealing()).await;
    let primary = one.put("a", sector(1), FileType::Sealed).await;
    let copy = two.put("b", sector(1), FileType::Sealed).await;
    fs::write(&primary, "cut").expect("written");
    two.remote.remove_copies(sector(1).id, S).await.expect("that is no error");
    assert!(copy.exists());
    assert!(two.local.kept_files()[0].why.contains("differs in names or lengths"));
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*", "b"]);

    // Nor does a clean-up take one that the index does not list.
    world.index.drop_files(&id("b"), sector(1).id, S).await.expect("dropped");
    let order = PathOrder::CleanUp { entries: vec![copy.clone()], old: Vec::new() };
    let PathReport::CleanedUp(cleaned) = two.remote.carry_out(order).await.expect("an answer") else {
        panic!("no clean-up")
    };
    let kept = cleaned[0].kept.clone().expect("a reason");
    assert!(kept.contains("differs in names or lengths") && copy.exists(), "{kept}");
    world.index.declare(&id("b"), sector(1).id, S, CopyKind::Secondary).await.expect("declared");

    fs::write(&primary, content(sector(1), FileType::Sealed)).expect("written");
    two.remote.remove_copies(sector(1).id, S).await.expect("removed");
    assert!(!copy.exists() && two.local.kept_files().is_empty());
}

#[tokio::test]
async fn a_linked_file_is_copied_and_never_moved_by_name() {
    let world = World::new();
    let node = world.node().await;
    let seal = node.path("seal", sealing()).await;
    let store = node.path("store", storing()).await;
    let elsewhere = node.dir.path().join("elsewhere");
    fs::write(&elsewhere, content(sector(1), FileType::Sealed)).expect("written");
    // It would lead nowhere from another directory.
    symlink("../../elsewhere", seal.join("sealed/s-t01000-1")).expect("linked");
    node.local.redeclare(None, false).await.expect("declared");
    node.local.move_storage(sector(1), S).await.expect("moved");
    let moved = store.join("sealed/s-t01000-1");
    assert!(moved.symlink_metadata().expect("there").is_file());
    assert_eq!(fs::read(&moved).expect("readable"), content(sector(1), FileType::Sealed));
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["store*"]);
    assert!(elsewhere.exists() && seal.join("sealed/s-t01000-1").symlink_metadata().is_err());
}

async fn fetch(node: &Node, sector: SectorRef) {
    let (path, mode) = (PathType::Storage, AcquireMode::Copy);
    let meter = TransferMeter::default();
    node.remote.acquire(sector, S, NONE, path, mode, &meter).await.expect("fetched");
}

/// The index can have forgotten a file: what a fetch finds in its place is set aside unless it is the same.
#[tokio::test]
async fn what_a_fetch_finds_in_its_place_is_not_deleted() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    one.path("a", storing()).await;
    let dir = two.path("b", storing()).await;
    one.put("a", sector(1), FileType::Sealed).await;
    one.put("a", sector(2), FileType::Sealed).await;
    write_file(&dir, sector(1), FileType::Sealed);
    fs::write(dir.join("sealed/s-t01000-2"), vec![9; 2048]).expect("written");
    fetch(&two, sector(1)).await;
    fetch(&two, sector(2)).await;
    assert_eq!(fs::read(dir.join("sealed/s-t01000-2")).expect("there"), content(sector(2), FileType::Sealed));
    let found = surveyed(&two).await;
    let [replaced] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((replaced.matter, replaced.offered), (Matter::Replaced, true), "{replaced:#?}");
    assert_eq!(fs::read(&replaced.entry).expect("kept"), vec![9; 2048]);
    assert_eq!(two.local.tidy().await, 0, "nothing is deleted unasked");

    let order = PathOrder::CleanUp { entries: vec![replaced.entry.clone()], old: Vec::new() };
    two.remote.carry_out(order).await.expect("cleaned up");
    assert!(surveyed(&two).await.is_empty() && tree(&dir).iter().all(|name| !name.contains("replaced")));
}

#[tokio::test]
async fn what_a_task_is_making_is_neither_declared_nor_offered() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    one.path("a", storing()).await;
    let dir = two.path("b", both()).await;
    one.put("a", sector(1), FileType::Sealed).await;
    let making = two.local.making(sector(1).id, &[(FileType::Sealed, id("b"))]);
    fs::write(dir.join("sealed/s-t01000-1"), "half").expect("written");
    two.local.redeclare(None, false).await.expect("declared");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
    assert!(surveyed(&two).await.is_empty());
    drop(making);
    assert_eq!(surveyed(&two).await.len(), 1);
    two.local.redeclare(None, false).await.expect("declared");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*", "b*"]);
}

struct NoTokens;

#[async_trait::async_trait]
impl PeerTokens for NoTokens {
    async fn token(&self, _: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Err("the task is over".into())
    }
}

/// A worker whose attempt was superseded while it could not be reached.
#[tokio::test]
async fn who_gets_no_token_any_more_discards_nothing() {
    let world = World::new();
    let (late, maker) = (world.node().await, world.node().await);
    late.path("a", sealing()).await;
    maker.path("b", sealing()).await;
    let (old, new) =
        (late.put("a", sector(1), FileType::Sealed).await, maker.put("b", sector(1), FileType::Sealed).await);
    let options = FetchOptions { token: "admin-token".to_owned(), parallel: 1 };
    let remote =
        Remote::new(late.local.clone(), world.index.clone(), options).with_tokens(Arc::new(NoTokens));
    let permit = DeletePermit { reason: "PreCommit1 makes it anew".to_owned() };
    remote.discard_all(sector(1).id, FileType::Sealed, &permit).await.expect_err("no token");
    assert!(old.exists() && new.exists());
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a", "b"]);
}

/// A rebuild's PreCommit1, while what was lost has come back on two hosts and on its own.
#[tokio::test]
async fn what_a_rebuild_has_not_made_is_not_discarded() {
    let world = World::new();
    let (back, made, maker) = (world.node().await, world.node().await, world.node().await);
    back.path("a", sealing()).await;
    made.path("b", sealing()).await;
    maker.path("m", sealing()).await;
    let (original, anew, here) = (
        back.put("a", sector(1), FileType::Sealed).await,
        made.put("b", sector(1), FileType::Sealed).await,
        maker.put("m", sector(1), FileType::Sealed).await,
    );
    let permit = DeletePermit { reason: "PreCommit1 makes it anew".to_owned() };
    world.index.keep(sector(1).id, FileTypes::SEALED | FileTypes::CACHE, Some([id("b"), id("m")].into()));
    let discard = || maker.remote.discard_all(sector(1).id, FileType::Sealed, &permit);
    discard().await.expect_err("what was lost is there, too");
    assert!(original.exists() && anew.exists() && here.exists());
    for (path, file) in [("b", &anew), ("m", &here)] {
        fs::remove_file(file).expect("deleted");
        world.index.drop_files(&id(path), sector(1).id, S).await.expect("its own");
    }
    discard().await.expect_err("what was lost is there alone");
    assert!(original.exists());
    world.index.keep(sector(1).id, FileTypes::SEALED | FileTypes::CACHE, None);
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a"]);
}

#[tokio::test]
async fn the_copy_that_counts_is_the_one_that_is_moved() {
    let world = World::new();
    let node = world.node().await;
    // The heavier path is named first by the index.
    let stale = sealtasks::StorageStanza { weight: 99, ..sealing() };
    node.path("stale", stale).await;
    node.path("seal", sealing()).await;
    let store = node.path("store", storing()).await;
    let old = node.put("stale", sector(1), FileType::Sealed).await;
    fs::write(&old, vec![1; 2048]).expect("written");
    node.put("seal", sector(1), FileType::Sealed).await;
    world.index.declare(&id("seal"), sector(1).id, S, CopyKind::Primary).await.expect("declared");
    node.local.move_storage(sector(1), S).await.expect("moved");
    let stored = fs::read(store.join("sealed/s-t01000-1")).expect("there");
    assert_eq!(stored, content(sector(1), FileType::Sealed));
}

/// Freed but for some ranges, a file takes up its space in one place only.
#[tokio::test]
async fn what_is_kept_is_kept_once() {
    let kind = FileType::Unsealed;
    let world = World::new();
    let (one, other) = (world.node().await, world.node().await);
    one.path("a", storing()).await;
    let beside = one.path("b", storing()).await;
    other.path("c", sealing()).await;
    other.path("d", storing()).await;
    let mut files = Vec::new();
    for (node, path) in [(&one, "a"), (&one, "b"), (&other, "c"), (&other, "d")] {
        files.push(node.put(path, sector(1), kind).await);
    }
    assert_eq!(world.holders(sector(1), kind).await, ["a*", "b*", "c", "d*"]);
    one.remote.keep_only(sector(1).id, kind, &id("b")).await.expect("the others go");
    assert_eq!(world.holders(sector(1), kind).await, ["b*"]);
    let there: Vec<bool> = files.iter().map(|file| file.exists()).collect();
    assert_eq!(there, [false, true, false, false]);

    // The same file under another name is no copy.
    let again = one.dir.path().join("e");
    init_path(&again, &StorageMeta::new(&id("e"), &storing())).expect("made");
    symlink(beside.join("unsealed"), again.join("unsealed")).expect("linked");
    one.local.attach_path(&again).await.expect("it opens");
    assert_eq!(world.holders(sector(1), kind).await, ["b*", "e*"]);
    one.remote.keep_only(sector(1).id, kind, &id("e")).await.expect("nothing to free");
    assert_eq!(fs::read(&files[1]).expect("there"), content(sector(1), kind));
    let nowhere = one.remote.keep_only(sector(1).id, kind, &id("a")).await.expect_err("not there");
    assert_eq!(nowhere.code(), "STO011");
}

/// The manager's permit names one file: that one goes, the last copy though it is, and no other.
#[tokio::test]
async fn a_file_of_a_removed_sector_goes_alone() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", storing()).await;
    node.path("b", storing()).await;
    let gone = node.put("a", sector(1), FileType::Sealed).await;
    let copy = node.put("b", sector(1), FileType::Sealed).await;
    let next = node.put("a", sector(2), FileType::Sealed).await;
    let (file, path, reason) = (FileType::Sealed, id("a"), "removed".to_owned());
    let order = PathOrder::Discard { sector: sector(1).id, file, path, reason };
    assert_eq!(node.remote.carry_out(order.clone()).await.expect("deleted"), PathReport::Discarded);
    assert!(!gone.exists() && copy.exists() && next.exists());
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["b*"]);
    let order = match order {
        PathOrder::Discard { sector, file, reason, .. } => {
            PathOrder::Discard { sector, file, path: id("b"), reason }
        }
        other => panic!("{other:?}"),
    };
    node.remote.carry_out(order).await.expect("the last one, too");
    assert!(!copy.exists() && next.exists());
}
