//! Sealing threads: for what a sector is sealed, what the plans of workers mean to the scheduler, and what is under way in
//! which path, for people. Never: says what a worker's plans are; that worker does.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::SectorState;
use rpc::extension::{ThreadState, ThreadView};
use sealtasks::{SealingPlan, SealingPurpose, SectorId, StorageId, TaskType};

use super::Driver;
use super::fleet::Worker;

/// What is under way in each path.
pub(super) type UnderWay = BTreeMap<StorageId, BTreeSet<SectorId>>;

impl Driver {
    /// The sectors that are not done, by the paths that hold files of them or will.
    pub(super) fn under_way(&self) -> UnderWay {
        let mut found = UnderWay::new();
        let mut note = |path: &StorageId, sector| {
            found.entry(path.clone()).or_default().insert(sector);
        };
        let open = self.sectors.iter().filter(|(_, sector)| sector.record.state() != SectorState::Proving);
        for (sector, _) in open {
            for held in self.shared.index.sector_files(*sector) {
                note(&held.id, *sector);
            }
        }
        for (task, open) in self.open_attempts() {
            for space in &open.reservations {
                note(&space.path, task.sector.id);
            }
        }
        found
    }

    /// Whether sectors of this purpose may begin in a path: some thread in it takes them, or there is none.
    pub(super) fn path_takes(&self, path: &StorageId, purpose: SealingPurpose) -> bool {
        let threads = self.workers.values().flat_map(|worker| &worker.threads);
        let mut threads = threads.filter(|thread| thread.path.as_ref() == Some(path)).peekable();
        threads.peek().is_none() || threads.any(|thread| thread.plan.takes(purpose))
    }

    /// The worker's threads, in its order.
    pub(super) fn thread_views(&self, worker: &Worker, under_way: &UnderWay) -> Vec<ThreadView> {
        let none = BTreeSet::new();
        let view = |(index, thread): (usize, &ThreadState)| {
            let here = thread.path.as_ref().and_then(|path| under_way.get(path)).unwrap_or(&none);
            let mut purposes =
                here.iter().filter_map(|sector| self.asking().purpose(*sector, TaskType::PreCommit1));
            // What began under another plan is finished under it.
            let before = purposes.find(|purpose| !thread.plan.takes(*purpose)).map(SealingPurpose::plan);
            let paused = thread.plan == SealingPlan::None;
            let state = match thread.path {
                None => "closed",
                Some(_) if !here.is_empty() => "sealing",
                Some(_) if paused => "paused",
                Some(_) => "idle",
            };
            ThreadView {
                index: index.saturating_add(1),
                location: thread.location.clone(),
                path: thread.path.clone(),
                plan: before.unwrap_or(thread.plan),
                pending: before.map(|_| thread.plan),
                sectors: here.iter().copied().collect(),
                paused,
                state: state.to_owned(),
                last_error: thread.error.clone(),
            }
        };
        worker.threads.iter().enumerate().map(view).collect()
    }
}

/// Whether new sectors may begin on the worker.
pub(super) fn takes_new(worker: &Worker) -> bool {
    let plans = path_plans(worker);
    let own = Some(worker.plan).filter(|_| plans.is_empty());
    own.into_iter().chain(plans.into_values()).any(|plan| plan.takes(SealingPurpose::New))
}

/// The plans of a worker's paths, as the scheduler takes them: none where all are as the worker's own.
pub(super) fn path_plans(worker: &Worker) -> BTreeMap<StorageId, SealingPlan> {
    let all = worker.threads.iter().filter_map(|thread| Some((thread.path.clone()?, thread.plan)));
    let all: BTreeMap<_, _> = all.collect();
    if all.values().all(|plan| *plan == worker.plan) { BTreeMap::new() } else { all }
}
