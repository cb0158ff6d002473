//! The one JSON shape of the file transfer protocol: a path's fullness, as Lotus names its fields.

use sealtasks::FsStat;
use serde::{Deserialize, Serialize};

/// Lotus's `FsStat`. A field that an older peer leaves out is 0.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub(crate) struct FsStatJson {
    capacity: i64,
    available: i64,
    #[serde(rename = "FSAvailable")]
    fs_available: i64,
    reserved: i64,
    max: i64,
    used: i64,
}

impl From<FsStat> for FsStatJson {
    fn from(stat: FsStat) -> Self {
        let FsStat { capacity, available, fs_available, reserved, max, used } = stat;
        Self { capacity, available, fs_available, reserved, max, used }
    }
}

impl From<FsStatJson> for FsStat {
    fn from(json: FsStatJson) -> Self {
        let FsStatJson { capacity, available, fs_available, reserved, max, used } = json;
        Self { capacity, available, fs_available, reserved, max, used }
    }
}
