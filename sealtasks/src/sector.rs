//! Sector identity: which miner's which sector, and with which proof it is sealed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::RegisteredSealProof;

/// A miner actor's id, the number behind `f01000` (1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActorId(u64);

impl ActorId {
    /// The actor with this number.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Shown as Lotus shows test-network addresses in file names: `t01000`. Parsed with either network prefix.
impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t0{}", self.0)
    }
}

impl FromStr for ActorId {
    type Err = SectorIdError;

    fn from_str(text: &str) -> Result<Self, SectorIdError> {
        let digits = text.strip_prefix("t0").or_else(|| text.strip_prefix("f0"));
        digits.and_then(decimal).map(Self).ok_or_else(|| SectorIdError::Actor { text: text.to_owned() })
    }
}

/// A sector's number within its miner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SectorNumber(u64);

impl SectorNumber {
    /// The sector with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SectorNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One sector of one miner. Its text form is the name its files have on every Lotus disk: `s-t01000-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectorId {
    /// The miner actor that owns the sector.
    pub miner: ActorId,
    /// The sector's number within that miner.
    pub number: SectorNumber,
}

impl SectorId {
    /// Sector `number` of miner actor `miner`.
    pub const fn new(miner: u64, number: u64) -> Self {
        Self { miner: ActorId(miner), number: SectorNumber(number) }
    }
}

impl fmt::Display for SectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s-t0{}-{}", self.miner.0, self.number.0)
    }
}

/// Accepts exactly what [`SectorId`]'s `Display` writes. Lotus's own parser ignores trailing text, so a stray
/// `s-t01000-1.tmp` becomes sector 1 there; here it is an error.
impl FromStr for SectorId {
    type Err = SectorIdError;

    fn from_str(text: &str) -> Result<Self, SectorIdError> {
        let bad = || SectorIdError::Sector { text: text.to_owned() };
        let (miner, number) = text.strip_prefix("s-t0").and_then(|r| r.split_once('-')).ok_or_else(bad)?;
        Ok(Self {
            miner: ActorId(decimal(miner).ok_or_else(bad)?),
            number: SectorNumber(decimal(number).ok_or_else(bad)?),
        })
    }
}

/// A sector together with the proof it is sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectorRef {
    /// Which sector.
    pub id: SectorId,
    /// How it is sealed; fixes the sector's size.
    pub proof: RegisteredSealProof,
}

/// A text that names no sector or no miner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SectorIdError {
    /// Not of the form `t01000` or `f01000`.
    #[error("{text:?} is no miner address; expected an id address such as f01000 or t01000")]
    Actor {
        /// The text as given.
        text: String,
    },
    /// Not of the form `s-t01000-1`.
    #[error("{text:?} is no sector name; expected s-t0<miner>-<number>, for example s-t01000-1")]
    Sector {
        /// The text as given.
        text: String,
    },
}

/// A canonical decimal u64: no sign, no leading zero, so that one value has one text.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (text.as_bytes().first().is_some_and(|b| (b'1'..=b'9').contains(b)));
    if canonical && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
