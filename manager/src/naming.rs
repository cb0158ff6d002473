//! Which sector a name means, and what a sector is called: with one miner by its number, with several by both. A bare
//! number never means another miner's sector than the first one's. Never: knows more of a sector than whether it is there.

use rpc::{ApiError, ApiResult, SectorName};
use sealtasks::{SectorId, SectorNumber};

use crate::driver::Driver;
use crate::service::Service;
use crate::shared::Shared;

impl Service {
    /// The sector that is meant; whether there is one, whoever looks for it says.
    ///
    /// # Errors
    /// `MGR180`: a number alone, and several miners have it, or only another one than the first.
    pub(crate) async fn sector_id(&self, name: SectorName) -> ApiResult<SectorId> {
        let SectorName { miner, number } = name;
        match miner {
            Some(miner) => Ok(SectorId { miner, number }),
            None if self.0.miners.others.is_empty() => Ok(SectorId { miner: self.0.miners.first, number }),
            None => self.view(move |driver| driver.numbered(number)).await?,
        }
    }
}

impl Driver {
    /// The sector that a number alone means.
    pub(crate) fn numbered(&self, number: SectorNumber) -> ApiResult<SectorId> {
        let shared = self.shared();
        let first = SectorId { miner: shared.miners.first, number };
        let others = shared.miners.others.iter().map(|miner| SectorId { miner: *miner, number });
        let known: Vec<SectorId> = others.filter(|id| self.has_heard_of(*id)).collect();
        if known.is_empty() {
            return Ok(first);
        }
        let own = self.has_heard_of(first).then_some(first);
        let choices: Vec<String> =
            own.into_iter().chain(known).map(|id| shared.name(id).to_string()).collect();
        Err(ApiError::refused(format!(
            "MGR180: this manager serves several miners, and sector {number} is here as {}; say which, with its miner",
            choices.join(" and ")
        )))
    }
}

impl Shared {
    /// What a sector is called, for people and for what they type.
    pub(crate) fn name(&self, sector: SectorId) -> SectorName {
        self.miners.name(sector)
    }

    /// There is none such.
    pub(crate) fn no_sector(&self, sector: SectorId) -> ApiError {
        let name = self.name(sector);
        ApiError::refused(format!("MGR053: no sector {name}; `sealyard sectors list` lists them"))
    }
}
