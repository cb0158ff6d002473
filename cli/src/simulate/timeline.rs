//! What a run brought, as plain values: which machine did what for which sector and when. Figures and charts are made from
//! this alone.

use sealtasks::TaskType;

/// A run from its start to its horizon. All times are milliseconds since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// How long it ran.
    pub horizon: u64,
    /// Everything that machines did, by its beginning. What the horizon cut off ends there.
    pub spans: Vec<Span>,
    /// Each task that was started or that waits, by its submission.
    pub tasks: Vec<TaskRecord>,
    /// Each sector that came.
    pub sectors: Vec<SectorRecord>,
    /// Each storage path of each machine, then the shared ones.
    pub paths: Vec<PathRecord>,
    /// Bytes moved between paths of different machines.
    pub bytes_moved: u64,
}

/// One thing that a machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The machine's position in the cluster.
    pub machine: usize,
    /// For which task.
    pub task: TaskType,
    /// Of which sector.
    pub sector: u64,
    /// What exactly.
    pub phase: Phase,
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub to: u64,
}

/// What a machine does for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Fetches its files while no slot is taken.
    Stage,
    /// Has its files and waits for a slot.
    Ready,
    /// Fetches its files with the slot already taken.
    Fetch,
    /// Runs it.
    Run,
}

impl Phase {
    /// Whether the task holds its slot: threads, memory, GPU.
    pub const fn holds_slot(self) -> bool {
        matches!(self, Self::Fetch | Self::Run)
    }
}

/// One task from its submission to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Which type.
    pub task: TaskType,
    /// When it was submitted.
    pub submitted: u64,
    /// When it began to run for the last time; `None`: it still waits.
    pub started: Option<u64>,
    /// When it was finished; `None`: not within the horizon.
    pub finished: Option<u64>,
}

/// One sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorRecord {
    /// When it came.
    pub arrived: u64,
    /// When its first task was submitted; later than it came where the pipeline was full. `None`: not yet.
    pub begun: Option<u64>,
    /// When it was stored; `None`: not within the horizon.
    pub finished: Option<u64>,
}

/// One storage path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRecord {
    /// The machine and the path, `pc1-2/nvme`; a shared one has no machine.
    pub name: String,
    /// Bytes that it holds.
    pub size: u64,
    /// The most bytes that lay there, or were promised, at once.
    pub peak: u64,
    /// Sealing may use it.
    pub seal: bool,
}
