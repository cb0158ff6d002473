//! A sector's files wherever they are: what is not in this process's paths is fetched from whoever holds it.
//!
//! A move is: fetch, verify, sync, declare here as primary, then ask the source to delete exactly the file that was
//! copied, keeping the path it now lies in. Whatever fails before that leaves the source as it was, and a move that was cut
//! off after the declaration is finished by the next wish for the file.

mod bring;
mod debts;
mod into_path;
mod unsealed;
mod vanilla;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use sealtasks::{
    AcquireMode, FetchVerb, FileType, FileTypes, FsStat, PathType, SectorId, SectorRef, SectorStorageInfo,
    StorageId, TransferChange, TransferLimits, TransferReport, TransferView,
};
use tokio::sync::Mutex as AsyncMutex;

use crate::error::StoreError;
use crate::fetch::{Fetcher, TransferMeter};
use crate::index::{CopyKind, Index, IndexError};
use crate::local::{Acquired, DeletePermit, Local};
use crate::peer::{Peer, nobody};
use crate::peer_tokens::{OneToken, PeerTokens, TokenUse};
use crate::serve::PERMIT_HEADER;
use crate::serve::survivor::{self, Asker, Deletion};
use crate::space::FileKey;
use crate::traffic::Traffic;
use crate::wire::FsStatJson;

pub use unsealed::UnsealedPiece;
pub use vanilla::{CopyOutcome, ProvenCopy};

/// A permit's reason travels in a header, cut to this many characters.
const REASON_MAX: usize = 200;

/// How a [`Remote`] fetches.
#[derive(Clone)]
pub struct FetchOptions {
    /// The token shown to peers, unless [`Remote::with_tokens`] says otherwise; needs permission `admin` there.
    pub token: String,
    /// Downloads at once; at least 1.
    pub parallel: usize,
}

/// Local paths first, then everyone else's.
pub struct Remote {
    local: Arc<Local>,
    index: Arc<dyn Index>,
    tokens: Arc<dyn PeerTokens>,
    fetcher: Fetcher,
    turns: Mutex<HashMap<FileKey, Arc<AsyncMutex<()>>>>,
}

impl Remote {
    /// Fetches into the paths of `local`.
    pub fn new(local: Arc<Local>, index: Arc<dyn Index>, options: FetchOptions) -> Self {
        let limits = TransferLimits { parallel: options.parallel, ..TransferLimits::default() };
        Self {
            local,
            index,
            tokens: Arc::new(OneToken(options.token)),
            fetcher: Fetcher { peer: Peer::new(nobody()), traffic: Traffic::new(limits) },
            turns: Mutex::default(),
        }
    }

    /// Shows peers the tokens that `tokens` gives for each use, instead of the one in [`FetchOptions`].
    #[must_use]
    pub fn with_tokens(mut self, tokens: Arc<dyn PeerTokens>) -> Self {
        self.tokens = tokens;
        self
    }

    /// Believes the certificates of https peers that `tls` believes; without this, none.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.fetcher.peer = Peer::new(tls);
        self
    }

    /// The token for one use.
    async fn token_for(
        &self,
        (path, url): (&StorageId, &str),
        (sector, kind): FileKey,
        verb: FetchVerb,
    ) -> Result<String, StoreError> {
        let given = self.tokens.token(TokenUse { url, path, sector, kind, verb }).await;
        given.map_err(|source| StoreError::Transport { url: url.to_owned(), source })
    }

    /// The open paths behind it.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Downloads as they are now, in the order in which they were asked for.
    pub fn transfers(&self) -> Vec<TransferView> {
        self.fetcher.traffic.views()
    }

    /// What downloads may use.
    pub fn limits(&self) -> TransferLimits {
        self.fetcher.traffic.limits()
    }

    /// Changes what downloads may use, running ones included. Values out of bounds are brought within them; what holds
    /// from now on is returned.
    pub fn set_limits(&self, limits: TransferLimits) -> TransferLimits {
        self.fetcher.traffic.set_limits(limits)
    }

    /// Changes what `change` names of the limits, and tells what holds and what runs.
    pub fn change_limits(&self, change: TransferChange) -> TransferReport {
        let limits = match change.is_empty() {
            true => self.limits(),
            false => self.set_limits(self.limits().changed(change)),
        };
        TransferReport { limits, transfers: self.transfers() }
    }

    /// As [`Local::acquire`], and `existing` files that are not here are fetched: with [`AcquireMode::Move`] the copy
    /// here becomes the primary one and its source is deleted, with [`AcquireMode::Copy`] the source stays.
    /// Bytes received are counted in `meter`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a file that nobody holds, [`StoreError::FetchFailed`] when every holder failed,
    /// [`StoreError::NoSpace`] when the files do not fit; files that did arrive stay and are declared.
    #[expect(clippy::too_many_arguments, reason = "Lotus's AcquireSector, whose parts callers know by name")]
    pub async fn acquire(
        &self,
        sector: SectorRef,
        existing: FileTypes,
        allocate: FileTypes,
        path_type: PathType,
        mode: AcquireMode,
        meter: &TransferMeter,
    ) -> Result<Acquired, StoreError> {
        let mut acquired = self.local.acquire(sector, existing, allocate, path_type).await?;
        let missing = existing.difference(acquired.types());
        for (kind, id) in acquired.ids.iter().filter(|(kind, _)| existing.contains(**kind)) {
            match self.finish(sector.id, *kind, id).await {
                // Whoever has the file to himself need not wait for a source that is away.
                Err(error) if mode == AcquireMode::Copy => {
                    let error = crate::local::chain(&error);
                    tracing::warn!(sector = %sector.id, %kind, error, "an earlier move is not finished yet");
                }
                done => done?,
            }
        }
        if missing.is_empty() {
            return Ok(acquired);
        }
        for kind in missing.iter() {
            if self.index.find(sector.id, kind.into(), None).await?.is_empty() {
                return Err(StoreError::NotFound { sector: sector.id, kind });
            }
        }
        let places = self.places_for(sector, missing, path_type).await?;
        let _room = self.local.reserve(sector, missing, &places.ids, path_type.space_table()).await?;
        let fetches = places.ids.iter().map(|(kind, id)| self.bring(sector, *kind, id, mode, meter));
        // All of them are waited for: a failed one must not cut the others off halfway.
        for (kind, brought) in places.ids.keys().zip(join_all(fetches).await) {
            let (id, file, fetched) = brought?;
            acquired.insert(*kind, id, file);
            if fetched {
                acquired.fetched = acquired.fetched | (*kind).into();
            }
        }
        Ok(acquired)
    }

    /// Where missing files are fetched to: on with an earlier fetch, else to the best path.
    async fn places_for(
        &self,
        sector: SectorRef,
        missing: FileTypes,
        path_type: PathType,
    ) -> Result<Acquired, StoreError> {
        let mut begun = Acquired::default();
        for kind in missing.iter() {
            if let Some((id, file)) = self.local.begun(sector.id, kind, path_type).await {
                begun.insert(kind, id, file);
            }
        }
        let rest = missing.difference(begun.types());
        let mut places = self.local.acquire(sector, FileTypes::NONE, rest, path_type).await?;
        for (kind, id) in begun.ids {
            let file = begun.files.0.remove(&kind).unwrap_or_default();
            places.insert(kind, id, file);
        }
        Ok(places)
    }

    /// Brings files to a storage path of this process: fetches what lies elsewhere, moves what lies in sealing paths.
    ///
    /// # Errors
    /// As [`Remote::acquire`] and [`Local::move_storage`].
    pub async fn move_storage(
        &self,
        sector: SectorRef,
        types: FileTypes,
        meter: &TransferMeter,
    ) -> Result<(), StoreError> {
        self.acquire(sector, types, FileTypes::NONE, PathType::Storage, AcquireMode::Move, meter).await?;
        self.local.move_storage(sector, types).await
    }

    /// Deletes all copies of a file except those in the paths `keep`, one of which must hold a primary copy. A peer
    /// that does not obey is logged.
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
            self.ask_to_delete((sector, kind), holder, keep, None).await;
        }
        Ok(())
    }

    /// Deletes our copies of a file outside the paths `keep`, once another one was looked at, or its holder asked for it.
    async fn remove_here(
        &self,
        sector: SectorId,
        kind: FileType,
        keep: &[StorageId],
    ) -> Result<(), StoreError> {
        let checked = survivor::check(&self.asker(), Deletion { sector, kind, keep }).await?;
        self.local.remove_these(sector, kind, &checked).await
    }

    fn asker(&self) -> Asker<'_> {
        Asker { local: &self.local, peer: &self.fetcher.peer, tokens: &*self.tokens }
    }

    /// Whether a file of the open path `id` that the index does not list there has a whole primary twin.
    pub(crate) async fn check_unlisted(
        &self,
        sector: SectorId,
        kind: FileType,
        id: &StorageId,
    ) -> Result<(), StoreError> {
        survivor::check_unlisted(&self.asker(), sector, kind, id).await
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
                    tracing::warn!(%sector, %kind, error = crate::local::chain(&error), "a copy is kept");
                }
                done => done?,
            }
            for holder in self.elsewhere(&holders).filter(|holder| !holder.primary) {
                self.ask_to_delete((sector, kind), holder, &primary, None).await;
            }
        }
        Ok(())
    }

    /// Deletes every copy of a file, the last one included.
    ///
    /// # Errors
    /// The last failure of this process or of a peer; all are tried.
    pub async fn remove_all(
        &self,
        sector: SectorId,
        kind: FileType,
        permit: &DeletePermit,
    ) -> Result<(), StoreError> {
        let holders = self.index.find(sector, kind.into(), None).await?;
        let mut result = self.local.remove_all(sector, kind, permit).await;
        for holder in self.elsewhere(&holders) {
            if let Some(error) = self.ask_to_delete((sector, kind), holder, &[], Some(permit)).await {
                result = Err(error);
            }
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
                tracing::warn!(%sector, %kind, error = sealtasks::chain(&error), "a copy is kept");
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
            if let Some(error) = self.ask_to_delete((sector, kind), holder, keep, None).await {
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
            if self.ask_to_delete((sector, kind), holder, &[], Some(permit)).await.is_some() {
                self.drop_elsewhere(&holder.id, sector, kind).await?;
            }
        }
        Ok(())
    }

    /// How full a path is, here or elsewhere.
    ///
    /// # Errors
    /// When the path is unknown or nobody who serves it answers.
    pub async fn fs_stat(&self, id: &StorageId) -> Result<FsStat, StoreError> {
        match self.local.stat(id).await {
            Err(StoreError::NotOpen { .. }) => {}
            done => return done,
        }
        let mut last = StoreError::NotOpen { id: id.clone() };
        for base in self.index.info(id).await?.urls {
            match self.stat_at(id, &base).await {
                Err(error) => last = error,
                done => return done,
            }
        }
        Err(last)
    }

    /// The paths that this process serves itself.
    pub(crate) fn open_paths(&self) -> Vec<StorageId> {
        self.local.paths().into_iter().map(|path| path.id).collect()
    }

    /// How full a path is, as whoever serves it at `base` says.
    pub(crate) async fn stat_at(&self, id: &StorageId, base: &str) -> Result<FsStat, StoreError> {
        let url = &*format!("{}/stat/{id}", base.trim_end_matches('/'));
        let given = self.tokens.stat_token(url, id).await;
        let token = given.map_err(|source| StoreError::Transport { url: url.to_owned(), source })?;
        let answer = self.fetcher.peer.ask(Method::GET, url, &token, None).await?;
        let body = Peer::small_body(url, Peer::expect(url, answer, StatusCode::OK).await?).await?;
        let stat: FsStatJson = serde_json::from_slice(&body).map_err(|error| StoreError::PeerAnswer {
            url: url.to_owned(),
            status: 200,
            text: format!("not the JSON of a storage path's state: {error}"),
        })?;
        Ok(stat.into())
    }

    /// Tries the holder's URLs until one obeys; otherwise the last failure, logged.
    async fn ask_to_delete(
        &self,
        file: FileKey,
        holder: &SectorStorageInfo,
        keep: &[StorageId],
        permit: Option<&DeletePermit>,
    ) -> Option<StoreError> {
        let keep: Vec<&str> = keep.iter().map(StorageId::as_str).collect();
        let query = if keep.is_empty() { String::new() } else { format!("?keep={}", keep.join(".")) };
        let mut last = None;
        for url in &holder.urls {
            match self.delete_at((&holder.id, &format!("{url}{query}")), file, permit).await {
                Ok(()) => return None,
                Err(error) => {
                    tracing::warn!(url, error = crate::local::chain(&error), "a peer did not delete a file");
                    last = Some(error);
                }
            }
        }
        last
    }

    /// Takes a peer's copy out of the index; the file itself stays where it is.
    async fn drop_elsewhere(
        &self,
        id: &StorageId,
        sector: SectorId,
        kind: FileType,
    ) -> Result<(), StoreError> {
        match self.index.drop_files(id, sector, kind.into()).await {
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
        self.delete_with(url, &token, permit.map(permit_header)).await
    }

    async fn delete_with(
        &self,
        url: &str,
        token: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<(), StoreError> {
        let answer = self.fetcher.peer.ask(Method::DELETE, url, token, header).await?;
        Peer::expect(url, answer, StatusCode::OK).await?;
        Ok(())
    }

    /// Holders that are not open here. A path on a shared mount is local even if another process declared it.
    fn elsewhere<'a>(&self, holders: &'a [SectorStorageInfo]) -> impl Iterator<Item = &'a SectorStorageInfo> {
        let here: BTreeMap<StorageId, ()> =
            self.local.paths().into_iter().map(|path| (path.id, ())).collect();
        holders.iter().filter(move |holder| !here.contains_key(&holder.id))
    }

    fn turns(&self) -> std::sync::MutexGuard<'_, HashMap<FileKey, Arc<AsyncMutex<()>>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn permit_header(permit: &DeletePermit) -> (HeaderName, HeaderValue) {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let text: String = permit.reason.chars().take(REASON_MAX).map(plain).collect();
    let value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("permitted"));
    (HeaderName::from_static(PERMIT_HEADER), value)
}
