//! Storage paths: who reaches them, how much room is promised in each, and which one a file should go to.
//!
//! A path's room is counted once. What its owner reports as available already misses what the owner has reserved; the
//! promises made here are subtracted only until a report covers them.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use sealtasks::{ActorId, FileType, PathType, StorageId};

use crate::PathFacts;
use crate::few::Few;
use crate::index::{self, Index};

/// A path's position in [`Paths`]. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PathIdx(u32);

impl PathIdx {
    pub(crate) fn get(self) -> u32 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn at(position: u32) -> Self {
        Self(position)
    }
}

/// All storage paths that were ever named.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    ids: Index,
    all: Vec<Path>,
}

#[derive(Debug)]
pub(crate) struct Path {
    id: StorageId,
    facts: Option<PathFacts>,
    promised: u128,
    /// Kept for tasks that hold a reservation.
    kept: u128,
    /// Slots of the workers that reach it.
    workers: Few<usize>,
}

/// Room that is promised. Consumed when it is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct SpaceHold(Few<Promise>);

#[derive(Debug)]
struct Promise {
    path: PathIdx,
    bytes: u64,
    covered: bool,
}

/// What became of promised room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// Nothing was written.
    No,
    /// Files may lie there now; until the next report the room counts as gone.
    Perhaps,
}

/// One file that looks for a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) kind: FileType,
    pub(crate) bytes: u64,
    pub(crate) path_type: PathType,
    pub(crate) miner: ActorId,
    /// Groups that the path must share one of; `None`: any path.
    pub(crate) groups: Option<&'a BTreeSet<&'a str>>,
}

impl Paths {
    /// Beyond this many distinct paths new ones are refused: the largest installations have some thousands.
    pub(crate) const MOST: usize = 1 << 16;

    /// The path's position; `None` when it would be one too many.
    pub(crate) fn intern(&mut self, id: &StorageId) -> Option<PathIdx> {
        if let Some(index) = self.find(id) {
            return Some(index);
        }
        if self.all.len() >= Self::MOST {
            return None;
        }
        let index = PathIdx(self.all.len() as u32);
        self.ids.insert(index::hash_text(id.as_str()), NonZeroU32::MIN.saturating_add(index.0));
        self.all.push(Path { id: id.clone(), facts: None, promised: 0, kept: 0, workers: Few::None });
        Some(index)
    }

    pub(crate) fn find(&self, id: &StorageId) -> Option<PathIdx> {
        let found =
            self.ids.find(index::hash_text(id.as_str()), |at| self.all[at.get() as usize - 1].id == *id);
        found.map(|at| PathIdx(at.get() - 1))
    }

    pub(crate) fn get(&self, path: PathIdx) -> &Path {
        &self.all[path.0 as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.all.iter()
    }

    pub(crate) fn set_facts(&mut self, path: PathIdx, facts: Option<PathFacts>) {
        self.all[path.0 as usize].facts = facts;
    }

    pub(crate) fn set_reach(&mut self, path: PathIdx, worker: usize, reaches: bool) {
        let workers = &mut self.all[path.0 as usize].workers;
        if reaches {
            workers.insert_sorted(worker)
        } else {
            workers.remove(&worker)
        };
    }

    /// Promises this room. Whoever asks has looked, or adopts what is there.
    pub(crate) fn promise(&mut self, parts: &[(PathIdx, u64)]) -> SpaceHold {
        let mut hold = SpaceHold::default();
        for (path, bytes) in parts {
            self.all[path.0 as usize].promised += u128::from(*bytes);
            hold.0.push(Promise { path: *path, bytes: *bytes, covered: false });
        }
        hold
    }

    /// Keeps this room for a task that will come.
    pub(crate) fn keep(&mut self, room: &[(PathIdx, u64)]) {
        for (path, bytes) in room {
            self.all[path.0 as usize].kept += u128::from(*bytes);
        }
    }

    /// Ends that.
    pub(crate) fn keep_no_more(&mut self, room: &[(PathIdx, u64)]) {
        for (path, bytes) in room {
            let kept = &mut self.all[path.0 as usize].kept;
            *kept = kept.checked_sub(u128::from(*bytes)).expect("room that is no more kept was kept");
        }
    }

    /// Stops counting the part of `hold` that the path's owner now counts itself.
    pub(crate) fn cover(&mut self, hold: &mut SpaceHold, path: PathIdx) {
        for promise in hold.0.iter_mut().filter(|promise| promise.path == path && !promise.covered) {
            promise.covered = true;
            self.take_back(path, promise.bytes);
        }
    }

    /// Gives the room back.
    pub(crate) fn release(&mut self, hold: SpaceHold, used: Used) {
        for promise in hold.0.iter().filter(|promise| !promise.covered) {
            self.take_back(promise.path, promise.bytes);
            if let (Used::Perhaps, Some(facts)) = (used, &mut self.all[promise.path.0 as usize].facts) {
                facts.available = facts.available.saturating_sub_unsigned(promise.bytes);
            }
        }
    }

    fn take_back(&mut self, path: PathIdx, bytes: u64) {
        let promised = &mut self.all[path.0 as usize].promised;
        *promised = promised.checked_sub(bytes.into()).expect("room is released where it was promised");
    }

    /// The best of these paths for one file: the most free bytes times weight. `taken` is room that the same plan has
    /// already given away.
    pub(crate) fn best(
        &self,
        candidates: impl IntoIterator<Item = PathIdx>,
        wanted: &Wanted<'_>,
        taken: &[(PathIdx, u64)],
    ) -> Option<PathIdx> {
        let mut best: Option<(u128, PathIdx)> = None;
        for index in candidates {
            let path = self.get(index);
            let Some(facts) = path.facts.as_ref().filter(|facts| takes(facts, wanted)) else { continue };
            let given: u128 =
                taken.iter().filter(|(path, _)| *path == index).map(|(_, bytes)| u128::from(*bytes)).sum();
            let free = path.free().saturating_sub(given);
            if free < u128::from(wanted.bytes) {
                continue;
            }
            let score = free.saturating_mul(facts.weight.into());
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// The paths that would take the file if nothing else were laid there, best first, and the room in each.
    pub(crate) fn takers(
        &self,
        candidates: impl IntoIterator<Item = PathIdx>,
        wanted: &Wanted<'_>,
    ) -> Vec<(PathIdx, u128)> {
        let mut takers: Vec<(u128, PathIdx, u128)> = Vec::new();
        for index in candidates {
            let path = self.get(index);
            let Some(facts) = path.facts.as_ref().filter(|facts| takes(facts, wanted)) else { continue };
            let free = path.free();
            if free >= u128::from(wanted.bytes) {
                takers.push((free.saturating_mul(facts.weight.into()), index, free));
            }
        }
        takers.sort_by_key(|(score, index, _)| (std::cmp::Reverse(*score), *index));
        takers.into_iter().map(|(_, index, free)| (index, free)).collect()
    }
}

impl Path {
    pub(crate) fn id(&self) -> &StorageId {
        &self.id
    }

    pub(crate) fn facts(&self) -> Option<&PathFacts> {
        self.facts.as_ref()
    }

    pub(crate) fn workers(&self) -> &[usize] {
        &self.workers
    }

    /// Bytes promised here and not yet covered by a report.
    pub(crate) fn promised(&self) -> u128 {
        self.promised
    }

    /// Bytes kept for tasks that hold a reservation.
    pub(crate) fn kept(&self) -> u128 {
        self.kept
    }

    /// Bytes that can still be promised.
    pub(crate) fn free(&self) -> u128 {
        let available = self.facts.as_ref().map_or(0, |facts| u128::try_from(facts.available).unwrap_or(0));
        available.saturating_sub(self.promised).saturating_sub(self.kept)
    }

    /// Whether files of this use may lie here.
    pub(crate) fn is_for(&self, path_type: PathType) -> bool {
        self.facts.as_ref().is_some_and(|facts| is_for(facts, path_type))
    }
}

impl SpaceHold {
    pub(crate) fn parts(&self) -> impl Iterator<Item = (PathIdx, u64)> + '_ {
        self.0.iter().filter(|promise| !promise.covered).map(|promise| (promise.path, promise.bytes))
    }
}

fn is_for(facts: &PathFacts, path_type: PathType) -> bool {
    match path_type {
        PathType::Sealing => facts.can_seal,
        PathType::Storage => facts.can_store,
    }
}

/// Whether a path takes such a file at all, room apart.
fn takes(facts: &PathFacts, wanted: &Wanted<'_>) -> bool {
    let miner = &wanted.miner;
    facts.healthy
        && is_for(facts, wanted.path_type)
        && facts.accepts.contains(wanted.kind)
        && (facts.allow_miners.is_empty() || facts.allow_miners.contains(miner))
        && !facts.deny_miners.contains(miner)
        && wanted.groups.is_none_or(|groups| facts.groups.iter().any(|group| groups.contains(group.as_str())))
}
