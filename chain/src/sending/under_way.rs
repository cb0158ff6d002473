//! Messages about miners' sectors that have not been executed yet, whoever sent them: also those of which the records are lost,
//! since the manager that sent them is. Sends nothing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rpc::ApiError;
use sealtasks::{ActorId, SectorId};
use uuid::Uuid;

use super::courier::Courier;
use super::draft::own;
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

/// What was asked about who may send what.
#[derive(Default)]
struct Senders {
    /// Of which miner; `None`: the node does not say, which is that miner's trouble alone.
    of: BTreeMap<ActorId, Option<Own>>,
    /// The number of each address that was asked for; `None`: nobody that the chain knows.
    numbers: BTreeMap<String, Option<String>>,
}

/// A miner's addresses, without the network's letter.
#[derive(Default)]
struct Own {
    /// By number and by key.
    all: BTreeSet<String>,
    /// Those, by number, whose key the node does not say: a multisig has none.
    unkeyed: BTreeSet<String>,
}

impl<O: Outbox> Courier<'_, O> {
    /// Pre-commitments and proofs for these miners, from addresses that may send them, that wait for a block, and those of the
    /// head, which what the chain says of sectors does not contain yet. What a sector is on chain is to be asked after this: what is
    /// neither there nor here then has not been sent.
    ///
    /// # Errors
    /// The node does not say.
    pub async fn under_way(&self, miners: &[ActorId]) -> Result<Vec<UnderWay>, ChainError> {
        let node = &self.lotus.node;
        let waiting = node.pending().await?.into_iter().map(|signed| (signed.cid, signed.message));
        let head = node.head().await?;
        let in_head = node.messages_in(&head.cids).await?.into_iter().map(|found| (found.cid, found.message));
        let mut found: Vec<UnderWay> = Vec::new();
        let mut senders = Senders::default();
        for (cid, message) in waiting.chain(in_head) {
            let Some((method, sectors)) = Method::try_from(message.method)
                .ok()
                .and_then(|method| Some((method, sectors_of(method, &message.params.0)?)))
            else {
                continue;
            };
            if found.iter().any(|other| other.cid == cid.cid) {
                continue;
            }
            let Some(miner) = self.whose(&message, miners, &mut senders).await? else { continue };
            let Message { from, nonce, value, gas_limit, gas_fee_cap, params, .. } = message;
            let fee = gas_fee_cap.checked_mul(u64::try_from(gas_limit).unwrap_or_default());
            let (id, since, max_fee) = (Uuid::new_v4(), head.epoch(), fee.unwrap_or_default());
            let intent = Intent { id, miner, method, sectors, from, value, max_fee, params, since };
            let Link { cid } = cid;
            let record = Record { intent, stage: Stage::Pushed { cid: cid.clone(), nonce, seen: None } };
            found.push(UnderWay { record, cid });
        }
        Ok(found)
    }

    /// Which of these miners it is to, and from. Anybody may have a message wait that names our sectors; none but the miner's own is
    /// ever carried out, so others' are told by what was asked once, however many they are.
    async fn whose(
        &self,
        message: &Message,
        miners: &[ActorId],
        senders: &mut Senders,
    ) -> Result<Option<ActorId>, ChainError> {
        if let Ok(to) = message.to.parse::<ActorId>() {
            return Ok(
                (miners.contains(&to) && self.may_send(&message.from, to, senders).await?).then_some(to)
            );
        }
        let mut may_be = Vec::new();
        for miner in miners {
            if self.may_send(&message.from, *miner, senders).await? {
                may_be.push(*miner);
            }
        }
        if may_be.is_empty() {
            return Ok(None);
        }
        match self.lotus.node.actor_of(&message.to).await {
            Ok(actor) => Ok(actor.filter(|actor| may_be.contains(actor))),
            // Nobody that the chain knows.
            Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the actor of this miner may take messages from there; also where the node does not say.
    async fn may_send(&self, from: &str, miner: ActorId, senders: &mut Senders) -> Result<bool, ChainError> {
        let known = match senders.of.entry(miner) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.senders_of(miner).await?),
        };
        let Some(known) = known else { return Ok(true) };
        if known.all.contains(bare(from)) {
            return Ok(true);
        }
        if known.unkeyed.is_empty() {
            return Ok(false);
        }
        let number = match senders.numbers.get(from) {
            Some(number) => number.clone(),
            None => {
                let number = match self.lotus.node.id_of(from).await {
                    Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => None,
                    number => Some(number?),
                };
                senders.numbers.insert(from.to_owned(), number.clone());
                number
            }
        };
        Ok(number.is_some_and(|number| known.unkeyed.contains(bare(&number))))
    }

    async fn senders_of(&self, miner: ActorId) -> Result<Option<Own>, ChainError> {
        let Some(info) = self.told(miner).await? else { return Ok(None) };
        let mut found = Own::default();
        for number in own(&info) {
            found.all.insert(bare(number).to_owned());
            match self.lotus.node.account_key(number).await {
                Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => {
                    found.unkeyed.insert(bare(number).to_owned());
                }
                key => {
                    found.all.insert(bare(&key?).to_owned());
                }
            }
        }
        Ok(Some(found))
    }

    /// `None`: the node does not say, which is that miner's trouble alone.
    async fn told(&self, miner: ActorId) -> Result<Option<MinerInfo>, ChainError> {
        match self.lotus.node.miner_info(miner).await {
            Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => Ok(None),
            info => info.map(Some),
        }
    }

    /// Takes such a message for one of our own. `kept` is what is known of it: if it had landed, a reorganisation has taken it off
    /// the chain since, and the same record has it under way again.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn adopt(&self, found: &UnderWay, kept: Option<Record>) -> Result<(), OutboxError> {
        let intent = found.intent();
        let is_it = |stage: &Stage| matches!(stage, Stage::Landed { cid, .. } if *cid == found.cid);
        if let (Some(kept), Stage::Pushed { cid, nonce, .. }) =
            (kept.filter(|kept| is_it(&kept.stage)), &found.record.stage)
        {
            let stage = Stage::Pushed { cid: cid.clone(), nonce: *nonce, seen: Some(intent.since) };
            tracing::info!(id = %kept.intent.id, %cid, "a message that had landed is under way again");
            return self.outbox.put(&Record { intent: kept.intent, stage });
        }
        tracing::warn!(id = %intent.id, cid = found.cid, "a message that was sent before, and of which there was no record");
        self.outbox.put(&found.record)
    }
}

/// Test networks' nodes write t where others write f.
fn bare(address: &str) -> &str {
    address.get(1..).unwrap_or_default()
}
