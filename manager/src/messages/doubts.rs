//! Messages of which it is not known whether they were sent: each is looked for, and sent once more only when it is nowhere after
//! so long that nobody can be at work on it still. Meanwhile its sectors wait, and no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use chain::params::Method;
use chain::sending::batch::Now;
use chain::sending::{
    Courier, Intent, Nowhere, Outbox as _, REORGANISED_MAX, Record, SendError, Sending, Sight, Stage,
};
use chain::{Allocation, Chain as _, ChainError, SectorStanding};
use sealtasks::{ChainEpoch, SectorId};
use uuid::Uuid;

use super::Wanted;
use super::gathered::{Gathered, method_of, policy, wanted_by};
use super::kept::Kept;
use super::post::Post;
use super::stands::{CONFIDENCE, Judged};
use crate::shared::Shared;
use crate::workers::chain_of;

/// A node, or who stands between, may be at work for so many heights on a message that it was given: longer than anybody waits
/// for its answer (3 minutes, 6 heights).
const AT_WORK: i64 = 10;
/// The pause before the node is asked again doubles so often each time that it does not say: up to 320 heights. The walk over the
/// chain is what it may not end, and costs it most.
const DOUBLED_MAX: u32 = 5;

/// All of them.
pub(super) struct Doubts {
    open: BTreeMap<Uuid, Doubt>,
    /// The outbox is to be read: it may have others, of an earlier life or of a record that was not written.
    pub(super) is_stale: bool,
}

/// One of them.
pub(super) struct Doubt {
    record: Record,
    /// It was looked for since it was last tried.
    was_looked_for: bool,
    /// From then on it is sent again if it is nowhere.
    due: ChainEpoch,
    /// Why it is not although it is due; empty: nothing is against it.
    held_back: String,
    /// Below it the node is not asked again: it did not say.
    again: ChainEpoch,
    /// So often in a row it did not.
    unsaid: u32,
}

impl Default for Doubts {
    fn default() -> Self {
        // What an earlier life has meant to send comes first.
        Self { open: BTreeMap::new(), is_stale: true }
    }
}

impl Doubts {
    /// Whether it is not known if a message of this kind was sent for this sector.
    pub(super) fn about(&self, method: Method, sector: SectorId) -> Option<&Doubt> {
        self.open.values().find(|doubt| is_about(&doubt.record.intent, method, sector))
    }
}

impl Doubt {
    fn new(record: Record, head: ChainEpoch) -> Self {
        let (due, again) = (after(head, AT_WORK), ChainEpoch::default());
        Self { record, was_looked_for: false, due, held_back: String::new(), again, unsaid: 0 }
    }

    /// What is said of its sectors; `None`: something is, since the node has not said whether it is anywhere.
    pub(super) fn words(&self, sending: Sending) -> Option<String> {
        if !self.was_looked_for {
            return None;
        }
        let leave = match sending {
            Sending::On => "",
            Sending::Off => ", with --send-messages",
        };
        let then = match self.held_back.as_str() {
            "" => format!("if it is nowhere at height {} it is sent again{leave}", self.due.get()),
            why => format!("it is not sent again now: {why}"),
        };
        Some(format!(
            "its message waits: whether it was sent is not known, and it is neither waiting nor on chain now; {then}"
        ))
    }

    /// The node has said where it is, or that it is nowhere.
    fn looked_for(&mut self, held_back: String) {
        (self.was_looked_for, self.held_back, self.unsaid) = (true, held_back, 0);
    }

    /// It has not; the height at which it is asked again. Where a height is late for one of its sectors, it is soon.
    fn not_said(&mut self, head: ChainEpoch, is_late: impl Fn(ChainEpoch) -> bool) -> ChainEpoch {
        let paused = after(head, AT_WORK << self.unsaid.min(DOUBLED_MAX));
        let again = if is_late(paused) { after(head, AT_WORK) } else { paused };
        (self.was_looked_for, self.again) = (false, again);
        self.unsaid = self.unsaid.saturating_add(1);
        self.again
    }
}

/// What is done with one that is nowhere.
struct Fate {
    nowhere: Nowhere,
    /// Why it is only kept; empty where it is not.
    why: String,
}

impl Fate {
    const fn of(nowhere: Nowhere) -> Self {
        Self { nowhere, why: String::new() }
    }

    const fn keep(why: String) -> Self {
        Self { nowhere: Nowhere::Keep, why }
    }
}

impl Post {
    /// Looks for those that are in doubt. What the node does not say of one stops no other one.
    pub(super) async fn find_out(&mut self, shared: &Arc<Shared>, now: Now) -> Result<(), SendError> {
        if self.doubts.is_stale {
            self.read_doubts(now.head)?;
        }
        let is_due =
            |doubt: &Doubt| (!doubt.was_looked_for || doubt.due <= now.head) && doubt.again <= now.head;
        let due: Vec<Uuid> =
            self.doubts.open.iter().filter(|(_, doubt)| is_due(doubt)).map(|(id, _)| *id).collect();
        for id in due {
            self.find_out_of(shared, id, now).await?;
        }
        Ok(())
    }

    fn read_doubts(&mut self, head: ChainEpoch) -> Result<(), SendError> {
        let mut known = std::mem::take(&mut self.doubts.open);
        for record in self.outbox.all()? {
            match record.stage {
                Stage::Landed { .. } => {}
                Stage::Pushed { .. } => self.note_sent(&record),
                Stage::Intended { .. } => {
                    let id = record.intent.id;
                    let doubt = known.remove(&id).unwrap_or_else(|| Doubt::new(record, head));
                    self.doubts.open.insert(id, doubt);
                }
            }
        }
        self.doubts.is_stale = false;
        Ok(())
    }

    async fn find_out_of(&mut self, shared: &Arc<Shared>, id: Uuid, now: Now) -> Result<(), SendError> {
        let Some(doubt) = self.doubts.open.get(&id) else { return Ok(()) };
        let (record, is_due) = (doubt.record.clone(), doubt.due <= now.head);
        let looked = self.looked_for(shared, &record, is_due, now).await;
        let whose = |one: &Gathered| is_about(&record.intent, method_of(&one.wanted), one.wanted.sector.id);
        let held_back = match looked {
            Ok(Some((found, why))) => {
                self.note_sent(&found);
                matches!(found.stage, Stage::Intended { .. }).then_some(Some(why))
            }
            Ok(None) => None,
            Err(SendError::Chain(error)) => {
                self.not_said(shared, id, now.head, &error);
                return Ok(());
            }
            Err(error) => {
                self.held_up(&error, whose);
                match error {
                    // It was sent once more, and again nobody knows.
                    SendError::Unknown { .. } => Some(None),
                    SendError::Estimate { .. } => None,
                    error => {
                        self.doubts.is_stale |= matches!(error, SendError::Outbox(_));
                        return Err(error);
                    }
                }
            }
        };
        let (Some(doubt), Some(held_back)) = (self.doubts.open.get_mut(&id), held_back) else {
            self.doubts.open.remove(&id);
            return Ok(());
        };
        match held_back {
            Some(why) => doubt.looked_for(why),
            None => {
                doubt.was_looked_for = false;
                doubt.record.stage = Stage::Intended { again: Some(now.head) };
            }
        }
        if is_due {
            doubt.due = after(now.head, AT_WORK);
        }
        Ok(())
    }

    /// What is known of it now, and why it is not sent again though it is nowhere; `None`: it is forgotten.
    async fn looked_for(
        &self,
        shared: &Arc<Shared>,
        record: &Record,
        is_due: bool,
        now: Now,
    ) -> Result<Option<(Record, String)>, SendError> {
        let intent = &record.intent;
        let fate = match is_due {
            true => {
                let fate = self.if_nowhere(shared, intent, now).await;
                fate.unwrap_or_else(|error| Fate::keep(chain_of(&error)))
            }
            false => Fate::of(Nowhere::Keep),
        };
        let courier = Courier::new(&self.lotus, &*self.outbox, self.sending);
        let looked = courier.look_for(record.clone(), fate.nowhere, Sight::Everywhere, now.head).await;
        let error = match looked {
            Err(SendError::Chain(error)) if is_due => error,
            looked => return Ok(looked?.map(|record| (record, fate.why))),
        };
        let fate = self.if_unseen(shared, &courier, record, now).await?;
        if fate.nowhere == Nowhere::Keep && fate.why.is_empty() {
            return Err(error.into());
        }
        if matches!(fate.nowhere, Nowhere::Send | Nowhere::Forget) {
            tracing::warn!(
                id = %intent.id, error = chain_of(&error),
                "the node does not tell whether the message has landed; no sector of it shows anything of it"
            );
        }
        let looked = courier.look_for(record.clone(), fate.nowhere, Sight::Waiting, now.head).await;
        Ok(looked?.map(|record| (record, fate.why)))
    }

    /// What is done with one that is due and nowhere. Where its sectors want something else by now, or nothing, or the ticket of one has
    /// expired, it is forgotten; what holds other messages back holds it back, too.
    async fn if_nowhere(&self, shared: &Arc<Shared>, intent: &Intent, now: Now) -> Result<Fate, ChainError> {
        let Some(wanted) = wanted_by(&self.gathered, intent) else { return Ok(Fate::of(Nowhere::Forget)) };
        for one in &wanted {
            match self.judge(shared, one, now.head).await? {
                Judged::Goes => {}
                Judged::Later => return Ok(Fate::keep(not_settled(one.sector.id))),
                // Its sector is told when it is sorted out.
                Judged::Ends(_) => return Ok(Fate::of(Nowhere::Forget)),
            }
        }
        let is_late = |one: &Wanted| one.cutoff < now.head;
        if self.sending == Sending::On
            && intent.method == Method::PreCommitSectorBatch2
            && wanted.iter().any(is_late)
        {
            // It can do nothing any more: the late ones are sealed anew, the others get another message.
            return Ok(Fate::of(Nowhere::Forget));
        }
        if let Some(why) = shared.unsaid.of(intent.miner) {
            return Ok(Fate::keep(why));
        }
        if self.sending == Sending::Off {
            // Leave is what it lacks; the base fee holds nothing back that is only shown.
            return Ok(Fate::of(Nowhere::Keep));
        }
        let policy = policy(&shared.chain_settings, intent.method);
        let is_near = |one: &Wanted| policy.is_near(one.cutoff, now.head);
        if let Some(most) = policy.limit_below(now.base_fee).filter(|_| !wanted.iter().any(is_near)) {
            return Ok(Fate::keep(format!(
                "the base fee of {} is above {most} ([chain] base_fee_max)",
                now.base_fee
            )));
        }
        Ok(Fate::of(Nowhere::Send))
    }

    /// What is done with one that is due, where the node does not tell which messages have landed: it has forgotten what lies so far
    /// back, or may not say. Then its sectors are asked. A message that has done something shows in the state of each of them: its
    /// number is used up, or it is proven. So one that is neither among those that wait nor in the head, and of which no sector
    /// shows anything, has not landed with success; and where that is so for longer than anything can be reorganised away, it is
    /// taken for nowhere; one that was sent again may be on its way since. It keeps its id, under which a node that ever had it
    /// gives the same message again, so that it does not lie on chain twice. What the chain says against it counts at any age, and
    /// so does what a sector shows of it.
    async fn if_unseen(
        &self,
        shared: &Arc<Shared>,
        courier: &Courier<'_, Kept>,
        record: &Record,
        now: Now,
    ) -> Result<Fate, ChainError> {
        let intent = &record.intent;
        let ids = intent.sectors.iter().map(|number| SectorId { miner: intent.miner, number: *number });
        let ids: Vec<SectorId> = ids.collect();
        // What a sector is on chain is asked after this.
        let under_way = courier.under_way(&[intent.miner]).await?;
        if ids.iter().any(|id| under_way.iter().any(|found| found.is_about(intent.method, *id))) {
            return Ok(Fate::of(Nowhere::Keep));
        }
        let fate = self.if_nowhere(shared, intent, now).await?;
        let promises = intent.method == Method::PreCommitSectorBatch2;
        if promises && fate.nowhere == Nowhere::Forget {
            // Forgotten, it would be somebody else's that has taken these numbers.
            if let Some(shown) = self.if_shown(intent, &ids, now.head).await? {
                return Ok(shown);
            }
        }
        let age = now.head.get().saturating_sub(record.since().get());
        if age <= REORGANISED_MAX
            && !(fate.nowhere == Nowhere::Forget && self.is_over(shared, intent, now).await)
        {
            return Ok(Fate::of(Nowhere::Keep));
        }
        if promises && fate.nowhere == Nowhere::Send {
            for id in ids {
                match self.lotus.allocation(id).await? {
                    Allocation::Free => {}
                    // It was there, and is over.
                    Allocation::Spent => return Ok(Fate::of(Nowhere::Forget)),
                    // It was not a moment ago.
                    Allocation::PreCommitted | Allocation::Proven => return Ok(Fate::of(Nowhere::Keep)),
                }
            }
        }
        Ok(fate)
    }

    /// What is done with a pre-commitment that a sector of it shows on chain: they go or fail together, so it has landed with success.
    /// `None`: none shows it.
    async fn if_shown(
        &self,
        intent: &Intent,
        ids: &[SectorId],
        head: ChainEpoch,
    ) -> Result<Option<Fate>, ChainError> {
        for id in ids {
            let (sealed, height) = match self.lotus.standing(*id).await? {
                SectorStanding::PreCommitted { sealed, epoch, .. } => (sealed, epoch),
                SectorStanding::Proven { sealed, activation, .. } => (sealed, activation),
                SectorStanding::Unknown => continue,
            };
            if !intent.says(sealed.commitment().bytes()) {
                continue;
            }
            return Ok(Some(match head.get().saturating_sub(height.get()) >= CONFIDENCE {
                true => Fate::of(Nowhere::Shown { height }),
                false => Fate::keep(not_settled(*id)),
            }));
        }
        Ok(None)
    }

    /// Whether a message of which a sector wants nothing any more can do nothing at all: pre-commitments go or fail together, and
    /// a proof goes whatever is found of those beside it.
    async fn is_over(&self, shared: &Arc<Shared>, intent: &Intent, now: Now) -> bool {
        let Some(wanted) = wanted_by(&self.gathered, intent) else { return false };
        if intent.method == Method::PreCommitSectorBatch2 {
            return true;
        }
        for one in &wanted {
            if !matches!(self.judge(shared, one, now.head).await, Ok(Judged::Ends(_))) {
                return false;
            }
        }
        true
    }

    /// Says why nobody knows.
    fn not_said(&mut self, shared: &Shared, id: Uuid, head: ChainEpoch, error: &ChainError) {
        let Some(doubt) = self.doubts.open.get_mut(&id) else { return };
        let intent = doubt.record.intent.clone();
        let whose = |one: &&Gathered| is_about(&intent, method_of(&one.wanted), one.wanted.sector.id);
        let policy = policy(&shared.chain_settings, intent.method);
        let is_late =
            |at| self.gathered.iter().filter(whose).any(|one| policy.is_near(one.wanted.cutoff, at));
        let again = doubt.not_said(head, is_late);
        let text = format!(
            "its message waits: whether it was sent is not known, and the full node does not tell: {}; it is asked again at \
             height {}",
            chain_of(error),
            again.get()
        );
        for one in self.gathered.iter().filter(whose) {
            self.notes.set(one.wanted.sector.id, &text);
        }
        tracing::warn!(%id, error = chain_of(error), again = again.get(), "a message cannot be looked for now");
    }
}

fn not_settled(sector: SectorId) -> String {
    format!("the chain has not settled yet where sector {} stands", sector.number)
}

fn after(head: ChainEpoch, heights: i64) -> ChainEpoch {
    ChainEpoch::new(head.get().saturating_add(heights))
}

fn is_about(intent: &Intent, method: Method, sector: SectorId) -> bool {
    intent.method == method && intent.miner == sector.miner && intent.sectors.contains(&sector.number)
}
