//! What Lotus says of batches that were sent, and of who pays for them.

use std::collections::BTreeMap;

use sealtasks::SectorNumber;
use serde::{Deserialize, Serialize};

use super::Cid;
use crate::pipelining::{Batch, Flushed, Payers};

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

/// Lotus's `AddressConfig`. Go's nil where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AddressConfig {
    pre_commit_control: Option<Vec<String>>,
    commit_control: Option<Vec<String>>,
    terminate_control: Option<Vec<String>>,
    deal_publish_control: Option<Vec<String>>,
    disable_owner_fallback: bool,
    disable_worker_fallback: bool,
}

impl From<Payers> for AddressConfig {
    fn from(payers: Payers) -> Self {
        let list = |addresses: Vec<String>| (!addresses.is_empty()).then_some(addresses);
        Self {
            pre_commit_control: list(payers.pre_commit),
            commit_control: list(payers.commit),
            // Neither is ever sent.
            terminate_control: None,
            deal_publish_control: None,
            // The owner pays only where he is named.
            disable_owner_fallback: true,
            disable_worker_fallback: false,
        }
    }
}

impl From<AddressConfig> for Payers {
    fn from(config: AddressConfig) -> Self {
        Self {
            pre_commit: config.pre_commit_control.unwrap_or_default(),
            commit: config.commit_control.unwrap_or_default(),
        }
    }
}
