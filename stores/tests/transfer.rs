//! Files moving between machines: two nodes with real servers, and strangers that speak as Lotus does, or worse.

mod support;

use std::fs;

use sealtasks::{AcquireMode, FileType, FileTypes, PathType, SectorRef, StorageStanza};
use stores::{CopyKind, DeletePermit, Index, StorageMeta, TransferMeter, init_path};
use support::{Node, World, both, cache_files, content, id, sealing, sector, storing, tree};

const S: FileTypes = FileTypes::SEALED;
const C: FileTypes = FileTypes::CACHE;
const NONE: FileTypes = FileTypes::NONE;

async fn acquire(
    node: &Node,
    sector: SectorRef,
    types: FileTypes,
    mode: AcquireMode,
) -> Result<(stores::Acquired, u64), stores::StoreError> {
    let meter = TransferMeter::default();
    let got = node.remote.acquire(sector, types, NONE, PathType::Sealing, mode, &meter).await?;
    Ok((got, meter.bytes()))
}

#[tokio::test]
async fn a_move_brings_everything_and_leaves_nothing() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let source = a.path("a", both()).await;
    let target = b.path("b", both()).await;
    a.put("a", sector(1), FileType::Sealed).await;
    a.put("a", sector(1), FileType::Cache).await;
    a.put("a", sector(1), FileType::Unsealed).await;
    let before = tree(&source);

    let types = S | C | FileTypes::UNSEALED;
    let (got, bytes) = acquire(&b, sector(1), types, AcquireMode::Move).await.expect("moved");
    assert_eq!(got.fetched, types);
    assert_eq!(tree(&target), before);
    assert!(tree(&source).is_empty(), "{:?}", tree(&source));
    for kind in [FileType::Sealed, FileType::Unsealed] {
        assert_eq!(fs::read(&got.files.0[&kind]).expect("there"), content(sector(1), kind));
    }
    for (name, bytes) in cache_files() {
        assert_eq!(fs::read(got.files.0[&FileType::Cache].join(name)).expect("there"), bytes);
    }
    for kind in types.iter() {
        assert_eq!(world.holders(sector(1), kind).await, ["b*"]);
    }
    let in_cache: usize = cache_files().values().map(Vec::len).sum();
    assert_eq!(bytes, 2 * 2048 + in_cache as u64, "every byte of the files, counted once");

    let (again, bytes) = acquire(&b, sector(1), types, AcquireMode::Move).await.expect("here already");
    assert_eq!((again.fetched, bytes), (NONE, 0));
}

#[tokio::test]
async fn a_copy_leaves_the_source_primary() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    b.path("b", both()).await;
    let source = a.put("a", sector(1), FileType::Sealed).await;
    acquire(&b, sector(1), S, AcquireMode::Copy).await.expect("copied");
    assert!(source.exists());
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*", "b"]);

    b.remote.remove_copies(sector(1).id, S).await.expect("removed");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
    acquire(&b, sector(1), S, AcquireMode::Copy).await.expect("copied again");
    a.remote.remove_copies(sector(1).id, S).await.expect("removed from afar");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
}

/// Lotus's TestMoveShared: both nodes have the storage path, only the first has the sealing path. The second moves the
/// file into storage; the deletion at the first must not touch the shared copy.
#[tokio::test]
async fn a_move_into_a_shared_path_keeps_the_shared_copy() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    one.path("seal", sealing()).await;
    let shared = one.path("shared", storing()).await;
    two.local.attach_path(&shared).await.expect("the same mount");
    let source = one.put("seal", sector(1), FileType::Sealed).await;

    let meter = TransferMeter::default();
    two.remote.move_storage(sector(1), S, &meter).await.expect("moved");
    assert!(!source.exists());
    let file = shared.join("sealed/s-t01000-1");
    assert_eq!(fs::read(&file).expect("the one copy"), content(sector(1), FileType::Sealed));
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["shared*"]);
    let (got, bytes) = acquire(&one, sector(1), S, AcquireMode::Move).await.expect("local to both");
    assert_eq!((got.files.0[&FileType::Sealed].clone(), bytes), (file, 0));
}

#[tokio::test]
async fn several_wishes_for_one_file_are_one_transfer() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    b.path("b", both()).await;
    a.put("a", sector(1), FileType::Sealed).await;
    let wish = || acquire(&b, sector(1), S, AcquireMode::Copy);
    let (one, two, three) = tokio::join!(wish(), wish(), wish());
    let bytes: u64 = [one, two, three].into_iter().map(|got| got.expect("acquired").1).sum();
    assert_eq!(bytes, 2048);
}

#[tokio::test]
async fn nobody_has_it() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let error = acquire(&node, sector(1), S, AcquireMode::Move).await.expect_err("nobody");
    assert_eq!(error.code(), "STO011");
}

#[tokio::test]
async fn a_file_that_does_not_fit_is_not_begun() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    let target = b.path("b", StorageStanza { max_storage: 80_000, ..both() }).await;
    let source = a.put("a", sector(1), FileType::Cache).await;
    let ids = [(FileType::Cache, id("b"))].into();
    // As often as it fits: directories take room on some disks and none on others.
    let mut held = Vec::new();
    for number in 9.. {
        match b.local.reserve(sector(number), C, &ids, sealtasks::SpaceTable::Sealing).await {
            Ok(room) => held.push(room),
            Err(_) => break,
        }
    }
    assert!(!held.is_empty(), "there was none");
    let meter = TransferMeter::default();
    let wish = b.remote.acquire(sector(1), C, NONE, PathType::Sealing, AcquireMode::Move, &meter).await;
    assert_eq!(wish.expect_err("full").call_code().number(), 102);
    assert_eq!(meter.bytes(), 0);
    assert!(source.exists() && tree(&target).is_empty());
    drop(held);
}

fn answer(kind: &str, length: Option<usize>, body: &[u8]) -> Vec<u8> {
    let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

const FILE: &str = "application/octet-stream";
const TAR: &str = "application/x-tar";

/// A tar stream as Lotus sends it: nothing after the last byte of the last file.
fn lotus_tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in members {
        out.resize(out.len().div_ceil(512) * 512, 0);
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(*bytes);
    }
    out
}

/// Fetching this answer must fail, leave nothing behind and not delete anything at the stranger's.
async fn refused(kind: FileType, answer: Vec<u8>, expected: &str) {
    let world = World::new();
    let node = world.node().await;
    let target = node.path("b", both()).await;
    let stranger = world.stranger("x", kind.into(), sector(1), answer).await;
    let error = acquire(&node, sector(1), kind.into(), AcquireMode::Move).await.expect_err(expected);
    let text = sealtasks::chain(&error);
    assert!(text.contains(expected), "{text}");
    assert_eq!(tree(node.dir.path()), Vec::<String>::new());
    assert!(!target.join(kind.name()).join("fetching/s-t01000-1").exists());
    assert_eq!(world.holders(sector(1), kind).await, ["x*"]);
    assert_eq!(stranger.asked(), [format!("GET /remote/{kind}/s-t01000-1 HTTP/1.1")]);
}

#[tokio::test]
async fn damaged_transfers_leave_nothing_and_delete_nothing() {
    let half = [1; 1000];
    let whole = [1; 2048];
    refused(FileType::Sealed, answer(FILE, Some(2048), &half), "transfer with http://").await;
    refused(FileType::Sealed, answer(FILE, None, &half), "has 1000 bytes; expected 2048").await;
    refused(FileType::Sealed, answer(FILE, Some(1000), &half), "has 1000 bytes; expected 2048").await;
    refused(FileType::Sealed, answer(FILE, None, &[1; 2049]), "at most 2048").await;
    refused(FileType::Sealed, answer(TAR, Some(2048), &whole), "expected application/octet-stream").await;
    refused(FileType::Unsealed, answer(FILE, Some(1000), &half), "and a trailer of at most").await;
    let bad_trailer = [&whole[..], &[1, 2, 3, 9, 0, 0, 0]].concat();
    refused(FileType::Unsealed, answer(FILE, Some(2055), &bad_trailer), "states its own length").await;
    refused(FileType::Cache, answer(FILE, Some(2048), &whole), "expected application/x-tar").await;
    refused(FileType::Cache, b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno".to_vec(), "answered 500: no")
        .await;
}

#[tokio::test]
async fn damaged_directories_leave_nothing_and_delete_nothing() {
    let layers: &[(&str, &[u8])] =
        &[("sc-02-data-layer-1.dat", &[1; 2048]), ("sc-02-data-layer-2.dat", &[2; 2048])];
    refused(FileType::Cache, answer(TAR, None, b""), "layer-1.dat is missing").await;
    refused(FileType::Cache, answer(TAR, None, &lotus_tar(layers)), "tree-d.dat is missing").await;
    refused(FileType::Cache, answer(TAR, None, &lotus_tar(&layers[..1])), "layer-2.dat is missing").await;
    let cut = lotus_tar(layers);
    refused(FileType::Cache, answer(TAR, None, &cut[..cut.len() - 1]), "1 bytes before the end").await;
    refused(FileType::Cache, answer(TAR, None, &lotus_tar(&[("../../escape", b"x")])), "no file of a sector")
        .await;
    refused(FileType::Cache, answer(TAR, None, &lotus_tar(&[("p_aux", &[0; 65])])), "at most 64").await;
    refused(
        FileType::Cache,
        answer(TAR, None, &lotus_tar(&[("p_aux", b"a"), ("p_aux", b"b")])),
        "comes twice",
    )
    .await;
    let announced = lotus_tar(&[("p_aux", b"a")]);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nX-Sealyard-Manifest: p_aux:1,t_aux:5\r\n\
                Connection: close\r\n\r\n";
    refused(FileType::Cache, [head.as_bytes(), &announced].concat(), "announced was p_aux:1,t_aux:5").await;
}

#[tokio::test]
async fn directories_come_from_lotus_peers_too() {
    let world = World::new();
    let node = world.node().await;
    node.path("b", both()).await;
    let members: Vec<(&str, Vec<u8>)> = cache_files().into_iter().collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let stranger = world.stranger("x", C, sector(1), answer(TAR, None, &lotus_tar(&members))).await;
    let (got, _) = acquire(&node, sector(1), C, AcquireMode::Move).await.expect("unterminated, yet whole");
    for (name, bytes) in cache_files() {
        assert_eq!(fs::read(got.files.0[&FileType::Cache].join(name)).expect("there"), bytes);
    }
    let path = "/remote/cache/s-t01000-1";
    let asked = [format!("GET {path} HTTP/1.1"), format!("DELETE {path}?keep=b HTTP/1.1")];
    assert_eq!(stranger.asked(), asked);
    // It refused to delete its copy, which no longer counts.
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["b*"]);
}

#[tokio::test]
async fn the_primary_copy_is_fetched_before_a_heavier_one() {
    let world = World::new();
    let (good, stale, node) = (world.node().await, world.node().await, world.node().await);
    good.path("good", StorageStanza { weight: 1, ..both() }).await;
    let left = stale.path("stale", sealing()).await;
    node.path("b", both()).await;
    good.put("good", sector(1), FileType::Sealed).await;
    stale.put("stale", sector(1), FileType::Sealed).await;
    fs::write(left.join("sealed/s-t01000-1"), vec![9; 2048]).expect("older");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["stale", "good*"]);
    let (got, _) = acquire(&node, sector(1), S, AcquireMode::Copy).await.expect("fetched");
    let fetched = fs::read(&got.files.0[&FileType::Sealed]).expect("there");
    assert_eq!(fetched, content(sector(1), FileType::Sealed));
}

#[tokio::test]
async fn the_next_holder_is_tried() {
    let world = World::new();
    let (good, node) = (world.node().await, world.node().await);
    good.path("good", StorageStanza { weight: 1, ..both() }).await;
    node.path("b", both()).await;
    good.put("good", sector(1), FileType::Sealed).await;
    let stranger = world.stranger("x", S, sector(1), answer(FILE, Some(2048), &[1; 9])).await;
    let (got, bytes) = acquire(&node, sector(1), S, AcquireMode::Move).await.expect("from the second");
    assert_eq!(
        fs::read(&got.files.0[&FileType::Sealed]).expect("there"),
        content(sector(1), FileType::Sealed)
    );
    assert_eq!((stranger.asked().len(), bytes), (1, 2048 + 9));
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["b*", "x*"], "deleted where it came from");
}

#[tokio::test]
async fn removal_from_afar_keeps_the_last_copy_unless_permitted() {
    let world = World::new();
    let (a, manager) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    let file = a.put("a", sector(1), FileType::Unsealed).await;
    let refused =
        manager.remote.remove(sector(1).id, FileType::Unsealed, &[]).await.expect_err("the last copy");
    assert_eq!(refused.code(), "STO012");
    assert!(file.exists());
    let permit = DeletePermit { reason: "committed capacity: nothing to keep ✓".to_owned() };
    manager.remote.remove_all(sector(1).id, FileType::Unsealed, &permit).await.expect("permitted");
    assert!(!file.exists());
    assert!(world.holders(sector(1), FileType::Unsealed).await.is_empty());
}

#[tokio::test]
async fn room_is_asked_for_wherever_the_path_is() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    a.path("a", StorageStanza { max_storage: 1 << 20, ..both() }).await;
    let here = a.remote.fs_stat(&id("a")).await.expect("local");
    let there = b.remote.fs_stat(&id("a")).await.expect("over the wire");
    assert_eq!((here.max, there.max), (1 << 20, 1 << 20));
    assert_eq!(b.remote.fs_stat(&id("zzz")).await.expect_err("unknown").code(), "STO020");
}

/// The source declares a copy that differs from ours: a lie or a leftover. It must not justify a deletion.
#[tokio::test]
async fn a_twin_of_another_length_saves_the_source() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let source = a.path("a", both()).await;
    let other = b.path("b", both()).await;
    for kind in [FileType::Sealed, FileType::Cache] {
        a.put("a", sector(1), kind).await;
        b.put("b", sector(1), kind).await;
    }
    fs::write(other.join("sealed/s-t01000-1"), "short").expect("cut");
    fs::remove_file(other.join("cache/s-t01000-1/t_aux")).expect("lost");
    let before = tree(&source);
    for kind in ["sealed", "cache"] {
        let url = format!("{}/{kind}/s-t01000-1?keep=b", a.base);
        let (status, _, body) = support::ask("DELETE", &url, &[support::ADMIN]).await;
        assert_eq!((status.as_u16(), body.len()), (500, 0));
    }
    assert_eq!(tree(&source), before);
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*", "b*"]);
}

#[tokio::test]
async fn what_lay_undeclared_at_the_place_makes_room_and_is_kept() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    let target = b.path("b", both()).await;
    a.put("a", sector(1), FileType::Cache).await;
    fs::create_dir_all(target.join("cache/s-t01000-1")).expect("made");
    fs::write(target.join("cache/s-t01000-1/stale"), "x").expect("written");
    fs::create_dir_all(target.join("cache/fetching/s-t01000-1")).expect("made");
    fs::write(target.join("cache/fetching/s-t01000-1/p_aux"), "half").expect("written");
    acquire(&b, sector(1), C, AcquireMode::Move).await.expect("moved");
    let expected: Vec<_> = cache_files().into_keys().map(|name| format!("cache/s-t01000-1/{name}")).collect();
    // What lay in the place was no copy of it: it is set aside, and not deleted.
    let (aside, there): (Vec<_>, _) = tree(&target).into_iter().partition(|name| name.contains(".replaced-"));
    assert_eq!(there, expected);
    assert!(aside.len() == 1 && aside[0].ends_with("/stale"), "{aside:?}");
}

#[tokio::test]
async fn a_dead_url_is_passed_over() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    b.path("b", both()).await;
    // Nobody listens on the first URL any more.
    let dir = a.dir.path().join("a");
    init_path(&dir, &StorageMeta::new(&id("a"), &both())).expect("made");
    let dead = support::info("a", "http://127.0.0.1:1/remote", both());
    world.index.attach(dead, support::room(0)).await.expect("attached");
    a.local.attach_path(&dir).await.expect("opened");
    a.put("a", sector(1), FileType::Sealed).await;
    world.index.declare(&id("a"), sector(1).id, S, CopyKind::Primary).await.expect("declared");
    acquire(&b, sector(1), S, AcquireMode::Copy).await.expect("by the second URL");
}

#[tokio::test]
async fn a_foreign_file_in_a_cache_directory_stays_and_the_sectors_files_come() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    let target = b.path("b", both()).await;
    let source = a.put("a", sector(1), FileType::Cache).await;
    fs::write(source.join("notes.txt"), "the operator's").expect("written");
    fs::create_dir(source.join("lost+found")).expect("made");
    acquire(&b, sector(1), C, AcquireMode::Move).await.expect("moved");
    let mut expected: Vec<_> =
        cache_files().into_keys().map(|name| format!("cache/s-t01000-1/{name}")).collect();
    // The deletion is still owed.
    expected.insert(0, "cache/fetching/s-t01000-1.part/lock".to_owned());
    assert_eq!(tree(&target), expected);
    assert_eq!(fs::read(source.join("notes.txt")).expect("kept"), b"the operator's");
}

#[tokio::test]
async fn what_is_made_anew_is_gone_everywhere_and_not_found_where_it_stays() {
    let world = World::new();
    let (a, b, maker) = (world.node().await, world.node().await, world.node().await);
    a.path("a", both()).await;
    b.path("b", sealing()).await;
    maker.path("m", both()).await;
    let files =
        [a.put("a", sector(1), FileType::Sealed).await, b.put("b", sector(1), FileType::Sealed).await];
    let own = maker.put("m", sector(1), FileType::Sealed).await;
    // Refuses every DELETE.
    let stranger = world.stranger("x", S, sector(1), Vec::new()).await;
    let permit = DeletePermit { reason: "PreCommit1 makes it anew".to_owned() };
    maker.remote.discard_all(sector(1).id, FileType::Sealed, &permit).await.expect("discarded");
    assert!(files.iter().chain([&own]).all(|file| !file.exists()));
    assert_eq!(stranger.asked(), ["DELETE /remote/sealed/s-t01000-1 HTTP/1.1"]);
    assert!(world.holders(sector(1), FileType::Sealed).await.is_empty(), "nobody finds the stranger's");
}
