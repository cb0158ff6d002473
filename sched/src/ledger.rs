//! What runs on a worker and what still fits: Lotus's resource check, in its order and with its answers, but with base
//! memory counted once per task type, GPUs counted per device, and no arithmetic that wraps.
//!
//! A charge is a value that is not copied: it is made by [`Tally::charge`] and consumed by [`Tally::release`], so that
//! nothing can be released twice.

use std::collections::BTreeMap;
use std::fmt;

use sealtasks::{Resources, SealTaskType};
use serde::{Deserialize, Serialize};

use crate::{GpuShare, WorkerProfile};

/// One whole GPU, in the ledger's unit.
pub(crate) const GPU_WHOLE: u64 = 1000;

/// What tasks hold on one worker. Sums are 128 bits wide: even foreign 64-bit numbers cannot overflow them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    mem_min: u128,
    mem_max: u128,
    base: u128,
    threads: u128,
    gpus: Vec<u64>,
    kinds: BTreeMap<SealTaskType, KindUse>,
    tasks: usize,
}

#[derive(Clone, Copy, Debug)]
struct KindUse {
    tasks: u64,
    base: u64,
}

/// What one task holds. Consumed when it is released.
#[derive(Debug)]
#[must_use]
pub(crate) struct Charge {
    kind: SealTaskType,
    mem_min: u64,
    mem_max: u64,
    threads: u64,
    gpus: Vec<GpuShare>,
}

impl Charge {
    pub(crate) fn gpus(&self) -> &[GpuShare] {
        &self.gpus
    }

    pub(crate) fn threads(&self) -> u64 {
        self.threads
    }
}

/// What one task of one kind asks of one worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    kind: SealTaskType,
    mem_min: u64,
    mem_max: u64,
    base: u64,
    threads: u64,
    gpu: u64,
    tasks_max: Option<u64>,
    type_max: Option<u64>,
}

impl Ask {
    /// What `resources` mean on this worker.
    pub(crate) fn new(
        kind: SealTaskType,
        resources: &Resources,
        capacity: &Capacity,
        type_max: Option<u32>,
    ) -> Self {
        // A negative or nonsensical fraction asks for no GPU; `as` saturates.
        let gpu = if resources.gpu_utilization > 0.0 {
            (resources.gpu_utilization * GPU_WHOLE as f64).round() as u64
        } else {
            0
        };
        Self {
            kind,
            mem_min: resources.min_memory,
            mem_max: resources.max_memory,
            base: resources.base_min_memory,
            threads: resources.threads(capacity.cpus, capacity.gpus),
            gpu,
            tasks_max: (resources.max_concurrent > 0).then_some(resources.max_concurrent),
            type_max: type_max.map(u64::from),
        }
    }

    /// Whether it holds neither threads nor devices: Finalize, Fetch, Commit1.
    pub(crate) fn is_light(&self) -> bool {
        self.threads == 0 && self.gpu == 0
    }
}

/// What a worker has, clamped to what the ledger can count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    pub(crate) mem_physical: u64,
    pub(crate) mem_swap: u64,
    pub(crate) mem_used: u64,
    pub(crate) swap_used: u64,
    pub(crate) cpus: u64,
    pub(crate) gpus: usize,
    pub(crate) ignore: bool,
}

impl Capacity {
    pub(crate) fn of(profile: &WorkerProfile) -> Self {
        Self {
            mem_physical: profile.mem_physical,
            mem_swap: profile.mem_swap,
            mem_used: profile.mem_used,
            swap_used: profile.swap_used,
            cpus: profile.cpus.min(WorkerProfile::CPUS_MAX),
            gpus: profile.gpus.len().min(WorkerProfile::GPUS_MAX),
            ignore: profile.ignore_resources,
        }
    }

    fn with_swap(&self) -> u128 {
        u128::from(self.mem_physical) + u128::from(self.mem_swap)
    }

    fn used(&self) -> u128 {
        u128::from(self.mem_used) + u128::from(self.swap_used)
    }
}

/// A resource that is short, with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "resource", rename_all = "snake_case")]
pub enum Shortage {
    /// As many tasks of this type and size run as may.
    Concurrency {
        /// Running now.
        running: u64,
        /// The limit.
        most: u64,
    },
    /// RAM, in bytes.
    Memory {
        /// The task's minimum and its type's base memory where that is not there yet.
        needs: u128,
        /// Not promised to running tasks.
        free: u128,
        /// All of it.
        total: u128,
    },
    /// RAM and swap together, in bytes.
    MemoryAndSwap {
        /// The task's maximum and its type's base memory where that is not there yet.
        needs: u128,
        /// Neither promised to running tasks nor in use.
        free: u128,
        /// All of it.
        total: u128,
    },
    /// CPU threads.
    Threads {
        /// The task's.
        needs: u64,
        /// Not promised to running tasks.
        free: u128,
        /// All of them.
        total: u64,
    },
    /// GPUs, in thousandths of one.
    Gpu {
        /// The task's.
        needs: u64,
        /// Thousandths not promised, over all devices.
        free: u64,
        /// How many devices.
        devices: usize,
    },
}

type Check = fn(&Tally, &Ask, &Capacity) -> Option<Shortage>;

/// After the cap checks a worker that ignores resources accepts everything.
const CAP_CHECKS: [Check; 2] = [Tally::short_of_tasks, Tally::short_of_type];
const RESOURCE_CHECKS: [Check; 4] =
    [Tally::short_of_memory, Tally::short_of_swap, Tally::short_of_threads, Tally::short_of_gpu];

impl Tally {
    /// Everything that one more such task is short of, in Lotus's order; empty: it fits.
    pub(crate) fn shortages<'a>(
        &'a self,
        ask: &'a Ask,
        capacity: &'a Capacity,
    ) -> impl Iterator<Item = Shortage> + 'a {
        let resources: &[Check] = if capacity.ignore { &[] } else { &RESOURCE_CHECKS };
        CAP_CHECKS.iter().chain(resources).filter_map(move |check| check(self, ask, capacity))
    }

    /// Whether one more such task fits.
    pub(crate) fn fits(&self, ask: &Ask, capacity: &Capacity) -> bool {
        self.shortages(ask, capacity).next().is_none()
    }

    /// Charges one task, whether it fits or not: an adopted task is there all the same.
    pub(crate) fn charge(&mut self, ask: &Ask, capacity: &Capacity) -> Charge {
        let gpus = if ask.gpu == 0 || capacity.gpus == 0 {
            Vec::new()
        } else {
            self.pick_gpus(ask.gpu, capacity.gpus)
        };
        for share in &gpus {
            if self.gpus.len() <= share.device {
                self.gpus.resize(share.device + 1, 0);
            }
            self.gpus[share.device] += share.thousandths;
        }
        self.mem_min += u128::from(ask.mem_min);
        self.mem_max += u128::from(ask.mem_max);
        self.threads += u128::from(ask.threads);
        self.tasks += 1;
        let base = &mut self.base;
        let kind = self.kinds.entry(ask.kind).or_insert_with(|| {
            *base += u128::from(ask.base);
            KindUse { tasks: 0, base: ask.base }
        });
        kind.tasks += 1;
        Charge { kind: ask.kind, mem_min: ask.mem_min, mem_max: ask.mem_max, threads: ask.threads, gpus }
    }

    /// Gives back what one task held.
    ///
    /// # Panics
    /// If the charge was made on another tally: that would be a defect of the scheduler itself.
    pub(crate) fn release(&mut self, charge: Charge) {
        let kind = self.kinds.get_mut(&charge.kind).expect("a charge is released where it was made");
        kind.tasks -= 1;
        if kind.tasks == 0 {
            self.base -= u128::from(kind.base);
            self.kinds.remove(&charge.kind);
        }
        for share in &charge.gpus {
            let used = &mut self.gpus[share.device];
            *used = used.checked_sub(share.thousandths).expect("a charge is released where it was made");
        }
        let less = |sum: u128, part: u64| {
            sum.checked_sub(part.into()).expect("a charge is released where it was made")
        };
        self.mem_min = less(self.mem_min, charge.mem_min);
        self.mem_max = less(self.mem_max, charge.mem_max);
        self.threads = less(self.threads, charge.threads);
        self.tasks -= 1;
    }

    /// How many tasks are charged.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks
    }

    /// RAM in bytes, base memory included.
    pub(crate) fn memory_min(&self) -> u128 {
        self.mem_min + self.base
    }

    /// RAM and swap in bytes, base memory included.
    pub(crate) fn memory_max(&self) -> u128 {
        self.mem_max + self.base
    }

    /// CPU threads.
    pub(crate) fn threads(&self) -> u128 {
        self.threads
    }

    /// Thousandths per device; devices never used may be missing at the end.
    pub(crate) fn gpus(&self) -> &[u64] {
        &self.gpus
    }

    /// Tasks per kind.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (SealTaskType, u64)> + '_ {
        self.kinds.iter().map(|(kind, used)| (*kind, used.tasks))
    }

    /// Lotus's utilization in millionths: the largest share of CPU, RAM, RAM with swap, and GPU. What the machine itself
    /// reports as used counts where it is more than what tasks hold.
    pub(crate) fn utilization(&self, capacity: &Capacity) -> u64 {
        let gpu_used: u64 = self.gpus.iter().sum();
        let shares = [
            (self.threads, u128::from(capacity.cpus)),
            (self.memory_min().max(capacity.mem_used.into()), u128::from(capacity.mem_physical)),
            (self.memory_max().max(capacity.used()), capacity.with_swap()),
            (gpu_used.into(), u128::from(GPU_WHOLE) * capacity.gpus as u128),
        ];
        let share =
            |(used, total): &(u128, u128)| used.saturating_mul(1_000_000).checked_div(*total).unwrap_or(0);
        shares.iter().map(share).max().map_or(0, |most| u64::try_from(most).unwrap_or(u64::MAX))
    }

    fn base_needed(&self, ask: &Ask) -> u128 {
        if self.kinds.contains_key(&ask.kind) { 0 } else { ask.base.into() }
    }

    fn short_of_tasks(&self, ask: &Ask, _: &Capacity) -> Option<Shortage> {
        let most = ask.tasks_max?;
        let running = self.kinds.get(&ask.kind).map_or(0, |used| used.tasks);
        (running >= most).then_some(Shortage::Concurrency { running, most })
    }

    fn short_of_type(&self, ask: &Ask, _: &Capacity) -> Option<Shortage> {
        let most = ask.type_max?;
        let same_type = self.kinds.iter().filter(|(kind, _)| kind.task == ask.kind.task);
        let running = same_type.map(|(_, used)| used.tasks).sum();
        (running >= most).then_some(Shortage::Concurrency { running, most })
    }

    /// What the system itself uses is not looked at: it is assumed to be swappable (as in Lotus).
    fn short_of_memory(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        let needs = u128::from(ask.mem_min) + self.base_needed(ask);
        let total = u128::from(capacity.mem_physical);
        let free = total.saturating_sub(self.memory_min());
        (needs > free).then_some(Shortage::Memory { needs, free, total })
    }

    /// Lotus's subtraction wraps when a machine reports more memory used than it has, and the check then passes. Here
    /// that is no free memory.
    fn short_of_swap(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        let needs = u128::from(ask.mem_max) + self.base_needed(ask);
        let total = capacity.with_swap();
        let free = total.saturating_sub(self.memory_max().max(capacity.used()));
        (needs > free).then_some(Shortage::MemoryAndSwap { needs, free, total })
    }

    fn short_of_threads(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        let free = u128::from(capacity.cpus).saturating_sub(self.threads);
        (u128::from(ask.threads) > free && ask.threads > 0).then_some(Shortage::Threads {
            needs: ask.threads,
            free,
            total: capacity.cpus,
        })
    }

    /// On a worker without GPUs the CPU does the work.
    fn short_of_gpu(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        if ask.gpu == 0 || capacity.gpus == 0 || self.try_gpus(ask.gpu, capacity.gpus).is_some() {
            return None;
        }
        let free = (0..capacity.gpus).map(|device| self.gpu_free(device)).sum();
        Some(Shortage::Gpu { needs: ask.gpu, free, devices: capacity.gpus })
    }

    fn gpu_free(&self, device: usize) -> u64 {
        GPU_WHOLE.saturating_sub(self.gpus.get(device).copied().unwrap_or(0))
    }

    /// Whole devices that are idle, and for the fraction the fullest device it fits on, so that idle ones stay whole.
    fn try_gpus(&self, gpu: u64, devices: usize) -> Option<Vec<GpuShare>> {
        let (whole, fraction) = (gpu / GPU_WHOLE, gpu % GPU_WHOLE);
        if whole > devices as u64 {
            return None;
        }
        let for_fraction = match fraction {
            0 => None,
            _ => {
                let fitting = (0..devices).filter(|device| self.gpu_free(*device) >= fraction);
                Some(fitting.min_by_key(|device| self.gpu_free(*device))?)
            }
        };
        let idle = (0..devices)
            .filter(|device| self.gpu_free(*device) == GPU_WHOLE && Some(*device) != for_fraction);
        let mut shares: Vec<_> =
            idle.take(whole as usize).map(|device| GpuShare { device, thousandths: GPU_WHOLE }).collect();
        if (shares.len() as u64) < whole {
            return None;
        }
        shares.extend(for_fraction.map(|device| GpuShare { device, thousandths: fraction }));
        Some(shares)
    }

    /// As [`Self::try_gpus`], but when nothing fits the emptiest devices take what is asked, as far as there are devices.
    fn pick_gpus(&self, gpu: u64, devices: usize) -> Vec<GpuShare> {
        self.try_gpus(gpu, devices).unwrap_or_else(|| {
            let mut emptiest: Vec<usize> = (0..devices).collect();
            emptiest.sort_by_key(|device| self.gpus.get(*device).copied().unwrap_or(0));
            let mut left = gpu;
            let mut take = |device| {
                let thousandths = left.min(GPU_WHOLE);
                left -= thousandths;
                GpuShare { device, thousandths }
            };
            emptiest.into_iter().map(&mut take).filter(|share| share.thousandths > 0).collect()
        })
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency { running, most } => {
                write!(f, "runs {running} of this type, at most {most} may")
            }
            Self::Memory { needs, free, total } => {
                write!(f, "needs {} of memory, {} free of {}", Bytes(*needs), Bytes(*free), Bytes(*total))
            }
            Self::MemoryAndSwap { needs, free, total } => {
                write!(
                    f,
                    "needs {} of memory and swap, {} free of {}",
                    Bytes(*needs),
                    Bytes(*free),
                    Bytes(*total)
                )
            }
            Self::Threads { needs, free, total } => {
                write!(f, "needs {needs} CPU threads, {free} free of {total}")
            }
            Self::Gpu { needs, free, devices } => {
                write!(f, "needs {} GPUs, {} free of {devices}", Thousandths(*needs), Thousandths(*free))
            }
        }
    }
}

/// Bytes in the largest binary unit, with one decimal where it is not whole.
pub(crate) struct Bytes(pub(crate) u128);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let unit = (0..UNITS.len()).rev().find(|unit| self.0 >> (10 * unit) > 0).unwrap_or(0);
        let tenths = (self.0.saturating_mul(10)) >> (10 * unit);
        match tenths % 10 {
            0 => write!(f, "{} {}", tenths / 10, UNITS[unit]),
            part => write!(f, "{}.{part} {}", tenths / 10, UNITS[unit]),
        }
    }
}

struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % GPU_WHOLE {
            0 => write!(f, "{}", self.0 / GPU_WHOLE),
            part => write!(f, "{}.{part:03}", self.0 / GPU_WHOLE),
        }
    }
}
