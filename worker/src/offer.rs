//! Which tasks a worker offers now: those it was asked for, less the disabled ones and those whose proof parameters are
//! not there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sealtasks::{SectorSize, TaskType};

use crate::worker::Shared;

/// The tasks that this program can do.
pub const BUILT: [TaskType; 10] = [
    TaskType::DataCid,
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
    TaskType::FinalizeUnsealed,
    TaskType::Fetch,
    TaskType::Unseal,
];

/// Tasks that need the Groth16 parameters.
const NEED_PARAMETERS: [TaskType; 1] = [TaskType::Commit2];

/// What a pending task's reason says between the cause of a failed try and the pause in seconds, so that a program
/// that watches can tell a failure from progress.
pub const TRYING_AGAIN: &str = "; trying again in ";

/// The longest pause between two tries to obtain parameters, as a multiple of the first.
const PAUSE_GROWTH_MAX: u32 = 60;

/// Proof parameters as a worker needs them. `cli` joins it to the room `proofs`, which the worker does not know.
#[async_trait]
pub trait ProofParams: Send + Sync + 'static {
    /// Whether everything for this size is there. May read the disk.
    fn ready(&self, size: SectorSize) -> bool;
    /// Brings what is missing. `progress` takes a few words for people, for example `fetching parameters, 34 %`.
    async fn obtain(&self, size: SectorSize, progress: &(dyn Fn(String) + Send + Sync))
    -> Result<(), String>;
    /// Variables that tell an executor where the parameters are (`FIL_PROOFS_PARAMETER_CACHE`).
    fn environment(&self, size: SectorSize) -> Vec<(String, String)>;
}

/// The tasks of one worker.
pub(crate) struct Offer {
    wanted: BTreeSet<TaskType>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    disabled: BTreeSet<TaskType>,
    pending: BTreeMap<TaskType, String>,
}

impl Offer {
    /// Offers `wanted`.
    pub(crate) fn new(wanted: BTreeSet<TaskType>) -> Self {
        Self { wanted, state: Mutex::default() }
    }

    /// The tasks offered now.
    pub(crate) fn tasks(&self) -> BTreeSet<TaskType> {
        let state = self.state();
        let offered = |task: &TaskType| !state.disabled.contains(task) && !state.pending.contains_key(task);
        self.wanted.iter().copied().filter(offered).collect()
    }

    /// Tasks that will be offered later, and why not yet.
    pub(crate) fn pending(&self) -> BTreeMap<TaskType, String> {
        self.state().pending.clone()
    }

    /// Offers `task` again. Whether it is one of this worker's.
    pub(crate) fn enable(&self, task: TaskType) -> bool {
        self.state().disabled.remove(&task);
        self.wanted.contains(&task)
    }

    /// Offers `task` no longer.
    pub(crate) fn disable(&self, task: TaskType) {
        self.state().disabled.insert(task);
    }

    fn wait_for(&self, tasks: &[TaskType], why: &str) {
        let mut state = self.state();
        for task in tasks {
            state.pending.insert(*task, why.to_owned());
        }
    }

    fn ready(&self, tasks: &[TaskType]) {
        let mut state = self.state();
        for task in tasks {
            state.pending.remove(task);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after the parameters: holds back the tasks that need them and, in the background, obtains them. Returns once
/// it is known whether anything has to be waited for.
pub(crate) async fn look_after_parameters(shared: &Arc<Shared>) {
    let waiting: Vec<TaskType> =
        NEED_PARAMETERS.into_iter().filter(|task| shared.offer.wanted.contains(task)).collect();
    if waiting.is_empty() || ready(shared).await {
        return;
    }
    shared.offer.wait_for(&waiting, "waiting for the proof parameters");
    let own = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let closed = own.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = obtain(&own, &waiting) => {}
        }
    });
}

async fn obtain(shared: &Arc<Shared>, waiting: &[TaskType]) {
    let first_pause = shared.periods.parameters_retry;
    let mut growth = 1;
    loop {
        let progress = |words: String| {
            shared.offer.wait_for(waiting, &words);
            shared.changed();
        };
        let obtained = tokio::select! {
            obtained = shared.params.obtain(shared.sector_size, &progress) => obtained,
            () = appear(shared) => Ok(()),
        };
        let why = match obtained {
            Ok(()) if ready(shared).await => {
                shared.offer.ready(waiting);
                shared.changed();
                tracing::info!(size = %shared.sector_size, "proof parameters are there");
                return;
            }
            Ok(()) => "the parameters are still not complete".to_owned(),
            Err(why) => why,
        };
        let pause: Duration = first_pause.saturating_mul(growth);
        tracing::warn!(size = %shared.sector_size, %why, ?pause, "proof parameters could not be obtained");
        shared.offer.wait_for(waiting, &format!("{why}{TRYING_AGAIN}{} s", pause.as_secs()));
        shared.changed();
        // In vain or not: the next round finds out, and says what it finds.
        let _ = tokio::time::timeout(pause, appear(shared)).await;
        growth = (growth * 2).min(PAUSE_GROWTH_MAX);
    }
}

/// Returns when the parameters are there by another's doing: an operator copied them, or another program fetched or
/// generated them.
async fn appear(shared: &Arc<Shared>) {
    let mut looks = tokio::time::interval(shared.periods.parameters_look);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay); // a look may read large files
    looks.tick().await; // the first comes at once, and has been taken
    loop {
        looks.tick().await;
        if ready(shared).await {
            return;
        }
    }
}

async fn ready(shared: &Arc<Shared>) -> bool {
    let (params, size) = (Arc::clone(&shared.params), shared.sector_size);
    tokio::task::spawn_blocking(move || params.ready(size)).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_and_pending_tasks_are_not_offered() {
        let offer = Offer::new([TaskType::PreCommit1, TaskType::Commit2].into());
        offer.wait_for(&[TaskType::Commit2], "fetching");
        assert_eq!(offer.tasks(), [TaskType::PreCommit1].into());
        assert_eq!(offer.pending()[&TaskType::Commit2], "fetching");
        offer.disable(TaskType::PreCommit1);
        assert!(offer.tasks().is_empty());
        offer.ready(&[TaskType::Commit2]);
        assert!(offer.enable(TaskType::PreCommit1) && !offer.enable(TaskType::AddPiece));
        assert_eq!(offer.tasks(), [TaskType::PreCommit1, TaskType::Commit2].into());
    }
}
