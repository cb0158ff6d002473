//! What can be in a task's way on a worker, and what would change it. Values that serialise; how they read stands in
//! `why_text`.

use std::fmt;

use sealtasks::{FileType, PathType, SealingPlan, SealingPurpose, SectorId, StorageId, TaskId, TaskType};
use serde::{Deserialize, Serialize};

use crate::{Eta, Millis, Shortage};

/// One thing in the way of a task on a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "obstacle", rename_all = "snake_case")]
pub enum Obstacle {
    /// The worker does not offer the task.
    NotOffered {
        /// The task's type.
        task: TaskType,
    },
    /// The worker gets no new tasks: an operator disabled it, or it says so itself.
    Disabled,
    /// The worker gets no new sectors, and no file that the task reads lies within its reach.
    Cordoned,
    /// The worker only finishes what lives within its reach, and no file that the task reads does.
    Draining,
    /// The worker's plans take no such sectors, and either no file of this one lies within its reach or others see to it.
    OtherPlan {
        /// Each plan once.
        plans: Vec<SealingPlan>,
        /// For what the sector is sealed.
        purpose: SealingPurpose,
    },
    /// The worker was not heard of for a while.
    Suspect,
    /// The worker is to offer the task and cannot yet.
    NotYet {
        /// The task's type.
        task: TaskType,
        /// Why, in the worker's words.
        reason: String,
    },
    /// Too soon after the last start of this type there, or on its machine.
    Staggered {
        /// The task's type.
        task: TaskType,
        /// Not before this.
        until: Millis,
    },
    /// As many tasks of a group of types run as may.
    Capped {
        /// The cap's name.
        name: String,
        /// The machine whose cap it is; `None`: the worker's own.
        machine: Option<String>,
        /// Running now.
        running: u64,
        /// The limit.
        most: u64,
    },
    /// A resource is short on the machine that the worker shares with others.
    MachineShort {
        /// The machine.
        machine: String,
        /// What is short, counted over all workers of the machine.
        shortage: Shortage,
    },
    /// The machine is kept for a task that has waited longer, on another of its workers.
    MachineKeptFor {
        /// The machine.
        machine: String,
        /// That task.
        task: TaskName,
    },
    /// The worker is gone.
    Lost,
    /// A resource is short.
    Short(Shortage),
    /// The worker is kept for a task that has waited longer.
    ReservedFor {
        /// That task.
        task: TaskName,
        /// When the reservation was made.
        made_at: Millis,
        /// When that task is expected to start there at the latest, unless something runs longer than estimated.
        start_by: Millis,
    },
    /// A file is out of reach, and the task may not, or cannot, fetch it.
    FileElsewhere {
        /// The file.
        kind: FileType,
        /// How many known paths hold it; 0: nobody has it.
        paths: usize,
    },
    /// No path of the worker has room for a file, or none takes it.
    NoRoom {
        /// The file.
        kind: FileType,
        /// What the path must be for.
        path_type: PathType,
        /// Bytes needed.
        needs: u64,
        /// Bytes free in the emptiest such path; `None`: the worker has no such path.
        most_free: Option<u64>,
        /// That path.
        path: Option<StorageId>,
    },
}

/// One thing in the way, and what would change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is in the way.
    #[serde(flatten)]
    pub obstacle: Obstacle,
    /// What would change it; `None`: nothing that the scheduler can foresee.
    pub relief: Option<Relief>,
}

/// What would remove an obstacle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Relief {
    /// The end of a task; those that are expected to end before it have ended by then.
    Ends {
        /// Which task.
        task: TaskName,
        /// When that is expected.
        at: Eta,
    },
    /// The start of a task.
    Starts {
        /// Which task.
        task: TaskName,
        /// When that is expected.
        at: Eta,
    },
    /// Time alone.
    Passes {
        /// When.
        at: Eta,
    },
    /// Less use of the machine by other programs.
    OtherPrograms,
    /// Nothing: it is more than the machine has.
    Never,
}

/// A task by what it is rather than by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskName {
    /// Its number.
    pub task: TaskId,
    /// Its type.
    pub kind: TaskType,
    /// Its sector.
    pub sector: SectorId,
}

/// `PC1 of sector 41`.
impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of sector {}", self.kind, self.sector.number)
    }
}
