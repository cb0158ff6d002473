//! A sector that is sealed a second time, since its files are lost: with its own ticket up to PreCommit2, whose CommR must
//! be the one that was proven; then it is finalized, and nothing is told to any chain. Never: decides that files are lost.

use std::collections::BTreeSet;

use sealtasks::{SealedCid, SectorRef, StorageId};
use serde::{Deserialize, Serialize};

use crate::check::{Stage, check_filling};
use crate::record::Fields;
use crate::{
    DataPiece, Outcome, Progress, RandomnessSource, SealTicket, SectorCids, SectorEvent, SectorRecord,
    SectorState, TransitionError,
};

/// What a sector is sealed again from, and to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rebuild {
    ticket: SealTicket,
    /// The CommR that was proven.
    sealed: SealedCid,
    /// What was made the first time; `None`: somewhere else.
    before: Option<Box<Progress>>,
    /// What was stored of a sector that was made somewhere else, while that is made once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored: Option<Box<Progress>>,
    /// Where its data lay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    data: Vec<DataPiece>,
    /// Its unsealed file is left, and holds data that is nowhere else: it is never written anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unsealed: bool,
    /// The paths where its attempts make files: those may be made anew, and no other file of the replica.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<StorageId>,
    /// The same of its unsealed file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    filled: Vec<StorageId>,
}

impl Rebuild {
    /// Of a sector that was made somewhere else.
    const fn elsewhere(ticket: SealTicket, sealed: SealedCid) -> Self {
        Self {
            ticket,
            sealed,
            before: None,
            stored: None,
            data: Vec::new(),
            unsealed: false,
            made: Vec::new(),
            filled: Vec::new(),
        }
    }
}

/// More paths are not noted of one sector; files in any other are left alone.
const MADE_PATHS_MAX: usize = 64;

/// What fills a sector that is sealed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refill {
    /// Zeros: it held no data.
    Zeros,
    /// Its unsealed file, which is left.
    Unsealed,
    /// Each piece of its data, in order, given once more.
    Given(Vec<DataPiece>),
}

impl SectorRecord {
    /// A sector that was sealed and proven elsewhere, to be sealed again here from the ticket that it had and the data that
    /// was in it; none: zeros.
    ///
    /// # Errors
    /// The data does not fit.
    pub fn lost(
        sector: SectorRef,
        source: RandomnessSource,
        ticket: SealTicket,
        sealed: SealedCid,
        data: Vec<DataPiece>,
    ) -> Result<Self, TransitionError> {
        let mut record = if data.is_empty() {
            Self::pledge(sector, None, source)
        } else {
            Self::open(sector, None, source)
        };
        for data in data {
            record.apply(SectorEvent::AddData { data })?;
        }
        record.fields.packing = true;
        record.fields.rebuild = Some(Box::new(Rebuild::elsewhere(ticket, sealed)));
        Ok(record)
    }

    /// The replica that the sector is sealed to again, or was; `None`: it never was.
    pub fn rebuilt_to(&self) -> Option<SealedCid> {
        self.fields.rebuild.as_ref().map(|rebuild| rebuild.sealed)
    }

    /// Whether it is sealed again now, and the replica is not there yet.
    pub fn is_rebuilt(&self) -> bool {
        self.fields.rebuild.is_some() && self.fields.progress.cids.is_none()
    }

    /// The paths whose files of it may be what a rebuild made that was given up, so that nobody knows whether they are its
    /// replica. What lies elsewhere is none of that.
    pub fn doubtful(&self) -> &[StorageId] {
        &self.fields.doubtful
    }

    /// What lies of it in these paths was proven to be its replica.
    pub(crate) fn trust(&mut self, paths: &[StorageId]) {
        self.fields.doubtful.retain(|path| !paths.contains(path));
    }

    /// Begins again, with what was made kept aside.
    pub(crate) fn rebuild(&mut self, refill: Refill) -> Result<(), TransitionError> {
        let refuse = |why| Err(TransitionError::Rebuild { state: self.fields.state, why });
        if self.fields.state != SectorState::Proving {
            return refuse("only one that is proven and stored is sealed again");
        }
        if self.is_rehearsal() {
            return refuse("it is a REHEARSAL, and no file of it is worth anything");
        }
        let outcome = match &refill {
            Refill::Zeros if !self.has_data() => Outcome::Rebuild,
            Refill::Zeros => return refuse("it holds data that was given, which is needed once more"),
            Refill::Unsealed | Refill::Given(_) if !self.has_data() => {
                return refuse("it holds nothing but zeros, and other data is given");
            }
            Refill::Unsealed => Outcome::RebuildUnsealed,
            Refill::Given(given) => {
                let ours = self.fields.data.iter().map(|data| data.piece);
                if !ours.eq(given.iter().map(|data| data.piece)) {
                    return refuse("what is given is not its data, piece by piece");
                }
                Outcome::RebuildData
            }
        };
        let made = std::mem::take(&mut self.fields.progress);
        let (Some(ticket), Some(SectorCids { sealed, .. })) = (made.ticket, made.cids) else {
            self.fields.progress = made;
            return refuse("its ticket and CommR are not known");
        };
        if refill == Refill::Unsealed {
            self.fields.progress.pieces.clone_from(&made.pieces);
        }
        let made = Some(Box::new(made));
        let (before, stored) = if self.fields.rebuild.is_none() { (made, None) } else { (None, made) };
        let (data, unsealed) = (self.fields.data.clone(), refill == Refill::Unsealed);
        let anew = Rebuild { before, stored, data, unsealed, ..Rebuild::elsewhere(ticket, sealed) };
        self.fields.rebuild = Some(Box::new(anew));
        if let Refill::Given(given) = refill {
            self.fields.data = given.into_iter().map(|data| DataPiece { offset: None, ..data }).collect();
        }
        self.go(outcome);
        Ok(())
    }

    /// An operator gives it up: the sector is what it was before, without its files.
    pub(crate) fn give_up(&mut self) -> Result<(), TransitionError> {
        let (state, to) = (self.fields.state, SectorState::Proving);
        let refuse = |why| Err(TransitionError::Force { state, to, why });
        let Some(rebuild) = self.fields.rebuild.as_ref().filter(|_| self.is_rebuilt()).cloned() else {
            return refuse("its replica is there again; `sectors retry` stores it");
        };
        let Rebuild { ticket, sealed, before, stored, data, made: paths, .. } = *rebuild;
        let (made, rebuild) = match (before, stored) {
            (Some(before), _) => (before, None),
            (None, Some(stored)) => (stored, Some(Box::new(Rebuild::elsewhere(ticket, sealed)))),
            (None, None) => {
                return refuse("nothing of it was ever stored here; `sectors remove` forgets it");
            }
        };
        // Before PreCommit1 nothing is made that could be taken for the replica.
        if Stage::of(&self.fields) >= Stage::Ticket {
            let known = std::mem::take(&mut self.fields.doubtful);
            self.fields.doubtful =
                known.into_iter().chain(paths).collect::<BTreeSet<_>>().into_iter().collect();
        }
        (self.fields.progress, self.fields.rebuild) = (*made, rebuild);
        for (now, was) in self.fields.data.iter_mut().zip(data) {
            // The copies that wait now are those that go.
            now.offset = was.offset;
        }
        (self.fields.state, self.fields.retry) = (to, None);
        self.fields.failures.forgive();
        Ok(())
    }

    /// The paths where attempts of the rebuild that is under way make files of the replica.
    pub fn made(&self) -> &[StorageId] {
        self.fields.rebuild.as_ref().map_or(&[], |rebuild| &rebuild.made)
    }

    /// The paths where attempts of the rebuild that is under way make the unsealed file.
    pub fn filled(&self) -> &[StorageId] {
        self.fields.rebuild.as_ref().map_or(&[], |rebuild| &rebuild.filled)
    }

    /// Notes where an attempt makes files of the replica.
    pub(crate) fn note_made(&mut self, paths: Vec<StorageId>) -> Result<(), TransitionError> {
        self.note(paths, |rebuild| &mut rebuild.made)
    }

    /// Notes where an attempt makes the unsealed file.
    pub(crate) fn note_filled(&mut self, paths: Vec<StorageId>) -> Result<(), TransitionError> {
        self.note(paths, |rebuild| &mut rebuild.filled)
    }

    fn note(
        &mut self,
        paths: Vec<StorageId>,
        list: fn(&mut Rebuild) -> &mut Vec<StorageId>,
    ) -> Result<(), TransitionError> {
        let (state, under_way) = (self.fields.state, self.is_rebuilt());
        let refuse = |why| Err(TransitionError::Rebuild { state, why });
        let Some(rebuild) = self.fields.rebuild.as_mut().filter(|_| under_way) else {
            return refuse("it is none that is under way");
        };
        let noted = list(rebuild);
        let new: Vec<_> = paths.into_iter().filter(|path| !noted.contains(path)).collect();
        if noted.len().saturating_add(new.len()) > MADE_PATHS_MAX {
            return refuse("its files lie in more paths than are noted");
        }
        noted.extend(new);
        Ok(())
    }

    /// What was told of a sector that was made somewhere else was wrong: it begins again from this.
    pub(crate) fn correct(
        &mut self,
        ticket: SealTicket,
        sealed: SealedCid,
        data: Vec<DataPiece>,
    ) -> Result<(), TransitionError> {
        let refuse = |why| Err(TransitionError::Rebuild { state: self.fields.state, why });
        let Some(rebuild) = self.fields.rebuild.as_ref().filter(|_| self.is_told()) else {
            return refuse("what it is sealed from is known here");
        };
        if self.fields.retry.is_none() {
            return refuse("it is under way; what it is sealed from is corrected when a step has failed");
        }
        let (made, filled) = (rebuild.made.clone(), rebuild.filled.clone());
        let mut anew = Self::lost(self.fields.sector, self.fields.source, ticket, sealed, data)?;
        if let Some(rebuild) = anew.fields.rebuild.as_mut() {
            (rebuild.made, rebuild.filled) = (made, filled);
        }
        *self = anew;
        Ok(())
    }

    /// Whether all that is known of it was told, and nothing of it was ever stored here.
    pub fn is_told(&self) -> bool {
        let told = |rebuild: &Rebuild| rebuild.before.is_none() && rebuild.stored.is_none();
        self.is_rebuilt() && self.fields.rebuild.as_deref().is_some_and(told)
    }

    /// The ticket that it has once more.
    pub fn old_ticket(&self) -> Option<SealTicket> {
        self.fields.rebuild.as_ref().map(|rebuild| rebuild.ticket)
    }

    /// Whether all that there is of its data is the unsealed file that it is sealed from.
    pub fn is_from_unsealed(&self) -> bool {
        self.fields.rebuild.as_ref().is_some_and(|rebuild| rebuild.unsealed)
    }

    /// The replica is there again: it must be the one that was proven, and all that was made of it holds.
    pub(crate) fn take_replica(&mut self, cids: SectorCids) -> Result<Outcome, String> {
        let Some(rebuild) = self.fields.rebuild.take() else { return Ok(Outcome::PreCommit2) };
        if rebuild.sealed != cids.sealed {
            let text = format!(
                "sealed again it has CommR {}, and {} was proven: the ticket or the data are not those of the first time; \
                 the files are left where they are",
                cids.sealed, rebuild.sealed
            );
            self.fields.rebuild = Some(rebuild);
            return Err(text);
        }
        self.fields.doubtful.clear();
        match rebuild.before {
            Some(before) => self.fields.progress = Progress { cache_cleared: false, ..*before },
            None => {
                self.fields.rebuild = Some(Box::new(Rebuild::elsewhere(rebuild.ticket, rebuild.sealed)));
            }
        }
        Ok(Outcome::Rebuilt)
    }
}

/// What is wrong with a record of such a sector, by what would be right.
pub(crate) fn check_rebuild(fields: &Fields, rebuild: &Rebuild) -> Result<(), &'static str> {
    let Progress { pieces, ticket, pc1, cids, pre_commit, seed, c1, proof, verified, commit, cache_cleared } =
        &fields.progress;
    let stage = match fields.state {
        SectorState::AddPiece
        | SectorState::WaitDeals
        | SectorState::Packing
        | SectorState::AddPieceFailed => Stage::Filling,
        SectorState::GetTicket
        | SectorState::PreCommit1
        | SectorState::SealPreCommit1Failed
        | SectorState::PreCommit2
        | SectorState::SealPreCommit2Failed => Stage::least(fields.state),
        SectorState::FinalizeSector | SectorState::FinalizeFailed | SectorState::Proving
            if rebuild.before.is_none() && rebuild.stored.is_none() =>
        {
            Stage::Replica
        }
        _ => return Err("a state between WaitDeals and PreCommit2 while it is sealed again"),
    };
    check_filling(fields, stage, pieces)?;
    let theirs = |ticket: &SealTicket| *ticket == rebuild.ticket;
    let has_ticket = ticket.as_ref().map(theirs) == (stage >= Stage::Ticket).then_some(true);
    let same = |cids: &SectorCids| cids.sealed == rebuild.sealed;
    let has_replica = cids.as_ref().map(same) == (stage >= Stage::Replica).then_some(true);
    if !has_ticket || pc1.is_some() != (stage >= Stage::Labelled) || !has_replica {
        return Err(
            "the old ticket from PreCommit1 on, the PC1 output from PreCommit2 on and the old CommR at its end",
        );
    }
    let proven = pre_commit.is_some() || seed.is_some() || c1.is_some() || proof.is_some();
    if proven || verified.is_some() || commit.is_some() || fields.source == RandomnessSource::Rehearsal {
        return Err("nothing that has to do with proofs");
    }
    if *cache_cleared && stage < Stage::Replica || !*cache_cleared && fields.state == SectorState::Proving {
        return Err("a cleared cache when it is stored, and not before FinalizeSector");
    }
    Ok(())
}
