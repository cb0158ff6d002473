//! A sector's directory as a tar stream, as Lotus exchanges it: one flat directory, base names, regular files only.
//!
//! What we send has its end blocks; what Lotus sends ends after the last byte of its last file. So the end of a stream
//! proves nothing by itself: completeness is checked against the manifest or the stage of sealing.

mod read;
mod write;

pub(crate) use read::{extract, list};
pub(crate) use write::send;

/// A tar block (bytes).
const BLOCK: usize = 512;

/// Bytes that fill the last block of `size` bytes.
fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}
