//! Keeping a worker for a task that has waited too long, so that a stream of smaller ones cannot pass it for ever.
//!
//! One reservation per worker and per type and size. Without knowing how long anything takes, the promise is this: what
//! ran on the worker when it was reserved may end; what is started there later must fit beside the reserving task.

use std::collections::BTreeSet;

use sealtasks::{AttemptId, TaskId};

use crate::Sched;
use crate::forecast::Opening;
use crate::queue::GroupIdx;
use crate::task::{Phase, State};
use crate::worker::Reservation;

impl Sched {
    /// Gives the first due task of each group a reservation, where it has none and cannot start at once.
    pub(crate) fn reserve_for_due(&mut self) {
        for id in self.due_staged.clone() {
            let group = self.tasks[&id].group;
            let Some(slot) = self.tasks[&id].binding().map(|binding| binding.worker) else { continue };
            let worker = self.workers.get(slot);
            let is_free = worker.is_usable() && self.kept_by(slot).is_none();
            if is_free && self.queue.groups[group].reserved.is_none() {
                self.reserve(id, slot);
            }
        }
        for group in 0..self.queue.groups.len() {
            if let Some(id) = self.wants_reservation(group) {
                match self.reservable(id) {
                    Some(slot) => {
                        let task = &self.tasks[&id];
                        self.queue.remove(task.class, task.key());
                        self.set_state(self.tasks.at(id), State::Reserved(slot));
                        self.reserve(id, slot);
                    }
                    None => self.queue.groups[group].unreservable = Some((id, self.world)),
                }
            }
        }
    }

    fn wants_reservation(&self, group: GroupIdx) -> Option<TaskId> {
        let state = &self.queue.groups[group];
        let (key, class) = state.head().filter(|(key, _)| key.is_due() && state.reserved.is_none())?;
        let may_start_now = !state.fitting.is_empty() && state.open_head() == Some((key, class));
        let known_hopeless = state.unreservable == Some((key.task, self.world));
        (!may_start_now && !known_hopeless).then_some(key.task)
    }

    /// The worker where the task is expected to start first, its files moved, of those that are kept for nobody; the
    /// least used where that is the same.
    fn reservable(&self, id: TaskId) -> Option<usize> {
        let task = &self.tasks[&id];
        let key = &self.queue.class(task.class).key;
        let group = &self.queue.groups[task.group];
        let could = self.workers.iter().filter(|(slot, worker)| {
            worker.is_usable()
                && self.kept_by(*slot).is_none()
                && group.asks[*slot].is_some_and(|ask| self.could_hold(*slot, &ask))
        });
        let starts = could.filter_map(|(slot, worker)| {
            let opening = self.opening(slot, group.asks[slot].as_ref()?)?;
            let draft = self.plan(key, slot).ok()?;
            Some((opening.at.after(worker.moving_time(draft.moved)), self.utilization(slot), slot))
        });
        starts.min().map(|(_, _, slot)| slot)
    }

    pub(crate) fn reserve(&mut self, id: TaskId, slot: usize) {
        let task = &self.tasks[&id];
        let opening = self.queue.groups[task.group].asks[slot].and_then(|ask| self.opening(slot, &ask));
        let opening = opening.unwrap_or(Opening { at: self.now, waits_for: Vec::new() });
        let mut waits_for: BTreeSet<AttemptId> =
            opening.waits_for.iter().filter_map(|id| Some(self.tasks[id].binding()?.attempt)).collect();
        // A staged task has to have its files first, one that was called off its end there.
        let staged = task.binding().filter(|binding| binding.phase != Phase::Fetched);
        waits_for.extend(staged.map(|binding| binding.attempt));
        let start_by = opening.at.max(self.fetched_at(task).unwrap_or(self.now));
        let reservation = Reservation { task: id, made_at: self.now, start_by, waits_for };
        self.workers.get_mut(slot).reservation = Some(reservation);
        self.reservations.insert(id, slot);
        let group = self.tasks[&id].group;
        self.queue.groups[group].reserved = Some(id);
        self.due_staged.remove(&id);
        self.mates_dirty(slot);
    }

    /// Ends the task's reservation, if it has one. The task's state is the caller's business.
    pub(crate) fn unreserve(&mut self, id: TaskId) {
        if let Some(slot) = self.reservations.remove(&id) {
            self.workers.get_mut(slot).reservation = None;
            let group = self.tasks[&id].group;
            self.queue.groups[group].reserved = None;
            self.mates_dirty(slot);
            // Some may have been refused for the moving of their files alone.
            for mate in self.mates(slot) {
                for group in 0..self.queue.groups.len() {
                    self.queue.unstick_near(group, &self.workers.get(mate).paths);
                }
            }
            self.world += 1;
        }
    }

    /// Starts one task that holds a reservation, on its own worker or a better one that is free, or gives up a
    /// reservation that has become worthless. Returns whether anything was done.
    pub(crate) fn start_one_reserved(&mut self) -> bool {
        let held = self.reservations.iter().map(|(id, slot)| (&self.tasks[id], *slot));
        let mut waiting: Vec<_> = held.filter(|(task, _)| matches!(task.state, State::Reserved(_))).collect();
        waiting.sort_unstable_by_key(|(task, _)| task.key());
        let next =
            waiting.into_iter().find_map(|(task, slot)| Some((task.id, self.reserved_step(task.id, slot)?)));
        match next {
            None => false,
            Some((id, Step::Start(slot, draft))) => {
                self.start(self.tasks.at(id), slot, &draft);
                true
            }
            Some((id, Step::GiveUp)) => {
                self.unreserve(id);
                self.enqueue(self.tasks.at(id));
                true
            }
        }
    }

    fn reserved_step(&self, id: TaskId, slot: usize) -> Option<Step> {
        let task = &self.tasks[&id];
        let worker = self.workers.get(slot);
        let group = &self.queue.groups[task.group];
        let key = &self.queue.class(task.class).key;
        if !self.busy_locks(task).is_empty() {
            return Some(Step::GiveUp);
        }
        let plan = self.plan(key, slot);
        let ask = group.asks[slot].filter(|ask| self.could_hold(slot, ask));
        match (plan, ask) {
            (Ok(draft), Some(ask)) if worker.is_usable() && self.has_slot(slot, &ask) => {
                Some(Step::Start(slot, draft))
            }
            (plan, ask) => match self.pick(key, group, None).or_else(|| self.pick_mate(task, slot)) {
                Some((other, draft)) => Some(Step::Start(other, draft)),
                None if plan.is_ok() && ask.is_some() && worker.is_usable() => None,
                None => Some(Step::GiveUp),
            },
        }
    }
}

enum Step {
    Start(usize, crate::placement::Draft),
    GiveUp,
}
