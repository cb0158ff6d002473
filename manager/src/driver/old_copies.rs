//! Copies of a file that are older than what an attempt has made of it: of several copies only the one that was worked on
//! counts, wherever the others lie and whoever brought them there. And deeds of attempts that are over, which do not count.
//! Never: deletes a copy.

use pipeline::SectorState;
use rpc::storage::{CopyDeed, CopyState};
use rpc::{ApiError, ApiResult};
use sealtasks::{AttemptId, FileTypes, SectorId, StorageId, TaskInput};
use stores::{CopyKind, HeldFiles};
use uuid::Uuid;

use super::input::Reply;
use super::{Attempt, Driver, Peer, host_of};
use crate::service::refusal;
use crate::state::StateEvent;

/// The files that a task makes or changes in place: what lies elsewhere is older when it is done. Unsealing only adds to a
/// copy of its own, and freeing unsealed data takes all other copies away itself.
const fn changed_by(work: &TaskInput) -> FileTypes {
    match work {
        TaskInput::AddPiece(_) => FileTypes::UNSEALED,
        TaskInput::PreCommit1(_) => FileTypes::SEALED.union(FileTypes::CACHE),
        TaskInput::PreCommit2(_) | TaskInput::Finalize(_) => FileTypes::CACHE,
        TaskInput::DataCid(_)
        | TaskInput::Commit1(_)
        | TaskInput::Commit2(_)
        | TaskInput::Fetch(_)
        | TaskInput::Move(_)
        | TaskInput::ReleaseUnsealed(_)
        | TaskInput::Scrub(_)
        | TaskInput::Unseal(_)
        | TaskInput::Vanilla(_)
        | TaskInput::Verify(_) => FileTypes::NONE,
    }
}

impl Driver {
    /// The result of an open attempt is taken: copies of what it has changed, other than its worker's, are old.
    pub(super) fn supersede_others(&self, attempt: AttemptId) {
        let Some(task) = self.tasks.get(&attempt.task) else { return };
        let Some(open) = task.open.as_deref() else { return };
        let sector = task.sector.id;
        let held = self.shared.index.sector_files(sector);
        let (here, elsewhere): (Vec<HeldFiles>, Vec<HeldFiles>) =
            held.into_iter().partition(|held| self.works_at(open, &held.id));
        // What its worker does not list either is not known to have been changed there.
        let there = here.iter().fold(FileTypes::NONE, |all, held| all | held.types | held.unconfirmed);
        let changed = changed_by(&task.work).intersection(there);
        for held in elsewhere {
            let old = (held.types | held.unconfirmed).intersection(changed);
            if !old.is_empty() {
                tracing::warn!(%sector, types = %old, path = %held.id, %attempt, "an older copy is listed no more");
                self.shared.index.supersede_copies(&held.id, sector, old);
            }
        }
    }

    /// What an attempt has done with files in a path. Decided here, where attempts end: none of it comes after that.
    pub(super) fn storage_deed(
        &mut self,
        attempt: AttemptId,
        asker: Option<Uuid>,
        deed: CopyDeed,
        reply: Reply<()>,
    ) {
        let answer = self.do_deed(attempt, asker, deed);
        self.answer(reply, answer);
    }

    fn do_deed(&mut self, attempt: AttemptId, asker: Option<Uuid>, deed: CopyDeed) -> ApiResult<()> {
        let CopyDeed { path, sector, types, state } = deed;
        let task = self.tasks.get(&attempt.task).filter(|task| task.sector.id == sector);
        let open = task.and_then(|task| task.open.as_deref()).filter(|open| open.id == attempt);
        let own =
            |session| asker.is_none_or(|token| self.joined_with(session).is_none_or(|known| known == token));
        if !open.is_some_and(|open| own(open.worker)) {
            if open.is_none() && state != CopyState::Superseded {
                self.disown(asker, &path, sector, types);
            }
            return Err(ApiError::refused(format!(
                "MGR145: attempt {attempt} is over, so {types} of {sector} in path {path} is not listed as its work; \
                 `sealyard storage cleanup` shows what is left of it"
            )));
        }
        if state != CopyState::Superseded {
            self.note_deed(sector, &path, types);
        }
        let index = &self.shared.index;
        match state {
            CopyState::Superseded => {
                index.supersede_copies(&path, sector, types);
                Ok(())
            }
            CopyState::Primary => index.declare_now(&path, sector, types, CopyKind::Primary).map_err(refusal),
            CopyState::Secondary => {
                index.declare_now(&path, sector, types, CopyKind::Secondary).map_err(refusal)
            }
        }
    }

    /// What an attempt that is over has brought to a path of its worker is listed by nobody, and older than the copy that
    /// counts elsewhere: no scan is to list it beside that.
    fn disown(&self, asker: Option<Uuid>, path: &StorageId, sector: SectorId, types: FileTypes) {
        let serves = |worker: &super::Worker| worker.token == asker && self.serves(worker, path);
        if asker.is_some() && !self.workers.values().any(serves) {
            return;
        }
        let held = self.shared.index.sector_files(sector);
        let (here, elsewhere): (Vec<HeldFiles>, Vec<HeldFiles>) =
            held.into_iter().partition(|held| held.id == *path);
        let listed = here.iter().fold(FileTypes::NONE, |all, held| all | held.types | held.unconfirmed);
        let counts = elsewhere.iter().fold(FileTypes::NONE, |all, held| all | held.primary);
        let old = types.difference(listed).intersection(counts);
        if !old.is_empty() {
            tracing::warn!(%sector, types = %old, %path, "brought by an attempt that is over: an older copy");
            self.shared.index.supersede_copies(path, sector, old);
        }
    }

    /// Whether a sector's files are sealed and stored, and known to be what was proven.
    pub(crate) fn is_stored(&self, sector: SectorId) -> bool {
        let record = self.record(sector);
        record.is_some_and(|record| record.state() == SectorState::Proving && record.doubtful().is_empty())
    }

    /// Whether a declaration that names no attempt may be the deed of one that is at work there, or of an operator's move.
    pub(crate) fn is_at_work(&self, path: &StorageId, sector: SectorId) -> bool {
        if self.moves.get(&sector).is_some_and(|to| to == path) {
            return true;
        }
        let mut open = self.open_attempts().filter(|(task, _)| task.sector.id == sector);
        open.any(|(_, open)| self.works_at(open, path))
    }

    /// Whether an attempt's worker serves the path.
    pub(super) fn works_at(&self, open: &Attempt, path: &StorageId) -> bool {
        if self.workers.get(&open.worker).is_some_and(|worker| self.serves(worker, path)) {
            return true;
        }
        // It may be away, or after a restart of the manager not here yet.
        let Some(view) = self.shared.index.path_view(path) else { return false };
        host_of(&open.url)
            .is_some_and(|host| view.info.urls.iter().any(|url| host_of(url).as_ref() == Some(&host)))
    }

    /// Whether only Lotus workers can have declared files of a sector in the pipeline there, who name no attempt.
    pub(crate) fn is_unnamed(&self, path: &StorageId, sector: SectorId) -> bool {
        let ours = |worker: &super::Worker| worker.peer != Peer::Lotus && self.serves(worker, path);
        self.sectors.contains_key(&sector)
            && !self.shared.local.paths().iter().any(|open| open.id == *path)
            && !self.workers.values().any(ours)
    }

    /// Makes durable which copies are old, where that has changed.
    pub(super) fn keep_old_copies(&mut self) {
        if self.old_copies.0 == self.shared.index.superseded_changes() {
            return;
        }
        let (changes, now) = self.shared.index.superseded();
        let now = now.into_iter().collect();
        for (sector, file, path) in self.old_copies.1.difference(&now).cloned() {
            self.events.push(StateEvent::CopyCounts { sector, file, path });
        }
        for (sector, file, path) in now.difference(&self.old_copies.1).cloned() {
            self.events.push(StateEvent::CopySuperseded { sector, file, path });
        }
        self.old_copies = (changes, now);
    }
}
