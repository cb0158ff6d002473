//! The order of waiting tasks, and the classes they fall into.
//!
//! Tasks that no worker could tell apart (same type, size, miner, needs and file locations) form a class, ordered by
//! key; classes of one type and size form a group. A decision looks at the heads of classes, never at all tasks. A class
//! whose head found no worker is stuck until something it could use changes. A class whose files must be at hand is tied
//! to the paths that hold them: when a worker gets a free slot, only the classes of its own paths are looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Bound;

use sealtasks::{SealTaskType, TaskId, TaskType};

use crate::class::{Class, ClassKey};
use crate::groups::GroupSet;
use crate::heads::Heads;
use crate::index::Index;
use crate::ledger::Ask;
use crate::noted::Noted;
use crate::order::{QueueKey, Seat};
use crate::passing::Passing;
use crate::policy::{Fitting, Rank};
use crate::reservation::Unreservable;
use crate::slab::TaskIdx;
use crate::space::PathIdx;
use crate::waits::Waits;
use crate::yielding::Places;

/// A class's place. Used again after its last member has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassIdx(u32);

#[cfg(test)]
impl ClassIdx {
    pub(crate) fn at(position: u32) -> Self {
        Self(position)
    }
}

pub(crate) type GroupIdx = usize;

/// All classes of one task type and size.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) task: TaskType,
    /// Heads of the classes worth trying.
    pub(crate) open: Heads,
    /// Which of the open ones were not set aside because they let others pass.
    pub(crate) rest: Bound<Seat>,
    /// While all of those let others pass: the ones to look at all the same, the next one last.
    pub(crate) stops: Vec<(Seat, ClassIdx)>,
    /// The classes that found no worker though any might do.
    stuck: BTreeSet<ClassIdx>,
    /// Heads of the classes that are due.
    due: BTreeMap<Seat, ClassIdx>,
    /// Heads of all classes, as far as it is up to date: few look at it, and not at each decision.
    heads: BTreeMap<Seat, ClassIdx>,
    /// Classes whose heads are others than `heads` says.
    late: Noted,
    /// How many classes have ready tasks.
    waiting: usize,
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
    /// Tasks that wait in its classes.
    pub(crate) ready: u64,
    pub(crate) places: Places,
    /// How long its open classes have waited.
    pub(crate) waits: Waits,
    /// Worker slots whose place in `fitting` is out of date. Some stand here twice, or for a worker that has gone.
    pub(crate) behind: Vec<usize>,
}

impl Group {
    fn new(task: TaskType) -> Self {
        Self {
            task,
            open: Heads::default(),
            rest: Bound::Unbounded,
            stops: Vec::new(),
            stuck: BTreeSet::new(),
            due: BTreeMap::new(),
            heads: BTreeMap::new(),
            late: Noted::default(),
            waiting: 0,
            is_ranked: false,
            fit_on: 0,
            fitting: Fitting::default(),
            ranks: Vec::new(),
            asks: Vec::new(),
            offers: BTreeSet::new(),
            look_from: 0,
            reserved: None,
            unreservable: Unreservable::default(),
            staged: BTreeSet::new(),
            ready: 0,
            places: Places::default(),
            waits: Waits::default(),
            behind: Vec::new(),
        }
    }

    /// Whether anybody wants to know on which workers its tasks fit.
    pub(crate) fn is_watched(&self) -> bool {
        self.waiting > 0 || !self.staged.is_empty() || self.reserved.is_some()
    }

    /// Takes a class out of the list of all heads, unless its task heads another class by now.
    fn unlist(&mut self, seat: &Seat, class: ClassIdx) {
        if self.heads.get(seat) == Some(&class) {
            self.heads.remove(seat);
        }
    }

    pub(crate) fn open_head(&self) -> Option<(QueueKey, ClassIdx)> {
        self.open.first().map(|(seat, class)| (seat.key(self.task), class))
    }

    /// The classes worth trying, in the order of their heads.
    pub(crate) fn open_classes(&self) -> impl Iterator<Item = ClassIdx> + '_ {
        self.open.classes()
    }

    /// The heads of its classes that are due, in order.
    pub(crate) fn due_heads(&self) -> impl Iterator<Item = (QueueKey, ClassIdx)> + '_ {
        self.due.iter().map(|(seat, class)| (seat.key(self.task), *class))
    }

    /// The heads of all its classes in order, as of the last call of [`Queue::list_heads`].
    pub(crate) fn heads(&self) -> impl Iterator<Item = (QueueKey, ClassIdx)> + '_ {
        debug_assert!(self.late.is_empty(), "whoever looks brings it up to date first");
        self.heads.iter().map(|(seat, class)| (seat.key(self.task), *class))
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
    /// Per path, the stuck classes that are tied to it, sorted. One piece of memory each: a path has few.
    ties: Vec<Vec<(GroupIdx, ClassIdx)>>,
    /// Who lets others pass in this settle step.
    pub(crate) passing: Passing,
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
            self.groups.push(Group::new(kind.task));
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
            let class = Some(Class::new(key, group));
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
            debug_assert!(state.first.is_none(), "a ready task is a member");
            if let Some(state) = self.classes[class.0 as usize].take() {
                if let Some(listed) = state.listed {
                    self.groups[state.group].unlist(&listed, class);
                }
                self.class_of.remove(state.key.hash(), NonZeroU32::MIN.saturating_add(class.0));
                self.free.push(class);
            }
        }
    }

    /// Makes a member ready. Returns whether the class had no ready task before.
    pub(crate) fn insert(&mut self, class: ClassIdx, key: QueueKey, task: TaskIdx) -> bool {
        let state = self.class_mut(class);
        let was_empty = state.first.is_none();
        if was_empty {
            state.stuck = false;
        }
        let group = state.group;
        self.before_insert(group);
        self.groups[group].ready += 1;
        self.edit(class, |state| state.insert(key.seat(), task));
        was_empty
    }

    /// Takes a ready member out of the queue.
    pub(crate) fn remove(&mut self, class: ClassIdx, key: QueueKey) {
        let group = self.class(class).group;
        self.before_remove(group, &key.seat());
        self.groups[group].ready -= 1;
        self.edit(class, |state| state.remove(&key.seat()));
    }

    /// Sets a class aside until one of the three below lets it be tried again.
    pub(crate) fn stick(&mut self, class: ClassIdx) {
        self.set_stuck(class, true);
    }

    /// Lets a class be tried again, if it is still here.
    pub(crate) fn try_again(&mut self, class: ClassIdx) {
        if self.try_class(class).is_some_and(Class::is_stuck) {
            self.set_stuck(class, false);
        }
    }

    /// Lets the stuck classes that `may` accepts be tried again. Costs a look at every class.
    pub(crate) fn unstick(&mut self, may: impl Fn(&ClassKey) -> bool) {
        self.before_unstick();
        for at in 0..self.classes.len() {
            let waits = |state: &&Class| state.stuck && state.first.is_some() && may(&state.key);
            if self.classes[at].as_ref().is_some_and(|state| waits(&state)) {
                self.set_stuck(ClassIdx(at as u32), false);
            }
        }
    }

    /// Lets the stuck classes of a group that a worker with these paths might do be tried again.
    pub(crate) fn unstick_near(&mut self, group: GroupIdx, paths: &[PathIdx]) {
        self.before_unstick_in(group);
        while let Some(class) = self.groups[group].stuck.first().copied() {
            self.set_stuck(class, false);
        }
        for path in paths {
            let at = path.get() as usize;
            while let Some(ties) = self.ties.get(at)
                && let Some((of, class)) = ties.get(ties.partition_point(|tie| tie.0 < group)).copied()
                && of == group
            {
                self.set_stuck(class, false);
            }
        }
    }

    /// A stuck class of this group that is tied to this path.
    pub(crate) fn tied_to(&self, path: PathIdx, group: GroupIdx) -> Option<ClassIdx> {
        let ties = self.ties.get(path.get() as usize)?;
        ties.iter().find(|(of, _)| *of == group).map(|(_, class)| *class)
    }

    /// Brings the group's list of all heads up to date.
    pub(crate) fn list_heads(&mut self, group: GroupIdx) {
        let late = self.groups[group].late.take();
        for class in late.iter().copied() {
            let it = self.classes[class.0 as usize].as_mut().filter(|it| it.group == group && it.is_late);
            let Some(it) = it else { continue };
            it.is_late = false;
            let head = it.head_seat();
            if it.listed != head {
                let state = &mut self.groups[group];
                if let Some(before) = it.listed {
                    state.unlist(&before, class);
                }
                state.heads.extend(head.map(|seat| (seat, class)));
                it.listed = head;
            }
        }
        self.groups[group].late.give_back(late);
    }

    /// The first task of a class of this group whose wait is to be looked at, which it is now.
    pub(crate) fn read(&mut self, class: ClassIdx, group: GroupIdx) -> Option<TaskIdx> {
        let it = self.classes[class.0 as usize].as_mut().filter(|it| it.group == group && it.is_unread)?;
        it.is_unread = false;
        it.head().map(|(_, task)| task)
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
            classes.flat_map(|class| class.ready().map(|seat| seat.key(class.key.task))).collect();
        keys.sort_unstable();
        keys
    }

    /// How many ready tasks there are, how many of them go before this place, and how many of those are of this group.
    /// Costs a pass over all of them: for people.
    pub(crate) fn place(&self, key: &QueueKey, group: GroupIdx) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for class in self.classes.iter().flatten() {
            let ahead = class.ready().filter(|seat| seat.key(class.key.task) < *key).count();
            counts.0 += class.ready().count();
            counts.1 += ahead;
            counts.2 += if class.group == group { ahead } else { 0 };
        }
        counts
    }

    fn class_mut(&mut self, class: ClassIdx) -> &mut Class {
        self.classes[class.0 as usize].as_mut().expect("a class lives while it has members")
    }

    fn set_stuck(&mut self, class: ClassIdx, stuck: bool) {
        let head = self.class(class).head_seat();
        self.list(class, head, None);
        self.class_mut(class).stuck = stuck;
        self.list(class, None, head);
    }

    /// Changes the ready tasks of a class and lists it under its new head instead of the old one.
    fn edit(&mut self, class: ClassIdx, change: impl FnOnce(&mut Class)) {
        let state = self.classes[class.0 as usize].as_mut().expect("a class lives while it has members");
        let before = state.head_seat();
        change(state);
        let after = state.head_seat();
        if before == after {
            return;
        }
        let (at, is_late) = (state.group, std::mem::replace(&mut state.is_late, true));
        let group = &mut self.groups[at];
        if !is_late {
            group.late.note(class, |class| is_one(&self.classes, class, |it| it.group == at && it.is_late));
        }
        let is_due = |seat: &Option<Seat>| seat.is_some_and(|seat| seat.is_due());
        if is_due(&before) || is_due(&after) {
            before.and_then(|seat| group.due.remove(&seat));
            group.due.extend(after.filter(Seat::is_due).map(|seat| (seat, class)));
            self.due.set(at, !group.due.is_empty());
        }
        match (before, after) {
            (None, Some(_)) => group.waiting += 1,
            (Some(_), None) => group.waiting -= 1,
            _ => {}
        }
        if after.is_some() && !group.behind.is_empty() {
            self.waking.push(at);
        }
        self.list(class, before, after);
    }

    /// Lists a class among those that are open, stuck or tied under its new head instead of the old one.
    fn list(&mut self, class: ClassIdx, before: Option<Seat>, after: Option<Seat>) {
        let Some(state) = &mut self.classes[class.0 as usize] else { return };
        let group = &mut self.groups[state.group];
        match (state.stuck, state.is_tied) {
            (false, is_tied) => {
                group.open.relist(class, before, after);
                if is_tied {
                    group.waits.note_tied(before, after);
                } else if after.is_some() && !std::mem::replace(&mut state.is_unread, true) {
                    let at = state.group;
                    let is_due = |class| is_one(&self.classes, class, |it| it.group == at && it.is_unread);
                    group.waits.note(class, is_due);
                }
            }
            _ if before.is_some() == after.is_some() => {}
            (true, false) if after.is_some() => {
                group.stuck.insert(class);
            }
            (true, false) => {
                group.stuck.remove(&class);
            }
            (true, true) => {
                for path in state.key.ties().into_iter().flatten() {
                    let at = path.get() as usize;
                    if self.ties.len() <= at {
                        self.ties.resize_with(at + 1, Vec::new);
                    }
                    let (ties, tie) = (&mut self.ties[at], (state.group, class));
                    match (ties.binary_search(&tie), after) {
                        (Err(place), Some(_)) => ties.insert(place, tie),
                        (Ok(place), None) => {
                            ties.remove(place);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Whether a class is here and like that.
fn is_one(classes: &[Option<Class>], class: ClassIdx, like: impl Fn(&Class) -> bool) -> bool {
    classes.get(class.0 as usize).and_then(Option::as_ref).is_some_and(like)
}

#[cfg(test)]
mod tests {
    use sealtasks::{ActorId, RegisteredSealProof, SectorNumber};

    use super::*;

    /// When a sector's file comes to another path, its waiting task goes to another class with the seat it had.
    #[test]
    fn a_task_that_changes_its_class_stays_in_the_list_of_heads() {
        let (mut queue, task) = (Queue::default(), TaskType::PreCommit2);
        let proof = RegisteredSealProof::all().next().expect("some proof");
        let (group, _) = queue.group(SealTaskType { proof, task });
        let [here, there] = [1, 2].map(|miner| {
            let miner = ActorId::new(miner);
            let key =
                ClassKey { task, proof, miner, existing: None, allocate: None, purpose: None, avoid: None };
            queue.join(key, group)
        });
        let key = |id| Seat::new(TaskId::new(id), SectorNumber::new(id), 0, None).key(task);
        queue.insert(here, key(1), TaskIdx::FIRST);
        queue.insert(there, key(2), TaskIdx::FIRST);
        queue.list_heads(group);
        queue.remove(there, key(2));
        queue.remove(here, key(1));
        queue.insert(there, key(1), TaskIdx::FIRST);
        queue.list_heads(group);
        assert_eq!(queue.groups[group].heads().collect::<Vec<_>>(), vec![(key(1), there)]);
    }
}
