//! The end of a move: exactly the file that was copied is deleted at its source, now or when the source is back.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealtasks::{AcquireMode, FileType, PathOrder};
use stores::{CopyKind, Index, TransferMeter};
use support::wire::{Scene, Weather};
use support::{ADMIN, ask, both, id, sector, storing, tree};

/// A move whose deletion was lost.
async fn owing() -> Scene {
    let scene = Scene::new().await;
    scene.front.is(Weather::NoDeletion);
    scene.fetch(AcquireMode::Move).await.expect("moved all the same");
    assert_eq!(scene.left_behind(), ["s-t01000-1.part"], "what is owed is noted");
    scene.front.is(Weather::Fair);
    scene
}

fn survey_is_empty(findings: &[sealtasks::PathSurvey]) -> bool {
    findings.iter().all(|survey| survey.error.is_none() && survey.findings.is_empty())
}

fn age(note: &Path, seconds: u64) {
    let old = std::time::SystemTime::now() - Duration::from_secs(seconds);
    for entry in fs::read_dir(note).expect("a note").flatten().map(|entry| entry.path()) {
        fs::File::options().write(true).open(entry).and_then(|file| file.set_modified(old)).expect("aged");
    }
}

fn note(scene: &Scene) -> PathBuf {
    scene.target.dir.path().join("b/cache/fetching/s-t01000-1.part")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_deletion_is_asked_for_again() {
    let scene = owing().await;
    // Two days later: no scan takes the note for the remains of a fetch.
    age(&note(&scene), 48 * 3600);
    assert!(survey_is_empty(&scene.target.local.survey().await));
    assert_eq!(scene.target.local.tidy().await, 0);
    scene.front.is(Weather::NoDeletion);
    let remote = &scene.target.remote;
    assert_eq!(remote.settle_debts(Duration::from_secs(3600)).await, (0, 0), "it is no young one");
    let told = scene.world.index.content_generation();
    assert_eq!(remote.settle_debts(Duration::MAX).await, (0, 1), "the source is still away");
    assert_eq!(scene.world.index.content_generation(), told, "that it counts no longer was told by the move");
    scene.front.is(Weather::Fair);
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(!scene.source_dir().exists(), "deleted, although its path no longer listed it");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"]);
    scene.expect_whole();
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_declares_its_copy_again_is_still_deleted() {
    let scene = owing().await;
    scene.source.local.redeclare(None, false).await.expect("declared");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"], "it is the older one");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(!scene.source_dir().exists());
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_at_the_source_since_then_stays() {
    let scene = owing().await;
    let file = scene.source_dir().join("p_aux");
    let same = fs::read(&file).expect("there");
    fs::write(&file, &same).expect("of the same length");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0), "nothing is owed any more");
    assert_eq!(fs::read(&file).expect("it stayed"), same);
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_for_once_the_copy_here_is_gone_or_does_not_count_or_a_week_has_passed() {
    let scene = owing().await;
    scene.world.index.drop_files(&id("b"), sector(1).id, FileType::Cache.into()).await.expect("dropped");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (0, 1));
    fs::remove_dir_all(scene.target.dir.path().join("b/cache/s-t01000-1")).expect("gone");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(scene.source_dir().join("p_aux").exists() && scene.left_behind().is_empty());

    let scene = owing().await;
    age(&note(&scene), 8 * 24 * 3600);
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(scene.source_dir().join("p_aux").exists() && scene.left_behind().is_empty());
}

/// As its index would be that has forgotten which of the two is the older one.
async fn owing_beside_a_second_primary() -> Scene {
    let scene = owing().await;
    let index = &scene.world.index;
    index.drop_files(&id("a"), sector(1).id, FileType::Cache.into()).await.expect("forgotten");
    index.declare(&id("a"), sector(1).id, FileType::Cache.into(), CopyKind::Primary).await.expect("declared");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["a*", "b*"]);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_while_the_source_counts_as_well() {
    // Neither because the copy here has changed, nor after a week.
    let scene = owing_beside_a_second_primary().await;
    age(&note(&scene), 8 * 24 * 3600);
    scene.front.is(Weather::NoDeletion);
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (0, 1), "its source is away");
    scene.front.is(Weather::Fair);
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(!scene.source_dir().exists());
    scene.expect_whole();

    // What lacks something by now makes up for no other copy.
    for by_a_task in [false, true] {
        let scene = owing_beside_a_second_primary().await;
        fs::remove_file(scene.copy().join("sc-02-data-layer-1.dat")).expect("trimmed");
        if by_a_task {
            assert_eq!(scene.fetch(AcquireMode::Copy).await.expect("it is here"), 0);
        } else {
            assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (0, 1));
        }
        assert_eq!(scene.left_behind(), ["s-t01000-1.part"], "by a task: {by_a_task}");
        assert!(scene.source_dir().join("sc-02-data-layer-1.dat").exists());
    }

    // Nor does what was written at the source since then, of which nobody knows which of the two it is.
    for by_a_task in [false, true] {
        let scene = owing_beside_a_second_primary().await;
        let file = scene.source_dir().join("p_aux");
        fs::write(&file, fs::read(&file).expect("there")).expect("of the same length");
        if by_a_task {
            assert_eq!(scene.fetch(AcquireMode::Copy).await.expect("it is here"), 0);
        } else {
            assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (0, 1));
        }
        assert_eq!(scene.left_behind(), ["s-t01000-1.part"], "by a task: {by_a_task}");
        assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["a*", "b*"]);
        scene.world.index.drop_files(&id("a"), sector(1).id, FileType::Cache.into()).await.expect("dropped");
        assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0), "it counts no longer");
        assert!(file.exists() && scene.left_behind().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_being_looked_at_once_more_is_not_gone() {
    let scene = owing().await;
    let aside = scene.source.dir.path().join("a/cache/fetching");
    fs::create_dir_all(&aside).expect("made");
    let aside = aside.join("s-t01000-1.doubted-6b3c1b5e-8c1a-4a51-9a70-6f6e1f0f5d11");
    fs::rename(scene.source_dir(), &aside).expect("set aside");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (0, 1), "nobody has decided yet");
    fs::rename(&aside, scene.source_dir()).expect("put back");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(!scene.source_dir().exists());
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_move_to_where_the_file_is_already_ends_an_earlier_one() {
    let scene = owing().await;
    scene.source.local.redeclare(None, false).await.expect("declared");
    let meter = TransferMeter::default();
    let moved = scene.target.remote.bring_into(sector(1), FileType::Cache, &id("b"), &meter).await;
    moved.expect("it is there");
    assert!(!scene.source_dir().exists() && meter.bytes() == 0);
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_goes_along_when_the_copy_goes_on_to_another_path_of_its_host() {
    let scene = owing().await;
    scene.source.local.redeclare(None, false).await.expect("declared");
    scene.target.path("stored", storing()).await;
    scene.front.is(Weather::NoDeletion);
    let meter = TransferMeter::default();
    let remote = &scene.target.remote;
    let moved = remote.bring_into(sector(1), FileType::Cache, &id("stored"), &meter).await;
    moved.expect("from one path to the other");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["stored*"]);
    // The source is away still, and then back.
    remote.settle_debts(Duration::MAX).await;
    assert!(scene.source_dir().exists() && scene.left_behind().is_empty());
    scene.front.is(Weather::Fair);
    assert_eq!(remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(!scene.source_dir().exists(), "deleted");
    assert_eq!(remote.settle_debts(Duration::MAX).await, (0, 0));
}

/// As after a new manager's start: its index learns from scans again who has what. Both paths only seal.
async fn scanned_anew(scene: &Scene) -> Vec<String> {
    let (a, b) = (scene.source.dir.path().join("a"), scene.target.dir.path().join("b"));
    for dir in [a, b] {
        let meta = dir.join("sectorstore.json");
        let text = fs::read_to_string(&meta).expect("there");
        fs::write(&meta, text.replace("\"CanStore\": true", "\"CanStore\": false")).expect("written");
    }
    let cache = FileType::Cache.into();
    scene.world.index.drop_files(&id("b"), sector(1).id, cache).await.expect("forgotten");
    scene.target.local.redeclare(None, false).await.expect("declared");
    scene.source.local.redeclare(None, false).await.expect("declared");
    scene.world.holders(sector(1), FileType::Cache).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_only_seals_says_that_what_was_moved_there_counts() {
    let scene = owing().await;
    assert_eq!(scanned_anew(&scene).await, ["b*"], "the source is older");
    assert_eq!(scene.target.remote.settle_debts(Duration::MAX).await, (1, 0));
    assert!(!scene.source_dir().exists(), "deleted");
    scene.expect_whole();
    assert_eq!(scanned_anew(&scene).await, ["b"], "nothing says more than the path does");

    let scene = owing().await;
    fs::remove_file(scene.copy().join("sc-02-data-layer-1.dat")).expect("trimmed since");
    assert_eq!(scanned_anew(&scene).await, ["b*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_anew_elsewhere_on_the_host_owes_nothing_for_a_copy_that_was_set_aside() {
    let scene = owing().await;
    let other = scene.target.path("other", storing()).await.join("cache/s-t01000-1");
    let remote = &scene.target.remote;
    let types = FileType::Cache.into();
    let order = PathOrder::SetAside { sector: sector(1).id, types, path: id("b") };
    remote.carry_out(order).await.expect("set aside");
    fs::create_dir_all(&other).expect("made");
    for name in scene.files.keys() {
        fs::copy(scene.source_dir().join(name), other.join(name)).expect("made anew");
    }
    scene.target.local.redeclare(Some(&id("other")), false).await.expect("declared");
    remote.settle_debts(Duration::MAX).await;
    scene.source.local.redeclare(None, false).await.expect("back");
    remote.settle_debts(Duration::MAX).await;
    assert!(scene.source_dir().exists(), "it may be the only good one");
    assert!(!scene.left_behind().iter().any(|name| name.ends_with(".part")), "nothing is noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_at_the_source_is_not_meant() {
    let scene = Scene::new().await;
    let other = scene.source.path("other", both()).await.join("cache/s-t01000-1");
    fs::create_dir_all(&other).expect("made");
    for name in scene.files.keys() {
        fs::copy(scene.source_dir().join(name), other.join(name)).expect("copied");
    }
    scene.source.local.redeclare(Some(&id("other")), false).await.expect("declared");
    scene.fetch(AcquireMode::Move).await.expect("moved");
    let left = [scene.source_dir(), other].into_iter().filter(|dir| dir.join("p_aux").exists()).count();
    assert_eq!(left, 1, "the one that was copied is gone, the other one stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_says_which_file_keeps_the_last_copy_and_refuses_nonsense() {
    let scene = Scene::new().await;
    let url = format!("{}/cache/s-t01000-1", scene.source.base);
    let list = ask("GET", &url, &[ADMIN, ("x-sealyard-blocks", "1")]).await;
    let text = String::from_utf8(list.2.to_vec()).expect("JSON");
    let etag = text.split("\"etag\":\"").nth(1).and_then(|rest| rest.get(..64)).expect("an etag").to_owned();
    let delete =
        async |etag: &str| ask("DELETE", &url, &[ADMIN, ("x-sealyard-exactly", etag)]).await.0.as_u16();
    assert_eq!(delete(&etag).await, 500, "no other copy is known");
    assert_eq!(delete(&"0".repeat(64)).await, 412, "another file");
    assert_eq!(delete("nonsense").await, 500);
    assert!(tree(&scene.source.dir.path().join("a")).iter().any(|file| file.ends_with("p_aux")));
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["a*"]);
}
