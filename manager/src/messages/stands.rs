//! What the chain says of sectors whose messages are wanted: whether a message is still needed, and can do anything. Never:
//! sends.

use std::sync::Arc;

use chain::params::Method;
use chain::sending::{Courier, Record, SendError, Stage};
use chain::{ChainError, SectorStanding};
use pipeline::SectorEvent;
use rpc::ApiError;
use sealtasks::{ChainEpoch, FailureClass, SectorId};

use super::Wanted;
use super::gathered::{method_of, says};
use super::post::{Post, failed};
use crate::shared::Shared;
use crate::workers::chain_of;

/// What is on chain counts when so many heights lie above it (Lotus's MessageConfidence).
const CONFIDENCE: i64 = 5;

impl Post {
    /// Whose message is on its way, or has landed, needs none.
    pub(super) async fn sort_out(&mut self, shared: &Arc<Shared>, head: ChainEpoch) -> Result<(), SendError> {
        for at in (0..self.gathered.len()).rev() {
            let one = &self.gathered[at];
            if one.is_new {
                continue;
            }
            let (id, method) = (one.wanted.sector.id, method_of(&one.wanted));
            let event = match self.sent.get(&(method.number(), id)) {
                Some(cid) => Some(SectorEvent::MessageSent { message: cid.clone() }),
                None => match self.lotus.standing(id).await {
                    // What the node does not say of one sector stops no other one's message.
                    Err(error) if is_of_the_sector(&error) => {
                        self.held_up(&error.into(), |one| one.wanted.sector.id == id);
                        continue;
                    }
                    standing => match stands(standing?, &one.wanted, head) {
                        Stands::Nowhere => None,
                        Stands::NotDeep => continue,
                        Stands::There(epoch) => Some(SectorEvent::Landed { epoch }),
                        Stands::Wrong(message) => Some(failed(shared, FailureClass::Environment, message)),
                    },
                },
            };
            let event = match event {
                None => self.revived(id, method, &self.gathered[at].wanted).await?,
                event => event,
            };
            match event {
                None => self.gathered[at].is_new = true,
                Some(event) => {
                    self.gathered.swap_remove(at);
                    self.tell(shared, id, event).await;
                }
            }
        }
        Ok(())
    }

    /// What a reorganisation has taken off the chain waits among the node's messages as a rule, and is not sent twice.
    async fn revived(
        &self,
        id: SectorId,
        method: Method,
        wanted: &Wanted,
    ) -> Result<Option<SectorEvent>, SendError> {
        let courier = Courier::new(&self.lotus, &*self.outbox, self.sending);
        for record in self.outbox.landed(method, id)?.iter().rev() {
            if !says(wanted, &record.intent) {
                continue;
            }
            if let Some(Record { stage: Stage::Pushed { cid, .. }, .. }) = courier.revive(record).await? {
                return Ok(Some(SectorEvent::MessageSent { message: cid }));
            }
        }
        Ok(None)
    }
}

/// Where a sector stands whose message is wanted.
enum Stands {
    Nowhere,
    /// What the message says is there, but may be reorganised away.
    NotDeep,
    There(ChainEpoch),
    /// No message can help.
    Wrong(String),
}

/// What the chain says of the sector, for that message.
fn stands(standing: SectorStanding, wanted: &Wanted, head: ChainEpoch) -> Stands {
    let deep = |epoch: ChainEpoch| match head.get().saturating_sub(epoch.get()) >= CONFIDENCE {
        true => Stands::There(epoch),
        false => Stands::NotDeep,
    };
    let (ours, id) = (wanted.sealed, wanted.sector.id);
    let is_proof = method_of(wanted) == Method::ProveCommitSectors3;
    let other = |chain| Stands::Wrong(chain_of(&ChainError::OtherReplica { sector: id, chain, ours }));
    match standing {
        SectorStanding::Unknown if is_proof => {
            Stands::Wrong(format!("the chain has no pre-commitment of {id}; it has expired or never landed"))
        }
        SectorStanding::Unknown => Stands::Nowhere,
        SectorStanding::PreCommitted { sealed, .. } | SectorStanding::Proven { sealed, .. }
            if sealed != ours =>
        {
            other(sealed)
        }
        SectorStanding::PreCommitted { .. } if is_proof => Stands::Nowhere,
        SectorStanding::PreCommitted { epoch, .. } => deep(epoch),
        SectorStanding::Proven { activation, .. } if is_proof => deep(activation),
        SectorStanding::Proven { .. } => Stands::Wrong(format!("{id} is proven on chain already")),
    }
}

/// Whether the node answers, but not with where this sector stands: with another one it may.
const fn is_of_the_sector(error: &ChainError) -> bool {
    matches!(error, ChainError::Node { source: ApiError::Remote { .. }, .. } | ChainError::Answer { .. })
}
