//! A Lotus moves a file and asks its source to delete it: obeyed once the other copy was shown to be whole, otherwise kept
//! and listed.

mod support;

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method as Verb, StatusCode as Status, header};
use axum::response::IntoResponse;
use sealtasks::{FileType, Matter};
use stores::{CopyKind, Index, KeptFile};
use support::{ADMIN, Node, World, ask, both, id, sector};
use tokio::net::TcpListener;

/// A Lotus that says it holds the file: it answers ranges of plain files with this length, and refuses every HEAD.
async fn lotus(world: &World, kind: FileType, length: u64) {
    lotus_that_sends(world, kind, length, None).await;
}

/// The same, which sends this tar stream of a directory.
async fn lotus_that_sends(world: &World, kind: FileType, length: u64, tar: Option<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
    let answer = move |request: Request| {
        let tar = tar.clone();
        async move {
            match (request.method(), tar) {
                (&Verb::GET, _) if request.headers().contains_key(header::RANGE) => {
                    let range = [(header::CONTENT_RANGE, format!("bytes 0-0/{length}"))];
                    (Status::PARTIAL_CONTENT, range, "x").into_response()
                }
                (&Verb::GET, Some(tar)) => tar.into_response(),
                _ => Status::METHOD_NOT_ALLOWED.into_response(),
            }
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    world
        .index
        .attach(support::info("lotus", &base, both()), support::room(1 << 20))
        .await
        .expect("attached");
    let types = kind.into();
    world.index.declare(&id("lotus"), sector(1).id, types, CopyKind::Primary).await.expect("declared");
}

/// The DELETE that a Lotus sends after a move.
async fn delete(node: &Node, kind: FileType) -> u16 {
    let url = format!("{}/{kind}/s-t01000-1?keep=lotus", node.base);
    ask("DELETE", &url, &[ADMIN]).await.0.as_u16()
}

fn listed(node: &Node) -> Vec<(String, FileType, String)> {
    let kept = node.local.kept_files().into_iter();
    kept.map(|KeptFile { path, kind, why, .. }| (path.to_string(), kind, why)).collect()
}

#[tokio::test]
async fn a_directory_that_was_sent_whole_goes_and_one_that_was_not_stays_and_is_listed() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let file = node.put("a", sector(1), FileType::Cache).await;
    lotus(&world, FileType::Cache, 0).await;
    assert_eq!(delete(&node, FileType::Cache).await, 500);
    assert!(file.exists());
    let [(path, kind, why)] = &listed(&node)[..] else { panic!("{:?}", listed(&node)) };
    assert_eq!((path.as_str(), *kind), ("a", FileType::Cache));
    assert!(why.contains("path lotus cannot be told"), "{why}");
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["a*", "lotus*"]);

    let url = format!("{}/cache/s-t01000-1", node.base);
    assert_eq!(ask("GET", &url, &[ADMIN]).await.0.as_u16(), 200);
    // What was sent is no longer what lies here, in length or only in time.
    for length in [63, 64] {
        std::fs::write(file.join("p_aux"), vec![1; length]).expect("changed");
        assert_eq!(delete(&node, FileType::Cache).await, 500);
        assert!(file.exists());
    }
    assert_eq!(ask("GET", &url, &[ADMIN]).await.0.as_u16(), 200);
    assert_eq!(delete(&node, FileType::Cache).await, 200);
    assert!(!file.exists() && listed(&node).is_empty());
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["lotus*"]);
}

/// A restart between a peer's fetch and its DELETE forgets neither what was sent nor what was kept.
#[tokio::test]
async fn what_was_kept_and_what_was_sent_survive_a_restart() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let cache = node.put("a", sector(1), FileType::Cache).await;
    lotus(&world, FileType::Cache, 0).await;
    assert_eq!(delete(&node, FileType::Cache).await, 500);
    let before = node.local.kept_files();

    let node = world.restarted(node).await;
    assert_eq!((node.local.kept_files(), before.len()), (before, 1));
    let found = node.local.survey().await.remove(0).findings;
    let [kept] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((&kept.entry, kept.matter, kept.offered), (&cache, Matter::KeptFromDeletion, false));
    assert!(kept.reason.contains("path lotus cannot be told"), "{kept:#?}");
    let cleaned = node.local.clean_up(std::slice::from_ref(&cache), &[]).await;
    assert!(cleaned[0].kept.is_some() && cache.exists(), "{cleaned:#?}");

    let url = format!("{}/cache/s-t01000-1", node.base);
    assert_eq!(ask("GET", &url, &[ADMIN]).await.0.as_u16(), 200);
    let node = world.restarted(node).await;
    assert_eq!(delete(&node, FileType::Cache).await, 200);
    assert!(!cache.exists());
    let node = world.restarted(node).await;
    assert!(listed(&node).is_empty() && node.local.survey().await[0].findings.is_empty());
}

#[tokio::test]
async fn a_file_goes_when_the_other_copy_is_as_long_and_stays_when_it_is_not() {
    for (length, goes) in [(2048, true), (2047, false)] {
        let world = World::new();
        let node = world.node().await;
        node.path("a", both()).await;
        let file = node.put("a", sector(1), FileType::Sealed).await;
        // Nobody else is known to have it.
        assert_eq!(delete(&node, FileType::Sealed).await, 500);
        assert_eq!(listed(&node)[0].2, "no other primary copy is known");
        lotus(&world, FileType::Sealed, length).await;
        assert_eq!(delete(&node, FileType::Sealed).await, if goes { 200 } else { 500 });
        assert_eq!((file.exists(), listed(&node).is_empty()), (!goes, goes));
        if !goes {
            assert!(listed(&node)[0].2.contains("differs in names or lengths"), "{:?}", listed(&node));
        }
    }
}

/// A stream as Lotus ends it: without the last member's padding, and without end blocks.
fn tar_of(files: &BTreeMap<&'static str, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.resize(out.len().div_ceil(512) * 512, 0);
        let mut header = tar::Header::new_ustar();
        header.set_path(name).expect("a short name");
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(bytes);
    }
    out
}

#[tokio::test]
async fn a_directory_that_a_lotus_can_be_seen_to_hold_goes_and_stays_when_it_lacks_a_byte() {
    let whole = support::cache_files();
    let without = |name: &str| {
        let mut files = whole.clone();
        files.remove(name);
        tar_of(&files)
    };
    let mut longer = whole.clone();
    longer.get_mut("t_aux").expect("a file").push(2);
    let mut cut = tar_of(&whole);
    cut.pop();
    let none = "path lotus cannot be told";
    let cases = [
        (Some(tar_of(&whole)), None),
        (Some(cut), Some("it ends 1 bytes before the end of")),
        (Some(without("p_aux")), Some("differs in names or lengths")),
        (Some(without("t_aux")), Some("differs in names or lengths")),
        (Some(tar_of(&longer)), Some("differs in names or lengths")),
        (Some(Vec::new()), Some("differs in names or lengths")),
        (Some(b"no tar".to_vec()), Some("ends within a header")),
        (None, Some(none)),
    ];
    for (tar, kept) in cases {
        let world = World::new();
        let node = world.node().await;
        node.path("a", both()).await;
        let file = node.put("a", sector(1), FileType::Cache).await;
        lotus_that_sends(&world, FileType::Cache, 0, tar).await;
        assert_eq!(delete(&node, FileType::Cache).await, if kept.is_none() { 200 } else { 500 }, "{kept:?}");
        assert_eq!(file.exists(), kept.is_some(), "{kept:?}");
        if let Some(why) = kept {
            assert!(listed(&node)[0].2.contains(why), "{why}: {:?}", listed(&node));
        }
    }
}
