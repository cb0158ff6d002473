//! What an operator does to running and waiting work: ends it, orders it, has a failed sector tried again. Never: decides
//! by itself that something is to end.

use pipeline::{Rest, SectorEvent};
use rpc::ApiError;
use rpc::api::ApiResult;
use rpc::operator::{AbortOutcome, AbortView, PriorityView};
use rpc::subject::Subject;
use sched::Event;
use sealtasks::{AttemptId, CallId, FailureClass, SectorId, TaskId};
use uuid::Uuid;

use super::input::{Busy, Reply};
use super::{Driver, GivingUp, Phase, Task};
use crate::state::{StateEvent, TaskOutcome};

/// Why a task that never ran has left.
const REMOVED: &str = "removed by the operator";

/// Who asked, for the record, where Lotus's methods do not tell.
const UNNAMED: &str = "a caller of the API";

impl Driver {
    /// An operator ends a call. The task leaves, and the sector waits for the operator.
    pub(super) fn abort_call(&mut self, call: CallId, reply: Reply<()>) {
        let answer =
            self.attempt_named(Subject::Call(call)).and_then(|attempt| self.end_for(attempt, UNNAMED));
        self.answer(reply, answer.map(|_outcome| ()));
    }

    /// The same for an attempt, also one of which no call is known; a task that waits for this attempt is taken out.
    pub(super) fn abort_attempt(&mut self, attempt: AttemptId, reply: Reply<()>) {
        let answer = self.end_for(attempt, UNNAMED);
        self.answer(reply, answer.map(|_outcome| ()));
    }

    /// The same for whatever an operator names, with an answer that says what becomes of it.
    pub(super) fn abort_work(&mut self, what: Subject, by: String, reply: Reply<AbortView>) {
        let answer = self.attempt_named(what).and_then(|attempt| {
            let subject = self.described(attempt.task);
            let open = self.open_mut(attempt).map(|open| open.name.clone());
            let worker =
                open.or_else(|| self.detached.get(&attempt).map(|given_up| given_up.open.name.clone()));
            let outcome = self.end_for(attempt, &by)?;
            Ok(AbortView { attempt, subject, worker, outcome })
        });
        self.answer(reply, answer);
    }

    /// Ends work because of an operator, whose word is kept: it holds also if the manager ends before the worker heard.
    fn end_for(&mut self, attempt: AttemptId, by: &str) -> ApiResult<AbortOutcome> {
        let is_open = self.open_mut(attempt).is_some() || self.detached.contains_key(&attempt);
        let position = self.events.len();
        let outcome = self.end_work(attempt)?;
        if is_open {
            // Before what follows from it.
            self.events.insert(position, StateEvent::AbortAsked { attempt, by: by.to_owned() });
        }
        Ok(outcome)
    }

    /// Ends an attempt, or takes out the task that waits for it.
    fn end_work(&mut self, attempt: AttemptId) -> ApiResult<AbortOutcome> {
        if self.detached.contains_key(&attempt) {
            return Ok(self.abort_detached(attempt));
        }
        let known = self.tasks.get(&attempt.task);
        match known.map(|task| (task.open.as_deref().map(|open| open.id), task.attempts)) {
            Some((Some(open), _)) if open == attempt => Ok(self.abort(attempt)),
            Some((None, made)) if made.checked_add(1) == Some(attempt.attempt) => {
                self.take_out(attempt.task);
                Ok(AbortOutcome::LeftQueue)
            }
            Some(_) | None => Err(ApiError::refused(format!(
                "MGR026: attempt {attempt} neither runs nor waits; `sealing jobs` lists those that do"
            ))),
        }
    }

    fn abort(&mut self, attempt: AttemptId) -> AbortOutcome {
        let Some(open) = self.open_mut(attempt) else { return AbortOutcome::LeftQueue };
        let (scheduled, giving_up, session) = (open.scheduled, open.giving_up, open.worker);
        // Not yet back at a restarted manager: a Lotus worker registers there only when it is quiet, and until then it works.
        let may_run = !open.peer.is_sealyard() && open.phase != Phase::Ready;
        let silent = self.workers.get(&session).is_none_or(|worker| worker.misses > 0);
        match (scheduled, giving_up) {
            // Asked again: the worker may have fallen silent since.
            (true, Some(GivingUp::Abort)) => self.give_up(attempt, GivingUp::Abort),
            (true, _) => self.tell_sched(Event::Cancel { task: attempt.task }),
            (false, _) if may_run => self.detach(attempt),
            (false, _) => self.given_up(attempt, GivingUp::Abort),
        }
        self.drain_sched();
        match (self.open_mut(attempt).is_some(), self.detached.contains_key(&attempt)) {
            (true, _) => AbortOutcome::Stopping,
            (false, true) => AbortOutcome::Detached,
            (false, false) if silent => AbortOutcome::Fenced,
            (false, false) => AbortOutcome::LeftQueue,
        }
    }

    /// An operator takes a queued request out.
    pub(super) fn remove_request(&mut self, request: Uuid, reply: Reply<()>) {
        let queued = self.tasks.values().find(|task| request_id(task.id) == request);
        let answer = match queued.map(|task| (task.id, task.open.is_some())) {
            None => Err(no_request(request)),
            Some((_, true)) => Err(ApiError::refused(format!(
                "MGR024: request {request} is bound already; abort its call instead"
            ))),
            Some((task, false)) => {
                self.take_out(task);
                Ok(())
            }
        };
        self.answer(reply, answer);
    }

    /// A task that no worker has leaves; its sector waits for the operator.
    fn take_out(&mut self, task: TaskId) {
        let Some(removed) = self.tasks.remove(&task) else { return };
        if !removed.held_back {
            self.tell_sched(Event::Cancel { task });
        }
        let (outcome, reason) = (TaskOutcome::Cancelled, REMOVED.to_owned());
        self.events.push(StateEvent::TaskEnded { task, outcome, reason: reason.clone() });
        if removed.is_errand() {
            return self.errand_over(removed.sector.id, Err(reason));
        }
        let (class, now_ms) = (FailureClass::Aborted, self.now_ms());
        self.sector_event(removed.sector.id, SectorEvent::Failed { class, message: reason, now_ms });
    }

    /// An operator orders the tasks of a sector, or one task.
    pub(super) fn set_priority(
        &mut self,
        what: Subject,
        priority: i64,
        by: String,
        reply: Reply<PriorityView>,
    ) {
        let answer = match self.sector_named(what) {
            Err(unclear) => Err(unclear),
            Ok(Some(sector)) => self.set_sector_priority(sector, priority, by),
            Ok(None) => self
                .attempt_named(what)
                .and_then(|attempt| self.set_task_priority(attempt.task, priority, by)),
        };
        self.answer(reply, answer);
    }

    fn set_sector_priority(&mut self, id: SectorId, priority: i64, by: String) -> ApiResult<PriorityView> {
        let Some(sector) = self.sectors.get_mut(&id) else { return Err(self.shared.no_sector(id)) };
        let before = std::mem::replace(&mut sector.priority, priority);
        self.events.push(StateEvent::SectorPrioritySet { sector: id, priority, by });
        let of_it = self.tasks.values().filter(|task| task.sector.id == id);
        let tasks: Vec<_> = of_it.filter(|task| task.priority.is_none()).map(|task| task.id).collect();
        for task in &tasks {
            self.tell_priority(*task, priority);
        }
        let subject = format!("sector {}", self.shared.name(id));
        Ok(PriorityView { subject, before, priority, tasks: tasks.len() as u64 })
    }

    fn set_task_priority(&mut self, id: TaskId, priority: i64, by: String) -> ApiResult<PriorityView> {
        let (subject, before) = (self.described(id), self.asking().priority(id));
        let Some(task) = self.tasks.get_mut(&id) else {
            return Err(ApiError::refused(format!(
                "MGR028: {subject} has ended; only its sector has a priority now"
            )));
        };
        task.priority = Some(priority);
        self.events.push(StateEvent::TaskPrioritySet { task: id, priority, by });
        self.tell_priority(id, priority);
        Ok(PriorityView { subject, before, priority, tasks: 1 })
    }

    /// The scheduler does not know tasks whose worker has not come back, nor those that are held back; it learns of
    /// their priority together with them.
    fn tell_priority(&mut self, task: TaskId, priority: i64) {
        let known = self
            .tasks
            .get(&task)
            .is_some_and(|task| !task.held_back && task.open.as_deref().is_none_or(|open| open.scheduled));
        if known {
            self.tell_sched(Event::SetPriority { task, priority });
        }
    }

    fn sector_named(&self, what: Subject) -> ApiResult<Option<SectorId>> {
        match what {
            Subject::Number(number) => self.numbered(number).map(Some),
            Subject::Sector(sector) => Ok(Some(sector)),
            Subject::Task(_) | Subject::Attempt(_) | Subject::Call(_) | Subject::Request(_) => Ok(None),
        }
    }

    /// The attempt that is meant: the open one of a task, or the one that it waits for.
    fn attempt_named(&self, what: Subject) -> ApiResult<AttemptId> {
        let of_task = |id: TaskId| {
            let given_up = || self.detached.keys().find(|attempt| attempt.task == id).copied();
            self.tasks.get(&id).map(|task| task.present()).or_else(given_up)
        };
        match what {
            Subject::Attempt(attempt) => Ok(attempt),
            Subject::Task(task) => of_task(task).ok_or_else(|| {
                ApiError::refused(format!(
                    "MGR029: task {task} neither runs nor waits; `sealing jobs` lists those that do"
                ))
            }),
            Subject::Call(call) => self.calls.get(&call).map(|(attempt, _)| *attempt).ok_or_else(|| {
                ApiError::refused(format!(
                    "MGR022: no running call {call}; `sealing jobs` lists those that run"
                ))
            }),
            Subject::Request(request) => {
                let queued = self.tasks.values().find(|task| request_id(task.id) == request);
                queued.map(|task| task.present()).ok_or_else(|| no_request(request))
            }
            Subject::Number(number) => self.attempt_of(self.numbered(number)?),
            Subject::Sector(sector) => self.attempt_of(sector),
        }
    }

    /// The attempt that a sector waits for; it does one thing at a time.
    fn attempt_of(&self, id: SectorId) -> ApiResult<AttemptId> {
        let Some(sector) = self.sectors.get(&id) else { return Err(self.shared.no_sector(id)) };
        let task = match sector.busy {
            Busy::Task(task) => self.tasks.get(&task),
            Busy::Free | Busy::Asking | Busy::Until(_) | Busy::File(_) | Busy::Stage => None,
        };
        task.map(|task| task.present()).ok_or_else(|| {
            let number = self.shared.name(id);
            ApiError::refused(format!(
                "MGR074: sector {number} has no task that runs or waits; `sealyard sectors status {number}` shows where it \
                 is"
            ))
        })
    }

    /// A task in words.
    fn described(&self, id: TaskId) -> String {
        let live = self.tasks.get(&id).map(|task| (super::sectors::short_code(&task.work), task.sector.id));
        let given_up = || {
            let found = self.detached.values().find(|given_up| given_up.open.id.task == id);
            found.map(|given_up| (given_up.task_type.short(), given_up.sector.id))
        };
        match live.or_else(given_up) {
            Some((step, sector)) => format!("task {id} ({step} of sector {})", self.shared.name(sector)),
            None => format!("task {id}"),
        }
    }

    /// A failed sector goes on now, and may fail again as often as a new one; so does one that has stopped where it was to.
    pub(super) fn retry_sector(&mut self, sector: SectorId, reply: Reply<()>) {
        let event = self.sectors.get(&sector).map(|known| match known.record.rest() {
            Some(Rest::StoppedAfterPc2 | Rest::StoppedAfterC1) => SectorEvent::Release,
            _ => SectorEvent::RetryNow,
        });
        let answer = match event {
            Some(event) => self.try_sector_event(sector, event).map_err(|refusal| {
                ApiError::refused(format!(
                    "MGR027: {refusal}; only a sector that failed, or stopped where it was to, is retried"
                ))
            }),
            None => Err(self.shared.no_sector(sector)),
        };
        self.answer(reply, answer);
    }
}

impl Task {
    /// The attempt that is open, or that would be next.
    fn present(&self) -> AttemptId {
        let next = AttemptId { task: self.id, attempt: self.attempts.saturating_add(1) };
        self.open.as_deref().map_or(next, |open| open.id)
    }
}

fn no_request(request: Uuid) -> ApiError {
    ApiError::refused(format!("MGR023: no request {request}; `sealing jobs` lists them"))
}

/// Lotus names a queued request by a UUID; ours is made from the task's id.
pub(super) fn request_id(task: TaskId) -> Uuid {
    /// Any fixed number: it only keeps the id from being nil.
    const NAMESPACE: u64 = 0x5365_616c_7961_7264;
    Uuid::from_u64_pair(NAMESPACE, task.get())
}
