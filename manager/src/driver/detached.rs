//! Attempts that were given up while a worker still works on them: by an operator on a Lotus worker, which cannot be told to
//! stop, and at a start by a manager whose sector waits for something else. The task ends here, and all that the attempt
//! holds stays charged until the worker returns it or proves by a new registration that it is quiet. Never: takes such a
//! result.

use pipeline::SectorEvent;
use rpc::operator::{AbortOutcome, RestTask};
use rpc::{ReturnMethod, Returned};
use sched::{Event, Outcome};
use sealtasks::{AttemptId, CallId, FailureClass, SectorId, SectorRef, TaskType, WorkerId};

use super::returns::returned_by;
use super::{Attempt, Driver, Phase};
use crate::state::{AttemptOutcome, CallStage, StateEvent, TaskOutcome};
use crate::workers::Introduction;

/// Why the task ended; Lotus's words.
const ABORTED: &str = "task aborted";

/// An attempt without a task.
pub(crate) struct Detached {
    pub(super) open: Attempt,
    pub(super) sector: SectorRef,
    pub(super) task_type: TaskType,
    /// What its call returns with; `None` = not known any more, after a restart.
    pub(super) method: Option<ReturnMethod>,
}

impl Detached {
    /// Who may still work on it, for people.
    pub(super) fn whom(&self) -> String {
        let kind = if self.open.peer.is_sealyard() { "worker" } else { "Lotus worker" };
        format!("{kind} {}", self.open.name)
    }
}

impl Driver {
    /// Ends the task of an open attempt and keeps the attempt.
    pub(super) fn detach(&mut self, attempt: AttemptId) {
        if self.open_mut(attempt).is_none() {
            return;
        }
        let Some(mut task) = self.tasks.remove(&attempt.task) else { return };
        self.bound.remove(&attempt.task);
        let (Some(open), Some(task_type)) = (task.open.take(), task.work.task_type()) else { return };
        let stage = match open.phase {
            Phase::Calling(stage) | Phase::Held(stage, _) => stage,
            Phase::Ready => CallStage::Work,
        };
        let method = returned_by(&task.work, stage);
        tracing::warn!(%attempt, worker = open.name, "given up; what it holds stays charged until its Lotus worker is quiet");
        let reason = format!(
            "given up; the Lotus worker {} cannot be told to stop, and what it holds stays charged until that worker \
             returns it or registers again",
            open.name
        );
        self.events.push(StateEvent::AttemptDetached { attempt, reason });
        let (task_id, outcome) = (attempt.task, TaskOutcome::Cancelled);
        self.events.push(StateEvent::TaskEnded { task: task_id, outcome, reason: ABORTED.to_owned() });
        self.detached.insert(attempt, Detached { open: *open, sector: task.sector, task_type, method });
        if task.is_errand() {
            return self.errand_over(task.sector.id, Err(ABORTED.to_owned()));
        }
        let (class, now_ms) = (FailureClass::Aborted, self.now_ms());
        self.sector_event(task.sector.id, SectorEvent::Failed { class, message: ABORTED.to_owned(), now_ms });
    }

    /// Its worker returned the call; the result is not taken.
    pub(super) fn detached_returned(
        &mut self,
        attempt: AttemptId,
        stage: CallStage,
        call: CallId,
        returned: &Returned,
    ) {
        if self.calls.remove(&call).is_some() {
            let error = returned.result.as_ref().err().map(ToString::to_string);
            let (work_ms, bytes_fetched) = (0, 0);
            self.events.push(StateEvent::CallReturned {
                attempt,
                call,
                stage,
                error,
                work_ms,
                bytes_fetched,
            });
        }
        self.end_detached(attempt, "given up; its worker has returned it since");
    }

    /// An attempt of this sector that was given up before anybody heard of its call.
    pub(super) fn detached_unheard(
        &self,
        sector: SectorId,
        method: ReturnMethod,
    ) -> Option<(AttemptId, CallStage)> {
        self.detached.values().filter(|given_up| given_up.sector.id == sector).find_map(|given_up| {
            let Phase::Calling(stage) = given_up.open.phase else { return None };
            given_up.method.is_none_or(|known| known == method).then_some((given_up.open.id, stage))
        })
    }

    /// Those that a worker which registers proves to have ended: it is a new process at the same address, or the same
    /// one, which registers at a new manager only when it is quiet.
    pub(super) fn proven_quiet(&self, introduction: &Introduction) -> Vec<AttemptId> {
        if introduction.was_redialled() {
            return Vec::new();
        }
        let quiet = |given_up: &&Detached| {
            let open = &given_up.open;
            let call = match open.phase {
                Phase::Held(_, call) => Some(call),
                Phase::Calling(_) | Phase::Ready => None,
            };
            // A Sealyard registers busy or not, and says what it has: it is told to stop that.
            if introduction.held(open.id, call) {
                return false;
            }
            if open.worker == introduction.session {
                !open.scheduled
            } else {
                introduction.replaces(&open.url, open.peer)
            }
        };
        self.detached.values().filter(quiet).map(|given_up| given_up.open.id).collect()
    }

    /// An operator asks again. A worker that answers is waited for; of one that does not, nothing can be waited for.
    pub(super) fn abort_detached(&mut self, attempt: AttemptId) -> AbortOutcome {
        let worker = self.detached.get(&attempt).map(|given_up| given_up.open.worker);
        let answers =
            worker.and_then(|session| self.workers.get(&session)).is_some_and(|worker| worker.misses == 0);
        if answers {
            return AbortOutcome::Detached;
        }
        self.end_detached(attempt, "given up; its worker does not answer");
        AbortOutcome::Fenced
    }

    /// Everything that it held is free, and what waited for that goes on.
    pub(super) fn end_detached(&mut self, attempt: AttemptId, reason: &str) {
        let Some(ended) = self.detached.remove(&attempt) else { return };
        tracing::info!(%attempt, worker = ended.open.name, reason, "everything that it held is free");
        ended.open.over.cancel();
        self.silence.away.remove(&attempt);
        self.calls.retain(|_, (of, _)| *of != attempt);
        let (outcome, reason) = (AttemptOutcome::Aborted, reason.to_owned());
        self.events.push(StateEvent::AttemptEnded { attempt, outcome, reason });
        if ended.open.scheduled {
            self.tell_sched(Event::Ended { attempt, outcome: Outcome::Failed });
        }
        let of_it = self.tasks.values().filter(|task| task.sector.id == ended.sector.id);
        let held_back = of_it.filter(|task| task.held_back && task.in_line.is_none());
        let waiting: Vec<_> = held_back.map(|task| task.id).collect();
        for task in waiting {
            self.submit(task);
        }
    }

    /// The attempt for which a sector's tasks are not even given to the scheduler: it was given up in an earlier life of
    /// the manager, so the scheduler knows nothing of its locks.
    pub(super) fn holding_back(&self, sector: SectorId) -> Option<&Detached> {
        self.detached.values().find(|given_up| given_up.sector.id == sector && !given_up.open.scheduled)
    }

    /// What a worker still has, though nobody waits for it.
    pub(super) fn detached_rest(&self, session: WorkerId) -> impl Iterator<Item = RestTask> {
        let here = self.detached.values().filter(move |given_up| given_up.open.worker == session);
        here.map(move |given_up| RestTask {
            attempt: given_up.open.id,
            sector: self.shared.name(given_up.sector.id),
            task: given_up.task_type,
            stage: "running".to_owned(),
        })
    }
}
