//! The index: Lotus's cases restated, and those that its tests leave out.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sealtasks::{
    ActorId, FileType, FileTypes, HealthReport, PathFilters, PathType, SectorDecl, SectorId, SectorSize,
    StorageStanza,
};
use stores::{CopyKind, Index, IndexChange, IndexError, MemIndex};
use support::{both, clock, id, info, room, sealing, storing};

const SECTOR: SectorId = SectorId::new(1000, 7);
const TIB: i64 = 1 << 40;

async fn index_with(paths: &[(&str, StorageStanza)]) -> MemIndex {
    let index = MemIndex::new(clock().1);
    for (name, stanza) in paths {
        index
            .attach(info(name, &format!("http://{name}/remote"), stanza.clone()), room(TIB))
            .await
            .expect("attached");
    }
    index
}

async fn found(index: &MemIndex, fetch: Option<SectorSize>) -> Vec<String> {
    let types = FileTypes::UNSEALED;
    let found = index.find(SECTOR, types, fetch).await.expect("an answer");
    found.into_iter().map(|one| one.id.to_string()).collect()
}

const FETCH: Option<SectorSize> = Some(SectorSize::GiB32);

#[tokio::test]
async fn find_simple() {
    let index = index_with(&[("a", both()), ("b", both())]).await;
    assert!(found(&index, FETCH).await.is_empty(), "no holder: nowhere to fetch to");
    index.declare(&id("a"), SECTOR, FileTypes::UNSEALED, CopyKind::Primary).await.expect("declared");
    assert_eq!(found(&index, None).await, ["a"]);
    assert_eq!(found(&index, FETCH).await, ["a", "b"]);
}

#[tokio::test]
async fn find_follows_allow_to() {
    let grouped = |group: &str| StorageStanza { groups: [group.to_owned()].into(), ..both() };
    let holder = StorageStanza { allow_to: ["yes".to_owned()].into(), ..both() };
    let alone = index_with(&[("a", holder.clone()), ("b", both()), ("c", grouped("no"))]).await;
    let with = index_with(&[("a", holder), ("b", both()), ("c", grouped("yes"))]).await;
    for (index, expected) in [(alone, vec!["a"]), (with, vec!["a", "c"])] {
        index.declare(&id("a"), SECTOR, FileTypes::UNSEALED, CopyKind::Primary).await.expect("declared");
        assert_eq!(found(&index, FETCH).await, expected);
    }
}

#[tokio::test]
async fn find_weighs_and_names() {
    let light = StorageStanza { weight: 1, ..both() };
    let index = index_with(&[("a", light), ("b", both()), ("c", both())]).await;
    let types = FileTypes::SEALED | FileTypes::CACHE;
    index.declare(&id("a"), SECTOR, types, CopyKind::Primary).await.expect("declared");
    index.declare(&id("c"), SECTOR, FileTypes::SEALED, CopyKind::Secondary).await.expect("declared");
    index.declare(&id("b"), SECTOR, FileTypes::SEALED, CopyKind::Secondary).await.expect("declared");
    let found = index.find(SECTOR, types, None).await.expect("an answer");
    let brief: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.weight, one.primary)).collect();
    assert_eq!(brief, [("b", 10, false), ("c", 10, false), ("a", 2, true)]);
    assert_eq!(found[0].urls, ["http://b/remote/sealed/s-t01000-7"]);
    assert_eq!(found[0].base_urls, ["http://b/remote"]);
}

#[tokio::test]
async fn fetch_targets_are_filtered() {
    let no_unsealed = PathFilters { deny_types: vec![FileType::Unsealed], ..PathFilters::default() };
    let other_miner = PathFilters { allow_miners: vec![ActorId::new(1)], ..PathFilters::default() };
    let index = index_with(&[
        ("a", both()),
        ("b", storing()),
        ("c", StorageStanza { filters: no_unsealed, ..both() }),
        ("d", StorageStanza { filters: other_miner, ..both() }),
        ("e", StorageStanza { weight: 0, ..both() }),
        ("f", both()),
    ])
    .await;
    index.report_health(&id("f"), HealthReport { stat: room(1), error: None }).await.expect("reported");
    index.declare(&id("a"), SECTOR, FileTypes::UNSEALED, CopyKind::Primary).await.expect("declared");
    assert_eq!(found(&index, FETCH).await, ["a"]);
}

#[tokio::test]
async fn best_alloc_picks_by_room_times_weight_and_miner() {
    let mine = PathFilters { allow_miners: vec![ActorId::new(1000)], ..PathFilters::default() };
    let index = index_with(&[
        ("a", StorageStanza { filters: mine, ..both() }),
        ("b", StorageStanza { weight: 20, ..sealing() }),
        ("c", StorageStanza { weight: 0, ..both() }),
    ])
    .await;
    let alloc = |size, path_type, miner| {
        let index = &index;
        async move {
            let got = index.best_alloc(FileTypes::CACHE, size, path_type, ActorId::new(miner)).await;
            got.map(|all| all.into_iter().map(|one| one.id.to_string()).collect::<Vec<_>>())
        }
    };
    assert_eq!(alloc(SectorSize::GiB32, PathType::Sealing, 1000).await.expect("two"), ["b", "a"]);
    assert_eq!(alloc(SectorSize::GiB32, PathType::Storage, 1000).await.expect("one"), ["a"]);
    let refused = alloc(SectorSize::GiB32, PathType::Storage, 1001).await.expect_err("another miner");
    assert_eq!(refused.to_string(), "no good path found");
    for name in ["a", "b"] {
        index
            .report_health(&id(name), HealthReport { stat: room(1 << 30), error: None })
            .await
            .expect("reported");
    }
    assert!(matches!(alloc(SectorSize::GiB64, PathType::Sealing, 1000).await, Err(IndexError::NoPath)));
}

#[tokio::test]
async fn silence_and_errors_keep_new_files_away_but_not_old_ones() {
    let (now, clock) = clock();
    let index = MemIndex::new(clock);
    index.attach(info("a", "http://a/remote", both()), room(TIB)).await.expect("attached");
    index.attach(info("b", "http://b/remote", both()), room(TIB)).await.expect("attached");
    index.declare(&id("a"), SECTOR, FileTypes::UNSEALED, CopyKind::Primary).await.expect("declared");
    now.fetch_add(50_000, Ordering::SeqCst);
    assert_eq!(found(&index, FETCH).await, ["a", "b"], "50 s are still fresh");
    now.fetch_add(1, Ordering::SeqCst);
    assert_eq!(found(&index, FETCH).await, ["a"], "holders are named, dead or not");
    assert!(!index.path_view(&id("b")).expect("known").healthy);
    index.report_health(&id("b"), HealthReport { stat: room(TIB), error: None }).await.expect("reported");
    assert_eq!(found(&index, FETCH).await, ["a", "b"]);
    let broken = HealthReport { stat: room(TIB), error: Some("disk on fire".to_owned()) };
    index.report_health(&id("b"), broken).await.expect("reported");
    assert_eq!(found(&index, FETCH).await, ["a"]);
}

#[tokio::test]
async fn attach_joins_urls_and_detach_takes_them_apart() {
    let index = index_with(&[("a", both())]).await;
    index.declare(&id("a"), SECTOR, FileTypes::UNSEALED, CopyKind::Primary).await.expect("declared");
    let again = StorageStanza { weight: 99, ..both() };
    index.attach(info("a", "http://second/remote", again), room(1)).await.expect("attached again");
    let known = index.info(&id("a")).await.expect("known");
    assert_eq!(known.urls, ["http://a/remote", "http://second/remote"]);
    assert_eq!(known.stanza.weight, 99);
    assert_eq!(index.path_view(&id("a")).expect("known").stat, room(TIB), "health is kept");
    let wrong = index.detach(&id("a"), "http://third/remote").await.expect_err("not its URL");
    assert!(matches!(wrong, IndexError::UrlMismatch { .. }));
    index.detach(&id("a"), "http://a/remote").await.expect("one URL less");
    assert_eq!(found(&index, None).await, ["a"]);
    index.detach(&id("a"), "http://second/remote").await.expect("gone");
    assert!(found(&index, None).await.is_empty());
    assert_eq!(index.info(&id("a")).await.expect_err("gone").to_string(), "sector store not found");
    let late = HealthReport { stat: room(1), error: None };
    let refused = index.report_health(&id("a"), late).await.expect_err("gone");
    assert_eq!(refused.to_string(), "health report for unknown storage: a");
}

#[tokio::test]
async fn declare_raises_only_and_drop_takes_every_type_asked_for() {
    let index = index_with(&[("a", both())]).await;
    let all = FileTypes::SEALED | FileTypes::CACHE | FileTypes::UNSEALED;
    index.declare(&id("a"), SECTOR, all, CopyKind::Secondary).await.expect("declared");
    index.declare(&id("a"), SECTOR, FileTypes::SEALED, CopyKind::Primary).await.expect("raised");
    index.declare(&id("a"), SECTOR, FileTypes::SEALED, CopyKind::Secondary).await.expect("not lowered");
    let held = index.sector_files(SECTOR);
    assert_eq!((held[0].types, held[0].primary), (all, FileTypes::SEALED));
    // Lotus's first version stopped at the first type that became empty.
    index.drop_files(&id("a"), SECTOR, FileTypes::SEALED | FileTypes::CACHE).await.expect("dropped");
    let left = SectorDecl { sector: SECTOR, types: FileTypes::UNSEALED };
    assert_eq!(index.list(), [(id("a"), vec![left])].into());
    assert_eq!(index.path_files(&id("a")), [(left, FileTypes::NONE)]);
    index.drop_files(&id("a"), SECTOR, all).await.expect("dropped");
    assert!(index.sector_files(SECTOR).is_empty());
    assert_eq!(index.path_view(&id("a")).expect("known").sectors, 0);
    let unknown = index.declare(&id("zzz"), SECTOR, all, CopyKind::Primary).await.expect_err("unknown path");
    assert!(matches!(unknown, IndexError::UnknownStorage { .. }));
}

#[tokio::test]
async fn changes_are_told_in_order() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let observer = Arc::new(move |change: &IndexChange| sink.lock().expect("the list").push(change.clone()));
    let index = MemIndex::observed(clock().1, observer);
    let mut changes = index.changes();
    index.attach(info("a", "http://a/remote", both()), room(1)).await.expect("attached");
    index.declare(&id("a"), SECTOR, FileTypes::SEALED, CopyKind::Primary).await.expect("declared");
    index.detach(&id("a"), "http://a/remote").await.expect("detached");
    changes.changed().await.expect("the index lives");
    assert_eq!((*changes.borrow(), index.generation()), (3, 3));
    let files = IndexChange::Files { id: id("a"), sectors: vec![SECTOR] };
    let expected = [IndexChange::Path(id("a")), files, IndexChange::PathGone(id("a"))];
    assert_eq!(*told.lock().expect("the list"), expected);
}

/// Ten thousand workers report every ten seconds, and nearly always what they reported before.
#[tokio::test]
async fn a_report_of_what_is_known_is_told_as_such() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let observer = Arc::new(move |change: &IndexChange| sink.lock().expect("the list").push(change.clone()));
    let (time, clock) = clock();
    let index = MemIndex::observed(clock, observer);
    index.attach(info("a", "http://a/remote", both()), room(1)).await.expect("attached");
    told.lock().expect("the list").clear();
    let report = async |available, error: Option<&str>| {
        let report = HealthReport { stat: room(available), error: error.map(str::to_owned) };
        index.report_health(&id("a"), report).await.expect("reported");
    };
    report(1, None).await;
    report(2, None).await;
    report(2, None).await;
    report(2, Some("it hangs")).await;
    report(2, Some("it hangs")).await;
    report(2, None).await;
    time.fetch_add(stores::HEARTBEAT_STALE_MS, Ordering::Relaxed);
    report(2, None).await;
    time.fetch_add(stores::HEARTBEAT_STALE_MS + 1, Ordering::Relaxed);
    report(2, None).await;
    let is_news = |change: &IndexChange| *change == IndexChange::Path(id("a"));
    let news: Vec<_> = told.lock().expect("the list").iter().map(is_news).collect();
    assert_eq!(
        news,
        [false, true, false, true, false, true, false, true],
        "at last it was silent for too long"
    );
}

#[tokio::test]
async fn a_replica_that_is_kept_is_dropped_from_the_named_paths_alone() {
    let index = index_with(&[("a", sealing()), ("b", sealing())]).await;
    let (replica, other) = (FileTypes::SEALED | FileTypes::CACHE, SectorId::new(1000, 8));
    for path in ["a", "b"] {
        for sector in [SECTOR, other] {
            let all = replica | FileTypes::UNSEALED;
            index.declare(&id(path), sector, all, CopyKind::Secondary).await.expect("declared");
        }
    }
    index.keep(SECTOR, replica, Some([id("a")].into()));
    for types in [FileTypes::SEALED, FileTypes::CACHE, replica | FileTypes::UNSEALED] {
        let kept = index.drop_files(&id("b"), SECTOR, types).await.expect_err("kept");
        assert!(matches!(kept, IndexError::Kept { .. }), "{kept}");
        let found = index.find(SECTOR, types, None).await.expect_err("which of the two?");
        assert!(found.to_string().contains("path b holds files"), "{found}");
    }
    assert_eq!(index.find(SECTOR, FileTypes::UNSEALED, None).await.expect("no replica").len(), 2);
    index.drop_files(&id("b"), SECTOR, FileTypes::UNSEALED).await.expect("no replica");
    index.drop_files(&id("b"), other, replica).await.expect("another sector");
    index.drop_files(&id("a"), SECTOR, replica).await.expect("named");
    index.drop_files(&id("a"), SECTOR, replica).await.expect("nothing is there");
    index.find(SECTOR, replica, None).await.expect_err("not the one that is meant");
    index.supersede_copies(&id("b"), SECTOR, replica);
    assert!(index.superseded_in(&id("b"), SECTOR).is_empty(), "no older copy of what is made");
    index.keep(SECTOR, replica, Some([id("b")].into()));
    assert_eq!(index.find(SECTOR, replica, None).await.expect("named").len(), 1);
    index.keep(SECTOR, replica, Some([id("a")].into()));
    index.keep(SECTOR, replica, None);
    index.drop_files(&id("b"), SECTOR, replica).await.expect("no longer kept");
}

/// Whoever asks while others declare waits for them, and they for him, but never all for ever. The sector that is asked for has
/// many holders and is sealed again, so that a question takes a while.
#[test]
fn questions_and_declarations_side_by_side_come_to_their_end() {
    const TIMES: u64 = 20_000;
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let names: Vec<String> = (0..100).map(|at| format!("p{at}")).collect();
    let paths: Vec<(&str, StorageStanza)> = names.iter().map(|name| (name.as_str(), both())).collect();
    let index = Arc::new(runtime().block_on(index_with(&paths)));
    let types = FileTypes::SEALED;
    let declare = move |index: &MemIndex, path: &str, sector| {
        index.declare_now(&id(path), sector, types, CopyKind::Primary).expect("declared");
    };
    names.iter().for_each(|name| declare(&index, name, SECTOR));
    index.keep(SECTOR, types, Some(names.iter().map(|name| id(name)).collect()));
    let (done, ended) = std::sync::mpsc::channel();
    let so_far = Arc::new(AtomicU64::new(0));
    for writes in [true, true, false, false] {
        let (index, done, runtime) = (Arc::clone(&index), done.clone(), runtime());
        let so_far = Arc::clone(&so_far);
        std::thread::spawn(move || {
            for at in 0..TIMES {
                if writes {
                    declare(&index, "p0", SectorId::new(1000, 100 + at));
                } else {
                    runtime.block_on(index.find(SECTOR, types, None)).expect("an answer");
                }
                so_far.fetch_add(1, Ordering::Relaxed);
            }
            done.send(()).expect("somebody waits");
        });
    }
    // However long all of it takes, something happens.
    let (mut left, mut before) = (4, 0);
    while left > 0 {
        if ended.recv_timeout(std::time::Duration::from_secs(60)).is_ok() {
            left -= 1;
            continue;
        }
        let now = so_far.load(Ordering::Relaxed);
        assert_ne!(now, before, "none waits for ever");
        before = now;
    }
}
