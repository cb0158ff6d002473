//! URLs of storage paths that do not answer: listed at once, set aside after two hours, back when they answer.

mod support;

use std::sync::atomic::Ordering;

use sealtasks::{FileType, FileTypes, SectorId};
use stores::{CopyKind, Index, MemIndex, SnapshotRead, URL_DEAD_MS, read_snapshot, write_snapshot};
use support::{World, both, clock, id, info, room, sector};

const SECTOR: SectorId = SectorId::new(1000, 1);

fn bases(index: &MemIndex) -> Vec<String> {
    let found = index.search(SECTOR, FileTypes::SEALED, None);
    found.into_iter().flat_map(|one| one.base_urls).collect()
}

/// Path a at both its URLs.
async fn attach_both(index: &MemIndex) {
    for url in ["http://one/remote", "http://two/remote"] {
        index.attach(info("a", url, both()), room(1)).await.expect("attached");
    }
}

#[tokio::test]
async fn two_hours_of_failures_set_a_url_aside_and_an_answer_brings_it_back() {
    let (now, clock) = clock();
    let index = MemIndex::new(clock);
    attach_both(&index).await;
    index.declare(&id("a"), SECTOR, FileTypes::SEALED, CopyKind::Primary).await.expect("declared");
    let fail = || index.url_asked(&id("a"), "http://one/remote", Some("refused".to_owned()));
    fail();
    now.fetch_add(URL_DEAD_MS - 1, Ordering::SeqCst);
    fail();
    assert_eq!(bases(&index), ["http://one/remote", "http://two/remote"], "not yet two hours");
    now.fetch_add(1, Ordering::SeqCst);
    assert_eq!(bases(&index).len(), 2, "a failure that nobody saw does not count");
    fail();
    assert_eq!(bases(&index), ["http://two/remote"]);
    let troubles = index.url_troubles();
    assert_eq!((troubles.len(), troubles[0].set_aside), (1, true));
    assert_eq!((troubles[0].since_ms, troubles[0].why.as_str()), (1_000_000, "refused"));
    assert_eq!(index.info(&id("a")).await.expect("known").urls.len(), 2, "it still belongs to the path");

    index.url_asked(&id("a"), "http://one/remote", None);
    assert_eq!(bases(&index).len(), 2);
    assert!(index.url_troubles().is_empty());

    fail();
    now.fetch_add(URL_DEAD_MS, Ordering::SeqCst);
    fail();
    assert_eq!(bases(&index).len(), 1);
    index.attach(info("a", "http://one/remote", both()), room(1)).await.expect("attached");
    assert_eq!(bases(&index).len(), 2, "who attaches at a URL serves there");
}

#[tokio::test]
async fn the_two_hours_of_a_url_go_on_over_a_restart() {
    let (now, clock) = clock();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("index.snapshot");
    let fail = |index: &MemIndex| index.url_asked(&id("a"), "http://one/remote", Some("refused".to_owned()));
    let next = |index: &MemIndex| {
        write_snapshot(index, &file).expect("written");
        let next = MemIndex::new(clock.clone());
        assert!(matches!(read_snapshot(&next, &file), Ok(SnapshotRead::Restored { paths: 1, .. })));
        next
    };
    let index = MemIndex::new(clock.clone());
    attach_both(&index).await;
    index.declare(&id("a"), SECTOR, FileTypes::SEALED, CopyKind::Primary).await.expect("declared");
    let generation = index.content_generation();
    fail(&index);
    assert!(index.content_generation() > generation, "worth a snapshot");
    now.fetch_add(URL_DEAD_MS - 1, Ordering::SeqCst);
    fail(&index);
    assert_eq!(index.content_generation(), generation + 1, "nothing new");

    let index = next(&index);
    assert_eq!((bases(&index).len(), index.url_troubles()[0].since_ms), (2, 1_000_000));
    now.fetch_add(1, Ordering::SeqCst);
    fail(&index);
    assert_eq!(bases(&index), ["http://two/remote"]);
    let index = next(&index);
    assert_eq!(bases(&index), ["http://two/remote"], "it is set aside from the beginning");

    // All are attached anew now, whoever answers.
    attach_both(&index).await;
    assert_eq!(bases(&index).len(), 2, "it counts until it is asked");
    fail(&index);
    assert_eq!(bases(&index), ["http://two/remote"], "its two hours were over");
    index.url_asked(&id("a"), "http://one/remote", None);
    assert!(next(&index).url_troubles().is_empty());
}

#[tokio::test]
async fn every_url_of_other_machines_is_asked() {
    let world = World::new();
    let (asking, serving) = (world.node().await, world.node().await);
    asking.path("own", both()).await;
    serving.path("theirs", both()).await;
    serving.put("theirs", sector(1), FileType::Sealed).await;
    let nobody = "http://127.0.0.1:1/remote";
    world.index.attach(info("theirs", nobody, both()), room(1)).await.expect("attached");
    world.index.attach(info("elsewhere", &serving.base, both()), room(1)).await.expect("attached");
    asking.remote.ask_urls(&world.index).await;
    let troubles = world.index.url_troubles();
    let failed: Vec<_> = troubles.iter().map(|one| (one.id.as_str(), one.url.as_str())).collect();
    assert_eq!(failed, [("elsewhere", serving.base.as_str()), ("theirs", nobody)], "{troubles:?}");
}
