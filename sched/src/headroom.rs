//! Memory that long tasks leave free, so that the small ones which take neither threads nor devices (Commit1, Fetch,
//! Finalize) never wait for hours behind them.
//!
//! A task that takes threads or devices may start beside others of its sort only if the largest small task that the
//! worker offers, of the same proof, would still fit. Nothing is over-committed, and two rules keep it from costing
//! anything: the first long task needs to leave nothing, and no task leaves anything where as many of it as the machine
//! could run would not fit any more (two PreCommit1 on 128 GiB stay two). There, and only there, a small task waits for a
//! long one when memory is full. Small tasks that run count as what is left free: another one waits for them, not for long.

use sealtasks::{ResourceTable, SealTaskType};

use crate::capacity::Capacity;
use crate::ledger::Ask;
use crate::worker::Worker;

/// Bytes that a long task leaves free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Headroom {
    /// Of RAM.
    pub(crate) min: u64,
    /// Of RAM and swap.
    pub(crate) max: u64,
}

/// Memory of tasks that hold neither threads nor devices, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Light {
    /// RAM.
    pub(crate) min: u128,
    /// RAM and swap.
    pub(crate) max: u128,
}

impl Worker {
    /// What such a task asks of this worker, and what it has to leave free beside others.
    pub(crate) fn ask_with_headroom(&self, kind: SealTaskType, builtin: &ResourceTable) -> Ask {
        let ask = self.ask(kind, builtin);
        if ask.is_light() {
            return ask;
        }
        let offered = self.profile.tasks.iter().filter(|task| self.offers(**task));
        let asks = offered.map(|task| self.ask(SealTaskType { task: *task, ..kind }, builtin));
        let headroom = asks.filter(Ask::is_light).fold(Headroom::default(), |most, small| {
            let (min, max) = small.memory_alone();
            Headroom { min: most.min.max(min), max: most.max.max(max) }
        });
        let costs =
            at_once(&ask, &self.capacity, headroom) < at_once(&ask, &self.capacity, Headroom::default());
        if costs { ask } else { ask.leaving(headroom) }
    }
}

/// How many such tasks a machine runs that does nothing else and leaves this much free.
pub(crate) fn at_once(ask: &Ask, capacity: &Capacity, headroom: Headroom) -> u64 {
    let by_memory = ask.most_in_memory(capacity, headroom);
    let by_threads = capacity.cpus.checked_div(ask.threads()).unwrap_or(u64::MAX);
    by_memory.min(by_threads).min(ask.most_on_gpus(capacity))
}

impl Light {
    /// One more.
    pub(crate) fn add(&mut self, min: u64, max: u64) {
        self.min += u128::from(min);
        self.max += u128::from(max);
    }

    /// One less.
    pub(crate) fn take(&mut self, min: u64, max: u64) {
        (self.min, self.max) = (less(self.min, min), less(self.max, max));
    }

    /// What two hold together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { min: self.min + other.min, max: self.max + other.max }
    }
}

/// What is left of a sum when one of its parts goes.
pub(crate) fn less(sum: u128, part: u64) -> u128 {
    sum.checked_sub(part.into()).expect("a charge is released where it was made")
}
