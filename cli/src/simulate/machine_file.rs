//! The part of a cluster file that describes machines and their storage paths.

use std::collections::{BTreeMap, BTreeSet};

use sched::{GroupCap, WorkerProfile};
use sealtasks::{Resources, TaskType};

use super::cluster::{MachineGroup, StoragePath, TASKS, TIMED, TaskProfile};
use super::needs_file::needs;
use super::reader::{ClusterError, Entry, Section, codes};

/// The most bytes of one thing, an exbibyte: far below what 64 signed bits hold, since room is signed on the wire.
const BYTES_MAX: u64 = 1 << 60;
/// Characters of a name. Names are drawn in charts.
const NAME_CHARS_MAX: usize = 40;
/// The largest groups of equal machines.
const COUNT_MAX: u64 = 2_000;
/// Tasks at once on one machine.
const CAP_MAX: u64 = 100_000;
/// Slowest and fastest machine, in thousandths.
const SPEEDS: std::ops::RangeInclusive<u64> = 10..=100_000;
/// What a fetch runs at where the file does not say: 10 Gbit/s at 95 % goodput.
const BANDWIDTH: u64 = 1_187_500_000;

/// What the file's `tasks` say.
pub type Profiles = BTreeMap<TaskType, TaskProfile>;

/// One `[[machine]]`.
pub fn machine(each: &Entry<'_>, profiles: &Profiles) -> Result<MachineGroup, ClusterError> {
    let mut section = each.section()?;
    let name = name(&section.required("name", "write a name such as \"pc1\"")?)?;
    let count = section.optional("count").map_or(Ok(1), |entry| entry.count(1..=COUNT_MAX))?;
    let cpus =
        section.required("cpus", "write its number of CPU threads")?.count(1..=WorkerProfile::CPUS_MAX)?;
    let memory = size(&section.required("memory", "write its RAM, such as \"512 GiB\"")?)?;
    let memory_used = match section.optional("memory_used") {
        Some(entry) => {
            let used = entry.bytes()?;
            if used > memory {
                return Err(entry.wrong("must be at most memory"));
            }
            used
        }
        None => 0,
    };
    let swap = section.optional("swap").map_or(Ok(0), |entry| bounded(&entry))?;
    let gpus = section.optional("gpus").map_or(Ok(Vec::new()), |entry| gpus(&entry))?;
    let tasks = task_list(&section.required("tasks", "list its tasks, such as [\"PC1\", \"PC2\"]")?, &TASKS)?;
    let group = MachineGroup {
        name,
        count,
        cpus,
        memory,
        memory_used,
        swap,
        gpus,
        caps: per_task(section.optional("caps"), &TASKS, |entry| {
            entry.count(0..=CAP_MAX).map(|cap| cap as u32)
        })?,
        group_caps: group_caps(section.optional("group_caps"))?,
        stagger: per_task(section.optional("stagger"), &TASKS, Entry::span)?,
        speed: speeds(section.optional("speed"))?,
        needs: own_needs(section.optional("needs"), profiles)?,
        bandwidth: match section.optional("bandwidth") {
            Some(entry) => entry.bytes_per_second()?,
            None => BANDWIDTH,
        },
        paths: paths(section.optional("path"))?,
        tasks,
    };
    section.finish()?;
    Ok(group)
}

/// One `[[machine.path]]`, or what is left of one `[[shared_path]]`.
pub fn storage_path(mut section: Section<'_>) -> Result<StoragePath, ClusterError> {
    let name = name(&section.required("name", "write a name such as \"nvme\"")?)?;
    let size = size(&section.required("size", "write its size, such as \"14 TiB\"")?)?;
    let weight = section.optional("weight").map_or(Ok(10), |entry| entry.count(0..=1_000_000))?;
    let seal = section.optional("seal").map_or(Ok(false), |entry| entry.flag())?;
    let store = section.optional("store");
    let is_store = store.as_ref().map_or(Ok(false), |entry| entry.flag())?;
    if !seal && !is_store {
        return Err(section.missing("seal", "write seal = true, store = true, or both"));
    }
    section.finish()?;
    Ok(StoragePath { name, size, weight, seal, store: is_store })
}

fn name(entry: &Entry<'_>) -> Result<String, ClusterError> {
    let text = entry.text()?;
    let fits = !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !fits || !text.chars().all(plain) {
        return Err(
            entry.wrong(format!("write 1 to {NAME_CHARS_MAX} letters, digits, hyphens, underscores or dots"))
        );
    }
    Ok(text.to_owned())
}

fn size(entry: &Entry<'_>) -> Result<u64, ClusterError> {
    let bytes = bounded(entry)?;
    if bytes == 0 { Err(entry.wrong("must be more than nothing")) } else { Ok(bytes) }
}

fn bounded(entry: &Entry<'_>) -> Result<u64, ClusterError> {
    let bytes = entry.bytes()?;
    if bytes > BYTES_MAX { Err(entry.wrong("must be at most 1024 PiB")) } else { Ok(bytes) }
}

/// A number of GPUs, or their names.
fn gpus(entry: &Entry<'_>) -> Result<Vec<String>, ClusterError> {
    let most = WorkerProfile::GPUS_MAX as u64;
    if !entry.is_list() {
        let wanted = format!("write how many, up to {most}, or their names in square brackets");
        let count = entry.count(0..=most).map_err(|_| entry.wrong(wanted))?;
        return Ok((1..=count).map(|number| format!("GPU {number}")).collect());
    }
    let names: Result<Vec<String>, _> =
        entry.list()?.iter().map(|each| each.text().map(str::to_owned)).collect();
    let names = names?;
    if names.len() as u64 > most { Err(entry.wrong(format!("at most {most} are used"))) } else { Ok(names) }
}

fn task_list(entry: &Entry<'_>, known: &[TaskType]) -> Result<Vec<TaskType>, ClusterError> {
    let mut tasks = BTreeSet::new();
    for each in entry.list()? {
        let task = each.task(known)?;
        if !tasks.insert(task) {
            return Err(each.wrong("stands here twice"));
        }
    }
    Ok(tasks.into_iter().collect())
}

/// A table from task codes to values.
fn per_task<'a, T>(
    entry: Option<Entry<'a>>,
    known: &[TaskType],
    value: impl Fn(&Entry<'a>) -> Result<T, ClusterError>,
) -> Result<BTreeMap<TaskType, T>, ClusterError> {
    let Some(entry) = entry else { return Ok(BTreeMap::new()) };
    let mut map = BTreeMap::new();
    for (name, each) in entry.section()?.rest() {
        let task = TaskType::from_short(name).filter(|task| known.contains(task));
        let task = task.ok_or_else(|| each.unknown(format!("tasks: {}", codes(known))))?;
        map.insert(task, value(&each)?);
    }
    Ok(map)
}

/// One factor for every task, or one for each.
fn speeds(entry: Option<Entry<'_>>) -> Result<BTreeMap<TaskType, u64>, ClusterError> {
    match entry {
        Some(entry) if !entry.is_table() => {
            let speed = entry.thousandths(SPEEDS)?;
            Ok(TIMED.into_iter().map(|task| (task, speed)).collect())
        }
        entry => per_task(entry, &TIMED, |each| each.thousandths(SPEEDS)),
    }
}

/// What tasks need here: what the machine says, and else what the file's `tasks` say.
fn own_needs(
    entry: Option<Entry<'_>>,
    profiles: &Profiles,
) -> Result<BTreeMap<TaskType, Resources>, ClusterError> {
    let Some(entry) = entry else { return Ok(BTreeMap::new()) };
    let mut map = BTreeMap::new();
    for (name, each) in entry.section()?.rest() {
        let known = TaskType::from_short(name).and_then(|task| Some((task, profiles.get(&task)?)));
        let (task, profile) = known.ok_or_else(|| each.unknown(format!("tasks: {}", codes(&TIMED))))?;
        let mut resources = profile.resources;
        let mut section = each.section()?;
        needs(&mut section, &mut resources)?;
        section.finish()?;
        map.insert(task, resources);
    }
    Ok(map)
}

fn group_caps(entry: Option<Entry<'_>>) -> Result<Vec<GroupCap>, ClusterError> {
    let Some(entry) = entry else { return Ok(Vec::new()) };
    let mut caps = Vec::new();
    for each in entry.list()? {
        let mut section = each.section()?;
        let tasks = task_list(&section.required("tasks", "list them, such as [\"PC2\", \"C2\"]")?, &TASKS)?;
        let most = section.required("most", "write how many of them at once")?.count(0..=CAP_MAX)?;
        section.finish()?;
        caps.push(GroupCap { name: codes(&tasks), tasks: tasks.into_iter().collect(), most: most as u32 });
    }
    Ok(caps)
}

fn paths(entry: Option<Entry<'_>>) -> Result<Vec<StoragePath>, ClusterError> {
    let Some(entry) = entry else { return Ok(Vec::new()) };
    let mut paths: Vec<StoragePath> = Vec::new();
    for each in entry.list()? {
        let path = storage_path(each.section()?)?;
        if paths.iter().any(|other| other.name == path.name) {
            return Err(each.wrong(format!("another path of this machine is called {}", path.name)));
        }
        paths.push(path);
    }
    Ok(paths)
}
