//! Proving at a manager on another machine.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sealtasks::{SectorId, SectorNumber, SectorRef, StorageId};

use super::NO_PARAMS;
use super::manager::ManagerClient;
use crate::api::ApiResult;
use crate::error::ApiError;
use crate::proving::{ProvingApi, ProvingView, ProvingWish};
use crate::wire::sector;

/// Window PoSt, version 1.1, of the smallest sectors; those of the other sizes follow.
const WINDOW: i64 = 10;

#[async_trait]
impl ProvingApi for ManagerClient {
    async fn check_provable(&self, wish: ProvingWish) -> ApiResult<ProvingView> {
        self.caller().call("Sealyard.CheckProvable", &(wish,)).await
    }

    async fn replicas_in(&self, path: StorageId) -> ApiResult<Vec<SectorId>> {
        self.caller().call("Sealyard.ReplicasIn", &(path,)).await
    }

    async fn unheld(&self) -> ApiResult<Vec<SectorId>> {
        self.caller().call("Sealyard.Unheld", &NO_PARAMS).await
    }

    async fn not_provable(&self, sectors: Vec<SectorRef>) -> ApiResult<Vec<(SectorNumber, String)>> {
        let proof = sectors.first().map_or(WINDOW, |sector| WINDOW + sector.proof.number() % 5);
        let sectors: Vec<_> = sectors.into_iter().map(sector::SectorRef::from).collect();
        let told: Option<BTreeMap<String, String>> =
            self.caller().call("Filecoin.CheckProvable", &(proof, sectors)).await?;
        let number = |text: String| text.parse().map(SectorNumber::new).ok();
        let pairs = told.unwrap_or_default().into_iter();
        pairs
            .map(|(text, why)| number(text.clone()).map(|number| (number, why)).ok_or(text))
            .collect::<Result<_, _>>()
            .map_err(|text| {
                ApiError::refused(format!("the manager told of sector {text:?}, which is no number"))
            })
    }
}
