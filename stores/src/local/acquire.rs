//! Finding a sector's files among the open paths, and choosing paths for new ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sealtasks::{
    FileType, FileTypes, PathType, SectorFiles, SectorId, SectorRef, SectorStorageInfo, StorageId,
};

use super::{Local, OpenPath};
use crate::error::StoreError;
use crate::fetch::arriving::PLAN;
use crate::layout;

/// A path that does not say within this time what lies in it is passed over.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Where a sector's files are, or are to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acquired {
    /// The place of each file.
    pub files: SectorFiles,
    /// The path each lies in.
    pub ids: BTreeMap<FileType, StorageId>,
    /// Those of them that were fetched by this very call.
    pub fetched: FileTypes,
}

impl Acquired {
    pub(crate) fn insert(&mut self, kind: FileType, id: StorageId, file: PathBuf) {
        self.files.0.insert(kind, file);
        self.ids.insert(kind, id);
    }

    /// Which types have a place.
    pub fn types(&self) -> FileTypes {
        self.ids.keys().copied().collect()
    }
}

impl Local {
    /// Finds the `existing` files among the open paths and a place for those in `allocate`: where the file is already
    /// if that path suits, else the best path that does. An existing file that is not here is left out, not an error.
    /// Room is not checked here: see [`Local::reserve`].
    ///
    /// # Errors
    /// [`StoreError::Overlap`], [`StoreError::NoPath`] when nothing here takes a file to allocate, or the index's.
    pub async fn acquire(
        &self,
        sector: SectorRef,
        existing: FileTypes,
        allocate: FileTypes,
        path_type: PathType,
    ) -> Result<Acquired, StoreError> {
        let types = existing.intersection(allocate);
        if !types.is_empty() {
            return Err(StoreError::Overlap { sector: sector.id, types });
        }
        let mut acquired = Acquired::default();
        for kind in existing.iter() {
            if let Some((id, file)) = self.file_path(sector.id, kind).await? {
                acquired.insert(kind, id, file);
            }
        }
        for kind in allocate.iter() {
            let (id, file) = self.place_for(sector, kind, path_type).await?;
            acquired.insert(kind, id, file);
        }
        Ok(acquired)
    }

    /// Where a sector's file lies in this process's paths, if the index knows it here.
    ///
    /// # Errors
    /// When the index cannot be reached.
    pub async fn file_path(
        &self,
        sector: SectorId,
        kind: FileType,
    ) -> Result<Option<(StorageId, PathBuf)>, StoreError> {
        Ok(self.copies_here(sector, kind).await?.into_iter().next())
    }

    /// Where all copies lie that the index knows in this process's paths.
    pub(crate) async fn copies_here(
        &self,
        sector: SectorId,
        kind: FileType,
    ) -> Result<Vec<(StorageId, PathBuf)>, StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        let table = self.table();
        let here = |holder: SectorStorageInfo| {
            let file = layout::file(&table.get(&holder.id)?.dir, sector, kind);
            Some((holder.id, file))
        };
        Ok(holders.into_iter().filter_map(here).collect())
    }

    /// The path that takes such a file and in which an earlier fetch of it was cut off: what came then need not come again.
    /// A path that hangs is passed over.
    pub(crate) async fn begun(
        &self,
        sector: SectorId,
        kind: FileType,
        path_type: PathType,
    ) -> Option<(StorageId, PathBuf)> {
        let suited: Vec<(StorageId, OpenPath)> = {
            let table = self.table();
            let suits = table.iter().filter(|(_, path)| path.suits(sector, kind, path_type));
            suits.map(|(id, path)| (id.clone(), path.clone())).collect()
        };
        for (id, path) in suited {
            let plan = layout::arriving(&path.dir, sector, kind).join(PLAN);
            let look = path.look(LOOK_MAX, "looking for an earlier fetch", move || Ok(plan.exists()));
            if matches!(look.await, Ok(true)) {
                return Some((id, layout::file(&path.dir, sector, kind)));
            }
        }
        None
    }

    async fn place_for(
        &self,
        sector: SectorRef,
        kind: FileType,
        path_type: PathType,
    ) -> Result<(StorageId, PathBuf), StoreError> {
        let holders = self.index.find(sector.id, kind.into(), None).await?;
        let held = holders.into_iter().map(|holder| holder.id).collect::<Vec<_>>();
        if let Some(place) = self.first_suitable(&held, sector.id, kind, path_type) {
            return Ok(place);
        }
        let size = sector.proof.sector_size();
        let suits =
            |id: &StorageId| self.table().get(id).is_some_and(|path| path.suits(sector.id, kind, path_type));
        let first = self.index.first_alloc(kind.into(), size, path_type, sector.id.miner, &suits).await?;
        let first: Vec<StorageId> = first.into_iter().collect();
        self.first_suitable(&first, sector.id, kind, path_type).ok_or(StoreError::NoPath {
            sector: sector.id,
            kind,
            path_type,
        })
    }

    fn first_suitable(
        &self,
        ids: &[StorageId],
        sector: SectorId,
        kind: FileType,
        path_type: PathType,
    ) -> Option<(StorageId, PathBuf)> {
        let table = self.table();
        ids.iter().find_map(|id| {
            let path = table.get(id).filter(|path| path.suits(sector, kind, path_type))?;
            Some((id.clone(), layout::file(&path.dir, sector, kind)))
        })
    }
}

impl OpenPath {
    pub(super) fn suits(&self, sector: SectorId, kind: FileType, path_type: PathType) -> bool {
        let used_for = match path_type {
            PathType::Sealing => self.stanza.can_seal,
            PathType::Storage => self.stanza.can_store,
        };
        used_for
            && self.stanza.filters.accepted(kind.into()).contains(kind)
            && self.stanza.filters.accepts_miner(sector.miner)
    }
}
