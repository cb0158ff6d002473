//! Files that travel in blocks between two Sealyards, and what may happen to them on the way.

mod support;

use std::fs;

use sealtasks::{AcquireMode, FileType, FileTypes, PathType, StorageStanza};
use stores::{StoreError, TransferLimits, TransferMeter, TransferPhase};
use support::wire::{BLOCK, MIB, Scene, Weather, bytes};
use support::{ADMIN, World, ask, both, sector, tree};

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_comes_once_and_holes_stay_empty() {
    let scene = Scene::new().await;
    assert_eq!(scene.fetch(AcquireMode::Move).await.expect("moved"), scene.total());
    scene.expect_whole();
    assert!(tree(&scene.source.dir.path().join("a")).is_empty(), "the source is gone");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_fetched_again() {
    let scene = Scene::new().await;
    scene.front.is(Weather::FlipOnce(20 << 20));
    let came = scene.fetch(AcquireMode::Copy).await.expect("fetched");
    scene.expect_whole();
    assert!(came > scene.total() && came <= scene.total() + BLOCK, "{came} of {}", scene.total());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_does_not_end_leaves_nothing_and_deletes_nothing() {
    let scene = Scene::new().await;
    scene.front.is(Weather::FlipEvery(1 << 20));
    let error = scene.fetch(AcquireMode::Move).await.expect_err("never whole");
    let StoreError::FetchFailed { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.code(), "STO025", "{source}");
    assert_eq!(scene.left_behind(), Vec::<String>::new());
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["a*"]);
    assert!(scene.source_dir().join("p_aux").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_opened_again() {
    let scene = Scene::new().await;
    scene.front.is(Weather::CutOnce(30 << 20));
    let came = scene.fetch(AcquireMode::Copy).await.expect("fetched");
    scene.expect_whole();
    assert!(came <= scene.total() + BLOCK, "{came} of {}", scene.total());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_fetch_goes_on_where_it_was() {
    let scene = Scene::new().await;
    scene.front.is(Weather::Dead(50 << 20));
    scene.fetch(AcquireMode::Move).await.expect_err("the wire is dead");
    assert_eq!(scene.left_behind(), ["s-t01000-1.part"]);
    let streams = scene.target.remote.limits().streams as u64;
    let kept = (50 << 20) - streams * BLOCK;
    scene.front.is(Weather::Fair);
    let came = scene.fetch(AcquireMode::Move).await.expect("the rest comes");
    scene.expect_whole();
    assert!(came <= scene.total() - kept, "{came} of {}", scene.total());
    assert!(tree(&scene.source.dir.path().join("a")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_fetch_goes_on_in_its_path_even_if_another_would_be_chosen_now() {
    let scene = Scene::new().await;
    scene.front.is(Weather::Dead(50 << 20));
    scene.fetch(AcquireMode::Copy).await.expect_err("the wire is dead");
    scene.target.path("heavier", StorageStanza { weight: 1000, ..both() }).await;
    scene.front.is(Weather::Fair);
    let kept = (50 << 20) - scene.target.remote.limits().streams as u64 * BLOCK;
    let came = scene.fetch(AcquireMode::Copy).await.expect("the rest comes");
    assert!(came <= scene.total() - kept, "{came} of {}", scene.total());
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_meanwhile_is_fetched_anew() {
    let mut scene = Scene::new().await;
    scene.front.is(Weather::Dead(50 << 20));
    scene.fetch(AcquireMode::Copy).await.expect_err("the wire is dead");
    let other = bytes(40 * MIB, 77);
    fs::write(scene.source_dir().join("sc-02-data-layer-1.dat"), &other).expect("written anew");
    scene.files.insert("sc-02-data-layer-1.dat", other);
    scene.front.is(Weather::Fair);
    assert_eq!(scene.fetch(AcquireMode::Copy).await.expect("fetched"), scene.total(), "nothing old is used");
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_notes_and_data_of_an_earlier_fetch_do_no_harm() {
    let scene = Scene::new().await;
    scene.front.is(Weather::Dead(50 << 20));
    scene.fetch(AcquireMode::Copy).await.expect_err("the wire is dead");
    let part = scene.target.dir.path().join("b/cache/fetching/s-t01000-1.part");
    // As after a power cut: the journal says more than the disk holds.
    for name in ["sc-02-data-layer-1.dat", "sc-02-data-layer-2.dat"] {
        let file = fs::OpenOptions::new().write(true).open(part.join("data").join(name)).expect("there");
        file.set_len(0).expect("lost");
    }
    scene.front.is(Weather::Fair);
    scene.fetch(AcquireMode::Copy).await.expect("fetched");
    scene.expect_whole();
}

/// What was found to be lost when a fetch went on is brought again, also by a later life, whatever was synced in between.
#[tokio::test(flavor = "multi_thread")]
async fn no_later_mark_vouches_for_what_a_power_cut_took() {
    let scene = Scene::new().await;
    scene.front.is(Weather::Dead(50 << 20));
    scene.fetch(AcquireMode::Copy).await.expect_err("the wire is dead");
    let part = scene.target.dir.path().join("b/cache/fetching/s-t01000-1.part");
    for entry in fs::read_dir(part.join("data")).expect("the files").flatten() {
        let bytes = entry.metadata().expect("a file").len();
        fs::write(entry.path(), vec![0; usize::try_from(bytes).expect("small")]).expect("lost");
    }
    scene.front.is(Weather::Dead(1 << 20));
    scene.fetch(AcquireMode::Copy).await.expect_err("the wire is dead again");
    let mut journal = fs::read(part.join("journal")).expect("its journal");
    // A mark, as it follows 256 MiB: what it is, how many records it is about, nothing for a hash, and a check.
    let mut mark = [0; 48];
    mark[..4].copy_from_slice(&2_u32.to_le_bytes());
    let records = u32::try_from(journal.len() / mark.len()).expect("a few");
    assert!(records > 0);
    mark[4..8].copy_from_slice(&records.to_le_bytes());
    let check = *blake3::hash(&mark[..40]).as_bytes();
    mark[40..].copy_from_slice(&check[..8]);
    journal.extend(mark);
    fs::write(part.join("journal"), journal).expect("marked");
    scene.front.is(Weather::Fair);
    scene.fetch(AcquireMode::Copy).await.expect("fetched");
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_whose_deletion_was_lost_is_finished_by_the_next_wish() {
    let scene = Scene::new().await;
    scene.front.is(Weather::NoDeletion);
    scene.fetch(AcquireMode::Move).await.expect("moved all the same");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"], "the source does not count");
    assert!(scene.source_dir().join("p_aux").exists());
    // The source's process starts again and declares what it has.
    scene.source.local.redeclare(None, false).await.expect("declared");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"], "it is the older one");
    scene.front.is(Weather::Fair);
    assert_eq!(scene.fetch(AcquireMode::Move).await.expect("finished"), 0, "not a byte is sent again");
    assert_eq!(scene.world.holders(sector(1), FileType::Cache).await, ["b*"]);
    assert!(!scene.source_dir().exists());
    scene.expect_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_can_be_watched_slowed_and_dropped() {
    let scene = Scene::new().await;
    let remote = &scene.target.remote;
    let slow = TransferLimits { bandwidth: Some(4 << 20), ..remote.limits() };
    assert_eq!(remote.set_limits(slow), slow);
    {
        let mut fetching = std::pin::pin!(scene.fetch(AcquireMode::Copy));
        let view = loop {
            tokio::select! {
                done = &mut fetching => panic!("{done:?} after a moment at 4 MiB/s"),
                () = tokio::task::yield_now() => {}
            }
            if let [view] = &remote.transfers()[..]
                && view.phase == TransferPhase::Receiving
                && view.bytes_done > 0
            {
                break view.clone();
            }
        };
        assert_eq!(
            (view.sector, view.kind, view.bytes_total),
            (sector(1).id, FileType::Cache, scene.total())
        );
        assert!(view.url.starts_with("http://") && view.bytes_done < scene.total());
    }
    remote.set_limits(TransferLimits { bandwidth: None, ..slow });
    // The dropped one's threads may hold the place for a moment yet.
    while let Err(error) = scene.fetch(AcquireMode::Copy).await {
        assert_eq!(error.code(), "STO023");
    }
    scene.expect_whole();
    assert!(remote.transfers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_do_not_exist_are_refused() {
    let scene = Scene::new().await;
    let url = format!("{}/cache/s-t01000-1", scene.source.base);
    let list = ask("GET", &url, &[ADMIN, ("x-sealyard-blocks", "1")]).await;
    assert_eq!(list.1["content-type"], "application/vnd.sealyard.content+json");
    let text = String::from_utf8(list.2.to_vec()).expect("JSON");
    let etag = text.split("\"etag\":\"").nth(1).and_then(|rest| rest.get(..64)).expect("an etag");
    let status = |spans: String| {
        let url = url.clone();
        async move { ask("GET", &url, &[ADMIN, ("x-sealyard-spans", &*spans)]).await.0.as_u16() }
    };
    assert_eq!(status(format!("{etag};p_aux:0:64")).await, 200);
    for past in ["p_aux:0:65", "p_aux:4096:1", "../p_aux:0:1", "t_aux:1:5", "x", ""] {
        assert_eq!(status(format!("{etag};{past}")).await, 416, "{past}");
    }
    assert_eq!(status(format!("{};p_aux:0:64", "0".repeat(64))).await, 412);
    assert_eq!(status("nonsense".to_owned()).await, 500);
}

/// It announces what a Sealyard would, and then sends something else.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_length_than_asked_for_is_refused() {
    let world = World::new();
    let node = world.node().await;
    node.path("b", both()).await;
    let list = format!("{{\"version\":1,\"etag\":\"{}\",\"files\":[[\"\",2048]]}}", "a".repeat(64));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.sealyard.content+json\r\nContent-Length: ";
    let answer = format!("{head}{}\r\nConnection: close\r\n\r\n{list}", list.len()).into_bytes();
    let stranger = world.stranger("x", FileTypes::SEALED, sector(1), answer).await;
    let meter = TransferMeter::default();
    let (types, none) = (FileTypes::SEALED, FileTypes::NONE);
    let wish =
        node.remote.acquire(sector(1), types, none, PathType::Sealing, AcquireMode::Move, &meter).await;
    let StoreError::FetchFailed { source, .. } = wish.expect_err("a liar") else { panic!("another error") };
    assert!(source.to_string().contains("in place of a block of 2048"), "{source}");
    assert_eq!(tree(node.dir.path()), Vec::<String>::new());
    assert!(stranger.asked().iter().all(|line| line.starts_with("GET")), "nothing was deleted");
}
