//! Sends each message once. The intent is on disk before the node hears of it; whoever finds an intent without a CID
//! looks for the message among those that wait and those that landed, and only then, and not at once, sends it.

use std::collections::BTreeSet;

use rpc::ApiError;
use sealtasks::{ChainEpoch, SectorNumber};

use super::ExitCode;
use super::draft::{Draft, SendError, message};
use super::outbox::{Intent, Outbox, OutboxError, Record, Stage};
use crate::lotus::address;
use crate::lotus::wire::{Link, Lookup, SignedMessage};
use crate::params::{Method, failed_activations};
use crate::{ChainError, Lotus};

/// A message counts as landed when so many heights lie above it (Lotus's MessageConfidence).
const CONFIDENCE: i64 = 5;
/// A message may have landed so many heights before the head that was seen when it was intended: that head may have been
/// reorganised away since (the chain's finality). One that is nowhere so many heights after the node had it is lost.
pub const REORGANISED_MAX: i64 = 900;

/// Whether messages are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sending {
    /// They are shown.
    #[default]
    Off,
    /// They are sent (`--send-messages`).
    On,
}

/// What came of handing a message over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Sending is off: this would have been sent.
    Shown(Box<Draft>),
    /// The node has it.
    Sent(Box<Record>),
}

/// What is done with a message that was intended and is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// It is kept: it may come to light still.
    Keep,
    /// It is sent, with leave.
    Send,
    /// It is forgotten: nobody wants it any more.
    Forget,
    /// The node does not tell which messages have landed, but a sector shows what this one says, deep enough: it is kept as one that
    /// has landed, under an unknown CID.
    Shown {
        /// Since when the sector shows it; it landed no later.
        height: ChainEpoch,
    },
}

/// Where a message is looked for that was intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Among those that wait and those that landed.
    Everywhere,
    /// Among those that wait alone, where the node does not tell which have landed: only for one of which no sector shows anything
    /// on chain, and that is older than what can be reorganised away.
    Waiting,
}

/// How a message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it said, but for these sectors.
    Done {
        /// Where it landed.
        height: ChainEpoch,
        /// Sectors that were not activated, and why.
        failed: Vec<(SectorNumber, ExitCode)>,
    },
    /// It did nothing; its sectors are to be parked with the code's meaning.
    Refused {
        /// Where it landed.
        height: ChainEpoch,
        /// Why.
        code: ExitCode,
    },
}

impl Outcome {
    /// How a message ended that has landed; `None`: it has not.
    pub fn of(stage: &Stage) -> Option<Self> {
        let Stage::Landed { height, exit_code, failed, .. } = stage else { return None };
        let (height, code) = (*height, *exit_code);
        Some(match code {
            ExitCode::OK => Self::Done { height, failed: failed.clone() },
            code => Self::Refused { height, code },
        })
    }
}

/// A message that the node has.
struct Found {
    cid: Link,
    nonce: u64,
    /// It is not on chain yet.
    waits: bool,
}

/// Hands messages to a full node.
pub struct Courier<'a, O> {
    pub(super) lotus: &'a Lotus,
    pub(super) outbox: &'a O,
    sending: Sending,
}

impl<'a, O: Outbox> Courier<'a, O> {
    /// A courier that keeps its intents here.
    pub const fn new(lotus: &'a Lotus, outbox: &'a O, sending: Sending) -> Self {
        Self { lotus, outbox, sending }
    }

    /// Sends the message, or shows it.
    ///
    /// # Errors
    /// It is not sent, or, [`SendError::Unknown`], it may have been: [`Self::look_for`] finds out.
    pub async fn submit(&self, draft: Draft) -> Result<Submitted, SendError> {
        match self.sending {
            Sending::Off => {
                tracing::info!(%draft, "not sent, since --send-messages is not given");
                Ok(Submitted::Shown(Box::new(draft)))
            }
            Sending::On => {
                let stage = Stage::Intended { again: None };
                self.outbox.put(&Record { intent: draft.intent.clone(), stage })?;
                Ok(Submitted::Sent(Box::new(self.push(draft.intent, Sight::Everywhere, None).await?)))
            }
        }
    }

    async fn push(
        &self,
        intent: Intent,
        sight: Sight,
        head: Option<ChainEpoch>,
    ) -> Result<Record, SendError> {
        let pushed = match self.lotus.node.push(&message(&intent), intent.id, intent.max_fee).await {
            Ok(pushed) => pushed,
            Err(source @ ChainError::Node { source: ApiError::Remote { .. }, .. }) => {
                return self.refused(intent, sight, head, source).await;
            }
            Err(source) => return Err(SendError::Unknown { id: intent.id, source }),
        };
        tracing::info!(id = %intent.id, cid = pushed.cid.cid, "message sent");
        self.pushed(intent, pushed.cid, pushed.message.nonce, head)
    }

    /// The node has said no. It may have taken the message before it failed, or another one in between has given up waiting for
    /// it: that is looked at once. Only what it surely has not taken and what is nowhere is forgotten, so that it does not stop
    /// the others.
    async fn refused(
        &self,
        intent: Intent,
        sight: Sight,
        head: Option<ChainEpoch>,
        source: ChainError,
    ) -> Result<Record, SendError> {
        match self.find(&intent, sight).await {
            Ok(Some(found)) => self.was_pushed(intent, found, head),
            Ok(None) if was_not_taken(&source) => {
                tracing::warn!(id = %intent.id, error = %source, "the node refuses the message; it is forgotten");
                self.outbox.forget(intent.id)?;
                Err(SendError::Estimate { source })
            }
            Ok(None) | Err(_) => Err(SendError::Unknown { id: intent.id, source }),
        }
    }

    /// Records one that was found.
    fn was_pushed(
        &self,
        intent: Intent,
        found: Found,
        head: Option<ChainEpoch>,
    ) -> Result<Record, SendError> {
        // One that has landed was not sent again: it may lie as far back as when it was intended.
        let seen = head.filter(|_| found.waits);
        self.pushed(intent, found.cid, found.nonce, seen)
    }

    fn pushed(
        &self,
        intent: Intent,
        cid: Link,
        nonce: u64,
        seen: Option<ChainEpoch>,
    ) -> Result<Record, SendError> {
        let record = Record { intent, stage: Stage::Pushed { cid: cid.cid, nonce, seen } };
        self.outbox.put(&record)?;
        Ok(record)
    }

    /// Looks for a message that was intended and is not known to be sent; with one that is nowhere, does as it is told. `head` is
    /// the chain's now. `None`: it is forgotten.
    ///
    /// # Errors
    /// As [`Self::submit`]'s, or the node does not say.
    pub async fn look_for(
        &self,
        record: Record,
        nowhere: Nowhere,
        sight: Sight,
        head: ChainEpoch,
    ) -> Result<Option<Record>, SendError> {
        let (Record { intent, stage }, head) = (record, Some(head));
        if let Some(found) = self.find(&intent, sight).await? {
            let cid = &found.cid.cid;
            tracing::info!(id = %intent.id, cid, "the message was sent before; it is not sent again");
            return self.was_pushed(intent, found, head).map(Some);
        }
        match (nowhere, self.sending) {
            (Nowhere::Forget, _) => {
                tracing::warn!(id = %intent.id, "the message is nowhere and wanted no more; it is forgotten, not sent");
                self.outbox.forget(intent.id)?;
                Ok(None)
            }
            (Nowhere::Shown { height }, _) => {
                tracing::info!(id = %intent.id, height = height.get(), "the message has landed: its sectors show it");
                let (cid, exit_code, failed) = (String::new(), ExitCode::OK, Vec::new());
                let record = Record { intent, stage: Stage::Landed { cid, height, exit_code, failed } };
                self.outbox.put(&record)?;
                Ok(Some(record))
            }
            (Nowhere::Send, Sending::On) => {
                let stage = Stage::Intended { again: head };
                self.outbox.put(&Record { intent: intent.clone(), stage })?;
                self.push(intent, sight, head).await.map(Some)
            }
            (Nowhere::Send, Sending::Off) | (Nowhere::Keep, _) => Ok(Some(Record { intent, stage })),
        }
    }

    /// The message with exactly this content, wherever the node has it. Those that wait are looked at twice: what waited
    /// before the walk over the chain may have landed, and what had landed may wait again after a reorganisation. One that
    /// has ended for another intent is not this one's: a proof that failed is sent again with the same content.
    async fn find(&self, intent: &Intent, sight: Sight) -> Result<Option<Found>, SendError> {
        let waits = self.waiting(intent).await?;
        if waits.is_some() || sight == Sight::Waiting {
            return Ok(waits);
        }
        let since = intent.since.get().saturating_sub(REORGANISED_MAX).max(0);
        let node = &self.lotus.node;
        let ended = self.ended()?;
        for cid in node.landed(&intent.from, &address(intent.miner), since).await? {
            if ended.contains(&cid.cid) {
                continue;
            }
            let found = node.message(&cid).await?;
            if found.method == intent.method.number() && found.params == intent.params {
                return Ok(Some(Found { cid, nonce: found.nonce, waits: false }));
            }
        }
        self.waiting(intent).await
    }

    /// The messages whose end is recorded, by their CIDs.
    fn ended(&self) -> Result<BTreeSet<String>, OutboxError> {
        let cid = |record: Record| match record.stage {
            Stage::Landed { cid, .. } => Some(cid),
            Stage::Intended { .. } | Stage::Pushed { .. } => None,
        };
        Ok(self.outbox.all()?.into_iter().filter_map(cid).collect())
    }

    async fn waiting(&self, intent: &Intent) -> Result<Option<Found>, SendError> {
        let to = message(intent).to;
        let same = |signed: &SignedMessage| {
            let message = &signed.message;
            message.method == intent.method.number()
                && message.params == intent.params
                && message.from == intent.from
                // Test networks' nodes write t where others write f.
                && message.to.get(1..) == to.get(1..)
        };
        let found = self.lotus.node.pending().await?.into_iter().find(same);
        Ok(found.map(|signed| Found { cid: signed.cid, nonce: signed.message.nonce, waits: true }))
    }

    /// A message that had landed, and that a reorganisation has taken off the chain: if the node has it among those that wait, it
    /// is on its way again, and is not sent a second time. `head` is the chain's now.
    ///
    /// # Errors
    /// The node does not answer, or the outbox cannot be written.
    pub async fn revive(&self, record: &Record, head: ChainEpoch) -> Result<Option<Record>, SendError> {
        match self.waiting(&record.intent).await? {
            Some(found) => self.was_pushed(record.intent.clone(), found, Some(head)).map(Some),
            None => Ok(None),
        }
    }

    /// Waits until the message lies deep enough on chain, through reorganisations, and records how it ended. One that is lost
    /// is forgotten.
    ///
    /// # Errors
    /// The record names no message, the message is lost, or the node does not answer.
    pub async fn settle(&self, record: &Record) -> Result<Outcome, SendError> {
        let Stage::Pushed { cid, .. } = &record.stage else {
            let cid = record.intent.id.to_string();
            return Err(SendError::Lost { cid, since: record.intent.since });
        };
        let cid = Link::new(cid);
        let since = record.intent.since;
        let seen = record.since();
        // Before that it did nothing, or it would not have been on its way then: the node need not look so far back.
        let last = Intent { since: seen, ..record.intent.clone() };
        loop {
            let head = self.lotus.node.head().await?.height;
            match self.lotus.node.search(&cid, -1).await? {
                Some(lookup) if head.saturating_sub(lookup.height) >= CONFIDENCE => {
                    return self.landed(record, lookup);
                }
                Some(_) => {}
                // After so long it must be somewhere. It is not sent again by itself: a person is to look first.
                None if head.saturating_sub(seen.get()) > REORGANISED_MAX
                    && self.find(&last, Sight::Everywhere).await?.is_none() =>
                {
                    // Kept, it would be taken for one on its way at the next start.
                    tracing::warn!(id = %record.intent.id, cid = cid.cid, "the message is lost; it is forgotten");
                    self.outbox.forget(record.intent.id)?;
                    return Err(SendError::Lost { cid: cid.cid, since });
                }
                None => {}
            }
            tokio::time::sleep(self.lotus.pause()).await;
        }
    }

    fn landed(&self, record: &Record, lookup: Lookup) -> Result<Outcome, SendError> {
        let exit_code = ExitCode(lookup.receipt.exit_code);
        let sectors = &record.intent.sectors;
        let answered = record.intent.method == Method::ProveCommitSectors3 && exit_code == ExitCode::OK;
        let failures = if answered { failed_activations(&lookup.receipt.answer.0) } else { Some(Vec::new()) };
        let failures = failures.ok_or_else(|| ChainError::Answer {
            method: "StateSearchMsg",
            detail: "the miner actor's answer does not say which sectors were activated".to_owned(),
        })?;
        let failed: Vec<_> =
            failures.into_iter().filter_map(|(at, code)| Some((*sectors.get(at)?, ExitCode(code)))).collect();
        let height = ChainEpoch::new(lookup.height);
        let stage = Stage::Landed { cid: lookup.message.cid, height, exit_code, failed: failed.clone() };
        self.outbox.put(&Record { intent: record.intent.clone(), stage })?;
        tracing::info!(id = %record.intent.id, %exit_code, gas = lookup.receipt.gas_used, "message landed");
        Ok(match exit_code {
            ExitCode::OK => Outcome::Done { height, failed },
            code => Outcome::Refused { height, code },
        })
    }
}

/// Whether the node has surely not put the message among those that wait. Of Lotus's `MpoolPushMessage` that is what it does before
/// it hands the signed message on; what comes later, such as a nonce that cannot be saved, may follow a message that was taken, and
/// so may the words of whoever stands between.
fn was_not_taken(error: &ChainError) -> bool {
    /// JSON-RPC's codes for a request that was not carried out: no JSON, no request, no such method, other parameters.
    const NOT_CARRIED_OUT: [i64; 4] = [-32700, -32600, -32601, -32602];
    const BEFORE: [&str; 12] = [
        "missing permission to invoke",
        "getting key address",
        "taking lock",
        "MpoolPushMessage expects message nonce to be 0",
        "GasEstimateMessageGas error",
        "After estimation, GasPremium is greater than GasFeeCap",
        "mpool push: getting origin balance",
        "mpool push: not enough funds",
        "failed to create nonce",
        "serializing message",
        "failed to sign message",
        "mpool push: failed to sign message",
    ];
    let ChainError::Node { source: ApiError::Remote { code, message }, .. } = error else { return false };
    NOT_CARRIED_OUT.contains(code) || BEFORE.iter().any(|begin| message.starts_with(begin))
}
