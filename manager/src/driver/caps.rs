//! Limits beside their use, for people: which hold, who set them, and which were set and hold nothing. Never: sets any.

use std::collections::BTreeMap;

use rpc::operator::{CapView, Overruled};
use sched::{WorkerKey, WorkerUse};
use sealtasks::{TaskCaps, TaskGroup, TaskType};

use super::Driver;
use super::control::identity_of;
use super::fleet::Worker;
use crate::state::{CapChanges, WorkerIdentity};

/// What an operator set, in listings.
const OPERATOR: &str = "operator";

/// What the configuration says.
const CONFIGURED: &str = "config.toml";

/// What the worker was started with.
const OWN: &str = "worker";

/// What runs on each worker, found by its key.
pub(super) struct Uses<'a>(BTreeMap<WorkerKey, &'a WorkerUse>);

impl<'a> Uses<'a> {
    pub(super) fn of(all: &'a [WorkerUse]) -> Self {
        Self(all.iter().map(|used| (used.worker, used)).collect())
    }

    /// What runs on one.
    pub(super) fn get(&self, worker: WorkerKey) -> Option<&'a WorkerUse> {
        self.0.get(&worker).copied()
    }

    /// How many tasks of each type run on these together.
    pub(super) fn counts(&self, workers: &[WorkerKey]) -> Counts {
        let mut counts = BTreeMap::<_, u64>::new();
        for used in workers.iter().filter_map(|worker| self.0.get(worker)) {
            for (kind, count) in &used.task_counts {
                let sum = counts.entry(kind.task).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        Counts(counts)
    }
}

/// How many tasks of each type run on some workers.
pub(super) struct Counts(BTreeMap<TaskType, u64>);

impl Counts {
    fn in_group(&self, group: &TaskGroup) -> u64 {
        let of = group.tasks().iter().filter_map(|task| self.0.get(task));
        of.fold(0, |sum, count| count.saturating_add(sum))
    }
}

impl Driver {
    /// The worker's limits for people.
    pub(super) fn caps_view(&self, worker: &Worker, uses: &Uses<'_>) -> Vec<CapView> {
        let counts = uses.counts(&[worker.key]);
        self.worker_cap_views(&identity_of(worker), &worker.own_caps, &counts)
    }

    /// The limits of every machine that workers share, by what the scheduler knows it by.
    pub(super) fn machine_caps_views(&self, uses: &Uses<'_>) -> BTreeMap<&str, Vec<CapView>> {
        let mut members = BTreeMap::<&str, Vec<WorkerKey>>::new();
        for worker in self.workers.values() {
            if let Some(machine) = &worker.machine {
                members.entry(machine).or_default().push(worker.key);
            }
        }
        let view = |machine: &'_ super::control::Machine| {
            let counts = uses.counts(members.get(machine.key.as_str()).map_or(&[], Vec::as_slice));
            self.machine_cap_views(&machine.name, &counts)
        };
        self.machines.values().map(|machine| (machine.key.as_str(), view(machine))).collect()
    }

    /// The limits in force on a worker that was started with limits of its own.
    pub(super) fn caps_of(&self, identity: &WorkerIdentity, own: &TaskCaps) -> TaskCaps {
        let configured = self.shared.scheduling.worker_caps.of(&identity.name);
        match self.controls.workers.get(identity) {
            Some(control) => control.caps.over(configured).and(own),
            None => configured.and(own),
        }
    }

    /// The limits in force on all workers of a machine together.
    pub(super) fn machine_caps_of(&self, name: &str) -> TaskCaps {
        let configured = self.shared.scheduling.machine_caps.of(name);
        let set = self.controls.machines.get(name);
        set.map_or_else(|| configured.clone(), |set| set.over(configured.clone()))
    }

    /// The same beside their use.
    pub(super) fn worker_cap_views(
        &self,
        identity: &WorkerIdentity,
        own: &TaskCaps,
        counts: &Counts,
    ) -> Vec<CapView> {
        let unchanged = CapChanges::default();
        let set = self.controls.workers.get(identity).map_or(&unchanged, |control| &control.caps);
        let configured = self.shared.scheduling.worker_caps.of(&identity.name);
        cap_views(&self.caps_of(identity, own), &Sources { set, configured: &configured, own }, counts)
    }

    /// The same beside their use.
    pub(super) fn machine_cap_views(&self, name: &str, counts: &Counts) -> Vec<CapView> {
        let unchanged = CapChanges::default();
        let set = self.controls.machines.get(name).unwrap_or(&unchanged);
        let configured = self.shared.scheduling.machine_caps.of(name);
        let own = &TaskCaps::none();
        cap_views(&self.machine_caps_of(name), &Sources { set, configured: &configured, own }, counts)
    }
}

/// Who sets limits.
struct Sources<'a> {
    set: &'a CapChanges,
    configured: &'a TaskCaps,
    own: &'a TaskCaps,
}

impl Sources<'_> {
    /// What holds for these tasks but for the worker's own limit: how many, `None` for no limit, and who said so.
    fn wanted(&self, group: &TaskGroup) -> Option<(Option<u32>, &'static str)> {
        let set = self.set.iter().find(|(changed, _)| *changed == group).map(|(_, most)| (most, OPERATOR));
        set.or_else(|| Some((Some(self.configured.get(group)?), CONFIGURED)))
    }

    fn view(&self, group: &TaskGroup, most: Option<u32>, counts: &Counts) -> CapView {
        let own = self.own.get(group).filter(|own| most == Some(*own));
        let wanted = self.wanted(group);
        let is_over =
            |(wanted, _): &(Option<u32>, &str)| own.is_some_and(|own| wanted.is_none_or(|most| most > own));
        let overruled =
            wanted.filter(is_over).map(|(most, origin)| Overruled { most, origin: origin.to_owned() });
        let origin = if own.is_some() { OWN } else { wanted.map_or(CONFIGURED, |(_, origin)| origin) };
        let (group, running) = (group.clone(), counts.in_group(group));
        CapView { group, running, most, origin: origin.to_owned(), overruled }
    }
}

fn cap_views(in_force: &TaskCaps, sources: &Sources<'_>, counts: &Counts) -> Vec<CapView> {
    let limits = in_force.iter().map(|(group, most)| sources.view(group, Some(most), counts));
    let lifted = sources.set.iter().filter(|(group, most)| most.is_none() && in_force.get(group).is_none());
    let mut views: Vec<_> =
        limits.chain(lifted.map(|(group, _)| sources.view(group, None, counts))).collect();
    views.sort_by(|one, other| one.group.cmp(&other.group));
    views
}
