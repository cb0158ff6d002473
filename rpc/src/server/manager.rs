//! A manager's methods: what workers ask, what Lotus's command line asks, and our own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonrpsee::Methods;
use sealtasks::{
    ActorId, AttemptId, CallId, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId,
    SectorNumber, SectorSize, StorageId, StorageInfo,
};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::lotus_cli::lotus_cli;
use super::registrar::Registrar;
use super::worker::next_missing;
use crate::api::{AttemptAccount, ManagerApi, ReturnMethod};
use crate::sector_name::SectorName;
use crate::subject::Subject;
use crate::token::Permission::{self, Admin, Read, Write};
use crate::wire::args::Args;
use crate::wire::sector_status::sector_info;
use crate::wire::{Base64, WireError, declared, of, returns, sector, storage, worker};

/// The methods by which `api` is reached.
pub fn manager_methods(api: Arc<dyn ManagerApi>) -> Methods {
    let mut methods = Registrar::new(api);
    common(&mut methods);
    workers(&mut methods);
    index(&mut methods);
    index_queries(&mut methods);
    locks(&mut methods);
    own_storage(&mut methods);
    sealing(&mut methods);
    sectors(&mut methods);
    extension(&mut methods);
    lotus_cli(&mut methods);
    methods.into_methods()
}

pub(super) type Manager = Registrar<dyn ManagerApi>;

fn common(methods: &mut Manager) {
    methods.on("Filecoin.Version", Read, 0, |api, _| async move {
        let version = api.version().await?;
        Ok(worker::ApiVersion {
            agent: version.version.clone(),
            version: version.version,
            api_version: version.api_version,
            block_delay: version.block_delay,
        })
    });
    for name in ["Filecoin.AuthVerify", "Filecoin.StorageAuthVerify"] {
        methods.on(
            name,
            Read,
            1,
            |api, mut args| async move { Ok(api.auth_verify(args.next("token")?).await?) },
        );
    }
    methods.on("Filecoin.AuthNew", Admin, 1, |api, mut args| async move {
        let permissions = args.next_or_zero::<Vec<Permission>>("perms")?;
        // Go's handler gives bytes, and bytes are base64.
        Ok(STANDARD.encode(api.auth_new(permissions).await?))
    });
    methods.on("Filecoin.Session", Read, 0, |api, _| async move { Ok(api.session().await?) });
    methods.on("Filecoin.ActorAddress", Read, 0, |api, _| async move {
        Ok(storage::address(api.actor_address().await?))
    });
    methods.on("Filecoin.ActorSectorSize", Read, 1, |api, mut args| async move {
        let actor: ActorId = args.next::<String>("address")?.parse().map_err(of("address"))?;
        Ok(api.actor_sector_size(actor).await?.bytes())
    });
    methods.on_detached("Filecoin.Shutdown", Admin, 0, |api, _| async move { Ok(api.shutdown().await?) });
}

/// Detached: a worker that hangs up while its result is being committed has still returned it, and one that hangs up
/// while it is dialled back is still to be registered or refused.
fn workers(methods: &mut Manager) {
    methods.on_detached("Filecoin.WorkerConnect", Admin, 1, |api, mut args| async move {
        Ok(api.worker_connect(args.next("url")?).await?)
    });
    for method in ReturnMethod::ALL {
        let params = if method.has_value() { 3 } else { 2 };
        methods.on_detached(method.name(), Admin, params, move |api, mut args| async move {
            let call: CallId = args.next_as::<sector::CallId, _>("callID")?;
            let value = if method.has_value() { args.next::<Option<Box<RawValue>>>("value")? } else { None };
            let returned = returns::decode(method, value.as_deref(), args.next("err")?)?;
            Ok(api.return_result(call, returned).await?)
        });
    }
}

fn index(methods: &mut Manager) {
    methods.on_detached("Filecoin.StorageAttach", Admin, 2, |api, mut args| async move {
        let info: StorageInfo = args.next_as::<storage::StorageInfo, _>("StorageInfo")?;
        let stat: FsStat = args.next_as::<storage::FsStat, _>("FsStat")?;
        Ok(api.storage_attach(info, stat).await?)
    });
    methods.on_detached("Filecoin.StorageDetach", Admin, 2, |api, mut args| async move {
        let id: StorageId = args.next("id")?;
        Ok(api.storage_detach(id, args.next("url")?).await?)
    });
    methods.on("Filecoin.StorageReportHealth", Admin, 2, |api, mut args| async move {
        let id: StorageId = args.next("id")?;
        let report: HealthReport = args.next_as::<storage::HealthReport, _>("HealthReport")?;
        Ok(api.storage_report_health(id, report).await?)
    });
    methods.on_detached("Filecoin.StorageDeclareSector", Admin, 4, |api, mut args| async move {
        let id: StorageId = args.next("storageID")?;
        let sector: SectorId = args.next_as::<sector::SectorId, _>("sector")?;
        let types = file_types(&mut args, "fileType")?;
        Ok(api.storage_declare(id, sector, types, args.next("primary")?).await?)
    });
    methods.on_detached("Filecoin.StorageDropSector", Admin, 3, |api, mut args| async move {
        let id: StorageId = args.next("storageID")?;
        let sector: SectorId = args.next_as::<sector::SectorId, _>("sector")?;
        Ok(api.storage_drop(id, sector, file_types(&mut args, "fileType")?).await?)
    });
    methods.on_detached("Sealyard.StorageDeclareBatch", Admin, 2, |api, mut args| async move {
        let id: StorageId = args.next("storageID")?;
        let files: Vec<(storage::Decl, bool)> = args.next_or_zero("files")?;
        let files: Result<Vec<(SectorDecl, bool)>, WireError> =
            files.into_iter().map(|(decl, primary)| Ok((decl.try_into()?, primary))).collect();
        Ok(api.storage_declare_batch(id, files?).await?)
    });
    methods.on_detached("Sealyard.DeclareFiles", Admin, 2, |api, mut args| async move {
        let id: StorageId = args.next("storageID")?;
        let files = declared::unpack(&args.next::<Base64>("files")?)?;
        Ok(api.storage_declare_batch(id, files).await?)
    });
    methods.on("Sealyard.StorageFiles", Admin, 1, |api, mut args| async move {
        let files = api.storage_files(args.next("storageID")?).await?;
        let files: Vec<_> = files.into_iter().map(|decl| (decl, false)).collect();
        Ok(declared::pack(&files))
    });
    methods.on_detached("Sealyard.DeclaredAll", Admin, 1, |api, mut args| async move {
        Ok(api.storage_declared_all(args.next("storageID")?).await?)
    });
}

fn index_queries(methods: &mut Manager) {
    methods.on("Filecoin.StorageInfo", Admin, 1, |api, mut args| async move {
        Ok(storage::StorageInfo::from(api.storage_info(args.next("id")?).await?))
    });
    methods.on("Filecoin.StorageFindSector", Admin, 4, |api, mut args| async move {
        let sector: SectorId = args.next_as::<sector::SectorId, _>("sector")?;
        let types = file_types(&mut args, "fileType")?;
        let size = args.next::<u64>("ssize")?;
        // Without fetching the size says nothing, and Lotus sends 0.
        let fetch = if args.next("allowFetch")? { Some(sector_size(size)?) } else { None };
        let found = api.storage_find(sector, types, fetch).await?;
        Ok(found.into_iter().map(storage::SectorStorageInfo::from).collect::<Vec<_>>())
    });
    methods.on("Filecoin.StorageBestAlloc", Admin, 4, |api, mut args| async move {
        let types = file_types(&mut args, "allocate")?;
        let size = sector_size(args.next("ssize")?)?;
        let path_type: PathType = args.next("pathType")?;
        let miner: ActorId = args.next("miner")?;
        let best = api.storage_best_alloc(types, size, path_type, miner).await?;
        Ok(best.into_iter().map(storage::StorageInfo::from).collect::<Vec<_>>())
    });
    methods.on("Filecoin.StorageList", Admin, 0, |api, _| async move {
        let listed = api.storage_list().await?.into_iter();
        let decls = |decls: Vec<SectorDecl>| decls.into_iter().map(storage::Decl::from).collect::<Vec<_>>();
        Ok(listed.map(|(id, files)| (id, decls(files))).collect::<BTreeMap<_, _>>())
    });
}

/// Over the wire a lock lasts as long as its call, as in Lotus: a handler that returns has let go. So StorageLock only
/// tells that the lock could be had; it is not detached, and a caller that hangs up or cancels waits no longer.
fn locks(methods: &mut Manager) {
    methods.on("Filecoin.StorageLock", Admin, 3, |api, mut args| async move {
        let sector: SectorId = args.next_as::<sector::SectorId, _>("sector")?;
        let read = file_types(&mut args, "read")?;
        Ok(api.storage_lock(sector, read, file_types(&mut args, "write")?).await?)
    });
    methods.on("Filecoin.StorageTryLock", Admin, 3, |api, mut args| async move {
        let sector: SectorId = args.next_as::<sector::SectorId, _>("sector")?;
        let read = file_types(&mut args, "read")?;
        Ok(api.storage_try_lock(sector, read, file_types(&mut args, "write")?).await?)
    });
    methods.on("Filecoin.StorageGetLocks", Admin, 0, |api, _| async move {
        let locks = api.storage_get_locks().await?.into_iter().map(storage::SectorLock::from).collect();
        Ok(storage::SectorLocks { locks })
    });
}

fn own_storage(methods: &mut Manager) {
    methods.on("Filecoin.StorageLocal", Admin, 0, |api, _| async move { Ok(api.storage_local().await?) });
    methods.on("Filecoin.StorageStat", Admin, 1, |api, mut args| async move {
        Ok(storage::FsStat::from(api.storage_stat(args.next("id")?).await?))
    });
    methods.on_detached("Filecoin.StorageAddLocal", Admin, 1, |api, mut args| async move {
        Ok(api.storage_add_local(args.next::<PathBuf>("path")?).await?)
    });
    methods.on_detached("Filecoin.StorageDetachLocal", Admin, 1, |api, mut args| async move {
        Ok(api.storage_detach_local(args.next::<PathBuf>("path")?).await?)
    });
    methods.on_detached("Filecoin.StorageRedeclareLocal", Admin, 2, |api, mut args| async move {
        let path = args.next::<Option<StorageId>>("id")?;
        Ok(api.storage_redeclare_local(path, next_missing(&mut args)?).await?)
    });
}

fn sealing(methods: &mut Manager) {
    methods.on("Filecoin.WorkerStats", Admin, 0, |api, _| async move {
        let stats = api.worker_stats().await?.into_iter();
        Ok(stats.map(|(id, stats)| (id, worker::WorkerStats::from(stats))).collect::<BTreeMap<_, _>>())
    });
    methods.on("Filecoin.WorkerJobs", Admin, 0, |api, _| async move {
        let jobs = api.worker_jobs().await?.into_iter();
        let wired = |jobs: Vec<_>| jobs.into_iter().map(worker::WorkerJob::from).collect::<Vec<_>>();
        Ok(jobs.map(|(id, jobs)| (id, wired(jobs))).collect::<BTreeMap<_, _>>())
    });
    methods.on("Filecoin.SealingSchedDiag", Admin, 1, |api, mut args| async move {
        Ok(api.sched_diag(args.next("doSched")?).await?)
    });
    methods.on_detached("Filecoin.SealingAbort", Admin, 1, |api, mut args| async move {
        Ok(api.sealing_abort(args.next_as::<sector::CallId, CallId>("call")?).await?)
    });
    methods.on_detached("Filecoin.SealingRemoveRequest", Admin, 1, |api, mut args| async move {
        Ok(api.sealing_remove_request(args.next::<Uuid>("schedId")?).await?)
    });
}

fn sectors(methods: &mut Manager) {
    methods.on_detached("Filecoin.PledgeSector", Write, 0, |api, _| async move {
        Ok(sector::SectorId::from(api.pledge_sector().await?))
    });
    methods.on("Filecoin.SectorsList", Read, 0, |api, _| async move { Ok(api.sectors_list().await?) });
    methods.on("Filecoin.SectorsSummary", Read, 0, |api, _| async move { Ok(api.sectors_summary().await?) });
    methods.on("Filecoin.SectorsListInStates", Read, 1, |api, mut args| async move {
        Ok(api.sectors_in_states(args.next_or_zero("states")?).await?)
    });
    methods.on("Filecoin.SectorsStatus", Read, 2, |api, mut args| async move {
        let number = SectorNumber::new(args.next("sid")?);
        // This is the manager's own record, also of what is on chain. So the flag changes nothing.
        args.next::<bool>("showOnChainInfo")?;
        // Lotus's numbers are those of its one miner.
        let miner = Some(api.miners().await?.first);
        Ok(sector_info(api.sector_detail(SectorName { miner, number }).await?))
    });
}

fn extension(methods: &mut Manager) {
    methods.on("Sealyard.Hello", Read, 1, |api, mut args| async move {
        Ok(api.hello(args.next("hello")?).await?)
    });
    methods.on("Sealyard.VerifyToken", Read, 1, |api, mut args| async move {
        Ok(api.verify_token(args.next("token")?).await?)
    });
    methods.on("Sealyard.FetchToken", Admin, 1, |api, mut args| async move {
        Ok(api.fetch_token(args.next("wish")?).await?)
    });
    methods.on("Sealyard.AuthNewWorker", Admin, 0, |api, _| async move { Ok(api.auth_new_worker().await?) });
    methods.on("Sealyard.CanReach", Admin, 1, |api, mut args| async move {
        Ok(api.can_reach(args.next("url")?).await?)
    });
    methods.on("Sealyard.WorkerState", Admin, 1, |api, mut args| async move {
        Ok(api.worker_state(args.next("state")?).await?)
    });
    methods.on("Sealyard.AttemptOpen", Admin, 1, |api, mut args| async move {
        let attempt = args.next::<String>("attempt")?.parse::<AttemptId>().map_err(of("attempt"))?;
        Ok(api.attempt_open(attempt).await?)
    });
    methods.on_detached("Sealyard.StorageDeed", Admin, 2, |api, mut args| async move {
        let attempt = args.next::<String>("attempt")?.parse::<AttemptId>().map_err(of("attempt"))?;
        Ok(api.storage_deed(attempt, args.next("deed")?).await?)
    });
    methods.on("Sealyard.Miners", Read, 0, |api, _| async move { Ok(api.miners().await?) });
    methods.on("Sealyard.Sectors", Read, 0, |api, _| async move { Ok(api.sectors().await?) });
    methods.on("Sealyard.Overview", Admin, 0, |api, _| async move { Ok(api.overview().await?) });
    methods.on("Sealyard.Jobs", Read, 0, |api, _| async move { Ok(api.jobs().await?) });
    methods.on("Sealyard.SectorDetail", Read, 1, |api, mut args| async move {
        Ok(api.sector_detail(args.next::<SectorName>("sector")?).await?)
    });
    methods.on("Sealyard.Why", Read, 1, |api, mut args| async move {
        Ok(api.why(args.next::<String>("subject")?.parse::<Subject>().map_err(of("subject"))?).await?)
    });
    methods.on("Sealyard.Schedule", Read, 1, |api, mut args| async move {
        Ok(api.schedule(args.next("limit")?).await?)
    });
    methods.on_detached("Sealyard.AbortAttempt", Admin, 1, |api, mut args| async move {
        let attempt = args.next::<String>("attempt")?.parse::<AttemptId>().map_err(of("attempt"))?;
        Ok(api.abort_attempt(attempt).await?)
    });
    methods.on_detached("Sealyard.RetrySector", Admin, 1, |api, mut args| async move {
        Ok(api.retry_sector(args.next::<SectorName>("sector")?).await?)
    });
    methods.on_detached("Sealyard.Pledge", Write, 1, |api, mut args| async move {
        Ok(sector::SectorId::from(api.pledge(args.next("options")?).await?))
    });
    methods.on_detached("Sealyard.Return", Admin, 6, |api, mut args| async move {
        let call: CallId = args.next_as::<sector::CallId, _>("callID")?;
        let name = args.next::<String>("method")?;
        let method = ReturnMethod::ALL.into_iter().find(|method| method.short_name() == name);
        let method = method.ok_or_else(|| WireError::new("method", format!("{name:?} returns nothing")))?;
        let value = args.next::<Option<Box<RawValue>>>("value")?;
        let mut returned = returns::decode(method, value.as_deref(), args.next("err")?)?;
        let attempt = args.next::<Option<String>>("attempt")?;
        returned.attempt =
            attempt.map(|text| text.parse::<AttemptId>()).transpose().map_err(of("attempt"))?;
        returned.account = args.next::<Option<AttemptAccount>>("account")?;
        Ok(api.return_result(call, returned).await?)
    });
}

fn file_types(args: &mut Args, field: &'static str) -> Result<FileTypes, WireError> {
    args.next_as::<i64, FileTypes>(field)
}

fn sector_size(bytes: u64) -> Result<SectorSize, WireError> {
    SectorSize::from_bytes(bytes).ok_or_else(|| {
        let known = "2048, 8388608, 536870912, 34359738368 and 68719476736";
        WireError::new("ssize", format!("{bytes} is no sector size; known are {known} bytes"))
    })
}
