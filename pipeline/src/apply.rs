//! How events move a sector: each is measured against what the sector waits for, then goes through the table.

use sealtasks::{FailureClass, TaskOutput, rehearsal};

use crate::record::Awaited;
use crate::{
    Failure, Outcome, PendingRetry, Progress, RetryWhen, SealSeed, SealTicket, SectorCids, SectorEvent,
    SectorRecord, SectorState, TransitionError,
};

/// Bytes of one partition's SNARK; a proof is a whole number of them (Groth16 over BLS12-381).
const SNARK_BYTES: usize = 192;
/// So many invalid proofs of one replica prove the replica bad (Lotus: more than one).
const INVALID_PROOFS_MAX: u32 = 2;

impl SectorRecord {
    /// Takes the event, or refuses it and stays as it is.
    ///
    /// # Errors
    /// The sector does not wait for this, or its back-off is not over.
    pub fn apply(&mut self, event: SectorEvent) -> Result<(), TransitionError> {
        let name = event.name();
        match event {
            SectorEvent::Start => {
                self.require(Awaited::Start, name)?;
                self.advance(Outcome::Start);
            }
            SectorEvent::TaskDone { output, now_ms } => self.task_done(output, now_ms, name)?,
            SectorEvent::Failed { class, message, now_ms } => {
                if !self.awaited().can_fail() {
                    return Err(self.unexpected(name));
                }
                self.fail(class, message, now_ms);
            }
            SectorEvent::TicketReady { ticket, epoch } => {
                self.require(Awaited::Ticket, name)?;
                self.fields.progress.ticket = Some(SealTicket { value: ticket, epoch });
                self.advance(Outcome::Ticket);
            }
            SectorEvent::SeedReady { seed, epoch } => {
                self.require(Awaited::Seed, name)?;
                self.fields.progress.seed = Some(SealSeed { value: seed, epoch });
                self.advance(Outcome::SeedReady);
            }
            SectorEvent::RetryDue { now_ms } => {
                let pending = self.pending(name)?;
                self.check_due(pending.when, now_ms)?;
                self.redo(pending.retry);
            }
            SectorEvent::RetryNow => {
                let pending = self.pending(name)?;
                self.fields.failures.forgive();
                self.redo(pending.retry);
            }
        }
        Ok(())
    }

    fn task_done(
        &mut self,
        output: TaskOutput,
        now_ms: u64,
        name: &'static str,
    ) -> Result<(), TransitionError> {
        let expected = match &output {
            TaskOutput::AddPiece(_) => Awaited::AddPiece,
            TaskOutput::PreCommit1(_) => Awaited::PreCommit1,
            TaskOutput::PreCommit2 { .. } => Awaited::PreCommit2,
            TaskOutput::Commit1(_) => Awaited::Commit1,
            TaskOutput::Commit2(_) => Awaited::Commit2,
            TaskOutput::Verify(_) => Awaited::Verification,
            TaskOutput::Finalize => Awaited::Finalize,
            TaskOutput::Move => Awaited::Move,
            TaskOutput::DataCid(_)
            | TaskOutput::ReleaseUnsealed
            | TaskOutput::Fetch
            | TaskOutput::Unseal
            | TaskOutput::Scrub(_) => {
                return Err(self.unexpected(name));
            }
        };
        self.require(expected, name)?;
        match self.of_this_world(&output).and_then(|()| self.take(output)) {
            // Nothing is proven by a rehearsal, so nobody is asked whether it is.
            Ok(Outcome::Commit2) if self.is_rehearsal() => {
                self.advance(Outcome::Commit2);
                self.advance(Outcome::Committed);
            }
            Ok(outcome) => self.advance(outcome),
            Err(Wrong { class, message }) => self.fail(class, message, now_ms),
        }
        Ok(())
    }

    /// A rehearsal's result is never believed of a real sector, nor a real one of a rehearsal's sector.
    fn of_this_world(&self, output: &TaskOutput) -> Result<(), Wrong> {
        let message = match (rehearsal::mark_of(output), self.is_rehearsal()) {
            (Some(true), false) => "the result is a rehearsal's, and this sector is none",
            (Some(false), true) => "the result is a real one, and this sector is a REHEARSAL",
            (None, _) | (Some(true), true) | (Some(false), false) => return Ok(()),
        };
        Err(Wrong { class: FailureClass::Environment, message: message.to_owned() })
    }

    /// Takes a result over if it can be one. A worker may be of another make: what it sends is looked at first.
    fn take(&mut self, output: TaskOutput) -> Result<Outcome, Wrong> {
        let whole = self.fields.sector.proof.sector_size().bytes();
        let progress = &mut self.fields.progress;
        Ok(match output {
            TaskOutput::AddPiece(piece) => {
                if piece.size.get() != whole {
                    let message = format!("the piece has {} padded bytes; expected {whole}", piece.size);
                    return Err(Wrong { class: FailureClass::Compute, message });
                }
                progress.pieces = vec![piece];
                Outcome::Packed
            }
            TaskOutput::PreCommit1(pc1) => {
                not_empty("PC1 output", &pc1.0)?;
                progress.pc1 = Some(pc1);
                Outcome::PreCommit1
            }
            TaskOutput::PreCommit2 { unsealed, sealed } => {
                // One piece that fills the sector: its CommP is the sector's CommD.
                if let [piece] = progress.pieces.as_slice()
                    && piece.cid != unsealed
                {
                    let message = format!("PC2 found CommD {unsealed}, but the piece has {}", piece.cid);
                    return Err(Wrong { class: FailureClass::BadData, message });
                }
                progress.cids = Some(SectorCids { unsealed, sealed });
                Outcome::PreCommit2
            }
            TaskOutput::Commit1(c1) => {
                not_empty("C1 output", &c1.0)?;
                progress.c1 = Some(c1);
                Outcome::Commit1
            }
            TaskOutput::Commit2(proof) => {
                not_empty("proof", &proof.0)?;
                if !proof.0.len().is_multiple_of(SNARK_BYTES) {
                    let message =
                        format!("the proof has {} bytes; expected a multiple of 192", proof.0.len());
                    return Err(Wrong { class: FailureClass::Compute, message });
                }
                progress.proof = Some(proof);
                Outcome::Commit2
            }
            TaskOutput::Verify(valid) => {
                progress.verified = Some(valid);
                if !valid {
                    let message = "the proof is invalid".to_owned();
                    return Err(Wrong { class: FailureClass::BadData, message });
                }
                Outcome::Committed
            }
            TaskOutput::Finalize => {
                progress.cache_cleared = true;
                Outcome::CacheCleared
            }
            TaskOutput::Move => Outcome::Finalized,
            TaskOutput::DataCid(_)
            | TaskOutput::ReleaseUnsealed
            | TaskOutput::Fetch
            | TaskOutput::Unseal
            | TaskOutput::Scrub(_) => {
                unreachable!("no sector waits for these")
            }
        })
    }

    /// The step failed: into the failed state, with the retry decided.
    fn fail(&mut self, class: FailureClass, message: String, now_ms: u64) {
        let failed = self.awaited();
        let failure = Failure { state: self.fields.state, class, message, at_ms: now_ms };
        let mut when = self.fields.failures.add(failure);
        let bad = class == FailureClass::BadData;
        let retry = match failed {
            Awaited::AddPiece => Outcome::RetryAddPiece,
            Awaited::Ticket => Outcome::RetryGetTicket,
            Awaited::PreCommit1 if bad => Outcome::RetryAddPiece,
            Awaited::PreCommit1 => Outcome::RetrySealPreCommit1,
            Awaited::PreCommit2 if bad => Outcome::RetrySealPreCommit1,
            Awaited::PreCommit2 => Outcome::RetrySealPreCommit2,
            Awaited::Seed => Outcome::RetryWaitSeed,
            // PC2 encodes the replica in place, so a bad replica is made anew from its labels on.
            Awaited::Commit1 if bad => Outcome::RetrySealPreCommit1,
            Awaited::Commit1 => Outcome::RetryComputeProof,
            Awaited::Commit2 | Awaited::Verification => self.proof_failed(failed, bad),
            Awaited::Finalize | Awaited::Move => {
                // Nothing to go back to: the proof is made, and what it proves must not be touched.
                when = if bad { RetryWhen::Operator } else { when };
                Outcome::RetryFinalize
            }
            Awaited::Start | Awaited::Retry | Awaited::Release | Awaited::Nothing => {
                unreachable!("only a step can fail")
            }
        };
        self.fields.retry = Some(PendingRetry { retry, when });
        self.go(Outcome::Failed);
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
        if *invalid >= INVALID_PROOFS_MAX { Outcome::RetrySealPreCommit1 } else { Outcome::RetryComputeProof }
    }

    /// Leaves the failed state and forgets what is to be made again.
    fn redo(&mut self, retry: Outcome) {
        let progress = &mut self.fields.progress;
        match retry {
            Outcome::RetryAddPiece => *progress = Progress::default(),
            Outcome::RetrySealPreCommit1 => {
                let (pieces, ticket) = (std::mem::take(&mut progress.pieces), progress.ticket);
                *progress = Progress { pieces, ticket, ..Progress::default() };
                self.fields.failures.invalid_proofs = 0;
            }
            Outcome::RetryComputeProof => {
                if progress.verified == Some(false) {
                    (progress.c1, progress.proof, progress.verified) = (None, None, None);
                }
            }
            Outcome::RetryGetTicket
            | Outcome::RetrySealPreCommit2
            | Outcome::RetryWaitSeed
            | Outcome::RetryFinalize => {}
            Outcome::Start
            | Outcome::Packed
            | Outcome::Ticket
            | Outcome::PreCommit1
            | Outcome::PreCommit2
            | Outcome::SeedReady
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

    fn advance(&mut self, outcome: Outcome) {
        self.fields.failures.progress();
        self.go(outcome);
    }

    fn go(&mut self, outcome: Outcome) {
        let state: SectorState = self.fields.state;
        // Our own invariant: events have been measured against what this state waits for.
        self.fields.state =
            state.after(outcome).unwrap_or_else(|| panic!("{state} has no way on {outcome:?}"));
    }

    fn require(&self, awaited: Awaited, event: &'static str) -> Result<(), TransitionError> {
        if self.awaited() == awaited { Ok(()) } else { Err(self.unexpected(event)) }
    }

    fn pending(&self, event: &'static str) -> Result<PendingRetry, TransitionError> {
        self.fields.retry.ok_or_else(|| self.unexpected(event))
    }

    fn check_due(&self, when: RetryWhen, now_ms: u64) -> Result<(), TransitionError> {
        let state = self.fields.state;
        match when {
            RetryWhen::Operator => Err(TransitionError::OperatorOnly { state }),
            RetryWhen::NotBeforeMs(not_before_ms) if now_ms < not_before_ms => {
                Err(TransitionError::TooEarly { state, not_before_ms, now_ms })
            }
            RetryWhen::NotBeforeMs(_) => Ok(()),
        }
    }

    fn unexpected(&self, event: &'static str) -> TransitionError {
        TransitionError::Unexpected { state: self.fields.state, awaited: self.awaited().name(), event }
    }
}

/// A result that cannot be one.
struct Wrong {
    class: FailureClass,
    message: String,
}

fn not_empty(what: &str, bytes: &[u8]) -> Result<(), Wrong> {
    if bytes.is_empty() {
        Err(Wrong { class: FailureClass::Compute, message: format!("the {what} is empty") })
    } else {
        Ok(())
    }
}
