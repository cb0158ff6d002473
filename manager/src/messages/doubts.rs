//! Messages of which it is not known whether they were sent: each is looked for, and sent once more only when it is nowhere after
//! so long that nobody can be at work on it still. Meanwhile its sectors wait, and no others.

use std::collections::BTreeMap;

use chain::params::Method;
use chain::sending::{Courier, Nowhere, Outbox as _, Record, SendError, Sending, Stage};
use sealtasks::{ChainEpoch, SectorId};
use uuid::Uuid;

use super::gathered::{Gathered, is_wanted, method_of};
use super::post::Post;

/// A node, or who stands between, may be at work for so many heights on a message that it was given: longer than anybody waits
/// for its answer (3 minutes, 6 heights).
const AT_WORK: i64 = 10;

/// All of them.
pub(super) struct Doubts {
    open: BTreeMap<Uuid, Doubt>,
    /// The outbox is to be read: it may have others, of an earlier life or of a record that was not written.
    pub(super) is_stale: bool,
}

struct Doubt {
    record: Record,
    /// It was looked for since it was last tried.
    was_looked_for: bool,
    /// From then on it is sent again if it is nowhere.
    due: ChainEpoch,
    /// Below it the node is not asked again: it did not say.
    again: ChainEpoch,
}

impl Default for Doubts {
    fn default() -> Self {
        // What an earlier life has meant to send comes first.
        Self { open: BTreeMap::new(), is_stale: true }
    }
}

impl Doubts {
    /// Until when, at least, it is not known whether a message of this kind was sent for this sector; and whether the node has
    /// said that it is nowhere now.
    pub(super) fn about(&self, method: Method, sector: SectorId) -> Option<(ChainEpoch, bool)> {
        let doubt = self.open.values().find(|doubt| is_about(&doubt.record, method, sector));
        doubt.map(|doubt| (doubt.due, doubt.was_looked_for))
    }
}

impl Post {
    /// Looks for those that are in doubt. What the node does not say of one stops no other one.
    pub(super) async fn find_out(&mut self, head: ChainEpoch) -> Result<(), SendError> {
        if self.doubts.is_stale {
            self.read_doubts(head)?;
        }
        let is_due = |doubt: &Doubt| (!doubt.was_looked_for || doubt.due <= head) && doubt.again <= head;
        let due: Vec<Uuid> =
            self.doubts.open.iter().filter(|(_, doubt)| is_due(doubt)).map(|(id, _)| *id).collect();
        for id in due {
            self.find_out_of(id, head).await?;
        }
        Ok(())
    }

    fn read_doubts(&mut self, head: ChainEpoch) -> Result<(), SendError> {
        let mut known = std::mem::take(&mut self.doubts.open);
        let due = ChainEpoch::new(head.get().saturating_add(AT_WORK));
        for record in self.outbox.all()? {
            match record.stage {
                Stage::Landed { .. } => {}
                Stage::Pushed { .. } => self.note_sent(&record),
                Stage::Intended => {
                    let id = record.intent.id;
                    let doubt = known.remove(&id);
                    let again = ChainEpoch::default();
                    let doubt = doubt.unwrap_or(Doubt { record, was_looked_for: false, due, again });
                    self.doubts.open.insert(id, doubt);
                }
            }
        }
        self.doubts.is_stale = false;
        Ok(())
    }

    async fn find_out_of(&mut self, id: Uuid, head: ChainEpoch) -> Result<(), SendError> {
        let Some(doubt) = self.doubts.open.get(&id) else { return Ok(()) };
        let (record, is_due) = (doubt.record.clone(), doubt.due <= head);
        let nowhere = match (is_due, is_wanted(&self.gathered, &record.intent)) {
            (false, _) => Nowhere::Keep,
            (true, true) => Nowhere::Send,
            (true, false) => Nowhere::Forget,
        };
        let courier = Courier::new(&self.lotus, &*self.outbox, self.sending);
        let looked = courier.look_for(record.clone(), nowhere).await;
        let was_looked_for = looked.is_ok();
        let is_open = match looked {
            Ok(None) => false,
            Ok(Some(found)) => {
                self.note_sent(&found);
                found.stage == Stage::Intended
            }
            Err(error) => {
                let whose = |one: &Gathered| is_about(&record, method_of(&one.wanted), one.wanted.sector.id);
                self.held_up(&error, whose);
                match error {
                    // It was sent once more, and again nobody knows.
                    SendError::Unknown { .. } => true,
                    SendError::Estimate { .. } => false,
                    // Also when the walk over the chain does not end in time: others go, and the node has its rest.
                    SendError::Chain(_) => {
                        if let Some(doubt) = self.doubts.open.get_mut(&id) {
                            doubt.again = ChainEpoch::new(head.get().saturating_add(AT_WORK));
                        }
                        return Ok(());
                    }
                    error => {
                        self.doubts.is_stale |= matches!(error, SendError::Outbox(_));
                        return Err(error);
                    }
                }
            }
        };
        let Some(doubt) = self.doubts.open.get_mut(&id).filter(|_| is_open) else {
            self.doubts.open.remove(&id);
            return Ok(());
        };
        doubt.was_looked_for = was_looked_for;
        if is_due {
            doubt.due = ChainEpoch::new(head.get().saturating_add(AT_WORK));
        }
        Ok(())
    }

    /// What is said of a sector whose message is in doubt.
    pub(super) fn doubted(&self, sector: SectorId, due: ChainEpoch) {
        let leave = match self.sending {
            Sending::On => "",
            Sending::Off => ", with --send-messages",
        };
        let text = format!(
            "its message waits: whether it was sent is not known, and it is neither waiting nor on chain now; if it is \
             nowhere at height {} it is sent again{leave}",
            due.get()
        );
        self.notes.set(sector, &text);
    }
}

fn is_about(record: &Record, method: Method, sector: SectorId) -> bool {
    let intent = &record.intent;
    intent.method == method && intent.miner == sector.miner && intent.sectors.contains(&sector.number)
}
