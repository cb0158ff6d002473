//! Where files are and how much room there is: changes of the index become events of the scheduler. Never: changes the
//! index.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sched::{Event, PathFacts};
use sealtasks::{AttemptId, SectorId, StorageId};
use stores::{IndexChange, PathView};
use tokio::sync::Notify;

use super::input::{Busy, Effect};
use super::{Driver, Phase};
use crate::request;

/// An attempt's bytes count as reserved by the path's owner this long after it took the call, in milliseconds: one
/// health report. Counted twice until then, which can only delay; never not at all.
const COVERED_AFTER_MS: u64 = 10_000;

/// Sectors noted one by one; a path that declares more of them at once is not worth naming each.
const SECTORS_MAX: usize = 4096;

/// What changed in the index since the driver last looked. Bounded by the index itself: a path or a sector stands here
/// at most once, however often it changes.
#[derive(Default)]
pub(crate) struct IndexChanges {
    dirty: Mutex<Dirty>,
    wake: Notify,
}

#[derive(Default)]
struct Dirty {
    paths: BTreeSet<StorageId>,
    sectors: BTreeSet<SectorId>,
    /// More sectors than are noted one by one: all that the driver knows are looked at.
    many: bool,
}

impl IndexChanges {
    /// Notes one change. Called while the index is locked.
    pub(crate) fn note(&self, change: &IndexChange) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            IndexChange::Path(id) => {
                dirty.paths.insert(id.clone());
            }
            IndexChange::Same(id) => {
                // What the driver has noted of it since may be due; that is looked at when there is something else to do.
                dirty.paths.insert(id.clone());
                return;
            }
            IndexChange::PathGone(id) => {
                dirty.paths.insert(id.clone());
            }
            IndexChange::Files { .. } if dirty.many => {}
            IndexChange::Files { sectors, .. } if dirty.sectors.len() + sectors.len() > SECTORS_MAX => {
                dirty.many = true;
                dirty.sectors.clear();
            }
            IndexChange::Files { sectors, .. } => dirty.sectors.extend(sectors),
        }
        drop(dirty);
        self.wake.notify_one();
    }

    /// Returns when something changed since the last take.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// What is read from the index after this needs no notice of earlier changes of files.
    pub(super) fn forget_files(&self) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.sectors.clear();
        dirty.many = false;
    }

    fn take(&self) -> Dirty {
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Driver {
    /// Tells the scheduler what the index learned.
    pub(super) fn index_changed(&mut self) {
        let Dirty { paths, mut sectors, many } = self.shared.index_changes.take();
        if many {
            sectors = self.sectors.keys().copied().collect();
        }
        self.pledging_due |= !paths.is_empty();
        for id in paths {
            match self.shared.index.path_view(&id) {
                Some(view) => self.path_seen(&view),
                None => {
                    if self.paths.remove(&id).is_some() {
                        self.tell_sched(Event::PathGone { path: id });
                        self.forget_files_of_all_tasks();
                    }
                }
            }
        }
        for sector in sectors {
            self.files_changed(sector);
        }
    }

    /// A path falls silent without any event, so its health is looked at from time to time.
    pub(super) fn check_paths(&mut self) {
        for view in self.shared.index.paths() {
            if self.paths.get(&view.info.id) != Some(&view.healthy) {
                self.path_seen(&view);
            }
        }
    }

    fn path_seen(&mut self, view: &PathView) {
        if !view.confirmed {
            // Only remembered from before the start: nothing can be put or fetched there yet.
            return;
        }
        let id = view.info.id.clone();
        let free = view.stat.available.saturating_sub(self.promised_before(&id));
        let mut path = PathFacts::new(id.clone(), &view.info.stanza, free);
        path.healthy = view.healthy;
        path.covers = self.covered(&id);
        self.paths.insert(id, view.healthy);
        self.tell_sched(Event::PathSeen { path });
    }

    /// Attempts whose promised bytes the path's owner has reserved itself by now.
    fn covered(&self, path: &StorageId) -> Vec<AttemptId> {
        let now = self.now_ms();
        let given_up = self.detached.values().map(|given_up| &given_up.open);
        let open = self.open_attempts().map(|(_, open)| open).chain(given_up);
        open.filter(|open| matches!(open.phase, Phase::Held(..)))
            .filter(|open| open.accepted_ms.saturating_add(COVERED_AFTER_MS) <= now)
            .filter(|open| open.reservations.iter().any(|space| space.path == *path))
            .map(|open| open.id)
            .collect()
    }

    /// Bytes promised on this path to attempts of the manager's earlier life, of which the scheduler knows nothing: unless the
    /// path's owner has reserved them itself, or the files lie there by now.
    fn promised_before(&self, path: &StorageId) -> i64 {
        let of_tasks = self.open_attempts().map(|(task, open)| (task.sector.id, open));
        let given_up = self.detached.values().map(|given_up| (given_up.sector.id, &given_up.open));
        let unknown = of_tasks
            .chain(given_up)
            .filter(|(_, open)| !open.scheduled && !matches!(open.phase, Phase::Held(..)));
        let bytes = unknown.flat_map(|(sector, open)| {
            open.reservations.iter().filter(|space| space.path == *path).map(move |space| (sector, space))
        });
        let missing = bytes.filter(|(sector, space)| {
            let here = self.shared.index.sector_files(*sector).into_iter().find(|held| held.id == *path);
            !space.types.difference(here.map(|held| held.types).unwrap_or_default()).is_empty()
        });
        let sum = missing.map(|(_, space)| space.bytes).fold(0, u64::saturating_add);
        i64::try_from(sum).unwrap_or(i64::MAX)
    }

    /// A path is gone with all its files; the index does not say whose.
    fn forget_files_of_all_tasks(&mut self) {
        let sectors: BTreeSet<_> = self.tasks.values().map(|task| task.sector.id).collect();
        for sector in sectors {
            self.files_changed(sector);
        }
    }

    fn files_changed(&mut self, id: SectorId) {
        let Some(busy) = self.sectors.get(&id).map(|sector| sector.busy.clone()) else { return };
        let files = self.shared.index.sector_files(id);
        match busy {
            Busy::Task(task) => {
                let types =
                    self.tasks.get(&task).map(|task| request::input_types(&task.work)).unwrap_or_default();
                for kind in types.iter() {
                    let holders = files.iter().filter(|held| held.types.contains(kind));
                    let paths = holders.map(|held| held.id.clone()).collect();
                    self.tell_sched(Event::SectorFiles { sector: id, kind, paths });
                }
            }
            Busy::File(kind) if files.iter().any(|held| held.types.contains(kind)) => self.advance(id),
            Busy::File(_) | Busy::Free | Busy::Asking | Busy::Until(_) | Busy::Stage => {}
        }
    }

    /// Has all that the index names of a sector, on paths that are here, looked for.
    pub(super) fn look_again(&mut self, id: SectorId) {
        let is_here = |path: &StorageId| {
            self.shared.index.path_view(path).is_some_and(|path| path.confirmed && path.healthy)
        };
        let held = self.shared.index.sector_files(id).into_iter().filter(|held| is_here(&held.id));
        let files: Vec<_> = held
            .flat_map(|held| {
                let types = held.types.union(held.unconfirmed);
                types.iter().map(move |kind| (held.id.clone(), id, kind)).collect::<Vec<_>>()
            })
            .collect();
        if !files.is_empty() {
            self.effects.push(Effect::LookAgain(files));
        }
    }
}
