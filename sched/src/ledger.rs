//! What runs on a worker and what still fits: Lotus's resource check, in its order and with its answers, but with base
//! memory counted once per task type, GPUs counted per device, and no arithmetic that wraps.
//!
//! A charge is a value that is not copied: it is made by [`Tally::charge`] and consumed by [`Tally::release`], so that
//! nothing can be released twice.

use sealtasks::{Resources, SealTaskType, TaskType};

use crate::capacity::Capacity;
use crate::devices::{self, GPU_WHOLE};
use crate::few::Few;
use crate::flat::Flat;
use crate::headroom::{Headroom, Light, less};
use crate::shortage::told;
use crate::{GpuShare, Shortage};

/// What tasks hold on one worker. Sums are 128 bits wide: even foreign 64-bit numbers cannot overflow them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    mem_min: u128,
    mem_max: u128,
    base: u128,
    /// What of these sums belongs to tasks that hold neither threads nor devices, base memory included.
    light: Light,
    threads: u128,
    gpus: Vec<u64>,
    kinds: Flat<SealTaskType, KindUse>,
    /// Tasks per type, whatever their size.
    types: [u32; TaskType::ALL.len()],
    tasks: usize,
}

#[derive(Clone, Copy, Debug)]
struct KindUse {
    base: u64,
    tasks: u32,
    is_light: bool,
}

/// What one task holds. Consumed when it is released.
#[derive(Debug)]
#[must_use]
pub(crate) struct Charge {
    kind: SealTaskType,
    mem_min: u64,
    mem_max: u64,
    threads: u64,
    gpus: Few<GpuShare>,
    is_light: bool,
}

impl Charge {
    pub(crate) fn gpus(&self) -> &[GpuShare] {
        &self.gpus
    }

    pub(crate) fn threads(&self) -> u64 {
        self.threads
    }

    /// Whether it holds neither threads nor devices.
    pub(crate) fn is_light(&self) -> bool {
        self.is_light
    }
}

/// What one task of one kind asks of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask {
    kind: SealTaskType,
    mem_min: u64,
    mem_max: u64,
    base: u64,
    threads: u64,
    gpu: u64,
    tasks_max: Option<u64>,
    type_max: Option<u64>,
    headroom: Headroom,
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
            headroom: Headroom::default(),
        }
    }

    /// The same task, which leaves so much free beside others.
    pub(crate) fn leaving(self, headroom: Headroom) -> Self {
        Self { headroom, ..self }
    }

    /// The RAM, and the RAM and swap, that one such task takes with its type's base memory.
    pub(crate) fn memory_alone(&self) -> (u64, u64) {
        (self.mem_min.saturating_add(self.base), self.mem_max.saturating_add(self.base))
    }

    /// How many such tasks fit in the memory of a machine that does nothing else and leaves this much free.
    pub(crate) fn most_in_memory(&self, capacity: &Capacity, headroom: Headroom) -> u64 {
        let fit = |total: u128, left: u64, each: u64| {
            let free = total.saturating_sub(left.into()).saturating_sub(self.base.into());
            free.checked_div(each.into()).map_or(u64::MAX, told)
        };
        let in_ram = fit(capacity.mem_physical.into(), headroom.min, self.mem_min);
        in_ram.min(fit(capacity.with_swap(), headroom.max, self.mem_max))
    }

    /// How many such tasks fit on the devices of a machine that does nothing else.
    pub(crate) fn most_on_gpus(&self, capacity: &Capacity) -> u64 {
        if self.gpu == 0 || capacity.gpus == 0 {
            return u64::MAX;
        }
        match GPU_WHOLE / self.gpu {
            // Parts of whole devices.
            0 => capacity.gpus as u64 / self.gpu.div_ceil(GPU_WHOLE),
            on_each => on_each.saturating_mul(capacity.gpus as u64),
        }
    }

    /// How many such tasks may run on the worker, whatever it has.
    pub(crate) fn most_allowed(&self) -> u64 {
        self.tasks_max.into_iter().chain(self.type_max).min().unwrap_or(u64::MAX)
    }

    /// CPU threads.
    pub(crate) fn threads(&self) -> u64 {
        self.threads
    }

    /// The task's type and size.
    pub(crate) fn kind(&self) -> SealTaskType {
        self.kind
    }

    /// The task's type.
    pub(crate) fn task(&self) -> TaskType {
        self.kind.task
    }

    /// Whether it holds neither threads nor devices: Finalize, Fetch, Commit1.
    pub(crate) fn is_light(&self) -> bool {
        self.threads == 0 && self.gpu == 0
    }
}

/// What is held already, as the resource check sees it: by the tasks of one worker, or of all workers of its machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    pub(crate) memory_min: u128,
    pub(crate) memory_max: u128,
    pub(crate) threads: u128,
    /// Thousandths per device, by the worker's own positions; devices never used may be missing at the end.
    pub(crate) gpus: &'a [u64],
    /// The base memory that one more such task would add.
    pub(crate) base: u128,
    /// What of the memory belongs to tasks that hold neither threads nor devices.
    pub(crate) light: Light,
}

type Check<'h> = fn(&Held<'h>, &Ask, &Capacity) -> Option<Shortage>;

impl<'h> Held<'h> {
    /// The resources that one more such task is short of, in Lotus's order.
    pub(crate) fn shortages(self, ask: &Ask, capacity: &Capacity) -> impl Iterator<Item = Shortage> {
        // A worker that ignores resources accepts everything.
        let checks: [Check<'h>; 4] =
            [Self::short_of_memory, Self::short_of_swap, Self::short_of_threads, Self::short_of_gpu];
        checks.into_iter().filter(|_| !capacity.ignore).filter_map(move |check| check(&self, ask, capacity))
    }

    /// Whether it is short of none. The order does not matter for this: what is short most often comes first.
    fn fits(&self, ask: &Ask, capacity: &Capacity) -> bool {
        capacity.ignore
            || self.short_of_threads(ask, capacity).is_none()
                && self.short_of_memory(ask, capacity).is_none()
                && self.short_of_swap(ask, capacity).is_none()
                && self.short_of_gpu(ask, capacity).is_none()
    }

    /// What the system itself uses is not looked at: it is assumed to be swappable (as in Lotus).
    fn short_of_memory(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        let needs = u128::from(ask.mem_min) + self.base;
        let total = u128::from(capacity.mem_physical);
        let free = total.saturating_sub(self.memory_min);
        let kept = self.kept(ask.headroom.min, self.light.min);
        (needs > 0 && needs + kept > free).then(|| Shortage::Memory {
            needs: told(needs),
            free: told(free),
            kept: told(kept),
            total: told(total),
        })
    }

    /// Lotus's subtraction wraps when a machine reports more memory used than it has, and the check then passes. Here
    /// that is no free memory.
    fn short_of_swap(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        let needs = u128::from(ask.mem_max) + self.base;
        let total = capacity.with_swap();
        let free = total.saturating_sub(self.memory_max.max(capacity.used()));
        let kept = self.kept(ask.headroom.max, self.light.max);
        (needs > 0 && needs + kept > free).then(|| Shortage::MemoryAndSwap {
            needs: told(needs),
            free: told(free),
            kept: told(kept),
            total: told(total),
        })
    }

    /// What of its headroom one more task has to leave free: nothing while nothing long runs, and nothing for small tasks
    /// that run.
    fn kept(&self, headroom: u64, light: u128) -> u128 {
        let runs_long = self.threads > 0 || self.gpus.iter().any(|used| *used > 0);
        if runs_long { u128::from(headroom).saturating_sub(light) } else { 0 }
    }

    fn short_of_threads(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        let free = u128::from(capacity.cpus).saturating_sub(self.threads);
        (u128::from(ask.threads) > free && ask.threads > 0).then_some(Shortage::Threads {
            needs: ask.threads,
            free: told(free),
            total: capacity.cpus,
        })
    }

    /// On a worker without GPUs the CPU does the work.
    fn short_of_gpu(&self, ask: &Ask, capacity: &Capacity) -> Option<Shortage> {
        if ask.gpu == 0 || capacity.gpus == 0 || devices::fits(self.gpus, ask.gpu, capacity.gpus) {
            return None;
        }
        let free = (0..capacity.gpus).map(|device| devices::free(self.gpus, device)).sum();
        Some(Shortage::Gpu { needs: ask.gpu, free, devices: capacity.gpus })
    }

    /// The devices that one more such task gets, whether it fits or not.
    pub(crate) fn pick_gpus(&self, ask: &Ask, capacity: &Capacity) -> Few<GpuShare> {
        if ask.gpu == 0 || capacity.gpus == 0 {
            return Few::None;
        }
        devices::forced(self.gpus, ask.gpu, capacity.gpus)
    }
}

impl Tally {
    /// Everything that one more such task is short of, in Lotus's order; empty: it fits.
    pub(crate) fn shortages<'a>(
        &'a self,
        ask: &'a Ask,
        capacity: &'a Capacity,
    ) -> impl Iterator<Item = Shortage> + 'a {
        let caps = [self.short_of_tasks(ask), self.short_of_type(ask)];
        caps.into_iter().flatten().chain(self.held(ask).shortages(ask, capacity))
    }

    /// What the resource check sees.
    pub(crate) fn held(&self, ask: &Ask) -> Held<'_> {
        self.held_with(self.base_needed(ask))
    }

    fn held_with(&self, base: u128) -> Held<'_> {
        Held {
            memory_min: self.memory_min(),
            memory_max: self.memory_max(),
            threads: self.threads,
            gpus: &self.gpus,
            base,
            light: self.light,
        }
    }

    /// Whether one more such task fits.
    pub(crate) fn fits(&self, ask: &Ask, capacity: &Capacity) -> bool {
        // What costs least to know comes first: most often the answer is no.
        if self.short_of_type(ask).is_some() {
            return false;
        }
        let without_base = self.held_with(0);
        if !capacity.ignore && without_base.short_of_threads(ask, capacity).is_some() {
            return false;
        }
        if self.short_of_tasks(ask).is_some() {
            return false;
        }
        // Whether its base memory is there already is looked up only where that decides.
        let with_base = Held { base: ask.base.into(), ..without_base };
        with_base.fits(ask, capacity)
            || ask.base > 0 && without_base.fits(ask, capacity) && self.base_needed(ask) == 0
    }

    /// Whether one more such task would fit if one of another kind, which holds threads or devices, were charged first. As if
    /// that were charged to a copy, without making one.
    pub(crate) fn fits_beside(&self, first: &Ask, ask: &Ask, capacity: &Capacity) -> bool {
        debug_assert!(first.kind != ask.kind && !first.is_light(), "else it would count in other sums, too");
        let running = u64::from(self.types[ask.task() as usize]) + u64::from(first.task() == ask.task());
        if ask.type_max.is_some_and(|most| running >= most) || self.short_of_tasks(ask).is_some() {
            return false;
        }
        let (before, base) = (self.held(first), self.base_needed(first));
        let mut beside = Held {
            memory_min: before.memory_min + u128::from(first.mem_min) + base,
            memory_max: before.memory_max + u128::from(first.mem_max) + base,
            threads: before.threads + u128::from(first.threads),
            base: self.base_needed(ask),
            ..before
        };
        let shares = before.pick_gpus(first, capacity);
        if shares.is_empty() {
            return beside.fits(ask, capacity);
        }
        let mut gpus = self.gpus.clone();
        for share in &shares {
            gpus.resize(gpus.len().max(share.device + 1), 0);
            gpus[share.device] += share.thousandths;
        }
        beside.gpus = &gpus;
        beside.fits(ask, capacity)
    }

    /// Charges one task, whether it fits or not: an adopted task is there all the same.
    pub(crate) fn charge(&mut self, ask: &Ask, capacity: &Capacity) -> Charge {
        let gpus = self.held(ask).pick_gpus(ask, capacity);
        self.charge_on(ask, gpus)
    }

    /// As [`Self::charge`], on devices that were picked before.
    pub(crate) fn charge_on(&mut self, ask: &Ask, gpus: Few<GpuShare>) -> Charge {
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
        let is_light = ask.is_light();
        let (base, light) = (&mut self.base, &mut self.light);
        let kind = self.kinds.get_or_insert_with(ask.kind, || {
            *base += u128::from(ask.base);
            if is_light {
                light.add(ask.base, ask.base);
            }
            KindUse { tasks: 0, base: ask.base, is_light }
        });
        kind.tasks += 1;
        self.types[ask.task() as usize] += 1;
        if is_light {
            light.add(ask.mem_min, ask.mem_max);
        }
        let (mem_min, mem_max) = (ask.mem_min, ask.mem_max);
        Charge { kind: ask.kind, mem_min, mem_max, threads: ask.threads, gpus, is_light }
    }

    /// Gives back what one task held.
    ///
    /// # Panics
    /// If the charge was made on another tally: that would be a defect of the scheduler itself.
    pub(crate) fn release(&mut self, charge: Charge) {
        self.discount(&charge);
    }

    /// As [`Tally::release`], for a copy of a tally that asks what would be: the charge itself stays where it was made.
    ///
    /// # Panics
    /// If the charge was made on another tally.
    pub(crate) fn discount(&mut self, charge: &Charge) {
        let kind = self.kinds.get_mut(charge.kind).expect("a charge is released where it was made");
        kind.tasks -= 1;
        self.types[charge.kind.task as usize] -= 1;
        if charge.is_light {
            self.light.take(charge.mem_min, charge.mem_max);
        }
        if kind.tasks == 0 {
            self.base -= u128::from(kind.base);
            if kind.is_light {
                self.light.take(kind.base, kind.base);
            }
            self.kinds.remove(charge.kind);
        }
        for share in &charge.gpus {
            let used = &mut self.gpus[share.device];
            *used = used.checked_sub(share.thousandths).expect("a charge is released where it was made");
        }
        self.mem_min = less(self.mem_min, charge.mem_min);
        self.mem_max = less(self.mem_max, charge.mem_max);
        self.threads = less(self.threads, charge.threads);
        self.tasks -= 1;
    }

    /// Reads it, so that it is at hand.
    pub(crate) fn touch(&self) {
        self.kinds.touch();
    }

    /// How many tasks are charged.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks
    }

    /// What of the memory belongs to tasks that hold neither threads nor devices.
    pub(crate) fn light(&self) -> Light {
        self.light
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
        self.kinds.iter().map(|(kind, used)| (kind, used.tasks.into()))
    }

    /// How many of one type and size.
    pub(crate) fn count_kind(&self, kind: SealTaskType) -> u64 {
        self.kinds.get(kind).map_or(0, |used| used.tasks.into())
    }

    /// How many of some types.
    pub(crate) fn count(&self, which: impl Fn(TaskType) -> bool) -> u64 {
        let used = TaskType::ALL.iter().zip(self.types).filter(|(_, tasks)| *tasks > 0);
        used.filter(|(task, _)| which(**task)).map(|(_, tasks)| u64::from(tasks)).sum()
    }

    /// Lotus's utilization in millionths.
    pub(crate) fn utilization(&self, capacity: &Capacity) -> u64 {
        capacity.utilization(self.memory_min(), self.memory_max(), self.threads, self.gpus.iter().sum())
    }

    fn base_needed(&self, ask: &Ask) -> u128 {
        if ask.base == 0 || self.kinds.get(ask.kind).is_some() { 0 } else { ask.base.into() }
    }

    fn short_of_tasks(&self, ask: &Ask) -> Option<Shortage> {
        let most = ask.tasks_max?;
        let running = self.count_kind(ask.kind);
        (running >= most).then_some(Shortage::Concurrency { running, most })
    }

    fn short_of_type(&self, ask: &Ask) -> Option<Shortage> {
        let most = ask.type_max?;
        let running = self.types[ask.task() as usize].into();
        (running >= most).then_some(Shortage::Concurrency { running, most })
    }
}
