//! Why a task is not running: the checks that placement makes, made again on the live state and told with numbers.
//! Nothing is kept for this; an answer costs one pass over the workers.

use std::fmt;

use sealtasks::{AttemptId, FileType, FileTypes, PathType, TaskId, TaskType};
use serde::Serialize;

use crate::settle::delays;
use crate::shortage::Bytes;
use crate::task::{Phase, State, Task};
use crate::{Millis, Sched, Shortage, WorkerKey, WorkerMode};

/// Where a task is and what is in its way on each worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The task.
    pub task: TaskId,
    /// Its type.
    pub kind: TaskType,
    /// Where it is.
    pub whereabouts: Whereabouts,
    /// Since when it has been wanted.
    pub since: Millis,
    /// When it becomes, or became, due.
    pub due_at: Millis,
    /// Every worker, in the order of their keys; empty once the task is bound.
    pub workers: Vec<WhyWorker>,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Whereabouts {
    /// In the queue.
    Waiting,
    /// In the queue, behind other tasks of its sector.
    Locked {
        /// The files whose locks are busy.
        busy: FileTypes,
        /// The tasks that hold them.
        held_by: Vec<TaskId>,
    },
    /// Not to be tried yet.
    Delayed {
        /// Not before this.
        until: Millis,
        /// Why the last attempt could not start.
        reason: Option<String>,
    },
    /// Due, and a worker is kept for it.
    Reserved {
        /// The worker.
        worker: WorkerKey,
    },
    /// On a worker without a slot, its inputs being fetched or there.
    Staged {
        /// The attempt.
        attempt: AttemptId,
        /// Where.
        worker: WorkerKey,
    },
    /// On a worker, with a slot.
    Running {
        /// The attempt.
        attempt: AttemptId,
        /// Where.
        worker: WorkerKey,
    },
}

/// One worker's view of a waiting task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyWorker {
    /// The worker.
    pub worker: WorkerKey,
    /// Its host, for people.
    pub host: String,
    /// Everything in the way; empty only while the task is locked or delayed, or where it could start this instant.
    pub obstacles: Vec<Obstacle>,
}

/// One thing in the way of a task on a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
        task: TaskId,
    },
    /// The worker is gone.
    Lost,
    /// A resource is short.
    Short(Shortage),
    /// The worker is kept for a task that has waited longer.
    ReservedFor {
        /// That task.
        task: TaskId,
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
        most_free: Option<u128>,
    },
}

impl Sched {
    /// Why this task is not running; `None`: it is not here.
    pub fn why(&self, id: TaskId) -> Option<Why> {
        let task = self.tasks.get(&id)?;
        let workers = if task.binding().is_some() {
            Vec::new()
        } else {
            let all = self.workers.iter();
            all.map(|(slot, worker)| WhyWorker {
                worker: worker.key,
                host: worker.profile.host.clone(),
                obstacles: self.obstacles(task, slot),
            })
            .collect()
        };
        Some(Why {
            task: id,
            kind: task.kind,
            whereabouts: self.whereabouts(task),
            since: task.since,
            due_at: task.due_at,
            workers,
        })
    }

    fn whereabouts(&self, task: &Task) -> Whereabouts {
        match &task.state {
            State::Idle | State::Ready => Whereabouts::Waiting,
            State::Locked => {
                let busy = self.busy_locks(task);
                let siblings = self.sectors[&task.sector.id].tasks.iter().map(|id| &self.tasks[id]);
                let holds = |other: &&Task| {
                    let locks = other.binding().map(|binding| binding.locks.locks());
                    locks.is_some_and(|locks| !locks.read.union(locks.write).intersection(busy).is_empty())
                };
                Whereabouts::Locked { busy, held_by: siblings.filter(holds).map(|other| other.id).collect() }
            }
            State::Delayed(until) => Whereabouts::Delayed {
                until: *until,
                reason: task.start_failure.as_deref().map(str::to_owned),
            },
            State::Reserved(slot) => Whereabouts::Reserved { worker: self.workers.get(*slot).key },
            State::Bound(binding) => {
                let (attempt, worker) = (binding.attempt, self.workers.get(binding.worker).key);
                match binding.phase {
                    Phase::Running => Whereabouts::Running { attempt, worker },
                    Phase::Fetching | Phase::Fetched | Phase::Unstaging => {
                        Whereabouts::Staged { attempt, worker }
                    }
                }
            }
        }
    }

    fn obstacles(&self, task: &Task, slot: usize) -> Vec<Obstacle> {
        let worker = self.workers.get(slot);
        let mut found = Vec::new();
        if worker.lost {
            found.push(Obstacle::Lost);
        }
        if !worker.enabled || worker.mode == WorkerMode::Disabled {
            found.push(Obstacle::Disabled);
        }
        if worker.suspect {
            found.push(Obstacle::Suspect);
        }
        match self.queue.groups[task.group].asks[slot] {
            None => found.push(Obstacle::NotOffered { task: task.kind }),
            Some(ask) => {
                found.extend(worker.running.shortages(&ask, &worker.capacity).map(Obstacle::Short));
                let holder = worker
                    .reservation
                    .map(|reservation| reservation.task)
                    .filter(|holder| *holder != task.id);
                if let (Some(holder), Some((tally, due))) = (holder, self.backfill(slot))
                    && delays(&tally, &due, &ask, &worker.idle)
                {
                    found.push(Obstacle::ReservedFor { task: holder });
                }
            }
        }
        found.extend(self.plan(&self.queue.class(task.class).key, slot).err());
        found
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered { task } => write!(f, "does not offer {task}"),
            Self::Disabled => f.write_str("is disabled"),
            Self::Cordoned => {
                f.write_str("is cordoned: it gets no new sectors, and no file of this one is there")
            }
            Self::Draining => {
                f.write_str("is draining: it finishes what lives there, and no file of this sector does")
            }
            Self::Suspect => f.write_str("was not heard of for a while"),
            Self::NotYet { task, reason } => write!(f, "does not yet offer {task}: {reason}"),
            Self::Staggered { task, until } => {
                write!(f, "starts no {task} before {until}, to keep starts apart")
            }
            Self::Capped { name, machine: None, running, most } => {
                write!(f, "runs {running} of its cap `{name}`, at most {most} may")
            }
            Self::Capped { name, machine: Some(machine), running, most } => {
                write!(f, "machine {machine} runs {running} of its cap `{name}`, at most {most} may")
            }
            Self::MachineShort { machine, shortage } => write!(f, "machine {machine}: {shortage}"),
            Self::MachineKeptFor { machine, task } => {
                write!(f, "machine {machine} is kept for task {task}, which has waited longer")
            }
            Self::Lost => f.write_str("is gone"),
            Self::Short(shortage) => shortage.fmt(f),
            Self::ReservedFor { task } => write!(f, "is kept for task {task}, which has waited longer"),
            Self::FileElsewhere { kind, paths: 0 } => write!(f, "no known path holds the {kind} file"),
            Self::FileElsewhere { kind, paths } => {
                write!(f, "the {kind} file is out of reach, in {paths} paths of others")
            }
            Self::NoRoom { kind, path_type, most_free: None, .. } => {
                write!(f, "has no {path_type} path for the {kind} file")
            }
            Self::NoRoom { kind, path_type, needs, most_free: Some(free) } => write!(
                f,
                "needs {} in a {path_type} path for the {kind} file, at most {} free in one",
                Bytes((*needs).into()),
                Bytes(*free)
            ),
        }
    }
}

/// One line for the task, then one for each worker.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ({}) ", self.task, self.kind)?;
        match &self.whereabouts {
            Whereabouts::Waiting => f.write_str("waits for a worker")?,
            Whereabouts::Locked { busy, held_by } => {
                write!(f, "waits for its sector's {busy} files, locked by")?;
                held_by.iter().try_for_each(|task| write!(f, " task {task}"))?;
            }
            Whereabouts::Delayed { until, reason } => {
                write!(f, "is not tried again before {until}")?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))?;
            }
            Whereabouts::Reserved { worker } => write!(f, "is due, and worker {worker} is kept for it")?,
            Whereabouts::Staged { attempt, worker } => {
                write!(f, "is staged on worker {worker} as attempt {attempt}")?
            }
            Whereabouts::Running { attempt, worker } => {
                write!(f, "runs on worker {worker} as attempt {attempt}")?
            }
        }
        for worker in &self.workers {
            write!(f, "\n{} ({}): ", worker.host, worker.worker)?;
            for (position, obstacle) in worker.obstacles.iter().enumerate() {
                write!(f, "{}{obstacle}", if position == 0 { "" } else { "; " })?;
            }
        }
        Ok(())
    }
}
