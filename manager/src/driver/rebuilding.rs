//! Sectors whose files are lost, sealed again. Never: decides that files are lost; what the index knows of stands against
//! it.

use pipeline::{RandomnessSource, SealTicket, SectorEvent, SectorRecord, SectorState};
use rpc::pipelining::Lost;
use rpc::{ApiError, ApiResult};
use sealtasks::{ChainEpoch, FileTypes, SectorId, StorageId};
use stores::HeldFiles;

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
        match self.is_whole(id, known.is_some()) {
            // Nothing of it is lost, or it is back already.
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err((code, why)) => return Err(refuse(code, why)),
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

    /// Whether all of a known sector's replica lies in paths that are there. The error is the code and the reason why it
    /// must not be sealed again: that begins with the deletion of every file of it, and one that is away may be good.
    fn is_whole(&self, id: SectorId, is_known: bool) -> Result<bool, (&'static str, String)> {
        let (index, number) = (&self.shared.index, id.number);
        let files: Vec<_> =
            index.sector_files(id).into_iter().filter(|held| !left(held).is_empty()).collect();
        let is_there = |held: &HeldFiles| index.path_view(&held.id).is_some_and(|path| path.healthy);
        let there =
            files.iter().filter(|held| is_there(held)).fold(FileTypes::NONE, |all, held| all | held.types);
        if is_known && there.intersection(REPLICA) == REPLICA {
            return Ok(true);
        }
        let forget = format!(
            "if they are gone for good, `sealyard storage redeclare --drop-missing` or `sealyard storage detach` forgets \
             them; `sealyard storage find {number}` shows all"
        );
        if let Some(held) = files.iter().find(|held| !held.unconfirmed.intersection(REPLICA).is_empty()) {
            let why = format!("path {} is remembered to hold files of it and is not back; {forget}", held.id);
            return Err(("MGR143", why));
        }
        if let Some(held) = files.iter().find(|held| !is_there(held)) {
            let why = format!("path {} holds files of it and does not answer now; {forget}", held.id);
            return Err(("MGR144", why));
        }
        match files.first() {
            None => Ok(false),
            Some(held) => Err(("MGR139", format!("path {} holds files of it; {forget}", held.id))),
        }
    }

    /// Where a replica lies, or is remembered to lie, that PreCommit1 would delete, of a sector that is sealed again.
    pub(super) fn turned_up(&self, id: SectorId) -> Option<StorageId> {
        let index = &self.shared.index;
        let stores =
            |held: &HeldFiles| index.path_view(&held.id).is_none_or(|path| path.info.stanza.can_store);
        let mut files = index.sector_files(id).into_iter();
        files.find(|held| !left(held).is_empty() && stores(held)).map(|held| held.id)
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

/// What of the replica was declared there, or is remembered.
fn left(held: &HeldFiles) -> FileTypes {
    held.types.union(held.unconfirmed).intersection(REPLICA)
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
