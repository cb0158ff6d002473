//! For how long the heads of a group have waited at most, known without a look at each of them.
//!
//! It is kept as a bound: the least of all instants since which any head waits that came to the group's open classes
//! after the last look at all of them. What has left meanwhile may have been the one that waited longest; then the bound
//! says too much, whoever asks looks at all of them, and it is exact again.

use std::ops::{Bound, RangeBounds};

use crate::noted::Noted;
use crate::order::Seat;
use crate::queue::{ClassIdx, GroupIdx};
use crate::task::Task;
use crate::{Millis, Sched};

/// What a group knows of how long its open classes have waited.
#[derive(Debug)]
pub(crate) struct Waits {
    /// Nobody that is not due waits since an earlier instant, but for those that are not looked at yet.
    since: Millis,
    /// Classes whose heads were not looked at yet.
    unread: Noted,
    /// Open classes whose files must be at hand.
    tied: usize,
}

impl Default for Waits {
    fn default() -> Self {
        Self { since: Millis::new(u64::MAX), unread: Noted::default(), tied: 0 }
    }
}

impl Waits {
    /// A class that any worker may do has another head.
    pub(crate) fn note(&mut self, class: ClassIdx, is_unread: impl Fn(ClassIdx) -> bool) {
        self.unread.note(class, is_unread);
    }

    /// A class whose files must be at hand is, or is no more, worth trying.
    pub(crate) fn note_tied(&mut self, before: Option<Seat>, after: Option<Seat>) {
        match (before, after) {
            (None, Some(_)) => self.tied += 1,
            (Some(_), None) => self.tied -= 1,
            _ => {}
        }
    }
}

impl Sched {
    /// The classes of a group that are not set aside and wait for longer than they let others pass, in order; and the last
    /// of all that are not set aside.
    pub(crate) fn stops(&mut self, group: GroupIdx, patience: u64) -> Vec<(Seat, ClassIdx)> {
        self.read_waits(group);
        let state = &self.queue.groups[group];
        let last = state.rest_last();
        if state.waits.tied == 0 && self.now.since(state.waits.since).get() <= patience {
            return last.into_iter().collect();
        }
        let mut since = Waits::default().since;
        let mut stops = Vec::new();
        for (seat, class) in state.open.within(..) {
            let Some((_, head)) = self.queue.class(class).head() else { continue };
            let task = &self.tasks[head];
            since = earlier(since, task);
            let is_rest = (state.rest, Bound::Unbounded).contains(&seat);
            if is_rest && (last == Some((seat, class)) || !self.is_patient(class, task, patience)) {
                stops.push((seat, class));
            }
        }
        self.queue.groups[group].waits.since = since;
        stops
    }

    /// Looks at the heads that were not looked at yet.
    fn read_waits(&mut self, group: GroupIdx) {
        let unread = self.queue.groups[group].waits.unread.take();
        let mut since = self.queue.groups[group].waits.since;
        for class in unread.iter().copied() {
            let head = self.queue.read(class, group);
            since = head.map_or(since, |head| earlier(since, &self.tasks[head]));
        }
        let waits = &mut self.queue.groups[group].waits;
        waits.since = since;
        waits.unread.give_back(unread);
    }
}

/// Who is due lets nobody pass whatever it has waited, and goes before all others of its group.
fn earlier(since: Millis, task: &Task) -> Millis {
    if task.is_due { since } else { since.min(task.since) }
}
