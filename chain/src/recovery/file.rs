//! The file of lost sectors. Written byte for byte as filecoin-sealer-recover does for committed capacity; sectors with
//! deals have two keys more, `UnsealedCID` and `Pieces`, which that program ignores.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealtasks::{ActorId, PaddedPieceSize, PieceInfo, RegisteredSealProof, SectorNumber, SectorSize, Ticket};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{LostSector, Metadata};
use crate::lotus::wire::Link;

/// The largest file that is read, in bytes; a sector takes about 250.
pub const FILE_SIZE_MAX: usize = 64 << 20;
/// Who writes it.
const FORM: &str = "`repair export` writes it";

/// The name that filecoin-sealer-recover gives the file.
pub fn file_name(miner: ActorId) -> String {
    format!("sectors-recovery-f0{}.json", miner.get())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FileForm {
    miner: String,
    sector_size: u64,
    sector_infos: Vec<SectorForm>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SectorForm {
    sector_number: u64,
    ticket: String,
    seal_proof: i64,
    #[serde(rename = "SealedCID")]
    sealed: Link,
    #[serde(rename = "UnsealedCID", skip_serializing_if = "Option::is_none")]
    unsealed: Option<Link>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<PieceForm>,
}

/// Lotus's PieceInfo.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PieceForm {
    size: u64,
    #[serde(rename = "PieceCID")]
    piece: Link,
}

/// The file's text: indented with tabs, without a newline at its end.
pub fn write(metadata: &Metadata) -> String {
    let piece = |piece: &PieceInfo| PieceForm { size: piece.size.get(), piece: Link::new(piece.cid) };
    let sector = |sector: &LostSector| SectorForm {
        sector_number: sector.number.get(),
        ticket: STANDARD.encode(sector.ticket.0),
        seal_proof: sector.proof.number(),
        sealed: Link::new(sector.sealed),
        unsealed: sector.unsealed.map(Link::new),
        pieces: sector.pieces.iter().map(piece).collect(),
    };
    let form = FileForm {
        miner: format!("f0{}", metadata.miner.get()),
        sector_size: metadata.size.bytes(),
        sector_infos: metadata.sectors.iter().map(sector).collect(),
    };
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    // Texts, numbers and lists alone: there is nothing that JSON cannot hold and nothing that memory refuses.
    let _ = form.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter));
    String::from_utf8(out).unwrap_or_default()
}

/// Reads such a file. Keys that are not known are ignored, as filecoin-sealer-recover ignores them.
///
/// # Errors
/// The first thing that is wrong, with the sector that it is wrong with.
pub fn parse(text: &[u8]) -> Result<Metadata, MetadataError> {
    if text.len() > FILE_SIZE_MAX {
        return Err(MetadataError::Length { bytes: text.len() });
    }
    let json = |error: serde_json::Error| MetadataError::Json { form: FORM, detail: error.to_string() };
    let file: Map<String, Value> = serde_json::from_slice(text).map_err(json)?;
    let top = Place { number: None };
    let miner = top.text(&file, "Miner")?;
    let miner: ActorId = miner.parse().map_err(|error| top.wrong("Miner", &error))?;
    let size = top.whole(&file, "SectorSize")?;
    let size = u64::try_from(size).ok().and_then(SectorSize::from_bytes).ok_or_else(|| {
        top.wrong("SectorSize", &format!("{size} is no sector size; 2 KiB is 2048, 32 GiB is 34359738368"))
    })?;
    let infos = match top.field(&file, "SectorInfos")? {
        Value::Array(infos) => infos,
        other => return Err(top.wrong("SectorInfos", &format!("expected a list, not {}", kind(other)))),
    };
    let mut seen = BTreeSet::new();
    let mut sectors = Vec::with_capacity(infos.len());
    for (at, info) in infos.iter().enumerate() {
        let sector = sector(at, info, size)?;
        if !seen.insert(sector.number) {
            return Err(MetadataError::Twice { number: sector.number });
        }
        sectors.push(sector);
    }
    Ok(Metadata { miner, size, sectors })
}

fn sector(at: usize, info: &Value, size: SectorSize) -> Result<LostSector, MetadataError> {
    let list = "SectorInfos";
    let nameless = |detail: String| MetadataError::Nameless { list, entry: at + 1, detail };
    let info = info.as_object().ok_or_else(|| nameless(format!("expected an object, not {}", kind(info))))?;
    let number = number(info).map_err(nameless)?;
    let place = Place { number: Some(number) };
    let ticket = STANDARD.decode(place.text(info, "Ticket")?);
    let ticket = ticket.ok().and_then(|bytes| bytes.try_into().ok());
    let ticket = ticket.ok_or_else(|| place.wrong("Ticket", &"expected 32 bytes in base64"))?;
    let proof = RegisteredSealProof::try_from(place.whole(info, "SealProof")?)
        .map_err(|error| place.wrong("SealProof", &error))?;
    if proof.sector_size() != size {
        let detail =
            format!("proof {proof} is for {} sectors, and the file's are {size}", proof.sector_size());
        return Err(place.wrong("SealProof", &detail));
    }
    let sealed = place.link(info, "SealedCID")?.parse().map_err(|error| place.wrong("SealedCID", &error))?;
    let unsealed = match info.get("UnsealedCID") {
        None | Some(Value::Null) => None,
        Some(_) => {
            let text = place.link(info, "UnsealedCID")?;
            Some(text.parse().map_err(|error| place.wrong("UnsealedCID", &error))?)
        }
    };
    let pieces = pieces(&place, info, size)?;
    Ok(LostSector { number, ticket: Ticket(ticket), proof, sealed, unsealed, pieces })
}

/// Of which sector an entry is.
pub(super) fn number(entry: &Map<String, Value>) -> Result<SectorNumber, String> {
    let number = entry.get("SectorNumber").and_then(Value::as_u64);
    number.map(SectorNumber::new).ok_or_else(|| "SectorNumber is missing or no whole number".to_owned())
}

fn pieces(
    place: &Place,
    info: &Map<String, Value>,
    size: SectorSize,
) -> Result<Vec<PieceInfo>, MetadataError> {
    let listed = match info.get("Pieces") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed,
        Some(other) => return Err(place.wrong("Pieces", &format!("expected a list, not {}", kind(other)))),
    };
    let mut pieces = Vec::new();
    let mut end: u64 = 0;
    for piece in listed {
        let piece =
            piece.as_object().ok_or_else(|| place.wrong("Pieces", &"expected objects in the list"))?;
        let bytes = u64::try_from(place.whole(piece, "Size")?).unwrap_or(0);
        let padded = PaddedPieceSize::try_from(bytes).map_err(|error| place.wrong("Size", &error))?;
        let cid = place.link(piece, "PieceCID")?.parse().map_err(|error| place.wrong("PieceCID", &error))?;
        // Each lies at the next multiple of its own size.
        end = end
            .checked_next_multiple_of(bytes)
            .and_then(|start| start.checked_add(bytes))
            .unwrap_or(u64::MAX);
        if end > size.bytes() {
            return Err(place.wrong("Pieces", &format!("they do not fit into a {size} sector")));
        }
        pieces.push(PieceInfo { size: padded, cid });
    }
    Ok(pieces)
}

/// Where in the file, for errors.
pub(super) struct Place {
    pub(super) number: Option<SectorNumber>,
}

impl Place {
    pub(super) fn wrong(&self, field: &'static str, detail: &impl ToString) -> MetadataError {
        let detail = detail.to_string();
        match self.number {
            Some(number) => MetadataError::Sector { number, field, detail },
            None => MetadataError::File { field, detail },
        }
    }

    fn field<'a>(&self, map: &'a Map<String, Value>, name: &'static str) -> Result<&'a Value, MetadataError> {
        map.get(name).filter(|value| !value.is_null()).ok_or_else(|| self.wrong(name, &"it is missing"))
    }

    fn text<'a>(&self, map: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, MetadataError> {
        let value = self.field(map, name)?;
        value.as_str().ok_or_else(|| self.wrong(name, &format!("expected a text, not {}", kind(value))))
    }

    pub(super) fn whole(&self, map: &Map<String, Value>, name: &'static str) -> Result<i64, MetadataError> {
        let value = self.field(map, name)?;
        value
            .as_i64()
            .ok_or_else(|| self.wrong(name, &format!("expected a whole number, not {}", kind(value))))
    }

    /// A CID as Go writes it, or as a text.
    pub(super) fn cid<'a>(
        &self,
        map: &'a Map<String, Value>,
        name: &'static str,
    ) -> Result<&'a str, MetadataError> {
        let value = self.field(map, name)?;
        value.as_str().map_or_else(|| self.link(map, name), Ok)
    }

    /// `{"/": "…"}`.
    fn link<'a>(&self, map: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, MetadataError> {
        let text = self.field(map, name)?.get("/").and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(name, &"expected {\"/\": \"<CID>\"}"))
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What is wrong with a file of lost sectors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Too long to be one.
    #[error("the file has {bytes} bytes; more than {FILE_SIZE_MAX} are not read")]
    Length {
        /// So long.
        bytes: usize,
    },
    /// No JSON object.
    #[error("the file is no JSON as {form}: {detail}")]
    Json {
        /// Who writes such files.
        form: &'static str,
        /// Where and why.
        detail: String,
    },
    /// Something that concerns all sectors.
    #[error("{field}: {detail}")]
    File {
        /// The key.
        field: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A sector whose number is not known.
    #[error("sector entry {entry} of {list}: {detail}")]
    Nameless {
        /// The list.
        list: &'static str,
        /// Its place in the list, from 1.
        entry: usize,
        /// What is wrong.
        detail: String,
    },
    /// A sector.
    #[error("sector {number}: {field}: {detail}")]
    Sector {
        /// Which.
        number: SectorNumber,
        /// The key.
        field: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Which of the two would count?
    #[error("sector {number} is in the file twice")]
    Twice {
        /// Which.
        number: SectorNumber,
    },
}
