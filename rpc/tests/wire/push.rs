//! Push streams: every meeting of a call and its requests, in either order, and what each side is told.

use std::io::Cursor;
use std::pin::Pin;
use std::time::Duration;

use rpc::push::{PushError, PushReader};
use rpc::push_sender::{Pushed, push, push_url};
use rpc::reader::PieceStream;
use rpc::{Job, PieceData, PushStreams, Transport, WorkerApi as _};
use sealtasks::{AddPieceInput, DataCidInput, PieceSource, TaskInput};
use tokio::io::AsyncReadExt as _;
use url::Url;
use uuid::Uuid;

use crate::fakes::{FakeWorker, WorkerHost, serve};
use crate::{framing, sample};

const ID: Uuid = Uuid::from_u128(0xabcd);
/// What the receiver waits where the test wants it to give up.
const SHORT: Duration = Duration::from_millis(50);
/// Longer than anything here takes; a test that waits for it has failed.
const BOUND: Duration = Duration::from_secs(20);

async fn endpoint(streams: &PushStreams) -> Url {
    let address = serve(streams.router()).await;
    format!("http://{address}/rpc/streams/v0/push/{ID}").parse().unwrap()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

fn stream(data: Vec<u8>) -> PieceStream {
    Box::pin(Cursor::new(data))
}

async fn read_all(mut reader: PushReader) -> Vec<u8> {
    let mut read = Vec::new();
    tokio::time::timeout(BOUND, reader.read_to_end(&mut read)).await.expect("in time").unwrap();
    read
}

#[tokio::test]
async fn the_bytes_come_whole_whoever_is_first() {
    let streams = PushStreams::new();
    let to = endpoint(&streams).await;
    // The requests first: the call finds them waiting.
    let sending = tokio::spawn({
        let to = to.clone();
        async move { push(&client(), to, stream(bytes(3 << 20))).await }
    });
    let reader = streams.claim(ID).await.unwrap();
    assert_eq!(read_all(reader).await, bytes(3 << 20));
    assert_eq!(sending.await.unwrap().unwrap(), Pushed::Sent);
    // The call first, and an empty piece.
    let streams = PushStreams::new();
    let to = endpoint(&streams).await;
    let claiming = tokio::spawn({
        let streams = streams.clone();
        async move { streams.claim(ID).await }
    });
    let sending = tokio::spawn(async move { push(&client(), to, stream(vec![])).await });
    let reader = claiming.await.unwrap().unwrap();
    assert!(read_all(reader).await.is_empty());
    assert_eq!(sending.await.unwrap().unwrap(), Pushed::Sent);
}

#[tokio::test]
async fn a_post_without_a_head_is_taken() {
    let streams = PushStreams::new();
    let to = endpoint(&streams).await;
    let sending = tokio::spawn(async move { client().post(to).body(bytes(10_000)).send().await });
    let reader = streams.claim(ID).await.unwrap();
    assert_eq!(read_all(reader).await, bytes(10_000));
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_reader_that_is_never_read_takes_no_bytes() {
    let streams = PushStreams::new();
    let to = endpoint(&streams).await;
    let untouched = Untouched;
    let sending = tokio::spawn({
        let to = to.clone();
        async move { push(&client(), to, Box::pin(untouched)).await }
    });
    drop(streams.claim(ID).await.unwrap());
    assert_eq!(sending.await.unwrap().unwrap(), Pushed::Unread);
    // Late requests are told the same at once.
    assert_eq!(client().head(to.clone()).send().await.unwrap().status(), 204);
    assert_eq!(client().post(to).body("x").send().await.unwrap().status(), 200);
    assert_eq!(streams.claim(ID).await.err(), Some(PushError::Claimed { id: ID }));
}

/// A source that must not be read.
struct Untouched;

impl tokio::io::AsyncRead for Untouched {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        panic!("nobody asked for these bytes")
    }
}

#[tokio::test]
async fn a_reader_that_stops_early_has_taken_what_it_wanted() {
    let streams = PushStreams::new();
    let to = endpoint(&streams).await;
    let sending = tokio::spawn(async move { client().post(to).body(bytes(1000)).send().await });
    let mut reader = streams.claim(ID).await.unwrap();
    let mut first = [0; 10];
    reader.read_exact(&mut first).await.unwrap();
    drop(reader);
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
    assert_eq!(first, bytes(10)[..]);
}

#[tokio::test]
async fn the_sender_follows_where_the_receiver_sends_it() {
    let (first, second) = (PushStreams::new(), PushStreams::new());
    let (to, onward) = (endpoint(&first).await, endpoint(&second).await);
    let sending = tokio::spawn(async move { push(&client(), to, stream(bytes(100_000))).await });
    first.claim(ID).await.unwrap().redirect(onward);
    let reader = second.claim(ID).await.unwrap();
    assert_eq!(read_all(reader).await, bytes(100_000));
    assert_eq!(sending.await.unwrap().unwrap(), Pushed::Sent);
}

#[tokio::test]
async fn a_sender_that_is_sent_in_circles_gives_up() {
    let circle = || async { (axum::http::StatusCode::FOUND, [("location", "/again")]) };
    let router = axum::Router::new().route("/again", axum::routing::head(circle));
    let to = format!("http://{}/again", serve(router).await).parse().unwrap();
    let error = push(&client(), to, stream(vec![])).await.unwrap_err().to_string();
    assert!(error.contains("in circles"), "{error}");
}

#[tokio::test]
async fn neither_side_waits_for_ever() {
    let streams = PushStreams::with_wait(SHORT);
    assert_eq!(streams.claim(ID).await.err(), Some(PushError::NoSender { id: ID, waited: SHORT }));
    let streams = PushStreams::with_wait(SHORT);
    let to = endpoint(&streams).await;
    assert_eq!(client().head(to.clone()).send().await.unwrap().status(), 500);
    assert_eq!(client().post(to.clone()).body("x").send().await.unwrap().status(), 500);
    // Asked for, answered, and then no bytes.
    let asking = tokio::spawn(async move { client().head(to).send().await });
    let mut reader = streams.claim(ID).await.unwrap();
    let error = reader.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_on_both_sides() {
    let streams = PushStreams::new();
    let to = endpoint(&streams).await;
    // Long enough to be under way when it breaks.
    let broken = Box::pin(Cursor::new(bytes(4 << 20)).chain(Breaking));
    let sending = tokio::spawn(async move { push(&client(), to, broken).await });
    let mut reader = streams.claim(ID).await.unwrap();
    let mut read = Vec::new();
    assert!(reader.read_to_end(&mut read).await.is_err());
    assert!(sending.await.unwrap().is_err());
}

struct Breaking;

impl tokio::io::AsyncRead for Breaking {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the disk is gone")))
    }
}

#[tokio::test]
async fn strange_requests_are_refused() {
    let streams = PushStreams::with_wait(SHORT);
    let address = serve(streams.router()).await;
    let base = format!("http://{address}/rpc/streams/v0/push/");
    assert_eq!(client().head(format!("{base}nonsense")).send().await.unwrap().status(), 400);
    assert_eq!(client().post(format!("{base}nonsense")).send().await.unwrap().status(), 400);
    assert_eq!(client().put(format!("{base}{ID}")).send().await.unwrap().status(), 405);
    assert_eq!(client().get(format!("{base}{ID}")).send().await.unwrap().status(), 405);
}

#[test]
fn the_push_endpoint_lies_beside_the_rpc_endpoint() {
    for (rpc, push) in [
        ("http://h:1/rpc/v0", "http://h:1/rpc/streams/v0/push/"),
        ("http://h:1/behind/rpc/v1/", "http://h:1/behind/rpc/streams/v0/push/"),
    ] {
        assert_eq!(push_url(&rpc.parse().unwrap(), ID).as_str(), format!("{push}{ID}"));
    }
}

fn add_piece(source: PieceSource) -> TaskInput {
    TaskInput::AddPiece(AddPieceInput { existing: vec![], size: sample::unpadded(127 << 10), source })
}

#[tokio::test]
async fn a_piece_s_bytes_travel_with_its_task() {
    for transport in [Transport::Http, Transport::Ws] {
        for attempt in [None, Some(sample::attempt())] {
            let host = WorkerHost::start(FakeWorker { knows_hello: true, ..FakeWorker::default() }).await;
            let client = host.client(transport);
            let (data, size) = (bytes(127 << 10), sample::unpadded(127 << 10));
            let data_cid = TaskInput::DataCid(DataCidInput { size, source: PieceSource::Stream });
            for work in [add_piece(PieceSource::Stream), data_cid] {
                let stream = PieceData::Stream(stream(data.clone()));
                let job = Job {
                    sector: sample::sector_ref(),
                    work: work.clone(),
                    attempt,
                    data: Some(stream),
                    gpus: Vec::new(),
                };
                client.start(job).await.unwrap();
                let started = host.take_started().remove(0);
                assert_eq!((started.work, started.attempt), (work, attempt));
                assert!(started.bytes.as_ref() == Some(&data));
            }
            let url = PieceData::Url("http://boost:8042/piece".into());
            let work = add_piece(PieceSource::Stream);
            let job = Job { sector: sample::sector_ref(), work, attempt, data: Some(url), gpus: Vec::new() };
            client.start(job).await.unwrap();
            assert_eq!(host.take_started().remove(0).url.as_deref(), Some("http://boost:8042/piece"));
            let zeros = Some(PieceData::Zeros);
            let job = Job {
                sector: sample::sector_ref(),
                work: add_piece(PieceSource::Stream),
                attempt,
                data: zeros,
                gpus: Vec::new(),
            };
            client.start(job).await.unwrap();
            assert_eq!(host.take_started().remove(0).work, add_piece(PieceSource::Zeros));
            let job = Job {
                sector: sample::sector_ref(),
                work: add_piece(PieceSource::Stream),
                attempt,
                data: None,
                gpus: Vec::new(),
            };
            assert_eq!(client.start(job).await.unwrap_err().code(), "RPC005");
        }
    }
}

#[tokio::test]
async fn a_worker_that_does_not_want_the_bytes_still_takes_the_task() {
    let host = WorkerHost::start(FakeWorker { closes_streams: true, ..FakeWorker::default() }).await;
    let data = Some(PieceData::Stream(Box::pin(Untouched)));
    let job = Job {
        sector: sample::sector_ref(),
        work: add_piece(PieceSource::Stream),
        attempt: None,
        data,
        gpus: Vec::new(),
    };
    host.client(Transport::Http).start(job).await.unwrap();
    assert_eq!(host.take_started().remove(0).bytes, None);
}

#[tokio::test]
async fn more_zeros_than_the_piece_has_are_refused() {
    let host = WorkerHost::start(FakeWorker::default()).await;
    let header = format!("Authorization: Bearer {}", host.manager.token(&[rpc::Permission::Admin]));
    for (info, fits) in [("2032", true), ("1", true), ("2033", false), ("-1", false), ("", false)] {
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"Filecoin.AddPiece","params":[
            {{"ID":{{"Miner":1000,"Number":1}},"ProofType":5}},null,2032,{{"Type":"null","Info":"{info}"}}]}}"#
        );
        let answer = framing::post(host.address, "/rpc/v0", &[&header], &request).await;
        assert_eq!(answer.json().get("result").is_some(), fits, "{info}: {answer:?}");
    }
}
