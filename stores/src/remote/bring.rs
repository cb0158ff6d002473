//! Bringing one file here: the place it arrives in, whom to ask first, and what remains to be done of a move.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::{HeaderName, HeaderValue};
use sealtasks::{AcquireMode, FetchVerb, FileType, SectorId, SectorRef, SectorStorageInfo, StorageId};
use tokio::sync::OwnedMutexGuard;

use super::Remote;
use super::debts::Settled;
use crate::content::EXACTLY_HEADER;
use crate::crash::crash_point;
use crate::error::StoreError;
use crate::fetch::arriving::{Arrived, Arriving};
use crate::fetch::{Origin, Target, TransferMeter, on_thread};
use crate::index::CopyKind;
use crate::layout;
use crate::space::FileKey;

impl Remote {
    /// Fetches one file unless somebody else in this process did so meanwhile. Returns whether this call fetched it.
    pub(super) async fn bring(
        &self,
        sector: SectorRef,
        kind: FileType,
        place: &StorageId,
        mode: AcquireMode,
        meter: &TransferMeter,
    ) -> Result<(StorageId, PathBuf, bool), StoreError> {
        let turn = self.turn(sector.id, kind).await;
        let result = match self.local.file_path(sector.id, kind).await {
            Ok(Some((id, file))) => Ok((id, file, false)),
            Ok(None) => {
                let path = self.local.dir(place);
                let target = path.map(|path| Target {
                    sector,
                    kind,
                    path,
                    moves: mode == AcquireMode::Move,
                    rehearses: self.local.rehearses(),
                });
                match target {
                    Ok(target) => self.fetch_and_take((target, Arc::clone(&turn)), place, mode, meter).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        drop(turn);
        self.forget_turns();
        result
    }

    /// Does what a move that was cut off had still to do for a file that the index knows here: delete its source, before
    /// anyone changes this copy or takes the other one for the file.
    pub(super) async fn finish(
        &self,
        sector: SectorId,
        kind: FileType,
        id: &StorageId,
    ) -> Result<(), StoreError> {
        let path = self.local.dir(id)?;
        let place = layout::arriving(&path, sector, kind);
        let at = place.clone();
        // A mount that hangs must keep neither this caller nor the others.
        if !self.local.look(&at, "looking for what a move left", move || Ok(place.is_dir())).await? {
            return Ok(());
        }
        let (holders, of) = (self.index.find(sector, kind.into(), None).await?, id.clone());
        let turn = self.turn(sector, kind).await;
        let (dir, held) = (path, Arc::clone(&turn));
        let left = self.local.look(&at, "looking at what a move left", move || {
            let left = Arriving::left(&dir, sector, kind)?.map(|left| left.in_turn(held));
            let noted = left.as_ref().and_then(Arriving::arrived).filter(|noted| noted.moves);
            // What has become less here by a task owes as long as the other one counts, where that is compared before it goes:
            // a Lotus deletes what may be the last one.
            let owes = |place: &Arriving, noted: &Arrived| {
                let counts = noted.etag.is_some() && !place.data().exists();
                place.still_holds(noted) || (counts && both_count(&holders, &of, noted))
            };
            Ok(left.map(|place| (noted.filter(|noted| owes(&place, noted)), Arc::new(place))))
        });
        let result = match left.await {
            Ok(Some((Some(arrived), place))) => self.take_over(id, &arrived, &place, AcquireMode::Move).await,
            // The file is here in another way: what is left of a fetch is of no use to anyone.
            Ok(Some((None, place))) => discard(place).await,
            // Another process is at work on it.
            Ok(None) | Err(StoreError::Arriving { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        drop(turn);
        self.forget_turns();
        result
    }

    pub(super) async fn turn(&self, sector: SectorId, kind: FileType) -> Arc<OwnedMutexGuard<()>> {
        let gate = Arc::clone(self.turns().entry((sector, kind)).or_default());
        Arc::new(gate.lock_owned().await)
    }

    /// Gates are kept while others wait for them: each of those holds a clone.
    pub(super) fn forget_turns(&self) {
        self.turns().retain(|_, gate| Arc::strong_count(gate) > 1);
    }

    async fn fetch_and_take(
        &self,
        (target, turn): (Target, Arc<OwnedMutexGuard<()>>),
        place: &StorageId,
        mode: AcquireMode,
        meter: &TransferMeter,
    ) -> Result<(StorageId, PathBuf, bool), StoreError> {
        let (sector, kind) = (target.sector, target.kind);
        let file = layout::file(&target.path, sector.id, kind);
        let path = target.path.clone();
        let arriving = on_thread(move || {
            let place = Arriving::claim(&path, sector.id, kind)?;
            Ok(Arc::new(place.in_turn(turn)))
        })
        .await?;
        // What an earlier life had brought whole, but told nobody of, is worth what its source says of it now.
        let left = Arc::clone(&arriving);
        let was_whole = on_thread(move || {
            left.take_back()?;
            Ok(left.arrived().is_some())
        })
        .await?;
        let arrived = match self.fetch_anywhere(&target, place, &arriving, meter).await {
            Ok(arrived) => arrived,
            Err(error) => {
                if was_whole {
                    on_thread(move || arriving.give_back()).await?;
                } else if !can_go_on(&error) || arriving.plan().is_none() {
                    discard(arriving).await?;
                }
                return Err(error);
            }
        };
        let placed = Arc::clone(&arriving);
        on_thread(move || placed.put_in_place()).await?;
        crash_point("worker.fetch.placed");
        self.local.touched(place);
        self.take_over(place, &arrived, &arriving, mode).await?;
        Ok((place.clone(), file, true))
    }

    /// Declares a file that is in its place, and with a move deletes its source.
    async fn take_over(
        &self,
        id: &StorageId,
        arrived: &Arrived,
        arriving: &Arc<Arriving>,
        mode: AcquireMode,
    ) -> Result<(), StoreError> {
        let (sector, kind) = arriving.file();
        let copy = match mode {
            AcquireMode::Move => CopyKind::Primary,
            AcquireMode::Copy => CopyKind::Secondary,
        };
        self.index.declare_made(id, sector, kind.into(), copy).await?;
        if mode == AcquireMode::Move && !arrived.declared {
            // From here on this copy is the file, even if the index forgets, and the deletion is owed.
            let owed = Arrived { moves: true, declared: true, ..arrived.clone() };
            let place = Arc::clone(arriving);
            on_thread(move || place.set_arrived(&owed)).await?;
            crash_point("worker.fetch.owed");
        }
        if mode == AcquireMode::Move
            && self.delete_source(id, arrived, (sector, kind), true).await? != Settled::Done
        {
            // The note stays: the deletion is asked for again.
            let place = Arc::clone(arriving);
            return on_thread(move || place.keep_note()).await;
        }
        if mode == AcquireMode::Move {
            crash_point("worker.fetch.settled");
        }
        discard(Arc::clone(arriving)).await
    }

    /// Asks the source of a move to delete exactly the file that was copied, by each of its holder's URLs. One that is
    /// still there afterwards no longer counts, which is told once: later nobody's attempt stands behind it, and a plain drop
    /// would take the mark of an older copy away.
    pub(super) async fn delete_source(
        &self,
        id: &StorageId,
        arrived: &Arrived,
        file: FileKey,
        tells: bool,
    ) -> Result<Settled, StoreError> {
        let (sector, kind) = file;
        let holder = arrived.holder.parse().map_err(StoreError::Id)?;
        let mut urls = vec![arrived.url.clone()];
        let holders = self.index.find(sector, kind.into(), None).await?;
        let known = holders.iter().filter(|one| one.id == holder).flat_map(|one| &one.urls);
        urls.extend(known.filter(|url| **url != arrived.url).cloned());
        let header = arrived.etag.as_deref().and_then(|etag| HeaderValue::try_from(etag).ok());
        let header = header.map(|etag| (HeaderName::from_static(EXACTLY_HEADER), etag));
        let mut settled = Settled::Away;
        for url in urls {
            let url = format!("{url}?keep={id}");
            let deleted = match self.token_for((&holder, &url), file, FetchVerb::Delete).await {
                Ok(token) => {
                    self.delete_with(&url, &token, header.clone()).await.map_err(|error| (error, true))
                }
                Err(error) => Err((error, false)),
            };
            let Err((error, asked)) = deleted else { return Ok(Settled::Done) };
            let text = crate::local::chain(&error);
            tracing::warn!(%sector, %kind, url, error = text, "moved, but the source was not deleted");
            match error {
                // Nobody to ask. Whoever gets no token has lost the task to a later attempt, whose file this may be.
                _ if !asked => return Ok(Settled::Refused),
                // Whoever has written there since knows which of the two counts; until he says so it is owed.
                StoreError::PeerAnswer { status: 412, .. } if header.is_some() => {
                    let both = both_count(&holders, id, arrived);
                    return Ok(if both { Settled::Refused } else { Settled::Done });
                }
                // The path is served elsewhere by now, or nowhere.
                StoreError::PeerAnswer { status: 403, .. } => {
                    settled = Settled::Refused;
                    continue;
                }
                // A Lotus has no exact deletion: it is asked no second time.
                StoreError::PeerAnswer { .. } if header.is_none() => settled = Settled::Done,
                StoreError::PeerAnswer { .. } => settled = Settled::Refused,
                _ => continue,
            }
            break;
        }
        // It must not be taken for the file once this copy has changed.
        if tells {
            self.drop_elsewhere(&holder, sector, kind).await?;
        }
        Ok(settled)
    }

    /// Tries every URL of every holder: primary copies first, since another one may be older, then what an earlier fetch
    /// began, then by what each host has been seen to bring, then by weight.
    async fn fetch_anywhere(
        &self,
        target: &Target,
        place: &StorageId,
        arriving: &Arc<Arriving>,
        meter: &TransferMeter,
    ) -> Result<Arrived, StoreError> {
        let (sector, kind) = (target.sector.id, target.kind);
        let traffic = &self.fetcher.traffic;
        let mut transfer = traffic.begin(sector, kind, place.clone(), target.path.clone());
        transfer.wait_turn().await;
        let mut last = StoreError::NotFound { sector, kind };
        let mut tried = 0;
        for (id, url) in self.candidates(target, arriving).await? {
            tried += 1;
            let (began, before) = (Instant::now(), meter.bytes());
            let fetched = match self.token_for((&id, &url), (sector, kind), FetchVerb::Get).await {
                Ok(token) => {
                    let origin = Origin { holder: id.as_str(), url: &url, token: &token };
                    self.fetcher.fetch(origin, target, arriving, meter, &transfer.progress()).await
                }
                Err(error) => Err(error),
            };
            match fetched {
                Ok(arrived) => {
                    traffic.learn(&url, meter.bytes().saturating_sub(before), began.elapsed());
                    tracing::info!(%sector, %kind, url, "fetched");
                    return Ok(arrived);
                }
                // Our own disk: the next peer would fare no better.
                Err(error @ StoreError::Io { .. }) => return Err(error),
                Err(error) => {
                    traffic.blame(&url);
                    tracing::warn!(%sector, %kind, url, error = crate::local::chain(&error), "fetch failed");
                    last = error;
                }
            }
        }
        match last {
            StoreError::NotFound { .. } if tried == 0 => Err(last),
            last => Err(StoreError::FetchFailed { sector, kind, tried, source: Box::new(last) }),
        }
    }

    async fn candidates(
        &self,
        target: &Target,
        arriving: &Arc<Arriving>,
    ) -> Result<Vec<(StorageId, String)>, StoreError> {
        let holders = self.index.find(target.sector.id, target.kind.into(), None).await?;
        let begun = arriving.plan().map(|plan| plan.holder);
        let mut candidates = Vec::new();
        for holder in self.elsewhere(&holders) {
            let begun = begun.as_deref() == Some(holder.id.as_str());
            for url in &holder.urls {
                let rank = (holder.primary, begun, self.fetcher.traffic.expected(url), holder.weight);
                candidates.push((rank, holder.id.clone(), url.clone()));
            }
        }
        candidates.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        Ok(candidates.into_iter().map(|(_, id, url)| (id, url)).collect())
    }
}

/// Whether what came so far is worth keeping for another try: it is unless the data or our own disk are bad.
fn can_go_on(error: &StoreError) -> bool {
    match error {
        StoreError::FetchFailed { source, .. } => can_go_on(source),
        StoreError::Io { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Archive { .. }
        | StoreError::Length { .. } => false,
        _ => true,
    }
}

/// Whether the copy in the path `id` and the one that it was moved from are both listed as primary: then the other's deletion
/// is owed, whatever else has happened.
pub(super) fn both_count(holders: &[SectorStorageInfo], id: &StorageId, noted: &Arrived) -> bool {
    let counts = |path: &str| holders.iter().any(|one| one.primary && one.id.as_str() == path);
    noted.holder != id.as_str() && counts(id.as_str()) && counts(&noted.holder)
}

pub(super) async fn discard(place: Arc<Arriving>) -> Result<(), StoreError> {
    on_thread(move || {
        place.discard();
        Ok(())
    })
    .await
}
