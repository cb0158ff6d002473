//! One task and the one place it is in; one sector with its files and locks.

use std::collections::{BTreeMap, BTreeSet};

use sealtasks::{AttemptId, FileType, SectorRef, TaskId, TaskType};

use crate::ledger::Charge;
use crate::locks::{LockHold, LockTable};
use crate::queue::{ClassIdx, GroupIdx, QueueKey};
use crate::space::{PathIdx, SpaceHold};
use crate::{Locks, Millis, Plan};

/// A task that was submitted and has not left.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) sector: SectorRef,
    pub(crate) kind: TaskType,
    pub(crate) priority: i64,
    pub(crate) locks: Locks,
    pub(crate) since: Millis,
    pub(crate) due_at: Millis,
    pub(crate) is_due: bool,
    pub(crate) attempts: u32,
    pub(crate) class: ClassIdx,
    pub(crate) group: GroupIdx,
    pub(crate) state: State,
    /// The instant for which a timer is set.
    pub(crate) timer: Option<Millis>,
    /// Why the last attempt could not start, cut to [`Task::REASON_MAX`] characters.
    pub(crate) start_failure: Option<Box<str>>,
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
    /// The place in the order of bindings, by which a reservation knows who came after it.
    pub(crate) sequence: u64,
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
    pub(crate) plan: Plan,
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
        QueueKey::new(
            self.id,
            self.kind,
            self.sector.id.number,
            self.priority,
            self.is_due.then_some(self.due_at),
        )
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

/// A sector that has tasks here.
#[derive(Debug, Default)]
pub(crate) struct Sector {
    pub(crate) tasks: BTreeSet<TaskId>,
    pub(crate) locks: LockTable,
    /// Where its files lie, as far as any of its tasks cares. Sorted, each path once.
    pub(crate) files: BTreeMap<FileType, Vec<PathIdx>>,
}
