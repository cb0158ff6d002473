//! The bytes of a piece on their way to the worker that stores or hashes them.

use std::fmt;
use std::pin::Pin;

use tokio::io::AsyncRead;

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

impl fmt::Debug for PieceData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("Zeros"),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}
