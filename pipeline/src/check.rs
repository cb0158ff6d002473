//! Reading a stored record: forms of earlier programs are brought to ours, and a state must have the data that it needs.

use sealtasks::{ChainEpoch, PieceInfo, rehearsal};

use crate::rebuild::check_rebuild;
use crate::record::Fields;
use crate::{OnChain, Progress, RandomnessSource, SectorRecord, SectorState};

/// The form that is written. 1 had neither data nor messages; 2 did not know which files a rebuild has made.
pub(crate) const FORMAT: u32 = 3;

/// The form of records that do not name one.
pub(crate) const fn first_format() -> u32 {
    1
}

/// A stored record that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its data do not fit its state.
    #[error("a record of a sector in {state} whose data do not fit; it should have {what}")]
    Unfit {
        /// The state it claims.
        state: SectorState,
        /// What would be right.
        what: &'static str,
    },
    /// Written by a later program.
    #[error("a record of form {found}; this program reads up to {FORMAT}: start the program that wrote it")]
    Format {
        /// The form it says it has.
        found: u32,
    },
}

impl TryFrom<Fields> for SectorRecord {
    type Error = RecordError;

    fn try_from(mut fields: Fields) -> Result<Self, RecordError> {
        match fields.format {
            1 => upgrade(&mut fields),
            // What it lacks is empty in it.
            2 | FORMAT => fields.format = FORMAT,
            found => return Err(RecordError::Format { found }),
        }
        let state = fields.state;
        check(&fields).map_err(|what| RecordError::Unfit { state, what })?;
        Ok(Self { fields })
    }
}

/// The first form knew no chain but the offline one, where what is to be told to a chain is told to nobody.
fn upgrade(fields: &mut Fields) {
    fields.packing = true;
    let stage = Stage::of(fields);
    fields.format = FORMAT;
    if fields.source == RandomnessSource::Lotus {
        return;
    }
    let landed = || Some(OnChain { message: None, landed: Some(ChainEpoch::default()) });
    if stage >= Stage::PreCommitted {
        fields.progress.pre_commit = landed();
    }
    if stage >= Stage::Committed {
        fields.progress.commit = landed();
    }
}

/// How far a sector has come, counted by the data it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Filling,
    Filled,
    Ticket,
    Labelled,
    Replica,
    PreCommitted,
    Seeded,
    Proven,
    Committed,
}

impl Stage {
    /// Failed states keep what the step that failed had; two of them stand for several steps.
    pub(crate) fn of(fields: &Fields) -> Self {
        let progress = &fields.progress;
        match fields.state {
            SectorState::CommitFailed if progress.proof.is_some() => Self::Proven,
            SectorState::PreCommitFailed if landed(&progress.pre_commit) || fields.format == 1 => {
                Self::PreCommitted
            }
            state => Self::least(state),
        }
    }

    /// What a sector in this state has at least.
    pub(crate) const fn least(state: SectorState) -> Self {
        match state {
            SectorState::Empty
            | SectorState::WaitDeals
            | SectorState::AddPiece
            | SectorState::Packing
            | SectorState::AddPieceFailed => Self::Filling,
            SectorState::GetTicket | SectorState::CommitFailed => Self::Filled,
            SectorState::PreCommit1 | SectorState::SealPreCommit1Failed => Self::Ticket,
            SectorState::PreCommit2 | SectorState::SealPreCommit2Failed => Self::Labelled,
            SectorState::PreCommitting | SectorState::PreCommitWait | SectorState::PreCommitFailed => {
                Self::Replica
            }
            SectorState::WaitSeed => Self::PreCommitted,
            SectorState::Committing | SectorState::ComputeProofFailed => Self::Seeded,
            SectorState::SubmitCommit | SectorState::CommitWait => Self::Proven,
            SectorState::FinalizeSector | SectorState::FinalizeFailed | SectorState::Proving => {
                Self::Committed
            }
        }
    }
}

pub(crate) fn landed(on_chain: &Option<OnChain>) -> bool {
    on_chain.as_ref().is_some_and(|known| known.landed.is_some())
}

/// What is wrong, by what would be right.
pub(crate) fn check(fields: &Fields) -> Result<(), &'static str> {
    if let Some(rebuild) = &fields.rebuild {
        return check_rebuild(fields, rebuild).and_then(|()| check_retry(fields));
    }
    let stage = Stage::of(fields);
    let Progress { pieces, ticket, pc1, cids, seed, .. } = &fields.progress;
    let has = |there: bool, since: Stage| there == (stage >= since);
    check_filling(fields, stage, pieces)?;
    if !has(ticket.is_some(), Stage::Ticket) || !has(pc1.is_some(), Stage::Labelled) {
        return Err("a ticket from PreCommit1 on and the PC1 output from PreCommit2 on");
    }
    if !has(cids.is_some(), Stage::Replica) || !has(seed.is_some(), Stage::Seeded) {
        return Err("CommD and CommR from PreCommitting on and a seed from Committing on");
    }
    check_messages(fields, stage)?;
    check_proof(fields, stage)?;
    if !marks_fit(&fields.progress, fields.source == RandomnessSource::Rehearsal) {
        return Err("the mark of a rehearsal on every result if it is one, and on none if it is not");
    }
    check_retry(fields)
}

fn check_retry(fields: &Fields) -> Result<(), &'static str> {
    let state = fields.state;
    let retry_fits = match fields.retry {
        Some(pending) => state.is_failed() && state.after(pending.retry).is_some(),
        None => !state.is_failed(),
    };
    if retry_fits {
        Ok(())
    } else {
        Err("a retry from the transition table when it has failed, and none otherwise")
    }
}

pub(crate) fn check_filling(fields: &Fields, stage: Stage, pieces: &[PieceInfo]) -> Result<(), &'static str> {
    let whole = fields.sector.proof.sector_size().bytes();
    let sum = pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.size.get()));
    let fits = match sum {
        Some(sum) if stage >= Stage::Filled => sum == whole,
        Some(0) => true,
        // Lotus begins nothing in Empty, and AddPiece is for data that is not written.
        Some(sum) => sum <= whole && fields.state != SectorState::Empty,
        None => false,
    };
    if !fits {
        return Err("pieces that fill it from GetTicket on, and no more than fit before");
    }
    let mut written = fields.data.iter().map(|data| data.offset.is_some());
    let in_order = written.by_ref().skip_while(|written| *written).all(|written| !written);
    let waiting = fields.data.iter().any(|data| data.offset.is_none());
    let data_fits = match fields.state {
        SectorState::Empty => fields.data.is_empty(),
        SectorState::AddPiece => waiting,
        SectorState::WaitDeals | SectorState::AddPieceFailed => true,
        _ => !waiting,
    };
    if in_order && data_fits {
        Ok(())
    } else {
        Err("data that is not written in AddPiece, and none later on")
    }
}

fn check_messages(fields: &Fields, stage: Stage) -> Result<(), &'static str> {
    let Progress { pre_commit, commit, .. } = &fields.progress;
    let sent = |known: &Option<OnChain>| known.as_ref().is_some_and(|known| known.message.is_some());
    let fits = |known: &Option<OnChain>, waits: bool, failed: bool, since: Stage| match known {
        known if stage >= since => landed(known),
        known if waits => sent(known) && !landed(known),
        Some(_) => failed && sent(known) && !landed(known),
        None => true,
    };
    let state = fields.state;
    let waits = state == SectorState::PreCommitWait;
    if !fits(pre_commit, waits, state == SectorState::PreCommitFailed, Stage::PreCommitted) {
        return Err("a message in PreCommitWait and its landing from WaitSeed on");
    }
    let failed = state == SectorState::CommitFailed && stage == Stage::Proven;
    if !fits(commit, state == SectorState::CommitWait, failed, Stage::Committed) {
        return Err("a message in CommitWait and its landing from FinalizeSector on");
    }
    Ok(())
}

fn check_proof(fields: &Fields, stage: Stage) -> Result<(), &'static str> {
    let Progress { c1, proof, verified, cache_cleared, .. } = &fields.progress;
    // A played proof is never verified, and never taken for a verified one.
    let rehearsed = fields.source == RandomnessSource::Rehearsal;
    let word = if rehearsed { None } else { Some(true) };
    let believed = match (stage, c1, proof, verified) {
        (Stage::Seeded, None, None, None) | (Stage::Seeded, Some(_), None, None) => true,
        (Stage::Seeded, Some(_), Some(_), None) => !rehearsed,
        (Stage::Seeded, Some(_), Some(_), Some(false)) => {
            fields.state == SectorState::ComputeProofFailed && !rehearsed
        }
        (stage, Some(_), Some(_), verified) => stage >= Stage::Proven && *verified == word,
        (stage, None, None, None) => stage < Stage::Seeded,
        _ => false,
    };
    if !believed {
        return Err("a C1 output and a verified proof from SubmitCommit on, and none before Committing");
    }
    if *cache_cleared && stage < Stage::Committed || !*cache_cleared && fields.state == SectorState::Proving {
        return Err("a cleared cache when it is proving, and not before FinalizeSector");
    }
    Ok(())
}

/// Whether what can carry the mark of a rehearsal carries it in a rehearsal's sector, and in no other.
fn marks_fit(progress: &Progress, rehearsed: bool) -> bool {
    let Progress { pc1, cids, c1, proof, .. } = progress;
    let marks = [
        pc1.as_ref().map(|pc1| rehearsal::is_marked(&pc1.0)),
        cids.as_ref().map(|cids| rehearsal::is_marked(cids.sealed.commitment().bytes())),
        c1.as_ref().map(|c1| rehearsal::is_marked(&c1.0)),
        proof.as_ref().map(|proof| rehearsal::is_marked(&proof.0)),
    ];
    marks.into_iter().flatten().all(|marked| marked == rehearsed)
}
