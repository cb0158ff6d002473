//! What tokens hang on: who is registered, with which token it joined, and what it works on. Questions only.

use std::collections::BTreeSet;

use sealtasks::{CallId, FileTypes, SectorId, WorkerId};
use uuid::Uuid;

use super::Driver;

impl Driver {
    /// The token that a registered worker joined with; `None` for one that joined with permissions, or is not here.
    pub(crate) fn joined_with(&self, session: WorkerId) -> Option<Uuid> {
        self.workers.get(&session)?.token
    }

    /// Whether a registered worker has an attempt of a task of this sector, or an operator moves the sector to it.
    pub(crate) fn works_on(&self, session: WorkerId, sector: SectorId) -> bool {
        let mut open = self.open_attempts().filter(|(task, _)| task.sector.id == sector);
        let moved_here =
            |worker: &super::Worker| self.moves.get(&sector).is_some_and(|to| self.serves(worker, to));
        let worker = self.workers.get(&session);
        worker.is_some_and(|worker| open.any(|(_, open)| open.worker == session) || moved_here(worker))
    }

    /// Whether anybody has an attempt of a task of this sector.
    pub(crate) fn is_worked_on(&self, sector: SectorId) -> bool {
        self.open_attempts().any(|(task, _)| task.sector.id == sector)
    }

    /// The name of a registered worker that serves a path with the primary copies of these files of a sector.
    pub(crate) fn holder_name(
        &self,
        session: WorkerId,
        sector: SectorId,
        types: FileTypes,
    ) -> Option<String> {
        let worker = self.workers.get(&session)?;
        let held = self.shared.index.sector_files(sector);
        let holds = |held: &stores::HeldFiles| {
            // What is only remembered from before a restart justifies no deletion.
            let sure = held.primary.difference(held.unconfirmed);
            types.difference(sure).is_empty() && self.serves(worker, &held.id)
        };
        held.iter().any(holds).then(|| worker.name().to_owned())
    }

    /// Whether a worker with this session is here.
    pub(crate) fn is_registered(&self, session: WorkerId) -> bool {
        self.workers.contains_key(&session)
    }

    /// Whether a registered worker serves a path that holds one of these files of a sector, as a copy or not.
    pub(crate) fn holds_any(&self, session: WorkerId, sector: SectorId, types: FileTypes) -> bool {
        let Some(worker) = self.workers.get(&session) else { return false };
        let held = self.shared.index.sector_files(sector);
        held.iter().any(|held| !types.intersection(held.types).is_empty() && self.serves(worker, &held.id))
    }

    /// The token with which the worker joined that has this call; `None` where nobody can tell.
    pub(crate) fn holder_token(&self, call: CallId) -> Option<Uuid> {
        let (attempt, _) = self.calls.get(&call)?;
        let open = self.tasks.get(&attempt.task)?.open.as_deref().filter(|open| open.id == *attempt)?;
        self.joined_with(open.worker)
    }

    /// `host:port` of the Lotus workers that are registered.
    pub(crate) fn lotus_hosts(&self) -> BTreeSet<String> {
        let lotus = self.workers.values().filter(|worker| !worker.peer.is_sealyard());
        lotus.filter_map(|worker| host_of(&worker.url)).collect()
    }
}

/// `host:port` of a URL.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}
