//! What the chain says of sectors whose messages are wanted: whether a message is still needed, and can do anything. Never:
//! sends.

use std::sync::Arc;

use chain::params::Method;
use chain::sending::{Courier, Record, SendError, Stage, UnderWay};
use chain::{ChainError, SectorStanding, SeedStanding};
use pipeline::SectorEvent;
use rpc::ApiError;
use sealtasks::{ChainEpoch, FailureClass, SectorId};

use super::gathered::{Gathered, kind_of, method_of, says};
use super::post::{Post, failed};
use super::{Wanted, What};
use crate::shared::Shared;
use crate::workers::chain_of;

/// What is on chain counts when so many heights lie above it (Lotus's MessageConfidence).
pub(super) const CONFIDENCE: i64 = 5;

/// What becomes of a sector whose message is wanted.
pub(super) enum Judged {
    /// Its message is needed.
    Goes,
    /// The node does not know yet.
    Later,
    /// Its message is not needed, or cannot help.
    Ends(SectorEvent),
}

impl Post {
    /// Whose message is on its way, or has landed, needs none.
    pub(super) async fn sort_out(&mut self, shared: &Arc<Shared>, head: ChainEpoch) -> Result<(), SendError> {
        let mut fresh = Vec::new();
        for at in (0..self.gathered.len()).rev() {
            let one = &self.gathered[at];
            if one.is_new {
                continue;
            }
            let (id, method) = (one.wanted.sector.id, method_of(&one.wanted));
            let event = if let Some(cid) = self.sent.get(&(method.number(), id)) {
                SectorEvent::MessageSent { message: cid.clone() }
            } else if let Some(doubt) = self.doubts.about(method, id) {
                if let Some(text) = doubt.words(self.sending) {
                    self.notes.set(id, &text);
                }
                continue;
            } else {
                match self.judge(shared, &one.wanted, head).await {
                    // What the node does not say of one sector stops no other one's message.
                    Err(error) if is_of_the_sector(&error) => {
                        self.held_up(&error.into(), |one| one.wanted.sector.id == id);
                        continue;
                    }
                    judged => match judged? {
                        Judged::Goes => {
                            fresh.push((method, id));
                            continue;
                        }
                        Judged::Later => continue,
                        Judged::Ends(event) => event,
                    },
                }
            };
            self.gathered.swap_remove(at);
            self.tell(shared, id, event).await;
        }
        match fresh.is_empty() {
            true => Ok(()),
            false => self.let_in(shared, head, &fresh).await,
        }
    }

    /// Lets those in of whom the chain has nothing and whose message nobody has sent: not this manager, and not one that was lost
    /// with its records either. So what waits is asked for first, and then once more what the chain has.
    async fn let_in(
        &mut self,
        shared: &Arc<Shared>,
        head: ChainEpoch,
        fresh: &[(Method, SectorId)],
    ) -> Result<(), SendError> {
        let miners: Vec<_> = shared.miners.all().collect();
        let courier = Courier::new(&self.lotus, &*self.outbox, self.sending);
        let under_way = courier.under_way(&miners).await?;
        for (method, id) in fresh {
            let is_it =
                |one: &Gathered| kind_of(&one.wanted) == (*method, id.miner) && one.wanted.sector.id == *id;
            let Some(at) = self.gathered.iter().position(is_it) else { continue };
            let wanted = &self.gathered[at].wanted;
            let event = match self.sent_before(wanted, head, &under_way).await? {
                Before::Sent(event) => Some(event),
                Before::Other => continue,
                Before::Nothing => match self.judge(shared, wanted, head).await {
                    Ok(Judged::Goes) => None,
                    Ok(Judged::Ends(event)) => Some(event),
                    Ok(Judged::Later) => continue,
                    Err(error) if is_of_the_sector(&error) => {
                        self.held_up(&error.into(), |one| one.wanted.sector.id == *id);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            match event {
                None => self.gathered[at].is_new = true,
                Some(event) => {
                    self.gathered.swap_remove(at);
                    self.tell(shared, *id, event).await;
                }
            }
        }
        Ok(())
    }

    /// Those of a batch that may still go. A proof has waited for its batch, for hours maybe, and the actor would refuse it if
    /// the seed that it answers does not count any more: so that is drawn again just before it is sent.
    pub(super) async fn judged_again(
        &mut self,
        shared: &Arc<Shared>,
        batch: Vec<Gathered>,
        head: ChainEpoch,
    ) -> Result<Vec<Gathered>, SendError> {
        let (mut going, mut left) = (Vec::new(), batch.into_iter());
        while let Some(one) = left.next() {
            let id = one.wanted.sector.id;
            if method_of(&one.wanted) != Method::ProveCommitSectors3 {
                going.push(one);
                continue;
            }
            match self.judge(shared, &one.wanted, head).await {
                Ok(Judged::Goes) => going.push(one),
                Ok(Judged::Later) => self.gathered.push(Gathered { is_new: false, ..one }),
                Ok(Judged::Ends(event)) => self.tell(shared, id, event).await,
                Err(error) if is_of_the_sector(&error) => {
                    self.gathered.push(Gathered { is_new: false, ..one });
                    self.held_up(&error.into(), |one| one.wanted.sector.id == id);
                }
                Err(error) => {
                    self.gathered.extend(going.into_iter().chain([one]).chain(left));
                    return Err(error.into());
                }
            }
        }
        Ok(going)
    }

    /// Asks the chain of one sector.
    pub(super) async fn judge(
        &self,
        shared: &Arc<Shared>,
        wanted: &Wanted,
        head: ChainEpoch,
    ) -> Result<Judged, ChainError> {
        let (id, now_ms) = (wanted.sector.id, shared.state.now_ms());
        if let What::Prove { seed, .. } = wanted.what {
            match self.lotus.seed_standing(id, wanted.sealed, seed).await? {
                SeedStanding::Same => return Ok(Judged::Goes),
                SeedStanding::Changed => {}
                SeedStanding::Below { head } => {
                    let text = format!(
                        "its message waits: the full node's head is at height {}, below the sector's seed at {}",
                        head.get(),
                        seed.1.get()
                    );
                    self.notes.set(id, &text);
                    return Ok(Judged::Later);
                }
            }
        }
        Ok(match stands(self.lotus.standing(id).await?, wanted, head) {
            Stands::Nowhere if method_of(wanted) == Method::ProveCommitSectors3 => {
                Judged::Ends(SectorEvent::SeedChanged { now_ms })
            }
            Stands::Nowhere => Judged::Goes,
            Stands::NotDeep => Judged::Later,
            Stands::There(epoch) => Judged::Ends(SectorEvent::Landed { epoch }),
            Stands::Wrong(message) => Judged::Ends(failed(shared, FailureClass::Environment, message)),
        })
    }

    /// What a reorganisation has taken off the chain waits among the node's messages as a rule, and is not sent twice; nor is what
    /// somebody else has sent for the sector, or this manager before its records were lost.
    async fn sent_before(
        &self,
        wanted: &Wanted,
        head: ChainEpoch,
        under_way: &[UnderWay],
    ) -> Result<Before, SendError> {
        let (id, method) = (wanted.sector.id, method_of(wanted));
        let courier = Courier::new(&self.lotus, &*self.outbox, self.sending);
        for record in self.outbox.landed(method, id)?.iter().rev() {
            if !says(wanted, &record.intent) {
                continue;
            }
            if let Some(Record { stage: Stage::Pushed { cid, .. }, .. }) =
                courier.revive(record, head).await?
            {
                return Ok(Before::Sent(SectorEvent::MessageSent { message: cid }));
            }
        }
        let Some(found) = under_way.iter().find(|found| found.is_about(method, id)) else {
            return Ok(Before::Nothing);
        };
        if !says(wanted, found.intent()) {
            let text = format!(
                "its message waits: message {} names it, too, and says something else of it; that one is to land or to vanish \
                 first",
                found.cid()
            );
            self.notes.set(id, &text);
            return Ok(Before::Other);
        }
        let message = found.cid().to_owned();
        let kept = self.outbox.about(method, id, &message)?;
        let is_known =
            |record: &Record| matches!(&record.stage, Stage::Pushed { cid, .. } if *cid == message);
        if !kept.as_ref().is_some_and(is_known) {
            courier.adopt(found, kept)?;
        }
        Ok(Before::Sent(SectorEvent::MessageSent { message }))
    }
}

/// What was sent for a sector before its message is.
enum Before {
    Nothing,
    /// Exactly that.
    Sent(SectorEvent),
    /// Something else.
    Other,
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
        SectorStanding::Unknown if is_proof && wanted.cutoff < head => {
            Stands::Wrong(format!("the chain has no pre-commitment of {id}; it has expired"))
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
pub(super) const fn is_of_the_sector(error: &ChainError) -> bool {
    matches!(error, ChainError::Node { source: ApiError::Remote { .. }, .. } | ChainError::Answer { .. })
}
