//! One file or directory from one URL into one place: download beside, verify, sync, rename.
//!
//! Bytes come in on the runtime and are written on a blocking thread; a bounded channel joins the two. The writer alone
//! decides what is whole, and clears away what is not, also when the download is dropped halfway.

use std::io::{self, BufRead, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Method, Response, StatusCode};
use sealtasks::{FileType, SectorRef};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::timeout;

use crate::archive;
use crate::disk;
use crate::error::StoreError;
use crate::layout;
use crate::members::{MANIFEST_HEADER, Manifest};
use crate::peer::{self, Peer, SILENCE_MAX};

/// Received frames that may wait for the disk. A frame is at most about 400 KiB.
const FRAMES_MAX: usize = 16;
/// Buffer in front of a file (bytes).
const WRITE_BUFFER: usize = 4 << 20;
/// An unsealed file's trailer: its run-length code and the four bytes of its length (bytes).
const TRAILER_MAX: u64 = (1 << 20) + 4;

/// Counts the bytes of bodies as they are received. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct TransferMeter(Arc<AtomicU64>);

impl TransferMeter {
    /// Bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What is fetched to where.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) sector: SectorRef,
    pub(crate) kind: FileType,
    /// The storage path it goes to.
    pub(crate) path: PathBuf,
    /// Held until the writer is done, even if the caller is gone.
    pub(crate) turn: Arc<OwnedMutexGuard<()>>,
}

/// Fetches from one URL. On success the file is whole, durable and at its place; on failure nothing of it is left.
pub(crate) async fn fetch(
    peer: &Peer,
    url: &str,
    token: &str,
    target: Target,
    meter: &TransferMeter,
) -> Result<(), StoreError> {
    let answer = peer.ask(Method::GET, url, token, None).await?;
    let answer = Peer::expect(url, answer, StatusCode::OK).await?;
    let plan = Plan::of(url, &answer, &target)?;
    let (frames, received) = mpsc::channel(FRAMES_MAX);
    let writer = tokio::task::spawn_blocking(move || plan.receive(Frames::new(received), &target));
    let pumped = pump(url, answer.into_body(), meter, frames).await;
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
    frames: mpsc::Sender<Frame>,
) -> Result<(), StoreError> {
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

    fn receive(&self, mut frames: Frames, target: &Target) -> Result<(), StoreError> {
        let _turn = &target.turn;
        let arriving = layout::arriving(&target.path, target.sector.id, target.kind);
        let result = self.write(&mut frames, target, &arriving).and_then(|()| into_place(&arriving, target));
        if result.is_err() {
            disk::discard(&arriving);
        }
        result
    }

    fn write(&self, frames: &mut Frames, target: &Target, arriving: &Path) -> Result<(), StoreError> {
        if let Some(dir) = arriving.parent() {
            disk::create_dir(dir)?;
        }
        disk::remove(arriving)?;
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

/// The replicas have exactly the sector's size, an unsealed file its trailer besides.
fn check_length(target: &Target, length: u64) -> Result<(), StoreError> {
    let size = target.sector.proof.sector_size().bytes();
    match target.kind {
        FileType::Sealed | FileType::Update if length != size => {
            Err(wrong_length(target, length, size.to_string()))
        }
        FileType::Unsealed if length < size || length > size + TRAILER_MAX => {
            Err(wrong_length(target, length, format!("{size} and a trailer of at most {TRAILER_MAX}")))
        }
        FileType::Piece if length > size => Err(wrong_length(target, length, format!("at most {size}"))),
        FileType::Sealed
        | FileType::Update
        | FileType::Unsealed
        | FileType::Piece
        | FileType::Cache
        | FileType::UpdateCache => Ok(()),
    }
}

fn length_max(target: &Target) -> u64 {
    let size = target.sector.proof.sector_size().bytes();
    if target.kind == FileType::Unsealed { size + TRAILER_MAX } else { size }
}

/// The last four bytes say how long the code before them is; a file without a trailer is fully allocated.
fn check_trailer(file: &Path, target: &Target, length: u64) -> Result<(), StoreError> {
    let size = target.sector.proof.sector_size().bytes();
    let trailer = length.saturating_sub(size);
    if trailer == 0 {
        return Ok(());
    }
    let bad = || wrong_length(target, length, format!("{size} and a trailer that states its own length"));
    let mut bytes = [0; 4];
    let from_end = i64::try_from(bytes.len()).map_err(|_| bad())?;
    let mut handle = std::fs::File::open(file).map_err(StoreError::io("open", file))?;
    handle
        .seek(SeekFrom::End(-from_end))
        .and_then(|_| handle.read_exact(&mut bytes))
        .map_err(StoreError::io("read", file))?;
    if u64::from(u32::from_le_bytes(bytes)) + 4 == trailer { Ok(()) } else { Err(bad()) }
}

fn wrong_length(target: &Target, got: u64, expected: String) -> StoreError {
    StoreError::Length { sector: target.sector.id, kind: target.kind, got, expected }
}

/// Renames what arrived to its place. What lay there undeclared is replaced: the index knew of no file there.
fn into_place(arriving: &Path, target: &Target) -> Result<(), StoreError> {
    let file = layout::file(&target.path, target.sector.id, target.kind);
    let aside = layout::leaving(&target.path, target.sector.id, target.kind);
    if disk::put_in_place(arriving, &file, &aside)? {
        tracing::warn!(path = ?file, "an undeclared file of the same name was replaced by the fetched one");
    }
    Ok(())
}

/// The received frames as a blocking reader; an input that was cut off is an error, not an end.
struct Frames {
    received: mpsc::Receiver<Frame>,
    current: Bytes,
    ended: bool,
}

impl Frames {
    fn new(received: mpsc::Receiver<Frame>) -> Self {
        Self { received, current: Bytes::new(), ended: false }
    }
}

impl BufRead for Frames {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.received.blocking_recv() {
                Some(Frame::Data(data)) => self.current = data,
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
