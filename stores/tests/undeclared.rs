//! What a fetch had put in its place when its process ended, before or after anyone was told of it.

mod support;

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sealtasks::{AcquireMode, FetchVerb, FileType};
use stores::{FetchOptions, Index, PeerTokens, Remote, TokenUse};
use support::wire::{MIB, Scene, Weather};
use support::{id, sector};

const CACHE: FileType = FileType::Cache;

/// A move whose source could not be deleted, after which the source declares its copy again.
async fn owing() -> Scene {
    let scene = Scene::new().await;
    scene.front.is(Weather::NoDeletion);
    scene.fetch(AcquireMode::Move).await.expect("moved all the same");
    scene.front.is(Weather::Fair);
    scene.source.local.redeclare(None, false).await.expect("declared");
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"], "it is the older one");
    scene
}

/// The same before anyone was told that it was moved.
async fn untold() -> Scene {
    let scene = Scene::untold().await;
    scene.source.local.redeclare(None, false).await.expect("declared");
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn no_scan_declares_what_nobody_was_told_of_and_the_next_fetch_goes_on_with_it() {
    let scene = untold().await;
    let diff = scene.target.local.redeclare_diff(None).await.expect("a diff");
    assert!(diff.iter().all(|(_, diff)| diff.is_empty()), "{diff:?}");
    scene.target.local.redeclare(None, false).await.expect("declared");
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["a*"], "its source still stands for it");
    let resent = scene.fetch(AcquireMode::Move).await.expect("moved");
    // It was cut off after 64 MiB: three connections may each have been in the middle of a block, and one was noted.
    assert!(resent <= scene.total() - (16 << 20), "{resent} bytes of {} were sent again", scene.total());
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
    assert!(!scene.source_dir().exists());
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_was_told_of_gives_way_to_what_its_source_has_become() {
    let scene = untold().await;
    let (name, newer) = ("t_aux", vec![0x5A; 300]);
    fs::write(scene.source_dir().join(name), &newer).expect("of the same length");
    scene.fetch(AcquireMode::Move).await.expect("moved");
    assert_eq!(fs::read(scene.copy().join(name)).expect("there"), newer);
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
    assert!(!scene.source_dir().exists() && scene.left_behind().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_was_told_of_stays_while_its_source_is_away_and_stands_for_it_when_that_is_gone() {
    let scene = untold().await;
    scene.front.is(Weather::Dead(0));
    scene.fetch(AcquireMode::Move).await.expect_err("away");
    let layer = "sc-02-data-layer-2.dat";
    assert_eq!(fs::read(scene.copy().join(layer)).expect("kept"), scene.files[layer]);
    scene.front.is(Weather::Fair);
    scene.fetch(AcquireMode::Move).await.expect("moved");
    scene.expect_whole();

    let scene = untold().await;
    scene.front.is(Weather::Dead(0));
    scene.fetch(AcquireMode::Move).await.expect_err("away");
    scene.world.index.drop_files(&id("a"), sector(1).id, CACHE.into()).await.expect("its disk has died");
    scene.target.local.redeclare(None, false).await.expect("declared");
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
    assert_eq!(scene.fetch(AcquireMode::Copy).await.expect("it is here"), 0);
    for (name, bytes) in &scene.files {
        assert!(fs::read(scene.copy().join(name)).expect("there") == *bytes, "{name} differs");
    }
}

/// A file of one block, and one of a Lotus, comes without a plan: it is brought anew.
async fn untold_without_plan() -> Scene {
    let scene = untold().await;
    ["plan.json", "journal"]
        .iter()
        .for_each(|name| fs::remove_file(scene.notes().join(name)).expect("noted"));
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_was_told_of_is_no_copy_beside_its_source_while_it_is_brought_anew() {
    let scene = untold_without_plan().await;
    scene.front.is(Weather::CutOnce(32 * MIB as u64));
    scene.fetch(AcquireMode::Move).await.expect("at the second try of a block");
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
    assert!(!scene.source_dir().exists());
    scene.expect_whole();

    // The second fetch ends, too: by a failure, or with its process.
    for is_killed in [false, true] {
        let scene = untold_without_plan().await;
        if is_killed {
            scene.front.is(Weather::Still(32 * MIB as u64));
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            let begun = async {
                while !scene.notes().join("plan.json").exists() {
                    ticks.tick().await;
                }
            };
            tokio::select! {
                ended = scene.fetch(AcquireMode::Move) => panic!("it stands still: {ended:?}"),
                () = begun => {}
            }
        } else {
            scene.front.is(Weather::Dead(32 * MIB as u64));
            scene.fetch(AcquireMode::Move).await.expect_err("cut off");
        }
        scene.target.local.redeclare(None, false).await.expect("declared");
        assert_eq!(scene.world.holders(sector(1), CACHE).await, ["a*"], "killed: {is_killed}");
        scene.front.is(Weather::Fair);
        scene.fetch(AcquireMode::Move).await.expect("moved");
        assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"], "killed: {is_killed}");
        assert!(!scene.source_dir().exists(), "killed: {is_killed}");
        for (name, bytes) in &scene.files {
            assert!(fs::read(scene.copy().join(name)).expect("there") == *bytes, "{name} differs");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_whole_is_never_taken_for_a_remainder() {
    let scene = untold().await;
    // As a process leaves it that is killed while it asks the source.
    fs::rename(scene.copy(), scene.notes().join("data")).expect("taken back");
    let old = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
    for dir in [scene.notes(), scene.notes().join("data")] {
        for entry in fs::read_dir(&dir).expect("a directory").flatten().map(|entry| entry.path()).chain([dir])
        {
            fs::File::open(entry).and_then(|file| file.set_modified(old)).expect("aged");
        }
    }
    assert_eq!(scene.target.local.tidy().await, 0);
    let findings = scene.target.local.survey().await.remove(0).findings;
    assert!(findings.len() == 1 && !findings[0].offered, "{findings:?}");
    scene.fetch(AcquireMode::Move).await.expect("moved");
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_finds_its_file_here_ends_the_move_that_brought_it() {
    let scene = owing().await;
    assert_eq!(scene.fetch(AcquireMode::Copy).await.expect("it is here"), 0);
    assert!(!scene.source_dir().exists());
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
    scene.expect_whole();

    let scene = owing().await;
    scene.front.is(Weather::NoDeletion);
    assert_eq!(scene.fetch(AcquireMode::Copy).await.expect("the source may be away"), 0);
    assert!(scene.source_dir().exists());
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"], "it no longer counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_a_task_has_added_to_still_ends_its_move() {
    let scene = owing().await;
    fs::write(scene.copy().join("sc-02-data-tree-c-0.dat"), "made by PreCommit2").expect("added");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(!scene.source_dir().exists());
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["b*"]);
}

/// Lets files be fetched, and no source be deleted.
struct NoDeletions;

#[async_trait]
impl PeerTokens for NoDeletions {
    async fn token(&self, wanted: TokenUse<'_>) -> Result<String, Box<dyn Error + Send + Sync>> {
        match wanted.verb {
            FetchVerb::Delete => Err("the task is another worker's by now".into()),
            _ => Ok("admin-token".to_owned()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_ask_for_a_deletion_takes_nobodys_copy_out_of_the_index() {
    let mut scene = Scene::new().await;
    let options = FetchOptions { token: String::new(), parallel: 1 };
    let index: Arc<dyn Index> = scene.world.index.clone();
    let remote = Remote::new(scene.target.local.clone(), index, options);
    scene.target.remote = remote.with_tokens(Arc::new(NoDeletions));
    scene.fetch(AcquireMode::Move).await.expect("fetched");
    assert_eq!(scene.world.holders(sector(1), CACHE).await, ["a*", "b*"]);
    assert!(scene.source_dir().exists());
}
