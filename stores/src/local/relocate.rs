//! Moving a sector's files from sealing to storage paths within this process.
//!
//! At every moment the index shows at least one place where the file truly is: the destination is declared before the
//! source is dropped. On the same file system a move is one rename; else the file is copied, synced, read back from the
//! disk, compared by BLAKE3 with what was read of the source, and only then deleted at its source.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sealtasks::{
    FileType, FileTypes, PathType, SectorId, SectorRef, SectorStorageInfo, SpaceTable, StorageId,
};

use super::{Local, OPEN_DEADLINE, OpenPath};
use crate::copied::copy_synced;
use crate::crash::crash_point;
use crate::disk;
use crate::error::StoreError;
use crate::fetch::arriving::Arriving;
use crate::index::CopyKind;
use crate::layout;
use crate::members::Manifest;

impl Local {
    /// Moves files to a storage path. A file that lies in one already stays where it is; what a move that was cut off
    /// left behind of it in sealing paths goes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when a file is not in a path of this process, and whatever the disk, the room or the
    /// index refuses; the file then still lies at its source.
    pub async fn move_storage(&self, sector: SectorRef, types: FileTypes) -> Result<(), StoreError> {
        for kind in types.iter() {
            if self.is_stored(sector, kind).await? {
                continue;
            }
            let found = self.best_copy_here(sector.id, kind).await?;
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
                let (to_path, holders) = (self.path(to)?, self.holders_of(sector.id, kind).await?);
                let place = Place {
                    target: target.clone(),
                    aside: layout::replaced(&to_path.dir, sector.id, kind),
                    holds_copy: holders.iter().any(|holder| holder.id == *to),
                };
                let step = Relocation { sector, kind, from, from_path, to: to.clone(), to_path };
                self.relocate(step, source, place).await?;
            }
        }
        Ok(())
    }

    /// Where the file truly lies here, a primary copy before any other. A move that was cut off before its last step has
    /// declared a place to which nothing came.
    async fn best_copy_here(
        &self,
        sector: SectorId,
        kind: FileType,
    ) -> Result<Option<(StorageId, PathBuf)>, StoreError> {
        let mut holders = self.index.find(sector, kind.into(), None).await?;
        holders.sort_by_key(|holder| !holder.primary);
        for holder in holders {
            let Ok(dir) = self.dir(&holder.id) else { continue };
            let file = layout::file(&dir, sector, kind);
            if self.exists(&file).await? {
                return Ok(Some((holder.id, file)));
            }
        }
        Ok(None)
    }

    /// Whether the primary copy truly lies in a storage path here. Then a move has been done, if not to its last step: a
    /// source that still counts is deleted, and one that is gone dropped from the index. Other copies are left alone.
    async fn is_stored(&self, sector: SectorRef, kind: FileType) -> Result<bool, StoreError> {
        let holders = self.holders_of(sector.id, kind).await?;
        let here = |holder: &SectorStorageInfo| {
            let path = self.path(&holder.id).ok()?;
            Some((holder.id.clone(), layout::file(&path.dir, sector.id, kind), path.stanza.can_store))
        };
        let (stored, sources): (Vec<_>, Vec<_>) = holders
            .iter()
            .filter(|one| one.primary)
            .filter_map(here)
            .partition(|(_, _, can_store)| *can_store);
        let mut found = None;
        for (stored, file, _) in stored {
            if self.exists(&file).await? {
                found = Some((stored, file));
                break;
            }
        }
        let Some((stored, file)) = found else { return Ok(false) };
        for (id, source, _) in sources {
            if !self.exists(&source).await? {
                self.index.drop_files(&id, sector.id, kind.into()).await?;
            } else if same_bytes(source, file.clone()).await? {
                self.remove_at(sector.id, kind, &id).await?;
            } else {
                let why = format!(
                    "the primary copies in paths {stored} and {id} differ in names, lengths or bytes"
                );
                return Err(StoreError::LastCopy { sector: sector.id, kind, why });
            }
        }
        Ok(true)
    }

    /// Whether the path `to` is open here and takes such a file for sealing or for storing.
    pub(crate) fn check_suits(
        &self,
        sector: SectorId,
        kind: FileType,
        to: &StorageId,
    ) -> Result<(), StoreError> {
        let path = self.path(to)?;
        let suits = [PathType::Sealing, PathType::Storage].iter().any(|use_| path.suits(sector, kind, *use_));
        if suits {
            Ok(())
        } else {
            Err(StoreError::Unsuited { sector, kind, id: to.clone(), path: path.dir })
        }
    }

    /// The space table that holds for files of the path `to`.
    pub(crate) fn table_of(&self, to: &StorageId) -> Result<SpaceTable, StoreError> {
        let can_store = self.path(to)?.stanza.can_store;
        Ok(if can_store { SpaceTable::Finalized } else { SpaceTable::Sealing })
    }

    /// Moves a file from another open path into `to`, if the copy that counts lies in one, or in `to` already. False:
    /// it must come from elsewhere.
    pub(crate) async fn relocate_into(
        &self,
        sector: SectorRef,
        kind: FileType,
        to: &StorageId,
    ) -> Result<bool, StoreError> {
        let holders = self.holders_of(sector.id, kind).await?;
        let any_primary = holders.iter().any(|holder| holder.primary);
        let counts = |holder: &&SectorStorageInfo| holder.primary || !any_primary;
        let to_path = self.path(to)?;
        let target = layout::file(&to_path.dir, sector.id, kind);
        if holders.iter().filter(counts).any(|holder| holder.id == *to) && self.exists(&target).await? {
            return Ok(true);
        }
        for holder in holders.iter().filter(counts).filter(|holder| holder.id != *to) {
            let Ok(from_path) = self.path(&holder.id) else { continue };
            let source = layout::file(&from_path.dir, sector.id, kind);
            if !self.exists(&source).await? {
                continue;
            }
            let aside = layout::replaced(&to_path.dir, sector.id, kind);
            let holds_copy = holders.iter().any(|one| one.id == *to);
            let place = Place { target, aside, holds_copy };
            let from = holder.id.clone();
            let step = Relocation { sector, kind, from, from_path, to: to.clone(), to_path };
            return self.relocate(step, source, place).await.map(|()| true);
        }
        Ok(false)
    }

    async fn relocate(&self, step: Relocation, source: PathBuf, place: Place) -> Result<(), StoreError> {
        let (sector, kind) = (step.sector, step.kind);
        // Asked before anything is declared there.
        let (wanted, from, dir) = (place.clone(), source.clone(), step.to_path.dir.clone());
        let look = move || wanted.check(&from).map(|()| same_file_system(&from, &dir));
        // Should the source hang, that is found here, and not held against the path that it is to go to.
        self.exists(&source).await?;
        if step.to_path.look(OPEN_DEADLINE, "looking at a file to be moved", look).await? {
            match self.relocate_by_rename(&step, &source, &place).await {
                // Bind mounts of one file system: the same device, yet no rename across them.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {}
                done => return done,
            }
        }
        let ids = [(kind, step.to.clone())].into();
        let _room = self.reserve(sector, kind.into(), &ids, SpaceTable::Finalized).await?;
        let dir = step.to_path.dir.clone();
        let job = move || {
            let arriving = Arriving::claim(&dir, sector.id, kind)?;
            let copied = copy_into_place(&source, &arriving, &place);
            arriving.discard();
            copied
        };
        tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "copying" }))?;
        step.to_path.space.touched();
        self.index.declare_made(&step.to, sector.id, kind.into(), CopyKind::Primary).await?;
        self.remove_at(sector.id, kind, &step.from).await
    }

    async fn relocate_by_rename(
        &self,
        step: &Relocation,
        source: &Path,
        place: &Place,
    ) -> Result<(), StoreError> {
        let (sector, kind) = (step.sector.id, step.kind);
        self.index.declare_made(&step.to, sector, kind.into(), CopyKind::Primary).await?;
        crash_point("worker.move.declared");
        let (from, to) = (source.to_owned(), place.clone());
        let job = move || move_durably(&from, &to, &from);
        let renamed =
            tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "renaming" }));
        step.from_path.space.touched();
        step.to_path.space.touched();
        if let Err(error) = renamed {
            if !self.exists(&place.target).await? {
                self.index.drop_files(&step.to, sector, kind.into()).await?;
            }
            return Err(error);
        }
        // Whoever looked for missing files before it came has dropped it from the index.
        self.index.declare_made(&step.to, sector, kind.into(), CopyKind::Primary).await?;
        crash_point("worker.move.renamed");
        let _turn = self.removing.lock().await;
        self.departures.note(&step.from, sector, kind);
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

/// Whether what a move that was cut off has left at its source is what lies in the place that it was moved to.
async fn same_bytes(source: PathBuf, file: PathBuf) -> Result<bool, StoreError> {
    let compare = move || disk::same_bytes(&source, &file);
    tokio::task::spawn_blocking(compare)
        .await
        .unwrap_or(Err(StoreError::Lost { what: "comparing two copies" }))
}

/// A link is on no file system but its target's, and would point elsewhere from another directory: what it leads to is
/// copied.
fn same_file_system(file: &Path, dir: &Path) -> bool {
    matches!(
        (fs::symlink_metadata(file), fs::metadata(dir)),
        (Ok(one), Ok(other)) if !one.is_symlink() && one.dev() == other.dev()
    )
}

/// Where a file goes, and what may be replaced there.
#[derive(Clone)]
struct Place {
    target: PathBuf,
    /// Where what is replaced lies until it is deleted, or for good.
    aside: PathBuf,
    /// The index knows a copy there, which is not the one that counts.
    holds_copy: bool,
}

impl Place {
    /// An undeclared file there is replaced only if it looks like `source`: then an earlier move had copied it, and was
    /// cut off before it told the index.
    fn check(&self, source: &Path) -> Result<(), StoreError> {
        let taken = |source: io::Error| {
            Err(StoreError::Io { action: "move a sector file to", path: self.target.clone(), source })
        };
        if !self.target.exists() {
            return Ok(());
        }
        if disk::shares_files(source, &self.target)? {
            return taken(io::Error::other(format!("it is {source:?} under another name")));
        }
        if self.holds_copy || disk::same_shape(source, &self.target)? {
            return Ok(());
        }
        taken(io::ErrorKind::AlreadyExists.into())
    }

    /// What was replaced goes if the index knew it as a copy that does not count and nothing of it is missing now, or if it is
    /// the same byte by byte.
    fn tidy(&self) {
        if (self.holds_copy && self.makes_up_for_aside().unwrap_or(false))
            || disk::same_bytes(&self.target, &self.aside).unwrap_or(false)
        {
            tracing::warn!(path = ?self.target, "an earlier copy was replaced by the moved file");
            disk::discard(&self.aside);
        } else {
            tracing::warn!(path = ?self.target, aside = ?self.aside, "another file lay in the place of the moved one; it was set aside");
        }
    }

    fn makes_up_for_aside(&self) -> Result<bool, StoreError> {
        let files = |path| Ok::<Manifest, StoreError>(disk::shape(path)?.into_iter().collect());
        Ok(files(&self.target)?.makes_up_for(&files(&self.aside)?, CopyKind::Secondary))
    }
}

/// Moves `from`, which is `source` or a copy of it.
fn move_durably(from: &Path, place: &Place, source: &Path) -> Result<(), StoreError> {
    place.check(source)?;
    if disk::put_in_place(from, &place.target, &place.aside)? {
        place.tidy();
    }
    disk::sync_parent(from)
}

fn copy_into_place(source: &Path, arriving: &Arriving, place: &Place) -> Result<(), StoreError> {
    arriving.clear()?;
    copy_synced(source, &arriving.data())?.check()?;
    move_durably(&arriving.data(), place, source)
}
