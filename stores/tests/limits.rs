//! What people let downloads use outlives the process; what they have not said is as it is configured.

mod support;

use std::fs;
use std::path::Path;

use sealtasks::{TransferChange, TransferLimits};
use stores::{FetchOptions, Remote, StoreError};
use support::{Node, World};

fn life(world: &World, node: &Node, parallel: usize, file: &Path) -> Result<Remote, StoreError> {
    let options = FetchOptions { token: "admin-token".to_owned(), parallel };
    Remote::new(node.local.clone(), world.index.clone(), options).with_limits_kept_in(file.to_owned())
}

#[tokio::test]
async fn what_was_said_holds_in_the_next_life_and_the_rest_is_as_configured() {
    let world = World::new();
    let node = world.node().await;
    let file = node.dir.path().join("transfers.json");
    let first = life(&world, &node, 3, &file).expect("none was said");
    let nothing = TransferChange::default();
    let asked = first.change_limits(nothing).await.expect("only asked");
    assert_eq!(asked.limits, TransferLimits { parallel: 3, ..TransferLimits::default() });
    assert!(!file.exists(), "nothing was said");
    let slow = TransferChange { bandwidth: Some(2 << 20), ..nothing };
    first.change_limits(slow).await.expect("kept");
    first.change_limits(TransferChange { verify: Some(false), ..nothing }).await.expect("kept");

    let second = life(&world, &node, 7, &file).expect("read");
    let limits = second.limits();
    assert_eq!((limits.bandwidth, limits.parallel, limits.verify), (Some(2 << 20), 7, false));
    second
        .change_limits(TransferChange { bandwidth: Some(0), parallel: Some(4), ..nothing })
        .await
        .expect("kept");
    let limits = life(&world, &node, 9, &file).expect("read").limits();
    assert_eq!((limits.bandwidth, limits.parallel, limits.verify), (None, 4, false));

    // What cannot be kept does not hold either.
    let lost = life(&world, &node, 3, &node.dir.path().join("gone/transfers.json")).expect("none was said");
    let error = lost.change_limits(slow).await.expect_err("no such directory");
    assert_eq!((error.code(), lost.limits().bandwidth), ("STO001", None));
    fs::write(&file, "{\"bandwith\": 5}").expect("written");
    let error = life(&world, &node, 3, &file).err().expect("a slip is no wish");
    assert!(error.code() == "STO002" && error.to_string().contains("transfers.json"), "{error}");
}
