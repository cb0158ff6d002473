//! What a draining worker, or one whose plans do not take the sector, still takes: tasks on files within its reach that nobody else sees to. Files on shared paths would
//! keep it busy for ever otherwise: new tasks for them come as long as there is work. Never: ends a drain; whoever asked for
//! it looks at [`crate::Drain`].
//!
//! Another worker sees to a task if it is usable and not draining itself, has a plan for the sector, offers the type, is large enough for one such task
//! while nothing else runs there, reaches every one of the files that the draining worker reaches, and has the paths that the
//! task's new files need. Whether it has room just now does not count: it will have. A file that others would have to fetch
//! lives with the draining worker alone.

use sealtasks::{PathType, SealTaskType};

use crate::class::{ClassFile, ClassKey};
use crate::ledger::Tally;
use crate::worker::Worker;
use crate::{Event, ExistingRule, GroupCap, Obstacle, PathFacts, Sched, WorkerMode, WorkerProfile};

impl Sched {
    /// Whether the worker's mode and plans let such a task come.
    ///
    /// # Errors
    /// What they say against it.
    pub(crate) fn admitted(&self, key: &ClassKey, slot: usize) -> Result<(), Obstacle> {
        let worker = self.workers.get(slot);
        match worker.mode {
            // Whether a disabled worker may be used at all is asked elsewhere.
            WorkerMode::Disabled => Ok(()),
            WorkerMode::Draining if key.lives_with(worker) && !self.others_see_to(key, slot) => Ok(()),
            WorkerMode::Draining => Err(Obstacle::Draining),
            WorkerMode::Cordoned if !key.needs_no_file() && !key.lives_with(worker) => {
                Err(Obstacle::Cordoned)
            }
            WorkerMode::Open | WorkerMode::Cordoned => match worker.other_plan(key) {
                Some(_) if key.lives_with(worker) && !self.others_see_to(key, slot) => Ok(()),
                other => other.map_or(Ok(()), Err),
            },
        }
    }

    /// Whether another worker would do such a task, which reads files within this one's reach, without moving them.
    pub(crate) fn others_see_to(&self, key: &ClassKey, slot: usize) -> bool {
        let worker = self.workers.get(slot);
        let here = |file: &&ClassFile| self.is_within(file, worker);
        let files: Vec<_> = key.existing.iter().flat_map(|existing| &existing.files).filter(here).collect();
        let Some(first) = files.first() else { return false };
        let holders = first.held_by.iter().flat_map(|path| self.paths.get(*path).workers());
        holders.filter(|other| **other != slot).any(|other| {
            let other_worker = self.workers.get(*other);
            files.iter().all(|file| self.is_within(file, other_worker)) && self.could_see_to(key, *other)
        })
    }

    fn is_within(&self, file: &ClassFile, worker: &Worker) -> bool {
        let mut paths = file.held_by.iter();
        paths.any(|path| worker.reaches(*path) && self.paths.get(*path).facts().is_some())
    }

    fn could_see_to(&self, key: &ClassKey, slot: usize) -> bool {
        let worker = self.workers.get(slot);
        if !worker.is_usable() || worker.mode == WorkerMode::Draining || !worker.offers(key.task) {
            return false;
        }
        if !worker.profile.takes(key.purpose) {
            return false;
        }
        let kind = SealTaskType { task: key.task, proof: key.proof };
        let ask = worker.ask(kind, &self.options.resources);
        let forbids = |(_, cap): (_, &GroupCap)| cap.most == 0 && cap.tasks.contains(&key.task);
        let moves_to = key.existing.as_ref().and_then(|existing| match existing.rule {
            ExistingRule::MoveTo(path_type) => Some(path_type),
            ExistingRule::Here | ExistingRule::PartlyHere(_) | ExistingRule::Fetch(_) => None,
        });
        let mut needed = key.allocate.iter().map(|(path_type, _)| *path_type).chain(moves_to);
        let has = |path_type: PathType| {
            let mut paths = worker.paths.iter().copied();
            paths.any(|path| {
                self.paths.get(path).is_for(path_type) && self.may_begin_in(key, worker, path, path_type)
            })
        };
        Tally::default().fits(&ask, &worker.capacity.without_others())
            && !self.caps(slot).any(forbids)
            && needed.all(has)
    }

    /// Follows the worker's mode and plans.
    pub(crate) fn note_drain(&mut self, slot: usize) {
        let worker = self.workers.get(slot);
        let leaves_to_others = worker.mode == WorkerMode::Draining || !worker.profile.takes_all();
        if leaves_to_others && !worker.lost {
            self.draining.insert(slot);
        } else {
            self.draining.remove(&slot);
        }
    }

    /// Whether this event, which has yet to be taken in, may change what others see to.
    pub(crate) fn concerns_drains(&self, event: &Event) -> bool {
        if self.draining.is_empty() {
            return false;
        }
        match event {
            Event::WorkerChanged { worker, profile } => {
                let before = self.workers.slot(*worker).map(|slot| &self.workers.get(slot).profile);
                before.is_some_and(|before| able_parts(before) != able_parts(profile))
            }
            Event::PathSeen { path } => {
                let before = self.paths.find(&path.id).and_then(|at| self.paths.get(at).facts());
                let uses = |facts: &PathFacts| (facts.can_seal, facts.can_store);
                before.map(uses) != Some(uses(path))
            }
            Event::WorkerUp { .. }
            | Event::WorkerLost { .. }
            | Event::WorkerEnabled { .. }
            | Event::WorkerMode { .. }
            | Event::WorkerSuspect { .. }
            | Event::MachineCaps { .. }
            | Event::PathGone { .. } => true,
            Event::Submit { .. }
            | Event::Cancel { .. }
            | Event::SetPriority { .. }
            | Event::SetDeadline { .. }
            | Event::PolicySet { .. }
            | Event::SectorFiles { .. }
            | Event::Started { .. }
            | Event::StageDone { .. }
            | Event::Ended { .. }
            | Event::StartFailed { .. }
            | Event::Adopt { .. }
            | Event::Tick => false,
        }
    }

    /// What others no longer see to may come to the draining workers.
    pub(crate) fn look_at_drains(&mut self) {
        let slots: Vec<usize> = self.draining.iter().copied().collect();
        for slot in slots {
            self.look_again_near(slot);
            self.dirty.insert(slot);
        }
        self.world += 1;
    }
}

/// All of a profile but what changes from report to report.
fn able_parts(profile: &WorkerProfile) -> WorkerProfile {
    WorkerProfile { mem_used: 0, swap_used: 0, bandwidth: 0, durations: Vec::new(), ..profile.clone() }
}
