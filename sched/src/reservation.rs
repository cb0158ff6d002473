//! Keeping a worker for a task that has waited too long, so that a stream of smaller ones cannot pass it for ever.
//!
//! At most one reservation per worker (and machine) and per type and size. What it promises, and who may pass all the same,
//! stands in `keeping`.

use std::collections::BTreeSet;

use sealtasks::{AttemptId, TaskId};

use crate::class::ClassKey;
use crate::forecast::Opening;
use crate::groups::GroupSet;
use crate::order::QueueKey;
use crate::queue::GroupIdx;
use crate::space::PathIdx;
use crate::task::{Phase, State, Task};
use crate::worker::Reservation;
use crate::{Millis, Sched};

/// At most so many workers are looked at for one reservation, and as many again that hold its files.
const LOOKS_MAX: usize = 256;

/// Due tasks of one group for which there was nothing to reserve: a file is out of everybody's reach, or nobody has that
/// much memory. Those behind them must not wait for that to change.
#[derive(Debug, Default)]
pub(crate) struct Unreservable {
    /// The state of the world in which that was found out.
    world: u64,
    tasks: Vec<TaskId>,
}

impl Unreservable {
    /// So many are looked at before the group has to wait for its first ones.
    const MOST: usize = 16;

    fn has(&self, task: TaskId, world: u64) -> bool {
        self.world == world && self.tasks.contains(&task)
    }

    fn note(&mut self, task: TaskId, world: u64) {
        if self.world != world {
            self.world = world;
            self.tasks.clear();
        }
        self.tasks.push(task);
    }
}

impl Sched {
    /// Gives the first due task of each group that can have one a reservation, where none has one and it cannot start at
    /// once.
    pub(crate) fn reserve_for_due(&mut self) {
        if self.due_staged.is_empty() && self.queue.due == GroupSet::default() {
            return;
        }
        let mut groups = self.queue.due;
        let mut next = 0;
        while let Some((group, _)) = self.due_staged.range((next, TaskId::new(0))..).next().copied() {
            groups.insert(group);
            next = group + 1;
        }
        for group in groups.iter() {
            if self.queue.groups[group].reserved.is_none() {
                self.reserve_in(group);
            }
        }
    }

    fn reserve_in(&mut self, group: GroupIdx) {
        let staged = self.due_staged_in(group);
        while let Some(key) = self.wants_reservation(group) {
            let id = key.task;
            if staged.as_ref().is_some_and(|(staged, _)| *staged < key) {
                break;
            }
            match self.reservable(id) {
                Some(slot) => {
                    let task = &self.tasks[&id];
                    self.queue.remove(task.class, task.key());
                    self.set_state(self.tasks.at(id), State::Reserved(slot));
                    return self.reserve(id, slot);
                }
                None => self.queue.groups[group].unreservable.note(id, self.world),
            }
        }
        if let Some((key, slot)) = staged {
            self.reserve(key.task, slot);
        }
    }

    /// The first staged task of the group that is due and whose own worker can be kept for it, and that worker.
    fn due_staged_in(&self, group: GroupIdx) -> Option<(QueueKey, usize)> {
        let listed = self.due_staged.range((group, TaskId::new(0))..=(group, TaskId::new(u64::MAX)));
        listed.map(|(_, id)| &self.tasks[id]).find_map(|task| {
            let slot = task.binding()?.worker;
            (self.workers.get(slot).is_usable() && self.kept_by(slot).is_none()).then(|| (task.key(), slot))
        })
    }

    /// The first due task of the group that waits, might find a worker to reserve, and is not about to start.
    fn wants_reservation(&self, group: GroupIdx) -> Option<QueueKey> {
        let state = &self.queue.groups[group];
        let due = state.due_heads().take(Unreservable::MOST);
        let mut wanting = due.filter(|(key, class)| {
            let may_start_now = state.fit_on > 0 && !self.queue.class(*class).is_stuck();
            !may_start_now && !state.unreservable.has(key.task, self.world)
        });
        wanting.next().map(|(key, _)| key)
    }

    /// The worker where the task is expected to start first, its files moved, of those that are kept for nobody; the
    /// least used where that is the same.
    ///
    /// Of more workers than [`LOOKS_MAX`] those that hold its files are looked at and the next ones of the others, from
    /// where the last look ended: what a reservation costs must not grow with the cluster, and a task that is due starts
    /// on any other worker that is free sooner all the same.
    fn reservable(&mut self, id: TaskId) -> Option<usize> {
        let task = &self.tasks[&id];
        let key = &self.queue.class(task.class).key;
        let group = &self.queue.groups[task.group];
        let holders = key.existing.as_ref().map(|existing| self.holders(existing)).unwrap_or_default();
        let near = holders.iter().copied().filter(|slot| group.offers.contains(slot)).take(LOOKS_MAX);
        let far = group.offers.range(group.look_from..).chain(group.offers.range(..group.look_from));
        // Where the files must be at hand, nobody else will do.
        let is_tied = key.ties().is_some();
        let most = if is_tied && holders.len() <= LOOKS_MAX { 0 } else { LOOKS_MAX };
        let far: Vec<usize> =
            far.copied().filter(|slot| !is_tied || holders.contains(slot)).take(most).collect();
        let look_from = far.last().map_or(0, |slot| slot + 1);
        let starts = near.chain(far.iter().copied()).filter_map(|slot| self.start_there(task, slot));
        let best = starts.min().map(|(_, _, slot)| slot);
        let group = task.group;
        self.queue.groups[group].look_from = look_from;
        best
    }

    /// When such a task is expected to start on this worker, and how much that one is used.
    fn start_there(&self, task: &Task, slot: usize) -> Option<(Millis, u64, usize)> {
        let worker = self.workers.get(slot);
        let ask = self.queue.groups[task.group].asks[slot]?;
        if !worker.is_usable() || self.kept_by(slot).is_some() || !self.could_hold(slot, &ask) {
            return None;
        }
        let draft = self.plan(&self.queue.class(task.class).key, slot).ok()?;
        let at = self.opening(slot, &ask)?.at;
        Some((at.after(self.moving_time(slot, draft.moved)), self.utilization(slot), slot))
    }

    pub(crate) fn reserve(&mut self, id: TaskId, slot: usize) {
        self.queue.look_again();
        let task = &self.tasks[&id];
        let opening = self.queue.groups[task.group].asks[slot].and_then(|ask| self.opening(slot, &ask));
        let opening = opening.unwrap_or(Opening { at: self.now, waits_for: Vec::new() });
        let mut waits_for: BTreeSet<AttemptId> =
            opening.waits_for.iter().filter_map(|id| Some(self.tasks[id].binding()?.attempt)).collect();
        // A staged task has to have its files first, one that was called off its end there.
        let staged = task.binding().filter(|binding| binding.phase != Phase::Fetched);
        waits_for.extend(staged.map(|binding| binding.attempt));
        let start_by = opening.at.max(self.fetched_at(task).unwrap_or(self.now));
        let room = match task.binding().is_some_and(|binding| binding.worker == slot) {
            true => Vec::new(),
            false => self.planned_room(&self.queue.class(task.class).key, slot),
        };
        self.paths.keep(&room);
        let reservation = Reservation { task: id, made_at: self.now, start_by, waits_for, room };
        self.workers.get_mut(slot).reservation = Some(Box::new(reservation));
        self.reservations.insert(id, slot);
        let group = self.tasks[&id].group;
        self.queue.groups[group].reserved = Some(id);
        self.queue.wake(group);
        self.doubtful.insert(id);
        self.due_staged.remove(&(group, id));
        self.mates_dirty(slot);
    }

    /// Ends the task's reservation, if it has one. The task's state is the caller's business.
    pub(crate) fn unreserve(&mut self, id: TaskId) {
        if let Some(slot) = self.reservations.remove(&id) {
            let kept =
                self.workers.get_mut(slot).reservation.take().map(|kept| kept.room).unwrap_or_default();
            self.paths.keep_no_more(&kept);
            if !kept.is_empty() {
                self.queue.unstick(ClassKey::needs_room);
            }
            self.doubt_reservations();
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
        if self.doubtful.is_empty() {
            return false;
        }
        let doubtful = std::mem::take(&mut self.doubtful);
        let held = doubtful.iter().filter_map(|id| Some((*self.reservations.get(id)?, id)));
        let held = held.map(|(slot, id)| (&self.tasks[id], slot));
        let mut waiting: Vec<_> = held.filter(|(task, _)| matches!(task.state, State::Reserved(_))).collect();
        waiting.sort_unstable_by_key(|(task, _)| task.key());
        let waiting: Vec<_> = waiting.into_iter().map(|(task, slot)| (task.id, slot)).collect();
        let mut waiting = waiting.into_iter();
        let next = waiting.find_map(|(id, slot)| Some((id, self.step_in_its_room(id, slot)?)));
        // Nothing has changed for those before it.
        self.doubtful.extend(waiting.map(|(id, _)| id));
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

    /// Lets all tasks that hold reservations be looked at again.
    pub(crate) fn doubt_reservations(&mut self) {
        self.doubtful.extend(self.reservations.keys());
    }

    /// The step of a reserved task, for which the room that is kept for it is free.
    fn step_in_its_room(&mut self, id: TaskId, slot: usize) -> Option<Step> {
        let kept = self.workers.get_mut(slot).reservation.as_mut().map(|kept| std::mem::take(&mut kept.room));
        let room = kept.unwrap_or_default();
        self.paths.keep_no_more(&room);
        let step = self.reserved_step(id, slot);
        self.paths.keep(&room);
        if let Some(kept) = &mut self.workers.get_mut(slot).reservation {
            kept.room = room;
        }
        step
    }

    fn planned_room(&self, key: &ClassKey, slot: usize) -> Vec<(PathIdx, u64)> {
        self.plan(key, slot).map(|draft| draft.room().to_vec()).unwrap_or_default()
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
            (plan, ask) => {
                match self.pick(key, task.group, |_| true).or_else(|| self.pick_mate(task, slot)) {
                    Some((other, draft)) => Some(Step::Start(other, draft)),
                    None if plan.is_ok() && ask.is_some() && worker.is_usable() => None,
                    None => Some(Step::GiveUp),
                }
            }
        }
    }
}

enum Step {
    Start(usize, crate::placement::Draft),
    GiveUp,
}
