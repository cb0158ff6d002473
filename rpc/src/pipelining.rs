//! Filling and steering the pipeline: data for sectors, their start, states by hand, and what the manager pledges by
//! itself. Methods are named `Sealyard.*`; data is sent over HTTP to
//! [`ADD_PIECE_ROUTE`]. Never: where data lies.

use std::pin::Pin;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::Stream;
use sealtasks::{ActorId, PieceInfo, SealedCid, SectorId, SectorNumber, SectorRef, Ticket};
use serde::{Deserialize, Serialize};

use crate::api::ApiResult;
use crate::sector_name::SectorName;

/// Where a manager takes data: `POST <route>?sector=<name>`, the bytes as body, permission `admin`. Without `sector` a
/// sector of `miner` that has room, or a new one. Answers with a [`PieceAdded`].
pub const ADD_PIECE_ROUTE: &str = "/sealyard/add-piece";

/// Where a manager takes the data of a sector that is to be sealed again: `POST <route>?sector=<name>&cid=<CommP>&size=<padded
/// bytes>`, the bytes as body, permission `admin`. What has another commitment is refused.
pub const REBUILD_PIECE_ROUTE: &str = "/sealyard/rebuild-piece";

/// Bytes on their way; one that breaks off ends with an error.
pub type PieceParts = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Asked of a manager about its pipeline.
#[async_trait]
pub trait PipelineApi: Send + Sync + 'static {
    /// Takes data for a sector, or for one that has room: on stable storage, with its commitment known, when this returns.
    /// Permission `admin`. The error says why no sector takes it.
    /// `miner` counts without a sector; `None`: the first miner.
    async fn add_piece(
        &self,
        sector: Option<SectorName>,
        miner: Option<ActorId>,
        data: PieceParts,
    ) -> ApiResult<PieceAdded>;
    /// Has a sector sealed that waits for data: what is left of it becomes zeros. Permission `admin`.
    async fn start_sealing(&self, sector: SectorName) -> ApiResult<()>;
    /// Puts a sector into a state by hand. Permission `admin`. The error says what the sector lacks for that, or what would
    /// be lost.
    async fn update_state(&self, sector: SectorName, state: String) -> ApiResult<()>;
    /// Has a sector sealed again whose files are lost: up to PreCommit2, whose CommR must be the old one, then finalized.
    /// Without `lost` from the manager's own record. A rebuild that is under way goes on. Permission `admin`. The error says
    /// why nothing is changed.
    async fn rebuild(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<()>;
    /// The pieces of data that a sector is sealed again from, if it holds data and is not under way. Permission `admin`: what seems
    /// to be there is looked at first, and proven.
    async fn rebuild_pieces(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<Vec<WantedPiece>>;
    /// What lost sectors that would begin take, and for how many of them paths have room now. Permission `read`.
    async fn rebuild_room(&self, wish: RoomWish) -> ApiResult<RoomView>;
    /// Takes one of them, or what is left of it without the zeros at its end. It waits for `rebuild`. Permission `admin`. The
    /// error says why it is not that piece.
    async fn give_piece(&self, sector: SectorName, piece: PieceInfo, data: PieceParts) -> ApiResult<()>;
    /// Whether a sector is pledged next by the manager itself, and if not, why. Permission `read`.
    async fn pledging(&self) -> ApiResult<PledgingView>;
    /// Stops or resumes what the manager pledges by itself; lasts over restarts. Permission `admin`.
    async fn pause_pledging(&self, paused: bool, by: String) -> ApiResult<PledgingView>;
    /// Sectors whose message of this kind waits for its batch, by id. Permission `admin`.
    async fn batched(&self, batch: Batch) -> ApiResult<Vec<SectorId>>;
    /// Has those go now, however few they are, if the operator lets messages go and the base fee is within his limit.
    /// Permission `admin`.
    async fn flush(&self, batch: Batch) -> ApiResult<Vec<Flushed>>;
    /// Which addresses pay for messages. Permission `read`.
    async fn payers(&self) -> ApiResult<Payers>;
}

/// Addresses that pay for messages, of all miners, as `config.toml` has them but for those of removed miners: a miner's own
/// among them pay for its messages, and where none is, its worker does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payers {
    /// For pre-commitments.
    pub pre_commit: Vec<String>,
    /// For proofs.
    pub commit: Vec<String>,
}

/// A kind of messages to the chain that go in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// That replicas exist.
    PreCommit,
    /// Their proofs.
    Commit,
}

/// Sectors that were to go at once, of one miner, and what came of it: Lotus's `PreCommitBatchRes` and `CommitBatchRes`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flushed {
    /// Their numbers.
    pub sectors: Vec<SectorNumber>,
    /// The CID of the message that they went in.
    pub message: Option<String>,
    /// Why they did not go; empty when they did.
    pub error: String,
}

/// Data that a manager has taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceAdded {
    /// The sector it goes to.
    pub sector: SectorName,
    /// CommP as a CID.
    pub cid: String,
    /// Raw bytes that were given.
    pub bytes: u64,
    /// The piece's padded size in bytes.
    pub padded_size: u64,
}

/// A piece of data that a lost sector held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedPiece {
    /// Its padded size and CommP.
    pub piece: PieceInfo,
    /// It was given, and waits.
    pub given: bool,
    /// Nothing is sealed without it: no unsealed file of the sector is left.
    pub needed: bool,
}

/// What a lost sector is sealed from again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Which, and with which proof.
    pub sector: SectorRef,
    /// The randomness that it was sealed with.
    pub ticket: Ticket,
    /// The CommR that was proven.
    pub sealed: SealedCid,
    /// The data that it held, in order, each piece at the next multiple of its size; none: zeros.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<PieceInfo>,
}

/// Lost sectors that are to be sealed again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomWish {
    /// Each, of one miner, and whether it holds data.
    pub sectors: Vec<(SectorId, bool)>,
    /// So many are under way at once.
    pub at_once: u32,
}

/// The room for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomView {
    /// So many of the sectors would begin; of the others nothing is lost, or they are under way.
    pub sectors: u64,
    /// So many of these at once.
    pub at_once: u64,
    /// Bytes that they take in paths for sealing at once.
    pub sealing_bytes: u64,
    /// Bytes that all of them take in paths for storing.
    pub storing_bytes: u64,
    /// For so many of `at_once` there is room in paths for sealing.
    pub sealing: u64,
    /// For so many of `sectors` there is room in paths for storing.
    pub storing: u64,
    /// Why there may be more room soon; empty: nothing is expected.
    pub awaited: String,
}

/// What the manager pledges by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PledgingView {
    /// `[sealing] keep_in_pipeline`; 0: nothing.
    pub keep: u32,
    /// Sectors in the pipeline.
    pub in_pipeline: u32,
    /// Sectors that wait for an operator.
    pub parked: u32,
    /// An operator has paused it.
    pub paused: bool,
    /// A stable word: `off`, `paused`, `full`, `parked`, `no-worker`, `pc1-busy`, `no-sealing-space`, `no-storage-space`,
    /// `chain`; empty when the next one is pledged at once.
    pub waits_for: String,
    /// The same in a sentence, with numbers.
    pub summary: String,
    /// What would change it, where somebody can; else empty.
    pub change: String,
}
