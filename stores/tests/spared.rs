//! What a fetch had brought whole, and nobody was told of, when another fetch comes into the same place.

mod support;

use std::fs;
use std::path::PathBuf;

use sealtasks::{AcquireMode, FileType};
use stores::Index;
use support::wire::{MIB, Scene, Weather};
use support::{id, sector};

const CACHE: FileType = FileType::Cache;

fn notes(scene: &Scene) -> PathBuf {
    scene.target.dir.path().join("b/cache/fetching/s-t01000-1.part")
}

/// As a process leaves it that is killed between the end of a fetch and the rename to the place, or after that.
async fn untold(in_place: bool) -> Scene {
    let scene = Scene::new().await;
    scene.front.is(Weather::Dead(64 * MIB as u64));
    scene.fetch(AcquireMode::Move).await.expect_err("cut off");
    let kept: Vec<_> = ["plan.json", "journal"]
        .map(|name| (name, fs::read(notes(&scene).join(name)).expect("noted")))
        .into();
    scene.front.is(Weather::NoDeletion);
    scene.fetch(AcquireMode::Move).await.expect("moved");
    scene.front.is(Weather::Fair);
    kept.iter().for_each(|(name, bytes)| fs::write(notes(&scene).join(name), bytes).expect("put back"));
    let note = notes(&scene).join("arrived.json");
    let text = fs::read_to_string(&note).expect("a note");
    fs::write(&note, text.replace("\"declared\":true", "\"declared\":false")).expect("rewritten");
    scene.world.index.drop_files(&id("b"), sector(1).id, CACHE.into()).await.expect("dropped");
    if !in_place {
        fs::rename(copy(&scene), notes(&scene).join("data")).expect("as before the rename");
    }
    scene
}

fn copy(scene: &Scene) -> PathBuf {
    scene.target.dir.path().join("b/cache/s-t01000-1")
}

fn is_whole(scene: &Scene) -> bool {
    scene
        .files
        .iter()
        .all(|(name, bytes)| fs::read(copy(scene).join(name)).is_ok_and(|there| there == *bytes))
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
