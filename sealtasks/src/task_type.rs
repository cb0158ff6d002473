//! Every task type of Lotus: its name on the wire, its short code, its place in the queue.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::RegisteredSealProof;
use crate::sector::decimal;

macro_rules! task_types {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $short:literal, $order:literal;)*) => {
        /// A task type. Names, short codes and the order table are Lotus's (`storage/sealer/sealtasks`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum TaskType { $($(#[$doc])* $variant,)* }

        impl TaskType {
            /// All of them, in the order of a sector's life.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire, for example `seal/v0/precommit/1`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The short code, for example `PC1`.
            pub const fn short(self) -> &'static str {
                match self { $(Self::$variant => $short,)* }
            }

            /// The place in the queue: lower goes first; a negative one goes before any priority.
            pub const fn order(self) -> i32 {
                match self { $(Self::$variant => $order,)* }
            }
        }
    };
}

task_types! {
    /// Computes a piece commitment.
    DataCid, "seal/v0/datacid", "DC", 10;
    /// Writes a piece into the unsealed file.
    AddPiece, "seal/v0/addpiece", "AP", 9;
    /// Labels the stacked graph's layers.
    PreCommit1, "seal/v0/precommit/1", "PC1", 5;
    /// Builds the trees and the replica.
    PreCommit2, "seal/v0/precommit/2", "PC2", 4;
    /// Collects the vanilla proofs.
    Commit1, "seal/v0/commit/1", "C1", 2;
    /// Computes the SNARK.
    Commit2, "seal/v0/commit/2", "C2", 3;
    /// Drops what a proven sector no longer needs.
    Finalize, "seal/v0/finalize", "FIN", -3;
    /// Drops unsealed data that need not be kept.
    FinalizeUnsealed, "seal/v0/finalizeunsealed", "FUS", -4;
    /// Brings files to this worker.
    Fetch, "seal/v0/fetch", "GET", -1;
    /// Recovers unsealed data from the replica.
    Unseal, "seal/v0/unseal", "UNS", 1;
    /// Encodes new data into a sector.
    ReplicaUpdate, "seal/v0/replicaupdate", "RU", 8;
    /// Vanilla proofs of a replica update.
    ProveReplicaUpdate1, "seal/v0/provereplicaupdate/1", "PR1", 6;
    /// The SNARK of a replica update.
    ProveReplicaUpdate2, "seal/v0/provereplicaupdate/2", "PR2", 7;
    /// Recovers the original replica of a snapped sector.
    RegenSectorKey, "seal/v0/regensectorkey", "GSK", 11;
    /// Finalize of a snapped sector.
    FinalizeReplicaUpdate, "seal/v0/finalize/replicaupdate", "FRU", 0;
    /// Downloads a sector sealed elsewhere.
    DownloadSector, "seal/v0/download/sector", "DL", -2;
    /// Window PoSt.
    WindowPost, "post/v0/windowproof", "WDP", -5;
    /// Winning PoSt.
    WinningPost, "post/v0/winningproof", "WNP", -6;
}

impl TaskType {
    /// The type with this short code.
    pub fn from_short(short: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|task| task.short() == short)
    }

    /// Whether the task's cost depends on the sector size; all but DataCid.
    pub const fn sector_sized(self) -> bool {
        !matches!(self, Self::DataCid)
    }

    /// Whether this is a PoSt task; a worker offers either PoSt or sealing tasks.
    pub const fn is_post(self) -> bool {
        matches!(self, Self::WindowPost | Self::WinningPost)
    }
}

impl fmt::Display for TaskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl FromStr for TaskType {
    type Err = TaskTypeError;

    fn from_str(text: &str) -> Result<Self, TaskTypeError> {
        Self::ALL
            .iter()
            .copied()
            .find(|task| task.name() == text)
            .ok_or_else(|| TaskTypeError::Name { text: text.to_owned() })
    }
}

/// Serialised by the wire name.
impl Serialize for TaskType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for TaskType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A task type for one proof, the key of Lotus's task counts: `5:seal/v0/precommit/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealTaskType {
    /// The proof, hence the sector size.
    pub proof: RegisteredSealProof,
    /// The task.
    pub task: TaskType,
}

impl fmt::Display for SealTaskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.proof, self.task.name())
    }
}

impl FromStr for SealTaskType {
    type Err = TaskTypeError;

    fn from_str(text: &str) -> Result<Self, TaskTypeError> {
        let bad = || TaskTypeError::Sized { text: text.to_owned() };
        let (proof, task) = text.split_once(':').ok_or_else(bad)?;
        let number = decimal(proof).and_then(|n| i64::try_from(n).ok()).ok_or_else(bad)?;
        Ok(Self { proof: number.try_into().map_err(|_| bad())?, task: task.parse()? })
    }
}

/// A text that names no task type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskTypeError {
    /// Not one of Lotus's names.
    #[error("{text:?} is no task type; expected a name such as seal/v0/precommit/1")]
    Name {
        /// The text as given.
        text: String,
    },
    /// Not of the form `<proof number>:<task name>`.
    #[error("{text:?} is no sized task type; expected <proof number>:<task name>")]
    Sized {
        /// The text as given.
        text: String,
    },
}
