//! Sectors that an operator removed: their records stay, nothing is done with them any more, and their files are what a
//! clean-up offers. Never: deletes a file.

use pipeline::{RandomnessSource, SectorRecord, Step};
use rpc::{ApiError, ApiResult, SectorName};
use sealtasks::{FileType, FileTypes, SectorId, StorageId};

use super::Driver;
use super::input::{Busy, Reply, Sector};
use crate::state::StateEvent;

/// Lotus's name of the state.
pub(crate) const REMOVED: &str = "Removed";

/// Why their files may go, for the permit.
pub(crate) const CLEANED_UP: &str = "its sector was removed, and an operator cleans up";

/// The messages that a sector's record names: its pre-commitment's and its proof's.
pub(crate) type Named = [Option<String>; 2];

/// On what a sector is removed.
pub(crate) enum Leave {
    /// The operator takes whatever loss it is.
    Explicit,
    /// Nothing of it was on chain, nor on its way there, when its record named these.
    Asked(Named),
}

/// The messages that it names now.
pub(crate) fn named_by(record: &SectorRecord) -> Named {
    let progress = record.progress();
    [&progress.pre_commit, &progress.commit]
        .map(|there| there.as_ref().and_then(|there| there.message.clone()))
}

/// What is said of a sector that is removed by an explicit word alone.
pub(crate) fn although(sector: SectorName, why: &str) -> ApiError {
    ApiError::refused(format!(
        "MGR190: sector {sector} is not removed: {why}. If that is what you want, add --although-on-chain"
    ))
}

impl Driver {
    /// Takes a sector that nothing is being done with out of the pipeline, for good.
    pub(super) fn remove_sector(&mut self, id: SectorId, leave: &Leave, by: String, reply: Reply<()>) {
        let answer = self.removable(id, leave).map(|()| {
            if let Some(sector) = self.sectors.remove(&id) {
                self.shared.index.keep(id, FileTypes::NONE, None);
                self.removed.insert(id, *sector.record);
            }
            self.drop_given(id);
            self.errand_failures.remove(&id);
            self.errands_done.remove(&id);
            tracing::info!(sector = %id, by, "removed; its record stays");
            self.events.push(StateEvent::SectorRemoved { sector: id, by });
        });
        self.answer(reply, answer);
    }

    fn removable(&self, id: SectorId, leave: &Leave) -> ApiResult<()> {
        let number = self.shared.name(id);
        let Some(sector) = self.sectors.get(&id) else {
            return Err(match self.removed.contains_key(&id) {
                true => ApiError::refused(format!("MGR120: sector {number} is removed already")),
                false => self.shared.no_sector(id),
            });
        };
        // The chain was asked before, and the message may have gone since.
        if let Leave::Asked(named) = leave
            && let Some(why) = on_its_way(&sector.record, named)
        {
            return Err(although(number, &why));
        }
        let given_up = self.detached.values().any(|given_up| given_up.sector.id == id);
        let worked_on = matches!(sector.busy, Busy::Task(_) | Busy::Asking) && !self.waits_for_chain(sector);
        if worked_on && self.message_of(&sector.record).is_some() {
            return Err(ApiError::refused(format!(
                "MGR204: sector {number} is not removed: its message may go at any moment; once it is sent the sector can be \
                 removed with --although-on-chain, before that by a manager without --send-messages"
            )));
        }
        if given_up || worked_on || self.errands.contains_key(&id) {
            return Err(ApiError::refused(format!(
                "MGR121: sector {number} is being worked on; end that first (`sealyard sealing abort`), `sealyard sectors \
                 status {number}` shows what is under way"
            )));
        }
        Ok(())
    }

    /// Whether nothing of it is under way but what the chain is asked, or may be told by an operator's leave alone. What comes of a
    /// question after its sector is gone is dropped. Whether it may be removed then is asked before.
    fn waits_for_chain(&self, sector: &Sector) -> bool {
        let is_asked = matches!(sector.record.next(), Step::AwaitMessage { .. } | Step::NeedSeed);
        let is_shown = self.message_of(&sector.record).is_some_and(|(_, unsent)| unsent);
        sector.busy == Busy::Asking && (is_asked || is_shown)
    }

    /// The record of a removed sector.
    pub(crate) fn removed(&self, id: SectorId) -> Option<&SectorRecord> {
        self.removed.get(&id)
    }

    /// The records of all of them, lowest number first.
    pub(crate) fn removed_records(&self) -> impl Iterator<Item = &SectorRecord> {
        self.removed.values()
    }

    /// Whether an operator removed it.
    pub(crate) fn is_removed(&self, id: SectorId) -> bool {
        self.removed.contains_key(&id)
    }

    /// Whether it was known by a file alone when it was removed: what lies of it may be the original, and nobody here has
    /// proven that it is not.
    pub(crate) fn is_told_removed(&self, id: SectorId) -> bool {
        self.removed.get(&id).is_some_and(SectorRecord::is_told)
    }

    /// Makes the permit to delete a removed sector's file durable.
    pub(super) fn permit_removal(&mut self, (sector, file, path): RemovedFile, reply: Reply<()>) {
        let answer = if self.is_told_removed(sector) {
            Err(ApiError::refused(format!(
                "MGR161: sector {} was known by a file alone and never stored here, so what lies of it is not this \
                 manager's to delete; delete it by hand if it is worth nothing",
                self.shared.name(sector)
            )))
        } else if self.removed.contains_key(&sector) {
            let reason = CLEANED_UP.to_owned();
            self.events.push(StateEvent::DeletePermitted { sector, file, path, reason });
            Ok(())
        } else {
            Err(ApiError::refused(format!("MGR122: sector {} is not removed", self.shared.name(sector))))
        };
        self.answer(reply, answer);
    }
}

/// Why the sector may be on its chain, or on its way there, although nothing of it was when its record named these messages.
fn on_its_way(record: &SectorRecord, named: &Named) -> Option<String> {
    if record.source() != RandomnessSource::Lotus {
        return None;
    }
    match record.next() {
        Step::AwaitMessage { message } => {
            Some(format!("message {message} of it may be on its way to the chain"))
        }
        Step::NeedSeed => Some(
            "its pre-commitment has landed by its record; the chain did not show it when it was asked, but it may since, or come back \
             after a reorganisation, and unless the sector is proven then its deposit is lost"
                .to_owned(),
        ),
        _ if named_by(record) != *named => {
            Some("a message of it was sent while the chain was asked about it".to_owned())
        }
        _ => None,
    }
}

/// A file of a removed sector.
pub(crate) type RemovedFile = (SectorId, FileType, StorageId);
