//! Until when a sector's present work is of use: the chain takes a ticket and a pre-commitment for so long only, and a seed
//! as long as no reorganisation changes it. Never: time; heights are the chain's, and what hour one is at is the chain's to
//! say.

use sealtasks::{ChainEpoch, FailureClass, ProofVersion, RegisteredSealProof};

use crate::awaited::Awaited;
use crate::{Failure, Outcome, Progress, RandomnessSource, SectorRecord, SectorState, TransitionError};

/// Epochs of 30 s in a day: `EPOCHS_IN_DAY` of builtin-actors.
const EPOCHS_IN_DAY: i64 = 2880;

/// A pre-commitment's ticket may be this old: `MAX_PRE_COMMIT_RANDOMNESS_LOOKBACK` of builtin-actors, a day and
/// `CHAIN_FINALITY` (900). The miner actor refuses `seal_rand_epoch < current - lookback`.
const TICKET_EPOCHS_MAX: i64 = EPOCHS_IN_DAY + 900;

/// A sector whose ticket is of use for less than this is not labelled with it: PreCommit1, PreCommit2 and the message
/// could take longer, and a new ticket costs nothing yet. A fresh one is of use for a day, drawn 900 heights back.
const SEALING_EPOCHS: i64 = EPOCHS_IN_DAY / 2;
const _: () = assert!(SEALING_EPOCHS < TICKET_EPOCHS_MAX - 900, "a fresh ticket is good enough");

impl SectorRecord {
    /// The last height at which what the sector works on now can still be put on chain; `None`: it is bound to none, or
    /// no chain knows the sector.
    ///
    /// - A sector that labels, builds trees or pre-commits: its ticket's height + 3780, when the pre-commitment must have landed.
    /// - A sector that proves, or puts its proof on chain: its seed's height + 30 days (V1_1), when the proof must have landed. The actor counts
    ///   from the pre-commitment, `max_prove_commit_duration` = 30 days + `pre_commit_challenge_delay`; the seed is drawn
    ///   that same delay after the pre-commitment, so the delay is on both sides.
    ///
    /// The time that the message itself takes is not subtracted; the scheduler keeps a slack of its own.
    pub fn deadline(&self) -> Option<ChainEpoch> {
        // What was proven once is not told to the chain again.
        if self.rebuilt_to().is_some() {
            return None;
        }
        match self.source() {
            RandomnessSource::Offline | RandomnessSource::Rehearsal => return None,
            RandomnessSource::Lotus => {}
        }
        let progress = self.progress();
        let (from, epochs) = match self.awaited() {
            Awaited::PreCommit1
            | Awaited::PreCommit2
            | Awaited::PreCommitMessage
            | Awaited::PreCommitLanding => (progress.ticket?.epoch, TICKET_EPOCHS_MAX),
            Awaited::Commit1
            | Awaited::Commit2
            | Awaited::Verification
            | Awaited::CommitMessage
            | Awaited::CommitLanding => (progress.seed?.epoch, seed_epochs_max(self.sector().proof)?),
            Awaited::Start
            | Awaited::Data
            | Awaited::Proceed
            | Awaited::AddPiece
            | Awaited::Ticket
            | Awaited::Seed
            | Awaited::Finalize
            | Awaited::Move
            | Awaited::Retry
            | Awaited::Release
            | Awaited::Nothing => return None,
        };
        Some(ChainEpoch::new(from.get().saturating_add(epochs)))
    }

    /// Whether at this height of the chain the sector needs another ticket for what is next: nothing was made with it yet
    /// and too little of its time is left, or the pre-commitment can no longer land. A sector that is sealed again
    /// keeps its ticket for ever, or it would become another replica.
    pub fn needs_new_ticket(&self, head: ChainEpoch) -> bool {
        let still_needed = match self.awaited() {
            Awaited::PreCommit1 => SEALING_EPOCHS,
            Awaited::PreCommitMessage => 0,
            _ => return false,
        };
        self.deadline().is_some_and(|last| last.get().saturating_sub(still_needed) < head.get())
    }

    /// Everything that was made with the ticket is of no use: the sector gets a new one. Its pieces stay.
    pub(crate) fn ticket_expired(
        &mut self,
        head: ChainEpoch,
        now_ms: u64,
        event: &'static str,
    ) -> Result<(), TransitionError> {
        let (Some(ticket), true) = (self.fields.progress.ticket, self.needs_new_ticket(head)) else {
            return Err(self.unexpected(event));
        };
        let state = self.fields.state;
        let pieces = std::mem::take(&mut self.fields.progress.pieces);
        self.fields.progress = Progress { pieces, ..Progress::default() };
        self.fields.failures.invalid_proofs = 0;
        self.advance(Outcome::OldTicket);
        // Before PreCommit1 nothing is lost, and nothing has failed.
        if state == SectorState::PreCommitting {
            let message = format!(
                "its ticket of height {} was good for a pre-commitment up to height {}, and the chain is at {}; it is \
                 sealed again from PreCommit1 on, with a new ticket",
                ticket.epoch.get(),
                ticket.epoch.get().saturating_add(TICKET_EPOCHS_MAX),
                head.get()
            );
            let class = FailureClass::Environment;
            self.fields.failures.keep(Failure { state, class, message, at_ms: now_ms });
        }
        Ok(())
    }

    /// The proof is of no use: the sector waits for the seed that counts now, and is proven with it. Its replica and its
    /// pre-commitment stay.
    pub(crate) fn seed_changed(&mut self, now_ms: u64, event: &'static str) -> Result<(), TransitionError> {
        let Some(seed) = self.fields.progress.seed.filter(|_| self.awaited() == Awaited::CommitMessage)
        else {
            return Err(self.unexpected(event));
        };
        let state = self.fields.state;
        let progress = &mut self.fields.progress;
        (progress.seed, progress.c1, progress.proof, progress.verified) = (None, None, None, None);
        self.advance(Outcome::OldSeed);
        let message = format!(
            "its seed of height {} does not count any more: a reorganisation has changed the chain there, or below; the proof that \
             answers it is not sent, and another one is made",
            seed.epoch.get()
        );
        let class = FailureClass::Environment;
        self.fields.failures.keep(Failure { state, class, message, at_ms: now_ms });
        Ok(())
    }
}

/// Epochs from the seed to the last height at which the proof can land; the non-interactive proof knows no seed.
const fn seed_epochs_max(proof: RegisteredSealProof) -> Option<i64> {
    match proof.version() {
        ProofVersion::V1 => Some(EPOCHS_IN_DAY),
        ProofVersion::V1_1 => Some(30 * EPOCHS_IN_DAY),
        ProofVersion::V1_2 => None,
    }
}
