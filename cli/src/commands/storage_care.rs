//! `storage detach|redeclare|move|cleanup`, and attaching on a worker: orders to the process that has the path open.

use std::path::PathBuf;

use rpc::ApiError;
use rpc::storage::PathHost;
use sealtasks::{FileType, FileTypes, PathOrder, PathReport, PathSurvey, StorageId};
use serde_json::json;

use super::storage::settings;
use crate::args::{CleanupArgs, DetachArgs, MoveArgs, RedeclareArgs, StorageAttachArgs};
use crate::connect::{Connection, expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{self, line, print_json};

/// A refused order is about a storage path, unless the manager was not reached.
pub(super) fn path_failure(error: ApiError) -> Failure {
    match error {
        ApiError::Remote { .. } | ApiError::Refused { .. } if !error.is_method_not_found() => {
            Failure::from_error(Code::Storage, &error)
        }
        other => rpc_failure(other),
    }
}

/// Which process an optional `--worker` means.
fn host_of(worker: Option<&String>) -> PathHost {
    worker.map_or(PathHost::Manager, |name| PathHost::Worker(name.clone()))
}

/// A directory: as given on another host, else with `~` and made absolute.
fn directory(text: &str, worker: Option<&String>) -> Result<PathBuf, Failure> {
    match worker {
        None => expand(text),
        Some(_) if text.starts_with('/') => Ok(PathBuf::from(text)),
        Some(_) => {
            Err(Failure::new(Code::Usage, format!("{text}: a directory on a worker's host must be absolute"))
                .advise("write it from / on"))
        }
    }
}

async fn order(connection: &Connection, host: PathHost, order: PathOrder) -> Result<PathReport, Failure> {
    connection.storage.path_order(host, order).await.map_err(path_failure)
}

fn unexpected(report: &PathReport) -> Failure {
    Failure::new(Code::Failed, format!("the answer is to another question: {report:?}"))
}

/// `storage attach --worker`.
pub async fn attach_on_worker(connection: &Connection, worker: &String, args: &StorageAttachArgs) -> Outcome {
    let dir = directory(&args.path, Some(worker))?;
    let new = if args.init { Some(settings(args)?) } else { None };
    let host = host_of(Some(worker));
    match order(connection, host, PathOrder::Attach { dir: dir.clone(), new }).await? {
        PathReport::Attached { id, foreign } if args.json => {
            print_json(&json!({ "id": id, "path": dir, "worker": worker, "foreign": foreign }))
        }
        PathReport::Attached { id, foreign } => {
            line(&format!("attached {id} ({}) on {worker}", dir.display()))?;
            foreign.iter().try_for_each(|entry| line(&format!("left alone: {}", entry.display())))
        }
        other => Err(unexpected(&other)),
    }
}

/// `storage detach`.
pub async fn detach(connection: &Connection, args: &DetachArgs) -> Outcome {
    let unsaid = |what: &str| {
        let text = format!("{what} is not detached: its files stay, but nobody finds them any more");
        Failure::new(Code::Usage, text).advise("add --really-do-it")
    };
    if let Some(id) = &args.id {
        let id = storage_id(id)?;
        return if args.really_do_it {
            forget(connection, &id, args.json).await
        } else {
            Err(unsaid(id.as_str()))
        };
    }
    let dir = directory(args.path.as_deref().unwrap_or_default(), args.worker.as_ref())?;
    if !args.really_do_it {
        return Err(unsaid(&dir.display().to_string()));
    }
    match order(connection, host_of(args.worker.as_ref()), PathOrder::Detach { dir: dir.clone() }).await? {
        PathReport::Detached if args.json => print_json(&json!({ "path": dir, "worker": args.worker })),
        PathReport::Detached => line(&format!("detached {}", dir.display())),
        other => Err(unexpected(&other)),
    }
}

/// Has the manager forget a path that nobody serves.
async fn forget(connection: &Connection, id: &StorageId, json: bool) -> Outcome {
    let paths = connection.storage.storage_paths().await.map_err(rpc_failure)?;
    let Some(path) = paths.into_iter().find(|path| path.id == id.as_str()) else {
        return Err(Failure::new(Code::Storage, format!("the manager knows no storage path {id}"))
            .advise("`sealyard storage list` shows every path"));
    };
    if path.healthy || !path.workers.is_empty() {
        let who = if path.workers.is_empty() { "somebody".to_owned() } else { path.workers.join(", ") };
        return Err(Failure::new(Code::Storage, format!("storage path {id} is served by {who}"))
            .advise("detach it there: give its directory, and --worker for a worker's"));
    }
    for url in path.urls {
        connection.manager.storage_detach(id.clone(), url).await.map_err(path_failure)?;
    }
    if json { print_json(&json!({ "path": id })) } else { line(&format!("detached {id}")) }
}

/// `storage redeclare`: the difference first.
pub async fn redeclare(connection: &Connection, args: &RedeclareArgs) -> Outcome {
    let (host, id) = match (&args.path, &args.id, args.all) {
        (Some(path), None, false) => {
            let id = own_path(connection, path).await?;
            (PathHost::Owner(id.clone()), Some(id))
        }
        (None, Some(id), false) => {
            let id = storage_id(id)?;
            (PathHost::Owner(id.clone()), Some(id))
        }
        (None, None, true) => (host_of(args.worker.as_ref()), None),
        _ => {
            return Err(Failure::new(Code::Usage, "which path?").advise("give a directory, --id or --all"));
        }
    };
    let before = match order(connection, host.clone(), PathOrder::Compare { id: id.clone() }).await? {
        PathReport::Compared(differences) => differences,
        other => return Err(unexpected(&other)),
    };
    if !args.json {
        show::print_differences(&before, args.drop_missing, &super::operate::miners(connection).await?)?;
    }
    if !args.dry_run {
        let said = PathOrder::Redeclare { id, drop_missing: args.drop_missing };
        match order(connection, host, said).await? {
            PathReport::Redeclared(_) => {}
            other => return Err(unexpected(&other)),
        }
    }
    let done = !args.dry_run;
    if args.json {
        return print_json(&json!({ "done": done, "drop_missing": args.drop_missing, "paths": before }));
    }
    line(if done { "declared" } else { "nothing was changed (--dry-run)" })
}

/// `storage move`.
pub async fn move_sector(connection: &Connection, args: &MoveArgs) -> Outcome {
    let to = match args.to.parse::<StorageId>() {
        Ok(id) => id,
        Err(_) => own_path(connection, &args.to).await?,
    };
    let mut types = FileTypes::NONE;
    for text in &args.types {
        let kind: FileType = text
            .parse()
            .map_err(|error: sealtasks::FileTypeError| Failure::from_error(Code::Usage, &error))?;
        types = types.union(kind.into());
    }
    let number = args.number;
    connection.storage.move_sector(number, types, to.clone()).await.map_err(path_failure)?;
    if args.json {
        let places = connection.storage.sector_places(number).await.map_err(rpc_failure)?;
        return print_json(&show::FoundSector::from(places));
    }
    line(&format!("sector {number} lies in {to}"))
}

/// `storage cleanup`.
pub async fn cleanup(connection: &Connection, args: &CleanupArgs) -> Outcome {
    let host = host_of(args.worker.as_ref());
    let surveys = match order(connection, host.clone(), PathOrder::Survey).await? {
        PathReport::Surveyed(surveys) => surveys,
        other => return Err(unexpected(&other)),
    };
    let offered = offered(&surveys);
    if !args.really_do_it {
        if args.json {
            return print_json(&json!({ "done": false, "paths": surveys }));
        }
        show::print_surveys(&surveys)?;
        return match offered.len() {
            0 => Ok(()),
            count => line(&format!("{count} can be deleted: add --really-do-it")),
        };
    }
    let cleaned =
        match order(connection, host, PathOrder::CleanUp { entries: offered, old: Vec::new() }).await? {
            PathReport::CleanedUp(cleaned) => cleaned,
            other => return Err(unexpected(&other)),
        };
    if args.json {
        return print_json(&json!({ "done": true, "paths": surveys, "cleaned": cleaned }));
    }
    show::print_cleaned(&cleaned)
}

fn offered(surveys: &[PathSurvey]) -> Vec<PathBuf> {
    let findings = surveys.iter().flat_map(|survey| &survey.findings);
    findings.filter(|found| found.offered).map(|found| found.entry.clone()).collect()
}

fn storage_id(text: &str) -> Result<StorageId, Failure> {
    text.parse().map_err(|error: sealtasks::IdError| Failure::from_error(Code::Usage, &error))
}

/// The id of the manager's path with this directory.
async fn own_path(connection: &Connection, text: &str) -> Result<StorageId, Failure> {
    let dir = expand(text)?;
    let open = connection.manager.storage_local().await.map_err(rpc_failure)?;
    let same = |known: &PathBuf| {
        *known == dir || known.canonicalize().ok().zip(dir.canonicalize().ok()).is_some_and(|(a, b)| a == b)
    };
    let found = open.into_iter().find(|(_, known)| same(known)).map(|(id, _)| id);
    found.ok_or_else(|| {
        Failure::new(Code::Storage, format!("{} is no storage path of the manager", dir.display()))
            .advise("`sealyard storage list` shows every path; a worker's is named by its id")
    })
}
