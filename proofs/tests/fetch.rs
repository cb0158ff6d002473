//! Parameters by HTTP from gateways that behave well, badly, and worse.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::get;
use futures_util::StreamExt;
use proofs::params::{FetchError, FetchEvent, FetchOptions, ParamFile, digest_file, fetch};

/// How the gateway treats requests.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Serves ranges.
    Good,
    /// Serves ranges and hangs up in the middle of each answer.
    HangsUp,
    /// Hangs up in the middle of the first answer, and always sends the whole file.
    IgnoresRange,
    /// Sends other bytes.
    WrongBytes,
    /// Has nothing.
    Empty,
    /// Is always overloaded.
    Busy,
    /// Sends more than it should, without a length.
    Endless,
}

struct Gateway {
    content: Vec<u8>,
    manner: Manner,
    requests: AtomicUsize,
    ranges: Mutex<Vec<Option<String>>>,
}

async fn answer(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    let count = gateway.requests.fetch_add(1, Ordering::SeqCst);
    let range = headers.get("range").and_then(|value| value.to_str().ok()).map(str::to_owned);
    gateway.ranges.lock().expect("no panic").push(range.clone());
    let start = range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        .filter(|_| gateway.manner != Manner::IgnoresRange)
        .unwrap_or(0);
    let whole = gateway.content.clone();
    let plain = |status| Response::builder().status(status).body(Body::empty()).expect("a response");
    match gateway.manner {
        Manner::Empty => return plain(StatusCode::NOT_FOUND),
        Manner::Busy => return plain(StatusCode::SERVICE_UNAVAILABLE),
        Manner::WrongBytes => return Response::new(Body::from(vec![7; whole.len()])),
        Manner::Endless => {
            let block = bytes::Bytes::from(vec![0; whole.len()]);
            let blocks = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(block.clone()));
            return Response::new(Body::from_stream(blocks));
        }
        Manner::Good | Manner::HangsUp | Manner::IgnoresRange => {}
    }
    if start >= whole.len() {
        return plain(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    let rest = whole[start..].to_vec();
    let length = rest.len();
    let hang_up = gateway.manner == Manner::HangsUp || (gateway.manner == Manner::IgnoresRange && count == 0);
    let body = if hang_up && length > 1000 {
        let part = bytes::Bytes::copy_from_slice(&rest[..length / 2]);
        // The server flushes what it has when the next part is not there at once.
        let hanging_up = async {
            tokio::task::yield_now().await;
            Err(std::io::Error::other("hung up"))
        };
        Body::from_stream(
            futures_util::stream::iter([Ok(part)]).chain(futures_util::stream::once(hanging_up)),
        )
    } else {
        Body::from(rest)
    };
    let mut response = Response::builder().header("content-length", length);
    if start > 0 {
        let range = format!("bytes {start}-{}/{}", whole.len() - 1, whole.len());
        response = response.status(StatusCode::PARTIAL_CONTENT).header("content-range", range);
    }
    response.body(body).expect("a response")
}

struct World {
    directory: tempfile::TempDir,
    gateway: Arc<Gateway>,
    address: SocketAddr,
    file: ParamFile,
}

impl World {
    async fn new(manner: Manner) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let content: Vec<u8> = (0..300_000u32).map(|i| (i * 31 + i / 251) as u8).collect();
        let sample = directory.path().join("sample");
        std::fs::write(&sample, &content).expect("written");
        let digest = digest_file(&sample).expect("readable");
        let file = ParamFile {
            name: "v28-a.params".into(),
            digest,
            cid: "Qm1".into(),
            bytes: Some(content.len() as u64),
        };
        let (requests, ranges) = (AtomicUsize::new(0), Mutex::default());
        let gateway = Arc::new(Gateway { content, manner, requests, ranges });
        let router = Router::new().route("/ipfs/Qm1", get(answer)).with_state(gateway.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { directory, gateway, address, file }
    }

    fn target(&self) -> std::path::PathBuf {
        self.directory.path().join("parameters")
    }

    fn final_path(&self) -> std::path::PathBuf {
        self.target().join(&self.file.name)
    }

    fn part_path(&self) -> std::path::PathBuf {
        self.target().join(format!("{}.part", self.file.name))
    }

    async fn fetch(&self) -> (Result<(), FetchError>, Vec<FetchEvent>) {
        let options = FetchOptions {
            directory: self.target(),
            gateway: proofs::params::fetch::parse_gateway(&format!("http://{}/ipfs", self.address))
                .expect("a URL"),
            parallel: 2,
            attempts: 3,
            pause: Duration::from_millis(1),
            silence: Duration::from_secs(20),
        };
        let events = Mutex::new(Vec::new());
        let note = |progress: proofs::params::FetchProgress<'_>| {
            events.lock().expect("no panic").push(progress.event);
        };
        let outcome = fetch(std::slice::from_ref(&self.file), &options, &note).await;
        (outcome, events.into_inner().expect("no panic"))
    }

    fn assert_in_place(&self) {
        assert_eq!(std::fs::read(self.final_path()).expect("there"), self.gateway.content);
        assert!(!self.part_path().exists());
    }

    fn requests(&self) -> usize {
        self.gateway.requests.load(Ordering::SeqCst)
    }
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, content).expect("written");
}

#[tokio::test]
async fn a_file_arrives_and_is_not_fetched_again() {
    let world = World::new(Manner::Good).await;
    let (outcome, events) = world.fetch().await;
    outcome.expect("fetched");
    world.assert_in_place();
    let total = world.gateway.content.len() as u64;
    assert!(events.contains(&FetchEvent::Bytes { have: total, total: Some(total) }));
    assert_eq!(events.last(), Some(&FetchEvent::Done));
    world.fetch().await.0.expect("there already");
    assert_eq!(world.requests(), 1);
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let world = World::new(Manner::HangsUp).await;
    let (outcome, events) = world.fetch().await;
    outcome.expect("fetched in parts");
    world.assert_in_place();
    assert!(events.iter().any(|event| matches!(event, FetchEvent::Retrying { .. })));
    let ranges = world.gateway.ranges.lock().expect("no panic").clone();
    assert_eq!(ranges[0], None);
    assert!(ranges.len() > 3 && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
}

#[tokio::test]
async fn what_an_earlier_run_left_is_used() {
    let world = World::new(Manner::Good).await;
    write(&world.part_path(), &world.gateway.content[..1234]);
    world.fetch().await.0.expect("fetched");
    world.assert_in_place();
    assert_eq!(*world.gateway.ranges.lock().expect("no panic"), [Some("bytes=1234-".to_owned())]);
}

#[tokio::test]
async fn a_complete_part_needs_no_byte_more() {
    let world = World::new(Manner::Good).await;
    write(&world.part_path(), &world.gateway.content);
    world.fetch().await.0.expect("checked and renamed");
    world.assert_in_place();
}

#[tokio::test]
async fn a_spoilt_part_is_fetched_anew() {
    let world = World::new(Manner::Good).await;
    write(&world.part_path(), &[9; 5000]);
    world.fetch().await.0.expect("fetched twice");
    world.assert_in_place();
    assert_eq!(world.requests(), 2);
}

#[tokio::test]
async fn a_gateway_that_ignores_ranges_is_served_from_the_start() {
    let world = World::new(Manner::IgnoresRange).await;
    world.fetch().await.0.expect("fetched");
    world.assert_in_place();
    assert_eq!(world.requests(), 2);
}

#[tokio::test]
async fn wrong_bytes_are_removed_and_named() {
    let world = World::new(Manner::WrongBytes).await;
    let (outcome, _) = world.fetch().await;
    assert!(
        matches!(&outcome, Err(FetchError::WrongDigest { name, .. }) if *name == world.file.name),
        "{outcome:?}"
    );
    assert!(!world.final_path().exists() && !world.part_path().exists());
}

#[tokio::test]
async fn a_file_of_another_origin_is_left_alone() {
    let world = World::new(Manner::Good).await;
    write(&world.final_path(), b"made elsewhere");
    let (outcome, _) = world.fetch().await;
    assert!(matches!(outcome, Err(FetchError::Occupied { .. })), "{outcome:?}");
    assert_eq!(std::fs::read(world.final_path()).expect("there"), b"made elsewhere");
    assert_eq!(world.requests(), 0);
}

#[tokio::test]
async fn a_gateway_without_the_file_is_asked_once_a_busy_one_a_bounded_number_of_times() {
    let empty = World::new(Manner::Empty).await;
    let (outcome, _) = empty.fetch().await;
    assert!(matches!(outcome, Err(FetchError::Refused { .. })), "{outcome:?}");
    assert_eq!(empty.requests(), 1);

    let busy = World::new(Manner::Busy).await;
    let (outcome, _) = busy.fetch().await;
    assert!(matches!(outcome, Err(FetchError::Unreachable { attempts: 3, .. })), "{outcome:?}");
    assert_eq!(busy.requests(), 3);
}

#[tokio::test]
async fn an_endless_answer_is_stopped() {
    let world = World::new(Manner::Endless).await;
    let (outcome, _) = world.fetch().await;
    assert!(matches!(outcome, Err(FetchError::TooLong { .. })), "{outcome:?}");
    assert!(!world.final_path().exists());
}

#[tokio::test]
async fn two_at_once_share_one_download() {
    let world = World::new(Manner::Good).await;
    let ((first, _), (second, _)) = tokio::join!(world.fetch(), world.fetch());
    first.expect("fetched");
    second.expect("taken over");
    world.assert_in_place();
    assert_eq!(world.requests(), 1);
}

#[test]
fn a_gateway_is_an_http_url() {
    let parse = proofs::params::fetch::parse_gateway;
    assert_eq!(parse("http://localhost:8080/ipfs").expect("a URL").as_str(), "http://localhost:8080/ipfs/");
    assert!(matches!(parse("ftp://a/"), Err(FetchError::Gateway { .. })));
    assert!(matches!(parse("nonsense"), Err(FetchError::Gateway { .. })));
}
