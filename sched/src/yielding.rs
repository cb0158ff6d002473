//! Who goes first where a worker has room for one of two tasks, and other workers could do only the first of them.
//!
//! The queue's order would give an all-rounder to a PreCommit2 that a GPU worker could take a few minutes later, and the
//! PreCommit1 behind it, which that GPU worker cannot do, would wait for hours. So a task lets another one pass on a worker
//! - if both fit there now, the other one waits for nothing else, and they would not fit together;
//! - if usable workers that do not offer the other type have places for this one: of its group no more wait than
//!   [`ROUNDS`] times as many as those workers run at once; and
//! - if it is not due, and has not waited for longer than [`ROUNDS`] times what such a task takes.
//!
//! Nothing idles for this. Whoever let others pass is tried again in the same settle step once nobody else can start, and
//! then takes whatever is left. So a task is passed only while there is other work, and for a stated time at most.
//! Priority decides who goes first on the other workers; on this one a task may be passed by one of a lower priority.

use std::cell::Cell;

use sealtasks::{SealTaskType, TaskType};

use crate::headroom::{Headroom, at_once};
use crate::ledger::Ask;
use crate::placement::Draft;
use crate::policy::Rank;
use crate::queue::{ClassIdx, GroupIdx};
use crate::task::Task;
use crate::worker::Worker;
use crate::{Sched, WorkerMode};

/// A task that lets others pass is to find a place elsewhere within so many times what such a task takes.
const ROUNDS: u64 = 2;

/// On so many workers a task lets others pass before it is set aside without a look at more.
const REFUSALS_MAX: usize = 64;

/// Task types, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Types(u64);

const _: () = assert!(TaskType::ALL.len() <= u64::BITS as usize, "a bit for each type");

impl Types {
    fn offered_by(worker: &Worker) -> Self {
        let offered = worker.profile.tasks.iter().filter(|task| worker.offers(**task));
        Self(offered.fold(0, |types, task| types | 1 << *task as u64))
    }

    fn contains(self, task: TaskType) -> bool {
        self.0 >> task as u64 & 1 == 1
    }
}

/// How many tasks of a group usable workers could run at once if they ran nothing else.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By what the workers offer: as many entries as there are trades, so few.
    by_trade: Vec<(Types, u64)>,
    /// What each worker slot is counted for above.
    by_slot: Vec<(Types, u64)>,
}

impl Places {
    /// Counts a worker anew; with no places: not at all.
    fn set(&mut self, slot: usize, types: Types, places: u64) {
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, (Types::default(), 0));
        }
        let (before, had) = std::mem::replace(&mut self.by_slot[slot], (types, places));
        if let Some(at) = self.by_trade.iter().position(|(types, _)| *types == before) {
            self.by_trade[at].1 -= had;
        }
        match self.by_trade.iter_mut().find(|(known, _)| *known == types) {
            Some((_, sum)) => *sum += places,
            None => self.by_trade.push((types, places)),
        }
        self.by_trade.retain(|(_, sum)| *sum > 0);
    }

    /// Whether there are workers of different trades. Where there are not, nobody could do one task and not the other.
    fn are_mixed(&self) -> bool {
        self.by_trade.len() > 1
    }

    /// Whether some worker that has places offers this type, too.
    pub(crate) fn are_beside(&self, task: TaskType) -> bool {
        self.by_trade.iter().any(|(types, _)| types.contains(task))
    }

    /// Those of workers that do not offer this type, and how many tasks may wait for them and let it pass.
    pub(crate) fn elsewhere(&self, task: TaskType) -> (u64, u64) {
        let places = self.without(task);
        (places, places.saturating_mul(ROUNDS))
    }

    /// Those of workers that do not offer this type.
    fn without(&self, task: TaskType) -> u64 {
        self.by_trade.iter().filter(|(types, _)| !types.contains(task)).map(|(_, places)| places).sum()
    }
}

impl Sched {
    /// Counts the worker's places for all groups anew: it has changed, or what it may get.
    pub(crate) fn count_places(&mut self, slot: usize) {
        for group in 0..self.queue.groups.len() {
            self.count_places_in(group, slot);
        }
    }

    /// The same for one group.
    pub(crate) fn count_places_in(&mut self, group: GroupIdx, slot: usize) {
        /// More than any machine runs of a task; sums of it stay far from what 64 bits hold.
        const MOST: u64 = 1 << 20;
        let ask = self.queue.groups[group].asks.get(slot).copied().flatten();
        let open = self
            .workers
            .try_get(slot)
            .filter(|worker| {
                worker.is_usable() && worker.mode == WorkerMode::Open && worker.profile.takes_all()
            })
            .zip(ask.filter(|ask| !ask.is_light()));
        let (types, places) = match open {
            Some((worker, ask)) if self.could_hold(slot, &ask) => {
                let most = at_once(&ask, &worker.capacity, Headroom::default());
                (Types::offered_by(worker), most.min(ask.most_allowed()).min(MOST))
            }
            _ => (Types::default(), 0),
        };
        self.queue.groups[group].places.set(slot, types, places);
    }

    /// The best worker for the first task of a class; unless it is the last call, on which nobody else wants to pass it.
    /// `Err`: it lets others pass on all that would do.
    pub(crate) fn pick_unless_passed(
        &self,
        class: ClassIdx,
        task: &Task,
        is_last_call: bool,
    ) -> Result<Option<(usize, Draft)>, Passed> {
        let state = self.queue.class(class);
        let elsewhere = self.pick_elsewhere(&state.key, state.group);
        let best = elsewhere.or_else(|| self.pick(&state.key, state.group, |_| true));
        let is_passed = |slot: usize| self.is_passed(state.group, slot);
        match &best {
            Some((slot, _)) if !is_last_call && self.may_be_passed(class, task) && is_passed(*slot) => {}
            _ => return Ok(best),
        }
        let refusals = Cell::new(0);
        let is_free = |slot: usize| {
            let refused = refusals.get() >= REFUSALS_MAX || is_passed(slot);
            refusals.set(refusals.get() + usize::from(refused));
            !refused
        };
        match self.queue.groups[state.group].fit_on {
            1 => Err(Passed),
            _ => self.pick(&state.key, state.group, is_free).ok_or(Passed).map(Some),
        }
    }

    /// Whether the task lets others pass on any worker at all.
    fn may_be_passed(&self, class: ClassIdx, task: &Task) -> bool {
        let is_mixed = self.queue.groups[self.queue.class(class).group].places.are_mixed();
        is_mixed && self.is_patient(class, task, self.patience(task.seal_task()))
    }

    /// For how many milliseconds such tasks let others pass.
    pub(crate) fn patience(&self, kind: SealTaskType) -> u64 {
        self.estimate_anywhere(kind).millis.get().saturating_mul(ROUNDS)
    }

    /// Whether the task has waited for no longer than this and has no other reason to let nobody pass.
    pub(crate) fn is_patient(&self, class: ClassIdx, task: &Task, patience: u64) -> bool {
        // Where its files must be at hand, no other worker will do.
        !task.is_due && !self.queue.class(class).is_tied && self.now.since(task.since).get() <= patience
    }

    /// Lets all tasks of the group behind this one pass others, too, without a look at each, if they would: what decides
    /// that is the same for all of them as long as nothing changes.
    pub(crate) fn pass_the_rest(&mut self, class: ClassIdx) {
        let group = self.queue.class(class).group;
        let state = &self.queue.groups[group];
        let Some((_, head)) = self.queue.class(class).head() else { return };
        #[cfg(test)]
        if self.queue.passing.is_one_by_one {
            return;
        }
        if state.fit_on > REFUSALS_MAX || state.next_open().is_none() {
            return;
        }
        // On the only one the task itself was passed just now.
        let lets_pass = |rank: Rank| self.is_passed(group, rank.worker);
        if state.fit_on > 1 && !self.all_fitting(group).all(lets_pass) {
            return;
        }
        let patience = self.patience(self.tasks[head].seal_task());
        let stops = self.stops(group, patience);
        self.queue.pass_all_but(group, stops);
    }

    /// Whether a task of this group, which fits on this worker, lets another one pass there.
    fn is_passed(&self, group: GroupIdx, slot: usize) -> bool {
        let state = &self.queue.groups[group];
        let worker = self.workers.get(slot);
        let Some(ask) = worker.offer(group).filter(|ask| !ask.is_light()) else { return false };
        let finds_a_place = |other: &Ask| state.ready <= state.places.elsewhere(other.task()).1;
        let excludes = |other: &Ask| !worker.running.fits_beside(ask, other, &worker.capacity);
        worker.offered.iter().any(|(other, other_ask)| {
            *other != group
                && worker.fits.contains(*other)
                && !other_ask.is_light()
                && self.queue.groups[*other].next_open().is_some()
                && finds_a_place(other_ask)
                && excludes(other_ask)
        })
    }
}

/// A task lets others pass on every worker that it could start on.
#[derive(Debug)]
pub(crate) struct Passed;
