//! Sectors, pieces, calls and their errors on the wire.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Cid, WireError, cid, nullable, of};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SectorId {
    pub miner: u64,
    pub number: u64,
}

impl From<sealtasks::SectorId> for SectorId {
    fn from(id: sealtasks::SectorId) -> Self {
        Self { miner: id.miner.get(), number: id.number.get() }
    }
}

impl From<SectorId> for sealtasks::SectorId {
    fn from(id: SectorId) -> Self {
        Self::new(id.miner, id.number)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SectorRef {
    #[serde(rename = "ID")]
    pub id: SectorId,
    pub proof_type: i64,
}

impl From<sealtasks::SectorRef> for SectorRef {
    fn from(sector: sealtasks::SectorRef) -> Self {
        Self { id: sector.id.into(), proof_type: sector.proof.number() }
    }
}

impl TryFrom<SectorRef> for sealtasks::SectorRef {
    type Error = WireError;

    fn try_from(sector: SectorRef) -> Result<Self, WireError> {
        let proof = sector.proof_type.try_into().map_err(of("ProofType"))?;
        Ok(Self { id: sector.id.into(), proof })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PieceInfo {
    pub size: u64,
    #[serde(rename = "PieceCID")]
    pub piece_cid: Option<Cid>,
}

impl From<sealtasks::PieceInfo> for PieceInfo {
    fn from(piece: sealtasks::PieceInfo) -> Self {
        Self { size: piece.size.get(), piece_cid: Cid::of(piece.cid) }
    }
}

impl TryFrom<PieceInfo> for sealtasks::PieceInfo {
    type Error = WireError;

    fn try_from(piece: PieceInfo) -> Result<Self, WireError> {
        Ok(Self {
            size: piece.size.try_into().map_err(of("PieceInfo.Size"))?,
            cid: cid("PieceInfo.PieceCID", piece.piece_cid)?,
        })
    }
}

/// CommD and CommR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SectorCids {
    pub unsealed: Option<Cid>,
    pub sealed: Option<Cid>,
}

impl SectorCids {
    pub(crate) fn new(unsealed: sealtasks::UnsealedCid, sealed: sealtasks::SealedCid) -> Self {
        Self { unsealed: Cid::of(unsealed), sealed: Cid::of(sealed) }
    }

    pub(crate) fn into_parts(self) -> Result<(sealtasks::UnsealedCid, sealtasks::SealedCid), WireError> {
        Ok((cid("SectorCids.Unsealed", self.unsealed)?, cid("SectorCids.Sealed", self.sealed)?))
    }
}

/// A span of unsealed data in unpadded bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Range {
    pub offset: u64,
    pub size: u64,
}

impl From<sealtasks::UnsealedRange> for Range {
    fn from(range: sealtasks::UnsealedRange) -> Self {
        Self { offset: range.offset.get(), size: range.size }
    }
}

impl TryFrom<Range> for sealtasks::UnsealedRange {
    type Error = WireError;

    fn try_from(range: Range) -> Result<Self, WireError> {
        Ok(Self { offset: range.offset.try_into().map_err(of("Range.Offset"))?, size: range.size })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CallId {
    pub sector: SectorId,
    #[serde(rename = "ID")]
    pub id: Uuid,
}

impl From<sealtasks::CallId> for CallId {
    fn from(call: sealtasks::CallId) -> Self {
        Self { sector: call.sector.into(), id: call.id }
    }
}

impl From<CallId> for sealtasks::CallId {
    fn from(call: CallId) -> Self {
        Self { sector: call.sector.into(), id: call.id }
    }
}

/// Why a call failed. Beside a result it is always there: `null` says success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CallError {
    pub code: i64,
    #[serde(deserialize_with = "nullable")]
    pub message: String,
}

impl From<sealtasks::CallError> for CallError {
    fn from(error: sealtasks::CallError) -> Self {
        Self { code: error.code.number(), message: error.message }
    }
}

impl From<CallError> for sealtasks::CallError {
    fn from(error: CallError) -> Self {
        Self { code: error.code.into(), message: error.message }
    }
}
