//! The calls that start tasks: which Lotus method each task input is, and its parameters, in both directions.

use sealtasks::{
    AddPieceInput, Commit1Input, Commit2Input, DataCidInput, FetchInput, FileTypes, FinalizeInput, MoveInput,
    PieceSource, PreCommit1Input, PreCommit2Input, RegisteredSealProof, ReleaseUnsealedInput, SectorSize,
    Seed, TaskInput, Ticket, UnpaddedPieceSize, UnsealInput, UnsealedRange,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::args::Args;
use super::sector::{PieceInfo, Range, SectorCids, SectorRef};
use super::{Base64, Cid, WireError, of};
use crate::reader::ReaderParam;

/// The methods by which a worker is given tasks of the kinds we know, with their number of parameters.
pub(crate) const METHODS: [(&str, usize); 11] = [
    ("Filecoin.DataCid", 2),
    ("Filecoin.AddPiece", 4),
    ("Filecoin.SealPreCommit1", 3),
    ("Filecoin.SealPreCommit2", 2),
    ("Filecoin.SealCommit1", 5),
    ("Filecoin.SealCommit2", 2),
    ("Filecoin.FinalizeSector", 1),
    ("Filecoin.ReleaseUnsealed", 2),
    ("Filecoin.Fetch", 4),
    ("Filecoin.MoveStorage", 2),
    ("Filecoin.UnsealPiece", 5),
];

/// Methods of Lotus workers for tasks that no Sealyard offers, with their number of parameters. They are known so that
/// the refusal can say so.
pub(crate) const FOREIGN_METHODS: [(&str, usize, &str); 8] = [
    ("Filecoin.ReplicaUpdate", 2, "seal/v0/replicaupdate"),
    ("Filecoin.ProveReplicaUpdate1", 4, "seal/v0/provereplicaupdate/1"),
    ("Filecoin.ProveReplicaUpdate2", 5, "seal/v0/provereplicaupdate/2"),
    ("Filecoin.GenerateSectorKeyFromData", 2, "seal/v0/regensectorkey"),
    ("Filecoin.FinalizeReplicaUpdate", 1, "seal/v0/finalize/replicaupdate"),
    ("Filecoin.DownloadSectorData", 3, "seal/v0/download/sector"),
    ("Filecoin.GenerateWinningPoSt", 4, "post/v0/winningproof"),
    ("Filecoin.GenerateWindowPoSt", 5, "post/v0/windowproof"),
];

/// The sector that stands for none: DataCid has none on the wire. Its proof says nothing.
pub(crate) const NO_SECTOR: sealtasks::SectorRef = sealtasks::SectorRef {
    id: sealtasks::SectorId::new(0, 0),
    proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2),
};

/// The method's full name and its parameters as a JSON array. `reader` is there exactly for DataCid and AddPiece.
pub(crate) fn encode(
    sector: sealtasks::SectorRef,
    work: TaskInput,
    reader: Option<ReaderParam>,
) -> Result<(&'static str, Box<RawValue>), WireError> {
    let sector = SectorRef::from(sector);
    let reader = || reader.ok_or_else(|| WireError::new("Reader", "the piece's bytes are missing"));
    let bytes = |bytes: &[u8]| Base64(bytes.to_vec());
    Ok(match work {
        TaskInput::DataCid(input) => ("Filecoin.DataCid", raw(&(input.size.get(), reader()?))?),
        TaskInput::AddPiece(input) => {
            let existing: Vec<u64> = input.existing.iter().map(|size| size.get()).collect();
            ("Filecoin.AddPiece", raw(&(sector, existing, input.size.get(), reader()?))?)
        }
        TaskInput::PreCommit1(input) => {
            ("Filecoin.SealPreCommit1", raw(&(sector, bytes(&input.ticket.0), pieces(&input.pieces)))?)
        }
        TaskInput::PreCommit2(input) => ("Filecoin.SealPreCommit2", raw(&(sector, Base64(input.pc1.0)))?),
        TaskInput::Commit1(input) => {
            let cids = SectorCids::new(input.unsealed, input.sealed);
            let (ticket, seed) = (bytes(&input.ticket.0), bytes(&input.seed.0));
            ("Filecoin.SealCommit1", raw(&(sector, ticket, seed, pieces(&input.pieces), cids))?)
        }
        TaskInput::Commit2(input) => ("Filecoin.SealCommit2", raw(&(sector, Base64(input.c1.0)))?),
        TaskInput::Finalize(FinalizeInput {}) => ("Filecoin.FinalizeSector", raw(&(sector,))?),
        TaskInput::ReleaseUnsealed(input) => {
            let keep: Vec<Range> = input.keep.into_iter().map(Range::from).collect();
            ("Filecoin.ReleaseUnsealed", raw(&(sector, keep))?)
        }
        TaskInput::Fetch(input) => {
            ("Filecoin.Fetch", raw(&(sector, input.types, input.path_type, input.mode))?)
        }
        TaskInput::Move(input) => ("Filecoin.MoveStorage", raw(&(sector, input.types))?),
        TaskInput::Unseal(input) => {
            let range = Range::from(input.range);
            let (ticket, comm_d) = (bytes(&input.ticket.0), Cid::of(input.unsealed));
            ("Filecoin.UnsealPiece", raw(&(sector, range.offset, range.size, ticket, comm_d))?)
        }
        TaskInput::Verify(_) | TaskInput::Scrub(_) | TaskInput::Vanilla(_) => {
            return Err(WireError::new("task", "this is no task that a worker takes over the wire"));
        }
    })
}

/// A task as it came over the wire, its bytes still to be fetched.
pub(crate) struct Started {
    pub sector: sealtasks::SectorRef,
    pub work: TaskInput,
    pub reader: Option<ReaderParam>,
}

/// The number of parameters of a method that starts a task; `None` for any other name.
pub(crate) fn arity(method: &str) -> Option<usize> {
    METHODS.iter().find(|(name, _)| *name == method).map(|(_, params)| *params)
}

/// Reads the parameters of `method`, a full name of [`METHODS`]. The count is checked by the caller.
pub(crate) fn decode(method: &str, args: &mut Args) -> Result<Started, WireError> {
    if method == "Filecoin.DataCid" {
        let size = args.next_as::<u64, UnpaddedPieceSize>("pieceSize")?;
        let reader = args.next("pieceData")?;
        let work = TaskInput::DataCid(DataCidInput { size, source: source(&reader, size)? });
        return Ok(Started { sector: NO_SECTOR, work, reader: Some(reader) });
    }
    let sector = args.next_as::<SectorRef, sealtasks::SectorRef>("sector")?;
    let mut reader = None;
    let work = match method {
        "Filecoin.AddPiece" => {
            let existing = args.next_list::<u64, UnpaddedPieceSize>("pieceSizes")?;
            let size = args.next_as::<u64, UnpaddedPieceSize>("newPieceSize")?;
            let data = args.next("pieceData")?;
            let source = source(&data, size)?;
            reader = Some(data);
            TaskInput::AddPiece(AddPieceInput { existing, size, source })
        }
        "Filecoin.SealPreCommit1" => {
            let ticket = Ticket(args.next_as::<Base64, _>("ticket")?);
            TaskInput::PreCommit1(PreCommit1Input { ticket, pieces: piece_list(args)? })
        }
        "Filecoin.SealPreCommit2" => {
            let pc1 = sealtasks::Pc1Output(args.next::<Base64>("pc1o")?.0);
            TaskInput::PreCommit2(PreCommit2Input { pc1 })
        }
        "Filecoin.SealCommit1" => {
            let ticket = Ticket(args.next_as::<Base64, _>("ticket")?);
            let seed = Seed(args.next_as::<Base64, _>("seed")?);
            let pieces = piece_list(args)?;
            let (unsealed, sealed) = args.next::<SectorCids>("cids")?.into_parts()?;
            TaskInput::Commit1(Commit1Input { ticket, seed, pieces, sealed, unsealed })
        }
        "Filecoin.SealCommit2" => {
            let c1 = sealtasks::C1Output(args.next::<Base64>("c1o")?.0);
            TaskInput::Commit2(Commit2Input { c1 })
        }
        "Filecoin.FinalizeSector" => TaskInput::Finalize(FinalizeInput {}),
        _ => file_task(method, args)?,
    };
    Ok(Started { sector, work, reader })
}

/// The rest of [`decode`]: tasks about files and unsealed data.
fn file_task(method: &str, args: &mut Args) -> Result<TaskInput, WireError> {
    Ok(match method {
        "Filecoin.ReleaseUnsealed" => {
            let keep = args.next_list::<Range, UnsealedRange>("keepUnsealed")?;
            TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep })
        }
        "Filecoin.Fetch" => TaskInput::Fetch(FetchInput {
            types: args.next_as::<i64, FileTypes>("fileType")?,
            path_type: args.next("pathType")?,
            mode: args.next("acquireMode")?,
        }),
        "Filecoin.MoveStorage" => {
            TaskInput::Move(MoveInput { types: args.next_as::<i64, FileTypes>("fileType")? })
        }
        "Filecoin.UnsealPiece" => {
            let offset = args.next::<u64>("offset")?;
            let size = args.next::<u64>("size")?;
            let range = UnsealedRange { offset: offset.try_into().map_err(of("offset"))?, size };
            let ticket = Ticket(args.next_as::<Base64, _>("ticket")?);
            TaskInput::Unseal(UnsealInput { range, ticket, unsealed: args.next_cid("commd")? })
        }
        other => return Err(WireError::new("method", format!("{other:?} starts no task"))),
    })
}

/// Zeros need not be sent, but must not be more than the piece has.
fn source(reader: &ReaderParam, size: UnpaddedPieceSize) -> Result<PieceSource, WireError> {
    let ReaderParam::Null(count) = reader else { return Ok(PieceSource::Stream) };
    match count.parse::<u64>() {
        Ok(count) if count <= size.get() => Ok(PieceSource::Zeros),
        Ok(count) => Err(WireError::new("pieceData", format!("{count} zeros for a piece of {size} bytes"))),
        Err(_) => Err(WireError::new("pieceData", format!("{count:?} is no number of zeros"))),
    }
}

fn piece_list(args: &mut Args) -> Result<Vec<sealtasks::PieceInfo>, WireError> {
    args.next_list::<PieceInfo, sealtasks::PieceInfo>("pieces")
}

fn pieces(pieces: &[sealtasks::PieceInfo]) -> Vec<PieceInfo> {
    pieces.iter().map(|piece| PieceInfo::from(*piece)).collect()
}

fn raw<T: Serialize>(params: &T) -> Result<Box<RawValue>, WireError> {
    to_raw_value(params).map_err(of("params"))
}
