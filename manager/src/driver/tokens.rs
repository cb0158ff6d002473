//! What tokens hang on: who is registered, with which token it joined, and what it works on. Questions only.

use std::collections::BTreeSet;

use sealtasks::{CallId, SectorId, WorkerId};
use uuid::Uuid;

use super::Driver;

impl Driver {
    /// The token that a registered worker joined with; `None` for one that joined with permissions, or is not here.
    pub(crate) fn joined_with(&self, session: WorkerId) -> Option<Uuid> {
        self.workers.get(&session)?.token
    }

    /// Whether a registered worker has an attempt of a task of this sector.
    pub(crate) fn works_on(&self, session: WorkerId, sector: SectorId) -> bool {
        let mut open =
            self.tasks.values().filter(|task| task.sector.id == sector).filter_map(|task| task.open.as_ref());
        self.workers.contains_key(&session) && open.any(|open| open.worker == session)
    }

    /// The token with which the worker joined that has this call; `None` where nobody can tell.
    pub(crate) fn holder_token(&self, call: CallId) -> Option<Uuid> {
        let (attempt, _) = self.calls.get(&call)?;
        let open = self.tasks.get(&attempt.task)?.open.as_ref().filter(|open| open.id == *attempt)?;
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
