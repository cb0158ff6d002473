//! Deleting sector files from the open paths. The last primary copy of a file is never deleted without a permit.
//!
//! Order: drop from the index, ask the index again whether a primary copy survives, rename out of sight, delete. Two
//! processes that each count on the other's copy both find none after their drops, and both keep theirs.
//!
//! A surviving copy in a path of ours is looked at: it must have what would be deleted, by names and lengths, and be another
//! file than that, not another name of it. One elsewhere is only declared here; who deletes because of such a one has it
//! asked first (see `survivor`).

use std::path::{Path, PathBuf};

use sealtasks::{FileType, SectorId, SectorStorageInfo, StorageId};
use tokio::sync::MutexGuard;

use super::{Local, Making, OPEN_DEADLINE, OpenPath, on_thread};
use crate::disk;
use crate::error::StoreError;
use crate::index::CopyKind;
use crate::kept::KeptFile;
use crate::layout;
use crate::members::Manifest;
use crate::sent::Sent;

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
        let turn = self.removing.lock().await;
        let holders = self.holders_of(sector, kind).await?;
        let doomed = self.open_among(&holders, |holder| !keep.contains(&holder.id));
        self.remove_guarded(sector, kind, doomed, turn).await
    }

    /// Deletes the copies in these paths and no others: those of which a check has said that they may go.
    pub(crate) async fn remove_these(
        &self,
        sector: SectorId,
        kind: FileType,
        checked: &[StorageId],
    ) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        let doomed = self.open_among(&holders, |holder| checked.contains(&holder.id));
        self.remove_guarded(sector, kind, doomed, turn).await
    }

    /// Deletes this process's secondary copies of a file, if a primary one is known somewhere.
    ///
    /// # Errors
    /// When the index or the disk refuses. No primary copy is no error: everything then stays.
    pub async fn remove_copies(&self, sector: SectorId, kind: FileType) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        if !holders.iter().any(|holder| holder.primary) {
            return Ok(());
        }
        let doomed = self.open_among(&holders, |holder| !holder.primary);
        self.remove_guarded(sector, kind, doomed, turn).await
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
        self.remove_by_permit(sector, kind, permit, |_| true).await
    }

    /// Deletes the copy in this path, the last one included. None there is no error.
    pub(crate) async fn remove_permitted(
        &self,
        sector: SectorId,
        kind: FileType,
        path: &StorageId,
        permit: &DeletePermit,
    ) -> Result<(), StoreError> {
        self.remove_by_permit(sector, kind, permit, |holder| holder.id == *path).await
    }

    async fn remove_by_permit(
        &self,
        sector: SectorId,
        kind: FileType,
        permit: &DeletePermit,
        pick: impl Fn(&SectorStorageInfo) -> bool,
    ) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        let doomed = self.open_among(&holders, pick);
        let _leaving = self.leaving(sector, kind, &doomed);
        for one in &doomed {
            tracing::info!(%sector, %kind, path = %one.id, reason = permit.reason, "deleting by permit");
        }
        self.drop_all(sector, kind, &doomed).await?;
        drop(turn);
        self.delete_all(sector, kind, &doomed).await
    }

    pub(super) async fn remove_at(
        &self,
        sector: SectorId,
        kind: FileType,
        id: &StorageId,
    ) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.holders_of(sector, kind).await?;
        let doomed = self.open_among(&holders, |holder| holder.id == *id);
        self.remove_guarded(sector, kind, doomed, turn).await
    }

    async fn remove_guarded(
        &self,
        sector: SectorId,
        kind: FileType,
        doomed: Vec<Doomed>,
        turn: MutexGuard<'_, ()>,
    ) -> Result<(), StoreError> {
        if doomed.is_empty() {
            return Ok(());
        }
        self.check_survivor(sector, kind, &doomed).await?;
        let _leaving = self.leaving(sector, kind, &doomed);
        self.drop_all(sector, kind, &doomed).await?;
        if let Err(error) = self.check_survivor(sector, kind, &doomed).await {
            for one in &doomed {
                self.index.declare(&one.id, sector, kind.into(), one.copy).await?;
            }
            return Err(error);
        }
        // Nobody counts on them any more: a disk that takes long, or hangs, must not keep other deletions waiting.
        drop(turn);
        self.delete_all(sector, kind, &doomed).await
    }

    /// Takes them out of the index, all or none: what is neither listed nor deleted would be lost to view.
    async fn drop_all(&self, sector: SectorId, kind: FileType, doomed: &[Doomed]) -> Result<(), StoreError> {
        for (count, one) in doomed.iter().enumerate() {
            if let Err(error) = self.index.drop_files(&one.id, sector, kind.into()).await {
                for back in &doomed[..count] {
                    self.index.declare(&back.id, sector, kind.into(), back.copy).await?;
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// No scan declares them while they go.
    pub(super) fn leaving(&self, sector: SectorId, kind: FileType, doomed: &[Doomed]) -> Making {
        let files: Vec<_> = doomed.iter().map(|one| (kind, one.id.clone())).collect();
        self.making(sector, &files)
    }

    /// Deletes what was dropped. All are tried; the first refusal is returned.
    async fn delete_all(
        &self,
        sector: SectorId,
        kind: FileType,
        doomed: &[Doomed],
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        for one in doomed {
            result = result.and(self.delete_dropped(sector, kind, one).await);
        }
        result
    }

    /// A primary copy outside `doomed` must be known, and if it is in a path of ours it must truly be there.
    pub(super) async fn check_survivor(
        &self,
        sector: SectorId,
        kind: FileType,
        doomed: &[Doomed],
    ) -> Result<(), StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        let stays =
            |holder: &&SectorStorageInfo| holder.primary && !doomed.iter().any(|one| one.id == holder.id);
        let going: Vec<_> =
            doomed.iter().map(|one| (layout::file(&one.path.dir, sector, kind), one.copy)).collect();
        let mut why =
            "no primary copy in another path is known, and without a permit the last one is never deleted"
                .to_owned();
        for holder in holders.iter().filter(stays) {
            let Ok(dir) = self.dir(&holder.id) else { return Ok(()) };
            let (file, going) = (layout::file(&dir, sector, kind), going.clone());
            let look = on_thread("looking at a copy", move || stands_for(&file, &going));
            match look.within(OPEN_DEADLINE, &dir).await {
                Ok(None) => return Ok(()),
                Ok(Some(wrong)) => why = format!("the copy in path {} {wrong}", holder.id),
                Err(error) => {
                    why = format!(
                        "the copy in path {} could not be checked: {}",
                        holder.id,
                        super::chain(&error)
                    );
                }
            }
        }
        Err(StoreError::LastCopy { sector, kind, why })
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
            let (file, kept, id) = (file.clone(), self.kept.clone(), doomed.id.clone());
            move || {
                set_aside_and_delete(&file, &aside)?;
                kept.forget(&id, sector, kind);
                Ok(())
            }
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
        tracing::info!(%sector, %kind, path = %doomed.id, "deleted");
        Ok(())
    }

    /// Files here that peers asked to be deleted and that were kept, with the reason of each.
    pub fn kept_files(&self) -> Vec<KeptFile> {
        self.kept.list()
    }

    /// A peer's wish to delete this file was not obeyed.
    pub(crate) async fn note_kept(&self, file: KeptFile) {
        let kept = self.kept.clone();
        // Nothing hangs on it but what an operator is told.
        let _ = tokio::task::spawn_blocking(move || kept.note(file)).await;
    }

    /// Directories that were sent whole.
    pub(crate) const fn sent(&self) -> &Sent {
        &self.sent
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

pub(super) struct Doomed {
    pub(super) id: StorageId,
    pub(super) path: OpenPath,
    pub(super) copy: CopyKind,
}

/// Why a copy does not make up for those that are to go; `None` = it does. What is not on disk any more needs none.
pub(super) fn stands_for(
    survivor: &Path,
    going: &[(PathBuf, CopyKind)],
) -> Result<Option<&'static str>, StoreError> {
    if !survivor.exists() {
        return Ok(Some("is not on disk"));
    }
    let there: Manifest = disk::shape(survivor)?.into_iter().collect();
    for (file, copy) in going {
        if !file.try_exists().map_err(StoreError::io("look at", file))? {
            continue;
        }
        if disk::shares_files(survivor, file)? {
            return Ok(Some("is the same file under another name"));
        }
        if !there.makes_up_for(&disk::shape(file)?.into_iter().collect(), *copy) {
            return Ok(Some("differs in names or lengths"));
        }
    }
    Ok(None)
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
