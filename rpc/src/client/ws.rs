//! JSON-RPC over one websocket, between Sealyards. Connects at the first call and again when the connection was lost.
//! Between the socket and jsonrpsee's client each frame is mended: the client takes an unknown key in an error object,
//! or an answer without a result, for the end of the connection.

use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::client_transport::ws::{WsHandshakeError, WsTransportClientBuilder};
use jsonrpsee::core::client::async_client::PingConfig;
use jsonrpsee::core::client::{Client, ClientBuilder, ClientT, Error, ReceivedMessage, TransportReceiverT};
use jsonrpsee::core::traits::ToRpcParams;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use url::Url;

use super::{CONNECT_TIMEOUT, ClientError, RESPONSE_SIZE_MAX, malformed, unreachable_peer};
use crate::api::ApiResult;
use crate::error::ApiError;
use crate::mark::{self, Mark};
use crate::tls::Trust;

/// Calls under way at once on one connection.
const CALLS_MAX: usize = 4096;
/// Both sides ping this often, as Go does.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A connection on which nothing comes for this long is dead.
const INACTIVE_LIMIT: Duration = Duration::from_secs(30);
/// The client has one limit for all calls; ours differ by method and are kept outside. This one is never met.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(super) struct WsWire {
    url: Url,
    headers: HeaderMap,
    mark: Mark,
    trust: Trust,
    client: Mutex<Option<Arc<Client>>>,
}

impl WsWire {
    pub(super) fn new(
        url: Url,
        token: Option<String>,
        trust: Trust,
        mark: &Mark,
    ) -> Result<Self, ClientError> {
        let (headers, mark) = (super::http::authorization(token)?, mark.clone());
        Ok(Self { url, headers, mark, trust, client: Mutex::new(None) })
    }

    pub(super) async fn call(&self, method: &str, params: Box<RawValue>) -> ApiResult<Box<RawValue>> {
        let client = self.connected().await?;
        client.request(method, Params(params)).await.map_err(|error| match error {
            Error::Call(error) => {
                ApiError::Remote { code: error.code().into(), message: error.message().to_owned() }
            }
            Error::ParseError(error) => malformed(method, &error),
            other => unreachable_peer(&self.url, other),
        })
    }

    /// The connection, made anew if there is none. Callers that come meanwhile wait for the same attempt.
    async fn connected(&self) -> ApiResult<Arc<Client>> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| client.is_connected()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.connect().await?);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn connect(&self) -> ApiResult<Client> {
        let size = u32::try_from(RESPONSE_SIZE_MAX).unwrap_or(u32::MAX);
        let mut headers = self.headers.clone();
        if let Some(reign) = self.mark.value() {
            headers.insert(mark::HEADER, reign);
        }
        let transport = WsTransportClientBuilder::default()
            .connection_timeout(CONNECT_TIMEOUT)
            .max_request_size(size)
            .max_response_size(size)
            // The number of tries in all, not of redirects: with 0 it would not even connect.
            .max_redirections(1)
            .with_custom_cert_store(self.trust.config().as_ref().clone())
            .set_headers(headers);
        let (sender, receiver) = transport.build(self.url.clone()).await.map_err(|error| match error {
            WsHandshakeError::Rejected { status_code: status @ (401 | 403) } => {
                ApiError::Unauthorized { url: self.url.to_string(), status }
            }
            other => unreachable_peer(&self.url, other),
        })?;
        let ping =
            PingConfig::new().ping_interval(PING_INTERVAL).inactive_limit(INACTIVE_LIMIT).max_failures(1);
        Ok(ClientBuilder::default()
            .request_timeout(CLIENT_TIMEOUT)
            .max_concurrent_requests(CALLS_MAX)
            .enable_ws_ping(ping)
            .build_with_tokio(sender, Mending(receiver)))
    }
}

struct Params(Box<RawValue>);

impl ToRpcParams for Params {
    fn to_rpc_params(self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        Ok(Some(self.0))
    }
}

/// A receiver that hands on only what jsonrpsee's client can read.
struct Mending<R>(R);

impl<R: TransportReceiverT + Send> TransportReceiverT for Mending<R>
where
    R: TransportReceiverT<Error: Send>,
{
    type Error = R::Error;

    async fn receive(&mut self) -> Result<ReceivedMessage, Self::Error> {
        Ok(match self.0.receive().await? {
            ReceivedMessage::Text(text) => ReceivedMessage::Text(mended(text)),
            ReceivedMessage::Bytes(bytes) => match String::from_utf8(bytes) {
                Ok(text) => ReceivedMessage::Text(mended(text)),
                Err(error) => ReceivedMessage::Bytes(error.into_bytes()),
            },
            ReceivedMessage::Pong => ReceivedMessage::Pong,
        })
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<AnswerError<'a>>,
}

#[derive(Deserialize)]
struct AnswerError<'a> {
    code: i32,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct MendedError<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: MendedErrorObject<'a>,
}

#[derive(Serialize)]
struct MendedErrorObject<'a> {
    code: i32,
    message: &'a RawValue,
}

#[derive(Serialize)]
struct MendedResult<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    result: Option<&'a RawValue>,
}

/// An error with only its code and message; an answer always with a result. Anything else as it came.
fn mended(text: String) -> String {
    let mended = match serde_json::from_str::<Answer<'_>>(&text) {
        Err(_) => None,
        Ok(Answer { method: Some(_), .. }) => None,
        Ok(Answer { id, error: Some(error), .. }) => {
            let empty = RawValue::from_string("\"\"".to_owned()).ok();
            let message = error.message.or(empty.as_deref());
            message.and_then(|message| {
                let error = MendedErrorObject { code: error.code, message };
                serde_json::to_string(&MendedError { jsonrpc: "2.0", id, error }).ok()
            })
        }
        Ok(Answer { id: Some(id), result: None, .. }) => {
            serde_json::to_string(&MendedResult { jsonrpc: "2.0", id, result: None }).ok()
        }
        // Ids and results that are there, and no key besides that the client would stumble over: the usual case.
        Ok(_) if !text.contains("\"error\"") => None,
        Ok(Answer { id: Some(id), result, .. }) => {
            serde_json::to_string(&MendedResult { jsonrpc: "2.0", id, result }).ok()
        }
        Ok(_) => None,
    };
    mended.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::mended;

    #[test]
    fn frames_are_mended_so_that_the_client_survives_them() {
        let cases = [
            (
                r#"{"error":{"code":1,"message":"no","meta":{"a":1}},"id":3,"jsonrpc":"2.0"}"#,
                r#"{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":"no"}}"#,
            ),
            (r#"{"id":3,"jsonrpc":"2.0"}"#, r#"{"jsonrpc":"2.0","id":3,"result":null}"#),
            (
                r#"{"error":null,"id":3,"jsonrpc":"2.0","result":[1,2]}"#,
                r#"{"jsonrpc":"2.0","id":3,"result":[1,2]}"#,
            ),
        ];
        for (from, to) in cases {
            assert_eq!(mended(from.to_owned()), to);
        }
        for same in [
            r#"{"id":3,"jsonrpc":"2.0","result":"x"}"#,
            r#"{"jsonrpc":"2.0","method":"xrpc.ch.close","params":[1]}"#,
            "no json",
        ] {
            assert_eq!(mended(same.to_owned()), same);
        }
        // A null result is a result.
        let null = r#"{"id":3,"jsonrpc":"2.0","result":null}"#;
        assert_eq!(mended(null.to_owned()), r#"{"jsonrpc":"2.0","id":3,"result":null}"#);
    }
}
