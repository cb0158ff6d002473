//! Which sectors have a replica, or a part of one, in a path: what `proving check` asks about where a path is named.

mod world;

use sealtasks::{SectorId, StorageId};
use world::lost::{REPLICA, lose_file, proven, yard};

#[tokio::test]
async fn what_lies_in_a_path_is_told_and_a_path_that_there_is_not_is_refused() {
    let (world, _worker) = yard().await;
    for _ in 0..2 {
        world.api.pledge_sector().await.expect("a pledge");
    }
    let [first, second] = [1, 2].map(|number| SectorId::new(1000, number));
    for number in [1, 2] {
        proven(&world, number).await;
    }
    let held = world.api.storage_find(first, REPLICA, None).await.expect("asked");
    let path = held.first().expect("it is stored").id.clone();
    let there = |world: &world::World, path: StorageId| {
        let api = world.handle.proving_api();
        async move { api.replicas_in(path).await }
    };
    assert_eq!(there(&world, path.clone()).await.expect("told"), [first, second]);
    // A part is enough, and what is only remembered counts: its host may be away.
    lose_file(&world, 1, sealtasks::FileTypes::CACHE).await;
    lose_file(&world, 2, REPLICA).await;
    assert_eq!(there(&world, path.clone()).await.expect("told"), [first]);
    let another: StorageId = "another".parse().expect("an id");
    let error = there(&world, another).await.expect_err("refused").to_string();
    assert!(error.contains("MGR199") && error.contains("another"), "{error}");
    let world = world.restart().await;
    assert_eq!(there(&world, path).await.expect("told"), [first]);
    world.handle.stop().await;
}
