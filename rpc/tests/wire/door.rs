//! Strangers at the door: those who are slow, many, long-winded or confused. Each meets a bound and is told which, where
//! it can be told; nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use rpc::server::{Bounds, HEAD_SIZE_MAX, STRANGER_SIZE_MAX};
use rpc::{Permission, PushStreams};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::certs::{Authority, NOW};
use crate::fakes::ManagerHost;
use crate::framing::{Answer, post, raw};

/// Longer than anything here takes; a test that waits for it has failed.
const BOUND: Duration = Duration::from_secs(60);
/// Between two bytes of a slow peer, which is as much slower than the bounds below as a minute is than the usual ones.
const PACE: Duration = Duration::from_millis(30);

fn short() -> Bounds {
    Bounds {
        connections: 8,
        from_one_address: 5,
        handshake: Duration::from_millis(150),
        head: Duration::from_millis(300),
        body: Duration::from_millis(150),
        body_rate: 1 << 20,
        stall: Duration::from_millis(300),
    }
}

async fn guarded(router: axum::Router, tls: Option<rpc::Identity>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(rpc::server::serve(listener, router, tls, short()));
    address
}

/// Sends `text` at once, then one `x` after another until the server has had enough. What it said.
async fn trickle(address: SocketAddr, text: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(text.as_bytes()).await.expect("taken");
    let mut said = Vec::new();
    let mut part = [0; 4096];
    let all = async {
        loop {
            match timeout(PACE, socket.read(&mut part)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(read)) => said.extend(&part[..read]),
                Err(_) if socket.write_all(b"x").await.is_err() => break,
                Err(_) => {}
            }
        }
    };
    timeout(BOUND, all).await.expect("a slow peer is given up");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_peer_that_sends_a_byte_now_and_then_is_given_up_on_every_endpoint() {
    let host = ManagerHost::start().await;
    let streams = PushStreams::with_wait(Duration::from_millis(100));
    let files =
        axum::Router::new().route("/remote/{*path}", axum::routing::any(|body: String| async { body }));
    let router = host.router().merge(files).merge(axum::Router::new().nest("/own", streams.router()));
    let address = guarded(router, None).await;
    let token = host.token(&Permission::ALL);
    // Not even a first byte, half a head, and a head without end.
    trickle(address, "").await;
    for path in ["/rpc/v0", "/rpc/v1", "/rpc/streams/v0/push/1", "/remote/sealed/s-t01000-1", "/nowhere"] {
        for method in ["GET", "POST", "HEAD", "DELETE"] {
            trickle(address, &format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Slow: ")).await;
        }
    }
    // A whole head, and a body of which nothing more comes.
    let id = uuid::Uuid::nil();
    for path in ["/rpc/v0", &format!("/own/rpc/streams/v0/push/{id}"), "/remote/sealed/s-t01000-1"] {
        for more in ["", &format!("Authorization: Bearer {token}\r\n")] {
            let begun = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{more}Content-Length: 100000\r\n\r\n{{");
            trickle(address, &begun).await;
            let chunked =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\n{more}Transfer-Encoding: chunked\r\n\r\n");
            trickle(address, &format!("{chunked}1\r\n{{\r\nFFFF\r\n")).await;
        }
    }
    assert!(host.fake.calls.take().is_empty());
    assert_eq!(post(address, "/rpc/v0", &[], VERSION).await.status, 200, "others are served");
}

const VERSION: &str = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.Version","params":[]}"#;
const UPGRADE: &str = "GET /rpc/v0 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_websocket_whose_frame_never_ends_is_closed() {
    let host = ManagerHost::start().await;
    // A text frame of 100,000 masked bytes, of which one comes now and then: it answers no ping.
    let mut frame = UPGRADE.as_bytes().to_vec();
    frame.extend([0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0x86, 0xA0, 1, 2, 3, 4]);
    let mut socket = TcpStream::connect(host.address).await.expect("it listens");
    socket.write_all(&frame).await.expect("taken");
    let mut part = [0; 4096];
    let all = async {
        loop {
            match timeout(Duration::from_secs(1), socket.read(&mut part)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => {}
                Err(_) if socket.write_all(b"x").await.is_err() => break,
                Err(_) => {}
            }
        }
    };
    timeout(BOUND, all).await.expect("30 s without a sign of life are enough");
}

#[tokio::test]
async fn a_websocket_frame_or_message_that_is_too_long_ends_the_connection() {
    let host = ManagerHost::start().await;
    let token = host.token(&Permission::ALL);
    let with_token = UPGRADE.replacen("Host: a", &format!("Host: a\r\nAuthorization: Bearer {token}"), 1);
    let mine = u64::from(STRANGER_SIZE_MAX) + 1;
    for (upgrade, length) in
        [(UPGRADE, mine), (UPGRADE, 1 << 62), (&with_token, 1 << 40), (&with_token, u64::MAX)]
    {
        let mut socket = TcpStream::connect(host.address).await.expect("it listens");
        let mut sent = upgrade.as_bytes().to_vec();
        sent.extend([0x81, 0xFF]);
        sent.extend(length.to_be_bytes());
        sent.extend([1, 2, 3, 4, 5]);
        socket.write_all(&sent).await.expect("taken");
        let mut said = Vec::new();
        let ended = timeout(BOUND, socket.read_to_end(&mut said)).await.expect("it is closed");
        assert!(ended.is_ok() || !said.is_empty(), "{length}");
        assert!(said.starts_with(b"HTTP/1.1 101"), "{length}: {}", String::from_utf8_lossy(&said));
    }
}

/// A socket that is still open after the server has said nothing on it.
async fn connected(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

#[tokio::test]
async fn too_many_connections_of_one_peer_are_turned_away_and_leave_room_again() {
    let host = ManagerHost::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let patient = Bounds { head: BOUND, ..short() };
    tokio::spawn(rpc::server::serve(listener, host.router(), None, patient));
    let mut open = Vec::new();
    for _ in 0..patient.from_one_address {
        open.push(connected(address).await);
    }
    let mut said = String::new();
    let mut sixth = connected(address).await;
    timeout(BOUND, sixth.read_to_string(&mut said)).await.expect("at once").expect("text");
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("RPC010: too many connections"), "{said}");
    drop(open);
    let again = async {
        // The server notices closed connections one after another.
        while raw_or_nothing(address).await.is_none_or(|answer| answer.status != 200) {}
    };
    timeout(BOUND, again).await.expect("room again");
}

async fn raw_or_nothing(address: SocketAddr) -> Option<Answer> {
    let mut socket = connected(address).await;
    let length = VERSION.len();
    let request = format!(
        "POST /rpc/v0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{VERSION}"
    );
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: answer })
}

#[tokio::test]
async fn handshakes_that_do_not_come_about_cost_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let pair = Authority::new(dir.path()).issue("here", "IP:127.0.0.1", NOW);
    let identity = rpc::Identity::load(&pair.certificate, &pair.key, "127.0.0.1").expect("a pair");
    let host = ManagerHost::start().await;
    let address = guarded(host.router(), Some(identity)).await;
    trickle(address, "").await;
    // The head of a record that is then said to be 16 KiB long.
    trickle(address, "\u{16}\u{3}\u{1}\u{40}\u{0}").await;
    let said = trickle(address, "POST /rpc/v0 HTTP/1.1\r\n").await;
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("TLS10"), "{said}");
}

/// The answer's status, 0 for none, however the server then hangs up.
async fn status(address: SocketAddr, request: &str) -> u16 {
    let mut socket = connected(address).await;
    let mut said = Vec::new();
    let ask = async {
        // It may refuse before it has read everything.
        let _ = socket.write_all(request.as_bytes()).await;
        let _ = socket.read_to_end(&mut said).await;
    };
    timeout(BOUND, ask).await.expect("in time");
    String::from_utf8_lossy(&said).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let host = ManagerHost::start().await;
    let long = "a".repeat(2 * HEAD_SIZE_MAX);
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    for head in [format!("X-Long: {long}\r\n"), many, format!("Authorization: Bearer {long}\r\n")] {
        let request = format!("GET /rpc/v0 HTTP/1.1\r\nHost: a\r\n{head}\r\n");
        assert_eq!(status(host.address, &request).await, 431);
    }
    let request = format!("GET /rpc/v0?token={long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(matches!(status(host.address, &request).await, 414 | 431));
    for twice in
        ["Content-Length: 1\r\nContent-Length: 2\r\n", "Content-Length: -1\r\n", "X y\r\n", "X\0: y\r\n"]
    {
        let request = format!("POST /rpc/v0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{twice}\r\nxx");
        assert_eq!(status(host.address, &request).await, 400, "{twice:?}");
    }
}

#[tokio::test]
async fn bodies_that_are_too_long_or_packed_are_refused_and_deep_ones_do_no_harm() {
    let host = ManagerHost::start().await;
    let bearer = format!("Authorization: Bearer {}", host.token(&Permission::ALL));
    let admin: [&str; 1] = [&bearer];
    // Said and not sent: refused before it is read, with a token only beyond its own bound.
    let said = |more: &str, length: u64| {
        format!(
            "POST /rpc/v0 HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let over = u64::from(STRANGER_SIZE_MAX) + 1;
    assert_eq!(raw(host.address, &said("", over)).await.status, 413);
    let beyond = u64::from(rpc::server::BODY_SIZE_MAX) + 1;
    assert_eq!(raw(host.address, &said(&format!("{bearer}\r\n"), beyond)).await.status, 413);
    let padded = |size: usize| VERSION.replacen("[]", &format!("[{}]", " ".repeat(size)), 1);
    let size = STRANGER_SIZE_MAX as usize;
    assert_eq!(post(host.address, "/rpc/v0", &admin, &padded(size)).await.status, 200, "known callers may");
    assert_eq!(host.fake.calls.take().len(), 1);

    let deep = |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    for params in [deep(10_000, ""), deep(10_000, "1"), format!("[{objects}]"), objects.clone()] {
        for method in
            ["Filecoin.Version", "Filecoin.StorageAttach", "Sealyard.WorkerState", "Filecoin.ReturnFetch"]
        {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            let answer = post(host.address, "/rpc/v0", &admin, &text).await;
            assert!(
                answer.body.len() < 2000,
                "an error does not repeat what it refuses: {}",
                answer.body.len()
            );
            assert!(answer.json()["error"].is_object(), "{method}: {}", answer.body);
        }
    }
    for text in [deep(10_000, ""), deep(10_000, VERSION), objects, format!("[{}]", deep(9_999, VERSION))] {
        let answer = post(host.address, "/rpc/v0", &admin, &text).await;
        assert!(answer.body.len() < 2000 && answer.body.contains("error"), "{}", answer.body);
    }
    let batch = format!("[{}]", vec![VERSION; 1001].join(","));
    let answer = post(host.address, "/rpc/v0", &admin, &batch).await;
    assert!(answer.json()["error"].is_object(), "at most 1000 calls in a batch: {}", answer.body);
    // Nothing is unpacked: a bomb stays as small as it came.
    let packed = [bearer.as_str(), "Content-Encoding: gzip"];
    let answer = post(host.address, "/rpc/v0", &packed, "\u{1f}not for us").await;
    assert!(answer.body.contains("error"), "{}", answer.body);
    assert!(host.fake.calls.take().is_empty());
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let endless = axum::Router::new().route(
        "/",
        axum::routing::get(|| async {
            let (tell, gone) = tokio::sync::oneshot::channel::<()>();
            WATCH.lock().await.push(gone);
            let chunk = axum::body::Bytes::from(vec![0; 1 << 20]);
            let parts = futures_util::stream::unfold((tell, chunk), |(tell, chunk)| async move {
                Some((Ok::<_, std::convert::Infallible>(chunk.clone()), (tell, chunk)))
            });
            axum::body::Body::from_stream(parts)
        }),
    );
    static WATCH: tokio::sync::Mutex<Vec<tokio::sync::oneshot::Receiver<()>>> =
        tokio::sync::Mutex::const_new(Vec::new());
    let address = guarded(endless, None).await;
    let mut socket = connected(address).await;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("taken");
    socket.readable().await.expect("it answers");
    let gone = WATCH.lock().await.pop().expect("one answer");
    timeout(BOUND, gone).await.expect("the sender is let go").expect_err("dropped, never told");
}
