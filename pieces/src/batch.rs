//! A batch of raw bytes, padded and hashed on all threads of the current pool: every thread takes blocks that stay in its
//! nearest caches from the raw bytes to the root.
//!
//! Blocks of zeros are recognised and not hashed. Never knows where bytes come from or go to.

use rayon::prelude::*;

use crate::fr32::{self, PADDED_CHUNK, RAW_CHUNK};
use crate::node::{BLOCK, Node, block_root, subtree_root, zero_node};

/// Raw bytes that make one block of padded ones.
const BLOCK_RAW: usize = BLOCK / PADDED_CHUNK * RAW_CHUNK;

/// The level of a block's root.
const BLOCK_LEVEL: u32 = (BLOCK / 32).trailing_zeros();

/// Pads `raw` into `padded` and gives the root over it; nothing if all of it is zeros, which then stand in `padded`.
///
/// Panics if `raw` is not 127 times a power of two and `padded` not 128 times the same.
pub(crate) fn pad_and_hash(raw: &[u8], padded: &mut [u8]) -> Option<Node> {
    assert!(padded.len().is_power_of_two(), "a batch is a subtree");
    assert_eq!(raw.len() / RAW_CHUNK * PADDED_CHUNK, padded.len(), "the buffer is made for the batch");
    if padded.len() <= BLOCK {
        return pad_and_hash_block(raw, padded);
    }
    let blocks = padded.par_chunks_exact_mut(BLOCK).zip(raw.par_chunks_exact(BLOCK_RAW));
    let roots: Vec<Option<Node>> = blocks.map(|(padded, raw)| pad_and_hash_block(raw, padded)).collect();
    if roots.iter().all(Option::is_none) {
        return None;
    }
    let roots: Vec<Node> =
        roots.into_iter().map(|root| root.unwrap_or_else(|| zero_node(BLOCK_LEVEL))).collect();
    Some(subtree_root(roots.as_flattened()))
}

fn pad_and_hash_block(raw: &[u8], padded: &mut [u8]) -> Option<Node> {
    if is_zero(raw) {
        padded.fill(0);
        return None;
    }
    fr32::pad(raw, padded).expect("whole chunks, and a buffer made for them");
    Some(block_root(padded))
}

/// Whether all bytes are zero; of other data it looks at little more than the zeros it begins with.
fn is_zero(bytes: &[u8]) -> bool {
    let (lines, rest) = bytes.as_chunks::<64>();
    lines.iter().all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
