//! Everything that can happen to the scheduler. Events are values that serialise, so a recorded run can be replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sealtasks::{
    ActorId, AttemptId, FileType, FileTypes, RegisteredSealProof, Resources, SealingPlan, SectorId,
    StorageId, StorageStanza, TaskId, TaskType, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::{Millis, Request};

/// One thing that happened. The driver tells each once, in the order it learned of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A task is wanted. Its intent is already in the durable state.
    Submit {
        /// The task.
        task: TaskId,
        /// What it asks for.
        request: Request,
    },
    /// A task is no longer wanted. Queued: it leaves at once. Bound: `Abort` comes out, and everything stays charged
    /// until `Ended`.
    Cancel {
        /// The task.
        task: TaskId,
    },
    /// A task's priority changed.
    SetPriority {
        /// The task.
        task: TaskId,
        /// The new priority.
        priority: i64,
    },
    /// A task's deadline changed, or it has one now, or none any more.
    SetDeadline {
        /// The task.
        task: TaskId,
        /// The new deadline.
        deadline: Option<Millis>,
    },
    /// A worker registered. Its earlier lives are lost with it, if they were not yet: what they held stays charged until it
    /// ends or is adopted. The new life takes over the mode of the last one that is still here.
    WorkerUp {
        /// This life of the worker.
        worker: WorkerKey,
        /// What it has and offers.
        profile: WorkerProfile,
    },
    /// A worker's tasks, resources, caps or paths are other than they were.
    WorkerChanged {
        /// Which worker.
        worker: WorkerKey,
        /// What it has and offers now.
        profile: WorkerProfile,
    },
    /// A worker will not come back in this life. Its attempts stay bound until each is `Ended` or adopted by a successor.
    WorkerLost {
        /// Which worker.
        worker: WorkerKey,
    },
    /// A worker may, or may not, get new tasks. What runs there goes on.
    WorkerEnabled {
        /// Which worker.
        worker: WorkerKey,
        /// Whether it may.
        enabled: bool,
    },
    /// What an operator allows a worker from now on. What runs there goes on.
    WorkerMode {
        /// Which worker.
        worker: WorkerKey,
        /// What it may still do.
        mode: WorkerMode,
    },
    /// A worker was not heard of for a while, or was heard again. A suspect one gets nothing new; what it holds stays.
    WorkerSuspect {
        /// Which worker.
        worker: WorkerKey,
        /// Whether it is under suspicion.
        suspect: bool,
    },
    /// The limits that all workers of one machine keep together. Replaces the machine's earlier ones.
    MachineCaps {
        /// The machine, as the workers' profiles name it.
        machine: String,
        /// Its limits; empty: none.
        caps: Vec<GroupCap>,
    },
    /// The rule for choosing among workers that fit is another one from now on.
    PolicySet {
        /// The rule.
        policy: Policy,
    },
    /// A storage path exists, or reported again.
    PathSeen {
        /// The path as it is now.
        path: PathFacts,
    },
    /// A storage path was detached. Files in it can no longer be found there.
    PathGone {
        /// The path.
        path: StorageId,
    },
    /// The index changed its mind about where a file lies. Of use only while the sector has tasks here.
    SectorFiles {
        /// The sector.
        sector: SectorId,
        /// Which of its files.
        kind: FileType,
        /// All paths that hold it now.
        paths: Vec<StorageId>,
    },
    /// The worker accepted the attempt.
    Started {
        /// The attempt.
        attempt: AttemptId,
    },
    /// An attempt has its inputs. A staged one waits for its slot; for one that has its slot, its time begins to count.
    StageDone {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The attempt is over: slot, locks, space and reservation are free again.
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
    },
    /// The worker never began the attempt; the task goes back to the queue.
    StartFailed {
        /// The attempt.
        attempt: AttemptId,
        /// Why, for people.
        reason: String,
        /// Not to be tried again before this.
        not_before: Millis,
    },
    /// An attempt that was bound in an earlier life of the manager, or on an earlier life of the worker, still runs.
    /// It is charged whether it fits or not, because it is there.
    Adopt {
        /// The attempt.
        attempt: AttemptId,
        /// Where it runs.
        worker: WorkerKey,
        /// The task's request.
        request: Request,
        /// Room that its plan promised and that no path's report covers yet.
        holds: Vec<PathBytes>,
    },
    /// Nothing happened but time. Wanted after `WakeAt`.
    Tick,
}

impl Event {
    /// Whether it is of the kind that comes by the thousands. What each of these means for tasks that hold reservations is
    /// found out where it is handled; after any other event all of them are looked at.
    pub(crate) fn is_frequent(&self) -> bool {
        match self {
            Self::Submit { .. }
            | Self::Cancel { .. }
            | Self::SetPriority { .. }
            | Self::SetDeadline { .. }
            | Self::Started { .. }
            | Self::StageDone { .. }
            | Self::Ended { .. }
            | Self::Tick => true,
            Self::WorkerUp { .. }
            | Self::WorkerChanged { .. }
            | Self::WorkerLost { .. }
            | Self::WorkerEnabled { .. }
            | Self::WorkerMode { .. }
            | Self::WorkerSuspect { .. }
            | Self::MachineCaps { .. }
            | Self::PolicySet { .. }
            | Self::PathSeen { .. }
            | Self::PathGone { .. }
            | Self::SectorFiles { .. }
            | Self::StartFailed { .. }
            | Self::Adopt { .. } => false,
        }
    }
}

/// One life of a worker. A worker that restarts under the same session gets the next generation, so that what is meant
/// for the old life never reaches the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerKey {
    /// The worker's session.
    pub session: WorkerId,
    /// Counts from 0.
    pub generation: u32,
}

impl fmt::Display for WorkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.generation)
    }
}

/// What a worker has and offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerProfile {
    /// Its host name, for people.
    pub host: String,
    /// Whether it is the manager's own; an idle remote one goes before it.
    pub is_local: bool,
    /// The task types it offers.
    pub tasks: Vec<TaskType>,
    /// Its own rows of the resource table; a task without one takes the built-in row.
    pub resources: Vec<ResourceRow>,
    /// RAM in bytes.
    pub mem_physical: u64,
    /// Swap in bytes.
    pub mem_swap: u64,
    /// RAM in use by anything, in bytes.
    pub mem_used: u64,
    /// Swap in use by anything, in bytes.
    pub swap_used: u64,
    /// CPU threads. More than [`WorkerProfile::CPUS_MAX`] count as that.
    pub cpus: u64,
    /// Names of its GPUs. Those beyond [`WorkerProfile::GPUS_MAX`] are not used.
    pub gpus: Vec<String>,
    /// At most this many tasks of a type at once, whatever their size. For `GET`: fetches for staged tasks.
    pub caps: BTreeMap<TaskType, u32>,
    /// Limits on several types together, for example PC2 and C2 on one card.
    pub group_caps: Vec<GroupCap>,
    /// Types that it was asked to offer and cannot yet, with the reason for people (C2: "fetching parameters, 34 %").
    pub pending: BTreeMap<TaskType, String>,
    /// The least time between two starts of a type here and on its machine, so that their peaks do not meet. It counts
    /// from the instant at which a task gets its slot.
    pub stagger: BTreeMap<TaskType, Millis>,
    /// How long tasks took here so far; the scheduler learns on from there.
    pub durations: Vec<KindDuration>,
    /// Bytes per second at which it fetches, as measured; 0 = not yet known: taken for the median of the known ones.
    pub bandwidth: u64,
    /// The machine it runs on. Workers that name the same one share its memory, swap, CPU threads, GPUs and
    /// [`Event::MachineCaps`]; `None`: it is alone. A machine has the most of each that any of its workers reports. Two of
    /// them mean the same GPU where position and name are the same.
    pub machine: Option<String>,
    /// Whether only caps limit it. Lotus: `ResourceFiltering = "disabled"`, for the manager's own worker.
    pub ignore_resources: bool,
    /// The storage paths it reaches without the network's help. This is the one source for who reaches what.
    pub paths: Vec<StorageId>,
    /// Which sectors it takes, where `path_plans` says nothing.
    #[serde(default)]
    pub plan: SealingPlan,
    /// Which sectors may begin in which of its paths for sealing. Unless it is empty, tasks without files come for whatever any
    /// of these plans takes.
    #[serde(default)]
    pub path_plans: BTreeMap<StorageId, SealingPlan>,
}

impl WorkerProfile {
    /// No machine has more; the bound keeps a foreign number from overflowing.
    pub const CPUS_MAX: u64 = 1 << 20;
    /// No machine has more.
    pub const GPUS_MAX: usize = 256;
}

/// At most so many tasks of several types at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCap {
    /// For people, for example `gpu`.
    pub name: String,
    /// The types that count together.
    pub tasks: BTreeSet<TaskType>,
    /// How many of them may run at once.
    pub most: u32,
}

/// How long a task of one type and size takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindDuration {
    /// The task.
    pub task: TaskType,
    /// The proof, hence the size.
    pub proof: RegisteredSealProof,
    /// From the start in its slot to the end, in milliseconds.
    pub millis: Millis,
}

/// What an operator allows a worker. What runs goes on in every mode. What is staged goes on too, but for `Disabled`, where
/// it waits, and is called off when it is due or another worker could start it. A reservation is given up where its task
/// may not come. A file is within reach when a path that holds it is among the worker's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerMode {
    /// Everything.
    #[default]
    Open,
    /// No new sectors: only tasks whose sector has a file within its reach, or that need no file at all.
    Cordoned,
    /// Only what lives here alone is finished: tasks whose sector has a file within its reach, unless another worker that does
    /// not drain reaches those files too and could do the task.
    Draining,
    /// Nothing new.
    Disabled,
}

/// How to choose among workers that a task fits on and that would take equally long to move its files. Under every policy
/// but `Random` idle workers go first, and among them remote ones before the manager's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The least used.
    #[default]
    Utilization,
    /// The one that was given the fewest tasks since the policy was set; a newcomer counts as the last one that was chosen.
    Spread,
    /// The one that was given the fewest tasks of this type and size.
    SpreadTasks,
    /// The one that holds the fewest tasks, running and staged.
    SpreadQcount,
    /// Any, each with the same chance, by a generator with a given seed.
    Random,
}

/// One row of a worker's resource table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// The task.
    pub task: TaskType,
    /// The proof, hence the size.
    pub proof: RegisteredSealProof,
    /// What one such task needs.
    pub resources: Resources,
}

/// A storage path as the index knows it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFacts {
    /// The path.
    pub id: StorageId,
    /// Bytes free, less what its owner has reserved. Signed because a peer may send a negative number; that is no room.
    pub available: i64,
    /// Attempts whose promised bytes `available` already takes into account; they are not subtracted again.
    pub covers: Vec<AttemptId>,
    /// Whether it may get new files: it reported lately and without an error.
    pub healthy: bool,
    /// Sealing may use it.
    pub can_seal: bool,
    /// Finished sectors may live here.
    pub can_store: bool,
    /// Preference: the path with the most free bytes times weight is taken. 0 comes last.
    pub weight: u64,
    /// Files it takes.
    pub accepts: FileTypes,
    /// Only these miners' files; empty = all.
    pub allow_miners: Vec<ActorId>,
    /// Never these miners' files.
    pub deny_miners: Vec<ActorId>,
    /// Groups it belongs to.
    pub groups: Vec<String>,
    /// Groups its files may be fetched into; empty = anywhere.
    pub allow_to: Vec<String>,
}

impl PathFacts {
    /// A healthy path with what its `sectorstore.json` says and this much room.
    pub fn new(id: StorageId, stanza: &StorageStanza, available: i64) -> Self {
        Self {
            id,
            available,
            covers: Vec::new(),
            healthy: true,
            can_seal: stanza.can_seal,
            can_store: stanza.can_store,
            weight: stanza.weight,
            accepts: stanza.filters.accepted(FileTypes::ALL),
            allow_miners: stanza.filters.allow_miners.clone(),
            deny_miners: stanza.filters.deny_miners.clone(),
            groups: stanza.groups.iter().cloned().collect(),
            allow_to: stanza.allow_to.iter().cloned().collect(),
        }
    }
}

/// Bytes promised in a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathBytes {
    /// The path.
    pub path: StorageId,
    /// How many.
    pub bytes: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did its work: the task leaves.
    Finished,
    /// It failed and what comes next is not the scheduler's business: the task leaves.
    Failed,
    /// It failed and is to be tried again: the task goes back to the queue.
    Retry {
        /// Not before this.
        not_before: Millis,
    },
    /// Its staging was given up, as `Unstage` asked: the task goes back to the queue.
    Unstaged,
}
