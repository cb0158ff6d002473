//! A piece's bytes behind a URL: a plain GET without a token, with bounds on every wait, on redirects and on how much is
//! read. Certificates are checked with whatever the process believes, `--ca-file` included. Errors never repeat the URL,
//! whose path and query may hold secrets.

use std::io;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode, Url};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use crate::reader::PieceStream;
use crate::tls::Trust;

/// Connecting, TLS included, may take so long.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// A server that says nothing for so long, before its answer or within it, is given up.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Redirects followed; Boost's piece servers use one at most.
const REDIRECTS_MAX: usize = 5;
/// Bytes beyond the piece that are let through, so that a reader sees that there are more.
const BEYOND: u64 = 1;

/// What came of asking, before the first byte is read.
pub struct Opened {
    /// The bytes; ends with an error where the body breaks off before its stated length.
    pub stream: PieceStream,
    /// How many bytes the server says it gives.
    pub stated: Option<u64>,
}

/// Asks a URL for a piece of which at most `most` bytes are wanted; one more is let through, no further ones are.
///
/// # Errors
/// See [`PieceUrlError`]; a body that gives out or falls silent is an error of the stream.
pub async fn open(url: &str, most: u64, trust: &Trust) -> Result<Opened, PieceUrlError> {
    let url = Url::parse(url).map_err(|source| PieceUrlError::Url { source })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(PieceUrlError::Scheme { scheme: url.scheme().chars().take(20).collect() });
    }
    let failed = |error: reqwest::Error| PieceUrlError::of(error.without_url());
    let answer = client(trust).map_err(failed)?.get(url).send().await.map_err(failed)?;
    if answer.status() != StatusCode::OK {
        return Err(PieceUrlError::Status { status: answer.status().as_u16() });
    }
    let stated = answer.content_length();
    let body = answer.bytes_stream().map_err(|error| {
        let error = PieceUrlError::of(error.without_url());
        io::Error::other(format!("{}: {}", error.code(), crate::error::chain(&error)))
    });
    let stream = StreamReader::new(Box::pin(body)).take(most.saturating_add(BEYOND));
    Ok(Opened { stream: Box::pin(stream), stated })
}

fn client(trust: &Trust) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(trust.config().as_ref().clone())
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .redirect(Policy::custom(|attempt| match refused(&attempt) {
            None => attempt.follow(),
            Some(why) => attempt.error(why),
        }))
        .build()
}

/// Why a redirect is not followed.
fn refused(attempt: &Attempt<'_>) -> Option<Redirected> {
    let from_tls = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        return Some(Redirected::TooOften);
    }
    // What was asked for with a certificate must not be changed by whoever listens on the way.
    (from_tls && attempt.url().scheme() != "https").then_some(Redirected::IntoTheOpen)
}

#[derive(Debug, thiserror::Error)]
enum Redirected {
    #[error("it sends us on more than {REDIRECTS_MAX} times")]
    TooOften,
    #[error("it sends us from https to http")]
    IntoTheOpen,
}

/// A URL that gives no piece.
#[derive(Debug, thiserror::Error)]
pub enum PieceUrlError {
    /// Not a URL.
    #[error("the piece's URL is none")]
    Url {
        /// What is wrong with it.
        #[source]
        source: url::ParseError,
    },
    /// Another kind of URL.
    #[error("the piece's URL has the scheme {scheme:?}; expected http or https")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// Nobody there, nobody whom we believe, or nothing said in time.
    #[error("the piece's server cannot be reached, is not believed, or says nothing for {} s", SILENCE_MAX.as_secs())]
    Unreachable {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Another answer.
    #[error("the piece's server answers HTTP {status}; expected 200")]
    Status {
        /// What it said.
        status: u16,
    },
    /// It sends us on once too often, or out of TLS.
    #[error("the piece's server sends us elsewhere in a way that is not followed")]
    Redirect {
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
}

impl PieceUrlError {
    fn of(source: reqwest::Error) -> Self {
        if source.is_redirect() { Self::Redirect { source } } else { Self::Unreachable { source } }
    }

    /// Stable code for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "RPC020",
            Self::Scheme { .. } => "RPC021",
            Self::Unreachable { .. } => "RPC022",
            Self::Status { .. } => "RPC023",
            Self::Redirect { .. } => "RPC024",
        }
    }
}
