//! Piece sizes and piece infos. A piece of 127·2^n raw bytes becomes 128·2^n bytes of fr32-padded data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Commitment, SectorSize, UnsealedCid};

/// A piece's raw size in bytes: 127·2^n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct UnpaddedPieceSize(u64);

impl UnpaddedPieceSize {
    /// The whole of a sector as one piece.
    pub const fn whole_sector(size: SectorSize) -> Self {
        Self(size.bytes() / 128 * 127)
    }

    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The size after padding.
    pub const fn padded(self) -> PaddedPieceSize {
        PaddedPieceSize(self.0 / 127 * 128)
    }
}

impl TryFrom<u64> for UnpaddedPieceSize {
    type Error = PieceSizeError;

    fn try_from(bytes: u64) -> Result<Self, PieceSizeError> {
        let units = bytes / 127;
        if bytes.is_multiple_of(127) && units.is_power_of_two() && units <= 1 << 56 {
            Ok(Self(bytes))
        } else {
            Err(PieceSizeError::Unpadded { bytes })
        }
    }
}

impl From<UnpaddedPieceSize> for u64 {
    fn from(size: UnpaddedPieceSize) -> u64 {
        size.0
    }
}

impl fmt::Display for UnpaddedPieceSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A piece's size after fr32 padding, in bytes: a power of two, at least 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct PaddedPieceSize(u64);

impl PaddedPieceSize {
    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The size before padding.
    pub const fn unpadded(self) -> UnpaddedPieceSize {
        UnpaddedPieceSize(self.0 / 128 * 127)
    }
}

impl TryFrom<u64> for PaddedPieceSize {
    type Error = PieceSizeError;

    fn try_from(bytes: u64) -> Result<Self, PieceSizeError> {
        if bytes >= 128 && bytes.is_power_of_two() {
            Ok(Self(bytes))
        } else {
            Err(PieceSizeError::Padded { bytes })
        }
    }
}

impl From<PaddedPieceSize> for u64 {
    fn from(size: PaddedPieceSize) -> u64 {
        size.0
    }
}

impl fmt::Display for PaddedPieceSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A byte offset into unpadded data that falls on a padding boundary: a multiple of 127.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct UnpaddedOffset(u64);

impl UnpaddedOffset {
    /// The offset in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The same place in padded data.
    pub const fn padded(self) -> u64 {
        self.0 / 127 * 128
    }
}

impl TryFrom<u64> for UnpaddedOffset {
    type Error = PieceSizeError;

    fn try_from(bytes: u64) -> Result<Self, PieceSizeError> {
        if bytes.is_multiple_of(127) && bytes <= u64::MAX / 128 {
            Ok(Self(bytes))
        } else {
            Err(PieceSizeError::Offset { bytes })
        }
    }
}

impl From<UnpaddedOffset> for u64 {
    fn from(offset: UnpaddedOffset) -> u64 {
        offset.0
    }
}

/// A piece as it lies in a sector: its padded size and its commitment (CommP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PieceInfo {
    /// Padded size.
    pub size: PaddedPieceSize,
    /// CommP as a CID.
    pub cid: UnsealedCid,
}

impl PieceInfo {
    /// A piece of this padded size with this commitment.
    pub const fn new(size: PaddedPieceSize, commitment: Commitment) -> Self {
        Self { size, cid: UnsealedCid::new(commitment) }
    }
}

/// A number that is no piece size or offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceSizeError {
    /// Not 127·2^n.
    #[error("{bytes} bytes is no unpadded piece size; expected 127 times a power of two")]
    Unpadded {
        /// The size as given.
        bytes: u64,
    },
    /// Not a power of two of at least 128.
    #[error("{bytes} bytes is no padded piece size; expected a power of two, at least 128")]
    Padded {
        /// The size as given.
        bytes: u64,
    },
    /// Not a multiple of 127.
    #[error("offset {bytes} is not on a padding boundary; expected a multiple of 127")]
    Offset {
        /// The offset as given.
        bytes: u64,
    },
}
