//! Which files may go where, and who would finish what lies on shared paths, by an outsider's own arithmetic.

use sealtasks::{PathType, ResourceTable, StorageId};

use super::fit::is_for;
use super::model::{Charge, GPU_WHOLE, Load, Model, Task, Worker, gpu_of};
use crate::{ExistingRule, GroupCap, PathFacts, WorkerMode, WorkerProfile};

impl Model {
    /// Whether a file that lies in these places may be fetched into this path: one of those that serve it allows any path,
    /// or one of the path's groups.
    pub(super) fn may_go(&self, places: &[StorageId], to: &PathFacts) -> bool {
        let served = places.iter().filter(|path| self.is_served(path));
        let mut from = served.filter_map(|path| self.paths[path].facts.as_ref());
        from.any(|from| {
            from.allow_to.is_empty() || from.allow_to.iter().any(|group| to.groups.contains(group))
        })
    }

    /// Whether another worker, which does not drain, is at hand for all those of the task's files that this one reaches, and
    /// would be up to the task were it idle.
    pub(super) fn others_see_to(&self, worker: &Worker, task: &Task, table: &ResourceTable) -> bool {
        let sector = task.request.sector.id;
        let files = task.request.needs.existing.iter().flat_map(|existing| &existing.files);
        let places = files.map(|file| self.places(sector, file.kind));
        let here: Vec<_> = places.filter(|places| self.is_here(worker, places, None)).collect();
        !here.is_empty()
            && self.workers.values().filter(|other| !std::ptr::eq(*other, worker)).any(|other| {
                here.iter().all(|places| self.is_here(other, places, None))
                    && self.is_up_to(other, task, table)
            })
    }

    fn is_up_to(&self, worker: &Worker, task: &Task, table: &ResourceTable) -> bool {
        let kind = task.kind();
        let needs = &task.request.needs;
        let moves_to = needs.existing.as_ref().and_then(|existing| match existing.rule {
            ExistingRule::MoveTo(path_type) => Some(path_type),
            ExistingRule::Here | ExistingRule::PartlyHere(_) | ExistingRule::Fetch(_) => None,
        });
        let mut purposes = needs.allocate.iter().map(|allocate| allocate.path_type).chain(moves_to);
        let has = |purpose: PathType| {
            let facts = |path| self.paths.get(path).and_then(|path| path.facts.as_ref());
            let paths = worker.profile.paths.iter().filter_map(facts);
            paths
                .filter(|facts| is_for(facts, purpose))
                .any(|facts| purpose == PathType::Storage || self.plan_lets(task, worker, &facts.id))
        };
        let forbids =
            |caps: &[GroupCap]| caps.iter().any(|cap| cap.most == 0 && cap.tasks.contains(&kind.task));
        let machine = worker.profile.machine.as_ref().and_then(|machine| self.machine_caps.get(machine));
        worker.is_usable()
            && worker.mode != WorkerMode::Draining
            && worker.plans_take(task)
            && worker.offers(kind.task)
            && !machine.is_some_and(|caps| forbids(caps))
            && purposes.all(has)
            && self.fits_idle(worker, task, table)
    }

    /// Whether the plan of a path for sealing lets new files of the task's sector lie there, or one that the task reads does.
    pub(super) fn plan_lets(&self, task: &Task, worker: &Worker, path: &StorageId) -> bool {
        let profile = &worker.profile;
        let plan = profile.path_plans.get(path).unwrap_or(&profile.plan);
        let mut files = task.request.needs.existing.iter().flat_map(|existing| &existing.files);
        profile.path_plans.is_empty()
            || task.request.purpose.is_none_or(|purpose| plan.takes(purpose))
            || files.any(|file| self.places(task.request.sector.id, file.kind).contains(path))
    }

    /// Whether one such task fits on the worker's machine while nothing else uses it.
    fn fits_idle(&self, worker: &Worker, task: &Task, table: &ResourceTable) -> bool {
        let row = worker.row(table, task.kind());
        let profile = WorkerProfile { mem_used: 0, swap_used: 0, machine: None, ..worker.profile.clone() };
        let idle = Worker { profile, load: Load::default(), started: Default::default(), ..*worker };
        let charge = Charge {
            min: row.min_memory,
            max: row.max_memory,
            threads: worker.threads(&row),
            gpus: Vec::new(),
        };
        let (asked, devices) = (gpu_of(&row), worker.gpus() as u64);
        let fits_devices =
            devices == 0 || idle.profile.ignore_resources || asked.div_ceil(GPU_WHOLE) <= devices;
        fits_devices && self.over(&idle, task.kind(), &row, &charge).is_none()
    }
}
