//! The bytes of a piece on their way to the worker that stores or hashes them: our value, and the reader parameter
//! `{"Type":…,"Info":…}` that stands for it in a call. Never reads a piece itself; see [`crate::push`].

use std::fmt;
use std::io;
use std::pin::Pin;

use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// A piece's bytes as they come in.
pub type PieceStream = Pin<Box<dyn AsyncRead + Send>>;

/// Where a piece's bytes come from.
pub enum PieceData {
    /// Zeros, as many as the piece is long.
    Zeros,
    /// A URL to be read by a plain GET, without a token.
    Url(String),
    /// A stream.
    Stream(PieceStream),
}

impl PieceData {
    /// The bytes as a stream; `None` for zeros, which nobody needs to send. Opens the URL.
    ///
    /// # Errors
    /// The URL cannot be read, or answers anything but 200.
    pub async fn open(self) -> io::Result<Option<PieceStream>> {
        let url = match self {
            Self::Zeros => return Ok(None),
            Self::Stream(stream) => return Ok(Some(stream)),
            Self::Url(url) => url,
        };
        let response = reqwest::get(&url).await.map_err(io::Error::other)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(io::Error::other(format!("{url} answers HTTP {}, expected 200", response.status())));
        }
        let bytes = response.bytes_stream().map_err(io::Error::other);
        Ok(Some(Box::pin(StreamReader::new(Box::pin(bytes)))))
    }
}

impl fmt::Debug for PieceData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("Zeros"),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Lotus's reader parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "Type", content = "Info")]
pub(crate) enum ReaderParam {
    /// So many zeros, in decimal.
    #[serde(rename = "null")]
    Null(String),
    /// A URL that the receiver reads.
    #[serde(rename = "http")]
    Http(String),
    /// The id under which the sender pushes the bytes to the receiver's endpoint.
    #[serde(rename = "push")]
    Push(uuid::Uuid),
}
