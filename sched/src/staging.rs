//! Fetching the inputs of the next task while the present one still runs.
//!
//! A worker stages at most as many tasks as run there, of each type and size, and no more than would fit on it together.
//! Only a task that has bytes to move is staged, and only where it would not rather wait for a worker that holds its files.
//! A staged task is called off when another worker could start it now and its own cannot, unless that one is at work and
//! offers more types and the wait is no long one, or its own only keeps starts apart for less time than fetching it anew
//! would take. It is called off, too, where it can no longer start at all.

use std::collections::BTreeSet;

use sealtasks::TaskId;

use crate::class::ClassKey;
use crate::ledger::Ask;
use crate::placement::Draft;
use crate::queue::{ClassIdx, GroupIdx};
use crate::task::{Phase, Task};
use crate::worker::Worker;
use crate::{Action, Sched};

/// Of each type and size, so many classes are looked at for one free staging place: the first are the next to run.
const PROBES_MAX: usize = 16;

/// A staged task is left alone by busy workers of more trades, which have other things to do, unless it is expected to
/// wait for its slot this many times as long as its inputs take to move. They would only travel there and back: PreCommit2
/// has some minutes of both. A PreCommit1 has seconds of moving and may have hours of waiting.
const WORTH_STAYING: u64 = 8;

impl Sched {
    pub(crate) fn may_stage(&self, worker: &Worker) -> bool {
        let most = worker.running.tasks().saturating_mul(self.options.staged_per_running);
        worker.is_usable() && worker.staged.tasks() < most.min(worker.fetches_max)
    }

    /// Gives slots to staged tasks whose inputs are there, in queue order.
    pub(crate) fn promote_staged(&mut self, slot: usize) {
        let worker = self.workers.get(slot);
        if worker.staged_tasks.is_empty() || !worker.is_usable() {
            return;
        }
        let staged = worker.staged_tasks.iter().map(|id| &self.tasks[id]);
        let fetched = staged.filter(|task| {
            task.binding().is_some_and(|binding| binding.phase == Phase::Fetched && !binding.cancelled)
        });
        let mut keys: Vec<_> = fetched.map(|task| task.key()).collect();
        keys.sort_unstable();
        for key in keys {
            if self.may_promote(key.task, slot) {
                self.promote(key.task, slot);
            }
        }
    }

    fn may_promote(&self, id: TaskId, slot: usize) -> bool {
        let group = self.tasks[&id].group;
        let Some(ask) = self.queue.groups[group].asks[slot] else { return false };
        let is_own = self.reservations.get(&id) == Some(&slot);
        self.has_slot(slot, &ask) && (is_own || !self.is_in_the_way(slot, &ask, 0))
    }

    fn promote(&mut self, id: TaskId, slot: usize) {
        self.unreserve(id);
        let at = self.tasks.at(id);
        let group = self.tasks[at].group;
        self.due_staged.remove(&(group, id));
        let ask = self.queue.groups[group].asks[slot].expect("looked at before");
        let charge = self.charge_running(slot, &ask);
        self.note_start(slot, ask.task());
        let task = &mut self.tasks[at];
        let group = &mut self.queue.groups[group];
        let worker = self.workers.get_mut(slot);
        group.staged.remove(&id);
        worker.staged_tasks.remove(&id);
        let binding = task.binding_mut().expect("listed by its worker");
        binding.phase = Phase::Running;
        (binding.since, binding.moving) = (self.now, crate::Millis::ZERO);
        let run = Action::Run {
            attempt: binding.attempt,
            worker: worker.key,
            gpus: charge.gpus().to_vec(),
            threads: charge.threads(),
        };
        worker.staged.release(std::mem::replace(&mut binding.charge, charge));
        self.actions.push_back(run);
        self.dirty.insert(slot);
        self.retime(at);
        self.note_passing(slot, id);
    }

    /// Fills free staging places: those of workers whose ledger changed from all classes, those of all workers from
    /// classes that are new.
    pub(crate) fn stage(&mut self) {
        while let Some(slot) = self.touched.pop_first() {
            while self.stageable.contains(slot)
                && let Some((id, draft)) = self.next_to_stage(slot)
            {
                self.bind(self.tasks.at(id), slot, &draft, Phase::Fetching);
                self.refresh_staging(slot);
            }
        }
        for class in std::mem::take(&mut self.fresh) {
            while let Some((id, slot, draft)) = self.where_to_stage(class) {
                self.bind(self.tasks.at(id), slot, &draft, Phase::Fetching);
                self.refresh_staging(slot);
            }
        }
    }

    /// Staging charges the staged tally alone, so what fits on the worker is as it was.
    fn refresh_staging(&mut self, slot: usize) {
        if !self.may_stage(self.workers.get(slot)) {
            self.stageable.remove(slot);
        }
    }

    fn next_to_stage(&mut self, slot: usize) -> Option<(TaskId, Draft)> {
        let groups: Vec<_> =
            (0..self.queue.groups.len()).filter(|group| self.fits_staged(*group, slot)).collect();
        groups.iter().for_each(|group| self.queue.list_heads(*group));
        let found = groups.into_iter().filter_map(|group| {
            let mut heads = self.queue.groups[group].heads().take(PROBES_MAX);
            heads.find_map(|(key, class)| {
                let draft = self.staging_draft(&self.queue.class(class).key, group, slot)?;
                Some((key, draft))
            })
        });
        found.min_by_key(|(key, _)| *key).map(|(key, draft)| (key.task, draft))
    }

    fn where_to_stage(&self, class: ClassIdx) -> Option<(TaskId, usize, Draft)> {
        let state = self.queue.try_class(class)?;
        let (id, group) = (state.head()?.0.task, state.group);
        state.key.existing.as_ref()?;
        let places = self.stageable.iter().filter(|slot| self.fits_staged(group, *slot));
        let planned = places.filter_map(|slot| {
            let draft = self.staging_draft(&state.key, group, slot)?;
            Some((draft.moved, self.workers.get(slot).staged.tasks(), slot, draft))
        });
        let best = planned.min_by_key(|(moved, staged, slot, _)| (*moved, *staged, *slot));
        best.map(|(_, _, slot, draft)| (id, slot, draft))
    }

    /// Whether one more of the group may be staged on a worker: it would fit beside what is staged there, and no more of
    /// its type and size are staged than run, as it is their slots that it waits for. Without that, fetched PreCommit1
    /// would take every byte that a worker of all trades sets free, and its PreCommit2 would never get any.
    fn fits_staged(&self, group: GroupIdx, slot: usize) -> bool {
        let worker = self.workers.get(slot);
        let Some(ask) = self.queue.groups[group].asks[slot] else { return false };
        let most =
            worker.running.count_kind(ask.kind()).saturating_mul(self.options.staged_per_running as u64);
        worker.staged.count_kind(ask.kind()) < most && worker.staged.fits(&ask, &worker.idle)
    }

    /// The plan, if there is something to fetch and no worker that holds all of it to wait for. One that offers more task
    /// types is not waited for: it has other work, which perhaps only it can do, and this worker would idle meanwhile.
    fn staging_draft(&self, key: &ClassKey, group: GroupIdx, slot: usize) -> Option<Draft> {
        let existing = key.existing.as_ref()?;
        let draft = self.plan(key, slot).ok().filter(|draft| draft.moved > 0)?;
        let paths = existing.files.iter().flat_map(|file| &file.held_by);
        let holders: BTreeSet<usize> =
            paths.flat_map(|path| self.paths.get(*path).workers()).copied().collect();
        let would_rather_wait = holders.into_iter().filter(|holder| *holder != slot).any(|holder| {
            self.workers.get(holder).is_usable()
                && self.breadth(holder) <= self.breadth(slot)
                && self.queue.groups[group].asks[holder].is_some()
                && self.plan(key, holder).is_ok_and(|draft| draft.moved == 0)
        });
        (!would_rather_wait).then_some(draft)
    }

    /// How many task types a worker offers.
    fn breadth(&self, slot: usize) -> usize {
        self.workers.get(slot).profile.tasks.len()
    }

    /// Calls off staged tasks that another worker could start now while their own cannot, and keeps that worker for them.
    /// Returns whether there were any.
    pub(crate) fn call_off_stagings(&mut self) -> bool {
        let mut any = false;
        for group in self.queue.staged.and(&self.queue.fits).iter() {
            let state = &self.queue.groups[group];
            if state.staged.is_empty() {
                self.queue.staged.remove(group);
                continue;
            }
            // One reservation per group: where a staged task holds it, it is that task's turn.
            let mut waiting =
                state.staged.iter().filter(|id| state.reserved.is_none_or(|holder| holder == **id));
            if let Some((id, other)) = waiting.find_map(|id| Some((*id, self.faster_place(*id)?))) {
                self.call_off(id);
                self.unreserve(id);
                self.reserve(id, other);
                any = true;
            }
        }
        any
    }

    fn faster_place(&self, id: TaskId) -> Option<usize> {
        let task = &self.tasks[&id];
        let binding = task.binding()?;
        let waits = matches!(binding.phase, Phase::Fetching | Phase::Fetched) && !binding.cancelled;
        let own = self.workers.get(binding.worker);
        // It would not hear of it.
        let is_away = own.lost || own.suspect;
        if !waits || is_away || own.fits.contains(task.group) {
            return None;
        }
        let (other, draft) =
            self.pick(&self.queue.class(task.class).key, task.group, |slot| slot != binding.worker)?;
        if self.starts_apart_before(task, (other, &draft)) {
            return None;
        }
        let is_pulled = self.breadth(other) <= self.breadth(binding.worker)
            || self.workers.get(other).running.tasks() == 0
            || self.waits_long(id, binding.worker);
        if !is_pulled {
            return None;
        }
        self.kept_by(other).is_none().then_some(other)
    }

    /// Whether a staged task is expected to wait for its slot so long that having moved its inputs does not count.
    fn waits_long(&self, id: TaskId, slot: usize) -> bool {
        let task = &self.tasks[&id];
        let inputs = self.queue.class(task.class).key.existing.iter().flat_map(|existing| &existing.files);
        let bytes = inputs.fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        let ask = self.queue.groups[task.group].asks[slot];
        let opening = ask.and_then(|ask| self.opening(slot, &ask));
        let moving = self.moving_time(slot, bytes).get().saturating_mul(WORTH_STAYING);
        opening.is_none_or(|opening| opening.at.since(self.now).get() > moving)
    }

    /// Whether a task that has its files waits on its own worker only to be kept apart from the last start there, and that
    /// is over before its files would have been moved once more.
    fn starts_apart_before(&self, task: &Task, elsewhere: (usize, &Draft)) -> bool {
        let Some(binding) = task.binding().filter(|binding| binding.phase == Phase::Fetched) else {
            return false;
        };
        let (own, (other, draft)) = (binding.worker, elsewhere);
        let ask = self.queue.groups[task.group].asks[own].filter(|ask| self.has_room(own, ask));
        let until = ask.and_then(|ask| self.staggered_until(own, ask.task()));
        until.is_some_and(|until| until <= self.now.after(self.moving_time(other, draft.moved)))
    }

    /// Calls off what is staged on a worker that has changed so that it will not start there.
    pub(crate) fn recall_stranded(&mut self, slot: usize) {
        for id in self.workers.get(slot).staged_tasks.clone() {
            if self.is_stranded(id) {
                self.call_off(id);
                self.unreserve(id);
                self.due_staged.remove(&(self.tasks[&id].group, id));
            }
        }
    }

    /// Whether a staged task cannot start where it is: the worker no longer offers it or has become too small, or it is
    /// disabled and the task is due. From the queue it gets its turn elsewhere, or there when that has changed; staged it
    /// would wait for a worker that nobody in the queue wants.
    pub(crate) fn is_stranded(&self, id: TaskId) -> bool {
        let task = &self.tasks[&id];
        let Some(binding) = task.binding().filter(|_| self.waits_staged(id)) else { return false };
        let worker = self.workers.get(binding.worker);
        let can_hold = |ask: &Ask| self.could_hold(binding.worker, ask);
        let is_too_small = !self.queue.groups[task.group].asks[binding.worker].as_ref().is_some_and(can_hold);
        let is_disabled = !worker.is_usable();
        // A worker that is away would not hear of it.
        !worker.lost && !worker.suspect && (is_too_small || is_disabled && task.is_due)
    }

    pub(crate) fn call_off(&mut self, id: TaskId) {
        let at = self.tasks.at(id);
        let Some(binding) = self.tasks[at].binding_mut() else { return };
        binding.phase = Phase::Unstaging;
        let (attempt, slot) = (binding.attempt, binding.worker);
        let worker = self.workers.get(slot).key;
        self.actions.push_back(Action::Unstage { attempt, worker });
    }
}
