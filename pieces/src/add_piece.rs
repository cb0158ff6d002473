//! AddPiece: writes one piece behind the others of a sector being filled; and DataCid: computes a commitment only.
//!
//! What an error leaves: the file as it was, or no file if there was none. Never decides where a piece goes: that is
//! the end of the pieces that the caller says are there.

use std::cmp::Ordering;
use std::fs;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealtasks::{Commitment, PieceInfo, SectorSize, UnpaddedPieceSize};

use crate::commitment::{level, zero_commitment};
use crate::partial_file::{DirectWriter, PartialFile, PartialFileError};
use crate::pump::{PumpError, Pumped, Sink, pump};
use crate::source::{PieceData, Source};

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
    let info = target.fill(size, data).inspect_err(|_| target.undo_fill())?;
    let marked = target.file.mark_allocated(target.place.start, size.padded().get());
    marked.inspect_err(|_| target.undo_mark())?;
    Ok(info)
}

/// The padded size and commitment of a piece of raw `size` that begins with what `data` holds and goes on with zeros. Data
/// that holds more is an error.
pub fn data_cid(size: UnpaddedPieceSize, data: PieceData<'_>) -> Result<PieceInfo, PieceError> {
    let Some(source) = Source::new(data).map_err(PieceError::Source)? else {
        return Ok(PieceInfo::new(size.padded(), zero_commitment(size.padded())));
    };
    let pumped = pump(source, size, None::<&Stream<'_>>)?;
    if pumped.held > size.get() {
        return Err(PieceError::SourceLong { size: size.get() });
    }
    Ok(info(size, pumped))
}

/// Writes the padded form of a piece of raw `size` to `target` and gives its padded size and commitment. Data of any other
/// length is an error, found when the wrong bytes may be written already.
pub fn pad_piece(
    size: UnpaddedPieceSize,
    data: PieceData<'_>,
    target: &mut (dyn Write + Send),
) -> Result<PieceInfo, PieceError> {
    let sink = Stream(Mutex::new(target));
    match Source::new(data).map_err(PieceError::Source)? {
        Some(source) => whole(size, pump(source, size, Some(&sink))?),
        None => {
            sink.zeros(0, size.padded().get())?;
            Ok(PieceInfo::new(size.padded(), zero_commitment(size.padded())))
        }
    }
}

/// A piece whose data had just its length.
fn whole(size: UnpaddedPieceSize, pumped: Pumped) -> Result<PieceInfo, PieceError> {
    match pumped.held.cmp(&size.get()) {
        Ordering::Less => Err(PieceError::SourceShort { size: size.get(), held: pumped.held }),
        Ordering::Greater => Err(PieceError::SourceLong { size: size.get() }),
        Ordering::Equal => Ok(info(size, pumped)),
    }
}

fn info(size: UnpaddedPieceSize, pumped: Pumped) -> PieceInfo {
    PieceInfo::new(size.padded(), Commitment::new(pumped.tree.root(level(size.padded()))))
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
            PartialFile::remove_leftover(path)
                .map_err(|source| PieceError::Leftover { path: path.to_owned(), source })?;
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

    fn fill(&self, size: UnpaddedPieceSize, data: PieceData<'_>) -> Result<PieceInfo, PieceError> {
        let Some(source) = Source::new(data).map_err(PieceError::Source)? else {
            if !self.fresh {
                self.file.write_zeros(self.place.clone())?;
            }
            return Ok(PieceInfo::new(size.padded(), zero_commitment(size.padded())));
        };
        let writer = DirectWriter::new(&self.file);
        let sink = Place { file: &self.file, writer, start: self.place.start, fresh: self.fresh };
        whole(size, pump(source, size, Some(&sink))?)
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

/// A place in a file that padded bytes go to.
struct Place<'a> {
    file: &'a PartialFile,
    writer: DirectWriter<'a>,
    /// Where the piece begins.
    start: u64,
    /// Whether the file reads as zeros there.
    fresh: bool,
}

impl Sink for Place<'_> {
    type Error = PieceError;

    /// While one waits for the disk, or for its turn on a core, the disk has the other's bytes.
    const WRITERS: usize = 2;

    fn data(&self, at: u64, padded: &[u8]) -> Result<(), PieceError> {
        Ok(self.writer.write_at(padded, self.start + at)?)
    }

    fn zeros(&self, at: u64, len: u64) -> Result<(), PieceError> {
        if !self.fresh {
            self.file.write_zeros(self.start + at..self.start + at + len)?;
        }
        Ok(())
    }
}

/// A stream that padded bytes go to.
struct Stream<'a>(Mutex<&'a mut (dyn Write + Send)>);

impl Sink for Stream<'_> {
    type Error = PieceError;

    const WRITERS: usize = 1;

    fn data(&self, _at: u64, padded: &[u8]) -> Result<(), PieceError> {
        self.target().write_all(padded).map_err(PieceError::Target)
    }

    fn zeros(&self, _at: u64, len: u64) -> Result<(), PieceError> {
        io::copy(&mut io::repeat(0).take(len), &mut *self.target()).map_err(PieceError::Target).map(drop)
    }
}

impl<'a> Stream<'a> {
    fn target(&self) -> MutexGuard<'_, &'a mut (dyn Write + Send)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// A stream that the padded bytes could not be written to.
    #[error("cannot write the piece's padded data")]
    Target(#[source] io::Error),
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
