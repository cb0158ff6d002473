//! fr32 padding on streams: put on while reading, put on while writing, taken off while reading.
//!
//! Each holds one buffer of 64 KiB for either side, whatever flows through it. None of them delivers half a chunk: an
//! input that ends inside one is an error.

use std::io::{self, Read, Write};

use super::{Fr32Error, PADDED_CHUNK, RAW_CHUNK, Window, pad, unpad};

/// Chunks per buffer: 64 KiB of padded bytes stay in the second-level cache.
const CHUNKS: usize = 512;

const AFTER_ERROR: &str = "the stream failed before: what it would give now is no continuation";

/// Takes the padding off a stream of padded bytes and delivers the raw bytes of one [`Window`].
///
/// The stream must begin at `window.padded.start`; nothing beyond `window.padded.end` is read from it. A stream that
/// ends before the window does is an error of kind `UnexpectedEof`. After an error nothing more is delivered: what the stream
/// had given before it is lost, and the rest would be taken for other chunks than it is.
pub struct UnpadReader<R> {
    inner: R,
    /// Padded bytes still to be taken from `inner`.
    padded_left: u64,
    /// Raw bytes still to be delivered.
    raw_left: u64,
    padded: Vec<u8>,
    raw: Vec<u8>,
    /// What part of `raw` was delivered.
    taken: usize,
    skip: usize,
    broken: bool,
}

impl<R: Read> UnpadReader<R> {
    /// A reader of the raw bytes of `window`, whose padded bytes `inner` delivers.
    pub fn new(inner: R, window: &Window) -> Self {
        Self {
            inner,
            padded_left: window.padded.end.saturating_sub(window.padded.start),
            raw_left: window.len,
            padded: Vec::new(),
            raw: Vec::new(),
            taken: 0,
            skip: window.skip,
            broken: false,
        }
    }

    /// Raw bytes still to come.
    pub fn remaining(&self) -> u64 {
        self.raw_left
    }

    fn refill(&mut self) -> io::Result<()> {
        let most = (CHUNKS * PADDED_CHUNK) as u64;
        let take = self.padded_left.min(most) as usize;
        self.padded.resize(take, 0);
        self.inner.read_exact(&mut self.padded)?;
        self.raw.resize(take / PADDED_CHUNK * RAW_CHUNK, 0);
        unpad(&self.padded, &mut self.raw).map_err(invalid)?;
        self.padded_left -= take as u64;
        self.taken = std::mem::take(&mut self.skip);
        Ok(())
    }
}

impl<R: Read> Read for UnpadReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.raw_left == 0 || out.is_empty() {
            return Ok(0);
        }
        if self.broken {
            return Err(io::Error::other(AFTER_ERROR));
        }
        if self.taken == self.raw.len() {
            // A failed fill must not leave old bytes to be delivered as new ones.
            self.raw.clear();
            self.taken = 0;
            self.refill().inspect_err(|_| self.broken = true)?;
        }
        let ready = &self.raw[self.taken..];
        if ready.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the window is shorter than its raw length",
            ));
        }
        let count = ready.len().min(out.len()).min(usize::try_from(self.raw_left).unwrap_or(usize::MAX));
        out[..count].copy_from_slice(&ready[..count]);
        self.taken += count;
        self.raw_left -= count as u64;
        Ok(count)
    }
}

/// Puts the padding on a stream of raw bytes while it is read.
///
/// The stream must end on a multiple of 127 bytes; else the last read is an error of kind `InvalidData`. After an error nothing
/// more is delivered.
pub struct PadReader<R> {
    inner: R,
    raw: Vec<u8>,
    padded: Vec<u8>,
    taken: usize,
    ended: bool,
    broken: bool,
}

impl<R: Read> PadReader<R> {
    /// A reader of the padded form of what `inner` delivers.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            raw: vec![0; CHUNKS * RAW_CHUNK],
            padded: Vec::new(),
            taken: 0,
            ended: false,
            broken: false,
        }
    }
}

impl<R: Read> PadReader<R> {
    fn refill(&mut self) -> io::Result<()> {
        self.padded.clear();
        self.taken = 0;
        let filled = read_full(&mut self.inner, &mut self.raw)?;
        self.ended = filled < self.raw.len();
        if !filled.is_multiple_of(RAW_CHUNK) {
            return Err(invalid(Fr32Error::RawLength { bytes: filled }));
        }
        self.padded.resize(filled / RAW_CHUNK * PADDED_CHUNK, 0);
        pad(&self.raw[..filled], &mut self.padded).map_err(invalid)
    }
}

impl<R: Read> Read for PadReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::Error::other(AFTER_ERROR));
        }
        if self.taken == self.padded.len() && !self.ended && !out.is_empty() {
            self.refill().inspect_err(|_| self.broken = true)?;
        }
        let ready = &self.padded[self.taken..];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// Puts the padding on raw bytes on their way into a writer.
///
/// [`PadWriter::finish`] must be called: it writes what is still held back, and is where a total that is not a multiple
/// of 127 shows. Dropping the writer loses what is held back.
pub struct PadWriter<W> {
    inner: W,
    raw: Vec<u8>,
    padded: Vec<u8>,
}

impl<W: Write> PadWriter<W> {
    /// A writer that hands the padded form on to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, raw: Vec::with_capacity(CHUNKS * RAW_CHUNK), padded: vec![0; CHUNKS * PADDED_CHUNK] }
    }

    /// Writes the rest and gives the inner writer back, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.raw.len().is_multiple_of(RAW_CHUNK) {
            return Err(invalid(Fr32Error::RawLength { bytes: self.raw.len() }));
        }
        self.drain()?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn drain(&mut self) -> io::Result<()> {
        let padded = &mut self.padded[..self.raw.len() / RAW_CHUNK * PADDED_CHUNK];
        pad(&self.raw, padded).map_err(invalid)?;
        self.inner.write_all(padded)?;
        self.raw.clear();
        Ok(())
    }
}

impl<W: Write> Write for PadWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.raw.len() == CHUNKS * RAW_CHUNK {
            self.drain()?;
        }
        let count = bytes.len().min(CHUNKS * RAW_CHUNK - self.raw.len());
        self.raw.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Hands nothing on: half a chunk cannot be padded. The rest is written by [`PadWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads until `buffer` is full or the source ends; how many bytes were read.
pub(crate) fn read_full(source: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn invalid(error: Fr32Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delivers the numbers from 0 on, a few at a time, and fails once before the one at `fails_at`.
    struct Falters {
        at: usize,
        fails_at: Option<usize>,
    }

    impl Read for Falters {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.fails_at.is_some_and(|fails_at| self.at >= fails_at) {
                self.fails_at = None;
                return Err(io::ErrorKind::TimedOut.into());
            }
            let count = out.len().min(100);
            out[..count]
                .iter_mut()
                .enumerate()
                .for_each(|(index, byte)| *byte = (self.at + index) as u8 % 0x3F);
            self.at += count;
            Ok(count)
        }
    }

    #[test]
    fn after_an_error_nothing_is_delivered_that_would_be_taken_for_what_follows() {
        let mut out = [0; RAW_CHUNK];
        let window = Window::new(0, 4 * RAW_CHUNK as u64).expect("whole chunks");
        let mut unpads = UnpadReader::new(Falters { at: 0, fails_at: Some(300) }, &window);
        assert_eq!(unpads.read(&mut out).expect_err("it falters").kind(), io::ErrorKind::TimedOut);
        assert!(
            unpads.read(&mut out).expect_err("not to be gone on with").to_string().contains("failed before")
        );
        let mut pads = PadReader::new(Falters { at: 0, fails_at: Some(300) });
        assert_eq!(pads.read(&mut out).expect_err("it falters").kind(), io::ErrorKind::TimedOut);
        assert!(
            pads.read(&mut out).expect_err("not to be gone on with").to_string().contains("failed before")
        );
    }
}
