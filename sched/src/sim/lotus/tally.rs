//! Lotus's resource check and what it sums up: floating-point GPUs, base memory asked anew by each task and kept by none,
//! subtractions that wrap. Faithful where our own ledger differs on purpose.

use sealtasks::Resources;

use crate::WorkerProfile;

/// What a machine has, as its worker said when it registered; Lotus never asks again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    mem_physical: u64,
    mem_total: u64,
    mem_used: u64,
    used_total: u64,
    cpus: u64,
    pub(super) gpus: usize,
    ignore: bool,
}

/// What one task of one type and size takes on one machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spec {
    mem_min: u64,
    mem_max: u64,
    base: u64,
    threads: u64,
    pub(super) gpu: f64,
    /// At most so many at once; 0 = no limit.
    pub(super) most: u64,
}

/// The sum of what tasks hold. Which tasks they are is counted by whoever keeps the tally.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    mem_min: u64,
    mem_max: u64,
    threads: u64,
    gpu: f64,
}

impl Machine {
    pub(super) fn of(profile: &WorkerProfile) -> Self {
        Self {
            mem_physical: profile.mem_physical,
            mem_total: profile.mem_physical.saturating_add(profile.mem_swap),
            mem_used: profile.mem_used,
            used_total: profile.mem_used.saturating_add(profile.swap_used),
            cpus: profile.cpus.min(WorkerProfile::CPUS_MAX),
            gpus: profile.gpus.len().min(WorkerProfile::GPUS_MAX),
            ignore: profile.ignore_resources,
        }
    }
}

impl Spec {
    /// `cap` is the operator's limit on the type, which Lotus has as `MAX_CONCURRENT`; the smaller of both holds.
    pub(super) fn of(resources: &Resources, machine: &Machine, cap: Option<u32>) -> Self {
        let most = match (resources.max_concurrent, cap.map(u64::from)) {
            (0, cap) => cap.unwrap_or(0),
            (most, cap) => cap.map_or(most, |cap| cap.min(most)),
        };
        Self {
            mem_min: resources.min_memory,
            mem_max: resources.max_memory,
            base: resources.base_min_memory,
            threads: resources.threads(machine.cpus, machine.gpus),
            gpu: resources.gpu_utilization.max(0.0),
            most,
        }
    }
}

impl Spec {
    pub(super) fn threads(&self) -> u64 {
        self.threads
    }

    /// The same needs under another limit on how many run at once.
    pub(super) fn limited_as(self, other: &Self) -> Self {
        Self { most: other.most, ..self }
    }
}

impl Tally {
    /// Lotus's `CanHandleRequest`. `others` counts the tasks of the same type and size that are there already.
    pub(super) fn fits(&self, spec: &Spec, machine: &Machine, others: u64) -> bool {
        if spec.most > 0 && others >= spec.most {
            return false;
        }
        if machine.ignore {
            return true;
        }
        let ram = machine.mem_physical.wrapping_sub(self.mem_min);
        let with_swap = machine.mem_total.wrapping_sub(self.mem_max.max(machine.used_total));
        spec.mem_min.saturating_add(spec.base) <= ram
            && spec.mem_max.saturating_add(spec.base) <= with_swap
            && self.threads.saturating_add(spec.threads) <= machine.cpus
            && (machine.gpus == 0 || spec.gpu <= 0.0 || self.gpu + spec.gpu <= machine.gpus as f64)
    }

    /// Adds one task and returns by how much the utilization grew.
    pub(super) fn add(&mut self, spec: &Spec, machine: &Machine) -> f64 {
        let before = self.utilization(machine);
        self.mem_min = self.mem_min.saturating_add(spec.mem_min);
        self.mem_max = self.mem_max.saturating_add(spec.mem_max);
        self.threads = self.threads.saturating_add(spec.threads);
        self.gpu += spec.gpu;
        self.utilization(machine) - before
    }

    /// Takes away one task that was added.
    pub(super) fn free(&mut self, spec: &Spec) {
        self.mem_min = self.mem_min.saturating_sub(spec.mem_min);
        self.mem_max = self.mem_max.saturating_sub(spec.mem_max);
        self.threads = self.threads.saturating_sub(spec.threads);
        self.gpu -= spec.gpu;
    }

    /// The largest share of CPU, RAM, RAM with swap, and GPU; what the system itself uses counts in every tally.
    pub(super) fn utilization(&self, machine: &Machine) -> f64 {
        let share = |used: f64, total: f64| if total > 0.0 { used / total } else { 0.0 };
        let ram = share(self.mem_min.max(machine.mem_used) as f64, machine.mem_physical as f64);
        let with_swap = share(self.mem_max.max(machine.used_total) as f64, machine.mem_total as f64);
        let cpu = share(self.threads as f64, machine.cpus as f64);
        cpu.max(ram).max(with_swap).max(share(self.gpu, machine.gpus as f64))
    }
}
