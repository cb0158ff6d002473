//! What a run comes to, in numbers: the document that `--json` prints. Its fields keep their names and meanings; new ones
//! may be added. The schema is `cli/simulate.schema.json`.

use std::collections::BTreeMap;

use sched::sim::TaskStats;
use sealtasks::TaskType;
use serde::Serialize;

use super::bottleneck::Bottleneck;
use super::ceiling::{Ceiling, fit};
use super::cluster::{Cluster, Flow, MachineGroup, TASKS};
use super::timeline::{Phase, Span, Timeline};
use crate::show::age;

/// Milliseconds of a day.
pub const DAY: f64 = 86_400_000.0;

/// The version of the document. It changes only where a field loses its name or meaning.
pub const SCHEMA: u32 = 1;

/// All figures of one run. Unless a field says otherwise they are of the time after the warm-up. Names end in their units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The cluster's title.
    pub title: String,
    /// The algorithm that placed the tasks: `sealyard` or `lotus`.
    pub scheduler: &'static str,
    /// Where spreads and random arrivals began.
    pub seed: u64,
    /// How long the run was.
    pub horizon_ms: u64,
    /// What of its beginning is not counted.
    pub warm_up_ms: u64,
    /// Until when it is counted: the horizon, or when a backlog was done.
    pub counted_to_ms: u64,
    /// The sectors.
    pub sectors: Sectors,
    /// What whoever reads the figures should know, for people.
    pub notes: Vec<String>,
    /// What holds the number of sectors down.
    pub bottleneck: Bottleneck,
    /// Per task type, in the order of a sector's life.
    pub tasks: Vec<TaskFigures>,
    /// Per kind of machine.
    pub groups: Vec<GroupFigures>,
    /// Per machine.
    pub machines: Vec<MachineFigures>,
    /// Per storage path, over the whole run.
    pub paths: Vec<PathFigures>,
    /// Bytes that were fetched over the whole run.
    pub moved_bytes: u64,
    /// The same per day.
    pub moved_bytes_per_day: u64,
}

/// Counts of sectors and how long they took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sectors {
    /// Finished per day.
    pub per_day: f64,
    /// No schedule of these machines could finish more per day than this.
    pub ceiling_per_day: f64,
    /// How many came, over the whole run.
    pub arrived: usize,
    /// How many were finished, over the whole run.
    pub finished: usize,
    /// How many were begun and not finished at the end.
    pub under_way: usize,
    /// How many had come and were not begun at the end, because the pipeline was full.
    pub held_back: usize,
    /// From a sector's first task to its storing, of those finished after the warm-up.
    pub life: Spread,
}

/// How long something took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// On average.
    pub mean_ms: u64,
    /// Half took no longer.
    pub p50_ms: u64,
    /// 99 of 100 took no longer.
    pub p99_ms: u64,
}

/// One task type.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TaskFigures {
    /// Its short code.
    pub task: &'static str,
    /// Finished per day.
    pub per_day: f64,
    /// From its submission until it began to run, fetching included, of those that began.
    pub waiting: Spread,
    /// How long a machine fetched for it, on average over all tasks of the type, in milliseconds.
    pub fetching_mean_ms: u64,
    /// How long it ran, on average, in milliseconds.
    pub running_mean_ms: u64,
    /// Those that run at one instant, on average.
    pub running_mean: f64,
    /// Those that could run at once on machines that do nothing else; `null`: any number.
    pub slots: Option<u64>,
    /// Submitted and not running at the end.
    pub waiting_at_end: usize,
}

/// One kind of machine. Shares are of what it has, from 0 to 1, the mean over its machines and the time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupFigures {
    /// Its name.
    pub group: String,
    /// How many machines.
    pub count: u64,
    /// Share of the CPU threads.
    pub cpu: f64,
    /// Share of the RAM, by the least that the tasks need.
    pub memory: f64,
    /// Share of the GPUs; `null`: it has none.
    pub gpu: Option<f64>,
    /// Share of the time in which it fetched something.
    pub fetching: f64,
    /// Share of the resource that is used most, on the least and the most used machine.
    pub least_and_most: [f64; 2],
}

/// One machine. Shares are of what it has, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineFigures {
    /// Its name.
    pub machine: String,
    /// Its group.
    pub group: String,
    /// Share of the CPU threads.
    pub cpu: f64,
    /// Share of the RAM, by the least that the tasks need.
    pub memory: f64,
    /// Share of the GPUs; `null`: it has none.
    pub gpu: Option<f64>,
    /// Share of the time in which it fetched something.
    pub fetching: f64,
    /// Tasks in a slot at one instant, on average, by their short codes.
    pub running: BTreeMap<&'static str, f64>,
}

/// One storage path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathFigures {
    /// The machine and the path; a shared one has no machine.
    pub path: String,
    /// Whether sealing may use it.
    pub seal: bool,
    /// Bytes that it holds.
    pub size_bytes: u64,
    /// The most bytes that lay there, or were promised to tasks, at once.
    pub peak_bytes: u64,
}

/// The figures of a run.
pub fn figures(
    cluster: &Cluster,
    scheduler: &'static str,
    timeline: &Timeline,
    ceiling: &Ceiling,
) -> Figures {
    let window = counted(cluster, timeline);
    let machines: Vec<MachineFigures> = machine_figures(cluster, timeline, window);
    let groups = group_figures(cluster, &machines);
    let tasks = task_figures(cluster, timeline, window);
    let sectors = sector_figures(timeline, window, ceiling.per_day);
    let bottleneck = super::bottleneck::bottleneck(cluster, ceiling, &sectors, &tasks, &groups);
    let per_day = timeline.bytes_moved as f64 / (timeline.horizon.max(1) as f64 / DAY);
    Figures {
        schema: SCHEMA,
        title: cluster.title.clone(),
        scheduler,
        seed: cluster.seed,
        horizon_ms: timeline.horizon,
        warm_up_ms: window.from,
        counted_to_ms: window.to,
        sectors,
        notes: notes(scheduler, &sectors, window),
        bottleneck,
        tasks,
        groups,
        machines,
        paths: timeline
            .paths
            .iter()
            .map(|path| PathFigures {
                path: path.name.clone(),
                seal: path.seal,
                size_bytes: path.size,
                peak_bytes: path.peak,
            })
            .collect(),
        moved_bytes: timeline.bytes_moved,
        moved_bytes_per_day: per_day as u64,
    }
}

/// The part of a run that counts.
#[derive(Clone, Copy, Debug)]
struct Counted {
    from: u64,
    to: u64,
}

fn notes(scheduler: &str, sectors: &Sectors, window: Counted) -> Vec<String> {
    let mut notes = Vec::new();
    if window.from < sectors.life.mean_ms && sectors.finished > 0 {
        notes.push(format!(
            "the warm-up is shorter than a sector takes ({}): the figures are of a pipeline that still fills",
            age(sectors.life.mean_ms)
        ));
    }
    if scheduler == "lotus" {
        let lacks = "Lotus knows neither stagger, group_caps nor wait_limit; its model leaves them out";
        notes.push(lacks.to_owned());
    }
    notes
}

/// After the warm-up and until the horizon; a backlog that is done earlier ends the time that counts, and where that
/// leaves nothing, the warm-up counts too.
fn counted(cluster: &Cluster, timeline: &Timeline) -> Counted {
    let is_backlog = |stream: &super::cluster::Arrivals| matches!(stream.flow, Flow::Backlog(_));
    let ends: Option<Vec<u64>> = timeline.sectors.iter().map(|sector| sector.finished).collect();
    let done =
        ends.filter(|_| cluster.arrivals.iter().all(is_backlog)).and_then(|ends| ends.into_iter().max());
    let to = done.unwrap_or(timeline.horizon);
    let from = if cluster.warm_up.get() < to { cluster.warm_up.get() } else { 0 };
    Counted { from, to }
}

impl Counted {
    fn holds(self, at: u64) -> bool {
        at > self.from && at <= self.to
    }

    fn days(self) -> f64 {
        (self.to - self.from).max(1) as f64 / DAY
    }

    fn length(self) -> f64 {
        (self.to - self.from).max(1) as f64
    }

    /// The milliseconds of a span that count.
    fn part(self, span: &Span) -> u64 {
        span.to.min(self.to).saturating_sub(span.from.max(self.from))
    }
}

impl Spread {
    fn of(values: Vec<u64>) -> Self {
        let stats = TaskStats::of(values);
        Self { mean_ms: stats.mean.get(), p50_ms: stats.p50.get(), p99_ms: stats.p99.get() }
    }
}

fn sector_figures(timeline: &Timeline, window: Counted, ceiling: f64) -> Sectors {
    let all = &timeline.sectors;
    let finished = || all.iter().filter_map(|sector| Some((sector.begun?, sector.finished?)));
    let counted: Vec<u64> =
        finished().filter(|(_, at)| window.holds(*at)).map(|(begun, at)| at - begun).collect();
    let begun = all.iter().filter(|sector| sector.begun.is_some()).count();
    Sectors {
        per_day: counted.len() as f64 / window.days(),
        ceiling_per_day: ceiling,
        arrived: all.len(),
        finished: finished().count(),
        under_way: begun - finished().count(),
        held_back: all.len() - begun,
        life: Spread::of(counted),
    }
}

fn task_figures(cluster: &Cluster, timeline: &Timeline, window: Counted) -> Vec<TaskFigures> {
    let figures = |task: TaskType| {
        let records = || timeline.tasks.iter().filter(move |record| record.task == task);
        let spans = || timeline.spans.iter().filter(move |span| span.task == task);
        let sum = |phases: &[Phase]| -> u64 {
            spans().filter(|span| phases.contains(&span.phase)).map(|span| window.part(span)).sum()
        };
        let done = records().filter(|record| record.finished.is_some_and(|at| window.holds(at))).count();
        let begun = |record: &super::timeline::TaskRecord| {
            record.started.filter(|at| window.holds(*at)).map(|at| at.saturating_sub(record.submitted))
        };
        let fits = |group: &MachineGroup| {
            let profile = cluster.tasks.get(&task)?;
            fit(group, task, profile).and_then(|fit| fit.slots.checked_mul(group.count))
        };
        let offering = cluster.machines.iter().filter(|group| group.tasks.contains(&task));
        TaskFigures {
            task: task.short(),
            per_day: done as f64 / window.days(),
            waiting: Spread::of(records().filter_map(begun).collect()),
            fetching_mean_ms: sum(&[Phase::Stage, Phase::Fetch]) / done.max(1) as u64,
            running_mean_ms: sum(&[Phase::Run]) / done.max(1) as u64,
            running_mean: sum(&[Phase::Run]) as f64 / window.length(),
            slots: offering.map(fits).sum(),
            waiting_at_end: records().filter(|record| record.started.is_none()).count(),
        }
    };
    TASKS.into_iter().map(figures).collect()
}

fn machine_figures(cluster: &Cluster, timeline: &Timeline, window: Counted) -> Vec<MachineFigures> {
    let machines: Vec<(String, &MachineGroup)> = cluster.each_machine().collect();
    let mut spans: Vec<Vec<&Span>> = vec![Vec::new(); machines.len()];
    for span in timeline.spans.iter().filter(|span| window.part(span) > 0) {
        spans[span.machine].push(span);
    }
    machines
        .into_iter()
        .zip(spans)
        .map(|((name, group), spans)| machine(cluster, name, group, &spans, window))
        .collect()
}

fn machine(
    cluster: &Cluster,
    name: String,
    group: &MachineGroup,
    spans: &[&Span],
    window: Counted,
) -> MachineFigures {
    let (mut threads, mut memory, mut gpu) = (0.0, 0.0, 0.0);
    let mut running: BTreeMap<&'static str, f64> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.phase.holds_slot()) {
        let part = window.part(span) as f64 / window.length();
        *running.entry(span.task.short()).or_default() += part;
        if let Some(profile) = cluster.tasks.get(&span.task) {
            let needs = group.needs(span.task, profile);
            threads += part * needs.threads(group.cpus, group.gpus.len()) as f64;
            memory += part * needs.min_memory as f64;
            gpu += part * needs.gpu_utilization.max(0.0);
        }
    }
    for (task, profile) in &cluster.tasks {
        let of_type = spans.iter().filter(|span| span.task == *task && span.phase.holds_slot());
        let covered = covered(of_type.copied(), window) as f64 / window.length();
        memory += covered * group.needs(*task, profile).base_min_memory as f64;
    }
    let fetches = spans.iter().filter(|span| matches!(span.phase, Phase::Stage | Phase::Fetch));
    let gpus = group.gpus.len();
    MachineFigures {
        machine: name,
        group: group.name.clone(),
        cpu: threads / group.cpus.max(1) as f64,
        memory: memory / group.memory.max(1) as f64,
        gpu: (gpus > 0).then(|| gpu / gpus as f64),
        fetching: covered(fetches.copied(), window) as f64 / window.length(),
        running,
    }
}

/// Milliseconds of the window in which at least one of these spans, which come by their beginning, was going on.
fn covered<'a>(spans: impl Iterator<Item = &'a Span>, window: Counted) -> u64 {
    let (mut sum, mut until) = (0, window.from);
    for span in spans {
        let to = span.to.min(window.to);
        sum += to.saturating_sub(span.from.max(until));
        until = until.max(to);
    }
    sum
}

fn group_figures(cluster: &Cluster, machines: &[MachineFigures]) -> Vec<GroupFigures> {
    let group = |group: &MachineGroup| {
        let members: Vec<&MachineFigures> =
            machines.iter().filter(|machine| machine.group == group.name).collect();
        let mean = |value: &dyn Fn(&MachineFigures) -> f64| {
            members.iter().map(|machine| value(machine)).sum::<f64>() / members.len().max(1) as f64
        };
        let (cpu, memory) = (mean(&|machine| machine.cpu), mean(&|machine| machine.memory));
        let gpu = mean(&|machine| machine.gpu.unwrap_or(0.0));
        let most_used = |machine: &MachineFigures| {
            if gpu >= cpu && gpu >= memory {
                machine.gpu.unwrap_or(0.0)
            } else if cpu >= memory {
                machine.cpu
            } else {
                machine.memory
            }
        };
        let shares = || members.iter().map(|machine| most_used(machine));
        GroupFigures {
            group: group.name.clone(),
            count: group.count,
            cpu,
            memory,
            gpu: (!group.gpus.is_empty()).then_some(gpu),
            fetching: mean(&|machine| machine.fetching),
            least_and_most: [shares().fold(f64::INFINITY, f64::min), shares().fold(0.0, f64::max)],
        }
    };
    cluster.machines.iter().map(group).collect()
}
