//! Things in numbered places that are used again, and all tasks and all sectors kept so.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::ops;

use sealtasks::{FileTypes, SectorId, TaskId};

use crate::Locks;
use crate::index::{self, Index};
use crate::task::{Sector, Task};

/// All tasks, by their place and by their id.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    slab: Slab<Task>,
    index: Index,
}

/// A task's place, good until the task leaves. Counted from 1, so that `None` costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskIdx(NonZeroU32);

#[cfg(test)]
impl TaskIdx {
    pub(crate) const FIRST: Self = Self(NonZeroU32::MIN);
}

/// All sectors that have tasks, by their place and by their id.
#[derive(Debug, Default)]
pub(crate) struct Sectors {
    slab: Slab<Sector>,
    index: Index,
}

/// A sector's place, good until its last task leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SectorIdx(NonZeroU32);

/// Numbered places; the one that became free last is taken next.
#[derive(Debug)]
struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<NonZeroU32>,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.slab.places.len() - self.slab.free.len()
    }

    pub(crate) fn find(&self, id: TaskId) -> Option<TaskIdx> {
        self.index.find(index::hash(id.get()), |at| self.slab.get(at).id == id).map(TaskIdx)
    }

    /// Reads where the task is found.
    pub(crate) fn touch_index(&self, id: TaskId) {
        self.index.touch(index::hash(id.get()));
    }

    /// The place of a task that something refers to.
    pub(crate) fn at(&self, id: TaskId) -> TaskIdx {
        self.find(id).expect("a task that is referred to is here")
    }

    pub(crate) fn get(&self, id: &TaskId) -> Option<&Task> {
        self.find(*id).map(|at| &self[at])
    }

    /// As the index operator, for a place whose task may have left; it may be another's by now.
    pub(crate) fn try_at(&self, at: TaskIdx) -> Option<&Task> {
        self.slab.places.get(offset(at.0))?.as_ref()
    }

    /// Adds a task whose id is not here.
    pub(crate) fn add(&mut self, task: Task) -> TaskIdx {
        let hash = index::hash(task.id.get());
        let at = self.slab.add(task);
        self.index.insert(hash, at);
        TaskIdx(at)
    }

    pub(crate) fn remove(&mut self, at: TaskIdx) -> Task {
        let task = self.slab.remove(at.0);
        self.index.remove(index::hash(task.id.get()), at.0);
        task
    }

    /// In the order of their ids. Costs a sort of all of them: for people, not for decisions.
    pub(crate) fn sorted(&self) -> Vec<&Task> {
        let mut all: Vec<_> = self.slab.places.iter().flatten().collect();
        all.sort_unstable_by_key(|task| task.id);
        all
    }

    /// Makes the task one of a sector's that has others.
    pub(crate) fn link(&mut self, at: TaskIdx, sector: &mut Sector) {
        let next = std::mem::replace(&mut sector.first, at);
        (self[at].previous, self[at].next) = (None, Some(next));
        self[next].previous = Some(at);
    }

    /// Ends that. Returns whether others are left.
    pub(crate) fn unlink(&mut self, at: TaskIdx, sector: &mut Sector) -> bool {
        let (previous, next) = (self[at].previous, self[at].next);
        match (previous, next) {
            (Some(previous), _) => self[previous].next = next,
            (None, Some(next)) => sector.first = next,
            (None, None) => return false,
        }
        if let Some(next) = next {
            self[next].previous = previous;
        }
        true
    }

    /// The tasks of a sector, in no order that means anything.
    pub(crate) fn of(&self, sector: &Sector) -> impl Iterator<Item = (TaskIdx, &Task)> + '_ {
        let mut next = Some(sector.first);
        std::iter::from_fn(move || {
            let at = next?;
            next = self[at].next;
            Some((at, &self[at]))
        })
    }
}

impl SectorIdx {
    /// Of a task whose sector is not here yet; replaced before anything looks at it.
    pub(crate) const NOT_YET: Self = Self(NonZeroU32::MAX);
}

impl ops::Index<TaskIdx> for Tasks {
    type Output = Task;

    fn index(&self, at: TaskIdx) -> &Task {
        self.slab.get(at.0)
    }
}

impl ops::IndexMut<TaskIdx> for Tasks {
    fn index_mut(&mut self, at: TaskIdx) -> &mut Task {
        self.slab.get_mut(at.0)
    }
}

impl ops::Index<&TaskId> for Tasks {
    type Output = Task;

    fn index(&self, id: &TaskId) -> &Task {
        &self[self.at(*id)]
    }
}

impl Sectors {
    pub(crate) fn find(&self, tasks: &Tasks, id: SectorId) -> Option<SectorIdx> {
        let is = |at| tasks[self.slab.get(at).first].sector.id == id;
        self.index.find(hash_of(id), is).map(SectorIdx)
    }

    /// Adds a sector that is not here, with its first task.
    pub(crate) fn add(&mut self, id: SectorId, first: TaskIdx) -> SectorIdx {
        let at = self.slab.add(Sector::new(first));
        self.index.insert(hash_of(id), at);
        SectorIdx(at)
    }

    /// Reads the sector and its locks, which are then at hand.
    pub(crate) fn touch(&self, at: SectorIdx) {
        black_box(self.slab.get(at.0).busy(Locks { read: FileTypes::NONE, write: FileTypes::UNSEALED }));
    }

    /// Reads where the sector is found.
    pub(crate) fn touch_index(&self, id: SectorId) {
        self.index.touch(hash_of(id));
    }

    pub(crate) fn remove(&mut self, id: SectorId, at: SectorIdx) {
        self.slab.remove(at.0);
        self.index.remove(hash_of(id), at.0);
    }
}

impl ops::Index<SectorIdx> for Sectors {
    type Output = Sector;

    fn index(&self, at: SectorIdx) -> &Sector {
        self.slab.get(at.0)
    }
}

impl ops::IndexMut<SectorIdx> for Sectors {
    fn index_mut(&mut self, at: SectorIdx) -> &mut Sector {
        self.slab.get_mut(at.0)
    }
}

impl<T> Slab<T> {
    fn add(&mut self, thing: T) -> NonZeroU32 {
        if let Some(at) = self.free.pop() {
            self.places[offset(at)] = Some(thing);
            return at;
        }
        self.places.push(Some(thing));
        let count = u32::try_from(self.places.len()).ok().and_then(NonZeroU32::new);
        count.expect("there are far fewer tasks than 32 bits can count")
    }

    fn remove(&mut self, at: NonZeroU32) -> T {
        let thing = self.places[offset(at)].take().expect("what is removed is there");
        self.free.push(at);
        thing
    }

    fn get(&self, at: NonZeroU32) -> &T {
        self.places[offset(at)].as_ref().expect("a place that is referred to is taken")
    }

    fn get_mut(&mut self, at: NonZeroU32) -> &mut T {
        self.places[offset(at)].as_mut().expect("a place that is referred to is taken")
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

fn offset(at: NonZeroU32) -> usize {
    at.get() as usize - 1
}

fn hash_of(id: SectorId) -> u64 {
    index::hash_with(index::hash(id.miner.get()), id.number.get())
}
