//! The durable record of a sector, and what it waits for.

use sealtasks::{
    AddPieceInput, C1Output, ChainEpoch, Commit1Input, Commit2Input, FileTypes, FinalizeInput, MoveInput,
    Pc1Output, PieceInfo, PieceSource, PreCommit1Input, PreCommit2Input, Proof, SealedCid, SectorRef, Seed,
    TaskInput, Ticket, UnpaddedPieceSize, UnsealedCid, VerifyInput, rehearsal,
};
use serde::{Deserialize, Serialize};

use crate::retry::Failures;
use crate::{Failure, PendingRetry, RetryWhen, SectorEvent, SectorState};

/// All that is known of one sector's sealing. Its serde form is what the durable state holds; reading it checks that
/// the state has the data it needs, so that [`SectorRecord::next`] always has an answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct SectorRecord {
    pub(crate) fields: Fields,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fields {
    pub(crate) sector: SectorRef,
    pub(crate) source: RandomnessSource,
    pub(crate) stop_after: Option<StopAfter>,
    pub(crate) state: SectorState,
    pub(crate) progress: Progress,
    pub(crate) retry: Option<PendingRetry>,
    pub(crate) failures: Failures,
}

/// Where a sector's ticket and seed come from; recorded, since a sector sealed offline can never be proven on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RandomnessSource {
    /// Derived by ourselves; test sizes only.
    Offline,
    /// Drawn from the chain through a Lotus node.
    Lotus,
    /// Made up, as everything of the sector is: its tasks are only played. No chain ever hears of it.
    Rehearsal,
}

/// A last task to do, for trials of the machinery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopAfter {
    /// Commit1: everything but the SNARK, which needs the parameters.
    C1,
}

/// What has been made of a sector so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// What fills the sector.
    pub pieces: Vec<PieceInfo>,
    /// The sealing randomness.
    pub ticket: Option<SealTicket>,
    /// What PC1 gave.
    pub pc1: Option<Pc1Output>,
    /// What PC2 gave.
    pub cids: Option<SectorCids>,
    /// The interactive randomness.
    pub seed: Option<SealSeed>,
    /// What C1 gave.
    pub c1: Option<C1Output>,
    /// What C2 gave.
    pub proof: Option<Proof>,
    /// What the verification of the proof said; `None` as long as nothing.
    pub verified: Option<bool>,
    /// The cache has been cleared; the sector need only move.
    pub cache_cleared: bool,
}

/// The sealing randomness and when it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealTicket {
    /// The randomness.
    pub value: Ticket,
    /// The chain's height; 0 from an offline source.
    pub epoch: ChainEpoch,
}

/// The interactive randomness and when it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealSeed {
    /// The randomness.
    pub value: Seed,
    /// The chain's height; 0 from an offline source.
    pub epoch: ChainEpoch,
}

/// The commitments of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectorCids {
    /// CommD.
    pub unsealed: UnsealedCid,
    /// CommR.
    pub sealed: SealedCid,
}

/// What a sector waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This task's result.
    Run(TaskInput),
    /// The sealing randomness.
    NeedTicket,
    /// The interactive randomness.
    NeedSeed,
    /// A word on whether this proof is valid; as a `TaskOutput::Verify`.
    NeedVerification(VerifyInput),
    /// The end of a back-off; then `RetryDue`.
    Retry {
        /// When it is due, in wall milliseconds.
        not_before_ms: u64,
    },
    /// Somebody.
    Rest {
        /// For what.
        why: Rest,
    },
    /// Nothing: it is sealed and stored.
    Done,
}

/// Why a sector rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rest {
    /// It has not begun.
    #[error("not started")]
    NotStarted,
    /// It was to stop here.
    #[error("stopped after C1, as asked for")]
    StoppedAfterC1,
    /// Retrying by itself is over.
    #[error("failed in a way that needs the operator: see the last failure, then retry the sector")]
    NeedsOperator,
}

/// The one thing that a sector can take next, and by which an event is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Start,
    AddPiece,
    Ticket,
    PreCommit1,
    PreCommit2,
    Seed,
    Commit1,
    Commit2,
    Verification,
    Finalize,
    Move,
    Retry,
    /// Stopped after C1.
    Release,
    Nothing,
}

impl Awaited {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "its start",
            Self::AddPiece => "AP",
            Self::Ticket => "a ticket",
            Self::PreCommit1 => "PC1",
            Self::PreCommit2 => "PC2",
            Self::Seed => "a seed",
            Self::Commit1 => "C1",
            Self::Commit2 => "C2",
            Self::Verification => "the proof's verification",
            Self::Finalize => "FIN",
            Self::Move => "MOVE",
            Self::Retry => "a retry",
            Self::Release | Self::Nothing => "nothing",
        }
    }

    /// Whether it is something that can fail.
    pub(crate) const fn can_fail(self) -> bool {
        !matches!(self, Self::Start | Self::Retry | Self::Release | Self::Nothing)
    }
}

impl SectorRecord {
    /// A new committed-capacity sector: one zero piece fills it. It waits for AddPiece.
    pub fn pledge(sector: SectorRef, stop_after: Option<StopAfter>, source: RandomnessSource) -> Self {
        let mut record = Self {
            fields: Fields {
                sector,
                source,
                stop_after,
                state: SectorState::Empty,
                progress: Progress::default(),
                retry: None,
                failures: Failures::default(),
            },
        };
        record.apply(SectorEvent::Start).expect("an empty sector takes its start");
        record
    }

    /// Which sector.
    pub const fn sector(&self) -> SectorRef {
        self.fields.sector
    }

    /// Where its randomness comes from.
    pub const fn source(&self) -> RandomnessSource {
        self.fields.source
    }

    /// Its last task, if it is to stop early.
    pub const fn stop_after(&self) -> Option<StopAfter> {
        self.fields.stop_after
    }

    /// Where it stands.
    pub const fn state(&self) -> SectorState {
        self.fields.state
    }

    /// Where it stands, as people are told: `Proving (offline)` for a sector that no chain knows.
    pub fn shown_state(&self) -> String {
        match (self.fields.state, self.fields.source) {
            (SectorState::Proving, RandomnessSource::Offline) => "Proving (offline)".to_owned(),
            (state, RandomnessSource::Rehearsal) => format!("{state} (REHEARSAL)"),
            (state, RandomnessSource::Offline | RandomnessSource::Lotus) => state.to_string(),
        }
    }

    /// Whether it is only played. It is pledged so, and stays so.
    pub const fn is_rehearsal(&self) -> bool {
        matches!(self.fields.source, RandomnessSource::Rehearsal)
    }

    /// What has been made so far.
    pub const fn progress(&self) -> &Progress {
        &self.fields.progress
    }

    /// The retry it waits for; present in the failed states.
    pub const fn retry(&self) -> Option<PendingRetry> {
        self.fields.retry
    }

    /// The latest failures, oldest first; at most [`Failure::KEPT_MAX`].
    pub fn failures(&self) -> &[Failure] {
        &self.fields.failures.kept
    }

    /// What the sector waits for. Asking changes nothing; the driver remembers what it has already set going.
    pub fn next(&self) -> Step {
        let rest = |why| Step::Rest { why };
        match self.awaited() {
            Awaited::Start => rest(Rest::NotStarted),
            Awaited::Ticket => Step::NeedTicket,
            Awaited::Seed => Step::NeedSeed,
            Awaited::Verification => Step::NeedVerification(self.verification()),
            Awaited::AddPiece => Step::Run(TaskInput::AddPiece(AddPieceInput {
                existing: Vec::new(),
                size: UnpaddedPieceSize::whole_sector(self.fields.sector.proof.sector_size()),
                source: PieceSource::Zeros,
            })),
            Awaited::PreCommit1 => Step::Run(TaskInput::PreCommit1(PreCommit1Input {
                ticket: self.ticket(),
                pieces: self.fields.progress.pieces.clone(),
            })),
            Awaited::PreCommit2 => Step::Run(TaskInput::PreCommit2(PreCommit2Input {
                pc1: held(&self.fields.progress.pc1).clone(),
            })),
            Awaited::Commit1 => Step::Run(TaskInput::Commit1(self.commit1())),
            Awaited::Commit2 => {
                Step::Run(TaskInput::Commit2(Commit2Input { c1: held(&self.fields.progress.c1).clone() }))
            }
            Awaited::Finalize => Step::Run(TaskInput::Finalize(FinalizeInput {})),
            Awaited::Move => {
                Step::Run(TaskInput::Move(MoveInput { types: FileTypes::CACHE.union(FileTypes::SEALED) }))
            }
            Awaited::Retry => match held(&self.fields.retry).when {
                RetryWhen::NotBeforeMs(not_before_ms) => Step::Retry { not_before_ms },
                RetryWhen::Operator => rest(Rest::NeedsOperator),
            },
            Awaited::Release => rest(Rest::StoppedAfterC1),
            Awaited::Nothing => Step::Done,
        }
    }

    pub(crate) fn awaited(&self) -> Awaited {
        let progress = &self.fields.progress;
        match self.fields.state {
            SectorState::Empty => Awaited::Start,
            SectorState::Packing => Awaited::AddPiece,
            SectorState::GetTicket => Awaited::Ticket,
            SectorState::PreCommit1 => Awaited::PreCommit1,
            SectorState::PreCommit2 => Awaited::PreCommit2,
            SectorState::WaitSeed => Awaited::Seed,
            SectorState::Committing if progress.c1.is_none() => Awaited::Commit1,
            SectorState::Committing if progress.proof.is_some() => Awaited::Verification,
            SectorState::Committing => match self.fields.stop_after {
                Some(StopAfter::C1) => Awaited::Release,
                None => Awaited::Commit2,
            },
            SectorState::FinalizeSector if progress.cache_cleared => Awaited::Move,
            SectorState::FinalizeSector => Awaited::Finalize,
            SectorState::Proving => Awaited::Nothing,
            SectorState::AddPieceFailed
            | SectorState::CommitFailed
            | SectorState::SealPreCommit1Failed
            | SectorState::SealPreCommit2Failed
            | SectorState::PreCommitFailed
            | SectorState::ComputeProofFailed
            | SectorState::FinalizeFailed => Awaited::Retry,
        }
    }

    fn ticket(&self) -> Ticket {
        held(&self.fields.progress.ticket).value
    }

    fn seed(&self) -> Seed {
        held(&self.fields.progress.seed).value
    }

    fn commit1(&self) -> Commit1Input {
        let SectorCids { unsealed, sealed } = *held(&self.fields.progress.cids);
        let pieces = self.fields.progress.pieces.clone();
        Commit1Input { ticket: self.ticket(), seed: self.seed(), pieces, sealed, unsealed }
    }

    fn verification(&self) -> VerifyInput {
        let SectorCids { unsealed, sealed } = *held(&self.fields.progress.cids);
        let proof = held(&self.fields.progress.proof).clone();
        VerifyInput { ticket: self.ticket(), seed: self.seed(), sealed, unsealed, proof }
    }
}

/// Our own invariant, kept by `apply` and checked by `TryFrom<Fields>`: a state has the data it needs.
fn held<T>(value: &Option<T>) -> &T {
    value.as_ref().expect("a sector's state has the data that it needs")
}

impl Serialize for SectorRecord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(serializer)
    }
}

impl TryFrom<Fields> for SectorRecord {
    type Error = RecordError;

    fn try_from(fields: Fields) -> Result<Self, RecordError> {
        let state = fields.state;
        let whole = fields.sector.proof.sector_size().bytes();
        let filled = |pieces: &[PieceInfo]| {
            pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.size.get())) == Some(whole)
        };
        let Progress { pieces, ticket, pc1, cids, seed, c1, proof, verified, cache_cleared } =
            &fields.progress;
        let stage = stage(state);
        let wrong = |what| Err(RecordError { state, what });
        let fits = |there: bool, since: u8| there == (stage >= since);
        if !(if stage >= 1 { filled(pieces) } else { pieces.is_empty() }) {
            return wrong("pieces that fill it, from GetTicket on, and none before");
        }
        if !fits(ticket.is_some(), 2) || !fits(pc1.is_some(), 3) {
            return wrong("a ticket from PreCommit1 on and the PC1 output from PreCommit2 on");
        }
        if !fits(cids.is_some(), 4) || !fits(seed.is_some(), 5) {
            return wrong("CommD and CommR from WaitSeed on and a seed from Committing on");
        }
        let rehearsed = fields.source == RandomnessSource::Rehearsal;
        // A played proof is never verified, and never taken for a verified one.
        let word = if rehearsed { None } else { Some(true) };
        let proven = c1.is_some() && proof.is_some() && *verified == word;
        let believed = match (stage, c1, proof, verified) {
            (5, None, None, None) | (5, Some(_), None, None) => true,
            (5, Some(_), Some(_), None) => !rehearsed,
            (5, Some(_), Some(_), Some(false)) => state == SectorState::ComputeProofFailed && !rehearsed,
            (0..5, None, None, None) => true,
            _ => stage > 5 && proven,
        };
        if !believed {
            return wrong(
                "a C1 output and a verified proof from FinalizeSector on, and none before Committing",
            );
        }
        if !marks_fit(&fields.progress, rehearsed) {
            return wrong("the mark of a rehearsal on every result if it is one, and on none if it is not");
        }
        if *cache_cleared && stage < 6 || !*cache_cleared && state == SectorState::Proving {
            return wrong("a cleared cache when it is proving, and not before FinalizeSector");
        }
        let retry_fits = match fields.retry {
            Some(pending) => state.is_failed() && state.after(pending.retry).is_some(),
            None => !state.is_failed(),
        };
        if !retry_fits {
            return wrong("a retry from the transition table when it has failed, and none otherwise");
        }
        Ok(Self { fields })
    }
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

/// How far a sector in this state has come, counted by the data it holds.
const fn stage(state: SectorState) -> u8 {
    match state {
        SectorState::Empty | SectorState::Packing | SectorState::AddPieceFailed => 0,
        SectorState::GetTicket | SectorState::CommitFailed => 1,
        SectorState::PreCommit1 | SectorState::SealPreCommit1Failed => 2,
        SectorState::PreCommit2 | SectorState::SealPreCommit2Failed => 3,
        SectorState::WaitSeed | SectorState::PreCommitFailed => 4,
        SectorState::Committing | SectorState::ComputeProofFailed => 5,
        SectorState::FinalizeSector | SectorState::FinalizeFailed | SectorState::Proving => 6,
    }
}

/// A stored record whose data do not fit its state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of a sector in {state} whose data do not fit; it should have {what}")]
pub struct RecordError {
    /// The state it claims.
    pub state: SectorState,
    /// What would be right.
    pub what: &'static str,
}
