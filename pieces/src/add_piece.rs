//! AddPiece: writes one piece behind the others of a sector being filled; and DataCid: computes a commitment only.
//!
//! What an error leaves: the file as it was, or no file if there was none. Never decides where a piece goes: that is
//! the end of the pieces that the caller says are there.

use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sealtasks::{Commitment, PieceInfo, SectorSize, UnpaddedPieceSize};

use crate::commitment::{level, zero_commitment};
use crate::node::Frontier;
use crate::partial_file::{PartialFile, PartialFileError};
use crate::pump::{PumpError, pump};

/// Where a piece's raw bytes come from.
pub enum PieceData<'a> {
    /// All zeros: neither read nor hashed, and not written where the file system can avoid it.
    Zeros,
    /// A stream that must end exactly after the piece.
    Stream(&'a mut dyn Read),
}

/// Adds a piece of raw `size` to the partial unsealed file at `file`, behind the pieces of `existing`, and gives its
/// padded size and commitment.
///
/// The first piece makes the file; for a later one the existing pieces must be allocated in it. Each piece must lie at a
/// multiple of its own padded size. Bytes of this very piece that an earlier attempt left behind are replaced, marked
/// allocated or not; any other allocated bytes behind the existing pieces are an error.
pub fn add_piece(
    file: &Path,
    sector: SectorSize,
    existing: &[UnpaddedPieceSize],
    size: UnpaddedPieceSize,
    data: PieceData<'_>,
) -> Result<PieceInfo, PieceError> {
    let place = place(sector, existing, size)?;
    let mut target = Target::prepare(file, sector, place)?;
    let commitment = target.fill(size, data).inspect_err(|_| target.undo_fill())?;
    let marked = target.file.mark_allocated(target.place.start, size.padded().get());
    marked.inspect_err(|_| target.undo_mark())?;
    Ok(PieceInfo::new(size.padded(), commitment))
}

/// The padded size and commitment of a piece of raw `size` that begins with what `source` holds and goes on with zeros.
/// A source that holds more is an error.
pub fn data_cid(size: UnpaddedPieceSize, source: &mut dyn Read) -> Result<PieceInfo, PieceError> {
    let mut tree = Frontier::default();
    let pumped = pump(source, size.get(), |padded| {
        tree.push_leaves(padded);
        Ok::<_, PieceError>(())
    });
    if pumped? > size.get() {
        return Err(PieceError::SourceLong { size: size.get() });
    }
    Ok(PieceInfo::new(size.padded(), Commitment::new(tree.root(level(size.padded())))))
}

/// The padded bytes that the next piece takes.
fn place(
    sector: SectorSize,
    existing: &[UnpaddedPieceSize],
    size: UnpaddedPieceSize,
) -> Result<Range<u64>, PieceError> {
    let mut taken = 0..0u64;
    for (index, piece) in existing.iter().chain([&size]).enumerate() {
        let (offset, padded) = (taken.end, piece.padded().get());
        let free = sector.bytes() - offset;
        if padded > free {
            return Err(PieceError::NoRoom { index, size: piece.get(), padded, free, sector });
        }
        if !offset.is_multiple_of(padded) {
            // The offset is neither 0 nor the sector's end here, so both logarithms exist and the smaller one fits.
            let fits = 1u64 << offset.trailing_zeros().min(free.ilog2());
            return Err(PieceError::Misaligned {
                index,
                offset,
                size: piece.get(),
                padded,
                fits: fits / 128 * 127,
            });
        }
        taken = offset..offset + padded;
    }
    Ok(taken)
}

/// The file that a piece goes to, and the place in it.
struct Target {
    file: PartialFile,
    place: Range<u64>,
    /// Whether this attempt made the file: then its bytes are zeros, and undoing is removing it.
    fresh: bool,
}

impl Target {
    fn prepare(path: &Path, sector: SectorSize, place: Range<u64>) -> Result<Self, PieceError> {
        if place.start == 0 {
            // Length 0 is what a crash while the file was being made leaves; such a file never held anything.
            if fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
                fs::remove_file(path)
                    .map_err(|source| PieceError::Leftover { path: path.to_owned(), source })?;
            }
            match PartialFile::create(path, sector) {
                Err(PartialFileError::Exists { .. }) => {}
                created => return Ok(Self { file: created?, place, fresh: true }),
            }
        }
        let mut file = PartialFile::open(path, sector)?;
        if !file.allocated().contains(0..place.start) {
            return Err(PieceError::ExistingMissing { path: path.to_owned(), bytes: place.start });
        }
        let behind = file.allocated().within(place.start..sector.bytes());
        let own = behind.iter().all(|run| run == place);
        if let (Some(run), false) = (behind.iter().next(), own) {
            let (start, end) = (run.start, run.end);
            return Err(PieceError::Occupied { path: path.to_owned(), existing: place.start, start, end });
        }
        // Given up before it is overwritten, so that a crash in between cannot leave a mixture marked as data.
        file.unmark(place.clone())?;
        Ok(Self { file, place, fresh: false })
    }

    fn fill(&self, size: UnpaddedPieceSize, data: PieceData<'_>) -> Result<Commitment, PieceError> {
        match data {
            PieceData::Zeros => {
                if !self.fresh {
                    self.file.write_zeros(self.place.clone())?;
                }
                Ok(zero_commitment(size.padded()))
            }
            PieceData::Stream(source) => self.write(size, source),
        }
    }

    fn write(&self, size: UnpaddedPieceSize, source: &mut dyn Read) -> Result<Commitment, PieceError> {
        let mut tree = Frontier::default();
        let mut at = self.place.start;
        let pumped = pump(source, size.get(), |padded| {
            let (written, ()) = rayon::join(|| self.file.write_at(padded, at), || tree.push_leaves(padded));
            at += padded.len() as u64;
            written
        });
        let (held, size_raw) = (pumped?, size.get());
        if held < size_raw {
            return Err(PieceError::SourceShort { size: size_raw, held });
        }
        if held > size_raw {
            return Err(PieceError::SourceLong { size: size_raw });
        }
        Ok(Commitment::new(tree.root(level(size.padded()))))
    }

    /// Leaves the file as it was. What cannot be undone is bytes that nobody reads, since they are not marked.
    fn undo_fill(&self) {
        if !self.fresh {
            self.file.discard(self.place.clone());
        }
        self.undo_mark();
    }

    /// The same when marking failed. Then the trailer may say either on disk, so the data must stay.
    fn undo_mark(&self) {
        if self.fresh {
            // The first error is the one to report.
            let _ = fs::remove_file(self.file.path());
        }
    }
}

/// Why a piece was not added or its commitment not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PieceError {
    /// A piece behind the sector's end.
    #[error(
        "piece {index} of {size} bytes needs {padded} padded bytes, but a sector of {sector} has {free} left at that place"
    )]
    NoRoom {
        /// Which piece, counted from 0.
        index: usize,
        /// Its raw size in bytes.
        size: u64,
        /// Its padded size in bytes.
        padded: u64,
        /// Padded bytes left.
        free: u64,
        /// The sector's size.
        sector: SectorSize,
    },
    /// A piece that would not lie at a multiple of its size.
    #[error(
        "piece {index} of {size} bytes cannot lie at padded offset {offset}, which is no multiple of {padded}; \
         the largest piece that fits there has {fits} bytes"
    )]
    Misaligned {
        /// Which piece, counted from 0.
        index: usize,
        /// Where it would lie, in padded bytes.
        offset: u64,
        /// Its raw size in bytes.
        size: u64,
        /// Its padded size in bytes.
        padded: u64,
        /// Raw size of the largest piece that may lie there.
        fits: u64,
    },
    /// A stream that ended too early.
    #[error("wrong-sized piece: the source holds {held} bytes; the piece has {size}")]
    SourceShort {
        /// The piece's raw size in bytes.
        size: u64,
        /// Bytes that the source held.
        held: u64,
    },
    /// A stream that did not end.
    #[error("wrong-sized piece: the source holds more than {size} bytes; the piece has {size}")]
    SourceLong {
        /// The piece's raw size in bytes.
        size: u64,
    },
    /// A stream that failed.
    #[error("cannot read the piece's data")]
    Source(#[source] io::Error),
    /// Pieces that should be in the file and are not.
    #[error("the existing pieces take {bytes} padded bytes of {}, which are not all allocated in it", path.display())]
    ExistingMissing {
        /// The file.
        path: PathBuf,
        /// Padded bytes that should be allocated.
        bytes: u64,
    },
    /// Data in the way.
    #[error(
        "{} holds padded bytes {start} to {end} behind the existing pieces, which end at {existing}; name all pieces \
         that it holds, or remove it",
        path.display()
    )]
    Occupied {
        /// The file.
        path: PathBuf,
        /// Where the existing pieces end.
        existing: u64,
        /// First allocated byte behind them.
        start: u64,
        /// One past the last of its run.
        end: u64,
    },
    /// An empty file of an interrupted attempt that stays.
    #[error("cannot remove {}, an empty file left by an interrupted attempt", path.display())]
    Leftover {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The partial file.
    #[error(transparent)]
    File(#[from] PartialFileError),
}

impl<E: Into<PieceError>> From<PumpError<E>> for PieceError {
    fn from(error: PumpError<E>) -> Self {
        match error {
            PumpError::Source(error) => Self::Source(error),
            PumpError::Sink(error) => error.into(),
        }
    }
}
