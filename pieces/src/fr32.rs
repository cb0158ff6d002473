//! fr32 padding: 127 raw bytes become 128 padded bytes, four field elements of 254 bits with two zero bits above each.
//!
//! Works on whole chunks in memory; the streaming forms stand in the child module. Never looks at the two padding bits
//! when taking padding off: what vouches for data is its commitment.

use std::ops::Range;

use crate::kernel;

mod stream;

pub(crate) use stream::read_full;
pub use stream::{PadReader, PadWriter, UnpadReader};

/// Raw bytes in one chunk.
pub const RAW_CHUNK: usize = 127;
/// Padded bytes in one chunk.
pub const PADDED_CHUNK: usize = 128;

/// The low 62 bits: what the last of a field element's four words carries.
const LAST_WORD: u64 = u64::MAX >> 2;

/// Pads `raw` into `out`. `raw` is a multiple of 127 bytes and `out` 128 bytes for each of them; else an error, and
/// `out` is left alone.
pub fn pad(raw: &[u8], out: &mut [u8]) -> Result<(), Fr32Error> {
    let (from, rest) = raw.as_chunks::<RAW_CHUNK>();
    if !rest.is_empty() {
        return Err(Fr32Error::RawLength { bytes: raw.len() });
    }
    let expected = from.len() * PADDED_CHUNK;
    if out.len() != expected {
        return Err(Fr32Error::OutputLength { bytes: out.len(), expected });
    }
    let (from, to) = kernel::pad(from, out.as_chunks_mut().0);
    for (from, to) in from.iter().zip(to) {
        pad_chunk(from, to);
    }
    Ok(())
}

/// Takes the padding off `padded` into `out`. `padded` is a multiple of 128 bytes and `out` 127 bytes for each of them;
/// else an error, and `out` is left alone.
pub fn unpad(padded: &[u8], out: &mut [u8]) -> Result<(), Fr32Error> {
    let (from, rest) = padded.as_chunks::<PADDED_CHUNK>();
    if !rest.is_empty() {
        return Err(Fr32Error::PaddedLength { bytes: padded.len() });
    }
    let expected = from.len() * RAW_CHUNK;
    if out.len() != expected {
        return Err(Fr32Error::OutputLength { bytes: out.len(), expected });
    }
    for (from, to) in from.iter().zip(out.as_chunks_mut::<RAW_CHUNK>().0) {
        unpad_chunk(from, to);
    }
    Ok(())
}

/// Element `e` starts at raw bit 254·e, that is 2·e bits before word 4·e: each padded word is two raw words shifted.
fn pad_chunk(raw: &[u8; RAW_CHUNK], out: &mut [u8; PADDED_CHUNK]) {
    let mut words = [0u64; 16];
    for (word, bytes) in words.iter_mut().zip(raw.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    // The last word has seven bytes: take it with the byte before it, so that it is one load, and shift that byte out.
    let tail: [u8; 8] = [raw[119], raw[120], raw[121], raw[122], raw[123], raw[124], raw[125], raw[126]];
    words[15] = u64::from_le_bytes(tail) >> 8;
    for (at, to) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let shift = 2 * (at as u32 / 4);
        let carry = if shift == 0 { 0 } else { words[at - 1] >> (64 - shift) };
        let word = words[at] << shift | carry;
        *to = if at % 4 == 3 { word & LAST_WORD } else { word }.to_le_bytes();
    }
}

/// The reverse: raw word k is padded word k shifted down, filled up from padded word k+1.
fn unpad_chunk(padded: &[u8; PADDED_CHUNK], out: &mut [u8; RAW_CHUNK]) {
    let mut words = [0u64; 16];
    for (at, (word, bytes)) in words.iter_mut().zip(padded.as_chunks::<8>().0).enumerate() {
        let value = u64::from_le_bytes(*bytes);
        *word = if at % 4 == 3 { value & LAST_WORD } else { value };
    }
    let (whole, tail) = out.as_chunks_mut::<8>();
    for (at, to) in whole.iter_mut().enumerate() {
        let shift = 2 * (at as u32 / 4);
        // A last word holds 62 - shift bits of its element; the next element's first word follows them.
        let room = if at % 4 == 3 { 62 - shift } else { 64 - shift };
        let above = if room == 64 { 0 } else { words[at + 1] << room };
        *to = (words[at] >> shift | above).to_le_bytes();
    }
    tail.copy_from_slice(&(words[15] >> 6).to_le_bytes()[..7]);
}

/// The padded bytes that hold a span of raw bytes, which may begin and end anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Padded bytes to read; both ends are multiples of 128.
    pub padded: Range<u64>,
    /// Raw bytes to drop from the front once the padding is off: 0 to 126.
    pub skip: usize,
    /// Raw bytes wanted after those.
    pub len: u64,
}

impl Window {
    /// The window of `len` raw bytes from raw byte `offset` on. An error if its padded end does not fit 64 bits.
    pub fn new(offset: u64, len: u64) -> Result<Self, Fr32Error> {
        let too_far = || Fr32Error::TooFar { offset, len };
        let end = offset.checked_add(len).ok_or_else(too_far)?;
        let start = (offset / 127).checked_mul(128).ok_or_else(too_far)?;
        // An empty span needs no byte, also when it lies within a chunk.
        let end = if len == 0 { start } else { end.div_ceil(127).checked_mul(128).ok_or_else(too_far)? };
        Ok(Self { padded: start..end, skip: (offset % 127) as usize, len })
    }
}

/// Lengths that padding cannot be put on or taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fr32Error {
    /// Raw bytes that make no whole chunks.
    #[error("{bytes} raw bytes cannot be padded; expected a multiple of 127")]
    RawLength {
        /// The length as given.
        bytes: usize,
    },
    /// Padded bytes that make no whole chunks.
    #[error("{bytes} padded bytes cannot be unpadded; expected a multiple of 128")]
    PaddedLength {
        /// The length as given.
        bytes: usize,
    },
    /// An output buffer that does not match its input.
    #[error("the output buffer has {bytes} bytes; expected {expected}")]
    OutputLength {
        /// The length as given.
        bytes: usize,
        /// The length that the input makes.
        expected: usize,
    },
    /// A span beyond what 64 bits can address.
    #[error("{len} raw bytes from offset {offset} end beyond the largest padded offset")]
    TooFar {
        /// First raw byte.
        offset: u64,
        /// Raw bytes.
        len: u64,
    },
}
