//! Moving a sector's files from sealing to storage paths within this process.
//!
//! At every moment the index shows at least one place where the file truly is: the destination is declared before the
//! source is dropped. On the same file system a move is one rename; else the file is copied, synced, compared by
//! names and lengths, and only then deleted at its source.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sealtasks::{FileType, FileTypes, PathType, SectorRef, SpaceTable, StorageId};

use super::{Local, OpenPath};
use crate::disk;
use crate::error::StoreError;
use crate::index::CopyKind;
use crate::layout;

impl Local {
    /// Moves files to a storage path. A file that lies in one already stays where it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when a file is not in a path of this process, and whatever the disk, the room or the
    /// index refuses; the file then still lies at its source.
    pub async fn move_storage(&self, sector: SectorRef, types: FileTypes) -> Result<(), StoreError> {
        for kind in types.iter() {
            let found = self.file_path(sector.id, kind).await?;
            let (from, source) = found.ok_or(StoreError::NotFound { sector: sector.id, kind })?;
            let from_path = self.path(&from)?;
            if from_path.stanza.can_store {
                continue;
            }
            let place = self.acquire(sector, FileTypes::NONE, kind.into(), PathType::Storage).await?;
            let Some((to, target)) = place.ids.get(&kind).zip(place.files.0.get(&kind)) else {
                return Err(StoreError::NoPath { sector: sector.id, kind, path_type: PathType::Storage });
            };
            if *to != from {
                let step =
                    Relocation { sector, kind, from, from_path, to: to.clone(), to_path: self.path(to)? };
                self.relocate(step, source, target.clone()).await?;
            }
        }
        Ok(())
    }

    async fn relocate(&self, step: Relocation, source: PathBuf, target: PathBuf) -> Result<(), StoreError> {
        let (sector, kind) = (step.sector, step.kind);
        if same_file_system(&source, &step.to_path.dir) {
            match self.relocate_by_rename(&step, &source, &target).await {
                // Bind mounts of one file system: the same device, yet no rename across them.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {}
                done => return done,
            }
        }
        let ids = [(kind, step.to.clone())].into();
        let _room = self.reserve(sector, kind.into(), &ids, SpaceTable::Finalized).await?;
        let arriving = layout::arriving(&step.to_path.dir, sector.id, kind);
        let job = move || copy_into_place(&source, &arriving, &target);
        tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "copying" }))?;
        step.to_path.space.touched();
        self.index.declare(&step.to, sector.id, kind.into(), CopyKind::Primary).await?;
        self.remove_at(sector.id, kind, &step.from).await
    }

    async fn relocate_by_rename(
        &self,
        step: &Relocation,
        source: &Path,
        target: &Path,
    ) -> Result<(), StoreError> {
        let (sector, kind) = (step.sector.id, step.kind);
        self.index.declare(&step.to, sector, kind.into(), CopyKind::Primary).await?;
        let (from, to) = (source.to_owned(), target.to_owned());
        let job = move || rename_durably(&from, &to);
        let renamed =
            tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "renaming" }));
        step.from_path.space.touched();
        step.to_path.space.touched();
        if let Err(error) = renamed {
            if !target.exists() {
                self.index.drop_files(&step.to, sector, kind.into()).await?;
            }
            return Err(error);
        }
        Ok(self.index.drop_files(&step.from, sector, kind.into()).await?)
    }
}

/// One file on its way from one open path to another.
struct Relocation {
    sector: SectorRef,
    kind: FileType,
    from: StorageId,
    from_path: OpenPath,
    to: StorageId,
    to_path: OpenPath,
}

fn same_file_system(file: &Path, dir: &Path) -> bool {
    matches!((fs::metadata(file), fs::metadata(dir)), (Ok(one), Ok(other)) if one.dev() == other.dev())
}

fn rename_durably(from: &Path, to: &Path) -> Result<(), StoreError> {
    // A rename would silently replace a file of the same name that nobody declared.
    if to.exists() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(StoreError::Io { action: "move a sector file to", path: to.to_owned(), source });
    }
    fs::rename(from, to).map_err(StoreError::io("move a sector file to", to))?;
    disk::sync_parent(to)?;
    disk::sync_parent(from)
}

fn copy_into_place(source: &Path, arriving: &Path, target: &Path) -> Result<(), StoreError> {
    if let Some(dir) = arriving.parent() {
        disk::create_dir(dir)?;
    }
    disk::remove(arriving)?;
    let copied = disk::copy_synced(source, arriving).and_then(|()| {
        if disk::same_shape(source, arriving)? {
            rename_durably(arriving, target)
        } else {
            Err(StoreError::Archive { reason: format!("{source:?} changed while it was copied") })
        }
    });
    if copied.is_err() {
        disk::discard(arriving);
    }
    copied
}
