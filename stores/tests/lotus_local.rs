//! Lotus's `storage/paths/local_test.go`, and what stands here besides.
//!
//! Its one case is `TestLocalStorage`: a path is made and opened, and nothing is asked of it ("TODO: put more things here").
//! Here: `a_path_is_made_opened_and_measured`. The others are Sealyard's own: reservations and limits, what is listed and
//! moved, and what a full disk, a read-only path, one that hangs, and bad names lead to.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sealtasks::{FileType, FileTypes, Matter, PathOrder, PathReport, SpaceTable, StorageStanza};
use stores::{Index as _, KeepFree, Local, LocalOptions, StorageMeta, init_path};
use support::mount::Mount;
use support::{World, both, id, sealing, sector, storing, tree, write_file};

const S: FileTypes = FileTypes::SEALED;
const U: FileTypes = FileTypes::UNSEALED;

#[tokio::test]
async fn a_path_is_made_opened_and_measured() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let stat = node.local.stat(&id("a")).await.expect("measured");
    assert!(stat.capacity > 0 && stat.available > 0 && stat.available <= stat.fs_available);
    assert_eq!((stat.reserved, stat.max, stat.used), (0, 0, 0));
}

#[tokio::test]
async fn a_reservation_takes_what_is_not_on_disk_yet_and_gives_it_back() {
    let world = World::new();
    let node = world.node().await;
    let limit = StorageStanza { max_storage: 1 << 20, ..both() };
    let dir = node.path("a", limit).await;
    let ids = [(FileType::Unsealed, id("a"))].into();
    let before = node.local.stat(&id("a")).await.expect("measured");
    let held = node.local.reserve(sector(1), U, &ids, SpaceTable::Sealing).await.expect("it fits");
    let with = node.local.stat(&id("a")).await.expect("measured");
    assert_eq!((with.reserved, with.available), (2048, before.available - 2048));
    // Half of it is written: the rest stays reserved, whatever the file system's blocks are.
    fs::write(dir.join("unsealed/s-t01000-1"), vec![1; 1024]).expect("written");
    drop(node.local.reserve(sector(2), S, &[(FileType::Sealed, id("a"))].into(), SpaceTable::Sealing).await);
    let half = node.local.stat(&id("a")).await.expect("measured");
    assert!(half.reserved < 2048 && half.used > before.used, "{half:?}");
    drop(held);
    assert_eq!(node.local.stat(&id("a")).await.expect("measured").reserved, 0);
}

#[tokio::test]
async fn a_limit_counts_what_is_used_and_what_is_kept_free_counts_for_all() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", StorageStanza { max_storage: 1 << 20, ..both() }).await;
    fs::write(dir.join("sealed/s-t01000-1"), vec![1; 64 << 10]).expect("written");
    node.local.redeclare(Some(&id("a")), false).await.expect("declared");
    let stat = node.local.stat(&id("a")).await.expect("measured");
    assert_eq!((stat.max, stat.available), (1 << 20, (1 << 20) - stat.used));
    assert!(stat.used >= 64 << 10);

    KeepFree { bytes: u64::MAX }.write(&dir).expect("written");
    node.local.redeclare(Some(&id("a")), false).await.expect("declared");
    assert_eq!(node.local.stat(&id("a")).await.expect("measured").available, 0);
    let ids = [(FileType::Sealed, id("a"))].into();
    let full = node.local.reserve(sector(2), S, &ids, SpaceTable::Sealing).await.err().expect("no room");
    assert_eq!(full.code(), "STO010");
    assert!(full.to_string().contains("sealed 2048 of 2048"), "{full}");
    let meta = fs::read(dir.join("sectorstore.json")).expect("Lotus's file");
    assert!(!String::from_utf8_lossy(&meta).contains("KeepFree"), "it stays Lotus's");
    fs::write(dir.join("sealyard.json"), "{").expect("damaged");
    let error = node.local.redeclare(Some(&id("a")), false).await.expect_err("it is damaged");
    assert!(error.code() == "STO002" && error.to_string().contains("sealyard.json"), "{error}");
}

#[tokio::test]
async fn a_survey_tells_each_matter_and_offers_only_what_cannot_be_lost() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", storing()).await;
    let seal = node.path("b", sealing()).await;
    node.put("a", sector(1), FileType::Sealed).await;
    write_file(&seal, sector(1), FileType::Sealed);
    write_file(&seal, sector(2), FileType::Cache);
    fs::write(seal.join("sealed/readme"), "mine").expect("written");
    fs::write(seal.join(format!("sectorstore.json.{}.tmp", uuid::Uuid::new_v4())), "x").expect("written");
    fs::create_dir_all(seal.join("sealed/fetching")).expect("made");
    let partial = seal.join("sealed/fetching/s-t01000-3");
    fs::write(&partial, "half").expect("written");

    let found = findings(node.remote.carry_out(PathOrder::Survey).await.expect("told"));
    let brief: Vec<_> = found.iter().map(|one| (one.matter, one.offered)).collect();
    let expected = [
        (Matter::NotInIndex, false),
        (Matter::PartialFetch, false),
        (Matter::Foreign, false),
        (Matter::NotInIndex, true),
        (Matter::Temporary, true),
    ];
    for one in expected {
        assert!(brief.contains(&one), "{one:?} is missing in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(found.iter().all(|one| !one.reason.is_empty()));

    // Everything is asked for; only what is offered goes.
    let entries = found.iter().map(|one| one.entry.clone()).collect();
    let cleaned = node.remote.carry_out(PathOrder::CleanUp { entries, old: Vec::new() }).await.expect("done");
    let PathReport::CleanedUp(cleaned) = cleaned else { panic!("{cleaned:?}") };
    assert_eq!(cleaned.iter().filter(|one| one.kept.is_none()).count(), 2, "{cleaned:#?}");
    assert!(cleaned.iter().all(|one| one.kept.is_none() != one.entry.exists()));
    assert!(dir.join("sealed/s-t01000-1").exists() && seal.join("cache/s-t01000-2").exists());
    assert!(!seal.join("sealed/s-t01000-1").exists(), "its primary copy is in the other path");
    let elsewhere = vec![PathBuf::from("/etc/passwd"), dir.join("sealed/s-t01000-1"), dir.join("../a")];
    let refused = node.local.clean_up(&elsewhere, &[]).await;
    assert!(refused.iter().all(|one| one.kept.is_some() && one.entry.exists()), "{refused:#?}");
}

#[tokio::test]
async fn a_scan_leaves_no_temporary_file_and_takes_nothing_else() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", storing()).await;
    let file = node.put("a", sector(1), FileType::Sealed).await;
    fs::create_dir_all(dir.join("sealed/fetching")).expect("made");
    let fresh = dir.join("sealed/fetching/s-t01000-2");
    let dead = dir.join("sealed/fetching/s-t01000-3");
    let removed = dir.join(format!("sealed/fetching/s-t01000-4.removed-{}", uuid::Uuid::new_v4()));
    let temporary = dir.join(format!("sealyard.json.{}.tmp", uuid::Uuid::new_v4()));
    for path in [&fresh, &dead, &removed, &temporary, &dir.join("sealed/mine")] {
        fs::write(path, "x").expect("written");
    }
    let two_days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 3600);
    fs::File::options().write(true).open(&dead).and_then(|it| it.set_modified(two_days_ago)).expect("aged");
    assert_eq!(node.local.tidy().await, 3);
    assert!(!dead.exists() && !removed.exists() && !temporary.exists());
    assert!(fresh.exists() && file.exists() && dir.join("sealed/mine").exists());
    assert_eq!(node.local.tidy().await, 0);
}

#[tokio::test]
async fn a_move_into_a_path_leaves_one_primary_copy_there() {
    let world = World::new();
    let (here, there) = (world.node().await, world.node().await);
    here.path("a", storing()).await;
    here.path("b", storing()).await;
    let far = there.path("c", storing()).await;
    here.put("a", sector(1), FileType::Cache).await;
    let order = |to: &str| PathOrder::Move { sector: sector(1), types: FileTypes::CACHE, to: id(to) };
    assert_eq!(here.remote.carry_out(order("b")).await.expect("moved"), PathReport::Moved);
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["b*"]);
    assert_eq!(here.remote.carry_out(order("b")).await.expect("there already"), PathReport::Moved);
    there.remote.carry_out(order("c")).await.expect("fetched");
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["c*"]);
    assert!(far.join("cache/s-t01000-1/p_aux").exists());
    assert!(tree(&here.dir.path().join("b")).is_empty());

    let error = here.remote.carry_out(order("c")).await.expect_err("not its path");
    assert_eq!(error.code(), "STO006");
    let denied = sealtasks::PathFilters { deny_types: vec![FileType::Cache], ..Default::default() };
    here.path("d", StorageStanza { filters: denied, ..storing() }).await;
    let error = here.remote.carry_out(order("d")).await.expect_err("it takes no caches");
    assert_eq!(error.code(), "STO031");
}

#[tokio::test]
async fn a_read_only_path_is_served_and_refuses_new_files_clearly() {
    let Some(mount) = Mount::tmpfs("size=1m") else { return };
    let dir = mount.path().join("a");
    init_path(&dir, &StorageMeta::new(&id("a"), &storing())).expect("made");
    fs::create_dir_all(dir.join("sealed")).expect("made");
    write_file(&dir, sector(1), FileType::Sealed);
    mount.remount("ro,size=1m");
    let world = World::new();
    let node = world.node().await;
    node.local.open_path(&dir).await.expect("it opens");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
    node.path("b", storing()).await;
    node.put("b", sector(2), FileType::Sealed).await;
    let order = PathOrder::Move { sector: sector(2), types: S, to: id("a") };
    let error = node.remote.carry_out(order).await.expect_err("nothing can be written");
    assert_eq!(error.code(), "STO001", "{error}");
    assert_eq!(world.holders(sector(2), FileType::Sealed).await, ["b*"], "nothing is lost");
    assert!(node.dir.path().join("b/sealed/s-t01000-2").exists());
}

#[tokio::test]
async fn a_full_disk_says_so_keeps_everything_and_can_be_emptied() {
    let Some(mount) = Mount::tmpfs("size=256k") else { return };
    let dir = mount.path().join("a");
    init_path(&dir, &StorageMeta::new(&id("a"), &storing())).expect("made");
    let world = World::new();
    let node = world.node().await;
    node.local.open_path(&dir).await.expect("it opens");
    node.path("b", storing()).await;
    node.put("b", sector(1), FileType::Sealed).await;
    write_file(&dir, sector(2), FileType::Cache);
    node.local.redeclare(None, false).await.expect("declared");
    fs::write(dir.join("filler"), vec![1; 1 << 20]).expect_err("it is full now");

    // The promise refuses, with the need by file.
    let order = |number, types, to: &str| PathOrder::Move { sector: sector(number), types, to: id(to) };
    let error = node.remote.carry_out(order(1, S, "a")).await.expect_err("no room");
    assert_eq!(error.code(), "STO010", "{error}");
    assert!(error.to_string().contains("sealed 2048 of 2048"), "{error}");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["b*"], "nothing is lost");
    assert!(tree(&dir).iter().all(|name| !name.contains("fetching")), "{:?}", tree(&dir));
    // And it can be emptied: a move away deletes here, though there is no room for anything.
    node.remote.carry_out(order(2, FileTypes::CACHE, "b")).await.expect("moved away");
    assert_eq!(world.holders(sector(2), FileType::Cache).await, ["b*"]);
    assert!(!dir.join("cache/s-t01000-2").exists());
    let left = findings(PathReport::Surveyed(node.local.survey().await));
    assert!(left.iter().all(|one| one.matter == Matter::Foreign), "{left:#?}");
}

#[tokio::test]
async fn without_an_inode_left_a_file_can_be_deleted() {
    let Some(mount) = Mount::tmpfs("size=1m,nr_inodes=24") else { return };
    let dir = mount.path().join("a");
    init_path(&dir, &StorageMeta::new(&id("a"), &storing())).expect("made");
    let world = World::new();
    let node = world.node().await;
    node.local.open_path(&dir).await.expect("it opens");
    node.path("b", storing()).await;
    for (number, kind) in [(1, FileType::Cache), (2, FileType::Sealed)] {
        write_file(&dir, sector(number), kind);
        node.put("b", sector(number), kind).await;
    }
    node.local.redeclare(None, false).await.expect("declared");
    while fs::write(dir.join(uuid::Uuid::new_v4().to_string()), "").is_ok() {}
    for (number, kind) in [(1, FileType::Cache), (2, FileType::Sealed)] {
        assert!(!dir.join(kind.name()).join("fetching").exists(), "there is no place to rename into");
        node.local.remove(sector(number).id, kind, &[id("b")]).await.expect("deleted");
        assert_eq!(world.holders(sector(number), kind).await, ["b*"]);
    }
    assert!(!dir.join("cache/s-t01000-1").exists() && !dir.join("sealed/s-t01000-2").exists());
}

#[tokio::test]
async fn names_that_are_no_names_are_left_alone_and_refused() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", storing()).await;
    let long = "x".repeat(255);
    for name in ["..s-t01000-1", "s-t01000-1\n", "s-t01000-18446744073709551616", "S-T01000-1", &long] {
        fs::write(dir.join("sealed").join(name), "odd").expect("written");
    }
    let before = tree(&dir);
    node.local.redeclare(None, true).await.expect("declared");
    assert!(node.local.paths().len() == 1 && world.index.path_files(&id("a")).is_empty());
    let found = findings(PathReport::Surveyed(node.local.survey().await));
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|one| one.matter == Matter::Foreign && !one.offered), "{found:#?}");
    assert_eq!(tree(&dir), before);

    let bad: [PathBuf; 3] = [
        PathBuf::from(format!("/tmp/{}", "y".repeat(4096))),
        PathBuf::from("/tmp/with\0nul"),
        node.dir.path().join("a/../nowhere"),
    ];
    for dir in bad {
        let order = PathOrder::Attach { dir: dir.clone(), new: None };
        let error = node.remote.carry_out(order).await.expect_err("no such path");
        assert_eq!(error.code(), "STO001", "{dir:?}: {error}");
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_read_does_not_hide_the_others() {
    let world = World::new();
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("storage.json");
    let options =
        LocalOptions { config, urls: vec!["http://x/remote".to_owned()], index: world.index.clone() };
    let (local, _) = Local::open(options).await.expect("opens");
    for name in ["a", "b"] {
        let path = dir.path().join(name);
        init_path(&path, &StorageMeta::new(&id(name), &storing())).expect("made");
        local.attach_path(&path).await.expect("attached");
    }
    fs::remove_dir_all(dir.path().join("a")).expect("gone");
    fs::write(dir.path().join("a"), "no directory").expect("written");
    fs::write(dir.path().join("b/sealed/mine"), "x").expect("written");
    let surveys = local.survey().await;
    assert!(surveys[0].error.is_some() && surveys[0].findings.is_empty(), "{surveys:#?}");
    assert!(surveys[1].error.is_none() && surveys[1].findings.len() == 1, "{surveys:#?}");
    assert!(world.index.info(&id("a")).await.is_ok(), "what is known of it stays");
}

/// A mount that hangs at the start keeps nothing else from starting, and its path opens when it answers.
#[tokio::test]
async fn a_path_that_hangs_at_the_start_does_not_hold_up_the_others() {
    let world = World::new();
    let dir = tempfile::tempdir().expect("a directory");
    let (hangs, answers) = (dir.path().join("a"), dir.path().join("b"));
    let node = world.node().await;
    for (name, path) in [("a", &hangs), ("b", &answers)] {
        init_path(path, &StorageMeta::new(&id(name), &storing())).expect("made");
        node.local.attach_path(path).await.expect("attached");
    }
    write_file(&hangs, sector(1), FileType::Sealed);
    node.local.close_all().await.expect("closed");
    // Whoever reads a pipe waits until somebody writes into it.
    let meta = hangs.join("sectorstore.json");
    let told = fs::read(&meta).expect("there");
    fs::remove_file(&meta).expect("removed");
    assert!(Command::new("mkfifo").arg(&meta).status().expect("mkfifo").success());

    let config = node.dir.path().join("storage.json");
    let options =
        LocalOptions { config, urls: vec!["http://x/remote".to_owned()], index: world.index.clone() };
    let opening = Local::open_within(options, std::time::Duration::from_secs(2));
    let (local, problems) = opening.await.expect("it starts");
    let problem = problems.iter().find(|problem| problem.path == hangs).expect("it hangs");
    assert_eq!(problem.error.code(), "STO019", "{}", problem.error);
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
    let limit = std::time::Duration::from_secs(60);
    let answered = async {
        while local.paths().is_empty() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(limit, answered).await.expect("the other one is open");
    // What is made meanwhile is there for an index that knows nothing of it.
    let making = local.making(sector(2).id, &[(FileType::Sealed, id("b"))]);
    write_file(&answers, sector(2), FileType::Sealed);
    making.done();
    local.redeclare(Some(&id("b")), false).await.expect("declared again");
    let found = world.index.find(sector(2).id, FileTypes::SEALED, None).await.expect("an answer");
    assert_eq!(found.len(), 1, "{found:?}");
    tokio::task::spawn_blocking(move || fs::write(&meta, told)).await.expect("joined").expect("written");
    let opened = async {
        while local.paths().len() < 2 {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(limit, opened).await.expect("both are open");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
}

fn findings(report: PathReport) -> Vec<sealtasks::Finding> {
    let PathReport::Surveyed(surveys) = report else { panic!("{report:?}") };
    assert!(surveys.iter().all(|survey| survey.error.is_none()), "{surveys:#?}");
    surveys.into_iter().flat_map(|survey| survey.findings).collect()
}
