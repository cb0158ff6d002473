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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read};

    use rayon::ThreadPoolBuilder;
    use sealtasks::UnpaddedPieceSize;

    use super::*;
    use crate::add_piece::{data_cid, pad_piece};
    use crate::commitment::zero_commitment;
    use crate::node::{HASHED, LEVELS};
    use crate::source::PieceData;

    /// 16 MiB padded, which go through in batches of 2 MiB.
    const PIECE: u64 = 127 << 17;
    const BATCHES: u64 = 8;
    /// Nodes above the leaves of a block, and of a batch.
    const IN_BLOCK: u64 = BLOCK as u64 / 32 - 1;
    const IN_BATCH: u64 = (2 << 20) / 32 - 1;

    /// How many nodes are hashed by a pool that does this.
    fn hashed(job: impl FnOnce() + Send) -> u64 {
        // The table of zeros is computed once, whoever is first.
        zero_node(LEVELS as u32 - 1);
        let pool = ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
        pool.install(job);
        pool.broadcast(|_| HASHED.with(std::cell::Cell::get)).iter().sum()
    }

    fn size() -> UnpaddedPieceSize {
        UnpaddedPieceSize::try_from(PIECE).expect("a piece's size")
    }

    #[test]
    fn zeros_are_not_hashed() {
        let expected = zero_commitment(size().padded());
        assert_eq!(
            hashed(|| assert_eq!(
                data_cid(size(), PieceData::Zeros).expect("zeros").cid.commitment(),
                expected
            )),
            0
        );
        let from = |data: PieceData<'_>| {
            let info = pad_piece(size(), data, &mut io::sink()).expect("a piece");
            assert_eq!(info.cid.commitment(), expected);
        };
        let stream = hashed(|| from(PieceData::Stream(&mut io::repeat(0).take(PIECE))));
        let hole = tempfile::tempfile().expect("a file");
        hole.set_len(PIECE).expect("a hole");
        let file = hashed(|| from(PieceData::File(&hole)));
        // Nothing but what joins the batches.
        assert_eq!((stream, file), (BATCHES - 1, BATCHES - 1));
    }

    #[test]
    fn only_blocks_with_data_are_hashed() {
        // One byte that is not zero in the first block, and in the last.
        let mut raw = vec![0; PIECE as usize];
        (raw[5], raw[PIECE as usize - 1]) = (1, 1);
        let mut some = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut some, &raw).expect("written");
        io::Seek::rewind(&mut some).expect("rewound");
        let all = vec![1; PIECE as usize];
        let count = |data: &[u8]| {
            hashed(|| {
                data_cid(size(), PieceData::Stream(&mut &data[..])).expect("a piece");
            })
        };
        let file = |file: &File| {
            hashed(|| {
                data_cid(size(), PieceData::File(file)).expect("a piece");
            })
        };
        let above_blocks = (2 << 20) / BLOCK as u64 - 1;
        let two = 2 * (IN_BLOCK + above_blocks) + BATCHES - 1;
        assert_eq!((count(&raw), file(&some)), (two, two));
        assert_eq!(count(&all), BATCHES * IN_BATCH + BATCHES - 1, "each node of the tree, once");
    }
}
