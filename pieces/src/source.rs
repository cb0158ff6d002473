//! Where a piece's raw bytes come from: a stream, or a file whose holes need not be read.
//!
//! Never pads or hashes anything.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::fr32::read_full;

/// Where a piece's raw bytes come from.
pub enum PieceData<'a> {
    /// All zeros: neither read nor hashed, and not written where the file system can avoid it.
    Zeros,
    /// A stream.
    Stream(&'a mut dyn Read),
    /// A file, from its current position on, which moves as if it was read. The holes of a regular file are neither read
    /// nor hashed; anything else, a pipe say, is read as a stream. Nobody may write to the file meanwhile.
    File(&'a File),
}

/// [`PieceData`] that has bytes to be read.
pub(crate) enum Source<'a> {
    Stream(&'a mut dyn Read),
    Pipe(&'a File),
    Regular(Regular<'a>),
}

/// What a buffer was filled with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Filled {
    /// Bytes; fewer than asked for only at the end of the source.
    pub held: usize,
    /// They are a hole: zeros, which were not put into the buffer.
    pub hole: bool,
}

impl<'a> Source<'a> {
    /// Nothing for zeros, which nobody needs to read.
    pub(crate) fn new(data: PieceData<'a>) -> io::Result<Option<Self>> {
        Ok(match data {
            PieceData::Zeros => None,
            PieceData::Stream(stream) => Some(Self::Stream(stream)),
            PieceData::File(file) => Some(match Regular::open(file)? {
                Some(regular) => Self::Regular(regular),
                None => Self::Pipe(file),
            }),
        })
    }

    /// Fills `buffer` as far as the source goes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Filled> {
        match self {
            Self::Stream(stream) => Ok(Filled { held: read_full(*stream, buffer)?, hole: false }),
            Self::Pipe(pipe) => Ok(Filled { held: read_full(pipe, buffer)?, hole: false }),
            Self::Regular(file) => file.fill(buffer),
        }
    }
}

/// A regular file that is being read.
pub(crate) struct Regular<'a> {
    file: &'a File,
    /// Its length when it was opened: a hole ends there.
    len: u64,
    /// The next byte to be read.
    at: u64,
    /// Up to where bytes were last found to be data.
    data_end: u64,
}

impl<'a> Regular<'a> {
    /// Nothing for what is no regular file.
    fn open(mut file: &'a File) -> io::Result<Option<Self>> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(None);
        }
        let at = file.stream_position()?;
        Ok(Some(Self { file, len: meta.len(), at, data_end: at }))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Filled> {
        let wanted = self.len.saturating_sub(self.at).min(buffer.len() as u64);
        if wanted == buffer.len() as u64 && self.at >= self.data_end && self.data_from()? >= self.at + wanted
        {
            self.at += wanted;
            self.leave_position()?;
            return Ok(Filled { held: buffer.len(), hole: true });
        }
        let mut held = 0;
        while held < buffer.len() {
            match self.file.read_at(&mut buffer[held..], self.at + held as u64) {
                Ok(0) => break,
                Ok(count) => held += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += held as u64;
        self.leave_position()?;
        Ok(Filled { held, hole: false })
    }

    /// Where the next data begins; the file's end if only a hole is left, this very place if that cannot be told.
    fn data_from(&mut self) -> io::Result<u64> {
        let offset = |at: u64| i64::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        let from = match lseek(self.file, offset(self.at)?, Whence::SeekData) {
            Ok(from) => from.cast_unsigned(),
            Err(Errno::ENXIO) => self.len,
            // The file system knows no holes.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => self.at,
            Err(errno) => return Err(errno.into()),
        };
        if from == self.at {
            // So that a file without holes is not asked again for every buffer.
            self.data_end = match lseek(self.file, offset(self.at)?, Whence::SeekHole) {
                Ok(end) => end.cast_unsigned(),
                Err(_) => self.len,
            };
        }
        Ok(from)
    }

    /// Others may read on from the same open file.
    fn leave_position(&self) -> io::Result<()> {
        let mut file = self.file;
        file.seek(SeekFrom::Start(self.at)).map(drop)
    }
}
