//! Sectors that an operator moves: while one is held, nothing else is begun with it. Never: moves anything itself.
//!
//! A hold ends with the manager: after a restart a sector goes on at once. What a worker still moves then is safe all the
//! same, since a file is declared at its new place before it is deleted at its old one.

use std::sync::Arc;

use rpc::{ApiError, ApiResult, WorkerApi};
use sealtasks::{SectorId, SectorRef, StorageId};

use super::input::{Busy, Reply};
use super::{Driver, Peer, Worker};

impl Driver {
    /// Holds a sector with which nothing is being done, for its move to the path `to`.
    pub(super) fn hold_sector(&mut self, id: SectorId, to: StorageId, reply: Reply<SectorRef>) {
        let given_up = self.detached.values().any(|given_up| given_up.sector.id == id);
        let answer = match self.sectors.get_mut(&id) {
            None => Err(ApiError::refused(format!(
                "MGR053: no sector {}; `sealyard sectors list` lists them",
                id.number
            ))),
            Some(sector) if given_up || !matches!(sector.busy, Busy::Free) => {
                Err(ApiError::refused(format!(
                    "MGR080: sector {} is being worked on; `sealyard sectors status {}` shows what is under way",
                    id.number, id.number
                )))
            }
            Some(sector) => {
                sector.busy = Busy::Asking;
                self.moves.insert(id, to);
                Ok(sector.record.sector())
            }
        };
        self.answer(reply, answer);
    }

    /// The sector goes on.
    pub(super) fn let_go(&mut self, id: SectorId) {
        self.moves.remove(&id);
        self.set_busy(id, Busy::Free);
        self.advance(id);
    }

    /// The state of a sector in Lotus's words.
    pub(crate) fn state_name(&self, id: SectorId) -> Option<String> {
        Some(self.record(id)?.state().name().to_owned())
    }

    /// A connected worker by name, session or URL.
    pub(crate) fn worker_called(&self, text: &str) -> ApiResult<Arc<dyn WorkerApi>> {
        let session = self.worker_rest(text)?.session;
        let worker = session.and_then(|session| self.workers.get(&session)).ok_or_else(|| {
            ApiError::refused(format!("MGR081: worker {text:?} is not connected; start it, then try again"))
        })?;
        match worker.peer {
            Peer::Sealyard | Peer::Local => Ok(worker.api.clone()),
            Peer::Lotus => Err(ApiError::refused(format!(
                "MGR082: {text:?} is a Lotus worker, which takes no such orders; use `lotus-worker storage` on its host"
            ))),
        }
    }

    /// Whether a worker has a path open: as it told of itself, or, before it could, as the index knows the path's URLs.
    pub(super) fn serves(&self, worker: &Worker, path: &StorageId) -> bool {
        let host = super::host_of(&worker.url);
        let at_its_host = |url: &String| host.is_some() && super::host_of(url) == host;
        worker.paths.contains(path)
            || self.shared.index.path_view(path).is_some_and(|view| view.info.urls.iter().any(at_its_host))
    }

    /// A connected Sealyard worker that has this path open.
    pub(crate) fn owner_of(&self, path: &StorageId) -> ApiResult<Arc<dyn WorkerApi>> {
        let serves = |worker: &&Worker| worker.peer == Peer::Sealyard && self.serves(worker, path);
        self.workers.values().find(serves).map(|worker| worker.api.clone()).ok_or_else(|| {
            ApiError::refused(format!(
                "MGR083: no process that is a Sealyard has storage path {path} open now; `sealyard storage list` shows who \
                 serves it"
            ))
        })
    }
}
