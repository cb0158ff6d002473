//! What each event must do, by the documents: the same story as the scheduler's, told in the simplest way.

use sealtasks::{AttemptId, FileType, SectorId, StorageId, TaskId};

use super::coverage::Place;
use super::model::{Bound, Charge, Held, Load, Path, Task, Worker};
use super::oracle::Oracle;
use crate::{
    End, Event, Millis, Outcome, PathBytes, PathFacts, Request, Stage, WorkerKey, WorkerMode, WorkerProfile,
};

impl Oracle {
    pub(super) fn apply(&mut self, event: &Event) {
        let sensible = match event {
            Event::Submit { task, request } => self.submit(*task, request),
            Event::Cancel { task } => self.cancel(*task),
            Event::SetPriority { task, priority } => {
                let task = self.model.tasks.get_mut(task);
                task.map(|task| task.request.priority = *priority).is_some()
            }
            Event::SetDeadline { task, deadline } => self.set_deadline(*task, *deadline),
            Event::WorkerUp { worker, profile } => self.worker_up(*worker, profile),
            Event::WorkerChanged { worker, profile } => {
                self.live(*worker).map(|worker| worker.profile = profile.clone()).is_some()
            }
            Event::WorkerLost { worker } => self.worker_lost(*worker),
            Event::WorkerEnabled { worker, enabled } => {
                self.live(*worker).map(|worker| worker.enabled = *enabled).is_some()
            }
            Event::WorkerMode { worker, mode } => {
                self.live(*worker).map(|worker| worker.mode = *mode).is_some()
            }
            Event::WorkerSuspect { worker, suspect } => {
                self.live(*worker).map(|worker| worker.suspect = *suspect).is_some()
            }
            Event::MachineCaps { machine, caps } => {
                self.model.machine_caps.insert(machine.clone(), caps.clone());
                true
            }
            Event::PathSeen { path } => self.path_seen(path),
            Event::PathGone { path } => {
                self.model.path_mut(path).facts = None;
                true
            }
            Event::SectorFiles { sector, kind, paths } => self.sector_files(*sector, *kind, paths),
            Event::Started { attempt } => self.bound(*attempt).map(|bound| bound.accepted = true).is_some(),
            Event::StageDone { attempt } => self.stage_done(*attempt),
            Event::Ended { attempt, outcome } => self.ended(*attempt, *outcome),
            Event::StartFailed { attempt, not_before, .. } => self.start_failed(*attempt, *not_before),
            Event::Adopt { attempt, worker, request, holds } => self.adopt(*attempt, *worker, request, holds),
            Event::PolicySet { .. } | Event::Tick => true,
        };
        self.pending.refuse = !sensible;
        self.coverage.refused += u64::from(!sensible);
    }

    fn bound(&mut self, attempt: AttemptId) -> Option<&mut Bound> {
        let bound = self.model.tasks.get_mut(&attempt.task).and_then(Task::bound_mut);
        bound.filter(|bound| bound.attempt == attempt)
    }

    fn live(&mut self, worker: WorkerKey) -> Option<&mut Worker> {
        self.model.workers.get_mut(&worker).filter(|worker| !worker.lost)
    }

    fn submit(&mut self, id: TaskId, request: &Request) -> bool {
        if self.model.tasks.contains_key(&id) {
            return false;
        }
        self.admit(id, request);
        true
    }

    fn admit(&mut self, id: TaskId, request: &Request) {
        let sector = self.model.sectors.entry(request.sector.id).or_default();
        sector.tasks.push(id);
        for file in request.needs.existing.iter().flat_map(|existing| &existing.files) {
            sector.files.insert(file.kind, file.held_by.clone());
        }
        let highest = self.model.highest.entry(id).or_default();
        *highest = request.attempts.max(*highest);
        let task = Task {
            request: request.clone(),
            due_at: self.due_at(request),
            place: Held::Waiting { not_before: Millis::ZERO },
            was_unstaged: false,
        };
        self.model.tasks.insert(id, task);
    }

    fn cancel(&mut self, id: TaskId) -> bool {
        let Some(task) = self.model.tasks.get_mut(&id) else { return false };
        match &mut task.place {
            Held::Waiting { .. } => self.leave(id, End::Cancelled),
            Held::Bound(bound) if bound.is_cancelled => {}
            Held::Bound(bound) => {
                bound.is_cancelled = true;
                self.pending.abort = Some(bound.attempt);
            }
        }
        true
    }

    fn set_deadline(&mut self, id: TaskId, deadline: Option<Millis>) -> bool {
        let Some(task) = self.model.tasks.get_mut(&id) else { return false };
        task.request.deadline = deadline;
        let request = task.request.clone();
        let due_at = self.due_at(&request);
        if let Some(task) = self.model.tasks.get_mut(&id) {
            task.due_at = due_at;
        }
        true
    }

    fn leave(&mut self, id: TaskId, end: End) {
        let Some(task) = self.model.tasks.remove(&id) else { return };
        let sector = task.request.sector.id;
        if let Some(state) = self.model.sectors.get_mut(&sector) {
            state.tasks.retain(|other| *other != id);
            if state.tasks.is_empty() {
                self.model.sectors.remove(&sector);
            }
        }
        self.coverage.left(id, end);
        self.pending.left = Some((id, end));
    }

    fn worker_up(&mut self, key: WorkerKey, profile: &WorkerProfile) -> bool {
        // One process lives once: an earlier life ends, and hands its mode on; a later one stands.
        let lives: Vec<WorkerKey> =
            self.model.workers.keys().filter(|other| other.session == key.session).copied().collect();
        if lives.iter().any(|other| *other >= key) {
            return false;
        }
        let mode = lives.last().map_or(WorkerMode::Open, |last| self.model.workers[last].mode);
        for earlier in lives {
            self.worker_lost(earlier);
        }
        let worker = Worker {
            profile: profile.clone(),
            enabled: true,
            mode,
            suspect: false,
            lost: false,
            load: Load::default(),
            started: Default::default(),
        };
        self.model.workers.insert(key, worker);
        true
    }

    fn worker_lost(&mut self, key: WorkerKey) -> bool {
        let Some(worker) = self.live(key) else { return false };
        worker.lost = true;
        self.drop_if_gone(key);
        true
    }

    fn drop_if_gone(&mut self, key: WorkerKey) {
        if self.model.workers.get(&key).is_some_and(|worker| worker.lost && worker.load.bound == 0) {
            self.model.workers.remove(&key);
        }
    }

    fn path_seen(&mut self, facts: &PathFacts) -> bool {
        for attempt in &facts.covers {
            let Some(bound) = self.bound(*attempt) else { continue };
            let mut covered = 0u128;
            for (_, bytes, is_covered) in
                bound.space.iter_mut().filter(|(path, _, is_covered)| *path == facts.id && !is_covered)
            {
                *is_covered = true;
                covered += u128::from(*bytes);
            }
            self.model.path_mut(&facts.id).promised -= covered;
        }
        self.model.path_mut(&facts.id).facts = Some(facts.clone());
        true
    }

    fn sector_files(&mut self, sector: SectorId, kind: FileType, paths: &[StorageId]) -> bool {
        if let Some(sector) = self.model.sectors.get_mut(&sector) {
            sector.files.insert(kind, paths.to_vec());
        }
        true
    }

    fn stage_done(&mut self, attempt: AttemptId) -> bool {
        let Some(bound) = self.bound(attempt) else { return false };
        if bound.stage == Stage::Fetching {
            bound.stage = Stage::Fetched;
            self.coverage.moved(attempt.task, Place::Fetched);
        }
        true
    }

    /// Gives back what an attempt held. `is_used`: its files may lie where its room was promised.
    fn unbind(&mut self, attempt: AttemptId, is_used: bool) -> Option<Bound> {
        let task = self.model.tasks.get_mut(&attempt.task)?;
        let kind = task.kind();
        task.bound().filter(|bound| bound.attempt == attempt)?;
        let waiting = Held::Waiting { not_before: Millis::ZERO };
        let Held::Bound(bound) = std::mem::replace(&mut task.place, waiting) else { return None };
        if let Some(worker) = self.model.workers.get_mut(&bound.worker) {
            worker.load.bound -= 1;
            match &bound.charge {
                Some(charge) => worker.load.release(kind, charge),
                None => worker.load.staged -= 1,
            }
        }
        for (path, bytes, _) in bound.space.iter().filter(|(_, _, is_covered)| !is_covered) {
            let Path { facts, promised, .. } = self.model.path_mut(path);
            *promised -= u128::from(*bytes);
            if let Some(facts) = facts.as_mut().filter(|_| is_used) {
                facts.available = facts.available.saturating_sub_unsigned(*bytes);
            }
        }
        Some(*bound)
    }

    fn ended(&mut self, attempt: AttemptId, outcome: Outcome) -> bool {
        let Some(accepted) = self.bound(attempt).map(|bound| bound.accepted) else { return false };
        let Some(bound) = self.unbind(attempt, accepted) else { return false };
        let id = attempt.task;
        match outcome {
            Outcome::Finished => self.leave(id, End::Finished),
            _ if bound.is_cancelled => self.leave(id, End::Cancelled),
            Outcome::Failed => self.leave(id, End::Failed),
            Outcome::Retry { not_before } => self.wait(id, not_before, false),
            Outcome::Unstaged => self.wait(id, Millis::ZERO, true),
        }
        self.drop_if_gone(bound.worker);
        true
    }

    fn start_failed(&mut self, attempt: AttemptId, not_before: Millis) -> bool {
        let Some(bound) = self.unbind(attempt, false) else { return false };
        if bound.is_cancelled {
            self.leave(attempt.task, End::Cancelled);
        } else {
            self.wait(attempt.task, not_before, true);
        }
        self.drop_if_gone(bound.worker);
        true
    }

    fn wait(&mut self, id: TaskId, not_before: Millis, may_be_reserved: bool) {
        if let Some(task) = self.model.tasks.get_mut(&id) {
            task.place = Held::Waiting { not_before };
            task.was_unstaged |= may_be_reserved;
            let place = if not_before > self.model.now { Place::Delayed } else { Place::Ready };
            self.coverage.moved(id, place);
        }
    }

    fn adopt(
        &mut self,
        attempt: AttemptId,
        worker: WorkerKey,
        request: &Request,
        holds: &[PathBytes],
    ) -> bool {
        if self.live(worker).is_none() {
            return false;
        }
        let id = attempt.task;
        let (mut is_cancelled, mut left) = (false, None);
        match self.model.tasks.get(&id).map(|task| task.bound().map(|bound| bound.attempt)) {
            None => self.admit(id, request),
            Some(Some(bound)) if bound != attempt => return false,
            Some(Some(_)) => {
                let before = self.unbind(attempt, false);
                is_cancelled = before.as_ref().is_some_and(|bound| bound.is_cancelled);
                left = before.map(|bound| bound.worker);
            }
            Some(None) if self.model.highest.get(&id).is_some_and(|highest| *highest > attempt.attempt) => {
                return false;
            }
            Some(None) => {}
        }
        let highest = self.model.highest.entry(id).or_default();
        *highest = attempt.attempt.max(*highest);
        for hold in holds {
            self.model.path_mut(&hold.path).promised += u128::from(hold.bytes);
        }
        let space = holds.iter().map(|hold| (hold.path.clone(), hold.bytes, false)).collect();
        let charge: Option<Charge> = self.charge_for(attempt, worker, &[]);
        self.bind(Bound {
            attempt,
            worker,
            stage: Stage::Running,
            accepted: true,
            is_cancelled,
            charge,
            space,
        });
        self.pending.adopted = Some(attempt);
        if let Some(left) = left {
            self.drop_if_gone(left);
        }
        true
    }
}
