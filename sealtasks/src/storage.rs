//! Values about storage paths: what a path is, how full it is, what lies in it. Serialised nowhere: Lotus's shapes of
//! these live in `rpc` (wire) and `stores` (disk).

use std::collections::BTreeSet;

use crate::{ActorId, FileType, FileTypes, SectorId, StorageId};

/// How full a file system is, in bytes. Signed, as Lotus sends it: a peer's negative number must not wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStat {
    /// Size of the file system.
    pub capacity: i64,
    /// Free to use: what the file system offers, less reservations, within the limit.
    pub available: i64,
    /// Free as the file system says.
    pub fs_available: i64,
    /// Promised to running tasks and not yet on disk.
    pub reserved: i64,
    /// The path's own limit; 0 = none.
    pub max: i64,
    /// Used against that limit; 0 without one.
    pub used: i64,
}

/// A path's state as its owner reports it every ten seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// How full it is.
    pub stat: FsStat,
    /// What is wrong with it, if anything.
    pub error: Option<String>,
}

/// Which files of which miners a path takes. Empty allow lists allow everything; deny wins over allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathFilters {
    /// Only these types.
    pub allow_types: Vec<FileType>,
    /// Never these types.
    pub deny_types: Vec<FileType>,
    /// Only these miners.
    pub allow_miners: Vec<ActorId>,
    /// Never these miners.
    pub deny_miners: Vec<ActorId>,
}

impl PathFilters {
    /// The part of `types` that this path takes.
    pub fn accepted(&self, types: FileTypes) -> FileTypes {
        let allowed = |kind: &FileType| self.allow_types.is_empty() || self.allow_types.contains(kind);
        types.iter().filter(|kind| allowed(kind) && !self.deny_types.contains(kind)).collect()
    }

    /// Whether sectors of `miner` may lie here.
    pub fn accepts_miner(&self, miner: ActorId) -> bool {
        (self.allow_miners.is_empty() || self.allow_miners.contains(&miner))
            && !self.deny_miners.contains(&miner)
    }
}

/// What `sectorstore.json` says of a path, apart from its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStanza {
    /// Preference among paths; 0 = read-only.
    pub weight: u64,
    /// The most this path may hold, in bytes; 0 = no limit of its own.
    pub max_storage: u64,
    /// Sealing may use it.
    pub can_seal: bool,
    /// Finished sectors may live here.
    pub can_store: bool,
    /// Groups it belongs to.
    pub groups: BTreeSet<String>,
    /// Groups its files may be fetched into; empty = anywhere.
    pub allow_to: BTreeSet<String>,
    /// What it takes.
    pub filters: PathFilters,
}

/// A storage path as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageInfo {
    /// Its id.
    pub id: StorageId,
    /// Base URLs under which its owners serve it, for example `http://10.0.0.7:3456/remote`.
    pub urls: Vec<String>,
    /// What its `sectorstore.json` says.
    pub stanza: StorageStanza,
}

/// One place where (some of) the asked-for files of a sector are, or could be fetched to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectorStorageInfo {
    /// The path.
    pub id: StorageId,
    /// URLs of the file itself: base + `/<type>/s-t0M-N`.
    pub urls: Vec<String>,
    /// Base URLs of the path.
    pub base_urls: Vec<String>,
    /// The path's weight times the number of asked-for types it holds; 0 for a fetch target.
    pub weight: u64,
    /// Sealing may use it.
    pub can_seal: bool,
    /// Finished sectors may live here.
    pub can_store: bool,
    /// Whether any of the files here is the primary copy.
    pub primary: bool,
    /// What it takes.
    pub filters: PathFilters,
}

/// Files of one sector that lie in one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectorDecl {
    /// The sector.
    pub sector: SectorId,
    /// Which files.
    pub types: FileTypes,
}
