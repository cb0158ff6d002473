//! A manager on another machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealtasks::{
    ActorId, AttemptId, CallId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId,
    SectorNumber, SectorSize, SectorStorageInfo, StorageId, StorageInfo, WorkerId,
};
use url::Url;
use uuid::Uuid;

use super::http::{authorization, builder};
use super::peer::Peer;
use super::{Caller, ClientError, NO_PARAMS, malformed, unsendable};
use crate::api::{
    ApiResult, ManagerApi, ManagerVersion, Missing, PledgeOptions, Returned, SectorLock, WorkerJob,
    WorkerStats,
};
use crate::api_info::{ApiInfo, Transport};
use crate::error::ApiError;
use crate::explain::{Explanation, Schedule};
use crate::extension::{FetchTicket, FetchWish, Hello, JobView, ManagerOverview, SectorDetail, WorkerState};
use crate::mark::Mark;
use crate::sector_name::{Miners, SectorName};
use crate::storage::CopyDeed;
use crate::subject::Subject;
use crate::tls::Trust;
use crate::token::{Grant, Permission};
use crate::wire::{self, returns};

/// Calls a manager, Sealyard or Lotus; of several that could be it, the one that was chosen.
pub struct ManagerClient {
    first: Door,
    others: Vec<Door>,
    /// 0: the first.
    chosen: AtomicUsize,
    trust: Trust,
}

/// One place where a manager is, or would be.
struct Door {
    peer: Peer,
    /// For what is no JSON-RPC.
    info: ApiInfo,
}

impl Door {
    fn new(info: &ApiInfo, transport: Transport, trust: &Trust, mark: &Mark) -> Result<Self, ClientError> {
        let url = info.rpc_url(transport).map_err(|source| ClientError::Url { source })?;
        let peer = Peer::new(Caller::new(&url, info.token.clone(), transport, trust, mark)?);
        Ok(Self { peer, info: info.clone() })
    }
}

impl ManagerClient {
    /// The manager that `info` tells of, checked with the machine's authorities where it speaks TLS. Opens no connection
    /// yet.
    ///
    /// # Errors
    /// The address or the token cannot be used.
    pub fn new(info: &ApiInfo, transport: Transport) -> Result<Self, ClientError> {
        Self::trusting(info, transport, &Trust::system())
    }

    /// As [`ManagerClient::new`], with the authorities of `trust`.
    ///
    /// # Errors
    /// The address or the token cannot be used.
    pub fn trusting(info: &ApiInfo, transport: Transport, trust: &Trust) -> Result<Self, ClientError> {
        Self::among(info, &[], transport, trust, &Mark::default())
    }

    /// A worker's client: the manager that it serves, which is told so by `mark`, is at one of these places. The first is
    /// asked until [`ManagerClient::choose`] says otherwise.
    ///
    /// # Errors
    /// An address or a token cannot be used.
    pub fn among(
        first: &ApiInfo,
        others: &[ApiInfo],
        transport: Transport,
        trust: &Trust,
        mark: &Mark,
    ) -> Result<Self, ClientError> {
        let door = |info| Door::new(info, transport, trust, mark);
        let (first, others) = (door(first)?, others.iter().map(door).collect::<Result<_, _>>()?);
        Ok(Self { first, others, chosen: AtomicUsize::new(0), trust: trust.clone() })
    }

    /// From now on asks the place with this number, counted from 0; one that there is not is the first.
    pub fn choose(&self, number: usize) {
        self.chosen.store(number, Ordering::Release);
    }

    /// The place that is asked now, counted from 0.
    pub fn chosen(&self) -> usize {
        self.chosen.load(Ordering::Acquire)
    }

    fn door(&self) -> &Door {
        let chosen = self.chosen.load(Ordering::Acquire);
        chosen.checked_sub(1).and_then(|at| self.others.get(at)).unwrap_or(&self.first)
    }

    /// A URL at the manager whose path is still to be set, and a client that shows the token.
    pub(super) fn http(&self) -> ApiResult<(Url, reqwest::Client)> {
        let refused = |error: &dyn std::error::Error| ApiError::refused(error.to_string());
        let info = &self.door().info;
        let url = info.rpc_url(Transport::Http).map_err(|error| refused(&error))?;
        let headers = authorization(info.token.clone()).map_err(|error| refused(&error))?;
        let client =
            builder(&self.trust).default_headers(headers).build().map_err(|error| refused(&error))?;
        Ok((url, client))
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.door().peer.caller
    }
}

#[async_trait]
impl ManagerApi for ManagerClient {
    async fn version(&self) -> ApiResult<ManagerVersion> {
        let version: wire::worker::ApiVersion = self.caller().call("Filecoin.Version", &NO_PARAMS).await?;
        Ok(ManagerVersion {
            version: version.version,
            api_version: version.api_version,
            block_delay: version.block_delay,
        })
    }

    async fn auth_verify(&self, token: String) -> ApiResult<Vec<Permission>> {
        let names: Option<Vec<String>> = self.caller().call("Filecoin.AuthVerify", &(token,)).await?;
        // Names that we do not know allow nothing.
        Ok(names.unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn verify_token(&self, token: String) -> ApiResult<Grant> {
        if self.door().peer.is_sealyard().await? {
            match self.caller().call("Sealyard.VerifyToken", &(&token,)).await {
                // An older Sealyard: it knows no scopes either.
                Err(error) if error.is_method_not_found() => {}
                answer => return answer,
            }
        }
        self.auth_verify(token).await.map(Grant::of)
    }

    async fn fetch_token(&self, wish: FetchWish) -> ApiResult<FetchTicket> {
        self.caller().call("Sealyard.FetchToken", &(wish,)).await
    }

    async fn auth_new_worker(&self) -> ApiResult<String> {
        self.caller().call("Sealyard.AuthNewWorker", &NO_PARAMS).await
    }

    async fn auth_new(&self, permissions: Vec<Permission>) -> ApiResult<String> {
        const METHOD: &str = "Filecoin.AuthNew";
        let text: String = self.caller().call(METHOD, &(permissions,)).await?;
        let bytes = STANDARD.decode(text).map_err(|error| malformed(METHOD, &error))?;
        String::from_utf8(bytes).map_err(|error| malformed(METHOD, &error))
    }

    async fn session(&self) -> ApiResult<Uuid> {
        self.caller().call("Filecoin.Session", &NO_PARAMS).await
    }

    async fn actor_address(&self) -> ApiResult<ActorId> {
        const METHOD: &str = "Filecoin.ActorAddress";
        let text: String = self.caller().call(METHOD, &NO_PARAMS).await?;
        text.parse().map_err(|error| malformed(METHOD, &error))
    }

    async fn actor_sector_size(&self, actor: ActorId) -> ApiResult<SectorSize> {
        const METHOD: &str = "Filecoin.ActorSectorSize";
        let bytes: u64 = self.caller().call(METHOD, &(wire::storage::address(actor),)).await?;
        SectorSize::from_bytes(bytes)
            .ok_or_else(|| malformed(METHOD, &format!("{bytes} bytes is no sector size")))
    }

    async fn shutdown(&self) -> ApiResult<()> {
        self.caller().tell("Filecoin.Shutdown", &NO_PARAMS).await
    }

    async fn worker_connect(&self, url: String) -> ApiResult<()> {
        self.caller().tell("Filecoin.WorkerConnect", &(url,)).await
    }

    async fn return_result(&self, call: CallId, returned: Returned) -> ApiResult<()> {
        let Returned { method, result, attempt, account } = returned;
        let call = wire::sector::CallId::from(call);
        let wanted = attempt.is_some() || account.is_some();
        let encoded = returns::encode(method, result).map_err(unsendable)?;
        let (value, error) = (encoded.value, encoded.error);
        if wanted && self.door().peer.is_sealyard().await? {
            let attempt = attempt.map(|attempt| attempt.to_string());
            let params = (&call, method.short_name(), &value, &error, attempt, account);
            let answer = self.caller().tell("Sealyard.Return", &params).await;
            if !self.door().peer.turned_lotus(&answer) {
                return answer;
            }
        }
        match value {
            Some(value) => self.caller().tell(method.name(), &(call, value, error)).await,
            None => self.caller().tell(method.name(), &(call, error)).await,
        }
    }

    async fn storage_attach(&self, info: StorageInfo, stat: FsStat) -> ApiResult<()> {
        let params = (wire::storage::StorageInfo::from(info), wire::storage::FsStat::from(stat));
        self.caller().tell("Filecoin.StorageAttach", &params).await
    }

    async fn storage_detach(&self, id: StorageId, url: String) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageDetach", &(id, url)).await
    }

    async fn storage_info(&self, id: StorageId) -> ApiResult<StorageInfo> {
        self.caller().call_as::<wire::storage::StorageInfo, _, _>("Filecoin.StorageInfo", &(id,)).await
    }

    async fn storage_report_health(&self, id: StorageId, report: HealthReport) -> ApiResult<()> {
        let report = wire::storage::HealthReport::from(report);
        self.caller().tell("Filecoin.StorageReportHealth", &(id, report)).await
    }

    async fn storage_declare(
        &self,
        id: StorageId,
        sector: SectorId,
        types: FileTypes,
        primary: bool,
    ) -> ApiResult<()> {
        let sector = wire::sector::SectorId::from(sector);
        self.caller().tell("Filecoin.StorageDeclareSector", &(id, sector, types, primary)).await
    }

    async fn storage_declare_batch(&self, id: StorageId, files: Vec<(SectorDecl, bool)>) -> ApiResult<()> {
        let packed = (&id, wire::declared::pack(&files));
        match self.caller().tell("Sealyard.DeclareFiles", &packed).await {
            Err(error) if error.is_method_not_found() => {}
            answer => return answer,
        }
        // A Sealyard of the version before, or a Lotus, which knows neither.
        let files: Vec<_> =
            files.into_iter().map(|(decl, primary)| (wire::storage::Decl::from(decl), primary)).collect();
        self.caller().tell("Sealyard.StorageDeclareBatch", &(id, files)).await
    }

    async fn storage_declared_all(&self, id: StorageId) -> ApiResult<()> {
        match self.caller().tell("Sealyard.DeclaredAll", &(id,)).await {
            // It remembers nothing.
            Err(error) if error.is_method_not_found() => Ok(()),
            answer => answer,
        }
    }

    async fn storage_files(&self, id: StorageId) -> ApiResult<Vec<SectorDecl>> {
        const METHOD: &str = "Sealyard.StorageFiles";
        let packed: wire::Base64 = self.caller().call(METHOD, &(id,)).await?;
        let files = wire::declared::unpack(&packed).map_err(|error| malformed(METHOD, &error))?;
        Ok(files.into_iter().map(|(decl, _)| decl).collect())
    }

    async fn storage_drop(&self, id: StorageId, sector: SectorId, types: FileTypes) -> ApiResult<()> {
        let sector = wire::sector::SectorId::from(sector);
        self.caller().tell("Filecoin.StorageDropSector", &(id, sector, types)).await
    }

    async fn storage_find(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> ApiResult<Vec<SectorStorageInfo>> {
        let size = fetch.map_or(0, SectorSize::bytes);
        let params = (wire::sector::SectorId::from(sector), types, size, fetch.is_some());
        self.caller()
            .call_list::<wire::storage::SectorStorageInfo, _, _>("Filecoin.StorageFindSector", &params)
            .await
    }

    async fn storage_best_alloc(
        &self,
        types: FileTypes,
        size: SectorSize,
        path_type: PathType,
        miner: ActorId,
    ) -> ApiResult<Vec<StorageInfo>> {
        let params = (types, size.bytes(), path_type, miner);
        self.caller()
            .call_list::<wire::storage::StorageInfo, _, _>("Filecoin.StorageBestAlloc", &params)
            .await
    }

    async fn storage_list(&self) -> ApiResult<BTreeMap<StorageId, Vec<SectorDecl>>> {
        const METHOD: &str = "Filecoin.StorageList";
        type Listed = BTreeMap<StorageId, Option<Vec<wire::storage::Decl>>>;
        let listed: Option<Listed> = self.caller().call(METHOD, &NO_PARAMS).await?;
        let converted = listed.unwrap_or_default().into_iter().map(|(id, decls)| {
            let decls: Result<Vec<SectorDecl>, _> =
                decls.unwrap_or_default().into_iter().map(SectorDecl::try_from).collect();
            Ok((id, decls.map_err(|error| malformed(METHOD, &error))?))
        });
        converted.collect()
    }

    async fn storage_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<()> {
        let sector = wire::sector::SectorId::from(sector);
        self.caller().tell("Filecoin.StorageLock", &(sector, read, write)).await
    }

    async fn storage_try_lock(&self, sector: SectorId, read: FileTypes, write: FileTypes) -> ApiResult<bool> {
        let sector = wire::sector::SectorId::from(sector);
        self.caller().call("Filecoin.StorageTryLock", &(sector, read, write)).await
    }

    async fn storage_get_locks(&self) -> ApiResult<Vec<SectorLock>> {
        let locks: wire::storage::SectorLocks =
            self.caller().call("Filecoin.StorageGetLocks", &NO_PARAMS).await?;
        Ok(locks.locks.into_iter().map(SectorLock::from).collect())
    }

    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        Ok(self.caller().call::<_, Option<_>>("Filecoin.StorageLocal", &NO_PARAMS).await?.unwrap_or_default())
    }

    async fn storage_stat(&self, id: StorageId) -> ApiResult<FsStat> {
        self.caller().call_as::<wire::storage::FsStat, _, _>("Filecoin.StorageStat", &(id,)).await
    }

    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageAddLocal", &(path,)).await
    }

    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageDetachLocal", &(path,)).await
    }

    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageRedeclareLocal", &(path, missing == Missing::Drop)).await
    }

    async fn worker_stats(&self) -> ApiResult<BTreeMap<WorkerId, WorkerStats>> {
        const METHOD: &str = "Filecoin.WorkerStats";
        type Stats = BTreeMap<WorkerId, wire::worker::WorkerStats>;
        let stats: Option<Stats> = self.caller().call(METHOD, &NO_PARAMS).await?;
        let converted = stats.unwrap_or_default().into_iter().map(|(id, stats)| {
            Ok((id, WorkerStats::try_from(stats).map_err(|error| malformed(METHOD, &error))?))
        });
        converted.collect()
    }

    async fn worker_jobs(&self) -> ApiResult<BTreeMap<WorkerId, Vec<WorkerJob>>> {
        const METHOD: &str = "Filecoin.WorkerJobs";
        type Jobs = BTreeMap<WorkerId, Option<Vec<wire::worker::WorkerJob>>>;
        let jobs: Option<Jobs> = self.caller().call(METHOD, &NO_PARAMS).await?;
        let converted = jobs.unwrap_or_default().into_iter().map(|(id, jobs)| {
            let jobs: Result<Vec<WorkerJob>, _> =
                jobs.unwrap_or_default().into_iter().map(WorkerJob::try_from).collect();
            Ok((id, jobs.map_err(|error| malformed(METHOD, &error))?))
        });
        converted.collect()
    }

    async fn sched_diag(&self, force: bool) -> ApiResult<serde_json::Value> {
        self.caller().call("Filecoin.SealingSchedDiag", &(force,)).await
    }

    async fn sealing_abort(&self, call: CallId) -> ApiResult<()> {
        self.caller().tell("Filecoin.SealingAbort", &(wire::sector::CallId::from(call),)).await
    }

    async fn sealing_remove_request(&self, request: Uuid) -> ApiResult<()> {
        self.caller().tell("Filecoin.SealingRemoveRequest", &(request,)).await
    }

    async fn pledge_sector(&self) -> ApiResult<SectorId> {
        self.caller().call_as::<wire::sector::SectorId, _, _>("Filecoin.PledgeSector", &NO_PARAMS).await
    }

    async fn miners(&self) -> ApiResult<Miners> {
        self.caller().call("Sealyard.Miners", &NO_PARAMS).await
    }

    async fn sectors(&self) -> ApiResult<Vec<SectorId>> {
        self.caller().call("Sealyard.Sectors", &NO_PARAMS).await
    }

    async fn sectors_list(&self) -> ApiResult<Vec<SectorNumber>> {
        Ok(self.caller().call::<_, Option<_>>("Filecoin.SectorsList", &NO_PARAMS).await?.unwrap_or_default())
    }

    async fn sectors_summary(&self) -> ApiResult<BTreeMap<String, u64>> {
        Ok(self
            .caller()
            .call::<_, Option<_>>("Filecoin.SectorsSummary", &NO_PARAMS)
            .await?
            .unwrap_or_default())
    }

    async fn sectors_in_states(&self, states: Vec<String>) -> ApiResult<Vec<SectorNumber>> {
        let numbers = self.caller().call::<_, Option<_>>("Filecoin.SectorsListInStates", &(states,)).await?;
        Ok(numbers.unwrap_or_default())
    }

    async fn sector_detail(&self, sector: SectorName) -> ApiResult<SectorDetail> {
        self.caller().call("Sealyard.SectorDetail", &(sector,)).await
    }

    async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>> {
        self.door().peer.hello(hello).await
    }

    async fn can_reach(&self, url: String) -> ApiResult<()> {
        self.caller().tell("Sealyard.CanReach", &(url,)).await
    }

    async fn worker_state(&self, state: WorkerState) -> ApiResult<()> {
        self.caller().tell("Sealyard.WorkerState", &(state,)).await
    }

    async fn attempt_open(&self, attempt: AttemptId) -> ApiResult<bool> {
        self.caller().call("Sealyard.AttemptOpen", &(attempt.to_string(),)).await
    }

    async fn storage_deed(&self, attempt: AttemptId, deed: CopyDeed) -> ApiResult<()> {
        self.caller().tell("Sealyard.StorageDeed", &(attempt.to_string(), deed)).await
    }

    async fn overview(&self) -> ApiResult<ManagerOverview> {
        self.caller().call("Sealyard.Overview", &NO_PARAMS).await
    }

    async fn jobs(&self) -> ApiResult<Vec<JobView>> {
        self.caller().call("Sealyard.Jobs", &NO_PARAMS).await
    }

    async fn why(&self, subject: Subject) -> ApiResult<Explanation> {
        self.caller().call("Sealyard.Why", &(subject.to_string(),)).await
    }

    async fn schedule(&self, limit: u32) -> ApiResult<Schedule> {
        self.caller().call("Sealyard.Schedule", &(limit,)).await
    }

    async fn abort_attempt(&self, attempt: AttemptId) -> ApiResult<()> {
        self.caller().tell("Sealyard.AbortAttempt", &(attempt.to_string(),)).await
    }

    async fn retry_sector(&self, sector: SectorName) -> ApiResult<()> {
        self.caller().tell("Sealyard.RetrySector", &(sector,)).await
    }

    async fn pledge(&self, options: PledgeOptions) -> ApiResult<SectorId> {
        self.caller().call_as::<wire::sector::SectorId, _, _>("Sealyard.Pledge", &(options,)).await
    }
}
