//! What a reservation asks of others: who may still start on a worker, or on another one of its machine, that is kept for
//! a task which is due.
//!
//! A reservation knows what it waits for: the attempts that have to end before its task fits. What is left when they have
//! ended, and the task, always fit together. Another task may start there
//! - if it fits beside what is left and the task that is due; or
//! - if its estimated end is no later than `start_by`, when the task is expected to start (EASY back-fill); then it is
//!   waited for too; or
//! - if it holds neither threads nor devices (Finalize, Commit1, Fetch) and something that does is still waited for: it
//!   is over before that matters.
//!
//! So the task that is due starts no later than `start_by` or, where an attempt that it waits for runs longer than
//! estimated, when the last of them has ended. After `start_by` nothing is added but what costs next to nothing, and that
//! only while something longer is waited for, so a task that overruns lets no chain of others push the due one on. Only
//! facts that turn against it make a reservation anew, with a later `start_by`: an attempt that is adopted there, or a
//! worker that has become smaller. A machine is kept for one task at a time, as a worker is.

use sealtasks::{AttemptId, TaskId};

use crate::ledger::Ask;
use crate::outlook::Outlook;
use crate::placement::Draft;
use crate::task::{Phase, Task};
use crate::worker::Reservation;
use crate::{Finding, Millis, Obstacle, Relief, Sched};

/// A place that is kept, as others see it.
pub(crate) struct Kept {
    /// The slot of the worker that is kept.
    holder: usize,
    due: Ask,
    start_by: Millis,
    /// Whether something is waited for that holds threads or devices.
    waits_long: bool,
    /// What runs there when everything that is waited for has ended.
    left: Outlook,
}

impl Sched {
    /// The reservation on the worker or on another one of its machine, and where it is.
    pub(crate) fn kept_by(&self, slot: usize) -> Option<(usize, &Reservation)> {
        let worker = self.workers.get(slot);
        let own = worker.reservation.as_deref().map(|reservation| (slot, reservation));
        own.or_else(|| {
            let members = &self.machines.get(worker.machine?).members;
            let held = |member: &usize| Some((*member, self.workers.get(*member).reservation.as_deref()?));
            members.iter().find_map(held)
        })
    }

    /// What fits on the worker and on the others of its machine has to be looked at anew.
    pub(crate) fn mates_dirty(&mut self, slot: usize) {
        let mates = self.mates(slot);
        self.dirty.extend(mates);
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

    /// What has to be looked at before more is started on this worker; `None`: it is kept for nobody.
    pub(crate) fn kept(&self, slot: usize) -> Option<Kept> {
        self.workers.try_get(slot)?;
        let (holder, reservation) = self.kept_by(slot)?;
        let due = self.queue.groups[self.tasks[&reservation.task].group].asks[holder]?;
        let (left, waits_long) = self.left_after(holder, reservation);
        Some(Kept { holder, due, start_by: reservation.start_by, waits_long, left })
    }

    /// What runs on the place when everything that the reservation waits for has ended, and whether that is anything that
    /// holds threads or devices.
    fn left_after(&self, holder: usize, reservation: &Reservation) -> (Outlook, bool) {
        let mut left = self.outlook(holder);
        let mut waits_long = false;
        for attempt in &reservation.waits_for {
            let binding = self.tasks.get(&attempt.task).and_then(|task| task.binding());
            if let Some(binding) = binding.filter(|binding| binding.phase == Phase::Running) {
                waits_long |= !binding.charge.is_light();
                left.end(binding.worker, &binding.charge);
            }
        }
        (left, waits_long)
    }

    /// Whether one more such task here, which would be over after `takes`, would be in the way of the one that the place
    /// is kept for.
    pub(crate) fn crowds(&self, kept: &Kept, slot: usize, ask: &Ask, takes: Millis) -> bool {
        // Each start of its type would put its own off again.
        if ask.task() == kept.due.task() && self.is_staggered(kept.holder, ask.task()) {
            return true;
        }
        let ends_in_time = self.now.after(takes) <= kept.start_by;
        let is_over_before = ask.is_light() && kept.waits_long;
        if ends_in_time || is_over_before {
            return false;
        }
        let mut left = kept.left.clone();
        left.add(slot, ask, self.pick_gpus(slot, ask));
        !self.fits_in(&left, kept.holder, &kept.due)
    }

    /// As [`Self::crowds`], for a task that would have to move so many bytes first.
    pub(crate) fn is_in_the_way(&self, slot: usize, ask: &Ask, moved: u64) -> bool {
        let Some(kept) = self.kept(slot) else { return false };
        let worker = self.workers.get(slot);
        let takes = self.estimate_in(worker, ask.kind()).millis.after(self.moving_time(slot, moved));
        self.crowds(&kept, slot, ask, takes)
    }

    /// A task got its slot on a place that is kept for another: unless both fit, the other waits for it.
    pub(crate) fn note_passing(&mut self, slot: usize, id: TaskId) {
        let Some((holder, reservation)) = self.kept_by(slot).filter(|(_, kept)| kept.task != id) else {
            return;
        };
        let Some(due) = self.queue.groups[self.tasks[&reservation.task].group].asks[holder] else { return };
        if self.fits_in(&self.left_after(holder, reservation).0, holder, &due) {
            return;
        }
        let task = &self.tasks[&id];
        let (Some(binding), Some(end)) = (task.binding(), self.estimated_end(task)) else { return };
        // Whoever was let past ends in time or costs nothing; an adopted attempt was there before anybody was asked.
        let (attempt, is_adopted, now) = (binding.attempt, !binding.is_measured, self.now);
        if let Some(reservation) = &mut self.workers.get_mut(holder).reservation {
            reservation.waits_for.insert(attempt);
            if is_adopted {
                (reservation.start_by, reservation.made_at) = (reservation.start_by.max(end), now);
            }
        }
    }

    /// An attempt has ended, or has its files: no reservation waits for it any more.
    pub(crate) fn waits_no_more(&mut self, slot: usize, attempt: AttemptId) {
        let own = self.reservations.get(&attempt.task).copied();
        let holders = own.into_iter().chain(self.kept_by(slot).map(|(holder, _)| holder));
        for holder in holders.collect::<Vec<_>>() {
            if let Some(reservation) = &mut self.workers.get_mut(holder).reservation {
                reservation.waits_for.remove(&attempt);
            }
        }
    }

    /// Makes the reservation on this worker anew where what it waits for no longer makes room for its task: the worker or
    /// its machine has become smaller.
    pub(crate) fn mend_reservation(&mut self, slot: usize) {
        let Some(reservation) = self.workers.try_get(slot).and_then(|worker| worker.reservation.as_ref())
        else {
            return;
        };
        let Some(due) = self.queue.groups[self.tasks[&reservation.task].group].asks[slot] else { return };
        let (mut left, _) = self.left_after(slot, reservation);
        let (mut waits_for, mut start_by) = (reservation.waits_for.clone(), reservation.start_by);
        if self.fits_in(&left, slot, &due) {
            return;
        }
        for (end, id) in self.ends_around(slot) {
            let Some(binding) = self.tasks[&id].binding() else { continue };
            if waits_for.insert(binding.attempt) {
                left.end(binding.worker, &binding.charge);
                start_by = start_by.max(end);
            }
            if self.fits_in(&left, slot, &due) {
                break;
            }
        }
        let now = self.now;
        if let Some(reservation) = &mut self.workers.get_mut(slot).reservation
            && reservation.waits_for != waits_for
        {
            (reservation.waits_for, reservation.start_by, reservation.made_at) = (waits_for, start_by, now);
            // What is waited for now leaves more room beside the task; the others of the machine may have been looked at
            // before this was known.
            self.mates_dirty(slot);
        }
    }

    /// Sees to it that the worker is looked at again when the next type of task has become too long to pass.
    pub(crate) fn set_recheck(&mut self, slot: usize) {
        let Some(worker) = self.workers.try_get(slot) else { return };
        let start_by = self.kept_by(slot).map(|(_, reservation)| reservation.start_by);
        let latest = start_by.and_then(|start_by| {
            let kinds = self.queue.groups.iter().filter_map(|group| group.asks.get(slot).copied().flatten());
            let takes = kinds.map(|ask| self.estimate_in(worker, ask.kind()).millis);
            takes.map(|takes| start_by.before(takes)).filter(|latest| *latest >= self.now).min()
        });
        if let Some(before) = std::mem::replace(&mut self.workers.get_mut(slot).recheck_after, latest) {
            self.rechecks.remove(&(before, slot));
        }
        if let Some(latest) = latest {
            self.rechecks.insert((latest, slot));
        }
    }

    /// Lets places be looked at again on which some task may no longer pass the one that is due.
    pub(crate) fn fire_rechecks(&mut self) {
        while let Some((latest, slot)) = self.rechecks.first().copied()
            && latest < self.now
        {
            self.rechecks.pop_first();
            if self.workers.try_get(slot).is_some() {
                self.workers.get_mut(slot).recheck_after = None;
            }
            self.dirty.insert(slot);
        }
    }

    /// What a reservation has against such a task on this worker.
    pub(crate) fn kept_apart(&self, task: &Task, slot: usize, (ask, moved): (&Ask, u64)) -> Option<Finding> {
        let (holder, reservation) = self.kept_by(slot)?;
        if reservation.task == task.id || !self.is_in_the_way(slot, ask, moved) {
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
        let at = self.eta(self.expected_start(reservation));
        Some(Finding { obstacle, relief: Some(Relief::Starts { task: due, at }) })
    }

    /// When the task of a reservation is expected to start: when the last of what it waits for should have ended.
    pub(crate) fn expected_start(&self, reservation: &Reservation) -> Millis {
        let ends = reservation.waits_for.iter().filter_map(|attempt| {
            let task = self.tasks.get(&attempt.task)?;
            self.estimated_end(task).or_else(|| self.fetched_at(task))
        });
        ends.max().unwrap_or(self.now)
    }
}
