//! Failed steps: which retry each gets, and what is forgotten when it is made.

use sealtasks::FailureClass;

use crate::awaited::Awaited;
use crate::{Failure, Outcome, PendingRetry, Progress, RetryWhen, SectorRecord, SectorState};

/// After so many invalid proofs of one replica somebody has to look. Lotus seals the sector anew after two. But a GPU with
/// a fault makes the same wrong proof twice, and Commit1 has verified what lies on disk each time: a bad replica fails
/// there, as bad data. A replica is the only one there is, so nothing less than that condemns it.
const INVALID_PROOFS_MAX: u32 = 3;
/// What the log says of a verdict that stands alone.
const ASKED_AGAIN: &str =
    "; Commit1 is asked once more before the replica is given up, for the fault may be its worker's";

impl SectorRecord {
    /// The step failed: into the failed state, with the retry decided.
    pub(crate) fn fail(&mut self, class: FailureClass, message: String, now_ms: u64) {
        let failed = self.awaited();
        let (class, message) = self.weighed(failed, class, message);
        let failure = Failure { state: self.fields.state, class, message, at_ms: now_ms };
        let mut when = self.fields.failures.add(failure);
        let bad = class == FailureClass::BadData;
        let retry = match failed {
            Awaited::AddPiece if self.pending().is_some() => Outcome::RetryWaitDeals,
            Awaited::AddPiece => Outcome::RetryAddPiece,
            Awaited::Ticket => Outcome::RetryGetTicket,
            // The unsealed file is all there is of its data: nothing is written over it.
            Awaited::PreCommit1 if bad && self.is_from_unsealed() => {
                when = RetryWhen::Operator;
                Outcome::RetrySealPreCommit1
            }
            Awaited::PreCommit1 if bad && self.has_data() => Outcome::RetryWaitDeals,
            Awaited::PreCommit1 if bad => Outcome::RetryAddPiece,
            Awaited::PreCommit1 => {
                // What is in the way of a rebuild may be the replica that it stands in for; somebody has to look.
                let in_the_way = class == FailureClass::Environment && self.rebuilt_to().is_some();
                when = if in_the_way { RetryWhen::Operator } else { when };
                Outcome::RetrySealPreCommit1
            }
            // It would become the same once more.
            Awaited::PreCommit2 if bad && self.rebuilt_to().is_some() => {
                when = RetryWhen::Operator;
                Outcome::RetrySealPreCommit1
            }
            Awaited::PreCommit2 if bad => Outcome::RetrySealPreCommit1,
            Awaited::PreCommit2 => Outcome::RetrySealPreCommit2,
            // What a chain has refused once it refuses again; somebody has to look.
            Awaited::PreCommitMessage
            | Awaited::PreCommitLanding
            | Awaited::CommitMessage
            | Awaited::CommitLanding => {
                when = if class == FailureClass::Network { when } else { RetryWhen::Operator };
                message_retry(failed, class)
            }
            // The pre-commitment is gone from the chain: it is put there again, if it does not come back meanwhile.
            Awaited::Seed if class == FailureClass::Compute => Outcome::RetryPreCommit,
            Awaited::Seed => Outcome::RetryWaitSeed,
            // PC2 encodes the replica in place, so a bad replica is made anew from its labels on.
            // Twice, and the second time by another worker, if there is one.
            Awaited::Commit1 if bad => Outcome::RetrySealPreCommit1,
            Awaited::Commit1 => Outcome::RetryComputeProof,
            Awaited::Commit2 | Awaited::Verification => {
                let retry = self.proof_failed(failed, bad);
                let enough = self.fields.failures.invalid_proofs >= INVALID_PROOFS_MAX;
                when = if bad && enough { RetryWhen::Operator } else { when };
                retry
            }
            Awaited::Finalize | Awaited::Move => {
                // Nothing to go back to: the proof is made, and what it proves must not be touched.
                when = if bad { RetryWhen::Operator } else { when };
                Outcome::RetryFinalize
            }
            Awaited::Start
            | Awaited::Data
            | Awaited::Proceed
            | Awaited::Retry
            | Awaited::Release
            | Awaited::Nothing => unreachable!("only a step can fail"),
        };
        self.fields.retry = Some(PendingRetry { retry, when });
        self.go(Outcome::Failed);
    }

    /// Hours of work hang on Commit1's word: the first one is a failed computation, the second one in a row condemns.
    fn weighed(&mut self, failed: Awaited, class: FailureClass, message: String) -> (FailureClass, String) {
        let condemns = failed == Awaited::Commit1 && class == FailureClass::BadData;
        if !condemns || std::mem::replace(&mut self.fields.failures.doubted, true) {
            return (class, message);
        }
        (FailureClass::Compute, message + ASKED_AGAIN)
    }

    fn proof_failed(&mut self, failed: Awaited, bad: bool) -> Outcome {
        if !bad {
            return Outcome::RetryComputeProof;
        }
        if failed == Awaited::Commit2 {
            self.fields.progress.c1 = None;
            return Outcome::RetryComputeProof;
        }
        // Whoever said so, an invalid proof is not believed; it stays to be looked at until the retry.
        self.fields.progress.verified = Some(false);
        let invalid = &mut self.fields.failures.invalid_proofs;
        *invalid = invalid.saturating_add(1);
        Outcome::RetryComputeProof
    }

    /// Leaves the failed state and forgets what is to be made again.
    pub(crate) fn redo(&mut self, retry: Outcome) {
        let anew = self.fields.state == SectorState::SealPreCommit1Failed;
        let progress = &mut self.fields.progress;
        match retry {
            Outcome::RetryAddPiece | Outcome::RetryWaitDeals if anew => {
                *progress = Progress::default();
                self.fields.data.iter_mut().for_each(|data| data.offset = None);
                self.fields.packing = true;
            }
            Outcome::RetryPreCommit => progress.pre_commit = None,
            Outcome::RetrySubmitCommit => progress.commit = None,
            Outcome::RetrySealPreCommit1 => {
                let (pieces, ticket) = (std::mem::take(&mut progress.pieces), progress.ticket);
                *progress = Progress { pieces, ticket, ..Progress::default() };
                (self.fields.failures.invalid_proofs, self.fields.failures.doubted) = (0, false);
            }
            Outcome::RetryComputeProof => {
                if progress.verified == Some(false) {
                    (progress.c1, progress.proof, progress.verified) = (None, None, None);
                }
            }
            // What is written stays: the next attempt goes on behind it.
            Outcome::RetryAddPiece
            | Outcome::RetryWaitDeals
            | Outcome::RetryGetTicket
            | Outcome::RetryPreCommitWait
            | Outcome::RetryCommitWait
            | Outcome::RetrySealPreCommit2
            | Outcome::RetryWaitSeed
            | Outcome::RetryFinalize => {}
            Outcome::Start
            | Outcome::AddPiece
            | Outcome::PieceWritten
            | Outcome::PieceAdded
            | Outcome::StartPacking
            | Outcome::PreCommitSent
            | Outcome::PreCommitLanded
            | Outcome::CommitSent
            | Outcome::CommitLanded
            | Outcome::Packed
            | Outcome::Ticket
            | Outcome::OldTicket
            | Outcome::PreCommit1
            | Outcome::PreCommit2
            | Outcome::Rebuild
            | Outcome::RebuildData
            | Outcome::RebuildUnsealed
            | Outcome::Rebuilt
            | Outcome::SeedReady
            | Outcome::OldSeed
            | Outcome::Commit1
            | Outcome::Commit2
            | Outcome::Committed
            | Outcome::CacheCleared
            | Outcome::Finalized
            | Outcome::Failed => unreachable!("no failed state waits for these"),
        }
        self.fields.retry = None;
        self.go(retry);
    }
}

/// A message that was not sent is sent; one that may have been is waited for, unless it is known to have failed.
const fn message_retry(failed: Awaited, class: FailureClass) -> Outcome {
    let lost = matches!(class, FailureClass::Compute | FailureClass::BadData);
    match failed {
        Awaited::PreCommitLanding if !lost => Outcome::RetryPreCommitWait,
        Awaited::CommitLanding if !lost => Outcome::RetryCommitWait,
        Awaited::CommitMessage | Awaited::CommitLanding => Outcome::RetrySubmitCommit,
        _ => Outcome::RetryPreCommit,
    }
}
