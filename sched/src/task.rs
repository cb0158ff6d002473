//! One task and the one place it is in; one sector with its files and locks.

use sealtasks::{AttemptId, FileTypes, SectorRef, TaskId, TaskType};

use crate::ledger::Charge;
use crate::locks::{LockHold, LockTable};
use crate::order::{QueueKey, Seat};
use crate::queue::{ClassIdx, GroupIdx};
use crate::slab::{SectorIdx, TaskIdx};
use crate::space::SpaceHold;
use crate::{Locks, Millis};

/// A task that was submitted and has not left.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) sector: SectorRef,
    pub(crate) sector_at: SectorIdx,
    /// Its neighbours among the sector's tasks.
    pub(crate) previous: Option<TaskIdx>,
    pub(crate) next: Option<TaskIdx>,
    pub(crate) kind: TaskType,
    pub(crate) priority: i64,
    pub(crate) locks: Locks,
    pub(crate) since: Millis,
    /// The end of its wait limit.
    pub(crate) wait_until: Millis,
    pub(crate) deadline: Option<Millis>,
    pub(crate) due_at: Millis,
    pub(crate) is_due: bool,
    pub(crate) attempts: u32,
    pub(crate) class: ClassIdx,
    pub(crate) group: GroupIdx,
    pub(crate) state: State,
    /// The instant for which a timer is set; zero: none.
    pub(crate) timer: Millis,
}

/// Where a task is.
#[derive(Debug)]
pub(crate) enum State {
    /// In between: within one event only.
    Idle,
    /// In its class, waiting for a worker.
    Ready,
    /// Another task of the sector holds locks that it needs.
    Locked,
    /// Not to be tried before this.
    Delayed(Millis),
    /// Out of its class: the worker in this slot is kept for it.
    Reserved(usize),
    /// On a worker.
    Bound(Box<Binding>),
}

/// An attempt on a worker, with everything it holds. Whoever takes this apart releases each part once.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) attempt: AttemptId,
    pub(crate) worker: usize,
    pub(crate) phase: Phase,
    /// When it got its slot; without one, when its staging began.
    pub(crate) since: Millis,
    /// How long the moving of its files is expected to take from then on; none once they are there.
    pub(crate) moving: Millis,
    /// Whether it began here and now, so that its end tells how long such a task takes.
    pub(crate) is_measured: bool,
    /// Whether the worker said that it has the attempt.
    pub(crate) accepted: bool,
    pub(crate) cancelled: bool,
    /// On the worker's running tally in the phase `Running`, else on its staged tally.
    pub(crate) charge: Charge,
    pub(crate) locks: LockHold,
    pub(crate) space: SpaceHold,
}

/// How far a bound attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its inputs are being fetched; it has no slot.
    Fetching,
    /// Its inputs are there; it has no slot.
    Fetched,
    /// Its staging was called off and the driver has not yet said that it is over.
    Unstaging,
    /// It has a slot.
    Running,
}

impl Task {
    /// The longest start failure kept, in characters.
    pub(crate) const REASON_MAX: usize = 512;

    pub(crate) fn key(&self) -> QueueKey {
        let due_since = self.is_due.then_some(self.due_at);
        Seat::new(self.id, self.sector.id.number, self.priority, due_since).key(self.kind)
    }

    pub(crate) fn binding(&self) -> Option<&Binding> {
        match &self.state {
            State::Bound(binding) => Some(binding),
            State::Idle | State::Ready | State::Locked | State::Delayed(_) | State::Reserved(_) => None,
        }
    }

    pub(crate) fn binding_mut(&mut self) -> Option<&mut Binding> {
        match &mut self.state {
            State::Bound(binding) => Some(binding),
            State::Idle | State::Ready | State::Locked | State::Delayed(_) | State::Reserved(_) => None,
        }
    }

    /// When this task next wants to be looked at, if nothing else happens.
    pub(crate) fn next_timer(&self) -> Option<Millis> {
        let due = (!self.is_due).then_some(self.due_at);
        match &self.state {
            State::Delayed(until) => Some(due.map_or(*until, |due| due.min(*until))),
            State::Bound(binding) if binding.phase == Phase::Running => None,
            State::Idle | State::Ready | State::Locked | State::Reserved(_) | State::Bound(_) => due,
        }
    }
}

/// A sector that has tasks here. Which one it is stands in its tasks, and where its files lie in their classes.
#[derive(Debug)]
pub(crate) struct Sector {
    /// The first of its tasks; the others follow from one to the next.
    pub(crate) first: TaskIdx,
    /// What the one task holds that holds any; nothing where there is a table.
    held: Locks,
    /// Only while several hold locks: most sectors have but one task, and a table is made and forgotten for few.
    table: Option<Box<LockTable>>,
}

impl Sector {
    pub(crate) fn new(first: TaskIdx) -> Self {
        Self { first, held: Locks::default(), table: None }
    }

    /// The types that stand in the way; empty: the locks can be taken now.
    pub(crate) fn busy(&self, wanted: Locks) -> FileTypes {
        match &self.table {
            Some(table) => table.busy(wanted),
            None if self.held.is_empty() => FileTypes::NONE,
            None => LockTable::of(self.held).busy(wanted),
        }
    }

    /// Takes them, whether free or not: whoever asks has looked, or adopts what is there.
    pub(crate) fn lock(&mut self, wanted: Locks) -> LockHold {
        match &mut self.table {
            Some(table) => table.take(wanted),
            None if self.held.is_empty() => {
                self.held = wanted;
                LockTable::default().take(wanted)
            }
            None if wanted.is_empty() => LockTable::default().take(wanted),
            None => {
                let table = LockTable::of(std::mem::take(&mut self.held));
                self.table.insert(Box::new(table)).take(wanted)
            }
        }
    }

    /// Gives them back.
    pub(crate) fn unlock(&mut self, hold: LockHold) {
        match &mut self.table {
            Some(table) => {
                table.release(hold);
                if table.is_idle() {
                    self.table = None;
                }
            }
            None if hold.locks().is_empty() => {}
            None => {
                debug_assert_eq!(hold.locks(), self.held, "a lock is released where it was taken");
                self.held = Locks::default();
            }
        }
    }
}
