//! The pipeline of a manager on another machine.

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use sealtasks::{ActorId, PieceInfo, SectorId};

use super::manager::ManagerClient;
use super::{NO_PARAMS, unreachable_peer};
use crate::api::ApiResult;
use crate::error::ApiError;
use crate::pipelining::{
    ADD_PIECE_ROUTE, Batch, Flushed, Lost, Payers, PieceAdded, PieceParts, PipelineApi, PledgingView,
    REBUILD_PIECE_ROUTE, RoomView, RoomWish, WantedPiece,
};
use crate::sector_name::SectorName;
use crate::server::{BATCHES, PAYERS};
use crate::wire;

/// Error texts are read up to this many bytes.
const TEXT_MAX: usize = 4096;

/// Sends data. No limit: it is copied and hashed first, and a dead connection is noticed by its keep-alives.
async fn posted(url: &reqwest::Url, http: reqwest::Client, data: PieceParts) -> ApiResult<reqwest::Response> {
    let body = reqwest::Body::wrap_stream(data);
    let request = http.post(url.clone()).header(CONTENT_TYPE, "application/octet-stream").body(body);
    let answer = request.send().await.map_err(|source| unreachable_peer(url, source))?;
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(ApiError::Unauthorized { url: url.to_string(), status: status.as_u16() })
        }
        status => {
            let text = answer.text().await.unwrap_or_default();
            let text: String = text.trim().chars().take(TEXT_MAX).collect();
            let text = if text.is_empty() { format!("HTTP status {status}") } else { text };
            Err(ApiError::refused(text))
        }
    }
}

/// What asks which sectors wait, and what has them go.
fn batch_names(batch: Batch) -> (&'static str, &'static str) {
    let [pre_commits, commits] = BATCHES;
    let (_, pending, flush) = if batch == Batch::PreCommit { pre_commits } else { commits };
    (pending, flush)
}

#[async_trait]
impl PipelineApi for ManagerClient {
    async fn add_piece(
        &self,
        sector: Option<SectorName>,
        miner: Option<ActorId>,
        data: PieceParts,
    ) -> ApiResult<PieceAdded> {
        let (mut url, http) = self.http()?;
        url.set_path(ADD_PIECE_ROUTE);
        if let Some(sector) = sector {
            url.query_pairs_mut().append_pair("sector", &sector.to_string());
        }
        if let Some(miner) = miner {
            url.query_pairs_mut().append_pair("miner", &miner.to_string());
        }
        let answer = posted(&url, http, data).await?;
        answer.json().await.map_err(|source| unreachable_peer(&url, source))
    }

    async fn rebuild_pieces(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<Vec<WantedPiece>> {
        self.caller().call("Sealyard.RebuildPieces", &(sector, lost)).await
    }

    async fn rebuild_room(&self, wish: RoomWish) -> ApiResult<RoomView> {
        self.caller().call("Sealyard.RebuildRoom", &(wish,)).await
    }

    async fn give_piece(&self, sector: SectorName, piece: PieceInfo, data: PieceParts) -> ApiResult<()> {
        let (mut url, http) = self.http()?;
        url.set_path(REBUILD_PIECE_ROUTE);
        url.query_pairs_mut()
            .append_pair("sector", &sector.to_string())
            .append_pair("cid", &piece.cid.to_string())
            .append_pair("size", &piece.size.get().to_string());
        posted(&url, http, data).await.map(drop)
    }

    async fn start_sealing(&self, sector: SectorName) -> ApiResult<()> {
        self.caller().call("Sealyard.StartSealing", &(sector,)).await
    }

    async fn update_state(&self, sector: SectorName, state: String) -> ApiResult<()> {
        self.caller().call("Sealyard.UpdateState", &(sector, state)).await
    }

    async fn rebuild(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<()> {
        self.caller().call("Sealyard.Rebuild", &(sector, lost)).await
    }

    async fn pledging(&self) -> ApiResult<PledgingView> {
        self.caller().call("Sealyard.Pledging", &NO_PARAMS).await
    }

    async fn pause_pledging(&self, paused: bool, by: String) -> ApiResult<PledgingView> {
        self.caller().call("Sealyard.PausePledging", &(paused, by)).await
    }

    async fn batched(&self, batch: Batch) -> ApiResult<Vec<SectorId>> {
        let (pending, _) = batch_names(batch);
        let found: Vec<wire::sector::SectorId> = self.caller().call(pending, &NO_PARAMS).await?;
        Ok(found.into_iter().map(SectorId::from).collect())
    }

    async fn flush(&self, batch: Batch) -> ApiResult<Vec<Flushed>> {
        let (_, flush) = batch_names(batch);
        let flushed: Vec<wire::batch::BatchRes> = self.caller().call(flush, &NO_PARAMS).await?;
        Ok(flushed.into_iter().map(Flushed::from).collect())
    }

    async fn payers(&self) -> ApiResult<Payers> {
        let config: wire::batch::AddressConfig = self.caller().call(PAYERS, &NO_PARAMS).await?;
        Ok(config.into())
    }
}
