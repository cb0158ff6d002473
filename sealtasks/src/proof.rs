//! Registered seal proofs, numbered as the chain and Lotus number them, and the sector sizes they fix.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The five sector sizes of the network; the first three exist for tests and development networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SectorSize {
    /// 2 KiB.
    #[serde(rename = "2KiB")]
    KiB2,
    /// 8 MiB.
    #[serde(rename = "8MiB")]
    MiB8,
    /// 512 MiB.
    #[serde(rename = "512MiB")]
    MiB512,
    /// 32 GiB.
    #[serde(rename = "32GiB")]
    GiB32,
    /// 64 GiB.
    #[serde(rename = "64GiB")]
    GiB64,
}

impl SectorSize {
    /// Every size, smallest first.
    pub const ALL: [Self; 5] = [Self::KiB2, Self::MiB8, Self::MiB512, Self::GiB32, Self::GiB64];

    /// The padded size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::KiB2 => 2 << 10,
            Self::MiB8 => 8 << 20,
            Self::MiB512 => 512 << 20,
            Self::GiB32 => 32 << 30,
            Self::GiB64 => 64 << 30,
        }
    }

    /// The size whose padded length is `bytes`, if there is one.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.bytes() == bytes)
    }

    /// As Lotus writes it in resource variables: `2K`, `8M`, `512M`, `32G`, `64G`.
    pub const fn short(self) -> &'static str {
        match self {
            Self::KiB2 => "2K",
            Self::MiB8 => "8M",
            Self::MiB512 => "512M",
            Self::GiB32 => "32G",
            Self::GiB64 => "64G",
        }
    }

    /// Sizes that exist for tests and private networks only; they may be sealed without a chain.
    pub const fn is_test_size(self) -> bool {
        matches!(self, Self::KiB2 | Self::MiB8 | Self::MiB512)
    }

    /// Layers of the stacked graph: 2 for the test sizes, 11 for production.
    pub const fn layers(self) -> usize {
        if self.is_test_size() { 2 } else { 11 }
    }

    /// Bytes of labels that lie on disk while a sector is unsealed, beside the data: one layer, or with multicore SDR all of
    /// them. Source: `StackedDrg::extract_all`, which keeps no more.
    pub const fn unsealing_labels(self, multicore: bool) -> u64 {
        // At most 704 GiB.
        if multicore { self.bytes() * self.layers() as u64 } else { self.bytes() }
    }

    /// Trees that tree-c and tree-r-last are split into: 1 for the test sizes, 8 for 32 GiB, 16 for 64 GiB.
    pub const fn tree_count(self) -> usize {
        match self {
            Self::KiB2 | Self::MiB8 | Self::MiB512 => 1,
            Self::GiB32 => 8,
            Self::GiB64 => 16,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::KiB2 => 0,
            Self::MiB8 => 1,
            Self::MiB512 => 2,
            Self::GiB32 => 3,
            Self::GiB64 => 4,
        }
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KiB2 => "2KiB",
            Self::MiB8 => "8MiB",
            Self::MiB512 => "512MiB",
            Self::GiB32 => "32GiB",
            Self::GiB64 => "64GiB",
        })
    }
}

impl FromStr for SectorSize {
    type Err = SealProofError;

    fn from_str(text: &str) -> Result<Self, SealProofError> {
        Self::ALL
            .into_iter()
            .find(|size| size.to_string() == text)
            .ok_or_else(|| SealProofError::Size { text: text.to_owned() })
    }
}

/// Which version of the proof circuit a registered proof uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProofVersion {
    /// The first network's proofs; no new sector uses them.
    V1,
    /// Since network version 7.
    V1_1,
    /// Carries the non-interactive feature.
    V1_2,
}

/// An optional feature of a registered proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProofFeature {
    /// Plain proof of replication.
    None,
    /// Synthetic PoRep: the challenges are fixed early so that layers can go before the seed is known.
    Synthetic,
    /// Non-interactive PoRep: no seed from the chain.
    NonInteractive,
}

/// A registered seal proof. The number is the one on chain and on Lotus's wire (0 to 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct RegisteredSealProof(u8);

impl RegisteredSealProof {
    /// All twenty, in number order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..20).map(Self)
    }

    /// The proof that new interactive sectors of this size use (V1_1).
    pub const fn for_new_sector(size: SectorSize) -> Self {
        Self(5 + size.index() as u8)
    }

    /// The number on chain.
    pub const fn number(self) -> i64 {
        self.0 as i64
    }

    /// The sector size that this proof fixes.
    pub const fn sector_size(self) -> SectorSize {
        SectorSize::ALL[self.0 as usize % 5]
    }

    /// The circuit version.
    pub const fn version(self) -> ProofVersion {
        match self.0 / 5 {
            0 => ProofVersion::V1,
            1 | 2 => ProofVersion::V1_1,
            _ => ProofVersion::V1_2,
        }
    }

    /// The optional feature.
    pub const fn feature(self) -> ProofFeature {
        match self.0 / 5 {
            0 | 1 => ProofFeature::None,
            2 => ProofFeature::Synthetic,
            _ => ProofFeature::NonInteractive,
        }
    }
}

impl TryFrom<i64> for RegisteredSealProof {
    type Error = SealProofError;

    fn try_from(number: i64) -> Result<Self, SealProofError> {
        match number {
            0..=19 => Ok(Self(number as u8)),
            _ => Err(SealProofError::Number { number }),
        }
    }
}

impl From<RegisteredSealProof> for i64 {
    fn from(proof: RegisteredSealProof) -> i64 {
        proof.number()
    }
}

/// The number, as Lotus prints it in task counts (`5:seal/v0/precommit/1`).
impl fmt::Display for RegisteredSealProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number or size that no registered seal proof has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealProofError {
    /// Outside 0 to 19.
    #[error("{number} is no registered seal proof; known are 0 to 19")]
    Number {
        /// The number as given.
        number: i64,
    },
    /// Not one of the five sizes.
    #[error("{text:?} is no sector size; known are 2KiB, 8MiB, 512MiB, 32GiB and 64GiB")]
    Size {
        /// The text as given.
        text: String,
    },
}
