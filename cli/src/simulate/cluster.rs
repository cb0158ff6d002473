//! A cluster as its file describes it: validated values in exact units, before anything is simulated. Knows neither TOML
//! nor the engine.

use std::collections::BTreeMap;

use sched::{GroupCap, Millis, Policy};
use sealtasks::{RegisteredSealProof, Resources, SectorSize, TaskType};

/// The tasks of a sector's life that are planned for, in their order.
pub const TASKS: [TaskType; 7] = [
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
    TaskType::Fetch,
];

/// The tasks that take a time of their own. A `GET`, which moves the finished sector to a path of the type `store`, takes
/// its bytes over the network's rate.
pub const TIMED: [TaskType; 6] = [
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
];

/// Everything that a run depends on. The same cluster gives the same result.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// What it is called in tables and charts.
    pub title: String,
    /// The size of every sector.
    pub sector_size: SectorSize,
    /// The day on which it starts; `None`: days are counted from 1.
    pub starts: Option<time::Date>,
    /// How long it runs, in milliseconds.
    pub horizon: Millis,
    /// How much of the beginning is left out of all figures, in milliseconds.
    pub warm_up: Millis,
    /// Where spreads and random arrivals begin.
    pub seed: u64,
    /// How the scheduler chooses among workers that fit.
    pub policy: Policy,
    /// After waiting this long a task reserves its place, in milliseconds.
    pub wait_limit: Millis,
    /// How many tasks a worker may fetch for, per running one.
    pub staged_per_running: usize,
    /// From PreCommit2's end to Commit1, in milliseconds: the message on chain and the epochs until the seed.
    pub wait_seed: Millis,
    /// How long each of [`TIMED`] takes and what it needs.
    pub tasks: BTreeMap<TaskType, TaskProfile>,
    /// The machines, equal ones together.
    pub machines: Vec<MachineGroup>,
    /// Paths that several machines reach, such as a network file system.
    pub shared_paths: Vec<SharedPath>,
    /// New sectors wait while so many are under way (Lotus: `MaxSealingSectors`).
    pub in_pipeline_max: Option<u64>,
    /// What is to be sealed.
    pub arrivals: Vec<Arrivals>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// One task type on a machine of speed 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskProfile {
    /// How long it takes, in milliseconds.
    pub duration: Millis,
    /// Each single task takes up to this much more or less, evenly spread; in thousandths.
    pub spread: u64,
    /// What one such task needs.
    pub resources: Resources,
}

/// Equal machines.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineGroup {
    /// The name; machines of a group of several are called `name-1`, `name-2`, ….
    pub name: String,
    /// How many.
    pub count: u64,
    /// CPU threads.
    pub cpus: u64,
    /// RAM in bytes.
    pub memory: u64,
    /// RAM in bytes that the system itself uses.
    pub memory_used: u64,
    /// Swap in bytes.
    pub swap: u64,
    /// GPUs by name.
    pub gpus: Vec<String>,
    /// The tasks it offers.
    pub tasks: Vec<TaskType>,
    /// At most so many of a type at once.
    pub caps: BTreeMap<TaskType, u32>,
    /// At most so many of several types together.
    pub group_caps: Vec<GroupCap>,
    /// The least time between two starts of a type.
    pub stagger: BTreeMap<TaskType, Millis>,
    /// How much faster than the profile a task runs here, in thousandths: 2000 takes half the time.
    pub speed: BTreeMap<TaskType, u64>,
    /// What tasks need here where that is not what they need elsewhere.
    pub needs: BTreeMap<TaskType, Resources>,
    /// Bytes per second at which it fetches.
    pub bandwidth: u64,
    /// Its storage paths.
    pub paths: Vec<StoragePath>,
}

/// A storage path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePath {
    /// Its name, unique within its machine.
    pub name: String,
    /// Bytes that it holds when empty.
    pub size: u64,
    /// Preference among paths.
    pub weight: u64,
    /// Sealing may use it.
    pub seal: bool,
    /// Finished sectors may live here.
    pub store: bool,
}

/// A path that several machines reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPath {
    /// The path.
    pub path: StoragePath,
    /// The groups of machines that reach it.
    pub machines: Vec<String>,
}

/// A stream of sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// Whether they carry deals; those go first, as Lotus has it.
    pub deals: bool,
    /// How they come.
    pub flow: Flow,
}

/// How sectors come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// So many are there from the start.
    Backlog(u64),
    /// So many thousandths of a sector come per day, at even distances.
    Even(u64),
    /// So many thousandths of a sector come per day on average, each at a time of its own.
    Random(u64),
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The machine, for example `pc1-2`.
    pub machine: String,
    /// What happens to it.
    pub kind: FaultKind,
    /// From when, in milliseconds since the start.
    pub from: Millis,
    /// Until when, in milliseconds since the start; later than `from`.
    pub to: Millis,
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It is gone; what ran there is lost and is tried again.
    Down,
    /// Tasks that start meanwhile take so many thousandths of their time.
    Slow(u64),
}

impl Cluster {
    /// The proof of every sector.
    pub fn proof(&self) -> RegisteredSealProof {
        RegisteredSealProof::for_new_sector(self.sector_size)
    }

    /// Every single machine: its name and its group.
    pub fn each_machine(&self) -> impl Iterator<Item = (String, &MachineGroup)> {
        self.machines
            .iter()
            .flat_map(|group| (1..=group.count).map(move |number| (group.machine_name(number), group)))
    }
}

impl MachineGroup {
    /// The name of the group's `number`th machine, from 1.
    pub fn machine_name(&self, number: u64) -> String {
        if self.count == 1 { self.name.clone() } else { format!("{}-{number}", self.name) }
    }

    /// What a task of this type needs here.
    pub fn needs<'a>(&'a self, task: TaskType, profile: &'a TaskProfile) -> &'a Resources {
        self.needs.get(&task).unwrap_or(&profile.resources)
    }

    /// How long a task of this type takes here, in milliseconds, at least one.
    pub fn duration(&self, task: TaskType, profile: &TaskProfile) -> Millis {
        let speed = self.speed.get(&task).copied().unwrap_or(1000);
        let scaled = u128::from(profile.duration.get()) * 1000 / u128::from(speed.max(1));
        Millis::new(u64::try_from(scaled).unwrap_or(u64::MAX).max(1))
    }
}
