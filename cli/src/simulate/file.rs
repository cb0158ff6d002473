//! From the text of a cluster file to a [`Cluster`]: every key, its unit, its bounds, its default. What a key means stands in
//! `examples/clusters/README.md`.

use std::collections::BTreeSet;

use sched::{Millis, Policy};
use sealtasks::{SectorSize, TaskType};

use super::cluster::{
    Arrivals, Cluster, Fault, FaultKind, Flow, MachineGroup, SharedPath, TASKS, TIMED, TaskProfile,
};
use super::machine_file::{Profiles, machine, storage_path};
use super::needs_file::needs;
use super::published;
use super::reader::{ClusterError, Entry, Section, Source, codes};

/// The longest run: two years, the most that a plan looks ahead.
const HORIZON_MAX: Millis = Millis::new(730 * 86_400_000);
/// The most machines, all groups together. Lotus's practical ceiling is near 100.
const MACHINES_MAX: u64 = 2_000;
/// The most sectors that all streams may bring over the whole run: what a run still ends with in minutes.
const SECTORS_MAX: u64 = 200_000;
/// The most storage paths, those of all machines and the shared ones together.
const PATHS_MAX: u64 = 20_000;
/// The most `[[machine]]` sections: kinds of machines, not machines.
const GROUPS_MAX: usize = 64;
/// The most faults.
const FAULTS_MAX: usize = 10_000;

/// Reads a cluster. `file` is its name for messages.
///
/// # Errors
/// The first mistake, with its line, key, value and what would be right.
pub fn parse(file: &str, text: &str) -> Result<Cluster, ClusterError> {
    let source = Source { file, text };
    let table = source.parse()?;
    let mut root = Section::root(source, &table);
    let size = sector_size(&mut root)?;
    let horizon = match root.optional("horizon") {
        Some(entry) => within(&entry, entry.span_above_zero()?, HORIZON_MAX)?,
        None => Millis::new(30 * 86_400_000),
    };
    let tasks = tasks(&mut root, size)?;
    let machines = machines(&mut root, &tasks)?;
    let cluster = Cluster {
        title: match root.optional("title") {
            Some(entry) => entry.text()?.to_owned(),
            None => file.to_owned(),
        },
        sector_size: size,
        starts: starts(&mut root)?,
        horizon,
        warm_up: warm_up(&mut root, horizon)?,
        seed: root.optional("seed").map_or(Ok(1), |entry| entry.count(0..=i64::MAX as u64))?,
        policy: policy(&mut root)?,
        wait_limit: match root.optional("wait_limit") {
            Some(entry) => entry.span_above_zero()?,
            None => sched::Options::default().wait_limit,
        },
        staged_per_running: match root.optional("staged_per_running") {
            Some(entry) => entry.count(0..=16)? as usize,
            None => sched::Options::default().staged_per_running,
        },
        wait_seed: root.optional("wait_seed").map_or(Ok(published::WAIT_SEED), |entry| entry.span())?,
        tasks,
        in_pipeline_max: match root.optional("in_pipeline_max") {
            Some(entry) => Some(entry.count(1..=SECTORS_MAX)?),
            None => None,
        },
        arrivals: arrivals(&mut root, horizon)?,
        shared_paths: shared_paths(&mut root, &machines)?,
        faults: faults(&mut root, &machines, horizon)?,
        machines,
    };
    can_seal(&root, &cluster)?;
    root.finish()?;
    Ok(cluster)
}

fn sector_size(root: &mut Section<'_>) -> Result<SectorSize, ClusterError> {
    let Some(entry) = root.optional("sector_size") else { return Ok(SectorSize::GiB32) };
    let all: Vec<String> = SectorSize::ALL.iter().map(|size| format!("\"{size}\"")).collect();
    let text = entry.text()?.replace(' ', "");
    text.parse().map_err(|_| entry.wrong(format!("write one of {}", all.join(", "))))
}

fn starts(root: &mut Section<'_>) -> Result<Option<time::Date>, ClusterError> {
    let Some(entry) = root.optional("starts") else { return Ok(None) };
    let format = time::macros::format_description!("[year]-[month]-[day]");
    let date = time::Date::parse(entry.text()?, format);
    date.map(Some).map_err(|_| entry.wrong("write a day such as \"2026-03-01\""))
}

/// A fifth of the run by default: long enough for several sectors' lives in any run of weeks.
fn warm_up(root: &mut Section<'_>, horizon: Millis) -> Result<Millis, ClusterError> {
    let Some(entry) = root.optional("warm_up") else { return Ok(Millis::new(horizon.get() / 5)) };
    let span = entry.span()?;
    if span >= horizon {
        return Err(entry.wrong("must be shorter than the horizon, or nothing is left to be measured"));
    }
    Ok(span)
}

fn policy(root: &mut Section<'_>) -> Result<Policy, ClusterError> {
    let Some(entry) = root.optional("policy") else { return Ok(Policy::default()) };
    Ok(match entry.text()? {
        "utilization" => Policy::Utilization,
        "spread" => Policy::Spread,
        "spread-tasks" => Policy::SpreadTasks,
        "spread-qcount" => Policy::SpreadQcount,
        "random" => Policy::Random,
        _ => return Err(entry.wrong("write utilization, spread, spread-tasks, spread-qcount or random")),
    })
}

/// Beyond its bound a value is wrong.
fn within(entry: &Entry<'_>, span: Millis, most: Millis) -> Result<Millis, ClusterError> {
    if span > most {
        return Err(entry.wrong(format!("must be at most {} days", most.get() / 86_400_000)));
    }
    Ok(span)
}

fn tasks(root: &mut Section<'_>, size: SectorSize) -> Result<Profiles, ClusterError> {
    let mut profiles = published::profiles(size);
    if let Some(entry) = root.optional("tasks") {
        for (name, entry) in entry.section()?.rest() {
            let task = TaskType::from_short(name).filter(|task| TIMED.contains(task));
            let task = task.ok_or_else(|| entry.unknown(format!("tasks with a time: {}", codes(&TIMED))))?;
            let profile = profiles.get_mut(&task).expect("every timed task has a profile");
            task_profile(entry.section()?, profile)?;
        }
    }
    Ok(profiles)
}

fn task_profile(mut section: Section<'_>, profile: &mut TaskProfile) -> Result<(), ClusterError> {
    if let Some(entry) = section.optional("duration") {
        profile.duration = entry.span_above_zero()?;
    }
    if let Some(entry) = section.optional("spread") {
        profile.spread = entry.percent(900)?;
    }
    needs(&mut section, &mut profile.resources)?;
    section.finish()
}

fn machines(root: &mut Section<'_>, tasks: &Profiles) -> Result<Vec<MachineGroup>, ClusterError> {
    let entry = root.required("machine", "write at least one [[machine]]")?;
    let mut groups = Vec::new();
    let mut names = BTreeSet::new();
    let mut sum = 0;
    for each in entry.list()? {
        if groups.len() == GROUPS_MAX {
            return Err(
                each.wrong(format!("at most {GROUPS_MAX} [[machine]]; put equal ones together with count"))
            );
        }
        let group = machine(&each, tasks)?;
        sum += group.count;
        if sum > MACHINES_MAX {
            return Err(
                each.wrong(format!("at most {MACHINES_MAX} machines can be simulated, this makes {sum}"))
            );
        }
        for number in 1..=group.count {
            let name = group.machine_name(number);
            if !names.insert(name.clone()) {
                return Err(
                    each.wrong(format!("a second machine would be called {name}; give it another name"))
                );
            }
        }
        groups.push(group);
    }
    if groups.is_empty() {
        return Err(entry.wrong("write at least one [[machine]]"));
    }
    Ok(groups)
}

fn shared_paths(root: &mut Section<'_>, groups: &[MachineGroup]) -> Result<Vec<SharedPath>, ClusterError> {
    let Some(entry) = root.optional("shared_path") else { return Ok(Vec::new()) };
    let known: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let mut paths: Vec<SharedPath> = Vec::new();
    for each in entry.list()? {
        let mut section = each.section()?;
        let wanted = "name the [[machine]] groups that reach it";
        let reached_by = section.required("machines", wanted)?;
        let mut machines = Vec::new();
        for name in reached_by.list()? {
            let text = name.text()?;
            if !known.contains(&text) {
                return Err(name.wrong(format!("no such [[machine]]; write one of {}", known.join(", "))));
            }
            machines.push(text.to_owned());
        }
        let path = storage_path(section)?;
        if paths.iter().any(|other| other.path.name == path.name) || known.contains(&path.name.as_str()) {
            return Err(
                each.wrong(format!("another path or machine is called {}; rename this one", path.name))
            );
        }
        paths.push(SharedPath { path, machines });
    }
    Ok(paths)
}

fn arrivals(root: &mut Section<'_>, horizon: Millis) -> Result<Vec<Arrivals>, ClusterError> {
    let entry = root.required("arrivals", "write at least one [[arrivals]]")?;
    let (mut streams, mut sum) = (Vec::new(), 0);
    for each in entry.list()? {
        let stream = stream(&each, horizon)?;
        sum += sectors(stream.flow, horizon);
        if sum > SECTORS_MAX.into() {
            return Err(each.wrong(format!(
                "with it {sum} sectors come over the horizon, and at most {SECTORS_MAX} can be simulated"
            )));
        }
        streams.push(stream);
    }
    if streams.is_empty() {
        return Err(entry.wrong("write at least one [[arrivals]]"));
    }
    Ok(streams)
}

/// How many sectors a flow brings over the horizon.
fn sectors(flow: Flow, horizon: Millis) -> u128 {
    match flow {
        Flow::Backlog(sectors) => sectors.into(),
        Flow::Even(per_day) | Flow::Random(per_day) => {
            u128::from(per_day) * u128::from(horizon.get()) / 86_400_000_000
        }
    }
}

fn stream(each: &Entry<'_>, horizon: Millis) -> Result<Arrivals, ClusterError> {
    /// A million sectors a day, in thousandths; far beyond any cluster.
    const PER_DAY_MAX: u64 = 1_000_000_000;
    let mut section = each.section()?;
    let kind = section.required("sectors", "write sectors = \"cc\" or sectors = \"deals\"")?;
    let deals = match kind.text()? {
        "cc" => false,
        "deals" => true,
        _ => return Err(kind.wrong("write \"cc\" or \"deals\"")),
    };
    let pattern = section.optional("pattern");
    let flow = match (section.optional("per_day"), section.optional("backlog")) {
        (Some(rate), None) => {
            let per_day = rate.thousandths(1..=PER_DAY_MAX)?;
            let sectors = sectors(Flow::Even(per_day), horizon);
            if sectors > SECTORS_MAX.into() {
                return Err(rate.wrong(format!(
                    "makes {sectors} sectors over the horizon, and at most {SECTORS_MAX} can be simulated"
                )));
            }
            match pattern.as_ref().map(|entry| entry.text()).transpose()? {
                None | Some("even") => Flow::Even(per_day),
                Some("random") => Flow::Random(per_day),
                Some(_) => {
                    return Err(pattern.expect("it was just read").wrong("write \"even\" or \"random\""));
                }
            }
        }
        (None, Some(backlog)) => {
            if let Some(pattern) = pattern {
                return Err(pattern.wrong("goes with per_day; a backlog is there from the start"));
            }
            Flow::Backlog(backlog.count(1..=SECTORS_MAX)?)
        }
        (Some(_), Some(backlog)) => {
            return Err(backlog.wrong("goes not with per_day; write one of them, or two [[arrivals]]"));
        }
        (None, None) => {
            return Err(section.missing("per_day", "write per_day = 12 or backlog = 500"));
        }
    };
    section.finish()?;
    Ok(Arrivals { deals, flow })
}

fn faults(
    root: &mut Section<'_>,
    groups: &[MachineGroup],
    horizon: Millis,
) -> Result<Vec<Fault>, ClusterError> {
    let Some(entry) = root.optional("fault") else { return Ok(Vec::new()) };
    let list = entry.list()?;
    if list.len() > FAULTS_MAX {
        return Err(entry.wrong(format!("at most {FAULTS_MAX} faults can be simulated")));
    }
    let mut faults: Vec<Fault> = Vec::new();
    for each in list {
        let found = fault(&each, groups, horizon)?;
        let meets =
            |other: &&Fault| other.machine == found.machine && other.from < found.to && found.from < other.to;
        if faults.iter().any(|other| meets(&other)) {
            return Err(each.wrong(format!(
                "meets an earlier fault of {}; a machine has one fault at a time",
                found.machine
            )));
        }
        faults.push(found);
    }
    Ok(faults)
}

fn fault(each: &Entry<'_>, groups: &[MachineGroup], horizon: Millis) -> Result<Fault, ClusterError> {
    let mut section = each.section()?;
    let machine = section.required("machine", "name one machine, such as \"pc1-2\"")?;
    let name = machine.text()?;
    let all = || groups.iter().flat_map(|group| (1..=group.count).map(|number| group.machine_name(number)));
    if !all().any(|known| known == name) {
        let some: Vec<String> = all().take(8).collect();
        return Err(machine.wrong(format!("no such machine; there are {}", some.join(", "))));
    }
    let kind = match (section.optional("down"), section.optional("slow_by")) {
        (Some(down), None) => {
            if !down.flag()? {
                return Err(down.wrong("write true, or leave the fault out"));
            }
            FaultKind::Down
        }
        (None, Some(by)) => FaultKind::Slow(by.thousandths(1_001..=1_000_000)?),
        (Some(_), Some(by)) => return Err(by.wrong("goes not with down; write one of them")),
        (None, None) => return Err(section.missing("down", "write down = true or slow_by = 2.0")),
    };
    let from = section.required("from", "write the time since the start, such as \"2d 6h\"")?.span()?;
    let until = section.required("to", "write the time since the start, such as \"2d 12h\"")?;
    let to = until.span()?;
    if to <= from || from >= horizon {
        return Err(until.wrong("must be later than from, and from must lie within the horizon"));
    }
    section.finish()?;
    Ok(Fault { machine: name.to_owned(), kind, from, to })
}

/// Every step of a sector's life has somebody who does it, and every file a place.
fn can_seal(root: &Section<'_>, cluster: &Cluster) -> Result<(), ClusterError> {
    for task in TASKS {
        if !cluster.machines.iter().any(|group| group.tasks.contains(&task)) {
            let wanted =
                format!("no machine offers {task}, so no sector could ever be finished; add it to one");
            return Err(root.missing("machine.tasks", &wanted));
        }
    }
    let groups = cluster.machines.iter().flat_map(|group| &group.paths);
    let paths = || groups.clone().chain(cluster.shared_paths.iter().map(|shared| &shared.path));
    let local = cluster.machines.iter().map(|group| group.count * group.paths.len() as u64);
    let count = local.sum::<u64>() + cluster.shared_paths.len() as u64;
    if count > PATHS_MAX {
        let wanted =
            format!("at most {PATHS_MAX} paths can be simulated, and this makes {count}; leave some out");
        return Err(root.missing("machine.path", &wanted));
    }
    if !paths().any(|path| path.seal) {
        return Err(root.missing("machine.path", "no path has seal = true, so nothing could be sealed"));
    }
    if !paths().any(|path| path.store) {
        return Err(root.missing("machine.path", "no path has store = true, so nothing could be kept"));
    }
    Ok(())
}
