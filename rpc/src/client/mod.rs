//! The calling side: a manager or a worker on another machine as an implementor of its trait. Speaks to Lotus and to
//! Sealyard peers; keeps no state but its connection and what kind of peer it found. Never retries: the caller knows
//! whether a call may be made twice.

mod backup;
mod http;
mod manager;
mod node;
mod operator;
mod peer;
mod pipelining;
mod proving;
mod storage;
mod unsealing;
mod worker;
mod ws;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use url::Url;

pub use backup::FileParts;
pub use manager::ManagerClient;
pub use node::NodeClient;
pub use worker::WorkerClient;

use crate::api::ApiResult;
use crate::api_info::{ApiInfoError, Transport, with_scheme};
use crate::error::{ApiError, chain};
use crate::mark::Mark;
use crate::tls::Trust;
use crate::wire::WireError;

/// The largest answer taken, in bytes. A 64 GiB sector's vanilla proofs are tens of MiB, base64 adds a third.
pub const RESPONSE_SIZE_MAX: usize = 256 << 20;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take; `None` = as long as it takes.
fn timeout_of(method: &str) -> Option<Duration> {
    match method {
        // Asked every ten seconds to see whether the peer lives.
        "Filecoin.Session" => Some(Duration::from_secs(5)),
        "Filecoin.WaitQuiet" | "Filecoin.StorageLock" => None,
        // A path's files are moved, scanned or deleted before they answer.
        "Sealyard.OrderPaths" | "Sealyard.MoveSector" => None,
        // Disks are read, with a bound of their own.
        "Sealyard.CheckProvable" | "Filecoin.CheckProvable" => None,
        // Nor is a sector sealed again before that.
        "Sealyard.Rebuild" | "Sealyard.RebuildPieces" => None,
        // WorkerConnect too: the manager dials back before it answers.
        _ => Some(Duration::from_secs(60)),
    }
}

/// One peer, over either transport.
struct Caller {
    /// For people: scheme, host, port and path, never the token.
    url: Url,
    wire: Wire,
}

enum Wire {
    Http(http::HttpWire),
    Ws(ws::WsWire),
}

impl Caller {
    fn new(
        url: &Url,
        token: Option<String>,
        transport: Transport,
        trust: &Trust,
        mark: &Mark,
    ) -> Result<Self, ClientError> {
        let url = with_scheme(url, transport).map_err(|source| ClientError::Url { source })?;
        let wire = match transport {
            Transport::Http => Wire::Http(http::HttpWire::new(url.clone(), token, trust, mark)?),
            Transport::Ws => Wire::Ws(ws::WsWire::new(url.clone(), token, trust.clone(), mark)?),
        };
        Ok(Self { url, wire })
    }

    /// Calls and reads the answer.
    async fn call<P, R>(&self, method: &str, params: &P) -> ApiResult<R>
    where
        P: Serialize + Sync,
        R: DeserializeOwned,
    {
        let params = to_raw_value(params).map_err(|error| malformed(method, &error))?;
        let answer = self.call_raw(method, params).await?;
        serde_json::from_str(answer.get()).map_err(|error| malformed(method, &error))
    }

    /// Calls and converts the answer from its wire shape `W`.
    async fn call_as<W, R, P>(&self, method: &str, params: &P) -> ApiResult<R>
    where
        P: Serialize + Sync,
        W: DeserializeOwned + TryInto<R>,
        W::Error: ToString,
    {
        let answer: W = self.call(method, params).await?;
        answer.try_into().map_err(|error| malformed(method, &error))
    }

    /// Calls and converts a list; `null` is the empty one.
    async fn call_list<W, R, P>(&self, method: &str, params: &P) -> ApiResult<Vec<R>>
    where
        P: Serialize + Sync,
        W: DeserializeOwned + TryInto<R>,
        W::Error: ToString,
    {
        let answer: Option<Vec<W>> = self.call(method, params).await?;
        let values = answer.unwrap_or_default().into_iter();
        values.map(|value| value.try_into().map_err(|error: W::Error| malformed(method, &error))).collect()
    }

    /// Calls a method that answers nothing.
    async fn tell<P: Serialize + Sync>(&self, method: &str, params: &P) -> ApiResult<()> {
        let params = to_raw_value(params).map_err(|error| malformed(method, &error))?;
        self.call_raw(method, params).await.map(drop)
    }

    /// Calls with an array of parameters; the answer as it came.
    async fn call_raw(&self, method: &str, params: Box<RawValue>) -> ApiResult<Box<RawValue>> {
        self.call_within(method, params, timeout_of(method)).await
    }

    async fn call_within(
        &self,
        method: &str,
        params: Box<RawValue>,
        limit: Option<Duration>,
    ) -> ApiResult<Box<RawValue>> {
        let call = async {
            match &self.wire {
                Wire::Http(http) => http.call(method, params).await,
                Wire::Ws(ws) => ws.call(method, params).await,
            }
        };
        let Some(limit) = limit else { return call.await };
        let answer = tokio::time::timeout(limit, call).await;
        answer.unwrap_or_else(|_| Err(unreachable_peer(&self.url, NoAnswer { limit })))
    }
}

/// No parameters: `[]`, as Go writes them.
const NO_PARAMS: [(); 0] = [];

fn malformed(method: &str, detail: &impl ToString) -> ApiError {
    ApiError::Malformed { method: method.to_owned(), detail: detail.to_string() }
}

/// Something of ours that cannot be sent.
fn unsendable(error: WireError) -> ApiError {
    ApiError::refused(format!("not sent: {error}"))
}

fn unreachable_peer(url: &Url, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
    let source = source.into();
    let https = matches!(url.scheme(), "https" | "wss");
    // The library's word for a record that is none; behind each of our transports it is wrapped otherwise.
    if https && chain(source.as_ref()).contains("InvalidContentType") {
        return ApiError::Unreachable { url: url.to_string(), source: Box::new(NoTls { source }) };
    }
    ApiError::Unreachable { url: url.to_string(), source }
}

/// The peer speaks something else. It was not spoken to, and no token was sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "TLS16: what answers there speaks no TLS; start it with a certificate, or write http:// in its address"
)]
struct NoTls {
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The peer is there, perhaps, but says nothing.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {limit:?}")]
struct NoAnswer {
    limit: Duration,
}

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is no good.
    #[error(transparent)]
    Url {
        /// What is wrong with it.
        source: ApiInfoError,
    },
    /// The token cannot stand in a header.
    #[error(
        "the token has characters that no token has; it must be one line of letters, digits, '.', '-' and '_'"
    )]
    Token,
    /// The HTTP machinery does not start.
    #[error("the HTTP client cannot be set up")]
    Http {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}
