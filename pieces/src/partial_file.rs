//! The partial unsealed file: a sector's worth of padded data, then a trailer that says which bytes of it are there.
//!
//! Layout, as Lotus writes it: the sector's bytes; the [`rle`](crate::rle) code of the allocated padded bytes; that
//! code's length as a little-endian u32. A file of exactly the sector's size has no trailer and is all allocated.
//!
//! The order of writes is what makes it safe: data is on stable storage before the trailer calls it allocated, and the
//! trailer gives bytes up before they are freed. A new file keeps length 0 until its trailer is written, since one of
//! the sector's length would be read as full. A power cut in the middle of a trailer's change leaves a file that is
//! refused, never one that claims more than it holds. Never locks: one writer per file is for the caller to see to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sealtasks::{SectorSize, UnpaddedOffset};

use crate::fr32::Window;
use crate::ranges::Ranges;
use crate::rle::{self, RleError};

mod direct;
mod space;

pub(crate) use direct::DirectWriter;

/// The longest run-length code accepted or written, in bytes. Lotus warns above it; real ones have a few dozen.
pub const TRAILER_BYTES_MAX: u64 = 1 << 20;

/// Bytes of the length field at the end.
const LENGTH_FIELD: u64 = 4;

/// Bytes reserved behind the data when a file is made, so that a full disk cannot stop the trailer of a usual file.
const TRAILER_RESERVE: u64 = 4096;

/// An open partial unsealed file.
#[derive(Debug)]
pub struct PartialFile {
    file: File,
    path: PathBuf,
    sector: SectorSize,
    /// Padded bytes allocated, as the trailer said when it was last read or written.
    allocated: Ranges,
}

/// Whether a new file has its space from the beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Reserved,
    Sparse,
}

impl PartialFile {
    /// Makes a file for a sector, with its space reserved where the file system can and nothing allocated. An error
    /// leaves no file behind; one that exists already is left alone.
    pub fn create(path: &Path, sector: SectorSize) -> Result<Self, PartialFileError> {
        Self::create_with(path, sector, Room::Reserved)
    }

    /// The same without space of its own: for files that stay empty, as those of a rehearsal.
    pub fn create_sparse(path: &Path, sector: SectorSize) -> Result<Self, PartialFileError> {
        Self::create_with(path, sector, Room::Sparse)
    }

    fn create_with(path: &Path, sector: SectorSize, room: Room) -> Result<Self, PartialFileError> {
        let opened = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(PartialFileError::Exists { path: path.to_owned() });
            }
            opened => opened.map_err(|error| PartialFileError::io(path, "create", sector, error))?,
        };
        let mut new = Self { file, path: path.to_owned(), sector, allocated: Ranges::default() };
        new.initialise(room).inspect_err(|_| {
            // The first error is the one to report; what cannot be removed is refused when it is opened.
            let _ = fs::remove_file(path);
        })?;
        Ok(new)
    }

    fn initialise(&mut self, room: Room) -> Result<(), PartialFileError> {
        if room == Room::Reserved {
            let needed = self.sector.bytes() + TRAILER_RESERVE;
            space::reserve(&self.file, 0..needed).map_err(|error| self.failed("reserve space in", error))?;
        }
        // Durable with all the rest, by one wait for the disk.
        self.put_trailer(&Ranges::default()).map_err(|error| self.failed("write the trailer of", error))?;
        self.file.sync_all().map_err(|error| self.failed("sync", error))?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(parent.unwrap_or(Path::new(".")));
        directory
            .and_then(|directory| directory.sync_all())
            .map_err(|error| self.failed("sync the directory of", error))
    }

    /// Removes a file of length 0 at `path`, if one is there: what a crash leaves while a file is being made, which never
    /// held anything.
    pub fn remove_leftover(path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() && meta.len() == 0 => fs::remove_file(path),
            _ => Ok(()),
        }
    }

    /// Opens a file for reading and writing.
    pub fn open(path: &Path, sector: SectorSize) -> Result<Self, PartialFileError> {
        Self::open_with(path, sector, OpenOptions::new().read(true).write(true))
    }

    /// Opens a file for reading; whatever would change it fails.
    pub fn open_read_only(path: &Path, sector: SectorSize) -> Result<Self, PartialFileError> {
        Self::open_with(path, sector, OpenOptions::new().read(true))
    }

    fn open_with(path: &Path, sector: SectorSize, options: &OpenOptions) -> Result<Self, PartialFileError> {
        let file = options.open(path).map_err(|error| PartialFileError::io(path, "open", sector, error))?;
        let mut this = Self { file, path: path.to_owned(), sector, allocated: Ranges::default() };
        this.reload()?;
        Ok(this)
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the sector it is for.
    pub fn sector(&self) -> SectorSize {
        self.sector
    }

    /// The padded bytes that are allocated.
    pub fn allocated(&self) -> &Ranges {
        &self.allocated
    }

    /// Whether all of `size` unpadded bytes from `offset` on are allocated. What does not lie in the sector is not.
    pub fn has_allocated(&self, offset: UnpaddedOffset, size: u64) -> bool {
        Window::new(offset.get(), size).is_ok_and(|window| self.allocated.contains(window.padded))
    }

    /// A writer of padded bytes to `len` bytes from padded `offset` on, none of which may be allocated.
    ///
    /// What it wrote counts only after [`PartialFile::mark_allocated`].
    pub fn writer(&self, offset: u64, len: u64) -> Result<PartialWriter<'_>, PartialFileError> {
        let range = self.range(offset, len)?;
        if let Some(taken) = self.allocated.within(range.clone()).iter().next() {
            let (start, end) = (taken.start, taken.end);
            return Err(PartialFileError::Allocated { path: self.path.clone(), start, end });
        }
        Ok(PartialWriter { file: self, left: range })
    }

    /// Makes what was written to `len` bytes from padded `offset` on durable, then marks them allocated.
    pub fn mark_allocated(&mut self, offset: u64, len: u64) -> Result<(), PartialFileError> {
        let range = self.range(offset, len)?;
        self.file.sync_data().map_err(|error| self.failed("sync", error))?;
        self.change(|allocated| allocated.insert(range))
    }

    /// Marks padded bytes as not allocated and gives their disk space back. Space that lies around them and is not
    /// allocated either goes with them, so that no block stays for being shared by two freed ranges.
    pub fn free(&mut self, range: Range<u64>) -> Result<(), PartialFileError> {
        let range = self.range(range.start, range.end.saturating_sub(range.start))?;
        if range.is_empty() {
            return Ok(());
        }
        self.unmark(range.clone())?;
        let gaps = self.allocated.gaps(self.sector.bytes());
        for gap in gaps.iter().filter(|gap| gap.start < range.end && range.start < gap.end) {
            space::punch(&self.file, gap).map_err(|error| self.failed("free space in", error))?;
        }
        Ok(())
    }

    /// Marks padded bytes as not allocated and leaves them where they are.
    pub(crate) fn unmark(&mut self, range: Range<u64>) -> Result<(), PartialFileError> {
        self.change(|allocated| allocated.remove(range))
    }

    /// Writes padded bytes, whether allocated or not, all or an error.
    pub(crate) fn write_at(&self, padded: &[u8], offset: u64) -> Result<(), PartialFileError> {
        let range = self.range(offset, padded.len() as u64)?;
        self.file.write_all_at(padded, range.start).map_err(|error| self.failed("write", error))
    }

    /// Reads padded bytes, whether allocated or not.
    pub(crate) fn read_at(&self, padded: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(padded, offset)
    }

    /// Makes padded bytes zero, without writing them where the file system can.
    pub(crate) fn write_zeros(&self, range: Range<u64>) -> Result<(), PartialFileError> {
        if !space::clear(&self.file, range.clone()).map_err(|error| self.failed("clear", error))? {
            let zeros = vec![0; 1 << 20];
            let mut at = range.start;
            while at < range.end {
                let part = (range.end - at).min(zeros.len() as u64);
                self.write_at(&zeros[..part as usize], at)?;
                at += part;
            }
        }
        Ok(())
    }

    /// Drops the content of padded bytes that are not allocated, if that costs nothing; else leaves it.
    pub(crate) fn discard(&self, range: Range<u64>) {
        // Nobody reads bytes that are not allocated; this only keeps them from being written to disk in vain.
        let _ = space::clear(&self.file, range);
    }

    fn range(&self, offset: u64, len: u64) -> Result<Range<u64>, PartialFileError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.sector.bytes() => Ok(offset..end),
            _ => Err(PartialFileError::OutsideSector {
                path: self.path.clone(),
                offset,
                len,
                sector: self.sector,
            }),
        }
    }

    /// Changes the set of allocated bytes as it stands on disk, where another handle may have changed it.
    fn change(&mut self, change: impl FnOnce(&mut Ranges)) -> Result<(), PartialFileError> {
        self.reload()?;
        let mut next = self.allocated.clone();
        change(&mut next);
        if next != self.allocated {
            self.write_trailer(&next).inspect_err(|_| {
                // Nothing more can be done if this fails too: then the file is refused when it is opened next.
                let _ = self.put_trailer(&self.allocated).and_then(|()| self.file.sync_data());
            })?;
            self.allocated = next;
        }
        Ok(())
    }

    fn write_trailer(&self, allocated: &Ranges) -> Result<(), PartialFileError> {
        let bytes = rle::encode(allocated).len() as u64;
        if bytes > TRAILER_BYTES_MAX {
            return Err(PartialFileError::TrailerTooLong { path: self.path.clone(), bytes });
        }
        let put = self.put_trailer(allocated).and_then(|()| self.file.sync_data());
        put.map_err(|error| self.failed("write the trailer of", error))
    }

    fn put_trailer(&self, allocated: &Ranges) -> io::Result<()> {
        let mut trailer = rle::encode(allocated);
        trailer.extend_from_slice(&(trailer.len() as u32).to_le_bytes());
        // One write, within one disk block for any usual file. Cut only afterwards: a file cut to the sector's size
        // would be read as full.
        self.file.write_all_at(&trailer, self.sector.bytes())?;
        self.file.set_len(self.sector.bytes() + trailer.len() as u64)
    }

    fn reload(&mut self) -> Result<(), PartialFileError> {
        let data = self.sector.bytes();
        let meta = self.file.metadata().map_err(|error| self.failed("stat", error))?;
        let path = || self.path.clone();
        if !meta.is_file() || meta.len() < data {
            return Err(PartialFileError::TooSmall { path: path(), bytes: meta.len(), sector: self.sector });
        }
        let bytes = meta.len() - data;
        if bytes == 0 {
            self.allocated = Ranges::of(0..data);
            return Ok(());
        }
        let code_len = bytes.saturating_sub(LENGTH_FIELD);
        if code_len > TRAILER_BYTES_MAX {
            return Err(PartialFileError::TrailerTooLong { path: path(), bytes: code_len });
        }
        let mut trailer = vec![0; bytes as usize];
        self.file
            .read_exact_at(&mut trailer, data)
            .map_err(|error| self.failed("read the trailer of", error))?;
        let Some((code, field)) = trailer.split_last_chunk::<4>() else {
            return Err(PartialFileError::TrailerCut { path: path(), bytes });
        };
        let stated = u32::from_le_bytes(*field);
        if u64::from(stated) != code_len {
            return Err(PartialFileError::TrailerLength { path: path(), stated, found: code_len });
        }
        self.allocated =
            rle::decode(code, data).map_err(|source| PartialFileError::Trailer { path: path(), source })?;
        Ok(())
    }

    fn failed(&self, action: &'static str, error: io::Error) -> PartialFileError {
        PartialFileError::io(&self.path, action, self.sector, error)
    }
}

/// Writes padded bytes in order into one range of a partial file; writing beyond it is an error.
#[derive(Debug)]
pub struct PartialWriter<'a> {
    file: &'a PartialFile,
    left: Range<u64>,
}

impl PartialWriter<'_> {
    /// Padded bytes of the range that are not written yet.
    pub fn remaining(&self) -> u64 {
        self.left.end - self.left.start
    }
}

impl Write for PartialWriter<'_> {
    fn write(&mut self, padded: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.remaining()).unwrap_or(usize::MAX);
        if room == 0 && !padded.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more data than the range of the file holds",
            ));
        }
        let part = &padded[..padded.len().min(room)];
        let count = self.file.file.write_at(part, self.left.start)?;
        self.left.start += count as u64;
        Ok(count)
    }

    /// Does nothing: [`PartialFile::mark_allocated`] makes the data durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What can be wrong with a partial unsealed file, or with what is asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartialFileError {
    /// A file that was to be made exists.
    #[error("{} exists already; open it, or remove it if no piece in it is wanted", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The disk or a quota is full.
    #[error(
        "no space left to {action} {}, a file for a sector of {sector}; free space there or use another storage path",
        path.display()
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// The sector's size.
        sector: SectorSize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the system.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not a file, or one without room for the sector.
    #[error("{} has {bytes} bytes; an unsealed file of {sector} has at least {}", path.display(), sector.bytes())]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The sector size expected.
        sector: SectorSize,
    },
    /// A trailer shorter than its length field.
    #[error("{} has a trailer of {bytes} bytes; expected at least 4: the file is damaged or for another sector size", path.display())]
    TrailerCut {
        /// The file.
        path: PathBuf,
        /// Bytes behind the data.
        bytes: u64,
    },
    /// A trailer whose length field is wrong.
    #[error(
        "{} states a trailer of {stated} bytes but holds {found}: the file is damaged or for another sector size",
        path.display()
    )]
    TrailerLength {
        /// The file.
        path: PathBuf,
        /// What the length field says.
        stated: u32,
        /// Bytes between data and length field.
        found: u64,
    },
    /// A trailer beyond [`TRAILER_BYTES_MAX`].
    #[error("the trailer of {} has {bytes} bytes; at most {TRAILER_BYTES_MAX} are accepted", path.display())]
    TrailerTooLong {
        /// The file.
        path: PathBuf,
        /// Length of its run-length code.
        bytes: u64,
    },
    /// A trailer that does not decode.
    #[error("the trailer of {} is damaged; unseal the sector again", path.display())]
    Trailer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: RleError,
    },
    /// Bytes that do not lie in the sector.
    #[error("{len} bytes from padded offset {offset} of {} do not lie in a sector of {sector}", path.display())]
    OutsideSector {
        /// The file.
        path: PathBuf,
        /// First padded byte.
        offset: u64,
        /// How many.
        len: u64,
        /// The sector's size.
        sector: SectorSize,
    },
    /// Raw bytes that do not lie in the sector.
    #[error("{len} raw bytes from raw offset {offset} of {} do not lie in a sector of {sector}", path.display())]
    RawOutsideSector {
        /// The file.
        path: PathBuf,
        /// First raw byte.
        offset: u64,
        /// How many.
        len: u64,
        /// The sector's size.
        sector: SectorSize,
    },
    /// Bytes to be written that hold data already.
    #[error("padded bytes {start} to {end} of {} hold data already; free them first", path.display())]
    Allocated {
        /// The file.
        path: PathBuf,
        /// First padded byte that does.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// Bytes to be read that are not there.
    #[error("padded bytes {start} to {end} of {} are not unsealed; unseal them first", path.display())]
    NotAllocated {
        /// The file.
        path: PathBuf,
        /// First padded byte wanted.
        start: u64,
        /// One past the last.
        end: u64,
    },
}

impl PartialFileError {
    fn io(path: &Path, action: &'static str, sector: SectorSize, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path, action, sector, source }
            }
            _ => Self::Io { path, action, source },
        }
    }
}
