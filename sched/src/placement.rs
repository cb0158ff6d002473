//! Which worker a task goes to, and with which files and room.
//!
//! Among the workers that its resources fit on, the one that takes the least time to move its files; at equal time the
//! best rank. Work is kept small by looking first at the few workers that hold the files.

use std::collections::BTreeSet;

use sealtasks::{FileType, PathType};

use crate::class::{ClassExisting, ClassFile, ClassKey};
use crate::few::Few;
use crate::packing::{self, Asked};
use crate::policy::Rank;
use crate::queue::GroupIdx;
use crate::shortage::told;
use crate::space::{PathIdx, Wanted};
use crate::worker::Worker;
use crate::{AllocateStep, ExistingRule, FetchStep, Millis, Obstacle, Plan, Sched};

/// A plan whose paths are not yet named.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    fetch: Few<Fetch>,
    /// All room that the plan takes: for fetched files and for new ones.
    taken: Few<(PathIdx, u64)>,
    allocate: Few<(FileType, PathIdx, u64)>,
    pub(crate) moved: u64,
    laying: Laying,
}

/// How a plan's files find their paths.
#[derive(Debug, Default)]
enum Laying {
    /// Each the best one that the files before it leave.
    #[default]
    InTurn,
    /// Not yet: where each could lie alone is written down.
    Asking(Vec<Asked>),
    /// As was found by looking at all of them together.
    Together(Vec<PathIdx>),
}

#[derive(Debug)]
struct Fetch {
    kind: FileType,
    from: Few<PathIdx>,
    to: PathIdx,
    bytes: u64,
}

impl Draft {
    /// What decides among workers: the time to move the files there, then the policy.
    pub(crate) fn score(&self, rank: &Rank) -> (Millis, Rank) {
        (rank.speed.time(self.moved), *rank)
    }

    pub(crate) fn room(&self) -> &[(PathIdx, u64)] {
        &self.taken
    }
}

impl ClassKey {
    /// Whether free room in some path could matter.
    pub(crate) fn needs_room(&self) -> bool {
        let fetches = |existing: &ClassExisting| existing.rule != ExistingRule::Here;
        self.allocate.is_some() || self.existing.as_ref().is_some_and(fetches)
    }

    /// Whether a file that the task reads lies in this path.
    pub(crate) fn is_held_by(&self, path: PathIdx) -> bool {
        let files = self.existing.iter().flat_map(|existing| &existing.files);
        files.into_iter().any(|file| file.held_by.binary_search(&path).is_ok())
    }

    /// Whether news about this path could make a difference.
    pub(crate) fn cares_for(&self, path: PathIdx) -> bool {
        self.needs_room() || self.is_held_by(path)
    }
}

impl Sched {
    /// The best worker for the head of a class among those its resources fit on, if it may be this one.
    pub(crate) fn pick(
        &self,
        key: &ClassKey,
        group: GroupIdx,
        may: impl Fn(usize) -> bool,
    ) -> Option<(usize, Draft)> {
        /// With more holders than this it is cheaper to walk the fitting workers, best first.
        const HOLDERS_MAX: usize = 64;
        let allowed = |slot: &usize| may(*slot);
        let Some(existing) = &key.existing else {
            let try_on = |slot: usize| Some((slot, self.passing_plan(key, group, slot)?));
            // Most often the first one will do.
            let first = self.first_fitting(group).map(|rank| rank.worker).filter(allowed).and_then(try_on);
            return first.or_else(|| {
                self.all_fitting(group).map(|rank| rank.worker).filter(allowed).find_map(try_on)
            });
        };
        let is_tied = key.ties().is_some();
        let holders = self.holders(existing);
        if holders.len() > HOLDERS_MAX && !is_tied {
            return self.pick_by_rank(
                key,
                group,
                self.all_fitting(group).filter(|rank| allowed(&rank.worker)),
            );
        }
        let ranked = holders.iter().copied().filter(allowed).filter_map(|slot| self.rank_in(slot, group));
        if holders.len() > HOLDERS_MAX {
            let mut ranked: Vec<_> = ranked.collect();
            ranked.sort_unstable();
            return self.pick_by_rank(key, group, ranked.into_iter());
        }
        let planned = ranked.filter_map(|rank| Some((rank, self.passing_plan(key, group, rank.worker)?)));
        let near = planned.min_by_key(|(rank, draft)| draft.score(rank));
        let is_here = near.as_ref().is_some_and(|(_, draft)| draft.moved == 0);
        if is_tied || is_here {
            return near.map(|(rank, draft)| (rank.worker, draft));
        }
        // All of them would move everything, so the first that can is the best.
        let others = self.fastest_fitting(group).filter(|rank| allowed(&rank.worker));
        let mut others = others.filter(|rank| !holders.contains(&rank.worker));
        let far = others.find_map(|rank| Some((rank, self.passing_plan(key, group, rank.worker)?)));
        let best = near.into_iter().chain(far).min_by_key(|(rank, draft)| draft.score(rank));
        best.map(|(rank, draft)| (rank.worker, draft))
    }

    /// The best worker but the one that such a task has just failed on, if there is such a one. Files that lie there are moved:
    /// whatever it is that fails there, the next attempt does not meet it.
    pub(crate) fn pick_elsewhere(&self, key: &ClassKey, group: GroupIdx) -> Option<(usize, Draft)> {
        let failed = key.avoid?;
        self.pick(key, group, |slot| self.workers.get(slot).key.session != failed)
    }

    /// The same among these workers, which come in the policy's order.
    fn pick_by_rank(
        &self,
        key: &ClassKey,
        group: GroupIdx,
        ranked: impl Iterator<Item = Rank>,
    ) -> Option<(usize, Draft)> {
        let mut best: Option<(Rank, Draft)> = None;
        for rank in ranked {
            let Some(draft) = self.passing_plan(key, group, rank.worker) else { continue };
            if draft.moved == 0 {
                return Some((rank.worker, draft));
            }
            if best.as_ref().is_none_or(|(best, least)| draft.score(&rank) < least.score(best)) {
                best = Some((rank, draft));
            }
        }
        best.map(|(rank, draft)| (rank.worker, draft))
    }

    /// The plan, unless the moving of the files would make the task too long to pass one that the worker is kept for. All
    /// else is in the worker's rank.
    fn passing_plan(&self, key: &ClassKey, group: GroupIdx, slot: usize) -> Option<Draft> {
        let draft = self.plan(key, slot).ok()?;
        let passes = || {
            let ask = self.workers.get(slot).offer(group);
            ask.is_some_and(|ask| !self.is_in_the_way(slot, ask, draft.moved))
        };
        (draft.moved == 0 || passes()).then_some(draft)
    }

    /// Slots of the live workers that reach any of the files.
    pub(crate) fn holders(&self, existing: &ClassExisting) -> Few<usize> {
        let paths = existing.files.iter().flat_map(|file| &file.held_by);
        let mut all: Few<_> = paths.flat_map(|path| self.paths.get(*path).workers()).copied().collect();
        all.sort_dedup();
        all
    }

    /// How such a task would get its files on this worker.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub(crate) fn plan(&self, key: &ClassKey, slot: usize) -> Result<Draft, Obstacle> {
        let worker = self.workers.get(slot);
        self.admitted(key, slot)?;
        let mut draft = Draft::default();
        match self.lay(key, worker, &mut draft) {
            // Something was laid before it: perhaps in its way.
            Err(no_room @ Obstacle::NoRoom { .. }) if !draft.taken.is_empty() => {
                self.lay_together(key, worker).ok_or(no_room)
            }
            laid => laid.map(|()| draft),
        }
    }

    /// The plan that finds room for all files where turn by turn did not.
    fn lay_together(&self, key: &ClassKey, worker: &Worker) -> Option<Draft> {
        let mut draft = Draft { laying: Laying::Asking(Vec::new()), ..Draft::default() };
        self.lay(key, worker, &mut draft).ok()?;
        let Laying::Asking(asked) = draft.laying else { return None };
        let mut draft = Draft { laying: Laying::Together(packing::pack(&asked)?), ..Draft::default() };
        self.lay(key, worker, &mut draft).ok()?;
        Some(draft)
    }

    fn lay(&self, key: &ClassKey, worker: &Worker, draft: &mut Draft) -> Result<(), Obstacle> {
        if let Some(existing) = &key.existing {
            self.plan_existing(key, existing, worker, draft)?;
        }
        if let Some((path_type, files)) = &key.allocate {
            for file in files {
                let wanted = Wanted {
                    kind: file.kind,
                    bytes: file.bytes,
                    path_type: *path_type,
                    miner: key.miner,
                    groups: None,
                };
                let path = self.room_for(key, worker, &wanted, draft)?;
                draft.taken.push((path, file.bytes));
                draft.allocate.push((file.kind, path, file.bytes));
            }
        }
        Ok(())
    }

    fn plan_existing(
        &self,
        key: &ClassKey,
        existing: &ClassExisting,
        worker: &Worker,
        draft: &mut Draft,
    ) -> Result<(), Obstacle> {
        let (target, must_be) = match existing.rule {
            ExistingRule::Here => (None, None),
            ExistingRule::PartlyHere(path_type) | ExistingRule::Fetch(path_type) => (Some(path_type), None),
            ExistingRule::MoveTo(path_type) => (Some(path_type), Some(path_type)),
        };
        let is_here = |file: &ClassFile| {
            let mut here =
                file.held_by.iter().filter(|path| worker.reaches(**path)).map(|path| self.paths.get(*path));
            here.any(|path| path.facts().is_some() && must_be.is_none_or(|path_type| path.is_for(path_type)))
        };
        if let (ExistingRule::PartlyHere(_), Some(file)) = (existing.rule, existing.files.first())
            && !existing.files.iter().any(is_here)
        {
            return Err(self.elsewhere(file));
        }
        for file in existing.files.iter().filter(|file| !is_here(file)) {
            let Some(path_type) = target else { return Err(self.elsewhere(file)) };
            self.plan_fetch(key, file, (worker, path_type), draft)?;
        }
        Ok(())
    }

    fn plan_fetch(
        &self,
        key: &ClassKey,
        file: &ClassFile,
        (worker, path_type): (&Worker, PathType),
        draft: &mut Draft,
    ) -> Result<(), Obstacle> {
        let serves = |path: &PathIdx| {
            let path = self.paths.get(*path);
            path.facts().is_some() && !path.workers().is_empty()
        };
        let from: Few<PathIdx> = file.held_by.iter().copied().filter(serves).collect();
        if from.is_empty() {
            return Err(self.elsewhere(file));
        }
        let lists =
            || from.iter().filter_map(|path| self.paths.get(*path).facts()).map(|facts| &facts.allow_to);
        let anywhere = lists().any(Vec::is_empty);
        let groups = (!anywhere).then(|| lists().flatten().map(String::as_str).collect::<BTreeSet<_>>());
        let wanted = Wanted {
            kind: file.kind,
            bytes: file.bytes,
            path_type,
            miner: key.miner,
            groups: groups.as_ref(),
        };
        let to = self.room_for(key, worker, &wanted, draft)?;
        draft.taken.push((to, file.bytes));
        draft.moved = draft.moved.saturating_add(file.bytes);
        draft.fetch.push(Fetch { kind: file.kind, from, to, bytes: file.bytes });
        Ok(())
    }

    fn room_for(
        &self,
        key: &ClassKey,
        worker: &Worker,
        wanted: &Wanted<'_>,
        draft: &mut Draft,
    ) -> Result<PathIdx, Obstacle> {
        let may = |path: &PathIdx| self.may_begin_in(key, worker, *path, wanted.path_type);
        let candidates = worker.paths.iter().copied().filter(may);
        let path = match &mut draft.laying {
            Laying::InTurn => self.paths.best(candidates, wanted, &draft.taken),
            Laying::Together(paths) => paths.get(draft.taken.len()).copied(),
            Laying::Asking(asked) => {
                let paths = self.paths.takers(candidates, wanted);
                let any = paths.first().map(|(path, _)| *path);
                asked.push(Asked { bytes: wanted.bytes, paths });
                any
            }
        };
        path.ok_or_else(|| {
            let left = |path: &PathIdx| {
                let given = draft.taken.iter().filter(|(to, _)| to == path);
                let given: u128 = given.map(|(_, bytes)| u128::from(*bytes)).sum();
                self.paths.get(*path).free().saturating_sub(given)
            };
            let paths = worker.paths.iter().filter(|path| may(path));
            let paths = paths.filter(|path| self.paths.get(**path).is_for(wanted.path_type));
            let emptiest = paths.max_by_key(|path| left(path));
            Obstacle::NoRoom {
                kind: wanted.kind,
                path_type: wanted.path_type,
                needs: wanted.bytes,
                most_free: emptiest.map(|path| told(left(path))),
                path: emptiest.map(|path| self.paths.get(*path).id().clone()),
            }
        })
    }

    fn elsewhere(&self, file: &ClassFile) -> Obstacle {
        let paths = file.held_by.iter().map(|path| self.paths.get(*path));
        let seen = paths.filter(|path| path.facts().is_some()).count();
        Obstacle::FileElsewhere { kind: file.kind, paths: seen }
    }

    /// The plan with its paths named.
    pub(crate) fn name_paths(&self, key: &ClassKey, draft: &Draft) -> Plan {
        let name = |path: &PathIdx| self.paths.get(*path).id().clone();
        let mode = key.existing.as_ref().map(|existing| existing.mode);
        let fetch = draft.fetch.iter().zip(mode.into_iter().cycle()).map(|(step, mode)| FetchStep {
            kind: step.kind,
            from: step.from.iter().map(name).collect(),
            to: name(&step.to),
            bytes: step.bytes,
            mode,
        });
        let allocate = draft.allocate.iter().map(|(kind, path, bytes)| AllocateStep {
            kind: *kind,
            path: name(path),
            bytes: *bytes,
        });
        Plan { fetch: fetch.collect(), allocate: allocate.collect(), ..Plan::default() }
    }
}
