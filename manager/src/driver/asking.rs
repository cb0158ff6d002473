//! What tasks ask of the scheduler. Never: changes anything, so that several threads may make the requests of a million
//! tasks that waited when the manager started.

use std::collections::BTreeMap;

use sched::{Millis, Request};
use sealtasks::{SealingPurpose, SectorId, TaskId, TaskType};

use super::avoiding::FailedOn;
use super::input::Sector;
use super::{Driver, Task};
use crate::request;
use crate::shared::Shared;

/// Requests from which on a second thread makes half of them.
const SHARED: usize = 256;

/// What requests are made of.
#[derive(Clone, Copy)]
pub(super) struct Asking<'driver> {
    shared: &'driver Shared,
    tasks: &'driver BTreeMap<TaskId, Box<Task>>,
    sectors: &'driver BTreeMap<SectorId, Sector>,
    failed_on: &'driver FailedOn,
}

impl Driver {
    pub(super) fn asking(&self) -> Asking<'_> {
        Asking {
            shared: &self.shared,
            tasks: &self.tasks,
            sectors: &self.sectors,
            failed_on: &self.failed_on,
        }
    }
}

impl Asking<'_> {
    /// `None`: the task is not here, or never scheduled.
    pub(super) fn request(self, id: TaskId) -> Option<Request> {
        let task = self.tasks.get(&id)?;
        let files = self.shared.index.sector_files(task.sector.id);
        let held_by = |kind| {
            files.iter().filter(|held| held.types.contains(kind)).map(|held| held.id.clone()).collect()
        };
        let since = Millis::new(task.queued_ms);
        let request = request::request(task.sector, &task.work, &held_by, since, task.attempts)?;
        let (deadline, priority) = (self.deadline(task.sector.id), self.priority(id));
        let purpose = self.purpose(task.sector.id, request.task);
        let avoid = self.failed_on.to_avoid(task.sector.id, request.task);
        Some(Request { purpose, avoid, deadline, priority, ..request })
    }

    /// The request of each.
    pub(super) fn requests(self, ids: &[TaskId]) -> Vec<Option<Request>> {
        let all = |ids: &[TaskId]| ids.iter().map(|id| self.request(*id)).collect::<Vec<_>>();
        if ids.len() < SHARED {
            return all(ids);
        }
        let (own, other) = ids.split_at(ids.len() / 2);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("requests".to_owned());
            let Ok(other) = thread.spawn_scoped(scope, || all(other)) else { return all(ids) };
            let mut made = all(own);
            made.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            made
        })
    }

    /// When the sector's present work must be done to be of use.
    pub(super) fn deadline(self, sector: SectorId) -> Option<Millis> {
        let clock = self.shared.chain.clock()?;
        let epoch = self.sectors.get(&sector)?.record.deadline()?;
        Some(Millis::new(clock.millis_at(epoch)))
    }

    /// The task's own priority, or its sector's.
    pub(super) fn priority(self, task: TaskId) -> i64 {
        let Some(task) = self.tasks.get(&task) else { return 0 };
        let of_sector = || self.sectors.get(&task.sector.id).map_or(0, |sector| sector.priority);
        task.priority.unwrap_or_else(of_sector)
    }

    /// For what the sector is sealed, as far as plans have a say in such a task: they are about sealing. Files are moved,
    /// unsealed and looked at under any plan.
    pub(super) fn purpose(self, sector: SectorId, task: TaskType) -> Option<SealingPurpose> {
        match task {
            TaskType::AddPiece
            | TaskType::PreCommit1
            | TaskType::PreCommit2
            | TaskType::Commit1
            | TaskType::Commit2
            | TaskType::Finalize => {
                let record = &self.sectors.get(&sector)?.record;
                let is_rebuilt = record.rebuilt_to().is_some();
                Some(if is_rebuilt { SealingPurpose::Rebuild } else { SealingPurpose::New })
            }
            _ => None,
        }
    }
}
