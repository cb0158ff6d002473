//! Whether a rebuild is worth its hours: what the chain says of the sector before it begins. Never: decides what is lost.

use chain::ChainError;
use rpc::pipelining::Lost;
use rpc::{ApiError, ApiResult};
use sealtasks::{SectorId, StorageId};

use crate::service::Service;
use crate::workers::chain_of;

impl Service {
    /// Nothing on the manager's chain stands against the rebuild that would begin with this. What is under way was asked about.
    ///
    /// # Errors
    /// The sector was snapped, has another replica on chain or is not there, or the node does not say. What was given for it
    /// stays in the last case alone.
    pub(crate) async fn is_worth_rebuilding(
        &self,
        sector: SectorId,
        lost: Option<&Lost>,
        bad: &[StorageId],
    ) -> ApiResult<()> {
        let (told, bad) = (lost.cloned(), bad.to_vec());
        let begins = self.view(move |driver| driver.begins_with(sector, told.as_ref(), &bad)).await?;
        let Some(sealed) = begins else { return Ok(()) };
        let Err(error) = self.0.chain.may_rebuild(sector, sealed).await else { return Ok(()) };
        if error.is_permanent() {
            for given in self.0.refills.dropped(sector) {
                self.0.staging.remove(given).await;
            }
        }
        Err(refused(&self.0.name(sector).to_string(), &error))
    }
}

fn refused(number: &str, error: &ChainError) -> ApiError {
    let advice = match error.is_permanent() {
        true => "",
        false => "; nothing was begun, try again when it does",
    };
    let (code, why) = (error.code(), chain_of(error));
    ApiError::refused(format!("MGR196: sector {number} is not sealed again: {code}: {why}{advice}"))
}
