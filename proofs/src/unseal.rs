//! Unseal and ReleaseUnsealed: data back from the replica, and disk space back from unsealed data.
//!
//! Only what is missing in the unsealed file is written, and nothing counts as unsealed before it is on stable storage.
//! Never: writes to the replica or into its cache, where the library would leave its labels in place of tree-d.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use filecoin_proofs_api::seal::get_unsealed_range_mapped;
use filecoin_proofs_api::{UnpaddedByteIndex, UnpaddedBytesAmount};
use pieces::commitment::PieceHasher;
use pieces::fr32::PadWriter;
use pieces::{PartialFile, PartialWriter};
use sealtasks::{
    FileType, ReleaseUnsealedInput, SectorRef, SectorSize, TaskOutput, UnpaddedPieceSize, UnsealInput,
    UnsealedRange,
};

use crate::data::partial_file_error;
use crate::files::Files;
use crate::seal::{number, prover};
use crate::{TaskError, to_library};

/// Recovers a range of unsealed data. Takes as long as PC1, whatever the range's length. A whole sector is checked
/// against CommD before it counts; a part of one cannot be.
pub(crate) fn unseal(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &UnsealInput,
) -> Result<TaskOutput, TaskError> {
    let size = sector.proof.sector_size();
    let wanted = padded_range(size, "input.range", &input.range)?;
    let path = files.path(FileType::Unsealed)?;
    PartialFile::remove_leftover(path).map_err(|source| TaskError::Io {
        doing: "removing the empty file of an earlier attempt",
        path: path.to_owned(),
        source,
    })?;
    let fresh = !path.exists();
    let opened = if fresh { PartialFile::create(path, size) } else { PartialFile::open(path, size) };
    let mut file = opened.map_err(|error| partial_file_error("Unseal", &error))?;
    let result = fill(sector, files, input, (&mut file, wanted));
    if result.is_err() && fresh {
        // A file that holds nothing would only be taken for one that does.
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "an empty unsealed file stays");
        }
    }
    result.map(|()| TaskOutput::Unseal)
}

fn fill(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &UnsealInput,
    (file, wanted): (&mut PartialFile, Range<u64>),
) -> Result<(), TaskError> {
    let gaps: Vec<Range<u64>> =
        file.allocated().gaps(sector.proof.sector_size().bytes()).within(wanted.clone()).iter().collect();
    if gaps.is_empty() {
        return Ok(());
    }
    let sealed = files.existing(FileType::Sealed)?;
    let scratch = Scratch::beside(file.path())?;
    let mut recovered = Recovered {
        hasher: PieceHasher::new(),
        padded: PadWriter::new(Gaps {
            at: wanted.start,
            writers: gaps
                .iter()
                .map(|gap| Ok((gap.start, file.writer(gap.start, gap.end - gap.start)?)))
                .collect::<Result<_, _>>()
                .map_err(|error| partial_file_error("Unseal", &error))?,
        }),
    };
    recover(sector, (&scratch.0, sealed), input, &mut recovered)?;
    drop(scratch);
    let Recovered { hasher, padded } = recovered;
    padded.finish().map_err(|source| TaskError::Io {
        doing: "writing",
        path: file.path().to_owned(),
        source,
    })?;
    check_whole(sector, input, hasher)?;
    for gap in gaps {
        file.mark_allocated(gap.start, gap.end - gap.start)
            .map_err(|error| partial_file_error("Unseal", &error))?;
    }
    Ok(())
}

fn recover(
    sector: &SectorRef,
    (scratch, sealed): (&Path, &Path),
    input: &UnsealInput,
    recovered: &mut Recovered<'_>,
) -> Result<(), TaskError> {
    let count = get_unsealed_range_mapped(
        to_library(sector.proof),
        scratch,
        sealed,
        recovered,
        prover(sector),
        number(sector),
        *input.unsealed.commitment().bytes(),
        input.ticket.0,
        UnpaddedByteIndex(input.range.offset.get()),
        UnpaddedBytesAmount(input.range.size),
    )
    .map_err(|error| TaskError::library("Unseal", &error))?;
    if count.0 == input.range.size {
        return Ok(());
    }
    let short = anyhow::anyhow!("the library recovered {} bytes instead of {}", count.0, input.range.size);
    Err(TaskError::library("Unseal", &short))
}

/// A directory for the labels that the library makes, as large as the sector (with multicore SDR, one for each layer).
///
/// It takes the replica's cache for that otherwise, and overwrites tree-d there. In `fetching/` beside the unsealed file,
/// which scans of the storage path skip, and clean up should the process be killed. Removed with its content when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(unsealed: &Path) -> Result<Self, TaskError> {
        let missing = || io::Error::new(io::ErrorKind::InvalidInput, "a path without a name");
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| TaskError::Io { doing, path, source }
        };
        let (Some(parent), Some(name)) = (unsealed.parent(), unsealed.file_name()) else {
            return Err(failed("looking at", unsealed)(missing()));
        };
        let mut own = name.to_owned();
        own.push(".labels");
        let directory = parent.join("fetching").join(own);
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(failed("removing", &directory))?;
        }
        fs::create_dir_all(&directory).map_err(failed("creating", &directory))?;
        Ok(Self(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "labels of an unsealed sector stay");
        }
    }
}

/// Compares a whole sector's data with CommD.
fn check_whole(sector: &SectorRef, input: &UnsealInput, hasher: PieceHasher) -> Result<(), TaskError> {
    let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size());
    if input.range.size != whole.get() {
        return Ok(());
    }
    let found = hasher.finish(whole).map_err(|error| TaskError::library("Unseal", &error.into()))?;
    if found == input.unsealed.commitment() {
        return Ok(());
    }
    let problem = format!(
        "{} is not what the replica holds under input.ticket: the recovered data has commitment {found}",
        input.unsealed
    );
    Err(TaskError::Input { field: "input.unsealed", problem })
}

/// Frees what is not to be kept. With nothing to keep all data goes and an empty file stays: removing it is the
/// business of the worker's storage, which also tells the index.
pub(crate) fn release(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &ReleaseUnsealedInput,
) -> Result<TaskOutput, TaskError> {
    let size = sector.proof.sector_size();
    let path = files.existing(FileType::Unsealed)?;
    let mut file =
        PartialFile::open(path, size).map_err(|error| partial_file_error("ReleaseUnsealed", &error))?;
    let mut free = file.allocated().clone();
    for keep in &input.keep {
        free.remove(padded_range(size, "input.keep", keep)?);
    }
    for range in free.iter() {
        file.free(range).map_err(|error| partial_file_error("ReleaseUnsealed", &error))?;
    }
    Ok(TaskOutput::ReleaseUnsealed)
}

/// The padded bytes of a range of raw ones.
fn padded_range(
    size: SectorSize,
    field: &'static str,
    range: &UnsealedRange,
) -> Result<Range<u64>, TaskError> {
    let whole = UnpaddedPieceSize::whole_sector(size).get();
    let (offset, bytes) = (range.offset.get(), range.size);
    let end = offset.checked_add(bytes).filter(|end| *end <= whole);
    match end {
        Some(end) if bytes > 0 && bytes.is_multiple_of(127) => Ok(range.offset.padded()..end / 127 * 128),
        _ => Err(TaskError::Input {
            field,
            problem: format!(
                "is {bytes} bytes from {offset} on; expected a multiple of 127, at least 127, within the {whole} bytes of \
                 a {size} sector"
            ),
        }),
    }
}

/// Where the library's raw bytes go: into the hasher, and padded into the gaps.
struct Recovered<'a> {
    hasher: PieceHasher,
    padded: PadWriter<Gaps<'a>>,
}

impl Write for Recovered<'_> {
    fn write(&mut self, raw: &[u8]) -> io::Result<usize> {
        let count = self.padded.write(raw)?;
        self.hasher.update(&raw[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.padded.flush()
    }
}

/// Padded bytes in order; those that lie in a gap are written, the others are there already.
struct Gaps<'a> {
    /// Where the next byte belongs.
    at: u64,
    /// The gaps still to be filled, in order: the first byte of each and its writer.
    writers: Vec<(u64, PartialWriter<'a>)>,
}

impl Write for Gaps<'_> {
    fn write(&mut self, padded: &[u8]) -> io::Result<usize> {
        while self.writers.first().is_some_and(|(_, writer)| writer.remaining() == 0) {
            self.writers.remove(0);
        }
        let Some((start, writer)) = self.writers.first_mut() else {
            self.at += padded.len() as u64;
            return Ok(padded.len()); // behind the last gap
        };
        let count = match usize::try_from(start.saturating_sub(self.at)) {
            Ok(0) => writer.write(padded)?,
            Ok(before_gap) => before_gap.min(padded.len()),
            Err(_) => padded.len(),
        };
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
