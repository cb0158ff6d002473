//! Passes a piece's bytes from a stream into the pipe that an executor reads as descriptor 3.

use std::io;
use std::os::fd::OwnedFd;

use rpc::reader::PieceStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// Bytes passed on at once: a pipe's largest unprivileged size.
const BUFFER: usize = 1 << 20;

/// Why a feed ended before its source did.
#[derive(Debug)]
pub(crate) enum FeedError {
    /// The source broke.
    Source(io::Error),
    /// The executor closed its end.
    Executor,
}

/// Begins to pass bytes on; the handle gives their number.
pub(crate) fn start(
    mut source: PieceStream,
    pipe: OwnedFd,
) -> io::Result<JoinHandle<Result<u64, FeedError>>> {
    let mut sink = pipe::Sender::from_owned_fd(pipe)?;
    Ok(tokio::spawn(async move {
        let mut buffer = vec![0; BUFFER];
        let mut passed = 0;
        loop {
            let length = source.read(&mut buffer).await.map_err(FeedError::Source)?;
            if length == 0 {
                return Ok(passed);
            }
            sink.write_all(&buffer[..length]).await.map_err(|_| FeedError::Executor)?;
            passed += length as u64;
        }
    }))
}
