//! A sector is its miner and its number: two miners' sectors with one number are sealed side by side by one worker pool.

mod world;

use manager::state::StateEvent;
use pipeline::{RandomnessSource, SectorRecord};
use sealtasks::{FileTypes, RegisteredSealProof, SectorId, SectorRef, SectorSize};
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

#[tokio::test]
async fn two_miners_sectors_with_one_number_live_side_by_side() {
    let world = world().await;
    let own = world.api.pledge_sector().await.expect("a pledge");
    assert_eq!(own, SectorId::new(1000, 1));
    let other = SectorRef {
        id: SectorId::new(2000, 1),
        proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2),
    };
    let record = SectorRecord::pledge(other, None, RandomnessSource::Offline);
    let pledged = StateEvent::SectorPledged {
        sector: other,
        state: record.state().name().to_owned(),
        record: serde_json::to_value(&record).expect("JSON"),
    };
    let world = world.restart_after(vec![pledged]).await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;

    let rows = proven(&world).await;
    assert_eq!(rows.iter().map(|row| row.sector.id).collect::<Vec<_>>(), [own, other.id]);
    let tickets: Vec<_> = rows.iter().map(|row| row.record["progress"]["ticket"]["value"].clone()).collect();
    assert!(tickets[0].is_string() && tickets[0] != tickets[1], "each has a ticket of its own: {tickets:?}");
    // Each one's calls and files were its own.
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(worker.call_of("MOVE").await.call.sector);
    }
    calls.sort();
    assert_eq!(calls, [own, other.id]);
    let mut deleted = worker.deleted.lock().expect("no panic elsewhere").clone();
    deleted.sort();
    assert_eq!(deleted, ["/remote/unsealed/s-t01000-1", "/remote/unsealed/s-t02000-1"]);
    let replica = FileTypes::SEALED | FileTypes::CACHE;
    for sector in [own, other.id] {
        let holders = world.api.storage_find(sector, replica, None).await.expect("found");
        assert!(matches!(holders.as_slice(), [holder] if holder.can_store), "{sector}: {holders:?}");
        let log = world.handle.state().log_of(sector).await.expect("its log");
        assert!(log.iter().any(|row| row.text.contains("result of MOVE")), "{sector}: {log:?}");
    }
    // Dropping the one's files leaves the other's.
    let holder = world.api.storage_find(own, replica, None).await.expect("found").remove(0).id;
    world.api.storage_drop(holder, own, replica).await.expect("dropped");
    assert!(world.api.storage_find(own, replica, None).await.expect("asked").is_empty());
    assert_eq!(world.api.storage_find(other.id, replica, None).await.expect("found").len(), 1);
}
