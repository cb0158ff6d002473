//! Many declared files in few bytes, between Sealyards: 18 bytes each (miner, number, types, 1 for primary copies;
//! integers little-endian), all of them as one base64 string.

use sealtasks::{FileTypes, SectorDecl, SectorId};

use super::{Base64, WireError, of};

/// Bytes of one record.
const RECORD: usize = 18;

const FIELD: &str = "files";

pub(crate) fn pack(files: &[(SectorDecl, bool)]) -> Base64 {
    let mut bytes = Vec::with_capacity(files.len() * RECORD);
    for (decl, primary) in files {
        bytes.extend_from_slice(&decl.sector.miner.get().to_le_bytes());
        bytes.extend_from_slice(&decl.sector.number.get().to_le_bytes());
        bytes.extend_from_slice(&[decl.types.bits(), u8::from(*primary)]);
    }
    Base64(bytes)
}

pub(crate) fn unpack(packed: &Base64) -> Result<Vec<(SectorDecl, bool)>, WireError> {
    let (records, rest) = packed.0.as_chunks::<RECORD>();
    if !rest.is_empty() {
        let detail = format!("{} bytes; expected {RECORD} for each file", packed.0.len());
        return Err(WireError::new(FIELD, detail));
    }
    records.iter().map(read).collect()
}

fn read(record: &[u8; RECORD]) -> Result<(SectorDecl, bool), WireError> {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let sector = SectorId::new(number(0), number(8));
    let types = FileTypes::try_from(i64::from(record[16])).map_err(of(FIELD))?;
    match record[17] {
        0 => Ok((SectorDecl { sector, types }, false)),
        1 => Ok((SectorDecl { sector, types }, true)),
        other => Err(WireError::new(FIELD, format!("{sector} is marked {other}; 1 is primary, 0 is not"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<(SectorDecl, bool)> {
        let decl = |number, types| SectorDecl { sector: SectorId::new(1000, number), types };
        vec![(decl(0, FileTypes::SEALED), true), (decl(u64::MAX, FileTypes::ALL), false)]
    }

    #[test]
    fn files_come_out_as_they_went_in() {
        assert_eq!(unpack(&pack(&files())), Ok(files()));
        assert_eq!(unpack(&pack(&[])), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let spoilt = |change: fn(&mut Vec<u8>)| {
            let mut packed = pack(&files());
            change(&mut packed.0);
            unpack(&packed).expect_err("refused").to_string()
        };
        assert_eq!(spoilt(|bytes| bytes.truncate(35)), "files: 35 bytes; expected 18 for each file");
        assert!(spoilt(|bytes| bytes[17] = 2).contains("1 is primary"));
        assert!(spoilt(|bytes| bytes[16] = 64).starts_with("files: "));
    }
}
