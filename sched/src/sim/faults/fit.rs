//! Whether a task fits on a worker, by an outsider's own arithmetic: capacity and caps, files and room.

use sealtasks::{FileType, PathType, ResourceTable, Resources, SealTaskType, StorageId, TaskType};

use super::model::{Charge, GPU_WHOLE, Model, Task, Worker, gpu_of};
use crate::{ExistingRule, GroupCap, PathFacts, Plan, WorkerKey, WorkerMode};

impl Model {
    /// What is over the limit once this is charged beside what runs already; `None`: nothing.
    pub(super) fn over(
        &self,
        worker: &Worker,
        kind: SealTaskType,
        row: &Resources,
        charge: &Charge,
    ) -> Option<String> {
        let load = &worker.load;
        let count = load.kinds.get(&kind).map_or(0, |(count, _)| *count);
        if row.max_concurrent > 0 && count >= row.max_concurrent {
            return Some(format!("{count} of {kind} run, at most {}", row.max_concurrent));
        }
        if let Some(over) = self.over_caps(worker, kind.task) {
            return Some(over);
        }
        if worker.profile.ignore_resources {
            return None;
        }
        let profile = &worker.profile;
        let base = if count > 0 { 0 } else { u128::from(row.base_min_memory) };
        let min = load.min + load.base + u128::from(charge.min) + base;
        if min > profile.mem_physical.into() && u128::from(charge.min) + base > 0 {
            return Some(format!("{min} bytes of {} of RAM", profile.mem_physical));
        }
        let in_use = u128::from(profile.mem_used) + u128::from(profile.swap_used);
        let max = (load.max + load.base).max(in_use) + u128::from(charge.max) + base;
        let both = u128::from(profile.mem_physical) + u128::from(profile.mem_swap);
        if max > both && u128::from(charge.max) + base > 0 {
            return Some(format!("{max} bytes of {both} of RAM and swap"));
        }
        let threads = load.threads + u128::from(charge.threads);
        if charge.threads > 0 && threads > profile.cpus.into() {
            return Some(format!("{threads} of {} CPU threads", profile.cpus));
        }
        let device = charge.gpus.iter().find_map(|share| {
            let used = load.gpus.get(share.device).copied().unwrap_or(0) + share.thousandths;
            let is_over = share.device >= worker.gpus() || used > GPU_WHOLE;
            is_over.then(|| format!("{used} thousandths of GPU {} of {}", share.device, worker.gpus()))
        });
        device.or_else(|| self.over_on_machine(worker, base, charge))
    }

    /// The same on the machine, where others share it: it has the most that any of them reports.
    fn over_on_machine(&self, worker: &Worker, base: u128, charge: &Charge) -> Option<String> {
        let machine = worker.profile.machine.as_ref()?;
        let members = || self.on_machine(machine);
        if members().count() < 2 {
            return None;
        }
        let most = |of: &dyn Fn(&Worker) -> u64| {
            u128::from(members().filter(|worker| !worker.lost).map(of).max().unwrap_or(0))
        };
        let sum = |of: &dyn Fn(&Worker) -> u128| members().map(of).sum::<u128>();
        let min = sum(&|worker| worker.load.min + worker.load.base) + u128::from(charge.min) + base;
        let physical = most(&|worker| worker.profile.mem_physical);
        if min > physical && u128::from(charge.min) + base > 0 {
            return Some(format!("{min} bytes of {physical} of the RAM of {machine}"));
        }
        let in_use = most(&|worker| worker.profile.mem_used) + most(&|worker| worker.profile.swap_used);
        let held = sum(&|worker| worker.load.max + worker.load.base).max(in_use);
        let max = held + u128::from(charge.max) + base;
        let both = physical + most(&|worker| worker.profile.mem_swap);
        if max > both && u128::from(charge.max) + base > 0 {
            return Some(format!("{max} bytes of {both} of the RAM and swap of {machine}"));
        }
        let (threads, cpus) = (sum(&|worker| worker.load.threads), most(&|worker| worker.profile.cpus));
        if charge.threads > 0 && threads + u128::from(charge.threads) > cpus {
            return Some(format!("{threads} of {cpus} CPU threads of {machine} are taken"));
        }
        charge.gpus.iter().find_map(|share| {
            let used = self.device_used(worker, share.device) + share.thousandths;
            (used > GPU_WHOLE).then(|| format!("{used} thousandths of GPU {} of {machine}", share.device))
        })
    }

    /// Whether such a task would fit into RAM and swap were it not for what other programs use there: nobody can promise
    /// when they will use less.
    pub(super) fn is_short_by_others(&self, worker: &Worker, kind: SealTaskType, row: &Resources) -> bool {
        let is_first = !worker.load.kinds.contains_key(&kind);
        let needs = u128::from(row.max_memory) + if is_first { row.base_min_memory.into() } else { 0 };
        let machine: Vec<&Worker> =
            worker.profile.machine.iter().flat_map(|machine| self.on_machine(machine)).collect();
        let short = |members: &[&Worker]| {
            let own: u128 = members.iter().map(|worker| worker.load.max + worker.load.base).sum();
            let most = |of: &dyn Fn(&Worker) -> u64| -> u128 {
                members.iter().map(|worker| of(worker)).max().unwrap_or(0).into()
            };
            let both = most(&|worker| worker.profile.mem_physical) + most(&|worker| worker.profile.mem_swap);
            let others = most(&|worker| worker.profile.mem_used) + most(&|worker| worker.profile.swap_used);
            own.max(others) + needs > both && own + needs <= both
        };
        short(&[worker]) || short(&machine)
    }

    /// Before when no task of this type may start on the worker, by its own and its machine's last starts.
    pub(super) fn staggered_until(&self, worker: &Worker, task: TaskType) -> Option<crate::Millis> {
        let span = *worker.profile.stagger.get(&task)?;
        let others = worker.profile.machine.iter().flat_map(|machine| self.on_machine(machine));
        let last = others.chain([worker]).filter_map(|worker| worker.started.get(&task)).max()?;
        Some(last.after(span)).filter(|until| *until > self.now)
    }

    /// Whether starts of this type may have to be kept apart there now: by the last starts above, or by one of a worker that
    /// has left the machine, which the machine may have forgotten.
    pub(super) fn may_be_staggered(&self, worker: &Worker, task: TaskType) -> bool {
        let by_others = || {
            let span = *worker.profile.stagger.get(&task)?;
            let last = self.machine_started.get(&(worker.profile.machine.clone()?, task))?;
            Some(last.after(span)).filter(|until| *until > self.now)
        };
        self.staggered_until(worker, task).or_else(by_others).is_some()
    }

    fn over_caps(&self, worker: &Worker, task: TaskType) -> Option<String> {
        let running = worker.load.of_type(task);
        if let Some(cap) = worker.profile.caps.get(&task).filter(|cap| running >= u64::from(**cap)) {
            return Some(format!("{running} of {task} run, at most {cap}"));
        }
        let full = |caps: &[GroupCap], running: &dyn Fn(TaskType) -> u64| {
            caps.iter().filter(|cap| cap.tasks.contains(&task)).find_map(|cap| {
                let running: u64 = cap.tasks.iter().map(|task| running(*task)).sum();
                (running >= u64::from(cap.most))
                    .then(|| format!("{running} of group {} run, at most {}", cap.name, cap.most))
            })
        };
        full(&worker.profile.group_caps, &|task| worker.load.of_type(task)).or_else(|| {
            let machine = worker.profile.machine.as_ref()?;
            let caps = self.machine_caps.get(machine)?;
            let there = |task| self.on_machine(machine).map(|worker| worker.load.of_type(task)).sum();
            full(caps, &there)
        })
    }

    pub(super) fn on_machine<'a>(&'a self, machine: &'a str) -> impl Iterator<Item = &'a Worker> + 'a {
        self.workers.values().filter(move |worker| worker.profile.machine.as_deref() == Some(machine))
    }

    /// Whether the worker's mode and plans let such a task come to it.
    pub(super) fn mode_allows(&self, worker: &Worker, task: &Task, table: &ResourceTable) -> bool {
        let lives_here = || {
            let mut files = task.request.needs.existing.iter().flat_map(|existing| &existing.files);
            files.any(|file| {
                let mut places = self.places(task.request.sector.id, file.kind).iter();
                places.any(|path| worker.profile.paths.contains(path))
            })
        };
        let needs = &task.request.needs;
        let finishes = || lives_here() && !self.others_see_to(worker, task, table);
        match worker.mode {
            WorkerMode::Disabled => false,
            WorkerMode::Draining => finishes(),
            WorkerMode::Cordoned
                if !(needs.existing.is_none() && needs.allocate.is_none() || lives_here()) =>
            {
                false
            }
            WorkerMode::Open | WorkerMode::Cordoned => worker.plans_take(task) || finishes(),
        }
    }

    /// Whether the file lies within the worker's reach, in a path for that use.
    pub(super) fn is_here(&self, worker: &Worker, places: &[StorageId], purpose: Option<PathType>) -> bool {
        places.iter().filter(|path| worker.profile.paths.contains(path)).any(|path| {
            let facts = self.paths.get(path).and_then(|path| path.facts.as_ref());
            facts.is_some_and(|facts| purpose.is_none_or(|purpose| is_for(facts, purpose)))
        })
    }

    /// What is wrong with a plan that was made for this task on this worker; `None`: nothing.
    pub(super) fn wrong_plan(&self, task: &Task, key: WorkerKey, plan: &Plan) -> Option<String> {
        let worker = self.workers.get(&key)?;
        let sector = task.request.sector.id;
        let mut taken: Vec<(&StorageId, u128)> = Vec::new();
        let parts = plan.fetch.iter().map(|step| (step.kind, &step.to, step.bytes));
        let parts = parts.chain(plan.allocate.iter().map(|step| (step.kind, &step.path, step.bytes)));
        for (kind, path, bytes) in parts {
            if !worker.profile.paths.contains(path) {
                return Some(format!("{kind} goes to path {path}, which the worker does not reach"));
            }
            let facts = self.paths.get(path).and_then(|path| path.facts.as_ref());
            let Some(facts) = facts.filter(|facts| takes(facts, kind, sector.miner)) else {
                return Some(format!("{kind} goes to path {path}, which does not take it"));
            };
            let in_store = facts.can_store && !facts.can_seal;
            if !in_store && !self.plan_lets(task, worker, path) {
                return Some(format!("{kind} goes to path {path}, where no such sector may begin"));
            }
            let places = self.places(sector, kind);
            if plan.fetch.iter().any(|step| step.kind == kind && &step.to == path)
                && !self.may_go(places, facts)
            {
                return Some(format!("{kind} goes to path {path}, of no group that it may go to"));
            }
            let before: u128 = taken.iter().filter(|(other, _)| *other == path).map(|(_, part)| part).sum();
            if before + u128::from(bytes) > self.paths[path].free() {
                return Some(format!(
                    "{bytes} bytes of {kind} go to {path}, {} are available",
                    facts.available
                ));
            }
            taken.push((path, bytes.into()));
        }
        self.wrong_inputs(task, worker, plan)
    }

    fn wrong_inputs(&self, task: &Task, worker: &Worker, plan: &Plan) -> Option<String> {
        let existing = task.request.needs.existing.as_ref()?;
        let sector = task.request.sector.id;
        let purpose = match existing.rule {
            ExistingRule::MoveTo(path_type) => Some(path_type),
            ExistingRule::Here | ExistingRule::PartlyHere(_) | ExistingRule::Fetch(_) => None,
        };
        let mut some_here = existing.files.is_empty();
        for file in &existing.files {
            let places = self.places(sector, file.kind);
            let step = plan.fetch.iter().find(|step| step.kind == file.kind);
            match (self.is_here(worker, places, purpose), step) {
                (true, None) => some_here = true,
                (true, Some(_)) => return Some(format!("fetches {}, which is there", file.kind)),
                (false, None) => return Some(format!("does not fetch {}", file.kind)),
                (false, Some(_)) if existing.rule == ExistingRule::Here => {
                    return Some(format!("fetches {}, which must be there", file.kind));
                }
                (false, Some(step)) => {
                    let knows = |path: &StorageId| places.contains(path) && self.is_served(path);
                    if step.from.is_empty() || !step.from.iter().all(knows) {
                        return Some(format!("fetches {} from where nobody serves it", file.kind));
                    }
                }
            }
        }
        let needs_some = matches!(existing.rule, ExistingRule::PartlyHere(_));
        (needs_some && !some_here).then(|| "none of its files is there".to_owned())
    }

    /// Whether this waiting task could certainly start on this worker, reservations apart. "Certainly": one path of the
    /// worker takes all of its files, so that no way of choosing paths can fail; and the most that long tasks may have to
    /// leave free for small ones is free too.
    pub(super) fn could_start(&self, task: &Task, key: WorkerKey, table: &ResourceTable) -> bool {
        let worker = &self.workers[&key];
        let kind = task.kind();
        let row = worker.row(table, kind);
        let small = worker.largest_small(table, kind);
        let charge = Charge {
            min: row.min_memory.saturating_add(small.0),
            max: row.max_memory.saturating_add(small.1),
            threads: worker.threads(&row),
            gpus: Vec::new(),
        };
        worker.is_usable()
            && worker.mode == WorkerMode::Open
            && worker.has_no_plans()
            && worker.offers(kind.task)
            && self.over(worker, kind, &row, &charge).is_none()
            && self.gpus_free(worker, &row)
            && self.has_room(task, worker)
    }

    /// Thousandths of a device that are taken, by whoever shares it.
    fn device_used(&self, worker: &Worker, device: usize) -> u64 {
        let used = |worker: &Worker| worker.load.gpus.get(device).copied().unwrap_or(0);
        let Some(machine) = &worker.profile.machine else { return used(worker) };
        let name = worker.profile.gpus.get(device);
        let same = |other: &&Worker| other.profile.gpus.get(device) == name;
        self.on_machine(machine).filter(same).map(used).sum()
    }

    /// Whether the devices have room for such a task: whole ones idle, and one for the fraction.
    fn gpus_free(&self, worker: &Worker, row: &Resources) -> bool {
        let asked = gpu_of(row);
        if asked == 0 || worker.gpus() == 0 || worker.profile.ignore_resources {
            return true;
        }
        let used = |device: usize| self.device_used(worker, device);
        let idle = (0..worker.gpus()).filter(|device| used(*device) == 0).count() as u64;
        let (whole, fraction) = (asked / GPU_WHOLE, asked % GPU_WHOLE);
        let shared =
            (0..worker.gpus()).any(|device| used(device) > 0 && used(device) + fraction <= GPU_WHOLE);
        idle >= whole + u64::from(fraction > 0 && !shared)
    }

    fn has_room(&self, task: &Task, worker: &Worker) -> bool {
        let sector = task.request.sector.id;
        // With the places that a file comes from; a new one comes from none.
        let mut wanted: Vec<(FileType, u64, PathType, &[StorageId])> = Vec::new();
        if let Some(existing) = &task.request.needs.existing {
            let (path_type, purpose) = match existing.rule {
                ExistingRule::Here => (None, None),
                ExistingRule::PartlyHere(path_type) | ExistingRule::Fetch(path_type) => {
                    (Some(path_type), None)
                }
                ExistingRule::MoveTo(path_type) => (Some(path_type), Some(path_type)),
            };
            let mut here = 0;
            for file in &existing.files {
                let places = self.places(sector, file.kind);
                if self.is_here(worker, places, purpose) {
                    here += 1;
                } else if let Some(path_type) =
                    path_type.filter(|_| places.iter().any(|path| self.is_served(path)))
                {
                    wanted.push((file.kind, file.bytes, path_type, places));
                } else {
                    return false;
                }
            }
            if here == 0 && matches!(existing.rule, ExistingRule::PartlyHere(_)) {
                return false;
            }
        }
        if let Some(allocate) = &task.request.needs.allocate {
            let new = |file: &crate::NewFile| (file.kind, file.bytes, allocate.path_type, &[][..]);
            wanted.extend(allocate.files.iter().map(new));
        }
        let total: u128 = wanted.iter().map(|(_, bytes, ..)| u128::from(*bytes)).sum();
        wanted.is_empty()
            || worker.profile.paths.iter().filter_map(|path| self.paths.get(path)).any(|path| {
                path.open() >= total
                    && path.facts.as_ref().is_some_and(|facts| {
                        let mut all = wanted.iter();
                        all.all(|(kind, _, path_type, places)| {
                            is_for(facts, *path_type)
                                && takes(facts, *kind, sector.miner)
                                && (places.is_empty() || self.may_go(places, facts))
                        })
                    })
            })
    }
}

pub(super) fn is_for(facts: &PathFacts, path_type: PathType) -> bool {
    match path_type {
        PathType::Sealing => facts.can_seal,
        PathType::Storage => facts.can_store,
    }
}

fn takes(facts: &PathFacts, kind: FileType, miner: sealtasks::ActorId) -> bool {
    facts.healthy
        && facts.accepts.contains(kind)
        && (facts.allow_miners.is_empty() || facts.allow_miners.contains(&miner))
        && !facts.deny_miners.contains(&miner)
}
