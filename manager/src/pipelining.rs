//! The pipeline's part of the API: data is taken and kept before the driver hears of it. Never: decides which sector it
//! goes to.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use chain::recovery::SECTORS_MAX;
use futures_util::TryStreamExt as _;
use pipeline::{DataPiece, SectorState, StateError};
use rpc::api::PledgeOptions;
use rpc::pipelining::{
    ADD_PIECE_ROUTE, Batch, Flushed, Lost, Payers, PieceAdded, PieceParts, PipelineApi, PledgingView,
    REBUILD_PIECE_ROUTE, RoomView, RoomWish, WantedPiece,
};
use rpc::{ApiError, ApiResult, SectorName};
use sealtasks::{ActorId, PieceInfo, SectorId, UnpaddedPieceSize};
use serde::Deserialize;

use crate::answers::check_pledge;
use crate::driver::{Driver, Input, Order, RoomFacts};
use crate::service::{Service, refusal, stopping};

/// A sector that is named twice over, by its number and by its miner beside that.
fn of_miner(name: SectorName, miner: Option<ActorId>) -> ApiResult<SectorName> {
    match (name.miner, miner) {
        (Some(named), Some(miner)) if named != miner => Err(ApiError::refused(format!(
            "MGR183: sector {name} is not one of miner {miner}; leave one of the two out"
        ))),
        (named, miner) => Ok(SectorName { miner: named.or(miner), ..name }),
    }
}

#[async_trait]
impl PipelineApi for Service {
    async fn add_piece(
        &self,
        sector: Option<SectorName>,
        miner: Option<ActorId>,
        data: PieceParts,
    ) -> ApiResult<PieceAdded> {
        check_pledge(&self.0, PledgeOptions { miner, ..PledgeOptions::default() })?;
        let sector = sector.map(|name| of_miner(name, miner)).transpose()?;
        let miner = miner.unwrap_or(self.0.miners.first);
        if self.0.rehearses() {
            return Err(ApiError::refused("MGR126: a REHEARSAL takes no data: its executors write none"));
        }
        let sector = match sector {
            Some(name) => Some(self.sector_id(name).await?),
            None => None,
        };
        if let Some(id) = sector {
            // Before hours of copying, not behind them.
            let known = self.view(move |driver| driver.sector_ref(id)).await?;
            known.ok_or_else(|| self.0.no_sector(id))?;
        }
        let whole = UnpaddedPieceSize::whole_sector(self.0.miner.sector_size).get();
        let staged = self.0.staging.take(data, whole).await.map_err(refusal)?;
        let data = DataPiece { piece: staged.piece, bytes: staged.bytes, staged: staged.id, offset: None };
        let given = self.ask(|reply| Input::Order(Order::AddData { sector, miner, data, reply })).await;
        match given {
            Ok(id) => Ok(PieceAdded {
                sector: self.0.name(id),
                cid: staged.piece.cid.to_string(),
                bytes: staged.bytes,
                padded_size: staged.piece.size.get(),
            }),
            Err(error) => {
                // A driver that has ended may have committed it: then the next start finds it, or removes it.
                if matches!(error, ApiError::Refused { .. }) && !self.0.cancelled.is_cancelled() {
                    self.0.staging.remove(staged.id).await;
                }
                Err(error)
            }
        }
    }

    async fn start_sealing(&self, sector: SectorName) -> ApiResult<()> {
        let sector = self.sector_id(sector).await?;
        self.ask(|reply| Input::Order(Order::StartSealing { sector, reply })).await
    }

    async fn update_state(&self, sector: SectorName, state: String) -> ApiResult<()> {
        let to: SectorState = state.parse().map_err(|error: StateError| {
            let names: Vec<_> = SectorState::ALL.iter().map(|state| state.name()).collect();
            ApiError::refused(format!("MGR125: {error}; there are {}", names.join(", ")))
        })?;
        let sector = self.sector_id(sector).await?;
        self.put_into(sector, to).await
    }

    async fn rebuild(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<()> {
        self.begin_rebuild(sector, lost).await
    }

    async fn rebuild_pieces(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<Vec<WantedPiece>> {
        self.wanted_pieces(sector, lost).await
    }

    async fn rebuild_room(&self, wish: RoomWish) -> ApiResult<RoomView> {
        if wish.sectors.len() > SECTORS_MAX {
            return Err(ApiError::refused(format!(
                "MGR197: room for {} sectors is asked for, and at most {SECTORS_MAX} are counted at once",
                wish.sectors.len()
            )));
        }
        let facts = self.view(move |driver| driver.rebuild_room(&wish)).await?;
        Ok(facts.map(RoomFacts::counted).unwrap_or_default())
    }

    async fn give_piece(&self, sector: SectorName, piece: PieceInfo, data: PieceParts) -> ApiResult<()> {
        self.take_refill(sector, piece, data).await
    }

    async fn pledging(&self) -> ApiResult<PledgingView> {
        self.view(Driver::pledging_view).await
    }

    async fn pause_pledging(&self, paused: bool, by: String) -> ApiResult<PledgingView> {
        self.ask(|reply| Input::Order(Order::PausePledging { paused, by, reply })).await
    }

    async fn batched(&self, batch: Batch) -> ApiResult<Vec<SectorId>> {
        match &self.0.messages {
            Some(messages) => messages.batched(batch).await.ok_or_else(stopping),
            None => Ok(Vec::new()),
        }
    }

    async fn flush(&self, batch: Batch) -> ApiResult<Vec<Flushed>> {
        match &self.0.messages {
            Some(messages) => messages.flush(batch).await.ok_or_else(stopping),
            None => Ok(Vec::new()),
        }
    }

    async fn payers(&self) -> ApiResult<Payers> {
        let settings = &self.0.chain_settings;
        let [pre_commit, commit] = [&settings.pre_commit_payment, &settings.prove_commit_payment];
        Ok(Payers { pre_commit: pre_commit.from.clone(), commit: commit.from.clone() })
    }
}

impl Service {
    /// Puts a sector into a state by hand.
    async fn put_into(&self, sector: SectorId, to: SectorState) -> ApiResult<()> {
        let open = self.open_message(sector).await?;
        self.ask(|reply| Input::Order(Order::UpdateState { sector, to, open, reply })).await
    }

    /// The first message about this sector whose end is not known.
    pub(crate) async fn open_message(&self, sector: SectorId) -> ApiResult<Option<String>> {
        let shared = self.0.clone();
        let open = tokio::task::spawn_blocking(move || {
            shared.messages.as_ref().map_or(Ok(None), |messages| messages.open_message(sector))
        });
        open.await.map_err(|_| stopping())?.map_err(refusal)
    }
}

/// The route that takes data for sectors.
pub(crate) fn data_router(service: Service) -> Router {
    Router::new()
        .route(ADD_PIECE_ROUTE, post(take))
        .route(REBUILD_PIECE_ROUTE, post(crate::refill::take))
        .with_state(Arc::new(service))
}

#[derive(Deserialize)]
struct Asked {
    sector: Option<String>,
    miner: Option<String>,
}

async fn take(
    State(service): State<Arc<Service>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(refused) = service.admits(&headers) {
        return refused.into_response();
    }
    let data = body.into_data_stream().map_err(std::io::Error::other);
    let sector = match asked.sector.map(|name| name.parse::<SectorName>()).transpose() {
        Ok(sector) => sector,
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    };
    let miner = match asked.miner.map(|miner| miner.parse::<ActorId>()).transpose() {
        Ok(miner) => miner,
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    };
    match service.add_piece(sector, miner, Box::pin(data)).await {
        Ok(added) => Json(added).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    }
}
