//! A stand-in for a full node of Lotus: its JSON-RPC over real HTTP and websocket, in Lotus's shapes, over a small chain
//! that tests make block by block, reorganisations included. Messages to the miner actor are read and executed as far as
//! `actor` goes; what others do is what the test says. Used by the tests of `chain`, `manager` and the command line.

#![allow(dead_code, unused_imports, reason = "each test target uses its part of this")]

mod actor;
mod methods;
mod world;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub use actor::{Activation, Cbor, PRE_COMMIT, PROVE_COMMIT, activations, comm_d, pre_commits};
pub use methods::randomness_text;
pub use world::{AfterPush, Deal, Effect, PreCommitted, Proven, Pushed, World};

/// The token that the node wants.
pub const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.stand.in";

/// A running stand-in; it ends with the runtime that it was started in.
#[derive(Clone)]
pub struct StandInNode {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    /// Told after each message that came in and is not answered.
    pub swallowed: Arc<Notify>,
    /// Told when the answer that [`World::holds`] names is made; it goes when `let_go` is told.
    pub held: Arc<Notify>,
    pub let_go: Arc<Notify>,
}

impl StandInNode {
    /// Starts one on a free port.
    pub async fn start(world: World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let node = Self {
            address,
            world: Arc::new(Mutex::new(world)),
            swallowed: Arc::default(),
            held: Arc::default(),
            let_go: Arc::default(),
        };
        let router = Router::new().route("/rpc/v1", get(socket).post(post)).with_state(node.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        node
    }

    /// What stands in `FULLNODE_API_INFO`, over HTTP.
    pub fn api_info(&self) -> String {
        format!("{TOKEN}:http://{}", self.address)
    }

    /// The same over a websocket.
    pub fn api_info_ws(&self) -> String {
        format!("{TOKEN}:/ip4/{}/tcp/{}/http", self.address.ip(), self.address.port())
    }

    /// The chain, to look at or to change.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panicked with it")
    }

    /// One request's answer.
    async fn answer(&self, body: &[u8]) -> Answer {
        let Ok(request) = serde_json::from_slice::<Value>(body) else {
            return Answer::Is(
                json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "parse error"}}),
            );
        };
        let id = request["id"].clone();
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        let params = request["params"].as_array().cloned().unwrap_or_default();
        let (result, swallow, close, hold) = {
            let mut world = self.world();
            world.calls.push(method.clone());
            let result = world.call(&method, &params);
            let is_push = method == "Filecoin.MpoolPushMessage";
            let hold = world.holds.take_if(|held| method.strip_prefix("Filecoin.") == Some(held)).is_some();
            (result, is_push && world.swallow_pushes, is_push && world.after_push == AfterPush::Close, hold)
        };
        if hold {
            self.held.notify_one();
            self.let_go.notified().await;
        }
        if swallow {
            self.swallowed.notify_one();
            return Answer::Never;
        }
        if close {
            return Answer::BreaksOff;
        }
        // Keys in alphabetical order, as Go's server writes them.
        Answer::Is(match result {
            Ok(result) => json!({"id": id, "jsonrpc": "2.0", "result": result}),
            Err((code, message)) => {
                json!({"error": {"code": code, "message": message}, "id": id, "jsonrpc": "2.0"})
            }
        })
    }
}

/// What comes of a request.
enum Answer {
    Is(Value),
    Never,
    /// The connection ends instead.
    BreaksOff,
}

fn allowed(headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    given == Some(format!("Bearer {TOKEN}").as_str())
}

async fn post(State(node): State<StandInNode>, headers: HeaderMap, body: Bytes) -> Response {
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match node.answer(&body).await {
        Answer::Is(answer) => {
            let framework = answer["error"]["code"].as_i64().is_some_and(|code| code < 0);
            let status = if framework { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
            (status, [(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
        }
        Answer::BreaksOff => {
            let broken = std::io::Error::other("the connection breaks off");
            Body::from_stream(stream::iter([Err::<Bytes, _>(broken)])).into_response()
        }
        Answer::Never => std::future::pending().await,
    }
}

async fn socket(State(node): State<StandInNode>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    upgrade.on_upgrade(move |socket| talk(node, socket))
}

async fn talk(node: StandInNode, mut socket: WebSocket) {
    while let Some(Ok(frame)) = socket.recv().await {
        let body = match &frame {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            _ => continue,
        };
        let answer = match node.answer(body).await {
            Answer::Is(answer) => answer,
            Answer::Never => continue,
            Answer::BreaksOff => return,
        };
        if socket.send(Message::Text(answer.to_string().into())).await.is_err() {
            return;
        }
    }
}
