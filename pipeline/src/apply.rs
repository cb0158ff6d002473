//! How events move a sector: each is measured against what the sector waits for, then goes through the table.

use sealtasks::{ChainEpoch, FailureClass, TaskOutput, rehearsal};

use crate::awaited::Awaited;
use crate::{
    DataPiece, OnChain, Outcome, PendingRetry, RetryWhen, SealSeed, SealTicket, SectorCids, SectorEvent,
    SectorRecord, SectorState, TransitionError,
};

/// Bytes of one partition's SNARK; a proof is a whole number of them (Groth16 over BLS12-381).
const SNARK_BYTES: usize = 192;

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
            SectorEvent::AddData { data } => self.add_data(data)?,
            SectorEvent::StartPacking => {
                let outcome = match self.fields.state {
                    SectorState::WaitDeals if self.pending().is_some() => Outcome::AddPiece,
                    SectorState::Empty | SectorState::WaitDeals => Outcome::StartPacking,
                    SectorState::AddPiece if !self.fields.packing => Outcome::AddPiece,
                    _ => return Err(self.unexpected(name)),
                };
                self.fields.packing = true;
                self.advance(outcome);
            }
            SectorEvent::Proceed => {
                self.require(Awaited::Proceed, name)?;
                let outcome = match self.fields.state {
                    SectorState::WaitDeals if self.pending().is_some() => Outcome::AddPiece,
                    SectorState::WaitDeals => Outcome::StartPacking,
                    SectorState::GetTicket => {
                        self.fields.progress.ticket = self.old_ticket();
                        Outcome::Ticket
                    }
                    _ => Outcome::Packed,
                };
                self.advance(outcome);
            }
            SectorEvent::MessageSent { message } => self.message_sent(message)?,
            SectorEvent::Landed { epoch } => self.landed(epoch)?,
            SectorEvent::Rebuild { refill } => self.rebuild(refill)?,
            SectorEvent::Made { paths } => self.note_made(paths)?,
            SectorEvent::Filled { paths } => self.note_filled(paths)?,
            SectorEvent::Trusted { paths } => self.trust(&paths),
            SectorEvent::Correct { ticket, sealed, data } => self.correct(ticket, sealed, data)?,
            SectorEvent::Force { to } => self.force(to)?,
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
            SectorEvent::SeedChanged { now_ms } => self.seed_changed(now_ms, name)?,
            SectorEvent::TicketExpired { head, now_ms } => self.ticket_expired(head, now_ms, name)?,
            SectorEvent::SeedReady { seed, epoch } => {
                self.require(Awaited::Seed, name)?;
                self.fields.progress.seed = Some(SealSeed { value: seed, epoch });
                self.advance(Outcome::SeedReady);
            }
            SectorEvent::RetryDue { now_ms } => {
                let pending = self.pending_retry(name)?;
                self.check_due(pending.when, now_ms)?;
                self.redo(pending.retry);
            }
            SectorEvent::RetryNow => {
                let pending = self.pending_retry(name)?;
                self.fields.failures.forgive();
                self.redo(pending.retry);
            }
            SectorEvent::Release => self.release(name)?,
        }
        Ok(())
    }

    fn add_data(&mut self, data: DataPiece) -> Result<(), TransitionError> {
        let open =
            matches!(self.fields.state, SectorState::Empty | SectorState::WaitDeals | SectorState::AddPiece);
        if !open || self.fields.packing {
            return Err(TransitionError::Closed { state: self.fields.state });
        }
        self.check_room(data.piece.size).map_err(|reason| TransitionError::Filling { reason })?;
        self.fields.data.push(DataPiece { offset: None, ..data });
        self.go(Outcome::AddPiece);
        Ok(())
    }

    fn message_sent(&mut self, message: String) -> Result<(), TransitionError> {
        let sent = Some(OnChain { message: Some(message), landed: None });
        let progress = &mut self.fields.progress;
        match self.fields.state {
            SectorState::PreCommitting => progress.pre_commit = sent,
            SectorState::SubmitCommit => progress.commit = sent,
            _ => return Err(self.unexpected("message")),
        }
        let pre_commit = self.fields.state == SectorState::PreCommitting;
        self.advance(if pre_commit { Outcome::PreCommitSent } else { Outcome::CommitSent });
        Ok(())
    }

    fn landed(&mut self, epoch: ChainEpoch) -> Result<(), TransitionError> {
        let awaited = self.awaited();
        let progress = &mut self.fields.progress;
        let (on_chain, outcome) = match awaited {
            Awaited::PreCommitMessage | Awaited::PreCommitLanding => {
                (&mut progress.pre_commit, Outcome::PreCommitLanded)
            }
            Awaited::CommitMessage | Awaited::CommitLanding => (&mut progress.commit, Outcome::CommitLanded),
            _ => return Err(self.unexpected("landing")),
        };
        on_chain.get_or_insert_default().landed = Some(epoch);
        self.advance(outcome);
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
            | TaskOutput::Scrub(_)
            | TaskOutput::Vanilla(_) => {
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
        if let TaskOutput::AddPiece(piece) = output {
            let wrong = |message| Wrong { class: FailureClass::Compute, message };
            self.take_piece(piece).map_err(wrong)?;
            return Ok(match self.fields.state {
                SectorState::AddPiece if self.pending().is_some() => Outcome::PieceWritten,
                SectorState::AddPiece => Outcome::PieceAdded,
                _ if self.is_full() => Outcome::Packed,
                _ => Outcome::PieceWritten,
            });
        }
        let progress = &mut self.fields.progress;
        Ok(match output {
            TaskOutput::AddPiece(_) => unreachable!("taken above"),
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
                let cids = SectorCids { unsealed, sealed };
                progress.cids = Some(cids);
                self.take_replica(cids).map_err(|message| {
                    self.fields.progress.cids = None;
                    Wrong { class: FailureClass::BadData, message }
                })?
            }
            TaskOutput::Commit1(c1) => {
                not_empty("C1 output", &c1.0)?;
                self.fields.failures.doubted = false;
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
            | TaskOutput::Scrub(_)
            | TaskOutput::Vanilla(_) => {
                unreachable!("no sector waits for these")
            }
        })
    }

    pub(crate) fn advance(&mut self, outcome: Outcome) {
        self.fields.failures.progress();
        self.go(outcome);
    }

    pub(crate) fn go(&mut self, outcome: Outcome) {
        let state: SectorState = self.fields.state;
        // Our own invariant: events have been measured against what this state waits for.
        self.fields.state =
            state.after(outcome).unwrap_or_else(|| panic!("{state} has no way on {outcome:?}"));
    }

    fn release(&mut self, name: &'static str) -> Result<(), TransitionError> {
        self.require(Awaited::Release, name)?;
        self.fields.stop_after = None;
        Ok(())
    }

    fn require(&self, awaited: Awaited, event: &'static str) -> Result<(), TransitionError> {
        if self.awaited() == awaited { Ok(()) } else { Err(self.unexpected(event)) }
    }

    fn pending_retry(&self, event: &'static str) -> Result<PendingRetry, TransitionError> {
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

    pub(crate) fn unexpected(&self, event: &'static str) -> TransitionError {
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
