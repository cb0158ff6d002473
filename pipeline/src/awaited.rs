//! The one thing that a sector can take next: what it asks for and what events are measured by come from here alone.

use crate::{SectorRecord, SectorState, StopAfter};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Start,
    /// Data, or the word to start.
    Data,
    /// Nothing is missing for the next state.
    Proceed,
    AddPiece,
    Ticket,
    PreCommit1,
    PreCommit2,
    PreCommitMessage,
    PreCommitLanding,
    Seed,
    Commit1,
    Commit2,
    Verification,
    CommitMessage,
    CommitLanding,
    Finalize,
    Move,
    Retry,
    /// It was to stop here: the operator's word to go on all the same.
    Release,
    Nothing,
}

impl Awaited {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "its start",
            Self::Data => "data or its start",
            Self::Proceed => "the word to go on",
            Self::AddPiece => "AP",
            Self::Ticket => "a ticket",
            Self::PreCommit1 => "PC1",
            Self::PreCommit2 => "PC2",
            Self::PreCommitMessage => "its pre-commitment's message",
            Self::PreCommitLanding => "its pre-commitment on chain",
            Self::Seed => "a seed",
            Self::Commit1 => "C1",
            Self::Commit2 => "C2",
            Self::Verification => "the proof's verification",
            Self::CommitMessage => "its proof's message",
            Self::CommitLanding => "its proof on chain",
            Self::Finalize => "FIN",
            Self::Move => "MOVE",
            Self::Retry => "a retry",
            Self::Release => "its release",
            Self::Nothing => "nothing",
        }
    }

    /// Whether it is something that can fail.
    pub(crate) const fn can_fail(self) -> bool {
        !matches!(
            self,
            Self::Start | Self::Data | Self::Proceed | Self::Retry | Self::Release | Self::Nothing
        )
    }
}

impl SectorRecord {
    pub(crate) fn awaited(&self) -> Awaited {
        let (progress, stop_after) = (&self.fields.progress, self.fields.stop_after);
        match self.fields.state {
            SectorState::Empty => Awaited::Start,
            SectorState::WaitDeals if self.pending().is_some() || self.fields.packing || self.is_full() => {
                Awaited::Proceed
            }
            SectorState::WaitDeals => Awaited::Data,
            SectorState::AddPiece => Awaited::AddPiece,
            SectorState::Packing if self.is_full() => Awaited::Proceed,
            SectorState::Packing => Awaited::AddPiece,
            SectorState::GetTicket if self.old_ticket().is_some() => Awaited::Proceed,
            SectorState::GetTicket => Awaited::Ticket,
            SectorState::PreCommit1 => Awaited::PreCommit1,
            SectorState::PreCommit2 => Awaited::PreCommit2,
            SectorState::PreCommitting if stop_after == Some(StopAfter::Pc2) => Awaited::Release,
            SectorState::PreCommitting => Awaited::PreCommitMessage,
            SectorState::PreCommitWait => Awaited::PreCommitLanding,
            SectorState::WaitSeed => Awaited::Seed,
            SectorState::Committing if progress.c1.is_none() => Awaited::Commit1,
            SectorState::Committing if progress.proof.is_some() => Awaited::Verification,
            SectorState::Committing if stop_after == Some(StopAfter::C1) => Awaited::Release,
            SectorState::Committing => Awaited::Commit2,
            SectorState::SubmitCommit => Awaited::CommitMessage,
            SectorState::CommitWait => Awaited::CommitLanding,
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
}
