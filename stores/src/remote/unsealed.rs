//! Unsealed data where it lies: whether it is there, and any part of it as a stream, from a path of this process or from
//! whoever holds it. Never: unseals, fetches files, or delivers bytes that nobody calls allocated.

use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, HeaderValue, RANGE};
use hyper::{Method, Response, StatusCode};
use pieces::fr32::{PADDED_CHUNK, RAW_CHUNK, Window, unpad};
use pieces::{PartialFile, PartialFileError, PieceReader};
use sealtasks::{FetchVerb, FileType, SectorRef, StorageId, UnpaddedOffset, UnpaddedPieceSize};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Remote;
use crate::error::StoreError;
use crate::local::chain;
use crate::peer::{Peer, SILENCE_MAX, broken};

/// Raw bytes in one part of a stream, at most.
const PART: usize = 127 << 13;
/// Parts of a local stream read ahead.
const AHEAD: usize = 2;

/// Raw bytes of a sector that were found unsealed. Every [`Remote::read_unsealed`] is a request or an open file of its own,
/// so that a reader may jump to any place as often as it likes.
#[derive(Clone, Debug)]
pub struct UnsealedPiece {
    sector: SectorRef,
    /// Raw bytes of the sector.
    span: Range<u64>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// A file in a path of this process.
    Here(PathBuf),
    /// The file's URL at a peer, and the path that it is in there.
    At { path: StorageId, url: String },
}

impl UnsealedPiece {
    /// Its length in raw bytes.
    pub fn len(&self) -> u64 {
        self.span.end - self.span.start
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.span.is_empty()
    }

    /// Whether it is read over the network.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::At { .. })
    }
}

impl Remote {
    /// Whether one copy, here or elsewhere, has all raw bytes of `span`.
    ///
    /// # Errors
    /// As [`Remote::unsealed_piece`].
    pub async fn is_unsealed(&self, sector: SectorRef, span: Range<u64>) -> Result<bool, StoreError> {
        Ok(self.unsealed_piece(sector, span).await?.is_some())
    }

    /// Finds a copy that has all raw bytes of `span`: here, else at the holders, those of the greatest weight first.
    /// `None` when every copy was looked at and none has them, or there is none.
    ///
    /// # Errors
    /// A span that does not lie in the sector, and, when no copy has the bytes, what is wrong with a file here, or the failure
    /// of a holder that could not be asked: it may have them, and unsealing them again takes hours.
    pub async fn unsealed_piece(
        &self,
        sector: SectorRef,
        span: Range<u64>,
    ) -> Result<Option<UnsealedPiece>, StoreError> {
        let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        if span.start > span.end || span.end > whole {
            return Err(StoreError::OutsideSector {
                sector: sector.id,
                start: span.start,
                end: span.end,
                whole,
            });
        }
        let kind = FileType::Unsealed;
        let mut failure = None;
        for (path, file) in self.local.copies_here(sector.id, kind).await? {
            match holds(file.clone(), sector, span.clone()).await {
                Ok(true) => return Ok(Some(UnsealedPiece { sector, span, place: Place::Here(file) })),
                Ok(false) => {}
                Err(error) => {
                    let text = chain(&error);
                    tracing::warn!(sector = %sector.id, %path, error = text, "a copy here does not say what is unsealed");
                    failure = Some(error);
                }
            }
        }
        let mut holders = self.index.find(sector.id, kind.into(), None).await?;
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.weight));
        let mut places = Vec::new();
        for holder in self.elsewhere(&holders) {
            places.extend(holder.urls.iter().map(|url| (&holder.id, url)));
        }
        for (path, url) in places {
            match self.allocated_at((path, url), sector, &span).await {
                Ok(true) => {
                    let place = Place::At { path: path.clone(), url: url.clone() };
                    return Ok(Some(UnsealedPiece { sector, span, place }));
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(sector = %sector.id, url, %error, "a holder did not say what is unsealed");
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    async fn allocated_at(
        &self,
        (path, url): (&StorageId, &str),
        sector: SectorRef,
        span: &Range<u64>,
    ) -> Result<bool, StoreError> {
        // Whole chunks of the padding: Lotus takes no others.
        let (from, end) = (span.start / RAW_CHUNK as u64, span.end.div_ceil(RAW_CHUNK as u64));
        let (offset, size) = (from * RAW_CHUNK as u64, (end - from) * RAW_CHUNK as u64);
        let token = self.token_for((path, url), (sector.id, FileType::Unsealed), FetchVerb::Get).await?;
        let asked = format!("{url}/{}/allocated/{offset}/{size}", sector.proof.number());
        let answer = self.fetcher.peer.ask(Method::GET, &asked, &token, None).await?;
        match answer.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(false),
            _ => Peer::expect(&asked, answer, StatusCode::OK).await.map(|_| true),
        }
    }

    /// The raw bytes `part` of a piece, counted from its beginning. Any offset and length within it will do.
    ///
    /// # Errors
    /// A part that does not lie in the piece, and a holder that does not answer. A stream that breaks off ends with an
    /// error, never early.
    pub async fn read_unsealed(
        &self,
        piece: &UnsealedPiece,
        part: Range<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, StoreError>> + Send + use<>, StoreError> {
        let UnsealedPiece { sector, span, place } = piece;
        let wanted = span.start.saturating_add(part.start)..span.start.saturating_add(part.end);
        if part.start > part.end || wanted.end > span.end {
            let (start, end, whole) = (part.start, part.end, piece.len());
            return Err(StoreError::OutsideSector { sector: sector.id, start, end, whole });
        }
        let source = match place {
            Place::Here(file) => Source::Here(local_parts(file.clone(), *sector, wanted)),
            Place::At { .. } if wanted.is_empty() => Source::Done,
            Place::At { path, url } => {
                Source::At(Box::new(self.padded_body((path, url), *sector, wanted).await?))
            }
        };
        Ok(stream::unfold(source, Source::next))
    }

    async fn padded_body(
        &self,
        (path, url): (&StorageId, &str),
        sector: SectorRef,
        wanted: Range<u64>,
    ) -> Result<PaddedBody, StoreError> {
        let outside = |_| StoreError::OutsideSector {
            sector: sector.id,
            start: wanted.start,
            end: wanted.end,
            whole: UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get(),
        };
        let window = Window::new(wanted.start, wanted.end - wanted.start).map_err(outside)?;
        let Range { start, end } = window.padded;
        let range = format!("bytes={start}-{}", end - 1);
        let header = HeaderValue::try_from(range).map_err(|error| broken(url, error))?;
        let token = self.token_for((path, url), (sector.id, FileType::Unsealed), FetchVerb::Get).await?;
        let answer = self.fetcher.peer.ask(Method::GET, url, &token, Some((RANGE, header))).await?;
        let answer = Peer::expect(url, answer, StatusCode::PARTIAL_CONTENT).await?;
        let said =
            answer.headers().get(CONTENT_RANGE).and_then(|said| said.to_str().ok()).unwrap_or_default();
        if !said.starts_with(&format!("bytes {start}-")) {
            let text = format!("bytes from {start} on were asked for, and {said:?} came");
            return Err(StoreError::PeerAnswer { url: url.to_owned(), status: 206, text });
        }
        Ok(PaddedBody {
            url: url.to_owned(),
            answer,
            padded_left: end - start,
            padded: Vec::new(),
            skip: window.skip,
            raw_left: window.len,
        })
    }
}

/// Whether a file here has these raw bytes.
async fn holds(file: PathBuf, sector: SectorRef, span: Range<u64>) -> Result<bool, StoreError> {
    let look = move || {
        let before = span.start % RAW_CHUNK as u64;
        let open = PartialFile::open_read_only(&file, sector.proof.sector_size());
        let open = open.map_err(|error| partial(file, error))?;
        let offset = UnpaddedOffset::try_from(span.start - before).expect("whole chunks of the padding");
        Ok(open.has_allocated(offset, span.end - span.start + before))
    };
    tokio::task::spawn_blocking(look)
        .await
        .map_err(|_| StoreError::Lost { what: "looking at unsealed data" })?
}

fn partial(path: PathBuf, source: PartialFileError) -> StoreError {
    StoreError::Io { action: "read unsealed data in", path, source: std::io::Error::other(source) }
}

type Part = Result<Bytes, StoreError>;

/// A thread that reads while the reader lives.
fn local_parts(file: PathBuf, sector: SectorRef, wanted: Range<u64>) -> mpsc::Receiver<Part> {
    let (parts, reading) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let read = || -> Result<(), StoreError> {
            let len = wanted.end - wanted.start;
            let opened = PieceReader::open(&file, sector.proof.sector_size(), wanted.start, len);
            let mut reader = opened.map_err(|error| partial(file.clone(), error))?;
            let mut left = len;
            while left > 0 {
                let mut part = vec![0; usize::try_from(left).unwrap_or(PART).min(PART)];
                reader.read_exact(&mut part).map_err(StoreError::io("read", &file))?;
                left -= part.len() as u64;
                if parts.blocking_send(Ok(part.into())).is_err() {
                    return Ok(()); // nobody reads on
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            // Nobody to tell it when the reader is gone.
            let _ = parts.blocking_send(Err(error));
        }
    });
    reading
}

/// Where the parts of a stream come from.
enum Source {
    Here(mpsc::Receiver<Part>),
    At(Box<PaddedBody>),
    /// It has ended, or failed.
    Done,
}

impl Source {
    async fn next(self) -> Option<(Part, Self)> {
        match self {
            Self::Here(mut parts) => parts.recv().await.map(|part| (part, Self::Here(parts))),
            Self::At(mut body) => match body.next().await {
                Ok(None) => None,
                Ok(Some(part)) => Some((Ok(part), Self::At(body))),
                Err(error) => Some((Err(error), Self::Done)),
            },
            Self::Done => None,
        }
    }
}

/// The padded bytes of a window on their way here.
struct PaddedBody {
    url: String,
    answer: Response<Incoming>,
    /// Padded bytes still to come.
    padded_left: u64,
    /// Those that make no whole chunk yet.
    padded: Vec<u8>,
    /// Raw bytes to drop from the front.
    skip: usize,
    /// Raw bytes still to be delivered.
    raw_left: u64,
}

impl PaddedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.raw_left > 0 {
            self.more().await?;
            let chunks = self.padded.len() / PADDED_CHUNK;
            if chunks == 0 {
                continue;
            }
            let mut raw = vec![0; chunks * RAW_CHUNK];
            unpad(&self.padded[..chunks * PADDED_CHUNK], &mut raw)
                .map_err(|error| broken(&self.url, error))?;
            self.padded.drain(..chunks * PADDED_CHUNK);
            let from = std::mem::take(&mut self.skip);
            let count = (raw.len() - from).min(usize::try_from(self.raw_left).unwrap_or(usize::MAX));
            self.raw_left -= count as u64;
            return Ok(Some(Bytes::from(raw).slice(from..from + count)));
        }
        Ok(None)
    }

    /// Waits for the next bytes of the body. More than was asked for is cut off: then all that is wanted is here.
    async fn more(&mut self) -> Result<(), StoreError> {
        let early = || {
            let text = format!("the body ended {} bytes early", self.padded_left);
            StoreError::PeerAnswer { url: self.url.clone(), status: 206, text }
        };
        let frame = match timeout(SILENCE_MAX, self.answer.body_mut().frame()).await {
            Err(late) => return Err(broken(&self.url, late)),
            Ok(None) => return Err(early()),
            Ok(Some(frame)) => frame.map_err(|error| broken(&self.url, error))?,
        };
        if let Ok(data) = frame.into_data() {
            let take = data.len().min(usize::try_from(self.padded_left).unwrap_or(usize::MAX));
            self.padded_left -= take as u64;
            self.padded.extend_from_slice(&data[..take]);
        }
        Ok(())
    }
}
