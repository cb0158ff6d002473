//! Workers by slot: what each has, what is charged to it, who is bound to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealtasks::{AttemptId, ResourceTable, SealTaskType, TaskId, TaskType, WorkerId};

use crate::capacity::Capacity;
use crate::estimate::Learned;
use crate::few::Few;
use crate::groups::GroupSet;
use crate::ledger::{Ask, Tally};
use crate::machine::MachineIdx;
use crate::policy::Given;
use crate::queue::GroupIdx;
use crate::slab::TaskIdx;
use crate::space::PathIdx;
use crate::stagger::LastStarts;
use crate::{Millis, Obstacle, WorkerKey, WorkerMode, WorkerProfile};

/// What a worker offers. Workers of one build share one: what is looked at for each slot that becomes free stays in the
/// processor's caches.
pub(crate) type Offered = Arc<[(GroupIdx, Ask)]>;

/// One life of one worker. Its fields lie in this order in memory: what each decision looks at comes first and together, for
/// among ten thousand workers it is in no cache, and what is told to people comes last.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Worker {
    pub(crate) enabled: bool,
    /// Not heard of for a while.
    pub(crate) suspect: bool,
    /// Gone; kept while attempts are bound to it.
    pub(crate) lost: bool,
    /// What an operator allows it.
    pub(crate) mode: WorkerMode,
    /// Whether its profile keeps starts of any type apart.
    pub(crate) staggers: bool,
    /// The machine that it shares with others.
    pub(crate) machine: Option<MachineIdx>,
    pub(crate) reservation: Option<Box<Reservation>>,
    /// For a place that is kept: after this instant fewer tasks may pass the one that it is kept for.
    pub(crate) recheck_after: Option<Millis>,
    /// Fetches for staged tasks that its profile allows at once.
    pub(crate) fetches_max: usize,
    /// The groups whose tasks it offers and what each asks, in the order of the groups.
    pub(crate) offered: Offered,
    /// What is bound to it, in no order.
    pub(crate) bound: Vec<TaskIdx>,
    /// Sorted, each once.
    pub(crate) paths: Few<PathIdx>,
    pub(crate) running: Tally,
    pub(crate) capacity: Capacity,
    /// Those of the groups for which its place is out of date.
    pub(crate) stale: GroupSet,
    /// Those of them of which one more task fits, as far as that is up to date.
    pub(crate) fits: GroupSet,
    /// Those of them in whose lists of fitting workers it stands.
    pub(crate) listed: GroupSet,
    /// The last start of each type.
    pub(crate) last_starts: LastStarts,
    /// How long tasks take here.
    pub(crate) learned: Learned,
    pub(crate) key: WorkerKey,
    pub(crate) staged: Tally,
    pub(crate) staged_tasks: BTreeSet<TaskId>,
    /// The capacity with the memory use seen when nothing of ours ran: what the machine offers when it is idle.
    pub(crate) idle: Capacity,
    /// The machine's device for each of its own.
    pub(crate) devices: Vec<usize>,
    /// How many tasks it was given.
    pub(crate) given: Given,
    pub(crate) profile: WorkerProfile,
}

/// A worker kept for one task.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) task: TaskId,
    pub(crate) made_at: Millis,
    /// When the task is expected to start at the latest.
    pub(crate) start_by: Millis,
    /// What has to end before. At most what runs on one machine.
    pub(crate) waits_for: BTreeSet<AttemptId>,
    /// The room that is kept for its files; none where the task is staged on this worker and holds it already.
    pub(crate) room: Vec<(PathIdx, u64)>,
}

impl Worker {
    /// The longest reason told for a type that is not offered yet, in characters.
    const REASON_MAX: usize = 512;

    pub(crate) fn new(key: WorkerKey, profile: WorkerProfile) -> Self {
        let capacity = Capacity::of(&profile);
        Self {
            enabled: true,
            suspect: false,
            lost: false,
            mode: WorkerMode::Open,
            staggers: !profile.stagger.is_empty(),
            machine: None,
            reservation: None,
            recheck_after: None,
            fetches_max: fetches_max(&profile),
            offered: Offered::from([]),
            bound: Vec::new(),
            paths: Few::None,
            running: Tally::default(),
            capacity,
            stale: GroupSet::default(),
            fits: GroupSet::default(),
            listed: GroupSet::default(),
            last_starts: LastStarts::default(),
            learned: Learned::default(),
            key,
            staged: Tally::default(),
            staged_tasks: BTreeSet::new(),
            idle: capacity,
            devices: Vec::new(),
            given: Given::default(),
            profile,
        }
    }

    /// Takes over a new profile. What is charged stays as it was charged. `is_quiet`: nothing of ours runs on its machine.
    pub(crate) fn change(&mut self, profile: WorkerProfile, is_quiet: bool) {
        let idle = if is_quiet { Capacity::of(&profile) } else { self.idle };
        self.capacity = Capacity::of(&profile);
        self.idle = Capacity { mem_used: idle.mem_used, swap_used: idle.swap_used, ..self.capacity };
        (self.staggers, self.fetches_max) = (!profile.stagger.is_empty(), fetches_max(&profile));
        self.profile = profile;
    }

    /// Takes a task from those that are bound to it.
    pub(crate) fn let_go(&mut self, task: TaskIdx) {
        let place = self.bound.iter().position(|bound| *bound == task);
        self.bound.swap_remove(place.expect("what is bound to a worker is listed there"));
    }

    /// Whether new tasks may come.
    pub(crate) fn is_usable(&self) -> bool {
        self.enabled && !self.lost && !self.suspect && self.mode != WorkerMode::Disabled
    }

    pub(crate) fn reaches(&self, path: PathIdx) -> bool {
        self.paths.binary_search(&path).is_ok()
    }

    /// What a task of a group asks of this worker; `None`: it does not offer it. The same as in the group's own list, which
    /// has an entry for each worker there is and so lies in no cache.
    pub(crate) fn offer(&self, group: GroupIdx) -> Option<&Ask> {
        let at = self.offered.binary_search_by_key(&group, |(group, _)| *group).ok()?;
        Some(&self.offered[at].1)
    }

    /// What such a task asks of this worker, whether it offers the task or not.
    pub(crate) fn ask(&self, kind: SealTaskType, builtin: &ResourceTable) -> Ask {
        let rows = &self.profile.resources;
        let own =
            rows.iter().find(|row| row.task == kind.task && row.proof == kind.proof).map(|row| row.resources);
        let resources = own.or_else(|| builtin.get(kind.task, kind.proof)).unwrap_or_default();
        let cap = self.profile.caps.get(&kind.task).copied();
        Ask::new(kind, &resources, &self.capacity, cap)
    }

    /// The same for a group that is known, most often without a look at the worker's own table.
    pub(crate) fn ask_in(&self, group: GroupIdx, kind: SealTaskType, builtin: &ResourceTable) -> Ask {
        self.offer(group).copied().unwrap_or_else(|| self.ask(kind, builtin))
    }

    /// Why it does not offer the task.
    pub(crate) fn not_offered(&self, task: TaskType) -> Obstacle {
        match self.profile.pending.get(&task) {
            Some(reason) => {
                Obstacle::NotYet { task, reason: reason.chars().take(Self::REASON_MAX).collect() }
            }
            None => Obstacle::NotOffered { task },
        }
    }

    pub(crate) fn offers(&self, task: TaskType) -> bool {
        self.profile.tasks.contains(&task) && !self.profile.pending.contains_key(&task)
    }
}

fn fetches_max(profile: &WorkerProfile) -> usize {
    profile.caps.get(&TaskType::Fetch).map_or(usize::MAX, |cap| *cap as usize)
}

/// All workers. A slot is used again after its worker has gone.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    slots: Vec<Option<Worker>>,
    by_key: BTreeMap<WorkerKey, usize>,
    free: BTreeSet<usize>,
}

impl Workers {
    pub(crate) fn add(&mut self, worker: Worker) -> usize {
        let slot = self.free.pop_first().unwrap_or(self.slots.len());
        self.by_key.insert(worker.key, slot);
        if slot == self.slots.len() {
            self.slots.push(Some(worker));
        } else {
            self.slots[slot] = Some(worker);
        }
        slot
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(worker) = self.slots[slot].take() {
            self.by_key.remove(&worker.key);
            self.free.insert(slot);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn slot(&self, key: WorkerKey) -> Option<usize> {
        self.by_key.get(&key).copied()
    }

    /// The worker in a slot that something refers to.
    pub(crate) fn get(&self, slot: usize) -> &Worker {
        self.slots[slot].as_ref().expect("a slot that is referred to is taken")
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> &mut Worker {
        self.slots[slot].as_mut().expect("a slot that is referred to is taken")
    }

    pub(crate) fn try_get(&self, slot: usize) -> Option<&Worker> {
        self.slots.get(slot)?.as_ref()
    }

    /// All lives of a worker that are here, in their order.
    pub(crate) fn lives(&self, session: WorkerId) -> Vec<WorkerKey> {
        let all = WorkerKey { session, generation: 0 }..=WorkerKey { session, generation: u32::MAX };
        self.by_key.range(all).map(|(key, _)| *key).collect()
    }

    /// In the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Worker)> {
        self.by_key.values().map(|slot| (*slot, self.get(*slot)))
    }
}
