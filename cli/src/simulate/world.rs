//! A [`Cluster`] as the simulator wants it: workers, paths, sectors with their stages, troubles. The same file and seed
//! always give the same sectors, whatever machines there are, so that two runs differ by what was changed alone.

use std::collections::BTreeMap;

use sched::sim::{
    self, Job, JobStage, SealStage, Shape, SimPath, SimWorker, Speed, SplitMix, Trouble, Workload,
};
use sched::{Millis, PathFacts, ResourceRow, WorkerProfile};
use sealtasks::{FileTypes, ResourceTable, SectorId, SectorRef, StorageId, StorageStanza, TaskType};
use uuid::Uuid;

use super::cluster::{Cluster, FaultKind, Flow, MachineGroup, StoragePath};

/// The miner of all simulated sectors; only one is planned for.
const MINER: u64 = 1000;
/// Lotus's priority of sectors with deals.
const DEAL_PRIORITY: i64 = 1024;
const DAY: u64 = 86_400_000;

/// What the engine is given.
#[derive(Clone, Debug)]
pub struct World {
    /// Machines and disks.
    pub cluster: sim::Cluster,
    /// Sectors, by the time when they come; sector numbers count from 1.
    pub workload: Workload,
    /// What goes wrong, and when.
    pub troubles: Vec<(Millis, Trouble)>,
    /// What tasks need.
    pub resources: ResourceTable,
    /// Names and places of the paths, in the order of their ids.
    pub paths: Vec<PathName>,
}

/// A storage path of a simulated machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName {
    /// Its id in the simulation.
    pub id: StorageId,
    /// The machine and the path, or the shared path alone.
    pub name: String,
    /// What the file says of it.
    pub path: StoragePath,
}

/// Everything that the engine needs to know of this cluster.
pub fn world(cluster: &Cluster) -> World {
    let mut paths = Vec::new();
    let shared: Vec<(StorageId, &[String])> = cluster
        .shared_paths
        .iter()
        .map(|shared| (add_path(&mut paths, shared.path.name.clone(), &shared.path), &shared.machines[..]))
        .collect();
    let mut workers = Vec::new();
    let mut local = BTreeMap::new();
    for (name, group) in cluster.each_machine() {
        let own: Vec<StorageId> = group
            .paths
            .iter()
            .map(|path| add_path(&mut paths, format!("{name}/{}", path.name), path))
            .collect();
        let reached = shared.iter().filter(|(_, groups)| groups.contains(&group.name)).map(|(id, _)| id);
        let reached = own.iter().chain(reached).cloned().collect();
        workers.push(worker(cluster, &name, group, reached));
        local.insert(name, (workers.len() - 1, own));
    }
    let sim_paths = paths.iter().map(|path| SimPath {
        facts: PathFacts::new(path.id.clone(), &stanza(&path.path), 0),
        capacity: path.path.size,
    });
    let rows = cluster.tasks.iter().map(|(task, profile)| (*task, cluster.proof(), profile.resources));
    World {
        cluster: sim::Cluster { workers, paths: sim_paths.collect(), ..sim::Cluster::default() },
        workload: workload(cluster),
        troubles: troubles(cluster, &local),
        resources: ResourceTable::from_rows(rows),
        paths,
    }
}

fn add_path(paths: &mut Vec<PathName>, name: String, path: &StoragePath) -> StorageId {
    let id = StorageId::from(Uuid::from_u128(paths.len() as u128 + 1));
    paths.push(PathName { id: id.clone(), name, path: path.clone() });
    id
}

fn stanza(path: &StoragePath) -> StorageStanza {
    StorageStanza {
        weight: path.weight,
        can_seal: path.seal,
        can_store: path.store,
        ..StorageStanza::default()
    }
}

fn worker(cluster: &Cluster, name: &str, group: &MachineGroup, paths: Vec<StorageId>) -> SimWorker {
    let by_task = group.speed.iter().map(|(task, speed)| (*task, u32::try_from(*speed).unwrap_or(u32::MAX)));
    let row = |(task, resources): (&TaskType, &_)| ResourceRow {
        task: *task,
        proof: cluster.proof(),
        resources: *resources,
    };
    SimWorker {
        profile: WorkerProfile {
            host: name.to_owned(),
            tasks: group.tasks.clone(),
            resources: group.needs.iter().map(row).collect(),
            mem_physical: group.memory,
            mem_swap: group.swap,
            mem_used: group.memory_used,
            cpus: group.cpus,
            gpus: group.gpus.clone(),
            caps: group.caps.clone(),
            group_caps: group.group_caps.clone(),
            stagger: group.stagger.clone(),
            bandwidth: group.bandwidth,
            paths,
            ..WorkerProfile::default()
        },
        bandwidth: group.bandwidth,
        speed: Speed { usual: Speed::NOMINAL, by_task: by_task.collect() },
    }
}

/// A machine that is down takes its disks with it; what ran there is tried again at once elsewhere.
fn troubles(cluster: &Cluster, local: &BTreeMap<String, (usize, Vec<StorageId>)>) -> Vec<(Millis, Trouble)> {
    let mut troubles = Vec::new();
    for fault in &cluster.faults {
        let Some((worker, paths)) = local.get(&fault.machine) else { continue };
        let worker = *worker;
        match fault.kind {
            FaultKind::Down => {
                troubles.push((fault.from, Trouble::Lose { worker, grace: Millis::ZERO }));
                for path in paths {
                    troubles.push((fault.from, Trouble::PathGone { path: path.clone() }));
                    troubles.push((fault.to, Trouble::PathBack { path: path.clone(), clutter: 0 }));
                }
                troubles.push((fault.to, Trouble::Back { worker }));
            }
            FaultKind::Slow(by) => {
                let thousandths = u32::try_from(1_000_000 / by.max(1)).unwrap_or(Speed::NOMINAL).max(1);
                troubles.push((fault.from, Trouble::Pace { worker, thousandths }));
                troubles.push((fault.to, Trouble::Pace { worker, thousandths: Speed::NOMINAL }));
            }
        }
    }
    troubles.sort_by_key(|(at, _)| *at);
    troubles
}

fn workload(cluster: &Cluster) -> Workload {
    let mut root = SplitMix::new(cluster.seed);
    let mut arriving: Vec<(u64, bool)> = Vec::new();
    for stream in &cluster.arrivals {
        let mut random = root.split();
        let times = arrivals(stream.flow, cluster.horizon.get(), &mut random);
        arriving.extend(times.into_iter().map(|at| (at, stream.deals)));
    }
    // Deals first among those that come at the same instant.
    arriving.sort_by_key(|(at, deals)| (*at, !deals));
    let jobs = arriving.into_iter().zip(1..).map(|((at, deals), number)| {
        let mut random = root.split();
        Job {
            sector: SectorRef { id: SectorId::new(MINER, number), proof: cluster.proof() },
            release: Millis::new(at),
            purpose: None,
            priority: if deals { DEAL_PRIORITY } else { 0 },
            wait_limit: None,
            deadline: None,
            files: Vec::new(),
            stages: SealStage::SEALING.map(|stage| job_stage(cluster, stage, deals, &mut random)).to_vec(),
        }
    });
    let open_max = cluster.in_pipeline_max.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    Workload { jobs: jobs.collect(), open_max }
}

/// When the sectors of a stream come, in order.
fn arrivals(flow: Flow, horizon: u64, random: &mut SplitMix) -> Vec<u64> {
    let count = |per_day: u64| u128::from(per_day) * u128::from(horizon) / u128::from(DAY * 1000);
    match flow {
        Flow::Backlog(sectors) => vec![0; usize::try_from(sectors).unwrap_or(usize::MAX)],
        Flow::Even(per_day) => (0..count(per_day))
            .map(|number| (number * u128::from(DAY * 1000) / u128::from(per_day)) as u64)
            .collect(),
        // So many instants, each anywhere: a Poisson process, given how many it brings.
        Flow::Random(per_day) => {
            let mut times: Vec<u64> = (0..count(per_day)).map(|_| random.below(horizon)).collect();
            times.sort_unstable();
            times
        }
    }
}

/// A sector without deals drops its unsealed file, which is all zeros, when it is finished; one with deals brings it to
/// storage.
fn job_stage(cluster: &Cluster, stage: SealStage, deals: bool, random: &mut SplitMix) -> JobStage {
    let mut shape = stage.shape();
    match (stage, deals) {
        (SealStage::Finalize, false) => shape = shape.dropping(FileTypes::UNSEALED),
        (SealStage::Move, true) => shape = with_unsealed(shape),
        _ => {}
    }
    let work = cluster.tasks.get(&stage.task()).map_or(Millis::ZERO, |profile| {
        let spread = profile.duration.get() as u128 * u128::from(profile.spread) / 1000;
        let spread = u64::try_from(spread).unwrap_or(u64::MAX);
        let least = profile.duration.get().saturating_sub(spread);
        Millis::new(random.within(least, profile.duration.get().saturating_add(spread)))
    });
    let gap = if stage.task() == TaskType::Commit1 { cluster.wait_seed } else { Millis::ZERO };
    JobStage { shape, work, gap }
}

fn with_unsealed(mut shape: Shape) -> Shape {
    if let Some(input) = &mut shape.input {
        input.types = input.types.union(FileTypes::UNSEALED);
    }
    shape
}
