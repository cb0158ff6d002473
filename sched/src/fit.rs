//! On which workers one more task of each group fits: kept up to date with the ledger where somebody waits to know it,
//! and brought up to date when somebody comes to wait where nobody did.

use sealtasks::SealTaskType;

use crate::keeping::Kept;
use crate::ledger::Ask;
use crate::policy::Rank;
use crate::queue::GroupIdx;
use crate::{Millis, Sched};

impl Sched {
    /// Brings what fits where up to date with the ledger, and lets staged tasks take slots that became free: they were
    /// chosen earlier than anything that still waits.
    pub(crate) fn refresh_dirty(&mut self) {
        while let Some(slot) = self.dirty.pop_first() {
            self.touched.insert(slot);
            if self.workers.try_get(slot).is_some() {
                self.promote_staged(slot);
            }
            self.refresh(slot);
        }
        while let Some(slot) = self.fuller.pop() {
            self.refresh_fuller(slot);
        }
        while let Some(group) = self.queue.waking.pop() {
            self.catch_up(group);
        }
    }

    /// As [`Self::refresh`], for a worker to which a task was charged that fitted: what did not fit before does not now.
    fn refresh_fuller(&mut self, slot: usize) {
        self.touched.insert(slot);
        if self.kept_by(slot).is_some() {
            return self.refresh(slot);
        }
        self.note_staging_places(slot);
        let worker = self.workers.get(slot);
        let offered = worker.offered.clone();
        for group in worker.fits.iter() {
            if self.queue.groups[group].is_watched() {
                self.workers.get_mut(slot).stale.remove(group);
                let at = offered.binary_search_by_key(&group, |(group, _)| *group);
                let rank = at.ok().and_then(|at| self.rank(slot, (group, &offered[at].1), None));
                self.set_rank(slot, group, rank);
            } else {
                self.put_off(slot, group);
            }
        }
    }

    /// How long a task of this kind is expected to take on each worker that is kept for another, or on whose machine one is.
    pub(crate) fn estimates_at_kept(&self, kind: SealTaskType) -> Vec<(usize, Millis)> {
        let kept = self.reservations.values().flat_map(|slot| self.mates(*slot));
        kept.map(|slot| (slot, self.estimate_in(self.workers.get(slot), kind).millis)).collect()
    }

    /// Tasks of this group are expected to take another time than they were on the workers of `before`: what may pass a
    /// reservation there depends on that.
    pub(crate) fn estimates_changed(
        &mut self,
        group: GroupIdx,
        kind: SealTaskType,
        before: &[(usize, Millis)],
    ) {
        for (slot, millis) in before.iter().copied() {
            self.put_off(slot, group);
            // Where it fitted all the while, the moving of its files may have been too much, and is no more.
            if self.estimate_in(self.workers.get(slot), kind).millis < millis {
                self.queue.unstick_near(group, &self.workers.get(slot).paths);
            }
        }
        if self.queue.groups[group].is_watched() {
            self.queue.wake(group);
        }
    }

    fn note_staging_places(&mut self, slot: usize) {
        let room = self.workers.try_get(slot).is_some_and(|worker| self.may_stage(worker));
        if room {
            self.stageable.insert(slot)
        } else {
            self.stageable.remove(&slot)
        };
    }

    fn put_off(&mut self, slot: usize, group: GroupIdx) {
        let worker = self.workers.get_mut(slot);
        if !worker.stale.contains(group) {
            worker.stale.insert(group);
            self.queue.groups[group].behind.push(slot);
        }
    }

    fn refresh(&mut self, slot: usize) {
        self.note_staging_places(slot);
        // A slot whose worker has gone may still be named by a timer.
        if self.workers.try_get(slot).is_none() {
            return;
        }
        self.mend_reservation(slot);
        self.set_recheck(slot);
        if self.kept_by(slot).is_some() {
            self.doubt_reservations();
        }
        let kept = self.kept(slot);
        let offered = self.workers.get(slot).offered.clone();
        for (group, ask) in offered.iter() {
            let (worker, group) = (self.workers.get_mut(slot), *group);
            // What fits beside a kept place depends on the time, too: it is not put off.
            if kept.is_some() || self.queue.groups[group].is_watched() {
                worker.stale.remove(group);
                self.set_rank(slot, group, self.rank(slot, (group, ask), kept.as_ref()));
                // Where a task fitted all the while, the moving of its files may have been too much beside what is kept,
                // and may be no more.
                if kept.is_some() && self.queue.groups[group].ranks[slot].is_some() {
                    self.queue.unstick_near(group, &self.workers.get(slot).paths);
                }
            } else {
                self.put_off(slot, group);
            }
        }
    }

    /// Looks at the workers that were not looked at for this group while nobody waited in it.
    fn catch_up(&mut self, group: GroupIdx) {
        for slot in std::mem::take(&mut self.queue.groups[group].behind) {
            let is_stale = self.workers.try_get(slot).is_some_and(|worker| worker.stale.contains(group));
            if is_stale {
                self.workers.get_mut(slot).stale.remove(group);
                let (kept, ask) = (self.kept(slot), self.queue.groups[group].asks[slot]);
                let rank = ask.and_then(|ask| self.rank(slot, (group, &ask), kept.as_ref()));
                self.set_rank(slot, group, rank);
            }
        }
    }

    /// Notes the worker's place among those that the group's tasks fit on.
    pub(crate) fn set_rank(&mut self, slot: usize, group: GroupIdx, rank: Option<Rank>) {
        if let Some(worker) = self.workers.try_get_mut(slot) {
            // Most often it did not fit before and does not now, which is known without a look at the list of all.
            if rank.is_none() && !worker.fits.contains(group) {
                return;
            }
            worker.fits.set(group, rank.is_some());
        }
        let state = &mut self.queue.groups[group];
        let before = state.ranks[slot];
        if before == rank {
            return;
        }
        state.ranks[slot] = rank;
        if let Some(before) = before {
            state.fitting.remove(&before);
        }
        if let Some(rank) = rank {
            state.fitting.insert(rank);
            if let Some(task) = state.reserved {
                self.doubtful.insert(task);
            }
            if before.is_none() {
                self.queue.unstick_near(group, &self.workers.get(slot).paths);
            }
        }
        self.queue.fits.set(group, !self.queue.groups[group].fitting.is_empty());
    }

    /// The worker's place among those that one more task of the group fits on; `None`: it does not fit.
    fn rank(&self, slot: usize, (group, ask): (GroupIdx, &Ask), kept: Option<&Kept>) -> Option<Rank> {
        let worker = self.workers.try_get(slot)?;
        if !worker.is_usable()
            || !self.has_slot(slot, ask)
            || kept
                .is_some_and(|kept| self.crowds(kept, slot, ask, self.estimate_in(worker, ask.kind()).millis))
        {
            return None;
        }
        Some(self.rank_of(slot, group))
    }
}
