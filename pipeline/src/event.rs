//! What the driver tells a sector.

use sealtasks::{ChainEpoch, FailureClass, SealedCid, Seed, StorageId, TaskOutput, Ticket};

use crate::{DataPiece, FillingError, Refill, SealTicket, SectorState};

/// Something that happened to a sector. Times are wall milliseconds that never go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectorEvent {
    /// Begin. A pledged sector has begun already.
    Start,
    /// Data is given for the sector.
    AddData {
        /// Which; where it lies is found out when it is written.
        data: DataPiece,
    },
    /// The sector takes no more data: what is left becomes zeros. It goes on when what it has is written.
    StartPacking,
    /// Go on, as asked for by `Step::Proceed`.
    Proceed,
    /// The message that was asked for has been sent; it is durable with whoever sent it.
    MessageSent {
        /// Its CID.
        message: String,
    },
    /// What was to be on chain is there.
    Landed {
        /// Since this height; 0 without a chain.
        epoch: ChainEpoch,
    },
    /// Its files are lost: it is sealed again, with the ticket that it had.
    Rebuild {
        /// What fills it.
        refill: Refill,
    },
    /// An attempt of its rebuild is going to make files of the replica.
    Made {
        /// The paths where they will lie; none of it lies there now.
        paths: Vec<StorageId>,
    },
    /// An attempt of its rebuild is going to make the unsealed file.
    Filled {
        /// The paths where it will lie; none lies there now.
        paths: Vec<StorageId>,
    },
    /// What lies of it in these paths was proven to be its replica, whoever made it.
    Trusted {
        /// The paths.
        paths: Vec<StorageId>,
    },
    /// What was told of a sector that was sealed elsewhere was wrong.
    Correct {
        /// The ticket that it had.
        ticket: SealTicket,
        /// The replica that was proven.
        sealed: SealedCid,
        /// Its data, given once more; none: zeros.
        data: Vec<DataPiece>,
    },
    /// An operator puts the sector into a state, by hand.
    Force {
        /// Which.
        to: SectorState,
    },
    /// The task (or the verification) that was asked for gave this.
    TaskDone {
        /// Its result.
        output: TaskOutput,
        /// When it was taken.
        now_ms: u64,
    },
    /// The task, the verification, or the asking for ticket or seed failed.
    Failed {
        /// What kind of failure; decides about the retry.
        class: FailureClass,
        /// The chain of causes, outermost first.
        message: String,
        /// When it was taken.
        now_ms: u64,
    },
    /// The sealing randomness and the height it was drawn at.
    TicketReady {
        /// The randomness.
        ticket: Ticket,
        /// The height; 0 from an offline source.
        epoch: ChainEpoch,
    },
    /// The ticket is too old for what is still to be done with it; nothing with it is on chain or on its way there.
    TicketExpired {
        /// The chain's height now.
        head: ChainEpoch,
        /// The time now, in wall milliseconds.
        now_ms: u64,
    },
    /// The chain draws another seed than the one that the proof answers, or none yet: a reorganisation has moved or taken away the
    /// pre-commitment, or the block that the seed is drawn from. The proof is on no chain and on its way to none.
    SeedChanged {
        /// The time now, in wall milliseconds.
        now_ms: u64,
    },
    /// The interactive randomness and the height it was drawn at.
    SeedReady {
        /// The randomness.
        seed: Seed,
        /// The height; 0 from an offline source.
        epoch: ChainEpoch,
    },
    /// The back-off is over.
    RetryDue {
        /// The time now.
        now_ms: u64,
    },
    /// The operator wants the retry at once; every budget starts anew.
    RetryNow,
    /// The operator wants a sector that was to stop here, and has, to go on to the end.
    Release,
}

impl SectorEvent {
    /// What the event is, for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::AddData { .. } => "data",
            Self::StartPacking => "start of sealing",
            Self::Proceed => "next state",
            Self::MessageSent { .. } => "message",
            Self::Landed { .. } => "landing",
            Self::Rebuild { .. } => "rebuild",
            Self::Made { .. } => "files",
            Self::Filled { .. } => "an unsealed file",
            Self::Trusted { .. } => "proof of files",
            Self::Correct { .. } => "correction",
            Self::Force { .. } => "state by the operator",
            Self::TaskDone { output, .. } => match output {
                TaskOutput::DataCid(_) => "result of DC",
                TaskOutput::AddPiece(_) => "result of AP",
                TaskOutput::PreCommit1(_) => "result of PC1",
                TaskOutput::PreCommit2 { .. } => "result of PC2",
                TaskOutput::Commit1(_) => "result of C1",
                TaskOutput::Commit2(_) => "result of C2",
                TaskOutput::Finalize => "result of FIN",
                TaskOutput::ReleaseUnsealed => "result of FUS",
                TaskOutput::Fetch => "result of GET",
                TaskOutput::Move => "result of MOVE",
                TaskOutput::Unseal => "result of UNS",
                TaskOutput::Verify(_) => "result of VERIFY",
                TaskOutput::Scrub(_) => "result of SCRUB",
                TaskOutput::Vanilla(_) => "result of VANILLA",
            },
            Self::Failed { .. } => "failure",
            Self::TicketReady { .. } => "ticket",
            Self::TicketExpired { .. } => "expired ticket",
            Self::SeedChanged { .. } => "changed seed",
            Self::SeedReady { .. } => "seed",
            Self::RetryDue { .. } => "due retry",
            Self::RetryNow => "retry by the operator",
            Self::Release => "release by the operator",
        }
    }
}

/// An event that the sector does not take now. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The sector does not wait for this.
    #[error("a sector in {state} that waits for {awaited} takes no {event}")]
    Unexpected {
        /// Where the sector stands.
        state: SectorState,
        /// What it waits for.
        awaited: &'static str,
        /// What came instead.
        event: &'static str,
    },
    /// It takes no data, or no more.
    #[error("a sector in {state} takes no more data; give it to another, or to a new one")]
    Closed {
        /// Where the sector stands.
        state: SectorState,
    },
    /// The data does not fit.
    #[error("{reason}")]
    Filling {
        /// Why.
        reason: FillingError,
    },
    /// The sector has not what that state needs, or what it has must not be thrown away.
    #[error("a sector in {state} cannot be put into {to}: {why}")]
    Force {
        /// Where the sector stands.
        state: SectorState,
        /// Where it was to be put.
        to: SectorState,
        /// What stands against it.
        why: &'static str,
    },
    /// It is not sealed again.
    #[error("a sector in {state} is not sealed again: {why}")]
    Rebuild {
        /// Where the sector stands.
        state: SectorState,
        /// Why not.
        why: &'static str,
    },
    /// The back-off is not over.
    #[error(
        "the retry from {state} is due at {not_before_ms} ms, and it is {now_ms} ms; wait, or retry by the operator"
    )]
    TooEarly {
        /// Where the sector stands.
        state: SectorState,
        /// When it is due.
        not_before_ms: u64,
        /// The time that came with the event.
        now_ms: u64,
    },
    /// Only the operator may retry.
    #[error(
        "the retry from {state} waits for the operator: look into the last failure, then retry the sector"
    )]
    OperatorOnly {
        /// Where the sector stands.
        state: SectorState,
    },
}
