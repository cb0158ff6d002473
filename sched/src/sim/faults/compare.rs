//! The scheduler's account of itself beside the model.

use std::collections::BTreeMap;

use sealtasks::{AttemptId, TaskId};

use super::model::{Held, Task};
use super::oracle::Oracle;
use crate::{BoundTask, PathUse, QueuedTask, ReservationUse, Sched, Snapshot, Stage, WorkerUse};

impl Oracle {
    pub(super) fn compare(&mut self, scheduler: &Sched) {
        let snapshot = scheduler.snapshot();
        if let Some(attempt) = self.pending.adopted.take() {
            self.learn_devices(attempt, &snapshot);
        }
        self.coverage.sample(&snapshot, &self.model);
        for path in &snapshot.paths {
            self.model.path_mut(&path.path).kept = path.kept;
        }
        let found = self
            .places_differ(&snapshot)
            .or_else(|| snapshot.bound.iter().find_map(|bound| self.binding_differs(bound)))
            .or_else(|| snapshot.workers.iter().find_map(|worker| self.worker_differs(worker)))
            .or_else(|| snapshot.paths.iter().find_map(|path| self.path_differs(path, &snapshot)))
            .or_else(|| self.not_woken())
            .or_else(|| self.reservations_differ(&snapshot))
            .or_else(|| self.promise_broken(scheduler, &snapshot))
            .or_else(|| self.idle_beside_work(scheduler, &snapshot))
            .or_else(|| self.unexplained(scheduler, &snapshot));
        if let Some((rule, detail)) = found {
            self.breaks(rule, || detail);
        }
    }

    /// After everything healed and nothing more happens: no task is left, and nobody holds anything.
    pub fn check_drained(&mut self, scheduler: &Sched) -> Result<(), crate::sim::Violation> {
        let broken = |rule, detail| Err(crate::sim::Violation { rule, detail });
        let snapshot = scheduler.snapshot();
        if let Some(id) = self.model.tasks.keys().next().copied() {
            let why = scheduler.why(id).map(|why| why.to_string());
            return broken("progress", format!("{} tasks never ended; {why:?}", self.model.tasks.len()));
        }
        let left = snapshot.queue.len() + snapshot.waiting.len() + snapshot.bound.len();
        if left > 0 {
            return broken("progress", format!("{left} tasks are kept that have left"));
        }
        let loaded = snapshot.workers.iter().find(|worker| {
            worker.mem_used_min + worker.mem_used_max + worker.cpu_use > 0
                || worker.gpu_used.iter().any(|used| *used > 0)
                || worker.reserved_for.is_some()
                || !worker.task_counts.is_empty()
                || !worker.staged_counts.is_empty()
        });
        if let Some(worker) = loaded {
            return broken("released", format!("{worker:?}"));
        }
        match snapshot.paths.iter().find(|path| path.promised + path.kept > 0) {
            Some(path) => broken("released", format!("{path:?}")),
            None => Ok(()),
        }
    }

    fn learn_devices(&mut self, attempt: AttemptId, snapshot: &Snapshot) {
        let Some(seen) = snapshot.bound.iter().find(|bound| bound.attempt == attempt) else { return };
        let Some(bound) = self.model.tasks.get_mut(&attempt.task).and_then(Task::bound_mut) else { return };
        let Some(charge) = bound.charge.as_mut().filter(|charge| charge.gpus.is_empty()) else { return };
        charge.gpus.clone_from(&seen.gpus);
        let Some(worker) = self.model.workers.get_mut(&bound.worker) else { return };
        for share in &seen.gpus {
            if worker.load.gpus.len() <= share.device {
                worker.load.gpus.resize(share.device + 1, 0);
            }
            worker.load.gpus[share.device] += share.thousandths;
        }
    }

    fn places_differ(&self, snapshot: &Snapshot) -> Option<(&'static str, String)> {
        let waiting = snapshot.queue.iter().chain(&snapshot.waiting).map(|queued| (queued.task, None));
        let bound = snapshot.bound.iter().map(|bound| (bound.attempt.task, Some(bound.attempt)));
        let mut seen: Vec<(TaskId, Option<AttemptId>)> = waiting.chain(bound).collect();
        seen.sort_unstable();
        let here = self.model.tasks.iter().map(|(id, task)| (*id, task.bound().map(|bound| bound.attempt)));
        if !seen.iter().copied().eq(here.clone()) {
            let here: Vec<_> = here.collect();
            return Some(("places", format!("the scheduler has {seen:?}, was given {here:?}")));
        }
        let early = |queued: &&QueuedTask| {
            let task = &self.model.tasks[&queued.task];
            matches!(task.place, Held::Waiting { not_before } if not_before > self.model.now)
        };
        snapshot.queue.iter().find(early).map(|queued| ("too early", format!("{queued:?} is in the queue")))
    }

    /// A task is to be tried again later, and the scheduler will not be there.
    fn not_woken(&self) -> Option<(&'static str, String)> {
        let later = |task: &Task| match task.place {
            Held::Waiting { not_before } => Some(not_before).filter(|at| *at > self.model.now),
            Held::Bound(_) => None,
        };
        let first = self.model.tasks.values().filter_map(later).min()?;
        let (now, wake) = (self.model.now, self.wake);
        (wake <= now || wake > first).then(|| {
            ("wake", format!("at {now} a task may be tried at {first}, and the wake is set to {wake}"))
        })
    }

    fn binding_differs(&self, seen: &BoundTask) -> Option<(&'static str, String)> {
        let bound = self.model.bound(seen.attempt)?;
        let locks = self.model.tasks[&seen.attempt.task].request.locks;
        let parts = |parts: &mut Vec<(String, u64)>| parts.sort_unstable();
        let mut promised: Vec<_> = bound
            .space
            .iter()
            .filter(|(_, _, covered)| !covered)
            .map(|(path, bytes, _)| (path.to_string(), *bytes))
            .collect();
        let mut told: Vec<_> = seen.space.iter().map(|part| (part.path.to_string(), part.bytes)).collect();
        parts(&mut promised);
        parts(&mut told);
        let stage = seen.stage == bound.stage;
        let slot = (seen.stage == Stage::Running) == bound.charge.is_some();
        let devices = bound.charge.as_ref().is_none_or(|charge| {
            let (mut mine, mut theirs) = (charge.gpus.clone(), seen.gpus.clone());
            mine.sort_unstable();
            theirs.sort_unstable();
            mine == theirs
        });
        let same = seen.worker == bound.worker
            && (seen.locks_read, seen.locks_write) == (locks.read, locks.write)
            && seen.accepted == bound.accepted
            && told == promised;
        (!(stage && slot && devices && same)).then(|| ("binding", format!("{seen:?}, expected {bound:?}")))
    }

    fn worker_differs(&self, seen: &WorkerUse) -> Option<(&'static str, String)> {
        let Some(worker) = self.model.workers.get(&seen.worker) else {
            return Some(("worker", format!("{} is kept, is gone", seen.worker)));
        };
        let load = &worker.load;
        let counts: BTreeMap<_, _> = load.kinds.iter().map(|(kind, (count, _))| (*kind, *count)).collect();
        let gpus = |device: usize| load.gpus.get(device).copied().unwrap_or(0);
        let staged: u64 = seen.staged_counts.iter().map(|(_, count)| count).sum();
        let same = seen.mem_used_min == load.min + load.base
            && seen.mem_used_max == load.max + load.base
            && seen.cpu_use == load.threads
            && seen.gpu_used.iter().enumerate().all(|(device, used)| *used == gpus(device))
            && seen.task_counts.iter().copied().eq(counts)
            && staged == load.staged
            && (seen.enabled, seen.mode, seen.suspect, seen.lost)
                == (worker.enabled, worker.mode, worker.suspect, worker.lost);
        (!same).then(|| ("charges", format!("{seen:?}, expected {load:?}")))
    }

    fn path_differs(&self, seen: &PathUse, snapshot: &Snapshot) -> Option<(&'static str, String)> {
        let path = self.model.paths.get(&seen.path)?;
        let available = path.facts.as_ref().map_or(0, |facts| facts.available);
        let room = snapshot.reservations.iter().flat_map(|kept| &kept.space);
        let kept: u128 = room.filter(|part| part.path == seen.path).map(|part| u128::from(part.bytes)).sum();
        let same = (seen.available, seen.promised, seen.kept) == (available, path.promised, kept);
        (!same).then(|| {
            ("path", format!("{seen:?}, expected {available} available, {} promised", path.promised))
        })
    }

    fn reservations_differ(&self, snapshot: &Snapshot) -> Option<(&'static str, String)> {
        let mut holders: Vec<_> = snapshot.workers.iter().filter_map(|worker| worker.reserved_for).collect();
        let kept_for_nobody = holders.iter().find(|holder| !self.model.tasks.contains_key(holder));
        if let Some(holder) = kept_for_nobody {
            return Some(("reservation", format!("a worker is kept for task {holder}, which is not here")));
        }
        let unusable = snapshot.workers.iter().find(|seen| {
            let worker = self.model.workers.get(&seen.worker);
            seen.reserved_for.is_some() && worker.is_none_or(|worker| !worker.is_usable())
        });
        if let Some(worker) = unusable {
            return Some(("reservation", format!("{} gets nothing and is kept for a task", worker.worker)));
        }
        let kinds: BTreeMap<_, _> = holders.iter().map(|id| (self.model.tasks[id].kind(), *id)).collect();
        let several = kinds.len() < holders.len();
        holders.sort_unstable();
        holders.dedup();
        (several || kinds.len() < holders.len())
            .then(|| ("reservation", format!("more than one of a type and size: {holders:?}")))
    }

    /// What a reservation promises: who waits for nothing has started; a promised start is not put off; nothing that
    /// holds threads or devices is let past once its time has come.
    fn promise_broken(&mut self, scheduler: &Sched, snapshot: &Snapshot) -> Option<(&'static str, String)> {
        let broken = |detail: String| Some(("promise", detail));
        let (seen_at, seen) =
            std::mem::replace(&mut self.promises, (snapshot.now, snapshot.reservations.clone()));
        let is_light = |attempt: &AttemptId| {
            let charge = self.model.bound(*attempt).and_then(|bound| bound.charge.as_ref());
            charge.is_some_and(|charge| charge.threads == 0 && charge.gpus.is_empty())
        };
        for kept in &snapshot.reservations {
            let waits = snapshot.waiting.iter().any(|queued| queued.task == kept.task);
            let is_late = waits && kept.waits_for.is_empty() && snapshot.now > kept.start_by;
            let kind = self.model.tasks.get(&kept.task).map(Task::kind);
            let others = self.model.workers.get(&kept.worker).zip(kind).is_some_and(|(worker, kind)| {
                self.model.is_short_by_others(worker, kind, &worker.row(&self.table, kind))
            });
            if is_late && !others {
                let why = scheduler.why(kept.task).map(|why| why.to_string()).unwrap_or_default();
                return broken(format!("it waits for nothing and has not started: {kept:?}; {why}"));
            }
            if let Some(gone) = kept.waits_for.iter().find(|attempt| self.model.bound(**attempt).is_none()) {
                return broken(format!("it waits for {gone}, which is not bound: {kept:?}"));
            }
            let name = |kept: &ReservationUse| (kept.task, kept.worker, kept.made_at);
            let Some(before) = seen.iter().find(|before| name(before) == name(kept)) else { continue };
            if kept.made_at >= snapshot.now {
                continue;
            }
            if before.start_by != kept.start_by && seen_at > kept.made_at {
                return broken(format!("it was put off: {before:?}, then {kept:?}"));
            }
            let is_new = |attempt: &&AttemptId| !before.waits_for.contains(attempt);
            if seen_at > kept.start_by
                && let Some(past) = kept.waits_for.iter().filter(is_new).find(|attempt| !is_light(attempt))
            {
                return broken(format!("{past} was let past: {before:?}, then {kept:?}"));
            }
        }
        None
    }

    /// A waiting task that could certainly start on a worker that is kept for nobody.
    fn idle_beside_work(&self, scheduler: &Sched, snapshot: &Snapshot) -> Option<(&'static str, String)> {
        let is_kept = |machine: Option<&str>| {
            snapshot.workers.iter().any(|seen| {
                let worker = self.model.workers.get(&seen.worker);
                let other = worker.and_then(|worker| worker.profile.machine.as_deref());
                seen.reserved_for.is_some() && other == machine
            })
        };
        snapshot.queue.iter().take(Self::STARTABLE_MAX).find_map(|queued| {
            let task = self.model.tasks.get(&queued.task)?;
            let mut workers = snapshot.workers.iter().filter(|seen| seen.reserved_for.is_none());
            let idle = workers.find(|seen| {
                let worker = &self.model.workers[&seen.worker];
                let machine = worker.profile.machine.as_deref();
                let is_kept = machine.is_some() && is_kept(machine);
                let is_staggered = self.model.may_be_staggered(worker, task.request.task);
                !(is_kept || is_staggered) && self.model.could_start(task, seen.worker, &self.table)
            })?;
            let why = scheduler.why(queued.task).map(|why| why.to_string()).unwrap_or_default();
            Some((
                "startable",
                format!("{queued:?} could start on {}; by the scheduler's words: {why}", idle.worker),
            ))
        })
    }

    /// Of the tasks at the front of the queue so many are tried on every worker.
    const STARTABLE_MAX: usize = 6;

    /// A queued task with a worker that nothing is in the way of, by the scheduler's own explanation.
    fn unexplained(&self, scheduler: &Sched, snapshot: &Snapshot) -> Option<(&'static str, String)> {
        let nth = (self.events() as usize).checked_rem(snapshot.queue.len())?;
        let queued = &snapshot.queue[nth];
        let Some(why) = scheduler.why(queued.task) else {
            return Some(("why", format!("{queued:?} is not known to why")));
        };
        let open = why.workers.iter().find(|worker| worker.obstacles.is_empty())?;
        Some(("why", format!("nothing is in the way of {queued:?} on {}: {why}", open.worker)))
    }
}
