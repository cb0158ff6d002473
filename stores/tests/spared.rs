//! What a fetch had brought whole, and nobody was told of, when another fetch comes into the same place.

mod support;

use std::fs;

use sealtasks::{AcquireMode, FileType};
use stores::Index;
use support::wire::Scene;
use support::{id, sector};

const CACHE: FileType = FileType::Cache;

/// As a process leaves it that is killed between the end of a fetch and the rename to the place, or after that.
async fn untold(in_place: bool) -> Scene {
    let scene = Scene::untold().await;
    if !in_place {
        fs::rename(scene.copy(), scene.notes().join("data")).expect("as before the rename");
    }
    scene
}

fn is_whole(scene: &Scene) -> bool {
    scene
        .files
        .iter()
        .all(|(name, bytes)| fs::read(scene.copy().join(name)).is_ok_and(|there| there == *bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_whole_outlives_a_fetch_from_somebody_who_sends_rubbish() {
    for in_place in [true, false] {
        let scene = untold(in_place).await;
        let rubbish = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n\r\nno tar".to_vec();
        // Its source has died, and somebody else says that he has it.
        let liar = scene.world.stranger("liar", CACHE.into(), sector(1), rubbish).await;
        assert_eq!(scene.world.holders(sector(1), CACHE).await, ["liar*"]);
        scene.fetch(AcquireMode::Move).await.expect_err("it is rubbish");
        assert!(!liar.asked().is_empty());
        assert!(is_whole(&scene), "in its place before: {in_place}");
        // As before, it is declared only where nobody else says that he has it.
        scene.target.local.redeclare(None, false).await.expect("declared");
        assert_eq!(scene.world.holders(sector(1), CACHE).await, ["liar*"]);
        scene.fetch(AcquireMode::Move).await.expect_err("it is rubbish still");
        assert!(is_whole(&scene), "in its place before: {in_place}");
        scene.world.index.drop_files(&id("liar"), sector(1).id, CACHE.into()).await.expect("dropped");
        scene.target.local.redeclare(None, false).await.expect("declared");
        assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
        assert_eq!(scene.fetch(AcquireMode::Copy).await.expect("it is here"), 0);
        assert!(is_whole(&scene));
    }
}
