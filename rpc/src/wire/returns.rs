//! Results and failures of tasks as a worker returns them. A failure carries Go's zero value in the result's place.

use sealtasks::{CallErrorCode, TaskOutput};
use serde_json::value::{RawValue, to_raw_value};

use super::sector::{CallError, PieceInfo, SectorCids};
use super::{Base64, WireError, of};
use crate::api::{ReturnMethod, Returned};

/// A return in pieces: what stands behind the call id.
pub(crate) struct Encoded {
    /// There exactly when the method has a value.
    pub value: Option<Box<RawValue>>,
    /// `None` says success, and is sent as `null`.
    pub error: Option<CallError>,
}

/// Takes a return apart for the wire.
pub(crate) fn encode(
    method: ReturnMethod,
    result: Result<TaskOutput, sealtasks::CallError>,
) -> Result<Encoded, WireError> {
    let (value, error) = match result {
        Ok(output) => (success(method, output)?, None),
        Err(error) => (zero(method)?, Some(CallError::from(error))),
    };
    Ok(Encoded { value, error })
}

fn success(method: ReturnMethod, output: TaskOutput) -> Result<Option<Box<RawValue>>, WireError> {
    let json = |value: Result<_, serde_json::Error>| value.map(Some).map_err(of("value"));
    match (method, output) {
        (ReturnMethod::DataCid, TaskOutput::DataCid(piece))
        | (ReturnMethod::AddPiece, TaskOutput::AddPiece(piece)) => {
            json(to_raw_value(&PieceInfo::from(piece)))
        }
        (ReturnMethod::SealPreCommit1, TaskOutput::PreCommit1(out)) => json(to_raw_value(&Base64(out.0))),
        (ReturnMethod::SealPreCommit2, TaskOutput::PreCommit2 { unsealed, sealed }) => {
            json(to_raw_value(&SectorCids::new(unsealed, sealed)))
        }
        (ReturnMethod::SealCommit1, TaskOutput::Commit1(out)) => json(to_raw_value(&Base64(out.0))),
        (ReturnMethod::SealCommit2, TaskOutput::Commit2(out)) => json(to_raw_value(&Base64(out.0))),
        (ReturnMethod::FinalizeSector, TaskOutput::Finalize)
        | (ReturnMethod::ReleaseUnsealed, TaskOutput::ReleaseUnsealed)
        | (ReturnMethod::MoveStorage, TaskOutput::Move)
        | (ReturnMethod::UnsealPiece, TaskOutput::Unseal)
        | (ReturnMethod::Fetch, TaskOutput::Fetch) => Ok(None),
        (method, _) => Err(WireError::new("value", format!("the result is not one of {}", method.name()))),
    }
}

fn zero(method: ReturnMethod) -> Result<Option<Box<RawValue>>, WireError> {
    let text = match method {
        ReturnMethod::DataCid | ReturnMethod::AddPiece => r#"{"Size":0,"PieceCID":null}"#,
        ReturnMethod::SealPreCommit2 => r#"{"Unsealed":null,"Sealed":null}"#,
        ReturnMethod::ReplicaUpdate => r#"{"NewSealed":null,"NewUnsealed":null}"#,
        ReturnMethod::ReadPiece => "false",
        ReturnMethod::SealPreCommit1
        | ReturnMethod::SealCommit1
        | ReturnMethod::SealCommit2
        | ReturnMethod::ProveReplicaUpdate1
        | ReturnMethod::ProveReplicaUpdate2 => "null",
        ReturnMethod::FinalizeSector
        | ReturnMethod::GenerateSectorKeyFromData
        | ReturnMethod::FinalizeReplicaUpdate
        | ReturnMethod::ReleaseUnsealed
        | ReturnMethod::MoveStorage
        | ReturnMethod::UnsealPiece
        | ReturnMethod::DownloadSector
        | ReturnMethod::Fetch => return Ok(None),
    };
    RawValue::from_string(text.to_owned()).map(Some).map_err(of("value"))
}

/// Puts a return together again. Beside an error the value is not looked at: it is Go's zero value or rubbish.
pub(crate) fn decode(
    method: ReturnMethod,
    value: Option<&RawValue>,
    error: Option<CallError>,
) -> Result<Returned, WireError> {
    let result = match error {
        Some(error) => Err(error.into()),
        None => result(method, value.map_or("null", RawValue::get))?,
    };
    Ok(Returned { method, result, attempt: None, account: None })
}

fn result(method: ReturnMethod, value: &str) -> Result<Result<TaskOutput, sealtasks::CallError>, WireError> {
    let piece = || -> Result<sealtasks::PieceInfo, WireError> {
        serde_json::from_str::<PieceInfo>(value).map_err(of("PieceInfo"))?.try_into()
    };
    let bytes = || -> Result<Vec<u8>, WireError> {
        let bytes = serde_json::from_str::<Base64>(value).map_err(of("value"))?.0;
        // Nothing that a task makes is empty, and "nothing" must not pass for a proof.
        if bytes.is_empty() {
            Err(WireError::new("value", "no bytes in a successful return"))
        } else {
            Ok(bytes)
        }
    };
    Ok(Ok(match method {
        ReturnMethod::DataCid => TaskOutput::DataCid(piece()?),
        ReturnMethod::AddPiece => TaskOutput::AddPiece(piece()?),
        ReturnMethod::SealPreCommit1 => TaskOutput::PreCommit1(sealtasks::Pc1Output(bytes()?)),
        ReturnMethod::SealPreCommit2 => {
            let cids: SectorCids = serde_json::from_str(value).map_err(of("SectorCids"))?;
            let (unsealed, sealed) = cids.into_parts()?;
            TaskOutput::PreCommit2 { unsealed, sealed }
        }
        ReturnMethod::SealCommit1 => TaskOutput::Commit1(sealtasks::C1Output(bytes()?)),
        ReturnMethod::SealCommit2 => TaskOutput::Commit2(sealtasks::Proof(bytes()?)),
        ReturnMethod::FinalizeSector => TaskOutput::Finalize,
        ReturnMethod::ReleaseUnsealed => TaskOutput::ReleaseUnsealed,
        ReturnMethod::MoveStorage => TaskOutput::Move,
        ReturnMethod::UnsealPiece => TaskOutput::Unseal,
        ReturnMethod::Fetch => TaskOutput::Fetch,
        ReturnMethod::ReplicaUpdate
        | ReturnMethod::ProveReplicaUpdate1
        | ReturnMethod::ProveReplicaUpdate2
        | ReturnMethod::GenerateSectorKeyFromData
        | ReturnMethod::FinalizeReplicaUpdate
        | ReturnMethod::ReadPiece
        | ReturnMethod::DownloadSector => return Ok(Err(unasked(method))),
    }))
}

/// No Sealyard starts these tasks, so the result belongs to a manager that ran here before. Taken, since the worker
/// would offer it for ever; but as a failure, since nobody can use it.
fn unasked(method: ReturnMethod) -> sealtasks::CallError {
    let message = format!("{}: this manager starts no such task and drops its result", method.short_name());
    sealtasks::CallError { code: CallErrorCode::Unknown, message }
}
