//! Files that the index names in a path of this process and that do not lie there any more: taken out of the index. Never:
//! touches a file, or drops one of which the disk does not say that it is not there.

use std::collections::BTreeMap;
use std::path::Path;

use sealtasks::{FileType, FileTypes, SectorId, StorageId};

use super::{Local, OPEN_DEADLINE, OpenPath, Scan, by_copy_kind};
use crate::error::StoreError;
use crate::fetch::arriving::Arriving;
use crate::index::CopyKind;
use crate::layout;
use crate::meta::StorageMeta;

/// Files looked for in one order; those named beyond stay as they are.
const LOOKED_FOR_MAX: usize = 1000;

impl Local {
    /// Takes those of these files out of the index that do not lie in the paths in which it names them. One that is being made
    /// or deleted here now stays, and so does whatever is in a path that does not show its own `sectorstore.json`: its mount may
    /// be away. Returns what was taken out.
    ///
    /// # Errors
    /// When a path is not open here or does not answer, or the index refuses.
    pub async fn drop_gone(
        &self,
        files: Vec<(StorageId, SectorId, FileType)>,
    ) -> Result<Vec<(StorageId, SectorId, FileType)>, StoreError> {
        let mut by_path: BTreeMap<StorageId, BTreeMap<SectorId, FileTypes>> = BTreeMap::new();
        for (id, sector, kind) in files.into_iter().take(LOOKED_FOR_MAX) {
            let types = by_path.entry(id).or_default().entry(sector).or_default();
            *types = *types | kind.into();
        }
        let mut dropped = Vec::new();
        for (id, sectors) in by_path {
            let open = self.path(&id)?;
            let (dir, meant) = (open.dir.clone(), id.clone());
            let is_it = move || Ok(StorageMeta::read(&dir)?.validate(&dir)?.0 == meant);
            if !open.look(OPEN_DEADLINE, "looking whether a path is there", is_it).await? {
                continue;
            }
            for (sector, types) in sectors {
                let gone = self.gone(&id, &open.dir, sector, types).await;
                self.drop_missing_types(&id, &open, sector, gone).await?;
                dropped.extend(gone.iter().map(|kind| (id.clone(), sector, kind)));
            }
        }
        Ok(dropped)
    }

    /// The same for a whole path that was just scanned.
    pub(super) async fn drop_missing(&self, id: &StorageId, scan: &Scan) -> Result<(), StoreError> {
        let open = self.path(id)?;
        let on_disk: BTreeMap<_, _> = scan.files.iter().map(|decl| (decl.sector, decl.types)).collect();
        for known in self.index.files(id).await? {
            let there = on_disk.get(&known.sector).copied().unwrap_or_default();
            let missing = self.gone(id, &open.dir, known.sector, known.types.difference(there)).await;
            self.drop_missing_types(id, &open, known.sector, missing).await?;
        }
        Ok(())
    }

    /// Looks at the disk once more after the drop: a file may have arrived since it was looked for.
    async fn drop_missing_types(
        &self,
        id: &StorageId,
        open: &OpenPath,
        sector: SectorId,
        missing: FileTypes,
    ) -> Result<(), StoreError> {
        if missing.is_empty() {
            return Ok(());
        }
        tracing::warn!(path = %id, %sector, types = %missing, "dropped from the index: not on disk");
        self.index.drop_files(id, sector, missing).await?;
        let mut arrived = FileTypes::NONE;
        for kind in missing.iter() {
            let there = self.exists(&layout::file(&open.dir, sector, kind)).await.unwrap_or(true);
            if there && !self.is_made(id, sector, kind) {
                arrived = arrived | kind.into();
            }
        }
        if !arrived.is_empty() {
            let dir = open.dir.clone();
            let look = open
                .look(OPEN_DEADLINE, "looking for what was moved here", move || Ok(Arriving::moved(&dir)));
            let moved = look.await?.get(&sector).copied().unwrap_or_default();
            for (types, primary) in by_copy_kind(arrived, &open.stanza, moved) {
                self.index.declare(id, sector, types, CopyKind::from(primary)).await?;
            }
        }
        Ok(())
    }

    /// Those of a sector's files of which the disk says that they are not there, though nobody makes or deletes them now: one
    /// that does not say is no reason.
    async fn gone(&self, id: &StorageId, dir: &Path, sector: SectorId, types: FileTypes) -> FileTypes {
        let mut gone = FileTypes::NONE;
        for kind in types.iter().filter(|kind| !self.is_made(id, sector, *kind)) {
            if self.is_gone(&layout::file(dir, sector, kind)).await.is_ok_and(|gone| gone) {
                gone = gone | kind.into();
            }
        }
        gone
    }
}
