//! Where an executor may run and how much memory it may have: a set of CPUs of its own (whole groups that share an L3
//! cache, the CPUs of a NUMA node, or a list) and a limit on memory by a control group of version 1 or 2.
//!
//! What this machine cannot give is said once and done without: a task that runs anywhere is better than none.
//! Never: another process than an executor.

mod cpus;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use sealtasks::TaskType;

pub(crate) use memory::Group;

/// What the executors of one task are given; from `[executor.<task>]` of `config.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// On which CPUs.
    pub cpus: Option<CpuChoice>,
    /// The most memory, in bytes.
    pub memory: Option<u64>,
}

/// A choice of CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuChoice {
    /// A whole group that shares an L3 cache, the one with the fewest executors of ours.
    L3,
    /// All of a NUMA node.
    Node(u32),
    /// These.
    List(BTreeSet<usize>),
}

impl std::str::FromStr for CpuChoice {
    type Err = String;

    /// `l3`, `node0`, or a list such as `0-7,64-71`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "l3" {
            return Ok(Self::L3);
        }
        if let Some(node) = text.strip_prefix("node").and_then(|number| number.parse().ok()) {
            return Ok(Self::Node(node));
        }
        cpus::parse_list(text)
            .map(Self::List)
            .ok_or_else(|| format!("{text:?} is no set of CPUs; write l3, node0 or a list such as 0-7,64-71"))
    }
}

/// Gives executors their places. Clones share what is taken.
#[derive(Clone, Debug, Default)]
pub struct Confiner {
    tasks: BTreeMap<TaskType, Confinement>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Executors in each L3 group, by its first CPU.
    taken: BTreeMap<usize, usize>,
    /// What was said already.
    said: BTreeSet<String>,
}

/// The place of one executor. Dropping it gives its CPUs and its group back.
#[derive(Debug)]
pub(crate) struct Place {
    /// The CPUs that it may use; empty = all.
    pub(crate) cpus: BTreeSet<usize>,
    /// Its group with a limit on memory.
    pub(crate) group: Option<Group>,
    l3: Option<(usize, Arc<Mutex<Shared>>)>,
}

impl Confiner {
    /// Keeps to these.
    pub fn new(tasks: BTreeMap<TaskType, Confinement>) -> Self {
        Self { tasks, shared: Arc::default() }
    }

    /// A place for an executor of this task; `name` is its group's, which nobody else has.
    pub(crate) fn place(&self, task: TaskType, name: &str) -> Place {
        self.place_in(Path::new("/"), task, name)
    }

    /// The place of an executor that an earlier life of the worker started; `pid` unless it has ended.
    pub(crate) fn place_again(&self, task: TaskType, name: &str, pid: Option<u32>) -> Place {
        self.place_again_in(Path::new("/"), task, name, pid)
    }

    fn place_again_in(&self, root: &Path, task: TaskType, name: &str, pid: Option<u32>) -> Place {
        let mut place = Place::anywhere();
        place.group = Group::find(root, name, pid);
        let wanted = self.tasks.get(&task).and_then(|wanted| wanted.cpus.as_ref());
        let held = pid.filter(|_| wanted == Some(&CpuChoice::L3)).map(allowed_to).unwrap_or_default();
        let groups = cpus::l3_groups(root, &allowed());
        if let Some(first) =
            groups.into_iter().find(|group| *group == held).and_then(|group| group.first().copied())
        {
            *self.shared().taken.entry(first).or_default() += 1;
            (place.cpus, place.l3) = (held, Some((first, Arc::clone(&self.shared))));
        }
        place
    }

    /// Removes what was made for an executor that nobody goes on with and that has ended.
    pub(crate) fn forget(&self, name: &str) {
        drop(Group::find(Path::new("/"), name, None));
    }

    fn place_in(&self, root: &Path, task: TaskType, name: &str) -> Place {
        let nowhere = Confinement::default();
        let wanted = self.tasks.get(&task).unwrap_or(&nowhere);
        let mut place = Place::anywhere();
        if let Some(choice) = &wanted.cpus {
            match self.choose(root, choice) {
                Ok((cpus, l3)) => {
                    place.cpus = cpus;
                    place.l3 = l3.map(|first| (first, Arc::clone(&self.shared)));
                }
                Err(why) => self.say(task, &why),
            }
        }
        if let Some(bytes) = wanted.memory {
            match Group::make(root, name, bytes) {
                Ok(group) => place.group = Some(group),
                Err(why) => self.say(task, &why),
            }
        }
        place
    }

    /// The CPUs of a choice, and the first of the L3 group that was taken.
    fn choose(&self, root: &Path, choice: &CpuChoice) -> Result<(BTreeSet<usize>, Option<usize>), String> {
        match choice {
            CpuChoice::List(cpus) => Ok((cpus.clone(), None)),
            CpuChoice::Node(node) => {
                let cpus = cpus::of_node(root, *node);
                cpus.map(|cpus| (cpus, None)).ok_or_else(|| format!("this machine has no NUMA node {node}"))
            }
            CpuChoice::L3 => {
                let groups = cpus::l3_groups(root, &allowed());
                let mut shared = self.shared();
                let first = |group: &BTreeSet<usize>| group.first().copied().unwrap_or_default();
                let least = groups.iter().min_by_key(|group| {
                    let taken = shared.taken.get(&first(group)).copied().unwrap_or(0);
                    (taken, std::cmp::Reverse(group.len()), first(group))
                });
                let group = least.ok_or("the kernel does not tell which CPUs share an L3 cache")?.clone();
                *shared.taken.entry(first(&group)).or_default() += 1;
                let first = first(&group);
                Ok((group, Some(first)))
            }
        }
    }

    fn say(&self, task: TaskType, why: &str) {
        if self.shared().said.insert(why.to_owned()) {
            tracing::warn!(
                task = task.short(),
                why,
                "executors run without the place that config.toml asks for"
            );
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((first, shared)) = self.l3.take() else { return };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shared.taken.get_mut(&first) {
            *count = count.saturating_sub(1);
        }
    }
}

/// Puts a process and all that it starts on these CPUs. A CPU that is not there, or not ours, is left out.
pub(crate) fn keep_to(pid: u32, cpus: &BTreeSet<usize>) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    let pid = i32::try_from(pid).map_err(|_| nix::errno::Errno::ESRCH)?;
    sched_setaffinity(Pid::from_raw(pid), &set)
}

impl Place {
    /// All CPUs, and no limit.
    pub(crate) fn anywhere() -> Self {
        Self { cpus: BTreeSet::new(), group: None, l3: None }
    }

    /// Puts an executor that was just started into its place. What cannot be done is said; the executor runs on.
    pub(crate) fn hold(&self, pid: u32) {
        if !self.cpus.is_empty()
            && let Err(error) = keep_to(pid, &self.cpus)
        {
            tracing::warn!(pid, %error, cpus = ?self.cpus, "an executor could not be kept to its CPUs");
        }
        if let Some(group) = &self.group
            && let Err(error) = group.take_in(pid)
        {
            tracing::warn!(pid, %error, "an executor could not be put under its limit on memory");
        }
    }
}

/// The CPUs that this process may use.
fn allowed() -> BTreeSet<usize> {
    allowed_to(0)
}

/// The CPUs that a process may use; 0 = this one.
fn allowed_to(pid: u32) -> BTreeSet<usize> {
    let pid = i32::try_from(pid).unwrap_or(i32::MAX);
    let set = sched_getaffinity(Pid::from_raw(pid)).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// The directory of a group of ours, for tests and messages.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests;
