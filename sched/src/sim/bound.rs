//! How soon a workload can be done on a cluster at all: a bound that no schedule beats, to measure schedules against.
//!
//! What is counted: that a job's stages follow each other, with their gaps and release times; that a task runs on one
//! worker, from beginning to end, at that worker's speed; that a worker runs at most so many at once. Transfers, locks and
//! disks count as nothing, which only makes the bound lower. So it holds for any scheduler, one that knows all durations
//! beforehand included.

use std::collections::BTreeMap;

use sealtasks::{RegisteredSealProof, ResourceTable, Resources, SealTaskType, TaskType};

use super::usage::resources;
use super::{Cluster, SimWorker, Speed, Workload};
use crate::{Millis, WorkerProfile};

/// Task types at most that are looked at together; a worker's mixes of more would be too many to walk.
const TOGETHER: usize = 3;
/// Steps in which weights are tried in [`mixes`].
const STEPS: u32 = 12;
/// So many instants are tried as the beginning of a busy time, for types together.
const INSTANTS: usize = 64;

/// The bound, and what it is made of. No schedule ends sooner than any of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The longest that a single job takes from time zero on, alone on the fastest workers.
    pub critical_path: Millis,
    /// What each stage's slots allow, one stage after the other.
    pub stages: Millis,
    /// What workers allow that share their resources between types.
    pub shared: Millis,
}

impl Bound {
    /// The largest of the three.
    pub fn makespan(&self) -> Millis {
        self.critical_path.max(self.stages).max(self.shared)
    }

    /// Which of the three that is, for people.
    pub fn limit(&self) -> &'static str {
        match self.makespan() {
            most if most == self.critical_path => "one sector",
            most if most == self.stages => "slots of a type",
            _ => "shared resources",
        }
    }
}

/// The bound for a workload all of whose jobs have the same task types in the same order and one proof; `None`: they have
/// not, or a stage has no worker that could ever run it.
pub fn lower_bound(cluster: &Cluster, workload: &Workload, table: &ResourceTable) -> Option<Bound> {
    let first = workload.jobs.first()?;
    let kinds: Vec<TaskType> = first.stages.iter().map(|stage| stage.shape.task).collect();
    let proof = first.sector.proof;
    let same = workload.jobs.iter().all(|job| {
        job.sector.proof == proof && job.stages.iter().map(|stage| stage.shape.task).eq(kinds.iter().copied())
    });
    if !same {
        return None;
    }
    let mut stages = Vec::new();
    // Per job, when its next stage can begin at the soonest.
    let mut heads: Vec<u64> = workload.jobs.iter().map(|job| job.release.get()).collect();
    for (position, task) in kinds.iter().enumerate() {
        let slots =
            Slots::of(cluster, SealTaskType { task: *task, proof }, table, workload.jobs.len() as u64);
        let of = |job: &super::Job| (job.stages[position].work.get(), job.stages[position].gap.get());
        let (works, gaps): (Vec<u64>, Vec<u64>) = workload.jobs.iter().map(of).unzip();
        let ready: Vec<u64> = heads.iter().zip(&gaps).map(|(head, gap)| head + gap).collect();
        let stage = Stage::new(slots.filter(|slots| slots.count > 0)?, works, &gaps, ready, stages.last());
        heads = stage.ends_alone.clone();
        stages.push(stage);
    }
    let critical_path = heads.iter().copied().max().unwrap_or(0);
    let by_stage = stages.last().and_then(|stage| stage.ends.last()).copied().unwrap_or(0);
    let shared = shared(cluster, &stages, table);
    Some(Bound {
        critical_path: Millis::new(critical_path),
        stages: Millis::new(by_stage),
        shared: Millis::new(shared),
    })
}

/// Sectors per millisecond that a cluster can go on sealing for ever, with so much work per task type; 0 where a type has
/// no worker.
pub fn rate(
    cluster: &Cluster,
    work: &BTreeMap<TaskType, Millis>,
    proof: RegisteredSealProof,
    table: &ResourceTable,
) -> f64 {
    let kinds = work.keys().map(|task| SealTaskType { task: *task, proof });
    let slots: Option<Vec<Slots>> = kinds.map(|kind| Slots::of(cluster, kind, table, MANY)).collect();
    let Some(mut slots) = slots else { return 0.0 };
    let need = |slots: &Slots| work[&slots.kind.task].get() as f64 * 1000.0 / slots.speed.max(1) as f64;
    slots.sort_by(|a, b| need(b).total_cmp(&need(a)));
    let slots: Vec<&Slots> = slots.iter().take(TOGETHER).collect();
    let rates = mixes(cluster, &slots, table).into_iter().map(|(weights, rate)| {
        let each =
            slots.iter().zip(&weights).map(|(slots, weight)| weight * work[&slots.kind.task].get() as f64);
        rate / each.sum::<f64>()
    });
    rates.fold(f64::INFINITY, f64::min)
}

/// More slots than any cluster has for what takes anything at all.
const MANY: u64 = 1 << 20;

/// The slots of one task type: at most so many run at once on each worker if it does nothing else.
#[derive(Clone, Debug)]
struct Slots {
    kind: SealTaskType,
    count: u64,
    /// Sum over slots of their speed, in thousandths.
    speed: u64,
    fastest: u64,
}

impl Slots {
    fn of(cluster: &Cluster, kind: SealTaskType, table: &ResourceTable, most: u64) -> Option<Self> {
        let mut slots = Self { kind, count: 0, speed: 0, fastest: 0 };
        for worker in &cluster.workers {
            let count = alone(&worker.profile, kind, table, most);
            if count > 0 {
                let speed = speed(worker, kind.task);
                slots.count += count;
                slots.speed += count * speed;
                slots.fastest = slots.fastest.max(speed);
            }
        }
        (slots.count > 0).then_some(slots)
    }
}

fn speed(worker: &SimWorker, task: TaskType) -> u64 {
    let Speed { usual, by_task } = &worker.speed;
    by_task.get(&task).copied().unwrap_or(*usual).max(1).into()
}

/// How many tasks of one kind a worker runs at once if it runs nothing else, `most` at most.
fn alone(profile: &WorkerProfile, kind: SealTaskType, table: &ResourceTable, most: u64) -> u64 {
    let row = resources(profile, table, kind);
    let fits = |count: &u64| fits_together(profile, &[(kind.task, row, *count)]);
    if !profile.tasks.contains(&kind.task) {
        return 0;
    }
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(&middle) { low = middle } else { high = middle - 1 }
    }
    low
}

/// Whether a worker can run so many of each at once. Of the memory that tasks of a type share only the smallest share is
/// counted: Lotus's check, which asks each task for it anew and lets none keep it, admits no more than that.
fn fits_together(profile: &WorkerProfile, tasks: &[(TaskType, Resources, u64)]) -> bool {
    let here = || tasks.iter().filter(|(_, _, count)| *count > 0);
    let sum = |of: &dyn Fn(&Resources) -> u64| -> u128 {
        here().map(|(_, row, count)| u128::from(of(row)) * u128::from(*count)).sum()
    };
    let capped = here().any(|(task, row, count)| {
        let cap = profile.caps.get(task).map_or(u64::MAX, |cap| u64::from(*cap));
        *count > cap || row.max_concurrent > 0 && *count > row.max_concurrent
    });
    if capped || profile.ignore_resources {
        return !capped;
    }
    let base = u128::from(here().map(|(_, row, _)| row.base_min_memory).min().unwrap_or(0));
    let gpus: f64 = here().map(|(_, row, count)| row.gpu_utilization.max(0.0) * *count as f64).sum();
    let with_swap = u128::from(profile.mem_physical) + u128::from(profile.mem_swap);
    sum(&|row| row.min_memory) + base <= profile.mem_physical.into()
        && sum(&|row| row.max_memory) + base <= with_swap
        && sum(&|row| row.threads(profile.cpus, profile.gpus.len())) <= profile.cpus.into()
        && (profile.gpus.is_empty() || gpus <= profile.gpus.len() as f64)
}

/// One stage of all jobs. Positions count from the smallest, in each list by itself.
struct Stage {
    slots: Slots,
    /// Per job, the end of this stage if the job were alone.
    ends_alone: Vec<u64>,
    /// The j-th task to become ready does so no sooner.
    ready: Vec<u64>,
    /// Sums of the smallest 0, 1, 2, … works.
    sums: Vec<u64>,
    /// The j-th task to end does so no sooner.
    ends: Vec<u64>,
    /// Its shortest task on the fastest worker.
    works_least: u64,
    /// The shortest gap before it.
    gap_least: u64,
}

impl Stage {
    /// `ready_alone`: per job, when the stage could begin if the job were alone.
    fn new(
        slots: Slots,
        works: Vec<u64>,
        gaps: &[u64],
        ready_alone: Vec<u64>,
        before: Option<&Stage>,
    ) -> Self {
        let fastest = |work: u64| (work * 1000 / slots.fastest).max(1);
        let ends_alone: Vec<u64> =
            ready_alone.iter().zip(&works).map(|(ready, work)| ready + fastest(*work)).collect();
        let gap_least = gaps.iter().copied().min().unwrap_or(0);
        let mut ready = ready_alone;
        ready.sort_unstable();
        if let Some(before) = before {
            // A job is ready here only after its end there, so the j-th is ready no sooner than the j-th ended there.
            for (ready, end) in ready.iter_mut().zip(&before.ends) {
                *ready = (*ready).max(end + gap_least);
            }
        }
        let mut sorted = works;
        sorted.sort_unstable();
        let works_least = fastest(sorted.first().copied().unwrap_or(0));
        let mut sums = vec![0];
        for work in &sorted {
            sums.push(sums[sums.len() - 1] + work);
        }
        let mut stage = Self { slots, ends_alone, ready, sums, ends: Vec::new(), works_least, gap_least };
        stage.bound_ends();
        stage
    }

    /// Bounds the j-th end, for every j.
    ///
    /// Of the first j tasks to end, at most i became ready before the (i+1)-th to become ready did. So at least j - i of
    /// them were worked on from then on only. Their work is at least the sum of the j - i smallest, the slots together do
    /// no more than the sum of their speeds, and one slot has to do at least (j - i) / slots of them, rounded up. And the
    /// last of the first j to begin does so when at most slots - 1 of the others still run, hence after j - slots ended.
    fn bound_ends(&mut self) {
        let (count, speed, fastest) = (self.slots.count as usize, self.slots.speed, self.slots.fastest);
        let mut alone = self.ends_alone.clone();
        alone.sort_unstable();
        for (last, alone) in alone.into_iter().enumerate() {
            let mut end = alone.max(self.ready[last] + self.works_least);
            if last >= count {
                end = end.max(self.ends[last - count] + self.works_least);
                for from in 0..=last {
                    let behind = last + 1 - from;
                    let shared = self.sums[behind] * 1000 / speed;
                    let whole = self.sums[behind.div_ceil(count)] * 1000 / fastest;
                    end = end.max(self.ready[from] + shared.max(whole));
                }
            }
            self.ends.push(end);
        }
    }
}

/// Bounds what workers allow that share their resources between the types that weigh most.
///
/// Let every type have a weight. A worker gets no more weighted work done at a time than by the heaviest mix of tasks that
/// fits on it. After an instant h the tasks that become ready no sooner than h must be done; dividing their weighted work
/// by the sum of what the workers get done gives a time that must pass from h on, and after the last of them its job's
/// further stages follow. This holds for any weights and any h; several are tried.
fn shared(cluster: &Cluster, stages: &[Stage], table: &ResourceTable) -> u64 {
    let need = |stage: &Stage| stage.sums.last().copied().unwrap_or(0) as f64 / stage.slots.speed as f64;
    let mut order: Vec<usize> = (0..stages.len()).collect();
    order.sort_by(|a, b| need(&stages[*b]).total_cmp(&need(&stages[*a])));
    order.truncate(TOGETHER);
    // The same type twice in a job would be counted twice.
    let distinct =
        order.iter().map(|stage| stages[*stage].slots.kind).collect::<std::collections::BTreeSet<_>>();
    if distinct.len() < order.len() {
        return 0;
    }
    let heavy: Vec<&Stage> = order.iter().map(|stage| &stages[*stage]).collect();
    let slots: Vec<&Slots> = heavy.iter().map(|stage| &stage.slots).collect();
    let tails: Vec<u64> = order
        .iter()
        .map(|stage| stages[stage + 1..].iter().map(|later| later.gap_least + later.works_least).sum())
        .collect();
    let instants: Vec<u64> = heavy
        .iter()
        .flat_map(|stage| stage.ready.iter().step_by(stage.ready.len().div_ceil(INSTANTS).max(1)).copied())
        .collect();
    let mut best = 0.0_f64;
    for (weights, rate) in mixes(cluster, &slots, table) {
        for instant in &instants {
            let (mut work, mut tail) = (0.0, None);
            for (kind, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                let stage = heavy[kind];
                let later = stage.ready.len() - stage.ready.partition_point(|ready| ready < instant);
                if later > 0 {
                    work += weight * stage.sums[later] as f64;
                    tail = tail.into_iter().chain([tails[kind]]).min();
                }
            }
            if let Some(tail) = tail {
                best = best.max(*instant as f64 + work / rate + tail as f64);
            }
        }
    }
    // Rounded down by more than the arithmetic's error.
    (best * (1.0 - 1e-9)) as u64
}

/// Weights for types, and with each the most weighted work that the workers do per millisecond.
fn mixes(cluster: &Cluster, slots: &[&Slots], table: &ResourceTable) -> Vec<(Vec<f64>, f64)> {
    let per_worker: Vec<Vec<Vec<f64>>> =
        cluster.workers.iter().map(|worker| full_mixes(worker, slots, table)).collect();
    let mut found = Vec::new();
    for shares in simplex(slots.len()) {
        // In units of the whole cluster's slots for the type, so that every share matters.
        let weights: Vec<f64> = shares
            .iter()
            .zip(slots)
            .map(|(share, slots)| f64::from(*share) * 1000.0 / slots.speed as f64)
            .collect();
        let heaviest = |mixes: &Vec<Vec<f64>>| {
            let weigh = |mix: &Vec<f64>| mix.iter().zip(&weights).map(|(speed, weight)| speed * weight).sum();
            mixes.iter().map(weigh).fold(0.0_f64, f64::max)
        };
        let rate = per_worker.iter().map(heaviest).sum::<f64>();
        if rate > 0.0 {
            found.push((weights, rate));
        }
    }
    found
}

/// All ways to divide [`STEPS`] among so many.
fn simplex(among: usize) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new()];
    for _ in 1..among {
        let longer = |head: &Vec<u32>| {
            let left = STEPS - head.iter().sum::<u32>();
            let head = head.clone();
            (0..=left).map(move |share| [head.as_slice(), &[share]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all.into_iter()
        .map(|head| {
            let left = STEPS - head.iter().sum::<u32>();
            [head.as_slice(), &[left]].concat()
        })
        .collect()
}

/// The mixes of tasks that fill a worker, each as the speed at which it does each type.
fn full_mixes(worker: &SimWorker, slots: &[&Slots], table: &ResourceTable) -> Vec<Vec<f64>> {
    let rows: Vec<(TaskType, Resources, u64)> = slots
        .iter()
        .map(|slots| {
            let row = resources(&worker.profile, table, slots.kind);
            (slots.kind.task, row, alone(&worker.profile, slots.kind, table, slots.count))
        })
        .collect();
    let mut mixes: Vec<Vec<u64>> = vec![Vec::new()];
    for (position, (_, _, most)) in rows.iter().enumerate() {
        let fits = |counts: &[u64]| {
            let tasks: Vec<_> =
                rows.iter().zip(counts).map(|((task, row, _), count)| (*task, *row, *count)).collect();
            fits_together(&worker.profile, &tasks)
        };
        let mut longer = Vec::new();
        for mix in &mixes {
            debug_assert_eq!(mix.len(), position, "one count per type so far");
            let grown = (0..=*most).map(|count| [mix.as_slice(), &[count]].concat());
            longer.extend(grown.take_while(|counts| fits(counts)));
        }
        mixes = longer;
    }
    let speeds = |mix: Vec<u64>| {
        let each = mix.iter().zip(slots);
        each.map(|(count, slots)| (count * speed(worker, slots.kind.task)) as f64 / 1000.0).collect()
    };
    mixes.into_iter().map(speeds).collect()
}

#[cfg(test)]
mod tests {
    use sealtasks::{SectorId, SectorRef, SectorSize};

    use super::*;
    use crate::sim::{Job, JobStage, Shape};

    const HOUR: u64 = 3_600_000;

    /// Workers that run one task at a time, by what they offer and how fast they are.
    fn cluster(workers: &[(&[TaskType], u32)]) -> Cluster {
        let worker = |(tasks, usual): &(&[TaskType], u32)| SimWorker {
            profile: WorkerProfile {
                tasks: tasks.to_vec(),
                // Room for one PreCommit1, or one PreCommit2.
                mem_physical: 64 << 30,
                mem_swap: 64 << 30,
                cpus: 8,
                gpus: vec!["one".to_owned()],
                ..WorkerProfile::default()
            },
            bandwidth: 0,
            speed: Speed { usual: *usual, by_task: BTreeMap::new() },
        };
        Cluster { workers: workers.iter().map(worker).collect(), ..Cluster::default() }
    }

    /// Jobs of PreCommit1 and PreCommit2, by release and hours of each.
    fn workload(jobs: &[(u64, u64, u64)]) -> Workload {
        let stage = |task, hours: u64| JobStage {
            shape: Shape::bare(task),
            work: Millis::new(hours * HOUR),
            gap: Millis::ZERO,
        };
        let job = |(number, (release, pc1, pc2)): (u64, &(u64, u64, u64))| Job {
            sector: SectorRef {
                id: SectorId::new(1000, number),
                proof: RegisteredSealProof::for_new_sector(SectorSize::GiB32),
            },
            release: Millis::new(release * HOUR),
            purpose: None,
            priority: 0,
            wait_limit: None,
            deadline: None,
            files: Vec::new(),
            stages: vec![stage(TaskType::PreCommit1, *pc1), stage(TaskType::PreCommit2, *pc2)],
        };
        Workload { jobs: (1..).zip(jobs).map(job).collect(), open_max: None }
    }

    fn hours(cluster: &Cluster, jobs: &[(u64, u64, u64)]) -> f64 {
        let bound = lower_bound(cluster, &workload(jobs), &ResourceTable::builtin()).expect("it can be done");
        bound.makespan().get() as f64 / HOUR as f64
    }

    const PC1: &[TaskType] = &[TaskType::PreCommit1];
    const PC2: &[TaskType] = &[TaskType::PreCommit2];
    const BOTH: &[TaskType] = &[TaskType::PreCommit1, TaskType::PreCommit2];

    #[test]
    fn a_lone_job_takes_its_path() {
        let workers = cluster(&[(PC1, 1000), (PC2, 500)]);
        assert_eq!(hours(&workers, &[(1, 3, 1)]), 1.0 + 3.0 + 2.0);
    }

    /// Four tasks of three hours in three slots need two rounds, and then PreCommit2 follows.
    #[test]
    fn slots_are_whole() {
        let workers = cluster(&[(PC1, 1000), (PC1, 1000), (PC1, 1000), (PC2, 1000)]);
        assert_eq!(hours(&workers, &[(0, 3, 1); 4]), 7.0);
        assert_eq!(hours(&workers, &[(0, 3, 1), (0, 3, 1), (0, 3, 1), (9, 3, 1)]), 13.0);
    }

    /// Two slots make two tasks ready each three hours, and the one slot behind them takes two hours for each.
    #[test]
    fn a_stage_waits_for_what_the_slots_before_it_let_through() {
        let workers = cluster(&[(PC1, 1000), (PC1, 1000), (PC2, 1000)]);
        assert_eq!(hours(&workers, &[(0, 3, 2); 4]), 3.0 + 4.0 * 2.0);
        assert_eq!(hours(&workers, &[(0, 3, 1); 4]), 6.0 + 2.0);
    }

    /// Neither type alone fills the one worker that must do both, one at a time.
    #[test]
    fn a_worker_does_not_do_two_things_at_once() {
        let workers = cluster(&[(BOTH, 1000)]);
        let bound = hours(&workers, &[(0, 3, 2); 4]);
        assert!((19.9..=20.0).contains(&bound), "{bound}");
    }

    #[test]
    fn what_nobody_can_do_has_no_bound() {
        let workers = cluster(&[(PC1, 1000)]);
        assert_eq!(lower_bound(&workers, &workload(&[(0, 3, 1)]), &ResourceTable::builtin()), None);
    }
}
