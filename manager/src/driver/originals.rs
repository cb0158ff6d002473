//! What lies of a sector that is sealed again: the files that this makes, and those that may be what was lost, or the only
//! copy of its data. Those of the second kind are never deleted, and never written into. Never: decides what is sealed.

use std::collections::BTreeSet;

use pipeline::{SectorEvent, SectorRecord, SectorState};
use sealtasks::{AttemptId, FailureClass, FileTypes, SectorId, StorageId, TaskId};
use stores::HeldFiles;

use super::Driver;
use crate::state::ReservedSpace;

/// What makes a sector.
pub(super) const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);
/// What helps when an original is found of a sector that is known by a file alone.
pub(super) const KEEP_TOLD: &str = "keep it: `sealyard sectors remove` ends the rebuild of a sector that was never stored \
                                    here, and no clean-up offers or deletes a file of it";

impl Driver {
    /// Where a replica lies, or is remembered to lie, of a sector that is sealed again and that this has not made.
    /// PreCommit1 would delete it.
    pub(super) fn turned_up(&self, id: SectorId) -> Option<StorageId> {
        self.strays(id, REPLICA).into_iter().next()
    }

    /// Before AddPiece, which is preceded by the deletion of every earlier unsealed file of the sector, and writes into one
    /// that it finds: one that is sealed again is not filled while such a file is known of that this has not made.
    pub(super) fn may_be_filled(&mut self, id: SectorId) -> bool {
        let strays = self.strays(id, FileTypes::UNSEALED);
        let Some(record) = self.sectors.get(&id).map(|sector| &sector.record) else { return false };
        if strays.is_empty() || !may_hold_data(record) {
            return true;
        }
        let number = self.shared.name(id);
        let give_up = match record.is_told() {
            true => KEEP_TOLD.to_owned(),
            false => format!(
                "`sealyard sectors update-state --really-do-it {number} Proving` gives the rebuild up, and once its path is \
                 back the next one seals what lies in it"
            ),
        };
        let message = format!(
            "path {} holds an unsealed file, or is remembered to, that this rebuild has not made, and nothing was deleted; \
             if it may hold the sector's data, {give_up}; if it is worth nothing, delete it, let `sealyard storage \
             redeclare --drop-missing` or `sealyard storage detach` forget it, and `sealyard sectors retry {number}`",
            listed(&strays)
        );
        let (class, now_ms) = (FailureClass::Environment, self.now_ms());
        self.sector_event(id, SectorEvent::Failed { class, message, now_ms });
        false
    }

    /// From AddPiece to the new replica nobody deletes a file that the rebuild has not made and would make anew, also none
    /// that turns up while a task waits or runs. In a failed state an operator puts things right.
    pub(super) fn keep_originals(&self, id: SectorId) {
        let record = self.sectors.get(&id).map(|sector| &*sector.record).filter(|record| record.is_rebuilt());
        let kept = record.and_then(|record| match record.state() {
            SectorState::WaitDeals | SectorState::AddPiece | SectorState::Packing
                if may_hold_data(record) =>
            {
                Some((FileTypes::UNSEALED, record.filled()))
            }
            SectorState::PreCommit1 | SectorState::PreCommit2 => Some((REPLICA, record.made())),
            _ => None,
        });
        match kept {
            Some((types, but_for)) => {
                self.shared.index.keep(id, types, Some(but_for.iter().cloned().collect()))
            }
            None => self.shared.index.keep(id, FileTypes::NONE, None),
        }
    }

    /// Where an attempt is going to make files, noted before it begins: what lies there later is its own. A path that holds
    /// some already is none of those.
    pub(super) fn note_made(&mut self, task: TaskId, reserved: &[ReservedSpace]) {
        let Some(id) = self.tasks.get(&task).map(|task| task.sector.id) else { return };
        for types in NOTED {
            let lies = self.paths_with(id, types);
            let planned = planned(reserved, types).filter(|path| !lies.contains(path));
            self.note(id, types, planned.collect());
        }
    }

    /// An attempt has brought or made files there, and says so.
    pub(super) fn note_deed(&mut self, id: SectorId, path: &StorageId, done: FileTypes) {
        for types in NOTED {
            if !done.intersection(types).is_empty() && !self.paths_with(id, types).contains(path) {
                self.note(id, types, [path.clone()].into());
            }
        }
    }

    /// A Lotus worker may choose another path than was planned. What it has made is declared when its call is done: if that lies
    /// not where it was planned, then in the one path of its own where nobody had planned it.
    pub(super) fn note_elsewhere(&mut self, attempt: AttemptId) {
        let Some(task) = self.tasks.get(&attempt.task) else { return };
        let (id, Some(open)) = (task.sector.id, task.open.as_deref()) else { return };
        let planned: BTreeSet<_> = planned(&open.reservations, REPLICA).collect();
        let lies = self.paths_with(id, REPLICA);
        if planned.is_empty() || !planned.is_disjoint(&lies) {
            return;
        }
        let strays = self.strays(id, REPLICA);
        // What it has told of itself, or made before, explains its result: another path is no work of its own.
        if strays.len() < lies.len() {
            return;
        }
        // What turned up where another host has it is none either.
        if strays.len() == 1 && strays.iter().all(|path| self.works_at(open, path)) {
            self.note(id, REPLICA, strays);
        }
    }

    fn note(&mut self, id: SectorId, types: FileTypes, paths: BTreeSet<StorageId>) {
        // A copy of an unsealed file is the rebuild's own when no other file is known that it could be a copy of.
        if types == FileTypes::UNSEALED && !self.strays(id, types).is_empty() {
            return;
        }
        let Some(sector) = self.sectors.get(&id).filter(|sector| sector.record.is_rebuilt()) else { return };
        let noted = noted(&sector.record, types);
        let paths: Vec<_> = paths.into_iter().filter(|path| !noted.contains(path)).collect();
        if paths.is_empty() {
            return;
        }
        let event = match types {
            REPLICA => SectorEvent::Made { paths },
            _ => SectorEvent::Filled { paths },
        };
        if let Err(refusal) = self.apply_aside(id, event) {
            tracing::warn!(sector = %id, %refusal, "what it makes is never deleted by itself");
        }
    }

    /// An event that is about the sector's files alone: what is under way with it goes on.
    fn apply_aside(&mut self, id: SectorId, event: SectorEvent) -> Result<(), String> {
        let busy = self.sectors.get(&id).map(|sector| sector.busy.clone());
        let applied = self.apply_event(id, event);
        if let (Some(sector), Some(busy)) = (self.sectors.get_mut(&id), busy) {
            sector.busy = busy;
        }
        applied
    }

    /// What lies of it in these paths was proven to be its replica: where a rebuild that was given up has made it, it is in
    /// doubt no more.
    pub(super) fn trust(&mut self, id: SectorId, proven: &[StorageId]) {
        let Some(sector) = self.sectors.get(&id) else { return };
        let doubtful = sector.record.doubtful().iter();
        let paths: Vec<_> = doubtful.filter(|path| proven.contains(path)).cloned().collect();
        if !paths.is_empty()
            && let Err(refusal) = self.apply_aside(id, SectorEvent::Trusted { paths })
        {
            tracing::warn!(sector = %id, %refusal, "files that were proven stay in doubt");
        }
    }

    /// Where some of these files lie, or are remembered to lie, that no rebuild which is under way has made.
    fn strays(&self, id: SectorId, types: FileTypes) -> BTreeSet<StorageId> {
        let made = self.sectors.get(&id).map(|sector| noted(&sector.record, types)).unwrap_or_default();
        self.paths_with(id, types).into_iter().filter(|path| !made.contains(path)).collect()
    }

    /// Where some of these files lie, or are remembered to lie.
    pub(super) fn paths_with(&self, id: SectorId, types: FileTypes) -> BTreeSet<StorageId> {
        let any = |held: &HeldFiles| !held.types.union(held.unconfirmed).intersection(types).is_empty();
        self.shared.index.sector_files(id).into_iter().filter(any).map(|held| held.id).collect()
    }
}

/// What is noted of a rebuild, each by itself: a path where it makes the one may hold an original of the other.
const NOTED: [FileTypes; 2] = [REPLICA, FileTypes::UNSEALED];

fn noted(record: &SectorRecord, types: FileTypes) -> &[StorageId] {
    if types == REPLICA { record.made() } else { record.filled() }
}

/// Whether an unsealed file of it that turns up may hold data. What was made here of nothing but zeros is zeros.
fn may_hold_data(record: &SectorRecord) -> bool {
    record.is_rebuilt() && (record.has_data() || record.is_told())
}

/// The paths by name.
pub(super) fn listed<'a>(paths: impl IntoIterator<Item = &'a StorageId>) -> String {
    let names: Vec<String> = paths.into_iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Where room is promised for some of these files.
fn planned(reserved: &[ReservedSpace], types: FileTypes) -> impl Iterator<Item = StorageId> {
    let some = reserved.iter().filter(move |space| !space.types.intersection(types).is_empty());
    some.map(|space| space.path.clone())
}

/// What of the replica was declared there, or is remembered.
pub(super) fn left(held: &HeldFiles) -> FileTypes {
    held.types.union(held.unconfirmed).intersection(REPLICA)
}
