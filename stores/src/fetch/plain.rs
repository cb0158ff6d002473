//! One file or directory as everyone sends it: the file itself, or a tar stream of the directory.
//!
//! Bytes come in on the runtime and are written on a blocking thread; a bounded channel joins the two. The writer alone
//! decides what is whole.

use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use sealtasks::FileType;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::arriving::Arriving;
use super::blocks::Feed;
use super::length::{check_length, check_trailer, length_max, wrong_length};
use super::wire::{Cancel, CancelOnDrop};
use super::{Target, TransferMeter};
use crate::archive;
use crate::disk;
use crate::error::StoreError;
use crate::members::{MANIFEST_HEADER, Manifest};
use crate::peer::{self, SILENCE_MAX, SLOWEST_BYTES, SLOWEST_TIME};
use crate::traffic::{Progress, Traffic};

/// Received frames that may wait for the disk. A frame is at most about 400 KiB.
const FRAMES_MAX: usize = 16;
/// Buffer in front of a file (bytes).
const WRITE_BUFFER: usize = 4 << 20;

/// Takes an answer's body into `place`. Names and lengths of what came.
pub(super) async fn fetch(
    answer: Response<Incoming>,
    feed: &Feed,
    place: Arc<Arriving>,
    target: Target,
) -> Result<Vec<(String, u64)>, StoreError> {
    let Feed { holder, url, traffic, meter, progress, .. } = feed;
    let plan = Plan::of(url, &answer, &target)?;
    progress.receives((holder, url), plan.bytes(), 0);
    let (frames, received) = mpsc::channel(FRAMES_MAX);
    let cancel = Cancel::default();
    let _cancel = CancelOnDrop(cancel.clone());
    let frames_in =
        Frames { received, traffic: traffic.clone(), cancel, current: Bytes::new(), ended: false };
    let reports = progress.clone();
    let writer = tokio::task::spawn_blocking(move || plan.receive(frames_in, &target, &place, &reports));
    let pumped = pump(url, answer.into_body(), meter, progress, frames).await;
    let written = writer.await.unwrap_or(Err(StoreError::Lost { what: "writing a fetched file" }));
    // When the connection broke, the writer only knows that its input ended.
    pumped.and(written)
}

/// One step of a download; a channel that closes without `End` was cut off.
enum Frame {
    Data(Bytes),
    End,
}

async fn pump(
    url: &str,
    mut body: Incoming,
    meter: &TransferMeter,
    progress: &Progress,
    frames: mpsc::Sender<Frame>,
) -> Result<(), StoreError> {
    let (mut since, mut came) = (Instant::now(), 0);
    loop {
        let frame = match timeout(SILENCE_MAX, body.frame()).await {
            Err(late) => return Err(peer::broken(url, late)),
            Ok(Some(Err(error))) => return Err(peer::broken(url, error)),
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => {
                // A writer that has hung up says why itself.
                let _ = frames.send(Frame::End).await;
                return Ok(());
            }
        };
        if let Ok(data) = frame.into_data() {
            meter.add(data.len());
            progress.add(data.len() as u64);
            came += data.len();
            if came >= SLOWEST_BYTES {
                (since, came) = (Instant::now(), 0);
            } else if since.elapsed() >= SLOWEST_TIME {
                return Err(peer::broken(url, io::Error::from(io::ErrorKind::TimedOut)));
            }
            if frames.send(Frame::Data(data)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// What is to arrive, as far as the answer's head tells.
enum Plan {
    File { length: Option<u64> },
    Directory { manifest: Option<Manifest> },
}

impl Plan {
    fn of(url: &str, answer: &Response<Incoming>, target: &Target) -> Result<Self, StoreError> {
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let media =
            header(CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let expected =
            if target.kind.is_directory() { "application/x-tar" } else { "application/octet-stream" };
        if !media.eq_ignore_ascii_case(expected) {
            let text = format!("content type {media:?}; expected {expected}");
            return Err(StoreError::PeerAnswer { url: url.to_owned(), status: 200, text });
        }
        if target.kind.is_directory() {
            let manifest = header(MANIFEST_HEADER).map(Manifest::parse).transpose()?;
            return Ok(Self::Directory { manifest });
        }
        let length = header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        if let Some(length) = length {
            check_length(target, length)?;
        }
        Ok(Self::File { length })
    }

    /// Writes into `place`, which is emptied before; names and lengths of what came, a plain file's under no name.
    fn receive(
        &self,
        mut frames: Frames,
        target: &Target,
        place: &Arriving,
        progress: &Progress,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        place.clear()?;
        self.write(&mut frames, target, &place.data())?;
        progress.syncs();
        disk::shape(&place.data())
    }

    /// As announced; 0 where nothing is.
    fn bytes(&self) -> u64 {
        match self {
            Self::File { length } => length.unwrap_or(0),
            Self::Directory { manifest } => manifest.as_ref().map_or(0, |manifest| manifest.0.values().sum()),
        }
    }

    fn write(&self, frames: &mut Frames, target: &Target, arriving: &Path) -> Result<(), StoreError> {
        match self {
            Self::File { length } => write_file(frames, target, *length, arriving),
            Self::Directory { manifest } => {
                disk::create_dir(arriving)?;
                let arrived = archive::extract(frames, arriving)?;
                match manifest {
                    Some(manifest) if *manifest == arrived => Ok(()),
                    Some(manifest) => Err(StoreError::Archive {
                        reason: format!(
                            "it holds {}; announced was {}",
                            arrived.to_header(),
                            manifest.to_header()
                        ),
                    }),
                    None => arrived.check_stage(target.sector.proof.sector_size()),
                }
            }
        }
    }
}

fn write_file(
    frames: &mut Frames,
    target: &Target,
    length: Option<u64>,
    arriving: &Path,
) -> Result<(), StoreError> {
    let broken =
        |error: io::Error| StoreError::Archive { reason: format!("the transfer broke off: {error}") };
    let mut out = BufWriter::with_capacity(WRITE_BUFFER, disk::create_new(arriving)?);
    let most = length.unwrap_or_else(|| length_max(target));
    let mut got = 0_u64;
    loop {
        let chunk = frames.fill_buf().map_err(broken)?;
        if chunk.is_empty() {
            break;
        }
        got = got.saturating_add(chunk.len() as u64);
        if got > most {
            return Err(wrong_length(target, got, format!("at most {most}")));
        }
        out.write_all(chunk).map_err(StoreError::io("write", arriving))?;
        let used = chunk.len();
        frames.consume(used);
    }
    if length.is_some_and(|length| length != got) {
        return Err(wrong_length(target, got, format!("the announced {most}")));
    }
    check_length(target, got)?;
    let file = out.into_inner().map_err(|error| StoreError::io("write", arriving)(error.into_error()))?;
    file.sync_all().map_err(StoreError::io("sync", arriving))?;
    if target.kind == FileType::Unsealed { check_trailer(arriving, target, got) } else { Ok(()) }
}

/// The received frames as a blocking reader; an input that was cut off is an error, not an end.
struct Frames {
    received: mpsc::Receiver<Frame>,
    traffic: Traffic,
    cancel: Cancel,
    current: Bytes,
    ended: bool,
}

impl BufRead for Frames {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.received.blocking_recv() {
                Some(Frame::Data(data)) => {
                    self.traffic.pace(data.len(), || self.cancel.is_called());
                    self.current = data;
                }
                Some(Frame::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, used: usize) {
        self.current.advance(used);
    }
}

impl Read for Frames {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let part = chunk.len().min(into.len());
        into[..part].copy_from_slice(&chunk[..part]);
        self.consume(part);
        Ok(part)
    }
}
