//! What each task is given and what it gives back: the typed inputs and outputs, and the two files of the executor
//! seam that carry them (`ExecutorRequest` is `SectorFiles` + `TaskInput`; see `proofs/EXECUTORS.md` for one example each).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    AcquireMode, FailureClass, FileType, FileTypes, PathType, PieceInfo, ScrubInput, ScrubbedFile, SealedCid,
    SectorRef, TaskType, UnpaddedOffset, UnpaddedPieceSize, UnsealedCid, VanillaInput,
};

macro_rules! bytes_32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = crate::CommitmentError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                crate::Commitment::try_from(text).map(|c| Self(*c.bytes()))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

bytes_32! {
    /// The sealing randomness (SealRandomness), 32 bytes; hexadecimal in our files.
    Ticket
}
bytes_32! {
    /// The interactive sealing randomness, 32 bytes; hexadecimal in our files.
    Seed
}

macro_rules! byte_string {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub Vec<u8>);

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }

        impl TryFrom<String> for $name {
            type Error = base64::DecodeError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.decode(text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(&value.0)
            }
        }
    };
}

byte_string! {
    /// PC1's output: the proofs library's JSON with the field `_lotus_SealRandomness` added, as Lotus has it.
    Pc1Output
}
byte_string! {
    /// C1's output: the proofs library's JSON of the vanilla proofs.
    C1Output
}
byte_string! {
    /// C2's output: the SNARK, 192 bytes per partition.
    Proof
}

byte_string! {
    /// A vanilla proof of a replica for PoSt, in the proofs library's own form.
    VanillaProof
}

/// Where an AddPiece or DataCid takes its bytes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceSource {
    /// As many zeros as the piece is long; nothing is sent.
    Zeros,
    /// A stream of bytes: file descriptor 3 for an executor, a reader parameter on the wire.
    Stream,
}

/// A span of unsealed data, in unpadded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsealedRange {
    /// Where it begins.
    pub offset: UnpaddedOffset,
    /// How long it is, in bytes.
    pub size: u64,
}

macro_rules! inputs {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        )*
    };
}

inputs! {
    /// Compute a piece commitment without keeping the data.
    DataCidInput {
        /// The piece's size; a shorter stream is extended with zeros.
        size: UnpaddedPieceSize,
        /// Where the bytes come from.
        source: PieceSource,
    }
    /// Write one piece behind the existing ones.
    AddPieceInput {
        /// The sizes of the pieces that lie in the unsealed file already, in order.
        existing: Vec<UnpaddedPieceSize>,
        /// The new piece's size.
        size: UnpaddedPieceSize,
        /// Where the bytes come from.
        source: PieceSource,
    }
    /// Label the layers.
    PreCommit1Input {
        /// The sealing randomness.
        ticket: Ticket,
        /// All pieces, filling the sector.
        pieces: Vec<PieceInfo>,
    }
    /// Build the trees and the replica.
    PreCommit2Input {
        /// What PC1 gave.
        pc1: Pc1Output,
    }
    /// Collect the vanilla proofs.
    Commit1Input {
        /// The sealing randomness.
        ticket: Ticket,
        /// The interactive randomness.
        seed: Seed,
        /// All pieces.
        pieces: Vec<PieceInfo>,
        /// CommR.
        sealed: SealedCid,
        /// CommD.
        unsealed: UnsealedCid,
    }
    /// Compute the SNARK.
    Commit2Input {
        /// What C1 gave.
        c1: C1Output,
    }
    /// Drop what a proven sector no longer needs: layers, tree-c, tree-d.
    FinalizeInput {}
    /// Free unsealed data outside the ranges to keep; none to keep means the whole file goes.
    ReleaseUnsealedInput {
        /// What stays.
        keep: Vec<UnsealedRange>,
    }
    /// Bring files to this worker.
    FetchInput {
        /// Which.
        types: FileTypes,
        /// To which kind of path.
        path_type: PathType,
        /// Taking them over or duplicating them.
        mode: AcquireMode,
    }
    /// Move files that lie on this worker to long-term storage.
    MoveInput {
        /// Which.
        types: FileTypes,
    }
    /// Recover unsealed data from the replica.
    UnsealInput {
        /// What to recover.
        range: UnsealedRange,
        /// The sealing randomness.
        ticket: Ticket,
        /// CommD.
        unsealed: UnsealedCid,
    }
    /// Check a SNARK.
    VerifyInput {
        /// The sealing randomness.
        ticket: Ticket,
        /// The interactive randomness.
        seed: Seed,
        /// CommR.
        sealed: SealedCid,
        /// CommD.
        unsealed: UnsealedCid,
        /// The SNARK.
        proof: Proof,
    }
}

/// One task's input, tagged by its short code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "task", content = "input", deny_unknown_fields)]
pub enum TaskInput {
    /// DataCid.
    #[serde(rename = "DC")]
    DataCid(DataCidInput),
    /// AddPiece.
    #[serde(rename = "AP")]
    AddPiece(AddPieceInput),
    /// PreCommit1.
    #[serde(rename = "PC1")]
    PreCommit1(PreCommit1Input),
    /// PreCommit2.
    #[serde(rename = "PC2")]
    PreCommit2(PreCommit2Input),
    /// Commit1.
    #[serde(rename = "C1")]
    Commit1(Commit1Input),
    /// Commit2.
    #[serde(rename = "C2")]
    Commit2(Commit2Input),
    /// Finalize.
    #[serde(rename = "FIN")]
    Finalize(FinalizeInput),
    /// FinalizeUnsealed.
    #[serde(rename = "FUS")]
    ReleaseUnsealed(ReleaseUnsealedInput),
    /// Fetch. No executor: the worker's stores do it.
    #[serde(rename = "GET")]
    Fetch(FetchInput),
    /// MoveStorage, which Lotus runs as Fetch work. No executor.
    #[serde(rename = "MOVE")]
    Move(MoveInput),
    /// Unseal.
    #[serde(rename = "UNS")]
    Unseal(UnsealInput),
    /// Verification of a SNARK; no task type of its own.
    #[serde(rename = "VERIFY")]
    Verify(VerifyInput),
    /// Comparing stored files with their commitments; no task type of its own.
    #[serde(rename = "SCRUB")]
    Scrub(ScrubInput),
    /// Proving that a replica is there, without a SNARK; no task type of its own.
    #[serde(rename = "VANILLA")]
    Vanilla(VanillaInput),
}

impl TaskInput {
    /// The task type it is scheduled as; `None` for verification, scrubbing and vanilla proofs, which are not scheduled.
    pub const fn task_type(&self) -> Option<TaskType> {
        Some(match self {
            Self::DataCid(_) => TaskType::DataCid,
            Self::AddPiece(_) => TaskType::AddPiece,
            Self::PreCommit1(_) => TaskType::PreCommit1,
            Self::PreCommit2(_) => TaskType::PreCommit2,
            Self::Commit1(_) => TaskType::Commit1,
            Self::Commit2(_) => TaskType::Commit2,
            Self::Finalize(_) => TaskType::Finalize,
            Self::ReleaseUnsealed(_) => TaskType::FinalizeUnsealed,
            Self::Fetch(_) | Self::Move(_) => TaskType::Fetch,
            Self::Unseal(_) => TaskType::Unseal,
            Self::Verify(_) | Self::Scrub(_) | Self::Vanilla(_) => return None,
        })
    }
}

/// One task's result, tagged by its short code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "task", content = "output", deny_unknown_fields)]
pub enum TaskOutput {
    /// DataCid: the piece.
    #[serde(rename = "DC")]
    DataCid(PieceInfo),
    /// AddPiece: the piece as it lies in the sector.
    #[serde(rename = "AP")]
    AddPiece(PieceInfo),
    /// PreCommit1.
    #[serde(rename = "PC1")]
    PreCommit1(Pc1Output),
    /// PreCommit2: CommD and CommR.
    #[serde(rename = "PC2")]
    PreCommit2 {
        /// CommD.
        unsealed: UnsealedCid,
        /// CommR.
        sealed: SealedCid,
    },
    /// Commit1.
    #[serde(rename = "C1")]
    Commit1(C1Output),
    /// Commit2.
    #[serde(rename = "C2")]
    Commit2(Proof),
    /// Finalize.
    #[serde(rename = "FIN")]
    Finalize,
    /// FinalizeUnsealed.
    #[serde(rename = "FUS")]
    ReleaseUnsealed,
    /// Fetch.
    #[serde(rename = "GET")]
    Fetch,
    /// MoveStorage.
    #[serde(rename = "MOVE")]
    Move,
    /// Unseal.
    #[serde(rename = "UNS")]
    Unseal,
    /// Whether the SNARK is valid.
    #[serde(rename = "VERIFY")]
    Verify(bool),
    /// What was found, file by file.
    #[serde(rename = "SCRUB")]
    Scrub(Vec<ScrubbedFile>),
    /// The proof, checked against the commitment.
    #[serde(rename = "VANILLA")]
    Vanilla(VanillaProof),
}

/// Where an executor finds, or makes, its sector's files. Absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SectorFiles(pub BTreeMap<FileType, PathBuf>);

/// The file an executor reads: which sector, what to do, where the files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorRequest {
    /// The version of this form; [`ExecutorRequest::VERSION`]. An executor refuses any other.
    pub version: u32,
    /// The sector and its proof.
    pub sector: SectorRef,
    /// What to do.
    pub work: TaskInput,
    /// Where the files are.
    pub files: SectorFiles,
}

impl ExecutorRequest {
    /// The version written and accepted.
    pub const VERSION: u32 = 1;
}

/// The file an executor writes (to a temporary name, fsync, rename): the result or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorReport {
    /// It worked.
    Done(TaskOutput),
    /// It did not.
    Failed(ExecutorFailure),
}

/// Why an executor gave no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct ExecutorFailure {
    /// What kind of failure.
    pub class: FailureClass,
    /// The chain of causes, outermost first.
    pub message: String,
}
