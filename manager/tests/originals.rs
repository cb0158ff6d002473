//! Sectors that are sealed again, and files of them that turn up meanwhile or stay behind: what may be the original is never
//! deleted, and what a rebuild has made is believed when it is proven.

mod world;

use std::sync::Arc;

use rpc::storage::PathHost;
use rpc::{ReturnMethod, Returned};
use sealtasks::{
    FailureClass, FileTypes, Matter, NewPath, PathOrder, PathReport, SectorId, SectorNumber, StorageId,
    StorageInfo, StorageStanza,
};
use world::canned::roomy;
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::lost::{
    REPLICA, events, held_by, lose, lost, old_path, proven, rebuild, refilled, unsealed_in, update, yard,
};
use world::made::output_of;
use world::{ALL, World};

/// Sealing again deletes every file of it first, so what is only remembered, or turns up meanwhile, stands against it.
#[tokio::test]
async fn a_replica_that_is_away_or_turns_up_is_not_sealed_over() {
    let (world, worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    proven(&world, 1).await;
    let world = world.restart().await;
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR143") && error.contains("is not back"), "{error}");
    let error = rebuild(&world, 1, Some(lost(1, 9))).await.expect_err("refused").to_string();
    assert!(error.contains("MGR138"), "{error}");
    assert_eq!(events(&proven(&world, 1).await, "sealed again"), 0);

    world.join(&worker).await;
    lose(&world, 1).await;
    worker.call_of("AP").await; // The pledge's.
    worker.script("AP", Behaviour::Hold);
    rebuild(&world, 1, None).await.expect("it begins");
    let zeros = worker.call_of("AP").await;
    let store = worker.storage.clone().expect("it stores");
    world.api.storage_declare(store.clone(), SectorId::new(1000, 1), REPLICA, true).await.expect("declared");
    worker.finish(&zeros).await;
    let parked = world.sector(1, |detail| detail.state == "SealPreCommit1Failed").await;
    assert!(parked.last_error.contains("a replica has turned up on path"), "{}", parked.last_error);
    assert_eq!(events(&parked, "result of PC1"), 1, "{:#?}", parked.log);
    let holders = world.api.storage_find(SectorId::new(1000, 1), REPLICA, None).await.expect("asked");
    assert!(holders.iter().any(|holder| holder.id == store), "nothing was deleted: {holders:?}");
}

#[tokio::test]
async fn a_rebuild_that_is_given_up_leaves_a_sector_that_can_be_sealed_again() {
    let (world, worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    let before = proven(&world, 1).await;
    lose(&world, 1).await;
    worker.script("PC2", Behaviour::Hold);
    while !worker.is_idle().await {}
    rebuild(&world, 1, None).await.expect("it begins");
    let held = worker.call_of("PC2").await;
    let error = update(&world, 1, "Proving").await.expect_err("it runs").to_string();
    assert!(error.contains("MGR122"), "{error}");
    worker.fail(&held, 0).await;
    world.sector(1, |sector| sector.state == "SealPreCommit2Failed").await;
    let error = update(&world, 1, "PreCommit1").await.expect_err("one way alone").to_string();
    assert!(error.contains("Proving gives that up"), "{error}");
    update(&world, 1, "Proving").await.expect("given up");
    let after = proven(&world, 1).await;
    assert_eq!((&after.ticket, &after.comm_r, &after.proof), (&before.ticket, &before.comm_r, &before.proof));
    // What it had made is no replica as far as anybody knows, also after a restart.
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR157") && error.contains("proving check 1"), "{error}");
    let world = world.restart().await;
    world.join(&worker).await;
    worker.declare(SectorId::new(1000, 1), REPLICA).await;
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR157"), "{error}");
    lose(&world, 1).await;
    rebuild(&world, 1, None).await.expect("it begins");
    let again =
        world.sector(1, |sector| sector.state == "Proving" && events(sector, "result of MOVE") == 2).await;
    assert_eq!((&again.comm_r, &again.proof), (&before.comm_r, &before.proof));
    rebuild(&world, 1, None).await.expect("it is whole, and that is believed again");
}

/// PreCommit1 deletes what lies of its sector anywhere, and in a path for sealing may lie what everybody looks for.
#[tokio::test]
async fn an_original_that_comes_back_in_a_path_for_sealing_is_never_deleted() {
    let (world, worker) = yard().await;
    let away = old_path(&world).await;
    let zeros = lost_and_begun(&world, &worker, "AP").await;
    let sector = SectorId::new(1000, 1);
    away.declare(sector, REPLICA).await;
    worker.finish(&zeros).await;
    let parked = world.sector(1, |detail| detail.state == "SealPreCommit1Failed").await;
    assert!(parked.last_error.contains("has turned up on path"), "{}", parked.last_error);

    // While somebody puts it right, what is not there is forgotten.
    world.api.storage_drop(away.sealing.clone(), sector, REPLICA).await.expect("forgotten");
    worker.script("PC1", Behaviour::Hold);
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("it goes on");
    let labels = worker.call_of("PC1").await;
    away.declare(sector, REPLICA).await;
    for kind in REPLICA.iter() {
        let refused = world.api.storage_drop(away.sealing.clone(), sector, kind.into()).await;
        let refused = refused.expect_err("PreCommit1 has begun").to_string();
        assert!(refused.contains("are left alone"), "{refused}");
    }
    worker.fail_as(&labels, FailureClass::Environment).await;
    world.sector(1, |detail| detail.state == "SealPreCommit1Failed").await;
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("it goes on");
    let parked = world.sector(1, |detail| events(detail, "has turned up on path") == 2).await;
    assert!(parked.last_error.contains(&away.sealing.to_string()), "{}", parked.last_error);
    assert_eq!(held_by(&world, &away.sealing, 1).await, REPLICA);
    assert!(away.deleted.lock().expect("no panic elsewhere").is_empty());
}

#[tokio::test]
async fn what_a_rebuild_has_made_itself_is_made_anew_also_after_a_restart() {
    let (world, worker) = yard().await;
    let held = lost_and_begun(&world, &worker, "PC2").await;
    worker.fail_as(&held, FailureClass::BadData).await;
    let bad = world.sector(1, |detail| detail.state == "SealPreCommit2Failed").await;
    assert!(events(&bad, "this rebuild makes files in path") == 1, "{:#?}", bad.log);
    assert_eq!(held_by(&world, &worker.sealing, 1).await, REPLICA);
    let world = world.restart().await;
    world.join(&worker).await;
    worker.declare(SectorId::new(1000, 1), REPLICA | FileTypes::UNSEALED).await;
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("it goes on");
    let back = proven(&world, 1).await;
    assert_eq!((events(&back, "result of PC1"), events(&back, "turned up")), (3, 0), "{:#?}", back.log);
}

/// A file that says nothing of a sector's pieces makes it look empty, and its unsealed file may be all that is left of them.
#[tokio::test]
async fn a_sector_from_elsewhere_is_not_begun_while_an_unsealed_file_of_it_lies_anywhere() {
    let (world, _worker) = yard().await;
    let away = old_path(&world).await;
    away.declare(SectorId::new(1000, 7), FileTypes::UNSEALED).await;
    for _ in 0..2 {
        let error = rebuild(&world, 7, Some(lost(7, 2))).await.expect_err("refused").to_string();
        assert!(error.contains("MGR160") && error.contains(&away.sealing.to_string()), "{error}");
    }
    assert_eq!(unsealed_in(&world, 7).await, std::slice::from_ref(&away.sealing));
    let world = world.restart().await;
    let error = rebuild(&world, 7, Some(lost(7, 2))).await.expect_err("remembered").to_string();
    assert!(error.contains("MGR160"), "{error}");
    assert!(away.deleted.lock().expect("no panic elsewhere").is_empty());
}

#[tokio::test]
async fn an_unsealed_file_that_comes_back_is_neither_deleted_nor_written_into() {
    let (world, worker) = yard().await;
    let away = old_path(&world).await;
    let first = refilled(&world, &worker).await;
    let sector = SectorId::new(1000, 1);
    away.declare(sector, FileTypes::UNSEALED).await;
    let kept = world.api.storage_drop(away.sealing.clone(), sector, FileTypes::UNSEALED).await;
    assert!(kept.expect_err("it is filled").to_string().contains("are left alone"));
    worker.fail_as(&first, FailureClass::Environment).await;
    world.sector(1, |detail| detail.state == "AddPieceFailed").await;
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("it goes on");
    let parked = world.sector(1, |detail| events(detail, "holds an unsealed file") == 1).await;
    assert_eq!(parked.state, "AddPieceFailed");
    assert!(parked.last_error.contains(&away.sealing.to_string()), "{}", parked.last_error);
    assert!(parked.last_error.contains("gives the rebuild up"), "{}", parked.last_error);
    assert!(unsealed_in(&world, 1).await.contains(&away.sealing));
    assert!(away.deleted.lock().expect("no panic elsewhere").is_empty());

    // Without it, what an attempt has left is made anew.
    world.api.storage_drop(away.sealing.clone(), sector, FileTypes::UNSEALED).await.expect("forgotten");
    worker.declare(sector, FileTypes::UNSEALED).await;
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("it goes on");
    proven(&world, 1).await;
}

#[tokio::test]
async fn an_original_of_a_told_sector_is_not_given_up_by_the_advice() {
    let (world, worker) = yard().await;
    let away = old_path(&world).await;
    worker.script("AP", Behaviour::Hold);
    rebuild(&world, 7, Some(lost(7, 2))).await.expect("it begins");
    let zeros = worker.call_of("AP").await;
    away.declare(SectorId::new(1000, 7), REPLICA).await;
    worker.finish(&zeros).await;
    let parked = world.sector(7, |detail| detail.state == "SealPreCommit1Failed").await;
    assert!(parked.last_error.contains("keep it: `sealyard sectors remove`"), "{}", parked.last_error);
    assert!(!parked.last_error.contains("update-state"), "{}", parked.last_error);
}

/// Whoever gives a rebuild up since the original is back has its files believed: those that the rebuild has made lie elsewhere.
#[tokio::test]
async fn an_original_for_which_a_rebuild_is_given_up_is_believed() {
    let (world, worker) = yard().await;
    let away = old_path(&world).await;
    let held = lost_and_begun(&world, &worker, "PC2").await;
    worker.fail(&held, 0).await;
    world.sector(1, |sector| sector.state == "SealPreCommit2Failed").await;
    update(&world, 1, "Proving").await.expect("given up");
    let error = rebuild(&world, 1, None).await.expect_err("half a replica").to_string();
    assert!(error.contains("MGR157") && error.contains(&worker.sealing.to_string()), "{error}");
    away.declare(SectorId::new(1000, 1), REPLICA).await;
    let world = world.restart().await;
    world.join(&worker).await;
    world.join(&away).await;
    worker.declare(SectorId::new(1000, 1), REPLICA).await;
    away.declare(SectorId::new(1000, 1), REPLICA).await;
    rebuild(&world, 1, None).await.expect("nothing of it is lost");
    assert_eq!(proven(&world, 1).await.state, "Proving");
    // Asked whether it is whole, everybody has proven what they have: what the rebuild had made is good, too.
    for kind in REPLICA.iter() {
        let sector = SectorId::new(1000, 1);
        world.api.storage_drop(away.sealing.clone(), sector, kind.into()).await.expect("dropped");
    }
    rebuild(&world, 1, None).await.expect("nothing of it is lost");
    assert_eq!(proven(&world, 1).await.state, "Proving");
}

/// It was known by a file alone: what lies of it may be what everybody looks for.
#[tokio::test]
async fn no_clean_up_offers_or_deletes_files_of_a_sector_that_was_only_told() {
    let (world, worker) = yard().await;
    worker.script("AP", Behaviour::Hold);
    rebuild(&world, 7, Some(lost(7, 2))).await.expect("it begins");
    let zeros = worker.call_of("AP").await;
    let dir = world.dir.path().join("old");
    std::fs::create_dir(&dir).expect("made");
    let new = NewPath {
        weight: 10,
        max_storage: 0,
        keep_free: 0,
        can_seal: false,
        can_store: true,
        groups: Vec::new(),
        allow_to: Vec::new(),
    };
    stores::new_path(&dir, &new).expect("a path");
    let original = dir.join("sealed/s-t01000-7");
    std::fs::create_dir_all(dir.join("sealed")).expect("made");
    std::fs::write(&original, [7; 2048]).expect("written");
    world.api.storage_add_local(dir).await.expect("opened");
    worker.fail_as(&zeros, FailureClass::Environment).await;
    world.sector(7, |detail| detail.state == "AddPieceFailed").await;
    world
        .operator
        .remove_sector(SectorNumber::new(7).into(), Default::default(), "a test".to_owned())
        .await
        .expect("removed");

    let storage = world.handle.storage_api();
    let survey = storage.path_order(PathHost::Manager, PathOrder::Survey).await.expect("surveyed");
    let PathReport::Surveyed(paths) = survey else { panic!("{survey:?}") };
    let found = paths.iter().flat_map(|path| &path.findings).find(|found| found.entry == original);
    let found = found.expect("it is shown");
    assert_eq!((found.matter, found.offered), (Matter::RemovedSector, false), "{found:?}");
    assert!(found.reason.contains("may be its original"), "{}", found.reason);

    let order = PathOrder::CleanUp { entries: vec![original.clone()], old: Vec::new() };
    let cleaned = storage.path_order(PathHost::Manager, order).await.expect("answered");
    let PathReport::CleanedUp(entries) = cleaned else { panic!("{cleaned:?}") };
    let kept = entries.iter().find(|one| one.entry == original).and_then(|one| one.kept.clone());
    let says = |kept: &String| kept.contains("MGR191") && kept.contains("may be its original");
    assert!(kept.as_ref().is_some_and(says), "{kept:?}");
    assert_eq!(std::fs::read(&original).expect("it is there"), [7; 2048]);
}

/// A pledged sector is proven and lost, and sealed again as far as this task, which is held.
async fn lost_and_begun(world: &World, worker: &FakeWorker, task: &'static str) -> Taken {
    world.api.pledge_sector().await.expect("a pledge");
    proven(world, 1).await;
    lose(world, 1).await;
    while !worker.is_idle().await {}
    worker.script(task, Behaviour::Hold);
    rebuild(world, 1, None).await.expect("it begins");
    worker.call_of(task).await
}

/// A Lotus worker that does everything, and whose tasks are all planned in a path that it never uses.
async fn wayward() -> (World, Arc<FakeWorker>) {
    let world = world::world().await;
    let worker = FakeWorker::new(Plan { name: "L", seed: 5, tasks: ALL, stores: true, sealyard: false });
    world.join(&worker).await;
    let url = worker.url().replace("/rpc/v0", "/remote");
    let stanza = StorageStanza { weight: 1000, can_seal: true, can_store: false, ..StorageStanza::default() };
    let info = StorageInfo { id: StorageId::from(uuid::Uuid::from_u64_pair(5, 3)), urls: vec![url], stanza };
    let id = info.id.clone();
    world.api.storage_attach(info, roomy()).await.expect("attached");
    world.api.storage_declared_all(id).await.expect("taken");
    (world, worker)
}

#[tokio::test]
async fn what_a_lotus_worker_makes_elsewhere_than_planned_is_the_rebuild_s_own() {
    let (world, worker) = wayward().await;
    let held = lost_and_begun(&world, &worker, "PC2").await;
    let made = format!("this rebuild makes files in path {}", worker.sealing);
    let under_way = world.sector(1, |_| true).await;
    assert_eq!(events(&under_way, &made), 1, "{:#?}", under_way.log);
    // What is its own may be made anew, and go.
    let sector = SectorId::new(1000, 1);
    world.api.storage_drop(worker.sealing.clone(), sector, REPLICA).await.expect("it is not kept");
    worker.declare(sector, REPLICA).await;
    worker.finish(&held).await;
    proven(&world, 1).await;
}

#[tokio::test]
async fn an_original_that_turns_up_while_a_lotus_worker_seals_is_not_taken_for_its_work() {
    let (world, worker) = wayward().await;
    let away = old_path(&world).await;
    let labels = lost_and_begun(&world, &worker, "PC1").await;
    let sector = SectorId::new(1000, 1);
    away.declare(sector, REPLICA).await;
    // It says that it is done, and what it has made is declared nowhere yet.
    let result = Ok(output_of(&labels.work, None));
    let method = ReturnMethod::of(&labels.work).expect("work that is called");
    let returned = Returned { method, result, attempt: labels.attempt, account: None };
    world.api.return_result(labels.call, returned).await.expect("acknowledged");
    let there = world.sector(1, |detail| events(detail, "result of PC1") == 2).await;
    let own = format!("this rebuild makes files in path {}", away.sealing);
    assert_eq!(events(&there, &own), 0, "{:#?}", there.log);
    for kind in REPLICA.iter() {
        let refused = world.api.storage_drop(away.sealing.clone(), sector, kind.into()).await;
        let refused = refused.expect_err("it may be the original").to_string();
        assert!(refused.contains("are left alone"), "{refused}");
    }
    assert!(away.deleted.lock().expect("no panic elsewhere").is_empty());
}
