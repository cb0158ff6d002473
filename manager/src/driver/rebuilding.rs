//! Sectors whose files are lost, sealed again. Never: decides that files are lost; what the index knows of stands against
//! it.

use std::collections::BTreeMap;

use pipeline::{
    DataPiece, RandomnessSource, Refill, SealTicket, SectorEvent, SectorRecord, SectorState, Step,
};
use rpc::pipelining::Lost;
use rpc::{ApiError, ApiResult, SectorName};
use sealtasks::{ChainEpoch, FileType, FileTypes, PieceInfo, SealedCid, SectorId, StorageId, Ticket};
use stores::HeldFiles;

use super::Driver;
use super::input::{Busy, Effect, Sector};
use super::originals::{REPLICA, left, listed};
use super::sectors::short_code;
use crate::refill::data_of;
use crate::state::StateEvent;

/// Workers that are there attach their paths again well within this time: they look for their manager every ten seconds.
const BACK_MAX_MS: u64 = 60_000;
/// Refusals behind which the same order comes again: other pieces are missing, the sector is busy, an operator looks at what
/// an earlier rebuild has left, or a path may yet come back.
const GIVEN_STAYS: [&str; 4] = ["MGR153", "MGR141", "MGR157", "MGR159"];

/// Said when files of the replica are there, but not all of them, or not of a sector that is known.
const PART_LEFT: &str = "MGR139";

impl Driver {
    /// Begins, or finds that it has begun. What was given for it and is not taken does not stay, but where it is sure to be
    /// asked for again soon.
    pub(super) fn rebuild(&mut self, id: SectorId, lost: Option<Lost>, bad: &[StorageId]) -> ApiResult<()> {
        let answer = self.begin_rebuild(id, lost, bad);
        let error = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if !GIVEN_STAYS.iter().any(|code| error.contains(code)) {
            self.drop_given(id);
        }
        answer
    }

    /// Nobody takes what waits for its rebuild.
    pub(super) fn drop_given(&mut self, id: SectorId) {
        let given = self.shared.refills.dropped(id);
        if !given.is_empty() {
            self.effects.push(Effect::Unstage(given));
        }
    }

    fn begin_rebuild(&mut self, id: SectorId, lost: Option<Lost>, bad: &[StorageId]) -> ApiResult<()> {
        let number = self.shared.name(id);
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
                let other = other_sector(record, lost);
                if other.is_some() && record.is_told() && record.sector().proof == lost.sector.proof {
                    return self.correct(lost).map_err(|why| refuse("MGR138", why));
                }
                other.map_or(Ok(()), |why| Err(refuse("MGR138", why)))?
            }
            (None, None) => return Err(self.shared.no_sector(id)),
            (Some(_), None) | (None, Some(_)) => {}
        }
        let done = known.as_ref().is_none_or(|(_, record)| record.state() == SectorState::Proving);
        if known.as_ref().is_some_and(|(_, record)| record.rebuilt_to().is_some()) && !done {
            return Ok(());
        }
        if let Some((_, record)) = known.as_ref().filter(|_| !done) {
            let why = format!("it is being sealed for the first time: it is in {}", doing(number, record));
            return Err(refuse("MGR142", why));
        }
        match self.is_whole(id, known.is_some(), bad) {
            // Nothing of it is lost, or it is back already.
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err((code, why)) => return Err(refuse(code, why)),
        }
        let Some((busy, record)) = known else {
            let Some(lost) = lost else { return Err(self.shared.no_sector(id)) };
            let data = self.given(id, lost.pieces.iter().copied()).map_err(|why| refuse("MGR153", why))?;
            return self.take_in(&lost, data).map_err(|why| refuse("MGR140", why));
        };
        if busy != Busy::Free || self.moves.contains_key(&id) || self.errands.contains_key(&id) {
            return Err(refuse(
                "MGR141",
                "something is done with it now; try again when that is over".to_owned(),
            ));
        }
        let refill = self.refill(&record).map_err(|why| refuse("MGR153", why))?;
        if let Some(sector) = self.sectors.get_mut(&id) {
            sector.released = false;
        }
        self.ordered(id, SectorEvent::Rebuild { refill }, "MGR142")?;
        self.shared.refills.taken(id);
        Ok(())
    }

    /// The replica (CommR) that a rebuild would be begun for; `None`: it has begun, or nothing would begin.
    pub(crate) fn begins_with(
        &self,
        id: SectorId,
        lost: Option<&Lost>,
        bad: &[StorageId],
    ) -> Option<SealedCid> {
        let Some(sector) = self.sectors.get(&id) else { return lost.map(|lost| lost.sealed) };
        let record = &sector.record;
        let begins = match record.state() {
            SectorState::Proving => self.is_whole(id, true, bad) != Ok(true),
            // It may be corrected.
            _ => record.is_told() && lost.is_some_and(|lost| other_sector(record, lost).is_some()),
        };
        let ours = || record.progress().cids.map(|cids| cids.sealed);
        begins.then(|| lost.map(|lost| lost.sealed).or_else(ours)).flatten()
    }

    /// What was told of a sector before was wrong, or is now: nobody here knows, and PreCommit2 tells.
    fn correct(&mut self, lost: &Lost) -> Result<(), String> {
        let id = lost.sector.id;
        let Some(sector) = self.sectors.get(&id) else { return Ok(()) };
        if !matches!(sector.busy, Busy::Free | Busy::Until(_)) || self.moved_or_used(id).is_some() {
            return Err(
                "something is done with it now, from what was told before; try again when that is over"
                    .to_owned(),
            );
        }
        let held = sector.record.data().to_vec();
        let same = has_data_of(&sector.record, lost);
        let data = if same { held.clone() } else { self.given(id, lost.pieces.iter().copied())? };
        let event = SectorEvent::Correct { ticket: told(lost.ticket), sealed: lost.sealed, data };
        self.apply_event(id, event)?;
        if !same {
            self.shared.refills.taken(id);
            self.effects.push(Effect::Unstage(held.iter().map(|data| data.staged).collect()));
        }
        self.advance(id);
        Ok(())
    }

    /// What a sector is filled with: the unsealed file that is left of it, else what was given for it.
    fn refill(&self, record: &SectorRecord) -> Result<Refill, String> {
        let id = record.sector().id;
        match record.has_data() {
            false => Ok(Refill::Zeros),
            true if self.has_unsealed(id) => Ok(Refill::Unsealed),
            true => self.given(id, record.data().iter().map(|data| data.piece)).map(Refill::Given),
        }
    }

    /// The data that was given for it; the error names all that was not.
    fn given(&self, id: SectorId, pieces: impl Iterator<Item = PieceInfo>) -> Result<Vec<DataPiece>, String> {
        self.shared.refills.data(id, pieces).map_err(|missing| {
            let names: Vec<String> = missing.iter().map(|piece| piece.cid.to_string()).collect();
            format!("no path has its unsealed file, and its data is missing: {}", names.join(", "))
        })
    }

    fn has_unsealed(&self, id: SectorId) -> bool {
        let index = &self.shared.index;
        let there = |held: &HeldFiles| index.path_view(&held.id).is_some_and(|path| path.healthy);
        let files = index.sector_files(id);
        files.iter().any(|held| held.types.contains(FileType::Unsealed) && there(held))
    }

    /// The pieces that a sector could be sealed again from, and whether they are needed for that.
    pub(crate) fn wanted_pieces(
        &self,
        id: SectorId,
        lost: Option<&Lost>,
        bad: &[StorageId],
    ) -> (Vec<PieceInfo>, bool) {
        let Some(sector) = self.sectors.get(&id) else {
            return (lost.map(|lost| lost.pieces.clone()).unwrap_or_default(), true);
        };
        let record = &sector.record;
        if let Some(lost) = lost.filter(|_| record.is_told()) {
            let same = has_data_of(record, lost);
            return (if same { Vec::new() } else { lost.pieces.clone() }, !same);
        }
        // Under way, from the unsealed file that is left.
        if record.is_rebuilt() && record.is_from_unsealed() {
            return (record.data().iter().map(|data| data.piece).collect(), false);
        }
        // Under way, or nothing of it is lost.
        if record.state() != SectorState::Proving || self.is_whole(id, true, bad) == Ok(true) {
            return (Vec::new(), false);
        }
        (record.data().iter().map(|data| data.piece).collect(), !self.has_unsealed(id))
    }

    /// Sectors, and the paths whose files of them may be no replicas.
    pub(crate) fn doubtful(&self) -> BTreeMap<SectorId, Vec<StorageId>> {
        let doubtful = self.sectors.iter().filter(|(_, sector)| !sector.record.doubtful().is_empty());
        doubtful.map(|(id, sector)| (*id, sector.record.doubtful().to_vec())).collect()
    }

    /// Whether all of a stored sector's replica seems to lie in paths that are there, of which nothing else is told.
    pub(crate) fn seems_whole(&self, id: SectorId, lost: Option<&Lost>) -> bool {
        let stored = self.sectors.get(&id).filter(|sector| sector.record.state() == SectorState::Proving);
        let fits = |sector: &Sector| lost.is_none_or(|lost| other_sector(&sector.record, lost).is_none());
        stored.is_some_and(fits)
            && !self.removed.contains_key(&id)
            && self.is_whole(id, true, &[]) == Ok(true)
    }

    /// What is left of a known sector's replica, path by path, if that is all that is in the way of sealing it again.
    pub(crate) fn remains(
        &self,
        id: SectorId,
        lost: Option<&Lost>,
        bad: &[StorageId],
    ) -> Vec<(StorageId, FileTypes)> {
        let Some(sector) = self.sectors.get(&id) else { return Vec::new() };
        let record = &sector.record;
        let rests = record.state() == SectorState::Proving
            && sector.busy == Busy::Free
            && !self.removed.contains_key(&id)
            && self.moved_or_used(id).is_none();
        let fits = lost.is_none_or(|lost| other_sector(record, lost).is_none());
        let is_part = || matches!(self.is_whole(id, true, bad), Err((PART_LEFT, _)));
        if !(rests && fits && is_part() && self.refill(record).is_ok()) {
            return Vec::new();
        }
        let files = self.shared.index.sector_files(id).into_iter();
        files.map(|held| (held.id.clone(), left(&held))).filter(|(_, left)| !left.is_empty()).collect()
    }

    /// Whether all of a known sector's replica lies in paths that are there.
    pub(super) fn seems_all_there(&self, id: SectorId) -> bool {
        self.is_all_there(id, &self.files_left(id), &[])
    }

    fn is_all_there(&self, id: SectorId, files: &[HeldFiles], bad: &[StorageId]) -> bool {
        let doubtful = self.doubtful_of(id);
        let is_believed = |held: &&HeldFiles| !doubtful.contains(&held.id) && !bad.contains(&held.id);
        let believed = files.iter().filter(|held| is_believed(held) && self.is_there(held));
        let there = believed.fold(FileTypes::NONE, |all, held| all | held.types);
        there.intersection(REPLICA) == REPLICA
    }

    fn is_there(&self, held: &HeldFiles) -> bool {
        self.shared.index.path_view(&held.id).is_some_and(|path| path.healthy)
    }

    fn doubtful_of(&self, id: SectorId) -> &[StorageId] {
        self.sectors.get(&id).map(|sector| sector.record.doubtful()).unwrap_or_default()
    }

    fn files_left(&self, id: SectorId) -> Vec<HeldFiles> {
        let files = self.shared.index.sector_files(id);
        files.into_iter().filter(|held| !left(held).is_empty()).collect()
    }

    /// Whether all of a known sector's replica lies in paths that are there, other than these bad ones. The error is the code
    /// and the reason why it must not be sealed again: that begins with the deletion of every file of it, and one that is
    /// away may be good.
    pub(super) fn is_whole(
        &self,
        id: SectorId,
        is_known: bool,
        bad: &[StorageId],
    ) -> Result<bool, (&'static str, String)> {
        let number = self.shared.name(id);
        let files = self.files_left(id);
        if is_known && self.is_all_there(id, &files, bad) {
            return Ok(true);
        }
        let doubtful = self.doubtful_of(id);
        if let Some(held) = files.iter().find(|held| doubtful.contains(&held.id)) {
            let why = format!(
                "path {} holds files that a rebuild has made which was given up; `sealyard proving check {number}` tells \
                 whether they are good, and believes them then; if they are not, delete them, and `sealyard storage \
                 redeclare` forgets them",
                held.id
            );
            return Err(("MGR157", why));
        }
        let forget = format!(
            "if they are gone for good, `sealyard storage redeclare --drop-missing` or `sealyard storage detach` forgets \
             them; `sealyard storage find {number}` shows all"
        );
        if let Some(held) = files.iter().find(|held| !held.unconfirmed.intersection(REPLICA).is_empty()) {
            let why = format!("path {} is remembered to hold files of it and is not back; {forget}", held.id);
            return Err(("MGR143", why));
        }
        if let Some(held) = files.iter().find(|held| !self.is_there(held)) {
            let why = format!("path {} holds files of it and does not answer now; {forget}", held.id);
            return Err(("MGR144", why));
        }
        // Nobody here knows what is in it: what a file says of the sector may leave its data out.
        let unsealed = self.paths_with(id, FileTypes::UNSEALED);
        if !is_known && !unsealed.is_empty() {
            let why = format!(
                "path {} holds an unsealed file of it, or is remembered to, which may be the only copy of its data and \
                 would be made anew; unseal or copy what it holds first, and keep that; if it is worth nothing, delete \
                 it: then `sealyard storage redeclare --drop-missing` or `sealyard storage detach` forgets it",
                listed(&unsealed)
            );
            return Err(("MGR160", why));
        }
        if let Some(why) = self.may_be_back() {
            return Err(("MGR159", why));
        }
        match files.first() {
            None => Ok(false),
            Some(held) => Err((PART_LEFT, format!("path {} holds files of it; {forget}", held.id))),
        }
    }

    /// What the index remembers is older than its end: of a path that is not back, or that is back and has not declared all
    /// yet, nobody knows what came to it last.
    pub(super) fn may_be_back(&self) -> Option<String> {
        let left_ms = self.began_ms.saturating_add(BACK_MAX_MS).saturating_sub(self.now_ms());
        self.shared.index.paths().into_iter().find_map(|path| {
            let id = &path.info.id;
            if !path.confirmed {
                let seconds = left_ms.div_ceil(1000);
                return (left_ms > 0).then(|| {
                    format!(
                        "this manager has just started, and path {id}, which may hold files of it, is not back; if it \
                         is not in {seconds} s either, nothing is expected of it"
                    )
                });
            }
            // Owners that follow Lotus never say that they have declared all.
            let left_ms = BACK_MAX_MS.saturating_sub(path.declaring_ms?);
            (left_ms > 0).then(|| {
                format!(
                    "path {id}, which may hold files of it, has just been attached, and what lies there is still being \
                     declared; after {} s it is taken to be",
                    left_ms.div_ceil(1000)
                )
            })
        })
    }

    /// A sector that was sealed elsewhere.
    fn take_in(&mut self, lost: &Lost, data: Vec<DataPiece>) -> Result<(), String> {
        let Lost { sector, ticket, sealed, .. } = lost;
        let size = self.shared.miner.sector_size;
        if sector.proof.sector_size() != size {
            return Err(format!("it has {}, and this manager's sectors {size}", sector.proof.sector_size()));
        }
        if self.shared.randomness == RandomnessSource::Rehearsal {
            return Err("this manager's sectors are a REHEARSAL".to_owned());
        }
        let Some(counted) = self.next_sector.get_mut(&sector.id.miner) else {
            return Err(format!("this manager does not serve {}", sector.id.miner));
        };
        let next = sector.id.number.get().checked_add(1).filter(|next| i64::try_from(*next).is_ok());
        let next = next.ok_or("no such sector number can be")?;
        let record = SectorRecord::lost(*sector, self.shared.randomness, told(*ticket), *sealed, data)
            .map_err(|error| error.to_string())?;
        let json = serde_json::to_value(&record).map_err(|error| error.to_string())?;
        let state = record.state().name().to_owned();
        self.events.push(StateEvent::SectorPledged { sector: *sector, state, record: json });
        // Its number is not given to another one.
        *counted = (*counted).max(next);
        self.insert_sector(record);
        self.pledging_due = true;
        self.shared.refills.taken(sector.id);
        self.advance(sector.id);
        Ok(())
    }
}

/// A sector's state and what is done in it, or waited for.
fn doing(number: SectorName, record: &SectorRecord) -> String {
    let step = match record.next() {
        Step::Run(work) => format!(", and {} of it waits or runs", short_code(&work)),
        Step::Rest { why } => format!(", {why}"),
        _ => String::new(),
    };
    format!("{}{step}; `sealyard sealing why {number}` shows more", record.state())
}

/// The height is not told, and nothing is put on chain that has it.
fn told(value: Ticket) -> SealTicket {
    SealTicket { value, epoch: ChainEpoch::default() }
}

/// What is told names no fillers; data that are zeros look like them.
fn has_data_of(record: &SectorRecord, lost: &Lost) -> bool {
    data_of(record.data().iter().map(|data| data.piece)) == lost.pieces
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
    if !has_data_of(record, lost) {
        return Some("its record has other data than what is given".to_owned());
    }
    let sealed = record.rebuilt_to().or(progress.cids.map(|cids| cids.sealed));
    if sealed.is_some_and(|ours| ours != lost.sealed) {
        return Some("its record has another CommR than what is given".to_owned());
    }
    let ours = record.old_ticket().or(progress.ticket).map(|ticket| ticket.value);
    let differs = ours.is_some_and(|ours| ours != lost.ticket);
    differs.then(|| "its record has another ticket than what is given".to_owned())
}
