//! What a task asks of the scheduler, and which files its worker fetches first: Lotus's table of prepare steps and
//! locks. Pure. Never: placement; where files lie is passed in.

use sched::{Allocate, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, NewFile, Request};
use sealtasks::{
    AcquireMode, FetchInput, FileType, FileTypes, PathType, SectorRef, SpaceTable, StorageId, TaskInput,
};

/// Tells which paths hold a file of the task's sector.
pub(crate) type HeldBy<'a> = &'a dyn Fn(FileType) -> Vec<StorageId>;

/// One row of the table.
struct Row {
    existing: Option<(FileTypes, ExistingRule, AcquireMode)>,
    allocate: FileTypes,
    read: FileTypes,
    write: FileTypes,
    space: SpaceTable,
}

const UNSEALED: FileTypes = FileTypes::UNSEALED;
const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);
const ALL_THREE: FileTypes = REPLICA.union(UNSEALED);

/// A task that touches no files of any sector.
const NO_FILES: Row = Row {
    existing: None,
    allocate: FileTypes::NONE,
    read: FileTypes::NONE,
    write: FileTypes::NONE,
    space: SpaceTable::Sealing,
};

fn row(work: &TaskInput) -> Row {
    let fetched = ExistingRule::Fetch(PathType::Sealing);
    match work {
        TaskInput::DataCid(_)
        | TaskInput::Commit2(_)
        | TaskInput::Verify(_)
        | TaskInput::Scrub(_)
        | TaskInput::Vanilla(_) => NO_FILES,
        TaskInput::AddPiece(input) if input.existing.is_empty() => {
            Row { allocate: UNSEALED, write: UNSEALED, ..NO_FILES }
        }
        TaskInput::AddPiece(_) | TaskInput::ReleaseUnsealed(_) => Row {
            existing: Some((UNSEALED, ExistingRule::Here, AcquireMode::Move)),
            write: UNSEALED,
            ..NO_FILES
        },
        TaskInput::PreCommit1(_) => Row {
            existing: Some((UNSEALED, fetched, AcquireMode::Move)),
            allocate: REPLICA,
            read: UNSEALED,
            write: REPLICA,
            ..NO_FILES
        },
        TaskInput::PreCommit2(_) => Row {
            existing: Some((REPLICA, fetched, AcquireMode::Move)),
            read: FileTypes::SEALED,
            write: FileTypes::CACHE,
            ..NO_FILES
        },
        TaskInput::Commit1(_) => Row {
            existing: Some((REPLICA, ExistingRule::PartlyHere(PathType::Sealing), AcquireMode::Move)),
            read: FileTypes::SEALED,
            write: FileTypes::CACHE,
            ..NO_FILES
        },
        TaskInput::Finalize(_) => Row {
            existing: Some((FileTypes::CACHE, ExistingRule::Here, AcquireMode::Move)),
            write: ALL_THREE,
            ..NO_FILES
        },
        TaskInput::Move(input) => Row {
            existing: Some((input.types, ExistingRule::MoveTo(PathType::Storage), AcquireMode::Move)),
            write: ALL_THREE,
            space: SpaceTable::Finalized,
            ..NO_FILES
        },
        TaskInput::Fetch(input) => Row {
            existing: Some((input.types, ExistingRule::Fetch(input.path_type), input.mode)),
            write: input.types,
            space: input.path_type.space_table(),
            ..NO_FILES
        },
        TaskInput::Unseal(_) => Row {
            existing: Some((REPLICA, fetched, AcquireMode::Copy)),
            allocate: UNSEALED,
            read: REPLICA,
            write: UNSEALED,
            ..NO_FILES
        },
    }
}

/// What the scheduler is asked; `None` for verification, which is not scheduled. `since` is when the task was first
/// submitted, `attempts` how many attempts it has made. Whose plans have a say is not in the table.
pub(crate) fn request(
    sector: SectorRef,
    work: &TaskInput,
    held_by: HeldBy<'_>,
    since: Millis,
    attempts: u32,
) -> Option<Request> {
    let task = work.task_type()?;
    let row = row(work);
    let size = sector.proof.sector_size();
    let bytes = |kind: FileType| row.space.bytes(kind.into(), size);
    let existing = row.existing.map(|(types, rule, mode)| Existing {
        rule,
        mode,
        files: types
            .iter()
            .map(|kind| HeldFile { kind, bytes: bytes(kind), held_by: held_by(kind) })
            .collect(),
    });
    // Labels lie beside the data while it is made.
    let labels = match work {
        TaskInput::Unseal(_) => size.unsealing_labels(false),
        _ => 0,
    };
    let made = |kind: FileType| NewFile { kind, bytes: bytes(kind).saturating_add(labels) };
    let new_files: Vec<_> = row.allocate.iter().map(made).collect();
    let allocate =
        (!new_files.is_empty()).then_some(Allocate { path_type: PathType::Sealing, files: new_files });
    Some(Request {
        sector,
        task,
        purpose: None,
        avoid: None,
        priority: 0,
        needs: Needs { existing, allocate },
        locks: Locks { read: row.read, write: row.write },
        since,
        wait_limit: None,
        deadline: None,
        attempts,
    })
}

/// The `Fetch` that brings a task's inputs to its worker; `None` where nothing is ever fetched beforehand.
pub(crate) fn prepare(work: &TaskInput) -> Option<FetchInput> {
    let (types, rule, mode) = row(work).existing?;
    // A task that is a fetch itself needs none before it.
    if matches!(work, TaskInput::Fetch(_)) {
        return None;
    }
    let path_type = match rule {
        ExistingRule::Here => return None,
        ExistingRule::PartlyHere(path_type)
        | ExistingRule::Fetch(path_type)
        | ExistingRule::MoveTo(path_type) => path_type,
    };
    Some(FetchInput { types, path_type, mode })
}

/// The sector's files whose place matters to this task.
pub(crate) fn input_types(work: &TaskInput) -> FileTypes {
    row(work).existing.map_or(FileTypes::NONE, |(types, _, _)| types)
}

#[cfg(test)]
mod tests {
    use sealtasks::{
        AddPieceInput, C1Output, Commit2Input, FinalizeInput, MoveInput, Pc1Output, PieceSource,
        PreCommit2Input, RegisteredSealProof, SectorId, SectorSize, UnpaddedPieceSize,
    };

    use super::*;

    fn asked(work: &TaskInput) -> Request {
        let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
        let sector = SectorRef { id: SectorId::new(1000, 1), proof };
        request(sector, work, &|_| Vec::new(), Millis::ZERO, 0).expect("a scheduled task")
    }

    #[test]
    fn the_table_is_lotus_s() {
        let size = UnpaddedPieceSize::whole_sector(SectorSize::KiB2);
        let add = AddPieceInput { existing: Vec::new(), size, source: PieceSource::Zeros };
        let first = asked(&TaskInput::AddPiece(add));
        assert_eq!((first.needs.existing, first.locks.write), (None, FileTypes::UNSEALED));
        assert_eq!(first.needs.allocate.expect("room for the unsealed file").files[0].bytes, 2048);

        let pc2 = TaskInput::PreCommit2(PreCommit2Input { pc1: Pc1Output(Vec::new()) });
        let expected = FetchInput { types: REPLICA, path_type: PathType::Sealing, mode: AcquireMode::Move };
        assert_eq!(prepare(&pc2), Some(expected));
        assert_eq!(asked(&pc2).locks, Locks { read: FileTypes::SEALED, write: FileTypes::CACHE });

        let c2 = TaskInput::Commit2(Commit2Input { c1: C1Output(Vec::new()) });
        assert_eq!((asked(&c2).needs, prepare(&c2)), (Needs::default(), None));

        let finalize = TaskInput::Finalize(FinalizeInput {});
        assert_eq!((prepare(&finalize), asked(&finalize).locks.write), (None, ALL_THREE));

        let to_storage = TaskInput::Move(MoveInput { types: REPLICA });
        let fetch = prepare(&to_storage).expect("a fetch before the move");
        assert_eq!((fetch.path_type, fetch.types), (PathType::Storage, REPLICA));
    }
}
