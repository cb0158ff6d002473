//! Classes of waiting tasks: what placement looks at in a task, and the tasks that are alike in it, in their order.

use std::collections::BTreeMap;
use std::hint::black_box;

use sealtasks::{
    AcquireMode, ActorId, FileType, PathType, RegisteredSealProof, SealingPurpose, TaskType, WorkerId,
};

use crate::ExistingRule;
use crate::few::Few;
use crate::index;
use crate::order::{QueueKey, Seat};
use crate::queue::GroupIdx;
use crate::request::NewFile;
use crate::slab::TaskIdx;
use crate::space::PathIdx;

/// Tasks that placement cannot tell apart. Its fields lie in this order in memory: what each decision looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Class {
    pub(crate) stuck: bool,
    /// Whether only workers that reach certain paths will do.
    pub(crate) is_tied: bool,
    /// Whether its group's list of all heads is to be told of its head.
    pub(crate) is_late: bool,
    /// Whether its group is to look at how long its head has waited.
    pub(crate) is_unread: bool,
    /// Tasks of the class, ready or not.
    pub(crate) members: u32,
    pub(crate) group: GroupIdx,
    /// Its first ready task.
    pub(crate) first: Option<(Seat, TaskIdx)>,
    pub(crate) key: ClassKey,
    /// Its other ready tasks.
    pub(crate) others: BTreeMap<Seat, TaskIdx>,
    /// The head by which it stands in its group's list of all heads.
    pub(crate) listed: Option<Seat>,
}

impl Class {
    pub(crate) fn new(key: ClassKey, group: GroupIdx) -> Self {
        let is_tied = key.ties().is_some();
        Self {
            stuck: false,
            is_tied,
            is_late: false,
            is_unread: false,
            members: 0,
            group,
            first: None,
            key,
            others: BTreeMap::new(),
            listed: None,
        }
    }

    /// Its first ready task.
    pub(crate) fn head(&self) -> Option<(QueueKey, TaskIdx)> {
        self.first.map(|(seat, task)| (seat.key(self.key.task), task))
    }

    /// Whether it found no worker and nothing has changed for it since.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Reads it, so that it is at hand.
    pub(crate) fn touch(&self) {
        black_box((self.members, self.first, self.others.first_key_value(), self.key.miner));
        black_box((self.listed, self.key.allocate.is_some()));
    }

    pub(crate) fn head_seat(&self) -> Option<Seat> {
        self.first.map(|(seat, _)| seat)
    }

    /// Its ready tasks in their order.
    pub(crate) fn ready(&self) -> impl Iterator<Item = Seat> + '_ {
        self.head_seat().into_iter().chain(self.others.keys().copied())
    }

    pub(crate) fn insert(&mut self, seat: Seat, task: TaskIdx) {
        let later = match self.first {
            Some(first) if first.0 < seat => Some((seat, task)),
            first => {
                self.first = Some((seat, task));
                first
            }
        };
        self.others.extend(later);
    }

    pub(crate) fn remove(&mut self, seat: &Seat) {
        if self.head_seat() == Some(*seat) {
            self.first = self.others.pop_first();
        } else {
            let was_there = self.others.remove(seat).is_some();
            debug_assert!(was_there, "a ready task stands in its class");
        }
    }
}

/// What all tasks of a class share: everything that placement looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassKey {
    pub(crate) task: TaskType,
    pub(crate) proof: RegisteredSealProof,
    pub(crate) miner: ActorId,
    pub(crate) existing: Option<ClassExisting>,
    pub(crate) allocate: Option<(PathType, Vec<NewFile>)>,
    /// For what the sector is sealed, where plans have a say.
    pub(crate) purpose: Option<SealingPurpose>,
    /// The worker that is the last choice.
    pub(crate) avoid: Option<WorkerId>,
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
    pub(crate) held_by: Few<PathIdx>,
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
    pub(crate) fn hash(&self) -> u64 {
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
