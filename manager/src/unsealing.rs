//! The piece provider: whether data is unsealed, having it unsealed, reading it. The driver runs the tasks; here files are
//! looked for, locks held while a reader reads, and bytes served over HTTP. Never: decides who unseals.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rpc::unsealing::{
    PIECE_ROUTE, PieceBytes, PieceWish, UNSEALED_HEADER, UnsealApi, UnsealState, UnsealView,
};
use rpc::{ApiError, ApiResult, Permission};
use sealtasks::{FileTypes, SectorId, SectorNumber, SectorRef, UnpaddedPieceSize, UnsealedRange};
use serde::Deserialize;
use stores::{LockOwner, LockWant, UnsealedPiece};
use tokio::sync::oneshot;

use crate::driver::Input;
use crate::service::{Service, refusal};
use crate::workers::chain_of;

/// The refusal of those who do not want to wait for hours; its code is what the HTTP route looks for.
const NOT_UNSEALED: &str = "MGR088";

impl Service {
    fn sector_id(&self, number: SectorNumber) -> SectorId {
        SectorId { miner: self.0.miner.actor, number }
    }

    async fn known(&self, number: SectorNumber) -> ApiResult<SectorRef> {
        let id = self.sector_id(number);
        let found = self.view(move |driver| driver.sector_ref(id)).await?;
        let unknown = || format!("MGR053: no sector {number}; `sealyard sectors list` lists them");
        found.ok_or_else(|| ApiError::refused(unknown()))
    }

    /// A copy with these bytes; unsealed first if there is none and the wish allows it. True if it had to be.
    async fn piece(
        &self,
        sector: SectorRef,
        span: Range<u64>,
        unseal: bool,
    ) -> ApiResult<(UnsealedPiece, bool)> {
        if let Some(piece) = self.0.remote.unsealed_piece(sector, span.clone()).await.map_err(refusal)? {
            return Ok((piece, false));
        }
        let number = sector.id.number;
        if !unseal {
            return Err(ApiError::refused(format!(
                "{NOT_UNSEALED}: bytes {} to {} of sector {number} are not unsealed; `sealyard sectors unseal {number}` \
                 unseals them",
                span.start, span.end
            )));
        }
        let (tell, ended) = oneshot::channel();
        self.ask(|reply| Input::Unseal { sector: sector.id, ended: Some(tell), reply }).await?;
        let failed =
            |reason: String| ApiError::refused(format!("MGR089: sector {number} was not unsealed: {reason}"));
        ended.await.map_err(|_| failed("the manager is stopping".to_owned()))?.map_err(failed)?;
        let piece = self.0.remote.unsealed_piece(sector, span).await.map_err(refusal)?;
        let gone = || failed("it was, but its file is gone already".to_owned());
        piece.map(|piece| (piece, true)).ok_or_else(gone)
    }
}

#[async_trait]
impl UnsealApi for Service {
    async fn is_unsealed(&self, sector: SectorNumber, span: Range<u64>) -> ApiResult<bool> {
        let sector = self.known(sector).await?;
        self.0.remote.is_unsealed(sector, span).await.map_err(refusal)
    }

    async fn unseal_sector(&self, number: SectorNumber) -> ApiResult<UnsealView> {
        let found = self.unseal_state(number).await?;
        if found.state == UnsealState::Unsealed {
            return Ok(found);
        }
        let sector = self.sector_id(number);
        self.ask(|reply| Input::Unseal { sector, ended: None, reply }).await
    }

    async fn unseal_state(&self, number: SectorNumber) -> ApiResult<UnsealView> {
        let sector = self.known(number).await?;
        let id = sector.id;
        let mut view = self.view(move |driver| driver.errand_view(id)).await?;
        let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        if view.task.is_none() && self.0.remote.is_unsealed(sector, 0..whole).await.map_err(refusal)? {
            view.state = UnsealState::Unsealed;
        }
        Ok(view)
    }

    async fn release_unsealed(
        &self,
        number: SectorNumber,
        keep: Vec<UnsealedRange>,
    ) -> ApiResult<UnsealView> {
        let sector = self.known(number).await?.id;
        self.ask(|reply| Input::ReleaseUnsealed { sector, keep, reply }).await
    }

    async fn read_piece(&self, wish: PieceWish) -> ApiResult<PieceBytes> {
        let sector = self.known(wish.sector).await?;
        let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        let size = wish.size.unwrap_or_else(|| whole.saturating_sub(wish.offset));
        let span = wish.offset..wish.offset.saturating_add(size);
        let (piece, unsealed) = self.piece(sector, span, wish.unseal).await?;
        // Held while the reader reads: nobody frees the data under it.
        let want = LockWant { sector: sector.id, read: FileTypes::UNSEALED, write: FileTypes::NONE };
        let owner = LockOwner { owner: "reader".to_owned(), reason: "read piece".to_owned() };
        let lock = self.0.locks.lock(want, owner).await.map_err(refusal)?;
        let parts = self.0.remote.read_unsealed(&piece, 0..size).await.map_err(refusal)?;
        let parts = futures_util::StreamExt::map(parts, move |part| {
            let _held = &lock;
            part.map_err(|error| io::Error::other(chain_of(&error)))
        });
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
    Path(number): Path<u64>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = token.and_then(|value| value.strip_prefix("Bearer ")) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    match service.0.secret.verify(token.trim()) {
        Ok(permissions) if permissions.contains(&Permission::Admin) => {}
        Ok(_) => return StatusCode::FORBIDDEN.into_response(),
        Err(_) => return StatusCode::UNAUTHORIZED.into_response(),
    }
    let Asked { offset, size, unseal } = asked;
    let wish = PieceWish { sector: SectorNumber::new(number), offset, size, unseal };
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
