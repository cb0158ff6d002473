//! What Lotus says of batches that were sent.

use std::collections::BTreeMap;

use sealtasks::SectorNumber;
use serde::{Deserialize, Serialize};

use super::Cid;
use crate::pipelining::{Batch, Flushed};

/// Lotus's `PreCommitBatchRes`; with the failed sectors its `CommitBatchRes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct BatchRes {
    sectors: Vec<u64>,
    /// Of commits alone. Go's map is nil where there is none, which is written `null`: none fails by itself here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed_sectors: Option<Option<BTreeMap<String, String>>>,
    msg: Option<Cid>,
    error: String,
}

impl BatchRes {
    pub(crate) fn of(batch: Batch, flushed: Flushed) -> Self {
        Self {
            sectors: flushed.sectors.into_iter().map(SectorNumber::get).collect(),
            failed_sectors: (batch == Batch::Commit).then_some(None),
            msg: flushed.message.and_then(Cid::of),
            error: flushed.error,
        }
    }
}

impl From<BatchRes> for Flushed {
    fn from(res: BatchRes) -> Self {
        Self {
            sectors: res.sectors.into_iter().map(SectorNumber::new).collect(),
            message: res.msg.map(|cid| cid.text),
            error: res.error,
        }
    }
}
