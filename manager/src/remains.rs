//! What is left of a sector whose replica is lost in part: set aside before it is sealed again, so that what takes its place
//! is new throughout. Never: deletes a file, nor touches those of a sector that is whole or that nobody here knows.

use rpc::pipelining::Lost;
use rpc::storage::PathHost;
use rpc::{ApiError, ApiResult};
use sealtasks::{FileTypes, PathOrder, SectorId};

use crate::service::Service;

impl Service {
    /// Sets aside what is left, if nothing else is in the way of sealing it again.
    ///
    /// # Errors
    /// When it is in use, or its path cannot be told to; a part may be set aside then.
    pub(crate) async fn set_remains_aside(&self, sector: SectorId, lost: Option<&Lost>) -> ApiResult<()> {
        let told = lost.cloned();
        let look = move || {
            let told = told.clone();
            self.view(move |driver| driver.remains(sector, told.as_ref()))
        };
        let left = look().await?.iter().fold(FileTypes::NONE, |all, (_, types)| all | *types);
        if left.is_empty() {
            return Ok(());
        }
        let _lock = self.claim(sector, left, "set aside, since it is sealed again".to_owned())?;
        // Until it was locked somebody may have changed it.
        for (path, types) in look().await? {
            let order = PathOrder::SetAside { sector, types: types.intersection(left), path: path.clone() };
            self.hand_order(PathHost::Owner(path.clone()), order).await.map_err(|error| {
                ApiError::refused(format!(
                    "MGR193: sector {} is not sealed again: path {path} has only {types} of its replica, which could not be \
                     set aside: {error}; move it away by hand, and `sealyard storage redeclare` forgets it",
                    self.0.name(sector)
                ))
            })?;
        }
        Ok(())
    }
}
