//! Whether one more task gets a slot on a worker now: the worker's resources and caps, its machine's, and the time since
//! the last start. Files, locks, modes and reservations are looked at elsewhere.

use sealtasks::{TaskId, TaskType};

use crate::ledger::{Ask, Tally};
use crate::machine::Load;
use crate::outlook::is_full;
use crate::worker::Worker;
use crate::{Finding, GroupCap, Millis, Obstacle, Refusal, Relief, Sched};

impl Sched {
    /// Whether one more such task would get a slot there now.
    pub(crate) fn has_slot(&self, slot: usize, ask: &Ask) -> bool {
        self.has_room(slot, ask) && self.staggered_until(slot, ask.task()).is_none()
    }

    /// The same, whenever the last start was.
    pub(crate) fn has_room(&self, slot: usize, ask: &Ask) -> bool {
        let worker = self.workers.get(slot);
        worker.running.fits(ask, &worker.capacity)
            && self.full_caps(slot, ask.task()).next().is_none()
            && self.machine_shortages(slot, ask).is_empty()
    }

    /// What keeps one more such task from a slot there now besides the worker's own resources, and what would change it.
    pub(crate) fn shared_obstacles(&self, slot: usize, ask: &Ask) -> Vec<Finding> {
        let machine = self.workers.get(slot).profile.machine.clone().unwrap_or_default();
        let short = self.machine_shortages(slot, ask).into_iter().map(|shortage| Finding {
            relief: self.relief_by(self.first_end(slot, |outlook| {
                self.machine_shortages_in(outlook, slot, ask).iter().any(|other| shortage.is_like(other))
            })),
            obstacle: Obstacle::MachineShort { machine: machine.clone(), shortage },
        });
        let capped = self.full_caps(slot, ask.task()).map(|(cap, obstacle)| Finding {
            relief: self.relief_by(self.first_end(slot, |outlook| is_full(outlook, slot, ask, cap))),
            obstacle,
        });
        let mut found: Vec<_> = short.chain(capped).collect();
        let task = ask.task();
        found.extend(self.staggered_until(slot, task).map(|until| Finding {
            obstacle: Obstacle::Staggered { task, until },
            relief: Some(Relief::Passes { at: self.eta(until) }),
        }));
        found
    }

    pub(crate) fn relief_by(&self, first: Option<(Millis, TaskId)>) -> Option<Relief> {
        first.map(|(at, id)| Relief::Ends { task: self.name(id), at: self.eta(at) })
    }

    /// Whether such a task would get a slot there if nothing else of ours ran on the worker and its machine.
    pub(crate) fn could_hold(&self, slot: usize, ask: &Ask) -> bool {
        let worker = self.workers.get(slot);
        let empty = Tally::default();
        let fits_machine = self.shared_machine(slot).is_none_or(|machine| {
            machine.shortages_beside(worker, ask, empty.held(ask).base, &Load::default()).is_empty()
        });
        let forbids = |(_, cap): (_, &GroupCap)| cap.most == 0 && cap.tasks.contains(&ask.task());
        empty.fits(ask, &worker.idle) && fits_machine && !self.caps(slot).any(forbids)
    }

    /// The caps of the worker and, with the machine's position, those of its machine.
    pub(crate) fn caps(&self, slot: usize) -> impl Iterator<Item = (Option<usize>, &GroupCap)> {
        let worker = self.workers.get(slot);
        let machine = worker.machine.into_iter();
        let shared = machine
            .flat_map(|machine| self.machines.get(machine).caps.iter().map(move |cap| (Some(machine), cap)));
        worker.profile.group_caps.iter().map(|cap| (None, cap)).chain(shared)
    }

    /// The caps that one more task of this type would break.
    fn full_caps(
        &self,
        slot: usize,
        task: TaskType,
    ) -> impl Iterator<Item = ((Option<usize>, &GroupCap), Obstacle)> {
        let named = self.caps(slot).filter(move |(_, cap)| cap.tasks.contains(&task));
        named.filter_map(move |(machine, cap)| {
            let running =
                self.count(slot, machine, |worker| worker.running.count(|kind| cap.tasks.contains(&kind)));
            let most = u64::from(cap.most);
            // Names are copied only to be told.
            (running >= most).then(|| {
                let named = machine.map(|machine| self.machines.get(machine).name.clone());
                ((machine, cap), Obstacle::Capped { name: cap.name.clone(), machine: named, running, most })
            })
        })
    }

    /// A count over one worker, or over all workers of a machine.
    fn count(&self, slot: usize, machine: Option<usize>, of: impl Fn(&Worker) -> u64) -> u64 {
        match machine {
            None => of(self.workers.get(slot)),
            Some(machine) => {
                let members = self.machines.get(machine).members.iter();
                members.map(|member| of(self.workers.get(*member))).sum()
            }
        }
    }
}

impl GroupCap {
    /// No worker and no machine has more groups.
    pub const MOST: usize = 256;

    /// Refuses more groups than are kept: to forget one would be to exceed it.
    pub(crate) fn check(owner: &str, caps: &[Self]) -> Result<(), Refusal> {
        let (found, most) = (caps.len(), Self::MOST);
        let full = || Refusal::GroupCapsFull { owner: owner.to_owned(), found, most };
        (found <= most).then_some(()).ok_or_else(full)
    }
}
