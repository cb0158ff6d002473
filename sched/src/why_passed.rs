//! Whom a waiting task lets pass, with the numbers of the rule in `yielding`.

use std::fmt;

use sealtasks::TaskType;
use serde::{Deserialize, Serialize};

use crate::queue::Group;
use crate::task::{State, Task};
use crate::{Millis, Sched, Span};

/// Tasks of other types that a waiting task lets go first on workers which have room for only one of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetsPass {
    /// From when on it lets nobody pass: it has waited long enough then, or is due.
    pub until: Millis,
    /// How many tasks of its type and size wait, itself included.
    pub waiting: u64,
    /// Whom it lets pass, in the order of their types.
    pub whom: Vec<LetPass>,
}

/// One type of tasks that goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetPass {
    /// The type.
    pub task: TaskType,
    /// How many tasks of the waiting one's type and size run at once on usable workers that do not offer this type, if they
    /// run nothing else.
    pub places: u64,
    /// The most tasks of the waiting one's type and size that may wait for that many places; of more, none lets pass.
    pub waiting_most: u64,
}

impl Sched {
    /// Whom this task lets pass now, wherever one of them and it would do; `None`: nobody.
    pub(crate) fn lets_pass(&self, task: &Task) -> Option<LetsPass> {
        let patience = self.patience(task.seal_task());
        if !matches!(task.state, State::Ready) || !self.is_patient(task.class, task, patience) {
            return None;
        }
        let state = &self.queue.groups[task.group];
        let waits = |other: TaskType| {
            self.queue.groups.iter().any(|group| group.task == other && group.ready > 0 && is_heavy(group))
        };
        let whom =
            TaskType::ALL.iter().copied().filter(|other| state.places.are_beside(*other) && waits(*other));
        let whom = whom.map(|other| {
            let (places, waiting_most) = state.places.elsewhere(other);
            LetPass { task: other, places, waiting_most }
        });
        let whom: Vec<_> = whom.filter(|other| state.ready <= other.waiting_most).collect();
        // The first millisecond that is more than it waits patiently.
        let until = task.since.after(Millis::new(patience.saturating_add(1))).min(task.due_at);
        (!whom.is_empty()).then_some(LetsPass { until, waiting: state.ready, whom })
    }
}

impl LetsPass {
    /// Of each type: `; lets PC1 pass for another 30m where there is room for one of both: 3 such tasks wait, and workers
    /// without PC1 run 4 of them at once (none lets pass where more than 8 wait)`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, now: Millis) -> fmt::Result {
        for whom in &self.whom {
            let LetPass { task, places, waiting_most } = whom;
            write!(f, "; lets {task} pass for another {}", Span(self.until.since(now)))?;
            f.write_str(" where there is room for one of both: ")?;
            let (such, them) = if self.waiting == 1 { ("task waits", "it") } else { ("tasks wait", "them") };
            write!(
                f,
                "{} such {such}, and workers without {task} run {places} of {them} at once",
                self.waiting
            )?;
            write!(f, " (none lets pass where more than {waiting_most} wait)")?;
        }
        Ok(())
    }
}

/// Whether its tasks take threads or devices: others never wait for those that do not.
fn is_heavy(group: &Group) -> bool {
    let offered = group.offers.first().and_then(|slot| group.asks[*slot]);
    offered.is_some_and(|ask| !ask.is_light())
}
