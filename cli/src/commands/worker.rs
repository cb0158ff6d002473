//! `worker info|resources|stop`: asking the worker on this machine.

use std::path::Path;

use rpc::WorkerApi;
use rpc::extension::ExecutorSetting;
use sealtasks::{ResourceTable, TaskType};
use serde_json::json;

use super::storage::worker_client;
use crate::args::WorkerCommand;
use crate::connect::{expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{bytes, line, print_json};

/// All of `worker` but `run`.
pub async fn worker(command: &WorkerCommand) -> Outcome {
    match command {
        WorkerCommand::Run(_) => unreachable!("`worker run` has a module of its own"),
        WorkerCommand::Info { worker_repo, json } => info(&expand(worker_repo)?, *json).await,
        WorkerCommand::Resources { all, default, json } => resources(*all, *default, *json),
        WorkerCommand::Tasks(command) => super::worker_tasks::tasks(command).await,
        WorkerCommand::Stop { worker_repo, json } => stop(&expand(worker_repo)?, *json).await,
    }
}

async fn stop(repo: &Path, json: bool) -> Outcome {
    let worker = worker_client(repo)?;
    let session = worker.process_session().await.map_err(rpc_failure)?;
    worker.storage_detach_all().await.map_err(rpc_failure)?;
    worker.shutdown().await.map_err(rpc_failure)?;
    if json { print_json(&json!({ "stopped": session })) } else { line(&format!("worker {session} stops")) }
}

async fn info(repo: &Path, json: bool) -> Outcome {
    let worker = worker_client(repo)?;
    let version = rpc::versions::Version(worker.version().await.map_err(rpc_failure)?);
    let session = worker.process_session().await.map_err(rpc_failure)?;
    let info = worker.info().await.map_err(rpc_failure)?;
    let state = worker.state().await.map_err(rpc_failure)?;
    let paths = worker.paths().await.map_err(rpc_failure)?;
    // The worker's own, from its process: this one's environment may be another.
    let settings = worker.settings().await.map_err(rpc_failure)?;
    let task_of = |setting: &ExecutorSetting| setting.task.map_or("all", TaskType::short);
    if json {
        let shown: Vec<_> = settings
            .iter()
            .map(|it| json!({ "task": task_of(it), "name": it.name, "value": it.value, "origin": it.origin }))
            .collect();
        return print_json(&json!({
            "version": version.to_string(), "session": session, "enabled": state.enabled, "hostname": info.hostname,
            "cpus": info.resources.cpus, "gpus": info.resources.gpus, "mem_physical": info.resources.mem_physical,
            "mem_used": info.resources.mem_used, "mem_swap": info.resources.mem_swap, "tasks": state.tasks,
            "pending": state.pending, "settings": shown,
            "paths": paths.iter().map(|path| json!({ "id": path.id, "local": path.local_path, "weight": path.weight,
                "can_seal": path.can_seal, "can_store": path.can_store })).collect::<Vec<_>>(),
        }));
    }
    line(&format!("Worker version:  {version}"))?;
    line(&format!("CLI version:     {}", env!("CARGO_PKG_VERSION")))?;
    line(&format!("Session: {session}"))?;
    line(&format!("Enabled: {}", state.enabled))?;
    line(&format!("Hostname: {}", info.hostname))?;
    line(&format!("CPUs: {}; GPUs: [{}]", info.resources.cpus, info.resources.gpus.join(", ")))?;
    line(&format!(
        "RAM: {}/{}; Swap: {}/{}",
        bytes(info.resources.mem_used),
        bytes(info.resources.mem_physical),
        bytes(info.resources.mem_swap_used),
        bytes(info.resources.mem_swap)
    ))?;
    let names: Vec<&str> = state.tasks.iter().map(|task| task.short()).collect();
    line(&format!("Task types: {}", names.join(" ")))?;
    for (task, reason) in &state.pending {
        line(&format!("Not yet: {task}: {reason}"))?;
    }
    line("Settings of executors:")?;
    for setting in &settings {
        let ExecutorSetting { name, value, origin, .. } = setting;
        line(&format!("        {:<5} {name}={value} ({origin})", task_of(setting)))?;
    }
    for path in paths {
        line(&format!("\n{}:", path.id))?;
        let uses = match (path.can_seal, path.can_store) {
            (true, true) => "Seal Store",
            (true, false) => "Seal",
            (false, true) => "Store",
            (false, false) => "ReadOnly",
        };
        line(&format!("        Weight: {}; Use: {uses}", path.weight))?;
        line(&format!("        Local: {}", path.local_path))?;
    }
    Ok(())
}

/// `worker resources`: Lotus's `NAME=value` lines; by default those that are set.
fn resources(all: bool, default: bool, json: bool) -> Outcome {
    let variable = |name: &str| if default { None } else { std::env::var(name).ok() };
    let variables =
        ResourceTable::variables(variable).map_err(|error| Failure::from_error(Code::Setting, &error))?;
    let rows: std::collections::BTreeMap<String, String> = variables
        .into_iter()
        .filter(|variable| all || default || variable.set.is_some())
        .filter_map(|variable| Some((variable.name, variable.effective?)))
        .collect();
    if json {
        return print_json(&rows);
    }
    rows.iter().try_for_each(|(name, value)| line(&format!("{name}={value}")))
}
