//! A sector's files wherever they are: what is not in this process's paths is fetched from whoever holds it.
//!
//! A move is: fetch, verify, sync, declare here as primary, then ask the source to delete exactly the file that was
//! copied, keeping the path it now lies in. Whatever fails before that leaves the source as it was, and a move that was cut
//! off after the declaration is finished by the next wish for the file.

mod bring;
mod debts;
mod into_path;
mod removal;
mod unsealed;
mod vanilla;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use sealtasks::{
    AcquireMode, FetchVerb, FileTypes, FsStat, PathType, SectorRef, SectorStorageInfo, StorageId,
    TransferLimits, TransferView,
};
use tokio::sync::Mutex as AsyncMutex;

use crate::error::StoreError;
use crate::fetch::{Fetcher, TransferMeter};
use crate::index::Index;
use crate::limits::KeptLimits;
use crate::local::{Acquired, Local};
use crate::peer::{Peer, nobody};
use crate::peer_tokens::{OneToken, PeerTokens, TokenUse};
use crate::space::FileKey;
use crate::traffic::Traffic;
use crate::wire::FsStatJson;

pub use unsealed::UnsealedPiece;
pub use vanilla::{CopyOutcome, ProvenCopy};

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
    pub(crate) kept_limits: AsyncMutex<KeptLimits>,
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
            kept_limits: AsyncMutex::default(),
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

    /// Changes what downloads may use until the process ends, running ones included. Values out of bounds are brought within
    /// them; what holds from now on is returned.
    pub fn set_limits(&self, limits: TransferLimits) -> TransferLimits {
        self.fetcher.traffic.set_limits(limits)
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
