//! The bytes of a piece on their way to the worker that stores or hashes them: our value, and the reader parameter
//! `{"Type":…,"Info":…}` that stands for it in a call. Never reads a piece itself; see [`crate::push`].

use std::fmt;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use crate::piece_url::{self, PieceUrlError};
use crate::tls::Trust;

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
    /// The bytes as a stream; `None` for zeros, which nobody needs to send. Opens the URL, of which no more than `most`
    /// bytes and one are read; see [`piece_url::open`].
    ///
    /// # Errors
    /// The URL gives nothing.
    pub async fn open(self, most: u64, trust: &Trust) -> Result<Option<PieceStream>, PieceUrlError> {
        match self {
            Self::Zeros => Ok(None),
            Self::Stream(stream) => Ok(Some(stream)),
            Self::Url(url) => piece_url::open(&url, most, trust).await.map(|opened| Some(opened.stream)),
        }
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
