//! Where files lie and may go, as Lotus's index and selectors answer it: by path, for all of a task's files together.

use std::collections::BTreeMap;

use sealtasks::{AcquireMode, ActorId, FileType, FileTypes, PathType, StorageId};

use crate::{AllocateStep, ExistingRule, FetchStep, Needs, PathFacts, Plan};

pub(super) type PathIdx = usize;

/// All storage paths that were ever named.
#[derive(Debug, Default)]
pub(super) struct Paths {
    ids: BTreeMap<StorageId, PathIdx>,
    all: Vec<Path>,
}

#[derive(Debug)]
struct Path {
    id: StorageId,
    facts: Option<PathFacts>,
    /// Bytes reserved by attempts that no report covers yet.
    reserved: u64,
}

/// A task's selector with the answers that it needs from the index.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    miner: ActorId,
    existing: Option<Held>,
    allocate: Option<(PathType, Vec<(FileType, u64)>)>,
}

#[derive(Clone, Debug)]
struct Held {
    rule: ExistingRule,
    mode: AcquireMode,
    files: Vec<HeldAt>,
}

#[derive(Clone, Debug)]
struct HeldAt {
    kind: FileType,
    bytes: u64,
    paths: Vec<PathIdx>,
}

/// What a selector says of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    No,
    Ok,
    Preferred,
}

/// Room that one attempt reserved.
#[derive(Debug, Default)]
pub(super) struct Reserved(Vec<(PathIdx, u64)>);

impl Paths {
    pub(super) fn intern(&mut self, id: &StorageId) -> PathIdx {
        let next = self.all.len();
        let index = *self.ids.entry(id.clone()).or_insert(next);
        if index == next {
            self.all.push(Path { id: id.clone(), facts: None, reserved: 0 });
        }
        index
    }

    /// A path reported. What its owner now counts itself has to be [covered](Self::cover) first.
    pub(super) fn seen(&mut self, facts: PathFacts) {
        let index = self.intern(&facts.id);
        self.all[index].facts = Some(facts);
    }

    /// Stops counting what an attempt reserved in this path.
    pub(super) fn cover(&mut self, id: &StorageId, reserved: &mut Reserved) {
        let index = self.intern(id);
        let of_path = |part: &(PathIdx, u64)| part.0 == index;
        let bytes = reserved.0.iter().filter(|part| of_path(part)).map(|part| part.1).sum();
        reserved.0.retain(|part| !of_path(part));
        self.give_back(index, bytes);
    }

    pub(super) fn gone(&mut self, id: &StorageId) {
        let index = self.intern(id);
        self.all[index].facts = None;
    }

    pub(super) fn selector(&mut self, miner: ActorId, needs: &Needs) -> Selector {
        let existing = needs.existing.as_ref().map(|existing| Held {
            rule: existing.rule,
            mode: existing.mode,
            files: existing
                .files
                .iter()
                .map(|file| HeldAt {
                    kind: file.kind,
                    bytes: file.bytes,
                    paths: file.held_by.iter().map(|path| self.intern(path)).collect(),
                })
                .collect(),
        });
        let allocate = needs.allocate.as_ref().map(|allocate| {
            (allocate.path_type, allocate.files.iter().map(|file| (file.kind, file.bytes)).collect())
        });
        Selector { miner, existing, allocate }
    }

    /// Lotus's `Ok` for a worker that reaches `paths` and offers the task.
    pub(super) fn verdict(&self, selector: &Selector, paths: &[PathIdx]) -> Verdict {
        if let Some((path_type, files)) = &selector.allocate
            && !self.takes_all(selector, paths, *path_type, files.iter().copied())
        {
            return Verdict::No;
        }
        let Some(existing) = &selector.existing else { return Verdict::Ok };
        let holds = |file: &HeldAt| file.paths.iter().any(|path| paths.contains(path));
        let sizes = || existing.files.iter().map(|file| (file.kind, file.bytes));
        match existing.rule {
            ExistingRule::Here | ExistingRule::PartlyHere(_) => {
                if existing.files.iter().any(holds) {
                    Verdict::Ok
                } else {
                    Verdict::No
                }
            }
            ExistingRule::Fetch(path_type) => {
                let missing = || sizes().zip(&existing.files).filter(|(_, file)| !holds(file));
                let none_missing = missing().next().is_none();
                let fetched = missing().map(|(size, _)| size);
                if none_missing || self.takes_all(selector, paths, path_type, fetched) {
                    Verdict::Ok
                } else {
                    Verdict::No
                }
            }
            ExistingRule::MoveTo(path_type) => {
                let total: u64 = existing.files.iter().map(|file| file.bytes).sum();
                let there = |path: &&PathIdx| existing.files.iter().any(|file| file.paths.contains(path));
                let mut targets = paths.iter().filter(|path| {
                    self.facts_for(**path, path_type).is_some() && self.has_room(**path, total) || {
                        there(path) && self.facts_for(**path, path_type).is_some()
                    }
                });
                match (targets.clone().any(|path| there(&path)), targets.next()) {
                    (true, _) => Verdict::Preferred,
                    (false, Some(_)) => Verdict::Ok,
                    (false, None) => Verdict::No,
                }
            }
        }
    }

    /// How the attempt gets its files on a worker that reaches `paths`, with the room reserved; `None`: a path filled up
    /// since the selector looked.
    pub(super) fn plan(&mut self, selector: &Selector, paths: &[PathIdx]) -> Option<(Plan, Reserved)> {
        let (mut plan, mut reserved) = (Plan::default(), Reserved::default());
        if let Some(existing) = &selector.existing {
            for file in &existing.files {
                let (to_type, must_be) = match existing.rule {
                    ExistingRule::Here => (PathType::Sealing, None),
                    ExistingRule::PartlyHere(to) | ExistingRule::Fetch(to) => (to, None),
                    ExistingRule::MoveTo(to) => (to, Some(to)),
                };
                let good = |path: &&PathIdx| must_be.is_none_or(|to| self.facts_for(**path, to).is_some());
                if file.paths.iter().filter(good).any(|path| paths.contains(path)) {
                    continue;
                }
                let to = self.best(selector.miner, paths, to_type, (file.kind, file.bytes), &reserved)?;
                reserved.0.push((to, file.bytes));
                plan.fetch.push(FetchStep {
                    kind: file.kind,
                    from: file.paths.iter().map(|path| self.all[*path].id.clone()).collect(),
                    to: self.all[to].id.clone(),
                    bytes: file.bytes,
                    mode: existing.mode,
                });
            }
        }
        for (kind, bytes) in selector.allocate.iter().flat_map(|(_, files)| files).copied() {
            let path_type = selector.allocate.as_ref().map_or(PathType::Sealing, |(path_type, _)| *path_type);
            let path = self.best(selector.miner, paths, path_type, (kind, bytes), &reserved)?;
            reserved.0.push((path, bytes));
            plan.allocate.push(AllocateStep { kind, path: self.all[path].id.clone(), bytes });
        }
        for (path, bytes) in &reserved.0 {
            self.all[*path].reserved = self.all[*path].reserved.saturating_add(*bytes);
        }
        Some((plan, reserved))
    }

    /// An attempt is over. What it wrote counts as used until its path reports.
    pub(super) fn release(&mut self, reserved: Reserved) {
        for (path, bytes) in reserved.0 {
            self.give_back(path, bytes);
            if let Some(facts) = &mut self.all[path].facts {
                facts.available = facts.available.saturating_sub_unsigned(bytes);
            }
        }
    }

    fn give_back(&mut self, path: PathIdx, bytes: u64) {
        let reserved = &mut self.all[path].reserved;
        *reserved = reserved.checked_sub(bytes).expect("room is given back where it was reserved");
    }

    /// Whether the paths with room for all the files together accept every one of them between them.
    fn takes_all(
        &self,
        selector: &Selector,
        paths: &[PathIdx],
        path_type: PathType,
        files: impl Iterator<Item = (FileType, u64)> + Clone,
    ) -> bool {
        let total: u64 = files.clone().map(|(_, bytes)| bytes).sum();
        let mut left: FileTypes = files.map(|(kind, _)| kind).collect();
        for path in paths {
            let Some(facts) = self.facts_for(*path, path_type) else { continue };
            if self.has_room(*path, total) && admits(facts, selector.miner) {
                left = left.difference(facts.accepts);
                if left.is_empty() {
                    return true;
                }
            }
        }
        left.is_empty()
    }

    fn facts_for(&self, path: PathIdx, path_type: PathType) -> Option<&PathFacts> {
        self.all[path].facts.as_ref().filter(|facts| {
            facts.healthy
                && match path_type {
                    PathType::Sealing => facts.can_seal,
                    PathType::Storage => facts.can_store,
                }
        })
    }

    fn free(&self, path: PathIdx) -> u64 {
        let facts = self.all[path].facts.as_ref();
        let available = facts.map_or(0, |facts| u64::try_from(facts.available).unwrap_or(0));
        available.saturating_sub(self.all[path].reserved)
    }

    fn has_room(&self, path: PathIdx, bytes: u64) -> bool {
        self.free(path) >= bytes
    }

    fn best(
        &self,
        miner: ActorId,
        paths: &[PathIdx],
        path_type: PathType,
        (kind, bytes): (FileType, u64),
        taken: &Reserved,
    ) -> Option<PathIdx> {
        let score = |path: PathIdx| {
            let facts = self.facts_for(path, path_type)?;
            let given: u64 = taken.0.iter().filter(|part| part.0 == path).map(|part| part.1).sum();
            let free = self.free(path).checked_sub(given).filter(|free| *free >= bytes)?;
            (facts.accepts.contains(kind) && admits(facts, miner))
                .then(|| u128::from(free) * u128::from(facts.weight))
        };
        let scored = paths.iter().filter_map(|path| Some((score(*path)?, *path)));
        scored.max_by_key(|(score, path)| (*score, std::cmp::Reverse(*path))).map(|(_, path)| path)
    }
}

impl Selector {
    /// Whether Lotus would use its task selector: any worker that offers the task.
    pub(super) fn is_task(&self) -> bool {
        self.existing.is_none() && self.allocate.is_none()
    }

    /// Whether the task prepares by fetching.
    pub(super) fn fetches(&self) -> bool {
        self.existing.is_some()
    }

    /// The index learned where a file lies.
    pub(super) fn moved(&mut self, kind: FileType, paths: &[PathIdx]) {
        let files = self.existing.iter_mut().flat_map(|existing| &mut existing.files);
        for file in files.filter(|file| file.kind == kind) {
            file.paths = paths.to_vec();
        }
    }
}

fn admits(facts: &PathFacts, miner: ActorId) -> bool {
    (facts.allow_miners.is_empty() || facts.allow_miners.contains(&miner))
        && !facts.deny_miners.contains(&miner)
}
