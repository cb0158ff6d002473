//! What an operator does to running and waiting work: ends an attempt, takes a task out, has a failed sector tried again.
//! Never: decides by itself that something is to end.

use pipeline::SectorEvent;
use rpc::ApiError;
use sched::Event;
use sealtasks::{AttemptId, CallId, FailureClass, SectorId, TaskId};
use uuid::Uuid;

use super::input::Reply;
use super::{Driver, GivingUp};
use crate::state::{StateEvent, TaskOutcome};

/// Why a task that never ran has left.
const REMOVED: &str = "removed by the operator";

impl Driver {
    /// An operator ends a call. The task leaves, and the sector waits for the operator.
    pub(super) fn abort_call(&mut self, call: CallId, reply: Reply<()>) {
        let answer = match self.calls.get(&call).copied() {
            Some((attempt, _)) => {
                self.abort(attempt);
                Ok(())
            }
            None => {
                let message = format!("MGR022: no running call {call}; `sealing jobs` lists those that run");
                Err(ApiError::refused(message))
            }
        };
        self.answer(reply, answer);
    }

    /// The same for an attempt, also one of which no call is known; a task that waits for this attempt is taken out.
    pub(super) fn abort_attempt(&mut self, attempt: AttemptId, reply: Reply<()>) {
        let known = self.tasks.get(&attempt.task);
        let answer = match known.map(|task| (task.open.as_ref().map(|open| open.id), task.attempts)) {
            Some((Some(open), _)) if open == attempt => {
                self.abort(attempt);
                Ok(())
            }
            Some((None, made)) if made.checked_add(1) == Some(attempt.attempt) => {
                self.take_out(attempt.task);
                Ok(())
            }
            Some(_) | None => Err(ApiError::refused(format!(
                "MGR026: attempt {attempt} neither runs nor waits; `sealing jobs` lists those that do"
            ))),
        };
        self.answer(reply, answer);
    }

    fn abort(&mut self, attempt: AttemptId) {
        let Some(open) = self.open_mut(attempt) else { return };
        match (open.scheduled, open.giving_up) {
            // Asked again: the worker may have fallen silent since.
            (true, Some(GivingUp::Abort)) => self.give_up(attempt, GivingUp::Abort),
            (true, _) => self.tell_sched(Event::Cancel { task: attempt.task }),
            (false, _) => self.given_up(attempt, GivingUp::Abort),
        }
    }

    /// An operator takes a queued request out.
    pub(super) fn remove_request(&mut self, request: Uuid, reply: Reply<()>) {
        let queued = self.tasks.values().find(|task| request_id(task.id) == request);
        let answer = match queued.map(|task| (task.id, task.open.is_some())) {
            None => {
                Err(ApiError::refused(format!("MGR023: no request {request}; `sealing jobs` lists them")))
            }
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
        let Some(sector) = self.tasks.remove(&task).map(|task| task.sector.id) else { return };
        self.tell_sched(Event::Cancel { task });
        let (outcome, reason) = (TaskOutcome::Cancelled, REMOVED.to_owned());
        self.events.push(StateEvent::TaskEnded { task, outcome, reason: reason.clone() });
        let (class, now_ms) = (FailureClass::Aborted, self.now_ms());
        self.sector_event(sector, SectorEvent::Failed { class, message: reason, now_ms });
    }

    /// A failed sector goes on now, and may fail again as often as a new one.
    pub(super) fn retry_sector(&mut self, sector: SectorId, reply: Reply<()>) {
        let answer = if self.sectors.contains_key(&sector) {
            self.try_sector_event(sector, SectorEvent::RetryNow)
                .map_err(|refusal| format!("MGR027: {refusal}; only a failed sector is retried"))
        } else {
            Err(format!("MGR053: no sector {}; `sealyard sectors list` lists them", sector.number))
        };
        self.answer(reply, answer.map_err(ApiError::refused));
    }
}

/// Lotus names a queued request by a UUID; ours is made from the task's id.
pub(super) fn request_id(task: TaskId) -> Uuid {
    /// Any fixed number: it only keeps the id from being nil.
    const NAMESPACE: u64 = 0x5365_616c_7961_7264;
    Uuid::from_u64_pair(NAMESPACE, task.get())
}
