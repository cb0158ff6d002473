//! The one step that every event ends in: start whatever can start, in queue order, until nothing more can.

use crate::queue::ClassIdx;
use crate::slab::TaskIdx;
use crate::task::State;
use crate::yielding::Passed;
use crate::{Action, Sched};

impl Sched {
    pub(crate) fn settle(&mut self) {
        self.fire_timers();
        self.fire_staggers();
        self.fire_rechecks();
        loop {
            self.start_all();
            if !self.call_off_stagings() {
                break;
            }
        }
        self.stage();
        // Staging takes no slot, so nothing more can start; only the lists of who may stage have to follow.
        self.refresh_dirty();
        self.set_wake();
    }

    fn start_all(&mut self) {
        let mut is_last_call = false;
        loop {
            if !(self.dirty.is_empty() && self.fuller.is_empty()) {
                self.queue.look_again();
            }
            self.refresh_dirty();
            let reserved = self.reservations.len();
            self.reserve_for_due();
            // What was reserved just now may be in the way of what fitted a moment ago.
            if self.reservations.len() > reserved {
                continue;
            }
            if self.start_one_reserved() {
                continue;
            }
            match self.queue.next_open() {
                Some(class) => self.try_start(class, is_last_call),
                None if !(self.dirty.is_empty() && self.fuller.is_empty()) => {}
                None if self.queue.call_those_passed() => is_last_call = true,
                None => break,
            }
        }
    }

    fn try_start(&mut self, class: ClassIdx, is_last_call: bool) {
        let Some((_, task)) = self.queue.class(class).head() else { return };
        match self.pick_unless_passed(class, &self.tasks[task], is_last_call) {
            Ok(Some((worker, draft))) => self.start(task, worker, &draft),
            Ok(None) => self.queue.found_nothing(class),
            Err(Passed) => {
                self.queue.pass(class);
                self.pass_the_rest(class);
            }
        }
    }

    fn fire_timers(&mut self) {
        while let Some((at, place)) = self.timers.first(&self.tasks)
            && at <= self.now
        {
            self.timers.pop(&mut self.tasks);
            let now = self.now;
            let task = &mut self.tasks[place];
            if !task.is_due && task.due_at <= now {
                self.make_due(place);
            }
            if matches!(self.tasks[place].state, State::Delayed(until) if until <= now) {
                self.enqueue(place);
            }
            self.retime(place);
        }
    }

    fn make_due(&mut self, at: TaskIdx) {
        let task = &mut self.tasks[at];
        let id = task.id;
        let (before, class) = (task.key(), task.class);
        task.is_due = true;
        let (after, is_ready) = (task.key(), matches!(task.state, State::Ready));
        if is_ready {
            self.queue.remove(class, before);
            self.queue.insert(class, after, at);
        } else if self.is_stranded(id) {
            self.call_off(id);
        } else if self.waits_staged(id) {
            self.due_staged.insert((self.tasks[at].group, id));
        }
    }

    /// Sets the task's timer to what its state asks for.
    pub(crate) fn retime(&mut self, at: TaskIdx) {
        let wanted = self.tasks[at].next_timer();
        if self.tasks[at].timer != wanted.unwrap_or_default() {
            self.timers.set(&mut self.tasks, at, wanted);
        }
    }

    fn set_wake(&mut self) {
        let timers = self.timers.first(&self.tasks).map(|(at, _)| at);
        let first = timers.into_iter().chain(self.staggers.first().map(|(at, _)| *at)).min();
        if let Some(at) = first.filter(|at| self.wake_at != Some(*at)) {
            self.actions.push_back(Action::WakeAt { at });
        }
        self.wake_at = first;
    }
}
