//! Commitments and their CIDs, and the prover id.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use multihash::Multihash;
use serde::{Deserialize, Serialize};

use crate::ActorId;

/// Multicodec `fil-commitment-unsealed`.
const CODEC_UNSEALED: u64 = 0xf101;
/// Multicodec `fil-commitment-sealed`.
const CODEC_SEALED: u64 = 0xf102;
/// Multihash `sha2-256-trunc254-padded`.
const HASH_UNSEALED: u64 = 0x1012;
/// Multihash `poseidon-bls12_381-a2-fc1`.
const HASH_SEALED: u64 = 0xb401;

/// A refused text is repeated in the error up to this many characters.
const TEXT_MAX: usize = 200;

/// A 32-byte commitment: CommP, CommD or CommR. Serialised as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commitment([u8; 32]);

impl Commitment {
    /// The commitment with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commitment({self})")
    }
}

impl TryFrom<String> for Commitment {
    type Error = CommitmentError;

    fn try_from(text: String) -> Result<Self, CommitmentError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| CommitmentError::Hex { text: text.chars().take(TEXT_MAX).collect() })?;
        Ok(Self(bytes))
    }
}

impl From<Commitment> for String {
    fn from(commitment: Commitment) -> String {
        commitment.to_string()
    }
}

macro_rules! commitment_cid {
    ($(#[$doc:meta])* $name:ident, $codec:ident, $hash:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Commitment);

        impl $name {
            /// The CID of this commitment.
            pub const fn new(commitment: Commitment) -> Self {
                Self(commitment)
            }

            /// The commitment in the CID.
            pub const fn commitment(&self) -> Commitment {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hash = Multihash::wrap($hash, self.0.bytes()).map_err(|_| fmt::Error)?;
                Cid::new_v1($codec, hash).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = CommitmentError;

            fn from_str(text: &str) -> Result<Self, CommitmentError> {
                let bad = || CommitmentError::Cid { text: text.chars().take(TEXT_MAX).collect(), expected: $what };
                let cid = Cid::try_from(text).map_err(|_| bad())?;
                let digest: [u8; 32] = cid.hash().digest().try_into().map_err(|_| bad())?;
                if cid.codec() != $codec || cid.hash().code() != $hash {
                    return Err(bad());
                }
                let parsed = Self(Commitment(digest));
                // One commitment has one text: the CID parser also takes other bases, `/ipfs/` and trailing bytes.
                if parsed.to_string() == text { Ok(parsed) } else { Err(bad()) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = CommitmentError;

            fn try_from(text: String) -> Result<Self, CommitmentError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(cid: $name) -> String {
                cid.to_string()
            }
        }
    };
}

commitment_cid! {
    /// The CID of unsealed data: CommP of a piece, CommD of a sector (`baga6ea4seaq…`).
    UnsealedCid, CODEC_UNSEALED, HASH_UNSEALED, "a commitment to unsealed data (baga6ea4seaq…)"
}
commitment_cid! {
    /// The CID of a replica, CommR (`bagboea4b5abc…`).
    SealedCid, CODEC_SEALED, HASH_SEALED, "a commitment to a replica (bagboea4b5abc…)"
}

/// What a proof is bound to besides its sector: the miner's actor id as unsigned LEB128, padded with zeros to 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProverId([u8; 32]);

impl ProverId {
    /// The 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<ActorId> for ProverId {
    fn from(actor: ActorId) -> Self {
        let mut bytes = [0; 32];
        let mut rest = actor.get();
        for byte in &mut bytes {
            *byte = (rest & 0x7f) as u8;
            rest >>= 7;
            if rest == 0 {
                break;
            }
            *byte |= 0x80;
        }
        Self(bytes)
    }
}

/// A text that is no commitment or not the right kind of CID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// Not 64 hexadecimal digits.
    #[error("{text:?} is no commitment; expected 64 hexadecimal digits")]
    Hex {
        /// The text as given, cut to 200 characters.
        text: String,
    },
    /// Not a CID, or one of another kind.
    #[error("{text:?} is not {expected}")]
    Cid {
        /// The text as given, cut to 200 characters.
        text: String,
        /// What it should have been.
        expected: &'static str,
    },
}
