//! How many sectors a day a cluster could seal at most, however it is scheduled: a linear program over what each kind of
//! machine can do, and which of its bounds holds the number down. No schedule can beat it, so it judges a simulation, and
//! the bound that is worth most names the bottleneck.
//!
//! It leaves out what only a schedule shows: slots that stay empty between tasks, memory that all tasks of a type share,
//! time spent fetching with a slot taken. All of these lower the real number, never the ceiling.

use sealtasks::{FileTypes, Resources, TaskType, finalized_space, sealing_space};

use super::cluster::{Arrivals, Cluster, Flow, MachineGroup, TIMED, TaskProfile};
use super::simplex::Program;

const DAY: f64 = 86_400_000.0;
/// Bytes are counted in gibibytes, so that the program's numbers stay near each other.
const GIB: f64 = (1u64 << 30) as f64;

/// The ceiling and what holds it down.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceiling {
    /// Sectors per day.
    pub per_day: f64,
    /// Every bound that matters with its share of the blame, the heaviest first. The shares sum to 1.
    pub bounds: Vec<(Bound, f64)>,
}

/// One thing of which there is only so much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// No more sectors come.
    Arrivals,
    /// `in_pipeline_max`, given how long a sector's life is at least.
    InPipeline,
    /// Room for finished sectors over the whole horizon.
    StorageRoom,
    /// Room for the files of sectors that are being sealed, over all machines.
    SealingRoom,
    /// Room for layers on the machines of a group that runs PreCommit1.
    LayerRoom(usize),
    /// The network of the machines of a group, into which PreCommit2's inputs must be fetched.
    Network(usize),
    /// The network of all machines that reach a storage path.
    StorageNetwork,
    /// CPU threads of a group.
    Cpu(usize),
    /// RAM of a group.
    Memory(usize),
    /// RAM and swap of a group, at the peak.
    MemoryPeak(usize),
    /// GPUs of a group.
    Gpu(usize),
    /// How many of a task fit on one machine of a group.
    Slots(usize, TaskType),
    /// A limit on several tasks together on each machine of a group.
    GroupCap(usize, usize),
    /// The distance between two starts on a machine of a group.
    Stagger(usize, TaskType),
}

/// The ceiling of a cluster. `None`: nothing limits it, which no valid cluster brings about.
pub fn ceiling(cluster: &Cluster) -> Option<Ceiling> {
    let mut model = Model::new(cluster);
    model.whole_cluster();
    for group in 0..cluster.machines.len() {
        model.compute(group);
        model.slots(group);
        model.disks_and_network(group);
    }
    model.solve()
}

/// How many tasks of one type run at once on an otherwise idle machine, and what allows no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// How many.
    pub slots: u64,
    /// What is used up by them.
    pub by: FitBy,
}

/// What limits how many tasks fit on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FitBy {
    /// RAM.
    Memory,
    /// RAM and swap together, at the tasks' peak.
    MemoryPeak,
    /// CPU threads.
    Cpu,
    /// GPUs.
    Gpu,
    /// `tasks.….max_concurrent`.
    MaxConcurrent,
    /// The machine's `caps`.
    Cap,
    /// The machine's `group_caps`.
    GroupCap,
}

impl FitBy {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Memory => "RAM",
            Self::MemoryPeak => "RAM and swap",
            Self::Cpu => "CPU threads",
            Self::Gpu => "GPUs",
            Self::MaxConcurrent => "max_concurrent",
            Self::Cap => "caps",
            Self::GroupCap => "group_caps",
        }
    }
}

/// Tasks of one type on an otherwise idle machine of this group; `None`: any number.
pub fn fit(group: &MachineGroup, task: TaskType, profile: &TaskProfile) -> Option<Fit> {
    let needs = group.needs(task, profile);
    let part = |have: u64, each: u64| (each > 0).then(|| have / each);
    let ram = group.memory.saturating_sub(needs.base_min_memory);
    let peak = (group.memory.saturating_add(group.swap))
        .saturating_sub(group.memory_used)
        .saturating_sub(needs.base_min_memory);
    let gpu = if group.gpus.is_empty() { 0 } else { thousandths(needs.gpu_utilization) };
    let per_gpu = match gpu {
        0 => None,
        // A share of at most one device lies on one device; more take whole ones.
        1..=1000 => Some(1000 / gpu * group.gpus.len() as u64),
        _ => Some(group.gpus.len() as u64 / gpu.div_ceil(1000)),
    };
    let together = group.group_caps.iter().filter(|cap| cap.tasks.contains(&task));
    let bounds = [
        (part(ram, needs.min_memory), FitBy::Memory),
        (part(peak, needs.max_memory), FitBy::MemoryPeak),
        (part(group.cpus, needs.threads(group.cpus, group.gpus.len())), FitBy::Cpu),
        (per_gpu, FitBy::Gpu),
        ((needs.max_concurrent > 0).then_some(needs.max_concurrent), FitBy::MaxConcurrent),
        (group.caps.get(&task).map(|cap| u64::from(*cap)), FitBy::Cap),
        (together.map(|cap| u64::from(cap.most)).min(), FitBy::GroupCap),
    ];
    let known = bounds.into_iter().filter_map(|(slots, by)| Some(Fit { slots: slots?, by }));
    known.min_by_key(|fit| (fit.slots, fit.by))
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

fn thousandths(share: f64) -> u64 {
    if share > 0.0 { (share * 1000.0).round() as u64 } else { 0 }
}

struct Model<'a> {
    cluster: &'a Cluster,
    program: Program,
    bounds: Vec<Option<Bound>>,
    limits: Vec<f64>,
    /// Sectors per day.
    rate: usize,
    /// Per group and task of [`TIMED`]: so many of them per day there.
    done: Vec<Vec<Option<usize>>>,
}

impl<'a> Model<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mut program = Program::default();
        let rate = program.variable();
        let done = cluster
            .machines
            .iter()
            .map(|group| {
                let offered = |task: &TaskType| group.tasks.contains(task);
                TIMED.iter().map(|task| offered(task).then(|| program.variable())).collect()
            })
            .collect();
        let mut model = Self { cluster, program, bounds: Vec::new(), limits: Vec::new(), rate, done };
        for task in 0..TIMED.len() {
            let somewhere = model.done.iter().filter_map(|group: &Vec<Option<usize>>| group[task]);
            let terms = std::iter::once((rate, 1.0)).chain(somewhere.map(|done| (done, -1.0))).collect();
            model.program.row(terms, 0.0);
            model.bounds.push(None);
            model.limits.push(0.0);
        }
        model
    }

    fn bound(&mut self, bound: Bound, terms: Vec<(usize, f64)>, limit: f64) {
        if !terms.is_empty() {
            self.program.row(terms, limit);
            self.bounds.push(Some(bound));
            self.limits.push(limit.max(0.0));
        }
    }

    /// Days that one task takes on a machine of a group.
    fn days(&self, group: usize, task: TaskType) -> f64 {
        self.cluster.machines[group].duration(task, &self.cluster.tasks[&task]).get() as f64 / DAY
    }

    /// The least days that a task takes anywhere.
    fn days_at_best(&self, task: TaskType) -> f64 {
        let offering = |group: &usize| self.cluster.machines[*group].tasks.contains(&task);
        let groups = (0..self.cluster.machines.len()).filter(offering);
        groups.map(|group| self.days(group, task)).fold(f64::INFINITY, f64::min)
    }

    fn whole_cluster(&mut self) {
        let cluster = self.cluster;
        let horizon = cluster.horizon.get() as f64 / DAY;
        // A backlog is work enough until it is done.
        let rate = |stream: &Arrivals| match stream.flow {
            Flow::Backlog(_) => None,
            Flow::Even(per_day) | Flow::Random(per_day) => Some(per_day as f64 / 1000.0),
        };
        if let Some(arriving) = cluster.arrivals.iter().map(rate).sum::<Option<f64>>() {
            self.bound(Bound::Arrivals, vec![(self.rate, 1.0)], arriving);
        }
        let wait_seed = cluster.wait_seed.get() as f64 / DAY;
        let life = TIMED.iter().map(|task| self.days_at_best(*task)).sum::<f64>() + wait_seed;
        if let Some(most) = cluster.in_pipeline_max {
            self.bound(Bound::InPipeline, vec![(self.rate, life)], most as f64);
        }
        let size = cluster.sector_size;
        let replica = FileTypes::SEALED.union(FileTypes::CACHE);
        let kept = finalized_space(replica, size);
        let paths = || {
            let local =
                cluster.machines.iter().flat_map(|group| group.paths.iter().map(|path| (path, group.count)));
            local.chain(cluster.shared_paths.iter().map(|shared| (&shared.path, 1)))
        };
        let room = |each: u64, wants: fn(&super::cluster::StoragePath) -> bool| -> f64 {
            paths()
                .filter(|(path, _)| wants(path))
                .map(|(path, count)| (path.size / each * count) as f64)
                .sum()
        };
        self.bound(Bound::StorageRoom, vec![(self.rate, horizon)], room(kept, |path| path.store));
        // From PreCommit1's beginning to Finalize's end a sector's replica and layers lie in a sealing path.
        let residence = life - self.days_at_best(TaskType::AddPiece);
        let layers = sealing_space(replica, size);
        self.bound(Bound::SealingRoom, vec![(self.rate, residence)], room(layers, |path| path.seal));
        self.storage_network(kept);
    }

    /// Where no machine reaches both a sealing and a storage path, every finished sector crosses the network.
    fn storage_network(&mut self, kept: u64) {
        let cluster = self.cluster;
        let reach = |group: &MachineGroup, wants: fn(&super::cluster::StoragePath) -> bool| {
            let shared = cluster.shared_paths.iter().filter(|path| path.machines.contains(&group.name));
            group.paths.iter().chain(shared.map(|shared| &shared.path)).any(wants)
        };
        let stores = |group: &&MachineGroup| reach(group, |path| path.store);
        if !cluster.machines.iter().filter(stores).any(|group| reach(group, |path| path.seal)) {
            let rates = cluster.machines.iter().filter(stores);
            let sum: f64 = rates.map(|group| group.bandwidth as f64 * group.count as f64).sum();
            self.bound(Bound::StorageNetwork, vec![(self.rate, gib(kept))], sum / GIB * DAY / 1000.0);
        }
    }

    fn compute(&mut self, group: usize) {
        let machine = &self.cluster.machines[group];
        let count = machine.count as f64;
        let terms = |model: &Self, need: &dyn Fn(&Resources) -> f64| -> Vec<(usize, f64)> {
            let each = TIMED.iter().zip(&model.done[group]);
            each.filter_map(|(task, done)| Some((*task, (*done)?)))
                .map(|(task, done)| {
                    (done, model.days(group, task) * need(machine.needs(task, &model.cluster.tasks[&task])))
                })
                .filter(|(_, weight)| *weight > 0.0)
                .collect()
        };
        let (cpus, gpus) = (machine.cpus, machine.gpus.len());
        let threads = terms(self, &|needs| needs.threads(cpus, gpus) as f64);
        self.bound(Bound::Cpu(group), threads, cpus as f64 * count);
        let ram = terms(self, &|needs| gib(needs.min_memory));
        self.bound(Bound::Memory(group), ram, gib(machine.memory) * count);
        let peak = terms(self, &|needs| gib(needs.max_memory));
        let with_swap = gib(machine.memory) + gib(machine.swap) - gib(machine.memory_used);
        self.bound(Bound::MemoryPeak(group), peak, with_swap * count);
        if gpus > 0 {
            let devices = terms(self, &|needs| needs.gpu_utilization.max(0.0));
            self.bound(Bound::Gpu(group), devices, gpus as f64 * count);
        }
    }

    fn slots(&mut self, group: usize) {
        let machine = &self.cluster.machines[group];
        let count = machine.count as f64;
        for (at, task) in TIMED.into_iter().enumerate() {
            let Some(done) = self.done[group][at] else { continue };
            if let Some(fit) = fit(machine, task, &self.cluster.tasks[&task]) {
                let terms = vec![(done, self.days(group, task))];
                self.bound(Bound::Slots(group, task), terms, fit.slots as f64 * count);
            }
            if let Some(apart) = machine.stagger.get(&task).filter(|apart| apart.get() > 0) {
                let per_day = DAY / apart.get() as f64;
                self.bound(Bound::Stagger(group, task), vec![(done, 1.0)], per_day * count);
            }
        }
        for (at, cap) in machine.group_caps.iter().enumerate() {
            let each = TIMED.iter().zip(&self.done[group]).filter(|(task, _)| cap.tasks.contains(task));
            let terms = each.filter_map(|(task, done)| Some(((*done)?, self.days(group, *task)))).collect();
            self.bound(Bound::GroupCap(group, at), terms, f64::from(cap.most) * count);
        }
    }

    fn disks_and_network(&mut self, group: usize) {
        let cluster = self.cluster;
        let machine = &cluster.machines[group];
        let count = machine.count as f64;
        let shared_seal =
            |path: &&super::cluster::SharedPath| path.path.seal && path.machines.contains(&machine.name);
        if cluster.shared_paths.iter().any(|path| shared_seal(&path)) {
            return; // files need not come here, nor lie here
        }
        let replica = sealing_space(FileTypes::SEALED.union(FileTypes::CACHE), cluster.sector_size);
        let done = |task: TaskType| {
            TIMED.iter().position(|timed| *timed == task).and_then(|at| self.done[group][at])
        };
        let labels = done(TaskType::PreCommit1);
        if let Some(labels) = labels {
            let seal = machine.paths.iter().filter(|path| path.seal);
            let fit: u64 = seal.map(|path| path.size / replica).sum();
            let terms = vec![(labels, self.days(group, TaskType::PreCommit1))];
            self.bound(Bound::LayerRoom(group), terms, fit as f64 * count);
        } else if let Some(trees) = done(TaskType::PreCommit2) {
            let per_day = machine.bandwidth as f64 / GIB * DAY / 1000.0;
            self.bound(Bound::Network(group), vec![(trees, gib(replica))], per_day * count);
        }
    }

    fn solve(self) -> Option<Ceiling> {
        let optimum = self.program.solve()?;
        let blame = |(at, bound): (usize, Option<Bound>)| {
            let share = optimum.worth[at] * self.limits[at] / optimum.value.max(f64::MIN_POSITIVE);
            bound.filter(|_| share > 1e-6).map(|bound| (bound, share))
        };
        let mut bounds: Vec<(Bound, f64)> =
            self.bounds.clone().into_iter().enumerate().filter_map(blame).collect();
        bounds.sort_by(|a, b| b.1.total_cmp(&a.1));
        Some(Ceiling { per_day: optimum.value, bounds })
    }
}
