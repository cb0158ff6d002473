//! Until when a sector's present work is of use: the chain takes a ticket and a pre-commitment for so long only. Never:
//! time; heights are the chain's, and what hour one is at is the chain's to say.

use sealtasks::{ChainEpoch, ProofVersion, RegisteredSealProof};

use crate::awaited::Awaited;
use crate::{RandomnessSource, SectorRecord};

/// Epochs of 30 s in a day: `EPOCHS_IN_DAY` of builtin-actors.
const EPOCHS_IN_DAY: i64 = 2880;

/// A pre-commitment's ticket may be this old: `MAX_PRE_COMMIT_RANDOMNESS_LOOKBACK` of builtin-actors, a day and
/// `CHAIN_FINALITY` (900). The miner actor refuses `seal_rand_epoch < current - lookback`.
const TICKET_EPOCHS_MAX: i64 = EPOCHS_IN_DAY + 900;

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
}

/// Epochs from the seed to the last height at which the proof can land; the non-interactive proof knows no seed.
const fn seed_epochs_max(proof: RegisteredSealProof) -> Option<i64> {
    match proof.version() {
        ProofVersion::V1 => Some(EPOCHS_IN_DAY),
        ProofVersion::V1_1 => Some(30 * EPOCHS_IN_DAY),
        ProofVersion::V1_2 => None,
    }
}
