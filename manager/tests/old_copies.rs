//! Copies that attempts leave behind: what one brings that was given up does not count, and of several copies of a file the
//! one that was worked on does, also after a restart of the manager.

mod world;

use std::sync::Arc;

use manager::state::StateEvent;
use rpc::storage::{CopyDeed, CopyState, OlderCopy, PathHost};
use sealtasks::{
    FileType, FileTypes, PathOrder, PathReport, SectorDecl, SectorId, SectorNumber, StorageId, TaskType,
};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{ALL, LIMIT, World, world};

const FIRST_HALF: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];
const REST: &[TaskType] =
    &[TaskType::PreCommit2, TaskType::Commit1, TaskType::Commit2, TaskType::Finalize, TaskType::Fetch];
const SECTOR: SectorId = SectorId::new(1000, 1);
const CACHE: FileTypes = FileTypes::CACHE;

/// A sector whose PreCommit1 worker A did, and whose PreCommit2 is under way on B.
async fn at_pc2(world: &World, a_is_sealyard: bool) -> (Arc<FakeWorker>, Arc<FakeWorker>, Taken) {
    let a = FakeWorker::new(Plan {
        name: "A",
        seed: 1,
        tasks: FIRST_HALF,
        stores: false,
        sealyard: a_is_sealyard,
    });
    let b = FakeWorker::new(Plan { name: "B", seed: 2, tasks: REST, stores: true, sealyard: true });
    b.script("PC2", Behaviour::Hold);
    world.join(&a).await;
    world.join(&b).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = b.call_of("PC2").await;
    (a, b, taken)
}

/// Whether the index lists the cache directory on this worker's path for sealing, and as what.
async fn listed(world: &World, worker: &FakeWorker) -> Option<bool> {
    let found = world.api.storage_find(SECTOR, CACHE, None).await.expect("an answer");
    found.into_iter().find(|holder| holder.id == worker.sealing).map(|holder| holder.primary)
}

/// What a scan of a worker's path says.
async fn scan(world: &World, worker: &FakeWorker) {
    let files = vec![(SectorDecl { sector: SECTOR, types: CACHE }, true)];
    world.api.storage_declare_batch(worker.sealing.clone(), files).await.expect("declared");
}

#[tokio::test]
async fn of_two_copies_the_one_that_was_worked_on_counts_from_then_on() {
    let world = world().await;
    let (a, b, taken) = at_pc2(&world, true).await;
    // A had brought it for an attempt that was given up, or its deletion there was lost.
    scan(&world, &a).await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (Some(true), Some(true)), "a conflict");
    b.script("C1", Behaviour::Hold);
    b.finish(&taken).await;
    let c1 = b.call_of("C1").await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, None, "whatever a scan finds there");

    let world = world.restart().await;
    world.join(&a).await;
    scan(&world, &a).await;
    world.join(&b).await;
    b.declare(SECTOR, FileTypes::SEALED | CACHE).await;
    scan(&world, &a).await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)), "after a restart");
    b.finish(&c1).await;
    world.sector(1, |sector| sector.state == "Proving").await;
    // Its owner has deleted it: what is put there later is another one.
    world.api.storage_drop(a.sealing.clone(), SECTOR, CACHE).await.expect("dropped");
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, Some(true));
}

#[tokio::test]
async fn what_an_attempt_did_counts_until_it_is_over() {
    let world = world().await;
    let (a, b, taken) = at_pc2(&world, true).await;
    let attempt = taken.attempt.expect("a Sealyard worker is told");
    let deed = |state| CopyDeed { path: a.sealing.clone(), sector: SECTOR, types: CACHE, state };
    world.api.storage_deed(attempt, deed(CopyState::Secondary)).await.expect("it is open");
    assert_eq!(listed(&world, &a).await, Some(false));
    world.api.storage_deed(attempt, deed(CopyState::Superseded)).await.expect("it is open");
    assert_eq!(listed(&world, &a).await, None);
    let other = CopyDeed { sector: SectorId::new(1000, 2), ..deed(CopyState::Primary) };
    world.api.storage_deed(attempt, other).await.expect_err("another sector's");
    // Where it lies is looked at before it goes on.
    b.script("C1", Behaviour::Hold);
    b.finish(&taken).await;
    b.call_of("C1").await;
    for state in [CopyState::Primary, CopyState::Secondary, CopyState::Superseded] {
        let refused = world.api.storage_deed(attempt, deed(state)).await.expect_err("it is over").to_string();
        assert!(refused.contains("MGR145") && refused.contains("storage cleanup"), "{refused}");
    }
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
}

/// A Lotus worker names no attempt. Where it only seals, a scan of its own calls nothing primary.
#[tokio::test]
async fn what_a_lotus_worker_brings_that_has_no_attempt_does_not_count() {
    let world = world().await;
    let (a, b, taken) = at_pc2(&world, false).await;
    a.declare(SECTOR, CACHE).await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
    // Where it lies is looked at before it goes on.
    b.script("C1", Behaviour::Hold);
    b.finish(&taken).await;
    b.call_of("C1").await;
    assert_eq!((listed(&world, &a).await, listed(&world, &b).await), (None, Some(true)));
}

#[tokio::test]
async fn which_copies_are_old_is_read_again_with_the_durable_state() {
    let world = world().await;
    let (a, b, _taken) = at_pc2(&world, true).await;
    let (file, path) = (FileType::Cache, a.sealing.clone());
    let old = StateEvent::CopySuperseded { sector: SECTOR, file, path: path.clone() };
    let world = world.restart_after(vec![old]).await;
    world.join(&b).await;
    b.declare(SECTOR, CACHE).await;
    world.join(&a).await;
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, None);
    let world = world.restart_after(vec![StateEvent::CopyCounts { sector: SECTOR, file, path }]).await;
    world.join(&a).await;
    scan(&world, &a).await;
    assert_eq!(listed(&world, &a).await, Some(true));
}

#[tokio::test]
async fn what_an_attempt_that_is_over_has_brought_is_older_than_what_counts() {
    let world = world().await;
    let (_a, b, taken) = at_pc2(&world, true).await;
    let c = FakeWorker::new(Plan { name: "C", seed: 3, tasks: &[], stores: false, sealyard: true });
    world.join(&c).await;
    let attempt = taken.attempt.expect("a Sealyard worker is told");
    b.script("C1", Behaviour::Hold);
    b.finish(&taken).await;
    b.call_of("C1").await;
    // C had it, too, and lost it to B; and something that nobody else has.
    let types = CACHE | FileTypes::UPDATE;
    let late = |worker: &FakeWorker| CopyDeed {
        path: worker.sealing.clone(),
        sector: SECTOR,
        types,
        state: CopyState::Primary,
    };
    // Where a copy is listed, a later attempt has made it.
    for worker in [&c, &b] {
        let refused = world.api.storage_deed(attempt, late(worker)).await.expect_err("it is over");
        assert!(refused.to_string().contains("MGR145"), "{refused}");
    }
    let found = vec![(SectorDecl { sector: SECTOR, types }, true)];
    world.api.storage_declare_batch(c.sealing.clone(), found).await.expect("declared");
    assert_eq!((listed(&world, &c).await, listed(&world, &b).await), (None, Some(true)));
    let update = world.api.storage_find(SECTOR, FileTypes::UPDATE, None).await.expect("an answer");
    assert_eq!(update.iter().map(|holder| &holder.id).collect::<Vec<_>>(), [&c.sealing]);
}

async fn older(world: &World) -> Vec<OlderCopy> {
    let places =
        world.handle.storage_api().sector_places(SectorNumber::new(1).into()).await.expect("an answer");
    places.older
}

async fn holders(world: &World) -> Vec<StorageId> {
    let found = world.api.storage_find(SECTOR, CACHE, None).await.expect("an answer");
    found.into_iter().map(|holder| holder.id).collect()
}

#[tokio::test]
async fn an_older_copy_is_told_with_its_remedy_and_listed_when_the_newer_one_is_gone() {
    let world = world().await;
    let (_, own) = world.own_path(&[("cache/s-t01000-1", &["t_aux"])]).await;
    let b = FakeWorker::new(Plan { name: "B", seed: 2, tasks: REST, stores: true, sealyard: true });
    world.join(&b).await;
    b.declare(SECTOR, CACHE).await;
    world.handle.index().supersede_copies(&own, SECTOR, CACHE);
    let told = older(&world).await;
    assert!(told.len() == 1 && told[0].path == own && told[0].types == CACHE, "{told:?}");
    assert_eq!((&told[0].workers, &told[0].newer), (&vec!["manager".to_owned()], &vec![b.sealing.clone()]));
    assert!(told[0].remedy.contains("`sealyard storage cleanup`"), "{told:?}");

    // B does not come back.
    let world = world.restart().await;
    let told = older(&world).await;
    assert!(told.len() == 1 && told[0].newer == [b.sealing.clone()], "{told:?}");
    assert!(told[0].remedy.contains(&format!("detach --id {} --really-do-it", b.sealing)), "{told:?}");
    let urls = world.api.storage_info(b.sealing.clone()).await.expect("it is remembered").urls;
    world.api.storage_detach(b.sealing.clone(), urls[0].clone()).await.expect("forgotten");
    let listed = async {
        while holders(&world).await != [own.clone()] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, listed).await.expect("its owner is asked for it");
    assert_eq!(older(&world).await, []);
}

/// What became of one entry of the manager's own path.
async fn cleaned(world: &World, entry: std::path::PathBuf) -> Option<String> {
    let order = PathOrder::CleanUp { entries: vec![entry], old: Vec::new() };
    let report = world.handle.storage_api().path_order(PathHost::Manager, order).await.expect("an answer");
    let PathReport::CleanedUp(cleaned) = report else { panic!("{report:?}") };
    cleaned[0].kept.clone()
}

#[tokio::test]
async fn what_made_room_for_the_cache_of_a_stored_sector_may_have_layers_that_nobody_needs() {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    world.api.pledge_sector().await.expect("a pledge");
    world.sector(1, |sector| sector.state == "Proving").await;
    worker.script("PC1", Behaviour::Hold);
    world.api.pledge_sector().await.expect("a pledge");
    while worker.call_of("PC1").await.call.sector.number != SectorNumber::new(2) {}
    let lasting = ["p_aux", "t_aux", "sc-02-data-tree-r-last.dat"];
    let all = [&lasting[..], &["sc-02-data-layer-1.dat"]].concat();
    let aside = |number: u64| {
        format!("cache/fetching/s-t01000-{number}.replaced-{}", uuid::Uuid::from_u64_pair(1, number))
    };
    let (one, two) = (aside(1), aside(2));
    let files =
        [("cache/s-t01000-1", &lasting[..]), ("cache/s-t01000-2", &lasting), (&one, &all), (&two, &all)];
    let (dir, _) = world.own_path(&files).await;
    let kept = cleaned(&world, dir.join(&two)).await.expect("its layers are due");
    assert!(kept.contains("differs in names or lengths"), "{kept}");
    let tree = dir.join("cache/s-t01000-1/sc-02-data-tree-r-last.dat");
    std::fs::write(&tree, "cut off").expect("spoilt");
    assert!(cleaned(&world, dir.join(&one)).await.is_some(), "what counts is looked at");
    std::fs::write(&tree, "some").expect("whole again");
    assert_eq!(cleaned(&world, dir.join(&one)).await, None);
    assert!(!dir.join(&one).exists() && dir.join(&two).exists());
}

#[tokio::test]
async fn a_sector_is_filled_anew_only_where_no_older_filling_lies_unlisted() {
    let world = world().await;
    let (a, _, _) = at_pc2(&world, true).await;
    a.script("AP", Behaviour::Hold);
    world.api.pledge_sector().await.expect("a pledge");
    // The first one was sector 1's.
    a.call_of("AP").await;
    let held = a.call_of("AP").await;
    let second = held.call.sector;
    world.handle.index().supersede_copies(&a.sealing, second, FileTypes::UNSEALED);
    let deleted = || a.deleted.lock().expect("no panic elsewhere").clone();
    assert!(deleted().is_empty());
    a.script("AP", Behaviour::Hold);
    a.fail(&held, 0).await;
    world.sector(2, |sector| sector.state.contains("Failed")).await;
    world.api.retry_sector(SectorNumber::new(2).into()).await.expect("tried again");
    a.call_of("AP").await;
    assert_eq!(deleted(), [format!("/remote/unsealed/{second}")]);
    let told = world.sector(2, |_| true).await;
    assert!(told.log.iter().any(|(_, kind, _)| kind == "delete_permitted"), "{:?}", told.log);
}
