//! The cases of Lotus's `http_handler_test.go`, restated over a real socket and real files, each with its outcome.
//!
//! Lotus mocks its store; here the state that leads to a case is made on disk. The cases of `remote_test.go` are
//! TestMoveShared (`transfer.rs`, `a_move_into_a_shared_path_keeps_the_shared_copy`), TestReader and TestCheckIsUnsealed
//! (`unsealed.rs`). One case cannot be made: "determining partial file allocation returns an error". What is allocated is read
//! when the file is opened; a file of another size than the one asked about stands in its place.

mod support;

use std::fs;

use pieces::PartialFile;
use sealtasks::FileType;
use support::through::Through;
use support::{ADMIN, Node, World, ask, both, content, sector};

/// A node that knows an allocated unsealed file of sector 1, a damaged one of sector 2, and one of sector 3 that is gone.
async fn node() -> Node {
    let node = World::new().node().await;
    let path = node.path("a", both()).await;
    for number in [1, 2, 3] {
        node.put("a", sector(number), FileType::Unsealed).await;
    }
    node.put("a", sector(1), FileType::Sealed).await;
    node.put("a", sector(1), FileType::Cache).await;
    let file = |number: u64| path.join(format!("unsealed/s-t01000-{number}"));
    fs::remove_file(file(1)).expect("removed");
    let mut partial = PartialFile::create(&file(1), support::SIZE).expect("made");
    partial.mark_allocated(0, 1024).expect("marked");
    drop(partial);
    fs::write(file(2), "no partial file").expect("written");
    fs::remove_file(file(3)).expect("removed");
    node
}

#[tokio::test]
async fn remote_get_allocated() {
    let node = node().await;
    for (case, path, expected) in [
        ("fails when sector name is invalid", "unsealed/invalid/5/allocated/100/500", 500),
        ("fails when file type is invalid", "invalid/s-t01000-1/5/allocated/100/500", 500),
        ("fails when sector proof type is invalid", "unsealed/s-t01000-1/invalid/allocated/100/500", 500),
        ("fails when offset is invalid", "unsealed/s-t01000-1/5/allocated/invalid/500", 500),
        ("fails when size is invalid", "unsealed/s-t01000-1/5/allocated/100/invalid", 500),
        ("fails when the file is gone", "unsealed/s-t01000-3/5/allocated/100/500", 500),
        ("fails when the file is not found locally", "unsealed/s-t01000-9/5/allocated/100/500", 500),
        ("fails when opening the partial file errors", "unsealed/s-t01000-2/5/allocated/100/500", 500),
        ("fails when the sector has another size", "unsealed/s-t01000-1/8/allocated/100/500", 500),
        ("416 when the piece is not allocated", "unsealed/s-t01000-1/5/allocated/100/1000", 416),
        ("ok when the piece is allocated", "unsealed/s-t01000-1/5/allocated/100/500", 200),
    ] {
        let (status, ..) = ask("GET", &format!("{}/{path}", node.base), &[ADMIN]).await;
        assert_eq!(status.as_u16(), expected, "{case}");
    }
}

/// "Fails when errors out during acquiring" of both: the store cannot say where the file is.
#[tokio::test]
async fn acquiring_fails() {
    let world = World::new();
    let deaf = Through::to(&world.index);
    let node = world.node_over(deaf.clone()).await;
    let path = node.path("a", both()).await;
    let file = path.join("unsealed/s-t01000-1");
    let mut partial = PartialFile::create(&file, support::SIZE).expect("made");
    partial.mark_allocated(0, 1024).expect("marked");
    node.local.redeclare(None, false).await.expect("declared");
    for expected in [200, 500] {
        for asked in ["unsealed/s-t01000-1/5/allocated/100/500", "unsealed/s-t01000-1"] {
            let (status, ..) = ask("GET", &format!("{}/{asked}", node.base), &[ADMIN]).await;
            assert_eq!(status.as_u16(), expected, "{asked}");
        }
        deaf.is_deaf();
    }
}

#[tokio::test]
async fn remote_get_sector() {
    let node = node().await;
    for (case, path) in [
        ("fails when sector name is invalid", "unsealed/invalid"),
        ("fails when file type is invalid", "invalid/s-t01000-1"),
        ("fails when no such file can be acquired", "piece/s-t01000-1"),
        ("fails when the acquired path is empty", "unsealed/s-t01000-9"),
        ("fails when the acquired file does not exist", "unsealed/s-t01000-3"),
    ] {
        let (status, headers, body) = ask("GET", &format!("{}/{path}", node.base), &[ADMIN]).await;
        assert_eq!((status.as_u16(), body.len(), headers.get("content-type")), (500, 0, None), "{case}");
    }
    let (status, headers, body) = ask("GET", &format!("{}/sealed/s-t01000-1", node.base), &[ADMIN]).await;
    assert_eq!(
        (status.as_u16(), &headers["content-type"]),
        (200, &"application/octet-stream".parse().expect("text"))
    );
    assert_eq!(body, content(sector(1), FileType::Sealed), "successfully read a sector file");
    let (status, headers, body) = ask("GET", &format!("{}/cache/s-t01000-1", node.base), &[ADMIN]).await;
    assert_eq!(
        (status.as_u16(), &headers["content-type"]),
        (200, &"application/x-tar".parse().expect("text"))
    );
    assert!(body.starts_with(b"p_aux\0"), "successfully read a sector dir");
}
