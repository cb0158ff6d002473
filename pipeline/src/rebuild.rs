//! A sector that is sealed a second time, since its files are lost: with its own ticket up to PreCommit2, whose CommR must
//! be the one that was proven; then it is finalized, and nothing is told to any chain. Never: decides that files are lost.

use sealtasks::SealedCid;
use serde::{Deserialize, Serialize};

use crate::check::{Stage, check_filling};
use crate::record::Fields;
use crate::{
    Outcome, Progress, RandomnessSource, SealTicket, SectorCids, SectorRecord, SectorState, TransitionError,
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
}

impl SectorRecord {
    /// A sector of zeros that was sealed and proven elsewhere, to be sealed again here from the ticket that it had.
    pub fn lost(
        sector: sealtasks::SectorRef,
        source: RandomnessSource,
        ticket: SealTicket,
        sealed: SealedCid,
    ) -> Self {
        let mut record = Self::pledge(sector, None, source);
        record.fields.rebuild = Some(Box::new(Rebuild { ticket, sealed, before: None }));
        record
    }

    /// The replica that the sector is sealed to again, or was; `None`: it never was.
    pub fn rebuilt_to(&self) -> Option<SealedCid> {
        self.fields.rebuild.as_ref().map(|rebuild| rebuild.sealed)
    }

    /// Begins again, with what was made kept aside.
    pub(crate) fn rebuild(&mut self) -> Result<(), TransitionError> {
        let refuse = |why| Err(TransitionError::Rebuild { state: self.fields.state, why });
        if self.fields.state != SectorState::Proving {
            return refuse("only one that is proven and stored is sealed again");
        }
        if self.is_rehearsal() {
            return refuse("it is a REHEARSAL, and no file of it is worth anything");
        }
        if self.has_data() {
            return refuse("it holds data that was given, which is needed once more");
        }
        let progress = &mut self.fields.progress;
        if self.fields.rebuild.is_none() {
            let (Some(ticket), Some(SectorCids { sealed, .. })) = (progress.ticket, progress.cids) else {
                return refuse("its ticket and CommR are not known");
            };
            let before = Some(Box::new(progress.clone()));
            self.fields.rebuild = Some(Box::new(Rebuild { ticket, sealed, before }));
        }
        self.fields.progress = Progress::default();
        self.go(Outcome::Rebuild);
        Ok(())
    }

    /// The ticket that it has once more.
    pub(crate) fn old_ticket(&self) -> Option<SealTicket> {
        self.fields.rebuild.as_ref().map(|rebuild| rebuild.ticket)
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
        match rebuild.before {
            Some(before) => self.fields.progress = Progress { cache_cleared: false, ..*before },
            None => self.fields.rebuild = Some(rebuild),
        }
        Ok(Outcome::Rebuilt)
    }
}

/// What is wrong with a record of such a sector, by what would be right.
pub(crate) fn check_rebuild(fields: &Fields, rebuild: &Rebuild) -> Result<(), &'static str> {
    let Progress { pieces, ticket, pc1, cids, pre_commit, seed, c1, proof, verified, commit, cache_cleared } =
        &fields.progress;
    let stage = match fields.state {
        SectorState::Packing | SectorState::AddPieceFailed => Stage::Filling,
        SectorState::GetTicket
        | SectorState::PreCommit1
        | SectorState::SealPreCommit1Failed
        | SectorState::PreCommit2
        | SectorState::SealPreCommit2Failed => Stage::least(fields.state),
        SectorState::FinalizeSector | SectorState::FinalizeFailed | SectorState::Proving
            if rebuild.before.is_none() =>
        {
            Stage::Replica
        }
        _ => return Err("a state between Packing and PreCommit2 while it is sealed again"),
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
