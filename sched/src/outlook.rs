//! The books of a worker and of those it shares its machine with, copied to ask what would be: what fits when this has
//! ended, or beside that. Never a holding: a copy goes away with all that was charged to it.

use std::collections::BTreeMap;

use crate::few::Few;
use crate::ledger::{Ask, Charge, Tally};
use crate::machine::Load;
use crate::{GpuShare, GroupCap, Sched, Shortage};

/// What would run on a worker and on the others of its machine.
#[derive(Clone, Debug)]
pub(crate) struct Outlook(BTreeMap<usize, Tally>);

impl Outlook {
    /// As if a task that runs on this worker had ended.
    pub(crate) fn end(&mut self, slot: usize, charge: &Charge) {
        if let Some(tally) = self.0.get_mut(&slot) {
            tally.discount(charge);
        }
    }

    /// As if one more task ran there, on these devices.
    pub(crate) fn add(&mut self, slot: usize, ask: &Ask, gpus: Few<GpuShare>) {
        if let Some(tally) = self.0.get_mut(&slot) {
            let _ = tally.charge_on(ask, gpus);
        }
    }

    pub(crate) fn on(&self, slot: usize) -> Option<&Tally> {
        self.0.get(&slot)
    }
}

impl Sched {
    /// Everything that runs there now.
    pub(crate) fn outlook(&self, slot: usize) -> Outlook {
        let tally = |slot: usize| (slot, self.workers.get(slot).running.clone());
        Outlook(self.mates(slot).into_iter().map(tally).collect())
    }

    /// The worker and the others of its machine.
    pub(crate) fn mates(&self, slot: usize) -> Vec<usize> {
        match self.workers.get(slot).machine {
            None => vec![slot],
            Some(machine) => self.machines.get(machine).members.iter().copied().collect(),
        }
    }

    /// Whether one more such task would get a slot there by these books. What other programs use is taken to be what it
    /// was when nothing of ours ran: much of what is in use now goes with what ends.
    pub(crate) fn fits_in(&self, outlook: &Outlook, slot: usize, ask: &Ask) -> bool {
        let fits = |tally: &Tally| tally.fits(ask, &self.workers.get(slot).idle);
        outlook.on(slot).is_some_and(fits)
            && !self.caps(slot).any(|(machine, cap)| is_full(outlook, slot, ask, (machine, cap)))
            && self.machine_shortages_in(outlook, slot, ask).is_empty()
    }

    /// What such a task would be short of on the machine that the worker shares.
    pub(crate) fn machine_shortages_in(&self, outlook: &Outlook, slot: usize, ask: &Ask) -> Vec<Shortage> {
        let Some(machine) = self.shared_machine(slot) else { return Vec::new() };
        let mut load = Load::default();
        outlook.0.iter().for_each(|(member, tally)| load.add(tally, self.workers.get(*member)));
        let base = outlook.on(slot).map_or(0, |tally| tally.held(ask).base);
        machine.shortages_beside(self.workers.get(slot), ask, base, &load)
    }
}

/// Whether one more such task would break the cap, a worker's own or, with its position, a machine's.
pub(crate) fn is_full(
    outlook: &Outlook,
    slot: usize,
    ask: &Ask,
    (machine, cap): (Option<usize>, &GroupCap),
) -> bool {
    let counted = outlook.0.iter().filter(|(member, _)| machine.is_some() || **member == slot);
    let running: u64 = counted.map(|(_, tally)| tally.count(|task| cap.tasks.contains(&task))).sum();
    cap.tasks.contains(&ask.task()) && running >= u64::from(cap.most)
}
