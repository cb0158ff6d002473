//! RLE+, the run-length code of the trailer of partial unsealed files.
//!
//! A stream of bits, lowest first in each byte: two bits of version (0), one bit that says whether the first run is set,
//! then the lengths of runs that are set and not set by turns: `1` is a run of 1; `01` and four bits one of up to 15;
//! `00` and a LEB128 number a longer one. Zero bytes at the end are cut off; reading beyond the end gives zeros. The
//! empty set is no bytes at all. Never reads or writes a file.

use crate::ranges::Ranges;

/// The code of a set, the one shortest form: no unset run at the end, each length in its shortest block.
pub fn encode(set: &Ranges) -> Vec<u8> {
    let mut bits = BitWriter::default();
    if set.is_empty() {
        return bits.bytes;
    }
    bits.push(0, 2);
    bits.push(u64::from(set.contains(0..1)), 1);
    let mut end = 0;
    for run in set.iter() {
        if run.start > end {
            bits.push_run(run.start - end);
        }
        bits.push_run(run.end - run.start);
        end = run.end;
    }
    while bits.bytes.pop_if(|byte| *byte == 0).is_some() {}
    bits.bytes
}

/// The set that a code stands for. Longer blocks than needed and an unset run at the end are accepted, as other
/// writers may leave them; a set offset at or beyond `limit` is not.
///
/// Memory is at most 16 bytes for every four bits of the code; the caller bounds the code's length.
pub fn decode(code: &[u8], limit: u64) -> Result<Ranges, RleError> {
    let mut set = Ranges::default();
    let Some(last) = code.last() else { return Ok(set) };
    if *last == 0 {
        return Err(RleError::TrailingZero);
    }
    let mut bits = BitReader { code, at: 0 };
    let version = bits.take(2);
    if version != 0 {
        return Err(RleError::Version { version });
    }
    let mut is_set = bits.take(1) == 1;
    let mut start = 0u64;
    while !bits.only_zeros_left() {
        let len = bits.take_run()?;
        let end = start.checked_add(len).ok_or(RleError::RunTooLong)?;
        if is_set {
            if end > limit {
                return Err(RleError::BeyondLimit { end, limit });
            }
            set.insert(start..end);
        }
        (start, is_set) = (end, !is_set);
    }
    Ok(set)
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used of the last byte; 0 when a new byte is due.
    used: u32,
}

impl BitWriter {
    fn push(&mut self, value: u64, count: u32) {
        for bit in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(byte) = self.bytes.last_mut() {
                *byte |= ((value >> bit & 1) as u8) << self.used;
            }
            self.used = (self.used + 1) % 8;
        }
    }

    fn push_run(&mut self, len: u64) {
        match len {
            1 => self.push(1, 1),
            2..=15 => {
                self.push(0b10, 2);
                self.push(len, 4);
            }
            _ => {
                self.push(0, 2);
                let mut rest = len;
                while rest >= 0x80 {
                    self.push(rest & 0x7f | 0x80, 8);
                    rest >>= 7;
                }
                self.push(rest, 8);
            }
        }
    }
}

struct BitReader<'a> {
    code: &'a [u8],
    /// The next bit.
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, count: u32) -> u64 {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.code.get(self.at / 8).copied().unwrap_or(0);
            value |= u64::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        value
    }

    fn take_run(&mut self) -> Result<u64, RleError> {
        let len = if self.take(1) == 1 {
            1
        } else if self.take(1) == 1 {
            self.take(4)
        } else {
            self.take_varint()?
        };
        if len == 0 { Err(RleError::EmptyRun) } else { Ok(len) }
    }

    fn take_varint(&mut self) -> Result<u64, RleError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(8);
            let part = byte & 0x7f;
            if shift == 63 && part > 1 {
                return Err(RleError::RunTooLong);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                // A number cut off in its middle would read on as zeros.
                return if part == 0 && shift > 0 { Err(RleError::CutNumber) } else { Ok(value) };
            }
        }
        Err(RleError::RunTooLong)
    }

    /// The last byte is not zero, so only it needs a look.
    fn only_zeros_left(&self) -> bool {
        match self.code.len().checked_sub(self.at / 8) {
            None | Some(0) => true,
            Some(1) => self.code[self.at / 8] >> (self.at % 8) == 0,
            Some(_) => false,
        }
    }
}

/// Bytes that are no RLE+ code, or one of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RleError {
    /// The code ends in a zero byte.
    #[error("the run-length code ends in a zero byte, which no writer leaves")]
    TrailingZero,
    /// A version that is not known.
    #[error("run-length code of version {version}; known is 0")]
    Version {
        /// The version found.
        version: u64,
    },
    /// A run of no length.
    #[error("the run-length code holds a run of length 0")]
    EmptyRun,
    /// A run or sum of runs beyond 64 bits.
    #[error("the run-length code holds runs beyond the largest offset")]
    RunTooLong,
    /// A length whose last part is missing or zero.
    #[error("the run-length code holds a length that is cut off")]
    CutNumber,
    /// Offsets set that do not exist.
    #[error("the run-length code marks bytes up to {end}, but there are only {limit}")]
    BeyondLimit {
        /// One past the last byte marked.
        end: u64,
        /// How many bytes there are.
        limit: u64,
    },
}
