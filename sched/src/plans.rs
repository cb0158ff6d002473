//! Plans: which sectors may begin on a worker, and in which of its paths. What has begun there is finished there, as on a
//! worker that drains: a task of a sector that the plans do not take comes if the sector has a file within reach and no
//! other worker sees to it. So a plan may change at any time and strands nothing. Never: says which tasks a plan has a say
//! in; a request without a purpose comes under any plan.

use sealtasks::{PathType, SealingPlan, SealingPurpose};

use crate::class::ClassKey;
use crate::space::PathIdx;
use crate::worker::Worker;
use crate::{Obstacle, Sched, WorkerProfile};

impl WorkerProfile {
    /// The plans that decide what comes here.
    fn plans(&self) -> impl Iterator<Item = SealingPlan> + '_ {
        let own = Some(self.plan).filter(|_| self.path_plans.is_empty());
        own.into_iter().chain(self.path_plans.values().copied())
    }

    /// Whether tasks of sectors that are sealed for this may come, if they are bound by plans at all.
    pub(crate) fn takes(&self, purpose: Option<SealingPurpose>) -> bool {
        purpose.is_none_or(|purpose| self.plans().any(|plan| plan.takes(purpose)))
    }

    /// Whether its plans say nothing against any task in any path.
    pub(crate) fn takes_all(&self) -> bool {
        self.plan == SealingPlan::Any && self.path_plans.values().all(|plan| *plan == SealingPlan::Any)
    }
}

impl Worker {
    /// What its plans say against such a task.
    pub(crate) fn other_plan(&self, key: &ClassKey) -> Option<Obstacle> {
        let purpose = key.purpose.filter(|purpose| !self.profile.takes(Some(*purpose)))?;
        let mut plans: Vec<_> = self.profile.plans().collect();
        plans.sort_unstable();
        plans.dedup();
        Some(Obstacle::OtherPlan { plans, purpose })
    }
}

impl Sched {
    /// Whether the plans let new files of such a task lie in this path, which the worker reaches: it takes such sectors, or
    /// has a file of this one.
    pub(crate) fn may_begin_in(
        &self,
        key: &ClassKey,
        worker: &Worker,
        path: PathIdx,
        path_type: PathType,
    ) -> bool {
        let profile = &worker.profile;
        let takes = |purpose: SealingPurpose| {
            profile.path_plans.get(self.paths.get(path).id()).unwrap_or(&profile.plan).takes(purpose)
        };
        path_type == PathType::Storage
            || profile.path_plans.is_empty()
            || key.purpose.is_none_or(takes)
            || key.is_held_by(path)
    }
}
