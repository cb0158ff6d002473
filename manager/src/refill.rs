//! Data that is given once more for sectors that are to be sealed again: checked, kept in the staging, and named until the
//! rebuild takes it. Never: decides whether a sector is sealed again. What waits here when the manager stops is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use pieces::commitment::zero_commitment;
use pipeline::DataPiece;
use rpc::pipelining::{Lost, PieceParts, PipelineApi as _, WantedPiece};
use rpc::{ApiError, ApiResult, SectorName};
use sealtasks::{PaddedPieceSize, PieceInfo, SectorId, UnsealedCid};
use serde::Deserialize;
use uuid::Uuid;

use crate::driver::{Driver, Input, Order};
use crate::service::{Service, refusal};
use crate::staging::Staged;

/// Pieces that may wait for their rebuild; beyond, none is taken. As many as eight sectors of 64 GiB can hold.
const WAITING_MAX: usize = 4096;
/// Pieces that asked-about sectors may lack; beyond, those of earlier questions are forgotten.
const LACKING_MAX: usize = 1 << 16;

/// What waits for rebuilds.
#[derive(Default)]
pub(crate) struct Refills(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// What was given, by its sector and itself.
    given: HashMap<(SectorId, PieceInfo), Staged>,
    /// What sectors lack, as was last told to whoever asked; nothing else is taken.
    lacking: HashMap<SectorId, Vec<PieceInfo>>,
}

impl Waiting {
    /// Why this is not taken.
    fn refusal(&self, key: &(SectorId, PieceInfo)) -> Option<String> {
        let (sector, PieceInfo { cid, .. }) = (key.0, key.1);
        if !self.lacking.get(&sector).is_some_and(|lacking| lacking.contains(&key.1)) {
            return Some(format!(
                "MGR158: sector {} lacks no piece {cid} as far as was asked; \
                 `sealyard sectors rebuild` and `sealyard repair run` ask first what is missing",
                SectorName::from(sector)
            ));
        }
        let full = self.given.len() >= WAITING_MAX && !self.given.contains_key(key);
        full.then(|| format!("MGR155: {WAITING_MAX} pieces wait for sectors that are to be sealed again"))
    }
}

impl Refills {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a sector lacks, for whoever gives it next.
    fn lacks(&self, sector: SectorId, pieces: &[PieceInfo]) {
        let waiting = &mut self.lock().lacking;
        waiting.remove(&sector);
        // Whoever gives a piece asks for its sector just before.
        if waiting.values().map(Vec::len).sum::<usize>().saturating_add(pieces.len()) > LACKING_MAX {
            waiting.clear();
        }
        if (1..=LACKING_MAX).contains(&pieces.len()) {
            waiting.insert(sector, pieces.to_vec());
        }
    }

    /// The data of these pieces. The error is those that were not given.
    pub(crate) fn data(
        &self,
        sector: SectorId,
        pieces: impl Iterator<Item = PieceInfo>,
    ) -> Result<Vec<DataPiece>, Vec<PieceInfo>> {
        let given = &self.lock().given;
        let (mut data, mut missing) = (Vec::new(), Vec::new());
        for piece in pieces {
            match given.get(&(sector, piece)) {
                Some(staged) => {
                    data.push(DataPiece { piece, bytes: staged.bytes, staged: staged.id, offset: None });
                }
                None if missing.contains(&piece) => {}
                None => missing.push(piece),
            }
        }
        if missing.is_empty() { Ok(data) } else { Err(missing) }
    }

    /// Data of a rebuild that was given up waits again.
    pub(crate) fn put_back(&self, sector: SectorId, data: &[DataPiece]) {
        let given = &mut self.lock().given;
        for DataPiece { piece, bytes, staged, .. } in data {
            let staged = Staged { id: *staged, piece: *piece, bytes: *bytes };
            given.entry((sector, *piece)).or_insert(staged);
        }
    }

    /// They are the sector's now.
    pub(crate) fn taken(&self, sector: SectorId) {
        self.dropped(sector);
    }

    /// What waited for it, and waits no more.
    pub(crate) fn dropped(&self, sector: SectorId) -> Vec<Uuid> {
        let mut waiting = self.lock();
        waiting.lacking.remove(&sector);
        waiting.given.extract_if(|(of, _), _| *of == sector).map(|(_, staged)| staged.id).collect()
    }
}

/// The data among these pieces: zeros that are written between them and behind them anyway are nobody's to give.
pub(crate) fn data_of(pieces: impl IntoIterator<Item = PieceInfo>) -> Vec<PieceInfo> {
    let pieces: Vec<PieceInfo> = pieces.into_iter().collect();
    pipeline::without_fillers(&pieces, |piece| piece.cid.commitment() == zero_commitment(piece.size))
}

fn without_fillers(lost: Lost) -> Lost {
    Lost { pieces: data_of(lost.pieces), ..lost }
}

impl Service {
    pub(crate) async fn wanted_pieces(
        &self,
        sector: SectorName,
        lost: Option<Lost>,
    ) -> ApiResult<Vec<WantedPiece>> {
        let id = self.sector_id(sector).await?;
        let lost = lost.map(without_fillers);
        self.look_for(id).await;
        // What stands in the way of a proof is told when it is to begin.
        let bad = self.proven_bad(id, lost.as_ref()).await.unwrap_or_default();
        let look = move |driver: &Driver| driver.wanted_pieces(id, lost.as_ref(), &bad);
        let (pieces, needed) = self.view(look).await?;
        // Of what is not needed nothing is taken.
        self.0.refills.lacks(id, if needed { &pieces } else { &[] });
        let given = &self.0.refills.lock().given;
        let wanted = |piece| WantedPiece { piece, given: given.contains_key(&(id, piece)), needed };
        Ok(pieces.into_iter().map(wanted).collect())
    }

    pub(crate) async fn take_refill(
        &self,
        sector: SectorName,
        piece: PieceInfo,
        data: PieceParts,
    ) -> ApiResult<()> {
        let key = (self.sector_id(sector).await?, piece);
        let refused = self.0.refills.lock().refusal(&key);
        refused.map_or(Ok(()), |text| Err(ApiError::refused(text)))?;
        let staged = self.0.staging.take_piece(data, piece).await.map_err(refusal)?;
        let first = {
            let mut waiting = self.0.refills.lock();
            match waiting.refusal(&key) {
                // The first stays: a rebuild may be taking it now.
                None => Ok(waiting.given.entry(key).or_insert(staged).id),
                // Begun, meanwhile.
                Some(text) => Err(text),
            }
        };
        if first != Ok(staged.id) {
            self.0.staging.remove(staged.id).await;
        }
        first.map(drop).map_err(ApiError::refused)
    }

    pub(crate) async fn begin_rebuild(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<()> {
        let sector = self.sector_id(sector).await?;
        let lost = lost.map(without_fillers);
        self.look_for(sector).await;
        let bad = self.proven_bad(sector, lost.as_ref()).await?;
        self.is_worth_rebuilding(sector, lost.as_ref(), &bad).await?;
        self.set_remains_aside(sector, lost.as_ref(), &bad).await?;
        self.ask(|reply| Input::Order(Order::Rebuild { sector, lost, bad, reply })).await
    }
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    sector: String,
    cid: String,
    size: u64,
}

/// The route that takes a piece.
pub(crate) async fn take(
    State(service): State<Arc<Service>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(status) = service.admits(&headers) {
        return status.into_response();
    }
    let unfit = |text: String| (StatusCode::UNPROCESSABLE_ENTITY, text).into_response();
    let sector = match asked.sector.parse::<SectorName>() {
        Ok(sector) => sector,
        Err(error) => return unfit(error.to_string()),
    };
    let cid: UnsealedCid = match asked.cid.parse() {
        Ok(cid) => cid,
        Err(error) => return unfit(format!("MGR156: cid: {error}")),
    };
    let size = match PaddedPieceSize::try_from(asked.size) {
        Ok(size) => size,
        Err(error) => return unfit(format!("MGR156: size: {error}")),
    };
    let data = Box::pin(body.into_data_stream().map_err(std::io::Error::other));
    match service.give_piece(sector, PieceInfo { size, cid }, data).await {
        Ok(()) => Json(()).into_response(),
        Err(error) => unfit(error.to_string()),
    }
}
