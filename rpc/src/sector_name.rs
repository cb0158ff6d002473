//! How operators name a sector: by its number, or with its miner where a manager serves several. Never: whether it exists.

use std::fmt;
use std::str::FromStr;

use sealtasks::{ActorId, SectorId, SectorNumber};
use serde::{Deserialize, Serialize};

/// A sector as it is named: `7`, or `f02000/7` with its miner. On the wire a bare number is a JSON number, as in Lotus's
/// methods, and one with its miner a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct SectorName {
    /// Whose it is; `None`: the miner that the manager was made for.
    pub miner: Option<ActorId>,
    /// Its number.
    pub number: SectorNumber,
}

/// Sector 0, as an answer reads that names none.
impl Default for SectorName {
    fn default() -> Self {
        SectorNumber::new(0).into()
    }
}

/// A text that names no sector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no sector; expected its number (7), or its miner and number (f01000/7 or s-t01000-7)"
)]
pub struct SectorNameError {
    /// The text as given, cut to 128 characters.
    pub text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Wire {
    Number(u64),
    Text(String),
}

impl FromStr for SectorName {
    type Err = SectorNameError;

    fn from_str(text: &str) -> Result<Self, SectorNameError> {
        let bad = || SectorNameError { text: text.chars().take(128).collect() };
        if let Some(number) = decimal(text) {
            return Ok(SectorNumber::new(number).into());
        }
        if let Some((miner, number)) = text.split_once('/') {
            let miner: ActorId = miner.parse().map_err(|_| bad())?;
            let number = SectorNumber::new(decimal(number).ok_or_else(bad)?);
            return Ok(SectorId { miner, number }.into());
        }
        text.parse::<SectorId>().map(Into::into).map_err(|_| bad())
    }
}

impl fmt::Display for SectorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.miner {
            None => self.number.fmt(f),
            Some(miner) => write!(f, "f0{}/{}", miner.get(), self.number),
        }
    }
}

impl From<SectorNumber> for SectorName {
    fn from(number: SectorNumber) -> Self {
        Self { miner: None, number }
    }
}

impl From<SectorId> for SectorName {
    fn from(SectorId { miner, number }: SectorId) -> Self {
        Self { miner: Some(miner), number }
    }
}

impl TryFrom<Wire> for SectorName {
    type Error = SectorNameError;

    fn try_from(wire: Wire) -> Result<Self, SectorNameError> {
        match wire {
            Wire::Number(number) => Ok(SectorNumber::new(number).into()),
            Wire::Text(text) => text.parse(),
        }
    }
}

impl From<SectorName> for Wire {
    fn from(name: SectorName) -> Self {
        match name.miner {
            None => Self::Number(name.number.get()),
            Some(_) => Self::Text(name.to_string()),
        }
    }
}

/// The miners that one manager serves. There is at least one: the one that it was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miners {
    /// The one that it was made for, whose sectors a bare number means.
    pub first: ActorId,
    /// Those added since, in the order in which they were.
    #[serde(default)]
    pub others: Vec<ActorId>,
}

impl Miners {
    /// All of them, the first one first.
    pub fn all(&self) -> impl Iterator<Item = ActorId> + '_ {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// Whether it is one of them.
    pub fn contains(&self, miner: ActorId) -> bool {
        self.all().any(|one| one == miner)
    }

    /// What a sector is called: by its number alone where there is but one miner and it is its sector.
    pub fn name(&self, sector: SectorId) -> SectorName {
        if self.others.is_empty() && sector.miner == self.first {
            sector.number.into()
        } else {
            sector.into()
        }
    }
}

/// A decimal number without a sign.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_stays_a_number_and_a_miner_makes_it_a_text() {
        let (seven, full) = (SectorNumber::new(7), SectorId::new(2000, 7));
        for (text, name, json) in
            [("7", SectorName::from(seven), "7"), ("f02000/7", SectorName::from(full), "\"f02000/7\"")]
        {
            assert_eq!(text.parse(), Ok(name));
            assert_eq!(name.to_string(), text);
            assert_eq!(serde_json::to_string(&name).expect("JSON"), json);
            assert_eq!(serde_json::from_str::<SectorName>(json).expect("read"), name);
        }
        for text in ["t02000/7", "s-t02000-7"] {
            assert_eq!(text.parse(), Ok(SectorName::from(full)), "{text}");
        }
    }

    #[test]
    fn what_names_no_sector_is_refused() {
        for text in ["", "-7", "+7", "seven", "f02000", "f02000/", "f2000/7", "/7", "99999999999999999999"] {
            let error = text.parse::<SectorName>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("f01000/7"), "{error}");
        }
        for json in ["-1", "1.5", "null", "{}"] {
            assert!(serde_json::from_str::<SectorName>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_number_alone_is_a_name_where_there_is_one_miner() {
        let sector = SectorId::new(1000, 7);
        let mut miners = Miners { first: sector.miner, others: Vec::new() };
        assert_eq!(miners.name(sector).to_string(), "7");
        assert_eq!(miners.name(SectorId::new(2000, 7)).to_string(), "f02000/7");
        miners.others.push(ActorId::new(2000));
        assert_eq!(miners.name(sector).to_string(), "f01000/7");
        assert!(miners.contains(ActorId::new(2000)) && !miners.contains(ActorId::new(3000)));
    }
}
