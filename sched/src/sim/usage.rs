//! How much of a simulated worker was in use, integrated over time.

use std::collections::BTreeMap;

use sealtasks::{ResourceTable, Resources, SealTaskType};

use crate::{Millis, WorkerProfile};

/// What is in use on one worker and how much it has been.
#[derive(Debug, Default)]
pub(super) struct Usage {
    now: Amounts,
    kinds: BTreeMap<SealTaskType, u64>,
    tasks: u64,
    since: Millis,
    pub(super) area: Amounts,
    pub(super) peak: Amounts,
    /// Milliseconds with at least one task in a slot.
    pub(super) busy: u64,
}

/// Threads, bytes of memory, thousandths of GPUs; or each of them times milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amounts {
    pub(super) threads: u128,
    pub(super) memory: u128,
    pub(super) gpu: u128,
}

/// What a task of this kind takes on a worker with this profile: its own row, else the table's, else nothing.
pub(super) fn resources(profile: &WorkerProfile, table: &ResourceTable, kind: SealTaskType) -> Resources {
    let mut rows = profile.resources.iter();
    let own = rows.find(|row| row.task == kind.task && row.proof == kind.proof).map(|row| row.resources);
    own.or_else(|| table.get(kind.task, kind.proof)).unwrap_or_default()
}

impl Usage {
    /// Counts what was in use until now.
    pub(super) fn advance(&mut self, now: Millis) {
        let span = now.get().saturating_sub(self.since.get());
        let wide = u128::from(span);
        self.area.threads += self.now.threads * wide;
        self.area.memory += self.now.memory * wide;
        self.area.gpu += self.now.gpu * wide;
        if self.tasks > 0 {
            self.busy += span;
        }
        self.since = self.since.max(now);
    }

    pub(super) fn charge(&mut self, now: Millis, kind: SealTaskType, row: &Resources, on: &WorkerProfile) {
        self.advance(now);
        let count = self.kinds.entry(kind).or_default();
        *count += 1;
        let amounts = amounts(row, on, *count == 1);
        self.tasks += 1;
        self.now.threads += amounts.threads;
        self.now.memory += amounts.memory;
        self.now.gpu += amounts.gpu;
        self.peak.threads = self.peak.threads.max(self.now.threads);
        self.peak.memory = self.peak.memory.max(self.now.memory);
        self.peak.gpu = self.peak.gpu.max(self.now.gpu);
    }

    pub(super) fn release(&mut self, now: Millis, kind: SealTaskType, row: &Resources, on: &WorkerProfile) {
        self.advance(now);
        let Some(count) = self.kinds.get_mut(&kind).filter(|count| **count > 0) else { return };
        *count -= 1;
        let amounts = amounts(row, on, *count == 0);
        self.tasks -= 1;
        // Saturating: a profile that changed in between measures with another yard-stick.
        self.now.threads = self.now.threads.saturating_sub(amounts.threads);
        self.now.memory = self.now.memory.saturating_sub(amounts.memory);
        self.now.gpu = self.now.gpu.saturating_sub(amounts.gpu);
    }
}

fn amounts(row: &Resources, on: &WorkerProfile, with_base: bool) -> Amounts {
    let base = if with_base { row.base_min_memory } else { 0 };
    let gpu = if on.gpus.is_empty() { 0.0 } else { row.gpu_utilization.max(0.0) * 1000.0 };
    Amounts {
        threads: row.threads(on.cpus, on.gpus.len()).into(),
        memory: u128::from(row.min_memory) + u128::from(base),
        gpu: gpu.round() as u128,
    }
}
