//! Requests as large as Lotus's server takes, and websocket messages in pieces of four kibibytes, as Go's library sends
//! them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rpc::Permission;
use sealtasks::{C1Output, Commit2Input, TaskInput};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fakes::{FakeWorker, WorkerHost};
use crate::framing::post;

/// Longer than anything here takes; a test that waits for it has failed.
const BOUND: Duration = Duration::from_secs(120);
/// The largest body that Lotus's server reads.
const GO_MAX: usize = 100 << 20;
/// Go's websocket library flushes its buffer as a frame of its own when it is full.
const FRAME: usize = 4 << 10;

/// A SealCommit2 whose request is `length` bytes long, give or take three, and the input in it.
fn commit2(length: usize) -> (String, TaskInput) {
    let around = 120;
    let c1 = vec![0x5a; (length - around) / 4 * 3];
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"Filecoin.SealCommit2","params":[{{"ID":{{"Miner":1000,"Number":42}},"ProofType":5}},"{}"]}}"#,
        STANDARD.encode(&c1)
    );
    (text, TaskInput::Commit2(Commit2Input { c1: C1Output(c1) }))
}

#[tokio::test]
async fn a_body_as_large_as_lotus_s_server_takes_is_taken() {
    let host = WorkerHost::start(FakeWorker::default()).await;
    let header = format!("Authorization: Bearer {}", host.manager.token(&Permission::ALL));
    let (text, work) = commit2(GO_MAX);
    assert!(text.len().abs_diff(GO_MAX) < 64, "{}", text.len());
    let answer = post(host.address, "/rpc/v0", &[&header], &text).await;
    assert!(answer.result()["ID"].is_string(), "{}", answer.body);
    assert!(host.take_started().remove(0).work == work);
}

#[tokio::test]
async fn a_message_in_thousands_of_frames_is_taken_as_one() {
    let host = WorkerHost::start(FakeWorker::default()).await;
    let mut socket = TcpStream::connect(host.address).await.expect("the server listens");
    let head = format!(
        "GET /rpc/v0 HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {}\r\n\r\n",
        host.address,
        host.manager.token(&Permission::ALL)
    );
    socket.write_all(head.as_bytes()).await.expect("the server reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.expect("a head"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));

    let (text, work) = commit2(30 << 20);
    let message = in_frames(text.as_bytes());
    tokio::time::timeout(BOUND, socket.write_all(&message))
        .await
        .expect("in time")
        .expect("the server reads");
    let answer = tokio::time::timeout(BOUND, text_frame(&mut socket)).await.expect("in time");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect(&answer);
    assert!(answer["id"] == 7 && answer["result"]["ID"].is_string(), "{answer}");
    assert!(host.take_started().remove(0).work == work);
}

/// Masked frames, as a client's are; the mask is zero, so that the bytes stay as they are.
fn in_frames(text: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(text.len() + text.len() / FRAME * 8 + 8);
    let last = text.chunks(FRAME).len() - 1;
    for (at, chunk) in text.chunks(FRAME).enumerate() {
        let opcode = if at == 0 { 1 } else { 0 };
        let end = if at == last { 0x80 } else { 0 };
        message.push(end | opcode);
        match u8::try_from(chunk.len()) {
            Ok(short) if short < 126 => message.push(0x80 | short),
            _ => {
                message.push(0x80 | 126);
                message.extend(u16::try_from(chunk.len()).expect("a frame's length").to_be_bytes());
            }
        }
        message.extend([0; 4]);
        message.extend(chunk);
    }
    message
}

/// The next short text frame; pings are passed over.
async fn text_frame(socket: &mut TcpStream) -> String {
    loop {
        let opcode = socket.read_u8().await.expect("a frame") & 0x0f;
        let length = match socket.read_u8().await.expect("a length") {
            126 => usize::from(socket.read_u16().await.expect("a length")),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await.expect("a payload");
        if opcode == 1 {
            return String::from_utf8(payload).expect("text");
        }
    }
}
