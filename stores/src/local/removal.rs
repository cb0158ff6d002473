//! Deleting sector files from the open paths. The last primary copy of a file is never deleted without a permit.
//!
//! Order: drop from the index, ask the index again whether a primary copy survives, rename out of sight, delete. Two
//! processes that each count on the other's copy both find none after their drops, and both keep theirs.
//!
//! A surviving copy in a path of ours is looked at: it must have what would be deleted, by names and lengths, and be another
//! file than that, not another name of it. One elsewhere counts only if its holder was asked for it (see `survivor`), and only
//! for the copy that it was compared with; the index must still call that very one primary after the drop.

use std::io;
use std::path::{Path, PathBuf};

use sealtasks::{FileType, SectorId, SectorStorageInfo, StorageId};
use tokio::sync::MutexGuard;

use super::{Local, Making, OpenPath};
use crate::crash::crash_point;
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

/// A copy here of which a check has said that it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The path it lies in.
    pub(crate) copy: StorageId,
    /// The path of the primary copy that was found to have all of it; `None` where nothing of it is on disk.
    pub(crate) twin: Option<StorageId>,
}

impl Local {
    /// Deletes this process's copies of a file, except those in the paths `keep`. A primary copy elsewhere cannot be asked for
    /// here and counts for nothing: see [`crate::Remote::remove_here`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when no copy is known anywhere, [`StoreError::LastCopy`] when no primary copy would be
    /// left in the open paths; then nothing was deleted.
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
        checked: &[Checked],
    ) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        let mut doomed = self.open_among(&holders, |holder| checked.iter().any(|one| one.copy == holder.id));
        for one in &mut doomed {
            one.twin = checked.iter().find(|found| found.copy == one.id).and_then(|found| found.twin.clone());
        }
        self.remove_guarded(sector, kind, doomed, turn).await
    }

    /// Deletes this process's secondary copies of a file, if a primary one lies in a path of it.
    ///
    /// # Errors
    /// When the index or the disk refuses, and as [`Local::remove`]. No primary copy anywhere is no error: everything then
    /// stays.
    pub async fn remove_copies(&self, sector: SectorId, kind: FileType) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        if !holders.iter().any(|holder| holder.primary) {
            return Ok(());
        }
        let doomed = self.open_among(&holders, |holder| !holder.primary);
        self.remove_guarded(sector, kind, doomed, turn).await
    }

    /// Deletes all of this process's copies of a file, the last one included, and those that are listed nowhere because they
    /// are older. No copy here is no error.
    ///
    /// # Errors
    /// When the index or the disk refuses.
    pub async fn remove_all(
        &self,
        sector: SectorId,
        kind: FileType,
        permit: &DeletePermit,
    ) -> Result<(), StoreError> {
        let older: Vec<StorageId> =
            self.index.older(sector, kind).await?.into_iter().map(|older| older.id).collect();
        self.remove_by_permit(sector, kind, permit, |_| true, &older).await
    }

    /// Deletes the copy in this path, the last one included, listed or not. None there is no error.
    pub(crate) async fn remove_permitted(
        &self,
        sector: SectorId,
        kind: FileType,
        path: &StorageId,
        permit: &DeletePermit,
    ) -> Result<(), StoreError> {
        let named = std::slice::from_ref(path);
        self.remove_by_permit(sector, kind, permit, |holder| holder.id == *path, named).await
    }

    async fn remove_by_permit(
        &self,
        sector: SectorId,
        kind: FileType,
        permit: &DeletePermit,
        pick: impl Fn(&SectorStorageInfo) -> bool,
        unlisted: &[StorageId],
    ) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        let mut doomed = self.open_among(&holders, pick);
        let is_listed = |id: &StorageId| holders.iter().any(|holder| holder.id == *id);
        // What a task is just making there is another one.
        for id in unlisted.iter().filter(|id| !is_listed(id) && !self.is_made(id, sector, kind)) {
            if let Ok(path) = self.path(id) {
                let (id, copy) = (id.clone(), CopyKind::Secondary);
                doomed.push(Doomed { id, path, copy, listed: false, twin: None });
            }
        }
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
        let doomed: Vec<&Doomed> = doomed.iter().filter(|one| one.listed).collect();
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

    /// For each of `doomed` a primary copy in another path must be known: one in a path of ours that has all of it, or the one
    /// elsewhere that it was compared with.
    pub(super) async fn check_survivor(
        &self,
        sector: SectorId,
        kind: FileType,
        doomed: &[Doomed],
    ) -> Result<(), StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        let stays =
            |holder: &&SectorStorageInfo| holder.primary && !doomed.iter().any(|one| one.id == holder.id);
        let staying: Vec<_> = holders.iter().filter(stays).collect();
        for one in doomed {
            self.check_one(sector, kind, one, &staying).await?;
        }
        Ok(())
    }

    async fn check_one(
        &self,
        sector: SectorId,
        kind: FileType,
        one: &Doomed,
        staying: &[&SectorStorageInfo],
    ) -> Result<(), StoreError> {
        let mut why =
            "no primary copy in another path is known, and without a permit the last one is never deleted"
                .to_owned();
        let going = layout::file(&one.path.dir, sector, kind);
        for holder in staying {
            let Ok(dir) = self.dir(&holder.id) else {
                // What is not on disk any more needs no other.
                if one.twin.as_ref() == Some(&holder.id) || !self.exists(&going).await? {
                    return Ok(());
                }
                why = format!("the copy in path {} was not asked for", holder.id);
                continue;
            };
            let (file, going, copy) = (layout::file(&dir, sector, kind), going.clone(), one.copy);
            let at = file.clone();
            match self.look(&at, "looking at a copy", move || stands_for(&file, &going, copy)).await {
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
        crash_point("worker.delete.dropped");
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
            if doomed.listed && self.exists(&file).await.unwrap_or(true) {
                self.index.declare(&doomed.id, sector, kind.into(), doomed.copy).await?;
            }
            return Err(error);
        }
        if !doomed.listed {
            self.forget_older(&doomed.id, sector, kind, &file).await?;
        }
        tracing::info!(%sector, %kind, path = %doomed.id, "deleted");
        Ok(())
    }

    /// What was listed nowhere and is deleted is no older copy of anything any more. What a task has made in its place
    /// meanwhile stays in the index.
    pub(super) async fn forget_older(
        &self,
        id: &StorageId,
        sector: SectorId,
        kind: FileType,
        file: &Path,
    ) -> Result<(), StoreError> {
        if self.exists(file).await.unwrap_or(true) {
            return Ok(());
        }
        Ok(self.index.drop_files(id, sector, kind.into()).await?)
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
            let (id, copy) = (holder.id.clone(), CopyKind::from(holder.primary));
            Some(Doomed { id, path, copy, listed: true, twin: None })
        };
        holders.iter().filter(|holder| pick(holder)).filter_map(doomed).collect()
    }
}

pub(super) struct Doomed {
    pub(super) id: StorageId,
    pub(super) path: OpenPath,
    pub(super) copy: CopyKind,
    /// The index names it.
    pub(super) listed: bool,
    /// The path elsewhere whose copy was found to have all of this one.
    pub(super) twin: Option<StorageId>,
}

/// Why a copy does not make up for one that is to go; `None` = it does. What is not on disk any more needs none.
pub(super) fn stands_for(
    survivor: &Path,
    going: &Path,
    copy: CopyKind,
) -> Result<Option<&'static str>, StoreError> {
    if !survivor.exists() {
        return Ok(Some("is not on disk"));
    }
    if !going.try_exists().map_err(StoreError::io("look at", going))? {
        return Ok(None);
    }
    if disk::shares_files(survivor, going)? {
        return Ok(Some("is the same file under another name"));
    }
    let there: Manifest = disk::shape(survivor)?.into_iter().collect();
    if !there.makes_up_for(&disk::shape(going)?.into_iter().collect(), copy) {
        return Ok(Some("differs in names or lengths"));
    }
    Ok(None)
}

/// Renames the file out of sight, then deletes it. Works on a full disk too, so that it can be emptied: see [`set_aside`].
pub(super) fn set_aside_and_delete(file: &Path, aside: &Path) -> Result<(), StoreError> {
    match set_aside(file, aside) {
        Ok(Some(aside)) => {
            crash_point("worker.delete.aside");
            disk::remove(&aside)
        }
        Ok(None) => Ok(()),
        // Not even for another name: a plain file goes at once or not at all.
        Err(StoreError::Io { source, .. }) if disk::is_full(&source) && !file.is_dir() => {
            disk::remove(file)?;
            disk::sync_parent(file)
        }
        Err(error) => Err(error),
    }
}

/// Renames the file out of sight, durably. Where there is no room for a directory to rename into, or for the name in it, the
/// file gets that name beside itself. Where it lies now; `None` when it was not there.
pub(super) fn set_aside(file: &Path, aside: &Path) -> Result<Option<PathBuf>, StoreError> {
    let renamed = |to: PathBuf| match std::fs::rename(file, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        renamed => renamed.map(|()| Some(to)).map_err(StoreError::io("set aside", file)),
    };
    let made = aside.parent().map_or(Ok(()), disk::create_dir);
    let renamed = match made.and_then(|()| renamed(aside.to_owned())) {
        Err(StoreError::Io { source, .. }) if disk::is_full(&source) => {
            renamed(file.with_file_name(aside.file_name().unwrap_or_default()))
        }
        renamed => renamed,
    };
    let aside = renamed?;
    if let Some(aside) = &aside {
        // Its new name before its old one is gone: whoever sets it aside may want it back.
        disk::sync_parent(aside)?;
        disk::sync_parent(file)?;
    }
    Ok(aside)
}
