//! The storage part of the API: what the index, the locks and the paths know, and orders to whoever has a path open.
//! Never: touches files itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rpc::api::ApiResult;
use rpc::storage::{
    HostTransfers, LockHolder, LockedSector, PathHost, Place, ScrubResult, SectorPlaces, StorageApi,
    StoragePathView, StoredSector,
};
use rpc::{ApiError, SectorName};
use sealtasks::{
    FileType, FileTypes, PathOrder, PathReport, SectorId, SectorRef, StorageId, StorageInfo, TransferChange,
};
use stores::{HeldFiles, LockGuard, LockOwner, LockWant, SectorLockView};

use crate::answers;
use crate::driver::Input;
use crate::service::{Service, refusal, stopping};
use crate::state::Hold;

/// Sectors that the index is asked about at once; it is locked meanwhile.
const SECTORS_AT_ONCE: usize = 1000;
/// How long the owner of a path is waited for when paths are listed; beyond, its last report is shown.
const STAT_LIMIT: Duration = Duration::from_secs(5);
/// How long the owner of a path has for a scan of it, or a look at its files: many millions of them on a slow share.
const LOOK_LIMIT: Duration = Duration::from_secs(600);

#[async_trait]
impl StorageApi for Service {
    async fn storage_paths(&self) -> ApiResult<Vec<StoragePathView>> {
        let servers = self.servers().await?;
        let views = self.0.index.paths().into_iter().map(|path| self.path_view(path, &servers));
        Ok(futures_util::future::join_all(views).await)
    }

    async fn sector_places(&self, sector: SectorName) -> ApiResult<SectorPlaces> {
        let sector = self.sector_id(sector).await?;
        let servers = self.servers().await?;
        let held = self.0.index.sector_files(sector);
        let state = self.view(move |driver| driver.state_name(sector)).await?;
        let reasons = self.view(move |driver| driver.reasons(Some(sector))).await?;
        let rows = self.0.state.tasks_of(sector).await.map_err(refusal)?;
        let under_way =
            rows.into_iter().filter(|row| row.ended_ms == 0).map(|row| answers::job(row, &reasons));
        let locks = self.0.locks.snapshot().into_iter().filter(|view| view.sector == sector);
        Ok(SectorPlaces {
            sector,
            state,
            rehearsal: self.0.rehearses(),
            conflicts: self.0.index.conflict_of(sector),
            places: held.into_iter().filter_map(|held| self.place(held, &servers)).collect(),
            under_way: under_way.collect(),
            locks: locks.flat_map(|view| holders(&view)).collect(),
            older: self.older_copies(sector).await?,
        })
    }

    async fn stored_sectors(
        &self,
        path: StorageId,
        after: Option<SectorId>,
        limit: u32,
    ) -> ApiResult<Vec<StoredSector>> {
        let files = self.0.index.path_files(&path).into_iter();
        let page: Vec<_> = files
            .filter(|(decl, _)| after.is_none_or(|after| decl.sector > after))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect();
        let states = {
            let sectors: Vec<SectorId> = page.iter().map(|(decl, _)| decl.sector).collect();
            self.view(move |driver| sectors.into_iter().map(|id| driver.state_name(id)).collect::<Vec<_>>())
                .await?
        };
        let mut elsewhere: BTreeMap<SectorId, FileTypes> = BTreeMap::new();
        let sectors: Vec<SectorId> = page.iter().map(|(decl, _)| decl.sector).collect();
        for sectors in sectors.chunks(SECTORS_AT_ONCE) {
            self.0.index.locate_many(sectors, FileTypes::ALL, |sector, place| {
                if *place.id != path {
                    let others = elsewhere.entry(sector).or_default();
                    *others = *others | place.types;
                }
            });
        }
        let stored = |((decl, primary), state): ((sealtasks::SectorDecl, FileTypes), _)| {
            let others = elsewhere.get(&decl.sector).copied().unwrap_or_default();
            let alone = decl.types.difference(others);
            StoredSector { sector: decl.sector, state, types: decl.types, primary, alone }
        };
        Ok(page.into_iter().zip(states).map(stored).collect())
    }

    async fn lock_table(&self) -> ApiResult<Vec<LockedSector>> {
        let views = self.0.locks.snapshot();
        let sectors: Vec<SectorId> = views.iter().map(|view| view.sector).collect();
        let states = self
            .view(move |driver| sectors.into_iter().map(|id| driver.state_name(id)).collect::<Vec<_>>())
            .await?;
        let locked = |(view, state): (SectorLockView, _)| LockedSector {
            sector: view.sector,
            state,
            holders: holders(&view),
            waiting: view.waiters.len() as u64,
            waiters: waiters(&view),
        };
        Ok(views.into_iter().zip(states).map(locked).collect())
    }

    async fn path_order(&self, host: PathHost, order: PathOrder) -> ApiResult<PathReport> {
        match order {
            // It must not run beside a task of the sector.
            PathOrder::Move { .. } => {
                return Err(ApiError::refused("MGR084: sectors are moved by Sealyard.MoveSector"));
            }
            // What is left of a sector is no more than that only when the manager has looked.
            PathOrder::SetAside { .. } => {
                return Err(ApiError::refused(
                    "MGR192: what is left of a sector is set aside when it is sealed again",
                ));
            }
            // The permit comes first.
            PathOrder::Discard { .. } => {
                return Err(ApiError::refused("MGR124: files of removed sectors are deleted by a clean-up"));
            }
            _ => {}
        }
        let (order, mut refused) = self.without_foreign(order).await?;
        let (order, cleaned) = self.without_removed(&host, order).await?;
        refused.extend(cleaned);
        Ok(match self.hand_order(host.clone(), order).await? {
            PathReport::Surveyed(surveys) => PathReport::Surveyed(self.with_foreign(&host, surveys).await?),
            PathReport::CleanedUp(mut cleaned) => {
                cleaned.extend(refused);
                PathReport::CleanedUp(cleaned)
            }
            report => report,
        })
    }

    async fn transfers(
        &self,
        worker: Option<String>,
        change: TransferChange,
    ) -> ApiResult<Vec<HostTransfers>> {
        self.host_transfers(worker, change).await
    }

    async fn scrub_sector(&self, sector: SectorName) -> ApiResult<Vec<ScrubResult>> {
        self.scrub(sector).await
    }

    async fn scrub_results(&self, sector: Option<SectorName>) -> ApiResult<Vec<ScrubResult>> {
        self.scrubs(sector).await
    }

    async fn move_sector(&self, sector: SectorName, types: FileTypes, to: StorageId) -> ApiResult<()> {
        let hold = Hold { sector: self.sector_id(sector).await?, types, to };
        // On a task of its own: whoever asked may go away, and the sector must be let go all the same.
        let (own, cancelled) = (self.clone(), self.0.standing.acting().clone());
        let moving = self.0.tasks.spawn(async move {
            let held = hold.clone();
            let sector = own.ask(|reply| Input::HoldSector { hold: held, reply }).await?;
            tokio::select! {
                // The next manager goes on with it.
                () = cancelled.cancelled() => Err(stopping()),
                moved = own.move_held(sector, hold.types, hold.to) => own.let_go(sector.id, moved).await,
            }
        });
        moving.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// How long a move of the manager's earlier life is tried again: a host that starts anew has its paths open by then.
const RESUME_LIMIT: Duration = Duration::from_secs(30 * 60);

impl Service {
    /// Goes on with the moves that the manager's earlier life had begun, each until it is done or has been tried for half an
    /// hour.
    pub(crate) async fn resume_moves(self, holds: Vec<Hold>) {
        let resumed = holds.into_iter().map(|hold| self.resume_move(hold));
        tokio::select! {
            () = self.0.standing.acting().cancelled() => {}
            _ = futures_util::future::join_all(resumed) => {}
        }
    }

    async fn resume_move(&self, hold: Hold) {
        let Hold { sector: id, types, to } = hold;
        let looked = self.view(move |driver| driver.held_sector(id)).await;
        let Ok(Some(sector)) = looked else { return };
        let begun = Instant::now();
        let mut turns = tokio::time::interval(self.0.timing.heartbeat);
        let moved = loop {
            turns.tick().await;
            // Its path is perhaps not open yet, its files not declared, or the earlier order still at work.
            match self.move_held(sector, types, to.clone()).await {
                Err(error) if begun.elapsed() < RESUME_LIMIT => {
                    tracing::warn!(sector = %id, %to, %error, "a move that was begun before the restart waits");
                }
                ended => break ended,
            }
        };
        if self.let_go(id, moved).await.is_ok() {
            tracing::info!(sector = %id, %to, "a move that was begun before the restart is done");
        }
    }

    async fn let_go(&self, sector: SectorId, moved: ApiResult<()>) -> ApiResult<()> {
        let reason = moved.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let told = self.0.inputs.send(Input::LetGo { sector, reason }).await;
        told.map_err(|_| stopping())?;
        moved
    }
}

impl Service {
    /// Names of the workers that serve each path.
    pub(crate) async fn servers(&self) -> ApiResult<BTreeMap<StorageId, Vec<String>>> {
        let mut servers = self.view(|driver| driver.path_servers()).await?;
        for path in self.0.local.paths() {
            servers.entry(path.id).or_default().insert(0, "manager".to_owned());
        }
        Ok(servers)
    }

    fn local_dir(&self, id: &StorageId) -> Option<String> {
        let own = self.0.local.paths().into_iter().find(|path| path.id == *id)?;
        Some(own.dir.display().to_string())
    }

    fn place(&self, held: HeldFiles, servers: &BTreeMap<StorageId, Vec<String>>) -> Option<Place> {
        let view = self.0.index.path_view(&held.id)?;
        Some(Place {
            workers: servers.get(&held.id).cloned().unwrap_or_default(),
            types: held.types,
            primary: held.primary,
            unconfirmed: held.unconfirmed,
            can_seal: view.info.stanza.can_seal,
            can_store: view.info.stanza.can_store,
            local: self.local_dir(&held.id),
            urls: view.info.urls,
            healthy: view.healthy,
            path: held.id,
        })
    }

    async fn path_view(
        &self,
        path: stores::PathView,
        servers: &BTreeMap<StorageId, Vec<String>>,
    ) -> StoragePathView {
        let local = self.local_dir(&path.info.id);
        let (mut stat, mut latency_ms) = (path.stat, None);
        if local.is_none() {
            let begun = Instant::now();
            let asked = self.0.remote.fs_stat(&path.info.id);
            if let Ok(Ok(told)) = tokio::time::timeout(STAT_LIMIT, asked).await {
                stat = told;
                latency_ms = Some(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let mut files = [0_u64; 6];
        for (decl, _) in self.0.index.path_files(&path.info.id) {
            for kind in decl.types.iter() {
                files[kind.index()] += 1;
            }
        }
        let StorageInfo { id, urls, stanza } = path.info;
        let names = |kinds: &[FileType]| kinds.iter().map(ToString::to_string).collect();
        StoragePathView {
            workers: servers.get(&id).cloned().unwrap_or_default(),
            id: id.to_string(),
            urls,
            local,
            weight: stanza.weight,
            can_seal: stanza.can_seal,
            can_store: stanza.can_store,
            groups: stanza.groups.into_iter().collect(),
            allow_to: stanza.allow_to.into_iter().collect(),
            allow_types: names(&stanza.filters.allow_types),
            deny_types: names(&stanza.filters.deny_types),
            capacity: stat.capacity,
            available: stat.available,
            fs_available: stat.fs_available,
            reserved: stat.reserved,
            max_storage: stat.max,
            used: stat.used,
            heartbeat_age_ms: path.heartbeat_age_ms,
            healthy: path.healthy,
            error: path.error,
            files,
            latency_ms,
            set_aside: path
                .troubles
                .into_iter()
                .filter(|it| it.set_aside)
                .map(|it| (it.url, it.why))
                .collect(),
        }
    }

    pub(crate) async fn hand_order(&self, host: PathHost, order: PathOrder) -> ApiResult<PathReport> {
        let worker = match host {
            PathHost::Manager => None,
            PathHost::Worker(name) => Some(self.view(move |driver| driver.worker_called(&name)).await??),
            PathHost::Owner(id) if self.local_dir(&id).is_some() => None,
            PathHost::Owner(id) => Some(self.view(move |driver| driver.owner_of(&id)).await??),
        };
        match worker {
            Some(worker) => worker.path_order(order).await,
            None => self.0.remote.carry_out(order).await.map_err(refusal),
        }
    }

    /// The same for what nobody waits for and may come late: an owner whose disk hangs keeps no other one from being asked.
    pub(crate) async fn hand_look(&self, path: &StorageId, order: PathOrder) -> ApiResult<PathReport> {
        match tokio::time::timeout(LOOK_LIMIT, self.hand_order(PathHost::Owner(path.clone()), order)).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::refused(format!(
                "MGR195: whoever has path {path} did not answer within {} s; its disk may hang, look at that host",
                LOOK_LIMIT.as_secs()
            ))),
        }
    }

    async fn move_held(&self, sector: SectorRef, types: FileTypes, to: StorageId) -> ApiResult<()> {
        let held = self.0.index.sector_files(sector.id).into_iter().map(|held| held.types);
        let there = held.fold(FileTypes::NONE, FileTypes::union);
        let types = if types.is_empty() { there } else { types };
        let missing = types.difference(there);
        if types.is_empty() || !missing.is_empty() {
            let what = if types.is_empty() { "any file".to_owned() } else { format!("{missing}") };
            let number = self.0.name(sector.id);
            return Err(ApiError::refused(format!(
                "MGR085: no path holds {what} of sector {number}; `sealyard storage find {number}` shows what there is"
            )));
        }
        let _lock = self.claim(sector.id, types, format!("move to {to}"))?;
        self.hand_order(PathHost::Owner(to.clone()), PathOrder::Move { sector, types, to }).await.map(drop)
    }

    /// Locks files for an operator, or says who uses them.
    pub(crate) fn claim(&self, sector: SectorId, types: FileTypes, reason: String) -> ApiResult<LockGuard> {
        let want = LockWant { sector, read: FileTypes::NONE, write: types };
        let locks = &self.0.locks;
        let owner = LockOwner { owner: "operator".to_owned(), reason };
        locks.try_lock(want, owner).map_err(refusal)?.ok_or_else(|| {
            let users = locks.in_the_way(want).into_iter().map(|it| format!("{} ({})", it.owner, it.reason));
            let names: Vec<_> = users.collect();
            ApiError::refused(format!(
                "MGR086: files of sector {} are in use by {}; try again later, `sealyard storage locks` shows since when",
                self.0.name(sector),
                if names.is_empty() { "nobody any more".to_owned() } else { names.join(", ") }
            ))
        })
    }
}

fn holders(view: &SectorLockView) -> Vec<LockHolder> {
    let holder = |held: &stores::HeldLock| LockHolder {
        read: held.read,
        write: held.write,
        owner: held.owner.owner.clone(),
        reason: held.owner.reason.clone(),
        since_ms: held.since_ms,
        until_ms: held.until_ms,
    };
    view.holders.iter().map(holder).collect()
}

fn waiters(view: &SectorLockView) -> Vec<LockHolder> {
    let waiter = |waiting: &stores::WaitingLock| LockHolder {
        read: waiting.read,
        write: waiting.write,
        owner: waiting.owner.owner.clone(),
        reason: waiting.owner.reason.clone(),
        since_ms: waiting.since_ms,
        until_ms: None,
    };
    view.waiters.iter().map(waiter).collect()
}
