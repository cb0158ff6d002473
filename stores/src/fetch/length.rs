//! How long a sector's file may be.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sealtasks::FileType;

use super::Target;
use crate::error::StoreError;

/// An unsealed file's trailer: its run-length code and the four bytes of its length (bytes).
const TRAILER_MAX: u64 = (1 << 20) + 4;

/// The replicas have exactly the sector's size, an unsealed file its trailer besides.
pub(super) fn check_length(target: &Target, length: u64) -> Result<(), StoreError> {
    let size = target.sector.proof.sector_size().bytes();
    match target.kind {
        FileType::Sealed | FileType::Update if length != size => {
            Err(wrong_length(target, length, size.to_string()))
        }
        FileType::Unsealed if length < size || length > size + TRAILER_MAX => {
            Err(wrong_length(target, length, format!("{size} and a trailer of at most {TRAILER_MAX}")))
        }
        FileType::Piece if length > size => Err(wrong_length(target, length, format!("at most {size}"))),
        FileType::Sealed
        | FileType::Update
        | FileType::Unsealed
        | FileType::Piece
        | FileType::Cache
        | FileType::UpdateCache => Ok(()),
    }
}

pub(super) fn length_max(target: &Target) -> u64 {
    let size = target.sector.proof.sector_size().bytes();
    if target.kind == FileType::Unsealed { size + TRAILER_MAX } else { size }
}

/// The last four bytes say how long the code before them is; a file without a trailer is fully allocated.
pub(super) fn check_trailer(file: &Path, target: &Target, length: u64) -> Result<(), StoreError> {
    let size = target.sector.proof.sector_size().bytes();
    let trailer = length.saturating_sub(size);
    if trailer == 0 {
        return Ok(());
    }
    let bad = || wrong_length(target, length, format!("{size} and a trailer that states its own length"));
    let mut bytes = [0; 4];
    let from_end = i64::try_from(bytes.len()).map_err(|_| bad())?;
    let mut handle = std::fs::File::open(file).map_err(StoreError::io("open", file))?;
    handle
        .seek(SeekFrom::End(-from_end))
        .and_then(|_| handle.read_exact(&mut bytes))
        .map_err(StoreError::io("read", file))?;
    if u64::from(u32::from_le_bytes(bytes)) + 4 == trailer { Ok(()) } else { Err(bad()) }
}

pub(super) fn wrong_length(target: &Target, got: u64, expected: String) -> StoreError {
    StoreError::Length { sector: target.sector.id, kind: target.kind, got, expected }
}
