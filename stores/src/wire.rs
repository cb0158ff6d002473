//! The JSON shapes of the file transfer protocol: a path's fullness and what is to be proven, as Lotus names their fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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

/// Lotus's `SingleVanillaParams`. What a newer peer adds is not looked at.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SingleJson {
    pub(crate) miner: u64,
    pub(crate) sector: ChallengeJson,
    pub(crate) proof_type: i64,
}

/// Lotus's `PostSectorChallenge`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ChallengeJson {
    pub(crate) seal_proof: i64,
    pub(crate) sector_number: u64,
    #[serde(rename = "SealedCID")]
    pub(crate) sealed: CidJson,
    pub(crate) challenge: Option<Vec<u64>>,
    /// The sector was snapped: its update files are meant.
    #[serde(default)]
    pub(crate) update: bool,
}

/// Lotus's `PoRepVanillaParams`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PoRepJson {
    pub(crate) sector: SectorRefJson,
    pub(crate) sealed: CidJson,
    pub(crate) unsealed: CidJson,
    pub(crate) ticket: RandomnessJson,
    pub(crate) seed: RandomnessJson,
}

/// Lotus's `SectorRef`.
#[derive(Debug, Deserialize)]
pub(crate) struct SectorRefJson {
    #[serde(rename = "ID")]
    pub(crate) id: SectorIdJson,
    #[serde(rename = "ProofType")]
    pub(crate) proof_type: i64,
}

/// A sector's id.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SectorIdJson {
    pub(crate) miner: u64,
    pub(crate) number: u64,
}

/// A CID as IPLD has it in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CidJson {
    #[serde(rename = "/")]
    pub(crate) text: String,
}

/// 32 bytes, base64 as Go writes bytes.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct RandomnessJson(pub(crate) [u8; 32]);

impl TryFrom<String> for RandomnessJson {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = STANDARD.decode(&text).map_err(|error| format!("{text:?} is no base64: {error}"))?;
        let length = bytes.len();
        bytes.try_into().map(Self).map_err(|_| format!("{length} bytes of randomness instead of 32"))
    }
}
