//! What a task asks for: where it stands in the queue, the files it reads and writes, the locks it takes. Plain values;
//! nothing here decides anything.

use std::fmt;

use sealtasks::{
    AcquireMode, FileType, FileTypes, PathType, SealingPurpose, SectorRef, StorageId, TaskType, WorkerId,
};
use serde::{Deserialize, Serialize};

/// One task, as the manager wants it done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The sector.
    pub sector: SectorRef,
    /// What is to be done.
    pub task: TaskType,
    /// For what the sector is sealed, where the task is one of its sealing; `None`: no plan has a say in it.
    #[serde(default)]
    pub purpose: Option<SealingPurpose>,
    /// The worker that it has just failed on: another one gets it, if one can begin it when its turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid: Option<WorkerId>,
    /// Larger goes first, within the rules of the order table. Lotus: 0, or 1024 for a sector with deals.
    pub priority: i64,
    /// Which files must be within reach, and what room is needed.
    pub needs: Needs,
    /// Which files of the sector nobody else may write, or touch, meanwhile.
    pub locks: Locks,
    /// When the task was first submitted; kept across restarts so that waiting counts.
    pub since: Millis,
    /// How long it may wait, in milliseconds, before it becomes due and reserves its place; `None`: the scheduler's
    /// own limit.
    pub wait_limit: Option<Millis>,
    /// When its work has to be done to be of use (a ticket's or a seed's expiry, a deal's start). It becomes due early
    /// enough for that, as far as estimates tell.
    #[serde(default)]
    pub deadline: Option<Millis>,
    /// Attempts made so far; the next one is numbered one higher. Kept by the durable state, so that an attempt id is
    /// never used twice.
    pub attempts: u32,
}

/// Milliseconds since the epoch, or a span of them. Wall time made monotonic by whoever drives the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(u64);

impl Millis {
    /// The beginning of time, or no time at all.
    pub const ZERO: Self = Self(0);

    /// This many milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `span` later, or the end of time.
    pub const fn after(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// `span` earlier, or the beginning of time.
    pub const fn before(self, span: Self) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// The span from `earlier` to this instant; none if that is not earlier.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// The files a task works with. Both empty: the task may run anywhere (Commit2, DataCid).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Files that exist.
    pub existing: Option<Existing>,
    /// Files that the task will make.
    pub allocate: Option<Allocate>,
}

/// Files that exist and must be within the worker's reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Existing {
    /// How near they must be.
    pub rule: ExistingRule,
    /// What becomes of the source of a file that is fetched.
    pub mode: AcquireMode,
    /// The files.
    pub files: Vec<HeldFile>,
}

/// How near existing files must be to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExistingRule {
    /// Every file must lie in a path that the worker reaches.
    Here,
    /// At least one file must lie in a path that the worker reaches; the others are fetched into such a path. This is
    /// Lotus's "existing, no fetch" (AddPiece, Commit1, Finalize): it too prepares by fetching the rest.
    PartlyHere(PathType),
    /// Any worker that has room to fetch what it lacks (PreCommit1's unsealed file, PreCommit2, Unseal).
    Fetch(PathType),
    /// The files must end in a path of this type, whoever holds them now (Lotus's "move").
    MoveTo(PathType),
}

/// One existing file and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFile {
    /// Which file of the sector.
    pub kind: FileType,
    /// Its size in bytes, as the space tables have it: what must be moved, and what room it takes where it is fetched to.
    pub bytes: u64,
    /// The paths that hold it. Later changes arrive as `SectorFiles`.
    pub held_by: Vec<StorageId>,
}

/// Room for files that do not exist yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocate {
    /// What kind of path they go to.
    pub path_type: PathType,
    /// The files.
    pub files: Vec<NewFile>,
}

/// One file that the task will make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NewFile {
    /// Which file of the sector.
    pub kind: FileType,
    /// Its size in bytes, as the space tables have it.
    pub bytes: u64,
}

/// The sector's files that a task locks while it is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// Nobody may write these meanwhile.
    pub read: FileTypes,
    /// Nobody may read or write these meanwhile.
    pub write: FileTypes,
}
