//! Commitments of stored files, computed again and compared with what the sector's record says.

use serde::{Deserialize, Serialize};

use crate::{FileType, SealedCid, SectorRef, StorageId, UnsealedCid};

/// What the files of a sector should commit to. A file whose commitment is not given is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubInput {
    /// CommD of the unsealed file.
    pub unsealed: Option<UnsealedCid>,
    /// CommR of the replica.
    pub sealed: Option<SealedCid>,
}

/// Asked of the process that has a storage path open: compute the commitments of a sector's files there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubOrder {
    /// The sector.
    pub sector: SectorRef,
    /// The path.
    pub path: StorageId,
    /// What is expected.
    pub input: ScrubInput,
}

/// One file and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ScrubbedFile {
    /// Unsealed or sealed.
    pub file: FileType,
    /// What is to be thought of it.
    pub verdict: ScrubVerdict,
    /// What was found; for a bad one also what was expected, or why it could not be told.
    pub detail: String,
}

/// What is to be thought of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubVerdict {
    /// It commits to what the record says.
    Intact,
    /// It commits to something else.
    Differs,
    /// It cannot be read, or is not whole.
    Unreadable,
    /// It was not looked at.
    LeftOut,
}

impl ScrubVerdict {
    /// For listings and rows.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Differs => "differs",
            Self::Unreadable => "unreadable",
            Self::LeftOut => "left out",
        }
    }

    /// The verdict of these words.
    pub fn from_words(words: &str) -> Option<Self> {
        [Self::Intact, Self::Differs, Self::Unreadable, Self::LeftOut]
            .into_iter()
            .find(|verdict| verdict.words() == words)
    }

    /// Whether somebody must look after the file.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Differs | Self::Unreadable)
    }
}
