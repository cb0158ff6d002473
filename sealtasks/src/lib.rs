//! The vocabulary of sector sealing: sector and storage ids, seal proofs, file types, task types, the resources each
//! task needs, and the typed input and output of each task.
//!
//! Everything here is a plain value. This room never touches tokio, a file, a socket, a clock or global randomness:
//! ids that need randomness are minted by the rooms that own a source of it. The serde forms are ours: they are what
//! executors read and write and what the durable state holds. The shapes that Lotus speaks live in `rpc`, those that
//! lie on disk (`sectorstore.json`) in `stores`.

mod capability;
mod caps;
mod commitment;
mod epoch;
mod failure;
mod file_type;
mod ids;
mod path_order;
mod payload;
mod piece;
mod plan;
mod proof;
pub mod recovery;
pub mod rehearsal;
mod reign;
mod resource_table;
mod resources;
mod scrub;
mod sector;
mod storage;
mod task_type;
mod transfer;
mod vanilla;

pub use capability::{FetchScope, FetchVerb};
pub use caps::{CapError, CapLimit, CapSpec, TaskCaps, TaskGroup};
pub use commitment::{Commitment, CommitmentError, ProverId, SealedCid, UnsealedCid};
pub use epoch::ChainEpoch;
pub use failure::{CallError, CallErrorCode, FailureClass, chain};
pub use file_type::{
    AcquireMode, FileType, FileTypeError, FileTypes, PathType, SpaceTable, finalized_space, sealing_space,
};
pub use ids::{AttemptId, CallId, IdError, StorageId, TaskId, WorkerId};
pub use path_order::{
    CleanedEntry, FileMeasure, Finding, Matter, NewPath, PathDifference, PathOrder, PathReport, PathSurvey,
};
pub use payload::{
    AddPieceInput, C1Output, Commit1Input, Commit2Input, DataCidInput, ExecutorFailure, ExecutorReport,
    ExecutorRequest, FetchInput, FinalizeInput, MoveInput, Pc1Output, PieceSource, PreCommit1Input,
    PreCommit2Input, Proof, ReleaseUnsealedInput, SectorFiles, Seed, TaskInput, TaskOutput, Ticket,
    UnsealInput, UnsealedRange, VanillaProof, VerifyInput,
};
pub use piece::{PaddedPieceSize, PieceInfo, PieceSizeError, UnpaddedOffset, UnpaddedPieceSize};
pub use plan::{SealingPlan, SealingPlanError, SealingPurpose};
pub use proof::{ProofFeature, ProofVersion, RegisteredSealProof, SealProofError, SectorSize};
pub use reign::{Reign, ReignError, Relation};
pub use resources::{ResourceEnvError, ResourceTable, ResourceVariable, Resources};
pub use scrub::{ScrubInput, ScrubOrder, ScrubVerdict, ScrubbedFile};
pub use sector::{ActorId, SectorId, SectorIdError, SectorNumber, SectorRef};
pub use storage::{
    FsStat, HealthReport, PathFilters, SectorDecl, SectorStorageInfo, StorageInfo, StorageStanza,
};
pub use task_type::{SealTaskType, TaskType, TaskTypeError};
pub use transfer::{
    BANDWIDTH_MIN, PARALLEL_MAX, STREAMS, STREAMS_MAX, TransferChange, TransferChangeError, TransferLimits,
    TransferPhase, TransferReport, TransferView, eta_seconds,
};
pub use vanilla::{CHALLENGES, CHALLENGES_MAX, VanillaInput, challenges, post_proof_size};
