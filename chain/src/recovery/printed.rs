//! Pre-commitments as they are printed: the body of a PreCommit message, as explorers, `lotus` and filecoin-sealer-recover's
//! manual show it. Keys are taken as Go takes them, in capitals or not.

use sealtasks::{RegisteredSealProof, SealedCid, SectorNumber, UnsealedCid};
use serde_json::{Map, Value};

use super::file::{MetadataError, Place, kind, number};
use super::{FILE_SIZE_MAX, SECTORS_MAX};
use crate::lotus::wire::{Link, PreCommitInfo};

const FORM: &str = "a PreCommit message's body is printed";
const LIST: &str = "the PreCommit bodies";
/// What is read, by Lotus's names, and what others call the same.
const KEYS: [(&str, &str); 6] = [
    ("SectorNumber", "SectorNumber"),
    ("SealProof", "RegisteredProof"),
    ("SealedCID", "SealedCID"),
    ("SealRandEpoch", "SealRandEpoch"),
    ("DealIDs", "DealIDs"),
    ("UnsealedCid", "UnsealedCid"),
];

/// One printed pre-commitment.
#[derive(Clone, Debug)]
pub struct Printed {
    pub(super) info: PreCommitInfo,
}

impl Printed {
    /// Of which sector.
    pub fn number(&self) -> SectorNumber {
        SectorNumber::new(self.info.sector_number)
    }
}

/// Reads printed pre-commitments: one body, a list of them, a batch (`{"Sectors": […]}`), each by itself or as a node answers
/// (`{"Info": …}`).
///
/// # Errors
/// The first thing that is wrong, with the sector that it is wrong with.
pub fn parse_printed(text: &[u8]) -> Result<Vec<Printed>, MetadataError> {
    if text.len() > FILE_SIZE_MAX {
        return Err(MetadataError::Length { bytes: text.len() });
    }
    let json = |error: serde_json::Error| MetadataError::Json { form: FORM, detail: error.to_string() };
    let bodies = match serde_json::from_slice(text).map_err(json)? {
        Value::Array(bodies) => bodies,
        Value::Object(mut batch) => match batch.remove("Sectors") {
            Some(Value::Array(bodies)) => bodies,
            Some(other) => {
                let detail = format!("expected a list, not {}", kind(&other));
                return Err(MetadataError::File { field: "Sectors", detail });
            }
            None => vec![Value::Object(batch)],
        },
        other => {
            let detail = format!("expected an object or a list, not {}", kind(&other));
            return Err(MetadataError::Json { form: FORM, detail });
        }
    };
    if bodies.len() > SECTORS_MAX {
        let detail = format!("{} of them; at most {SECTORS_MAX} are read", bodies.len());
        return Err(MetadataError::File { field: "Sectors", detail });
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut printed = Vec::with_capacity(bodies.len());
    for (at, body) in bodies.iter().enumerate() {
        let one = Printed { info: info(at, body)? };
        if !seen.insert(one.number()) {
            return Err(MetadataError::Twice { number: one.number() });
        }
        printed.push(one);
    }
    Ok(printed)
}

fn info(at: usize, body: &Value) -> Result<PreCommitInfo, MetadataError> {
    let nameless = |detail: String| MetadataError::Nameless { list: LIST, entry: at + 1, detail };
    let body = body.get("Info").unwrap_or(body);
    let body = body.as_object().ok_or_else(|| nameless(format!("expected an object, not {}", kind(body))))?;
    let body = in_lotus_s_names(body).map_err(nameless)?;
    let number = number(&body).map_err(nameless)?;
    let place = Place { number: Some(number) };
    let seal_proof = place.whole(&body, "SealProof")?;
    RegisteredSealProof::try_from(seal_proof).map_err(|error| place.wrong("SealProof", &error))?;
    let sealed: SealedCid =
        place.cid(&body, "SealedCID")?.parse().map_err(|error| place.wrong("SealedCID", &error))?;
    let seal_rand_epoch = place.whole(&body, "SealRandEpoch")?;
    if seal_rand_epoch < 0 {
        return Err(place.wrong("SealRandEpoch", &format!("{seal_rand_epoch} is no height")));
    }
    let unsealed: Option<UnsealedCid> = match body.get("UnsealedCid") {
        None | Some(Value::Null) => None,
        Some(_) => Some(
            place.cid(&body, "UnsealedCid")?.parse().map_err(|error| place.wrong("UnsealedCid", &error))?,
        ),
    };
    Ok(PreCommitInfo {
        seal_proof,
        sector_number: number.get(),
        sealed: Some(Link::new(sealed)),
        seal_rand_epoch,
        deals: deals(&place, &body)?,
        // Nothing is asked of it.
        expiration: 0,
        unsealed: unsealed.map(Link::new),
    })
}

fn deals(place: &Place, body: &Map<String, Value>) -> Result<Vec<u64>, MetadataError> {
    let listed = match body.get("DealIDs") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed,
        Some(other) => {
            return Err(place.wrong("DealIDs", &format!("expected a list, not {}", kind(other))));
        }
    };
    let numbers: Option<Vec<u64>> = listed.iter().map(Value::as_u64).collect();
    numbers.ok_or_else(|| place.wrong("DealIDs", &"expected whole numbers in the list"))
}

/// Only what is read; the error names a key that is there twice.
fn in_lotus_s_names(body: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut named = Map::new();
    for (lotus, other) in KEYS {
        let same = |key: &str| key.eq_ignore_ascii_case(lotus) || key.eq_ignore_ascii_case(other);
        let mut values = body.iter().filter(|(key, _)| same(key)).map(|(_, value)| value);
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(format!("{lotus} is there twice"));
        }
        named.insert(lotus.to_owned(), value.clone());
    }
    Ok(named)
}
