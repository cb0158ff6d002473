//! What else could take the last copy: a declaration without a file behind it, a check that is out of date by the time of the
//! deletion, a deed that names too much, and a file that is taken for another one.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sealtasks::{
    AcquireMode, FetchScope, FetchVerb, FileType, FileTypes, Finding, Matter, PathOrder, PathReport,
    PathType, WorkerId,
};
use stores::{
    CopyKind, DeletePermit, Index, Looking, PERMIT_HEADER, StorageMeta, TokenAccess, TransferMeter,
    VerifyToken, fetch_router, init_path,
};
use support::mount::Mount;
use support::through::Through;
use support::wire::{Scene, Weather};
use support::{ADMIN, Node, World, ask, both, content, id, info, room, sealing, sector, storing, write_file};
use tokio::net::TcpListener;

const S: FileTypes = FileTypes::SEALED;
const NONE: FileTypes = FileTypes::NONE;
const SEALED: FileType = FileType::Sealed;

/// The copy that was asked for is gone by the time of the deletion; another one is only declared.
#[tokio::test]
async fn only_the_copy_that_was_asked_for_lets_ours_go() {
    for exactly in [false, true] {
        let world = World::new();
        let other = world.node().await;
        other.path("x", storing()).await;
        other.put("x", sector(1), SEALED).await;
        let node = world.node_over(Through::losing(&world.index, id("ours"), id("x"))).await;
        node.path("ours", sealing()).await;
        let ours = node.put("ours", sector(1), SEALED).await;
        world.index.attach(info("y", "http://127.0.0.1:1/remote", both()), room(0)).await.expect("attached");
        world.index.declare(&id("y"), sector(1).id, S, CopyKind::Primary).await.expect("declared");
        if exactly {
            let url = format!("{}/sealed/s-t01000-1", node.base);
            let list = ask("GET", &url, &[ADMIN, ("x-sealyard-blocks", "1")]).await;
            let text = String::from_utf8(list.2.to_vec()).expect("JSON");
            let etag = text.split("\"etag\":\"").nth(1).and_then(|rest| rest.get(..64)).expect("an etag");
            let deleted = ask("DELETE", &url, &[ADMIN, ("x-sealyard-exactly", etag)]).await;
            assert_eq!(deleted.0.as_u16(), 500);
        } else {
            node.remote.remove_copies(sector(1).id, S).await.expect("that is no error");
        }
        assert!(ours.exists(), "exactly: {exactly}");
        assert_eq!(world.holders(sector(1), SEALED).await, ["ours", "y*"], "exactly: {exactly}");
    }
}

/// One token: it may remove the sealed file of sector 1 in path "a".
struct ForPathA;

#[async_trait]
impl VerifyToken for ForPathA {
    async fn permissions(&self, token: &str) -> Option<Vec<String>> {
        support::Tokens.permissions(token).await
    }

    async fn access(&self, token: &str) -> Option<TokenAccess> {
        if token != "for-a" {
            return Some(TokenAccess { admin: self.permissions(token).await?.len() > 1, fetch: None });
        }
        let (worker, sectors) = (WorkerId::CLOSED, vec![sector(1).id]);
        let verbs = vec![FetchVerb::Remove];
        let scope = FetchScope { worker, path: id("a"), sectors, types: S, verbs, until_ms: u64::MAX };
        Some(TokenAccess { admin: false, fetch: Some(scope) })
    }
}

#[tokio::test]
async fn a_permit_is_for_one_path() {
    let world = World::new();
    let (node, afar) = (world.node().await, world.node().await);
    node.path("a", both()).await;
    node.path("c", both()).await;
    let (of_a, of_c) = (node.put("a", sector(1), SEALED).await, node.put("c", sector(1), SEALED).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
    let looking = Looking::with_one_token("admin-token".to_owned());
    let router = fetch_router(node.local.clone(), Arc::new(ForPathA), looking, None);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("{base}/sealed/s-t01000-1");
    let permit = (PERMIT_HEADER, "a test");

    assert_eq!(ask("DELETE", &url, &[ADMIN, permit]).await.0.as_u16(), 500, "nobody says which one");
    let token = ("authorization", "Bearer for-a");
    let other = ("x-sealyard-path", "c");
    assert_eq!(ask("DELETE", &url, &[token, permit, other]).await.0.as_u16(), 403, "not its path");
    assert!(of_a.exists() && of_c.exists());
    assert_eq!(ask("DELETE", &url, &[token, permit]).await.0.as_u16(), 200);
    assert!(!of_a.exists() && of_c.exists(), "the copy in the other path stays");
    assert_eq!(world.holders(sector(1), SEALED).await, ["c*"]);
    assert_eq!(ask("DELETE", &url, &[token, permit]).await.0.as_u16(), 200, "nothing is left to do");
    assert!(of_c.exists());

    // Whoever means all of them names each.
    node.put("a", sector(1), SEALED).await;
    let permit = DeletePermit { reason: "a test".to_owned() };
    afar.remote.remove_all(sector(1).id, SEALED, &permit).await.expect("removed");
    assert!(!of_a.exists() && !of_c.exists() && world.holders(sector(1), SEALED).await.is_empty());
}

/// A Lotus deletes what it is asked to delete: whoever asks has looked before.
#[tokio::test]
async fn a_lotus_is_not_asked_to_delete_before_the_copy_that_stays_was_looked_at() {
    let one_byte =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/2048\r\nContent-Length: 1\r\n\r\nx";
    for (bytes, goes) in [(Some(2047), false), (None, false), (Some(2048), true)] {
        let world = World::new();
        let (holder, manager) = (world.node().await, world.node().await);
        holder.path("p", storing()).await;
        let primary = holder.put("p", sector(1), SEALED).await;
        match bytes {
            Some(bytes) => fs::write(&primary, vec![1; bytes]).expect("written"),
            None => fs::remove_file(&primary).expect("removed"),
        }
        let lotus = world.stranger("lotus", S, sector(1), one_byte.into()).await;
        manager.remote.remove(sector(1).id, SEALED, &[id("p")]).await.expect("that is no error");
        let asked = lotus.asked();
        assert_eq!(asked.iter().any(|line| line.starts_with("DELETE")), goes, "{bytes:?}: {asked:?}");
    }
}

/// What lies in `fetching/` under a name that says: another file took its place.
fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("fetching")).into_iter().flatten().flatten().map(|one| one.path());
    entries.filter(|path| path.to_string_lossy().contains(".replaced-")).collect()
}

#[tokio::test]
async fn a_damaged_primary_copy_does_not_replace_a_whole_one_for_good() {
    for whole in [false, true] {
        let world = World::new();
        let node = world.node().await;
        node.path("seal", sealing()).await;
        let store = node.path("store", storing()).await;
        let primary = node.put("seal", sector(1), SEALED).await;
        world.index.declare(&id("seal"), sector(1).id, S, CopyKind::Primary).await.expect("declared");
        write_file(&store, sector(1), SEALED);
        world.index.declare(&id("store"), sector(1).id, S, CopyKind::Secondary).await.expect("declared");
        if !whole {
            fs::write(&primary, [7; 100]).expect("cut");
        }
        node.local.move_storage(sector(1), S).await.expect("moved");
        let aside = set_aside(&store.join("sealed"));
        if whole {
            assert!(aside.is_empty(), "nothing of it is missing");
            continue;
        }
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(fs::read(&aside[0]).expect("there"), content(sector(1), SEALED));
        assert!(clean_up(&node, &aside[0]).await.expect("kept").contains("differs in names or lengths"));
        assert_eq!(fs::read(&aside[0]).expect("there"), content(sector(1), SEALED));
    }
}

/// Why an entry was kept, if it was.
async fn clean_up(node: &Node, entry: &Path) -> Option<String> {
    let order = PathOrder::CleanUp { entries: vec![entry.to_owned()], old: Vec::new() };
    let report = node.remote.carry_out(order).await.expect("an answer");
    let PathReport::CleanedUp(cleaned) = report else { panic!("{report:?}") };
    cleaned[0].kept.clone()
}

async fn findings(node: &Node) -> Vec<Finding> {
    node.local.survey().await.into_iter().flat_map(|survey| survey.findings).collect()
}

/// What another file took the place of goes only if nothing of it is missing where the primary copy is.
#[tokio::test]
async fn a_replaced_file_stays_while_no_primary_copy_makes_up_for_it() {
    for (bytes, gone, why) in
        [(4096, false, "differs in names or lengths"), (2048, true, "could not be checked")]
    {
        let world = World::new();
        let (one, two) = (world.node().await, world.node().await);
        one.path("a", storing()).await;
        let source = one.put("a", sector(1), SEALED).await;
        let dir = two.path("b", sealing()).await;
        fs::write(dir.join("sealed/s-t01000-1"), vec![9; bytes]).expect("written");
        let (path, meter) = (PathType::Sealing, TransferMeter::default());
        two.remote.acquire(sector(1), S, NONE, path, AcquireMode::Copy, &meter).await.expect("fetched");
        let aside = set_aside(&dir.join("sealed"));
        assert_eq!(aside.len(), 1, "{aside:?}");
        if gone {
            fs::remove_file(&source).expect("removed");
        }
        let kept = clean_up(&two, &aside[0]).await.expect("a reason");
        assert!(kept.contains(why), "{kept}");
        assert_eq!(fs::read(&aside[0]).expect("kept"), vec![9; bytes]);
        // Nor without anyone being asked.
        let kept = two.local.clean_up(&aside, &[]).await;
        assert!(kept[0].kept.is_some() && aside[0].exists(), "{kept:?}");
        fs::write(&source, vec![1; bytes]).expect("written");
        assert_eq!(clean_up(&two, &aside[0]).await, None, "it is as long");
        assert!(!aside[0].exists());
    }
}

/// A source that was written since it was copied is another file, and nobody but an operator can tell which one counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_at_the_source_stays_in_the_index() {
    let scene = Scene::new().await;
    scene.front.is(Weather::NoDeletion);
    scene.fetch(AcquireMode::Move).await.expect("moved all the same");
    scene.front.is(Weather::Fair);
    // The index has forgotten that it is the older copy.
    scene.world.index.drop_files(&id("a"), sector(1).id, FileTypes::CACHE).await.expect("dropped");
    scene.source.local.redeclare(None, false).await.expect("declared");
    let file = scene.source_dir().join("p_aux");
    fs::write(&file, vec![0x77; fs::read(&file).expect("there").len()]).expect("of the same length");
    let settled = scene.target.remote.settle_debts(std::time::Duration::MAX).await;
    assert_eq!(settled, (0, 1), "it is owed until somebody says which of the two counts");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["a*", "b*"], "a conflict, shown");
    let found = findings(&scene.source).await;
    assert!(found.iter().all(|one| one.matter != Matter::NotInIndex), "{found:#?}");
    assert!(clean_up(&scene.source, &scene.source_dir()).await.is_some());
    assert_eq!(fs::read(&file).expect("there")[0], 0x77);
    scene.world.index.drop_files(&id("a"), sector(1).id, FileTypes::CACHE).await.expect("dropped");
    assert_eq!(scene.target.remote.settle_debts(std::time::Duration::MAX).await, (1, 0));
    assert_eq!(fs::read(&file).expect("nobody has deleted it")[0], 0x77);
    scene.expect_whole();
}

/// A disk on which nothing can be created can be emptied by a move to another machine.
#[tokio::test]
async fn without_an_inode_left_a_file_can_be_moved_away() {
    let Some(mount) = Mount::tmpfs("size=1m,nr_inodes=24") else { return };
    let dir = mount.path().join("a");
    init_path(&dir, &StorageMeta::new(&id("a"), &storing())).expect("made");
    let world = World::new();
    let (node, other) = (world.node().await, world.node().await);
    node.local.open_path(&dir).await.expect("it opens");
    other.path("b", storing()).await;
    let kinds = [(1, FileType::Cache), (2, SEALED)];
    for (number, kind) in kinds {
        write_file(&dir, sector(number), kind);
    }
    node.local.redeclare(None, false).await.expect("declared");
    for (number, kind) in kinds {
        while fs::write(dir.join(uuid::Uuid::new_v4().to_string()), "").is_ok() {}
        assert!(!dir.join(kind.name()).join("fetching").exists(), "there is no place to rename into");
        let meter = TransferMeter::default();
        let (path, mode) = (PathType::Storage, AcquireMode::Move);
        let moved = other.remote.acquire(sector(number), kind.into(), NONE, path, mode, &meter).await;
        moved.expect("moved");
        assert_eq!(world.holders(sector(number), kind).await, ["b*"]);
        assert_eq!(fs::read_dir(dir.join(kind.name())).expect("there").count(), 0, "{kind}");
    }
}
