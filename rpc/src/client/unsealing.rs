//! Unsealed data at a manager on another machine.

use std::io;
use std::ops::Range;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use reqwest::StatusCode;
use sealtasks::{SectorId, UnsealedRange};

use super::manager::ManagerClient;
use super::unreachable_peer;
use crate::api::ApiResult;
use crate::error::ApiError;
use crate::sector_name::SectorName;
use crate::unsealing::{
    PIECE_ROUTE, PieceBytes, PieceWish, UNSEALED_HEADER, UnsealApi, UnsealView, UnsealWish,
};
use crate::wire::{Base64, Cid, sector};

/// Error texts are read up to this many bytes.
const TEXT_MAX: usize = 4096;

#[async_trait]
impl UnsealApi for ManagerClient {
    async fn is_unsealed(&self, sector: SectorName, span: Range<u64>) -> ApiResult<bool> {
        let size = span.end.saturating_sub(span.start);
        self.caller().call("Sealyard.IsUnsealed", &(sector, span.start, size)).await
    }

    async fn unseal_sector(&self, sector: SectorName) -> ApiResult<UnsealView> {
        self.caller().call("Sealyard.UnsealSector", &(sector,)).await
    }

    async fn unseal_piece(&self, wish: UnsealWish) -> ApiResult<()> {
        let UnsealWish { sector, span, ticket, unsealed } = wish;
        let (sector, size) = (sector::SectorRef::from(sector), span.end.saturating_sub(span.start));
        let (ticket, comm_d) = (ticket.map(|ticket| Base64(ticket.0.to_vec())), unsealed.and_then(Cid::of));
        let params = (sector, span.start, size, ticket, comm_d);
        self.caller().call("Filecoin.SectorsUnsealPiece", &params).await
    }

    async fn unseal_state(&self, sector: SectorName) -> ApiResult<UnsealView> {
        self.caller().call("Sealyard.UnsealState", &(sector,)).await
    }

    async fn release_unsealed(&self, sector: SectorName, keep: Vec<UnsealedRange>) -> ApiResult<UnsealView> {
        self.caller().call("Sealyard.ReleaseUnsealed", &(sector, keep)).await
    }

    async fn read_piece(&self, wish: PieceWish) -> ApiResult<PieceBytes> {
        let (mut url, http) = self.http()?;
        url.set_path(&format!("{PIECE_ROUTE}/{}", path_name(wish.sector)));
        url.query_pairs_mut()
            .append_pair("offset", &wish.offset.to_string())
            .append_pair("unseal", if wish.unseal { "true" } else { "false" });
        if let Some(size) = wish.size {
            url.query_pairs_mut().append_pair("size", &size.to_string());
        }
        // No limit on the answer: unsealing may take hours, and a dead connection is noticed by its keep-alives.
        let answer = http.get(url.clone()).send().await.map_err(|source| unreachable_peer(&url, source))?;
        match answer.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(ApiError::Unauthorized { url: url.to_string(), status: status.as_u16() });
            }
            status => {
                let text = answer.text().await.unwrap_or_default();
                let text: String = text.trim().chars().take(TEXT_MAX).collect();
                return Err(ApiError::refused(if text.is_empty() {
                    format!("HTTP status {status}")
                } else {
                    text
                }));
            }
        }
        let unsealed = answer.headers().get(UNSEALED_HEADER).is_some_and(|said| said == "true");
        let size = answer.content_length().ok_or_else(|| {
            ApiError::refused("the manager did not say how many bytes there will be; is it a Sealyard?")
        })?;
        let parts = Box::pin(answer.bytes_stream().map_err(io::Error::other));
        Ok(PieceBytes { size, unsealed, parts })
    }
}

/// Without a slash, which would be another step of the path.
fn path_name(sector: SectorName) -> String {
    let SectorName { miner, number } = sector;
    miner.map_or_else(|| number.to_string(), |miner| SectorId { miner, number }.to_string())
}
