//! Attempts: what the scheduler wants started, run, given up; what workers answer when called. Never: results (see
//! `returns`), placement.

use pipeline::{DataPiece, SectorRecord};
use sched::{Action, Assignment, Event, GpuShare, Millis, Outcome};
use sealtasks::{AttemptId, CallId, TaskId, TaskInput};
use tokio_util::sync::CancellationToken;

use super::input::{Effect, StartCall};
use super::{Attempt, Driver, GivingUp, Phase, Task};
use crate::request;
use crate::staging::Staged;
use crate::state::{AttemptOutcome, CallStage, ReservedSpace, StateEvent, TaskOutcome};

impl Driver {
    /// Gives the task to the scheduler, as new or again.
    pub(super) fn submit(&mut self, id: TaskId) {
        let request = self.asking().request(id);
        self.submit_as(id, request);
    }

    /// The same, the request being made.
    pub(super) fn submit_as(&mut self, id: TaskId, request: Option<sched::Request>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let sector = task.sector.id;
        (task.held_back, task.in_line) = (false, None);
        if self.holding_back(sector).is_some() {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.held_back = true;
            }
            return;
        }
        match request {
            Some(request) => self.tell_sched(Event::Submit { task: id, request }),
            None => tracing::error!(task = %id, %sector, "this work is not scheduled"),
        }
    }

    /// Takes the scheduler's actions until there are none: carrying one out may cause more.
    pub(super) fn drain_sched(&mut self) {
        while let Some(action) = self.sched.poll_action() {
            match action {
                Action::Start(assignment) => self.bind(assignment, false),
                Action::Stage(assignment) => self.bind(assignment, true),
                Action::Run { attempt, gpus, .. } => self.run_staged(attempt, &gpus),
                Action::Unstage { attempt, .. } => self.give_up(attempt, GivingUp::Unstage),
                Action::Abort { attempt, .. } => self.give_up(attempt, GivingUp::Abort),
                Action::Left { task, end } => {
                    tracing::debug!(%task, ?end, "the scheduler has let the task go")
                }
                Action::Refused { refusal } => tracing::error!(%refusal, "the scheduler refused an event"),
                Action::WakeAt { at } => self.wake_ms = Some(at.get()),
            }
        }
    }

    /// Binds an attempt: commits it, then calls the worker.
    fn bind(&mut self, assignment: Assignment, staged: bool) {
        let Assignment { attempt, worker: key, plan, .. } = assignment;
        if self.leave_is_old(attempt.task) {
            return self.ask_again(attempt);
        }
        let Ok(lock) = self.lock_for(attempt) else { return self.stand_in_line(attempt) };
        let Some(worker) = self.workers.get(&key.session).filter(|worker| worker.key == key) else {
            // The scheduler knows only workers that we told it of, so this is a fault of ours; the task is not lost.
            tracing::error!(%attempt, worker = %key, "bound to a worker that is not here");
            let not_before = Millis::new(self.now_ms());
            return self.tell_sched(Event::StartFailed {
                attempt,
                reason: "no such worker".to_owned(),
                not_before,
            });
        };
        let fetched = plan.fetch.iter().map(|step| (&step.to, step.kind, step.bytes));
        let made = plan.allocate.iter().map(|step| (&step.path, step.kind, step.bytes));
        let reservations: Vec<_> = fetched
            .chain(made)
            .map(|(path, kind, bytes)| ReservedSpace { path: path.clone(), types: kind.into(), bytes })
            .collect();
        let stage = if plan.fetch.is_empty() && !staged { CallStage::Work } else { CallStage::Prepare };
        let open = Attempt {
            id: attempt,
            worker: key.session,
            url: worker.url.clone(),
            name: worker.name().to_owned(),
            peer: worker.peer,
            phase: Phase::Calling(stage),
            staged,
            scheduled: true,
            unheard: false,
            bound_ms: self.now_ms(),
            accepted_ms: 0,
            accepted_at: 0,
            reservations: reservations.clone(),
            gpus: told_shares(&plan.gpus),
            giving_up: None,
            over: CancellationToken::new(),
            lock,
        };
        self.pledging_due = true;
        self.note_made(attempt.task, &reservations);
        self.events.push(StateEvent::AttemptBound {
            attempt,
            worker: open.worker,
            name: open.name.clone(),
            url: open.url.clone(),
            peer: open.peer.word().to_owned(),
            reservations,
        });
        tracing::info!(%attempt, worker = open.name, stage = stage.word(), "bound");
        let Some(task) = self.tasks.get_mut(&attempt.task) else {
            return tracing::error!(%attempt, "bound for a task that is not here");
        };
        task.attempts = attempt.attempt;
        task.open = Some(Box::new(open));
        self.bound.insert(attempt.task);
        self.call(attempt.task, stage);
    }

    /// Calls the worker for one stage of the task's open attempt.
    pub(super) fn call(&mut self, task: TaskId, stage: CallStage) {
        let Some(known) = self.tasks.get_mut(&task) else { return };
        let work = match stage {
            CallStage::Work => Some(TaskInput::clone(&known.work)),
            CallStage::Prepare => request::prepare(&known.work).map(TaskInput::Fetch),
        };
        let Some(open) = known.open.as_deref_mut() else { return };
        let Some(work) = work else {
            return tracing::error!(attempt = %open.id, "this work is never prepared");
        };
        open.phase = Phase::Calling(stage);
        (open.accepted_ms, open.accepted_at) = (0, 0);
        open.unheard = false;
        let (attempt, sector) = (open.id, known.sector);
        let data = match stage {
            CallStage::Work => self.sectors.get(&sector.id).and_then(|of| staged_for(&of.record, &work)),
            CallStage::Prepare => None,
        };
        let Some(worker) = self.workers.get(&open.worker) else {
            return tracing::error!(%attempt, "its worker is not here; it is called again when it is back");
        };
        open.over = worker.gone.child_token();
        let gpus = match stage {
            CallStage::Prepare => Vec::new(),
            CallStage::Work => open.gpus.clone(),
        };
        let call = StartCall {
            api: worker.api.clone(),
            attempt,
            stage,
            sector,
            work,
            repeatable: worker.peer.is_sealyard(),
            gpus,
            data,
            over: open.over.clone(),
        };
        self.effects.push(Effect::Start(call));
    }

    /// A staged attempt has its slot.
    fn run_staged(&mut self, attempt: AttemptId, gpus: &[GpuShare]) {
        let Some(open) = self.open_mut(attempt) else { return };
        open.staged = false;
        open.gpus = told_shares(gpus);
        if open.phase == Phase::Ready {
            self.call(attempt.task, CallStage::Work);
        }
    }

    /// Ends an attempt early: now, if nothing runs; else by stopping the call, whose return then ends it. An operator's
    /// abort does not wait for a worker that does not answer: the attempt is fenced, and the worker is told to stop
    /// when it is heard of again (see `stop_fenced`). A Lotus worker cannot stop a call: the attempt is detached.
    pub(super) fn give_up(&mut self, attempt: AttemptId, why: GivingUp) {
        let Some(open) = self.open_mut(attempt) else { return };
        open.giving_up = Some(why);
        let (phase, peer, session, unheard) = (open.phase, open.peer, open.worker, open.unheard);
        let worker = self.workers.get(&session);
        let silent = worker.is_none_or(|worker| worker.misses > 0);
        let lotus_may_run = !peer.is_sealyard() && worker.is_some_and(|worker| !worker.is_lost());
        // A call that was made in another life of ours, or of the worker's, is answered to nobody.
        let unanswered = silent || (unheard && matches!(phase, Phase::Calling(_)));
        let api = worker.map(|worker| worker.api.clone());
        match (phase, why) {
            (Phase::Ready, _) => self.given_up(attempt, why),
            (Phase::Calling(_), GivingUp::Abort) if unanswered && lotus_may_run => self.detach(attempt),
            (Phase::Held(..), GivingUp::Abort) if lotus_may_run => self.detach(attempt),
            (Phase::Calling(_) | Phase::Held(..), GivingUp::Abort) if unanswered => {
                self.given_up(attempt, why)
            }
            // Told to stop as soon as the call is known.
            (Phase::Calling(_), _) => {}
            (Phase::Held(_, call), _) if peer.is_sealyard() => {
                if let Some(api) = api {
                    self.effects.push(Effect::Abort { api, attempt, call });
                }
            }
            // A Lotus worker's fetch is waited for.
            (Phase::Held(..), _) => {}
        }
    }

    pub(super) fn given_up(&mut self, attempt: AttemptId, why: GivingUp) {
        match why {
            GivingUp::Unstage => {
                self.end_attempt(attempt, AttemptOutcome::Requeued, "another worker can start it sooner");
                self.tell_sched(Event::Ended { attempt, outcome: Outcome::Unstaged });
            }
            GivingUp::Abort => self.task_failed(attempt, AttemptOutcome::Aborted, "task aborted"),
        }
    }

    pub(super) fn abort_failed(&mut self, attempt: AttemptId, reason: &str) {
        let Some(why) = self.open_mut(attempt).and_then(|open| open.giving_up) else { return };
        tracing::warn!(%attempt, reason, "the worker could not be told to stop");
        // An operator's word counts even so: the attempt is fenced, a late result refused. A staging is only waited for.
        if why == GivingUp::Abort {
            self.given_up(attempt, why);
        }
    }

    pub(super) fn accepted(&mut self, attempt: AttemptId, stage: CallStage, call: CallId) {
        let (now_ms, moment) = (self.now_ms(), self.shared.moments.next());
        let Some(open) = self.open_mut(attempt) else {
            return tracing::warn!(%attempt, %call, "a call was accepted for an attempt that is over");
        };
        if open.phase != Phase::Calling(stage) {
            // A repeated answer, or the return came first and named the attempt.
            return;
        }
        open.phase = Phase::Held(stage, call);
        (open.accepted_ms, open.accepted_at) = (now_ms, moment);
        let (giving_up, scheduled) = (open.giving_up, open.scheduled);
        self.calls.insert(call, (attempt, stage));
        self.events.push(StateEvent::CallAccepted { attempt, call, stage });
        if scheduled {
            self.tell_sched(Event::Started { attempt });
        }
        if let Some(task) = self.tasks.get_mut(&attempt.task) {
            task.refusals = 0;
        }
        let early = self.early.iter().position(|early| early.call == call);
        if let Some(early) = early.and_then(|at| self.early.remove(at)) {
            return self.finish_call(attempt, stage, call, early.returned);
        }
        if let Some(why) = giving_up {
            self.give_up(attempt, why);
        }
    }

    /// The worker certainly does not run it: the task waits, then goes anywhere.
    pub(super) fn start_refused(&mut self, attempt: AttemptId, stage: CallStage, reason: &str) {
        let (now_ms, back_off) = (self.now_ms(), self.shared.timing.start_back_off);
        let scheduled = match self.open_mut(attempt) {
            Some(open) if open.phase == Phase::Calling(stage) => open.scheduled,
            _ => return,
        };
        let Some(task) = self.tasks.get_mut(&attempt.task) else { return };
        let not_before = now_ms.saturating_add(back_off.after(task.refusals));
        task.refusals = task.refusals.saturating_add(1);
        let giving_up = task.open.as_deref().and_then(|open| open.giving_up);
        tracing::warn!(%attempt, reason, not_before, "the worker did not take it");
        if giving_up == Some(GivingUp::Abort) {
            return self.given_up(attempt, GivingUp::Abort);
        }
        self.end_attempt(attempt, AttemptOutcome::StartFailed, reason);
        if scheduled {
            let not_before = Millis::new(not_before);
            self.tell_sched(Event::StartFailed { attempt, reason: reason.to_owned(), not_before });
        } else {
            self.submit(attempt.task);
        }
    }

    /// A Lotus worker may have accepted it without our hearing of it. Nothing is sent again: its return is adopted by
    /// sector and method, or its next registration proves that it is quiet.
    pub(super) fn start_unknown(&mut self, attempt: AttemptId, stage: CallStage, reason: &str) {
        tracing::warn!(%attempt, stage = stage.word(), reason, "nobody knows whether the worker took it; waiting for its return or its registration");
        if let Some(open) = self.open_mut(attempt).filter(|open| open.phase == Phase::Calling(stage)) {
            open.unheard = true;
        }
        self.adopt_early(attempt);
    }

    /// The attempt is over as far as we are concerned. The scheduler is told by the caller.
    pub(super) fn end_attempt(&mut self, attempt: AttemptId, outcome: AttemptOutcome, reason: &str) {
        let Some(task) = self.tasks.get_mut(&attempt.task) else { return };
        let Some(ended) = task.open.take_if(|open| open.id == attempt) else { return };
        self.bound.remove(&attempt.task);
        ended.over.cancel();
        self.silence.away.remove(&attempt);
        self.calls.retain(|_, (of, _)| *of != attempt);
        self.events.push(StateEvent::AttemptEnded { attempt, outcome, reason: reason.to_owned() });
    }

    /// The attempt was lost, or somebody stopped its worker: the task goes on as a new attempt, now.
    pub(super) fn requeue(&mut self, attempt: AttemptId, reason: &str) {
        self.requeue_as(attempt, AttemptOutcome::Requeued, self.now_ms(), reason);
    }

    pub(super) fn requeue_as(
        &mut self,
        attempt: AttemptId,
        outcome: AttemptOutcome,
        not_before_ms: u64,
        reason: &str,
    ) {
        let Some(open) = self.open_mut(attempt) else { return };
        let scheduled = open.scheduled;
        if open.giving_up == Some(GivingUp::Abort) {
            // The operator wanted it to end, and so it has.
            return self.given_up(attempt, GivingUp::Abort);
        }
        tracing::warn!(%attempt, reason, not_before_ms, "requeued");
        self.end_attempt(attempt, outcome, reason);
        if scheduled {
            let not_before = Millis::new(not_before_ms);
            self.tell_sched(Event::Ended { attempt, outcome: Outcome::Retry { not_before } });
        } else {
            self.submit(attempt.task);
        }
    }

    /// The task leaves; `outcome` says how its last attempt ended.
    pub(super) fn task_ended(&mut self, attempt: AttemptId, outcome: AttemptOutcome, reason: &str) {
        let scheduled = self.open_mut(attempt).is_some_and(|open| open.scheduled);
        self.end_attempt(attempt, outcome, reason);
        let (ended, left) = match outcome {
            AttemptOutcome::Done => (TaskOutcome::Done, Outcome::Finished),
            AttemptOutcome::Failed
            | AttemptOutcome::StartFailed
            | AttemptOutcome::Requeued
            | AttemptOutcome::Disowned => (TaskOutcome::Failed, Outcome::Failed),
            AttemptOutcome::Aborted => (TaskOutcome::Cancelled, Outcome::Failed),
        };
        self.events.push(StateEvent::TaskEnded {
            task: attempt.task,
            outcome: ended,
            reason: reason.to_owned(),
        });
        self.tasks.remove(&attempt.task);
        if scheduled {
            self.tell_sched(Event::Ended { attempt, outcome: left });
        }
    }

    /// Every open attempt, with its task.
    pub(super) fn open_attempts(&self) -> impl Iterator<Item = (&Task, &Attempt)> {
        let tasks = self.bound.iter().filter_map(|id| Some(&**self.tasks.get(id)?));
        tasks.filter_map(|task| Some((task, task.open.as_deref()?)))
    }

    /// The open attempt with this id; `None` = it is over, or superseded.
    pub(super) fn open_mut(&mut self, attempt: AttemptId) -> Option<&mut Attempt> {
        self.tasks.get_mut(&attempt.task)?.open.as_deref_mut().filter(|open| open.id == attempt)
    }
}

/// The data that this work writes into its sector, if it writes any.
fn staged_for(record: &SectorRecord, work: &TaskInput) -> Option<Staged> {
    let TaskInput::AddPiece(_) = work else { return None };
    let DataPiece { piece, bytes, staged, .. } = *record.data_to_write()?;
    Some(Staged { id: staged, piece, bytes })
}

/// Shares of GPUs as a worker is told of them.
pub(super) fn told_shares(shares: &[GpuShare]) -> Vec<rpc::extension::GpuShare> {
    let told =
        |share: &GpuShare| rpc::extension::GpuShare { device: share.device, thousandths: share.thousandths };
    shares.iter().map(told).collect()
}
