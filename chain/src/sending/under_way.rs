//! Messages about miners' sectors that have not been executed yet, whoever sent them: also those of which the records are lost,
//! since the manager that sent them is. Sends nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rpc::ApiError;
use sealtasks::{ActorId, SectorId};
use uuid::Uuid;

use super::courier::Courier;
use super::draft::number_in;
use super::outbox::{Intent, Outbox, OutboxError, Record, Stage};
use crate::ChainError;
use crate::lotus::wire::{Link, Message, MinerInfo};
use crate::params::{Method, sectors_of};

/// Such a message.
#[derive(Clone, Debug)]
pub struct UnderWay {
    record: Record,
    cid: String,
}

impl UnderWay {
    /// What it says.
    pub fn intent(&self) -> &Intent {
        &self.record.intent
    }

    /// Its CID.
    pub fn cid(&self) -> &str {
        &self.cid
    }

    /// Whether it is of this kind and names this sector.
    pub fn is_about(&self, method: Method, sector: SectorId) -> bool {
        let intent = self.intent();
        intent.method == method && intent.miner == sector.miner && intent.sectors.contains(&sector.number)
    }
}

impl<O: Outbox> Courier<'_, O> {
    /// Pre-commitments and proofs for these miners, from addresses that may send them, that wait for a block, and those of the head, which what the chain says of
    /// sectors does not contain yet. What a sector is on chain is to be asked after this: what is neither there nor here then has
    /// not been sent.
    ///
    /// # Errors
    /// The node does not say.
    pub async fn under_way(&self, miners: &[ActorId]) -> Result<Vec<UnderWay>, ChainError> {
        let node = &self.lotus.node;
        let waiting = node.pending().await?.into_iter().map(|signed| (signed.cid, signed.message));
        let head = node.head().await?;
        let in_head = node.messages_in(&head.cids).await?.into_iter().map(|found| (found.cid, found.message));
        let mut found: Vec<UnderWay> = Vec::new();
        let mut owners = BTreeMap::new();
        for (cid, message) in waiting.chain(in_head) {
            let Some((method, sectors)) = Method::try_from(message.method)
                .ok()
                .and_then(|method| Some((method, sectors_of(method, &message.params.0)?)))
            else {
                continue;
            };
            let Some(miner) = self.whose(&message, miners).await? else { continue };
            if found.iter().any(|other| other.cid == cid.cid) {
                continue;
            }
            let info = match owners.entry(miner) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(self.told(miner).await?),
            };
            // Anybody may have a message wait that names our sectors; none but the miner's own is ever carried out.
            if let Some(info) = info
                && number_in(node, info, &message.from).await?.is_none()
            {
                continue;
            }
            let Message { from, nonce, value, gas_limit, gas_fee_cap, params, .. } = message;
            let fee = gas_fee_cap.checked_mul(u64::try_from(gas_limit).unwrap_or_default());
            let (id, since, max_fee) = (Uuid::new_v4(), head.epoch(), fee.unwrap_or_default());
            let intent = Intent { id, miner, method, sectors, from, value, max_fee, params, since };
            let Link { cid } = cid;
            let record = Record { intent, stage: Stage::Pushed { cid: cid.clone(), nonce } };
            found.push(UnderWay { record, cid });
        }
        Ok(found)
    }

    /// `None`: the node does not say, which is that miner's trouble alone.
    async fn told(&self, miner: ActorId) -> Result<Option<MinerInfo>, ChainError> {
        match self.lotus.node.miner_info(miner).await {
            Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => Ok(None),
            info => info.map(Some),
        }
    }

    /// Which of these miners it is to.
    async fn whose(&self, message: &Message, miners: &[ActorId]) -> Result<Option<ActorId>, ChainError> {
        match self.lotus.node.actor_of(&message.to).await {
            Ok(actor) => Ok(actor.filter(|actor| miners.contains(actor))),
            // Nobody that the chain knows.
            Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes such a message for one of our own.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn adopt(&self, found: &UnderWay) -> Result<(), OutboxError> {
        let intent = found.intent();
        tracing::warn!(id = %intent.id, cid = found.cid, "a message that was sent before, and of which there was no record");
        self.outbox.put(&found.record)
    }
}
