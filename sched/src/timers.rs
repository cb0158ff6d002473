//! Instants at which tasks want to be looked at. A timer that is no longer wanted stays where it is and is passed over
//! when its turn comes: to find it among a million others costs more than the task's whole placement.

use std::collections::BTreeSet;

use crate::Millis;
use crate::slab::{TaskIdx, Tasks};

/// All timers, those that are no longer wanted included: at most about as many as those that are.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    all: BTreeSet<(Millis, TaskIdx)>,
    /// How many are no longer wanted.
    dead: usize,
    /// The first one that is wanted; `None`: to be looked up.
    front: Option<(Millis, TaskIdx)>,
}

impl Timers {
    /// Fewer dead ones than this are left alone.
    const DEAD_MOST: usize = 4096;

    /// Sets the task's timer instead of the one that it has. None is set at the beginning of time, where nobody waits.
    pub(crate) fn set(&mut self, tasks: &mut Tasks, at: TaskIdx, wanted: Option<Millis>) {
        let task = &mut tasks[at];
        let before = std::mem::replace(&mut task.timer, wanted.unwrap_or_default());
        self.dead += usize::from(before > Millis::ZERO);
        if self.front == Some((before, at)) {
            self.front = None;
        }
        if let (Some(front), Some(wanted)) = (&mut self.front, wanted) {
            *front = (*front).min((wanted, at));
        }
        // One that was given up for dead may be wanted again.
        let is_new = wanted.is_some_and(|wanted| self.all.insert((wanted, at)));
        self.dead -= usize::from(wanted.is_some() && !is_new);
        if self.dead > Self::DEAD_MOST && self.dead * 2 > self.all.len() {
            self.all.retain(|timer| is_wanted(tasks, timer));
            self.dead = 0;
        }
    }

    /// The first one.
    pub(crate) fn first(&mut self, tasks: &Tasks) -> Option<(Millis, TaskIdx)> {
        while self.front.is_none() {
            let first = self.all.first().copied()?;
            if is_wanted(tasks, &first) {
                self.front = Some(first);
            } else {
                self.all.pop_first();
                self.dead -= 1;
            }
        }
        self.front
    }

    /// Takes the first one away.
    pub(crate) fn pop(&mut self, tasks: &mut Tasks) {
        if let Some((_, at)) = self.first(tasks) {
            self.all.pop_first();
            self.front = None;
            tasks[at].timer = Millis::ZERO;
        }
    }
}

fn is_wanted(tasks: &Tasks, (instant, at): &(Millis, TaskIdx)) -> bool {
    tasks.try_at(*at).is_some_and(|task| task.timer == *instant)
}
