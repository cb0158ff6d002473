//! The calls this worker holds now: acquiring files, running, or waiting for the manager to take their result.
//! Memory only; what must survive a crash is the journal's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rpc::extension::{CallPhase, HeldCall};
use sealtasks::{AttemptId, CallId, SectorId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Most calls held at once; beyond, a start is refused. A manager stages one call per running slot, so this is far
/// beyond any machine and only stops a manager gone wild.
pub(crate) const CALLS_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Calls {
    held: Mutex<BTreeMap<Uuid, Held>>,
}

struct Held {
    call: CallId,
    attempt: Option<AttemptId>,
    phase: CallPhase,
    stop: CancellationToken,
    pid: Option<u32>,
    /// Its executor was killed and does not end.
    lingering: bool,
}

impl Calls {
    /// Holds a call from now on. `stop` ends it when cancelled.
    pub(crate) fn hold(
        &self,
        call: CallId,
        attempt: Option<AttemptId>,
        phase: CallPhase,
        stop: CancellationToken,
    ) {
        self.held().insert(call.id, Held { call, attempt, phase, stop, pid: None, lingering: false });
    }

    /// A call goes on to another phase; its executor is `pid` while it runs.
    pub(crate) fn proceed(&self, call: CallId, phase: CallPhase, pid: Option<u32>) {
        if let Some(held) = self.held().get_mut(&call.id) {
            (held.phase, held.pid) = (phase, pid);
        }
    }

    /// A held call's executor was killed and does not end.
    pub(crate) fn linger(&self, call: CallId, pid: Option<u32>) {
        if let Some(held) = self.held().get_mut(&call.id) {
            (held.pid, held.lingering) = (pid, true);
        }
    }

    /// The call is no longer held.
    pub(crate) fn release(&self, call: CallId) {
        self.held().remove(&call.id);
    }

    /// Stops a call. Whether it is held at all; one that is done already has nothing to stop.
    pub(crate) fn stop(&self, call: CallId) -> bool {
        match self.held().get(&call.id).filter(|held| held.call == call) {
            Some(held) => {
                held.stop.cancel();
                true
            }
            None => false,
        }
    }

    /// Stops those that acquire or run for an earlier attempt at the same task. How many there are.
    pub(crate) fn stop_before(&self, attempt: AttemptId) -> usize {
        let held = self.held();
        let earlier = |of: &AttemptId| of.task == attempt.task && of.attempt < attempt.attempt;
        let earlier = held
            .values()
            .filter(|held| held.phase != CallPhase::Returning && held.attempt.as_ref().is_some_and(earlier));
        earlier.inspect(|held| held.stop.cancel()).count()
    }

    /// Other attempts that acquire or run for the same sector, each with its call.
    pub(crate) fn beside(&self, attempt: AttemptId, sector: SectorId) -> Vec<(AttemptId, CallId)> {
        let held = self.held();
        let busy =
            held.values().filter(|held| held.phase != CallPhase::Returning && held.call.sector == sector);
        let named = busy.filter_map(|held| Some((held.attempt?, held.call)));
        named.filter(|(of, _)| *of != attempt).collect()
    }

    /// All of them, oldest id first.
    pub(crate) fn list(&self) -> Vec<HeldCall> {
        let held = self.held();
        let view = |held: &Held| HeldCall {
            call: held.call.to_string(),
            attempt: held.attempt,
            phase: held.phase,
            lingering: held.lingering,
        };
        held.values().map(view).collect()
    }

    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.held().len()
    }

    /// How many acquire or run. One that lingers does neither, for nobody knows how long: it is stopped already.
    pub(crate) fn busy(&self) -> usize {
        let held = self.held();
        held.values().filter(|held| held.phase != CallPhase::Returning && !held.lingering).count()
    }

    /// The running executors.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.held().values().filter_map(|held| held.pid).collect()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Uuid, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
