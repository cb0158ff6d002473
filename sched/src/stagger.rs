//! Keeping the starts of one type apart, on a worker and on its machine, so that their peaks do not meet.
//!
//! A start is the moment at which a task gets its slot; an adopted task started before. The last starts on a machine go
//! with its last worker.

use sealtasks::TaskType;

use crate::{Millis, Sched};

/// The last start of each type.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastStarts([Option<Millis>; TaskType::ALL.len()]);

impl LastStarts {
    fn of(&self, task: TaskType) -> Option<Millis> {
        self.0[task as usize]
    }

    fn note(&mut self, task: TaskType, at: Millis) {
        self.0[task as usize] = Some(at);
    }
}

impl Sched {
    /// Whether starts of this type are kept apart there.
    pub(crate) fn is_staggered(&self, slot: usize, task: TaskType) -> bool {
        self.workers.get(slot).profile.stagger.get(&task).is_some_and(|span| *span > Millis::ZERO)
    }

    /// Before when no further task of this type may start there; `None`: it may now.
    pub(crate) fn staggered_until(&self, slot: usize, task: TaskType) -> Option<Millis> {
        let worker = self.workers.get(slot);
        if !worker.staggers {
            return None;
        }
        let span = *worker.profile.stagger.get(&task)?;
        let shared = worker.machine.map(|machine| &self.machines.get(machine).last_starts);
        let all = std::iter::once(&worker.last_starts).chain(shared);
        let last = all.filter_map(|last| last.of(task)).max()?;
        Some(last.after(span)).filter(|until| *until > self.now)
    }

    /// Notes that a task of this type got its slot there now, and when the next one may.
    pub(crate) fn note_start(&mut self, slot: usize, task: TaskType) {
        let now = self.now;
        let worker = self.workers.get_mut(slot);
        worker.last_starts.note(task, now);
        let members = match worker.machine {
            None => return self.note_stagger(slot, task),
            Some(machine) => {
                let state = self.machines.get_mut(machine);
                state.last_starts.note(task, now);
                state.members.clone()
            }
        };
        members.into_iter().for_each(|member| self.note_stagger(member, task));
    }

    fn note_stagger(&mut self, slot: usize, task: TaskType) {
        if let Some(until) = self.staggered_until(slot, task) {
            self.staggers.insert((until, slot));
        }
    }

    /// Sees to it that a worker which came to its machine, or whose spans changed, is looked at again in time.
    pub(crate) fn renew_staggers(&mut self, slot: usize) {
        let types = self.workers.get(slot).profile.stagger.keys();
        let waits: Vec<_> = types.filter_map(|task| self.staggered_until(slot, *task)).collect();
        self.staggers.extend(waits.into_iter().map(|until| (until, slot)));
    }

    /// Lets workers whose time has come be looked at again.
    pub(crate) fn fire_staggers(&mut self) {
        while let Some((at, slot)) = self.staggers.first().copied()
            && at <= self.now
        {
            self.staggers.pop_first();
            // The worker may have gone, and another one may have come in its place: a look too many does no harm.
            if self.workers.try_get(slot).is_some() {
                self.dirty.insert(slot);
            }
            // A reservation may have found nothing because of it.
            self.world += 1;
        }
    }
}
