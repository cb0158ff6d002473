//! The table of every move that a sector can make. An operator's `update-state` alone goes beside it, by `force`.

use crate::{Outcome, SectorState};

impl SectorState {
    /// The state that `outcome` leads to; `None` where the table has no row.
    pub fn after(self, outcome: Outcome) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, what, _)| (*from, *what) == (self, outcome)).map(|(_, _, to)| *to)
    }
}

/// Every move a sector can make by itself; whatever is not here does not happen. The first part is the way of a good
/// sector, the second where each step fails to, the third how failures are left.
pub const TRANSITIONS: &[(SectorState, Outcome, SectorState)] = &[
    (SectorState::Empty, Outcome::Start, SectorState::Packing),
    (SectorState::Empty, Outcome::AddPiece, SectorState::AddPiece),
    (SectorState::Empty, Outcome::StartPacking, SectorState::Packing),
    (SectorState::WaitDeals, Outcome::AddPiece, SectorState::AddPiece),
    (SectorState::WaitDeals, Outcome::StartPacking, SectorState::Packing),
    (SectorState::AddPiece, Outcome::AddPiece, SectorState::AddPiece),
    (SectorState::AddPiece, Outcome::PieceWritten, SectorState::AddPiece),
    (SectorState::AddPiece, Outcome::PieceAdded, SectorState::WaitDeals),
    (SectorState::Packing, Outcome::PieceWritten, SectorState::Packing),
    (SectorState::Packing, Outcome::Packed, SectorState::GetTicket),
    (SectorState::GetTicket, Outcome::Ticket, SectorState::PreCommit1),
    (SectorState::PreCommit1, Outcome::OldTicket, SectorState::GetTicket),
    (SectorState::PreCommit1, Outcome::PreCommit1, SectorState::PreCommit2),
    (SectorState::PreCommit2, Outcome::PreCommit2, SectorState::PreCommitting),
    (SectorState::PreCommitting, Outcome::OldTicket, SectorState::GetTicket),
    (SectorState::PreCommitting, Outcome::PreCommitSent, SectorState::PreCommitWait),
    (SectorState::PreCommitting, Outcome::PreCommitLanded, SectorState::WaitSeed),
    (SectorState::PreCommitWait, Outcome::PreCommitLanded, SectorState::WaitSeed),
    (SectorState::WaitSeed, Outcome::SeedReady, SectorState::Committing),
    (SectorState::Committing, Outcome::Commit1, SectorState::Committing),
    (SectorState::Committing, Outcome::Commit2, SectorState::Committing),
    (SectorState::Committing, Outcome::Committed, SectorState::SubmitCommit),
    (SectorState::SubmitCommit, Outcome::CommitSent, SectorState::CommitWait),
    (SectorState::SubmitCommit, Outcome::CommitLanded, SectorState::FinalizeSector),
    (SectorState::SubmitCommit, Outcome::OldSeed, SectorState::WaitSeed),
    (SectorState::CommitWait, Outcome::CommitLanded, SectorState::FinalizeSector),
    (SectorState::FinalizeSector, Outcome::CacheCleared, SectorState::FinalizeSector),
    (SectorState::FinalizeSector, Outcome::Finalized, SectorState::Proving),
    (SectorState::Proving, Outcome::Rebuild, SectorState::Packing),
    (SectorState::Proving, Outcome::RebuildData, SectorState::AddPiece),
    (SectorState::Proving, Outcome::RebuildUnsealed, SectorState::GetTicket),
    (SectorState::PreCommit2, Outcome::Rebuilt, SectorState::FinalizeSector),
    (SectorState::AddPiece, Outcome::Failed, SectorState::AddPieceFailed),
    (SectorState::Packing, Outcome::Failed, SectorState::AddPieceFailed),
    (SectorState::GetTicket, Outcome::Failed, SectorState::CommitFailed),
    (SectorState::PreCommit1, Outcome::Failed, SectorState::SealPreCommit1Failed),
    (SectorState::PreCommit2, Outcome::Failed, SectorState::SealPreCommit2Failed),
    (SectorState::PreCommitting, Outcome::Failed, SectorState::PreCommitFailed),
    (SectorState::PreCommitWait, Outcome::Failed, SectorState::PreCommitFailed),
    (SectorState::WaitSeed, Outcome::Failed, SectorState::PreCommitFailed),
    (SectorState::Committing, Outcome::Failed, SectorState::ComputeProofFailed),
    (SectorState::SubmitCommit, Outcome::Failed, SectorState::CommitFailed),
    (SectorState::CommitWait, Outcome::Failed, SectorState::CommitFailed),
    (SectorState::FinalizeSector, Outcome::Failed, SectorState::FinalizeFailed),
    (SectorState::AddPieceFailed, Outcome::RetryWaitDeals, SectorState::WaitDeals),
    (SectorState::AddPieceFailed, Outcome::RetryAddPiece, SectorState::Packing),
    (SectorState::CommitFailed, Outcome::RetryGetTicket, SectorState::GetTicket),
    (SectorState::CommitFailed, Outcome::RetrySubmitCommit, SectorState::SubmitCommit),
    (SectorState::CommitFailed, Outcome::RetryCommitWait, SectorState::CommitWait),
    (SectorState::SealPreCommit1Failed, Outcome::RetrySealPreCommit1, SectorState::PreCommit1),
    (SectorState::SealPreCommit1Failed, Outcome::RetryAddPiece, SectorState::Packing),
    (SectorState::SealPreCommit1Failed, Outcome::RetryWaitDeals, SectorState::WaitDeals),
    (SectorState::SealPreCommit2Failed, Outcome::RetrySealPreCommit2, SectorState::PreCommit2),
    (SectorState::SealPreCommit2Failed, Outcome::RetrySealPreCommit1, SectorState::PreCommit1),
    (SectorState::PreCommitFailed, Outcome::RetryPreCommit, SectorState::PreCommitting),
    (SectorState::PreCommitFailed, Outcome::RetryPreCommitWait, SectorState::PreCommitWait),
    (SectorState::PreCommitFailed, Outcome::RetryWaitSeed, SectorState::WaitSeed),
    (SectorState::ComputeProofFailed, Outcome::RetryComputeProof, SectorState::Committing),
    (SectorState::ComputeProofFailed, Outcome::RetrySealPreCommit1, SectorState::PreCommit1),
    (SectorState::FinalizeFailed, Outcome::RetryFinalize, SectorState::FinalizeSector),
];
