//! Deleting sector files from the open paths. The last primary copy of a file is never deleted without a permit.
//!
//! Order: drop from the index, ask the index again whether a primary copy survives, rename out of sight, delete. Two
//! processes that each count on the other's copy both find none after their drops, and both keep theirs.

use std::path::Path;

use sealtasks::{FileType, SectorId, SectorStorageInfo, StorageId};

use super::{Local, OpenPath};
use crate::disk;
use crate::error::StoreError;
use crate::index::CopyKind;
use crate::kept::KeptFile;
use crate::layout;

/// Leave to delete the last copy of a file. Whoever makes one has decided it durably beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletePermit {
    /// Why the file is no longer needed; goes to the log of every machine that deletes.
    pub reason: String,
}

impl Local {
    /// Deletes this process's copies of a file, except those in the paths `keep`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when no copy is known anywhere, [`StoreError::LastCopy`] when no primary copy would be
    /// left; then nothing was deleted.
    pub async fn remove(
        &self,
        sector: SectorId,
        kind: FileType,
        keep: &[StorageId],
    ) -> Result<(), StoreError> {
        let _turn = self.removing.lock().await;
        let holders = self.holders_of(sector, kind).await?;
        let doomed = self.open_among(&holders, |holder| !keep.contains(&holder.id));
        self.remove_guarded(sector, kind, doomed).await
    }

    /// Deletes this process's secondary copies of a file, if a primary one is known somewhere.
    ///
    /// # Errors
    /// When the index or the disk refuses. No primary copy is no error: everything then stays.
    pub async fn remove_copies(&self, sector: SectorId, kind: FileType) -> Result<(), StoreError> {
        let _turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        if !holders.iter().any(|holder| holder.primary) {
            return Ok(());
        }
        let doomed = self.open_among(&holders, |holder| !holder.primary);
        self.remove_guarded(sector, kind, doomed).await
    }

    /// Deletes all of this process's copies of a file, the last one included. No copy here is no error.
    ///
    /// # Errors
    /// When the index or the disk refuses.
    pub async fn remove_all(
        &self,
        sector: SectorId,
        kind: FileType,
        permit: &DeletePermit,
    ) -> Result<(), StoreError> {
        let _turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        for doomed in self.open_among(&holders, |_| true) {
            tracing::info!(%sector, %kind, path = %doomed.id, reason = permit.reason, "deleting by permit");
            self.index.drop_files(&doomed.id, sector, kind.into()).await?;
            self.delete_dropped(sector, kind, &doomed).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_at(
        &self,
        sector: SectorId,
        kind: FileType,
        id: &StorageId,
    ) -> Result<(), StoreError> {
        let _turn = self.removing.lock().await;
        let holders = self.holders_of(sector, kind).await?;
        let doomed = self.open_among(&holders, |holder| holder.id == *id);
        self.remove_guarded(sector, kind, doomed).await
    }

    async fn remove_guarded(
        &self,
        sector: SectorId,
        kind: FileType,
        doomed: Vec<Doomed>,
    ) -> Result<(), StoreError> {
        if doomed.is_empty() {
            return Ok(());
        }
        self.check_survivor(sector, kind, &doomed).await?;
        for one in &doomed {
            self.index.drop_files(&one.id, sector, kind.into()).await?;
        }
        if let Err(error) = self.check_survivor(sector, kind, &doomed).await {
            for one in &doomed {
                self.index.declare(&one.id, sector, kind.into(), one.copy).await?;
            }
            return Err(error);
        }
        for one in &doomed {
            self.delete_dropped(sector, kind, one).await?;
        }
        Ok(())
    }

    /// A primary copy outside `doomed` must be known, and if it is in a path of ours it must truly be there.
    async fn check_survivor(
        &self,
        sector: SectorId,
        kind: FileType,
        doomed: &[Doomed],
    ) -> Result<(), StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        let survives = |holder: &SectorStorageInfo| {
            let stays = holder.primary && !doomed.iter().any(|one| one.id == holder.id);
            let open = self.table().get(&holder.id).map(|path| layout::file(&path.dir, sector, kind));
            stays && open.is_none_or(|file| file.exists())
        };
        if holders.iter().any(survives) {
            return Ok(());
        }
        let why =
            "no primary copy in another path is known, and without a permit the last one is never deleted";
        Err(StoreError::LastCopy { sector, kind, why: why.to_owned() })
    }

    /// Deletes a file that the index no longer lists. If the disk refuses, it is listed again.
    async fn delete_dropped(
        &self,
        sector: SectorId,
        kind: FileType,
        doomed: &Doomed,
    ) -> Result<(), StoreError> {
        let dir = &doomed.path.dir;
        let (file, aside) = (layout::file(dir, sector, kind), layout::leaving(dir, sector, kind));
        let job = {
            let file = file.clone();
            move || set_aside_and_delete(&file, &aside)
        };
        let result =
            tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "deleting" }));
        doomed.path.space.touched();
        if let Err(error) = result {
            if file.exists() {
                self.index.declare(&doomed.id, sector, kind.into(), doomed.copy).await?;
            }
            return Err(error);
        }
        self.kept.forget(&doomed.id, sector, kind);
        tracing::info!(%sector, %kind, path = %doomed.id, "deleted");
        Ok(())
    }

    /// Files here that peers asked to be deleted and that were kept, with the reason of each.
    pub fn kept_files(&self) -> Vec<KeptFile> {
        self.kept.list()
    }

    /// A peer's wish to delete this file was not obeyed.
    pub(crate) fn note_kept(&self, file: KeptFile) {
        self.kept.note(file);
    }

    /// Every path that holds the file, here and elsewhere; none is an error.
    pub(crate) async fn holders_of(
        &self,
        sector: SectorId,
        kind: FileType,
    ) -> Result<Vec<SectorStorageInfo>, StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        if holders.is_empty() { Err(StoreError::NotFound { sector, kind }) } else { Ok(holders) }
    }

    fn open_among(
        &self,
        holders: &[SectorStorageInfo],
        pick: impl Fn(&SectorStorageInfo) -> bool,
    ) -> Vec<Doomed> {
        let table = self.table();
        let doomed = |holder: &SectorStorageInfo| {
            let path = table.get(&holder.id)?.clone();
            Some(Doomed { id: holder.id.clone(), path, copy: CopyKind::from(holder.primary) })
        };
        holders.iter().filter(|holder| pick(holder)).filter_map(doomed).collect()
    }
}

struct Doomed {
    id: StorageId,
    path: OpenPath,
    copy: CopyKind,
}

/// Renames the file out of sight, then deletes it. Works on a full disk too, so that it can be emptied: where there is
/// no room for a directory to rename into, a file is unlinked and a directory renamed beside itself.
pub(super) fn set_aside_and_delete(file: &Path, aside: &Path) -> Result<(), StoreError> {
    let made = aside.parent().map_or(Ok(()), disk::create_dir);
    let aside = match made {
        Ok(()) => aside.to_owned(),
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
            if !file.is_dir() {
                disk::remove(file)?;
                return disk::sync_parent(file);
            }
            file.with_file_name(aside.file_name().unwrap_or_default())
        }
        Err(error) => return Err(error),
    };
    match std::fs::rename(file, &aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(StoreError::io("set aside", file))?,
    }
    disk::sync_parent(file)?;
    disk::remove(&aside)
}
