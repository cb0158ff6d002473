//! Workers and storage paths come, change and go; files move. Facts only: what follows is settled elsewhere.

use std::collections::BTreeSet;

use sealtasks::{FileType, SealTaskType, SectorId, StorageId, TaskId};

use crate::class::{ClassFile, ClassKey};
use crate::few::Few;
use crate::queue::GroupIdx;
use crate::slab::{SectorIdx, TaskIdx};
use crate::space::PathIdx;
use crate::task::{Phase, State};
use crate::worker::{Offered, Worker};
use crate::{GroupCap, PathFacts, Refusal, Sched, WorkerKey, WorkerMode, WorkerProfile};

impl Sched {
    pub(crate) fn worker_up(&mut self, key: WorkerKey, profile: WorkerProfile) -> Result<(), Refusal> {
        if self.workers.slot(key).is_some() {
            return Err(Refusal::WorkerKnown { worker: key });
        }
        GroupCap::check(&profile.host, &profile.group_caps)?;
        let paths = self.intern_all(&profile.paths)?;
        let mode = self.succeed(key)?;
        let bandwidth = profile.bandwidth;
        let slot = self.workers.add(Worker { mode, ..Worker::new(key, profile) });
        self.note_drain(slot);
        self.welcome(slot);
        self.bandwidth_changed(0, bandwidth);
        self.set_machine(slot);
        self.renew_staggers(slot);
        self.seed_durations(slot);
        self.set_reach(slot, paths);
        self.renew_asks(slot);
        Ok(())
    }

    /// Ends the earlier lives of a worker that comes again: one process cannot live twice, and what they held stays
    /// charged until it ends or is adopted. Returns the mode that the new life takes over.
    fn succeed(&mut self, key: WorkerKey) -> Result<WorkerMode, Refusal> {
        let lives = self.workers.lives(key.session);
        if let Some(by) = lives.last().copied().filter(|last| *last > key) {
            return Err(Refusal::WorkerSuperseded { worker: key, by });
        }
        let mode = |last: &WorkerKey| self.workers.slot(*last).map(|slot| self.workers.get(slot).mode);
        let mode = lives.last().and_then(mode).unwrap_or_default();
        for earlier in lives {
            if self.live_slot(earlier).is_ok() {
                self.worker_lost(earlier)?;
            }
        }
        Ok(mode)
    }

    pub(crate) fn worker_changed(&mut self, key: WorkerKey, profile: WorkerProfile) -> Result<(), Refusal> {
        let slot = self.live_slot(key)?;
        GroupCap::check(&profile.host, &profile.group_caps)?;
        let paths = self.intern_all(&profile.paths)?;
        let is_quiet = self.is_quiet(slot);
        let before = &self.workers.get(slot).profile;
        let plans_changed = (before.plan, &before.path_plans) != (profile.plan, &profile.path_plans);
        self.bandwidth_changed(before.bandwidth, profile.bandwidth);
        self.workers.get_mut(slot).change(profile, is_quiet);
        self.set_machine(slot);
        self.renew_staggers(slot);
        self.seed_durations(slot);
        if self.workers.get(slot).paths != paths {
            self.set_reach(slot, paths);
        }
        self.renew_asks(slot);
        if plans_changed {
            self.note_drain(slot);
            self.look_again_near(slot);
        }
        self.mates(slot).into_iter().for_each(|mate| self.recall_stranded(mate));
        Ok(())
    }

    pub(crate) fn worker_lost(&mut self, key: WorkerKey) -> Result<(), Refusal> {
        let slot = self.live_slot(key)?;
        self.bandwidth_changed(self.workers.get(slot).profile.bandwidth, 0);
        self.workers.get_mut(slot).lost = true;
        self.note_drain(slot);
        self.count_places(slot);
        self.survey(slot);
        self.set_reach(slot, Few::None);
        self.free_reservation(slot);
        self.dirty.insert(slot);
        self.drop_if_gone(slot);
        Ok(())
    }

    pub(crate) fn worker_enabled(&mut self, key: WorkerKey, enabled: bool) -> Result<(), Refusal> {
        let slot = self.live_slot(key)?;
        self.workers.get_mut(slot).enabled = enabled;
        self.usability_changed(slot);
        Ok(())
    }

    pub(crate) fn path_seen(&mut self, facts: PathFacts) -> Result<(), Refusal> {
        let full = Refusal::PathsFull { path: facts.id.clone(), most: crate::space::Paths::MOST };
        let path = self.paths.intern(&facts.id).ok_or(full)?;
        // Before any promise is covered, which frees room too.
        let free_before = self.paths.get(path).free();
        for attempt in &facts.covers {
            let at = self.tasks.find(attempt.task);
            let binding = at.and_then(|at| self.tasks[at].binding_mut());
            if let Some(binding) = binding.filter(|binding| binding.attempt == *attempt) {
                self.paths.cover(&mut binding.space, path);
            }
        }
        let same = self.paths.get(path).facts().is_some_and(|before| same_but_for_room(before, &facts));
        self.paths.set_facts(path, Some(facts));
        if !same {
            self.world += 1;
            self.queue.unstick(|key| key.cares_for(path));
        } else if self.paths.get(path).free() > free_before {
            self.world += 1;
            self.queue.unstick(ClassKey::needs_room);
        }
        Ok(())
    }

    pub(crate) fn path_gone(&mut self, id: &StorageId) -> Result<(), Refusal> {
        if let Some(path) = self.paths.find(id) {
            self.paths.set_facts(path, None);
        }
        Ok(())
    }

    pub(crate) fn sector_files(
        &mut self,
        sector: SectorId,
        kind: FileType,
        paths: &[StorageId],
    ) -> Result<(), Refusal> {
        if let Some(sector) = self.sectors.find(&self.tasks, sector) {
            let paths = self.intern_all(paths)?;
            self.set_files(sector, kind, &paths);
        }
        Ok(())
    }

    /// Notes where a file of a known sector lies, and moves the sector's tasks that care to the class for that.
    pub(crate) fn set_files(&mut self, sector: SectorIdx, kind: FileType, paths: &[PathIdx]) {
        for at in self.siblings(sector) {
            let key = &self.queue.class(self.tasks[at].class).key;
            let moves = |file: &ClassFile| file.kind == kind && *file.held_by != *paths;
            if key.existing.iter().flat_map(|existing| &existing.files).any(moves) {
                let mut key = key.clone();
                let files = key.existing.iter_mut().flat_map(|existing| &mut existing.files);
                files
                    .filter(|file| file.kind == kind)
                    .for_each(|file| file.held_by = paths.iter().copied().collect());
                self.reclass(at, key);
                self.world += 1;
            }
        }
    }

    fn reclass(&mut self, at: TaskIdx, key: ClassKey) {
        let task = &mut self.tasks[at];
        let (before, place) = (task.class, task.key());
        let after = self.queue.join(key, task.group);
        task.class = after;
        if matches!(task.state, State::Ready) {
            self.queue.remove(before, place);
            if self.queue.insert(after, place, at) {
                self.fresh.insert(after);
            }
        }
        self.queue.leave(before);
    }

    /// The group of this type and size; a new one learns what it asks of every worker.
    pub(crate) fn group(&mut self, kind: SealTaskType) -> GroupIdx {
        let (group, is_new) = self.queue.group(kind);
        if is_new {
            let slots: Vec<usize> = self.workers.iter().map(|(slot, _)| slot).collect();
            for slot in slots {
                self.renew_ask(slot, kind, group);
                self.share_offered(slot);
                self.count_places_in(group, slot);
                self.dirty.insert(slot);
            }
        }
        group
    }

    /// Forgets a lost worker once nothing is bound to it.
    pub(crate) fn drop_if_gone(&mut self, slot: usize) {
        let gone = self.workers.try_get(slot).is_some_and(|worker| worker.lost && worker.bound.is_empty());
        if gone {
            self.leave_machine(slot);
            let offered = std::mem::replace(&mut self.workers.get_mut(slot).offered, Offered::from([]));
            self.forget_offered(offered);
            for group in 0..self.queue.groups.len() {
                self.queue.groups[group].offers.remove(&slot);
                if slot < self.queue.groups[group].asks.len() {
                    self.queue.groups[group].asks[slot] = None;
                    self.set_fit(slot, group, false);
                }
            }
            self.workers.remove(slot);
            self.dirty.insert(slot);
        }
    }

    pub(crate) fn live_slot(&self, key: WorkerKey) -> Result<usize, Refusal> {
        let slot = self.workers.slot(key).filter(|slot| !self.workers.get(*slot).lost);
        slot.ok_or(Refusal::WorkerUnknown { worker: key })
    }

    fn set_reach(&mut self, slot: usize, paths: Few<PathIdx>) {
        let worker = self.workers.get_mut(slot);
        let before: BTreeSet<PathIdx> = worker.paths.iter().copied().collect();
        let after: BTreeSet<PathIdx> = paths.iter().copied().collect();
        worker.paths = paths;
        before.difference(&after).for_each(|path| self.paths.set_reach(*path, slot, false));
        after.difference(&before).for_each(|path| self.paths.set_reach(*path, slot, true));
        // A file that nobody served can now be fetched from here, by anyone.
        self.queue.unstick(|key| after.iter().any(|path| key.cares_for(*path)));
    }

    fn renew_asks(&mut self, slot: usize) {
        let kinds: Vec<_> = self.queue.kinds().collect();
        for (kind, group) in kinds {
            self.renew_ask(slot, kind, group);
        }
        self.share_offered(slot);
        self.count_places(slot);
        self.world += 1;
        self.dirty.insert(slot);
    }

    fn renew_ask(&mut self, slot: usize, kind: SealTaskType, group: GroupIdx) {
        let worker = self.workers.get(slot);
        let ask = worker.offers(kind.task).then(|| worker.ask_with_headroom(kind, &self.options.resources));
        let state = &mut self.queue.groups[group];
        if state.asks.len() <= slot {
            state.asks.resize(slot + 1, None);
            state.ranks.resize(slot + 1, None);
        }
        let before = std::mem::replace(&mut state.asks[slot], ask);
        if ask.is_some() {
            state.offers.insert(slot);
        } else {
            state.offers.remove(&slot);
        }
        if before.is_some() && ask.is_none() {
            self.set_fit(slot, group, false);
        }
    }

    /// Lets the worker share what it offers with those that offer the same.
    fn share_offered(&mut self, slot: usize) {
        let groups = self.queue.groups.iter().enumerate();
        let asks = groups.filter_map(|(group, state)| Some((group, state.asks.get(slot).copied()??)));
        let own: Offered = asks.collect();
        let shared = self.offered.get(&own).cloned().unwrap_or(own);
        self.offered.insert(shared.clone());
        let before = std::mem::replace(&mut self.workers.get_mut(slot).offered, shared);
        self.forget_offered(before);
    }

    /// Lets go of what a worker offered.
    fn forget_offered(&mut self, before: Offered) {
        /// This one and the one in the list of all.
        const UNUSED: usize = 2;
        if Offered::strong_count(&before) <= UNUSED {
            self.offered.remove(&before);
        }
    }

    /// Lets the task that the worker is kept for look for another one.
    pub(crate) fn free_reservation(&mut self, slot: usize) {
        if let Some(reservation) = &self.workers.get(slot).reservation {
            let id = reservation.task;
            self.unreserve(id);
            if matches!(self.tasks[&id].state, State::Reserved(_)) {
                self.enqueue(self.tasks.at(id));
            } else if self.tasks[&id].is_due && self.waits_staged(id) {
                self.due_staged.insert((self.tasks[&id].group, id));
            }
        }
    }

    pub(crate) fn waits_staged(&self, id: TaskId) -> bool {
        let binding = self.tasks[&id].binding().filter(|binding| !binding.cancelled);
        matches!(binding.map(|binding| binding.phase), Some(Phase::Fetching | Phase::Fetched))
    }
}

fn same_but_for_room(before: &PathFacts, after: &PathFacts) -> bool {
    let without_room = |facts: &PathFacts| PathFacts { available: 0, covers: Vec::new(), ..facts.clone() };
    without_room(before) == without_room(after)
}
