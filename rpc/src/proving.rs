//! Whether stored sectors can still be proven. Methods named `Sealyard.*`, beside Lotus's `CheckProvable`. Never: a SNARK, or
//! a word to the chain.

use async_trait::async_trait;
use sealtasks::{SectorId, SectorNumber, SectorRef, StorageId};
use serde::{Deserialize, Serialize};

use crate::api::ApiResult;
use crate::sector_name::SectorName;

/// Most sectors of one `CheckProvable`: those of a window PoSt partition of 2 KiB to 64 GiB, with room.
pub const PROVABLE_MAX: usize = 10_000;

/// Asked of a manager about proving.
#[async_trait]
pub trait ProvingApi: Send + Sync + 'static {
    /// Has the hosts that hold a sector's files prove them, on challenges that nobody knows before. Permission `admin`.
    async fn check_provable(&self, wish: ProvingWish) -> ApiResult<ProvingView>;
    /// Sectors with a sealed file or a cache in this path, or remembered to have one there. Permission `read`. The error says that
    /// there is no such path.
    async fn replicas_in(&self, path: StorageId) -> ApiResult<Vec<SectorId>>;
    /// Sectors that are proven on chain and of which no path, here or away, has both sealed file and cache. Permission
    /// `read`. The error says why the chain does not tell.
    async fn unheld(&self) -> ApiResult<Vec<SectorId>>;
    /// The same as `check_provable` for these sectors, one line for each that cannot be proven now, whatever the reason: Lotus's
    /// `CheckProvable`. Permission `admin`.
    async fn not_provable(&self, sectors: Vec<SectorRef>) -> ApiResult<Vec<(SectorNumber, String)>>;
}

/// Which sector, and how thoroughly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvingWish {
    /// Its name.
    pub sector: SectorName,
    /// Leaves that are challenged in large sectors; those of 2 KiB and 8 MiB are challenged everywhere.
    pub challenges: usize,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvingView {
    /// The sector.
    pub sector: SectorId,
    /// What is to be thought of it.
    pub state: ProvingState,
    /// Why, where it is not good.
    pub detail: String,
    /// The paths that the index knows any of its sealed and cache files in.
    pub paths: Vec<StorageId>,
    /// Each copy that was looked at.
    pub copies: Vec<ProvingCopy>,
}

/// One copy: replica and cache on one host, or what is known of both where no host that answers has both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvingCopy {
    /// The path of its replica.
    pub sealed: StorageId,
    /// The path of its cache.
    pub cache: StorageId,
    /// The base URL of the host; empty: none was asked.
    pub url: String,
    /// What is to be thought of it.
    pub state: ProvingState,
    /// Why, where it is not good.
    pub detail: String,
}

/// Whether a sector, or a copy of it, can be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProvingState {
    /// It can.
    Good,
    /// It has no replica yet.
    NotSealed,
    /// Something is being done with its files. No fault.
    Locked,
    /// Nobody who has its files could be reached, or the path that they lie in is not there now. No fault of the files.
    Away,
    /// Whoever has its files could not tell, or they lie on different hosts. No fault of the files either.
    Unknown,
    /// It cannot: files are missing or damaged.
    Bad,
}

impl ProvingState {
    /// For listings.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NotSealed => "not sealed yet",
            Self::Locked => "locked",
            Self::Away => "path away",
            Self::Unknown => "unknown",
            Self::Bad => "bad",
        }
    }
}
