//! The states of a sector, by Lotus's names, and the table of every move between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// Where a sector stands. Names and meanings are Lotus's (`storage/pipeline/sector_state.go`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum SectorState { $($(#[$doc])* $name,)* }

        impl SectorState {
            /// All of them: the way of a good sector first, then the failed states.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Lotus's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

states! {
    /// Known, not begun.
    Empty;
    /// Being filled: AddPiece.
    Packing;
    /// Waits for the sealing randomness.
    GetTicket;
    /// Labels its layers.
    PreCommit1;
    /// Builds its trees and the replica.
    PreCommit2;
    /// Waits for the interactive randomness.
    WaitSeed;
    /// Commit1, then Commit2, then the proof's verification.
    Committing;
    /// Clears the cache, then moves to long-term storage.
    FinalizeSector;
    /// Sealed and stored.
    Proving;
    /// AddPiece failed.
    AddPieceFailed;
    /// No ticket could be had.
    CommitFailed;
    /// PreCommit1 failed.
    SealPreCommit1Failed;
    /// PreCommit2 failed.
    SealPreCommit2Failed;
    /// No seed could be had.
    PreCommitFailed;
    /// Commit1, Commit2 or the verification failed, or the proof is invalid.
    ComputeProofFailed;
    /// Clearing the cache or moving failed.
    FinalizeFailed;
}

impl SectorState {
    /// Whether the sector waits here for a retry.
    pub const fn is_failed(self) -> bool {
        match self {
            Self::AddPieceFailed
            | Self::CommitFailed
            | Self::SealPreCommit1Failed
            | Self::SealPreCommit2Failed
            | Self::PreCommitFailed
            | Self::ComputeProofFailed
            | Self::FinalizeFailed => true,
            Self::Empty
            | Self::Packing
            | Self::GetTicket
            | Self::PreCommit1
            | Self::PreCommit2
            | Self::WaitSeed
            | Self::Committing
            | Self::FinalizeSector
            | Self::Proving => false,
        }
    }

    /// The state that `outcome` leads to; `None` where the table has no row.
    pub fn after(self, outcome: Outcome) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, what, _)| (*from, *what) == (self, outcome)).map(|(_, _, to)| *to)
    }
}

impl fmt::Display for SectorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SectorState {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        let known = Self::ALL.iter().copied().find(|state| state.name() == text);
        known.ok_or_else(|| StateError { text: text.chars().take(64).collect() })
    }
}

/// A text that names no state of this pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no sector state; expected a name such as PreCommit1 or Proving")]
pub struct StateError {
    /// The text as given, cut to 64 characters.
    pub text: String,
}

/// What came of a step, as far as it decides where the sector goes. The retries are named as Lotus's events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The sector begins.
    Start,
    /// Its pieces fill it.
    Packed,
    /// The ticket is there.
    Ticket,
    /// PreCommit1 is done.
    PreCommit1,
    /// PreCommit2 is done.
    PreCommit2,
    /// The seed is there.
    SeedReady,
    /// Commit1 is done.
    Commit1,
    /// Commit2 is done; its proof is not believed yet.
    Commit2,
    /// The proof is valid.
    Committed,
    /// The cache is cleared.
    CacheCleared,
    /// The files are in long-term storage.
    Finalized,
    /// The step gave nothing, or something that is proven wrong.
    Failed,
    /// Fills the sector again.
    RetryAddPiece,
    /// Asks for a ticket again.
    RetryGetTicket,
    /// Labels again.
    RetrySealPreCommit1,
    /// Builds trees and replica again.
    RetrySealPreCommit2,
    /// Asks for a seed again.
    RetryWaitSeed,
    /// Proves again, from the first thing that is missing.
    RetryComputeProof,
    /// Finalizes again, from the first thing that is missing.
    RetryFinalize,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Start,
        Self::Packed,
        Self::Ticket,
        Self::PreCommit1,
        Self::PreCommit2,
        Self::SeedReady,
        Self::Commit1,
        Self::Commit2,
        Self::Committed,
        Self::CacheCleared,
        Self::Finalized,
        Self::Failed,
        Self::RetryAddPiece,
        Self::RetryGetTicket,
        Self::RetrySealPreCommit1,
        Self::RetrySealPreCommit2,
        Self::RetryWaitSeed,
        Self::RetryComputeProof,
        Self::RetryFinalize,
    ];
}

/// Every move a sector can make; whatever is not here does not happen.
pub const TRANSITIONS: &[(SectorState, Outcome, SectorState)] = &[
    (SectorState::Empty, Outcome::Start, SectorState::Packing),
    (SectorState::Packing, Outcome::Packed, SectorState::GetTicket),
    (SectorState::GetTicket, Outcome::Ticket, SectorState::PreCommit1),
    (SectorState::PreCommit1, Outcome::PreCommit1, SectorState::PreCommit2),
    (SectorState::PreCommit2, Outcome::PreCommit2, SectorState::WaitSeed),
    (SectorState::WaitSeed, Outcome::SeedReady, SectorState::Committing),
    (SectorState::Committing, Outcome::Commit1, SectorState::Committing),
    (SectorState::Committing, Outcome::Commit2, SectorState::Committing),
    (SectorState::Committing, Outcome::Committed, SectorState::FinalizeSector),
    (SectorState::FinalizeSector, Outcome::CacheCleared, SectorState::FinalizeSector),
    (SectorState::FinalizeSector, Outcome::Finalized, SectorState::Proving),
    (SectorState::Packing, Outcome::Failed, SectorState::AddPieceFailed),
    (SectorState::GetTicket, Outcome::Failed, SectorState::CommitFailed),
    (SectorState::PreCommit1, Outcome::Failed, SectorState::SealPreCommit1Failed),
    (SectorState::PreCommit2, Outcome::Failed, SectorState::SealPreCommit2Failed),
    (SectorState::WaitSeed, Outcome::Failed, SectorState::PreCommitFailed),
    (SectorState::Committing, Outcome::Failed, SectorState::ComputeProofFailed),
    (SectorState::FinalizeSector, Outcome::Failed, SectorState::FinalizeFailed),
    // Lotus goes to WaitDeals here; a sector without deals has nothing to wait for.
    (SectorState::AddPieceFailed, Outcome::RetryAddPiece, SectorState::Packing),
    (SectorState::CommitFailed, Outcome::RetryGetTicket, SectorState::GetTicket),
    (SectorState::SealPreCommit1Failed, Outcome::RetrySealPreCommit1, SectorState::PreCommit1),
    (SectorState::SealPreCommit1Failed, Outcome::RetryAddPiece, SectorState::Packing),
    (SectorState::SealPreCommit2Failed, Outcome::RetrySealPreCommit2, SectorState::PreCommit2),
    (SectorState::SealPreCommit2Failed, Outcome::RetrySealPreCommit1, SectorState::PreCommit1),
    (SectorState::PreCommitFailed, Outcome::RetryWaitSeed, SectorState::WaitSeed),
    (SectorState::ComputeProofFailed, Outcome::RetryComputeProof, SectorState::Committing),
    (SectorState::ComputeProofFailed, Outcome::RetrySealPreCommit1, SectorState::PreCommit1),
    (SectorState::FinalizeFailed, Outcome::RetryFinalize, SectorState::FinalizeSector),
];
