//! Added miners of whom the full node has not said yet what is needed: who they are, who pays for them, and which numbers they have
//! used. Nobody else waits for that; nothing is sent for such a miner and no sector of it begun meanwhile. Never: asks the node.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rpc::extension::AlertView;
use rpc::{ApiError, ApiResult};
use sealtasks::ActorId;

/// What its alerts are about.
const SYSTEM: &str = "messages";

/// What is known of each miner.
#[derive(Default)]
pub(crate) struct Unsaid(Mutex<BTreeMap<ActorId, Known>>);

enum Known {
    /// No new sector of it has a lower number: the chain knows of others.
    From(u64),
    /// Why not, and since when (Unix milliseconds).
    Not { why: String, since_ms: u64 },
}

impl Unsaid {
    /// The node has said it: no new sector of this miner has a lower number.
    pub(crate) fn said(&self, miner: ActorId, first: u64) {
        self.known().insert(miner, Known::From(first));
    }

    /// The node does not say, for this reason. Whether that is news.
    pub(crate) fn not_said(&self, miner: ActorId, why: String, now_ms: u64) -> bool {
        let mut known = self.known();
        let (since_ms, is_news) = match known.get(&miner) {
            Some(Known::Not { since_ms, why: before }) => (*since_ms, *before != why),
            _ => (now_ms, true),
        };
        known.insert(miner, Known::Not { why, since_ms });
        is_news
    }

    /// Those that are to be asked about again.
    pub(crate) fn all(&self) -> Vec<ActorId> {
        let known = self.known();
        known
            .iter()
            .filter(|(_, known)| matches!(known, Known::Not { .. }))
            .map(|(miner, _)| *miner)
            .collect()
    }

    /// Why nothing is sent for this miner; `None`: it may be.
    pub(crate) fn of(&self, miner: ActorId) -> Option<String> {
        match self.known().get(&miner) {
            Some(Known::Not { why, .. }) => Some(why.clone()),
            Some(Known::From(_)) | None => None,
        }
    }

    /// The lowest number that a new sector of this miner may have.
    ///
    /// # Errors
    /// `MGR203`: it is not known.
    pub(crate) fn first_sector(&self, miner: ActorId) -> ApiResult<u64> {
        match self.known().get(&miner) {
            None => Ok(0),
            Some(Known::From(first)) => Ok(*first),
            Some(Known::Not { why, .. }) => Err(ApiError::refused(format!(
                "MGR203: no sector of f0{} is begun until the full node says which numbers it has used: {why}",
                miner.get()
            ))),
        }
    }

    /// What operators must know.
    pub(crate) fn alerts(&self) -> Vec<AlertView> {
        let alert = |(miner, known): (&ActorId, &Known)| match known {
            Known::From(_) => None,
            Known::Not { why, since_ms } => Some(AlertView {
                system: SYSTEM.to_owned(),
                subject: format!("f0{}", miner.get()),
                text: format!("nothing is sent for this miner, and none of its sectors begun: {why}"),
                since_ms: *since_ms,
            }),
        };
        self.known().iter().filter_map(alert).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ActorId, Known>> {
        // Each change is one insertion, so what a panic leaves is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
