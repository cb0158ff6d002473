//! Declarations that name no attempt, as Lotus workers make them: what they do and what they find there look alike. Never:
//! refuses one, since a Lotus worker knows no such answer.

use rpc::ApiResult;
use sealtasks::{FileTypes, SectorDecl, SectorId, StorageId};
use stores::{CopyKind, Index as _};

use crate::service::{Service, refusal};

impl Service {
    /// Declares files of one sector. What may be the work of an attempt that was given up does not count beside the copy that
    /// goes on: it is kept out of the index, and shown by a clean-up where the path's owner can tell of it.
    pub(crate) async fn declare_unnamed(
        &self,
        id: StorageId,
        sector: SectorId,
        types: FileTypes,
        primary: bool,
    ) -> ApiResult<()> {
        let index = &self.0.index;
        let old = index.superseded_in(&id, sector).intersection(types);
        let second = if primary { self.second_of(&id, sector, types) } else { FileTypes::NONE };
        if !(old | second).is_empty() {
            let path = id.clone();
            let look = move |driver: &crate::driver::Driver| {
                (driver.is_at_work(&path, sector), driver.is_unnamed(&path, sector))
            };
            let (at_work, unnamed) = self.view(look).await?;
            let late = if unnamed { second } else { FileTypes::NONE };
            if !at_work && !(old | late).is_empty() {
                tracing::warn!(%sector, types = %(old | late), path = %id, "declared, but no attempt is at work there: it is an older copy");
                index.supersede_copies(&id, sector, old | late);
                let found = SectorDecl { sector, types };
                return index.declare_batch(&id, &[(found, primary)]).await.map_err(refusal);
            }
        }
        index.declare(&id, sector, types, CopyKind::from(primary)).await.map_err(refusal)
    }

    /// Those of the types that another path has the primary copy of, where this one does not list them and stores nothing for
    /// good: a scan of such a path calls nothing primary.
    fn second_of(&self, id: &StorageId, sector: SectorId, types: FileTypes) -> FileTypes {
        let stores = self.0.index.path_view(id).is_none_or(|view| view.info.stanza.can_store);
        if stores {
            return FileTypes::NONE;
        }
        let held = self.0.index.sector_files(sector);
        let here =
            held.iter().filter(|held| held.id == *id).fold(FileTypes::NONE, |all, held| all | held.types);
        let there = held.iter().filter(|held| held.id != *id);
        let elsewhere = there.fold(FileTypes::NONE, |all, held| all | held.primary);
        types.difference(here).intersection(elsewhere)
    }
}
