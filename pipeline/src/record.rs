//! The durable record of a sector, and what it waits for.

use sealtasks::{
    C1Output, ChainEpoch, Commit1Input, Commit2Input, FailureClass, FileTypes, FinalizeInput, MoveInput,
    Pc1Output, PieceInfo, PreCommit1Input, PreCommit2Input, Proof, SealedCid, SectorRef, Seed, StorageId,
    TaskInput, Ticket, UnsealedCid, VerifyInput,
};
use serde::{Deserialize, Serialize};

use crate::awaited::Awaited;
use crate::filling::DataPiece;
use crate::rebuild::Rebuild;
use crate::retry::Failures;
use crate::{Failure, PendingRetry, RetryWhen, SectorEvent, SectorState};

/// All that is known of one sector's sealing. Its serde form is what the durable state holds; reading it checks that
/// the state has the data it needs, so that [`SectorRecord::next`] always has an answer. What there is nothing of is not
/// written: a starting manager reads a million of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct SectorRecord {
    pub(crate) fields: Fields,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fields {
    /// Of this form; see `check`. Records of the first had no such field.
    #[serde(default = "crate::check::first_format")]
    pub(crate) format: u32,
    pub(crate) sector: SectorRef,
    pub(crate) source: RandomnessSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop_after: Option<StopAfter>,
    pub(crate) state: SectorState,
    /// What was given to lie in it; none for a committed-capacity sector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) data: Vec<DataPiece>,
    /// It takes no more data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) packing: bool,
    pub(crate) progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<PendingRetry>,
    pub(crate) failures: Failures,
    /// It is sealed again, or was without having been sealed here before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rebuild: Option<Box<Rebuild>>,
    /// Where rebuilds that were given up have made files: what lies there of its replica was never compared with its CommR.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) doubtful: Vec<StorageId>,
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
    /// PreCommit2: nothing is told to any chain.
    #[serde(rename = "PC2")]
    Pc2,
    /// Commit1: everything but the SNARK, which needs the parameters.
    C1,
}

/// What has been made of a sector so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// What lies in the sector, data and zeros, in order.
    pub pieces: Vec<PieceInfo>,
    /// The sealing randomness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<SealTicket>,
    /// What PC1 gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pc1: Option<Pc1Output>,
    /// What PC2 gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cids: Option<SectorCids>,
    /// The pre-commitment on chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_commit: Option<OnChain>,
    /// The interactive randomness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SealSeed>,
    /// What C1 gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c1: Option<C1Output>,
    /// What C2 gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What the verification of the proof said; `None` as long as nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// The proof on chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<OnChain>,
    /// The cache has been cleared; the sector need only move.
    pub cache_cleared: bool,
}

/// What became of something that is put on chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnChain {
    /// The message that carries it, by its CID; `None`: nothing was sent, for there is no chain or it was there already.
    pub message: Option<String>,
    /// The height it is there since; `None` = not yet. 0 without a chain.
    pub landed: Option<ChainEpoch>,
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
    /// The pre-commitment on chain: `MessageSent`, or `Landed` at once where there is no chain.
    SubmitPreCommit,
    /// The proof on chain, likewise.
    SubmitCommit,
    /// This message to land: `Landed`.
    AwaitMessage {
        /// Its CID.
        message: String,
    },
    /// Nobody: tell it to `Proceed`.
    Proceed,
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
    /// It has room for more data.
    #[error("waits for more data, or for the word to start sealing")]
    WaitsForData,
    /// It was to stop here.
    #[error("stopped after PC2, as asked for")]
    StoppedAfterPc2,
    /// It was to stop here.
    #[error("stopped after C1, as asked for")]
    StoppedAfterC1,
    /// Retrying by itself is over.
    #[error("failed in a way that needs the operator: see the last failure, then retry the sector")]
    NeedsOperator,
}

impl SectorRecord {
    /// A new committed-capacity sector: one zero piece fills it. It waits for AddPiece.
    pub fn pledge(sector: SectorRef, stop_after: Option<StopAfter>, source: RandomnessSource) -> Self {
        let mut record = Self::open(sector, stop_after, source);
        record.apply(SectorEvent::Start).expect("an empty sector takes its start");
        record
    }

    /// A new sector for data: it waits for the first.
    pub fn open(sector: SectorRef, stop_after: Option<StopAfter>, source: RandomnessSource) -> Self {
        let fields = Fields {
            format: crate::check::FORMAT,
            sector,
            source,
            stop_after,
            state: SectorState::Empty,
            data: Vec::new(),
            packing: false,
            progress: Progress::default(),
            retry: None,
            failures: Failures::default(),
            rebuild: None,
            doubtful: Vec::new(),
        };
        Self { fields }
    }

    /// Which sector.
    pub const fn sector(&self) -> SectorRef {
        self.fields.sector
    }

    /// Where its randomness comes from.
    pub const fn source(&self) -> RandomnessSource {
        self.fields.source
    }

    /// Its last task, if it is to stop early and was not released.
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

    /// How many of this class there were since the last progress; of bad data, since the pledge or the operator's last retry.
    pub fn failures_in_a_row(&self, class: FailureClass) -> u32 {
        self.fields.failures.counts.get(&class).copied().unwrap_or_default()
    }

    /// Proofs found invalid since the replica was last made or the operator's last retry.
    pub fn invalid_proofs(&self) -> u32 {
        self.fields.failures.invalid_proofs
    }

    /// Whom it waits for, if it does nothing by itself. Cheaper than [`SectorRecord::next`].
    pub fn rest(&self) -> Option<Rest> {
        match self.awaited() {
            Awaited::Start => Some(Rest::NotStarted),
            Awaited::Data => Some(Rest::WaitsForData),
            Awaited::Release => Some(match self.fields.stop_after {
                Some(StopAfter::Pc2) => Rest::StoppedAfterPc2,
                Some(StopAfter::C1) | None => Rest::StoppedAfterC1,
            }),
            Awaited::Retry if held(&self.fields.retry).when == RetryWhen::Operator => {
                Some(Rest::NeedsOperator)
            }
            _ => None,
        }
    }

    /// What the sector waits for. Asking changes nothing; the driver remembers what it has already set going.
    pub fn next(&self) -> Step {
        if let Some(why) = self.rest() {
            return Step::Rest { why };
        }
        let progress = &self.fields.progress;
        match self.awaited() {
            Awaited::Ticket => Step::NeedTicket,
            Awaited::Seed => Step::NeedSeed,
            Awaited::Verification => Step::NeedVerification(self.verification()),
            Awaited::Proceed => Step::Proceed,
            Awaited::AddPiece => {
                let input = self.next_piece().expect("a sector that is being filled has room");
                Step::Run(TaskInput::AddPiece(input))
            }
            Awaited::PreCommitMessage => Step::SubmitPreCommit,
            Awaited::CommitMessage => Step::SubmitCommit,
            Awaited::PreCommitLanding => Step::AwaitMessage { message: message(&progress.pre_commit) },
            Awaited::CommitLanding => Step::AwaitMessage { message: message(&progress.commit) },
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
                let replica = FileTypes::CACHE.union(FileTypes::SEALED);
                let types = if self.has_data() { replica.union(FileTypes::UNSEALED) } else { replica };
                Step::Run(TaskInput::Move(MoveInput { types }))
            }
            Awaited::Retry => match held(&self.fields.retry).when {
                RetryWhen::NotBeforeMs(not_before_ms) => Step::Retry { not_before_ms },
                RetryWhen::Operator => Step::Rest { why: Rest::NeedsOperator },
            },
            Awaited::Start | Awaited::Data | Awaited::Release | Awaited::Nothing => Step::Done,
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
pub(crate) fn held<T>(value: &Option<T>) -> &T {
    value.as_ref().expect("a sector's state has the data that it needs")
}

fn message(sent: &Option<OnChain>) -> String {
    held(sent).message.clone().unwrap_or_default()
}

impl Serialize for SectorRecord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(serializer)
    }
}
