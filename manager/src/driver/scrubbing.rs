//! What scrubbing needs to know of a sector and its files' holders, and what it found. Never: looks at a file.

use std::sync::Arc;

use rpc::{ApiError, ApiResult, WorkerApi};
use sealtasks::{ScrubInput, ScrubVerdict, ScrubbedFile, SectorId, SectorRef, StorageId};

use super::input::{Busy, Reply};
use super::{Driver, Peer, Worker};
use crate::state::StateEvent;

/// A sector that could be scrubbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scrubbable {
    pub(crate) sector: SectorRef,
    pub(crate) input: ScrubInput,
    /// Something is being done with it.
    pub(crate) busy: bool,
    /// How many steps its pipeline has taken and errands it has had: two looks with the same number have nothing between
    /// them.
    pub(crate) steps: u64,
}

impl Driver {
    /// What a sector's files should commit to, and whether they are being worked on; `None`: no such sector.
    pub(crate) fn scrubbable(&self, id: SectorId) -> Option<Scrubbable> {
        let known = self.sectors.get(&id)?;
        let cids = known.record.progress().cids;
        let given_up = self.detached.values().any(|given_up| given_up.sector.id == id);
        // One that waits for a retry, or for the operator, is not being worked on.
        let worked_on = matches!(known.busy, Busy::Task(_) | Busy::Asking);
        let of_it = self.tasks.values().filter(|task| task.sector.id == id).map(|task| task.id);
        Some(Scrubbable {
            sector: known.record.sector(),
            input: ScrubInput {
                unsealed: cids.map(|cids| cids.unsealed),
                sealed: cids.map(|cids| cids.sealed),
            },
            busy: given_up || worked_on || self.errands.contains_key(&id) || of_it.count() > 0,
            steps: known.steps,
        })
    }

    /// The worker that has a path open and can look at its files, with its name.
    pub(crate) fn scrubber_of(&self, path: &StorageId) -> ApiResult<(String, Arc<dyn WorkerApi>)> {
        let own = self.shared.local.paths().iter().any(|open| open.id == *path);
        let can = |worker: &&Worker| match worker.peer {
            Peer::Local => own,
            Peer::Sealyard => self.serves(worker, path),
            Peer::Lotus => false,
        };
        let found = self.workers.values().find(can);
        found.map(|worker| (worker.name().to_owned(), worker.api.clone())).ok_or_else(|| {
            ApiError::refused(format!("MGR123: no Sealyard worker that is here has storage path {path} open"))
        })
    }

    /// Keeps what was found of a sector's files on one path.
    pub(super) fn scrubbed(
        &mut self,
        sector: SectorId,
        (path, host): (StorageId, String),
        found: Vec<ScrubbedFile>,
        reply: Reply<()>,
    ) {
        for ScrubbedFile { file, verdict, detail } in found {
            if verdict.is_bad() {
                tracing::error!(%sector, %file, %path, verdict = verdict.words(), detail, "scrubbing found a bad file");
            }
            // One that was left out says nothing; what was found before stays.
            if verdict != ScrubVerdict::LeftOut {
                let (path, host) = (path.clone(), host.clone());
                self.events.push(StateEvent::FileScrubbed { sector, file, path, host, verdict, detail });
            }
        }
        self.answer(reply, Ok(()));
    }
}
