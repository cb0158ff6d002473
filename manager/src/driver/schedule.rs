//! What the scheduler holds, for people: the queue in its order, what each worker has, which places are kept. Never:
//! Lotus's shape of it (see `views`).

use std::collections::BTreeMap;

use rpc::explain::{HeldView, QueuedView, ReservationView, Schedule, WorkerHolds};
use sched::{BoundTask, QueuedTask, Snapshot, Stage, Whereabouts, WorkerKey};
use sealtasks::TaskId;

use super::Driver;

/// Waiting tasks in one answer at most.
const LIMIT_MAX: u32 = 1000;

/// Checks of a task on a worker made for the reasons in one answer; nothing is scheduled meanwhile. One takes about a
/// microsecond, all of them some 50 ms; beyond, tasks are listed without their reasons.
const CHECKS_MAX: usize = 50_000;

impl Driver {
    /// What waits, runs and is held now.
    pub(crate) fn schedule(&self, limit: u32) -> Schedule {
        let snapshot = self.sched.snapshot();
        let listed = usize::try_from(limit.min(LIMIT_MAX)).unwrap_or(usize::MAX);
        let explained = self.explained_max();
        let (kept, others): (Vec<_>, Vec<_>) =
            snapshot.waiting.iter().partition(|queued| queued.reserved.is_some());
        let all = kept.iter().copied().chain(&snapshot.queue).chain(others);
        let places = (1_u64..).zip(all.clone()).take(listed);
        let queue: Vec<_> =
            places.map(|(place, queued)| self.queued_view(place, queued, explained)).collect();
        let total = snapshot.queue.len().saturating_add(snapshot.waiting.len());
        Schedule {
            now_ms: self.now_ms(),
            counts: self.counts(&snapshot),
            left_off: u64::try_from(total.saturating_sub(queue.len())).unwrap_or(u64::MAX),
            queue,
            workers: self.holdings(&snapshot),
            reservations: kept.into_iter().filter_map(|queued| self.reservation_view(queued)).collect(),
        }
    }

    /// Tasks that may be explained in one answer: each costs a check per worker and a look at every task in the queue, of
    /// which many cost no more than one check.
    pub(super) fn explained_max(&self) -> usize {
        const LOOKS_PER_CHECK: usize = 64;
        let cost = self.workers.len().saturating_add(self.tasks.len() / LOOKS_PER_CHECK);
        CHECKS_MAX.checked_div(cost).unwrap_or(CHECKS_MAX)
    }

    fn counts(&self, snapshot: &Snapshot) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::<String, u64>::new();
        let mut count = |word: &str| {
            let sum = counts.entry(word.to_owned()).or_default();
            *sum = sum.saturating_add(1);
        };
        snapshot.queue.iter().for_each(|_| count("queued"));
        for queued in &snapshot.waiting {
            count(match self.sched.whereabouts_of(queued.task) {
                Some(Whereabouts::Locked { .. }) => "locked",
                Some(Whereabouts::Delayed { .. }) => "delayed",
                Some(Whereabouts::Reserved { .. }) => "reserved",
                Some(Whereabouts::Waiting | Whereabouts::Staged { .. } | Whereabouts::Running { .. })
                | None => "queued",
            });
        }
        for bound in &snapshot.bound {
            count(match bound.stage {
                Stage::Running => "running",
                Stage::Fetching | Stage::Fetched | Stage::Unstaging => "staged",
            });
        }
        counts
    }

    fn queued_view(&self, place: u64, queued: &QueuedTask, explained: usize) -> QueuedView {
        let is_explained = usize::try_from(place).is_ok_and(|place| place <= explained);
        QueuedView {
            place,
            task: queued.task,
            kind: queued.kind,
            sector: queued.sector.id,
            priority: queued.priority,
            queued_ms: queued.since.get(),
            deadline_ms: self.asking().deadline(queued.sector.id).map_or(0, sched::Millis::get),
            is_due: queued.is_due,
            reserved: queued.reserved.map(|worker| self.name_of(worker)),
            reason: if is_explained { self.short_reason(queued.task) } else { String::new() },
        }
    }

    fn holdings(&self, snapshot: &Snapshot) -> Vec<WorkerHolds> {
        let mut held = BTreeMap::<WorkerKey, (Vec<HeldView>, Vec<HeldView>)>::new();
        for bound in &snapshot.bound {
            let (running, staged) = held.entry(bound.worker).or_default();
            match bound.stage {
                Stage::Running => running.push(self.held_view(bound)),
                Stage::Fetching | Stage::Fetched | Stage::Unstaging => staged.push(self.held_view(bound)),
            }
        }
        let mut views: Vec<_> = snapshot
            .workers
            .iter()
            .map(|charged| {
                let (running, staged) = held.remove(&charged.worker).unwrap_or_default();
                let known = self.workers.get(&charged.worker.session);
                WorkerHolds {
                    name: charged.host.clone(),
                    url: known.map_or_else(String::new, |worker| worker.url.clone()),
                    session: charged.worker.session,
                    running,
                    staged,
                }
            })
            .collect();
        views.sort_by(|one, other| (&one.name, one.session).cmp(&(&other.name, other.session)));
        views
    }

    fn held_view(&self, bound: &BoundTask) -> HeldView {
        let open = self.tasks.get(&bound.attempt.task).and_then(|task| task.open.as_deref());
        HeldView {
            attempt: bound.attempt,
            kind: bound.kind,
            sector: bound.sector.id,
            bound_ms: open.map_or(0, |open| open.bound_ms),
        }
    }

    fn reservation_view(&self, queued: &QueuedTask) -> Option<ReservationView> {
        let worker = queued.reserved?;
        let (made_ms, start_by_ms, waits_for) = self.kept_for(queued.task)?;
        Some(ReservationView {
            task: queued.task,
            kind: queued.kind,
            sector: queued.sector.id,
            worker: self.name_of(worker),
            made_ms,
            start_by_ms,
            waits_for,
        })
    }

    /// Since when, and until when at most, a place is kept for a task, and for what it waits.
    fn kept_for(&self, task: TaskId) -> Option<(u64, u64, Vec<String>)> {
        match self.sched.whereabouts_of(task)? {
            Whereabouts::Reserved { made_at, start_by, waits_for, .. } => {
                let names = waits_for.iter().map(ToString::to_string).collect();
                Some((made_at.get(), start_by.get(), names))
            }
            Whereabouts::Waiting
            | Whereabouts::Locked { .. }
            | Whereabouts::Delayed { .. }
            | Whereabouts::Staged { .. }
            | Whereabouts::Running { .. } => None,
        }
    }

    fn name_of(&self, worker: WorkerKey) -> String {
        self.workers
            .get(&worker.session)
            .map_or_else(|| "a lost worker".to_owned(), |known| known.name().to_owned())
    }
}
