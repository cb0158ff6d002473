//! The order of waiting tasks, and the classes they fall into.
//!
//! Tasks that no worker could tell apart (same type, size, miner, needs and file locations) form a class, ordered by
//! key; classes of one type and size form a group. A decision looks at the heads of classes, never at all tasks. A class
//! whose head found no worker is stuck until something it could use changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sealtasks::{
    AcquireMode, ActorId, FileType, PathType, RegisteredSealProof, SealTaskType, SectorNumber, TaskId,
    TaskType,
};

use crate::ledger::Ask;
use crate::policy::{Fitting, Rank};
use crate::request::NewFile;
use crate::space::PathIdx;
use crate::{ExistingRule, Millis};

/// A task's place in the queue; smaller goes first. Lotus's order: a task of negative order before all others whatever
/// its priority, then priority, order, sector number. A due task goes before those of its sign that are not due, the
/// one due longest first, so that it cannot be overtaken for ever. Ties end in submission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    not_negative: bool,
    not_due: bool,
    due_at: Millis,
    priority: Reverse<i64>,
    order: i32,
    number: SectorNumber,
    pub(crate) task: TaskId,
}

impl QueueKey {
    pub(crate) fn new(
        task: TaskId,
        kind: TaskType,
        number: SectorNumber,
        priority: i64,
        due_since: Option<Millis>,
    ) -> Self {
        Self {
            not_negative: kind.order() >= 0,
            not_due: due_since.is_none(),
            due_at: due_since.unwrap_or_default(),
            priority: Reverse(priority),
            order: kind.order(),
            number,
            task,
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.not_due
    }
}

/// What all tasks of a class share: everything that placement looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassKey {
    pub(crate) task: TaskType,
    pub(crate) proof: RegisteredSealProof,
    pub(crate) miner: ActorId,
    pub(crate) existing: Option<ClassExisting>,
    pub(crate) allocate: Option<(PathType, Vec<NewFile>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassExisting {
    pub(crate) rule: ExistingRule,
    pub(crate) mode: AcquireMode,
    pub(crate) files: Vec<ClassFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassFile {
    pub(crate) kind: FileType,
    pub(crate) bytes: u64,
    /// Sorted, each once.
    pub(crate) held_by: Vec<PathIdx>,
}

pub(crate) type ClassIdx = usize;
pub(crate) type GroupIdx = usize;

/// Tasks that placement cannot tell apart.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) key: ClassKey,
    pub(crate) group: GroupIdx,
    ready: BTreeSet<QueueKey>,
    stuck: bool,
    /// Tasks of the class, ready or not.
    members: usize,
}

impl Class {
    /// Its first ready task.
    pub(crate) fn head(&self) -> Option<TaskId> {
        self.ready.first().map(|key| key.task)
    }
}

/// All classes of one task type and size.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Heads of the classes worth trying.
    open: BTreeSet<(QueueKey, ClassIdx)>,
    /// Heads of the classes that found no worker.
    stuck: BTreeSet<(QueueKey, ClassIdx)>,
    /// The workers that one more such task fits on now, best first.
    pub(crate) fitting: Fitting,
    /// Per worker slot, its entry in `fitting`.
    pub(crate) ranks: Vec<Option<Rank>>,
    /// Per worker slot, what such a task asks of it; `None`: it does not offer the task.
    pub(crate) asks: Vec<Option<Ask>>,
    /// The task of this group that holds a reservation.
    pub(crate) reserved: Option<TaskId>,
    /// The state of the world in which this task found nothing to reserve.
    pub(crate) unreservable: Option<(TaskId, u64)>,
    /// Bound tasks of this group that wait for a slot.
    pub(crate) staged: BTreeSet<TaskId>,
}

impl Group {
    pub(crate) fn open_head(&self) -> Option<(QueueKey, ClassIdx)> {
        self.open.first().copied()
    }

    /// The first of all waiting tasks of the group.
    pub(crate) fn head(&self) -> Option<(QueueKey, ClassIdx)> {
        self.heads().next()
    }

    /// The heads of all its classes in order.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (QueueKey, ClassIdx)> + '_ {
        let mut open = self.open.iter().peekable();
        let mut stuck = self.stuck.iter().peekable();
        std::iter::from_fn(move || match (open.peek(), stuck.peek()) {
            (Some(a), Some(b)) if a > b => stuck.next().copied(),
            (Some(_), _) => open.next().copied(),
            (None, _) => stuck.next().copied(),
        })
    }
}

/// All groups and classes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) groups: Vec<Group>,
    group_of: BTreeMap<SealTaskType, GroupIdx>,
    classes: Vec<Option<Class>>,
    free: Vec<ClassIdx>,
    class_of: BTreeMap<ClassKey, ClassIdx>,
}

impl Queue {
    pub(crate) fn class(&self, class: ClassIdx) -> &Class {
        self.classes[class].as_ref().expect("a class lives while it has members")
    }

    /// As [`Queue::class`], for an index that may be out of date.
    pub(crate) fn try_class(&self, class: ClassIdx) -> Option<&Class> {
        self.classes.get(class)?.as_ref()
    }

    /// The group's position, and whether it is new.
    pub(crate) fn group(&mut self, kind: SealTaskType) -> (GroupIdx, bool) {
        let next = self.groups.len();
        let index = *self.group_of.entry(kind).or_insert(next);
        if index == next {
            self.groups.push(Group::default());
        }
        (index, index == next)
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = (SealTaskType, GroupIdx)> + '_ {
        self.group_of.iter().map(|(kind, group)| (*kind, *group))
    }

    /// Makes one more task a member of the class with this key.
    pub(crate) fn join(&mut self, key: ClassKey, group: GroupIdx) -> ClassIdx {
        let index = match self.class_of.get(&key) {
            Some(index) => *index,
            None => {
                let class =
                    Class { key: key.clone(), group, ready: BTreeSet::new(), stuck: false, members: 0 };
                let index = match self.free.pop() {
                    Some(index) => {
                        self.classes[index] = Some(class);
                        index
                    }
                    None => {
                        self.classes.push(Some(class));
                        self.classes.len() - 1
                    }
                };
                self.class_of.insert(key, index);
                index
            }
        };
        self.class_mut(index).members += 1;
        index
    }

    /// Ends a membership; the class goes with its last member.
    pub(crate) fn leave(&mut self, class: ClassIdx) {
        let state = self.class_mut(class);
        state.members -= 1;
        if state.members == 0 {
            debug_assert!(state.ready.is_empty(), "a ready task is a member");
            if let Some(state) = self.classes[class].take() {
                self.class_of.remove(&state.key);
                self.free.push(class);
            }
        }
    }

    /// Makes a member ready. Returns whether the class had no ready task before.
    pub(crate) fn insert(&mut self, class: ClassIdx, key: QueueKey) -> bool {
        let was_empty = self.class(class).ready.is_empty();
        if was_empty {
            self.class_mut(class).stuck = false;
        }
        self.edit(class, |ready| {
            ready.insert(key);
        });
        was_empty
    }

    /// Takes a ready member out of the queue.
    pub(crate) fn remove(&mut self, class: ClassIdx, key: QueueKey) {
        self.edit(class, |ready| {
            let was_there = ready.remove(&key);
            debug_assert!(was_there, "a ready task stands in its class");
        });
    }

    /// Sets a class aside until [`Queue::unstick`].
    pub(crate) fn stick(&mut self, class: ClassIdx) {
        self.set_stuck(class, true);
    }

    /// Lets the stuck classes of a group that `may` accepts be tried again.
    pub(crate) fn unstick(&mut self, group: GroupIdx, may: impl Fn(&ClassKey) -> bool) {
        if self.groups[group].stuck.is_empty() {
            return;
        }
        let again: Vec<ClassIdx> = self.groups[group].stuck.iter().map(|(_, class)| *class).collect();
        for class in again {
            if may(&self.class(class).key) {
                self.set_stuck(class, false);
            }
        }
    }

    /// All ready tasks in queue order. Costs a sort of all of them: for people, not for decisions.
    pub(crate) fn ready(&self) -> Vec<QueueKey> {
        let mut keys: Vec<_> =
            self.classes.iter().flatten().flat_map(|class| class.ready.iter().copied()).collect();
        keys.sort_unstable();
        keys
    }

    /// How many ready tasks there are, how many of them go before this place, and how many of those are of this group.
    /// Costs a pass over all of them: for people.
    pub(crate) fn place(&self, key: &QueueKey, group: GroupIdx) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for class in self.classes.iter().flatten() {
            let ahead = class.ready.iter().filter(|other| *other < key).count();
            counts.0 += class.ready.len();
            counts.1 += ahead;
            counts.2 += if class.group == group { ahead } else { 0 };
        }
        counts
    }

    fn class_mut(&mut self, class: ClassIdx) -> &mut Class {
        self.classes[class].as_mut().expect("a class lives while it has members")
    }

    fn set_stuck(&mut self, class: ClassIdx, stuck: bool) {
        self.unlist(class);
        self.class_mut(class).stuck = stuck;
        self.list(class);
    }

    fn edit(&mut self, class: ClassIdx, change: impl FnOnce(&mut BTreeSet<QueueKey>)) {
        let before = self.class(class).ready.first().copied();
        change(&mut self.class_mut(class).ready);
        let state = self.class(class);
        let (after, group, stuck) = (state.ready.first().copied(), state.group, state.stuck);
        if before != after {
            let group = &mut self.groups[group];
            let list = if stuck { &mut group.stuck } else { &mut group.open };
            if let Some(key) = before {
                list.remove(&(key, class));
            }
            if let Some(key) = after {
                list.insert((key, class));
            }
        }
    }

    fn unlist(&mut self, class: ClassIdx) {
        let state = self.class(class);
        let (head, group, stuck) = (state.ready.first().copied(), state.group, state.stuck);
        if let Some(key) = head {
            let group = &mut self.groups[group];
            let list = if stuck { &mut group.stuck } else { &mut group.open };
            list.remove(&(key, class));
        }
    }

    fn list(&mut self, class: ClassIdx) {
        let state = self.class(class);
        let (head, group, stuck) = (state.ready.first().copied(), state.group, state.stuck);
        if let Some(key) = head {
            let group = &mut self.groups[group];
            let list = if stuck { &mut group.stuck } else { &mut group.open };
            list.insert((key, class));
        }
    }
}
