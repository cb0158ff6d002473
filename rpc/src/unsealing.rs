//! Unsealed data on demand: whether it is there, have it made, read it, give its space back. Methods named `Sealyard.*`,
//! beside Lotus's `SectorUnseal` and `SectorsUnsealPiece`; bytes are served over HTTP under [`PIECE_ROUTE`]. Never: where
//! the data lies, or who unseals it.

use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::Stream;
use sealtasks::{DataCidInput, PieceInfo, SectorRef, TaskId, Ticket, UnsealedCid, UnsealedRange};
use serde::{Deserialize, Serialize};

use crate::api::ApiResult;
use crate::error::ApiError;
use crate::reader::PieceData;
use crate::sector_name::SectorName;

/// Where a manager serves raw bytes of sectors: `GET <route>/<sector>?offset=<bytes>&size=<bytes>&unseal=<bool>`,
/// permission `admin`. Without `size`, up to the sector's end. 409 if they are not unsealed and were not to be.
pub const PIECE_ROUTE: &str = "/sealyard/piece";

/// The header of an answer that says `true` if the bytes had to be unsealed first.
pub const UNSEALED_HEADER: &str = "x-sealyard-unsealed";

/// Most ranges to keep in one [`UnsealApi::release_unsealed`].
pub const KEEP_MAX: usize = 4096;

/// Asked of a manager about unsealed data.
#[async_trait]
pub trait UnsealApi: Send + Sync + 'static {
    /// Whether these raw bytes of a sector are unsealed in one copy. Permission `read`.
    async fn is_unsealed(&self, sector: SectorName, span: Range<u64>) -> ApiResult<bool>;
    /// Has a whole sector unsealed, or joins the task that does it already; answers at once. Permission `admin`. The error
    /// says why it can never be: no replica, nobody who unseals.
    async fn unseal_sector(&self, sector: SectorName) -> ApiResult<UnsealView>;
    /// Has raw bytes of a sector unsealed and waits until they are: Lotus's `SectorsUnsealPiece`. Permission `admin`. The
    /// error says which part of the wish does not fit the sector, why it can never be, or why it failed.
    async fn unseal_piece(&self, wish: UnsealWish) -> ApiResult<()>;
    /// How the unsealing of a sector, or the release of its unsealed data, goes. Permission `read`.
    async fn unseal_state(&self, sector: SectorName) -> ApiResult<UnsealView>;
    /// Has the disk space of unsealed data freed but for these raw ranges; without any, all copies of the file go.
    /// Answers at once. Permission `admin`.
    async fn release_unsealed(&self, sector: SectorName, keep: Vec<UnsealedRange>) -> ApiResult<UnsealView>;
    /// The commitment of a piece whose bytes are given: Lotus's `ComputeDataCid`. Permission `admin`. `data` is there where
    /// the input says that the bytes come as a stream.
    async fn data_cid(&self, _input: DataCidInput, _data: Option<PieceData>) -> ApiResult<PieceInfo> {
        Err(ApiError::refused("commitments of pieces are computed where the manager is"))
    }
    /// Raw bytes of a sector, unsealed first where they have to be and the wish allows it. Permission `admin`.
    async fn read_piece(&self, wish: PieceWish) -> ApiResult<PieceBytes>;
}

/// What a Lotus caller says of the bytes that it wants unsealed. The manager knows ticket and CommD itself; what is given is
/// compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsealWish {
    /// The sector.
    pub sector: SectorRef,
    /// Raw bytes of it.
    pub span: Range<u64>,
    /// The sealing randomness.
    pub ticket: Option<Ticket>,
    /// CommD.
    pub unsealed: Option<UnsealedCid>,
}

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceWish {
    /// The sector.
    pub sector: SectorName,
    /// First raw byte.
    pub offset: u64,
    /// Raw bytes; `None` = up to the sector's end.
    pub size: Option<u64>,
    /// Whether to unseal, which may take hours.
    pub unseal: bool,
}

/// Raw bytes on their way.
pub struct PieceBytes {
    /// How many there will be.
    pub size: u64,
    /// They had to be unsealed first.
    pub unsealed: bool,
    /// The bytes. One that breaks off ends with an error.
    pub parts: Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>,
}

/// How it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnsealView {
    /// The sector.
    pub sector: SectorName,
    /// Where it stands.
    pub state: UnsealState,
    /// The task that does it.
    pub task: Option<TaskId>,
    /// The last task that did it, since this manager started.
    pub done: Option<TaskId>,
    /// Why the last one failed, since this manager started.
    pub error: Option<String>,
}

/// Where unsealing, or releasing, stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnsealState {
    /// Nothing is under way, and the sector is not unsealed as a whole.
    #[default]
    NotUnsealed,
    /// A task waits or runs.
    UnderWay,
    /// All of the sector is unsealed.
    Unsealed,
    /// The last task failed.
    Failed,
}
