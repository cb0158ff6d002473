//! Keeping a worker for a task that has waited too long, so that a stream of smaller ones cannot pass it for ever.
//!
//! One reservation per worker and per type and size. Without knowing how long anything takes, the promise is this: what
//! ran on the worker when it was reserved may end; what is started there later must fit beside the reserving task.

use sealtasks::TaskId;

use crate::Sched;
use crate::queue::GroupIdx;
use crate::task::State;
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

    /// The least used worker that could run the task if nothing else ran there, and that is kept for nobody.
    fn reservable(&self, id: TaskId) -> Option<usize> {
        let task = &self.tasks[&id];
        let key = &self.queue.class(task.class).key;
        let group = &self.queue.groups[task.group];
        let could = self.workers.iter().filter(|(slot, worker)| {
            worker.is_usable()
                && self.kept_by(*slot).is_none()
                && group.asks[*slot].is_some_and(|ask| self.could_hold(*slot, &ask))
                && self.plan(key, *slot).is_ok()
        });
        let used = could.map(|(slot, _)| (self.utilization(slot), slot));
        used.min().map(|(_, slot)| slot)
    }

    pub(crate) fn reserve(&mut self, id: TaskId, slot: usize) {
        self.sequence += 1;
        let opening =
            self.queue.groups[self.tasks[&id].group].asks[slot].and_then(|ask| self.opening(slot, &ask));
        self.workers.get_mut(slot).reservation = Some(Reservation {
            task: id,
            sequence: self.sequence,
            made_at: self.now,
            start_by: opening.map_or(self.now, |opening| opening.at),
        });
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
