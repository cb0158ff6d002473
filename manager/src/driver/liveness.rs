//! Whether workers answer, and what becomes of what a silent one holds. Never: asks them (see `workers`).
//!
//! | a worker is | when | and then |
//! |---|---|---|
//! | live | it answered its last heartbeat | it gets tasks |
//! | suspect | it missed one | it gets none; everything that it has stays its own and stays charged |
//! | lost | it missed [`MISSES_UNTIL_LOST`] in a row | the same, and the time runs |
//! | forgotten | it is a Sealyard and was lost for `ForgetLostAfter` | it is no worker any more; what it had is queued anew |
//!
//! An answer makes it live again from any of these but the last; then it registers anew. The time runs as well for attempts
//! whose worker is not there: since it closed, or since this manager started. A Lotus worker does not register anew when it
//! is back, nor can it be told to stop then, so it stays lost and keeps its attempts until it registers, returns them, or an
//! operator gives them up; once the time is over they are an alert (see `audit`).

use std::collections::BTreeMap;

use rpc::extension::WorkerView;
use sealtasks::{AttemptId, WorkerId};

use super::{Attempt, Driver, Phase, Worker};
use crate::config::FORGET_LOST_AFTER;

/// Missed heartbeats in a row after which a worker counts as lost.
pub(super) const MISSES_UNTIL_LOST: u32 = 6;

/// Forgotten workers that are still listed; beyond, those forgotten first go.
const FORGOTTEN_MAX: usize = 256;

/// What is remembered of silence.
#[derive(Default)]
pub(crate) struct Silence {
    /// Attempts whose worker is not there, and since when, in Unix milliseconds.
    pub(super) away: BTreeMap<AttemptId, u64>,
    /// What was forgotten, by name, with the time.
    forgotten: BTreeMap<String, (u64, WorkerView)>,
}

impl Worker {
    /// `live`, `suspect` or `lost`.
    pub(crate) const fn liveness(&self) -> &'static str {
        match self.misses {
            0 => "live",
            1..MISSES_UNTIL_LOST => "suspect",
            _ => "lost",
        }
    }

    pub(crate) const fn is_lost(&self) -> bool {
        self.misses >= MISSES_UNTIL_LOST
    }
}

impl Driver {
    pub(super) fn worker_seen(&mut self, session: WorkerId) {
        let Some(worker) = self.workers.get(&session).filter(|worker| worker.misses > 0) else { return };
        tracing::info!(worker = worker.name(), was = worker.liveness(), "back");
        self.change(session, |worker| worker.misses = 0);
    }

    pub(super) fn worker_missed(&mut self, session: WorkerId, reason: &str) {
        let now_ms = self.now_ms();
        let Some(worker) = self.workers.get_mut(&session) else { return };
        if worker.misses == 0 {
            worker.silent_since_ms = now_ms;
        }
        if worker.misses.saturating_add(1) == MISSES_UNTIL_LOST {
            worker.lost_since_ms = now_ms;
            tracing::warn!(worker = worker.name(), reason, "lost");
        }
        let misses = worker.misses.saturating_add(1);
        tracing::warn!(worker = worker.name(), misses, reason, "a heartbeat was not answered");
        self.change(session, |worker| worker.misses = misses);
    }

    /// The worker closes, or its place is taken. Its attempts stay until they return or a successor tells, but not for ever.
    pub(super) fn worker_gone(&mut self, session: WorkerId, reason: &str) {
        let now_ms = self.now_ms();
        self.worker_away(session, now_ms, reason);
    }

    fn worker_away(&mut self, session: WorkerId, since_ms: u64, reason: &str) {
        let Some(worker) = self.workers.remove(&session) else { return };
        worker.gone.cancel();
        worker.watching.cancel();
        tracing::info!(worker = worker.name(), %session, reason, "gone");
        self.tell_sched(sched::Event::WorkerLost { worker: worker.key });
        self.nothing_beside(&worker);
        let here = self.open_attempts().filter(|(_, open)| open.worker == session);
        let here: Vec<_> = here.map(|(_, open)| open.id).collect();
        for attempt in here {
            self.silence.away.entry(attempt).or_insert(since_ms);
            if let Some(open) = self.open_mut(attempt).filter(|open| matches!(open.phase, Phase::Calling(_)))
            {
                open.unheard = true;
            }
        }
        let given_up = self.detached.iter().filter(|(_, given_up)| given_up.open.worker == session);
        self.silence.away.extend(given_up.map(|(attempt, _)| (*attempt, since_ms)));
    }

    /// Forgets the workers that have been lost for long enough, and queues anew what their attempts, and those of workers
    /// that are not there, were to do.
    pub(super) fn forget_lost(&mut self) {
        let after_ms = self.shared.scheduling.forget_lost_after.get();
        if after_ms == 0 {
            return;
        }
        let now_ms = self.now_ms();
        let due = |since_ms: u64| now_ms.saturating_sub(since_ms) >= after_ms;
        let is_over =
            |worker: &Worker| worker.is_lost() && worker.peer.is_sealyard() && due(worker.lost_since_ms);
        let lost = self.workers.iter().filter(|(_, worker)| is_over(worker));
        let lost: Vec<_> = lost.map(|(session, worker)| (*session, worker.lost_since_ms)).collect();
        for (session, since_ms) in lost {
            self.remember_forgotten(session, now_ms);
            self.worker_away(session, since_ms, "it was lost for too long and is forgotten");
        }
        let away = self.silence.away.iter().filter(|(_, since_ms)| due(**since_ms));
        let away: Vec<_> = away.map(|(attempt, _)| *attempt).collect();
        for attempt in away {
            let Some(open) = self.open_mut(attempt) else {
                self.forget_given_up(attempt);
                continue;
            };
            if open.peer.is_sealyard() {
                let reason = format!("its worker {} was not heard of for {} s", open.name, after_ms / 1000);
                self.requeue(attempt, &reason);
            }
        }
    }

    /// One that was given up holds nothing any more, unless its worker is back and may still do it, or nobody can know.
    fn forget_given_up(&mut self, attempt: AttemptId) {
        if let Some(given_up) = self.detached.get(&attempt) {
            if !given_up.open.peer.is_sealyard() || self.workers.contains_key(&given_up.open.worker) {
                return;
            }
            self.end_detached(attempt, "given up; its worker was not heard of for too long");
        }
        self.silence.away.remove(&attempt);
    }

    fn remember_forgotten(&mut self, session: WorkerId, now_ms: u64) {
        let view = self.worker_views().into_iter().find(|view| view.session == session);
        let Some(mut view) = view else { return };
        view.state = "forgotten".to_owned();
        view.next_state = None;
        view.running.clear();
        tracing::warn!(worker = view.name, "forgotten");
        let forgotten = &mut self.silence.forgotten;
        forgotten.insert(view.name.clone(), (now_ms, view));
        if forgotten.len() > FORGOTTEN_MAX {
            let oldest = forgotten.iter().min_by_key(|(_, (at_ms, _))| *at_ms).map(|(name, _)| name.clone());
            oldest.map(|name| forgotten.remove(&name));
        }
    }

    /// A worker of this name has registered.
    pub(super) fn is_here_again(&mut self, name: &str) {
        self.silence.forgotten.remove(name);
    }

    /// Forgotten workers, with the time since when nothing was heard of them.
    pub(super) fn forgotten_views(&self) -> impl Iterator<Item = WorkerView> {
        let now_ms = self.now_ms();
        self.silence.forgotten.values().map(move |(at_ms, view)| WorkerView {
            silent_ms: view.silent_ms.saturating_add(now_ms.saturating_sub(*at_ms)),
            paths: Vec::new(),
            ..view.clone()
        })
    }

    /// When an attempt whose worker does not answer is queued anew, for people; empty when it is not.
    pub(super) fn queued_anew_in(&self, open: &Attempt) -> String {
        let after_ms = self.shared.scheduling.forget_lost_after.get();
        let Some(since_ms) = self.silent_since(open) else { return String::new() };
        if after_ms == 0 || !open.peer.is_sealyard() {
            return String::new();
        }
        let left_ms = since_ms.saturating_add(after_ms).saturating_sub(self.now_ms());
        format!(", is queued anew in {} s", left_ms.div_ceil(1000))
    }

    /// Since when its worker is lost or not there, in Unix milliseconds.
    fn silent_since(&self, open: &Attempt) -> Option<u64> {
        match self.workers.get(&open.worker) {
            Some(worker) => worker.is_lost().then_some(worker.lost_since_ms),
            None => self.silence.away.get(&open.id).copied(),
        }
    }

    /// Of an attempt that nobody will end but its worker's own word or an operator, once its worker was silent for as long as
    /// makes any other one forgotten: who it is and for how long, for people.
    pub(super) fn left_with(&self, open: &Attempt) -> Option<String> {
        let set = self.shared.scheduling.forget_lost_after;
        if open.peer.is_sealyard() && set.get() > 0 {
            return None;
        }
        let after_ms = if set.get() > 0 { set.get() } else { FORGET_LOST_AFTER.get() };
        self.silent_since(open).filter(|since_ms| self.now_ms().saturating_sub(*since_ms) >= after_ms)?;
        let kind = if open.peer.is_sealyard() { "worker" } else { "Lotus worker" };
        Some(format!(
            "{kind} {}, which has neither answered nor registered for {} s",
            open.name,
            after_ms / 1000
        ))
    }

    /// Whether the attempt is awaited still.
    pub(crate) fn is_open(&self, attempt: AttemptId) -> bool {
        let task = self.tasks.get(&attempt.task);
        task.and_then(|task| task.open.as_deref()).is_some_and(|open| open.id == attempt)
    }

    /// For how long nothing was heard of a worker, and what it becomes when that goes on, and in how many milliseconds.
    pub(super) fn silence_of(&self, worker: &Worker) -> (u64, Option<(String, u64)>) {
        let now_ms = self.now_ms();
        if worker.misses == 0 {
            return (0, None);
        }
        let silent_ms = now_ms.saturating_sub(worker.silent_since_ms);
        let beat_ms = u64::try_from(self.shared.timing.heartbeat.as_millis()).unwrap_or(u64::MAX);
        let next = if worker.is_lost() {
            let after_ms = self.shared.scheduling.forget_lost_after.get();
            let left_ms = worker.lost_since_ms.saturating_add(after_ms).saturating_sub(now_ms);
            (after_ms > 0 && worker.peer.is_sealyard()).then(|| ("forgotten".to_owned(), left_ms))
        } else {
            let left = MISSES_UNTIL_LOST.saturating_sub(worker.misses);
            Some(("lost".to_owned(), beat_ms.saturating_mul(left.into())))
        };
        (silent_ms, next)
    }
}
