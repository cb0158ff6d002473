//! The states of a sector, by Lotus's names, and the outcomes that move it between them.

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
    /// Has data and room for more; waits for it, or for the word to start.
    WaitDeals;
    /// Data is written into it.
    AddPiece;
    /// Zeros fill what is left.
    Packing;
    /// Waits for the sealing randomness.
    GetTicket;
    /// Labels its layers.
    PreCommit1;
    /// Builds its trees and the replica.
    PreCommit2;
    /// Its pre-commitment is to be put on chain; `SubmitPreCommitBatch` is the same.
    PreCommitting;
    /// The pre-commitment's message is on its way; `PreCommitBatchWait` is the same.
    PreCommitWait;
    /// Waits for the interactive randomness.
    WaitSeed;
    /// Commit1, then Commit2, then the proof's verification.
    Committing;
    /// Its proof is to be put on chain; `SubmitCommitAggregate` is the same.
    SubmitCommit;
    /// The proof's message is on its way; `CommitAggregateWait` is the same.
    CommitWait;
    /// Clears the cache, then moves to long-term storage.
    FinalizeSector;
    /// Sealed and stored.
    Proving;
    /// AddPiece failed.
    AddPieceFailed;
    /// No ticket could be had, or the proof did not come on chain.
    CommitFailed;
    /// PreCommit1 failed.
    SealPreCommit1Failed;
    /// PreCommit2 failed.
    SealPreCommit2Failed;
    /// The pre-commitment did not come on chain, or no seed could be had.
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
            | Self::WaitDeals
            | Self::AddPiece
            | Self::Packing
            | Self::GetTicket
            | Self::PreCommit1
            | Self::PreCommit2
            | Self::PreCommitting
            | Self::PreCommitWait
            | Self::WaitSeed
            | Self::Committing
            | Self::SubmitCommit
            | Self::CommitWait
            | Self::FinalizeSector
            | Self::Proving => false,
        }
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
        // What Lotus calls them since it sends messages in batches.
        let name = match text {
            "SubmitPreCommitBatch" => "PreCommitting",
            "PreCommitBatchWait" => "PreCommitWait",
            "SubmitCommitAggregate" => "SubmitCommit",
            "CommitAggregateWait" => "CommitWait",
            name => name,
        };
        let known = Self::ALL.iter().copied().find(|state| state.name() == name);
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
    /// The sector begins, to be filled with zeros.
    Start,
    /// Data is to be written into it.
    AddPiece,
    /// A piece or a filler was written, and there is more to write.
    PieceWritten,
    /// All data that was given is written.
    PieceAdded,
    /// It takes no more data.
    StartPacking,
    /// Its pieces fill it.
    Packed,
    /// The ticket is there.
    Ticket,
    /// The chain takes no replica with its ticket any more, or soon will not.
    OldTicket,
    /// PreCommit1 is done.
    PreCommit1,
    /// PreCommit2 is done.
    PreCommit2,
    /// The files are lost; the sector is sealed again.
    Rebuild,
    /// The same, for a sector whose data is given once more.
    RebuildData,
    /// The same, for a sector whose unsealed file is left.
    RebuildUnsealed,
    /// PreCommit2 has made the replica again that was proven.
    Rebuilt,
    /// The pre-commitment's message was sent.
    PreCommitSent,
    /// The pre-commitment is on chain, or there is no chain to put it on.
    PreCommitLanded,
    /// The seed is there.
    SeedReady,
    /// The proof answers a seed that the chain draws no more.
    OldSeed,
    /// Commit1 is done.
    Commit1,
    /// Commit2 is done; its proof is not believed yet.
    Commit2,
    /// The proof is valid.
    Committed,
    /// The proof's message was sent.
    CommitSent,
    /// The proof is on chain, or there is no chain to put it on.
    CommitLanded,
    /// The cache is cleared.
    CacheCleared,
    /// The files are in long-term storage.
    Finalized,
    /// The step gave nothing, or something that is proven wrong.
    Failed,
    /// Goes on to fill the sector with zeros, or begins anew.
    RetryAddPiece,
    /// Goes on to write data, or begins anew.
    RetryWaitDeals,
    /// Asks for a ticket again.
    RetryGetTicket,
    /// Labels again.
    RetrySealPreCommit1,
    /// Builds trees and replica again.
    RetrySealPreCommit2,
    /// Puts the pre-commitment on chain again.
    RetryPreCommit,
    /// Waits for the pre-commitment's message again.
    RetryPreCommitWait,
    /// Asks for a seed again.
    RetryWaitSeed,
    /// Proves again, from the first thing that is missing.
    RetryComputeProof,
    /// Puts the proof on chain again.
    RetrySubmitCommit,
    /// Waits for the proof's message again.
    RetryCommitWait,
    /// Finalizes again, from the first thing that is missing.
    RetryFinalize,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 38] = [
        Self::Start,
        Self::AddPiece,
        Self::PieceWritten,
        Self::PieceAdded,
        Self::StartPacking,
        Self::Packed,
        Self::Ticket,
        Self::OldTicket,
        Self::PreCommit1,
        Self::PreCommit2,
        Self::Rebuild,
        Self::RebuildData,
        Self::RebuildUnsealed,
        Self::Rebuilt,
        Self::PreCommitSent,
        Self::PreCommitLanded,
        Self::SeedReady,
        Self::OldSeed,
        Self::Commit1,
        Self::Commit2,
        Self::Committed,
        Self::CommitSent,
        Self::CommitLanded,
        Self::CacheCleared,
        Self::Finalized,
        Self::Failed,
        Self::RetryAddPiece,
        Self::RetryWaitDeals,
        Self::RetryGetTicket,
        Self::RetrySealPreCommit1,
        Self::RetrySealPreCommit2,
        Self::RetryPreCommit,
        Self::RetryPreCommitWait,
        Self::RetryWaitSeed,
        Self::RetryComputeProof,
        Self::RetrySubmitCommit,
        Self::RetryCommitWait,
        Self::RetryFinalize,
    ];
}
