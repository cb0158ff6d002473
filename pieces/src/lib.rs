//! Pieces: fr32 padding, piece commitments (CommP) and sector data commitments (CommD), partial unsealed files, and
//! what is built on them: AddPiece, DataCid and reading a piece back.
//!
//! Everything here is synchronous and uses the threads of rayon's current pool. Memory is constant, whatever the size
//! of a piece. Zeros and holes of files are not hashed. This room never touches a network, an index, a runtime, a clock or randomness, and it knows no proofs
//! library: that library is the oracle in the tests of the room `proofs`.
//!
//! What a crash loses: the piece that was being added. Bytes are on stable storage before the trailer calls them
//! allocated, so whatever a file calls allocated is there.

mod add_piece;
mod batch;
pub mod commitment;
pub mod fr32;
mod kernel;
mod node;
mod partial_file;
mod piece_reader;
mod pump;
pub mod ranges;
pub mod rle;
mod source;

pub use add_piece::{PieceError, add_piece, data_cid, pad_piece};
pub use kernel::Kernel;
pub use partial_file::{PartialFile, PartialFileError, PartialWriter, TRAILER_BYTES_MAX};
pub use piece_reader::PieceReader;
pub use source::PieceData;
