//! The order of waiting tasks. Values alone; what stands in this order is kept elsewhere.

use std::cmp::{Ordering, Reverse};
use std::ops::Bound;

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
    /// Nobody comes after it.
    const LAST: Self = Self {
        due: Due::NOT,
        priority: Reverse(i64::MIN),
        number: SectorNumber::new(u64::MAX),
        task: TaskId::new(u64::MAX),
    };

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
    /// The places among tasks of this type that are not in front of this one.
    pub(crate) fn and_behind(&self, kind: TaskType) -> Bound<Seat> {
        let Self { not_negative, due, priority, order, number, task } = *self;
        let seat = |number, task| Seat { due, priority, number, task };
        match (kind.order() >= 0).cmp(&not_negative).then(kind.order().cmp(&order)) {
            Ordering::Equal => Bound::Included(seat(number, task)),
            // Only where the signs are the same do dates and priorities count before the types.
            _ if (kind.order() >= 0) != not_negative => match kind.order() >= 0 {
                true => Bound::Unbounded,
                false => Bound::Excluded(Seat::LAST),
            },
            Ordering::Less => Bound::Excluded(seat(SectorNumber::new(u64::MAX), TaskId::new(u64::MAX))),
            Ordering::Greater => Bound::Included(seat(SectorNumber::new(0), TaskId::new(0))),
        }
    }

    pub(crate) fn seat(&self) -> Seat {
        let Self { due, priority, number, task, .. } = *self;
        Seat { due, priority, number, task }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use proptest::prelude::*;

    use super::*;

    fn seat() -> impl Strategy<Value = Seat> {
        (0..3_u64, 0..3_u64, -1..2_i64, prop::option::of(0..2_u64)).prop_map(
            |(task, number, priority, due)| {
                Seat::new(TaskId::new(task), SectorNumber::new(number), priority, due.map(Millis::new))
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_not_in_front_of_a_key_is_at_or_behind_it(
            (one, other) in (seat(), seat()),
            kinds in (0..TaskType::ALL.len(), 0..TaskType::ALL.len()),
        ) {
            let (kind, of) = (TaskType::ALL[kinds.0], TaskType::ALL[kinds.1]);
            let key = one.key(of);
            let is_behind = (key.and_behind(kind), Bound::Unbounded).contains(&other);
            // Two tasks are one only if they are of one type.
            prop_assume!(one != other || kind == of);
            prop_assert_eq!(is_behind, other.key(kind) >= key);
        }
    }
}
