//! A worker's methods, all for `admin`.

use std::path::PathBuf;
use std::sync::Arc;

use jsonrpsee::Methods;
use sealtasks::{AttemptId, CallId, SectorId, StorageId, TaskType};
use serde_json::value::RawValue;

use super::registrar::{Fault, Registrar};
use crate::api::{Job, Missing, StoragePath, WorkerApi, WorkerInfo};
use crate::beat::BeatenShape;
use crate::error::ApiError;
use crate::extension::GpuShare;
use crate::push::PushStreams;
use crate::reader::{PieceData, ReaderParam};
use crate::token::Permission::Admin;
use crate::wire::args::Args;
use crate::wire::{WireError, of, sector, task, worker};

/// The methods by which `api` is reached. `streams` is the endpoint that the router serves beside them.
pub fn worker_methods(api: Arc<dyn WorkerApi>, streams: PushStreams) -> Methods {
    let mut methods = Registrar::new(api);
    state(&mut methods);
    tasks(&mut methods, &streams);
    foreign_tasks(&mut methods);
    operation(&mut methods);
    extension(&mut methods, streams);
    methods.into_methods()
}

type Worker = Registrar<dyn WorkerApi>;

fn state(methods: &mut Worker) {
    methods.on("Filecoin.Version", Admin, 0, |api, _| async move { Ok(api.version().await?) });
    methods.on("Filecoin.Session", Admin, 0, |api, _| async move { Ok(api.session().await?) });
    methods.on("Filecoin.ProcessSession", Admin, 0, |api, _| async move { Ok(api.process_session().await?) });
    methods.on("Filecoin.Info", Admin, 0, |api, _| async move {
        let info: WorkerInfo = api.info().await?;
        Ok(worker::WorkerInfo::from(info))
    });
    methods.on("Filecoin.TaskTypes", Admin, 0, |api, _| async move {
        Ok(worker::TaskTypes::from(api.task_types().await?))
    });
    methods.on("Filecoin.Paths", Admin, 0, |api, _| async move {
        let paths: Vec<StoragePath> = api.paths().await?;
        Ok(paths.into_iter().map(worker::StoragePath::from).collect::<Vec<_>>())
    });
    methods.on("Filecoin.Enabled", Admin, 0, |api, _| async move { Ok(api.enabled().await?) });
    methods.on("Filecoin.WaitQuiet", Admin, 0, |api, _| async move { Ok(api.wait_quiet().await?) });
}

/// Detached: a worker that has begun to accept a task must not forget it because the caller hung up.
fn tasks(methods: &mut Worker, streams: &PushStreams) {
    for (name, params) in task::METHODS {
        let streams = streams.clone();
        methods.on_detached(name, Admin, params, move |api, args| {
            let streams = streams.clone();
            async move { start(api, &streams, name, args, None, Vec::new()).await }
        });
    }
}

async fn start(
    api: Arc<dyn WorkerApi>,
    streams: &PushStreams,
    method: &str,
    mut args: Args,
    attempt: Option<AttemptId>,
    gpus: Vec<GpuShare>,
) -> Result<sector::CallId, Fault> {
    let started = task::decode(method, &mut args)?;
    let data = piece_data(started.reader, streams).await?;
    let job = Job { sector: started.sector, work: started.work, attempt, data, gpus };
    let call: CallId = api.start(job).await?;
    Ok(call.into())
}

/// What a reader parameter stands for.
pub(super) async fn piece_data(
    reader: Option<ReaderParam>,
    streams: &PushStreams,
) -> Result<Option<PieceData>, Fault> {
    Ok(match reader {
        // The task's input says zeros already.
        None | Some(ReaderParam::Null(_)) => None,
        Some(ReaderParam::Http(url)) => Some(PieceData::Url(url)),
        Some(ReaderParam::Push(id)) => {
            let reader = streams.claim(id).await.map_err(|error| ApiError::refused(error.to_string()))?;
            Some(PieceData::Stream(Box::pin(reader)))
        }
    })
}

/// Tasks that no Sealyard offers. A Lotus miner never sends them to a worker that does not list them.
fn foreign_tasks(methods: &mut Worker) {
    for (name, params, task) in task::FOREIGN_METHODS {
        methods.on(name, Admin, params, move |_, _| async move {
            let text = format!("this worker does not offer {task}; TaskTypes lists what it does");
            Err::<(), Fault>(ApiError::refused(text).into())
        });
    }
}

fn operation(methods: &mut Worker) {
    methods.on("Filecoin.TaskEnable", Admin, 1, |api, mut args| async move {
        Ok(api.task_enable(args.next::<TaskType>("tt")?).await?)
    });
    methods.on("Filecoin.TaskDisable", Admin, 1, |api, mut args| async move {
        Ok(api.task_disable(args.next::<TaskType>("tt")?).await?)
    });
    methods.on_detached("Filecoin.Remove", Admin, 1, |api, mut args| async move {
        let sector: SectorId = args.next_as::<sector::SectorId, _>("sector")?;
        Ok(api.remove(sector).await?)
    });
    methods.on("Filecoin.StorageLocal", Admin, 0, |api, _| async move { Ok(api.storage_local().await?) });
    methods.on_detached("Filecoin.StorageAddLocal", Admin, 1, |api, mut args| async move {
        Ok(api.storage_add_local(args.next::<PathBuf>("path")?).await?)
    });
    methods.on_detached("Filecoin.StorageDetachLocal", Admin, 1, |api, mut args| async move {
        Ok(api.storage_detach_local(args.next::<PathBuf>("path")?).await?)
    });
    methods.on_detached("Filecoin.StorageDetachAll", Admin, 0, |api, _| async move {
        Ok(api.storage_detach_all().await?)
    });
    methods.on_detached("Filecoin.StorageRedeclareLocal", Admin, 2, |api, mut args| async move {
        let path = args.next::<Option<StorageId>>("id")?;
        Ok(api.storage_redeclare_local(path, next_missing(&mut args)?).await?)
    });
    methods.on("Filecoin.SetEnabled", Admin, 1, |api, mut args| async move {
        Ok(api.set_enabled(args.next::<bool>("enabled")?).await?)
    });
    methods.on_detached("Filecoin.Shutdown", Admin, 0, |api, _| async move { Ok(api.shutdown().await?) });
}

fn extension(methods: &mut Worker, streams: PushStreams) {
    methods.on("Sealyard.Hello", Admin, 1, |api, mut args| async move {
        Ok(api.hello(args.next("hello")?).await?)
    });
    methods.on("Sealyard.State", Admin, 0, |api, _| async move { Ok(api.state().await?) });
    methods.on("Sealyard.Beat", Admin, 1, |api, mut args| async move {
        Ok(BeatenShape::from(api.beat(args.next("beat")?).await?))
    });
    methods.on("Sealyard.Settings", Admin, 0, |api, _| async move { Ok(api.settings().await?) });
    methods.on_detached("Sealyard.OrderPaths", Admin, 1, |api, mut args| async move {
        Ok(api.path_order(args.next("order")?).await?)
    });
    methods.on_detached("Sealyard.Scrub", Admin, 1, |api, mut args| async move {
        Ok(api.scrub(args.next("order")?).await?)
    });
    methods.on("Sealyard.Transfers", Admin, 1, |api, mut args| async move {
        Ok(api.transfers(args.next("change")?).await?)
    });
    methods.on_detached("Sealyard.Abort", Admin, 1, |api, mut args| async move {
        Ok(api.abort(args.next_as::<sector::CallId, CallId>("call")?).await?)
    });
    let own = streams.clone();
    methods.on_detached("Sealyard.Start", Admin, 3, move |api, mut args| {
        let streams = own.clone();
        async move {
            let (attempt, method, params) = wrapped(&mut args)?;
            start(api, &streams, &method, params, Some(attempt), Vec::new()).await
        }
    });
    methods.on_detached("Sealyard.StartOn", Admin, 4, move |api, mut args| {
        let streams = streams.clone();
        async move {
            let (attempt, method, params) = wrapped(&mut args)?;
            let gpus = args.next_or_zero("gpus")?;
            start(api, &streams, &method, params, Some(attempt), gpus).await
        }
    });
}

/// An attempt, and the Lotus method with its parameters that starts it.
fn wrapped(args: &mut Args) -> Result<(AttemptId, String, Args), Fault> {
    let attempt: AttemptId = args.next::<String>("attempt")?.parse().map_err(of("attempt"))?;
    let method = format!("Filecoin.{}", args.next::<String>("method")?);
    let wanted = task::arity(&method);
    let wanted = wanted.ok_or_else(|| WireError::new("method", format!("{method:?} starts no task")))?;
    let params = Args::parse(Some(args.next::<Box<RawValue>>("params")?.get()))?;
    if params.len() != wanted {
        let text = format!("{} for {method:?}, expected {wanted}", params.len());
        return Err(WireError::new("params", text).into());
    }
    Ok((attempt, method, params))
}

/// Lotus's flag `dropMissing`.
pub(super) fn next_missing(args: &mut Args) -> Result<Missing, WireError> {
    Ok(if args.next::<bool>("dropMissing")? { Missing::Drop } else { Missing::Keep })
}
