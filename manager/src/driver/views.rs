//! What people and Lotus's command line see of the driver's memory. Never: changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline::{RandomnessSource, SectorRecord, SectorState};
use rpc::WorkerApi;
use rpc::api::{WorkerJob, WorkerStats};
use rpc::extension::WorkerView;
use rpc::operator::{CapView, WorkerMode};
use sched::WorkerUse;
use sealtasks::{CallId, ChainEpoch, SectorId, SectorNumber, StorageId, TaskId, WorkerId};
use uuid::Uuid;

use super::caps::Uses;
use super::fleet::Worker;
use super::input::Sector;
use super::{Attempt, Driver, Phase};
use crate::shared::Shared;

/// A worker prepared for a task but whose own slot is busy still: Lotus's "prepared".
const RUN_WAIT_PREPARED: i64 = 1;
/// Bound, its inputs are not there yet: Lotus's "assigned".
const RUN_WAIT_ASSIGNED: i64 = 2;

/// Tasks explained in one answer: each costs a pass over the workers, during which nothing is scheduled.
const REASONS_MAX: usize = 1000;

/// A connected Sealyard worker.
pub(crate) struct Reachable {
    pub(crate) name: String,
    pub(crate) session: WorkerId,
    pub(crate) api: Arc<dyn WorkerApi>,
}

impl Driver {
    /// What it shares with the API.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether there is a sector with this name, or was, or files of one.
    pub(crate) fn has_heard_of(&self, id: SectorId) -> bool {
        let recorded = self.sectors.contains_key(&id) || self.removed.contains_key(&id);
        recorded || !self.shared.index.sector_files(id).is_empty()
    }

    /// Every worker with its load, in Lotus's shape.
    pub(crate) fn worker_stats(&self) -> BTreeMap<WorkerId, WorkerStats> {
        let uses = self.sched.worker_uses();
        let uses = Uses::of(&uses);
        let stats = |worker: &Worker| {
            let charged = uses.get(worker.key);
            WorkerStats {
                info: worker.info.clone(),
                tasks: worker.tasks.clone(),
                enabled: worker.enabled && worker.misses == 0 && worker.mode != WorkerMode::Disabled,
                mem_used_min: charged.map_or(0, |charged| clamp(charged.mem_used_min)),
                mem_used_max: charged.map_or(0, |charged| clamp(charged.mem_used_max)),
                gpu_used: charged.map_or(0.0, gpus),
                cpu_use: charged.map_or(0, |charged| clamp(charged.cpu_use)),
                task_counts: charged.map(counts).unwrap_or_default(),
            }
        };
        self.workers.iter().map(|(session, worker)| (*session, stats(worker))).collect()
    }

    /// Every worker's jobs, in Lotus's shape; queued ones stand under the nil worker.
    pub(crate) fn worker_jobs(&self) -> BTreeMap<WorkerId, Vec<WorkerJob>> {
        let mut jobs = BTreeMap::<_, Vec<_>>::new();
        let live = self
            .open_attempts()
            .filter_map(|(task, open)| Some((task.sector.id, task.work.task_type()?, open)));
        let given_up = self.detached.values().map(|it| (it.sector.id, it.task_type, &it.open));
        for (sector, kind, open) in live.chain(given_up) {
            let (run_wait, call) = match open.phase {
                Phase::Held(crate::state::CallStage::Work, call) => (0, call),
                Phase::Ready => (RUN_WAIT_PREPARED, nil_call(sector)),
                Phase::Held(crate::state::CallStage::Prepare, call) => (RUN_WAIT_ASSIGNED, call),
                Phase::Calling(_) => (RUN_WAIT_ASSIGNED, nil_call(sector)),
            };
            // Lotus lists jobs of workers that are not there under the nil id, and its command line knows them there.
            let known = self.workers.contains_key(&open.worker);
            let session = if known { open.worker } else { WorkerId::CLOSED };
            jobs.entry(session).or_default().push(WorkerJob {
                id: call,
                sector,
                task: kind,
                run_wait,
                start_ms: open.accepted_ms,
                hostname: open.name.clone(),
            });
        }
        jobs
    }

    /// Every worker for people, by name.
    pub(crate) fn worker_views(&self) -> Vec<WorkerView> {
        let uses = self.sched.worker_uses();
        let uses = Uses::of(&uses);
        let machines = self.machine_caps_views(&uses);
        let under_way = self.under_way();
        let view = |worker: &Worker| WorkerView {
            threads: self.thread_views(worker, &under_way),
            ..self.view(worker, &uses, &machines)
        };
        let mut views: Vec<_> = self.workers.values().map(view).collect();
        views.extend(self.forgotten_views());
        views.sort_by(|one, other| (&one.name, one.session).cmp(&(&other.name, other.session)));
        views
    }

    fn view(&self, worker: &Worker, uses: &Uses<'_>, machines: &BTreeMap<&str, Vec<CapView>>) -> WorkerView {
        let charged = uses.get(worker.key);
        let has = &worker.info.resources;
        let mut running = BTreeMap::<_, u64>::new();
        if let Some(charged) = charged {
            for (kind, count) in charged.task_counts.iter().chain(&charged.staged_counts) {
                let sum = running.entry(kind.task.short().to_owned()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        let (silent_ms, next_state) = self.silence_of(worker);
        let vmem = has.mem_physical.saturating_add(has.mem_swap);
        let vmem_used = has.mem_used.saturating_add(has.mem_swap_used);
        WorkerView {
            session: worker.key.session,
            name: worker.name().to_owned(),
            url: worker.url.clone(),
            kind: worker.peer.word().to_owned(),
            enabled: worker.enabled,
            state: worker.liveness().to_owned(),
            silent_ms,
            next_state,
            tasks: worker.tasks.clone(),
            pending: worker.pending.clone(),
            running,
            limits: limits(worker),
            cpu: (charged.map_or(0, |charged| clamp(charged.cpu_use)), has.cpus),
            ram: (
                charged.map_or(0, |charged| clamp(charged.mem_used_min)).saturating_add(worker.beside.own()),
                has.mem_used,
                has.mem_physical,
            ),
            vmem: (charged.map_or(0, |charged| clamp(charged.mem_used_max)), vmem_used, vmem),
            gpu_used: charged.map_or(0.0, gpus),
            gpus: has.gpus.clone(),
            durations: self.durations_of(worker.name()),
            fetches_bytes_per_second: worker.bandwidth,
            plan: worker.plan,
            threads: Vec::new(),
            paths: worker.paths.clone(),
            mode: worker.mode,
            mode_set: self.mode_set(worker),
            caps: self.caps_view(worker, uses),
            machine: worker.machine.clone(),
            machine_caps: worker
                .machine
                .as_deref()
                .and_then(|on| machines.get(on))
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// The connected Sealyard workers, by name: what else is asked of them goes to each itself.
    pub(crate) fn sealyards(&self) -> Vec<Reachable> {
        let ours = self.workers.iter().filter(|(_, worker)| worker.peer.is_sealyard());
        let mut found: Vec<_> = ours
            .map(|(session, worker)| Reachable {
                name: worker.name().to_owned(),
                session: *session,
                api: worker.api.clone(),
            })
            .collect();
        found.sort_by(|one, other| (&one.name, one.session).cmp(&(&other.name, other.session)));
        found
    }

    /// The sectors' records, lowest number first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &SectorRecord> {
        self.sectors.values().map(|sector| &*sector.record)
    }

    /// One sector's record.
    pub(crate) fn record(&self, sector: SectorId) -> Option<&SectorRecord> {
        self.sectors.get(&sector).map(|known| &*known.record)
    }

    /// Of a miner's sectors from this one on those that its chain should know to be proven, with the height that they are since;
    /// and the one to go on with, if there are more than so many to look at.
    pub(crate) fn proven_from(
        &self,
        from: SectorId,
        most: usize,
    ) -> (Vec<(SectorNumber, ChainEpoch)>, Option<SectorId>) {
        let mut all = self.sectors.range(from..).take_while(|(id, _)| id.miner == from.miner);
        let since = |(id, sector): (&SectorId, &Sector)| Some((id.number, proven_since(&sector.record)?));
        let found = all.by_ref().take(most).filter_map(since).collect();
        (found, all.next().map(|(id, _)| *id))
    }

    /// Whether its chain should know it to be proven.
    pub(crate) fn is_proven(&self, id: SectorId) -> bool {
        self.record(id).and_then(proven_since).is_some()
    }

    /// Which workers serve which path, by name.
    pub(crate) fn path_servers(&self) -> BTreeMap<StorageId, Vec<String>> {
        let mut servers = BTreeMap::<_, Vec<_>>::new();
        for worker in self.workers.values() {
            for path in &worker.paths {
                servers.entry(path.clone()).or_default().push(worker.name().to_owned());
            }
        }
        servers
    }

    /// Why waiting tasks wait, and why bound ones may not go on, in a few words: those of one sector, or the oldest of all.
    /// `Sealyard.Why` tells more.
    pub(crate) fn reasons(&self, sector: Option<SectorId>) -> BTreeMap<TaskId, String> {
        let asked =
            || self.tasks.values().filter(|task| sector.is_none_or(|sector| task.sector.id == sector));
        let waiting = asked().filter(|task| task.open.is_none()).take(REASONS_MAX.min(self.explained_max()));
        let bound = asked().filter_map(|task| Some((task.id, self.trouble(task.open.as_deref()?)?)));
        let reason = |task: TaskId| self.waits_for_given_up(task).unwrap_or_else(|| self.short_reason(task));
        waiting.map(|task| (task.id, reason(task.id))).chain(bound).collect()
    }

    /// Why a task is not even given to the scheduler.
    fn waits_for_given_up(&self, task: TaskId) -> Option<String> {
        let given_up = self.holding_back(self.tasks.get(&task)?.sector.id)?;
        let (id, whom, url) = (given_up.open.id, given_up.whom(), &given_up.open.url);
        Some(format!(
            "attempt {id} of this sector was given up and may still run on the {whom} at {url}; this goes on \
             when that worker registers again, `sealyard sealing abort {id}` no longer waits for it"
        ))
    }

    /// What keeps a bound attempt from going on as far as we know; `None` = nothing.
    pub(super) fn trouble(&self, open: &Attempt) -> Option<String> {
        let place = if open.url.is_empty() { String::new() } else { format!(" at {}", open.url) };
        let whom = format!("worker {}{place}", open.name);
        let known = self.workers.get(&open.worker);
        let what = match (known.map_or(0, |worker| worker.misses), open.phase) {
            _ if known.is_none() && !open.scheduled => {
                format!("{whom} has not come back since the manager started")
            }
            _ if known.is_none() => format!("{whom} is gone"),
            (0, Phase::Calling(_)) if open.unheard => format!("nobody knows whether {whom} took it"),
            (0, Phase::Calling(_) | Phase::Held(..) | Phase::Ready) => return None,
            (misses, _) => format!("{whom} does not answer (heartbeats missed: {misses})"),
        };
        let (id, anew) = (open.id, self.queued_anew_in(open));
        Some(format!(
            "{what}; it goes on when that worker is back{anew}, `sealyard sealing abort {id}` gives it up"
        ))
    }
}

/// The height since which its chain should know a sector to be proven.
fn proven_since(record: &SectorRecord) -> Option<ChainEpoch> {
    let is_proven = matches!(
        record.state(),
        SectorState::FinalizeSector | SectorState::FinalizeFailed | SectorState::Proving
    );
    let landed = record.progress().commit.as_ref().and_then(|commit| commit.landed);
    (is_proven && record.source() == RandomnessSource::Lotus).then(|| landed.unwrap_or_default())
}

/// The most at once of each task where something limits it: the worker's own table, over all sizes, or a limit on the
/// task by itself.
fn limits(worker: &Worker) -> BTreeMap<String, u64> {
    let single = worker.caps.iter().filter_map(|(group, most)| Some((group.single()?, u64::from(most))));
    let mut limits: BTreeMap<String, u64> =
        single.map(|(task, most)| (task.short().to_owned(), most)).collect();
    for (task, _, row) in worker.info.resources.table.iter().flat_map(|table| table.rows()) {
        if row.max_concurrent > 0 && worker.tasks.contains(&task) {
            let limit = limits.entry(task.short().to_owned()).or_insert(row.max_concurrent);
            *limit = row.max_concurrent.min(*limit);
        }
    }
    limits
}

fn counts(charged: &WorkerUse) -> BTreeMap<String, i64> {
    let all = charged.task_counts.iter().chain(&charged.staged_counts);
    let mut counts = BTreeMap::<_, i64>::new();
    for (kind, count) in all {
        let sum = counts.entry(kind.to_string()).or_default();
        *sum = sum.saturating_add(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    counts
}

fn gpus(charged: &WorkerUse) -> f64 {
    let thousandths: u64 = charged.gpu_used.iter().fold(0, |sum, used| used.saturating_add(sum));
    // Exact up to 2^53 thousandths, far above what a machine holds.
    thousandths as f64 / 1000.0
}

fn clamp(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn nil_call(sector: SectorId) -> CallId {
    CallId { sector, id: Uuid::nil() }
}
