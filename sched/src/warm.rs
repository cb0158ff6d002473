//! Reads what an event is going to need from memory, all of it at once.
//!
//! Among a million tasks and ten thousand workers next to nothing is in the processor's caches. What one decision needs lies in
//! some dozens of places; a processor that comes to them one after another waits for each, and one that is told of them
//! together waits but a few times. Nothing is decided here: what is read is not looked at, and every line of this file
//! could be left out.

use std::hint::black_box;

use sealtasks::SectorId;

use crate::Sched;
use crate::class::Class;
use crate::groups::GroupSet;
use crate::queue::ClassIdx;
use crate::slab::TaskIdx;
use crate::space::{Path, PathIdx};
use crate::task::{Binding, Task};
use crate::worker::Worker;

/// What a task and all that belongs to it take, and a worker and its lists, in bytes, and what of that a processor core has
/// at hand anyway: there the reading would cost more than it saves.
const TASK_BYTES: usize = 512;
const WORKER_BYTES: usize = 4096;
const AT_HAND_BYTES: usize = 16 << 20;

impl Sched {
    /// Whether there is more than the processor's caches hold.
    pub(crate) fn is_far_away(&self) -> bool {
        self.tasks.len() * TASK_BYTES + self.workers.len() * WORKER_BYTES > AT_HAND_BYTES
    }

    /// For the end of this task's attempt, and for the start of what takes its slot.
    pub(crate) fn warm_for_end(&self, at: TaskIdx) {
        if !self.is_far_away() {
            return;
        }
        let task = &self.tasks[at];
        task.touch();
        let Some(binding) = task.binding() else { return };
        binding.touch();
        let worker = self.workers.get(binding.worker);
        worker.touch();
        // What any worker may do next, as far as can be told: the first of the same type and size.
        let next = self.queue.groups[task.group].open_head().map(|(_, class)| class);
        self.warm_for_leaving(task);
        let next_task = next.and_then(|class| self.warm_class(class));
        worker.touch_lists();
        // What only this worker may do next.
        let own = worker.paths.first().and_then(|path| self.queue.tied_to(*path, task.group));
        for (path, _) in binding.space.parts() {
            self.paths.get(path).touch();
        }
        worker.paths.first().into_iter().for_each(|path| self.paths.get(*path).touch());
        let own_task = own.filter(|own| next != Some(*own)).and_then(|class| self.warm_class(class));
        for at in [next_task, own_task].into_iter().flatten() {
            let task = &self.tasks[at];
            task.touch();
            self.sectors.touch(task.sector_at);
        }
    }

    /// For a waiting task that leaves.
    pub(crate) fn warm_for_cancel(&self, at: TaskIdx) {
        if !self.is_far_away() {
            return;
        }
        let task = &self.tasks[at];
        task.touch();
        self.warm_for_leaving(task);
        self.warm_class(task.class);
    }

    /// For a task that comes.
    pub(crate) fn warm_for_submit(&self, sector: SectorId) {
        self.sectors.touch_index(sector);
    }

    pub(crate) fn warm_for_leaving(&self, task: &Task) {
        self.sectors.touch(task.sector_at);
        self.sectors.touch_index(task.sector.id);
        if let Some(class) = self.queue.try_class(task.class) {
            class.touch();
        }
    }

    /// The class and, of what it needs, what lies nearest. Its first task.
    pub(crate) fn warm_class(&self, class: ClassIdx) -> Option<TaskIdx> {
        let class = self.queue.try_class(class)?;
        class.touch();
        if let Some(path) = class.some_path() {
            self.paths.get(path).touch();
        }
        class.head().map(|(_, task)| task)
    }
}

impl Task {
    pub(crate) fn touch(&self) {
        black_box((self.id, self.sector.proof, self.since, self.due_at, self.group));
        black_box((self.class, self.timer, self.attempts, self.locks, self.kind, self.binding().is_some()));
    }
}

impl Binding {
    pub(crate) fn touch(&self) {
        black_box((self.attempt, self.worker, self.since, self.accepted, self.phase));
        black_box((self.charge.threads(), self.charge.gpus().len(), self.space.parts().next()));
    }
}

impl Worker {
    pub(crate) fn touch(&self) {
        black_box((self.enabled, self.machine, self.offered.as_ptr(), self.bound.len(), self.paths.len()));
        black_box((
            self.running.tasks(),
            self.running.threads(),
            self.running.memory_max(),
            self.capacity.cpus,
        ));
        black_box((touched(&self.stale), touched(&self.fits), touched(&self.listed), self.key));
        black_box((self.staged.tasks(), self.staged_tasks.len()));
        // What rank it has is told by its profile.
        let profile = &self.profile;
        black_box((profile.is_local, profile.tasks.len(), profile.bandwidth, profile.group_caps.len()));
    }

    /// What it keeps elsewhere.
    pub(crate) fn touch_lists(&self) {
        black_box((self.bound.first(), self.bound.last(), self.paths.first(), self.running.gpus().first()));
        self.running.touch();
        self.learned.touch();
    }
}

impl Class {
    fn some_path(&self) -> Option<PathIdx> {
        self.key.existing.as_ref()?.files.first()?.held_by.first().copied()
    }
}

impl Path {
    pub(crate) fn touch(&self) {
        black_box((self.facts().map(|facts| (facts.available, facts.can_seal)), self.promised(), self.id()));
        black_box((self.kept(), self.workers().len(), self.id().as_str().as_bytes().first()));
    }
}

fn touched(set: &GroupSet) -> bool {
    set.contains(0)
}
