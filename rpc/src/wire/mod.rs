//! Lotus's JSON shapes and their conversion to our values and back. What we send is what Lotus sends: its field names,
//! base64 for bytes, `{"/":…}` for CIDs, all lists present. What we accept is what Go writes: `null` or nothing for
//! any empty list, map or CID, and keys that we do not know. These types never leave this room.

pub(crate) mod args;
pub(crate) mod batch;
pub(crate) mod declared;
pub(crate) mod returns;
pub(crate) mod sector;
pub(crate) mod sector_status;
pub(crate) mod storage;
pub(crate) mod task;
pub(crate) mod worker;

#[cfg(test)]
mod golden;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value on the wire that is not what its place asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub(crate) struct WireError {
    /// Where, by Lotus's name.
    pub field: &'static str,
    /// What it is and what would be right.
    pub detail: String,
}

impl WireError {
    pub(crate) fn new(field: &'static str, detail: impl ToString) -> Self {
        Self { field, detail: detail.to_string() }
    }
}

/// For `map_err`: names the field that could not be converted.
pub(crate) fn of<E: ToString>(field: &'static str) -> impl Fn(E) -> WireError {
    move |error| WireError::new(field, error)
}

/// Go's nil: `null` reads as the empty value.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's empty struct, `{}`, as a value of TaskTypes' map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// Bytes: base64 with padding; `null` reads as none at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.unwrap_or_default());
        bytes.map(Self).map_err(|error| serde::de::Error::custom(format!("bytes must be base64: {error}")))
    }
}

/// Exactly 32 bytes: randomness.
impl TryFrom<Base64> for [u8; 32] {
    type Error = String;

    fn try_from(bytes: Base64) -> Result<Self, String> {
        bytes.0.try_into().map_err(|bytes: Vec<u8>| format!("{} bytes, expected 32", bytes.len()))
    }
}

/// A CID: `{"/":"<text>"}`. Always used as `Option`, since Go writes `null` for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cid {
    #[serde(rename = "/")]
    pub text: String,
}

impl Cid {
    pub(crate) fn of(cid: impl ToString) -> Option<Self> {
        Some(Self { text: cid.to_string() })
    }
}

/// The CID of this field as one of our two kinds.
pub(crate) fn cid<T>(field: &'static str, cid: Option<Cid>) -> Result<T, WireError>
where
    T: std::str::FromStr,
    T::Err: ToString,
{
    let cid = cid.ok_or_else(|| WireError::new(field, "null, expected a CID"))?;
    cid.text.parse().map_err(of(field))
}
