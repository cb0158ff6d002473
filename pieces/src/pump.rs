//! Moves a piece's raw bytes from a stream to where they are used, padded, reading ahead while they are used.
//!
//! Holds three buffers of at most 1 MiB. Never knows what is done with the bytes.

use std::io::{self, Read};

use crate::fr32::{self, PADDED_CHUNK, RAW_CHUNK, read_full};

/// Chunks that go through at once: 1 MiB of padded bytes. Four times as much was slower for pieces of 8 MiB, as fresh
/// memory costs more than the calls it saves.
const BATCH_CHUNKS: u64 = 8192;

/// Reads `source` up to `size` raw bytes and hands them on padded, batch by batch, on a thread of the current pool while
/// the calling thread reads the next batch. If the source ends inside a chunk, the chunk is filled up with zeros.
///
/// Gives how many raw bytes the source held; one more than `size` if it held more. Whatever was not read of such a
/// source stays unread.
pub(crate) fn pump<E: Send>(
    source: &mut dyn Read,
    size: u64,
    mut sink: impl FnMut(&[u8]) -> Result<(), E> + Send,
) -> Result<u64, PumpError<E>> {
    let batch = size.div_ceil(RAW_CHUNK as u64).min(BATCH_CHUNKS) as usize;
    let mut these = vec![0; batch * RAW_CHUNK];
    let mut next = vec![0; batch * RAW_CHUNK];
    let mut padded = vec![0; batch * PADDED_CHUNK];
    let mut total = 0;
    let mut filled = read_full(source, room(&mut these, size)).map_err(PumpError::Source)?;
    while filled > 0 {
        total += filled as u64;
        let whole = filled.next_multiple_of(RAW_CHUNK);
        these[filled..whole].fill(0);
        let out = &mut padded[..whole / RAW_CHUNK * PADDED_CHUNK];
        let mut sunk = Ok(());
        let read = rayon::in_place_scope(|scope| {
            scope.spawn(|_| {
                fr32::pad(&these[..whole], out).expect("whole chunks, and a buffer made for them");
                sunk = sink(out);
            });
            read_full(source, room(&mut next, size - total))
        });
        sunk.map_err(PumpError::Sink)?;
        filled = read.map_err(PumpError::Source)?;
        std::mem::swap(&mut these, &mut next);
    }
    if total == size {
        total += read_full(source, &mut [0]).map_err(PumpError::Source)? as u64;
    }
    Ok(total)
}

fn room(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    &mut buffer[..len]
}

/// Which end failed.
#[derive(Debug)]
pub(crate) enum PumpError<E> {
    /// The stream could not be read.
    Source(io::Error),
    /// The bytes could not be used.
    Sink(E),
}
