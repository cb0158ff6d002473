//! What is left of a sector that is sealed again, put out of the way of what takes its place. Never: deletes a file.

use std::path::{Path, PathBuf};

use sealtasks::{FileType, FileTypes, SectorId, StorageId};

use super::removal::set_aside;
use super::{Local, OpenPath};
use crate::error::StoreError;
use crate::fetch::arriving::Arriving;
use crate::index::CopyKind;
use crate::layout;

impl Local {
    /// Gives these files of a sector in one path names of their own and takes them out of the index. Where they lie now;
    /// one that was not there has left the index alone. A clean-up offers them once a whole copy lies elsewhere.
    ///
    /// # Errors
    /// When the path is not open here, or the disk or the index refuses; what was not set aside stays listed.
    pub(crate) async fn set_aside(
        &self,
        sector: SectorId,
        types: FileTypes,
        id: &StorageId,
    ) -> Result<Vec<PathBuf>, StoreError> {
        let path = self.path(id)?;
        let mut aside = Vec::new();
        for kind in types.iter() {
            aside.extend(self.set_one_aside(sector, kind, id, &path).await?);
        }
        Ok(aside)
    }

    async fn set_one_aside(
        &self,
        sector: SectorId,
        kind: FileType,
        id: &StorageId,
        path: &OpenPath,
    ) -> Result<Option<PathBuf>, StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        let copy =
            holders.iter().find(|holder| holder.id == *id).map(|holder| CopyKind::from(holder.primary));
        // No scan declares it while it goes.
        let _leaving = self.making(sector, &[(kind, id.clone())]);
        self.index.drop_files(id, sector, kind.into()).await?;
        // A disk that hangs keeps no other deletion, and no scan, waiting.
        drop(turn);
        let (file, to) = (layout::file(&path.dir, sector, kind), layout::replaced(&path.dir, sector, kind));
        let (at, dir) = (file.clone(), path.dir.clone());
        let renamed = tokio::task::spawn_blocking(move || {
            // While somebody is at work on what it owes it stays where it is.
            forget_debt(&dir, sector, kind)?;
            set_aside(&at, &to)
        });
        let renamed = renamed.await;
        path.space.touched();
        match renamed.unwrap_or(Err(StoreError::Lost { what: "setting a file aside" })) {
            Ok(aside) => {
                if let Some(aside) = &aside {
                    tracing::warn!(%sector, %kind, path = %id, ?aside, "set aside: its sector is sealed again");
                }
                Ok(aside)
            }
            Err(error) => {
                if let Some(copy) = copy
                    && self.exists(&file).await.unwrap_or(true)
                {
                    self.index.declare(id, sector, kind.into(), copy).await?;
                }
                Err(error)
            }
        }
    }
}

/// What the file owed for having been moved here: its source may be the better copy, and what is made anew stands for neither.
fn forget_debt(dir: &Path, sector: SectorId, kind: FileType) -> Result<(), StoreError> {
    if let Some(place) = Arriving::left(dir, sector, kind)?
        && place.arrived().is_some()
        && !place.data().exists()
    {
        place.discard();
    }
    Ok(())
}
