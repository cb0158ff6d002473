//! Sectors that an operator moves: while one is held, nothing else is begun with it. Never: moves anything itself.
//!
//! A hold is durable: a worker goes on moving while the manager is away, and a task begun then would work on files that
//! are being copied or deleted. A manager that starts with holds has their moves finished, then lets the sectors go.

use std::sync::Arc;

use rpc::{ApiError, ApiResult, WorkerApi};
use sealtasks::{SectorId, SectorRef, StorageId};

use super::input::{Busy, Reply};
use super::removed::REMOVED;
use super::{Driver, Peer, Worker};
use crate::state::{Hold, StateEvent};

impl Driver {
    /// Holds a sector with which nothing is being done, for its move.
    pub(super) fn hold_sector(&mut self, hold: Hold, reply: Reply<SectorRef>) {
        let Hold { sector: id, types, to } = hold;
        let name = self.shared.name(id);
        let given_up = self.detached.values().any(|given_up| given_up.sector.id == id);
        let answer = match self.sectors.get_mut(&id) {
            None => Err(self.shared.no_sector(id)),
            Some(sector) if given_up || !matches!(sector.busy, Busy::Free) => {
                Err(ApiError::refused(format!(
                    "MGR080: sector {name} is being worked on; `sealyard sectors status {name}` shows what is under way"
                )))
            }
            Some(sector) => {
                sector.busy = Busy::Asking;
                self.moves.insert(id, to.clone());
                self.events.push(StateEvent::SectorHeld { sector: id, types, to });
                Ok(sector.record.sector())
            }
        };
        self.answer(reply, answer);
    }

    /// The sector goes on.
    pub(super) fn let_go(&mut self, id: SectorId, reason: String) {
        if self.moves.remove(&id).is_none() {
            return;
        }
        self.events.push(StateEvent::SectorLetGo { sector: id, reason });
        self.set_busy(id, Busy::Free);
        self.advance(id);
    }

    /// Holds what an earlier life of the manager held.
    pub(super) fn load_hold(&mut self, hold: Hold) {
        let free = self.sectors.get(&hold.sector).is_some_and(|sector| matches!(sector.busy, Busy::Free));
        self.moves.insert(hold.sector, hold.to);
        if free {
            return self.set_busy(hold.sector, Busy::Asking);
        }
        // Nothing is begun with a held sector, so this is no state that we made; its task goes on.
        tracing::error!(sector = %hold.sector, "a sector that is being worked on was held for a move");
        self.moves.remove(&hold.sector);
        let reason = "the sector was being worked on".to_owned();
        self.events.push(StateEvent::SectorLetGo { sector: hold.sector, reason });
    }

    /// A sector that is held.
    pub(crate) fn held_sector(&self, id: SectorId) -> Option<SectorRef> {
        self.moves.get(&id).and_then(|_| self.sectors.get(&id)).map(|sector| sector.record.sector())
    }

    /// The state of a sector in Lotus's words.
    pub(crate) fn state_name(&self, id: SectorId) -> Option<String> {
        if self.is_removed(id) {
            return Some(REMOVED.to_owned());
        }
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
