//! Results: matched to the attempt they belong to, however they arrive, and acknowledged after the commit. A repeated, a
//! superseded and an unknown one get the same acknowledgement. Never: tells a worker that its result is refused.

use pipeline::SectorEvent;
use rpc::{ReturnMethod, Returned};
use sched::Event;
use sealtasks::{AttemptId, CallError, CallErrorCode, CallId, FailureClass, SectorId, TaskInput, TaskOutput};

use super::input::{Effect, Reply};
use super::restart::Kept;
use super::{Driver, EARLY_MAX, Early, GivingUp, Phase};
use crate::request;
use crate::state::{AttemptOutcome, CallRow, CallStage, StateEvent};

/// What a worker says of a call that somebody stopped.
const ABORTED: &str = "task aborted";

impl Driver {
    pub(super) fn returned(&mut self, call: CallId, returned: Returned, reply: Reply<()>) {
        if let Some((attempt, stage)) = self.calls.get(&call).copied() {
            self.finish_call(attempt, stage, call, returned);
            return self.answer(reply, Ok(()));
        }
        // A Sealyard worker names the attempt, so its return may overtake its answer to our call.
        let named = returned.attempt.and_then(|attempt| self.calling(attempt, returned.method));
        if let Some((attempt, stage)) = named.filter(|(attempt, _)| self.is_about(*attempt, call.sector)) {
            self.accepted_unheard(attempt, stage, call);
            self.finish_call(attempt, stage, call, returned);
            return self.answer(reply, Ok(()));
        }
        let returned = Box::new(returned);
        self.effects.push(Effect::LookUp { call, returned, reply });
    }

    /// A Lotus worker's return of a call that nobody heard of is known by its sector and method alone: of one that names its
    /// attempt, or whose call is known, it would be another attempt's. One that names an attempt which was given up is its.
    fn returned_unheard(&mut self, call: CallId, returned: &Returned) -> bool {
        if let Some(named) = returned.attempt {
            let given_up = self.detached.get(&named).is_some_and(|it| it.sector.id == call.sector);
            if given_up {
                self.detached_returned(named, CallStage::Work, call, returned);
            }
            return given_up;
        }
        if let Some((attempt, stage)) = self.unheard(call.sector, returned.method) {
            self.accepted_unheard(attempt, stage, call);
            self.finish_call(attempt, stage, call, returned.clone());
            return true;
        }
        let given_up = self.detached_unheard(call.sector, returned.method);
        if let Some((attempt, stage)) = given_up {
            self.detached_returned(attempt, stage, call, returned);
        }
        given_up.is_some()
    }

    /// The durable state was asked whether the call is known.
    pub(super) fn returned_old(
        &mut self,
        call: CallId,
        returned: Returned,
        row: Option<CallRow>,
        reply: Reply<()>,
    ) {
        // The answer to our call may have come while the row was looked up.
        if self.calls.contains_key(&call) {
            return self.returned(call, returned, reply);
        }
        if row.is_none() && !self.returned_unheard(call, &returned) {
            tracing::warn!(%call, method = returned.method.short_name(), "an unknown call was returned; it is kept");
            let method = returned.method.short_name().to_owned();
            let (attempt, result) = (returned.attempt, returned.result.clone());
            let kept = Kept { method: method.clone(), attempt, result };
            let result = serde_json::to_value(&kept).unwrap_or_default();
            self.events.push(StateEvent::CallOrphaned { call, method, result });
            let at_ms = self.now_ms();
            self.keep_early(Early { call, returned, at_ms });
        }
        self.answer(reply, Ok(()));
    }

    pub(super) fn keep_early(&mut self, early: Early) {
        if self.early.len() >= EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(early);
    }

    /// Looks for a result that came before anybody knew the attempt's call.
    pub(super) fn adopt_early(&mut self, attempt: AttemptId) {
        let Some(task) = self.tasks.get(&attempt.task) else { return };
        let Some(open) = task.open.as_deref().filter(|open| open.id == attempt) else { return };
        // A result that names no attempt can only be this one's if it came after the binding, from a worker that knows
        // no attempts: an earlier attempt's result may have been made from another ticket.
        let found = self.early.iter().position(|early| match early.returned.attempt {
            Some(named) => named == attempt,
            None => {
                !open.peer.is_sealyard()
                    && early.at_ms >= open.bound_ms
                    && early.call.sector == task.sector.id
                    && self.calling(attempt, early.returned.method).is_some()
            }
        });
        let Some(early) = found.and_then(|at| self.early.remove(at)) else { return };
        if let Some((attempt, stage)) = self.calling(attempt, early.returned.method) {
            self.accepted_unheard(attempt, stage, early.call);
            self.finish_call(attempt, stage, early.call, early.returned);
        }
    }

    /// Whether the attempt is one of this sector's.
    fn is_about(&self, attempt: AttemptId, sector: SectorId) -> bool {
        self.tasks.get(&attempt.task).is_some_and(|task| task.sector.id == sector)
    }

    /// The attempt, if it is open and waits for the answer to a call that this method returns.
    fn calling(&self, attempt: AttemptId, method: ReturnMethod) -> Option<(AttemptId, CallStage)> {
        let task = self.tasks.get(&attempt.task)?;
        let open = task.open.as_deref().filter(|open| open.id == attempt)?;
        let Phase::Calling(stage) = open.phase else { return None };
        // After a restart nobody knows whether the files were to be fetched first; a return of the work says that it ran.
        let or_later = (open.unheard && stage == CallStage::Prepare).then_some(CallStage::Work);
        let mut stages = std::iter::once(stage).chain(or_later);
        stages.find(|stage| returned_by(&task.work, *stage) == Some(method)).map(|stage| (attempt, stage))
    }

    /// The call that was answered to nobody is this one: it has been accepted, and now it returns.
    fn accepted_unheard(&mut self, attempt: AttemptId, stage: CallStage, call: CallId) {
        if let Some(open) = self.open_mut(attempt) {
            open.phase = Phase::Calling(stage);
        }
        self.accepted(attempt, stage, call);
    }

    /// An attempt of this sector on a Lotus worker that nobody calls any more and nobody heard of.
    fn unheard(&self, sector: SectorId, method: ReturnMethod) -> Option<(AttemptId, CallStage)> {
        let here = self.open_attempts().filter(|(task, _)| task.sector.id == sector);
        here.map(|(_, open)| open)
            .filter(|open| !open.peer.is_sealyard() && open.unheard)
            .find_map(|open| self.calling(open.id, method))
    }

    /// Takes the result of an open attempt's call.
    pub(super) fn finish_call(
        &mut self,
        attempt: AttemptId,
        stage: CallStage,
        call: CallId,
        returned: Returned,
    ) {
        if self.detached.contains_key(&attempt) {
            return self.detached_returned(attempt, stage, call, &returned);
        }
        let Some(open) = self.open_mut(attempt) else { return };
        let giving_up = open.giving_up;
        if returned.result.is_ok() {
            self.measure(attempt, stage, returned.account);
        }
        let account = returned.account.unwrap_or_default();
        let error = returned.result.as_ref().err().map(ToString::to_string);
        self.calls.remove(&call);
        self.events.push(StateEvent::CallReturned {
            attempt,
            call,
            stage,
            error,
            work_ms: account.ended_ms.saturating_sub(account.started_ms),
            bytes_fetched: account.bytes_fetched,
        });
        match (returned.result, stage) {
            (_, CallStage::Prepare) if giving_up == Some(GivingUp::Unstage) => {
                self.given_up(attempt, GivingUp::Unstage);
            }
            (_, CallStage::Prepare) if giving_up == Some(GivingUp::Abort) => {
                self.given_up(attempt, GivingUp::Abort)
            }
            (Ok(_), CallStage::Prepare) => self.prepared(attempt),
            (Ok(output), CallStage::Work) => self.worked(attempt, output),
            // Whatever the worker calls it: the operator stopped it, and it is not tried again by itself.
            (Err(error), CallStage::Work) if giving_up == Some(GivingUp::Abort) => {
                self.task_failed(attempt, AttemptOutcome::Aborted, &error.message);
            }
            (Err(error), stage) => self.call_failed(attempt, stage, &error, account.class),
        }
    }

    /// The inputs are there.
    fn prepared(&mut self, attempt: AttemptId) {
        self.note_elsewhere(attempt);
        let Some(open) = self.open_mut(attempt) else { return };
        open.phase = Phase::Ready;
        if open.staged {
            self.tell_sched(Event::StageDone { attempt });
        } else if open.scheduled {
            // Its time counts from here: how long the fetch took says nothing about the task.
            self.tell_sched(Event::StageDone { attempt });
            self.call(attempt.task, CallStage::Work);
        }
    }

    /// The task has its result; the pipeline looks at it before it is believed.
    fn worked(&mut self, attempt: AttemptId, output: TaskOutput) {
        let Some(task) = self.tasks.get(&attempt.task) else { return };
        let (sector, now_ms) = (task.sector.id, self.now_ms());
        if task.is_errand() {
            if !task.is_answered_by(&output) {
                let reason = "the worker answered with another task's result";
                return self.task_failed_as(attempt, AttemptOutcome::Failed, FailureClass::Compute, reason);
            }
            self.note_success(attempt);
            self.task_ended(attempt, AttemptOutcome::Done, "");
            return self.errand_over(sector, Ok(()));
        }
        if let Some(reason) = self.disbelieved(task, &output) {
            return self.task_failed_as(attempt, AttemptOutcome::Failed, FailureClass::BadData, &reason);
        }
        // First the task, then the sector: what the sector wants next must find the locks free.
        let kind = SectorEvent::TaskDone { output, now_ms };
        let awaited = self.fits(sector, &kind);
        if !awaited {
            let reason = format!("the worker answered with a {}", kind.name());
            return self.task_failed_as(attempt, AttemptOutcome::Failed, FailureClass::Compute, &reason);
        }
        self.supersede_others(attempt);
        if matches!(kind, SectorEvent::TaskDone { output: TaskOutput::PreCommit1(_), .. }) {
            self.note_elsewhere(attempt);
        }
        self.note_success(attempt);
        self.task_ended(attempt, AttemptOutcome::Done, "");
        self.sector_event(sector, kind);
    }

    /// Whether the sector would take this now.
    fn fits(&self, sector: SectorId, event: &SectorEvent) -> bool {
        self.sectors.get(&sector).is_some_and(|known| known.record.clone().apply(event.clone()).is_ok())
    }

    /// `told` is what a Sealyard worker says of the failure; a Lotus worker's is guessed from its code and the stage.
    fn call_failed(
        &mut self,
        attempt: AttemptId,
        stage: CallStage,
        error: &CallError,
        told: Option<FailureClass>,
    ) {
        let class = match (error.code, told) {
            // Somebody stopped the worker.
            (CallErrorCode::TempWorkerRestart, Some(FailureClass::Aborted)) => {
                return self.requeue(attempt, &error.message);
            }
            (CallErrorCode::TempWorkerRestart, _) => return self.disowned(attempt, &error.message),
            (_, Some(told)) => told,
            (CallErrorCode::TempAllocateSpace, None) => FailureClass::Space,
            (CallErrorCode::Unknown | CallErrorCode::TempUnknown | CallErrorCode::Other(_), None) => {
                match stage {
                    CallStage::Prepare => FailureClass::Network,
                    CallStage::Work if error.message.contains(ABORTED) => FailureClass::Aborted,
                    CallStage::Work => FailureClass::Compute,
                }
            }
        };
        let outcome = match class {
            FailureClass::Aborted => AttemptOutcome::Aborted,
            FailureClass::Environment
            | FailureClass::Network
            | FailureClass::Space
            | FailureClass::Compute
            | FailureClass::BadData => AttemptOutcome::Failed,
        };
        self.task_failed_as(attempt, outcome, class, &error.message);
    }

    pub(super) fn task_failed(&mut self, attempt: AttemptId, outcome: AttemptOutcome, reason: &str) {
        let class = match outcome {
            AttemptOutcome::Aborted => FailureClass::Aborted,
            AttemptOutcome::Done
            | AttemptOutcome::Failed
            | AttemptOutcome::StartFailed
            | AttemptOutcome::Requeued
            | AttemptOutcome::Disowned => FailureClass::Compute,
        };
        self.task_failed_as(attempt, outcome, class, reason);
    }

    pub(super) fn task_failed_as(
        &mut self,
        attempt: AttemptId,
        outcome: AttemptOutcome,
        class: FailureClass,
        reason: &str,
    ) {
        let Some(task) = self.tasks.get(&attempt.task) else { return };
        let (sector, errand) = (task.sector.id, task.is_errand());
        self.note_failure(attempt, class, reason);
        let now_ms = self.now_ms();
        tracing::warn!(%attempt, sector = %sector, ?class, reason, "the task failed");
        self.task_ended(attempt, outcome, reason);
        if errand {
            return self.errand_over(sector, Err(reason.to_owned()));
        }
        self.sector_event(sector, SectorEvent::Failed { class, message: reason.to_owned(), now_ms });
    }
}

/// The method that returns this stage of the work.
pub(super) fn returned_by(work: &TaskInput, stage: CallStage) -> Option<ReturnMethod> {
    match stage {
        CallStage::Prepare => request::prepare(work).map(|_| ReturnMethod::Fetch),
        CallStage::Work => ReturnMethod::of(work),
    }
}
