//! Bringing a sector's file into one given path of this process, wherever it lies: an operator's move.

use std::path::PathBuf;

use sealtasks::{AcquireMode, FileType, SectorRef, StorageId};

use super::{Remote, TransferMeter};
use crate::error::StoreError;

impl Remote {
    /// Brings the primary copy of a file into the path `to`, which must be open here, and deletes it where it was. A
    /// file that lies there already stays.
    ///
    /// # Errors
    /// [`StoreError::NotOpen`], [`StoreError::Unsuited`] when the path does not take such a file, and whatever the room,
    /// the disk, a peer or the index refuses; the file then still lies where it was.
    pub async fn bring_into(
        &self,
        sector: SectorRef,
        kind: FileType,
        to: &StorageId,
        meter: &TransferMeter,
    ) -> Result<(), StoreError> {
        self.local.check_suits(sector.id, kind, to)?;
        if self.local.relocate_into(sector, kind, to).await? {
            // It may be here by a move that was cut off before its source was deleted.
            return self.finish(sector.id, kind, to).await;
        }
        let table = self.local.table_of(to)?;
        let _room = self.local.reserve(sector, kind.into(), &[(kind, to.clone())].into(), table).await?;
        let (at, _file, _fetched): (StorageId, PathBuf, bool) =
            self.bring(sector, kind, to, AcquireMode::Move, meter).await?;
        // Somebody else may have fetched it here meanwhile, into another path.
        if at != *to {
            self.local.relocate_into(sector, kind, to).await?;
        }
        Ok(())
    }
}
