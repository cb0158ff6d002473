//! Sectors whose files are lost are sealed again to the replica that was proven, from the manager's record or from what a
//! file says of them.

mod world;

use std::sync::Arc;

use rpc::ApiError;
use rpc::extension::SectorDetail;
use rpc::pipelining::{Lost, PieceParts, WantedPiece};
use sealtasks::{
    Commitment, FailureClass, FileTypes, PieceInfo, RegisteredSealProof, SealedCid, SectorId, SectorNumber,
    SectorRef, SectorSize, StorageId, Ticket,
};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, World, world};

/// What lies in a sector with data.
const FILES: [&[u8]; 2] = [&[7; 200], &[9; 500]];

const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

async fn yard() -> (World, Arc<FakeWorker>) {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    (world, worker)
}

async fn update(world: &World, number: u64, state: &str) -> Result<(), ApiError> {
    world.handle.pipeline_api().update_state(SectorNumber::new(number), state.to_owned()).await
}

fn parts(data: &[u8]) -> PieceParts {
    Box::pin(futures_util::stream::iter([Ok(data.to_vec().into())]))
}

async fn wanted(world: &World, number: u64, lost: Option<Lost>) -> Vec<WantedPiece> {
    world.handle.pipeline_api().rebuild_pieces(SectorNumber::new(number), lost).await.expect("told")
}

async fn hand_in(world: &World, number: u64, piece: PieceInfo, data: &[u8]) -> Result<(), ApiError> {
    world.handle.pipeline_api().give_piece(SectorNumber::new(number), piece, parts(data)).await
}

/// Sector 1 with two files as data, proven.
async fn with_data(world: &World) -> SectorDetail {
    let api = world.handle.pipeline_api();
    for data in FILES {
        api.add_piece(None, parts(data)).await.expect("taken");
    }
    api.start_sealing(SectorNumber::new(1)).await.expect("it starts");
    proven(world, 1).await
}

fn staged(world: &World) -> usize {
    std::fs::read_dir(world.dir.path().join("repo/staging")).expect("the staging").count()
}

async fn rebuild(world: &World, number: u64, lost: Option<Lost>) -> Result<(), ApiError> {
    world.handle.pipeline_api().rebuild(SectorNumber::new(number), lost).await
}

async fn proven(world: &World, number: u64) -> SectorDetail {
    world.sector(number, |detail| detail.state == "Proving").await
}

/// A sector that is known by a file alone; fake workers make the replica of 2s of every sector.
fn lost(number: u64, sealed: u8) -> Lost {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
    let sector = SectorRef { id: SectorId::new(1000, number), proof };
    Lost {
        sector,
        ticket: Ticket([8; 32]),
        sealed: SealedCid::new(Commitment::new([sealed; 32])),
        pieces: Vec::new(),
    }
}

/// Its files are gone, and the index knows.
async fn lose(world: &World, number: u64) {
    for file in REPLICA.iter() {
        lose_file(world, number, file.into()).await;
    }
}

async fn lose_file(world: &World, number: u64, file: FileTypes) {
    let sector = SectorId::new(1000, number);
    for holder in world.api.storage_find(sector, file, None).await.expect("asked") {
        world.api.storage_drop(holder.id, sector, file).await.expect("dropped");
    }
}

fn events(detail: &SectorDetail, text: &str) -> usize {
    detail.log.iter().filter(|(_, _, line)| line.contains(text)).count()
}

#[tokio::test]
async fn a_sector_of_our_own_is_sealed_again_up_to_its_replica_alone() {
    let (world, _worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    let before = proven(&world, 1).await;
    rebuild(&world, 1, None).await.expect("nothing is lost, so nothing is done");
    assert_eq!(events(&proven(&world, 1).await, "sealed again"), 0);

    lose(&world, 1).await;
    rebuild(&world, 1, None).await.expect("it begins");
    let after = proven(&world, 1).await;
    assert_eq!((&after.ticket, &after.comm_r, &after.proof), (&before.ticket, &before.comm_r, &before.proof));
    let counts = ["its files are lost", "result of PC1", "result of C1", "result of MOVE"];
    assert_eq!(counts.map(|text| events(&after, text)), [1, 2, 1, 2], "{:#?}", after.log);
    let holders = world.api.storage_find(SectorId::new(1000, 1), REPLICA, None).await.expect("asked");
    assert!(matches!(holders.as_slice(), [holder] if holder.can_store), "{holders:?}");
}

#[tokio::test]
async fn what_a_file_says_otherwise_than_the_record_changes_nothing() {
    let (world, _worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    proven(&world, 1).await;
    lose(&world, 1).await;
    for (given, words) in [(lost(1, 2), "another ticket"), (lost(1, 9), "another CommR")] {
        let error = rebuild(&world, 1, Some(given)).await.expect_err("refused").to_string();
        assert!(error.contains("MGR138") && error.contains(words), "{error}");
    }
    let error = rebuild(&world, 2, Some(lost(1, 2))).await.expect_err("refused").to_string();
    assert!(error.contains("MGR136"), "{error}");
    let error = rebuild(&world, 5, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR053"), "{error}");
    assert_eq!(proven(&world, 1).await.last_error, "");
}

#[tokio::test]
async fn a_sector_from_elsewhere_is_believed_with_its_old_replica_alone() {
    let (world, worker) = yard().await;
    rebuild(&world, 7, Some(lost(7, 2))).await.expect("it begins");
    rebuild(&world, 9, Some(lost(9, 4))).await.expect("it begins");
    let back = proven(&world, 7).await;
    let ticket = Ticket([8; 32]).to_string();
    assert_eq!((back.ticket.as_ref(), events(&back, "result of C1")), (Some(&ticket), 0));
    let wrong = world.sector(9, |detail| detail.state == "SealPreCommit2Failed").await;
    assert!(wrong.last_error.contains("was proven: the ticket or the data"), "{}", wrong.last_error);
    let stored = world.api.storage_find(SectorId::new(1000, 9), REPLICA, None).await.expect("asked");
    assert!(
        stored.iter().all(|holder| !holder.can_store),
        "nothing lies where good sectors belong: {stored:?}"
    );
    assert_eq!(world.api.pledge_sector().await.expect("a pledge").number, SectorNumber::new(10));

    // What the record says holds over a restart.
    let world = world.restart().await;
    world.join(&worker).await;
    assert_eq!(proven(&world, 7).await.comm_r, Some(SealedCid::new(Commitment::new([2; 32])).to_string()));
    assert_eq!(world.sector(9, |_| true).await.state, "SealPreCommit2Failed");
}

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
async fn a_rebuild_with_data_names_all_that_is_missing_and_takes_only_the_right_pieces() {
    let (world, worker) = yard().await;
    let before = with_data(&world).await;
    assert!(wanted(&world, 1, None).await.is_empty(), "nothing is lost");
    lose(&world, 1).await;
    lose_file(&world, 1, FileTypes::UNSEALED).await;
    let pieces = wanted(&world, 1, None).await;
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece.needed && !piece.given), "{pieces:?}");
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR153"), "{error}");
    assert!(before.data.iter().all(|data| error.contains(&data.cid)), "all are named: {error}");
    assert_eq!(proven(&world, 1).await.last_error, "");

    let error = hand_in(&world, 1, pieces[0].piece, FILES[1]).await.expect_err("another").to_string();
    assert!(error.contains("MGR1"), "{error}");
    hand_in(&world, 1, pieces[0].piece, FILES[0]).await.expect("taken");
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains(&before.data[1].cid) && !error.contains(&before.data[0].cid), "{error}");
    hand_in(&world, 1, pieces[1].piece, FILES[1]).await.expect("taken");
    assert!(wanted(&world, 1, None).await.iter().all(|piece| piece.given));
    while !worker.is_idle().await {}
    rebuild(&world, 1, None).await.expect("it begins");
    let after = proven(&world, 1).await;
    assert_eq!((&after.pieces, &after.comm_r), (&before.pieces, &before.comm_r));
    let written = worker.call_of("AP").await.data.expect("data");
    assert_eq!(&written[..FILES[0].len()], FILES[0]);
    let world = world.restart().await;
    assert_eq!(staged(&world), 0, "a proven sector needs nothing staged");
}

#[tokio::test]
async fn the_unsealed_file_that_is_left_is_sealed_as_it_is() {
    let (world, worker) = yard().await;
    let before = with_data(&world).await;
    lose(&world, 1).await;
    let pieces = wanted(&world, 1, None).await;
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| !piece.needed), "{pieces:?}");
    rebuild(&world, 1, None).await.expect("it begins");
    let after = proven(&world, 1).await;
    assert_eq!(events(&after, "result of AP"), events(&before, "result of AP"), "nothing is written");
    assert_eq!((events(&after, "result of PC1"), &after.pieces), (2, &before.pieces));
    assert!(worker.deleted.lock().expect("no panic elsewhere").is_empty());
}

#[tokio::test]
async fn a_sector_with_data_that_this_manager_never_had_is_filled_with_what_is_given() {
    let (world, _worker) = yard().await;
    let known = with_data(&world).await;
    let pieces: Vec<PieceInfo> = known
        .data
        .iter()
        .map(|data| PieceInfo {
            size: data.padded_size.try_into().expect("a size"),
            cid: data.cid.parse().expect("a CID"),
        })
        .collect();
    let lost = Lost { pieces: pieces.clone(), ..lost(7, 2) };
    let error = rebuild(&world, 7, Some(lost.clone())).await.expect_err("refused").to_string();
    assert!(pieces.iter().all(|piece| error.contains(&piece.cid.to_string())), "{error}");
    let unasked = hand_in(&world, 7, pieces[0], FILES[0]).await.expect_err("nobody asked").to_string();
    assert!(unasked.contains("MGR158"), "{unasked}");
    assert_eq!(wanted(&world, 7, Some(lost.clone())).await.len(), 2);
    for (piece, data) in pieces.iter().zip(FILES) {
        hand_in(&world, 7, *piece, data).await.expect("taken");
    }
    rebuild(&world, 7, Some(lost)).await.expect("it begins");
    assert_eq!(proven(&world, 7).await.pieces, known.pieces);
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
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR157"), "{error}");
    lose(&world, 1).await;
    rebuild(&world, 1, None).await.expect("it begins");
    let again =
        world.sector(1, |sector| sector.state == "Proving" && events(sector, "result of MOVE") == 2).await;
    assert_eq!((&again.comm_r, &again.proof), (&before.comm_r, &before.proof));
    rebuild(&world, 1, None).await.expect("it is whole, and that is believed again");
}

/// A path for sealing alone that was away and comes back with what was lost.
async fn old_path(world: &World) -> Arc<FakeWorker> {
    let away = FakeWorker::new(Plan { name: "V", seed: 9, tasks: &[], stores: false, sealyard: true });
    world.join(&away).await;
    away
}

async fn held_by(world: &World, path: &StorageId, number: u64) -> FileTypes {
    let files = world.api.storage_files(path.clone()).await.expect("known");
    let of = files.iter().filter(|file| file.sector == SectorId::new(1000, number));
    of.fold(FileTypes::NONE, |all, file| all | file.types).intersection(REPLICA)
}

/// PreCommit1 deletes what lies of its sector anywhere, and in a path for sealing may lie what everybody looks for.
#[tokio::test]
async fn an_original_that_comes_back_in_a_path_for_sealing_is_never_deleted() {
    let (world, worker) = yard().await;
    let away = old_path(&world).await;
    world.api.pledge_sector().await.expect("a pledge");
    proven(&world, 1).await;
    lose(&world, 1).await;
    while !worker.is_idle().await {}
    worker.script("AP", Behaviour::Hold);
    rebuild(&world, 1, None).await.expect("it begins");
    let zeros = worker.call_of("AP").await;
    let sector = SectorId::new(1000, 1);
    away.declare(sector, REPLICA).await;
    worker.finish(&zeros).await;
    let parked = world.sector(1, |detail| detail.state == "SealPreCommit1Failed").await;
    assert!(parked.last_error.contains("has turned up on path"), "{}", parked.last_error);

    // While somebody puts it right, what is not there is forgotten.
    world.api.storage_drop(away.sealing.clone(), sector, REPLICA).await.expect("forgotten");
    worker.script("PC1", Behaviour::Hold);
    world.api.retry_sector(SectorNumber::new(1)).await.expect("it goes on");
    let labels = worker.call_of("PC1").await;
    away.declare(sector, REPLICA).await;
    for kind in REPLICA.iter() {
        let refused = world.api.storage_drop(away.sealing.clone(), sector, kind.into()).await;
        let refused = refused.expect_err("PreCommit1 has begun").to_string();
        assert!(refused.contains("are left alone"), "{refused}");
    }
    worker.fail_as(&labels, FailureClass::Environment).await;
    world.sector(1, |detail| detail.state == "SealPreCommit1Failed").await;
    world.api.retry_sector(SectorNumber::new(1)).await.expect("it goes on");
    let parked = world.sector(1, |detail| events(detail, "has turned up on path") == 2).await;
    assert!(parked.last_error.contains(&away.sealing.to_string()), "{}", parked.last_error);
    assert_eq!(held_by(&world, &away.sealing, 1).await, REPLICA);
    assert!(away.deleted.lock().expect("no panic elsewhere").is_empty());
}

#[tokio::test]
async fn what_a_rebuild_has_made_itself_is_made_anew_also_after_a_restart() {
    let (world, worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    proven(&world, 1).await;
    lose(&world, 1).await;
    while !worker.is_idle().await {}
    worker.script("PC2", Behaviour::Hold);
    rebuild(&world, 1, None).await.expect("it begins");
    let held = worker.call_of("PC2").await;
    worker.fail_as(&held, FailureClass::BadData).await;
    let bad = world.sector(1, |detail| detail.state == "SealPreCommit2Failed").await;
    assert!(events(&bad, "this rebuild makes files in path") == 1, "{:#?}", bad.log);
    assert_eq!(held_by(&world, &worker.sealing, 1).await, REPLICA);
    let world = world.restart().await;
    world.join(&worker).await;
    worker.declare(SectorId::new(1000, 1), REPLICA | FileTypes::UNSEALED).await;
    world.api.retry_sector(SectorNumber::new(1)).await.expect("it goes on");
    let back = proven(&world, 1).await;
    assert_eq!((events(&back, "result of PC1"), events(&back, "turned up")), (3, 0), "{:#?}", back.log);
}

#[tokio::test]
async fn what_was_told_of_a_sector_is_corrected_while_nothing_of_it_is_stored() {
    let (world, worker) = yard().await;
    worker.script("PC2", Behaviour::Hold);
    let wrong = Lost { ticket: Ticket([7; 32]), ..lost(9, 4) };
    rebuild(&world, 9, Some(wrong)).await.expect("it begins");
    let held = worker.call_of("PC2").await;
    let error = rebuild(&world, 9, Some(lost(9, 2))).await.expect_err("it is under way").to_string();
    assert!(error.contains("MGR138") && error.contains("when that is over"), "{error}");
    worker.finish(&held).await;
    let other = world.sector(9, |detail| detail.state == "SealPreCommit2Failed").await;
    assert!(other.last_error.contains("was proven"), "{}", other.last_error);
    rebuild(&world, 9, Some(lost(9, 2))).await.expect("it begins again");
    let back = proven(&world, 9).await;
    assert_eq!(back.ticket, Some(Ticket([8; 32]).to_string()));
    assert_eq!(events(&back, "what was told of it is corrected"), 1, "{:#?}", back.log);
    // What is stored is no longer told otherwise.
    lose(&world, 9).await;
    let error = rebuild(&world, 9, Some(lost(9, 4))).await.expect_err("refused").to_string();
    assert!(error.contains("MGR138") && error.contains("another CommR"), "{error}");
}

/// Where a sector was moved last, right before the manager died, is not in what it remembers.
#[tokio::test]
async fn nothing_counts_as_lost_while_a_path_may_still_come_back_after_a_start() {
    let (world, worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    proven(&world, 1).await;
    lose(&world, 1).await;
    let world = world.restart().await;
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR159") && error.contains("is not back"), "{error}");
    world.join(&worker).await;
    rebuild(&world, 1, None).await.expect("it begins");
}

async fn unsealed_in(world: &World, number: u64) -> Vec<StorageId> {
    let found = world.api.storage_find(SectorId::new(1000, number), FileTypes::UNSEALED, None).await;
    found.expect("asked").into_iter().map(|holder| holder.id).collect()
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
    with_data(&world).await;
    lose(&world, 1).await;
    lose_file(&world, 1, FileTypes::UNSEALED).await;
    for (piece, data) in wanted(&world, 1, None).await.iter().zip(FILES) {
        hand_in(&world, 1, piece.piece, data).await.expect("taken");
    }
    while !worker.is_idle().await {}
    worker.forget();
    worker.script("AP", Behaviour::Hold);
    rebuild(&world, 1, None).await.expect("it begins");
    let first = worker.call_of("AP").await;
    let sector = SectorId::new(1000, 1);
    away.declare(sector, FileTypes::UNSEALED).await;
    let kept = world.api.storage_drop(away.sealing.clone(), sector, FileTypes::UNSEALED).await;
    assert!(kept.expect_err("it is filled").to_string().contains("are left alone"));
    worker.fail_as(&first, FailureClass::Environment).await;
    world.sector(1, |detail| detail.state == "AddPieceFailed").await;
    world.api.retry_sector(SectorNumber::new(1)).await.expect("it goes on");
    let parked = world.sector(1, |detail| events(detail, "holds an unsealed file") == 1).await;
    assert_eq!(parked.state, "AddPieceFailed");
    assert!(parked.last_error.contains(&away.sealing.to_string()), "{}", parked.last_error);
    assert!(parked.last_error.contains("gives the rebuild up"), "{}", parked.last_error);
    assert!(unsealed_in(&world, 1).await.contains(&away.sealing));
    assert!(away.deleted.lock().expect("no panic elsewhere").is_empty());

    // Without it, what an attempt has left is made anew.
    world.api.storage_drop(away.sealing.clone(), sector, FileTypes::UNSEALED).await.expect("forgotten");
    worker.declare(sector, FileTypes::UNSEALED).await;
    world.api.retry_sector(SectorNumber::new(1)).await.expect("it goes on");
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
