//! Sectors whose files are lost, sealed again. Never: decides that files are lost; what the index knows of stands against
//! it.

use pipeline::{RandomnessSource, SealTicket, SectorEvent, SectorRecord, SectorState};
use rpc::pipelining::Lost;
use rpc::{ApiError, ApiResult};
use sealtasks::{ChainEpoch, FileTypes, SectorId};

use super::Driver;
use super::filling::no_sector;
use super::input::Busy;
use crate::state::StateEvent;

/// What makes a sector.
const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

impl Driver {
    /// Begins, or finds that it has begun.
    pub(super) fn rebuild(&mut self, id: SectorId, lost: Option<Lost>) -> ApiResult<()> {
        let number = id.number;
        let refuse = |code: &str, why: String| {
            ApiError::refused(format!("{code}: sector {number} is not sealed again: {why}"))
        };
        if let Some(lost) = lost.as_ref().filter(|lost| lost.sector.id != id) {
            return Err(refuse(
                "MGR136",
                format!("what is given is about {}, and this manager's is {id}", lost.sector.id),
            ));
        }
        if self.removed.contains_key(&id) {
            return Err(refuse("MGR137", "it was removed".to_owned()));
        }
        let known = self.sectors.get(&id).map(|sector| (sector.busy.clone(), sector.record.clone()));
        match (&known, &lost) {
            (Some((_, record)), Some(lost)) => {
                other_sector(record, lost).map_or(Ok(()), |why| Err(refuse("MGR138", why)))?
            }
            (None, None) => return Err(no_sector(id)),
            (Some(_), None) | (None, Some(_)) => {}
        }
        let done = known.as_ref().is_none_or(|(_, record)| record.state() == SectorState::Proving);
        if known.as_ref().is_some_and(|(_, record)| record.rebuilt_to().is_some()) && !done {
            return Ok(());
        }
        let files = self.shared.index.sector_files(id);
        let there =
            files.iter().fold(FileTypes::NONE, |all, held| all.union(held.types)).intersection(REPLICA);
        if known.is_some() && there == REPLICA {
            // Nothing of it is lost, or it is back already.
            return Ok(());
        }
        if let Some(held) = files.iter().find(|held| !held.types.intersection(REPLICA).is_empty()) {
            let why = format!(
                "path {} holds files of it; `sealyard storage find {number}` shows them, and `sealyard storage redeclare \
                 --drop-missing` forgets those that are gone",
                held.id
            );
            return Err(refuse("MGR139", why));
        }
        let Some((busy, _)) = known else {
            return match lost {
                Some(lost) => self.take_in(&lost).map_err(|why| refuse("MGR140", why)),
                None => Err(no_sector(id)),
            };
        };
        if busy != Busy::Free || self.moves.contains_key(&id) || self.errands.contains_key(&id) {
            return Err(refuse(
                "MGR141",
                "something is done with it now; try again when that is over".to_owned(),
            ));
        }
        if let Some(sector) = self.sectors.get_mut(&id) {
            sector.released = false;
        }
        self.ordered(id, SectorEvent::Rebuild, "MGR142")
    }

    /// A sector that was sealed elsewhere.
    fn take_in(&mut self, lost: &Lost) -> Result<(), String> {
        let Lost { sector, ticket, sealed } = lost;
        let size = self.shared.miner.sector_size;
        if sector.proof.sector_size() != size {
            return Err(format!("it has {}, and this manager's sectors {size}", sector.proof.sector_size()));
        }
        if self.shared.randomness == RandomnessSource::Rehearsal {
            return Err("this manager's sectors are a REHEARSAL".to_owned());
        }
        let next = sector.id.number.get().checked_add(1).filter(|next| i64::try_from(*next).is_ok());
        let next = next.ok_or("no such sector number can be")?;
        // The height is not told, and nothing is put on chain that has it.
        let ticket = SealTicket { value: *ticket, epoch: ChainEpoch::default() };
        let record = SectorRecord::lost(*sector, self.shared.randomness, ticket, *sealed);
        let json = serde_json::to_value(&record).map_err(|error| error.to_string())?;
        let state = record.state().name().to_owned();
        self.events.push(StateEvent::SectorPledged { sector: *sector, state, record: json });
        // Its number is not given to another one.
        self.next_sector = self.next_sector.max(next);
        self.insert_sector(record);
        self.pledging_due = true;
        self.advance(sector.id);
        Ok(())
    }
}

/// Why what is given cannot be of this record's sector.
fn other_sector(record: &SectorRecord, lost: &Lost) -> Option<String> {
    let progress = record.progress();
    if record.sector().proof != lost.sector.proof {
        return Some(format!(
            "its record has proof type {}, not {}",
            record.sector().proof,
            lost.sector.proof
        ));
    }
    let sealed = record.rebuilt_to().or(progress.cids.map(|cids| cids.sealed));
    if sealed.is_some_and(|ours| ours != lost.sealed) {
        return Some("its record has another CommR than what is given".to_owned());
    }
    let ours = progress.ticket.map(|ticket| ticket.value);
    let differs = ours.is_some_and(|ours| ours != lost.ticket);
    differs.then(|| "its record has another ticket than what is given".to_owned())
}
