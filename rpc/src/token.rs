//! Tokens and what they allow.

use serde::{Deserialize, Serialize};

/// One thing a token allows. None implies another: a token lists each one it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Ask.
    Read,
    /// Change sectors.
    Write,
    /// Sign; kept for Lotus's sake.
    Sign,
    /// Change workers, storage and tokens.
    Admin,
}
