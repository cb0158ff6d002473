//! On which workers one more task of each group fits: kept up to date with the ledger where somebody waits to know it,
//! and brought up to date when somebody comes to wait where nobody did.

use sealtasks::{SealTaskType, TaskId};

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

    /// As [`Self::refresh`], for a worker to which a task was charged that fitted: what did not fit before does not now. (For
    /// the one exception see [`Self::charge_running`].)
    fn refresh_fuller(&mut self, slot: usize) {
        self.touched.insert(slot);
        self.set_apart(slot);
        if self.kept_by(slot).is_some() {
            return self.refresh(slot);
        }
        self.note_staging_places(slot);
        let limits = self.limits(slot, None);
        for group in self.workers.get(slot).fits.iter() {
            if self.queue.groups[group].is_watched() {
                self.workers.get_mut(slot).stale.remove(group);
                let worker = self.workers.get(slot);
                let fits = worker.offer(group).is_some_and(|ask| match limits {
                    Limits::Nothing => false,
                    Limits::OwnAlone => worker.running.fits(ask, &worker.capacity),
                    Limits::Others => self.fits_now(slot, ask, None),
                });
                self.set_fit(slot, group, fits);
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
        let now = |slot: usize| self.estimate_in(self.workers.get(slot), kind).millis;
        let changed: Vec<_> = before
            .iter()
            .map(|(slot, before)| (*slot, *before, now(*slot)))
            .filter(|it| it.1 != it.2)
            .collect();
        for (slot, before, now) in changed {
            self.put_off(slot, group);
            // Where it fitted all the while, the moving of its files may have been too much, and is no more.
            if now < before {
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
            self.stageable.remove(slot)
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
        self.set_apart(slot);
        self.mend_reservation(slot);
        self.set_recheck(slot);
        if self.kept_by(slot).is_some() {
            self.doubt_reservations();
        }
        let kept = self.kept(slot);
        let limits = self.limits(slot, kept.as_ref());
        let offered = self.workers.get(slot).offered.clone();
        for (group, ask) in offered.iter() {
            let (worker, group) = (self.workers.get_mut(slot), *group);
            // What fits beside a kept place depends on the time, too: it is not put off.
            if kept.is_some() || self.queue.groups[group].is_watched() {
                worker.stale.remove(group);
                let fits = match limits {
                    Limits::Nothing => false,
                    Limits::OwnAlone => worker.running.fits(ask, &worker.capacity),
                    Limits::Others => self.fits_now(slot, ask, kept.as_ref()),
                };
                self.set_fit(slot, group, fits);
                // Where a task fitted all the while, the moving of its files may have been too much beside what is kept,
                // and may be no more.
                if kept.is_some() && self.workers.get(slot).fits.contains(group) {
                    self.queue.unstick_near(group, &self.workers.get(slot).paths);
                }
            } else {
                self.put_off(slot, group);
            }
        }
    }

    /// What [`Self::fits_now`] depends on there, whichever the group: looked at once for all of them.
    fn limits(&self, slot: usize, kept: Option<&Kept>) -> Limits {
        let worker = self.workers.get(slot);
        let is_alone = kept.is_none() && !worker.staggers && self.shared_machine(slot).is_none();
        match worker.is_usable() {
            false => Limits::Nothing,
            true if is_alone && self.caps(slot).next().is_none() => Limits::OwnAlone,
            true => Limits::Others,
        }
    }

    /// Looks at the workers that were not looked at for this group while nobody waited in it.
    fn catch_up(&mut self, group: GroupIdx) {
        for slot in std::mem::take(&mut self.queue.groups[group].behind) {
            let is_stale = self.workers.try_get(slot).is_some_and(|worker| worker.stale.contains(group));
            if is_stale {
                self.workers.get_mut(slot).stale.remove(group);
                let (kept, ask) = (self.kept(slot), self.queue.groups[group].asks[slot]);
                self.set_fit(slot, group, ask.is_some_and(|ask| self.fits_now(slot, &ask, kept.as_ref())));
            }
        }
    }

    /// Notes whether one more task of the group fits on the worker, and its place among those that it fits on.
    pub(crate) fn set_fit(&mut self, slot: usize, group: GroupIdx, fits: bool) {
        let worker = self.workers.get_mut(slot);
        let fitted = worker.fits.contains(group);
        // Most often it did not fit before and does not now, which is known without a look at the group.
        if !fits && !fitted {
            return;
        }
        worker.fits.set(group, fits);
        self.queue.look_again();
        let state = &mut self.queue.groups[group];
        if fits != fitted {
            state.fit_on = if fits { state.fit_on + 1 } else { state.fit_on - 1 };
            self.queue.fits.set(group, state.fit_on > 0);
        }
        let is_news = if state.is_ranked { self.set_rank(slot, group, fits) } else { true };
        if fits && is_news {
            self.doubt_reserved_in(group, slot);
        }
        if fits && !fitted {
            self.queue.unstick_near(group, &self.workers.get(slot).paths);
        }
    }

    /// Notes the worker's place in the group's list. Returns whether it is, or may be, another one than before.
    fn set_rank(&mut self, slot: usize, group: GroupIdx, fits: bool) -> bool {
        let (is_listed, is_apart) = (self.workers.get(slot).listed.contains(group), self.apart == Some(slot));
        if !is_listed && (is_apart || !fits) {
            return true;
        }
        let rank = (fits && !is_apart).then(|| self.rank_of(slot, group));
        self.workers.get_mut(slot).listed.set(group, rank.is_some());
        let state = &mut self.queue.groups[group];
        let before = std::mem::replace(&mut state.ranks[slot], rank);
        if before == rank {
            return false;
        }
        if let Some(before) = before {
            state.fitting.remove(&before);
        }
        if let Some(rank) = rank {
            state.fitting.insert(rank);
        }
        true
    }

    /// Lets the worker stand in no list from now on, and the one that stood in none so far in those of the groups that fit
    /// on it. Whose slot becomes free most often takes one task and is full again: its places in the lists would be found
    /// and lost for nobody.
    fn set_apart(&mut self, slot: usize) {
        let before = self.apart.replace(slot).filter(|before| *before != slot);
        let Some(worker) = before.and_then(|before| self.workers.try_get(before)) else { return };
        for group in worker.fits.iter() {
            if let Some(before) = before.filter(|_| self.queue.groups[group].is_ranked) {
                self.set_rank(before, group, true);
            }
        }
    }

    /// The place in the group's list of the worker that stands in none, if the group's tasks fit on it.
    pub(crate) fn rank_apart(&self, group: GroupIdx) -> Option<Rank> {
        let slot = self.apart.filter(|_| self.queue.groups[group].is_ranked)?;
        let worker = self.workers.try_get(slot)?;
        let is_missing = worker.fits.contains(group) && !worker.listed.contains(group);
        is_missing.then(|| self.rank_of(slot, group))
    }

    /// Lets the task of the group that holds a reservation be looked at again, if this worker might do for it.
    fn doubt_reserved_in(&mut self, group: GroupIdx, slot: usize) {
        let state = &self.queue.groups[group];
        let Some(id) = state.reserved else { return };
        let might_do =
            |id: TaskId| self.queue.class(self.tasks[&id].class).key.lives_with(self.workers.get(slot));
        if state.is_ranked || might_do(id) {
            self.doubtful.insert(id);
        }
    }

    /// Begins to keep a list of the workers that the group's tasks fit on, the best first: a class that any of them may
    /// do has come to it. Where all files must be at hand the few workers that hold them are asked themselves.
    pub(crate) fn begin_ranking(&mut self, group: GroupIdx) {
        self.queue.groups[group].is_ranked = true;
        let offers = self.queue.groups[group].offers.iter().copied();
        let fitting: Vec<_> = offers.filter(|slot| self.workers.get(*slot).fits.contains(group)).collect();
        for slot in fitting {
            self.set_rank(slot, group, true);
        }
    }

    /// The worker's place among those that the group's tasks fit on; `None`: it does not fit.
    pub(crate) fn rank_in(&self, slot: usize, group: GroupIdx) -> Option<Rank> {
        let worker = self.workers.get(slot);
        if worker.listed.contains(group) {
            return self.queue.groups[group].ranks[slot];
        }
        worker.fits.contains(group).then(|| self.rank_of(slot, group))
    }

    /// Whether one more such task fits on the worker now.
    fn fits_now(&self, slot: usize, ask: &Ask, kept: Option<&Kept>) -> bool {
        let Some(worker) = self.workers.try_get(slot) else { return false };
        let crowds = |kept: &Kept| self.crowds(kept, slot, ask, self.estimate_in(worker, ask.kind()).millis);
        worker.is_usable() && self.has_slot(slot, ask) && !kept.is_some_and(crowds)
    }
}

/// What decides whether one more task fits on a worker.
#[derive(Clone, Copy)]
enum Limits {
    /// None does.
    Nothing,
    /// Its own resources, and nothing else.
    OwnAlone,
    /// Other things as well: its machine, limits on groups of types, the last starts, a reservation.
    Others,
}
