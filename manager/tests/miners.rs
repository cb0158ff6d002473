//! A sector is its miner and its number: two miners' sectors with one number are sealed side by side by one worker pool.

mod world;

use futures_util::stream;
use manager::state::StateEvent;
use rpc::api::PledgeOptions;
use rpc::operator::Removal;
use rpc::{ApiResult, Miners};
use sealtasks::{ActorId, FileTypes, SectorId, SectorNumber};
use world::fake_worker::{FakeWorker, Plan};
use world::{ALL, LIMIT, World, world};

/// The rows of all sectors, once all are proven.
async fn proven(world: &World) -> Vec<manager::state::SectorRow> {
    let state = world.handle.state();
    let wait = async {
        loop {
            let rows = state.sectors().await.expect("rows");
            if rows.iter().all(|row| row.state == "Proving") {
                return rows;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("both are proven in time")
}

const SECOND: ActorId = ActorId::new(2000);

/// A manager of two miners.
async fn two() -> World {
    let added = StateEvent::MinerAdded { miner: SECOND, by: "a test".to_owned() };
    world().await.restart_after(vec![added]).await
}

/// Data for any sector of a miner; which one takes it.
async fn give(world: &World, miner: Option<ActorId>) -> ApiResult<String> {
    let data = Box::pin(stream::iter([Ok(vec![7; 200].into())]));
    world.handle.pipeline_api().add_piece(None, miner, data).await.map(|added| added.sector.to_string())
}

#[tokio::test]
async fn a_bare_number_never_means_another_miner_s_sector() {
    let world = two().await;
    let miners = Miners { first: ActorId::new(1000), others: vec![SECOND] };
    assert_eq!(world.api.miners().await.expect("told"), miners);
    let theirs = PledgeOptions { miner: Some(SECOND), ..PledgeOptions::default() };
    let other = world.api.pledge(theirs).await.expect("a pledge");
    let operator = world.handle.operator_api();
    let bare = || SectorNumber::new(1).into();
    // Only the other one has it.
    let error = operator
        .remove_sector(bare(), Removal::default(), String::new())
        .await
        .expect_err("unclear")
        .to_string();
    assert!(error.contains("MGR180") && error.contains("is here as f02000/1;"), "{error}");
    let own = world.api.pledge_sector().await.expect("a pledge");
    // Both have it.
    for error in [
        world.api.sector_detail(bare()).await.expect_err("unclear").to_string(),
        world.api.retry_sector(bare()).await.expect_err("unclear").to_string(),
        world.api.why("1".parse().expect("a subject")).await.expect_err("unclear").to_string(),
        operator
            .set_priority("1".parse().expect("a subject"), 5, String::new())
            .await
            .expect_err("unclear")
            .to_string(),
    ] {
        assert!(error.contains("MGR180") && error.contains("f01000/1 and f02000/1"), "{error}");
    }
    for sector in [own, other] {
        assert_eq!(world.api.sector_detail(sector.into()).await.expect("it is there").sector, sector);
    }
    // All of both are listed by their ids; Lotus's list has numbers alone.
    assert_eq!(world.api.sectors().await.expect("listed"), [own, other]);
    assert_eq!(world.api.sectors_list().await.expect("listed"), [own.number]);
    for miner in [own.miner, other.miner] {
        world.api.actor_sector_size(miner).await.expect("known");
    }
    let stranger = PledgeOptions { miner: Some(ActorId::new(3000)), ..PledgeOptions::default() };
    let error = world.api.pledge(stranger).await.expect_err("a stranger").to_string();
    assert!(error.contains("MGR051"), "{error}");
}

#[tokio::test]
async fn data_goes_to_sectors_of_the_miner_that_it_is_for() {
    let world = two().await;
    assert_eq!(give(&world, None).await.expect("taken"), "f01000/1");
    assert_eq!(give(&world, Some(SECOND)).await.expect("taken"), "f02000/1", "no room in the other's sector");
    assert_eq!(give(&world, Some(SECOND)).await.expect("taken"), "f02000/1");
    let error = give(&world, Some(ActorId::new(3000))).await.expect_err("a stranger").to_string();
    assert!(error.contains("MGR051"), "{error}");
}

#[tokio::test]
async fn two_miners_sectors_with_one_number_live_side_by_side() {
    let world = two().await;
    let own = world.api.pledge_sector().await.expect("a pledge");
    let theirs = PledgeOptions { miner: Some(SECOND), ..PledgeOptions::default() };
    let other = world.api.pledge(theirs).await.expect("a pledge of the other");
    assert_eq!((own, other), (SectorId::new(1000, 1), SectorId::new(2000, 1)), "each counts its own");
    let world = world.restart().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;

    let rows = proven(&world).await;
    assert_eq!(rows.iter().map(|row| row.sector.id).collect::<Vec<_>>(), [own, other]);
    let tickets: Vec<_> = rows.iter().map(|row| row.record["progress"]["ticket"]["value"].clone()).collect();
    assert!(tickets[0].is_string() && tickets[0] != tickets[1], "each has a ticket of its own: {tickets:?}");
    // Each one's calls and files were its own.
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(worker.call_of("MOVE").await.call.sector);
    }
    calls.sort();
    assert_eq!(calls, [own, other]);
    let mut deleted = worker.deleted.lock().expect("no panic elsewhere").clone();
    deleted.sort();
    assert_eq!(deleted, ["/remote/unsealed/s-t01000-1", "/remote/unsealed/s-t02000-1"]);
    let replica = FileTypes::SEALED | FileTypes::CACHE;
    for sector in [own, other] {
        let holders = world.api.storage_find(sector, replica, None).await.expect("found");
        assert!(matches!(holders.as_slice(), [holder] if holder.can_store), "{sector}: {holders:?}");
        let log = world.handle.state().log_of(sector).await.expect("its log");
        assert!(log.iter().any(|row| row.text.contains("result of MOVE")), "{sector}: {log:?}");
    }
    // Dropping the one's files leaves the other's.
    let holder = world.api.storage_find(own, replica, None).await.expect("found").remove(0).id;
    world.api.storage_drop(holder, own, replica).await.expect("dropped");
    assert!(world.api.storage_find(own, replica, None).await.expect("asked").is_empty());
    assert_eq!(world.api.storage_find(other, replica, None).await.expect("found").len(), 1);
}
