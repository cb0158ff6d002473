//! Why a task is not running: the checks that placement makes, made again on the live state and told with numbers.
//! Nothing is kept for this; an answer costs one pass over the workers and one over the queue.

use std::cmp::Ordering;

use sealtasks::{AttemptId, FileTypes, SectorRef, TaskId, TaskType};
use serde::{Deserialize, Serialize};

use crate::ledger::{Ask, Tally};
use crate::task::{Phase, State, Task};
use crate::worker::Worker;
use crate::{
    Estimate, Eta, Finding, LetsPass, Millis, Obstacle, Relief, Sched, Shortage, TaskName, WorkerKey,
    WorkerMode,
};

/// Where a task is and what is in its way on each worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The task.
    pub task: TaskId,
    /// Its type.
    pub kind: TaskType,
    /// Its sector.
    pub sector: SectorRef,
    /// The scheduler's time; spans are counted from here.
    pub now: Millis,
    /// Where it is.
    pub whereabouts: Whereabouts,
    /// Since when it has been wanted.
    pub since: Millis,
    /// When it becomes, or became, due.
    pub due_at: Millis,
    /// Whether it is due.
    pub is_due: bool,
    /// When its work has to be done.
    pub deadline: Option<Millis>,
    /// How long it takes once it has its slot: on its worker, or else on any.
    pub takes: Estimate,
    /// Its place in the queue; `None`: it waits in no queue.
    pub place: Option<Place>,
    /// Whom it lets go first; `None`: nobody.
    pub lets_pass: Option<LetsPass>,
    /// When it may start; `None`: it has started, or nobody can tell.
    pub start: Option<StartForecast>,
    /// Every worker, in the order of their keys; of a staged task its own; empty once the task has a slot.
    pub workers: Vec<WhyWorker>,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Whereabouts {
    /// In the queue.
    Waiting,
    /// Behind other tasks of its sector.
    Locked {
        /// The files whose locks are busy.
        busy: FileTypes,
        /// The tasks that hold them.
        held_by: Vec<LockHolder>,
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
        /// Its host, for people.
        host: String,
        /// Since when.
        made_at: Millis,
        /// When it is expected to start there at the latest, unless something runs longer than estimated.
        start_by: Millis,
        /// What has to end before.
        waits_for: Vec<TaskName>,
    },
    /// On a worker without a slot, its inputs being fetched or there.
    Staged {
        /// The attempt.
        attempt: AttemptId,
        /// Where.
        worker: WorkerKey,
        /// Its host, for people.
        host: String,
        /// When its inputs are expected to be there; `None`: they are.
        fetched: Option<Eta>,
    },
    /// On a worker, with a slot.
    Running {
        /// The attempt.
        attempt: AttemptId,
        /// Where.
        worker: WorkerKey,
        /// Its host, for people.
        host: String,
        /// When its slot was taken.
        since: Millis,
        /// When it is expected to end.
        ends: Eta,
    },
}

/// A task that holds locks which another one needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The task.
    pub name: TaskName,
    /// Where it is.
    pub worker: WorkerKey,
    /// Its host, for people.
    pub host: String,
    /// When it is expected to end; `None`: it has no slot yet.
    pub ends: Option<Eta>,
}

/// A place in the queue, among the tasks that are ready for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// How many tasks go before it.
    pub ahead: usize,
    /// How many of those are of its type and size.
    pub ahead_alike: usize,
    /// How many are ready, itself included.
    pub ready: usize,
}

/// When a task may start. Both spans are counted from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartForecast {
    /// If nothing passed it: the first estimated instant at which it fits on a worker that lacks nothing but room.
    pub earliest: Millis,
    /// `earliest`, and time for those of its type and size that go before it: as many at once as fit on all usable
    /// workers together if they ran nothing else. Tasks of other types that go before it are not counted.
    pub likely: Millis,
    /// How many of its type and size that is at once.
    pub at_once: u64,
}

/// One worker's view of a waiting task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyWorker {
    /// The worker.
    pub worker: WorkerKey,
    /// Its host, for people.
    pub host: String,
    /// Everything in the way; empty only while the task is locked or delayed, or where it could start this instant.
    pub obstacles: Vec<Finding>,
    /// When it would fit there if nothing else were started; `None`: more than room is missing.
    pub free: Option<Eta>,
}

impl Sched {
    /// Why this task is not running; `None`: it is not here.
    pub fn why(&self, id: TaskId) -> Option<Why> {
        let task = self.tasks.get(&id)?;
        let workers: Vec<_> = match task.binding() {
            None => self.workers.iter().map(|(slot, _)| self.why_worker(task, slot)).collect(),
            Some(binding) if binding.phase == Phase::Running => Vec::new(),
            Some(binding) => vec![self.why_worker(task, binding.worker)],
        };
        let place = matches!(task.state, State::Ready).then(|| self.place(task));
        let takes = match task.binding() {
            Some(binding) => self.estimate_in(self.workers.get(binding.worker), task.seal_task()),
            None => self.estimate_anywhere(task.seal_task()),
        };
        Some(Why {
            task: id,
            kind: task.kind,
            sector: task.sector,
            now: self.now,
            whereabouts: self.whereabouts(task),
            since: task.since,
            due_at: task.due_at,
            is_due: task.is_due,
            deadline: task.deadline,
            takes,
            place,
            lets_pass: self.lets_pass(task),
            start: self.start_forecast(task, place, &workers),
            workers,
        })
    }

    /// What is in the way of a task that waits, by worker, in the order of their keys; `None`: it is not here, or bound.
    /// Costs a check per worker; its place and its prospects, which [`Self::why`] adds, cost a look at the whole queue.
    pub fn obstacles_of(&self, id: TaskId) -> Option<Vec<(&str, Vec<Finding>)>> {
        let task = self.tasks.get(&id).filter(|task| task.binding().is_none())?;
        let on = self
            .workers
            .iter()
            .map(|(slot, worker)| (worker.profile.host.as_str(), self.obstacles(task, slot)));
        Some(on.collect())
    }

    /// Whether this task is here, waiting or bound.
    pub fn knows(&self, id: TaskId) -> bool {
        self.tasks.get(&id).is_some()
    }

    /// Where this task is, without the checks on each worker; `None`: it is not here.
    pub fn whereabouts_of(&self, id: TaskId) -> Option<Whereabouts> {
        self.tasks.get(&id).map(|task| self.whereabouts(task))
    }

    fn whereabouts(&self, task: &Task) -> Whereabouts {
        let host = |slot: usize| self.workers.get(slot).profile.host.clone();
        match &task.state {
            State::Idle | State::Ready => Whereabouts::Waiting,
            State::Locked => {
                let busy = self.busy_locks(task);
                let siblings = self.siblings(task.sector_at).into_iter().map(|at| &self.tasks[at]);
                let held_by = siblings.filter_map(|other| self.lock_holder(other, busy)).collect();
                Whereabouts::Locked { busy, held_by }
            }
            State::Delayed(until) => Whereabouts::Delayed {
                until: *until,
                reason: self.start_failures.get(&task.id).map(|reason| reason.to_string()),
            },
            State::Reserved(slot) => {
                let worker = self.workers.get(*slot);
                let kept = worker.reservation.as_ref();
                let (made_at, start_by) =
                    kept.map_or((self.now, self.now), |kept| (kept.made_at, kept.start_by));
                let waits_for = kept.into_iter().flat_map(|kept| &kept.waits_for);
                Whereabouts::Reserved {
                    worker: worker.key,
                    host: host(*slot),
                    made_at,
                    start_by,
                    waits_for: waits_for.map(|attempt| self.name(attempt.task)).collect(),
                }
            }
            State::Bound(binding) => {
                let (attempt, worker) = (binding.attempt, self.workers.get(binding.worker).key);
                let host = host(binding.worker);
                match self.estimated_end(task) {
                    Some(end) => Whereabouts::Running {
                        attempt,
                        worker,
                        host,
                        since: binding.since,
                        ends: self.eta(end),
                    },
                    None => {
                        let fetched = self.fetched_at(task).map(|at| self.eta(at));
                        Whereabouts::Staged { attempt, worker, host, fetched }
                    }
                }
            }
        }
    }

    fn lock_holder(&self, other: &Task, busy: FileTypes) -> Option<LockHolder> {
        let binding = other.binding()?;
        let locks = binding.locks.locks();
        let worker = self.workers.get(binding.worker);
        (!locks.read.union(locks.write).intersection(busy).is_empty()).then(|| LockHolder {
            name: self.name(other.id),
            worker: worker.key,
            host: worker.profile.host.clone(),
            ends: self.estimated_end(other).map(|at| self.eta(at)),
        })
    }

    fn place(&self, task: &Task) -> Place {
        let (ready, ahead, ahead_alike) = self.queue.place(&task.key(), task.group);
        Place { ahead, ahead_alike, ready }
    }

    fn why_worker(&self, task: &Task, slot: usize) -> WhyWorker {
        let worker = self.workers.get(slot);
        let obstacles = self.obstacles(task, slot);
        let waits = obstacles.iter().all(|found| match &found.relief {
            Some(Relief::Ends { .. } | Relief::Starts { .. } | Relief::Passes { .. }) => true,
            Some(Relief::OtherPrograms | Relief::Never) | None => false,
        });
        let free = waits.then(|| self.free_at(task, slot, &obstacles)).flatten();
        WhyWorker {
            worker: worker.key,
            host: worker.profile.host.clone(),
            obstacles,
            free: free.map(|at| self.eta(at)),
        }
    }

    /// When the last of these obstacles is over: for room that is when all of it is there at once.
    fn free_at(&self, task: &Task, slot: usize, obstacles: &[Finding]) -> Option<Millis> {
        let ask = self.queue.groups[task.group].asks[slot]?;
        let after_others = obstacles.iter().filter_map(|found| match &found.relief {
            Some(Relief::Starts { at, task }) => {
                let holder = self.tasks.get(&task.task)?;
                let takes = self.estimate_in(self.workers.get(slot), holder.seal_task()).millis;
                Some(self.now.after(at.wait).after(takes))
            }
            Some(Relief::Passes { at }) => Some(self.now.after(at.wait)),
            Some(Relief::Ends { .. } | Relief::OtherPrograms | Relief::Never) | None => None,
        });
        let opening = self.opening(slot, &ask)?.at;
        Some(after_others.max().unwrap_or(self.now).max(opening))
    }

    fn start_forecast(
        &self,
        task: &Task,
        place: Option<Place>,
        workers: &[WhyWorker],
    ) -> Option<StartForecast> {
        let soonest = workers.iter().filter_map(|worker| Some(worker.free?.wait)).min();
        let earliest = match &task.state {
            State::Bound(binding) if binding.phase == Phase::Running => return None,
            State::Bound(_) => soonest?.max(self.fetched_at(task).unwrap_or(self.now).since(self.now)),
            State::Delayed(until) => soonest?.max(until.since(self.now)),
            State::Locked => {
                let holders = self.siblings(task.sector_at).into_iter().map(|at| &self.tasks[at]);
                let ends = holders.filter_map(|other| self.estimated_end(other)).max()?;
                soonest?.max(ends.since(self.now))
            }
            State::Idle | State::Ready | State::Reserved(_) => soonest?,
        };
        let at_once = self.at_once(task);
        let takes = self.estimate_anywhere(task.seal_task()).millis.get();
        let ahead = place.map_or(0, |place| place.ahead_alike as u64);
        let behind = ahead.checked_div(at_once).unwrap_or(0).saturating_mul(takes);
        Some(StartForecast { earliest, likely: earliest.after(Millis::new(behind)), at_once })
    }

    /// How many such tasks all usable workers could run at once if they ran nothing else.
    fn at_once(&self, task: &Task) -> u64 {
        /// More on one worker than any machine has threads; a task that asks for nothing must not be counted for ever.
        const MOST: u64 = 1024;
        let group = &self.queue.groups[task.group];
        let on_one = |(slot, worker): (usize, &Worker)| {
            let Some(ask) = group.asks[slot].filter(|_| worker.is_usable()) else { return 0 };
            let mut tally = Tally::default();
            let mut count = 0;
            while count < MOST && tally.fits(&ask, &worker.idle) {
                // Counted on a tally of its own, which goes away with all its charges.
                let _ = tally.charge(&ask, &worker.idle);
                count += 1;
            }
            count
        };
        self.workers.iter().map(on_one).sum()
    }

    fn obstacles(&self, task: &Task, slot: usize) -> Vec<Finding> {
        let worker = self.workers.get(slot);
        let mut found = Vec::new();
        let mut plain = |obstacle| found.push(Finding { obstacle, relief: None });
        if worker.lost {
            plain(Obstacle::Lost);
        }
        if !worker.enabled || worker.mode == WorkerMode::Disabled {
            plain(Obstacle::Disabled);
        }
        if worker.suspect {
            plain(Obstacle::Suspect);
        }
        match self.queue.groups[task.group].asks[slot] {
            None => plain(worker.not_offered(task.kind)),
            Some(ask) => {
                let short = worker.running.shortages(&ask, &worker.capacity);
                let own = short.map(|shortage| self.short(slot, &ask, shortage)).collect();
                found.extend(told_once(own, self.shared_obstacles(slot, &ask)));
            }
        }
        if task.binding().is_none() {
            let plan = self.plan(&self.queue.class(task.class).key, slot);
            if let Some(ask) = self.queue.groups[task.group].asks[slot] {
                let moved = plan.as_ref().map_or(0, |draft| draft.moved);
                found.extend(self.kept_apart(task, slot, (&ask, moved)));
            }
            found.extend(plan.err().map(|obstacle| Finding { obstacle, relief: None }));
        }
        found
    }

    fn short(&self, slot: usize, ask: &Ask, shortage: Shortage) -> Finding {
        let worker = self.workers.get(slot);
        let still = |tally: &Tally| tally.shortages(ask, &worker.idle).any(|other| shortage.is_like(&other));
        let end = self.first_end(slot, |outlook| outlook.on(slot).is_some_and(still));
        let relief = self.relief_by(end).or(match shortage {
            // A cap of nought: only whoever set it can change that.
            Shortage::Concurrency { .. } => None,
            _ if Tally::default().fits(ask, &worker.idle.without_others()) => Some(Relief::OtherPrograms),
            _ => Some(Relief::Never),
        });
        Finding { obstacle: Obstacle::Short(shortage), relief }
    }

    pub(crate) fn name(&self, id: TaskId) -> TaskName {
        let task = &self.tasks[&id];
        TaskName { task: id, kind: task.kind, sector: task.sector.id }
    }
}

/// What a worker and the machine that it shares are both short of is told once: by the machine's numbers where others hold
/// some of it, else by the worker's own. These count as well where the worker alone is too small, or other programs are in
/// the way.
fn told_once(mut own: Vec<Finding>, mut shared: Vec<Finding>) -> Vec<Finding> {
    let ends = |found: &Finding| matches!(found.relief, Some(Relief::Ends { .. }));
    let on_machine = |own: &Finding, shared: &Finding| match (&own.obstacle, &shared.obstacle) {
        (Obstacle::Short(own), Obstacle::MachineShort { shortage, .. }) => own.on_machine(shortage),
        _ => None,
    };
    let is_others = |own: &Finding, shared: &Finding| {
        ends(own) && ends(shared) && on_machine(own, shared) == Some(Ordering::Less)
    };
    own.retain(|own| !shared.iter().any(|shared| is_others(own, shared)));
    shared.retain(|shared| !own.iter().any(|own| on_machine(own, shared).is_some_and(Ordering::is_le)));
    own.append(&mut shared);
    own
}
