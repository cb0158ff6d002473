//! The order of waiting tasks, and the classes they fall into.
//!
//! Tasks that no worker could tell apart (same type, size, miner, needs and file locations) form a class, ordered by
//! key; classes of one type and size form a group. A decision looks at the heads of classes, never at all tasks. A class
//! whose head found no worker is stuck until something it could use changes. A class whose files must be at hand is tied
//! to the paths that hold them: when a worker gets a free slot, only the classes of its own paths are looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use sealtasks::{
    AcquireMode, ActorId, FileType, PathType, RegisteredSealProof, SealTaskType, TaskId, TaskType,
};

use crate::ExistingRule;
use crate::groups::GroupSet;
use crate::index::{self, Index};
use crate::ledger::Ask;
use crate::order::{QueueKey, Seat};
use crate::policy::{Fitting, Rank};
use crate::request::NewFile;
use crate::reservation::Unreservable;
use crate::slab::TaskIdx;
use crate::space::PathIdx;

/// What all tasks of a class share: everything that placement looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassKey {
    pub(crate) task: TaskType,
    pub(crate) proof: RegisteredSealProof,
    pub(crate) miner: ActorId,
    pub(crate) existing: Option<ClassExisting>,
    pub(crate) allocate: Option<(PathType, Vec<NewFile>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassExisting {
    pub(crate) rule: ExistingRule,
    pub(crate) mode: AcquireMode,
    pub(crate) files: Vec<ClassFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassFile {
    pub(crate) kind: FileType,
    pub(crate) bytes: u64,
    /// Sorted, each once.
    pub(crate) held_by: Vec<PathIdx>,
}

impl ClassExisting {
    /// Where one type is named several times, the last word on where it lies holds.
    pub(crate) fn agree(&mut self) {
        for at in (1..self.files.len()).rev() {
            let (before, rest) = self.files.split_at_mut(at);
            for other in before.iter_mut().filter(|other| other.kind == rest[0].kind) {
                other.held_by.clone_from(&rest[0].held_by);
            }
        }
    }
}

impl ClassKey {
    /// The paths without which no worker can have such a task, each perhaps more than once; `None`: any worker may.
    pub(crate) fn ties(&self) -> Option<impl Iterator<Item = PathIdx> + '_> {
        let existing = self.existing.as_ref()?;
        let is_tied = match existing.rule {
            ExistingRule::Here | ExistingRule::PartlyHere(_) => true,
            ExistingRule::Fetch(_) | ExistingRule::MoveTo(_) => false,
        };
        is_tied.then(|| existing.files.iter().flat_map(|file| file.held_by.iter().copied()))
    }

    /// Spreads keys that differ in type, miner or files; the rest is told apart by comparing.
    fn hash(&self) -> u64 {
        let mut hash = index::hash_with(self.task as u64, self.miner.get());
        hash = index::hash_with(hash, self.proof.number() as u64);
        for file in self.existing.iter().flat_map(|existing| &existing.files) {
            hash = file.held_by.iter().fold(index::hash_with(hash, file.bytes), |hash, path| {
                index::hash_with(hash, path.get().into())
            });
        }
        hash
    }
}

/// A class's place. Used again after its last member has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassIdx(u32);

pub(crate) type GroupIdx = usize;

/// Tasks that placement cannot tell apart.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) key: ClassKey,
    pub(crate) group: GroupIdx,
    ready: BTreeMap<Seat, TaskIdx>,
    stuck: bool,
    /// Tasks of the class, ready or not.
    members: u32,
}

impl Class {
    /// Its first ready task.
    pub(crate) fn head(&self) -> Option<(QueueKey, TaskIdx)> {
        self.ready.first_key_value().map(|(seat, task)| (seat.key(self.key.task), *task))
    }

    /// Whether it found no worker and nothing has changed for it since.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    fn head_key(&self) -> Option<QueueKey> {
        self.ready.first_key_value().map(|(seat, _)| seat.key(self.key.task))
    }
}

/// All classes of one task type and size.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Heads of the classes worth trying.
    open: BTreeSet<(QueueKey, ClassIdx)>,
    /// Heads of the classes that found no worker though any might do.
    stuck: BTreeSet<(QueueKey, ClassIdx)>,
    /// Heads of the classes that found no worker where their files are.
    tied: BTreeSet<(QueueKey, ClassIdx)>,
    /// Whether `fitting` and `ranks` are kept: classes wait here, or have waited, that any worker may do.
    pub(crate) is_ranked: bool,
    /// How many workers one more such task fits on now.
    pub(crate) fit_on: usize,
    /// These workers, best first.
    pub(crate) fitting: Fitting,
    /// Per worker slot, its entry in `fitting`.
    pub(crate) ranks: Vec<Option<Rank>>,
    /// Per worker slot, what such a task asks of it; `None`: it does not offer the task.
    pub(crate) asks: Vec<Option<Ask>>,
    /// The workers that offer it.
    pub(crate) offers: BTreeSet<usize>,
    /// Where the next look for a worker to reserve begins.
    pub(crate) look_from: usize,
    /// The task of this group that holds a reservation.
    pub(crate) reserved: Option<TaskId>,
    pub(crate) unreservable: Unreservable,
    /// Bound tasks of this group that wait for a slot.
    pub(crate) staged: BTreeSet<TaskId>,
    /// Heads of its classes that are due.
    due: usize,
    /// Worker slots whose place in `fitting` is out of date. Some stand here twice, or for a worker that has gone.
    pub(crate) behind: Vec<usize>,
}

impl Group {
    /// Whether anybody wants to know on which workers its tasks fit.
    pub(crate) fn is_watched(&self) -> bool {
        let lists = [&self.open, &self.stuck, &self.tied];
        lists.iter().any(|list| !list.is_empty()) || !self.staged.is_empty() || self.reserved.is_some()
    }

    pub(crate) fn open_head(&self) -> Option<(QueueKey, ClassIdx)> {
        self.open.first().copied()
    }

    /// The heads of all its classes in order.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (QueueKey, ClassIdx)> + '_ {
        let mut lists = [&self.open, &self.stuck, &self.tied].map(|list| list.iter().peekable());
        std::iter::from_fn(move || {
            let heads = lists.iter_mut().enumerate().filter_map(|(at, list)| Some((*list.peek()?, at)));
            let (_, first) = heads.min()?;
            lists[first].next().copied()
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
    class_of: Index,
    /// Per path, the stuck classes that are tied to it.
    ties: Vec<BTreeSet<(GroupIdx, ClassIdx)>>,
    /// Groups that fit on some worker.
    pub(crate) fits: GroupSet,
    /// Groups whose first task is due.
    pub(crate) due: GroupSet,
    /// Groups that have staged tasks, or had some.
    pub(crate) staged: GroupSet,
    /// Groups that somebody began to watch while they were out of date.
    pub(crate) waking: Vec<GroupIdx>,
}

impl Queue {
    pub(crate) fn class(&self, class: ClassIdx) -> &Class {
        self.try_class(class).expect("a class lives while it has members")
    }

    /// As [`Queue::class`], for an index that may be out of date.
    pub(crate) fn try_class(&self, class: ClassIdx) -> Option<&Class> {
        self.classes.get(class.0 as usize)?.as_ref()
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
        let hash = key.hash();
        let known = self.class_of.find(hash, |at| self.class(ClassIdx(at.get() - 1)).key == key);
        let index = known.map(|at| ClassIdx(at.get() - 1)).unwrap_or_else(|| {
            let class = Some(Class { key, group, ready: BTreeMap::new(), stuck: false, members: 0 });
            let index = self.free.pop().unwrap_or(ClassIdx(self.classes.len() as u32));
            match self.classes.get_mut(index.0 as usize) {
                Some(place) => *place = class,
                None => self.classes.push(class),
            }
            self.class_of.insert(hash, NonZeroU32::MIN.saturating_add(index.0));
            index
        });
        self.class_mut(index).members += 1;
        index
    }

    /// Ends a membership; the class goes with its last member.
    pub(crate) fn leave(&mut self, class: ClassIdx) {
        let state = self.class_mut(class);
        state.members -= 1;
        if state.members == 0 {
            debug_assert!(state.ready.is_empty(), "a ready task is a member");
            if let Some(state) = self.classes[class.0 as usize].take() {
                self.class_of.remove(state.key.hash(), NonZeroU32::MIN.saturating_add(class.0));
                self.free.push(class);
            }
        }
    }

    /// Makes a member ready. Returns whether the class had no ready task before.
    pub(crate) fn insert(&mut self, class: ClassIdx, key: QueueKey, task: TaskIdx) -> bool {
        let state = self.class_mut(class);
        let was_empty = state.ready.is_empty();
        if was_empty {
            state.stuck = false;
        }
        self.edit(class, |ready| {
            ready.insert(key.seat(), task);
        });
        was_empty
    }

    /// Takes a ready member out of the queue.
    pub(crate) fn remove(&mut self, class: ClassIdx, key: QueueKey) {
        self.edit(class, |ready| {
            let was_there = ready.remove(&key.seat()).is_some();
            debug_assert!(was_there, "a ready task stands in its class");
        });
    }

    /// Sets a class aside until one of the two below lets it be tried again.
    pub(crate) fn stick(&mut self, class: ClassIdx) {
        self.set_stuck(class, true);
    }

    /// Lets the stuck classes of a group that `may` accepts be tried again.
    pub(crate) fn unstick(&mut self, group: GroupIdx, may: impl Fn(&ClassKey) -> bool) {
        let state = &self.groups[group];
        let again: Vec<ClassIdx> = state.stuck.iter().chain(&state.tied).map(|(_, class)| *class).collect();
        for class in again {
            if may(&self.class(class).key) {
                self.set_stuck(class, false);
            }
        }
    }

    /// Lets the stuck classes of a group that a worker with these paths might do be tried again.
    pub(crate) fn unstick_near(&mut self, group: GroupIdx, paths: &[PathIdx]) {
        while let Some((_, class)) = self.groups[group].stuck.first().copied() {
            self.set_stuck(class, false);
        }
        let whole = (group, ClassIdx(0))..=(group, ClassIdx(u32::MAX));
        for path in paths {
            while let Some((_, class)) =
                self.ties.get(path.get() as usize).and_then(|ties| ties.range(whole.clone()).next()).copied()
            {
                self.set_stuck(class, false);
            }
        }
    }

    /// Sees to it that the group's `fitting` is brought up to date before it is used next.
    pub(crate) fn wake(&mut self, group: GroupIdx) {
        if !self.groups[group].behind.is_empty() {
            self.waking.push(group);
        }
    }

    /// All ready tasks in queue order. Costs a sort of all of them: for people, not for decisions.
    pub(crate) fn ready(&self) -> Vec<QueueKey> {
        let classes = self.classes.iter().flatten();
        let mut keys: Vec<_> =
            classes.flat_map(|class| class.ready.keys().map(|seat| seat.key(class.key.task))).collect();
        keys.sort_unstable();
        keys
    }

    /// How many ready tasks there are, how many of them go before this place, and how many of those are of this group.
    /// Costs a pass over all of them: for people.
    pub(crate) fn place(&self, key: &QueueKey, group: GroupIdx) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for class in self.classes.iter().flatten() {
            let ahead = class.ready.keys().filter(|seat| seat.key(class.key.task) < *key).count();
            counts.0 += class.ready.len();
            counts.1 += ahead;
            counts.2 += if class.group == group { ahead } else { 0 };
        }
        counts
    }

    fn class_mut(&mut self, class: ClassIdx) -> &mut Class {
        self.classes[class.0 as usize].as_mut().expect("a class lives while it has members")
    }

    fn set_stuck(&mut self, class: ClassIdx, stuck: bool) {
        let head = self.class(class).head_key();
        self.list(class, head, None);
        self.class_mut(class).stuck = stuck;
        self.list(class, None, head);
    }

    fn edit(&mut self, class: ClassIdx, change: impl FnOnce(&mut BTreeMap<Seat, TaskIdx>)) {
        let state = self.class_mut(class);
        let before = state.head_key();
        change(&mut state.ready);
        let after = state.head_key();
        if before != after {
            self.list(class, before, after);
        }
    }

    /// Lists a class under its new head instead of the old one.
    fn list(&mut self, class: ClassIdx, before: Option<QueueKey>, after: Option<QueueKey>) {
        let Some(state) = &self.classes[class.0 as usize] else { return };
        let group = &mut self.groups[state.group];
        let ties = if state.stuck { state.key.ties() } else { None };
        let list = match (state.stuck, &ties) {
            (false, _) => &mut group.open,
            (true, None) => &mut group.stuck,
            (true, Some(_)) => &mut group.tied,
        };
        if let Some(key) = before {
            list.remove(&(key, class));
            group.due -= usize::from(key.is_due());
        }
        if let Some(key) = after {
            list.insert((key, class));
            group.due += usize::from(key.is_due());
        }
        self.due.set(state.group, group.due > 0);
        if after.is_some() && !group.behind.is_empty() {
            self.waking.push(state.group);
        }
        for path in ties.into_iter().flatten().filter(|_| before.is_some() != after.is_some()) {
            let at = path.get() as usize;
            if self.ties.len() <= at {
                self.ties.resize_with(at + 1, BTreeSet::new);
            }
            match after {
                Some(_) => self.ties[at].insert((state.group, class)),
                None => self.ties[at].remove(&(state.group, class)),
            };
        }
    }
}
