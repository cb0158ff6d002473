//! The HTTP client towards other storage holders: one request with a bearer token, with bounds on every wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::error::StoreError;

/// A TCP connection must stand within this time.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The answer's head must come within this time: a peer may first look at a slow disk.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A body must bring something within this time.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A body that brings less than [`SLOWEST_BYTES`] within this time is given up: one byte now and then is no transfer.
pub(crate) const SLOWEST_TIME: Duration = Duration::from_secs(600);
/// See [`SLOWEST_TIME`] (bytes).
pub(crate) const SLOWEST_BYTES: usize = 256 << 10;
/// Error texts and small answers are read up to this many bytes.
const SMALL_BODY_MAX: usize = 64 << 10;
/// Error texts are shown up to this many characters.
const SHOWN_MAX: usize = 300;

/// A client for `/remote` of any peer. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Peer {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    tls: Arc<ClientConfig>,
}

/// Believes no certificate: whoever wants https says whom to believe.
pub(crate) fn nobody() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("this provider has TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Arc::new(config)
}

impl Peer {
    /// `tls` says which certificates are believed; a URL that says https is never asked in the clear.
    pub(crate) fn new(tls: Arc<ClientConfig>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_MAX));
        connector.set_nodelay(true);
        let connector = HttpsConnector::from((connector, Arc::clone(&tls)));
        Self { client: Client::builder(TokioExecutor::new()).build(connector), tls }
    }

    /// Which certificates are believed.
    pub(crate) const fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    ///
    /// # Errors
    /// When the URL cannot be dialled or the peer does not answer in time.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &str,
        token: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Response<Incoming>, StoreError> {
        self.ask_with((method, url), token, headers, Bytes::new(), ANSWER_MAX).await
    }

    /// The same with a body, and as much patience as the work takes.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_with(
        &self,
        (method, url): (Method, &str),
        token: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        body: Bytes,
        patience: Duration,
    ) -> Result<Response<Incoming>, StoreError> {
        let bad_url = || StoreError::Url { url: url.to_owned() };
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| bad_url())?;
        let mut request = Request::builder().method(method).uri(url).header(AUTHORIZATION, bearer);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| bad_url())?;
        let known = matches!(request.uri().scheme_str(), Some("http" | "https"));
        if !known || request.uri().host().is_none() {
            return Err(bad_url());
        }
        match timeout(patience, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| broken(url, error)),
            Err(late) => Err(broken(url, late)),
        }
    }

    /// A small body read whole.
    pub(crate) async fn small_body(url: &str, answer: Response<Incoming>) -> Result<Bytes, StoreError> {
        let body = Limited::new(answer.into_body(), SMALL_BODY_MAX).collect();
        match timeout(ANSWER_MAX, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(source)) => Err(StoreError::Transport { url: url.to_owned(), source }),
            Err(late) => Err(broken(url, late)),
        }
    }

    /// The answer if it has the status `expected`, else an error with the beginning of its text.
    pub(crate) async fn expect(
        url: &str,
        answer: Response<Incoming>,
        expected: StatusCode,
    ) -> Result<Response<Incoming>, StoreError> {
        let status = answer.status();
        if status == expected {
            return Ok(answer);
        }
        let body = Self::small_body(url, answer).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body).trim().chars().take(SHOWN_MAX).collect();
        Err(StoreError::PeerAnswer { url: url.to_owned(), status: status.as_u16(), text })
    }
}

pub(crate) fn broken(url: &str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Transport { url: url.to_owned(), source: Box::new(source) }
}
