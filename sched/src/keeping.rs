//! What a reservation asks of others beyond its own worker's resources: a task may not start on another worker of the
//! same machine, nor under the same cap, where it would be in the way of the task that the place is kept for. A machine is
//! kept for one task at a time, as a worker is.

use std::collections::BTreeMap;

use crate::ledger::{Ask, Tally};
use crate::machine::Load;
use crate::placement::Draft;
use crate::task::{Phase, Task};
use crate::worker::Reservation;
use crate::{Finding, Obstacle, Relief, Sched};

/// A place that is kept, and what started there since.
pub(crate) struct Kept {
    /// The slot of the worker that is kept.
    holder: usize,
    due: Ask,
    /// What was bound after the reservation, per worker of the machine.
    after: BTreeMap<usize, Tally>,
}

impl Sched {
    /// The reservation on the worker or on another one of its machine, and whose it is.
    pub(crate) fn kept_by(&self, slot: usize) -> Option<(usize, Reservation)> {
        let worker = self.workers.get(slot);
        let own = worker.reservation.map(|reservation| (slot, reservation));
        own.or_else(|| {
            let members = &self.machines.get(worker.machine?).members;
            let held = |member: &usize| Some((*member, self.workers.get(*member).reservation?));
            members.iter().find_map(held)
        })
    }

    /// What fits on the worker and on the others of its machine has to be looked at anew.
    pub(crate) fn mates_dirty(&mut self, slot: usize) {
        self.dirty.insert(slot);
        if let Some(machine) = self.workers.get(slot).machine {
            self.dirty.extend(&self.machines.get(machine).members);
        }
    }

    /// Another worker of the machine that could start the task which the machine is kept for. To everybody else, and so to
    /// the lists of what fits where, the reservation is in the way there.
    pub(crate) fn pick_mate(&self, task: &Task, slot: usize) -> Option<(usize, Draft)> {
        let group = &self.queue.groups[task.group];
        let key = &self.queue.class(task.class).key;
        let fits = |mate: usize| {
            let is_usable = self.workers.get(mate).is_usable();
            is_usable && group.asks[mate].is_some_and(|ask| self.has_slot(mate, &ask))
        };
        let mates = self.shared_machine(slot)?.members.iter().copied();
        let planned = mates.filter(|mate| *mate != slot && fits(*mate)).filter_map(|mate| {
            let draft = self.plan(key, mate).ok()?;
            Some((self.rank_of(mate, task.group), draft))
        });
        let best = planned.min_by_key(|(rank, draft)| draft.score(rank));
        best.map(|(rank, draft)| (rank.worker, draft))
    }

    /// What has to be looked at before more is started on this worker; `None`: nothing is kept, or its own books tell all.
    pub(crate) fn kept(&self, slot: usize) -> Option<Kept> {
        self.workers.try_get(slot)?;
        let (holder, reservation) = self.kept_by(slot)?;
        let due = self.queue.groups[self.tasks[&reservation.task].group].asks[holder]?;
        let is_capped = self.caps(holder).any(|(_, cap)| cap.tasks.contains(&due.task()));
        let shared = self.shared_machine(holder);
        if shared.is_none() && !is_capped && !self.is_staggered(holder, due.task()) {
            return None;
        }
        let members =
            shared.map_or_else(|| vec![holder], |machine| machine.members.iter().copied().collect());
        let after =
            members.into_iter().map(|member| (member, self.started_after(member, reservation.sequence)));
        Some(Kept { holder, due, after: after.collect() })
    }

    /// What got its slot after this point in the order of bindings. What costs nothing is left out.
    fn started_after(&self, slot: usize, sequence: u64) -> Tally {
        let mut tally = Tally::default();
        for task in &self.workers.get(slot).bound {
            let task = &self.tasks[task];
            let Some(binding) = task.binding() else { continue };
            if binding.phase == Phase::Running
                && binding.sequence > sequence
                && let Some(ask) = self.queue.groups[task.group].asks[slot].filter(|ask| !ask.is_light())
            {
                // A sum for a question, not a holding: it is dropped with the tally.
                let _ = tally.charge_on(&ask, binding.charge.gpus().to_vec());
            }
        }
        tally
    }

    /// Whether one more such task here would be in the way of the one that the place is kept for.
    pub(crate) fn crowds(&self, kept: &Kept, slot: usize, ask: &Ask) -> bool {
        if ask.is_light() {
            return false;
        }
        // Each start of its type would put its own off again.
        if ask.task() == kept.due.task() && self.is_staggered(kept.holder, ask.task()) {
            return true;
        }
        let mut after = kept.after.clone();
        let _ = after.entry(slot).or_default().charge_on(ask, self.pick_gpus(slot, ask));
        let holder = self.workers.get(kept.holder);
        let breaks_cap = self.caps(kept.holder).any(|(machine, cap)| {
            let counted = after.iter().filter(|(member, _)| machine.is_some() || **member == kept.holder);
            let running: u64 = counted.map(|(_, tally)| tally.count(|task| cap.tasks.contains(&task))).sum();
            let holds = |ask: &Ask| cap.tasks.contains(&ask.task());
            holds(&kept.due) && holds(ask) && running >= u64::from(cap.most)
        });
        let crowds_machine = self.shared_machine(kept.holder).is_some_and(|machine| {
            let mut load = Load::default();
            after.iter().for_each(|(member, tally)| load.add(tally, self.workers.get(*member)));
            let base = after.get(&kept.holder).map_or(0, |tally| tally.held(&kept.due).base);
            !machine.fits_beside(holder, &kept.due, base, &load)
        });
        breaks_cap || crowds_machine
    }

    /// What a reservation has against such a task on this worker, beyond what the worker's own resources tell.
    pub(crate) fn kept_apart(&self, task: &Task, slot: usize, ask: &Ask) -> Option<Finding> {
        let kept = self.kept(slot)?;
        let (holder, reservation) = self.kept_by(slot)?;
        if reservation.task == task.id || !self.crowds(&kept, slot, ask) {
            return None;
        }
        let due = self.name(reservation.task);
        let machine = self.workers.get(slot).profile.machine.clone();
        let obstacle = match machine.filter(|_| holder != slot) {
            Some(machine) => Obstacle::MachineKeptFor { machine, task: due },
            None => Obstacle::ReservedFor {
                task: due,
                made_at: reservation.made_at,
                start_by: reservation.start_by,
            },
        };
        let start = self.opening(holder, &kept.due).map_or(reservation.start_by, |opening| opening.at);
        Some(Finding { obstacle, relief: Some(Relief::Starts { task: due, at: self.eta(start) }) })
    }
}
