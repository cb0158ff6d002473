//! The manager's heartbeats: which manager process it was, and the health of the paths that the answers take along. While
//! its answers arrive this worker reports nothing besides; see `registration`. Never: believes that whoever asks is the manager
//! that it serves.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rpc::beat::{Beat, Beaten};
use rpc::extension::WorkerState;
use sealtasks::{HealthReport, StorageId};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// A manager that has asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Its session.
    pub(crate) session: Uuid,
    /// It has had an answer since the last one that it is known to have had.
    pub(crate) had_answer: bool,
}

/// What is known of heartbeats.
#[derive(Default)]
pub(crate) struct Beats {
    heard: watch::Sender<Option<Heard>>,
    health: Mutex<Health>,
    /// There are paths to be declared again.
    pub(crate) named: Notify,
}

#[derive(Default)]
struct Health {
    /// The last answer, and the last one that arrived; they are numbered from 1.
    answered: u64,
    arrived: u64,
    /// One has arrived since the last measurement began.
    is_fetched: bool,
    /// The manager does not answer this worker: nothing of its paths is told, so that they are not taken for usable.
    is_lost: bool,
    /// For the next answers.
    measured: Vec<(StorageId, HealthReport)>,
    /// Paths that the manager's index does not know.
    unknown: BTreeSet<StorageId>,
}

impl Beats {
    /// Each heartbeat, a repeated one of the same manager too.
    pub(crate) fn heard(&self) -> watch::Receiver<Option<Heard>> {
        self.heard.subscribe()
    }

    /// Answers a heartbeat. Whether the answer arrives is known by the next one; until then the paths' health is told again.
    pub(crate) fn answer(&self, beat: Beat, state: WorkerState) -> Beaten {
        let Beat { session, had, unknown } = beat;
        let mut health = self.health();
        let had_answer = had > health.arrived && had <= health.answered;
        if had_answer {
            (health.arrived, health.is_fetched) = (had, true);
        }
        health.answered = health.answered.saturating_add(1);
        if !unknown.is_empty() {
            health.unknown.extend(unknown);
            self.named.notify_one();
        }
        let told = if health.is_lost { Vec::new() } else { health.measured.clone() };
        let answer = Beaten { number: health.answered, state, health: told };
        drop(health);
        self.heard.send_replace(Some(Heard { session, had_answer }));
        answer
    }

    /// Whether answers take the paths' health along: one has arrived since this was asked before. If not, what was measured for
    /// them is forgotten, and its successor is to be reported.
    pub(crate) fn are_fetching(&self) -> bool {
        let mut health = self.health();
        let fetched = std::mem::take(&mut health.is_fetched) && !health.is_lost;
        if !fetched {
            health.measured.clear();
        }
        fetched
    }

    /// For the next answers.
    pub(crate) fn leave(&self, measured: Vec<(StorageId, HealthReport)>) {
        self.health().measured = measured;
    }

    /// The manager does not answer this worker, or does again.
    pub(crate) fn set_lost(&self, lost: bool) {
        self.health().is_lost = lost;
    }

    /// A path was declared: what was measured of it before is older than what was told with that.
    pub(crate) fn declared(&self, path: &StorageId) {
        self.health().measured.retain(|(id, _)| id != path);
    }

    /// The paths that are to be declared again, once.
    pub(crate) fn take_unknown(&self) -> BTreeSet<StorageId> {
        std::mem::take(&mut self.health().unknown)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing in here panics half-way.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sealtasks::{FsStat, SealingPlan, TaskCaps, WorkerId};

    use super::*;

    fn path(number: u64) -> StorageId {
        StorageId::from(Uuid::from_u64_pair(0, number))
    }

    fn measured(number: u64) -> Vec<(StorageId, HealthReport)> {
        vec![(path(number), HealthReport { stat: FsStat::default(), error: None })]
    }

    fn state() -> WorkerState {
        WorkerState {
            session: WorkerId(Uuid::nil()),
            name: String::new(),
            enabled: true,
            tasks: BTreeSet::new(),
            pending: Default::default(),
            mem_used: 0,
            mem_swap_used: 0,
            mem_beside: 0,
            paths: Vec::new(),
            calls: Vec::new(),
            caps: TaskCaps::none(),
            machine: None,
            plan: SealingPlan::default(),
            threads: Vec::new(),
            repo: None,
        }
    }

    /// A heartbeat of a manager that has had the answer with this number.
    fn after(had: u64) -> Beat {
        Beat { had, ..Beat::default() }
    }

    #[test]
    fn what_no_manager_has_had_is_reported() {
        let beats = Beats::default();
        let had_answer = || beats.heard.borrow().is_some_and(|heard| heard.had_answer);
        assert!(!beats.are_fetching(), "none has come yet");
        assert_eq!(beats.answer(after(0), state()).number, 1);
        assert!(!beats.are_fetching() && !had_answer(), "nobody knows that it has arrived");
        assert_eq!(beats.answer(after(1), state()).number, 2);
        assert!(had_answer() && beats.are_fetching());
        beats.leave(measured(1));
        // The manager has given the answer before up.
        assert_eq!(beats.answer(after(1), state()).health, measured(1));
        assert!(!had_answer());
        assert_eq!(beats.answer(after(3), state()).health, measured(1));
        assert!(beats.are_fetching());
        beats.leave(measured(2));
        assert!(!beats.are_fetching(), "nobody has had it");
        assert_eq!(beats.answer(after(4), state()).health, [], "it is older by now than what was reported");
        beats.answer(after(77), state());
        assert!(!had_answer(), "there is no such answer");
    }

    #[test]
    fn while_the_manager_is_lost_no_path_counts_as_usable() {
        let beats = Beats::default();
        beats.answer(after(0), state());
        beats.answer(after(1), state());
        beats.leave(measured(1));
        beats.set_lost(true);
        assert_eq!(beats.answer(after(2), state()).health, []);
        assert!(!beats.are_fetching());
        beats.set_lost(false);
        beats.leave(measured(2));
        assert_eq!(beats.answer(after(3), state()).health, measured(2));
        beats.declared(&path(2));
        assert_eq!(beats.answer(after(4), state()).health, [], "it was told with its declaration");
    }

    #[test]
    fn paths_that_the_index_does_not_know_are_named_once() {
        let beats = Beats::default();
        for _ in 0..2 {
            beats.answer(Beat { unknown: vec![path(1)], ..Beat::default() }, state());
        }
        assert_eq!(beats.take_unknown(), BTreeSet::from([path(1)]));
        assert_eq!(beats.take_unknown(), BTreeSet::new());
    }
}
