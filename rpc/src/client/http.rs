//! JSON-RPC by HTTP POST, one request per call, as Go's client does it, and tolerant of what Go's server answers:
//! errors under status 500, keys we do not know, no `result` at all.

use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::Url;

use super::{CONNECT_TIMEOUT, ClientError, RESPONSE_SIZE_MAX, malformed, unreachable_peer};
use crate::api::ApiResult;
use crate::error::ApiError;
use crate::mark::{self, Mark};
use crate::tls::Trust;

/// Of an answer that is none, so much is shown (bytes), and of that the first line.
const TEXT_MAX: usize = 300;

pub(super) struct HttpWire {
    url: Url,
    client: reqwest::Client,
    mark: Mark,
    /// The last id used; counts from 1.
    last_id: AtomicU64,
}

impl HttpWire {
    pub(super) fn new(
        url: Url,
        token: Option<String>,
        trust: &Trust,
        mark: &Mark,
    ) -> Result<Self, ClientError> {
        let client = builder(trust)
            .default_headers(authorization(token)?)
            .build()
            .map_err(|source| ClientError::Http { source })?;
        Ok(Self { url, client, mark: mark.clone(), last_id: AtomicU64::new(0) })
    }

    pub(super) async fn call(&self, method: &str, params: Box<RawValue>) -> ApiResult<Box<RawValue>> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let request = Request { jsonrpc: "2.0", id, method, params: &params };
        let body = serde_json::to_vec(&request).map_err(|error| malformed(method, &error))?;
        let mut post = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(reign) = self.mark.value() {
            post = post.header(mark::HEADER, reign);
        }
        let mut response = post.send().await.map_err(|source| unreachable_peer(&self.url, source))?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ApiError::Unauthorized { url: self.url.to_string(), status: status.as_u16() });
        }
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|source| unreachable_peer(&self.url, source))?
        {
            if chunk.len() > RESPONSE_SIZE_MAX - body.len() {
                return Err(malformed(method, &"it is longer than 256 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        // Go answers 500 and 400 with a JSON-RPC error in the body, so the body is read first.
        match serde_json::from_slice::<Response>(&body) {
            Ok(response) => response.into_result(method, id),
            Err(_) if !status.is_success() => {
                let text = String::from_utf8_lossy(&body[..body.len().min(TEXT_MAX)]);
                let text = text.lines().next().unwrap_or_default();
                let colon = if text.is_empty() { "" } else { ": " };
                Err(malformed(method, &format!("HTTP status {status}{colon}{text}")))
            }
            Err(error) => Err(malformed(method, &error)),
        }
    }
}

/// What every HTTP client of this room has: no proxy (peers are on our own network, and an environment variable must
/// not lead their tokens elsewhere), no redirects, dead connections noticed.
pub(super) fn builder(trust: &Trust) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trust.config().as_ref().clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(std::time::Duration::from_secs(30))
}

/// The header that carries a token; none without one.
pub(super) fn authorization(token: Option<String>) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

#[derive(Serialize)]
struct Request<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a RawValue,
}

/// An answer, of which only these keys are looked at.
#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    id: Option<serde_json::Value>,
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    #[serde(default, deserialize_with = "crate::wire::nullable")]
    message: String,
}

impl Response {
    fn into_result(self, method: &str, id: u64) -> ApiResult<Box<RawValue>> {
        let answered = self.id.unwrap_or_default();
        if let Some(error) = self.error {
            // An error about a request that could not be read has no id.
            if answered.is_null() || answered == id {
                return Err(ApiError::Remote { code: error.code, message: error.message });
            }
        }
        if answered != id {
            return Err(malformed(method, &format!("it answers request {answered}, not {id}")));
        }
        // Older Go servers leave a nil result out.
        Ok(self.result.unwrap_or_else(|| RawValue::NULL.to_owned()))
    }
}
