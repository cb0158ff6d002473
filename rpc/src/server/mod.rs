//! The serving side: `/rpc/v0` (and `/rpc/v1`) for POST and websocket, and the push streams beside it, as a router
//! that a manager or a worker mounts on its port, and the door through which such a router is served. Never decides what
//! a token allows.

mod auth;
mod caller;
mod data;
mod listen;
mod lotus_cli;
mod manager;
mod middleware;
mod operator;
mod pipelining;
mod proving;
mod registrar;
mod storage;
mod unsealing;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use jsonrpsee::Methods;
use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{
    BatchRequestConfig, PingConfig, Server, ServerConfig, ServerHandle, TowerService, stop_channel,
};
use tower::Service as _;
use tower::layer::util::{Identity, Stack};

pub use auth::{AskManager, AuthError, Authenticate};
pub use caller::{WORKER_METHODS, caller};
pub use data::data_methods;
pub use listen::{Bounds, HEAD_SIZE_MAX, serve};
pub use manager::manager_methods;
pub use operator::operator_methods;
pub use pipelining::pipeline_methods;
pub(crate) use pipelining::{BATCHES, PAYERS};
pub use proving::proving_methods;
pub use storage::storage_methods;
pub use unsealing::unseal_methods;
pub use worker::worker_methods;

use crate::push::PushStreams;
use crate::token::Permission;
use auth::Marked;
use middleware::RpcLayer;

/// The largest request and answer, in bytes. Go's server takes 100 MiB; vanilla proofs of 64 GiB sectors need more.
pub const BODY_SIZE_MAX: u32 = 256 << 20;
/// The largest request of a caller without a token (bytes): what may be asked then takes no more.
pub const STRANGER_SIZE_MAX: u32 = 1 << 20;
/// Requests and websockets at once; beyond: HTTP 429. Each waiting call of a Lotus peer is a request of its own.
pub const CONNECTIONS_MAX: u32 = 10_000;
/// Calls in one batch.
const BATCH_MAX: u32 = 1000;
/// A websocket is pinged this often, and closed when nothing came for [`PING_LIMIT`].
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_LIMIT: Duration = Duration::from_secs(30);

type Service = TowerService<Stack<RpcLayer, Identity>, Identity>;

/// Serves `methods` to whom `auth` knows. Websockets are closed when the router is dropped.
pub fn rpc_router(methods: impl Into<Methods>, auth: Arc<dyn Authenticate>, streams: PushStreams) -> Router {
    let methods = methods.into();
    let ping = PingConfig::new().ping_interval(PING_INTERVAL).inactive_limit(PING_LIMIT).max_failures(1);
    let (stop, running) = stop_channel();
    let service = |request_size_max| {
        let config = ServerConfig::builder()
            .max_request_body_size(request_size_max)
            .max_response_body_size(BODY_SIZE_MAX)
            .max_connections(CONNECTIONS_MAX)
            .set_batch_request_config(BatchRequestConfig::Limit(BATCH_MAX))
            .enable_ws_ping(ping)
            .build();
        Server::builder()
            .set_config(config)
            .set_rpc_middleware(RpcServiceBuilder::new().layer(RpcLayer::new(&methods, &auth)))
            .to_service_builder()
            .build(methods.clone(), stop.clone())
    };
    let (service, for_strangers) = (service(BODY_SIZE_MAX), service(STRANGER_SIZE_MAX));
    let endpoint = Endpoint { service, for_strangers, auth, _running: Arc::new(running) };
    Router::new()
        .route("/rpc/v0", any(answer))
        .route("/rpc/v1", any(answer))
        .with_state(endpoint)
        .merge(streams.router())
}

#[derive(Clone)]
struct Endpoint {
    service: Service,
    /// The same for callers without a token.
    for_strangers: Service,
    auth: Arc<dyn Authenticate>,
    /// The websockets live as long as this.
    _running: Arc<ServerHandle>,
}

async fn answer(State(endpoint): State<Endpoint>, mut request: Request) -> Response {
    let token = match auth::token_of(&request) {
        Ok(token) => token,
        Err(status) => return status.into_response(),
    };
    let stranger = token.is_none();
    let marked = match crate::mark::read(request.headers()) {
        Ok(reign) => reign.map(Marked),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match auth::granted(&*endpoint.auth, token).await {
        Ok(granted) => {
            // Nobody else's word on managers is worth anything.
            let is_peer = granted.0.has(Permission::Admin) || granted.0.worker_token().is_some();
            marked.filter(|_| is_peer).map(|marked| request.extensions_mut().insert(marked));
            request.extensions_mut().insert(granted)
        }
        Err(status) => return status.into_response(),
    };
    // Go's server does not look at the content type, so operators' scripts leave it out.
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut service = if stranger { endpoint.for_strangers } else { endpoint.service };
    match service.call(request).await {
        Ok(response) => without_null(response.map(Body::new)).await,
        Err(error) => {
            tracing::warn!(error, "a request could not be served");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Go answers a notification with an empty body; jsonrpsee's empty answer is the text `null`, which no other answer is.
async fn without_null(response: Response) -> Response {
    const NULL: &[u8] = b"null";
    if response.body().size_hint().exact() != Some(NULL.len() as u64) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    match axum::body::to_bytes(body, NULL.len()).await {
        Ok(bytes) if bytes == NULL => {
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::empty())
        }
        Ok(bytes) => Response::from_parts(parts, Body::from(bytes)),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
