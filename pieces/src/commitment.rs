//! Piece commitments (CommP) and the commitment to a sector's data (CommD).
//!
//! A commitment is the root of the binary SHA-256 tree over fr32-padded data. Zeros cost one known node per height.
//! Never reads a file or a stream.

use sealtasks::{Commitment, PaddedPieceSize, PieceInfo, SectorSize, UnpaddedPieceSize};

use crate::batch::pad_and_hash;
use crate::fr32::{self, PADDED_CHUNK, RAW_CHUNK};
use crate::node::{Frontier, LEAF, zero_node};

/// Chunks that are padded and hashed in one go: 1 MiB of padded bytes, sixteen blocks for the threads to share.
const BATCH_CHUNKS: usize = 8192;
const BATCH_RAW: usize = BATCH_CHUNKS * RAW_CHUNK;
const BATCH_LEVEL: u32 = ((BATCH_CHUNKS * PADDED_CHUNK) as u64 / LEAF).trailing_zeros();

/// Computes a piece's commitment from its raw bytes, given in parts of any length.
///
/// Holds two buffers of 1 MiB and one node per height of the tree, whatever the piece's size.
#[derive(Debug, Default)]
pub struct PieceHasher {
    tree: Frontier,
    /// Raw bytes so far.
    total: u64,
    /// Raw bytes that do not make a whole batch yet.
    raw: Vec<u8>,
    padded: Vec<u8>,
}

impl PieceHasher {
    /// A hasher that was given nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next raw bytes of the piece.
    pub fn update(&mut self, mut raw: &[u8]) {
        // A stream of 2^64 bytes cannot be; should it, then `finish` refuses it as longer than any piece.
        self.total = self.total.saturating_add(raw.len() as u64);
        while !raw.is_empty() {
            if self.raw.is_empty() && raw.len() >= BATCH_RAW {
                let (batch, rest) = raw.split_at(BATCH_RAW);
                hash_batch(&mut self.tree, batch, &mut self.padded);
                raw = rest;
                continue;
            }
            let (part, rest) = raw.split_at(raw.len().min(BATCH_RAW - self.raw.len()));
            self.raw.extend_from_slice(part);
            raw = rest;
            if self.raw.len() == BATCH_RAW {
                hash_batch(&mut self.tree, &self.raw, &mut self.padded);
                self.raw.clear();
            }
        }
    }

    /// The commitment of a piece of `size` that begins with the bytes given and goes on with zeros. An error if more
    /// bytes were given than the piece holds.
    pub fn finish(mut self, size: UnpaddedPieceSize) -> Result<Commitment, TreeError> {
        if self.total > size.get() {
            return Err(TreeError::DataExceedsPiece { given: self.total, size: size.get() });
        }
        let whole = self.raw.len().next_multiple_of(RAW_CHUNK);
        self.raw.resize(whole, 0);
        hash_batch(&mut self.tree, &self.raw, &mut self.padded);
        Ok(Commitment::new(self.tree.root(level(size.padded()))))
    }
}

/// Pads whole chunks, at most one batch of them, and appends them to the tree.
fn hash_batch(tree: &mut Frontier, raw: &[u8], padded: &mut Vec<u8>) {
    padded.resize(raw.len() / RAW_CHUNK * PADDED_CHUNK, 0);
    if raw.len() == BATCH_RAW {
        tree.push(BATCH_LEVEL, pad_and_hash(raw, padded).unwrap_or_else(|| zero_node(BATCH_LEVEL)));
        return;
    }
    fr32::pad(raw, padded).expect("the batch is whole chunks and the buffer was made for it");
    tree.push_leaves(padded);
}

/// The commitment of a piece of this size that is all zeros, from a table computed once.
pub fn zero_commitment(size: PaddedPieceSize) -> Commitment {
    Commitment::new(zero_node(level(size)))
}

/// CommD: the commitment of a sector that holds these pieces in this order.
///
/// Each piece lies at the next multiple of its own padded size; the gaps before it and the rest of the sector are
/// zeros, as filecoin-proofs and Lotus compute it. An error if the pieces, so placed, do not fit the sector.
pub fn combine(pieces: &[PieceInfo], sector: SectorSize) -> Result<Commitment, TreeError> {
    let mut tree = Frontier::default();
    for (index, piece) in pieces.iter().enumerate() {
        let size = piece.size.get();
        let end = tree.filled().checked_next_multiple_of(size).and_then(|start| start.checked_add(size));
        if end.is_none_or(|end| end > sector.bytes()) {
            let used = tree.filled();
            return Err(TreeError::PieceExceedsSector { index, size, used, sector });
        }
        tree.align(level(piece.size));
        tree.push(level(piece.size), *piece.cid.commitment().bytes());
    }
    Ok(Commitment::new(tree.root((sector.bytes() / LEAF).trailing_zeros())))
}

/// The height of the tree over this many padded bytes.
pub(crate) fn level(size: PaddedPieceSize) -> u32 {
    (size.get() / LEAF).trailing_zeros()
}

/// Data or pieces that do not fit where they were to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// More raw bytes than the piece holds.
    #[error("wrong-sized piece: {given} bytes were given for a piece of {size} bytes")]
    DataExceedsPiece {
        /// Raw bytes given.
        given: u64,
        /// The piece's raw size.
        size: u64,
    },
    /// A piece that ends behind the sector.
    #[error(
        "piece {index} of {size} padded bytes does not fit a sector of {sector} behind {used} bytes that are used"
    )]
    PieceExceedsSector {
        /// Which piece, counted from 0.
        index: usize,
        /// Its padded size in bytes.
        size: u64,
        /// Padded bytes before it, gaps included.
        used: u64,
        /// The sector's size.
        sector: SectorSize,
    },
}
