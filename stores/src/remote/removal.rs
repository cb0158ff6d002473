//! Deleting a sector's file here and elsewhere: who is asked, in which order, and what must be known before.
//!
//! A Sealyard that is asked for a deletion looks for another copy before it obeys. A Lotus obeys at once: whoever asks it has
//! looked before. Never: asks for more than one path's copy with a permit.

use std::path::PathBuf;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use sealtasks::{FetchVerb, FileType, FileTypes, SectorId, SectorStorageInfo, StorageId};

use super::Remote;
use crate::error::StoreError;
use crate::index::{CopyKind, IndexError};
use crate::local::{DeletePermit, chain};
use crate::peer::Peer;
use crate::serve::survivor::{self, Asker, Deletion};
use crate::serve::{PATH_HEADER, PERMIT_HEADER};
use crate::space::FileKey;

/// A permit's reason travels in a header, cut to this many characters.
const REASON_MAX: usize = 200;

impl Remote {
    /// Deletes all copies of a file except those in the paths `keep`, one of which must hold a primary copy. A peer
    /// that does not obey is logged, and so is a copy of a Lotus's that none to be kept was found to make up for.
    ///
    /// # Errors
    /// [`StoreError::LastCopy`] when nothing primary would be kept, and this process's own failures.
    pub async fn remove(
        &self,
        sector: SectorId,
        kind: FileType,
        keep: &[StorageId],
    ) -> Result<(), StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        if !holders.iter().any(|holder| holder.primary && keep.contains(&holder.id)) {
            let why = "none of the paths to keep holds a primary copy, and without a permit one must remain";
            return Err(StoreError::LastCopy { sector, kind, why: why.to_owned() });
        }
        self.remove_here(sector, kind, keep).await?;
        for holder in self.elsewhere(&holders).filter(|holder| !keep.contains(&holder.id)) {
            self.ask_to_delete_copy((sector, kind), holder, keep).await;
        }
        Ok(())
    }

    /// Deletes our copies of a file outside the paths `keep`, once another one was looked at, or its holder asked for it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when no copy is known anywhere, [`StoreError::LastCopy`] when no whole primary copy could be
    /// shown for one of ours, which all stay then and are listed; else what the index or the disk refuses.
    pub async fn remove_here(
        &self,
        sector: SectorId,
        kind: FileType,
        keep: &[StorageId],
    ) -> Result<(), StoreError> {
        let checked = survivor::check(&self.asker(), Deletion { sector, kind, keep }).await?;
        self.local.remove_these(sector, kind, &checked).await
    }

    /// Deletes secondary copies everywhere, where a primary one is known. A peer that does not obey is logged; so is a
    /// copy here beside which no whole primary one could be shown, which stays and is listed.
    ///
    /// # Errors
    /// When the index or this process's own disk refuses.
    pub async fn remove_copies(&self, sector: SectorId, types: FileTypes) -> Result<(), StoreError> {
        for kind in types.iter() {
            let holders = self.index.find(sector, kind.into(), None).await?;
            let primary: Vec<_> =
                holders.iter().filter(|one| one.primary).map(|one| one.id.clone()).collect();
            if primary.is_empty() {
                continue;
            }
            match self.remove_here(sector, kind, &primary).await {
                Err(error @ StoreError::LastCopy { .. }) => {
                    tracing::warn!(%sector, %kind, error = chain(&error), "a copy is kept");
                }
                done => done?,
            }
            for holder in self.elsewhere(&holders).filter(|holder| !holder.primary) {
                self.ask_to_delete_copy((sector, kind), holder, &primary).await;
            }
        }
        Ok(())
    }

    /// Deletes every copy of a file, the last one included, and those that are listed nowhere because they are older.
    ///
    /// # Errors
    /// The last failure of this process or of a peer; all are tried. An older copy that a peer keeps is only logged: nobody is
    /// told of it.
    pub async fn remove_all(
        &self,
        sector: SectorId,
        kind: FileType,
        permit: &DeletePermit,
    ) -> Result<(), StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        let older = self.index.older(sector, kind).await?;
        let mut result = self.local.remove_all(sector, kind, permit).await;
        for holder in self.elsewhere(&holders) {
            if let Some(error) = self.ask_by_permit((sector, kind), holder, permit).await {
                result = Err(error);
            }
        }
        for holder in self.elsewhere(&older) {
            self.ask_by_permit((sector, kind), holder, permit).await;
        }
        result
    }

    /// Deletes every copy of a file but the one in path `kept`, which becomes the primary one. What turns out to be that very
    /// file under another name stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the index does not list that one; otherwise the last failure of this process or of a
    /// peer; all are tried.
    pub async fn keep_only(
        &self,
        sector: SectorId,
        kind: FileType,
        kept: &StorageId,
    ) -> Result<(), StoreError> {
        let mut holders = self.index.find(sector, kind.into(), None).await?;
        if !holders.iter().any(|holder| holder.id == *kept) {
            return Err(StoreError::NotFound { sector, kind });
        }
        holders.retain(|holder| holder.id != *kept);
        if holders.is_empty() {
            return Ok(());
        }
        self.index.declare(kept, sector, kind.into(), CopyKind::Primary).await?;
        let keep = std::slice::from_ref(kept);
        let mut result = match self.remove_here(sector, kind, keep).await {
            Err(error @ StoreError::LastCopy { .. }) => {
                tracing::warn!(%sector, %kind, error = chain(&error), "a copy is kept");
                Ok(())
            }
            done => done,
        };
        for holder in self.elsewhere(&holders) {
            // A process deletes the copies in all of its paths at once.
            let still = self.index.find(sector, kind.into(), None).await?;
            if !still.iter().any(|one| one.id == holder.id) {
                continue;
            }
            if let Some(error) = self.ask_to_delete_copy((sector, kind), holder, keep).await {
                result = Err(error);
            }
        }
        result
    }

    /// Deletes every copy of a file that is about to be made anew. A peer that does not obey is logged, and its copy is
    /// taken out of the index, so that nobody finds the old file in place of the new one.
    ///
    /// # Errors
    /// When nobody gives a token for it, and when the index or this process's own disk refuses.
    pub async fn discard_all(
        &self,
        sector: SectorId,
        kind: FileType,
        permit: &DeletePermit,
    ) -> Result<(), StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        for holder in self.elsewhere(&holders) {
            for url in &holder.urls {
                // Whoever gets no token any more has lost the task to a later attempt, whose files these may be.
                self.token_for((&holder.id, url), (sector, kind), FetchVerb::Remove).await?;
            }
        }
        self.local.remove_all(sector, kind, permit).await?;
        for holder in self.elsewhere(&holders) {
            if self.ask_by_permit((sector, kind), holder, permit).await.is_some() {
                self.drop_elsewhere(&holder.id, sector, kind).await?;
            }
        }
        Ok(())
    }

    fn asker(&self) -> Asker<'_> {
        Asker { local: &self.local, peer: &self.fetcher.peer, tokens: &*self.tokens }
    }

    /// Which primary copy makes up for `entry`, a `copy` that lies in the open path `id` and is not listed there.
    pub(crate) async fn check_entry(
        &self,
        file: FileKey,
        id: &StorageId,
        entry: PathBuf,
        copy: CopyKind,
    ) -> Result<Option<StorageId>, StoreError> {
        survivor::check_entry(&self.asker(), file, id, (entry, copy)).await
    }

    /// Asks a holder to delete its copy, if that loses nothing beside those in the paths `keep`; otherwise why not, logged.
    async fn ask_to_delete_copy(
        &self,
        file: FileKey,
        holder: &SectorStorageInfo,
        keep: &[StorageId],
    ) -> Option<StoreError> {
        let (sector, kind) = file;
        if let Err(error) = survivor::check_elsewhere(&self.asker(), file, holder, keep).await {
            tracing::warn!(%sector, %kind, path = %holder.id, error = chain(&error), "a peer's copy is kept");
            return Some(error);
        }
        let mut others = keep.to_vec();
        match self.index.find(sector, kind.into(), None).await {
            Ok(holders) => others.extend(holders.into_iter().map(|one| one.id)),
            Err(error) => return Some(error.into()),
        }
        others.sort();
        others.dedup();
        // One path's copy is meant, whatever else that process has.
        let keep: Vec<&str> = others.iter().filter(|id| **id != holder.id).map(StorageId::as_str).collect();
        self.ask_each(file, holder, &format!("?keep={}", keep.join(".")), None).await
    }

    /// Asks a holder to delete its copy in the path that is named, the last one though it may be.
    async fn ask_by_permit(
        &self,
        file: FileKey,
        holder: &SectorStorageInfo,
        permit: &DeletePermit,
    ) -> Option<StoreError> {
        self.ask_each(file, holder, "", Some(permit)).await
    }

    /// Tries the holder's URLs until one obeys; otherwise the last failure, logged.
    async fn ask_each(
        &self,
        file: FileKey,
        holder: &SectorStorageInfo,
        query: &str,
        permit: Option<&DeletePermit>,
    ) -> Option<StoreError> {
        let mut last = None;
        for url in &holder.urls {
            match self.delete_at((&holder.id, &format!("{url}{query}")), file, permit).await {
                Ok(()) => return None,
                Err(error) => {
                    tracing::warn!(url, error = chain(&error), "a peer did not delete a file");
                    last = Some(error);
                }
            }
        }
        last
    }

    /// Takes a peer's copy, which does not count any more, out of the index; the file itself stays where it is.
    pub(super) async fn drop_elsewhere(
        &self,
        id: &StorageId,
        sector: SectorId,
        kind: FileType,
    ) -> Result<(), StoreError> {
        match self.index.supersede(id, sector, kind.into()).await {
            // Detached meanwhile, and its files with it.
            Err(IndexError::UnknownStorage { .. }) => Ok(()),
            done => Ok(done?),
        }
    }

    async fn delete_at(
        &self,
        (path, url): (&StorageId, &str),
        file: FileKey,
        permit: Option<&DeletePermit>,
    ) -> Result<(), StoreError> {
        let verb = if permit.is_some() { FetchVerb::Remove } else { FetchVerb::Delete };
        let token = self.token_for((path, url), file, verb).await?;
        let headers = permit.map(|permit| permit_headers(permit, path)).into_iter().flatten();
        self.delete_with(url, &token, headers).await
    }

    pub(super) async fn delete_with(
        &self,
        url: &str,
        token: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<(), StoreError> {
        let answer = self.fetcher.peer.ask(Method::DELETE, url, token, headers).await?;
        Peer::expect(url, answer, StatusCode::OK).await?;
        Ok(())
    }
}

/// Why, and in which path.
fn permit_headers(permit: &DeletePermit, path: &StorageId) -> [(HeaderName, HeaderValue); 2] {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let text: String = permit.reason.chars().take(REASON_MAX).map(plain).collect();
    let value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("permitted"));
    // An id that fits no header names no path: then nothing is deleted there.
    let path = HeaderValue::try_from(path.as_str()).unwrap_or(HeaderValue::from_static(""));
    [(HeaderName::from_static(PERMIT_HEADER), value), (HeaderName::from_static(PATH_HEADER), path)]
}
