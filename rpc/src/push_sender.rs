//! Push streams, the sending side: asks the receiver whether it wants the bytes, follows it where it sends us, and
//! sends them. Never sends a byte that was not asked for.

use futures_util::TryStreamExt as _;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, StatusCode};
use tokio_util::io::ReaderStream;
use url::Url;
use uuid::Uuid;

use crate::reader::PieceStream;

/// A receiver may send us on this many times: manager to worker is one.
const REDIRECTS_MAX: usize = 8;
/// Bytes read from the source at a time.
const CHUNK: usize = 256 << 10;

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The receiver has taken what it wanted.
    Sent,
    /// The receiver closed the stream without reading.
    Unread,
}

/// The push endpoint that belongs to an RPC endpoint: `http://host/rpc/v0` has `http://host/rpc/streams/v0/push/{id}`.
pub fn push_url(rpc: &Url, id: Uuid) -> Url {
    let mut url = rpc.clone();
    let path = rpc.path().trim_end_matches('/');
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    url.set_path(&format!("{parent}/streams/v0/push/{id}"));
    url.set_query(None);
    url
}

/// Sends `data` to `to`. Ends when the receiver has read it, or does not want it. There is no time limit of its own:
/// a worker may read hours after it took the task; a connection that breaks ends it.
///
/// # Errors
/// The receiver cannot be reached, answers out of turn, or sends us in circles.
pub async fn push(client: &Client, to: Url, data: PieceStream) -> Result<Pushed, SendError> {
    let mut to = to;
    let mut redirects = 0;
    loop {
        let failed = |source| SendError::Unreachable { url: to.to_string(), source };
        let request = client.head(to.clone()).header(CONTENT_TYPE, "application/octet-stream");
        let response = request.send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => break,
            StatusCode::NO_CONTENT => return Ok(Pushed::Unread),
            StatusCode::FOUND => {
                redirects += 1;
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let next = location.and_then(|location| to.join(location).ok());
                match next {
                    Some(next) if redirects <= REDIRECTS_MAX => to = next,
                    _ => return Err(SendError::Redirect { url: to.to_string() }),
                }
            }
            status => return Err(SendError::Status { url: to.to_string(), status: status.as_u16() }),
        }
    }
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(data, CHUNK).into_stream());
    let request = client.post(to.clone()).header(CONTENT_TYPE, "application/octet-stream").body(body);
    let response =
        request.send().await.map_err(|source| SendError::Unreachable { url: to.to_string(), source })?;
    match response.status() {
        StatusCode::OK => Ok(Pushed::Sent),
        status => Err(SendError::Status { url: to.to_string(), status: status.as_u16() }),
    }
}

/// The bytes could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody there, or the connection broke.
    #[error("{url} cannot be reached, or hung up")]
    Unreachable {
        /// Whom we asked.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Another answer than 200, 204 and 302.
    #[error("{url} answers HTTP {status}, expected 200, 204 or 302")]
    Status {
        /// Whom we asked.
        url: String,
        /// What it said.
        status: u16,
    },
    /// No usable `Location`, or too many of them.
    #[error("{url} sends the stream on without saying where, or in circles")]
    Redirect {
        /// Whom we asked last.
        url: String,
    },
}
