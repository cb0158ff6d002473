//! Large files past the page cache: aligned buffers that are used again, and handles that read and write with them.
//!
//! A file system that refuses direct I/O (tmpfs) gets the ordinary kind, and so does a small file, which costs less so.
//! Everything here blocks.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use blake3::Hash;
use memmap2::{Advice, MmapMut};
use nix::fcntl::OFlag;
use rustix::fs::{SeekFrom, fadvise};
use rustix::io::Errno;

use crate::error::StoreError;

/// Offsets and lengths of direct I/O are multiples of this; no disk in use has larger logical blocks (bytes).
pub(crate) const ALIGN: usize = 4096;
/// A buffer's size (bytes): that of a large page.
pub(crate) const BUFFER: usize = 2 << 20;
/// Buffers kept for the next user, 64 MiB in all; more are given back to the system.
const KEPT_MAX: usize = 32;
/// Smaller files go through the page cache (bytes).
const SMALL: u64 = 1 << 20;
/// Buffers on their way in a local copy.
const COPY_AHEAD: usize = 4;

static KEPT: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// [`BUFFER`] bytes at an address that direct I/O takes. Fresh memory is slow to touch, so buffers are used again. Where the
/// kernel gives large pages, each is one: direct I/O holds on to every page that it reads or writes.
pub(crate) struct Buffer {
    bytes: MmapMut,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        // What is left over on both sides is never touched, and takes no memory.
        let bytes = MmapMut::map_anon(2 * BUFFER).expect("address space for a buffer");
        if let Err(error) = bytes.advise(Advice::HugePage) {
            tracing::debug!(%error, "buffers are made of small pages");
        }
        let start = bytes.as_ptr().align_offset(BUFFER).min(BUFFER);
        Self { bytes, start }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + BUFFER]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BUFFER]
    }
}

/// A buffer that goes back to the others when it is dropped, cut to its first `length` bytes for readers.
pub(crate) struct Lent {
    buffer: Option<Buffer>,
    length: usize,
}

impl Lent {
    /// A buffer with whatever an earlier user left in it.
    pub(crate) fn take() -> Self {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { buffer: Some(kept.unwrap_or_else(Buffer::new)), length: BUFFER }
    }

    /// Shows only the first `length` bytes from now on.
    pub(crate) fn cut(&mut self, length: usize) {
        self.length = length.min(BUFFER);
    }

    /// All of it, whatever was cut.
    pub(crate) fn whole(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_deref().map_or(&[], |bytes| &bytes[..self.length])
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = self.buffer.take().filter(|_| kept.len() < KEPT_MAX) {
            kept.push(buffer);
        }
    }
}

/// A file read in large pieces.
pub(crate) struct Source {
    file: File,
}

impl Source {
    /// # Errors
    /// As [`File::open`].
    pub(crate) fn open(path: &Path, length: u64) -> io::Result<Self> {
        if length >= SMALL
            && let Some(file) = direct(OpenOptions::new().read(true), path)?
        {
            return Ok(Self { file });
        }
        Ok(Self { file: File::open(path)? })
    }

    /// Fills `buffer` from `offset`, a multiple of [`ALIGN`]. Less than asked for means that the file ends there.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn read(&self, buffer: &mut Lent, offset: u64, wanted: usize) -> io::Result<usize> {
        let room = wanted.next_multiple_of(ALIGN).min(BUFFER);
        let into = buffer.whole();
        let mut got = 0;
        while got < wanted {
            match self.file.read_at(&mut into[got..room], offset + got as u64) {
                Ok(0) => break,
                // After a part that is no multiple of the alignment nothing but the file's end follows.
                Ok(count) => {
                    got += count;
                    if !count.is_multiple_of(ALIGN) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let got = got.min(wanted);
        buffer.cut(got);
        Ok(got)
    }

    /// Where the file has data at `offset` or behind it: from where to where. `None`: nothing but a hole follows. A file
    /// system that knows no holes has data everywhere.
    fn data(&self, offset: u64, length: u64) -> io::Result<Option<Range<u64>>> {
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..length)),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start))?;
        Ok(Some(start..end))
    }
}

/// A file of known length that is written in large pieces, in any order, by several threads.
pub(crate) struct Sink {
    file: File,
    length: u64,
    direct: bool,
}

impl Sink {
    /// Opens or creates (0644) the file; what is in it stays. Its blocks are laid out at once where `whole` says that
    /// every byte is going to be written.
    ///
    /// # Errors
    /// As the file system says; a full disk shows here already.
    pub(crate) fn open(path: &Path, length: u64, whole: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o644);
        let opened = if length >= SMALL { direct(&options, path)? } else { None };
        let is_direct = opened.is_some();
        let file = match opened {
            Some(file) => file,
            None => options.custom_flags(0).open(path)?,
        };
        let padded = if is_direct { length.next_multiple_of(ALIGN as u64) } else { length };
        if file.metadata()?.len() < padded {
            if whole && is_direct {
                lay_out(&file, padded)?;
            }
            file.set_len(padded)?;
        }
        Ok(Self { file, length, direct: is_direct })
    }

    /// Writes the first `count` bytes of `buffer` at `offset`, a multiple of [`ALIGN`]. Only the piece that ends the file
    /// may have another length than a multiple of it.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn write(&self, buffer: &mut Lent, offset: u64, count: usize) -> io::Result<()> {
        let bytes = buffer.whole();
        let padded = if self.direct { count.next_multiple_of(ALIGN).min(BUFFER) } else { count };
        bytes[count..padded].fill(0);
        self.file.write_all_at(&bytes[..padded], offset)
    }

    /// Makes what was written durable, not yet the length.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts the filling off and makes everything durable.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn finish(&self) -> io::Result<()> {
        if self.direct {
            self.file.set_len(self.length)?;
        }
        self.file.sync_all()
    }
}

/// Opens for direct I/O; `None` where the file system has none.
fn direct(options: &OpenOptions, path: &Path) -> io::Result<Option<File>> {
    match options.clone().custom_flags(OFlag::O_DIRECT.bits()).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EINVAL | nix::libc::EOPNOTSUPP)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reserves the file's blocks; where the file system cannot, they come as they are written.
fn lay_out(file: &File, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    match nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, length) {
        Err(nix::errno::Errno::ENOSPC) => Err(io::ErrorKind::StorageFull.into()),
        Err(nix::errno::Errno::EDQUOT) => Err(io::ErrorKind::QuotaExceeded.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Copies a file to `to`, which must not exist; durable on return. Where the file system can, the copy shares the blocks
/// of the original until one of them is written; else both are read and written at the same time. Holes are not read, and
/// zeros that fill a buffer become holes. Returns what was read as [`on_disk`] gives it, `None` where blocks are shared and
/// nothing was.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<Option<Hash>, StoreError> {
    let length = std::fs::metadata(from).map_err(StoreError::io("look at", from))?.len();
    let source = Source::open(from, length).map_err(StoreError::io("open", from))?;
    // Fails where something is there already.
    let target = crate::disk::create_new(to)?;
    let original = File::open(from).map_err(StoreError::io("open", from))?;
    // Refused by most file systems, and between two of them.
    if rustix::fs::ioctl_ficlone(&target, &original).is_ok() {
        return target.sync_all().map(|()| None).map_err(StoreError::io("sync", to));
    }
    drop((target, original));
    let sink = Sink::open(to, length, false).map_err(StoreError::io("write", to))?;
    let (send, receive) = sync_channel(COPY_AHEAD);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            // A writer that has gone says why itself.
            read_data(&source, from, length, |at, part| send.send((at, part)).is_ok())
        });
        let written = write_all(&sink, to, receive);
        let read = reader.join().unwrap_or(Err(StoreError::Lost { what: "reading a file to copy" }));
        written.and(read)
    })?;
    tracing::debug!(?to, length, read = read.bytes, "copied");
    sink.finish().map(|()| Some(read.hash)).map_err(StoreError::io("sync", to))
}

/// A file as its disk has it: what the page cache keeps of it is not asked, where the file system lets us. The hash is of
/// every [`BUFFER`] bytes that are not all zero, each behind its offset: that of two files of one length is the same exactly
/// when their bytes are, wherever their holes lie.
pub(crate) fn on_disk(path: &Path) -> Result<ReadBack, StoreError> {
    let length = std::fs::metadata(path).map_err(StoreError::io("look at", path))?.len();
    let source = Source::open(path, length).map_err(StoreError::io("open", path))?;
    // Direct I/O has no cache; for the ordinary kind this is advice, which tmpfs cannot take.
    if let Err(error) = fadvise(&source.file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(?path, %error, "the page cache is not told to forget a copy");
    }
    read_data(&source, path, length, |_, _| true)
}

/// What was read of a file.
pub(crate) struct ReadBack {
    pub(crate) hash: Hash,
    /// Bytes that were truly read: holes are not.
    pub(crate) bytes: u64,
}

/// Reads what data a file has, from its beginning to its end, or until `take` wants no more of it.
fn read_data(
    source: &Source,
    from: &Path,
    length: u64,
    mut take: impl FnMut(u64, Lent) -> bool,
) -> Result<ReadBack, StoreError> {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    let (mut offset, mut data_end) = (0, 0);
    while offset < length {
        if offset >= data_end {
            let Some(data) = source.data(offset, length).map_err(StoreError::io("look for data in", from))?
            else {
                break;
            };
            offset = data.start - data.start % BUFFER as u64;
            data_end = data.end;
        }
        let mut buffer = Lent::take();
        let wanted = usize::try_from(length - offset).unwrap_or(BUFFER).min(BUFFER);
        let got = source.read(&mut buffer, offset, wanted).map_err(StoreError::io("read", from))?;
        if got < wanted {
            return Err(StoreError::io("read", from)(io::ErrorKind::UnexpectedEof.into()));
        }
        bytes += got as u64;
        if !is_zero(buffer.as_ref()) {
            hasher.update(&offset.to_le_bytes()).update(buffer.as_ref());
            if !take(offset, buffer) {
                break;
            }
        }
        offset += got as u64;
    }
    // One that has become shorter has no data where it had some, like one with a hole there.
    let now = source.file.metadata().map_err(StoreError::io("look at", from))?.len();
    if now < length {
        return Err(StoreError::io("read", from)(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(ReadBack { hash: hasher.finalize(), bytes })
}

fn write_all(sink: &Sink, to: &Path, receive: Receiver<(u64, Lent)>) -> Result<(), StoreError> {
    for (offset, mut buffer) in receive {
        let count = buffer.as_ref().len();
        sink.write(&mut buffer, offset, count).map_err(StoreError::io("write", to))?;
    }
    Ok(())
}

/// Whether all bytes are zero; ends at the first that is not.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ALIGN).all(|part| part.iter().fold(0, |seen, byte| seen | byte) == 0)
}

#[cfg(test)]
mod tests;
