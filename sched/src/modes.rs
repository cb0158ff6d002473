//! What operators allow: modes of workers, limits per machine, the policy. Facts only; what follows is settled elsewhere.

use crate::{GroupCap, Policy, Refusal, Sched, WorkerKey, WorkerMode};

impl Sched {
    pub(crate) fn worker_mode(&mut self, key: WorkerKey, mode: WorkerMode) -> Result<(), Refusal> {
        let slot = self.live_slot(key)?;
        self.workers.get_mut(slot).mode = mode;
        self.usability_changed(slot);
        Ok(())
    }

    pub(crate) fn worker_suspect(&mut self, key: WorkerKey, suspect: bool) -> Result<(), Refusal> {
        let slot = self.live_slot(key)?;
        self.workers.get_mut(slot).suspect = suspect;
        self.usability_changed(slot);
        Ok(())
    }

    pub(crate) fn machine_caps(&mut self, machine: String, caps: Vec<GroupCap>) -> Result<(), Refusal> {
        if caps.is_empty() {
            self.machine_caps.remove(&machine);
        } else {
            self.machine_caps.insert(machine, caps);
        }
        self.all_dirty();
        Ok(())
    }

    pub(crate) fn policy_set(&mut self, policy: Policy) -> Result<(), Refusal> {
        self.options.policy = policy;
        self.all_dirty();
        Ok(())
    }

    fn usability_changed(&mut self, slot: usize) {
        if !self.workers.get(slot).is_usable() {
            self.free_reservation(slot);
        }
        self.world += 1;
        self.dirty.insert(slot);
    }

    fn all_dirty(&mut self) {
        self.dirty.extend(self.workers.iter().map(|(slot, _)| slot));
        self.world += 1;
    }
}
