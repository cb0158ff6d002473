//! The order of waiting tasks. Values alone; what stands in this order is kept elsewhere.

use std::cmp::Reverse;

use sealtasks::{SectorNumber, TaskId, TaskType};

use crate::Millis;

/// A task's place in the queue; smaller goes first. Lotus's order: a task of negative order before all others whatever
/// its priority, then priority, order, sector number. A due task goes before those of its sign that are not due, the
/// one due longest first, so that it cannot be overtaken for ever. Ties end in submission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    not_negative: bool,
    due: Due,
    priority: Reverse<i64>,
    order: i32,
    number: SectorNumber,
    pub(crate) task: TaskId,
}

/// A task's place among tasks of its own type: what is left of the key when the type is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    due: Due,
    priority: Reverse<i64>,
    number: SectorNumber,
    task: TaskId,
}

/// When a task became due, in milliseconds; [`Due::NOT`]: it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due(u64);

impl Due {
    /// The last instant of all stands for none: who is due only then is served like one who is not.
    const NOT: Self = Self(u64::MAX);
}

impl Seat {
    pub(crate) fn new(task: TaskId, number: SectorNumber, priority: i64, due_since: Option<Millis>) -> Self {
        let due = due_since.map_or(Due::NOT, |at| Due(at.get()));
        Self { due, priority: Reverse(priority), number, task }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.due != Due::NOT
    }

    /// The place among all tasks.
    pub(crate) fn key(&self, kind: TaskType) -> QueueKey {
        let Self { due, priority, number, task } = *self;
        QueueKey { not_negative: kind.order() >= 0, due, priority, order: kind.order(), number, task }
    }
}

impl QueueKey {
    pub(crate) fn seat(&self) -> Seat {
        let Self { due, priority, number, task, .. } = *self;
        Seat { due, priority, number, task }
    }
}
