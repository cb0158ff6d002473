//! The eighteen methods by which a worker returns a result: their names, and which task ends with which.

use sealtasks::TaskInput;

use crate::api::ReturnMethod;

impl ReturnMethod {
    /// All eighteen, in Lotus's order.
    pub const ALL: [Self; 18] = [
        Self::DataCid,
        Self::AddPiece,
        Self::SealPreCommit1,
        Self::SealPreCommit2,
        Self::SealCommit1,
        Self::SealCommit2,
        Self::FinalizeSector,
        Self::ReplicaUpdate,
        Self::ProveReplicaUpdate1,
        Self::ProveReplicaUpdate2,
        Self::GenerateSectorKeyFromData,
        Self::FinalizeReplicaUpdate,
        Self::ReleaseUnsealed,
        Self::MoveStorage,
        Self::UnsealPiece,
        Self::ReadPiece,
        Self::DownloadSector,
        Self::Fetch,
    ];

    /// The method that returns the result of this task; `None` for verification, which is not called over the wire.
    pub const fn of(work: &TaskInput) -> Option<Self> {
        Some(match work {
            TaskInput::DataCid(_) => Self::DataCid,
            TaskInput::AddPiece(_) => Self::AddPiece,
            TaskInput::PreCommit1(_) => Self::SealPreCommit1,
            TaskInput::PreCommit2(_) => Self::SealPreCommit2,
            TaskInput::Commit1(_) => Self::SealCommit1,
            TaskInput::Commit2(_) => Self::SealCommit2,
            TaskInput::Finalize(_) => Self::FinalizeSector,
            TaskInput::ReleaseUnsealed(_) => Self::ReleaseUnsealed,
            TaskInput::Fetch(_) => Self::Fetch,
            TaskInput::Move(_) => Self::MoveStorage,
            TaskInput::Unseal(_) => Self::UnsealPiece,
            TaskInput::Verify(_) | TaskInput::Scrub(_) | TaskInput::Vanilla(_) => return None,
        })
    }

    /// The full name on the wire, for example `Filecoin.ReturnAddPiece`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DataCid => "Filecoin.ReturnDataCid",
            Self::AddPiece => "Filecoin.ReturnAddPiece",
            Self::SealPreCommit1 => "Filecoin.ReturnSealPreCommit1",
            Self::SealPreCommit2 => "Filecoin.ReturnSealPreCommit2",
            Self::SealCommit1 => "Filecoin.ReturnSealCommit1",
            Self::SealCommit2 => "Filecoin.ReturnSealCommit2",
            Self::FinalizeSector => "Filecoin.ReturnFinalizeSector",
            Self::ReplicaUpdate => "Filecoin.ReturnReplicaUpdate",
            Self::ProveReplicaUpdate1 => "Filecoin.ReturnProveReplicaUpdate1",
            Self::ProveReplicaUpdate2 => "Filecoin.ReturnProveReplicaUpdate2",
            Self::GenerateSectorKeyFromData => "Filecoin.ReturnGenerateSectorKeyFromData",
            Self::FinalizeReplicaUpdate => "Filecoin.ReturnFinalizeReplicaUpdate",
            Self::ReleaseUnsealed => "Filecoin.ReturnReleaseUnsealed",
            Self::MoveStorage => "Filecoin.ReturnMoveStorage",
            Self::UnsealPiece => "Filecoin.ReturnUnsealPiece",
            Self::ReadPiece => "Filecoin.ReturnReadPiece",
            Self::DownloadSector => "Filecoin.ReturnDownloadSector",
            Self::Fetch => "Filecoin.ReturnFetch",
        }
    }

    /// The name without the namespace, as `Sealyard.Return` carries it.
    pub fn short_name(self) -> &'static str {
        self.name().trim_start_matches("Filecoin.")
    }

    /// Whether a result stands between the call id and the error: three parameters, else two.
    pub const fn has_value(self) -> bool {
        match self {
            Self::DataCid
            | Self::AddPiece
            | Self::SealPreCommit1
            | Self::SealPreCommit2
            | Self::SealCommit1
            | Self::SealCommit2
            | Self::ReplicaUpdate
            | Self::ProveReplicaUpdate1
            | Self::ProveReplicaUpdate2
            | Self::ReadPiece => true,
            Self::FinalizeSector
            | Self::GenerateSectorKeyFromData
            | Self::FinalizeReplicaUpdate
            | Self::ReleaseUnsealed
            | Self::MoveStorage
            | Self::UnsealPiece
            | Self::DownloadSector
            | Self::Fetch => false,
        }
    }
}
