//! Reads what the events of a batch are going to need from memory, for all of them at once, before the first is handled.
//!
//! Results come in batches. What each of them needs lies in some dozens of places which are in no cache, and most of them
//! can only be found through another one: the index leads to the task, the task to its attempt, that to the worker, and
//! the worker to its lists. For one event alone the processor has to wait at every step of that way; for many events, which
//! take each step together, it waits about as long at every step as for one. Nothing is decided or changed here: it all
//! works on a shared reference, and whoever never calls it gets the same actions.

use sealtasks::AttemptId;

use crate::Sched;
use crate::queue::ClassIdx;
use crate::slab::TaskIdx;
use crate::task::{Binding, Task};

impl Sched {
    /// So many attempts are looked at in one call: what they need, some 4 KiB each, still fits into the caches that a
    /// processor core has of its own.
    pub const LOOK_AHEAD_MOST: usize = 64;

    /// Reads what will be needed when these attempts end, as it is about to be told: of the first
    /// [`Sched::LOOK_AHEAD_MOST`]. A hint: it changes nothing, and attempts that are not here do no harm.
    pub fn look_ahead(&self, ending: &[AttemptId]) {
        if !self.is_far_away() {
            return;
        }
        let ending = &ending[..ending.len().min(Self::LOOK_AHEAD_MOST)];
        ending.iter().for_each(|attempt| self.tasks.touch_index(attempt.task));
        let places: Vec<TaskIdx> =
            ending.iter().filter_map(|attempt| self.tasks.find(attempt.task)).collect();
        let tasks: Vec<&Task> = places.iter().map(|at| &self.tasks[*at]).collect();
        tasks.iter().for_each(|task| task.touch());
        let bound: Vec<(&Task, &Binding)> =
            tasks.iter().filter_map(|task| Some((*task, task.binding()?))).collect();
        bound.iter().for_each(|(_, binding)| binding.touch());
        bound.iter().for_each(|(task, _)| self.warm_for_leaving(task));
        bound.iter().for_each(|(_, binding)| self.workers.get(binding.worker).touch());
        for (_, binding) in &bound {
            let worker = self.workers.get(binding.worker);
            worker.touch_lists();
            let room = binding.space.parts().map(|(path, _)| path);
            room.chain(worker.paths.iter().copied()).for_each(|path| self.paths.get(path).touch());
        }
        self.look_at_next(&bound);
    }

    /// What may take the slots of these attempts: the first tasks of their types and sizes that any worker may do, and those
    /// that only their workers may do.
    fn look_at_next(&self, ending: &[(&Task, &Binding)]) {
        let mut classes: Vec<ClassIdx> = Vec::with_capacity(2 * ending.len());
        for (group, state) in self.queue.groups.iter().enumerate() {
            let ends = ending.iter().filter(|(task, _)| task.group == group).count();
            classes.extend(state.open_classes().take(ends));
        }
        for (task, binding) in ending {
            let path = self.workers.get(binding.worker).paths.first();
            classes.extend(path.and_then(|path| self.queue.tied_to(*path, task.group)));
        }
        let heads: Vec<TaskIdx> = classes.iter().filter_map(|class| self.warm_class(*class)).collect();
        let tasks: Vec<&Task> = heads.iter().map(|at| &self.tasks[*at]).collect();
        tasks.iter().for_each(|task| task.touch());
        tasks.iter().for_each(|task| self.sectors.touch(task.sector_at));
    }
}
