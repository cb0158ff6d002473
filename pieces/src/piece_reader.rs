//! Reads the raw bytes of a piece, or of any part of a sector, out of a partial unsealed file.
//!
//! Never reads bytes that are not allocated, and never unseals any.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use sealtasks::SectorSize;

use crate::fr32::{self, PADDED_CHUNK, RAW_CHUNK, Window};
use crate::partial_file::{PartialFile, PartialFileError};

/// Chunks read at once: 128 KiB of padded bytes.
const BATCH_CHUNKS: u64 = 1024;

/// Raw bytes of a span of a sector, read in order or from any place.
///
/// Position 0 is the span's first byte. Holds one buffer of 128 KiB for either form of the bytes.
#[derive(Debug)]
pub struct PieceReader {
    file: PartialFile,
    /// The span in raw bytes of the sector.
    span: Range<u64>,
    /// Where the next read begins, counted from the span's start; may lie beyond its end.
    position: u64,
    /// The raw bytes at hand, as raw bytes of the sector; always whole chunks.
    at_hand: Range<u64>,
    padded: Vec<u8>,
    raw: Vec<u8>,
}

impl PieceReader {
    /// A reader of `len` raw bytes from raw byte `offset` of the sector on; neither needs to fall on a padding boundary.
    /// An error if they do not lie in the sector or are not all allocated in the file.
    pub fn open(path: &Path, sector: SectorSize, offset: u64, len: u64) -> Result<Self, PartialFileError> {
        Self::new(PartialFile::open_read_only(path, sector)?, offset, len)
    }

    /// The same over a file that is open.
    pub fn new(file: PartialFile, offset: u64, len: u64) -> Result<Self, PartialFileError> {
        let sector = file.sector();
        let window = Window::new(offset, len).ok().filter(|window| window.padded.end <= sector.bytes());
        let Some(Window { padded: Range { start, end }, .. }) = window else {
            return Err(PartialFileError::RawOutsideSector {
                path: file.path().to_owned(),
                offset,
                len,
                sector,
            });
        };
        if !file.allocated().contains(start..end) {
            return Err(PartialFileError::NotAllocated { path: file.path().to_owned(), start, end });
        }
        let span = offset..offset + len;
        Ok(Self { file, span, position: 0, at_hand: 0..0, padded: Vec::new(), raw: Vec::new() })
    }

    /// Raw bytes in the span.
    pub fn span_len(&self) -> u64 {
        self.span.end - self.span.start
    }

    /// Fetches the batch that holds raw byte `at` of the sector.
    fn fetch(&mut self, at: u64) -> io::Result<()> {
        let first = at / RAW_CHUNK as u64;
        let end = self.span.end.div_ceil(RAW_CHUNK as u64);
        let chunks = (end - first).min(BATCH_CHUNKS);
        self.at_hand = 0..0;
        self.padded.resize(chunks as usize * PADDED_CHUNK, 0);
        self.raw.resize(chunks as usize * RAW_CHUNK, 0);
        self.file.read_at(&mut self.padded, first * PADDED_CHUNK as u64)?;
        fr32::unpad(&self.padded, &mut self.raw)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        self.at_hand = first * RAW_CHUNK as u64..(first + chunks) * RAW_CHUNK as u64;
        Ok(())
    }
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.span_len().saturating_sub(self.position);
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let at = self.span.start + self.position;
        if !self.at_hand.contains(&at) {
            self.fetch(at)?;
        }
        let ready = &self.raw[(at - self.at_hand.start) as usize..];
        let count = most.min(ready.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for PieceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.span_len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let bad = || {
            io::Error::new(io::ErrorKind::InvalidInput, "cannot seek to before the start or beyond 64 bits")
        };
        self.position = position.ok_or_else(bad)?;
        Ok(self.position)
    }
}
