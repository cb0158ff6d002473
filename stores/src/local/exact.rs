//! Deleting exactly the file that was copied: the end of a move between Sealyards. What was written at its place since
//! then stays, and so does every other copy.

use std::path::Path;

use sealtasks::{FileType, SectorId, StorageId};

use super::removal::Doomed;
use super::{Local, chain};
use crate::disk;
use crate::error::StoreError;
use crate::identity::look;
use crate::index::CopyKind;
use crate::layout;
use crate::space::FileKey;

/// What lies in the open paths of a file of which one state is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The very state, in this path.
    Same(StorageId),
    /// Other states only.
    Other,
    /// Nothing.
    Nothing,
}

impl Local {
    /// Looks for the state `etag` of a file in all open paths but those in `keep`, whatever the index says of them.
    ///
    /// # Errors
    /// When a path cannot be looked at.
    pub(crate) async fn find_exactly(
        &self,
        sector: SectorId,
        kind: FileType,
        etag: &str,
        keep: &[StorageId],
    ) -> Result<Found, StoreError> {
        let places: Vec<_> = self.paths().into_iter().filter(|path| !keep.contains(&path.id)).collect();
        let etag = etag.to_owned();
        blocking(move || {
            let mut found = Found::Nothing;
            for path in places {
                let file = layout::file(&path.dir, sector, kind);
                if !file.exists() {
                    continue;
                }
                if look(&file)?.etag == etag {
                    return Ok(Found::Same(path.id));
                }
                found = Found::Other;
            }
            Ok(found)
        })
        .await
    }

    /// Deletes the copy in one path if it is still in the state `etag`, whether or not the index lists it.
    ///
    /// # Errors
    /// [`StoreError::LastCopy`] when no other primary copy is known, [`StoreError::Changed`] when it is another file by
    /// now; nothing was deleted then.
    pub(crate) async fn remove_exactly(
        &self,
        sector: SectorId,
        kind: FileType,
        id: &StorageId,
        etag: &str,
    ) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.holders_of(sector, kind).await?;
        let listed =
            holders.iter().find(|holder| holder.id == *id).map(|holder| CopyKind::from(holder.primary));
        let path = self.path(id)?;
        // Unlisted: it is matched as closely as a primary one.
        let copy = listed.unwrap_or(CopyKind::Primary);
        let doomed = [Doomed { id: id.clone(), path, copy }];
        self.check_survivor(sector, kind, &doomed).await?;
        let _leaving = self.leaving(sector, kind, &doomed);
        if listed.is_some() {
            self.index.drop_files(id, sector, kind.into()).await?;
            if let Err(error) = self.check_survivor(sector, kind, &doomed).await {
                self.list_again(id, (sector, kind), listed).await?;
                return Err(error);
            }
        }
        // As with every deletion: what takes long, or hangs, keeps no other one waiting.
        drop(turn);
        let [Doomed { path, .. }] = doomed;
        let (file, aside) = (layout::file(&path.dir, sector, kind), layout::leaving(&path.dir, sector, kind));
        let (gone, wanted, kept, of) = (file.clone(), etag.to_owned(), self.kept.clone(), id.clone());
        let deleted = blocking(move || {
            delete_if_same(&gone, &aside, &wanted)?;
            kept.forget(&of, sector, kind);
            Ok(())
        })
        .await;
        path.space.touched();
        if let Err(error) = deleted {
            if file.exists() {
                self.list_again(id, (sector, kind), listed).await?;
            }
            return Err(error);
        }
        tracing::info!(%sector, %kind, path = %id, "deleted after it was moved away");
        Ok(())
    }

    async fn list_again(
        &self,
        id: &StorageId,
        (sector, kind): FileKey,
        listed: Option<CopyKind>,
    ) -> Result<(), StoreError> {
        match listed {
            Some(copy) => Ok(self.index.declare(id, sector, kind.into(), copy).await?),
            None => Ok(()),
        }
    }
}

/// Renames the file out of sight first, where nobody opens it by its name any more, and looks at it there.
fn delete_if_same(file: &Path, aside: &Path, etag: &str) -> Result<(), StoreError> {
    if let Some(dir) = aside.parent() {
        disk::create_dir(dir)?;
    }
    match std::fs::rename(file, aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(StoreError::io("set aside", file))?,
    }
    let same = look(aside).map(|content| content.etag == etag);
    if matches!(same, Ok(true)) {
        disk::sync_parent(file)?;
        return disk::remove(aside);
    }
    if let Err(error) = std::fs::rename(aside, file) {
        tracing::error!(path = ?file, ?aside, %error, "a file that was set aside could not be put back");
    }
    if let Err(error) = same {
        tracing::warn!(path = ?file, error = chain(&error), "not deleted: it cannot be looked at");
        return Err(error);
    }
    Err(StoreError::Changed { url: file.display().to_string() })
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "deleting a moved file" }))
}
