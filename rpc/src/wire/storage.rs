//! Storage paths, what lies in them and the locks on it, on the wire.

use std::collections::BTreeSet;

use sealtasks::{ActorId, FileType, FileTypes, PathFilters, StorageStanza};
use serde::{Deserialize, Serialize};

use super::sector::SectorId;
use super::{WireError, nullable, of};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct StorageInfo {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "URLs", deserialize_with = "nullable")]
    pub urls: Vec<String>,
    pub weight: u64,
    pub max_storage: u64,
    pub can_seal: bool,
    pub can_store: bool,
    #[serde(deserialize_with = "nullable")]
    pub groups: BTreeSet<String>,
    #[serde(deserialize_with = "nullable")]
    pub allow_to: BTreeSet<String>,
    #[serde(flatten)]
    pub filters: Filters,
}

impl From<sealtasks::StorageInfo> for StorageInfo {
    fn from(info: sealtasks::StorageInfo) -> Self {
        Self {
            id: info.id.into(),
            urls: info.urls,
            weight: info.stanza.weight,
            max_storage: info.stanza.max_storage,
            can_seal: info.stanza.can_seal,
            can_store: info.stanza.can_store,
            groups: info.stanza.groups,
            allow_to: info.stanza.allow_to,
            filters: info.stanza.filters.into(),
        }
    }
}

impl TryFrom<StorageInfo> for sealtasks::StorageInfo {
    type Error = WireError;

    fn try_from(info: StorageInfo) -> Result<Self, WireError> {
        Ok(Self {
            id: info.id.try_into().map_err(of("StorageInfo.ID"))?,
            urls: info.urls,
            stanza: StorageStanza {
                weight: info.weight,
                max_storage: info.max_storage,
                can_seal: info.can_seal,
                can_store: info.can_store,
                groups: info.groups,
                allow_to: info.allow_to,
                filters: info.filters.try_into()?,
            },
        })
    }
}

/// The four lists that say what a path takes; inlined into the two shapes that have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Filters {
    #[serde(deserialize_with = "nullable")]
    pub allow_types: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub deny_types: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub allow_miners: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub deny_miners: Vec<String>,
}

impl From<PathFilters> for Filters {
    fn from(filters: PathFilters) -> Self {
        let names = |types: Vec<FileType>| types.iter().map(|kind| kind.name().to_owned()).collect();
        let addresses = |miners: Vec<ActorId>| miners.into_iter().map(address).collect();
        Self {
            allow_types: names(filters.allow_types),
            deny_types: names(filters.deny_types),
            allow_miners: addresses(filters.allow_miners),
            deny_miners: addresses(filters.deny_miners),
        }
    }
}

impl TryFrom<Filters> for PathFilters {
    type Error = WireError;

    /// An unknown file type in a list is left out, as Lotus does; but when nothing known is left in the list of allowed
    /// ones, the path takes nothing, not everything. An unreadable miner is an error: no list could stand for it.
    fn try_from(filters: Filters) -> Result<Self, WireError> {
        let known =
            |names: &[String]| names.iter().filter_map(|name| name.parse().ok()).collect::<Vec<FileType>>();
        let allow_types = known(&filters.allow_types);
        let mut deny_types = known(&filters.deny_types);
        if allow_types.is_empty() && !filters.allow_types.is_empty() {
            deny_types = FileType::ALL.to_vec();
        }
        let miners = |field, names: Vec<String>| {
            names.iter().map(|name| name.parse().map_err(of(field))).collect::<Result<Vec<ActorId>, _>>()
        };
        Ok(Self {
            allow_types,
            deny_types,
            allow_miners: miners("AllowMiners", filters.allow_miners)?,
            deny_miners: miners("DenyMiners", filters.deny_miners)?,
        })
    }
}

/// An actor's address as a main network Lotus writes it; both prefixes parse everywhere.
pub(crate) fn address(actor: ActorId) -> String {
    format!("f0{}", actor.get())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct FsStat {
    pub capacity: i64,
    pub available: i64,
    #[serde(rename = "FSAvailable")]
    pub fs_available: i64,
    pub reserved: i64,
    pub max: i64,
    pub used: i64,
}

impl From<sealtasks::FsStat> for FsStat {
    fn from(stat: sealtasks::FsStat) -> Self {
        let sealtasks::FsStat { capacity, available, fs_available, reserved, max, used } = stat;
        Self { capacity, available, fs_available, reserved, max, used }
    }
}

impl From<FsStat> for sealtasks::FsStat {
    fn from(stat: FsStat) -> Self {
        let FsStat { capacity, available, fs_available, reserved, max, used } = stat;
        Self { capacity, available, fs_available, reserved, max, used }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HealthReport {
    pub stat: FsStat,
    /// Empty = healthy.
    #[serde(deserialize_with = "nullable")]
    pub err: String,
}

impl From<sealtasks::HealthReport> for HealthReport {
    fn from(report: sealtasks::HealthReport) -> Self {
        Self { stat: report.stat.into(), err: report.error.unwrap_or_default() }
    }
}

impl From<HealthReport> for sealtasks::HealthReport {
    fn from(report: HealthReport) -> Self {
        let error = if report.err.is_empty() { None } else { Some(report.err) };
        Self { stat: report.stat.into(), error }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SectorStorageInfo {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "URLs", deserialize_with = "nullable")]
    pub urls: Vec<String>,
    #[serde(rename = "BaseURLs", deserialize_with = "nullable")]
    pub base_urls: Vec<String>,
    pub weight: u64,
    pub can_seal: bool,
    pub can_store: bool,
    pub primary: bool,
    #[serde(flatten)]
    pub filters: Filters,
}

impl From<sealtasks::SectorStorageInfo> for SectorStorageInfo {
    fn from(info: sealtasks::SectorStorageInfo) -> Self {
        Self {
            id: info.id.into(),
            urls: info.urls,
            base_urls: info.base_urls,
            weight: info.weight,
            can_seal: info.can_seal,
            can_store: info.can_store,
            primary: info.primary,
            filters: info.filters.into(),
        }
    }
}

impl TryFrom<SectorStorageInfo> for sealtasks::SectorStorageInfo {
    type Error = WireError;

    fn try_from(info: SectorStorageInfo) -> Result<Self, WireError> {
        Ok(Self {
            id: info.id.try_into().map_err(of("SectorStorageInfo.ID"))?,
            urls: info.urls,
            base_urls: info.base_urls,
            weight: info.weight,
            can_seal: info.can_seal,
            can_store: info.can_store,
            primary: info.primary,
            filters: info.filters.try_into()?,
        })
    }
}

/// Files of a sector in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Decl {
    pub miner: u64,
    pub number: u64,
    pub sector_file_type: i64,
}

impl From<sealtasks::SectorDecl> for Decl {
    fn from(decl: sealtasks::SectorDecl) -> Self {
        let SectorId { miner, number } = decl.sector.into();
        Self { miner, number, sector_file_type: decl.types.into() }
    }
}

impl TryFrom<Decl> for sealtasks::SectorDecl {
    type Error = WireError;

    fn try_from(decl: Decl) -> Result<Self, WireError> {
        let types = FileTypes::try_from(decl.sector_file_type).map_err(of("SectorFileType"))?;
        Ok(Self { sector: sealtasks::SectorId::new(decl.miner, decl.number), types })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SectorLocks {
    #[serde(deserialize_with = "nullable")]
    pub locks: Vec<SectorLock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SectorLock {
    pub sector: SectorId,
    pub write: [u64; 6],
    pub read: [u64; 6],
}

impl From<crate::api::SectorLock> for SectorLock {
    fn from(lock: crate::api::SectorLock) -> Self {
        Self { sector: lock.sector.into(), write: lock.write, read: lock.read }
    }
}

impl From<SectorLock> for crate::api::SectorLock {
    fn from(lock: SectorLock) -> Self {
        Self { sector: lock.sector.into(), write: lock.write, read: lock.read }
    }
}
