//! The piece provider: whether data is unsealed, having it unsealed, reading it. The driver runs the tasks; here files are
//! looked for, locks held while a reader reads, and bytes served over HTTP. Never: decides who unseals.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream, StreamExt as _};
use rpc::unsealing::{
    PIECE_ROUTE, PieceBytes, PieceWish, UNSEALED_HEADER, UnsealApi, UnsealState, UnsealView, UnsealWish,
};
use rpc::{ApiError, ApiResult, PieceData, SectorName};
use sealtasks::{DataCidInput, FileTypes, PieceInfo, SectorRef, TaskInput, UnpaddedPieceSize, UnsealedRange};
use serde::Deserialize;
use stores::{Lease, LockOwner, LockWant, StoreError, UnsealedPiece};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::driver::Input;
use crate::service::{Service, refusal};
use crate::workers::chain_of;

/// The refusal of those who do not want to wait for hours; its code is what the HTTP route looks for.
const NOT_UNSEALED: &str = "MGR088";

/// A disk or a holder that gives a reader nothing for so long holds its data no longer.
const READER_LEASE: Duration = Duration::from_secs(10 * 60);
const LEASE_ENDED: &str = "no data came for 10 minutes, and it may have been freed since; read it again";

impl Service {
    async fn known(&self, name: SectorName) -> ApiResult<SectorRef> {
        let id = self.sector_id(name).await?;
        let found = self.view(move |driver| driver.sector_ref(id)).await?;
        found.ok_or_else(|| self.0.no_sector(id))
    }

    async fn find(&self, sector: SectorRef, span: &Range<u64>) -> ApiResult<Option<UnsealedPiece>> {
        self.0.remote.unsealed_piece(sector, span.clone()).await.map_err(refusal)
    }

    /// A copy with these bytes; unsealed first if there is none and the wish allows it.
    async fn piece(&self, sector: SectorRef, span: Range<u64>, unseal: bool) -> ApiResult<Found> {
        let unsealed = self.find(sector, &span).await?.is_none();
        if unsealed && !unseal {
            let number = self.0.name(sector.id);
            return Err(ApiError::refused(format!(
                "{NOT_UNSEALED}: bytes {} to {} of sector {number} are not unsealed; `sealyard sectors unseal {number}` \
                 unseals them, on a worker that runs with --unseal",
                span.start, span.end
            )));
        }
        if unsealed {
            self.unseal_to_end(sector).await?;
        }
        // Looked for again under the lock: who released them in between is seen, and nobody frees them from here on.
        let want = LockWant { sector: sector.id, read: FileTypes::UNSEALED, write: FileTypes::NONE };
        let owner = LockOwner { owner: "reader".to_owned(), reason: "read piece".to_owned() };
        let lease = self.0.locks.lease(want, owner, READER_LEASE).await.map_err(refusal)?;
        match self.find(sector, &span).await? {
            Some(piece) => Ok(Found { piece, lease, unsealed }),
            None => {
                Err(not_unsealed(self.0.name(sector.id), "its unsealed data was there and is gone already"))
            }
        }
    }

    /// Starts or joins the task, and waits for its end.
    async fn unseal_to_end(&self, sector: SectorRef) -> ApiResult<()> {
        let (tell, ended) = oneshot::channel();
        self.ask(|reply| Input::Unseal { sector: sector.id, ended: Some(tell), reply }).await?;
        let stopping = |_| not_unsealed(self.0.name(sector.id), "the manager is stopping");
        ended.await.map_err(stopping)?.map_err(|reason| not_unsealed(self.0.name(sector.id), &reason))
    }
}

fn not_unsealed(sector: SectorName, reason: &str) -> ApiError {
    ApiError::refused(format!("MGR089: sector {sector} was not unsealed: {reason}"))
}

/// Bytes that are unsealed, and stay so while the lock is held.
struct Found {
    piece: UnsealedPiece,
    lease: Lease,
    /// They were not before.
    unsealed: bool,
}

/// The parts as a reader takes them; the lock is held until the last one is taken, or until the reader is gone or has
/// taken nothing for `stall`. Then its parts end with an error.
fn held_while_read(
    parts: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
    lease: Lease,
    stall: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (give, take) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut parts = Box::pin(parts);
        loop {
            let part = tokio::select! {
                () = give.closed() => return,
                part = parts.next() => part,
            };
            // What was read after the lease had ended may be freed data: zeros.
            let part = if part.is_none() || lease.renew() {
                part.map(|part| part.map_err(|error| io::Error::other(chain_of(&error))))
            } else {
                Some(Err(io::Error::new(io::ErrorKind::TimedOut, LEASE_ENDED)))
            };
            let last = !matches!(part, Some(Ok(_)));
            match timeout(stall, give.send(part)).await {
                Ok(Ok(())) if !last => {}
                Ok(_) => return,
                Err(_) => return tracing::warn!("a reader of unsealed data takes nothing and is given up"),
            }
        }
    });
    stream::unfold(Some(take), move |take| async move {
        let mut take = take?;
        match take.recv().await {
            Some(Some(part)) => Some((part, Some(take))),
            Some(None) => None,
            None => {
                let text =
                    format!("nothing was read for {} s, so the transfer was given up", stall.as_secs());
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, text)), None))
            }
        }
    })
}

#[async_trait]
impl UnsealApi for Service {
    async fn is_unsealed(&self, sector: SectorName, span: Range<u64>) -> ApiResult<bool> {
        let sector = self.known(sector).await?;
        self.0.remote.is_unsealed(sector, span).await.map_err(refusal)
    }

    async fn unseal_sector(&self, name: SectorName) -> ApiResult<UnsealView> {
        let found = self.unseal_state(name).await?;
        if found.state == UnsealState::Unsealed {
            return Ok(found);
        }
        let sector = self.sector_id(name).await?;
        self.ask(|reply| Input::Unseal { sector, ended: None, reply }).await
    }

    async fn unseal_piece(&self, wish: UnsealWish) -> ApiResult<()> {
        let id = wish.sector.id;
        if !self.0.miners.contains(id.miner) {
            let ours: Vec<String> = self.0.miners.all().map(|miner| miner.to_string()).collect();
            return Err(ApiError::refused(format!(
                "MGR111: sector {id} is none of this manager's miner {}",
                ours.join(", ")
            )));
        }
        let sector = self.known(id.into()).await?;
        let work = self.view(move |driver| driver.unseal_work(id)).await?;
        let known = work.and_then(|(_, work)| match work {
            TaskInput::Unseal(input) => Some(input),
            _ => None,
        });
        let differs = [
            ("its seal proof", wish.sector.proof != sector.proof),
            ("its ticket", known.as_ref().zip(wish.ticket).is_some_and(|(known, said)| known.ticket != said)),
            ("CommD", known.as_ref().zip(wish.unsealed).is_some_and(|(known, said)| known.unsealed != said)),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            let text = format!("MGR112: {what} is not what is known of sector {}", self.0.name(id));
            return Err(ApiError::refused(text));
        }
        if self.find(sector, &wish.span).await?.is_some() {
            return Ok(());
        }
        self.unseal_to_end(sector).await?;
        let found = self.find(sector, &wish.span).await?;
        found
            .map(drop)
            .ok_or_else(|| not_unsealed(self.0.name(sector.id), "it was, but its file is gone already"))
    }

    async fn unseal_state(&self, name: SectorName) -> ApiResult<UnsealView> {
        let sector = self.known(name).await?;
        let id = sector.id;
        let mut view = self.view(move |driver| driver.errand_view(id)).await?;
        let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        if view.task.is_none() && self.0.remote.is_unsealed(sector, 0..whole).await.map_err(refusal)? {
            view.state = UnsealState::Unsealed;
        }
        Ok(view)
    }

    async fn release_unsealed(&self, sector: SectorName, keep: Vec<UnsealedRange>) -> ApiResult<UnsealView> {
        let sector = self.known(sector).await?.id;
        self.ask(|reply| Input::ReleaseUnsealed { sector, keep, reply }).await
    }

    async fn data_cid(&self, input: DataCidInput, data: Option<PieceData>) -> ApiResult<PieceInfo> {
        self.compute_data_cid(input, data).await
    }

    async fn read_piece(&self, wish: PieceWish) -> ApiResult<PieceBytes> {
        let sector = self.known(wish.sector).await?;
        let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        let size = wish.size.unwrap_or_else(|| whole.saturating_sub(wish.offset));
        let span = wish.offset..wish.offset.saturating_add(size);
        let Found { piece, lease, unsealed } = self.piece(sector, span, wish.unseal).await?;
        let parts = self.0.remote.read_unsealed(&piece, 0..size).await.map_err(refusal)?;
        let parts = held_while_read(parts, lease, self.0.timing.reader_stall);
        Ok(PieceBytes { size, unsealed, parts: Box::pin(parts) })
    }
}

/// The route that serves raw bytes of sectors.
pub(crate) fn piece_router(service: Service) -> Router {
    Router::new().route(&format!("{PIECE_ROUTE}/{{number}}"), get(serve)).with_state(Arc::new(service))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    offset: u64,
    size: Option<u64>,
    #[serde(default)]
    unseal: bool,
}

async fn serve(
    State(service): State<Arc<Service>>,
    Path(sector): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = service.admits(&headers) {
        return refused.into_response();
    }
    let Asked { offset, size, unseal } = asked;
    let sector = match sector.parse::<SectorName>() {
        Ok(sector) => sector,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let wish = PieceWish { sector, offset, size, unseal };
    match service.read_piece(wish).await {
        Ok(PieceBytes { size, unsealed, parts }) => {
            let headers = [
                (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH.as_str(), size.to_string()),
                (UNSEALED_HEADER, unsealed.to_string()),
            ];
            (headers, Body::from_stream(parts)).into_response()
        }
        Err(error) => {
            let text = error.to_string();
            let status = if text.starts_with(NOT_UNSEALED) {
                StatusCode::CONFLICT
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            (status, text).into_response()
        }
    }
}
