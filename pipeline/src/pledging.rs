//! Whether the manager pledges a sector by itself: a pure decision from counts, and for how many sectors there is room. Never:
//! pledges.

use std::fmt;

use sealtasks::{FileTypes, PathType, SectorSize};

/// How many sectors may be on their way to PC1, or wait for it, without a place there: with one that is being filled and
/// one that waits, PC1 never idles, and nothing piles up before it.
pub const BEFORE_PC1_MAX: u32 = 2;

/// What is known when it is decided. Bytes are what paths report, less what is promised there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pledging {
    /// Sectors to be kept in the pipeline; 0: none.
    pub keep: u32,
    /// Sectors that are not done: those that stopped as asked for and the parked ones, too.
    pub in_pipeline: u32,
    /// Sectors that wait for an operator.
    pub parked: u32,
    /// With more than this nothing is pledged.
    pub parked_max: u32,
    /// An operator has paused it.
    pub paused: bool,
    /// Workers that take AddPiece, and workers that take PreCommit1.
    pub workers: (u32, u32),
    /// Sectors that have no running PreCommit1 yet.
    pub before_pc1: u32,
    /// For how many of the sectors that have no room yet, a new one included, there is some in paths for sealing, and how many
    /// these are.
    pub sealing: (u64, u64),
    /// The same of paths for storing. No byte is counted for both.
    pub storage: (u64, u64),
}

/// A storage path that takes new files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRoom {
    /// Its free bytes.
    pub free: u64,
    /// What it takes of sectors that are sealed.
    pub seals: FileTypes,
    /// What it takes of sectors that are stored.
    pub stores: FileTypes,
}

impl PathRoom {
    const fn takes(&self, path_type: PathType) -> FileTypes {
        match path_type {
            PathType::Sealing => self.seals,
            PathType::Storage => self.stores,
        }
    }
}

/// Takes the room for these files of `count` sectors from the paths, each file as a whole from one of them, and says for how many
/// sectors there was enough. Paths that have no other use come first, then those with the most room.
pub fn take_room(
    paths: &mut [PathRoom],
    (path_type, types): (PathType, FileTypes),
    size: SectorSize,
    count: u64,
) -> u64 {
    for taken in 0..count {
        for kind in types.iter() {
            let need = path_type.space_table().bytes(kind.into(), size);
            let takes = |path: &&mut PathRoom| path.free >= need && path.takes(path_type).contains(kind);
            let best = paths.iter_mut().filter(takes).max_by_key(|path| {
                let only = path.seals.is_empty() || path.stores.is_empty();
                (only, path.free)
            });
            let Some(best) = best else { return taken };
            best.free = best.free.saturating_sub(need);
        }
    }
    count
}

/// Why no sector is pledged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// None is to be pledged.
    Off,
    /// An operator has paused it.
    Paused,
    /// As many as are to be there.
    Full,
    /// Too many wait for an operator.
    Parked,
    /// Nobody does AddPiece, or PreCommit1.
    NoWorker,
    /// Enough wait for PC1.
    Pc1Busy,
    /// No room to seal another.
    NoSealingSpace,
    /// No room to store another.
    NoStorageSpace,
}

impl Hindrance {
    /// A stable word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Paused => "paused",
            Self::Full => "full",
            Self::Parked => "parked",
            Self::NoWorker => "no-worker",
            Self::Pc1Busy => "pc1-busy",
            Self::NoSealingSpace => "no-sealing-space",
            Self::NoStorageSpace => "no-storage-space",
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Pledging {
    /// What stands against the next pledge; `None`: nothing, so it is made.
    pub const fn hindrance(&self) -> Option<Hindrance> {
        Some(match self {
            Self { keep: 0, .. } => Hindrance::Off,
            Self { paused: true, .. } => Hindrance::Paused,
            facts if facts.in_pipeline >= facts.keep => Hindrance::Full,
            facts if facts.parked > facts.parked_max => Hindrance::Parked,
            Self { workers: (0, _) | (_, 0), .. } => Hindrance::NoWorker,
            facts if facts.before_pc1 >= BEFORE_PC1_MAX => Hindrance::Pc1Busy,
            facts if facts.sealing.0 < facts.sealing.1 => Hindrance::NoSealingSpace,
            facts if facts.storage.0 < facts.storage.1 => Hindrance::NoStorageSpace,
            _ => return None,
        })
    }
}
