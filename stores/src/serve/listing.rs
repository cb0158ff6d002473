//! What a Lotus holds of a directory: it lists nothing, so its tar stream is read for names and lengths, and thrown away.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::archive;
use crate::error::StoreError;
use crate::members::Manifest;
use crate::peer::{self, SILENCE_MAX};

/// A directory of at most this many bytes is read only to see what is in it: what outlives sealing has 160 MB.
pub(super) const LISTED_MAX: u64 = 1 << 30;
/// And for at most so long.
const LISTING_MAX: Duration = Duration::from_secs(15 * 60);
/// Received frames that may wait for the reader.
const FRAMES_MAX: usize = 4;

/// Reads an answer's body, a tar stream, to its end.
pub(super) async fn list(url: &str, answer: Response<Incoming>) -> Result<Manifest, StoreError> {
    let (frames, received) = mpsc::channel(FRAMES_MAX);
    let reader =
        tokio::task::spawn_blocking(move || archive::list(&mut Body { received, now: Bytes::new() }));
    let pumped = timeout(LISTING_MAX, pump(url, answer.into_body(), frames)).await;
    let listed = reader.await.unwrap_or(Err(StoreError::Lost { what: "reading a directory's list" }));
    match pumped {
        // A reader that has hung up says why itself.
        Ok(Ok(())) => listed,
        Ok(Err(error)) => Err(error),
        Err(late) => Err(peer::broken(url, late)),
    }
}

async fn pump(url: &str, mut body: Incoming, frames: mpsc::Sender<Bytes>) -> Result<(), StoreError> {
    let mut came = 0_u64;
    loop {
        let frame = match timeout(SILENCE_MAX, body.frame()).await {
            Err(late) => return Err(peer::broken(url, late)),
            Ok(None) => return Ok(()),
            Ok(Some(frame)) => frame.map_err(|error| peer::broken(url, error))?,
        };
        if let Ok(data) = frame.into_data() {
            came += data.len() as u64;
            // Its headers and paddings are a trifle beside the files.
            if came > 2 * LISTED_MAX {
                let reason = format!("more than {} bytes came to be looked through", 2 * LISTED_MAX);
                return Err(StoreError::Archive { reason });
            }
            if frames.send(data).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The body as a blocking reader.
struct Body {
    received: mpsc::Receiver<Bytes>,
    now: Bytes,
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.now.is_empty() {
            match self.received.blocking_recv() {
                Some(bytes) => self.now = bytes,
                None => break,
            }
        }
        Ok(&self.now)
    }

    fn consume(&mut self, bytes: usize) {
        self.now.advance(bytes);
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?;
        let length = got.len().min(into.len());
        into[..length].copy_from_slice(&got[..length]);
        self.consume(length);
        Ok(length)
    }
}
