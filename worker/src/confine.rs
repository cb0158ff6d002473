//! Where an executor may run and how much memory it may have: a set of CPUs of its own (whole groups that share an L3
//! cache, the CPUs of a NUMA node, or a list) and a limit on memory by a control group of version 1 or 2.
//!
//! CPUs that this machine cannot give are said once and done without: a task that runs anywhere is better than none. A limit
//! that it cannot give keeps the worker from starting, and a task from running: without it the kernel ends tasks that kept to
//! theirs. Never: another process than an executor, or the worker itself.

mod cpus;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use sealtasks::{ExecutorFailure, FailureClass, TaskType};
use tokio::process::Command;

use crate::error::WorkerError;
use crate::fork;
use memory::{Around, Group};

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
    /// A whole group that shares an L3 cache: one that no worker of this machine uses, else the one with the fewest executors of
    /// ours.
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
    cpus: BTreeSet<usize>,
    /// Its group with a limit on memory.
    group: Option<Group>,
    /// Where it runs if it has no group of its own, as that was when it was given its place.
    around: Option<Around>,
    l3: Option<(usize, Arc<Mutex<Shared>>)>,
    /// Held by the executor, too, which may outlive its worker.
    lock: Option<File>,
}

impl Confiner {
    /// Keeps to these.
    pub fn new(tasks: BTreeMap<TaskType, Confinement>) -> Self {
        Self { tasks, shared: Arc::default() }
    }

    /// Makes sure that the limits that were asked for can be given. Where control groups are of version 2 this process moves
    /// into a group of its own.
    ///
    /// # Errors
    /// They cannot.
    pub(crate) fn prepare(&self) -> Result<(), WorkerError> {
        let largest = self.tasks.values().filter_map(|wanted| wanted.memory).max();
        largest.map_or(Ok(()), |bytes| memory::prepare(Path::new("/"), bytes)).map_err(WorkerError::NoLimit)
    }

    /// A place for an executor of this task; `name` is its group's, which nobody else has.
    ///
    /// # Errors
    /// Its limit on memory cannot be given; why, and what to do.
    pub(crate) fn place(&self, task: TaskType, name: &str) -> Result<Place, String> {
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

    fn place_in(&self, root: &Path, task: TaskType, name: &str) -> Result<Place, String> {
        let nowhere = Confinement::default();
        let wanted = self.tasks.get(&task).unwrap_or(&nowhere);
        let mut place = Place::anywhere();
        match &wanted.cpus {
            None => {}
            Some(CpuChoice::L3) => self.take_l3(root, task, &mut place),
            Some(CpuChoice::List(cpus)) => place.cpus.clone_from(cpus),
            Some(CpuChoice::Node(node)) => match cpus::of_node(root, *node) {
                Some(cpus) => place.cpus = cpus,
                None => self.say(task, &format!("this machine has no NUMA node {node}")),
            },
        }
        match wanted.memory {
            Some(bytes) => place.group = Some(Group::make(root, name, bytes)?),
            None => place.around = Around::now(root),
        }
        Ok(place)
    }

    /// Gives a place the L3 group that suits it best.
    fn take_l3(&self, root: &Path, task: TaskType, place: &mut Place) {
        let first = |group: &BTreeSet<usize>| group.first().copied().unwrap_or_default();
        let mut groups: Vec<_> = cpus::l3_groups(root, &allowed()).into_iter().collect();
        let taken = self.shared().taken.clone();
        groups.sort_by_key(|group| {
            let taken = taken.get(&first(group)).copied().unwrap_or(0);
            (taken, std::cmp::Reverse(group.len()), first(group))
        });
        let free = groups.iter().find_map(|group| match cpus::hold_l3(root, group) {
            Ok(lock) => lock.map(|lock| (group, Some(lock))),
            Err(error) => {
                self.say(task, &format!("whether other workers use CPUs {group:?} cannot be told: {error}"));
                Some((group, None))
            }
        });
        let Some((group, lock)) = free.or_else(|| groups.first().map(|group| (group, None))) else {
            return self.say(task, "the kernel does not tell which CPUs share an L3 cache");
        };
        *self.shared().taken.entry(first(group)).or_default() += 1;
        (place.cpus, place.lock) = (group.clone(), lock);
        place.l3 = Some((first(group), Arc::clone(&self.shared)));
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

impl Place {
    /// All CPUs, and no limit.
    pub(crate) fn anywhere() -> Self {
        Self { cpus: BTreeSet::new(), group: None, around: None, l3: None, lock: None }
    }

    /// Whether it is no place in particular.
    pub(crate) fn is_anywhere(&self) -> bool {
        self.cpus.is_empty() && self.group.is_none() && self.l3.is_none() && self.lock.is_none()
    }

    /// Has an executor that is about to be started begin in its place, and so all that it starts. A CPU that is not there, or
    /// not ours, is left out.
    ///
    /// # Errors
    /// It cannot be put under its limit, or this process has no descriptors left.
    pub(crate) fn keep(&self, command: &mut Command) -> Result<(), String> {
        let door = self.group.as_ref().map(Group::door).transpose()?;
        let mut set = CpuSet::new();
        // The kernel knows no more CPUs than the set has room for.
        let known = self.cpus.iter().filter(|cpu| set.set(**cpu).is_ok()).count();
        fork::put_in(command, (known > 0).then_some(set), door);
        let lock = self.lock.as_ref().map(File::try_clone).transpose();
        if let Some(lock) = lock.map_err(|error| format!("the lock on its CPUs: {error}"))? {
            fork::keep_open(command, lock);
        }
        Ok(())
    }

    /// Says so when an executor that was just started runs elsewhere than on its CPUs.
    pub(crate) fn check(&self, pid: u32) {
        let has = allowed_to(pid);
        if !self.cpus.is_empty() && !has.is_subset(&self.cpus) {
            tracing::warn!(pid, wanted = ?self.cpus, ?has, "an executor could not be kept to its CPUs");
        }
    }

    /// Adds to a failure that the executor, or what it had started, was ended for its limit on memory, or perhaps for that of the
    /// group that it shares with its worker.
    pub(crate) fn explain(&self, task: &str, failure: ExecutorFailure) -> ExecutorFailure {
        let is_open = failure.class == FailureClass::Compute;
        if let Some(counted) = self.around.as_ref().filter(|_| is_open).and_then(Around::has_ended_one) {
            let message = format!(
                "while it ran the kernel ended a process of the worker's control group for want of memory ({}), perhaps this one: {}",
                counted.display(),
                failure.message
            );
            return ExecutorFailure { class: FailureClass::Environment, message };
        }
        let Some(limit) = self.group.as_ref().and_then(Group::exceeded) else { return failure };
        let message = format!(
            "the kernel ended it for taking more memory than its limit of {limit} bytes (`memory` in [executor.{task}] of \
             the worker's config.toml): {}",
            failure.message
        );
        ExecutorFailure { class: FailureClass::Environment, message }
    }
}

/// Whether a process may use the CPUs that this one may, and is in its control groups.
pub(crate) fn like_this_process(pid: u32) -> bool {
    let groups = |of: &str| std::fs::read(format!("/proc/{of}/cgroup")).unwrap_or_default();
    allowed_to(pid) == allowed() && groups(&pid.to_string()) == groups("self")
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
