//! What holds the number of sectors down, why, and what more of what would bring. The ceiling's heaviest bound says where to
//! look, the run says how full it is there and who waits for it.

use sched::Millis;
use sealtasks::TaskType;
use serde::Serialize;

use super::ceiling::{Bound, Ceiling, Fit, FitBy, ceiling, fit};
use super::cluster::{Arrivals, Cluster, Flow};
use super::figures::{GroupFigures, Sectors, TaskFigures};
use super::reader::codes;
use crate::show::age;

/// Changes that are proposed, at most.
const CHANGES_MAX: usize = 4;
/// A change must raise the ceiling by this share to be worth a line.
const GAIN_MIN: f64 = 0.002;
/// How much of the ceiling a run must reach for the ceiling's bound to be what really held it down.
const REACHED: f64 = 0.85;

/// What holds a cluster down.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bottleneck {
    /// Which kind of thing: `arrivals`, `in_pipeline_max`, `storage_room`, `sealing_room`, `network`, `cpu`, `memory`, `gpu`,
    /// `slots`, `cap`, `group_cap` or `stagger`.
    pub kind: &'static str,
    /// The group of machines; `null`: the whole cluster.
    pub group: Option<String>,
    /// The tasks that compete for it, by their short codes.
    pub tasks: Vec<&'static str>,
    /// Why, for people.
    pub reason: String,
    /// What the run shows beyond that, for people; `null`: it came near the ceiling.
    pub remark: Option<String>,
    /// What would raise the ceiling, the most useful first.
    pub changes: Vec<Change>,
}

/// One change to the cluster and what it would bring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What is changed, for people.
    pub change: String,
    /// The ceiling with it, in sectors per day.
    pub ceiling_per_day: f64,
    /// What a run with it finished, in sectors per day; `null`: it was not run (`--what-if` runs it).
    pub simulated_per_day: Option<f64>,
}

/// A changed cluster, to be simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct WhatIf {
    /// What is changed.
    pub change: String,
    /// The cluster with the change.
    pub cluster: Cluster,
    /// Its ceiling.
    pub ceiling: Ceiling,
}

/// Names the bottleneck of a run.
pub fn bottleneck(
    cluster: &Cluster,
    ceiling: &Ceiling,
    sectors: &Sectors,
    tasks: &[TaskFigures],
    groups: &[GroupFigures],
) -> Bottleneck {
    let Some((bound, _)) = ceiling.bounds.first() else { return nothing() };
    let (kind, group, competing) = describe(cluster, bound);
    let waits = most_waiting(tasks, &competing);
    let mut reason = match bound {
        Bound::Arrivals => keeps_up(cluster, groups),
        bound => words(cluster, bound, groups),
    };
    if let Some(task) = waits.filter(|task| task.waiting.mean_ms >= 1000) {
        let spread = task.waiting;
        reason.push_str(&format!(
            "; {} waits {} on average, {} at p99",
            task.task,
            age(spread.mean_ms),
            age(spread.p99_ms)
        ));
    }
    let changes = what_ifs(cluster, ceiling).into_iter().map(|what| Change {
        change: what.change,
        ceiling_per_day: what.ceiling.per_day,
        simulated_per_day: None,
    });
    Bottleneck {
        kind,
        group: group.map(|group| cluster.machines[group].name.clone()),
        tasks: competing.iter().map(|task| task.short()).collect(),
        reason,
        remark: remark(sectors, tasks),
        changes: changes.collect(),
    }
}

/// The changes that would raise the ceiling most.
pub fn what_ifs(cluster: &Cluster, now: &Ceiling) -> Vec<WhatIf> {
    let mut found: Vec<WhatIf> = Vec::new();
    for (change, changed) in candidates(cluster, now) {
        let Some(ceiling) = ceiling(&changed) else { continue };
        if ceiling.per_day > now.per_day * (1.0 + GAIN_MIN) {
            found.push(WhatIf { change, cluster: changed, ceiling });
        }
    }
    found.sort_by(|a, b| b.ceiling.per_day.total_cmp(&a.ceiling.per_day).then(a.change.cmp(&b.change)));
    found.dedup_by(|a, b| a.change == b.change);
    found.truncate(CHANGES_MAX);
    found
}

fn candidates(cluster: &Cluster, now: &Ceiling) -> Vec<(String, Cluster)> {
    let mut all = Vec::new();
    let mut add = |change: String, with: &dyn Fn(&mut Cluster)| {
        let mut changed = cluster.clone();
        with(&mut changed);
        all.push((change, changed));
    };
    for (group, machine) in cluster.machines.iter().enumerate() {
        add(format!("one more machine {}", machine.name), &|changed| changed.machines[group].count += 1);
    }
    for (bound, _) in &now.bounds {
        let name = |group: usize| cluster.machines[group].name.as_str();
        match *bound {
            Bound::InPipeline => {
                let most = cluster.in_pipeline_max.unwrap_or(0);
                let more = most + (most / 10).max(1);
                add(format!("in_pipeline_max = {more}"), &|changed| changed.in_pipeline_max = Some(more));
            }
            Bound::Gpu(group) => add(format!("one more GPU in each {}", name(group)), &|changed| {
                changed.machines[group].gpus.push("one more".to_owned());
            }),
            Bound::Network(group) => add(format!("twice the bandwidth of {}", name(group)), &|changed| {
                let bandwidth = &mut changed.machines[group].bandwidth;
                *bandwidth = bandwidth.saturating_mul(2);
            }),
            Bound::Memory(group) | Bound::MemoryPeak(group) => {
                add(format!("a quarter more RAM in each {}", name(group)), &|changed| {
                    let memory = &mut changed.machines[group].memory;
                    *memory = memory.saturating_add(*memory / 4);
                });
            }
            Bound::Slots(group, task) if needs_memory(cluster, group, task) => {
                add(format!("RAM for one more {task} in each {}", name(group)), &|changed| {
                    let each = changed.machines[group].needs(task, &changed.tasks[&task]).max_memory;
                    let memory = &mut changed.machines[group].memory;
                    *memory = memory.saturating_add(each);
                });
            }
            Bound::Slots(group, task) if is_capped(cluster, group, task) => {
                add(format!("caps = {{ {task} }} of {} raised by one", name(group)), &|changed| {
                    changed.machines[group].caps.entry(task).and_modify(|cap| *cap += 1);
                });
            }
            Bound::GroupCap(group, at) => {
                add(format!("group_caps of {} raised by one", name(group)), &|changed| {
                    changed.machines[group].group_caps[at].most += 1;
                });
            }
            Bound::Stagger(group, task) => {
                add(format!("half the stagger of {task} on {}", name(group)), &|changed| {
                    let halve = |apart: &mut Millis| *apart = Millis::new(apart.get() / 2);
                    changed.machines[group].stagger.entry(task).and_modify(halve);
                });
            }
            Bound::StorageRoom | Bound::SealingRoom | Bound::LayerRoom(_) => {
                let is_store = matches!(bound, Bound::StorageRoom);
                let what = if is_store { "storage" } else { "sealing" };
                add(format!("a quarter more room in every {what} path"), &|changed| {
                    let local = changed.machines.iter_mut().flat_map(|group| &mut group.paths);
                    let shared = changed.shared_paths.iter_mut().map(|shared| &mut shared.path);
                    let wanted = local.chain(shared);
                    wanted
                        .filter(|path| if is_store { path.store } else { path.seal })
                        .for_each(|path| path.size = path.size.saturating_add(path.size / 4));
                });
            }
            Bound::Arrivals | Bound::StorageNetwork | Bound::Cpu(_) | Bound::Slots(..) => {}
        }
    }
    all
}

/// How many of a task fit on one machine of a group.
fn fit_on(cluster: &Cluster, group: usize, task: TaskType) -> Option<Fit> {
    fit(&cluster.machines[group], task, &cluster.tasks[&task])
}

fn needs_memory(cluster: &Cluster, group: usize, task: TaskType) -> bool {
    let fit = fit_on(cluster, group, task);
    fit.is_some_and(|fit| matches!(fit.by, FitBy::Memory | FitBy::MemoryPeak))
}

fn is_capped(cluster: &Cluster, group: usize, task: TaskType) -> bool {
    fit_on(cluster, group, task).is_some_and(|fit| fit.by == FitBy::Cap)
}

/// What the cluster could do if more came.
fn keeps_up(cluster: &Cluster, groups: &[GroupFigures]) -> String {
    /// Sectors per day, in thousandths, that no cluster in the file's bounds can seal.
    const PLENTY: u64 = u32::MAX as u64 * 1000;
    let stream = Arrivals { deals: false, flow: Flow::Even(PLENTY) };
    let busier = Cluster { arrivals: vec![stream], ..cluster.clone() };
    let told = ceiling(&busier).and_then(|most| {
        let (bound, _) = most.bounds.first()?;
        Some(format!(
            "; with more, the ceiling would be {:.1}: {}",
            most.per_day,
            words(cluster, bound, groups)
        ))
    });
    format!("arrivals: no more sectors come{}", told.unwrap_or_default())
}

/// The kind of a bound, its group, and the tasks that compete for it.
fn describe(cluster: &Cluster, bound: &Bound) -> (&'static str, Option<usize>, Vec<TaskType>) {
    let heavy = |group: usize, needs: &dyn Fn(&sealtasks::Resources) -> bool| -> Vec<TaskType> {
        let machine = &cluster.machines[group];
        let offered = cluster.tasks.iter().filter(|(task, _)| machine.tasks.contains(task));
        offered
            .filter(|(task, profile)| needs(machine.needs(**task, profile)))
            .map(|(task, _)| *task)
            .collect()
    };
    match *bound {
        Bound::Arrivals => ("arrivals", None, Vec::new()),
        Bound::InPipeline => ("in_pipeline_max", None, Vec::new()),
        Bound::StorageRoom => ("storage_room", None, vec![TaskType::Fetch]),
        Bound::SealingRoom => ("sealing_room", None, vec![TaskType::AddPiece, TaskType::PreCommit1]),
        Bound::LayerRoom(group) => ("sealing_room", Some(group), vec![TaskType::PreCommit1]),
        Bound::Network(group) => ("network", Some(group), vec![TaskType::PreCommit2]),
        Bound::StorageNetwork => ("network", None, vec![TaskType::Fetch]),
        Bound::Cpu(group) => {
            let machine = &cluster.machines[group];
            let threads = |needs: &sealtasks::Resources| needs.threads(machine.cpus, machine.gpus.len()) > 0;
            ("cpu", Some(group), heavy(group, &threads))
        }
        Bound::Memory(group) => ("memory", Some(group), heavy(group, &|needs| needs.min_memory > 0)),
        Bound::MemoryPeak(group) => ("memory", Some(group), heavy(group, &|needs| needs.max_memory > 0)),
        Bound::Gpu(group) => ("gpu", Some(group), heavy(group, &|needs| needs.gpu_utilization > 0.0)),
        Bound::Slots(group, task) if is_capped(cluster, group, task) => ("cap", Some(group), vec![task]),
        Bound::Slots(group, task) => ("slots", Some(group), vec![task]),
        Bound::GroupCap(group, at) => {
            let tasks = &cluster.machines[group].group_caps[at].tasks;
            ("group_cap", Some(group), tasks.iter().copied().collect())
        }
        Bound::Stagger(group, task) => ("stagger", Some(group), vec![task]),
    }
}

/// The bound in words, with how full it is where the run tells.
fn words(cluster: &Cluster, bound: &Bound, groups: &[GroupFigures]) -> String {
    let name = |group: usize| cluster.machines[group].name.as_str();
    let used = |share: f64| format!("{:.0} % in use", share * 100.0);
    let (_, _, competing) = describe(cluster, bound);
    let tasks = codes(&competing);
    match *bound {
        Bound::Arrivals => "arrivals".to_owned(),
        Bound::InPipeline => format!(
            "in_pipeline_max = {}: a sector is under way so long that no more of them pass",
            cluster.in_pipeline_max.unwrap_or(0)
        ),
        Bound::StorageRoom => "the storage paths are too small for what is finished in this time".to_owned(),
        Bound::SealingRoom => "the sealing paths hold no more sectors at once".to_owned(),
        Bound::LayerRoom(group) => {
            format!("the sealing paths of {} hold the layers of no more PC1 at once", name(group))
        }
        Bound::Network(group) => format!(
            "the network of {}, which fetches for PC2: fetching {:.0} % of the time",
            name(group),
            groups[group].fetching * 100.0
        ),
        Bound::StorageNetwork => "the network into the storage paths".to_owned(),
        Bound::Cpu(group) => {
            format!("CPU threads of {} ({tasks}): {}", name(group), used(groups[group].cpu))
        }
        Bound::Memory(group) | Bound::MemoryPeak(group) => {
            format!("memory of {} ({tasks}): {} of RAM", name(group), used(groups[group].memory))
        }
        Bound::Gpu(group) => {
            format!("GPUs of {} ({tasks}): {}", name(group), used(groups[group].gpu.unwrap_or(0.0)))
        }
        Bound::Slots(group, task) => {
            let Some(fit) = fit_on(cluster, group, task) else { return format!("{task} on {}", name(group)) };
            format!("{} takes {} {task} at once, by its {}", name(group), fit.slots, fit.by.words())
        }
        Bound::GroupCap(group, at) => {
            let most = cluster.machines[group].group_caps[at].most;
            format!("{} may run {most} of {tasks} at once", name(group))
        }
        Bound::Stagger(group, task) => {
            format!("{} starts one {task} at a time, by stagger", name(group))
        }
    }
}

/// Of these tasks, or of all where none compete, the one whose waiting costs a sector most.
fn most_waiting<'a>(tasks: &'a [TaskFigures], competing: &[TaskType]) -> Option<&'a TaskFigures> {
    let concerned = |figures: &&TaskFigures| competing.iter().any(|task| task.short() == figures.task);
    tasks.iter().filter(concerned).max_by_key(|figures| figures.waiting.mean_ms)
}

/// Says where the time goes when a run stays far below the ceiling.
fn remark(sectors: &Sectors, tasks: &[TaskFigures]) -> Option<String> {
    if sectors.per_day >= sectors.ceiling_per_day * REACHED {
        return None;
    }
    let share = sectors.per_day / sectors.ceiling_per_day.max(f64::MIN_POSITIVE) * 100.0;
    let worst = tasks.iter().max_by_key(|task| (task.waiting.mean_ms, task.waiting_at_end))?;
    Some(format!(
        "the run reached {share:.0} % of the ceiling; what waits longest is {}: {} on average, {} waiting at the end",
        worst.task,
        age(worst.waiting.mean_ms),
        worst.waiting_at_end
    ))
}

fn nothing() -> Bottleneck {
    Bottleneck {
        kind: "arrivals",
        group: None,
        tasks: Vec::new(),
        reason: "nothing arrives".to_owned(),
        remark: None,
        changes: Vec::new(),
    }
}
