//! Sectors whose files are lost are sealed again to the replica that was proven, from the manager's record or from what a
//! file says of them.

mod world;

use std::sync::Arc;

use rpc::ApiError;
use rpc::extension::SectorDetail;
use rpc::pipelining::Lost;
use sealtasks::{
    Commitment, FileTypes, RegisteredSealProof, SealedCid, SectorId, SectorNumber, SectorRef, SectorSize,
    Ticket,
};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, World, world};

const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

async fn yard() -> (World, Arc<FakeWorker>) {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    (world, worker)
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
    Lost { sector, ticket: Ticket([8; 32]), sealed: SealedCid::new(Commitment::new([sealed; 32])) }
}

/// Its files are gone, and the index knows.
async fn lose(world: &World, number: u64) {
    let sector = SectorId::new(1000, number);
    for holder in world.api.storage_find(sector, REPLICA, None).await.expect("asked") {
        world.api.storage_drop(holder.id, sector, REPLICA).await.expect("dropped");
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
