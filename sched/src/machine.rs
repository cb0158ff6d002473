//! Machines that several workers share: what all of their tasks hold together, checked besides each worker's own books.
//!
//! A machine has the most of each resource that any of its workers reports, and a device for every pair of position and
//! name among their GPUs. Its load is the sum of its workers' running tallies, made anew whenever one of them changes: a
//! machine's workers are few, and a sum that is never kept cannot drift. Attempts of a lost worker count until they end,
//! for what they started may still run. Staged tasks hold no slot and are not counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::capacity::Capacity;
use crate::few::Few;
use crate::headroom::Light;
use crate::ledger::{Ask, Charge, Held, Tally};
use crate::stagger::LastStarts;
use crate::worker::Worker;
use crate::{GpuShare, GroupCap, Refusal, Sched, Shortage};

pub(crate) type MachineIdx = usize;

/// One machine with workers or with limits.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) name: String,
    /// Slots of its workers; lost ones too, until they go.
    pub(crate) members: BTreeSet<usize>,
    pub(crate) caps: Vec<GroupCap>,
    capacity: Capacity,
    /// The capacity with the memory use seen when nothing of ours ran.
    idle: Capacity,
    load: Load,
    /// The last start of each type on any of its workers.
    pub(crate) last_starts: LastStarts,
}

/// What the tasks of several tallies hold together.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) memory_min: u128,
    pub(crate) memory_max: u128,
    /// What of the memory belongs to tasks that hold neither threads nor devices.
    light: Light,
    pub(crate) threads: u128,
    /// Thousandths per device of the machine.
    pub(crate) gpus: Vec<u64>,
}

impl Load {
    pub(crate) fn add(&mut self, tally: &Tally, worker: &Worker) {
        self.memory_min += tally.memory_min();
        self.memory_max += tally.memory_max();
        self.light = self.light.and(tally.light());
        self.threads += tally.threads();
        for (device, used) in worker.devices.iter().zip(tally.gpus()) {
            if self.gpus.len() <= *device {
                self.gpus.resize(device + 1, 0);
            }
            self.gpus[*device] += used;
        }
    }

    /// The devices as a worker numbers them.
    fn gpus_of(&self, worker: &Worker) -> Vec<u64> {
        worker.devices.iter().map(|device| self.gpus.get(*device).copied().unwrap_or(0)).collect()
    }
}

impl Machine {
    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// Whether there is anybody to share with.
    pub(crate) fn is_shared(&self) -> bool {
        self.members.len() > 1
    }

    /// What one more such task on this worker is short of, given what `load` holds and the base memory it would add.
    fn shortages(
        &self,
        (worker, ask): (&Worker, &Ask),
        base: u128,
        load: &Load,
        capacity: &Capacity,
    ) -> Vec<Shortage> {
        let gpus = load.gpus_of(worker);
        let held = Held {
            memory_min: load.memory_min,
            memory_max: load.memory_max,
            threads: load.threads,
            gpus: &gpus,
            base,
            light: load.light,
        };
        let capacity = Capacity { gpus: worker.capacity.gpus, ignore: worker.capacity.ignore, ..*capacity };
        held.shortages(ask, &capacity).collect()
    }

    /// What a task is short of beside what `load` holds once nothing else of ours runs.
    pub(crate) fn shortages_beside(
        &self,
        worker: &Worker,
        ask: &Ask,
        base: u128,
        load: &Load,
    ) -> Vec<Shortage> {
        self.shortages((worker, ask), base, load, &self.idle)
    }

    fn utilization(&self) -> u64 {
        let load = &self.load;
        let gpu = load.gpus.iter().sum();
        self.capacity.utilization(load.memory_min, load.memory_max, load.threads, gpu)
    }
}

/// All machines. A position is used again after its machine has gone.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    all: Vec<Machine>,
    by_name: BTreeMap<String, MachineIdx>,
    free: Vec<MachineIdx>,
}

impl Machines {
    /// Beyond this many machines limits for further ones are refused: the largest installations have some hundreds.
    pub(crate) const MOST: usize = 1 << 16;

    pub(crate) fn get(&self, machine: MachineIdx) -> &Machine {
        &self.all[machine]
    }

    pub(crate) fn get_mut(&mut self, machine: MachineIdx) -> &mut Machine {
        &mut self.all[machine]
    }

    /// In the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Machine> {
        self.by_name.values().map(|machine| &self.all[*machine])
    }

    fn intern(&mut self, name: &str) -> MachineIdx {
        if let Some(machine) = self.by_name.get(name) {
            return *machine;
        }
        let machine = self.free.pop().unwrap_or_else(|| {
            self.all.push(Machine::default());
            self.all.len() - 1
        });
        self.all[machine].name = name.to_owned();
        self.by_name.insert(name.to_owned(), machine);
        machine
    }

    fn drop_if_empty(&mut self, machine: MachineIdx) {
        let state = &mut self.all[machine];
        if state.members.is_empty() && state.caps.is_empty() {
            self.by_name.remove(&state.name);
            *state = Machine::default();
            self.free.push(machine);
        }
    }
}

impl Sched {
    /// Replaces the limits of a machine, whether it has workers yet or not.
    pub(crate) fn machine_caps(&mut self, name: &str, caps: Vec<GroupCap>) -> Result<(), Refusal> {
        GroupCap::check(name, &caps)?;
        let (known, most) = (self.machines.by_name.contains_key(name), Machines::MOST);
        if !known && !caps.is_empty() && self.machines.by_name.len() >= most {
            return Err(Refusal::MachinesFull { machine: name.to_owned(), most });
        }
        if known || !caps.is_empty() {
            let machine = self.machines.intern(name);
            self.machines.get_mut(machine).caps = caps;
            let members: Vec<usize> = self.machines.get(machine).members.iter().copied().collect();
            members.into_iter().for_each(|member| {
                self.recall_stranded(member);
                self.count_places(member);
                self.dirty.insert(member);
            });
            self.world += 1;
            self.machines.drop_if_empty(machine);
        }
        Ok(())
    }

    /// Follows a worker's profile: which machine it is on, and what that machine therefore has.
    pub(crate) fn set_machine(&mut self, slot: usize) {
        let worker = self.workers.get(slot);
        let (before, name) = (worker.machine, worker.profile.machine.clone());
        let is_same = before.map(|machine| &self.machines.get(machine).name) == name.as_ref();
        if !is_same {
            self.leave_machine(slot);
            if let Some(name) = name {
                let machine = self.machines.intern(&name);
                self.workers.get_mut(slot).machine = Some(machine);
                // One reservation per machine: the newcomer's gives way.
                if self.kept_by(slot).is_some() {
                    self.free_reservation(slot);
                }
                self.machines.get_mut(machine).members.insert(slot);
            }
        }
        self.survey(slot);
    }

    /// Forgets that the worker is on its machine.
    pub(crate) fn leave_machine(&mut self, slot: usize) {
        let worker = self.workers.get_mut(slot);
        worker.devices.clear();
        if let Some(machine) = worker.machine.take() {
            let members = &mut self.machines.get_mut(machine).members;
            members.remove(&slot);
            if let Some(other) = members.first().copied() {
                self.survey(other);
            }
            self.machines.drop_if_empty(machine);
        }
    }

    /// Whether nothing of ours runs on the worker nor on its machine.
    pub(crate) fn is_quiet(&self, slot: usize) -> bool {
        let worker = self.workers.get(slot);
        let others = worker.machine.into_iter().flat_map(|machine| &self.machines.get(machine).members);
        worker.running.tasks() == 0
            && others.into_iter().all(|other| self.workers.get(*other).running.tasks() == 0)
    }

    /// Makes capacity, devices and load of the worker's machine anew.
    pub(crate) fn survey(&mut self, slot: usize) {
        let Some(machine) = self.workers.get(slot).machine else { return };
        let members = self.machines.get(machine).members.clone();
        let mut devices: Vec<(usize, String)> = Vec::new();
        let (mut capacity, mut idle) = (Capacity::default(), Capacity::default());
        for member in members {
            let worker = self.workers.get_mut(member);
            let names = worker.profile.gpus.iter().take(worker.capacity.gpus).enumerate();
            let place = |(position, name): (usize, &String)| {
                let known = devices.iter().position(|device| device.0 == position && device.1 == *name);
                known.unwrap_or_else(|| {
                    devices.push((position, name.clone()));
                    devices.len() - 1
                })
            };
            worker.devices = names.map(place).collect();
            if !worker.lost {
                capacity = capacity.or_more(&worker.capacity);
                idle = idle.or_more(&worker.idle);
            }
        }
        (capacity.gpus, idle.gpus) = (devices.len(), devices.len());
        let state = self.machines.get_mut(machine);
        (state.capacity, state.idle) = (capacity, idle);
        self.load_changed(slot);
        self.world += 1;
    }

    /// Adds up the worker's machine again; what fits on its workers has to be looked at anew.
    fn load_changed(&mut self, slot: usize) {
        self.dirty.insert(slot);
        let Some(machine) = self.workers.get(slot).machine else { return };
        let mut load = Load::default();
        for member in &self.machines.get(machine).members {
            let worker = self.workers.get(*member);
            load.add(&worker.running, worker);
        }
        let state = self.machines.get_mut(machine);
        state.load = load;
        self.dirty.extend(state.members.iter().copied());
    }

    /// Charges a task that gets its slot, on the worker and its machine, whether it fits or not.
    pub(crate) fn charge_running(&mut self, slot: usize, ask: &Ask) -> Charge {
        let gpus = self.pick_gpus(slot, ask);
        let worker = self.workers.get_mut(slot);
        // Then it takes of what is kept for its like and adds nothing to what counts as used, so that others may fit now.
        let is_in_use_already = ask.is_light() && worker.running.memory_max() < worker.capacity.used();
        let charge = worker.running.charge_on(ask, gpus);
        if worker.machine.is_none() && is_in_use_already {
            self.dirty.insert(slot);
        } else if worker.machine.is_none() {
            self.fuller.push(slot);
        } else {
            self.load_changed(slot);
        }
        charge
    }

    /// Gives back what [`Self::charge_running`] charged.
    pub(crate) fn release_running(&mut self, slot: usize, charge: Charge) {
        self.workers.get_mut(slot).running.release(charge);
        self.load_changed(slot);
    }

    /// The devices that one more such task gets: those that are free on the whole machine.
    pub(crate) fn pick_gpus(&self, slot: usize, ask: &Ask) -> Few<GpuShare> {
        let worker = self.workers.get(slot);
        let held = worker.running.held(ask);
        match self.shared_machine(slot) {
            None => held.pick_gpus(ask, &worker.capacity),
            Some(machine) => {
                let gpus = machine.load.gpus_of(worker);
                Held { gpus: &gpus, ..held }.pick_gpus(ask, &worker.capacity)
            }
        }
    }

    /// The worker's machine, if it shares it.
    pub(crate) fn shared_machine(&self, slot: usize) -> Option<&Machine> {
        let machine = self.workers.get(slot).machine?;
        Some(self.machines.get(machine)).filter(|machine| machine.is_shared())
    }

    /// What one more such task is short of on the machine that the worker shares; empty: it fits, or nothing is shared.
    pub(crate) fn machine_shortages(&self, slot: usize, ask: &Ask) -> Vec<Shortage> {
        let Some(machine) = self.shared_machine(slot) else { return Vec::new() };
        let worker = self.workers.get(slot);
        let base = worker.running.held(ask).base;
        machine.shortages((worker, ask), base, &machine.load, &machine.capacity)
    }

    /// How much of the worker or of its machine is used, whichever is more, in millionths.
    pub(crate) fn utilization(&self, slot: usize) -> u64 {
        let worker = self.workers.get(slot);
        let machine = self.shared_machine(slot).map_or(0, Machine::utilization);
        worker.running.utilization(&worker.capacity).max(machine)
    }
}
