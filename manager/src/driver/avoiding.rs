//! On which worker a sector's task failed last: another one gets the next attempt, if one can begin it when its turn comes. One
//! that breaks fast is always the one that is free, and would else meet the same sector again and again until it is parked. Never:
//! has a task wait for a worker.

use std::collections::BTreeMap;

use pipeline::{Failure, SectorRecord};
use sealtasks::{AttemptId, FailureClass, SectorId, TaskType, WorkerId};

use super::Driver;
use crate::state::StateError;

/// Each sector's tasks that failed last, by the worker's session: whoever has repaired a worker starts it again, and then it is
/// another one. The durable state has them as attempts.
#[derive(Default)]
pub(crate) struct FailedOn(BTreeMap<(SectorId, TaskType), WorkerId>);

/// Whether a failure may be the worker's. The others are the other side's, the input's, or an operator's, or passing.
const fn may_be_its_worker_s(class: FailureClass) -> bool {
    match class {
        FailureClass::Environment | FailureClass::Compute => true,
        FailureClass::Space | FailureClass::Network | FailureClass::BadData | FailureClass::Aborted => false,
    }
}

/// Whether the last step of a sector failed so.
fn has_just_failed(record: &SectorRecord) -> bool {
    let may_be =
        |failure: &Failure| may_be_its_worker_s(failure.class) && record.failures_in_a_row(failure.class) > 0;
    record.failures().last().is_some_and(may_be)
}

impl FailedOn {
    /// The worker that is to have a sector's task only if no other one can begin it.
    pub(super) fn to_avoid(&self, sector: SectorId, kind: TaskType) -> Option<WorkerId> {
        self.0.get(&(sector, kind)).copied()
    }
}

impl Driver {
    /// An attempt failed.
    pub(super) fn note_failed_on(&mut self, attempt: AttemptId, class: FailureClass) {
        let Some((session, kind, sector)) = self.place_of(attempt) else { return };
        // Another worker is asked whether the replica is bad indeed.
        if may_be_its_worker_s(class) || (kind, class) == (TaskType::Commit1, FailureClass::BadData) {
            self.failed_on.0.insert((sector, kind), session);
        }
    }

    /// An attempt ended well: what comes later of this sector has nothing to do with what went before.
    pub(super) fn note_done_on(&mut self, sector: SectorId, kind: TaskType) {
        self.failed_on.0.remove(&(sector, kind));
    }

    /// Forgets sectors that are gone.
    pub(super) fn forget_failed_on(&mut self) {
        self.failed_on.0.retain(|(sector, _), _| self.sectors.contains_key(sector));
    }

    /// What an earlier life knew.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub(super) async fn load_failed_on(&mut self) -> Result<(), StateError> {
        let failed = self.sectors.iter().filter(|(_, sector)| has_just_failed(&sector.record));
        let failed: Vec<SectorId> = failed.map(|(id, _)| *id).collect();
        self.failed_on = FailedOn(self.shared.state.failed_on(failed).await?.into_iter().collect());
        Ok(())
    }
}
