//! JSON-RPC as Go speaks it, byte for byte, against our server, and as Go's server answers it, against our client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::client_transport::ws::WsTransportClientBuilder;
use jsonrpsee::core::client::{ReceivedMessage, TransportReceiverT as _, TransportSenderT as _};
use rpc::{ApiError, ManagerApi as _, Permission, Transport, WorkerApi as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fakes::{FakeWorker, ManagerHost, WorkerHost};
use crate::sample;

/// Longer than anything here takes; a test that waits for it has failed.
const BOUND: Duration = Duration::from_secs(20);

/// An HTTP answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    pub fn result(&self) -> serde_json::Value {
        self.json().get("result").expect(&self.body).clone()
    }

    pub fn error(&self) -> (i64, String) {
        let error = &self.json()["error"];
        (error["code"].as_i64().expect(&self.body), error["message"].as_str().expect(&self.body).to_owned())
    }
}

/// One request on a connection of its own, written out by hand.
pub async fn raw(address: SocketAddr, text: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(text.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    tokio::time::timeout(BOUND, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, body: body.to_owned() }
}

/// A POST with these additional header lines.
pub async fn post(address: SocketAddr, path: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {length}\r\n\
         {headers}Content-Type: application/json\r\nConnection: close\r\n\r\n"
    );
    raw(address, &format!("{head}{body}")).await
}

async fn admin(host: &ManagerHost, body: &str) -> Answer {
    let header = format!("Authorization: Bearer {}", host.token(&Permission::ALL));
    post(host.address, "/rpc/v0", &[&header], body).await
}

#[tokio::test]
async fn requests_are_taken_as_go_writes_them() {
    let host = ManagerHost::start().await;
    let session = serde_json::json!(sample::SESSION);
    for (request, id) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.Session","params":[],"meta":{"SpanContext":"AAAA"}}"#,
            serde_json::json!(1),
        ),
        (r#"{"jsonrpc":"2.0","id":0,"method":"Filecoin.Session","params":null}"#, serde_json::json!(0)),
        ("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"Filecoin.Session\"}\n", serde_json::json!(7)),
        (r#"{"jsonrpc":"2.0","id":"abc","method":"Filecoin.Session","params":[]}"#, serde_json::json!("abc")),
        (
            r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"Filecoin.Session","params":[],"extra":{"a":[1]}}"#,
            serde_json::json!(9_007_199_254_740_993_u64),
        ),
    ] {
        for path in ["/rpc/v0", "/rpc/v1"] {
            let answer = post(host.address, path, &[], request).await;
            assert_eq!(answer.status, 200, "{request}");
            let expected = serde_json::json!({"jsonrpc": "2.0", "id": id, "result": session});
            assert_eq!(answer.json(), expected, "{request}");
        }
    }
}

#[tokio::test]
async fn a_request_without_a_content_type_is_taken() {
    let host = ManagerHost::start().await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.Session","params":[]}"#;
    let head = format!(
        "POST /rpc/v0 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    for header in ["", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let answer = raw(host.address, &format!("{head}{header}\r\n{body}")).await;
        assert_eq!(answer.result(), serde_json::json!(sample::SESSION));
    }
}

#[tokio::test]
async fn a_method_that_gives_nothing_answers_null() {
    let host = ManagerHost::start().await;
    let answer = admin(&host, r#"{"jsonrpc":"2.0","id":3,"method":"Filecoin.Shutdown","params":[]}"#).await;
    assert_eq!(answer.json(), serde_json::json!({"jsonrpc": "2.0", "id": 3, "result": null}));
}

#[tokio::test]
async fn errors_have_go_s_codes_and_words() {
    let host = ManagerHost::start().await;
    let cases = [
        ("Filecoin.Nonsense", "[]", -32601, "method 'Filecoin.Nonsense' not found"),
        ("rpc.nonsense", "[]", -32601, "method 'rpc.nonsense' not found"),
        ("Filecoin.Version", "[1]", -32602, "wrong param count (method 'Filecoin.Version'): 1 != 0"),
        (
            "Filecoin.StorageBestAlloc",
            r#"[1,2048,"sealing"]"#,
            -32602,
            "wrong param count (method 'Filecoin.StorageBestAlloc'): 3 != 4",
        ),
        ("Filecoin.StorageInfo", r#"["missing"]"#, 1, "sector store not found"),
        (
            "Filecoin.StorageFindSector",
            r#"[{"Miner":1,"Number":2},64,0,false]"#,
            -32700,
            "unmarshaling params for 'Filecoin.StorageFindSector': fileType: 64 is no set of sector file types; \
             known are 0 to 63",
        ),
    ];
    for (method, params, code, message) in cases {
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let answer = admin(&host, &request).await;
        assert_eq!(answer.error(), (code, message.to_owned()), "{request}");
    }
    let by_name = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.StorageInfo","params":{"id":"x"}}"#;
    assert_eq!(admin(&host, by_name).await.error().0, -32700);
}

#[tokio::test]
async fn the_count_is_checked_before_the_permission_as_in_go() {
    let host = ManagerHost::start().await;
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.StorageList","params":[1]}"#;
    assert_eq!(post(host.address, "/rpc/v0", &[], request).await.error().0, -32602);
}

#[tokio::test]
async fn notifications_are_executed_and_not_answered() {
    for id in ["", r#""id":null,"#] {
        let host = ManagerHost::start().await;
        let request = format!(r#"{{"jsonrpc":"2.0",{id}"method":"Filecoin.Shutdown","params":[]}}"#);
        let answer = admin(&host, &request).await;
        assert_eq!(answer, Answer { status: 200, body: String::new() }, "{request}");
        assert_eq!(host.fake.calls.take(), ["shutdown ()"]);
    }
}

#[tokio::test]
async fn a_batch_is_answered_in_order() {
    let host = ManagerHost::start().await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"Filecoin.Session","params":[]},
        {"jsonrpc":"2.0","method":"Filecoin.Shutdown","params":[]},
        {"jsonrpc":"2.0","id":2,"method":"Filecoin.Nonsense","params":[]}]"#;
    let answer = admin(&host, batch).await.json();
    assert_eq!((answer[0]["id"].as_i64(), answer[1]["id"].as_i64()), (Some(1), Some(2)));
    assert_eq!(answer[1]["error"]["message"], "method 'Filecoin.Nonsense' not found");
    assert_eq!(answer.as_array().map(Vec::len), Some(2));
    assert_eq!(host.fake.calls.take(), ["shutdown ()"]);
}

#[tokio::test]
async fn go_s_null_lists_and_unknown_keys_are_taken() {
    let host = ManagerHost::start().await;
    let attach = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.StorageAttach","params":[
        {"ID":"76f1988b-ef30-4d7e-b3ec-9a627f4ba5a8","URLs":null,"Weight":10,"MaxStorage":0,"CanSeal":true,
         "CanStore":true,"Groups":null,"AllowTo":null,"AllowTypes":null,"DenyTypes":null,"AllowMiners":null,
         "DenyMiners":null,"FromTheFuture":{"a":1}},
        {"Capacity":9223372036854775807,"Available":1,"FSAvailable":1,"Reserved":0,"Max":0,"Used":0}]}"#;
    assert!(admin(&host, attach).await.result().is_null());
    let recorded = host.fake.calls.take().remove(0);
    assert!(
        recorded.contains("urls: []") && recorded.contains("capacity: 9223372036854775807"),
        "{recorded}"
    );
}

#[tokio::test]
async fn a_worker_s_first_words_are_answered_as_lotus_answers_them() {
    let host = ManagerHost::start().await;
    let version = admin(&host, r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.Version","params":[]}"#).await;
    let expected =
        serde_json::json!({"Version": "fake 1", "APIVersion": 66816, "BlockDelay": 30, "Agent": "fake 1"});
    assert_eq!(version.result(), expected);
    let address =
        admin(&host, r#"{"jsonrpc":"2.0","id":2,"method":"Filecoin.ActorAddress","params":[]}"#).await;
    assert_eq!(address.result(), serde_json::json!("f01000"));
    for prefix in ["f", "t"] {
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":2,"method":"Filecoin.ActorSectorSize","params":["{prefix}01000"]}}"#
        );
        assert_eq!(admin(&host, &request).await.result(), serde_json::json!(68_719_476_736_u64));
    }
}

#[tokio::test]
async fn a_sector_s_status_has_lotus_s_shape() {
    let host = ManagerHost::start().await;
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.SectorsStatus","params":[42,false]}"#;
    let status = admin(&host, request).await.result();
    assert_eq!(status["SectorID"], 42);
    assert_eq!(status["State"], "Proving");
    assert_eq!(status["CommD"]["/"], sample::comm_d().to_string());
    assert_eq!(status["Proof"], "AP8=");
    assert_eq!(
        status["Ticket"],
        serde_json::json!({"Value": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "Epoch": 10})
    );
    assert_eq!(status["Log"][0]["Timestamp"], 1);
    assert_eq!(status["SealProof"], 5);
}

#[tokio::test]
async fn work_goes_on_when_the_caller_hangs_up() {
    let host = ManagerHost::start_with(|fake| fake.gate = tokio::sync::Semaphore::new(0)).await;
    let client = Arc::new(host.client(Transport::Http));
    let call = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.worker_connect("http://w".into()).await })
    };
    tokio::time::timeout(BOUND, host.fake.began.notified()).await.expect("it begins");
    call.abort();
    assert!(call.await.expect_err("it was given up").is_cancelled());
    // The manager notices the hang-up or not; either way the call ends as if nothing had happened.
    host.fake.gate.add_permits(1);
    tokio::time::timeout(BOUND, host.fake.done.notified()).await.expect("it ends");
    assert_eq!(host.fake.calls.take(), ["worker_connect \"http://w\""]);
}

#[tokio::test]
async fn a_waiting_lock_ends_with_its_request_or_by_cancel() {
    let host = ManagerHost::start_with(|fake| fake.gate = tokio::sync::Semaphore::new(0)).await;
    // By hanging up.
    let client = Arc::new(host.client(Transport::Http));
    let call = {
        let client = Arc::clone(&client);
        let none = sealtasks::FileTypes::NONE;
        tokio::spawn(async move { client.storage_lock(sample::SECTOR, none, none).await })
    };
    tokio::time::timeout(BOUND, host.fake.began.notified()).await.expect("it begins");
    call.abort();
    tokio::time::timeout(BOUND, host.fake.done.notified()).await.expect("the wait is given up");
    // By Go's notification over a websocket.
    let url = format!("ws://{}/rpc/v0?token={}", host.address, host.token(&Permission::ALL)).parse().unwrap();
    let (mut sender, mut receiver) = WsTransportClientBuilder::default().build(url).await.unwrap();
    let lock =
        r#"{"jsonrpc":"2.0","id":5,"method":"Filecoin.StorageLock","params":[{"Miner":1,"Number":2},1,0]}"#;
    sender.send(lock.into()).await.unwrap();
    tokio::time::timeout(BOUND, host.fake.began.notified()).await.expect("it begins");
    sender.send(r#"{"jsonrpc":"2.0","method":"xrpc.cancel","params":[5]}"#.into()).await.unwrap();
    let answer = loop {
        let message = tokio::time::timeout(BOUND, receiver.receive()).await.expect("in time").unwrap();
        if let ReceivedMessage::Text(text) = message {
            break text;
        }
    };
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((answer["id"].as_i64(), answer["error"]["code"].as_i64()), (Some(5), Some(1)));
    assert!(host.fake.calls.take().is_empty(), "no lock was had");
}

/// A server that answers every request with one text, as a Go server might.
async fn canned(status: u16, body: &'static str) -> rpc::ManagerClient {
    let answer = move || async move { (axum::http::StatusCode::from_u16(status).expect("a status"), body) };
    let router = axum::Router::new().route("/rpc/v0", axum::routing::post(answer));
    let address = crate::fakes::serve(router).await;
    let info = format!("/ip4/127.0.0.1/tcp/{}/http", address.port()).parse().unwrap();
    rpc::ManagerClient::new(&info, Transport::Http).unwrap()
}

#[tokio::test]
async fn go_s_answers_are_understood() {
    let missing =
        canned(500, r#"{"error":{"code":-32601,"message":"method 'X' not found"},"id":1,"jsonrpc":"2.0"}"#)
            .await;
    assert!(missing.overview().await.unwrap_err().is_method_not_found());
    let meta = canned(
        200,
        r#"{"error":{"code":1,"message":"no","meta":{"a":1},"data":"x"},"id":1,"jsonrpc":"2.0"}"#,
    )
    .await;
    let error = meta.session().await.unwrap_err();
    assert!(matches!(&error, ApiError::Remote { code: 1, message } if message == "no"), "{error:?}");
    let absent = canned(200, "{\"id\":1,\"jsonrpc\":\"2.0\"}\n").await;
    absent.shutdown().await.unwrap();
    let null = canned(200, r#"{"error":null,"id":1,"jsonrpc":"2.0","result":null}"#).await;
    assert_eq!(null.sectors_list().await.unwrap(), []);
    assert_eq!(
        canned(200, r#"{"id":1,"jsonrpc":"2.0","result":null}"#).await.storage_list().await.unwrap().len(),
        0
    );
    let other = canned(200, r#"{"id":2,"jsonrpc":"2.0","result":null}"#).await;
    let error = other.shutdown().await.unwrap_err().to_string();
    assert_eq!(error, "Filecoin.Shutdown: the answer is malformed: it answers request 2, not 1");
    let gone = canned(502, "bad gateway").await;
    let error = gone.shutdown().await.unwrap_err().to_string();
    assert_eq!(error, "Filecoin.Shutdown: the answer is malformed: HTTP status 502 Bad Gateway: bad gateway");
}

#[tokio::test]
async fn a_worker_that_lost_its_manager_cannot_check_tokens_and_says_so() {
    let host = WorkerHost::start(FakeWorker::default()).await;
    let nobody: rpc::ApiInfo = {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        format!("x:/ip4/127.0.0.1/tcp/{}/http", free.port()).parse().unwrap()
    };
    let manager = rpc::ManagerClient::new(&nobody, Transport::Http).unwrap();
    let streams = rpc::PushStreams::new();
    let methods = rpc::worker_methods(host.fake.clone(), streams.clone());
    let auth = Arc::new(rpc::server::AskManager(Arc::new(manager)));
    let address = crate::fakes::serve(rpc::rpc_router(methods, auth, streams)).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.Version","params":[]}"#;
    let answer = post(address, "/rpc/v0", &["Authorization: Bearer x"], body).await;
    assert_eq!(answer, Answer { status: 503, body: String::new() });
    // A good manager that does not know the token: 401, and without one nothing of a worker's is allowed.
    let answer = post(host.address, "/rpc/v0", &["Authorization: Bearer x"], body).await;
    assert_eq!(answer, Answer { status: 401, body: String::new() });
    let answer = post(host.address, "/rpc/v0", &[], body).await;
    assert_eq!(answer.error().1, "missing permission to invoke 'Version' (need 'admin')");
    assert_eq!(host.client(Transport::Http).version().await.unwrap(), 67328);
}
