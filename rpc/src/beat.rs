//! The heartbeat between Sealyards: one question, by which a manager tells which one it is, and one answer, with the worker's
//! state and its paths' health. While the answers arrive the worker reports nothing besides. Lotus has no such thing.

use sealtasks::{HealthReport, StorageId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::extension::WorkerState;
use crate::wire::storage;

/// What a manager tells with its heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The manager process's session, as it answers [`crate::ManagerApi::session`].
    pub session: Uuid,
    /// The number of the last answer that arrived; 0 = none has.
    #[serde(default)]
    pub had: u64,
    /// Paths whose health came with an earlier answer and that the index does not know: they are to be declared again.
    #[serde(default)]
    pub unknown: Vec<StorageId>,
}

/// What the worker answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Beaten {
    /// Which of its answers it is, from 1.
    pub number: u64,
    /// Its state now.
    pub state: WorkerState,
    /// Of its own paths, as measured last; none: they were reported, or the manager does not answer this worker.
    pub health: Vec<(StorageId, HealthReport)>,
}

/// The answer as it is sent, with a report's shape as Lotus has it.
#[derive(Serialize, Deserialize)]
pub(crate) struct BeatenShape {
    number: u64,
    state: WorkerState,
    #[serde(default)]
    health: Vec<(StorageId, storage::HealthReport)>,
}

impl From<Beaten> for BeatenShape {
    fn from(Beaten { number, state, health }: Beaten) -> Self {
        let health = health.into_iter().map(|(path, report)| (path, report.into())).collect();
        Self { number, state, health }
    }
}

impl From<BeatenShape> for Beaten {
    fn from(BeatenShape { number, state, health }: BeatenShape) -> Self {
        let health = health.into_iter().map(|(path, report)| (path, report.into())).collect();
        Self { number, state, health }
    }
}
