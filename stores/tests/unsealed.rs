//! What Lotus's TestReader and TestCheckIsUnsealed ask, asked here, and more. Lotus's cases and their outcomes; the first
//! thirteen are TestReader's, and but for those that read also TestCheckIsUnsealed's eleven:
//!
//! | case in Lotus | here |
//! |---|---|
//! | error while acquiring the file | the same: `an_index_that_does_not_answer_is_an_error` |
//! | error while opening the local file | the same: `a_damaged_file_here_is_an_error` |
//! | error while checking if the local file has the piece | cannot be: what is allocated is read when the file is opened |
//! | error while closing the local file | cannot be: a file that is only read is closed without a result |
//! | error while reading from the local file that has the piece | the same: `a_file_here_that_changes_before_it_is_read_is_an_error` |
//! | error while finding the sector | the same: `an_index_that_does_not_answer_is_an_error` |
//! | nobody holds the file: `ErrSectorNotFound` in Reader, false in CheckIsUnsealed | not found: `a_sector_that_nobody_holds_is_not_unsealed` |
//! | the local file lacks the piece, the holder answers 500: not found | an error: it may have it, and unsealing takes hours; found out by 416: not found; both in `what_holders_answer_decides` |
//! | no local file, the holder answers 500: not found | the same two |
//! | the holder has the piece, and answers 500 when it is read: no reader | an error: `a_holder_that_has_the_piece_and_does_not_give_it_is_an_error` |
//! | the local file has the piece: found, nobody else is asked | the same: `a_file_here_without_the_piece_leads_to_another_holder` |
//! | the local file lacks it, a holder has it: read from there | the same, there too |
//! | no local file, a holder has it: read from there | the same: `a_piece_is_read_from_any_offset_here_and_from_afar` |
//!
//! Lotus has no case for a first holder that fails while the next has the piece: `a_holder_that_fails_is_passed_over`.

#![allow(missing_docs, reason = "a test target")]

mod support;

use std::fs;
use std::ops::Range;
use std::path::Path;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use futures_util::TryStreamExt;
use pieces::{PieceData, PieceReader, add_piece};
use sealtasks::{FileTypes, SectorRef, StorageStanza, UnpaddedPieceSize};
use stores::{CopyKind, FetchOptions, Index as _, Remote, StoreError};
use support::through::Through;
use support::{Node, SIZE, World, both, id, info, room, sector};

const PIECE: u64 = 1016;

/// The first half of a sector, unsealed at `node` in `path`.
async fn put_piece(node: &Node, path: &str, sector: SectorRef) -> Vec<u8> {
    let raw: Vec<u8> = (0..PIECE).map(|at| (at * 7 + at / 251) as u8).collect();
    let file = node.dir.path().join(path).join("unsealed").join(sector.id.to_string());
    let size = UnpaddedPieceSize::try_from(PIECE).unwrap();
    add_piece(&file, SIZE, &[], size, PieceData::Stream(&mut &raw[..])).unwrap();
    node.local.redeclare(Some(&id(path)), false).await.unwrap();
    raw
}

/// Space for a sector at `node` in a new path, and nothing in it.
async fn put_nothing(node: &Node, path: &str, sector: SectorRef) {
    let file = node.path(path, both()).await.join("unsealed").join(sector.id.to_string());
    pieces::PartialFile::create(&file, SIZE).unwrap();
    node.local.redeclare(Some(&id(path)), false).await.unwrap();
}

/// All spans of a piece around the boundaries of its padding.
fn spans(end: u64) -> Vec<Range<u64>> {
    let edges = [0, 1, 126, 127, 128, 253, 254, 255, 508, end - 1, end];
    edges
        .iter()
        .flat_map(|from| edges.iter().map(move |to| *from..*to))
        .filter(|span| span.start <= span.end)
        .collect()
}

async fn read(
    node: &Node,
    sector: SectorRef,
    span: Range<u64>,
    part: Range<u64>,
) -> Result<Vec<u8>, StoreError> {
    let piece = node.remote.unsealed_piece(sector, span).await?.expect("unsealed");
    let stream = node.remote.read_unsealed(&piece, part).await?;
    let parts: Vec<_> = Box::pin(stream).try_collect().await?;
    Ok(parts.concat())
}

#[tokio::test]
async fn a_piece_is_read_from_any_offset_here_and_from_afar() {
    let world = World::new();
    let (holder, reader) = (world.node().await, world.node().await);
    holder.path("a", both()).await;
    let sector = sector(1);
    let raw = put_piece(&holder, "a", sector).await;
    for (node, remote) in [(&holder, false), (&reader, true)] {
        let piece = node.remote.unsealed_piece(sector, 0..PIECE).await.unwrap().expect("unsealed");
        assert_eq!((piece.is_remote(), piece.len()), (remote, PIECE));
        for span in spans(PIECE) {
            let got = read(node, sector, 0..PIECE, span.clone()).await.unwrap();
            assert!(got == raw[span.start as usize..span.end as usize], "{span:?}, remote: {remote}");
        }
        // Parts count from where the piece begins.
        assert_eq!(read(node, sector, 200..PIECE, 3..9).await.unwrap(), &raw[203..209]);
        assert!(node.remote.is_unsealed(sector, 100..PIECE).await.unwrap());
        assert!(!node.remote.is_unsealed(sector, 0..PIECE + 1).await.unwrap());
        assert!(!node.remote.is_unsealed(sector, PIECE..PIECE + 127).await.unwrap());
        let outside = node.remote.is_unsealed(sector, 0..2033).await;
        assert!(matches!(outside, Err(StoreError::OutsideSector { whole: 2032, .. })));
        let outside = node.remote.read_unsealed(&piece, 0..PIECE + 1).await.map(drop);
        assert!(matches!(outside, Err(StoreError::OutsideSector { whole: PIECE, .. })));
    }
}

#[tokio::test]
async fn a_sector_that_nobody_holds_is_not_unsealed() {
    let world = World::new();
    let node = world.node().await;
    assert!(!node.remote.is_unsealed(sector(1), 0..127).await.unwrap());
}

#[tokio::test]
async fn a_damaged_file_here_is_an_error() {
    let world = World::new();
    let node = world.node().await;
    let path = node.path("a", both()).await;
    put_piece(&node, "a", sector(1)).await;
    let file = path.join("unsealed").join(sector(1).id.to_string());
    fs::write(&file, [0; 100]).unwrap();
    let error = node.remote.is_unsealed(sector(1), 0..127).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_file_here_without_the_piece_leads_to_another_holder() {
    let world = World::new();
    let (holder, reader) = (world.node().await, world.node().await);
    holder.path("a", both()).await;
    put_nothing(&reader, "b", sector(1)).await;
    let raw = put_piece(&holder, "a", sector(1)).await;
    let piece = reader.remote.unsealed_piece(sector(1), 0..PIECE).await.unwrap().expect("unsealed");
    assert!(piece.is_remote());
    assert_eq!(read(&reader, sector(1), 0..PIECE, 0..PIECE).await.unwrap(), raw);
    // And the other way round: who has it asks nobody.
    assert!(!holder.remote.unsealed_piece(sector(1), 0..PIECE).await.unwrap().unwrap().is_remote());
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn what_holders_answer_decides() {
    let answers = [("200 OK", Some(true)), ("416 Range Not Satisfiable", Some(false)), ("500 Oh", None)];
    for ((status, found), lacks) in answers.into_iter().flat_map(|one| [(one, false), (one, true)]) {
        let world = World::new();
        let node = world.node().await;
        if lacks {
            put_nothing(&node, "b", sector(1)).await;
        }
        let peer = world.stranger("x", FileTypes::UNSEALED, sector(1), answer(status, "", b"")).await;
        // Between two boundaries: a Lotus is asked for whole chunks.
        let said = node.remote.is_unsealed(sector(1), 130..140).await;
        assert_eq!(said.as_ref().ok(), found.as_ref(), "{status}, a file here: {lacks}: {said:?}");
        assert!(
            found.is_some() || matches!(said, Err(StoreError::PeerAnswer { status: 500, .. })),
            "{said:?}"
        );
        assert_eq!(
            peer.asked(),
            [format!(
                "GET /remote/unsealed/s-t01000-1/{}/allocated/127/127 HTTP/1.1",
                sector(1).proof.number()
            )]
        );
    }
}

#[tokio::test]
async fn a_holder_that_fails_is_passed_over() {
    let world = World::new();
    let (holder, reader) = (world.node().await, world.node().await);
    // The broken one weighs more, and is asked first.
    holder.path("a", StorageStanza { weight: 5, ..both() }).await;
    put_piece(&holder, "a", sector(1)).await;
    let broken = answer("500 Oh", "", b"broken");
    let peer = world.stranger("x", FileTypes::UNSEALED, sector(1), broken).await;
    assert!(reader.remote.is_unsealed(sector(1), 0..PIECE).await.unwrap());
    assert_eq!(peer.asked().len(), 1);
}

#[tokio::test]
async fn an_index_that_does_not_answer_is_an_error() {
    for holds in [false, true] {
        let world = World::new();
        let deaf = Through::to(&world.index);
        let node = world.node_over(deaf.clone()).await;
        node.path("a", both()).await;
        if holds {
            put_piece(&node, "a", sector(1)).await;
        }
        assert_eq!(node.remote.is_unsealed(sector(1), 0..PIECE).await.unwrap(), holds);
        deaf.is_deaf();
        let said = node.remote.is_unsealed(sector(1), 0..PIECE).await;
        assert!(matches!(said, Err(StoreError::Index(_))), "while the file is looked for here: {said:?}");
        let found = node.remote.unsealed_piece(sector(1), 0..PIECE).await;
        assert!(matches!(found, Err(StoreError::Index(_))), "{found:?}");
        // Only the holders are asked of the deaf one.
        let node = world.node().await;
        let fetch = FetchOptions { token: "admin-token".to_owned(), parallel: 2 };
        let remote = Remote::new(node.local.clone(), deaf, fetch);
        let said = remote.is_unsealed(sector(1), 0..PIECE).await;
        assert!(matches!(said, Err(StoreError::Index(_))), "while holders are looked for: {said:?}");
    }
}

#[tokio::test]
async fn a_file_here_that_changes_before_it_is_read_is_an_error() {
    for cut in [true, false] {
        let world = World::new();
        let node = world.node().await;
        let file = node.path("a", both()).await.join("unsealed/s-t01000-1");
        put_piece(&node, "a", sector(1)).await;
        let piece = node.remote.unsealed_piece(sector(1), 0..PIECE).await.unwrap().expect("unsealed");
        assert!(!piece.is_remote());
        if cut {
            fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(300).unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        let stream = node.remote.read_unsealed(&piece, 0..PIECE).await.unwrap();
        let read: Result<Vec<_>, _> = Box::pin(stream).try_collect().await;
        assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
    }
}

/// A holder that says it has every piece, and gives none.
#[tokio::test]
async fn a_holder_that_has_the_piece_and_does_not_give_it_is_an_error() {
    let world = World::new();
    let node = world.node().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/remote", listener.local_addr().unwrap());
    let has = || async { StatusCode::OK };
    let gives = || async { (StatusCode::INTERNAL_SERVER_ERROR, "its disk is gone") };
    let routes = Router::new()
        .route("/remote/unsealed/{id}/{proof}/allocated/{offset}/{size}", get(has))
        .route("/remote/unsealed/{id}", get(gives));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    world.index.attach(info("x", &base, both()), room(0)).await.unwrap();
    world.index.declare(&id("x"), sector(1).id, FileTypes::UNSEALED, CopyKind::Primary).await.unwrap();
    let piece = node.remote.unsealed_piece(sector(1), 0..PIECE).await.unwrap().expect("it says so");
    let error = node.remote.read_unsealed(&piece, 0..PIECE).await.map(drop).unwrap_err();
    let told = matches!(&error, StoreError::PeerAnswer { status: 500, text, .. } if text.contains("its disk is gone"));
    assert!(told, "{error}");
}

/// A peer that says 200 to whatever it is asked, and then one that says 206 with these headers and bytes.
async fn read_from(reply: Vec<u8>) -> String {
    let world = World::new();
    let node = world.node().await;
    world.stranger("x", FileTypes::UNSEALED, sector(1), answer("200 OK", "", b"")).await;
    let piece = node.remote.unsealed_piece(sector(1), 0..PIECE).await.unwrap().expect("it says so");
    let error = node.remote.read_unsealed(&piece, 0..PIECE).await.map(drop).unwrap_err();
    assert!(
        matches!(error, StoreError::PeerAnswer { status: 200, .. }),
        "a whole file is not a part: {error}"
    );
    // The same question to a peer that answers with a part even when asked whether it has the piece.
    let world = World::new();
    let node = world.node().await;
    world.stranger("x", FileTypes::UNSEALED, sector(1), reply).await;
    node.remote.unsealed_piece(sector(1), 0..PIECE).await.unwrap_err().to_string()
}

#[tokio::test]
async fn answers_that_are_none_of_those_are_errors() {
    let text =
        read_from(answer("206 Partial Content", "Content-Range: bytes 0-9/2048\r\n", b"0123456789")).await;
    assert!(text.contains("206"), "{text}");
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_with_an_error() {
    let world = World::new();
    let (holder, reader) = (world.node().await, world.node().await);
    let path = holder.path("a", both()).await;
    put_piece(&holder, "a", sector(1)).await;
    let piece = reader.remote.unsealed_piece(sector(1), 0..PIECE).await.unwrap().expect("unsealed");
    // Cut after it was found: the holder can only send what is left.
    fs::OpenOptions::new().write(true).open(path.join("unsealed/s-t01000-1")).unwrap().set_len(300).unwrap();
    let stream = reader.remote.read_unsealed(&piece, 0..PIECE).await.unwrap();
    let read: Result<Vec<_>, _> = Box::pin(stream).try_collect().await;
    assert!(matches!(read, Err(StoreError::PeerAnswer { .. })), "{read:?}");
}

#[test]
fn the_local_reader_seeks() {
    use std::io::{Read, Seek, SeekFrom};
    let directory = tempfile::tempdir().unwrap();
    let file = Path::new(directory.path()).join("s-t01000-1");
    let raw: Vec<u8> = (0..PIECE).map(|at| (at * 3) as u8).collect();
    let size = UnpaddedPieceSize::try_from(PIECE).unwrap();
    add_piece(&file, SIZE, &[], size, PieceData::Stream(&mut &raw[..])).unwrap();
    let mut reader = PieceReader::open(&file, SIZE, 100, 800).unwrap();
    let mut four = [0; 4];
    for at in [0, 26, 27, 150, 400, 796] {
        reader.seek(SeekFrom::Start(at)).unwrap();
        reader.read_exact(&mut four).unwrap();
        assert_eq!(four, raw[100 + at as usize..104 + at as usize]);
    }
}
