//! Which files each task needs and makes. Source: Lotus `storage/sealer/worker_local.go` and `ffiwrapper`.

use sealtasks::{AcquireMode, FileType, FileTypes, PathType, SectorSize, TaskInput};

/// The files of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Must be there; fetched when they lie elsewhere.
    pub existing: FileTypes,
    /// Are made by the task.
    pub allocate: FileTypes,
    /// Where they lie, or are brought.
    pub path_type: PathType,
    /// How they are fetched. Lotus's tasks name no mode, which means a copy: a manager that wants files moved asks for
    /// that before the task.
    pub mode: AcquireMode,
}

impl Needs {
    const NOTHING: Self = Self {
        existing: FileTypes::NONE,
        allocate: FileTypes::NONE,
        path_type: PathType::Sealing,
        mode: AcquireMode::Copy,
    };
}

/// What a task that runs as an executor needs. Unsealing also depends on what is there already.
pub(crate) fn needs_of(work: &TaskInput) -> Needs {
    let replica = FileTypes::SEALED | FileTypes::CACHE;
    match work {
        TaskInput::AddPiece(piece) if piece.existing.is_empty() => {
            Needs { allocate: FileTypes::UNSEALED, ..Needs::NOTHING }
        }
        TaskInput::AddPiece(_) => Needs { existing: FileTypes::UNSEALED, ..Needs::NOTHING },
        TaskInput::PreCommit1(_) => {
            Needs { existing: FileTypes::UNSEALED, allocate: replica, ..Needs::NOTHING }
        }
        TaskInput::PreCommit2(_) | TaskInput::Commit1(_) | TaskInput::Unseal(_) => {
            Needs { existing: replica, ..Needs::NOTHING }
        }
        TaskInput::Finalize(_) => {
            Needs { existing: FileTypes::CACHE, path_type: PathType::Storage, ..Needs::NOTHING }
        }
        TaskInput::ReleaseUnsealed(_) => {
            Needs { existing: FileTypes::UNSEALED, path_type: PathType::Storage, ..Needs::NOTHING }
        }
        TaskInput::DataCid(_)
        | TaskInput::Commit2(_)
        | TaskInput::Fetch(_)
        | TaskInput::Move(_)
        | TaskInput::Verify(_)
        | TaskInput::Scrub(_)
        | TaskInput::Vanilla(_) => Needs::NOTHING,
    }
}

/// The room that a file has which a task makes, in bytes.
pub(crate) fn room_of(work: &TaskInput, kind: FileType, size: SectorSize) -> u64 {
    let bytes = needs_of(work).path_type.space_table().bytes(kind.into(), size);
    // Labels lie beside the data while it is made.
    let labels = if matches!(work, TaskInput::Unseal(_)) { size.unsealing_labels(false) } else { 0 };
    bytes.saturating_add(labels)
}

#[cfg(test)]
mod tests {
    use sealtasks::{
        AddPieceInput, C1Output, Commit2Input, FinalizeInput, Pc1Output, PieceSource, PreCommit1Input,
        PreCommit2Input, Ticket, UnpaddedPieceSize,
    };

    use super::*;

    #[test]
    fn each_task_gets_what_lotus_gives_it() {
        let size = UnpaddedPieceSize::try_from(127).unwrap();
        let source = PieceSource::Zeros;
        let replica = FileTypes::SEALED | FileTypes::CACHE;
        let table: [(TaskInput, FileTypes, FileTypes, PathType); 6] = [
            (
                TaskInput::AddPiece(AddPieceInput { existing: vec![], size, source }),
                FileTypes::NONE,
                FileTypes::UNSEALED,
                PathType::Sealing,
            ),
            (
                TaskInput::AddPiece(AddPieceInput { existing: vec![size], size, source }),
                FileTypes::UNSEALED,
                FileTypes::NONE,
                PathType::Sealing,
            ),
            (
                TaskInput::PreCommit1(PreCommit1Input { ticket: Ticket([0; 32]), pieces: vec![] }),
                FileTypes::UNSEALED,
                replica,
                PathType::Sealing,
            ),
            (
                TaskInput::PreCommit2(PreCommit2Input { pc1: Pc1Output(vec![]) }),
                replica,
                FileTypes::NONE,
                PathType::Sealing,
            ),
            (
                TaskInput::Commit2(Commit2Input { c1: C1Output(vec![]) }),
                FileTypes::NONE,
                FileTypes::NONE,
                PathType::Sealing,
            ),
            (TaskInput::Finalize(FinalizeInput {}), FileTypes::CACHE, FileTypes::NONE, PathType::Storage),
        ];
        for (work, existing, allocate, path_type) in table {
            let needs = needs_of(&work);
            assert_eq!((needs.existing, needs.allocate, needs.path_type), (existing, allocate, path_type));
        }
    }
}
