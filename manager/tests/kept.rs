//! What the manager's process keeps for the next one beside its state: what downloads may use, and since when URLs of paths that
//! are not back have not answered.

mod world;

use sealtasks::TransferChange;
use world::World;
use world::lost::yard;

async fn limits(world: &World, change: TransferChange) -> sealtasks::TransferLimits {
    let manager = Some("manager".to_owned());
    let hosts = world.handle.storage_api().transfers(manager, change).await.expect("an answer");
    hosts[0].report.as_ref().expect("the manager's").limits
}

#[tokio::test]
async fn limits_by_command_and_the_two_hours_of_a_url_outlive_the_manager() {
    let (world, worker) = yard().await;
    let nothing = TransferChange::default();
    let configured = limits(&world, nothing).await;
    let change = TransferChange { bandwidth: Some(5 << 20), streams: Some(2), ..nothing };
    let limited = limits(&world, change).await;
    assert_eq!((limited.bandwidth, limited.streams), (Some(5 << 20), 2));
    let urls = world.api.storage_info(worker.sealing.clone()).await.expect("known").urls;
    world.handle.index().url_asked(&worker.sealing, &urls[0], Some("refused".to_owned()));
    let before = world.handle.index().url_troubles();
    assert_eq!(before.len(), 1, "{before:?}");

    let world = world.restart().await;
    assert_eq!(limits(&world, nothing).await, limited);
    let after = world.handle.index().url_troubles();
    assert_eq!((after.len(), &after[0].url, after[0].since_ms), (1, &urls[0], before[0].since_ms));
    let lifted = TransferChange { bandwidth: Some(0), ..nothing };
    assert_eq!(limits(&world, lifted).await.bandwidth, None);
    world.handle.index().url_asked(&worker.sealing, &urls[0], None);

    let world = world.restart().await;
    let now = limits(&world, nothing).await;
    assert_eq!((now.bandwidth, now.streams, now.parallel), (None, 2, configured.parallel));
    assert!(world.handle.index().url_troubles().is_empty());
}
