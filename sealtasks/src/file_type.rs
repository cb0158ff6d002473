//! The kinds of file a sector has, sets of them, and the space each takes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SectorSize;

/// One kind of sector file. The bit is the one on Lotus's wire, the name is the directory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileType {
    /// The padded piece data with its trailer.
    Unsealed,
    /// The replica.
    Sealed,
    /// A directory: layers, trees, `p_aux`, `t_aux`.
    Cache,
    /// The replica of a snapped sector.
    Update,
    /// A directory: the snapped replica's trees.
    UpdateCache,
    /// A piece kept on its own.
    Piece,
}

impl FileType {
    /// All six, in bit order.
    pub const ALL: [Self; 6] =
        [Self::Unsealed, Self::Sealed, Self::Cache, Self::Update, Self::UpdateCache, Self::Piece];

    /// The bit on the wire: 1, 2, 4, 8, 16, 32.
    pub const fn bit(self) -> u8 {
        1 << self.index()
    }

    /// The bit's number, 0 to 5; Lotus's lock tables are indexed by it.
    pub const fn index(self) -> usize {
        match self {
            Self::Unsealed => 0,
            Self::Sealed => 1,
            Self::Cache => 2,
            Self::Update => 3,
            Self::UpdateCache => 4,
            Self::Piece => 5,
        }
    }

    /// The directory's name in a storage path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unsealed => "unsealed",
            Self::Sealed => "sealed",
            Self::Cache => "cache",
            Self::Update => "update",
            Self::UpdateCache => "update-cache",
            Self::Piece => "piece",
        }
    }

    /// Whether a sector's entry of this kind is a directory.
    pub const fn is_directory(self) -> bool {
        matches!(self, Self::Cache | Self::UpdateCache)
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FileType {
    type Err = FileTypeError;

    fn from_str(text: &str) -> Result<Self, FileTypeError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| FileTypeError::Name { text: text.to_owned() })
    }
}

/// A set of file types; the number is Lotus's `SectorFileType`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct FileTypes(u8);

impl FileTypes {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// All six.
    pub const ALL: Self = Self(63);
    /// Unsealed alone.
    pub const UNSEALED: Self = Self(1);
    /// Sealed alone.
    pub const SEALED: Self = Self(2);
    /// Cache alone.
    pub const CACHE: Self = Self(4);
    /// Update alone.
    pub const UPDATE: Self = Self(8);
    /// Update-cache alone.
    pub const UPDATE_CACHE: Self = Self(16);

    /// The number on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: FileType) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Both sets together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in `self` but not in `other`.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The members in bit order.
    pub fn iter(self) -> impl Iterator<Item = FileType> {
        FileType::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// How many members.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl From<FileType> for FileTypes {
    fn from(kind: FileType) -> Self {
        Self(kind.bit())
    }
}

impl FromIterator<FileType> for FileTypes {
    fn from_iter<I: IntoIterator<Item = FileType>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::NONE, |set, kind| set.union(kind.into()))
    }
}

impl std::ops::BitOr for FileTypes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl TryFrom<i64> for FileTypes {
    type Error = FileTypeError;

    fn try_from(number: i64) -> Result<Self, FileTypeError> {
        match number {
            0..=63 => Ok(Self(number as u8)),
            _ => Err(FileTypeError::Bits { number }),
        }
    }
}

impl From<FileTypes> for i64 {
    fn from(types: FileTypes) -> i64 {
        types.0.into()
    }
}

/// The names joined by `,`; `none` for the empty set.
impl fmt::Display for FileTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (position, kind) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            f.write_str(kind.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for FileTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileTypes({self})")
    }
}

/// What a storage path is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathType {
    /// Long-term storage of finished sectors.
    Storage,
    /// Scratch space for sealing.
    Sealing,
}

impl PathType {
    /// `storage` or `sealing`, as on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Sealing => "sealing",
        }
    }

    /// The space table that applies to files on such a path.
    pub const fn space_table(self) -> SpaceTable {
        match self {
            Self::Storage => SpaceTable::Finalized,
            Self::Sealing => SpaceTable::Sealing,
        }
    }
}

impl fmt::Display for PathType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether acquiring a file from elsewhere takes it over or duplicates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcquireMode {
    /// The copy becomes the primary one and the source is deleted.
    Move,
    /// The source stays.
    Copy,
}

/// Which of the two space tables applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpaceTable {
    /// While a sector is being sealed: layers and all trees.
    Sealing,
    /// After Finalize: the tree-r-last files and the two aux files.
    Finalized,
}

impl SpaceTable {
    /// Space for one file kind, in tenths of the sector size. Source: Lotus `FSOverheadSeal`, `FsOverheadFinalized`.
    pub const fn tenths(self, kind: FileType) -> u64 {
        match (self, kind) {
            (Self::Sealing, FileType::Cache) => 141, // 11 layers, tree-d (twice the size), tree-c, tree-r
            (Self::Sealing, FileType::UpdateCache) => 21, // tree-d and tree-r-last
            (Self::Finalized, FileType::Cache | FileType::UpdateCache) => 1,
            (_, FileType::Unsealed | FileType::Sealed | FileType::Update | FileType::Piece) => 10,
        }
    }

    /// Bytes that `kinds` of one sector of `size` take. Cannot overflow: 202 tenths of 64 GiB is far below 2^64.
    pub fn bytes(self, kinds: FileTypes, size: SectorSize) -> u64 {
        kinds.iter().map(|kind| self.tenths(kind) * size.bytes() / 10).sum()
    }
}

/// Bytes needed for `kinds` while sealing. See [`SpaceTable`].
pub fn sealing_space(kinds: FileTypes, size: SectorSize) -> u64 {
    SpaceTable::Sealing.bytes(kinds, size)
}

/// Bytes needed for `kinds` of a finalized sector. See [`SpaceTable`].
pub fn finalized_space(kinds: FileTypes, size: SectorSize) -> u64 {
    SpaceTable::Finalized.bytes(kinds, size)
}

/// A name or number that is no file type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileTypeError {
    /// Not one of the six names.
    #[error(
        "{text:?} is no sector file type; known are unsealed, sealed, cache, update, update-cache, piece"
    )]
    Name {
        /// The text as given.
        text: String,
    },
    /// Has bits beyond the six known ones.
    #[error("{number} is no set of sector file types; known are 0 to 63")]
    Bits {
        /// The number as given.
        number: i64,
    },
}
