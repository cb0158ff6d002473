//! Filecoin's money.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// AttoFIL in one FIL.
const ATTO: u128 = 1_000_000_000_000_000_000;
/// Digits behind FIL's decimal point.
const DECIMALS: usize = 18;

/// An amount in attoFIL (10^-18 FIL), never negative; all FIL that will ever be are less than 2^91 of them. A decimal
/// text in JSON, as on Lotus's wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenAmount(u128);

impl TokenAmount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many attoFIL.
    pub const fn from_atto(atto: u128) -> Self {
        Self(atto)
    }

    /// The number of attoFIL.
    pub const fn atto(self) -> u128 {
        self.0
    }

    /// Both together; `None`: more than there can be.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// So many times; `None`: more than there can be.
    pub fn checked_mul(self, times: u64) -> Option<Self> {
        self.0.checked_mul(u128::from(times)).map(Self)
    }

    /// The rest after `other`, at least nothing.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// In FIL, with as many decimals as are needed: `0.02 FIL`.
impl fmt::Display for TokenAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / ATTO, self.0 % ATTO);
        if part == 0 {
            return write!(f, "{whole} FIL");
        }
        let decimals = format!("{part:0DECIMALS$}");
        write!(f, "{whole}.{} FIL", decimals.trim_end_matches('0'))
    }
}

/// An amount in FIL: `0.02`, `0.02 FIL`, `1`.
impl FromStr for TokenAmount {
    type Err = TokenAmountError;

    fn from_str(text: &str) -> Result<Self, TokenAmountError> {
        let bad = || TokenAmountError::Fil { text: text.chars().take(100).collect() };
        let number = text.trim().strip_suffix("FIL").unwrap_or(text).trim();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > DECIMALS {
            return Err(bad());
        }
        let whole: u128 = whole.parse().map_err(|_| bad())?;
        let part: u128 = format!("{part:0<DECIMALS$}").parse().map_err(|_| bad())?;
        whole.checked_mul(ATTO).and_then(|whole| whole.checked_add(part)).map(Self).ok_or_else(bad)
    }
}

impl TryFrom<String> for TokenAmount {
    type Error = TokenAmountError;

    fn try_from(text: String) -> Result<Self, TokenAmountError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.map(Self).ok_or_else(|| TokenAmountError::Atto { text: text.chars().take(100).collect() })
    }
}

impl From<TokenAmount> for String {
    fn from(amount: TokenAmount) -> String {
        amount.0.to_string()
    }
}

/// A text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenAmountError {
    /// From a person.
    #[error("{text:?} is no amount; write FIL as for example 0.02")]
    Fil {
        /// The text, cut to 100 characters.
        text: String,
    },
    /// From a node.
    #[error("{text:?} is no amount; expected a number of attoFIL in decimal digits")]
    Atto {
        /// The text, cut to 100 characters.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_shown() {
        for (text, atto, shown) in [
            ("0.02", 20_000_000_000_000_000, "0.02 FIL"),
            ("1 FIL", ATTO, "1 FIL"),
            ("0.000000000000000001", 1, "0.000000000000000001 FIL"),
            ("2000000000", 2_000_000_000 * ATTO, "2000000000 FIL"),
        ] {
            let amount: TokenAmount = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((amount.atto(), amount.to_string().as_str()), (atto, shown));
        }
        for bad in
            ["", ".", "1.", "-1", "1e3", "0.0000000000000000001", "99999999999999999999999999999999999999"]
        {
            assert!(bad.parse::<TokenAmount>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<TokenAmount>("\"<nil>\"").is_err());
        assert!(serde_json::from_str::<TokenAmount>("\"+5\"").is_err());
    }
}
