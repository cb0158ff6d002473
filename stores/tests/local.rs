//! Local paths: opening, foreign files, room, acquiring, moving within a machine, removing.

mod support;

use std::fs;

use sealtasks::{ActorId, FileType, FileTypes, PathFilters, PathType, SpaceTable, StorageStanza};
use stores::{CopyKind, DeletePermit, Index, Local, LocalOptions, StorageMeta, init_path};
use support::{World, both, content, id, sealing, sector, storing, tree, write_file};

const U: FileTypes = FileTypes::UNSEALED;
const S: FileTypes = FileTypes::SEALED;
const C: FileTypes = FileTypes::CACHE;
const NONE: FileTypes = FileTypes::NONE;

#[tokio::test]
async fn a_path_opens_with_its_sectors_and_leaves_foreign_files_alone() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", both()).await;
    node.local.close_path(&dir).await.expect("closed");
    write_file(&dir, sector(1), FileType::Sealed);
    write_file(&dir, sector(1), FileType::Cache);
    fs::write(dir.join("sealed/s-t01000-2.tmp"), "x").expect("written");
    fs::write(dir.join("cache/s-t01000-3"), "a file where a directory belongs").expect("written");
    fs::create_dir_all(dir.join("sealed/fetching")).expect("made");
    fs::write(dir.join("sealed/fetching/s-t01000-4"), "half").expect("written");
    fs::create_dir_all(dir.join("cache/fetching")).expect("made");
    fs::write(dir.join("cache/fetching/s-t01000-5.removed-by-me"), "mine").expect("written");
    let before = tree(&dir);

    let opened = node.local.open_path(&dir).await.expect("it opens");
    assert_eq!(opened.foreign, [dir.join("cache/s-t01000-3"), dir.join("sealed/s-t01000-2.tmp")]);
    let partial = ["cache/fetching/s-t01000-5.removed-by-me", "sealed/fetching/s-t01000-4"];
    assert_eq!(opened.partial, partial.map(|name| dir.join(name)));
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["a*"]);
    assert!(world.holders(sector(2), FileType::Sealed).await.is_empty());
    assert!(world.holders(sector(4), FileType::Sealed).await.is_empty());
    assert_eq!(tree(&dir), before);
}

#[tokio::test]
async fn files_in_a_sealing_path_are_secondary() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", sealing()).await;
    node.put("a", sector(1), FileType::Sealed).await;
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a"]);
}

#[tokio::test]
async fn one_bad_path_does_not_keep_the_others_closed() {
    let world = World::new();
    let root = tempfile::tempdir().expect("a directory");
    let dirs = ["good", "corrupt", "missing", "twin"].map(|name| root.path().join(name));
    for (dir, name) in dirs.iter().zip(["good", "corrupt", "missing", "good"]) {
        init_path(dir, &StorageMeta::new(&id(name), &both())).expect("made");
    }
    // The first of the two with one id takes longer to read, and is the one that opens all the same.
    fs::create_dir_all(dirs[0].join("sealed")).expect("made");
    for number in 0..2000 {
        fs::write(dirs[0].join(format!("sealed/s-t01000-{number}")), "").expect("written");
    }
    fs::write(dirs[1].join("sectorstore.json"), "{\"ID\": ").expect("damaged");
    fs::remove_dir_all(&dirs[2]).expect("gone");
    let config = root.path().join("storage.json");
    let mut list = stores::StorageConfig::default();
    dirs.iter().for_each(|dir| list.add(dir));
    list.write(&config).expect("written");

    let options =
        LocalOptions { config, urls: vec!["http://x/remote".to_owned()], index: world.index.clone() };
    let (local, problems) = Local::open(options).await.expect("the good one opens");
    let brief: Vec<_> = problems.iter().map(|one| (one.path.clone(), one.error.code())).collect();
    let [_, corrupt, missing, twin] = dirs.clone();
    assert_eq!(brief, [(corrupt, "STO002"), (missing, "STO001"), (twin, "STO005")]);
    assert_eq!(local.paths().iter().map(|path| path.dir.clone()).collect::<Vec<_>>(), dirs[..1]);
    let damaged = fs::read_to_string(dirs[1].join("sectorstore.json")).expect("there");
    assert_eq!(damaged, "{\"ID\": ", "a damaged file is not written over");
}

#[tokio::test]
async fn attach_is_remembered_and_detach_forgets() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", both()).await;
    let config = node.dir.path().join("storage.json");
    let listed = || stores::StorageConfig::read(&config).expect("read").paths().count();
    assert_eq!(listed(), 1);
    assert_eq!(node.local.attach_path(&dir).await.expect_err("open already").code(), "STO005");
    assert_eq!(listed(), 1);
    node.local.detach_path(&dir).await.expect("detached");
    assert_eq!((listed(), node.local.paths().len()), (0, 0));
    assert!(world.index.path_view(&id("a")).is_none());
    assert!(dir.join("sectorstore.json").exists());
    assert_eq!(node.local.detach_path(&dir).await.expect_err("not open").code(), "STO007");
}

#[tokio::test]
async fn redeclare_sees_changes_and_drops_what_is_missing() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", both()).await;
    let file = node.put("a", sector(1), FileType::Sealed).await;
    fs::remove_file(&file).expect("lost");
    write_file(&dir, sector(2), FileType::Sealed);
    let heavier = StorageMeta::new(&id("a"), &StorageStanza { weight: 77, ..both() });
    fs::write(dir.join("sectorstore.json"), heavier.to_bytes()).expect("edited");

    node.local.redeclare(None, false).await.expect("declared");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
    assert_eq!(world.holders(sector(2), FileType::Sealed).await, ["a*"]);
    assert_eq!(world.index.info(&id("a")).await.expect("known").stanza.weight, 77);
    node.local.redeclare(Some(&id("a")), true).await.expect("declared");
    assert!(world.holders(sector(1), FileType::Sealed).await.is_empty());
    assert_eq!(world.holders(sector(2), FileType::Sealed).await, ["a*"]);
    assert_eq!(node.local.redeclare(Some(&id("b")), true).await.expect_err("not open").code(), "STO006");
}

#[tokio::test]
async fn acquire_finds_and_allocates() {
    let world = World::new();
    let node = world.node().await;
    let seal = node.path("seal", sealing()).await;
    let store = node.path("store", storing()).await;
    let file = node.put("store", sector(1), FileType::Sealed).await;

    let got = node.local.acquire(sector(1), S | U, C, PathType::Sealing).await.expect("acquired");
    assert_eq!(got.files.0.get(&FileType::Sealed), Some(&file));
    assert_eq!(got.files.0.get(&FileType::Unsealed), None, "a missing existing file is left out");
    assert_eq!(got.files.0.get(&FileType::Cache), Some(&seal.join("cache/s-t01000-1")));
    assert_eq!(got.ids, [(FileType::Sealed, id("store")), (FileType::Cache, id("seal"))].into());

    // Where the file is already, if that path suits; else the best one that does.
    let again = node.local.acquire(sector(1), NONE, S, PathType::Storage).await.expect("acquired");
    assert_eq!(again.files.0[&FileType::Sealed], store.join("sealed/s-t01000-1"));
    let moved = node.local.acquire(sector(1), NONE, S, PathType::Sealing).await.expect("acquired");
    assert_eq!(moved.ids[&FileType::Sealed], id("seal"));
    let overlap = node.local.acquire(sector(1), S, S, PathType::Sealing).await.expect_err("both");
    assert_eq!(overlap.code(), "STO008");
}

#[tokio::test]
async fn filters_hold_for_every_allocation() {
    let world = World::new();
    let node = world.node().await;
    let filters = PathFilters {
        deny_types: vec![FileType::Unsealed],
        deny_miners: vec![ActorId::new(1000)],
        ..PathFilters::default()
    };
    let other = PathFilters { deny_miners: vec![], ..filters.clone() };
    node.path("a", StorageStanza { filters, ..both() }).await;
    let refused = node.local.acquire(sector(1), NONE, S, PathType::Sealing).await.expect_err("denied miner");
    assert_eq!(refused.code(), "STO009");
    node.path("b", StorageStanza { filters: other, ..both() }).await;
    let refused = node.local.acquire(sector(1), NONE, U, PathType::Sealing).await.expect_err("denied type");
    assert_eq!(refused.code(), "STO009");
    let fine = node.local.acquire(sector(1), NONE, S, PathType::Sealing).await.expect("b takes it");
    assert_eq!(fine.ids[&FileType::Sealed], id("b"));
}

#[tokio::test]
async fn room_is_promised_once_and_given_back() {
    let world = World::new();
    let node = world.node().await;
    // An unsealed and a sealed file fit, a cache of 14.1 sector sizes does not.
    node.path("a", StorageStanza { max_storage: 64 << 10, ..both() }).await;
    let limit = node.local.stat(&id("a")).await.expect("measured");
    assert_eq!(limit.max, 64 << 10);
    let ids = |types: FileTypes| types.iter().map(|kind| (kind, id("a"))).collect();
    let reserve = |number, types: FileTypes| {
        let local = node.local.clone();
        async move { local.reserve(sector(number), types, &ids(types), SpaceTable::Sealing).await }
    };
    // Where directories take no room there is more of it than is wanted here.
    let others =
        if limit.available < 28_876 + 30_924 { None } else { Some(reserve(9, C).await.expect("it fits")) };
    let limit = node.local.stat(&id("a")).await.expect("measured");
    let (before, promised) = (limit.available, limit.reserved);
    let held = reserve(1, C).await.expect("28,876 bytes fit");
    let stat = node.local.stat(&id("a")).await.expect("measured");
    assert_eq!((stat.reserved - promised, stat.available), (28_876, before - 28_876));
    // The same file again describes the same bytes.
    let twice = reserve(1, C).await.expect("nothing more");
    assert_eq!(node.local.stat(&id("a")).await.expect("measured").reserved - promised, 28_876);
    drop(twice);
    assert_eq!(node.local.stat(&id("a")).await.expect("measured").reserved - promised, 28_876);

    let Err(error) = reserve(2, C | S).await else { panic!("it must not fit") };
    assert_eq!(error.code(), "STO010");
    assert_eq!(error.call_code().number(), 102);
    let text = error.to_string();
    assert!(
        text.contains("s-t01000-2 needs 30924 more bytes") && text.contains("cache 28876 of 28876"),
        "{text}"
    );
    drop(held);
    let after = node.local.stat(&id("a")).await.expect("measured");
    assert_eq!(
        (after.reserved, after.available),
        (promised, before),
        "a refused reservation leaves nothing behind"
    );
    drop(reserve(2, C | S).await.expect("now it fits"));
    drop(others);
}

#[tokio::test]
async fn what_is_on_disk_is_not_asked_for_again() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", StorageStanza { max_storage: 1 << 20, ..both() }).await;
    let file = dir.join("sealed/s-t01000-1");
    fs::write(&file, content(sector(1), FileType::Sealed)).expect("written");
    let ids = [(FileType::Sealed, id("a"))].into();
    let _held = node.local.reserve(sector(1), S, &ids, SpaceTable::Sealing).await.expect("fits");
    assert_eq!(node.local.stat(&id("a")).await.expect("measured").reserved, 0);
    let missing = node.local.reserve(sector(1), S | C, &ids, SpaceTable::Sealing).await;
    assert_eq!(missing.err().map(|error| error.code()), Some("STO011"));
}

/// The labels lie beside the data while it is made: one layer, or all of them with several cores.
#[tokio::test]
async fn unsealing_is_promised_room_for_data_and_labels() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", StorageStanza { max_storage: 64 << 10, ..both() }).await;
    node.path("small", StorageStanza { max_storage: 3000, ..both() }).await;
    let reserved = || async { node.local.stat(&id("a")).await.expect("measured").reserved };
    let held = node.local.reserve_unsealing(sector(1), &id("a"), false).await.expect("it fits");
    assert_eq!(reserved().await, 2 * 2048);
    let wide = node.local.reserve_unsealing(sector(2), &id("a"), true).await.expect("it fits");
    assert_eq!(reserved().await, 2 * 2048 + 3 * 2048);
    drop(wide);
    // What lies there already is not asked for again.
    let labels = dir.join("unsealed/fetching/s-t01000-1.labels");
    fs::create_dir_all(&labels).expect("made");
    fs::write(labels.join("layer"), vec![1; 2048]).expect("written");
    drop(held);
    let rest = node.local.reserve_unsealing(sector(1), &id("a"), false).await.expect("it fits");
    assert!(reserved().await < 2048, "{}", reserved().await);
    drop(rest);
    let Err(error) = node.local.reserve_unsealing(sector(3), &id("small"), false).await else {
        panic!("it must not fit")
    };
    assert!(error.to_string().contains("s-t01000-3 needs 4096 more bytes"), "{error}");
}

#[tokio::test]
async fn files_move_from_sealing_to_storage() {
    let world = World::new();
    let node = world.node().await;
    let seal = node.path("seal", sealing()).await;
    let store = node.path("store", storing()).await;
    node.put("seal", sector(1), FileType::Sealed).await;
    node.put("seal", sector(1), FileType::Cache).await;
    let before = tree(&seal);
    node.local.move_storage(sector(1), S | C).await.expect("moved");
    assert_eq!(tree(&store), before);
    assert!(tree(&seal).is_empty());
    for kind in [FileType::Sealed, FileType::Cache] {
        assert_eq!(world.holders(sector(1), kind).await, ["store*"]);
    }
    node.local.move_storage(sector(1), S | C).await.expect("what is in storage stays");
    assert_eq!(tree(&store), before);
    let nothing = node.local.move_storage(sector(2), S).await.expect_err("no such file");
    assert_eq!(nothing.code(), "STO011");
}

#[tokio::test]
async fn files_move_across_file_systems() {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        panic!("/dev/shm is needed as a second file system");
    };
    let world = World::new();
    let node = world.node().await;
    let seal = node.path("seal", sealing()).await;
    let store = memory.path().join("store");
    init_path(&store, &StorageMeta::new(&id("store"), &storing())).expect("made");
    node.local.attach_path(&store).await.expect("opened");
    node.put("seal", sector(1), FileType::Sealed).await;
    node.put("seal", sector(1), FileType::Cache).await;
    let before = tree(&seal);
    node.local.move_storage(sector(1), S | C).await.expect("moved");
    assert_eq!(tree(&store), before);
    assert!(tree(&seal).is_empty());
    let moved = fs::read(store.join("sealed/s-t01000-1")).expect("there");
    assert_eq!(moved, content(sector(1), FileType::Sealed));
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["store*"]);
}

#[tokio::test]
async fn a_move_never_replaces_an_undeclared_file() {
    let world = World::new();
    let node = world.node().await;
    let seal = node.path("seal", sealing()).await;
    let store = node.path("store", storing()).await;
    node.put("seal", sector(1), FileType::Sealed).await;
    fs::write(store.join("sealed/s-t01000-1"), "somebody's").expect("written");
    node.local.move_storage(sector(1), S).await.expect_err("the place is taken");
    assert_eq!(fs::read(store.join("sealed/s-t01000-1")).expect("kept"), b"somebody's");
    assert!(seal.join("sealed/s-t01000-1").exists());
    let holders = world.holders(sector(1), FileType::Sealed).await;
    assert!(holders.contains(&"seal".to_owned()), "the source stays in view: {holders:?}");
}

/// As after a crash between a move's last steps: the copy is in place, its source is not deleted.
#[tokio::test]
async fn a_move_that_was_cut_off_is_finished_by_the_next() {
    let world = World::new();
    let node = world.node().await;
    let seal = node.path("seal", sealing()).await;
    let store = node.path("store", storing()).await;
    for primary in [CopyKind::Secondary, CopyKind::Primary] {
        let source = node.put("seal", sector(1), FileType::Sealed).await;
        node.put("store", sector(1), FileType::Sealed).await;
        world.index.declare(&id("seal"), sector(1).id, S, primary).await.expect("declared");
        node.local.move_storage(sector(1), S).await.expect("done before");
        node.local.remove_copies(sector(1).id, FileType::Sealed).await.expect("copies go");
        assert!(!source.exists());
        assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["store*"]);
    }
    // Cut off before the copy was declared.
    node.put("seal", sector(2), FileType::Cache).await;
    write_file(&store, sector(2), FileType::Cache);
    node.local.move_storage(sector(2), C).await.expect("moved over the undeclared copy");
    assert_eq!(world.holders(sector(2), FileType::Cache).await, ["store*"]);
    assert!(tree(&seal).is_empty() && tree(&store).iter().all(|name| !name.contains("fetching")));
    // Cut off after the rename: the index still shows the source.
    world.index.declare(&id("seal"), sector(2).id, C, CopyKind::Primary).await.expect("declared");
    node.local.move_storage(sector(2), C).await.expect("done before");
    assert_eq!(world.holders(sector(2), FileType::Cache).await, ["store*"]);
    // Cut off between its declaration and the rename: nothing lies there.
    node.put("seal", sector(3), FileType::Cache).await;
    world.index.declare(&id("store"), sector(3).id, C, CopyKind::Primary).await.expect("declared");
    node.local.move_storage(sector(3), C).await.expect("moved");
    assert!(tree(&seal).is_empty() && store.join("cache/s-t01000-3").is_dir());
    assert_eq!(world.holders(sector(3), FileType::Cache).await, ["store*"]);
    // Two that both count and differ: neither may go.
    let other = node.put("seal", sector(1), FileType::Sealed).await;
    world.index.declare(&id("seal"), sector(1).id, S, CopyKind::Primary).await.expect("declared");
    fs::write(&other, "short").expect("written");
    let error = node.local.move_storage(sector(1), S).await.expect_err("which one?");
    assert_eq!(error.code(), "STO012");
    assert!(other.exists() && store.join("sealed/s-t01000-1").exists());
}

#[tokio::test]
async fn what_an_interrupted_removal_left_is_deleted_when_the_path_opens() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", both()).await;
    node.local.close_path(&dir).await.expect("closed");
    let left = dir.join(format!("cache/fetching/s-t01000-1.removed-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(&left).expect("made");
    fs::write(left.join("p_aux"), "x").expect("written");
    let opened = node.local.open_path(&dir).await.expect("it opens");
    assert!(opened.partial.is_empty());
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(2));
    let gone = async {
        while left.exists() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("it stays");
}

#[tokio::test]
async fn the_last_primary_copy_is_kept() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    node.path("b", both()).await;
    let first = node.put("a", sector(1), FileType::Sealed).await;
    let refused = node.local.remove(sector(1).id, FileType::Sealed, &[]).await.expect_err("the only copy");
    assert_eq!(refused.code(), "STO012");
    let second = node.put("b", sector(1), FileType::Sealed).await;
    let refused =
        node.local.remove(sector(1).id, FileType::Sealed, &[]).await.expect_err("both copies at once");
    assert_eq!(refused.code(), "STO012");
    assert!(first.exists() && second.exists());
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*", "b*"]);

    // A copy that the index knows but the disk has lost does not count.
    fs::rename(&second, second.with_extension("away")).expect("away");
    let refused =
        node.local.remove(sector(1).id, FileType::Sealed, &[id("b")]).await.expect_err("b is empty");
    assert_eq!(refused.code(), "STO012");
    fs::rename(second.with_extension("away"), &second).expect("back");
    node.local.remove(sector(1).id, FileType::Sealed, &[id("b")]).await.expect("b stays");
    assert!(!first.exists() && second.exists());
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["b*"]);

    let permit = DeletePermit { reason: "test".to_owned() };
    node.local.remove_all(sector(1).id, FileType::Sealed, &permit).await.expect("permitted");
    assert!(!second.exists());
    assert!(world.holders(sector(1), FileType::Sealed).await.is_empty());
    let gone = node.local.remove(sector(1).id, FileType::Sealed, &[]).await.expect_err("nothing left");
    assert_eq!(gone.code(), "STO011");
}

#[tokio::test]
async fn secondary_copies_go_only_when_there_is_a_primary() {
    let world = World::new();
    let node = world.node().await;
    node.path("seal", sealing()).await;
    let copy = node.put("seal", sector(1), FileType::Cache).await;
    node.local.remove_copies(sector(1).id, FileType::Cache).await.expect("nothing to do");
    assert!(copy.exists());
    let store = node.path("store", storing()).await;
    let primary = write_file(&store, sector(1), FileType::Cache);
    node.local.redeclare(None, false).await.expect("declared");
    node.local.remove_copies(sector(1).id, FileType::Cache).await.expect("removed");
    assert!(!copy.exists() && primary.exists());
    assert_eq!(tree(&node.dir.path().join("seal")), Vec::<String>::new());
}

#[tokio::test]
async fn health_is_reported_for_every_path() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let lost = node.path("b", both()).await;
    assert!(node.local.report_health().await.is_empty());
    assert!(world.index.path_view(&id("b")).expect("known").healthy);

    // Giving room back asks for a new measurement, which then fails.
    let ids = [(FileType::Sealed, id("b"))].into();
    drop(node.local.reserve(sector(1), S, &ids, SpaceTable::Sealing).await.expect("fits"));
    fs::rename(&lost, lost.with_extension("away")).expect("away");
    assert!(node.local.report_health().await.is_empty());
    let view = world.index.path_view(&id("b")).expect("known");
    assert!(!view.healthy && view.error.expect("a reason").contains("cannot measure"));
    assert!(world.index.path_view(&id("a")).expect("known").healthy);

    world.index.detach(&id("a"), &node.base).await.expect("gone");
    let refused = node.local.report_health().await;
    let ids: Vec<_> = refused.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["a"], "the manager forgot it: declare again");
    node.local.redeclare(Some(&id("a")), false).await.expect("declared");
    assert!(node.local.report_health().await.is_empty());
}

#[tokio::test]
async fn sizes_are_checked_without_overflow() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", StorageStanza { max_storage: u64::MAX, weight: u64::MAX, ..both() }).await;
    let stat = node.local.stat(&id("a")).await.expect("measured");
    assert_eq!(stat.max, i64::MAX);
    assert!(stat.available > 0);
    let got = node.local.acquire(sector(1), NONE, S, PathType::Sealing).await.expect("it takes files");
    assert_eq!(got.ids[&FileType::Sealed], id("a"));
}

#[tokio::test]
async fn files_that_are_gone_leave_the_index_one_by_one_and_only_where_their_path_is_there() {
    const SEALED: FileType = FileType::Sealed;
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", both()).await;
    let mut files = Vec::new();
    for number in 1..=3 {
        files.push(node.put("a", sector(number), SEALED).await);
    }
    let named: Vec<_> = (1..=3).map(|number| (id("a"), sector(number).id, SEALED)).collect();
    files[..2].iter().for_each(|file| fs::remove_file(file).expect("deleted"));
    let making = node.local.making(sector(2).id, &[(SEALED, id("a"))]);
    assert_eq!(node.local.drop_gone(named.clone()).await.expect("looked"), named[..1]);
    assert!(world.holders(sector(1), SEALED).await.is_empty());
    drop(making);

    // One kind of file lies on a disk of its own, which is away.
    let (types, elsewhere) = (dir.join("sealed"), dir.with_extension("sealed"));
    fs::rename(&types, &elsewhere).expect("moved to another disk");
    std::os::unix::fs::symlink(dir.with_extension("nowhere"), &types).expect("a link to where it is mounted");
    assert_eq!(node.local.drop_gone(named.clone()).await.expect("looked"), []);
    fs::remove_file(&types).expect("no link");
    fs::rename(&elsewhere, &types).expect("moved back");

    // Its disk is away, or another one is there.
    let away = dir.with_extension("away");
    fs::rename(&dir, &away).expect("unmounted");
    fs::create_dir(&dir).expect("where it is mounted");
    node.local.drop_gone(named.clone()).await.expect_err("it shows nothing of itself");
    fs::remove_dir(&dir).expect("for another one");
    init_path(&dir, &StorageMeta::new(&id("other"), &both())).expect("a path");
    assert_eq!(node.local.drop_gone(named.clone()).await.expect("looked"), []);
    fs::remove_dir_all(&dir).expect("unmounted");
    fs::rename(&away, &dir).expect("mounted");
    for number in [2, 3] {
        assert_eq!(world.holders(sector(number), SEALED).await, ["a*"], "{number}");
    }
    let gone = node.local.drop_gone(named.clone()).await.expect("looked");
    assert_eq!(gone[gone.len() - 1], named[1]);
    assert!(world.holders(sector(2), SEALED).await.is_empty());
    assert_eq!(world.holders(sector(3), SEALED).await, ["a*"]);
}
